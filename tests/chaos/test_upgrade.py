"""Upgrades: the previous protocol is still answered, the next one refused by name, older state read, newer left alone.

What the previous version wrote and said is in ``tests/data/v1`` (made by ``tests/make_v1_fixtures.py``).
"""

from __future__ import annotations

import asyncio
import base64
import json
import shutil
import time
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any

import msgpack
import pytest
import redis

from lcq.client import AsyncClient
from lcq.config import DistributedConfig
from lcq.embedded import PrivateServer
from lcq.errors import StateFormatMismatch, VersionMismatch
from lcq.models import NodeStatus, TaskStatus
from lcq.scheduler import Scheduler
from lcq.state.manager import StateManager
from lcq.state.reader import StateReader
from lcq.state.scripts import BASE_FORMAT, STATE_FORMAT
from lcq.wire import OLDEST_PROTOCOL, PROTOCOL_VERSION, Info, InfoAnswer, Order, pack_answer
from tests.audit import audit
from tests.cluster import running_cluster
from tests.conftest import wait_until
from tests.nodes import LIGHT, Node, a_task
from tests.peer import Peer

V1 = Path(__file__).parents[1] / "data" / "v1"
LATER_MS = 10 * 24 * 3600 * 1000


# ---------------------------------------------------------------- what the previous version says


@pytest.fixture
async def scheduler(redis_url: str) -> AsyncIterator[Scheduler]:
    leases: Any = {"beat_s": 30, "lease_s": 300}
    config = DistributedConfig(zeromq={"base_port": 0, "control_port": 0}, leases=leases)  # type: ignore[arg-type]
    async with Scheduler(config, redis_url=redis_url) as scheduler:
        yield scheduler


def misread(values: Any, shape: dict[str, Any], root: dict[str, Any], where: str = "ok") -> list[str]:
    """What a peer that knows ``shape`` (a JSON schema, as pydantic writes them) could not read of ``values``."""
    if "$ref" in shape:
        shape = root["$defs"][shape["$ref"].rpartition("/")[2]]
    if "anyOf" in shape:
        tried = [misread(values, one, root, where) for one in shape["anyOf"]]
        return min(tried, key=len)
    if "enum" in shape and values not in shape["enum"]:
        return [f"{where}: {values!r} is none of {shape['enum']}"]
    python = {"object": dict, "array": list, "string": str, "integer": int, "number": (int, float), "boolean": bool}
    kind = shape.get("type")
    if kind == "null":
        return [] if values is None else [f"{where}: {values!r} is not null"]
    if kind is not None and not isinstance(values, python[kind]):
        return [f"{where}: {values!r:.60} is no {kind}"]
    found = []
    if isinstance(values, dict):
        found += [f"{where}: no {name}" for name in shape.get("required", ()) if name not in values]
        for name, value in values.items():
            inner = shape.get("properties", {}).get(name, shape.get("additionalProperties"))
            if isinstance(inner, dict):
                found += misread(value, inner, root, f"{where}.{name}")
    elif isinstance(values, list):
        for number, value in enumerate(values):
            inner = shape["prefixItems"][number] if "prefixItems" in shape else shape.get("items", {})
            found += misread(value, inner, root, f"{where}.{number}")
    return found


def talk() -> list[dict[str, Any]]:
    recorded: list[dict[str, Any]] = json.loads((V1 / "talk.json").read_text())
    return recorded


def test_the_shapes_that_were_kept_are_able_to_refuse() -> None:
    nodes = next(one for one in talk() if one["cmd"] == "nodes")
    told = msgpack.unpackb(base64.b64decode(nodes["answer"]))["ok"]
    assert misread(told, nodes["shape"], nodes["shape"]) == []
    told["nodes"][0]["capability"]["models"] = {"cv2-telea": {"kinds": ["cpu"]}}
    del told["nodes"][0]["boot_id"]
    assert len(misread(told, nodes["shape"], nodes["shape"])) == 2


