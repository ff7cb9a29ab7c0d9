"""The spool of unsettled outcomes, and what becomes of results on their way."""

from __future__ import annotations

import asyncio
import errno
import hashlib
import os
import threading
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lcq import failpoints
from lcq.clock import steady_now
from lcq.errors import StateUnavailable
from lcq.file_mark import file_mark
from lcq.images import STAGED_SUFFIX, Output
from lcq.models import ErrorClass, Failure, Task, TaskResult, TaskType
from lcq.wire import Outcome, Verdict
from worker.outcomes import Outcomes, Retake, Right, discard_staged, no_right
from worker.spool import ATTEMPTS, Spool, Unsettled

ID = "1m84y6e0n84fcztc"
SHA = "0" * 64


def a_result(path: str) -> TaskResult:
    return TaskResult(path=path, bytes=1, sha256=SHA, width=1, height=1, seconds=1.0)


def an_entry(task_id: str = ID, attempt: int = 1, *, boot: str = "boot-1", staged: str = "") -> Unsettled:
    return Unsettled(
        boot_id=boot,
        outcome=Outcome(task_id=task_id, attempt=attempt, device="cpu", result=a_result("/out/x.png")),
        staged=staged,
    )


def a_failure(attempt: int = 1) -> Outcome:
    failure = Failure(error_class=ErrorClass.CRASH, code="runner_died", message="it did")
    return Outcome(task_id=ID, attempt=attempt, device="cpu", failure=failure)


def settled(attempt: int = 1) -> Verdict:
    return Verdict(task_id=ID, attempt=attempt, verdict="settled")


def refused(attempt: int = 1) -> Verdict:
    return Verdict(task_id=ID, attempt=attempt, verdict="refused", detail="cannot finish task: it is cancelled")


# ---------------------------------------------------------------- the folder


def test_what_was_kept_is_found_by_the_next_process(tmp_path: Path):
    entry = an_entry(staged=f"/out/.x.png.{ID}-1.lcq-tmp")
    Spool(tmp_path / "spool").keep(entry)
    assert Spool(tmp_path / "spool").load() == (entry,)


@given(message=st.text(st.characters(codec="utf-8", exclude_characters="\0"), max_size=200), boot=st.text(max_size=20))
def test_any_outcome_comes_back_as_it_was(tmp_path_factory: pytest.TempPathFactory, message: str, boot: str):
    spool = Spool(tmp_path_factory.mktemp("spool"))
    failure = Failure(error_class=ErrorClass.BAD_INPUT, code="image_missing", message=message)
    entry = Unsettled(boot_id=boot, outcome=Outcome(task_id=ID, attempt=3, failure=failure))
    spool.keep(entry)
    assert spool.load() == (entry,)


def test_what_was_dropped_is_gone_and_dropping_twice_is_no_harm(tmp_path: Path):
    spool = Spool(tmp_path)
    spool.keep(an_entry())
    spool.drop(an_entry())
    spool.drop(an_entry())
    assert spool.load() == ()


def test_attempts_of_one_task_are_kept_apart_and_come_oldest_first(tmp_path: Path):
    spool = Spool(tmp_path)
    for attempt in (2, 1):
        spool.keep(an_entry(attempt=attempt))
    assert [entry.outcome.attempt for entry in spool.load()] == [1, 2]


def test_an_empty_or_missing_folder_holds_nothing(tmp_path: Path):
    assert Spool(tmp_path).load() == ()
    assert Spool(tmp_path / "none").load() == ()


@pytest.mark.parametrize("content", [b"", b"{", b'{"boot_id": 1}', b"\xff\xfe", b"[]"])
def test_f46_a_damaged_file_is_reported_and_set_aside_and_the_others_are_read(
    tmp_path: Path, content: bytes, caplog: pytest.LogCaptureFixture
):
    spool = Spool(tmp_path)
    spool.keep(an_entry())
    (tmp_path / "0000000000000000-1.json").write_bytes(content)
    assert spool.load() == (an_entry(),)
    assert "0000000000000000-1.json" in caplog.text
    assert (tmp_path / "0000000000000000-1.bad").read_bytes() == content
    assert Spool(tmp_path).load() == (an_entry(),)


