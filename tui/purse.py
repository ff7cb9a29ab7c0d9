"""What functions may cost, as a scheduler tells it: asked for where somebody looks at money, and seldom."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from lcq.config import BudgetConfig
    from tui.source import Commander

_EVERY_S = 30.0


class Purse:
    """The budget and its currency. It stays what it was where no scheduler answers."""

    def __init__(self, commander: Commander) -> None:
        self._commander = commander
        self._asked_at = -_EVERY_S
        self.budget: BudgetConfig | None = None
        """None: no scheduler has told it yet."""

    @property
    def currency(self) -> str:
        return self.budget.currency if self.budget is not None else ""

    async def ask(self) -> None:
        """Ask, unless that was done just now.

        Raises:
            LcqError: no scheduler answers, or not so. Then the next one who wants to know asks again.
        """
        if time.monotonic() - self._asked_at < _EVERY_S:
            return
        from tui.spending import budget_of

        self.budget = budget_of(await self._commander.budget())
        self._asked_at = time.monotonic()
