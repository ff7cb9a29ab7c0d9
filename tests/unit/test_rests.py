"""Devices rest while others use them or they are too hot, and work again by themselves; neither for a moment's sake."""

from __future__ import annotations

from dataclasses import dataclass, field

import pytest

from lcq.config import AgentConfig, BusyElsewhereConfig, DiskConfig, DistributedConfig, HeatConfig
from lcq.models import Device, DeviceKind, DeviceReading, RestCode
from lcq.reload import changes, with_live_keys
from worker.rests import Rest, Rests

GPU = Device(id="GPU-1", kind=DeviceKind.GPU, vram_mib=8000)
CPU = Device(id="cpu", kind=DeviceKind.CPU)
TERMS = BusyElsewhereConfig(gpu_percent=40, cpu_percent=50, after_s=10, quiet_s=30)


@dataclass
class Watch:
    """Rests, and a clock that a test moves. One reading a second."""

    now: float = 1000.0
    terms: BusyElsewhereConfig = TERMS
    heat: HeatConfig = field(default_factory=HeatConfig)
    at_work: bool = False
    device: Device = GPU

    def __post_init__(self) -> None:
        self.rests = Rests(AgentConfig(busy_elsewhere=self.terms, heat=self.heat), clock=lambda: self.now)

    def see(self, seconds: int = 1, **reading: object) -> RestCode | None:
        """Answers why it rests after so many equal readings."""
        for _ in range(seconds):
            self.now += 1
            self.rests.look(self.device, DeviceReading.model_validate(reading), is_at_work=self.at_work)
        rest = self.rests.of(self.device.id)
        return rest.code if rest else None


def test_a_gpu_that_others_use_for_long_rests_until_they_have_been_quiet_for_long():
    watch = Watch(at_work=True)  # our own attempt does not hide the others where each program is told
    assert watch.see(9, foreign_busy=0.9, busy=1.0) is None
    assert watch.see(1, foreign_busy=0.1) is None, "a moment of quiet: it was not for long"
    assert watch.see(10, foreign_busy=0.4) is None
    assert watch.see(1, foreign_busy=0.4) is RestCode.BUSY_ELSEWHERE
    why = watch.rests.of(GPU.id).why
    assert why == (
        "busy elsewhere: other programs use 40% of it, 40% or more for 10 s; "
        "it works again when they have used 20% or less for 30 s"
    )
    assert watch.see(100, foreign_busy=0.3) is RestCode.BUSY_ELSEWHERE, "under the threshold is not quiet yet"
    assert watch.see(29, foreign_busy=0.2) is RestCode.BUSY_ELSEWHERE
    assert watch.see(1, foreign_busy=0.21) is RestCode.BUSY_ELSEWHERE
    assert watch.see(30, foreign_busy=0.0) is RestCode.BUSY_ELSEWHERE
    assert watch.rests.of(GPU.id).why == why, "its text does not change, or each beat would be an event"
    assert watch.see(1, foreign_busy=0.0) is None
    assert watch.see(10, foreign_busy=0.9) is None, "and it takes as long again"


def test_it_is_off_unless_it_is_asked_for_and_ends_where_it_is_switched_off():
    watch = Watch(terms=BusyElsewhereConfig())
    assert watch.see(100, foreign_busy=1.0) is None
    watch.rests.follow(AgentConfig(busy_elsewhere=TERMS))
    assert watch.see(11, foreign_busy=1.0) is RestCode.BUSY_ELSEWHERE
    watch.rests.follow(AgentConfig())
    assert watch.see(1, foreign_busy=1.0) is None


def test_where_programs_cannot_be_told_apart_all_use_counts_once_nothing_of_ours_has_run_for_a_moment():
    watch = Watch(at_work=True)
    assert watch.see(100, busy=1.0) is None, "it may be ours"
    watch.at_work = False
    assert watch.see(1, busy=1.0) is None, "so may what was measured just now"
    assert watch.see(10, busy=1.0) is None
    assert watch.see(2, busy=1.0) is RestCode.BUSY_ELSEWHERE
    assert watch.see(31, busy=0.0) is None


def test_short_pauses_between_our_own_attempts_are_no_foreign_use():
    watch = Watch()
    for _ in range(50):
        watch.at_work = not watch.at_work
        assert watch.see(1, busy=1.0) is None


