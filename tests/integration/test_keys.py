"""Keys on real sockets: who is let in, who is not, what each may say, and what becomes of those who may no more."""

from __future__ import annotations

import asyncio
import base64
import contextlib
import dataclasses
import os
import re
import sys
import time
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import httpx
import psutil
import pytest
import redis
import zmq

from lcq import ids
from lcq.client import AsyncClient
from lcq.config import DistributedConfig
from lcq.errors import (
    InvalidConfig,
    InvalidInput,
    InvalidToken,
    KeyForbids,
    NotAdmitted,
    SchedulerUnreachable,
    StateUnavailable,
    TransitionRefused,
)
from lcq.gate import AllowList, Gate
from lcq.health import KNOWS_TASK_LOGS
from lcq.joining import change_key, join, trust_server
from lcq.key_record import KeyRole
from lcq.keyring import (
    Credential,
    KeyPair,
    ServerKeys,
    Token,
    client_file,
    peer_pair,
    read_credential,
    read_server_keys,
    write_credential,
    write_server_keys,
)
from lcq.lifelines import KNOWS_LIFELINE_KEY, lifeline_words
from lcq.models import TaskStatus
from lcq.picture_parts import KNOWS_PICTURES
from lcq.scheduler import Scheduler
from lcq.sockets import bind_socket, is_locked, make_socket, new_key_pair
from lcq.state.manager import StateManager
from lcq.wire import LogLine, Pictured, TaskLogged, ThumbnailPart
from tests.audit import audit
from tests.cluster import drill
from tests.conftest import wait_until
from tests.forked import Program, run
from tests.light_node import LightNode, a_light_node, light_nodes
from tests.nodes import a_task
from tests.redis_rig import running_server

PATIENCE_S = 60.0
ROOT = Path(__file__).parents[2]
SERVER, ANN = KeyPair(*new_key_pair()), KeyPair(*new_key_pair())
NEXT = KeyPair(*new_key_pair())


def a_pair() -> KeyPair:
    return KeyPair(*new_key_pair())


def settings(folder: Path, **more: object) -> DistributedConfig:
    """A scheduler's that other hosts can reach; its key's owner is Ann."""
    return DistributedConfig.model_validate(
        {
            "data_dir": folder,
            "zeromq": {"bind": "0.0.0.0", "base_port": 0, "control_port": 0},
            "discovery": {"enabled": False},
            "http": {"enabled": False},
            "leases": {"beat_s": 0.5, "lease_s": 60.0},
        }
        | more
    )


@contextlib.asynccontextmanager
async def a_scheduler(redis_url: str, folder: Path, **more: object) -> AsyncIterator[Scheduler]:
    config = settings(folder, **more)
    write_server_keys(config, ServerKeys(SERVER, owners={ANN.public: "ann"}))
    async with Scheduler(config, redis_url=redis_url) as scheduler:
        yield scheduler


@pytest.fixture
async def scheduler(redis_url: str, tmp_path: Path) -> AsyncIterator[Scheduler]:
    async with a_scheduler(redis_url, tmp_path / "scheduler") as scheduler:
        yield scheduler


@pytest.fixture
def eye(redis_url: str) -> Iterator[redis.Redis]:
    with redis.Redis.from_url(redis_url, decode_responses=True) as client:
        yield client


def place(scheduler: Scheduler) -> str:
    return f"127.0.0.1:{scheduler.control_endpoint.rpartition(':')[2]}"


def shown(scheduler: Scheduler, pair: KeyPair = ANN, **more: object) -> Credential:
    return dataclasses.replace(Credential(pair, (SERVER.public,), (place(scheduler),)), **more)  # type: ignore[arg-type]


def client(scheduler: Scheduler, credential: Credential | None = None, *, timeout_s: float = PATIENCE_S) -> AsyncClient:
    """One that shows a key, by default Ann's, and none of its host's."""
    nothing = DistributedConfig(data_dir=Path("/nonexistent"))
    return AsyncClient(
        nothing, scheduler=place(scheduler), credential=credential or shown(scheduler), timeout_s=timeout_s
    )


async def enrolled(scheduler: Scheduler, role: KeyRole, name: str = "ben") -> Credential:
    """A key of that role, enrolled by Ann."""
    pair = a_pair()
    async with client(scheduler) as ann:
        await ann.enrol_key(pair.public, name=name, role=role)
    return shown(scheduler, pair)


async def invited(scheduler: Scheduler, role: KeyRole = KeyRole.AGENT, **more: object) -> Token:
    pair = a_pair()
    async with client(scheduler) as ann:
        await ann.invite_key(pair.public, becomes=role, **more)  # type: ignore[arg-type]
    return Token(pair, SERVER.public, (place(scheduler),), role.value, str(more.get("node", "")), until_s=2**40)


# ---------------------------------------------------------------- four traps (ASKS D.1)


