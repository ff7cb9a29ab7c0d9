"""Whether this console may change anything, and until when. No terminal here; the scheduler has the last word."""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from datetime import timedelta

from lcq.errors import InvalidInput
from lcq.lang import tr
from tui.text import long_span

LONGEST = timedelta(hours=8)
"""The longest that ``:write`` lends the right to change something of a production cluster."""


class Rights:
    """Starts with all rights, with none for good (``read_only``), or with none until they are lent (``production``)."""

    def __init__(
        self, *, read_only: bool = False, production: bool = False, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._read_only, self._production, self._clock = read_only, production, clock
        self._until = -math.inf

    @property
    def left_s(self) -> float:
        """For so many seconds what was lent still holds: 0 where nothing is, infinite where nothing has to be."""
        if self._read_only:
            return 0.0
        return max(0.0, self._until - self._clock()) if self._production else math.inf

    def refusal(self) -> str:
        """Why nothing may be changed now; empty where it may."""
        if self.left_s:
            return ""
        if self._read_only:
            return tr("this console only reads: it was started with --read-only")
        return tr(
            "this is production, where the console starts with reading alone: ':write 15m' lends the right to act"
        )

    def lend(self, span: timedelta) -> str:
        """Let acts through for ``span`` from now on; answers that in words.

        Raises:
            InvalidInput: it was started to read only, or that is no length of time to lend it for.
        """
        if self._read_only:
            raise InvalidInput(self.refusal(), hint="start another without --read-only")
        if not timedelta() < span <= LONGEST:
            most = long_span(LONGEST / timedelta(milliseconds=1))
            raise InvalidInput(f"the right to act is lent for up to {most}", hint="such as ':write 15m'")
        if not self._production:
            return tr("this console may act anyway: its cluster is not set as production")
        self._until = self._clock() + span.total_seconds()
        return tr("may act for {span}", span=long_span(span / timedelta(milliseconds=1)))

    def give_back(self) -> str:
        """Let nothing through any more, until it is lent again; answers that in words."""
        self._until = -math.inf
        if not self._production:
            self._production = True  # whoever asks for it gets it, wherever that is
        return tr("reads alone now: ':write 15m' lends the right to act")

    @property
    def title(self) -> str:
        """What the title says of it: nothing where acts go through without more ado."""
        left = self.left_s
        if not left:
            return tr("READ-ONLY")
        return "" if math.isinf(left) else tr("WRITE {left}", left=long_span(left * 1000))
