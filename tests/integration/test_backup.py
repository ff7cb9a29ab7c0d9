"""Backups: a state taken while it changes is of one moment, and put back elsewhere it is that state, whole."""

from __future__ import annotations

import asyncio
import random
from pathlib import Path

import pytest
import redis

from lcq.backup import make_backup, restore_backup
from lcq.backup_file import verified
from lcq.config import DistributedConfig, RedisConfig
from lcq.errors import (
    BackupFailed,
    BackupUnusable,
    IdempotencyConflict,
    RestoreRefused,
    StateFormatMismatch,
    TransitionRefused,
)
from lcq.models import TaskPriority, TaskStatus
from lcq.state.manager import StateManager
from tests.audit import audit, compare, read
from tests.nodes import LIGHT, Node, a_failure, a_task

THERE = DistributedConfig(redis=RedisConfig(namespace="{there}"))


def move_to(eye: redis.Redis, root: str) -> None:
    """Away with all other namespaces: what reads every key reads those of ``root`` then."""
    gone = [name for name in eye.scan_iter(count=1000) if not name.startswith(f"{root}:")]
    if gone:
        eye.delete(*gone)


async def tasks_of_every_kind(state: StateManager, node: Node) -> dict[str, str]:
    """By what it is, the id of a task."""
    await node.hello()
    ids = {}
    for name in ("done", "failed", "cancelled", "runs", "back_off"):
        ids[name] = (await state.submit_task(a_task(job="wedding", user_id="ann"), queue=LIGHT)).id
        if name == "cancelled":
            await state.cancel_task(ids[name])
            continue
        assert await node.claim_ids() == [ids[name]]
        match name:
            case "done":
                await node.finish(ids[name], 1)
            case "failed":
                await node.fail(ids[name], 1, a_failure(code="mask_size"))
                await state.cancel_task(ids[name])
                await state.retry_task(ids[name], queue=LIGHT)
                assert await node.claim_ids() == [ids[name]]
                await node.fail(ids[name], 2, a_failure(code="gone"))
            case "back_off":
                await node.fail(ids[name], 1)
    ids["waits"] = (await state.submit_task(a_task(priority=TaskPriority.LOW, job="paused"), queue=LIGHT)).id
    ids["aside"] = (await state.submit_task(a_task(job="paused", user_id="bob"), queue=LIGHT)).id
    await state.pause_job("paused", actor="ann", reason="lunch")
    while not (await state.move_aside("paused"))[1]:
        pass
    ids["keyed"] = (await state.submit_task(a_task(), queue=LIGHT, key="mine")).id
    await state.pause_queue("gpu-high", actor="ann", reason="driver")
    await state.comment_task(ids["waits"], actor="ann", text="look at this")
    return ids


async def test_what_was_backed_up_is_put_back_whole_with_what_ran_queued_again(
    state: StateManager, redis_url: str, eye: redis.Redis, tmp_path: Path
):
    await state.announce_scheduler("head-1", "tcp://head:5571", hold_ms=1)  # who comes first names the cluster
    node = Node(state)
    ids = await tasks_of_every_kind(state, node)
    await state.drain_node(node.id, why="drained by ann")
    before = audit(eye)
    made = await make_backup(state, tmp_path / "state.lcq")
    assert made.tasks == len(before.tasks) == verified(made.path).end["tasks"]
    assert made.path.stat().st_mode & 0o777 == 0o600
    restored = await restore_backup(made.path, THERE, redis_url)
    assert restored.handed_back == 1
    assert not restored.left_out
    move_to(eye, "{there}")
    after = audit(eye, "{there}")
    changed = {i for i, t in before.tasks.items() if after.tasks[i] != t}
    assert changed == {ids["runs"]}
    assert after.tasks[ids["runs"]]["status"] == TaskStatus.QUEUED
    assert {i: a for i, a in before.attempts.items() if i not in changed} == {
        i: a for i, a in after.attempts.items() if i not in changed
    }
    for name in ("acts", "queue:gpu-high", "paused", "totals", "acks", "cluster"):
        assert after.values.get(name) == before.values.get(name), name
    async with StateManager(THERE, url=redis_url) as there:
        assert (await there.reader.queues())[0].paused
        assert (await there.submit_task(a_task(id=ids["keyed"]), queue=LIGHT, key="mine")).id == ids["keyed"]
        with pytest.raises(IdempotencyConflict):
            await there.submit_task(a_task(image_path="/another.png"), queue=LIGHT, key="mine")
        again = Node(there, boot="boot-2")
        await again.hello()
        assert (await there.reader.nodes())[0].status == "draining"
        await there.activate_node(node.id, why="by ann")
        with pytest.raises(TransitionRefused):  # an attempt that the backup has not seen does not count
            await again.finish(ids["runs"], 2)
        granted = {grant.task.id: grant.attempt for grant in await again.claim(9)}
        assert granted[ids["runs"]] == 2
        assert ids["aside"] not in granted
        for task_id, attempt in granted.items():
            await again.finish(task_id, attempt)
    audit(eye, "{there}")


