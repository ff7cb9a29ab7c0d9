"""Pictures between file and array: read with limits, masks, encode, write beside the final name.

Everything about an input is checked from its header before a pixel is decoded. What cannot be carried
through unharmed (CMYK, 16-bit colour, animations) is refused by name, never silently reduced.
"""

from __future__ import annotations

import contextlib
import errno
import hashlib
import io
import math
import os
import re
import stat
import struct
import sys
import threading
import warnings
import zlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from enum import StrEnum
from pathlib import Path
from types import MappingProxyType
from typing import Any, NamedTuple, cast

import numpy as np
from numpy.typing import NDArray
from PIL import ExifTags, Image, ImageFile, JpegImagePlugin

from lcq.errors import InvalidInput
from lcq.models import Task, TaskType
from lcq.roots import ANYWHERE, Roots
from lcq.runner_config import LimitsConfig

HOLE_ABOVE = 127
"""Mask pixels brighter than this are holes."""

STAGED_SUFFIX = ".lcq-tmp"
"""How the names of results end that are written but not yet renamed."""


class ImageProblem(StrEnum):
    """What can be wrong with a picture, a mask or the place for a result. A closed list."""

    IMAGE_MISSING = "image_missing"
    IMAGE_IS_DIRECTORY = "image_is_directory"
    IMAGE_EMPTY = "image_empty"
    IMAGE_UNREADABLE = "image_unreadable"
    IMAGE_TRUNCATED = "image_truncated"
    IMAGE_TOO_LARGE = "image_too_large"
    IMAGE_UNSUPPORTED = "image_unsupported"
    MASK_MISSING = "mask_missing"
    MASK_UNREADABLE = "mask_unreadable"
    MASK_SIZE_MISMATCH = "mask_size_mismatch"
    OUTPUT_UNWRITABLE = "output_unwritable"
    FORMAT_UNSUPPORTED = "format_unsupported"
    CONFIG_INVALID = "config_invalid"


class BadImage(InvalidInput):
    """A picture, mask or output that cannot be used; ``problem`` says which of the closed list it is."""

    def __init__(self, problem: ImageProblem, message: str, *, hint: str = "") -> None:
        self.problem = problem
        super().__init__(message, hint=hint)


def shown(path: str | Path, *, longest: int = 300) -> str:
    """``path`` as one printable line: control and escape characters spelled out, a long one cut in front."""
    text = "".join(char if char.isprintable() else char.encode("unicode_escape").decode("ascii") for char in str(path))
    return text if len(text) <= longest else "…" + text[-longest + 1 :]


# ---------------------------------------------------------------- formats

READABLE = ("JPEG", "PNG", "WEBP", "TIFF", "BMP", "GIF")  # no EPS: it would start Ghostscript
_READABLE_NAMES = "JPEG, PNG, WebP, TIFF, BMP and GIF"
_OURS = {
    "JPEG": "jpeg",
    "MPO": "jpeg",
    "PNG": "png",
    "WEBP": "webp",
    "TIFF": "tiff",
    "BMP": "bmp",
    "GIF": "gif",
}

FORMATS: Mapping[str, tuple[str, ...]] = MappingProxyType(
    {
        "jpeg": (".jpg", ".jpeg", ".jpe", ".jfif"),
        "png": (".png",),
        "webp": (".webp",),
        "tiff": (".tif", ".tiff"),
    }
)
"""The formats a result can have, each with the suffixes that mean it, the usual one first."""

_LONGEST_SIDE = {"jpeg": 65_500, "webp": 16_383}
_LOSSLESS_TIFF = frozenset({"raw", "tiff_lzw", "tiff_adobe_deflate", "packbits", "zstd", "lzma"})
_LONGEST_NAME = 255  # bytes, on every file system in use
_SUBSAMPLINGS = ("4:4:4", "4:2:2", "4:2:0")
_JPEG_EXIF_BYTES = 65_533  # one APP1 segment, less its length field

# Recognised only to be refused by name; the bytes before the magic ones are skipped.
_REFUSED_MAGIC = (
    (0, b"%!PS", "PostScript (EPS)"),
    (0, b"%PDF", "PDF"),
    (0, b"8BPS", "Photoshop (PSD)"),
    (4, b"ftypheic", "HEIC"),
    (4, b"ftypheix", "HEIC"),
    (4, b"ftypmif1", "HEIF"),
    (4, b"ftypavif", "AVIF"),
    (4, b"jP  ", "JPEG 2000"),
    (0, b"<svg", "SVG"),
    (0, b"P5", "PGM"),
    (0, b"P6", "PPM"),
    (0, b"\x00\x00\x01\x00", "icon (ICO)"),
)

