"""Two attempts beside each other: where they ran, what they took, what was different, what they wrote and made."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from textual import work
from textual.containers import Horizontal

from lcq.errors import LcqError
from lcq.lang import retold, tr
from lcq.models import Attempt, TaskRecord, TaskStatus
from tui.desk import Desk
from tui.gallery import Pictures
from tui.screens.base import Said
from tui.screens.detail import Piece, ReadingScreen
from tui.source import trouble_of
from tui.text import clean, clean_block, counted, cut, cut_left, fit, long_span, stamp, wrapped
from tui.widgets.frame import TONE_STYLE
from tui.widgets.picture import THUMBNAIL_PX, PictureView, captioned, depth_of

if TYPE_CHECKING:
    from tui.pictures import Run

_LABEL = 13
_LOG_LINES = 12
DIFFERS = "≠"


@dataclass(frozen=True)
class Side:
    """One attempt of one task; ``attempt`` is None where the task has had none yet."""

    record: TaskRecord
    attempt: Attempt | None
    waited_ms: float = 0.0  # since the submit, or since the attempt before

    @property
    def has_result(self) -> bool:
        """Whether the file of the task's result is this attempt's."""
        return self.attempt is not None and self.attempt.outcome == "completed" and self.record.result is not None


@dataclass(frozen=True)
class Fact:
    """One line of the comparison."""

    label: str
    left: str
    right: str
    matters: bool = True  # a difference is worth a mark: that times differ is not

    @property
    def differs(self) -> bool:
        return self.left != self.right


def sides_of(record: TaskRecord, attempts: Sequence[Attempt]) -> list[Side]:
    """A task's attempts, the first one first."""
    since = float(record.submitted_ms)
    sides = []
    for attempt in attempts:
        sides.append(Side(record, attempt, max(0.0, attempt.started_ms - since)))
        since = float(attempt.ended_ms or attempt.started_ms)
    return sides


def facts_of(left: Side, right: Side, called: Callable[[str, str], str] = lambda _, device: device) -> list[Fact]:
    """Everything in which two attempts can differ, what is empty on both sides left out.

    ``called``: what a device of a node is called there.
    """
    same_task = left.record.id == right.record.id
    facts = [Fact(tr("task"), left.record.id, right.record.id, matters=False)] if not same_task else []
    for label, matters, tell in (
        (tr("attempt"), False, lambda side: f"#{side.attempt.number}" if side.attempt else tr("none yet")),
        (tr("outcome"), True, lambda side: tr(side.attempt.outcome) if side.attempt else ""),
        (tr("node"), True, lambda side: side.attempt.node if side.attempt else ""),
        (tr("device"), True, lambda side: called(side.attempt.node, side.attempt.device) if side.attempt else ""),
        (tr("began"), False, lambda side: stamp(side.attempt.started_ms) if side.attempt else ""),
        (tr("waited"), False, lambda side: long_span(side.waited_ms) if side.attempt else ""),
        (tr("held its slot"), False, _held),
        (tr("worked"), False, _worked),
        (tr("around it"), False, _around),
        (tr("predicted"), False, _predicted),
        (tr("model loaded"), True, _warm),
        (tr("made easier"), True, lambda side: ", ".join(side.attempt.eased) if side.attempt else ""),
        (tr("memory"), False, _memory),
        (tr("megapixels"), True, lambda side: f"{side.attempt.megapixels:.2f}" if _has_pixels(side) else ""),
        (tr("error"), True, _error),
    ):
        facts.append(Fact(label, clean(tell(left)), clean(tell(right)), matters))
    if not same_task:
        facts += _parameters(left.record, right.record)
    return [
        replace(fact, left=fact.left or "--", right=fact.right or "--") for fact in facts if fact.left or fact.right
    ]


def _seconds(seconds: float) -> str:
    return long_span(seconds * 1000) if seconds else ""


def _predicted(side: Side) -> str:
    if side.attempt is None or not side.attempt.predicted_s:
        return ""
    told = _seconds(side.attempt.predicted_s)
    return tr("{told}, a guess", told=told) if side.attempt.guessed else told


def _held(side: Side) -> str:
    attempt = side.attempt
    return long_span(attempt.ended_ms - attempt.started_ms) if attempt and attempt.ended_ms else ""


def _worked(side: Side) -> str:
    return _seconds(side.attempt.seconds) if side.attempt else ""


def _around(side: Side) -> str:
    """What the attempt took that was no work: fetching, loading, waiting for its verdict."""
    attempt = side.attempt
    if attempt is None or not attempt.ended_ms or not attempt.seconds:
        return ""
    return _seconds(max(0.0, (attempt.ended_ms - attempt.started_ms) / 1000 - attempt.seconds)) or long_span(0)


