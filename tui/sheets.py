"""The console's stylesheet: what has been read once is not read again while its variables are the same."""

from __future__ import annotations

from textual.cache import LRUCache
from textual.css.stylesheet import Stylesheet

_KEPT = 1024  # sources; Textual keeps 64, and forgets all of them in turn where there are more


class OnceRead(Stylesheet):
    """Textual reads every source anew whenever a screen is shown for the first time: three times before the first
    frame. It must where the variables, which are the theme's colours, have changed; otherwise the rules are known."""

    def __init__(self, *, variables: dict[str, str]) -> None:
        super().__init__(variables=variables)
        self._parse_cache = LRUCache(_KEPT)
        self._read_with: dict[str, str] | None = None

    def set_variables(self, variables: dict[str, str]) -> None:
        if variables != self._variables:
            super().set_variables(variables)

    def parse(self) -> None:
        super().parse()
        self._read_with = self._variables

    def reparse(self) -> None:
        if self._read_with != self._variables:
            super().reparse()
            self._parse_cache.clear()
            self._read_with = self._variables
        elif self._require_parse:
            self.parse()
