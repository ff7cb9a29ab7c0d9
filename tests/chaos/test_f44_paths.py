"""F-44: whatever a task's paths are called, nothing outside of storage.roots is created, changed or read."""

from __future__ import annotations

import asyncio
import contextlib
import os
import random
import shutil
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from lcq.config import LimitsConfig
from lcq.errors import InvalidInput, OutsideRoots
from lcq.images import load_image, write_staged
from lcq.models import Task, TaskStatus, TaskType
from lcq.roots import Roots
from tests.cluster import running_cluster
from worker.outcomes import _publish, discard_staged

PHOTO = Path(__file__).parents[2] / "sample-config" / "photos" / "camera.png"
MASK = Path(__file__).parents[2] / "sample-config" / "masks" / "camera.png"
PIECES = [
    "..", ".", "", "a", "b.png", "~", "~root", "in", "out", "deep", "C:", "C:\\Windows", "..\\..\\x",
    "\\\\host\\share",
    "b.png", "b.png", "b.png", "x\n", "x\r\n.png", " ", "x.", "x...", "x ", "\x1b[2J", "\ud800",
    "%2e%2e", "..%2f..", "con", "nul:", "\u202e", "é" * 60,
    "n" * 255, "n" * 256, "m" * 4000, "x\x00y", "\x00", "-rf", "*", "$(id)", "`id`", ";",
    "proc", "self", "link", "loop", "gone",
]  # fmt: skip


@pytest.fixture
def place(tmp_path: Path) -> Iterator[Path]:
    """``root`` to work in, with links of every kind, and ``secret`` beside it, which must stay as it is."""
    root, secret = tmp_path / "root", tmp_path / "secret"
    (root / "deep" / "er").mkdir(parents=True)
    (root / "in").mkdir()
    secret.mkdir()
    shutil.copy(PHOTO, secret / "b.png")
    shutil.copy(PHOTO, root / "b.png")
    (secret / "passwd").write_text("root:x")
    (root / "out").symlink_to(secret)
    (root / "link").symlink_to("../secret/b.png")
    (root / "inside").symlink_to("deep")
    (root / "loop").symlink_to("loop")
    (root / "gone").symlink_to(secret / "not-yet")
    before = _seen(tmp_path)
    yield tmp_path
    after = {path: what for path, what in _seen(tmp_path).items() if not path.startswith(str(root))}
    assert after == {path: what for path, what in before.items() if not path.startswith(str(root))}


def _seen(folder: Path) -> dict[str, object]:
    found: dict[str, object] = {}
    for where, folders, files in os.walk(folder):
        for name in (*folders, *files):
            path = f"{where}/{name}"
            status = os.lstat(path)
            found[path] = (status.st_mode, status.st_size) if name in files else status.st_mode
    return found


def _names(place: Path, rng: random.Random, count: int) -> Iterator[str]:
    root = str(place / "root")
    starts = [
        root,
        root + "/",
        str(place),
        "/",
        "",
        root + "/deep/..",
        f"{root}/../root",
        f"//{root}",
        str(place / "rootless"),
    ]
    for _ in range(count):
        yield "/".join([rng.choice(starts), *rng.choices(PIECES, k=rng.randint(1, 5))])


def test_no_fuzzed_name_is_written_or_read_outside_of_the_root(place: Path, rng: random.Random) -> None:
    roots = Roots([place / "root"])
    read = written = 0
    real_root = os.path.realpath(place / "root")
    for name in _names(place, rng, 1000):
        try:
            picture = load_image(name, LimitsConfig(), roots)
        except (InvalidInput, OSError, ValueError):  # a lone surrogate is no name at all
            pass
        else:
            read += 1
            assert os.path.realpath(picture.path).startswith(real_root + "/")
        staged = Path(name).with_name(".result.png.lcq-tmp") if Path(name).name else Path(name)
        with contextlib.suppress(InvalidInput, OSError, ValueError):
            write_staged(staged, b"written", roots)
            written += 1
            _publish(str(staged), name, roots)
    print(f"{read} read and {written} written inside, of 1000 names")
    assert read > 0
    assert written > 0


@pytest.mark.parametrize("name", ["out/b.png", "link", "../secret/b.png", "deep/../../secret/b.png", "gone/x.png"])
def test_links_and_dots_that_lead_out_are_refused_by_name_of_the_root(place: Path, name: str) -> None:
    roots = Roots([place / "root"])
    with pytest.raises(OutsideRoots, match=r"storage\.roots"):
        load_image(f"{place}/root/{name}", LimitsConfig(), roots)
    with pytest.raises(OutsideRoots, match="root"):
        write_staged(place / "root" / Path(name).parent / ".." / ".." / "x.lcq-tmp", b"", roots)


def test_a_link_that_stays_inside_is_followed(place: Path) -> None:
    roots = Roots([place / "root"])
    write_staged(place / "root" / "inside" / "x.lcq-tmp", b"new", roots)
    assert (place / "root" / "deep" / "x.lcq-tmp").read_bytes() == b"new"


