"""Pictures and masks as lossless PNG, on their way to a function and back: to the bit what they were."""

from __future__ import annotations

from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from worker.engines.base import EngineError, ErrorClass

_FAST = (cv2.IMWRITE_PNG_COMPRESSION, 1)
_PNG_HEAD = b"\0\0\0\rIHDR"
_CHUNK_BYTES = 12  # of a chunk beside its own: their number, its name, a sum
_PNG_BEGIN, _PNG_END = b"\x89PNG\r\n\x1a\n", b"IEND\xaeB`\x82"


def encode_picture(pixels: NDArray[Any]) -> bytes:
    """A PNG of (height, width) or (height, width, 3 RGB) pixels of 8 or 16 bits; of bool, black and white."""
    plain = pixels.astype(np.uint8) * 255 if pixels.dtype == np.bool_ else pixels
    in_opencv_order = plain if plain.ndim == 2 else cv2.cvtColor(plain, cv2.COLOR_RGB2BGR)
    is_coded, data = cv2.imencode(".png", in_opencv_order, _FAST)
    if not is_coded:
        raise MemoryError(f"OpenCV could not code a picture of {pixels.shape}")
    return data.tobytes()


def decode_picture(data: bytes, *, most: int = 0) -> NDArray[Any]:
    """What ``encode_picture`` was given. ``most``: pixels that it may have; 0: any number.

    Raises:
        EngineError: output_unreadable: these bytes are no whole PNG of the kind; output_shape: it says that it has more
            pixels, and was not decoded: a small file may well be gigabytes of zeros.
    """
    decoded = None
    if data.startswith(_PNG_BEGIN) and data.endswith(_PNG_END) and _is_all_there(data):
        width, height = (int.from_bytes(data[at : at + 4], "big") for at in (16, 20))
        if most and width * height > most:
            raise EngineError(
                "output_shape", f"a picture of {width:,} x {height:,} pixels came, where {most:,} are the most",
                error_class=ErrorClass.BAD_OUTPUT,
            )  # fmt: skip
        decoded = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_UNCHANGED)
    if decoded is None or (decoded.ndim == 3 and decoded.shape[2] != 3):
        raise EngineError(
            "output_unreadable", f"{len(data):,} bytes beginning {data[:8]!r} are no whole PNG in grey or colour",
            error_class=ErrorClass.BAD_OUTPUT,
        )  # fmt: skip
    return decoded if decoded.ndim == 2 else cv2.cvtColor(decoded, cv2.COLOR_BGR2RGB)


def _is_all_there(data: bytes) -> bool:
    """Whether a PNG is chunks one after another to its end, its size in the first: OpenCV makes room for as many bytes
    as a chunk says that it has, 2 GiB for one in a file of 200 bytes."""
    at = len(_PNG_BEGIN)
    if data[at : at + 8] != _PNG_HEAD:
        return False
    while at + _CHUNK_BYTES <= len(data):
        at += _CHUNK_BYTES + int.from_bytes(data[at : at + 4], "big")
    return at == len(data)


def decode_mask(data: bytes, *, most: int = 0) -> NDArray[np.bool_]:
    """Where the PNG of a mask is bright. ``most``: as for ``decode_picture``.

    Raises:
        EngineError: as for ``decode_picture``.
    """
    pixels = decode_picture(data, most=most)
    bright: NDArray[np.bool_] = (pixels if pixels.ndim == 2 else pixels.max(axis=2)) > 127
    return bright
