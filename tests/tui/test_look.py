"""The looks: readable on every ground, told apart by every eye, and complete without any colour."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta

import pytest
from rich.color import Color as RichColor
from rich.color import ColorSystem
from rich.segment import Segment
from rich.terminal_theme import TerminalTheme
from textual.color import Color
from textual.theme import BUILTIN_THEMES

from lcq.errors import InvalidInput
from lcq.models import NodeStatus, TaskStatus
from lcq.query import parse
from tests.conftest import wait_until
from tests.tui.fakes import FakeCluster, a_failure, a_node, a_task, now_ms
from tui.app import ConsoleApp
from tui.columns import NODE_LOOK, TASK_FIELDS, TASK_LOOK, TASK_MORE
from tui.remembered import Remembered
from tui.store import TaskRow, task_row
from tui.themes import FALLBACK, GROUNDS, TEXTS, THEME_NAMES, THEMES, choose_theme, legible
from tui.widgets.frame import Banner

PLAIN = [theme for theme in THEMES if not theme.ansi]
XTERM = TerminalTheme(  # what xterm calls its sixteen colours, on black
    (0, 0, 0), (255, 255, 255),
    [(0, 0, 0), (205, 0, 0), (0, 205, 0), (205, 205, 0), (0, 0, 238), (205, 0, 205), (0, 205, 205), (229, 229, 229)],
    [(127, 127, 127), (255, 0, 0), (0, 255, 0), (255, 255, 0), (92, 92, 255), (255, 0, 255), (0, 255, 255),
     (255, 255, 255)],
)  # fmt: skip
XTERM_ON_WHITE = TerminalTheme((255, 255, 255), (0, 0, 0), list(XTERM.ansi_colors._colors[:8]),
                               list(XTERM.ansi_colors._colors[8:]))  # fmt: skip


def contrast(one: Color, other: Color) -> float:
    """The contrast of WCAG 2, from 1 to 21."""

    def luminance(color: Color) -> float:
        parts = [part / 255 for part in color.rgb]
        red, green, blue = (part / 12.92 if part <= 0.04045 else ((part + 0.055) / 1.055) ** 2.4 for part in parts)
        return 0.2126 * red + 0.7152 * green + 0.0722 * blue

    dark, light = sorted((luminance(one), luminance(other)))
    return (light + 0.05) / (dark + 0.05)


# How those who lack the one or the other kind of cones see linear RGB (Machado, Oliveira and Fernandes 2009).
PROTAN = ((0.152286, 1.052583, -0.204868), (0.114503, 0.786281, 0.099216), (-0.003882, -0.048116, 1.051998))
DEUTAN = ((0.367322, 0.860646, -0.227968), (0.280085, 0.672501, 0.047413), (-0.011820, 0.042940, 0.968881))


def difference(one: Color, other: Color, eye: tuple[tuple[float, ...], ...]) -> float:
    """How different two colours look to such an eye, in CIE Lab: 2 is hardly seen, 25 at a glance."""

    def lab(color: Color) -> tuple[float, float, float]:
        parts = [part / 255 for part in color.rgb]
        linear = [part / 12.92 if part <= 0.04045 else ((part + 0.055) / 1.055) ** 2.4 for part in parts]
        red, green, blue = (
            min(1.0, max(0.0, sum(a * b for a, b in zip(row, linear, strict=True)))) for row in eye
        )  # fmt: skip
        x = (0.4124 * red + 0.3576 * green + 0.1805 * blue) / 0.95047
        y = 0.2126 * red + 0.7152 * green + 0.0722 * blue
        z = (0.0193 * red + 0.1192 * green + 0.9505 * blue) / 1.08883
        x, y, z = (part ** (1 / 3) if part > 0.008856 else 7.787 * part + 16 / 116 for part in (x, y, z))
        return 116 * y - 16, 500 * (x - y), 200 * (y - z)

    return sum((a - b) ** 2 for a, b in zip(lab(one), lab(other), strict=True)) ** 0.5


def variables_of(name: str) -> dict[str, str]:
    """The colours of a theme, as the console's app makes them."""
    theme = {one.name: one for one in (*THEMES, *BUILTIN_THEMES.values())}[name]
    colours = theme.to_color_system().generate() | theme.variables
    colours = {own: colours[other] for own, other in FALLBACK.items()} | colours
    return colours if name in THEME_NAMES else colours | legible(colours, dark=theme.dark)


@pytest.mark.parametrize("name", [one.name for one in (*PLAIN, *BUILTIN_THEMES.values()) if not one.ansi])
def test_every_text_of_every_theme_reads_at_4_5_to_1_on_every_ground(name):
    colours = variables_of(name)
    for text in TEXTS:
        for ground in GROUNDS:
            both = Color.parse(colours[text]), Color.parse(colours[ground])
            assert contrast(*both) >= 4.5, (text, ground, both)
    assert contrast(Color.parse(colours["background"]), Color.parse(colours["text-error"])) >= 4.5  # the banner


