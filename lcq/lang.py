"""The language in which LCQ speaks to people: the English of its sources, or that of a catalogue in ``lcq/locale``.

``tr`` and ``ntr`` say it where it is written. Errors, and why a task waits, are English wherever they are made, on the
wire, in the log and in JSON; whoever shows one to a person asks ``retold``. Commands, options, settings, fields, the
words of a filter and whatever came from a person are names, and have no translation.
"""

from __future__ import annotations

import os
import re
import struct
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property, lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

if TYPE_CHECKING:
    from gettext import GNUTranslations

Language = Literal["en", "zh"]
LANGUAGES: tuple[Language, ...] = ("en", "zh")
FOLDER = Path(__file__).parent / "locale"
DOMAIN = "lcq"
_CATALOGUES = {"zh": "zh_CN"}  # the folder of a language that has one

_catalogue: GNUTranslations | None = None  # None: English, which nothing has to be loaded or looked up for
_spoken: Language = "en"


def N(text: str) -> str:  # noqa: N802 (as every program marks what it translates later)
    """Mark ``text`` for the catalogue where it stands; whoever shows it asks ``tr``."""
    return text


def T(text: str) -> str:  # noqa: N802
    """Mark the form of a sentence that is told in English elsewhere, by whomever: ``retold`` then knows it."""
    return text


def tr(text: str, /, **facts: Any) -> str:
    """``text`` in the language that is spoken, with ``facts`` in its ``{places}``; without facts, braces are braces."""
    if _catalogue is not None and text:
        text = _catalogue.gettext(text)
    return text.format_map(facts) if facts else text


def ntr(one: str, many: str, number: float, /, **facts: Any) -> str:
    """``one`` or ``many``, as the language counts ``number``; ``{n}`` in them is the number."""
    if _catalogue is not None and number == int(number):
        text = _catalogue.ngettext(one, many, int(number))
    else:
        text = one if number == 1 else many
    return text.format_map({"n": number, **facts})


_TOLD = "told\x04"  # the context of what is made in English and translated where it is shown (tests/catalogue.py)
_PLACE = re.compile(r"\{(\w+)\}")
_DEEPEST = 4
_UNITS = {"s": N("{n} s"), "min": N("{n} min"), "h": N("{n} h"), "d": N("{n} d")}


def retold(text: str) -> str:
    """``text``, an English sentence of LCQ itself that may come from another process, in the language that is spoken.

    It is known by its form in the catalogue; what stands in the form's places is taken over, and retold too if it is
    such a sentence itself. What has no known form (an older or newer LCQ, the words of another program) stays as it is.
    """
    return text if _catalogue is None or not text else _retold(text, 0)


def retold_error(error: BaseException) -> str:
    """What an error says, with its hint behind it, in the language that is spoken."""
    message, hint = getattr(error, "message", None), getattr(error, "hint", "")
    if not isinstance(message, str):
        return retold(str(error))
    return f"{retold(message)} ({retold(hint)})" if hint else retold(message)


@lru_cache(maxsize=4096)
def _retold(text: str, depth: int) -> str:
    if _catalogue is None or depth > _DEEPEST or not text:
        return text
    core = text.strip()
    if core != text:
        return text.replace(core, _retold(core, depth), 1) if core else text
    for joint, ours in _JOINTS:
        if text.startswith(joint):
            return ours + _retold(text.removeprefix(joint), depth)
    whole = _catalogue.pgettext("told", text)
    if whole != text:
        return whole
    if length := _LENGTH.fullmatch(text):
        return _told_length(*length.groups())
    return (
        _in_a_form(text, depth, joined=True)
        or _in_parts(text, depth, _JOINTS[:1])
        or _in_a_form(text, depth, joined=False)
        or _with_brackets(_LAST_BRACKETED, text, depth, whole=True)
        or _in_parts(text, depth, _JOINTS[1:])
        or _with_brackets(_BRACKETED, text, depth)
        or text
    )


def _told_length(before: str | None, number: str, unit: str, behind: str | None) -> str:
    """A length of time as sentences have it (``lcq.reasons.about``), perhaps "in" so long, or so long "ago"."""
    said = tr(_UNITS[unit], n=number)
    if before == "P90 ":
        return before + said
    return tr("in {length}", length=said) if before else tr("{length} ago", length=said) if behind else said


_LENGTH = re.compile(r"(P90 |in )?(\d+(?:\.\d+)?) (s|min|h|d)( ago)?")


def _in_a_form(text: str, depth: int, *, joined: bool) -> str:
    """``text`` by a form that has a ``;`` of its own (``joined``), or by one that has none; "" where none fits."""
    forms = _forms()
    for form in (*forms.get(_first_word(text), ()), *forms.get("", ())):
        facts = form.facts_in(text) if ("; " in form.english) is joined else None
        if facts is not None:
            told = {name: _retold(value, depth + 1) for name, value in facts.items()}
            return _PLACE.sub(lambda place, told=told: told.get(place[1], place[0]), form.said)  # type: ignore[misc]
    return ""


def _in_parts(text: str, depth: int, joints: Iterable[tuple[str, str]]) -> str:
    """``text`` as parts that are joined, one behind the other, all of them known but perhaps the first; else ""."""
    for joint, ours in joints:
        parts = text.split(joint)
        told = [_retold(part, depth + 1) for part in parts]
        if len(parts) > 1 and all(new != old for new, old in zip(told[1:], parts[1:], strict=True)):
            return ours.join(told)
    return ""


