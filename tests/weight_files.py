"""Small weight files of each layout, sound and hostile, for the tests of what reads them."""

from __future__ import annotations

import json
import math
import struct
import zipfile
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from worker.lama_tensors import generator_shapes

Arrays = dict[str, NDArray[Any]]

STORAGES = {
    "float32": "FloatStorage", "float64": "DoubleStorage", "float16": "HalfStorage", "int64": "LongStorage",
    "uint8": "ByteStorage",
}  # fmt: skip
CHANNELS, BLOCKS = 2, 1


def generator_arrays(prefix: str = "", *, channels: int = CHANNELS, blocks: int = BLOCKS, seed: int = 0) -> Arrays:
    """A tiny LaMa generator with random weights, and a counter beside each of its norms, as files have them."""
    chance = np.random.default_rng(seed)
    arrays: Arrays = {}
    for name, shape in generator_shapes(channels, blocks).items():
        values = chance.standard_normal(shape).astype(np.float32)
        arrays[prefix + name] = np.abs(values) if name.endswith("running_var") else values
        if name.endswith("running_var"):
            arrays[prefix + name.replace("running_var", "num_batches_tracked")] = np.array(7)
    return arrays


def bare(arrays: Mapping[str, NDArray[Any]], prefix: str = "") -> Arrays:
    """What of ``arrays`` an engine needs: without prefix, counters, and what is not the generator's."""
    return {
        name.removeprefix(prefix): values
        for name, values in arrays.items()
        if name.startswith(f"{prefix}model.") and not name.endswith("num_batches_tracked")
    }


@dataclass(frozen=True)
class View:
    """A tensor as a pickle describes it."""

    storage: str
    key: str
    elements: int
    offset: int
    shape: tuple[int, ...]
    strides: tuple[int, ...]


def view_of(values: NDArray[Any], key: str) -> View:
    strides = tuple(math.prod(values.shape[axis + 1 :]) for axis in range(values.ndim))
    return View(STORAGES[str(values.dtype)], key, values.size, 0, values.shape, strides)


def _text(value: str) -> bytes:
    return b"X" + struct.pack("<I", len(value.encode())) + value.encode()


def _number(value: int) -> bytes:
    raw = value.to_bytes(value.bit_length() // 8 + 1, "little", signed=True)
    return b"\x8a" + bytes([len(raw)]) + raw


def _numbers(values: tuple[int, ...]) -> bytes:
    return b"(" + b"".join(map(_number, values)) + b"t"


def pickled_view(view: View) -> bytes:
    """The steps that leave a tensor on the stack, as torch writes them."""
    storage = b"(" + _text("storage") + f"ctorch\n{view.storage}\n".encode() + _text(view.key) + _text("cpu")
    storage += _number(view.elements) + b"tQ"
    where = _number(view.offset) + _numbers(view.shape) + _numbers(view.strides)
    return b"ctorch._utils\n_rebuild_tensor_v2\n(" + storage + where + b"\x89ccollections\nOrderedDict\n)RtR"


def pickled(views: Mapping[str, View], *, extra: bytes = b"") -> bytes:
    """A pickle of a dict of tensors; ``extra``: further steps inside the dict, a text key and a value in turn."""
    items = b"".join(_text(name) + pickled_view(view) for name, view in views.items())
    return b"\x80\x02}(" + items + extra + b"u."


def item(name: str, steps: bytes) -> bytes:
    return _text(name) + steps


def torch_zip(
    path: Path,
    description: bytes,
    records: Mapping[str, bytes],
    *,
    compression: int = zipfile.ZIP_STORED,
    byteorder: bytes = b"little",
) -> Path:
    """A zip laid out as torch's are."""
    with zipfile.ZipFile(path, "w", compression) as packed:
        packed.writestr("small/data.pkl", description)
        packed.writestr("small/byteorder", byteorder)
        for key, content in records.items():
            packed.writestr(f"small/data/{key}", content)
        packed.writestr("small/version", b"3\n")
    return path


def checkpoint(path: Path, arrays: Mapping[str, NDArray[Any]], *, extra: bytes = b"", **changed: Any) -> Path:
    """A state dict, as torch.save writes one. ``changed``: name with dots as __ -> fields of its View to change."""
    views = {name: view_of(values, str(number)) for number, (name, values) in enumerate(arrays.items())}
    for name, fields in changed.items():
        views[name.replace("__", ".")] = replace(views[name.replace("__", ".")], **fields)
    records = {str(number): values.tobytes() for number, values in enumerate(arrays.values())}
    return torch_zip(path, pickled(views, extra=extra), records)


def safetensors(path: Path, arrays: Mapping[str, NDArray[Any]], dtypes: Mapping[str, str] | None = None) -> Path:
    """The same as safetensors; ``dtypes``: for those whose numpy type is not what they are."""
    names = {"float32": "F32", "float64": "F64", "float16": "F16", "int64": "I64", "uint16": "BF16"}
    header: dict[str, Any] = {}
    end = 0
    for name, values in arrays.items():
        begin, end = end, end + values.nbytes
        dtype = (dtypes or {}).get(name, names[str(values.dtype)])
        header[name] = {"dtype": dtype, "shape": values.shape, "data_offsets": [begin, end]}
    return raw_safetensors(path, header, b"".join(values.tobytes() for values in arrays.values()))


def raw_safetensors(path: Path, header: Any, data: bytes) -> Path:
    words = header if isinstance(header, bytes) else json.dumps(header).encode()
    path.write_bytes(len(words).to_bytes(8, "little") + words + data)
    return path
