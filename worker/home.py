"""The agent's home: the folder of one node's name, which only one agent at a time may use."""

from __future__ import annotations

import contextlib
import fcntl
import itertools
import os
import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

from lcq.embedded_watch import write_private
from lcq.errors import InvalidConfig, InvalidInput, LcqError, NodeNameTaken
from lcq.hardware import host_name
from lcq.ids import is_id, new_id
from lcq.private_folder import make_private
from worker.processes import RunnerRecords
from worker.spool import Spool

_NAME = re.compile(r"^[A-Za-z0-9][A-Za-z0-9._-]{0,63}$")
_TAKEN = "taken"  # the file that says so
_MOST_AGENTS = 1000  # of one user on one host


class NamedByKey(NodeNameTaken):
    """A key has come for the node ``node_id``; the agent that nobody has named is to be that one."""

    def __init__(self, node_id: str) -> None:
        self.node_id = node_id
        LcqError.__init__(self, f"a key has come for node {node_id}, which no agent here is yet")


@dataclass(frozen=True)
class Home:
    """A name that is ours, and what is kept under it."""

    node_id: str
    folder: Path

    @property
    def identity(self) -> str:
        """What tells this home from any other one of the same name; it stays as long as the folder does."""
        file = self.folder / "identity"
        with contextlib.suppress(OSError, UnicodeDecodeError):
            known = file.read_text(encoding="ascii").strip()
            if is_id(known):
                return known
        made = new_id()
        with contextlib.suppress(OSError):  # a full disk: then this start counts as another agent's
            write_private(file, made.encode())
        return made

    def leave_name(self) -> None:
        """This name is another agent's: by default, the agents of this data folder take others from now on."""
        write_private(self.folder / _TAKEN, b"an agent with another data folder has this name\n")

    @property
    def spool(self) -> Spool:
        return Spool(self.folder / "spool")

    @property
    def records(self) -> RunnerRecords:
        return RunnerRecords(self.folder / "runners.json")


@contextlib.contextmanager
def agent_home(data_path: Path, name: str | None, *, keyed: Iterable[str] = ()) -> Iterator[Home]:
    """Take the name ``name`` on this host for as long as the block lasts.

    None: the first free one of ``keyed``, for which there are keys; else the host's name, with -2, -3 … where agents of
    this user run already, or where it was left to another.

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
        for candidate in (name,) if name is not None else (*keyed, *_default_names(agents)):
            try:
                folder = agents / candidate
                make_private(folder)
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


def default_name(data_path: Path) -> str:
    """The name of the first agent on this data folder to which nobody gave one."""
    return next(_default_names(data_path / "agents"))


def _default_names(agents: Path) -> Iterator[str]:
    numbered = (f"{host_name()}-{number}" for number in itertools.islice(itertools.count(2), _MOST_AGENTS))
    yield from (one for one in itertools.chain((host_name(),), numbered) if not (agents / one / _TAKEN).exists())


def _locked(lock: int) -> bool:
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True
