"""The client against a scheduler's socket that is deaf, late, doubled, restarted or of another version."""

from __future__ import annotations

import asyncio
import contextlib
import inspect
import os
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from lcq.client import AsyncClient, Client, find_schedulers
from lcq.config import DistributedConfig
from lcq.embedded import write_cluster_file
from lcq.errors import (
    InvalidInput,
    LcqError,
    ProtocolError,
    SchedulerUnreachable,
    StateUnavailable,
    TaskNotFound,
    TransitionRefused,
    UnknownQueue,
    VersionMismatch,
)
from lcq.ids import new_id
from lcq.models import TaskStatus
from lcq.wire import (
    MAX_BATCH,
    Accepted,
    Act,
    BulkAnswer,
    Done,
    FindAnswer,
    GetTasksAnswer,
    ListTasksAnswer,
    Message,
    Refusal,
    SubmitAnswer,
    pack_answer,
)
from tests.conftest import wait_until
from tests.peer import PATIENT_S, Peer, Story, a_record, a_task, info

# ---------------------------------------------------------------- one request, one answer


async def test_a_request_nobody_hears_is_sent_again_under_the_same_id() -> None:
    deaf = Counter[str]()

    def hears_the_third(ask: Any) -> Message | None:
        deaf[ask.id] += 1
        return Done() if deaf[ask.id] == 3 else None

    async with Peer(pause=hears_the_third).listening() as peer, peer.client() as client:
        await client.pause("gpu-low", reason="drivers")
    assert list(deaf.values()) == [3]
    assert {(ask.queue, ask.actor, ask.reason) for ask in peer.heard} == {("gpu-low", "ann", "drivers")}


async def test_a_scheduler_that_starts_after_the_question_answers_it() -> None:
    peer = Peer(info=lambda ask: info())
    async with peer.listening():
        pass  # now it has an endpoint, and nobody is there
    async with peer.client() as client, asyncio.TaskGroup() as group:
        asked = group.create_task(client.info())
        await asyncio.sleep(0)
        async with peer.listening():
            assert (await asked).version == "9"


async def test_nobody_there_is_told_with_the_address_and_what_to_do() -> None:
    peer = Peer()
    async with peer.listening():
        pass
    async with peer.client(timeout_s=0.1) as client:
        with pytest.raises(SchedulerUnreachable) as caught:
            await client.info()
    assert caught.value.endpoint == peer.endpoint
    assert peer.endpoint in caught.value.message
    assert "lcq up" in caught.value.hint


async def test_answers_that_come_twice_late_or_to_nobody_do_no_harm() -> None:
    async with Peer(info=lambda ask: info()).listening() as peer, peer.client() as client:
        await client.info()
        for request_id in (peer.heard[0].id, "nobody"):
            await peer.send(peer.senders[0], pack_answer(request_id, info()))
        assert (await client.info()).version == "9"


async def test_many_requests_at_once_get_each_its_own_answer() -> None:
    async with Peer(find=lambda ask: FindAnswer(id=ask.prefix * 2)).listening() as peer, peer.client() as client:
        prefixes = [f"{number:04d}" for number in range(500)]
        assert await asyncio.gather(*map(client.find, prefixes)) == [prefix * 2 for prefix in prefixes]


async def test_a_refusal_is_raised_as_the_error_it_names() -> None:
    refusal = UnknownQueue("gpu-hgih", ["gpu-high"])
    async with Peer(pause=lambda ask: refusal).listening() as peer, peer.client() as client:
        with pytest.raises(UnknownQueue, match="did you mean 'gpu-high'"):
            await client.pause("gpu-hgih")


@pytest.mark.parametrize(
    ("frame", "error", "says"),
    [
        (b"\x83\xa1v\x63\xa2id\xa1x\xa2ok\x80", VersionMismatch, "we speak protocol 2, the scheduler 99"),
        (b"HTTP/1.1 400", ProtocolError, "not msgpack"),
    ],
)
async def test_a_peer_that_cannot_be_understood_is_told_at_once(frame: bytes, error: type[LcqError], says: str) -> None:
    async with Peer(info=lambda ask: None).listening() as peer, peer.client() as client:
        async with asyncio.TaskGroup() as group:
            asked = group.create_task(_outcome(client.info()))
            await wait_until(lambda: peer.senders)
            await peer.send(peer.senders[0], frame)
        assert isinstance(asked.result(), error)
        assert says in str(asked.result())


async def _outcome(work: Any) -> object:
    try:
        return await work
    except LcqError as error:
        return error


async def test_a_client_that_is_not_open_says_so() -> None:
    with pytest.raises(RuntimeError, match="with block"):
        await AsyncClient(DistributedConfig()).info()


