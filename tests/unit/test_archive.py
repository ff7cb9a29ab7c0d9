"""Weight files: every layout is read to the bit, nothing in them is run, every lie they tell is found."""

from __future__ import annotations

import contextlib
import io
import itertools
import math
import os
import pickle
import random
import struct
import subprocess
import sys
import types
import warnings
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from lcq.errors import WeightsRefused
from tests.weight_files import (
    Arrays,
    View,
    bare,
    checkpoint,
    generator_arrays,
    item,
    pickled,
    pickled_view,
    raw_safetensors,
    safetensors,
    torch_zip,
    view_of,
)
from worker.archive import packed_weights, read_tensors
from worker.inert_pickle import StandIn, read_pickle
from worker.lama_tensors import find_generator, generator_shapes

SMALL = Path(__file__).parents[1] / "data" / "lama" / "small_weights.npz"


def read(path: Path) -> tuple[str, Arrays]:
    """The layout of a file, and all its tensors."""
    with path.open("rb") as file:
        contents = read_tensors(file, path.name)
        return contents.layout, {name: tensor.read() for name, tensor in contents.tensors.items()}


def look_at_all(path: Path) -> None:
    with path.open("rb") as file:
        generator = find_generator(read_tensors(file, path.name).tensors, path.name)
        for tensor in generator.tensors.values():
            tensor.region.check()
            tensor.read()


def refusal(path: Path) -> str:
    """Why a file is refused, when all that an installation looks at is looked at."""
    with pytest.raises(WeightsRefused) as refused:
        look_at_all(path)
    said = str(refused.value)
    assert said.startswith(f"{path.name}: ")
    assert "\n" not in said
    assert refused.value.hint
    return said


def assert_same(found: Arrays, wanted: Arrays) -> None:
    assert found.keys() == wanted.keys()
    for name, values in wanted.items():
        assert found[name].shape == values.shape
        np.testing.assert_array_equal(found[name], values, err_msg=name)


# ---------------------------------------------------------------- what torch itself writes


@pytest.fixture
def torch() -> Any:
    found = pytest.importorskip("torch")
    found.set_num_threads(1)
    return found


def a_module(torch: Any, arrays: Arrays) -> Any:
    """A module that has just these parameters and buffers, at these places."""

    class Part(torch.nn.Module):  # type: ignore[misc, name-defined]
        def forward(self, image: Any) -> Any:
            return image + 1

    whole = Part()
    for name, values in arrays.items():
        *way, last = name.split(".")
        part = whole
        for step in way:
            if step not in part._modules:
                part.add_module(step, Part())
            part = part._modules[step]
        tensor = torch.from_numpy(values.copy())
        if values.dtype == np.float32 and "running" not in last:
            part.register_parameter(last, torch.nn.Parameter(tensor))
        else:
            part.register_buffer(last, tensor)
    return whole.eval()


@pytest.mark.parametrize("prefix", ["generator.", "model.generator."])
def test_a_traced_archive_is_read_under_either_published_prefix(torch: Any, tmp_path: Path, prefix: str) -> None:
    arrays = generator_arrays(prefix)
    path = tmp_path / "big-lama.pt"
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # torch would rather export than trace; the published files are traces
        torch.jit.trace(a_module(torch, arrays), torch.zeros(1, 4, 8, 8)).save(str(path))
    layout, found = read(path)
    assert layout == "torchscript"
    assert_same(found, arrays)
    with path.open("rb") as file:
        generator = find_generator(read_tensors(file, "x").tensors, "x")
    assert (generator.prefix, generator.channels, generator.blocks) == (prefix, 2, 1)
    assert set(generator.tensors) == set(generator_shapes(2, 1))


