"""The whole work of one attempt inside a runner: read, inpaint, check, write beside the final name.

It ends in ``Finished`` or in ``AttemptFailed``; the rename to the final name is the agent's, once the
scheduler has accepted the result.
"""

from __future__ import annotations

import contextlib
import errno
import hashlib
import json
import os
import re
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

import numpy as np
from numpy.typing import NDArray

from lcq.errors import OutsideRoots
from lcq.file_mark import file_mark
from lcq.images import (
    BadImage,
    ImageProblem,
    LoadedImage,
    Output,
    as_result,
    encode,
    encoded_size,
    load_image,
    load_mask,
    plan_output,
    shown,
    write_staged,
)
from lcq.models import DeviceKind, ErrorClass, Failure, Task, TaskResult, TaskType
from lcq.roots import Roots
from lcq.runner_config import LimitsConfig
from worker.calls import CallAddress
from worker.engines.base import Ease, Engine, EngineError, Picture, Progress, Work
from worker.engines.check import BadOutput, check_output
from worker.engines.shelf import Shelf

_LONGEST_MESSAGE = 2000  # of a Failure
_LONGEST_NOTE = 500  # of an engine
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

    ``staged`` is to be renamed to ``result.path``; both are "" after a drill, which leaves no file. ``found`` is the
    mark of the file that had that name when the attempt began; None: not known.
    ``timings``: seconds for ``decode``, ``inpaint`` and ``encode`` (with writing and fsync).
    """

    result: TaskResult
    staged: str
    timings: Mapping[str, float] = field(default_factory=dict)
    found: str | None = None


class AttemptFailed(Exception):
    """The attempt has no result; ``failure`` says why, in the closed list of docs/states.md."""

    def __init__(self, failure: Failure, *, again_s: float = 0.0) -> None:
        """``again_s``: as ``EngineError`` has it."""
        super().__init__(f"{failure.code}: {failure.message}")
        self.failure = failure
        self.again_s = again_s
        self.cost: float | None = None
        """What was paid for it all the same; None: nobody knows."""


def failed(error_class: ErrorClass, code: str, message: str, *, again_s: float = 0.0) -> AttemptFailed:
    """An ``AttemptFailed`` with its message on one line and within the length a ``Failure`` may have."""
    code = code if re.fullmatch(r"[a-z0-9_]{1,64}", code) else "engine_error"  # a plug-in may name anything
    line = _one_line(message) or code
    failure = Failure(error_class=error_class, code=code, message=line[:_LONGEST_MESSAGE])
    return AttemptFailed(failure, again_s=again_s)


def _one_line(text: str) -> str:
    line = " ".join(text.split())
    return "".join(char for char in line if char.isprintable())


def run_task(
    task: Task,
    *,
    attempt: int,
    shelf: Shelf,
    limits: LimitsConfig,
    progress: Progress,
    eased: tuple[Ease, ...] = (),
    also: tuple[Path, ...] = (),
    call: CallAddress | None = None,
) -> Finished:
    """Do ``task`` with the engine on ``shelf`` that has its model.

    ``also``: folders that it may reach beside ``storage.roots``. ``call``: by which addresses are lent at the
    scheduler.

    Raises:
        AttemptFailed: nothing is left behind, and its ``failure`` says what kind of end it was.
        Cancelled: ``progress`` raised it; nothing is left behind.
    """
    started = time.monotonic()
    engine = shelf.engine_of(task.model)
    if engine is None:
        here = ", ".join(sorted(shelf.offers)) or "none"
        why = f" ({shelf.left_out[task.model]})" if task.model in shelf.left_out else ""
        raise failed(
            ErrorClass.TRANSIENT, "model_not_here", f"this runner has no model {task.model!r}{why}; it has: {here}"
        )
    if isinstance(engine, Drill):
        shelf.load(task.model, task.config)  # holds nothing, but is warm from now on, as any other
        return _drilled(engine, task, attempt, shelf.settings.device.id, progress, started)
    _check_type_and_mask(task, shelf.offers[task.model].task_types)

    works: list[Work] = []
    try:
        return _finished(task, attempt, shelf, limits, progress, eased, also, call, started, works)
    except AttemptFailed as end:
        costs = [work.cost for work in works if work.cost is not None]
        end.cost = sum(costs) if costs else None
        raise


def _finished(
    task: Task,
    attempt: int,
    shelf: Shelf,
    limits: LimitsConfig,
    progress: Progress,
    eased: tuple[Ease, ...],
    also: tuple[Path, ...],
    call: CallAddress | None,
    started: float,
    works: list[Work],
) -> Finished:
    """As ``run_task``. ``works``: what was asked of an engine goes there, whatever becomes of it."""
    timings: dict[str, float] = {}
    with _failures_named(task):
        with _timed(timings, "decode"):
            progress(0.0, "decode")
            roots = Roots((*shelf.settings.roots, *also) if shelf.settings.roots else ())
            image, mask, output = _inputs(task, limits, roots)
            place, found = output.path, file_mark(output.path)
        if task.task_type is TaskType.INPAINT and not mask.any():
            result, data, notes = image, *_unchanged(task, image, output, roots)
        else:
            with _timed(timings, "inpaint"):
                progress(0.1, "load")
                work = _work_of(task, image, mask, progress, eased, attempt, call)
                works.append(work)
                result = _worked(task, image, work, shelf)
            with _timed(timings, "encode"):
                progress(0.9, "encode")
                output = plan_output(task, result)
                data, encoder_notes = encode(result, result.pixels, output)
                _check_encoded(task, data, result)
            notes = (*(_one_line(str(note))[:_LONGEST_NOTE] for note in work.notes), *encoder_notes)
    staged = output.staged(task.id, attempt)
    with _timed(timings, "encode"), _storage_failures_named(output.path):
        write_staged(staged, data, roots)
    try:
        progress(1.0, "written")
        return Finished(
            result=TaskResult(
                path=str(output.path),
                bytes=len(data),
                sha256=hashlib.sha256(data).hexdigest(),
                input_sha256=image.input_sha256,
                width=result.size[0],
                height=result.size[1],
                mask_fraction=float(np.count_nonzero(mask)) / mask.size,
                seconds=time.monotonic() - started,
                notes=(*result.notes, *output.notes, *notes),
                cost=sum(work.cost or 0.0 for work in works),
            ),
            staged=str(staged),
            timings=timings,
            found=found if output.path == place else None,
        )
    except BaseException:  # nobody will learn of the file: it must not stay
        staged.unlink(missing_ok=True)
        raise


def _check_type_and_mask(task: Task, known: tuple[TaskType, ...]) -> None:
    name = shown(task.image_path)
    if task.task_type not in known:
        can = ", ".join(known)
        raise failed(
            ErrorClass.BAD_INPUT,
            "task_type_unsupported",
            f"{name}: {task.model} cannot do {task.task_type.value}, only {can} (use a model that can)",
        )
    if task.task_type is TaskType.INPAINT and task.mask_path is None:
        raise failed(
            ErrorClass.BAD_INPUT,
            "mask_missing",
            f"{name}: has no mask (set mask_path to a picture of the same size whose bright pixels are to be removed)",
        )


def _work_of(
    task: Task,
    image: LoadedImage,
    mask: NDArray[np.bool_],
    progress: Progress,
    eased: tuple[Ease, ...],
    attempt: int,
    call: CallAddress | None,
) -> Work:
    return Work(
        task_type=task.task_type,
        model=task.model,
        picture=Picture(image.pixels, mask),
        config=task.config,
        progress=lambda fraction, stage: progress(0.1 + 0.8 * min(1.0, max(0.0, fraction)), stage),
        eased=eased,
        key=f"{task.id}/{attempt}",
        call=call,
    )


def _worked(task: Task, image: LoadedImage, work: Work, shelf: Shelf) -> LoadedImage:
    """``image`` as the engine has changed it, checked."""
    engine = shelf.load(task.model, task.config)
    _check_room(task, engine, work, shelf)
    try:
        pixels = engine.run(work)
        work.progress(1.0, "check")
        check_output(task.task_type, work.picture, pixels)
    except BadOutput as bad:
        raise failed(ErrorClass.BAD_OUTPUT, bad.code, f"{shown(task.image_path)}: {task.model} {bad}") from bad
    if task.task_type is TaskType.INPAINT:
        return replace(image, pixels=pixels)
    return as_result(task, image, pixels)


def _check_room(task: Task, engine: Engine, work: Work, shelf: Shelf) -> None:
    """Fail before the work what the device could never hold: on a CPU it would take the whole host along."""
    device = shelf.settings.device
    room = device.vram_mib if device.kind is DeviceKind.GPU else device.memory_mib
    held, needed = shelf.held_mib(), engine.estimate(work).memory_mib
    if room and held + needed > room:
        raise failed(
            ErrorClass.RESOURCE,
            "out_of_memory",
            f"{shown(task.image_path)}: {task.model} would need about {needed:,.0f} MiB for it, and {device.id} has "
            f"{room:,} MiB, of which loaded models hold {held:,}",
        )


def _unchanged(task: Task, image: LoadedImage, output: Output, roots: Roots) -> tuple[bytes, tuple[str, ...]]:
    """The result of an empty mask: the input's own bytes where they have the form that is asked for."""
    said = "the mask is empty: the result is the input"
    if output.format == image.format and output.quality is None:
        with contextlib.suppress(OSError):  # gone since it was read
            with os.fdopen(roots.open_to_read(task.image_path, os.O_RDONLY | os.O_CLOEXEC), "rb") as file:
                data = file.read()
            if hashlib.sha256(data).hexdigest() == image.input_sha256:
                return data, (said,)
    data, notes = encode(image, image.pixels, output)
    return data, (said, *notes)


