"""Which file has a name: a mark by which it can be seen that somebody has put another one there."""

from __future__ import annotations

from pathlib import Path


def file_mark(path: str | Path) -> str:
    """Another file, or the same one written again, has another mark; "" where there is none, or none can be seen."""
    try:
        found = Path(path).stat()
    except OSError:
        return ""
    return f"{found.st_dev}:{found.st_ino}:{found.st_size}:{found.st_mtime_ns}"
