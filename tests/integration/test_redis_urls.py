"""What redis.url may say: TLS, accounts, Sentinels; and that each mistake is told clearly, without a password."""

from __future__ import annotations

import asyncio
import hashlib
import re
import socket
import ssl
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import psutil
import pytest
import redis

from lcq.config import DistributedConfig, RedisConfig
from lcq.errors import InvalidConfig, StateUnavailable, UnsafeState, without_password
from lcq.scheduler import Scheduler
from lcq.state import connection as connection_module
from lcq.state import sentinels as sentinels_module
from lcq.state.connection import connect
from lcq.state.manager import StateManager
from lcq.state.reader import StateReader
from lcq.state.sentinels import SentinelUrl
from lcq.wire import ListTasks
from tests.conftest import wait_until
from tests.nodes import LIGHT, Node, a_task
from tests.redis_rig import Server, running_rig, running_server

PEM = Path(__file__).parents[1] / "tls"
ROOT = Path(__file__).parents[2]


async def use(url: str, **redis: object) -> None:
    """Open the state and make a task's whole life's moves."""
    config = DistributedConfig(redis=RedisConfig(url=url, **redis))  # type: ignore[arg-type]
    async with StateManager(config, url=config.redis.address) as state:
        node = Node(state)
        await node.hello()
        task = await state.submit_task(a_task(), queue=LIGHT)
        await node.claim()
        await node.finish(task.id)


