"""What is fuzzed: each reader of what strangers send, some seeds to begin with, and what it may never do."""

from __future__ import annotations

import base64
import contextlib
import importlib
import io
import json
import os
import pickle
import random
import struct
import sys
import tempfile
import zipfile
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import Any

import msgpack
import numpy as np
from PIL import Image
from pydantic import BaseModel
from pydantic_core import to_jsonable_python

from lcq.errors import LcqError, WeightsRefused
from lcq.http.masks import adjusted
from lcq.image_size import size_of
from lcq.images import BadImage, load_image, load_mask
from lcq.runner_config import LimitsConfig
from lcq.thumbnails import read_thumbnail, thumbnail_of
from lcq.wire import (
    PROTOCOL_VERSION,
    REQUESTS,
    SubmitAnswer,
    pack_request,
    unpack_reply,
    unpack_request,
    unpack_ticket,
)
from tests.fuzz.mutation import Mutate, as_json, as_msgpack, edited, edited_archive, edited_picture
from tests.nodes import a_failure, a_result, a_task, the_cpu
from tests.weight_files import checkpoint, generator_arrays, safetensors
from worker.archive import packed_weights, read_tensors
from worker.inert_pickle import read_pickle
from worker.lama_tensors import find_generator
from worker.protocol import Words

Try = Callable[[bytes], None]
"""Reads one input; raises only where that is a finding."""


class Finding(Exception):
    """Something happened that may never."""


@dataclass(frozen=True)
class Target:
    """``open`` gives what reads; ``mutate`` changes an input so that it stays well formed."""

    name: str
    about: str
    seeds: Callable[[], list[bytes]]
    open: Callable[[], AbstractContextManager[Try]]
    mutate: Mutate


def mutated(target: Target, seeds: list[bytes], chance: random.Random) -> bytes:
    """An input made from one of ``seeds``: mostly well formed."""
    data = chance.choice(seeds)
    for _ in range(chance.choice((1, 1, 2, 4))):
        data = (target.mutate if chance.random() < 0.75 else edited)(data, chance)
    return data


# ---------------------------------------------------------------- frames


ID = "01K00000000000000000000000"
"""That of every seed's request."""


def frames() -> list[bytes]:
    """A request of every command, bare and with its fields; answers, an order, a ticket, words of runners."""
    whole = [
        {"cmd": command} | {name: _value(kind, name) for name in kind.model_fields if name != "id"}
        for command, kind in REQUESTS.items()
    ]
    whole += [
        {"cmd": "pictured", "node_id": "node-1", "boot_id": "boot-1", "wish": ID, "parts": {"before": {"data": ""}}}
    ]
    told: list[dict[str, Any]] = [{"v": PROTOCOL_VERSION, "id": ID} | one for one in whole]
    told += [{"v": PROTOCOL_VERSION, "id": ID, "cmd": command} for command in REQUESTS]
    told += [
        {"v": PROTOCOL_VERSION, "id": ID, "ok": {"accepted": [], "refused": []}},
        {"v": PROTOCOL_VERSION, "id": ID, "error": {"code": "not_found", "message": "no", "hint": ""}},
        {"v": PROTOCOL_VERSION, "order": True, "cmd": "cancel", "task_id": ID, "attempt": 1},
        {"queue": "cpu-light", "task_id": ID},
        {"word": "progress", "fraction": 0.5, "stage": "fill"},
        {"word": "ready", "offers": {}, "warm": ["lama"]},
    ]
    deep = [b"\x91" * 5000 + b"\xc0", b"\x81\xa1v" * 500 + b"\xc0"]
    return [bytes(msgpack.packb(one)) for one in told] + deep


def _value(kind: type[BaseModel], name: str) -> Any:
    """What fits the field: one that nobody here has heard of is at its default, or the first of its enum."""
    field = kind.model_fields[name]
    if name in _VALUES:
        return _VALUES[name]
    if isinstance(field.annotation, type) and issubclass(field.annotation, StrEnum):
        return next(iter(field.annotation))
    return to_jsonable_python(field.get_default(call_default_factory=True)) if not field.is_required() else "x"


def _plain(value: Any) -> Any:
    return value.model_dump(mode="json")