# What Pillow's readers raise on damaged files, beside its own errors (found by fuzzing them).
DAMAGE = (
    OSError,
    SyntaxError,
    ValueError,
    EOFError,
    LookupError,
    TypeError,
    AttributeError,
    ArithmeticError,
    AssertionError,
    RuntimeError,
    struct.error,
    zlib.error,
)

# The first directory's tags that describe the picture; all others describe its old encoding.
_DESCRIPTIVE_TAGS = frozenset(
    {11, 270, 271, 272, 305, 306, 315, 316, 18246, 18249, 33432, 40091, 40092, 40093, 40094, 40095}
)
_TURNS = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
SWAPPING_TURNS = frozenset(_TURNS[orientation] for orientation in (5, 6, 7, 8))
_DNG_VERSION = 50706
_NEW_SUBFILE_TYPE = 254


@dataclass(frozen=True)
class LoadedImage:
    """A picture as its viewer would see it (turned upright), with what travels beside the pixels.

    ``pixels``: (height, width) grey or (height, width, 3) RGB; uint8, or uint16 for 16-bit grey; read-only.
    ``alpha``: (height, width) uint8, where there was one. ``format``: jpeg, png, webp, tiff, bmp or gif.
    ``exif`` has neither the orientation nor a thumbnail (it would show what was removed). ``encoding`` is
    what a result in the same format keeps of the input's own encoding. ``notes`` say what was left out.
    """

    path: str
    pixels: NDArray[Any]
    alpha: NDArray[np.uint8] | None
    format: str
    icc: bytes | None
    exif: bytes | None
    dpi: tuple[float, float] | None
    input_sha256: str
    input_bytes: int
    encoding: Mapping[str, Any] = field(default_factory=dict)
    notes: tuple[str, ...] = ()

    @property
    def size(self) -> tuple[int, int]:
        """Width and height in pixels, upright."""
        return int(self.pixels.shape[1]), int(self.pixels.shape[0])


# ---------------------------------------------------------------- reading

_pillow_lock = threading.RLock()  # Pillow's pixel limit and the warnings filter belong to the whole process


@contextlib.contextmanager
def pillow_limited(pixels: int) -> Iterator[None]:
    """Pillow with our pixel limit instead of its own, its bomb warnings as errors, its chatter off."""
    with _pillow_lock, warnings.catch_warnings():
        warnings.simplefilter("ignore")
        warnings.simplefilter("error", Image.DecompressionBombWarning)
        before = Image.MAX_IMAGE_PIXELS
        Image.MAX_IMAGE_PIXELS = pixels
        try:
            yield
        finally:
            Image.MAX_IMAGE_PIXELS = before


def read_file(path: str, limits: LimitsConfig, roots: Roots) -> bytes:
    """The bytes of a regular file within the limit.

    Raises:
        BadImage: missing, a directory, not a file, not permitted, empty, too many bytes.
        OSError: the storage failed.
    """
    name = shown(path)
    try:
        # Non-blocking: opening a named pipe must not wait for its writer.
        descriptor = roots.open_to_read(path, os.O_RDONLY | os.O_CLOEXEC | getattr(os, "O_NONBLOCK", 0))
    except OSError as error:
        if error.errno in (errno.ENOENT, errno.ENOTDIR, errno.ENAMETOOLONG):
            raise BadImage(
                ImageProblem.IMAGE_MISSING, f"{name}: no such file on this node", hint="check the path"
            ) from error
        if error.errno in (errno.EACCES, errno.EPERM):
            raise BadImage(
                ImageProblem.IMAGE_UNREADABLE,
                f"{name}: the agent may not read it",
                hint="give the agent's user read permission on the file and its folders",
            ) from error
        if error.errno in (errno.ELOOP, errno.ENXIO):
            raise BadImage(
                ImageProblem.IMAGE_UNREADABLE,
                f"{name}: cannot be opened: {error.strerror}",
                hint="name a file",
            ) from error
        raise
    try:
        status = os.fstat(descriptor)
        if stat.S_ISDIR(status.st_mode):
            raise BadImage(ImageProblem.IMAGE_IS_DIRECTORY, f"{name}: is a folder, not a picture", hint="name one file")
        if not stat.S_ISREG(status.st_mode):
            raise BadImage(
                ImageProblem.IMAGE_UNSUPPORTED, f"{name}: is a device or pipe, not a file", hint="name a file"
            )
    except BaseException:
        os.close(descriptor)
        raise
    with os.fdopen(descriptor, "rb") as file:
        # One byte more than allowed: the size may lie, or the file may still grow.
        data = file.read(limits.image_bytes + 1) if status.st_size <= limits.image_bytes else b""
        if status.st_size > limits.image_bytes or len(data) > limits.image_bytes:
            raise BadImage(
                ImageProblem.IMAGE_TOO_LARGE,
                f"{name}: has {max(status.st_size, len(data)):,} bytes, the limit is {limits.image_bytes:,}",
                hint="make it smaller, or raise limits.image_bytes",
            )
    if not data:
        raise BadImage(ImageProblem.IMAGE_EMPTY, f"{name}: is empty (0 bytes)", hint="copy it again")
    return data


