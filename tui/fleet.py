"""The fleet in four panels: what is there, what gets done, what waits, and what needs a person. No terminal here."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from lcq.lang import retold, tr
from lcq.models import MinuteTally, NodeStatus, TaskStatus
from tui.charts import bars, failing, forecast, mean_of
from tui.columns import Tone
from tui.store import NodeRow, QueueRow, Store
from tui.text import cells, clean, compact, counted, span

if TYPE_CHECKING:
    from lcq.alerts.records import AlertRecord

PANEL_LINES = 3
_OF_NODES = ("node_down", "node_quarantined")
_LEAST = 16  # of a panel's cells, whatever its words take: its bars want to be seen
_STEP = 4  # panels become wider by so many cells at a time, so that they do not move with every number


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


def panels(store: Store, now_ms: int, width: int) -> tuple[Panel, ...]:
    """The four panels, each ``width`` cells wide."""
    return tuple(panel(width) for panel in _panels(store, now_ms))


def _panels(store: Store, now_ms: int) -> tuple[Callable[[int], Panel], ...]:
    """The four panels, of whatever width is asked of each."""
    queues = list(store.queues.rows.values())
    nothing = Line(tr("nothing"), "good") if store.minutes or store.nodes.rows else Line("--", "dim")  # not read yet
    title = tr("Needs you (B)") if store.firing else tr("Needs you")
    needing = Panel(title, tuple(needs(store, now_ms)[:PANEL_LINES]) or (nothing,))
    return (
        lambda width: _fleet(store, width),
        lambda width: _throughput(store.minutes, width),
        lambda width: _backlog(store, queues, now_ms, width),
        lambda _: needing,
    )


def panels_over(
    store: Store, now_ms: int, width: int, places: Sequence[int] = (0, 1, 2, 3), given: Sequence[int] = ()
) -> list[tuple[Panel, int]]:
    """Of the four panels those at ``places``, and how wide each is, of ``width`` cells in all: what one can spare goes
    to who needs it. ``given``: how wide they are, where that is known already."""
    each_of = _panels(store, now_ms)
    chosen = [each_of[place] for place in places]
    if not given:
        told = [panel(0) for panel in chosen]
        needed = [max(cells(panel.title) + 1, *(cells(line.text) for line in panel.lines)) for panel in told]
        given = shares(needed, width)
    return [(panel(each), each) for panel, each in zip(chosen, given, strict=True)]


def shares(needed: Sequence[int], width: int) -> list[int]:
    """``width`` cells in equal parts, but that who needs more gets what others have to spare; the last comes first."""
    widths = [width // len(needed)] * len(needed)
    widths[-1] += width - sum(widths)
    spare = [max(0, each - max(need, _LEAST)) for need, each in zip(needed, widths, strict=True)]
    lacks = [max(0, need - each) for need, each in zip(needed, widths, strict=True)]
    stepped = [-(-lack // _STEP) * _STEP for lack in lacks]
    if sum(stepped) <= sum(spare):
        lacks = stepped
    for place in reversed(range(len(needed))):
        lack = min(lacks[place], sum(spare))
        widths[place] += lack
        while lack:
            giver = spare.index(max(spare))
            spare[giver] -= 1
            widths[giver] -= 1
            lack -= 1
    return widths


def summary(store: Store, now_ms: int, width: int) -> list[Line]:
    """The same in one line, as much of it as ``width`` cells hold: the worst first, for it must not be cut."""
    found = needs(store, now_ms)
    worst = [Line(f"! {found[0].text}" + (f" +{len(found) - 1}" if found[1:] else ""), found[0].tone)] if found else []
    words, tone = _up(store)
    done = [minute.completed for minute in store.minutes[:-1]]
    rest = [
        Line(tr("{done:,}/min {done2}", done=done[-1] if done else 0, done2=bars(done, 10)), "run"),
        Line("  ".join(words), tone),
        Line(tr("slots {store}", store=_slots(store))),
        Line(forecast(store.minutes, waiting_in(store))[0], "dim"),
        *(Line(text, "dim") for text in _use(store)),
    ]
    room, shown = width, []
    for line in (*worst, *rest):
        if cells(line.text) + 2 <= room:
            shown.append(line)
            room -= cells(line.text) + 2
    return shown


def _live(store: Store) -> list[NodeRow]:
    return [node for node in store.nodes.rows.values() if node.status is not NodeStatus.OFFLINE]


def _up(store: Store) -> tuple[list[str], Tone]:
    by_status = Counter(node.status for node in store.nodes.rows.values())
    words = [tr("{by_status} up", by_status=by_status[NodeStatus.ONLINE])]
    words += [f"{by_status[one]} {tr(one)}" for one in NodeStatus if one is not NodeStatus.ONLINE and by_status[one]]
    return words, "warn" if len(words) > 1 else "plain"


def _slots(store: Store) -> str:
    live = _live(store)
    return f"{sum(node.running for node in live)}/{sum(node.slots for node in live)}"


def waiting_in(store: Store) -> int:
    return store.all_counts[TaskStatus.QUEUED] + store.all_counts[TaskStatus.PENDING]


def _use(store: Store) -> list[str]:
    """How busy and how full the devices are now, of those that tell."""
    live = _live(store)
    busy = [node.busy for node in live if node.busy is not None]
    used, total = sum(node.used_mib for node in live), sum(node.total_mib for node in live)
    return [
        *([tr("devices {busy:.0%} busy", busy=sum(busy) / len(busy))] if busy else []),
        *([tr("memory {used:.0%}", used=used / total)] if total else []),
    ]


def _fleet(store: Store, width: int) -> Panel:
    words, tone = _up(store)
    use = _use(store)
    devices = next(
        (told for gap in ("   ", "  ") if cells(told := gap.join(use)) <= width or not width), "".join(use[:1])
    )
    hour = bars(
        [minute.busy for minute in store.minutes[:-1]],
        max(0, width - cells(tr("slots {store}  ", store=_slots(store)))),
        top=1,
    )
    return Panel(
        tr("Fleet"),
        (
            Line("  ".join(words), tone),
            Line(devices or tr("devices tell nothing"), "plain" if devices else "dim"),
            Line(tr("slots {store}", store=_slots(store)) + (f"  {hour}" if hour.strip() else "")),
        ),
    )


def _throughput(minutes: Sequence[MinuteTally], width: int) -> Panel:
    whole = minutes[:-1]  # the one under way is not over
    done = [minute.completed for minute in whole]
    failed = sum(minute.failed for minute in minutes)
    ended = failed + sum(minute.completed for minute in minutes)
    share = failed / ended if ended else 0.0
    now, last = (minutes[-1].completed if minutes else 0), (done[-1] if done else 0)
    said = tr("mean {whole}  failed {share:.1%}", whole=mean_of(whole), share=share)
    rates = bars([failing(minute) for minute in whole], max(0, width - cells(said) - 2), top=1) if failed else ""
    return Panel(
        tr("Throughput, tasks/min"),
        (
            Line(tr("now {now:,}  last {last:,}", now=now, last=last)),
            Line(bars([*done, now] if minutes else done, width), "run"),
            Line(f"{said}  {rates}" if rates.strip() else said, "bad" if share > 0.05 else "plain"),
        ),
    )


def _backlog(store: Store, queues: Sequence[QueueRow], now_ms: int, width: int) -> Panel:
    waiting = waiting_in(store)
    oldest = min((queue.oldest_ms for queue in queues if queue.oldest_ms is not None), default=None)
    deepest = sorted(queues, key=lambda queue: -queue.count(TaskStatus.QUEUED))[:2]
    by_queue = "  ".join(
        f"{queue.id} {compact(queue.count(TaskStatus.QUEUED))}" for queue in deepest if queue.count(TaskStatus.QUEUED)
    )
    age = tr("   oldest {age}", age=span(now_ms - oldest)) if oldest is not None else ""
    hour = bars([minute.waiting for minute in store.minutes], max(0, width - cells(by_queue) - 2))
    return Panel(
        tr("Backlog"),
        (
            Line(tr("waiting {waiting:,}{age}", waiting=waiting, age=age)),
            Line(f"{by_queue}  {hour}" if hour.strip() else by_queue or "-", "dim"),
            Line(*forecast(store.minutes, waiting)),
        ),
    )


def needs(store: Store, now_ms: int) -> list[Line]:
    """What a person should look at, the worst first."""
    alerts = store.firing
    told = {(one.when, one.subject) for one in alerts}  # these lines would say the same again
    nodes = [row for row in store.nodes.rows.values() if not {(when, row.id) for when in _OF_NODES} & told]
    queues = [row for row in store.queues.rows.values() if ("queue_unserved", row.id) not in told]
    return [
        *(_alert_in_need(one, now_ms) for one in alerts),
        *_nodes_in_need(nodes, now_ms),
        *_queues_in_need(queues),
        *(_failures_in_need(store.minutes) if ("fail_rate", "") not in told else ()),
    ]


def _alert_in_need(alert: AlertRecord, now_ms: int) -> Line:
    since = span(max(0, now_ms - alert.since_ms))
    return Line(f"{clean(retold(alert.text))} {since}", "bad" if alert.severity == "critical" else "warn")


def _nodes_in_need(nodes: Iterable[NodeRow], now_ms: int) -> list[Line]:
    told: dict[NodeStatus, tuple[str, Tone]] = {
        NodeStatus.OFFLINE: (tr("down"), "bad"),
        NodeStatus.QUARANTINED: (tr("in quarantine"), "bad"),
        NodeStatus.SUSPECT: (tr("silent"), "warn"),
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
            lines.append(
                Line(tr("{id} paused by {paused_by}", id=queue.id, paused_by=queue.paused_by or tr("somebody")), "warn")
            )
        elif waits and not queue.nodes:
            lines.append(
                Line(tr("{id}: {waits} wait, no node serves it", id=queue.id, waits=counted(waits, "task")), "bad")
            )
    return lines


def _failures_in_need(minutes: Sequence[MinuteTally]) -> list[Line]:
    failed = sum(minute.failed for minute in minutes[-10:])
    return [Line(tr("{failed} failed in 10 minutes", failed=counted(failed, "task")), "bad")] if failed else []
