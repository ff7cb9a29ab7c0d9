"""The output check: catches what cannot be right, and leaves alone whatever may be."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from PIL import Image

from lcq.models import TaskType
from worker.engines.base import Picture, Work
from worker.engines.check import BadOutput, check_output
from worker.engines.opencv import OpenCvEngine
from worker.settings import EngineSettings

SAMPLES = Path(__file__).parents[2] / "sample-config"
OPENCV = OpenCvEngine(EngineSettings())
Pixels = NDArray[Any]


def noise(height: int = 60, width: int = 80, *, seed: int = 1, dtype: Any = np.uint8, grey: bool = False) -> Pixels:
    shape = (height, width) if grey else (height, width, 3)
    return np.random.default_rng(seed).integers(0, np.iinfo(dtype).max, shape, dtype=dtype, endpoint=True)


def hole(pixels: Pixels, rows: slice, columns: slice) -> NDArray[np.bool_]:
    mask = np.zeros(pixels.shape[:2], bool)
    mask[rows, columns] = True
    return mask


def filled(pixels: Pixels, mask: NDArray[np.bool_], value: Any) -> Pixels:
    after = pixels.copy()
    after[mask] = value
    return after


def problem(before: Pixels, mask: NDArray[np.bool_], after: Any, kind: TaskType = TaskType.INPAINT) -> str:
    """The code of what is wrong, "" where nothing is."""
    try:
        check_output(kind, Picture(before, mask), after)
    except BadOutput as bad:
        return bad.code
    return ""


# ---------------------------------------------------------------- shape, type, numbers, outside


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
@pytest.mark.parametrize("grey", [True, False])
def test_one_pixel_changed_by_one_outside_the_mask_is_found_anywhere(dtype: Any, grey: bool) -> None:
    before = noise(dtype=dtype, grey=grey)
    mask = hole(before, slice(20, 40), slice(30, 50))
    good = filled(before, mask, noise(seed=2, dtype=dtype, grey=grey)[mask])
    assert problem(before, mask, good) == ""
    for place in ((0, 0), (59, 79), (19, 30), (40, 49), (30, 29), (30, 50)):
        after = good.copy()
        after[(*place, ...) if grey else (*place, 1)] ^= 1
        with pytest.raises(BadOutput, match=r"^changed 1 pixels outside the mask$"):
            check_output(TaskType.INPAINT, Picture(before, mask), after)


def test_every_changed_pixel_of_a_large_picture_is_counted() -> None:
    before = noise(1500, 900)
    mask = hole(before, slice(700, 720), slice(100, 150))
    after = before ^ 255
    with pytest.raises(BadOutput, match=r"^changed 1,349,000 pixels outside the mask$"):
        check_output(TaskType.INPAINT, Picture(before, mask), after)


WRONG: dict[str, tuple[TaskType, Callable[[Pixels], Any]]] = {
    "no array": (TaskType.INPAINT, lambda p: p.tolist()),
    "nothing": (TaskType.INPAINT, lambda p: None),
    "a row less": (TaskType.INPAINT, lambda p: p[1:]),
    "turned": (TaskType.INPAINT, lambda p: p.transpose(1, 0, 2)),
    "grey": (TaskType.INPAINT, lambda p: p[..., 0]),
    "with alpha": (TaskType.INPAINT, lambda p: np.dstack((p, p[..., 0]))),
    "signed": (TaskType.INPAINT, lambda p: p.astype(np.int8)),
    "floats": (TaskType.INPAINT, lambda p: p.astype(np.float32)),
    "fewer pixels": (TaskType.UPSCALE, lambda p: p[::2, ::2]),
    "wider only": (TaskType.UPSCALE, lambda p: p[1:].repeat(2, 1)),
    "upscaled grey": (TaskType.UPSCALE, lambda p: p[..., 0].repeat(2, 0)),
    "upscaled floats": (TaskType.UPSCALE, lambda p: p.repeat(2, 0).astype(float)),
    "a colour mask": (TaskType.SEGMENT, lambda p: p),
    "a smaller mask": (TaskType.SEGMENT, lambda p: p[1:, :, 0]),
    "a mask of numbers": (TaskType.SEGMENT, lambda p: p[..., 0].astype(np.int64)),
    "two channels": (TaskType.PLUGIN, lambda p: p[..., :2]),
    "no pixels": (TaskType.PLUGIN, lambda p: p[:, :0]),
    "no picture": (TaskType.PLUGIN, lambda p: p.ravel()),
    "plugin's floats": (TaskType.PLUGIN, lambda p: p / 255),
    "deep colour": (TaskType.PLUGIN, lambda p: p.astype(np.uint16)),
}


@pytest.mark.parametrize("what", WRONG)
def test_another_shape_or_type_is_refused(what: str) -> None:
    kind, change = WRONG[what]
    before = noise()
    assert problem(before, np.zeros((60, 80), bool), change(before), kind) == "output_shape"


RIGHT: dict[str, tuple[TaskType, Callable[[Pixels], Any]]] = {
    "twice": (TaskType.UPSCALE, lambda p: p.repeat(2, 0).repeat(2, 1)),
    "as large": (TaskType.UPSCALE, lambda p: p),
    "a mask": (TaskType.SEGMENT, lambda p: p[..., 0] > 9),
    "a grey mask": (TaskType.SEGMENT, lambda p: p[..., 0]),
    "cropped": (TaskType.PLUGIN, lambda p: p[9:, 9:]),
    "cut out": (TaskType.PLUGIN, lambda p: np.dstack((p, p[..., 0]))),
    "deep grey": (TaskType.PLUGIN, lambda p: p[..., 0].astype(np.uint16)),
}


@pytest.mark.parametrize("what", RIGHT)
def test_what_another_type_of_task_may_give_is_let_through(what: str) -> None:
    kind, change = RIGHT[what]
    before = noise()
    assert problem(before, np.zeros((60, 80), bool), change(before), kind) == ""


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_values_that_are_no_numbers_are_counted(value: float) -> None:
    before = noise()
    after = before.astype(np.float32)
    after[3, 4:6, 1] = value
    with pytest.raises(BadOutput, match=r"^gave 2 values that are no finite numbers$") as caught:
        check_output(TaskType.INPAINT, Picture(before, np.zeros((60, 80), bool)), after)
    assert caught.value.code == "output_not_a_number"


# ---------------------------------------------------------------- one colour in a hole


@pytest.mark.parametrize("value", [0, 255, 128, (200, 30, 90)])
@pytest.mark.parametrize("place", [slice(20, 40), slice(0, 20), slice(40, 60)])
def test_one_colour_in_a_hole_in_a_lively_picture_is_caught(value: Any, place: slice) -> None:
    before = noise()
    mask = hole(before, place, slice(30, 50))
    assert problem(before, mask, filled(before, mask, value)) == "output_constant"


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
def test_it_is_caught_in_grey_and_in_deep_grey(dtype: Any) -> None:
    before = noise(dtype=dtype, grey=True)
    mask = hole(before, slice(20, 40), slice(30, 50))
    assert problem(before, mask, filled(before, mask, 0)) == "output_constant"


def test_one_black_window_among_good_ones_is_caught() -> None:
    before = noise(300, 300)
    first, second = hole(before, slice(10, 40), slice(10, 40)), hole(before, slice(200, 230), slice(200, 230))
    after = filled(filled(before, first, noise(300, 300, seed=2)[first]), second, 0)
    assert problem(before, first | second, after) == "output_constant"


def test_thin_strokes_and_scattered_specks_of_one_colour_are_caught_where_all_around_is_lively() -> None:
    before = noise(300, 400)
    text = np.zeros((300, 400), np.uint8)
    cv2.putText(text, "watermark", (20, 150), cv2.FONT_HERSHEY_SIMPLEX, 2, 255, 2)
    specks = np.zeros((300, 400), bool)
    specks[20::40, 20::40] = specks[21::40, 20::40] = True
    for mask in (text > 0, specks):
        assert problem(before, mask, filled(before, mask, 0)) == "output_constant"
        assert problem(before, mask, filled(before, mask, noise(300, 400, seed=2)[mask])) == ""


def test_a_black_hole_in_a_flat_sky_is_caught_and_a_sky_blue_one_is_not() -> None:
    sky = np.full((100, 100, 3), (90, 160, 230), np.uint8)
    mask = hole(sky, slice(30, 60), slice(30, 60))
    assert problem(sky, mask, filled(sky, mask, 0)) == "output_constant"
    assert problem(sky, mask, filled(sky, mask, (91, 160, 229))) == ""


def test_white_paper_between_printed_lines_may_be_white() -> None:
    page = np.full((200, 400), 255, np.uint8)
    for line in range(30, 200, 24):
        cv2.putText(page, "a page of printed text", (5, line), cv2.FONT_HERSHEY_SIMPLEX, 0.9, 0, 2)
    mask = hole(page, slice(80, 100), slice(100, 200))
    assert problem(page, mask, filled(page, mask, 255)) == ""


def test_a_white_sky_over_a_forest_may_go_on_on_its_own_side() -> None:
    before = noise(100, 100)
    before[:50] = 255
    mask = hole(before, slice(30, 50), slice(40, 60))
    assert problem(before, mask, filled(before, mask, 255)) == ""


def test_a_seam_between_two_flat_fields_may_be_their_mean() -> None:
    before = np.zeros((100, 200), np.uint8)
    before[50:] = 255
    mask = hole(before, slice(49, 51), slice(20, 180))
    assert problem(before, mask, filled(before, mask, 127)) == ""


def test_too_few_pixels_to_judge_by_are_let_through() -> None:
    before = noise()
    for height, width in ((1, 1), (7, 9)):
        mask = hole(before, slice(20, 20 + height), slice(30, 30 + width))
        assert problem(before, mask, filled(before, mask, 0)) == ""


def test_without_surroundings_nothing_is_said() -> None:
    before = noise()
    full = np.ones((60, 80), bool)
    assert problem(before, full, np.zeros_like(before)) == ""
    assert problem(before, ~full, before) == ""


# ---------------------------------------------------------------- false alarms: none


def pictures() -> dict[str, Pixels]:
    """The sample photos at half their size, and drawn pictures with all that is flat, striped or printed."""
    found = {}
    for path in sorted((SAMPLES / "photos").iterdir()):
        with Image.open(path) as photo:
            plain = photo if photo.mode == "L" else photo.convert("RGB")
            found[path.stem] = np.asarray(plain.resize((photo.width // 2, photo.height // 2)))
    cartoon = np.full((200, 300, 3), (10, 120, 200), np.uint8)
    cartoon[100:] = (240, 240, 10)
    cv2.circle(cartoon, (150, 100), 60, (0, 0, 0), -1)
    page = np.full((200, 300), 255, np.uint8)
    for line in range(20, 200, 18):
        cv2.putText(page, "the quick brown fox jumps", (5, line), cv2.FONT_HERSHEY_SIMPLEX, 0.6, 0, 1)
    slope = np.tile(np.linspace(0, 255, 300), (200, 1)).astype(np.uint8)
    board = ((np.indices((200, 300)) // 12).sum(0) % 2 * 255).astype(np.uint8)
    drawn = {"cartoon": cartoon, "page": page, "night": 255 - page, "slope": slope, "board": board}
    return found | drawn | {"deep": slope.astype(np.uint16) * 257, "flat": np.full((200, 300, 3), 128, np.uint8)}


PICTURES = pictures()


def a_mask(rng: np.random.Generator, height: int, width: int) -> NDArray[np.bool_]:
    """Rectangles, scratches, discs, a watermark, or specks."""
    drawn = np.zeros((height, width), np.uint8)

    def place() -> tuple[int, int]:
        return int(rng.integers(0, width)), int(rng.integers(0, height))

    match rng.integers(0, 5):
        case 0:
            for _ in range(3):
                (left, top), size = place(), int(rng.integers(3, 50))
                drawn[top : top + size, left : left + size] = 255
        case 1:
            cv2.putText(drawn, "(c) LCQ", place(), cv2.FONT_HERSHEY_SIMPLEX, 1.5, 255, int(rng.integers(1, 5)))
        case 2:
            for _ in range(5):
                cv2.line(drawn, place(), place(), 255, int(rng.integers(1, 6)))
        case 3:
            cv2.circle(drawn, place(), int(rng.integers(4, 60)), 255, -1)
        case _:
            drawn[rng.random((height, width)) < 0.01] = 255
    drawn[0, 0] = 0
    return drawn > 0


@settings(max_examples=80, deadline=None)
@given(
    name=st.sampled_from(sorted(PICTURES)),
    seed=st.integers(0, 2**32 - 1),
    model=st.sampled_from(["cv2-telea", "cv2-ns"]),
    radius=st.sampled_from([1, 4, 8]),
)
def test_no_honest_result_of_opencv_is_ever_refused(name: str, seed: int, model: str, radius: int) -> None:
    before = PICTURES[name]
    mask = a_mask(np.random.default_rng(seed), *before.shape[:2])
    picture = Picture(before, mask)
    work = Work(TaskType.INPAINT, model, picture, {"radius": radius}, lambda fraction, stage: None)
    check_output(TaskType.INPAINT, picture, OPENCV.run(work))
    lively = noise(*mask.shape, seed=seed % 99, dtype=before.dtype, grey=before.ndim == 2)
    check_output(TaskType.INPAINT, picture, filled(before, mask, lively[mask]))


@pytest.mark.parametrize("name", sorted(path.stem for path in (SAMPLES / "photos").iterdir()))
@pytest.mark.parametrize("value", [0, 255])
def test_a_dead_engine_is_caught_on_every_sample_photo(name: str, value: int) -> None:
    before = PICTURES[name]
    mask = hole(before, slice(60, 110), slice(60, 130))
    assert problem(before, mask, filled(before, mask, value)) == "output_constant"
