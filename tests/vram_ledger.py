"""What processes hold of a GPU that is not there: a folder with a note each, which counts while its writer lives."""

from __future__ import annotations

import shutil
from collections.abc import Mapping
from pathlib import Path

from lcq.embedded_watch import started_at
from tests import ledger_engine
from tests.engines import install_engines


class VramLedger:
    """The folder, and the engine that writes into it."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder / "vram"
        self.folder.mkdir()
        install_engines(
            folder / "packages", "ledger", f"ledger = ledger_engine:{ledger_engine.LedgerEngine.__name__}", code=""
        )
        shutil.copy(ledger_engine.__file__, folder / "packages")
        self.environment: Mapping[str, str] = {
            "PYTHONPATH": str(folder / "packages"),
            "LEDGER": str(self.folder),
            "LCQ_AGENT__RUNNER__ENVIRONMENT": '["LEDGER"]',
        }

    def writers(self) -> set[tuple[int, str]]:
        """(pid, started) of everybody who ever took something."""
        notes = (path.name.partition("-") for path in self.folder.iterdir() if not path.name.endswith(".new"))
        return {(int(pid), started) for pid, _, started in notes}

    def holders(self) -> set[int]:
        """Those of them that still hold it, for they live."""
        return {pid for pid, started in self.writers() if started_at(pid) == started}
