"""The pictures in docs/console: what the console shows of a small real cluster at work.

    python -m benchmarks.screenshots [--out FOLDER] [--only NAME ...]   # make pictures: of the scene that is kept
    python -m benchmarks.screenshots --stage [--minutes M]              # write that down anew, from benchmarks.stage

The console is the real one, without a terminal. What it sees is a moment of a cluster (``benchmarks.scene``), so the
same code paints the same pictures, byte by byte where the fonts are the same.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import re
import tempfile
import time
from dataclasses import dataclass, replace
from pathlib import Path
from typing import cast

from textual.pilot import Pilot
from textual.widgets import Input

from benchmarks.drawing import draw_png, draw_svg, wide_font
from benchmarks.scene import Scene, StillLink
from benchmarks.stage import CLUSTER, console_environment, on_stage
from lcq import lang
from lcq.config import load
from tui.app import ConsoleApp
from tui.cluster import Cluster
from tui.desk import Desk
from tui.gallery import Gallery
from tui.source import Commander, Reader
from tui.submitting import Wish, prepare

OUT = Path(__file__).parents[1] / "docs" / "console"
_PATIENCE_S = 240.0
_UNSETTLED = re.compile(
    r"reading|looking|fetching|LOADING|STALE|NO SCHEDULER|NO CLUSTER|BEHIND|No news|asking|正在读取"
)
_STILL_S = 0.5


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


_CLEAN = "state:done user:press-7 queue:gpu-high"
_AGAIN = "state:done try>1"
_WISH = Wish(("sample-config/photos",), "cv2-telea", "maria", mask="sample-config/masks")
"""What the form of a picture submits, from where this is run."""
_PICTURED = (_CLEAN, _AGAIN, "state:queued", "state:processing", "state:done", "state:failed")
"""Of what there are pictures in the scene."""
_TASKS = ("2", "g", *["j"] * 5)
_LARGE = (
    Shot("tasks", (*_filtered("needs:attention -cause:image_missing"), "j", "space", "space", "j")),
    Shot("task", (*_filtered(_CLEAN), "j", "enter")),
    Shot("pictures", (*_filtered(_CLEAN), "i")),
    Shot("compare", (*_filtered(_AGAIN), "equals_sign")),
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
    Shot("submit", ("2", "s", *_typed("sample-config/photos"), "tab", *_typed("sample-config/masks"))),
    Shot("log", ("4", "g", "j", "l")),
    Shot("help", ("2", "question_mark")),
    Shot("command", (*_filtered("state:failed"), "space", "space", "space", "colon",
                     *_typed('move @marked --to gpu-medium --reason "more room there"'))),
    Shot("palette", ("2", "ctrl+p", *_typed("pri"))),
    Shot("tasks-light", _TASKS, theme="lcq-light"),
    Shot("tasks-zh", _TASKS, language="zh"),
)  # fmt: skip
SMALL = (80, 24)
SHOTS = (*_LARGE, *(replace(shot, name=f"{shot.name}-80x24", size=SMALL) for shot in _LARGE))


async def take(shot: Shot, scene: Scene, out: Path) -> None:
    """One picture, as PNG and SVG, by a console of its own."""
    os.environ |= {"COLORTERM": "truecolor", "TZ": "UTC"}
    os.environ.pop("NO_COLOR", None)
    lang.speak(shot.language)
    with scene.time_stands_still():
        desk = Desk(cast("Reader", scene), cast("Commander", scene), cluster=CLUSTER, link=StillLink())
        desk.gallery = Gallery(scene, recorded=lambda record, part: True)
        app = ConsoleApp(desk, user="maria", theme=shot.theme)
        async with app.run_test(size=shot.size) as pilot:
            await _settled(app, pilot)
            for key in shot.keys:
                await pilot.press(key)
                if key in ("enter", "d", "exclamation_mark") or key in "123456789":
                    await _settled(app, pilot)
            await _settled(app, pilot)
            for field in app.screen.query(Input):
                field._pause_blink(visible=True)  # seen, in each picture
            await pilot.pause()
            lines = app.screen._compositor.render_strips()
            draw_png(lines, shot.size, out / f"{shot.name}.png")
            draw_svg(lines, shot.size, out / f"{shot.name}.svg", f"lcq console: {shot.name}")
            print(f"{shot.name}", flush=True)


def _text(app: ConsoleApp) -> str:
    return "\n".join("".join(part.text for part in strip) for strip in app.screen._compositor.render_strips())


async def _settled(app: ConsoleApp, pilot: Pilot[int]) -> None:
    """Wait until nothing is awaited any more."""
    deadline, still, seen = time.monotonic() + _PATIENCE_S, time.monotonic(), ""
    while time.monotonic() - still < _STILL_S:
        await asyncio.sleep(0.05)
        app.desk.flush()
        app.show_news()
        await pilot.pause()
        before, seen = seen, _text(app)
        if seen != before or not app.desk.link.loaded or _UNSETTLED.search(seen):
            still = time.monotonic()
        if time.monotonic() > deadline:
            raise TimeoutError(f"it did not come to rest:\n{seen}")


def main() -> None:
    arguments = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    arguments.add_argument("--out", type=Path, default=OUT)
    arguments.add_argument("--only", nargs="*", default=[shot.name for shot in SHOTS], metavar="NAME")
    arguments.add_argument("--stage", action="store_true", help="write the scene anew, from a real cluster")
    arguments.add_argument("--at", type=Path, help="the settings of a stage that is there already")
    arguments.add_argument("--minutes", type=float, default=20, help="how long it works before that")
    chosen = arguments.parse_args()
    chosen.out.mkdir(parents=True, exist_ok=True)
    if chosen.at is not None:
        asyncio.run(_write_scene(chosen.at))
    elif chosen.stage:
        with (
            tempfile.TemporaryDirectory(prefix="lcq-stage-") as name,
            on_stage(Path(name)) as stage,
            stage.at_work(chosen.minutes),
        ):
            time.sleep(chosen.minutes * 60)
            asyncio.run(_write_scene(Path(console_environment(stage)["LCQ_CONFIG"])))
    asyncio.run(_take_all(Scene.read(), chosen.out, chosen.only))


async def _write_scene(settings: Path) -> None:
    """What the cluster is now, and what it answers to all that is asked for the pictures."""
    os.environ |= {"LCQ_CONFIG": str(settings), "LCQ_DISCOVERY__ENABLED": "0"}
    async with Cluster(load()) as cluster:
        (await Scene.of(cluster, _PICTURED, prepare(_WISH).tasks)).save()


async def _take_all(scene: Scene, out: Path, names: list[str]) -> None:
    for shot in SHOTS:
        if shot.name not in names:
            continue
        if shot.language == "zh" and wide_font() is None:
            print(f"{shot.name}: left out, no font here has Chinese", flush=True)
            continue
        await take(shot, scene, out)


if __name__ == "__main__":
    main()
