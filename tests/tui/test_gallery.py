"""Where a task's pictures come from, in which order, with which words where they do not; what of them is kept."""

from __future__ import annotations

import asyncio
import base64
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from lcq.errors import NoThumbnail, UnknownCommand
from lcq.models import TaskRecord, TaskResult, TaskStatus
from lcq.roots import Roots
from lcq.thumbnails import read_thumbnail, to_jpeg, to_png
from lcq.wire import ThumbnailPart
from tests.conftest import wait_until
from tests.tui.fakes import FakeCluster, a_task
from tui.gallery import Gallery

SAMPLES = Path("sample-config")


def a_finished_task(folder: Path, **more: object) -> TaskRecord:
    """One whose three files are in ``folder``."""
    shutil.copy(SAMPLES / "photos/rocket.jpg", folder / "rocket.jpg")
    shutil.copy(SAMPLES / "photos/rocket.jpg", folder / "done.jpg")
    shutil.copy(SAMPLES / "masks/rocket.png", folder / "mask.png")
    after = folder / "done.jpg"
    result = TaskResult(
        path=str(after), bytes=after.stat().st_size, sha256="ab" * 32, width=640, height=427, seconds=1.0,
        mask_fraction=0.0445,
    )  # fmt: skip
    values = {"status": TaskStatus.COMPLETED, "result": result, "size": (640, 427)} | more
    return a_task(str(folder / "rocket.jpg"), task_mask_path=str(folder / "mask.png"), **values)


def sent(part: str) -> ThumbnailPart:
    name = "masks/rocket.png" if part == "mask" else "photos/rocket.jpg"
    small = read_thumbnail(str(SAMPLES / name), longest=64, as_mask=part == "mask")
    data = to_png(small.pixels) if part == "mask" else to_jpeg(small.pixels)
    return ThumbnailPart(data=base64.b64encode(data).decode(), width=640, height=427, bytes=1000)


def test_a_console_that_shows_no_picture_loads_nothing_for_them():
    code = "import sys, tui.app; print(sorted({'numpy', 'PIL', 'textual_image'} & sys.modules.keys()))"
    said = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert said.stdout.strip() == "[]"


async def test_files_that_are_here_are_read_here_and_nobody_is_asked(tmp_path):
    cluster, record = FakeCluster(), a_finished_task(tmp_path)
    pictures = await Gallery(cluster).look(record, longest=64)
    assert {part: one.why for part, one in pictures.parts.items()} == {"before": "", "mask": "", "after": ""}
    assert pictures.scene.fits
    assert pictures.sources == ()
    assert pictures.hole == 0.0445
    assert pictures.compared is not None
    assert pictures.compared.most == 0
    assert cluster.looks == []


async def test_what_is_not_here_comes_from_the_tasks_node(tmp_path):
    cluster = FakeCluster()
    record = a_task("/nowhere/rocket.jpg", task_mask_path="/nowhere/mask.png")
    cluster.thumbnails = {(record.id, part): sent(part) for part in ("before", "mask")}
    box = (0.25, 0.25, 0.75, 0.75)
    pictures = await Gallery(cluster).look(record, longest=4000, box=box)
    assert cluster.looks == [(record.id, ("before", "mask"), 1024, box)]
    assert pictures.sources == ("gpu-1",)
    before, mask = pictures.parts["before"].thumbnail, pictures.parts["mask"].thumbnail
    assert before is not None
    assert mask is not None
    assert (before.size, before.box, mask.pixels.ndim) == ((640, 427), box, 2)
    assert pictures.parts["after"].why == "no result yet: the task is queued"


@pytest.mark.parametrize("status", [TaskStatus.COMPLETED, TaskStatus.FAILED])
async def test_a_result_that_left_no_file_is_looked_for_nowhere(tmp_path, status):
    cluster = FakeCluster()
    result = TaskResult(path="", bytes=0, sha256="ab" * 32, width=0, height=0, seconds=1.0)
    record = a_finished_task(tmp_path, status=status, result=result)
    pictures = await Gallery(cluster).look(record, longest=64)
    assert pictures.parts["after"].why == f"its result is no file: the task is {status}"
    assert cluster.looks == []


