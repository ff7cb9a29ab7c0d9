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

import msgpack
from starlette.routing import Route

from lcq.component import Ground
from lcq.config import DistributedConfig
from lcq.http.app import make_app
from lcq.http.guard import App
from lcq.ids import new_id
from lcq.scheduler import Scheduler
from tests.fuzz.mutation import as_json, edited, edited_picture
from tests.fuzz.targets import ID, Finding, Try, json_bodies, pictures
from tests.redis_rig import running_server

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


async def _begin(work: Any) -> asyncio.Task[Any]:
    return asyncio.create_task(work, name="http endings")


def _names(folder: Path) -> frozenset[str]:
    return frozenset(path.name for path in (*folder.iterdir(), *folder.parent.iterdir()))


async def _asked(app: App, method: str, path: str, kind: bytes, how: int, body: bytes) -> tuple[int, bytes]:
    """One request as uvicorn would bring it. ``how``: in how many pieces the body comes, and what its headers claim."""
    sha256 = hashlib.sha256(body).hexdigest() if how % 3 else "ab" * 32
    path = path.replace("{sha256}", sha256).replace("{part}", "before").replace("{name}", "lama")
    while "{" in path:
        head, _, rest = path.partition("{")
        path = head + ID + rest.partition("}")[2]
    headers = [(b"host", b"127.0.0.1"), (b"content-length", str(len(body)).encode())]
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
        "path": path, "raw_path": path.encode(), "query_string": b"", "root_path": "", "headers": headers,
        "client": ("127.0.0.1", 1), "server": ("127.0.0.1", 8081), "state": {},
    }  # fmt: skip
    await app(scope, receive, send)
    status = next((int(one["status"]) for one in told if one["type"] == "http.response.start"), 0)
    return status, b"".join(one.get("body", b"") for one in told if one["type"] == "http.response.body")
