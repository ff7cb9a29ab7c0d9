"""What comes into a queue and leaves it, and when it is empty."""

from __future__ import annotations

import pytest

from lcq.models import DEFAULT_QUEUES, MinuteTally, QueueRecord, TaskStatus
from tui.charts import queue_forecast, queue_graphs
from tui.columns import QUEUE_COLUMNS, QUEUE_FIELDS, pace
from tui.flow import Flow, flow_of
from tui.store import QueueRow, Store

Q = DEFAULT_QUEUES[0].name


def a_minute(number: int, came: int | None, left: int = 0, done: int = 0) -> MinuteTally:
    if came is None:
        return MinuteTally(minute=number)
    return MinuteTally(minute=number, came_in={Q: came}, left_in={Q: left}, completed_in={Q: done} if done else {})


def test_a_pace_is_the_mean_of_the_last_ten_minutes_that_are_over_and_were_counted():
    minutes = [a_minute(0, 900), *(a_minute(n, 4, 3, 2) for n in range(1, 6)), a_minute(6, None)]
    minutes += [*(a_minute(n, 2, 1) for n in range(7, 12)), a_minute(12, 500, 500, 500)]
    assert flow_of(minutes, Q) == Flow(3.0, 2.0, 1.0, 500)
    assert flow_of(minutes, "another") is None
    assert flow_of([a_minute(1, None), a_minute(2, 5)], Q) is None, "the minute under way tells too little"
    assert flow_of([], Q) is None


def test_where_work_has_just_begun_after_a_rest_it_is_at_least_as_fast_as_the_minute_under_way():
    minutes = [*(a_minute(n, 1, 1, done=n // 10) for n in range(1, 11)), a_minute(11, 0, 200, 200)]
    flow = flow_of(minutes, Q)
    assert flow is not None
    assert (flow.done, flow.empty_in_ms(400)) == (0.1, 120_000)


def a_row(waiting: int, *minutes: MinuteTally, paused: bool = False) -> QueueRow:
    store = Store()
    counts = {TaskStatus.QUEUED: waiting - 1, TaskStatus.PENDING: 1} if waiting else {}
    store.put_queues([QueueRecord(config=DEFAULT_QUEUES[0], counts=counts, paused=paused)])
    if minutes:
        store.minutes = minutes
        assert store.put_minutes((*minutes[-2:], a_minute(minutes[-1].minute + 1, 0)))
    (row,) = store.queues.rows.values()
    return row


def told(row: QueueRow) -> list[str]:
    cells = {column.id: column.cell(row, 0)[0] for column in QUEUE_COLUMNS}
    return [cells[name] for name in ("in", "out", "empty")]


STEADY = tuple(a_minute(n, 2, 3, 3) for n in range(3))


@pytest.mark.parametrize(
    ("row", "words"),
    [
        (a_row(360, *STEADY), ["2.0", "3.0", "2h"]),
        (a_row(0, *STEADY), ["2.0", "3.0", "--"]),
        (a_row(360), ["--", "--", "--"]),
        (a_row(360, *STEADY, paused=True), ["2.0", "3.0", "stands"]),
        (a_row(360, *(a_minute(n, 0) for n in range(3))), ["0", "0", "stands"]),
        (a_row(360, *(a_minute(n, 1200, 3, 3) for n in range(3))), ["1.2k", "3.0", "grows"]),
    ],
)
def test_a_queue_tells_what_comes_what_leaves_and_when_it_is_empty(row, words):
    assert told(row) == words


def test_a_queues_pace_is_there_for_filters_and_its_row_changes_only_with_a_minute():
    row = a_row(360, *STEADY)
    assert [QUEUE_FIELDS[name].get(row, 0) for name in ("in", "out", "empty")] == [2.0, 3.0, 120 * 60_000]
    store = Store()
    store.put_queues([QueueRecord(config=DEFAULT_QUEUES[0])])
    store.minutes = STEADY
    store.put_minutes(STEADY[-2:])
    store.queues.take()
    assert store.put_minutes(STEADY[-2:])
    store.put_queues([QueueRecord(config=DEFAULT_QUEUES[0])])
    assert not store.queues.has_news


@pytest.mark.parametrize(
    ("flow", "waiting", "said"),
    [
        (Flow(2, 3, 3), 0, "empty"),
        (None, 9, ""),
        (Flow(9, 3, 3), 9, "grows by 6 a minute"),
        (Flow(0, 50, 0), 9, "nothing done in 10 minutes"),
        (Flow(2, 3, 3), 360, "empty in 2h00m at this pace"),
    ],
)
def test_the_forecast_of_a_queue_goes_by_what_is_done_not_by_what_is_moved_away(flow, waiting, said):
    assert queue_forecast(flow, waiting)[0] == said


def test_the_plots_of_a_queue_show_what_came_where_that_is_known():
    waits, done = queue_graphs([*STEADY, a_minute(3, 0)], Q, 360)
    assert waits.note == "empty in 2h00m at this pace"
    assert [series.values for series in done.series] == [[3, 3, 3], [2, 2, 2]]
    assert len(queue_graphs([a_minute(0, None), a_minute(1, None)], Q, 0)[1].series) == 1


@pytest.mark.parametrize(("value", "said"), [(None, "--"), (0, "0"), (0.1, "0.1"), (9.96, "10"), (123_456.0, "123k")])
def test_a_pace_takes_four_cells(value, said):
    assert pace(value) == said
