"""The output check: whether what an engine gave can be the result of what it was asked. numpy only."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from lcq.models import TaskType
from worker.engines.base import Picture
from worker.engines.holes import boxes_of_holes

_BLOCK_BYTES = 2**20  # compared at a time: stays in the processor's cache, and needs no memory to speak of
_RING = 4  # how far from a hole its surroundings reach, in pixels
_JUDGED_FROM = 64  # pixels; a smaller patch of one colour may well be right
_THICK = 5  # pixels each way; a thinner hole may rightly be filled with the mean of its two banks
_ALIKE = 6 / 255  # of the range: so near to the fill, a neighbour looks like it
_VARIED = 10 / 255  # of the range: standard deviation from which surroundings count as varied


class BadOutput(Exception):
    """A result that cannot be right; ``code`` names what is wrong with it."""

    def __init__(self, code: str, message: str) -> None:
        super().__init__(message)
        self.code = code


def check_output(task_type: TaskType, picture: Picture, result: Any) -> None:
    """See that ``result`` is what an engine owes for ``picture`` (``Engine.run`` says what that is).

    Inpainting is looked at closest: outside the mask every pixel is the picture's own, and no hole is filled
    with one colour that nothing around it has. The cost is a reading of both pictures.

    Raises:
        BadOutput: output_shape, output_not_a_number, output_outside_mask or output_constant.
    """
    before = picture.pixels
    if not isinstance(result, np.ndarray):
        raise BadOutput("output_shape", f"gave {type(result).__name__}, which is no numpy array")
    _check_shape(task_type, before, result)
    if result.dtype.kind in "fc" and not np.isfinite(result).all():
        count = int(np.count_nonzero(~np.isfinite(result)))
        raise BadOutput("output_not_a_number", f"gave {count:,} values that are no finite numbers")
    _check_type(task_type, before, result)
    if task_type is TaskType.INPAINT:
        astray = _changed_outside(before, result, picture.mask)
        if astray:
            raise BadOutput("output_outside_mask", f"changed {astray:,} pixels outside the mask")
        _check_fill(before, result, picture.mask)


def _check_shape(task_type: TaskType, before: NDArray[Any], after: NDArray[Any]) -> None:
    height, width = before.shape[:2]
    found = after.shape
    match task_type:
        case TaskType.INPAINT:
            fits, wanted = found == before.shape, f"{before.shape}"
        case TaskType.UPSCALE:
            is_larger = len(found) == before.ndim and found[0] >= height and found[1] >= width
            fits, wanted = is_larger and found[2:] == before.shape[2:], f"at least {before.shape}"
        case TaskType.SEGMENT:
            fits, wanted = found == (height, width), f"{(height, width)}"
        case TaskType.PLUGIN:
            fits = min(found, default=0) > 0 and (len(found) == 2 or (len(found) == 3 and found[2] in (3, 4)))
            wanted = "(height, width), with 3 or 4 channels or none"
    if not fits:
        raise BadOutput("output_shape", f"gave {found} {after.dtype} for {before.shape} {before.dtype}, not {wanted}")


def _check_type(task_type: TaskType, before: NDArray[Any], after: NDArray[Any]) -> None:
    wanted: tuple[str, ...]
    match task_type:
        case TaskType.INPAINT | TaskType.UPSCALE:
            wanted = (before.dtype.name,)
        case TaskType.SEGMENT:
            wanted = ("bool", "uint8")
        case TaskType.PLUGIN:
            wanted = ("uint8", "uint16") if after.ndim == 2 else ("uint8",)
    if after.dtype.name not in wanted:
        given = f"gave {after.shape} {after.dtype} for {before.shape} {before.dtype}"
        raise BadOutput("output_shape", f"{given}, not {' or '.join(wanted)}")


def _changed_outside(before: NDArray[Any], after: NDArray[Any], mask: NDArray[np.bool_]) -> int:
    """How many pixels differ where the mask is False."""
    rows = max(1, _BLOCK_BYTES // max(1, before[:1].nbytes))
    astray = 0
    for top in range(0, len(before), rows):
        block = slice(top, top + rows)
        differs = before[block] != after[block]
        if differs.any():
            if differs.ndim == 3:
                differs = _any_channel(differs)
            astray += int(np.count_nonzero(differs & ~mask[block]))
    return astray


def _any_channel(differs: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """``differs.any(axis=2)``, in a quarter of the time: numpy is slow at axes of three."""
    found = differs[..., 0].copy()
    for channel in range(1, differs.shape[2]):
        found |= differs[..., channel]
    return found


# ---------------------------------------------------------------- a hole filled with one colour


@dataclass
class _Patch:
    """A group of holes that was filled with one colour."""

    colour: NDArray[Any]
    pixels: int
    is_thick: bool
    banks: tuple[NDArray[Any], ...]  # the pixels above, below, left and right of it; empty at the picture's edge


def _check_fill(before: NDArray[Any], after: NDArray[Any], mask: NDArray[np.bool_]) -> None:
    """Refuse one colour where the surroundings are another on every side.

    On a flat sky one colour is right; in print, where white paper is white on at least one side, too. Groups
    of holes are judged one by one, those too small for that all together.
    """
    specks: list[_Patch] = []
    specks_differ = False
    for box in boxes_of_holes(mask, apart=2 * _RING):
        holes = mask[box]
        colour = _one_colour(after[box], holes)
        if colour is None:
            specks_differ = specks_differ or int(np.count_nonzero(holes)) < _JUDGED_FROM
            continue
        count = int(np.count_nonzero(holes))
        if count >= _JUDGED_FROM:
            _judge((_Patch(colour, count, _is_thick(holes), tuple(_banks(before[box], holes))),))
        elif not specks_differ and (not specks or (specks[0].colour == colour).all()):
            specks.append(_Patch(colour, count, False, tuple(_banks(before[box], holes))))
        else:
            specks_differ = True
    if not specks_differ and sum(speck.pixels for speck in specks) >= _JUDGED_FROM:
        _judge(tuple(specks))


def _one_colour(pixels: NDArray[Any], holes: NDArray[np.bool_]) -> NDArray[Any] | None:
    """The colour that all ``pixels`` in ``holes`` have, None where they differ, as most often the first rows show."""
    colour = None
    rows = max(1, _BLOCK_BYTES // max(1, 16 * pixels[:1].nbytes))
    for top in range(0, len(pixels), rows):
        inside = pixels[top : top + rows][holes[top : top + rows]]
        if len(inside):
            colour = inside[0] if colour is None else colour
            if (inside != colour).any():
                return None
    return colour


def _judge(patches: tuple[_Patch, ...]) -> None:
    colour = patches[0].colour
    top = np.iinfo(colour.dtype).max
    is_thick = any(patch.is_thick for patch in patches)
    for side in range(4):
        bank = np.concatenate([patch.banks[side] for patch in patches]).astype(np.float32)
        if not len(bank):
            continue
        near = np.abs(bank - colour.astype(np.float32)) <= _ALIKE * top
        alike = near.all(axis=1) if near.ndim == 2 else near
        if alike.mean() >= 0.5 or (not is_thick and bank.std(axis=0).max() < _VARIED * top):
            return  # this side says that it may be right
    if any(len(bank) for patch in patches for bank in patch.banks):
        shown = ", ".join(str(value) for value in np.atleast_1d(colour))
        count = sum(patch.pixels for patch in patches)
        raise BadOutput(
            "output_constant", f"filled {count:,} pixels with one colour ({shown}), which nothing around them has"
        )


def _banks(pixels: NDArray[Any], holes: NDArray[np.bool_]) -> Iterator[NDArray[Any]]:
    for axis in (0, 1):
        for step in (-1, 1):
            near = np.zeros_like(holes)
            for reach in range(1, _RING + 1):
                near |= _moved(holes, axis, step * reach)
            yield pixels[near & ~holes]


def _is_thick(holes: NDArray[np.bool_]) -> bool:
    """Whether a square of ``_THICK`` pixels fits into them."""
    for axis in (0, 1):
        core = holes
        for reach in range(1, _THICK):
            core = core & _moved(holes, axis, reach)
        holes = core
    return bool(holes.any())


def _moved(holes: NDArray[np.bool_], axis: int, by: int) -> NDArray[np.bool_]:
    """``holes`` shifted along ``axis``; nothing comes in from the edge."""
    moved = np.zeros_like(holes)
    length = holes.shape[axis]
    if abs(by) < length:
        to = [slice(None), slice(None)]
        source = [slice(None), slice(None)]
        to[axis] = slice(max(0, by), length + min(0, by))
        source[axis] = slice(max(0, -by), length - max(0, by))
        moved[tuple(to)] = holes[tuple(source)]
    return moved
