"""The shelf of loaded models: what stays within the budget, what goes first, what is told of it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from lcq.models import Device, DeviceKind, ErrorClass, ModelOffer
from worker.engines.base import Engine, EngineError, Work
from worker.engines.shelf import Shelf
from worker.settings import EngineSettings

MIB = 2**20


class SizedEngine(Engine):
    """Models that hold what ``sizes`` says, in MiB; it keeps a diary."""

    name = "sized"

    def __init__(self, sizes: Mapping[str, float], *, name: str = "sized", cache_mib: int = 0) -> None:
        super().__init__(EngineSettings())
        self.name = name
        self.sizes = dict(sizes)
        self.cache_mib = cache_mib
        self.diary: list[str] = []
        self.loaded: dict[str, float] = {}
        self.peak = 0.0

    def capabilities(self) -> Mapping[str, ModelOffer]:
        return dict.fromkeys(self.sizes, ModelOffer(kinds=(DeviceKind.CPU,)))

    def load(self, model: str, config: Mapping[str, Any]) -> int:
        if config.get("precision", "fp32") not in ("fp32", "fp16"):
            raise EngineError("config_invalid", "config.precision must be fp32 or fp16")
        if model not in self.loaded:
            self.diary.append(f"+{model}")
        self.loaded[model] = self.sizes[model] * (1.5 if config.get("precision") == "fp16" else 1)
        self.peak = max(self.peak, sum(self.loaded.values()))
        return round(self.loaded[model] * MIB)

    def run(self, work: Work) -> NDArray[Any]:
        raise NotImplementedError

    def unload(self, model: str) -> None:
        del self.loaded[model]
        self.diary.append(f"-{model}")

    def held_mib(self) -> int:
        return self.cache_mib


def a_shelf(*engines: Engine, memory_mib: int = 0) -> Shelf:
    return Shelf(engines, EngineSettings(memory_mib=memory_mib))


def test_models_stay_loaded_and_the_one_used_last_is_at_the_end() -> None:
    engine = SizedEngine({"a": 10, "b": 10})
    shelf = a_shelf(engine)
    for model in "aba":
        assert shelf.load(model, {}) is engine
    assert shelf.warm == ("b", "a")
    assert engine.diary == ["+a", "+b"]


def test_the_model_used_longest_ago_goes_before_one_that_would_not_fit() -> None:
    engine = SizedEngine({"a": 40, "b": 40, "c": 40})
    shelf = a_shelf(engine, memory_mib=100)
    for model in "abac":  # c is measured by its first load: until then nobody knows what it takes
        shelf.load(model, {})
    assert shelf.warm == ("a", "c")
    assert engine.diary == ["+a", "+b", "+c", "-b"]
    engine.peak = 0
    shelf.load("b", {})
    assert engine.diary[-2:] == ["-a", "+b"]
    assert engine.peak == 80
    assert shelf.warm == ("c", "b")


def test_a_model_that_grows_by_a_second_precision_makes_the_others_go_and_never_itself() -> None:
    engine = SizedEngine({"a": 60, "b": 30})
    shelf = a_shelf(engine, memory_mib=100)
    shelf.load("b", {})
    shelf.load("a", {})
    shelf.load("a", {"precision": "fp16"})
    assert shelf.warm == ("a",)
    engine.sizes["a"] = 200
    shelf.load("b", {})
    shelf.load("a", {})
    assert shelf.warm == ("a",)


def test_models_that_hold_nothing_are_not_sent_away_to_make_room() -> None:
    shelf = a_shelf(SizedEngine({"cv2": 0, "a": 90, "b": 90}), memory_mib=100)
    for model in ("cv2", "a", "b"):
        shelf.load(model, {})
    assert shelf.warm == ("cv2", "b")


def test_release_unloads_all_and_they_can_be_loaded_again() -> None:
    engine = SizedEngine({"a": 10, "b": 10})
    shelf = a_shelf(engine)
    shelf.load("a", {})
    shelf.load("b", {})
    shelf.release()
    assert shelf.warm == ()
    assert shelf.held_mib() == 0
    assert engine.loaded == {}
    shelf.load("a", {})
    assert shelf.warm == ("a",)


def test_a_load_that_fails_leaves_what_was_loaded() -> None:
    shelf = a_shelf(SizedEngine({"a": 10, "b": 10}))
    shelf.load("a", {})
    for model in "ab":
        with pytest.raises(EngineError, match="precision") as caught:
            shelf.load(model, {"precision": "fp7"})
        assert caught.value.error_class is ErrorClass.BAD_INPUT
    assert shelf.warm == ("a",)


def test_what_is_held_is_what_engines_tell_and_at_least_what_their_models_took() -> None:
    shelf = a_shelf(SizedEngine({"a": 10.5, "b": 1}), SizedEngine({"c": 5}, name="other", cache_mib=70))
    assert shelf.held_mib() == 70
    for model in "abc":
        shelf.load(model, {})
    assert shelf.held_mib() == 12 + 70


class OddEngine(SizedEngine):
    def __init__(self, offers: Any, reasons: Any) -> None:
        super().__init__({}, name="odd")
        self.offers, self.reasons = offers, reasons

    def capabilities(self) -> Mapping[str, ModelOffer]:
        if isinstance(self.offers, Exception):
            raise self.offers
        return self.offers  # type: ignore[no-any-return]

    def left_out(self) -> Mapping[str, str]:
        if isinstance(self.reasons, Exception):
            raise self.reasons
        return self.reasons  # type: ignore[no-any-return]


def test_offers_that_no_task_could_ask_for_are_left_out_with_the_reason() -> None:
    good = ModelOffer(kinds=(DeviceKind.CPU,))
    odd = OddEngine({"fine": good, "two words": good, 7: good, "text": "cpu"}, {"a": "no weights\nfound", "gone": "x"})
    shelf = a_shelf(SizedEngine({"a": 1}), odd)
    assert set(shelf.offers) == {"a", "fine"}
    assert shelf.left_out == {
        "'two words' of odd": "is no name that a task could ask for",
        "7 of odd": "is no name that a task could ask for",
        "text of odd": "is offered as 'cpu', which is no ModelOffer",
        "gone": "x",
    }


def test_an_engine_that_breaks_when_asked_what_it_has_takes_no_other_with_it() -> None:
    broken = OddEngine(RuntimeError("no driver"), RuntimeError("nor words"))
    shelf = a_shelf(broken, SizedEngine({"a": 1}))
    assert set(shelf.offers) == {"a"}
    assert shelf.left_out == {"odd": "engine odd cannot say what it offers: RuntimeError: no driver"}


def test_nothing_is_offered_on_a_device_of_another_kind() -> None:
    gpu = EngineSettings(device=Device(id="GPU-1", kind=DeviceKind.GPU))
    shelf = Shelf((SizedEngine({"a": 1}),), gpu)
    assert shelf.offers == {}
    assert shelf.left_out == {}
    assert shelf.engine_of("a") is None
    with pytest.raises(KeyError):
        shelf.load("a", {})


@given(
    sizes=st.dictionaries(st.sampled_from("abcdef"), st.integers(0, 60), min_size=1),
    uses=st.lists(st.sampled_from("abcdef"), max_size=30),
    budget=st.integers(1, 120),
)
def test_after_every_load_the_budget_holds_or_the_model_is_alone(
    sizes: dict[str, int], uses: list[str], budget: int
) -> None:
    engine = SizedEngine(sizes)
    shelf = a_shelf(engine, memory_mib=budget)
    met: set[str] = set()
    for model in uses:
        if model not in sizes:
            continue
        engine.peak = 0
        shelf.load(model, {})
        assert shelf.warm[-1] == model
        assert set(shelf.warm) == set(engine.loaded)
        assert shelf.held_mib() <= max(budget, sizes[model])
        if model in met:  # measured before: room was made first
            assert engine.peak <= max(budget, sizes[model])
        met.add(model)


class PeakEngine(SizedEngine):
    """One that can tell what it held of its GPU."""

    def begin_peak(self) -> None:
        self.peak = 0.0

    def peak_mib(self) -> int:
        return int(self.peak)


@pytest.mark.parametrize(("kind", "told"), [(DeviceKind.GPU, 700), (DeviceKind.CPU, 0)])
def test_the_peak_of_a_gpu_is_that_of_the_engines_that_can_tell_since_the_attempt_began(
    kind: DeviceKind, told: int
) -> None:
    first, silent = PeakEngine({"a": 1}), SizedEngine({"b": 1}, name="silent")
    shelf = Shelf((first, silent), EngineSettings(device=Device(id="d", kind=kind)))
    first.peak = 9000.0
    shelf.begin_peak()
    assert shelf.peak_mib() == 0
    first.peak = 700.0
    assert shelf.peak_mib() == told
