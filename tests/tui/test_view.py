"""The view: whatever comes, goes or is sorted, the cursor stays on its row and screen line."""

from __future__ import annotations

import random
import sys
from datetime import UTC, datetime

import pytest

from lcq.models import ErrorClass, Failure, Task, TaskPriority, TaskRecord, TaskStatus, TaskType
from lcq.query import parse
from lcq.task_fields import RECORD_FIELDS, parse_where
from tui.columns import TASK_COLUMNS, TASK_FIELDS
from tui.store import Shelf, TaskRow, task_row
from tui.view import View

SORTS = {column.id: column.sort for column in TASK_COLUMNS}


def a_row(number: int, **more: object) -> TaskRow:
    values: dict[str, object] = {
        "id": f"task{number:06d}", "status": TaskStatus.QUEUED, "revision": 1, "queue": "cpu-light",
        "priority": TaskPriority.NORMAL, "image": f"/p/{number}.jpg", "submitted_ms": number,
    }  # fmt: skip
    return TaskRow(**(values | more))  # type: ignore[arg-type]


def a_view(count: int, *, height: int = 10) -> tuple[Shelf[TaskRow], View[TaskRow]]:
    shelf: Shelf[TaskRow] = Shelf()
    view = View(shelf, SORTS, sort="age", descending=True, fields=TASK_FIELDS)
    for number in range(count):
        shelf.put(a_row(number))
    view.take(shelf.take())
    view.resize(height)
    return shelf, view


def order_holds(view: View[TaskRow], shelf: Shelf[TaskRow]) -> None:
    """The order is what sorting everything anew would give, and every row is found at its place."""
    kept = [row for row in shelf.rows.values() if row.id == view.cursor_id or view.filter.matches(row, view.now_ms)]
    wanted = sorted(((SORTS[view.sort](row), row.id) for row in kept), reverse=view.descending)
    assert [view.id_at(index) for index in range(len(view))] == [row_id for _, row_id in wanted]
    assert all(view.index_of(row_id) == index for index, (_, row_id) in enumerate(wanted))


@pytest.mark.parametrize("seed", range(4))
def test_the_cursor_keeps_its_row_and_screen_line_through_500_sorts_inserts_and_removals(seed):
    chance = random.Random(seed)
    shelf, view = a_view(200)
    next_number = 200
    view.move_to(100)
    for _ in range(500):
        line, row_id = view.cursor_line, view.cursor_id
        assert row_id is not None
        match chance.choice(("sort", "insert", "remove", "change", "storm", "move")):
            case "sort":
                view.set_sort(chance.choice(list(SORTS)), descending=chance.random() < 0.5)
            case "insert":
                shelf.put(a_row(next_number, submitted_ms=chance.randrange(400), queue=chance.choice("abc")))
                next_number += 1
            case "remove" if len(shelf.rows) > 60:
                shelf.drop(chance.choice([other for other in shelf.rows if other != row_id]))
            case "change":
                known = shelf.rows[chance.choice(list(shelf.rows))]
                shelf.put(a_row(int(known.id[4:]), status=chance.choice(list(TaskStatus)), attempt=chance.randrange(5)))
            case "storm":
                for number in range(next_number, next_number + 300):
                    shelf.put(a_row(number, submitted_ms=chance.randrange(400)))
                next_number += 300
                view.take(shelf.take())
                for number in range(next_number - 300, next_number):
                    if f"task{number:06d}" != row_id:
                        shelf.drop(f"task{number:06d}")
            case "move":
                view.move(chance.randrange(-9, 10))
                line, row_id = view.cursor_line, view.cursor_id
        view.take(shelf.take())
        order_holds(view, shelf)
        assert view.cursor_id == row_id
        at_an_end = view.top in (0, len(view) - view.height)  # there the list has no more rows to give
        assert view.cursor_line == line or (at_an_end and view.cursor_line is not None)


def test_new_rows_above_do_not_move_what_the_operator_reads():
    shelf, view = a_view(50)
    view.move(3)
    before = [row.id for row in view.window()]
    for number in range(100, 120):
        shelf.put(a_row(number))
    view.take(shelf.take())
    assert [row.id for row in view.window()] == before
    assert view.top == 20


def test_a_window_scrolled_away_from_the_cursor_stays_too():
    shelf, view = a_view(100)
    view.scroll(50)
    before = [row.id for row in view.window()]
    shelf.put(a_row(1000))
    view.take(shelf.take())
    assert [row.id for row in view.window()] == before
    assert view.cursor_line is None


def test_when_its_row_is_gone_the_cursor_goes_to_the_next_on_the_same_line():
    shelf, view = a_view(50)
    view.move(5)
    below, line = view.id_at(6), view.cursor_line
    assert view.cursor_id is not None
    shelf.drop(view.cursor_id)
    view.take(shelf.take())
    assert (view.cursor_id, view.cursor_line) == (below, line)


