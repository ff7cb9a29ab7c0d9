"""AccessBook: the keys that may connect, and the handshakes that failed. Reads Redis, changes nothing."""

from __future__ import annotations

import json
from dataclasses import dataclass

from pydantic import ValidationError

from lcq.key_record import KeyRecord
from lcq.state.connection import Client, our_errors
from lcq.state.keys import Keys


@dataclass(frozen=True)
class FailedHandshakes:
    """How many connections did not come about for one reason, in all; the last one: when, and who."""

    reason: str
    count: int
    last_ms: int = 0
    last: str = ""


def key_record(text: str) -> KeyRecord:
    """Raises:
    ValueError: it is no record of a key.
    """
    told = json.loads(text)
    known = {name: value for name, value in told.items() if name in KeyRecord.model_fields}  # a newer LCQ may say more
    return KeyRecord.model_validate(known)


class AccessBook:
    """Reads who may connect."""

    def __init__(self, redis: Client, keys: Keys, url: str) -> None:
        self._redis, self._keys, self._url = redis, keys, url

    async def records(self) -> tuple[KeyRecord, ...]:
        """Every key that may connect, invitations, and those that once might. One that cannot be read is none."""
        async with our_errors(self._url):
            told = await self._redis.hgetall(self._keys.access)
        found = []
        for text in told.values():
            try:
                found.append(key_record(text))
            except (ValueError, ValidationError, TypeError, AttributeError):
                continue
        return tuple(sorted(found, key=lambda record: (record.at_ms, record.key)))

    async def failed_handshakes(self) -> tuple[FailedHandshakes, ...]:
        """By reason, since the state began, the most frequent first."""
        async with our_errors(self._url):
            told = await self._redis.hgetall(self._keys.handshakes)
        found = []
        for reason, text in told.items():
            if reason.startswith("last ") or not text.isdigit():
                continue
            last_ms, _, who = told.get(f"last {reason}", "").partition(" ")
            found.append(FailedHandshakes(reason, int(text), int(last_ms) if last_ms.isdigit() else 0, who))
        return tuple(sorted(found, key=lambda one: (-one.count, one.reason)))
