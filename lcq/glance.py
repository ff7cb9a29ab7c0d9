"""A glance at a file: enough to tell whether two hosts see the same one under a name."""

from __future__ import annotations

import hashlib
import os
import stat
from collections.abc import Iterable

from lcq.errors import OutsideRoots
from lcq.roots import ANYWHERE, Roots
from lcq.wire import SeenFile

_HEAD = 65_536


def glance(path: str, roots: Roots = ANYWHERE) -> SeenFile | None:
    """How large the file at ``path`` is, and the SHA-256 of its beginning; None: no such file can be read here."""
    try:
        descriptor = roots.open_to_read(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK | os.O_NOCTTY)
    except (OSError, OutsideRoots, ValueError):
        return None
    try:
        status = os.fstat(descriptor)
        if not stat.S_ISREG(status.st_mode):
            return None
        head = os.read(descriptor, _HEAD)
    except OSError:
        return None
    finally:
        os.close(descriptor)
    return SeenFile(path=path, size=status.st_size, head=hashlib.sha256(head).hexdigest())


def seen_of(files: Iterable[SeenFile], roots: Roots = ANYWHERE) -> tuple[str, ...]:
    """The paths of those of ``files`` that are here, and are the same."""
    return tuple(file.path for file in files if glance(file.path, roots) == file)
