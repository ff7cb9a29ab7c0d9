"""The spool: outcomes that no scheduler has settled yet, one file each, so that they outlive this process."""

from __future__ import annotations

import logging
import os
from collections.abc import Iterator
from pathlib import Path

from pydantic import BaseModel, ConfigDict, ValidationError

from lcq.models import explain_invalid
from lcq.storage.addresses import is_elsewhere
from lcq.wire import Outcome

_log = logging.getLogger(__name__)
_SUFFIX = ".json"
_BAD = ".bad"
_MOST_BAD = 20  # files set aside that are kept for somebody to look at
ATTEMPTS = Path("bytes", "attempts")  # in an agent's home: a folder for each attempt that has files elsewhere
STAGED_SUFFIX = ".lcq-tmp"  # as in lcq.images, which is not imported here: it would load Pillow


class Unsettled(BaseModel):
    """An outcome of boot ``boot_id`` without a verdict.

    ``staged``: where the result's file waits to be renamed once it is settled; "" if there is none, or if it
    has its final name already.
    """

    model_config = ConfigDict(frozen=True, defer_build=True)
    boot_id: str
    outcome: Outcome
    staged: str = ""

    @property
    def key(self) -> tuple[str, int]:
        return self.outcome.task_id, self.outcome.attempt

    def trouble(self, home: Path) -> str:
        """Why this can be no record of ours, or "". What it says is renamed and removed: so it is not simply believed.

        A staged file has the ending that only this attempt's has, and lies beside its result; or, where that is carried
        elsewhere, in the attempt's folder in ``home``.
        """
        if not self.staged:
            return ""
        if self.outcome.result is None:
            return f"it names {self.staged} as staged, but has no result"
        staged, final = Path(self.staged), Path(self.outcome.result.path)
        ending = f".{self.outcome.task_id}-{self.outcome.attempt}{STAGED_SUFFIX}"
        if is_elsewhere(self.outcome.result.path):
            own = home / ATTEMPTS / f"{self.outcome.task_id}-{self.outcome.attempt}"
            if staged.parent.parent != own or not staged.name.endswith(ending):
                return f"it names {self.staged} as staged, which is no file *{ending} in a folder of {own}"
        elif staged.parent != final.parent or not staged.name.endswith(ending):
            return f"it names {self.staged} as staged, which is no file *{ending} beside {final}"
        return ""


def sync_folder(folder: Path) -> None:
    """See the names in ``folder`` onto the disk."""
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


class Spool:
    """A folder of unsettled outcomes. Its methods block for a disk's time."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def keep(self, entry: Unsettled) -> None:
        """Write ``entry`` so that it survives a power cut; once it returns, ``load()`` will find it.

        Raises:
            OSError: the disk is full or failing; nothing half-written is left.
        """
        self._folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        path = self._path(entry)
        fresh = path.with_suffix(".tmp")
        try:
            with fresh.open("wb") as file:
                file.write(entry.model_dump_json().encode())
                file.flush()
                os.fsync(file.fileno())
            fresh.replace(path)
        except BaseException:
            fresh.unlink(missing_ok=True)
            raise
        sync_folder(self._folder)

    def drop(self, entry: Unsettled) -> None:
        """Forget ``entry``, if it was kept."""
        self._path(entry).unlink(missing_ok=True)

    def load(self) -> tuple[Unsettled, ...]:
        """All that was kept, oldest task first. A file that cannot be ours is set aside as ``*.bad``."""
        return tuple(self._load())

    def _load(self) -> Iterator[Unsettled]:
        if not self._folder.is_dir():
            return
        for left_over in self._folder.glob("*.tmp"):
            left_over.unlink(missing_ok=True)
        for path in sorted(self._folder.glob(f"*{_SUFFIX}")):
            try:
                entry = Unsettled.model_validate_json(path.read_bytes(), extra="ignore")
                trouble = entry.trouble(self._folder.parent)
                if not trouble and path != self._path(entry):
                    trouble = f"it should be named {self._path(entry).name}"
                if not trouble:
                    yield entry
                    continue
            except ValidationError as error:
                trouble = explain_invalid(error)
            except OSError as error:  # it stays: what a disk will not give now it may give at the next start
                _log.error("%s cannot be read and was passed over: %s", path, error.strerror)
                continue
            path.replace(path.with_suffix(_BAD))
            _log.error("%s is no outcome of ours and was set aside: %s", path, trouble)
        self._forget_bad()

    def _forget_bad(self) -> None:
        bad = sorted(self._folder.glob(f"*{_BAD}"), key=lambda path: (path.stat().st_mtime, path.name))
        for path in bad[:-_MOST_BAD]:
            path.unlink(missing_ok=True)
            _log.warning("%s was removed: of files that were set aside the newest %d are kept", path, _MOST_BAD)

    def _path(self, entry: Unsettled) -> Path:
        return self._folder / f"{entry.outcome.task_id}-{entry.outcome.attempt}{_SUFFIX}"