def _warm(side: Side) -> str:
    if side.attempt is None or not side.attempt.cost:
        return ""
    return tr("was there") if side.attempt.warm else tr("had to be loaded")


def _memory(side: Side) -> str:
    if side.attempt is None:
        return ""
    parts = [
        f"{mib:,} MiB{where}"
        for mib, where in ((side.attempt.peak_mib, ""), (side.attempt.device_peak_mib, tr(" of the device")))
        if mib
    ]
    return ", ".join(parts)


def _has_pixels(side: Side) -> bool:
    return side.attempt is not None and side.attempt.megapixels > 0


def _error(side: Side) -> str:
    failure = side.attempt.failure if side.attempt else None
    return f"{failure.code}: {retold(failure.message)}" if failure else ""


def _parameters(left: TaskRecord, right: TaskRecord) -> list[Fact]:
    """What two tasks were asked to be done with, as far as it differs; that the rest is the same is one line."""
    told = [_told(record) for record in (left, right)]
    names = list(dict.fromkeys((*told[0], *told[1])))
    facts = [Fact(name, clean(told[0].get(name, "")), clean(told[1].get(name, ""))) for name in names]
    different = [fact for fact in facts if fact.differs]
    return different or [Fact(tr("parameters"), tr("the same"), tr("the same"))]


def _told(record: TaskRecord) -> dict[str, str]:
    task = record.task
    told = {
        tr("image"): task.image_path,
        tr("mask"): task.mask_path or "",
        tr("model"): task.model,
        tr("queue"): record.queue,
        tr("priority"): str(record.priority),
        tr("user"): task.user_id,
        tr("time-out"): f"{task.timeout_s:g} s",
        tr("retries"): str(task.max_retries),
    }
    plain = task.model_dump(mode="json")
    for section in ("config", "metadata"):
        told |= {f"{section}.{name}": _short(value) for name, value in plain[section].items()}
    return told


def _short(value: object) -> str:
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)