async def test_all_that_an_agent_and_a_client_of_the_previous_protocol_say_is_answered_in_their_words(
    scheduler: Scheduler,
) -> None:
    desk = scheduler.site.desk
    for one in talk():
        request = base64.b64decode(one["request"])
        assert msgpack.unpackb(request)["v"] == PROTOCOL_VERSION - 1
        answer = msgpack.unpackb(await desk.answer(request, b"studio-9/boot-1"))
        assert answer["v"] == PROTOCOL_VERSION - 1, one["cmd"]
        assert "error" not in answer, (one["cmd"], answer)
        assert misread(answer["ok"], one["shape"], one["shape"]) == [], one["cmd"]
        then = msgpack.unpackb(base64.b64decode(one["answer"]))["ok"]
        match one["cmd"]:  # what it did is what the previous scheduler did
            case "step":
                assert [(g["task"]["id"], g["attempt"]) for g in answer["ok"]["grants"]] == [
                    (g["task"]["id"], g["attempt"]) for g in then["grants"]
                ]
                assert answer["ok"]["verdicts"] == then["verdicts"]
            case "submit" | "cancel" | "retry" | "reroute" | "prioritise" | "find":
                assert {name: answer["ok"].get(name) for name in then} == then  # what is new is only added
            case "get_tasks":
                states = [(t["task"]["id"], t["status"], t["queue"]) for t in answer["ok"]["tasks"]]
                assert states == [(t["task"]["id"], t["status"], t["queue"]) for t in then["tasks"]]
            case "nodes":
                assert [n["capability"]["models"] for n in answer["ok"]["nodes"]] == [
                    n["capability"]["models"] for n in then["nodes"]
                ]


async def test_a_command_of_the_previous_protocol_sent_twice_gets_the_same_answer_in_its_words(
    scheduler: Scheduler,
) -> None:
    submit = base64.b64decode(next(one for one in talk() if one["cmd"] == "submit")["request"])
    first = await scheduler.site.desk.answer(submit, b"c")
    scheduler.site.desk._answers.clear()  # as after a restart of the scheduler
    assert await scheduler.site.desk.answer(submit, b"c") == first


async def test_an_agent_of_the_previous_protocol_gets_its_orders_in_it_and_none_that_it_does_not_know(
    redis_url: str, scheduler: Scheduler, monkeypatch: pytest.MonkeyPatch
) -> None:
    sent: list[dict[str, Any]] = []
    hello = base64.b64decode(talk()[0]["request"])
    await scheduler.site.desk.answer(hello, b"studio-9/boot-1")
    monkeypatch.setattr(scheduler.nodes._mailbox, "send", lambda address, frame: sent.append(msgpack.unpackb(frame)))
    scheduler.nodes.order("studio-9", Order(cmd="release"))
    scheduler.nodes.order("studio-9", Order(cmd="wake"))
    assert [(order["v"], order["cmd"]) for order in sent] == [(PROTOCOL_VERSION - 1, "wake")]


# ---------------------------------------------------------------- what the next version will say, and is told


@pytest.mark.parametrize("version", [0, PROTOCOL_VERSION + 1])
async def test_a_peer_of_a_protocol_that_is_not_spoken_is_refused_with_both_versions(
    scheduler: Scheduler, version: int
) -> None:
    frame = msgpack.packb({"v": version, "id": "r1", "cmd": "info"})
    answer = msgpack.unpackb(await scheduler.site.desk.answer(frame, b"c"))
    assert answer["id"] == "r1"
    assert answer["error"]["code"] == "version_mismatch"
    assert str(version) in answer["error"]["message"]
    assert f"{PROTOCOL_VERSION}" in answer["error"]["message"]


