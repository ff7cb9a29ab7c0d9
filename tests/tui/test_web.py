"""The console in a browser: who has the key gets in, no page of another site does, and it is the console."""

from __future__ import annotations

import asyncio
import shlex
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import aiohttp
import pytest
from yarl import URL

from lcq.errors import LcqError
from lcq.leash import leashed
from tests.conftest import wait_until
from tui.web import WARNING, is_loopback, serve


@asynccontextmanager
async def served(command: str) -> AsyncIterator[URL]:
    stop, addresses = asyncio.Event(), list[str]()
    async with asyncio.TaskGroup() as tasks:
        tasks.create_task(serve(command, "127.0.0.1", 0, stop, told=addresses.append), name="pages")
        await wait_until(lambda: addresses)
        yield URL(addresses[0])
        stop.set()


def a_browser() -> aiohttp.ClientSession:
    return aiohttp.ClientSession(cookie_jar=aiohttp.CookieJar(unsafe=True))  # of an address and not of a name


async def test_nobody_gets_in_without_the_key_and_it_does_not_stay_in_the_address() -> None:
    async with served("true") as address, a_browser() as browser, a_browser() as other:
        for path in ("/", "/ws", "/static/js/textual.js", "/?key=wrong"):
            async with other.get(address.join(URL(path))) as answer:
                assert answer.status == 403
                assert "it carries the key" in await answer.text()
        async with browser.get(address) as answer:
            assert (answer.status, answer.url.query_string) == (200, "")
            assert "frame-ancestors 'none'" in answer.headers["Content-Security-Policy"]
            assert str(address.origin()).replace("http", "ws") in await answer.text()
        async with browser.get(address.join(URL("/ws")), headers={"Origin": "http://evil.example"}) as answer:
            assert answer.status == 403


async def test_what_opens_is_the_console(tmp_path: Path) -> None:
    settings = tmp_path / "lcq.yaml"
    settings.write_text(f"data_dir: {tmp_path}/data\n")
    console = leashed([sys.executable, "-m", "lcq.cli.main", "--config", str(settings), "console"])
    command = f"exec {shlex.join(console)}"
    async with served(command) as address, a_browser() as browser:
        async with browser.get(address) as answer:
            assert answer.status == 200
        seen = b""
        async with browser.ws_connect(address.join(URL("/ws?width=120&height=30"))) as socket, asyncio.timeout(120):
            while b"Waiting for the cluster" not in seen:
                message = await socket.receive()
                assert message.type in (aiohttp.WSMsgType.BINARY, aiohttp.WSMsgType.TEXT), message
                seen += message.data if isinstance(message.data, bytes) else message.data.encode()


async def test_an_address_that_is_taken_is_told() -> None:
    async with served("true") as address:
        with pytest.raises(LcqError, match="cannot be served"):
            await serve("true", "127.0.0.1", address.port or 0, asyncio.Event(), told=print)


@pytest.mark.parametrize(
    ("host", "expected"), [("127.0.0.1", True), ("::1", True), ("localhost", True), ("0.0.0.0", False), ("gpu", False)]
)
def test_what_others_can_reach_is_known_and_warned_of(host: str, expected: bool) -> None:
    assert is_loopback(host) is expected
    assert "nothing is encrypted" in WARNING.format(host=host, port=8000)
