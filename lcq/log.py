"""How the programs of LCQ write down what they do: a line an event, to stderr or a file."""

from __future__ import annotations

import logging
import sys
import time
from pathlib import Path
from typing import Literal

LogLevel = Literal["debug", "info", "warning", "error"]
LOG_LEVELS: tuple[LogLevel, ...] = ("debug", "info", "warning", "error")

_FILE_BYTES = 8 * 2**20
_OLD_FILES = 2


class _OneLine(logging.Formatter):
    """UTC, level, who, what. Control characters of a message are spelled out: a file name may hold any."""

    converter = staticmethod(time.gmtime)
    default_time_format = "%Y-%m-%dT%H:%M:%S"
    default_msec_format = "%s.%03dZ"

    def __init__(self) -> None:
        super().__init__("%(asctime)s %(levelname)-7s %(name)s: %(message)s")

    def formatMessage(self, record: logging.LogRecord) -> str:  # noqa: N802  logging's own name
        line = super().formatMessage(record)
        return "".join(char if char.isprintable() else char.encode("unicode_escape").decode() for char in line)


def setup_logging(level: LogLevel, *, file: Path | None = None) -> None:
    """Send the log of this process to ``file`` (kept below 25 MB), or to stderr; undoes an earlier call."""
    handler: logging.Handler
    if file is None:
        handler = logging.StreamHandler(sys.stderr)
    else:
        from logging.handlers import RotatingFileHandler  # here: who logs to stderr needs no more

        file.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        handler = RotatingFileHandler(
            file, maxBytes=_FILE_BYTES, backupCount=_OLD_FILES, encoding="utf-8", errors="backslashreplace"
        )
    handler.setFormatter(_OneLine())
    root = logging.getLogger()
    for old in tuple(root.handlers):
        root.removeHandler(old)
        old.close()
    root.addHandler(handler)
    root.setLevel(logging.WARNING)  # of others' code only what matters
    set_log_level(level)
    logging.captureWarnings(True)


def set_log_level(level: LogLevel) -> None:
    """How much our own code logs from now on."""
    for name in ("lcq", "worker", "tui"):
        logging.getLogger(name).setLevel(level.upper())
