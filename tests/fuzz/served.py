"""A scheduler of this process on a real Redis, for the targets that it answers."""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import json
import logging
import random
import tempfile
from collections.abc import Awaitable, Iterator, MutableMapping
from pathlib import Path
from typing import Any
from urllib.parse import urlencode

import msgpack
from starlette.routing import Route

from lcq.component import Ground
from lcq.config import DistributedConfig
from lcq.http.app import make_app
from lcq.http.guard import App
from lcq.ids import new_id
from lcq.lent import CALLS, Terms
from lcq.scheduler import Scheduler
from tests.fuzz.mutation import as_json, edited, edited_picture
from tests.fuzz.targets import ID, Finding, Try, json_bodies, pictures
from tests.redis_rig import running_server
from tests.unit.test_spend import FunctionNode, submitted

_ENOUGH_REDIS = "64mb"
_ANSWER_S = 0.01  # of who waits for a picture: no node is there that could make one
_PATIENCE_S = 60.0
_KINDS = (
    b"application/json", b"multipart/form-data; boundary=b", b"application/octet-stream", b"image/png", b"text/plain",
    b"application/x-www-form-urlencoded", b"multipart/form-data", b"multipart/form-data; boundary=" + b"b" * 300,
    b"application/json; charset=utf-16", b"",
)  # fmt: skip


class _Broken(logging.Handler):
    """Hears of what no one may log: that something of ours broke."""

    def __init__(self) -> None:
        super().__init__(logging.ERROR)
        self.said: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        if record.exc_info:
            self.said.append(logging.Formatter().format(record))

    def check(self) -> None:
        if self.said:
            said, self.said = "\n".join(self.said), []
            raise Finding(said)


class Cluster:
    """``call`` runs a coroutine in the loop of a scheduler, which lives between the calls."""

    def __init__(self, folder: Path, redis_url: str) -> None:
        self.folder = folder
        self._config = DistributedConfig.model_validate(
            {
                "data_dir": folder / "data",
                "scheduler_port": 0,
                "zeromq": {"base_port": 0, "control_port": 0},
                "discovery": {"enabled": False},
                "http": {
                    "enabled": False,
                    "answer_s": _ANSWER_S,
                    "per_minute": None,
                    "body_mib": 1,
                    "save_folder": folder / "saved",
                },
                "storage": {"blobs": {"limit_mib": 32, "floor_mib": 0}},
                "limits": {"image_pixels": 512 * 512},
                "retention": {"completed_s": 1.0, "failed_s": 1.0, "events": 1000},
            }
        )
        (folder / "saved").mkdir()
        self._url = redis_url
        self._loop = asyncio.new_event_loop()
        self._stack = contextlib.AsyncExitStack()
        self.broken = _Broken()

    def call(self, work: Awaitable[Any]) -> Any:
        async def within() -> Any:
            async with asyncio.timeout(_PATIENCE_S):
                return await work

        try:
            return self._loop.run_until_complete(within())
        except TimeoutError as error:
            raise Finding(f"no answer within {_PATIENCE_S:g} s") from error

    @contextlib.contextmanager
    def running(self) -> Iterator[Scheduler]:
        logging.getLogger("lcq").addHandler(self.broken)
        try:
            scheduler = self.call(self._stack.enter_async_context(Scheduler(self._config, redis_url=self._url)))
            yield scheduler
        finally:
            self.call(self._stack.aclose())
            self._loop.close()
            logging.getLogger("lcq").removeHandler(self.broken)


@contextlib.contextmanager
def running_cluster() -> Iterator[tuple[Cluster, Scheduler]]:
    """One that lives between the calls that are made of it."""
    with (
        tempfile.TemporaryDirectory() as folder,
        running_server(Path(folder) / "redis", maxmemory=_ENOUGH_REDIS, appendfsync="no") as server,
    ):
        home = Path(folder) / "home"
        home.mkdir()
        cluster = Cluster(home, server.url)
        with cluster.running() as scheduler:
            yield cluster, scheduler


@contextlib.contextmanager
def desk() -> Iterator[Try]:
    """Frames, as an agent's or a client's socket brings them."""
    with running_cluster() as (cluster, scheduler):
        yield desk_of(cluster, scheduler)


