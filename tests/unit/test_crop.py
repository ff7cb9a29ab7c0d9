"""The frame around a network: the parents' strategies as described, ours with less work, and never a stray pixel."""

from __future__ import annotations

import math
from typing import Any

import cv2
import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from worker.engines.base import Cancelled, EngineError, ErrorClass
from worker.engines.crop import Network, Tick, fill, shown_sizes
from worker.engines.framing import LONGEST, LONGEST_TIGHT, Framing
from worker.engines.windows import BUCKETS, Context, plan_windows

Pixels = NDArray[Any]


class Smear:
    """A network of numpy: what it answers depends on all that it is shown, as LaMa's does. Remembers what it saw."""

    def __init__(self, batch: int = 1) -> None:
        self.shown: list[tuple[int, int, int]] = []
        self.network = Network(self.predict, batch=lambda size: batch)

    def predict(self, pixels: Pixels, mask: NDArray[np.bool_], tick: Tick) -> NDArray[np.float32]:
        self.shown.append(mask.shape)
        tick(0.5)
        assert pixels.shape == (*mask.shape, 3)
        return np.stack([smeared(*pair) for pair in zip(pixels, mask, strict=True)])


def smeared(pixels: Pixels, mask: NDArray[np.bool_]) -> NDArray[np.float32]:
    """Values over and under 0..1 among them, so that clipping and wrapping are seen."""
    known = np.where(mask[..., None], 0, pixels / np.iinfo(pixels.dtype).max)
    blurred = cv2.blur(known, (9, 9), borderType=cv2.BORDER_REFLECT) * 1.7 - 0.2
    return (blurred + 0.1 * known.mean(axis=(0, 1)) + 0.01 * mask.mean()).astype(np.float32)


def filled(
    pixels: Pixels, mask: NDArray[np.bool_], smear: Smear | None = None, tight: bool = False, **config: Any
) -> tuple[Pixels, list[str]]:
    notes: list[str] = []
    framing = Framing.from_config(config)
    result = fill(
        pixels,
        mask,
        network=(smear or Smear()).network,
        framing=framing.tightened() if tight else framing,
        progress=lambda fraction, stage: None,
        notes=notes,
    )
    return result, notes


def photo(height: int, width: int, kind: str = "rgb", seed: int = 1) -> Pixels:
    rng = np.random.default_rng(seed)
    dtype = np.uint16 if "16" in kind else np.uint8
    shape = (height, width, 3) if "rgb" in kind else (height, width)
    noise = rng.integers(0, np.iinfo(dtype).max, shape, dtype=dtype, endpoint=True)
    return cv2.blur(noise, (3, 3)) if min(height, width) > 3 else noise


def holes(height: int, width: int, *boxes: tuple[int, int, int, int]) -> NDArray[np.bool_]:
    mask = np.zeros((height, width), bool)
    for top, bottom, left, right in boxes:
        mask[top:bottom, left:right] = True
    return mask


# ---------------------------------------------------------------- the parents' strategies, written down again


def parents_run(image: Pixels, mask: Pixels) -> Pixels:
    """Pad, run, cut, blend, in the order of their steps. ``mask`` has 0 to 255."""
    height, width = mask.shape
    sides = [max(16, math.ceil(side / 8) * 8) for side in (height, width)]
    more = ((0, sides[0] - height), (0, sides[1] - width))
    padded, padded_mask = np.pad(image, (*more, (0, 0)), "symmetric"), np.pad(mask, more, "symmetric")
    peak = np.iinfo(image.dtype).max
    answer = np.clip(smeared(padded, padded_mask > 0) * peak, 0, peak).astype(image.dtype)[:height, :width]
    share = mask[:, :, None] / 255
    return answer * share + image * (1 - share)


def parents_resize(image: Pixels, mask: Pixels, limit: int) -> Pixels:
    height, width = mask.shape
    if max(height, width) <= limit:
        return parents_run(image, mask).astype(image.dtype)
    ratio = limit / max(height, width)
    small = (math.floor(width * ratio + 0.5), math.floor(height * ratio + 0.5))
    result = parents_run(
        cv2.resize(image, small, interpolation=cv2.INTER_CUBIC), cv2.resize(mask, small, interpolation=cv2.INTER_CUBIC)
    )
    result = cv2.resize(result, (width, height), interpolation=cv2.INTER_CUBIC)
    result[mask < 127] = image[mask < 127]
    return np.trunc(result).astype(np.int32).astype(image.dtype)


