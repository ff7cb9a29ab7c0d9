"""The console's terminal: never waited for, left as it was found, and given up when it is gone."""

from __future__ import annotations

import contextlib
import os
import select
import termios
from codecs import getincrementaldecoder
from collections.abc import Iterable

from textual._xterm_parser import XTermParser
from textual.constants import ESCAPE_DELAY
from textual.drivers.linux_driver import LinuxDriver
from textual.message import Message

from lcq import curtain
from tui.outlet import Outlet

_PAINTED = 2  # stderr, as Textual does: stdout may be a pipe
_PATIENCE_S = 2.0  # for what has been written, when the console ends
_LAST_PATIENCE_S = 1.0
_READ_BYTES = 4096
# Ends whatever sequence was cut off; then all that the console has switched on is off again.
_AS_IT_WAS = "\x18\x1b\\" + "".join(
    f"\x1b[?{mode}l" for mode in (2026, 2004, 2048, 1000, 1003, 1015, 1006, 1016, 1004)
) + "\x1b[?7h\x1b[<u\x1b[0m\x1b[?1049l\x1b[?25h"  # fmt: skip


class TerminalDriver(LinuxDriver):
    """Textual's driver with a writer that nobody waits for: its own holds 30 writes, and then stops the event loop."""

    outlet: Outlet | None = None
    """What is written goes through it, from the start of the application mode on."""

    _woken: tuple[int, int] | None = None  # a pipe: what lies in it wakes who waits for keys

    def start_application_mode(self) -> None:
        self._woken = self._woken or os.pipe()
        self.outlet = Outlet(_PAINTED, self._be_gone)
        self.outlet.start()
        curtain.hand_over()
        super().start_application_mode()  # type: ignore[no-untyped-call]
        if self._writer_thread is not None:  # Textual's own: nothing goes through it
            self._writer_thread.stop()
            self._writer_thread = None

    def write(self, data: str) -> None:
        if self.outlet is not None:
            self.outlet.write(data)

    def close(self) -> None:
        """End, whatever the terminal does: one that has stopped finds, should it go on, how it was before."""
        if self.outlet is None or self.outlet.end(_PATIENCE_S):
            return
        self.outlet.give_up(_AS_IT_WAS)
        with contextlib.suppress(termios.error):
            termios.tcflush(self.fileno, termios.TCOFLUSH)  # makes room
        self.outlet.join(_LAST_PATIENCE_S)

    def disable_input(self) -> None:
        if self._woken is not None:
            os.write(self._woken[1], b"!")  # it stays there until the thread has ended: it sleeps no more
        super().disable_input()
        if self._woken is not None:
            os.read(self._woken[0], 1)

    def run_input_thread(self) -> None:
        """Take in what is typed. Textual's own looks ten times a second whether it is to end, also while nobody types;
        this one sleeps until somebody does, or until a lone escape turns out to be the key."""
        woken = self._woken[0] if self._woken is not None else self.fileno
        parser, decode = XTermParser(self._debug), getincrementaldecoder("utf-8")("replace").decode
        is_waited_for = False  # what has come may be the beginning of something
        try:
            while not self.exit_event.is_set():
                ready, _, _ = select.select([self.fileno, woken], [], [], ESCAPE_DELAY if is_waited_for else None)
                is_waited_for = self.fileno in ready
                if is_waited_for:
                    data = os.read(self.fileno, _READ_BYTES)
                    if not data:
                        self._be_gone()
                        return
                    if text := decode(data):  # none: the rest of a character is still to come
                        self._deal_with(parser.feed(text))
                self._deal_with(parser.tick())
        except OSError:
            self._be_gone()

    def _deal_with(self, messages: Iterable[Message]) -> None:
        for message in messages:
            self.process_message(message)

    def _be_gone(self) -> None:
        """Nobody sits before it any more."""
        self._app.call_later(self._app.exit, 0)
