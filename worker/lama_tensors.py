"""What the tensors of a LaMa generator are called and how long they are: by this its weights are told from others."""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import NoReturn

from lcq.errors import WeightsRefused
from worker.archive import FLOATS, StoredTensor

_STEM = "model.1.ffc.convl2l.weight"
_COUNTER = ".num_batches_tracked"  # how often a layer was trained: of no use, and dropped
_MOST_CHANNELS, _MOST_BLOCKS = 1024, 200  # big-lama: 64 and 18
_OTHERS = "LCQ runs LaMa generators; other models run in IOPaint (see iopaint in the settings)"

Shape = tuple[int, ...]


@dataclass(frozen=True)
class Generator:
    """A LaMa generator in a weight file: its tensors by their bare names, ``model.<index>…``."""

    channels: int  # of the first layer; the published ones have 64
    blocks: int
    prefix: str  # of its names in the file
    tensors: Mapping[str, StoredTensor]

    @property
    def parameters(self) -> int:
        """How many numbers it has that were learned, as they are usually counted: without running statistics."""
        return sum(tensor.size for name, tensor in self.tensors.items() if ".running_" not in name)


def generator_shapes(channels: int, blocks: int) -> dict[str, Shape]:
    """The names and shapes of all tensors, in the order of the layers, without the counters."""
    shapes: dict[str, Shape] = {}

    def norm(name: str, length: int) -> None:
        for part in ("weight", "bias", "running_mean", "running_var"):
            shapes[f"{name}.{part}"] = (length,)

    def convolution(name: str, outputs: int, inputs: int, side: int) -> None:
        shapes[f"{name}.weight"] = (outputs, inputs, side, side)

    widths = [channels, 2 * channels, 4 * channels, 8 * channels]
    local, remote = 2 * channels, 6 * channels  # a quarter of the widest, and the rest
    half = remote // 2
    convolution("model.1.ffc.convl2l", channels, 4, 7)
    norm("model.1.bn_l", channels)
    for index, (inputs, outputs) in enumerate(itertools.pairwise(widths[:3]), 2):
        convolution(f"model.{index}.ffc.convl2l", outputs, inputs, 3)
        norm(f"model.{index}.bn_l", outputs)
    convolution("model.4.ffc.convl2l", local, widths[2], 3)
    convolution("model.4.ffc.convl2g", remote, widths[2], 3)
    norm("model.4.bn_l", local)
    norm("model.4.bn_g", remote)
    for block in range(5, 5 + blocks):
        for layer in (f"model.{block}.conv1", f"model.{block}.conv2"):
            convolution(f"{layer}.ffc.convl2l", local, local, 3)
            convolution(f"{layer}.ffc.convl2g", remote, local, 3)
            convolution(f"{layer}.ffc.convg2l", local, remote, 3)
            convolution(f"{layer}.ffc.convg2g.conv1.0", half, remote, 1)
            norm(f"{layer}.ffc.convg2g.conv1.1", half)
            convolution(f"{layer}.ffc.convg2g.fu.conv_layer", remote, remote, 1)
            norm(f"{layer}.ffc.convg2g.fu.bn", remote)
            convolution(f"{layer}.ffc.convg2g.conv2", remote, half, 1)
            norm(f"{layer}.bn_l", local)
            norm(f"{layer}.bn_g", remote)
    index = 6 + blocks  # one further than the blocks: there the two halves are joined
    for outputs, inputs in reversed(tuple(itertools.pairwise(widths))):
        shapes[f"model.{index}.weight"] = (inputs, outputs, 3, 3)
        shapes[f"model.{index}.bias"] = (outputs,)
        norm(f"model.{index + 1}", outputs)
        index += 3
    shapes[f"model.{index + 1}.weight"] = (3, channels, 7, 7)
    shapes[f"model.{index + 1}.bias"] = (3,)
    return shapes


def find_generator(tensors: Mapping[str, StoredTensor], label: str) -> Generator:
    """The LaMa generator among ``tensors``, wherever it stands; all else there is left alone.

    Raises:
        WeightsRefused: there is none, or it has not just the tensors it should have, of the right shapes.
    """
    prefix = _prefix(tensors, label)
    own = {
        name.removeprefix(prefix): tensor
        for name, tensor in tensors.items()
        if name.startswith(f"{prefix}model.") and not name.endswith(_COUNTER)
    }
    stem = own[_STEM].shape
    channels = stem[0] if stem else 0
    blocks = 0
    while f"model.{5 + blocks}.conv1.ffc.convl2l.weight" in own and blocks <= _MOST_BLOCKS:
        blocks += 1
    if not 1 <= channels <= _MOST_CHANNELS or not 1 <= blocks <= _MOST_BLOCKS:
        _refuse(label, f"its first layer has {channels} channels, and {blocks} blocks follow: no LaMa generator")
    shapes = generator_shapes(channels, blocks)
    what = f"a LaMa generator of {channels} channels and {blocks} blocks"
    if missing := [name for name in shapes if name not in own]:
        _refuse(label, f"it is not {what}: it lacks {_some(missing)}")
    if surplus := [name for name in own if name not in shapes]:
        _refuse(label, f"it is not {what}: it also has {_some(surplus)}")
    for name, shape in shapes.items():
        found = own[name]
        if found.shape != shape:
            _refuse(label, f"it is not {what}: {name} is {_sides(found.shape)}, not {_sides(shape)}")
        if found.dtype not in FLOATS:
            _refuse(label, f"{name} is of type {found.dtype}; weights are floating-point numbers")
    return Generator(channels, blocks, prefix, {name: own[name] for name in shapes})


def _prefix(tensors: Mapping[str, StoredTensor], label: str) -> str:
    """What stands before the generator's names in this file."""
    ending = f".{_STEM}"
    found = [name.removesuffix(_STEM) for name in tensors if name == _STEM or name.endswith(ending)]
    generators = [prefix for prefix in found if prefix.endswith("generator.")]
    candidates = generators if len(found) > 1 and generators else found
    if not candidates:
        have = f"its {len(tensors)} tensors are {_some(tensors)}" if tensors else "it has no tensors"
        _refuse(label, f"no LaMa generator is in it: it lacks {_STEM}; {have}")
    if len(candidates) > 1:
        _refuse(label, f"it has several LaMa generators: {_some(candidates)}")
    return candidates[0]


def _some(names: Iterable[str]) -> str:
    listed = [name[:120] for name in names]
    return ", ".join(listed[:3]) + (f" and {len(listed) - 3} more" if len(listed) > 3 else "")


def _sides(shape: Shape) -> str:
    return "x".join(str(length) for length in shape) or "a single number"


def _refuse(label: str, found: str) -> NoReturn:
    raise WeightsRefused(label, found, hint=_OTHERS)
