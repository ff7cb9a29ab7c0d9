"""Random moves from several nodes against a plain-Python model; after each one every key is accounted for."""

from __future__ import annotations

import asyncio
import os
from collections import Counter
from collections.abc import Callable, Coroutine
from types import NoneType
from typing import Any, TypeVar

import pytest
import redis
from hypothesis import HealthCheck, seed, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)

from lcq.config import DistributedConfig, LeaseConfig, QuarantineConfig, RetryConfig
from lcq.errors import IdempotencyConflict, LcqError, NodeNotFound, StaleBoot, TaskNotFound, TransitionRefused
from lcq.ids import new_id
from lcq.models import Ease, ErrorClass, TaskPriority, TaskStatus
from lcq.routing import EaseStep
from lcq.state.manager import Ended, StateManager
from lcq.wire import Accepted
from tests.audit import audit
from tests.model import Model, ModelTask, Refused, Stale
from tests.nodes import HEAVY, LIGHT, NS, TELEA, Node, a_failure, a_task

T = TypeVar("T")
LONG_AGO = 1
EXAMPLES = int(os.environ.get("LCQ_TEST_EXAMPLES", "25"))  # more of them, and hours, for who wants it

CONFIG = DistributedConfig(
    # No retry is due by itself while the test runs; budgets and blame have tests of their own.
    retries=RetryConfig(base_s=3600, max_s=3600, per_minute=1e9, per_cause_per_minute=1e9),
    quarantine=QuarantineConfig(enabled=False),
    leases=LeaseConfig(beat_s=60, lease_s=3600),
)

names = st.sampled_from(["node-1", "node-2", "node-3"])
queues = st.sampled_from([LIGHT, HEAVY])
models = st.sampled_from([TELEA, NS])
some_queues = st.sampled_from([(LIGHT, HEAVY), (LIGHT, HEAVY), (HEAVY, LIGHT), (LIGHT,), (HEAVY,)])
some_models = st.sampled_from([(TELEA, NS), (TELEA, NS), (TELEA,), (NS,)])
priorities = st.sampled_from(TaskPriority)
which = st.integers(min_value=0, max_value=23)  # of those there are, counted around
pinned_to = st.sampled_from(["", "", "", "", "node-1", "node-2"])
seldom = st.sampled_from([False, False, False, False, True])
RACK, PLACE = {"rack": "3"}, {"rack": "3", "zone": "a"}
some_labels = st.sampled_from([{}, RACK, PLACE, PLACE, {"rack": "4"}])
some_tasks = st.fixed_dictionaries(
    {
        "model": models,
        "queue": queues,
        "user": st.sampled_from("ab"),
        "priority": priorities,
        "pinned": pinned_to,
        "job": st.sampled_from([None, "wedding", "attic"]),
        "max_retries": st.integers(0, 3),
        "cost": st.sampled_from([0.5, 1.0, 3.0]),
        "later": seldom,
        "count": st.sampled_from([1, 1, 4]),
        "requires": st.sampled_from([{}, {}, {}, RACK, PLACE]),
    }
)


