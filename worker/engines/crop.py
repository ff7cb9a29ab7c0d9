"""The frame around a network that inpaints: which parts of a picture it is shown, and what is taken from its answer.

Independent of the network. ``auto`` is ours. ``original``, ``resize`` and ``crop`` give what IOPaint gives under
these names: its boxes, its scaling, its rounding (down; and in ``resize`` values over- or undershot by scaling
back wrap around, as they do there), its last-one-wins, and that a hole too thin
for ``resize`` is lost in it. One thing stands above them: a pixel outside the mask is
never written, so it stays bit-identical.

Three things are done that IOPaint does not do: sides under 16 are padded to 16, the least that LaMa can take
(it fails there); a window with margin 0 is never narrower than its hole; 16-bit pictures keep their 16 bits.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import groupby
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from worker.engines.base import EngineError, ErrorClass, Progress
from worker.engines.framing import Framing, Strategy
from worker.engines.windows import Box, Size, Window, plan_windows

Tick = Callable[[float], None]
"""Told how much of a ``Predict`` call is done, 0..1; may raise ``Cancelled``."""

Predict = Callable[[NDArray[Any], NDArray[np.bool_], Tick], NDArray[np.float32]]
"""From RGB (batch, height, width, 3), uint8 or uint16, and holes (batch, height, width) to RGB of 0..1."""


@dataclass(frozen=True)
class Network:
    """What the frame must know of a network: it is shown sides that are multiples of ``modulus``, of ``least_side`` up.

    ``batch``: how many windows of a size may be shown at once.
    """

    predict: Predict
    modulus: int = 8
    least_side: int = 16
    batch: Callable[[Size], int] = lambda size: 1

    def padded(self, size: Size) -> Size:
        """What a window of that size is padded to."""
        height, width = (max(self.least_side, -(-side // self.modulus) * self.modulus) for side in size)
        return height, width


def shown_sizes(mask: NDArray[np.bool_], framing: Framing, network: Network) -> list[Size]:
    """What the network will be shown to fill the holes of ``mask``, one size a window. Cheap."""
    if not mask.any():
        return []
    boxes, limit = _boxes(mask, framing)
    return [network.padded(_scaled(box, limit)) for box in boxes]


def fill(
    pixels: NDArray[Any],
    mask: NDArray[np.bool_],
    *,
    network: Network,
    framing: Framing,
    progress: Progress,
    notes: list[str],
) -> NDArray[Any]:
    """A copy of ``pixels`` with the holes of ``mask`` filled by ``network``; nothing else differs from it.

    Grey pictures are shown as RGB and take the mean of the three answers. What the caller should know of the
    result (a hole filled at less than full size) is added to ``notes``.

    Raises:
        EngineError: mask_full, as there is nothing to fill from (the parents would invent a picture);
            output_not_a_number, if the network answers something that is not a number.
        Cancelled: by way of ``progress``, which is told of each window.
    """
    if not mask.any():
        return pixels.copy()
    if mask.all():
        raise EngineError(
            "mask_full", "the mask covers the whole picture: nothing is left to fill it from (paint less)"
        )
    strategy = framing.strategy_for(mask.shape)
    if strategy is Strategy.AUTO:
        return _filled_window_by_window(pixels, mask, network, framing, progress, notes)
    boxes, limit = _boxes(mask, framing)
    course = _Course(progress, [box.area for box in boxes])
    filled = pixels.copy()
    for box in boxes:
        size = _scaled(box, limit)
        part, holes = pixels[box.slices], mask[box.slices]
        if size == (box.height, box.width):
            answer = _rounded_down(_answer(part, holes, network, course), pixels.dtype)
        else:
            answer = _through_a_smaller_picture(part, holes, size, network, course)
        filled[box.slices][holes] = answer[holes]  # the last window wins, as in the parents
    return filled


# ---------------------------------------------------------------- auto


def _filled_window_by_window(
    pixels: NDArray[Any],
    mask: NDArray[np.bool_],
    network: Network,
    framing: Framing,
    progress: Progress,
    notes: list[str],
) -> NDArray[Any]:
    plan = plan_windows(mask, framing.context)
    longest = framing.context.longest

    def shown(window: Window) -> Size:
        return network.padded(_scaled(window.box, longest))

    windows = sorted(plan.windows, key=shown, reverse=True)  # what may not fit into memory comes first
    course = _Course(progress, [window.box.area for window in windows])
    filled = pixels.copy()
    for size, same_size in groupby(windows, key=shown):
        for batch in _batches(list(same_size), network.batch(size)):
            parts = [_shrunk(pixels, mask, window.box, longest) for window in batch]
            answers = _answers(parts, size, network, course)
            for window, (part, _), answer in zip(batch, parts, answers, strict=True):
                box, holes = window.box, window.holes
                answer = answer[: part.shape[0], : part.shape[1]]
                if part.shape[:2] != (box.height, box.width):
                    answer = cv2.resize(answer, (box.width, box.height), interpolation=cv2.INTER_CUBIC)
                within = answer[holes.top - box.top : holes.bottom - box.top, holes.left - box.left :]
                own = plan.own(window, mask)
                filled[holes.slices][own] = _rounded(within[:, : holes.width][own], pixels.dtype)
    scaled = [window.box for window in windows if window.box.longer_side > longest]
    if scaled:
        largest = max(scaled, key=lambda box: box.longer_side)
        notes.append(
            f"{len(scaled)} of {len(windows)} windows were filled at less than full size, the largest at "
            f"{longest / largest.longer_side:.0%}: a window is shown with at most {longest:,} pixels a side"
        )
    return filled


def _shrunk(
    pixels: NDArray[Any], mask: NDArray[np.bool_], box: Box, longest: int
) -> tuple[NDArray[Any], NDArray[np.bool_]]:
    """The picture and the holes in ``box``, scaled down if it is too long. A pixel with any hole in it is a hole."""
    part, holes = pixels[box.slices], mask[box.slices]
    height, width = _scaled(box, longest)
    if (height, width) == (box.height, box.width):
        return part, holes
    small = cv2.resize(part, (width, height), interpolation=cv2.INTER_AREA)
    coverage = cv2.resize(holes.astype(np.float32), (width, height), interpolation=cv2.INTER_AREA)
    return small, coverage > 0


def _batches(windows: list[Window], size: int) -> Iterator[list[Window]]:
    for start in range(0, len(windows), max(1, size)):
        yield windows[start : start + max(1, size)]


# ---------------------------------------------------------------- the parents' strategies


def _boxes(mask: NDArray[np.bool_], framing: Framing) -> tuple[list[Box], int]:
    """What is shown to the network, in order, and the longest side that it is shown with."""
    height, width = mask.shape
    strategy = framing.strategy_for(mask.shape)
    if strategy is Strategy.AUTO:
        return [window.box for window in plan_windows(mask, framing.context).windows], framing.context.longest
    if strategy is Strategy.CROP:
        return _contour_boxes(mask, framing.margin), max(height, width)
    limit = framing.resize_limit if strategy is Strategy.RESIZE else max(height, width)
    return [Box(0, height, 0, width)], limit


def _contour_boxes(mask: NDArray[np.bool_], margin: int) -> list[Box]:
    """A box around each outer contour, in OpenCV's order. Of equal boxes only the last is kept: it would win."""
    contours, _ = cv2.findContours(
        np.ascontiguousarray(mask).view(np.uint8), cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_SIMPLE
    )
    height, width = mask.shape
    boxes = []
    for contour in contours:
        x, y, wide, high = cv2.boundingRect(contour)
        boxes.append(Box(*_stretched(y, y + high, margin, height), *_stretched(x, x + wide, margin, width)))
    return list(dict.fromkeys(reversed(boxes)))[::-1]


