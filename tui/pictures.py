"""From pixels to cells of a terminal: where a picture goes, what is drawn over it, and in which colours.

A cell shows two pixels, one above the other, which are about square. Where there are no colours it shows one character.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from enum import StrEnum
from itertools import repeat
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from lcq.thumbnails import WHOLE, Box, Thumbnail

Pixels = NDArray[np.uint8]
Colour = tuple[int, int, int]

UPPER_HALF = "\u2580"
HOLE = "/"
"""What a hole of the mask is drawn with where there are no colours."""

MOST_ZOOM = 64.0
_RAMP = " .,:;-=+*xo#%@"
_RED = np.array((255, 70, 60), np.float32)
_SEEN_COVER = 32  # of 255: a pixel of the screen is drawn as hole from there on, or from half of the most there is
_GAIN = 4  # of the difference: one of a few steps is still seen
_BAYER = np.array([[0, 8, 2, 10], [12, 4, 14, 6], [3, 11, 1, 9], [15, 7, 13, 5]], np.float32) / 16 - 0.5
_CUBE = np.array((0, 95, 135, 175, 215, 255), np.float32)
_ANSI = np.array(
    [(0, 0, 0), (170, 0, 0), (0, 170, 0), (170, 85, 0), (0, 0, 170), (170, 0, 170), (0, 170, 170), (170, 170, 170),
     (85, 85, 85), (255, 85, 85), (85, 255, 85), (255, 255, 85), (85, 85, 255), (255, 85, 255), (85, 255, 255),
     (255, 255, 255)],
    np.float32,
)  # fmt: skip


class Depth(StrEnum):
    """How many colours a terminal has."""

    TRUE = "truecolor"
    XTERM = "256"
    ANSI = "16"
    PLAIN = "none"


@dataclass(frozen=True)
class Look:
    """Which part of a picture is looked at: ``zoom`` 1 shows all of it, and ``x``, ``y`` are in the middle (shares)."""

    zoom: float = 1.0
    x: float = 0.5
    y: float = 0.5

    def zoomed(self, times: float) -> Look:
        """Nearer by ``times``, or further away; never further than all of it."""
        return replace(self, zoom=min(MOST_ZOOM, max(1.0, self.zoom * times)))

    def moved(self, across: float, down: float) -> Look:
        """By so many shares of what is in sight."""
        half = 0.5 / self.zoom
        return replace(
            self,
            x=min(max(self.x + across / self.zoom, half), 1 - half),
            y=min(max(self.y + down / self.zoom, half), 1 - half),
        )


@dataclass(frozen=True)
class Place:
    """Where a picture is drawn: the part of it in sight, and how many pixels of the screen that takes."""

    box: Box
    width: int
    height: int
    scale: float
    """Pixels of the screen for one of the picture."""


def placed(size: tuple[int, int], columns: int, rows: int, look: Look) -> Place:
    """Where a picture of ``size`` goes in so many cells: as large as they let it, in its own proportions."""
    return placed_in(size, (max(1, columns), max(1, rows) * 2), look)


def placed_in(size: tuple[int, int], room: tuple[int, int], look: Look) -> Place:
    """The same in so many pixels of the screen."""
    fit = min(room[0] / size[0], room[1] / size[1])
    whole = size[0] * fit * look.zoom, size[1] * fit * look.zoom
    width, height = (max(1, min(space, round(side))) for space, side in zip(room, whole, strict=True))
    edges: list[tuple[float, float]] = []
    for shown, side, middle in ((width, whole[0], look.x), (height, whole[1], look.y)):
        share = min(1.0, shown / side)
        start = min(max(middle - share / 2, 0.0), 1.0 - share)
        edges.append((start, start + share))
    (left, right), (top, bottom) = edges
    return Place((left, top, right, bottom), width, height, fit * look.zoom)


def one_to_one(size: tuple[int, int], columns: int, rows: int) -> float:
    """The zoom at which a pixel of the picture is one of the screen; 1 where it is smaller than the room."""
    return min(MOST_ZOOM, max(1.0, 1 / placed(size, columns, rows, Look()).scale))


def middle_of(cover: Pixels) -> tuple[float, float]:
    """Where the middle of a mask's holes lies, in shares of the width and the height; of none: in the middle."""
    total = float(cover.sum())
    if total <= 0:
        return 0.5, 0.5
    height, width = cover.shape
    x = float((cover.sum(axis=0) * (np.arange(width) + 0.5)).sum()) / total / width
    y = float((cover.sum(axis=1) * (np.arange(height) + 0.5)).sum()) / total / height
    return x, y


