"""Pictures in a terminal: two pixels a character, the upper one its colour, the lower one its background."""

from __future__ import annotations

from pathlib import Path

from PIL import Image, ImageOps
from rich.color import Color
from rich.console import Console, ConsoleOptions, RenderResult
from rich.measure import Measurement
from rich.segment import Segment
from rich.style import Style

_UPPER_HALF = "▀"
_BEHIND = (128, 128, 128)  # what shows through transparent pixels


class Picture:
    """An image file as a rich renderable, at most ``width`` characters by ``height`` lines.

    Raises:
        OSError: the file is not an image that can be read.
    """

    def __init__(self, path: Path, *, width: int, height: int) -> None:
        with Image.open(path) as image:
            image.draft("RGB", (width * 4, height * 8))  # a JPEG need not be decoded whole for this
            small = ImageOps.exif_transpose(image).convert("RGBA")
        small.thumbnail((width, height * 2), Image.Resampling.LANCZOS)
        ground = Image.new("RGBA", small.size, (*_BEHIND, 255))
        self._pixels = Image.alpha_composite(ground, small).convert("RGB")

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        width, height = self._pixels.size
        data = self._pixels.tobytes()

        def colour(x: int, y: int) -> Color:
            start = 3 * (y * width + x)
            return Color.from_rgb(*data[start : start + 3])

        for y in range(0, height, 2):
            for x in range(width):
                below = colour(x, y + 1) if y + 1 < height else None
                yield Segment(_UPPER_HALF, Style(color=colour(x, y), bgcolor=below))
            yield Segment.line()

    def __rich_measure__(self, console: Console, options: ConsoleOptions) -> Measurement:
        return Measurement(self._pixels.width, self._pixels.width)
