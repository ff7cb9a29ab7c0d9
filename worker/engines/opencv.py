"""The OpenCV engine: Telea's and the Navier-Stokes inpainting, on the CPU, without any weights."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from lcq.models import DeviceKind
from worker.engines.base import EngineError, Picture, Progress
from worker.engines.registry import OPENCV_MODELS

_FLAGS = {"cv2-telea": cv2.INPAINT_TELEA, "cv2-ns": cv2.INPAINT_NS}
_RADIUS = {"cv2-telea": 5.0, "cv2-ns": 4.0}
_WIDEST_RADIUS = 100  # OpenCV takes every greater one for this


class OpenCvEngine:
    """``cv2-telea`` and ``cv2-ns``. The configuration knows ``radius``: how far a pixel looks, in pixels.

    Only the holes and their surroundings are worked on, each group of holes by itself; the result is the
    one that the whole picture would give (tests/unit/test_opencv.py). 16-bit colour is done channel by channel.
    """

    name = "opencv"

    def __init__(self) -> None:
        cv2.setNumThreads(1)  # a slot is one core: threads of its own would take those of other slots

    def models(self) -> Mapping[str, tuple[DeviceKind, ...]]:
        return OPENCV_MODELS

    def load(self, model: str, device: str) -> None:
        """Nothing to load.

        Raises:
            EngineError: not a model of this engine, or not the CPU.
        """
        if model not in _FLAGS:
            raise EngineError("model_not_here", f"{model!r} is none of {', '.join(_FLAGS)}", bad_input=False)
        if device != "cpu":
            raise EngineError("device_unsupported", f"{model} runs on the CPU, not on {device}", bad_input=False)

    def run(self, picture: Picture, model: str, config: Mapping[str, Any], progress: Progress) -> NDArray[Any]:
        """The picture with its holes filled. Without a hole it is the input.

        Raises:
            EngineError: ``radius`` is wrong; or the mask covers all, so that there is nothing to fill from.
            MemoryError: OpenCV found none.
        """
        self.load(model, "cpu")
        radius = _radius(config, model)
        if picture.mask.all():
            raise EngineError(
                "mask_full", "the mask covers the whole picture: nothing is left to fill it from (paint less)"
            )
        filled = picture.pixels.copy()
        boxes = list(boxes_of_holes(picture.mask, apart=_reach(radius)))
        for done, box in enumerate(boxes):
            progress(done / len(boxes), "inpaint")
            holes = picture.mask[box]
            filled[box][holes] = _inpainted(picture.pixels[box], holes, radius, _FLAGS[model])[holes]
        progress(1.0, "inpaint")
        return filled

    def unload(self) -> None:
        """Nothing is kept."""


def _radius(config: Mapping[str, Any], model: str) -> float:
    radius = config.get("radius", _RADIUS[model])
    is_number = isinstance(radius, int | float) and not isinstance(radius, bool)
    if not is_number or not 0 < radius <= _WIDEST_RADIUS:
        raise EngineError(
            "config_invalid",
            f"config.radius must be a number over 0 and up to {_WIDEST_RADIUS}, found {radius!r:.80}",
        )
    return float(radius)


def _reach(radius: float) -> int:
    """How far from a hole a pixel can still have a say: the radius as OpenCV rounds it, and its gradients."""
    return max(1, round(radius)) + 4


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


_LEAST_SIDE = 3  # of a picture one pixel high, OpenCV reads past the row


def _inpainted(pixels: NDArray[Any], holes: NDArray[np.bool_], radius: float, flag: int) -> NDArray[Any]:
    if pixels.ndim == 3 and pixels.dtype != np.uint8:  # OpenCV knows 16 bits only with one channel
        channels = (_inpainted(pixels[..., c], holes, radius, flag) for c in range(pixels.shape[2]))
        return np.dstack(tuple(channels))
    height, width = holes.shape
    if min(height, width) < _LEAST_SIDE:
        more = ((0, max(0, _LEAST_SIDE - height)), (0, max(0, _LEAST_SIDE - width)))
        depth = ((0, 0),) * (pixels.ndim - 2)
        wider = _inpainted(np.pad(pixels, more + depth, "edge"), np.pad(holes, more, "edge"), radius, flag)
        return wider[:height, :width]
    try:
        return cv2.inpaint(np.ascontiguousarray(pixels), holes.astype(np.uint8), radius, flag)
    except cv2.error as error:
        if error.code == cv2.Error.STS_NO_MEM:
            raise MemoryError(str(error)) from error
        raise EngineError("engine_error", f"OpenCV failed: {' '.join(str(error).split())}", bad_input=False) from error
