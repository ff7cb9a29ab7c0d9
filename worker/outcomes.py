"""Outcomes on their way: results get their final name, and nothing is forgotten before its verdict."""

from __future__ import annotations

import asyncio
import contextlib
import errno
import hashlib
import logging
import os
from collections.abc import Awaitable, Callable, Collection, Iterable
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Protocol

from lcq import failpoints
from lcq.clock import steady_now
from lcq.errors import AddressRefused, LcqError, OutsideRoots
from lcq.file_mark import file_mark
from lcq.models import ErrorClass, Failure, Task, TaskResult
from lcq.roots import ANYWHERE, Roots
from lcq.storage.addresses import is_elsewhere, read_address
from lcq.wire import MAX_BATCH, Outcome, Verdict
from worker.spool import STAGED_SUFFIX, Spool, Unsettled

_log = logging.getLogger(__name__)

_KEEP_AFTER_S = 0.3  # an outcome that is settled sooner never touches the disk
_NO_PLACE = frozenset(
    {errno.EACCES, errno.EPERM, errno.EROFS, errno.EISDIR, errno.ENOTDIR, errno.ENOTEMPTY, errno.ENAMETOOLONG}
)
_DISK_FULL = frozenset({errno.ENOSPC, errno.EDQUOT})

_NO_LINKS = frozenset({errno.EPERM, errno.ENOTSUP, errno.ENOSYS, errno.EMLINK, errno.EXDEV, errno.EINVAL})

Key = tuple[str, int]


class Carrier(Protocol):
    """Who carries results to places that are no paths."""

    async def carry(self, staged: str, final: str) -> None:
        """Put the file there, and remove it.

        Raises:
            LcqError, OSError.
        """

    async def is_there(self, final: str) -> bool:
        """Raises:
        LcqError: it cannot be told.
        """


@dataclass(frozen=True)
class Right:
    """The right to put a late result in its place, and to tell it as attempt ``attempt``; sure until ``until``."""

    attempt: int
    until: float  # by steady_now()


Retake = Callable[[Key], Awaitable[Right | None]]
"""Asks the cluster whether the result of an attempt that was taken back still counts. None: it is to be told as it is,
because it does not, or because the scheduler is too old to know. Raises LcqError where nobody can tell now."""


async def no_right(_key: Key) -> Right | None:
    """As a scheduler answers that does not know of such rights."""
    return None


