"""Storms: everything happens to a cluster that works; nothing is lost, nothing is doubled, nothing is left."""

from __future__ import annotations

import os
import secrets
from pathlib import Path

import pytest

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


@pytest.mark.timeout(400)
def test_a_short_storm_loses_nothing_doubles_nothing_and_leaves_nothing(
    redis_server, redis_url: str, tmp_path: Path, seed: int
) -> None:
    with Storm(LoneStore(redis_server), tmp_path, seed) as storm:
        storm.rage(length_s(20))
        report = storm.judge()
    print(f"\n{report}")
    assert not report.verdict.violations, str(report)
    assert not report.grown, str(report)


@pytest.mark.chaos
@pytest.mark.timeout(1500)
def test_ten_minutes_of_storm_lose_nothing_double_nothing_and_leave_nothing(tmp_path: Path, seed: int) -> None:
    with running_rig(tmp_path / "redis") as rig, Storm(RigStore(rig), tmp_path, seed, crowd=60) as storm:
        storm.rage(length_s(540), calm_s=30, every_s=(0.3, 3.0))
        report = storm.judge()
    print(f"\n{report}")
    assert not report.verdict.violations, str(report)
    assert not report.grown, str(report)
