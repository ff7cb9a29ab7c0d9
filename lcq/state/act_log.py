"""ActLog: who did what, newest first, and what of it can still be taken back. Reads Redis, changes nothing."""

from __future__ import annotations

from lcq.models import ActRecord
from lcq.state.connection import Client, our_errors
from lcq.state.keys import Keys

_PIECE = 500  # entries looked at in one command
_LOOKED_AT = 20_000  # and for one page in all


class ActLog:
    """Reads the audit."""

    def __init__(self, redis: Client, keys: Keys, url: str) -> None:
        self._redis, self._keys, self._url = redis, keys, url

    async def page(self, *, before: str = "", actor: str = "", limit: int = 100) -> tuple[ActRecord, ...]:
        """The newest acts below ``before`` (the id of one; "": the newest of all), of ``actor`` alone if named."""
        found: list[ActRecord] = []
        last, looked_at = before, 0
        while len(found) < limit and looked_at < _LOOKED_AT:
            async with our_errors(self._url):
                piece = await self._redis.xrevrange(self._keys.acts, f"({last}" if last else "+", "-", count=_PIECE)
            acts = [_act(place, fields) for place, fields in piece if not actor or fields.get("actor") == actor]
            found += acts[: limit - len(found)]
            looked_at += len(piece)
            if len(piece) < _PIECE:
                break
            last = piece[-1][0]
        left = await self._undo_left([one.command for one in found])
        return tuple(one.model_copy(update={"undo_ms": left.get(one.command, 0)}) for one in found)

    async def undoable(self, command_id: str, *, by: str = "") -> tuple[str, ...]:
        """To what this command has done something that can still be taken back: ids, ``queue NAME``, ``comment ID``,
        ``cause CODE: TEXT``, ``silence RULE``.

        And what the command ``by`` has taken back already, so that a copy of it finds the same.
        """
        async with our_errors(self._url):
            left = await self._redis.hkeys(self._keys.undo(command_id))
            done = await self._redis.hkeys(self._keys.done(by)) if by else []
        pairs = (field.split(" ", 1) for field in done)
        kinds = {
            "undo_queue": "queue ", "undo_comment": "comment ", "undo_acknowledgement": "cause ",
            "undo_silence": "silence ",
        }  # fmt: skip
        taken = (kinds.get(move, "") + name for move, name in pairs)
        return tuple(dict.fromkeys([*left, *taken]))

    async def _undo_left(self, commands: list[str]) -> dict[str, int]:
        if not commands:
            return {}
        async with our_errors(self._url):
            pipe = self._redis.pipeline(transaction=False)
            for command in commands:
                pipe.pttl(self._keys.undo(command))
            left = await pipe.execute()
        return {command: ms for command, ms in zip(commands, left, strict=True) if ms > 0}


def _act(place: str, fields: dict[str, str]) -> ActRecord:
    told = {name: fields.get(name, "") for name in ("act", "actor", "reason", "command", "on", "outcome")}
    return ActRecord(id=place, at_ms=int(place.partition("-")[0]), **told)