class Outcomes:
    """What has been done and not been settled. Results are published here, when the right to it is sure."""

    def __init__(
        self,
        spool: Spool,
        boot_id: str,
        roots: Roots = ANYWHERE,
        *,
        carrier: Carrier | None = None,
        committed: Callable[[float], None] = lambda seconds: None,
    ) -> None:
        """``committed``: told how many seconds it took to give a result its name."""
        self._committed = committed
        self._roots = roots
        self._carrier = carrier
        self._spool = spool
        self._boot_id = boot_id
        self._entries: dict[Key, Unsettled] = {}
        self._since: dict[Key, float] = {}
        self._kept: set[Key] = set()
        self._tried: set[Key] = set()  # what the disk would not take has been said once
        self._doubtful: dict[Key, float] = {}  # since when (``steady_now()``) it waits to be told: see ``resolve``

    def recall(self) -> int:
        """Take up what earlier boots of this node left unsettled; answers how many that are."""
        recalled = self._spool.load()
        for entry in recalled:
            self._entries[entry.key] = entry
            self._kept.add(entry.key)
            if entry.staged:
                self._doubtful[entry.key] = steady_now()
        return len(recalled)

    def __len__(self) -> int:
        return len(self._entries)

    def to_report(self) -> tuple[Outcome, ...]:
        """The next outcomes to report, oldest first."""
        told = (entry.outcome for key, entry in self._entries.items() if key not in self._doubtful)
        return tuple(islice(told, MAX_BATCH))

    def staged(self) -> tuple[str, ...]:
        """The files that wait for their places."""
        return tuple(entry.staged for entry in self._entries.values() if entry.staged)

    def is_doubtful(self, key: Key) -> bool:
        """Whether nobody is told of this result before a beat has said whose its task is."""
        return key in self._doubtful

    def doubtful_of_earlier_boots(self) -> tuple[Key, ...]:
        """Those of them that an earlier boot has left: no beat speaks of them."""
        return tuple(key for key in self._doubtful if self._entries[key].boot_id != self._boot_id)

    def held(self) -> tuple[Key, ...]:
        """The attempts of this boot whose outcome has no verdict yet: their leases are still ours."""
        return tuple(key for key, entry in self._entries.items() if entry.boot_id == self._boot_id)

    # ------------------------------------------------------------ in

    async def add(
        self,
        outcome: Outcome,
        staged: str = "",
        *,
        found: str | None = None,
        lease_is_sure: Callable[[], bool] = bool,
    ) -> Outcome:
        """Take in how an attempt ended. Its file gets its final name at once if the lease is surely held.

        Where that is in doubt, another node may have the task by now; then it is not told before a beat has said whose
        it is (``resolve``), so that a task is completed only when its file is there. So it is where
        somebody has put a file there since the attempt began, when ``found`` (lcq.file_mark) was seen: that may
        be the result of an attempt that an operator has had begun elsewhere, of which this node has not heard. Where
        there was none, none is ever replaced: the disk itself sees to that. Answers
        what will be reported: a failure, where the result could not be put in its place, or what waits for a verdict
        could not be written down.
        """
        if (
            staged
            and outcome.result is not None
            and lease_is_sure()
            and (found is None or found == await asyncio.to_thread(file_mark, outcome.result.path))
        ):
            try:
                outcome = await self._published(outcome, outcome.result.path, staged, may_replace=found != "")
                staged = ""
            except FileExistsError:
                pass  # it has come in this very moment
        entry = Unsettled(boot_id=self._boot_id, outcome=outcome, staged=staged)
        if staged:
            # To the disk before anybody hears of it: who settles it takes the file for published, whatever becomes of
            # us, and where its record is not, the next start of this agent would take the file for a killed attempt's.
            unwritten = await self._write(entry)
            if unwritten is None:
                self._kept.add(entry.key)
                self._doubtful[entry.key] = steady_now()
            else:
                final = outcome.result.path if outcome.result else staged
                outcome = await self._failed(outcome, final, staged, unwritten)
                entry = Unsettled(boot_id=self._boot_id, outcome=outcome)
        self._entries[entry.key] = entry
        self._since[entry.key] = asyncio.get_running_loop().time()
        return outcome

    async def _published(self, outcome: Outcome, final: str, staged: str, *, may_replace: bool = True) -> Outcome:
        """Give the file its final name; a failure, where that cannot be.

        Raises:
            FileExistsError: there is a file of that name, and it may not be replaced.
        """
        try:
            await self._put(staged, final, may_replace=may_replace)
        except (OSError, LcqError) as error:
            if isinstance(error, FileExistsError) and not may_replace:
                raise
            return await self._failed(outcome, final, staged, error)
        return outcome

    async def _put(self, staged: str, final: str, *, may_replace: bool = True) -> None:
        """Raises:
        FileExistsError: there is a file of that name, and it may not be replaced.
        OSError, LcqError: as renaming it, or carrying it away, failed.
        """
        await failpoints.reach("agent.rename")
        began = steady_now()
        if self._carrier is not None and is_elsewhere(final):
            await self._carrier.carry(staged, final)
        else:
            await asyncio.to_thread(_publish if may_replace else _publish_first, staged, final, self._roots)
        self._committed(steady_now() - began)
        await failpoints.passed("agent.rename")

    @staticmethod
    async def _failed(outcome: Outcome, final: str, staged: str, error: OSError | LcqError) -> Outcome:
        failure = _unpublished(error, final)
        _log.warning("task %s, attempt %d: %s", outcome.task_id, outcome.attempt, failure.message)
        await asyncio.to_thread(_unlink, staged)
        cost = outcome.result.cost if outcome.result is not None else outcome.cost
        return outcome.model_copy(update={"result": None, "failure": failure, "cost": cost})

    async def resolve(
        self,
        held: Iterable[Key],
        lost: Collection[Key],
        *,
        asked_at: float,
        lease_is_sure: Callable[[Key], bool],
        retake: Retake = no_right,
    ) -> tuple[Key, ...]:
        """Hear what a beat, first sent at ``asked_at`` (``steady_now()``), has said of the attempts that it listed.

        Those that are still ours get their files' final names, and are reported then. Of those that are ``lost``
        ``retake`` asks whether their results still count: such a one gets its name too, as the new attempt that
        it is then, before it is reported. All others are reported as they are. Answers those that are in doubt no
        longer. What earlier boots have left no beat speaks of: it is asked for as well (``resolve_earlier``).
        """
        resolved, gone = [], []
        for key in held:
            since, entry = self._doubtful.get(key), self._entries.get(key)
            if since is None or entry is None:
                continue
            if key in lost:
                gone.append(key)
            elif asked_at >= since and lease_is_sure(key):  # else it says nothing of now: the next one does
                if entry.outcome.result is not None:
                    outcome = await self._published(entry.outcome, entry.outcome.result.path, entry.staged)
                    self._entries[key] = Unsettled(boot_id=entry.boot_id, outcome=outcome)
                    self._since[key] = asyncio.get_running_loop().time()
                    self._kept.discard(key)
                    await asyncio.to_thread(self._spool.drop, entry)
                del self._doubtful[key]
                resolved.append(key)
        return (*resolved, *await self._retake_all(gone, retake), *await self.resolve_earlier(retake))

    async def resolve_earlier(self, retake: Retake = no_right) -> list[Key]:
        """The same for what earlier boots have left in doubt."""
        return await self._retake_all(self.doubtful_of_earlier_boots(), retake)

    async def _retake_all(self, keys: Iterable[Key], retake: Retake) -> list[Key]:
        resolved = []
        for key in keys:
            entry = self._entries.get(key)
            if entry is not None and await self._retake(entry, retake):
                self._doubtful.pop(key, None)
                resolved.append(key)
        return resolved

    async def _retake(self, entry: Unsettled, retake: Retake) -> bool:
        """Give a late result its name where it counts. Answers False where it is still in doubt."""
        result = entry.outcome.result
        if result is None:
            return True
        try:
            await failpoints.reach("agent.retake")
            right = await retake(entry.key)
            await failpoints.passed("agent.retake")
            is_there = right is not None and await self._was_published(entry.staged, result)
        except LcqError as error:
            _log.info("task %s, attempt %d: whether its result counts is not known yet: %s", *entry.key, error)
            return False
        if right is None:
            return True
        if steady_now() >= right.until:
            return False  # the answer took too long: it is asked for again
        told = entry.outcome.model_copy(update={"attempt": right.attempt})
        if not is_there:  # else it was published before a crash that left its record
            told = await self._published(told, result.path, entry.staged)
        fresh = Unsettled(boot_id=self._boot_id, outcome=told)
        is_written = await self._write(fresh) is None  # before the other is forgotten: else a crash would cost the work
        if entry.key != fresh.key or not is_written:
            self._forget(entry)
        self._entries[fresh.key] = fresh
        self._since[fresh.key] = asyncio.get_running_loop().time()
        if is_written:
            self._kept.add(fresh.key)
        return True

    async def _was_published(self, staged: str, result: TaskResult) -> bool:
        """Whether the file has its place already.

        Raises:
            LcqError: its place is elsewhere, and it cannot be told.
        """
        if self._carrier is None or not is_elsewhere(result.path):
            return await asyncio.to_thread(_was_published, staged, result)
        return not await asyncio.to_thread(os.path.lexists, staged) and await self._carrier.is_there(result.path)

    async def keep_old_ones(self) -> None:
        """For ever: see to the disk what has waited for its verdict for a moment."""
        while True:
            await asyncio.sleep(_KEEP_AFTER_S)
            await self.keep(older_than_s=_KEEP_AFTER_S)

    async def keep(self, *, older_than_s: float = 0.0) -> None:
        """See unsettled outcomes to the disk, where they outlive this process."""
        now = asyncio.get_running_loop().time()
        for key, entry in tuple(self._entries.items()):
            if self._entries.get(key) is not entry:
                continue  # settled while one before it was written
            if key not in self._kept and now - self._since[key] >= older_than_s and not entry.outcome.handed_back:
                await self._keep(entry)

    async def _write(self, entry: Unsettled) -> OSError | None:
        """See ``entry`` to the disk; what went wrong, where that cannot be."""
        try:
            await failpoints.reach("agent.spool")
            await asyncio.to_thread(self._spool.keep, entry)
            await failpoints.passed("agent.spool")
        except OSError as error:
            return error
        return None

    async def _keep(self, entry: Unsettled) -> None:
        error = await self._write(entry)
        if error is not None:
            if entry.key not in self._tried:
                self._tried.add(entry.key)
                _log.warning(
                    "the outcome of task %s is kept in memory only: the spool cannot be written: %s",
                    entry.outcome.task_id,
                    error.strerror,
                )
            return
        self._kept.add(entry.key)
        if self._entries.get(entry.key) is not entry:  # its verdict came in the meantime
            self._forget(entry)

    # ------------------------------------------------------------ out

    async def settle(self, verdicts: Iterable[Verdict]) -> None:
        """Do what each verdict means: publish what waited for it, or throw it away; and forget it."""
        for verdict in verdicts:
            entry = self._entries.get((verdict.task_id, verdict.attempt))
            if entry is None:
                continue  # a copy of an answer
            await failpoints.reach("agent.settle")
            if verdict.verdict == "refused":
                if not entry.outcome.handed_back:
                    facts = {"task": verdict.task_id, "attempt": verdict.attempt}
                    _log.warning("task %s, attempt %d: %s", *facts.values(), verdict.detail, extra=facts)
                await asyncio.to_thread(_unlink, entry.staged)
            elif entry.staged and not await self._publish_late(entry):
                continue
            else:
                await self._clear_up_behind(entry)
            self._forget(entry)
            await failpoints.passed("agent.settle")

    async def _clear_up_behind(self, entry: Unsettled) -> None:
        """Remove what earlier attempts of a task that is settled have left: they died with their nodes, or came late.

        Not before: one of them may come late, and then it is its file that counts.
        """
        result, attempt = entry.outcome.result, entry.outcome.attempt
        if result is not None and attempt > 1 and not is_elsewhere(result.path):
            folder, attempts = Path(result.path).parent, tuple(range(1, attempt))
            await asyncio.to_thread(_discard_staged, folder, entry.outcome.task_id, attempts, self._roots)

    async def _publish_late(self, entry: Unsettled) -> bool:
        """Answers False where it is to be tried again, with the next verdict on it."""
        result = entry.outcome.result
        if result is None:
            return True
        try:
            await self._put(entry.staged, result.path)
        except FileNotFoundError:
            # Published before a crash that left the record; or taken away by somebody.
            if not await self._is_there(result.path):
                _log.error(
                    "task %s is settled, but its result %s is gone: retry the task", entry.outcome.task_id, result.path
                )
        except OSError as error:
            _log.error("the settled result %s cannot be renamed from %s: %s", result.path, entry.staged, error.strerror)
            return False
        except (OutsideRoots, AddressRefused) as refusal:  # its folder was put elsewhere since: it never has its place
            _log.error("task %s is settled, but its result cannot be put there: %s", entry.outcome.task_id, refusal)
        except LcqError as trouble:
            _log.error("the settled result %s cannot be put there now: %s", result.path, trouble)
            return False
        return True

    async def _is_there(self, final: str) -> bool:
        if self._carrier is None or not is_elsewhere(final):
            return await asyncio.to_thread(os.path.exists, final)
        try:
            return await self._carrier.is_there(final)
        except LcqError:
            return True  # as far as anybody can say

    def _forget(self, entry: Unsettled) -> None:
        self._entries.pop(entry.key, None)
        self._since.pop(entry.key, None)
        self._tried.discard(entry.key)
        self._doubtful.pop(entry.key, None)
        if entry.key in self._kept:
            self._kept.discard(entry.key)
            self._spool.drop(entry)


