"""How the programs of LCQ write down what they do: a line an event, to stderr or a file, for people or for machines.

Loggers are the standard library's; structlog makes their lines. It is loaded with the first line that is written: a
command or a console that has nothing to say never pays for it.
"""

from __future__ import annotations

import contextlib
import logging
import os
import sys
from collections.abc import Iterator, Mapping, MutableMapping
from contextvars import ContextVar
from datetime import UTC, datetime
from pathlib import Path
from types import MappingProxyType
from typing import IO, TYPE_CHECKING, Any, Literal

from lcq.loading import without
from lcq.private_folder import make_private

if TYPE_CHECKING:
    from types import ModuleType

LogLevel = Literal["debug", "info", "warning", "error"]
LOG_LEVELS: tuple[LogLevel, ...] = ("debug", "info", "warning", "error")
LogFormat = Literal["auto", "json", "pretty"]

FACTS = ("node", "job", "task", "attempt", "cause", "slot", "trace")
"""What a line may carry beside its words, in the order in which it is written."""

RUNNER_LOG = "runner"
"""The logger under which an agent passes on what its runners write, whatever ``log_level`` says."""

_FILE_BYTES = 8 * 2**20
_OLD_FILES = 2
_NOTHING: Mapping[str, Any] = MappingProxyType({})
_about: ContextVar[Mapping[str, Any]] = ContextVar("lcq_log_about", default=_NOTHING)

_Event = MutableMapping[str, Any]


@contextlib.contextmanager
def about(**facts: Any) -> Iterator[None]:
    """Every line that is logged within the block, and by what is begun in it, carries these of ``FACTS``.

    Those that are empty say nothing; an inner block goes over an outer one.
    """
    told = {name: value for name, value in facts.items() if value not in (None, "", 0)}
    if not told:
        yield
        return
    token = _about.set({**_about.get(), **told})
    try:
        yield
    finally:
        _about.reset(token)


def facts_of(record: logging.LogRecord) -> dict[str, Any]:
    """The facts of a line that is being written: of its own ``extra``, else of the block that it was logged in."""
    known = {**_about.get(), **{name: record.__dict__[name] for name in FACTS if name in record.__dict__}}
    return {name: known[name] for name in FACTS if name in known}


def setup_logging(level: LogLevel, *, file: Path | None = None, form: LogFormat = "pretty") -> None:
    """Send the log of this process to ``file`` (kept below 25 MB), or to stderr; undoes an earlier call.

    ``form`` "auto": for people where stderr is a terminal, else a JSON document a line.
    """
    handler: logging.Handler
    if file is None:
        handler = logging.StreamHandler(sys.stderr)
    else:
        from logging.handlers import RotatingFileHandler  # here: who logs to stderr needs no more

        make_private(file.parent)
        handler = RotatingFileHandler(
            file, maxBytes=_FILE_BYTES, backupCount=_OLD_FILES, encoding="utf-8", errors="backslashreplace"
        )
    is_terminal = file is None and _is_terminal(sys.stderr)
    handler.setFormatter(
        _Lines(
            as_json=form == "json" or (form == "auto" and not is_terminal),
            colours=is_terminal and not os.environ.get("NO_COLOR"),
        )
    )
    root = logging.getLogger()
    for old in tuple(root.handlers):
        root.removeHandler(old)
        old.close()
    root.addHandler(handler)
    root.setLevel(logging.WARNING)  # of others' code only what matters
    logging.getLogger(RUNNER_LOG).setLevel(logging.INFO)
    set_log_level(level)
    logging.captureWarnings(True)


def set_log_level(level: LogLevel) -> None:
    """How much our own code logs from now on."""
    for name in ("lcq", "worker", "tui"):
        logging.getLogger(name).setLevel(level.upper())


def _is_terminal(stream: IO[str] | None) -> bool:
    try:
        return stream is not None and stream.isatty()
    except ValueError:  # it is closed
        return False


# ---------------------------------------------------------------- lines


