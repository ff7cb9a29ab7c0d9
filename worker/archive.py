"""The tensors in a weight file, whatever wrote it: torch.save, TorchScript or safetensors. Nothing in it is run.

A file is read by offset, a tensor at a time, and every claim it makes about itself is held against its size.
Neither torch nor a library that reads pickles is needed, and none is imported.
"""

from __future__ import annotations

import itertools
import json
import math
import os
import struct
import zipfile
import zlib
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import PurePosixPath
from typing import IO, Any, BinaryIO, NoReturn

import numpy as np
from numpy.typing import NDArray

from lcq.errors import WeightsRefused
from worker.inert_pickle import MOST_BYTES, StandIn, Storage, Tensor, read_pickle

LARGEST_FILE = 8 * 2**30  # no inpainting model that is read here has more; what claims more is not one
_MOST_MEMBERS = 100_000
_MOST_HEADER = 16 * 2**20  # of a safetensors file; big-lama's has 0.1 MB
_MOST_DIMENSIONS = 8
_DEEPEST = 64  # modules in modules
_BOMB_RATIO = 50  # weights are close to noise: they pack to nine tenths
_CHUNK = 2**20
_WEIGHT_FILES = (".ckpt", ".pt", ".pth", ".safetensors")
_AGAIN = "get the file anew"
_PUBLISHED = "get the weights as the project publishes them"

_NUMPY: dict[str, np.dtype[Any]] = {
    "F64": np.dtype("<f8"),
    "F32": np.dtype("<f4"),
    "F16": np.dtype("<f2"),
    "BF16": np.dtype("<u2"),  # numpy has none: its bits are the upper half of a float32's
    "I64": np.dtype("<i8"),
    "I32": np.dtype("<i4"),
    "I16": np.dtype("<i2"),
    "I8": np.dtype("i1"),
    "U8": np.dtype("u1"),
    "BOOL": np.dtype("?"),
}
FLOATS = ("F64", "F32", "F16", "BF16")


@dataclass(frozen=True)
class Region:
    """Some bytes of an open file, all of them within it. ``crc32`` is what the file says they sum up to."""

    file: BinaryIO = field(repr=False)
    label: str
    start: int
    size: int
    crc32: int | None = None

    def read(self, offset: int, size: int) -> bytes:
        """Raises:
        WeightsRefused: the file has become shorter.
        """
        content = os.pread(self.file.fileno(), size, self.start + offset)
        if len(content) < size:
            _refuse(self.label, f"it ends at byte {self.start + offset + len(content)}, in the middle", _AGAIN)
        return content

    def check(self) -> None:
        """Raises:
        WeightsRefused: the bytes are not those that were written.
        """
        if self.crc32 is None:
            return
        found = 0
        for offset in range(0, self.size, _CHUNK):
            found = zlib.crc32(self.read(offset, min(_CHUNK, self.size - offset)), found)
        if found != self.crc32:
            _refuse(self.label, f"the {self.size} bytes at {self.start} are damaged, their CRC is wrong", _AGAIN)


@dataclass(frozen=True)
class StoredTensor:
    """A tensor that is still in its file; offset and strides count elements, and lie within the region."""

    region: Region
    dtype: str
    shape: tuple[int, ...]
    strides: tuple[int, ...]
    offset: int

    @property
    def size(self) -> int:
        """How many elements it has."""
        return math.prod(self.shape)

    @property
    def nbytes(self) -> int:
        return self.size * _NUMPY[self.dtype].itemsize

    def read(self) -> NDArray[Any]:
        """A copy in memory, contiguous. bfloat16 comes as float32, which holds it exactly."""
        kind = _NUMPY[self.dtype]
        if not self.size:
            return np.empty(self.shape, dtype=np.float32 if self.dtype == "BF16" else kind)
        span = 1 + sum((length - 1) * stride for length, stride in zip(self.shape, self.strides, strict=True))
        flat = np.frombuffer(self.region.read(self.offset * kind.itemsize, span * kind.itemsize), dtype=kind)
        steps = [  # the stride along a length of 1 is never taken, and may be any number
            stride * kind.itemsize if length > 1 else 0 for length, stride in zip(self.shape, self.strides, strict=True)
        ]
        values = np.lib.stride_tricks.as_strided(flat, self.shape, steps, writeable=False)
        if self.dtype == "BF16":
            return (values.astype(np.uint32) << 16).view(np.float32)
        return values.astype(kind.newbyteorder("="), order="C")


@dataclass(frozen=True)
class Contents:
    """What a weight file holds. The tensors can be read for as long as the file is open."""

    layout: str  # "checkpoint", "torchscript" or "safetensors"
    tensors: Mapping[str, StoredTensor]