_VALUES: dict[str, Any] = {
    "node_id": "node-1", "boot_id": "boot-1", "node": "node-1", "queue": "cpu-light", "task_id": ID, "attempt": 1,
    "ids": [ID, "01K"], "actor": "ann", "reason": "a test", "priority": "high", "job": "cats", "name": "cats",
    "capability": _plain(the_cpu()),
    "tasks": [_plain(a_task()), _plain(a_task(priority="urgent", job="cats")) | {"deadline": "2026-12-24T17:30:00Z"}],

    "keys": ["k-1", "k-2"], "sizes": [[640, 480], None], "want": [{"device": "cpu", "slots": 2, "warm": ["cv2-telea"]}],
    "outcomes": [{"task_id": ID, "attempt": 1, "result": _plain(a_result())}, {"task_id": ID, "attempt": 1,
    "failure": _plain(a_failure())}], "running": [{"task_id": ID, "attempt": 1, "progress": 0.5, "stage": "fill"}],
    "devices": {"cpu": {"warm": ["cv2-telea"]}}, "passed": True, "detail": "it looks well", "device": "cpu",
    "deadline_s": 5.0, "slots": 2, "queues": ["cpu-light"], "labels": {"rack": "3"}, "without": ["zone"],
    "act": ID, "text": "look", "cause": "storage_timeout", "prefix": "01", "where": "status:queued model:lama",
    "status": "queued", "limit": 5, "files": [{"path": "/photos/cat.png", "size": 5, "head": "ab" * 32}],
    "wish": ID, "parts": ["before"], "longest": 64, "box": [0, 0, 1, 1], "lines": [], "first": 1, "last": 2, "count": 1,
    "target_wait_s": 30.0, "model": "cv2-telea", "each_stands_for": 1, "skipped": [], "by": ["cause"], "key": "ab" * 32,
    "span_s": 60, "cost": 0.5,
    "task": ID, "rule": "queue_age", "subject": "cpu-light", "seconds": 60.0, "receivers": ["ops"],
}  # fmt: skip


@contextlib.contextmanager
def _wire() -> Iterator[Try]:
    def read(data: bytes) -> None:
        with contextlib.suppress(LcqError):
            request = unpack_request(data)
            if request.version == PROTOCOL_VERSION and unpack_request(pack_request(request)) != request:
                raise Finding(f"{request.CMD} is not the same after it was sent on")
        with contextlib.suppress(LcqError):
            unpack_reply(data).answer(SubmitAnswer)
        with contextlib.suppress(LcqError):
            unpack_ticket(data)
        for frame in (data, struct.pack(">I", len(data)) + data):
            with contextlib.suppress(LcqError):
                Words().feed(frame)

    yield read


# ---------------------------------------------------------------- pictures

_SMALL = LimitsConfig(image_bytes=2**20, image_pixels=512 * 512)


def pictures() -> list[bytes]:
    """One of each form and kind of pixels that can be read."""
    grey = np.arange(24 * 16, dtype=np.uint8).reshape(16, 24)
    rgb = np.dstack([grey, grey[::-1], grey[:, ::-1]])
    images = {
        "RGB": Image.fromarray(rgb),
        "L": Image.fromarray(grey),
        "RGBA": Image.fromarray(np.dstack([rgb, grey])),
        "P": Image.fromarray(rgb).quantize(8),
        "1": Image.fromarray(grey).convert("1"),
        "I;16": Image.fromarray(grey.astype(np.uint16) * 257),
        "CMYK": Image.fromarray(rgb).convert("CMYK"),
    }
    exif = Image.Exif()
    exif[274], exif[270] = 6, "a cat"
    forms: tuple[tuple[str, str, dict[str, object]], ...] = (
        *(("PNG", mode, {}) for mode in ("RGB", "L", "RGBA", "P", "1", "I;16")),
        ("JPEG", "RGB", {"exif": exif, "dpi": (72, 72)}),
        ("JPEG", "L", {"progressive": True}),
        ("JPEG", "CMYK", {}),
        ("WEBP", "RGB", {"lossless": True, "exif": exif}),
        ("WEBP", "RGBA", {}),
        ("TIFF", "RGB", {"compression": "tiff_lzw"}),
        ("TIFF", "I;16", {}),
        ("TIFF", "1", {"compression": "group4"}),
        ("BMP", "RGB", {}),
        ("BMP", "P", {}),
        ("GIF", "P", {"save_all": True, "append_images": [images["P"].rotate(90)]}),
        ("GIF", "L", {}),
        ("PNG", "RGB", {"save_all": True, "append_images": [images["RGB"].rotate(180)]}),
    )
    found = []
    for form, mode, options in forms:
        out = io.BytesIO()
        images[mode].save(out, format=form, **options)
        found.append(out.getvalue())
    return found


