"""The pictures in docs/console: what the console shows of a small real cluster at work (``benchmarks.stage``).

    python -m benchmarks.screenshots [--out FOLDER] [--minutes M]    # the cluster works for so long before
    python -m benchmarks.screenshots --at lcq.yaml [--only NAME ...] # of a stage that is there already

The console is the real one, without a terminal. A picture is taken when it is live, what it asked for has come, and the
cluster answers quickly: on a busy machine that may take a while.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import re
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

from textual.pilot import Pilot

from benchmarks.drawing import draw_png, draw_svg, wide_font
from benchmarks.stage import CLUSTER, console_environment, on_stage
from lcq import lang
from lcq.config import load
from lcq.roots import Roots
from tui.app import ConsoleApp
from tui.cluster import Cluster
from tui.desk import Desk
from tui.gallery import Gallery

OUT = Path(__file__).parents[1] / "docs" / "console"
_PATIENCE_S = 240.0
_QUICK_MS = 80.0  # a question there and back: what it takes where the machine is not busy with others
_UNSETTLED = re.compile(
    r"reading|looking|fetching|LOADING|STALE|NO SCHEDULER|NO CLUSTER|BEHIND|No news|asking|正在读取"
)
_STILL_S = 1.5


@dataclass(frozen=True)
class Shot:
    """A picture: its name, the keys that lead there from the tasks, and how large and in which colours it is."""

    name: str
    keys: tuple[str, ...]
    size: tuple[int, int] = (120, 40)
    theme: str = "lcq-dark"
    language: str = "en"


def _typed(text: str) -> tuple[str, ...]:
    names = {" ": "space", ":": "colon", "/": "slash", "@": "at", "'": "apostrophe", '"': "quotation_mark",
             "-": "minus", "=": "equals_sign", "~": "tilde", ".": "full_stop", "_": "underscore"}  # fmt: skip
    return tuple(names.get(letter, letter) for letter in text)


def _filtered(text: str) -> tuple[str, ...]:
    return ("2", "slash", *_typed(text), "enter", "g")


_TASKS = ("2", "g", *["j"] * 6)
SHOTS = (
    Shot("tasks", (*_filtered("needs:attention -cause:image_missing"), "j", "space", "space", "j")),
    Shot("task", (*_filtered("state:done user:press-7 queue:gpu-high"), "j", "enter")),
    Shot("pictures", (*_filtered("state:done user:press-7 queue:gpu-high"), "i")),
    Shot("compare", (*_filtered("state:done try>1"), "equals_sign")),
    Shot("fleet", ("1", "g", "j")),
    Shot("charts", ("1", "h")),
    Shot("queues", ("3", "g")),
    Shot("queue", ("3", "g", "d")),
    Shot("nodes", ("4", "g", "j")),
    Shot("node", ("4", "g", "j", "d")),
    Shot("causes", ("5", "g")),
    Shot("cause", ("5", "g", "d")),
    Shot("activity", ("6", "slash", *_typed("-actor:ingest"), "enter", "g")),
    Shot("spend", ("7",)),
    Shot("schedules", ("8", "g", "j")),
    Shot("keys", ("9", "g")),
    Shot("submit", ("2", "s", *_typed("/srv/photos/studio-a/portraits"), "tab",
                    *_typed("/srv/photos/studio-a/portraits/masks"))),
    Shot("log", ("4", "g", "j", "l")),
    Shot("help", ("2", "question_mark")),
    Shot("command", (*_filtered("state:failed"), "space", "space", "space", "colon",
                     *_typed('move @marked --to gpu-medium --reason "more room there"'))),
    Shot("palette", ("2", "ctrl+p", *_typed("pri"))),
    Shot("tasks-80x24", ("2", "g", "exclamation_mark", "j"), (80, 24)),
    Shot("tasks-light", _TASKS, theme="lcq-light"),
    Shot("tasks-zh", _TASKS, language="zh"),
)  # fmt: skip


async def take(shot: Shot, settings: Path, out: Path) -> None:
    """One picture, as PNG and SVG, by a console of its own."""
    os.environ |= {"LCQ_CONFIG": str(settings), "COLORTERM": "truecolor", "LCQ_DISCOVERY__ENABLED": "0"}
    config = load()
    lang.speak(shot.language)
    async with Cluster(config) as cluster:
        desk = Desk(cluster, cluster, cluster=CLUSTER)
        desk.gallery = Gallery(cluster, limits=config.limits, roots=Roots(config.storage.roots))
        app = ConsoleApp(desk, user="maria", theme=shot.theme)
        async with app.run_test(size=shot.size) as pilot:
            await _settled(app, pilot)
            for key in shot.keys:
                await pilot.press(key)
                if key in ("enter", "d", "exclamation_mark") or key in "123456789":
                    await _settled(app, pilot)
            await _settled(app, pilot, quick=True)
            lines = app.screen._compositor.render_strips()
            draw_png(lines, shot.size, out / f"{shot.name}.png")
            draw_svg(lines, shot.size, out / f"{shot.name}.svg", f"lcq console: {shot.name}")
            print(f"{shot.name}", flush=True)


def _text(app: ConsoleApp) -> str:
    return "\n".join("".join(part.text for part in strip) for strip in app.screen._compositor.render_strips())


async def _settled(app: ConsoleApp, pilot: Pilot[int], *, quick: bool = False) -> None:
    """Wait until nothing is awaited any more; with ``quick`` also for a moment in which the cluster answers at once."""
    deadline, still = time.monotonic() + _PATIENCE_S, time.monotonic()
    while time.monotonic() - still < (_STILL_S if quick else _STILL_S / 3):
        await asyncio.sleep(0.1)
        app.desk.flush()
        app.show_news()
        await pilot.pause()
        link = app.desk.link
        trips = [took if took is not None else 1e9 for took in (link.redis_ms, link.control_ms)]
        slow = quick and max(trips) > _QUICK_MS and time.monotonic() < deadline - _PATIENCE_S / 2
        if not link.loaded or link.is_stale or slow or _UNSETTLED.search(_text(app)):
            still = time.monotonic()
        if time.monotonic() > deadline:
            raise TimeoutError(f"it did not come to rest:\n{_text(app)}")


def main() -> None:
    arguments = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    arguments.add_argument("--out", type=Path, default=OUT)
    arguments.add_argument("--at", type=Path, help="the settings of a stage that is there already")
    arguments.add_argument("--only", nargs="*", default=[shot.name for shot in SHOTS])
    arguments.add_argument("--minutes", type=float, default=20, help="how long it works before the pictures are taken")
    chosen = arguments.parse_args()
    chosen.out.mkdir(parents=True, exist_ok=True)
    if chosen.at is not None:
        _take_all(chosen.at, chosen.out, chosen.only)
        return
    with (
        tempfile.TemporaryDirectory(prefix="lcq-stage-") as name,
        on_stage(Path(name)) as stage,
        stage.at_work(chosen.minutes),
    ):
        time.sleep(chosen.minutes * 60)
        _take_all(Path(console_environment(stage)["LCQ_CONFIG"]), chosen.out, chosen.only)


def _take_all(settings: Path, out: Path, names: list[str]) -> None:
    for shot in SHOTS:
        if shot.name not in names:
            continue
        if shot.language == "zh" and wide_font() is None:
            print(f"{shot.name}: left out, no font here has Chinese", flush=True)
            continue
        try:
            asyncio.run(take(shot, settings, out))
        except TimeoutError as late:
            print(f"{shot.name}: not taken: {late}", flush=True)


if __name__ == "__main__":
    main()
