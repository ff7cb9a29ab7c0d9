"""What failures have in common: their messages without what differs from one task to the next."""

from __future__ import annotations

import re
from collections.abc import Iterable

_LONGEST = 200
_RULES = tuple(
    (re.compile(pattern, re.IGNORECASE), name)
    for pattern, name in (
        (r"\b[a-z][a-z0-9+.-]*://[^\s'\")]+", "<url>"),
        (r"[^\s'\"(=]*/[^\s'\"):,;]+", "<path>"),
        (r"\b[\w.-]+\.(?:png|jpe?g|webp|tiff?|bmp|gif|heic|avif)\b", "<file>"),
        (r"\b(?:gpu-|mig-)?[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}\b", "<id>"),
        (r"\b0x[0-9a-f]+\b", "<hex>"),
        (r"\b(?=[a-z]*\d)[0-9a-hjkmnp-tv-z]{16}\b", "<id>"),  # a task's (lcq/ids.py)
        (r"\b(?=[a-f]*\d)(?=\d*[a-f])[0-9a-f]{8,}\b", "<hex>"),
        (r"(?<![\w.])\d[\d,]*( ?[x×] ?)\d[\d,]*\b", r"<n>\1<n>"),  # noqa: RUF001 - as messages write a size
        (r"(?<![\w.])\d[\d,]*(?:\.\d+)?", "<n>"),
    )
)


APART = ("model", "node", "size")
"""By what causes may be told apart, beside their class, their code and what their messages have in common."""
TREND_MS = 300_000
"""How long each part of a cause's trend is; it has ``TREND_PARTS`` of them."""
TREND_PARTS = 12
_MEGAPIXELS = (1, 4, 16)  # where one class of size ends and the next begins


def size_class(size: tuple[int, int] | None) -> str:
    """How large an image is, in one of four classes: ``<1MP``, ``1-4MP``, ``4-16MP``, ``>16MP``; "": not known."""
    if size is None:
        return ""
    pixels, low = size[0] * size[1], 0
    for high in _MEGAPIXELS:
        if pixels < high * 1_000_000:
            return f"{low}-{high}MP" if low else f"<{high}MP"
        low = high
    return f">{low}MP"


def size_clauses(of_class: str) -> list[str]:
    """What a filter (docs/filter.md) says of images of such a class of ``size_class``."""
    if not of_class:
        return ["-size>=0"]
    low = 0
    for high in (*_MEGAPIXELS, 0):
        if size_class((low * 1_000_000, 1)) == of_class:
            return [*([f"size>={low}"] if low else []), *([f"size<{high}"] if high else [])]
        low = high
    return []


def trend(times_ms: Iterable[int], now_ms: int) -> tuple[int, ...]:
    """How many of these moments lie in each five minutes of the last hour, the oldest first."""
    parts = [0] * TREND_PARTS
    for at_ms in times_ms:
        ago = max(0, now_ms - at_ms) // TREND_MS
        if ago < TREND_PARTS:
            parts[TREND_PARTS - 1 - ago] += 1
    return tuple(parts)


def in_common(message: str, *, paths: Iterable[str] = ()) -> str:
    """``message`` with names for what differs: paths, ids, numbers. ``paths``: those of its task, spaces and all."""
    for path in sorted(filter(None, paths), key=len, reverse=True):
        message = message.replace(path, "<path>")
    for pattern, name in _RULES:
        message = pattern.sub(name, message)
    return message if len(message) <= _LONGEST else message[: _LONGEST - 1] + "…"
