"""Whether an agent claims tasks: a small file beside its spool, for whoever looks after its process."""

from __future__ import annotations

import contextlib
import json
import logging
import os
import time
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path

from lcq.embedded_watch import started_at

_log = logging.getLogger(__name__)
_FILE = "health.json"


@dataclass(frozen=True)
class Health:
    """What an agent last said of itself. ``not_claiming``: why it takes no task; "" if it does, or would.

    ``resting``: devices that take nothing new for a while, and why, also where others of it claim. ``warning``: what
    else somebody should see to.
    """

    pid: int
    started: str | None
    not_claiming: str
    since: float  # Unix time of the last change
    resting: Mapping[str, str] = field(default_factory=dict)
    warning: str = ""

    @property
    def is_alive(self) -> bool:
        return self.started is not None and started_at(self.pid) == self.started


class HealthFile:
    """Tells ``Health`` in the folder of a node: on every change, and for ever out of date once we are dead."""

    def __init__(self, folder: Path) -> None:
        self._path = folder / _FILE
        self._told: tuple[str, Mapping[str, str], str] | None = None

    def tell(self, not_claiming: str, resting: Mapping[str, str], warning: str) -> None:
        """Say why no task is claimed; "" that they are. ``resting``: on which devices none is, and why."""
        said = (not_claiming, resting, warning)
        if said == self._told:
            return
        self._told = said
        health = Health(os.getpid(), started_at(os.getpid()), not_claiming, time.time(), resting, warning)
        staged = self._path.with_suffix(".tmp")
        try:
            staged.write_text(json.dumps(asdict(health)), encoding="utf-8")
            staged.replace(self._path)
        except OSError as error:  # a full disk, about which more important ones complain
            with contextlib.suppress(OSError):
                staged.unlink(missing_ok=True)
            _log.debug("%s cannot be written: %s", self._path, error.strerror)


def read_health(folder: Path) -> Health | None:
    """What the agent of this folder last said; None if nothing that can be read."""
    try:
        told = json.loads((folder / _FILE).read_text(encoding="utf-8"))
        return Health(**{one.name: told[one.name] for one in fields(Health) if one.name in told})
    except (OSError, ValueError, TypeError):
        return None