# ---------------------------------------------------------------- submitting and steering


async def test_many_tasks_go_in_pieces_and_come_back_in_order_with_their_keys() -> None:
    def accept(ask: Any) -> SubmitAnswer:
        assert [task.metadata["key"] for task in ask.tasks] == list(ask.keys)
        return SubmitAnswer(
            accepted=tuple(Accepted(id=task.id, queue=ask.queue, status=TaskStatus.QUEUED) for task in ask.tasks[1:]),
            refused=(Refusal.of(ask.tasks[0].id, InvalidInput("no")),),
        )

    tasks = [a_task(metadata={"key": f"k{number}"}) for number in range(2 * MAX_BATCH + 1)]
    keys = [f"k{number}" for number in range(len(tasks))]
    async with Peer(submit=accept).listening() as peer, peer.client() as client:
        answer = await client.submit_many(tasks, keys=keys, queue="cpu-light")
        with pytest.raises(InvalidInput, match="as many keys"):
            await client.submit_many(tasks, keys=keys[1:])
    firsts = {tasks[at].id for at in (0, MAX_BATCH, 2 * MAX_BATCH)}
    assert [one.id for one in answer.accepted] == [task.id for task in tasks if task.id not in firsts]
    assert {one.id for one in answer.refused} == firsts


async def test_a_single_task_that_is_refused_raises() -> None:
    def refuse(ask: Any) -> SubmitAnswer:
        return SubmitAnswer(refused=(Refusal.of(ask.tasks[0].id, UnknownQueue("x", ["cpu-light"])),))

    async with Peer(submit=refuse).listening() as peer, peer.client() as client:
        with pytest.raises(UnknownQueue):
            await client.submit(a_task(), queue="x")


async def test_what_is_too_big_for_a_message_is_refused_before_it_is_sent() -> None:
    async with Peer().listening() as peer, peer.client() as client:
        with pytest.raises(InvalidInput, match="over the limit"):
            await client.submit(a_task(metadata={"much": "x" * (17 * 2**20)}))
    assert peer.heard == []


async def test_acts_on_many_tasks_go_in_pieces_with_their_revisions() -> None:
    def refuse_the_first(ask: Any) -> BulkAnswer:
        assert len(ask.ids) == len(ask.revisions)
        refused = Refusal.of(ask.ids[0], TransitionRefused("cancel_task", ask.ids[0], "completed"))
        return BulkAnswer(done=ask.ids[1:], refused=(refused,))

    ids = [new_id() for _ in range(MAX_BATCH + 2)]
    async with Peer(cancel=refuse_the_first).listening() as peer, peer.client() as client:
        answer = await client.cancel(ids, revisions=range(len(ids)), reason="mistake")
        with pytest.raises(InvalidInput, match="as many revisions"):
            await client.cancel(ids, revisions=[1])
    assert [one.id for one in answer.refused] == [ids[0], ids[MAX_BATCH]]
    assert len(answer.done) == MAX_BATCH
    assert answer.revisions == (0,) * MAX_BATCH, "an older scheduler tells none"
    assert {(ask.actor, ask.reason) for ask in peer.heard if isinstance(ask, Act)} == {("ann", "mistake")}


# ---------------------------------------------------------------- looking


async def test_whole_ids_are_not_asked_for_and_typed_prefixes_are_forgiven() -> None:
    whole = new_id()
    async with Peer(find=lambda ask: FindAnswer(id=whole)).listening() as peer, peer.client() as client:
        assert await client.find(f" {whole.upper()} ") == whole
        assert peer.heard == []
        assert await client.find("OI7") == whole
        assert [ask.prefix for ask in peer.heard] == ["017"]
        with pytest.raises(InvalidInput, match="empty"):
            await client.find(" ")


async def test_a_task_that_is_not_there_raises() -> None:
    story = Story([])
    async with story.peer().listening() as peer, peer.client() as client:
        with pytest.raises(TaskNotFound):
            await client.get(new_id())


async def test_listing_goes_from_page_to_page_and_stops_at_the_limit() -> None:
    ids = sorted((new_id() for _ in range(7)), reverse=True)

    def page(ask: Any) -> ListTasksAnswer:
        start = int(ask.cursor or 0)
        end = min(start + min(3, ask.limit), len(ids))
        cursor = str(end) if end < len(ids) else ""
        return ListTasksAnswer(tasks=tuple(map(a_record, ids[start:end])), total=len(ids), cursor=cursor)

    async with Peer(list_tasks=page).listening() as peer, peer.client() as client:
        assert [record.id async for record in client.tasks(job="j")] == ids
        assert [record.id async for record in client.tasks(limit=4)] == ids[:4]
        assert [record.id async for record in client.tasks(limit=0)] == []


