"""The Lua files as Redis gets them: a header of constants from our models, the prelude, the move."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import timedelta
from functools import cached_property, lru_cache
from hashlib import sha1
from importlib import resources
from types import MappingProxyType

from lcq.config import DistributedConfig
from lcq.costs import KEPT, MOST_KEYS, ORDINARY_MEGAPIXELS
from lcq.health import FADED, SUSPECTED
from lcq.models import TaskPriority, TaskStatus
from lcq.placement import WORTH_WAITING_S
from lcq.routing import WARM_NEEDS
from lcq.state.lua_parts import needed, parts_of

# How many predicted seconds of others' work a lower band lets pass before it is served all the same.
BAND_SPANS = {
    TaskPriority.URGENT: 0,
    TaskPriority.HIGH: 600,
    TaskPriority.NORMAL: 1800,
    TaskPriority.LOW: 5400,
}
ELDERS_TURN = 10  # starts of a queue, one of which is for the task that has waited longest
ELDERS_WAIT_S = 600  # and longer than this, or than its band's span
MOST_SHARES = 4096  # users whose shares a queue remembers
WARM_SPAN_S = 2.0  # a task for a model that is warm may overtake one this much older, within its band
OTHERS_LOOKED_AT = 64  # nodes, for one that could take what this one leaves
SHARED_KEPT = timedelta(hours=1)  # what users have had of devices with several queues, after the last start there
COST_PAUSE_MS = 100  # between two attempts that are learned from, once as many are known as are kept
POISON_DEATHS = 2  # runners a task may bring down before it is left alone
MOST_LABELLED_LANES = 256  # that have tasks at a time: every claim looks through them all
STATE_FORMAT = 3  # the newest that the scripts write: raised where an older LCQ would misread it (docs/decisions/0006)
BASE_FORMAT = 2  # what state is of until something of a newer format is written: a job is paused, a task kept back
BLAME_AFTER_SUCCESS = 0.9
SPEND_KEPT = {
    "hour": timedelta(days=3),
    "day": timedelta(days=400),
    "month": timedelta(days=1200),
    "job": timedelta(days=90),
}  # of what functions were paid, after the last change
SPEND_OUT_KEPT = timedelta(minutes=10)  # jobs that have used up their budget, after the last refusal
CALLS_KEPT = timedelta(hours=24)  # what came by way of a function's one-time addresses, after the last of it
MINUTES_KEPT = timedelta(hours=25)
UNDO_KEPT = timedelta(seconds=15)  # that an operator may take an act back
ANSWERS_KEPT = timedelta(minutes=10)  # for copies of an operator's command
# What moves stand on: of each, the parts that a move needs (lua_parts).
_GROUND = ("_prelude", "_order", "_damage", "_copies", "_usage")
_MOVES = resources.files("lcq.state") / "lua"


def move_names() -> tuple[str, ...]:
    """The name of every move, one Lua file each."""
    names = (entry.name for entry in _MOVES.iterdir())
    return tuple(sorted(name[:-4] for name in names if name.endswith(".lua") and not name.startswith("_")))


def _table(pairs: dict[str, object]) -> str:
    return "{" + ", ".join(f'["{name}"] = {value}' for name, value in pairs.items()) + "}"


def _milliseconds(seconds: float) -> int:
    return int(seconds * 1000)


@dataclass(frozen=True)
class Scripts:
    """The text and SHA-1 of every move under one configuration."""

    config: DistributedConfig

    @cached_property
    def header(self) -> str:
        kept = self.config.retention
        lines = [
            f"local STATE = {_table({status.name: repr(status.value) for status in TaskStatus})}",
            f"local TERMINAL = {_table({status.value: 'true' for status in TaskStatus if status.is_terminal})}",
            f"local BANDS = {_table({priority.value: span for priority, span in BAND_SPANS.items()})}",
            "local RETENTION_MS = "
            + _table(
                {
                    TaskStatus.COMPLETED.value: _milliseconds(kept.completed_s),
                    TaskStatus.CANCELLED.value: _milliseconds(kept.completed_s),
                    TaskStatus.FAILED.value: _milliseconds(kept.failed_s),
                }
            ),
            f"local EVENTS_KEPT = {kept.events}",
            f"local ANSWERS_KEPT_MS = {_milliseconds(ANSWERS_KEPT.total_seconds())}",
            f"local UNDO_MS = {_milliseconds(UNDO_KEPT.total_seconds())}",
            f"local MINUTES_KEPT_S = {int(MINUTES_KEPT.total_seconds())}",
            f"local SPEND_OUT_S = {int(SPEND_OUT_KEPT.total_seconds())}",
            f"local SPEND_KEPT_S = {_table({span: int(kept.total_seconds()) for span, kept in SPEND_KEPT.items()})}",
            f"local USAGE_KEPT_S = {int(self.config.report.keep_days * 24 * 3600)}",
            f"local CALLS_KEPT_MS = {_milliseconds(CALLS_KEPT.total_seconds())}",
            f"local ELDERS_TURN = {ELDERS_TURN - 1}",
            f"local ELDERS_WAIT = {ELDERS_WAIT_S}",
            f"local MOST_SHARES = {MOST_SHARES}",
            f"local WARM_SPAN = {WARM_SPAN_S}",
            f"local OTHERS_LOOKED_AT = {OTHERS_LOOKED_AT}",
            f"local SHARED_KEPT_MS = {_milliseconds(SHARED_KEPT.total_seconds())}",
            f"local ORDINARY_MEGAPIXELS = {ORDINARY_MEGAPIXELS}",
            f"local WORTH_WAITING = {WORTH_WAITING_S}",
            f"local COSTS_KEPT = {KEPT}",
            f"local MOST_COSTS = {MOST_KEYS}",
            f"local COST_PAUSE_MS = {COST_PAUSE_MS}",
            f"local WARM_NEEDS = {WARM_NEEDS}",
            f"local QUEUE_KINDS = {_table({queue.name: repr(queue.kind.value) for queue in self.config.queues})}",
            f"local POISON_DEATHS = {POISON_DEATHS}",
            f"local MOST_LABELLED_LANES = {MOST_LABELLED_LANES}",
            f"local FORMAT = {STATE_FORMAT}",
            f"local BASE_FORMAT = {BASE_FORMAT}",
            f"local SUSPECTED = {SUSPECTED - FADED}",
            f"local BLAME_AFTER_SUCCESS = {BLAME_AFTER_SUCCESS}",
            f"local BLAME_HALF_LIFE_MS = {_milliseconds(self.config.quarantine.half_life_s)}",
        ]
        return "\n".join(lines) + "\n"

    @cached_property
    def texts(self) -> Mapping[str, str]:
        return _texts_under(self.header)

    @staticmethod
    def ground() -> str:
        """What all moves share."""
        return "".join((_MOVES / f"{part}.lua").read_text(encoding="utf-8") for part in _GROUND)

    @staticmethod
    def body(name: str) -> str:
        """The move itself."""
        text = (_MOVES / f"{name}.lua").read_text(encoding="utf-8")
        return f"\nlocal function move()\n{text}\nend\nreturn once(move)\n"

    @cached_property
    def digests(self) -> Mapping[str, str]:
        return _digests_under(self.header)


@lru_cache(maxsize=8)
def _texts_under(header: str) -> Mapping[str, str]:
    """By move, its script. The files stay as they are; only the header depends on the configuration."""
    parts = parts_of(header + Scripts.ground())
    bodies = {name: Scripts.body(name) for name in move_names()}
    texts = {name: f'local MOVE = "{name}"\n' + needed(parts, body) + body for name, body in bodies.items()}
    return MappingProxyType(texts)


@lru_cache(maxsize=8)
def _digests_under(header: str) -> Mapping[str, str]:
    # Redis names scripts by SHA-1; no secrecy hangs on it.
    texts = _texts_under(header)
    digests = {name: sha1(text.encode(), usedforsecurity=False).hexdigest() for name, text in texts.items()}
    return MappingProxyType(digests)
