"""The operator's desk: the store, its link, and the three views that all screens share. No terminal here."""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, cast

from lcq.models import TaskStatus
from tui.asking import Asker
from tui.columns import (
    ACT_COLUMNS,
    ACT_FIELDS,
    CAUSE_COLUMNS,
    CAUSE_FIELDS,
    NODE_COLUMNS,
    NODE_FIELDS,
    QUEUE_COLUMNS,
    QUEUE_FIELDS,
    TASK_COLUMNS,
    TASK_FIELDS,
    TASK_MORE,
    fleet_columns,
)
from tui.gallery import Gallery
from tui.graphics import Graphics
from tui.looks import Overheard
from tui.made import Made
from tui.older import Older
from tui.older_acts import OlderActs
from tui.pulse import Pulse
from tui.purse import Purse
from tui.record import Tape
from tui.rights import Rights
from tui.saved import SavedViews
from tui.source import Commander, Feed, Link, Reader
from tui.store import WAITING, ActRow, CauseRow, NodeRow, QueueRow, Store, TaskRow
from tui.view import View

if TYPE_CHECKING:
    from tui.replay import Playback

MANY = 10
"""An act on more tasks than this asks first, also where it can be taken back."""


TICK_S = 1.0
"""How often a filter by age is asked again whether the rows still fit."""

UNDO_S = 15.0
"""How long the scheduler lets an act be taken back."""

SAID_S = 20.0
"""How long the last word stays on the screen."""


@dataclass(frozen=True)
class LastWord:
    """What became of the last act."""

    text: str
    good: bool = True


@dataclass(frozen=True)
class Undoable:
    """An act that can be taken back until then (by the steady clock)."""

    title: str
    commands: tuple[str, ...]
    until: float

    @property
    def left_s(self) -> float:
        return max(0.0, self.until - time.monotonic())


