"""What an agent and its runner say to each other: frames of typed words over the socket between them.

A frame is its length (4 bytes, big-endian) and a msgpack map ``{word, …}``. A runner does one thing at a
time, so no word needs to say which attempt it is about.
"""

from __future__ import annotations

import socket
import struct
from collections.abc import Iterator
from pathlib import Path
from typing import Any, ClassVar

import msgpack
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from lcq.errors import ProtocolError
from lcq.models import Ease, Failure, ModelOffer, Task, TaskResult, explain_invalid
from lcq.runner_config import LimitsConfig
from worker.calls import CallAddress, Instance
from worker.settings import EngineSettings

_HEAD = struct.Struct(">I")
_LONGEST_FRAME = 16 * 2**20


class Word(BaseModel):
    """The common ground: frozen, and known by its ``WORD``."""

    model_config = ConfigDict(frozen=True, defer_build=True)
    WORD: ClassVar[str]


# ---------------------------------------------------------------- agent → runner


class Setup(Word):
    """The first word to a runner: where it stands. Answered with ``Ready``."""

    WORD = "setup"
    settings: EngineSettings
    self_test: bool = False  # inpaint a tiny picture with each engine first


class Run(Word):
    """Do this attempt; it ends with ``Done``, ``Failed`` or, after ``Cancel``, ``Cancelled``."""

    WORD = "run"
    task: Task
    attempt: int
    limits: LimitsConfig = LimitsConfig()
    eased: tuple[Ease, ...] = ()
    also: tuple[Path, ...] = ()  # folders that it may reach beside storage.roots: the agent has put its files there
    call: CallAddress | None = None  # by which a function's pictures go by way of the scheduler


class Cancel(Word):
    """Nobody wants what is being done: stop at the next crop, and stay warm. Who does not answer is killed."""

    WORD = "cancel"


class Release(Word):
    """Free what loaded models hold; answered with ``Ready``."""

    WORD = "release"


class Stop(Word):
    """End, after what is being done now."""

    WORD = "stop"


# ---------------------------------------------------------------- runner → agent


class Ready(Word):
    """The runner can take an attempt.

    ``warm``: the models it has loaded, and ``held_mib`` the device's memory that they and their caches hold,
    here and below. ``offers``: its models; ``left_out``: engines and models that it has not, and why;
    ``failed``: those that it has, but that failed its self-test, and how. ``loose``: what it could not be kept from,
    though it was wished for, and why.
    """

    WORD = "ready"
    offers: dict[str, ModelOffer] = Field(default_factory=dict)
    left_out: dict[str, str] = Field(default_factory=dict)
    failed: dict[str, str] = Field(default_factory=dict)
    warm: tuple[str, ...] = ()
    held_mib: int = 0
    loose: str = ""


class Progress(Word):
    WORD = "progress"
    fraction: float = Field(ge=0, le=1)
    stage: str = ""


class Done(Word):
    """The result waits under the name ``staged`` ("": it left no file), to be renamed to ``result.path``.

    ``found``: the mark (lcq.file_mark) of what had that name when the attempt began; None: not known.
    ``peak_mib``, here and below: the most of the host's memory that the runner's process held during the attempt;
    ``device_peak_mib``: the most of its GPU's memory, where the engine can tell (0: not known);
    ``rss_mib``: what it holds after it. ``answered``: the instances of a function that did. ``stages``: of its work,
    and when each began, in ns since the epoch.
    """

    WORD = "done"
    result: TaskResult
    staged: str = ""
    found: str | None = None
    warm: tuple[str, ...] = ()
    held_mib: int = 0
    peak_mib: int = 0
    device_peak_mib: int = 0
    rss_mib: int = 0
    answered: tuple[Instance, ...] = ()
    stages: tuple[tuple[str, int], ...] = ()


class Failed(Word):
    """``again_s``: what the engine works with wants to be left alone for so many seconds; 0: it said nothing.
    ``cost``: what was paid for it all the same; None: nobody knows."""

    WORD = "failed"
    failure: Failure
    again_s: float = 0.0
    cost: float | None = None
    warm: tuple[str, ...] = ()
    held_mib: int = 0
    peak_mib: int = 0
    device_peak_mib: int = 0
    rss_mib: int = 0
    answered: tuple[Instance, ...] = ()
    stages: tuple[tuple[str, int], ...] = ()


class Cancelled(Word):
    """The attempt was given up, as told; nothing of it is left."""

    WORD = "cancelled"
    warm: tuple[str, ...] = ()
    held_mib: int = 0
    peak_mib: int = 0
    device_peak_mib: int = 0
    rss_mib: int = 0
    answered: tuple[Instance, ...] = ()


_WORDS: dict[str, type[Word]] = {
    kind.WORD: kind for kind in (Setup, Run, Cancel, Release, Stop, Ready, Progress, Done, Failed, Cancelled)
}


def pack_word(word: Word) -> bytes:
    """``word`` as one whole frame."""
    body: bytes = msgpack.packb(word.model_dump(mode="json") | {"word": word.WORD})
    return _HEAD.pack(len(body)) + body


def _unpack_body(body: bytes) -> Word:
    try:
        values: Any = msgpack.unpackb(body)
        return _WORDS[values.pop("word")].model_validate(values)
    except ValidationError as error:
        raise ProtocolError(f"a runner's frame that is not one we know: {explain_invalid(error)}") from error
    except (ValueError, KeyError, TypeError, AttributeError, msgpack.UnpackException) as error:
        found = f"{type(error).__name__}: {error}"  # its repr may show all that was read, however deep
        raise ProtocolError(f"a runner's frame of {len(body)} bytes holds no word: {found[:200]}") from error


class Words:
    """Takes bytes as they come and gives back the words that are whole."""

    def __init__(self) -> None:
        self._bytes = bytearray()

    def feed(self, data: bytes) -> list[Word]:
        """Raises:
        ProtocolError: what came is no frame of ours; the stream cannot be read any further.
        """
        self._bytes += data
        words = []
        while len(self._bytes) >= _HEAD.size:
            (length,) = _HEAD.unpack_from(self._bytes)
            if length > _LONGEST_FRAME:
                raise ProtocolError(f"a frame of {length} bytes, over the limit of {_LONGEST_FRAME}")
            end = _HEAD.size + length
            if len(self._bytes) < end:
                break
            words.append(_unpack_body(bytes(self._bytes[_HEAD.size : end])))
            del self._bytes[:end]
        return words


def words_from(line: socket.socket) -> Iterator[Word]:
    """Every word that comes in by ``line``, one after the other, until its other end is closed."""
    words = Words()
    while data := line.recv(65536):
        yield from words.feed(data)