def too_large(name: str, claim: str, limits: LimitsConfig) -> BadImage:
    return BadImage(
        ImageProblem.IMAGE_TOO_LARGE,
        f"{name}: its header claims {claim}, the limit is {limits.image_pixels:,} pixels",
        hint="make it smaller, or raise limits.image_pixels",
    )


def _is_cut_short(data: bytes) -> bool:
    """Whether a file of a known kind lacks its end."""
    if data.startswith(b"\xff\xd8"):
        return b"\xff\xd9" not in data[-65_536:]
    if data.startswith(b"\x89PNG"):
        return b"IEND" not in data[-65_536:]
    if data[:4] == b"RIFF" and data[8:12] == b"WEBP":
        return len(data) < 8 + int.from_bytes(data[4:8], "little")
    if data.startswith(b"GIF8"):
        return not data.rstrip(b"\0").endswith(b";")
    if data.startswith(b"BM"):
        return len(data) < int.from_bytes(data[2:6], "little")
    return False


def undecodable(name: str, data: bytes, error: BaseException) -> BadImage:
    if _is_cut_short(data) or "truncat" in str(error).lower():
        return BadImage(
            ImageProblem.IMAGE_TRUNCATED,
            f"{name}: ends too early ({len(data):,} bytes)",
            hint="copy it again",
        )
    for skip, magic, kind in _REFUSED_MAGIC:
        if data[skip : skip + len(magic)] == magic:
            return BadImage(
                ImageProblem.IMAGE_UNSUPPORTED,
                f"{name}: {kind} files are not supported",
                hint=f"convert it; {_READABLE_NAMES} can be read",
            )
    return BadImage(
        ImageProblem.IMAGE_UNREADABLE,
        f"{name}: cannot be decoded as a picture",
        hint=f"it is damaged or something else; {_READABLE_NAMES} can be read",
    )


def _refused(name: str, what: str, fix: str) -> BadImage:
    return BadImage(ImageProblem.IMAGE_UNSUPPORTED, f"{name}: {what}", hint=fix)


def _has_more_gif_frames(data: bytes, limit: int) -> bool:
    """Whether a GIF has more than ``limit`` frames. Looks no further than the first that is too many: Pillow's own
    count walks through all of them, a million in half a minute."""
    try:
        at = 13 + (3 << (data[10] & 7) + 1 if data[10] & 0x80 else 0)
        frames = 0
        while (kind := data[at]) in (0x21, 0x2C):  # an extension, a frame
            if kind == 0x2C:
                frames += 1
                if frames > limit:
                    return True
                flags = data[at + 9]
                at += 11 + (3 << (flags & 7) + 1 if flags & 0x80 else 0)
            else:
                at += 2
            while size := data[at]:
                at += 1 + size
            at += 1
    except IndexError:
        pass  # cut short: that is found when it is decoded
    return False


def _check_header(image: ImageFile.ImageFile, data: bytes, name: str, limits: LimitsConfig) -> None:
    """Refuse by size and number of frames, both as the header tells them."""
    width, height = image.size
    if width * height > limits.image_pixels:
        raise too_large(name, f"{width} x {height} pixels", limits)
    if image.format in ("JPEG", "MPO"):
        return  # an MPO's further pictures are previews of the first
    if image.format == "TIFF":
        try:  # not n_frames, which would walk through all of a million directories
            image.seek(limits.frames)
        except EOFError:
            image.seek(0)
            return
        found = "several" if limits.frames == 1 else f"more than {limits.frames}"
    elif image.format == "GIF":
        if not _has_more_gif_frames(data, limits.frames):
            return
        found = "several" if limits.frames == 1 else f"more than {limits.frames}"
    else:
        frames = int(getattr(image, "n_frames", 1))  # of PNG and WebP their headers tell it
        if frames <= limits.frames:
            return
        found = str(frames)
    raise BadImage(
        ImageProblem.IMAGE_TOO_LARGE,
        f"{name}: has {found} frames or pages, the limit is {limits.frames}",
        hint="split it into single pictures",
    )


