"""What is seen from the command until the console's first frame: its name, where it will stand.

Half a second of nothing makes people press Enter again. What they type meanwhile is not echoed; the console gets it.
"""

from __future__ import annotations

import contextlib
import os
import signal
import sys
import termios
from types import FrameType
from typing import Any

_PAINTED = 2  # where Textual paints, too
_UP = "\x1b[?1049h\x1b[?25l\x1b[2J\x1b[H\x1b[1m LCQ\x1b[0m"
_DOWN = "\x1b[0m\x1b[?1049l\x1b[?25h"
_ENDING = (signal.SIGTERM, signal.SIGHUP)

_found: list[Any] | None = None
"""How the terminal was set; None: there is no curtain."""


def draw() -> None:
    """Draw it, where there is a terminal that can have one."""
    global _found
    if _found is not None or os.environ.get("TERM", "dumb") in ("", "dumb"):
        return
    if not (os.isatty(_PAINTED) and sys.stdin is not None and sys.stdin.isatty()):
        return
    with contextlib.suppress(termios.error, OSError, ValueError):
        found = termios.tcgetattr(sys.stdin.fileno())
        quiet = [*found]
        quiet[3] &= ~termios.ECHO
        termios.tcsetattr(sys.stdin.fileno(), termios.TCSANOW, quiet)
        _found = found
        for number in _ENDING:
            signal.signal(number, _end)
        os.write(_PAINTED, _UP.encode())


def hand_over() -> None:
    """The console paints from now on: the terminal is set as it was found, and what is seen stays until then."""
    global _found
    if _found is None:
        return
    found, _found = _found, None
    for number in _ENDING:
        if signal.getsignal(number) is _end:
            signal.signal(number, signal.SIG_DFL)
    with contextlib.suppress(termios.error, OSError, ValueError):
        termios.tcsetattr(sys.stdin.fileno(), termios.TCSANOW, found)


def draw_back() -> None:
    """There will be no console: the terminal is as it was found. After ``hand_over()`` this does nothing."""
    if _found is None:
        return
    hand_over()
    with contextlib.suppress(OSError):
        os.write(_PAINTED, _DOWN.encode())


def _end(number: int, frame: FrameType | None) -> None:
    draw_back()
    os.kill(os.getpid(), number)
