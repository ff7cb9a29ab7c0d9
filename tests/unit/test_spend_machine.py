"""Double spend and budgets overrun: random moves of two schedulers, and books that must be the sum of all bills."""

from __future__ import annotations

import os

import pytest
from hypothesis import HealthCheck, Phase, seed, settings
from hypothesis.stateful import run_state_machine_as_test

from tests.spend_machine import SpendMachine

EXAMPLES = int(os.environ.get("LCQ_TEST_EXAMPLES", "0"))  # more of them for who wants it


def run(redis_url: str, examples: int, steps: int) -> None:
    class Machine(SpendMachine):
        url = redis_url

    run_state_machine_as_test(
        seed(int(os.environ["LCQ_TEST_SEED"]))(Machine),
        settings=settings(
            max_examples=examples,
            stateful_step_count=steps,
            deadline=None,
            database=None,
            phases=(Phase.generate, Phase.shrink) if os.environ.get("LCQ_TEST_SHRINK") else (Phase.generate,),
            suppress_health_check=list(HealthCheck),
        ),
    )


def test_two_schedulers_never_overspend_and_each_reservation_is_settled_once(redis_url: str) -> None:
    run(redis_url, EXAMPLES or 10, 25)


@pytest.mark.chaos
@pytest.mark.timeout(1800)
def test_they_never_do_in_thousands_of_moves(redis_url: str) -> None:
    run(redis_url, EXAMPLES or 500, 60)