@contextlib.contextmanager
def _pictures() -> Iterator[Try]:
    with tempfile.TemporaryDirectory(dir="/dev/shm" if Path("/dev/shm").is_dir() else None) as folder:
        path = Path(folder) / "picture"

        def read(data: bytes) -> None:
            told = size_of(io.BytesIO(data))
            path.write_bytes(data)
            with contextlib.suppress(BadImage):
                image = load_image(str(path), _SMALL)
                _small_enough(image.size)
                is_plain = image.format not in ("tiff", "gif")  # of these the header has several places for it
                if is_plain and told is not None and sorted(told) != sorted(image.size):
                    raise Finding(f"its header was read as {told}, and it is {image.size}")
                mask = load_mask(str(path), image, _SMALL)
                if mask.shape != image.pixels.shape[:2]:
                    raise Finding(f"a mask of {mask.shape} for {image.pixels.shape}")
            for as_mask in (False, True):
                with contextlib.suppress(BadImage):
                    small = read_thumbnail(str(path), longest=32, limits=_SMALL, as_mask=as_mask)
                    if max(small.pixels.shape[:2]) > 32:
                        raise Finding(f"a small picture of {small.pixels.shape}")
            with contextlib.suppress(BadImage):
                thumbnail_of(data, "one", longest=16, box=(0.25, 0.25, 0.5, 0.75), limits=_SMALL)
            with contextlib.suppress(LcqError):
                adjusted(data, "expand", 2, _SMALL)

        yield read


def _small_enough(size: tuple[int, int]) -> None:
    if size[0] * size[1] > _SMALL.image_pixels:
        raise Finding(f"a picture of {size} was decoded; {_SMALL.image_pixels} pixels are the limit")


# ---------------------------------------------------------------- weights


class _Evil:
    def __reduce__(self) -> tuple[object, ...]:
        return os.system, ("exit 66",)


def weights() -> list[bytes]:
    """Each layout; in one a program; zips in zips; a bomb."""
    arrays = generator_arrays()
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "w"
        found = [checkpoint(path, arrays).read_bytes(), safetensors(path, arrays).read_bytes()]
    for members, kind in (
        ({"models/best.ckpt": found[0]}, zipfile.ZIP_DEFLATED),
        ({"a.safetensors": found[1], "b/readme": b"x"}, zipfile.ZIP_STORED),
        ({"bomb.pt": bytes(2**20)}, zipfile.ZIP_DEFLATED),
        ({"s/data.pkl": pickle.dumps({"a": _Evil()}), "s/version": b"3\n"}, zipfile.ZIP_STORED),
    ):
        out = io.BytesIO()
        with zipfile.ZipFile(out, "w", kind) as packed:
            for name, content in members.items():
                packed.writestr(name, content)
        found.append(out.getvalue())
    return found


_MOST_UNPACKED = 64 * 2**20


class _Sink(io.RawIOBase):
    """Counts what is written, and keeps none of it."""

    def __init__(self) -> None:
        super().__init__()
        self.size = 0

    def write(self, data: object) -> int:
        size = len(data)  # type: ignore[arg-type]
        self.size += size
        if self.size > _MOST_UNPACKED:
            raise Finding(f"more than {_MOST_UNPACKED} bytes came out of a small file")
        return size


@contextlib.contextmanager
def _weights() -> Iterator[Try]:
    loaded = "torch" in sys.modules
    with tempfile.TemporaryFile() as file:

        def read(data: bytes) -> None:
            file.seek(0)
            file.truncate()
            file.write(data)
            file.flush()
            with contextlib.suppress(WeightsRefused):
                packed = packed_weights(file, "w")
                if packed is not None:
                    packed.unpack(_Sink(), lambda _: None)  # type: ignore[arg-type]
            with contextlib.suppress(WeightsRefused):
                contents = read_tensors(file, "w")
                whole = sum(tensor.nbytes for tensor in contents.tensors.values())
                if whole > 100 * len(contents.tensors) * (len(data) + 1):
                    raise Finding(f"{whole} bytes of tensors are in a file of {len(data)}")
                for tensor in find_generator(contents.tensors, "w").tensors.values():
                    tensor.region.check()
                    tensor.read()
            if not loaded and "torch" in sys.modules:
                raise Finding("reading a weight file has imported torch")

        yield read


def pickles() -> list[bytes]:
    """What describes the tensors, alone; and programs of each protocol."""
    found = []
    for whole in weights()[:1]:
        with zipfile.ZipFile(io.BytesIO(whole)) as packed:
            found.append(packed.read("small/data.pkl"))
    for protocol in range(6):
        found += [pickle.dumps({"a": [1, (2.5, "x"), {"b": None}, {1, 2}]}, protocol), pickle.dumps(_Evil(), protocol)]
    return found


