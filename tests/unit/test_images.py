"""Pictures in and out: every mode and format, limits from the header, damage, masks, names, encoders."""

from __future__ import annotations

import io
import os
import resource
import struct
import subprocess
import sys
import warnings
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from PIL import ExifTags, Image, ImageCms, ImageOps

from lcq.config import LimitsConfig
from lcq.images import (
    FORMATS,
    BadImage,
    ImageProblem,
    LoadedImage,
    Output,
    encode,
    load_image,
    load_mask,
    output_format_of,
    output_path_of,
    plan_output,
    shown,
    write_staged,
)
from lcq.models import Task, TaskType

LIMITS = LimitsConfig()
SRGB = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
LOSSLESS = ("png", "tiff")


def noise(*shape: int, dtype: Any = np.uint8, seed: int = 1) -> NDArray[Any]:
    top = np.iinfo(dtype).max
    return np.random.default_rng(seed).integers(0, top, shape, dtype=dtype, endpoint=True)


def saved(path: Path, image: Image.Image, **options: Any) -> str:
    image.save(path, **options)
    return str(path)


def opened(path: str | Path) -> Image.Image:
    """What Pillow itself makes of a file, without keeping it open."""
    return Image.open(io.BytesIO(Path(path).read_bytes()))


def a_task(image: str | Path, mask: str | Path | None = None, **rest: Any) -> Task:
    return Task(
        task_type=TaskType.INPAINT, image_path=str(image), mask_path=None if mask is None else str(mask), **rest
    )


def problem_of(work: Callable[[], object]) -> BadImage:
    with pytest.raises(BadImage) as caught:
        work()
    message = str(caught.value)
    assert "\n" not in message
    assert message.isprintable()
    return caught.value


def through(image: LoadedImage, format_name: str, path: Path, quality: int | None = None) -> LoadedImage:
    data, _ = encode(image, image.pixels, Output(path, format_name, quality))
    path.write_bytes(data)
    return load_image(str(path), LIMITS)


# ---------------------------------------------------------------- modes and formats


@pytest.mark.parametrize("suffix", [".png", ".tiff", ".bmp"])
def test_lossless_rgb_is_read_as_it_is(tmp_path: Path, suffix: str) -> None:
    pixels = noise(20, 30, 3)
    image = load_image(saved(tmp_path / f"a{suffix}", Image.fromarray(pixels)), LIMITS)
    assert image.size == (30, 20)
    assert image.alpha is None
    assert (image.pixels == pixels).all()
    assert not image.pixels.flags.writeable


@pytest.mark.parametrize(("suffix", "name"), [(".jpg", "jpeg"), (".webp", "webp")])
def test_lossy_formats_give_what_pillow_decodes(tmp_path: Path, suffix: str, name: str) -> None:
    path = saved(tmp_path / f"a{suffix}", Image.fromarray(noise(20, 30, 3)))
    image = load_image(path, LIMITS)
    assert image.format == name
    assert (image.pixels == np.asarray(opened(path).convert("RGB"))).all()


def test_the_hash_is_that_of_the_file(tmp_path: Path) -> None:
    import hashlib

    path = saved(tmp_path / "a.png", Image.fromarray(noise(4, 4, 3)))
    image = load_image(path, LIMITS)
    assert image.input_sha256 == hashlib.sha256(Path(path).read_bytes()).hexdigest()
    assert image.input_bytes == Path(path).stat().st_size


def test_grey_stays_one_channel(tmp_path: Path) -> None:
    for suffix in (".png", ".jpg", ".tiff"):
        image = load_image(saved(tmp_path / f"a{suffix}", Image.fromarray(noise(9, 7))), LIMITS)
        assert image.pixels.shape == (9, 7)


def test_one_bit_comes_as_black_and_white_grey(tmp_path: Path) -> None:
    bits = noise(9, 17) > 127
    for suffix, options in ((".png", {}), (".tiff", {"compression": "group4"}), (".bmp", {})):
        image = load_image(saved(tmp_path / f"a{suffix}", Image.fromarray(bits), **options), LIMITS)
        assert (image.pixels == bits * np.uint8(255)).all()
        again = through(image, "tiff", tmp_path / "again.tiff")
        assert (again.pixels == image.pixels).all()


@pytest.mark.parametrize("suffix", [".png", ".tiff", ".webp"])
def test_alpha_is_split_off_and_comes_back(tmp_path: Path, suffix: str) -> None:
    rgba = noise(12, 8, 4)
    options: dict[str, Any] = {"lossless": True, "exact": True} if suffix == ".webp" else {}
    image = load_image(saved(tmp_path / f"a{suffix}", Image.fromarray(rgba), **options), LIMITS)
    assert image.alpha is not None
    assert (image.pixels == rgba[..., :3]).all()
    assert (image.alpha == rgba[..., 3]).all()
    again = through(image, image.format, tmp_path / f"b{suffix}")
    assert again.alpha is not None
    assert (again.pixels == image.pixels).all()
    assert (again.alpha == image.alpha).all()


@pytest.mark.parametrize("suffix", [".png", ".tiff"])
def test_grey_with_alpha_stays_so(tmp_path: Path, suffix: str) -> None:
    both = noise(12, 8, 2)
    image = load_image(saved(tmp_path / f"a{suffix}", Image.fromarray(both)), LIMITS)
    assert image.alpha is not None
    assert image.pixels.shape == (12, 8)
    again = through(image, image.format, tmp_path / f"b{suffix}")
    assert again.alpha is not None
    assert (again.alpha == both[..., 1]).all()
    assert (again.pixels == both[..., 0]).all()


