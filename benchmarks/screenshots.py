"""A small real cluster at work, and what the console shows of it: the pictures in docs/console.

    python -m benchmarks.screenshots [--out FOLDER]     # takes them; some four minutes
    python -m benchmarks.screenshots --stay             # only the cluster, with how to open a console on it

The cluster is of real processes on this machine: a scheduler, two agents, the sample photos (also enlarged) of three
users, files that cannot be cleaned, and a paused queue. The console is the real one, without a terminal.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import shlex
import tempfile
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path

from PIL import Image, ImageDraw, ImageFont
from rich.cells import cell_len
from rich.color import Color
from rich.style import Style
from textual.pilot import Pilot
from textual.strip import Strip

from lcq.client import Client
from lcq.config import DistributedConfig, load
from lcq.embedded import PrivateServer
from lcq.models import Task, TaskPriority, TaskType
from lcq.roots import Roots
from tests.cluster import Cluster, running_cluster
from tests.conftest import wait_until
from tui.app import ConsoleApp
from tui.cluster import Cluster as ConsoleCluster
from tui.desk import Desk
from tui.gallery import Gallery

SAMPLES = Path(__file__).parents[1] / "sample-config"
OUT = Path(__file__).parents[1] / "docs" / "console"
NODES = {"atelier-1": 2, "atelier-2": 1}
CELL, FONT_SIZE = (9, 18), 15
BLOCKS = {"▀": (0, 0.5), "▄": (0.5, 1), "█": (0, 1), **{chr(0x2580 + n): (1 - n / 8, 1) for n in range(1, 8)}}
SHOTS: dict[tuple[int, int], dict[str, tuple[str, ...]]] = {
    (120, 40): {
        "tasks": ("2", "g", "j"),
        "task": ("enter",),
        "pictures": ("i",),
        "fleet": ("escape", "escape", "1"),
        "queues": ("3", "g"),
        "nodes": ("4", "g"),
        "node": ("d",),
        "causes": ("escape", "5", "g"),
        "activity": ("6", "g"),
        "help": ("2", "question_mark"),
    },
    (80, 24): {"tasks": ("2", "g", "j")},
}
_SETTINGS = """
queues:
  - {name: cpu-intensive, kind: cpu, port_offset: 0}
  - {name: cpu-light, kind: cpu, port_offset: 1}
  - {name: gpu-high, kind: gpu, min_vram_mib: 8000, port_offset: 2}
