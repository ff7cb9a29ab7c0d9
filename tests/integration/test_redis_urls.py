"""What redis.url may say: TLS, accounts, Sentinels; and that each mistake is told clearly, without a password."""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
import redis

from lcq.config import DistributedConfig, RedisConfig
from lcq.errors import InvalidConfig, StateUnavailable, without_password
from lcq.state import connection as connection_module
from lcq.state import sentinels as sentinels_module
from lcq.state.connection import connect
from lcq.state.manager import StateManager
from lcq.state.reader import StateReader
from lcq.state.sentinels import SentinelUrl
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


async def test_tls_with_the_authority_named_and_with_a_certificate_of_our_own(tmp_path: Path):
    with running_server(tmp_path / "redis") as server:
        async with tls_before(server.port, client_must_show=True) as port:
            ours = {"ca_file": PEM / "ca.pem", "cert_file": PEM / "client.pem", "key_file": PEM / "client.key"}
            await use(f"rediss://localhost:{port}/0", **ours)


@pytest.mark.filterwarnings("ignore::ResourceWarning")  # a handshake that fails leaves its transport to the collector
async def test_a_tls_server_of_an_unknown_authority_is_refused_and_the_setting_named(tmp_path: Path):
    with running_server(tmp_path / "redis") as server:
        async with tls_before(server.port) as port:
            with pytest.raises(StateUnavailable, match=r"CERTIFICATE_VERIFY_FAILED.*redis\.ca_file"):
                await use(f"rediss://localhost:{port}/0")
        with pytest.raises(StateUnavailable, match=r"rediss:// is for a port that speaks TLS"):
            await use(f"rediss://localhost:{server.port}/0")


async def test_a_file_that_is_not_there_is_named():
    with pytest.raises(InvalidConfig, match=r"/nowhere/ca\.pem.*redis\.ca_file"):
        await use("rediss://localhost:6390/0", ca_file=Path("/nowhere/ca.pem"))


# ---------------------------------------------------------------- accounts


def documented(kind: str) -> str:
    """The ACL line that docs/redis.md has for ``kind`` of account."""
    lines = (ROOT / "docs" / "redis.md").read_text().splitlines()
    return next(line.removeprefix("user ") for line in lines if line.startswith(f"user {kind} "))


@pytest.fixture
def guarded(tmp_path: Path):
    accounts = [
        documented("lcq").replace(">PASSWORD", ">sched-secret"),
        documented("lcq-view").replace(">PASSWORD", ">view-secret"),
    ]
    with running_server(tmp_path / "redis", password="hunter2", user="\nuser ".join(accounts)) as server:
        yield server


def as_user(server: Server, account: str) -> str:
    return f"redis://{account}@127.0.0.1:{server.port}/0"


async def test_the_documented_accounts_are_enough_for_a_scheduler_and_for_a_reader(guarded: Server):
    await use(as_user(guarded, "lcq:sched-secret"), durability="fsync")
    async with StateReader(as_user(guarded, "lcq-view:view-secret")) as reader:
        assert len((await reader.snapshot()).tasks) == 1
        assert (await reader.events("0-0")).events
        assert await reader.schedulers() == {}


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
    monkeypatch.setattr(sentinels_module, "_ASK_BUSY_S", 1.0)
    with running_rig(tmp_path / "redis") as rig:
        with pytest.raises(
            StateUnavailable, match=r"no Sentinel names a primary 'other': 127\S+ does not know it; 127"
        ):
            await use(rig.url.replace("mymaster", "other"))
        rig.sentinels[0].kill()
        rig.sentinels[1].freeze()
        await use(rig.url)  # one is enough to find the primary
        rig.sentinels[2].kill()
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
