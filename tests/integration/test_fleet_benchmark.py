"""The simulator of a fleet (benchmarks/fleet.py) in its small form: the real scripts, by a simulated clock."""

from __future__ import annotations

import json

import pytest

from benchmarks import fleet
from lcq.config import DistributedConfig
from lcq.state.scripts import Scripts


def test_the_small_form_works_all_tasks_off_and_tells_every_figure() -> None:
    told = "--nodes 10 --tasks 150 --small 5 --sizes 5 10 --depths 100 200 --times 30"
    figures = fleet.run(told.split())
    json.dumps(figures)
    work = figures["at_work"]
    assert work["tasks"] == 155
    for way in ("lcq", "round_robin", "least_loaded", "least_predicted_seconds", "first_come_first_served"):
        assert work[way]["makespan_s"] > 0
        assert 0 <= work[way]["warm_share"] <= 1
    assert {"round_robin", "least_loaded", "least_predicted_seconds"} < set(work["times_longer_than_lcq"])
    assert work["times_longer_than_lcq"]["round_robin"] > 1, "in simulated time: no busy machine changes that"
    assert work["small_users"]["worst_wait_s"] < work["lcq"]["makespan_s"]
    growth = figures["growth"]
    assert list(growth["by_nodes"]) == ["5", "10"]
    assert list(growth["by_waiting_tasks"]) == ["100", "200"]
    for row in growth["by_waiting_tasks"].values():
        assert set(row) == {"claim_us", "finish_us", "submit_us"}
    assert {"route_us", "picture_ms", "claim_us"} < set(growth["times_dearer_with_most_nodes"])


def test_only_the_line_that_looks_at_the_clock_is_another() -> None:
    config = DistributedConfig()
    for name, text in fleet.SimulatedScripts(config).texts.items():
        real = Scripts(config).texts[name].splitlines()
        changed = [(ours, theirs) for ours, theirs in zip(text.splitlines(), real, strict=True) if ours != theirs]
        looks = sum('redis.call("TIME")' in line for line in real)
        assert len(changed) == looks <= 1, "a move that does not ask what time it is does not look"
        assert all("simulated_ms" in ours for ours, _ in changed)


def test_the_fleet_has_five_kinds_in_their_shares() -> None:
    stations = fleet.the_fleet(1000)
    assert len(stations) == len({one.id for one in stations}) == 1000
    counts = {kind.name: sum(one.kind is kind for one in stations) for kind in fleet.KINDS}
    assert counts == {kind.name: 1000 * kind.share for kind in fleet.KINDS}


@pytest.mark.parametrize("told", [["--only", "some"], ["--nodes", "x"]])
def test_what_it_does_not_know_it_refuses(told: list[str]) -> None:
    with pytest.raises(SystemExit):
        fleet.run(told)
