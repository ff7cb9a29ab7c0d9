"""What an operator has chosen and finds again at the next start: a small file beside the cluster's others."""

from __future__ import annotations

import json
import logging
import os
from pathlib import Path
from typing import Any

from lcq.private_folder import make_private

_log = logging.getLogger(__name__)
_MOST_BYTES = 256 * 1024


class Remembered:
    """Choices by name, in ``path``. A file that cannot be read or written costs the memory, and nothing else."""

    def __init__(self, path: Path) -> None:
        self._path = path

    def get(self, name: str) -> Any:
        """What was put under ``name`` last; None if nothing was."""
        return self._read().get(name)

    def put(self, name: str, value: Any) -> None:
        """Keep ``value``, of what JSON knows, under ``name``."""
        told = self._read() | {name: value}
        beside = self._path.with_name(f"{self._path.name}.{os.getpid()}")
        try:
            make_private(self._path.parent)
            beside.write_text(json.dumps(told, ensure_ascii=False, indent=1), encoding="utf-8")
            beside.replace(self._path)
        except OSError as error:
            _log.warning("%s cannot be written: %s", self._path, error.strerror)

    def _read(self) -> dict[str, Any]:
        try:
            if self._path.stat().st_size > _MOST_BYTES:
                return {}
            told = json.loads(self._path.read_text(encoding="utf-8"))
        except (OSError, ValueError):
            return {}
        return told if isinstance(told, dict) else {}
