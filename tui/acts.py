"""What an operator can do to tasks, queues and nodes: each act with the ids it was meant for, and its risk.

An act is made at the key press, from the rows as they were shown. Whatever moves on the screen until it is
confirmed, it goes to those ids and carries the revisions seen: a task that has moved on since is refused.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Awaitable, Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime
from typing import TYPE_CHECKING, TypeAlias

from lcq.errors import NothingToUndo
from lcq.lang import N, retold, tr
from lcq.models import TERMINAL_STATES, DeviceKind, NodeStatus, Privacy, TaskPriority, TaskStatus
from lcq.moments import told_deadline
from tui.commands import Tier
from tui.desk import MANY
from tui.source import Commander
from tui.store import CauseRow, NodeRow, QueueRow, TaskRow
from tui.text import basename, counted, cut, long_span

if TYPE_CHECKING:  # where an answer is made it is loaded: none is before the first frame
    from lcq.wire import BulkAnswer, Refusal

VERY_MANY = 1_000
"""Cancelling more than this, or what occupies more than a quarter of the fleet's slots, asks for the number."""

Run: TypeAlias = "Callable[[Commander, str], Awaitable[BulkAnswer]]"
"""Does an act, for a reason that others will read ("": none was given)."""

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
    run: Run = field(compare=False)
    lines: tuple[str, ...] = ()
    go: str = field(default_factory=lambda: tr("Yes, do it"))
    skipped: str = ""  # which of the rows it leaves alone, and why
    word: str = ""  # what has to be typed before it is done, where it cannot come back
    again: Callable[[Sequence[TaskRow]], Act] | None = field(default=None, compare=False)  # the same on other tasks
    rows: tuple[TaskRow, ...] = field(default=(), compare=False)  # as they were shown
    bands: Mapping[str, TaskPriority] = field(default_factory=dict, compare=False)  # what it makes of their priorities

    @property
    def asks(self) -> bool:
        return self.tier >= Tier.COSTLY

    def made_to_ask(self) -> Act:
        """The same act, which will ask whatever its tier."""
        return self if self.asks else replace(self, tier=Tier.COSTLY)

    @property
    def forecast(self) -> str:
        """What it would do, in one line."""
        if self.ids:
            return f"{self.title}; {self.skipped}" if self.skipped else self.title
        return (
            tr("nothing to do; {skipped}", skipped=self.skipped)
            if self.skipped
            else tr("nothing to do: no task is meant")
        )


def told(act: Act, answer: BulkAnswer) -> tuple[str, bool]:
    """What became of the act in one line, and whether all of it was done."""
    parts = []
    if answer.done:
        subject = answer.done[0] if len(answer.done) == 1 else counted(len(answer.done), "task")
        parts.append(tr("{done} {subject}", done=act.done, subject=subject))
    if answer.refused:
        first = answer.refused[0]
        reason = retold(first.message) + (f" ({retold(first.hint)})" if first.hint else "")
        more = tr(" and {n:,} more", n=len(answer.refused) - 1) if len(answer.refused) > 1 else ""
        parts.append(tr("refused {id}{more}: {reason}", id=first.id, more=more, reason=reason))
    return "; ".join(parts) or tr("{title}: nothing to do", title=act.title), not answer.refused


def _described(rows: Sequence[TaskRow]) -> tuple[str, ...]:
    """The rows an act is meant for, so that the operator sees on what the act will fall."""
    by_state = Counter(row.status for row in rows)
    lines = [", ".join(f"{count:,} {tr(status)}" for status, count in by_state.items())] if len(rows) > 1 else []
    lines += [f"{row.id}  {tr(row.status)}  {row.queue}  {cut(basename(row.image), 40)}" for row in rows[:_IDS_TOLD]]
    if len(rows) > _IDS_TOLD:
        lines.append(tr("… and {n:,} more", n=len(rows) - _IDS_TOLD))
    return tuple(lines)


def _split(rows: Sequence[TaskRow], legal: Collection[TaskStatus], past: str) -> tuple[list[TaskRow], str]:
    """The rows an act can be done to, and a word on the others. The scheduler looks again and has the last say."""
    fit = [row for row in rows if row.status in legal]
    others = Counter(row.status for row in rows if row.status not in legal)
    named = ", ".join(f"{count:,} {tr(status)}" for status, count in others.items())
    return fit, tr("cannot be {past}: {named}", past=past, named=named) if others else ""


