"""What may be known: finding, listing, paging, events without a gap or with one that is told, and Redis away."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import os
import random
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import redis

from lcq.config import DistributedConfig, RedisConfig
from lcq.embedded import PrivateServer
from lcq.errors import (
    AmbiguousId,
    InvalidInput,
    JobNotFound,
    StateOverloaded,
    StateUnavailable,
    TaskNotFound,
    TransitionRefused,
    UnsafeState,
)
from lcq.models import ErrorClass, Event, TaskPriority, TaskRecord, TaskStatus
from lcq.state.connection import connect, our_errors
from lcq.state.glance import TaskGlance
from lcq.state.manager import StateManager
from lcq.state.reader import StateReader
from lcq.task_fields import parse_where
from lcq.wire import ListTasks
from tests.audit import audit
from tests.conftest import wait_until
from tests.nodes import HEAVY, LIGHT, NS, TELEA, Node, a_failure, a_result, a_task

FAMILY = ("1m84x2sshh0b4yjp", "1m84x2sshh0b4yjq", "1m84x2zzzzzzzzzz", "2m84x2sshh0b4yjp")


@pytest.fixture
async def family(state: StateManager) -> StateReader:
    """A reader of four tasks with ids that begin alike."""
    for task_id in FAMILY:
        await state.submit_task(a_task(id=task_id), queue=LIGHT)
    return state.reader


# ---------------------------------------------------------------- find


@pytest.mark.parametrize("typed", ["1m84x2z", "1M84X2Z", " 1m84x2z\n", "lm84x2z", "Im84x2z"])
async def test_a_unique_beginning_finds_its_task_case_and_look_alikes_forgiven(family: StateReader, typed: str) -> None:
    assert await family.find(typed) == "1m84x2zzzzzzzzzz"


async def test_a_whole_id_finds_its_task(family: StateReader) -> None:
    for task_id in FAMILY:
        assert await family.find(task_id) == task_id


async def test_a_beginning_of_several_names_some_of_them(family: StateReader) -> None:
    with pytest.raises(AmbiguousId) as refusal:
        await family.find("1m84x2s")
    assert refusal.value.matches == FAMILY[:2]
    assert "1m84x2sshh0b4yjp" in str(refusal.value)


@pytest.mark.parametrize(
    "typed", ["3", "1m84x2sshh0b4yjr", "1m84x2sshh0b4yjpp", "", " ", "é", "\x00", "\udcff", "u", "["]
)
async def test_a_beginning_of_none_says_so(family: StateReader, typed: str) -> None:
    with pytest.raises(TaskNotFound):
        await family.find(typed)


# ---------------------------------------------------------------- list


@pytest.fixture
async def mixed(state: StateManager) -> StateManager:
    """Forty tasks in all states, queues and jobs, on two nodes."""
    chance = random.Random(random.getrandbits(32))
    nodes = [Node(state, f"node-{n}", queues=(LIGHT, HEAVY)) for n in (1, 2)]
    for node in nodes:
        await node.hello()
    for _ in range(40):
        job = chance.choice([None, "wedding", "attic"])
        queue = chance.choice([LIGHT, HEAVY])
        task = a_task(job=job, max_retries=0)
        due_ms = 2**42 if chance.random() < 0.1 else 0
        await state.submit_task(task, queue=queue, due_ms=due_ms)
    for node in nodes:
        for n, grant in enumerate(await node.claim(14)):
            match n % 4:
                case 0:
                    await node.finish(grant.task.id)
                case 1:
                    await node.fail(grant.task.id, 1, a_failure(code=chance.choice(["timeout", "reset"])))
                case 2:
                    await state.cancel_task(grant.task.id)
    return state


async def everything(reader: StateReader) -> list[TaskRecord]:
    return sorted((await reader.snapshot()).tasks, key=lambda record: record.id, reverse=True)


def fits(record: TaskRecord, nodes: set[str], query: dict[str, Any]) -> bool:
    code = record.failure.code if record.failure and record.status == TaskStatus.FAILED else ""
    mine: dict[str, Any] = {"status": record.status, "queue": record.queue, "job": record.task.job, "cause": code}
    return all(value in nodes if name == "node" else mine[name] == value for name, value in query.items())


async def test_each_filter_alone_and_all_together_list_what_a_plain_filter_would(mixed: StateManager) -> None:
    records = await everything(mixed.reader)
    ran_on = {record.id: {a.node for a in await mixed.reader.attempts(record.id)} for record in records}
    filters: dict[str, list[Any]] = {
        "status": list(TaskStatus), "queue": [LIGHT, HEAVY], "node": ["node-1", "node-2", "nobody"],
        "job": ["wedding", "attic", "none"], "cause": ["timeout", "reset"],
    }  # fmt: skip
    for count in range(4):
        for names in itertools.combinations(filters, count):
            for values in itertools.product(*(filters[name] for name in names)):
                query = dict(zip(names, values, strict=True))
                answer = await mixed.reader.list_tasks(ListTasks(limit=500, **query))
                wanted = [record for record in records if fits(record, ran_on[record.id], query)]
                assert list(answer.tasks) == wanted, query
                assert (answer.total, answer.cursor) == (len(wanted), "")


@pytest.mark.parametrize("limit", [1, 3, 7, 40, 41])
@pytest.mark.parametrize("query", [{}, {"queue": LIGHT}, {"queue": LIGHT, "job": "wedding"}])
async def test_pages_cover_all_tasks_exactly_once(mixed: StateManager, query: dict[str, Any], limit: int) -> None:
    whole = await mixed.reader.list_tasks(ListTasks(limit=500, **query))
    found: list[str] = []
    cursor, pages = "", 0
    while pages == 0 or cursor:
        page = await mixed.reader.list_tasks(ListTasks(limit=limit, cursor=cursor, **query))
        assert page.total == whole.total
        assert len(page.tasks) <= limit
        found += [record.id for record in page.tasks]
        cursor, pages = page.cursor, pages + 1
    assert found == [record.id for record in whole.tasks]
    assert pages == max(1, -(-whole.total // limit))


async def test_what_comes_in_while_someone_pages_moves_no_task_to_another_page(mixed: StateManager) -> None:
    whole = await mixed.reader.list_tasks(ListTasks(limit=500))
    first = await mixed.reader.list_tasks(ListTasks(limit=10))
    for _ in range(5):
        await mixed.submit_task(a_task(), queue=LIGHT)
    rest = await mixed.reader.list_tasks(ListTasks(limit=500, cursor=first.cursor))
    assert [*first.tasks, *rest.tasks] == list(whole.tasks)


async def test_jobs_queues_and_counts_say_what_the_tasks_say(mixed: StateManager) -> None:
    records = await everything(mixed.reader)
    for job in await mixed.reader.jobs():
        mine = [record.status for record in records if record.task.job == job.name]
        assert job.counts == {status: mine.count(status) for status in set(mine)}
        assert await mixed.reader.jobs(name=job.name) == (job,)
    for queue in await mixed.reader.queues():
        mine = [record.status for record in records if record.queue == queue.name]
        assert queue.counts == {status: mine.count(status) for status in TaskStatus}
        assert queue.nodes == (("node-1", "node-2") if queue.name in (LIGHT, HEAVY) else ())
    counts = await mixed.reader.counts()
    assert counts == {status: [r.status for r in records].count(status) for status in TaskStatus}
    with pytest.raises(JobNotFound):
        await mixed.reader.jobs(name="nothing of the kind")


async def test_a_lane_is_stranded_while_tasks_wait_in_it_and_nobody_serves_it(state: StateManager, node: Node) -> None:
    await state.submit_task(a_task(TELEA), queue=LIGHT)
    lost = await state.submit_task(a_task(NS), queue=HEAVY)

    async def stranded() -> list[tuple[str, str]]:
        fleet = await state.reader.fleet()
        return [lane for lane in await state.reader.lanes() if not fleet.is_served(*lane)]

    assert await state.reader.lanes() == ((HEAVY, NS), (LIGHT, TELEA))
    assert await stranded() == [(HEAVY, NS)]
    assert await state.reader.lane_ids(HEAVY, NS, limit=9) == (lost.id,)
    await node.leave()
    assert await stranded() == [(HEAVY, NS), (LIGHT, TELEA)]
    await state.cancel_task(lost.id)
    assert await stranded() == [(LIGHT, TELEA)]


async def test_a_tasks_own_events_tell_its_whole_life(state: StateManager, node: Node) -> None:
    task = await state.submit_task(a_task(), queue=LIGHT)
    await state.submit_task(a_task(), queue=LIGHT)
    await node.claim(2)
    await node.release(task.id)
    await node.claim()
    await node.finish(task.id, 2)
    record = await state.reader.task(task.id)
    moves = [event.move for event in await state.reader.task_events(record)]
    assert moves == ["submit_task", "claim_tasks", "release_task", "claim_tasks", "finish_task"]
    assert [event.move for event in await state.reader.task_events(record, limit=2)] == moves[-2:]
    assert [(a.number, a.outcome) for a in await state.reader.attempts(task.id)] == [
        (1, "handed_back"),
        (2, "completed"),
    ]


# ---------------------------------------------------------------- events


async def test_events_after_an_id_are_all_those_after_it(state: StateManager) -> None:
    start = await state.reader.last_event_id()
    assert start == "0-0"
    ids = [(await state.submit_task(a_task(), queue=LIGHT)).id for _ in range(7)]
    whole = await state.reader.events(start)
    assert [event.fields["id"] for event in whole.events] == ids
    assert (whole.last_id, whole.gap) == (await state.reader.last_event_id(), False)
    found: list[str] = []
    after = start
    while (page := await state.reader.events(after, limit=2)).events:
        found += [event.fields["id"] for event in page.events]
        after = page.last_id
    assert found == ids
    assert (page.last_id, page.gap) == (after, False)


async def test_a_reader_that_waits_hears_the_next_event(state: StateManager) -> None:
    start = await state.reader.last_event_id()
    answer, told = await asyncio.gather(
        state.reader.events(start, wait_ms=60_000), state.submit_task(a_task(), queue=LIGHT)
    )
    assert [event.fields["id"] for event in answer.events] == [told.id]
    assert (await state.reader.events("$")).events == ()


async def test_a_reader_that_fell_off_the_end_of_the_stream_is_told_so_and_then_goes_on(
    state: StateManager, eye: redis.Redis
) -> None:
    await state.submit_task(a_task(), queue=LIGHT)
    seen = await state.reader.last_event_id()
    for _ in range(9):
        await state.submit_task(a_task(), queue=LIGHT)
    assert not (await state.reader.events(seen)).gap
    eye.xtrim("{lcq}:events", maxlen=5, approximate=False)
    answer = await state.reader.events(seen, wait_ms=60_000)
    assert answer.gap
    assert len(answer.events) == 5
    assert not (await state.reader.events(answer.last_id)).gap


async def test_a_reader_that_saw_what_the_server_lost_is_told_so_at_once_and_only_once(
    state: StateManager, eye: redis.Redis
) -> None:
    await state.submit_task(a_task(), queue=LIGHT)
    kept = await state.reader.last_event_id()
    await state.submit_task(a_task(), queue=LIGHT)
    lost = await state.reader.last_event_id()
    eye.xdel("{lcq}:events", lost)  # as a server that lost its last second
    answer = await state.reader.events(lost, wait_ms=60_000)
    assert (answer.events, answer.gap, answer.last_id) == ((), True, kept)
    assert not (await state.reader.events(answer.last_id)).gap


async def test_what_was_lost_just_after_a_look_is_a_gap_as_soon_as_something_follows(
    state: StateManager, eye: redis.Redis
) -> None:
    """Where nothing has followed it, an event that was there is not looked for at each question."""
    await state.submit_task(a_task(), queue=LIGHT)
    seen = (await state.reader.events("0-0")).last_id
    assert not (await state.reader.events(seen)).gap
    lost = await state.submit_task(a_task(), queue=LIGHT)
    told = await state.submit_task(a_task(), queue=LIGHT)
    eye.xtrim("{lcq}:events", maxlen=1, approximate=False)
    answer = await state.reader.events(seen)
    assert ([event.fields["id"] for event in answer.events], answer.gap) == ([told.id], True), lost.id


async def test_a_node_of_which_nothing_is_different_is_not_made_anew(state: StateManager) -> None:
    node, other = Node(state), Node(state, "node-2")
    await node.hello()
    await other.hello()
    first = await state.reader.nodes()
    await other.leave()
    again = await state.reader.nodes()
    assert again[0] is first[0]
    assert (first[1].status, again[1].status) == ("online", "offline")


async def test_a_server_that_was_emptied_is_a_gap(state: StateManager, eye: redis.Redis) -> None:
    await state.submit_task(a_task(), queue=LIGHT)
    seen = await state.reader.last_event_id()
    eye.flushall()
    answer = await state.reader.events(seen, wait_ms=60_000)
    assert (answer.gap, answer.last_id) == (True, "0-0")


async def test_the_stream_is_kept_to_about_its_length(redis_url: str) -> None:
    config = DistributedConfig(retention={"events": 1000})  # type: ignore[arg-type]
    async with StateManager(config, url=redis_url) as state:
        task = await state.submit_task(a_task(), queue=LIGHT)
        for _ in range(10):
            await asyncio.gather(
                *(
                    state.prioritise_task(task.id, priority=priority)
                    for _ in range(100)
                    for priority in (TaskPriority.HIGH, TaskPriority.LOW)
                )
            )
        answer = await state.reader.events("0-1", limit=10_000)
        assert answer.gap
        assert 1000 <= len(answer.events) <= 1200


class View:
    """A snapshot, and what events have made of it: status, queue and node of each task."""

    def __init__(self, records: tuple[TaskRecord, ...]) -> None:
        self.tasks = {r.id: (str(r.status), r.queue, r.node, r.revision) for r in records}

    def hear(self, event: Event) -> None:
        if event.move == "forget_tasks":
            self.tasks.pop(event.fields["id"], None)
        elif "rev" in event.fields:
            f = event.fields
            known = self.tasks.get(f["id"])
            if known is None or known[3] < int(f["rev"]):  # a snapshot may be newer than the events that follow it
                self.tasks[f["id"]] = (f["status"], f["queue"], f["node"], int(f["rev"]))


async def test_a_snapshot_and_the_events_after_it_make_the_final_state(mixed: StateManager, eye: redis.Redis) -> None:
    reader, node = mixed.reader, Node(mixed, "node-1", queues=(LIGHT, HEAVY))

    async def work() -> None:
        for _ in range(30):
            task = await mixed.submit_task(a_task(), queue=LIGHT)
            for grant in await node.claim(2):
                await node.finish(grant.task.id, grant.attempt)
            with contextlib.suppress(TransitionRefused):  # it may have been the one that was finished
                await mixed.reroute_task(task.id, queue=HEAVY)

    working = asyncio.create_task(work())
    await wait_until(lambda: mixed.submit_task(a_task(), queue=HEAVY))  # let it begin
    snapshot = await reader.snapshot()
    view, after = View(snapshot.tasks), snapshot.last_event_id
    await working
    eye.zadd("{lcq}:expiry", {eye.zrange("{lcq}:expiry", 0, 0)[0]: 1})
    assert await mixed.forget_tasks() == 1
    while (page := await reader.events(after, limit=17)).events:
        assert not page.gap
        for event in page.events:
            view.hear(event)
        after = page.last_id
    assert view.tasks == View((await reader.snapshot()).tasks).tasks


async def test_a_snapshot_says_how_much_it_left_out(mixed: StateManager) -> None:
    newest = (await everything(mixed.reader))[:10]
    snapshot = await mixed.reader.snapshot(limit=10)
    assert (list(snapshot.tasks), snapshot.total_tasks) == (newest, 40)


async def test_a_snapshot_told_in_pieces_has_the_same_tasks_and_keeps_none(mixed: StateManager) -> None:
    whole = await mixed.reader.snapshot()
    pieces: list[TaskGlance | TaskRecord] = []
    told = await mixed.reader.snapshot(take=pieces.extend)
    assert (told.tasks, told.total_tasks) == ((), 40)
    seen, there = ([(one.id, one.status, one.revision) for one in tasks] for tasks in (pieces, whole.tasks))
    assert seen == there


async def test_the_feed_tells_all_its_listeners_all_that_happens(state: StateManager) -> None:
    listeners = [state.feed.listen() for _ in range(3)]
    ids = [(await state.submit_task(a_task(), queue=LIGHT)).id for _ in range(20)]
    for listener in listeners:
        heard: list[str] = []
        while len(heard) < 20:
            events = await listener.take()
            assert events is not None
            heard += [event.fields["id"] for event in events]
        assert heard == ids
        state.feed.leave(listener)


# ---------------------------------------------------------------- Redis away, emptied, full, unsafe


@pytest.fixture
def own_server(tmp_path: Path) -> Iterator[PrivateServer]:
    """A server that a test may stop, fill and spoil."""
    with PrivateServer(tmp_path) as server:
        yield server


def server_pid(server: PrivateServer) -> int:
    with redis.Redis.from_url(server.url) as client:
        return int(client.info("server")["process_id"])


async def test_while_redis_is_away_everything_says_so_and_when_it_is_back_everything_works(
    own_server: PrivateServer,
) -> None:
    async with StateManager(url=own_server.url) as state:
        before = await state.submit_task(a_task(), queue=LIGHT)
        listener = state.feed.listen()
        os.kill(server_pid(own_server), signal.SIGKILL)  # its watch brings it back

        async def refusal() -> str:
            try:
                await state.reader.counts()
            except StateUnavailable as error:
                return str(error)
            return ""

        assert "does not answer" in await wait_until(refusal)

        async def works() -> bool:
            try:
                await state.submit_task(a_task(), queue=LIGHT)
            except StateUnavailable:
                return False
            return True

        await wait_until(works)
        assert (await state.reader.task(before.id)).status == TaskStatus.QUEUED
        assert await wait_until(lambda: state.reader.counts())
        heard = [await listener.take()]
        while heard[-1] is not None:
            heard.append(await listener.take())


async def test_a_server_that_never_was_is_unavailable(tmp_path: Path) -> None:
    url = f"unix://{tmp_path}/nothing.sock"
    async with StateReader(url) as reader:
        with pytest.raises(StateUnavailable, match=r"nothing\.sock"):
            await reader.counts()
    with pytest.raises(StateUnavailable):
        async with StateManager(url=url):
            pytest.fail("it began without a server")


async def test_a_server_that_hangs_is_given_up_after_a_while(own_server: PrivateServer) -> None:
    pid = server_pid(own_server)
    client = connect(own_server.url)
    os.kill(pid, signal.SIGSTOP)
    try:
        with pytest.raises(StateUnavailable, match=r"not a word within 0\.2 s"):
            async with our_errors(own_server.url, within_s=0.2):
                await client.ping()
    finally:
        os.kill(pid, signal.SIGCONT)
    async with our_errors(own_server.url):
        assert await client.ping()
    await client.aclose()


async def test_who_asks_redis_can_be_cancelled_at_any_moment(redis_url: str) -> None:
    """redis-py's own time-out swallows a cancellation on Python 3.11; one in two of these would go on."""

    async def ask_for_ever(reader: StateReader) -> None:
        while True:
            await reader.last_event_id()

    chance = random.Random(random.getrandbits(32))
    async with StateReader(redis_url) as reader:
        for _ in range(100):
            asking = asyncio.create_task(ask_for_ever(reader))
            for _ in range(chance.randrange(40)):
                await asyncio.sleep(0)
            asking.cancel()
            done, _ = await asyncio.wait([asking], timeout=60)
            assert done


