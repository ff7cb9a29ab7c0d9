"""The cost model is pure: predictions by the size of a picture, learned from what attempts took."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lcq.costs import (
    KEPT,
    KNOWN_MODELS,
    LAMA_CORE_S,
    ORDINARY_CORES,
    ORDINARY_MEGAPIXELS,
    SHIPPED,
    CostBook,
    CostKey,
    Curve,
    Observation,
    calibration,
    cores_of,
    cost_key,
    device_class,
    fitted,
    is_estimate,
    precision_of,
    predict,
    processed_megapixels,
    quantile,
    shipped_curve,
)
from lcq.models import Device, DeviceKind, ModelOffer, Task, TaskType
from lcq.routing import Fleet

CPU = Device(id="cpu", kind=DeviceKind.CPU, name="Some CPU @ 2.9GHz", cores=8, slots=4)
H200 = Device(id="GPU-1", kind=DeviceKind.GPU, name="NVIDIA H200", vram_mib=140_000)
PRIOR = Curve(fixed_s=0.2, s_per_megapixel=0.8)

megapixels = st.floats(0.01, 200)
seconds = st.floats(0.001, 10_000)


def task(model: str = "lama", **config: object) -> Task:
    return Task(task_type=TaskType.INPAINT, image_path="a.jpg", config={"model": model, **config})


# ---------------------------------------------------------------- predictions


@given(
    model=st.sampled_from([*KNOWN_MODELS, "house"]), device=st.sampled_from([CPU, H200]), one=megapixels, two=megapixels
)
def test_more_of_a_picture_is_never_predicted_to_be_cheaper(model, device, one, two):
    small, large = sorted((one, two))
    less, more = predict(model, device, small), predict(model, device, large)
    assert less.seconds_p50 <= more.seconds_p50
    assert less.seconds_p90 <= more.seconds_p90
    assert less.peak_mib <= more.peak_mib
    assert less.seconds_p50 <= less.seconds_p90


@pytest.mark.parametrize("model", KNOWN_MODELS)
def test_an_ordinary_picture_takes_what_is_shipped(model):
    assert cores_of(CPU) == ORDINARY_CORES
    for kind, shipped_s in KNOWN_MODELS[model].seconds.items():
        told = predict(model, H200 if kind is DeviceKind.GPU else CPU)
        assert told.seconds_p50 == pytest.approx(shipped_s)
        assert told.samples == 0


def test_the_cores_of_a_slot_share_what_a_network_takes_and_not_what_one_of_them_does():
    slots = [CPU.model_copy(update={"cores": cores, "slots": 1}) for cores in (1, 2, 16)]
    lama = [predict("lama", slot).seconds_p50 for slot in slots]
    assert lama[0] == pytest.approx(LAMA_CORE_S)
    assert lama[0] / lama[1] == pytest.approx(1.74, abs=0.01)
    assert lama[0] / lama[2] == pytest.approx(9.19, abs=0.01)
    assert predict("lama", slots[0], 0.25).seconds_p50 == pytest.approx(4.6, abs=0.1)
    assert len({predict("cv2-telea", slot).seconds_p50 for slot in slots}) == 1
    for slot in slots:
        key = cost_key("lama", slot, None)
        assert CostKey.parse(str(key)).cores == cores_of(slot)
        assert shipped_curve("lama", DeviceKind.CPU, cores=key.cores) == SHIPPED.curve("lama", slot)
    assert cost_key("lama", H200, None).cores == ORDINARY_CORES


def test_all_seconds_but_those_that_were_measured_are_estimates():
    measured = {(model, kind) for model in KNOWN_MODELS for kind in DeviceKind if not is_estimate(model, kind)}
    assert measured == {(name, DeviceKind.CPU) for name in ("cv2-telea", "cv2-ns", "lama", "anime-lama")}
    assert is_estimate("house", DeviceKind.CPU)
    assert is_estimate("lama~upscale", DeviceKind.CPU)
    assert predict("lama", H200).guessed
    assert not predict("cv2-ns", Device(id="cpu", kind=DeviceKind.CPU)).guessed


def test_what_was_learned_is_no_estimate_any_more():
    shipped = shipped_curve("lama", DeviceKind.GPU)
    assert shipped.guessed
    assert not fitted([Observation(1.0, 0.4)], shipped).guessed
    assert fitted([], shipped).guessed


def test_an_unknown_model_costs_what_its_engine_says():
    offer = ModelOffer(kinds=(DeviceKind.GPU,), seconds={DeviceKind.GPU: 7.0}, vram_mib=3500)
    told = predict("house", H200, offer=offer)
    assert (told.seconds_p50, told.peak_mib) == (pytest.approx(7.0), 3500)
    assert predict("house", H200).seconds_p50 == pytest.approx(1.0)


def test_a_model_that_is_not_loaded_costs_its_load_too():
    assert predict("lama", H200, warm=False).seconds_p50 == pytest.approx(predict("lama", H200).seconds_p50 + 2.0)


# ---------------------------------------------------------------- what is worked on


@pytest.mark.parametrize(
    ("config", "expected"),
    [
        ({"model": "cv2-telea"}, 24.0),
        ({"hd_strategy": "original"}, 24.0),
        ({"hd_strategy": "resize"}, 24.0 * (1280 / 6000) ** 2),
        ({"strategy": "resize", "hd_strategy_resize_limit": 3000}, 6.0),
        ({"hd_strategy": "crop"}, (1500 + 256) * (1000 + 256) / 1e6),
        ({"hd_strategy": "crop", "hd_strategy_crop_margin": 0}, 1.5),
        ({"hd_strategy": "crop", "hd_strategy_crop_trigger_size": 6000}, 24.0),
        ({"hd_strategy": "auto"}, 2048 * 2048 / 1e6),
        ({}, 2048 * 2048 / 1e6),
        ({"hd_strategy": "RESIZE", "hd_strategy_resize_limit": "no number"}, 24.0 * (1280 / 6000) ** 2),
    ],
)
def test_what_is_worked_on_goes_by_model_and_strategy(config, expected):
    assert processed_megapixels(task(**config), (6000, 4000)) == pytest.approx(expected)


@given(
    width=st.integers(1, 60_000), height=st.integers(1, 60_000), strategy=st.sampled_from(["auto", "crop", "resize"])
)
def test_never_more_than_the_picture_is_worked_on(width, height, strategy):
    assert 0 < processed_megapixels(task(strategy=strategy), (width, height)) <= width * height / 1e6


def test_of_an_unknown_size_an_ordinary_picture_is_taken():
    assert processed_megapixels(task(), None) == ORDINARY_MEGAPIXELS


# ---------------------------------------------------------------- keys


@pytest.mark.parametrize(
    ("device", "expected"),
    [
        (CPU, "cpu Some CPU 2.9GHz x2"),
        (Device(id="cpu", kind=DeviceKind.CPU), "cpu unnamed x1"),
        (H200, "gpu NVIDIA H200"),
        (Device(id="g", kind=DeviceKind.GPU, vram_mib=8000), "gpu 8000 MiB"),
        (Device(id="g", kind=DeviceKind.GPU, name="|:\n|", vram_mib=1), "gpu 1 MiB"),
        (Device(id="g", kind=DeviceKind.GPU, name="x" * 500), "gpu " + "x" * 48),
    ],
)
def test_devices_that_take_equally_long_have_one_class(device, expected):
    assert device_class(device) == expected


@given(st.text(max_size=200))
def test_a_key_is_read_as_it_was_written_whatever_a_device_is_called(name):
    key = CostKey("lama", "bf16", "lama", device_class(CPU.model_copy(update={"name": name})))
    assert CostKey.parse(str(key)) == key
    assert key.kind == "cpu"


def test_precisions_that_nobody_knows_are_one():
    asked = [None, "fp32", "bf16", "fp16", "int3", 5, ["fp32"]]
    assert [precision_of(task(precision=one)) for one in asked] == ["", "fp32", "bf16", "fp16", *["other"] * 3]


# ---------------------------------------------------------------- learning


observations = st.lists(
    st.builds(Observation, megapixels, seconds, st.integers(0, 100_000), st.booleans()), max_size=40
)


@given(seen=observations, one=megapixels, two=megapixels)
def test_what_was_learned_never_falls_with_size_either(seen, one, two):
    curve = fitted(seen, PRIOR)
    small, large = (curve.predict(size) for size in sorted((one, two)))
    assert 0 < small.seconds_p50 <= large.seconds_p50
    assert small.seconds_p50 < small.seconds_p90
    assert 0 <= small.peak_mib <= large.peak_mib


def test_nothing_seen_is_what_is_shipped():
    assert fitted([], PRIOR) == PRIOR


def test_a_line_is_found_whatever_was_thought_before():
    seen = [Observation(size, 0.5 + 2 * size, int(100 + 40 * size)) for size in range(1, 61)]
    told = fitted(seen, PRIOR).predict(10.0)
    assert told.seconds_p50 == pytest.approx(20.5, rel=0.05)
    assert told.samples == 60


def test_pictures_of_one_size_scale_what_was_thought_before():
    curve = fitted([Observation(4.0, 34.0)] * 60, PRIOR)
    assert curve.seconds(4.0) == pytest.approx(34.0, rel=0.25)
    assert curve.seconds(8.0) > 1.5 * curve.seconds(4.0)


@given(
    bad=st.lists(st.tuples(megapixels, seconds), max_size=12),
    fixed=st.floats(0.05, 2),
    slope=st.floats(0.05, 5),
    probe=st.floats(1, 40),
)
def test_a_quarter_of_nonsense_moves_a_prediction_by_less_than_half(bad, fixed, slope, probe):
    good = [Observation(1 + size, fixed + slope * (1 + size)) for size in range(36)]
    mixed = [*good[:18], *(Observation(*one) for one in bad), *good[18:]]
    told, true = fitted(mixed, PRIOR).seconds(probe), fixed + slope * probe
    assert true / 1.5 <= told <= true * 1.5


def test_one_first_attempt_that_stalled_is_not_believed_alone():
    stalled = fitted([Observation(1.0, 1000.0)], PRIOR).seconds(1.0)
    assert stalled < 50
    assert fitted([Observation(1.0, 1000.0), *[Observation(1.0, 1.0)] * 10], PRIOR).seconds(1.0) == pytest.approx(1.0)


@given(observations)
def test_only_the_newest_are_looked_at(seen):
    old = [Observation(1.0, 9000.0)] * 10
    newest = [Observation(2.0, 3.0), *seen]
    newest += [Observation(1.0, 1.0)] * (KEPT - len(newest))
    assert fitted(old + newest, PRIOR) == fitted(newest, PRIOR)


def test_the_time_to_load_a_model_is_learned_from_the_attempts_that_had_to():
    seen = [Observation(1.0, 1.0)] * 20 + [Observation(1.0, 9.0, warm=False)] * 3
    curve = fitted(seen, PRIOR)
    assert curve.load_s == pytest.approx(8.0)
    assert curve.seconds(1.0) == pytest.approx(1.0)


def test_nine_of_ten_stay_under_the_p90():
    took = [1.0 + 0.01 * (number * 37 % 90) for number in range(90)]
    curve = fitted([Observation(1.0, one) for one in took], PRIOR)
    assert sum(one <= curve.predict(1.0).seconds_p90 for one in took) / 90 == pytest.approx(0.9, abs=0.05)


# ---------------------------------------------------------------- the book


def test_a_class_that_was_never_seen_is_taken_for_the_one_in_the_middle_of_its_kind():
    def seen(name: str, took: float, samples: int) -> tuple[CostKey, Curve]:
        return CostKey("lama", "", "lama", f"gpu {name}"), Curve(took, 0.0, samples=samples)

    book = CostBook(dict([seen("slow", 9.0, 10), seen("middling", 3.0, 30), seen("fast", 1.0, 10)]))
    assert book.predict("lama", H200).seconds_p50 == 3.0
    assert book.predict("lama", CPU) == SHIPPED.predict("lama", CPU)
    offer = ModelOffer(kinds=(DeviceKind.GPU,), engine="lama")
    fast = Device(id="f", kind=DeviceKind.GPU, name="fast")
    assert book.predict("lama", fast, offer=offer).seconds_p50 == 1.0
    assert book.predict("lama", fast, offer=offer, precision="bf16").seconds_p50 == 1.0  # rather than what is shipped
    assert book.predict("mat", fast) == SHIPPED.predict("mat", fast)


def test_calibration_tells_how_far_off_predictions_were():
    key = CostKey("lama", "", "lama", "gpu x")
    seen = [Observation(1.0, took, 10, predicted_s=2.0, predicted_p90_s=4.0) for took in (1.0, 2.0, 3.0, 5.0)]
    told = calibration(key, [Observation(1.0, 99.0), *seen])
    assert (told.attempts, told.under_p90) == (4, 0.75)
    assert (told.predicted_p50_s, told.actual_p50_s) == (2.0, 2.5)
    assert (told.predicted_p90_s, told.actual_p90_s) == (4.0, pytest.approx(4.4))
    assert (told.error_p50, told.error_p90) == (0.5, pytest.approx(1.2))
    assert calibration(key, []).attempts == 0


def test_a_fleet_of_which_nothing_was_learned_has_the_shipped_costs():
    assert Fleet(queues=()).costs == SHIPPED


def test_a_quantile_lies_between_values():
    assert quantile([1, 2, 3, 4], 0.5) == 2.5
    assert quantile([5], 0.9) == 5
    assert quantile([], 0.9) == 0


def test_shipped_memory_grows_with_what_is_worked_on_beyond_an_ordinary_picture():
    curve = shipped_curve("lama", DeviceKind.GPU)
    assert [curve.predict(size).peak_mib for size in (0.1, 1.0, 11.0)] == [2000, 2000, 11_500]
