"""The process that makes small pictures: one request on stdin, one answer on stdout, with little memory and time.

Request: {files: {part: path}, longest, box, limits, roots}. Answer: {part: {data, width, height, bytes, why}}.
"""

from __future__ import annotations

import base64
import json
import os
import resource
import sys
from pathlib import Path
from typing import Any

from lcq.errors import LcqError
from lcq.images import shown
from lcq.roots import Roots
from lcq.runner_config import LimitsConfig
from lcq.thumbnails import Thumbnail, read_thumbnail, to_jpeg, to_png

MOST_CHARS = 700_000  # of base64 a part: lcq.wire.MOST_THUMBNAIL_CHARS, which need not be imported for that
_MEMORY_BYTES = 3 * 2**30
_CPU_S = 8
_NICE = 10
_QUALITIES = (80, 60, 35)


def main() -> None:
    """Answer the request, and end."""
    os.nice(_NICE)
    resource.setrlimit(resource.RLIMIT_AS, (_MEMORY_BYTES, _MEMORY_BYTES))
    resource.setrlimit(resource.RLIMIT_CPU, (_CPU_S, _CPU_S))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    request = json.load(sys.stdin.buffer)
    limits = LimitsConfig.model_validate(request["limits"])
    roots = Roots(Path(root) for root in request["roots"])
    left, top, right, bottom = request["box"]
    answer = {
        part: _part(part, path, int(request["longest"]), (left, top, right, bottom), limits, roots)
        for part, path in request["files"].items()
    }
    sys.stdout.write(json.dumps(answer))


def _part(
    part: str, path: str, longest: int, box: tuple[float, float, float, float], limits: LimitsConfig, roots: Roots
) -> dict[str, Any]:
    try:
        small = read_thumbnail(path, longest=longest, box=box, limits=limits, roots=roots, as_mask=part == "mask")
    except LcqError as refusal:
        return {"why": str(refusal)[:2000]}
    except OSError as error:
        return {"why": f"{shown(path)}: {error.strerror or error}"[:2000]}
    width, height = small.size
    data = _encoded(small)
    if not data:
        return {"why": f"{shown(path)}: too much is in it to be sent"[:2000]}
    return {"data": data, "width": width, "height": height, "bytes": small.file_bytes}


def _encoded(small: Thumbnail) -> str:
    """As base64, at the best quality that may be sent; "" where none may."""
    is_mask = small.pixels.ndim == 2
    for quality in _QUALITIES[: 1 if is_mask else None]:
        data = to_png(small.pixels) if is_mask else to_jpeg(small.pixels, quality=quality)
        text = base64.b64encode(data).decode("ascii")
        if len(text) <= MOST_CHARS:
            return text
    return ""


if __name__ == "__main__":
    main()
