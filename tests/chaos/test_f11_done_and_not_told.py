"""F-11: Redis makes a move and the scheduler is told that it failed; who asked asks again, and it is done once."""

from __future__ import annotations

import random
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
import redis

from lcq import failpoints
from lcq.models import Privacy, TaskPriority, TaskStatus
from tests.audit import audit
from tests.chaos.rig import Rig, a_rig, scripted
from tests.conftest import wait_until

TOLD = (
    "submit_task", "claim_tasks", "finish_task", "fail_task", "release_task", "beat_node", "register_node",
    "leave_node", "cancel_task", "retry_task", "reroute_task", "prioritise_task", "pause_queue", "resume_queue",
    "drain_node", "activate_node", "release_models", "set_device", "label_node", "note_act",
    "pause_job", "resume_job", "move_aside", "undo_task", "undo_queue", "set_deadline", "set_privacy",
)  # fmt: skip
"""Every move that somebody waits for."""
ON_THEIR_OWN = ("release_due", "expire_leases", "forget_tasks", "forget_nodes", "take_duty", "announce_scheduler")
LIGHT, HEAVY = "cpu-light", "cpu-intensive"


@pytest.fixture
def eye(redis_url: str):
    with redis.Redis.from_url(redis_url, decode_responses=True) as client:
        yield client


@pytest.fixture(autouse=True)
def patience(monkeypatch: pytest.MonkeyPatch) -> None:
    """A slow machine must not be too late to take something back."""
    monkeypatch.setattr("lcq.state.scripts.UNDO_KEPT", timedelta(minutes=10))


async def live_a_day(rig: Rig) -> dict[str, TaskStatus]:
    """Make a cluster use every move there is; answers what each task is to be in the end."""
    client = rig.client
    async with rig.agent() as agent:
        plain = [(await client.submit(scripted())).id for _ in range(3)]
        for task_id in plain:
            await rig.until(task_id, TaskStatus.COMPLETED)
        failing = (await client.submit(scripted("fail", **{"class": "transient"}, max_retries=1))).id
        await rig.until(failing, TaskStatus.FAILED)
        assert [one.outcome for one in await rig.attempts(failing)] == ["failed"] * 2
        assert not (await client.retry([failing])).refused
        await wait_until(lambda: _attempts(rig, failing, 4), timeout=60)
        await rig.until(failing, TaskStatus.FAILED)

        paused = await client.pause(LIGHT)
        assert not (await client.undo(paused)).refused
        await client.pause(LIGHT)
        waiting = (await client.submit(scripted().model_copy(update={"job": "day"}), queue=LIGHT)).id
        await client.pause_job("day")
        await client.resume_job("day")
        hurried = await client.prioritise([waiting], TaskPriority.HIGH)
        assert not hurried.refused
        assert not (await client.undo(hurried.acts[0])).refused
        assert not (await client.set_deadline([waiting], datetime(2026, 12, 24, tzinfo=UTC))).refused
        assert not (await client.set_privacy([waiting], Privacy.EXPORTABLE)).refused
        assert not (await client.reroute([waiting], node="node-1")).refused
        assert not (await client.cancel([waiting])).refused
        await client.resume(LIGHT)

        ended = (await client.submit(scripted("until cancelled"))).id
        await rig.until(ended, TaskStatus.PROCESSING)
        assert not (await client.cancel([ended])).refused
        await wait_until(lambda: not agent._pool.running(), what="the cancelled runner to be free")
        await client.release("node-1")
        await client.label_node("node-1", {"rack": "3"})
        await client.set_device("node-1", queues=("cpu-light",))
        await client.set_device("node-1", queues=())
        await client.drain("node-1")
        await client.activate("node-1")
        given_back = (await client.submit(scripted("until cancelled"))).id
        await rig.until(given_back, TaskStatus.PROCESSING)
        await wait_until(lambda: len(agent._pool.running()) == 1, what="the last task to run")
    await rig.until(given_back, TaskStatus.QUEUED)
    assert (await client.get(given_back)).retries == 0
    return dict.fromkeys(plain, TaskStatus.COMPLETED) | {
        failing: TaskStatus.FAILED,
        waiting: TaskStatus.CANCELLED,
        ended: TaskStatus.CANCELLED,
        given_back: TaskStatus.QUEUED,
    }


