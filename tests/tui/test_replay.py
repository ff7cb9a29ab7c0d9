"""What was recorded plays again: at its own time, up to where it is whole, and nothing can be done to it."""

from __future__ import annotations

import asyncio
import os
import stat
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from lcq.errors import InvalidInput, LcqError, NoLog
from lcq.models import ActRecord, TaskStatus
from tests.conftest import wait_until
from tests.tui.fakes import FakeCluster, a_failure, a_node, a_task, now_ms
from tui import record
from tui.app import ConsoleApp
from tui.desk import Desk, past_desk
from tui.record import Recorder, RecordingExists, RecordingRules
from tui.replay import NotARecording, Playback, Recording
from tui.screens.choose import AskLine
from tui.widgets.frame import Banner

NOON = 1_790_000_000_000 // 86_400_000 * 86_400_000 + 12 * 3_600_000
MINUTE = 60_000


class Stage:
    """A cluster that is being recorded, at a time that the test sets."""

    def __init__(self, cluster: FakeCluster, recorder: Recorder, desk: Desk) -> None:
        self.cluster, self.recorder, self.desk = cluster, recorder, desk
        self.at_ms = NOON
        self.rounds = 0
        """So often the recorder has written all that there was."""
        self._write_looks, recorder._write_looks = recorder._write_looks, self._count_round  # type: ignore[method-assign]

    async def _count_round(self) -> None:  # with the looks one ends
        await self._write_looks()
        self.rounds += 1

    async def written(self) -> None:
        """Wait until all that has happened, and was looked at, is in the file."""
        self.cluster.emit("mark")  # of no task: what was told before it has been heard when it has
        await wait_until(lambda: self.desk.feed.read_up_to == self.cluster.log[-1].id)
        rounds = self.rounds + 2  # the one that is under way may be past what was noted last
        await wait_until(lambda: self.rounds >= rounds)


@asynccontextmanager
async def recording(path: Path, cluster: FakeCluster, **rules: float) -> AsyncIterator[Stage]:
    """Record ``cluster`` into ``path`` as long as the block lasts."""
    desk = Desk(cluster, cluster, cluster="test")
    stage: Stage | None = None
    limits = RecordingRules(path.parent, **rules)  # type: ignore[arg-type]
    recorder = Recorder(path, cluster="te[st]", now_ms=lambda: NOON if stage is None else stage.at_ms, rules=limits)
    stage = Stage(cluster, recorder, desk)
    desk.tape.recorder = recorder
    async with asyncio.TaskGroup() as tasks:
        feed = tasks.create_task(desk.feed.run(), name="feed")
        ways = {"minutes": cluster.minutes, "dead": cluster.dead, "acts": lambda: cluster.acts(9)}
        writer = tasks.create_task(recorder.run(ways, cluster.attempts), name="recorder")
        await wait_until(lambda: desk.link.loaded)
        yield stage
        recorder.stop("it was ended")
        await writer
        feed.cancel()


@pytest.fixture(autouse=True)
def _at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(record, "FLUSH_S", 0.01)


@pytest.fixture
async def tape(tmp_path: Path) -> Path:
    """From noon: three tasks; after a minute one runs on gpu-1, after two it fails, after three a fourth comes."""
    path = tmp_path / "a.lcqrec"
    cluster = FakeCluster([a_task(f"/p/{n}.jpg", task_id=f"task{n}00000000000") for n in range(3)], [a_node("gpu-1")])
    cluster.audit = [ActRecord(id="1-0", at_ms=NOON, act="pause", actor="ivo", on="queue=gpu-high")]
    async with recording(path, cluster) as stage:
        await stage.written()
        steps = (
            lambda: cluster.change("task100000000000", "claim_tasks", status=TaskStatus.PROCESSING, node="gpu-1"),
            lambda: cluster.change("task100000000000", "fail_task", status=TaskStatus.FAILED, failure=a_failure()),
            lambda: cluster.add(a_task("/p/late.jpg", task_id="task900000000000")),
        )
        for step in steps:
            stage.at_ms += MINUTE
            step()
            await stage.written()
        stage.at_ms += MINUTE
    return path


async def state_of(playback: Playback) -> dict[str, str]:
    """The images and states of the tasks, as a console that starts now would learn them."""
    desk = past_desk(playback)
    async with asyncio.TaskGroup() as tasks:
        feed = tasks.create_task(desk.feed.run(), name="feed")
        await wait_until(lambda: desk.link.loaded and not playback._pending and not playback._jumped)
        await wait_until(lambda: not playback._past or desk.feed.read_up_to == playback._past[-1].id)
        await wait_until(lambda: not desk.store.polling_due)
        feed.cancel()
    return {row.image: row.status.value for row in desk.store.tasks.rows.values()}