@pytest.mark.parametrize(
    "staged",
    [
        "/etc/passwd",
        "/out/x.png",
        f"/elsewhere/.x.png.{ID}-1.lcq-tmp",
        f"/out/sub/../.x.png.{ID}-1.lcq-tmp",
        f"/out/.x.png.{ID}-2.lcq-tmp",
        "/out/.x.png.0000000000000000-1.lcq-tmp",
        f".x.png.{ID}-1.lcq-tmp",
    ],
)
def test_f46_a_record_that_names_anything_but_its_own_staged_file_is_set_aside(tmp_path: Path, staged: str, caplog):
    (tmp_path / f"{ID}-1.json").write_text(an_entry(staged=staged).model_dump_json())
    assert Spool(tmp_path).load() == ()
    assert [path.name for path in tmp_path.iterdir()] == [f"{ID}-1.bad"]
    assert staged in caplog.text


def test_f46_a_staged_file_without_a_result_is_believed_no_more(tmp_path: Path, caplog):
    entry = Unsettled(boot_id="boot-1", outcome=a_failure(), staged=f"/out/.x.png.{ID}-1.lcq-tmp")
    (tmp_path / f"{ID}-1.json").write_text(entry.model_dump_json())
    assert Spool(tmp_path).load() == ()
    assert "has no result" in caplog.text


def test_f46_a_record_under_another_ones_name_is_set_aside_for_it_could_never_be_dropped(tmp_path: Path, caplog):
    (tmp_path / f"{ID}-7.json").write_text(an_entry().model_dump_json())
    assert Spool(tmp_path).load() == ()
    assert f"it should be named {ID}-1.json" in caplog.text


def test_f46_of_files_set_aside_the_newest_twenty_are_kept_and_the_log_says_which_went(tmp_path: Path, caplog):
    for number in range(25):
        bad = tmp_path / f"{number:016d}-1.bad"
        bad.write_bytes(b"{")
        os.utime(bad, (number, number))
    (tmp_path / f"{99:016d}-1.json").write_bytes(b"{")
    assert Spool(tmp_path).load() == ()
    assert sorted(path.name[14:16] for path in tmp_path.iterdir()) == sorted(
        [*(f"{n:02d}" for n in range(6, 25)), "99"]
    )
    assert caplog.text.count("was removed") == 6


def test_f46_what_cannot_be_read_is_reported_and_passed_over(tmp_path: Path, caplog: pytest.LogCaptureFixture):
    spool = Spool(tmp_path)
    spool.keep(an_entry())
    (tmp_path / "0000000000000000-1.json").mkdir()
    assert spool.load() == (an_entry(),)
    assert "0000000000000000-1.json cannot be read and was passed over: Is a directory" in caplog.text


def test_f45_what_was_half_written_when_the_process_died_is_no_outcome(tmp_path: Path):
    spool = Spool(tmp_path)
    spool.keep(an_entry())
    (tmp_path / f"{ID}-2.tmp").write_bytes(b'{"boot_id": "boot-1", "outc')
    assert spool.load() == (an_entry(),)
    assert [file.name for file in tmp_path.iterdir()] == [f"{ID}-1.json"]


def test_f45_a_spool_that_cannot_be_written_says_so_and_leaves_nothing_half(tmp_path: Path):
    in_the_way = tmp_path / "spool"
    in_the_way.mkdir()
    (in_the_way / f"{ID}-1.tmp").mkdir()
    with pytest.raises(OSError, match="irectory"):
        Spool(in_the_way).keep(an_entry())
    assert not (in_the_way / f"{ID}-1.json").exists()


# ---------------------------------------------------------------- outcomes on their way


@pytest.fixture
def spool(tmp_path: Path) -> Spool:
    return Spool(tmp_path / "spool")


@pytest.fixture
def outcomes(spool: Spool) -> Outcomes:
    return Outcomes(spool, "boot-2")


def a_staged_result(folder: Path) -> tuple[Outcome, Path, Path]:
    final = folder / "out.png"
    staged = folder / f".out.png.{ID}-1.lcq-tmp"
    staged.write_bytes(b"new")
    return Outcome(task_id=ID, attempt=1, device="cpu", result=a_result(str(final))), staged, final


