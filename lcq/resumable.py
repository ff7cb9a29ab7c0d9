"""A folder as one job that can be taken up again: what of it is still to be done, and giving just that to a cluster."""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import json
import os
import time
from collections import Counter
from collections.abc import Awaitable, Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from lcq.errors import InvalidInput, ManifestUnusable
from lcq.folder import Named, Pair, name_results, result_folder
from lcq.manifest import Entry, Manifest, locked
from lcq.models import RESULT, SOURCE, Task, TaskRecord, TaskResult, TaskStatus
from lcq.storage.addresses import blob_address, blob_in
from lcq.wire import MAX_BATCH, Accepted, Refusal

if TYPE_CHECKING:
    from lcq.client import AsyncClient
    from lcq.client.courier import Courier

UNCHANGED = "done already, unchanged"
EARLIER = "of an earlier submit"
_CHUNK = 2**20
_READERS = 4  # files that are read at a time
_AGAIN = "submitted again"

Uploads = Callable[[Mapping[str, Path]], Awaitable[None]]
"""Has files in the cluster's storage, each under its SHA-256."""


@dataclass(frozen=True)
class Sums:
    """What an input is, by SHA-256; empty where a file cannot be read here."""

    image: str
    mask: str = ""


@dataclass
class Piece:
    """One input of a job: what it is, what is asked for it, and what is known of it."""

    pair: Pair
    output: Path
    task: Task
    sums: Sums
    entry: Entry | None = None  # what an earlier submit has noted of this result
    done: bool = False  # its result is there, of just this input
    accepted: Accepted | None = None  # the task that makes it now, here or since an earlier submit
    refused: Refusal | None = None
    why: str = ""  # why it is skipped, or done anew
    uploaded: Task | None = None  # what is sent instead of ``task``, where agents do not see its files

    @property
    def sent(self) -> Task:
        """What the cluster is given."""
        return self.uploaded or self.task

    def by_content(self) -> None:
        """Name its files by what they are, not by where: they are to be uploaded, and the result fetched.

        Raises:
            InvalidInput: they cannot be read here.
        """
        if not self.is_known:
            unread = self.pair.image if not self.sums.image else self.pair.mask
            raise InvalidInput(f"{unread} cannot be read", hint="it has to be, for the cluster's nodes do not see it")
        self.uploaded = self.task.model_copy(
            update={
                "image_path": blob_address(self.sums.image),
                "mask_path": blob_address(self.sums.mask) if self.sums.mask else None,
                "output_path": None,
                "config": {**self.task.config, "format": _format_of(self.output, self.task)},
                "metadata": {**self.task.metadata, SOURCE: str(self.pair.image), RESULT: str(self.output)},
            }
        )

    @property
    def files(self) -> dict[str, Path]:
        """What of it has to be uploaded, by SHA-256."""
        mask = {self.sums.mask: self.pair.mask} if self.pair.mask is not None else {}
        return {self.sums.image: self.pair.image, **mask}

    @property
    def params(self) -> str:
        """A hash of what decides the result, beside the image and its mask."""
        return _digest({"type": self.task.task_type, "config": self.task.model_dump(mode="json")["config"]})

    @property
    def key(self) -> str:
        """The idempotency key: the same job, files, contents and wishes have the same one, whoever asks."""
        if not self.is_known:
            return self.task.id
        asked = json.loads(self.sent.to_json())
        del asked["id"]
        return "folder:" + _digest({"asked": asked, "image": self.sums.image, "mask": self.sums.mask})

    @property
    def is_known(self) -> bool:
        """Whether its contents could be read here; else nothing can be told about them."""
        return bool(self.sums.image) and (self.pair.mask is None or bool(self.sums.mask))

    def changes(self) -> str:
        """What differs from the input that the noted result is of; empty if nothing does."""
        if self.entry is None:
            return ""
        found = [
            name
            for name, before, now in (
                ("image", self.entry.sha256, self.sums.image),
                ("mask", self.entry.mask_sha256, self.sums.mask),
                ("parameters", self.entry.params, self.params),
            )
            if before != now
        ]
        return f"{' and '.join(found)} changed" if found else ""

    def noted(self, job: str, **more: object) -> Entry:
        """An entry for the manifest."""
        values: dict[str, object] = {
            "output": "?",
            "image": str(self.pair.image),
            "sha256": self.sums.image,
            "mask_sha256": self.sums.mask,
            "params": self.params,
            "job": job,
            "task": self.accepted.id if self.accepted else self.task.id,
            "key": self.key,
            "at_ms": time.time_ns() // 1_000_000,
        }
        return Entry.model_validate(values | more)