# ---------------------------------------------------------------- waiting


async def test_tasks_that_have_already_ended_need_no_event() -> None:
    ids = [new_id() for _ in range(3)]
    story = Story(ids)
    for task_id in ids:
        story.move(task_id, TaskStatus.COMPLETED)
    async with story.peer().listening() as peer, peer.client() as client:
        assert [record.id for record in await client.wait(reversed(ids))] == ids[::-1]
        assert await client.wait([]) == []
    assert peer.heard_of("events") == []


async def test_waiting_ends_when_the_last_task_does_and_looks_only_at_what_ended() -> None:
    ids = [new_id() for _ in range(3)]
    story = Story(ids)
    async with story.peer().listening() as peer, peer.client() as client, asyncio.TaskGroup() as group:
        waiting = group.create_task(client.wait(ids))
        await wait_until(lambda: peer.heard_of("events"))
        story.move(ids[0], TaskStatus.PROCESSING)
        story.move(new_id(), TaskStatus.COMPLETED)  # somebody else's
        story.move(ids[1], TaskStatus.FAILED)
        await wait_until(lambda: len(peer.heard_of("get_tasks")) == 2)
        assert not waiting.done()
        story.move(ids[2], TaskStatus.CANCELLED)
        story.move(ids[0], TaskStatus.COMPLETED)
        records = await waiting
    assert [record.status for record in records] == ["completed", "failed", "cancelled"]
    looks = [set(ask.ids) for ask in peer.heard_of("get_tasks")]
    assert looks[:2] == [set(ids), {ids[1]}]
    assert set().union(*looks[2:]) == {ids[0], ids[2]}


async def test_what_ends_between_the_snapshot_and_the_first_event_is_not_missed() -> None:
    task_id = new_id()
    story = Story([task_id])

    def snapshot_then_end(ask: Any) -> GetTasksAnswer:
        answer = story.get_tasks(ask)
        if story.status[task_id] == TaskStatus.QUEUED:
            story.move(task_id, TaskStatus.COMPLETED)
        return answer

    peer = story.peer()
    peer.handlers["get_tasks"] = snapshot_then_end
    async with peer.listening(), peer.client() as client:
        assert (await client.wait(task_id))[0].status == TaskStatus.COMPLETED


async def test_a_gap_in_the_events_leads_to_a_snapshot() -> None:
    task_id = new_id()
    story = Story([task_id])
    async with story.peer().listening() as peer, peer.client() as client, asyncio.TaskGroup() as group:
        waiting = group.create_task(client.wait(task_id))
        await wait_until(lambda: peer.heard_of("events"))
        story.move(task_id, TaskStatus.COMPLETED, silently=True)
        story.gap = True
        assert (await waiting)[0].status == TaskStatus.COMPLETED


async def test_waiting_outlives_a_scheduler_that_is_restarted_and_a_redis_that_is_away(
    caplog: pytest.LogCaptureFixture,
) -> None:
    task_id = new_id()
    story = Story([task_id])
    peer = story.peer()
    async with contextlib.AsyncExitStack() as stack:
        first = await stack.enter_async_context(contextlib.AsyncExitStack())
        await first.enter_async_context(peer.listening())
        client = await stack.enter_async_context(peer.client())
        group = await stack.enter_async_context(asyncio.TaskGroup())
        waiting = group.create_task(client.wait(task_id))
        await wait_until(lambda: peer.heard_of("events"))
        client.timeout_s = 0.2  # the scheduler was there at the start; from now on it may be away
        away = StateUnavailable("redis://x", "refused")
        peer.handlers["events"] = lambda ask: away
        story.move(new_id(), TaskStatus.QUEUED)  # the question that is held gets its answer
        await wait_until(lambda: len(peer.heard_of("events")) > 2)
        await first.aclose()
        story.move(task_id, TaskStatus.COMPLETED)
        peer.handlers["events"] = story.tell
        async with peer.listening():
            assert (await waiting)[0].status == TaskStatus.COMPLETED
    assert "waiting for it to come back" in caplog.text


async def test_waiting_needs_a_scheduler_at_the_start_and_ends_in_time() -> None:
    task_id = new_id()
    story = Story([task_id])
    peer = story.peer()
    async with peer.listening(), peer.client() as client:
        with pytest.raises(TimeoutError, match="1 tasks had not ended"):
            await client.wait(task_id, timeout_s=0.2)
        with pytest.raises(TaskNotFound):
            await client.wait([task_id, new_id()])
    async with peer.client(timeout_s=0.1) as client:
        with pytest.raises(SchedulerUnreachable):
            await client.wait(task_id)


