"""What an engine is: the protocol between a runner and the code that inpaints."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from lcq.models import DeviceKind

Progress = Callable[[float, str], None]
"""Told how far the work is: a fraction 0..1 and the name of the stage."""


@dataclass(frozen=True)
class Picture:
    """What an engine works on.

    ``pixels``: (height, width) or (height, width, 3 RGB), uint8 or uint16. ``mask``: (height, width) bool,
    True where pixels are to be replaced. Alpha never reaches an engine.
    """

    pixels: NDArray[Any]
    mask: NDArray[np.bool_]


class EngineError(Exception):
    """An engine cannot do this work; ``code`` is from the closed list, ``bad_input`` says whose fault it is."""

    def __init__(self, code: str, message: str, *, bad_input: bool = True) -> None:
        super().__init__(message)
        self.code = code
        self.bad_input = bad_input


class Engine(Protocol):
    """One engine in one runner. Never used by two tasks at a time."""

    name: str

    def models(self) -> Mapping[str, tuple[DeviceKind, ...]]:
        """The models this engine can run, and on what kind of device. Cheap: must not load anything."""

    def load(self, model: str, device: str) -> None:
        """Make ``model`` ready on ``device`` (``cpu`` or a GPU's UUID). Loading twice costs nothing."""

    def run(self, picture: Picture, model: str, config: Mapping[str, Any], progress: Progress) -> NDArray[Any]:
        """Give back pixels of the same shape and type, changed only where the mask is True.

        Raises:
            EngineError: the configuration or the picture is not one this model can use.
        """

    def unload(self) -> None:
        """Free what ``load`` took."""