class Desk:
    """What there is to see, and by whom it is read and changed."""

    def step_from(self, task_id: str, steps: int) -> str | None:
        """Move the list of tasks that many rows on from ``task_id``: the task there; None where the list ends."""
        here = self.tasks.index_of(task_id)
        there = self.tasks.row_at(here + steps) if here is not None else None
        if here is None or there is None:
            return None
        self.tasks.move_to(here + steps)
        return there.id

    def __init__(
        self,
        reader: Reader,
        commander: Commander,
        *,
        cluster: str = "lcq",
        saved: SavedViews | None = None,
        rights: Rights | None = None,
        playback: Playback | None = None,
        link: Link | None = None,
    ) -> None:
        """``saved``: the operator's views; None: what they save lasts as long as the console. ``rights``: None: all.
        ``playback``: what ``reader`` is, where that is a replay. ``link``: None: one that tells how fresh all is.
        """
        self.cluster = cluster
        self.saved = saved or SavedViews()
        self.rights = rights or Rights()
        self.playback = playback
        self.tape = Tape(reader)
        self.reader = reader = cast("Reader", self.tape)  # what is looked at can be recorded
        self.commander = commander = cast("Commander", Overheard(commander, lambda: self.tape.noted))
        self.store, self.link = Store(), link or Link()
        if playback is not None:
            from tui.replay import ReplayLink  # here: a live console needs nothing of it

            self.link = ReplayLink(playback)
        self.link.on_change = self.store.stir.set
        self.made = Made()
        self.tasks: View[TaskRow] = View(
            self.store.tasks, {column.id: column.sort for column in (*TASK_COLUMNS, *TASK_MORE)},
            sort="age", descending=True, fields=TASK_FIELDS,
        )  # fmt: skip
        self.queues: View[QueueRow] = View(
            self.store.queues, {column.id: column.sort for column in QUEUE_COLUMNS},
            sort="queue", fields=QUEUE_FIELDS,
        )  # fmt: skip
        self.nodes: View[NodeRow] = View(
            self.store.nodes, {column.id: column.sort for column in (*fleet_columns(str), *NODE_COLUMNS)},
            sort="node", fields=NODE_FIELDS,
        )  # fmt: skip
        self.causes: View[CauseRow] = View(
            self.store.causes, {column.id: column.sort for column in CAUSE_COLUMNS},
            sort="count", descending=True, fields=CAUSE_FIELDS,
        )  # fmt: skip
        self.acts: View[ActRow] = View(
            self.store.acts, {column.id: column.sort for column in ACT_COLUMNS},
            sort="age", descending=True, fields=ACT_FIELDS,
        )  # fmt: skip
        self.acts.set_follow(True)
        self.view = ""  # the one in sight
        self.tasks.set_follow(True)  # until the operator moves: who opens a console wants to see what comes
        self._ticked = time.monotonic()
        self._said: LastWord | None = None
        self._said_at = 0.0
        self._done: Undoable | None = None
        self.acted = 0  # how often this console has done something: what is asked for seldom is worth asking then
        self.drilled: tuple[str, str] | None = None  # the view, and its filter, that a row of another view has led to
        self.open_task = ""  # the task whose details are on the screen
        self.feed = Feed(reader, self.store, self.link, on_screen=self._worth_polling, view=lambda: self.view)
        self.gallery = Gallery(commander, seen=self.tape.note_pictures)
        self.graphics: Graphics | None = None  # how the terminal shows pixels; None: in cells
        self.older = Older(commander, self.store, self.tasks, open_task=lambda: self.open_task)
        self.older_acts = OlderActs(reader, self.store, self.acts, self.link, in_sight=lambda: self.view == "activity")
        self.pulse = Pulse(reader, commander, self.link)
        self.purse = Purse(commander)
        self.asker = Asker(commander, self.store, self.link, waiting=self._waiting)

    def look(self, *, by_hand: bool = False) -> None:
        """Take note that something else may be in sight: what that needs is asked for. ``by_hand``: an operator went
        there."""
        self.older.look()
        self.older_acts.look()
        self.asker.look(by_hand=by_hand)

    def _waiting(self) -> Iterator[str]:
        """The tasks on the screen that wait."""
        if self.view == "tasks" and not self.open_task:
            for row in self.tasks.window():
                if row.status in WAITING and not row.partial:
                    yield row.id

    @property
    def refusal(self) -> str:
        """Why no act may be sent now; "" where it may."""
        return self.link.refusal if self.playback is not None else self.rights.refusal() or self.link.refusal

    def say(self, text: str, *, good: bool = True) -> None:
        """Keep ``text`` as the last word, for all screens to show."""
        self._said, self._said_at = LastWord(text, good), time.monotonic()

    @property
    def said(self) -> LastWord | None:
        """The last word, until it is old."""
        return self._said if time.monotonic() - self._said_at < SAID_S else None

    def note_done(self, title: str, commands: tuple[str, ...]) -> None:
        """The operator has done this just now, by these commands."""
        self.acted += 1
        self._done = Undoable(title, commands, time.monotonic() + UNDO_S) if commands else None

    @property
    def undoable(self) -> Undoable | None:
        """What the operator has done last, as long as it can be taken back."""
        return self._done if self._done is not None and self._done.left_s > 0 else None

    def flush(self) -> bool:
        """Let the views take in what the store has learnt. Answers whether that was anything."""
        due = time.monotonic() - self._ticked >= TICK_S
        if not due and not self.store.has_news:
            return False
        news, now = False, self.link.now_ms
        for view, changes in (
            (self.tasks, self.store.tasks.take()),
            (self.queues, self.store.queues.take()),
            (self.nodes, self.store.nodes.take()),
            (self.causes, self.store.causes.take()),
            (self.acts, self.store.acts.take()),
        ):
            news = news or bool(changes)
            view.now_ms = now
            view.take(changes)
            if due:
                view.tick(now)
        if due:
            self._ticked = time.monotonic()
        return news

    def _worth_polling(self) -> Iterator[str]:
        """Tasks on the screen of which events do not tell everything."""
        if self.open_task:
            yield self.open_task
        for row in self.tasks.window():
            if row.partial or row.status is TaskStatus.PROCESSING:
                yield row.id


def past_desk(playback: Playback, *, saved: SavedViews | None = None) -> Desk:
    """The desk of a replay: it reads the recording, and nothing can be done."""
    from tui.past import PastCommander

    past = PastCommander(playback)
    desk = Desk(playback, cast("Commander", past), cluster=playback.recording.cluster, saved=saved, playback=playback)
    playback.on_alerts = desk.feed.look_at_alerts
    desk.gallery = Gallery(past, recorded=past.has_picture)
    return desk
