"""Where the holes of a mask are: rectangles around groups of them. numpy only."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
from numpy.typing import NDArray


def boxes_of_holes(mask: NDArray[np.bool_], *, apart: int) -> Iterator[tuple[slice, slice]]:
    """Rectangles that hold every hole with ``apart`` pixels around it (less at the picture's edges).

    Holes further than ``2 * apart`` from all others, by rows or by columns, get a rectangle of their own, so
    that a date in one corner and a scratch in another do not make the whole picture's work. No hole reaches
    into another's rectangle.
    """
    height, width = mask.shape
    for top, bottom in _runs(np.any(mask, axis=1), gap=2 * apart):
        rows = slice(max(0, top - apart), min(height, bottom + apart))
        for left, right in _runs(np.any(mask[top:bottom], axis=0), gap=2 * apart):
            yield rows, slice(max(0, left - apart), min(width, right + apart))


def _runs(used: NDArray[Any], *, gap: int) -> Iterator[tuple[int, int]]:
    """First and past-the-last index of each run of True; gaps up to ``gap`` do not end a run."""
    places = np.flatnonzero(used)
    if not places.size:
        return
    breaks = np.flatnonzero(np.diff(places) > gap)
    starts = places[np.concatenate(([0], breaks + 1))]
    ends = places[np.concatenate((breaks, [places.size - 1]))] + 1
    yield from zip(starts.tolist(), ends.tolist(), strict=True)