@pytest.mark.parametrize("theme", PLAIN, ids=lambda theme: theme.name)
@pytest.mark.parametrize("eye", [PROTAN, DEUTAN], ids=["protan", "deutan"])
def test_well_and_wrong_look_different_to_eyes_that_see_red_and_green_alike(theme, eye):
    good, bad, plain = (Color.parse(theme.variables[f"text-{name}"]) for name in ("success", "error", "muted"))
    assert difference(good, bad, eye) > 25
    assert difference(bad, plain, eye) > 25
    if "blue" in theme.name:
        assert difference(good, bad, eye) > 75
        for color in map(Color.parse, theme.variables.values()):
            red, green, blue = color.rgb
            assert not (green > red + 20 and green > blue + 20), f"{color.hex} is green"
            assert not (red > 1.6 * green and red > 1.6 * blue and green < 110 and red > 150), f"{color.hex} is red"


def a_cluster_of_every_state() -> FakeCluster:
    """Each state of a task and of a node once, a failure and a paused queue: whatever has a colour of its own."""
    tasks = [a_task(f"/p/{status}.jpg", status=status) for status in TaskStatus]
    tasks.append(a_task("/p/x.jpg", status=TaskStatus.FAILED, failure=a_failure(), node="gpu-1"))
    nodes = [
        a_node(f"gpu-{n}", status=status, why="why", seen_ms=now_ms() - 60_000) for n, status in enumerate(NodeStatus)
    ]
    cluster = FakeCluster(tasks, nodes)
    cluster.paused["gpu-high"] = "a reason"
    return cluster


def painted(app: ConsoleApp) -> Iterator[Segment]:
    """What goes to the terminal, after every filter; of a modal its dialog alone, for what is behind it is not read."""
    screen = app.screen
    region = screen.query_one(".dialog").region if screen.is_modal else screen.region
    for strip in screen._compositor.render_strips()[region.y : region.bottom]:
        strip = strip.crop(region.x, region.right)
        for one in app._filters:
            if one.enabled:
                strip = strip.apply_filter(one, Color(0, 0, 0))
        yield from strip


@pytest.mark.usefixtures("news_may_stop")
async def test_what_is_really_painted_reads_at_4_5_to_1_in_every_theme(open_console):
    seen: dict[str, set[tuple[RichColor | None, RichColor | None, str]]] = {name: set() for name in THEME_NAMES}
    cluster = a_cluster_of_every_state()
    async with open_console(cluster, size=(120, 24), theme="lcq-ansi") as console:
        cluster.control_silent = True
        banner = console.app.screen.query_one(Banner)
        await wait_until(lambda: "No scheduler answers" in banner.text, timeout=60)
        for keys in (("j", "space", "space"), ("4",), ("2", "d"), ("question_mark",)):
            await console.press(*keys)
            for name in THEME_NAMES:
                console.app.theme = name
                await console.pilot.pause()
                for segment in painted(console.app):
                    style, text = segment.style, segment.text.strip(" │█▁▂▃▄▅▆▇─")
                    if text and style is not None:
                        assert not style.dim, segment
                        seen[name].add((style.color, style.bgcolor, text[:20]))
    for name, styles in seen.items():
        palette = XTERM_ON_WHITE if name == "lcq-ansi-light" else XTERM
        assert len(styles) > 40
        assert any("No scheduler answers" in text for _, _, text in styles)
        for color, back, text in styles:
            front = color.get_truecolor(palette, foreground=True) if color else palette.foreground_color
            ground = back.get_truecolor(palette, foreground=False) if back else palette.background_color
            both = Color(*front), Color(*ground)
            assert contrast(*both) >= 4.5, (name, text, both)


def test_each_state_has_a_letter_of_its_own():
    assert len({letter for letter, _ in TASK_LOOK.values()}) == len(TaskStatus)
    assert len({letter for letter, _ in NODE_LOOK.values()}) == len(NodeStatus)


