"""How large an image is, by its header alone: nothing is decoded, and no image library is needed.

A size told here hurries the cluster (it predicts times and memory by it) and is never trusted with more: what cannot be
read quickly is simply not known, and ``lcq.images`` checks everything anew before anything is decoded.
"""

from __future__ import annotations

import contextlib
import os
import stat
import struct
import time
from collections.abc import Iterable, Iterator
from typing import BinaryIO

from lcq.errors import OutsideRoots
from lcq.roots import ANYWHERE, Roots

Size = tuple[int, int]
"""Width and height in pixels."""

MOST_SIDE = 1 << 20
_HEAD = 64
_MOST_SEGMENTS = 500  # of a JPEG: thumbnails and colour profiles come in pieces of 64 KiB, before the size
_MOST_TAGS = 200  # of a TIFF's first picture


def read_sizes(paths: Iterable[str], *, roots: Roots = ANYWHERE, within_s: float = 2.0) -> Iterator[Size | None]:
    """The size of each file, None where it is not known; and of all that are not looked at before ``within_s`` is over.

    Blocks on the disk, so that it belongs into a thread.
    """
    until = time.monotonic() + within_s
    for path in paths:
        yield read_size(path, roots=roots) if time.monotonic() < until else None


def read_size(path: str, *, roots: Roots = ANYWHERE) -> Size | None:
    """Width and height of the image at ``path``; None where it cannot be read, is no file, or is of an unknown form."""
    with contextlib.suppress(OSError, OutsideRoots, ValueError):
        # Not blocking: of a pipe that nobody writes to, opening would wait for ever.
        descriptor = roots.open_to_read(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK | os.O_NOCTTY)
        with open(descriptor, "rb", buffering=0) as file:
            if stat.S_ISREG(os.fstat(descriptor).st_mode):
                return size_of(file)
    return None


def size_of(file: BinaryIO) -> Size | None:
    """Width and height of the image that ``file``, at its beginning, holds; None where no header tells."""
    head = file.read(_HEAD)
    try:
        found = _by_header(head, file)
    except (struct.error, IndexError, OverflowError, OSError):
        return None  # cut short, or not what it says it is
    return found if found and all(0 < side <= MOST_SIDE for side in found) else None


def _by_header(head: bytes, file: BinaryIO) -> Size | None:
    if head.startswith(b"\x89PNG\r\n\x1a\n") and head[12:16] == b"IHDR":
        return _two(">II", head, 16)
    if head.startswith(b"\xff\xd8\xff"):
        return _jpeg(file)
    if head[:4] == b"RIFF" and head[8:12] == b"WEBP":
        return _webp(head)
    if head[:6] in (b"GIF87a", b"GIF89a"):
        return _two("<HH", head, 6)
    if head[:2] == b"BM":
        return _bmp(head)
    if head[:4] in (b"II*\0", b"MM\0*"):
        return _tiff(file, "<" if head[:2] == b"II" else ">")
    return None


def _two(form: str, data: bytes, at: int) -> Size:
    first, second = struct.unpack_from(form, data, at)
    return first, second


def _jpeg(file: BinaryIO) -> Size | None:
    """From segment to segment, without reading what is in them, to the one that says how large the picture is."""
    at = 2
    for _ in range(_MOST_SEGMENTS):
        file.seek(at)
        head = file.read(10)
        if head[0] != 0xFF:
            return None
        kind = head[1]
        if kind == 0xFF:  # a fill byte
            at += 1
        elif kind in (0x01, *range(0xD0, 0xD9)):  # these stand alone
            at += 2
        elif 0xC0 <= kind <= 0xCF and kind not in (0xC4, 0xC8, 0xCC):
            height, width = _two(">HH", head, 5)
            return width, height
        elif kind in (0xD9, 0xDA):  # the picture begins, or ends, and nobody has said how large it is
            return None
        else:
            at += 2 + int(struct.unpack_from(">H", head, 2)[0])
    return None


def _webp(head: bytes) -> Size | None:
    form = head[12:16]
    if len(head) < 30:
        return None
    if form == b"VP8X":
        return 1 + int.from_bytes(head[24:27], "little"), 1 + int.from_bytes(head[27:30], "little")
    if form == b"VP8L" and head[20] == 0x2F:
        bits = int.from_bytes(head[21:25], "little")
        return 1 + (bits & 0x3FFF), 1 + (bits >> 14 & 0x3FFF)
    if form == b"VP8 " and head[23:26] == b"\x9d\x01\x2a":
        width, height = _two("<HH", head, 26)
        return width & 0x3FFF, height & 0x3FFF
    return None


def _bmp(head: bytes) -> Size:
    (size_of_header,) = struct.unpack_from("<I", head, 14)
    if size_of_header == 12:  # the oldest form
        return _two("<HH", head, 18)
    width, height = _two("<ii", head, 18)
    return width, abs(height)  # below zero: from the top down


def _tiff(file: BinaryIO, order: str) -> Size | None:
    file.seek(4)
    (at,) = struct.unpack(order + "I", file.read(4))
    file.seek(at)
    (tags,) = struct.unpack(order + "H", file.read(2))
    sides: dict[int, int] = {}
    entries = file.read(12 * min(tags, _MOST_TAGS))
    for place in range(0, len(entries) - 11, 12):
        tag, form, count = struct.unpack_from(order + "HHI", entries, place)
        if tag in (256, 257) and count == 1 and form in (3, 4):
            (sides[tag],) = struct.unpack_from(order + ("H" if form == 3 else "I"), entries, place + 8)
    return (sides[256], sides[257]) if len(sides) == 2 else None
