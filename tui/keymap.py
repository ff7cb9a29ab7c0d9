"""The operator's own keys: which command has which, and why a wish cannot be granted. No terminal here."""

from __future__ import annotations

import difflib
import unicodedata
from collections.abc import Iterable, Mapping, Sequence

from textual.binding import Binding
from textual.keys import KEY_NAME_REPLACEMENTS, Keys

from lcq.errors import InvalidConfig
from tui.commands import COMMANDS, FORBIDDEN_KEYS, PALETTE_KEY, Scope, Tier, commands_of, show_key

_NAMED = {key.value for key in Keys} | set(KEY_NAME_REPLACEMENTS.values())
_HINT = "see console.keys in sample-config/lcq.yaml; '?' in the console lists the commands of each screen"

UserKeys = Mapping[str, tuple[str, ...]]


def read_keymap(wishes: Mapping[str, str], screens: Iterable[Sequence[Scope]]) -> UserKeys:
    """The keys of commands by their ids, as Textual names keys. ``screens``: which scopes are heard at a time.

    Raises:
        InvalidConfig: there is no such command or key, a key that others own, danger on a key that slips, or a key
            that would mean two things on one screen.
    """
    known = {command.id: command for command in COMMANDS if command.keys}
    keys: dict[str, tuple[str, ...]] = {}
    for name, wish in wishes.items():
        command = known.get(name)
        if command is None:
            near = difflib.get_close_matches(name, known, n=1)
            raise InvalidConfig(
                f"console.keys: no command {name!r}" + (f", did you mean {near[0]!r}?" if near else ""), hint=_HINT
            )
        keys[name] = tuple(_key(name, key) for key in wish.split()) or _refuse(name, "names no key")
        if command.tier >= Tier.COSTLY and not all(_is_deliberate(key) for key in keys[name]):
            _refuse(name, f"what costs work or cannot come back has a capital or a function key, found {wish!r}")
    for scopes in screens:
        _refuse_doubles(scopes, keys)
    return keys


def _key(name: str, typed: str) -> str:
    """The key as Textual names it."""
    plain = "comma" if typed == "," else typed.replace("ctrl-", "ctrl+").replace("shift-", "shift+")
    (binding,) = Binding.make_bindings([Binding(plain, name)])
    key = binding.key
    *modifiers, bare = key.split("+")
    if not all(modifier in ("ctrl", "shift", "alt") for modifier in modifiers) or not _is_key(bare):
        _refuse(name, f"there is no key {typed!r}: write it as ?, X, f5, ctrl+g, shift+left or pagedown")
    if key in FORBIDDEN_KEYS or key in (PALETTE_KEY, "ctrl+q", "ctrl+c"):
        _refuse(name, f"{show_key(key)} is a terminal's, a browser's or a field's own, or never arrives")
    return key


def _is_key(bare: str) -> bool:
    if len(bare) == 1 or bare in _NAMED:
        return True
    try:
        unicodedata.lookup(bare.replace("_", " "))
    except KeyError:
        return False
    return True


def _is_deliberate(key: str) -> bool:
    """Whether a key is not pressed by a slip: a missed Shift must be harmless, and nothing dangerous is on ctrl."""
    return (len(key) == 1 and key.isupper()) or (key[:1] == "f" and key[1:].isdecimal())


def _refuse(name: str, why: str) -> tuple[str, ...]:
    raise InvalidConfig(f"console.keys.{name}: {why}", hint=_HINT)


def _refuse_doubles(scopes: Sequence[Scope], keys: UserKeys) -> None:
    heard: dict[str, str] = {}
    for command in commands_of(*scopes):
        for key in keys.get(command.id, command.keys):
            other = heard.setdefault(key, command.id)
            if other != command.id and not {other, command.id}.isdisjoint(keys):
                _refuse(
                    command.id if command.id in keys else other,
                    f"{show_key(key)} would mean {other} and {command.id} on one screen",
                )