def parents_crop(image: Pixels, mask: Pixels, trigger: int, margin: int) -> Pixels:
    height, width = mask.shape
    if max(height, width) <= trigger:
        return parents_run(image, mask).astype(image.dtype)
    crops = []
    for contour in cv2.findContours(mask, cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_SIMPLE)[0]:
        x, y, w, h = cv2.boundingRect(contour)
        sides = []
        for low, size, limit in ((x, w, width), (y, h, height)):
            centre, half = (low + low + size) // 2, (size + 2 * margin) // 2
            left, right = centre - half, centre + half
            clipped_left, clipped_right = max(left, 0), min(right, limit)
            if left < 0:
                clipped_right += -left
            if right > limit:
                clipped_left -= right - limit
            sides.append((max(clipped_left, 0), min(clipped_right, limit)))
        (left, right), (top, bottom) = sides
        crops.append((top, left, parents_run(image[top:bottom, left:right], mask[top:bottom, left:right])))
    result = image.astype(np.float64)
    for top, left, crop in crops:
        result[top : top + crop.shape[0], left : left + crop.shape[1]] = crop
    return result.astype(image.dtype)


SCENES = {
    "one hole": holes(211, 303, (60, 90, 100, 150)),
    "holes whose windows overlap": holes(211, 303, (60, 90, 100, 150), (80, 100, 170, 190), (20, 25, 90, 95)),
    "holes at the edges": holes(211, 303, (0, 9, 0, 21), (200, 211, 290, 303), (0, 4, 150, 157)),
    "a speck and a line": holes(211, 303, (100, 101, 100, 101), (150, 151, 0, 303)),
    "a ring around a hole": holes(211, 303, (40, 160, 60, 200)) ^ holes(211, 303, (60, 140, 80, 180))
    | holes(211, 303, (95, 105, 120, 130)),
}


@pytest.mark.parametrize("scene", SCENES)
@pytest.mark.parametrize("kind", ["rgb", "rgb16"])
def test_the_parents_strategies_give_what_their_description_says(scene: str, kind: str) -> None:
    pixels, mask = photo(211, 303, kind), SCENES[scene]
    grey = mask.astype(np.uint8) * 255
    original, _ = filled(pixels, mask, hd_strategy="Original")
    assert np.array_equal(original, parents_run(pixels, grey).astype(pixels.dtype))
    for limit in (97, 200, 302, 303, 1280):
        resized, _ = filled(pixels, mask, hd_strategy="Resize", hd_strategy_resize_limit=limit)
        assert np.array_equal(resized, parents_resize(pixels, grey, limit)), limit
    for trigger, margin in ((100, 16), (302, 37), (303, 8), (200, 128), (0, 1)):
        cropped, _ = filled(
            pixels,
            mask,
            hd_strategy="Crop",
            hd_strategy_crop_trigger_size=trigger,
            hd_strategy_crop_margin=margin,
        )
        assert np.array_equal(cropped, parents_crop(pixels, grey, trigger, margin)), (trigger, margin)


def test_the_parents_strategies_have_their_defaults() -> None:
    mask = holes(900, 1400, (100, 110, 200, 210))
    sizes = {name: shown_sizes(mask, Framing.from_config({"hd_strategy": name}), Smear().network) for name in NAMES}
    assert sizes["CROP"] == [(272, 272)]  # 10 pixels and 128 on each side, to a multiple of 8
    assert sizes["Resize"] == [(824, 1280)]
    assert sizes["original"] == [(904, 1400)]
    small = holes(700, 800, (100, 110, 200, 210))
    assert shown_sizes(small, Framing.from_config({"hd_strategy": "Crop"}), Smear().network) == [(704, 800)]
    assert shown_sizes(small, Framing.from_config({"hd_strategy": "Resize"}), Smear().network) == [(704, 800)]