def _check_depth(image: ImageFile.ImageFile, data: bytes, name: str) -> None:
    """Refuse what Pillow would reduce on the way in, or what has no RGB or grey meaning."""
    deep = f"16-bit {'colour' if image.mode.startswith('RGB') else 'grey with transparency'} is not supported"
    if image.mode == "CMYK":
        raise _refused(name, "CMYK is not supported", "convert it to RGB with its colour profile first")
    if image.format == "PNG" and data[24] == 16 and (image.mode != "I;16" or "transparency" in image.info):
        raise _refused(name, deep, "convert it to 8 bits a channel first")
    if image.format == "TIFF":
        tags = cast("Any", image).tag_v2
        if _DNG_VERSION in tags or int(tags.get(_NEW_SUBFILE_TYPE, 0)) & 1:
            raise _refused(name, "is a camera's raw file", "develop it into TIFF, PNG or JPEG first")
        bits = tuple(tags.get(ExifTags.Base.BitsPerSample, (1,)))
        is_plain_16 = bits == (16,) and tags.get(ExifTags.Base.PhotometricInterpretation) == 1
        if image.mode.startswith("I;16"):
            if not is_plain_16:
                raise _refused(name, f"{bits[0]}-bit or inverted grey is not supported", "save it as 16-bit grey")
        elif max(bits) > 8 and image.mode not in ("I", "F"):
            raise _refused(name, deep, "convert it to 8 bits a channel first")
    if image.mode not in _KNOWN_MODES:
        raise _refused(name, f"pixels of kind {image.mode!r} are not supported", "convert it to 8-bit RGB first")


DEEP_GREY = ("I;16", "I;16B", "I;16L", "I;16N")
_KNOWN_MODES = frozenset({"1", "L", "LA", "P", "PA", "RGB", "RGBX", "RGBA", *DEEP_GREY})


class _Decoded(NamedTuple):
    file: ImageFile.ImageFile  # with its format, info and EXIF
    upright: Image.Image  # its picture, turned
    swaps: bool  # whether width and height changed places
    data: bytes


def turn_of(image: ImageFile.ImageFile) -> Image.Transpose | None:
    try:
        return _TURNS.get(image.getexif().get(ExifTags.Base.Orientation, 1))
    except DAMAGE:  # a broken EXIF block turns nothing; load_image says that it is left out
        return None


def _decoded(path: str, limits: LimitsConfig, roots: Roots, *, as_mask: bool) -> _Decoded:
    name = shown(path)
    data = read_file(path, limits, roots)
    try:
        with pillow_limited(limits.image_pixels):
            image = Image.open(io.BytesIO(data), formats=READABLE)
            _check_header(image, data, name, limits)
            if not as_mask:
                _check_depth(image, data, name)
            turn = turn_of(image)
            image.load()
            # Pillow's TIFF reader turns by itself
            upright = image if turn is None or image.format == "TIFF" else image.transpose(turn)
    except (Image.DecompressionBombError, Image.DecompressionBombWarning) as error:
        claim = re.search(r"\((\d+) pixels\)", str(error))
        raise too_large(name, f"{int(claim[1]):,} pixels" if claim else "too many pixels", limits) from error
    except DAMAGE as error:
        raise undecodable(name, data, error) from error
    return _Decoded(image, upright, turn in SWAPPING_TURNS, data)


def _arrays(image: Image.Image) -> tuple[NDArray[Any], NDArray[np.uint8] | None]:
    """Pixels and alpha of an image of a known mode."""
    if image.mode in DEEP_GREY:
        return np.asarray(image).astype(np.uint16), None
    is_grey = image.mode in ("1", "L", "LA")
    if image.has_transparency_data:
        both = np.asarray(image.convert("LA" if is_grey else "RGBA"))
        colour = both[..., 0] if is_grey else both[..., :3]
        return np.ascontiguousarray(colour), np.ascontiguousarray(both[..., -1])
    return np.asarray(image.convert("L" if is_grey else "RGB")), None


def _kept_exif(image: Image.Image, *, upright_size: tuple[int, int]) -> bytes | None:
    """EXIF that describes the picture; not its old encoding, orientation or thumbnail.

    Raises:
        DAMAGE: the block is broken.
    """
    found = image.getexif()
    kept = Image.Exif()
    kept.endian = found.endian
    for tag in found:
        if tag in _DESCRIPTIVE_TAGS:
            kept[tag] = found[tag]
    for group in (ExifTags.IFD.Exif, ExifTags.IFD.GPSInfo):
        directory = {tag: value for tag, value in found.get_ifd(group).items() if tag != ExifTags.IFD.Interop}
        for tag, side in zip((ExifTags.Base.ExifImageWidth, ExifTags.Base.ExifImageHeight), upright_size, strict=True):
            if group == ExifTags.IFD.Exif and tag in directory:
                directory[tag] = side
        if directory:
            kept[group] = directory
    return kept.tobytes() if len(kept) else None


def _kept_dpi(image: Image.Image, *, swaps: bool) -> tuple[float, float] | None:
    try:
        across, down = (float(value) for value in image.info["dpi"])
    except (KeyError, TypeError, ValueError, ZeroDivisionError):
        return None
    if not all(math.isfinite(value) and 1 < value < 65_535 for value in (across, down)):
        return None
    return (down, across) if swaps else (across, down)