async def test_a_server_that_forgot_its_scripts_is_taught_them_again(state: StateManager, eye: redis.Redis) -> None:
    await state.submit_task(a_task(), queue=LIGHT)
    eye.script_flush()
    told = await asyncio.gather(*(state.submit_task(a_task(), queue=LIGHT) for _ in range(50)))
    assert len({answer.id for answer in told}) == 50
    assert len(audit(eye).tasks) == 51


async def test_a_full_redis_refuses_new_tasks_and_lets_what_runs_end(own_server: PrivateServer) -> None:
    async with StateManager(url=own_server.url) as state:
        node = Node(state)
        await node.hello()
        ids = [(await state.submit_task(a_task(), queue=LIGHT)).id for _ in range(6)]
        await node.claim(4)
        over = await state.submit_task(a_task(), queue=LIGHT)
        await state.cancel_task(over.id)
        with redis.Redis.from_url(own_server.url, decode_responses=True) as eye:
            eye.zadd("{lcq}:expiry", {over.id: 1})
            eye.config_set("maxmemory", 1)
            with pytest.raises(StateOverloaded, match="full"):
                await state.submit_task(a_task(), queue=LIGHT)
            audit(eye)
            await node.finish(ids[0])
            await node.fail(ids[1], 1, a_failure(ErrorClass.BAD_INPUT, "mask_size"))
            await node.release(ids[2])
            await node.beat((ids[3], 1))
            assert await node.claim_ids() == [ids[2]]
            await state.cancel_task(ids[5])
            assert await state.take_duty("tasks", "scheduler", hold_ms=60_000)
            await state.note_act("c1", b"done", {"cmd": "cancel"})
            assert await state.forget_tasks() == 1
            assert (await state.reader.counts())[TaskStatus.COMPLETED] == 1
            audit(eye)
            eye.config_set("maxmemory", 0)
            await state.submit_task(a_task(), queue=LIGHT)
            audit(eye)