def desk_of(cluster: Cluster, scheduler: Scheduler) -> Try:
    """What has a frame answered there."""

    def read(data: bytes) -> None:
        answer = msgpack.unpackb(cluster.call(scheduler.site.desk.answer(_anew(data), b"node-1/boot-1")))
        cluster.broken.check()
        if (answer.get("error") or {}).get("code") == "internal_error":
            raise Finding(f"{answer['error']['message']}")

    return read


def _anew(data: bytes) -> bytes:
    """The request of a seed under an id of its own: else it would be answered as a copy. Nobody has time to wait."""
    with contextlib.suppress(ValueError, TypeError, RecursionError, msgpack.UnpackException):
        value = msgpack.unpackb(data)
        if isinstance(value, dict) and value.get("id") == ID:
            value = {name: said for name, said in value.items() if name != "wait_ms"} | {"id": new_id()}
            return bytes(msgpack.packb(value))
    return data


# ---------------------------------------------------------------- HTTP

_PLACES = (
    ("POST", "/api/v1/inpaint"), ("POST", "/api/v1/adjust_mask"), ("POST", "/api/v1/run_plugin_gen_mask"),
    ("POST", "/inpaint"), ("POST", "/run_plugin"), ("POST", "/save_image"), ("POST", "/api/v1/save_image"),
    ("PUT", "/v1/blobs/{sha256}"), ("POST", "/v1/tasks"), ("POST", "/api/v1/gen-info"), ("POST", "/model"),
    ("GET", "/v1/blobs/{sha256}"),
)  # fmt: skip
"""Where bytes go. The numbers after theirs are those of all other routes."""


def _form(**parts: bytes) -> bytes:
    told = b""
    for name, content in parts.items():
        file = b'; filename="a.png"\r\nContent-Type: image/png' if content[:1] == b"\x89" else b""
        told += (
            b'--b\r\nContent-Disposition: form-data; name="'
            + name.encode()
            + b'"'
            + file
            + b"\r\n\r\n"
            + content
            + b"\r\n"
        )
    return told + b"--b--\r\n"


def requests() -> list[bytes]:
    """Of each place: a byte that chooses it, one for the type of its body, one for how that comes; then the body."""
    image, mask, *others = pictures()
    form = _form(image=image, mask=mask, hdStrategy=b"Crop", ldmSteps=b"25", name=b"RemoveBG", filename=b"../cat.png")
    as_text, as_form = range(3), (*range(3, 7), 9, 10)
    bodies = [(place, 0, body) for body in json_bodies() for place in (*as_text, 8)]
    bodies += [(place, 1, body) for place in as_form for body in (form, _form(file=image), _form(name=b"cv2"))]
    bodies += [(7, 2, body) for body in (image, b"x" * 5000, b"")] + [(8, 3, others[-1]), (8, 1, form), (11, 9, b"")]
    bodies += [(place, 0, b'{"reason": "a test", "actor": "ann"}') for place in range(12, 40)]
    return [bytes((place, kind, how)) + body for place, kind, body in bodies for how in (1, 2)]


def changed(data: bytes, chance: random.Random) -> bytes:
    """The head or the body changed, the latter by what it is."""
    head, body = bytearray(data[:3].ljust(3, b"\0")), data[3:]
    if chance.random() < 0.4:
        head[chance.randrange(3)] = chance.randrange(256)
    if chance.random() < 0.8:
        if body[:1] in (b"{", b"["):
            body = as_json(body, chance)
        elif b"\x89PNG" in body and chance.random() < 0.5:
            at = body.index(b"\x89PNG")
            body = body[:at] + edited_picture(body[at:], chance)
        else:
            body = edited(body, chance)
    return bytes(head) + body


@contextlib.contextmanager
def http() -> Iterator[Try]:
    """Requests to every route that takes something, and to some that do not."""
    with running_cluster() as (cluster, scheduler), http_of(cluster, scheduler) as read:
        yield read


