"""Folders for this user alone."""

from __future__ import annotations

import errno
import os
from pathlib import Path


def make_private(folder: Path) -> None:
    """Have ``folder``, and make it for this user alone where it is not there yet; those above it, too.

    ``Path.mkdir(mode=…, parents=True)`` makes what is missing above as the umask says: a data folder that others can
    look into.

    Raises:
        OSError: it cannot be made, or is no folder.
    """
    if folder.is_dir():
        return
    if folder.parent != folder:
        make_private(folder.parent)
    try:
        folder.mkdir(mode=0o700, exist_ok=True)  # whoever makes it at the same time was as good
    except FileExistsError:
        raise NotADirectoryError(errno.ENOTDIR, os.strerror(errno.ENOTDIR), str(folder)) from None
