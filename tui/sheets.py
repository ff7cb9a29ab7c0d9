"""The console's stylesheet: what has been read once is not read again while its variables are the same."""

from __future__ import annotations

from typing import ClassVar

from textual.cache import LRUCache
from textual.css.model import RuleSet
from textual.css.stylesheet import Stylesheet

_KEPT = 1024  # sources; Textual keeps 64, and forgets all of them in turn where there are more
_KEPT_SETS = 8  # of variables: a theme each
_Rules = LRUCache[tuple[object, ...], list[RuleSet]]


class OnceRead(Stylesheet):
    """Textual reads every source anew whenever a screen is shown for the first time: three times before the first
    frame. It must where the variables, which are the theme's colours, have changed; otherwise the rules are known: to
    every console of this process, so that a theme that comes back is there at once."""

    _known: ClassVar[LRUCache[frozenset[tuple[str, str]], _Rules]] = LRUCache(_KEPT_SETS)

    def __init__(self, *, variables: dict[str, str]) -> None:
        super().__init__(variables=variables)
        self._parse_cache = self._rules_with(variables)
        self._read_with: dict[str, str] | None = None

    @classmethod
    def _rules_with(cls, variables: dict[str, str]) -> _Rules:
        chosen = frozenset(variables.items())
        if chosen not in cls._known:
            cls._known[chosen] = LRUCache(_KEPT)
        return cls._known[chosen]

    def set_variables(self, variables: dict[str, str]) -> None:
        if variables != self._variables:
            self._parse_cache = LRUCache(1)  # what was read with the old ones stays as it is
            super().set_variables(variables)
            self._parse_cache = self._rules_with(variables)

    def parse(self) -> None:
        super().parse()
        self._read_with = self._variables

    def reparse(self) -> None:
        if self._require_parse or self._read_with != self._variables:
            self.parse()