def _kept_icc(icc: bytes | None, *, of: NDArray[Any]) -> bytes | None:
    """A colour profile, where it is one for what the pixels are now."""
    made_for_other = icc is not None and of.ndim == 3 and icc[16:20] in (b"GRAY", b"CMYK")
    return None if made_for_other else icc


def _is_lossless_webp(data: bytes) -> bool:
    at = 12
    while at + 8 <= len(data) and data[at : at + 4] != b"VP8 ":
        if data[at : at + 4] == b"VP8L":
            return True
        size = int.from_bytes(data[at + 4 : at + 8], "little")
        at += 8 + size + size % 2
    return False


def _own_encoding(image: ImageFile.ImageFile, data: bytes) -> dict[str, Any]:
    if image.format in ("JPEG", "MPO"):
        sampling = JpegImagePlugin.get_sampling(image)
        return {"subsampling": sampling} if sampling >= 0 else {}
    if image.format == "WEBP":
        return {"lossless": _is_lossless_webp(data)}
    if image.format == "TIFF":
        compression = image.info.get("compression")
        return {"compression": compression} if compression in _LOSSLESS_TIFF else {}
    return {}


def _as_rgb(image: Image.Image) -> tuple[NDArray[Any], NDArray[np.uint8] | None]:
    """Pixels and alpha as the parent programs read them: 8-bit RGB of whatever there is; only RGBA has an alpha."""
    if image.mode == "RGBA":
        both = np.asarray(image)
        return np.ascontiguousarray(both[..., :3]), np.ascontiguousarray(both[..., 3])
    if image.mode in DEEP_GREY:  # what is brighter than 255 of 65535 is white there
        grey = np.minimum(np.asarray(image), 255).astype(np.uint8)
        return np.repeat(grey[..., None], 3, axis=2), None
    return np.asarray(image.convert("RGB")), None


def load_image(path: str, limits: LimitsConfig, roots: Roots = ANYWHERE, *, as_rgb: bool = False) -> LoadedImage:
    """Read one picture, upright, with alpha, profile, EXIF and resolution beside its pixels.

    1-bit pictures come as grey, palettes as RGB. Of an MPO (two-picture JPEG) the first is read. ``as_rgb``: all of
    them come as 8-bit RGB, as IOPaint reads them, CMYK and 16-bit grey too.

    Raises:
        BadImage: naming the file, what was found, and what to do.
        OSError: the storage failed while reading.
        MemoryError: the picture is within the limits, but this machine has no room for it.
    """
    decoded = _decoded(path, limits, roots, as_mask=as_rgb)
    try:
        return _loaded(path, decoded, limits, as_rgb=as_rgb)
    except DAMAGE as error:  # what is beside the pixels, or behind them, may be broken too
        raise undecodable(shown(path), decoded.data, error) from error


def _loaded(path: str, decoded: _Decoded, limits: LimitsConfig, *, as_rgb: bool) -> LoadedImage:
    image, upright, swaps, data = decoded
    notes: list[str] = []
    encoding = _own_encoding(image, data)
    if image.format == "TIFF":
        samples = int(cast("Any", image).tag_v2.get(ExifTags.Base.SamplesPerPixel, 1))
        if samples > len(image.getbands()):
            notes.append(f"{samples - len(image.getbands())} extra channel(s) without a meaning were left out")
    if _is_one_of_several(image, data):
        notes.append("only the first frame or page was read")
    with pillow_limited(limits.image_pixels):
        pixels, alpha = _as_rgb(upright) if as_rgb else _arrays(upright)
        try:
            exif = _kept_exif(image, upright_size=upright.size)
            is_damaged = len(image.info.get("exif", b"")) > len(b"Exif\0\0") and not len(image.getexif())
        except DAMAGE:
            exif, is_damaged = None, True
        if is_damaged:
            notes.append("its EXIF block is damaged and was left out")
    pixels.flags.writeable = False
    if alpha is not None:
        alpha.flags.writeable = False
    return LoadedImage(
        path=path,
        pixels=pixels,
        alpha=alpha,
        format=_OURS[str(image.format)],
        icc=_kept_icc(image.info.get("icc_profile"), of=pixels) or None,
        exif=exif,
        dpi=_kept_dpi(image, swaps=swaps),
        input_sha256=hashlib.sha256(data).hexdigest(),
        input_bytes=len(data),
        encoding=MappingProxyType(encoding),
        notes=tuple(notes),
    )


def _is_one_of_several(image: ImageFile.ImageFile, data: bytes) -> bool:
    if image.format == "GIF":
        return _has_more_gif_frames(data, 1)
    return image.format not in ("JPEG", "MPO") and getattr(image, "n_frames", 1) > 1


# ---------------------------------------------------------------- masks