@contextlib.contextmanager
def http_of(cluster: Cluster, scheduler: Scheduler) -> Iterator[Try]:
    """What has a request answered there."""
    app = make_app(Ground(scheduler.state, scheduler.site), scheduler.keeper.depot)
    others = sorted(
        (method, route.path)
        for route in app.app.routes
        if isinstance(route, Route)
        for method in route.methods or ()
        if method in ("POST", "PUT", "DELETE", "PATCH") or "{" in route.path
        if "events" not in route.path and "socket.io" not in route.path  # these answer without end
    )
    places = [*_PLACES, *(one for one in others if one not in _PLACES)]
    following = cluster.call(_begin(app.endings.follow()))
    beside = _names(cluster.folder)

    def read(data: bytes) -> None:
        place, kind, how = data[:3].ljust(3, b"\0")
        method, path = places[place % len(places)]
        status, answer = cluster.call(_asked(app.guard, method, path, _KINDS[kind % len(_KINDS)], how, data[3:]))
        cluster.broken.check()
        if status == 0 or (status == 500 and b'"internal_error"' in answer):
            raise Finding(f"{method} {path} was answered with {status} {answer[:300]!r}")
        if answer.startswith(b"{"):
            json.loads(answer)
        if _names(cluster.folder) != beside:
            raise Finding(f"{method} {path} has written beside its folders: {_names(cluster.folder) - beside}")

    try:
        yield read
    finally:
        following.cancel()
        cluster.call(asyncio.wait({following}))


# ---------------------------------------------------------------- addresses that functions are lent

_ASKED = "0123456789abcdef"
_WAYS = ("put_image", "put_result", "post_reply", "get_image", "addresses", "left")
_CALL_INPUTS = 10  # of one call, then there is another one: it has 64 addresses at most


def transfers() -> list[bytes]:
    """Of each way: a byte that chooses it, one for how the body comes, the length of a header; the header, the body."""
    image = pictures()[0]
    reply = {"key": "x/1", "trouble": None, "seconds": 2.5, "instance": {"id": "i", "is_cold": True, "start_s": 3}}
    wanted = {"image": {"sha256": "ab" * 32, "size": 5}, "result": _ASKED, "reply": True, "seconds": 30}
    found = [(0, b"", image), (1, b"", image), (1, b"", b""), (3, b"", image), (5, b"", _ASKED.encode())]
    found += [(2, head, json.dumps(reply).encode()) for head in (b"200", b"1.5", b"503", b"\xb2\xb2", b"-1")]
    found += [(4, b"", json.dumps(wanted).encode()), (2, b"", b"NaN"), (2, b"1e999", b'{"seconds": 1e999}')]
    return [bytes((way, how, len(head))) + head + body for way, head, body in found for how in (1, 2)]


@contextlib.contextmanager
def once() -> Iterator[Try]:
    """Transfers at addresses of calls that are really under way, and what is asked by the call's own address."""
    with running_cluster() as (cluster, scheduler), once_of(cluster, scheduler) as read:
        yield read


