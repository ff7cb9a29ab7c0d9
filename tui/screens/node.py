"""All about one node: each of its devices over the last hour, what it works on, how its drain goes."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Iterable, Mapping, Sequence
from typing import ClassVar

from textual import work
from textual.containers import Horizontal, Vertical
from textual.widget import Widget
from textual.widgets import Static

from lcq.errors import LcqError
from lcq.lang import N, retold, tr
from lcq.models import DeviceSample, NodeStatus, TaskStatus
from tui.charts import device_graphs
from tui.columns import NODE_LOOK, node_state_cell
from tui.commands import Scope
from tui.desk import Desk
from tui.screens.about import AboutScreen
from tui.screens.detail import Piece, fact
from tui.screens.nodes import NodeActs
from tui.source import TROUBLES, trouble_of
from tui.store import DeviceNow, NodeRow, TaskRow
from tui.text import clean, counted, hanging, long_span, packed, span, stamp
from tui.widgets.chart import Chart
from tui.widgets.frame import TONE_STYLE

_HISTORY_S = 15.0  # between two looks at what the schedulers keep; what comes meanwhile is put to it from the beats
_MOST_DEVICES = 16
_MOST_TASKS = 12


class DevicePane(Vertical):
    """One device: a line of facts, its use and memory, its heat and power where it tells them."""

    def __init__(self) -> None:
        self.facts = Static(markup=False, classes="device-facts")
        self.charts = (Chart(classes="chart"), Chart(classes="chart"))
        super().__init__(self.facts, Horizontal(*self.charts, classes="device-charts"), classes="device")

    def show(
        self, device: DeviceNow, samples: list[DeviceSample], now_ms: int, width: int, more: Sequence[Piece] = ()
    ) -> None:
        """``more``: facts of it that are told below the line, of a function instead of its plots."""
        called = f"{device.called}  " if device.called not in ("", device.name, device.kind) else ""
        pieces: list[Piece] = [(f" {called}{device.name}", "bold $text-primary")]
        told = [f"{device.kind}, {counted(device.slots, 'slot')}"]
        if device.busy is not None:
            told.append(tr("busy {busy:.0%}", busy=device.busy))
        if device.used_mib is not None and device.total_mib:
            told.append(
                tr(
                    "memory {used_mib:.1f} of {total_mib:.1f} GiB",
                    used_mib=device.used_mib / 1024,
                    total_mib=device.total_mib / 1024,
                )
            )
        if device.heat_c is not None:
            told.append(f"{device.heat_c:.0f} C")
        if device.power_w is not None:
            told.append(f"{device.power_w:.0f} W")
        if device.warm:
            told.append(tr("loaded: {warm}", warm=", ".join(device.warm)))
        name = pieces[0][0].lstrip()
        pieces.append(("\n    ".join(packed([name, *told], width - 1)).removeprefix(name), ""))
        if device.why and not more:  # a function's own lines tell it
            pieces.append((f"   {retold(device.why)}", TONE_STYLE["warn"]))
        content = hanging([*pieces, *([("\n", ""), *more] if more else [])], width).rstrip("\n")
        if self.facts.content != content:
            self.facts.update(content)
        graphs = device_graphs(samples, now_ms) if device.function is None else ()
        for place, chart in enumerate(self.charts):
            chart.display = place < len(graphs)
            if place < len(graphs):
                chart.show(graphs[place])


class NodeScreen(AboutScreen[NodeRow], NodeActs):
    """One node, kept up to date."""

    MODE = "nodes"
    NOUN = N("node")
    SCOPES: ClassVar[tuple[Scope, ...]] = (Scope.EVERYWHERE, Scope.READING, Scope.DETAIL, Scope.ABOUT, Scope.NODES)
    SECTIONS = ("head", "drain", "tasks", "more", "failed")
    TABS: ClassVar[Mapping[str, str]] = {
        "head": N("Overview"), "drain": N("Drain"), "tasks": N("Works on"), "more": N("What it can do"),
        "failed": N("Failed here"),
    }  # fmt: skip

    def __init__(self, desk: Desk, node: str) -> None:
        self._panes = [DevicePane() for _ in range(_MOST_DEVICES)]
        super().__init__(desk, desk.nodes, node)
        self._history: dict[str, list[DeviceSample]] = {}
        self._read_at = -_HISTORY_S
        self._trouble_text = ""

    def compose_charts(self) -> Iterable[Widget]:
        return self._panes

    def act_nodes(self) -> list[NodeRow]:
        return [self.row] if self.row is not None else []

    def is_mine(self, task: TaskRow) -> bool:
        return task.node == self.row_id and task.status in (TaskStatus.PROCESSING, TaskStatus.FAILED)

    def show_other(self, row_id: str) -> None:
        self._history, self._read_at = {}, -_HISTORY_S
        super().show_other(row_id)

    def action_open_tasks(self) -> None:
        self.post_message(self.ModeWished("tasks", f"node:{self.row_id}"))

    # ------------------------------------------------------------ reading

    @work(exclusive=True, group="history")
    async def _read(self) -> None:
        node = self.row_id
        try:
            told = await self.desk.reader.device_history(node)
        except (LcqError, OSError, TimeoutError) as error:
            self._trouble_text = tr("its devices' history cannot be read now: {error}", error=trouble_of(error))
            return
        if node == self.row_id:
            self._trouble_text = ""
            self._history = {clean(device): list(samples) for device, samples in told.items()}
        if self.row is not None and any(device.function is not None for device in self.row.now):
            with contextlib.suppress(*TROUBLES):  # then prices are told without a currency
                await self.desk.purse.ask()

    def _samples(self, device: DeviceNow, row: NodeRow) -> list[DeviceSample]:
        """What is kept of a device, and how it is now."""
        now = DeviceSample(
            at_ms=row.seen_ms,
            busy=device.busy,
            used_mib=device.used_mib,
            total_mib=device.total_mib,
            temperature_c=None if device.heat_c is None else round(device.heat_c),
            power_w=None if device.power_w is None else round(device.power_w),
        )
        return [*self._history.get(device.id, ()), now]

    def _of_function(self, row: NodeRow, device: DeviceNow) -> list[Piece]:
        """Where a function is, what it costs, whether it is called."""
        if device.function is None:
            return []
        from tui.spending import function_facts  # here: few nodes call functions

        pieces: list[Piece] = []
        for label, told, tone in function_facts(row, device, self.desk.purse.currency):
            pieces += fact(label, told, TONE_STYLE[tone], width=self.size.width)
        return pieces

    # ------------------------------------------------------------ sections

    def show_row(self, row: NodeRow) -> None:
        if time.monotonic() - self._read_at > _HISTORY_S:
            self._read_at = time.monotonic()
            self._read()
        now = self.desk.link.now_ms
        running = [task for task in self.tasks if task.status is TaskStatus.PROCESSING]
        self.show_section("head", self._head(row))
        for place, pane in enumerate(self._panes):
            pane.display = place < len(row.now)
            if place < len(row.now):
                device = row.now[place]
                pane.show(device, self._samples(device, row), now, self.size.width - 1, self._of_function(row, device))
        self.show_section("drain", self._drain(row, running))
        self.show_section("tasks", self.listed(tr("Works on"), running, _MOST_TASKS))
        self.show_section("more", self._more(row))
        failed = [task for task in self.tasks if task.status is TaskStatus.FAILED]
        self.show_section("failed", self.listed(tr("Failed here"), failed, 5))

    def _head(self, row: NodeRow) -> list[Piece]:
        now = self.desk.link.now_ms
        word, _ = node_state_cell(row.status)
        pieces: list[Piece] = [(f" {word}", TONE_STYLE[NODE_LOOK[row.status][1]]), (f"  {row.id}\n", "bold")]
        pieces += fact("why", retold(row.why), TONE_STYLE["warn"], width=self.size.width)
        pieces += fact(
            "host", tr("{host}   lcq {software}", host=row.host, software=row.software) if row.software else row.host
        )
        pieces += fact(
            "seen",
            tr("{now} ago, registered {registered}", now=span(now - row.seen_ms), registered=stamp(row.registered_ms)),
        )
        share = row.failed / max(1, row.completed + row.failed)
        done = tr(
            "{completed:,} completed, {failed:,} failed ({share:.0%})",
            completed=row.completed,
            failed=row.failed,
            share=share,
        )
        pieces += fact(
            "work",
            tr("{running} of {slots} busy   {done}", running=row.running, slots=counted(row.slots, "slot"), done=done),
        )
        pieces += fact("", self._trouble_text, TONE_STYLE["warn"])
        return pieces

    def _drain(self, row: NodeRow, running: list[TaskRow]) -> list[Piece]:
        """How far a drain is, and when it will be done as far as its tasks tell."""
        if row.status is not NodeStatus.DRAINING:
            return []
        now = self.desk.link.now_ms
        then = tr(", then its agent ends") if row.stopping else ""
        pieces: list[Piece] = [(" Drain\n", "bold $text-primary")]
        if not row.running:
            return [
                *pieces,
                *fact("state", tr("drained{then}: nothing runs here any more", then=then), TONE_STYLE["good"]),
            ]
        pieces += fact("still runs", counted(row.running, "task") + then)
        left = [one for task in running if (one := left_ms(task, now)) is not None]
        if left:
            unknown = max(0, row.running - len(left))
            more = tr(", {unknown} of which nothing is known yet", unknown=unknown) if unknown else ""
            pieces += fact(
                "done in", tr("{left} at their pace{more}", left=long_span(max(left)), more=more), TONE_STYLE["run"]
            )
        else:
            pieces += fact("done in", tr("not known: none has told yet how far it is"))
        if row.hand_back_ms is not None:
            when = tr(
                "{hand_back}, in {what}",
                hand_back=stamp(row.hand_back_ms),
                what=long_span(max(0, row.hand_back_ms - now)),
            )
            pieces += fact("hands back", tr("what still runs then: {when}", when=when))
        return pieces

    def _more(self, row: NodeRow) -> list[Piece]:
        width = self.size.width
        more: list[Piece] = [(tr(" What it can do\n"), "bold $text-primary")]
        for device in row.devices:
            more += fact("device", device)
        more += fact("queues", ", ".join(row.queues) or tr("none"), width=width)
        more += fact("models", ", ".join(row.models) or tr("none"), width=width)
        if row.load:
            more += [("\n", ""), (tr(" What it tells\n"), "bold $text-primary")]
            for name, value in row.load:
                more += fact(name, value)
        return more


def left_ms(task: TaskRow, now_ms: int) -> float | None:
    """How long a running task will take at its own pace so far; None where it has not told how far it is."""
    if task.started_ms is None or task.progress < 0.02:
        return None
    took = max(0, now_ms - task.started_ms)
    return took * (1 - task.progress) / task.progress
