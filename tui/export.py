"""Rows as JSON and CSV: by the names that a filter knows them by. No terminal here."""

from __future__ import annotations

import csv
import io
import json
import os
import tempfile
from collections.abc import Iterable, Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from lcq.errors import LcqError
from lcq.query import Kind, QueryField
from tui.store import RowT

Values = dict[str, str | float | None]

CLIPBOARD_BYTES = 50_000
"""As much text a terminal may be sent for its clipboard: OSC 52 grows it by a third, and many stop at 74,994."""


class FileIsThere(LcqError):
    """Nothing was written: a file of that name is there, and nobody said that it may go."""

    def __init__(self, path: Path) -> None:
        super().__init__(f"{path} is there already", hint="another name, or say that it may be overwritten")
        self.path = path


def values_of(row: RowT, fields: Mapping[str, QueryField[RowT]], now_ms: int) -> Values:
    """What there is to say of a row: the fields of the filter language, lengths of time in seconds (``age_s``), and
    its moments (``submitted_at``) in UTC."""
    out: Values = {}
    for name, field in fields.items():
        value = field.get(row, now_ms)
        if field.kind is Kind.SPAN:
            out[f"{name}_s"] = None if value is None else round(float(value) / 1000, 3)
        else:
            out[name] = value
    for slot in type(row).__slots__:  # type: ignore[attr-defined]  # every row is a dataclass with slots
        if slot.endswith("_ms") and not slot.startswith("_"):
            at_ms = getattr(row, slot)
            if isinstance(at_ms, tuple):  # of several the first
                at_ms = at_ms[0] if at_ms else 0
            out[f"{slot.removesuffix('_ms')}_at"] = (
                datetime.fromtimestamp(at_ms / 1000, UTC).isoformat(timespec="milliseconds") if at_ms else None
            )
    return out


def as_json(rows: Iterable[Values]) -> str:
    """One JSON document: a list, or the object itself where there is one row."""
    told = list(rows)
    return json.dumps(told[0] if len(told) == 1 else told, indent=1, ensure_ascii=False)


def as_csv(rows: Iterable[Values]) -> str:
    """CSV with a line of names. A text that a spreadsheet would take for a formula gets an apostrophe before it."""
    told = list(rows)
    out = io.StringIO()
    if told:
        writer = csv.DictWriter(out, fieldnames=list(told[0]), lineterminator="\n")
        writer.writeheader()
        writer.writerows({name: _harmless(value) for name, value in one.items()} for one in told)
    return out.getvalue()


def _harmless(value: Any) -> Any:
    return f"'{value}" if isinstance(value, str) and value[:1] in ("=", "+", "-", "@", "\t", "\r") else value


def write_rows(path: Path, rows: list[Values], *, overwrite: bool = False) -> int:
    """Write ``rows`` to ``path``, as JSON if its name ends so, else as CSV; readable by the user alone. Gives bytes.

    Raises:
        FileIsThere: and ``overwrite`` is not set.
        LcqError: it cannot be written; what was there still is.
    """
    if path.suffix.casefold() == ".json":
        text = json.dumps(rows, indent=1, ensure_ascii=False) + "\n"
    elif path.suffix.casefold() == ".csv":
        text = as_csv(rows)
    else:
        raise LcqError(f"{path.name!r} is neither .csv nor .json", hint="the ending says what is written")
    return write_text(path, text, overwrite=overwrite)


def write_text(path: Path, text: str, *, overwrite: bool = False) -> int:
    """Write ``text`` to ``path``, readable by the user alone. Gives bytes.

    Raises:
        FileIsThere: and ``overwrite`` is not set.
        LcqError: it cannot be written; what was there still is.
    """
    data = text.encode(errors="backslashreplace")
    try:
        if overwrite:
            _replace(path, data)
        else:
            _create(path, data)
    except FileExistsError as error:
        raise FileIsThere(path) from error
    except OSError as error:
        raise LcqError(f"{path} cannot be written: {error.strerror or error}") from error
    return len(data)


def _create(path: Path, data: bytes) -> None:
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    try:
        with os.fdopen(descriptor, "wb") as file:
            file.write(data)
    except OSError:
        path.unlink(missing_ok=True)
        raise


def _replace(path: Path, data: bytes) -> None:
    descriptor, beside = tempfile.mkstemp(dir=path.parent, prefix=".lcq-")  # mode 0600
    try:
        with os.fdopen(descriptor, "wb") as file:
            file.write(data)
        Path(beside).replace(path)
    except OSError:
        Path(beside).unlink(missing_ok=True)
        raise


def proposed_name(mode: str, now_ms: int) -> str:
    """A name for a file of what one view shows now."""
    return f"lcq-{mode}-{datetime.fromtimestamp(now_ms / 1000, UTC):%Y%m%d-%H%M%S}.csv"