NAMES = ("original", "Resize", "CROP")


def test_a_window_without_margin_is_never_narrower_than_its_hole() -> None:
    mask = holes(40, 50, (10, 13, 20, 21), (30, 31, 0, 50))
    result, _ = filled(
        photo(40, 50), mask, hd_strategy="Crop", hd_strategy_crop_trigger_size=0, hd_strategy_crop_margin=0
    )
    assert np.array_equal((result != photo(40, 50)).any(axis=2), mask)


def test_windows_that_are_equal_are_shown_once() -> None:
    smear = Smear()
    mask = holes(30, 1000, (5, 6, 500, 501), (5, 6, 502, 503), (9, 10, 501, 502))
    filled(photo(30, 1000), mask, smear, hd_strategy="Crop", hd_strategy_crop_margin=1000)
    assert len(smear.shown) == 1


# ---------------------------------------------------------------- the promise


STRATEGIES = ("auto", "original", "resize", "crop")


@settings(max_examples=150, deadline=None)
@given(
    seed=st.integers(0, 2**32 - 1),
    height=st.integers(1, 300),
    width=st.integers(1, 300),
    kind=st.sampled_from(["rgb", "rgb16", "grey", "grey16"]),
    strategy=st.sampled_from(STRATEGIES),
    numbers=st.tuples(st.integers(0, 400), st.integers(0, 90) | st.none(), st.integers(16, 400) | st.none()),
    tight=st.booleans(),
    batch=st.integers(1, 4),
)
@example(1, 1, 2, "rgb", "resize", (0, 0, 16), False, 1)
@example(1, 2, 300, "rgb", "resize", (0, 0, 16), False, 1)
@example(1, 1, 300, "grey16", "auto", (0, 0, 16), True, 1)
def test_nothing_outside_the_mask_is_ever_changed_and_every_hole_is_filled(
    seed: int,
    height: int,
    width: int,
    kind: str,
    strategy: str,
    numbers: tuple[int, int | None, int | None],
    tight: bool,
    batch: int,
) -> None:
    pixels = photo(height, width, kind, seed)
    mask = random_mask(seed, height, width)
    before = pixels.copy()
    config = {"strategy": strategy}
    for key, number in zip(("crop_trigger_size", "crop_margin", "resize_limit"), numbers, strict=True):
        config[f"hd_strategy_{key}"] = number
    smear = Smear(batch)
    marker = Marker(batch)
    for source in (smear, marker):
        result, _ = filled(pixels, mask, source, tight=tight, **config)
        assert result.dtype == pixels.dtype
        assert result.shape == pixels.shape
        assert np.array_equal(result[~mask], before[~mask])
        assert np.array_equal(pixels, before)
        assert all(side % 8 == 0 and side >= 16 for shown in source.shown for side in shown[1:])
    if strategy != "resize":
        assert (result[mask] == np.iinfo(pixels.dtype).max).all()


class Marker(Smear):
    """A network that paints all white."""

    def predict(self, pixels: Pixels, mask: NDArray[np.bool_], tick: Tick) -> NDArray[np.float32]:
        self.shown.append(mask.shape)
        return np.ones(pixels.shape, np.float32)


