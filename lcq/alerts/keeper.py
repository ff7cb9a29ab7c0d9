"""Looks for alerts, keeps what is known of them, and has people told: one scheduler at a time, for all.

What it goes by is in Redis alone: whoever takes the duty over goes on where the other was, repeats nothing that was
told and forgets nothing that was not.
"""

from __future__ import annotations

import asyncio
import logging
import random
import socket
import time
from collections import Counter, deque
from collections.abc import Coroutine, Iterable
from contextlib import AsyncExitStack
from typing import Any

from lcq.alert_config import USUAL, AlertRule, rules_of
from lcq.alerts.records import AlertRecord, Condition, Happening, Notice
from lcq.alerts.rules import Change, Picture, changes
from lcq.alerts.telling import NotTold, pause_after, tell, told_of
from lcq.component import Complaints, Duty, Ground, Lives
from lcq.config import AlertingConfig, DistributedConfig
from lcq.errors import AlertNotFound, LcqError, StateUnavailable
from lcq.ids import new_id
from lcq.routing import LIVE
from lcq.spend import cheapest_price
from lcq.state.moves.alerts import AlertChange
from lcq.storage.room import room_of
from lcq.wire import Done
from lcq.wire.alerts import (
    AlertsAnswer,
    AskAlerts,
    ReceiverTold,
    RuleTold,
    SilenceAlert,
    TestAlerts,
    TestAlertsAnswer,
    UnsilenceAlert,
)

_log = logging.getLogger(__name__)
_HOLD_S = 3.0  # the duty is held for so long at least, and for three looks
_TELL_S = 5.0  # how often a scheduler says how it is
_MINUTES = 60  # of failed handshakes that it tells
_DISK_S = 2.0
_RUNBOOK = "docs/alerts.md"