def _act(
    title: str,
    go: str,
    done: str,
    rows: Sequence[TaskRow],
    skipped: str,
    run: Run,
    again: Callable[[Sequence[TaskRow]], Act] | None,
    *,
    costly: bool = False,
    warning: str = "",
    word: str = "",
    bands: Mapping[str, TaskPriority] | None = None,
) -> Act:
    """``title``: what is done to ``{tasks}``, in the language that is spoken."""
    left_alone = tr("Left alone: {skipped}", skipped=skipped) if skipped else ""
    lines = _described(rows) + tuple(filter(None, (warning, left_alone)))
    tier = Tier.FINAL if word else Tier.COSTLY if costly or len(rows) > MANY else Tier.UNDOABLE
    ids = tuple(row.id for row in rows)
    title = title.replace("{tasks}", counted(len(rows), "task"))
    return Act(title, done, ids, tier, run, lines, go, skipped, word, again, tuple(rows), bands or {})


def _pinned(rows: Sequence[TaskRow]) -> tuple[tuple[str, ...], tuple[int, ...]]:
    return tuple(row.id for row in rows), tuple(row.acts_on for row in rows)


def retry(rows: Sequence[TaskRow]) -> Act:
    fit, skipped = _split(rows, TERMINAL_STATES, tr("retried"))
    ids, revisions = _pinned(fit)
    return _act(
        tr("Retry {tasks}"), tr("Yes, retry"), tr("retried"), fit, skipped,
        lambda commander, reason: commander.retry(ids, revisions=revisions, reason=reason), retry,
    )  # fmt: skip


def cancel(rows: Sequence[TaskRow], *, slots: int = 0) -> Act:
    """``slots``: how many the fleet has; what would stop more than a quarter of them asks for the number.

    0: not known.
    """
    fit, skipped = _split(rows, _OPEN, tr("cancelled"))
    ids, revisions = _pinned(fit)
    running = sum(row.status is TaskStatus.PROCESSING for row in fit)
    is_quarter = slots > 0 and running > MANY and 4 * running > slots
    return _act(
        tr("Cancel {tasks}"), tr("Yes, cancel"), tr("cancelled"), fit, skipped,
        lambda commander, reason: commander.cancel(ids, revisions=revisions, reason=reason),
        lambda others: cancel(others, slots=slots),
        costly=True, warning=tr("{n:,} running now: the work done so far is lost", n=running) if running else "",
        word=str(len(fit)) if len(fit) > VERY_MANY or is_quarter else "",
    )  # fmt: skip


def move(rows: Sequence[TaskRow], *, queue: str = "", node: str = "") -> Act:
    fit, skipped = _split(rows, _MOVABLE, tr("moved"))
    ids, revisions = _pinned(fit)
    running = sum(row.status is TaskStatus.PROCESSING for row in fit)
    where = tr("node {node}", node=node) if node else queue
    return _act(
        tr("Move {tasks} to {where}", tasks="{tasks}", where=where), tr("Yes, move"),
        tr("moved to {where}:", where=where), fit, skipped,
        lambda commander, reason: commander.reroute(ids, revisions=revisions, queue=queue, node=node, reason=reason),
        lambda others: move(others, queue=queue, node=node),
        costly=running > 0,
        warning=tr("{n:,} running now: the attempt is cancelled first", n=running) if running else "",
    )  # fmt: skip


def change_priority(rows: Sequence[TaskRow], steps: int) -> Act:
    """Each of the rows ``steps`` bands more urgent than it was shown."""
    verb = "Raise" if steps > 0 else "Lower"
    return _to_priorities(
        rows, lambda row: row.priority.raised(steps), verb, lambda others: change_priority(others, steps)
    )


def set_priority(rows: Sequence[TaskRow], priority: TaskPriority) -> Act:
    """All of the rows in one band."""
    return _to_priorities(rows, lambda _: priority, "Set", lambda others: set_priority(others, priority))


