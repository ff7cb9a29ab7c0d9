"""Alerts on a real server: one scheduler looks for all, receivers are told once, whoever takes over goes on."""

from __future__ import annotations

import asyncio
import json
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import psutil
import pytest
import redis
import yaml
from typer.testing import CliRunner

from lcq.alert_config import AlertReceiver
from lcq.alerts.keeper import AlertKeeper
from lcq.alerts.records import AlertRecord, Happening, Notice
from lcq.alerts.telling import NotTold, as_document, signature, tell
from lcq.client import AsyncClient
from lcq.component import Ground
from lcq.config import ConfigManager, DistributedConfig
from lcq.desk import Site
from lcq.errors import AlertNotFound, NothingToUndo, NotSilenced
from lcq.scheduler import Scheduler
from lcq.state.manager import StateManager
from tests.audit import audit
from tests.conftest import wait_until, wait_until_sync
from tests.logs import logging_kept
from tests.nodes import Node

SECRET = "not for strangers"


@dataclass
class Webhook:
    """A real HTTP server: what it was sent, and with which status it answers."""

    url: str = ""
    status: int = 204
    got: list[tuple[dict[str, str], bytes]] = field(default_factory=list)

    @property
    def told(self) -> list[tuple[str, str]]:
        """What happened to which subject, of what it took."""
        return [(one["happening"], one["subject"]) for one in self.documents]

    @property
    def documents(self) -> list[dict[str, Any]]:
        return [json.loads(body) for _, body in self.got]


@pytest.fixture
async def webhook() -> AsyncIterator[Webhook]:
    hook = Webhook()

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        head = (await reader.readuntil(b"\r\n\r\n")).decode()
        headers = {k.lower(): v for k, _, v in (line.partition(": ") for line in head.split("\r\n")[1:])}
        hook.got.append((headers, await reader.readexactly(int(headers["content-length"]))))
        writer.write(b"HTTP/1.1 %d so\r\ncontent-length: 4\r\nconnection: close\r\n\r\nwhat" % hook.status)
        await writer.drain()
        writer.close()

    server = await asyncio.start_server(answer, "127.0.0.1", 0)
    hook.url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}/hook/of-the-studio"
    yield hook
    server.close()
    await server.wait_closed()


def settings(hook: Webhook, **more: object) -> DistributedConfig:
    """A node that is down is told at once to ``hook``; all else that is shipped is left out."""
    return DistributedConfig.model_validate(
        {
            "zeromq": {"base_port": 0, "control_port": 0},
            "alerting": {
                "every_s": 0.1,
                "shipped": False,
                "receivers": {"ops": {"url": hook.url, "secret": SECRET, "bearer": "b3"}},
                "notify": ["ops"],
            },
            "alerts": [{"name": "down", "when": "node_down", "for_s": 0, "clear_s": 0, "runbook": "see the wiki"}],
        }
        | more
    )


@asynccontextmanager
async def a_keeper(config: DistributedConfig, redis_url: str) -> AsyncIterator[AlertKeeper]:
    """A scheduler's part that looks for alerts, and no more of it."""
    async with StateManager(config, url=redis_url) as state, AlertKeeper(Ground(state, Site(state))) as keeper:
        yield keeper


async def until(hook: Webhook, count: int) -> None:
    await wait_until(lambda: len(hook.got) >= count, what=f"{count} posts, of {hook.told}")


