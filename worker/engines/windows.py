"""Where ``auto`` looks: windows that hold every hole with real surroundings, at the least area in all."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass
from functools import reduce
from itertools import chain
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

BUCKETS = (256, 384, 512, 768, 1024)
"""Sides that windows are grown to: few sizes, so that windows can share a batch."""

Size = tuple[int, int]
"""Height and width in pixels."""

_STEP = 256  # of the sides over the last bucket
_CELL = 16  # pixels; holes closer than this are one
_MOST_GROUPS = 512  # more are made fewer by coarser cells: merging looks at every pair
_THIN = 0.25  # of its box's cells: a wire or a scratch, which may be filled piece by piece
_WORTH_A_SEAM = 0.75  # of the area of one window, that the pieces' windows may have


@dataclass(frozen=True, order=True)
class Box:
    """Pixels from ``top`` and ``left`` up to, not including, ``bottom`` and ``right``."""

    top: int
    bottom: int
    left: int
    right: int

    @property
    def height(self) -> int:
        return self.bottom - self.top

    @property
    def width(self) -> int:
        return self.right - self.left

    @property
    def area(self) -> int:
        return self.height * self.width

    @property
    def longer_side(self) -> int:
        return max(self.height, self.width)

    @property
    def slices(self) -> tuple[slice, slice]:
        return slice(self.top, self.bottom), slice(self.left, self.right)

    def around(self, other: Box) -> Box:
        """The smallest box that holds both."""
        return Box(
            min(self.top, other.top),
            max(self.bottom, other.bottom),
            min(self.left, other.left),
            max(self.right, other.right),
        )


@dataclass(frozen=True)
class Context:
    """How much of the picture a hole is shown with, and how long a window may be before it must be scaled down.

    ``margin``: pixels on each side of a hole's box; None: as wide as the hole (its height and width taken
    together), from 64 to 128, and a quarter of a hole that is over 512. ``tight`` halves that.
    """

    longest: int
    margin: int | None = None
    tight: bool = False

    def needed(self, box: Box) -> Box:
        """A hole's ``box`` with its margins; these may lie outside the picture."""
        margin = self.margin
        if margin is None:
            size = math.sqrt(box.area)
            margin = int(max(min(max(64, size), 128), size / 4))
        if self.tight:
            margin //= 2
        return Box(box.top - margin, box.bottom + margin, box.left - margin, box.right + margin)


def window_around(needed: Box, shape: Size) -> Box:
    """``needed``, grown to a bucket with what the picture has; less only where the picture ends."""
    height, width = (int(_grown(side, limit)) for side, limit in zip((needed.height, needed.width), shape, strict=True))
    return Box(
        *_placed(needed.top, needed.bottom, height, shape[0]), *_placed(needed.left, needed.right, width, shape[1])
    )


