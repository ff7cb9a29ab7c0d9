"""Pictures made small enough to look at: read with limits, upright, in eight bits, no larger than asked for.

Kinder than ``lcq.images``, which refuses what it could not write again unharmed: to look at, 16 bits may become 8, CMYK
RGB, and of an animation the first frame will do.
"""

from __future__ import annotations

import io
import math
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageFile

from lcq.images import (
    DAMAGE,
    DEEP_GREY,
    HOLE_ABOVE,
    READABLE,
    SWAPPING_TURNS,
    BadImage,
    ImageProblem,
    pillow_limited,
    read_file,
    shown,
    too_large,
    turn_of,
    undecodable,
)
from lcq.roots import ANYWHERE, Roots
from lcq.runner_config import LimitsConfig

Box = tuple[float, float, float, float]
"""Left, top, right and bottom of a part of an upright picture, each as a share of its width or height."""

WHOLE: Box = (0.0, 0.0, 1.0, 1.0)

MOST_DECODED = 64_000_000
"""Pixels that are decoded for a look. A JPEG is decoded at an eighth of its size where that will do."""

_GROUND = 112  # of what can be seen through: a grey that neither black nor white ink vanishes on
_INK = (255, 0, 48)  # of a mask over its image
_INK_SHARE = 0.6
_GAP = 2.0  # how much larger than asked for a picture may be left by the quick reduction before the good one


@dataclass(frozen=True)
class Thumbnail:
    """``pixels``: (height, width, 3) RGB, or of a mask (height, width): how much of each pixel is hole, 0 to 255.

    ``size``: width and height of the whole picture, upright; ``box``: which part of it this is; ``file_bytes``: how
    large its file is.
    """

    pixels: NDArray[np.uint8]
    size: tuple[int, int]
    box: Box = WHOLE
    file_bytes: int = 0


def read_thumbnail(
    path: str,
    *,
    longest: int,
    box: Box = WHOLE,
    limits: LimitsConfig | None = None,
    roots: Roots = ANYWHERE,
    as_mask: bool = False,
) -> Thumbnail:
    """The picture at ``path``, or the part ``box`` of it, with no side longer than ``longest`` pixels; never enlarged.

    ``as_mask``: what is brighter than 127 of 255 is hole, whatever it is seen through.

    Raises:
        BadImage: missing, unreadable or too large; what was found and what to do.
        OutsideRoots: it is in none of ``roots``.
        OSError: the storage failed.
    """
    limits = limits or LimitsConfig()
    return thumbnail_of(read_file(path, limits, roots), path, longest=longest, box=box, limits=limits, as_mask=as_mask)


def thumbnail_of(
    data: bytes,
    path: str,
    *,
    longest: int,
    box: Box = WHOLE,
    limits: LimitsConfig | None = None,
    as_mask: bool = False,
    formats: tuple[str, ...] = READABLE,
) -> Thumbnail:
    """The same of the file whose bytes are ``data``; ``path`` is its name in complaints.

    Raises:
        BadImage: as ``read_thumbnail`` says.
    """
    limits = limits or LimitsConfig()
    name = shown(path)
    try:
        with pillow_limited(limits.image_pixels):
            image = Image.open(io.BytesIO(data), formats=formats)
            if image.width * image.height > limits.image_pixels:
                raise too_large(name, f"{image.width} x {image.height} pixels", limits)
            small = _reduced(image, name, longest, box, as_mask=as_mask)
            return replace(small, file_bytes=len(data))
    except (Image.DecompressionBombError, Image.DecompressionBombWarning) as error:
        raise too_large(name, "too many pixels", limits) from error
    except MemoryError as error:
        raise BadImage(
            ImageProblem.IMAGE_TOO_LARGE, f"{name}: there is no memory here to show it", hint="look at it elsewhere"
        ) from error
    except DAMAGE as error:
        raise undecodable(name, data, error) from error


def _reduced(image: ImageFile.ImageFile, name: str, longest: int, box: Box, *, as_mask: bool) -> Thumbnail:
    turn = turn_of(image)
    if image.format == "TIFF":  # Pillow's TIFF reader turns by itself
        turn = None
        _refuse_too_many(image, name, image.size)
        image.load()
    width, height = image.size
    raw_box = _box_before(turn, box)
    part = (raw_box[2] - raw_box[0]) * width, (raw_box[3] - raw_box[1]) * height
    shrink = min(1.0, longest / max(1.0, *part))
    target = max(1, round(part[0] * shrink)), max(1, round(part[1] * shrink))
    if image.format in ("JPEG", "MPO") and not as_mask and shrink < 1:
        image.draft(None, (math.ceil(width * shrink), math.ceil(height * shrink)))
    _refuse_too_many(image, name, (width, height))
    image.load()
    left, top, right, bottom = (
        raw_box[0] * image.width, raw_box[1] * image.height, raw_box[2] * image.width, raw_box[3] * image.height
    )  # fmt: skip
    ready = _holes(image) if as_mask else _plain(image)
    small = ready.resize(target, Image.Resampling.BOX, box=(left, top, right, bottom), reducing_gap=_GAP)
    if small.mode == "RGBA":
        ground = Image.new("RGBA", small.size, (_GROUND, _GROUND, _GROUND, 255))
        small = Image.alpha_composite(ground, small).convert("RGB")
    elif as_mask and box == WHOLE:
        _keep_in_sight(small, ready)
    elif not as_mask:
        small = small.convert("RGB")
    if turn is not None:
        small = small.transpose(turn)
    pixels = np.ascontiguousarray(np.asarray(small))
    pixels.flags.writeable = False
    return Thumbnail(pixels, (height, width) if turn in SWAPPING_TURNS else (width, height), box)


