"""A field to type into that takes no character which could command the terminal."""

from __future__ import annotations

from textual import events
from textual.widgets import Input

from tui.text import clean


class CleanInput(Input):
    """An Input whose pasted text comes in as one clean line: it cannot confirm anything by itself."""

    def _on_paste(self, event: events.Paste) -> None:
        event.prevent_default()  # Input's own would take the text as it is
        event.stop()
        line = clean(" ".join(event.text.split()))
        if self.selection.is_empty:
            self.insert_text_at_cursor(line)
        else:
            self.replace(line, *self.selection)
