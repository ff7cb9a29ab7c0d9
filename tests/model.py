"""What the state should be, in plain Python: the rules of docs/states.md once more, without Redis."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field

from lcq.labels import satisfies, split_lane
from lcq.models import ErrorClass, Task, TaskPriority, TaskStatus
from lcq.routing import EaseStep
from lcq.state.manager import RULES
from lcq.state.scripts import BAND_SPANS, POISON_DEATHS, WARM_SPAN_S

PENDING, QUEUED, PROCESSING = TaskStatus.PENDING, TaskStatus.QUEUED, TaskStatus.PROCESSING
COMPLETED, FAILED, CANCELLED = TaskStatus.COMPLETED, TaskStatus.FAILED, TaskStatus.CANCELLED
LOOKED_AT = 16  # how deep a claim looks into a lane, besides what it wants
SHARED_LOOKS = 4  # tasks of a user in a lane, that are looked at where its turn has come over several queues
JOBS = 8  # of a user, and tasks of each, that are looked at for the one whose turn it is
Turn = tuple[str, TaskPriority, str]  # owner of the lane, band, user


class Refused(Exception):
    """The model's word for a move that is not legal."""


class Stale(Exception):
    """The model's word for a boot that is not the node's."""


@dataclass
class ModelAttempt:
    node: str
    outcome: str = "running"
    code: str = ""
    eased: tuple[str, ...] = ()
    result_of: int = 0


@dataclass
class ModelTask:
    task: Task
    queue: str
    pinned: str
    cost: float
    key: str
    priority: TaskPriority
    status: TaskStatus = QUEUED
    rev: int = 1
    attempts: list[ModelAttempt] = field(default_factory=list)
    retries: int = 0
    deaths: int = 0
    fence: int = 0
    node: str = ""
    avoid: str = ""
    error_class: str = ""
    code: str = ""
    eased: tuple[str, ...] = ()
    tag: float | None = None
    requires: dict[str, str] | None = None  # since a reroute that said so
    place: int = 0  # in the line of its job
    turn: Turn | None = None  # while it waits

    @property
    def id(self) -> str:
        return self.task.id

    @property
    def score(self) -> float | None:
        return None if self.tag is None else self.tag + BAND_SPANS[self.priority]

    @property
    def asked(self) -> Task:
        """The task with what it requires now."""
        return self.task if self.requires is None else self.task.model_copy(update={"requires": self.requires})

    @property
    def lane(self) -> tuple[str, str]:
        return (f"@{self.pinned}" if self.pinned else self.queue, self.asked.lane)

    def attempt(self, number: int, node: str) -> ModelAttempt | None:
        """That attempt, if there was one and it was this node's."""
        if not 1 <= number <= len(self.attempts) or self.attempts[number - 1].node != node:
            return None
        return self.attempts[number - 1]

    def runs(self, number: int, node: str) -> bool:
        return self.status == PROCESSING and number == len(self.attempts) and self.node == node


def _by_score(t: ModelTask) -> tuple[float, str]:
    assert t.tag is not None
    return (t.tag + BAND_SPANS[t.priority], t.id)


@dataclass
class ModelNode:
    boot: str
    lanes: tuple[str, ...]
    queues: tuple[str, ...]
    labels: dict[str, str] = field(default_factory=dict)
    status: str = "online"
    drained: bool = False
    retired: list[str] = field(default_factory=list)
    completed: int = 0
    failed: int = 0

    def reads(self, lane: str) -> bool:
        base, requires = split_lane(lane)
        return base in self.lanes and satisfies(self.labels, requires)

    def serves(self, lane: tuple[str, str]) -> bool:
        return self.status == "online" and lane[0] in self.queues and self.reads(lane[1])


@dataclass
class Shared:
    """What users have had of the devices that serve the same several queues."""

    virtual_time: float = 0.0
    finishes: dict[tuple[TaskPriority, str], float] = field(default_factory=dict)
    passed: dict[str, float] = field(default_factory=dict)  # by queue, how much of higher bands its head has let pass

    def start(self, t: ModelTask) -> float:
        return max(self.virtual_time, self.finishes.get((t.priority, t.task.user_id), 0.0))

    def note(self, queue: str, t: ModelTask, heads: dict[str, ModelTask]) -> None:
        self.virtual_time = self.start(t)
        self.finishes[t.priority, t.task.user_id] = self.virtual_time + t.cost
        self.passed[queue] = max(0.0, self.passed.get(queue, 0.0) - t.cost)
        for other, head in heads.items():
            if other != queue and BAND_SPANS[head.priority] > BAND_SPANS[t.priority]:
                self.passed[other] = self.passed.get(other, 0.0) + t.cost