def _to_priorities(
    rows: Sequence[TaskRow],
    target_of: Callable[[TaskRow], TaskPriority],
    verb: str,
    again: Callable[[Sequence[TaskRow]], Act],
) -> Act:
    fit, skipped = _split(rows, _OPEN, tr("given another priority"))
    wanted: dict[TaskPriority, list[TaskRow]] = defaultdict(list)
    for row in fit:
        target = target_of(row)
        if target is row.priority:
            beyond = tr("there is nothing beyond") if verb != "Set" else tr("as wished")
            skipped = skipped or tr("already {target}, {beyond}", target=tr(target), beyond=beyond)
        else:
            wanted[target].append(row)

    async def run(commander: Commander, reason: str) -> BulkAnswer:
        from lcq.wire import BulkAnswer

        done: list[str] = []
        refused: list[Refusal] = []
        made: list[int] = []
        told_acts: list[str] = []
        for priority, group in wanted.items():
            group_ids, revisions = _pinned(group)
            answer = await commander.prioritise(group_ids, priority, revisions=revisions, reason=reason)
            done += answer.done
            made += answer.revisions or [0] * len(answer.done)  # an older scheduler tells none
            refused += answer.refused
            told_acts += answer.acts
        return BulkAnswer(done=tuple(done), revisions=tuple(made), refused=tuple(refused), acts=tuple(told_acts))

    title, go, past = {
        "Raise": (tr("Raise the priority of {tasks}"), tr("Yes, raise"), tr("raised the priority of")),
        "Lower": (tr("Lower the priority of {tasks}"), tr("Yes, lower"), tr("lowered the priority of")),
        "Set": (tr("Set the priority of {tasks}"), tr("Yes, set"), tr("set the priority of")),
    }[verb]
    level = tr("now {priority}:", priority=tr(next(iter(wanted)))) if len(wanted) == 1 else past
    changed = [row for group in wanted.values() for row in group]
    bands = {row.id: priority for priority, group in wanted.items() for row in group}
    return _act(title, go, level, changed, skipped, run, again, bands=bands)


def set_deadline(rows: Sequence[TaskRow], deadline: datetime | None) -> Act:
    """All of the rows are to be done by then; None: no matter when."""
    fit, skipped = _split(rows, _OPEN, tr("given another deadline"))
    ids, revisions = _pinned(fit)
    if deadline is None:
        title, done = tr("Take the deadline off {tasks}"), tr("to be done no matter when:")
    else:
        when = told_deadline(deadline, lambda seconds: long_span(seconds * 1000))
        title = tr("Have {tasks} done by {when}", tasks="{tasks}", when=when)
        done = tr("to be done by {when}:", when=when)
    return _act(
        title, tr("Yes, set"), done, fit, skipped,
        lambda commander, reason: commander.set_deadline(ids, deadline, revisions=revisions, reason=reason),
        lambda others: set_deadline(others, deadline),
    )  # fmt: skip


PRIVACIES: Mapping[Privacy, str] = {
    Privacy.EXPORTABLE: N("yes, exportable: functions may work on it"),
    Privacy.PRIVATE: N("no, private: its pictures stay in the house"),
}


def privacy_of(privacy: Privacy, queues: Iterable[QueueRow]) -> Callable[[Sequence[TaskRow]], Act]:
    """``set_privacy`` with the queues of functions among ``queues``."""
    of_functions = frozenset(queue.id for queue in queues if queue.kind == DeviceKind.SERVERLESS)
    return lambda rows: set_privacy(rows, privacy, of_functions)


def set_privacy(rows: Sequence[TaskRow], privacy: Privacy, of_functions: Collection[str]) -> Act:
    """The pictures of all of the rows may leave the house, which is always asked, or not any more. ``of_functions``:
    the queues of those."""
    fit, skipped = _split(rows, _OPEN, tr("given another privacy"))
    ids, revisions = _pinned(fit)
    out = sum(row.status is TaskStatus.PROCESSING and row.queue in of_functions for row in fit)
    if privacy is Privacy.EXPORTABLE:
        title, go, done = tr("Let {tasks} leave the house"), tr("Yes, let them"), tr("may leave the house:")
        warning = tr("Where they would be late here, functions of others get their pictures, and the budget pays")
    else:
        title, go, done = tr("Keep {tasks} in the house"), tr("Yes, keep"), tr("stays in the house:")
        revisions = ()  # whatever has happened to it since: it may be kept
        warning = (
            tr("{n:,} with a function now, which finishes that; other attempts are made here", n=out) if out else ""
        )
    return _act(
        title, go, done, fit, skipped,
        lambda commander, reason: commander.set_privacy(ids, privacy, revisions=revisions, reason=reason),
        lambda others: set_privacy(others, privacy, of_functions),
        costly=privacy is Privacy.EXPORTABLE or out > 0, warning=warning,
    )  # fmt: skip


