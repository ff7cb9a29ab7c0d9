"""What an operator can do to tasks, queues and nodes: each act with the ids it was meant for, and its risk.

An act is made at the key press, from the rows as they were shown. Whatever moves on the screen until it is
confirmed, it goes to those ids and carries the revisions seen: a task that has moved on since is refused.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field

from lcq.models import TaskPriority, TaskStatus
from lcq.wire import BulkAnswer, Refusal
from tui.commands import Tier
from tui.desk import MANY
from tui.source import Commander
from tui.store import NodeRow, TaskRow
from tui.text import basename, counted, cut

_IDS_TOLD = 6


@dataclass(frozen=True)
class Act:
    """Something to be done: ``title`` says what, ``lines`` what it means, ``run`` does it."""

    title: str  # "Cancel 3 tasks"
    done: str  # "cancelled"
    ids: tuple[str, ...]
    tier: Tier
    run: Callable[[Commander], Awaitable[BulkAnswer]] = field(compare=False)
    lines: tuple[str, ...] = ()
    go: str = "Yes, do it"

    @property
    def asks(self) -> bool:
        return self.tier >= Tier.COSTLY

    def made_to_ask(self) -> Act:
        """The same act, which will ask whatever its tier."""
        return Act(self.title, self.done, self.ids, Tier.COSTLY, self.run, self.lines, self.go)


def told(act: Act, answer: BulkAnswer) -> tuple[str, bool]:
    """What became of the act in one line, and whether all of it was done."""
    parts = []
    if answer.done:
        subject = answer.done[0] if len(answer.done) == 1 else counted(len(answer.done), "task")
        parts.append(f"{act.done} {subject}")
    if answer.refused:
        first = answer.refused[0]
        reason = first.message + (f" ({first.hint})" if first.hint else "")
        more = f" and {len(answer.refused) - 1:,} more" if len(answer.refused) > 1 else ""
        parts.append(f"refused {first.id}{more}: {reason}")
    return "; ".join(parts) or f"{act.title}: nothing to do", not answer.refused


def _described(rows: Sequence[TaskRow]) -> tuple[str, ...]:
    """The rows an act is meant for, so that the operator sees on what the act will fall."""
    by_state = Counter(row.status for row in rows)
    lines = [", ".join(f"{count:,} {status}" for status, count in by_state.items())] if len(rows) > 1 else []
    lines += [
        f"{row.id}  {row.status}  {row.queue}  {cut(basename(row.image), 40)}" for row in rows[:_IDS_TOLD]
    ]
    if len(rows) > _IDS_TOLD:
        lines.append(f"… and {len(rows) - _IDS_TOLD:,} more")
    return tuple(lines)


def _tier(rows: Sequence[TaskRow], *, costly: bool) -> Tier:
    return Tier.COSTLY if costly or len(rows) > MANY else Tier.UNDOABLE


def _pinned(rows: Sequence[TaskRow]) -> tuple[tuple[str, ...], tuple[int, ...]]:
    return tuple(row.id for row in rows), tuple(row.revision for row in rows)


def retry(rows: Sequence[TaskRow]) -> Act:
    ids, revisions = _pinned(rows)
    return Act(
        f"Retry {counted(len(ids), 'task')}", "retried", ids, _tier(rows, costly=False),
        lambda commander: commander.retry(ids, revisions=revisions), _described(rows), "Yes, retry",
    )  # fmt: skip


def cancel(rows: Sequence[TaskRow]) -> Act:
    ids, revisions = _pinned(rows)
    running = sum(row.status is TaskStatus.PROCESSING for row in rows)
    lines = _described(rows)
    if running:
        lines += (f"{counted(running, 'task')} running now: the work done so far is lost",)
    return Act(
        f"Cancel {counted(len(ids), 'task')}", "cancelled", ids, Tier.COSTLY,
        lambda commander: commander.cancel(ids, revisions=revisions), lines, "Yes, cancel",
    )  # fmt: skip


def move(rows: Sequence[TaskRow], *, queue: str = "", node: str = "") -> Act:
    ids, revisions = _pinned(rows)
    running = sum(row.status is TaskStatus.PROCESSING for row in rows)
    lines = _described(rows)
    if running:
        lines += (f"{counted(running, 'task')} running now: the attempt is cancelled first",)
    where = f"node {node}" if node else queue
    return Act(
        f"Move {counted(len(ids), 'task')} to {where}", f"moved to {where}:", ids,
        _tier(rows, costly=running > 0),
        lambda commander: commander.reroute(ids, revisions=revisions, queue=queue, node=node),
        lines, "Yes, move",
    )  # fmt: skip


def change_priority(rows: Sequence[TaskRow], steps: int) -> Act:
    """Each of the rows ``steps`` bands more urgent than it was shown."""
    wanted: dict[TaskPriority, list[TaskRow]] = defaultdict(list)
    for row in rows:
        target = row.priority.raised(steps)
        if target is not row.priority:
            wanted[target].append(row)
    ids = tuple(row.id for group in wanted.values() for row in group)

    async def run(commander: Commander) -> BulkAnswer:
        done: list[str] = []
        refused: list[Refusal] = []
        for priority, group in wanted.items():
            group_ids, revisions = _pinned(group)
            answer = await commander.prioritise(group_ids, priority, revisions=revisions)
            done += answer.done
            refused += answer.refused
        return BulkAnswer(done=tuple(done), refused=tuple(refused))

    verb = "Raise" if steps > 0 else "Lower"
    level = f"now {next(iter(wanted))}:" if len(wanted) == 1 else f"{verb.lower()}d the priority of"
    return Act(
        f"{verb} the priority of {counted(len(ids), 'task')}", level, ids, _tier(rows, costly=False), run,
        _described(rows), f"Yes, {verb.lower()}",
    )  # fmt: skip


def _one(subject: str, call: Callable[[Commander], Awaitable[None]]) -> Callable[[Commander], Awaitable[BulkAnswer]]:
    async def run(commander: Commander) -> BulkAnswer:
        await call(commander)
        return BulkAnswer(done=(subject,))

    return run


def pause(queue: str, reason: str) -> Act:
    run = _one(queue, lambda commander: commander.pause(queue, reason=reason))
    return Act(f"Pause {queue}", "paused", (queue,), Tier.UNDOABLE, run)


def resume(queue: str) -> Act:
    run = _one(queue, lambda commander: commander.resume(queue))
    return Act(f"Resume {queue}", "resumed", (queue,), Tier.UNDOABLE, run)


def drain(row: NodeRow, reason: str) -> Act:
    node, running = row.id, row.running
    run = _one(node, lambda commander: commander.drain(node, reason=reason))
    return Act(f"Drain {node}", "draining", (node,), Tier.COSTLY, run, drain_lines(running), "Yes, drain")


def drain_lines(running: int) -> tuple[str, ...]:
    work = f"It finishes {counted(running, 'running task')} and" if running else "It is idle now, and"
    return (f"{work} takes nothing new until it is activated.",)


def activate(node: str) -> Act:
    run = _one(node, lambda commander: commander.activate(node))
    return Act(f"Activate {node}", "activated", (node,), Tier.UNDOABLE, run)
