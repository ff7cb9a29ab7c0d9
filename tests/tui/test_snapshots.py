"""The main screens as they are painted, from a store that stands still: as text in three sizes, and their colours.

Where a difference is meant, ``make snapshots`` writes them anew; look at what git says of tests/tui/snapshots then.
"""

from __future__ import annotations

import difflib
import os
import re
import time
from pathlib import Path

import pytest
from rich.style import Style
from textual.color import Color

from lcq.config import BudgetConfig
from lcq.key_record import KeyRecord, KeyRole
from lcq.models import ActRecord, Attempt, DeviceReading, DeviceSample, MinuteTally, NodeStatus, TaskStatus
from lcq.spend import Book, Spend
from lcq.wire.schedules import ScheduleRecord, WindowRecord
from tests.conftest import wait_until
from tests.tui import fakes
from tests.tui.conftest import Console
from tests.tui.fakes import FakeCluster, a_failure, a_node, a_task

FOLDER = Path(__file__).parent / "snapshots"
RENEW = os.environ.get("LCQ_RENEW_SNAPSHOTS") == "1"
NOW_MS = 1_767_225_600_000 + 12 * 3_600_000  # noon of 1 January 2026: never today
NAMES = ("cover_0411.tif", "写真-東京タワー.png", "[red]sale[b].png", "hafen-bei-nacht.jpg")
SIZES = ((80, 24), (120, 40), (200, 60))
WAYS = (("tasks", "g"), ("task", "d"), ("fleet", "1"), ("queues", "3"), ("nodes", "4"), ("node", "d"),
        ("activity", "6"), ("spend", "7"), ("schedules", "8"), ("keys", "9"), ("causes", "5"),
        ("help", "question_mark"))  # fmt: skip
WAITED_FOR = {"spend": "holiday", "schedules": "nightly", "keys": "gpu-1"}
"""What is on the screens that ask by themselves, once they were answered."""


