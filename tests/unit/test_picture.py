"""Half-block pictures."""

from __future__ import annotations

import io
from pathlib import Path

import pytest
from PIL import Image
from rich.console import Console

from lcq.cli.picture import Picture


def drawn(path: Path, *, width: int = 10, height: int = 5, colours: str = "truecolor") -> list[str]:
    console = Console(file=io.StringIO(), force_terminal=True, color_system=colours, width=80)  # type: ignore[arg-type]
    console.print(Picture(path, width=width, height=height))
    file = console.file
    assert isinstance(file, io.StringIO)
    return file.getvalue().rstrip("\n").split("\n")


def test_each_character_shows_two_pixels_in_their_colours(tmp_path: Path) -> None:
    image = Image.new("RGB", (1, 2), (255, 0, 0))
    image.putpixel((0, 1), (0, 0, 255))
    image.save(tmp_path / "x.png")
    assert drawn(tmp_path / "x.png") == ["\x1b[38;2;255;0;0;48;2;0;0;255m▀\x1b[0m"]


def test_it_fits_its_space_and_keeps_its_proportions(tmp_path: Path) -> None:
    Image.new("L", (400, 100)).save(tmp_path / "x.png")
    lines = drawn(tmp_path / "x.png", width=40, height=40)
    assert len(lines) == 5
    assert all(line.count("▀") == 40 for line in lines)


def test_an_odd_last_row_has_no_ground(tmp_path: Path) -> None:
    Image.new("RGB", (2, 3)).save(tmp_path / "x.png")
    upper, last = drawn(tmp_path / "x.png")
    assert "48;2" in upper
    assert "48;2" not in last


@pytest.mark.parametrize("mode", ["1", "L", "LA", "P", "RGBA", "I;16", "CMYK"])
def test_any_mode_will_do(tmp_path: Path, mode: str) -> None:
    Image.new(mode, (4, 4)).save(tmp_path / "x.tif")
    assert drawn(tmp_path / "x.tif")


def test_a_terminal_of_few_colours_gets_few_colours(tmp_path: Path) -> None:
    Image.new("RGB", (1, 2), (255, 0, 0)).save(tmp_path / "x.png")
    assert "38;2" not in drawn(tmp_path / "x.png", colours="256")[0]


def test_a_file_that_is_no_image_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "x.png").write_text("no image")
    with pytest.raises(OSError, match="cannot identify"):
        Picture(tmp_path / "x.png", width=1, height=1)