"""


class Stage:
    """The cluster, and the work that it is given."""

    def __init__(self, cluster: Cluster, folder: Path) -> None:
        self.cluster, self._folder = cluster, folder
        self._given = 0

    def prepare(self) -> None:
        """Photos of several sizes, and what is none."""
        for name, width in (("press", 1400), ("archive", 2600), ("small", 0)):
            for kind in ("photos", "masks"):
                for source in sorted((SAMPLES / kind).iterdir()):
                    target = self._folder / name / kind / source.name
                    target.parent.mkdir(parents=True, exist_ok=True)
                    with Image.open(source) as image:
                        size = (width, width * image.height // image.width) if width else image.size
                        resized = image.resize(size, Image.Resampling.NEAREST if kind == "masks" else None)
                        resized.save(target)
        broken = self._folder / "press" / "photos" / "cut-off-in-transfer.jpg"
        broken.write_bytes((self._folder / "press" / "photos" / "coffee.jpg").read_bytes()[:9000])
        Image.new("L", (64, 48)).save(self._folder / "press" / "masks" / "of-another-size.png")

    def start(self) -> None:
        self.cluster.start_scheduler()
        for name, slots in NODES.items():
            self.cluster.start_agent(name, slots=slots)

    def tasks(self, sort: str, user: str, *, job: str = "", **more: object) -> list[Task]:
        """The seven photos of one size, as tasks of somebody's."""
        self._given += 1
        folder = self._folder / sort
        return [
            Task(
                task_type=TaskType.INPAINT, image_path=str(photo),
                mask_path=str(folder / "masks" / f"{photo.stem}.png"),
                output_path=str(self._folder / "out" / f"{self._given}-{photo.stem}.png"), user_id=user,
                job=job or None,
                config={"model": ("cv2-telea", "cv2-ns")[place % 2]}, **more,
            )
            for place, photo in enumerate(sorted((folder / "photos").iterdir()))
            if (folder / "masks" / f"{photo.stem}.png").exists()
        ]  # fmt: skip

    def give(self, client: Client) -> None:
        """Some of everything, and two acts of an operator's."""
        client.submit_many(self.tasks("small", "maria", job="portraits") * 1, queue="cpu-light")
        client.submit_many(self.tasks("archive", "ivo", job="archive-1962"), queue="cpu-intensive")
        client.submit_many(self.tasks("press", "press-7", job="press-7-friday", priority=TaskPriority.HIGH))
        press = self._folder / "press"
        for name, image, mask in (
            ("a", press / "photos" / "cut-off-in-transfer.jpg", press / "masks" / "coffee.png"),
            ("b", press / "photos" / "rocket.jpg", press / "masks" / "of-another-size.png"),
            ("c", press / "photos" / "camera.png", press / "masks" / "of-another-size.png"),
            ("d", press / "photos" / "not-there-yet.jpg", press / "masks" / "coffee.png"),
        ):
            task = Task(
                task_type=TaskType.INPAINT, image_path=str(image), mask_path=str(mask), user_id="press-7",
                output_path=str(self._folder / "out" / f"{name}.png"), config={"model": "cv2-telea"},
            )  # fmt: skip
            client.submit(task, queue="cpu-light")


