"""The porter: what is brought for an attempt, what is refused, what is left behind; and glances at files."""

from __future__ import annotations

import asyncio
import contextlib
import threading
from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from lcq.config import DistributedConfig
from lcq.errors import StorageUnreachable
from lcq.glance import glance, seen_of
from lcq.models import ErrorClass, Failure, Task, TaskResult, TaskType
from lcq.roots import Roots
from lcq.storage.blobs import Blob
from lcq.storage.depot import Depot
from lcq.storage.folder import FolderStore
from lcq.storage.marks import write_mark
from lcq.storage.opening import depot_of
from lcq.wire import Grant, Outcome
from tests.conftest import wait_until
from worker.attempt import Brought, Ended, NotBrought
from worker.porter import Porter
from worker.spool import Unsettled

IMAGE = b"an image" * 1000


class Place:
    """A scheduler's storage, and an agent's home beside it."""

    def __init__(self, folder: Path, **storage: object) -> None:
        self.folder = folder
        self.config = DistributedConfig.model_validate(
            {
                "data_dir": folder / "data",
                "storage": {"blobs": {"floor_mib": 0}, **storage},
                "agent": {"disk": {"floor_mib": 0}},
            }
        )
        self.depot: Depot = depot_of(self.config)
        self.mark = write_mark(self.config, "0123456789abcdef")
        self.home = folder / "home"
        self.roots = Roots(self.config.storage.roots)
        self.asked = 0

    async def ask(self) -> tuple[str, str, str]:
        self.asked += 1
        return self.depot.store.url, self.mark, ""

    @contextlib.asynccontextmanager
    async def porter(self) -> AsyncIterator[Porter]:
        async with Porter(self.home, config=lambda: self.config, roots=self.roots, ask=self.ask) as porter:
            yield porter


def granted(image: str, mask: str | None = None, output: str | None = None, attempt: int = 1) -> Grant:
    task = Task(task_type=TaskType.INPAINT, image_path=image, mask_path=mask, output_path=output)
    return Grant(task=task, attempt=attempt, device="cpu", lease_ms=1000)


def a_result(path: str) -> TaskResult:
    return TaskResult(path=path, bytes=3, sha256="a" * 64, width=1, height=1, seconds=0.1)


def content_of(brought: Brought) -> bytes:
    return Path(brought.task.image_path).read_bytes()


async def refused(porter: Porter, grant: Grant) -> Failure:
    with pytest.raises(NotBrought) as refusal:
        await porter.bring(grant)
    return refusal.value.failure


async def test_blobs_are_brought_under_names_of_the_attempts_own_and_go_with_it(tmp_path: Path) -> None:
    place = Place(tmp_path)
    blob = f"blob:{place.depot.keep(IMAGE).sha256}"
    async with place.porter() as porter:
        grant = granted(blob, "/photos/mask.png")
        assert porter.is_needed(grant.task)
        brought = await porter.bring(grant)
        assert content_of(brought) == IMAGE
        assert brought.task.mask_path == "/photos/mask.png"
        assert brought.task.output_path is None
        [folder] = brought.also
        assert Path(brought.task.image_path).is_relative_to(folder)
        porter.drop((grant.task.id, 1))
        await wait_until(lambda: not folder.exists())
        again = granted(blob, blob, attempt=2)
        await porter.bring(again)
        assert place.asked == 1  # where blobs are is believed for a while
    assert len(list((place.home / "bytes" / "blobs").iterdir())) == 1  # brought once for all of them


async def test_what_was_brought_leaves_nothing_in_memory(tmp_path: Path) -> None:
    place = Place(tmp_path)
    blobs = [f"blob:{place.depot.keep(word).sha256}" for word in (b"one", b"two")]
    async with place.porter() as porter:
        grants = [granted(blob, attempt=number) for number in range(3) for blob in blobs]
        await asyncio.gather(*(porter.bring(grant) for grant in grants))
        await refused(porter, granted(f"blob:{'0' * 64}"))
        for grant in grants:
            porter.drop((grant.task.id, grant.attempt))
        assert porter._fetching == {}


async def test_a_task_of_paths_alone_is_not_the_porters(tmp_path: Path) -> None:
    async with Place(tmp_path).porter() as porter:
        assert not porter.is_needed(granted("/photos/a.png", "/photos/b.png", "/photos/c.png").task)
        assert porter.is_needed(granted("file:///photos/a.png").task)
        assert porter.is_needed(granted("blob:nonsense").task)


