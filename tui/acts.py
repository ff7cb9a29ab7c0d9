"""What an operator can do to tasks, queues and nodes: each act with the ids it was meant for, and its risk.

An act is made at the key press, from the rows as they were shown. Whatever moves on the screen until it is
confirmed, it goes to those ids and carries the revisions seen: a task that has moved on since is refused.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Awaitable, Callable, Collection, Sequence
from dataclasses import dataclass, field, replace

from lcq.models import TERMINAL_STATES, TaskPriority, TaskStatus
from lcq.wire import BulkAnswer, Refusal
from tui.commands import Tier
from tui.desk import MANY
from tui.source import Commander
from tui.store import NodeRow, TaskRow
from tui.text import basename, counted, cut

_IDS_TOLD = 6
_MOVABLE = frozenset(TaskStatus) - {TaskStatus.COMPLETED}
_OPEN = frozenset(TaskStatus) - TERMINAL_STATES


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
    skipped: str = ""  # which of the rows it leaves alone, and why

    @property
    def asks(self) -> bool:
        return self.tier >= Tier.COSTLY

    def made_to_ask(self) -> Act:
        """The same act, which will ask whatever its tier."""
        return replace(self, tier=Tier.COSTLY)


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
    lines += [f"{row.id}  {row.status}  {row.queue}  {cut(basename(row.image), 40)}" for row in rows[:_IDS_TOLD]]
    if len(rows) > _IDS_TOLD:
        lines.append(f"… and {len(rows) - _IDS_TOLD:,} more")
    return tuple(lines)


def _split(rows: Sequence[TaskRow], legal: Collection[TaskStatus], past: str) -> tuple[list[TaskRow], str]:
    """The rows an act can be done to, and a word on the others. The scheduler looks again and has the last say."""
    fit = [row for row in rows if row.status in legal]
    others = Counter(row.status for row in rows if row.status not in legal)
    named = ", ".join(f"{count:,} {status}" for status, count in others.items())
    return fit, f"cannot be {past}: {named}" if others else ""


def _act(
    verb: str,
    done: str,
    rows: Sequence[TaskRow],
    skipped: str,
    run: Callable[[Commander], Awaitable[BulkAnswer]],
    *,
    costly: bool = False,
    warning: str = "",
    object_: str = "",
) -> Act:
    lines = _described(rows) + tuple(filter(None, (warning, f"Left alone: {skipped}" if skipped else "")))
    tier = Tier.COSTLY if costly or len(rows) > MANY else Tier.UNDOABLE
    title = f"{verb} {counted(len(rows), 'task')}{object_}"
    ids = tuple(row.id for row in rows)
    return Act(title, done, ids, tier, run, lines, f"Yes, {verb.split()[0].lower()}", skipped)


def _pinned(rows: Sequence[TaskRow]) -> tuple[tuple[str, ...], tuple[int, ...]]:
    return tuple(row.id for row in rows), tuple(row.revision for row in rows)


def retry(rows: Sequence[TaskRow]) -> Act:
    fit, skipped = _split(rows, TERMINAL_STATES, "retried")
    ids, revisions = _pinned(fit)
    return _act("Retry", "retried", fit, skipped, lambda commander: commander.retry(ids, revisions=revisions))


def cancel(rows: Sequence[TaskRow]) -> Act:
    fit, skipped = _split(rows, _OPEN, "cancelled")
    ids, revisions = _pinned(fit)
    running = sum(row.status is TaskStatus.PROCESSING for row in fit)
    return _act(
        "Cancel", "cancelled", fit, skipped, lambda commander: commander.cancel(ids, revisions=revisions),
        costly=True, warning=f"{running:,} running now: the work done so far is lost" if running else "",
    )  # fmt: skip


def move(rows: Sequence[TaskRow], *, queue: str = "", node: str = "") -> Act:
    fit, skipped = _split(rows, _MOVABLE, "moved")
    ids, revisions = _pinned(fit)
    running = sum(row.status is TaskStatus.PROCESSING for row in fit)
    where = f"node {node}" if node else queue
    return _act(
        "Move", f"moved to {where}:", fit, skipped,
        lambda commander: commander.reroute(ids, revisions=revisions, queue=queue, node=node),
        costly=running > 0, object_=f" to {where}",
        warning=f"{running:,} running now: the attempt is cancelled first" if running else "",
    )  # fmt: skip


def change_priority(rows: Sequence[TaskRow], steps: int) -> Act:
    """Each of the rows ``steps`` bands more urgent than it was shown."""
    fit, skipped = _split(rows, _OPEN, "given another priority")
    wanted: dict[TaskPriority, list[TaskRow]] = defaultdict(list)
    for row in fit:
        target = row.priority.raised(steps)
        if target is row.priority:
            skipped = skipped or f"already {target}, there is nothing beyond"
        else:
            wanted[target].append(row)

    async def run(commander: Commander) -> BulkAnswer:
        done: list[str] = []
        refused: list[Refusal] = []
        told_acts: list[str] = []
        for priority, group in wanted.items():
            group_ids, revisions = _pinned(group)
            answer = await commander.prioritise(group_ids, priority, revisions=revisions)
            done += answer.done
            refused += answer.refused
            told_acts += answer.acts
        return BulkAnswer(done=tuple(done), refused=tuple(refused), acts=tuple(told_acts))

    verb = "Raise" if steps > 0 else "Lower"
    level = f"now {next(iter(wanted))}:" if len(wanted) == 1 else f"{verb.lower()}d the priority of"
    return _act(f"{verb} the priority of", level, [row for group in wanted.values() for row in group], skipped, run)


def _one(
    subject: str, call: Callable[[Commander], Awaitable[str | None]]
) -> Callable[[Commander], Awaitable[BulkAnswer]]:
    """``call`` on one thing; where it answers the id of its command, that can be taken back."""

    async def run(commander: Commander) -> BulkAnswer:
        command = await call(commander)
        return BulkAnswer(done=(subject,), acts=(command,) if command else ())

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


def undo(title: str, commands: Sequence[str]) -> Act:
    """Take back what these commands have done, the last first."""

    async def run(commander: Commander) -> BulkAnswer:
        done: list[str] = []
        refused: list[Refusal] = []
        for command in reversed(commands):
            answer = await commander.undo(command)
            done += (subject.removeprefix("queue ") for subject in answer.done)
            refused += answer.refused
        return BulkAnswer(done=tuple(done), refused=tuple(refused))

    return Act(f"Take back: {title}", "taken back:", (), Tier.UNDOABLE, run)