def _with_brackets(pattern: re.Pattern[str], text: str, depth: int, *, whole: bool = False) -> str:
    """``text`` with what stands behind it in brackets, where one of them is known (``whole``: by a form); else ""."""
    bracketed = pattern.fullmatch(text)
    if bracketed is None or (whole and not _in_a_form(bracketed[1], depth, joined=False)):
        return ""
    before, inner = bracketed.groups()
    inside = _retold(f"({inner})", depth + 1)  # where brackets and all are a form
    if inside == f"({inner})":
        inside = f"（{_retold(inner, depth + 1)}）"
    told = _retold(before, depth + 1)
    return told + inside if told != before or inside[1:-1] != inner else ""


_JOINTS = (("; ", "；"), (", ", "，"), (": ", "："))
_BRACKETED = re.compile(r"(.+?) \((.*)\)", re.DOTALL)
_LAST_BRACKETED = re.compile(r"(.+) \(([^()]*(?:\([^()]*\)[^()]*)*)\)", re.DOTALL)  # a hint may have some of its own


def _first_word(text: str) -> str:
    """The word at its beginning, by which forms are found; "" where a form begins with a place."""
    found = re.match(r"[A-Za-z]+(?=[ .,;:!?]|$)", text)
    return found[0] if found is not None else ""


@dataclass(frozen=True)
class _Form:
    """A sentence with places, in English and as it is said."""

    english: str
    said: str

    def facts_in(self, text: str) -> dict[str, str] | None:
        """What stands in its places in ``text``; None where that has not this form."""
        if not all(part in text for part in self._between):  # most are told apart by this, and never compiled
            return None
        found = self._pattern.fullmatch(text)
        return None if found is None else found.groupdict()

    @cached_property
    def _between(self) -> list[str]:
        return _PLACE.split(self.english)[::2]

    @cached_property
    def _pattern(self) -> re.Pattern[str]:
        parts, seen = [], set()
        for at, part in enumerate(_PLACE.split(self.english)):
            if at % 2 == 0:
                parts.append(re.escape(part))
            else:
                parts.append(f"(?P={part})" if part in seen else f"(?P<{part}>.*?)")
                seen.add(part)
        return re.compile("".join(parts), re.DOTALL)

    @property
    def openness(self) -> tuple[int, int]:
        """Those that leave the least open come first."""
        return -len("".join(self._between)), len(self._between)


@lru_cache(maxsize=1)
def _forms() -> dict[str, list[_Form]]:
    """What the catalogue can retell, by the first word, with those that leave the least open first."""
    forms: dict[str, list[_Form]] = {}
    told = (
        _Form(english.removeprefix(_TOLD), said)
        for english, said in _messages(_compiled(_spoken))
        if english.startswith(_TOLD) and _PLACE.search(english)
    )
    for form in sorted(told, key=lambda form: form.openness):
        forms.setdefault(_first_word(form.english), []).append(form)
    return forms


def _compiled(language: Language) -> Path:
    return FOLDER / _CATALOGUES[language] / "LC_MESSAGES" / f"{DOMAIN}.mo"


def _messages(compiled: Path) -> Iterator[tuple[str, str]]:
    """All that a catalogue has: gettext looks messages up, and has no way to list them."""
    data = compiled.read_bytes()
    order = "<" if data[:4] == b"\xde\x12\x04\x95" else ">"
    count, english, said = struct.unpack_from(f"{order}3I", data, 8)
    for at in range(count):
        of_both = (struct.unpack_from(f"{order}2I", data, table + 8 * at) for table in (english, said))
        key, value = (data[start : start + length].decode() for length, start in of_both)
        yield key, value


def spoken() -> Language:
    """The language that is spoken now."""
    return _spoken


def speak(language: Language) -> None:
    """Speak ``language`` from now on, in this process."""
    global _catalogue, _spoken
    if language not in _CATALOGUES:
        _catalogue = None
    elif language != _spoken:
        from gettext import GNUTranslations  # here: English has no use for it

        with _compiled(language).open("rb") as compiled:
            _catalogue = GNUTranslations(compiled)
    if language != _spoken:
        _retold.cache_clear()
        _forms.cache_clear()
    _spoken = language


def language_of(arguments: Sequence[str], environment: Mapping[str, str]) -> Language:
    """What a command line and its environment ask for: ``--lang``, else ``LCQ_LANG``, else the locale; else English."""
    for word, following in zip(arguments, [*arguments[1:], ""], strict=False):
        option, equals, value = word.partition("=")
        if option == "--lang":
            return _known(value if equals else following) or "en"
    return _known(environment.get("LCQ_LANG", "")) or _of_locale(environment)


def _of_locale(environment: Mapping[str, str]) -> Language:
    """As GNU programs have it: the first of three names the locale; unless it is C, LANGUAGE comes before it."""
    named = next(filter(None, (environment.get(name) for name in ("LC_ALL", "LC_MESSAGES", "LANG"))), "")
    if named.partition(".")[0] in ("", "C", "POSIX"):
        return "en"
    wished = [*environment.get("LANGUAGE", "").split(":"), named]
    return next(filter(None, map(_known, wished)), "en")


def _known(name: str) -> Language | None:
    """The language of a locale's name such as ``zh_CN.UTF-8``; None if we do not speak it."""
    first = name.replace("-", "_").partition(".")[0].partition("_")[0].lower()
    return next((language for language in LANGUAGES if language == first), None)


def as_language(name: object) -> object:
    """The language that a setting such as ``zh_CN`` names; what names none stays as it is, to be refused."""
    return (_known(name) or name) if isinstance(name, str) else name


def speak_as_asked(arguments: Sequence[str]) -> None:
    """Speak what this process was asked to, before anything is read but its command line and its environment."""
    speak(language_of(arguments, os.environ))
