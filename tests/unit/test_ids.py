"""Ids: in the order of time, unique over threads and processes, short beginnings forgiven."""

from __future__ import annotations

import subprocess
import sys
import threading
from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lcq import ids
from lcq.ids import ALPHABET, ID_LENGTH, id_time, is_id, new_id, normalise_prefix
from tests.values import THOROUGH


def test_ids_of_one_process_always_increase() -> None:
    made = [new_id() for _ in range(20_000)]
    assert made == sorted(set(made))


def test_ids_are_in_order_of_time_whoever_made_them(monkeypatch: pytest.MonkeyPatch) -> None:
    at = 1_800_000_000_000_000_000
    made = []
    for milliseconds in (0, 1, 2, 1000, 10**9, 10**12):
        monkeypatch.setattr(ids, "_last", 0)  # as another process
        monkeypatch.setattr(ids.time, "time_ns", lambda now=at + milliseconds * 1_000_000: now)
        made.append(new_id())
    assert made == sorted(made)


def test_ids_increase_although_the_wall_clock_goes_back(monkeypatch: pytest.MonkeyPatch) -> None:
    before = new_id()
    monkeypatch.setattr(ids.time, "time_ns", lambda: 1_000_000_000)
    after = [new_id() for _ in range(100)]
    assert [before, *after] == sorted({before, *after})
    assert id_time(after[-1]) - id_time(before) < timedelta(seconds=1)


def test_threads_never_make_the_same_id() -> None:
    made: list[list[str]] = [[] for _ in range(8)]
    start = threading.Barrier(8)

    def work(mine: list[str]) -> None:
        start.wait()
        mine += [new_id() for _ in range(3000)]

    threads = [threading.Thread(target=work, args=(mine,)) for mine in made]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len({one for mine in made for one in mine}) == 8 * 3000
    assert all(mine == sorted(mine) for mine in made)


def test_processes_never_make_the_same_id() -> None:
    script = "from lcq.ids import new_id\nprint('\\n'.join(new_id() for _ in range(5000)))"
    running = [subprocess.Popen([sys.executable, "-c", script], stdout=subprocess.PIPE, text=True) for _ in range(4)]
    made = [line for process in running for line in process.communicate()[0].split()]
    assert [process.returncode for process in running] == [0] * 4
    assert len(set(made)) == 20_000


def test_an_id_tells_when_it_was_made() -> None:
    before = datetime.now(UTC)
    made = id_time(new_id())
    after = datetime.now(UTC)
    assert before - timedelta(milliseconds=1) <= made <= after + timedelta(milliseconds=1)


def test_an_id_has_its_form() -> None:
    made = new_id()
    assert len(made) == ID_LENGTH == 16
    assert is_id(made)
    assert set(made) <= set(ALPHABET)


@pytest.mark.parametrize("text", ["", "1m84x2sshh0b4yj", "1m84x2sshh0b4yjpp", "1M84X2SSHH0B4YJP", "1m84x2sshh0b4yjl"])
def test_what_has_another_form_is_no_id(text: str) -> None:
    assert not is_id(text)


@THOROUGH
@given(st.text(st.sampled_from(ALPHABET), min_size=1, max_size=16), st.data())
def test_a_beginning_is_understood_however_it_is_typed(prefix: str, data: st.DataObject) -> None:
    alike = {"1": "1iIlL", "0": "0oO"}
    typed = "".join(data.draw(st.sampled_from(alike.get(char, char + char.upper()))) for char in prefix)
    assert normalise_prefix(f" {typed}\n") == prefix
