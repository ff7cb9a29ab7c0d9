"""A screen of a terminal as a picture: cell by cell as PNG, and as an SVG that stays sharp and small."""

from __future__ import annotations

import base64
import io
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import groupby
from pathlib import Path
from xml.sax.saxutils import escape

import numpy as np
from PIL import Image, ImageDraw, ImageFont
from rich.cells import cell_len
from rich.color import Color
from rich.style import Style
from textual.strip import Strip

Rgb = tuple[int, int, int]

CELL, FONT_SIZE = (9, 18), 15
_SHADES: tuple[Rgb, Rgb] = ((224, 224, 224), (18, 18, 18))  # of text and of its ground, where nothing else is said
_FONTS = ("DejaVuSansMono.ttf", "DejaVuSansMono-Bold.ttf")
_WIDE_FONTS = ("NotoSansMonoCJK-Regular.ttc", "NotoSansCJK-Regular.ttc", "wqy-microhei.ttc", "wqy-zenhei.ttc")
_BLOCKS = {"▀": (0, 0.5), "▄": (0.5, 1), "█": (0, 1), **{chr(0x2580 + n): (1 - n / 8, 1) for n in range(1, 8)}}
_LEFT_BLOCKS = {chr(0x2590 - n): n / 8 for n in range(1, 8)}
_DOTS = ((0, 0), (0, 1), (0, 2), (1, 0), (1, 1), (1, 2), (0, 3), (1, 3))  # of Braille, by their bits
_COLOURS = 256
_FAMILIES = "DejaVu Sans Mono,Menlo,Consolas,monospace"


@dataclass(frozen=True)
class Cell:
    """A character of a screen, one or two cells wide, in its colours."""

    letter: str
    width: int
    front: Rgb
    back: Rgb
    bold: bool

    @property
    def look(self) -> tuple[bool, Rgb, Rgb, bool]:
        return self.letter == "▀", self.front, self.back, self.bold


def cells_of(strip: Strip) -> Iterator[Cell]:
    for segment in strip:
        style = segment.style or Style()
        front, back = _rgb(style.color, _SHADES[0]), _rgb(style.bgcolor, _SHADES[1])
        if style.reverse:
            front, back = back, front
        for letter in segment.text:
            if width := cell_len(letter):
                yield Cell(letter, width, front, back, bool(style.bold))


def _rgb(colour: Color | None, otherwise: Rgb) -> Rgb:
    if colour is None or colour.is_default:
        return otherwise
    red, green, blue = colour.get_truecolor()
    return red, green, blue


def wide_font() -> ImageFont.FreeTypeFont | None:
    """A font that has Chinese; None where none is installed."""
    for name in _WIDE_FONTS:
        try:
            return ImageFont.truetype(name, FONT_SIZE)
        except OSError:
            continue
    return None


def draw_png(lines: Sequence[Strip], size: tuple[int, int], path: Path) -> None:
    """Draw a screen of ``size`` (columns, lines)."""
    fonts = [ImageFont.truetype(name, FONT_SIZE) for name in _FONTS]
    chinese = wide_font() or fonts[0]
    width, height = CELL
    image = Image.new("RGB", (size[0] * width, size[1] * height), _SHADES[1])
    draw = ImageDraw.Draw(image)
    for y, strip in enumerate(lines):
        x = 0
        for cell in cells_of(strip):
            left, top, right, bottom = x * width, y * height, (x + cell.width) * width - 1, (y + 1) * height - 1
            draw.rectangle((left, top, right, bottom), fill=cell.back)
            part = _BLOCKS.get(cell.letter)
            if part is not None:
                from_, to = (round(share * height) for share in part)
                draw.rectangle((left, top + from_, right, top + to - 1), fill=cell.front)
            elif cell.letter in _LEFT_BLOCKS:
                draw.rectangle(
                    (left, top, left + round(_LEFT_BLOCKS[cell.letter] * width) - 1, bottom), fill=cell.front
                )
            elif "\u2800" <= cell.letter <= "\u28ff":
                for bit, (column, row) in enumerate(_DOTS):
                    if (ord(cell.letter) - 0x2800) >> bit & 1:
                        dot = (left + 1 + 4 * column, top + 1 + round(4.5 * row))
                        draw.rectangle((*dot, dot[0] + 2, dot[1] + 2), fill=cell.front)
            x += cell.width
    for y, strip in enumerate(lines):  # over all grounds: some letters reach into the line below
        x = 0
        for cell in cells_of(strip):
            if cell.letter.strip() and cell.letter not in _BLOCKS and not "\u2589" <= cell.letter <= "\u28ff":
                font = chinese if cell.width > 1 else fonts[cell.bold]
                place = (x * width, y * height + (2 if cell.width > 1 else 1))
                draw.text(place, cell.letter, font=font, fill=cell.front)
            x += cell.width
    with_palette(image).save(path, optimize=True)


