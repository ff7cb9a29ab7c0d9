"""The network of the agents in this process: whatever they connect to goes through proxies, to be frozen together."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from dataclasses import dataclass, field

import pytest

import lcq.sockets
import worker.lifeline
from tests.proxy import Proxy


@dataclass
class Cable:
    """One proxy for each port that an agent was told: control sockets, rings, lifelines of every scheduler."""

    stack: contextlib.ExitStack
    proxies: dict[int, Proxy] = field(default_factory=dict)
    is_cut: bool = False

    def through(self, address: str) -> str:
        """``address`` ("…HOST:PORT"), by way of a proxy."""
        head, _, port = address.rpartition(":")
        if int(port) not in self.proxies:
            proxy = self.proxies[int(port)] = self.stack.enter_context(Proxy(int(port)))
            if self.is_cut:
                proxy.freeze()
        return f"{head}:{self.proxies[int(port)].port}"

    def cut(self) -> None:
        """From now on nothing passes, and nobody is told, whatever is connected anew."""
        self.is_cut = True
        for proxy in self.proxies.values():
            proxy.freeze()

    def mend(self) -> None:
        """What was under way goes on."""
        self.is_cut = False
        for proxy in self.proxies.values():
            proxy.thaw()


@contextlib.contextmanager
def laid_cable(monkeypatch: pytest.MonkeyPatch) -> Iterator[Cable]:
    """Lay the cable for every agent that is started in this process from now on."""
    with contextlib.ExitStack() as stack:
        cable = Cable(stack)
        connect, disconnect = lcq.sockets.Mailbox.connect, lcq.sockets.Mailbox.disconnect
        attach = worker.lifeline.Lifeline.attach
        monkeypatch.setattr(lcq.sockets.Mailbox, "connect", lambda own, at: connect(own, cable.through(at)))
        monkeypatch.setattr(lcq.sockets.Mailbox, "disconnect", lambda own, at: disconnect(own, cable.through(at)))
        monkeypatch.setattr(
            worker.lifeline.Lifeline,
            "attach",
            lambda own, at, key="": attach(own, cable.through(at) if at else at, key),
        )
        yield cable
