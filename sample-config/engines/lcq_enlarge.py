"""Pictures made larger, as an engine for LCQ. docs/engines.md explains each line."""

from collections.abc import Mapping
from typing import Any

import cv2
import numpy as np

from worker.engines.base import DeviceKind, Engine, EngineError, ModelOffer, TaskType, Work


class EnlargeEngine(Engine):
    """The model ``lanczos``: pictures become ``config.scale`` times as wide and as high, 2 to 8, default 2."""

    name = "enlarge"

    def capabilities(self) -> Mapping[str, ModelOffer]:
        return {"lanczos": ModelOffer(kinds=(DeviceKind.CPU,), task_types=(TaskType.UPSCALE,))}

    def run(self, work: Work) -> np.ndarray[Any, Any]:
        scale = work.config.get("scale", 2)
        if scale not in range(2, 9):
            raise EngineError("config_invalid", f"config.scale must be a whole number from 2 to 8, found {scale!r}")
        channels = np.atleast_3d(work.picture.pixels)
        larger = []
        for done in range(channels.shape[2]):
            work.progress(done / channels.shape[2], "enlarge")  # raises Cancelled once nobody waits any more
            larger.append(cv2.resize(channels[..., done], None, fx=scale, fy=scale, interpolation=cv2.INTER_LANCZOS4))
        return np.dstack(larger) if work.picture.pixels.ndim == 3 else larger[0]
