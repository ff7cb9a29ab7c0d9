"""What Redis keeps of alerts: each that is about to be one or is, what is silenced, what is still to be told."""

from __future__ import annotations

import json
from collections.abc import Mapping
from enum import StrEnum
from typing import Self, TypeVar

from pydantic import Field, ValidationError

from lcq.alert_config import Severity
from lcq.models import Value

_ValueT = TypeVar("_ValueT", bound=Value)


class AlertStatus(StrEnum):
    PENDING = "pending"  # its rule has not been true for long enough
    FIRING = "firing"


class Happening(StrEnum):
    """What a notice tells of an alert."""

    FIRING = "firing"
    REPEATED = "repeated"
    CLEARED = "cleared"
    TEST = "test"


class AlertRecord(Value):
    """One alert: a rule, and the queue, node or scheduler that it is true of. Times are ms since 1970 by Redis's
    clock."""

    rule: str
    subject: str = ""  # "": of the whole cluster
    when: str = ""
    severity: Severity = "warning"
    status: AlertStatus = AlertStatus.PENDING
    value: float = 0.0
    text: str = ""  # in words that stand alone
    since_ms: int = 0  # since when its rule has been true
    fired_ms: int | None = None
    well_ms: int | None = None  # since when it has been well again, and not yet for long enough
    looked_ms: int = 0  # when value and text were written
    told_ms: int = 0  # when its receivers were told last; 0: they were not

    @property
    def name(self) -> str:
        """By which it is kept: no rule's name has a slash."""
        return f"{self.rule}/{self.subject}"

    @property
    def is_firing(self) -> bool:
        return self.status is AlertStatus.FIRING


class Silence(Value):
    """Somebody wants to hear nothing of a rule, or of what it says of one subject, for a while."""

    rule: str
    subject: str = ""  # "": of whatever
    until_ms: int
    actor: str = ""
    reason: str = ""
    at_ms: int = 0

    @property
    def name(self) -> str:
        return f"{self.rule}/{self.subject}" if self.subject else self.rule

    def covers(self, alert: AlertRecord) -> bool:
        return self.rule == alert.rule and self.subject in ("", alert.subject)


class Notice(Value):
    """What one receiver is still to be told."""

    id: str
    receiver: str
    happening: Happening
    alert: AlertRecord
    runbook: str = ""
    at_ms: int
    due_ms: int = 0  # not tried before
    tried: int = 0
    trouble: str = Field(default="", max_length=500)  # what came of the last try


def read_all(kind: type[_ValueT], fields: Mapping[str, str]) -> dict[str, _ValueT]:
    """Those of a hash's records that can be read, by name; what cannot is left out."""
    found = {}
    for name, text in fields.items():
        try:
            found[name] = kind.model_validate_json(text, extra="ignore")
        except ValidationError:
            continue
    return found


class Alerts(Value):
    """All that is known of alerts at a moment; and the texts of alerts and silences, by name, as Redis has them."""

    alerts: tuple[AlertRecord, ...] = ()
    silences: tuple[Silence, ...] = ()
    now_ms: int = 0
    alert_texts: dict[str, str] = Field(default_factory=dict, exclude=True)
    silence_texts: dict[str, str] = Field(default_factory=dict, exclude=True)

    def silence_of(self, alert: AlertRecord) -> Silence | None:
        """What silences it now: of several the longest."""
        found = [one for one in self.silences if one.covers(alert) and one.until_ms > self.now_ms]
        return max(found, key=lambda one: one.until_ms, default=None)

    @property
    def firing(self) -> tuple[AlertRecord, ...]:
        """Those that are firing and not silenced, the worst first."""
        loud = [one for one in self.alerts if one.is_firing and self.silence_of(one) is None]
        return tuple(sorted(loud, key=lambda one: (one.severity != "critical", one.fired_ms or 0, one.name)))


class Condition(Value):
    """How a scheduler is, as it tells the others."""

    at_ms: int = 0
    host: str = ""
    settings_error: str = ""
    disk_used: float | None = None  # of its fullest disk, 0 to 1
    handshakes: tuple[int, ...] = ()  # that failed, in each of the last minutes, the newest last

    @classmethod
    def read(cls, text: str) -> Self | None:
        try:
            return cls.model_validate(json.loads(text), extra="ignore")
        except (ValueError, TypeError):
            return None