async def test_an_attempt_from_before_the_server_was_back_keeps_nobody_waiting_that_fails_after(
    redis_url: str, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(connection_module, "_BACK_OFF_S", (3600.0, 3600.0))
    password, path = redis_url.removeprefix("unix://:").removesuffix("?db=0").split("@", 1)
    ends = asyncio.Event()
    came: list[asyncio.StreamWriter] = []

    async def passed_on(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        came.append(writer)
        if len(came) == 1:  # it goes with the server that was there
            await ends.wait()
            writer.close()
            return
        far_reader, far_writer = await asyncio.open_unix_connection(path)
        await asyncio.gather(_pump(reader, far_writer), _pump(far_reader, writer))

    async with await asyncio.start_server(passed_on, "127.0.0.1", 0) as front:
        port = front.sockets[0].getsockname()[1]
        async with connect(f"redis://:{password}@127.0.0.1:{port}/0") as client:
            first = asyncio.create_task(client.ping())
            await wait_until(lambda: came)
            assert await client.ping()
            ends.set()
            with pytest.raises(redis.ConnectionError):
                await first
            assert await asyncio.gather(client.ping(), client.ping()) == [True, True]  # the second connects anew


@asynccontextmanager
async def tls_before(port: int, *, client_must_show: bool = False) -> AsyncIterator[int]:
    """A port that speaks TLS with the tests' certificate, and passes on to ``port``."""
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.load_cert_chain(PEM / "server.pem", PEM / "server.key")
    if client_must_show:
        context.load_verify_locations(PEM / "ca.pem")
        context.verify_mode = ssl.CERT_REQUIRED

    async def passed_on(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        far_reader, far_writer = await asyncio.open_connection("127.0.0.1", port)
        try:
            await asyncio.gather(_pump(reader, far_writer), _pump(far_reader, writer))
        except OSError:
            pass

    async with await asyncio.start_server(passed_on, "127.0.0.1", 0, ssl=context) as server:
        yield server.sockets[0].getsockname()[1]


async def _pump(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    while chunk := await reader.read(65536):
        writer.write(chunk)
        await writer.drain()
    writer.close()


# ---------------------------------------------------------------- TLS


async def test_tls_with_the_authority_named_and_with_a_certificate_of_our_own(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(connection_module, "CONNECT_S", 60.0)
    with running_server(tmp_path / "redis") as server:
        async with tls_before(server.port, client_must_show=True) as port:
            ours = {"ca_file": PEM / "ca.pem", "cert_file": PEM / "client.pem", "key_file": PEM / "client.key"}
            await use(f"rediss://localhost:{port}/0", **ours)


@pytest.mark.filterwarnings("ignore::ResourceWarning")  # a handshake that fails leaves its transport to the collector
async def test_a_tls_server_of_an_unknown_authority_is_refused_and_the_setting_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    with running_server(tmp_path / "redis") as server:
        with pytest.raises(StateUnavailable, match=r"rediss:// is for a port that speaks TLS"):
            await use(f"rediss://localhost:{server.port}/0")  # which says nothing
        monkeypatch.setattr(connection_module, "CONNECT_S", 60.0)
        async with tls_before(server.port) as port:
            with pytest.raises(StateUnavailable, match=r"CERTIFICATE_VERIFY_FAILED.*redis\.ca_file"):
                await use(f"rediss://localhost:{port}/0")


async def test_a_file_that_is_not_there_is_named():
    with pytest.raises(InvalidConfig, match=r"/nowhere/ca\.pem.*redis\.ca_file"):
        await use("rediss://localhost:6390/0", ca_file=Path("/nowhere/ca.pem"))


# ---------------------------------------------------------------- accounts


ACL = ROOT / "sample-config" / "redis" / "users.acl"
OTHERS = "{other}:task:1"


def accounts(scheduler: str, console: str) -> str:
    """The sample file with these passwords; and with an account for the test itself in place of the one that is off."""
    hashes = iter(hashlib.sha256(password.encode()).hexdigest() for password in (scheduler, console))
    filled = re.sub(r"#SHA256-\S+", lambda _: f"#{next(hashes)}", ACL.read_text())
    return filled.replace("user default off", "user default on >hunter2 ~* &* +@all")


@pytest.fixture
def guarded(tmp_path: Path):
    file = tmp_path / "users.acl"
    file.write_text(accounts("sched-secret", "view-secret"))
    with running_server(tmp_path / "redis", password="hunter2", requirepass="hunter2", aclfile=str(file)) as server:
        yield server


def as_user(server: Server, account: str) -> str:
    return f"redis://{account}@127.0.0.1:{server.port}/0"


async def test_the_sample_accounts_are_enough_for_a_scheduler_and_a_console_and_nothing_they_did_was_refused(
    guarded: Server, tmp_path: Path
):
    await use(as_user(guarded, "lcq:sched-secret"), durability="fsync")
    settings = {"data_dir": tmp_path / "data", "zeromq": {"base_port": 0, "control_port": 0}}
    config = DistributedConfig.model_validate(settings)
    async with Scheduler(config, redis_url=as_user(guarded, "lcq:sched-secret")) as scheduler:
        node = Node(scheduler.state)
        await node.hello()
        task = await scheduler.state.submit_task(a_task(), queue=LIGHT)
        async with StateReader(as_user(guarded, "lcq-view:view-secret")) as reader:
            assert len((await reader.snapshot()).tasks) == 2
            assert (await reader.events("0-0")).events
            assert len(await reader.schedulers()) == 1
            assert (await reader.list_tasks(ListTasks(where="state:queued"))).tasks[0].id == task.id
            for look in (
                reader.find(task.id), reader.attempts(task.id),
                reader.task_events(await reader.task(task.id)), reader.fleet(), reader.jobs(), reader.dead(),
                reader.minutes(), reader.spend(),
                reader.upkeep(), reader.waiting(), reader.lanes(), reader.listening(), reader.device_history("node-1"),
                reader.all_lanes(), reader.news("0-0", 1, 10), reader.totals(), reader.glances([task.id]),
            ):  # fmt: skip
                await look
    log = guarded.ask("ACL", "LOG")
    assert log == [], log


DANGEROUS = (
    "FLUSHALL", "FLUSHDB", "KEYS *", "SCAN 0", "RANDOMKEY", "DBSIZE", "CONFIG GET dir", "CONFIG SET dir /tmp",
    "DEBUG SLEEP 0", "MODULE LIST", "SAVE", "BGREWRITEAOF", "SHUTDOWN", "REPLICAOF no one", "MONITOR",
    "CLIENT LIST", "CLIENT KILL ID 1", "SCRIPT FLUSH", "EVAL return 0", "FUNCTION LIST", "SWAPDB 0 1",
    "MIGRATE h 1 k 0 1", "DUMP {lcq}:x", "ACL LIST", "RESTORE {lcq}:x 0 x", "RENAME {lcq}:x {lcq}:y",
    "COPY {lcq}:x {lcq}:y", "SUBSCRIBE c", "PUBLISH c m", "SLOWLOG GET", f"GET {OTHERS}", f"HGETALL {OTHERS}",
    f"EXISTS {OTHERS}", f"XREAD STREAMS {OTHERS} 0",
)  # fmt: skip
WRITES = (
    "SET {lcq}:x 1", "HSET {lcq}:x a b", "DEL {lcq}:x", "EXPIRE {lcq}:x 1", "ZADD {lcq}:x 1 a", "XADD {lcq}:x * a b",
    "SCRIPT LOAD return", "EVALSHA 0 0", "LPOP {lcq}:x", "RPUSH {lcq}:x a",
)  # fmt: skip


def refused(client: redis.Redis, command: str) -> bool:
    try:
        client.execute_command(*command.split(" "))
    except redis.exceptions.NoPermissionError:
        return True
    except redis.ResponseError as error:
        return "permission" in str(error) or "not allowed" in str(error)  # DEBUG is off by itself
    return False


def test_neither_account_may_do_what_is_dangerous_and_a_consoles_may_not_write(guarded: Server):
    with redis.Redis.from_url(as_user(guarded, "lcq:sched-secret")) as client:
        assert [command for command in DANGEROUS if not refused(client, command)] == []
        assert [command for command in WRITES if refused(client, command)] == []
        client.set("{lcq}:x", 1)
        writes_to_another = client.register_script("return redis.call('SET', '{other}:y', 1)")
        sha = client.script_load(writes_to_another.script)
        assert refused(client, f"EVALSHA {sha} 0")  # nor by a script that does not name its keys
    with redis.Redis.from_url(as_user(guarded, "lcq-view:view-secret")) as client:
        assert [command for command in (*DANGEROUS, *WRITES) if not refused(client, command)] == []
        assert client.get("{lcq}:x") == b"1"


def test_the_sample_accounts_have_no_password_that_somebody_could_know(tmp_path: Path):
    server = Server(tmp_path / "redis", {"aclfile": str(ACL)})
    with pytest.raises(AssertionError, match="does not answer"):
        server.start()
    assert ACL.read_text().startswith("user default off\n")


def test_every_command_that_a_script_runs_is_in_the_schedulers_line():
    allowed = next(line for line in ACL.read_text().splitlines() if line.startswith("user lcq ")).split()
    scripts = (ROOT / "lcq" / "state" / "lua").glob("*.lua")
    run = {command for script in scripts for command in re.findall(r'call\(\s*"([A-Z]+)"', script.read_text())}
    assert len(run) > 30
    assert [command for command in sorted(run) if f"+{command.lower()}" not in allowed] == []


# ---------------------------------------------------------------- open servers


def an_address_of_this_host() -> str:
    """One that is not loopback; "" where there is none."""
    every = (one.address for each in psutil.net_if_addrs().values() for one in each if one.family == socket.AF_INET)
    return next((address for address in every if not address.startswith("127.")), "")


async def test_a_server_that_lets_in_whoever_reaches_it_is_refused_unless_that_is_said(tmp_path: Path):
    address = an_address_of_this_host()
    if not address:
        pytest.skip("this host has loopback alone")
    with running_server(tmp_path / "redis", bind=f"127.0.0.1 {address}", protected_mode="no") as server:
        open_url = f"redis://{address}:{server.port}/0"
        await use(f"redis://127.0.0.1:{server.port}/0")
        with pytest.raises(UnsafeState, match=r"lets in whoever reaches it.*users\.acl.*redis\.trusted_network: true"):
            await use(open_url)
        await use(open_url, trusted_network=True)
        server.ask("ACL", "SETUSER", "lcq", "on", ">secret", "~*", "+@all")
        with pytest.raises(UnsafeState, match="asked for no password"):  # an account of ours locks out nobody
            await use(f"redis://lcq:secret@{address}:{server.port}/0")
        server.ask("CONFIG", "SET", "requirepass", "hunter2")
        await use(f"redis://lcq:secret@{address}:{server.port}/0")


async def test_a_server_that_asks_for_a_certificate_is_not_open(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(connection_module, "_is_loopback", lambda _: False)
    monkeypatch.setattr(connection_module, "CONNECT_S", 60.0)
    ours = {"ca_file": PEM / "ca.pem", "cert_file": PEM / "client.pem", "key_file": PEM / "client.key"}
    with running_server(tmp_path / "redis") as server:
        async with tls_before(server.port, client_must_show=True) as port:
            await use(f"rediss://localhost:{port}/0", **ours)
        async with tls_before(server.port) as port:
            with pytest.raises(UnsafeState, match="lets in whoever reaches it"):
                await use(f"rediss://localhost:{port}/0", **ours)


async def test_a_wrong_password_says_so_and_is_not_repeated(guarded: Server):
    for account in ("lcq:wrong-secret", ":wrong-secret", "nobody:wrong-secret"):
        with pytest.raises(StateUnavailable, match=r"refuses: .*password.*redis\.url") as refusal:
            await use(as_user(guarded, account))
        assert "wrong-secret" not in str(refusal.value)
    with pytest.raises(StateUnavailable, match=r"refuses: .*authenticate.*redis\.url"):
        await use(f"redis://127.0.0.1:{guarded.port}/0")


async def test_a_missing_permission_is_named_and_so_is_the_page_that_has_them_all(guarded: Server):
    with pytest.raises(StateUnavailable, match=r"lcq-view has no permissions to run the .*docs/redis\.md"):
        await use(as_user(guarded, "lcq-view:view-secret"))


# ---------------------------------------------------------------- Sentinels


def test_a_sentinel_url_is_read_whole():
    url = SentinelUrl.read(
        "rediss+sentinel://me:p%40ss@one,two:26380,[::1]:26381/mymaster/3?sentinel_password=s3&ssl_ca_certs=/ca.pem"
    )
    assert url.sentinels == (("one", 26379), ("two", 26380), ("::1", 26381))
    assert url.name == "mymaster"
    assert (url.server["username"], url.server["password"], url.server["db"]) == ("me", "p@ss", 3)
    assert url.sentinel == {"password": "s3", "ssl": True, "ssl_ca_certs": "/ca.pem"}
    assert (
        url.shown == "rediss+sentinel://one,two:26380,[::1]:26381/mymaster/3?sentinel_password=...&ssl_ca_certs=/ca.pem"
    )


@pytest.mark.parametrize(
    ("url", "said"),
    [
        ("redis+sentinel://one:26379", "names no primary"),
        ("redis+sentinel:///mymaster", "names no Sentinel"),
        ("redis+sentinel://one:x/mymaster", "'one:x' is not a Sentinel's address"),
        ("redis+sentinel://one/mymaster/zero", "the database 'zero'"),
        ("http://one", "cannot be read"),
        ("redis://:pa/ss:word@host:6379", "cannot be read"),
    ],
)
def test_a_url_that_cannot_be_read_says_what_is_wrong_and_how_it_is_written(url: str, said: str):
    with pytest.raises(InvalidConfig, match=said) as refusal:
        connect(url)
    assert "redis" in refusal.value.hint
    assert "pa/ss" not in str(refusal.value)


@pytest.mark.parametrize(
    "url",
    [
        "redis://me:sec/r@et@host:6379/0",
        "redis+sentinel://:secr@et@one,two/mymaster?sentinel_password=sec/r@et",
        "redis://host/0?password=sec/r@et&x=1",
        "unix://:secr@/run/redis@2/server.sock?db=0",
    ],
)
def test_no_form_of_a_password_is_shown(url: str):
    assert "sec" not in without_password(url)
    assert "et@" not in without_password(url)


async def test_a_name_that_no_sentinel_knows_and_sentinels_that_are_away_are_told_one_by_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    with running_rig(tmp_path / "redis") as rig:
        with pytest.raises(
            StateUnavailable, match=r"no Sentinel names a primary 'other': 127\S+ does not know it; 127"
        ):
            await use(rig.url.replace("mymaster", "other"))
        rig.sentinels[0].kill()
        rig.sentinels[1].freeze()
        await use(rig.url)  # one is enough to find the primary
        rig.sentinels[2].kill()
        monkeypatch.setattr(sentinels_module, "_ASK_BUSY_S", 1.0)  # nobody is left that could need longer
        with pytest.raises(
            StateUnavailable, match=r"127\S+ says Error 111.*127\S+ does not answer; 127\S+ says Error 111"
        ):
            await use(rig.url)
        # Where all that live have too much to do, they are given longer: else nobody would ever be found there.
        monkeypatch.setattr(sentinels_module, "_ASK_BUSY_S", 60.0)
        monkeypatch.setattr(sentinels_module, "_ASK_S", 0.01)
        asking = asyncio.create_task(SentinelUrl.read(rig.url).primary())
        await asyncio.sleep(0.1)
        assert not asking.done()
        rig.sentinels[1].thaw()
        assert (await asking)[1] == rig.first.port
