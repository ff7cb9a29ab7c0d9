"""What a program uses to talk to a cluster: AsyncClient, and Client for code without an event loop.

The names are found when they are first used: an agent wants only the addresses.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from lcq.client.addresses import find_schedulers as find_schedulers
    from lcq.client.addresses import listens as listens
    from lcq.client.addresses import looks_around as looks_around
    from lcq.client.asynchronous import AsyncClient as AsyncClient
    from lcq.client.blocking import Client as Client
    from lcq.client.login import login_name as login_name

_HOMES = {
    "AsyncClient": "asynchronous",
    "Client": "blocking",
    "find_schedulers": "addresses",
    "listens": "addresses",
    "login_name": "login",
    "looks_around": "addresses",
}


def __getattr__(name: str) -> Any:
    home = _HOMES.get(name)
    if home is None:
        raise AttributeError(f"module 'lcq.client' has no attribute {name!r}")
    return getattr(import_module(f"lcq.client.{home}"), name)
