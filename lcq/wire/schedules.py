"""Schedules and windows: what may be asked of them, and done."""

from __future__ import annotations

from pydantic import Field

from lcq.models import Value
from lcq.wire.acts import Act
from lcq.wire.message import Done, Message, Request


class ScheduleRecord(Value):
    """A schedule of the settings, as it stands. Times are ms since 1970 by Redis's clock."""

    name: str
    cron: str
    timezone: str
    next_ms: tuple[int, ...] = ()  # empty while it is paused
    paused_by: str = ""
    paused_reason: str = ""
    last_due_ms: int = 0  # 0: it has not run yet
    last_told: str = ""  # what came of that
    last_job: str = ""  # the job of its tasks
    error: str = ""  # why it could not be run when it was due last; it is tried again


class WindowRecord(Value):
    """A window of the settings, and how it is now for the nodes that it is of."""

    name: str
    told: str  # when it is open
    nodes: tuple[str, ...] = ()  # of those that the cluster knows
    is_open: bool = True
    changes_ms: int = 0


class SchedulesAnswer(Message):
    schedules: tuple[ScheduleRecord, ...] = ()
    windows: tuple[WindowRecord, ...] = ()


class Schedules(Request[SchedulesAnswer]):
    """The schedules and windows of the scheduler's settings."""

    CMD = "schedules"
    ANSWER = SchedulesAnswer


class RanSchedule(Message):
    job: str = ""
    accepted: int = 0  # tasks, those that were there already among them
    there: int = 0  # results that are there, and newer than what they are of
    skipped: int = 0  # files that are no pair
    refused: int = 0
    example: str = ""  # of a refusal


class RunSchedule(Act[RanSchedule]):
    """Run a schedule now, also one that is paused. When it is due next stays as it is."""

    CMD = "run_schedule"
    ANSWER = RanSchedule
    name: str = Field(min_length=1)


class PauseSchedule(Act[Done]):
    CMD = "pause_schedule"
    ANSWER = Done
    name: str = Field(min_length=1)


class ResumeSchedule(Act[Done]):
    """Run it again when it is due next; what was due meanwhile is not made up for."""

    CMD = "resume_schedule"
    ANSWER = Done
    name: str = Field(min_length=1)