async def test_a_client_that_meets_an_older_scheduler_is_told_both_versions_at_once() -> None:
    old = Peer()

    async def refuse(sender: bytes, frame: bytes) -> None:  # as protocol 1's scheduler did, word for word
        request_id = msgpack.unpackb(frame)["id"]
        body = {
            "code": "version_mismatch",
            "message": "this scheduler speaks protocol 1, the message has 2",
            "hint": "",
        }
        await old.send(sender, msgpack.packb({"v": 1, "id": request_id, "error": body}))

    async def serve(mailbox: Any) -> None:
        async for batch in mailbox.batches():
            for sender, frame in batch:
                await refuse(sender, frame)

    old._serve = serve  # type: ignore[method-assign]
    async with old.listening(), old.client() as client:
        began = time.monotonic()
        with pytest.raises(VersionMismatch, match=rf"we speak protocol {PROTOCOL_VERSION}, the scheduler 1"):
            await client.info()
        assert time.monotonic() - began < 20  # not the client's whole patience of 30 s


def test_an_answer_of_a_newer_scheduler_is_refused_by_name() -> None:
    from lcq.wire import unpack_reply

    frame = pack_answer("r1", InfoAnswer.model_construct(), version=PROTOCOL_VERSION + 1)
    with pytest.raises(VersionMismatch, match=rf"the scheduler {PROTOCOL_VERSION + 1}"):
        unpack_reply(frame).answer(Info.ANSWER)  # type: ignore[type-var]


def test_the_page_on_upgrades_names_the_versions_that_there_are() -> None:
    page = (Path(__file__).parents[2] / "docs" / "upgrade.md").read_text()
    protocols = f"protocol {PROTOCOL_VERSION} ({OLDEST_PROTOCOL} is still answered)"
    assert f"{protocols}, format {STATE_FORMAT} (" in page
    assert f"; {BASE_FORMAT} until then)" in page


# ---------------------------------------------------------------- the state


@pytest.fixture
def old_state(tmp_path: Path):
    """A private server that found the log of the previous version in its folder."""
    folder = tmp_path / "data" / "redis"
    folder.mkdir(parents=True)
    shutil.copy(V1 / "appendonly.aof", folder / "appendonly.aof")
    with PrivateServer(tmp_path / "data") as server:
        yield server


WRITTEN = {
    "done": "completed", "done-again": "completed", "spoilt": "failed", "unwanted": "cancelled", "backs-off": "pending",
    "runs": "processing", "runs-too": "processing", "later": "pending", "waits-0": "queued", "waits-1": "queued",
    "waits-2": "queued", "urgent": "queued", "pinned": "queued", "heavy": "queued",
}  # fmt: skip


async def test_the_state_of_the_previous_version_is_read_as_it_was_written(old_state: PrivateServer) -> None:
    async with StateReader(old_state.url) as reader:
        shot = await reader.snapshot()
        by_name = {Path(record.task.image_path).stem: record for record in shot.tasks}
        assert {name: record.status.value for name, record in by_name.items()} == WRITTEN
        assert not any(record.damaged for record in (*shot.tasks, *shot.nodes))
        again = by_name["done-again"]
        assert (again.attempt, again.node, again.result is not None) == (2, "studio-2", True)
        assert [one.outcome for one in await reader.attempts(again.id)] == ["handed_back", "completed"]
        assert by_name["spoilt"].failure is not None
        assert {node.id: node.status for node in shot.nodes} == {
            "studio-1": NodeStatus.ONLINE, "studio-2": NodeStatus.ONLINE, "studio-3": NodeStatus.OFFLINE,
        }  # fmt: skip
        assert set(shot.nodes[0].capability.models) == {"cv2-telea", "cv2-ns"}
        assert [queue.name for queue in shot.queues if queue.paused] == ["cpu-intensive"]
        jobs = {job.name: job.total for job in await reader.jobs()}
        assert jobs == {"holiday": 7, "wedding": 3}
        assert len(await reader.task_events(again)) == 5


