"""The hand holds only what is predicted to begin within 50 ms, and gives back what waits longer."""

from __future__ import annotations

import asyncio

import pytest

from lcq.models import Task, TaskType
from lcq.wire import MOST_IN_HAND, Grant, Want
from worker.attempt import key_of
from worker.hand import Hand


def grant(device: str = "cpu") -> Grant:
    task = Task(task_type=TaskType.INPAINT, image_path="a.png")
    return Grant(task=task, attempt=1, device=device, lease_ms=15000)


def practised(seconds: float, *, slots: int = 2) -> Hand:
    hand = Hand({"cpu": slots})
    for _ in range(8):
        hand.learn("cpu", seconds)
    return hand


@pytest.mark.parametrize(
    ("seconds", "room"),
    [(0.0, MOST_IN_HAND * 2), (0.005, 20), (0.02, 4), (0.049, 2), (0.051, 0), (5.0, 0)],
)
def test_its_room_is_what_is_predicted_to_begin_within_50_ms(seconds: float, room: int):
    assert practised(seconds).room("cpu") == room


def test_without_experience_it_has_no_room():
    hand = Hand({"cpu": 2})
    assert hand.room("cpu") == 0
    for _ in range(7):
        hand.learn("cpu", 0.001)
    assert hand.room("cpu") == 0
    assert hand.room("no such device") == 0


def test_one_long_attempt_closes_it_until_the_work_is_short_again():
    hand = practised(0.001)
    hand.learn("cpu", 5.0)
    assert hand.room("cpu") == 0
    for _ in range(8):
        hand.learn("cpu", 0.001)
    assert hand.room("cpu") > 0


async def test_wishes_for_free_slots_and_for_the_hand_are_one():
    hand = practised(0.02)
    assert hand.wants((Want(device="cpu", slots=1, warm=("cv2-ns",)),)) == (
        Want(device="cpu", slots=5, warm=("cv2-ns",)),
    )
    assert hand.wants(()) == (Want(device="cpu", slots=4),)
    assert practised(1.0).wants(()) == ()


async def test_grants_leave_it_in_the_order_in_which_they_came():
    hand = practised(0.02)
    first, second = grant(), grant()
    assert hand.take(first)
    assert hand.take(second)
    assert [one.task_id for one in hand.running()] == [first.task.id, second.task.id]
    assert hand.next_for("cpu") == first
    assert hand.next_for("cpu") == second
    assert hand.next_for("cpu") is None


async def test_a_full_hand_takes_nothing():
    hand = practised(0.049, slots=1)
    assert hand.take(grant())
    assert not hand.take(grant())


async def test_a_cancelled_grant_is_dropped_from_it():
    hand = practised(0.02)
    one = grant()
    hand.take(one)
    assert hand.drop(key_of(one))
    assert not hand.drop(key_of(one))
    assert hand.next_for("cpu") is None


async def test_what_waits_too_long_is_given_back():
    hand = practised(0.02)
    one = grant()
    hand.take(one)
    async with asyncio.timeout(120):
        assert await hand.overdue() == (one,)
    assert hand.running() == ()


async def test_emptying_it_gives_all_back_at_once():
    hand = practised(0.02)
    grants = tuple(grant() for _ in range(3))
    for one in grants:
        hand.take(one)
    assert hand.empty() == grants
    assert hand.empty() == ()
