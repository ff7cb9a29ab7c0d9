"""Storms: everything happens to a cluster that works; nothing is lost, nothing is doubled, nothing is left."""

from __future__ import annotations

import os
import secrets
from collections.abc import Mapping
from pathlib import Path

import pytest

from tests.chaos.crowd import Visitor
from tests.chaos.storm import LoneStore, RigStore, Storm
from tests.redis_rig import running_rig

# Read here, before the environment is cleaned for each test.
SEED = os.environ.get("LCQ_STORM_SEED")
LENGTH_S = os.environ.get("LCQ_STORM_S")


@pytest.fixture
def seed() -> int:
    """``LCQ_STORM_SEED`` repeats a storm, as far as chance decides it."""
    return int(SEED) if SEED else secrets.randbelow(2**32)


def length_s(otherwise: float) -> float:
    return float(LENGTH_S or otherwise)


@pytest.mark.timeout(900)
def test_a_short_storm_loses_nothing_doubles_nothing_and_leaves_nothing(
    redis_server, redis_url: str, tmp_path: Path, seed: int
) -> None:
    with Storm(LoneStore(redis_server), tmp_path, seed, crowd=8, is_forked=True) as storm:
        storm.rage(length_s(20), every_s=(0.1, 1.0))
        report = storm.judge()
    print(f"\n{report}")
    assert not report.verdict.violations, str(report)
    assert not report.grown, str(report)


@pytest.mark.chaos
@pytest.mark.timeout(2400)
def test_ten_minutes_of_storm_lose_nothing_double_nothing_and_leave_nothing(tmp_path: Path, seed: int) -> None:
    with (
        running_rig(tmp_path / "redis") as rig,
        RigStore(rig) as store,
        Storm(store, tmp_path, seed, crowd=60) as storm,
    ):
        storm.rage(length_s(540), calm_s=30, every_s=(0.3, 3.0))
        report = storm.judge()
    print(f"\n{report}")
    assert not report.verdict.violations, str(report)
    assert not report.grown, str(report)


@pytest.mark.soak
@pytest.mark.timeout(3 * 3600)
def test_an_hour_of_storms_and_calms_raises_no_false_alarm_and_nothing_grows(tmp_path: Path, seed: int) -> None:
    """F-23, F-46: readers come and go a thousand times, and all that LCQ owns stays as small as it was."""
    seconds = length_s(3600)
    rounds = max(2, round(seconds / 300))
    kept = {"LCQ_RETENTION__COMPLETED_S": "60", "LCQ_RETENTION__FAILED_S": "60", "LCQ_RETENTION__EVENTS": "5000"}
    samples: list[Mapping[str, float]] = []
    with (
        running_rig(tmp_path / "redis", auto_aof_rewrite_min_size="4mb") as rig,
        RigStore(rig) as store,
        Storm(store, tmp_path, seed, crowd=60, **kept) as storm,
    ):
        visitor = Visitor(rig.url, 1000, seconds * 0.95)
        visitor.start()
        for _ in range(rounds):
            storm.rage(0.7 * seconds / rounds, calm_s=0.3 * seconds / rounds, every_s=(0.3, 3.0))
            samples.append(storm.sample() | {"AOF bytes": float(_bytes_in(tmp_path / "redis"))})
            print(f"\n{samples[-1]}", flush=True)
        visitor.join(60)
        visitor.leave()
        report = storm.judge()
    print(f"\n{report}\n  readers: {visitor.visits} attached and detached, {visitor.in_vain} in vain")
    assert not report.verdict.violations, str(report)
    assert not report.grown, str(report)
    assert visitor.visits + visitor.in_vain >= 1000
    half = len(samples) // 2
    for name in samples[-1] if half else ():
        early = max(sample.get(name, 0.0) for sample in samples[:half])
        late = min(sample.get(name, 0.0) for sample in samples[half:])
        assert late <= 1.5 * early + SLACK.get(name, 0.0), f"{name} grows: {[sample.get(name) for sample in samples]}"


SLACK = {"keys": 500, "redis connections": 10, "files": 20, "file bytes": 1e6, "AOF bytes": 16e6}


def _bytes_in(folder: Path) -> int:
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file() and path.suffix != ".log")