async def test_a_cluster_of_this_version_finishes_what_the_previous_one_began(old_state: PrivateServer) -> None:
    with redis.Redis.from_url(old_state.url, decode_responses=True) as eye:
        seconds, _ = eye.time()
        over = eye.zrange("{lcq}:expiry", 0, -1)
        eye.zadd("{lcq}:expiry", dict.fromkeys(over, seconds * 1000 + LATER_MS), xx=True)  # the file grows old
        async with StateManager(DistributedConfig(), url=old_state.url) as state:
            assert eye.get("{lcq}:format") == str(BASE_FORMAT)
            assert len(await state.expire_leases()) == 2  # those that ran
            assert await state.release_due() == 2
            await state.resume_queue("cpu-intensive", actor="ben")
            done: Counter[str] = Counter()
            for number in (1, 2):
                node = Node(state, f"studio-{number}", boot="a new one", queues=(LIGHT, "cpu-intensive"))
                await node.hello()
                while granted := await node.claim(4):
                    for grant in granted:
                        await node.finish(grant.task.id, grant.attempt)
                        done[Path(grant.task.image_path).stem] += 1
            assert done == Counter(name for name, was in WRITTEN.items() if was in ("pending", "queued", "processing"))
            counts = await state.reader.counts()
            assert counts[TaskStatus.COMPLETED] == len(WRITTEN) - 2
            assert (await state.reader.totals()).get("isolated", 0) == 0
            failed = await state.reader.list_tasks(_failed())
            await state.retry_task(failed.tasks[0].id, queue=LIGHT)
            again = await state.submit_task(a_task(), queue=LIGHT, key="another")
            assert not again.duplicate
        audit(eye)


def _failed() -> Any:
    from lcq.wire import ListTasks

    return ListTasks(status=TaskStatus.FAILED)


async def test_a_real_scheduler_and_agent_start_on_the_state_of_the_previous_version(
    old_state: PrivateServer, tmp_path: Path
) -> None:
    with running_cluster(old_state.url, tmp_path / "c") as cluster:
        await asyncio.to_thread(cluster.start_scheduler)
        await asyncio.to_thread(cluster.start_agent, "studio-2")
        async with AsyncClient(cluster.config, scheduler=f"127.0.0.1:{cluster.control_port}") as client:

            async def is_over() -> bool:  # their pictures are on no disk: each ends as bad input, by itself
                left = [r async for r in client.tasks() if not r.status.is_terminal and r.queue == LIGHT]
                return not left

            await wait_until(is_over, timeout=60)
            ended = [record async for record in client.tasks(status=TaskStatus.FAILED)]
            codes = {record.failure.code for record in ended if record.failure is not None}
            assert codes <= {"image_missing", "mask_size_mismatch"}, codes


async def test_state_of_a_newer_format_is_refused_and_left_alone(redis_url: str) -> None:
    with redis.Redis.from_url(redis_url, decode_responses=True) as eye:
        eye.set("{lcq}:format", STATE_FORMAT + 1)
        with pytest.raises(
            StateFormatMismatch, match=rf"format {STATE_FORMAT + 1}, this LCQ writes format {STATE_FORMAT}"
        ):
            async with StateManager(DistributedConfig(), url=redis_url):
                pass
        assert eye.keys() == ["{lcq}:format"]


def test_a_scheduler_stops_when_a_newer_one_has_taken_the_state_over(redis_url: str, tmp_path: Path) -> None:
    with (
        running_cluster(redis_url, tmp_path / "c") as cluster,
        redis.Redis.from_url(redis_url, decode_responses=True) as eye,
    ):
        process = cluster.start_scheduler()
        eye.set("{lcq}:format", STATE_FORMAT + 1)
        writes = {name: eye.dump(name) for name in eye.scan_iter()}
        assert process.wait(30) not in (0, None)
        log = cluster.log_path("scheduler").read_text()
        assert f"holds state of format {STATE_FORMAT + 1}, this LCQ writes format {STATE_FORMAT}" in log
        assert "Traceback" not in log
        written = {name for name in eye.scan_iter() if eye.dump(name) != writes.get(name)}
        assert written <= {"{lcq}:schedulers"}  # its own address, which it takes away