async def test_another_file_under_the_same_name_is_not_taken_for_the_tasks(tmp_path):
    cluster, record = FakeCluster(), a_finished_task(tmp_path, size=(1, 2))
    shutil.copy(SAMPLES / "photos/coffee.jpg", record.result.path)
    cluster.thumbnail_trouble = NoThumbnail(record.id, "no live agent shows pictures")
    parts = (await Gallery(cluster).look(record, longest=64)).parts
    assert parts["before"].why.startswith("on this machine the file of that name is 640 x 427, the task's picture was")
    assert parts["after"].thumbnail is None


@pytest.mark.parametrize(
    ("trouble", "words"),
    [
        (NoThumbnail("x", "no live agent shows pictures"), "no live agent shows pictures"),
        (UnknownCommand("no command"), "the scheduler is older and has no pictures made"),
    ],
)
async def test_why_there_is_no_picture_names_what_was_tried(trouble, words):
    cluster = FakeCluster()
    cluster.thumbnail_trouble = trouble
    why = (await Gallery(cluster).look(a_task("/nowhere/\x1b[2Jx.jpg"), longest=64)).parts["before"].why
    assert "is not on this machine; " in why
    assert words in why
    assert "\x1b" not in why


async def test_what_a_node_sends_is_decoded_like_any_strangers_file():
    cluster, record = FakeCluster(), a_task("/nowhere/x.jpg")
    cluster.thumbnails[record.id, "before"] = ThumbnailPart(data=base64.b64encode(b"GIF89a no JPEG").decode())
    assert "is no picture" in (await Gallery(cluster).look(record, longest=64)).parts["before"].why


async def test_a_mask_of_another_size_is_said_and_not_drawn(tmp_path):
    record = a_finished_task(tmp_path)
    shutil.copy(SAMPLES / "masks/coffee.png", tmp_path / "mask.png")
    mask = (await Gallery(FakeCluster()).look(record, longest=64)).parts["mask"]
    assert (mask.thumbnail, mask.why) == (None, "the mask is 600 x 400, the picture 640 x 427")


async def test_what_lies_outside_the_consoles_roots_is_asked_for_like_what_is_not_there(tmp_path):
    cluster, record = FakeCluster(), a_finished_task(tmp_path)
    cluster.thumbnails = {(record.id, part): sent(part) for part in ("before", "mask", "after")}
    pictures = await Gallery(cluster, roots=Roots([tmp_path / "other"])).look(record, longest=64)
    assert pictures.sources == ("gpu-1",)


async def test_no_more_is_kept_than_may_be_and_what_failed_is_asked_again(tmp_path):
    record = a_finished_task(tmp_path)
    gallery = Gallery(FakeCluster(), most_bytes=60_000)
    for longest in (64, 80, 96, 112):
        await gallery.look(record, longest=longest)
    assert 0 < gallery.kept_bytes <= 60_000
    newest = gallery.known(record.id, record.revision)
    assert newest is not None
    assert newest.parts["before"].thumbnail.pixels.shape[1] == 112
    assert await gallery.look(record, longest=112) is newest
    lost = a_task("/nowhere/x.jpg")
    cluster = FakeCluster()
    cluster.thumbnail_trouble = NoThumbnail(lost.id, "none")
    gallery = Gallery(cluster)
    await gallery.look(lost, longest=64)
    await gallery.look(lost, longest=64)
    assert len(cluster.looks) == 2


async def test_a_look_that_is_cancelled_leaves_nothing_behind():
    cluster, record = FakeCluster(), a_task("/nowhere/x.jpg")
    cluster.shutter.clear()
    gallery = Gallery(cluster)
    look = asyncio.create_task(gallery.look(record, longest=64))
    await wait_until(lambda: cluster.looks)
    look.cancel()
    await asyncio.wait({look})
    assert look.cancelled()
    assert gallery.kept_bytes == 0
