"""The engine of the stage's GPUs, which are not there: it takes the time and the memory that one would, and cleans.

What comes out is real: the holes are filled as ``cv2-ns`` fills them. What is made up is only how long it takes, what
it needs of the GPU's memory, and that it says so where the GPU has less. ``benchmarks.stage`` installs it.
"""

from __future__ import annotations

import os
import time
from collections.abc import Mapping
from typing import Any

import cv2
from numpy.typing import NDArray

from worker.engines.base import DeviceKind, Engine, EngineError, ErrorClass, ModelOffer, Work
from worker.engines.opencv import OpenCvEngine

VARIABLE = "STAGE_SPEED"  # not LCQ_…: runners do not see those
BASE_MIB, MIB_A_MEGAPIXEL = 2600, 3300
_BASE_S, _S_A_MEGAPIXEL = 3.5, 4.0
_TICK_S = 0.5
_OFFERS = {
    "lama-big": ModelOffer(kinds=(DeviceKind.GPU,), vram_mib=3000),
    "mat-512": ModelOffer(kinds=(DeviceKind.GPU,), vram_mib=6000),
    "restore": ModelOffer(kinds=(DeviceKind.CPU,)),
}


class StageEngine(Engine):
    """``lama-big`` and ``mat-512`` on a GPU, and ``restore`` on a CPU, for pictures of the console."""

    name = "stage"
    self_test = False

    def capabilities(self) -> Mapping[str, ModelOffer]:
        return _OFFERS if os.environ.get(VARIABLE) else {}

    def load(self, model: str, config: Mapping[str, Any]) -> int:
        return BASE_MIB << 20

    def run(self, work: Work) -> NDArray[Any]:
        megapixels = work.picture.mask.size / 1e6
        device = self.settings.device
        needed = round(BASE_MIB + MIB_A_MEGAPIXEL * megapixels) if device.kind is DeviceKind.GPU else 0
        tiles = max(4, round(megapixels * 5))
        until = (_BASE_S + _S_A_MEGAPIXEL * megapixels) / float(os.environ[VARIABLE])
        began = time.monotonic()
        while (passed := (time.monotonic() - began) / until) < 1:
            tile = min(tiles, 1 + int(passed * tiles))
            work.progress(passed, f"tile {tile} of {tiles}")
            if needed > device.vram_mib and passed > 0.3:
                raise EngineError(
                    "out_of_memory",
                    f"{work.model}: CUDA out of memory at tile {tile} of {tiles}: it needs {needed / 1024:.1f} GiB, "
                    f"the GPU has {device.vram_mib / 1024:.1f}",
                    error_class=ErrorClass.RESOURCE,
                )
            time.sleep(_TICK_S)
        cv2.setNumThreads(1)
        opencv = Work(work.task_type, "cv2-ns", work.picture, {}, lambda share, stage: None)
        return OpenCvEngine(self.settings).run(opencv)
