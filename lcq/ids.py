"""Time-ordered ids, short enough to type: 16 characters, of which any unique prefix will do.

Nine characters of Crockford's base 32 hold milliseconds since 1970 (good until the year 3084), seven
more hold 35 random bits. Sorting ids as text sorts them by time; ids of one process always increase,
also within one millisecond.
"""

from __future__ import annotations

import secrets
import threading
import time
from datetime import UTC, datetime

ALPHABET = "0123456789abcdefghjkmnpqrstvwxyz"  # Crockford: no i, l, o, u
_TIME_CHARS = 9
_RANDOM_CHARS = 7
ID_LENGTH = _TIME_CHARS + _RANDOM_CHARS
_RANDOM_SPAN = 1 << (5 * _RANDOM_CHARS)
_VALUE = {char: value for value, char in enumerate(ALPHABET)}

_lock = threading.Lock()
_last = 0  # the newest id of this process, as one number


def _encode(number: int, length: int) -> str:
    chars = []
    for _ in range(length):
        number, digit = divmod(number, 32)
        chars.append(ALPHABET[digit])
    return "".join(reversed(chars))


def new_id() -> str:
    """A fresh id, greater than every id this process has made before."""
    global _last
    with _lock:
        fresh = time.time_ns() // 1_000_000 * _RANDOM_SPAN + secrets.randbelow(_RANDOM_SPAN)
        if fresh <= _last:  # same millisecond, or the wall clock went back: stay in order all the same
            fresh = _last + 1 + secrets.randbelow(1 << 20)
        _last = fresh
    return _encode(fresh, ID_LENGTH)


def id_time(task_id: str) -> datetime:
    """When ``task_id`` was made, by the clock of the machine that made it."""
    milliseconds = 0
    for char in task_id[:_TIME_CHARS]:
        milliseconds = milliseconds * 32 + _VALUE[char]
    return datetime.fromtimestamp(milliseconds / 1000, UTC)


def lowest_id(at_ms: int) -> str:
    """An id below every id that was made in that millisecond since 1970, or later."""
    return _encode(at_ms * _RANDOM_SPAN, ID_LENGTH)


def is_id(text: str) -> bool:
    """Whether ``text`` has the form of a whole id."""
    return len(text) == ID_LENGTH and all(char in _VALUE for char in text)


def normalise_prefix(typed: str) -> str:
    """What a person typed, as the id characters it stands for (case and look-alikes forgiven)."""
    return typed.strip().lower().translate(str.maketrans("ilo", "110"))
