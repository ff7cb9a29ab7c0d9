"""The language in which LCQ speaks to people: the English of its sources, or that of a catalogue in ``lcq/locale``.

``tr`` and ``ntr`` say it where it is written. Errors, and why a task waits, are English wherever they are made, on the
wire, in the log and in JSON; whoever shows one to a person asks ``retold``. Commands, options, settings, fields, the
words of a filter and whatever came from a person are names, and have no translation.
"""

from __future__ import annotations

import os
import re
from collections.abc import Mapping, Sequence
from functools import lru_cache
from gettext import GNUTranslations
from pathlib import Path
from typing import Any, Literal

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
    if _catalogue is None or depth > _DEEPEST:
        return text
    whole = _catalogue.pgettext("told", text)
    if whole != text:
        return whole
    first = _first_word(text)
    for form, said in (*_forms().get(first, ()), *_forms().get("", ())):
        found = form.fullmatch(text)
        if found is not None:
            facts = {name: _retold(value, depth + 1) for name, value in found.groupdict().items()}
            return _PLACE.sub(lambda place, facts=facts: facts.get(place[1], place[0]), said)  # type: ignore[misc]
    return text


def _first_word(text: str) -> str:
    """The word at its beginning, by which forms are found; "" where a form begins with a place."""
    found = re.match(r"[A-Za-z]+(?=[ .,;:!?]|$)", text)
    return found[0] if found is not None else ""


@lru_cache(maxsize=1)
def _forms() -> dict[str, list[tuple[re.Pattern[str], str]]]:
    """What the catalogue can retell, by the first word, with those that leave the least open first."""
    forms: dict[str, list[tuple[re.Pattern[str], str]]] = {}
    told: dict[object, str] = {} if _catalogue is None else _catalogue._catalog  # type: ignore[attr-defined]
    for key in sorted((key for key in told if isinstance(key, str) and key.startswith(_TOLD)), key=_openness):
        english = key.removeprefix(_TOLD)
        if _PLACE.search(english):
            forms.setdefault(_first_word(english), []).append((_pattern(english), told[key]))
    return forms


def _openness(key: str) -> tuple[int, int]:
    return -len(_PLACE.sub("", key)), len(_PLACE.findall(key))


def _pattern(english: str) -> re.Pattern[str]:
    parts, seen = [], set()
    for at, part in enumerate(_PLACE.split(english)):
        if at % 2 == 0:
            parts.append(re.escape(part))
        else:
            parts.append(f"(?P={part})" if part in seen else f"(?P<{part}>.*?)")
            seen.add(part)
    return re.compile("".join(parts), re.DOTALL)


def spoken() -> Language:
    """The language that is spoken now."""
    return _spoken


def speak(language: Language) -> None:
    """Speak ``language`` from now on, in this process."""
    global _catalogue, _spoken
    folder = _CATALOGUES.get(language)
    if folder is None:
        _catalogue = None
    elif language != _spoken:
        with (FOLDER / folder / "LC_MESSAGES" / f"{DOMAIN}.mo").open("rb") as compiled:
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
