"""Devices go out of service when their readings are bad, and come back when they have shown that they work."""

from __future__ import annotations

import asyncio
import subprocess
import sys
from collections import Counter
from collections.abc import AsyncIterator, Collection, Mapping
from contextlib import suppress
from pathlib import Path

import pytest

import worker.readings as readings_module
from lcq.config import AgentConfig, BusyElsewhereConfig, HeatConfig, LimitsConfig
from lcq.hardware import Detected
from lcq.models import Device, DeviceKind, DeviceReading, ModelOffer, RestCode
from tests.conftest import wait_until
from worker.foreign_cpu import ForeignCpu
from worker.pool import RunnerPool
from worker.processes import RunnerRecords
from worker.protocol import Ready
from worker.rests import Rest
from worker.service import Service
from worker.slot import PoolSettings, Shown

A, B = (Device(id=f"GPU-{name}", kind=DeviceKind.GPU, vram_mib=8000) for name in "ab")
GOOD = DeviceReading(total_mib=8000, free_mib=8000, foreign_mib=0)
BAD = DeviceReading(total_mib=8000, fault="fell off the bus")
READY = Ready(offers={"lama": ModelOffer(kinds=(DeviceKind.GPU,))})


class Host:
    """Two GPUs, read as a test wants them, and what was told of them."""

    def __init__(self, folder: Path) -> None:
        self.next: list[DeviceReading] = []  # the coming readings of the first; the last one stays
        self.told: Counter[str] = Counter()
        self.looks = 0
        pool = RunnerPool(
            (),
            PoolSettings("boot", 300, LimitsConfig(), RunnerRecords(folder / "runners.json")),
            on_ended=lambda ended: pytest.fail("nothing runs here"),
            on_change=lambda state: None,
            on_shown=lambda shown: None,
        )
        self.service = Service(
            Detected((A, B), {}, {}),
            pool,
            config=AgentConfig(
                busy_elsewhere=BusyElsewhereConfig(gpu_percent=40, after_s=0, quiet_s=0), heat=HeatConfig(readings=1)
            ),
            is_tested=True,
            read_gpus=self.read,
            on_shown=lambda: self.told.update(["shown"]),
            on_offer=lambda: self.told.update(["offer"]),
            on_taking=lambda: self.told.update(["taking"]),
        )

    def read(self, own: Collection[int]) -> Mapping[str, DeviceReading]:
        self.looks += 1
        reading = self.next[0] if self.next else GOOD
        if len(self.next) > 1:
            self.next.pop(0)
        return {A.id: reading, B.id: GOOD}

    def show(self, device: Device) -> None:
        self.service.hear(Shown(f"{device.id}/0", device.id, READY, tested=True))


@pytest.fixture
async def host(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Host]:
    monkeypatch.setattr(readings_module, "PERIOD_S", 0.01)
    host = Host(tmp_path)
    host.show(A)
    host.show(B)
    host.service.take_up()
    watch = asyncio.create_task(host.service.watch())
    await wait_until(lambda: host.told["taking"] == 1, what="both in service")
    yield host
    watch.cancel()
    with suppress(asyncio.CancelledError):
        await watch


async def test_one_bad_reading_pauses_a_gpu_and_changes_nothing_in_the_offer(host: Host):
    host.next = [BAD, GOOD]
    await wait_until(lambda: host.told["taking"] == 3, what="out, and in again")
    assert host.service.takes(A.id)
    assert host.told["offer"] == 0


async def test_a_gpu_that_stays_bad_is_withdrawn_and_back_only_after_a_test(host: Host):
    host.next = [BAD]
    await wait_until(lambda: host.told["offer"] == 1)
    assert not host.service.offers(A.id)
    assert host.service.offers(B.id)
    assert host.service.capability is not None
    assert host.service.capability.left_out == {A.id: "fell off the bus"}
    assert host.service.readings()[A.id].fault == "fell off the bus"
    host.next = [GOOD]
    await wait_until(lambda: host.service.readings()[A.id].fault == "its runner is not ready yet")
    assert not host.service.offers(A.id)
    host.show(A)
    assert host.service.offers(A.id)
    assert host.service.takes(A.id)


