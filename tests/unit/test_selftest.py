"""The self-test: what works on this device passes, what does not is named with what is wrong with it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from lcq.models import Device, DeviceKind, ModelOffer, TaskType
from worker.engines.base import Engine, EngineError, Work
from worker.engines.opencv import OpenCvEngine
from worker.engines.selftest import golden_picture, self_test
from worker.engines.shelf import Shelf
from worker.settings import EngineSettings

SETTINGS = EngineSettings()


class Faulty(Engine):
    """A model for each fault."""

    name = "faulty"
    faults = ("black", "nan", "outside", "raises", "no-weights", "no-memory", "none")

    def capabilities(self) -> Mapping[str, ModelOffer]:
        return dict.fromkeys(self.faults, ModelOffer(kinds=(DeviceKind.CPU,)))

    def load(self, model: str, config: Mapping[str, Any]) -> int:
        if model == "no-weights":
            raise EngineError("weights_missing", "there are no weights")
        return 0

    def run(self, work: Work) -> NDArray[Any]:
        pixels: NDArray[Any] = work.picture.pixels.copy()
        mask = work.picture.mask
        match work.model:
            case "black":
                pixels[mask] = 0
            case "nan":
                return np.where(mask[..., None], np.nan, pixels)
            case "outside":
                pixels += 1
            case "raises":
                raise RuntimeError("CUDA error: no kernel image is available for execution on the device\n")
            case "no-memory":
                raise MemoryError
            case "none":
                return None  # type: ignore[return-value]
        return pixels


def test_opencv_passes_and_is_warm_afterwards() -> None:
    shelf = Shelf((OpenCvEngine(SETTINGS),), SETTINGS)
    assert self_test(shelf, SETTINGS) == {}
    assert set(shelf.warm) == {"cv2-telea", "cv2-ns"}


def test_each_fault_is_told_and_no_model_takes_another_with_it() -> None:
    settings = EngineSettings(device=Device(id="cpu", kind=DeviceKind.CPU))
    shelf = Shelf((Faulty(settings), OpenCvEngine(settings)), settings)
    assert self_test(shelf, settings) == {
        model: f"{model} failed its self-test on cpu: {what}"
        for model, what in {
            "black": "filled 400 pixels with one colour (0, 0, 0), which nothing around them has",
            "nan": "gave 1,200 values that are no finite numbers",
            "outside": "changed 3,696 pixels outside the mask",
            "raises": "RuntimeError: CUDA error: no kernel image is available for execution on the device",
            "no-weights": "EngineError: there are no weights",
            "no-memory": "MemoryError",
            "none": "gave NoneType, which is no numpy array",
        }.items()
    }


class Costly(Faulty):
    self_test = False


def test_an_engine_that_says_so_is_passed_over() -> None:
    shelf = Shelf((Costly(SETTINGS),), SETTINGS)
    assert self_test(shelf, SETTINGS) == {}
    assert shelf.warm == ()


class Other(Engine):
    """Does one type of task, or does it wrong."""

    name = "other"

    def __init__(self, task_type: TaskType, *, wrong: bool) -> None:
        super().__init__(SETTINGS)
        self.task_type, self.wrong = task_type, wrong

    def capabilities(self) -> Mapping[str, ModelOffer]:
        return {"other": ModelOffer(kinds=(DeviceKind.CPU,), task_types=(self.task_type,))}

    def run(self, work: Work) -> NDArray[Any]:
        assert work.task_type is self.task_type
        assert not work.picture.mask.any()
        pixels = work.picture.pixels
        if self.wrong:
            return pixels[:-1]
        return pixels.repeat(2, 0).repeat(2, 1) if self.task_type is TaskType.UPSCALE else pixels[..., 0]


@pytest.mark.parametrize("task_type", [TaskType.UPSCALE, TaskType.SEGMENT])
def test_other_types_of_task_are_tested_as_what_they_are(task_type: TaskType) -> None:
    assert self_test(Shelf((Other(task_type, wrong=False),), SETTINGS), SETTINGS) == {}
    failed = self_test(Shelf((Other(task_type, wrong=True),), SETTINGS), SETTINGS)
    assert "gave (63, 64, 3) uint8 for (64, 64, 3) uint8" in failed["other"]


def test_what_only_does_tasks_of_its_own_kind_is_not_tested_with_a_guess() -> None:
    assert self_test(Shelf((Other(TaskType.PLUGIN, wrong=True),), SETTINGS), SETTINGS) == {}


def test_no_patch_of_one_colour_can_pass_for_the_golden_hole() -> None:
    picture = golden_picture(with_hole=True)
    shelf = Shelf((OneColour(SETTINGS),), SETTINGS)
    for value in [0, 128, 255, *picture.pixels[~picture.mask].reshape(-1, 3)[::97]]:
        OneColour.value = value
        assert "one colour" in self_test(shelf, SETTINGS)["one-colour"]


class OneColour(Engine):
    name = "one-colour"
    value: Any = 0

    def capabilities(self) -> Mapping[str, ModelOffer]:
        return {"one-colour": ModelOffer(kinds=(DeviceKind.CPU,))}

    def run(self, work: Work) -> NDArray[Any]:
        pixels: NDArray[Any] = work.picture.pixels.copy()
        pixels[work.picture.mask] = self.value
        return pixels