# ---------------------------------------------------------------- what is drawn


def sampled(thumbnail: Thumbnail, place: Place) -> Pixels:
    """The part of a picture that ``place`` says, in that many pixels: (height, width, 3), of a mask (height, width)."""
    height, width = thumbnail.pixels.shape[:2]
    left, top, right, bottom = thumbnail.box
    across, down = width / (right - left), height / (bottom - top)
    box = (
        max(0.0, (place.box[0] - left) * across), max(0.0, (place.box[1] - top) * down),
        min(float(width), (place.box[2] - left) * across), min(float(height), (place.box[3] - top) * down),
    )  # fmt: skip
    shrinks = box[2] - box[0] > place.width or box[3] - box[1] > place.height
    how = Image.Resampling.BOX if shrinks else Image.Resampling.NEAREST
    image = Image.fromarray(thumbnail.pixels)
    return np.asarray(image.resize((place.width, place.height), how, box=box, reducing_gap=2.0 if shrinks else None))


def holes_in(cover: Pixels) -> NDArray[np.bool_]:
    """Which pixels of the screen are drawn as hole. However small a mask is, something of it is seen."""
    most = int(cover.max(initial=0))
    return cover >= max(1, min(_SEEN_COVER, most // 2))


def with_mask(pixels: Pixels, holes: NDArray[np.bool_], *, stripe: int = 2) -> Pixels:
    """Holes in bright red and dark stripes, so many pixels broad: who sees no red sees the stripes."""
    if not holes.any():
        return pixels
    down, across = np.indices(holes.shape)
    bright = holes & ((across + down) % (2 * stripe) < stripe)
    if not bright.any():
        bright = holes  # smaller than a stripe
    out = pixels.astype(np.float32)
    out[bright] = out[bright] * 0.25 + _RED * 0.75
    dark = holes & ~bright
    out[dark] = out[dark] * 0.45 + _RED * 0.12
    return out.astype(np.uint8)


def wiped(before: Pixels, after: Pixels, at: float) -> Pixels:
    """``before`` to the left of the share ``at`` of the width, ``after`` to the right, a bright line between."""
    edge = min(max(0, round(at * before.shape[1])), before.shape[1] - 1)
    out = after.copy()
    out[:, :edge] = before[:, :edge]
    out[:, edge] = (255, 230, 120)
    return out


def difference(before: Pixels, after: Pixels) -> Pixels:
    """Where they differ, the brighter the more, over a faint grey of what was there."""
    grey = (before.mean(axis=2, keepdims=True) * 0.3).astype(np.float32)
    differs = np.abs(before.astype(np.int16) - after.astype(np.int16)).max(axis=2, keepdims=True)
    strong = np.minimum(1.0, differs.astype(np.float32) * _GAIN / 255)
    out: Pixels = (grey * (1 - strong) + np.array((255, 214, 90), np.float32) * strong).astype(np.uint8)
    return out


@dataclass(frozen=True)
class Compared:
    """What an attempt has changed outside its mask: nothing, if all is well."""

    most: int
    """The largest difference of any channel of any pixel there, of 255."""
    psnr: float
    """In dB; infinite where nothing differs."""


def outside_mask(before: Thumbnail, after: Thumbnail, mask: Thumbnail) -> Compared | None:
    """Compare two pictures where the mask has no hole at all; None where that cannot be said of these."""
    shape = before.pixels.shape[:2]
    if after.pixels.shape[:2] != shape or mask.pixels.shape != shape or not (mask.pixels == 0).any():
        return None
    outside = mask.pixels == 0
    apart = np.abs(before.pixels[outside].astype(np.int16) - after.pixels[outside].astype(np.int16))
    mean = float((apart.astype(np.float32) ** 2).mean())
    return Compared(int(apart.max()), math.inf if mean == 0 else 10 * math.log10(255 * 255 / mean))


# ---------------------------------------------------------------- cells


class Run(NamedTuple):
    """Neighbouring cells of one style; a colour that is None is the terminal's own."""

    text: str
    ink: Colour | None = None
    ground: Colour | None = None


def drawn(
    pixels: Pixels, holes: NDArray[np.bool_] | None = None, *, depth: Depth, dark: bool = True
) -> list[list[Run]]:
    """The lines of cells that show ``pixels``, two of them to a cell.

    ``holes`` matter where there are no colours; elsewhere they are painted already. ``dark``: so is the terminal's
    ground, so that much ink is much light.
    """
    if depth is Depth.PLAIN:
        return _characters(pixels, holes, dark=dark)
    return _half_blocks(_reduced_to(pixels, depth))


def _reduced_to(pixels: Pixels, depth: Depth) -> Pixels:
    """``pixels`` in the colours that there are, dithered."""
    if depth is Depth.TRUE:
        return pixels
    height, width = pixels.shape[:2]
    noise = np.tile(_BAYER, (height // 4 + 1, width // 4 + 1))[:height, :width, None]
    if depth is Depth.XTERM:
        shifted = pixels.astype(np.float32) + noise * 28
        cube = _CUBE[np.abs(shifted[..., None] - _CUBE).argmin(axis=-1)]
        grey = np.clip(np.round((shifted.mean(axis=2, keepdims=True) - 8) / 10), 0, 23) * 10 + 8
        is_grey = ((shifted - grey) ** 2).sum(axis=2) < ((shifted - cube) ** 2).sum(axis=2)
        nearest: Pixels = np.where(is_grey[..., None], grey, cube).astype(np.uint8)
        return nearest
    shifted = pixels.astype(np.float32) + noise * 85
    closest = ((shifted[..., None, :] - _ANSI) ** 2).sum(axis=-1).argmin(axis=-1)
    ansi: Pixels = _ANSI[closest].astype(np.uint8)
    return ansi


def _half_blocks(pixels: Pixels) -> list[list[Run]]:
    lines = []
    for top in range(0, pixels.shape[0], 2):
        above = pixels[top]
        below = pixels[top + 1] if top + 1 < pixels.shape[0] else None
        both = above if below is None else np.concatenate((above, below), axis=1)
        starts = np.concatenate(([0], np.flatnonzero((both[1:] != both[:-1]).any(axis=1)) + 1))
        lengths = np.diff(starts, append=both.shape[0]).tolist()
        inks = map(tuple, above[starts].tolist())
        grounds = map(tuple, below[starts].tolist()) if below is not None else repeat(None)
        lines.append(
            [Run(UPPER_HALF * cells, ink, ground) for cells, ink, ground in zip(lengths, inks, grounds, strict=False)]
        )
    return lines


def _characters(pixels: Pixels, holes: NDArray[np.bool_] | None, *, dark: bool) -> list[list[Run]]:
    light = pixels.astype(np.float32) @ np.array((0.299, 0.587, 0.114), np.float32)
    if light.shape[0] % 2:
        light = np.concatenate((light, light[-1:]))
        holes = np.concatenate((holes, holes[-1:])) if holes is not None else None
    cells = light.reshape(-1, 2, light.shape[1]).mean(axis=1)
    steps = (cells / 256 * len(_RAMP)).astype(int)
    if not dark:
        steps = len(_RAMP) - 1 - steps
    cut = np.zeros(light.shape, bool) if holes is None else holes
    pierced = cut[0::2] | cut[1::2]
    return [
        [Run("".join(HOLE if hole else _RAMP[step] for step, hole in zip(line, marks, strict=True)))]
        for line, marks in zip(steps.tolist(), pierced.tolist(), strict=True)
    ]


# ---------------------------------------------------------------- a task's pictures together


class Mode(StrEnum):
    """What of a task's pictures is drawn in one place, in the order in which a key goes through them."""

    BOTH = "both"
    WIPE = "wipe"
    DIFFERENCE = "difference"
    BEFORE = "before"
    AFTER = "after"

    @property
    def next(self) -> Mode:
        modes = list(Mode)
        return modes[(modes.index(self) + 1) % len(modes)]


@dataclass(frozen=True)
class Scene:
    """What there is of each picture: of all of it, or also of a part nearer by."""

    before: tuple[Thumbnail, ...] = ()
    mask: tuple[Thumbnail, ...] = ()
    after: tuple[Thumbnail, ...] = ()

    @property
    def size(self) -> tuple[int, int]:
        """Of the picture, in its own pixels."""
        known = self.before or self.after
        return known[0].size if known else (1, 1)

    @property
    def fits(self) -> bool:
        """Whether before and after can be laid over each other."""
        return bool(self.before and self.after) and self.before[0].size == self.after[0].size

    def painted(
        self,
        mode: Mode,
        room: tuple[int, int],
        look: Look,
        *,
        depth: Depth,
        with_holes: bool = True,
        wipe: float = 0.5,
        dark: bool = True,
    ) -> list[list[Run]]:
        """The cells of one picture in ``room`` (columns, rows); none where what ``mode`` needs is not there."""
        room_px = max(1, room[0]), 2 * max(1, room[1])
        stripe = 0 if depth is Depth.PLAIN else 2
        made = self.composed(mode, room_px, look, with_holes=with_holes, wipe=wipe, stripe=stripe)
        return drawn(*made, dark=dark, depth=depth) if made is not None else []

    def composed(
        self,
        mode: Mode,
        room: tuple[int, int],
        look: Look,
        *,
        with_holes: bool = True,
        wipe: float = 0.5,
        stripe: int = 2,
    ) -> tuple[Pixels, NDArray[np.bool_] | None] | None:
        """One picture in ``room`` (pixels of the screen), the mask in it in stripes of that breadth; with 0 it is only
        told which pixels are hole. None where what ``mode`` needs is not there."""
        before = self.after if mode is Mode.AFTER else self.before
        if not before or (mode in (Mode.WIPE, Mode.DIFFERENCE) and not self.fits):
            return None
        place = placed_in(before[0].size, room, look)
        pixels, holes = _best(before, place), None
        if mode is Mode.DIFFERENCE:
            return difference(pixels, _best(self.after, place)), None
        if self.mask and with_holes and mode is not Mode.AFTER:
            holes = holes_in(_best(self.mask, place))
            pixels = with_mask(pixels, holes, stripe=stripe) if stripe else pixels
        if mode is Mode.WIPE:
            pixels = wiped(pixels, _best(self.after, place), wipe)
            if holes is not None:
                holes[:, round(wipe * pixels.shape[1]) :] = False
        return pixels, holes


def _best(known: tuple[Thumbnail, ...], place: Place) -> Pixels:
    """What is drawn of a picture: from the finest of those that have all of the place."""
    covering = [one for one in known if _covers(one.box, place.box)] or [known[0]]
    return sampled(max(covering, key=lambda one: one.pixels.shape[1] / (one.box[2] - one.box[0])), place)


def _covers(box: Box, part: Box) -> bool:
    slack = 1e-6
    return (
        box[0] <= part[0] + slack and box[1] <= part[1] + slack
        and box[2] >= part[2] - slack and box[3] >= part[3] - slack
    )  # fmt: skip


def wanted(size: tuple[int, int], room: tuple[int, int], look: Look, *, most: int) -> tuple[int, Box]:
    """How many pixels of the longer side, and which part, are to be read so that ``look`` is as sharp as can be."""
    place = placed(size, *room, look)
    whole = max(size) * place.scale
    for step in (256, 512, 1024, 2048):
        if whole <= step <= most:
            return step, WHOLE
    if look.zoom < 1.5:
        return most, WHOLE
    left, top, right, bottom = place.box
    across, down = (right - left) / 2, (bottom - top) / 2  # half a screen more on each side: so far one may pan
    box = max(0.0, left - across), max(0.0, top - down), min(1.0, right + across), min(1.0, bottom + down)
    part = max((box[2] - box[0]) * size[0], (box[3] - box[1]) * size[1])
    return max(16, min(most, math.ceil(part * min(1.0, place.scale)))), box
