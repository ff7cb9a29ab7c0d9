"""What may be asked and done about alerts."""

from __future__ import annotations

from typing import ClassVar

from pydantic import Field

from lcq.alerts.records import AlertRecord, Silence
from lcq.wire.acts import Act
from lcq.wire.message import Done, Message, Request

_MOST_S = 365 * 24 * 3600


class RuleTold(Message):
    """A rule as the scheduler goes by it."""

    name: str
    when: str
    over: float
    unit: str = ""
    for_s: float = 0.0
    severity: str = "warning"
    notify: tuple[str, ...] = ()
    enabled: bool = True
    shipped: bool = False  # LCQ's own; not of the settings


class ReceiverTold(Message):
    """Who can be told, without secrets: the host of an address, or a program."""

    name: str
    kind: str  # webhook or command
    to: str
    waiting: int = 0  # notices that are still to be told, or told again
    trouble: str = ""  # what came of the last try of one of those


class AlertsAnswer(Message):
    alerts: tuple[AlertRecord, ...] = ()  # those that are pending too
    silences: tuple[Silence, ...] = ()
    rules: tuple[RuleTold, ...] = ()
    receivers: tuple[ReceiverTold, ...] = ()
    now_ms: int = 0  # by Redis's clock, as all times there are


class AskAlerts(Request[AlertsAnswer]):
    """What needs people, by which rules, and who is told."""

    CMD = "alerts"
    ANSWER = AlertsAnswer
    IS_KEPT = False


class SilenceAlert(Act[Done]):
    """Nobody is told of a rule for a while, or of what it says of one subject; consoles show it as silenced."""

    CMD = "silence"
    ANSWER = Done
    rule: str = Field(min_length=1, max_length=64)
    subject: str = Field(default="", max_length=200)  # a queue, node or scheduler; "": whatever it is of
    seconds: float = Field(ge=1, le=_MOST_S)


class UnsilenceAlert(Act[Done]):
    """What was silenced so is heard again."""

    CMD = "unsilence"
    ANSWER = Done
    rule: str = Field(min_length=1, max_length=64)
    subject: str = Field(default="", max_length=200)


class TestAlertsAnswer(Message):
    __test__: ClassVar[bool] = False

    told: tuple[str, ...] = ()  # receivers that took it
    troubles: dict[str, str] = Field(default_factory=dict)  # what came of it with the others


class TestAlerts(Act[TestAlertsAnswer]):
    """A notice of an alert that is none goes to receivers, at once and once."""

    __test__: ClassVar[bool] = False  # no test of pytest's

    CMD = "test_alerts"
    ANSWER = TestAlertsAnswer
    receivers: tuple[str, ...] = Field(default=(), max_length=100)  # (): to all
