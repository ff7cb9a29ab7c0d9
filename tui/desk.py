"""The operator's desk: the store, its link, and the three views that all screens share. No terminal here."""

from __future__ import annotations

from collections.abc import Iterator

from lcq.models import TaskStatus
from tui.columns import (
    NODE_COLUMNS,
    NODE_FIELDS,
    QUEUE_COLUMNS,
    QUEUE_FIELDS,
    TASK_COLUMNS,
    TASK_FIELDS,
)
from tui.source import Commander, Feed, Link, Reader
from tui.store import NodeRow, QueueRow, Store, TaskRow
from tui.view import View

MANY = 10
"""An act on more tasks than this asks first, also where it can be taken back."""


class Desk:
    """What there is to see, and by whom it is read and changed."""

    def __init__(self, reader: Reader, commander: Commander, *, cluster: str = "lcq") -> None:
        self.cluster = cluster
        self.reader, self.commander = reader, commander
        self.store, self.link = Store(), Link()
        self.tasks: View[TaskRow] = View(
            self.store.tasks, {column.id: column.sort for column in TASK_COLUMNS},
            sort="age", descending=True, fields=TASK_FIELDS,
        )  # fmt: skip
        self.queues: View[QueueRow] = View(
            self.store.queues, {column.id: column.sort for column in QUEUE_COLUMNS},
            sort="queue", fields=QUEUE_FIELDS,
        )  # fmt: skip
        self.nodes: View[NodeRow] = View(
            self.store.nodes, {column.id: column.sort for column in NODE_COLUMNS},
            sort="node", fields=NODE_FIELDS,
        )  # fmt: skip
        self.open_task = ""  # the task whose details are on the screen
        self.feed = Feed(reader, self.store, self.link, on_screen=self._worth_polling)

    def flush(self) -> bool:
        """Let the views take in what the store has learnt. Answers whether that was anything."""
        news = False
        for view, shelf in (
            (self.tasks, self.store.tasks), (self.queues, self.store.queues), (self.nodes, self.store.nodes),
        ):  # fmt: skip
            changes = shelf.take()  # type: ignore[attr-defined]  # mypy joins the three row types to object
            if changes:
                news = True
                view.take(changes)  # type: ignore[attr-defined]
        return news

    def _worth_polling(self) -> Iterator[str]:
        """Tasks on the screen of which events do not tell everything."""
        if self.open_task:
            yield self.open_task
        for row in self.tasks.window():
            if row.partial or row.status is TaskStatus.PROCESSING:
                yield row.id