def with_palette(image: Image.Image) -> Image.Image:
    """The same in as many colours as a palette has: the most frequent as they are, each of the rest as the nearest."""
    pixels = np.asarray(image).reshape(-1, 3)
    packed = pixels.astype(np.uint32) @ np.array([1 << 16, 1 << 8, 1], np.uint32)
    colours, places, counts = np.unique(packed, return_inverse=True, return_counts=True)
    kept = np.sort(np.argsort(-counts, kind="stable")[:_COLOURS])
    parts = np.stack([colours >> 16, colours >> 8 & 255, colours & 255], axis=1).astype(np.int32)
    nearest = np.array([np.square(parts[kept] - one).sum(axis=1).argmin() for one in parts], np.uint8)
    small = Image.fromarray(nearest[places.reshape(image.height, image.width)], "P")
    small.putpalette(parts[kept].astype(np.uint8).tobytes())
    return small


def draw_svg(lines: Sequence[Strip], size: tuple[int, int], path: Path, title: str) -> None:
    """The same as SVG. What half-blocks show is put in as pictures of a pixel for each half cell."""
    width, height = CELL
    box = f'viewBox="0 0 {size[0] * width} {size[1] * height}"'
    out = [
        f'<svg xmlns="http://www.w3.org/2000/svg" {box} font-family="{_FAMILIES}" font-size="{FONT_SIZE}">',
        f"<title>{escape(title)}</title><style>text{{white-space:pre}}.b{{font-weight:bold}}</style>",
        f'<rect width="100%" height="100%" fill="{_hex(_SHADES[1])}"/>',
    ]
    for y, strip in enumerate(lines):
        line = list(cells_of(strip))
        out += [
            f'<rect x="{x * width}" y="{y * height}" width="{length * width}" height="{height}" '
            f'fill="{_hex(group[0].back)}"/>'
            for x, length, group in _runs(line, lambda cell: cell.back)
            if group[0].back != _SHADES[1]
        ]
        for x, length, group in _runs(line, lambda cell: cell.look[0] or cell.look):
            if group[0].letter == "▀":
                out.append(_half_blocks(group, x * width, y * height, length * width, height))
            elif text := "".join(cell.letter for cell in group).rstrip():
                out.append(_text(text, group[0], x * width, y * height))
    path.write_text("\n".join([*out, "</svg>\n"]), encoding="utf-8")


def _text(text: str, first: Cell, x: int, y: int) -> str:
    width, height = CELL
    before = len(text) - len(text.lstrip())
    text, x = text.lstrip(), x + before * width
    bold = ' class="b"' if first.bold else ""
    length = sum(map(cell_len, text)) * width
    return (
        f'<text x="{x}" y="{y + height - 4}" fill="{_hex(first.front)}"{bold} textLength="{length}" '
        f'lengthAdjust="spacingAndGlyphs">{escape(text)}</text>'
    )


def _half_blocks(group: Sequence[Cell], x: int, y: int, width: int, height: int) -> str:
    image = Image.new("RGB", (len(group), 2))
    image.putdata([cell.front for cell in group] + [cell.back for cell in group])
    held = io.BytesIO()
    image.save(held, "PNG", optimize=True)
    data = base64.b64encode(held.getvalue()).decode("ascii")
    return (
        f'<image x="{x}" y="{y}" width="{width}" height="{height}" preserveAspectRatio="none" '
        f'style="image-rendering:pixelated" href="data:image/png;base64,{data}"/>'
    )


def _runs(line: Iterable[Cell], look: Callable[[Cell], object]) -> Iterator[tuple[int, int, list[Cell]]]:
    """Neighbours that look alike: where they begin, and how many cells they take."""
    x = 0
    for _, found in groupby(line, look):
        group = list(found)
        length = sum(cell.width for cell in group)
        yield x, length, group
        x += length


def _hex(colour: Rgb) -> str:
    return "#{:02x}{:02x}{:02x}".format(*colour)