@pytest.mark.parametrize(
    ("path", "inside"),
    [("/r/a.png", True), ("/r/b/../a.png", True), ("/r/../a.png", False), ("a.png", False), ("~/a.png", False),
     ("/root/a.png", False), ("/r", True), ("//r/a.png", False), ("/r/../r/a.png", True), ("", False)],
)  # fmt: skip
def test_a_scheduler_tells_what_is_outside_by_the_name_alone(path: str, inside: bool) -> None:
    if inside:
        Roots([Path("/r")]).refuse_by_name(path)
    else:
        with pytest.raises(OutsideRoots):
            Roots([Path("/r")]).refuse_by_name(path)
    Roots().refuse_by_name(path)


def test_a_folder_that_is_swapped_for_a_link_under_way_leads_nowhere(place: Path) -> None:
    """Somebody renames the folder and puts a link to the secret in its place, all the time, as fast as it goes."""
    roots = Roots([place / "root"])
    folder, aside = place / "root" / "swapped", place / "root" / "aside"
    folder.mkdir()
    (folder / "b.png").write_bytes(b"mine")
    stop = threading.Event()

    def swap() -> None:
        while not stop.is_set():
            folder.rename(aside)
            while not folder.is_symlink():
                try:
                    folder.symlink_to(place / "secret")
                except FileExistsError:  # the writer was quicker and has made the folder anew
                    shutil.rmtree(folder, ignore_errors=True)
            time.sleep(0.0002)
            folder.unlink()
            while aside.exists():
                try:
                    aside.rename(folder)
                except OSError:  # the writer has made the folder anew in between
                    shutil.rmtree(folder, ignore_errors=True)
            time.sleep(0.0002)

    swapper = threading.Thread(target=swap)
    swapper.start()
    done = refused = 0
    try:
        until = time.monotonic() + 2.0
        while time.monotonic() < until:
            try:
                descriptor = roots.open_to_read(str(folder / "b.png"), os.O_RDONLY)
                with os.fdopen(descriptor, "rb") as file:
                    assert file.read(8) == b"mine"
                staged = folder / ".x.png.lcq-tmp"
                write_staged(staged, b"new", roots)
                _publish(str(staged), str(folder / "x.png"), roots)
                done += 1
            except (OSError, OutsideRoots):
                refused += 1
    finally:
        stop.set()
        swapper.join()
    print(f"{done} went well, {refused} were refused")
    assert done > 0
    assert refused > 0


async def test_the_leftovers_of_a_killed_attempt_are_looked_for_inside_only(place: Path) -> None:
    task = Task(task_type=TaskType.INPAINT, image_path="x.png", output_path=str(place / "root" / "out" / "x.png"))
    left_over = place / "secret" / f".x.{task.id}-1.lcq-tmp"
    left_over.touch()
    await discard_staged(task, 1, roots=Roots([place / "root"]))
    assert left_over.exists()
    await discard_staged(task, 1)
    assert not left_over.exists()


@pytest.mark.chaos
async def test_a_real_cluster_with_roots_does_what_is_inside_and_nothing_else(redis_url: str, place: Path) -> None:
    root = place / "root"
    shutil.copy(MASK, root / "mask.png")

    def a_task(image: object, mask: object, out: object) -> Task:
        return Task(
            task_type=TaskType.INPAINT, image_path=str(image), mask_path=str(mask), output_path=str(out), max_retries=0
        )

    with running_cluster(redis_url, place / "c", LCQ_STORAGE__ROOTS=f'["{root}"]') as cluster:
        await asyncio.to_thread(cluster.start_scheduler)
        await asyncio.to_thread(cluster.start_agent, slots=1)
        photo, mask, out = root / "b.png", root / "mask.png", root / "new" / "result.png"

        def run() -> None:
            with cluster.client() as client:
                answer = client.submit_many(
                    [
                        a_task(photo, mask, root / ".." / "secret" / "x.png"),
                        a_task(place / "secret" / "b.png", mask, out),
                        a_task("b.png", mask, out),
                    ]
                )
                assert [refusal.code for refusal in answer.refused] == ["path_outside_roots"] * 3
                tasks = [
                    a_task(photo, mask, out),
                    a_task(photo, mask, root / "out" / "x.png"),
                    a_task(root / "link", mask, root / "y.png"),
                    a_task(photo, root / "out" / "b.png", root / "z.png"),
                ]
                client.submit_many(tasks)
                good, *bad = client.wait([task.id for task in tasks], timeout_s=60)
                assert good.status == TaskStatus.COMPLETED, good.failure
                assert out.exists()
                for record in bad:
                    assert record.failure is not None
                    assert (record.failure.error_class, record.failure.code) == ("bad_input", "path_outside_roots")

        await asyncio.to_thread(run)
    shutil.rmtree(place / "c")