def test_a_reading_without_samples_between_others_changes_nothing_and_many_of_them_begin_anew():
    watch = Watch(at_work=True)
    for _ in range(5):
        assert watch.see(1, foreign_busy=0.9) is None
        assert watch.see(1, busy=0.9) is None
    assert watch.see(1, foreign_busy=0.9) is RestCode.BUSY_ELSEWHERE
    watch = Watch(at_work=True)
    assert watch.see(8, foreign_busy=0.9) is None
    assert watch.see(8, busy=0.9) is None
    assert watch.see(8, foreign_busy=0.9) is None


def test_where_nothing_tells_its_use_the_memory_that_others_hold_stands_for_it():
    watch = Watch(at_work=True)
    assert watch.see(11, total_mib=8000, foreign_mib=4000) is RestCode.BUSY_ELSEWHERE
    assert Watch().see(100, total_mib=8000, foreign_mib=1000) is None
    assert Watch().see(100) is None, "nothing is known"


def test_the_cpu_has_a_threshold_of_its_own():
    assert Watch(device=CPU).see(11, foreign_busy=0.49) is None
    assert Watch(device=CPU).see(11, foreign_busy=0.5) is RestCode.BUSY_ELSEWHERE


@pytest.mark.parametrize(
    ("hot", "warm", "cool"),
    [
        ({"temperature_c": 93.0, "slows_down_c": 93}, {"temperature_c": 84.0, "slows_down_c": 93}, 83.0),
        ({"temperature_c": 80.0, "too_hot": True}, {"temperature_c": 71.0}, 70.0),
        ({"too_hot": True}, {"too_hot": True}, None),
    ],
    ids=["over its limit", "slowed down", "nothing else is known"],
)
def test_a_gpu_that_is_too_hot_rests_until_it_is_cooler_by_some_degrees(
    hot: dict[str, object], warm: dict[str, object], cool: float | None
):
    watch = Watch(at_work=True)
    assert watch.see(3, **hot) is None
    assert watch.see(1, temperature_c=50.0) is None
    assert watch.see(3, **hot) is None
    assert watch.see(1, **hot) is RestCode.TOO_HOT
    assert watch.see(50, **warm) is RestCode.TOO_HOT
    assert watch.see(3, temperature_c=cool) is RestCode.TOO_HOT
    assert watch.see(1, **warm) is RestCode.TOO_HOT
    assert watch.see(3, temperature_c=cool) is RestCode.TOO_HOT
    assert watch.see(1, temperature_c=cool) is None


def test_a_limit_of_ones_own_goes_before_the_gpus_and_the_reason_says_so():
    watch = Watch(heat=HeatConfig(limit_c=70, cooler_c=5, readings=1))
    assert watch.see(1, temperature_c=69.0, slows_down_c=93) is None
    assert watch.see(1, temperature_c=71.0, slows_down_c=93) is RestCode.TOO_HOT
    assert watch.rests.of(GPU.id).why == "too hot: 71 °C, 70 °C are the limit set for it; it works again at 65 °C"
    assert watch.see(1, temperature_c=66.0, slows_down_c=93) is RestCode.TOO_HOT
    assert watch.see(1, temperature_c=65.0, slows_down_c=93) is None
    off = Watch(heat=HeatConfig(enabled=False, readings=1))
    assert off.see(9, temperature_c=120.0, slows_down_c=93, too_hot=True) is None


def test_what_the_whole_node_rests_for_goes_first_and_each_device_has_its_own_besides():
    watch = Watch()
    assert watch.see(4, temperature_c=99.0, slows_down_c=93) is RestCode.TOO_HOT
    full = Rest(RestCode.DISK_FULL, "the disk of /data is full")
    watch.rests.rest_all(full)
    assert watch.rests.of(GPU.id) == watch.rests.of("cpu") == full
    watch.rests.rest_all(None)
    assert watch.rests.of("cpu") is None
    assert watch.see(1, temperature_c=99.0, slows_down_c=93) is RestCode.TOO_HOT


def test_what_devices_rest_for_is_followed_while_an_agent_runs():
    now = DistributedConfig()
    found = DistributedConfig(
        agent=AgentConfig(
            busy_elsewhere=TERMS, heat=HeatConfig(limit_c=70), disk=DiskConfig(floor_percent=5), clock_skew_s=9
        )
    )
    live, waiting = changes(now, found)
    assert (len(live), waiting) == (5, ())
    assert with_live_keys(now, found) == found