async def test_a_result_gets_its_final_name_at_once_where_the_lease_is_sure(tmp_path: Path, outcomes: Outcomes):
    outcome, staged, final = a_staged_result(tmp_path)
    final.write_bytes(b"old")
    await outcomes.add(outcome, str(staged), lease_is_sure=lambda: True)
    assert final.read_bytes() == b"new"
    assert not staged.exists()
    assert outcomes.to_report() == (outcome,)
    await outcomes.settle([settled()])
    assert not outcomes
    assert final.read_bytes() == b"new"


async def test_f04_where_the_lease_is_in_doubt_the_file_waits_for_its_verdict(
    tmp_path: Path, outcomes: Outcomes, spool: Spool
):
    outcome, staged, final = a_staged_result(tmp_path)
    await outcomes.add(outcome, str(staged), lease_is_sure=lambda: False)
    assert staged.exists()
    assert not final.exists()
    assert spool.load(), "who settles it takes the file for published, whatever becomes of this process"
    await outcomes.settle([settled()])
    assert final.read_bytes() == b"new"
    assert not staged.exists()
    assert spool.load() == ()


async def test_f04_a_refused_result_changes_nothing_and_leaves_nothing(
    tmp_path: Path, outcomes: Outcomes, spool: Spool
):
    outcome, staged, final = a_staged_result(tmp_path)
    final.write_bytes(b"the new owner's")
    await outcomes.add(outcome, str(staged), lease_is_sure=lambda: False)
    await outcomes.settle([refused()])
    assert final.read_bytes() == b"the new owner's"
    assert not staged.exists()
    assert not outcomes
    assert spool.load() == ()


@pytest.mark.parametrize(("verdict", "left"), [(refused(), b"another attempt's"), (settled(), b"new")])
async def test_f04_a_file_that_has_come_since_the_attempt_began_gives_way_to_nothing_but_a_verdict(
    tmp_path: Path, outcomes: Outcomes, spool: Spool, verdict: Verdict, left: bytes
):
    """As after a reroute of which the node has not heard: it still believes its lease, and so do we."""
    outcome, staged, final = a_staged_result(tmp_path)
    final.write_bytes(b"an earlier run's")
    found = file_mark(final)
    final.write_bytes(b"another attempt's")
    await outcomes.add(outcome, str(staged), found=found, lease_is_sure=lambda: True)
    assert final.read_bytes() == b"another attempt's"
    assert spool.load(), "it waits for its verdict, whatever becomes of this process"
    await outcomes.settle([verdict])
    assert final.read_bytes() == left
    assert not staged.exists()
    assert spool.load() == ()


async def test_an_earlier_result_that_was_there_when_the_attempt_began_is_replaced_at_once(
    tmp_path: Path, outcomes: Outcomes
):
    outcome, staged, final = a_staged_result(tmp_path)
    final.write_bytes(b"an earlier run's")
    await outcomes.add(outcome, str(staged), found=file_mark(final), lease_is_sure=lambda: True)
    assert final.read_bytes() == b"new"


async def test_a_result_that_cannot_be_renamed_is_a_failure_that_says_why(tmp_path: Path, outcomes: Outcomes):
    outcome, staged, final = a_staged_result(tmp_path)
    assert outcome.result is not None
    outcome = outcome.model_copy(update={"result": outcome.result.model_copy(update={"cost": 0.05})})
    final.mkdir()
    await outcomes.add(outcome, str(staged), lease_is_sure=lambda: True)
    (reported,) = outcomes.to_report()
    assert reported.result is None
    assert reported.cost == 0.05, "the function has run all the same"
    assert reported.failure is not None
    assert reported.failure.code == "output_unwritable"
    assert str(final) in reported.failure.message
    assert not staged.exists()


async def test_a_settled_result_that_cannot_be_renamed_now_is_kept_and_tried_again(
    tmp_path: Path, outcomes: Outcomes, caplog: pytest.LogCaptureFixture
):
    outcome, staged, final = a_staged_result(tmp_path)
    final.mkdir()
    await outcomes.add(outcome, str(staged), lease_is_sure=lambda: False)
    await heard(outcomes, lost=True)
    await outcomes.settle([settled()])
    assert outcomes.to_report() == (outcome,)
    assert "cannot be renamed" in caplog.text
    final.rmdir()
    await outcomes.settle([settled()])
    assert final.read_bytes() == b"new"
    assert not outcomes


