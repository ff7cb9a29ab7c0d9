"""ServerWatch: looks after the server itself. Is it there, is it safe, is it still the same one?"""

from __future__ import annotations

import asyncio
import logging
import random
import time
from collections import deque
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from typing import Any

from lcq.errors import StateOverloaded, StateUnavailable, UnsafeState
from lcq.state.connection import Client, leave_former_primary, our_errors, risk_of

_log = logging.getLogger(__name__)
_LOOK_S = 0.5
_LOOK_ANSWER_S = 3.0
_LOOKS_KEPT = 240


@dataclass(frozen=True)
class Failover:
    """Another server stands where the one was that had acknowledged our writes.

    ``lost_ms``, ``lost_bytes``: at most how much of what was acknowledged at the end it may lack, as far as this
    scheduler can tell; the bytes are those that were seen, and more may have been written since the last look.
    """

    run_id: str
    lost_ms: int
    lost_bytes: int

    def __str__(self) -> str:
        return (
            f"failover: up to {self.lost_ms} ms ({self.lost_bytes} bytes seen) of acknowledged writes may be lost; "
            "who waits for a task of that time submits it again by itself"
        )


@dataclass(frozen=True)
class _Look:
    at: float
    run_id: str
    history: str  # the replication id: servers that share one share their writes up to an offset
    offset: int


class ServerWatch:
    """Looks at the server twice a second, and hears how each pipeline of moves went. Tells each change once.

    ``risk``: why the server may lose data by its policy now, None while it may not. ``noted``: called with every
    failover that was noticed.
    """

    def __init__(
        self,
        url: str,
        redis: Client,
        others: Sequence[Client],
        *,
        unsafe: bool,
        noted: Callable[[Failover], Awaitable[None]],
    ) -> None:
        self._url = url
        self._redis = redis
        self._clients = (redis, *others)
        self._unsafe = unsafe
        self._noted = noted
        self.risk: UnsafeState | None = None
        self._away_since: float | None = None
        self._is_full = False
        self._answered_at = time.monotonic()
        self._looks: deque[_Look] = deque(maxlen=_LOOKS_KEPT)

    @property
    def trouble(self) -> str:
        """What is wrong with the server now, for a person; "": nothing."""
        if self._away_since is not None:
            return "Redis does not answer"
        return str(self.risk or "")

    # ------------------------------------------------------------ what the moves tell

    def answered(self) -> None:
        """A move was made."""
        self._answered_at = time.monotonic()
        if self._away_since is not None:
            _log.warning("Redis answers again, after %.1f s", self._answered_at - self._away_since)
            self._away_since = None

    def failed(self, error: StateUnavailable) -> None:
        """A pipeline of moves, or a look, was in vain."""
        if self._away_since is None:
            self._away_since = time.monotonic()
            _log.warning("%s", error)

    def took_task(self) -> None:
        if self._is_full:
            self._is_full = False
            _log.warning("Redis has room for new tasks again")

    def refused_task(self, error: StateOverloaded) -> None:
        if not self._is_full:
            self._is_full = True
            _log.warning("%s", error)

    # ------------------------------------------------------------ looking

    async def run(self) -> None:
        """Look until cancelled."""
        in_vain = 0
        while True:
            try:
                async with our_errors(self._url, within_s=_LOOK_ANSWER_S):
                    for client in self._clients:
                        await leave_former_primary(client)
                    pipe = self._redis.pipeline(transaction=False)
                    for section in ("server", "replication", "memory", "persistence"):
                        pipe.info(section)
                    server, replication, memory, persistence = await pipe.execute()
                self._judge_risk(memory, persistence)
                await self._judge_identity(server, replication)
                in_vain = 0
            except StateUnavailable as error:
                in_vain += 1
                if in_vain > 1:  # a single silence may be our own: this process may have stood still
                    self.failed(error)
            await asyncio.sleep(random.uniform(_LOOK_S / 2, _LOOK_S))

    def _judge_risk(self, memory: dict[str, Any], persistence: dict[str, Any]) -> None:
        before, self.risk = self.risk, None if self._unsafe else risk_of(self._url, memory, persistence)
        if self.risk is not None and (before is None or str(before) != str(self.risk)):
            _log.error("%s; new tasks are refused until then", self.risk)
        elif before is not None and self.risk is None:
            _log.warning("Redis keeps what it accepts again: new tasks are taken")

    async def _judge_identity(self, server: dict[str, Any], replication: dict[str, Any]) -> None:
        now = _Look(
            at=time.monotonic(),
            run_id=str(server["run_id"]),
            history=str(replication.get("master_replid", "")),
            offset=int(replication.get("master_repl_offset", 0)),
        )
        before = self._looks[-1] if self._looks else None
        if before is not None and now.run_id != before.run_id:
            failover = self._compared(now, replication)
            self._looks.clear()
            if failover is not None:
                _log.warning("%s", failover)
                await self._noted(failover)
            else:
                _log.warning("Redis was started anew; it has what its log had on the disk")
        self._looks.append(now)

    def _compared(self, now: _Look, replication: dict[str, Any]) -> Failover | None:
        """What ``now`` may lack of what the earlier server had; None if they do not share a history: a restart."""
        last = self._looks[-1]
        if last.history == replication.get("master_replid2"):
            kept = int(replication["second_repl_offset"]) - 1
        elif last.history == now.history:
            kept = now.offset
        else:
            return None
        # What a look saw within the shared history was replicated by then; what came later may not have been.
        sure = max((look.at for look in self._looks if look.offset <= kept), default=self._looks[0].at)
        return Failover(
            run_id=now.run_id,
            lost_ms=round(1000 * max(0.0, max(self._answered_at, last.at) - sure)),
            lost_bytes=max(0, last.offset - kept),
        )
