"""The checker is checked: it is silent on legal histories, and finds each kind of wrong that was put into one."""

from __future__ import annotations

import asyncio
import copy
import json
from collections.abc import Awaitable, Callable
from dataclasses import replace
from typing import Any

import pytest
import redis
from hypothesis import given, settings
from hypothesis import strategies as st

from lcq.config import DistributedConfig, LeaseConfig, RetentionConfig, RetryConfig
from lcq.errors import LcqError
from lcq.ids import new_id
from lcq.models import ErrorClass, Event, TaskResult
from lcq.state.manager import StateManager
from tests.chaos import history
from tests.chaos.history import Artifact, Recording, Seen, Stretch, Submission, Violation, check
from tests.chaos.recorder import EventRecorder, recorded, snapshot
from tests.nodes import HEAVY, LIGHT, Node, a_failure, a_task
from tests.values import THOROUGH

CONFIG = DistributedConfig(retries=RetryConfig(base_s=0), leases=LeaseConfig(beat_s=60, lease_s=3600))
FORGETFUL = CONFIG.model_copy(update={"retention": RetentionConfig(completed_s=0.001, failed_s=0.001)})
EVERY_END = frozenset({"completed", "cancelled", "storage_timeout", "bad_input", "runner_died", "poison", "node_lost"})


def digest(number: int) -> str:
    return f"{number:064x}"


class Players:
    """Clients, nodes and an operator on one real server; every move of theirs may be refused."""

    def __init__(self, state: StateManager) -> None:
        self.state = state
        self.nodes = [Node(state, id=f"node-{number}", queues=(LIGHT, HEAVY)) for number in (1, 2)]
        self.submissions: dict[str, Submission] = {}
        self.seen: list[Seen] = []
        self._boots = 0

    async def submit(self, which: int) -> str:
        """One of few keys: most often it is a repetition, by a client that has forgotten the id."""
        key, wanted = f"key-{which % 7}", which % 7
        task = a_task(id=new_id(), image_path=f"{wanted}.png", max_retries=2)
        accepted = await self.state.submit_task(task, queue=LIGHT, key=key)
        before = self.submissions.get(key, Submission(key, digest(wanted), ends=EVERY_END))
        self.submissions[key] = replace(before, answers=(*before.answers, accepted.id))
        return accepted.id

    async def look(self) -> None:
        for task, record in (await self.state.reader.tasks(await self._ids())).items():
            result = record.result
            self.seen.append(
                Seen(
                    task,
                    record.revision,
                    record.status,
                    result.sha256 if result else "",
                    result.input_sha256 if result else "",
                )
            )

    async def _ids(self) -> list[str]:
        return sorted({task for one in self.submissions.values() for task in one.answers})

    async def _one(self, which: int) -> str:
        ids = await self._ids()
        return ids[which % len(ids)] if ids else new_id()

    async def hello(self, which: int, *, again: bool = False) -> None:
        node = self.nodes[which % 2]
        if again:
            self._boots += 1
            node.boot = f"boot-{self._boots + 1}"
        await node.hello()

    async def claim(self, which: int) -> None:
        await self.nodes[which % 2].claim(1 + which % 3, lease_ms=1 if which % 5 == 0 else 60_000)

    async def report(self, which: int, how: str) -> None:
        """How an attempt ended, told by its node; perhaps too late, perhaps for the second time."""
        task = await self._one(which)
        attempts = await self.state.reader.attempts(task)
        if not attempts:
            return
        attempt = attempts[which % len(attempts)]
        if how == "finish":
            record = await self.state.reader.task(task)
            number = int(record.task.image_path.removesuffix(".png"))
            result = TaskResult(
                path="", bytes=0, sha256=digest(99), input_sha256=digest(number), width=0, height=0, seconds=1
            )
            await self.state.finish_task(task, attempt=attempt.number, node=attempt.node, result=result)
        elif how == "fail":
            kinds = [
                a_failure(),
                a_failure(ErrorClass.BAD_INPUT, "bad_input"),
                a_failure(ErrorClass.CRASH, "runner_died"),
            ]
            await self.state.fail_task(task, attempt=attempt.number, node=attempt.node, failure=kinds[which % 3])
        else:
            await self.state.release_task(task, attempt=attempt.number, node=attempt.node)

    async def operate(self, which: int, what: str) -> None:
        task = await self._one(which)
        if what == "cancel":
            await self.state.cancel_task(task)
        elif what == "retry":
            await self.state.retry_task(task, queue=LIGHT)
        else:
            await self.state.reroute_task(task, queue=(LIGHT, HEAVY)[which % 2])

    def moves(self) -> dict[str, Callable[[int], Awaitable[object]]]:
        return {
            "submit": self.submit,
            "look": lambda which: self.look(),
            "hello": self.hello,
            "restart": lambda which: self.hello(which, again=True),
            "claim": self.claim,
            "finish": lambda which: self.report(which, "finish"),
            "fail": lambda which: self.report(which, "fail"),
            "hand back": lambda which: self.report(which, "hand back"),
            "cancel": lambda which: self.operate(which, "cancel"),
            "retry": lambda which: self.operate(which, "retry"),
            "reroute": lambda which: self.operate(which, "reroute"),
            "lose": lambda which: self.nodes[which % 2].lose(),
            "expire": lambda which: self.state.expire_leases(),
            "due": lambda which: self.state.release_due(),
            "forget": lambda which: self.state.forget_tasks(),
        }

    async def play(self, moves: list[tuple[str, int]]) -> None:
        known = self.moves()
        for name, which in moves:
            try:
                await known[name](which)
            except LcqError:
                continue