def _grown(needed: Any, limit: int) -> NDArray[Any]:
    """How long the sides of windows are where so much is needed, in a picture with a side of ``limit``."""
    bucket = np.asarray((*BUCKETS, 0))[np.searchsorted(BUCKETS, needed)]
    longer = -(-needed // _STEP) * _STEP
    grown: NDArray[Any] = np.minimum(np.where(bucket > 0, bucket, longer), limit)
    return grown


def _placed(start: int, end: int, side: int, limit: int) -> tuple[int, int]:
    """Where a side of that length lies: around the middle of start and end, moved to be within the picture."""
    first = min(max(0, (start + end - side) // 2), limit - side)
    return first, first + side


@dataclass(frozen=True)
class Window:
    """A part of the picture that is shown to the network at once, the box of the holes it fills, and their group."""

    box: Box
    holes: Box
    group: int


@dataclass(frozen=True)
class Plan:
    """The windows of one mask. Every hole's pixel is filled by exactly one of them."""

    windows: tuple[Window, ...]
    _groups: NDArray[np.int32]  # a cell's group; -1: no hole in it
    _cell: int

    def own(self, window: Window, mask: NDArray[np.bool_]) -> NDArray[np.bool_]:
        """The holes that ``window`` fills: of its holes' box, by ``mask``, which is the whole picture's."""
        holes, cell = window.holes, self._cell
        rows = np.arange(holes.top, holes.bottom) // cell
        columns = np.arange(holes.left, holes.right) // cell
        mine = self._groups[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1] == window.group
        own: NDArray[np.bool_] = mine[rows - rows[0]][:, columns - columns[0]] & mask[holes.slices]
        return own


def plan_windows(mask: NDArray[np.bool_], context: Context) -> Plan:
    """Windows for every hole in ``mask``: those of near holes are merged where that makes less area in all.

    A thin hole (a wire across a photo) whose own window would be long is filled piece by piece where that is
    much less work. No merged window is longer than ``context.longest``; a single hole's can be.
    """
    cell = _CELL
    while True:
        cells = _Cells.of(mask, cell)
        if cells.count <= _MOST_GROUPS:
            break
        cell *= 2
    pieces = [piece for members in cells.groups() for piece in _split(members, cells, context)]
    needed = [context.needed(cells.box(piece)) for piece in pieces]
    labels = np.full(cells.grid, -1, np.int32)
    windows = []
    for group, places in enumerate(_merged(needed, context.longest, cells.shape)):
        members = np.concatenate([pieces[place] for place in places])
        labels[cells.rows[members], cells.columns[members]] = group
        box = window_around(reduce(Box.around, (needed[place] for place in places)), cells.shape)
        windows.append(Window(box, cells.box(members), group))
    return Plan(tuple(windows), labels, cell)


@dataclass(frozen=True)
class _Cells:
    """The squares of a grid that have holes in them: where, the box of the holes in each, which touch which."""

    shape: Size  # of the picture
    grid: Size
    rows: NDArray[Any]
    columns: NDArray[Any]
    boxes: NDArray[Any]  # (n, 4): top, bottom, left, right
    labels: NDArray[Any]  # from 0 to count - 1
    count: int

    @classmethod
    def of(cls, mask: NDArray[np.bool_], cell: int) -> _Cells:
        height, width = mask.shape
        down, across = -(-height // cell), -(-width // cell)
        used_rows = np.flatnonzero(mask.any(axis=1))
        grid = np.zeros((down, across), np.uint8)
        nothing = np.zeros(0, np.intp)
        if not used_rows.size:
            return cls((height, width), (down, across), nothing, nothing, np.zeros((0, 4), np.intp), nothing, 0)
        first, last = int(used_rows[0]) // cell, int(used_rows[-1]) // cell + 1
        band = mask[first * cell : last * cell]  # what has no hole at all need not be looked at again
        band = np.pad(band, ((0, (last - first) * cell - band.shape[0]), (0, across * cell - width)))
        by_row = band.reshape(-1, across, cell).any(axis=2).reshape(last - first, cell, across)
        by_column = band.reshape(last - first, cell, -1).any(axis=1).reshape(last - first, across, cell)
        grid[first:last] = by_row.any(axis=1)
        rows, columns = np.nonzero(grid)
        upright, level = by_row[rows - first, :, columns], by_column[rows - first, columns]
        boxes = np.stack(
            (
                rows * cell + upright.argmax(axis=1),
                (rows + 1) * cell - upright[:, ::-1].argmax(axis=1),
                columns * cell + level.argmax(axis=1),
                (columns + 1) * cell - level[:, ::-1].argmax(axis=1),
            ),
            axis=1,
        )
        count, labels = cv2.connectedComponents(grid, connectivity=8)
        return cls((height, width), (down, across), rows, columns, boxes, labels[rows, columns] - 1, count - 1)

    def groups(self) -> Iterable[NDArray[Any]]:
        """The cells of each connected group, as indices."""
        order = np.argsort(self.labels, kind="stable")
        return np.split(order, np.cumsum(np.bincount(self.labels, minlength=self.count))[:-1]) if self.count else []

    def box(self, members: NDArray[Any]) -> Box:
        """The box of the holes in these cells, to the pixel."""
        boxes = self.boxes[members]
        return Box(int(boxes[:, 0].min()), int(boxes[:, 1].max()), int(boxes[:, 2].min()), int(boxes[:, 3].max()))


def _split(members: NDArray[Any], cells: _Cells, context: Context) -> list[NDArray[Any]]:
    """``members`` as they are; or, if they make a long thin hole, in the pieces that cost clearly less."""
    box = cells.box(members)
    if box.longer_side <= BUCKETS[0]:
        return [members]
    rows, columns = cells.rows[members], cells.columns[members]
    thin = min(box.height, box.width) <= 2 * _CELL
    if not thin and members.size > _THIN * (np.ptp(rows) + 1) * (np.ptp(columns) + 1):
        return [members]
    along = rows if box.height >= box.width else columns
    upper = along <= (int(along.min()) + int(along.max())) // 2
    pieces = [*_split(members[upper], cells, context), *_split(members[~upper], cells, context)]
    whole, *parts = (window_around(context.needed(cells.box(piece)), cells.shape) for piece in (members, *pieces))
    worth = 1.0 if whole.longer_side > context.longest else _WORTH_A_SEAM
    return pieces if sum(part.area for part in parts) <= worth * whole.area else [members]


def _merged(needed: list[Box], longest: int, shape: Size) -> list[list[int]]:
    """Which of these share a window: pair by pair, always the pair that saves most area, while none costs any."""
    groups: list[list[int]] = [[place] for place in range(len(needed))]
    top, bottom, left, right = (
        np.array([getattr(box, edge) for box in needed], np.int64) for edge in ("top", "bottom", "left", "right")
    )
    areas = _grown(bottom - top, shape[0]) * _grown(right - left, shape[1])
    savings = np.full((len(needed), len(needed)), -np.inf)
    alive = np.ones(len(needed), bool)

    def look_again(one: int) -> None:
        """What merging ``one`` with each of the others would save."""
        height = _grown(np.maximum(bottom, bottom[one]) - np.minimum(top, top[one]), shape[0])
        width = _grown(np.maximum(right, right[one]) - np.minimum(left, left[one]), shape[1])
        saved = np.where(np.maximum(height, width) <= longest, areas + areas[one] - height * width, -np.inf)
        saved[~alive] = -np.inf
        saved[one] = -np.inf
        savings[one, :] = savings[:, one] = saved

    for one in range(len(needed)):
        look_again(one)
    while len(needed) > 1:
        one, other = divmod(int(savings.argmax()), len(needed))
        if savings[one, other] < 0:
            break
        top[one], bottom[one] = min(top[one], top[other]), max(bottom[one], bottom[other])
        left[one], right[one] = min(left[one], left[other]), max(right[one], right[other])
        areas[one] = _grown(bottom[one] - top[one], shape[0]) * _grown(right[one] - left[one], shape[1])
        groups[one] += groups[other]
        groups[other] = []
        alive[other] = False
        savings[other, :] = savings[:, other] = -np.inf
        look_again(one)
    groups = [group for group in groups if group]
    if groups:
        together = window_around(reduce(Box.around, needed), shape)
        if together.longer_side <= longest and together.area <= areas[alive].sum():
            return [list(chain.from_iterable(groups))]  # no single pair was worth it, but all together are
    return groups