def result_folder(task: Task) -> Path | None:
    """Where the result of ``task`` goes: the folder of what lcq.images.output_path_of says. None: it is no path."""
    try:
        address = read_address(task.output_path or task.image_path)
    except AddressRefused:
        return None
    folder = Path(address.place).parent
    return None if not address.is_path else folder if task.output_path else folder / "cleaned"


async def discard_staged(task: Task, *attempts: int, roots: Roots = ANYWHERE) -> None:
    """Remove what killed attempts may have left beside the final name of the result."""
    folder = result_folder(task)
    if folder is not None:
        await asyncio.to_thread(_discard_staged, folder, task.id, attempts, roots)


def _discard_staged(folder: Path, task_id: str, attempts: tuple[int, ...], roots: Roots) -> None:
    endings = tuple(f".{task_id}-{attempt}{STAGED_SUFFIX}" for attempt in attempts)
    with contextlib.suppress(OSError, OutsideRoots), roots.folder(folder) as place:
        for name in os.listdir(place):  # noqa: PTH208 - a descriptor, not a path
            if name.endswith(endings):
                with contextlib.suppress(OSError):
                    os.unlink(name, dir_fd=place)


def _publish(staged: str, final: str, roots: Roots) -> None:
    """Both are in one folder, which stays the one that it was when it was found to be inside."""
    with roots.folder(Path(final).parent) as folder:
        os.replace(Path(staged).name, Path(final).name, src_dir_fd=folder, dst_dir_fd=folder)
        os.fsync(folder)


