"""The pictures of one task: before with its mask, after, side by side, wiped over each other, or what differs."""

from __future__ import annotations

import time
from collections.abc import Iterable
from dataclasses import replace
from typing import TYPE_CHECKING, ClassVar

from textual import work
from textual.binding import BindingType
from textual.containers import Horizontal
from textual.widget import Widget

from lcq.errors import LcqError
from lcq.lang import tr
from lcq.models import TaskRecord
from lcq.picture_parts import Part
from tui.columns import state_cell
from tui.commands import Scope, bindings_of
from tui.desk import Desk
from tui.gallery import MOST_PX, Pictures
from tui.screens.base import ConsoleScreen, Said
from tui.source import trouble_of
from tui.store import TaskRow, task_row
from tui.text import basename
from tui.widgets.frame import TONE_STYLE, OneLine
from tui.widgets.frame import Part as LinePart
from tui.widgets.picture import PictureView, captioned, depth_of

if TYPE_CHECKING:
    from tui.pictures import Look, Mode, Pixels, Run, Scene

_FIRST_PX = 512
_AGAIN_S = 2.0  # after the cluster has not answered
_ZOOM = 1.5
_PAN = 0.25  # of what is in sight
_WIPE = 0.05  # of the width
_LOSSY = (".jpg", ".jpeg", ".jpe", ".jfif", ".webp")
_STRIPE_PX = 6
_SAME = 2  # of 255: so much a picture differs by being encoded