@pytest.mark.parametrize(("setting", "value"), [("maxmemory-policy", "allkeys-lru"), ("appendonly", "no")])
async def test_a_server_that_may_lose_tasks_is_refused_unless_that_is_accepted(
    own_server: PrivateServer, setting: str, value: str
) -> None:
    with redis.Redis.from_url(own_server.url) as eye:
        eye.config_set(setting, value)
    with pytest.raises(UnsafeState, match=setting) as refusal:
        async with StateManager(url=own_server.url):
            pytest.fail("it began on an unsafe server")
    assert "redis.unsafe" in str(refusal.value)
    config = DistributedConfig(redis=RedisConfig(unsafe=True))
    async with StateManager(config, url=own_server.url) as state:
        assert await state.submit_task(a_task(), queue=LIGHT)


async def test_clusters_share_a_server_by_their_namespaces(redis_url: str, eye: redis.Redis) -> None:
    one = DistributedConfig(redis=RedisConfig(namespace="{one}"))
    two = DistributedConfig(redis=RedisConfig(namespace="{two}"))
    async with StateManager(one, url=redis_url) as first, StateManager(two, url=redis_url) as second:
        task = a_task()
        await first.submit_task(task, queue=LIGHT)
        with pytest.raises(TaskNotFound):
            await second.reader.task(task.id)
        assert not (await second.submit_task(task, queue=LIGHT)).duplicate
    assert {name.partition(":")[0] for name in eye.scan_iter()} == {"{one}", "{two}"}