def load_mask(path: str, image: LoadedImage, limits: LimitsConfig, roots: Roots = ANYWHERE) -> NDArray[np.bool_]:
    """The holes of a mask file for ``image``: (height, width), True where it is brighter than 127 of 255.

    Any mode will do. The mask is turned as its own EXIF says; colour is weighed as luma; alpha is ignored,
    so that masks drawn by brush on a transparent ground (as web front ends send them) work.

    Raises:
        BadImage: missing, unreadable, or of another size than the picture.
        OSError: the storage failed while reading.
    """
    try:
        upright = _decoded(path, limits, roots, as_mask=True).upright
    except BadImage as problem:
        kind = (
            ImageProblem.MASK_MISSING if problem.problem is ImageProblem.IMAGE_MISSING else ImageProblem.MASK_UNREADABLE
        )
        raise BadImage(kind, f"mask {problem.message}", hint=problem.hint) from problem
    if upright.size != image.size:
        raise BadImage(
            ImageProblem.MASK_SIZE_MISMATCH,
            f"mask {shown(path)} is {upright.width} x {upright.height}, "
            f"but {shown(image.path)} is {image.size[0]} x {image.size[1]}",
            hint="make the mask from the picture as it is shown upright, at its full size",
        )
    if upright.mode in DEEP_GREY:
        holes = np.asarray(upright).astype(np.uint16) >= (HOLE_ABOVE + 1) << 8
    elif upright.mode in ("I", "F"):
        raise BadImage(
            ImageProblem.MASK_UNREADABLE,
            f"mask {shown(path)}: 32-bit grey has no known white",
            hint="save the mask as 8-bit grey",
        )
    else:
        with pillow_limited(limits.image_pixels):
            holes = np.asarray(upright.convert("L")) > HOLE_ABOVE
    return holes


# ---------------------------------------------------------------- results


@dataclass(frozen=True)
class Output:
    """Where a result goes and how it is encoded. ``quality`` is None where the format has none."""

    path: Path
    format: str
    quality: int | None
    notes: tuple[str, ...] = ()
    subsampling: str | None = None  # of a JPEG's colours; None: as its input has them

    def staged(self, task_id: str, attempt: int) -> Path:
        """The name beside the final one under which this attempt writes."""
        tail = f".{task_id}-{attempt}{STAGED_SUFFIX}"
        room = _LONGEST_NAME - len(os.fsencode(tail)) - 1
        head = os.fsencode(self.path.name)[:room].decode("utf-8", "ignore")
        return self.path.with_name(f".{head}{tail}")


def _format_named(name: str) -> str | None:
    lowered = name.lower().removeprefix(".")
    return next((f for f, suffixes in FORMATS.items() if lowered == f or f".{lowered}" in suffixes), None)


_LOSSY = ("jpeg", "webp")  # WebP can be lossless, but nothing in a task asks for that


def output_format_of(task: Task, input_format: str) -> str:
    """The format of a task's result: ``config.format``, else ``output_path``'s suffix, else the input's.

    BMP and GIF are not written: their results are PNG, which loses nothing. So are masks (``segment``).

    Raises:
        BadImage: an unknown format is asked for.
    """
    wish = task.config.get("format")
    suffix = Path(task.output_path).suffix if task.output_path else ""
    if wish is not None:
        named, asked = _format_named(wish) if isinstance(wish, str) else None, f"config.format {wish!r}"
    elif suffix:
        named, asked = _format_named(suffix), f"the suffix {shown(suffix)!r} of output_path"
    else:
        return input_format if input_format in FORMATS and task.task_type is not TaskType.SEGMENT else "png"
    if named is None:
        raise BadImage(
            ImageProblem.FORMAT_UNSUPPORTED,
            f"{shown(task.image_path)}: {shown(asked)} names no format that can be written",
            hint=f"use one of {', '.join(FORMATS)}",
        )
    if task.task_type is TaskType.SEGMENT and named in _LOSSY:
        raise BadImage(
            ImageProblem.FORMAT_UNSUPPORTED,
            f"{shown(task.image_path)}: {shown(asked)} would blur the edges of a mask",
            hint="use png or tiff",
        )
    return named


def output_path_of(task: Task, format: str) -> str:  # noqa: A002 - the word people use for it
    """Where the result of ``task`` goes: its ``output_path``, else ``cleaned/`` beside the picture.

    The name there is the picture's, with ``_mask`` after it for a mask (``segment``); its suffix stays where it
    already means ``format``. No file is touched.
    """
    if task.output_path:
        return task.output_path
    picture = Path(task.image_path)
    suffix = picture.suffix if picture.suffix.lower() in FORMATS[format] else FORMATS[format][0]
    stem = picture.stem if picture.suffix else picture.name
    if task.task_type is TaskType.SEGMENT:
        stem += "_mask"
    return str(picture.parent / "cleaned" / f"{stem}{suffix}")


