"""Engines of other packages for tests: put into a folder as pip would leave them there."""

from __future__ import annotations

from pathlib import Path

HEAD = "from worker.engines.base import DeviceKind, Engine, ModelOffer, TaskType\n"


def install_engines(folder: Path, package: str, *entries: str, code: str) -> None:
    """A package of one module, ``code``, whose ``entries`` ("name = module:attribute") name engines.

    It is found where ``folder`` is in ``sys.path``. The names of ``worker.engines.base`` are there already.
    """
    info = folder / f"{package}-1.0.dist-info"
    info.mkdir(parents=True)
    (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {package}\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text("[lcq.engines]\n" + "\n".join(entries) + "\n")
    (folder / f"{package}.py").write_text(HEAD + code)