async def a_recording(
    url: str, play: Callable[[Players], Awaitable[None]], config: DistributedConfig = CONFIG
) -> Recording:
    """What the recorder makes of what is played on an empty server."""
    with redis.Redis.from_url(url, decode_responses=True) as eye:
        eye.flushall()
        async with StateManager(config, url=url) as state:
            players = Players(state)
            await play(players)
        with recorded(url) as recorder:
            recorder.catch_up()
        ledger, mortal = snapshot(eye)
    return Recording(
        events=tuple(recorder.events),
        submissions=tuple(players.submissions.values()),
        seen=tuple(players.seen),
        ledger=ledger,
        mortal=mortal,
        healed=False,
    )


MOVES = ["submit"] * 3 + ["claim"] * 4 + ["finish"] * 3 + ["hello", "look", "look", "fail", "hand back", "cancel"]
MOVES += ["retry", "reroute", "restart", "lose", "expire", "due", "forget"]


@pytest.mark.parametrize("examples", [60, pytest.param(400, marks=pytest.mark.chaos)])
def test_legal_histories_give_no_violation(redis_url: str, examples: int) -> None:
    @settings(THOROUGH, max_examples=examples)
    @given(
        st.lists(st.tuples(st.sampled_from(MOVES), st.integers(0, 11)), max_size=60),
        st.sampled_from([CONFIG, FORGETFUL]),
    )
    def every(moves: list[tuple[str, int]], config: DistributedConfig) -> None:
        moves = [("hello", 0), ("hello", 1), ("submit", 0), *moves, ("look", 0)]
        verdict = check(asyncio.run(a_recording(redis_url, lambda players: players.play(moves), config)))
        assert verdict.violations == (), str(verdict)

    every()


# ---------------------------------------------------------------- one thing wrong at a time


async def tell_a_story(players: Players) -> None:
    """1: completed, made anew by an operator, completed again. 2: failed once. 3: cancelled. 4: submitted thrice."""
    node, other = players.nodes
    await node.hello()
    await other.hello()

    async def finish(node: Node, task: str, attempt: int, number: int) -> None:
        result = TaskResult(
            path="", bytes=0, sha256=digest(99), input_sha256=digest(number), width=0, height=0, seconds=1
        )
        await players.state.finish_task(task, attempt=attempt, node=node.id, result=result)

    first, second, third, fourth = [await players.submit(number) for number in (1, 2, 3, 4)]
    await players.submit(4)
    await players.submit(4)
    await players.state.cancel_task(third)
    assert len(await node.claim(3)) == 3
    await finish(node, first, 1, 1)
    await players.look()
    await players.state.retry_task(first, queue=LIGHT)
    await node.fail(second)
    await finish(node, fourth, 1, 4)
    assert len(await other.claim(2)) == 2
    await finish(other, first, 2, 1)
    await finish(other, second, 2, 2)
    await players.look()


@pytest.fixture
async def story(redis_url: str) -> Recording:
    recording = await a_recording(redis_url, tell_a_story)
    ids = [one.answers[0] for one in recording.submissions]
    artifacts = (Artifact(ids[0], digest(99), is_of_own_input=True),)
    story = replace(recording, artifacts=artifacts, healed=True)
    verdict = check(story)
    assert verdict.violations == (), str(verdict)
    assert dict(verdict.ends) == {"completed": 3, "cancelled": 1}
    assert max(int(fields["attempt"]) for fields in story.ledger.tasks.values()) == 2
    return story


