"""The whole work of one attempt inside a runner: read, inpaint, check, write beside the final name.

It ends in ``Finished`` or in ``AttemptFailed``; the rename to the final name is the agent's, once the
scheduler has accepted the result.
"""

from __future__ import annotations

import contextlib
import errno
import hashlib
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

import numpy as np
from numpy.typing import NDArray

from lcq.config import LimitsConfig
from lcq.images import (
    BadImage,
    ImageProblem,
    LoadedImage,
    Output,
    encode,
    load_image,
    load_mask,
    plan_output,
    shown,
    write_staged,
)
from lcq.models import ErrorClass, Failure, Task, TaskResult, TaskType
from worker.engines.base import Engine, EngineError, Picture, Progress

_LONGEST_MESSAGE = 2000  # of a Failure
_NOTHING_SHA256 = hashlib.sha256(b"").hexdigest()

_DISK_FULL = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EFBIG})
_NOT_ALLOWED = frozenset({errno.EACCES, errno.EPERM, errno.EROFS})
_NO_SUCH_PLACE = frozenset({errno.ENOTDIR, errno.EEXIST, errno.EISDIR, errno.ENAMETOOLONG, errno.ELOOP, errno.EINVAL})


@runtime_checkable
class Drill(Protocol):
    """An engine that needs no picture: a fire drill (worker/engines/testing.py)."""

    def drill(self, model: str, config: Mapping[str, Any], *, attempt: int, progress: Progress) -> None:
        """Do what ``model`` is for. Raises as a real attempt would."""


@dataclass(frozen=True)
class Finished:
    """A result that waits beside its final name.

    ``staged`` is to be renamed to ``result.path``; both are "" after a drill, which leaves no file.
    ``timings``: seconds for ``decode``, ``inpaint`` and ``encode`` (with writing and fsync).
    """

    result: TaskResult
    staged: str
    timings: Mapping[str, float] = field(default_factory=dict)


class AttemptFailed(Exception):
    """The attempt has no result; ``failure`` says why, in the closed list of docs/states.md."""

    def __init__(self, failure: Failure) -> None:
        super().__init__(f"{failure.code}: {failure.message}")
        self.failure = failure


def failed(error_class: ErrorClass, code: str, message: str) -> AttemptFailed:
    """An ``AttemptFailed`` with its message on one line and within the length a ``Failure`` may have."""
    line = " ".join(message.split())
    line = "".join(char for char in line if char.isprintable()) or code
    return AttemptFailed(Failure(error_class=error_class, code=code, message=line[:_LONGEST_MESSAGE]))


def run_task(
    task: Task,
    *,
    attempt: int,
    engines: Sequence[Engine],
    limits: LimitsConfig,
    progress: Progress,
    device: str = "cpu",
) -> Finished:
    """Do ``task`` with the one of ``engines`` that has its model, on ``device`` (``cpu`` or a GPU's UUID).

    Raises:
        AttemptFailed: nothing is left behind, and its ``failure`` says what kind of end it was.
    """
    started = time.monotonic()
    engine = next((engine for engine in engines if task.model in engine.models()), None)
    if engine is None:
        here = ", ".join(sorted(model for engine in engines for model in engine.models())) or "none"
        raise failed(ErrorClass.TRANSIENT, "model_not_here", f"this runner has no model {task.model!r}; it has: {here}")
    if isinstance(engine, Drill):
        return _drilled(engine, task, attempt, device, progress, started)
    if task.task_type is not TaskType.INPAINT:
        raise failed(
            ErrorClass.BAD_INPUT,
            "task_type_unsupported",
            f"{shown(task.image_path)}: {task.task_type.value} is not supported (use task_type inpaint)",
        )
    if task.mask_path is None:
        raise failed(
            ErrorClass.BAD_INPUT,
            "mask_missing",
            f"{shown(task.image_path)}: has no mask (set mask_path to a picture of the same size whose bright "
            "pixels are to be removed)",
        )

    timings: dict[str, float] = {}
    with _failures_named(task, engine):
        with _timed(timings, "decode"):
            progress(0.0, "decode")
            image, mask, output = _inputs(task, task.mask_path, limits)
        with _timed(timings, "inpaint"):
            progress(0.1, "load")
            engine.load(task.model, device)
            pixels = engine.run(
                Picture(image.pixels, mask),
                task.model,
                task.config,
                lambda fraction, stage: progress(0.1 + 0.8 * min(1.0, max(0.0, fraction)), stage),
            )
            check_output(image.pixels, mask, pixels, task)
        with _timed(timings, "encode"):
            progress(0.9, "encode")
            data, notes = encode(image, pixels, output)
    staged = output.staged(task.id, attempt)
    with _timed(timings, "encode"), _storage_failures_named(output.path):
        write_staged(staged, data)
    try:
        progress(1.0, "written")
        empty = () if mask.any() else ("the mask is empty: the result is the input",)
        return Finished(
            result=TaskResult(
                path=str(output.path),
                bytes=len(data),
                sha256=hashlib.sha256(data).hexdigest(),
                input_sha256=image.input_sha256,
                width=image.size[0],
                height=image.size[1],
                mask_fraction=float(np.count_nonzero(mask)) / mask.size,
                seconds=time.monotonic() - started,
                notes=(*empty, *image.notes, *output.notes, *notes),
            ),
            staged=str(staged),
            timings=timings,
        )
    except BaseException:  # nobody will learn of the file: it must not stay
        staged.unlink(missing_ok=True)
        raise