def read_tensors(file: BinaryIO, label: str) -> Contents:
    """All tensors in an open weight file, by name, unread. ``label`` names the file in errors.

    Of a checkpoint with a ``state_dict`` only that is looked at; names of modules in modules are joined by dots.

    Raises:
        WeightsRefused: it is no weight file, is damaged, or asks for anything but tensors.
    """
    size = os.fstat(file.fileno()).st_size
    start = os.pread(file.fileno(), 512, 0)
    if start.startswith(b"PK"):
        with _opened_zip(file, label) as packed:
            return _from_torch(file, packed, label)
    if len(start) > 8 and start[8:9] == b"{":
        return Contents("safetensors", dict(_from_safetensors(file, size, label)))
    return _refuse(label, *_what_it_is(start, size))


def _refuse(label: str, found: str, hint: str = _PUBLISHED) -> NoReturn:
    raise WeightsRefused(label, found, hint=hint)


def _what_it_is(start: bytes, size: int) -> tuple[str, str]:
    """What a file that is no weight file is, in words, and what to do."""
    if not size:
        return "it is empty", _AGAIN
    if start[257:262] == b"ustar":
        return (
            "it is a tar file, as torch before 0.1.10 saved, or a packed folder",
            "unpack it; or load it where it is trusted, and save it anew with torch 1.6 or later",
        )
    if start.startswith(b"\x80"):
        return (
            "it is a bare pickle, as torch before 1.6 saved: its tensors cannot be read without running it",
            "load it where it is trusted, and save it anew with torch 1.6 or later",
        )
    if start.lstrip()[:1] == b"<":
        return "it is a web page, not weights", "open the address in a browser: it may ask for a login"
    if start.startswith((b"\x1f\x8b", b"BZh", b"7z\xbc\xaf", b"\xfd7zXZ", b"Rar!")):
        return "it is packed", "unpack it first"
    return "it is neither a torch archive (a zip) nor safetensors", _PUBLISHED


# ---------------------------------------------------------------- zip: torch's archives, and archives in a zip


def _opened_zip(file: BinaryIO, label: str) -> zipfile.ZipFile:
    try:
        packed = zipfile.ZipFile(file)
    except zipfile.BadZipFile as error:
        size = os.fstat(file.fileno()).st_size
        raise WeightsRefused(
            label,
            f"it begins as a zip of torch does, but its end is missing or damaged: {size} bytes are there",
            hint=_AGAIN,
        ) from error
    except (ValueError, NotImplementedError, OSError, struct.error, OverflowError) as error:
        raise WeightsRefused(label, f"it is a damaged zip: {error}", hint=_AGAIN) from error
    if len(packed.filelist) > _MOST_MEMBERS:
        _refuse(label, f"it is a zip of {len(packed.filelist)} files")
    return packed


def _regions(file: BinaryIO, packed: zipfile.ZipFile, label: str) -> dict[str, Region]:
    """Where each member of the zip lies, by name; none reaches into another, or out of the file."""
    regions: dict[str, Region] = {}
    end_before, name_before = 0, ""
    for member in sorted(packed.filelist, key=lambda member: member.header_offset):
        name = member.filename
        if member.header_offset < end_before:
            _refuse(label, f"its members {name_before[:80]!r} and {name[:80]!r} overlap")
        header = os.pread(file.fileno(), 30, member.header_offset)
        if len(header) < 30 or header[:4] != b"PK\x03\x04":
            _refuse(label, f"its member {name[:80]!r} is not where the zip's index says", _AGAIN)
        name_length, extra_length = struct.unpack("<HH", header[26:30])
        start = member.header_offset + 30 + name_length + extra_length
        end_before, name_before = start + member.compress_size, name
        if end_before > packed.start_dir:
            _refuse(label, f"its member {name[:80]!r} reaches beyond the end", _AGAIN)
        if name in regions:
            _refuse(label, f"it has two members named {name[:80]!r}")
        if member.compress_type == zipfile.ZIP_STORED and not member.flag_bits & 1:
            if member.file_size != member.compress_size:
                _refuse(label, f"its member {name[:80]!r} has two sizes")
            regions[name] = Region(file, label, start, member.file_size, member.CRC)
    return regions


def _description(packed: zipfile.ZipFile) -> str | None:
    """The name of the pickle that describes a torch archive; None: it is another zip."""
    found = [name for name in packed.namelist() if name.endswith("/data.pkl") and name.count("/") == 1]
    return found[0] if found else None


