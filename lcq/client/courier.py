"""The courier: brings inputs that agents do not see into a cluster's storage, and results from there to their names."""

from __future__ import annotations

import asyncio
import contextlib
import os
import secrets
from collections.abc import Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING

from lcq.config import DistributedConfig
from lcq.errors import LcqError, UnknownCommand
from lcq.glance import glance
from lcq.models import TaskRecord
from lcq.storage.addresses import blob_in
from lcq.storage.blobs import BlobStore, Moved, nothing
from lcq.storage.opening import store_reached
from lcq.wire.nodes import MOST_SEEN, SeenFile

if TYPE_CHECKING:
    from lcq.client.asynchronous import AsyncClient
    from lcq.wire import StoreAnswer

_AT_A_TIME = 4  # transfers
_PROBE = ".lcq-probe-"


class Courier:
    """One for a run of a command. What is not ``async`` blocks, and may be called from any thread."""

    def __init__(self, config: DistributedConfig, told: StoreAnswer) -> None:
        self._config, self._told = config, told
        self._store: BlobStore | None = None

    @classmethod
    async def of(cls, client: AsyncClient, config: DistributedConfig) -> Courier | None:
        """The one of this cluster; None where its scheduler is older than blobs.

        Raises:
            LcqError: it does not answer.
        """
        try:
            return cls(config, await client.store())
        except UnknownCommand:
            return None

    def open(self) -> BlobStore:
        """Where the blobs are.

        Raises:
            StorageUnreachable: there is no way there.
        """
        if self._store is None:
            told = self._told
            self._store = store_reached(self._config, url=told.url, mark=told.mark, http=told.http, is_patient=True)
        return self._store

    # ------------------------------------------------------------ what agents see

    async def unseen(self, client: AsyncClient, inputs: Iterable[Path], results: Iterable[Path]) -> str:
        """Which file some agent does not see, and who, in words; "" where all see all of them, as far as was asked.

        ``inputs`` are files; of each of their folders one is asked after. ``results`` are folders.

        Raises:
            LcqError: the cluster does not answer.
        """
        if self._told.loopback:
            return ""
        firsts = {path.parent: path for path in reversed(list(inputs))}
        with contextlib.ExitStack() as stack:
            chosen = [*firsts.values()][: MOST_SEEN // 2]
            asked = await asyncio.to_thread(_glances, chosen)
            for folder in [*dict.fromkeys(results)][: MOST_SEEN // 2]:
                probe = stack.enter_context(_probe_in(folder))
                asked += await asyncio.to_thread(_glances, [probe] if probe else [])
            answer = await client.sees(asked)
        for file in asked:
            if file.path in answer.unseen:
                place = Path(file.path)
                shown = place.parent if place.name.startswith(_PROBE) else place
                return f"{answer.unseen[file.path]} does not see {shown}"
        if not answer.nodes and asked:
            return "no node lives that could say what it sees"
        return ""

    # ------------------------------------------------------------ in and out

    def upload(self, files: Mapping[str, Path], *, moved: Moved = nothing) -> None:
        """Have the files in the cluster's storage, each under its SHA-256; what is there already is not sent again.

        Raises:
            BlobMismatch: a file has changed since it was looked at. OSError: it cannot be read.
            LcqError: it cannot be put there.
        """
        store = self.open()
        with ThreadPoolExecutor(_AT_A_TIME, thread_name_prefix="upload") as threads:
            under_way = [threads.submit(_put, store, path, sha256, moved) for sha256, path in files.items()]
            try:
                for one in under_way:
                    one.result()
            except BaseException:
                threads.shutdown(wait=False, cancel_futures=True)
                raise

    def fetch(self, wanted: Sequence[tuple[TaskRecord, Path]]) -> dict[str, str]:
        """Put results that are blobs under their names; answers why not, by the ids of the tasks of which it failed.

        A file that is there and is the very result is left as it is.
        """
        with ThreadPoolExecutor(_AT_A_TIME, thread_name_prefix="download") as threads:
            told = threads.map(lambda one: self._fetch(*one), wanted)
            return {record.id: why for (record, _), why in zip(wanted, told, strict=True) if why}

    def _fetch(self, record: TaskRecord, target: Path) -> str:
        sha256 = blob_in(record.result.path if record.result else "")
        fresh = target.with_name(f".{target.name[:100]}.{record.id}.lcq-fetch")
        try:
            target.parent.mkdir(parents=True, exist_ok=True)
            fresh.unlink(missing_ok=True)
            self.open().get(sha256, fresh)
            fresh.replace(target)
        except (LcqError, OSError) as error:
            fresh.unlink(missing_ok=True)
            return str(error) if isinstance(error, LcqError) else f"{target}: {error.strerror or error}"
        return ""


def _put(store: BlobStore, path: Path, sha256: str, moved: Moved) -> None:
    store.put(path, sha256, moved=moved)


def _glances(paths: Iterable[Path]) -> list[SeenFile]:
    return [seen for path in paths if (seen := glance(str(path))) is not None]


@contextlib.contextmanager
def _probe_in(folder: Path) -> Iterator[Path | None]:
    """A file there, for the length of the block, that can be no other's; None where none can be written."""
    probe = folder / f"{_PROBE}{secrets.token_hex(8)}"
    try:
        with probe.open("xb") as file:
            file.write(os.urandom(32))
    except OSError:
        yield None
        return
    try:
        yield probe
    finally:
        probe.unlink(missing_ok=True)
