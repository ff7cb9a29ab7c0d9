"""What failures have in common: messages of the same trouble become the same text."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lcq.causes import TREND_MS, in_common, size_class, size_clauses, trend
from lcq.models import Task, TaskPriority, TaskRecord, TaskStatus, TaskType
from lcq.task_fields import parse_where
from tests.values import QUICK


@pytest.mark.parametrize(
    ("message", "expected"),
    [
        ("CUDA out of memory. Tried to allocate 2.00 GiB. GPU 0 has a total capacity of 7.79 GiB",
         "CUDA out of memory. Tried to allocate <n> GiB. GPU <n> has a total capacity of <n> GiB"),
        ("its runner was killed by SIGKILL (out of memory? the kernel's log knows)",
         "its runner was killed by SIGKILL (out of memory? the kernel's log knows)"),
        ("brought down 2 runners, last: its runner exited with code 11",
         "brought down <n> runners, last: its runner exited with code <n>"),
        ("/photos/a b/cat.png: the mask has 1200x800 pixels, the image 1,024 x 768",
         "<path>: the mask has <n>x<n> pixels, the image <n> x <n>"),
        ("no IOPaint answers at http://gpu-7:8080: [Errno 111] Connection refused",
         "no IOPaint answers at <url> [Errno <n>] Connection refused"),
        ("GPU-8f3e2a10-1111-2222-3333-0123456789ab fell off the bus at 0xdeadbeef",
         "<id> fell off the bus at <hex>"),
        ("task 06ft3kq2m8y5z9w1 broke model sd1.5", "task <id> broke model sd1.5"),
        ("digest 9f86d081884c7d659a2feaa0c55ad015", "digest <hex>"),
        ("node node-12 fell silent; a deceased facade", "node node-<n> fell silent; a deceased facade"),
        ("cat.png is torn", "<file> is torn"),
    ],
)  # fmt: skip
def test_what_differs_from_task_to_task_is_replaced_by_its_kind(message: str, expected: str) -> None:
    assert in_common(message, paths=("/photos/a b/cat.png", "")) == expected


@QUICK
@given(st.text(max_size=400), st.integers(0, 10**9), st.integers(0, 10**9))
def test_two_numbers_make_no_two_causes_and_no_text_is_too_long(text: str, one: int, other: int) -> None:
    assert in_common(f"{text} {one} MiB") == in_common(f"{text} {other} MiB")
    assert len(in_common(text)) <= 200


def test_an_image_is_of_one_of_four_classes_of_size():
    sizes = [None, (999, 1000), (1000, 1000), (2000, 1999), (2000, 2000), (4000, 4000), (9000, 9000)]
    assert [size_class(size) for size in sizes] == ["", "<1MP", "1-4MP", "1-4MP", "4-16MP", ">16MP", ">16MP"]


def test_a_trend_counts_by_five_minutes_the_newest_last_and_leaves_out_what_is_older_than_an_hour():
    now = 100 * TREND_MS
    told = trend([now, now - 1, now - TREND_MS, now - 12 * TREND_MS + 1, now - 12 * TREND_MS, now + 5], now)
    assert told == (1, *(0,) * 9, 1, 3)


@pytest.mark.parametrize("size", [None, (10, 10), (1000, 1000), (3999, 1000), (4000, 1000), (4000, 4000), (9000, 9000)])
def test_a_filter_by_a_class_of_size_fits_just_the_images_of_that_class(size: tuple[int, int] | None) -> None:
    record = TaskRecord(
        task=Task(task_type=TaskType.INPAINT, image_path="/a.png"), status=TaskStatus.FAILED, revision=1,
        queue="cpu-light", priority=TaskPriority.NORMAL, size=size,
    )  # fmt: skip
    classes = ("", "<1MP", "1-4MP", "4-16MP", ">16MP")
    fitting = [one for one in classes if parse_where(" ".join(size_clauses(one))).matches(record, 0)]
    assert fitting == [size_class(size)]