async def _attempts(rig: Rig, task_id: str, count: int) -> bool:
    return len(await rig.attempts(task_id)) >= count


async def live_it_with(armed: str, redis_url: str, folder: Path, eye: redis.Redis) -> None:
    async with a_rig(redis_url, folder) as rig:
        with failpoints.armed(armed):
            wanted = await live_a_day(rig)
            await wait_until(lambda: not failpoints.unmet(), timeout=60, what="every armed point to have done its part")
        for task_id, status in wanted.items():
            assert await rig.status(task_id) == status
            assert await rig.commits(task_id) == (status is TaskStatus.COMPLETED)
        totals = await rig.scheduler.state.reader.totals()
        assert (totals["submitted"], totals["completed"], totals["cancelled"]) == (len(wanted), 3, 2)
        assert totals["failed"] == 2
        assert "fenced" not in totals, "what was done and told again was taken for somebody else's"
        audit(eye)


async def test_every_move_made_and_not_told_at_its_first_time_is_made_once(
    redis_url: str, tmp_path: Path, eye: redis.Redis
):
    armed = "; ".join(f"state.{move}=error-after@1" for move in (*TOLD, *ON_THEIR_OWN))
    await live_it_with(armed, redis_url, tmp_path, eye)


@pytest.mark.chaos
async def test_every_move_may_fail_now_and_then_before_or_after_it_was_made(
    redis_url: str, tmp_path: Path, eye: redis.Redis, rng: random.Random
):
    entries = []
    for move in (*TOLD, *ON_THEIR_OWN):
        action = rng.choice(["error", "error-after"])
        entries.append(f"state.{move}={action}@1")
    await live_it_with("; ".join(entries), redis_url, tmp_path, eye)


def test_no_move_is_left_out():
    quiet = {"submit_task", "suspect_node", "lose_node"}  # and those that answer to damage, to clocks, to failing nodes
    quiet |= {"adopt_state", "isolate_node", "isolate_task", "note_failover", "shift_deadlines"}
    quiet |= {"quarantine_node", "caution_device", "probe_node", "settle_probe", "stop_node"}
    quiet |= {"recall_tasks", "note_job"}  # that asks for what limits keep back; that tells what a folder has left out
    quiet |= {"comment_task", "undo_comment", "acknowledge_cause", "undo_acknowledgement"}  # words for people
    quiet |= {"note_alerts", "settle_notice", "silence_alert", "undo_silence"}  # of no task: test_alerts.py
    quiet |= {"tell_condition"}  # said anew every few seconds
    quiet |= {"retake_task"}  # that only a late result brings about; told twice in test_moves.py
    quiet |= {"copy_tasks", "copy_keys", "copy_expired", "copy_rest", "restore_begin", "restore_task", "restore_key"}
    quiet |= {"restore_end", "note_upkeep"}  # backups and the archive: what fails is begun anew
    quiet |= {"account_tasks", "see_schedule", "end_schedule", "pause_schedule", "resume_schedule", "window_node"}
    quiet |= {"open_call", "lend_address", "take_address", "name_bytes", "settle_address", "close_call"}  # test_lent.py
    quiet |= {"bill_attempt"}  # what a gateway tells: test_functions_called.py
    quiet |= {"wish_warm_up", "reserve_warm_up", "settle_warm_up"}  # of no task: test_warm_ups.py
    quiet |= {"note_depths"}  # for charts: what is missed is missing there, and nowhere else
    quiet |= {"enrol_key", "accept_invitation", "revoke_key", "replace_key", "note_handshakes"}  # of no task
    assert {*TOLD, *ON_THEIR_OWN} | quiet == {point.removeprefix("state.") for point in failpoints.STATE_POINTS}
