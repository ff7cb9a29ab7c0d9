"""Small pictures for who looks at them: made when somebody does, each time by a process that may die of it.

The files are strangers', and the agent itself never decodes one: its child has little memory and time, lets everything
else go first, and is gone after each wish. Nothing is kept.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import logging
import os
import signal
import sys
from collections.abc import Awaitable, Callable, Mapping
from pathlib import Path

from pydantic import TypeAdapter, ValidationError

from lcq.errors import LcqError
from lcq.leash import leashed
from lcq.runner_config import LimitsConfig
from lcq.wire import Pictured, ThumbnailPart, ThumbnailWish

_log = logging.getLogger(__name__)

PATIENCE_S = 10.0
"""How long a child may take; whoever waits gives up a little later."""
_MOST_WAITING = 8
_ONE_THREAD = {"OPENBLAS_NUM_THREADS": "1", "OMP_NUM_THREADS": "1"}
_CHILD = (sys.executable, "-m", "worker.thumbnail_child")
_PARTS = TypeAdapter(dict[str, ThumbnailPart])

_OVER = "mask of overlay"  # which is brought too, and shown only over its image

Borrow = Callable[
    [Mapping[str, str]], contextlib.AbstractAsyncContextManager[tuple[dict[str, str], dict[str, str], tuple[Path, ...]]]
]
"""Gives for each part a path, or why there is none; and the folders that those are in beside ``storage.roots``."""

Tell = Callable[[Pictured], Awaitable[object]]


class Thumbnails:
    """Does one wish after another. ``run()`` as long as the agent lives; ``tell`` delivers what was made."""

    def __init__(
        self,
        node_id: str,
        boot_id: str,
        *,
        tell: Tell,
        limits: Callable[[], LimitsConfig],
        roots: tuple[Path, ...],
        is_on: Callable[[], bool],
        borrow: Borrow,
        environment: Mapping[str, str] | None = None,
        terms: str = "",
    ) -> None:
        """``borrow`` brings files that lie elsewhere, for the length of a block. ``environment``: all that its
        processes have; None: ours. ``terms``: what they are kept from, as a runner is.
        """
        self._environment = os.environ if environment is None else environment
        self._terms = terms
        self._borrow = borrow
        self._node_id, self._boot_id, self._tell = node_id, boot_id, tell
        self._limits, self._roots, self._is_on = limits, roots, is_on
        self._wishes: asyncio.Queue[ThumbnailWish] = asyncio.Queue()

    def wish(self, wish: ThumbnailWish) -> None:
        """Take up a wish; too many of them push out the one that has waited longest: nobody looks at that any more."""
        if self._wishes.qsize() >= _MOST_WAITING:
            self._wishes.get_nowait()
        self._wishes.put_nowait(wish)

    async def run(self) -> None:
        """For ever: make what is wished for."""
        while True:
            wish = await self._wishes.get()
            if self._is_on():
                parts = await self._made(wish)
            else:
                why = f"{self._node_id} shows no pictures: agent.thumbnails is off"
                parts = {part: ThumbnailPart(why=why) for part in wish.files}
            told = Pictured(node_id=self._node_id, boot_id=self._boot_id, wish=wish.id, parts=parts)
            with contextlib.suppress(LcqError):  # nobody waits for it by then
                await self._tell(told)

    async def _made(self, wish: ThumbnailWish) -> dict[str, ThumbnailPart]:
        wanted = {**wish.files, **({_OVER: wish.mask} if wish.mask else {})}
        async with self._borrow(wanted) as (paths, why, folders):
            mask = paths.pop(_OVER, "")
            if wish.mask and not mask:
                why |= {"overlay": why.get(_OVER, "")}
            files = {part: path for part, path in paths.items() if part not in why}
            parts = {part: ThumbnailPart(why=why[part]) for part in wish.files if part in why}
            roots = [str(root) for root in (*self._roots, *folders)] if self._roots else []
            return parts | (await self._made_of(files, mask, roots, wish) if files else {})

    async def _made_of(
        self, files: dict[str, str], mask: str, roots: list[str], wish: ThumbnailWish
    ) -> dict[str, ThumbnailPart]:
        request = {
            "files": files,
            "longest": wish.longest,
            "box": wish.box,
            "limits": self._limits().model_dump(mode="json"),
            "roots": roots,
            "mask": mask,
            "webp": wish.webp,
            "terms": self._terms,
        }
        try:
            answer = await _asked(json.dumps(request).encode(), environment=self._environment)
            return _PARTS.validate_json(answer)
        except TimeoutError:
            why = f"{self._node_id} has not managed it within {PATIENCE_S:g} s"
        except (OSError, ValidationError) as error:
            _log.warning("small pictures of %s cannot be made: %s", ", ".join(wish.files.values()), error)
            why = f"{self._node_id} could not make it small: its process ended"
        return {part: ThumbnailPart(why=why) for part in files}


async def _asked(request: bytes, *, environment: Mapping[str, str], command: tuple[str, ...] = _CHILD) -> bytes:
    """What the child answers.

    Raises:
        TimeoutError: nothing in time; it is dead by now.
        OSError: it cannot be started.
    """
    child = await asyncio.create_subprocess_exec(
        *leashed(command),
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.DEVNULL,
        env={**environment, **_ONE_THREAD},
        start_new_session=True,
    )
    try:
        async with asyncio.timeout(PATIENCE_S):
            answer, _ = await child.communicate(request)
            return answer
    finally:
        if child.returncode is None:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(child.pid, signal.SIGKILL)
            await child.wait()
