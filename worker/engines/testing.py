"""The drill engine, for fire drills of a cluster: tasks that need no picture and fail as they are told to.

It is offered only where ``LCQ_DRILLS=1`` is set. ``config.failures`` says how many first attempts of a task
misbehave (default: all), so that a retry can be seen to succeed.

    drill-noop        ends at once
    drill-sleep       takes ``config.seconds`` (default 1), reporting progress ten times a second
    drill-crash       kills its own process with SIGKILL
    drill-hang        stays for ever and reports nothing
    drill-transient   fails as the network would
    drill-memory      takes ``config.mib`` MiB of memory (default 256), touches all of it, and frees it
    drill-oom         finds no memory
    drill-wrong       paints beside its mask, and is caught at it by the check that every result passes
    drill-gil         holds Python's lock for ``config.seconds`` (default 1): its runner's other threads stand still
    drill-print       writes ``config.lines`` lines (default 3) to each of its outputs, from Python and from C
    drill-segfault    does that, and then reads where no memory is, as a broken library would
"""

from __future__ import annotations

import ctypes
import math
import os
import signal
import sys
import threading
import time
from collections.abc import Mapping
from types import MappingProxyType
from typing import Any

import numpy as np
from numpy.typing import NDArray

from lcq.failpoints import DRILLS_VARIABLE
from worker.engines.base import (
    DeviceKind,
    Ease,
    Engine,
    EngineError,
    ErrorClass,
    ModelOffer,
    Picture,
    Progress,
    TaskType,
    Work,
)
from worker.engines.check import BadOutput, check_output
from worker.engines.work import failed

_TICK_S = 0.1
_BLOCK_MIB = 16

_OFFERS = MappingProxyType(
    {
        f"drill-{what}": ModelOffer(
            kinds=(DeviceKind.CPU, DeviceKind.GPU), eases=(Ease.SMALLER_TILE, Ease.LOWER_PRECISION)
        )
        for what in (
            "noop",
            "sleep",
            "crash",
            "hang",
            "transient",
            "memory",
            "oom",
            "wrong",
            "gil",
            "print",
            "segfault",
        )
    }
)


class DrillEngine(Engine):
    """See the module's text for its models. ``drill`` is what runs; ``run`` gives a picture back as it is."""

    name = "drill"
    self_test = False

    def capabilities(self) -> Mapping[str, ModelOffer]:
        return _OFFERS if os.environ.get(DRILLS_VARIABLE) == "1" else {}

    def run(self, work: Work) -> NDArray[Any]:
        self.drill(work.model, work.config, attempt=1, progress=work.progress)
        pixels: NDArray[Any] = work.picture.pixels
        return pixels

    def drill(self, model: str, config: Mapping[str, Any], *, attempt: int, progress: Progress) -> None:
        """Do what ``model`` is for.

        Raises:
            AttemptFailed: drill-transient and drill-wrong, by their nature.
            EngineError: a key of the configuration is wrong.
            MemoryError: drill-memory found less than it was told to take; drill-oom by its nature.
        """
        misbehaves = attempt <= _number(config, "failures", math.inf, most=math.inf)
        match model:
            case "drill-sleep":
                _sleep(_number(config, "seconds", 1.0, most=86_400), progress)
            case "drill-crash" if misbehaves:
                os.kill(os.getpid(), signal.SIGKILL)
            case "drill-hang" if misbehaves:
                threading.Event().wait()
            case "drill-transient" if misbehaves:
                raise failed(
                    ErrorClass.TRANSIENT, "drill_transient", f"drill: attempt {attempt} fails as it was told to"
                )
            case "drill-oom" if misbehaves:
                raise MemoryError
            case "drill-wrong" if misbehaves:
                _paint_beside_the_mask()
            case "drill-gil":
                ctypes.PyDLL(None).usleep(int(_number(config, "seconds", 1.0, most=1000) * 1e6))  # PyDLL keeps the lock
            case "drill-print":
                _print(int(_number(config, "lines", 3, most=10_000_000)))
            case "drill-segfault" if misbehaves:
                _print(int(_number(config, "lines", 3, most=10_000_000)))
                ctypes.string_at(0)
            case "drill-memory" if misbehaves:
                _take_memory(_number(config, "mib", 256.0, most=1_000_000), progress)


def _number(config: Mapping[str, Any], key: str, default: float, *, most: float) -> float:
    value = config.get(key, default)
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value <= most:
        raise EngineError("config_invalid", f"config.{key} must be a number from 0 to {most:g}, found {value!r:.80}")
    return float(value)


def _sleep(seconds: float, progress: Progress) -> None:
    began = time.monotonic()
    while (passed := time.monotonic() - began) < seconds:
        progress(passed / seconds, "sleep")
        time.sleep(min(_TICK_S, seconds - passed))


def _print(lines: int) -> None:
    """Neither output is told to flush, nor ends in a line break: what runners write must come out all the same."""
    libc = ctypes.CDLL(None)
    for number in range(1, lines + 1):
        print(f"drill: line {number} to stdout")  # noqa: T201 - that is what it is for
        print(f"drill: line {number} to stderr", file=sys.stderr)  # noqa: T201
        libc.printf(b"drill: line %d from C\n", ctypes.c_int(number))
    sys.stdout.write("drill: no line break")


def _paint_beside_the_mask() -> None:
    picture = Picture(np.zeros((8, 8, 3), np.uint8), np.zeros((8, 8), np.bool_))
    try:
        check_output(TaskType.INPAINT, picture, np.ones_like(picture.pixels))
    except BadOutput as bad:
        raise failed(ErrorClass.BAD_OUTPUT, bad.code, f"drill: {bad}") from bad


def _take_memory(mib: float, progress: Progress) -> None:
    blocks = []
    for taken in range(0, math.ceil(mib), _BLOCK_MIB):
        progress(taken / mib, "memory")
        blocks.append(np.ones(min(_BLOCK_MIB, math.ceil(mib) - taken) << 20, dtype=np.uint8))
