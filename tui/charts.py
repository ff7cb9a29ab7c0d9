"""What happened over time as lines of text: bars a cell high, and plots in braille. No terminal here.

Every line is exactly as wide as asked for. What is not known is a gap, and never a zero.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import TYPE_CHECKING

from lcq.lang import tr
from tui.columns import Tone
from tui.flow import MINUTE_MS, Flow, flow_of
from tui.text import cells, compact, cut, fit, long_span

_STILL_NEW = 3  # values: what was known last before that is not how it is now

if TYPE_CHECKING:
    from lcq.models import DeviceSample, MinuteTally

Known = float | None
Piece = tuple[str, Tone]

SAMPLE_MS = 30_000
"""So often a scheduler keeps how a node's devices are."""

_BARS = "▁▂▃▄▅▆▇█"
_DOTS = ((0x01, 0x02, 0x04, 0x40), (0x08, 0x10, 0x20, 0x80))  # of a braille cell: by column, from the top
_BRAILLE = 0x2800
_STEPS = (1, 2, 2.5, 5, 10)


def bars(values: Sequence[Known], width: int, *, top: float | None = None) -> str:
    """The last ``width`` of ``values`` as blocks, ``top`` (default: the highest) a full one; None is a gap."""
    shown = list(values)[-width:] if width > 0 else []
    most = top if top is not None else max((value for value in shown if value is not None), default=0)
    return "".join(" " if value is None else _bar(value, most) for value in shown)


def _bar(value: float, most: float) -> str:
    share = value / most if most > 0 else 0
    return _BARS[max(0, min(len(_BARS) - 1, int(share * (len(_BARS) - 1) + 0.5)))]


@dataclass(frozen=True)
class Series:
    """One line of a plot: its name, how it is meant, and a value a step, the oldest first."""

    name: str
    values: Sequence[Known]
    tone: Tone = "run"
    dotted: bool = False  # told from the others without colour too


@dataclass(frozen=True)
class Graph:
    """What a plot shows. ``write`` says a value in at most six characters; ``note`` stands beside the title."""

    title: str
    series: tuple[Series, ...]
    step_ms: int = MINUTE_MS
    top: float | None = None  # of the scale; None: what the values ask for
    write: Callable[[float], str] = lambda value: compact(round(value))
    note: str = ""

    @property
    def is_known(self) -> bool:
        return any(value is not None for one in self.series for value in one.values)


