"""What a small hole in a large photo costs: by the mask, not by the picture. CPU seconds of one thread, in one run.

    python -m benchmarks.crop [--rounds N] [--original]

A 4000x3000 photo with a hole of 128x128 goes through the LaMa engine (big-lama's size, random weights) with the
strategy ``auto``, and so does its crop of 384x384 alone; then a line of ten letters, with ``auto`` and with the
parents' ``crop``. ``--original``: the whole photo at once, too, which takes minutes and 4 GB.
"""

from __future__ import annotations

import argparse
import json
import statistics
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from safetensors.torch import save_file

from lcq.config import ModelsConfig
from lcq.models import TaskType
from worker.engines.base import EngineSettings, Picture, Work
from worker.engines.lama import LamaEngine
from worker.engines.lama_net import random_tensors
from worker.weights import WeightStore

PHOTO, CROP, HOLE = (3000, 4000), 384, 128
TOP, LEFT = 1400, 1900
LETTERS, LETTER, APART = 10, (60, 36), 54  # height and width; from one to the next

Pixels = NDArray[Any]


def engine_in(folder: Path) -> LamaEngine:
    models = ModelsConfig(allow=("any",))
    save_file(random_tensors(), folder / "random.safetensors")
    WeightStore(folder / "models", models).add(folder / "random.safetensors", "lama")
    engine = LamaEngine(EngineSettings(models_path=folder / "models", models=models, threads=1))
    engine.load("lama", {})
    return engine


def cpu_s(engine: LamaEngine, pixels: Pixels, mask: NDArray[np.bool_], **config: Any) -> float:
    work = Work(TaskType.INPAINT, "lama", Picture(pixels, mask), config, lambda fraction, stage: None)
    begun = time.process_time()
    engine.run(work)
    return time.process_time() - begun


def main() -> None:
    arguments = argparse.ArgumentParser(description=__doc__)
    arguments.add_argument("--rounds", type=int, default=3)
    arguments.add_argument("--original", action="store_true")
    chosen = arguments.parse_args()
    photo = np.random.default_rng(1).integers(0, 256, (*PHOTO, 3), np.uint8)
    hole, letters = np.zeros(PHOTO, bool), np.zeros(PHOTO, bool)
    hole[TOP : TOP + HOLE, LEFT : LEFT + HOLE] = True
    for left in range(LEFT, LEFT + LETTERS * APART, APART):
        letters[TOP : TOP + LETTER[0], left : left + LETTER[1]] = True
    margin = (CROP - HOLE) // 2
    part = slice(TOP - margin, TOP + HOLE + margin), slice(LEFT - margin, LEFT + HOLE + margin)
    runs: dict[str, list[float]] = {"crop_alone": [], "photo_auto": [], "letters_auto": [], "letters_parents": []}
    with tempfile.TemporaryDirectory() as name:
        engine = engine_in(Path(name))
        cpu_s(engine, photo[part], hole[part])  # torch's first run is slower
        for _ in range(chosen.rounds):
            runs["crop_alone"].append(cpu_s(engine, photo[part], hole[part]))
            runs["photo_auto"].append(cpu_s(engine, photo, hole))
            runs["letters_auto"].append(cpu_s(engine, photo, letters))
            runs["letters_parents"].append(cpu_s(engine, photo, letters, hd_strategy="Crop"))
        if chosen.original:
            runs["photo_original"] = [cpu_s(engine, photo, hole, hd_strategy="Original")]
    seconds = {name: statistics.median(times) for name, times in runs.items()}
    figures = {f"{name}_cpu_s": round(value, 3) for name, value in seconds.items()}
    figures["photo_over_its_crop"] = round(seconds["photo_auto"] / seconds["crop_alone"], 3)
    figures["letters_auto_over_parents"] = round(seconds["letters_auto"] / seconds["letters_parents"], 3)
    if chosen.original:
        figures["photo_auto_over_original"] = round(seconds["photo_auto"] / seconds["photo_original"], 4)
    print(json.dumps(figures, indent=2))


if __name__ == "__main__":
    main()
