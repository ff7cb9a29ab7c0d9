"""The store of weights: what may come in, how it comes over a network that breaks, what stays when it cannot."""

from __future__ import annotations

import dataclasses
import errno
import hashlib
import json
import os
import shutil
import socket
import stat
import subprocess
import sys
import threading
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors import safe_open
from safetensors.numpy import load_file

from lcq.config import DEFAULT_SOURCES, ModelsConfig, ModelSource, load
from lcq.errors import (
    DiskFull,
    DownloadFailed,
    InvalidConfig,
    InvalidInput,
    UnknownModel,
    WeightsNotInstalled,
    WeightsRefused,
)
from tests.conftest import wait_until_sync
from tests.file_server import FileServer, file_server
from tests.weight_files import Arrays, bare, checkpoint, generator_arrays, pickled, safetensors, torch_zip, view_of
from worker.weights import Manifest, WeightStore

ROOT = Path(__file__).parents[2]
ANY = ModelsConfig(allow=("any",))


@pytest.fixture(autouse=True)
def _directly_and_without_pauses(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NO_PROXY", "*")  # loopback must be reached directly wherever these tests run
    monkeypatch.setattr("worker.download._PAUSE_S", 0.0)


@pytest.fixture
def arrays() -> Arrays:
    return generator_arrays("generator.")


@pytest.fixture
def file(tmp_path: Path, arrays: Arrays) -> Path:
    return checkpoint(tmp_path / "best.ckpt", arrays)


@pytest.fixture
def server(file: Path) -> Iterator[FileServer]:
    with file_server(file.read_bytes()) as serving:
        yield serving


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path / "models"


def sha256(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def md5(path: Path) -> str:
    return hashlib.md5(path.read_bytes()).hexdigest()


def from_urls(file: Path, *urls: str, **changed: Any) -> ModelsConfig:
    """Settings that know the model "small", whose file is ``file``."""
    source = ModelSource(urls=urls, sha256=sha256(file), md5=md5(file))
    return ModelsConfig(sources={"small": source}, timeout_s=changed.pop("timeout_s", 20.0), **changed)


def left_over(folder: Path) -> set[str]:
    """Everything in a models folder but its locks."""
    return {
        str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file() and path.parent.name != ".locks"
    }


# ---------------------------------------------------------------- what comes in


@pytest.mark.parametrize("prefix", ["", "generator.", "model.generator."])
@pytest.mark.parametrize("make", [checkpoint, safetensors])
def test_an_added_file_is_kept_as_float32_safetensors_under_bare_names(
    tmp_path: Path, folder: Path, make: Callable[[Path, Arrays], Path], prefix: str
) -> None:
    arrays = generator_arrays(prefix)
    added = make(tmp_path / "weights", arrays | {"loss.weight": np.ones(1, np.float32)})
    store = WeightStore(folder, ANY)
    manifest = store.add(added, "mine")
    assert store.installed() == {"mine": manifest}
    found = load_file(store.path("mine"))
    wanted = bare(arrays, prefix)
    assert found.keys() == wanted.keys()
    for name, values in wanted.items():
        assert found[name].dtype == np.float32
        np.testing.assert_array_equal(found[name], values)
    assert left_over(folder) == {"mine/weights.safetensors", "mine/manifest.json"}


def test_a_manifest_says_what_the_weights_are_and_where_they_came_from(folder: Path, file: Path) -> None:
    manifest = WeightStore(folder, ANY).add(file, "mine")
    weights = folder / "mine" / "weights.safetensors"
    assert manifest.model_dump(exclude={"added_at"}) == {
        "name": "mine",
        "network": "lama",
        "channels": 2,
        "blocks": 1,
        "parameters": manifest.parameters,
        "origin": str(file),
        "layout": "checkpoint",
        "sha256": sha256(file),
        "md5": md5(file),
        "bytes": file.stat().st_size,
        "weights_sha256": sha256(weights),
        "weights_bytes": weights.stat().st_size,
    }
    assert Manifest.model_validate_json((folder / "mine" / "manifest.json").read_bytes()) == manifest


@pytest.mark.parametrize("dtype", [np.float16, np.float64])
def test_other_precisions_are_kept_as_float32(tmp_path: Path, folder: Path, dtype: Any) -> None:
    arrays = {
        name: values.astype(dtype) if values.dtype == np.float32 else values
        for name, values in generator_arrays().items()
    }
    store = WeightStore(folder, ANY)
    store.add(checkpoint(tmp_path / "a.ckpt", arrays), "mine")
    for name, values in load_file(store.path("mine")).items():
        assert values.dtype == np.float32
        np.testing.assert_array_equal(values, arrays[name].astype(np.float32))


def test_every_tensor_lies_where_it_can_be_mapped(folder: Path, file: Path) -> None:
    store = WeightStore(folder, ANY)
    store.add(file, "mine")
    content = store.path("mine").read_bytes()
    assert (8 + int.from_bytes(content[:8], "little")) % 64 == 0
    with safe_open(store.path("mine"), framework="numpy") as weights:
        assert weights.metadata() == {"format": "pt", "network": "lama"}


def test_weights_inside_a_zip_are_unpacked_and_nothing_of_that_stays(tmp_path: Path, folder: Path, file: Path) -> None:
    packed = tmp_path / "big-lama.zip"
    with zipfile.ZipFile(packed, "w", zipfile.ZIP_DEFLATED) as outer:
        outer.writestr("big-lama/config.yaml", "a: b")
        outer.writestr("../../../../escaped.ckpt", file.read_bytes())
        outer.writestr("/etc/other.ckpt", b"no weights")
    source = ModelSource(file="../../../../escaped.ckpt")
    store = WeightStore(folder, ModelsConfig(allow=("any",), sources={"mine": source}))
    manifest = store.add(packed, "mine")
    assert (manifest.sha256, manifest.layout) == (sha256(packed), "checkpoint")
    assert left_over(folder) == {"mine/weights.safetensors", "mine/manifest.json"}
    assert {path.name for path in tmp_path.iterdir()} == {"best.ckpt", "big-lama.zip", "models"}


def test_weights_added_again_replace_those_before_and_a_reader_keeps_what_it_mapped(
    tmp_path: Path, folder: Path, file: Path
) -> None:
    store = WeightStore(folder, ANY)
    before = store.add(file, "mine")
    with safe_open(store.path("mine"), framework="numpy") as mapped:
        after = store.add(checkpoint(tmp_path / "b.ckpt", generator_arrays(seed=1)), "mine")
        kept = mapped.get_tensor("model.17.bias")
    assert before.sha256 != after.sha256
    assert store.installed() == {"mine": after}
    np.testing.assert_array_equal(kept, generator_arrays()["model.17.bias"])
    np.testing.assert_array_equal(
        load_file(store.path("mine"))["model.17.bias"], generator_arrays(seed=1)["model.17.bias"]
    )


def test_files_are_readable_by_whom_the_umask_lets(folder: Path, file: Path) -> None:
    before = os.umask(0o027)
    try:
        WeightStore(folder, ANY).add(file, "mine")
    finally:
        os.umask(before)
    modes = {path.name: stat.S_IMODE(path.stat().st_mode) for path in (folder / "mine").rglob("*")}
    assert modes == {"weights.safetensors": 0o640, "manifest.json": 0o640}
    assert stat.S_IMODE((folder / "mine").stat().st_mode) == 0o750


@pytest.mark.parametrize(
    ("name", "value", "found"),
    [
        ("model.17.bias", np.nan, "model.17.bias has values that are no numbers, or infinite"),
        ("model.4.ffc.convl2g.weight", -np.inf, "no numbers, or infinite"),
        ("model.1.bn_l.running_var", -1.0, "is a variance, and has negative values"),
    ],
)
def test_weights_with_which_nothing_can_be_painted_are_refused(
    tmp_path: Path, folder: Path, name: str, value: float, found: str
) -> None:
    arrays = generator_arrays()
    arrays[name].flat[0] = value
    with pytest.raises(WeightsRefused, match=found):
        WeightStore(folder, ANY).add(checkpoint(tmp_path / "a.ckpt", arrays), "mine")
    assert left_over(folder) == set()


def test_a_number_too_large_for_float32_is_refused(tmp_path: Path, folder: Path) -> None:
    arrays = generator_arrays()
    arrays["model.17.bias"] = np.array([1e300, 0, 0])
    with pytest.raises(WeightsRefused, match="infinite"):
        WeightStore(folder, ANY).add(checkpoint(tmp_path / "a.ckpt", arrays), "mine")


def test_tensors_that_all_claim_the_same_bytes_are_refused(tmp_path: Path, folder: Path) -> None:
    arrays = bare(generator_arrays(channels=12))
    everywhere = {"storage": "FloatStorage", "key": "big", "elements": 50_000}
    views = {name: dataclasses.replace(view_of(values, ""), **everywhere) for name, values in arrays.items()}
    path = torch_zip(tmp_path / "a.ckpt", pickled(views), {"big": bytes(200_000)})
    assert path.stat().st_size < sum(values.nbytes for values in arrays.values())
    with pytest.raises(WeightsRefused, match="claim more bytes than it has"):
        WeightStore(folder, ANY).add(path, "mine")


@pytest.mark.parametrize("name", ["", ".", "..", "../x", "a/b", "/etc", ".hidden", "a b", "x" * 65, "ä", "a\n"])
def test_a_name_that_could_lead_out_of_the_folder_is_refused(tmp_path: Path, file: Path, name: str) -> None:
    store = WeightStore(tmp_path / "inside" / "models", ANY)
    with pytest.raises(InvalidInput, match="cannot be the name of a model"):
        store.add(file, name)
    for refused in (store.path, store.verify, store.remove):
        with pytest.raises(WeightsNotInstalled):
            refused(name)
    with pytest.raises(UnknownModel):
        WeightStore(tmp_path, ModelsConfig(sources={name: ModelSource(urls=(str(file),))})).pull(name)
    assert not (tmp_path / "inside").exists()


def test_what_is_no_file_is_refused(tmp_path: Path, folder: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    for path, found in (
        (tmp_path / "absent", "No such file"),
        (tmp_path, "is no file"),
        (tmp_path / "pipe", "is no file"),
    ):
        with pytest.raises(InvalidInput, match=found):
            WeightStore(folder, ANY).add(path, "mine")


def test_a_file_larger_than_any_weights_is_refused_unread(tmp_path: Path, folder: Path) -> None:
    path = tmp_path / "huge.ckpt"
    path.touch()
    os.truncate(path, 9 * 2**30)  # takes no room: it is one hole
    with pytest.raises(WeightsRefused, match=r"9216\.0 MiB"):
        WeightStore(folder, ANY).add(path, "mine")


# ---------------------------------------------------------------- which files are trusted


def test_a_file_whose_sum_is_on_no_list_is_refused_with_its_sums_and_what_to_do(folder: Path, file: Path) -> None:
    with pytest.raises(WeightsRefused) as refused:
        WeightStore(folder, ModelsConfig()).add(file, "lama")
    said = str(refused.value)
    for part in (sha256(file), md5(file), DEFAULT_SOURCES["lama"].sha256, DEFAULT_SOURCES["lama"].md5):
        assert part is not None
        assert part in said
    assert "of no known model" in said
    assert "models.allow" in said
    assert left_over(folder) == set()


@pytest.mark.parametrize("listed", [sha256, md5, lambda path: sha256(path).upper(), lambda path: "any"])
def test_a_file_whose_sum_is_allowed_may_be_added_under_any_name(
    folder: Path, file: Path, listed: Callable[[Path], str]
) -> None:
    store = WeightStore(folder, ModelsConfig(allow=(listed(file),)))
    assert store.add(file, "lama").name == "lama"
    assert set(store.installed()) == {"lama"}
    with pytest.raises(InvalidInput, match="--name NAME"):
        store.add(file)


@pytest.mark.parametrize("known", [{"sha256"}, {"md5"}, {"sha256", "md5"}])
def test_a_file_with_the_sums_of_a_known_model_needs_no_name(folder: Path, file: Path, known: set[str]) -> None:
    sums = {"sha256": sha256(file), "md5": md5(file)}
    source = ModelSource(**{kind: sums[kind] for kind in known})  # type: ignore[arg-type]
    store = WeightStore(folder, ModelsConfig(sources={"small": source}, allow=()))
    assert store.add(file).name == "small"
    assert store.add(file, "another").name == "another"
    with pytest.raises(WeightsRefused, match=r"are those of small: .*; lama has SHA-256 344c.* and MD5 e3aa"):
        store.add(file, "lama")


def test_both_sums_must_be_right_where_both_are_known(folder: Path, file: Path) -> None:
    source = ModelSource(sha256="0" * 64, md5=md5(file))
    with pytest.raises(WeightsRefused, match="; small has SHA-256 0000"):
        WeightStore(folder, ModelsConfig(sources={"small": source}, allow=())).add(file, "small")


def test_what_a_settings_file_names_is_added_to_the_known_sources(tmp_path: Path) -> None:
    path = tmp_path / "lcq.yaml"
    path.write_text(
        f"""
models:
  sources:
    mine: {{urls: [/weights/mine.pt], sha256: {"A" * 64}}}
    lama: {{urls: ["https://mirror.example/big-lama.pt"]}}
    anime-lama: {{sha256: {"b" * 64}}}
""",
        encoding="utf-8",
    )
    sources = load(path).models.sources
    assert set(sources) == {"lama", "anime-lama", "mine"}
    assert sources["mine"].sha256 == "a" * 64
    known = DEFAULT_SOURCES["lama"]
    assert sources["lama"] == ModelSource(
        urls=("https://mirror.example/big-lama.pt",), sha256=known.sha256, md5=known.md5
    )
    assert sources["anime-lama"] == ModelSource(urls=DEFAULT_SOURCES["anime-lama"].urls, sha256="b" * 64)


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("{sources: {lama: {sha256: abc}}}", r"models\.sources\.lama\.sha256"),
        ("{sources: {lama: {url: x}}}", r"models\.sources\.lama\.url: unknown key, did you mean 'urls'"),
        ("{sources: [lama]}", r"models\.sources"),
        ("{allow: [sometimes]}", r"models\.allow\.0"),
    ],
)
def test_settings_that_cannot_be_sums_or_sources_are_refused_by_key(tmp_path: Path, text: str, found: str) -> None:
    path = tmp_path / "lcq.yaml"
    path.write_text(f"models: {text}", encoding="utf-8")
    with pytest.raises(InvalidConfig, match=found):
        load(path)


# ---------------------------------------------------------------- nothing foreign is run or loaded


def test_the_store_needs_neither_torch_nor_an_unpickler_nor_a_network_library_to_install_weights(
    folder: Path, file: Path
) -> None:
    script = f"""
import json, pickle, sys
from pathlib import Path
def no(*_, **__): raise SystemExit("something was unpickled")
pickle.load = pickle.loads = pickle.Unpickler = pickle._Unpickler = no
from lcq.config import ModelsConfig
from worker.weights import WeightStore
store = WeightStore(Path({str(folder)!r}), ModelsConfig(allow=("any",)))
store.add(Path({str(file)!r}), "mine")
assert set(store.installed()) == {{"mine"}} and store.verify()[0].state == "installed"
print(json.dumps(sorted(sys.modules)))
"""
    run = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True, cwd=ROOT)
    loaded = {name.partition(".")[0] for name in json.loads(run.stdout)}
    assert {"numpy", "safetensors"} <= loaded
    assert not loaded & {"torch", "cv2", "httpx", "zmq", "redis"}