async def test_what_may_not_be_named_is_refused_whatever_the_scheduler_let_pass(tmp_path: Path) -> None:
    inside = tmp_path / "inside"
    inside.mkdir()
    (tmp_path / "secret.png").write_bytes(b"secret")
    (inside / "link.png").symlink_to(tmp_path / "secret.png")
    place = Place(tmp_path, roots=[str(inside)])
    blob = f"blob:{place.depot.keep(IMAGE).sha256}"
    async with place.porter() as porter:
        for grant, code in (
            (granted(blob, str(tmp_path / "secret.png")), "path_outside_roots"),
            (granted(blob, str(inside / "link.png")), "path_outside_roots"),
            (granted(f"file://{tmp_path}/secret.png"), "path_outside_roots"),
            (granted(blob, None, str(tmp_path / "out.png")), "path_outside_roots"),
            (granted("s3://bucket/a.png"), "address_refused"),
            (granted("https://example.org/a.png"), "address_refused"),
            (granted("http://["), "address_refused"),
            (granted("blob:nonsense"), "address_refused"),
            (granted(blob, None, blob), "address_refused"),
            (granted(f"blob:{'0' * 64}"), "blob_not_found"),
        ):
            failure = await refused(porter, grant)
            assert (failure.error_class, failure.code) == (ErrorClass.BAD_INPUT, code), grant
        assert not list((place.home / "bytes" / "attempts").glob("*/*"))


async def test_a_store_that_cannot_be_reached_costs_no_retry_and_is_asked_for_anew(tmp_path: Path) -> None:
    place = Place(tmp_path)
    blob = f"blob:{place.depot.keep(IMAGE).sha256}"
    mark, place.mark = place.mark, "another"
    async with place.porter() as porter:
        failure = await refused(porter, granted(blob))
        assert (failure.error_class, failure.code) == (ErrorClass.TRANSIENT, "storage_unreachable")
        place.mark = mark
        assert content_of(await porter.bring(granted(blob))) == IMAGE


async def test_a_full_disk_fetches_nothing(tmp_path: Path) -> None:
    place = Place(tmp_path)
    blob = f"blob:{place.depot.keep(IMAGE).sha256}"
    disk = place.config.agent.disk.model_copy(update={"floor_percent": 99.9999})
    place.config = place.config.model_copy(update={"agent": place.config.agent.model_copy(update={"disk": disk})})
    async with place.porter() as porter:
        failure = await refused(porter, granted(blob))
    assert (failure.error_class, failure.code) == (ErrorClass.RESOURCE, "disk_full")


async def test_the_cache_holds_no_more_than_it_may_and_nobody_loses_a_file_by_that(tmp_path: Path) -> None:
    place = Place(tmp_path, cache_mib=1)
    blobs = [f"blob:{place.depot.keep(bytes([number]) * 600_000).sha256}" for number in range(3)]
    async with place.porter() as porter:
        brought = [await porter.bring(granted(blob)) for blob in blobs]
        assert [len(content_of(one)) for one in brought] == [600_000] * 3
    assert len(list((place.home / "bytes" / "blobs").iterdir())) == 1