def _keep_in_sight(small: Image.Image, holes: Image.Image) -> None:
    """A mask of which nothing is left in ``small`` is shown by the box that it lies in."""
    found = None if small.getbbox() else holes.getbbox()
    if found is not None:
        across, down = small.width / holes.width, small.height / holes.height
        left, top = min(int(found[0] * across), small.width - 1), min(int(found[1] * down), small.height - 1)
        small.paste(255, (left, top, max(left + 1, int(found[2] * across)), max(top + 1, int(found[3] * down))))


def _refuse_too_many(image: Image.Image, name: str, size: tuple[int, int]) -> None:
    if image.width * image.height > MOST_DECODED:
        raise BadImage(
            ImageProblem.IMAGE_TOO_LARGE,
            f"{name}: {size[0]} x {size[1]} pixels are too many to show, at most {MOST_DECODED:,} are decoded for that",
            hint="it is processed all the same; open it with another program",
        )


def _box_before(turn: Image.Transpose | None, box: Box) -> Box:
    """Where ``box`` of the upright picture lies in the one that is turned by ``turn`` to be upright."""
    left, top, right, bottom = box
    turned: dict[Image.Transpose | None, Box] = {
        Image.Transpose.FLIP_LEFT_RIGHT: (1 - right, top, 1 - left, bottom),
        Image.Transpose.ROTATE_180: (1 - right, 1 - bottom, 1 - left, 1 - top),
        Image.Transpose.FLIP_TOP_BOTTOM: (left, 1 - bottom, right, 1 - top),
        Image.Transpose.TRANSPOSE: (top, left, bottom, right),
        Image.Transpose.ROTATE_270: (top, 1 - right, bottom, 1 - left),
        Image.Transpose.TRANSVERSE: (1 - bottom, 1 - right, 1 - top, 1 - left),
        Image.Transpose.ROTATE_90: (1 - bottom, left, 1 - top, right),
    }
    return turned.get(turn, box)


def _plain(image: Image.Image) -> Image.Image:
    """``image`` in L, RGB or RGBA, whatever it was."""
    if image.mode in DEEP_GREY:
        return Image.fromarray((np.asarray(image).astype(np.uint16) >> 8).astype(np.uint8))
    if image.mode in ("I", "F"):
        return Image.fromarray(_stretched(np.asarray(image, dtype=np.float64)))
    if image.has_transparency_data:
        return image.convert("RGBA")
    if image.mode in ("L", "RGB"):
        return image  # as it is: a copy of a large one would be as large again
    return image.convert("L" if image.mode == "1" else "RGB")


def _stretched(values: NDArray[Any]) -> NDArray[np.uint8]:
    """Numbers of no known range as grey, from the least to the greatest."""
    known = np.nan_to_num(values, nan=0.0, posinf=0.0, neginf=0.0)
    low, high = float(known.min()), float(known.max())
    grey: NDArray[np.uint8] = ((known - low) * (255.0 / (high - low) if high > low else 0.0)).astype(np.uint8)
    return grey


def _holes(image: Image.Image) -> Image.Image:
    """White where a mask has holes, as ``lcq.images.load_mask`` reads it."""
    if image.mode in DEEP_GREY:
        holes = np.asarray(image).astype(np.uint16) >= (HOLE_ABOVE + 1) << 8
        return Image.fromarray(holes.astype(np.uint8) * 255)
    grey = image if image.mode == "L" else image.convert("L")
    return grey.point([0] * (HOLE_ABOVE + 1) + [255] * (255 - HOLE_ABOVE))


def to_jpeg(pixels: NDArray[np.uint8], *, quality: int = 80) -> bytes:
    """A picture as JPEG."""
    out = io.BytesIO()
    Image.fromarray(pixels).save(out, "JPEG", quality=quality)
    return out.getvalue()


def to_webp(pixels: NDArray[np.uint8], *, quality: int = 80) -> bytes:
    """A picture, or a mask in its few greys, as WebP."""
    out = io.BytesIO()
    Image.fromarray(pixels).save(out, "WEBP", quality=quality, method=2)
    return out.getvalue()


def overlaid(image: Thumbnail, mask: Thumbnail) -> Thumbnail | None:
    """``image`` with the holes of ``mask`` over it in red; None where they are not of one size."""
    if mask.size != image.size or mask.pixels.shape != image.pixels.shape[:2]:
        return None
    share = (mask.pixels.astype(np.float32) * (_INK_SHARE / 255.0))[..., None]
    pixels = (image.pixels * (1 - share) + np.array(_INK, np.float32) * share).round().astype(np.uint8)
    return replace(image, pixels=pixels)


def to_png(pixels: NDArray[np.uint8]) -> bytes:
    """A mask as PNG in few greys: what is blurred are only its edges."""
    out = io.BytesIO()
    Image.fromarray(pixels & 0xF0 | pixels >> 4).save(out, "PNG", compress_level=9)
    return out.getvalue()