def plan_output(task: Task, image: LoadedImage) -> Output:
    """Decide path, format and quality of a result, before any work is spent on it.

    Raises:
        BadImage: the format cannot hold the picture, a key of the configuration is wrong, the path is the
            input itself or a folder.
    """
    name = shown(image.path)
    chosen = output_format_of(task, image.format)
    notes: list[str] = []
    if chosen == "jpeg" and image.alpha is not None:
        raise BadImage(
            ImageProblem.FORMAT_UNSUPPORTED,
            f"{name}: has transparency, which JPEG cannot hold",
            hint="set config.format to png or webp",
        )
    if chosen in ("jpeg", "webp") and image.pixels.dtype != np.uint8:
        raise BadImage(
            ImageProblem.FORMAT_UNSUPPORTED,
            f"{name}: has 16 bits a pixel, which {chosen} cannot hold",
            hint="set config.format to png or tiff",
        )
    longest = _LONGEST_SIDE.get(chosen)
    if longest is not None and max(image.size) > longest:
        raise BadImage(
            ImageProblem.FORMAT_UNSUPPORTED,
            f"{name}: is {image.size[0]} x {image.size[1]}, {chosen} ends at {longest}",
            hint="set config.format to png or tiff",
        )
    quality = task.config.get("quality")
    if quality is not None and (isinstance(quality, bool) or not isinstance(quality, int) or not 1 <= quality <= 100):
        raise BadImage(
            ImageProblem.CONFIG_INVALID,
            f"{name}: config.quality must be a whole number from 1 to 100, found {quality!r:.80}",
        )
    if quality is not None and chosen not in ("jpeg", "webp"):
        notes.append(f"config.quality has no meaning for {chosen}")
        quality = None
    path = Path(output_path_of(task, chosen))
    for kind, used in (("picture", task.image_path), ("mask", task.mask_path)):
        if used is not None and _is_same_file(path, Path(used)):
            raise BadImage(
                ImageProblem.OUTPUT_UNWRITABLE,
                f"{shown(path)}: is the {kind} itself, which is never overwritten",
                hint="give another output_path, or none for the folder 'cleaned'",
            )
    if len(os.fsencode(path.name)) > _LONGEST_NAME:
        raise BadImage(
            ImageProblem.OUTPUT_UNWRITABLE,
            f"{shown(path)}: the name is longer than {_LONGEST_NAME} bytes",
            hint="give a shorter output_path",
        )
    if path.is_dir():
        raise BadImage(
            ImageProblem.OUTPUT_UNWRITABLE,
            f"{shown(path)}: is a folder",
            hint="give output_path with a file name",
        )
    subsampling = task.config.get("subsampling")
    if subsampling is not None and subsampling not in _SUBSAMPLINGS:
        raise BadImage(
            ImageProblem.CONFIG_INVALID,
            f"{name}: config.subsampling must be one of {', '.join(_SUBSAMPLINGS)}, found {subsampling!r:.80}",
        )
    return Output(path=path, format=chosen, quality=quality, notes=tuple(notes), subsampling=subsampling)


def _is_same_file(one: Path, other: Path) -> bool:
    try:
        return one.resolve() == other.resolve() or one.samefile(other)
    except (OSError, RuntimeError):  # one of them does not exist (yet), or is a loop of links
        return False


def as_result(task: Task, image: LoadedImage, pixels: NDArray[Any]) -> LoadedImage:
    """What ``task``, which is not inpainting, made of ``image``: ``pixels``, with what of the rest still holds.

    upscale: the alpha grows along. segment: a mask of 0 and 255 (or the greys given), and nothing else. plugin: a
    fourth channel is the alpha; where there is none, the picture's own stays if the size did.
    """
    if task.task_type is TaskType.SEGMENT:
        grey = np.where(pixels, np.uint8(255), np.uint8(0)) if pixels.dtype == np.bool_ else pixels
        return replace(image, pixels=grey, alpha=None, format="png", icc=None, exif=None, encoding={})
    size = (int(pixels.shape[1]), int(pixels.shape[0]))
    alpha, notes = image.alpha, image.notes
    own_alpha = pixels.ndim == 3 and pixels.shape[2] == 4
    if own_alpha:
        pixels, alpha = np.ascontiguousarray(pixels[..., :3]), np.ascontiguousarray(pixels[..., 3])
    elif alpha is not None and size != image.size:
        if task.task_type is TaskType.UPSCALE:
            alpha = np.asarray(Image.fromarray(alpha).resize(size, Image.Resampling.BICUBIC))
        else:
            alpha, notes = None, (*notes, "the picture's transparency was left out: the result has another size")
    return replace(
        image,
        pixels=pixels,
        alpha=alpha,
        format="png" if own_alpha and image.format == "jpeg" else image.format,
        icc=image.icc if pixels.ndim == image.pixels.ndim else None,
        exif=_exif_of_size(image.exif, size) if image.exif is not None and size != image.size else image.exif,
        notes=notes,
    )


