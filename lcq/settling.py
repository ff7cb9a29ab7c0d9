"""What has become of tasks that nobody waited for, written into the manifests beside their results."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path

from lcq.client import AsyncClient
from lcq.client.courier import Courier
from lcq.errors import ManifestUnusable
from lcq.manifest import MANIFEST_NAME, Entry, Manifest, try_locked
from lcq.models import RESULT, TaskRecord
from lcq.resumable import outcome_of
from lcq.storage.addresses import blob_in

UNKNOWN = "the cluster knows nothing of it"
"""Said of a result that was given to the cluster: it never arrived there, or has been forgotten since."""

_MANY = 5000  # results of which the cluster is asked without a word

_TOLD = 5  # reasons for which results could not be fetched

_UPWARDS = 16  # folders above a result in which its manifest is looked for


async def settle(
    client: AsyncClient,
    folders: Iterable[Path],
    *,
    job: str = "",
    complain: Callable[[str], None] = lambda told: None,
    courier: Courier | None = None,
) -> int:
    """Have the manifests of ``folders`` say how it stands with what was given to the cluster, and not seen to its end.

    ``job``: only what is of it. Answers how many results were told anew. A folder in which a submit is at work is left
    to that; of one that cannot be written ``complain`` is told, and
    where it may take a while. ``courier`` fetches results that wait in the cluster's storage; without one, what is said
    of those stays as it is.

    Raises:
        LcqError: the cluster does not answer; ManifestUnusable: a manifest cannot be read.
    """
    count = 0
    for folder in dict.fromkeys(folders):
        asked = open_entries(folder, job)
        if not asked:
            continue
        if len(asked) > _MANY:
            complain(f"asking how it stands with {len(asked):,} results in {folder} …")
        records = {record.id: record for record in await client.known(entry.task for entry in asked)}
        left = await _left(folder, asked, records, courier, complain)
        asked = [entry for entry in asked if entry.task not in left]
        try:
            count += _note(folder, asked, records)
        except ManifestUnusable as error:
            complain(error.message)
    return count


async def _left(
    folder: Path,
    asked: Iterable[Entry],
    records: Mapping[str, TaskRecord],
    courier: Courier | None,
    complain: Callable[[str], None],
) -> set[str]:
    """The tasks whose results still wait in the cluster's storage, after they were fetched as far as can be."""
    manifest = await asyncio.to_thread(_manifest_of, folder)
    waiting = [
        (record, manifest.path_of(entry))
        for entry in asked
        if (record := records.get(entry.task)) is not None and record.result and blob_in(record.result.path)
    ]
    if courier is None or not waiting:
        return {record.id for record, _ in waiting}
    why = await asyncio.to_thread(courier.fetch, waiting)
    for told in sorted(set(filter(None, why.values())))[:_TOLD]:
        complain(f"a result cannot be fetched: {told}")
    return set(why)


def _manifest_of(folder: Path) -> Manifest:
    return Manifest(folder.absolute())


def open_entries(folder: Path, job: str = "") -> list[Entry]:
    """What a folder's manifest has of results that may have come to another end since it was written.

    Raises:
        ManifestUnusable: there is a manifest, and it cannot be read.
    """
    if not (folder / MANIFEST_NAME).is_file():
        return []
    entries = Manifest(folder.absolute()).entries
    return [entry for entry in entries if entry.state != "done" and entry.task and job in ("", entry.job)]


def _note(folder: Path, asked: Iterable[Entry], records: Mapping[str, TaskRecord]) -> int:
    with try_locked(folder) as is_mine:
        if not is_mine:
            return 0
        manifest = Manifest(folder.absolute())
        fresh = []
        for entry in asked:
            told = _settled(entry, records.get(entry.task))
            # Not where another submit has put something else there while the cluster was asked.
            if told != entry and manifest.of(manifest.path_of(entry)) == entry:
                fresh.append(told)
        if fresh:
            manifest.note(fresh)
        return len(fresh)


def _settled(entry: Entry, record: TaskRecord | None) -> Entry:
    if record is None:
        return entry if entry.state == "failed" else entry.model_copy(update={"why": UNKNOWN})
    if not record.status.is_terminal:  # it may have been put back since
        return entry.model_copy(update={"state": "given", "why": ""})
    return Entry.model_validate(entry.model_dump() | {"why": ""} | outcome_of(record, entry.sha256))


def folders_of(records: Iterable[TaskRecord]) -> list[Path]:
    """The folders whose manifests tell of the results of these tasks, as far as they can be seen from here."""
    found: dict[Path, Path | None] = {}
    for record in records:
        output = record.task.output_path or record.task.metadata.get(RESULT)
        if not isinstance(output, str) or not output or "\x00" in output:
            continue
        place = Path(output).parent
        if place not in found:
            above = [place, *place.parents][:_UPWARDS]
            found[place] = next((folder for folder in above if (folder / MANIFEST_NAME).is_file()), None)
    return list(dict.fromkeys(folder for folder in found.values() if folder is not None))
