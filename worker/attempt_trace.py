"""What a node made of an attempt, as spans of its task's trace: attempt, and below it fetch, run and its stages."""

from __future__ import annotations

import time
from itertools import pairwise

from lcq.tracing import ATTEMPT, CLAIM, Tracer, span_of
from worker.attempt import Ended

_MOST_STAGES = 32


def tell_attempt(tracer: Tracer, ended: Ended, *, node: str, began_ns: int) -> None:
    """Tell of an attempt that is over. ``began_ns``: when it came here; 0: not known."""
    grant, failure = ended.grant, ended.failure
    task, attempt = grant.task, grant.attempt
    now = time.time_ns()
    error = f"{failure.code}: {failure.message}" if failure is not None else "handed back" if ended.handed_back else ""
    if not error and ended.result is None:
        error = "stopped"
    span = span_of(task.id, ATTEMPT, attempt)
    began = began_ns or min((part[1] for part in ended.parts), default=now)
    facts: dict[str, str | float] = {
        "node": node,
        "device": grant.device,
        "cause": failure.code if failure is not None else "",
    }
    above = span_of(task.id, CLAIM, attempt)
    if not tracer.tell(
        ATTEMPT, task, attempt=attempt, span=span, parent=above, begun_ns=began, ended_ns=now, error=error, facts=facts
    ):
        return
    for name, begun_ns, ended_ns in ended.parts:
        said = error if name == "run" and ended.result is None else ""
        part = tracer.tell(
            name, task, attempt=attempt, parent=span, begun_ns=begun_ns, ended_ns=ended_ns, error=said, facts=facts
        )
        if name == "run":
            stages = [*ended.stages[:_MOST_STAGES], ("", ended_ns)]
            for (stage, stage_ns), (_, next_ns) in pairwise(stages):
                tracer.tell(stage, task, attempt=attempt, parent=part, begun_ns=stage_ns, ended_ns=next_ns)
