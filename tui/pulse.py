"""Feels whether Redis and a scheduler answer, and how fast, beside the feed: acts are refused while they do not."""

from __future__ import annotations

import asyncio
import time

from pydantic import ValidationError

from lcq.errors import LcqError, StateUnavailable
from lcq.lang import retold, tr
from tui.source import Commander, Link, Reader, trouble_of
from tui.text import clean

BEAT_S = 0.9
"""So often a scheduler is asked; with ANSWER_S its loss is known within two seconds."""
ANSWER_S = 1.0
REDIS_BEAT_S = 2.0  # the feed asks it all the time and knows of its loss: this is only how fast it answers


class Pulse:
    """Asks both all the time, each by itself, and tells the link."""

    def __init__(self, reader: Reader, commander: Commander, link: Link) -> None:
        self._reader, self._commander, self._link = reader, commander, link

    async def run(self) -> None:
        """Feel until cancelled."""
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(self._feel_redis(), name="pulse of Redis")
            tasks.create_task(self._feel_control(), name="pulse of the scheduler")

    async def _feel_redis(self) -> None:
        while True:
            began = time.monotonic()
            try:
                async with asyncio.timeout(ANSWER_S):
                    there_ms = await self._reader.now_ms()
            except (LcqError, OSError, TimeoutError, ValidationError):
                self._link.redis_ms = None  # the feed tells what is wrong
            else:
                took_s = time.monotonic() - began
                self._link.redis_ms = took_s * 1000
                self._link.note_skew(there_ms + round(took_s * 500))
            await asyncio.sleep(REDIS_BEAT_S)

    async def _feel_control(self) -> None:
        while True:
            began = time.monotonic()
            try:
                async with asyncio.timeout(ANSWER_S):
                    told = await self._commander.info()
            except StateUnavailable:  # a scheduler's word: it is there, and its Redis is not, as the feed tells
                self._link.feel_control((time.monotonic() - began) * 1000)
            except (LcqError, OSError, TimeoutError, ValidationError) as error:
                no_answer = isinstance(error, TimeoutError)
                self._link.lose_control(tr("no scheduler answers") if no_answer else trouble_of(error))
            else:
                self._link.feel_control((time.monotonic() - began) * 1000)
                self._link.note_settings(clean(retold(told.config_error)))
            await asyncio.sleep(BEAT_S)
