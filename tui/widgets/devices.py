"""The devices of all nodes below the fleet's table, where there is room: how busy, how full, how warm each is."""

from __future__ import annotations

from collections.abc import Iterable

from textual.containers import Vertical

from lcq.lang import retold, tr
from lcq.models import NodeStatus
from tui.store import DeviceNow, NodeRow
from tui.text import cells, fit
from tui.widgets.frame import OneLine, Part

_MOST = 40
_BAR = 10
_HOT_C = 83.0  # from where on most GPUs begin to slow down
_FULL = 0.95


class DeviceLines(Vertical):
    """A line a device, the nodes in the order of the table."""

    def __init__(self, *, id: str | None = None) -> None:  # noqa: A002
        self._lines = [OneLine() for _ in range(_MOST + 1)]
        super().__init__(*self._lines, id=id)

    def show(self, nodes: Iterable[NodeRow], width: int, room: int) -> None:
        """Show as many of them as ``room`` lines hold, and say how many there are more."""
        there = [
            (node, device)
            for node in nodes
            if node.status is not NodeStatus.OFFLINE
            for device in node.now
            if device.busy is not None or device.total_mib is not None or device.function is not None
        ]
        most = min(room, _MOST) - 1
        shown = there if len(there) <= most else there[: max(0, most - 1)]
        head = tr("Devices")
        rows = [[Part(f" {head} {'─' * max(0, width - cells(head) - 4)}", "bold $text-secondary")]] if shown else []
        longest = max((cells(f"{node.id} {device.called}") for node, device in shown), default=0)
        rows += [_line(node, device, longest, width) for node, device in shown]
        if shown and len(shown) < len(there):
            more = tr(" {count} more: 4 has all nodes, d all about one", count=len(there) - len(shown))
            rows.append([Part(more, "$text-muted")])
        self.display = bool(rows)
        for place, widget in enumerate(self._lines):
            widget.display = place < len(rows)
            widget.show(rows[place] if place < len(rows) else ())


def _line(node: NodeRow, device: DeviceNow, longest: int, width: int) -> list[Part]:
    if device.function is not None:
        return _line_of_function(node, device, longest)
    full = device.used_mib / device.total_mib if device.total_mib and device.used_mib is not None else None
    memory = f"{(device.used_mib or 0) / 1024:5.1f}/{device.total_mib / 1024:.1f}G" if device.total_mib else "--"
    hot = device.heat_c is not None and device.heat_c >= _HOT_C
    heat = "--" if device.heat_c is None else f"{device.heat_c:.0f} C"
    power = "" if device.power_w is None else f"{device.power_w:.0f} W"
    name_room = max(0, width - longest - 2 * _BAR - 63)
    return [
        Part(f" {fit(f'{node.id} {device.called}', longest)}  ", "bold"),
        Part(f"{fit(device.name.removeprefix('NVIDIA '), min(24, name_room))} ", "$text-muted"),
        Part(bar(device.busy or 0.0), "$text-accent"),
        Part("   -- " if device.busy is None else f" {device.busy:4.0%} ", "$foreground"),
        Part(tr("  memory ") if width > 100 else " ", "$text-muted"),
        Part(bar(full or 0.0), "$text-error" if full is not None and full > _FULL else "$text-warning"),
        Part(f" {memory:>12} ", "$foreground"),
        Part(f" {heat:>5}", "bold $text-error" if hot else "$foreground"),
        Part(f" {power:>6}  ", "$text-muted"),
        Part(device.why or " ".join(device.warm), "$text-warning" if device.why else "$text-muted"),
    ]


def _line_of_function(node: NodeRow, device: DeviceNow, longest: int) -> list[Part]:
    function = device.function
    assert function is not None  # noqa: S101 - who calls this has looked
    parts = [
        Part(f" {fit(f'{node.id} {device.called}', longest)}  ", "bold"),
        Part(f"{device.name} ", "$text-muted"),
    ]
    if function.in_flight is not None:
        parts += [Part(bar(function.in_flight / device.slots), "$text-accent"), Part(f" {function.told}  ")]
    elif function.told:
        parts.append(Part(f"{function.told}  "))
    return [*parts, Part(function.why or retold(device.why), "$text-error" if function.away else "$text-warning")]


def bar(share: float, width: int = _BAR) -> str:
    """A bar of ``width`` cells, filled to ``share`` of it."""
    whole, half = divmod(round(max(0.0, min(1.0, share)) * width * 2), 2)
    return ("━" * whole + "╸" * half).ljust(width, "·")
