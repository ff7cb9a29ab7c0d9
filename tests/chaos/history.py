"""The history checker: what happened, what clients were told, and what was left, held against LCQ's promises.

Pure: a ``Recording`` goes in, a ``Verdict`` comes out. tests/chaos/recorder.py makes recordings of real clusters.

The promises: no accepted task is missing, at most one commit a task and run, attempts count 1, 2, 3 …, what has ended
stays ended, every result is of its own input, what clients were told stays true, every counter is the sum of what it
counts, and every key has an owner or an expiry. A *run* of a task goes from its submit, or from an operator's command
that begins it anew, to its end.
"""

from __future__ import annotations

import json
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import ClassVar

from lcq.models import TERMINAL_STATES, Event, TaskStatus
from lcq.moves import LEGAL_MOVES, NO_TASK
from tests.audit import EXPIRING, Ledger, class_of, compare

BEGINS_ANEW = frozenset({"retry_task", "reroute_task", "undo_task"})
"""The operator's commands that lead out of a terminal state."""
BEGINS_AN_ATTEMPT = frozenset({"claim_tasks", "retake_task"})
WAYS_BACK = frozenset({"probe_node", "settle_probe"})
"""How a node that was quarantined before comes out of it: it still bears the status."""
LOST_BY_SILENCE = frozenset({"lose_node", "expire_leases"})
RECOVERIES = frozenset({"lose_node", "expire_leases", "register_node", "leave_node", "beat_node"})
"""What puts a running task back into its queue because of its node."""

# ---------------------------------------------------------------- what is recorded


@dataclass(frozen=True)
class Submission:
    """One task as a client sent it, perhaps several times under one key."""

    key: str
    input_sha256: str  # of what the client wants worked on
    answers: tuple[str, ...] = ()  # the ids it was told; none: nobody ever accepted it
    ends: frozenset[str] = frozenset({TaskStatus.COMPLETED})  # "completed", "cancelled", or the code of a failure


@dataclass(frozen=True)
class Seen:
    """A task as a client was shown it."""

    task: str
    revision: int
    status: str
    sha256: str = ""  # of its result, "" while there is none
    input_sha256: str = ""


@dataclass(frozen=True)
class Artifact:
    """The file of a completed task, as it was found."""

    task: str
    sha256: str  # of its bytes; "": it is not there
    is_of_own_input: bool  # judged by its pixels, not by what anybody said of it


@dataclass(frozen=True)
class Stretch:
    """A time without faults: events after the first id and up to the second."""

    after: str
    until: str


@dataclass(frozen=True)
class Recording:
    """A history from an empty cluster on. Everything is in the order in which it happened."""

    events: tuple[Event, ...] = ()  # of the server that was left
    undone: tuple[Event, ...] = ()  # that were seen, and that a failover took back
    in_doubt: frozenset[str] = frozenset()  # tasks that clients were shown while a failover lost writes
    submissions: tuple[Submission, ...] = ()
    seen: tuple[Seen, ...] = ()
    artifacts: tuple[Artifact, ...] = ()
    ledger: Ledger = field(default_factory=Ledger)
    mortal: Mapping[str, bool] = field(default_factory=dict)  # every key of the server -> whether it expires
    quiet: tuple[Stretch, ...] = ()
    healed: bool = True  # whether everything was to be finished by the end


# ---------------------------------------------------------------- what can be wrong


@dataclass(frozen=True)
class Violation:
    """One broken promise: about what, and by which evidence."""

    promise: ClassVar[str]
    subject: str
    evidence: str

    def __str__(self) -> str:
        return f"{self.promise}: {self.subject}: {self.evidence}"


class TaskMissing(Violation):
    promise = "an accepted task is missing"


class TaskFromNowhere(Violation):
    promise = "there is a task that nobody submitted"


class DoneForOneKeyTwice(Violation):
    promise = "one idempotency key has two tasks"