async def test_events_go_on_after_a_restart_without_a_loss_or_a_double() -> None:
    ids = [new_id() for _ in range(3)]
    story = Story(ids)
    story.move(ids[0], TaskStatus.PROCESSING)
    peer = story.peer()
    seen: list[str] = []

    async def listen(client: AsyncClient) -> None:
        async for event in client.events():
            seen.append(event.fields["id"])  # noqa: PERF401  # it never ends: there is no list to extend by

    async with contextlib.AsyncExitStack() as stack:
        first = await stack.enter_async_context(contextlib.AsyncExitStack())
        await first.enter_async_context(peer.listening())
        client = await stack.enter_async_context(peer.client())
        listening = asyncio.create_task(listen(client))
        await wait_until(lambda: peer.heard_of("events"))
        story.move(ids[1], TaskStatus.PROCESSING)
        await wait_until(lambda: seen == [ids[1]])
        await first.aclose()
        story.move(ids[2], TaskStatus.PROCESSING)
        async with peer.listening():
            await wait_until(lambda: seen == ids[1:])
            listening.cancel()
            await asyncio.wait({listening})


# ---------------------------------------------------------------- where the scheduler is


def test_an_address_that_is_given_wins(data_path: Path) -> None:
    config = DistributedConfig(data_dir=data_path)
    with write_cluster_file(data_path, control_endpoint="tcp://127.0.0.1:7", redis_url="unix:///r", version="1"):
        for given, found in (
            ("gpu-1:9000", "tcp://gpu-1:9000"),
            ("gpu-1", "tcp://gpu-1:5571"),
            ("tcp://10.0.0.1:1", "tcp://10.0.0.1:1"),
            ("[::1]:80", "tcp://[::1]:80"),
        ):
            assert find_schedulers(config, given) == (found,)


def test_the_cluster_that_runs_here_comes_before_the_configured_address(data_path: Path) -> None:
    config = DistributedConfig(data_dir=data_path)
    assert find_schedulers(config) == ("tcp://localhost:5571",)
    with write_cluster_file(data_path, control_endpoint="tcp://127.0.0.1:7", redis_url="unix:///r", version="1"):
        assert find_schedulers(config) == ("tcp://127.0.0.1:7",)
        elsewhere = DistributedConfig(data_dir=data_path, scheduler_host="studio-1")
        assert find_schedulers(elsewhere) == ("tcp://studio-1:5571",)
    assert find_schedulers(config) == ("tcp://localhost:5571",)


def test_a_run_file_left_by_a_dead_process_counts_for_nothing(data_path: Path) -> None:
    data_path.mkdir()
    (data_path / "cluster.json").write_text(
        f'{{"pid": {os.getpid()}, "started": "long ago", "control_endpoint": "tcp://x:1",'
        ' "redis_url": "", "version": ""}'
    )
    assert find_schedulers(DistributedConfig(data_dir=data_path)) == ("tcp://localhost:5571",)


@pytest.mark.parametrize("bad", ["", "a b:1", "host:port", "host:99999", "host:0", "http://host:1", "::1:80"])
def test_what_is_no_address_is_refused_with_an_example(bad: str) -> None:
    with pytest.raises(InvalidInput, match="HOST:PORT"):
        find_schedulers(DistributedConfig(), bad)


# ---------------------------------------------------------------- the client for plain code


def public(kind: type) -> set[str]:
    return {name for name, _ in inspect.getmembers(kind, callable) if not name.startswith("_")}


def test_the_plain_client_has_every_method_of_the_async_one() -> None:
    assert public(Client) == public(AsyncClient)


async def test_plain_code_submits_waits_listens_and_lists() -> None:
    task = a_task()
    story = Story([task.id])
    peer = story.peer()
    peer.handlers["submit"] = lambda ask: SubmitAnswer(
        accepted=(Accepted(id=task.id, queue="cpu-light", status=TaskStatus.QUEUED),)
    )
    peer.handlers["list_tasks"] = lambda ask: ListTasksAnswer(tasks=(a_record(task.id),), total=1)

    def plain_code() -> None:
        with Client(DistributedConfig(), scheduler=peer.endpoint, timeout_s=PATIENT_S) as client:
            assert client.endpoint == peer.endpoint
            assert client.submit(task).id == task.id
            assert [record.id for record in client.tasks()] == [task.id]
            story.move(task.id, TaskStatus.COMPLETED)
            assert client.wait([task.id])[0].status == TaskStatus.COMPLETED
            for event in client.events("0-0"):
                assert event.fields["id"] == task.id
                break
            with pytest.raises(TaskNotFound):
                client.get(new_id())

    async with peer.listening():
        await asyncio.to_thread(plain_code)