def a_still_cluster() -> FakeCluster:
    """A little of everything, at one moment."""
    tasks = []
    for number in range(24):
        status = list(TaskStatus)[number % 6]
        ran = status in (TaskStatus.PROCESSING, TaskStatus.COMPLETED, TaskStatus.FAILED)
        at = NOW_MS - number * 47_000 - 5_000
        tasks.append(
            a_task(
                f"/srv/photos/{NAMES[number % 4]}", status=status, task_id=f"1m8mk1{number:010d}",
                queue=("cpu-light", "cpu-intensive")[number % 2], task_user_id=("press-7", "studio-a")[number % 2],
                node="gpu-1" if ran else "", attempt=1 if ran else 0, submitted_ms=at, updated_ms=at,
                started_ms=at + 2000 if ran else None, progress=0.42 if status is TaskStatus.PROCESSING else 0.0,
                finished_ms=at + 4000 if ran and status.is_terminal else None,
                due_ms=NOW_MS + 20_000 if status is TaskStatus.PENDING else None,
                failure=a_failure("tried to allocate 9.21 GiB") if status is TaskStatus.FAILED else None,
                why="no node has 40 GB VRAM" if number % 12 == 1 else "",
            )
        )  # fmt: skip
    reading = DeviceReading(
        total_mib=24_576, free_mib=2048, busy=0.87, temperature_c=71, power_w=388, warm=("lama", "cv2-telea")
    )
    at = {"seen_ms": NOW_MS - 1000, "registered_ms": NOW_MS - 7_200_000}
    nodes = [
        a_node("gpu-1", running=3, completed=1204, failed=31, readings={"cpu": reading}, **at),
        a_node("gpu-2", status=NodeStatus.DRAINING, running=1, why="maria: new driver", **at),
        a_node("gpu-3", status=NodeStatus.OFFLINE, why="its lifeline closed", seen_ms=NOW_MS - 180_000),
    ]
    cluster = FakeCluster(tasks, nodes)
    cluster.paused["gpu-medium"] = "driver update, back at noon"
    cluster.tallies = [
        MinuteTally(minute=NOW_MS // 60_000 - ago, submitted=20, completed=10 + ago * 7 % 13, failed=ago % 3,
                    waiting=300 - ago, running=4, busy=0.5 + ago % 5 / 10, memory=0.7,
                    came_in={"cpu-light": 4, "cpu-intensive": 16}, left_in={"cpu-light": 7, "cpu-intensive": 5},
                    completed_in={"cpu-light": 6, "cpu-intensive": 5})
        for ago in range(59, -1, -1)
    ]  # fmt: skip
    cluster.samples["gpu-1"] = {
        "cpu": tuple(
            DeviceSample(at_ms=NOW_MS - ago * 30_000, busy=ago % 10 / 10, used_mib=12_288, total_mib=24_576,
                         temperature_c=60 + ago % 20)
            for ago in range(110, 0, -1)
        )
    }  # fmt: skip
    for task in tasks:
        if task.attempt and task.started_ms:
            cluster.history[task.id] = [
                Attempt(number=1, node="gpu-1", device="cpu", started_ms=task.started_ms, ended_ms=task.finished_ms,
                        outcome=str(task.status), failure=task.failure)
            ]  # fmt: skip
    cluster.audit = [
        ActRecord(id=f"{NOW_MS - 60_000}-1", at_ms=NOW_MS - 60_000, act="pause", actor="ivo", reason="driver update",
                  command="c1", on="queue=gpu-medium"),
        ActRecord(id=f"{NOW_MS - 90_000}-1", at_ms=NOW_MS - 90_000, act="retry", actor="maria", reason="",
                  command="c2", on="ids=1m8mk1…", outcome="3 done"),
    ]  # fmt: skip
    cluster.limits = BudgetConfig(hour=1.0, day=10.0, job=2.0, user_day=5.0, currency="EUR")
    today = Book(3.2, 0.12, 260, {"press-7": 2.9, "studio-a": 0.42})
    cluster.books = Spend(BudgetConfig(), hour=Book(0.84, 0.12, 61), day=today, month=Book(3.2, 0.12, 260))
    cluster.day_books = {"2026-01-01": today}
    cluster.job_books = {"holiday": Book(1.8, 0.12, 150), "写真": Book(0.4, 0.0, 31)}
    cluster.schedule_records = {
        one.name: one
        for one in (
            ScheduleRecord(name="nightly", cron="0 3 * * *", timezone="Europe/Berlin", last_told="120 tasks",
                           next_ms=(NOW_MS + 14 * 3_600_000,), last_due_ms=NOW_MS - 10 * 3_600_000),
            ScheduleRecord(name="inbox", cron="*/10 * * * mon-fri", timezone="UTC", paused_by="ivo",
                           paused_reason="new masks"),
            ScheduleRecord(name="scans", cron="30 12 * * *", timezone="UTC", next_ms=(NOW_MS + 1_800_000,),
                           error="/srv/scans: no such folder"),
        )
    }  # fmt: skip
    cluster.windows = (WindowRecord(name="night", told="20:00-07:00", nodes=("gpu-1",), is_open=False,
                                    changes_ms=NOW_MS + 8 * 3_600_000),)  # fmt: skip
    keys = (
        KeyRecord(key="a" * 64, name="gpu-1", role=KeyRole.AGENT, node="gpu-1", at_ms=NOW_MS - 86_400_000, by="maria",
                  seen_ms=NOW_MS - 60_000, address="10.0.0.7"),
        KeyRecord(key="b" * 64, name="maria", role=KeyRole.OPERATOR, at_ms=NOW_MS - 9 * 86_400_000, seen_ms=NOW_MS),
        KeyRecord(key="c" * 64, name="a new agent", role=KeyRole.INVITED, becomes="agent", at_ms=NOW_MS - 60_000,
                  until_ms=NOW_MS + 3_540_000, by="maria"),
        KeyRecord(key="d" * 64, name="gpu-9", role=KeyRole.AGENT, node="gpu-9", at_ms=NOW_MS - 86_400_000,
                  revoked_ms=NOW_MS - 3_600_000, revoked_by="ivo", reason="sold"),
    )  # fmt: skip
    cluster.key_records, cluster.key = {one.key: one for one in keys}, "b" * 64
    return cluster


