"""A size is read from the header alone, of every form that LCQ takes, and nothing that a file says can do harm."""

from __future__ import annotations

import io
import os
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from lcq.image_size import read_size, read_sizes, size_of
from lcq.roots import Roots

SIZE = (613, 217)
FORMS: dict[str, dict[str, object]] = {
    "png": {"format": "PNG"},
    "jpeg": {"format": "JPEG"},
    "progressive jpeg": {"format": "JPEG", "progressive": True},
    "jpeg with a large profile": {"format": "JPEG", "icc_profile": bytes(200_000), "exif": b"Exif\0\0" + bytes(60_000)},
    "webp": {"format": "WEBP"},
    "lossless webp": {"format": "WEBP", "lossless": True},
    "webp with a profile": {"format": "WEBP", "icc_profile": bytes(500)},
    "gif": {"format": "GIF"},
    "bmp": {"format": "BMP"},
    "tiff": {"format": "TIFF"},
    "compressed tiff": {"format": "TIFF", "compression": "tiff_lzw"},
}


def encoded(**form: object) -> bytes:
    file = io.BytesIO()
    Image.new("RGB", SIZE, (10, 200, 30)).save(file, **form)  # type: ignore[arg-type]
    return file.getvalue()


@pytest.mark.parametrize("form", FORMS)
def test_every_form_tells_its_size(form):
    assert size_of(io.BytesIO(encoded(**FORMS[form]))) == SIZE


@pytest.mark.parametrize("form", FORMS)
def test_a_file_that_was_cut_short_tells_its_size_or_nothing(form):
    data = encoded(**FORMS[form])
    told = {size_of(io.BytesIO(data[:length])) for length in [*range(80), len(data) // 2]}
    assert told <= {SIZE, None}


@given(start=st.sampled_from([b"", *(encoded(**form)[:40] for form in FORMS.values())]), rest=st.binary(max_size=300))
def test_no_bytes_do_any_harm(start, rest):
    told = size_of(io.BytesIO(start + rest))
    assert told is None or all(0 < side <= 1 << 20 for side in told)


def test_what_is_no_image_is_not_known(tmp_path):
    text = tmp_path / "a.jpg"
    text.write_text("no image")
    assert read_size(str(text)) is None
    assert read_size(str(tmp_path)) is None
    assert read_size(str(tmp_path / "nowhere.jpg")) is None
    assert read_size("a\0b") is None


def test_a_pipe_is_not_waited_for(tmp_path):
    os.mkfifo(tmp_path / "pipe.png")
    assert read_size(str(tmp_path / "pipe.png")) is None


def test_nothing_outside_of_the_roots_is_read(tmp_path):
    inside = tmp_path / "inside"
    inside.mkdir()
    for folder in (inside, tmp_path):
        (folder / "a.png").write_bytes(encoded(format="PNG"))
    (inside / "link.png").symlink_to(tmp_path / "a.png")
    roots = Roots([inside])
    assert read_size(str(inside / "a.png"), roots=roots) == SIZE
    assert read_size(str(tmp_path / "a.png"), roots=roots) is None
    assert read_size(str(inside / "link.png"), roots=roots) is None


def test_what_is_not_looked_at_in_time_is_not_known(tmp_path):
    path = Path(tmp_path / "a.png")
    path.write_bytes(encoded(format="PNG"))
    assert list(read_sizes([str(path)] * 3)) == [SIZE] * 3
    assert list(read_sizes([str(path)] * 3, within_s=0)) == [None] * 3
