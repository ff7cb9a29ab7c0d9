"""The console's terminal: never waited for, left as it was found, and given up when it is gone."""

from __future__ import annotations

import contextlib
import termios

from textual.drivers.linux_driver import LinuxDriver

from lcq import curtain
from tui.outlet import Outlet

_PAINTED = 2  # stderr, as Textual does: stdout may be a pipe
_PATIENCE_S = 2.0  # for what has been written, when the console ends
_LAST_PATIENCE_S = 1.0
# Ends whatever sequence was cut off; then all that the console has switched on is off again.
_AS_IT_WAS = "\x18\x1b\\" + "".join(
    f"\x1b[?{mode}l" for mode in (2026, 2004, 2048, 1000, 1003, 1015, 1006, 1016, 1004)
) + "\x1b[?7h\x1b[<u\x1b[0m\x1b[?1049l\x1b[?25h"  # fmt: skip


class TerminalDriver(LinuxDriver):
    """Textual's driver with a writer that nobody waits for: its own holds 30 writes, and then stops the event loop."""

    outlet: Outlet | None = None
    """What is written goes through it, from the start of the application mode on."""

    def start_application_mode(self) -> None:
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

    def run_input_thread(self) -> None:
        try:
            super().run_input_thread()
        except OSError:
            self._be_gone()

    def _be_gone(self) -> None:
        """Nobody sits before it any more."""
        self._app.call_later(self._app.exit, 0)