class NotFinished(Violation):
    promise = "a task has not come to its end although everything healed"


class WrongEnd(Violation):
    promise = "a task has come to an end that it cannot come to"


class CommittedTwice(Violation):
    promise = "a run of a task was committed twice"


class CommitUnbacked(Violation):
    promise = "a task is completed, but not by one attempt of its own"


class AttemptOutOfOrder(Violation):
    promise = "attempts do not count 1, 2, 3 …"


class LeftTerminalState(Violation):
    promise = "a task that had ended changed without an operator's command"


class IllegalMove(Violation):
    promise = "a task made a move that is none"


class RevisionSkipped(Violation):
    promise = "a task changed without an event, or an event was lost"


class AnswerTakenBack(Violation):
    promise = "what a client was told is not so"


class WrongInput(Violation):
    promise = "a result is of another input than its task's"


class WrongResult(Violation):
    promise = "a result's file is not what its record says"


class CounterOff(Violation):
    promise = "a counter is not the sum of what it counts"


class KeyWithoutOwner(Violation):
    promise = "a key belongs to nothing"


class KeyWithoutExpiry(Violation):
    promise = "a key that belongs to nothing for long never expires"


class KeyWillVanish(Violation):
    promise = "a key that must stay expires"


class LedgerBroken(Violation):
    promise = "an index does not say what the tasks say"


class FalseAlarm(Violation):
    promise = "a node was taken for lost while nothing was wrong"


@dataclass(frozen=True)
class Verdict:
    """What the checker found."""

    violations: tuple[Violation, ...]
    tasks: int
    ends: Mapping[str, int]  # "completed", "cancelled", or the code of a failure -> tasks
    recoveries: Mapping[str, int]  # move -> running tasks that it put back
    late: int  # results of earlier attempts that were taken
    undone: int  # events that failovers took back
    excused: int  # tasks whose client was told something that a failover took back

    @property
    def lost(self) -> int:
        return sum(isinstance(one, TaskMissing) for one in self.violations)

    @property
    def doubled(self) -> int:
        return sum(isinstance(one, CommittedTwice | DoneForOneKeyTwice) for one in self.violations)

    def __str__(self) -> str:
        said = [f"{self.lost} lost, {self.doubled} doubled, {len(self.violations)} violations in {self.tasks} tasks"]
        return "\n".join([*said, *(f"  {one}" for one in self.violations[:20])])


def check(recording: Recording) -> Verdict:
    """Hold ``recording`` against every promise."""
    lives = _Lives(recording)
    excused = recording.in_doubt.union(event.fields["id"] for event in recording.undone if "id" in event.fields)
    found = [
        *lives.violations,
        *_check_tasks(recording, lives),
        *_check_answers(recording, lives, excused),
        *_check_results(recording),
        *_check_counters(recording),
        *_check_keys(recording),
        *_check_quiet(recording),
    ]
    return Verdict(
        violations=tuple(found),
        tasks=len(lives.all),
        ends=Counter(end_of(fields) for fields in recording.ledger.tasks.values()),
        recoveries=_recoveries(recording.events),
        late=sum(event.fields.get("late") == "1" for event in recording.events),
        undone=len(recording.undone),
        excused=len(excused & {one.task for one in recording.seen}),
    )


def end_of(task: Mapping[str, str]) -> str:
    """How a task has ended: its state, or the code of its failure."""
    return task.get("code", "") if task["status"] == TaskStatus.FAILED else task["status"]


def _recoveries(events: Iterable[Event]) -> Mapping[str, int]:
    return Counter(
        f"{event.move} ({event.fields['code']})" if "code" in event.fields else event.move
        for event in events
        if event.move in RECOVERIES and "id" in event.fields
    )


# ---------------------------------------------------------------- the events


