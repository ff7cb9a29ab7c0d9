"""Records a real cluster for the history checker: its events as they come, its keys at the end, its clients' notes."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Callable, Iterator, Mapping
from types import TracebackType
from typing import Self

import redis

from lcq.models import Event
from lcq.state import records
from tests.audit import NO_TTL, Ledger, class_of, keys_of, ledger_of

_POLL_S = 0.05
_AT_ONCE = 2000
_FIRST = "0-0"


class EventRecorder:
    """Follows the event stream by id from its beginning, through every loss of Redis, so that its cap loses nothing.

    ``connect`` gives a client of whichever server is the primary now. Where a new primary does not know what was read
    from the old one, that is put aside for ``undone``, back to the last event that both know.
    """

    def __init__(self, connect: Callable[[], redis.Redis], *, root: str = "{lcq}") -> None:
        self.events: list[Event] = []
        self._put_aside: list[Event] = []
        self.trimmed = ""  # set where the stream's cap was faster than we
        self._connect = connect
        self._stream = f"{root}:events"
        self._stop = threading.Event()
        self._turn = threading.Lock()
        self._thread = threading.Thread(target=self._follow, name="event recorder", daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stop.set()
        self._thread.join(10)

    @property
    def undone(self) -> list[Event]:
        """What was read and is not so any more: of servers that were primary once."""
        known = {event.id: event for event in self.events}
        return [event for event in self._put_aside if known.get(event.id) != event]

    @property
    def last_id(self) -> str:
        return self.events[-1].id if self.events else _FIRST

    def catch_up(self) -> None:
        """Read all that has happened until now; Redis must be there."""
        with contextlib.closing(self._connect()) as client:
            while self._read(client):
                pass

    def _follow(self) -> None:
        while not self._stop.is_set():
            with contextlib.suppress(redis.RedisError, OSError), contextlib.closing(self._connect()) as client:
                while not self._stop.wait(_POLL_S):
                    while self._read(client):
                        pass
            self._stop.wait(_POLL_S)

    def _read(self, client: redis.Redis) -> bool:
        """Take in the next events; answers whether there may be more."""
        with self._turn:
            self._drop_what_was_undone(client)
            last = self.events[-1:]
            pipe = client.pipeline()  # both of one server: between two questions the primary may have become another
            pipe.xrange(self._stream, self.last_id if last else "-", self.last_id if last else "-", count=1)
            pipe.xrange(self._stream, f"({self.last_id}" if last else "-", "+", count=_AT_ONCE)
            there, found = pipe.execute()
            if last and [records.event(*entry) for entry in there] != last:
                return True
            self.events += [records.event(*entry) for entry in found]
            return len(found) == _AT_ONCE

    def _drop_what_was_undone(self, client: redis.Redis) -> None:
        gone = []
        while self.events and not self._is_there(client, self.events[-1]):
            gone.append(self.events.pop())
        if gone and not self.events:  # not one of ours is left: that was no failover, we were too slow
            self.trimmed = f"the stream was cut off after {gone[0].id}"
        self._put_aside += reversed(gone)

    def _is_there(self, client: redis.Redis, event: Event) -> bool:
        return [records.event(*entry) for entry in client.xrange(self._stream, event.id, event.id)] == [event]


def snapshot(client: redis.Redis, *, root: str = "{lcq}") -> tuple[Ledger, Mapping[str, bool]]:
    """Everything the server holds, and of each key whether it expires. Keys of no known class are only named."""
    keys = keys_of(client)
    ours = [key for key in keys if key.name.startswith(f"{root}:") and class_of(key.name.removeprefix(f"{root}:"))]
    return ledger_of(ours, root), {key.name: key.ttl_s != NO_TTL for key in keys}


@contextlib.contextmanager
def recorded(url: str) -> Iterator[EventRecorder]:
    """The events of the one server at ``url``."""

    def connect() -> redis.Redis:
        return redis.Redis.from_url(url, decode_responses=True, socket_timeout=5)

    with EventRecorder(connect) as recorder:
        yield recorder
