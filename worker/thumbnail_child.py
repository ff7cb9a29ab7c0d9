"""The process that makes small pictures: one request on stdin, one answer on stdout, with little memory and time.

Request: {files: {part: path}, longest, box, limits, roots, mask, webp, terms}.
Answer: {part: {data, width, height, bytes, why}}.
"""

from __future__ import annotations

import base64
import json
import os
import resource
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lcq.errors import LcqError
from lcq.images import shown
from lcq.roots import Roots
from lcq.runner_config import LimitsConfig
from lcq.thumbnails import Box, Thumbnail, overlaid, read_thumbnail, to_jpeg, to_png, to_webp
from worker.warden import confine

MOST_CHARS = 700_000  # of base64 a part: lcq.wire.MOST_THUMBNAIL_CHARS, which need not be imported for that
_MEMORY_BYTES = 3 * 2**30
_CPU_S = 8
_NICE = 10
_QUALITIES = (80, 60, 35)


@dataclass(frozen=True)
class _Look:
    """How everything is to be looked at."""

    longest: int
    box: Box
    limits: LimitsConfig
    roots: Roots
    mask: str
    webp: bool

    def at(self, path: str, *, as_mask: bool) -> Thumbnail:
        """Raises:
        LcqError, OSError: it cannot be looked at.
        """
        return read_thumbnail(
            path, longest=self.longest, box=self.box, limits=self.limits, roots=self.roots, as_mask=as_mask
        )


def main() -> None:
    """Answer the request, and end."""
    os.nice(_NICE)
    resource.setrlimit(resource.RLIMIT_AS, (_MEMORY_BYTES, _MEMORY_BYTES))
    resource.setrlimit(resource.RLIMIT_CPU, (_CPU_S, _CPU_S))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    request = json.load(sys.stdin.buffer)
    confine(str(request["terms"]))
    limits = LimitsConfig.model_validate(request["limits"])
    roots = Roots(Path(root) for root in request["roots"])
    left, top, right, bottom = request["box"]
    look = _Look(
        longest=int(request["longest"]),
        box=(left, top, right, bottom),
        limits=limits,
        roots=roots,
        mask=str(request["mask"]),
        webp=bool(request["webp"]),
    )
    answer = {part: _part(part, path, look) for part, path in request["files"].items()}
    sys.stdout.write(json.dumps(answer))


def _part(part: str, path: str, look: _Look) -> dict[str, Any]:
    try:
        small = look.at(path, as_mask=part == "mask")
        if part == "overlay":
            over = overlaid(small, look.at(look.mask, as_mask=True))
            if over is None:
                return {"why": f"{shown(look.mask)}: it is of another size than its picture"[:2000]}
            small = over
    except LcqError as refusal:
        return {"why": str(refusal)[:2000]}
    except OSError as error:
        return {"why": f"{shown(path)}: {error.strerror or error}"[:2000]}
    width, height = small.size
    data = _encoded(small, webp=look.webp)
    if not data:
        return {"why": f"{shown(path)}: too much is in it to be sent"[:2000]}
    return {"data": data, "width": width, "height": height, "bytes": small.file_bytes}


def _encoded(small: Thumbnail, *, webp: bool) -> str:
    """As base64, at the best quality that may be sent; "" where none may."""
    is_png = small.pixels.ndim == 2 and not webp
    encode = to_webp if webp else to_jpeg
    for quality in _QUALITIES[: 1 if is_png else None]:
        data = to_png(small.pixels) if is_png else encode(small.pixels, quality=quality)
        text = base64.b64encode(data).decode("ascii")
        if len(text) <= MOST_CHARS:
            return text
    return ""


if __name__ == "__main__":
    main()
