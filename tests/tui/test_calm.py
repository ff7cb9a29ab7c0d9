"""A console in front of which nothing happens does little; what does happen is shown, and asked about, at once."""

from __future__ import annotations

import asyncio
import os
import threading
from collections.abc import Iterator
from types import SimpleNamespace

import pytest
from textual import events

from lcq.models import TaskStatus
from lcq.reasons import WhyCode, because
from tests.conftest import wait_until
from tests.tui.fakes import FakeCluster, a_task, now_ms
from tui import app, asking, source
from tui.columns import last_word
from tui.desk import Desk
from tui.source import Link
from tui.terminal import TerminalDriver

_HOURS_AGO = 5 * 3_600_000
_NEVER_S = 3600.0


def old_task(image: str = "/photos/cover.jpg", **more: object):
    return a_task(image, submitted_ms=now_ms() - _HOURS_AGO, updated_ms=now_ms() - _HOURS_AGO, **more)


async def test_where_ages_are_of_minutes_only_the_title_goes_on_and_where_one_is_of_seconds_all_does(open_console):
    cluster = FakeCluster([old_task()])
    async with open_console(cluster, size=(80, 24)) as console:
        screen = console.app.screen
        await wait_until(lambda: screen.is_still)
        screen.set_filter_text("age>1h")
        assert not screen.is_still, "a filter by age may let go of a row at any second"
        screen.set_filter_text("")
        await wait_until(lambda: screen.is_still)
        cluster.add(a_task("/photos/new.jpg"))
        await console.settle()
        assert not screen.is_still, "the age of the new one is told in seconds"


async def test_a_calm_console_shows_no_rows_anew_until_something_happens(open_console, monkeypatch):
    cluster = FakeCluster([task := old_task()])
    async with open_console(cluster, size=(80, 24)) as console:
        await wait_until(lambda: console.app.screen.is_still)
        shown: list[str] = []
        monkeypatch.setattr(app, "_RESTLESS_S", 0.0)
        monkeypatch.setattr(app, "_WHOLE_S", _NEVER_S)
        screen = console.app.screen
        monkeypatch.setattr(screen, "show_pulse", lambda: shown.append("title"))
        monkeypatch.setattr(screen, "show_news", lambda: shown.append("all"))
        await wait_until(lambda: shown[-2:] == ["title", "title"])
        cluster.change(task.id, "claim_tasks", status=TaskStatus.PROCESSING, node="gpu-1")
        await wait_until(lambda: "all" in shown)


async def asker_of(cluster: FakeCluster, tasks: asyncio.TaskGroup) -> Desk:
    """A desk that has read the cluster, with a list in sight and an asker at work."""
    desk = Desk(cluster, cluster, cluster="test")
    desk.view = "tasks"
    tasks.create_task(desk.feed.run())
    await wait_until(lambda: desk.link.loaded)
    desk.flush()
    desk.tasks.resize(2)
    tasks.create_task(desk.asker.run())
    return desk


@pytest.fixture
def cluster() -> FakeCluster:
    """Six waiting tasks, of which two fit into a list."""
    cluster = FakeCluster([a_task(f"/p/{n}.jpg", task_id=f"task{n}00000000000") for n in range(6)])
    for task_id in cluster.records:
        cluster.reasons[task_id] = because(WhyCode.NO_NODE, "no node is online", known=0)
    return cluster


async def done_with(tasks: asyncio.TaskGroup) -> None:
    for task in list(tasks._tasks):
        task.cancel()


async def test_who_comes_to_other_tasks_hears_at_once_why_they_wait(cluster, monkeypatch):
    monkeypatch.setattr(asking, "ASK_S", _NEVER_S)
    monkeypatch.setattr(asking, "CALM_S", _NEVER_S)
    async with asyncio.TaskGroup() as tasks:
        desk = await asker_of(cluster, tasks)
        await wait_until(lambda: cluster.asked)
        desk.tasks.move_to(5)
        desk.look(by_hand=True)
        await wait_until(lambda: all(row.told for row in desk.tasks.window()))
        assert cluster.asked[-1] == tuple(row.id for row in desk.tasks.window())
        await done_with(tasks)


async def test_while_a_scheduler_takes_its_time_it_is_said_that_it_is_asked(cluster, monkeypatch):
    monkeypatch.setattr(asking, "SLOW_S", 0.01)
    may_answer, answer = asyncio.Event(), cluster.whys

    async def slow(ids):
        await may_answer.wait()
        return await answer(ids)

    cluster.whys = slow
    async with asyncio.TaskGroup() as tasks:
        desk = await asker_of(cluster, tasks)
        row = desk.store.tasks.rows
        await wait_until(lambda: row["task500000000000"].told)
        assert last_word(row["task500000000000"], now_ms()) == ("…", "plain")
        may_answer.set()
        await wait_until(lambda: row["task500000000000"].told.text == "no node is online")
        await done_with(tasks)