class AlertKeeper(Lives):
    """``async with AlertKeeper(ground)``, of a scheduler."""

    def __init__(self, ground: Ground) -> None:
        super().__init__(ground)
        self._reader = ground.state.reader
        self._duty = Duty(ground, "alerts")
        self._under_way: dict[str, asyncio.Task[None]] = {}  # notices that are being told
        self._handshakes = PerMinute(_MINUTES)
        self._looking: asyncio.Future[float | None] | None = None

    async def open(self, stack: AsyncExitStack) -> None:
        desk = self._ground.site.desk
        desk.serve(AskAlerts, self.alerts)
        desk.serve(SilenceAlert, self.silence)
        desk.serve(UnsilenceAlert, self.unsilence)
        desk.serve(TestAlerts, self.test)
        self._group = await stack.enter_async_context(asyncio.TaskGroup())
        stack.callback(self._stop_telling)

    def lives(self) -> tuple[tuple[str, Coroutine[Any, Any, None]], ...]:
        return (("alerts", self._keep()), ("condition", self._keep_told()))

    @property
    def _config(self) -> DistributedConfig:
        return self._state.config

    @property
    def _terms(self) -> AlertingConfig:
        return self._config.alerting

    @property
    def _rules(self) -> tuple[AlertRule, ...]:
        return rules_of(self._config.alerts, self._terms) if self._terms.enabled else ()

    @property
    def _cluster(self) -> str:
        return self._config.discovery.cluster or "lcq"

    def _told(self, rule: AlertRule | None) -> tuple[str, ...]:
        """The receivers of a rule; of one that holds no longer, those of all."""
        return self._terms.notify if rule is None or rule.notify is None else rule.notify

    # ------------------------------------------------------------ looking

    async def _keep(self) -> None:
        complaints = Complaints("alerts")
        while True:
            every_s = self._terms.every_s
            await asyncio.sleep(every_s * random.uniform(0.9, 1.1))
            try:
                if not await self._duty.is_ours(hold_s=max(_HOLD_S, 3 * every_s)):
                    continue
                await self.look()
                await self._tell_due()
            except StateUnavailable:
                continue  # the feed has said so
            except LcqError as refusal:
                complaints.say(refusal)

    async def look(self) -> None:
        """Look once at how things are, and write down what has changed."""
        known = await self._reader.alerts()
        rules = self._rules
        picture = await self._picture(rules, known.now_ms) if rules else Picture(known.now_ms)
        notified = {rule.name: bool(self._told(rule)) for rule in rules}
        found = list(changes(rules, picture, known, repeat_s=self._terms.repeat_s, notified=notified))
        over = [(one.name, known.silence_texts[one.name]) for one in known.silences if one.until_ms <= known.now_ms]
        if not found and not over:
            return
        by_name = {rule.name: rule for rule in rules}
        made = [self._as_move(one, by_name, known.alert_texts, known.now_ms) for one in found]
        applied = await self._state.note_alerts(made, over=over)
        for change in found:
            if change.turned is not None and change.name in applied:
                say = _log.warning if change.turned is Happening.FIRING else _log.info
                say("alert %s (%s): %s", change.alert.rule, change.turned, change.alert.text)

    async def _picture(self, rules: Iterable[AlertRule], now_ms: int) -> Picture:
        window_s = max((rule.window_s for rule in rules if rule.when == "fail_rate"), default=60.0)
        nodes = await self._reader.nodes()
        queues, minutes, schedulers, spend = await asyncio.gather(
            self._reader.queues(nodes),
            self._reader.minutes(max(1, round(window_s / 60))),
            self._reader.conditions(),
            self._reader.spend(),
        )
        price = cheapest_price(node for node in nodes if node.status in LIVE)
        spent_out = spend.used_up(price) if price is not None else ()
        return Picture(now_ms, queues, nodes, minutes, schedulers, spend.shares, spent_out)

    def _as_move(self, change: Change, rules: dict[str, AlertRule], texts: dict[str, str], now_ms: int) -> AlertChange:
        alert, rule = change.alert, rules.get(change.alert.rule)
        event: tuple[str, ...] = ()
        act: tuple[str, ...] = ()
        if change.turned is not None:
            event = (
                "alert", alert.rule, "subject", alert.subject, "happening", change.turned,
                "severity", alert.severity, "why", alert.text,
            )  # fmt: skip
            on = f"rule={alert.rule}" + (f" subject={alert.subject}" if alert.subject else "")
            act = ("act", "alert", "actor", "cluster", "reason", alert.text, "on", on, "outcome", change.turned)
        happening = change.tell
        return AlertChange(
            name=change.name,
            before=texts.get(change.name, ""),
            after="" if change.after is None else change.after.model_dump_json(),
            event=event,
            act=act,
            notices=()
            if happening is None
            else tuple(self._notice(name, happening, alert, rule, now_ms) for name in self._told(rule)),
        )

    @staticmethod
    def _notice(receiver: str, happening: Happening, alert: AlertRecord, rule: AlertRule | None, now_ms: int) -> Notice:
        return Notice(
            id=new_id(), receiver=receiver, happening=happening, alert=alert, at_ms=now_ms,
            runbook=rule.runbook if rule is not None and rule.runbook else _RUNBOOK,
        )  # fmt: skip

    # ------------------------------------------------------------ telling

    async def _tell_due(self) -> None:
        """Begin to tell what is due: of one alert to one receiver in the order in which it happened."""
        waiting = await self._reader.notices()
        if not waiting:
            return
        now_ms = await self._state.now_ms()
        earlier: set[tuple[str, str]] = set()
        for text, notice in sorted(waiting.values(), key=lambda one: (one[1].at_ms, one[1].id)):
            line = (notice.receiver, notice.alert.name)
            if line in earlier or notice.id in self._under_way:
                earlier.add(line)
                continue
            earlier.add(line)
            receiver = self._terms.receivers.get(notice.receiver)
            if receiver is None:  # nobody is called so any more
                await self._state.settle_notice(notice.id, before=text, after=None)
                continue
            if notice.due_ms > now_ms:
                continue
            tried = notice.tried + 1
            due_ms = now_ms + int(1000 * (receiver.timeout_s + pause_after(tried)))
            begun = notice.model_copy(update={"tried": tried, "due_ms": due_ms})
            if await self._state.settle_notice(notice.id, before=text, after=begun):
                telling = self._group.create_task(self._tell_one(begun), name=f"alert to {notice.receiver}")
                self._under_way[notice.id] = telling

    async def _tell_one(self, notice: Notice) -> None:
        """Tell a receiver once; what comes of it decides whether it is tried again."""
        before = notice.model_dump_json()
        receiver = self._terms.receivers.get(notice.receiver)
        after: Notice | None = None
        try:
            if receiver is not None:
                await tell(receiver, notice, self._cluster)
                self._state.measures.notices.note(notice.receiver, "sent")
        except NotTold as trouble:
            if receiver is not None and notice.tried < receiver.tries:
                after = notice.model_copy(update={"trouble": str(trouble)[:500]})
                _log.warning("alert %s: %s is not told yet: %s", notice.alert.rule, notice.receiver, trouble)
            else:
                self._state.measures.notices.note(notice.receiver, "given_up")
                _log.error("alert %s: %s is not told: %s; given up", notice.alert.rule, notice.receiver, trouble)
        finally:
            self._under_way.pop(notice.id, None)
        try:
            await self._state.settle_notice(notice.id, before=before, after=after)
        except LcqError as trouble:
            _log.info("%s may be told of alert %s twice: %s", notice.receiver, notice.alert.rule, trouble)

    def _stop_telling(self) -> None:
        """This scheduler ends: whoever has the duty next tries again what is on its way."""
        for telling in self._under_way.values():
            telling.cancel()

    # ------------------------------------------------------------ what people ask

    async def alerts(self, ask: AskAlerts, sender: bytes = b"") -> AlertsAnswer:
        known, waiting = await self._reader.alerts(), await self._reader.notices()
        left = Counter(one.receiver for _, one in waiting.values())
        troubles = {one.receiver: one.trouble for _, one in waiting.values() if one.trouble}
        own = {rule.name for rule in self._config.alerts}
        return AlertsAnswer(
            alerts=known.alerts,
            silences=tuple(one for one in known.silences if one.until_ms > known.now_ms),
            rules=tuple(_rule_told(one, self._told(one), is_own=one.name in own) for one in self._rules),
            receivers=tuple(
                ReceiverTold(
                    name=name, kind=told_of(one)[0], to=told_of(one)[1], waiting=left[name],
                    trouble=troubles.get(name, ""),
                )
                for name, one in self._terms.receivers.items()
            ),
            now_ms=known.now_ms,
        )  # fmt: skip

    async def silence(self, act: SilenceAlert, sender: bytes = b"") -> Done:
        """Raises:
        AlertNotFound: no rule has that name.
        """
        await self._refuse_unknown_rule(act.rule)
        await self._state.silence_alert(
            act.rule, subject=act.subject, seconds=act.seconds, actor=act.actor, reason=act.reason, command=act.id
        )
        return Done()

    async def unsilence(self, act: UnsilenceAlert, sender: bytes = b"") -> Done:
        """Raises:
        NotSilenced: nothing is silenced so.
        """
        name = f"{act.rule}/{act.subject}" if act.subject else act.rule
        await self._state.unsilence_alert(name, command=act.id)
        return Done()

    async def test(self, act: TestAlerts, sender: bytes = b"") -> TestAlertsAnswer:
        """Raises:
        AlertNotFound: no receiver has that name, or there is none at all.
        """
        known = self._terms.receivers
        names = act.receivers or tuple(known)
        for name in names:
            if name not in known:
                raise AlertNotFound("receiver", name, known)
        if not names:
            raise LcqError("nobody is told of alerts", hint="name receivers in alerting.receivers (docs/alerts.md)")
        now_ms = await self._state.now_ms()
        alert = AlertRecord(
            rule="test", when="test", text=f"a test by {act.actor}: nothing is wrong", since_ms=now_ms, fired_ms=now_ms
        )

        async def one(name: str) -> str:
            notice = Notice(
                id=new_id(), receiver=name, happening=Happening.TEST, alert=alert, at_ms=now_ms, runbook=_RUNBOOK
            )
            try:
                await tell(known[name], notice, self._cluster)
            except NotTold as trouble:
                return str(trouble)
            return ""

        troubles = dict(zip(names, await asyncio.gather(*map(one, names)), strict=True))
        return TestAlertsAnswer(
            told=tuple(name for name, trouble in troubles.items() if not trouble),
            troubles={name: trouble for name, trouble in troubles.items() if trouble},
        )

    async def _refuse_unknown_rule(self, name: str) -> None:
        rules = {rule.name for rule in self._rules}
        if name not in rules and all(one.rule != name for one in (await self._reader.alerts()).alerts):
            raise AlertNotFound("rule", name, rules)

    # ------------------------------------------------------------ how this scheduler is

    async def _keep_told(self) -> None:
        """Let whoever looks for alerts know of this scheduler what only it knows."""
        complaints = Complaints("this scheduler's condition")
        while True:
            every_s = min(_TELL_S, self._terms.every_s)
            try:
                await self._state.tell_condition(
                    self._ground.site.scheduler_id, await self._condition(), hold_ms=int(1000 * (_TELL_S + 5 * every_s))
                )
            except StateUnavailable:
                pass  # the feed has said so
            except LcqError as refusal:
                complaints.say(refusal)
            await asyncio.sleep(every_s * random.uniform(0.9, 1.1))

    async def _condition(self) -> Condition:
        site = self._ground.site
        return Condition(
            at_ms=time.time_ns() // 1_000_000,
            host=socket.gethostname(),
            settings_error=site.settings.error if site.settings is not None else "",
            disk_used=await self._disk_used(),
            handshakes=self._handshakes.note(site.handshakes_failed(), int(time.monotonic() // 60)),
        )

    async def _disk_used(self) -> float | None:
        """Of the fullest of its disks; None where one hangs, which then holds up one thread and no more."""
        if self._looking is None or self._looking.done():
            folders = (self._config.data_path, self._config.storage_path)
            self._looking = asyncio.ensure_future(
                asyncio.to_thread(
                    lambda: max((room.used for one in folders if (room := room_of(one)) is not None), default=None)
                )
            )
        done, _ = await asyncio.wait({self._looking}, timeout=_DISK_S)
        return self._looking.result() if done else None


class PerMinute:
    """How much a growing count grew in each of the last minutes."""

    def __init__(self, minutes: int) -> None:
        self._counts: deque[int] = deque([0], maxlen=minutes)
        self._total = 0
        self._minute: int | None = None

    def note(self, total: int, minute: int) -> tuple[int, ...]:
        """What it is now, and which minute this is, however they are counted. Answers how much it grew in each."""
        since = minute - (minute if self._minute is None else self._minute)
        self._counts.extend([0] * min(self._counts.maxlen or 1, max(0, since)))
        self._minute = minute
        self._counts[-1] += max(0, total - self._total)
        self._total = total
        return tuple(self._counts)


def _rule_told(rule: AlertRule, told: tuple[str, ...], *, is_own: bool) -> RuleTold:
    return RuleTold(
        name=rule.name, when=rule.when, over=rule.limit, unit=USUAL[rule.when].unit, for_s=rule.patience_s,
        severity=rule.severity, notify=told, enabled=rule.enabled, shipped=not is_own,
    )  # fmt: skip