def test_a_palette_becomes_its_colours(tmp_path: Path) -> None:
    palette = Image.fromarray(noise(12, 8, 3)).quantize(16)
    for suffix in (".png", ".gif", ".bmp", ".tiff"):
        image = load_image(saved(tmp_path / f"a{suffix}", palette), LIMITS)
        assert image.alpha is None
        assert (image.pixels == np.asarray(palette.convert("RGB"))).all()


@pytest.mark.parametrize("transparency", [3, bytes(range(0, 160, 10))], ids=["one colour", "a table"])
def test_a_palette_with_transparency_has_alpha(tmp_path: Path, transparency: int | bytes) -> None:
    palette = Image.fromarray(noise(12, 8, 3)).quantize(16)
    path = saved(tmp_path / "a.png", palette, transparency=transparency)
    image = load_image(path, LIMITS)
    wanted = np.asarray(opened(path).convert("RGBA"))
    assert image.alpha is not None
    assert (image.alpha < 255).any()
    assert (np.dstack((image.pixels, image.alpha)) == wanted).all()


def test_a_transparent_colour_of_rgb_and_grey_becomes_alpha(tmp_path: Path) -> None:
    rgb = noise(6, 6, 3)
    colour = load_image(saved(tmp_path / "a.png", Image.fromarray(rgb), transparency=tuple(rgb[2, 3].tolist())), LIMITS)
    grey = load_image(saved(tmp_path / "b.png", Image.fromarray(rgb[..., 0]), transparency=int(rgb[2, 3, 0])), LIMITS)
    assert colour.alpha is not None
    assert grey.alpha is not None
    assert colour.alpha[2, 3] == grey.alpha[2, 3] == 0
    assert grey.pixels.ndim == 2


@pytest.mark.parametrize("suffix", [".png", ".tiff"])
def test_sixteen_bit_grey_keeps_all_its_bits(tmp_path: Path, suffix: str) -> None:
    deep = noise(12, 8, dtype=np.uint16)
    image = load_image(saved(tmp_path / f"a{suffix}", Image.fromarray(deep)), LIMITS)
    assert image.pixels.dtype == np.uint16
    assert (image.pixels == deep).all()
    for out in LOSSLESS:
        again = through(image, out, tmp_path / f"b.{out}")
        assert again.pixels.dtype == np.uint16
        assert (again.pixels == deep).all()


def test_big_endian_sixteen_bit_tiff_is_read_right(tmp_path: Path) -> None:
    deep = noise(5, 4, dtype=np.uint16)
    image = load_image(saved(tmp_path / "a.tiff", Image.fromarray(deep.astype(">u2"))), LIMITS)
    assert (image.pixels == deep).all()


def png_file(width: int, height: int, *, depth: int, colour: int, rows: bytes = b"", extra: bytes = b"") -> bytes:
    def chunk(name: bytes, body: bytes) -> bytes:
        return struct.pack(">I", len(body)) + name + body + struct.pack(">I", zlib.crc32(name + body))

    header = struct.pack(">IIBBBBB", width, height, depth, colour, 0, 0, 0)
    return (
        b"\x89PNG\r\n\x1a\n"
        + chunk(b"IHDR", header)
        + extra
        + chunk(b"IDAT", zlib.compress(rows))
        + chunk(b"IEND", b"")
    )