def _from_torch(file: BinaryIO, packed: zipfile.ZipFile, label: str) -> Contents:
    described = _description(packed)
    if described is None:
        _refuse(label, "it is a zip, but not one that torch wrote: it has no data.pkl")
    regions = _regions(file, packed, label)
    root = described.removesuffix("data.pkl")
    pickled, order = regions.get(described), regions.get(f"{root}byteorder")
    if pickled is None:
        _refuse(label, f"its {described[:80]!r} is packed or encrypted, which torch never does")
    if order is not None and order.size <= 16 and order.read(0, order.size) != b"little":
        _refuse(label, "its numbers are big-endian", "save it anew on a little-endian machine")
    if pickled.size > MOST_BYTES:
        _refuse(label, f"its {described[:80]!r} has {pickled.size} bytes; those of weights have less than a megabyte")
    pickled.check()
    value = read_pickle(pickled.read(0, pickled.size), label)
    layout = "torchscript" if isinstance(value, StandIn) else "checkpoint"
    if isinstance(value, dict) and isinstance(value.get("state_dict"), dict):
        value = value["state_dict"]
    named: dict[str, StoredTensor] = {}
    for name, tensor in _walk(value, label):
        named[name] = _placed(tensor, regions.get(f"{root}data/{tensor.storage.key}"), name, label)
    return Contents(layout, named)


def _walk(value: Any, label: str) -> Iterator[tuple[str, Tensor]]:
    """Each tensor with its name: through dicts and scripted modules, each of which is entered once."""
    waiting: list[tuple[str, Any, int]] = [("", value, 0)]
    entered: set[int] = set()
    while waiting:
        prefix, holder, depth = waiting.pop()
        inside = holder.state if isinstance(holder, StandIn) else holder
        if not isinstance(inside, dict) or id(inside) in entered:
            continue
        entered.add(id(inside))
        if depth > _DEEPEST:
            _refuse(label, f"its modules lie more than {_DEEPEST} deep in each other")
        for name, part in inside.items():
            if isinstance(part, Tensor):
                yield prefix + name, part
            elif isinstance(part, dict | StandIn):
                waiting.append((f"{prefix}{name}.", part, depth + 1))


def _placed(tensor: Tensor, region: Region | None, name: str, label: str) -> StoredTensor:
    """The tensor in its record, all of it: nothing is taken on trust."""
    shown, storage = repr(name[:120]), tensor.storage
    if region is None:
        _refuse(label, f"the numbers of {shown} are missing, or packed, which torch never does", _AGAIN)
    _within(storage, tensor, region, shown, label)
    return StoredTensor(region, storage.dtype, tensor.shape, tensor.strides, tensor.offset)


def _within(storage: Storage, tensor: Tensor, region: Region, shown: str, label: str) -> None:
    there = region.size // _NUMPY[storage.dtype].itemsize
    if not 0 <= storage.elements <= there:
        _refuse(label, f"{shown} claims {storage.elements} numbers, its record has {there}", _AGAIN)
    if len(tensor.shape) != len(tensor.strides) or len(tensor.shape) > _MOST_DIMENSIONS:
        _refuse(label, f"{shown} has {len(tensor.shape)} lengths and {len(tensor.strides)} strides")
    if min((tensor.offset, *tensor.shape, *tensor.strides)) < 0:
        _refuse(label, f"{shown} has a negative offset, length or stride")
    if not math.prod(tensor.shape):
        return
    last = tensor.offset + sum((length - 1) * step for length, step in zip(tensor.shape, tensor.strides, strict=True))
    if last >= storage.elements or math.prod(tensor.shape) > storage.elements:
        _refuse(label, f"{shown} of shape {_shape(tensor.shape)} reaches out of its {storage.elements} numbers")


def _shape(shape: tuple[int, ...]) -> str:
    return "x".join(str(length) for length in shape)[:120] or "()"


@dataclass(frozen=True)
class Packed:
    """A weight file inside a zip."""

    file: BinaryIO = field(repr=False)
    label: str
    member: zipfile.ZipInfo

    @property
    def name(self) -> str:
        return PurePosixPath(self.member.filename).name

    @property
    def size(self) -> int:
        return self.member.file_size

    def unpack(self, target: BinaryIO, progress: Callable[[int], None]) -> None:
        """Write it to ``target``; ``progress`` is told the bytes so far.

        Raises:
            WeightsRefused: it is damaged, or is not as long as it claims.
        """
        written = 0
        try:
            with zipfile.ZipFile(self.file) as packed, self._opened(packed) as source:
                while chunk := source.read(_CHUNK):
                    written += len(chunk)
                    target.write(chunk)
                    progress(written)
        except (zipfile.BadZipFile, zlib.error, EOFError, RuntimeError, NotImplementedError) as error:
            raise WeightsRefused(self.label, f"its member {self.name!r} is damaged: {error}", hint=_AGAIN) from error
        if written != self.size:
            _refuse(self.label, f"its member {self.name!r} has {written} bytes and claims {self.size}", _AGAIN)

    def _opened(self, packed: zipfile.ZipFile) -> IO[bytes]:
        """Apart from writing, whose OSError tells of our disk: this one's tells of a place that is none."""
        try:
            return packed.open(self.member)
        except (OSError, ValueError, OverflowError, struct.error) as error:
            found = f"its member {self.name!r} is not where the zip's index says: {error}"
            raise WeightsRefused(self.label, found, hint=_AGAIN) from error