async def test_no_move_writes_into_a_state_of_another_format(redis_url: str) -> None:
    async with StateManager(DistributedConfig(), url=redis_url) as state:
        with redis.Redis.from_url(redis_url, decode_responses=True) as eye:
            eye.set("{lcq}:format", STATE_FORMAT + 1)
            with pytest.raises(StateFormatMismatch):
                await state.submit_task(a_task(), queue=LIGHT)
            with pytest.raises(StateFormatMismatch):
                await state.take_duty("nodes", "me", hold_ms=100)
            assert eye.keys() == ["{lcq}:format"]


async def test_two_schedulers_of_one_format_share_a_state(redis_url: str) -> None:
    async with (
        StateManager(DistributedConfig(), url=redis_url) as one,
        StateManager(DistributedConfig(), url=redis_url) as other,
    ):
        node = Node(one)
        await node.hello()
        task = a_task()
        await other.submit_task(task, queue=LIGHT)
        assert await node.claim_ids() == [task.id]
        await Node(other).finish(task.id)
        assert (await one.reader.task(task.id)).status == TaskStatus.COMPLETED


async def test_what_an_older_format_would_take_for_damage_stops_its_schedulers_and_nothing_before_that(
    redis_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One that writes format 2 knows no tasks that wait aside: it would isolate each that it met."""
    async with AsyncExitStack() as stack:
        with monkeypatch.context() as past:
            past.setattr("lcq.state.scripts.STATE_FORMAT", 2)
            older = await stack.enter_async_context(StateManager(DistributedConfig(), url=redis_url))
        newer = await stack.enter_async_context(StateManager(DistributedConfig(), url=redis_url))
        task = a_task(job="holiday")
        await older.submit_task(task, queue=LIGHT)
        await newer.submit_task(a_task(job="holiday"), queue=LIGHT)
        await newer.pause_job("holiday", actor="ann")
        await newer.move_aside("holiday")
        with pytest.raises(StateFormatMismatch, match="holds state of format 3"):
            await older.cancel_task(task.id)
        assert (await newer.reader.task(task.id)).status is TaskStatus.QUEUED
        await newer.resume_job("holiday", actor="ann")
        await newer.move_aside("holiday")
        with pytest.raises(StateFormatMismatch):  # it does not come and go with the pause
            await older.cancel_task(task.id)
        assert (await newer.reader.totals()).get("isolated", 0) == 0
    monkeypatch.setattr("lcq.state.scripts.STATE_FORMAT", 2)
    with pytest.raises(StateFormatMismatch):
        async with StateManager(DistributedConfig(), url=redis_url):
            pass


async def test_tasks_kept_back_for_a_quota_raise_the_format_too_and_such_state_is_adopted_with_it(
    redis_url: str,
) -> None:
    config = DistributedConfig(quotas={"in_flight": 1})  # type: ignore[arg-type]
    with redis.Redis.from_url(redis_url, decode_responses=True) as eye:
        async with StateManager(config, url=redis_url) as state:
            node = Node(state)
            await node.hello()
            for _ in range(3):
                await state.submit_task(a_task(), queue=LIGHT)
            assert eye.get("{lcq}:format") == str(BASE_FORMAT)
            assert len(await node.claim_ids(2)) == 1
            assert len(await node.claim_ids(2)) == 0
            assert eye.get("{lcq}:format") == str(STATE_FORMAT)
        eye.set("{lcq}:format", BASE_FORMAT)  # as the days between the two left it
        async with StateManager(config, url=redis_url):
            assert eye.get("{lcq}:format") == str(STATE_FORMAT)