def test_a_row_that_went_since_the_last_look_is_left_out_of_the_window_until_then():
    shelf, view = a_view(5)
    shelf.drop("task000002")
    assert [row.id for row in view.window()] == ["task000004", "task000003", "task000001", "task000000"]
    view.take(shelf.take())
    order_holds(view, shelf)


def test_when_the_last_row_is_gone_there_is_no_cursor():
    shelf, view = a_view(1)
    shelf.drop("task000000")
    view.take(shelf.take())
    assert (len(view), view.cursor_id, view.cursor, view.targets()) == (0, None, None, [])
    shelf.put(a_row(7))
    view.take(shelf.take())
    assert view.cursor_id == "task000007"


def test_the_row_under_the_cursor_stays_though_the_filter_no_longer_fits_until_the_cursor_leaves():
    shelf, view = a_view(5)
    view.set_filter("state:queued")
    view.move_to(2)
    chosen = view.cursor_id
    assert chosen is not None
    shelf.put(a_row(int(chosen[4:]), status=TaskStatus.COMPLETED))
    view.take(shelf.take())
    assert view.cursor_id == chosen
    assert len(view) == 5
    view.move(1)
    assert view.index_of(chosen) is None
    assert len(view) == 4


def test_following_keeps_the_cursor_on_the_newest_until_the_operator_moves():
    shelf, view = a_view(20)
    view.set_follow(True)
    shelf.put(a_row(500))
    view.take(shelf.take())
    assert view.cursor_id == "task000500"
    view.move(1)
    shelf.put(a_row(501))
    view.take(shelf.take())
    assert (view.follow, view.cursor_id) == (False, "task000019")


def test_a_frozen_view_holds_still_and_counts_what_it_holds_back():
    shelf, view = a_view(20)
    view.freeze()
    shelf.put(a_row(3, status=TaskStatus.FAILED))
    shelf.drop("task000004")
    shelf.put(a_row(100))
    view.take(shelf.take())
    assert (len(view), view.held) == (20, 3)
    kept = view.row("task000003")
    assert kept is not None
    assert kept.status is TaskStatus.QUEUED
    view.thaw()
    order_holds(view, shelf)
    assert view.row("task000003") is shelf.rows["task000003"]


def test_marks_survive_sorts_and_leave_with_their_rows():
    shelf, view = a_view(20)
    view.mark("task000003")
    view.mark("task000012")
    view.set_sort("id", descending=False)
    assert [row.id for row in view.targets()] == ["task000003", "task000012"]
    view.set_filter("12.jpg")
    assert view.hidden_marks == 1
    shelf.drop("task000003")
    view.take(shelf.take())
    assert view.marks == {"task000012"}


@pytest.mark.parametrize(
    ("text", "expected"),
    [("", 4), ("cat", 2), ("CAT queue:gpu", 1), ("-cat", 2), ("state:failed", 1), ("-state:failed", 3),
     ("out of memory", 1), ("/p/cat", 2), ("[red]", 0), ("cat zebra", 0)],
)  # fmt: skip
def test_a_filter_shows_what_every_word_fits(text, expected):
    shelf, view = a_view(0)
    shelf.put(a_row(1, image="/p/cat.jpg"))
    shelf.put(a_row(2, image="/p/Cat.png", queue="gpu-high"))
    shelf.put(a_row(3, status=TaskStatus.FAILED, error="oom: out of memory"))
    shelf.put(a_row(4))
    view.take(shelf.take())
    view.set_filter(text)
    assert len(view) == expected


def test_a_field_that_does_not_exist_is_named_and_left_out():
    _, view = a_view(3)
    view.set_filter("colour:red state:queued")
    assert view.filter.problem.startswith("no field 'colour' (known: id, state, queue,")
    assert len(view) == 3


def test_a_filter_by_age_lets_rows_go_as_time_goes_by_but_not_the_one_under_the_cursor():
    shelf, view = a_view(0)
    for number, seconds in enumerate((10, 50, 300)):
        shelf.put(a_row(number, submitted_ms=1_000_000 - seconds * 1000))
    view.now_ms = 1_000_000
    view.set_filter("age<1m")
    view.take(shelf.take())
    view.move_to(0)
    assert [row.id for row in view.window()] == ["task000000", "task000001"]
    view.tick(1_020_000)
    assert [row.id for row in view.window()] == ["task000000"]
    view.tick(1_080_000)
    assert view.cursor_id == "task000000"
    assert len(view) == 1
    view.tick(1_000_000)
    assert len(view) == 2


