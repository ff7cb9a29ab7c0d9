"""A terminal is not sent more than it is meant to be, and news never wait for long."""

from __future__ import annotations

from tests.tui.fakes import FakeCluster
from tui.pace import BURST_S, BYTES_S, DEBT_S, Pace


def test_frames_that_are_too_large_come_less_often_and_a_long_silence_saves_up_one_moment_only():
    now = 100.0
    pace = Pace(lambda: now)
    sent = frames = 0
    for _ in range(8 * 60):  # a minute of eight looks a second
        now += 0.125
        if pace.allows:
            pace.note(5_000)
            sent += 5_000
            frames += 1
    assert BYTES_S * 59 < sent < BYTES_S * 61 + 5_000 + BURST_S * BYTES_S
    now += 3600
    pace.note(round(BURST_S * BYTES_S))
    assert pace.allows
    pace.note(1)
    assert not pace.allows


def test_however_much_was_sent_news_wait_no_longer_than_a_second():
    now = 0.0
    pace = Pace(lambda: now)
    pace.note(10_000_000)
    now = DEBT_S - 0.01
    assert not pace.allows
    now = DEBT_S
    assert pace.allows


async def test_what_the_console_sends_is_counted(open_console):
    async with open_console(FakeCluster()) as console:
        console.app._driver.write("x" * 1_000_000)
        assert not console.app._pace.allows
