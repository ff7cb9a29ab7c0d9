"""The console in a browser, by textual-serve: a console of its own for each page, for who has the address alone.

The address carries a key, as a terminal it opens acts as the user who serves it: other users of this host, and pages
of other sites that a browser has open, must not reach it (docs/console.md).
"""

from __future__ import annotations

import asyncio
import hmac
import ipaddress
import secrets
import shlex
import signal
import sys
from collections.abc import Awaitable, Callable, Sequence
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from lcq.config import DistributedConfig
from lcq.errors import LcqError
from lcq.lang import N, tr
from lcq.leash import leashed
from lcq.log import setup_logging

if TYPE_CHECKING:
    from aiohttp import web

KEY = "key"
_END_S = 5.0  # how long a console may take to end when its page is closed
_COOKIE = "lcq-console"
_HEADERS = {
    "Content-Security-Policy": "default-src 'self' data: 'unsafe-inline' 'unsafe-eval'; connect-src 'self' ws: wss:; "
    "frame-ancestors 'none'",
    "Referrer-Policy": "no-referrer",
    "Cache-Control": "no-store",
}
WARNING = N(
    "warning: {host} can be reached from other machines, and nothing is encrypted: whoever gets the address, or reads"
    " it on the way, steers the cluster as you. Better: leave it on loopback and use 'ssh -L {port}:127.0.0.1:{port}',"
    " or put a proxy with TLS before it."
)


class NoWebServer(LcqError):
    """What serves pages is not installed."""

    def __init__(self) -> None:
        super().__init__("the console in a browser needs textual-serve", hint="pip install 'lcq[web]'")


def is_loopback(host: str) -> bool:
    """Whether only this machine reaches that address."""
    try:
        return ipaddress.ip_address(host.strip("[]")).is_loopback
    except ValueError:
        return host == "localhost"


def run_web(config: DistributedConfig, arguments: Sequence[str], *, host: str = "127.0.0.1", port: int = 8000) -> int:
    """Serve consoles until SIGINT or SIGTERM; the exit code. Each page runs ``lcq ARGUMENTS``.

    Raises:
        NoWebServer: textual-serve is not installed.
        LcqError: the address cannot be served.
    """
    try:
        import textual_serve.server  # noqa: F401
    except ImportError as error:
        raise NoWebServer from error
    setup_logging("warning", file=config.data_path / "console-web.log")
    # The shell that textual-serve asks for it becomes it, so that it ends with us, however we end.
    command = "exec " + shlex.join(leashed([sys.executable, "-m", "lcq.cli.main", *arguments]))

    async def main() -> int:
        stop = asyncio.Event()
        for number in (signal.SIGINT, signal.SIGTERM):
            asyncio.get_running_loop().add_signal_handler(number, stop.set)
        if not is_loopback(host):
            sys.stderr.write(tr(WARNING, host=host, port=port or "PORT") + "\n")
        await serve(command, host, port, stop, told=_tell)
        return 0

    return asyncio.run(main())


def _tell(address: str) -> None:
    sys.stdout.write(tr("the console is at {address}\n", address=address))
    sys.stderr.write(tr("whoever has this address can do all that you can; ctrl-c ends it\n"))
    sys.stdout.flush()


async def serve(command: str, host: str, port: int, stop: asyncio.Event, *, told: Callable[[str], None]) -> None:
    """Serve ``command`` until ``stop`` is set. ``told`` gets the address with its key; port 0: a free one.

    Raises:
        LcqError: the address cannot be served.
    """
    from aiohttp import web
    from textual_serve.app_service import AppService
    from textual_serve.server import Server

    class Pages(Server):
        """textual-serve's pages, and nobody in but who has the key."""

        async def on_startup(self, app: web.Application) -> None:
            pass  # it would print

        async def handle_index(self, request: web.Request) -> Any:
            scheme = request.headers.get("X-Forwarded-Proto", request.scheme)
            self.public_url = f"{'https' if scheme == 'https' else 'http'}://{request.host}"  # as the browser sees it
            return await super().handle_index(request)

        async def _process_messages(self, websocket: web.WebSocketResponse, app_service: AppService) -> None:
            try:
                await super()._process_messages(websocket, app_service)
            finally:
                left.append(app_service)

        async def handle_websocket(self, request: web.Request) -> web.WebSocketResponse:
            try:
                return await super().handle_websocket(request)
            finally:
                while left:  # its page is closed, and it was told to end: it is waited for, or killed
                    await _ended(left.pop()._process)

    left: list[AppService] = []
    pages = Pages(command, host=host, port=port, title="LCQ")
    key = secrets.token_urlsafe(24)
    app = await pages._make_app()
    app.middlewares.append(_guard(key))
    runner = web.AppRunner(app, access_log=None, shutdown_timeout=2.0)
    await runner.setup()
    try:
        try:
            await web.TCPSite(runner, host, port).start()
        except OSError as error:
            raise LcqError(
                f"{host}:{port} cannot be served: {error.strerror or error}", hint="another port: --web-port 8001"
            ) from error
        at = runner.addresses[0]
        shown = f"[{at[0]}]" if ":" in at[0] else at[0]
        told(f"http://{shown}:{at[1]}/?{KEY}={key}")
        await stop.wait()
    finally:
        await runner.cleanup()


async def _ended(process: asyncio.subprocess.Process | None) -> None:
    if process is None:
        return
    try:
        async with asyncio.timeout(_END_S):
            await process.wait()
    except (TimeoutError, asyncio.CancelledError):
        if process.returncode is None:
            process.kill()
            await process.wait()


def _guard(key: str) -> Any:
    """Lets in who has the key: in the address the first time, in a cookie of this site alone from then on."""
    from aiohttp import web

    def is_key(told: str | None) -> bool:
        return told is not None and hmac.compare_digest(told.encode(), key.encode())

    @web.middleware
    async def guard(
        request: web.Request, handler: Callable[[web.Request], Awaitable[web.StreamResponse]]
    ) -> web.StreamResponse:
        origin = request.headers.get("Origin")
        if origin is not None and urlsplit(origin).netloc != request.host:
            raise web.HTTPForbidden(text=tr("this console is not for the pages of other sites\n"))
        if is_key(request.query.get(KEY)):
            there = web.HTTPSeeOther(request.path)  # without the key: it would stay in the history
            there.set_cookie(f"{_COOKIE}-{request.url.port}", key, httponly=True, samesite="Strict", path="/")
            raise there
        if not is_key(request.cookies.get(f"{_COOKIE}-{request.url.port}")):
            raise web.HTTPForbidden(
                text=tr("open the address that 'lcq console --web' has printed: it carries the key\n")
            )
        response = await handler(request)
        if not response.prepared:
            response.headers.update(_HEADERS)
        return response

    return guard