def _stretched(start: int, end: int, margin: int, limit: int) -> tuple[int, int]:
    """Start and end with margins; what the picture lacks on one side is added on the other."""
    middle, half = (start + end) // 2, (end - start + 2 * margin) // 2
    first, last = middle - half, middle + half
    lacking_before, lacking_after = max(0, -first), max(0, last - limit)
    first, last = max(0, first), min(limit, last)
    first, last = max(0, first - lacking_after), min(limit, last + lacking_before)
    return min(first, start), max(last, end)


def _through_a_smaller_picture(
    pixels: NDArray[Any], mask: NDArray[np.bool_], size: Size, network: Network, course: _Course
) -> NDArray[Any]:
    """The parents' ``resize``: scaled down, filled, blended by the mask's greys, scaled back, cast by wrapping."""
    to, back = size[::-1], mask.shape[::-1]
    small = cv2.resize(pixels, to, interpolation=cv2.INTER_CUBIC)
    grey = cv2.resize(mask.astype(np.uint8) * 255, to, interpolation=cv2.INTER_CUBIC)
    answer = _rounded_down(_answer(small, grey > 0, network, course), pixels.dtype)
    share = (grey / 255).reshape(*grey.shape, *(1,) * (pixels.ndim - 2))
    blended = answer * share + small * (1 - share)
    scaled = cv2.resize(blended, back, interpolation=cv2.INTER_CUBIC)
    wrapped: NDArray[Any] = scaled.astype(np.int64).astype(pixels.dtype)
    return wrapped