async def test_what_the_scheduler_had_no_time_for_comes_first_in_the_next_question(cluster, monkeypatch):
    monkeypatch.setattr(asking, "ASK_S", 0.01)
    monkeypatch.setattr(asking, "CALM_S", _NEVER_S)
    reason = cluster.reasons.pop(last := "task400000000000")
    async with asyncio.TaskGroup() as tasks:
        desk = await asker_of(cluster, tasks)
        await wait_until(lambda: len(cluster.asked) > 1)
        assert (cluster.asked[0][0], cluster.asked[1][0]) == ("task500000000000", last)
        cluster.reasons[last] = reason
        await wait_until(lambda: desk.store.tasks.rows[last].told)
        await done_with(tasks)


async def test_where_nothing_happens_it_is_asked_rarely_and_what_happens_is_asked_about(cluster, monkeypatch):
    monkeypatch.setattr(asking, "ASK_S", 0.01)
    monkeypatch.setattr(asking, "CALM_S", _NEVER_S)
    async with asyncio.TaskGroup() as tasks:
        desk = await asker_of(cluster, tasks)
        await wait_until(lambda: cluster.asked)
        cluster.emit("comment_task", task="of another")  # somewhere in the cluster something happens
        await wait_until(lambda: desk.feed.read_up_to == cluster.log[-1].id)
        desk.look()
        await wait_until(lambda: len(cluster.asked) == 2)
        await done_with(tasks)


async def test_what_a_view_alone_shows_is_read_as_one_comes_to_it_whatever_news_are_waited_for(cluster, monkeypatch):
    monkeypatch.setattr(source, "WAIT_MS", 3_600_000)
    monkeypatch.setattr(source, "ANSWER_S", 2 * _NEVER_S)
    desk = Desk(cluster, cluster, cluster="test")
    async with asyncio.TaskGroup() as tasks:
        feed = tasks.create_task(desk.feed.run())
        await wait_until(lambda: desk.link.loaded)
        desk.view = "causes"
        desk.feed.poke()
        await wait_until(lambda: desk.store.causes_read)
        desk.feed.refetch()
        await wait_until(lambda: cluster.snapshots == 2)
        feed.cancel()


@pytest.mark.usefixtures("news_may_stop")
def test_of_what_the_title_tells_each_change_wakes_the_screen_and_nothing_else_does():
    now = [0.0]
    link, woken = Link(lambda: now[0]), []
    link.on_change = lambda: woken.append(link.state)

    def wakes(happens, *what) -> bool:
        before = len(woken)
        happens(*what)
        return len(woken) > before

    link.loaded = True
    assert not wakes(link.answer)
    assert link.stale_in_s == source.STALE_AFTER_S
    now[0] += source.STALE_AFTER_S + 0.1
    assert (link.is_stale, link.stale_in_s) == (True, None)
    assert wakes(link.fail, "no route")
    assert not wakes(link.fail, "no route")
    assert wakes(link.answer)
    assert not wakes(link.feel_control, 1.0)
    assert wakes(link.lose_control, "nobody")
    assert wakes(link.feel_control, 1.0)
    assert wakes(link.note_settings, "a typing error")
    assert not wakes(link.note_settings, "a typing error")


@pytest.fixture
def typed() -> Iterator[tuple[int, list[object], TerminalDriver]]:
    """Where somebody types, and what the driver makes of it, by its thread."""
    driver = TerminalDriver.__new__(TerminalDriver)
    driver.fileno, ours = os.pipe()
    heard: list[object] = []
    driver._debug, driver.exit_event, driver._woken = False, threading.Event(), os.pipe()
    driver._app = SimpleNamespace(call_later=lambda *what: heard.append("gone"), exit=None)
    driver.process_message = heard.append
    thread = threading.Thread(target=driver.run_input_thread)
    thread.start()
    yield ours, heard, driver
    driver.exit_event.set()
    os.write(driver._woken[1], b"!")
    thread.join()
    for one in {ours, driver.fileno, *driver._woken}:
        os.close(one)


def keys(heard: list[object]) -> list[str]:
    return [one.key for one in heard if isinstance(one, events.Key)]


async def test_keys_come_as_they_are_typed_also_a_lone_escape_and_half_a_character(typed):
    ours, heard, _ = typed
    os.write(ours, b"j")
    await wait_until(lambda: keys(heard) == ["j"])
    os.write(ours, b"\x1b")
    await wait_until(lambda: keys(heard)[1:] == ["escape"], what="the key, and not the beginning of another")
    os.write(ours, b"\x1b[")
    os.write(ours, b"A")
    await wait_until(lambda: keys(heard)[2:] == ["up"])
    os.write(ours, "é".encode()[:1])
    os.write(ours, "é".encode()[1:] + b"\xff")
    await wait_until(lambda: [one.character for one in heard if isinstance(one, events.Key)][3:] == ["é", "�"])