def _inputs(task: Task, mask_path: str, limits: LimitsConfig) -> tuple[LoadedImage, NDArray[np.bool_], Output]:
    try:
        image = load_image(task.image_path, limits)
        output = plan_output(task, image)
        mask = load_mask(mask_path, image, limits)
    except OSError as error:
        raise _storage_failure(error, f"reading {shown(task.image_path)} and its mask") from error
    return image, mask, output


def _drilled(engine: Drill, task: Task, attempt: int, device: str, progress: Progress, started: float) -> Finished:
    with _failures_named(task, engine):
        engine.drill(task.model, task.config, attempt=attempt, progress=progress)
    progress(1.0, "drilled")
    seconds = time.monotonic() - started
    return Finished(
        result=TaskResult(
            path="",
            bytes=0,
            sha256=_NOTHING_SHA256,
            width=0,
            height=0,
            seconds=seconds,
            notes=(f"a drill on {device}: no picture was read or written",),
        ),
        staged="",
        timings={"drill": seconds},
    )


def check_output(before: NDArray[Any], mask: NDArray[np.bool_], after: NDArray[Any], task: Task) -> None:
    """See that an engine kept its word: same shape and type, and no pixel changed outside the mask.

    Raises:
        AttemptFailed: as bad_output, naming what differs.
    """
    name = shown(task.image_path)
    if after.shape != before.shape or after.dtype != before.dtype:
        raise failed(
            ErrorClass.BAD_OUTPUT,
            "output_shape",
            f"{name}: {task.model} gave {after.shape} {after.dtype} for {before.shape} {before.dtype}",
        )
    differs = after != before
    if differs.ndim == 3:
        differs = differs.any(axis=2)
    astray = int(np.count_nonzero(differs & ~mask))
    if astray:
        raise failed(
            ErrorClass.BAD_OUTPUT,
            "output_outside_mask",
            f"{name}: {task.model} changed {astray:,} pixels outside the mask",
        )


@contextlib.contextmanager
def _timed(timings: dict[str, float], stage: str) -> Iterator[None]:
    began = time.monotonic()
    try:
        yield
    finally:
        timings[stage] = timings.get(stage, 0.0) + time.monotonic() - began


@contextlib.contextmanager
def _failures_named(task: Task, engine: object) -> Iterator[None]:
    """Turn what reading, inpainting and encoding raise into ``AttemptFailed``."""
    name = shown(task.image_path)
    try:
        yield
    except BadImage as problem:
        raise failed(ErrorClass.BAD_INPUT, problem.problem.value, str(problem)) from problem
    except EngineError as error:
        error_class = ErrorClass.BAD_INPUT if error.bad_input else ErrorClass.CRASH
        raise failed(error_class, error.code, f"{name}: {error}") from error
    except MemoryError as error:
        raise failed(
            ErrorClass.RESOURCE, "out_of_memory", f"{name}: this node has not enough memory for it with {task.model}"
        ) from error


@contextlib.contextmanager
def _storage_failures_named(final: Path) -> Iterator[None]:
    """Turn what writing beside ``final`` raises into ``AttemptFailed``."""
    place = shown(final.parent)
    try:
        yield
    except OSError as error:
        if error.errno in _NOT_ALLOWED:
            raise failed(
                ErrorClass.BAD_INPUT,
                ImageProblem.OUTPUT_UNWRITABLE.value,
                f"{place}: the agent may not write there: {error.strerror} (give its user write permission, or "
                "another output_path)",
            ) from error
        if error.errno in _NO_SUCH_PLACE:
            raise failed(
                ErrorClass.BAD_INPUT,
                ImageProblem.OUTPUT_UNWRITABLE.value,
                f"{shown(final)}: cannot be made: {error.strerror} (give another output_path)",
            ) from error
        raise _storage_failure(error, f"writing to {place}") from error


def _storage_failure(error: OSError, doing: str) -> AttemptFailed:
    found = error.strerror or str(error)
    if error.errno in _DISK_FULL:
        return failed(ErrorClass.RESOURCE, "disk_full", f"{doing}: {found} (free space on this node's disk)")
    if error.errno == errno.ENOMEM:
        return failed(ErrorClass.RESOURCE, "out_of_memory", f"{doing}: {found}")
    return failed(ErrorClass.TRANSIENT, "io_error", f"{doing}: {found}")
