"""Which clusters a console can go to: the contexts of the settings. No terminal here."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from lcq.errors import without_password
from lcq.lang import tr

if TYPE_CHECKING:
    from lcq.config import ContextConfig, DistributedConfig

OUTSIDE = "(none)"
"""How the cluster outside of all contexts is called."""


@dataclass(frozen=True)
class ContextChoice:
    """A cluster to choose: ``name`` is "" for the one outside of all contexts."""

    name: str
    title: str
    where: str
    here: bool


def choices(config: DistributedConfig) -> list[ContextChoice]:
    """All clusters that these settings name, the one that is looked at among them."""
    outside = config.in_context("")
    found = [ContextChoice("", OUTSIDE, _where(outside), not config.context)]
    found += [
        ContextChoice(name, name, _where(there), config.context == name) for name, there in config.contexts.items()
    ]
    return found


def _where(there: DistributedConfig | ContextConfig) -> str:
    redis = tr("its own Redis") if there.redis.is_private else without_password(there.redis.address)
    scheduler = f"{there.scheduler_host}:{there.zeromq.control_port}"
    return ", ".join((scheduler, redis, *([tr("PRODUCTION")] if there.production else [])))
