"""The fleet in four panels: what is there, what gets done, what waits, and what needs a person. No terminal here."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from lcq.models import MinuteTally, NodeStatus, TaskStatus
from tui.columns import Tone
from tui.store import NodeRow, QueueRow, Store
from tui.text import compact, counted, long_span, span

_BARS = "▁▂▃▄▅▆▇█"
PANEL_LINES = 3


@dataclass(frozen=True)
class Line:
    """One line of a panel, and how it is meant."""

    text: str
    tone: Tone = "plain"


@dataclass(frozen=True)
class Panel:
    """A few lines under a title."""

    title: str
    lines: tuple[Line, ...]


def bars(values: Sequence[float], width: int) -> str:
    """The last ``width`` of ``values`` as blocks, the highest a full one; nothing is the lowest block."""
    shown = list(values)[-width:] if width > 0 else []
    most = max(shown, default=0)
    if most <= 0:
        return _BARS[0] * len(shown)
    return "".join(_BARS[min(len(_BARS) - 1, int(value / most * (len(_BARS) - 1) + 0.5))] for value in shown)


def panels(store: Store, now_ms: int, width: int) -> tuple[Panel, ...]:
    """The four panels, each ``width`` cells wide."""
    nodes, queues = list(store.nodes.rows.values()), list(store.queues.rows.values())
    return (
        _fleet(nodes),
        _throughput(store.minutes, width),
        _backlog(store, queues, now_ms),
        Panel("Needs you", tuple(needs(store, now_ms)[:PANEL_LINES]) or (Line("nothing", "good"),)),
    )


def _fleet(nodes: Sequence[NodeRow]) -> Panel:
    by_status = Counter(node.status for node in nodes)
    live = [node for node in nodes if node.status is not NodeStatus.OFFLINE]
    words = [f"{by_status[NodeStatus.ONLINE]} up"]
    words += [f"{by_status[one]} {one}" for one in NodeStatus if one is not NodeStatus.ONLINE and by_status[one]]
    busy = [node.busy for node in live if node.busy is not None]
    used, total = sum(node.used_mib for node in live), sum(node.total_mib for node in live)
    devices = [f"devices {sum(busy) / len(busy):.0%} busy"] if busy else []
    devices += [f"memory {used / total:.0%}"] if total else []
    return Panel(
        "Fleet",
        (
            Line("  ".join(words), "warn" if len(words) > 1 else "plain"),
            Line("   ".join(devices) or "devices tell nothing", "plain" if devices else "dim"),
            Line(f"slots {sum(node.running for node in live)}/{sum(node.slots for node in live)}"),
        ),
    )


def _throughput(minutes: Sequence[MinuteTally], width: int) -> Panel:
    whole = minutes[:-1]  # the one under way is not over
    done = [minute.completed for minute in whole]
    failed = sum(minute.failed for minute in minutes)
    ended = failed + sum(minute.completed for minute in minutes)
    share = failed / ended if ended else 0.0
    now, last = (minutes[-1].completed if minutes else 0), (done[-1] if done else 0)
    mean = sum(done) / len(done) if done else 0.0
    return Panel(
        "Throughput, tasks/min",
        (
            Line(f"now {now:,}  last {last:,}"),
            Line(bars([*done, now] if minutes else done, width), "run"),
            Line(f"mean {mean:,.0f}  failed {share:.1%}", "bad" if share > 0.05 else "plain"),
        ),
    )


def _backlog(store: Store, queues: Sequence[QueueRow], now_ms: int) -> Panel:
    waiting = store.counts[TaskStatus.QUEUED] + store.counts[TaskStatus.PENDING]
    oldest = min((queue.oldest_ms for queue in queues if queue.oldest_ms is not None), default=None)
    recent = [minute.completed for minute in store.minutes[:-1]][-10:]
    pace = sum(recent) / len(recent) if recent else 0.0
    deepest = sorted(queues, key=lambda queue: -queue.count(TaskStatus.QUEUED))[:2]
    by_queue = "  ".join(
        f"{queue.id} {compact(queue.count(TaskStatus.QUEUED))}" for queue in deepest if queue.count(TaskStatus.QUEUED)
    )
    if not waiting:
        forecast = Line("empty", "good")
    elif pace:
        forecast = Line(f"empty in {long_span(waiting / pace * 60_000)} at this pace")
    else:
        forecast = Line("nothing was done in the last 10 minutes", "warn")
    age = f"   oldest {span(now_ms - oldest)}" if oldest is not None else ""
    return Panel("Backlog", (Line(f"waiting {waiting:,}{age}"), Line(by_queue or "-", "dim"), forecast))


def needs(store: Store, now_ms: int) -> list[Line]:
    """What a person should look at, the worst first."""
    return [
        *_nodes_in_need(store.nodes.rows.values(), now_ms),
        *_queues_in_need(store.queues.rows.values()),
        *_failures_in_need(store.minutes),
    ]


def _nodes_in_need(nodes: Iterable[NodeRow], now_ms: int) -> list[Line]:
    told: dict[NodeStatus, tuple[str, Tone]] = {
        NodeStatus.OFFLINE: ("down", "bad"),
        NodeStatus.QUARANTINED: ("in quarantine", "bad"),
        NodeStatus.SUSPECT: ("silent", "warn"),
    }
    lines: list[tuple[int, Line]] = []
    for node in nodes:
        if node.status in told:
            word, tone = told[node.status]
            since = f" {span(now_ms - node.seen_ms)}" if node.status is not NodeStatus.QUARANTINED else ""
            lines.append((tone == "warn", Line(f"{node.id} {word}{since}", tone)))
    return [line for _, line in sorted(lines, key=lambda pair: (pair[0], pair[1].text))]


def _queues_in_need(queues: Iterable[QueueRow]) -> list[Line]:
    lines = []
    for queue in queues:
        waits = queue.count(TaskStatus.QUEUED)
        if queue.paused:
            lines.append(Line(f"{queue.id} paused by {queue.paused_by or 'somebody'}", "warn"))
        elif waits and not queue.nodes:
            lines.append(Line(f"{queue.id}: {counted(waits, 'task')} wait, no node serves it", "bad"))
    return lines


def _failures_in_need(minutes: Sequence[MinuteTally]) -> list[Line]:
    failed = sum(minute.failed for minute in minutes[-10:])
    return [Line(f"{counted(failed, 'task')} failed in 10 minutes", "bad")] if failed else []
