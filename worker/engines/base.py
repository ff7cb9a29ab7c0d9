"""What an engine is: the protocol between a runner and the code that inpaints. Plug-ins import only this file."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from lcq.models import DeviceKind, Ease, ErrorClass, ModelOffer, TaskType
from worker.calls import CallAddress
from worker.settings import EngineSettings

__all__ = [
    "Cancelled", "DeviceKind", "Ease", "Engine", "EngineError", "EngineSettings", "ErrorClass", "Estimate",
    "ModelOffer", "Picture", "Progress", "TaskType", "Work",
]  # fmt: skip

Progress = Callable[[float, str], None]
"""Told how far the work is: a fraction 0..1 and the name of the stage.

Call it between pieces of work (a crop, a step) and while waiting: it raises ``Cancelled`` once nobody wants
the result any more, and an engine that calls it never keeps its warm models only to be killed.
"""


class Cancelled(Exception):
    """Nobody wants this attempt any more. Engines let it pass."""


@dataclass(frozen=True)
class Picture:
    """What an engine works on.

    ``pixels``: (height, width) or (height, width, 3 RGB), uint8 or uint16. ``mask``: (height, width) bool,
    True where pixels are to be replaced; all False where the task has no mask. Alpha never reaches an engine.
    """

    pixels: NDArray[Any]
    mask: NDArray[np.bool_]


@dataclass(frozen=True)
class Estimate:
    """What a piece of work will take, told before it begins. 0: not known."""

    memory_mib: float = 0.0  # of the device, at its peak, above what the loaded model holds
    seconds: float = 0.0


@dataclass
class Work:
    """One attempt, as an engine sees it. ``notes`` is for the engine to add to: they end up in the result.

    ``config`` is the task's; ``eased`` what the cluster wants done with less memory than asked for, because
    earlier attempts ran out of it.
    """

    task_type: TaskType
    model: str
    picture: Picture
    config: Mapping[str, Any]
    progress: Progress
    eased: tuple[Ease, ...] = ()
    notes: list[str] = field(default_factory=list)
    key: str = ""
    """``TASK/ATTEMPT``: what somebody who might be asked twice may know this attempt by; "": nobody has said."""
    call: CallAddress | None = None
    """By which addresses are lent at the scheduler, for who calls somebody far away; None: none are."""
    cost: float | None = None
    """What it was paid for by, in the currency of the budget: for the engine to set as soon as it knows, for it counts
    also where ``run`` raises. None: nobody knows."""


class EngineError(Exception):
    """An engine cannot do this work: ``error_class`` says what kind of trouble it is, ``code`` names it; ``again_s``:
    what it works with wants to be left alone for so many seconds."""

    def __init__(
        self, code: str, message: str, *, error_class: ErrorClass = ErrorClass.BAD_INPUT, again_s: float = 0.0
    ) -> None:
        super().__init__(message)
        self.code = code
        self.error_class = error_class
        self.again_s = again_s


class Engine(Protocol):
    """One engine in one runner, made by calling its class with an ``EngineSettings``; bound to that device.

    Never used by two tasks at a time. An engine that says ``class Mine(Engine)`` inherits what is written
    here; ``name``, ``capabilities`` and ``run`` are its own.
    """

    name: str
    settings: EngineSettings
    self_test: bool = True
    """Whether each of its models inpaints a tiny picture before the node says hello; False where that costs
    too much, such as starting a server."""

    def __init__(self, settings: EngineSettings) -> None:
        self.settings = settings

    def capabilities(self) -> Mapping[str, ModelOffer]:
        """The models this engine can run on its device as things stand. Cheap: must not load anything."""
        raise NotImplementedError

    def left_out(self) -> Mapping[str, str]:
        """Models that it would have, and why it has not: no weights, a library that is not installed."""
        return {}

    def estimate(self, work: Work) -> Estimate:
        """What ``work`` will take. Cheap; the model need not be loaded."""
        return Estimate()

    def load(self, model: str, config: Mapping[str, Any]) -> int:
        """Make ``model`` ready as ``config`` wants it (``precision`` …). Loading twice costs nothing.

        Returns what it holds, in bytes of the device's memory, as measured.

        Raises:
            EngineError: there are no weights, or they are not what they should be.
        """
        return 0

    def run(self, work: Work) -> NDArray[Any]:
        """Do it; ``load`` has been called with the same model and config.

        Returns pixels as the task's type wants them. inpaint: same shape and type as the picture's, changed
        only where the mask is True. upscale: more pixels. segment: (height, width) bool or uint8. plugin: a
        picture of any size.

        Raises:
            EngineError: the configuration or the picture is not one this model can use; or memory ran out.
            MemoryError: it did.
            Cancelled: by way of ``progress``.
        """
        raise NotImplementedError

    def unload(self, model: str) -> None:
        """Free what ``load`` took for ``model``, in every form it was loaded in."""

    def held_mib(self) -> int:
        """Memory of the device that this engine's models and caches hold now."""
        return 0

    def begin_peak(self) -> None:
        """What ``peak_mib`` says is from now on."""

    def peak_mib(self) -> int:
        """The most of a GPU's memory that this process has held at a time for this engine; 0 where it cannot tell.

        What the cluster learns of it decides where the next tasks of the model fit.
        """
        return 0