async def test_a_result_is_read_as_it_was_told(state: StateManager, node: Node) -> None:
    task = await state.submit_task(a_task(), queue=LIGHT)
    await node.claim()
    result = a_result("/photos/Zoë's 🐈.png")
    await state.finish_task(task.id, attempt=1, node=node.id, result=result)
    assert (await state.reader.task(task.id)).result == result


# ---------------------------------------------------------------- the filter language


WHERE = (
    "state:failed",
    "state:failed|cancelled",
    "state:open",
    "-state:open",
    f"queue={LIGHT}",
    "queue:cpu",
    "node=node-1",
    "job=wedding state:ended",
    "cause=timeout",
    "cause:time|reset",
    "try>1",
    "age<1h",
    "age>1h",
    "age<0s",
    "image~in.*png",
    "priority>=high",
    "node~node-[12] state:completed|failed -job:attic",
    "nothing",
    "took<1h",
    "error:timeout",
    "needs:attention",
    "-needs:attention state:open",
)


async def test_the_filter_language_lists_what_it_fits_page_by_page(mixed: StateManager) -> None:
    records, now = await everything(mixed.reader), await mixed.reader.now_ms()
    some = 0
    for where, limit in itertools.product(WHERE, (1, 7, 500)):
        wanted = [record.id for record in records if parse_where(where).matches(record, now)]
        found: list[str] = []
        cursor, looked_at = "", 0
        while found == [] or cursor:
            page = await mixed.reader.list_tasks(ListTasks(where=where, limit=limit, cursor=cursor))
            assert page.total == len(records)
            found += [record.id for record in page.tasks]
            looked_at, cursor = looked_at + page.looked_at, page.cursor
            if not cursor:
                break
        assert found == wanted, (where, limit)
        assert len(found) <= looked_at <= len(records)
        some += 0 < len(wanted) < len(records)
    assert some > len(WHERE)  # most of them divide the tasks