async def test_a_node_that_dies_and_comes_back_is_told_twice_signed_and_kept_in_the_audit(
    redis_url: str, webhook: Webhook
) -> None:
    async with a_keeper(settings(webhook), redis_url) as keeper:
        state = keeper._state
        node = Node(state, id="gpu-3")
        await node.hello()
        await node.lose()
        await until(webhook, 1)
        assert [one.rule for one in (await state.reader.alerts()).firing] == ["down"]
        await Node(state, id="gpu-3", boot="boot-2").hello()
        await until(webhook, 2)
        await wait_until(lambda: _is_settled(state), what="nothing to be left to tell")
        acts = await state.reader.acts.page()
        events = (await state.reader.events("0-0")).events
    assert webhook.told == [("firing", "gpu-3"), ("cleared", "gpu-3")]
    first = webhook.documents[0]
    assert (first["rule"], first["severity"], first["runbook"]) == ("down", "warning", "see the wiki")
    assert first["text"] == "[warning] lcq: node gpu-3 is down: gpu-3 died"
    assert first["fired"] >= first["since"]
    for headers, body in webhook.got:
        at_s = int(headers["x-lcq-timestamp"])
        assert headers["x-lcq-signature"] == signature(SECRET, at_s, body)
        assert headers["x-lcq-signature"] != signature("another", at_s, body)
        assert headers["authorization"] == "Bearer b3"
        assert headers["x-lcq-delivery"] == json.loads(body)["id"]
    assert [(one.act, one.actor, one.outcome) for one in acts] == [
        ("alert", "cluster", "cleared"), ("alert", "cluster", "firing"),
    ]  # fmt: skip
    assert acts[1].on == "rule=down subject=gpu-3"
    told = [one.fields for one in events if one.move == "note_alerts"]
    assert [one["happening"] for one in told] == ["firing", "cleared"]
    with redis.Redis.from_url(redis_url, decode_responses=True) as eye:
        ledger = audit(eye)
        assert not {"alerts", "notices", "silences"} & set(ledger.values)


async def _is_settled(state: StateManager) -> bool:
    return not await state.reader.notices()


async def test_who_takes_the_duty_over_repeats_nothing_that_was_told_and_forgets_nothing_that_was_not(
    redis_url: str, webhook: Webhook
) -> None:
    config = settings(webhook)
    async with a_keeper(config, redis_url) as first:
        for name in ("gpu-1", "gpu-2"):
            await Node(first._state, id=name).hello()
        await Node(first._state, id="gpu-1").lose()
        await until(webhook, 1)
        await wait_until(lambda: _is_settled(first._state), what="the first to be settled")
        webhook.status = 500
        await Node(first._state, id="gpu-2").lose()
        await until(webhook, 2)
        await wait_until(lambda: _has_trouble(first._state), what="what came of it to be kept")
    webhook.status = 204
    with redis.Redis.from_url(redis_url, decode_responses=True) as eye:
        eye.delete("{lcq}:duty:alerts")  # its hold is over
        (waits,) = eye.hgetall("{lcq}:notices").items()
        eye.hset("{lcq}:notices", waits[0], json.dumps(json.loads(waits[1]) | {"due_ms": 0}))  # and so is its pause
    async with a_keeper(config, redis_url) as second:
        await until(webhook, 3)
        await wait_until(lambda: _is_settled(second._state), what="all to be told")
        await second.look()
        await second.look()
        assert len((await second._state.reader.alerts()).firing) == 2
        assert second._state.measures.notices.values == {("ops", "sent"): 1}
    assert webhook.told == [("firing", "gpu-1"), ("firing", "gpu-2"), ("firing", "gpu-2")]
    deliveries = [headers["x-lcq-delivery"] for headers, _ in webhook.got]
    assert deliveries[1] == deliveries[2] != deliveries[0]


async def _has_trouble(state: StateManager) -> bool:
    notices = [one for _, one in (await state.reader.notices()).values()]
    return any("answers 500" in one.trouble for one in notices)


async def test_of_two_schedulers_that_both_look_one_tells(redis_url: str, webhook: Webhook) -> None:
    config = settings(webhook)
    config = config.model_copy(update={"alerting": config.alerting.model_copy(update={"every_s": 3600.0})})
    async with a_keeper(config, redis_url) as one, a_keeper(config, redis_url) as other:
        await Node(one._state).hello()
        await Node(one._state).lose()
        await asyncio.gather(*(keeper.look() for keeper in (one, other) for _ in range(5)))
        assert len(await one._state.reader.notices()) == 1
        await asyncio.gather(one._tell_due(), other._tell_due())
        await until(webhook, 1)
        await wait_until(lambda: _is_settled(one._state), what="it to be settled")
    assert webhook.told == [("firing", "node-1")]


async def test_a_receiver_that_never_takes_it_is_given_up_after_its_tries(redis_url: str, webhook: Webhook) -> None:
    webhook.status = 403
    config = settings(webhook)
    ops = config.alerting.receivers["ops"].model_copy(update={"tries": 1})
    alerting = config.alerting.model_copy(update={"receivers": {"ops": ops}})
    async with a_keeper(config.model_copy(update={"alerting": alerting}), redis_url) as keeper:
        await Node(keeper._state).hello()
        await Node(keeper._state).lose()
        await wait_until(lambda: keeper._state.measures.notices.values, what="it to be given up")
        assert keeper._state.measures.notices.values == {("ops", "given_up"): 1}
        await wait_until(lambda: _is_settled(keeper._state), what="it to be gone")
    assert len(webhook.got) == 1