def move_backlog(queue: str, rows: Sequence[TaskRow], target: str) -> Act:
    """What waits in one queue goes to another."""
    act = move(rows, queue=target)
    tasks = counted(len(act.ids), "task")
    title = tr("Move the backlog of {queue}, {tasks}, to {target}", queue=queue, tasks=tasks, target=target)
    return replace(act, title=title, again=None)


def empty(queue: str, rows: Sequence[TaskRow]) -> Act:
    """All that waits in a queue is cancelled; the name has to be typed."""
    act = cancel([row for row in rows if row.status is not TaskStatus.PROCESSING])
    lines = (tr("All that waits in {queue} is cancelled; what runs goes on.", queue=queue), *act.lines)
    title = tr("Empty {queue}: cancel {tasks}", queue=queue, tasks=counted(len(act.ids), "waiting task"))
    return replace(act, title=title, tier=Tier.FINAL, lines=lines, go=tr("Yes, empty"), word=queue, again=None)


def _one(subject: str, call: Callable[[Commander, str], Awaitable[str | None]]) -> Run:
    """``call`` on one thing; where it answers the id of its command, that can be taken back."""

    async def run(commander: Commander, reason: str) -> BulkAnswer:
        from lcq.wire import BulkAnswer

        command = await call(commander, reason)
        return BulkAnswer(done=(subject,), acts=(command,) if command else ())

    return run


def pause(queue: str) -> Act:
    run = _one(queue, lambda commander, reason: commander.pause(queue, reason=reason))
    lines = (tr("It gives out no more tasks; those that run finish."),)
    return Act(tr("Pause {queue}", queue=queue), tr("paused"), (queue,), Tier.UNDOABLE, run, lines, tr("Yes, pause"))


def resume(queue: str) -> Act:
    run = _one(queue, lambda commander, reason: commander.resume(queue, reason=reason))
    return Act(tr("Resume {queue}", queue=queue), tr("resumed"), (queue,), Tier.UNDOABLE, run)


def comment(rows: Sequence[TaskRow], text: str) -> Act:
    ids = tuple(row.id for row in rows)
    return _act(
        tr("Comment on {tasks}"), tr("Yes, comment"), tr("noted with"), rows, "",
        lambda commander, _: commander.comment(ids, text), lambda others: comment(others, text),
    )  # fmt: skip


def acknowledge(row: CauseRow) -> Act:
    """Say that somebody knows of it, with a note; or that it is open again, where no note is given and one is there."""
    code, text, name = row.code, row.text, tr("cause {code}", code=row.code)
    was_known = bool(row.known)

    run = _one(
        name,
        lambda commander, reason: commander.acknowledge(code, text, note=reason, withdraw=was_known and not reason),
    )
    lines: tuple[str, ...] = (f"{counted(row.count, 'task')}: {retold(row.text)}",)
    if was_known:
        lines = (*lines, tr("Known to {who}", who=row.known), tr("Without a note it is open again."))
    title = tr("Acknowledge {code}", code=code)
    return Act(title, tr("acknowledged"), (name,), Tier.UNDOABLE, run, lines, tr("Yes"))


def silence(rule: str, subject: str, seconds: float) -> Act:
    """Let nobody be told of a rule for so long, or of what it says of ``subject`` ("": of whatever)."""
    name = f"{rule}/{subject}" if subject else rule
    run = _one(name, lambda commander, reason: commander.silence(rule, seconds=seconds, subject=subject, reason=reason))
    lines = (tr("Nobody is told of it until then; consoles go on showing it, as silenced."),)
    title = tr("Silence {name} for {span}", name=name, span=long_span(seconds * 1000))
    return Act(title, tr("silenced"), (name,), Tier.UNDOABLE, run, lines, tr("Yes, silence"))


def unsilence(rule: str, subject: str) -> Act:
    name = f"{rule}/{subject}" if subject else rule
    run = _one(name, lambda commander, reason: commander.unsilence(rule, subject=subject, reason=reason))
    return Act(tr("Let {name} be heard again", name=name), tr("heard again:"), (name,), Tier.UNDOABLE, run)


