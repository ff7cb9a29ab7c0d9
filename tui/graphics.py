"""Pictures in true pixels, where the terminal has kitty's protocol or sixels and the extra ``pictures`` is installed.

Everywhere else half-blocks are drawn (tui/pictures.py), which need neither; so they are in tmux, screen and over links
that hide the terminal.
"""

from __future__ import annotations

import importlib.util
import os
import re
import select
import sys
import time
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

if TYPE_CHECKING:
    from textual.widget import Widget

Wish = Literal["auto", "cells", "sixel", "kitty"]
_LIBRARY = "textual_image"
ASKED_S = 0.15
_ANSWERED = re.compile(rb"\x1b\[\?[\d;]*c")  # every terminal answers this, and in order


@dataclass(frozen=True)
class Graphics:
    """How this terminal shows pixels. ``cell``: width and height of one of its cells, in pixels."""

    kind: Literal["sixel", "kitty"]
    cell: tuple[int, int]

    def widget(self) -> Widget:
        """A widget that shows what its ``image``, a picture of Pillow's, is set to."""
        from textual_image.widget import SixelImage, TGPImage

        made: Widget = SixelImage() if self.kind == "sixel" else TGPImage()
        return made


def why_cells(wish: Wish, environment: Mapping[str, str], *, is_terminal: bool) -> str:
    """Why half-blocks are drawn without asking the terminal for more; "" where it is to be asked."""
    if wish == "cells":
        return "console.pictures says so"
    if "NO_COLOR" in environment:
        return "NO_COLOR is set"
    if not is_terminal:
        return "there is no terminal to ask"
    term = environment.get("TERM", "")
    if wish == "auto" and ("TMUX" in environment or "STY" in environment or term.startswith(("tmux", "screen"))):
        return "a multiplexer is in between"
    if wish == "auto" and not environment.keys().isdisjoint(("SSH_CONNECTION", "SSH_TTY")):
        return "a link is in between, and a picture is a megabyte"
    if importlib.util.find_spec(_LIBRARY) is None:
        return "the extra is not installed: pip install 'lcq[pictures]'"
    return ""


def has_pixels(answer: bytes) -> bool:
    """Whether a terminal that answers so has kitty's protocol or sixels (4 among what it says of itself)."""
    told = re.search(rb"\x1b\[\?([\d;]*)c", answer)
    return b";OK\x1b" in answer or (told is not None and b"4" in told[1].split(b";")[1:])


def ask_terminal(*, within_s: float = ASKED_S) -> bytes:
    """What the terminal of this process answers when it is asked for kitty's protocol, and what it is."""
    import termios  # no such thing on Windows
    import tty

    here = sys.__stdin__.fileno() if sys.__stdin__ is not None else 0
    answer, until = b"", time.monotonic() + within_s
    try:
        before = termios.tcgetattr(here)
        try:
            tty.setcbreak(here, termios.TCSANOW)
            os.write(here, b"\x1b_Gi=31,s=1,v=1,a=q,t=d,f=24;AAAA\x1b\\\x1b[c")
            while (left := until - time.monotonic()) > 0 and not _ANSWERED.search(answer):
                if select.select([here], [], [], left)[0]:
                    answer += os.read(here, 1024)
        finally:
            termios.tcsetattr(here, termios.TCSANOW, before)
    except (OSError, termios.error):
        pass  # it was taken away meanwhile: the console will find that out itself
    return answer


def find_graphics(wish: Wish, environment: Mapping[str, str]) -> Graphics | None:
    """What the terminal says it can. It is asked once, for up to a few tenths of a second, before the console starts:
    afterwards nobody could tell its answer from keys. None: half-blocks."""
    streams = (sys.__stdin__, sys.__stdout__)
    is_terminal = all(stream is not None and stream.isatty() for stream in streams)
    if why_cells(wish, environment, is_terminal=is_terminal):
        return None
    if wish == "auto" and not has_pixels(ask_terminal()):
        return (
            None  # and nothing is loaded: the library brings 25 MB, and two tenths of a second before the first frame
        )
    import textual_image.renderable as library  # asks once more
    from textual_image._terminal import get_cell_size

    found: dict[Any, Literal["sixel", "kitty"]] = {library.SixelImage: "sixel", library.TGPImage: "kitty"}
    kind = found.get(library.Image) if wish == "auto" else wish
    if kind not in ("sixel", "kitty"):
        return None
    width, height = get_cell_size()
    return Graphics("sixel" if kind == "sixel" else "kitty", (width, height))
