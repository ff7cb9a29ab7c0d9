"""Which engines there are: what each offers, known without importing any; and how to make them.

An agent's parent process asks ``offered_models()``, which loads neither cv2 nor torch; a runner calls
``available_engines()``, which does.
"""

from __future__ import annotations

import os
import pkgutil
from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType

from lcq.models import DeviceKind
from worker.engines.base import Engine

DRILLS_VARIABLE = "LCQ_DRILLS"
"""Set to 1, it offers the drill models (worker/engines/testing.py)."""

OPENCV_MODELS: Mapping[str, tuple[DeviceKind, ...]] = MappingProxyType(
    {"cv2-telea": (DeviceKind.CPU,), "cv2-ns": (DeviceKind.CPU,)}
)
DRILL_MODELS: Mapping[str, tuple[DeviceKind, ...]] = MappingProxyType(
    {
        f"drill-{what}": (DeviceKind.CPU, DeviceKind.GPU)
        for what in ("noop", "sleep", "crash", "hang", "transient", "memory")
    }
)


@dataclass(frozen=True)
class Offer:
    """An engine that can be made: its models, and the class behind it as ``module:name``."""

    models: Mapping[str, tuple[DeviceKind, ...]]
    factory: str


def _offers() -> tuple[Offer, ...]:
    offers = [Offer(OPENCV_MODELS, "worker.engines.opencv:OpenCvEngine")]
    if os.environ.get(DRILLS_VARIABLE) == "1":
        offers.append(Offer(DRILL_MODELS, "worker.engines.testing:DrillEngine"))
    return tuple(offers)


def offered_models() -> dict[str, tuple[DeviceKind, ...]]:
    """Every model that a runner on this host can run, and on what kind of device."""
    return {model: kinds for offer in _offers() for model, kinds in offer.models.items()}


def available_engines() -> tuple[Engine, ...]:
    """One of each engine, made for this process. Imports what they need; loads no model."""
    return tuple(pkgutil.resolve_name(offer.factory)() for offer in _offers())
