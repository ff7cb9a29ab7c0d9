"""The porter: brings what a task names and lies elsewhere into a folder of the agent's, and carries results away.

Runners open paths only. What comes from a store, an object or a web address is brought before a runner is told of the
attempt; a result that has its place elsewhere is written into the attempt's folder first, and is carried from there
when the lease holds. Whatever blocks does so in threads of its own.
"""

from __future__ import annotations

import asyncio
import contextlib
import errno
import logging
import os
import posixpath
import shutil
import threading
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from pathlib import Path
from types import TracebackType
from typing import Self, TypeVar

from lcq.clock import steady_now
from lcq.config import DistributedConfig
from lcq.errors import (
    AddressRefused,
    BlobNotFound,
    BlobTooLarge,
    LcqError,
    OutsideRoots,
    SourceUnreachable,
    StorageFull,
    StorageUnreachable,
    shown_address,
)
from lcq.ids import new_id
from lcq.models import ErrorClass, Failure, Task, TaskResult
from lcq.roots import Roots
from lcq.storage.addresses import Address, Allowed, Kind, blob_address, is_elsewhere, read_address
from lcq.storage.blobs import BlobStore
from lcq.storage.opening import store_reached
from lcq.storage.room import lack_of_room
from lcq.wire import Grant
from worker.attempt import Brought, Ended, Key, NotBrought, key_of
from worker.spool import ATTEMPTS

_log = logging.getLogger(__name__)

_THREADS = 8  # transfers at a time
_STORE_AGE_S = 60.0  # how long what a scheduler has told of its store is believed
_TRIES = 3  # to carry a result away, before its attempt has failed
_AGAIN_S = 1.0
_LOOK_S = 8.0  # for what somebody only looks at
_BAD = (AddressRefused, BlobNotFound, BlobTooLarge, OutsideRoots)
_NAMES = ("image", "mask")
_LONGEST_SUFFIX = 10
_COMING = ".tmp"  # what ends the name of a blob of the cache that is not whole yet
_NO_ROOM = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EFBIG})

T = TypeVar("T")


class _Stopped(Exception):
    """Nobody wants what is being moved any more."""


@dataclass
class _Errand:
    """What is done for one attempt. ``names``: the paths that its runner sees -> the addresses that the task has."""

    grant: Grant | None  # None: somebody only looks
    folder: Path
    names: dict[str, str] = field(default_factory=dict)
    stop: threading.Event = field(default_factory=threading.Event)
    under_way: asyncio.Task[Brought] | None = None

    def moved(self, count: int) -> None:
        if self.stop.is_set():
            raise _Stopped


@dataclass
class _Turn:
    """``wanted``: how many have it or wait for it."""

    lock: threading.Lock = field(default_factory=threading.Lock)
    wanted: int = 0


AskStorePlace = Callable[[], Awaitable[tuple[str, str, str]]]
"""Answers where blobs are: URL, mark, and "host:port" of the scheduler's HTTP."""


