"""A picture in cells, and the strip of a task's pictures that comes when the cursor rests on it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import lru_cache
from typing import TYPE_CHECKING

from rich.color import Color
from rich.segment import Segment
from rich.style import Style
from textual import work
from textual.app import ComposeResult
from textual.containers import Horizontal
from textual.content import Content
from textual.strip import Strip
from textual.timer import Timer
from textual.widget import Widget
from textual.widgets import Static

from lcq.errors import LcqError
from lcq.lang import retold, retold_error, tr
from lcq.models import Attempt, TaskRecord
from lcq.picture_parts import Part
from tui.columns import without_folder
from tui.desk import Desk
from tui.gallery import Pictures
from tui.store import TaskRow
from tui.text import cells, clean, clean_block, cut, cut_left, fit
from tui.widgets.frame import TONE_STYLE

if TYPE_CHECKING:
    from tui.graphics import Graphics
    from tui.pictures import Depth, Pixels, Run

REST_S = 0.2
"""So long the cursor has to rest on a task before its pictures are fetched."""
THUMBNAIL_PX = 320
SHOWN_FROM = (120, 40)
"""The strip under a list is shown in windows of this size and larger ones."""

Paint = Callable[[int, int], "list[list[Run]]"]
"""The cells of a picture in so many columns and rows."""
Compose = Callable[[int, int], "Pixels | None"]
"""A picture in so many pixels at most."""


def depth_of(widget: Widget) -> Depth:
    """How many colours there are where ``widget`` is shown."""
    from tui.pictures import Depth

    if widget.app.no_color:
        return Depth.PLAIN
    system = widget.app.console.color_system
    return {"truecolor": Depth.TRUE, "256": Depth.XTERM, "standard": Depth.ANSI}.get(system or "", Depth.PLAIN)


class PictureView(Widget):
    """One picture in half-blocks, in the middle of its room; or words, where there is none."""

    DEFAULT_CSS = "PictureView { height: 1fr; width: 1fr; }"
    ALLOW_SELECT = False

    def __init__(self, *, graphics: Graphics | None = None, id: str | None = None) -> None:  # noqa: A002
        """``graphics``: how pixels are shown where a picture is given as such; None: in cells."""
        super().__init__(id=id)
        self._graphics = graphics
        self._screen_px = graphics.widget() if graphics is not None else None
        self._compose_px: Compose | None = None
        self._paint: Paint | None = None
        self._key: object = None
        self._lines: list[Strip] = []
        self._painted_for: tuple[int, int] | None = None
        self.caption, self.words = "", ""

    def compose(self) -> ComposeResult:
        if self._screen_px is not None:
            self._screen_px.display = False
            yield self._screen_px

    def show(
        self,
        paint: Paint | None,
        *,
        pixels: Compose | None = None,
        caption: str = "",
        words: str = "",
        key: object = None,
    ) -> None:
        """Show what ``paint`` paints, or where the terminal has them ``pixels``, under a line of ``caption``; without
        it, ``words``. What bears the ``key`` of what is shown already changes nothing."""
        if key is not None and key == self._key and (caption, words) == (self.caption, self.words):
            return
        self._paint, self._key, self.caption, self.words = paint, key, clean(caption), clean_block(words)
        self._compose_px = pixels
        self._painted_for = None
        self._place_pixels()
        self.refresh()

    def on_resize(self) -> None:
        self._place_pixels()

    def _place_pixels(self) -> None:
        """Have the terminal itself draw the picture, in the middle of the room, in whole cells."""
        if self._graphics is None or self._screen_px is None:
            return
        width, height = self.size.width, self.size.height - (1 if self.caption else 0)
        made = None
        if self._compose_px is not None and width > 0 and height > 0:
            made = self._compose_px(width * self._graphics.cell[0], height * self._graphics.cell[1])
        self._screen_px.display = made is not None
        if made is None:
            return
        from PIL import Image

        columns = min(width, -(-made.shape[1] // self._graphics.cell[0]))
        rows = min(height, -(-made.shape[0] // self._graphics.cell[1]))
        self._screen_px.styles.width, self._screen_px.styles.height = columns, rows
        self._screen_px.styles.offset = ((width - columns) // 2, self.size.height - height + (height - rows) // 2)
        self._screen_px.image = Image.fromarray(made)  # type: ignore[attr-defined]

    @property
    def _in_pixels(self) -> bool:
        return self._screen_px is not None and self._compose_px is not None

    @property
    def text(self) -> str:
        """What it says, or the characters that it draws with."""
        return "\n".join(strip.text for strip in self._fitted())

    def _fitted(self) -> list[Strip]:
        size = self.size.width, self.size.height
        if self._painted_for != size:
            self._painted_for = size
            self._lines = self._made(*size)
        return self._lines

    def _made(self, width: int, height: int) -> list[Strip]:
        if width <= 0 or height <= 0:
            return []
        room = height - 1 if self.caption else height
        paint = None if self._in_pixels else self._paint
        lines = paint(width, room) if paint is not None and room > 0 else []
        body = [self._strip(line, width) for line in lines] or self._worded(width, room)
        above = (room - len(body)) // 2
        strips = [self._blank(width)] * above + body + [self._blank(width)] * (room - above - len(body))
        if self.caption:
            caption = Segment(fit(f" {self.caption}", width), self._style_of("bold"))
            strips = [Strip([caption], width), *strips]
        return strips[:height]

    def _style_of(self, what: str = "") -> Style:
        return self.rich_style + Style.parse(what) if what else self.rich_style

    def _blank(self, width: int) -> Strip:
        return Strip([Segment(" " * width, self.rich_style)], width)

    def _worded(self, width: int, room: int) -> list[Strip]:
        lines: list[str] = []
        for paragraph in self.words.splitlines():
            lines += _wrapped(paragraph, max(1, width - 2))
        style = self.rich_style
        return [Strip([Segment(fit(f" {line}", width), style)], width) for line in lines[:room]]

    def _strip(self, line: Sequence[Run], width: int) -> Strip:
        taken = sum(len(run.text) for run in line)
        left = (width - taken) // 2
        ground = self.rich_style
        segments = [Segment(" " * left, ground)] if left else []
        segments += [
            Segment(text, _style(ink, below) if below is not None else ground + _style(ink, None))
            for text, ink, below in line
        ]
        right = width - taken - left
        if right > 0:
            segments.append(Segment(" " * right, ground))
        return Strip(segments, width)

    def render_line(self, y: int) -> Strip:
        lines = self._fitted()
        return lines[y] if y < len(lines) else self._blank(self.size.width)

    def notify_style_update(self) -> None:
        super().notify_style_update()
        self._painted_for = None


@lru_cache(maxsize=4096)
def _style(ink: tuple[int, int, int] | None, ground: tuple[int, int, int] | None) -> Style:
    return Style.from_color(Color.from_rgb(*ink) if ink else None, Color.from_rgb(*ground) if ground else None)


def _wrapped(text: str, width: int) -> list[str]:
    """``text`` in lines of at most ``width`` cells, broken between words where there is a place for that."""
    lines, line = [], ""
    for word in text.split(" "):
        while cells(word) > width:  # a path
            piece = word[: max(1, width - cells(line) - 1 if line else width)]
            while cells(piece) > width:
                piece = piece[:-1]
            lines.append(f"{line} {piece}" if line else piece)
            word, line = word[len(piece) :], ""
        if line and cells(line) + 1 + cells(word) > width:
            lines.append(line)
            line = word
        else:
            line = f"{line} {word}" if line else word
    return [*lines, line] if line else lines


def captioned(part: Part, pictures: Pictures, depth: Depth, *, mask: bool = True) -> str:
    """What stands above a picture: what it is, how large, and who has sent it."""
    picture = pictures.parts[part]
    if picture.thumbnail is None:
        return tr(part)
    size = "{}x{}".format(*picture.thumbnail.size)
    name = tr(part)
    if mask and part == "before" and pictures.parts["mask"].thumbnail is not None:
        name += tr(", mask ////") if depth == "none" else tr(", mask red")
    return f"{name}  {size}" + (tr("  from {source}", source=picture.source) if picture.source else "")


class PictureStrip(Horizontal):
    """Before and after of one task, and what its runner wrote last. It fetches when ``look_at`` has rested."""

    DEFAULT_CSS = """
    PictureStrip { height: 11; }
    PictureStrip Static { width: 1fr; height: 1fr; padding: 0 0 0 1; }
    """

    def __init__(self, desk: Desk, *, facts: bool = True, id: str | None = None) -> None:  # noqa: A002
        self._desk = desk
        self._before, self._after = PictureView(id="before"), PictureView(id="after")
        self._facts = Static(id="facts", markup=False)
        self._facts.display = facts
        super().__init__(id=id)
        self._seen: tuple[str, int] | None = None  # what is shown, or on its way: id and revision
        self._rest: Timer | None = None
        self._image = ""  # the path of the picture whose task is shown
        self.pictures: Pictures | None = None

    def compose(self) -> ComposeResult:
        yield self._before
        yield self._after
        yield self._facts

    def look_at(self, row: TaskRow | None) -> None:
        """Show the pictures of ``row`` soon, unless the cursor moves on before that; of nothing, show nothing."""
        wanted = (row.id, row.revision) if row is not None and self.display else None
        if wanted == self._seen:
            return
        same = wanted is not None and self._seen is not None and wanted[0] == self._seen[0]
        self._seen = wanted
        if self._rest is not None:
            self._rest.stop()
            self._rest = None
        self.workers.cancel_group(self, "pictures")
        if not same:
            self._show_nothing()
        if wanted is not None:
            self._rest = self.set_timer(REST_S, self._rested)

    def _show_nothing(self) -> None:
        self.pictures = None
        self._before.show(None)
        self._after.show(None)
        self._facts.update(Content(), layout=False)  # its room is always the same: no layout of the whole screen

    def _rested(self) -> None:
        self._rest = None
        if self._seen is not None:
            self._fetch(self._seen[0])

    @work(exclusive=True, group="pictures")
    async def _fetch(self, task_id: str) -> None:
        try:
            record = await self._desk.reader.task(task_id)
            attempts = await self._desk.reader.attempts(task_id)
            self._image = clean(record.task.image_path)
            self._show_facts(record, attempts)
            if self.pictures is None:
                self._before.show(None, words=tr("fetching …"))
            pictures = await self._desk.gallery.look(record, longest=THUMBNAIL_PX)
        except (LcqError, OSError, TimeoutError) as error:
            if self._seen is not None and self._seen[0] == task_id:
                self._seen = None  # asked again when somebody looks again
                self._before.show(None, words=retold_error(error))
            return
        if self._seen is not None and self._seen[0] == task_id:
            self._show(pictures)

    def _show(self, pictures: Pictures) -> None:
        self.pictures = pictures
        if not any(pictures.parts[part].thumbnail for part in ("before", "after")):
            self._before.show(None, words=self._why_none(pictures, "before"))
            self._after.show(None, words=self._why_none(pictures, "after"))
            self.add_class("-empty")
            return
        from tui.pictures import Look, Mode  # only now: they bring 25 MB with them

        scene, depth, dark = pictures.scene, depth_of(self), self.app.current_theme.dark
        for view, part, mode in ((self._before, "before", Mode.BEFORE), (self._after, "after", Mode.AFTER)):

            def paint(columns: int, rows: int, mode: Mode = mode) -> list[list[Run]]:
                return scene.painted(mode, (columns, rows), Look(), depth=depth, dark=dark)

            known: Part = "before" if part == "before" else "after"
            view.show(paint, caption=captioned(known, pictures, depth), words=self._why_none(pictures, known))
        self.set_class(not (scene.before or scene.after), "-empty")

    def _why_none(self, pictures: Pictures, part: Part) -> str:
        return without_folder(pictures.parts[part].why, self._image)  # the path stands beside it

    def _show_facts(self, record: TaskRecord, attempts: Sequence[Attempt]) -> None:
        width = max(8, self._facts.size.width - 2)
        pieces: list[tuple[str, str]] = [(f"{cut_left(clean(record.task.image_path), width)}\n", "bold")]
        tried = ", ".join(f"{one.node} {one.failure.code if one.failure else tr(one.outcome)}" for one in attempts[-4:])
        if tried:
            pieces.append((f"{cut(clean(tr('tried: {tried}', tried=tried)), width)}\n", ""))
        log = next((one.log for one in reversed(attempts) if one.log), "")
        if log:
            pieces.append((tr("last log lines\n"), "$text-muted"))
            room = max(1, self._facts.size.height - len(pieces))
            pieces += [(f"{cut(line, width)}\n", "") for line in clean_block(log).splitlines()[-room:]]
        elif record.failure is not None:
            told = without_folder(clean(retold(record.failure.message)), clean(record.task.image_path))
            pieces.append((f"{told}\n", TONE_STYLE["bad"]))
        elif record.result is not None:
            pieces.append(
                (
                    tr(
                        "{seconds:.2f} s of work, mask {mask_fraction:.1%}\n",
                        seconds=record.result.seconds,
                        mask_fraction=record.result.mask_fraction,
                    ),
                    "",
                )
            )
        self._facts.update(Content.assemble(*pieces).rstrip("\n"), layout=False)
