"""A Redis that says no: a proxy that answers commands with an error reply in the server's place."""

from __future__ import annotations

import asyncio
import threading
from collections import Counter

import hiredis


class RespProxy:
    """Passes what clients at ``port`` ask on to ``target_port``, unless ``refuse_with`` is set. ``with RespProxy(…)``.

    Then every command is answered with that reply (such as "LOADING Redis is loading the dataset in memory") and the
    server never sees it, but for those that greet: a connection can be made, as with a real server that refuses so.
    """

    _GREETINGS = frozenset({b"AUTH", b"HELLO", b"SELECT", b"CLIENT", b"PING"})

    def __init__(self, target_port: int, *, unix: str = "") -> None:
        self._target = target_port
        self._unix = unix
        self.refuse_with = ""
        self.refused: Counter[str] = Counter()
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="resp proxy", daemon=True)

    def __enter__(self) -> RespProxy:
        self._thread.start()
        self._server = asyncio.run_coroutine_threadsafe(
            asyncio.start_server(self._serve, "127.0.0.1", 0), self._loop
        ).result(10)
        self.port = int(self._server.sockets[0].getsockname()[1])
        return self

    def __exit__(self, *_: object) -> None:
        asyncio.run_coroutine_threadsafe(self._close(), self._loop).result(10)
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(10)
        self._loop.close()

    async def _close(self) -> None:
        self._server.close()
        under_way = [task for task in asyncio.all_tasks() if task is not asyncio.current_task()]
        for task in under_way:
            task.cancel()
        await asyncio.gather(*under_way, return_exceptions=True)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            far_reader, far_writer = await (
                asyncio.open_unix_connection(self._unix)
                if self._unix
                else asyncio.open_connection("127.0.0.1", self._target)
            )
        except OSError:
            writer.close()
            return
        back = asyncio.create_task(self._pass_back(far_reader, writer))
        try:
            await self._pass_on(reader, writer, far_writer)
        except (OSError, asyncio.CancelledError):
            pass
        finally:
            back.cancel()
            writer.close()
            far_writer.close()

    async def _pass_on(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, far: asyncio.StreamWriter
    ) -> None:
        """Whole commands one by one: only then is it known how many answers are owed."""
        parser = hiredis.Reader()
        while chunk := await reader.read(65536):
            parser.feed(chunk)
            while (command := parser.gets()) is not False:
                name = bytes(command[0]).upper()
                if self.refuse_with and name not in self._GREETINGS:
                    self.refused[self.refuse_with.partition(" ")[0]] += 1
                    writer.write(f"-{self.refuse_with}\r\n".encode())
                else:
                    far.write(_packed(command))
            await writer.drain()
            await far.drain()

    async def _pass_back(self, far: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while chunk := await far.read(65536):
                writer.write(chunk)
                await writer.drain()
        except OSError:
            pass
        finally:
            writer.close()


def _packed(command: list[bytes]) -> bytes:
    return b"*%d\r\n" % len(command) + b"".join(b"$%d\r\n%s\r\n" % (len(part), part) for part in command)