@dataclass
class _Life:
    """One task, as its events tell it so far."""

    status: TaskStatus | None = NO_TASK
    revision: int = 0
    attempt: int = 0
    commit: str = ""  # the event that committed this run
    begun_anew: set[int] = field(default_factory=set)  # revisions at which an operator did that
    path: list[str] = field(default_factory=list)  # its moves, in words, for evidence
    was_forgotten: bool = False  # once; its id and its key may have been used again since


class _Lives:
    """Every task's life, and what is wrong in its order."""

    def __init__(self, recording: Recording) -> None:
        self.all: dict[str, _Life] = {}
        self.violations = [violation for event in recording.events for violation in self._follow(event)]

    def _follow(self, event: Event) -> Iterator[Violation]:
        fields = event.fields
        if "id" not in fields:
            return
        task, life = fields["id"], self.all.setdefault(fields["id"], _Life())
        start = life.status
        end = TaskStatus(fields["status"]) if "status" in fields else NO_TASK
        told = f"{event.move} at {event.id}"
        if event.move == "finish_task" and life.commit:
            yield CommittedTwice(task, f"by {life.commit} and again by {told} on {fields.get('node')}")
        elif end not in LEGAL_MOVES.get(event.move, {}).get(start, frozenset()):
            kind = LeftTerminalState if start in TERMINAL_STATES else IllegalMove
            yield kind(task, f"{told} made it {_word(end)}, and it was {_word(start)}")
        if end is NO_TASK:
            life.status, life.revision, life.attempt, life.commit = NO_TASK, 0, 0, ""
            life.was_forgotten = True
            return
        revision, attempt = int(fields["rev"]), int(fields["attempt"])
        if revision != life.revision + 1:
            yield RevisionSkipped(task, f"{told} is revision {revision}, the one before was {life.revision}")
        expected = life.attempt + (event.move in BEGINS_AN_ATTEMPT)
        if attempt != expected:
            yield AttemptOutOfOrder(task, f"{told} is about attempt {attempt}, where {expected} was due")
        life.status, life.revision, life.attempt = end, revision, attempt
        life.path.append(f"{revision} {told}")
        if event.move == "finish_task":
            life.commit = told
        elif event.move in BEGINS_ANEW:
            life.commit = told if end is TaskStatus.COMPLETED else ""  # a retry of what was completed, taken back
            life.begun_anew.add(revision)


def _word(status: TaskStatus | None) -> str:
    return "not there" if status is NO_TASK else status.value


# ---------------------------------------------------------------- tasks, answers, results


def _check_tasks(recording: Recording, lives: _Lives) -> Iterator[Violation]:
    tasks, keys = recording.ledger.tasks, {one.key: one for one in recording.submissions}
    of_key: dict[str, list[str]] = defaultdict(list)
    for task, fields in tasks.items():
        of_key[fields["idem"]].append(task)
        if fields["idem"] not in keys:
            yield TaskFromNowhere(task, f"its key is {fields['idem']!r}")
    for key, found in of_key.items():
        if len(found) > 1:
            yield DoneForOneKeyTwice(key, f"tasks {' and '.join(sorted(found))}")
    for one in recording.submissions:
        real = [task for task in dict.fromkeys(one.answers) if task in lives.all]  # the rest went with a failover
        is_forgotten = any(lives.all[task].was_forgotten for task in real)
        if len(real) > 1 and not is_forgotten:
            yield DoneForOneKeyTwice(one.key, f"clients were told {' and '.join(real)}")
        if one.answers and one.key not in of_key and not is_forgotten:
            yield TaskMissing(one.answers[-1], f"accepted under the key {one.key!r}, and no task has it")
    for task, life in lives.all.items():
        if life.status is not NO_TASK and task not in tasks:
            yield TaskMissing(task, f"its last event left it {_word(life.status)}, at revision {life.revision}")
    for task, fields in tasks.items():
        yield from _check_task(task, fields, recording)
        life = lives.all.get(task, _Life())
        if (life.revision, _word(life.status)) != (int(fields["rev"]), fields["status"]):
            yield RevisionSkipped(
                task,
                f"it is {fields['status']} at revision {fields['rev']}, its last event says {_word(life.status)} at "
                f"{life.revision}",
            )
        one = keys.get(fields["idem"])
        if one is not None and fields["status"] in TERMINAL_STATES and end_of(fields) not in one.ends:
            known = " or ".join(sorted(one.ends))
            yield WrongEnd(task, f"{end_of(fields)} ({fields.get('message', '')!r:.200}), where only {known} can be")


