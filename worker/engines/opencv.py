"""The OpenCV engine: Telea's and the Navier-Stokes inpainting, on the CPU, without any weights."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from worker.engines.base import DeviceKind, Engine, EngineError, EngineSettings, ErrorClass, ModelOffer, Work
from worker.engines.crop import Network, Tick, fill
from worker.engines.framing import Framing, Strategy
from worker.engines.holes import boxes_of_holes

_FLAGS = {"cv2-telea": cv2.INPAINT_TELEA, "cv2-ns": cv2.INPAINT_NS}
_RADIUS = {"cv2-telea": 5.0, "cv2-ns": 4.0}
_WIDEST_RADIUS = 100  # OpenCV takes every greater one for this


_OFFERS = MappingProxyType(
    {model: ModelOffer(kinds=(DeviceKind.CPU,), seconds={DeviceKind.CPU: 0.1}) for model in _FLAGS}
)


class OpenCvEngine(Engine):
    """``cv2-telea`` and ``cv2-ns``. The configuration knows ``radius``: how far a pixel looks, in pixels.

    With the parents' strategies crop and resize (``Framing``) the result is theirs. Without one only the holes and
    their surroundings are worked on, each group of holes by itself; the result is the one that the whole picture would
    give (tests/unit/test_opencv.py). 16-bit colour is done channel by channel.
    """

    name = "opencv"

    def __init__(self, settings: EngineSettings) -> None:
        super().__init__(settings)
        cv2.setNumThreads(1)  # inpainting has one thread in OpenCV: others would only take cores of other slots

    def capabilities(self) -> Mapping[str, ModelOffer]:
        return _OFFERS

    def run(self, work: Work) -> NDArray[Any]:
        """The picture with its holes filled. Without a hole it is the input.

        Raises:
            EngineError: ``radius`` is wrong; or the mask covers all, so that there is nothing to fill from.
            MemoryError: OpenCV found none.
        """
        picture = work.picture
        radius = _radius(work.config, work.model)
        if picture.mask.all():
            raise EngineError(
                "mask_full", "the mask covers the whole picture: nothing is left to fill it from (paint less)"
            )
        framing = Framing.from_config(work.config)
        if framing.strategy_for(picture.mask.shape) in (Strategy.CROP, Strategy.RESIZE):
            return _framed(work, radius, framing)
        filled = picture.pixels.copy()
        boxes = list(boxes_of_holes(picture.mask, apart=_reach(radius)))
        for done, box in enumerate(boxes):
            work.progress(done / len(boxes), "inpaint")
            holes = picture.mask[box]
            filled[box][holes] = _inpainted(picture.pixels[box], holes, radius, _FLAGS[work.model])[holes]
        work.progress(1.0, "inpaint")
        return filled


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


def _framed(work: Work, radius: float, framing: Framing) -> NDArray[Any]:
    """As the parents do it: a window a contour, or the whole picture scaled down."""
    picture = work.picture
    peak = np.iinfo(picture.pixels.dtype).max

    def predict(pixels: NDArray[Any], holes: NDArray[np.bool_], tick: Tick) -> NDArray[np.float32]:
        (shown,), (hole,) = pixels, holes
        answer = _inpainted(shown, hole, radius, _FLAGS[work.model])
        tick(1.0)
        return (answer.astype(np.float32) / np.float32(peak))[None]

    network = Network(predict, modulus=1, least_side=1)
    return fill(
        picture.pixels, picture.mask, network=network, framing=framing, progress=work.progress, notes=work.notes
    )


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
        found = " ".join(str(error).split())
        raise EngineError("engine_error", f"OpenCV failed: {found}", error_class=ErrorClass.CRASH) from error