async def test_an_outcome_that_is_settled_at_once_never_touches_the_disk(outcomes: Outcomes, spool: Spool):
    await outcomes.add(a_failure())
    await outcomes.keep(older_than_s=60)
    assert spool.load() == ()
    await outcomes.settle([settled()])
    await outcomes.keep()
    assert spool.load() == ()


async def test_f18_what_waits_for_its_verdict_outlives_the_process_until_it_has_one(outcomes: Outcomes, spool: Spool):
    await outcomes.add(a_failure())
    await outcomes.keep()
    successor = Outcomes(spool, "boot-3")
    assert successor.recall() == 1
    assert successor.to_report() == outcomes.to_report()
    assert successor.held() == (), "the attempts of an earlier boot are no longer ours to renew"
    await successor.settle([settled()])
    assert spool.load() == ()


async def test_a_verdict_that_comes_while_another_outcome_is_written_ends_nothing_but_its_own(
    outcomes: Outcomes, spool: Spool, monkeypatch: pytest.MonkeyPatch
):
    for attempt in (1, 2, 3):
        await outcomes.add(a_failure(attempt))
    keeping, written = asyncio.Event(), threading.Event()

    def keep_slowly(entry: Unsettled) -> None:
        loop.call_soon_threadsafe(keeping.set)
        assert written.wait(10)
        Spool.keep(spool, entry)

    loop = asyncio.get_running_loop()
    monkeypatch.setattr(spool, "keep", keep_slowly)
    writing = asyncio.create_task(outcomes.keep())
    await keeping.wait()
    await outcomes.settle([settled(2)])
    written.set()
    await writing
    assert [entry.key for entry in spool.load()] == [(ID, 1), (ID, 3)]
    assert [outcome.attempt for outcome in outcomes.to_report()] == [1, 3]


async def test_what_is_handed_back_is_not_worth_the_disk(outcomes: Outcomes, spool: Spool):
    await outcomes.add(Outcome(task_id=ID, attempt=1, handed_back=True))
    await outcomes.keep()
    assert spool.load() == ()
    assert outcomes.held() == ((ID, 1),)


async def test_a_spool_that_cannot_be_written_keeps_the_outcome_in_memory(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
):
    (tmp_path / "spool").write_text("in the way")
    outcomes = Outcomes(Spool(tmp_path / "spool"), "boot-2")
    await outcomes.add(a_failure())
    await outcomes.keep()
    await outcomes.keep()
    assert outcomes.to_report() == (a_failure(),)
    assert caplog.text.count("spool cannot be written") == 1
    await outcomes.settle([settled()])
    assert not outcomes


async def test_f45_what_waits_for_its_verdict_and_cannot_be_written_down_is_a_failure(tmp_path: Path):
    """Or else a crash right after its commit would leave a completed task without its file."""
    (tmp_path / "spool").write_text("in the way")
    outcomes = Outcomes(Spool(tmp_path / "spool"), "boot-2")
    outcome, staged, final = a_staged_result(tmp_path)
    reported = await outcomes.add(outcome, str(staged), lease_is_sure=lambda: False)
    assert outcomes.to_report() == (reported,)
    assert reported.result is None
    assert reported.failure is not None
    assert str(final) in reported.failure.message
    assert not staged.exists()


async def test_nobody_hears_of_what_waits_for_its_verdict_before_it_is_written_down(
    tmp_path: Path, outcomes: Outcomes, spool: Spool, monkeypatch: pytest.MonkeyPatch
):
    keep, may_write = spool.keep, threading.Event()

    def slowly(entry: Unsettled) -> None:
        may_write.wait(60)
        keep(entry)

    monkeypatch.setattr(spool, "keep", slowly)
    outcome, staged, _ = a_staged_result(tmp_path)
    adding = asyncio.create_task(outcomes.add(outcome, str(staged), lease_is_sure=lambda: False))
    for _ in range(20):
        await asyncio.sleep(0)
        assert outcomes.to_report() == ()
    may_write.set()
    await adding
    assert len(spool.load()) == 1
    assert outcomes.held() == (KEY,)
    assert await heard(outcomes, lost=True) == (KEY,)
    assert outcomes.to_report() == (outcome,)