class Porter:
    """``async with`` it. ``home`` is the agent's. ``ask`` asks the scheduler where blobs are."""

    def __init__(
        self,
        home: Path,
        *,
        config: Callable[[], DistributedConfig],
        roots: Roots,
        ask: AskStorePlace,
        fetched: Callable[[float], None] = lambda seconds: None,
        runner_uid: int | None = None,
    ) -> None:
        """``fetched``: told how many seconds it took to bring the files of a task. ``runner_uid``: the user that has
        to read them, and to leave the result beside them, where it is another than us.
        """
        self._runner_uid = runner_uid
        self._fetched = fetched
        self._attempts, self._cache = home / ATTEMPTS, home / ATTEMPTS.parent / "blobs"
        self._config, self._roots, self._ask = config, roots, ask
        self._errands: dict[Key, _Errand] = {}
        self._store: tuple[float, BlobStore] | None = None
        self._opening = asyncio.Lock()
        self._cache_lock = threading.Lock()
        self._fetching: dict[str, _Turn] = {}  # by SHA-256, while somebody wants it

    async def __aenter__(self) -> Self:
        self._threads = ThreadPoolExecutor(_THREADS, thread_name_prefix="porter")
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for errand in self._errands.values():
            errand.stop.set()
        self._threads.shutdown(wait=False, cancel_futures=True)

    @property
    def folder(self) -> Path:
        """Where the attempts' files are: one that agents write."""
        return self._attempts

    def forget_others(self, staged: Iterable[str]) -> None:
        """At the start: remove what earlier runs have left, but for results that wait to be carried away."""
        kept = {Path(path).parent.parent for path in staged if Path(path).is_relative_to(self._attempts)}
        if self._attempts.is_dir():
            for folder in self._attempts.iterdir():
                if folder not in kept:
                    shutil.rmtree(folder, ignore_errors=True)
        for left in self._cache.glob(f"*{_COMING}"):
            left.unlink(missing_ok=True)

    # ------------------------------------------------------------ in

    @staticmethod
    def is_needed(task: Task) -> bool:
        """Whether anything of ``task`` lies elsewhere, or is to."""
        return any(is_elsewhere(text) for text in (task.image_path, task.mask_path, task.output_path) if text)

    def expect(self, grant: Grant) -> None:
        """Begin to bring what ``grant`` names: it is about to be asked for."""
        if self.is_needed(grant.task) and key_of(grant) not in self._errands:
            errand = self._errands[key_of(grant)] = _Errand(grant, self._attempts / f"{grant.task.id}-{grant.attempt}")
            errand.under_way = asyncio.create_task(self._brought(errand), name=f"bring {grant.task.id}")
            errand.under_way.add_done_callback(_heard)

    async def bring(self, grant: Grant) -> Brought:
        """The task with paths that its runner can open.

        Raises:
            NotBrought: with the failure that this is.
        """
        self.expect(grant)
        errand = self._errands[key_of(grant)]
        assert errand.under_way is not None  # noqa: S101 - by expect
        return await asyncio.shield(errand.under_way)

    def drop(self, key: Key, *, keep_result: bool = False) -> None:
        """The attempt has ended, or never begins: its files go. ``keep_result``: but for a result that waits there."""
        errand = self._errands.pop(key, None)
        if errand is not None:
            errand.stop.set()
            if errand.under_way is not None:
                errand.under_way.cancel()
            self._threads.submit(_cleared, errand.folder, keep_result=keep_result)

    async def _brought(self, errand: _Errand) -> Brought:
        assert errand.grant is not None  # noqa: S101 - by expect
        task = errand.grant.task
        try:
            addresses = {
                name: read_address(text)
                for name, text in (("image", task.image_path), ("mask", task.mask_path), ("output", task.output_path))
                if text
            }
            allowed = Allowed(self._config().storage.urls, self._config().storage.web)
            for name, address in addresses.items():
                self._refuse(name, address, allowed)
            needs_store = any(address.kind is Kind.BLOB for address in addresses.values())
            store = await self._store_now() if needs_store else None
            async with asyncio.timeout(task.timeout_s):
                began = steady_now()
                paths = await self._aside(self._fetch, errand, addresses, store)
                self._fetched(steady_now() - began)
            return Brought(task.model_copy(update=paths), (errand.folder,))
        except TimeoutError:
            errand.stop.set()
            raise _not_brought(
                ErrorClass.TRANSIENT, "fetch_timed_out", f"its files have not come within {task.timeout_s:g} s"
            ) from None
        except _Stopped:
            raise _not_brought(ErrorClass.TRANSIENT, "fetch_stopped", "nobody wanted its files any more") from None
        except (LcqError, OSError) as error:
            if isinstance(error, StorageUnreachable):
                self._store = None  # another scheduler may know another way
            raise _named(error, task.image_path) from error

    def _refuse(self, name: str, address: Address, allowed: Allowed) -> None:
        allowed.refuse(address)
        if address.is_path:
            self._roots.refuse(address.place)
        if name == "output" and address.kind in (Kind.WEB, Kind.BLOB):
            hint = "leave output_path out: then it becomes a blob" if address.kind is Kind.BLOB else "name an object"
            raise AddressRefused(str(address), "no result can be put there", hint=hint)

    def _fetch(self, errand: _Errand, addresses: Mapping[str, Address], store: BlobStore | None) -> dict[str, str]:
        """Have everything in the errand's folder; answers the fields of the task that are other now."""
        errand.moved(0)
        shutil.rmtree(errand.folder, ignore_errors=True)
        errand.folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        if self._runner_uid is not None:
            os.chown(errand.folder, self._runner_uid, -1)
        paths: dict[str, str] = {}
        for name in _NAMES:
            address = addresses.get(name)
            if address is None:
                continue
            if address.is_path:
                paths[f"{name}_path"] = address.place
                continue
            target = errand.folder / f"{name}{_suffix_of(address)}"
            self._fetch_one(address, target, store, errand)
            paths[f"{name}_path"] = str(target)
            errand.names[str(target)] = str(address)
        output = addresses.get("output")
        if output is not None and output.is_path:
            paths["output_path"] = output.place
        elif output is not None:  # its name decides the format
            target = errand.folder / "result" / (output.name or "result")
            paths["output_path"] = str(target)
            errand.names[str(target)] = str(output)
        return paths

    def _fetch_one(self, address: Address, target: Path, store: BlobStore | None, errand: _Errand) -> None:
        self._bring_one(address, target, store, errand)
        if self._runner_uid is not None:
            target.chmod(0o644)  # in a folder that only it can enter

    def _bring_one(self, address: Address, target: Path, store: BlobStore | None, errand: _Errand) -> None:
        self._check_room(target.parent)
        if address.kind is Kind.BLOB:
            assert store is not None  # noqa: S101 - asked for where a blob is named
            self._fetch_blob(address.place, target, store, errand)
            return
        try:
            self._fetch_strange(address, target, errand)
        except StorageUnreachable as trouble:
            is_the_same = trouble.address == shown_address(address.place)
            raise SourceUnreachable(address.place, trouble.why if is_the_same else trouble.message) from trouble

    def _fetch_strange(self, address: Address, target: Path, errand: _Errand) -> None:
        most = self._config().limits.image_bytes
        match address.kind:
            case Kind.WEB:
                from lcq.storage.web import Web

                seconds = errand.grant.task.timeout_s if errand.grant else _LOOK_S
                Web(most, seconds=seconds).get(address.place, target, moved=errand.moved)
            case _:
                from lcq.storage.objects import Objects

                scheme = address.place.partition("://")[0].lower()
                objects = Objects(scheme, self._config().storage.options.get(scheme))
                try:
                    objects.get(address.place, target, most=most, moved=errand.moved)
                except FileNotFoundError as error:
                    raise AddressRefused(
                        address.place, "there is no such object", hint="put it there, and retry the task"
                    ) from error

    def _fetch_blob(self, sha256: str, target: Path, store: BlobStore, errand: _Errand) -> None:
        """From the cache, which gets it first where it has it not; of several who want it one fetches."""
        with self._turn(sha256):
            kept = self._cache / sha256
            if not _linked(kept, target):
                if self._config().storage.cache_mib == 0:
                    store.get(sha256, target, moved=errand.moved)
                    return
                self._cache.mkdir(mode=0o700, parents=True, exist_ok=True)
                fresh = kept.with_name(f"{sha256}{_COMING}")
                fresh.unlink(missing_ok=True)
                store.get(sha256, fresh, moved=errand.moved)
                os.link(fresh, target)  # before it is kept: from then on the turn of another blob may let go of it
                fresh.replace(kept)
                self._trim()

    @contextlib.contextmanager
    def _turn(self, sha256: str) -> Iterator[None]:
        """Of several who want a blob one has its turn."""
        with self._cache_lock:
            turn = self._fetching.setdefault(sha256, _Turn())
            turn.wanted += 1
        try:
            with turn.lock:
                yield
        finally:
            with self._cache_lock:
                turn.wanted -= 1
                if not turn.wanted:
                    del self._fetching[sha256]

    def _trim(self) -> None:
        """Let go of what was used longest ago, where the cache holds more than it may. Who uses it has a link."""
        with self._cache_lock:
            found = []
            for entry in os.scandir(self._cache):
                if entry.name.endswith(_COMING):
                    continue
                with contextlib.suppress(OSError):
                    status = entry.stat()
                    found.append((status.st_mtime, status.st_size, entry.path))
            left = sum(size for _, size, _ in found) - (self._config().storage.cache_mib << 20)
            for _, size, path in sorted(found):
                if left <= 0:
                    break
                Path(path).unlink(missing_ok=True)
                left -= size

    def _check_room(self, folder: Path) -> None:
        disk = self._config().agent.disk
        lack = lack_of_room(folder, floor_mib=disk.floor_mib, floor_percent=disk.floor_percent)
        if lack:
            raise StorageFull(str(folder), lack)

    @contextlib.asynccontextmanager
    async def borrowed(
        self, texts: Mapping[str, str]
    ) -> AsyncIterator[tuple[dict[str, str], dict[str, str], tuple[Path, ...]]]:
        """Files to look at, for the length of the block: for each name a path, or why there is none.

        What lies at web addresses is not asked for again: another picture may be there by now.
        """
        folder = self._attempts / f"look-{new_id()}"
        errand = _Errand(None, folder)
        paths: dict[str, str] = {}
        why: dict[str, str] = {}
        try:
            for name, text in texts.items():
                try:
                    async with asyncio.timeout(_LOOK_S):
                        paths[name] = await self._borrow(text, folder / f"{len(paths) + len(why)}", errand)
                except TimeoutError:
                    why[name] = f"{shown_address(text)}: it has not come within {_LOOK_S:g} s"
                except (LcqError, OSError) as error:
                    why[name] = str(error)[:2000]
            yield paths, why, (folder,)
        finally:
            errand.stop.set()
            self._threads.submit(_cleared, folder, keep_result=False)

    async def _borrow(self, text: str, target: Path, errand: _Errand) -> str:
        address = read_address(text)
        if address.is_path:
            return address.place
        if address.kind is Kind.WEB:
            raise AddressRefused(text, "web addresses are not asked again for a look", hint="open it yourself")
        Allowed(self._config().storage.urls).refuse(address)
        store = await self._store_now() if address.kind is Kind.BLOB else None
        await self._aside(self._fetch_aside, address, target, store, errand)
        return str(target)

    def _fetch_aside(self, address: Address, target: Path, store: BlobStore | None, errand: _Errand) -> None:
        target.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        if self._runner_uid is not None:
            os.chown(target.parent, self._runner_uid, -1)
        self._fetch_one(address, target, store, errand)

    # ------------------------------------------------------------ out

    def told(self, ended: Ended) -> Ended:
        """``ended`` in the words of its task: with the addresses that it names, not the paths that its runner saw."""
        errand = self._errands.get(ended.key)
        if errand is None:
            return ended
        failure, result = ended.failure, ended.result
        if failure is not None:
            message = failure.message
            for path, address in errand.names.items():
                message = message.replace(path, address)
            message = message.replace(str(errand.folder), "the agent's folder")
            return replace(ended, failure=failure.model_copy(update={"message": message[:2000]}))
        if result is not None and ended.staged and Path(result.path).is_relative_to(errand.folder):
            return replace(ended, result=result.model_copy(update={"path": self._place_of(result, errand)}), found=None)
        return ended

    @staticmethod
    def _place_of(result: TaskResult, errand: _Errand) -> str:
        """Where a result goes that was written into the errand's folder."""
        return errand.names.get(result.path) or blob_address(result.sha256)

    async def carry(self, staged: str, final: str) -> None:
        """Put the file ``staged`` at the address ``final``, and remove it.

        Raises:
            LcqError: it cannot be, after several tries. OSError: the file cannot be read.
        """
        address = read_address(final)
        for number in range(1, _TRIES + 1):
            try:
                store = await self._store_now() if address.kind is Kind.BLOB else None
                await self._aside(self._put, Path(staged), address, store)
                break
            except StorageUnreachable as trouble:
                self._store = None
                if number == _TRIES:
                    raise
                _log.info("%s cannot be put there now, it is tried again: %s", address, trouble)
                await asyncio.sleep(_AGAIN_S * number)
        await self._aside(_removed, Path(staged))

    def _put(self, staged: Path, address: Address, store: BlobStore | None) -> None:
        if store is not None:
            store.put(staged, address.place)
            return
        from lcq.storage.objects import Objects

        scheme = address.place.partition("://")[0].lower()
        Objects(scheme, self._config().storage.options.get(scheme)).put(staged, address.place)

    async def is_there(self, final: str) -> bool:
        """Whether something is at the address ``final``.

        Raises:
            LcqError: it cannot be told.
        """
        address = read_address(final)
        store = await self._store_now() if address.kind is Kind.BLOB else None
        return await self._aside(self._look, address, store)

    def _look(self, address: Address, store: BlobStore | None) -> bool:
        if store is not None:
            return store.stat(address.place) is not None
        from lcq.storage.objects import Objects

        scheme = address.place.partition("://")[0].lower()
        return Objects(scheme, self._config().storage.options.get(scheme)).size(address.place) is not None

    # ------------------------------------------------------------ where blobs are

    async def _store_now(self) -> BlobStore:
        """Raises:
        LcqError: no scheduler tells, or neither it nor its store can be reached.
        """
        async with self._opening:
            if self._store is None or steady_now() - self._store[0] > _STORE_AGE_S:
                url, mark, http = await self._ask()
                store = await self._aside(lambda: store_reached(self._config(), url=url, mark=mark, http=http))
                self._store = (steady_now(), store)
            return self._store[1]

    async def _aside(self, work: Callable[..., T], *given: object) -> T:
        return await asyncio.get_running_loop().run_in_executor(self._threads, work, *given)