class PictureScreen(ConsoleScreen):
    """Shows the pictures of one task; ``{`` and ``}`` go through the list that it was chosen from."""

    MODE = "tasks"
    SCOPES: ClassVar[tuple[Scope, ...]] = (Scope.EVERYWHERE, Scope.PICTURE)
    BINDINGS: ClassVar[list[BindingType]] = [*bindings_of(Scope.PICTURE)]
    AUTO_FOCUS = None

    def __init__(self, desk: Desk, task_id: str) -> None:
        super().__init__(desk)
        self.task_id = task_id
        self.mode: Mode | None = None  # None: the first, before anything was drawn
        self._steps = 0  # of the mode, wished before anything was drawn
        self.look: Look | None = None
        self.mask_shown, self.wipe = True, 0.5
        self.pictures: Pictures | None = None
        self._nearer: Pictures | None = None  # of the part in sight
        self._record: TaskRecord | None = None
        self._asked: tuple[int, int, tuple[float, float, float, float]] | None = None
        self._trouble_text = ""
        self._again_at = 0.0
        self._head, self._facts = OneLine(id="picture-head"), OneLine(id="picture-facts")
        graphics = desk.graphics
        self._left, self._right = PictureView(graphics=graphics, id="left"), PictureView(graphics=graphics, id="right")

    @property
    def crumb(self) -> str:
        return tr("{task_id} > pictures", task_id=self.task_id)

    def compose_body(self) -> Iterable[Widget]:
        yield self._head
        yield Horizontal(self._left, self._right, id="picture-panes")
        yield self._facts

    def on_unmount(self) -> None:
        if self.desk.open_task == self.task_id:
            self.desk.open_task = ""

    @property
    def row(self) -> TaskRow | None:
        known = self.desk.store.tasks.rows.get(self.task_id)
        return known if known is not None or self._record is None else task_row(self._record)

    def show_task(self, task_id: str) -> None:
        """Show another task in this screen's place, in the same way."""
        self.task_id = task_id
        self.pictures = self._nearer = self._record = self._asked = None
        self._trouble_text = ""
        if self.look is not None:
            self.look = replace(self.look, zoom=1.0, x=0.5, y=0.5)
        self.show_news()

    # ------------------------------------------------------------ fetching

    def show_news(self) -> None:
        super().show_news()
        self.desk.open_task = self.task_id
        row = self.desk.store.tasks.rows.get(self.task_id)
        is_newer = self._record is not None and row is not None and row.revision > self._record.revision
        if self._trouble_text:
            if time.monotonic() >= self._again_at:
                self._again_at = time.monotonic() + _AGAIN_S
                self._fetch()
        elif self._asked is None or is_newer or self._due():
            self._fetch()
        self._draw()

    def _room(self) -> tuple[int, int]:
        """For one picture: in cells, or in as many as would have the pixels that there are."""
        view, graphics = self._left, self.desk.graphics
        columns, rows = max(1, view.size.width), max(1, view.size.height - 1)
        return (columns, rows) if graphics is None else (columns * graphics.cell[0], rows * graphics.cell[1] // 2)

    def _wish(self) -> tuple[int, tuple[float, float, float, float]]:
        """How many pixels, and which part, are wanted for what is looked at now."""
        from tui.pictures import Look, wanted

        scene = self._scene()
        if self.pictures is None or not (scene.before or scene.after):
            return _FIRST_PX, (0.0, 0.0, 1.0, 1.0)
        return wanted(scene.size, self._room(), self.look or Look(), most=MOST_PX)

    def _due(self) -> bool:
        if self._record is None or self.pictures is None:
            return False
        return (self._record.revision, *self._wish()) != self._asked

    @work(exclusive=True, group="pictures")
    async def _fetch(self) -> None:
        task_id = self.task_id
        longest, box = self._wish() if self.pictures is not None else (_FIRST_PX, (0.0, 0.0, 1.0, 1.0))
        row = self.desk.store.tasks.rows.get(task_id)
        try:
            record, self._asked = self._record, (-1, longest, box)
            if record is None or (row is not None and row.revision > record.revision):
                record = await self.desk.reader.task(task_id)
            if task_id != self.task_id:
                return
            self._record, self._asked = record, (record.revision, longest, box)
            pictures = await self.desk.gallery.look(record, longest=longest, box=box)
        except (LcqError, OSError, TimeoutError) as error:
            if task_id == self.task_id:
                self._trouble_text, self._again_at = trouble_of(error), time.monotonic() + _AGAIN_S
                self._draw()
            return
        if task_id != self.task_id:
            return
        self._trouble_text = ""
        if box == (0.0, 0.0, 1.0, 1.0):
            self.pictures, self._nearer = pictures, None
        else:
            self._nearer = pictures
        self._draw()

    def action_refetch(self) -> None:
        """Also what could not be got."""
        self._record = self._asked = None
        super().action_refetch()
        self.show_news()

    # ------------------------------------------------------------ drawing

    def _scene(self) -> Scene:
        from tui.pictures import Scene

        if self.pictures is None:
            return Scene()
        whole = self.pictures.scene
        if self._nearer is None:
            return whole
        near = self._nearer.scene
        return Scene(whole.before + near.before, whole.mask + near.mask, whole.after + near.after)

    def _draw(self) -> None:
        self._head.show(self._headline())
        if self.pictures is None:
            words = (
                tr("cannot be shown now: {trouble_text}", trouble_text=self._trouble_text)
                if self._trouble_text
                else tr("fetching …")
            )
            self._left.show(None, words=words)
            self._right.display = False
            self._facts.show(())
            return
        from tui.pictures import Look, Mode

        self.mode, self.look = self.mode or Mode.BOTH, self.look or Look()
        for _ in range(self._steps):
            self.mode = self.mode.next
        self._steps = 0
        mode, scene = self._mode_that_can_be(), self._scene()
        both = mode is Mode.BOTH
        self._right.display = both
        if both:
            self._paint(self._left, "before", Mode.BEFORE, scene)
            self._paint(self._right, "after", Mode.AFTER, scene)
        else:
            self._paint(self._left, "after" if mode is Mode.AFTER else "before", mode, scene)
        self._facts.show(self._told())

    def _mode_that_can_be(self) -> Mode:
        """The mode that was chosen, or the one nearest to it that these pictures allow."""
        from tui.pictures import Mode

        mode = self.mode or Mode.BOTH
        return Mode.BOTH if mode in (Mode.WIPE, Mode.DIFFERENCE) and not self._scene().fits else mode

    def _paint(self, view: PictureView, part: Part, mode: Mode, scene: Scene) -> None:
        from tui.pictures import Look, Mode

        assert self.pictures is not None  # noqa: S101 - by _draw
        look, wipe, shown = self.look or Look(), self.wipe, self.mask_shown
        depth, dark = depth_of(self), self.app.current_theme.dark

        def paint(columns: int, rows: int) -> list[list[Run]]:
            return scene.painted(mode, (columns, rows), look, depth=depth, with_holes=shown, wipe=wipe, dark=dark)

        def pixels(width: int, height: int) -> Pixels | None:
            made = scene.composed(mode, (width, height), look, with_holes=shown, wipe=wipe, stripe=_STRIPE_PX)
            return made[0] if made is not None else None

        has_picture = bool(scene.after if mode is Mode.AFTER else scene.before)
        captions = {
            "wipe": tr("before | after, the line at {wipe:.0%}", wipe=wipe),
            "difference": tr("where after differs from before, the brighter the more"),
        }
        view.show(
            paint,
            pixels=pixels if has_picture and self.desk.graphics is not None else None,
            caption=captions.get(mode, captioned(part, self.pictures, depth, mask=shown)),
            words=self.pictures.parts[part].why,
            key=(id(self.pictures), id(self._nearer), mode, look, wipe, shown, depth, dark),
        )

    def _headline(self) -> list[LinePart]:
        row = self.row
        parts = [LinePart(" ")]
        if row is not None:
            word, tone = state_cell(row.status)
            parts += [LinePart(word, TONE_STYLE[tone]), LinePart(f"  {basename(row.image)}  ", "bold")]
        if self.pictures is not None and self.mode is not None and self.look is not None:
            mode, zoom = self._mode_that_can_be(), self._nearness(self.look)
            parts.append(
                LinePart(
                    tr(
                        " {mode}   {zoom}   mask {what}",
                        mode=tr(mode),
                        zoom=zoom,
                        what=tr("on") if self.mask_shown else tr("off"),
                    ),
                    "$text-muted",
                )
            )
            if mode is not self.mode:
                parts.append(
                    LinePart(tr("   no {mode}: there are not two of one size", mode=tr(self.mode)), "$text-warning")
                )
        return parts

    def _nearness(self, look: Look) -> str:
        from tui.pictures import placed

        scale = placed(self._scene().size, *self._room(), look).scale
        if abs(scale - 1) <= 0.005:
            return "1:1"
        return tr("all of it at {scale:.0%}", scale=scale) if look.zoom <= 1 else tr("at {scale:.0%}", scale=scale)

    def _told(self) -> list[LinePart]:
        """What there is to say of the pictures, also for who sees none."""
        pictures = self.pictures
        if pictures is None:
            return []
        parts = [LinePart(" ")]
        mask = pictures.parts["mask"]
        if mask.thumbnail is not None:
            parts.append(LinePart(tr("mask {hole:.2%} of the picture   ", hole=pictures.hole or 0)))
        elif mask.why:
            parts.append(LinePart(tr("mask: {why}   ", why=mask.why), "$text-muted"))
        compared = pictures.compared
        if compared is not None and compared.most <= _SAME:
            parts.append(LinePart(tr("outside the mask nothing differs   "), "$text-success"))
        elif compared is not None and self._is_exact:
            anew = tr(": a lossy format encodes all anew") if self._is_lossy else ""
            parts.append(
                LinePart(
                    tr(
                        "outside the mask PSNR {psnr:.0f} dB, at most {most} of 255{anew}   ",
                        psnr=compared.psnr,
                        most=compared.most,
                        anew=anew,
                    )
                )
            )
        if pictures.sources:
            parts.append(
                LinePart(tr("small pictures made by {sources}", sources=", ".join(pictures.sources)), "$text-muted")
            )
        return parts

    @property
    def _is_exact(self) -> bool:
        """Whether the pixels here are the files' own: what was scaled, or sent as JPEG, differs where they do not."""
        pictures = self.pictures
        shown = [pictures.parts[part].thumbnail for part in ("before", "after")] if pictures is not None else []
        own = all(one is not None and one.pixels.shape[:2] == (one.size[1], one.size[0]) for one in shown)
        return pictures is not None and own and not pictures.sources

    @property
    def _is_lossy(self) -> bool:
        result = self._record.result if self._record is not None else None
        return result is not None and result.path.lower().endswith(_LOSSY)

    # ------------------------------------------------------------ commands

    def _look_so(self, look: Look) -> None:
        self.look = look
        self._draw()
        if self._due():
            self._fetch()

    def action_next_mode(self) -> None:
        if self.mode is None:  # nothing is drawn yet
            self._steps += 1
            return
        self.mode = self.mode.next
        self._draw()
        self.call_after_refresh(self.show_news)  # the room may be another: what is wanted as well

    def action_toggle_mask(self) -> None:
        self.mask_shown = not self.mask_shown
        self._draw()

    def action_zoom_in(self) -> None:
        if self.look is not None:
            self._look_so(self.look.zoomed(_ZOOM))

    def action_zoom_out(self) -> None:
        if self.look is not None:
            self._look_so(self.look.zoomed(1 / _ZOOM).moved(0, 0))

    def action_fit_all(self) -> None:
        if self.look is not None:
            self._look_so(replace(self.look, zoom=1.0, x=0.5, y=0.5))

    def action_one_to_one(self) -> None:
        """A pixel for a pixel, around the middle of the mask."""
        if self.look is None:
            return
        from tui.pictures import middle_of, one_to_one

        scene = self._scene()
        x, y = middle_of(scene.mask[0].pixels) if scene.mask else (0.5, 0.5)
        self._look_so(replace(self.look, zoom=one_to_one(scene.size, *self._room()), x=x, y=y).moved(0, 0))

    def action_look_left(self) -> None:
        self._across(-1)

    def action_look_right(self) -> None:
        self._across(1)

    def _across(self, steps: int) -> None:
        from tui.pictures import Mode

        if self.mode is Mode.WIPE and self._mode_that_can_be() is Mode.WIPE:
            self.wipe = min(1.0, max(0.0, round(self.wipe + steps * _WIPE, 2)))
            self._draw()
        else:
            self._pan(steps * _PAN, 0)

    def _pan(self, across: float, down: float) -> None:
        if self.look is not None:
            self._look_so(self.look.moved(across, down))

    def action_look_up(self) -> None:
        self._pan(0, -_PAN)

    def action_look_down(self) -> None:
        self._pan(0, _PAN)

    def action_pan_left(self) -> None:
        self._pan(-_PAN, 0)

    def action_pan_right(self) -> None:
        self._pan(_PAN, 0)

    def action_previous_picture(self) -> None:
        self._step(-1)

    def action_next_picture(self) -> None:
        self._step(1)

    def _step(self, steps: int) -> None:
        there = self.desk.step_from(self.task_id, steps)
        if there is None:
            self.post_message(Said(tr("there is no other task in that direction")))
        else:
            self.show_task(there)
