"""What failures have in common: messages of the same trouble become the same text."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lcq.causes import in_common
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
