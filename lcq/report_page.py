"""The report as one HTML page: plots and tables, nothing from elsewhere, for light and dark screens and for paper."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from html import escape

from lcq.models import UsageRow
from lcq.usage import told_amount
from lcq.wire import ReportAnswer

_WIDTH, _HEIGHT = 960, 220
_LEFT, _BOTTOM, _TOP = 64, 26, 12
_MOST_ROWS = 50
_LEGIBLE = 14  # dates under an axis
_TITLES = {"user": "Users", "job": "Jobs", "node": "Nodes", "model": "Models"}

_STYLE = """
:root { color-scheme: light dark; --ink: #1c2733; --soft: #5b6875; --line: #d5dbe1; --page: #ffffff; --panel: #f5f7f9;
  --a: #0072b2; --b: #d55e00; --c: #999999; --d: #009e73; --e: #cc79a7; }
@media (prefers-color-scheme: dark) { :root { --ink: #e6ebf0; --soft: #9aa7b4; --line: #35414d; --page: #12181f;
  --panel: #1a222b; --a: #56b4e9; --b: #e69f00; --c: #8b949e; --d: #2fc79b; --e: #e29ac4; } }
* { box-sizing: border-box; }
body { margin: 0 auto; max-width: 1040px; padding: 32px 24px 48px; background: var(--page); color: var(--ink);
  font: 15px/1.45 system-ui, -apple-system, "Segoe UI", Roboto, "Noto Sans", sans-serif; }
h1 { font-size: 26px; margin: 0 0 4px; } h2 { font-size: 18px; margin: 32px 0 8px; }
p.when { color: var(--soft); margin: 0 0 20px; }
.sums { display: flex; flex-wrap: wrap; gap: 12px; }
.sums div { flex: 1 1 120px; background: var(--panel); border: 1px solid var(--line); border-radius: 8px;
  padding: 10px 14px; }
.sums b { display: block; font-size: 22px; font-variant-numeric: tabular-nums; } .sums span { color: var(--soft); }
svg { width: 100%; height: auto; display: block; } svg text { fill: var(--soft); font-size: 11px; }
.a { fill: var(--a); } .b { fill: var(--b); } .c { fill: var(--c); } .d { fill: var(--d); } .e { fill: var(--e); }
.grid { stroke: var(--line); stroke-width: 1; }
.key { display: flex; flex-wrap: wrap; gap: 18px; color: var(--soft); margin: 0 0 6px; }
.key i { display: inline-block; width: 11px; height: 11px; border-radius: 2px; margin-right: 6px; }
table { width: 100%; border-collapse: collapse; font-variant-numeric: tabular-nums; }
th, td { text-align: right; padding: 5px 8px; border-bottom: 1px solid var(--line); white-space: nowrap; }
th { color: var(--soft); font-weight: 600; } th:first-child, td:first-child { text-align: left; white-space: normal;
  overflow-wrap: anywhere; min-width: 160px; }
td .bar { display: block; height: 4px; border-radius: 2px; background: var(--a); margin-top: 3px; }
tr:last-child td { border-bottom: 0; } .none, footer { color: var(--soft); }
footer { margin-top: 36px; font-size: 13px; }
@media print { body { max-width: none; padding: 0; font-size: 11pt; } h2 { break-after: avoid; }
  svg, tr, .sums { break-inside: avoid; } * { print-color-adjust: exact; -webkit-print-color-adjust: exact; } }
"""


@dataclass(frozen=True)
class _Layer:
    """One colour of a stack: its name, its class in the style, and what it measures."""

    name: str
    colour: str
    of: Callable[[UsageRow], float]


def report_page(answer: ReportAnswer, *, cluster: str, made: str, version: str) -> str:
    """The page. ``made``: when, in words. Everything that a user has named is escaped."""
    first, last = (answer.days[0].name, answer.days[-1].name) if answer.days else ("", "")
    tables = {answer.by: answer.rows, **answer.others}
    has_cost = bool(answer.currency) or answer.total.cost > 0
    parts = [
        f"<h1>Usage of {escape(cluster)}</h1>",
        f'<p class="when">{escape(first)} to {escape(last)}, days in UTC. Made {escape(made)}.</p>',
        _sums(answer.total, answer.currency, has_cost),
        _plot(
            "Tasks that ended", answer.days,
            (
                _Layer("completed", "a", lambda row: row.completed),
                _Layer("failed", "b", lambda row: row.failed),
                _Layer("cancelled", "c", lambda row: row.cancelled),
            ),
        ),
        _plot_of_work(answer.days),
    ]  # fmt: skip
    if has_cost:
        name = f"Cost, {answer.currency}" if answer.currency else "Cost"
        parts.append(_plot(name, answer.days, (_Layer("cost", "a", lambda row: row.cost),)))
    parts += [_table(_TITLES[by], by, tables[by], has_cost) for by in _TITLES if by in tables]
    parts.append(
        "<footer>Time of GPUs, CPUs and functions is what attempts held a slot for, also where they failed; it counts "
        f"on the day on which they ended. Megapixels are those of results. LCQ {escape(version)}.</footer>"
    )
    return (
        '<!doctype html>\n<html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        f"<title>Usage of {escape(cluster)}, {escape(first)} to {escape(last)}</title><style>{_STYLE}</style></head>\n"
        "<body>\n" + "\n".join(parts) + "\n</body></html>\n"
    )


def _plot_of_work(days: Sequence[UsageRow]) -> str:
    """In the unit of which the busiest day has some."""
    most_s = max((day.work_s for day in days), default=0.0)
    unit, span_s = ("Hours", 3600) if most_s >= 3600 else ("Minutes", 60) if most_s >= 60 else ("Seconds", 1)
    layers = (
        _Layer("GPU", "d", lambda row: row.gpu_s / span_s),
        _Layer("CPU", "e", lambda row: row.cpu_s / span_s),
        _Layer("functions", "b", lambda row: row.function_s / span_s),
    )
    return _plot(f"{unit} of work", days, layers)


def _sums(total: UsageRow, currency: str, has_cost: bool) -> str:
    told = [
        ("tasks", _short(total.tasks)),
        ("failed", _short(total.failed)),
        ("retries", _short(total.retries)),
        ("megapixels", _short(total.megapixels)),
        ("GPU hours", told_amount(total.gpu_s / 3600)),
        ("CPU hours", told_amount(total.cpu_s / 3600)),
    ]
    if total.function_s > 0:
        told.append(("function hours", told_amount(total.function_s / 3600)))
    if has_cost:
        told.append((currency or "cost", told_amount(total.cost)))
    cells = "".join(f"<div><b>{value}</b><span>{escape(name)}</span></div>" for name, value in told)
    return f'<div class="sums">{cells}</div>'


def _short(value: float) -> str:
    if value and abs(value) < 10:
        return f"{value:.2f}".rstrip("0").rstrip(".")
    return f"{value:,.0f}" if abs(value) >= 100 or value == int(value) else f"{value:,.1f}"


def _steps(most: float) -> list[float]:
    """Where the lines of an axis go: three to six round numbers, the last not below ``most``."""
    if most <= 0:
        return [0.0, 1.0]
    rough = most / 4
    base = 10.0 ** math.floor(math.log10(rough))
    step = next(base * factor for factor in (1, 2, 2.5, 5, 10) if base * factor >= rough)
    return [step * number for number in range(math.ceil(most / step - 1e-9) + 1)]


def _plot(title: str, days: Sequence[UsageRow], layers: Sequence[_Layer]) -> str:
    """Stacked bars, one a day."""
    heading = f"<h2>{escape(title)}</h2>"
    most = max((sum(layer.of(day) for layer in layers) for day in days), default=0.0)
    if most <= 0:
        return f'{heading}<p class="none">none in this time</p>'
    steps = _steps(most)
    high, wide = _HEIGHT - _TOP - _BOTTOM, (_WIDTH - _LEFT) / max(1, len(days))
    shown = [layer for layer in layers if any(layer.of(day) for day in days)]

    def y_of(value: float) -> float:
        return _TOP + high * (1 - value / steps[-1])

    marks = []
    for step in steps:
        y = y_of(step)
        marks.append(f'<line class="grid" x1="{_LEFT}" x2="{_WIDTH}" y1="{y:.1f}" y2="{y:.1f}"/>')
        marks.append(f'<text x="{_LEFT - 8}" y="{y + 4:.1f}" text-anchor="end">{step:,.6g}</text>')
    every = max(1, math.ceil(len(days) / _LEGIBLE))
    for place, day in enumerate(days):
        x, below = _LEFT + place * wide, 0.0
        gap = min(6.0, wide * 0.15)
        for layer in shown:
            value = layer.of(day)
            if value > 0:
                top, height = y_of(below + value), high * value / steps[-1]
                said = escape(f"{day.name}: {layer.name} {_short(value)}")
                width = max(0.5, wide - gap)
                marks.append(
                    f'<rect class="{layer.colour}" x="{x + gap / 2:.2f}" y="{top:.2f}" width="{width:.2f}" '
                    f'height="{height:.2f}"><title>{said}</title></rect>'
                )
                below += value
        if place % every == 0:
            marks.append(
                f'<text x="{x + wide / 2:.1f}" y="{_HEIGHT - 8}" text-anchor="middle">{escape(day.name[5:])}</text>'
            )
    key = "".join(f'<span><i style="background: var(--{one.colour})"></i>{escape(one.name)}</span>' for one in shown)
    legend = f'<div class="key">{key}</div>' if len(layers) > 1 else ""
    label = escape(f"{title}, by day; at most {_short(most)}")
    return (
        f'{heading}{legend}<svg viewBox="0 0 {_WIDTH} {_HEIGHT}" role="img" aria-label="{label}">'
        + "".join(marks)
        + "</svg>"
    )


def _table(title: str, by: str, rows: Sequence[UsageRow], has_cost: bool) -> str:
    heading = f"<h2>{escape(title)}</h2>"
    if not rows:
        return f'{heading}<p class="none">none in this time</p>'
    has_functions = any(row.function_s for row in rows)
    more_heads = [*(["function h"] if has_functions else []), *(["cost"] if has_cost else [])]
    heads = [by, "tasks", "failed", "retries", "megapixels", "GPU h", "CPU h", *more_heads]
    most = max(row.work_s for row in rows) or 1.0
    lines = []
    for row in rows[:_MOST_ROWS]:
        share = 100 * row.work_s / most
        cells = [
            f"{row.tasks:,}", f"{row.failed:,}", f"{row.retries:,}", f"{row.megapixels:,.1f}",
            told_amount(row.gpu_s / 3600), told_amount(row.cpu_s / 3600),
            *([told_amount(row.function_s / 3600)] if has_functions else []),
            *([told_amount(row.cost)] if has_cost else []),
        ]  # fmt: skip
        name = f'{escape(row.name)}<span class="bar" style="width: {share:.1f}%"></span>'
        lines.append(f"<tr><td>{name}</td>" + "".join(f"<td>{cell}</td>" for cell in cells) + "</tr>")
    left = len(rows) - _MOST_ROWS
    more = f'<p class="none">and {left:,} more: lcq report --by {escape(by)} has them all</p>' if left > 0 else ""
    head = "".join(f"<th>{escape(one)}</th>" for one in heads)
    return f"{heading}<table><thead><tr>{head}</tr></thead><tbody>{''.join(lines)}</tbody></table>{more}"