def tiff_file(
    bits: tuple[int, ...], *, photometric: int, width: int = 2, height: int = 2, length: int = 0, **tags: Any
) -> bytes:
    """An uncompressed little-endian TIFF of zeros."""
    size = length or max(1, sum(bits) * width * height // 8)
    entries: dict[int, tuple[int, ...]] = {
        256: (width,), 257: (height,), 258: bits, 259: (1,), 262: (photometric,), 273: (0,), 277: (len(bits),),
        278: (height,), 279: (size,),
    }  # fmt: skip
    entries.update({int(name[1:]): value for name, value in tags.items()})
    entries = {tag: values for tag, values in entries.items() if values}
    directory, overflow = b"", b""
    after = 8 + 2 + 12 * len(entries) + 4
    for tag, values in sorted(entries.items()):
        body = b"".join(struct.pack("<I", v) for v in values)
        if tag == 273:
            body = struct.pack("<I", after + 4 * len(bits) + 64)
        if len(body) > 4:
            where = after + len(overflow)
            overflow += body
            body = struct.pack("<I", where)
        directory += struct.pack("<HHI", tag, 4, len(values)) + body
    head = b"II*\0" + struct.pack("<I", 8) + struct.pack("<H", len(entries)) + directory + b"\0\0\0\0"
    return (head + overflow).ljust(after + 4 * len(bits) + 64, b"\0") + bytes(size)


@pytest.mark.parametrize(
    ("name", "data", "word"),
    [
        ("rgb.png", png_file(2, 1, depth=16, colour=2, rows=b"\0" + bytes(12)), "16-bit colour"),
        ("rgba.png", png_file(2, 1, depth=16, colour=6, rows=b"\0" + bytes(16)), "16-bit colour"),
        ("la.png", png_file(2, 1, depth=16, colour=4, rows=b"\0" + bytes(8)), "16-bit"),
        (
            "trns.png",
            png_file(
                2, 1, depth=16, colour=0, rows=b"\0" + bytes(4),
                extra=struct.pack(">I", 2) + b"tRNS\0\0" + struct.pack(">I", zlib.crc32(b"tRNS\0\0")),
            ),
            "16-bit grey with transparency",
        ),
        ("rgb.tiff", tiff_file((16, 16, 16), photometric=2), "16-bit colour"),
        ("rgba.tiff", tiff_file((16, 16, 16, 16), photometric=2, t338=(2,)), "16-bit colour"),
        ("inverted.tiff", tiff_file((16,), photometric=0), "inverted"),
        ("twelve.tiff", tiff_file((12,), photometric=1), "12-bit"),
        ("cmyk.tiff", tiff_file((8, 8, 8, 8), photometric=5), "CMYK"),
        ("float.tiff", tiff_file((32,), photometric=1, t339=(3,)), "'F'"),
        ("int.tiff", tiff_file((32,), photometric=1), "'I'"),
        ("lab.tiff", tiff_file((8, 8, 8), photometric=8), "'LAB'"),
        ("raw.tiff", tiff_file((8, 8, 8), photometric=2, t254=(1,)), "raw file"),
        ("dng.tiff", tiff_file((8, 8, 8), photometric=2, t50706=(1,)), "raw file"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)  # fmt: skip
def test_what_would_be_reduced_on_the_way_in_is_refused_by_name(
    tmp_path: Path, name: str, data: bytes, word: str
) -> None:
    path = tmp_path / name
    path.write_bytes(data)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        opened(path).load()  # Pillow itself would take it
    problem = problem_of(lambda: load_image(str(path), LIMITS))
    assert problem.problem is ImageProblem.IMAGE_UNSUPPORTED
    assert name in str(problem)
    assert word in str(problem)
    assert problem.hint


def test_cmyk_jpeg_is_refused_with_the_remedy(tmp_path: Path) -> None:
    path = saved(tmp_path / "a.jpg", Image.fromarray(noise(8, 8, 4), "CMYK"))
    problem = problem_of(lambda: load_image(path, LIMITS))
    assert problem.problem is ImageProblem.IMAGE_UNSUPPORTED
    assert "convert it to RGB" in str(problem)


def test_a_two_picture_jpeg_is_its_first(tmp_path: Path) -> None:
    first, second = Image.fromarray(noise(16, 8, 3)), Image.fromarray(noise(16, 8, 3, seed=2))
    path = saved(tmp_path / "a.jpg", first, format="MPO", save_all=True, append_images=[second])
    assert opened(path).format == "MPO"
    image = load_image(path, LIMITS)
    assert image.format == "jpeg"
    assert image.size == (8, 16)


def test_an_extra_channel_without_meaning_is_left_out_and_said(tmp_path: Path) -> None:
    path = tmp_path / "a.tiff"
    path.write_bytes(tiff_file((8, 8, 8, 8), photometric=2, t338=(0,)))
    image = load_image(str(path), LIMITS)
    assert image.alpha is None
    assert any("extra channel" in note for note in image.notes)


# ---------------------------------------------------------------- EXIF, profile, resolution


def exif_bytes(orientation: int | None, *, width: int = 0, height: int = 0) -> bytes:
    exif = Image.Exif()
    if orientation is not None:
        exif[0x0112] = orientation
    exif[0x010E] = "harbour"
    exif[0x010F] = "Maker"
    exif[0x8769] = {0x9003: "2020:01:02 03:04:05", 0xA002: width, 0xA003: height}
    exif[0x8825] = {1: "N", 2: (1.0, 2.0, 3.0)}
    return exif.tobytes()


@pytest.mark.parametrize("suffix", [".jpg", ".png", ".webp", ".tiff"])
@pytest.mark.parametrize("orientation", range(1, 9))
def test_orientation_is_applied_once_and_its_tag_dropped(tmp_path: Path, suffix: str, orientation: int) -> None:
    options: dict[str, Any] = {"lossless": True} if suffix == ".webp" else {}
    stored = Image.fromarray(noise(10, 16, 3))
    path = saved(tmp_path / f"a{suffix}", stored, exif=exif_bytes(orientation, width=16, height=10), **options)
    image = load_image(path, LIMITS)
    upright = np.asarray(ImageOps.exif_transpose(opened(path)).convert("RGB"))
    assert (image.pixels == upright).all()
    assert image.size == ((16, 10) if orientation < 5 else (10, 16))
    again = Image.open(io.BytesIO(encode(image, image.pixels, Output(tmp_path / "b", image.format, None))[0]))
    kept = again.getexif()
    assert 0x0112 not in kept
    assert kept[0x010E] == "harbour"
    details = kept.get_ifd(0x8769)
    assert details[0x9003] == "2020:01:02 03:04:05"
    assert (details[0xA002], details[0xA003]) == image.size == again.size
    assert kept.get_ifd(0x8825)[1] == "N"


def test_an_orientation_that_does_not_exist_turns_nothing(tmp_path: Path) -> None:
    path = saved(tmp_path / "a.jpg", Image.fromarray(noise(10, 16, 3)), exif=exif_bytes(9))
    assert load_image(path, LIMITS).size == (16, 10)


def test_the_thumbnail_of_the_original_is_not_kept(tmp_path: Path) -> None:
    thumbnail = io.BytesIO()
    Image.fromarray(noise(4, 4, 3)).save(thumbnail, "JPEG")
    body = b"II*\0\x08\0\0\0" + struct.pack("<H", 1) + struct.pack("<HHI4s", 0x010F, 2, 4, b"Abc\0")
    body += struct.pack("<I", len(body) + 4)  # the second directory: a thumbnail
    body += struct.pack("<H", 2)
    at = len(body) + 24 + 4
    body += struct.pack("<HHII", 0x0201, 4, 1, at) + struct.pack("<HHII", 0x0202, 4, 1, len(thumbnail.getvalue()))
    body += b"\0\0\0\0" + thumbnail.getvalue()
    path = saved(tmp_path / "a.jpg", Image.fromarray(noise(8, 8, 3)), exif=b"Exif\0\0" + body)
    assert opened(path).getexif().get_ifd(ExifTags.IFD.IFD1)
    image = load_image(path, LIMITS)
    assert image.exif is not None
    assert b"Abc" in image.exif
    assert b"\xff\xd8\xff" not in image.exif


def test_a_damaged_exif_block_is_left_out_and_said(tmp_path: Path) -> None:
    path = saved(tmp_path / "a.jpg", Image.fromarray(noise(8, 8, 3)), exif=b"Exif\0\0garbage!")
    image = load_image(path, LIMITS)
    assert image.exif is None
    assert any("EXIF" in note for note in image.notes)


@pytest.mark.parametrize("first", FORMATS)
@pytest.mark.parametrize("second", FORMATS)
def test_the_colour_profile_travels_into_every_format(tmp_path: Path, first: str, second: str) -> None:
    path = saved(tmp_path / f"a.{first}", Image.fromarray(noise(8, 8, 3)), icc_profile=SRGB)
    assert through(load_image(path, LIMITS), second, tmp_path / f"b.{second}").icc == SRGB


@pytest.mark.parametrize("suffix", [".jpg", ".png", ".tiff"])
def test_the_resolution_is_kept_and_turned_with_the_picture(tmp_path: Path, suffix: str) -> None:
    picture = Image.fromarray(noise(8, 8, 3))
    exif = Image.Exif()
    exif[0x0112] = 6
    image = load_image(saved(tmp_path / f"a{suffix}", picture, dpi=(300, 150), exif=exif), LIMITS)
    assert image.dpi == pytest.approx((150, 300), abs=0.02)
    for out in ("jpeg", "png", "tiff"):
        assert through(image, out, tmp_path / f"b.{out}").dpi == pytest.approx((150, 300), abs=0.02)


# ---------------------------------------------------------------- limits


def test_a_png_that_claims_65535_squared_is_refused_from_its_header(tmp_path: Path) -> None:
    path = tmp_path / "bomb.png"
    path.write_bytes(png_file(65535, 65535, depth=8, colour=2, rows=bytes(100)))
    assert path.stat().st_size < 1000
    problem = problem_of(lambda: load_image(str(path), LIMITS))
    assert problem.problem is ImageProblem.IMAGE_TOO_LARGE
    assert "4,294,836,225" in str(problem)
    assert "limits.image_pixels" in str(problem)


def bombs() -> dict[str, bytes]:
    webp = io.BytesIO()
    Image.fromarray(noise(8, 8, 3)).save(webp, "WEBP", lossless=True)
    small = webp.getvalue()
    bits = int.from_bytes(small[21:25], "little") & ~0x0FFFFFFF | 16382 | 16382 << 14
    gif = bytearray(b"GIF89a" + struct.pack("<HHBBB", 65535, 65535, 0x80, 0, 0) + bytes(6))
    gif += b"," + struct.pack("<HHHHB", 0, 0, 65535, 65535, 0) + b"\x02\x02D\x01\0;"
    bmp = (
        b"BM"
        + struct.pack("<IHHI", 54, 0, 0, 54)
        + struct.pack("<IiiHHIIiiII", 40, 60000, 60000, 1, 24, 0, 0, 0, 0, 0, 0)
    )
    jpeg = io.BytesIO()
    Image.fromarray(noise(8, 8, 3)).save(jpeg, "JPEG")
    frame = jpeg.getvalue().index(b"\xff\xc0") + 5
    return {
        "a.png": png_file(65535, 65535, depth=1, colour=0, rows=bytes(10)),
        "a.webp": small[:21] + bits.to_bytes(4, "little") + small[25:],
        "a.gif": bytes(gif),
        "a.bmp": bmp,
        "a.jpg": jpeg.getvalue()[:frame] + b"\xff\xdc\xff\xdc" + jpeg.getvalue()[frame + 4 :],
        "a.tiff": tiff_file((8, 8, 8), photometric=2, width=60000, height=60000, length=12),
        "tile.tiff": tiff_file(
            (8, 8, 8), photometric=2, t259=(8,), t273=(), t278=(), t279=(),
            t322=(60000,), t323=(60000,), t324=(8,), t325=(12,),
        ),
    }  # fmt: skip


MEASURE = """
import resource, sys
from lcq.config import LimitsConfig
from lcq.images import BadImage, load_image, load_mask
load_image(sys.argv[1], LimitsConfig())
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
for path in sys.argv[2:]:
    try:
        load_image(path, LimitsConfig())
    except BadImage as problem:
        print(problem.problem.value, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before)
"""


def test_bombs_of_every_format_cost_no_memory(tmp_path: Path) -> None:
    harmless = saved(tmp_path / "harmless.png", Image.fromarray(noise(8, 8, 3)))
    paths = []
    for name, data in bombs().items():
        (tmp_path / name).write_bytes(data)
        paths.append(str(tmp_path / name))
    done = subprocess.run(
        [sys.executable, "-c", MEASURE, harmless, *paths], capture_output=True, text=True, check=True, timeout=60
    )
    answers = [line.split() for line in done.stdout.splitlines()]
    assert len(answers) == len(paths), done.stdout
    assert {problem for problem, _ in answers[:-1]} == {"image_too_large"}, done.stdout  # the last one's size is small
    assert max(int(kib) for _, kib in answers) < 32 * 1024, done.stdout


def test_pillows_own_lower_limit_does_not_stand_in_the_way(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = saved(tmp_path / "a.png", Image.fromarray(noise(20, 20, 3)))
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 100)
    assert load_image(path, LimitsConfig(image_pixels=400)).size == (20, 20)
    assert Image.MAX_IMAGE_PIXELS == 100
    assert problem_of(lambda: load_image(path, LimitsConfig(image_pixels=399))).problem == "image_too_large"
    assert Image.MAX_IMAGE_PIXELS == 100


def test_one_byte_over_the_limit_is_refused_and_the_limit_itself_is_not(tmp_path: Path) -> None:
    path = saved(tmp_path / "a.png", Image.fromarray(noise(20, 20, 3)))
    size = Path(path).stat().st_size
    assert load_image(path, LimitsConfig(image_bytes=size)).input_bytes == size
    problem = problem_of(lambda: load_image(path, LimitsConfig(image_bytes=size - 1)))
    assert problem.problem is ImageProblem.IMAGE_TOO_LARGE
    assert f"{size:,} bytes" in str(problem)


@pytest.mark.parametrize("suffix", [".webp", ".tiff", ".gif", ".png"])
def test_animations_and_many_pages_are_refused(tmp_path: Path, suffix: str) -> None:
    count = 10_000 if suffix == ".tiff" else 60
    frames = [Image.fromarray(noise(4, 4, 3, seed=seed)) for seed in range(60)]
    path = tmp_path / f"a{suffix}"
    if suffix == ".tiff":
        path.write_bytes(many_page_tiff(count))
    else:
        frames[0].save(path, save_all=True, append_images=frames[1:], duration=40)
    problem = problem_of(lambda: load_image(str(path), LIMITS))
    assert problem.problem is ImageProblem.IMAGE_TOO_LARGE
    assert "frames" in str(problem)


def many_page_tiff(count: int) -> bytes:
    """One-pixel grey pages, each pointing to the next."""
    tags = {256: 1, 257: 1, 258: 8, 259: 1, 262: 1, 273: 8, 277: 1, 278: 1, 279: 1}
    page = struct.pack("<H", len(tags)) + b"".join(struct.pack("<HHII", tag, 4, 1, v) for tag, v in tags.items())
    length = len(page) + 4
    out = b"II*\0" + struct.pack("<I", 16) + bytes(8)
    for number in range(count):
        out += page + struct.pack("<I", 16 + (number + 1) * length if number + 1 < count else 0)
    return out


def test_with_a_higher_frame_limit_the_first_is_read_and_said(tmp_path: Path) -> None:
    frames = [Image.fromarray(noise(4, 4, 3, seed=seed)) for seed in range(3)]
    for suffix in (".tiff", ".png"):
        frames[0].save(tmp_path / f"a{suffix}", save_all=True, append_images=frames[1:])
        image = load_image(str(tmp_path / f"a{suffix}"), LimitsConfig(frames=3))
        assert (image.pixels == np.asarray(frames[0])).all()
        assert any("first frame" in note for note in image.notes)


def test_a_gif_of_one_frame_is_read_and_written_as_png(tmp_path: Path) -> None:
    path = saved(tmp_path / "a.gif", Image.fromarray(noise(6, 5, 3)).quantize(8))
    image = load_image(path, LIMITS)
    assert plan_output(a_task(path), image).format == "png"


# ---------------------------------------------------------------- damage


SAMPLES: dict[str, bytes] = {}
for _format in ("JPEG", "PNG", "WEBP", "TIFF", "GIF", "BMP"):
    _buffer = io.BytesIO()
    Image.fromarray(noise(16, 24, 3)).save(_buffer, _format)
    SAMPLES[_format] = _buffer.getvalue()


@pytest.mark.parametrize("kind", SAMPLES)
@pytest.mark.parametrize("share", [0.95, 0.7, 0.4])
def test_a_truncated_file_is_called_truncated(tmp_path: Path, kind: str, share: float) -> None:
    path = tmp_path / "cut"
    path.write_bytes(SAMPLES[kind][: int(len(SAMPLES[kind]) * share)])
    problem = problem_of(lambda: load_image(str(path), LIMITS))
    assert problem.problem is ImageProblem.IMAGE_TRUNCATED, str(problem)


@settings(max_examples=400, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    kind=st.sampled_from(sorted(SAMPLES)),
    changes=st.lists(st.tuples(st.floats(0, 1), st.integers(0, 255)), min_size=1, max_size=8),
    keep=st.one_of(st.just(1.0), st.floats(0, 1)),
)
def test_no_damage_ends_in_anything_but_a_picture_or_a_named_problem(
    tmp_path: Path, kind: str, changes: list[tuple[float, int]], keep: float
) -> None:
    data = bytearray(SAMPLES[kind])
    for place, value in changes:
        # the headers are where the parsers are: half of the changes go there
        span = min(len(data), 200) if value % 2 else len(data)
        data[min(span - 1, int(place * span))] = value
    path = tmp_path / "fuzzed"
    path.write_bytes(bytes(data[: int(len(data) * keep)]))
    limits = LimitsConfig(image_pixels=1_000_000)
    try:
        image = load_image(str(path), limits)
    except BadImage as problem:
        message = str(problem)
    else:
        message = f"read as {image.pixels.shape}"
        encode(image, image.pixels, plan_output(a_task(path), image))
    assert message.isprintable()


def test_other_kinds_of_files_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "a.jpg"
    for data, kind, word in (
        (b"hello, this is no picture at all", ImageProblem.IMAGE_UNREADABLE, "JPEG, PNG, WebP, TIFF"),
        (b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n", ImageProblem.IMAGE_UNSUPPORTED, "EPS"),
        (b"%PDF-1.7\n", ImageProblem.IMAGE_UNSUPPORTED, "PDF"),
        (b"\0\0\0\x18ftypheic" + bytes(20), ImageProblem.IMAGE_UNSUPPORTED, "HEIC"),
        (b"P6\n2 2\n255\n" + bytes(12), ImageProblem.IMAGE_UNSUPPORTED, "PPM"),
    ):
        path.write_bytes(data)
        problem = problem_of(lambda: load_image(str(path), LIMITS))
        assert problem.problem is kind
        assert word in str(problem)


def test_missing_empty_directory_and_device_each_have_their_own_name(tmp_path: Path) -> None:
    (tmp_path / "empty.png").touch()
    os.mkfifo(tmp_path / "pipe.png")
    (tmp_path / "loop.png").symlink_to(tmp_path / "loop.png")
    for name, kind in (
        ("none.png", ImageProblem.IMAGE_MISSING),
        ("empty.png/x.png", ImageProblem.IMAGE_MISSING),
        ("x" * 300, ImageProblem.IMAGE_MISSING),
        ("empty.png", ImageProblem.IMAGE_EMPTY),
        (".", ImageProblem.IMAGE_IS_DIRECTORY),
        ("pipe.png", ImageProblem.IMAGE_UNSUPPORTED),
        ("loop.png", ImageProblem.IMAGE_UNREADABLE),
    ):
        problem = problem_of(lambda name=name: load_image(str(tmp_path / name), LIMITS))
        assert problem.problem is kind, str(problem)
        assert problem.hint
    assert problem_of(lambda: load_image("/dev/zero", LIMITS)).problem is ImageProblem.IMAGE_UNSUPPORTED


@pytest.mark.skipif(os.geteuid() == 0, reason="the superuser may read everything")
def test_a_file_the_agent_may_not_read_says_so(tmp_path: Path) -> None:
    path = saved(tmp_path / "a.png", Image.fromarray(noise(4, 4, 3)))
    Path(path).chmod(0)
    problem = problem_of(lambda: load_image(path, LIMITS))
    assert problem.problem is ImageProblem.IMAGE_UNREADABLE
    assert "read permission" in str(problem)


def test_names_with_newlines_and_escape_codes_are_spelled_out(tmp_path: Path) -> None:
    name = "a\nb\x1b[31mred\x07\u202e.png"
    problem = problem_of(lambda: load_image(str(tmp_path / name), LIMITS))
    assert r"a\nb\x1b[31mred\x07\u202e.png" in str(problem)
    path = saved(tmp_path / name, Image.fromarray(noise(4, 4, 3)), format="PNG")
    assert load_image(path, LIMITS).size == (4, 4)


@given(st.text())
def test_a_shown_path_is_one_printable_line(text: str) -> None:
    assert shown(text).isprintable()
    assert len(shown(text, longest=50)) <= 50


# ---------------------------------------------------------------- masks


@pytest.fixture
def picture(tmp_path: Path) -> LoadedImage:
    return load_image(saved(tmp_path / "picture.png", Image.fromarray(noise(10, 14, 3))), LIMITS)


GREYS = np.arange(140, dtype=np.uint8).reshape(10, 14) + 60


def overlay(strength: int) -> Image.Image:
    """Strokes as web front ends send them: a colour at some alpha on transparent black."""
    rgba = np.zeros((10, 14, 4), np.uint8)
    rgba[2:5, 3:9] = (255, 204, 0, strength)
    return Image.fromarray(rgba)


BLOCK = np.zeros((10, 14), bool)
BLOCK[2:5, 3:9] = True


@pytest.mark.parametrize(
    ("mask", "options", "holes"),
    [
        (Image.fromarray(GREYS), {}, GREYS > 127),
        (Image.fromarray(BLOCK), {}, BLOCK),
        (Image.fromarray(BLOCK * np.uint16(65535)), {}, BLOCK),
        (Image.fromarray(GREYS.astype(np.uint16) * 257), {}, GREYS > 127),
        (Image.fromarray(np.dstack([GREYS] * 3)), {}, GREYS > 127),
        (Image.fromarray(np.dstack((GREYS, GREYS * 0))), {}, GREYS > 127),
        (overlay(186), {}, BLOCK),
        (overlay(1), {}, BLOCK),
        (Image.fromarray(GREYS).quantize(256), {}, GREYS > 127),
        (Image.fromarray(BLOCK * np.uint8(255)).quantize(2), {"transparency": 0}, BLOCK),
    ],
    ids=["L", "1", "16 bits, 0 and top", "16 bits", "RGB", "LA", "overlay", "faint overlay", "P", "P transparent"],
)
def test_a_mask_of_any_mode_is_cut_at_127(
    tmp_path: Path, picture: LoadedImage, mask: Image.Image, options: dict[str, Any], holes: NDArray[np.bool_]
) -> None:
    found = load_mask(saved(tmp_path / "mask.png", mask, **options), picture, LIMITS)
    assert found.dtype == np.bool_
    assert (found == holes).all()


@pytest.mark.parametrize("suffix", [".jpg", ".webp", ".gif", ".bmp", ".tiff"])
def test_a_mask_may_have_any_readable_format(tmp_path: Path, picture: LoadedImage, suffix: str) -> None:
    path = saved(tmp_path / f"mask{suffix}", Image.fromarray(BLOCK * np.uint8(255)))
    assert (load_mask(path, picture, LIMITS) == BLOCK).all()


def test_a_mask_is_turned_as_its_own_exif_says(tmp_path: Path, picture: LoadedImage) -> None:
    turned = Image.fromarray(BLOCK * np.uint8(255)).transpose(Image.Transpose.ROTATE_90)
    exif = Image.Exif()
    exif[0x0112] = 6  # a quarter turn clockwise shows it upright
    assert (load_mask(saved(tmp_path / "mask.png", turned, exif=exif), picture, LIMITS) == BLOCK).all()


def test_a_mask_of_another_size_is_refused_naming_both(tmp_path: Path, picture: LoadedImage) -> None:
    path = saved(tmp_path / "mask.png", Image.fromarray(noise(14, 10)))
    problem = problem_of(lambda: load_mask(path, picture, LIMITS))
    assert problem.problem is ImageProblem.MASK_SIZE_MISMATCH
    assert "mask.png is 10 x 14" in str(problem)
    assert "picture.png is 14 x 10" in str(problem)


def test_a_missing_or_damaged_mask_is_told_from_a_bad_picture(tmp_path: Path, picture: LoadedImage) -> None:
    bad = tmp_path / "bad.png"
    bad.write_bytes(b"nothing")
    deep = saved(tmp_path / "deep.tiff", Image.fromarray(np.zeros((10, 14), np.float32)))
    missing = problem_of(lambda: load_mask(str(tmp_path / "none.png"), picture, LIMITS))
    assert missing.problem is ImageProblem.MASK_MISSING
    for path in (str(bad), str(tmp_path), deep):
        problem = problem_of(lambda path=path: load_mask(path, picture, LIMITS))
        assert problem.problem is ImageProblem.MASK_UNREADABLE
        assert str(problem).startswith("mask ")


# ---------------------------------------------------------------- results


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    height=st.integers(1, 40),
    width=st.integers(1, 40),
    kind=st.sampled_from(["grey", "deep", "rgb", "grey+a", "rgb+a"]),
    out=st.sampled_from(LOSSLESS),
    seed=st.integers(0, 2**32 - 1),
)
def test_lossless_formats_give_back_every_bit(
    tmp_path: Path, height: int, width: int, kind: str, out: str, seed: int
) -> None:
    shape = (height, width, 3) if kind.startswith("rgb") else (height, width)
    pixels = noise(*shape, dtype=np.uint16 if kind == "deep" else np.uint8, seed=seed)
    alpha = noise(height, width, seed=seed + 1) if kind.endswith("+a") else None
    image = LoadedImage("a.png", pixels, alpha, "png", None, None, None, "0" * 64, 1)
    again = through(image, out, tmp_path / f"a.{out}")
    assert again.pixels.dtype == pixels.dtype
    assert (again.pixels == pixels).all()
    assert (again.alpha is None) == (alpha is None)
    assert alpha is None or (again.alpha == alpha).all()


def test_quality_changes_the_size_of_jpeg_and_webp(tmp_path: Path) -> None:
    image = load_image(saved(tmp_path / "a.png", Image.fromarray(noise(64, 64, 3))), LIMITS)
    for out in ("jpeg", "webp"):
        sizes = [len(encode(image, image.pixels, Output(tmp_path, out, quality))[0]) for quality in (5, 60, 100)]
        assert sizes == sorted(sizes)
        usual = encode(image, image.pixels, Output(tmp_path, out, None))[0]
        assert usual == encode(image, image.pixels, Output(tmp_path, out, 95))[0]


def test_jpeg_keeps_the_colour_sampling_of_its_input_and_has_full_colour_otherwise(tmp_path: Path) -> None:
    from PIL import JpegImagePlugin

    for source, sampling in (("a.jpg", 2), ("b.jpg", 0), ("c.png", 0)):
        options = {"subsampling": sampling} if source.endswith("jpg") else {}
        image = load_image(saved(tmp_path / source, Image.fromarray(noise(32, 32, 3)), **options), LIMITS)
        data, _ = encode(image, image.pixels, Output(tmp_path, "jpeg", None))
        assert JpegImagePlugin.get_sampling(Image.open(io.BytesIO(data))) == sampling


def test_lossless_webp_stays_lossless_unless_a_quality_is_asked_for(tmp_path: Path) -> None:
    for exif in (b"", exif_bytes(1)):
        path = saved(tmp_path / "a.webp", Image.fromarray(noise(16, 16, 3)), lossless=True, exif=exif)
        image = load_image(path, LIMITS)
        assert (through(image, "webp", tmp_path / "b.webp").pixels == image.pixels).all()
        assert not (through(image, "webp", tmp_path / "c.webp", quality=50).pixels == image.pixels).all()


def test_tiff_keeps_a_lossless_compression(tmp_path: Path) -> None:
    for compression in ("raw", "tiff_lzw", "packbits", "tiff_adobe_deflate"):
        path = saved(tmp_path / "a.tiff", Image.fromarray(noise(16, 16, 3)), compression=compression)
        through(load_image(path, LIMITS), "tiff", tmp_path / "b.tiff")
        assert opened(tmp_path / "b.tiff").info["compression"] == compression


@pytest.mark.parametrize(
    ("config", "output_path", "format_name"),
    [
        ({}, None, "jpeg"),
        ({}, "/out/b.png", "png"),
        ({}, "/out/b.TIF", "tiff"),
        ({}, "/out/b", "jpeg"),
        ({"format": "webp"}, "/out/b.png", "webp"),
        ({"format": "JPG"}, "/out/b.png", "jpeg"),
        ({"format": "tif"}, None, "tiff"),
    ],
)
def test_the_format_is_the_configured_then_the_suffix_then_the_inputs(
    config: dict[str, Any], output_path: str | None, format_name: str
) -> None:
    task = a_task("/in/a.jpg", config=config, output_path=output_path)
    assert output_format_of(task, "jpeg") == format_name


@pytest.mark.parametrize(
    ("config", "output_path", "word"),
    [({"format": "bmp"}, None, "'bmp'"), ({"format": 3}, None, "3"), ({}, "/out/b.psd", ".psd")],
)
def test_an_unknown_format_is_refused_with_the_known_ones(
    config: dict[str, Any], output_path: str | None, word: str
) -> None:
    problem = problem_of(lambda: output_format_of(a_task("a.jpg", config=config, output_path=output_path), "jpeg"))
    assert problem.problem is ImageProblem.FORMAT_UNSUPPORTED
    assert word in str(problem)
    assert "jpeg, png, webp, tiff" in str(problem)


@pytest.mark.parametrize(
    ("image", "format_name", "result"),
    [
        ("/photos/a.jpg", "jpeg", "/photos/cleaned/a.jpg"),
        ("/photos/a.JPEG", "jpeg", "/photos/cleaned/a.JPEG"),
        ("/photos/a.jpg", "png", "/photos/cleaned/a.png"),
        ("/photos/a.b.tif", "tiff", "/photos/cleaned/a.b.tif"),
        ("/photos/scan", "jpeg", "/photos/cleaned/scan.jpg"),
        ("/photos/.hidden", "png", "/photos/cleaned/.hidden.png"),
        ("a.gif", "png", "cleaned/a.png"),
    ],
)
def test_without_an_output_path_the_result_goes_to_cleaned(image: str, format_name: str, result: str) -> None:
    assert output_path_of(a_task(image), format_name) == result
    assert output_path_of(a_task(image, output_path="/else/x.png"), format_name) == "/else/x.png"


def test_alpha_as_jpeg_is_refused_naming_png_and_webp(tmp_path: Path) -> None:
    path = saved(tmp_path / "a.png", Image.fromarray(noise(8, 8, 4)))
    problem = problem_of(lambda: plan_output(a_task(path, config={"format": "jpeg"}), load_image(path, LIMITS)))
    assert problem.problem is ImageProblem.FORMAT_UNSUPPORTED
    assert "png or webp" in str(problem)


@pytest.mark.parametrize("out", ["jpeg", "webp"])
def test_sixteen_bits_into_eight_is_refused(tmp_path: Path, out: str) -> None:
    path = saved(tmp_path / "a.png", Image.fromarray(noise(8, 8, dtype=np.uint16)))
    problem = problem_of(lambda: plan_output(a_task(path, config={"format": out}), load_image(path, LIMITS)))
    assert problem.problem is ImageProblem.FORMAT_UNSUPPORTED
    assert "png or tiff" in str(problem)


def test_a_picture_too_long_for_webp_is_refused_before_any_work(tmp_path: Path) -> None:
    path = saved(tmp_path / "a.png", Image.fromarray(noise(1, 16_384)))
    problem = problem_of(lambda: plan_output(a_task(path, config={"format": "webp"}), load_image(path, LIMITS)))
    assert "16383" in str(problem)


@pytest.mark.parametrize("quality", [0, 101, 9.5, "90", True])
def test_a_quality_that_is_none_is_refused_naming_the_key(tmp_path: Path, quality: Any) -> None:
    path = saved(tmp_path / "a.jpg", Image.fromarray(noise(8, 8, 3)))
    problem = problem_of(lambda: plan_output(a_task(path, config={"quality": quality}), load_image(path, LIMITS)))
    assert problem.problem is ImageProblem.CONFIG_INVALID
    assert "config.quality" in str(problem)


def test_a_quality_for_png_is_said_to_mean_nothing(tmp_path: Path) -> None:
    path = saved(tmp_path / "a.png", Image.fromarray(noise(8, 8, 3)))
    output = plan_output(a_task(path, config={"quality": 80}), load_image(path, LIMITS))
    assert output.quality is None
    assert any("quality" in note for note in output.notes)


def test_the_picture_and_the_mask_are_never_overwritten(tmp_path: Path) -> None:
    path = saved(tmp_path / "a.png", Image.fromarray(noise(8, 8, 3)))
    mask = saved(tmp_path / "m.png", Image.fromarray(noise(8, 8)))
    image = load_image(path, LIMITS)
    (tmp_path / "link.png").symlink_to(path)
    (tmp_path / "hard.png").hardlink_to(path)
    same = (path, f"{tmp_path}/../{tmp_path.name}/a.png", tmp_path / "link.png", tmp_path / "hard.png", mask)
    for target in same:
        problem = problem_of(lambda target=target: plan_output(a_task(path, mask, output_path=str(target)), image))
        assert problem.problem is ImageProblem.OUTPUT_UNWRITABLE
    assert plan_output(a_task(path, mask, output_path=str(tmp_path / "new.png")), image).path.name == "new.png"
    folder = problem_of(
        lambda: plan_output(a_task(path, mask, output_path=str(tmp_path), config={"format": "png"}), image)
    )
    assert folder.problem is ImageProblem.OUTPUT_UNWRITABLE


def test_the_staged_name_stands_beside_the_final_one_and_fits_a_file_system(tmp_path: Path) -> None:
    staged = Output(tmp_path / "a.png", "png", None).staged("0123456789abcdef", 2)
    assert staged == tmp_path / ".a.png.0123456789abcdef-2.lcq-tmp"
    long = Output(tmp_path / ("ä" * 125 + ".png"), "png", None)
    write_staged(long.staged("0123456789abcdef", 100), b"x")
    assert [len(os.fsencode(entry.name)) <= 255 for entry in tmp_path.iterdir()] == [True]


def test_staging_makes_the_folder_replaces_leftovers_and_follows_no_link(tmp_path: Path) -> None:
    staged = tmp_path / "new" / "folder" / ".a"
    write_staged(staged, b"one")
    write_staged(staged, b"two")
    assert staged.read_bytes() == b"two"
    victim = tmp_path / "victim"
    victim.write_bytes(b"mine")
    staged.unlink()
    staged.symlink_to(victim)
    write_staged(staged, b"three")
    assert victim.read_bytes() == b"mine"
    assert not staged.is_symlink()


def test_a_write_that_is_cut_off_leaves_nothing(tmp_path: Path) -> None:
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (4096, hard))
    try:
        with pytest.raises(OSError, match="too large"):
            write_staged(tmp_path / "big", bytes(100_000))
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert list(tmp_path.iterdir()) == []
