"""Pictures in true pixels, where the terminal has kitty's protocol or sixels and the extra ``pictures`` is installed.

Everywhere else half-blocks are drawn (tui/pictures.py), which need neither; so they are in tmux, screen and over links
that hide the terminal.
"""

from __future__ import annotations

import importlib.util
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

if TYPE_CHECKING:
    from textual.widget import Widget

Wish = Literal["auto", "cells", "sixel", "kitty"]
_LIBRARY = "textual_image"


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


def find_graphics(wish: Wish, environment: Mapping[str, str]) -> Graphics | None:
    """What the terminal says it can. It is asked once, for up to a few tenths of a second, before the console starts:
    afterwards nobody could tell its answer from keys. None: half-blocks."""
    streams = (sys.__stdin__, sys.__stdout__)
    is_terminal = all(stream is not None and stream.isatty() for stream in streams)
    if why_cells(wish, environment, is_terminal=is_terminal):
        return None
    import textual_image.renderable as library  # asks the terminal
    from textual_image._terminal import get_cell_size

    found: dict[Any, Literal["sixel", "kitty"]] = {library.SixelImage: "sixel", library.TGPImage: "kitty"}
    kind = found.get(library.Image) if wish == "auto" else wish
    if kind not in ("sixel", "kitty"):
        return None
    width, height = get_cell_size()
    return Graphics("sixel" if kind == "sixel" else "kitty", (width, height))
