"""Leases as the node sees them: each is renewed by its own length, and what has ended stays ended."""

from __future__ import annotations

import math

from lcq.models import Task, TaskType
from lcq.wire import Grant
from worker.attempt import key_of
from worker.leases import Leases, steady_now


def grant(lease_s: float) -> Grant:
    task = Task(task_type=TaskType.INPAINT, image_path="a.png")
    return Grant(task=task, attempt=1, device="cpu", lease_ms=int(lease_s * 1000))


def test_a_beat_renews_each_lease_by_its_own_length():
    leases, short, long = Leases(), grant(1), grant(1000)
    now = steady_now()
    for one in (short, long):
        leases.begin(one, now)
    leases.renew([key_of(short), key_of(long)], now - 2)  # a beat first sent two seconds ago
    assert not leases.is_sure(key_of(short))
    assert leases.is_sure(key_of(long))


def test_what_has_ended_is_not_renewed_and_sets_no_pace():
    leases, one = Leases(), grant(5)
    assert leases.shortest_s == math.inf
    leases.begin(one, steady_now())
    assert leases.shortest_s == 5
    leases.end(key_of(one))
    leases.renew([key_of(one)], steady_now())
    assert not leases.is_sure(key_of(one))
    assert leases.shortest_s == math.inf
