"""What a scheduler foresees of tasks that are not submitted yet, in words."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable

from lcq.lang import retold, tr
from lcq.models import Task
from lcq.moments import told_deadline
from lcq.wire import ForeseeAnswer


def told_foreseen(answer: ForeseeAnswer, span: Callable[[float], str]) -> list[str]:
    """Where the tasks would go and when they would be done, a line each; ``span`` tells seconds as people read them."""
    lines = []
    for one in answer.foreseen:
        when = (
            tr("the last done in about {done}", done=span(one.done_s))
            if one.done_s is not None
            else tr("nobody can say when")
        )
        why = f" ({retold(one.why)})" if one.why else ""
        facts = {"count": one.count, "queue": one.queue, "seconds": _short(one.seconds), "when": when, "why": why}
        lines.append(
            tr("{count:,} to {queue}, {seconds} s of work by a guess, {when}{why}", **facts)
            if one.guessed
            else tr("{count:,} to {queue}, {seconds} s of work, {when}{why}", **facts)
        )
        if one.worst_cost:
            worst = f"{one.worst_cost:,.4g} {answer.currency}".strip()
            lines.append(tr("functions would be paid {worst} for these at most, if the budget allows it", worst=worst))
    if answer.refused:
        first = answer.refused[0]
        lines.append(
            tr("{refusals:,} would be refused: {message}", refusals=answer.refusals, message=retold(first.message))
            + (f" ({retold(first.hint)})" if first.hint else "")
        )
    return lines


def told_late(tasks: Iterable[Task], answer: ForeseeAnswer, span: Callable[[float], str]) -> list[str]:
    """By when tasks that would be submitted are to be done, and how late the last would be; nothing where none is."""
    first = min((task.deadline for task in tasks if task.deadline is not None), default=None)
    if first is None:
        return []
    lines = [tr("to be done by {deadline}", deadline=told_deadline(first, span))]
    late_s = max((one.done_s for one in answer.foreseen if one.done_s is not None), default=0.0)
    late_s -= first.timestamp() - time.time()
    if late_s > 0:
        lines.append(tr("! LATE: the last would be done about {late} after the deadline", late=span(late_s)))
    return lines


def _short(seconds: float) -> str:
    """As many digits as tell something of a forecast: tenths of few seconds, none of many."""
    return f"{seconds:,.1f}".removesuffix(".0") if seconds < 10 else f"{seconds:,.0f}"