def _check_encoded(task: Task, data: bytes, result: LoadedImage) -> None:
    if encoded_size(data) != result.size:
        raise failed(
            ErrorClass.BAD_OUTPUT,
            "output_shape",
            f"{shown(task.image_path)}: what was encoded does not read back as {result.size[0]} x {result.size[1]}",
        )


def _inputs(task: Task, limits: LimitsConfig, roots: Roots) -> tuple[LoadedImage, NDArray[np.bool_], Output]:
    try:
        for path in filter(None, (task.image_path, task.mask_path, task.output_path)):
            roots.refuse(path)  # before any work, and before anything of it is looked at
        image = load_image(task.image_path, limits, roots, as_rgb=task.config.get("as_rgb") is True)
        output = plan_output(task, image)
        if task.mask_path is None:
            return image, np.zeros(image.pixels.shape[:2], bool), output
        mask = load_mask(task.mask_path, image, limits, roots)
    except OSError as error:
        raise _storage_failure(error, f"reading {shown(task.image_path)} and its mask") from error
    return image, mask, output


def _drilled(engine: Drill, task: Task, attempt: int, device: str, progress: Progress, started: float) -> Finished:
    with _failures_named(task):
        engine.drill(task.model, task.config, attempt=attempt, progress=progress)
    progress(1.0, "drilled")
    seconds = time.monotonic() - started
    return Finished(
        result=TaskResult(
            path="",
            bytes=0,
            sha256=_NOTHING_SHA256,
            input_sha256=_told_sha256(task),
            width=0,
            height=0,
            seconds=seconds,
            notes=(f"a drill on {device}: no picture was read or written",),
        ),
        staged="",
        timings={"drill": seconds},
    )