async def test_a_backup_of_a_state_that_changes_meanwhile_is_of_one_moment(
    state: StateManager, redis_url: str, eye: redis.Redis, tmp_path: Path, rng: random.Random
):
    nodes = [Node(state, f"node-{n}") for n in range(3)]
    for node in nodes:
        await node.hello()
    for _ in range(600):
        await state.submit_task(a_task(job=f"job {rng.randrange(5)}"), queue=LIGHT)
    told: dict[str, list[str]] = {}

    async def work(node: Node) -> None:
        while True:
            for grant in await node.claim(3):
                match rng.randrange(6):
                    case 0:
                        await node.fail(grant.task.id, grant.attempt)
                    case 1:
                        await state.cancel_task(grant.task.id)
                    case _:
                        await node.finish(grant.task.id, grant.attempt)
            await state.submit_task(a_task(job="late"), queue=LIGHT)

    async with asyncio.TaskGroup() as group:
        working = [group.create_task(work(node)) for node in nodes]
        made = await make_backup(state, tmp_path / "state.lcq")
        for one in working:
            one.cancel()
    end = verified(made.path).end
    for event_id, fields in eye.xrange("{lcq}:events"):
        if fields.get("id"):
            told.setdefault(fields["id"], []).append(f"{event_id} {fields['status']} {fields['rev']}")
    moment = tuple(map(int, end["last_event"].split("-")))
    restored = await restore_backup(made.path, THERE, redis_url)
    assert sum(restored.by_state.values()) == made.tasks == end["tasks"]
    move_to(eye, "{there}")
    ledger = audit(eye, "{there}")
    for task_id, lines in told.items():  # each task is as the last event before that moment told
        seen = [line.split() for line in lines if tuple(map(int, line.split()[0].split("-"))) <= moment]
        assert bool(seen) == (task_id in ledger.tasks)
        if seen:
            _, status, rev = seen[-1]
            ran = status == TaskStatus.PROCESSING
            found = ledger.tasks[task_id]
            assert (found["status"], int(found["rev"])) == ("queued" if ran else status, int(rev) + ran)


async def test_nothing_is_put_where_somebody_works_or_where_something_is(
    state: StateManager, redis_url: str, eye: redis.Redis, tmp_path: Path
):
    await state.submit_task(a_task(), queue=LIGHT)
    made = await make_backup(state, tmp_path / "state.lcq")
    with pytest.raises(BackupFailed, match="already"):
        await make_backup(state, made.path)
    with pytest.raises(RestoreRefused, match="not empty"):
        await restore_backup(made.path, state.config, redis_url)
    await state.announce_scheduler("head-1", "tcp://head:5571", hold_ms=60_000)
    with pytest.raises(RestoreRefused, match="head-1"):
        await restore_backup(made.path, state.config, redis_url, replace=True)
    await state.withdraw_scheduler("head-1")
    await state.submit_task(a_task(), queue=LIGHT)
    restored = await restore_backup(made.path, state.config, redis_url, replace=True, paused=True, as_copy=True)
    assert restored.by_state == {"queued": 1}
    assert len(audit(eye).tasks) == 1
    assert all(queue.paused for queue in await state.reader.queues())
    assert eye.get("{lcq}:cluster") not in (None, "")


async def test_a_restore_that_was_broken_off_keeps_schedulers_out_until_it_is_done_again(
    state: StateManager, redis_url: str, eye: redis.Redis, tmp_path: Path
):
    await state.submit_task(a_task(), queue=LIGHT)
    made = await make_backup(state, tmp_path / "state.lcq")
    async with StateManager(THERE, url=redis_url) as there:
        await there.begin_restore("noon")
    with pytest.raises(StateFormatMismatch, match=r"a backup is being put into .* since noon"):
        await StateManager(THERE, url=redis_url).__aenter__()
    await restore_backup(made.path, THERE, redis_url)
    async with StateManager(THERE, url=redis_url) as there:
        assert sum((await there.reader.counts()).values()) == 1
    move_to(eye, "{there}")
    compare(read(eye, "{there}"))


async def test_a_backup_that_is_cut_changed_or_none_is_told_from_one(state: StateManager, tmp_path: Path):
    import gzip

    await state.submit_task(a_task(), queue=LIGHT)
    whole = (await make_backup(state, tmp_path / "state.lcq")).path.read_bytes()
    broken = tmp_path / "broken.lcq"
    lines = gzip.decompress(whole).splitlines(keepends=True)
    for data, found in (
        (whole[:-20], "breaks off"),
        (b"not gzip", "damaged"),
        (b"", "empty"),
        (gzip.compress(b"".join(lines[:-1])), "breaks off"),
        (
            gzip.compress(b"".join((*lines[:-2], lines[-2].replace(b"submit_task", b"finish_task"), lines[-1]))),
            "digest",
        ),
        (gzip.compress(lines[0].replace(b'"lcq_backup":1', b'"lcq_backup":2')), "format 2"),
        (gzip.compress(b'{"a": 1}\n'), "no backup"),
    ):
        broken.write_bytes(data)
        with pytest.raises(BackupUnusable, match=found):
            verified(broken)
    with pytest.raises(BackupUnusable, match="No such file"):
        verified(tmp_path / "nowhere")