class StateMachine(RuleBasedStateMachine):
    """Two schedulers' worth of connections to one server, three nodes with many boots, a few users."""

    url = ""

    def __init__(self) -> None:
        super().__init__()
        self.model = Model()
        self.nodes = {name: Node(None, name, boot=new_id()) for name in ("node-1", "node-2", "node-3")}  # type: ignore[arg-type]
        self.earlier: list[Node] = []
        self.grants: list[tuple[str, int, str]] = []  # every token there ever was
        self.eye = redis.Redis.from_url(self.url, decode_responses=True)
        self.eye.flushall()
        self.loop = asyncio.new_event_loop()
        self.over = asyncio.Event()
        ready: asyncio.Future[StateManager] = self.loop.create_future()
        self.life = self.loop.create_task(self._live(ready))
        self.state = self.loop.run_until_complete(ready)
        for node in self.nodes.values():
            node.state = self.state

    async def _live(self, ready: asyncio.Future[StateManager]) -> None:
        async with StateManager(CONFIG, url=self.url) as state:
            ready.set_result(state)
            await self.over.wait()

    def teardown(self) -> None:
        self.over.set()
        self.loop.run_until_complete(self.life)
        self.loop.close()
        self.eye.close()

    def outcome(self, move: Coroutine[Any, Any, T]) -> tuple[T | None, LcqError | None]:
        """What the state answers, or how it refuses."""
        try:
            return self.loop.run_until_complete(move), None
        except LcqError as error:
            return None, error

    def both(self, move: Coroutine[Any, Any, T], expected: Callable[[], object]) -> T | None:
        """Make the move in both worlds. ``expected()`` makes it in the model; both refuse, or answer the same."""
        answer, error = self.outcome(move)
        try:
            wanted, refusal = expected(), None
        except (Refused, Stale) as raised:
            wanted, refusal = None, raised
        assert type(error) is {Refused: TransitionRefused, Stale: StaleBoot}.get(type(refusal), NoneType), error
        assert wanted is None or answer == wanted
        return answer

    def pick(self, number: int, *statuses: TaskStatus) -> ModelTask:
        found = self.model.of(*(statuses or TaskStatus))
        return found[number % len(found)]

    def token(self, number: int) -> tuple[ModelTask | None, str, int, Node]:
        task_id, attempt, node = self.grants[-1 - number % len(self.grants)]
        return self.model.tasks.get(task_id), task_id, attempt, self.nodes[node]

    def into_the_past(self, name: str, *members: str) -> None:
        if members:
            self.eye.zadd(f"{{lcq}}:{name}", dict.fromkeys(members, LONG_AGO), xx=True)

    def back_to_the_present(self, name: str) -> None:
        """What was moved into the past for one move, and outlived it, is not old for the next one."""
        members = self.eye.zrange(f"{{lcq}}:{name}", 0, -1)
        if members:
            seconds, microseconds = self.eye.time()
            now_ms = seconds * 1000 + microseconds // 1000  # not the second's beginning: the node may have joined since
            self.eye.zadd(f"{{lcq}}:{name}", dict.fromkeys(members, now_ms), xx=True)

    has_tasks = precondition(lambda self: self.model.tasks)
    has_grants = precondition(lambda self: self.grants)
    has_nodes = precondition(lambda self: self.model.nodes)

    # ------------------------------------------------------------ tasks

    @initialize(
        first=st.lists(some_tasks, min_size=3, max_size=3), served=st.lists(some_queues, min_size=3, max_size=3)
    )
    def begin(self, first: list[dict[str, Any]], served: list[tuple[str, ...]]) -> None:
        for name, queues in zip(self.nodes, served, strict=True):
            self.hello(name, queues, (TELEA, NS), reborn=False, labels={})
        for some in first:
            self.submit(some)

    @rule(some=some_tasks)
    def submit(self, some: dict[str, Any]) -> None:
        self._submit(**some)

    def _submit(self, model: str, queue: str, user: str, priority: TaskPriority, pinned: str, job: str | None,
                max_retries: int, cost: float, later: bool, count: int, requires: dict[str, str]) -> None:  # fmt: skip
        for _ in range(count):
            task = a_task(model, user_id=user, priority=priority, job=job, max_retries=max_retries, requires=requires)
            key = f"key of {task.id}"
            due_ms = 2**42 if later else 0
            told, _ = self.outcome(
                self.state.submit_task(task, queue=queue, node=pinned, cost_s=cost, key=key, due_ms=due_ms)
            )
            self.model.submit(task, queue, pinned, cost, key, later=later)
            assert told == Accepted(id=task.id, queue=queue, status=self.model.tasks[task.id].status)

    @has_tasks
    @rule(which=which, queue=queues, renamed=st.booleans(), other=st.booleans())
    def submit_again(self, which: int, queue: str, renamed: bool, other: bool) -> None:
        t = self.pick(which)
        changes: dict[str, object] = {"id": new_id()} if renamed else {}
        if other:
            changes["timeout_s"] = 7.0
        again = self.state.submit_task(t.task.model_copy(update=changes), queue=queue, key=t.key)
        told, error = self.outcome(again)
        if other:
            assert isinstance(error, IdempotencyConflict)
            assert error.task_id == t.id
        else:
            assert told == Accepted(id=t.id, queue=t.queue, status=t.status, duplicate=True)

    @precondition(lambda self: self.model.of(TaskStatus.PENDING))
    @rule(chosen=st.sets(which, min_size=1, max_size=3))
    def release_due(self, chosen: set[int]) -> None:
        ids = {self.pick(number, TaskStatus.PENDING).id for number in chosen}
        self.into_the_past("delayed", *ids)
        self.both(self.state.release_due(), lambda: self.model.due(ids))

    @has_tasks
    @rule(which=which)
    def cancel(self, which: int) -> None:
        t = self.pick(which)
        move = self.state.cancel_task(t.id, why="by ann", revision=t.rev)
        self.both(move, lambda: Ended(t.id, *self.model.cancel(t), t.rev))

    @has_tasks
    @rule(which=which, queue=queues)
    def retry(self, which: int, queue: str) -> None:
        t = self.pick(which)
        self.both(self.state.retry_task(t.id, queue=queue), lambda: self.model.retry(t, queue))

    @has_tasks
    @rule(which=which, queue=queues, pinned=pinned_to, forced=st.booleans(), labels=st.none() | some_labels)
    def reroute(self, which: int, queue: str, pinned: str, forced: bool, labels: dict[str, str] | None) -> None:
        t = self.pick(which)
        asked = None if labels is None else t.task.model_copy(update={"requires": labels})
        move = self.state.reroute_task(t.id, queue=queue, node=pinned, forced=forced, asked=asked)
        self.both(move, lambda: Ended(t.id, *self.model.reroute(t, queue, pinned, labels), t.rev))

    @has_tasks
    @rule(which=which, priority=priorities)
    def prioritise(self, which: int, priority: TaskPriority) -> None:
        t = self.pick(which)
        move = self.state.prioritise_task(t.id, priority=priority)
        self.both(move, lambda: self.model.prioritise(t, priority))

    @has_tasks
    @rule(which=which, behind=st.integers(1, 3), move=st.sampled_from(["cancel_task", "retry_task", "prioritise_task"]))
    def act_on_what_was_seen_too_long_ago(self, which: int, behind: int, move: str) -> None:
        t = self.pick(which)
        more: dict[str, dict[str, object]] = {
            "cancel_task": {}, "retry_task": {"queue": LIGHT}, "prioritise_task": {"priority": TaskPriority.LOW}
        }  # fmt: skip
        _, error = self.outcome(getattr(self.state, move)(t.id, revision=t.rev - behind, **more[move]))
        assert isinstance(error, TransitionRefused)
        assert error.state == t.status

    @precondition(lambda self: self.model.of(*(status for status in TaskStatus if status.is_terminal)))
    @rule(chosen=st.sets(which, min_size=1, max_size=2))
    def forget_tasks(self, chosen: set[int]) -> None:
        over = [status for status in TaskStatus if status.is_terminal]
        ids = {self.pick(number, *over).id for number in chosen}
        self.into_the_past("expiry", *ids)
        self.both(self.state.forget_tasks(), lambda: self.model.forget(ids))

    # ------------------------------------------------------------ attempts

    @rule(which=which, anyone=seldom, want=st.integers(1, 5), warm=st.sets(models))
    def claim(self, which: int, anyone: bool, want: int, warm: set[str]) -> None:
        online = sorted(name for name, known in self.model.nodes.items() if known.status == "online")
        names = online if online and not anyone else sorted(self.nodes)
        node = self.nodes[names[which % len(names)]]

        async def claim() -> list[tuple[str, int]]:
            grants = await node.claim(want, warm=sorted(warm))
            return [(grant.task.id, grant.attempt) for grant in grants]

        granted = self.both(claim(), lambda: self.model.claim(node.id, node.boot, want, warm))
        self.grants += [(task_id, attempt, node.id) for task_id, attempt in granted or ()]

    # What happens most in life shall happen most here.

    @rule(which=which, warm=st.sets(models))
    def claim_one(self, which: int, warm: set[str]) -> None:
        self.claim(which, False, 1, warm)

    @rule(which=which)
    def claim_many(self, which: int) -> None:
        self.claim(which, False, 9, set())

    def about_an_attempt(
        self, move: Coroutine[Any, Any, None], t: ModelTask | None, expected: Callable[[], object]
    ) -> None:
        if t is not None:
            self.both(move, expected)
        else:
            assert isinstance(self.outcome(move)[1], TaskNotFound)

    @has_grants
    @rule(which=which)
    def finish(self, which: int) -> None:
        t, task_id, attempt, node = self.token(which)
        self.about_an_attempt(node.finish(task_id, attempt), t, lambda: self.model.finish(t, attempt, node.id))  # type: ignore[arg-type]

    @has_grants
    @rule(which=which, error_class=st.sampled_from(ErrorClass), code=st.sampled_from(["one", "two"]))
    def fail(self, which: int, error_class: ErrorClass, code: str) -> None:
        t, task_id, attempt, node = self.token(which)
        self.about_an_attempt(
            node.fail(task_id, attempt, a_failure(error_class, code)),
            t,
            lambda: self.model.fail(t, attempt, node.id, error_class, code),  # type: ignore[arg-type]
        )

    @has_grants
    @rule(which=which)
    def retake(self, which: int) -> None:
        t, task_id, attempt, node = self.token(which)
        self.about_an_attempt(node.retake(task_id, attempt), t, lambda: self.model.retake(t, attempt, node.id))  # type: ignore[arg-type]
        if t is not None and t.runs(len(t.attempts), node.id):
            self.grants.append((task_id, len(t.attempts), node.id))

    @has_grants
    @rule(which=which)
    def finish_an_old_one(self, which: int) -> None:
        self.finish(which * 3)

    @has_grants
    @rule(which=which, error_class=st.sampled_from(ErrorClass))
    def fail_a_new_one(self, which: int, error_class: ErrorClass) -> None:
        self.fail(which % 3, error_class, "one")

    @has_grants
    @rule(which=which, ease=st.sampled_from(Ease), queue=queues, avoid=st.booleans())
    def run_out_of_memory(self, which: int, ease: Ease, queue: str, avoid: bool) -> None:
        t, task_id, attempt, node = self.token(which)
        easier = EaseStep(ease, queue, avoid)
        failure = a_failure(ErrorClass.RESOURCE, "out_of_memory")
        self.about_an_attempt(
            self.state.fail_task(task_id, attempt=attempt, node=node.id, failure=failure, easier=easier),
            t,
            lambda: self.model.fail(t, attempt, node.id, failure.error_class, failure.code, easier),  # type: ignore[arg-type]
        )

    @has_grants
    @rule(which=which)
    def release(self, which: int) -> None:
        t, task_id, attempt, node = self.token(which)
        self.about_an_attempt(node.release(task_id, attempt), t, lambda: self.model.release(t, attempt, node.id))  # type: ignore[arg-type]

    @has_grants
    @rule(which=which, name=names, attempt=st.integers(-1, 9), move=st.sampled_from(["finish", "fail", "release"]))
    def speak_of_an_attempt_of_another(self, which: int, name: str, attempt: int, move: str) -> None:
        t, task_id, _, _ = self.token(which)
        node = self.nodes[name]
        more = (ErrorClass.TRANSIENT, "storage_timeout") if move == "fail" else ()
        self.about_an_attempt(
            getattr(node, move)(task_id, attempt), t, lambda: getattr(self.model, move)(t, attempt, name, *more)
        )

    @precondition(lambda self: self.model.of(TaskStatus.PROCESSING))
    @rule(chosen=st.sets(which, min_size=1, max_size=3))
    def expire_leases(self, chosen: set[int]) -> None:
        ids = {self.pick(number, TaskStatus.PROCESSING).id for number in chosen}
        self.into_the_past("leases", *ids)

        async def expire() -> set[tuple[str, str]]:
            return {(ended.task_id, ended.node) for ended in await self.state.expire_leases()}

        self.both(expire(), lambda: self.model.expire(ids))

    # ------------------------------------------------------------ nodes

    @rule(name=names, queues=some_queues, models=some_models, reborn=st.booleans(), labels=some_labels)
    def hello(
        self, name: str, queues: tuple[str, ...], models: tuple[str, ...], reborn: bool, labels: dict[str, str]
    ) -> None:
        node = self.nodes[name]
        if reborn:
            self.earlier.append(node)
            node = self.nodes[name] = Node(self.state, name, boot=new_id())
        node.queues, node.models, node.labels = queues, models, labels
        self.both(node.hello(), lambda: self.model.hello(name, node.boot, models, queues, labels))

    @precondition(lambda self: self.earlier)
    @rule(which=which, word=st.sampled_from(["hello", "claim", "beat", "leave", "lose"]))
    def a_boot_that_was_replaced_speaks(self, which: int, word: str) -> None:
        node = self.earlier[-1 - which % len(self.earlier)]
        known = self.model.nodes.get(node.id)
        if word == "hello" and (known is None or node.boot not in known.retired):
            return  # the node was forgotten in between, and this boot with it
        answer, error = self.outcome(getattr(node, word)())
        assert answer is None
        assert type(error) is (NoneType if word == "lose" else StaleBoot)

    @rule(name=names, listed=st.sets(which, max_size=4), all_held=st.booleans(), late=st.booleans())
    def beat(self, name: str, listed: set[int], all_held: bool, late: bool) -> None:
        node = self.nodes[name]
        said = {self.token(number)[1:3] for number in listed if self.grants}
        said |= {(t.id, len(t.attempts)) for t in self.model.held(name) if all_held}
        if late:
            self.into_the_past(f"held:{name}", *(t.id for t in self.model.held(name)))

        async def beat() -> tuple[str, list[tuple[str, int]]]:
            status, lost = await node.beat(*sorted(said))
            return status, [(one.task_id, one.attempt) for one in lost]

        self.both(beat(), lambda: self.model.beat(name, node.boot, sorted(said), late=late))
        self.back_to_the_present(f"held:{name}")

    @rule(name=names, orderly=st.booleans())
    def go(self, name: str, orderly: bool) -> None:
        node = self.nodes[name]
        if orderly:
            self.both(node.leave(), lambda: self.model.leave(name, node.boot))
        else:
            lost = self.both(node.lose(), lambda: self.model.lose(name, node.boot))
            assert lost is None or self.model.nodes[name].status == "offline"

    @rule(name=names, wake=st.booleans())
    def drain_or_activate(self, name: str, wake: bool) -> None:
        move = (self.state.activate_node if wake else self.state.drain_node)(name, why="by ann")
        if name in self.model.nodes:
            self.both(move, lambda: (self.model.activate if wake else self.model.drain)(name))
        else:
            assert isinstance(self.outcome(move)[1], NodeNotFound)

    @has_nodes
    @rule()
    def forget_nodes(self) -> None:
        self.into_the_past("nodes", *self.model.nodes)
        self.both(self.state.forget_nodes(silence_ms=1000), self.model.forget_nodes)

    # ------------------------------------------------------------ queues

    @rule(queue=queues, on=seldom)
    def pause_or_resume(self, queue: str, on: bool) -> None:
        def expected() -> None:
            if (queue in self.model.paused) == on:
                raise Refused
            self.model.paused ^= {queue}

        self.both((self.state.pause_queue if on else self.state.resume_queue)(queue, actor="ann"), expected)

    # ------------------------------------------------------------ both worlds are the same

    @invariant()
    def every_key_is_accounted_for(self) -> None:
        ledger = audit(self.eye)
        assert set(ledger.tasks) == set(self.model.tasks)
        for task_id, fields in ledger.tasks.items():
            t = self.model.tasks[task_id]
            told = {
                "status": t.status, "rev": str(t.rev), "queue": t.queue, "pinned": t.pinned, "model": t.task.model,
                "priority": t.priority, "attempt": str(len(t.attempts)), "retries": str(t.retries),
                "deaths": str(t.deaths), "fence": str(t.fence), "node": t.node, "avoid": t.avoid,
                "eased": ",".join(t.eased), "class": t.error_class, "code": t.code,
                "user": t.task.user_id, "job": t.task.job or "",
            }  # fmt: skip
            assert {name: fields.get(name, "0" if name == "fence" else "") for name in told} == told
            assert (fields.get("score"), fields.get("tag")) == (
                (None, None) if t.tag is None else (f"{t.score:.14g}", f"{t.tag:.14g}")
            )
            outcomes = [
                (record["node"], record["outcome"], tuple(record.get("eased", ())))
                for record in ledger.attempts.get(task_id, ())
            ]
            assert outcomes == [(attempt.node, attempt.outcome, attempt.eased) for attempt in t.attempts]
        self._lanes_are_in_order(ledger.values)
        told_of = {name: (n.boot, n.status, str(n.completed), str(n.failed)) for name, n in self.model.nodes.items()}
        assert told_of == {
            name: (n["boot"], n["status"], n.get("completed", "0"), n.get("failed", "0"))
            for name, n in ledger.nodes.items()
        }
        assert {name.removeprefix("queue:") for name in ledger.values if name.startswith("queue:")} == self.model.paused
        totals = Counter({name: int(text) for name, text in ledger.values.get("totals", {}).items()})
        assert totals == self.model.totals

    def _lanes_are_in_order(self, values: dict[str, Any]) -> None:
        """Each lane as Redis would hand it out, against the model's order."""
        wanted: dict[str, list[ModelTask]] = {}
        for t in self.model.of(TaskStatus.QUEUED):
            wanted.setdefault(f"lane:{':'.join(t.lane)}", []).append(t)
        lanes = {name: list(members) for name, members in values.items() if name.startswith("lane:")}
        assert lanes == {
            name: [t.id for t in sorted(tasks, key=lambda t: (t.score, t.id))] for name, tasks in wanted.items()
        }


@pytest.mark.timeout(900)  # a failure is shrunk first; a pass takes seconds
def test_random_moves_keep_every_index_counter_and_lane_true(redis_url: str) -> None:
    class Machine(StateMachine):
        url = redis_url

    run_state_machine_as_test(
        seed(int(os.environ["LCQ_TEST_SEED"]))(Machine),
        settings=settings(
            max_examples=EXAMPLES,
            stateful_step_count=50,
            deadline=None,
            database=None,
            suppress_health_check=list(HealthCheck),
        ),
    )