def _told_sha256(task: Task) -> str:
    """A drill's only input is what it is told: the digest of that, so that a mix-up can be seen here too."""
    told = task.model_dump(mode="json", include={"image_path", "config"})
    return hashlib.sha256(json.dumps(told, sort_keys=True).encode()).hexdigest()


@contextlib.contextmanager
def _timed(timings: dict[str, float], stage: str) -> Iterator[None]:
    began = time.monotonic()
    try:
        yield
    finally:
        timings[stage] = timings.get(stage, 0.0) + time.monotonic() - began


@contextlib.contextmanager
def _failures_named(task: Task) -> Iterator[None]:
    """Turn what reading, inpainting and encoding raise into ``AttemptFailed``."""
    name = shown(task.image_path)
    try:
        yield
    except BadImage as problem:
        raise failed(ErrorClass.BAD_INPUT, problem.problem.value, str(problem)) from problem
    except OutsideRoots as refusal:
        raise failed(ErrorClass.BAD_INPUT, refusal.code, str(refusal)) from refusal
    except EngineError as error:
        raise failed(error.error_class, error.code, f"{name}: {error}", again_s=error.again_s) from error
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
    except OutsideRoots as refusal:
        raise failed(ErrorClass.BAD_INPUT, refusal.code, str(refusal)) from refusal
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
