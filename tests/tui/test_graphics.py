"""Pixels of the terminal's own, where it has them: when it is asked, and what is sent."""

from __future__ import annotations

import importlib.util
import os
import pty
import sys
import termios

import pytest
from textual_image.widget import SixelImage

from tests.conftest import wait_until
from tests.tui.fakes import FakeCluster
from tests.tui.test_gallery import a_finished_task
from tui.graphics import Graphics, ask_terminal, find_graphics, has_pixels, why_cells
from tui.pictures import UPPER_HALF
from tui.screens.picture import PictureScreen
from tui.widgets.picture import PictureView


@pytest.mark.parametrize(
    ("wish", "environment", "why"),
    [
        ("auto", {"TERM": "xterm-kitty"}, ""), ("auto", {"TERM": "xterm", "TMUX": "/tmp/x"}, "a multiplexer"),
        ("auto", {"TERM": "screen-256color"}, "a multiplexer"), ("sixel", {"TERM": "tmux-256color"}, ""),
        ("auto", {"TERM": "xterm-kitty", "SSH_TTY": "/dev/pts/1"}, "a link"),
        ("cells", {"TERM": "xterm-kitty"}, "console.pictures"), ("kitty", {"NO_COLOR": "1"}, "NO_COLOR"),
    ],
)  # fmt: skip
def test_the_terminal_is_asked_only_where_its_answer_can_come_and_is_wanted(wish, environment, why):
    assert why_cells(wish, environment, is_terminal=True).startswith(why)
    assert bool(why_cells(wish, environment, is_terminal=True)) == bool(why)


@pytest.mark.parametrize(
    ("answer", "pixels"),
    [
        (b"\x1b[?62;4;22c", True), (b"\x1b_Gi=31;OK\x1b\\\x1b[?62;c", True), (b"\x1b[?4;22c", False), (b"", False),
        (b"\x1b[?62;22c", False), (b"j\x1b_Gi=31;ENOTSUPPORTED\x1b\\\x1b[?64;1;2c", False),
    ],
)  # fmt: skip
def test_a_terminal_tells_whether_it_has_pixels(answer, pixels):
    assert has_pixels(answer) is pixels


def test_the_terminal_is_asked_and_left_as_it_was(monkeypatch):
    ours, theirs = pty.openpty()
    before = termios.tcgetattr(theirs)
    with os.fdopen(theirs, "rb", buffering=0) as stream:
        monkeypatch.setattr(sys, "__stdin__", stream)
        os.write(ours, b"\x1b[?62;4c\n")  # typed ahead, as a terminal's answer is
        assert has_pixels(ask_terminal(within_s=60))
        assert termios.tcgetattr(theirs) == before
        sent = os.read(ours, 1000)  # the echo of the answer first, perhaps alone
        while not sent.endswith(b"\x1b[c"):
            sent += os.read(ours, 1000)
    os.close(ours)


def test_without_a_terminal_or_the_extra_nothing_is_asked(monkeypatch):
    assert find_graphics("auto", {"TERM": "xterm-kitty"}) is None  # a test's streams are none
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    assert "pip install 'lcq[pictures]'" in why_cells("auto", {"TERM": "xterm-kitty"}, is_terminal=True)


async def test_sixels_take_the_place_of_the_cells_and_words_that_of_both(open_console, tmp_path):
    record = a_finished_task(tmp_path)
    async with open_console(FakeCluster([record]), size=(80, 24)) as console:
        console.desk.graphics = Graphics("sixel", (10, 20))
        await console.press("i")
        screen = console.app.screen
        assert isinstance(screen, PictureScreen)
        shown = screen.query_one("#left", PictureView).query_one(SixelImage)
        await wait_until(lambda: screen.pictures is not None and shown.image is not None)
        await wait_until(lambda: shown.image.size == (400, 267), what="40 cells of 10 pixels")
        await wait_until(lambda: (shown.size.width, shown.size.height) == (40, 14), what="the layout with it")
        assert UPPER_HALF not in console.text()
        assert "\x1bP" in console.text()
        await console.press("v", "plus")
        await wait_until(lambda: shown.image.size[0] > 600)
        await console.pilot.resize_terminal(60, 20)
        await wait_until(lambda: 0 < shown.size.width <= 60)
