"""Honest about what it knows: round trips, losses, clocks, other operators (pitfalls 12 and 15)."""

from __future__ import annotations

import gc

import pytest

from lcq.errors import LcqError, SchedulerUnreachable
from lcq.models import ActRecord, TaskPriority, TaskStatus
from tests.conftest import wait_until
from tests.tui.fakes import REDIS_AWAY, FakeCluster, a_node, a_task, now_ms
from tui.source import Link
from tui.widgets.frame import Banner


def three() -> FakeCluster:
    start = now_ms() - 60_000
    return FakeCluster([a_task(f"/p/{n}.jpg", submitted_ms=start + n * 1000) for n in range(3)], [a_node()])


@pytest.mark.usefixtures("news_may_stop")
async def test_the_title_tells_the_round_trips_and_which_of_both_is_gone(open_console):
    cluster = three()
    async with open_console(cluster) as console:
        await wait_until(lambda: "redis  0ms zmq  0ms LIVE" in console.text())
        cluster.control_silent = True
        await wait_until(lambda: "NO SCHEDULER" in console.text())
        assert "zmq   -- " in console.text()
        banner = console.app.screen.query_one(Banner).text
        assert "No scheduler answers since" in banner
        assert banner.casefold().count("no scheduler answers") == 1
        await console.press("j", "plus")
        await wait_until(lambda: "not done: nobody would do it: no scheduler answers" in console.text())
        assert cluster.calls == []
        cluster.control_silent = False
        await wait_until(lambda: "LIVE" in console.text() and not console.app.screen.query_one(Banner).display)
        await console.press("plus")
        await wait_until(lambda: cluster.calls)
        cluster.config_error = "lcq.yaml: line 2: \x1b[31mretries.bsae_s: unknown key, did you mean 'base_s'?"
        told = "settings stay as they were: lcq.yaml: line 2: "
        # a machine that stands still for two seconds shows first that no news came
        await wait_until(lambda: told in console.app.screen.query_one(Banner).text)
        assert "\x1b" not in console.app.screen.query_one(Banner).text
        cluster.config_error = ""
        await wait_until(lambda: not console.app.screen.query_one(Banner).display)


@pytest.mark.usefixtures("news_may_stop")
async def test_while_redis_is_away_acts_are_refused_in_words_and_ages_go_on(open_console):
    cluster = three()
    async with open_console(cluster) as console:
        await console.press("j")
        cluster.trouble = REDIS_AWAY
        await wait_until(lambda: "STALE" in console.text())
        for keys in (("plus",), ("r",), ("X",)):
            console.desk.say("")
            await console.press(*keys)
            await wait_until(lambda: console.desk.said is not None and console.desk.said.text)
        assert "there is no news from the cluster since" in console.text()
        assert cluster.calls == []
        ages = [line[18:22].strip() for line in console.lines() if ". QUEUED" in line]
        await wait_until(lambda: ages != [line[18:22].strip() for line in console.lines() if ". QUEUED" in line])


async def test_a_row_that_has_changed_is_kept_nowhere(open_console):
    """The feed goes on for days: what it once read in is to be free again."""
    cluster = three()
    async with open_console(cluster) as console:
        rows = console.desk.store.tasks.rows
        task_id, old = next(iter(rows.items()))
        cluster.change(task_id, "prioritise_task", priority=TaskPriority.LOW)
        await wait_until(lambda: console.desk.store.tasks.rows[task_id] is not old)
        assert [one for one in gc.get_referrers(old) if isinstance(one, list)] == []


async def test_a_clock_that_is_off_is_noticed_without_any_event(open_console):
    cluster = three()
    cluster.skew_ms = 3_600_000
    async with open_console(cluster) as console:
        await wait_until(lambda: abs(console.desk.link.skew_ms - 3_600_000) < 5_000)
        assert console.desk.link.now_ms - now_ms() > 3_500_000


@pytest.mark.usefixtures("news_may_stop")
def test_the_loss_of_either_is_known_within_two_seconds():
    from tui import pulse, source

    assert pulse.BEAT_S + pulse.ANSWER_S < 2
    assert source.STALE_AFTER_S < 2


def test_a_link_that_reads_old_news_is_not_taken_for_one_that_is_live():
    link = Link()
    assert "not been read" in link.refusal
    link.loaded = True
    link.answer()
    assert link.refusal == ""
    link.lose_control("[gone]")
    first = link.control_lost_at
    link.lose_control("[gone]")
    assert (link.control_lost_at, link.refusal) == (first, "nobody would do it: [gone]")


# ---------------------------------------------------------------- two operators


async def test_who_is_second_gets_a_plain_reason_and_sees_who_was_first(open_console):
    cluster = three()
    async with open_console(cluster) as console:
        await console.press("j", "z")  # held still: what the other does is not seen
        chosen = console.desk.tasks.cursor_id
        assert chosen is not None
        cluster.change(chosen, "cancel_task", status=TaskStatus.CANCELLED, why="by ivo: duplicate")
        cluster.audit = [
            ActRecord(id="1-0", at_ms=now_ms(), act="cancel", actor="ivo", on=f"ids={chosen}", reason="duplicate")
        ]
        await console.press("plus")
        await wait_until(lambda: f"refused {chosen}" in console.text())
        assert "it is cancelled by now" in console.text()
        await console.press("z")
        await wait_until(lambda: "by ivo: duplicate" in console.text())
        await console.press("6")
        await wait_until(lambda: "ivo" in console.text() and "duplicate" in console.text())


@pytest.mark.parametrize(
    ("loss", "told"),
    [
        (SchedulerUnreachable("tcp://gpu-1:5571", 4.0), "no scheduler answers at tcp://gpu-1:5571"),
        (LcqError("maria is not one of the operators any more"), "not one of the operators"),
    ],
)
async def test_rights_that_are_lost_while_one_looks_are_told_and_nothing_is_sent(open_console, loss, told):
    cluster = three()
    async with open_console(cluster, size=(160, 40)) as console:
        await console.press("j")
        cluster.act_trouble = loss
        await wait_until(lambda: "NO SCHEDULER" in console.text())
        await console.press("plus")
        await wait_until(lambda: "not done: nobody would do it" in console.text())
        assert told in console.text()
        assert cluster.calls == []
