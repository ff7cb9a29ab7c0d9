"""Readings of devices: what fits, what may be sent, and a driver that hangs."""

from __future__ import annotations

import asyncio
import math
import threading
from collections.abc import Collection, Mapping
from contextlib import suppress

import pytest

import worker.readings as readings_module
from lcq.models import Device, DeviceKind, DeviceReading
from tests.conftest import wait_until
from worker.readings import Readings, finite, host_telemetry, room_mib, sound

GPU = Device(id="GPU-1", kind=DeviceKind.GPU, vram_mib=8000)
CPU = Device(id="cpu", kind=DeviceKind.CPU, memory_mib=100_000_000)


@pytest.mark.parametrize(
    ("free", "foreign", "busy", "idle", "room"),
    [
        (7600, 0, [], 0, 8000),  # what our idle runner's context takes is ours
        (4600, 3000, [], 0, 5000),  # a foreign program came
        (5600, 0, [2000], 0, 5600),  # one slot was granted 2000, and uses 2400 of it
        (7600, 0, [2000], 0, 6000),  # … and does not use them yet
        (3600, 0, [2000], 0, 3600),  # … and uses more than it was granted
        (5600, 0, [], 2000, 8000),  # models in free slots give way
        (3600, 0, [2000], 2000, 5600),
        (100, 7900, [2000], 0, 0),
        (7000, None, [], 500, 7500),  # nobody tells whose it is: what is free, and what we can free
        (None, 1000, [2000], 0, 5000),
        (None, None, [], 0, None),
    ],
)
def test_room_is_all_but_what_others_and_busy_slots_take(
    free: int | None, foreign: int | None, busy: list[int], idle: int, room: int | None
):
    reading = DeviceReading(total_mib=8000, free_mib=free, foreign_mib=foreign)
    assert room_mib(reading, busy_mib=busy, idle_mib=idle) == room


def test_where_nothing_is_known_no_room_is_told():
    assert room_mib(DeviceReading(), busy_mib=[], idle_mib=0) is None


def test_numbers_that_cannot_be_sent_are_dropped_and_the_others_stay():
    odd = DeviceReading.model_construct(total_mib=8000, busy=math.nan, temperature_c=math.inf, power_w=60.5, warm=())
    assert sound(odd) == DeviceReading(total_mib=8000, power_w=60.5)
    assert finite({"a": 1.0, "b": math.nan, "c": -math.inf, "d": "text"}) == {"a": 1.0, "d": "text"}


def test_a_host_that_cannot_tell_its_load_tells_the_rest(monkeypatch: pytest.MonkeyPatch):
    def unobtainable() -> tuple[float, float, float]:
        raise OSError("load averages are unobtainable")

    monkeypatch.setattr("os.getloadavg", unobtainable)
    said = host_telemetry()
    assert "load_1m" not in said
    assert said["memory_available_mib"] > 0


async def test_the_cpu_tells_its_memory_and_is_not_watched():
    readings = Readings([CPU], read_gpus=lambda own: pytest.fail("nobody asked"), own_groups=set, on_read=lambda: None)
    await readings.watch()  # returns: there is nothing to watch
    reading = readings.of("cpu")
    assert reading.total_mib == CPU.memory_mib
    assert reading.free_mib is not None
    assert 0 < reading.free_mib < CPU.memory_mib
    assert readings.fault("cpu") == ""


class Driver:
    """Reads one GPU as a test wants it."""

    def __init__(self) -> None:
        self.reading = DeviceReading(total_mib=8000, free_mib=7000)
        self.goes_on = threading.Event()
        self.goes_on.set()
        self.owns: list[Collection[int]] = []

    def read(self, own: Collection[int]) -> Mapping[str, DeviceReading]:
        self.owns.append(own)
        self.goes_on.wait(60)
        return {"GPU-1": self.reading}


async def test_a_driver_that_hangs_holds_up_nobody_and_its_last_reading_stands_in(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(readings_module, "PERIOD_S", 0.02)
    monkeypatch.setattr(readings_module, "_PATIENCE_S", 0.1)
    driver = Driver()
    told = []
    readings = Readings([GPU, CPU], read_gpus=driver.read, own_groups=lambda: {7}, on_read=lambda: told.append(1))
    watch = asyncio.create_task(readings.watch())
    try:
        await wait_until(lambda: readings.of("GPU-1").free_mib == 7000)
        assert driver.owns[0] == {7}
        assert readings.fault("GPU-1") == ""
        driver.goes_on.clear()
        await wait_until(lambda: "has not answered" in readings.fault("GPU-1"))
        asked = len(driver.owns)
        seen = len(told)
        await wait_until(lambda: len(told) > seen + 2, what="more looks while it hangs")
        assert len(driver.owns) == asked, "no second thread goes into a driver that hangs"
        assert readings.of("GPU-1").free_mib == 7000
        assert "has not answered" in readings.of("GPU-1").fault
        assert readings.faults == {}, "a driver that does not answer says nothing of its GPUs"
        driver.goes_on.set()
        await wait_until(lambda: readings.fault("GPU-1") == "")
        driver.reading = DeviceReading(total_mib=8000, fault="fell off the bus")
        await wait_until(lambda: readings.faults == {"GPU-1": "fell off the bus"})
        assert readings.fault("GPU-1") == "fell off the bus"
    finally:
        driver.goes_on.set()
        watch.cancel()
        with suppress(asyncio.CancelledError):
            await watch


def test_before_the_first_reading_a_gpu_is_known_by_its_size_alone():
    readings = Readings([GPU], read_gpus=lambda own: {}, own_groups=set, on_read=lambda: None)
    assert readings.of("GPU-1") == DeviceReading(total_mib=8000)
