"""F-11: kill -9 of the agent at each line from a grant to its verdict; no task is ever nowhere, each is done once."""

from __future__ import annotations

import contextlib
import hashlib
import random
import signal
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
import redis

from lcq.failpoints import AGENT_POINTS
from lcq.models import TaskStatus
from tests.audit import audit
from tests.chaos.rig import Photo, Rig, a_rig, scripted, scripted_agent
from tests.conftest import wait_until

# Outcomes reach the disk only where their verdict takes its time, and are delivered by the next boot only from there.
SLOWLY = "agent.ask=delay:0.8; "
NOT_ON_EVERY_WAY = ("agent.spool", "agent.deliver", "agent.retake")
AT_ONCE = [point for point in AGENT_POINTS if point not in NOT_ON_EVERY_WAY]
DRILLS = [f"{point}=kill{after}" for point in AT_ONCE for after in ("", "-after")]
BOOTS = [
    f"{SLOWLY}agent.spool=kill",
    f"{SLOWLY}agent.spool=kill-after",
    "agent.deliver=kill",
    "agent.deliver=kill-after",
]
# Of one node, with a result on its disk that may still count: each with what the one before has left.
LATE = [
    "agent.retake=kill",
    "agent.retake=kill-after",
    "agent.rename=kill",
    "agent.rename=kill-after",
    "agent.spool=kill",
    "agent.spool=kill-after",
    "agent.deliver=kill",
    "agent.deliver=kill-after",
]


@contextlib.contextmanager
def all_of(rig: Rig, drills: list[str]) -> Iterator[dict[str, subprocess.Popen[bytes]]]:
    with contextlib.ExitStack() as stack:
        yield {
            drill: stack.enter_context(scripted_agent(rig, f"node-{number}", failpoints=drill))
            for number, drill in enumerate(drills)
        }


async def died_of_it(process: subprocess.Popen[bytes], drill: str) -> None:
    await wait_until(lambda: process.poll() is not None, timeout=120, what=f"the agent to die of {drill}")
    assert process.returncode == -signal.SIGKILL, drill


@pytest.mark.chaos
@pytest.mark.timeout(400)
async def test_an_agent_killed_at_any_line_leaves_every_task_queued_or_leased_and_it_is_done_once(
    redis_url: str, tmp_path: Path, rng: random.Random
):
    await kill_at(rng.sample(DRILLS, len(DRILLS)), BOOTS, redis_url, tmp_path)


async def test_an_agent_killed_at_some_lines_leaves_every_task_queued_or_leased_and_it_is_done_once(
    redis_url: str, tmp_path: Path, rng: random.Random
):
    await kill_at(rng.sample(DRILLS, 3), BOOTS[1:3], redis_url, tmp_path)


def digest(path: str) -> str:
    return hashlib.sha256(Path(path).read_bytes()).hexdigest()


async def kill_at(drills: list[str], boots: list[str], redis_url: str, tmp_path: Path) -> None:
    """Let agents die of ``drills``, then those of one node of ``boots``; then all tasks are done, each once."""
    folder = tmp_path / "photos"
    tasks = [
        scripted("write", final=str(folder / f"{number}.png"), max_retries=100) for number in range(2 * len(drills) + 2)
    ]
    async with a_rig(redis_url, tmp_path) as rig:
        ids = [one.id for one in (await rig.client.submit_many(tasks)).accepted]
        with all_of(rig, drills) as agents:
            for drill, process in agents.items():
                await died_of_it(process, drill)
                found = await rig.client.get_many(ids)
                assert {one.status for one in found} <= {TaskStatus.QUEUED, TaskStatus.PROCESSING, TaskStatus.COMPLETED}
        for drill in boots:  # of one node, each with what the one before has left
            with scripted_agent(rig, "node-x", failpoints=drill) as process:
                await died_of_it(process, drill)
        async with rig.agent("node-x"), rig.agent("node-y"):
            for task in tasks:
                await rig.until(task.id, TaskStatus.COMPLETED, timeout=120)
        for task in tasks:
            record = await rig.client.get(task.id)
            assert record.result is not None
            attempts = await rig.attempts(task.id)
            assert [one.number for one in attempts] == list(range(1, len(attempts) + 1))
            assert [one.outcome for one in attempts].count("completed") == 1
            assert digest(str(task.config["final"])) == record.result.sha256, "a file of another attempt"
        left = sorted(path.name for path in folder.iterdir() if path.suffix == ".lcq-tmp")
        assert not left
    with redis.Redis.from_url(redis_url, decode_responses=True) as eye:
        audit(eye)
    print(f"\nkilled at {drills} and {boots}:")
    print(f"{len(drills) + len(boots)} kills, {len(tasks)} tasks, each committed once")


@pytest.mark.chaos
@pytest.mark.timeout(400)
async def test_an_agent_killed_at_any_line_with_a_late_result_has_its_file_there_before_the_task_is_completed(
    redis_url: str, tmp_path: Path
):
    photo = Photo(tmp_path / "photo")
    async with a_rig(redis_url, tmp_path) as rig:
        task_id = (await rig.client.submit(photo.task(max_retries=1))).id
        with scripted_agent(rig, "node-x", failpoints="agent.spool=kill-after") as process:
            await photo.until_begun(1)
            photo.final.write_bytes(b"somebody's")  # so that it is not sure that its own may be put there
            photo.open_to(1)
            await died_of_it(process, "agent.spool=kill-after")
        assert len(photo.staged()) == 1
        for drill in LATE:
            with scripted_agent(rig, "node-x", failpoints=drill) as process:
                await died_of_it(process, drill)
            record = await rig.client.get(task_id)
            assert record.retries <= 1, "there was no work to lose"
            if record.status is TaskStatus.COMPLETED:
                assert drill == "agent.deliver=kill-after"
                await rig.is_the_committed_one(task_id, photo, 1)
        async with rig.agent("node-x") as agent:
            await rig.until(task_id, TaskStatus.COMPLETED, timeout=120)
            await wait_until(lambda: not agent._outcomes, what="every outcome to be settled")
        await rig.is_the_committed_one(task_id, photo, 1)
        assert await rig.commits(task_id) == 1
        assert photo.staged() == []
    with redis.Redis.from_url(redis_url, decode_responses=True) as eye:
        audit(eye)


def test_each_line_is_tried_on_both_sides():
    tried = {entry.split("; ")[-1] for entry in (*DRILLS, *BOOTS, *LATE)}
    assert tried == {f"{point}=kill{after}" for point in AGENT_POINTS for after in ("", "-after")}
