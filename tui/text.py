"""Text that is safe to paint and exactly as wide as it says: the one door every foreign text comes through."""

from __future__ import annotations

import unicodedata
from collections.abc import Iterable, Sequence
from datetime import UTC, datetime
from functools import lru_cache

from rich.cells import cell_len, get_character_cell_size
from textual.content import Content

from lcq.lang import ntr, tr

ELLIPSIS = "…"
_MAX_COMBINING = 2  # more marks than this on one letter is an attack on the lines above and below


def _invisible() -> dict[int, str]:
    """What is taken out: characters that move, reorder or hide text without showing themselves."""
    ranges = [
        (0x00AD, 0x00AD), (0x034F, 0x034F), (0x061C, 0x061C), (0x115F, 0x1160), (0x17B4, 0x17B5),
        (0x180B, 0x180F), (0x200B, 0x200F), (0x202A, 0x202E), (0x2060, 0x206F), (0x3164, 0x3164),
        (0xFE00, 0xFE0F), (0xFEFF, 0xFEFF), (0xFFA0, 0xFFA0), (0xFFF9, 0xFFFB), (0x1D173, 0x1D17A),
        (0x1F3FB, 0x1F3FF), (0xE0000, 0xE0FFF),
    ]  # fmt: skip
    return {code: "" for first, last in ranges for code in range(first, last + 1)}


# Controls become pictures of themselves, so that the operator sees that something was there.
_TABLE: dict[int, str] = {
    **_invisible(),
    **{code: chr(0x2400 + code) for code in range(0x20)},
    0x7F: "\u2421",
    **dict.fromkeys(range(128, 160), "�"),
    **dict.fromkeys(range(55296, 57344), "�"),
    0x2028: " ",
    0x2029: " ",
    # Terminals disagree on how wide a flag is; its two letters have one width everywhere.
    **{0x1F1E6 + offset: chr(ord("A") + offset) for offset in range(26)},
}


@lru_cache(maxsize=8192)
def _cleaned(text: str) -> str:
    out: list[str] = []
    marks = _MAX_COMBINING  # a mark at the very start would sit on the neighbour's cell
    for char in text.translate(_TABLE):
        if char >= "\u0300" and unicodedata.category(char) in ("Mn", "Me"):
            marks += 1
            if marks > _MAX_COMBINING:
                continue
        else:
            marks = 0
        out.append(char)
    return "".join(out)


def clean(text: str) -> str:
    """``text`` as one line without anything that could command a terminal, reorder the line or hide in it.

    C0, C1 and DEL become visible; bidi controls, zero-width characters and variation selectors are gone.
    """
    if text.isascii() and text.isprintable():
        return text
    return _cleaned(text)


def no_markup(text: str) -> str:
    """``text`` for who reads it as markup whatever one does (Textual's palette, its lists to choose from)."""
    return text.replace("[", "\\[")


def clean_block(text: str) -> str:
    """Like ``clean``, but line breaks stay and tabs become spaces."""
    return "\n".join(clean(line.expandtabs(4)) for line in text.splitlines())


def cells(text: str) -> int:
    """How many terminal cells ``text`` takes."""
    return len(text) if text.isascii() else cell_len(text)


def wrapped(text: str, width: int) -> list[str]:
    """``text`` in lines of at most ``width`` cells, broken between words where that can be."""
    return [line.plain for line in Content(text).wrap(max(1, width))]