def _publish_first(staged: str, final: str, roots: Roots) -> None:
    """The same, where there is no file of that name; that there is none is seen to by the file system, where it can.

    Raises:
        FileExistsError: there is one.
    """
    name = Path(staged).name
    with roots.folder(Path(final).parent) as folder:
        try:
            os.link(name, Path(final).name, src_dir_fd=folder, dst_dir_fd=folder, follow_symlinks=False)
            os.unlink(name, dir_fd=folder)
        except OSError as error:
            if error.errno not in _NO_LINKS:
                raise
            os.replace(name, Path(final).name, src_dir_fd=folder, dst_dir_fd=folder)
        os.fsync(folder)


def _was_published(staged: str, result: TaskResult) -> bool:
    """Whether the file has its final name already."""
    try:
        if os.path.lexists(staged) or Path(result.path).stat().st_size != result.bytes:
            return False
        with open(result.path, "rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest() == result.sha256
    except OSError:
        return False


def _unlink(path: str) -> None:
    if path:
        with contextlib.suppress(OSError):
            Path(path).unlink()


def _unpublished(error: OSError | LcqError, path: str) -> Failure:
    if isinstance(error, LcqError):
        kind = ErrorClass.BAD_INPUT if isinstance(error, OutsideRoots | AddressRefused) else ErrorClass.TRANSIENT
        return Failure(error_class=kind, code=error.code, message=str(error)[:2000])
    message = f"{path}: the finished result cannot be put there: {error.strerror or error}"
    if error.errno in _NO_PLACE:
        return Failure(error_class=ErrorClass.BAD_INPUT, code="output_unwritable", message=message[:2000])
    if error.errno in _DISK_FULL:
        return Failure(error_class=ErrorClass.RESOURCE, code="disk_full", message=message[:2000])
    return Failure(error_class=ErrorClass.TRANSIENT, code="io_error", message=message[:2000])
