"""Lines of Chinese broken where Chinese breaks: rich breaks between spaces, of which it has none."""

from __future__ import annotations

import re
from collections.abc import Iterator

_WIDE = "\u3000-\u303f\u3040-\u30ff\u3400-\u4dbf\u4e00-\u9fff\uac00-\ud7af\uf900-\ufaff\uff00-\uff60\uffe0-\uffe6"
# These begin no line, they stay with what is before them; and these end none.
_STAYS_BEHIND = "，。、；：？！）》」』】…·\u2019\u201d"
_STAYS_BEFORE = "（《「『【\u2018\u201c"
# A piece is one wide character with what has to stay with it, or a run of others; spaces go with what is before.
_PIECE = re.compile(
    rf"\s*(?:[{_STAYS_BEFORE}]*(?:[^\s{_WIDE}{_STAYS_BEHIND}{_STAYS_BEFORE}]+|[{_WIDE}])[{_STAYS_BEHIND}]*"
    rf"|[{_STAYS_BEFORE}{_STAYS_BEHIND}]+)\s*"
)


def pieces(text: str) -> Iterator[tuple[int, int, str]]:
    """Where a text may be broken: (start, end, piece) of each piece, with the spaces behind it."""
    for found in _PIECE.finditer(text):
        yield found.start(), found.end(), found[0]


def break_wide_text() -> None:
    """Have rich break lines between Chinese characters too, from now on, wherever it is used in this process."""
    from rich import _wrap  # private: there is no public way; where a newer rich has none, lines are cut as before

    if hasattr(_wrap, "words"):
        _wrap.words = pieces