async def test_of_two_that_are_brought_at_once_neither_is_let_go_of_before_it_is_there(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    place = Place(tmp_path, cache_mib=1)
    blobs = [f"blob:{place.depot.keep(bytes([number]) * 1_200_000).sha256}" for number in range(2)]
    together = threading.Barrier(2)
    get, replace = FolderStore.get, Path.replace

    def get_half(self: FolderStore, sha256: str, target: Path, **more: Any) -> Blob:
        blob = get(self, sha256, target, **more)
        together.wait(60)
        return blob

    def replace_when_the_other_has_cleared_up(self: Path, target: Path) -> Path:
        now = replace(self, target)
        if self.name.endswith(".tmp"):
            porter._trim()
        return now

    monkeypatch.setattr(FolderStore, "get", get_half)
    monkeypatch.setattr(Path, "replace", replace_when_the_other_has_cleared_up)
    async with place.porter() as porter:
        brought = await asyncio.gather(*(porter.bring(granted(blob)) for blob in blobs))
        assert [len(content_of(one)) for one in brought] == [1_200_000] * 2


async def test_a_result_without_a_place_becomes_a_blob_and_one_with_a_name_keeps_it(tmp_path: Path) -> None:
    place = Place(tmp_path, urls=["s3://studio/out"])
    blob = f"blob:{place.depot.keep(IMAGE).sha256}"
    async with place.porter() as porter:
        grant = granted(blob)
        image = Path((await porter.bring(grant)).task.image_path)
        staged = image.parent / "cleaned" / f".image.{grant.task.id}-1.lcq-tmp"
        staged.parent.mkdir()
        staged.write_bytes(b"out")
        ended = Ended(grant, result=a_result(str(staged.parent / "image.png")), staged=str(staged), found="")
        told = porter.told(ended)
        assert told.result is not None
        assert (told.result.path, told.found) == (f"blob:{'a' * 64}", None)
        failed = replace(
            ended, result=None, failure=Failure(error_class=ErrorClass.BAD_INPUT, code="x", message=f"{image}: is bad")
        )
        in_words = porter.told(failed).failure
        assert in_words is not None
        assert in_words.message == f"{blob}: is bad"

        named = granted(blob, None, "s3://studio/out/b.jpg")
        local = (await porter.bring(named)).task.output_path
        assert local is not None
        assert local.endswith("/b.jpg")  # the suffix decides the format
        told = porter.told(Ended(named, result=a_result(local), staged=f"{local}.x", found=""))
        assert told.result is not None
        assert told.result.path == "s3://studio/out/b.jpg"


async def test_a_result_is_carried_away_whole_and_its_folder_goes(tmp_path: Path) -> None:
    place = Place(tmp_path)
    done = place.depot.keep(b"result")  # for its sum
    assert place.depot.delete(done.sha256)
    attempt = place.home / "bytes" / "attempts" / "0123456789abcdef-1"
    staged = attempt / "result" / ".x.0123456789abcdef-1.lcq-tmp"
    staged.parent.mkdir(parents=True)
    staged.write_bytes(b"result")
    async with place.porter() as porter:
        assert not await porter.is_there(f"blob:{done.sha256}")
        await porter.carry(str(staged), f"blob:{done.sha256}")
        assert await porter.is_there(f"blob:{done.sha256}")
        assert not attempt.exists()
        with pytest.raises(FileNotFoundError):
            await porter.carry(str(staged), f"blob:{'0' * 64}")
        place.mark = "another"
        porter._store = None
        staged.parent.mkdir(parents=True)
        staged.write_bytes(b"result")
        with pytest.raises(StorageUnreachable):
            await porter.carry(str(staged), f"blob:{done.sha256}")
        assert staged.exists()  # for another try


async def test_what_is_given_up_while_it_is_brought_leaves_nothing(tmp_path: Path) -> None:
    place = Place(tmp_path)
    blob = f"blob:{place.depot.keep(IMAGE).sha256}"
    async with place.porter() as porter:
        grant = granted(blob)
        porter.expect(grant)
        porter.drop((grant.task.id, 1))
        await wait_until(lambda: not list((place.home / "bytes").glob("attempts/*/*")))
        porter.drop((grant.task.id, 1))  # once more does no harm


async def test_at_the_start_only_results_that_wait_are_left(tmp_path: Path) -> None:
    place = Place(tmp_path)
    attempts = place.home / "bytes" / "attempts"
    waiting = attempts / "0123456789abcdef-1" / "result" / ".x.lcq-tmp"
    dead = attempts / "0123456789abcdef-2" / "image.png"
    half = place.home / "bytes" / "blobs" / "x.tmp"
    for path in (waiting, dead, half):
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"x")
    async with place.porter() as porter:
        porter.forget_others([str(waiting), "/elsewhere/.y.lcq-tmp"])
    assert waiting.exists()
    assert not dead.parent.exists()
    assert not half.exists()


def test_a_spooled_result_that_is_to_be_carried_lies_in_its_attempts_folder_or_is_not_believed(tmp_path: Path) -> None:
    outcome = Outcome(task_id="0123456789abcdef", attempt=1, result=a_result(f"blob:{'a' * 64}"))
    own = tmp_path / "bytes" / "attempts" / "0123456789abcdef-1" / "result" / ".x.0123456789abcdef-1.lcq-tmp"
    assert Unsettled(boot_id="b", outcome=outcome, staged=str(own)).trouble(tmp_path) == ""
    for other in (tmp_path / own.name, own.with_name("x"), Path("/etc/passwd")):
        assert Unsettled(boot_id="b", outcome=outcome, staged=str(other)).trouble(tmp_path)


def test_a_glance_tells_whether_it_is_the_same_file(tmp_path: Path) -> None:
    path = tmp_path / "a.png"
    path.write_bytes(IMAGE)
    seen = glance(str(path))
    assert seen is not None
    assert seen.size == len(IMAGE)
    assert seen_of([seen]) == (str(path),)
    assert seen_of([seen], Roots([tmp_path / "other"])) == ()
    path.write_bytes(IMAGE[:-1] + b"!")
    assert seen_of([seen]) == ()
    path.unlink()
    assert seen_of([seen]) == ()
    for odd in ("", "\0", str(tmp_path), "/dev/zero", "a" * 5000):
        assert glance(odd) is None