def ids(story: Recording) -> list[str]:
    return [one.answers[0] for one in story.submissions]


def with_events(story: Recording, change: Callable[[list[Event]], object]) -> Recording:
    events = list(story.events)
    change(events)
    return replace(story, events=tuple(events))


def with_ledger(story: Recording, change: Callable[[Any], object]) -> Recording:
    ledger = copy.deepcopy(story.ledger)
    for fields in (ledger.tasks, ledger.attempts, ledger.nodes):
        assert fields
    change(ledger)
    return replace(story, ledger=ledger)


def with_submission(story: Recording, number: int, **fields: object) -> Recording:
    changed = list(story.submissions)
    changed[number] = replace(changed[number], **fields)  # type: ignore[arg-type]
    return replace(story, submissions=tuple(changed))


def find(events: list[Event], move: str, task: str) -> int:
    return next(place for place, event in enumerate(events) if (event.move, event.fields.get("id")) == (move, task))


def told(event: Event, **fields: str) -> Event:
    return event.model_copy(update={"fields": {**event.fields, **fields}})


def a_second_finish(story: Recording) -> Recording:
    def again(events: list[Event]) -> None:
        place = find(events, "finish_task", ids(story)[1])
        one = events[place]
        events.insert(place + 1, told(one, rev=str(int(one.fields["rev"]) + 1)))

    return with_events(story, again)


def a_change_after_the_end(story: Recording) -> Recording:
    def fails(events: list[Event]) -> None:
        place = find(events, "cancel_task", ids(story)[2])
        rev = str(int(events[place].fields["rev"]) + 1)
        events.append(told(events[place], rev=rev, status="queued").model_copy(update={"move": "expire_leases"}))

    return with_events(story, fails)


def a_move_that_is_none(story: Recording) -> Recording:
    def skips(events: list[Event]) -> None:
        place = find(events, "claim_tasks", ids(story)[1])
        events[place] = told(events[place], status="completed")

    return with_events(story, skips)


def an_attempt_used_again(story: Recording) -> Recording:
    def same(events: list[Event]) -> None:
        places = [
            place
            for place, event in enumerate(events)
            if event.move == "claim_tasks" and event.fields["id"] == ids(story)[1]
        ]
        events[places[1]] = told(events[places[1]], attempt="1")

    return with_events(story, same)


def an_event_lost(story: Recording) -> Recording:
    return with_events(story, lambda events: events.pop(find(events, "retry_task", ids(story)[0])))


def a_task_gone(story: Recording) -> Recording:
    return with_ledger(story, lambda ledger: ledger.tasks.pop(ids(story)[3]))


def accepted_and_never_there(story: Recording) -> Recording:
    ghost = Submission("key-ghost", digest(8), answers=(new_id(),))
    return replace(story, submissions=(*story.submissions, ghost))


def a_task_of_nobody(story: Recording) -> Recording:
    return replace(story, submissions=story.submissions[:3])


def a_key_with_two_ids(story: Recording) -> Recording:
    return with_submission(story, 3, answers=(ids(story)[3], ids(story)[2]))


def a_task_that_waits_for_ever(story: Recording) -> Recording:
    return with_ledger(story, lambda ledger: ledger.tasks[ids(story)[3]].update(status="queued"))


def a_good_task_failed(story: Recording) -> Recording:
    return with_submission(story, 2, ends=frozenset({"completed"}))


def two_attempts_completed(story: Recording) -> Recording:
    def both(ledger: Any) -> None:
        for record in ledger.attempts[ids(story)[1]]:
            record["outcome"] = "completed"

    return with_ledger(story, both)


def completed_by_none(story: Recording) -> Recording:
    return with_ledger(story, lambda ledger: ledger.tasks[ids(story)[1]].update(committed="7"))


def attempts_with_a_hole(story: Recording) -> Recording:
    return with_ledger(story, lambda ledger: ledger.attempts[ids(story)[1]].pop(0))


def result_of(story: Recording, number: int, **fields: str) -> Recording:
    def change(ledger: Any) -> None:
        task = ledger.tasks[ids(story)[number]]
        task["result"] = json.dumps(json.loads(task["result"]) | fields)

    return with_ledger(story, change)


def another_ones_result(story: Recording) -> Recording:
    return result_of(story, 1, input_sha256=digest(1))


def pixels_of_another(story: Recording) -> Recording:
    return replace(story, artifacts=(replace(story.artifacts[0], is_of_own_input=False),))


def a_file_cut_short(story: Recording) -> Recording:
    return replace(story, artifacts=(replace(story.artifacts[0], sha256=digest(5)),))


