"""What a picture costs by its size: the figures behind the shipped defaults of lcq/costs.py.

    python benchmarks/costs.py [--models cv2-telea cv2-ns] [--megapixels 0.25 1 4 12 24] [--repeats 5]
    python -m benchmarks.costs --models lama --random-weights --megapixels 0.25 1 4 [--strategy original]

Makes photos of noise and smooth parts with a mask of 2 % in three holes, runs each through everything that an attempt
is (decode, inpaint, check, encode, write and sync), and prints for each the megapixels that costs are told by, the
seconds, the seconds of one processor (which say on a busy machine what the others would on an idle one), and the most
memory that the process held. Random weights of big-lama's size take the time and the memory of trained ones.
"""

from __future__ import annotations

import argparse
import os
import statistics
import tempfile
import time
from pathlib import Path

import cv2
import numpy as np

from lcq.config import LimitsConfig, ModelsConfig
from lcq.costs import processed_megapixels
from lcq.models import Device, DeviceKind, Task, TaskType
from worker.engines.registry import make_engines
from worker.engines.shelf import Shelf
from worker.engines.work import run_task
from worker.memory import forget_peak, peak_mib
from worker.settings import EngineSettings
from worker.weights import WeightStore


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


def install_random_lama(folder: Path) -> None:
    """Weights of big-lama's size that mean nothing, as if they had been added."""
    import torch

    from benchmarks.lama import random_tensors

    torch.save({"state_dict": random_tensors()}, folder / "random.ckpt")
    WeightStore(folder, ModelsConfig(allow=("any",))).add(folder / "random.ckpt", name="lama")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--models", nargs="+", default=["cv2-telea", "cv2-ns"])
    parser.add_argument("--megapixels", nargs="+", type=float, default=[0.25, 1, 4, 12, 24])
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--strategy", choices=["auto", "original", "crop", "resize"], default="auto")
    parser.add_argument("--random-weights", action="store_true", help="of LaMa")
    asked = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        if asked.random_weights:
            install_random_lama(folder)
        settings = EngineSettings(device=Device(id="cpu", kind=DeviceKind.CPU), threads=1, models_path=folder)
        shelf = Shelf(make_engines(settings)[0], settings)
        print("model        megapixels     shown  median s  median CPU s   most s  peak MiB")
        for model in asked.models:
            for megapixels in asked.megapixels:
                image, mask = make_picture(folder, megapixels)
                config = (
                    {"model": model} if model.startswith("cv2-") else {"model": model, "hd_strategy": asked.strategy}
                )
                task = Task(
                    task_type=TaskType.INPAINT,
                    image_path=image,
                    mask_path=mask,
                    output_path=str(folder / "out.jpg"),
                    config=config,
                )
                told = [_run(shelf, task) for _ in range(asked.repeats)]
                took, used, held = ([one[part] for one in told] for part in range(3))
                height, width = cv2.imread(image).shape[:2]
                print(
                    f"{model:12} {megapixels:10} {processed_megapixels(task, (width, height)):9.2f} "
                    f"{statistics.median(took):9.3f} {statistics.median(used):13.3f} {max(took):8.3f} {max(held):9.0f}",
                    flush=True,
                )


def _run(shelf: Shelf, task: Task) -> tuple[float, float, int]:
    """Seconds, seconds of a processor, and the peak in MiB."""
    forget_peak()
    began = sum(os.times()[:2])
    then = time.monotonic()
    done = run_task(task, attempt=1, shelf=shelf, limits=LimitsConfig(), progress=lambda fraction, stage: None)
    took, used = time.monotonic() - then, sum(os.times()[:2]) - began
    Path(done.staged).unlink()
    return took, used, peak_mib()


if __name__ == "__main__":
    main()