def _check_task(task: str, fields: Mapping[str, str], recording: Recording) -> Iterator[Violation]:
    records = recording.ledger.attempts.get(task, [])
    numbers = [record["number"] for record in records]
    if numbers != list(range(1, int(fields["attempt"]) + 1)):
        yield AttemptOutOfOrder(task, f"its records are of attempts {numbers}, and it is at {fields['attempt']}")
    if recording.healed and fields["status"] not in TERMINAL_STATES:
        yield NotFinished(task, f"it is {fields['status']}: {fields.get('why') or 'nobody says why'}")
    fence = int(fields.get("fence") or 0)
    commits = [record for record in records if record["outcome"] == "completed" and record["number"] > fence]
    if len(commits) > 1:
        yield CommittedTwice(task, f"by attempts {[record['number'] for record in commits]}")
    elif fields["status"] == TaskStatus.COMPLETED and [str(one["number"]) for one in commits] != [fields["committed"]]:
        yield CommitUnbacked(task, f"it says by {fields['committed']}, its attempts say {records}")


def _check_answers(recording: Recording, lives: _Lives, excused: frozenset[str]) -> Iterator[Violation]:
    """What has been shown to a client stays true, until an operator begins a new run."""
    shown: dict[tuple[str, int], Seen] = {}
    for one in recording.seen:
        life, now = lives.all.get(one.task, _Life()), recording.ledger.tasks.get(one.task)
        if one.task in excused or life.was_forgotten:
            continue  # the checker of what is left says whether its key was healed
        before = shown.setdefault((one.task, one.revision), one)
        if before != one:
            yield AnswerTakenBack(one.task, f"revision {one.revision} was shown as {before} and as {one}")
        if one.status not in TERMINAL_STATES or now is None:
            continue
        revision = int(now["rev"])
        if revision == one.revision:
            if now["status"] != one.status or _digests(now.get("result")) != (one.sha256, one.input_sha256):
                yield AnswerTakenBack(one.task, f"shown as {one}, and it is {now['status']} with {now.get('result')}")
        elif one.revision + 1 not in life.begun_anew:
            yield AnswerTakenBack(
                one.task,
                f"shown as {one.status} at revision {one.revision}, and it is {now['status']} at {revision}: "
                + ", ".join(life.path),
            )


def _digests(result: str | None) -> tuple[str, str]:
    if not result:
        return "", ""
    told = json.loads(result)
    return told["sha256"], told.get("input_sha256", "")


def _check_results(recording: Recording) -> Iterator[Violation]:
    wanted = {task: one.input_sha256 for one in recording.submissions for task in one.answers}
    by_key = {one.key: one.input_sha256 for one in recording.submissions}
    told: dict[str, str] = {}
    for task, fields in recording.ledger.tasks.items():
        wanted.setdefault(task, by_key.get(fields["idem"], ""))
        if fields.get("result"):
            told[task], found = _digests(fields["result"])
            if found != wanted[task]:
                yield WrongInput(task, f"its record says that input {found or 'none'} was read, not {wanted[task]}")
    for one in recording.seen:
        if one.sha256:
            told.setdefault(one.task, one.sha256)  # of a task that has been forgotten, or begun anew, since
        if one.sha256 and one.task in wanted and one.input_sha256 != wanted[one.task]:
            yield WrongInput(
                one.task, f"a client was shown a result of {one.input_sha256 or 'none'}, not {wanted[one.task]}"
            )
    for artifact in recording.artifacts:
        if not artifact.is_of_own_input:
            yield WrongInput(artifact.task, "the pixels around the mask are not its input's")
        if artifact.sha256 != told.get(artifact.task, artifact.sha256):
            yield WrongResult(artifact.task, f"{artifact.sha256 or 'no file'} is there, not {told[artifact.task]}")