def random_mask(seed: int, height: int, width: int) -> NDArray[np.bool_]:
    """Rectangles, specks and a line; at least one pixel is a hole, and one is none (of a picture of two)."""
    rng = np.random.default_rng(seed)
    mask = rng.random((height, width)) < rng.choice([0, 0.001, 0.02])
    for _ in range(rng.integers(0, 5)):
        top, left = rng.integers(0, height), rng.integers(0, width)
        mask[top : top + rng.integers(1, 80), left : left + rng.integers(1, 80)] = True
    if rng.random() < 0.3:
        mask[:, rng.integers(0, width)] = True
    mask[height // 2, width // 2] = True
    if mask.size > 1:
        mask[0, 0] = False
    else:
        mask[:] = False
    return mask


# ---------------------------------------------------------------- auto


def windows_of(mask: NDArray[np.bool_], **context: Any) -> list[tuple[int, int]]:
    plan = plan_windows(mask, Context(**{"longest": LONGEST, **context}))
    return sorted((window.box.height, window.box.width) for window in plan.windows)


def test_auto_shows_a_hole_with_real_surroundings_in_a_bucket() -> None:
    assert windows_of(holes(3000, 4000, (1000, 1128, 2000, 2128))) == [(384, 384)]
    assert windows_of(holes(3000, 4000, (1000, 1010, 2000, 2010))) == [(256, 256)]
    assert windows_of(holes(3000, 4000, (1000, 1512, 2000, 2512))) == [(768, 768)]
    assert windows_of(holes(3000, 4000, (1000, 1700, 2000, 2700))) == [(1280, 1280)]


def test_auto_moves_a_window_at_the_edge_inwards_and_pads_only_where_the_picture_ends() -> None:
    plan = plan_windows(holes(3000, 4000, (0, 5, 3990, 4000)), Context(LONGEST))
    assert plan.windows[0].box.slices == (slice(0, 256), slice(3744, 4000))
    smear = Smear()
    filled(photo(100, 300), holes(100, 300, (40, 50, 100, 110)), smear)
    assert smear.shown == [(1, 104, 256)]


def test_auto_merges_what_is_cheaper_together_and_keeps_apart_what_is_not() -> None:
    letters = holes(3000, 4000, *((1000, 1040, left, left + 20) for left in range(1000, 1600, 60)))
    assert windows_of(letters) == [(256, 768)]
    corners = holes(3000, 4000, (10, 20, 10, 20), (2980, 2990, 3980, 3990))
    assert windows_of(corners) == [(256, 256), (256, 256)]


def test_auto_never_shows_more_than_windows_of_their_own_would_be() -> None:
    rng = np.random.default_rng(7)
    for _ in range(20):
        boxes = [(top, top + 12, left, left + 12) for top, left in rng.integers(0, 1400, (12, 2)).tolist()]
        together = sum(height * width for height, width in windows_of(holes(1500, 1500, *boxes)))
        apart = sum(height * width for box in boxes for height, width in windows_of(holes(1500, 1500, box)))
        assert together <= apart


def test_auto_fills_a_wire_across_the_picture_piece_by_piece() -> None:
    wire = np.zeros((3000, 4000), np.uint8)
    cv2.line(wire, (0, 0), (3999, 2999), 1, 8)
    windows = windows_of(wire > 0)
    assert sum(height * width for height, width in windows) < 0.5 * wire.size
    assert max(max(window) for window in windows) <= BUCKETS[-1]


def test_auto_keeps_a_solid_hole_in_one_window() -> None:
    assert windows_of(holes(3000, 4000, (500, 2500, 500, 3000))) == [(3000, 3840)]


def test_auto_fills_each_hole_from_one_window_only() -> None:
    for seed in range(30):
        mask = random_mask(seed, 700, 900)
        plan = plan_windows(mask, Context(LONGEST))
        times = np.zeros(mask.shape, int)
        for window in plan.windows:
            assert window.box.around(window.holes) == window.box
            times[window.holes.slices] += plan.own(window, mask)
        assert np.array_equal(times, mask)


def test_a_mask_of_ten_thousand_specks_is_planned_in_few_windows() -> None:
    specks = np.random.default_rng(3).random((3000, 4000)) < 1e-3
    assert 0 < len(plan_windows(specks, Context(LONGEST)).windows) < 512


def test_auto_scales_down_only_what_is_longer_than_the_limit_and_says_so() -> None:
    pixels, mask = photo(700, 900), holes(700, 900, (200, 500, 300, 600), (10, 15, 10, 15))
    smear = Smear()
    _, notes = filled(pixels, mask, smear, hd_strategy_resize_limit=256)
    assert sorted(smear.shown) == [(1, 240, 256), (1, 256, 256)]
    said = "1 of 2 windows were filled at less than full size, the largest at 33%: a window is shown with at most 256 "
    assert notes == [f"{said}pixels a side"]
    _, notes = filled(pixels, mask)
    assert notes == []


def test_with_less_memory_every_strategy_becomes_small_windows() -> None:
    mask = holes(1600, 2000, (200, 1200, 300, 1300))
    for strategy in STRATEGIES:
        smear = Smear()
        filled(photo(1600, 2000), mask, smear, tight=True, strategy=strategy)
        assert smear.shown == [(1, LONGEST_TIGHT, LONGEST_TIGHT)]
    assert windows_of(holes(1600, 2000, (200, 328, 300, 428)), tight=True) == [(256, 256)]


def test_windows_of_one_size_are_shown_together_and_the_result_does_not_depend_on_it() -> None:
    mask = holes(1500, 1500, *((top, top + 9, left, left + 9) for top in (50, 750, 1440) for left in (50, 750, 1440)))
    pixels = photo(1500, 1500)
    one, four = Smear(), Smear(batch=4)
    assert np.array_equal(filled(pixels, mask, one)[0], filled(pixels, mask, four)[0])
    assert one.shown == [(1, 256, 256)] * 9
    assert four.shown == [(4, 256, 256), (4, 256, 256), (1, 256, 256)]


def test_auto_gives_what_the_network_says_rounded_to_the_nearest() -> None:
    pixels, mask = photo(256, 256), holes(256, 256, (100, 120, 100, 120))
    result, _ = filled(pixels, mask)
    expected = np.rint(np.clip(smeared(pixels, mask) * 255, 0, 255))
    assert np.array_equal(result[mask], expected[mask])


@pytest.mark.parametrize("strategy", STRATEGIES)
def test_16_bits_stay_16_bits(strategy: str) -> None:
    pixels, mask = photo(64, 64, "rgb16"), holes(64, 64, (20, 40, 20, 40))
    result, _ = filled(pixels, mask, strategy=strategy, hd_strategy_resize_limit=64)
    assert len(np.unique(result[mask] & 0xFF)) > 100  # the low bytes are the network's, not made up from eight bits


@pytest.mark.parametrize("strategy", STRATEGIES)
def test_grey_is_shown_as_rgb_and_takes_the_mean(strategy: str) -> None:
    pixels, mask = photo(64, 64, "grey"), holes(64, 64, (20, 40, 20, 40))

    def three_answers(stack: Pixels, holes: NDArray[np.bool_], tick: Tick) -> NDArray[np.float32]:
        assert np.array_equal(stack[..., 0], stack[..., 2])
        return np.full(stack.shape, (0.1, 0.2, 0.6), np.float32)

    result = fill(
        pixels,
        mask,
        network=Network(three_answers),
        framing=Framing.from_config({"strategy": strategy}),
        progress=lambda fraction, stage: None,
        notes=[],
    )
    assert set(result[mask].tolist()) <= {76, 77}


# ---------------------------------------------------------------- progress, refusals


def test_progress_is_told_a_window_at_a_time_by_area() -> None:
    told: list[tuple[float, str]] = []
    mask = holes(1500, 1500, (50, 60, 50, 60), (1000, 1128, 1000, 1128))
    smear = Smear()
    fill(
        photo(1500, 1500),
        mask,
        network=smear.network,
        framing=Framing(),
        progress=lambda fraction, stage: told.append((round(fraction, 3), stage)),
        notes=[],
    )
    large = 384 * 384 / (256 * 256 + 384 * 384)  # it comes first: what may not fit into memory is found out early
    assert told == [
        (0.0, "inpaint 1 of 2"),
        (round(large / 2, 3), "inpaint 1 of 2"),
        (round(large, 3), "inpaint 2 of 2"),
        (round((1 + large) / 2, 3), "inpaint 2 of 2"),
    ]


@pytest.mark.parametrize("strategy", STRATEGIES)
def test_a_cancelled_task_is_left_at_once(strategy: str) -> None:
    def nobody_wants_it(fraction: float, stage: str) -> None:
        raise Cancelled

    smear = Smear()
    with pytest.raises(Cancelled):
        fill(
            photo(64, 64),
            holes(64, 64, (1, 9, 1, 9)),
            network=smear.network,
            framing=Framing.from_config({"strategy": strategy}),
            progress=nobody_wants_it,
            notes=[],
        )
    assert smear.shown == []


@pytest.mark.parametrize("strategy", STRATEGIES)
def test_an_empty_mask_gives_the_picture_back_and_shows_the_network_nothing(strategy: str) -> None:
    smear = Smear()
    mask = np.zeros((50, 60), bool)
    result, notes = filled(photo(50, 60), mask, smear, strategy=strategy)
    assert np.array_equal(result, photo(50, 60))
    assert (smear.shown, notes) == ([], [])
    assert shown_sizes(mask, Framing.from_config({"strategy": strategy}), smear.network) == []


@pytest.mark.parametrize("strategy", STRATEGIES)
@pytest.mark.parametrize("size", [(1, 1), (50, 60)])
def test_a_mask_over_everything_is_refused(strategy: str, size: tuple[int, int]) -> None:
    with pytest.raises(EngineError, match="the mask covers the whole picture") as refusal:
        filled(photo(*size), np.ones(size, bool), strategy=strategy)
    assert (refusal.value.code, refusal.value.error_class) == ("mask_full", ErrorClass.BAD_INPUT)


@pytest.mark.parametrize("strategy", STRATEGIES)
@pytest.mark.parametrize("shape", [(1, 10000), (10000, 1), (1, 2), (3, 5)])
def test_slivers_are_filled(strategy: str, shape: tuple[int, int]) -> None:
    mask = np.zeros(shape, bool)
    mask[-1, -1] = True
    result, _ = filled(photo(*shape), mask, Marker(), strategy=strategy)
    if strategy != "resize":  # which loses a single pixel of 10,000 scaled to 1,280, as the parents' does
        assert (result[mask] == 255).all()
    assert np.array_equal(result[~mask], photo(*shape)[~mask])


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_an_answer_that_is_no_number_is_bad_output(value: float) -> None:
    def broken(pixels: Pixels, mask: NDArray[np.bool_], tick: Tick) -> NDArray[np.float32]:
        return np.full(pixels.shape, value, np.float32)

    with pytest.raises(EngineError, match="not numbers") as trouble:
        fill(
            photo(64, 64),
            holes(64, 64, (1, 9, 1, 9)),
            network=Network(broken),
            framing=Framing(),
            progress=lambda fraction, stage: None,
            notes=[],
        )
    assert trouble.value.error_class is ErrorClass.BAD_OUTPUT


@pytest.mark.parametrize(
    ("config", "says"),
    [
        ({"hd_strategy": "Krop"}, "config.hd_strategy must be one of auto, original, resize, crop; found 'Krop'"),
        ({"strategy": 3}, "config.strategy must be one of auto, original, resize, crop; found 3"),
        (
            {"hd_strategy": "Crop", "strategy": "auto"},
            "config.hd_strategy is 'Crop' and config.strategy is 'auto': say one",
        ),
        (
            {"hd_strategy_crop_margin": -1},
            "config.hd_strategy_crop_margin must be a whole number of pixels from 0 to 1,048,576 (IOPaint's default is",
        ),
        ({"hd_strategy_crop_margin": 12.5}, "config.hd_strategy_crop_margin must be"),
        ({"hd_strategy_crop_trigger_size": True}, "config.hd_strategy_crop_trigger_size must be"),
        ({"hd_strategy_crop_trigger_size": "800"}, "config.hd_strategy_crop_trigger_size must be"),
        ({"hd_strategy_resize_limit": 0}, "config.hd_strategy_resize_limit must be a whole number of pixels from 16"),
    ],
)
def test_a_wrong_wish_is_named_with_what_it_may_be(config: dict[str, Any], says: str) -> None:
    with pytest.raises(EngineError) as refusal:
        Framing.from_config(config)
    assert str(refusal.value).startswith(says)
    assert (refusal.value.code, refusal.value.error_class) == ("config_invalid", ErrorClass.BAD_INPUT)


@pytest.mark.parametrize("name", ["Crop", "crop", "CROP"])
@pytest.mark.parametrize("key", ["hd_strategy", "strategy"])
def test_a_strategy_is_known_in_any_case_and_by_both_names(name: str, key: str) -> None:
    assert Framing.from_config({key: name}) == Framing.from_config({"hd_strategy": "Crop", "strategy": "crop"})