def _format_of(output: Path, task: Task) -> object:
    """The format that is asked for, else the one that the result's name stands for."""
    if "format" in task.config:
        return task.config["format"]
    from lcq.images import FORMATS

    return next((name for name, suffixes in FORMATS.items() if output.suffix.lower() in suffixes), "png")


def _digest(value: object) -> str:
    return hashlib.sha256(json.dumps(value, sort_keys=True).encode()).hexdigest()


def sha256_of(path: Path) -> str:
    """The SHA-256 of a file's content; empty if it cannot be read."""
    found = hashlib.sha256()
    try:
        with path.open("rb") as file:
            while chunk := file.read(_CHUNK):
                found.update(chunk)
    except OSError:
        return ""
    return found.hexdigest()


def sums_of(paths: Iterable[Path]) -> dict[Path, str]:
    """The SHA-256 of each file, as ``sha256_of``."""
    wanted = list(dict.fromkeys(paths))
    with ThreadPoolExecutor(_READERS, thread_name_prefix="sha256") as readers:
        return dict(zip(wanted, readers.map(sha256_of, wanted), strict=True))


class Shelf:
    """The manifests of the folders into which a submission's results go, held while it is sent."""

    def __init__(self, manifests: Mapping[Path, Manifest], complain: Callable[[str], None]) -> None:
        self._manifests = dict(manifests)
        self._complain = complain
        self._unwritable: set[Path] = set()

    @classmethod
    @contextlib.contextmanager
    def held(cls, folders: Iterable[Path], complain: Callable[[str], None]) -> Iterator[Shelf]:
        """Read the manifests of ``folders``, which are made where they are not there, and keep others out meanwhile.

        ``complain`` is told what a person should know: that another is waited for, that one cannot be kept.

        Raises:
            ManifestUnusable: one is there and cannot be read.
        """
        with contextlib.ExitStack() as locks:
            manifests = {}
            for folder in sorted(set(folders)):
                with contextlib.suppress(OSError):  # then it cannot be written either, which is told there
                    folder.mkdir(parents=True, exist_ok=True)
                locks.enter_context(
                    locked(folder, lambda at=folder: complain(f"another lcq submit is at work in {at}: waiting for it"))  # type: ignore[misc]
                )
                manifests[folder] = Manifest(folder)
                if manifests[folder].damaged:
                    complain(manifests[folder].damaged)
            yield cls(manifests, complain)

    @classmethod
    def read(cls, folders: Iterable[Path]) -> Shelf:
        """As ``held``, for who only looks: nobody is kept out, nothing is made.

        Raises:
            ManifestUnusable: one is there and cannot be read.
        """
        return cls({folder: Manifest(folder) for folder in sorted(set(folders))}, lambda _: None)

    @property
    def folders(self) -> tuple[Path, ...]:
        """Where the results go."""
        return tuple(self._manifests)

    def owners(self, sums: Mapping[Pair, Sums]) -> dict[Path, Path]:
        """The results that are known, each with its image; one that was moved is known by its content and name."""
        by_content = {(known.image, pair.relative.stem): pair.image for pair, known in sums.items() if known.image}
        owners = {}
        for manifest in self._manifests.values():
            for entry in manifest.entries:
                image, output = Path(entry.image), manifest.path_of(entry)
                moved = by_content.get((entry.sha256, output.stem))
                if moved is not None and moved != image and not image.exists():
                    image = moved
                owners[output] = image
        return owners

    def job_of(self, images: Iterable[Path]) -> str:
        """The job of which most of these images were before; empty if there was none."""
        wanted = {str(image) for image in images}
        jobs = Counter(
            entry.job
            for manifest in self._manifests.values()
            for entry in manifest.entries
            if entry.job and entry.image in wanted
        )
        return jobs.most_common(1)[0][0] if jobs else ""

    def entry_of(self, output: Path) -> Entry | None:
        manifest = self._of(output)
        return manifest.of(output) if manifest is not None else None

    def _of(self, output: Path) -> Manifest | None:
        return next((self._manifests[folder] for folder in output.parents if folder in self._manifests), None)

    def note(self, entries: Iterable[tuple[Path, Entry]]) -> None:
        """Write what is known now of these results. A folder that cannot be written is complained of once."""
        by_folder: dict[Path, list[Entry]] = {}
        for output, entry in entries:
            manifest = self._of(output)
            if manifest is not None and manifest.folder not in self._unwritable:
                named = entry.model_copy(update={"output": manifest.name_of(output)})
                by_folder.setdefault(manifest.folder, []).append(named)
        for folder, of_folder in by_folder.items():
            try:
                self._manifests[folder].note(of_folder)
            except ManifestUnusable as error:
                self._unwritable.add(folder)
                self._complain(f"{error.message}: another submit of this folder will not know what is done")

    @contextlib.contextmanager
    def locked(self) -> Iterator[None]:
        """Hold the folders again for a moment."""
        with contextlib.ExitStack() as locks:
            for folder in self._manifests:
                locks.enter_context(locked(folder, lambda: None))
            yield


