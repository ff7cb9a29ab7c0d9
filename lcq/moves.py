"""What each move may do to a task: from which states it starts, and where each of them can lead.

``docs/states.md`` tells the same to people, and the files in ``lcq/state/lua/`` do it; a test compares the three.
"""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import TypeAlias

from lcq.models import TERMINAL_STATES, TaskStatus

Moves: TypeAlias = Mapping[TaskStatus | None, frozenset[TaskStatus | None]]

NO_TASK = None  # where a task comes from when it is submitted, and where it goes when its record is forgotten

PENDING, QUEUED, PROCESSING = TaskStatus.PENDING, TaskStatus.QUEUED, TaskStatus.PROCESSING
COMPLETED, FAILED, CANCELLED = TaskStatus.COMPLETED, TaskStatus.FAILED, TaskStatus.CANCELLED


def _from(*starts: TaskStatus | None, to: tuple[TaskStatus | None, ...]) -> Moves:
    return {start: frozenset(to) for start in starts}


LEGAL_MOVES: Mapping[str, Moves] = MappingProxyType(
    {
        "submit_task": _from(NO_TASK, to=(QUEUED, PENDING)),
        "release_due": _from(PENDING, to=(QUEUED,)),
        "claim_tasks": _from(QUEUED, to=(PROCESSING,)),
        "finish_task": _from(PROCESSING, QUEUED, PENDING, to=(COMPLETED,)),  # the latter two: a late result
        "retake_task": _from(PENDING, QUEUED, PROCESSING, to=(PROCESSING,)),
        "fail_task": _from(PROCESSING, to=(PENDING, QUEUED, FAILED)),
        "release_task": _from(PROCESSING, to=(QUEUED,)),
        "expire_leases": _from(PROCESSING, to=(QUEUED, FAILED)),
        "cancel_task": _from(PENDING, QUEUED, PROCESSING, to=(CANCELLED,)),
        "retry_task": _from(COMPLETED, FAILED, CANCELLED, to=(QUEUED,)),
        "reroute_task": _from(PENDING, QUEUED, PROCESSING, FAILED, CANCELLED, to=(QUEUED,)),
        "prioritise_task": {state: frozenset({state}) for state in (PENDING, QUEUED, PROCESSING)},
        "set_deadline": {state: frozenset({state}) for state in (PENDING, QUEUED, PROCESSING)},
        "set_privacy": {state: frozenset({state}) for state in (PENDING, QUEUED, PROCESSING)},
        "undo_task": {  # QUEUED: of a retry or a reroute; the others: of another priority, deadline or privacy
            QUEUED: frozenset({PENDING, QUEUED, COMPLETED, FAILED, CANCELLED}),
            CANCELLED: frozenset({PENDING, QUEUED}),
            **{state: frozenset({state}) for state in (PENDING, PROCESSING)},
        },
        "undo_queue": {},
        "register_node": _from(PROCESSING, to=(QUEUED, FAILED)),
        "beat_node": _from(PROCESSING, to=(PROCESSING, QUEUED)),
        "leave_node": _from(PROCESSING, to=(QUEUED,)),
        "lose_node": _from(PROCESSING, to=(QUEUED, FAILED)),
        "forget_tasks": {state: frozenset({NO_TASK}) for state in TaskStatus if state in TERMINAL_STATES},
        "suspect_node": {},
        "isolate_task": {
            state: frozenset({state if state in TERMINAL_STATES else TaskStatus.FAILED}) for state in TaskStatus
        },
        "drain_node": {},
        "activate_node": {},
        "quarantine_node": {},
        "caution_device": {},
        "stop_node": {},
        "set_device": {},
        "label_node": {},
        "probe_node": {},
        "settle_probe": {},
        "release_models": {},
        "forget_nodes": {},
        "isolate_node": {},
        "pause_queue": {},
        "resume_queue": {},
        "pause_job": {},
        "resume_job": {},
        "move_aside": {},
        "recall_tasks": {},
        "note_job": {},
        "comment_task": {},
        "undo_comment": {},
        "acknowledge_cause": {},
        "undo_acknowledgement": {},
        "note_alerts": {},
        "settle_notice": {},
        "silence_alert": {},
        "undo_silence": {},
        "tell_condition": {},
        "note_depths": {},
        "shift_deadlines": {},
        "take_duty": {},
        "announce_scheduler": {},
        "note_act": {},
        "adopt_state": {},
        "note_failover": {},
        "copy_tasks": {},
        "copy_keys": {},
        "copy_rest": {},
        "copy_expired": {},
        "account_tasks": {},
        "note_upkeep": {},
        "see_schedule": {},
        "end_schedule": {},
        "pause_schedule": {},
        "resume_schedule": {},
        "window_node": {},
        "restore_begin": {},
        "restore_key": {},
        "restore_task": {},
        "restore_end": {},
        "enrol_key": {},
        "accept_invitation": {},
        "revoke_key": {},
        "replace_key": {},
        "note_handshakes": {},
        "open_call": {},
        "lend_address": {},
        "take_address": {},
        "name_bytes": {},
        "settle_address": {},
        "close_call": {},
        "bill_attempt": {},
        "wish_warm_up": {},
        "reserve_warm_up": {},
        "settle_warm_up": {},
    }
)


def starts_of(move: str) -> tuple[TaskStatus, ...]:
    """The states from which ``move`` can start, in the order of a task's life."""
    return tuple(state for state in TaskStatus if state in LEGAL_MOVES[move])
