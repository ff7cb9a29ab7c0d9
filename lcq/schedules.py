"""The timekeeper of a scheduler: submits what is due, opens and closes the windows of nodes (docs/schedules.md).

Any number of schedulers may run one each. What is due is submitted under keys made of the schedule and the time at
which it was due: done by two, or twice because one has died in the middle, it is there once.
"""

from __future__ import annotations

import asyncio
import contextlib
import fnmatch
import hashlib
import json
import logging
import random
from collections.abc import Coroutine, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

from lcq.component import Complaints, Duty, Ground, Lives
from lcq.config import ScheduleConfig, WindowConfig
from lcq.errors import LcqError, NotFound, ScheduleNotFound, StateUnavailable
from lcq.folder import Skipped, name_results, pair_images
from lcq.models import NodeRecord, NodeStatus, Task, TaskType
from lcq.timetable import Cron, Window, moment_of, zone_named
from lcq.wire import Done, Submit
from lcq.wire.schedules import (
    PauseSchedule,
    RanSchedule,
    ResumeSchedule,
    RunSchedule,
    ScheduleRecord,
    Schedules,
    SchedulesAnswer,
    WindowRecord,
)

_log = logging.getLogger(__name__)

_TICK_S = 2.0
_AGAIN_S = 30.0  # after a run that could not be made
_BATCH = 200
_NEXT = 3
_LIVE = (NodeStatus.ONLINE, NodeStatus.SUSPECT)


@dataclass(frozen=True)
class Due:
    """The tasks of one run, and their keys."""

    tasks: tuple[Task, ...]
    keys: tuple[str, ...]
    there: int
    skipped: tuple[Skipped, ...]