def _scaled(box: Box, limit: int) -> Size:
    """The size of ``box``, scaled so that its longer side is at most ``limit``."""
    if box.longer_side <= limit:
        return box.height, box.width
    ratio = limit / box.longer_side
    return max(1, int(box.height * ratio + 0.5)), max(1, int(box.width * ratio + 0.5))


# ---------------------------------------------------------------- to the network and back


class _Course:
    """Tells how far the work is: windows count by their area."""

    def __init__(self, progress: Progress, areas: Sequence[int]) -> None:
        self._progress = progress
        self._areas = list(areas)
        self._total = sum(areas)
        self._begun = 0

    def begin(self, count: int) -> Tick:
        """The next ``count`` windows begin; gives what is to be told how much of them is done."""
        before, now = sum(self._areas[: self._begun]), sum(self._areas[self._begun : self._begun + count])
        stage = f"inpaint {self._begun + 1} of {len(self._areas)}"
        self._begun += count

        def tick(fraction: float) -> None:
            self._progress((before + now * fraction) / self._total, stage)

        tick(0.0)
        return tick


def _answer(pixels: NDArray[Any], mask: NDArray[np.bool_], network: Network, course: _Course) -> NDArray[Any]:
    """What the network makes of one window, 0..1, in the window's size and with its channels."""
    height, width = mask.shape
    answers = _answers([(pixels, mask)], network.padded((height, width)), network, course)
    answer: NDArray[Any] = answers[0, :height, :width]
    return answer


def _answers(
    parts: Sequence[tuple[NDArray[Any], NDArray[np.bool_]]], size: Size, network: Network, course: _Course
) -> NDArray[Any]:
    """What the network makes of these windows, padded to ``size``; with their channels, 0..1."""
    tick = course.begin(len(parts))
    holes = np.stack([_padded(mask, size) for _, mask in parts])
    stack = np.stack([_padded(pixels, size) for pixels, _ in parts])
    grey = stack.ndim == 3
    if grey:
        stack = np.repeat(stack[..., None], 3, axis=3)
    answers = network.predict(stack, holes, tick)
    if not np.isfinite(answers).all():
        raise EngineError(
            "output_not_a_number",
            "the network's answer has values that are not numbers (with precision fp16 or bf16: use fp32)",
            error_class=ErrorClass.BAD_OUTPUT,
        )
    if not grey:
        return answers
    mean: NDArray[Any] = answers.mean(axis=3)
    return mean


def _padded(array: NDArray[Any], size: Size) -> NDArray[Any]:
    """``array`` continued to the right and below by its mirror image, the edge repeated."""
    height, width = array.shape[:2]
    more = ((0, size[0] - height), (0, size[1] - width), *((0, 0),) * (array.ndim - 2))
    return np.pad(array, more, "symmetric")


def _rounded(answer: NDArray[Any], dtype: np.dtype[Any]) -> NDArray[Any]:
    peak = np.iinfo(dtype).max
    values: NDArray[Any] = np.rint(np.clip(answer * peak, 0, peak)).astype(dtype)
    return values


def _rounded_down(answer: NDArray[Any], dtype: np.dtype[Any]) -> NDArray[Any]:
    peak = np.iinfo(dtype).max
    values: NDArray[Any] = np.clip(answer * peak, 0, peak).astype(dtype)
    return values