@contextlib.contextmanager
def once_of(cluster: Cluster, scheduler: Scheduler) -> Iterator[Try]:
    """What has a transfer done there."""
    app = make_app(Ground(scheduler.state, scheduler.site), scheduler.keeper.depot)
    node = FunctionNode(scheduler.state)
    call, inputs = "", 0
    beside = _names(cluster.folder)

    async def begun() -> str:
        await node.hello()  # it has not been heard since the call before
        await submitted(scheduler.state, 1)
        (grant,) = await node.take(1)
        terms = Terms(price_call=0.001, price_s=0.01, timeout_s=20)
        token = await scheduler.state.open_call(
            grant.task.id, attempt=grant.attempt, node=node.id, seconds=600, terms=terms
        )
        await node.end(grant, 0.1)  # then what it is billed comes late
        return CALLS + token

    async def lent(data: bytes) -> dict[str, str]:
        picture = {"sha256": hashlib.sha256(data).hexdigest(), "size": max(1, len(data))}
        wanted = {"image": picture, "result": _ASKED, "reply": True}
        body = json.dumps(wanted).encode()
        status, answer = await _asked(app.guard, "POST", f"{call}/addresses", b"application/json", 1, body)
        if status != 200:
            raise Finding(f"no address is lent: {status} {answer[:300]!r}")
        told: dict[str, str] = json.loads(answer)
        return told

    async def transferred(way: str, how: int, head: bytes, body: bytes) -> tuple[int, bytes]:
        if way == "addresses":
            return await _asked(app.guard, "POST", f"{call}/addresses", b"application/json", how, body)
        if way == "left":
            query = urlencode({"asked": body[:40], "reply": head})
            return await _asked(app.guard, "GET", f"{call}/left", b"", how, b"", query=query.encode())
        paths = await lent(body)
        named = [(b"x-function-status", head), (b"x-duration-seconds", head), (b"x-call-id", head)]
        if way == "get_image":
            await _asked(app.guard, "PUT", paths["put_image"], b"image/png", 1, body)
            status, answer = await _asked(app.guard, "GET", paths["get_image"], b"", how, b"")
            if status == 200 and answer != body:
                raise Finding(f"{len(body)} bytes were put, and {len(answer)} others came")
            return status, answer
        method = way.partition("_")[0].upper()
        status, answer = await _asked(app.guard, method, paths[way], b"image/png", how, body, more=named)
        if status < 300:
            again, _ = await _asked(app.guard, method, paths[way], b"image/png", how, body, more=named)
            if again < 300:
                raise Finding(f"the address of {way} was good for two transfers")
        return status, answer

    def read(data: bytes) -> None:
        nonlocal call, inputs
        if inputs % _CALL_INPUTS == 0:
            call = cluster.call(begun())
        inputs += 1
        way, how, size = data[:3].ljust(3, b"\0")
        head, body = data[3 : 3 + size], data[3 + size :]
        status, answer = cluster.call(transferred(_WAYS[way % len(_WAYS)], how & 3, head, body))
        cluster.broken.check()
        if status in (0, 500):
            raise Finding(f"{_WAYS[way % len(_WAYS)]} was answered with {status} {answer[:300]!r}")
        if _names(cluster.folder) != beside:
            raise Finding(f"it has written beside its folders: {_names(cluster.folder) - beside}")

    yield read


async def _begin(work: Any) -> asyncio.Task[Any]:
    return asyncio.create_task(work, name="http endings")


def _names(folder: Path) -> frozenset[str]:
    return frozenset(path.name for path in (*folder.iterdir(), *folder.parent.iterdir()))


async def _asked(
    app: App,
    method: str,
    path: str,
    kind: bytes,
    how: int,
    body: bytes,
    *,
    query: bytes = b"",
    more: list[tuple[bytes, bytes]] | None = None,
) -> tuple[int, bytes]:
    """One request as uvicorn would bring it. ``how``: in how many pieces the body comes, and what its headers claim."""
    sha256 = hashlib.sha256(body).hexdigest() if how % 3 else "ab" * 32
    path = path.replace("{sha256}", sha256).replace("{part}", "before").replace("{name}", "lama")
    while "{" in path:
        head, _, rest = path.partition("{")
        path = head + ID + rest.partition("}")[2]
    headers = [(b"host", b"127.0.0.1"), (b"content-length", str(len(body)).encode())]
    headers += more or []
    if kind:
        headers.append((b"content-type", kind))
    if how & 8:
        first, size = (how >> 4) * 100, len(body)
        headers.append((b"content-range", f"bytes {first}-{first + size - 1}/{first + size}".encode()))
    if how & 4:
        headers.append((b"idempotency-key", b"k" * (how & 3)))
    pieces = [body[: len(body) // 2], body[len(body) // 2 :]] if how & 1 else [body]
    waiting = [
        {"type": "http.request", "body": piece, "more_body": number < len(pieces) - 1}
        for number, piece in enumerate(pieces)
    ]
    never = asyncio.Event()
    told: list[MutableMapping[str, Any]] = []

    async def receive() -> MutableMapping[str, Any]:
        if not waiting:
            await never.wait()
        return waiting.pop(0)

    async def send(message: MutableMapping[str, Any]) -> None:
        told.append(message)

    scope = {
        "type": "http", "asgi": {"version": "3.0"}, "http_version": "1.1", "method": method, "scheme": "http",
        "path": path, "raw_path": path.encode(), "query_string": query, "root_path": "", "headers": headers,
        "client": ("127.0.0.1", 1), "server": ("127.0.0.1", 8081), "state": {},
    }  # fmt: skip
    await app(scope, receive, send)
    status = next((int(one["status"]) for one in told if one["type"] == "http.response.start"), 0)
    return status, b"".join(one.get("body", b"") for one in told if one["type"] == "http.response.body")
