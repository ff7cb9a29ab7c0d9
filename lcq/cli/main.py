"""The program lcq: a console that is asked for as usual starts by the short way (front.py), all else by program.py."""

from __future__ import annotations

import sys
from typing import Any

from lcq.cli import front


def main() -> None:
    """Do what the command line says, and end the process with its exit code."""
    for stream in (sys.stdout, sys.stderr):  # a terminal that lacks a character gets its code, not a crash
        stream.reconfigure(errors="backslashreplace")  # type: ignore[union-attr]
    asked = front.console_asked_for(sys.argv[1:])
    if asked is not None:
        sys.exit(front.open_console(asked, sys.argv[1:]))
    from lcq.cli.program import run

    run()


def __getattr__(name: str) -> Any:
    """``app``, the whole program, for who calls it from Python; loaded when it is asked for."""
    if name != "app":
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from lcq.cli.program import app

    return app


if __name__ == "__main__":
    main()
