"""Leftovers: staged results that an agent left behind when it was killed, once their tasks have ended without them.

An agent that lives clears up behind itself, and an attempt that finishes clears up behind those before it. What is
left is the file of an attempt whose agent died and that no later one followed: an older one was committed late, or
the task was cancelled.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import logging
import os
import re
import time
from collections import OrderedDict
from collections.abc import Callable, Iterable
from pathlib import Path

from lcq.errors import LcqError, TaskNotFound
from worker.line import ControlLine

_log = logging.getLogger(__name__)

Key = tuple[str, int]

_STAGED = re.compile(r"\.(?P<task>[0-9a-z]{16})-(?P<attempt>\d+)\.lcq-tmp$")
_EVERY_S = 30.0
_OF_THE_TIME = 100  # looking takes at most one part in so many of an agent's time
_AGE_S = 15.0  # of a file that may be looked at: a younger one is most likely just being written
_FOLDERS = 16  # the last ones used
_AT_ONCE = 50
_ANSWER_S = 10.0
_STILL_WANTED = frozenset({"completed", "running"})


class Leftovers:
    """Remembers in ``file`` where results went, and clears up there. ``is_ours``: whether an attempt's file is in use.

    ``await clear_up()`` goes on as long as the agent lives.
    """

    def __init__(self, file: Path, line: ControlLine, *, is_ours: Callable[[Key], bool]) -> None:
        self._file = file
        self._line = line
        self._is_ours = is_ours
        self._folders: OrderedDict[str, None] = OrderedDict.fromkeys(self._recall())

    def _recall(self) -> list[str]:
        try:
            told = json.loads(self._file.read_text(encoding="utf-8"))
        except (OSError, ValueError):  # none yet, or damaged: then what was left there stays
            return []
        return [folder for folder in told if isinstance(folder, str)] if isinstance(told, list) else []

    def expect_in(self, folder: Path) -> None:
        """An attempt whose result goes into ``folder`` is about to begin."""
        name = str(folder)
        is_new = name not in self._folders
        self._folders[name] = None
        self._folders.move_to_end(name)
        if len(self._folders) > _FOLDERS:
            self._folders.popitem(last=False)
        if is_new:
            fresh = self._file.with_suffix(".tmp")
            with contextlib.suppress(OSError):  # a full disk must not stop the work
                try:
                    fresh.write_text(json.dumps(list(self._folders)), encoding="utf-8")
                    fresh.replace(self._file)
                finally:
                    fresh.unlink(missing_ok=True)

    async def clear_up(self) -> None:
        """Look every now and then, for ever."""
        while True:
            await asyncio.sleep(_EVERY_S)
            began = time.monotonic()
            found = await asyncio.to_thread(_staged_in, tuple(self._folders))
            spent_s = time.monotonic() - began
            try:
                await self._remove(found)
            except LcqError as error:
                _log.debug("what is left of earlier attempts is not looked at now: %s", error)
            await asyncio.sleep(spent_s * _OF_THE_TIME)

    async def _remove(self, found: dict[str, Key]) -> None:
        asked = {path: key for path, key in found.items() if not self._is_ours(key)}
        ids = tuple(dict.fromkeys(task for task, _ in asked.values()))[:_AT_ONCE]
        if not ids:
            return
        from lcq.wire.questions import GetTasks, History  # few starts find any leftovers

        records = (await self._line.ask(GetTasks(ids=ids), patience_s=_ANSWER_S)).tasks
        for ended in [record.id for record in records if record.status.is_terminal]:
            try:
                history = await self._line.ask(History(task_id=ended), patience_s=_ANSWER_S)
            except TaskNotFound:
                continue
            if not history.record.status.is_terminal:
                continue  # somebody has asked for a new run in between
            wanted = {(ended, one.number) for one in history.attempts if one.outcome in _STILL_WANTED}
            for path, key in asked.items():
                if key[0] == ended and key not in wanted:
                    _log.info("removing %s: its attempt has ended without it", path)
                    await asyncio.to_thread(_unlink, path)


def _staged_in(folders: Iterable[str]) -> dict[str, Key]:
    """The staged files there that are not quite new, with the attempts whose they are."""
    found: dict[str, Key] = {}
    written_before = time.time() - _AGE_S
    for folder in folders:
        with contextlib.suppress(OSError), os.scandir(folder) as entries:
            for entry in entries:
                parts = _STAGED.search(entry.name)
                if parts and entry.stat(follow_symlinks=False).st_mtime < written_before:
                    found[entry.path] = (parts["task"], int(parts["attempt"]))
    return found


def _unlink(path: str) -> None:
    with contextlib.suppress(OSError):
        Path(path).unlink()