def plot(graph: Graph, width: int, height: int) -> list[list[Piece]]:
    """``height`` lines of exactly ``width`` cells: a title with the newest values, the plot, the time below it."""
    lines = [_pad(_title(graph), width)]
    rows = height - 2
    if rows < 1:
        return [*lines, *(_pad([], width) for _ in range(height - 1))][:height]
    if not graph.is_known:
        said = _pad([(tr("  nothing is known of that yet"), "dim")], width)
        return [*lines, said, *(_pad([], width) for _ in range(height - 2))]
    top = graph.top or _nice(max(value for one in graph.series for value in one.values if value is not None))
    scale = [graph.write(top), graph.write(top / 2), graph.write(0)]
    if scale[1] in (scale[0], scale[2]):  # so small a scale has no middle in whole numbers
        scale[1] = ""
    room = min(max(map(cells, scale)), max(0, width // 3))
    body = _painted(graph.series, max(0, width - room - 1), rows, top)
    for place, pieces in enumerate(body):
        label = scale[0] if place == 0 else scale[2] if place == rows - 1 else ""
        if place == rows // 2 and rows >= 5:
            label = scale[1]
        lines.append(_pad([(fit(label, room, right=True), "dim"), ("│", "dim"), *pieces], width))
    steps = max(len(one.values) for one in graph.series)
    lines.append(_pad([(" " * (room + 1) + _times(max(0, width - room - 1), steps * graph.step_ms), "dim")], width))
    return lines


def _title(graph: Graph) -> list[Piece]:
    pieces: list[Piece] = [(graph.title, "strong")]
    for one in graph.series:
        newest = next((value for value in reversed(one.values[-_STILL_NEW:]) if value is not None), None)
        mark = "┄ " if one.dotted else "─ "
        said = graph.write(newest) if newest is not None else "--"
        pieces += [("  ", "plain"), (f"{mark}{one.name} {said}", one.tone)]
    if graph.note:
        pieces.append((f"  {graph.note}", "dim"))
    return pieces


def _times(width: int, span_ms: int) -> str:
    """When the left edge, the middle and the right edge of the plot are."""
    ends = [f"-{_short(span_ms)}", f"-{_short(span_ms // 2)}", tr("now")]
    if width < sum(map(len, ends)) + 4:
        return fit(tr("now"), width, right=True)
    middle = fit(ends[1].center(width - len(ends[0]) - len(ends[2])), width - len(ends[0]) - len(ends[2]))
    return ends[0] + middle + ends[2]


def _short(span_ms: int) -> str:
    if span_ms >= 10 * MINUTE_MS:
        return f"{round(span_ms / MINUTE_MS)}m"
    minutes, rest = divmod(span_ms // 1000, 60)
    return f"{minutes}m" if not rest else f"{minutes}m{rest:02d}s"


def _nice(most: float) -> float:
    """The next of 1, 2, 2.5, 5 and 10 times a power of ten."""
    if most < 1e-9:
        return 1
    power = 10.0 ** math.floor(math.log10(most))
    return float(next((step * power for step in _STEPS if step * power >= most * 0.999), 10 * power))


def resample(values: Sequence[Known], count: int) -> list[Known]:
    """``values`` as ``count`` values over the same time: means of many, lines between few, gaps as they are."""
    size = len(values)
    if not size or count <= 0:
        return [None] * max(0, count)
    out: list[Known] = []
    for place in range(count):
        first, last = place * size / count, (place + 1) * size / count
        if last - first >= 1:
            known = [value for value in values[int(first) : max(int(first) + 1, math.ceil(last))] if value is not None]
            out.append(sum(known) / len(known) if known else None)
            continue
        at = max(0.0, min(size - 1.0, (first + last) / 2 - 0.5))
        left, right = values[int(at)], values[min(size - 1, int(at) + 1)]
        if left is None or right is None:
            out.append(values[min(size - 1, int(first))])
        else:
            out.append(left + (right - left) * (at - int(at)))
    return out


def _painted(series: Sequence[Series], width: int, rows: int, top: float) -> list[list[Piece]]:
    dots = [[0] * width for _ in range(rows)]
    tones: list[list[Tone]] = [["plain"] * width for _ in range(rows)]

    def put(column: int, level: int, tone: Tone) -> None:
        row, column_cell = rows - 1 - level // 4, column // 2
        dots[row][column_cell] |= _DOTS[column % 2][3 - level % 4]
        tones[row][column_cell] = tone

    for one in series:
        levels = [
            None if value is None else max(0, min(rows * 4 - 1, round(value / top * (rows * 4 - 1))))
            for value in resample(one.values, width * 2)
        ]
        for column, level in enumerate(levels):
            if level is not None and not (one.dotted and column % 4 > 1):
                put(column, level, one.tone)
        for column, (before, now) in enumerate(pairwise(levels), 1):
            if before is not None and now is not None and not (one.dotted and column % 4 > 1):
                for level in range(min(before, now) + 1, max(before, now)):
                    put(column, level, one.tone)
    return [_joined(row, its_tones) for row, its_tones in zip(dots, tones, strict=True)]


def _joined(row: Sequence[int], tones: Sequence[Tone]) -> list[Piece]:
    """One piece for neighbours of one tone: fewer bytes to the terminal."""
    pieces: list[Piece] = []
    for dot, tone in zip(row, tones, strict=True):
        char = chr(_BRAILLE + dot) if dot else " "
        if pieces and (pieces[-1][1] == tone or not dot):
            pieces[-1] = (pieces[-1][0] + char, pieces[-1][1])
        else:
            pieces.append((char, tone))
    return pieces


def _pad(pieces: Sequence[Piece], width: int) -> list[Piece]:
    """``pieces`` cut or filled to exactly ``width`` cells."""
    kept: list[Piece] = []
    room = width
    for text, tone in pieces:
        shown = cut(text, room)
        if shown:
            kept.append((shown, tone))
        room -= cells(shown)
    return [*kept, (" " * room, "plain")] if room > 0 else kept


# ---------------------------------------------------------------- what is drawn


def percent(share: float) -> str:
    return f"{share:.0%}"


def _of(minutes: Sequence[MinuteTally], value: Callable[[MinuteTally], Known]) -> list[Known]:
    return [value(minute) for minute in minutes]


def failing(minute: MinuteTally) -> Known:
    """The share of the tasks that ended in this minute which failed; None where none ended."""
    ended = minute.completed + minute.failed
    return minute.failed / ended if ended else None


def pace(minutes: Sequence[MinuteTally]) -> float:
    """Tasks completed a minute, of late: the mean of the last ten minutes that are over."""
    recent = [minute.completed for minute in minutes[:-1]][-10:]
    return sum(recent) / len(recent) if recent else 0.0


def growth(minutes: Sequence[MinuteTally]) -> float:
    """By how many tasks a minute more came than ended, of late."""
    recent = minutes[:-1][-10:]
    net = sum(one.submitted - one.completed - one.failed - one.cancelled for one in recent)
    return net / len(recent) if recent else 0.0


def forecast(minutes: Sequence[MinuteTally], waiting: int) -> tuple[str, Tone]:
    """When what waits will be done at the pace of late, in words."""
    if not waiting:
        return tr("empty"), "good"
    now = pace(minutes)
    if not now and minutes and minutes[-1].completed:  # the minute under way
        return tr("just begun, no pace yet"), "plain"
    if not now:
        return tr("nothing done in 10 minutes"), "warn"
    if growth(minutes) > 0.5:
        return tr("grows by {minutes:,.0f} a minute", minutes=growth(minutes)), "warn"
    now = max(now, minutes[-1].completed)  # where work has just begun after a rest, it is at least this fast
    return tr("empty in {waiting} at this pace", waiting=long_span(waiting / now * MINUTE_MS)), "plain"


def cluster_graphs(minutes: Sequence[MinuteTally], waiting: int) -> tuple[Graph, ...]:
    """The cluster's last hour: what was done, what failed, what waits, and how its devices are used."""
    over = minutes[:-1]  # the minute under way tells too little of itself
    done = Series(tr("done"), _of(over, lambda one: one.completed), "good")
    came = Series(tr("came"), _of(over, lambda one: one.submitted), "plain", dotted=True)
    waits = _of(minutes, lambda one: one.waiting)
    if waits:
        waits[-1] = waiting
    return (
        Graph(tr("Throughput, tasks a minute"), (done, came), note=tr("mean {values}", values=mean_of(over))),
        Graph(tr("Failed, of what ended"), (Series(tr("failed"), _of(over, failing), "bad"),), write=percent,
              note=tr("{what:,} in the hour", what=sum(one.failed for one in minutes))),
        Graph(tr("Waiting tasks"), (Series(tr("waiting"), waits, "run"),
                                Series(tr("running"), _of(minutes, lambda one: one.running), "plain", dotted=True)),
              note=forecast(minutes, waiting)[0]),
        Graph(tr("Devices"), (Series(tr("busy"), _of(over, lambda one: one.busy), "run"),
                          Series(tr("memory"), _of(over, lambda one: one.memory), "warn", dotted=True)),
              top=1, write=percent),
    )  # fmt: skip


def queue_graphs(minutes: Sequence[MinuteTally], queue: str, waiting: int) -> tuple[Graph, ...]:
    """A queue's last hour: what waited in it, and what of it was done."""
    waits: list[Known] = [minute.waiting_in.get(queue) for minute in minutes]
    if waits:
        waits[-1] = waiting
    done: list[Known] = [minute.completed_in.get(queue, 0) for minute in minutes[:-1]]
    came: list[Known] = [minute.came_in.get(queue) for minute in minutes[:-1]]
    coming = [Series(tr("came"), came, "plain", dotted=True)] if any(value is not None for value in came) else []
    return (
        Graph(tr("Waiting tasks"), (Series(tr("waiting"), waits, "run"),),
              note=queue_forecast(flow_of(minutes, queue), waiting)[0] if waiting else ""),
        Graph(tr("Done, tasks a minute"), (Series(tr("done"), done, "good"), *coming),
              note=tr("mean {done:,.0f}", done=_mean(done))),
    )  # fmt: skip


def queue_forecast(flow: Flow | None, waiting: int) -> tuple[str, Tone]:
    """When what waits in a queue will be done at its pace of late, in words; "" where that is not known."""
    if not waiting:
        return tr("empty"), "good"
    if flow is None:
        return "", "dim"
    if flow.grows:
        return tr("grows by {minutes:,.0f} a minute", minutes=flow.came - flow.left), "warn"
    left_ms = flow.empty_in_ms(waiting)
    if left_ms is None:
        return tr("nothing done in 10 minutes"), "warn"
    return tr("empty in {waiting} at this pace", waiting=long_span(left_ms)), "plain"


def device_graphs(samples: Sequence[DeviceSample], now_ms: int) -> tuple[Graph, ...]:
    """A device's last hour: its use and memory, and its heat and power where it tells them."""
    steps = in_steps(samples, now_ms)
    share: list[Known] = [
        one.used_mib / one.total_mib if one is not None and one.used_mib is not None and one.total_mib else None
        for one in steps
    ]
    busy: list[Known] = [None if one is None else one.busy for one in steps]
    graphs = [
        Graph(tr("Use"), (Series(tr("busy"), busy, "run"), Series(tr("memory"), share, "warn", dotted=True)),
              step_ms=SAMPLE_MS, top=1, write=percent),
    ]  # fmt: skip
    heat: list[Known] = [None if one is None else one.temperature_c for one in steps]
    power: list[Known] = [None if one is None else one.power_w for one in steps]
    warm = [Series("C", heat, "bad")] if any(value is not None for value in heat) else []
    drawn = [Series("W", power, "plain", dotted=True)] if any(value is not None for value in power) else []
    if warm or drawn:
        graphs.append(Graph(tr("Heat and power"), (*warm, *drawn), step_ms=SAMPLE_MS))
    return tuple(graphs)


def in_steps(samples: Sequence[DeviceSample], now_ms: int, count: int = 120) -> list[DeviceSample | None]:
    """The samples of the last ``count`` steps of half a minute; None where the node was not heard."""
    steps: list[DeviceSample | None] = [None] * count
    for sample in samples:
        place = count - 1 - (now_ms - sample.at_ms) // SAMPLE_MS
        if 0 <= place < count:
            steps[place] = sample
        elif place == count:  # its clock is a little ahead of ours
            steps[-1] = sample
    for place in range(1, count - 1):  # a beat comes when it comes: a step between two that were met is not a silence
        if steps[place] is None and steps[place - 1] is not None and steps[place + 1] is not None:
            steps[place] = steps[place - 1]
    if count > 1 and steps[-1] is None:
        steps[-1] = steps[-2]
    return steps


def _mean(values: Sequence[Known]) -> float:
    known = [value for value in values if value is not None]
    return sum(known) / len(known) if known else 0.0


def mean_of(minutes: Sequence[MinuteTally]) -> str:
    """What was done in a minute, since the first in which there was anything to do; "--" before that one is over."""
    begun = next((n for n, one in enumerate(minutes) if one.completed or one.failed or one.waiting), len(minutes))
    done = [one.completed for one in minutes[begun:]]
    if not done:
        return "--"
    mean = sum(done) / len(done)
    return f"{mean:.1f}" if 0 < mean < 9.95 else f"{mean:,.0f}"


def newest(history: Mapping[str, Sequence[DeviceSample]]) -> int:
    """When the newest of all samples was taken, 0 if there is none."""
    return max((samples[-1].at_ms for samples in history.values() if samples), default=0)