async def test_each_moment_is_as_it_was(tape: Path) -> None:
    found = Recording.open(tape)
    assert (found.cluster, found.ended, len(found.chapters)) == ("te[st]", True, 1)
    assert (found.begun_ms, found.ended_ms) == (NOON, NOON + 4 * MINUTE)
    assert found.told_span.endswith("12:00:00Z to 12:04:00Z")
    playback = Playback(found, found.moment("12:01:30"))
    playback.toggle()
    assert await state_of(playback) == {"/p/0.jpg": "queued", "/p/1.jpg": "processing", "/p/2.jpg": "queued"}
    assert (await playback.task("task100000000000")).node == "gpu-1"
    assert [act.actor for act in await playback.acts(10)] == ["ivo"]
    await playback.seek(NOON + 3 * MINUTE + 1)
    assert await state_of(playback) == {
        "/p/0.jpg": "queued", "/p/1.jpg": "failed", "/p/2.jpg": "queued", "/p/late.jpg": "queued"
    }  # fmt: skip
    await playback.seek(NOON)
    assert "processing" not in (await state_of(playback)).values()


async def test_what_needed_somebody_then_is_told_again_from_any_snapshot_on(tmp_path: Path) -> None:
    cluster = FakeCluster([a_task("/p/0.jpg")])
    async with recording(path := tmp_path / "a.lcqrec", cluster) as stage:
        await stage.written()
        stage.at_ms += MINUTE
        alert = cluster.alert("node-down", "gpu-1", "gpu-1 is down")
        await wait_until(lambda: stage.desk.store.firing)
        await stage.written()
        stage.at_ms += MINUTE
        stage.desk.feed.refetch()
        await wait_until(lambda: cluster.snapshots == 2)
        await stage.written()
        stage.at_ms += MINUTE
        del cluster.alert_records[alert.name]
        cluster.emit("note_alerts", alert="node-down", subject="gpu-1", happening="cleared")
        await wait_until(lambda: not stage.desk.store.firing)
        await stage.written()
        stage.at_ms += MINUTE
    playback = Playback(found := Recording.open(path), NOON)
    assert [at for at, _ in found.chapters] == [NOON, NOON + 2 * MINUTE]
    playback.toggle()
    desk = past_desk(playback)
    async with asyncio.TaskGroup() as tasks:
        feed = tasks.create_task(desk.feed.run())
        await wait_until(lambda: desk.store.alerts is not None)
        assert not desk.store.firing
        for minute, firing in ((1, ["node-down/gpu-1"]), (3, []), (2, ["node-down/gpu-1"]), (0, [])):
            await playback.seek(NOON + minute * MINUTE)
            await wait_until(lambda firing=firing: [one.name for one in desk.store.firing] == firing)
        await playback.step()
        await wait_until(lambda: desk.store.firing, what="the news of it, and it")
        feed.cancel()


async def test_its_time_stands_steps_and_runs_to_its_end(tape: Path) -> None:
    playback = Playback(Recording.open(tape), NOON + 1000)
    await playback.step()
    assert (playback.told, playback.now_is) == ("HELD", NOON + MINUTE)
    await playback.seek(NOON + 4 * MINUTE - 6000)
    for _ in range(20):
        playback.change_speed(1)
    playback.toggle()
    assert playback.told == "x60"
    await wait_until(lambda: playback.at_end)
    assert (playback.told, playback.now_is) == ("END", NOON + 4 * MINUTE)
    playback.change_speed(-20)
    assert playback.speed == 0.25


@pytest.mark.parametrize(
    ("text", "told"),
    [("11:45", "is not in the recording"), ("12:04:01", "from "), ("25:00", "no time"), ("x", "no time")],
)
def test_a_time_that_is_not_there_is_refused_with_what_there_is(tape: Path, text: str, told: str) -> None:
    with pytest.raises(InvalidInput, match=told):
        Recording.open(tape).moment(text)


def test_a_recording_is_its_owners_alone_and_overwrites_nothing(tape: Path) -> None:
    assert stat.S_IMODE(tape.stat().st_mode) == 0o600
    with pytest.raises(RecordingExists):
        Recorder(tape, cluster="x", now_ms=now_ms, rules=RecordingRules(tape.parent))