async def test_trap_one_a_locked_socket_without_its_gate_lets_nobody_in(
    redis_url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("lcq.sockets._HANDSHAKE_MS", 200)  # for so long libzmq waits for a handler
    async with StateManager(settings(tmp_path), url=redis_url) as state:
        context: zmq.Context[zmq.Socket[bytes]] = zmq.Context()
        allowed = AllowList(state)
        gate = Gate(context, ServerKeys(SERVER), allowed)
        with pytest.raises(RuntimeError, match="not open"):
            make_socket(context, zmq.ROUTER, gate=gate)
        with contextlib.closing(make_socket(zmq.Context.instance(), zmq.PULL)) as unlocked:
            assert not is_locked(unlocked)
        async with gate:
            router = make_socket(context, zmq.ROUTER, gate=gate)
            assert is_locked(router)
            port = bind_socket(router, "0.0.0.0", 0, "a socket", "a key")
        # Its handler is gone: libzmq's default would be to let in whoever knows the public key.
        peer = make_socket(context, zmq.DEALER, credential=Credential(ANN, (SERVER.public,)))
        watch = peer.get_monitor_socket(zmq.EVENT_HANDSHAKE_FAILED_NO_DETAIL | zmq.EVENT_HANDSHAKE_SUCCEEDED)
        peer.connect(f"tcp://127.0.0.1:{port}")
        assert await asyncio.to_thread(watch.poll, 1000 * int(PATIENCE_S))
        event = int.from_bytes(watch.recv_multipart()[0][:2], "little")
        assert event == zmq.EVENT_HANDSHAKE_FAILED_NO_DETAIL
        peer.disable_monitor()
        watch.close(linger=0)
        for one in (router, peer):
            one.close(linger=0)
        context.term()


async def test_trap_two_a_socket_that_was_forgotten_is_not_bound_and_no_port_is_open_to_plain_peers(
    scheduler: Scheduler,
) -> None:
    context: zmq.Context[zmq.Socket[bytes]] = zmq.Context()
    with pytest.raises(RuntimeError, match="without a lock"):
        bind_socket(make_socket(context, zmq.PUSH), "0.0.0.0", 0, "a bell", "zeromq.base_port")
    ports = [scheduler.control_endpoint, *scheduler.site.rings.values()]
    assert len(ports) == 7
    ours = [one for one in psutil.Process().net_connections("tcp") if one.status == psutil.CONN_LISTEN]
    told = {int(one.rpartition(":")[2]) for one in (*ports, scheduler.site.lifeline)}
    assert {one.laddr.port for one in ours if one.laddr.ip == "0.0.0.0"} == told, "docs/security.md: what listens"
    for endpoint in ports:
        plain = make_socket(context, zmq.PULL if endpoint is not ports[0] else zmq.DEALER)
        watch = plain.get_monitor_socket(zmq.EVENT_ALL & ~zmq.EVENT_CONNECTED & ~zmq.EVENT_CONNECT_DELAYED)
        plain.connect(f"tcp://127.0.0.1:{endpoint.rpartition(':')[2]}")
        assert await asyncio.to_thread(watch.poll, 1000 * int(PATIENCE_S))
        event = int.from_bytes(watch.recv_multipart()[0][:2], "little")
        assert event != zmq.EVENT_HANDSHAKE_SUCCEEDED, endpoint
        plain.disable_monitor()
        watch.close(linger=0)
        plain.close(linger=0)
    context.term()
    assert scheduler.site.allowed is not None
    await wait_until(lambda: scheduler.site.allowed.refused["other_mechanism"], timeout=PATIENCE_S)  # type: ignore[union-attr]


async def test_trap_three_a_key_that_is_enrolled_later_is_let_in_at_once_and_an_unknown_one_never(
    scheduler: Scheduler,
) -> None:
    ben = shown(scheduler, a_pair())
    async with client(scheduler, ben) as stranger:
        with pytest.raises(NotAdmitted, match="does not let in the key of this host"):
            await stranger.info()
        async with client(scheduler) as ann:
            await ann.enrol_key(ben.pair.public, name="ben", role=KeyRole.VIEWER)

        async def is_in() -> bool:
            with contextlib.suppress(NotAdmitted):
                return bool((await stranger.info()).scheduler_id)
            return False

        await wait_until(is_in, timeout=PATIENCE_S)  # by itself, without a new socket


async def test_trap_four_a_scheduler_with_another_key_is_told_from_one_that_is_silent(scheduler: Scheduler) -> None:
    other = Credential(ANN, (a_pair().public,), (place(scheduler),))
    async with client(scheduler, other, timeout_s=0.5) as deceived:
        await wait_until(lambda: _refusal_of(deceived), timeout=PATIENCE_S)
        with pytest.raises(NotAdmitted, match="breaks the handshake off") as refused:
            await deceived.info()
    assert other.server_keys[0][:16] in str(refused.value)


def test_all_sockets_and_contexts_are_made_in_the_places_that_lock_them() -> None:
    """What is made past ``make_socket`` and bound past ``bind_socket`` would be open, and nobody would notice."""
    calls = re.compile(
        r"\b([\w.]+)\.(bind|bind_to_random_port|get_monitor_socket|socket|Socket|recv_pyobj|send_pyobj)\("
    )
    made: set[str] = set()
    for file in (path for part in ("lcq", "worker", "tui") for path in (ROOT / part).rglob("*.py")):
        text = file.read_text(encoding="utf-8")
        if "import zmq" in text or "lcq.sockets" in text:
            found = {call for call in calls.findall(text) if call != ("socket", "socket")} - {
                ("listener", "bind")
            }  # the kernel's
            made |= {f"{file.relative_to(ROOT)}: {subject}.{call}" for subject, call in found}
    assert made == {
        "lcq/sockets.py: context.socket",
        "lcq/sockets.py: socket.bind",
        "lcq/sockets.py: socket.bind_to_random_port",
        "lcq/sockets.py: self._socket.bind",
        "lcq/sockets.py: socket.context.socket",  # what is told of handshakes, inproc
        "lcq/gate.py: socket.bind",  # the handler itself, inproc
    }


async def test_who_only_looks_whether_the_port_is_open_is_no_failed_handshake_and_no_alert(
    scheduler: Scheduler,
) -> None:
    allowed, (host, port) = scheduler.site.allowed, place(scheduler).split(":")
    assert allowed is not None
    for _ in range(12):  # as 'lcq doctor' does, and what balances loads
        _, writer = await asyncio.open_connection(host, int(port))
        writer.close()
    await wait_until(lambda: allowed.refused["broken_off"] == 12, timeout=PATIENCE_S)
    assert scheduler.site.handshakes_failed() == 0
    async with client(scheduler, shown(scheduler, a_pair())) as stranger:
        with pytest.raises(NotAdmitted):
            await stranger.info()
    assert scheduler.site.handshakes_failed() >= 1


# ---------------------------------------------------------------- loopback, and without keys


async def test_off_loopback_nothing_is_bound_without_keys_and_the_refusal_says_what_to_do(
    redis_url: str, tmp_path: Path
) -> None:
    with pytest.raises(InvalidConfig, match="there are no keys") as refused:
        async with Scheduler(settings(tmp_path), redis_url=redis_url):
            pass
    for way in ("lcq keys init", "127.0.0.1", "zeromq.trusted_network: true"):
        assert way in refused.value.hint


async def test_a_trusted_network_without_keys_is_bound_with_a_loud_warning(
    redis_url: str, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    config = settings(tmp_path, zeromq={"bind": "0.0.0.0", "base_port": 0, "control_port": 0, "trusted_network": True})
    async with Scheduler(config, redis_url=redis_url) as scheduler:
        assert "NOTHING IS ENCRYPTED" in caplog.text
        async with AsyncClient(config, scheduler=place(scheduler), timeout_s=PATIENCE_S) as anybody:
            assert (await anybody.info()).scheduler_id == scheduler.site.scheduler_id
            with pytest.raises(TransitionRefused, match="asks for no keys"):
                await anybody.invite_key(a_pair().public, becomes=KeyRole.AGENT)


async def test_loopback_needs_no_keys_though_there_are_some(redis_url: str, tmp_path: Path) -> None:
    config = settings(tmp_path, zeromq={"base_port": 0, "control_port": 0})
    write_server_keys(config, ServerKeys(SERVER))
    async with Scheduler(config, redis_url=redis_url) as scheduler:
        assert scheduler.site.allowed is None
        async with AsyncClient(config, scheduler=place(scheduler), timeout_s=PATIENCE_S) as anybody:
            assert (await anybody.keys()).server_keys == ()


# ---------------------------------------------------------------- roles


async def test_what_acts_and_tasks_say_of_who_asked_is_what_the_key_says(scheduler: Scheduler) -> None:
    ben = await enrolled(scheduler, KeyRole.SUBMITTER)
    async with client(scheduler, ben) as submitter, client(scheduler) as ann:
        (own,) = (await submitter.submit_many([a_task(user_id="ann")])).accepted
        (hers,) = (await ann.submit_many([a_task(user_id="zoe")])).accepted
        assert (await ann.get(own.id)).task.user_id == "ben"
        assert (await ann.get(hers.id)).task.user_id == "zoe"  # an operator may submit for others
        with pytest.raises(KeyForbids, match="of others"):
            await submitter.cancel(hers.id)
        await submitter.cancel(own.id)
        with pytest.raises(KeyForbids, match="ben, whose key is a submitter's, may not pause"):
            await submitter.pause("cpu-light")
        told = {act.act: act.actor for act in await ann.acts()}
        assert told["cancel"] == "ben"
        assert told["enrol_key"] == "ann"


async def test_a_viewer_looks_and_an_agent_speaks_only_for_its_node(scheduler: Scheduler) -> None:
    viewer = await enrolled(scheduler, KeyRole.VIEWER)
    agent = await enrolled(scheduler, KeyRole.AGENT, "gpu-0")
    async with client(scheduler, viewer) as looking:
        await looking.queues()
        with pytest.raises(KeyForbids, match="may not submit"):
            await looking.submit_many([a_task()])
    async with client(scheduler, agent) as acting:
        with pytest.raises(KeyForbids, match="may not submit"):
            await acting.submit_many([a_task()])
    where = [f"tcp://{place(scheduler)}"]
    async with light_nodes(1, where, name="other", credential=agent) as (other,):
        await wait_until(lambda: any("speaks for node gpu-0, not for other-0" in why for why in other.troubles))
        async with a_light_node(where, name="gpu", credential=agent) as node:
            assert node.at == scheduler.site.scheduler_id
        assert not other.welcomes


async def test_a_lifeline_is_held_only_for_the_agent_that_was_told_its_key_and_what_was_overheard_is_worth_nothing(
    scheduler: Scheduler,
) -> None:
    agent = await enrolled(scheduler, KeyRole.AGENT, "gpu-0")
    held = scheduler.nodes._lifelines
    where = [f"tcp://{place(scheduler)}"]
    async with a_light_node(where, name="gpu", credential=agent, knows=(KNOWS_LIFELINE_KEY,)) as node:
        await wait_until(lambda: held == {("gpu-0", node.boot_id): 1}, timeout=PATIENCE_S)
        key = node.welcomes[-1][1].lifeline_key
        overheard = lifeline_words("gpu-0", node.boot_id, 1, key)  # as it was said, on a wire that anybody may hear
        guessed = lifeline_words("gpu-0", node.boot_id, 2, "another key")
        port = int(scheduler.site.lifeline.rpartition(":")[2])
        for words in (f"gpu-0 {node.boot_id}\n".encode(), overheard, guessed, b"x\n", b"gpu-0 other 1 2\n"):
            reader, writer = await asyncio.open_connection("127.0.0.1", port)
            writer.write(words)
            assert await asyncio.wait_for(reader.read(1), PATIENCE_S) == b"", words  # shut at once
            writer.close()
        assert held == {("gpu-0", node.boot_id): 1}


# ---------------------------------------------------------------- tokens


async def test_a_token_lets_one_host_in_once_also_where_two_schedulers_are_asked_at_the_same_time(
    redis_url: str, tmp_path: Path, scheduler: Scheduler
) -> None:
    async with a_scheduler(redis_url, tmp_path / "second") as second:
        token = await invited(scheduler)
        config = DistributedConfig(data_dir=tmp_path / "hosts")

        async def take_up(name: str, at: Scheduler) -> Credential:
            there = dataclasses.replace(token, schedulers=(place(at),))
            return await join(config, there, name=name, file_of=lambda node: tmp_path / f"{node}.json")

        came = await asyncio.gather(
            take_up("gpu-0", scheduler), take_up("gpu-1", second), take_up("gpu-2", scheduler), return_exceptions=True
        )
    (made,) = [one for one in came if isinstance(one, Credential)]
    refused = [one for one in came if isinstance(one, InvalidToken)]
    assert len(refused) == 2, came
    assert all(f"used already, by {made.node}" in str(one) for one in refused)
    assert [path.name for path in await asyncio.to_thread(lambda: list(tmp_path.glob("gpu-*")))] == [
        f"{made.node}.json"
    ]  # and nothing of the others
    assert read_credential(tmp_path / f"{made.node}.json") == made
    assert place(scheduler) in made.schedulers or place(second) in made.schedulers


async def test_a_host_that_has_joined_needs_nothing_more_said_and_a_token_does_nothing_else(
    scheduler: Scheduler, tmp_path: Path
) -> None:
    token = await invited(scheduler, node="gpu-0")
    async with client(scheduler, token.credential) as early:
        with pytest.raises(KeyForbids, match="whose key is an invited's, may not nodes"):
            await early.nodes()
    config = DistributedConfig(data_dir=tmp_path)
    joined = await join(config, token, name="whatever", file_of=lambda node: tmp_path / f"{node}.json")
    assert (joined.node, joined.role) == ("gpu-0", "agent")
    with pytest.raises(InvalidInput, match="there is a key already"):
        await join(config, token, name="gpu-0", file_of=lambda node: tmp_path / f"{node}.json")
    where = [f"tcp://{one}" for one in joined.schedulers]
    async with a_light_node(where, name="gpu", credential=read_credential(tmp_path / "gpu-0.json")):
        pass
    again = await invited(scheduler)
    with pytest.raises(InvalidInput, match="gpu-0 has a key already"):
        await join(config, again, name="gpu-0", file_of=lambda node: tmp_path / f"{node}-2.json")


async def test_an_agent_and_a_console_that_run_without_a_key_take_it_up_by_themselves_when_it_comes(
    scheduler: Scheduler, tmp_path: Path
) -> None:
    file = tmp_path / "node-gpu-0.json"
    own = DistributedConfig(data_dir=tmp_path / "ben")
    where = [f"tcp://{place(scheduler)}"]
    async with (
        client(scheduler) as ann,
        light_nodes(1, where, name="gpu", slots=1, late=lambda: read_credential(file), takes=True) as (node,),
        AsyncClient(own, scheduler=place(scheduler), timeout_s=0.5) as console,
    ):
        await wait_until(lambda: node.troubles, timeout=PATIENCE_S)
        with pytest.raises((NotAdmitted, SchedulerUnreachable)):
            await console.info()
        nobody = DistributedConfig(data_dir=tmp_path / "nobody")
        await join(nobody, await invited(scheduler), name="gpu-0", file_of=lambda _: file)
        await join(own, await invited(scheduler, KeyRole.VIEWER), name="ben", file_of=lambda _: client_file(own))
        await asyncio.wait_for(node.membership.joined.wait(), PATIENCE_S)
        assert await _bell_rings(ann, node)
        await wait_until(lambda: _is_answered(console), timeout=PATIENCE_S)


@pytest.mark.chaos
async def test_an_lcq_agent_that_was_started_before_it_was_let_in_becomes_the_node_of_its_token_and_works(
    scheduler: Scheduler, tmp_path: Path
) -> None:
    """The whole program, which nobody has named; and its own 'join', with what an operator has printed."""
    told = {"LCQ_DATA_DIR": str(tmp_path / "host"), "LCQ_DRILLS": "1", "LCQ_AGENT__SLOTS": "1"}
    agent = [sys.executable, "-m", "worker.cli", "--scheduler", place(scheduler)]
    log = tmp_path / "agent.log"
    with log.open("wb") as output, Program(agent, env=os.environ | told, stderr=output, cwd=tmp_path) as process:
        try:
            await wait_until(lambda: "joins as soon as one answers" in log.read_text(), timeout=PATIENCE_S)
            token = await invited(scheduler, node="gpu-7")
            command = [*agent[:3], "join", str(token)]
            joined = await asyncio.to_thread(run, command, env=os.environ | told, cwd=tmp_path, capture_output=True)
            assert joined.returncode == 0, joined.stderr
            async with client(scheduler) as ann:

                async def is_online() -> bool:
                    return [node.id for node in await ann.nodes() if node.status == "online"] == ["gpu-7"]

                await wait_until(is_online, timeout=2 * PATIENCE_S)
                (task,) = (await ann.submit_many([drill()])).accepted
                (done,) = await ann.wait(task.id, timeout_s=2 * PATIENCE_S)
                assert done.status is TaskStatus.COMPLETED, log.read_text()
            assert process.poll() is None
        finally:
            process.terminate()


async def test_a_token_that_is_over_or_taken_back_lets_nobody_in(scheduler: Scheduler, tmp_path: Path) -> None:
    config = DistributedConfig(data_dir=tmp_path)
    over, back = await invited(scheduler, span_s=1), await invited(scheduler)
    await asyncio.sleep(1.1)  # by Redis's clock, which nobody can be told to set
    with pytest.raises(InvalidToken, match="it is over"):
        await join(config, over, name="gpu-0", file_of=lambda node: tmp_path / f"{node}.json")
    async with client(scheduler) as ann:
        await ann.revoke_key(back.pair.public)
    with pytest.raises(NotAdmitted):
        await join(config, back, name="gpu-0", file_of=lambda node: tmp_path / f"{node}.json")


# ---------------------------------------------------------------- revoked, replaced, away


async def test_a_revoked_agent_is_cut_and_its_attempt_runs_elsewhere_without_a_lease_that_runs_out(
    scheduler: Scheduler, eye: redis.Redis
) -> None:
    first, second = [await enrolled(scheduler, KeyRole.AGENT, name) for name in ("gone-0", "stays-0")]
    where = [f"tcp://{place(scheduler)}"]
    async with (
        client(scheduler) as ann,
        a_light_node(where, name="gone", slots=1, credential=first) as gone,
        a_light_node(where, name="stays", slots=1, credential=second) as stays,
    ):
        (task,) = (await ann.submit_many([a_task()])).accepted
        await wait_until(lambda: _held(gone), timeout=PATIENCE_S)
        await ann.revoke_key(first.pair.public, reason="sold")
        stays.takes = True  # the bell has to find it, on a socket that was bound again

        async def is_elsewhere() -> bool:
            stays._rung.set()
            record = await ann.get(task.id)
            return (record.status, record.node) == (TaskStatus.COMPLETED, "stays-0")

        await wait_until(is_elsewhere, timeout=PATIENCE_S)  # its lease would last for 60 s
        attempts = (await ann.history(task.id)).attempts
        assert "the key of node gone-0 was revoked" in attempts[0].failure.message
        await wait_until(lambda: any("was revoked, or never enrolled" in why for why in gone.troubles))
        beats = len(gone.beats)
        assert stays.membership.joined.is_set()
        told = await ann.keys()
        assert {one.name: one.revoked_by for one in told.keys if one.revoked_ms} == {"gone-0": "ann"}
        await wait_until(lambda: eye.hget("{lcq}:handshakes", "revoked_key"), timeout=PATIENCE_S)
        assert len(gone.beats) == beats
    audit(eye)


async def _held(node: LightNode) -> bool:
    if not node.grants:
        await node.ask_for_work()
    return bool(node.grants)


async def test_a_revoked_person_is_cut_and_the_last_operator_cannot_be_revoked(scheduler: Scheduler) -> None:
    ben = await enrolled(scheduler, KeyRole.OPERATOR)
    async with client(scheduler) as ann, client(scheduler, ben) as other:
        await other.info()
        await ann.revoke_key(ben.pair.public)
        with pytest.raises(NotAdmitted, match="was revoked"):
            await other.info()
        with pytest.raises(TransitionRefused, match="the last one of an operator"):
            await ann.revoke_key(ANN.public)
        with pytest.raises(TransitionRefused, match="revoked already"):
            await ann.revoke_key(ben.pair.public)


async def test_a_key_is_changed_while_its_owner_works_and_both_are_good_for_a_while(
    scheduler: Scheduler, tmp_path: Path
) -> None:
    path = tmp_path / "ben.json"
    old = dataclasses.replace(await enrolled(scheduler, KeyRole.VIEWER), file=path)
    async with client(scheduler, old) as ben:
        new = await change_key(ben, old)
        assert (await ben.info()).scheduler_id
    assert read_credential(path) == new
    assert new.pair != old.pair
    for one in (new, old):
        async with client(scheduler, one) as ben:
            assert (await ben.info()).scheduler_id


async def test_who_changes_its_key_while_the_schedulers_change_theirs_knows_both_afterwards(
    scheduler: Scheduler, tmp_path: Path
) -> None:
    path = tmp_path / "ann.json"
    write_credential(path, shown(scheduler))
    old = read_credential(path)
    assert old is not None
    write_server_keys(scheduler.config, ServerKeys(SERVER, NEXT, {ANN.public: "ann"}))
    await wait_until(lambda: len(scheduler.site.desk.server_keys) == 2, timeout=PATIENCE_S)
    async with client(scheduler, old) as ann:
        new = await change_key(ann, old)
    assert new.server_keys == (SERVER.public, NEXT.public)
    assert read_credential(path) == new


async def test_an_agent_whose_key_is_changed_shows_the_new_one_while_it_works(
    scheduler: Scheduler, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("lcq.admission._LOOK_AT_FILE_S", 0.05)
    path = tmp_path / "node-gpu-0.json"
    write_credential(path, await enrolled(scheduler, KeyRole.AGENT, "gpu-0"))
    old = read_credential(path)
    assert old is not None
    where = [f"tcp://{place(scheduler)}"]
    async with (
        client(scheduler) as ann,
        client(scheduler, old) as rotating,
        a_light_node(where, name="gpu", slots=1, credential=old) as node,
    ):
        new = await change_key(rotating, old)
        assert scheduler.site.allowed is not None
        allowed = scheduler.site.allowed

        async def is_seen() -> bool:
            await allowed.tell()
            return any(one.key == new.pair.public and one.seen_ms for one in (await ann.keys()).keys)

        await wait_until(is_seen, timeout=PATIENCE_S)  # before the old one is over
        await ann.revoke_key(old.pair.public)
        await wait_until(lambda: allowed.holder(old.pair.public) is None, timeout=PATIENCE_S)
        node.takes = True
        assert await _bell_rings(ann, node)  # line and bells are open, and nobody has started it anew
        assert len(node.welcomes) == 1
        assert [one.status for one in await ann.nodes()] == ["online"]


async def test_who_is_refused_looks_whether_there_is_another_key_in_its_file(
    scheduler: Scheduler, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("lcq.admission._LOOK_AT_FILE_S", 3600.0)
    path = tmp_path / "ben.json"
    write_credential(path, await enrolled(scheduler, KeyRole.VIEWER))
    old = read_credential(path)
    assert old is not None
    async with client(scheduler) as ann, client(scheduler, old) as console, client(scheduler, old) as other:
        await console.info()
        await change_key(other, old)
        await ann.revoke_key(old.pair.public)
        await wait_until(lambda: _is_answered(console), timeout=PATIENCE_S)


def _refusal_of(one: AsyncClient) -> NotAdmitted | None:
    return one._admission.refusal if one._admission is not None else None


async def _is_answered(one: AsyncClient) -> bool:
    with contextlib.suppress(NotAdmitted, SchedulerUnreachable):
        return bool((await one.info()).scheduler_id)
    return False


async def test_keys_end_by_rediss_clock_and_are_cut_when_they_do(
    scheduler: Scheduler, monkeypatch: pytest.MonkeyPatch
) -> None:
    ben = await enrolled(scheduler, KeyRole.VIEWER)
    allowed = scheduler.site.allowed
    assert allowed is not None
    now_s = time.time()
    monkeypatch.setattr(time, "time_ns", lambda: int((now_s + 3600) * 1e9))  # this host's clock is an hour ahead
    monkeypatch.setattr(ids, "_last", ids._last)  # nor are ids of later tests
    cut: list[str] = []
    async with contextlib.AsyncExitStack() as stack, client(scheduler, ben) as looking:
        allowed.on_revoked(lambda record: cut.append(record.key), stack)
        new = a_pair()
        await looking.replace_key(new.public)
        await allowed.read()
        assert allowed.holder(ben.pair.public) is not None  # ten minutes more
        assert (await looking.info()).scheduler_id
        monkeypatch.setattr(scheduler.state, "now_ms", lambda: _in_an_hour(now_s))
        await allowed.read()
        assert allowed.holder(ben.pair.public) is None
        assert cut == [ben.pair.public]
        await allowed.read()
        assert cut == [ben.pair.public]  # once


async def _in_an_hour(now_s: float) -> int:
    return int((now_s + 3600) * 1000)


async def test_a_log_and_a_picture_are_had_over_http_at_a_scheduler_to_which_its_node_does_not_speak(
    redis_url: str, tmp_path: Path, scheduler: Scheduler
) -> None:
    agent = await enrolled(scheduler, KeyRole.AGENT, "gpu-0")
    where = [f"tcp://{place(scheduler)}"]
    async with (
        a_scheduler(redis_url, tmp_path / "second", http={"enabled": True}, scheduler_port=0) as second,
        client(scheduler) as ann,
        a_light_node(
            where, name="gpu", slots=1, credential=agent, only_there=True, knows=(KNOWS_TASK_LOGS, KNOWS_PICTURES)
        ) as node,
        httpx.AsyncClient(timeout=PATIENCE_S) as http,
    ):
        (task,) = (await ann.submit_many([a_task()])).accepted
        await wait_until(lambda: _held(node), timeout=PATIENCE_S)

        async def tell() -> None:
            await wait_until(lambda: any(one.task_log for one in node.orders), timeout=PATIENCE_S)
            wish = next(one.task_log for one in node.orders if one.task_log)
            line = LogLine(number=0, at_ms=1, source="cpu/0", text="hello")
            told = TaskLogged(node_id="gpu-0", boot_id=node.boot_id, wish=wish.id, lines=(line,), next=9, size=9)
            await node.line.ask(told)

        asked = http.get(f"http://{second.site.http}/v1/tasks/{task.id}/log")
        answer, _ = await asyncio.gather(asked, tell())
        assert (answer.status_code, answer.text.endswith(" cpu/0 hello\n")) == (200, True), answer.text

        async def draw() -> None:
            await wait_until(lambda: any(one.wish for one in node.orders), timeout=PATIENCE_S)
            wish = next(one.wish for one in node.orders if one.wish)
            parts = {"before": ThumbnailPart(data=base64.b64encode(b"webp").decode(), width=1, height=1)}
            await node.line.ask(Pictured(node_id="gpu-0", boot_id=node.boot_id, wish=wish.id, parts=parts))

        asked = http.get(f"http://{second.site.http}/v1/tasks/{task.id}/thumbnails/before")
        answer, _ = await asyncio.gather(asked, draw())
        assert (answer.status_code, answer.content) == (200, b"webp"), answer.text
        async with client(scheduler, shown(scheduler, peer_pair(SERVER))) as looks:
            with pytest.raises(KeyForbids, match="scheduler, whose key is a viewer's, may not drain"):
                await looks.drain("gpu-0")


async def test_the_schedulers_key_is_changed_and_who_has_been_there_meanwhile_follows(
    scheduler: Scheduler, tmp_path: Path
) -> None:
    path = tmp_path / "ann.json"
    ann = shown(scheduler, file=path)
    agent = await enrolled(scheduler, KeyRole.AGENT, "gpu-0")
    config, owners = scheduler.config, {ANN.public: "ann"}
    where = [f"tcp://{place(scheduler)}"]
    async with a_light_node(where, name="gpu", slots=1, credential=agent) as node, client(scheduler, ann) as client_:
        write_server_keys(config, ServerKeys(SERVER, NEXT, owners))

        async def has_heard() -> bool:
            await client_.info()
            told = (SERVER.public, NEXT.public)
            return bool(path.exists()) and read_credential(path).server_keys == told == node.server_keys  # type: ignore[union-attr]

        await wait_until(has_heard, timeout=PATIENCE_S)
        write_server_keys(config, ServerKeys(NEXT, None, owners))
        await wait_until(lambda: scheduler.site.desk.server_keys == (NEXT.public,), timeout=PATIENCE_S)

        async def follows() -> bool:
            return (await client_.keys()).server_keys == (NEXT.public,) and bool(await _bell_rings(client_, node))

        node.takes = True
        await wait_until(follows, timeout=PATIENCE_S)
        assert scheduler.site.allowed is not None
        assert scheduler.site.allowed.refused["unproven"]  # they first tried by the key that they knew
        assert scheduler.site.handshakes_failed() == 0, "nobody is to be alarmed by that"
    async with client(scheduler, timeout_s=0.5) as missed_it:
        await wait_until(lambda: _refusal_of(missed_it), timeout=PATIENCE_S)
        with pytest.raises(NotAdmitted, match="breaks the handshake off"):
            await missed_it.info()


async def test_who_was_away_during_a_whole_change_knew_the_next_key_and_who_missed_two_is_told_by_hand(
    scheduler: Scheduler, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("lcq.admission._LOOK_AT_FILE_S", 0.05)
    config, owners, path = scheduler.config, {ANN.public: "ann"}, tmp_path / "ann.json"
    keys = [SERVER, NEXT, a_pair(), a_pair()]
    write_credential(path, shown(scheduler))

    def ann(*, timeout_s: float = PATIENCE_S) -> AsyncClient:
        return client(scheduler, read_credential(path), timeout_s=timeout_s)

    async def turn_to(number: int) -> None:
        changed = ServerKeys(keys[number], keys[number + 1], owners)
        write_server_keys(config, changed)
        await wait_until(lambda: scheduler.site.desk.server_keys == changed.told, timeout=PATIENCE_S)

    await turn_to(0)
    async with ann() as told:
        await told.info()
    await turn_to(1)  # and nobody was there when it happened
    async with ann() as back:
        assert (await back.info()).scheduler_id
    assert read_credential(path).server_keys == (keys[1].public, keys[2].public)  # type: ignore[union-attr]

    write_credential(path, shown(scheduler))  # one that has missed more than that
    async with ann(timeout_s=0.5) as late:
        await wait_until(lambda: _refusal_of(late), timeout=PATIENCE_S)
        with pytest.raises(NotAdmitted, match="breaks the handshake off") as refused:
            await late.info()
        assert "lcq keys trust KEY" in refused.value.hint
        nothing, lost = DistributedConfig(data_dir=Path("/nonexistent")), read_credential(path)
        assert lost is not None
        for wrong in (keys[0], keys[2]):
            with pytest.raises((NotAdmitted, SchedulerUnreachable)):  # the latter where that is not heard in time
                await trust_server(nothing, lost, wrong.public, scheduler=place(scheduler), timeout_s=0.5)
        assert read_credential(path) == lost
        await trust_server(nothing, lost, keys[1].public, scheduler=place(scheduler), timeout_s=PATIENCE_S)
        await wait_until(lambda: _is_answered(late), timeout=PATIENCE_S)  # and was never started anew


def test_the_next_key_of_the_schedulers_is_made_as_early_as_the_first_and_with_each_change(tmp_path: Path) -> None:
    def lcq(*words: str, code: int = 0) -> str:
        command = [sys.executable, "-m", "lcq.cli.main", "keys", *words]
        given = {"env": os.environ | {"LCQ_DATA_DIR": str(tmp_path)}, "cwd": tmp_path, "capture_output": True}
        done = run(command, text=True, **given)
        assert done.returncode == code, done
        return str(done.stdout if not code else done.stderr)

    config = DistributedConfig(data_dir=tmp_path)
    lcq("init")
    first, own = read_server_keys(config), read_credential(client_file(config))
    assert first is not None and first.coming is not None and own is not None  # noqa: PT018
    assert own.server_keys == first.told
    assert "the next key is known already" in lcq("rotate", "--server", code=2)
    assert first.coming.public in lcq("rotate", "--server", "--finish", "--json")
    second = read_server_keys(config)
    assert second is not None and second.pair == first.coming and second.coming is not None  # noqa: PT018
    assert second.coming.public not in first.told
    assert read_credential(client_file(config)).server_keys == second.told  # type: ignore[union-attr]
    assert "is no key" in lcq("trust", "abc", code=2)
    assert "there is no key in" in lcq("trust", second.pair.public, "--node", "gpu-7", code=2)


async def _bell_rings(client_: AsyncClient, node: LightNode) -> bool:
    (task,) = (await client_.submit_many([a_task()])).accepted
    return await client_.wait(task.id, timeout_s=PATIENCE_S) is not None


async def test_while_redis_is_away_who_was_known_is_let_in_and_nobody_else(tmp_path: Path) -> None:
    with running_server(tmp_path / "redis") as server:
        async with a_scheduler(server.url, tmp_path / "scheduler") as scheduler:
            server.kill()
            stranger = shown(scheduler, a_pair())
            async with client(scheduler, stranger, timeout_s=1.0) as unknown:
                with pytest.raises((NotAdmitted, SchedulerUnreachable)):
                    await unknown.info()
            async with client(scheduler) as ann:
                with pytest.raises(StateUnavailable):  # it is in: what it asks is answered
                    await ann.nodes()
            assert scheduler.site.allowed is not None
            assert scheduler.site.allowed.refused["redis_away"]
            server.start()
