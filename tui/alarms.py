"""What the terminal is told when an alert begins: its bell, and a notification on the desktop. No terminal here."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from lcq.lang import retold, tr
from tui.text import clean, cut

if TYPE_CHECKING:
    from lcq.alerts.records import AlertRecord

Notify = Literal["off", "osc9", "osc777"]
_BELL, _ESC, _ST = "\a", "\x1b", "\x1b\\"
_LONGEST = 200


@dataclass(frozen=True)
class Alarms:
    """How this operator wants to be told. ``passes_through``: a tmux stands before the terminal, and is asked to."""

    bell: bool = True
    notify: Notify = "off"
    passes_through: bool = False

    def sequence(self, alerts: Sequence[AlertRecord], cluster: str) -> str:
        """What is written to the terminal for alerts that have just begun: once, however many they are."""
        if not alerts:
            return ""
        said = ""
        if self.notify != "off":
            said = self._notification(" ".join(("LCQ", _plain(cluster))), _plain(headline(alerts)))
        return said + (_BELL if self.bell else "")

    def _notification(self, title: str, text: str) -> str:
        if self.notify == "osc9":
            told = f"{_ESC}]9;{title}: {text}{_BELL}"
        else:
            told = f"{_ESC}]777;notify;{title};{text}{_BELL}"
        return f"{_ESC}Ptmux;{told.replace(_ESC, _ESC * 2)}{_ST}" if self.passes_through else told


def alarms_of(*, bell: bool, notify: Notify, environment: Mapping[str, str]) -> Alarms:
    """As the settings and this terminal want it."""
    return Alarms(bell, notify, passes_through="TMUX" in environment)


def headline(alerts: Sequence[AlertRecord]) -> str:
    """The worst of them in words, and how many more there are."""
    more = tr(" and {n:,} more", n=len(alerts) - 1) if len(alerts) > 1 else ""
    return f"{tr(alerts[0].severity)}: {clean(retold(alerts[0].text))}{more}"


def _plain(text: str) -> str:
    """Data, that a terminal shows and does not obey: no control of either set, nor what parts the fields."""
    return cut("".join(char for char in clean(text).replace(";", ",") if char.isprintable()), _LONGEST)
