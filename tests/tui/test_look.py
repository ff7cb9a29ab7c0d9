"""The looks: readable on every ground, and complete without any colour."""

from __future__ import annotations

import pytest
from textual.color import Color

from lcq.models import NodeStatus, TaskStatus
from tests.tui.fakes import FakeCluster, a_node, a_task
from tui.columns import NODE_LOOK, TASK_LOOK
from tui.themes import THEMES
from tui.widgets.frame import TONE_STYLE

TONES = tuple(TONE_STYLE)
TEXTS = ("foreground", "text-primary", "text-success", "text-warning", "text-error", "text-muted", "text-accent")


def contrast(one: Color, other: Color) -> float:
    """The contrast of WCAG 2, from 1 to 21."""

    def luminance(color: Color) -> float:
        parts = [part / 255 for part in color.rgb]
        red, green, blue = (part / 12.92 if part <= 0.04045 else ((part + 0.055) / 1.055) ** 2.4 for part in parts)
        return 0.2126 * red + 0.7152 * green + 0.0722 * blue

    dark, light = sorted((luminance(one), luminance(other)))
    return (light + 0.05) / (dark + 0.05)


@pytest.mark.parametrize("theme", [theme.name for theme in THEMES])
async def test_every_tone_reads_at_4_5_to_1_on_every_ground_of_the_table(open_console, theme):
    async with open_console(FakeCluster([a_task()])) as console:
        console.app.theme = theme
        await console.pilot.pause()
        for tone in (*TONES, "header", "sorted"):
            grounds = ("", "cursor", "marked") if tone in TONES else ("",)
            for ground in grounds:
                style = console.table._style(tone, ground)
                assert style.color is not None
                assert style.bgcolor is not None
                text, back = Color.from_rich_color(style.color), Color.from_rich_color(style.bgcolor)
                assert contrast(text, back) >= 4.5, (tone, ground)


@pytest.mark.parametrize("theme", THEMES, ids=lambda theme: theme.name)
def test_the_lines_around_the_table_read_at_4_5_to_1(theme):
    colours = theme.to_color_system().generate()
    grounds = [Color.parse(colours[name]) for name in ("background", "surface", "panel")]
    for name in TEXTS:
        for ground in grounds:
            assert contrast(Color.parse(colours[name]), ground) >= 4.5, name
    assert contrast(Color.parse(colours["background"]), Color.parse(colours["text-error"])) >= 4.5


def test_each_state_has_a_letter_of_its_own():
    assert len({letter for letter, _ in TASK_LOOK.values()}) == len(TaskStatus)
    assert len({letter for letter, _ in NODE_LOOK.values()}) == len(NodeStatus)


async def test_without_colour_state_cursor_and_marks_are_still_told(open_console, monkeypatch):
    monkeypatch.setenv("NO_COLOR", "1")
    cluster = FakeCluster([a_task(status=status) for status in TaskStatus], [a_node()])
    async with open_console(cluster) as console:
        await console.press("j", "space")
        text = console.text()
        for status in TaskStatus:
            assert f"{TASK_LOOK[status][0]} {status.upper()}" in text
        assert any(line.startswith(">") for line in console.lines())
        assert any(line.startswith(" *") for line in console.lines())


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
    async with open_console(FakeCluster([a_task()])) as console:
        if theme in console.app.available_themes:
            console.app.theme = theme
            await console.settle()
        assert ". QUEUED" in console.text()
