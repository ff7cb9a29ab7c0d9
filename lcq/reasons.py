"""The closed list of reasons why a task is where it is: a code, one line for a person, facts for a program."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Any, TypeAlias

from pydantic import Field, field_validator

from lcq.models import Value

Fact: TypeAlias = str | int | float | bool | None


class WhyCode(StrEnum):
    """Why a task waits, or what became of it. ``MEANINGS`` says of each what it means and what to do."""

    # it waits for its time
    SCHEDULED = "scheduled"
    BACKOFF = "backoff"
    RETRY_BUDGET = "retry_budget"
    # somebody holds it back
    QUEUE_PAUSED = "queue_paused"
    JOB_PAUSED = "job_paused"
    # nobody can run it
    NO_NODE = "no_node"
    NO_MODEL = "no_model"
    DEPENDENCY_DOWN = "dependency_down"
    NO_ABILITY = "no_ability"
    NO_LABEL = "no_label"
    NO_DEVICE = "no_device"
    NO_QUEUE = "no_queue"
    NOT_SERVED = "not_served"
    MISSES_MEMORY = "misses_memory"
    ALL_QUARANTINED = "all_quarantined"
    ALL_DRAINING = "all_draining"
    ALL_OFFLINE = "all_offline"
    DEVICE_QUARANTINED = "device_quarantined"
    DEVICE_FAULT = "device_fault"
    BUSY_ELSEWHERE = "busy_elsewhere"
    TOO_HOT = "too_hot"
    ENDPOINT_AWAY = "endpoint_away"
    DISK_FULL = "disk_full"
    MAY_NOT_LEAVE = "may_not_leave"
    PINNED_NODE_GONE = "pinned_node_gone"
    PINNED_NODE_DOWN = "pinned_node_down"
    PINNED_NODE_UNFIT = "pinned_node_unfit"
    # somebody can, but not now
    SHORT_OF_MEMORY = "short_of_memory"
    AVOIDS_NODE = "avoids_node"
    SUSPECT_NODE = "suspect_node"
    USER_LIMIT = "user_limit"
    LEFT_FOR_FASTER = "left_for_faster"
    KEPT_SLOTS = "kept_slots"
    NO_BUDGET = "no_budget"
    # it will have its turn
    BEHIND_QUEUE = "behind_queue"
    BEHIND_BAND = "behind_band"
    BEHIND_SHARE = "behind_share"
    WAITS_TURN = "waits_turn"
    # it does not wait
    RUNNING = "running"
    COMPLETED = "completed"
    FAILED = "failed"
    CANCELLED = "cancelled"
    # nobody can tell
    DAMAGED = "damaged"
    OTHER = "other"


@dataclass(frozen=True)
class Meaning:
    """What a code means, what to do about it (with the names of facts in it), and which facts come with it."""

    says: str
    do: str
    facts: tuple[str, ...] = ()


_TURN = (
    "queue", "before_queue", "behind_queue", "behind", "behind_higher_bands", "behind_others", "start_p50_ms",
    "start_p90_ms", "finish_p50_ms", "finish_p90_ms",
)  # fmt: skip

MEANINGS: Mapping[WhyCode, Meaning] = {
    WhyCode.SCHEDULED: Meaning("it was submitted for later, and waits for its time", "", ("until_ms",)),
    WhyCode.BACKOFF: Meaning(
        "its last attempt failed, and the next one waits out its back-off",
        "'lcq task ID' shows what failed",
        ("until_ms", "failure", "retries", "max_retries"),
    ),
    WhyCode.RETRY_BUDGET: Meaning(
        "its next attempt waits, at no cost, because so many retries are being made",
        "'lcq dead' and 'lcq events' show what fails so often: {failure}",
        ("until_ms", "failure", "budget"),
    ),
    WhyCode.QUEUE_PAUSED: Meaning(
        "somebody has paused its queue", "lcq resume {queue}", ("queue", "by", "reason", "since_ms")
    ),
    WhyCode.JOB_PAUSED: Meaning(
        "somebody has paused its job", "lcq resume --job {job}", ("job", "by", "reason", "since_ms")
    ),
    WhyCode.NO_NODE: Meaning(
        "no node is online at all", "start one with lcq-agent; 'lcq nodes' shows those that were", ("known",)
    ),
    WhyCode.NO_MODEL: Meaning(
        "no node that is online has its model",
        "'lcq models pull {model}' on a node; or submit it with another model",
        ("model", "node", "left_out"),
    ),
    WhyCode.DEPENDENCY_DOWN: Meaning(
        "its model is withheld, because something beside the node that it needs is away",
        "start that again: the node {node} offers the model as soon as it answers",
        ("model", "node", "left_out"),
    ),
    WhyCode.NO_ABILITY: Meaning(
        "no node can do this type of task with its model", "submit it with another model", ("model", "task_type")
    ),
    WhyCode.NO_LABEL: Meaning(
        "no node has the labels that it requires",
        "start an agent with --label, or 'lcq reroute ID --any-label'",
        ("requires",),
    ),
    WhyCode.NO_DEVICE: Meaning(
        "its model is there, but not on a device of the kind that it needs",
        "'lcq reroute ID --queue NAME' to a queue of another kind, or add such a device",
        ("model", "device"),
    ),
    WhyCode.NO_QUEUE: Meaning(
        "its queue is not configured, or no queue is meant for as much memory",
        "'lcq queues' lists them; 'lcq reroute ID --queue NAME'",
        ("queue",),
    ),
    WhyCode.NOT_SERVED: Meaning(
        "nodes have its model, but none of their devices serves its queue",
        "'lcq reroute ID --queue NAME', or let a device serve it (agent.devices)",
        ("model", "queue"),
    ),
    WhyCode.MISSES_MEMORY: Meaning(
        "no device is large enough for it",
        "a GPU with {needs_mib} MiB, or 'lcq reroute ID --queue NAME' to a CPU queue",
        ("model", "node", "device", "needs_mib", "has_mib", "misses_mib"),
    ),
    WhyCode.ALL_QUARANTINED: Meaning(
        "the nodes that could run it are in quarantine",
        "lcq activate {node}, once its trouble is mended",
        ("node", "reason"),
    ),
    WhyCode.ALL_DRAINING: Meaning(
        "the nodes that could run it are draining, and take nothing new", "lcq activate {node}", ("node", "reason")
    ),
    WhyCode.ALL_OFFLINE: Meaning(
        "the nodes that could run it are offline", "start the agent on {node} again", ("node", "reason")
    ),
    WhyCode.DEVICE_QUARANTINED: Meaning(
        "the devices that could run it are in quarantine",
        "lcq activate {node} --device {device}, once its trouble is mended",
        ("node", "device", "reason"),
    ),
    WhyCode.DEVICE_FAULT: Meaning(
        "the devices that could run it take no work",
        "'lcq nodes' shows them; its agent takes work again when the fault is gone",
        ("node", "device", "fault"),
    ),
    WhyCode.BUSY_ELSEWHERE: Meaning(
        "other programs use the devices that could run it, and those leave them alone meanwhile",
        "nothing: {node} works again when they are done; or lcq reroute ID",
        ("node", "device", "fault"),
    ),
    WhyCode.ENDPOINT_AWAY: Meaning(
        "only functions could run it, and those that could do not answer, or want to be left alone",
        "nothing: {node} tries again by itself; see to the function, or add a node that has the model",
        ("node", "device", "fault", "until_ms"),
    ),
    WhyCode.TOO_HOT: Meaning(
        "the devices that could run it are too hot",
        "nothing: {node} works again when it is cooler; if it comes back, see to its fans and its room",
        ("node", "device", "fault"),
    ),
    WhyCode.DISK_FULL: Meaning(
        "a disk of the nodes that could run it has too little room",
        "make room on {node}: it works again when there is some",
        ("node", "device", "fault"),
    ),
    WhyCode.MAY_NOT_LEAVE: Meaning(
        "it waits for functions, and its pictures may not leave the house",
        "a scheduler moves it; where it is kept for one node: lcq reroute ID, or lcq privacy ID exportable",
        ("queue",),
    ),
    WhyCode.PINNED_NODE_GONE: Meaning(
        "it is kept for a node that the cluster does not know any more", "lcq reroute ID", ("node",)
    ),
    WhyCode.PINNED_NODE_DOWN: Meaning(
        "it is kept for a node that takes no work now",
        "wait for {node}, 'lcq activate {node}', or lcq reroute ID",
        ("node", "status", "reason"),
    ),
    WhyCode.PINNED_NODE_UNFIT: Meaning("it is kept for a node that cannot run it", "lcq reroute ID", ("node",)),
    WhyCode.SHORT_OF_MEMORY: Meaning(
        "the devices that could run it have too little free memory now",
        "free memory there ('lcq release {node}' unloads models), or lcq reroute ID",
        ("node", "device", "needs_mib", "free_mib", "misses_mib", "foreign_mib"),
    ),
    WhyCode.AVOIDS_NODE: Meaning(
        "a node that has room failed it last, so it waits for another one that can run it",
        "'lcq reroute ID --node {node}' lets that node try again",
        ("node",),
    ),
    WhyCode.SUSPECT_NODE: Meaning(
        "the node that runs it, or all that could, have missed beats",
        "nothing: if {node} stays silent it runs elsewhere; 'lcq nodes' shows since when",
        ("node", "silent_ms"),
    ),
    WhyCode.USER_LIMIT: Meaning(
        "its user has as many tasks running as it may",
        "wait for one of them to end, or raise quotas.in_flight for {user}",
        ("user", "in_flight", "most"),
    ),
    WhyCode.LEFT_FOR_FASTER: Meaning(
        "a slot is free, but a faster device, or one that has the model loaded, will have it done sooner",
        "'lcq reroute ID --node {node}' lets the slower node have it",
        ("node", "start_p50_ms", "start_p90_ms", "finish_p50_ms", "finish_p90_ms"),
    ),
    WhyCode.NO_BUDGET: Meaning(
        "only functions could run it, and the budget allows no more of their calls now",
        "wait for the next hour or day, raise serverless.budget, or add a node that has the model",
        ("queue",),
    ),
    WhyCode.KEPT_SLOTS: Meaning(
        "a slot is free, but kept for people who wait for a picture",
        "'lcq prioritise ID --priority high' lets it have one; http.interactive_slots says how many are kept",
        ("node", "kept"),
    ),
    WhyCode.BEHIND_QUEUE: Meaning(
        "the devices that could run it serve a queue of a class above too, and take turns between the users of both",
        "'lcq reroute ID --queue {before_queue}' puts it there",
        _TURN,
    ),
    WhyCode.BEHIND_BAND: Meaning(
        "tasks of a higher priority come first", "'lcq prioritise ID --priority urgent' puts it before them", _TURN
    ),
    WhyCode.BEHIND_SHARE: Meaning(
        "tasks of other users come first, by fair shares",
        "'lcq prioritise ID --priority high' puts it before those of a lower band",
        _TURN,
    ),
    WhyCode.WAITS_TURN: Meaning(
        "only its user's own tasks come first, or none at all: it waits for a slot",
        "",
        _TURN,
    ),
    WhyCode.RUNNING: Meaning(
        "it runs",
        "",
        ("node", "device", "attempt", "since_ms", "progress", "finish_p50_ms", "finish_p90_ms"),
    ),
    WhyCode.COMPLETED: Meaning("it was completed", "", ("node", "result", "finished_ms")),
    WhyCode.FAILED: Meaning(
        "it failed, and is not tried again by itself",
        "once that is mended: lcq retry ID",
        ("failure", "error_class", "node", "finished_ms"),
    ),
    WhyCode.CANCELLED: Meaning("somebody has cancelled it", "lcq retry ID", ("by", "finished_ms")),
    WhyCode.DAMAGED: Meaning("its record cannot be read", "submit it anew", ("found",)),
    WhyCode.OTHER: Meaning("what a newer scheduler tells, and this client does not know; the line says it", ""),
}


class Why(Value):
    """Why a task is where it is, at one moment: ``text`` is one line, ``hint`` what to do about it ("": nothing).

    ``facts`` are those that ``MEANINGS`` names for the code; times are ms since 1970 by Redis's clock, None: not known.
    """

    code: WhyCode
    text: str
    facts: dict[str, Fact] = Field(default_factory=dict)
    hint: str = ""

    @field_validator("code", mode="before")
    @classmethod
    def _a_newer_code_is_another_one(cls, told: Any) -> Any:
        return told if told in tuple(WhyCode) else WhyCode.OTHER


def because(code: WhyCode, text: str, **facts: Fact) -> Why:
    """A reason, with its hint."""
    return Why(code=code, text=text, facts=facts, hint=MEANINGS[code].do.format(**facts))


_PLACES = (WhyCode.BEHIND_QUEUE, WhyCode.BEHIND_BAND, WhyCode.BEHIND_SHARE, WhyCode.WAITS_TURN)


def brief(why: Why, now_ms: int) -> str:
    """The reason in the few words that a list has room for, the number and the name first.

    ``now_ms``: what Redis's clock shows.
    """
    facts = why.facts
    if why.code in _PLACES:
        ahead, kind = facts.get("behind"), ""
        if why.code is WhyCode.BEHIND_QUEUE:
            ahead, kind = facts.get("behind_queue"), f" of {facts.get('before_queue')}"
        elif why.code is WhyCode.BEHIND_BAND:
            kind = f" ({facts.get('behind_higher_bands')} of higher priority)"
        place = f"behind {ahead:,}{kind}" if isinstance(ahead, int) and ahead else "the next one"
        return f"{place}{_starts(facts.get('start_p50_ms'), now_ms)}"
    if why.code in (WhyCode.BACKOFF, WhyCode.RETRY_BUDGET, WhyCode.SCHEDULED):
        due = facts.get("until_ms")
        when = f" in {about((due - now_ms) / 1000)}" if isinstance(due, int) and due > now_ms else " now"
        of = f" after {facts['failure']}" if facts.get("failure") else ""
        budget = ": over the retry budget" if why.code is WhyCode.RETRY_BUDGET else ""
        return f"{'retry' if of else 'due'}{of}{when}{budget}"
    until = facts.get("until_ms")
    if why.code is WhyCode.ENDPOINT_AWAY and isinstance(until, int):
        rests_s = max(0, until - now_ms) / 1000
        return f"{facts['device']} rests, again in {about(rests_s)} (node {facts['node']})"
    if why.code in (WhyCode.QUEUE_PAUSED, WhyCode.JOB_PAUSED) and facts.get("by"):
        reason = f": {facts['reason']}" if facts.get("reason") else ""
        return f"{'job' if why.code is WhyCode.JOB_PAUSED else 'queue'} paused by {facts['by']}{reason}"
    return why.text.removeprefix("waits for ") if why.code is WhyCode.SHORT_OF_MEMORY else why.text


def _starts(start_ms: Fact, now_ms: int) -> str:
    if not isinstance(start_ms, int):
        return ""
    away_s = (start_ms - now_ms) / 1000
    return f", starts in {about(away_s)}" if away_s >= 1 else ", starts now"


def about(seconds: float) -> str:
    """``0.4 s``, ``12 s``, ``3 min``, ``2.5 h``: no more exact than a prediction is."""
    if seconds < 10:
        return f"{seconds:.1f} s"
    if seconds < 120:
        return f"{seconds:.0f} s"
    if seconds < 7200:
        return f"{seconds / 60:.0f} min"
    return f"{seconds / 3600:.1f} h" if seconds < 48 * 3600 else f"{seconds / 86400:.1f} d"
