"""What a picture costs by its size: the figures behind the shipped defaults of lcq/costs.py.

    python benchmarks/costs.py [--models cv2-telea cv2-ns] [--megapixels 0.25 1 4 12 24] [--repeats 5]

Makes photos of noise and smooth parts with a mask of 2 % in three holes, runs each through everything that an attempt
is (decode, inpaint, check, encode, write and sync), and prints seconds and the process's peak memory so far for each.
"""

from __future__ import annotations

import argparse
import resource
import statistics
import tempfile
from pathlib import Path

import cv2
import numpy as np

from lcq.config import LimitsConfig
from lcq.models import Device, DeviceKind, Task, TaskType
from worker.engines.registry import make_engines
from worker.engines.shelf import Shelf
from worker.engines.work import run_task
from worker.settings import EngineSettings


def make_picture(folder: Path, megapixels: float) -> tuple[str, str]:
    """A JPEG of 3:2 and a mask of 2 % in three holes."""
    height = int((megapixels * 1e6 / 1.5) ** 0.5)
    width = int(height * 1.5)
    dice = np.random.default_rng(7)
    coarse = dice.integers(0, 255, (height // 16 + 1, width // 16 + 1, 3), np.uint8)
    pixels = cv2.resize(coarse, (width, height), interpolation=cv2.INTER_CUBIC)
    pixels = cv2.add(pixels, dice.integers(0, 12, pixels.shape, np.uint8))
    mask = np.zeros((height, width), np.uint8)
    side = int((height * width * 0.02 / 3) ** 0.5)
    for part in (1, 2, 3):
        top, left = height * part // 5, width * part // 5
        mask[top : top + side, left : left + side] = 255
    image, holes = folder / f"{megapixels}.jpg", folder / f"{megapixels}_mask.png"
    cv2.imwrite(str(image), pixels)
    cv2.imwrite(str(holes), mask)
    return str(image), str(holes)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--models", nargs="+", default=["cv2-telea", "cv2-ns"])
    parser.add_argument("--megapixels", nargs="+", type=float, default=[0.25, 1, 4, 12, 24])
    parser.add_argument("--repeats", type=int, default=5)
    asked = parser.parse_args()
    settings = EngineSettings(device=Device(id="cpu", kind=DeviceKind.CPU), threads=1)
    shelf = Shelf(make_engines(settings)[0], settings)
    print("model        megapixels  median s   most s  peak MiB")
    with tempfile.TemporaryDirectory() as name:
        for model in asked.models:
            for megapixels in asked.megapixels:
                image, mask = make_picture(Path(name), megapixels)
                took = [_run(shelf, model, image, mask, Path(name)) for _ in range(asked.repeats)]
                peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
                print(f"{model:12} {megapixels:10} {statistics.median(took):9.3f} {max(took):8.3f} {peak:9.0f}")


def _run(shelf: Shelf, model: str, image: str, mask: str, folder: Path) -> float:
    task = Task(
        task_type=TaskType.INPAINT,
        image_path=image,
        mask_path=mask,
        output_path=str(folder / "out.jpg"),
        config={"model": model},
    )
    done = run_task(task, attempt=1, shelf=shelf, limits=LimitsConfig(), progress=lambda fraction, stage: None)
    Path(done.staged).unlink()
    return done.result.seconds


if __name__ == "__main__":
    main()