@contextmanager
def on_stage(folder: Path) -> Iterator[Stage]:
    """The stage with its cluster running; all of it ends with the block."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "lcq.yaml").write_text(_SETTINGS)
    with PrivateServer(folder) as server:
        environment = {"LCQ_CONFIG": str(folder / "lcq.yaml"), "LCQ_DRILLS": "0", "LCQ_DISCOVERY__ENABLED": "0"}
        with running_cluster(server.tcp_url, folder / "data", **environment) as cluster:
            stage = Stage(cluster, folder)
            stage.prepare()
            stage.start()
            yield stage


def settings_of(stage: Stage) -> dict[str, str]:
    """The environment of a console on it."""
    cluster = stage.cluster
    return {
        "LCQ_REDIS__URL": cluster.redis_url, "LCQ_DATA_DIR": str(cluster.folder), "LCQ_DISCOVERY__ENABLED": "0",
        "LCQ_CONFIG": str(cluster.folder.parent / "lcq.yaml"), "LCQ_ZEROMQ__CONTROL_PORT": str(cluster.control_port),
    }  # fmt: skip


def work(stage: Stage, seconds: float) -> None:
    """Keep it busy for so long."""
    with cluster_client(stage, "maria") as maria:
        stage.give(maria)
        maria.pause("cpu-intensive", reason="new scanner profile, back at three")
        until = time.monotonic() + seconds
        while time.monotonic() < until:
            maria.submit_many(stage.tasks("press", "press-7", job="press-7-friday"), queue="cpu-light")
            time.sleep(6)
        failed = [record.id for record in maria.tasks("state:failed cause:image_missing")]
        maria.retry(failed, reason="the share was not mounted")
        waiting = [record.id for record in maria.tasks("queue:cpu-intensive")]
        maria.prioritise(waiting[:2], TaskPriority.URGENT, reason="for the exhibition")
        maria.submit_many(stage.tasks("archive", "ivo", job="archive-1963"), queue="cpu-light")


def cluster_client(stage: Stage, actor: str) -> Client:
    return Client(stage.cluster.config, scheduler=f"127.0.0.1:{stage.cluster.control_port}", actor=actor, timeout_s=120)


def as_png(strips: Iterable[Strip], size: tuple[int, int], path: Path) -> None:
    """Draw a screen, cell by cell."""
    font = ImageFont.truetype("DejaVuSansMono.ttf", FONT_SIZE)
    bold = ImageFont.truetype("DejaVuSansMono-Bold.ttf", FONT_SIZE)
    width, height = CELL
    image = Image.new("RGB", (size[0] * width, size[1] * height))
    draw = ImageDraw.Draw(image)
    for y, strip in enumerate(strips):
        x = 0
        for segment in strip:
            style = segment.style or Style()
            front, back = (_rgb(style.color, (224, 224, 224)), _rgb(style.bgcolor, (18, 18, 18)))
            if style.reverse:
                front, back = back, front
            for letter in segment.text:
                cells = cell_len(letter)
                box = (x * width, y * height, (x + cells) * width - 1, (y + 1) * height - 1)
                draw.rectangle(box, fill=back)
                part = BLOCKS.get(letter)
                if part is not None:
                    top, bottom = (round(share * height) for share in part)
                    draw.rectangle((box[0], box[1] + top, box[2], box[1] + bottom - 1), fill=front)
                elif letter.strip():
                    draw.text((box[0], box[1] + 1), letter, font=bold if style.bold else font, fill=front)
                x += cells
    image.quantize(128, method=Image.Quantize.FASTOCTREE, dither=Image.Dither.NONE).save(path, optimize=True)


def _rgb(colour: Color | None, otherwise: tuple[int, int, int]) -> tuple[int, int, int]:
    return otherwise if colour is None or colour.is_default else tuple(colour.get_truecolor())


async def shoot(stage: Stage, out: Path) -> None:
    """Each view, as SVG and PNG."""
    config = load_config(stage)
    for size, views in SHOTS.items():
        async with ConsoleCluster(config, scheduler=f"127.0.0.1:{stage.cluster.control_port}") as cluster:
            desk = Desk(cluster, cluster, cluster="atelier")
            desk.gallery = Gallery(cluster, limits=config.limits, roots=Roots(config.storage.roots))
            app = ConsoleApp(desk, user="maria", theme="lcq-dark")
            async with app.run_test(size=size) as pilot:
                await _settled(app, pilot)
                for name, keys in views.items():
                    await pilot.press(*keys)
                    await _settled(app, pilot)
                    stem = out / (f"{name}-{size[0]}x{size[1]}" if size != (120, 40) else name)
                    stem.with_suffix(".svg").write_text(app.export_screenshot(title="lcq console"), encoding="utf-8")
                    as_png(app.screen._compositor.render_strips(), size, stem.with_suffix(".png"))
                    print(f"{stem}.png", flush=True)


async def _settled(app: ConsoleApp, pilot: Pilot[int]) -> None:
    """The screen after what it asked for has come: there is no one sign for that."""
    await wait_until(lambda: app.desk.link.loaded)
    await asyncio.sleep(4)
    app.desk.flush()
    app.show_news()
    await pilot.pause()


def load_config(stage: Stage) -> DistributedConfig:
    os.environ |= settings_of(stage) | {"COLORTERM": "truecolor"}
    return load()


def main() -> None:
    arguments = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    arguments.add_argument("--out", type=Path, default=OUT)
    arguments.add_argument("--stay", action="store_true")
    arguments.add_argument("--seconds", type=float, default=120, help="how long it works before the pictures are taken")
    chosen = arguments.parse_args()
    with tempfile.TemporaryDirectory() as name, on_stage(Path(name)) as stage:
        if chosen.stay:
            told = " ".join(f"{name}={shlex.quote(value)}" for name, value in settings_of(stage).items())
            print(f"{told} lcq console", flush=True)
            while True:
                work(stage, 600)
        chosen.out.mkdir(parents=True, exist_ok=True)
        work(stage, chosen.seconds)
        asyncio.run(shoot(stage, chosen.out))


if __name__ == "__main__":
    main()
