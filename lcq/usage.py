"""What was used, by whom and where: rows made of the counters of days. Pure: no clock, no I/O (docs/report.md)."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from typing import Literal, get_args

from lcq.errors import InvalidInput
from lcq.models import UsageRow

By = Literal["user", "job", "node", "model", "day"]
BYS: tuple[By, ...] = get_args(By)
EPOCH = date(1970, 1, 1)
MOST_DAYS = 3660
_SPAN = re.compile(r"^(\d+)\s*([dw])$")
_COUNTS = ("completed", "failed", "cancelled", "attempts", "retries")


def day_of(number: int) -> date:
    """The date (UTC) of a day since 1970."""
    return EPOCH + timedelta(days=number)


def number_of(day: date) -> int:
    return (day - EPOCH).days


def days_since(typed: str, today: date) -> tuple[date, ...]:
    """The days that "30d", "4w" or "2026-11-01" means, up to today.

    Raises:
        InvalidInput: it means none.
    """
    found = _SPAN.match(typed.strip())
    if found:
        count = int(found[1]) * (7 if found[2] == "w" else 1)
    else:
        try:
            count = (today - date.fromisoformat(typed.strip())).days + 1
        except ValueError as error:
            raise InvalidInput(
                f"{typed!r} is no time to report since", hint="such as 30d, 4w, or a day: 2026-11-01"
            ) from error
    if not 0 < count <= MOST_DAYS:
        raise InvalidInput(f"{typed!r} is not within the last {MOST_DAYS} days", hint="such as 30d")
    return tuple(today - timedelta(days=back) for back in range(count - 1, -1, -1))


@dataclass(frozen=True)
class Days:
    """The counters of some days, as Redis has them: by day, fields "<dimension>/<measure>/<name>"."""

    fields: Mapping[date, Mapping[str, str]]

    def rows(self, by: By) -> tuple[UsageRow, ...]:
        """By what, what was used: days in their order, all else by the time that attempts took, most first."""
        sums: dict[str, dict[str, int]] = {}
        for day, fields in self.fields.items():
            told: dict[str, dict[str, int]] = {day.isoformat(): {}} if by == "day" else {}
            for field, text in fields.items():
                dimension, measure, name = (*field.split("/", 2), "", "")[:3]
                if dimension == ("all" if by == "day" else by):
                    of = told.setdefault(day.isoformat() if by == "day" else name, {})
                    of[measure] = of.get(measure, 0) + _whole(text)
            for name, measures in told.items():
                known = sums.setdefault(name, {})
                for measure, count in measures.items():
                    known[measure] = known.get(measure, 0) + count
        rows = [_row(name, measures) for name, measures in sums.items()]
        if by == "day":
            return tuple(sorted(rows, key=lambda row: row.name))
        return tuple(sorted(rows, key=lambda row: (-row.work_s, -row.tasks, row.name)))


def total_of(rows: Iterable[UsageRow]) -> UsageRow:
    """The sum of rows, without a name."""
    rows = tuple(rows)
    counts = {name: sum(getattr(row, name) for row in rows) for name in _COUNTS}
    return UsageRow(
        name="", **counts,
        megapixels=sum(row.megapixels for row in rows), gpu_s=sum(row.gpu_s for row in rows),
        cpu_s=sum(row.cpu_s for row in rows), cost=sum(row.cost for row in rows),
        function_s=sum(row.function_s for row in rows),
    )  # fmt: skip


def _row(name: str, measures: Mapping[str, int]) -> UsageRow:
    return UsageRow(
        name=name,
        **{name: measures.get(name, 0) for name in _COUNTS},
        megapixels=measures.get("pixels", 0) / 1e6,
        gpu_s=measures.get("gpu_ms", 0) / 1000,
        cpu_s=measures.get("cpu_ms", 0) / 1000,
        cost=measures.get("cost", 0) / 1e6,
        function_s=measures.get("function_ms", 0) / 1000,
    )


def _whole(text: str) -> int:
    try:
        return int(text)
    except ValueError:
        return 0


def told_amount(value: float) -> str:
    """An amount for people: to the hundredth, and a small one to two digits that say something."""
    if value == 0:
        return "0"
    return f"{value:,.2f}" if value >= 0.1 else f"{value:.2g}"


def today_of(now_ms: int) -> date:
    """The day (UTC) of a time in ms since 1970."""
    return datetime.fromtimestamp(now_ms / 1000, UTC).date()


CSV_COLUMNS = (
    "name", "tasks", "completed", "failed", "cancelled", "attempts", "retries", "megapixels", "gpu_s", "cpu_s", "cost",
    "function_s",
)  # fmt: skip


def as_text_cell(value: object) -> object:
    """A cell of a CSV file: text that a spreadsheet would take for a formula is quoted."""
    return f"'{value}" if isinstance(value, str) and value[:1] in ("=", "+", "-", "@", "\t", "\r") else value


def as_csv(by: By, rows: Sequence[UsageRow]) -> str:
    """Rows as a table for spreadsheets. What they would take for a formula is quoted."""
    import csv
    import io

    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\n")
    writer.writerow([by, *CSV_COLUMNS[1:]])
    for row in rows:
        name = as_text_cell(row.name)
        counts = (row.tasks, row.completed, row.failed, row.cancelled, row.attempts, row.retries)
        used = (f"{row.megapixels:.3f}", f"{row.gpu_s:.3f}", f"{row.cpu_s:.3f}", f"{row.cost:.6f}")
        writer.writerow([name, *counts, *used, f"{row.function_s:.3f}"])
    return out.getvalue()
