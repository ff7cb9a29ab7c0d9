"""Pictures, work and engines for the tests of the IOPaint engine, beside the stand-in and beside the real one."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from lcq.config import IopaintConfig
from lcq.models import Device, DeviceKind, TaskType
from worker.engines.base import Picture, Progress, Work
from worker.engines.iopaint import IopaintEngine
from worker.settings import EngineSettings

STANDIN = Path(__file__).with_name("iopaint_standin.py")
MODELS = {"cv2": "cv2", "inverse": "inverse", "sd1.5": "grey", "mat": "mat"}  # "mat" is not on the stand-in's disk


def standin(*switches: object) -> tuple[str, ...]:
    return (sys.executable, str(STANDIN), *map(str, switches))


@contextmanager
def an_engine(*, kind: DeviceKind = DeviceKind.CPU, **config: Any) -> Iterator[IopaintEngine]:
    """An engine that leaves no server behind."""
    config.setdefault("models", MODELS)
    device = Device(id="cpu" if kind is DeviceKind.CPU else "GPU-1", kind=kind)
    engine = IopaintEngine(EngineSettings(device=device, iopaint=IopaintConfig(**config)))
    try:
        yield engine
    finally:
        for model in engine.settings.iopaint.models:
            engine.unload(model)


def a_picture(shape: tuple[int, ...] = (48, 64, 3), *, dtype: Any = np.uint8, seed: int = 1) -> Picture:
    rng = np.random.default_rng(seed)
    pixels = rng.integers(0, np.iinfo(dtype).max, shape, dtype=dtype, endpoint=True)
    mask = np.zeros(shape[:2], bool)
    mask[shape[0] // 4 : shape[0] // 2, shape[1] // 5 : shape[1] // 2] = True
    mask[-3:, -5:] = True
    return Picture(pixels, mask)


def told_nobody(fraction: float, stage: str) -> None:
    """Progress that is not watched."""


def work_on(picture: Picture, model: str = "inverse", *, progress: Progress = told_nobody, **config: Any) -> Work:
    return Work(TaskType.INPAINT, model, picture, {"model": model, **config}, progress)


def done(engine: IopaintEngine, work: Work) -> NDArray[Any]:
    """What a runner does with ``work``."""
    engine.load(work.model, work.config)
    return engine.run(work)


def heard(file: Path) -> list[dict[str, Any]]:
    """What stand-ins noted in ``file``."""
    return [json.loads(line) for line in file.read_text(encoding="utf-8").splitlines()] if file.exists() else []
