"""The activity: the newest acts, older ones as one goes on or filters, and what happens when some are missing."""

from __future__ import annotations

from collections.abc import Sequence

import pytest

from lcq.errors import StateUnavailable
from lcq.models import ActRecord
from tests.conftest import wait_until
from tests.tui.fakes import FakeCluster, a_task, now_ms
from tui import older_acts
from tui.store import Store


def acts_of(numbers: Sequence[int], **more: str) -> list[ActRecord]:
    """As many acts, the newest first; each seventh is by ivo."""
    return [
        ActRecord.model_validate(
            {"id": f"{number}-0", "at_ms": now_ms(), "act": "retry", "actor": "maria" if number % 7 else "ivo",
             "command": f"c{number}"} | more
        )
        for number in sorted(numbers, reverse=True)
    ]  # fmt: skip


@pytest.fixture
def cluster(monkeypatch: pytest.MonkeyPatch) -> FakeCluster:
    """With 99 acts, of which twenty are looked at each second."""
    monkeypatch.setattr("tui.source.ACTS_READ", 20)
    monkeypatch.setattr(older_acts, "PAGE", 20)
    monkeypatch.setattr(older_acts, "LOOK_S", 0.01)
    cluster = FakeCluster([a_task()])
    cluster.audit = acts_of(range(1, 100))
    return cluster


async def test_older_acts_follow_as_one_comes_to_the_lists_end(open_console, cluster):
    async with open_console(cluster, size=(80, 15)) as console:
        await console.press("6")
        await wait_until(lambda: "older ones follow" in console.text() and "the newest " in console.text())
        for _ in range(40):
            if console.desk.store.acts_whole:
                break
            here = len(console.desk.acts)
            await console.press("G")
            await wait_until(lambda here=here: len(console.desk.acts) > here or console.desk.store.acts_whole)
        await wait_until(lambda: " 99 acts   of 2 actors" in console.text())
        cluster.audit = acts_of(range(1, 103))
        await wait_until(lambda: len(console.desk.acts) == 102)


async def test_a_filter_finds_acts_older_than_those_that_are_here(open_console, cluster):
    async with open_console(cluster, size=(80, 24)) as console:
        await console.press("6")
        await wait_until(lambda: console.desk.store.acts_read)
        console.app.screen.set_filter_text("actor:ivo")
        await wait_until(lambda: len(console.desk.acts) == 14 and console.desk.store.acts_whole)
        await wait_until(lambda: "14 of 99" in console.text())


async def test_it_is_said_where_older_acts_cannot_be_read(open_console, cluster, monkeypatch):
    async with open_console(cluster, size=(100, 15)) as console:
        acts = cluster.acts

        async def only_the_newest(limit: int, before: str = "") -> tuple[ActRecord, ...]:
            if before:
                raise StateUnavailable("redis://x", "it is loading")
            return await acts(limit)

        monkeypatch.setattr(cluster, "acts", only_the_newest)
        await console.press("6")
        await wait_until(lambda: "older ones follow" in console.text())
        await console.press("G")
        await wait_until(lambda: "older ones cannot be read: " in console.text())


def put(store: Store, numbers: Sequence[int], limit: int | None = 5) -> list[int]:
    store.put_acts(acts_of(numbers), now_ms(), limit=limit)
    return sorted(int(act_id.partition("-")[0]) for act_id in store.acts.rows)


def test_older_acts_stay_until_some_between_them_and_the_newest_are_missing():
    store = Store()
    assert put(store, range(6, 11)) == [6, 7, 8, 9, 10]
    assert (store.oldest_act, store.acts_whole) == ("6-0", False)
    store.put_older_acts(acts_of(range(1, 6)), now_ms(), is_last=True)
    assert put(store, range(8, 13)) == list(range(1, 13))
    assert store.acts_whole
    assert put(store, range(13, 18)) == list(range(13, 18)), "what happened between 12 and 13 nobody knows"
    assert not store.acts_whole
    assert put(store, range(12, 17)) == list(range(12, 17)), "a replay went back"
    assert put(store, [1, 2]) == [1, 2], "another audit, which is shorter"
    assert store.acts_whole
    assert put(store, [], limit=None) == []


def test_a_console_that_is_open_for_days_holds_no_more_acts_than_it_would_read(monkeypatch):
    monkeypatch.setattr("tui.store.MOST_ACTS", 8)
    monkeypatch.setattr("tui.store._ACTS_CUT", 2)
    store = Store()
    put(store, range(2, 7))
    store.put_older_acts(acts_of([1]), now_ms(), is_last=True)
    put(store, range(5, 10))
    assert store.acts_whole
    assert put(store, range(6, 11)) == list(range(3, 11))
    assert not store.acts_whole