def table_of(facts: Sequence[Fact], width: int) -> list[Piece]:
    """The facts in two columns; where they differ and that matters, a sign says so, not only a colour."""
    room = max(8, (width - _LABEL - 8) // 2)
    pieces: list[Piece] = []
    for fact in facts:
        mark = DIFFERS if fact.differs and fact.matters else " "
        tone = TONE_STYLE["warn"] if fact.differs and fact.matters else ""
        left, right = _lines(fact.left, room), _lines(fact.right, room)
        for number in range(max(len(left), len(right))):
            label = fit(fact.label, _LABEL) if number == 0 else " " * _LABEL
            pieces += [
                (f"  {label} ", "$text-muted"),
                (f"{fit(left[number] if number < len(left) else '', room)} ", tone),
                (f"{mark if number == 0 else ' '} ", TONE_STYLE["warn"]),
                (f"{right[number] if number < len(right) else ''}\n", tone),
            ]
    return pieces


def _lines(text: str, room: int, most: int = 4) -> list[str]:
    """``text`` in at most so many lines of ``room`` cells; a path keeps its end."""
    if "/" in text and " " not in text:
        return [cut_left(text, room)]
    lines = wrapped(text, room)
    if len(lines) > most:
        lines[most - 1 :] = [cut(" ".join(lines[most - 1 :]), room)]
    return lines or [""]


def logs_of(left: Side, right: Side, width: int) -> list[Piece]:
    """What the runners wrote last, beside each other."""
    room = max(8, (width - 5) // 2)
    tails = [
        clean_block(side.attempt.log).splitlines()[-_LOG_LINES:] if side.attempt and side.attempt.log else []
        for side in (left, right)
    ]
    if not any(tails):
        return []
    pieces: list[Piece] = [(tr(" Last log lines\n"), "bold $text-primary")]
    for number in range(max(map(len, tails))):
        one, other = (cut(tail[number], room) if number < len(tail) else "" for tail in tails)
        pieces.append((f"  {fit(one, room)} {other}\n", ""))
    return pieces


class CompareScreen(ReadingScreen):
    """Two attempts of one task, or the last ones of two tasks."""

    MODE = "tasks"
    SECTIONS = ("head", "facts", "logs")

    def __init__(self, desk: Desk, task_id: str, other_id: str = "") -> None:
        super().__init__(desk)
        self.task_id, self.other_id = task_id, other_id
        self.left: Side | None = None
        self.right: Side | None = None
        self._sides: list[Side] = []
        self._at = -1  # which pair of a task's attempts; -1: the last one
        self._views = PictureView(id="left"), PictureView(id="right")
        self._panes = Horizontal(*self._views, id="compare-panes")
        self._panes.display = False

    @property
    def crumb(self) -> str:
        return f"{self.task_id} ~ {self.other_id or 'attempts'}"

    def on_mount(self) -> None:
        self._scroll.mount(self._panes, after=self._sections["facts"])
        self.show_section("head", [(tr(" reading …"), "bold")])
        super().on_mount()
        self._read()

    def on_resize(self) -> None:
        super().on_resize()
        self.call_after_refresh(self._show)

    @work(exclusive=True, group="compare")
    async def _read(self) -> None:
        try:
            record = await self.desk.reader.task(self.task_id)
            sides = sides_of(record, await self.desk.reader.attempts(self.task_id))
            if not self.other_id and len(sides) < 2:
                self.other_id = self._same_image(record)
            if self.other_id:
                other = await self.desk.reader.task(self.other_id)
                others = sides_of(other, await self.desk.reader.attempts(self.other_id))
                sides = [(sides or [Side(record, None)])[-1], (others or [Side(other, None)])[-1]]
        except (LcqError, OSError, TimeoutError) as error:
            self.show_section(
                "head", [(tr(" cannot be compared now: {error}", error=clean(trouble_of(error))), TONE_STYLE["bad"])]
            )
            return
        self._sides = sides
        self._show()
        self._fetch()

    def _same_image(self, record: TaskRecord) -> str:
        """The newest other task of the same image that is known here, one that was completed if there is one."""
        image = clean(record.task.image_path)
        same = [row for row in self.desk.store.tasks.rows.values() if row.image == image and row.id != record.id]
        done = [row for row in same if row.status is TaskStatus.COMPLETED]
        return max((row.id for row in done or same), default="")

    # ------------------------------------------------------------ showing

    def _show(self) -> None:
        sides, width = self._sides, self.size.width
        if not sides:
            return
        if len(sides) < 2:
            words = tr(
                " {task_id} has one attempt, and no other task of its image is known here.\n"
                " = on a task with two attempts, or on two marked tasks, compares them.",
                task_id=self.task_id,
            )
            self.show_section("head", [(words, "bold")])
            return
        last = len(sides) - 2
        at = last if self._at < 0 else min(self._at, last)
        self.left, self.right = sides[at], sides[at + 1]
        facts = facts_of(self.left, self.right, self.desk.store.device_called)
        count = sum(fact.differs and fact.matters for fact in facts)
        what = counted(count, "difference")
        title = (
            tr("attempts {at} and {at2} of {count}", at=at + 1, at2=at + 2, count=len(sides))
            if not self.other_id
            else tr("their last attempts")
        )
        self.show_section(
            "head",
            [
                (f" {self.task_id}", "bold $text-primary"),
                (tr(" and {id}", id=self.other_id) if self.other_id else "", "bold $text-primary"),
                (
                    tr(
                        "  {title}   {what} in what matters, marked {differs}\n",
                        title=title,
                        what=what,
                        differs=DIFFERS,
                    ),
                    "",
                ),
            ],
        )
        self.show_section("facts", table_of(facts, width))
        self.show_section("logs", logs_of(self.left, self.right, width))

    @work(exclusive=True, group="pictures")
    async def _fetch(self) -> None:
        """The results, where these attempts have made them."""
        left, right = self.left, self.right
        self._panes.display = False
        if left is None or right is None or not (left.has_result or right.has_result):
            return
        for view, side in zip(self._views, (left, right), strict=True):
            if not side.has_result:
                view.show(None, words=tr("this attempt has left no result"))
                continue
            try:
                pictures = await self.desk.gallery.look(side.record, longest=THUMBNAIL_PX)
            except (LcqError, OSError, TimeoutError) as error:
                view.show(None, words=trouble_of(error))
                continue
            self._paint(view, pictures)
        self._panes.display = True

    def _paint(self, view: PictureView, pictures: Pictures) -> None:
        from tui.pictures import Look, Mode

        scene, depth, dark = pictures.scene, depth_of(self), self.app.current_theme.dark

        def paint(columns: int, rows: int) -> list[list[Run]]:
            return scene.painted(Mode.AFTER, (columns, rows), Look(), depth=depth, dark=dark)

        view.show(paint, caption=captioned("after", pictures, depth), words=pictures.parts["after"].why)

    # ------------------------------------------------------------ commands

    def action_previous_row(self) -> None:
        self._step(-1)

    def action_next_row(self) -> None:
        self._step(1)

    def action_copy_shown_id(self) -> None:
        self.app.copy_to_clipboard(self.task_id)
        self.post_message(
            Said(tr("sent {task_id} to the terminal's clipboard (inside tmux: set-clipboard on)", task_id=self.task_id))
        )

    def _step(self, steps: int) -> None:
        last = len(self._sides) - 2
        at = (last if self._at < 0 else self._at) + steps
        if self.other_id or not 0 <= at <= last:
            self.post_message(Said(tr("there are no other attempts in that direction")))
            return
        self._at = at
        self._show()
        self._fetch()
