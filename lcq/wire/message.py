"""What every word of the control socket has in common, and its limits."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, ClassVar, Generic, TypeVar, cast

from pydantic import BaseModel, ConfigDict, Field, PrivateAttr

from lcq.errors import LcqError, error_from_wire
from lcq.ids import new_id

if TYPE_CHECKING:
    from lcq.key_record import KeyRecord

PROTOCOL_VERSION = 2
OLDEST_PROTOCOL = 1
"""What a scheduler still answers, in that version's words (lcq/versions.py); see docs/decisions/0006-versions.md."""

MAX_MESSAGE_BYTES = 16 * 2**20
MOST_IN_HAND = 16  # grants a slot that an agent may hold ahead, where the work is that short
MAX_LOG = 4096  # characters of what a runner wrote that a failure carries
MAX_BATCH = 500  # tasks or ids in one command; clients send longer lists in pieces


class Message(BaseModel):
    """The common ground: frozen, typed; fields a newer peer added are ignored."""

    model_config = ConfigDict(frozen=True, extra="ignore", allow_inf_nan=False, defer_build=True)


AnswerT = TypeVar("AnswerT", bound=Message)


class Request(Message, Generic[AnswerT]):
    """What may be asked. ``ANSWER`` is the model of the answer's ``ok``."""

    CMD: ClassVar[str]
    ANSWER: ClassVar[type[Message]]
    IS_KEPT: ClassVar[bool] = True
    """Whether its answer is remembered for copies of the request: not where it is large, and may be given anew."""

    id: str = Field(default_factory=new_id)
    _version: int = PrivateAttr(PROTOCOL_VERSION)
    _holder: Any = PrivateAttr(None)

    @property
    def version(self) -> int:
        """The protocol of who asked; the answer is told in it."""
        return self._version

    @property
    def holder(self) -> KeyRecord | None:
        """Whose key who asked has shown; None: no key was asked for."""
        return cast("KeyRecord | None", self._holder)


class Done(Message):
    """Nothing to say but that it was done."""


class Refusal(Message):
    """Why one of several ids or tasks was not done."""

    id: str
    code: str
    message: str
    hint: str = ""

    @classmethod
    def of(cls, subject: str, error: LcqError) -> Refusal:
        return cls(id=subject, code=error.code, message=error.message, hint=error.hint)

    def error(self) -> LcqError:
        return error_from_wire(self.code, self.message, self.hint)
