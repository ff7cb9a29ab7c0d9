"""The function's side of a call, in this process: what it takes, checks, tells, and says that it took."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from lcq.models import Device, DeviceKind, ModelOffer
from tests.unit.test_lying_functions import call_with, liar, picture, say
from worker.calls import Reply, parcel, read_reply, waking_call
from worker.engines.base import Engine, EngineSettings, Work
from worker.engines.picture_bytes import encode_picture
from worker.engines.shelf import Shelf
from worker.function import Function

LOADING_S, WORKING_S = 7.0, 2.0


class Slow(Engine):
    """Takes its time by the clock that it is given, and does to pictures what it is told."""

    name = "slow"

    def __init__(self, clock: list[float], do: Callable[[Work], NDArray[Any]]) -> None:
        super().__init__(EngineSettings(device=Device(id="cpu", kind=DeviceKind.CPU)))
        self.clock, self.do = clock, do
        self.loaded = 0

    def capabilities(self) -> Mapping[str, ModelOffer]:
        return {"cv2-telea": ModelOffer(kinds=(DeviceKind.CPU,))}

    def load(self, model: str, config: Mapping[str, Any]) -> int:
        if not self.loaded:
            self.clock[0] += LOADING_S
        self.loaded += 1
        return 1

    def run(self, work: Work) -> NDArray[Any]:
        self.clock[0] += WORKING_S
        return self.do(work)


def filled(work: Work) -> NDArray[Any]:
    pixels = work.picture.pixels.copy()
    pixels[work.picture.mask] = 1
    return pixels


def a_function(monkeypatch: pytest.MonkeyPatch, do: Callable[[Work], NDArray[Any]] = filled) -> tuple[Function, Slow]:
    clock = [100.0]

    def sleep(seconds: float) -> None:
        clock[0] += seconds

    monkeypatch.setattr("worker.function.time", SimpleNamespace(monotonic=lambda: clock[0], sleep=sleep))
    engine, one = Slow(clock, do), Function({})
    one._shelf = Shelf((engine,), engine.settings)
    return one, engine


def answered(one: Function, **call: Any) -> Reply:
    asked = call_with(**({"image": parcel(encode_picture(picture().pixels))} | call))
    return read_reply(one(asked.model_dump(mode="json"))[1], asked.key)


def trouble(one: Function, **call: Any) -> str:
    told = answered(one, **call).trouble
    assert told is not None
    return told.code


def test_a_start_and_the_work_are_paid_for_once_each(monkeypatch: pytest.MonkeyPatch) -> None:
    one, engine = a_function(monkeypatch)
    first, second = answered(one), answered(one)
    assert (first.seconds, first.instance.start_s, first.instance.load_s) == (WORKING_S, LOADING_S, LOADING_S)
    assert (first.billed_s, second.billed_s) == (LOADING_S + WORKING_S, WORKING_S)
    assert not second.instance.is_cold
    assert engine.loaded == 2  # asked twice: it is the engine that keeps what it has


def test_a_call_that_only_wakes_loads_and_stays_busy_and_does_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    one, engine = a_function(monkeypatch, lambda work: pytest.fail("it was to load its model, and no more"))
    call = waking_call("wake/1", "cv2-telea", hold_s=0.5, seconds_left=60)
    woken = read_reply(one(call.model_dump(mode="json"))[1], call.key)
    assert (engine.loaded, woken.instance.load_s, woken.seconds) == (1, LOADING_S, 0.5)


def test_one_call_is_done_at_a_time(monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[bool] = []

    def look(work: Work) -> NDArray[Any]:
        seen.append(one._lock.locked())
        return filled(work)

    one, _ = a_function(monkeypatch, look)
    answered(one)
    assert seen == [True]


def test_what_an_engine_changes_outside_the_holes_is_no_result(monkeypatch: pytest.MonkeyPatch) -> None:
    one, _ = a_function(monkeypatch, lambda work: work.picture.pixels + np.uint8(1))
    assert trouble(one) == "output_outside_mask"


def test_a_mask_of_another_size_is_told_before_anything_is_loaded(monkeypatch: pytest.MonkeyPatch) -> None:
    one, engine = a_function(monkeypatch)
    assert trouble(one, image=parcel(encode_picture(np.zeros((9, 9, 3), np.uint8)))) == "mask_size"
    assert engine.loaded == 0


def test_a_result_goes_into_an_answer_that_may_carry_it_and_into_no_other(monkeypatch: pytest.MonkeyPatch) -> None:
    one, _ = a_function(monkeypatch)
    result = answered(one).result
    assert result is not None
    assert answered(one, inline_most=result.size).result == result
    assert trouble(one, inline_most=result.size - 1) == "result_too_large"


@pytest.mark.parametrize("more", [b"", b"x"])
def test_only_the_bytes_that_were_announced_are_a_picture(monkeypatch: pytest.MonkeyPatch, more: bytes) -> None:
    one, engine = a_function(monkeypatch)
    asked, other = (encode_picture(np.full((12, 16, 3), grey, np.uint8)) for grey in (7, 8))
    assert len(asked) == len(other)
    with liar(lambda to, _: say(to, 200, other + more)) as url:
        announced = parcel(asked, url=f"{url}/image")
        assert trouble(one, image=announced) == "bytes_damaged"
    assert engine.loaded == 0


def test_the_address_that_a_result_went_to_is_a_right_and_is_not_said_back(monkeypatch: pytest.MonkeyPatch) -> None:
    one, _ = a_function(monkeypatch)
    with liar(lambda to, _: say(to, 200, b"")) as url:
        reply = answered(one, put_url=f"{url}/v1/once/secret-token?signature=secret-too")
    assert reply.result is not None
    assert reply.result.url.startswith(url)
    assert "secret" not in reply.model_dump_json()