def packed_weights(file: BinaryIO, label: str, wanted: str | None = None) -> Packed | None:
    """The weight file inside a zip such as big-lama.zip; None: the file is one itself.

    ``wanted`` names the member; else it is the only one whose name ends as those of weights do.

    Raises:
        WeightsRefused: there is none, or more than one, or it is a zip bomb.
    """
    if not os.pread(file.fileno(), 4, 0).startswith(b"PK"):
        return None
    with _opened_zip(file, label) as packed:
        if _description(packed) is not None:
            return None
        files = [member for member in packed.filelist if not member.filename.endswith("/")]
    fitting = [
        member
        for member in files
        if (member.filename == wanted if wanted else member.filename.lower().endswith(_WEIGHT_FILES))
    ]
    if len(fitting) != 1:
        listed = ", ".join(member.filename[:80] for member in itertools.islice(fitting or files, 5)) or "nothing"
        if wanted:
            _refuse(
                label, f"it has no member {wanted!r}; it has {listed}", "set models.sources.NAME.file to one of them"
            )
        word = "several weight files" if fitting else "no weight file"
        _refuse(label, f"it is a zip with {word} in it: {listed}", "unpack it, and add the right file")
    member = fitting[0]
    if member.flag_bits & 1 or member.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
        _refuse(label, f"its member {member.filename[:80]!r} is encrypted or packed in a rare way", "unpack it first")
    if member.file_size > min(LARGEST_FILE, _BOMB_RATIO * member.compress_size + _CHUNK):
        _refuse(
            label,
            f"its member {member.filename[:80]!r} claims {member.file_size} bytes from {member.compress_size}: "
            "weights do not shrink like that",
        )
    return Packed(file, label, member)


# ---------------------------------------------------------------- safetensors


def _from_safetensors(file: BinaryIO, size: int, label: str) -> Iterator[tuple[str, StoredTensor]]:
    """Each tensor with its name. The file must be filled by them without overlap, as the format demands."""
    length = int.from_bytes(os.pread(file.fileno(), 8, 0), "little")
    if length > min(_MOST_HEADER, size - 8):
        _refuse(label, f"it looks like safetensors, but claims a header of {length} bytes in a file of {size}", _AGAIN)
    try:
        header = json.loads(os.pread(file.fileno(), length, 8))
        data = Region(file, label, 8 + length, size - 8 - length)
        found = [_described(name, entry, data) for name, entry in header.items() if name != "__metadata__"]
    except (ValueError, TypeError, KeyError, AttributeError, RecursionError) as error:
        raise WeightsRefused(label, f"its safetensors header is damaged: {error}", hint=_AGAIN) from error
    reached = 0
    for name, tensor in sorted(found, key=lambda pair: pair[1].region.start):
        if tensor.region.start != data.start + reached:
            _refuse(label, f"the numbers of {name[:120]!r} overlap others, or leave a gap")
        reached += tensor.region.size
        yield name, tensor
    if reached != data.size:
        _refuse(label, f"its tensors have {reached} bytes and it has {data.size} for them", _AGAIN)


def _described(name: str, entry: Mapping[str, Any], data: Region) -> tuple[str, StoredTensor]:
    dtype, shape, (begin, end) = entry["dtype"], tuple(entry["shape"]), entry["data_offsets"]
    if dtype not in _NUMPY:
        raise ValueError(f"{name[:120]!r} is of the unknown type {str(dtype)[:20]!r}")
    if any(type(number) is not int or number < 0 for number in (*shape, begin, end)) or len(shape) > _MOST_DIMENSIONS:
        raise ValueError(f"{name[:120]!r} has no usable shape or place")
    size = math.prod(shape) * _NUMPY[dtype].itemsize
    if end - begin != size:
        raise ValueError(f"{name[:120]!r} of shape {_shape(shape)} does not fill its place")
    if end > data.size:
        _refuse(data.label, f"the numbers of {name[:120]!r} are missing: it ends before them", _AGAIN)
    strides = tuple(math.prod(shape[axis + 1 :]) for axis in range(len(shape)))
    region = Region(data.file, data.label, data.start + begin, size)
    return name, StoredTensor(region, dtype, shape, strides, 0)
