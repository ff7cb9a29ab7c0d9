"""A large fleet as a map: a sign a node, in the order of the list below it, so that what is different stands out."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from itertools import groupby

from textual import events
from textual.containers import Vertical
from textual.message import Message

from lcq.lang import tr
from lcq.models import NodeStatus
from tui.columns import NODE_LOOK, Cell, Tone, node_is_troubled
from tui.store import NodeRow
from tui.text import cells, counted
from tui.widgets.frame import TONE_STYLE, OneLine, Part

FROM = 60
"""A fleet of more nodes than this has a map."""
_TALL = 20  # lines of a screen that has room for one
_MOST_LINES = 5
_IDLE, _BUSY = "·", "▁▂▃▄▅▆▇█"
_WORST = (
    NodeStatus.OFFLINE, NodeStatus.QUARANTINED, NodeStatus.SUSPECT, NodeStatus.DRAINING, NodeStatus.ONLINE
)  # fmt: skip


def sign(nodes: Sequence[NodeRow]) -> Cell:
    """What stands for a node, or for a few together: the letter of the worst state, else how many slots are taken."""
    worst = min((node.status for node in nodes), key=_WORST.index)
    if worst is not NodeStatus.ONLINE:
        return NODE_LOOK[worst]
    slots, running = sum(node.slots for node in nodes), sum(node.running for node in nodes)
    tone: Tone = "warn" if any(map(node_is_troubled, nodes)) else "run" if running else "dim"
    if not running:
        return _IDLE, tone
    return _BUSY[min(len(_BUSY), math.ceil(running / max(1, slots) * len(_BUSY))) - 1], tone


class HeatMap(Vertical):
    """Shows itself where there are many nodes, and room. A click goes to a node."""

    DEFAULT_CSS = "HeatMap { height: auto; display: none; }"

    class Chosen(Message):
        """The operator has clicked on this node."""

        def __init__(self, node: str) -> None:
            super().__init__()
            self.node = node

    def __init__(self, *, id: str | None = None) -> None:  # noqa: A002
        self._lines = [OneLine() for _ in range(_MOST_LINES + 1)]
        super().__init__(*self._lines, id=id)
        self._first: list[str] = []  # of each sign the first node
        self._room = 1

    @property
    def shown_lines(self) -> int:
        """How many lines it takes."""
        return sum(line.display for line in self._lines) if self.display else 0

    def show(self, nodes: Sequence[NodeRow], width: int, height: int, *, here: str | None) -> None:
        """Show these nodes in a screen of that size; ``here``: the one under the cursor."""
        self.display = len(nodes) > FROM and height >= _TALL
        if not self.display:
            return
        self._room = max(1, width - 2)
        each = -(-len(nodes) // (self._room * _MOST_LINES))
        groups = [nodes[begin : begin + each] for begin in range(0, len(nodes), each)]
        self._first = [group[0].id for group in groups]
        signs = [(*sign(group), any(node.id == here for node in group)) for group in groups]
        rows = [self._head(len(nodes), each, width)]
        rows += [_parts(signs[begin : begin + self._room]) for begin in range(0, len(signs), self._room)]
        for place, widget in enumerate(self._lines):
            widget.display = place < len(rows)
            widget.show(rows[place] if place < len(rows) else ())

    @staticmethod
    def _head(count: int, each: int, width: int) -> list[Part]:
        told = counted(count, "node") + (tr(", a sign for {each}", each=each) if each > 1 else "")
        legend = tr("{idle} idle {least}{most} busy  ~ draining  ? silent  ! quarantined  x offline",
                    idle=_IDLE, least=_BUSY[0], most=_BUSY[-1])  # fmt: skip
        rule = "─" * max(0, width - cells(told) - cells(legend) - 5)
        return [Part(f" {told} {rule} ", "bold $text-secondary"), Part(legend, "$text-muted")]

    def on_click(self, event: events.Click) -> None:
        line, column = event.screen_y - self.region.y - 1, event.screen_x - self.region.x - 1
        place = line * self._room + column
        if line >= 0 and 0 <= column < self._room and place < len(self._first):
            self.post_message(self.Chosen(self._first[place]))


def _parts(signs: Iterable[tuple[str, Tone, bool]]) -> list[Part]:
    """A line of signs, those of one look as one."""
    parts = [Part(" ")]
    for (tone, is_here), run in groupby(signs, key=lambda one: one[1:]):
        style = TONE_STYLE[tone]
        parts.append(Part("".join(one[0] for one in run), f"reverse {style}" if is_here else style))
    return parts
