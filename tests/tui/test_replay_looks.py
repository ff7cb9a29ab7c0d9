"""What was looked at while it was recorded is there again in the replay, as it was then; of the rest that is said."""

from __future__ import annotations

from pathlib import Path

import pytest

from lcq.models import Attempt, DeviceSample, JobSummary, TaskStatus
from lcq.reasons import WhyCode, because
from lcq.wire import LogLine
from tests.conftest import wait_until
from tests.tui.fakes import FakeCluster, a_failure, a_node, a_task
from tests.tui.test_gallery import a_finished_task
from tests.tui.test_replay import MINUTE, NOON, recording
from tui import record
from tui.app import ConsoleApp
from tui.desk import Desk, past_desk
from tui.gallery import Gallery
from tui.looks import MOST_LOOKS, Noted
from tui.replay import Playback, Recording
from tui.screens.detail import TaskScreen

ONE, OTHER, DONE = (f"task{n}00000000000" for n in range(3))


@pytest.fixture(autouse=True)
def _at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(record, "FLUSH_S", 0.01)


def a_line(number: int, text: str) -> LogLine:
    return LogLine(number=number, at_ms=NOON + number, source="agent", text=text)


def at(tape: Path, at_ms: int) -> Desk:
    playback = Playback(Recording.open(tape), at_ms)
    playback.toggle()
    return past_desk(playback)


@pytest.fixture
async def tape(tmp_path: Path) -> Path:
    """At noon somebody looks at ONE, which waits, and at DONE; a minute later ONE fails, and nobody looks at it; two
    minutes later they look at a log, and everything is read anew. OTHER runs, and nobody ever looks."""
    path = tmp_path / "a.lcqrec"
    (tmp_path / "files").mkdir()
    done = a_finished_task(tmp_path / "files", task_id=DONE)
    records = [a_task("/p/0.jpg", task_id=ONE), a_task("/p/1.jpg", task_id=OTHER, status=TaskStatus.PROCESSING), done]
    records[1] = records[1].model_copy(update={"attempt": 1, "node": "gpu-1"})
    cluster = FakeCluster(records, [a_node("gpu-1")])
    cluster.reasons[ONE] = because(WhyCode.QUEUE_PAUSED, "gpu-high is paused by ivo", queue="gpu-high")
    cluster.job_summaries["j"] = JobSummary(name="j", submitted_ms=NOON, counts={TaskStatus.QUEUED: 3})
    cluster.samples["gpu-1"] = {"cuda:0": (DeviceSample(at_ms=NOON - 1000, busy=0.5),)}
    async with recording(path, cluster) as stage:
        desk = stage.desk
        assert await desk.commander.why(ONE)
        assert await desk.commander.whys([ONE])
        await desk.commander.jobs("j")
        await desk.reader.device_history("gpu-1")
        await desk.reader.task_events(await desk.reader.task(ONE))
        gallery = Gallery(cluster, seen=desk.tape.note_pictures)
        assert (await gallery.look(done, longest=64)).scene.fits
        await stage.written()
        stage.at_ms += MINUTE
        cluster.history[ONE] = [
            Attempt(number=1, node="gpu-1", started_ms=NOON, ended_ms=NOON + 9, outcome="failed", failure=a_failure(),
                    log="its last [words]")
        ]  # fmt: skip
        cluster.change(ONE, "fail_task", status=TaskStatus.FAILED, failure=a_failure(), node="gpu-1", attempt=1)
        await stage.written()
        stage.at_ms += MINUTE
        cluster.logs["gpu-1"] = [a_line(1, "hello"), a_line(2, f"attempt of {ONE}")]
        told = await desk.commander.read_log("gpu-1")
        cluster.logs["gpu-1"] = [a_line(7, "much later")]
        await desk.commander.read_log("gpu-1", after=told.last)
        desk.feed.refetch()
        await wait_until(lambda: cluster.snapshots == 2)
        await stage.written()
        stage.at_ms += MINUTE
    return path


async def test_what_was_looked_at_is_there_again_from_then_on(tape: Path) -> None:
    desk = at(tape, NOON + 1)
    await desk.reader.snapshot()
    assert (await desk.commander.why(ONE)).text == "gpu-high is paused by ivo"
    assert (await desk.commander.whys([ONE, OTHER])).keys() == {ONE}
    assert [job.name for job in await desk.commander.jobs("j")] == ["j"]
    assert (await desk.reader.device_history("gpu-1"))["cuda:0"][0].busy == 0.5
    assert list(await desk.reader.attempts(ONE)) == []
    later = at(tape, NOON + MINUTE + 1)
    await later.reader.snapshot()
    with pytest.raises(Exception, match="nobody looked at it by then"):
        await later.commander.why(ONE)  # it has failed since: that it was paused is not true any more
    (attempt,) = await later.reader.attempts(ONE)
    assert (attempt.node, attempt.log) == ("gpu-1", "its last [words]"), "an attempt that ended is read unasked"