def _exif_of_size(exif: bytes, size: tuple[int, int]) -> bytes:
    kept = Image.Exif()
    kept.load(exif)
    directory = kept.get_ifd(ExifTags.IFD.Exif)
    for tag, side in zip((ExifTags.Base.ExifImageWidth, ExifTags.Base.ExifImageHeight), size, strict=True):
        if tag in directory:
            directory[tag] = side
    return kept.tobytes()


def encoded_size(data: bytes) -> tuple[int, int] | None:
    """Width and height that the header of an encoded picture tells; None where it is no picture."""
    try:
        with pillow_limited(sys.maxsize):
            return Image.open(io.BytesIO(data), formats=READABLE).size
    except DAMAGE:
        return None


def encode(image: LoadedImage, pixels: NDArray[Any], output: Output) -> tuple[bytes, tuple[str, ...]]:
    """``pixels`` as a file of ``output``'s format, with ``image``'s alpha, profile, EXIF and resolution.

    PNG, TIFF and lossless WebP read back bit by bit. JPEG and lossy WebP do not: there only the pixels handed
    in are exact. Without a quality: JPEG 95, and WebP 95 or lossless as its input was; JPEG keeps the colour
    sampling of a JPEG input and has 4:4:4 otherwise.

    Returns the bytes, and notes on what the format could not carry.

    Raises:
        BadImage: the encoder refuses the picture.
    """
    notes: list[str] = []
    picture = Image.fromarray(pixels if image.alpha is None else np.dstack((pixels, image.alpha)))
    own = image.encoding if image.format == output.format else {}
    options: dict[str, Any] = {}
    icc, exif = image.icc, image.exif
    match output.format:
        case "jpeg":
            sampling = output.subsampling or own.get("subsampling", 0)
            options = {"quality": output.quality or 95, "subsampling": sampling}
            if exif is not None and len(exif) > _JPEG_EXIF_BYTES:
                exif = None
                notes.append("its EXIF block is too long for JPEG and was left out")
        case "webp":
            lossless = bool(own.get("lossless")) and output.quality is None
            options = {
                "lossless": lossless,
                "quality": 100 if lossless else output.quality or 95,
                "exact": True,
            }
            if icc is not None and icc[16:20] == b"GRAY":
                icc = None
                notes.append("WebP has no grey: the grey colour profile was left out")
        case "tiff":
            options = {"compression": own.get("compression", "tiff_adobe_deflate")}
            if exif is not None and _has_directories(exif) and options["compression"] != "raw":
                # libtiff's encoder cannot write them, Pillow's own (uncompressed) can
                options = {"compression": "raw"}
                notes.append("written uncompressed, which keeps its EXIF")
    if icc is not None:
        options["icc_profile"] = icc
    if exif is not None:
        options["exif"] = exif
    if image.dpi is not None and output.format != "webp":
        options["dpi"] = image.dpi
    buffer = io.BytesIO()
    try:
        picture.save(buffer, format=output.format.upper(), **options)
    except DAMAGE as error:
        raise BadImage(
            ImageProblem.FORMAT_UNSUPPORTED,
            f"{shown(image.path)}: cannot be written as {output.format}: {error}",
            hint="set config.format to png",
        ) from error
    return buffer.getvalue(), tuple(notes)


def _has_directories(exif: bytes) -> bool:
    kept = Image.Exif()
    kept.load(exif)
    return ExifTags.IFD.Exif in kept or ExifTags.IFD.GPSInfo in kept


def write_staged(staged: Path, data: bytes, roots: Roots = ANYWHERE) -> None:
    """Write a new file and see it onto the disk. Its folder is made where missing.

    A leftover of the same name is replaced, a link never followed. What fails leaves no file behind.

    Raises:
        OutsideRoots: its folder is, or a link on the way there leads out.
        OSError: as the system says it.
    """
    name = staged.name
    with roots.folder(staged.parent, make=True) as folder:
        with contextlib.suppress(FileNotFoundError):
            mode = os.stat(name, dir_fd=folder, follow_symlinks=False).st_mode
            if stat.S_ISREG(mode) or stat.S_ISLNK(mode):
                os.unlink(name, dir_fd=folder)
        descriptor = os.open(name, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o666, dir_fd=folder)
        try:
            with os.fdopen(descriptor, "wb", buffering=0) as file:
                rest = memoryview(data)
                while rest:
                    rest = rest[file.write(rest) :]
                os.fsync(file.fileno())
        except BaseException:
            with contextlib.suppress(FileNotFoundError):
                os.unlink(name, dir_fd=folder)
            raise
