"""What earlier versions of the protocol said otherwise: how answers are told to agents and clients of those.

The rule is docs/decisions/0006-versions.md. What is new is optional, and ignored by who does not know it, so only what
has changed its form stands here.
"""

from __future__ import annotations

from typing import Any

_SINCE = {"release": 2}  # orders, by the first version that knows them


def knows_order(version: int, order: str) -> bool:
    """Whether an agent of that protocol version understands ``order``."""
    return _SINCE.get(order, 1) <= version


def in_words_of_1(told: dict[str, Any]) -> dict[str, Any]:
    """An answer as protocol 1 had it: of a node's models only the kinds of device were known."""
    nodes = told.get("nodes")
    if not isinstance(nodes, list):
        return told
    return told | {"nodes": [node | {"capability": _capability_of_1(node["capability"])} for node in nodes]}


def _capability_of_1(capability: dict[str, Any]) -> dict[str, Any]:
    return capability | {"models": {name: offer["kinds"] for name, offer in capability["models"].items()}}