async def test_a_fault_that_is_there_from_the_start_is_no_reason_to_wait(tmp_path: Path, monkeypatch):
    monkeypatch.setattr(readings_module, "PERIOD_S", 0.01)
    host = Host(tmp_path)
    host.next = [BAD]
    host.show(B)
    assert host.service.is_undecided
    watch = asyncio.create_task(host.service.watch())
    await wait_until(lambda: not host.service.is_undecided)
    watch.cancel()
    with suppress(asyncio.CancelledError):
        await watch
    host.service.take_up()
    assert host.service.offers(B.id)
    assert not host.service.offers(A.id)


@pytest.mark.parametrize(
    ("reading", "code"),
    [
        (GOOD.model_copy(update={"foreign_busy": 0.9}), RestCode.BUSY_ELSEWHERE),
        (GOOD.model_copy(update={"temperature_c": 95.0, "slows_down_c": 93}), RestCode.TOO_HOT),
    ],
)
async def test_a_gpu_that_rests_takes_nothing_stays_offered_and_says_why_until_it_works_again(
    host: Host, reading: DeviceReading, code: RestCode
):
    host.next = [reading]
    await wait_until(lambda: not host.service.takes(A.id))
    assert host.service.takes(B.id)
    assert host.service.offers(A.id)
    told = host.service.readings()[A.id]
    assert told.rest == code
    assert host.service.resting == {A.id: told.fault}
    assert host.service.why_all_rest == "", "the other one works"
    assert host.service.readings()[B.id].rest == ""
    host.next = [GOOD.model_copy(update={"foreign_busy": 0.0, "temperature_c": 40.0, "slows_down_c": 93})]
    await wait_until(lambda: host.service.takes(A.id))
    assert host.service.readings()[A.id].rest == host.service.readings()[A.id].fault == ""
    assert host.told["offer"] == 0, "what it can do has not changed"


async def test_what_the_whole_node_rests_for_is_told_once(host: Host):
    host.service.rest_all(Rest(RestCode.DISK_FULL, "the disk of /data is full"))
    assert not host.service.takes(A.id)
    assert not host.service.takes(B.id)
    assert host.service.why_all_rest == "the disk of /data is full"
    assert {one.rest for one in host.service.readings().values()} == {RestCode.DISK_FULL}
    host.service.rest_all(None)
    assert host.service.takes(A.id)


async def test_a_function_that_is_away_rests_alone_and_is_offered_with_one_slot_while_it_is_tried(host: Host):
    host.service.resize(A.id, 4)
    host.told.clear()

    def slots() -> dict[str, int]:
        assert host.service.capability is not None
        return {device.id: device.slots for device in host.service.capability.devices}

    host.service.keep(A.id, Rest(RestCode.ENDPOINT_AWAY, "nobody answers"), None)
    assert (host.service.takes(A.id), host.service.takes(B.id)) == (False, True)
    assert host.service.readings()[A.id].fault == "nobody answers"
    assert (host.told["taking"], host.told["offer"]) == (1, 0), "it stays offered: what waits for it has a reason"
    host.service.keep(A.id, None, 1)
    assert host.service.takes(A.id)
    assert slots() == {A.id: 1, B.id: 1}
    host.service.keep(A.id, None, None)
    assert slots() == {A.id: 4, B.id: 1}
    assert host.told["offer"] == 2


def test_what_programs_beside_ours_use_of_the_processors_is_what_is_left_of_all():
    clock = {"busy": 100.0, "own": 10.0}
    cpu = ForeignCpu(busy_s=lambda: clock["busy"], own_s=lambda: clock["own"], cores=4)
    assert cpu.share(0.0) is None
    clock.update(busy=130.0, own=20.0)
    assert cpu.share(10.0) == pytest.approx(0.5)
    assert cpu.share(10.0) is None
    clock.update(busy=140.0, own=30.0)
    assert cpu.share(20.0) == 0
    clock.update(busy=180.0, own=0.0)  # a process whose seconds nobody took over has ended
    assert cpu.share(30.0) == 1


def test_the_time_of_our_own_processes_is_ours_also_of_those_that_have_ended():
    cpu = ForeignCpu(busy_s=lambda: 0.0, cores=1)
    before = cpu._own_s()
    subprocess.run([sys.executable, "-S", "-c", "for _ in range(2_000_000): pass"], check=True)
    assert cpu._own_s() > before