# ---------------------------------------------------------------- counters and keys


def _check_counters(recording: Recording) -> Iterator[Violation]:
    ledger, values = recording.ledger, recording.ledger.values
    leases = len(values.get("leases", ()))
    held = sum(len(members) for members in ledger.sets("held:").values())
    running = sum(fields["status"] == TaskStatus.PROCESSING for fields in ledger.tasks.values())
    counted = int(values.get("counts", {}).get(TaskStatus.PROCESSING, 0))
    for name, number in (("held by nodes", held), ("tasks in processing", running), ("counted as processing", counted)):
        if number != leases:
            yield CounterOff("live leases", f"{leases} leases, and {number} {name}")
    happened = Counter(event.move for event in recording.events if "id" in event.fields)
    failed = sum(event.fields.get("status") == TaskStatus.FAILED for event in recording.events if "id" in event.fields)
    totals = values.get("totals", {})
    for name, number in (
        ("submitted", happened["submit_task"]),
        ("claimed", happened["claim_tasks"]),
        ("completed", happened["finish_task"]),
        ("cancelled", happened["cancel_task"]),
        ("failed", failed),
    ):
        if int(totals.get(name, 0)) != number:
            yield CounterOff(f"the total of {name}", f"{totals.get(name, 0)}, and {number} events say so")
    done = Counter(event.fields["node"] for event in recording.events if event.move == "finish_task")
    for node, fields in ledger.nodes.items():
        if int(fields.get("completed", 0)) != done[node]:
            yield CounterOff(f"completed on {node}", f"{fields.get('completed', 0)}, and {done[node]} events say so")


def _check_keys(recording: Recording, root: str = "{lcq}:") -> Iterator[Violation]:
    for key, is_mortal in recording.mortal.items():
        name = key.removeprefix(root)
        if not key.startswith(root) or class_of(name) is None:
            yield KeyWithoutOwner(key, "it belongs to no known class of keys")
        elif name.startswith(EXPIRING) and not is_mortal:
            yield KeyWithoutExpiry(key, "it has no time to live")
        elif is_mortal and not name.startswith(EXPIRING):
            yield KeyWillVanish(key, "it has a time to live")
    tasks = recording.ledger.tasks
    for name, value in recording.ledger.values.items():
        kind, _, owner = name.partition(":")
        if (kind == "attempts" and owner not in tasks) or (kind == "idem" and value not in tasks):
            yield KeyWithoutOwner(name, "its task is not there")
    try:
        compare(recording.ledger)
    except (AssertionError, KeyError, ValueError) as wrong:
        yield LedgerBroken("the ledger", " ".join(f"{type(wrong).__name__}: {wrong}".split())[:2000])


def _check_quiet(recording: Recording) -> Iterator[Violation]:
    for stretch in recording.quiet:
        for event in recording.events:
            is_within = _place(stretch.after) < _place(event.id) <= _place(stretch.until)
            is_alarm = event.move in LOST_BY_SILENCE or event.fields.get("status") in ("suspect", "quarantined")
            is_alarm = is_alarm and event.move not in WAYS_BACK
            is_alarm = is_alarm or (event.move == "caution_device" and event.fields.get("on") == "1")
            if is_within and is_alarm:
                subject = event.fields.get("node") or event.fields.get("from") or event.fields.get("id", "")
                yield FalseAlarm(subject, f"{event.move} at {event.id}: {event.fields.get('why', '')}")


def _place(event_id: str) -> tuple[int, int]:
    """Where an event stands in the stream."""
    milliseconds, _, number = event_id.partition("-")
    return int(milliseconds), int(number or 0)