async def test_a_log_is_put_together_from_what_was_read_of_it_and_says_what_is_missing(tape: Path) -> None:
    desk = at(tape, NOON + 3 * MINUTE)
    await desk.reader.snapshot()
    told = await desk.commander.read_log("gpu-1")
    assert [line.text for line in told.lines] == [
        "hello", f"attempt of {ONE}", "-- 4 lines were not recorded --", "much later"
    ]  # fmt: skip
    assert (await desk.commander.read_log("gpu-1", after=told.last)).lines == ()
    of_task = await desk.commander.read_log("gpu-1", task=ONE)
    assert [line.text for line in of_task.lines] == [f"attempt of {ONE}"]
    assert desk.playback is not None
    await desk.playback.seek(NOON + MINUTE)
    with pytest.raises(Exception, match="nobody had looked at it"):
        await desk.commander.read_log("gpu-1")


async def test_the_pictures_are_those_that_were_seen_then_whatever_has_become_of_the_files(tape: Path) -> None:
    for file in (tape.parent / "files").iterdir():
        file.write_bytes(b"another")
    desk = at(tape, NOON + 3 * MINUTE)  # after the second snapshot: what was looked at before it is still there
    await desk.reader.snapshot()
    pictures = await desk.gallery.look(await desk.reader.task(DONE), longest=512)
    assert {part: one.why for part, one in pictures.parts.items()} == {"before": "", "mask": "", "after": ""}
    assert pictures.scene.fits
    assert pictures.sources == ("the recording, 12:00:00Z",)
    none = await desk.gallery.look(await desk.reader.task(ONE), longest=512)
    assert "is not in the recording: nobody looked at it by then" in none.parts["before"].why


async def test_a_detail_in_a_replay_shows_what_was_recorded_and_says_what_was_not(tape: Path) -> None:
    app = ConsoleApp(at(tape, NOON + MINUTE + 1))
    async with app.run_test(size=(120, 60)) as pilot:

        def text() -> str:
            strips = app.screen._compositor.render_strips()
            return "\n".join("".join(segment.text for segment in strip) for strip in strips)

        await wait_until(lambda: "/p/0.jpg" in text() or "0.jpg" in text())
        app.push_screen(TaskScreen(app.desk, ONE))
        await wait_until(lambda: "#1 failed" in text() and "Attempts (1)" in text())
        await pilot.press("q")
        app.push_screen(TaskScreen(app.desk, OTHER))
        await wait_until(lambda: "they are not in the recording: nobody had looked at them by then" in text())


# ---------------------------------------------------------------- bounds


def test_what_is_as_it_was_is_not_written_again_and_never_more_than_so_much() -> None:
    now = [0.0]
    noted = Noted(1000, clock=lambda: now[0])
    for text in ("a", "a", "b", "a"):
        noted.note("why", "x", lambda text=text: text)
    assert [text for _, _, text in noted.made()] == ["a", "b", "a"]
    for _ in range(3):
        noted.note("devices", "n", lambda: str(now[0]), every_s=60)
    assert [text for _, _, text in noted.made()] == ["0.0"]
    now[0] = 61
    noted.note("devices", "n", lambda: str(now[0]), every_s=60)
    assert len(list(noted.made())) == 1
    noted.note_written(1000)
    noted.note("why", "y", lambda: "c")
    assert (noted.is_full, list(noted.made())) == (True, [])


def test_there_are_never_more_looks_than_a_player_can_know_of() -> None:
    noted = Noted(1 << 30)
    for number in range(MOST_LOOKS + 3):
        noted.note("why", str(number), lambda: "x")
        if number % 1000 == 0 or number > MOST_LOOKS:
            assert all(noted.made())
    assert noted.is_full
    assert noted._count == MOST_LOOKS


def test_of_many_tasks_that_change_those_are_read_first_of_which_an_attempt_has_ended() -> None:
    cluster = FakeCluster([a_task(task_id=f"{n:016d}").model_copy(update={"attempt": 1}) for n in range(60)])
    for number in range(60):
        status = TaskStatus.FAILED if number % 20 == 7 else TaskStatus.PROCESSING
        cluster.change(f"{number:016d}", "a_move", status=status)
    cluster.emit("submit_task", id="f" * 16, attempt="1")
    noted = Noted(1 << 20)
    noted.note_changed(cluster.log)
    first = noted.take_changed()
    assert len(first) == 20
    assert [int(one) for one in first[:3]] == [7, 27, 47]
    assert len(noted.take_changed()) + len(noted.take_changed()) == 40
    assert noted.take_changed() == []