class _Lines(logging.Formatter):
    """Has structlog write a record; makes what it needs when the first one comes."""

    def __init__(self, *, as_json: bool, colours: bool) -> None:
        super().__init__()
        self._as_json, self._colours = as_json, colours
        self._made: logging.Formatter | None = None

    def format(self, record: logging.LogRecord) -> str:
        if self._made is None:
            self._made = _json_lines() if self._as_json else _pretty_lines(colours=self._colours)
        return self._made.format(record)


def _structlog() -> ModuleType:
    """structlog, without rich where nothing else has loaded that: it would be most of the price, for tracebacks that
    we do not ask for."""
    if "structlog" not in sys.modules:
        with without("rich"):
            import structlog.stdlib
    import structlog

    return structlog


def _json_lines() -> logging.Formatter:
    lib = _structlog()
    formatter: logging.Formatter = lib.stdlib.ProcessorFormatter(
        foreign_pre_chain=[_told, lib.processors.format_exc_info],
        processors=[_in_order, _without_secrets, lib.processors.JSONRenderer()],
    )
    return formatter


def _pretty_lines(*, colours: bool) -> logging.Formatter:
    lib = _structlog()
    dev = lib.dev
    styles = dev.ConsoleRenderer(colors=colours).get_default_level_styles(colors=colours)
    dim, reset, bright = ("\x1b[2m", "\x1b[0m", "\x1b[36m") if colours else ("", "", "")

    def plain(style: str = "", *, postfix: str = "", width: int = 0) -> Any:
        return dev.KeyValueColumnFormatter(None, style, reset, str, postfix=postfix, width=width)

    columns = [
        dev.Column("timestamp", plain(dim)),
        dev.Column("level", _Level(styles, reset)),
        dev.Column("logger", plain(dim, postfix=":")),
        dev.Column("event", plain()),
        dev.Column("", dev.KeyValueColumnFormatter(bright, "", reset, str)),
    ]
    formatter: logging.Formatter = lib.stdlib.ProcessorFormatter(
        foreign_pre_chain=[_told, lib.processors.format_exc_info],
        processors=[
            _in_order,
            _without_secrets,
            _spelled_out,
            dev.ConsoleRenderer(columns=columns, sort_keys=False, exception_formatter=dev.plain_traceback),
        ],
    )
    return formatter


class _Level:
    """A column for how grave a line is."""

    def __init__(self, styles: Mapping[str, str], reset: str) -> None:
        self._styles, self._reset = styles, reset

    def __call__(self, key: str, value: object) -> str:
        style = self._styles.get(str(value), "")
        return f"{style}{str(value).upper():<7}{self._reset if style else ''}"


def _told(_logger: object, _method: str, event: _Event) -> _Event:
    """What a record of the standard library says beside its message."""
    record: logging.LogRecord = event["_record"]
    when = datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds")
    event["timestamp"] = when.replace("+00:00", "Z")
    event["level"] = record.levelname.lower()
    event["logger"] = record.name
    return {**event, **facts_of(record)}


def _in_order(_logger: object, _method: str, event: _Event) -> _Event:
    """Only what is written, the same first in each line."""
    names = ("timestamp", "level", "logger", "event", *FACTS, "exception")
    return {name: event[name] for name in names if name in event}


def _without_secrets(_logger: object, _method: str, event: _Event) -> _Event:
    """No password of an address: what somebody else's error says may have one, too."""
    from lcq.errors import without_password

    for name, value in event.items():
        if isinstance(value, str) and "//" in value:
            event[name] = without_password(value)
    return event


def _spelled_out(_logger: object, _method: str, event: _Event) -> _Event:
    """Control characters spelled out: a file name may hold any. The lines of a traceback stay lines, set in."""
    for name, value in event.items():
        if name == "exception":
            event[name] = "\n".join(f"    {printable(line)}" for line in str(value).splitlines())
        else:
            event[name] = printable(str(value))
    return event


def printable(text: str) -> str:
    """``text`` on one line: what cannot be printed is spelled out."""
    if text.isprintable():
        return text
    return "".join(char if char.isprintable() else char.encode("unicode_escape").decode() for char in text)
