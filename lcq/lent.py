"""Addresses that are good for one transfer, and the call of an attempt that they belong to. Pure.

A token is the authority: whoever has the address may use it, once. The state has the SHA-256 of tokens alone.
"""

from __future__ import annotations

import hashlib
import json
import math
import re
import secrets
from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

CALLS = "/v1/calls/"
"""Before the token of a call, by which the runner of an attempt has addresses lent."""
ONCE = "/v1/once/"
"""Before the token of an address that is good for one transfer."""
MOST_ADDRESSES = 64  # of one attempt
LONGEST_S = 24 * 3600.0  # that an address is good for
MOST_REPLY_BYTES = 2**20  # of what a gateway calls back with: the picture goes another way
_TOKEN_BYTES = 32
_ASKED = re.compile(r"^[0-9a-f]{16}$")


class Way(StrEnum):
    """What an address may be used for."""

    GET = "get"
    PUT = "put"
    POST = "post"


class Part(StrEnum):
    """What goes through it. A ``result`` is of what was asked, and a ``reply`` of the address that it came by."""

    IMAGE = "image"
    MASK = "mask"
    RESULT = "result"
    REPLY = "reply"


def new_token() -> tuple[str, str]:
    """A token that nobody can guess, and its digest."""
    token = secrets.token_urlsafe(_TOKEN_BYTES)
    return token, digest_of(token)


def digest_of(token: str) -> str:
    """What the state knows a token by."""
    return hashlib.sha256(token.encode("utf-8", "surrogateescape")).hexdigest()


def name_of(digest: str) -> str:
    """What an address may be called where others read it: nobody gets there by that."""
    return digest[:16]


def is_asked(text: str) -> bool:
    """Whether ``text`` is the digest of what was asked of a function, as a result is known by it."""
    return _ASKED.match(text) is not None and not text.endswith("\n")


@dataclass(frozen=True)
class Taken:
    """A transfer that has begun. ``sha256`` "": whatever comes; then ``size`` is the most that may, else all of it.
    ``is_over``: nobody waits for it any more."""

    digest: str
    holder: str
    sha256: str
    size: int
    part: str
    task: str
    attempt: int
    is_over: bool = False


@dataclass(frozen=True)
class Left:
    """What has come by an address of an attempt's call. ``told``: what else is known of it."""

    attempt: int
    part: Part
    of: str  # of a result: the digest of what was asked; of a reply: the name of the address
    sha256: str
    size: int
    told: Mapping[str, Any]


def left_in(attempt: int, fields: Mapping[str, str]) -> list[Left]:
    """What a call's book says that has come; what cannot be read is not there."""
    found = []
    for name, text in fields.items():
        kind, _, of = name.partition(":")
        try:
            told = json.loads(text)
            found.append(Left(attempt, Part(kind), of, str(told["sha256"]), int(told["size"]), told))
        except (ValueError, KeyError, TypeError, OverflowError, RecursionError):
            continue
    return found


@dataclass(frozen=True)
class Terms:
    """What a call is paid by, as its agent has told: in the currency of the budget, and seconds."""

    price_call: float = 0.0
    price_s: float = 0.0
    timeout_s: float = 0.0

    @classmethod
    def read(cls, text: str) -> Terms | None:
        """None where it says nothing that can be used."""
        try:
            told = json.loads(text)
            numbers = [float(told[name]) for name in ("price_call", "price_s", "timeout_s")]
        except (ValueError, KeyError, TypeError, OverflowError, RecursionError):
            return None
        return cls(*numbers) if all(math.isfinite(one) and one >= 0 for one in numbers) else None

    def price(self, seconds: float) -> float:
        """What a call costs that took so long."""
        return self.price_call + self.price_s * min(seconds, self.timeout_s)


def seconds_of(document: bytes, header: str) -> float | None:
    """How long a function says that it worked, a cold start included; else what its gateway measured
    (``X-Duration-Seconds``); None: neither can be read."""
    try:
        told = json.loads(document)
        instance = told.get("instance") or {}
        cold_s = float(instance.get("start_s") or 0.0) if instance.get("is_cold") else 0.0
        seconds = float(told["seconds"]) + cold_s
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError, OverflowError):
        try:
            seconds = float(header)
        except ValueError:
            return None
    return seconds if math.isfinite(seconds) and seconds >= 0 else None