@dataclass
class FolderJob:
    """All inputs of one submission, and the manifests that remember them."""

    name: str | None
    pieces: Sequence[Piece]
    shelf: Shelf
    waits: dict[str, Piece] = field(default_factory=dict)  # by the id of the task that makes it
    courier: Courier | None = None  # who fetches results that are not where they are wanted
    unfetched: dict[str, str] = field(default_factory=dict)  # why a result could not be, by task

    # ------------------------------------------------------------ before anything is sent

    def look(self, *, anew: bool = False) -> None:
        """Find out by the manifests which inputs are done already. ``anew``: none of them counts as done."""
        for piece in self.pieces:
            piece.entry = self.shelf.entry_of(piece.output)
            piece.why = piece.changes() if piece.is_known else ""
        if anew:
            return
        maybe = [
            (piece, piece.entry)
            for piece in self.pieces
            if piece.entry is not None and piece.entry.state == "done" and piece.is_known and not piece.why
        ]
        results = sums_of(piece.output for piece, _ in maybe)
        for piece, entry in maybe:
            if results[piece.output] == entry.result_sha256:
                piece.done, piece.why = True, UNCHANGED
            else:
                piece.why = "result changed since" if results[piece.output] else "result is gone"

    @property
    def to_do(self) -> list[Piece]:
        return [piece for piece in self.pieces if not piece.done]

    # ------------------------------------------------------------ sending

    def upload(self) -> None:
        """Have agents given the files themselves, of all that is not done: they do not see them.

        Raises:
            InvalidInput: one cannot be read.
        """
        for piece in self.to_do:
            piece.by_content()

    async def send(
        self,
        client: AsyncClient,
        *,
        queue: str = "",
        node: str = "",
        anew: bool = False,
        uploads: Uploads | None = None,
    ) -> None:
        """Give the cluster what is not done; tasks of an earlier submit that still run are taken up instead.

        What is to be sent is noted first, so that after an end at any point another submit finds it again. ``uploads``
        brings files into the cluster's storage, where they are sent by their content.

        Raises:
            LcqError: the cluster does not answer. What it has taken by then goes on.
        """
        earlier = await self._earlier(client)
        looked_at = self.to_do
        outdated = []
        for piece in looked_at:
            record = earlier.get(piece.entry.task) if piece.entry is not None else None
            if record is None:
                if piece.entry is not None and piece.entry.state == "given" and not piece.why:
                    piece.why = "the cluster knows nothing of it any more"
                continue
            if anew or piece.changes():
                if not record.status.is_terminal:
                    outdated.append(record.id)
            elif not record.status.is_terminal:
                self._takes_up(piece, record)
            elif await self._is_here(piece, record):
                self._has_ended(piece, record)
                piece.done, piece.why = True, UNCHANGED
        if outdated:  # it would put a result of what was there before into the place of the new one
            await client.cancel(outdated, reason="its input has changed and was submitted again")
        to_send = [piece for piece in self.to_do if piece.accepted is None]
        to_upload = {sha256: path for piece in to_send if piece.uploaded for sha256, path in piece.files.items()}
        if to_upload and uploads is not None:
            await uploads(to_upload)
        self.shelf.note((piece.output, piece.noted(self.name or "")) for piece in to_send)
        try:
            for start in range(0, len(to_send), MAX_BATCH):
                await self._send_some(to_send[start : start + MAX_BATCH], client, queue, node, anew)
        finally:
            found = [piece for piece in looked_at if piece.done and piece.entry is not None]
            other = [piece for piece in to_send if piece.accepted is not None and piece.accepted.id != piece.task.id]
            self.shelf.note((piece.output, piece.entry) for piece in found if piece.entry is not None)
            self.shelf.note((piece.output, piece.noted(self.name or "")) for piece in other)

    async def _earlier(self, client: AsyncClient) -> dict[str, TaskRecord]:
        """The tasks that earlier submits have noted for what is not done, as far as the cluster knows them."""
        ids = [piece.entry.task for piece in self.to_do if piece.entry is not None and piece.entry.task]
        return {record.id: record for record in await client.known(ids)}

    def _takes_up(self, piece: Piece, record: TaskRecord) -> None:
        piece.accepted = Accepted(
            id=record.id, queue=record.queue, status=record.status, duplicate=True, why=record.why
        )
        piece.why = EARLIER
        self.waits[record.id] = piece

    async def _send_some(self, pieces: Sequence[Piece], client: AsyncClient, queue: str, node: str, anew: bool) -> None:
        answer = await client.submit_many(
            [piece.sent for piece in pieces],
            keys=[piece.task.id if anew else piece.key for piece in pieces],
            queue=queue,
            node=node,
        )
        refused = {refusal.id: refusal for refusal in answer.refused}
        taken = [piece for piece in pieces if piece.task.id not in refused]
        known: dict[str, Piece] = {}
        for piece, accepted in zip(taken, answer.accepted, strict=True):  # in the order in which they were sent
            piece.accepted = accepted
            self.waits[accepted.id] = piece
            if accepted.duplicate and accepted.status.is_terminal:
                known[accepted.id] = piece
        for piece in pieces:
            piece.refused = refused.get(piece.task.id)
        if known:
            await self._put_back(known, client)

    async def _put_back(self, known: Mapping[str, Piece], client: AsyncClient) -> None:
        """Tasks that have ended before: their results count if they are there; all others are tried again."""
        to_retry = []
        for record in await client.known(known):
            piece = known[record.id]
            if await self._is_here(piece, record):
                self._has_ended(piece, record)
                piece.done, piece.why, piece.accepted = True, UNCHANGED, None
                del self.waits[record.id]
            elif record.status.is_terminal:
                to_retry.append(record.id)
        if not to_retry:
            return
        answer = await client.retry(to_retry, reason=_AGAIN)
        running = {
            record.id
            for record in await client.known([refusal.id for refusal in answer.refused])
            if not record.status.is_terminal  # another submit of this folder was first
        }
        for refusal in answer.refused:
            if refusal.id not in running:
                piece = known[refusal.id]
                piece.refused, piece.accepted = refusal, None
                del self.waits[refusal.id]

    # ------------------------------------------------------------ what has come of it

    async def _is_here(self, piece: Piece, record: TaskRecord) -> bool:
        """Whether the result of a task that has ended has its name here; it is fetched where it only waits for that."""
        if record.result is None:
            return False
        if sha256_of(piece.output) == record.result.sha256:
            return True
        if self.courier is None or not blob_in(record.result.path):
            return False
        return not await asyncio.to_thread(self.courier.fetch, [(record, piece.output)])

    def _fetch(self, ended: Sequence[tuple[Piece, TaskRecord]]) -> None:
        """Put results under their names that are in the cluster's storage."""
        if self.courier is not None:
            wanted = [
                (record, piece.output) for piece, record in ended if record.result and blob_in(record.result.path)
            ]
            self.unfetched |= self.courier.fetch(wanted)

    def note_ended(self, records: Iterable[TaskRecord]) -> None:
        """Write into the manifests how these tasks have ended."""
        ended = [(self.waits[record.id], record) for record in records if record.id in self.waits]
        self._fetch(ended)
        ended = [(piece, record) for piece, record in ended if record.id not in self.unfetched]
        for piece, record in ended:
            self._has_ended(piece, record)
        if ended:
            with self.shelf.locked():
                self.shelf.note((piece.output, piece.entry) for piece, _ in ended if piece.entry is not None)

    @staticmethod
    def _has_ended(piece: Piece, record: TaskRecord) -> None:
        piece.entry = piece.noted(record.task.job or "", task=record.id, **outcome_of(record, piece.sums.image))


