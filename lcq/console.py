"""The console, found by its entry point: ``lcq`` itself never imports ``tui``.

python -m lcq.console [FAREWELL]      (lcq/server.py starts it, on the terminal of ``lcq up``)
"""

from __future__ import annotations

import gc
import sys
from collections.abc import Callable
from importlib.metadata import EntryPoints, PackageNotFoundError, distribution, entry_points
from typing import cast

from lcq.errors import LcqError
from lcq.lang import retold, speak, speak_as_asked


def find_console(name: str = "console") -> Callable[..., int]:
    """The console: ``console(config, farewell=…)`` runs until it is left and returns the exit code.

    ``name``: another of its programs, such as ``console-once``.

    Raises:
        LcqError: it is not installed.
    """
    found = tuple(_of_lcq().select(group="lcq.commands", name=name)) or tuple(
        entry_points(group="lcq.commands", name=name)
    )
    if not found:
        raise LcqError("the console is not installed", hint="install LCQ anew: pip install --force-reinstall lcq")
    enabled = gc.isenabled()
    gc.disable()  # nothing that is imported becomes garbage, as in lcq/cli/program.py
    try:
        return cast("Callable[..., int]", found[0].load())
    finally:
        if enabled:
            gc.enable()


def _of_lcq() -> EntryPoints:
    """Those that LCQ itself was installed with: all packages there are need not be asked for them."""
    try:
        return distribution("lcq").entry_points
    except PackageNotFoundError:
        return EntryPoints()


def main() -> None:
    """Run the console with the settings of the environment, and end the process with its exit code."""
    from lcq.config import load

    try:
        farewell = {"farewell": sys.argv[1]} if len(sys.argv) > 1 else {}
        speak_as_asked(())
        config = load()
        if config.lang:
            speak(config.lang)
        sys.exit(find_console()(config, **farewell))
    except LcqError as error:
        sys.exit(f"lcq: {retold(str(error))}")


if __name__ == "__main__":
    main()
