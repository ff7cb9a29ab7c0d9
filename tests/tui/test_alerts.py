"""Alerts in the console: what needs the operator, silenced by a key, told by the bell and on the desktop."""

from __future__ import annotations

import sys

import pytest
from textual.widgets import Input

from lcq.alerts.records import AlertRecord, Alerts, AlertStatus, Silence
from lcq.errors import InvalidInput
from lcq.models import NodeStatus
from tests.conftest import wait_until
from tests.tui.fakes import FakeCluster, FakeSnapshot, a_node, now_ms
from tests.tui.terminal import on_a_terminal
from tests.tui.test_commands import check_keys
from tui.alarms import Alarms, alarms_of
from tui.desk import Desk
from tui.fleet import needs
from tui.line import Scene, understand
from tui.screens.dialogs import Chooser
from tui.screens.forms import SilenceQuestion
from tui.store import Store

EVIL = "x\x1b]0;owned\x07\x9b31m; [red]y\u202e"


def an_alert(rule: str = "disk", subject: str = "gpu-1", text: str = "it is full", **more: object) -> AlertRecord:
    values = {"status": AlertStatus.FIRING, "since_ms": now_ms(), "fired_ms": now_ms(), **more}
    return AlertRecord.model_validate({"rule": rule, "subject": subject, "text": text, **values})


def known(*alerts: AlertRecord, silences: tuple[Silence, ...] = ()) -> Alerts:
    return Alerts(alerts=alerts, silences=silences, now_ms=now_ms())


def a_silence(rule: str, subject: str = "", seconds: float = 3600) -> Silence:
    return Silence(rule=rule, subject=subject, until_ms=now_ms() + int(seconds * 1000), actor="ivo")


# ---------------------------------------------------------------- what is news


def test_what_is_there_at_the_start_is_no_news_and_what_begins_is_news_once() -> None:
    store, old, new = Store(), an_alert("old"), an_alert("new")
    store.put_alerts(known(old))
    assert store.take_begun() == []
    store.put_alerts(known(old, new))
    store.put_alerts(known(old, new))
    assert store.take_begun() == [new]
    assert store.take_begun() == []
    store.put_alerts(known(old))
    again = new.model_copy(update={"fired_ms": now_ms() + 60_000})
    store.put_alerts(known(old, again))
    assert store.take_begun() == [again]


def test_what_is_silenced_or_only_about_to_be_is_no_news() -> None:
    store = Store()
    store.put_alerts(known())
    pending = an_alert("soon", status=AlertStatus.PENDING, fired_ms=None)
    store.put_alerts(known(an_alert("disk"), pending, silences=(a_silence("disk"),)))
    assert store.take_begun() == []
    assert store.firing == ()


def test_needs_you_has_alerts_first_the_worst_on_top_and_says_nothing_twice() -> None:
    store = Store()
    node = a_node("gpu-3", status=NodeStatus.OFFLINE)
    store.load(FakeSnapshot((), (node, a_node("gpu-4", status=NodeStatus.OFFLINE)), (), "0-0", 0))
    plain = [line.text for line in needs(store, now_ms())]
    assert len(plain) == 2
    down = an_alert("node-down", "gpu-3", "node gpu-3 is down: it died", when="node_down")
    store.put_alerts(known(down, an_alert("disk", text=EVIL, severity="critical", when="disk")))
    found = needs(store, now_ms())
    assert [line.tone for line in found[:2]] == ["bad", "warn"]
    assert found[1].text.startswith("node gpu-3 is down: it died")
    assert [line.text for line in found[2:]] == [line for line in plain if "gpu-4" in line]
    assert "\x1b" not in found[0].text
    assert "\x07" not in found[0].text


# ---------------------------------------------------------------- what the terminal is told


@pytest.mark.parametrize("notify", ["osc9", "osc777"])
@pytest.mark.parametrize("passes_through", [False, True])
def test_a_notification_holds_one_sequence_whatever_the_data_say(notify, passes_through: bool) -> None:
    alarms = Alarms(bell=True, notify=notify, passes_through=passes_through)
    told = alarms.sequence([an_alert(text=EVIL), an_alert("b")], f"prod{EVIL}")
    body = told.removeprefix("\x1bPtmux;\x1b").removesuffix("\a").removesuffix("\x1b\\")
    assert told.endswith("\a")
    assert body.count("\x1b") == 1, "but for its own beginning it has none"
    assert body.count("\x07") == 1, "and none but its own end"
    assert "\x9b" not in body
    assert "\u202e" not in body
    assert body.count(";") == (3 if notify == "osc777" else 1)
    assert "and 1 more" in body
    assert len(body) < 500


