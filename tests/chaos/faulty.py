"""A node that goes wrong when a test says so: an engine that works, until its node's fault file is there."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image

from lcq.models import ErrorClass, Task, TaskType
from tests.cluster import Cluster
from tests.conftest import wait_until_sync
from tests.engines import install_engines

_ENGINE = """
import os
import sys
import time
from pathlib import Path
from worker.engines.base import EngineError, ErrorClass

class Moody(Engine):
    name = "moody"
    def capabilities(self):
        return {"moody": ModelOffer(kinds=(DeviceKind.CPU,))}
    def run(self, work):
        fault = Path(os.environ["FAULT"])
        if fault.exists():
            error_class, _, code = fault.read_text().partition(" ")
            print(f"moody: {code} at {work.picture.pixels.shape} \\x1b[31mred\\x1b[0m", file=sys.stderr, flush=True)
            if code == "die":
                os._exit(11)
            raise EngineError(code, f"cannot go on, tried to allocate {work.config.get('mib', 1)} MiB",
                              error_class=ErrorClass(error_class))
        time.sleep(float(work.config.get("seconds", 0.02)))
        pixels = work.picture.pixels.copy()
        pixels[work.picture.mask] ^= 1
        return pixels
"""


@dataclass
class MoodyFleet:
    """Agents whose engine can be made to fail, each by itself."""

    cluster: Cluster
    folder: Path

    def __post_init__(self) -> None:
        install_engines(self.folder / "packages", "moody", "moody = moody:Moody", code=_ENGINE)
        pixels = np.random.default_rng(7).integers(0, 256, (48, 64, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(self.folder / "photo.png")
        mask = np.zeros((48, 64), np.uint8)
        mask[10:20, 10:30] = 255
        Image.fromarray(mask).save(self.folder / "mask.png")
        self._names = 0

    def start(self, *names: str, slots: int = 2) -> None:
        """Start these agents side by side; returns when all are online."""
        before = self.cluster.environment
        for name in names:
            packages = str(self.folder / "packages")
            self.cluster.environment = {
                **before,
                "PYTHONPATH": packages,
                "FAULT": str(self._fault(name)),
                "LCQ_AGENT__RUNNER__ENVIRONMENT": '["FAULT"]',
            }
            self.cluster.start_agent(name, slots=slots, wait=False)
        self.cluster.environment = before
        with self.cluster.client() as client:
            wait_until_sync(
                lambda: {node.id for node in client.nodes() if "moody" in node.capability.models} >= set(names),
                timeout=90,
                what=f"{names} online with the model",
            )

    def break_(self, name: str, error_class: ErrorClass, code: str) -> None:
        """From now on every picture fails so on ``name``, the golden one too. The code ``die`` ends the runner."""
        self._fault(name).write_text(f"{error_class} {code}")

    def mend(self, name: str) -> None:
        self._fault(name).unlink()

    def task(self, **fields: object) -> Task:
        """A task for the moody engine; keyword ``config`` is added to its own."""
        self._names += 1
        config = {"model": "moody", **fields.pop("config", {})}  # type: ignore[dict-item]
        return Task.model_validate(
            {
                "task_type": TaskType.INPAINT,
                "image_path": str(self.folder / "photo.png"),
                "mask_path": str(self.folder / "mask.png"),
                "output_path": str(self.folder / f"out-{self._names}.png"),
                "config": config,
                **fields,
            }
        )

    def _fault(self, name: str) -> Path:
        return self.folder / f"fault-of-{name}"