def a_result_that_changed(story: Recording) -> Recording:
    changed = [replace(one, sha256=digest(3)) if one.task == ids(story)[1] else one for one in story.seen]
    return replace(story, seen=tuple(changed))


def an_end_that_was_taken_back(story: Recording) -> Recording:
    one = story.seen[-1]
    return replace(story, seen=(*story.seen, replace(one, revision=one.revision - 1)))


def two_words_on_one_revision(story: Recording) -> Recording:
    return replace(story, seen=(*story.seen, replace(story.seen[0], status="failed")))


def a_wrong_digest_shown(story: Recording) -> Recording:
    changed = [replace(one, input_sha256=digest(6)) if one.sha256 else one for one in story.seen]
    return replace(story, seen=tuple(changed))


def a_lease_of_nothing(story: Recording) -> Recording:
    return with_ledger(story, lambda ledger: ledger.values.update(leases={ids(story)[2]: 1.0}))


def a_count_that_drifted(story: Recording) -> Recording:
    return with_ledger(story, lambda ledger: ledger.values["counts"].update(processing="1"))


def a_total_that_drifted(story: Recording) -> Recording:
    return with_ledger(story, lambda ledger: ledger.values["totals"].update(completed="3"))


def a_node_with_too_much_credit(story: Recording) -> Recording:
    return with_ledger(story, lambda ledger: ledger.nodes["node-1"].update(completed="9"))


def a_strange_key(story: Recording) -> Recording:
    return replace(story, mortal={**story.mortal, "{lcq}:reply:42": False})


def a_key_of_no_task(story: Recording) -> Recording:
    return with_ledger(story, lambda ledger: ledger.values.update({"attempts:" + new_id(): []}))


def an_immortal_minute(story: Recording) -> Recording:
    minute = next(name for name in story.mortal if ":minute:" in name)
    return replace(story, mortal={**story.mortal, minute: False})


def a_mortal_task(story: Recording) -> Recording:
    return replace(story, mortal={**story.mortal, f"{{lcq}}:task:{ids(story)[0]}": True})


def a_task_missing_in_an_index(story: Recording) -> Recording:
    return with_ledger(story, lambda ledger: ledger.values["ix:status:cancelled"].clear())


def a_node_lost_in_peace(story: Recording) -> Recording:
    def lost(events: list[Event]) -> None:
        after = story.events[-1]
        later = f"{after.at_ms + 5}-0"
        events.append(
            Event(id=later, move="lose_node", fields={"node": "node-1", "status": "offline", "why": "silent"})
        )

    stretch = Stretch(story.events[-1].id, f"{story.events[-1].at_ms + 10}-0")
    return replace(with_events(story, lost), quiet=(stretch,))


PLANTED: list[tuple[Callable[[Recording], Recording], type[Violation]]] = [
    (a_second_finish, history.CommittedTwice),
    (two_attempts_completed, history.CommittedTwice),
    (completed_by_none, history.CommitUnbacked),
    (a_change_after_the_end, history.LeftTerminalState),
    (a_move_that_is_none, history.IllegalMove),
    (an_attempt_used_again, history.AttemptOutOfOrder),
    (attempts_with_a_hole, history.AttemptOutOfOrder),
    (an_event_lost, history.RevisionSkipped),
    (a_task_gone, history.TaskMissing),
    (accepted_and_never_there, history.TaskMissing),
    (a_task_of_nobody, history.TaskFromNowhere),
    (a_key_with_two_ids, history.DoneForOneKeyTwice),
    (a_task_that_waits_for_ever, history.NotFinished),
    (a_good_task_failed, history.WrongEnd),
    (another_ones_result, history.WrongInput),
    (pixels_of_another, history.WrongInput),
    (a_wrong_digest_shown, history.WrongInput),
    (a_file_cut_short, history.WrongResult),
    (a_result_that_changed, history.AnswerTakenBack),
    (an_end_that_was_taken_back, history.AnswerTakenBack),
    (two_words_on_one_revision, history.AnswerTakenBack),
    (a_lease_of_nothing, history.CounterOff),
    (a_count_that_drifted, history.CounterOff),
    (a_total_that_drifted, history.CounterOff),
    (a_node_with_too_much_credit, history.CounterOff),
    (a_strange_key, history.KeyWithoutOwner),
    (a_key_of_no_task, history.KeyWithoutOwner),
    (an_immortal_minute, history.KeyWithoutExpiry),
    (a_mortal_task, history.KeyWillVanish),
    (a_task_missing_in_an_index, history.LedgerBroken),
    (a_node_lost_in_peace, history.FalseAlarm),
]