def test_the_bell_rings_once_for_many_and_whoever_wants_nothing_hears_nothing() -> None:
    many = [an_alert(str(number)) for number in range(50)]
    assert Alarms(bell=True).sequence(many, "c") == "\a"
    assert Alarms(bell=False).sequence(many, "c") == ""
    assert Alarms(bell=True, notify="osc9").sequence([], "c") == ""
    assert alarms_of(bell=True, notify="osc9", environment={"TMUX": "/tmp/x,1,0"}).passes_through


_RINGS = """
import asyncio, sys
from tests.tui.fakes import FakeCluster
from tui.alarms import Alarms
from tui.app import ConsoleApp
from tui.desk import Desk

async def main():
    cluster = FakeCluster()
    app = ConsoleApp(Desk(cluster, cluster, cluster="prod"), alarms=Alarms(bell=True, notify="osc777"))
    async def later():
        while app.desk.store.alerts is None:
            await asyncio.sleep(0.05)
        cluster.alert("disk", "gpu-1", "a disk of \\x1b]0;owned\\x07gpu-1 is full")
    begins = asyncio.create_task(later())
    await app.run_async()
    await begins

asyncio.run(main())
"""


async def test_on_a_real_terminal_an_alert_rings_and_is_shown_on_the_desktop() -> None:
    async with on_a_terminal(sys.executable, "-c", _RINGS) as terminal:
        await terminal.shows("\x1b]777;notify;LCQ prod;warning: a disk of ␛]0,owned␇gpu-1 is full\a\a")
        await terminal.stands(r"!1", r"alert: warning: a disk of .*gpu-1 is full")
        assert b"\x1b]0;owned" not in terminal.seen
        terminal.type("q")
        await terminal.stands("Leave the console")
        terminal.type("y")
        assert await terminal.process.wait() == 0
        terminal.check_sane()


# ---------------------------------------------------------------- keys


async def test_b_shows_alerts_and_enter_silences_one_and_lets_it_be_heard_again(open_console) -> None:
    cluster = FakeCluster(nodes=[a_node()])
    async with open_console(cluster, size=(80, 24)) as console:
        await console.press("B")
        await wait_until(lambda: "nothing needs you" in console.text())
        cluster.alert("node-down", "gpu-3", "node gpu-3 is [b]down")
        await wait_until(lambda: "!1" in console.lines()[0])
        await console.press("B")
        await console.opens(Chooser)
        assert "node gpu-3 is [b]down" in console.text()
        await console.press("j", "enter")
        await console.opens(SilenceQuestion)
        check_keys(console.app, console.app.screen)
        console.app.screen.query_one("#reason", Input).value = "new GPU"
        console.app.screen.query_one("#span", Input).value = "soon"
        console.app.screen.action_agree()
        await wait_until(lambda: "is a length of time" in console.text())
        console.app.screen.query_one("#span", Input).value = "30m"
        console.app.screen.action_agree()
        await wait_until(lambda: ("silence", ("node-down", "gpu-3", 1800.0, "new GPU")) in cluster.calls)
        await wait_until(lambda: "!1" not in console.lines()[0])
        assert console.desk.store.firing == ()
        await console.press("B")
        await console.opens(Chooser)
        assert "silenced by maria, " in console.text()
        await console.press("j", "enter")
        await wait_until(lambda: "Let node-down/gpu-3 be heard again" in console.text())
        await console.press("y")
        await wait_until(lambda: ("unsilence", ("node-down", "gpu-3")) in cluster.calls)


def test_on_the_command_line_a_rule_or_what_it_says_of_one_is_silenced() -> None:
    cluster = FakeCluster()
    scene = Scene(Desk(cluster, cluster, cluster="c"))
    meant = understand("silence node-down/gpu-3 90m new GPU", scene)
    assert meant.act is not None
    assert (meant.act.ids, meant.act.title, meant.reason) == (
        ("node-down/gpu-3",), "Silence node-down/gpu-3 for 1h30m", "new GPU",
    )  # fmt: skip
    usual = understand("silence disk", scene).act
    assert usual is not None
    assert usual.title.startswith("Silence disk for 2h")
    assert understand("unsilence disk", scene).act is not None
    for wrong in ("silence", "unsilence", "silence disk 9x"):
        with pytest.raises(InvalidInput):
            understand(wrong, scene)
