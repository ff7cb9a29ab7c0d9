"""What a PNG says of itself in text, by its chunks alone: nothing is decoded."""

from __future__ import annotations

import struct
import zlib

_MAGIC = b"\x89PNG\r\n\x1a\n"
_MOST_TEXT = 2**20  # unpacked


def parameters_of(data: bytes) -> str:
    """The text under the key ``parameters``, where image generators write their prompts; "" if there is none."""
    at = len(_MAGIC) if data.startswith(_MAGIC) else len(data)
    while at + 8 <= len(data):
        (length,), kind = struct.unpack(">I", data[at : at + 4]), data[at + 4 : at + 8]
        body = data[at + 8 : at + 8 + length]
        at += 12 + length
        key, nul, rest = body.partition(b"\0")
        if key != b"parameters" or not nul:
            continue
        try:
            if kind == b"tEXt":
                return rest.decode("latin-1")
            if kind == b"zTXt" and rest[:1] == b"\0":
                return _unpacked(rest[1:]).decode("latin-1")
            if kind == b"iTXt" and len(rest) > 2:
                text = rest[2:].split(b"\0", 2)[2]
                return (_unpacked(text) if rest[0] else text).decode("utf-8")
        except (zlib.error, UnicodeDecodeError, IndexError):
            return ""
    return ""


def _unpacked(data: bytes) -> bytes:
    return zlib.decompressobj().decompress(data, _MOST_TEXT)