async def test_a_filter_narrows_what_the_other_filters_leave(mixed: StateManager) -> None:
    records = await everything(mixed.reader)
    answer = await mixed.reader.list_tasks(ListTasks(where="state:failed|completed", job="wedding", limit=500))
    wanted = [r for r in records if r.status in (TaskStatus.FAILED, TaskStatus.COMPLETED) and r.task.job == "wedding"]
    assert list(answer.tasks) == wanted
    assert wanted


async def test_a_filter_by_age_reads_no_record_that_is_older(state: StateManager) -> None:
    await state.submit_task(a_task(id="0m84x2sshh0b4yjp"), queue=LIGHT)  # made long ago, by its id
    fresh = await state.submit_task(a_task(), queue=LIGHT)
    answer = await state.reader.list_tasks(ListTasks(where="age<10m"))
    assert [record.id for record in answer.tasks] == [fresh.id]
    assert answer.looked_at == 1


async def test_tasks_that_a_filter_names_are_looked_at_alone(mixed: StateManager) -> None:
    records = await everything(mixed.reader)
    some = records[3], records[-1], records[5]
    named = "|".join(record.id.upper() for record in some)
    wanted = sorted((record.id for record in some), reverse=True)
    for where, looked_at in (
        (f"id:{named}|0000000000000000", 3),
        (f"id={named.lower()}", 3),
        (f"id:{named} -id:{wanted[0]}", 3),
        (f"id:{named}|0", len(records)),  # that may begin any
        (f"-id:{named}", len(records)),
    ):
        page = await mixed.reader.list_tasks(ListTasks(where=where, limit=500))
        fits = [r.id for r in records if parse_where(where).matches(r, 0)]
        assert ([record.id for record in page.tasks], page.looked_at) == (fits, looked_at), where
    first = await mixed.reader.list_tasks(ListTasks(where=f"id:{named}", limit=2))
    rest = await mixed.reader.list_tasks(ListTasks(where=f"id:{named}", limit=2, cursor=first.cursor))
    assert [record.id for record in (*first.tasks, *rest.tasks)] == wanted
    of_queue = await mixed.reader.list_tasks(ListTasks(where=f"id:{named}", queue=some[0].queue))
    assert {record.id for record in of_queue.tasks} == {one.id for one in some if one.queue == some[0].queue}


async def test_a_filter_that_means_nothing_is_refused_in_words(family: StateReader) -> None:
    with pytest.raises(InvalidInput, match="did you mean 'state'"):
        await family.list_tasks(ListTasks(where="stat:failed"))


async def test_a_redis_that_goes_away_while_a_scheduler_starts_is_told_as_that(
    redis_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """And not as a group of errors, which would end ``lcq scheduler`` with a traceback."""

    async def away(self: StateReader) -> str:
        raise StateUnavailable(self.url, "it has just gone")

    monkeypatch.setattr(StateReader, "last_event_id", away)
    with pytest.raises(StateUnavailable, match="it has just gone"):
        async with StateManager(url=redis_url):
            pass
