"""What a scheduler foresees of tasks that are not submitted yet, in words."""

from __future__ import annotations

from collections.abc import Callable

from lcq.lang import retold, tr
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
        facts = {"count": one.count, "queue": one.queue, "seconds": one.seconds, "when": when, "why": why}
        lines.append(
            tr("{count:,} to {queue}, {seconds:.3g} s of work by a guess, {when}{why}", **facts)
            if one.guessed
            else tr("{count:,} to {queue}, {seconds:.3g} s of work, {when}{why}", **facts)
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