async def test_a_file_that_was_cut_off_anywhere_plays_up_to_where_it_is_whole(tape: Path, tmp_path: Path) -> None:
    whole, cut = await asyncio.to_thread(tape.read_bytes), tmp_path / "cut.lcqrec"
    ends = []
    for size in (*range(0, len(whole), max(1, len(whole) // 60)), len(whole)):
        cut.write_bytes(whole[:size])
        try:
            found = Recording.open(cut)
        except NotARecording:
            assert not ends, "what could be played with less cannot be any more with more"
            continue
        ends.append(found.ended_ms)
        playback = Playback(found, found.ended_ms)
        await playback.snapshot()
        assert not playback.problem
    assert ends == sorted(ends)
    assert (ends[0], ends[-1]) == (NOON, NOON + 4 * MINUTE)


def test_what_is_no_recording_is_refused_in_words(tape: Path, tmp_path: Path) -> None:
    other = tmp_path / "other"
    for content, told in ((b"", "no recording"), (os.urandom(5000), "no recording"), (b"a,b\n1,2\n", "no recording")):
        other.write_bytes(content)
        with pytest.raises(NotARecording, match=told):
            Recording.open(other)
    with pytest.raises(NotARecording, match="No such file"):
        Recording.open(tmp_path / "nowhere")


async def test_a_recording_ends_by_itself_when_it_is_large_or_long_enough(tmp_path: Path) -> None:
    for name, rules, told in (
        ("large", {"most_bytes": 1}, "0 MiB"), ("long", {"most_s": 0.0}, "0 hours")
    ):  # fmt: skip
        async with recording(tmp_path / name, FakeCluster([a_task()]), **rules) as stage:
            await wait_until(lambda stage=stage: bool(stage.recorder.stopped))
            assert told in stage.recorder.stopped
        assert Recording.open(tmp_path / name).ended


# ---------------------------------------------------------------- in the console


async def test_a_replay_says_loudly_that_it_is_one_and_refuses_every_act(tape: Path) -> None:
    playback = Playback(Recording.open(tape), NOON + MINUTE)
    app = ConsoleApp(past_desk(playback))
    async with app.run_test(size=(120, 40)) as pilot:

        def text() -> str:
            strips = app.screen._compositor.render_strips()
            return "\n".join("".join(segment.text for segment in strip) for strip in strips)

        await pilot.press("backslash")
        await wait_until(lambda: "REPLAY HELD" in text() and "> PROCESSING" in text())
        assert "12:01:0" in text()
        assert "REPLAY of te[st]" in app.screen.query_one(Banner).text
        await pilot.press("j", "plus")
        await wait_until(lambda: "this is a replay: nothing can be done" in text())
        await pilot.press("semicolon")
        await wait_until(lambda: "x FAILED" in text() and "12:02:00Z" in text())
        await pilot.press("at")
        await wait_until(lambda: isinstance(app.screen, AskLine))
        await pilot.press(*"12:03:01", "enter")
        await wait_until(lambda: "late.jpg" in text())
        await pilot.press("colon", *"replay 12:00", "enter")
        await wait_until(lambda: "late.jpg" not in text() and "FAILED  " not in text())


async def test_a_console_records_what_it_shows_until_the_key_ends_it_and_goes_to_see_it_again(
    open_console, tmp_path: Path
) -> None:
    cluster = FakeCluster([a_task("/p/1.jpg")], [a_node()])
    async with open_console(cluster) as console:
        console.app.recording_rules = RecordingRules(tmp_path)
        await console.press("ampersand")
        await wait_until(lambda: " REC 0.0M " in console.text() and cluster.snapshots == 2)
        cluster.add(a_task("/p/2.jpg"))
        await console.settle()
        await console.press("ampersand")
        await wait_until(lambda: "it was ended" in (console.desk.said.text if console.desk.said else ""))
        assert console.desk.tape.recorder is None
        await console.press("colon", *"replay", "enter")
        await wait_until(lambda: console.app.next_replay is not None)
    [path] = (tmp_path / "recordings").iterdir()
    assert console.app.next_replay is not None
    found, _ = console.app.next_replay
    assert (found.path, found.cluster, found.ended) == (path, "test", True)
    assert set(await state_of(Playback(found, found.ended_ms))) == {"/p/1.jpg", "/p/2.jpg"}


async def test_a_time_in_which_the_console_saw_nothing_is_not_taken_for_a_calm_one(tape: Path) -> None:
    playback = Playback(Recording.open(tape), NOON + MINUTE + 1000)
    playback.toggle()
    await playback.snapshot()
    assert playback.silent_since_ms is None
    await playback.seek(NOON + 2 * MINUTE - 1000)
    assert playback.silent_since_ms == NOON + MINUTE


async def test_what_a_recording_does_not_have_is_refused_not_invented(tape: Path) -> None:
    desk = past_desk(Playback(Recording.open(tape)))
    await desk.reader.snapshot()
    for ask in (desk.commander.why("task100000000000"), desk.commander.jobs("j"), desk.commander.whys(["x"])):
        with pytest.raises(LcqError, match="not in the recording: nobody looked at it by then"):
            await ask
    with pytest.raises(NoLog, match="nobody had looked at it when this was recorded"):
        await desk.commander.read_log("gpu-1")
    for ask in (desk.commander.undo("x"), desk.commander.info(), desk.commander.comment(["x"], "y")):
        with pytest.raises(LcqError, match="this is a replay"):
            await ask
