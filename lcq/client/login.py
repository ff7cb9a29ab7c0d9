"""Who runs this program. By itself, for it is wanted where nothing is asked of a cluster yet."""

from __future__ import annotations

import getpass
import os


def login_name() -> str:
    """Who runs this program, as far as the system knows."""
    try:
        return getpass.getuser()
    except (KeyError, OSError):  # a container may run a uid that has no name
        return f"uid-{os.getuid()}"