KEY = (ID, 1)


async def heard(
    outcomes: Outcomes,
    *,
    lost: bool = False,
    is_sure: bool = True,
    asked_at: float | None = None,
    retake: Retake = no_right,
) -> tuple[tuple[str, int], ...]:
    """A beat that was sent just now, or then, has been answered."""
    return await outcomes.resolve(
        [KEY, ("another", 1)],
        [KEY] if lost else [],
        asked_at=steady_now() if asked_at is None else asked_at,
        lease_is_sure=lambda _: is_sure,
        retake=retake,
    )


async def test_f06_a_result_in_doubt_is_told_when_a_beat_has_said_that_it_is_ours_and_its_file_is_there_by_then(
    tmp_path: Path, outcomes: Outcomes, spool: Spool
):
    outcome, staged, final = a_staged_result(tmp_path)
    before = steady_now() - 1
    await outcomes.add(outcome, str(staged), lease_is_sure=lambda: False)
    assert outcomes.is_doubtful(KEY)
    assert await heard(outcomes, asked_at=before) == (), "what was asked before it ended says nothing of now"
    assert await heard(outcomes, is_sure=False) == (), "an answer that took as long as the lease says nothing of now"
    assert outcomes.to_report() == ()
    assert not final.exists()
    assert await heard(outcomes) == (KEY,)
    assert final.read_bytes() == b"new"
    assert not staged.exists()
    assert outcomes.to_report() == (outcome,)
    await outcomes.keep()
    assert [entry.staged for entry in spool.load()] == [""]
    await outcomes.settle([settled()])
    assert not outcomes
    assert spool.load() == ()


async def test_f04_a_result_whose_task_was_taken_back_is_told_as_it_is_where_it_does_not_count(
    tmp_path: Path, outcomes: Outcomes, spool: Spool
):
    """Or where the scheduler is too old to say; the verdict decides on its file."""
    outcome, staged, final = a_staged_result(tmp_path)
    await outcomes.add(outcome, str(staged), lease_is_sure=lambda: False)
    assert await heard(outcomes, lost=True) == (KEY,)
    assert outcomes.to_report() == (outcome,)
    assert staged.exists()
    assert not final.exists()
    assert [entry.staged for entry in spool.load()] == [str(staged)]
    await outcomes.settle([settled()])
    assert final.read_bytes() == b"new"


def granting(attempt: int = 3, *, in_s: float = 60.0) -> Retake:
    """A scheduler for which the result counts, as ``attempt``."""

    async def retake(key: tuple[str, int]) -> Right:
        assert key in (KEY, (ID, attempt))
        return Right(attempt, steady_now() + in_s)

    return retake


async def test_f04_a_late_result_that_counts_has_its_name_before_anybody_hears_of_it_as_the_attempt_that_it_is_now(
    tmp_path: Path, outcomes: Outcomes, spool: Spool
):
    outcome, staged, final = a_staged_result(tmp_path)
    await outcomes.add(outcome, str(staged), lease_is_sure=lambda: False)

    async def away(_: tuple[str, int]) -> Right:
        assert outcomes.to_report() == ()
        assert not final.exists()
        raise StateUnavailable("redis://x", "away")

    assert await heard(outcomes, lost=True, retake=away) == ()
    assert await heard(outcomes, lost=True, retake=granting(in_s=0.0)) == (), "the answer took as long as the lease"
    assert outcomes.to_report() == ()
    final.write_bytes(b"of the attempt that was begun elsewhere")
    assert await heard(outcomes, lost=True, retake=granting()) == (KEY,)
    assert final.read_bytes() == b"new"
    assert not staged.exists()
    told = outcome.model_copy(update={"attempt": 3})
    assert outcomes.to_report() == (told,)
    assert outcomes.held() == ((ID, 3),)
    assert [(entry.outcome, entry.staged) for entry in spool.load()] == [(told, "")]
    await outcomes.settle([settled(attempt=3)])
    assert not outcomes
    assert spool.load() == ()