def outcome_of(record: TaskRecord, sha256: str) -> dict[str, object]:
    """What a manifest's entry says of how a task has ended. ``sha256``: what its input was when it was submitted."""
    result: TaskResult | None = record.result
    if record.status is TaskStatus.COMPLETED and result is not None:
        return {
            "state": "done",
            "sha256": result.input_sha256 or sha256,  # what was read there, if it was changed meanwhile
            "result_sha256": result.sha256,
            "seconds": result.seconds,
            "megapixels": megapixels_of(result),
        }
    failure = record.failure
    return {"state": "failed", "why": f"{failure.code}: {failure.message}"[:500] if failure else str(record.status)}


def megapixels_of(result: TaskResult) -> float:
    return result.width * result.height / 1e6


def folder_job_name(folder: Path, out: Path | None) -> str:
    """The name of a folder's job where nobody gave one: the same whenever the same is submitted into the same place."""
    legible = "".join(char if char.isprintable() else "_" for char in folder.name or "images")
    place = json.dumps([os.path.abspath(folder), os.path.abspath(out) if out is not None else ""])  # noqa: PTH100
    return f"{legible[:100]}-{hashlib.sha256(place.encode(errors='surrogateescape')).hexdigest()[:6]}"


def sums_of_pairs(pairs: Sequence[Pair]) -> dict[Pair, Sums]:
    """What each input is."""
    sums = sums_of([path for pair in pairs for path in (pair.image, pair.mask) if path is not None])
    return {pair: Sums(sums[pair.image], sums[pair.mask] if pair.mask is not None else "") for pair in pairs}


def named_results(
    pairs: Sequence[Pair], sums: Mapping[Pair, Sums], shelf: Shelf, out: Path | None, image_format: str | None
) -> list[Named]:
    """Where the results go, as ``lcq.folder.name_results`` says, with what the manifests know."""
    return name_results(pairs, out, image_format, owners=shelf.owners(sums))


def result_folders(pairs: Iterable[Pair], out: Path | None) -> set[Path]:
    """The folders that have a manifest for these results."""
    return {result_folder(pair, out) for pair in pairs}
