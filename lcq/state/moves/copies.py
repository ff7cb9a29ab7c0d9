"""Whole records read out of the state for a backup, and put back into an empty one."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from lcq.errors import RestoreRefused
from lcq.state.connection import our_errors
from lcq.state.moves.mover import Mover

_PIECE = 1000  # values that one script puts back
_EVENTS = 200  # entries of a stream that one does
_MOST_EVENTS = 2000  # that the last look may have to follow at once
_SCAN = 1000


@dataclass(frozen=True)
class CopiedTask:
    """A task's hash and its attempts, as Redis has them; no fields: it is not there any more."""

    id: str
    fields: tuple[str, ...]  # name, value, name, value, …
    attempts: tuple[str, ...]


@dataclass(frozen=True)
class CopiedKey:
    """A key that belongs to no single task. ``ttl_ms``: -1 where it has no time to live."""

    name: str  # without the namespace
    kind: str
    ttl_ms: int
    value: str | tuple[str, ...]


@dataclass(frozen=True)
class CopiedRest:
    """What had changed until the moment (ms since 1970, Redis's clock) that a backup shows."""

    at_ms: int
    last_event: str
    tasks: tuple[CopiedTask, ...]
    keys: tuple[CopiedKey, ...]


Entry = tuple[str, dict[str, str]]


class CopyMoves(Mover):
    """What ``lcq.backup`` is made of. Nothing that reads here changes anything."""

    # ------------------------------------------------------------ out of the state

    async def copy_page(self, after: str, limit: int) -> tuple[CopiedTask, ...]:
        """The next tasks behind an id, in the order of their ids; "": from the first one."""
        return copied_tasks((await self._move("copy_tasks", after, limit))[1:])

    async def copy_tasks(self, ids: Sequence[str]) -> tuple[CopiedTask, ...]:
        """These tasks, as they are now."""
        return copied_tasks((await self._move("copy_tasks", "", 0, *ids))[1:]) if ids else ()

    async def copy_keys(self, names: Sequence[str]) -> tuple[CopiedKey, ...]:
        """These keys, named without the namespace, as they are now; those that are gone are left out."""
        return tuple(_keys((await self._move("copy_keys", *names))[1:])) if names else ()

    async def copy_rest(self, since: str, ids: Sequence[str], names: Sequence[str]) -> CopiedRest | str:
        """All that events since ``since`` tell of, and these tasks and keys, as they are at one moment.

        Or "more", where so much has happened since that it has to be read piece by piece first; or "gap", where the
        stream of events does not reach back so far.
        """
        answer = await self._move("copy_rest", since, _MOST_EVENTS, len(ids), *ids, *names)
        if answer[0] != "ok":
            return str(answer[0])
        return CopiedRest(int(answer[1]), str(answer[2]), copied_tasks(answer[3]), tuple(_keys(answer[4])))

    async def key_names(self) -> list[str]:
        """Every key of the namespace, without it, but those of single tasks. One may be there twice."""
        root, cursor, names = f"{self.keys.root}:", 0, []
        alone = ("task:", "attempts:", "idem:")
        while True:
            async with our_errors(self.url):
                cursor, found = await self._redis.scan(cursor, match=f"{root}*", count=_SCAN)
            short = (name.removeprefix(root) for name in found)
            names += [name for name in short if not name.startswith(alone)]
            if not int(cursor):
                return names

    async def stream(self, name: str, *, after: str, until: str = "+", limit: int = 1000) -> list[Entry]:
        """Entries of a stream behind one id, in their order."""
        async with our_errors(self.url):
            found = await self._redis.xrange(f"{self.keys.root}:{name}", f"({after}", until, count=limit)
        return [(entry, dict(fields)) for entry, fields in found]

    # ------------------------------------------------------------ into an empty one

    async def begin_restore(self, since: str) -> None:
        """Close the namespace to schedulers until ``end_restore``.

        Raises:
            RestoreRefused: one lives there.
        """
        answer = await self._move("restore_begin", since)
        if answer[0] == "alive":
            raise RestoreRefused(
                f"the scheduler {answer[1]} works on this state",
                hint="stop all schedulers first (lcq up, too); one that was killed counts for 6 s more",
            )

    async def restore_key(self, key: CopiedKey) -> None:
        """Put a key back that is not there."""
        if isinstance(key.value, str):
            await self._move("restore_key", key.name, key.kind, key.ttl_ms, json.dumps(key.value, ensure_ascii=False))
            return
        for start in range(0, len(key.value), _PIECE):
            piece = json.dumps(key.value[start : start + _PIECE], ensure_ascii=False)
            await self._move("restore_key", key.name, key.kind, key.ttl_ms, piece)

    async def restore_entries(self, stream: str, entries: Sequence[Entry]) -> None:
        """Put entries of a stream back, under the ids that they had; all those behind must come later."""
        for start in range(0, len(entries), _EVENTS):
            told = [
                [entry, [text for pair in fields.items() for text in pair]]
                for entry, fields in entries[start : start + _EVENTS]
            ]
            await self._move("restore_key", stream, "stream", -1, json.dumps(told, ensure_ascii=False))

    async def restore_task(self, task: CopiedTask) -> str:
        """Put a task back, and answer the state it has now; one that ran is queued."""
        fields, attempts = (json.dumps(one, ensure_ascii=False) for one in (task.fields, task.attempts))
        answer = await self._move("restore_task", task.id, fields, attempts)
        return str(answer[1]) if answer[0] == "ok" else ""

    async def end_restore(self, *, state_format: int, cluster: str) -> None:
        """Open the namespace to schedulers again, as the state of that cluster."""
        queues = (queue.name for queue in self.config.queues)
        await self._move("restore_end", state_format, cluster, *queues)


def copied_tasks(flat: Sequence[Any]) -> tuple[CopiedTask, ...]:
    """Tasks as scripts tell them."""
    return tuple(_tasks(flat))


def _tasks(flat: Sequence[Any]) -> Iterator[CopiedTask]:
    for name, fields, attempts in zip(flat[::3], flat[1::3], flat[2::3], strict=True):
        yield CopiedTask(name, tuple(fields), tuple(attempts))


def _keys(flat: Sequence[Any]) -> Iterator[CopiedKey]:
    for name, kind, ttl_ms, value in zip(flat[::4], flat[1::4], flat[2::4], flat[3::4], strict=True):
        yield CopiedKey(name, kind, int(ttl_ms), value if isinstance(value, str) else tuple(value))