def test_a_deadline_says_in_words_whether_it_is_kept_and_stands_in_order_with_those_that_have_none_last():
    now = 1_800_000_000_000
    done_by = datetime.fromtimestamp(now / 1000, UTC)

    def of(status: TaskStatus, after_s: float, **more: object) -> TaskRow:
        return task_row(a_task(status=status, task_deadline=done_by - timedelta(seconds=after_s), **more))

    column = next(one for one in TASK_MORE if one.id == "deadline")
    rows = {
        "in 30m": of(TaskStatus.QUEUED, -1_800), "! LATE 5m": of(TaskStatus.PROCESSING, 300),
        "# kept": of(TaskStatus.COMPLETED, 300, finished_ms=now - 300_000),
        "! LATE 2m": of(TaskStatus.COMPLETED, 300, finished_ms=now - 180_000),
        "- not done": of(TaskStatus.CANCELLED, 300, finished_ms=now), "--": task_row(a_task()),
    }  # fmt: skip
    assert {said: column.cell(row, now)[0] for said, row in rows.items()} == {said: said for said in rows}
    ordered = sorted(rows, key=lambda said: column.sort(rows[said]))
    assert (ordered[-2:], column.extra) == (["in 30m", "--"], True)
    fits = {word: parse(word, TASK_FIELDS, lambda row: row.haystack) for word in ("late:yes", "late:no", "deadline<2h")}
    assert fits["late:yes"].timed
    found = {word: {said for said, row in rows.items() if one.matches(row, now)} for word, one in fits.items()}
    assert found["late:yes"] == {"! LATE 5m", "! LATE 2m"}
    assert found["late:no"] == {"in 30m", "# kept"}
    assert found["deadline<2h"] == set(rows) - {"--"}


async def test_without_colour_none_is_sent_and_state_cursor_and_marks_are_still_told(open_console, monkeypatch):
    monkeypatch.setenv("NO_COLOR", "1")
    cluster = FakeCluster([a_task(status=status) for status in TaskStatus], [a_node()])
    async with open_console(cluster) as console:
        await console.press("j", "space")
        text = console.text()
        for status in TaskStatus:
            assert f"{TASK_LOOK[status][0]} {status.upper()}" in text
        assert any(line.startswith(">") for line in console.lines())
        assert any(line.startswith(" *") for line in console.lines())
        for segment in painted(console.app):
            style = segment.style
            for color in (style.color, style.bgcolor) if style is not None else ():
                assert color is None or color.is_default, segment


@pytest.mark.parametrize("size", [(80, 24), (120, 40), (60, 15)])
async def test_the_frame_fits_the_terminal(open_console, size):
    cluster = FakeCluster([a_task()], [a_node()])
    async with open_console(cluster, size=size) as console:
        title, keys = console.lines()[0], console.lines()[-1]
        assert "LCQ" in title
        assert "LIVE" in title
        assert "? keys" in keys
        assert "AGE" in console.text()


@pytest.mark.parametrize("theme", ["textual-light", "nord", "ansi-dark"])
async def test_other_themes_work_too(open_console, theme):
    async with open_console(FakeCluster([a_task()]), theme=theme) as console:
        assert console.app.theme == theme
        assert ". QUEUED" in console.text()


# ---------------------------------------------------------------- which theme


def test_the_theme_suits_the_terminal_unless_one_is_named():
    assert choose_theme("", colours="truecolor", no_colour=False) == "lcq-dark"
    assert choose_theme("", colours="256", no_colour=False) == "lcq-dark"
    assert choose_theme("", colours="standard", no_colour=False) == "lcq-ansi"
    assert choose_theme("", colours="truecolor", no_colour=True) == "lcq-ansi"
    assert choose_theme("lcq-blue", colours="standard", no_colour=False) == "lcq-blue"
    with pytest.raises(InvalidInput, match="no theme 'purple'") as refused:
        choose_theme("purple", colours="truecolor", no_colour=False)
    assert "lcq-blue" in str(refused.value.hint)
    assert ColorSystem.STANDARD.name.casefold() == "standard"


async def test_a_key_changes_the_colours_and_the_choice_is_there_at_the_next_start(open_console, tmp_path):
    remembered = Remembered(tmp_path / "choices.json")
    async with open_console(FakeCluster([a_task()]), remembered=remembered) as console:
        before = console.app.theme
        await console.press("f2")
        await wait_until(lambda: console.app.theme != before)
        assert console.app.theme in console.text()  # it says which
        await wait_until(lambda: remembered.get("theme") == console.app.theme)


def test_what_is_remembered_survives_a_bad_file_and_is_written_whole(tmp_path):
    path = tmp_path / "new" / "choices.json"
    Remembered(path).put("theme", "nord")
    Remembered(path).put("lang", "中文")
    assert (Remembered(path).get("theme"), Remembered(path).get("lang")) == ("nord", "中文")
    assert [one.name for one in path.parent.iterdir()] == ["choices.json"]
    for bad in ("{", "[1]", "\x00"):
        path.write_text(bad)
        assert Remembered(path).get("theme") is None
    Remembered(tmp_path / "choices.json" / "x").put("theme", "nord")  # in a place where nothing can be written
    path.write_text("[]")
    (tmp_path / "plain").write_text("")
    Remembered(tmp_path / "plain" / "choices.json").put("theme", "nord")
