"""The picture in docs/models.md: a sample photo, what OpenCV makes of it, and what LaMa's network, untrained, does.

    python -m benchmarks.picture [FILE]

Both results are made by ``run_task``, as a runner makes them. The network has random weights: what it fills in is no
picture, and the caption says so.
"""

from __future__ import annotations

import argparse
import tempfile
from pathlib import Path

from PIL import Image, ImageDraw, ImageFont
from safetensors.torch import save_file

from lcq.config import LimitsConfig, ModelsConfig
from lcq.models import Task, TaskType
from worker.engines.lama import LamaEngine
from worker.engines.lama_net import random_tensors
from worker.engines.opencv import OpenCvEngine
from worker.engines.shelf import Shelf
from worker.engines.work import run_task
from worker.settings import EngineSettings
from worker.weights import WeightStore

SAMPLES = Path(__file__).parents[1] / "sample-config"
PHOTO, MASK = SAMPLES / "photos" / "old-portrait.jpg", SAMPLES / "masks" / "old-portrait.png"
HEIGHT, CAPTION = 420, 28


def shelf_in(folder: Path) -> Shelf:
    """Both engines, LaMa with random weights, kept in ``folder``."""
    models = ModelsConfig(allow=("any",))
    save_file(random_tensors(), folder / "random.safetensors")
    WeightStore(folder / "models", models).add(folder / "random.safetensors", "lama")
    settings = EngineSettings(models_path=folder / "models", models=models)
    return Shelf((OpenCvEngine(settings), LamaEngine(settings)), settings)


def cleaned(model: str, shelf: Shelf, folder: Path) -> Image.Image:
    task = Task(
        task_type=TaskType.INPAINT,
        image_path=str(PHOTO),
        mask_path=str(MASK),
        output_path=str(folder / f"{model}.png"),
        config={"model": model},
    )
    finished = run_task(task, attempt=1, shelf=shelf, limits=LimitsConfig(), progress=lambda fraction, stage: None)
    return Image.open(finished.staged).convert("RGB")


def marked() -> Image.Image:
    """The photo with its mask in red."""
    photo, mask = Image.open(PHOTO).convert("RGB"), Image.open(MASK).convert("L")
    photo.paste((220, 30, 30), mask=mask.point(lambda grey: 170 if grey > 127 else 0))
    return photo


def main() -> None:
    arguments = argparse.ArgumentParser(description=__doc__)
    arguments.add_argument("file", nargs="?", type=Path, default=Path("docs/engines.png"))
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        shelf = shelf_in(folder)
        panels = {
            "the photo, its mask in red": marked(),
            "cv2-telea": cleaned("cv2-telea", shelf, folder),
            "lama, RANDOM weights (untrained)": cleaned("lama", shelf, folder),
        }
    widths = [round(panel.width * HEIGHT / panel.height) for panel in panels.values()]
    sheet = Image.new("RGB", (sum(widths), HEIGHT + CAPTION), "white")
    draw, font, left = ImageDraw.Draw(sheet), ImageFont.load_default(16), 0
    for (caption, panel), width in zip(panels.items(), widths, strict=True):
        sheet.paste(panel.resize((width, HEIGHT), Image.Resampling.LANCZOS), (left, CAPTION))
        draw.text((left + 8, 4), caption, "black", font)
        left += width
    sheet.quantize(128).save(arguments.parse_args().file, optimize=True)


if __name__ == "__main__":
    main()