def _removed(staged: Path) -> None:
    """Remove a staged result, and its attempt's folder where nothing else is in it."""
    staged.unlink(missing_ok=True)
    with contextlib.suppress(OSError):
        staged.parent.rmdir()
        staged.parent.parent.rmdir()


def _cleared(folder: Path, *, keep_result: bool) -> None:
    if not keep_result:
        shutil.rmtree(folder, ignore_errors=True)
        return
    with contextlib.suppress(OSError):
        for path in folder.iterdir():
            if path.is_file():
                path.unlink(missing_ok=True)


def _linked(kept: Path, target: Path) -> bool:
    try:
        os.utime(kept)
        os.link(kept, target)
    except FileNotFoundError:
        return False
    return True


def _suffix_of(address: Address) -> str:
    """What may follow the name of a file that is brought here, for people: what it is is told by its content."""
    suffix = posixpath.splitext(address.name)[1]
    return suffix if suffix[1:].isalnum() and suffix.isascii() and len(suffix) <= _LONGEST_SUFFIX else ""


def _heard(under_way: asyncio.Task[Brought]) -> None:
    """Whoever asked has been told; or nobody asks any more."""
    if not under_way.cancelled():
        under_way.exception()


def _not_brought(error_class: ErrorClass, code: str, message: str) -> NotBrought:
    return NotBrought(Failure(error_class=error_class, code=code, message=message[:2000]))


def _named(error: LcqError | OSError, image: str) -> NotBrought:
    if isinstance(error, OSError):
        code = "disk_full" if error.errno in _NO_ROOM else "io_error"
        kind = ErrorClass.RESOURCE if code == "disk_full" else ErrorClass.TRANSIENT
        return _not_brought(kind, code, f"{shown_address(image)}: it cannot be kept here: {error.strerror or error}")
    if isinstance(error, StorageFull):
        return _not_brought(ErrorClass.RESOURCE, "disk_full", str(error))
    kind = ErrorClass.BAD_INPUT if isinstance(error, _BAD) else ErrorClass.TRANSIENT
    return _not_brought(kind, error.code, str(error))
