"""Schedules submit what is due once, whatever dies; windows drain nodes, and operators have the last word."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest
import redis
from PIL import Image

from lcq.component import Ground
from lcq.config import DistributedConfig, RetryConfig, ScheduleConfig, WindowConfig
from lcq.desk import Site
from lcq.errors import InvalidInput, LcqError, ScheduleNotFound, TransitionRefused
from lcq.models import NodeStatus, TaskStatus
from lcq.schedules import Timekeeper
from lcq.state.manager import StateManager
from lcq.tasks import TaskManager
from lcq.wire import PauseSchedule, ResumeSchedule, RunSchedule, Schedules
from tests.audit import audit
from tests.nodes import LIGHT, Node, a_task

MINUTE = 60_000


def pictures(folder: Path, *names: str) -> None:
    folder.mkdir(exist_ok=True)
    for name in names:
        for kind in ("", "_mask"):
            Image.new("L", (4, 4)).save(folder / f"{name}{kind}.png")


def config_with(**changes: object) -> DistributedConfig:
    config = DistributedConfig(retries=RetryConfig(base_s=3600, max_s=3600))
    return config.model_copy(update=changes)


def nightly(folder: Path, **changes: object) -> DistributedConfig:
    wishes = {"cron": "* * * * *", "inputs": (folder,), "model": "cv2-telea", "user": "ann"} | changes
    return config_with(schedules={"nightly": ScheduleConfig.model_validate(wishes)})


def long_due(eye: redis.Redis, minutes: int = 3) -> None:
    """Let so many minutes have passed since the schedule was seen last."""
    since = int(float(eye.hget("{lcq}:schedule:nightly", "since_ms")))
    eye.hset("{lcq}:schedule:nightly", "since_ms", since - minutes * MINUTE)


async def test_what_is_due_is_submitted_once_by_two_schedulers_and_by_one_that_has_died(
    redis_url: str, eye: redis.Redis, tmp_path: Path
):
    pictures(tmp_path / "in", "a", "b")
    async with StateManager(nightly(tmp_path / "in"), url=redis_url) as state:
        ground, other = Ground(state, Site(state)), Ground(state, Site(state))
        async with TaskManager(ground), TaskManager(other):
            first, second = Timekeeper(ground), Timekeeper(other)
            assert await first.run_due() == 0, "it begins when it is seen first"
            long_due(eye)
            end = state.end_schedule

            async def dies(*args: object, **told: object) -> bool:
                raise LcqError("the scheduler died before it could say so")

            state.end_schedule = dies  # type: ignore[method-assign,assignment]
            with pytest.raises(LcqError, match="died"):
                await first.run_due()
            state.end_schedule = end  # type: ignore[method-assign]
            assert sum((await state.reader.counts()).values()) == 2
            assert await asyncio.gather(first.run_due(), second.run_due()) in ([1, 0], [0, 1], [1, 1])
            assert await first.run_due() == 0
            ledger = audit(eye)
            assert len(ledger.tasks) == 2
            assert {t["user"] for t in ledger.tasks.values()} == {"ann"}
            (job,) = {t["job"] for t in ledger.tasks.values()}
            assert job.startswith("nightly 20")
            (told,) = (await first.tell(Schedules())).schedules
            assert told.last_told == "2 tasks"
            acts = [fields for _, fields in eye.xrange("{lcq}:acts")]
            (act,) = [fields for fields in acts if fields["act"] == "run_schedule"]
            assert (act["act"], act["actor"], act["reason"]) == ("run_schedule", "schedule nightly", "2 tasks")
            assert told.last_due_ms < told.next_ms[0] < told.next_ms[1]


async def test_a_run_leaves_out_what_is_done_already_and_says_what_it_cannot_do(
    redis_url: str, eye: redis.Redis, tmp_path: Path
):
    pictures(tmp_path / "in", "a", "b")
    (tmp_path / "in" / "cleaned").mkdir()
    Image.new("L", (4, 4)).save(tmp_path / "in" / "cleaned" / "a.png")
    async with StateManager(nightly(tmp_path / "in"), url=redis_url) as state:
        ground = Ground(state, Site(state))
        async with TaskManager(ground), Timekeeper(ground, tick_s=600):
            desk = ground.site.desk
            made = await desk.ask(RunSchedule(name="nightly"), b"")
            assert (made.accepted, made.there) == (1, 1)
            with pytest.raises(ScheduleNotFound, match="nightly") as refusal:
                await desk.ask(RunSchedule(name="nigthly"), b"")
            assert "nightly" in refusal.value.hint
            state.follow(nightly(tmp_path / "nowhere"))
            with pytest.raises(InvalidInput, match="nowhere"):
                await desk.ask(RunSchedule(name="nightly"), b"")
            keeper = Timekeeper(ground)
            await keeper.run_due()
            long_due(eye)
            assert await keeper.run_due() == 0
            assert "nowhere" in (await state.reader.upkeep())["schedule nightly"]["error"]
            (told,) = (await keeper.tell(Schedules())).schedules
            assert "nowhere" in told.error
            pictures(tmp_path / "nowhere", "c")
            assert await Timekeeper(ground).run_due() == 1, "and when that is mended it is run after all"
            assert (await state.reader.upkeep())["schedule nightly"]["error"] == ""


async def test_a_paused_schedule_makes_up_for_nothing_and_one_that_is_late_does_as_it_is_told(
    redis_url: str, eye: redis.Redis, tmp_path: Path
):
    pictures(tmp_path / "in", "a")
    async with StateManager(nightly(tmp_path / "in"), url=redis_url) as state:
        ground = Ground(state, Site(state))
        async with TaskManager(ground), Timekeeper(ground, tick_s=600):
            keeper, desk = Timekeeper(ground), ground.site.desk
            await keeper.run_due()
            await desk.ask(PauseSchedule(name="nightly", actor="ann", reason="new masks"), b"")
            with pytest.raises(TransitionRefused):
                await desk.ask(PauseSchedule(name="nightly", actor="bob"), b"")
            long_due(eye)
            assert await keeper.run_due() == 0
            (told,) = (await keeper.tell(Schedules())).schedules
            assert (told.paused_by, told.paused_reason, told.next_ms) == ("ann", "new masks", ())
            await desk.ask(ResumeSchedule(name="nightly", actor="ann"), b"")
            assert await keeper.run_due() == 0
            state.follow(nightly(tmp_path / "in", missed="skip", late_minutes=5, cron="0 0 1 1 *"))
            assert await keeper.run_due() == 0, "it has other times now"
            long_due(eye, 366 * 24 * 60)
            assert await keeper.run_due() == 0
            (told,) = (await keeper.tell(Schedules())).schedules
            assert told.last_told == "left out: nobody ran it in time"
            assert sum((await state.reader.counts()).values()) == 0


def window(**changes: object) -> DistributedConfig:
    wishes: dict[str, object] = {"nodes": ("node-*",), "open": "00:00-24:00"} | changes
    return config_with(windows={"night": WindowConfig.model_validate(wishes)})


CLOSED = {"open": "00:00-00:01", "days": "mon"}  # but for a minute a week


async def status_of(state: StateManager, name: str = "node-1") -> tuple[NodeStatus, str]:
    (node,) = [node for node in await state.reader.nodes() if node.id == name]
    return node.status, node.why


async def test_a_node_is_drained_outside_of_its_window_and_an_operator_has_the_last_word(
    redis_url: str, eye: redis.Redis
):
    async with StateManager(window(**CLOSED), url=redis_url) as state:
        keeper, node = Timekeeper(Ground(state, Site(state))), Node(state)
        other = Node(state, "desk-1")
        await node.hello()
        await other.hello()
        task = (await state.submit_task(a_task(), queue=LIGHT)).id
        assert await node.claim_ids() == [task]
        assert await keeper.keep_windows() == 1
        status, why = await status_of(state)
        assert status is NodeStatus.DRAINING
        assert "outside of its window night: open 00:00-00:01 mon (UTC), again at " in why
        assert (await status_of(state, "desk-1"))[0] is NodeStatus.ONLINE
        await state.submit_task(a_task(), queue=LIGHT)
        assert await node.claim_ids() == []
        await node.finish(task, 1)  # what ran goes on
        await state.activate_node("node-1", why="by ann")
        assert await keeper.keep_windows() == 0, "until the window changes again ann's word holds"
        assert (await status_of(state))[0] is NodeStatus.ONLINE
        state.follow(window())
        assert await keeper.keep_windows() == 0
        state.follow(window(**CLOSED))
        assert await keeper.keep_windows() == 1
        state.follow(window())
        assert await keeper.keep_windows() == 1
        assert (await status_of(state))[0] is NodeStatus.ONLINE
        state.follow(window(**CLOSED))
        await state.drain_node("node-1", why="by ann")
        assert await keeper.keep_windows() == 0
        state.follow(config_with())
        assert await keeper.keep_windows() == 0, "it was ann who drained it"
        assert (await status_of(state)) == (NodeStatus.DRAINING, "by ann")
        (told,) = (await Timekeeper(Ground(state, Site(state))).tell(Schedules())).windows or [None]
        assert told is None
        audit(eye)


async def test_a_node_that_comes_back_while_its_window_is_closed_takes_nothing(redis_url: str, eye: redis.Redis):
    async with StateManager(window(stop="now", **CLOSED), url=redis_url) as state:
        keeper, node = Timekeeper(Ground(state, Site(state))), Node(state)
        await node.hello()
        await state.submit_task(a_task(), queue=LIGHT)
        await node.claim()
        await keeper.keep_windows()
        assert eye.hget("{lcq}:node:node-1", "hand_back_ms"), "its beat's answer tells it to hand back"
        await node.leave()
        assert (await state.reader.counts())[TaskStatus.QUEUED] == 1
        again = Node(state, boot="boot-2")
        assert await again.hello() is NodeStatus.DRAINING
        assert await again.claim_ids() == []
        state.follow(window())
        assert await keeper.keep_windows() == 1
        assert len(await again.claim_ids()) == 1
        audit(eye)
