"""What became of an attempt, as a span of its task's trace: commit; and with the task's end the root of all of it."""

from __future__ import annotations

import time

from lcq.errors import LcqError
from lcq.ids import id_time
from lcq.state.reader import StateReader
from lcq.tracing import ATTEMPT, TASK, Tracer, span_of
from lcq.wire import Outcome, Verdict


async def tell_commit(
    tracer: Tracer, reader: StateReader, outcome: Outcome, verdict: Verdict, *, node: str, begun_ns: int
) -> None:
    """Tell how an outcome was settled: committed, failed, given back, or refused."""
    ended_ns = time.time_ns()
    try:
        record = await reader.task(outcome.task_id)
    except LcqError:  # its record has been forgotten: then nobody knows which trace that was
        return
    task, attempt = record.task, outcome.attempt
    cause = outcome.failure.code if outcome.failure is not None else ""
    tracer.tell(
        "commit",
        task,
        attempt=attempt,
        parent=span_of(task.id, ATTEMPT, attempt),
        begun_ns=begun_ns,
        ended_ns=ended_ns,
        error=verdict.detail or cause,
        facts={"node": node, "cause": cause, "verdict": verdict.verdict},
    )
    if record.status.is_terminal and verdict.verdict == "settled":
        why = "" if record.result is not None else cause or str(record.status)
        tracer.tell(
            TASK,
            task,
            attempt=attempt,
            begun_ns=int(id_time(task.id).timestamp() * 1e9),
            ended_ns=time.time_ns(),
            error=why,
            facts={"status": str(record.status)},
        )
