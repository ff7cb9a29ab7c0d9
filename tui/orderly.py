"""Keys and pasted text one after the other, each dealt with before the next is looked at; work ends before its screen.

Textual hands a key to what has the focus when the key arrives. Of keys that arrive together, as on a slow line or from
quick fingers, the later ones would so go to the list although the first of them has opened the filter: the first letter
of ``/retry`` would retry a task.

It cancels what works for a screen only when the screen's widgets have gone: what has just waited for an answer would
look for a field in vain, or close the screen below.
"""

from __future__ import annotations

import asyncio
from collections import deque
from typing import Any

from textual import events, on
from textual.app import App
from textual.await_complete import AwaitComplete
from textual.message import Message
from textual.message_pump import MessagePump
from textual.worker import Worker

from lcq.clock import steady_now

_LOOK_S = 0.01
_LOOKS = 25
"""So often it is looked, at most, whether a key has led to what it leads to: a form may have to read a record first.
Counted and not timed: a process that gets no processor for a second has not waited for anything in it."""
_OPENERS = frozenset({"acts", "panel", "line", "quit"})  # groups of workers that may open something to type into


class Passed(Message):
    """Goes the way of a key, or of what it has set off, behind it: where it arrives, that has arrived."""

    def __init__(self, number: int) -> None:
        super().__init__()
        self.number = number


class OrderlyApp(App[int]):
    """An application in which keys that come quickly do what they would do if they came slowly."""

    def __init__(self, *, ansi_color: bool | None = None) -> None:
        super().__init__(ansi_color=ansi_color)
        self.stirred_s = steady_now()
        """When somebody last pressed a key, moved the mouse, or news came."""
        self._to_come: deque[events.Key | events.Paste] = deque()
        self._under_way = 0  # the number of the key that is being dealt with; 0: none is
        self._last_number = 0
        self._has_acted = False  # an action was run by that key
        self._screen_before: object = None
        self._workers_before: frozenset[Worker[Any]] = frozenset()

    async def on_event(self, event: events.Event) -> None:
        if isinstance(event, events.InputEvent | events.Paste):
            self.stirred_s = steady_now()
        if isinstance(event, events.Key | events.Paste) and not event.is_forwarded:
            self._to_come.append(event)
            if not self._under_way:
                await self._deal_with_next()
        elif not (isinstance(event, events.InputEvent) and self._has_ended):  # one that a screen has left to us
            await super().on_event(event)

    async def _deal_with_next(self) -> None:
        while self._to_come and not self._under_way and not self._has_ended:
            self._last_number += 1
            number = self._under_way = self._last_number
            self._has_acted, self._workers_before = False, frozenset(self.workers)
            self._give_up_waiting(number, _LOOKS)
            is_new, self._screen_before = self.screen is not self._screen_before, self.screen
            target = self._target
            if is_new:  # what has just been opened has to find its focus first: that is before this in its queue
                target = self.screen
            else:
                await super().on_event(self._to_come.popleft())
            if not target.post_message(Passed(number)):
                self._under_way = 0

    def pop_screen(self) -> AwaitComplete:
        """Close the top screen. What works for it does not go on."""
        leaving = self.screen
        popped = super().pop_screen()
        for worker in list(self.workers):
            if leaving in worker.node.ancestors_with_self:
                worker.cancel()
        return popped

    async def _shutdown(self) -> None:
        self.workers.cancel_all()  # has been done, but where ``run_test`` takes the screens away first
        await super()._shutdown()

    async def run_action(self, *args: Any, **more: Any) -> bool:
        self._has_acted = True
        return await super().run_action(*args, **more)

    @on(Passed)
    async def _key_has_passed(self, passed: Passed) -> None:
        if passed.number != self._under_way or self._has_ended:
            return
        if self._has_acted:  # what the action has set off is on its way as well, and behind it this goes once more
            self._has_acted = False
            if self._target.post_message(Passed(passed.number)):
                return
        await self._go_on(passed.number)

    async def _go_on(self, number: int) -> None:
        """Look at the next key, unless what this one has set off may still open something for it."""
        if number != self._under_way or self._has_ended:
            return
        if self._may_still_open:
            asyncio.get_running_loop().call_later(_LOOK_S, self.call_later, self._go_on, number)
            return
        self._under_way = 0
        if self.screen is not self._screen_before and not getattr(self.screen, "heeds_early_keys", True):
            self._to_come.clear()  # nobody has read the question yet to which these would be the answer
        await self._deal_with_next()

    @property
    def _has_ended(self) -> bool:
        """Whether the screens are being taken away, or have been: no key leads anywhere."""
        return not (self.is_running and self.screen_stack)

    @property
    def _target(self) -> MessagePump:
        return self.focused or self.screen

    @property
    def _may_still_open(self) -> bool:
        """Whether something that the key has set off goes on, and has opened nothing yet."""
        return self.screen is self._screen_before and any(
            worker.group in _OPENERS and not worker.is_finished
            for worker in self.workers
            if worker not in self._workers_before
        )

    def _give_up_waiting(self, number: int, looks: int) -> None:
        """After so many looks go on with the next key all the same: what had this one may be gone."""
        if self._under_way != number:
            return
        if looks:
            asyncio.get_running_loop().call_later(_LOOK_S, self._give_up_waiting, number, looks - 1)
        else:
            self._under_way = 0
            self.call_later(self._deal_with_next)
