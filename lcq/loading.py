"""What a process loads stays for as long as it lives: nobody need look for garbage in it, then or later."""

from __future__ import annotations

import gc
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def for_good() -> Iterator[None]:
    """Load and build in this block what stays. No collection is made in it, and none looks through it later.

    A process that loads much begins by a sixth to a quarter sooner, and later collections take only as long as what it
    has made since is large.
    """
    was_enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was_enabled:
            gc.freeze()
            gc.enable()


_leaving_out = threading.RLock()


@contextmanager
def without(name: str) -> Iterator[None]:
    """What is imported in this block does without the module ``name``, which it would like to have and need not.

    Where that is loaded already, it is used: then it costs nothing more.
    """
    with _leaving_out:
        if name in sys.modules:
            yield
            return
        sys.modules[name] = None  # type: ignore[assignment]
        try:
            yield
        finally:
            del sys.modules[name]