@pytest.fixture(autouse=True)
def _time_stands_still(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(time, "time_ns", lambda: NOW_MS * 1_000_000)
    monkeypatch.setattr(fakes, "now_ms", lambda: NOW_MS)


def as_text(console: Console) -> str:
    """The screen without what depends on the machine's speed."""
    first, *rest = console.lines()
    first = re.sub(r"\s*(redis|zmq|LIVE|LOADING|…\d|\d+ms).*$", "", first)
    return "\n".join(line.rstrip() for line in (first, *rest)).rstrip() + "\n"


def as_styles(console: Console) -> str:
    """Each style of the screen, and on what it is seen first."""
    seen: dict[str, str] = {}
    for strip in console.app.screen._compositor.render_strips()[1:]:
        shown = strip
        for one in console.app._filters:
            shown = shown.apply_filter(one, Color(0, 0, 0)) if one.enabled else shown
        for segment in shown:
            if segment.text.strip():
                seen.setdefault(_told(segment.style or Style()), segment.text.strip()[:24])
    return "".join(f"{style:<46} {text}\n" for style, text in sorted(seen.items()))


def _told(style: Style) -> str:
    more = [name for name in ("bold", "reverse", "underline", "dim") if getattr(style, name)]
    front, back = (color.name if color is not None else "-" for color in (style.color, style.bgcolor))
    return " ".join((f"{front} on {back}", *more))


def compare(name: str, now: str) -> str:
    """The difference to the snapshot of that name, as a diff; "" where there is none. Renewing, it is written."""
    path = FOLDER / f"{name}.txt"
    if RENEW:
        FOLDER.mkdir(exist_ok=True)
        path.write_text(now, encoding="utf-8")
        return ""
    before = path.read_text(encoding="utf-8") if path.exists() else ""
    lines = difflib.unified_diff(before.splitlines(), now.splitlines(), f"{name} as it was", "now", lineterm="")
    return "\n".join(lines)


async def walk(console: Console, size: tuple[int, int]) -> list[tuple[str, str]]:
    """Go through the main screens; each one's name and text."""
    await wait_until(lambda: len(console.desk.store.minutes) == 60)
    seen = []
    for name, key in WAYS:
        if name in WAITED_FOR and size[0] > 120:
            continue
        if name == "fleet" or (name == "activity" and seen):
            await console.press("escape")
        await console.press(key)
        if name == "causes":
            await wait_until(lambda: console.desk.store.causes.rows)
        if name == "activity":
            await wait_until(lambda: console.desk.store.acts.rows)
        if name == "node":
            await wait_until(lambda: getattr(console.app.screen, "_history", None))
        if name in WAITED_FOR:
            await wait_until(lambda said=WAITED_FOR[name]: said in console.text(), what=f"what {name} shows")
        await console.settle()
        if name != "task" and not (name == "tasks" and size[0] >= 120):  # pictures come there when they come
            seen.append((f"{name}-{size[0]}x{size[1]}", as_text(console)))
    return seen


@pytest.mark.parametrize("size", SIZES, ids=lambda size: f"{size[0]}x{size[1]}")
async def test_the_main_screens_look_as_they_did(open_console, size):
    async with open_console(a_still_cluster(), size=size) as console:
        seen = await walk(console, size)
    differences = [found for name, text in seen if (found := compare(name, text))]
    assert not differences, "\n\n".join([*differences, "where this is meant: make snapshots"])


async def test_the_colours_are_what_they_were_in_dark_light_and_without_any(open_console, monkeypatch):
    differences = []
    async with open_console(a_still_cluster(), size=(80, 24), theme="lcq-dark") as console:
        await wait_until(lambda: len(console.desk.store.minutes) == 60)
        await console.press("g", "j", "space")
        for theme in ("lcq-dark", "lcq-light"):
            console.app.theme = theme
            await console.settle()
            differences.append(compare(f"colours-{theme}", as_styles(console)))
    monkeypatch.setenv("NO_COLOR", "1")
    async with open_console(a_still_cluster(), size=(80, 24)) as console:
        await wait_until(lambda: len(console.desk.store.minutes) == 60)
        await console.press("g", "j", "space")
        await console.settle()
        differences.append(compare("colours-none", as_styles(console)))
    assert not any(differences), "\n\n".join([*filter(None, differences), "where this is meant: make snapshots"])