@pytest.mark.parametrize("point", ["agent.retake", "agent.rename", "agent.spool"])
@pytest.mark.parametrize("after", [False, True])
async def test_f11_an_agent_that_is_killed_at_any_point_of_it_goes_on_where_it_was(
    tmp_path: Path, outcomes: Outcomes, spool: Spool, monkeypatch: pytest.MonkeyPatch, point: str, after: bool
):
    outcome, staged, final = a_staged_result(tmp_path)
    assert outcome.result is not None
    sha256 = hashlib.sha256(b"new").hexdigest()
    outcome = outcome.model_copy(update={"result": outcome.result.model_copy(update={"sha256": sha256, "bytes": 3})})
    await outcomes.add(outcome, str(staged), lease_is_sure=lambda: False)

    async def killed(name: str, **_: object) -> None:
        if name == point:
            raise KeyboardInterrupt

    with monkeypatch.context() as dying:
        dying.setattr(failpoints, "passed" if after else "reach", killed)
        with pytest.raises(KeyboardInterrupt):
            await heard(outcomes, lost=True, retake=granting())
    again = Outcomes(spool, "boot-3")
    again.recall()
    told = outcome.model_copy(update={"attempt": 3})
    assert final.exists() or again.to_report() == (), "nobody hears of it before its file has its name"
    await again.resolve_earlier(granting())
    assert final.read_bytes() == b"new"
    assert again.to_report() == (told,)
    await again.settle([settled(attempt=3)])
    assert not again
    assert spool.load() == ()
    assert not staged.exists()


