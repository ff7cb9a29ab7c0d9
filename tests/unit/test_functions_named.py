"""Functions whose settings change while they are called: what still goes by those of before is told apart."""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator

import pytest

from lcq.runner_config import FunctionConfig
from worker import functions_named
from worker.functions_named import NamedFunctions


def function(**said: float) -> FunctionConfig:
    return FunctionConfig.model_validate({"url": "http://far", "models": {"lama": 4}, **said})


@pytest.fixture(autouse=True)
def clock(monkeypatch: pytest.MonkeyPatch) -> Iterator[itertools.count[int]]:
    """Each look at it is a second later than the one before."""
    clock = itertools.count(1)
    monkeypatch.setattr(functions_named, "steady_now", lambda: float(next(clock)))
    return clock


def test_what_was_asked_before_the_cluster_knew_the_new_price_does_not_hold() -> None:
    named = NamedFunctions({"burst": function(), "other": function()})
    named.said()
    assert named.follow({"burst": function(price_s=1), "new": function()}) == ("burst", "other", "new")
    named.welcomed()  # of a hello that was said before
    assert not named.is_known("burst")
    assert not named.is_known("new")
    named.said()  # at 3 s
    assert not named.is_known("burst")
    named.welcomed()
    assert named.is_known("burst")
    assert named.is_known("new")
    assert not named.is_known("burst", 3.5)
    assert not named.is_known("burst", -math.inf), "an answer that comes late, of which nobody knows when it was asked"
    assert named.is_known("cpu", -math.inf)


def test_what_began_before_a_change_went_by_other_terms_and_one_that_is_gone_was_a_function_all_the_same() -> None:
    named = NamedFunctions({"burst": function(), "same": function()})
    assert named.follow({"same": function()}) == ("burst",)  # at 1 s
    assert named.is_older("burst", 0.5)
    assert not named.is_older("burst", 1.5)
    assert not named.is_older("same", 0.5)
    assert named.is_function("burst")
    assert not named.is_function("cpu")
    assert list(named.now) == ["same"]
