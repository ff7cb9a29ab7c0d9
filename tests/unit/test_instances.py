"""Which instances of a function are warm, by what they have answered."""

from __future__ import annotations

import pytest

from lcq.models import DeviceReading, ErrorClass, Failure, FunctionReading
from lcq.runner_config import FunctionConfig
from worker import instances
from worker.calls import Instance
from worker.endpoint_keeper import Standing
from worker.instances import Instances


def test_instances_are_warm_for_as_long_as_their_platform_keeps_them_and_cold_starts_are_counted(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    now = [1000.0]
    monkeypatch.setattr(instances, "steady_now", lambda: now[0])
    config = FunctionConfig(url="http://far", models={"lama": 4.0}, keeps_warm_s=60)
    standing = Standing()
    heard = Instances(
        {"burst": config}, in_flight=lambda device: 3, standing=lambda device: standing, shown_ms=lambda at: int(at) + 7
    )
    assert heard.of("cpu") is None
    assert heard.told_with("cpu", DeviceReading(busy=0.5)) == DeviceReading(busy=0.5)
    assert heard.of("burst") == FunctionReading(in_flight=3)
    heard.note("burst", Instance(id="a", is_cold=True, start_s=3.0, load_s=2.0))
    now[0] += 40
    heard.note("burst", Instance(id="b", is_cold=True, start_s=5.0, load_s=1.0))
    heard.note("burst", Instance(id="b"))
    heard.note("burst", Instance())  # an older function says nothing of itself
    heard.note("gone", Instance(id="c"))
    assert heard.of("burst") == FunctionReading(warm=2, cold=2, in_flight=3, start_s=5.0, load_s=1.0)
    now[0] += 30
    told = heard.told_with("burst", DeviceReading())
    assert told.function == FunctionReading(warm=1, cold=2, in_flight=3, start_s=5.0, load_s=1.0)
    heard.note("burst", Instance(id="a"))  # it was still there
    now[0] += 59
    assert heard.of("burst") == FunctionReading(warm=1, cold=2, in_flight=3, start_s=5.0, load_s=1.0)
    now[0] += 2
    assert heard.of("burst") == FunctionReading(cold=2, in_flight=3, start_s=5.0, load_s=1.0)
    standing = Standing(in_vain=3, until=now[0])
    assert (rests := heard.of("burst")) is not None
    assert (rests.in_vain, rests.rests_until_ms, rests.trials) == (3, int(now[0]) + 7, None)
    standing = Standing(in_vain=3, trials=0)
    assert (tried := heard.of("burst")) is not None
    assert (tried.rests_until_ms, tried.trials) == (None, 0)


def test_what_a_warm_up_failed_of_is_told_until_an_instance_answers() -> None:
    config = FunctionConfig(url="http://far", models={"lama": 4.0})
    heard = Instances(
        {"burst": config}, in_flight=lambda device: 0, standing=lambda device: Standing(), shown_ms=lambda at: 0
    )
    failed = Failure(error_class=ErrorClass.TRANSIENT, code="endpoint_refuses", message="it said 403 " * 99)

    def told() -> str:
        reading = heard.of("burst")
        assert reading is not None
        return reading.not_woken

    for heals in (lambda: heard.note("burst", Instance(id="a")), lambda: heard.woken("burst", None)):
        heard.woken("burst", failed)
        heard.woken("gone", failed)
        assert told().startswith("endpoint_refuses: it said 403")
        assert len(told()) == 300
        heals()
        assert told() == ""


def test_a_device_that_is_no_function_is_told_as_it_always_was() -> None:
    assert "function" not in DeviceReading(busy=0.5).model_dump(mode="json")
    told = DeviceReading(function=FunctionReading(warm=2)).model_dump_json()
    assert not any(name in told for name in ("in_vain", "rests_until_ms", "trials", "not_woken")), (
        "nor one that answers"
    )
    assert DeviceReading.model_validate_json(told).function == FunctionReading(warm=2)