def test_a_lightning_checkpoint_is_read_though_a_class_of_lightning_is_a_key_in_it(
    torch: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    package = "pytorch_lightning.callbacks.model_checkpoint"
    for depth in range(1, 4):
        name = ".".join(package.split(".")[:depth])
        monkeypatch.setitem(sys.modules, name, types.ModuleType(name))
    smuggled = type("ModelCheckpoint", (), {"__module__": package})
    monkeypatch.setattr(sys.modules[package], "ModelCheckpoint", smuggled, raising=False)
    arrays = generator_arrays("generator.")
    others = {"val_evaluator.scores.lpips.weight": np.ones(3, np.float32), "loss_l1.weight": np.ones(2, np.float32)}
    state = a_module(torch, arrays | others).state_dict()
    path = tmp_path / "best.ckpt"
    whole = {
        "epoch": 39,
        "pytorch-lightning_version": "1.2.9",
        "callbacks": {smuggled: {"best_model_score": torch.tensor(0.5), "dirpath": "/somewhere"}},
        "optimizer_states": [{"state": {0: {"exp_avg": torch.ones(2)}}, "param_groups": []}],
        "state_dict": state,
        "hyper_parameters": {"lr": 1e-3, "shape": torch.Size([2]), "device": torch.device("cpu")},
    }
    torch.save(whole, path)
    for part in range(1, 4):
        monkeypatch.delitem(sys.modules, ".".join(package.split(".")[:part]))
    layout, found = read(path)
    assert layout == "checkpoint"
    assert_same(found, arrays | others)
    with path.open("rb") as file:
        assert find_generator(read_tensors(file, "x").tensors, "x").prefix == "generator."
    assert "pytorch_lightning" not in sys.modules


@pytest.mark.parametrize("dtype", ["float32", "float64", "float16", "bfloat16", "int64", "int32", "uint8", "bool"])
def test_tensors_of_every_type_and_in_every_order_come_out_as_torch_put_them_in(
    torch: Any, tmp_path: Path, dtype: str
) -> None:
    values = torch.arange(24).reshape(2, 3, 4).to(getattr(torch, dtype))
    whole = torch.nn.Parameter(values) if values.is_floating_point() else values
    path = tmp_path / "views.pt"
    torch.save(
        {
            "whole": whole,
            "turned": values.permute(2, 0, 1),
            "part": values[1, :, 1:3],
            "last": values.flatten()[-5:],
            "one": values[1, 2, 3],
            "none": values[:0],
        },
        path,
    )
    _, found = read(path)
    plain = values.float() if dtype == "bfloat16" else values
    kept = {
        "whole": plain,
        "turned": plain.permute(2, 0, 1),
        "part": plain[1, :, 1:3],
        "last": plain.flatten()[-5:],
        "one": plain[1, 2, 3],
        "none": plain[:0],
    }
    assert_same(found, {name: tensor.numpy() for name, tensor in kept.items()})


def test_torchs_old_formats_are_refused_by_what_they_are(torch: Any, tmp_path: Path) -> None:
    path = tmp_path / "old.pth"
    torch.save({"a": torch.zeros(1)}, path, _use_new_zipfile_serialization=False)
    assert "bare pickle, as torch before 1.6 saved" in refusal(path)


# ---------------------------------------------------------------- the same without torch


def test_a_checkpoint_made_by_hand_is_read_as_one_that_torch_made(tmp_path: Path) -> None:
    arrays = generator_arrays("generator.")
    layout, found = read(checkpoint(tmp_path / "a.ckpt", arrays))
    assert layout == "checkpoint"
    assert_same(found, arrays)


def test_safetensors_are_read_and_bfloat16_is_widened_exactly(tmp_path: Path) -> None:
    arrays = generator_arrays()
    layout, found = read(safetensors(tmp_path / "a.safetensors", arrays))
    assert layout == "safetensors"
    assert_same(found, arrays)
    bits = np.array([0x3F80, 0xC040, 0x7F80], dtype=np.uint16)
    _, found = read(safetensors(tmp_path / "b.safetensors", {"x": bits}))
    np.testing.assert_array_equal(found["x"], np.array([1.0, -3.0, np.inf], np.float32))


def test_the_names_and_shapes_are_those_of_the_reference_network() -> None:
    small = np.load(SMALL)
    reference = {name.removeprefix("generator."): small[name].shape for name in small}
    counters = {name for name in reference if name.endswith("num_batches_tracked")}
    assert generator_shapes(8, 2) == {name: reference[name] for name in reference if name not in counters}


def test_the_published_networks_size_is_what_its_authors_count() -> None:
    shapes = generator_shapes(64, 18)
    learned = sum(math.prod(shape) for name, shape in shapes.items() if ".running_" not in name)
    assert (len(shapes), learned) == (837, 50_975_875)


# ---------------------------------------------------------------- nothing is run


class Evil:
    """Pickles to a call."""

    def __init__(self, call: Callable[..., Any], *arguments: Any) -> None:
        self.reduced = (call, arguments)

    def __reduce__(self) -> Any:
        return self.reduced


def evils(mark: Path) -> dict[str, tuple[Any, str]]:
    """Objects that do something when they are unpickled, such as making ``mark``, with what gives each away."""
    made = f"__import__('os').mkdir({str(mark)!r})"
    return {
        "os.system": (Evil(os.system, f"touch {mark}"), "posix.system"),
        "eval": (Evil(eval, made), "eval"),
        "exec in a dict in a list": ([{"a": Evil(exec, made)}], "exec"),
        "a key": ({Evil(eval, made): 1}, "eval"),
        "a subprocess": (Evil(subprocess.getoutput, f"touch {mark}"), ".getoutput"),
        "an import": (Evil(__import__, "antigravity"), "__import__"),
        "a getattr": (Evil(getattr, "os", "system"), "getattr"),
        "pickle in pickle": (Evil(pickle.loads, pickle.dumps(Evil(eval, made))), "pickle.loads"),
    }


@pytest.mark.parametrize("protocol", range(pickle.HIGHEST_PROTOCOL + 1))
@pytest.mark.parametrize("which", evils(Path()))
def test_a_call_hidden_in_a_checkpoint_is_refused_by_name_and_never_made(
    tmp_path: Path, which: str, protocol: int
) -> None:
    mark = tmp_path / "it ran"
    evil, name = evils(mark)[which]
    path = torch_zip(tmp_path / "evil.ckpt", pickle.dumps({"state_dict": evil}, protocol), {})
    said = refusal(path)
    assert f"{name}'" in said
    assert "asks for" in said or "the step" in said
    assert not mark.exists()


def test_the_hidden_calls_of_these_tests_would_be_made_by_an_ordinary_unpickler(tmp_path: Path) -> None:
    mark = tmp_path / "it ran"
    pickle.loads(pickle.dumps(evils(mark)["exec in a dict in a list"][0]))
    assert mark.exists()


def test_a_call_among_sound_weights_is_refused_too(tmp_path: Path) -> None:
    mark = tmp_path / "it ran"
    steps = b"cposix\nsystem\n(X" + struct.pack("<I", len(f"touch {mark}")) + f"touch {mark}".encode() + b"tR"
    path = checkpoint(tmp_path / "a.ckpt", generator_arrays(), extra=item("epoch", steps))
    assert "asks for 'posix.system'" in refusal(path)
    assert not mark.exists()


@pytest.mark.parametrize(
    "steps",
    [
        b"c__torch__.os\nsystem\n(X\x02\x00\x00\x00lstR",  # called
        b"c__torch__.os\nsystem\n(X\x02\x00\x00\x00lst\x81",  # made
        b"c__torch__.os\nsystem\n(X\x02\x00\x00\x00lst}\x92",  # made with keywords
        b"(X\x02\x00\x00\x00lsi__torch__.os\nsystem\n",  # the old way
        b"c__torch__.os\nsystem\n)\x81}X\x0c\x00\x00\x00__setstate__c__torch__\nA\nsb",  # its state set
        b"ctyping\nAny\n)R(X\x01\x00\x00\x00aK\x01u",  # items put into it
        b"ctyping\nAny\n)R(K\x01K\x02e",  # values appended to it
    ],
)
def test_a_stand_in_runs_nothing_whatever_is_done_with_it(steps: bytes) -> None:
    found = read_pickle(b"\x80\x02" + steps + b".", "x")
    assert type(found) is StandIn
    assert found.name in ("__torch__.os.system", "typing.Any")


def test_what_was_made_of_a_stand_in_cannot_be_called() -> None:
    with pytest.raises(WeightsRefused, match="a call of what is no name"):
        read_pickle(b"c__torch__.os\nsystem\n)R(X\x02\x00\x00\x00lstR.", "x")


@pytest.mark.parametrize(
    ("steps", "found"),
    [
        (b"cos\nsystem\n.", "asks for 'os.system'"),
        (b"\x80\x04\x8c\x08builtins\x8c\x04eval\x93.", "asks for 'builtins.eval'"),
        (b"ctorch.jit\nload\n.", "asks for 'torch.jit.load'"),
        (b"ctorch\nload\n.", "asks for 'torch.load'"),
        (b"ctorch._utils\n_rebuild_tensor\n.", "asks for 'torch._utils._rebuild_tensor'"),
        (b"c__torch__x\nA\n.", "asks for '__torch__x.A'"),
        (b"ios\nsystem\n.", "asks for 'os.system'"),
        (b"\x82\x01.", "the step EXT1"),
        (b"(otp.", "the step OBJ"),
        (b"ccollections\nOrderedDict\n(]tR.", "a filled OrderedDict"),
        (b"ctorch._utils\n_rebuild_tensor_v2\n)R.", "damaged"),
        (b"ctorch._utils\n_rebuild_parameter\n(K\x01tR.", "a parameter without a tensor"),
        (b"K\x01)R.", "a call of what is no name"),
        (b"(X\x01\x00\x00\x00aK\x01K\x02K\x03K\x04tQ.", "a reference to what is no storage"),
        (b"(X\x07\x00\x00\x00storageK\x01K\x02K\x03K\x04tQ.", "a storage without type"),
        (b"K\x01X\x01\x00\x00\x00aK\x01s.", "items for what is no dict"),
        (b"K\x01K\x02a.", "values for what is no list"),
        (b"K\x01}b.", "a state for what has none"),
        (b"}(K\x01u.", "items for what is no dict"),
        (b"h\x05.", "damaged"),
        (b"R.", "damaged"),
        (b"t.", "damaged"),
        (b".", "damaged"),
        (b"K\x01", "damaged"),
        (b"", "damaged"),
        (b"X\xff\xff\xff\xffabc.", "damaged"),
        (b"\xffabc", "damaged"),
        (b"L" + b"9" * 5000 + b"L\n.", "damaged"),
    ],
)
def test_a_pickle_that_does_what_torchs_never_do_is_refused(steps: bytes, found: str) -> None:
    with pytest.raises(WeightsRefused, match=r"x: .*description|x: it asks for") as refused:
        read_pickle(steps, "x")
    assert found in str(refused.value)


def test_a_pickle_that_nests_very_deep_is_read_without_a_deep_stack() -> None:
    depth = 100_000
    assert read_pickle(b"]" * depth + b"a" * (depth - 1) + b".", "x")
    assert read_pickle(b"K\x01" + b"\x85" * depth + b".", "x")
    assert read_pickle(b"}" + b"K\x01" + b"\x85" * depth + b"K\x01s.", "x") == {}  # such a key has no hash


def test_a_pickle_that_is_too_long_is_refused_before_it_fills_the_memory() -> None:
    with pytest.raises(WeightsRefused, match="more than 2000000 steps"):
        read_pickle(b"]" * 2_000_001 + b".", "x")
    with pytest.raises(WeightsRefused, match="more than the 16777216"):
        read_pickle(b"N" * (16 * 2**20 + 1), "x")


def test_modules_that_hold_each_other_are_entered_once(tmp_path: Path) -> None:
    view = pickled_view(View("FloatStorage", "0", 1, 0, (1,), (1,)))
    circle = b"\x80\x02c__torch__\nA\n)\x81q\x00}(" + item("again", b"h\x00") + item("w", view) + b"ub."
    assert set(read(torch_zip(tmp_path / "a.pt", circle, {"0": bytes(4)}))[1]) == {"w"}


def test_modules_very_deep_in_each_other_are_refused(tmp_path: Path) -> None:
    deep = b"\x80\x02" + b"}X\x01\x00\x00\x00a" * 100 + b"}" + b"s" * 100 + b"."
    assert "deep in each other" in refusal(torch_zip(tmp_path / "a.pt", deep, {}))


def test_damage_anywhere_in_a_description_is_refused_and_never_anything_else(rng: random.Random) -> None:
    arrays = dict(itertools.islice(generator_arrays().items(), 6))
    sound = pickled({name: view_of(values, str(n)) for n, (name, values) in enumerate(arrays.items())})
    for _ in range(1500):
        damaged = bytearray(sound)
        for _ in range(rng.randint(1, 4)):
            damaged[rng.randrange(len(damaged))] = rng.randrange(256)
        with contextlib.suppress(WeightsRefused):
            read_pickle(bytes(damaged), "x")


# ---------------------------------------------------------------- lies about places and sizes


@pytest.mark.parametrize(
    ("fields", "found"),
    [
        ({"elements": 10**9}, "claims 1000000000 numbers, its record has"),
        ({"elements": -1}, "claims -1 numbers"),
        ({"offset": 1}, "reaches out of its"),
        ({"offset": 2**80}, "reaches out of its"),
        ({"offset": -1}, "negative offset"),
        ({"shape": (-2,)}, "negative offset, length or stride"),
        ({"strides": (-1,)}, "negative offset, length or stride"),
        ({"strides": (2,)}, "reaches out of its"),
        ({"shape": (2**62,), "strides": (0,)}, "reaches out of its"),
        ({"shape": (2**40, 2**40), "strides": (1, 1)}, "reaches out of its"),
        ({"shape": (1,) * 9, "strides": (1,) * 9}, "has 9 lengths"),
        ({"shape": (2, 1)}, "has 2 lengths and 1 strides"),
        ({"key": "../../data.pkl"}, "are missing"),
        ({"key": "999"}, "are missing"),
        ({"storage": "DoubleStorage"}, "claims 2 numbers, its record has 1"),
        ({"shape": (1,)}, "model.1.bn_l.bias is 1, not 2"),
        ({"shape": (), "strides": ()}, "model.1.bn_l.bias is a single number, not 2"),
    ],
)
def test_a_tensor_that_is_not_where_it_says_is_refused(tmp_path: Path, fields: dict[str, Any], found: str) -> None:
    path = checkpoint(tmp_path / "a.ckpt", generator_arrays(), model__1__bn_l__bias=fields)
    assert found in refusal(path)


def test_a_stride_that_is_never_taken_may_be_any_number(tmp_path: Path) -> None:
    path = checkpoint(tmp_path / "a.pt", {"x": np.ones(3, np.float32)}, x={"shape": (1, 3), "strides": (2**70, 1)})
    np.testing.assert_array_equal(read(path)[1]["x"], [[1, 1, 1]])


def test_damaged_numbers_are_found_by_their_crc(tmp_path: Path) -> None:
    path = checkpoint(tmp_path / "a.ckpt", generator_arrays())
    content = bytearray(path.read_bytes())
    values = generator_arrays()["model.1.ffc.convl2l.weight"].tobytes()
    content[content.index(values) + 17] ^= 1
    path.write_bytes(content)
    assert "damaged, their CRC is wrong" in refusal(path)


@pytest.mark.parametrize("share", [0.0, 0.001, 0.1, 0.5, 0.9, 0.99, 0.9999])
@pytest.mark.parametrize("make", [checkpoint, safetensors])
def test_a_file_that_is_cut_off_anywhere_is_refused(
    tmp_path: Path, make: Callable[[Path, Arrays], Path], share: float
) -> None:
    path = make(tmp_path / "a.weights", generator_arrays())
    os.truncate(path, int(path.stat().st_size * share))
    said = refusal(path)
    assert any(word in said for word in ("missing", "empty", "neither", "claims", "bytes")), said


def test_a_file_that_grows_shorter_while_it_is_read_is_refused(tmp_path: Path) -> None:
    path = checkpoint(tmp_path / "a.ckpt", generator_arrays())
    with path.open("rb") as file:
        tensors = read_tensors(file, "x").tensors
        os.truncate(path, 100)
        with pytest.raises(WeightsRefused, match="it ends at byte"):
            tensors["model.4.ffc.convl2l.weight"].read()


@pytest.mark.parametrize(
    ("content", "found"),
    [
        (b"", "it is empty"),
        (b"<!DOCTYPE html><html>sign in</html>", "a web page"),
        (b"\n <html>", "a web page"),
        (b"\x1f\x8b\x08abc", "it is packed"),
        (b"a" * 257 + b"ustar\x00" + b"0" * 300, "a tar file, as torch before 0.1.10"),
        (b"\x89PNG\r\n", "neither a torch archive"),
        (b"PK\x03\x04 and no more", "its end is missing"),
        (b"\x80\x02}.", "a bare pickle"),
    ],
)
def test_what_is_no_weight_file_is_told_by_what_it_is(tmp_path: Path, content: bytes, found: str) -> None:
    path = tmp_path / "a.pt"
    path.write_bytes(content)
    assert found in refusal(path)


def test_a_packed_description_and_packed_numbers_are_refused(tmp_path: Path) -> None:
    arrays = generator_arrays()
    views = {name: view_of(values, str(n)) for n, (name, values) in enumerate(arrays.items())}
    packed = torch_zip(tmp_path / "a.ckpt", pickled(views), {}, compression=zipfile.ZIP_DEFLATED)
    assert "packed or encrypted, which torch never does" in refusal(packed)
    with zipfile.ZipFile(tmp_path / "b.ckpt", "w") as half:
        half.writestr("small/data.pkl", pickled(views))
        for number, values in enumerate(arrays.values()):
            half.writestr(f"small/data/{number}", values.tobytes(), zipfile.ZIP_DEFLATED)
    assert "are missing, or packed" in refusal(tmp_path / "b.ckpt")


def test_big_endian_numbers_are_refused(tmp_path: Path) -> None:
    assert "big-endian" in refusal(torch_zip(tmp_path / "a.pt", b"}.", {}, byteorder=b"big"))


def test_a_description_larger_than_any_weights_have_is_refused_unread(tmp_path: Path) -> None:
    assert "less than a megabyte" in refusal(torch_zip(tmp_path / "a.pt", bytes(17 * 2**20), {}))


def test_members_that_overlap_are_refused(tmp_path: Path) -> None:
    path = checkpoint(tmp_path / "a.ckpt", generator_arrays())
    content = bytearray(path.read_bytes())
    entries = [at for at in range(len(content) - 4) if content[at : at + 4] == b"PK\x01\x02"]
    second, third = entries[2], entries[3]
    content[third + 42 : third + 46] = content[second + 42 : second + 46]  # the same place in the file
    path.write_bytes(content)
    assert "overlap" in refusal(path)


def test_a_member_that_reaches_out_of_the_file_is_refused(tmp_path: Path) -> None:
    path = checkpoint(tmp_path / "a.ckpt", generator_arrays())
    content = bytearray(path.read_bytes())
    last = content.rindex(b"PK\x01\x02")
    content[last + 20 : last + 28] = struct.pack("<II", 2**31, 2**31)
    path.write_bytes(content)
    assert "reaches beyond the end" in refusal(path)


def test_two_members_of_one_name_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "a.pt"
    with warnings.catch_warnings(), zipfile.ZipFile(path, "w") as packed:
        warnings.simplefilter("ignore")
        packed.writestr("small/data.pkl", b"}.")
        packed.writestr("small/data.pkl", b"cos\nsystem\n.")
    assert "two members named" in refusal(path)


@pytest.mark.parametrize(
    ("header", "data", "found"),
    [
        (b"{not json", b"", "header is damaged"),
        (b"{" + b'"a":' * 3 + b"}", b"", "header is damaged"),
        (b'{"a":' + b"[" * 100_000 + b"]" * 100_000 + b"}", b"", "header is damaged"),
        ({"a": {"dtype": "F32", "shape": [2], "data_offsets": [0, 4]}}, bytes(4), "does not fill its place"),
        ({"a": {"dtype": "F32", "shape": [2], "data_offsets": [0, 8]}}, bytes(4), "are missing: it ends before them"),
        ({"a": {"dtype": "F32", "shape": [-1], "data_offsets": [0, 4]}}, bytes(4), "no usable shape"),
        ({"a": {"dtype": "F8", "shape": [4], "data_offsets": [0, 4]}}, bytes(4), "unknown type 'F8'"),
        ({"a": {"dtype": "F32", "shape": [1]}}, bytes(4), "header is damaged"),
        ({"a": [1]}, bytes(4), "header is damaged"),
        ({"a": {"dtype": "U8", "shape": [4], "data_offsets": [0, 4]}}, bytes(9), "have 4 bytes and it has 9"),
        (
            {"a": {"dtype": "U8", "shape": [4], "data_offsets": [0, 4]},
             "b": {"dtype": "U8", "shape": [4], "data_offsets": [2, 6]}},
            bytes(6),
            "overlap others, or leave a gap",
        ),
    ],
)  # fmt: skip
def test_safetensors_that_lie_are_refused(tmp_path: Path, header: Any, data: bytes, found: str) -> None:
    assert found in refusal(raw_safetensors(tmp_path / "a.safetensors", header, data))


def test_a_safetensors_header_longer_than_the_file_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "a.safetensors"
    path.write_bytes((2**60).to_bytes(8, "little") + b"{}")
    assert "claims a header of 1152921504606846976 bytes in a file of 10" in refusal(path)


# ---------------------------------------------------------------- other networks


def without(arrays: Arrays, *names: str) -> Arrays:
    return {name: values for name, values in arrays.items() if name not in names}


@pytest.mark.parametrize(
    ("arrays", "found"),
    [
        ({}, "it lacks model.1.ffc.convl2l.weight; it has no tensors"),
        ({"conv.weight": np.ones(2, np.float32)}, "its 1 tensors are conv.weight"),
        (
            without(generator_arrays(), "model.4.bn_g.bias", "model.8.bias"),
            "it lacks model.4.bn_g.bias, model.8.bias",
        ),
        (generator_arrays() | {"model.5.lfu.weight": np.ones(1, np.float32)}, "it also has model.5.lfu.weight"),
        (
            generator_arrays() | {"model.1.ffc.convl2l.weight": np.ones((3, 4, 7, 7), np.float32)},
            "a LaMa generator of 3 channels and 1 blocks: model.1.bn_l.weight is 2, not 3",
        ),
        (generator_arrays() | {"model.1.ffc.convl2l.weight": np.ones((), np.float32)}, "0 channels"),
        (
            {name: values for name, values in generator_arrays().items() if not name.startswith("model.5.")},
            "0 blocks",
        ),
        (generator_arrays() | {"model.1.bn_l.bias": np.ones(2, np.int64)}, "is of type I64"),
        (generator_arrays("a.") | generator_arrays("b."), "several LaMa generators: a., b."),
    ],
)
def test_another_network_is_refused_by_what_it_lacks(tmp_path: Path, arrays: Arrays, found: str) -> None:
    assert found in refusal(checkpoint(tmp_path / "a.ckpt", arrays))


def test_all_that_is_not_the_generator_is_left_alone(tmp_path: Path) -> None:
    arrays = generator_arrays("generator.")
    others = {f"{name}.weight": np.ones(2, np.float32) for name in ("discriminator.model0", "val_evaluator.x", "loss")}
    averaged = {f"generator_average.{name}": values for name, values in generator_arrays().items()}
    path = checkpoint(tmp_path / "a.ckpt", others | averaged | arrays)
    with path.open("rb") as file:
        generator = find_generator(read_tensors(file, "x").tensors, "x")
        assert_same({name: tensor.read() for name, tensor in generator.tensors.items()}, bare(arrays, "generator."))


# ---------------------------------------------------------------- archives in a zip


def test_the_weights_in_a_zip_are_found_or_named(tmp_path: Path) -> None:
    inner = checkpoint(tmp_path / "best.ckpt", generator_arrays()).read_bytes()
    outer = tmp_path / "big-lama.zip"
    with zipfile.ZipFile(outer, "w", zipfile.ZIP_DEFLATED) as packed:
        packed.writestr("big-lama/config.yaml", "run_title: big")
        packed.writestr("big-lama/models/best.ckpt", inner)
    with outer.open("rb") as file:
        found = packed_weights(file, "x")
        named = packed_weights(file, "x", "big-lama/models/best.ckpt")
        assert found is not None
        assert named is not None
        assert (found.name, named.name, found.size) == ("best.ckpt", "best.ckpt", len(inner))
        target, told = io.BytesIO(), list[int]()
        found.unpack(target, told.append)
        assert target.getvalue() == inner
        assert told[-1] == len(inner)
        with pytest.raises(WeightsRefused, match=r"no member 'models/x\.ckpt'; it has big-lama/config\.yaml"):
            packed_weights(file, "x", "models/x.ckpt")
    with (tmp_path / "best.ckpt").open("rb") as file:
        assert packed_weights(file, "x") is None
        assert packed_weights(file, "x", "ignored where the file is no zip of several") is None


def a_zip(path: Path, members: dict[str, bytes], compression: int = zipfile.ZIP_DEFLATED) -> Path:
    with zipfile.ZipFile(path, "w", compression) as packed:
        for name, content in members.items():
            packed.writestr(name, content)
    return path


@pytest.mark.parametrize(
    ("members", "found"),
    [
        ({}, "no weight file in it: nothing"),
        ({"readme.txt": b"hello"}, "no weight file in it: readme.txt"),
        ({"a.ckpt": b"1", "b.pt": b"2"}, "several weight files in it: a.ckpt, b.pt"),
        ({"bomb.ckpt": bytes(64 * 2**20)}, "weights do not shrink like that"),
    ],
)
def test_a_zip_without_just_one_sound_weight_file_is_refused(
    tmp_path: Path, members: dict[str, bytes], found: str
) -> None:
    with a_zip(tmp_path / "a.zip", members).open("rb") as file, pytest.raises(WeightsRefused, match=found):
        packed_weights(file, "a.zip")


def test_a_member_packed_in_a_rare_way_or_damaged_is_refused(tmp_path: Path) -> None:
    noise = random.Random(1).randbytes(5000)
    with (
        a_zip(tmp_path / "a.zip", {"a.ckpt": noise}, zipfile.ZIP_LZMA).open("rb") as file,
        pytest.raises(WeightsRefused, match="packed in a rare way"),
    ):
        packed_weights(file, "x")
    path = a_zip(tmp_path / "b.zip", {"b.ckpt": noise})
    content = bytearray(path.read_bytes())
    content[2000:2100] = bytes(100)
    path.write_bytes(content)
    with path.open("rb") as file:
        member = packed_weights(file, "x")
        assert member is not None
        with pytest.raises(WeightsRefused, match=r"'b\.ckpt' is damaged"):
            member.unpack(io.BytesIO(), lambda done: None)
