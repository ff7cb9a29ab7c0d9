"""Settings that schedulers and nodes of a cluster have to agree on, told as fingerprints: no value is. Pure."""

from __future__ import annotations

import hashlib
import json
from collections import Counter
from collections.abc import Mapping
from types import MappingProxyType
from typing import Any

from lcq.config import DistributedConfig

EVERYWHERE = ("limits", "storage.roots", "storage.url", "storage.urls", "storage.web")
"""What a scheduler and an agent both judge by: where they differ, one refuses what the other takes."""
OF_AGENTS = ("models.sources", "models.allow")
"""What nodes with the same models have to agree on."""
OF_SCHEDULERS = ("leases", "retries", "quarantine", "shares", "quotas", "retention", "queues")
"""What schedulers on one Redis all act by."""
_LENGTH = 8
_NONE: Mapping[str, str] = MappingProxyType({})


class Agreed:
    """The fingerprints of settings that may change while a process runs; made anew when they have."""

    def __init__(self, keys: tuple[str, ...]) -> None:
        self._keys = keys
        self._of: DistributedConfig | None = None
        self._told = ""

    def told(self, config: DistributedConfig) -> str:
        """As ``fingerprints``."""
        if config is not self._of:
            self._of, self._told = config, fingerprints(config, self._keys)
        return self._told


def fingerprints(config: DistributedConfig, keys: tuple[str, ...]) -> str:
    """One fingerprint for each of ``keys``, as ``key=1a2b3c4d key=…``."""
    values = config.model_dump(mode="json")
    return " ".join(f"{key}={_fingerprint(_at(values, key))}" for key in keys)


def read_fingerprints(told: str) -> Mapping[str, str]:
    """By key, what a peer has told; empty if nothing, as an older one does."""
    return dict(pair.split("=", 1) for pair in told.split() if "=" in pair) if told else _NONE


def differing(told: Mapping[str, str], others: Mapping[str, Mapping[str, str]], head: Mapping[str, str]) -> list[str]:
    """The keys in which ``told`` differs from ``head``, the scheduler's; where that tells nothing, from most others."""
    out = []
    for key, mark in told.items():
        if key in head:
            wanted = head[key]
        else:
            votes = Counter(one[key] for one in others.values() if key in one)
            wanted = min(votes, key=lambda mark: (-votes[mark], mark), default=mark)
        if mark != wanted:
            out.append(key)
    return out


def _at(values: Mapping[str, Any], key: str) -> Any:
    found: Any = values
    for step in key.split("."):
        found = found[step]
    return found


def _fingerprint(value: Any) -> str:
    return hashlib.sha256(json.dumps(value, sort_keys=True).encode()).hexdigest()[:_LENGTH]