# ---------------------------------------------------------------- programs


async def test_a_program_gets_the_alert_on_its_standard_input_and_none_of_our_settings(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("LCQ_REDIS__URL", "redis://:secret@host")
    kept = tmp_path / "told.json"
    script = (
        "import os, sys, json; d = json.load(sys.stdin); d['env'] = [k for k in os.environ if 'LCQ' in k]; "
        "d['argv'] = sys.argv[2:]; open(sys.argv[1], 'w').write(json.dumps(d))"
    )
    receiver = AlertReceiver(command=(sys.executable, "-c", script, str(kept), "$(touch no)", "a b"), timeout_s=60)
    notice = a_notice()
    await tell(receiver, notice, "studio")
    told = json.loads(kept.read_text())
    assert told.pop("env") == []
    assert told.pop("argv") == ["$(touch no)", "a b"]  # as they stand: no shell reads them
    assert told == json.loads(json.dumps(as_document(notice, "studio")))


def a_notice() -> Notice:
    alert = AlertRecord(rule="disk", subject="gpu-1", when="disk", text="a disk of node gpu-1 is 97% full", since_ms=1)
    return Notice(id="n1", receiver="ops", happening=Happening.FIRING, alert=alert, at_ms=2)


HANGS = (
    "import os, subprocess, sys, time; p = subprocess.Popen(['sleep', '600']); "
    "open(sys.argv[1], 'w').write(f'{os.getpid()} {p.pid}'); time.sleep(600)"
)


@pytest.mark.parametrize("is_heard_of", [True, False], ids=["", "before anybody hears that it was started"])
async def test_a_program_that_hangs_is_ended_with_all_that_it_began(tmp_path: Path, is_heard_of: bool) -> None:
    pids = tmp_path / "pids"
    receiver = AlertReceiver(command=(sys.executable, "-c", HANGS, str(pids)), timeout_s=60)
    telling = asyncio.create_task(tell(receiver, a_notice(), "lcq"))

    def runs() -> bool:
        return pids.exists() and len(pids.read_text().split()) == 2

    if is_heard_of:
        await wait_until(runs, what="it to run")
    else:
        while not any(str(pids) in one.cmdline() for one in psutil.Process().children()):  # noqa: ASYNC110 - no longer
            await asyncio.sleep(0)
        wait_until_sync(runs, what="it to run while this loop stands still")
    telling.cancel()
    await asyncio.wait({telling})
    assert telling.cancelled()
    for pid in map(int, pids.read_text().split()):
        await wait_until(lambda pid=pid: not psutil.pid_exists(pid) or _is_dead(pid), what=f"{pid} to be gone")


def _is_dead(pid: int) -> bool:
    try:
        return psutil.Process(pid).status() == psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return True


@pytest.mark.parametrize(
    ("receiver", "why"),
    [
        (AlertReceiver(command=("/nowhere/at-all",)), "cannot be started: No such file or directory"),
        (
            AlertReceiver(command=("sh", "-c", "echo a; echo 'no such room' >&2; exit 3")),
            "ended with 3: no such room",
        ),
        (AlertReceiver(command=("sleep", "600"), timeout_s=0.05), "has not answered within 0.05 s"),
        (AlertReceiver(url="http://127.0.0.1:1/secret-path"), "ConnectError"),
        (
            AlertReceiver(url="http://127.0.0.1:1/x", secret_file=Path("/nowhere")),
            "secret_file /nowhere cannot be read",
        ),
    ],
)
async def test_what_a_receiver_did_not_take_is_told_in_words_without_secrets(receiver: AlertReceiver, why: str) -> None:
    with pytest.raises(NotTold, match=why) as refused:
        await tell(receiver, a_notice(), "lcq")
    assert "secret-path" not in str(refused.value)


# ---------------------------------------------------------------- what people do about them


async def test_an_operator_silences_takes_back_and_tests_and_the_settings_change_while_it_runs(
    redis_url: str, webhook: Webhook, tmp_path: Path
) -> None:
    file = tmp_path / "lcq.yaml"
    values = settings(webhook).model_dump(mode="json", include={"zeromq", "alerting", "alerts"})
    file.write_text(yaml.safe_dump(values))
    manager = ConfigManager(file)
    async with Scheduler(manager.config, redis_url=redis_url) as scheduler:
        follower = scheduler.followed(manager)
        address = scheduler.control_endpoint.removeprefix("tcp://")
        async with AsyncClient(manager.config, scheduler=address, actor="ann", timeout_s=60) as client:
            assert (await client.test_alerts()).told == ("ops",)
            assert webhook.documents[0]["about"] == "a test by ann: nothing is wrong"
            with pytest.raises(AlertNotFound, match="down"):
                await client.silence("dwon", seconds=60)
            with pytest.raises(NotSilenced):
                await client.unsilence("down")
            act = await client.silence("down", subject="gpu-1", seconds=3600, reason="moves house")
            for name in ("gpu-1", "gpu-2"):
                await Node(scheduler.state, id=name).hello()
                await Node(scheduler.state, id=name).lose()
            await until(webhook, 2)
            assert webhook.told[1:] == [("firing", "gpu-2")]
            answer = await client.alerts()
            assert [(one.subject, one.reason, one.actor) for one in answer.silences] == [
                ("gpu-1", "moves house", "ann")
            ]
            assert [(one.name, one.kind, one.to) for one in answer.receivers] == [
                ("ops", "webhook", webhook.url.rpartition("/hook")[0])
            ]
            assert SECRET not in answer.model_dump_json()
            assert (await client.undo(act)).done == ("silence down/gpu-1",)
            await until(webhook, 3)  # it still is so, and is heard now
            assert webhook.told[2:] == [("firing", "gpu-1")]
            with pytest.raises(NothingToUndo):
                await client.undo(act)
            heard = await client.acts()
            assert {"silence", "undo", "test_alerts", "alert"} <= {one.act for one in heard}
            runner = CliRunner()
            with logging_kept():
                listed = await asyncio.to_thread(
                    runner.invoke, _lcq(), ["--scheduler", address, "alerts", "list", "--rules"], env={"COLUMNS": "200"}
                )
                hushed = await asyncio.to_thread(
                    runner.invoke, _lcq(), ["--scheduler", address, "alerts", "silence", "down", "2h", "--reason", "x"]
                )
                quiet = await asyncio.to_thread(runner.invoke, _lcq(), ["--scheduler", address, "alerts", "list"])
            assert listed.exit_code == 1, listed.output
            assert "node gpu-1 is down: gpu-1 died" in listed.stdout
            assert "consoles only" not in listed.stdout
            assert (hushed.exit_code, hushed.stdout) == (0, "silenced for 2h 0m: down\n"), hushed.output
            assert quiet.exit_code == 0, quiet.output
            values["alerts"] = []
            file.write_text(yaml.safe_dump(values))
            follower.read_now()
            async with asyncio.TaskGroup() as group:
                following = group.create_task(follower.follow())
                await wait_until(lambda: _has_none(scheduler.state), what="the alerts of the rule that is gone to end")
                following.cancel()


def _lcq() -> Any:
    from lcq.cli.main import app

    return app


async def _has_none(state: StateManager) -> bool:
    return not (await state.reader.alerts()).alerts


async def test_a_scheduler_that_cannot_take_its_settings_over_tells_the_one_that_looks(
    redis_url: str, webhook: Webhook, tmp_path: Path
) -> None:
    rules = [{"name": "bad", "when": "bad_settings", "for_s": 0}, {"name": "keys", "when": "handshakes", "over": 2}]
    config = settings(webhook, alerts=rules)
    async with a_keeper(config, redis_url) as looks, StateManager(config, url=redis_url) as other:
        site = Site(other)
        await other.announce_scheduler(site.scheduler_id, "tcp://127.0.0.1:1", hold_ms=60_000)
        site.handshakes_failed = lambda: 3
        async with AlertKeeper(Ground(other, site)):
            await until(webhook, 1)
            assert webhook.documents[0]["rule"] == "keys"
            assert "3 connections to the scheduler on" in webhook.documents[0]["about"]
        assert looks._state.measures.notices.values.total() <= 1
