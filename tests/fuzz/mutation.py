"""How inputs are changed: bytes here and there; where a format has sums or structure, so that it stays well formed."""

from __future__ import annotations

import base64
import binascii
import io
import json
import math
import random
import struct
import zipfile
import zlib
from collections.abc import Callable
from typing import Any

import msgpack

Mutate = Callable[[bytes, random.Random], bytes]

_MOST_EDITS = 6
_NUMBERS = (0, 1, -1, 127, 255, 256, 65535, 2**31 - 1, -(2**31), 2**32, 2**53, 2**63 - 1, -(2**63), 2**64 - 1)
_TEXTS = (
    "", " ", "\0", "\x1b[31m", "\n", "..", "../../etc/passwd", "/dev/zero", "a" * 300, "\u202e", "\ud800", "true",
    "{lcq}", "*", "lcq:blob:" + "0" * 64, "file:///etc/passwd", "http://127.0.0.1/", "1e999", "nan",
)  # fmt: skip
_OTHERS = (None, True, False, [], {}, 0.5, -0.0, math.inf, math.nan, [[]], {"": ""})
_MOST_DEEP = 60
_MOST_PLACES = 1000


def edited(data: bytes, chance: random.Random) -> bytes:
    """``data`` with some bytes changed, taken out, doubled or put in."""
    found = bytearray(data)
    for _ in range(chance.randint(1, _MOST_EDITS)):
        at = chance.randrange(len(found) + 1)
        size = min(chance.choice((1, 1, 2, 4, 8, 64)), len(found) - at)
        match chance.randrange(6):
            case 0:
                found[at : at + size] = chance.randbytes(size)
            case 1:
                del found[at : at + size]
            case 2:
                found[at:at] = found[at : at + size]
            case 3:
                order = chance.choice("<>") + chance.choice("BHIQ")
                limit = 1 << 8 * struct.calcsize(order)
                number = struct.pack(order, chance.choice(_NUMBERS) % limit)
                found[at : at + len(number)] = number
            case 4:
                found[at:at] = chance.randbytes(size)
            case 5:
                del found[at:]
    return bytes(found)


# ---------------------------------------------------------------- values in values


def _strange(chance: random.Random) -> Any:
    match chance.randrange(6):
        case 0 | 1:
            return chance.choice(_NUMBERS)
        case 2 | 3:
            return chance.choice(_TEXTS)
        case 4:
            return chance.choice(_OTHERS)
    deep: Any = chance.choice(_NUMBERS)
    for _ in range(chance.randint(1, _MOST_DEEP)):
        deep = [deep] if chance.random() < 0.5 else {"x": deep}
    return deep


def _all_places(value: Any) -> list[tuple[Any, Any]]:
    """Each list or mapping in ``value``, with each key that it has."""
    found: list[tuple[Any, Any]] = []
    waiting = [value]
    while waiting and len(found) < _MOST_PLACES:
        one = waiting.pop()
        keys = list(one)[:100] if isinstance(one, dict) else range(min(100, len(one))) if isinstance(one, list) else ()
        for key in keys:
            found.append((one, key))
            waiting.append(one[key])
    return found


def restructured(value: Any, chance: random.Random) -> Any:
    """``value``, made of mappings and lists, with one or a few places of it changed; itself is too."""
    for _ in range(chance.randint(1, 3)):
        places = _all_places(value)
        if not places:
            return _strange(chance)
        holder, key = chance.choice(places)
        match chance.randrange(6):
            case 0:
                del holder[key]
            case 1:
                other, other_key = chance.choice(places)
                holder[key] = json.loads(json.dumps(other[other_key], default=str))
            case 2 if isinstance(holder[key], str):
                holder[key] = edited(holder[key].encode("utf-8", "replace"), chance).decode("utf-8", "replace")
            case 3 if isinstance(holder[key], list) and holder[key]:
                holder[key] = holder[key] * chance.choice((2, 3, 20))
            case _:
                holder[key] = _strange(chance)
    return value


def as_msgpack(data: bytes, chance: random.Random) -> bytes:
    """A frame of msgpack with other values in it; of one that is none, other bytes."""
    try:
        value = msgpack.unpackb(data, strict_map_key=False)
        head: dict[str, Any] = {}
        if isinstance(value, dict) and chance.random() < 0.9:  # what it is stays, for the most part
            head = {name: value.pop(name) for name in ("v", "id", "cmd", "word") if name in value}
        changed = restructured(value, chance)
        whole = head | changed if isinstance(changed, dict) else changed
        return bytes(msgpack.packb(whole, unicode_errors="surrogatepass"))
    except (ValueError, TypeError, OverflowError, RecursionError, msgpack.UnpackException):
        return edited(data, chance)


def as_json(data: bytes, chance: random.Random) -> bytes:
    """The same of JSON, and of what stands in it as base64."""
    try:
        value = json.loads(data)
    except (ValueError, RecursionError):
        return edited(data, chance)
    texts = [
        place for place in _all_places(value) if isinstance(place[0][place[1]], str) and len(place[0][place[1]]) > 60
    ]
    if texts and chance.random() < 0.5:
        holder, key = chance.choice(texts)
        head, comma, coded = holder[key].rpartition(",")
        try:
            inner = edited_picture(base64.b64decode(coded), chance)
        except (binascii.Error, ValueError):
            return edited(data, chance)
        holder[key] = head + comma + base64.b64encode(inner).decode()
    else:
        value = restructured(value, chance)
    try:
        return json.dumps(value).encode()
    except (ValueError, RecursionError):
        return edited(data, chance)


# ---------------------------------------------------------------- sums


def with_png_sums(data: bytes) -> bytes:
    """A PNG whose chunks have the sums that they should have."""
    found = bytearray(data)
    at = 8
    while at + 12 <= len(found):
        (size,) = struct.unpack_from(">I", found, at)
        end = at + 8 + size
        if end + 4 > len(found):
            break
        struct.pack_into(">I", found, end, zlib.crc32(found[at + 4 : end]))
        at = end + 4
    return bytes(found)


def edited_picture(data: bytes, chance: random.Random) -> bytes:
    """A picture with some bytes changed; where it is a PNG, mostly with sums that are right again."""
    changed = edited(data, chance)
    return with_png_sums(changed) if changed.startswith(b"\x89PNG") and chance.random() < 0.9 else changed


def edited_archive(data: bytes, chance: random.Random) -> bytes:
    """A zip with a member changed, doubled, left out or renamed, and sums that are right; or just other bytes."""
    if chance.random() < 0.3 or not data.startswith(b"PK"):
        return edited(data, chance)
    try:
        with zipfile.ZipFile(io.BytesIO(data)) as packed:
            members = [(one.filename, packed.read(one)) for one in packed.filelist if one.file_size < 2**20]
    except Exception:  # noqa: BLE001 - what zipfile makes of a damaged zip is no concern here
        return edited(data, chance)
    if not members:
        return edited(data, chance)
    at = chance.randrange(len(members))
    name, content = members[at]
    match chance.randrange(8):
        case 0:
            del members[at]
        case 1:
            members[at] = (edited(name.encode(), chance).decode("latin-1").replace("\0", "") or "x", content)
        case 2:
            members[at] = (name, content * chance.choice((2, 100)))
        case _:
            members[at] = (name, edited(content, chance))
    out = io.BytesIO()
    kind = chance.choice((zipfile.ZIP_STORED, zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED))
    with zipfile.ZipFile(out, "w", kind) as packed:
        for one, inner in members:
            packed.writestr(one, inner)
    return out.getvalue()