def test_the_same_filter_fits_the_same_tasks_in_the_console_and_on_the_scheduler():
    chance = random.Random(8)
    for _ in range(60):
        record = a_chance_record(chance)
        row, now = task_row(record), record.submitted_ms + chance.randrange(7_200_000)
        for text in FILTERS:
            here = parse(text, TASK_FIELDS, lambda r: r.haystack)
            assert not here.problem
            assert here.matches(row, now) is parse_where(text).matches(record, now), (text, record)
    assert set(TASK_FIELDS) == set(RECORD_FIELDS)


FILTERS = (
    "state:failed",
    "-state:open",
    "queue=cpu-light",
    "node~gpu-[01]",
    "model:cv2",
    "user:ann",
    "job:wed",
    "priority>=high",
    "image:*.jpg",
    "error:memory",
    "cause=oom",
    "why:behind",
    "try>1",
    "progress>50%",
    "age<1h",
    "took>90s",
    "deadline<30s",
    "late:yes",
    "pinned=gpu-0",
    "id:0",
    "memory",
    "-gpu ?wdg",
    "~(queued|failed)",
)


def a_chance_record(chance: random.Random) -> TaskRecord:
    failure = Failure(error_class=ErrorClass.RESOURCE, code=chance.choice(("oom", "killed")), message="out of memory")
    begun = chance.random() < 0.6
    return TaskRecord(
        task=Task(
            task_type=TaskType.INPAINT,
            image_path=chance.choice(("/p/cat.jpg", "/p/dog.png")),
            mask_path="/p/m.png",
            user_id=chance.choice(("anna", "ivo")),
            job=chance.choice((None, "wedding")),
            deadline=chance.choice((None, datetime.fromtimestamp(1_700_000_060, UTC))),
            config={"model": chance.choice(("cv2-telea", "lama"))},
        ),
        status=chance.choice(list(TaskStatus)),
        revision=1,
        queue=chance.choice(("cpu-light", "gpu-high")),
        priority=chance.choice(list(TaskPriority)),
        node=chance.choice(("", "gpu-0", "gpu-7")),
        attempt=chance.randrange(4),
        pinned_node=chance.choice(("", "gpu-0")),
        progress=chance.random(),
        submitted_ms=1_700_000_000_000,
        started_ms=1_700_000_000_500 if begun else None,
        finished_ms=1_700_000_000_500 + chance.randrange(200_000) if begun and chance.random() < 0.5 else None,
        failure=failure if chance.random() < 0.4 else None,
        why=chance.choice(("", "behind 3 tasks")),
    )


def test_rows_that_come_and_go_leave_no_room_behind():
    shelf, view = a_view(25_000)
    first = sys.getsizeof(shelf.rows), sys.getsizeof(view._values)
    for number in range(25_000, 75_000):
        shelf.put(a_row(number))
        shelf.drop(f"task{number - 25_000:06d}")
        if number % 1000 == 0:
            view.take(shelf.take())
    view.take(shelf.take())
    assert (len(shelf.rows), len(view)) == (25_000, 25_000)
    assert (sys.getsizeof(shelf.rows), sys.getsizeof(view._values)) <= first
    order_holds(view, shelf)


def test_marks_of_a_range_of_all_and_turned_round_are_of_what_the_filter_shows():
    shelf, view = a_view(0)
    for number in range(10):
        shelf.put(a_row(number, queue="cpu-light" if number % 2 else "gpu-high"))
    view.take(shelf.take())
    view.set_filter("queue:cpu")  # 9 7 5 3 1
    view.move_to(1)
    assert view.cursor_id is not None
    view.mark(view.cursor_id)
    view.move_to(3)
    view.mark_range()
    assert view.marks == {"task000007", "task000005", "task000003"}
    view.invert_marks()
    assert view.marks == {"task000009", "task000001"}
    view.mark_all()
    assert view.marks == {f"task00000{number}" for number in (1, 3, 5, 7, 9)}
    view.set_filter("")
    view.mark_all()
    assert len(view.marks) == 10
    view.set_filter("queue:gpu")
    view.mark_all()  # all of them are marked: none
    assert view.marks == {f"task00000{number}" for number in (1, 3, 5, 7, 9)}


def test_a_range_without_a_mark_before_it_is_the_row_under_the_cursor():
    _, view = a_view(3)
    view.move_to(1)
    view.mark_range()
    assert view.marks == {"task000001"}


def test_paging_moves_cursor_and_window_together():
    _, view = a_view(100)
    view.move(4)
    view.page(1)
    assert (view.cursor_line, view.index_of(view.cursor_id)) == (4, 14)
    view.page(-0.5)
    assert (view.cursor_line, view.index_of(view.cursor_id)) == (4, 9)


def test_a_smaller_screen_keeps_the_cursor_in_sight():
    _, view = a_view(100)
    view.move(9)
    view.resize(4)
    assert view.cursor_line == 3