class Timekeeper(Lives):
    """``async with Timekeeper(ground)``: keeps time as long as the block is open."""

    def __init__(self, ground: Ground, *, tick_s: float = _TICK_S) -> None:
        super().__init__(ground)
        self._tick_s = tick_s
        self._of_schedules, self._of_windows = Duty(ground, "schedules"), Duty(ground, "windows")
        self._not_before: dict[str, float] = {}  # by schedule, when a run that failed is tried again

    async def __aenter__(self) -> Self:
        serve = self._ground.site.desk.serve
        serve(Schedules, self.tell)
        serve(RunSchedule, self.run_now)
        serve(PauseSchedule, self.pause)
        serve(ResumeSchedule, self.resume)
        return await super().__aenter__()

    def lives(self) -> tuple[tuple[str, Coroutine[Any, Any, None]], ...]:
        return (("schedules", self._keep_schedules()), ("windows of nodes", self._keep_windows()))

    # ------------------------------------------------------------ what is asked

    async def tell(self, ask: Schedules, sender: bytes = b"") -> SchedulesAnswer:
        config, now_ms = self._state.config, await self._state.now_ms()
        known = await self._state.reader.schedules(list(config.schedules))
        nodes, upkeep = await self._state.reader.nodes(), await self._state.reader.upkeep()
        told = [
            _record(name, schedule, kept, now_ms, str(upkeep.get(f"schedule {name}", {}).get("error", "")))
            for (name, schedule), kept in zip(config.schedules.items(), known, strict=True)
        ]
        windows = []
        for name, window in config.windows.items():
            is_open, _, changes_ms = _times(window).state(now_ms)
            of = tuple(node.id for node in nodes if _is_of(window, node))
            windows.append(
                WindowRecord(name=name, told=_times(window).told(), nodes=of, is_open=is_open, changes_ms=changes_ms)
            )
        return SchedulesAnswer(schedules=tuple(told), windows=tuple(windows))

    async def run_now(self, act: RunSchedule, sender: bytes = b"") -> RanSchedule:
        schedule = self._known(act.name)
        return await self._submit(act.name, schedule, await self._state.now_ms(), act.id)

    async def pause(self, act: PauseSchedule, sender: bytes = b"") -> Done:
        self._known(act.name)
        await self._state.pause_schedule(act.name, actor=act.actor, reason=act.reason, command=act.id)
        return Done()

    async def resume(self, act: ResumeSchedule, sender: bytes = b"") -> Done:
        self._known(act.name)
        await self._state.resume_schedule(act.name, actor=act.actor, reason=act.reason, command=act.id)
        return Done()

    def _known(self, name: str) -> ScheduleConfig:
        found = self._state.config.schedules.get(name)
        if found is None:
            raise ScheduleNotFound(name, self._state.config.schedules)
        return found

    # ------------------------------------------------------------ schedules

    async def _keep_schedules(self) -> None:
        complaints = Complaints("schedules")
        while True:
            await asyncio.sleep(self._tick_s * random.uniform(0.8, 1.2))
            if not self._state.config.schedules:
                continue
            try:
                if await self._of_schedules.is_ours():
                    await self.run_due()
            except StateUnavailable:
                continue  # the feed has said so
            except LcqError as refusal:
                complaints.say(refusal)

    async def run_due(self) -> int:
        """Run each schedule that is due; answers how many were."""
        ran = 0
        for name, schedule in self._state.config.schedules.items():
            cron = Cron(schedule.cron, schedule.timezone)
            seen = await self._state.see_schedule(name, mark=f"{schedule.cron} {schedule.timezone}")
            due_ms = None if seen.paused_by else cron.last_due(seen.since_ms, seen.now_ms)
            if due_ms is None or asyncio.get_running_loop().time() < self._not_before.get(name, 0.0):
                continue
            late_ms = seen.now_ms - due_ms
            if schedule.missed == "skip" and late_ms > schedule.late_minutes * 60_000:
                _log.warning("schedule %s: what was due %d min ago is left out", name, late_ms // 60_000)
                await self._state.end_schedule(name, due_ms=due_ms, told="left out: nobody ran it in time")
                continue
            ran += await self._run(name, schedule, due_ms)
        return ran

    async def _run(self, name: str, schedule: ScheduleConfig, due_ms: int) -> bool:
        try:
            async with self._of_schedules.held():
                made = await self._submit(name, schedule, due_ms, str(due_ms))
        except StateUnavailable:
            raise  # the same again, under the same keys
        except LcqError as refusal:
            self._not_before[name] = asyncio.get_running_loop().time() + _AGAIN_S
            _log.error("schedule %s cannot be run: %s", name, refusal)
            await self._state.note_upkeep(f"schedule {name}", error=str(refusal))
            return False
        told = _told(made)
        if await self._state.end_schedule(name, due_ms=due_ms, told=told, job=made.job):
            _log.info("schedule %s: %s", name, told)
            act = {
                "act": "run_schedule",
                "actor": f"schedule {name}",
                "reason": told,
                "command": f"schedule:{name}:{due_ms}",
            }
            await self._state.note_act(act["command"], b"", act | {"on": f"name={name} job={made.job}"})
        await self._state.note_upkeep(f"schedule {name}")
        return True

    async def _submit(self, name: str, schedule: ScheduleConfig, due_ms: int, run: str) -> RanSchedule:
        """Submit the tasks of one run, in pieces; those that are there already under their keys stay what they are."""
        due = await asyncio.to_thread(_due, name, schedule, due_ms, run)
        made = RanSchedule(there=due.there, skipped=len(due.skipped))
        for start in range(0, len(due.tasks), _BATCH):
            some, keys = due.tasks[start : start + _BATCH], due.keys[start : start + _BATCH]
            command = hashlib.sha256("\n".join(keys).encode()).hexdigest()[:32]
            submit = Submit(id=command, tasks=some, keys=keys, queue=schedule.queue, actor=f"schedule {name}")
            answer = await self._ground.site.desk.ask(submit, b"")
            refusals = answer.refused
            made = made.model_copy(
                update={
                    "job": due.tasks[0].job or "",
                    "accepted": made.accepted + len(answer.accepted),
                    "refused": made.refused + len(refusals),
                    "example": made.example or (refusals[0].message if refusals else ""),
                }
            )
        return made

    # ------------------------------------------------------------ windows

    async def _keep_windows(self) -> None:
        complaints = Complaints("windows of nodes")
        had_windows = True
        while True:
            await asyncio.sleep(self._tick_s * random.uniform(0.8, 1.2))
            if not self._state.config.windows and not had_windows:
                continue  # and none was taken away since
            try:
                if await self._of_windows.is_ours():
                    await self.keep_windows()
                    had_windows = bool(self._state.config.windows)
            except StateUnavailable:
                continue
            except LcqError as refusal:
                complaints.say(refusal)

    async def keep_windows(self) -> int:
        """Drain the nodes whose windows have closed, and have those take work again whose windows are open; answers how

        many nodes were changed. A node that no window is of any more takes work too.
        """
        now_ms, changed = await self._state.now_ms(), 0
        for node in await self._state.reader.nodes():
            of = [(name, window) for name, window in self._state.config.windows.items() if _is_of(window, node)]
            states = [(name, window, *_times(window).state(now_ms)) for name, window in of]
            with contextlib.suppress(NotFound):
                if not of or any(state[2] for state in states):
                    changed += await self._state.window_node(
                        node.id, closing="", why="its window is open" if of else ""
                    )
                    continue
                name, window, _, since_ms, opens_ms = min(states, key=lambda state: state[4])
                opens = moment_of(opens_ms, zone_named(window.timezone)).strftime("%Y-%m-%d %H:%M")
                why = f"outside of its window {name}: open {_times(window).told()}, again at {opens}"
                was_changed = await self._state.window_node(
                    node.id, closing=f"{name}@{since_ms}", why=why, at_once=window.stop == "now"
                )
                if was_changed and node.status in _LIVE:
                    _log.info("node %s is drained: %s", node.id, why)
                changed += was_changed
        return changed


def _times(window: WindowConfig) -> Window:
    return Window(window.open, window.days, window.timezone)


def _is_of(window: WindowConfig, node: NodeRecord) -> bool:
    if any(fnmatch.fnmatchcase(node.id, pattern) for pattern in window.nodes):
        return True
    return bool(window.labels) and all(node.labels.get(name) == value for name, value in window.labels.items())


def _record(name: str, schedule: ScheduleConfig, known: dict[str, str], now_ms: int, error: str) -> ScheduleRecord:
    paused = known.get("paused_by", "")
    last: dict[str, Any] = json.loads(known.get("last") or "{}")
    following = () if paused else Cron(schedule.cron, schedule.timezone).following(now_ms, _NEXT)
    return ScheduleRecord(
        name=name, cron=schedule.cron, timezone=schedule.timezone, next_ms=following, paused_by=paused,
        paused_reason=known.get("paused_reason", ""), last_due_ms=int(last.get("due_ms", 0)),
        last_told=str(last.get("told", "")), last_job=str(last.get("job", "")), error=error,
    )  # fmt: skip


def _told(made: RanSchedule) -> str:
    parts = [f"{made.accepted} tasks"]
    parts += [f"{made.there} done already"] if made.there else []
    parts += [f"{made.skipped} files left out"] if made.skipped else []
    parts += [f"{made.refused} refused: {made.example}"] if made.refused else []
    return ", ".join(parts)


def _due(name: str, schedule: ScheduleConfig, due_ms: int, run: str) -> Due:
    """What is to be submitted, as the files are now.

    Raises:
        InvalidInput: what is named is not there, or cannot be what it is named for.
    """
    pairing = pair_images(
        schedule.inputs, schedule.mask, out=schedule.out, mask_needed=schedule.task_type is TaskType.INPAINT
    )
    results = [named.path for named in name_results(pairing.pairs, schedule.out)]
    at = moment_of(due_ms, zone_named(schedule.timezone)).strftime("%Y-%m-%d %H:%M")
    wishes = ({"model": schedule.model} if schedule.model else {}) | schedule.settings
    tasks, keys, there = [], [], 0
    for pair, result in zip(pairing.pairs, results, strict=True):
        if not schedule.again and _is_newer(result, _files(pair.image, pair.mask)):
            there += 1
            continue
        tasks.append(
            Task(
                task_type=schedule.task_type,
                image_path=str(pair.image),
                mask_path=str(pair.mask) if pair.mask else None,
                output_path=str(result),
                config=wishes,
                priority=schedule.priority,
                user_id=schedule.user,
                job=f"{name} {at}",
            )
        )
        of_image = hashlib.sha256(str(pair.image).encode("utf-8", "surrogateescape")).hexdigest()[:24]
        keys.append(f"schedule:{name}:{run}:{of_image}")
    return Due(tuple(tasks), tuple(keys), there, pairing.skipped)


def _files(*paths: Path | None) -> Iterator[Path]:
    return (path for path in paths if path is not None)


def _is_newer(result: Path, sources: Iterator[Path]) -> bool:
    try:
        made = result.stat().st_mtime
        return all(path.stat().st_mtime <= made for path in sources)
    except OSError:
        return False
