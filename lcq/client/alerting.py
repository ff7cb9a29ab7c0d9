"""What a client can ask and do about alerts."""

from __future__ import annotations

from collections.abc import Iterable

from lcq.client.connection import Connection
from lcq.wire import AlertsAnswer, AskAlerts, SilenceAlert, TestAlerts, TestAlertsAnswer, UnsilenceAlert

_TEST_S = 310.0
"""How long a scheduler may take to tell receivers: the slowest of them may have alerting's longest ``timeout_s``."""


class Alerting(Connection):
    """The questions and acts of a client on alerts (docs/alerts.md)."""

    async def alerts(self) -> AlertsAnswer:
        """What needs people, by which rules, what is silenced, and who is told."""
        return await self.ask(AskAlerts())

    async def silence(self, rule: str, *, seconds: float, subject: str = "", reason: str = "") -> str:
        """Let nobody be told of ``rule`` for so long, or of what it says of ``subject`` (a queue, node or scheduler).

        Answers the command's id, for ``undo``.

        Raises:
            AlertNotFound: no rule has that name.
        """
        command = SilenceAlert(rule=rule, subject=subject, seconds=seconds, actor=self.actor, reason=reason)
        await self.ask(command)
        return command.id

    async def unsilence(self, rule: str, *, subject: str = "", reason: str = "") -> str:
        """Let what was silenced so be heard again. Answers the command's id, for ``undo``.

        Raises:
            NotSilenced: nothing is silenced so.
        """
        command = UnsilenceAlert(rule=rule, subject=subject, actor=self.actor, reason=reason)
        await self.ask(command)
        return command.id

    async def test_alerts(self, receivers: Iterable[str] = ()) -> TestAlertsAnswer:
        """Send receivers (all, if none is named) a notice of an alert that is none.

        Raises:
            AlertNotFound: no receiver has that name.
        """
        return await self.ask(TestAlerts(receivers=tuple(receivers), actor=self.actor), hold_s=_TEST_S)
