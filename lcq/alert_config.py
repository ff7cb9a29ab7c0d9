"""The settings of alerts: what people are to be told of, and how."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import Annotated, Literal

from pydantic import Field, field_validator, model_validator

from lcq.runner_config import Section

AlertName = Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]{0,63}$")]
AlertKind = Literal[
    "queue_age", "queue_depth", "queue_unserved", "fail_rate", "node_down", "node_quarantined", "disk", "spend",
    "handshakes", "bad_settings",
]  # fmt: skip
Severity = Literal["warning", "critical"]
SEVERITIES: tuple[Severity, ...] = ("warning", "critical")


@dataclass(frozen=True)
class Usual:
    """What a rule of a kind means where it does not say: for which value, for how long. ``unit``: of the value."""

    unit: str
    over: float
    for_s: float
    about: str


USUAL: Mapping[AlertKind, Usual] = MappingProxyType(
    {
        "queue_age": Usual("seconds", 1800, 60, "how long the oldest task of a queue that is not paused has waited"),
        "queue_depth": Usual("tasks", 10_000, 300, "how many tasks wait in a queue"),
        "queue_unserved": Usual("tasks", 0, 120, "how many tasks wait in a queue that no live node serves"),
        "fail_rate": Usual("share", 0.2, 60, "the share of what ended within window_s that failed"),
        "node_down": Usual("1 or 0", 0, 60, "1 while a node is offline that did not leave in order"),
        "node_quarantined": Usual("1 or 0", 0, 300, "1 while a node, or a device of it, is in quarantine"),
        "disk": Usual("share", 0.95, 60, "how full the fullest disk of a node or a scheduler is"),
        "spend": Usual(
            "share",
            0.9,
            0,
            "how much of serverless.budget for an hour, day or month is spent or reserved; 1 if no call fits",
        ),
        "handshakes": Usual("connections", 10, 0, "how many a scheduler refused within window_s because of their keys"),
        "bad_settings": Usual("1 or 0", 0, 60, "1 while a scheduler or node cannot take over its files of settings"),
    }
)


class AlertRule(Section):
    """What somebody is to be told of. Of each queue, node or scheduler that it is true of there is one alert."""

    name: AlertName
    """By which it is silenced. One that LCQ ships (docs/alerts.md) is replaced by a rule of the same name."""
    when: AlertKind
    """What is looked at; docs/alerts.md says what each is, and in which unit."""
    over: float | None = None
    """It is an alert while the value is above this. null: as is usual for ``when``."""
    clear_under: float | None = None
    """It is over only when the value is no more than this, at most ``over``. null: the same as ``over``."""
    for_s: float | None = Field(default=None, ge=0, le=7 * 24 * 3600)
    """How long that must be so before anybody is told. null: as is usual for ``when``."""
    clear_s: float = Field(default=60.0, ge=0, le=7 * 24 * 3600)
    """How long it must be well again before it is over: what comes and goes is told once."""
    window_s: float = Field(default=600.0, ge=60, le=3600)
    """For fail_rate and handshakes: of the last so many seconds, in whole minutes."""
    least: int = Field(default=20, ge=1)
    """For fail_rate: so many tasks must have ended, else nothing is said of their share."""
    queues: tuple[str, ...] = ()
    """Only of these queues. []: of all."""
    nodes: tuple[str, ...] = ()
    """Only of these nodes. []: of all."""
    severity: Severity = "warning"
    """How bad it is."""
    notify: tuple[str, ...] | None = None
    """The receivers of ``alerting.receivers`` that are told. null: those of ``alerting.notify``; []: none."""
    repeat_s: float | None = Field(default=None, ge=0, le=30 * 24 * 3600)
    """As long as it lasts they are told again so often; 0: never. null: as ``alerting.repeat_s`` says."""
    runbook: str = Field(default="", max_length=500)
    """What to do then: told with it. "": the page of docs/alerts.md."""
    enabled: bool = True
    """false: not looked at; that is how one that LCQ ships is turned off."""

    @model_validator(mode="after")
    def _clears_below_where_it_begins(self) -> AlertRule:
        if self.clear_under is not None and self.clear_under > self.limit:
            raise ValueError(f"clear_under must be at most over ({self.limit:g}), found {self.clear_under:g}")
        return self

    @property
    def limit(self) -> float:
        """What the value must be above."""
        return USUAL[self.when].over if self.over is None else self.over

    @property
    def patience_s(self) -> float:
        """How long that must be so."""
        return USUAL[self.when].for_s if self.for_s is None else self.for_s

    @property
    def well_at(self) -> float:
        """The value at which it is well again."""
        return self.limit if self.clear_under is None else self.clear_under


SHIPPED_RULES: tuple[AlertRule, ...] = (
    AlertRule(name="queue-age", when="queue_age", over=4 * 3600.0, for_s=300),
    AlertRule(name="queue-unserved", when="queue_unserved", severity="critical"),
    AlertRule(name="fail-rate", when="fail_rate", clear_under=0.1),
    AlertRule(name="node-down", when="node_down"),
    AlertRule(name="node-quarantined", when="node_quarantined"),
    AlertRule(name="disk", when="disk", clear_under=0.93, severity="critical"),
    AlertRule(name="spend", when="spend"),
    AlertRule(name="handshakes", when="handshakes"),
    AlertRule(name="bad-settings", when="bad_settings"),
)
"""What is looked at where nobody says anything. Consoles show it; nobody is notified before receivers are named."""


class AlertReceiver(Section):
    """Who is told: a web address, or a program on the scheduler's host. One of the two."""

    url: str | None = Field(default=None, repr=False)
    """A POST with the alert as JSON goes there (https:// or http://). It often is a secret itself."""
    command: tuple[str, ...] = ()
    """This program, with these arguments, gets the alert as JSON on its standard input. No shell reads it."""
    secret: str | None = Field(default=None, repr=False)
    """Signs what is sent to ``url``: X-LCQ-Signature has the HMAC-SHA256 of time and body."""
    secret_file: Path | None = None
    """The file that has it, instead."""
    bearer: str | None = Field(default=None, repr=False)
    """A token that ``url`` asks for."""
    bearer_file: Path | None = None
    """The file that has it, instead."""
    timeout_s: float = Field(default=10.0, gt=0, le=300)
    """How long the receiver may take."""
    tries: int = Field(default=8, ge=1, le=20)
    """How often it is tried, with pauses of 2, 4, 8 … s (a few minutes in all), before it is given up."""

    @model_validator(mode="after")
    def _is_one_of_two(self) -> AlertReceiver:
        if bool(self.url) == bool(self.command):
            raise ValueError("give url or command, and not both")
        for name in ("secret", "bearer"):
            if getattr(self, name) is not None and getattr(self, f"{name}_file") is not None:
                raise ValueError(f"give {name} or {name}_file, and not both")
        return self

    @field_validator("url")
    @classmethod
    def _is_of_the_web(cls, url: str | None) -> str | None:
        if url is not None and not url.lower().startswith(("https://", "http://")):
            raise ValueError("must begin with https:// or http://")
        return url


