"""Which views were looked at, and with which filters: there and back, as in a browser. No terminal here."""

from __future__ import annotations

from dataclasses import dataclass

_KEPT = 50


@dataclass(frozen=True)
class Place:
    """A view with its filter."""

    mode: str
    filter_text: str = ""


class ViewHistory:
    """The places an operator came through. ``here`` is where they are."""

    def __init__(self, here: Place) -> None:
        self._places = [here]
        self._at = 0

    @property
    def here(self) -> Place:
        return self._places[self._at]

    def leave(self, filter_text: str) -> None:
        """Note with which filter the place is left, so that coming back finds it so."""
        self._places[self._at] = Place(self.here.mode, filter_text)

    def go(self, place: Place) -> None:
        """Somewhere new: what was ahead is forgotten."""
        if place != self.here:
            self._places = [*self._places[max(0, self._at + 2 - _KEPT) : self._at + 1], place]
            self._at = len(self._places) - 1

    def step(self, steps: int) -> Place | None:
        """Back (negative) or forth; None where there is nothing."""
        if not 0 <= self._at + steps < len(self._places):
            return None
        self._at += steps
        return self.here
