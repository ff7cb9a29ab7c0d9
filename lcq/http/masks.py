"""Masks as IOPaint's web app draws and changes them: strokes of one colour on nothing."""

from __future__ import annotations

import io
import math
from typing import Literal

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from lcq.errors import InvalidInput
from lcq.images import DAMAGE, READABLE, pillow_limited, too_large
from lcq.runner_config import LimitsConfig

Operation = Literal["expand", "shrink", "reverse"]
_STROKE = (255, 203, 0, 186)
_GROWN_BY = 4  # a 9 x 9 square
_HOLE_FROM = 127


def adjusted(data: bytes, operation: Operation, kernel_size: int, limits: LimitsConfig) -> bytes:
    """The mask in ``data`` grown or shrunk by an ellipse of 2 ``kernel_size`` + 1 pixels, or turned round, as PNG.

    Raises:
        InvalidInput: it is no picture, or too large a one.
    """
    holes = _grey(data, limits) >= _HOLE_FROM
    match operation:
        case "expand":
            holes = grown(holes, kernel_size)
        case "shrink":
            holes = ~grown(~holes, kernel_size)
        case "reverse":
            holes = ~holes
    return _strokes(holes)


def overlay(data: bytes) -> bytes:
    """A mask that a plugin has made, as strokes, as PNG: a little larger, so that it covers edges."""
    with Image.open(io.BytesIO(data), formats=["PNG"]) as picture:
        holes = np.asarray(picture.convert("L")) > _HOLE_FROM + 1
    wide = _smeared(holes, _GROWN_BY, holes.shape[1])
    return _strokes(_smeared(wide.T, _GROWN_BY, holes.shape[0]).T)


def _grey(data: bytes, limits: LimitsConfig) -> NDArray[np.uint8]:
    try:
        with pillow_limited(limits.image_pixels):
            picture = Image.open(io.BytesIO(data), formats=READABLE)
            if picture.width * picture.height > limits.image_pixels:
                raise too_large("mask", f"{picture.width * picture.height:,} pixels", limits)
            return np.asarray(picture.convert("L"))
    except (*DAMAGE, Image.DecompressionBombError, Image.DecompressionBombWarning) as error:
        raise InvalidInput(f"the mask cannot be read: {error}", hint="send a picture") from error


def _strokes(holes: NDArray[np.bool_]) -> bytes:
    pixels = np.zeros((*holes.shape, 4), np.uint8)
    pixels[holes] = _STROKE
    out = io.BytesIO()
    Image.fromarray(pixels).save(out, format="PNG", compress_level=1)
    return out.getvalue()


def grown(holes: NDArray[np.bool_], radius: int) -> NDArray[np.bool_]:
    """``holes`` and all that an ellipse of ``radius`` around one of them covers, as OpenCV draws that ellipse."""
    height, width = holes.shape
    found = np.zeros_like(holes)
    for down in range(-radius, radius + 1):
        half = int(np.rint(radius * math.sqrt((radius * radius - down * down) / (radius * radius)))) if radius else 0
        if abs(down) >= height:
            continue
        rows = holes[max(0, -down) : height - max(0, down)]  # what lies ``down`` rows above where it reaches
        reach = _smeared(rows, half, width)
        found[max(0, down) : height - max(0, -down)] |= reach
    return found


def _smeared(rows: NDArray[np.bool_], half: int, width: int) -> NDArray[np.bool_]:
    """Each hole and its neighbours to both sides, ``half`` pixels far."""
    sums = np.cumsum(np.pad(rows, ((0, 0), (half + 1, half))), axis=1, dtype=np.int32)
    smeared: NDArray[np.bool_] = sums[:, 2 * half + 1 :] - sums[:, :width] > 0
    return smeared
