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


def in_common(message: str, *, paths: Iterable[str] = ()) -> str:
    """``message`` with names for what differs: paths, ids, numbers. ``paths``: those of its task, spaces and all."""
    for path in sorted(filter(None, paths), key=len, reverse=True):
        message = message.replace(path, "<path>")
    for pattern, name in _RULES:
        message = pattern.sub(name, message)
    return message if len(message) <= _LONGEST else message[: _LONGEST - 1] + "…"
