"""The short way to a console: no library for command lines is loaded for ``lcq console`` and its usual options.

That library takes a fifth of the time to a console's first frame. What is not understood here in full (help, mistakes,
other options) goes the long way, where everything is.
"""

from __future__ import annotations

import gc
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

from lcq import curtain
from lcq.cli.called import INTERRUPTED, Session
from lcq.errors import LcqError
from lcq.lang import LANGUAGES, speak_as_asked
from lcq.log import LOG_LEVELS

GLOBAL = {"--config": "config_file", "--scheduler": "scheduler", "--context": "context", "--lang": "lang",
          "--log-level": "log_level"}  # fmt: skip
CONSOLE = {"--theme": "theme", "--record": "record", "--replay": "replay", "--at": "at"}
FLAGS = {"--read-only": "read_only"}
_CHOICES = {"lang": LANGUAGES, "log_level": LOG_LEVELS}


class Asked(NamedTuple):
    """What a command line asks for: the options before the word console, by Session's names, and those after it."""

    session: dict[str, Any]
    console: dict[str, Any]


def console_asked_for(words: Sequence[str]) -> Asked | None:
    """What these words say, where they ask for a console and nothing else is in them; else None."""
    if words.count("console") != 1:
        return None
    place = words.index("console")
    before, after = _options(words[:place], GLOBAL, {}), _options(words[place + 1 :], CONSOLE, FLAGS)
    if before is None or after is None or ("at" in after and "replay" not in after):
        return None
    if any(before[name] not in choices for name, choices in _CHOICES.items() if name in before):
        return None
    if "config_file" in before:
        before["config_file"] = Path(before["config_file"])
    return Asked(before, after)


def _options(words: Sequence[str], valued: dict[str, str], flags: dict[str, str]) -> dict[str, Any] | None:
    found: dict[str, Any] = {}
    rest = list(words)
    while rest:
        option, is_joined, value = rest.pop(0).partition("=")
        if option in flags and not is_joined:
            found[flags[option]] = True
        elif option in valued and (is_joined or rest):
            value = value if is_joined else rest.pop(0)
            if not value or value.startswith("-") or valued[option] in found:
                return None
            found[valued[option]] = value
        else:
            return None
    return found


def open_console(asked: Asked, words: Sequence[str]) -> int:
    """Run the console that these ``words`` ask for until it is left; the exit code."""
    gc.disable()  # nothing that is imported becomes garbage; the console enables it after its first frame
    os.environ.setdefault("PYDANTIC_DISABLE_PLUGINS", "__all__")  # as in program.py
    curtain.draw()
    speak_as_asked(words)
    session = Session(**asked.session)
    try:
        from lcq.console import find_console

        return find_console()(session.config, scheduler=session.scheduler, **asked.console)
    except (LcqError, TimeoutError) as error:
        curtain.draw_back()
        from lcq.cli.program import tell

        if session.log_level == "debug":
            import traceback

            traceback.print_exception(error)
        return tell(error, session.output)
    except KeyboardInterrupt:
        return INTERRUPTED
    finally:
        curtain.draw_back()
        gc.freeze()  # the process ends, as in program.py
        gc.enable()