class AlertingConfig(Section):
    """How alerts (``alerts``, docs/alerts.md) are looked for and told."""

    enabled: bool = True
    """Whether schedulers look for them at all."""
    every_s: float = Field(default=5.0, ge=0.1, le=3600)
    """How often; one scheduler does it for all."""
    shipped: bool = True
    """Whether the rules that LCQ ships hold beside those of ``alerts``."""
    receivers: dict[AlertName, AlertReceiver] = Field(default_factory=dict)
    """By name, who can be told. Consoles show every alert without being named."""
    notify: tuple[str, ...] = ()
    """Those of them that are told where a rule does not say."""
    repeat_s: float = Field(default=4 * 3600.0, ge=0, le=30 * 24 * 3600)
    """As long as an alert lasts they are told again so often; 0: never."""


def rules_of(alerts: tuple[AlertRule, ...], alerting: AlertingConfig) -> tuple[AlertRule, ...]:
    """The rules that hold, those that are turned off among them."""
    own = {rule.name: rule for rule in alerts}
    shipped = tuple(rule for rule in SHIPPED_RULES if rule.name not in own) if alerting.shipped else ()
    return (*shipped, *alerts)


def refuse_contradictions(alerts: tuple[AlertRule, ...], alerting: AlertingConfig, queues: tuple[str, ...]) -> None:
    """Raises:
    ValueError: two rules have one name, or one names a receiver or a queue that is not there.
    """
    names = [rule.name for rule in alerts]
    if len(set(names)) < len(names):
        raise ValueError(f"alerts: each name once, found {names}")
    known = ", ".join(alerting.receivers) or "none"
    for where, told in (("alerting.notify", alerting.notify), *((f"alerts: {r.name}", r.notify or ()) for r in alerts)):
        if unknown := [name for name in told if name not in alerting.receivers]:
            raise ValueError(f"{where}: no such receiver: {', '.join(unknown)}; there are {known}")
    for rule in alerts:
        if unknown := [name for name in rule.queues if name not in queues]:
            raise ValueError(f"alerts: {rule.name}: no such queue: {', '.join(unknown)}; there are {', '.join(queues)}")
