"""What an agent keeps of its log: so many lines and no more, bare of commands to a terminal, and in order."""

from __future__ import annotations

import logging
import os

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lcq.log import RUNNER_LOG, about
from lcq.wire import MOST_LOG_CHARS
from tests.conftest import wait_until
from worker import logbook
from worker.last_words import LastWords
from worker.logbook import MOST_LINE, Logbook, bare


@pytest.mark.parametrize(
    ("written", "kept"),
    [
        ("\x1b[1;31mred\x1b[0m text", "red text"),
        ("\x1b]0;owned\x07title", "title"),
        ("\x1b]52;c;Y2F0\x1b\\clip", "clip"),
        ("\x1bP1$r\x1b\\dcs", "dcs"),
        ("a\tb", "a   b"),
        (" 10%\r 55%\r100% done", "100% done"),
        ("ends so\r", "ends so"),
        ("bell\x07 and \x00nul\x9b", "bell and nul"),
        ("\u202egnp.tac", "gnp.tac"),
        ("字" * 3000, "字" * MOST_LINE),
    ],
)
def test_commands_to_a_terminal_are_taken_out(written, kept):
    assert bare(written) == kept


@given(st.text(alphabet=st.sampled_from("\x1b[]mP;\\\x07\x9b0A a\r"), max_size=60))
def test_whatever_comes_nothing_that_commands_is_left(text):
    assert not set(bare(text)) & {"\x1b", "\x07", "\x9b", "\r"}


def note(book: Logbook, source: str, text: str, *, task: str = "", attempt: int = 0) -> None:
    """A line that the runner in slot ``source`` wrote, as the agent passes it on."""
    facts = {"slot": source, "task": task, "attempt": attempt}
    book.emit(logging.makeLogRecord({"name": RUNNER_LOG, "levelno": logging.INFO, "msg": text, **facts}))


def test_the_log_of_this_process_and_what_runners_write_stand_in_one_order():
    book = Logbook()
    logger = logging.getLogger("tests.logbook")
    logger.addHandler(book)
    try:
        logger.error("task %s, attempt %d: broke", "t1", 1)
        note(book, "cpu-0", "Traceback", task="t1", attempt=1)
        note(book, "cpu-0", "two\nlines", task="t2", attempt=3)
        try:
            raise OSError("disk")
        except OSError:
            logger.exception("cannot write")
    finally:
        logger.removeHandler(book)
    lines, first, last = book.read(-1, 100)
    assert [(line.number, line.source, line.level, line.text) for line in lines] == [
        (0, "agent", "ERROR", "task t1, attempt 1: broke"),
        (1, "cpu-0", "", "Traceback"),
        (2, "cpu-0", "", "two"),
        (3, "cpu-0", "", "lines"),
        (4, "agent", "ERROR", "cannot write: OSError('disk')"),
    ]
    assert (first, last) == (0, 4)
    of_task, _, last = book.read(-1, 100, "t1")
    assert ([line.number for line in of_task], last) == ([0, 1], 4)  # those of the task, and those that name it


def test_following_misses_nothing_and_tells_nothing_twice(monkeypatch):
    monkeypatch.setattr(logbook, "MOST_LINES", 50)
    book = Logbook()
    seen: list[int] = []
    after = -1
    for turn in range(20):
        for number in range(7):
            note(book, "cpu-0", f"{turn} {number}")
        while True:
            lines, first, last = book.read(after, 3)
            if after < 0:
                lines, first, last = book.read(0, 3)
                seen.append(0)
            assert first <= (after + 1 if after >= 0 else 0)
            seen += [line.number for line in lines]
            if last == after or not lines:
                break
            after = last
    assert seen == list(range(140))
    note(book, "x", "new")
    assert book.read(book.read(-1, 1)[2], 5)[0] == ()


def test_so_many_lines_and_characters_are_kept_and_an_answer_is_bounded(monkeypatch):
    book = Logbook()
    for _ in range(5000):
        note(book, "cpu-0", "y" * 100)
    assert len(book._lines) == logbook.MOST_LINES
    assert book.read(-1, 10)[1] == 1000
    for _ in range(1500):
        note(book, "cpu-0", "x" * 5000)
    assert sum(len(line.text) for line in book._lines) <= logbook.MOST_CHARS
    newest, _, last = book.read(-1, 500)
    assert sum(len(line.text) for line in newest) <= MOST_LOG_CHARS
    assert newest[-1].number == last
    oldest, first, last = book.read(0, 500)
    assert (oldest[0].number, oldest[-1].number) == (first, last)


def test_what_the_agent_says_about_an_attempt_is_of_that_task_and_goes_to_its_own_log():
    told: list[object] = []
    book = Logbook(lambda key, level, text: told.append((key, level, text)))
    logger = logging.getLogger("tests.logbook")
    logger.addHandler(book)
    try:
        with about(task="t1", attempt=2, job="", cause="oom"):
            logger.warning("short of memory")
        logger.warning("of nobody")
    finally:
        logger.removeHandler(book)
    note(book, "cpu-0", "a runner's", task="t1", attempt=2)  # comes by another way
    assert [(line.task, line.attempt, line.text) for line in book.read(-1, 9)[0]] == [
        ("t1", 2, "short of memory"),
        ("", 0, "of nobody"),
        ("t1", 2, "a runner's"),
    ]
    assert told == [(("t1", 2), "WARNING", "short of memory")]


async def test_a_runners_lines_are_told_when_they_are_whole_and_the_last_at_its_end():
    told: list[str] = []
    words = LastWords(told.append)
    os.write(words.writer, b"one\ntw")
    await wait_until(lambda: told == ["one"])
    os.write(words.writer, "o\nthré".encode())
    words.close()
    assert told == ["one", "two", "thré"]


async def test_at_an_attempts_end_a_line_that_was_begun_is_its_own():
    told: list[str] = []
    came: list[bytes] = []
    words = LastWords(told.append, on_data=came.append)
    os.write(words.writer, b"no end")
    words.settle()
    os.write(words.writer, b"next\n")
    words.close()
    assert told == ["no end", "next"]
    assert b"".join(came) == b"no endnext\n"