# ---------------------------------------------------------------- what is there


def test_an_empty_or_absent_folder_has_no_models_but_knows_of_some(folder: Path) -> None:
    store = WeightStore(folder, ModelsConfig())
    assert store.installed() == {}
    assert store.verify() == []
    assert [(state.name, state.state) for state in store.states()] == [("anime-lama", "absent"), ("lama", "absent")]
    with pytest.raises(WeightsNotInstalled, match=r"no weights for 'lama' here \(lcq models pull lama, or"):
        store.path("lama")
    assert not folder.exists()


def flip_a_bit(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[-3] ^= 4
    path.write_bytes(content)


DAMAGES: dict[str, tuple[Callable[[Path], object], str, bool]] = {
    "cut off": (lambda model: os.truncate(model / "weights.safetensors", 999), "have 999 bytes, not", False),
    "a bit": (lambda model: flip_a_bit(model / "weights.safetensors"), "not those that were written", True),
    "no weights": (lambda model: (model / "weights.safetensors").unlink(), "No such file", False),
    "no manifest": (lambda model: (model / "manifest.json").unlink(), "No such file", False),
    "manifest": (lambda model: (model / "manifest.json").write_text("{}"), "manifest.json cannot be read", False),
}


@pytest.mark.parametrize("damage", DAMAGES)
def test_damaged_weights_are_found_and_can_be_replaced(folder: Path, file: Path, damage: str) -> None:
    store = WeightStore(folder, ANY)
    store.add(file, "mine")
    assert [(state.name, state.state) for state in store.verify()] == [("mine", "installed")]
    act, found, only_by_reading = DAMAGES[damage]
    act(folder / "mine")
    (verified,) = store.verify("mine")
    assert verified.state == "damaged"
    assert found in verified.found
    assert set(store.installed()) == ({"mine"} if only_by_reading else set())
    if not only_by_reading:
        with pytest.raises(WeightsNotInstalled, match=found):
            store.path("mine")
    store.add(file, "mine")
    assert store.verify("mine")[0].state == "installed"


def test_weights_that_match_their_sum_but_not_their_manifest_are_damaged(folder: Path, file: Path) -> None:
    store = WeightStore(folder, ANY)
    manifest = store.add(file, "mine")
    (folder / "mine" / "manifest.json").write_text(manifest.model_copy(update={"blocks": 2}).model_dump_json())
    assert "not those of its manifest" in store.verify("mine")[0].found


def test_removed_weights_are_gone_and_cannot_be_removed_again(folder: Path, file: Path) -> None:
    store = WeightStore(folder, ANY)
    store.add(file, "mine")
    store.remove("mine")
    assert store.installed() == {}
    assert left_over(folder) == set()
    for refused in (store.remove, store.verify, store.path):
        with pytest.raises(WeightsNotInstalled):
            refused("mine")


def test_weights_that_come_or_go_just_as_somebody_looks_are_not_called_damaged(
    folder: Path, file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = WeightStore(folder, ANY)
    read = Path.read_bytes
    comes, goes = lambda: store.add(file, "mine"), lambda: store.remove("mine")
    for before, after in ((int, comes), (goes, int)):
        with monkeypatch.context() as patch:

            def read_between(path: Path) -> bytes:
                patch.undo()
                before()  # noqa: B023 - it is called at once
                try:
                    return read(path)
                finally:
                    after()  # noqa: B023

            patch.setattr(Path, "read_bytes", read_between)
            with pytest.raises(WeightsNotInstalled) as refusal:
                store.path("mine")
        assert "No such file" not in str(refusal.value)


# ---------------------------------------------------------------- downloads


def test_a_pulled_model_is_installed_and_pulled_only_once(folder: Path, file: Path, server: FileServer) -> None:
    store = WeightStore(folder, from_urls(file, server.url))
    told: list[tuple[str, int, int | None]] = []
    manifest = store.pull("small", progress=lambda *what: told.append(what))
    assert (manifest.origin, manifest.sha256) == (server.url, sha256(file))
    assert store.pull("small") == manifest
    assert server.asked == ["all"]
    assert {stage for stage, _, _ in told} == {"downloading", "checking", "converting"}
    size = file.stat().st_size
    assert ("downloading", size, size) in told
    assert left_over(folder) == {"small/weights.safetensors", "small/manifest.json"}


def test_a_download_that_breaks_goes_on_where_it_broke(folder: Path, file: Path, server: FileServer) -> None:
    server.breaks_after = [1000, 5000]
    WeightStore(folder, from_urls(file, server.url)).pull("small")
    assert server.asked == ["all", "bytes=1000-", "bytes=6000-"]


def test_a_server_that_always_breaks_is_given_up_and_what_came_is_kept(
    folder: Path, file: Path, server: FileServer
) -> None:
    server.breaks_after = [1000, 0, 0, 0]
    store = WeightStore(folder, from_urls(file, server.url))
    with pytest.raises(DownloadFailed, match=r"broke off: .*, 1000 bytes are kept .*goes on where it was"):
        store.pull("small")
    (state,) = (state for state in store.states() if state.name == "small")
    assert (state.state, state.found) == ("partial", "1000 bytes have come")
    store.pull("small")
    assert server.asked[-1] == "bytes=1000-"
    assert left_over(folder) == {"small/weights.safetensors", "small/manifest.json"}


def test_a_server_without_ranges_begins_anew(folder: Path, file: Path, server: FileServer) -> None:
    server.ranges = False
    server.breaks_after = [1000]
    WeightStore(folder, from_urls(file, server.url)).pull("small")
    assert server.asked == ["all", "bytes=1000-"]


def test_a_server_that_tells_no_length_is_believed_when_the_sum_is_right(
    folder: Path, file: Path, server: FileServer
) -> None:
    server.tells_length = False
    WeightStore(folder, from_urls(file, server.url)).pull("small")


def test_a_file_that_changed_on_the_server_is_fetched_whole(folder: Path, file: Path, server: FileServer) -> None:
    right, server.content = server.content, bytes(len(server.content))
    server.breaks_after = [1000, 0, 0, 0]
    store = WeightStore(folder, from_urls(file, server.url))
    with pytest.raises(DownloadFailed):
        store.pull("small")
    server.content, server.etag = right, '"2"'
    store.pull("small")
    assert server.asked[-1] == "bytes=1000-"  # If-Range did not hold: the answer was the whole


def test_parts_of_two_files_that_met_are_thrown_away_and_all_is_fetched_again(
    folder: Path, file: Path, server: FileServer
) -> None:
    server.etag = ""  # nothing tells the two apart but their sum
    right, server.content = server.content, bytes(len(server.content))
    server.breaks_after = [1000, 0, 0, 0]
    store = WeightStore(folder, from_urls(file, server.url))
    with pytest.raises(DownloadFailed):
        store.pull("small")
    server.content = right
    store.pull("small")
    assert server.asked[-2:] == ["bytes=1000-", "all"]


def test_a_file_that_has_come_whole_is_not_fetched_again(folder: Path, file: Path, server: FileServer) -> None:
    server.breaks_after = [1000, 0, 0, 0]
    store = WeightStore(folder, from_urls(file, server.url))
    with pytest.raises(DownloadFailed):
        store.pull("small")
    (partial,) = folder.glob(".downloads/small/*.part")
    partial.write_bytes(server.content)  # as after a kill between the last byte and the conversion
    store.pull("small")
    assert server.asked[-1] == f"bytes={len(server.content)}-"


@pytest.mark.parametrize("longer", [True, False])
def test_a_server_that_gives_another_part_than_asked_for_is_asked_for_all(
    folder: Path, file: Path, server: FileServer, longer: bool
) -> None:
    server.breaks_after = [1000]
    if longer:
        server.wrong_part = True
        WeightStore(folder, from_urls(file, server.url)).pull("small")
        assert server.asked == ["all", "bytes=1000-", "all"]
    else:  # what is here is longer than what is there
        store = WeightStore(folder, from_urls(file, server.url))
        server.breaks_after = [1000, 0, 0, 0]
        with pytest.raises(DownloadFailed):
            store.pull("small")
        (partial,) = folder.glob(".downloads/small/*.part")
        partial.write_bytes(bytes(len(server.content) + 1))
        store.pull("small")
        assert server.asked[-1] == "all"


def test_a_server_that_stands_still_is_left_after_the_time_that_is_allowed(
    folder: Path, file: Path, server: FileServer
) -> None:
    server.stalls_after = 1000
    store = WeightStore(folder, from_urls(file, server.url, timeout_s=0.2))

    def told() -> str:
        with pytest.raises(DownloadFailed, match=r"stood still for 0\.2 s") as failed:
            store.pull("small")
        return str(failed.value)

    wait_until_sync(lambda: "bytes are kept" in told())  # a busy machine may be slower than that with the first one
    (partial,) = folder.glob(".downloads/small/*.part")
    have, server.stalls_after = partial.stat().st_size, None
    assert have % 1000 == 0
    store.pull("small")
    assert server.asked[-1] == f"bytes={have}-"


def free_port() -> int:
    with socket.socket() as listening:
        listening.bind(("127.0.0.1", 0))
        port: int = listening.getsockname()[1]
        return port


def test_without_a_network_it_is_said_what_was_tried_and_what_to_do(folder: Path, file: Path) -> None:
    urls = (
        f"http://127.0.0.1:{free_port()}/big-lama.pt?key=secret",
        f"{file.parent}/absent.pt",
        "ftp://x/y",
        "http://",
    )
    with pytest.raises(DownloadFailed) as failed:
        WeightStore(folder, from_urls(file, *urls)).pull("small")
    first, second, third, fourth = failed.value.tried
    assert "cannot be reached: [Errno" in first
    assert "Connection refused" in first
    assert "secret" not in first
    assert second == f"{file.parent}/absent.pt is no file"
    assert "failed" in third
    assert "failed" in fourth
    assert "download the file on another machine, then 'lcq models add FILE --name small'" in failed.value.hint
    assert left_over(folder) == set()


@pytest.mark.parametrize("status", [404, 403, 500])
def test_an_address_that_answers_otherwise_is_named_with_its_answer_and_the_next_one_tried(
    folder: Path, file: Path, server: FileServer, status: int
) -> None:
    server.status = status
    with pytest.raises(DownloadFailed, match=rf"{server.url} answered {status} \w+"):
        WeightStore(folder, from_urls(file, server.url)).pull("small")
    manifest = WeightStore(folder, from_urls(file, server.url, str(file))).pull("small")
    assert manifest.origin == str(file)
    assert file.exists()


@pytest.mark.parametrize("written", ["path", "uri", "home"])
def test_an_address_may_be_a_path(folder: Path, file: Path, monkeypatch: pytest.MonkeyPatch, written: str) -> None:
    monkeypatch.setenv("HOME", str(file.parent))
    urls = {"path": str(file), "uri": file.as_uri(), "home": f"~/{file.name}"}
    assert WeightStore(folder, from_urls(file, urls[written])).pull("small").origin == str(file)


def test_a_file_with_other_sums_is_thrown_away_and_the_next_address_tried(
    folder: Path, file: Path, server: FileServer
) -> None:
    server.content = b"<html>please log in</html>"
    config = from_urls(file, server.url)
    with pytest.raises(WeightsRefused, match=rf"{server.url}: its checksums are those of no known model"):
        WeightStore(folder, config).pull("small")
    assert left_over(folder) == set()
    assert WeightStore(folder, from_urls(file, server.url, str(file))).pull("small").origin == str(file)


def test_a_file_that_no_sum_is_known_of_waits_until_it_is_allowed(folder: Path, file: Path, server: FileServer) -> None:
    source = ModelSource(urls=(server.url,))
    with pytest.raises(WeightsRefused, match=sha256(file)):
        WeightStore(folder, ModelsConfig(sources={"small": source})).pull("small")
    WeightStore(folder, ModelsConfig(sources={"small": source}, allow=(sha256(file),))).pull("small")
    assert server.asked == ["all", f"bytes={len(server.content)}-"]


def test_a_model_without_a_source_or_an_address_cannot_be_pulled(folder: Path) -> None:
    with pytest.raises(UnknownModel, match=r"no such model: 'lamma' \(did you mean 'lama'\?\)"):
        WeightStore(folder, ModelsConfig()).pull("lamma")
    with pytest.raises(DownloadFailed, match=r"no address is known \(set models\.sources\.x\.urls\)"):
        WeightStore(folder, ModelsConfig(sources={"x": ModelSource(md5="0" * 32)})).pull("x")
    assert not folder.exists()


def test_what_has_come_of_a_download_can_be_removed(folder: Path, file: Path, server: FileServer) -> None:
    server.breaks_after = [1000, 0, 0, 0]
    store = WeightStore(folder, from_urls(file, server.url))
    with pytest.raises(DownloadFailed):
        store.pull("small")
    store.remove("small")
    assert left_over(folder) == set()


# ---------------------------------------------------------------- two at once, and no room


def test_two_that_pull_at_once_bring_it_once(folder: Path, file: Path, server: FileServer) -> None:
    config = from_urls(file, server.url)
    made: list[Manifest] = []
    waited = threading.Event()

    def told(stage: str, done: int, total: int | None) -> None:
        if stage.startswith("waiting"):
            waited.set()
        elif stage == "downloading":
            waiting.start() if waiting.ident is None else None
            assert waited.wait(20)

    waiting = threading.Thread(
        target=lambda: made.append(WeightStore(folder, config).pull("small", progress=told)), daemon=True
    )
    made.append(WeightStore(folder, config).pull("small", progress=told))
    waiting.join(20)
    assert len(made) == 2
    assert made[0] == made[1]
    assert server.asked == ["all"]


def test_processes_that_add_at_once_leave_sound_weights(tmp_path: Path, folder: Path) -> None:
    script = """
import sys
from pathlib import Path
from lcq.config import ModelsConfig
from worker.weights import WeightStore
store = WeightStore(Path(sys.argv[1]), ModelsConfig(allow=("any",)))
for _ in range(10):
    store.add(Path(sys.argv[2]), "mine")
    store.path("mine")
"""
    files = [checkpoint(tmp_path / f"{seed}.ckpt", generator_arrays(seed=seed)) for seed in (1, 2)]
    adding = [subprocess.Popen([sys.executable, "-c", script, folder, file], cwd=ROOT) for file in files]
    assert [process.wait(60) for process in adding] == [0, 0]
    store = WeightStore(folder, ANY)
    assert [state.state for state in store.verify()] == ["installed"]
    assert store.installed()["mine"].sha256 in [sha256(file) for file in files]
    assert left_over(folder) == {"mine/weights.safetensors", "mine/manifest.json"}


def test_what_a_killed_process_left_is_cleared_by_the_next(folder: Path, file: Path) -> None:
    litter = folder / ".staging" / "made"
    litter.mkdir(parents=True)
    (litter / "weights.safetensors").write_bytes(b"half")
    store = WeightStore(folder, ANY)
    assert store.installed() == {}
    store.add(file, "mine")
    assert left_over(folder) == {"mine/weights.safetensors", "mine/manifest.json"}


_LIMITED = """
import resource, sys
from pathlib import Path
from lcq.config import ModelsConfig, ModelSource
from lcq.errors import LcqError
from worker.weights import WeightStore
folder, at, file, limit = sys.argv[1:]
sources = {"small": ModelSource(urls=(file,))}
store = WeightStore(Path(folder), ModelsConfig(allow=("any",), sources=sources))
resource.setrlimit(resource.RLIMIT_FSIZE, (int(limit), int(limit)))
try:
    store.pull("small") if at == "pull" else store.add(Path(file), "small")
except LcqError as error:
    print(error.code, error)
"""


@pytest.mark.parametrize("at", ["pull", "add"])
def test_when_no_more_can_be_written_it_is_said_and_nothing_half_made_stays(
    folder: Path, file: Path, server: FileServer, at: str
) -> None:
    before = WeightStore(folder, ANY).add(file, "kept")
    what = server.url if at == "pull" else str(file)
    run = subprocess.run(
        [sys.executable, "-c", _LIMITED, folder, at, what, "3000"], capture_output=True, text=True, check=True, cwd=ROOT
    )
    assert run.stdout.startswith(f"disk_full no room left in {folder}: File too large (free some, or"), run
    assert left_over(folder) == {"kept/weights.safetensors", "kept/manifest.json"}
    assert WeightStore(folder, ANY).installed() == {"kept": before}


def test_a_disk_that_is_too_small_is_told_before_anything_is_fetched_or_written(
    folder: Path, file: Path, server: FileServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    usage = type(shutil.disk_usage("/"))
    monkeypatch.setattr(shutil, "disk_usage", lambda path: usage(10**9, 10**9 - 1000, 1000))
    store = WeightStore(folder, from_urls(file, server.url))
    with pytest.raises(DiskFull, match=r"0\.\d MiB needed, 0\.0 MiB free"):
        store.pull("small")
    with pytest.raises(DiskFull, match="MiB needed"):
        store.add(file)
    monkeypatch.setattr(shutil, "disk_usage", lambda path: usage(2**30, 0, 2**30))
    with pytest.raises(DiskFull, match="kept in reserve"):
        WeightStore(folder, ANY, floor_mib=1024).add(file, "mine")
    assert left_over(folder) == set()


@pytest.mark.skipif(os.geteuid() != 0, reason="only root may mount")
def test_a_disk_that_fills_up_is_told_and_left_as_it_was(tmp_path: Path, file: Path, monkeypatch: Any) -> None:
    disk = tmp_path / "disk"
    disk.mkdir()
    if subprocess.run(["mount", "-t", "tmpfs", "-o", "size=64k", "none", disk], capture_output=True).returncode:
        pytest.skip("this root may not mount")
    try:
        monkeypatch.setattr(WeightStore, "_make_room", lambda self, size: None)  # as if it had filled up since
        folder = disk / "models"
        with pytest.raises(DiskFull, match="No space left on device"):
            WeightStore(folder, ANY).add(checkpoint(tmp_path / "b.ckpt", generator_arrays(blocks=12)), "mine")
        assert left_over(folder) == set()
    finally:
        subprocess.run(["umount", disk], check=True)


def test_a_folder_that_cannot_be_used_is_named(tmp_path: Path, file: Path) -> None:
    (tmp_path / "a file").write_bytes(b"")
    with pytest.raises(
        InvalidConfig, match=r"cannot use the models folder .*a file/models.*Not a directory.*models\.folder"
    ):
        WeightStore(tmp_path / "a file" / "models", ANY).add(file, "mine")
    assert WeightStore(tmp_path / "a file" / "models", ANY).installed() == {}
    assert WeightStore(tmp_path / "a file", ANY).installed() == {}


def test_a_write_that_fails_for_another_reason_is_told_in_its_own_words(
    folder: Path, file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(descriptor: int) -> None:
        raise OSError(errno.EIO, os.strerror(errno.EIO))

    monkeypatch.setattr(os, "fsync", broken)
    with pytest.raises(InvalidConfig, match="Input/output error"):
        WeightStore(folder, ANY).add(file, "mine")
    assert left_over(folder) == set()


def test_a_runner_finds_weights_while_others_come_and_go(tmp_path: Path, folder: Path, file: Path) -> None:
    store = WeightStore(folder, ANY)
    store.add(file, "kept")
    stop = threading.Event()

    def come_and_go() -> None:
        other = WeightStore(folder, ANY)
        while not stop.is_set():
            other.add(file, "brief")
            other.remove("brief")

    busy = threading.Thread(target=come_and_go)
    busy.start()
    try:
        seen: set[str] = set()

        def found_both() -> bool:
            found = store.installed()
            assert "kept" in found
            seen.add(",".join(sorted(found)))
            return len(seen) == 2

        wait_until_sync(found_both)
    finally:
        stop.set()
        busy.join()