class Model:
    """All tasks, nodes, queues and counts of one cluster."""

    def __init__(self) -> None:
        self.tasks: dict[str, ModelTask] = {}
        self.nodes: dict[str, ModelNode] = {}
        self.paused: set[str] = set()
        self.totals: Counter[str] = Counter()
        self.virtual_time: dict[str, float] = {}
        self.finishes: dict[tuple[str, TaskPriority, str], float] = {}
        self.turns: dict[Turn, dict[str, float]] = {}  # by job, the seconds it has had
        self.shared: dict[tuple[str, ...], Shared] = {}  # by the queues that devices serve

    def of(self, *statuses: TaskStatus) -> list[ModelTask]:
        """The tasks in these states, oldest first."""
        return [self.tasks[task_id] for task_id in sorted(self.tasks) if self.tasks[task_id].status in statuses]

    def held(self, node: str) -> list[ModelTask]:
        return [t for t in self.of(PROCESSING) if t.node == node]

    # ------------------------------------------------------------ the ground of all moves

    def _to(self, t: ModelTask, status: TaskStatus, queue: str = "", pinned: str | None = None) -> None:
        queue, left = queue or t.queue, t.queue
        was_queued, t.status = t.status == QUEUED, status
        if t.turn is not None:
            turn, t.turn = t.turn, None
            if not any(other.turn == turn and other.task.job == t.task.job for other in self.tasks.values()):
                del self.turns[turn][t.task.job or ""]
        if was_queued and not any(other.queue == left for other in self.of(QUEUED) if other is not t):
            self.virtual_time.pop(left, None)
            for book in [book for book in self.finishes if book[0] == left]:
                del self.finishes[book]
        t.queue, t.pinned = queue, t.pinned if pinned is None else pinned
        t.rev += 1
        if status == QUEUED:
            self._rank(t)
            self._join(t)

    def _join(self, t: ModelTask) -> None:
        t.turn = (t.lane[0], t.priority, t.task.user_id)
        jobs = self.turns.setdefault(t.turn, {})
        jobs.setdefault(t.task.job or "", min(jobs.values(), default=0.0) + t.cost / 2)

    def _rank(self, t: ModelTask) -> None:
        now = self.virtual_time.get(t.queue, 0.0)
        if t.tag is None:
            book = (t.queue, t.priority, t.task.user_id)
            t.tag = max(now, self.finishes.get(book, 0.0))
            self.finishes[book] = t.tag + t.cost
            self.totals["ranked"] += 1
            t.place = self.totals["ranked"]
        else:
            t.tag = min(t.tag, now)

    def _fail(
        self, t: ModelTask, error_class: str, code: str, *, retry: bool, death: bool, avoid: bool, wait: bool
    ) -> None:
        t.attempts[-1].outcome, t.attempts[-1].code = "failed", code
        node, t.error_class, t.code = t.node, error_class, code
        self._blame(node, error_class)
        t.deaths += death
        t.node = ""
        if death and t.deaths >= POISON_DEATHS:
            t.code = "poison"
        elif retry and t.retries < t.task.max_retries:
            t.retries += 1
            t.avoid = node if avoid else ""
            self.totals["retried"] += 1
            self._to(t, PENDING if wait else QUEUED)
            return
        t.node = node
        self.totals["failed"] += 1
        self._to(t, FAILED)

    def _blame(self, node: str, error_class: str) -> None:
        if error_class != ErrorClass.BAD_INPUT and node in self.nodes:
            self.nodes[node].failed += 1

    def _ease(self, t: ModelTask, error_class: str, code: str, easier: EaseStep, *, death: bool) -> None:
        t.attempts[-1].outcome, t.attempts[-1].code = "failed", code
        t.error_class, t.code = error_class, code
        self._blame(t.node, error_class)
        t.deaths += death
        t.node, t.avoid = "", t.node if easier.avoid else ""
        t.eased = (*t.eased, easier.ease)
        self.totals["eased"] += 1
        self._to(t, QUEUED, easier.queue)

    def _lapse(self, t: ModelTask, code: str) -> None:
        self.totals["expired"] += 1
        if t.attempts[-1].result_of:
            self._hand_back(t)
            return
        self._fail(t, ErrorClass.CRASH, code, retry=True, death=False, avoid=True, wait=False)

    def _hand_back(self, t: ModelTask) -> None:
        t.attempts[-1].outcome = "handed_back"
        t.node = ""
        self._to(t, QUEUED)

    def _fenced(self) -> Refused:
        self.totals["fenced"] += 1
        return Refused()

    # ------------------------------------------------------------ tasks

    def submit(self, task: Task, queue: str, pinned: str, cost: float, key: str, *, later: bool) -> None:
        t = ModelTask(task, queue, pinned, cost, key, task.priority, PENDING if later else QUEUED)
        self.tasks[task.id] = t
        self.totals["submitted"] += 1
        if not later:
            self._rank(t)
            self._join(t)

    def due(self, ids: Iterable[str]) -> int:
        moved = sorted(ids)
        for task_id in moved:
            self._to(self.tasks[task_id], QUEUED)
        return len(moved)

    def cancel(self, t: ModelTask) -> tuple[str, int]:
        if t.status.is_terminal:
            raise Refused
        node = t.node
        if t.status == PROCESSING:
            t.attempts[-1].outcome = "cancelled"
        t.node = ""
        self.totals["cancelled"] += 1
        self._to(t, CANCELLED)
        return node, len(t.attempts)

    def retry(self, t: ModelTask, queue: str) -> None:
        if not t.status.is_terminal:
            raise Refused
        self._anew(t)
        t.node = t.avoid = ""
        t.tag = None
        self._to(t, QUEUED, queue)

    def reroute(self, t: ModelTask, queue: str, pinned: str, requires: dict[str, str] | None = None) -> tuple[str, int]:
        if t.status == COMPLETED:
            raise Refused
        node = ""
        if t.status == PROCESSING:
            node, t.fence = t.node, len(t.attempts)
            t.attempts[-1].outcome = "rerouted"
        elif t.status.is_terminal:
            self._anew(t)
        t.node = t.avoid = ""
        t.tag = None
        t.requires = t.requires if requires is None else requires
        self._to(t, QUEUED, queue, pinned)
        return node, len(t.attempts)

    def _anew(self, t: ModelTask) -> None:
        t.fence, t.retries, t.deaths, t.error_class, t.code = len(t.attempts), 0, 0, "", ""
        t.eased = ()

    def prioritise(self, t: ModelTask, priority: TaskPriority) -> None:
        if t.status.is_terminal:
            raise Refused
        if t.priority == priority:
            return
        t.priority, t.tag = priority, None
        self._to(t, t.status)

    def forget(self, ids: Iterable[str]) -> int:
        gone = list(ids)
        for task_id in gone:
            del self.tasks[task_id]
        return len(gone)

    # ------------------------------------------------------------ attempts

    def claim(self, node: str, boot: str, want: int, warm: Iterable[str]) -> list[tuple[str, int]]:
        known = self.nodes.get(node)
        if known is None or known.boot != boot:
            raise Stale
        if known.status != "online":
            return []
        granted: list[tuple[str, int]] = []
        shared = self.shared.setdefault(known.queues, Shared()) if len(known.queues) > 1 else None

        def grant_from(owners: Iterable[str], shared: Shared | None) -> None:
            while len(granted) < want:
                found = {owner: self._candidates(node, known, owner, want) for owner in owners}
                heads = {owner: some[self._best(some, set(warm))] for owner, some in found.items() if some}
                if not heads:
                    return
                owner, head = next(iter(heads.items()))
                if shared and len(heads) > 1:
                    owner, head = self._choose(shared, heads, found)
                t = self._start(node, known, owner, head, set(warm))
                if shared:
                    shared.note(owner, t, heads)
                granted.append((t.id, len(t.attempts)))

        grant_from([f"@{node}"], None)
        grant_from(known.queues, shared)
        self.totals["claimed"] += len(granted)
        return granted

    def _choose(
        self, shared: Shared, heads: dict[str, ModelTask], found: dict[str, list[ModelTask]]
    ) -> tuple[str, ModelTask]:
        """Of which queue what is started: of the highest band, or of one that has let enough pass; there the user's who
        has had least; of those that are even, the first queue's."""
        highest = min(BAND_SPANS[t.priority] for t in heads.values())
        due = []
        for queue, head in heads.items():
            if BAND_SPANS[head.priority] - shared.passed.get(queue, 0.0) > highest:
                continue
            first: dict[str, ModelTask] = {}
            for t in self._first_of_users(queue, head.priority, found[queue]):
                first.setdefault(t.task.user_id, t)
            by_turn = sorted(first.values(), key=lambda t: (shared.start(t), t.task.user_id))
            due.append((queue, min((head, *by_turn[:1]), key=shared.start)))
        return min(due, key=lambda one: shared.start(one[1]))

    def _first_of_users(self, queue: str, band: TaskPriority, able: list[ModelTask]) -> list[ModelTask]:
        """Of the first few tasks of each user in each lane, those that the node may take, in order."""
        seen: Counter[tuple[str, str]] = Counter()
        found = []
        for t in sorted(self.of(QUEUED), key=lambda t: (t.score or 0.0, t.id)):
            if t.lane[0] == queue and t.priority == band:
                seen[t.lane[1], t.task.user_id] += 1
                if seen[t.lane[1], t.task.user_id] <= SHARED_LOOKS and t in able:
                    found.append(t)
        return found

    def _candidates(self, node: str, known: ModelNode, owner: str, want: int) -> list[ModelTask]:
        """What this node may take of one owner's lanes, in order."""
        found: list[ModelTask] = []
        for name in {t.lane[1] for t in self.of(QUEUED) if known.reads(t.lane[1])}:
            lane = sorted((t for t in self.of(QUEUED) if t.lane == (owner, name)), key=_by_score)
            found += [t for t in lane[: LOOKED_AT + want] if self._takes(node, t)]
        return sorted(found, key=_by_score)

    def _start(self, node: str, known: ModelNode, owner: str, head: ModelTask, warm: set[str]) -> ModelTask:
        """The task that gets this place, now running."""
        t = self._whose_turn(owner, head, node, known, warm)
        if t is not head:
            t.tag, head.tag = head.tag, t.tag
        turn = t.turn
        t.attempts.append(ModelAttempt(node, eased=t.eased))
        t.node, t.avoid = node, ""
        self._to(t, PROCESSING)
        if turn is not None and (t.task.job or "") in self.turns[turn]:
            self.turns[turn][t.task.job or ""] += t.cost
        if any(other.queue == t.queue for other in self.of(QUEUED)):
            self.virtual_time[t.queue] = max(self.virtual_time.get(t.queue, 0.0), t.tag or 0.0)
        return t

    def _takes(self, node: str, t: ModelTask) -> bool:
        elsewhere = any(other.serves(t.lane) for peer, other in self.nodes.items() if peer != node)
        return t.queue not in self.paused and not (t.avoid == node and elsewhere)

    def _whose_turn(self, owner: str, head: ModelTask, node: str, known: ModelNode, warm: set[str]) -> ModelTask:
        """Which of the user's tasks gets the place of the head."""
        assert head.turn is not None
        first, latest = None, 0.0
        for job, tag in sorted(self.turns[head.turn].items(), key=lambda pair: (pair[1], pair[0]))[:JOBS]:
            if first is not None and tag > latest:
                break
            line = [t for t in self.of(QUEUED) if t.turn == head.turn and (t.task.job or "") == job]
            line = sorted(line, key=lambda t: (t.place, t.id))[:JOBS]
            able = (t for t in line if t is head or (known.reads(t.lane[1]) and self._takes(node, t)))
            if (one := next(able, None)) is not None:
                if one.task.model in warm or head.task.model not in warm:
                    return one
                if first is None:
                    first, latest = one, tag + WARM_SPAN_S
        return first or head

    def _best(self, found: list[ModelTask], warm: set[str]) -> int:
        head = found[0]
        for place, t in enumerate(found):
            near = (t.score or 0) - (head.score or 0) <= WARM_SPAN_S
            if near and t.priority == head.priority and t.task.model in warm:
                return place
        return 0

    def finish(self, t: ModelTask, number: int, node: str) -> None:
        record = t.attempt(number, node)
        if record and record.outcome == "completed":
            return
        if t.status.is_terminal or not record or number <= t.fence:
            raise self._fenced()
        if not t.runs(number, node):
            self.totals["late"] += 1
            if t.status == PROCESSING:
                t.attempts[-1].outcome = "superseded"
        record.outcome = "completed"
        record.code = ""
        t.node, t.error_class, t.code = node, "", ""
        if node in self.nodes:
            self.nodes[node].completed += 1
        self.totals["completed"] += 1
        self._to(t, COMPLETED)

    def retake(self, t: ModelTask, number: int, node: str) -> int:
        record = t.attempt(number, node)
        if t.status.is_terminal or not record:
            raise Refused
        newest = t.attempts[-1]
        if t.status == PROCESSING and t.node == node and number in (len(t.attempts), newest.result_of):
            return len(t.attempts)
        if number <= t.fence and not (t.fence < len(t.attempts) and t.attempts[t.fence].result_of == number):
            raise Refused
        self.totals["late"] += 1
        if t.status == PROCESSING:
            newest.outcome = "superseded"
        t.fence = len(t.attempts)
        t.attempts.append(ModelAttempt(node, eased=record.eased, result_of=record.result_of or number))
        t.node, t.avoid = node, ""
        self._to(t, PROCESSING)
        return len(t.attempts)

    def fail(
        self, t: ModelTask, number: int, node: str, error_class: ErrorClass, code: str, easier: EaseStep | None = None
    ) -> None:
        if not t.runs(number, node):
            record = t.attempt(number, node)
            if record and record.outcome == "failed" and record.code == code:
                return
            raise self._fenced()
        rule = RULES[error_class]
        if easier is not None:
            self._ease(t, error_class, code, easier, death=rule.death)
            return
        self._fail(
            t, error_class, code, retry=rule.retry, death=rule.death, avoid=rule.avoid, wait=not rule.at_once
        )  # fmt: skip

    def release(self, t: ModelTask, number: int, node: str) -> None:
        if not t.runs(number, node):
            record = t.attempt(number, node)
            if record and record.outcome == "handed_back":
                return
            raise self._fenced()
        self._hand_back(t)

    def expire(self, ids: Iterable[str]) -> set[tuple[str, str]]:
        ended = {(task_id, self.tasks[task_id].node) for task_id in ids}
        for task_id, _ in ended:
            self._lapse(self.tasks[task_id], "lease_expired")
        return ended

    # ------------------------------------------------------------ nodes

    def hello(
        self, node: str, boot: str, lanes: tuple[str, ...], queues: tuple[str, ...], labels: dict[str, str]
    ) -> str:
        known = self.nodes.get(node)
        if known is None:
            self.nodes[node] = ModelNode(boot, lanes, queues, labels)
            return "online"
        if boot in known.retired:
            raise Stale
        if known.boot != boot:
            for t in self.held(node):
                self._lapse(t, "node_restarted")
            known.retired = [known.boot, *known.retired][:8]
        known.boot, known.lanes, known.queues, known.labels = boot, lanes, queues, labels
        known.status = "draining" if known.drained else "online"
        return known.status

    def beat(
        self, node: str, boot: str, listed: list[tuple[str, int]], *, late: bool
    ) -> tuple[str, list[tuple[str, int]]]:
        known = self._speaks(node, boot)
        if known.status == "offline":
            known.status = "draining" if known.drained else "online"
        mine = [(i, n) for i, n in listed if i in self.tasks and self.tasks[i].runs(n, node)]
        for t in self.held(node):
            if late and t.id not in {i for i, _ in mine} and not t.attempts[-1].result_of:
                self._hand_back(t)
        return known.status, [one for one in listed if one not in mine]

    def _speaks(self, node: str, boot: str) -> ModelNode:
        known = self.nodes.get(node)
        if known is None or known.boot != boot:
            raise Stale
        return known

    def leave(self, node: str, boot: str) -> None:
        known = self._speaks(node, boot)
        for t in self.held(node):
            self._hand_back(t)
        known.status = "offline"

    def lose(self, node: str, boot: str) -> int | None:
        known = self.nodes.get(node)
        if known is None or known.boot != boot or known.status == "offline":
            return None
        known.status = "offline"
        held = self.held(node)
        for t in held:
            self._lapse(t, "node_lost")
        return len(held)

    def drain(self, node: str) -> None:
        if self.nodes[node].status != "online":
            raise Refused
        self.nodes[node].status, self.nodes[node].drained = "draining", True

    def activate(self, node: str) -> None:
        known = self.nodes[node]
        if known.status != "draining" and not (known.status == "offline" and known.drained):
            raise Refused
        if known.status == "draining":
            known.status = "online"
        known.drained = False

    def forget_nodes(self) -> int:
        gone = [name for name, known in self.nodes.items() if known.status == "offline" and not self.held(name)]
        for name in gone:
            del self.nodes[name]
        return len(gone)
