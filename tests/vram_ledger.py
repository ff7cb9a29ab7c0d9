"""What processes hold of a GPU that is not there: a folder with a note each, which counts while its writer lives."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from lcq.embedded_watch import started_at
from tests.engines import install_engines

_ENGINE = Path(__file__).with_name("ledger_engine.py")


class VramLedger:
    """The folder, and the engine that writes into it."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder / "vram"
        self.folder.mkdir()
        install_engines(folder / "packages", "ledger_engine", "ledger = ledger_engine:LedgerEngine", code="")
        (folder / "packages" / "ledger_engine.py").write_text(_ENGINE.read_text(encoding="utf-8"), encoding="utf-8")
        self.environment: Mapping[str, str] = {"PYTHONPATH": str(folder / "packages"), "LEDGER": str(self.folder)}

    def writers(self) -> set[tuple[int, str]]:
        """(pid, started) of everybody who ever took something."""
        notes = (path.name.partition("-") for path in self.folder.iterdir() if not path.name.endswith(".new"))
        return {(int(pid), started) for pid, _, started in notes}

    def holders(self) -> set[int]:
        """Those of them that still hold it, for they live."""
        return {pid for pid, started in self.writers() if started_at(pid) == started}
