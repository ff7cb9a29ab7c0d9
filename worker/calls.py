"""What an agent asks of a function, and what it is answered: JSON both ways. Pure; docs/serverless.md shows it.

A picture travels as a ``Parcel``: in the document itself, or behind an address that the function may read or write
for a while. Both sides check the SHA-256 of what came.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import re
from typing import Any

from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator

from lcq.models import Ease, ErrorClass, TaskType

VERSION = 1
KEY_HEADER = "Idempotency-Key"
MOST_NOTES = 50
LONGEST_HOLD_S = 5.0
_LONGEST_START_S = 86400.0
_LONGEST_ID = 64  # characters of an instance's name that are kept
_CODE = re.compile(r"[a-z0-9_]{1,64}")
_WAKING = (
    "iVBORw0KGgoAAAANSUhEUgAAABAAAAAQCAIAAACQkWg2AAAAGUlEQVQoz2NsaGhgIAUwMZAIRjWMahg6GgDJTAGgk/CoMgAAAABJRU5ErkJggg==",
    "iVBORw0KGgoAAAANSUhEUgAAABAAAAAQCAAAAAA6mKC9AAAAFElEQVQY02NgGFDw/z+UwcQwOAAAIg4CAa4uUgcAAAAASUVORK5CYII=",
)
"""A grey picture of 16 x 16 pixels, and a mask with a hole in its middle."""


class CallRefused(ValueError):
    """A document that is none of ours; in words."""


class Document(BaseModel):
    """The common ground: frozen; what a newer version adds is ignored."""

    model_config = ConfigDict(frozen=True, extra="ignore", defer_build=True)


class Parcel(Document):
    """The bytes of a picture: here (``inline``, base64), or at ``url``."""

    sha256: str = Field(pattern=r"^[0-9a-f]{64}$")
    size: int = Field(ge=1)  # bytes
    inline: str = ""
    url: str = ""

    def opened(self) -> bytes:
        """The bytes that came inline.

        Raises:
            CallRefused: they are not whole.
        """
        try:
            data = base64.b64decode(self.inline, validate=True)
        except (binascii.Error, ValueError) as broken:
            raise CallRefused(f"what came inline is no base64: {broken}") from broken
        return self.checked(data)

    def checked(self, data: bytes) -> bytes:
        """``data``, which came for this parcel.

        Raises:
            CallRefused: it is something else.
        """
        if len(data) != self.size or hashlib.sha256(data).hexdigest() != self.sha256:
            raise CallRefused(f"{len(data):,} bytes came that are not the {self.size:,} which were announced")
        return data


def parcel(data: bytes, *, url: str = "") -> Parcel:
    """``data`` inline, or as what will be at ``url``."""
    inline = "" if url else base64.b64encode(data).decode("ascii")
    return Parcel(sha256=hashlib.sha256(data).hexdigest(), size=len(data), inline=inline, url=url)


class Call(Document):
    """One attempt: what a function is to do.

    ``key``: ``TASK/ATTEMPT``, the same in the header ``Idempotency-Key``: a function that is asked twice may do it
    once. ``put_url``: where the result goes by PUT (``image/png``); "": into the answer. ``warm``: nothing is to be
    done but to load the model, and to stay busy for ``hold_s`` after that, so that calls at the same time come to other
    instances; a function that does not know of this does the tiny picture, and is as warm then.
    """

    v: int = VERSION
    key: str = Field(min_length=3, max_length=100)
    task_type: TaskType = TaskType.INPAINT
    model: str = Field(min_length=1, max_length=64)
    config: dict[str, Any] = Field(default_factory=dict)
    eased: tuple[Ease, ...] = ()
    image: Parcel
    mask: Parcel
    put_url: str = ""
    inline_most: int = Field(default=0, ge=0)  # bytes of a result that the answer may carry, before base64
    seconds_left: float = Field(default=0.0, ge=0)  # until nobody waits any more; 0: no limit is known
    warm: bool = False
    hold_s: float = Field(default=0.0, ge=0, le=LONGEST_HOLD_S)


def waking_call(key: str, model: str, *, hold_s: float, seconds_left: float) -> Call:
    """A call that only wakes an instance, with ``model`` loaded."""
    image, mask = (parcel(base64.b64decode(data)) for data in _WAKING)
    return Call(
        key=key, model=model, image=image, mask=mask, inline_most=64 * 1024, seconds_left=seconds_left, warm=True,
        hold_s=hold_s,
    )  # fmt: skip


class CallAddress(Document):
    """By which the runner of an attempt has addresses lent at the scheduler (docs/serverless.md): whoever has it may.

    ``base``: where the scheduler's HTTP is for its agents, ``public`` for functions; "": not at all.
    """

    path: str = Field(repr=False)
    public: str
    base: str = ""


class Trouble(Document):
    """Why there is no result: the class and code of the closed list."""

    error_class: ErrorClass
    code: str
    message: str

    @property
    def as_told(self) -> tuple[ErrorClass, str]:
        """Class and code, as far as a function is the one to say so. A crash would be a runner's, and be held against
        the node that has it; that nothing was called, or nobody is to pay, an agent finds out."""
        from lcq.health import IS_AWAY, NO_RETRY_LOST  # here: a function has no use for them, and is to start soon
        from lcq.routing import CALL_TOO_LARGE

        the_agents = IS_AWAY | NO_RETRY_LOST | {CALL_TOO_LARGE, "config_invalid"}
        is_its_own = self.code not in the_agents and _CODE.fullmatch(self.code) is not None
        error_class = ErrorClass.TRANSIENT if self.error_class is ErrorClass.CRASH else self.error_class
        return error_class, self.code if is_its_own else "function_error"


class Instance(Document):
    """Who did it. ``start_s``: how long this instance took from its start until it could work, its model loaded: the
    cold start. ``Reply.seconds`` does not have it."""

    id: str = ""
    is_cold: bool = False  # this was the first call that it was given
    start_s: float = Field(default=0.0, ge=0)
    load_s: float = Field(default=0.0, ge=0)  # of it, loading the model, where this call did that

    @field_validator("id", mode="after")
    @classmethod
    def _is_a_short_word(cls, name: str) -> str:
        return "".join(char for char in name[:_LONGEST_ID] if char.isascii() and char.isprintable())

    @field_validator("start_s", "load_s", mode="after")
    @classmethod
    def _is_a_time(cls, seconds: float) -> float:
        return min(seconds, _LONGEST_START_S)  # it travels on in beats, and those take no infinite numbers


class Reply(Document):
    """What became of a call: ``result``, or ``trouble``."""

    v: int = VERSION
    key: str
    result: Parcel | None = None
    trouble: Trouble | None = None
    seconds: float = Field(default=0.0, ge=0)  # that the work took there
    notes: tuple[str, ...] = Field(default=(), max_length=MOST_NOTES)
    instance: Instance = Instance()

    @property
    def billed_s(self) -> float:
        """What is paid for: the work, and the start of an instance that was cold."""
        return self.seconds + (self.instance.start_s if self.instance.is_cold else 0.0)


def read_call(document: Any) -> Call:
    """The call in a JSON document, as text or as what JSON means.

    Raises:
        CallRefused: it is none, or one of a version that is not known here.
    """
    call: Call = _read(Call, document)
    if call.v != VERSION:
        raise CallRefused(f"this function speaks version {VERSION} of calls, and this is version {call.v}")
    return call


def read_reply(document: Any, key: str) -> Reply:
    """The answer to the call ``key``.

    Raises:
        CallRefused: it is none, or that of another call.
    """
    reply: Reply = _read(Reply, document)
    if reply.key != key:
        raise CallRefused(f"it is the answer to {reply.key[:_LONGEST_ID]!r}, and {key} was asked")
    if (reply.result is None) == (reply.trouble is None):
        raise CallRefused("it has neither a result nor a reason why there is none")
    return reply


def _read(kind: Any, document: Any) -> Any:
    try:
        if isinstance(document, str | bytes | bytearray):
            return kind.model_validate_json(document)
        return kind.model_validate(document)
    except ValidationError as invalid:
        first = invalid.errors(include_url=False, include_context=False, include_input=False)[0]
        where = ".".join(str(step) for step in first["loc"])
        raise CallRefused(f"it is no {kind.__name__.lower()}: {where + ': ' if where else ''}{first['msg']}") from None
