"""The OpenCV engine: equal to the whole-picture run, exact outside the holes, clear about what it refuses."""

from __future__ import annotations

from typing import Any

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from lcq.models import DeviceKind, ErrorClass, TaskType
from worker.engines.base import Engine, EngineError, Picture, Work
from worker.engines.holes import boxes_of_holes
from worker.engines.opencv import OpenCvEngine
from worker.settings import EngineSettings

ENGINE = OpenCvEngine(EngineSettings())
FLAGS = {"cv2-telea": cv2.INPAINT_TELEA, "cv2-ns": cv2.INPAINT_NS}
MODELS = sorted(FLAGS)


def silent(fraction: float, stage: str) -> None:
    assert 0 <= fraction <= 1
    assert stage == "inpaint"


def run(pixels: NDArray[Any], mask: NDArray[np.bool_], model: str, **config: Any) -> NDArray[Any]:
    return ENGINE.run(Work(TaskType.INPAINT, model, Picture(pixels, mask), config, silent))


def scene(seed: int, height: int, width: int, kind: str) -> tuple[NDArray[Any], NDArray[np.bool_]]:
    """A noisy picture and a mask of a few rectangles and specks, some at the edges."""
    rng = np.random.default_rng(seed)
    dtype = np.uint16 if "16" in kind else np.uint8
    shape = (height, width, 3) if "rgb" in kind else (height, width)
    mask = rng.random((height, width)) < rng.choice([0, 0.005, 0.02])
    for _ in range(rng.integers(0, 5)):
        top, left = rng.integers(0, height), rng.integers(0, width)
        mask[top : top + rng.integers(1, 15), left : left + rng.integers(1, 15)] = True
    mask[height // 2, width // 2] = False
    return rng.integers(0, np.iinfo(dtype).max, shape, dtype=dtype, endpoint=True), mask


@settings(max_examples=120, deadline=None)
@given(
    seed=st.integers(0, 2**32 - 1),
    height=st.integers(3, 200),
    width=st.integers(3, 200),
    kind=st.sampled_from(["grey", "rgb", "grey16"]),
    model=st.sampled_from(MODELS),
    radius=st.sampled_from([0.2, 1, 2.5, 3, 4, 5, 9, 20, 100]),
)
def test_working_on_the_holes_only_gives_what_the_whole_picture_gives(
    seed: int, height: int, width: int, kind: str, model: str, radius: float
) -> None:
    pixels, mask = scene(seed, height, width, kind)
    before = pixels.copy()
    whole = cv2.inpaint(pixels, mask.astype(np.uint8), radius, FLAGS[model])
    result = run(pixels, mask, model, radius=radius)
    assert (result == whole).all()
    assert (pixels == before).all()


@settings(max_examples=80, deadline=None)
@given(
    seed=st.integers(0, 2**32 - 1),
    height=st.integers(1, 60),
    width=st.integers(1, 60),
    kind=st.sampled_from(["grey", "rgb", "grey16", "rgb16"]),
    model=st.sampled_from(MODELS),
)
def test_pixels_outside_the_mask_come_back_identical(seed: int, height: int, width: int, kind: str, model: str) -> None:
    pixels, mask = scene(seed, height, width, kind)
    result = run(pixels, mask, model)
    assert result.shape == pixels.shape
    assert result.dtype == pixels.dtype
    assert (result[~mask] == pixels[~mask]).all()


@pytest.mark.parametrize("model", MODELS)
@pytest.mark.parametrize("shape", [(1, 40), (40, 1), (2, 40), (40, 2), (1, 2)])
def test_a_hole_in_a_flat_picture_of_one_row_is_filled_with_its_colour(model: str, shape: tuple[int, int]) -> None:
    pixels = np.full((*shape, 3), 77, np.uint8)
    mask = np.zeros(shape, bool)
    mask.flat[0] = mask.flat[shape[0] * shape[1] // 2 + 1 :] = True
    mask.flat[1] = False
    pixels[mask] = 255
    assert np.abs(run(pixels, mask, model).astype(int) - 77).max() < 10  # Telea rounds as it marches


@pytest.mark.parametrize("model", MODELS)
@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
def test_a_blot_on_a_smooth_slope_disappears(model: str, dtype: Any) -> None:
    top = np.iinfo(dtype).max
    slope = np.linspace(0.2 * top, 0.6 * top, 90, dtype=dtype)
    clean = np.dstack([np.tile(slope, (60, 1))] * 3)
    mask = np.zeros((60, 90), bool)
    mask[25:31, 40:52] = True
    spoiled = clean.copy()
    spoiled[mask] = top
    error = np.abs(run(spoiled, mask, model).astype(float) - clean).max()
    assert error < 0.06 * top


def test_sixteen_bit_colour_is_the_same_as_its_channels() -> None:
    pixels, mask = scene(5, 50, 60, "rgb16")
    for model in MODELS:
        result = run(pixels, mask, model)
        for channel in range(3):
            assert (result[..., channel] == run(np.ascontiguousarray(pixels[..., channel]), mask, model)).all()


@pytest.mark.parametrize("model", MODELS)
def test_an_empty_mask_gives_the_input_back(model: str) -> None:
    pixels, _ = scene(1, 20, 30, "rgb")
    result = run(pixels, np.zeros((20, 30), bool), model)
    assert (result == pixels).all()
    assert result is not pixels


@pytest.mark.parametrize("model", MODELS)
def test_a_full_mask_is_refused_because_nothing_is_left_to_fill_from(model: str) -> None:
    pixels, _ = scene(1, 20, 30, "rgb")
    with pytest.raises(EngineError, match="covers the whole picture") as caught:
        run(pixels, np.ones((20, 30), bool), model)
    assert caught.value.code == "mask_full"
    assert caught.value.error_class == ErrorClass.BAD_INPUT


@pytest.mark.parametrize("radius", [0, -1, 101, "5", None, True, float("nan"), [5]])
def test_a_wrong_radius_is_refused_naming_the_key(radius: Any) -> None:
    pixels, mask = scene(1, 20, 30, "rgb")
    with pytest.raises(EngineError, match=r"config\.radius must be a number over 0 and up to 100") as caught:
        run(pixels, mask, "cv2-telea", radius=radius)
    assert caught.value.code == "config_invalid"


def test_the_default_radii_are_five_for_telea_and_four_for_navier_stokes() -> None:
    pixels, mask = scene(3, 60, 60, "rgb")
    mask[10:20, 10:20] = True
    assert (run(pixels, mask, "cv2-telea") == run(pixels, mask, "cv2-telea", radius=5)).all()
    assert (run(pixels, mask, "cv2-ns") == run(pixels, mask, "cv2-ns", radius=4)).all()
    assert not (run(pixels, mask, "cv2-telea") == run(pixels, mask, "cv2-telea", radius=9)).all()


def test_far_apart_holes_are_not_one_big_rectangle() -> None:
    mask = np.zeros((1000, 2000), bool)
    mask[10:20, 10:20] = mask[980:990, 1900:1980] = mask[12:15, 1500:1510] = True
    boxes = list(boxes_of_holes(mask, apart=9))
    assert [(b[0].start, b[0].stop, b[1].start, b[1].stop) for b in boxes] == [
        (1, 29, 1, 29),
        (1, 29, 1491, 1519),
        (971, 999, 1891, 1989),
    ]


@settings(max_examples=100, deadline=None)
@given(seed=st.integers(0, 2**32 - 1), apart=st.integers(1, 12))
def test_every_hole_lies_in_exactly_one_rectangle(seed: int, apart: int) -> None:
    _, mask = scene(seed, 80, 90, "grey")
    seen = np.zeros(mask.shape, int)
    for box in boxes_of_holes(mask, apart=apart):
        seen[box] += mask[box]
    assert (seen == mask).all()


def test_it_offers_its_models_on_the_cpu_only_and_holds_no_memory() -> None:
    engine: Engine = ENGINE
    assert {model: offer.kinds for model, offer in engine.capabilities().items()} == {
        "cv2-telea": (DeviceKind.CPU,),
        "cv2-ns": (DeviceKind.CPU,),
    }
    assert engine.load("cv2-ns", {}) == engine.held_mib() == 0
    engine.unload("cv2-ns")


def test_what_opencv_itself_refuses_is_the_engines_fault_in_one_line() -> None:
    pixels = np.zeros((8, 8, 4), np.uint8)
    mask = np.eye(8, dtype=bool)
    with pytest.raises(EngineError) as caught:
        run(pixels, mask, "cv2-telea")
    assert caught.value.code == "engine_error"
    assert caught.value.error_class == ErrorClass.CRASH
    assert "\n" not in str(caught.value)


def test_it_uses_one_thread() -> None:
    cv2.setNumThreads(2)
    OpenCvEngine(EngineSettings())
    assert cv2.getNumThreads() == 1
