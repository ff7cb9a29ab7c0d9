"""Where the results of this user's jobs lie, so that a job can be told of when the cluster has forgotten it."""

from __future__ import annotations

import fcntl
import json
import logging
from collections.abc import Iterable
from pathlib import Path

from lcq.embedded_watch import write_private
from lcq.private_folder import make_private

log = logging.getLogger(__name__)

_KEPT = 1000  # jobs, the newest
_MOST_FOLDERS = 100  # of one job
_NAME = "jobs.json"


def note_places(data: Path, job: str, folders: Iterable[Path]) -> None:
    """Remember in the data folder that results of ``job`` lie in ``folders``. What cannot be written is let go."""
    try:
        make_private(data)
        with (data / f"{_NAME}.lock").open("w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)  # two commands at once: neither forgets what the other remembers
            known = _read(data)
            before = known.pop(job, [])
            known[job] = list(dict.fromkeys([*map(str, folders), *before]))[:_MOST_FOLDERS]
            write_private(data / _NAME, json.dumps(dict(list(known.items())[-_KEPT:]), indent=1).encode())
    except OSError as error:
        log.debug("cannot remember where the results of %s lie: %s", job, error)


def places_of(data: Path, job: str) -> list[Path]:
    """The folders with results of ``job``, as far as they are remembered here."""
    return [Path(folder) for folder in _read(data).get(job, [])]


def _read(data: Path) -> dict[str, list[str]]:
    try:
        told = json.loads((data / _NAME).read_text(encoding="utf-8"))
        return {str(job): [str(folder) for folder in folders] for job, folders in told.items()}
    except (OSError, ValueError, AttributeError, TypeError):
        return {}