@contextlib.contextmanager
def _pickles() -> Iterator[Try]:
    def called(event: str, _: tuple[object, ...]) -> None:
        if event in ("os.system", "subprocess.Popen", "os.exec", "os.posix_spawn") and is_reading:
            raise Finding(f"a weight file's program was run: {event}")

    is_reading = False
    sys.addaudithook(called)

    def read(data: bytes) -> None:
        nonlocal is_reading
        is_reading = True
        try:
            with contextlib.suppress(WeightsRefused):
                read_pickle(data, "w")
        finally:
            is_reading = False

    yield read


# ---------------------------------------------------------------- all of them


def json_bodies() -> list[bytes]:
    """What IOPaint's app and clients of ours send as JSON."""
    png = base64.b64encode(pictures()[0]).decode()
    mask = base64.b64encode(pictures()[1]).decode()
    bodies = (
        {"image": png, "mask": mask, "hd_strategy": "Crop", "sd_seed": 7},
        {"image": f"data:image/png;base64,{png}", "mask": f"data:image/png;base64,{mask}", "cv2_radius": 4},
        {"mask": mask, "operate": "expand", "kernel_size": 5},
        {"name": "RemoveBG", "image": png, "clicks": [[1, 2, 1]], "scale": 2.0},
        {"tasks": [a_task().model_dump(mode="json")]},
        a_task().model_dump(mode="json"),
        {"ids": [ID], "reason": "a test"},
        {"name": "cv2"},
    )
    deep = [b'{"tasks": ' + b"[" * size + b"]" * size + b"}" for size in (400, 20_000)]
    return [json.dumps(one).encode() for one in bodies] + deep


def _lazily(name: str, *, module: str = "served") -> Callable[[], AbstractContextManager[Try]]:
    def opened() -> AbstractContextManager[Try]:
        found: AbstractContextManager[Try] = getattr(importlib.import_module(f"tests.fuzz.{module}"), name)()
        return found

    return opened


def _transfer_seeds() -> list[bytes]:
    from tests.fuzz.served import transfers

    return transfers()


def _call_seeds() -> list[bytes]:
    from tests.fuzz.called import calls

    return calls()


def _reply_seeds() -> list[bytes]:
    from tests.fuzz.called import answers

    return answers()


def _called_mutate(data: bytes, chance: random.Random) -> bytes:
    from tests.fuzz.called import changed

    return changed(data, chance)


def _transfer_mutate(data: bytes, chance: random.Random) -> bytes:
    head, body = data[: 3 + data[2]] if len(data) > 2 else data, data[3 + data[2] :] if len(data) > 2 else b""
    if chance.random() < 0.4:
        return edited(head, chance) + body
    return head + (as_json if body[:1] == b"{" else edited)(body, chance)


def _served_seeds() -> list[bytes]:
    from tests.fuzz.served import requests

    return requests()


def _served_mutate(data: bytes, chance: random.Random) -> bytes:
    from tests.fuzz.served import changed

    return changed(data, chance)


TARGETS: tuple[Target, ...] = (
    Target(
        "wire",
        "frames of the control socket, of PUSH sockets, and of runners, as they are read",
        frames,
        _wire,
        as_msgpack,
    ),
    Target(
        "desk",
        "the same, answered by a whole scheduler on a real Redis",
        frames,
        _lazily("desk"),
        as_msgpack,
    ),
    Target(
        "http",
        "requests with bodies (JSON with base64, forms, blobs), to every route of that scheduler",
        _served_seeds,
        _lazily("http"),
        _served_mutate,
    ),
    Target(
        "once",
        "transfers at addresses that functions are lent: pictures, results, callbacks, their bills",
        _transfer_seeds,
        _lazily("once"),
        _transfer_mutate,
    ),
    Target(
        "calls",
        "calls as a function reads and does them",
        _call_seeds,
        _lazily("called", module="called"),
        _called_mutate,
    ),
    Target(
        "replies",
        "what functions, and those before them, answer an agent; late bills; books",
        _reply_seeds,
        _lazily("answered", module="called"),
        _called_mutate,
    ),
    Target(
        "pictures",
        "image files: their size by the header, whole, as masks, and small",
        pictures,
        _pictures,
        edited_picture,
    ),
    Target(
        "weights",
        "weight files: torch's zips, safetensors, zips of them, bombs",
        weights,
        _weights,
        edited_archive,
    ),
    Target(
        "pickles",
        "the pickle in a weight file",
        pickles,
        _pickles,
        edited,
    ),
)


def target_of(name: str) -> Target:
    """Raises:
    KeyError: there is none of that name.
    """
    return {target.name: target for target in TARGETS}[name]