@pytest.mark.parametrize(("plant", "kind"), PLANTED, ids=[plant.__name__ for plant, _ in PLANTED])
async def test_a_planted_violation_is_found_and_named(
    story: Recording, plant: Callable[[Recording], Recording], kind: type[Violation]
) -> None:
    planted = plant(story)
    found = [one for one in check(planted).violations if type(one) is kind]
    assert found, str(check(planted))
    assert all(one.subject and one.evidence and one.promise in str(one) for one in found)


def test_every_kind_of_violation_is_planted_somewhere() -> None:
    assert {kind for _, kind in PLANTED} == set(Violation.__subclasses__())


async def test_a_node_quarantined_before_a_calm_is_probed_in_it_without_an_alarm(story: Recording) -> None:
    def probed(move: str, **more: str) -> Recording:
        after = story.events[-1]
        fields = {"node": "node-1", "status": "quarantined", "why": "failed 5 tasks of late"} | more
        event = Event(id=f"{after.at_ms + 5}-0", move=move, fields=fields)
        stretch = Stretch(after.id, f"{after.at_ms + 10}-0")
        return replace(with_events(story, lambda events: events.append(event)), quiet=(stretch,))

    def alarms(move: str, **more: str) -> list[Violation]:
        return [one for one in check(probed(move, **more)).violations if isinstance(one, history.FalseAlarm)]

    assert not alarms("probe_node")
    assert not alarms("settle_probe")
    assert alarms("quarantine_node")
    assert alarms("caution_device", status="online", on="1")
    assert not alarms("caution_device", status="online", on="0")


async def test_a_file_that_was_looked_at_before_a_new_run_has_no_result_yet_is_no_violation(story: Recording) -> None:
    def begin_anew(ledger: Any) -> None:
        del ledger.tasks[ids(story)[0]]["result"]

    looked_at = [replace(one, sha256="", input_sha256="") for one in story.seen if one.task == ids(story)[0]]
    begun = replace(with_ledger(story, begin_anew), seen=tuple(looked_at))
    assert not [one for one in check(begun).violations if isinstance(one, history.WrongResult)]


async def test_a_violation_names_the_task_and_what_shows_it(story: Recording) -> None:
    (one,) = (v for v in check(a_second_finish(story)).violations if isinstance(v, history.CommittedTwice))
    assert one.subject == ids(story)[1]
    assert "by finish_task at" in one.evidence
    assert check(a_second_finish(story)).doubled == 1
    assert check(accepted_and_never_there(story)).lost == 1


# ---------------------------------------------------------------- failovers


async def test_what_a_failover_took_back_is_put_aside_and_what_clients_were_told_of_it_is_excused(
    redis_url: str,
) -> None:
    with (
        redis.Redis.from_url(redis_url, decode_responses=True) as eye,
        EventRecorder(lambda: redis.Redis.from_url(redis_url, decode_responses=True)) as recorder,
    ):
        async with StateManager(CONFIG, url=redis_url) as state:
            players = Players(state)
            await players.play([("hello", 0), ("submit", 1), ("claim", 6)])
            recorder.catch_up()
            kept = {
                name: (max(0, eye.pttl(name)), eye.execute_command("DUMP", name, NEVER_DECODE=True))
                for name in eye.scan_iter()
            }
            await players.play([("submit", 2), ("finish", 0), ("look", 0)])
            recorder.catch_up()
            assert [event.move for event in recorder.events[-2:]] == ["submit_task", "finish_task"]
            eye.flushdb()  # the replica that never heard of the last two
            for name, (left_ms, value) in kept.items():
                eye.restore(name, left_ms, value)
            await players.play([("submit", 2), ("finish", 0)])
        recorder.catch_up()
        ledger, mortal = snapshot(eye)
        mortal = {name: ":minute:" in name or is_mortal for name, is_mortal in mortal.items()}
    assert [event.move for event in recorder.undone] == ["submit_task", "finish_task"]
    recording = Recording(
        events=tuple(recorder.events),
        undone=tuple(recorder.undone),
        submissions=tuple(players.submissions.values()),
        seen=tuple(players.seen),
        ledger=ledger,
        mortal=mortal,
        healed=False,
    )
    verdict = check(recording)
    assert verdict.violations == (), str(verdict)
    assert (verdict.undone, verdict.excused) == (2, 2)
    lost = replace(recording, events=(), undone=recording.events, ledger=type(ledger)(), mortal={})
    assert {type(one) for one in check(lost).violations} == {history.TaskMissing}  # nobody submitted again