def hanging(pieces: Sequence[tuple[str, str]], width: int) -> Content:
    """Pieces of text and their styles put together, no line of it longer than ``width`` cells, and none at the margin
    that only goes on with the one before: below the last of its pieces that begins in its first two fifths, or two
    cells in from its beginning. ``width`` 0: the room is not known yet."""
    content = Content.assemble(*pieces)
    if width <= 0 or all(cells(line) <= width for line in content.plain.split("\n")):
        return content
    begins, offset = set(), 0
    for text, _ in pieces:
        begins.add(offset + _blanks(text))
        offset += len(text)
    lines: list[Content] = []
    offset = 0
    for line in content.split(allow_blank=True):
        plain = line.plain
        if cells(plain) <= width:
            lines.append(line)
        else:
            head = _blanks(plain)
            within = [cells(plain[: at - offset]) for at in begins if offset + head < at < offset + len(plain)]
            indent = max((room for room in within if room <= width * 2 // 5), default=min(head + 2, width // 2))
            first = line.wrap(width)[0]
            rest = line[len(first.plain) :]
            rest = rest[_blanks(rest.plain) :]
            lines += [first, *(Content(" " * indent) + part for part in rest.wrap(width - indent))]
        offset += len(plain) + 1
    return Content("\n").join(lines)


def _blanks(text: str) -> int:
    """How many it begins with."""
    return len(text) - len(text.lstrip(" "))


def packed(parts: Iterable[str], width: int, gap: str = "   ") -> list[str]:
    """``parts`` with gaps between them, in lines of at most ``width`` cells; none is broken."""
    lines: list[str] = []
    for part in parts:
        if lines and cells(lines[-1]) + cells(gap) + cells(part) <= width:
            lines[-1] += gap + part
        else:
            lines.append(part)
    return lines


def cut(text: str, width: int) -> str:
    """The beginning of ``text`` in at most ``width`` cells, with an ellipsis where something is missing."""
    if cells(text) <= width:
        return text
    if width <= 0:
        return ""
    room, kept = width - 1, 0
    for index, char in enumerate(text):
        wide = get_character_cell_size(char)
        if kept + wide > room:
            return text[:index] + ELLIPSIS
        kept += wide
    return text


def begun(text: str, width: int) -> str:
    """The beginning of ``text`` in at most ``width`` cells, and nothing said of what is missing."""
    while cells(text) > max(0, width):
        text = text[:-1]
    return text


def cut_left(text: str, width: int) -> str:
    """The end of ``text`` in at most ``width`` cells: of a path the end says most."""
    if cells(text) <= width:
        return text
    if width <= 0:
        return ""
    room, start = width - 1, len(text)
    while start > 0 and room >= get_character_cell_size(text[start - 1]):
        start -= 1
        room -= get_character_cell_size(text[start])
    while start < len(text) and get_character_cell_size(text[start]) == 0:
        start += 1
    return ELLIPSIS + text[start:]


def fit(text: str, width: int, *, right: bool = False) -> str:
    """``text`` in exactly ``width`` cells: cut with an ellipsis, or padded (on the left with ``right``)."""
    if width <= 0:
        return ""
    taken = cells(text)
    if taken > width:
        text = cut(text, width)
        taken = cells(text)
    padding = " " * (width - taken)
    return padding + text if right else text + padding


def span(milliseconds: float) -> str:
    """A length of time in at most four characters: ``3s``, ``12m``, ``5h``, ``2d``."""
    seconds = max(0, int(milliseconds // 1000))
    if seconds < 100:
        return f"{seconds}s"
    if seconds < 100 * 60:
        return f"{seconds // 60}m"
    if seconds < 100 * 3600:
        return f"{seconds // 3600}h"
    return f"{seconds // 86400}d"


def long_span(milliseconds: float) -> str:
    """A length of time with its two greatest units: ``4m02s``, ``1h07m``."""
    seconds = max(0, int(milliseconds // 1000))
    if seconds < 60:
        return f"{max(0.0, milliseconds) / 1000:.1f}s"
    if seconds < 3600:
        return f"{seconds // 60}m{seconds % 60:02d}s"
    if seconds < 86400:
        return f"{seconds // 3600}h{seconds % 3600 // 60:02d}m"
    return f"{seconds // 86400}d{seconds % 86400 // 3600:02d}h"


def stamp(ms: int | None) -> str:
    """A time of day, with the date where it is not today's."""
    if not ms:
        return "--"
    when = datetime.fromtimestamp(ms / 1000, UTC)
    today = datetime.now(UTC).date() == when.date()
    return f"{when:%H:%M:%S}Z" if today else f"{when:%Y-%m-%d %H:%M:%S}Z"


def compact(number: int) -> str:
    """A count in at most four characters: ``999``, ``9.9k``, ``128k``, ``1.2M``."""
    if number < 1000:
        return str(number)
    for unit, size in (("k", 1000), ("M", 1_000_000), ("G", 1_000_000_000)):
        if number < size * 10:
            return f"{number // (size // 10) / 10:.1f}{unit}"
        if number < size * 1000:
            return f"{number // size}{unit}"
    return tr("lots")


def counted(number: int, noun: str) -> str:
    """``1 task``, ``3,000 tasks``; ``noun`` is English, what comes out is in the language that is spoken."""
    return ntr(f"{{n:,}} {noun}", f"{{n:,}} {noun}s", number)


def basename(path: str) -> str:
    """The last part of a path or URL."""
    return path.rstrip("/\\").replace("\\", "/").rpartition("/")[2] or path


def money(amount: float, currency: str = "") -> str:
    """An amount as people read it: two digits behind the point, and of less than a tenth as many as tell something."""
    if amount >= 0.1 or not amount:
        told = f"{amount:,.2f}"
    else:
        told = f"{amount:.4f}" if amount >= 0.001 else f"{amount:.7f}".rstrip("0").rstrip(".")
    return f"{told} {currency}".rstrip()