def drain(row: NodeRow, *, deadline_s: float | None = None) -> Act:
    """``deadline_s``: then it hands back what still runs; None: it finishes that, however long it takes."""
    node = row.id
    run = _one(node, lambda commander, reason: commander.drain(node, deadline_s=deadline_s, reason=reason))
    lines = _drain_lines(row, deadline_s)
    return Act(
        tr("Drain {node}", node=node), tr("draining"), (node,), Tier.COSTLY, run, lines, tr("Yes, drain")
    )  # fmt: skip


def _drain_lines(row: NodeRow, deadline_s: float | None) -> tuple[str, ...]:
    running = counted(row.running, "running task")
    if row.status is NodeStatus.OFFLINE:
        return (tr("It is down. Should it come back, it takes nothing new until it is activated."),)
    if not row.running:
        return (tr("It is idle now, and takes nothing new until it is activated."),)
    if deadline_s is None:
        return (tr("It finishes {running} and takes nothing new until it is activated.", running=running),)
    said = tr(
        "It has {seconds:g} s to finish {running}, hands back what still runs then, and takes nothing new until it is"
        " activated.",
        seconds=deadline_s, running=running,
    )  # fmt: skip
    return (said,)


def block(node: str) -> Act:
    run = _one(node, lambda commander, reason: commander.block(node, reason=reason))
    lines = (tr("It takes nothing new until it is unblocked; what runs goes on, and nothing is handed back."),)
    return Act(tr("Block {node}", node=node), tr("blocked"), (node,), Tier.UNDOABLE, run, lines, tr("Yes, block"))


def activate(node: str, *, unblocks: bool = False) -> Act:
    """``unblocks``: it was blocked, and that is what the act is called."""
    run = _one(node, lambda commander, reason: commander.activate(node, reason=reason))
    title, done = tr("Activate {node}", node=node), tr("activated")
    if unblocks:
        title, done = tr("Unblock {node}", node=node), tr("unblocked")
    return Act(title, done, (node,), Tier.UNDOABLE, run)


def stop_node(row: NodeRow, *, deadline_s: float | None = None) -> Act:
    """Its agent ends; ``deadline_s`` as for ``drain``, by default what its own agent.drain_s says."""
    node = row.id
    run = _one(node, lambda commander, reason: commander.stop_node(node, deadline_s=deadline_s, reason=reason))
    lines = (
        tr(
            "Its agent drains and ends: {running} to finish or to hand back.",
            running=counted(row.running, "running task"),
        ),
        tr("Only somebody on its host can start it again."),
    )
    title = tr("Stop {node}", node=node)
    return Act(title, tr("stopping"), (node,), Tier.FINAL, run, lines, tr("Yes, stop"), word=node)


def undo(title: str, commands: Sequence[str]) -> Act:
    """Take back what these commands have done, the last first. What several of them have been done to is taken back
    when all of them are; else it is told which part of it was not."""

    async def run(commander: Commander, reason: str) -> BulkAnswer:
        from lcq.wire import BulkAnswer, Refusal

        done: dict[str, None] = {}
        refused: dict[str, Refusal] = {}
        for command in reversed(commands):
            try:
                answer = await commander.undo(command)
            except NothingToUndo as nothing:  # the others are still taken back
                if len(commands) == 1:
                    raise
                refused[command] = Refusal.of(command, nothing)
                continue
            done |= dict.fromkeys(_bare(subject) for subject in answer.done)
            for one in answer.refused:
                refused.setdefault(_bare(one.id), one)  # the first: the later ones are refused because of it
        for subject in done.keys() & refused.keys():
            one = refused[subject]
            message = tr("only its last change is taken back, what was done before is not: {why}", why=one.message)
            refused[subject] = one.model_copy(update={"message": message})
        whole = tuple(subject for subject in done if subject not in refused)
        return BulkAnswer(done=whole, refused=tuple(refused.values()))

    return Act(tr("Take back: {title}", title=title), tr("taken back:"), (), Tier.UNDOABLE, run)


def _bare(subject: str) -> str:
    return subject.removeprefix("queue ").removeprefix("comment ").removeprefix("cause ")
