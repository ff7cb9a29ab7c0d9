"""Pictures made small to look at: whatever they are, upright, in eight bits, within limits."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from lcq import thumbnails
from lcq.config import LimitsConfig
from lcq.errors import OutsideRoots
from lcq.images import BadImage, ImageProblem
from lcq.roots import Roots
from lcq.thumbnails import read_thumbnail, thumbnail_of, to_jpeg, to_png


def quarters(width: int = 8, height: int = 4) -> Image.Image:
    """Red, green above; blue, white below."""
    image = Image.new("RGB", (width, height))
    for place, colour in enumerate(((255, 0, 0), (0, 255, 0), (0, 0, 255), (255, 255, 255))):
        left, top = place % 2 * width // 2, place // 2 * height // 2
        image.paste(colour, (left, top, left + width // 2, top + height // 2))
    return image


def saved(folder: Path, image: Image.Image, name: str = "one.png", **how: Any) -> str:
    image.save(folder / name, **how)
    return str(folder / name)


def corners(pixels: np.ndarray) -> list[tuple[int, ...]]:
    return [tuple(pixels[y, x].tolist()) for y in (0, -1) for x in (0, -1)]


def test_a_picture_is_made_as_small_as_asked_for_and_never_larger(tmp_path):
    path = saved(tmp_path, quarters(80, 40))
    small = read_thumbnail(path, longest=8)
    assert small.pixels.shape == (4, 8, 3)
    assert small.size == (80, 40)
    assert corners(small.pixels) == [(255, 0, 0), (0, 255, 0), (0, 0, 255), (255, 255, 255)]
    assert read_thumbnail(path, longest=500).pixels.shape == (40, 80, 3)


@pytest.mark.parametrize("size", [(1, 1), (1, 3000), (3000, 1), (7, 5)])
def test_odd_shapes_keep_at_least_one_pixel_a_side(tmp_path, size):
    small = read_thumbnail(saved(tmp_path, Image.new("RGB", size, (9, 8, 7))), longest=64)
    assert max(small.pixels.shape[:2]) <= 64
    assert min(small.pixels.shape[:2]) >= 1
    assert corners(small.pixels) == [(9, 8, 7)] * 4


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("suffix", ["png", "tif"])
def test_a_picture_stands_as_its_camera_was_held_and_so_does_a_part_of_it(tmp_path, orientation, suffix):
    upright = quarters()
    turns = {2: 0, 3: 3, 4: 1, 5: 5, 6: 2, 7: 6, 8: 4}  # the transpose that undoes each, by Pillow's numbers
    stored = upright.transpose(Image.Transpose(turns[orientation])) if orientation > 1 else upright
    exif = Image.Exif()
    exif[274] = orientation
    path = saved(tmp_path, stored, f"one.{suffix}", exif=exif)
    whole = read_thumbnail(path, longest=8)
    assert (whole.size, whole.pixels.shape) == ((8, 4), (4, 8, 3))
    assert corners(whole.pixels) == [(255, 0, 0), (0, 255, 0), (0, 0, 255), (255, 255, 255)]
    part = read_thumbnail(path, longest=4, box=(0.5, 0.0, 1.0, 0.5))
    assert set(map(tuple, part.pixels.reshape(-1, 3).tolist())) == {(0, 255, 0)}


def test_sixteen_bits_become_eight(tmp_path):
    grey = Image.fromarray(np.full((3, 3), 0x80FF, np.uint16))
    assert corners(read_thumbnail(saved(tmp_path, grey), longest=9).pixels) == [(128, 128, 128)] * 4


@pytest.mark.parametrize(
    ("mode", "colour", "seen"),
    [
        ("1", 1, (255, 255, 255)), ("L", 77, (77, 77, 77)), ("CMYK", (0, 255, 255, 0), (254, 0, 0)),
        ("RGBA", (200, 10, 20, 255), (200, 10, 20)), ("RGBA", (200, 10, 20, 0), (112, 112, 112)),
        ("LA", (40, 255), (40, 40, 40)), ("I", 7, (0, 0, 0)), ("F", 0.5, (0, 0, 0)),
    ],
)  # fmt: skip
def test_every_kind_of_pixel_can_be_looked_at(tmp_path, mode, colour, seen):
    path = saved(tmp_path, Image.new(mode, (4, 4), colour), "one.tif")
    assert np.abs(read_thumbnail(path, longest=9).pixels[1, 1].astype(int) - seen).max() <= 1


def test_a_palette_with_a_hole_in_it_lies_on_grey(tmp_path):
    image = quarters().quantize(4)
    path = saved(tmp_path, image, transparency=image.getpixel((0, 0)))
    assert corners(read_thumbnail(path, longest=8).pixels) == [
        (112, 112, 112), (0, 255, 0), (0, 0, 255), (255, 255, 255)
    ]  # fmt: skip


def test_a_large_photo_is_decoded_at_a_fraction_of_its_size(tmp_path, monkeypatch):
    path = saved(tmp_path, quarters(6000, 4000), "large.jpg", quality=50)
    monkeypatch.setattr(thumbnails, "MOST_DECODED", 750 * 500)  # an eighth a side, and not a pixel more
    small = read_thumbnail(path, longest=320)
    assert (small.size, small.pixels.shape) == ((6000, 4000), (213, 320, 3))
    assert np.abs(np.array(corners(small.pixels)[1]).astype(int) - (0, 255, 0)).max() <= 6


def test_what_would_take_too_much_to_decode_is_refused_in_words(tmp_path, monkeypatch):
    path = saved(tmp_path, quarters(60, 40))
    monkeypatch.setattr(thumbnails, "MOST_DECODED", 1000)
    with pytest.raises(BadImage, match=r"60 x 40 pixels are too many to show, at most 1,000") as refused:
        read_thumbnail(path, longest=8)
    assert refused.value.problem is ImageProblem.IMAGE_TOO_LARGE
    with pytest.raises(BadImage, match="the limit is 99 pixels"):
        read_thumbnail(path, longest=8, limits=LimitsConfig(image_pixels=99))


@pytest.mark.parametrize(
    ("name", "content", "problem"),
    [
        ("gone.png", None, ImageProblem.IMAGE_MISSING), ("empty.png", b"", ImageProblem.IMAGE_EMPTY),
        ("text.png", b"no picture at all", ImageProblem.IMAGE_UNREADABLE),
        ("vector.png", b"%!PS-Adobe-3.0", ImageProblem.IMAGE_UNSUPPORTED),
    ],
)  # fmt: skip
def test_what_is_no_picture_is_refused_in_words(tmp_path, name, content, problem):
    if content is not None:
        (tmp_path / name).write_bytes(content)
    with pytest.raises(BadImage, match=name) as refused:
        read_thumbnail(str(tmp_path / name), longest=8)
    assert refused.value.problem is problem


def test_nothing_outside_the_roots_is_shown(tmp_path):
    path = saved(tmp_path, quarters())
    with pytest.raises(OutsideRoots):
        read_thumbnail(path, longest=8, roots=Roots([tmp_path / "other"]))


def test_of_a_mask_one_sees_how_much_of_each_pixel_is_hole(tmp_path):
    mask = Image.new("L", (8, 4))
    mask.paste(128, (0, 0, 2, 4))
    mask.paste(127, (2, 0, 8, 4))
    cover = read_thumbnail(saved(tmp_path, mask), longest=2, as_mask=True).pixels
    assert cover.shape == (1, 2)
    assert cover.tolist() == [[128, 0]]


def test_a_mask_of_one_pixel_does_not_vanish(tmp_path):
    mask = Image.new("L", (4000, 3000))
    mask.putpixel((3999, 2999), 255)
    cover = read_thumbnail(saved(tmp_path, mask), longest=40, as_mask=True).pixels
    assert np.argwhere(cover).tolist() == [[29, 39]]


def test_what_travels_is_small_and_comes_back_as_it_was(tmp_path):
    photo = Path("sample-config/photos/rocket.jpg")
    small = read_thumbnail(str(photo), longest=320)
    mask = read_thumbnail("sample-config/masks/rocket.png", longest=320, as_mask=True)
    jpeg, png = to_jpeg(small.pixels), to_png(mask.pixels)
    assert len(jpeg) < 20_000
    assert len(png) < 4_000
    again = thumbnail_of(jpeg, "rocket", longest=320)
    assert again.pixels.shape == small.pixels.shape
    assert np.abs(again.pixels.astype(int) - small.pixels).mean() < 6
    cover = thumbnail_of(png, "rocket", longest=320).pixels[..., 0]
    assert ((cover > 127) == (mask.pixels > 127)).mean() > 0.999