class FolderCarrier:
    """Carries results to a folder, by the names of their addresses."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    async def carry(self, staged: str, final: str) -> None:
        await asyncio.to_thread(Path(staged).replace, self.folder / Path(final).name)

    async def is_there(self, final: str) -> bool:
        return (self.folder / Path(final).name).exists()


@pytest.mark.parametrize("point", ["agent.retake", "agent.rename", "agent.spool"])
@pytest.mark.parametrize("after", [False, True])
async def test_f11_a_late_result_whose_place_is_elsewhere_is_carried_there_once_whenever_its_agent_is_killed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, point: str, after: bool
):
    spool, carrier = Spool(tmp_path / "spool"), FolderCarrier(tmp_path)
    place = tmp_path / ATTEMPTS / f"{ID}-1" / "result"
    place.mkdir(parents=True)
    staged = place / f".x.png.{ID}-1{STAGED_SUFFIX}"
    staged.write_bytes(b"new")
    outcome = Outcome(task_id=ID, attempt=1, device="cpu", result=a_result("s3://studio/out/x.png"))
    outcomes = Outcomes(spool, "boot-1", carrier=carrier)
    await outcomes.add(outcome, str(staged), lease_is_sure=lambda: False)

    async def killed(name: str, **_: object) -> None:
        if name == point:
            raise KeyboardInterrupt

    with monkeypatch.context() as dying:
        dying.setattr(failpoints, "passed" if after else "reach", killed)
        with pytest.raises(KeyboardInterrupt):
            await heard(outcomes, lost=True, retake=granting())
    again = Outcomes(spool, "boot-2", carrier=carrier)
    again.recall()
    await again.resolve_earlier(granting())
    assert again.to_report() == (outcome.model_copy(update={"attempt": 3}),)
    assert (tmp_path / "x.png").read_bytes() == b"new"
    assert not staged.exists()


async def test_where_there_was_no_file_none_that_has_come_is_replaced_by_whose_lease_only_seems_sure(
    tmp_path: Path, outcomes: Outcomes, monkeypatch: pytest.MonkeyPatch
):
    outcome, staged, final = a_staged_result(tmp_path)

    async def at_the_last_moment(name: str, **_: object) -> None:
        if name == "agent.rename":
            final.write_bytes(b"the committed one")

    monkeypatch.setattr(failpoints, "reach", at_the_last_moment)
    await outcomes.add(outcome, str(staged), found="", lease_is_sure=lambda: True)
    assert final.read_bytes() == b"the committed one"
    assert outcomes.is_doubtful(KEY)
    monkeypatch.undo()
    await heard(outcomes, lost=True)
    await outcomes.settle([refused()])
    assert final.read_bytes() == b"the committed one"
    assert not staged.exists()


@pytest.mark.parametrize("error", [errno.EPERM, errno.ENOTSUP])
async def test_a_file_system_without_links_renames(
    tmp_path: Path, outcomes: Outcomes, monkeypatch: pytest.MonkeyPatch, error: int
):
    def no_links(*_: object, **__: object) -> None:
        raise OSError(error, "no links here")

    monkeypatch.setattr(os, "link", no_links)
    outcome, staged, final = a_staged_result(tmp_path)
    await outcomes.add(outcome, str(staged), found="", lease_is_sure=lambda: True)
    assert final.read_bytes() == b"new"
    assert not staged.exists()


async def test_a_result_in_doubt_that_cannot_be_put_in_its_place_is_told_as_a_failure(
    tmp_path: Path, outcomes: Outcomes
):
    outcome, staged, final = a_staged_result(tmp_path)
    await outcomes.add(outcome, str(staged), lease_is_sure=lambda: False)
    final.mkdir()
    await heard(outcomes)
    (told,) = outcomes.to_report()
    assert told.failure is not None
    assert str(final) in told.failure.message
    assert not staged.exists()


async def test_a_result_in_doubt_outlives_the_process_and_is_told_by_the_next(
    tmp_path: Path, outcomes: Outcomes, spool: Spool
):
    outcome, staged, _ = a_staged_result(tmp_path)
    await outcomes.add(outcome, str(staged), lease_is_sure=lambda: False)
    again = Outcomes(spool, "boot-3")
    assert again.recall() == 1
    assert again.to_report() == ()
    assert await again.resolve_earlier() == [KEY]
    assert again.to_report() == (outcome,)


@pytest.mark.parametrize(("verdict", "is_left"), [(refused(attempt=2), True), (settled(attempt=2), False)])
async def test_what_an_earlier_attempt_has_staged_goes_when_the_task_is_settled_and_not_before(
    tmp_path: Path, outcomes: Outcomes, verdict: Verdict, is_left: bool
):
    """The earlier one may come late, and count."""
    outcome, staged, _ = a_staged_result(tmp_path)
    earlier = tmp_path / f".out.png.{ID}-1.lcq-tmp"
    second = staged.rename(tmp_path / f".out.png.{ID}-2.lcq-tmp")
    earlier.write_bytes(b"late")
    await outcomes.add(outcome.model_copy(update={"attempt": 2}), str(second), lease_is_sure=lambda: False)
    assert earlier.exists()
    await outcomes.settle([verdict])
    assert earlier.exists() is is_left


async def test_a_verdict_on_something_unknown_is_passed_over(outcomes: Outcomes):
    await outcomes.add(a_failure(attempt=2))
    await outcomes.settle([settled(attempt=1), refused(attempt=3)])
    assert len(outcomes) == 1


# ---------------------------------------------------------------- what killed attempts leave


@pytest.mark.parametrize("output_path", [None, "elsewhere/result.png"])
async def test_what_a_killed_attempt_was_writing_is_removed_and_nothing_else(tmp_path: Path, output_path: str | None):
    output = str(tmp_path / output_path) if output_path else None
    task = Task(task_type=TaskType.INPAINT, image_path=str(tmp_path / "photo.png"), output_path=output)
    final = Path(output) if output else tmp_path / "cleaned" / "photo.png"
    final.parent.mkdir()
    named = Output(path=final, format="png", quality=None)  # by its own rule, not by ours
    staged = [named.staged(task.id, attempt) for attempt in (1, 2, 3)]
    bystander = final.with_name(f".photo.png.{ID}-1{STAGED_SUFFIX}")
    for file in (*staged, bystander, final):
        file.write_bytes(b"")
    await discard_staged(task, 1, 2)
    assert {file.name for file in final.parent.iterdir()} == {staged[2].name, bystander.name, final.name}


async def test_where_there_is_no_folder_there_is_nothing_to_remove(tmp_path: Path):
    await discard_staged(Task(task_type=TaskType.INPAINT, image_path=str(tmp_path / "none" / "x.png")), 1)
