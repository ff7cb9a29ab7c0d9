"""The agent's home: the folder of one node's name, which only one agent at a time may use."""

from __future__ import annotations

import contextlib
import fcntl
import itertools
import os
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from lcq.errors import InvalidConfig, InvalidInput
from lcq.hardware import host_name
from worker.processes import RunnerRecords
from worker.spool import Spool

_NAME = re.compile(r"^[A-Za-z0-9][A-Za-z0-9._-]{0,63}$")
_MOST_AGENTS = 1000  # of one user on one host


@dataclass(frozen=True)
class Home:
    """A name that is ours, and what is kept under it."""

    node_id: str
    folder: Path

    @property
    def spool(self) -> Spool:
        return Spool(self.folder / "spool")

    @property
    def records(self) -> RunnerRecords:
        return RunnerRecords(self.folder / "runners.json")


@contextlib.contextmanager
def agent_home(data_path: Path, name: str | None) -> Iterator[Home]:
    """Take the name ``name`` on this host for as long as the block lasts.

    None: the host's name, with -2, -3 … where agents of this user run already.

    Raises:
        InvalidInput: that is no name, or an agent of this name runs here.
        InvalidConfig: the data folder cannot be used.
    """
    if name is not None and not _NAME.match(name):
        raise InvalidInput(
            f"{name!r} cannot be the name of a node",
            hint="letters, digits, '.', '_' and '-', at most 64, beginning with a letter or digit",
        )
    agents = data_path / "agents"
    with contextlib.ExitStack() as stack:
        for candidate in (name,) if name is not None else _default_names():
            try:
                folder = agents / candidate
                folder.mkdir(mode=0o700, parents=True, exist_ok=True)
                lock = os.open(folder / "lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
            except OSError as error:
                raise InvalidConfig(
                    f"cannot use the data folder {data_path}: {error.strerror}", hint="set data_dir, or --data-dir"
                ) from error
            stack.callback(os.close, lock)  # which also lets go of the lock, as does our death
            if _locked(lock):
                yield Home(candidate, folder)
                return
    raise InvalidInput(
        f"an agent named {name or host_name()!r} already runs on this host, in {agents}",
        hint="give this one another --name, or another --data-dir",
    )


def _default_names() -> Iterator[str]:
    yield host_name()
    yield from (f"{host_name()}-{number}" for number in itertools.islice(itertools.count(2), _MOST_AGENTS))


def _locked(lock: int) -> bool:
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True
