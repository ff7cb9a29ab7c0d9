"""The LaMa engine: the reference's pictures, the frame around it, memory that runs out, and what it refuses."""

from __future__ import annotations

import functools
import gc
import subprocess
import sys
import weakref
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from safetensors.numpy import save_file

from lcq.config import ModelsConfig
from lcq.loading import for_good
from lcq.models import Device, DeviceKind, Ease, TaskType
from worker.engines.base import Cancelled, EngineError, EngineSettings, ErrorClass, Picture, Work
from worker.engines.lama import LamaEngine
from worker.weights import WeightStore

DATA = Path(__file__).parents[1] / "data" / "lama"
CASES = ("64x64", "96x128", "70x101", "24x40")
ANY = ModelsConfig(allow=("any",))
Pixels = NDArray[Any]


@pytest.fixture(scope="module", autouse=True)
def with_torch() -> None:
    """Loaded here, for two seconds: every worker reads this file, and only one runs its tests."""
    global torch, TorchDevice, gpu_place, is_out_of_memory
    with for_good():
        torch = pytest.importorskip("torch")
        from worker.engines.torch_device import TorchDevice, gpu_place, is_out_of_memory


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of weights with the small reference network, as ``lama`` and under a name of its own."""
    folder = tmp_path_factory.mktemp("weights")
    with np.load(DATA / "small_weights.npz") as arrays:
        save_file({name: arrays[name] for name in arrays.files}, folder / "small.safetensors")
    for name in ("lama", "mine"):
        WeightStore(folder / "models", ANY).add(folder / "small.safetensors", name)
    return folder / "models"


@pytest.fixture
def engine(models: Path) -> LamaEngine:
    return LamaEngine(EngineSettings(models_path=models))


def work(
    pixels: Pixels,
    mask: NDArray[np.bool_],
    *,
    eased: tuple[Ease, ...] = (),
    progress: Callable[[float, str], None] = lambda fraction, stage: None,
    **config: Any,
) -> Work:
    return Work(TaskType.INPAINT, "lama", Picture(pixels, mask), config, progress, eased)


def done(engine: LamaEngine, asked: Work) -> Pixels:
    engine.load(asked.model, asked.config)
    return engine.run(asked)


def photo(height: int, width: int, kind: str = "rgb") -> Pixels:
    dtype = np.uint16 if "16" in kind else np.uint8
    shape = (height, width, 3) if "rgb" in kind else (height, width)
    return np.random.default_rng(5).integers(0, np.iinfo(dtype).max, shape, dtype=dtype, endpoint=True)


def hole(height: int, width: int, *boxes: tuple[int, int, int, int]) -> NDArray[np.bool_]:
    mask = np.zeros((height, width), bool)
    for top, bottom, left, right in boxes or ((4, 12, 5, 14),):
        mask[top:bottom, left:right] = True
    return mask


# ---------------------------------------------------------------- pictures


@pytest.mark.parametrize("case", CASES)
def test_a_reference_picture_comes_out_as_from_the_reference_program(engine: LamaEngine, case: str) -> None:
    with np.load(DATA / "small_cases.npz") as cases:
        pixels = cases[f"{case}__image_u8"].transpose(1, 2, 0)
        mask = cases[f"{case}__mask_u8"] > 127
        expected, answer = cases[f"{case}__result_u8_hwc"], cases[f"{case}__predicted"].transpose(1, 2, 0)
    original = done(engine, work(pixels, mask, hd_strategy="Original"))
    assert np.abs(original.astype(int) - expected).max() <= 1
    assert np.count_nonzero(original != expected) <= 0.001 * expected.size
    assert np.array_equal(original[~mask], pixels[~mask])
    auto = done(engine, work(pixels, mask))  # the same window, but rounded to the nearest
    nearest = np.rint(answer[: mask.shape[0], : mask.shape[1]] * 255)
    assert np.count_nonzero(auto[mask] != nearest[mask]) <= 0.001 * expected.size


@settings(max_examples=40, deadline=None)
@given(
    size=st.tuples(st.integers(1, 90), st.integers(1, 90)),
    seed=st.integers(0, 2**32 - 1),
    kind=st.sampled_from(["rgb", "rgb16", "grey", "grey16"]),
    strategy=st.sampled_from(["auto", "original", "resize", "crop"]),
    precision=st.sampled_from(["fp32", "bf16", "FP16"]),
    eased=st.sampled_from([(), (Ease.SMALLER_TILE,), (Ease.SMALLER_TILE, Ease.LOWER_PRECISION)]),
)
def test_outside_the_mask_every_picture_stays_bit_identical(
    models: Path,
    size: tuple[int, int],
    seed: int,
    kind: str,
    strategy: str,
    precision: str,
    eased: tuple[Ease, ...],
) -> None:
    rng = np.random.default_rng(seed)
    pixels, mask = photo(*size, kind), rng.random(size) < 0.2
    mask[0, 0] = False
    config = {"strategy": strategy, "precision": precision, "hd_strategy_resize_limit": 40}
    config["hd_strategy_crop_trigger_size"] = 30
    result = done(shared(models), work(pixels, mask, eased=eased, **config))
    assert result.shape == pixels.shape
    assert result.dtype == pixels.dtype
    assert np.array_equal(result[~mask], pixels[~mask])


@functools.cache
def shared(models: Path) -> LamaEngine:
    return LamaEngine(EngineSettings(models_path=models))


def test_16_bits_are_the_networks_own(engine: LamaEngine) -> None:
    eight = photo(64, 64)
    mask = hole(64, 64, (10, 50, 10, 50))
    deep = done(engine, work(eight.astype(np.uint16) * 257, mask))
    shallow = done(engine, work(eight, mask))
    assert np.abs(deep[mask] / 257 - shallow[mask]).max() <= 0.51  # the same answer
    assert len(np.unique(deep[mask] % 257)) > 100  # but not rounded to 8 bits


def test_grey_comes_out_as_the_mean_of_its_colours(engine: LamaEngine) -> None:
    grey, mask = photo(64, 64, "grey"), hole(64, 64, (10, 50, 10, 50))
    colour = done(engine, work(np.repeat(grey[..., None], 3, axis=2), mask))
    result = done(engine, work(grey, mask))
    assert np.abs(result[mask] - colour[mask].mean(axis=1)).max() <= 1


@pytest.mark.parametrize("shape", [(1, 2), (1, 10000), (10000, 1), (15, 7)])
@pytest.mark.parametrize("strategy", ["auto", "original", "crop"])
def test_slivers_can_be_filled(engine: LamaEngine, shape: tuple[int, int], strategy: str) -> None:
    mask = np.zeros(shape, bool)
    mask[-1, -1] = True
    result = done(engine, work(photo(*shape), mask, strategy=strategy))
    assert np.array_equal(result[~mask], photo(*shape)[~mask])


def test_an_empty_mask_gives_the_picture_back(engine: LamaEngine) -> None:
    assert np.array_equal(done(engine, work(photo(40, 50), np.zeros((40, 50), bool))), photo(40, 50))


@pytest.mark.parametrize("strategy", ["auto", "original", "resize", "crop"])
def test_a_mask_over_everything_is_refused_and_the_next_task_is_fine(engine: LamaEngine, strategy: str) -> None:
    with pytest.raises(EngineError) as refusal:
        done(engine, work(photo(40, 50), np.ones((40, 50), bool), strategy=strategy))
    assert (refusal.value.code, refusal.value.error_class) == ("mask_full", ErrorClass.BAD_INPUT)
    assert done(engine, work(photo(40, 50), hole(40, 50))).shape == (40, 50, 3)


# ---------------------------------------------------------------- what it offers


def test_it_offers_what_is_installed_on_its_device_and_says_what_else_there_could_be(models: Path) -> None:
    cpu = LamaEngine(EngineSettings(models_path=models))
    assert set(cpu.capabilities()) == {"lama", "mine"}
    offer = cpu.capabilities()["lama"]
    assert offer.kinds == (DeviceKind.CPU,)
    assert offer.memory_mib > 0
    assert offer.vram_mib == 0
    assert offer.eases == (Ease.SMALLER_TILE, Ease.LOWER_PRECISION)
    assert cpu.left_out() == {"anime-lama": "no weights: lcq models pull anime-lama"}
    gpu = LamaEngine(EngineSettings(models_path=models, device=Device(id="GPU-1", kind=DeviceKind.GPU)))
    assert gpu.capabilities()["lama"].kinds == (DeviceKind.GPU,)
    assert gpu.capabilities()["lama"].vram_mib > 0


def test_without_torch_it_offers_nothing_and_says_how_to_get_it(models: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "torch", None)  # as where it is not installed
    engine = LamaEngine(EngineSettings(models_path=models))
    assert engine.capabilities() == {}
    assert engine.left_out() == {
        "anime-lama": "no weights: lcq models pull anime-lama; torch is not installed: pip install 'lcq[torch]'",
        "lama": "torch is not installed: pip install 'lcq[torch]'",
        "mine": "torch is not installed: pip install 'lcq[torch]'",
    }


def test_offering_loads_no_torch(models: Path) -> None:
    script = (
        "import sys; from pathlib import Path; from worker.engines.lama import LamaEngine, EngineSettings; "
        f"engine = LamaEngine(EngineSettings(models_path=Path({str(models)!r}))); "
        "print(sorted(engine.capabilities()), engine.left_out(), engine.held_mib()); "
        "sys.exit('torch' in sys.modules)"
    )
    subprocess.run([sys.executable, "-c", script], check=True)


def test_weights_that_do_not_have_their_length_are_left_out(models: Path, tmp_path: Path) -> None:
    broken = copied(models, tmp_path)
    (broken / "lama" / "weights.safetensors").write_bytes(b"too short")
    engine = LamaEngine(EngineSettings(models_path=broken))
    assert set(engine.capabilities()) == {"mine"}
    assert engine.left_out()["lama"].startswith("damaged weights (its weights have 9 bytes, not ")
    assert engine.left_out()["lama"].endswith("lcq models rm lama, then pull or add them")


# ---------------------------------------------------------------- loading


def copied(models: Path, to: Path) -> Path:
    for file in models.rglob("*"):
        if file.is_file() and ".locks" not in file.parts:
            target = to / file.relative_to(models)
            target.parent.mkdir(parents=True, exist_ok=True)
            target.write_bytes(file.read_bytes())
    return to


def test_weights_that_are_gone_are_this_nodes_trouble(models: Path, tmp_path: Path) -> None:
    folder = copied(models, tmp_path)
    engine = LamaEngine(EngineSettings(models_path=folder))
    (folder / "lama" / "manifest.json").unlink()
    (folder / "lama" / "weights.safetensors").unlink()
    (folder / "lama").rmdir()
    with pytest.raises(EngineError, match=r"no weights for 'lama' here.*lcq models pull lama") as trouble:
        engine.load("lama", {})
    assert (trouble.value.code, trouble.value.error_class) == ("weights_missing", ErrorClass.CRASH)


@pytest.mark.parametrize("damage", ["header", "length", "tensors"])
def test_damaged_weights_are_this_nodes_trouble_and_the_other_models_still_load(
    models: Path, tmp_path: Path, damage: str
) -> None:
    folder = copied(models, tmp_path)
    file = folder / "lama" / "weights.safetensors"
    content = bytearray(file.read_bytes())
    if damage == "header":
        content[8:40] = b"{" * 32
    elif damage == "length":
        content[:8] = b"\xff" * 8
    else:
        at = content.index(b"model.1.ffc.convl2l.weight")
        content[at : at + 7] = b"nodel.1"
    file.write_bytes(content)
    engine = LamaEngine(EngineSettings(models_path=folder))
    with pytest.raises(EngineError, match="the weights of lama cannot be used") as trouble:
        engine.load("lama", {})
    assert (trouble.value.code, trouble.value.error_class) == ("weights_damaged", ErrorClass.CRASH)
    assert engine.load("mine", {}) > 0


def test_loading_tells_what_is_held_in_all_precisions_and_twice_costs_nothing(engine: LamaEngine) -> None:
    assert engine.held_mib() == 0
    one = engine.load("lama", {})
    assert one > 100_000
    assert engine.load("lama", {"precision": "fp32"}) == one
    both = engine.load("lama", {"precision": "bf16"})
    assert both > one
    assert engine.load("lama", {}) == both
    assert engine.held_mib() == -(-both // 2**20)
    engine.unload("lama")
    assert engine.held_mib() == 0
    assert engine.load("lama", {}) == one


def test_unloading_frees_the_network_at_once(engine: LamaEngine) -> None:
    done(engine, work(photo(64, 64), hole(64, 64)))
    network = weakref.ref(engine._loaded["lama", "fp32"].network)
    gc.disable()  # a circle would be kept until it runs, and the next model would find no room
    try:
        engine.unload("lama")
        assert network() is None
    finally:
        gc.enable()


def test_loading_gives_torch_the_threads_of_the_slot(models: Path) -> None:
    before = torch.get_num_threads()
    try:
        LamaEngine(EngineSettings(models_path=models, threads=3)).load("lama", {})
        assert torch.get_num_threads() == 3
        assert torch.get_num_interop_threads() == 1
    finally:
        torch.set_num_threads(before)


def test_a_gpu_that_torch_does_not_see_is_named(models: Path) -> None:
    if torch.cuda.is_available():
        pytest.skip("there is one")
    gpu = Device(id="GPU-11111111-2222-3333-4444-555555555555", kind=DeviceKind.GPU, name="NVIDIA Thing")
    engine = LamaEngine(EngineSettings(models_path=models, device=gpu))
    with pytest.raises(EngineError, match=r"runner is for NVIDIA Thing \(GPU-11111111.*sees no GPU") as trouble:
        engine.load("lama", {})
    assert (trouble.value.code, trouble.value.error_class) == ("device_missing", ErrorClass.CRASH)


ONE, OTHER = "11111111-2222-3333-4444-555555555555", "99999999-2222-3333-4444-555555555555"


@pytest.mark.parametrize(
    ("asked", "seen", "place"),
    [
        (f"GPU-{ONE}", [ONE], "cuda:0"),
        (f"GPU-{ONE}", [OTHER, ONE], "cuda:1"),
        ("MIG-77777777-2222-3333-4444-555555555555", [OTHER], "cuda:0"),  # CUDA may tell its GPU's UUID
        ("hip-3", [None], "cuda:0"),
        (f"GPU-{ONE}", [None], "cuda:0"),  # a torch that tells no UUIDs
        (f"GPU-{ONE}", [OTHER], None),
        (f"GPU-{ONE}", [], None),
        ("MIG-77777777-2222-3333-4444-555555555555", [OTHER, ONE], None),
    ],
)
def test_a_gpu_is_found_by_its_uuid_and_no_other_is_taken_for_it(
    monkeypatch: pytest.MonkeyPatch, asked: str, seen: list[str | None], place: str | None
) -> None:
    def properties(index: int) -> SimpleNamespace:
        return SimpleNamespace(uuid=seen[index]) if seen[index] else SimpleNamespace()

    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: len(seen))
    monkeypatch.setattr(torch.cuda, "get_device_properties", properties)
    gpu = Device(id=asked, kind=DeviceKind.GPU)
    if place is not None:
        assert gpu_place(gpu) == torch.device(place)
    else:
        with pytest.raises(EngineError, match=f"runner is for the GPU .{asked}., but torch sees "):
            gpu_place(gpu)


@pytest.mark.parametrize(
    ("config", "says"),
    [
        ({"precision": "fp8"}, "config.precision must be one of fp32, bf16, fp16; found 'fp8'"),
        ({"precision": 16}, "config.precision must be one of fp32, bf16, fp16; found 16"),
        ({"hd_strategy": "Best"}, "config.hd_strategy must be one of auto, original, resize, crop; found 'Best'"),
        ({"hd_strategy_crop_margin": -5}, "config.hd_strategy_crop_margin must be a whole number of pixels from 0"),
    ],
)
def test_a_wrong_wish_is_bad_input_before_anything_is_loaded(
    engine: LamaEngine, config: dict[str, Any], says: str
) -> None:
    for refused in (
        lambda: engine.load("lama", config),
        lambda: engine.run(work(photo(20, 20), hole(20, 20), **config)),
        lambda: engine.estimate(work(photo(20, 20), hole(20, 20), **config)),
    ):
        with pytest.raises(EngineError) as refusal:
            refused()
        assert str(refusal.value).startswith(says)
        assert (refusal.value.code, refusal.value.error_class) == ("config_invalid", ErrorClass.BAD_INPUT)
    assert engine.held_mib() == 0


# ---------------------------------------------------------------- precision, easing, estimates


def test_fp16_on_a_cpu_is_run_in_bf16_and_said(engine: LamaEngine) -> None:
    asked = work(photo(64, 64), hole(64, 64), precision="fp16")
    half = done(engine, asked)
    assert asked.notes == ["precision fp16 is for GPUs: run in bf16, which takes as little memory"]
    assert np.array_equal(half, done(engine, work(photo(64, 64), hole(64, 64), precision="bf16")))


def test_lower_precision_is_run_said_and_takes_the_place_of_the_higher(engine: LamaEngine) -> None:
    full, half = engine.load("lama", {}), LamaEngine(engine.settings).load("lama", {"precision": "bf16"})
    assert half < full
    asked = work(photo(64, 64), hole(64, 64), eased=(Ease.LOWER_PRECISION,))
    result = done(engine, asked)
    assert asked.notes == ["run in bf16 instead of fp32, as memory had run out"]
    assert np.array_equal(result, done(engine, work(photo(64, 64), hole(64, 64), precision="bf16")))
    assert engine.load("lama", {"precision": "bf16"}) == half
    lowest = work(photo(64, 64), hole(64, 64), eased=(Ease.LOWER_PRECISION,), precision="bf16")
    done(engine, lowest)
    assert lowest.notes == ["memory had run out, but there is no lower precision than bf16"]


def test_smaller_tiles_are_run_and_said(engine: LamaEngine) -> None:
    mask = hole(400, 500, (100, 130, 100, 130))
    asked = work(photo(400, 500), mask, eased=(Ease.SMALLER_TILE,), hd_strategy="Original")
    result = done(engine, asked)
    assert asked.notes == ["run in windows of at most 768 pixels with half the usual context, as memory had run out"]
    assert np.array_equal(result[~mask], photo(400, 500)[~mask])
    whole = work(photo(400, 500), mask, hd_strategy="Original")
    assert engine.estimate(asked).memory_mib < engine.estimate(whole).memory_mib


def test_the_estimate_follows_the_mask_and_not_the_picture(engine: LamaEngine) -> None:
    box = (300, 310, 300, 310)
    small, large = (
        engine.estimate(work(np.zeros((side, side, 3), np.uint8), hole(side, side, box))) for side in (512, 2000)
    )
    assert small == large
    assert small.memory_mib > 0
    assert small.seconds > 0
    wide = engine.estimate(work(np.zeros((2000, 2000, 3), np.uint8), hole(2000, 2000, (300, 900, 300, 900))))
    assert wide.memory_mib > 4 * small.memory_mib
    assert engine.estimate(work(photo(20, 20), np.zeros((20, 20), bool))).memory_mib == 0


# ---------------------------------------------------------------- progress


def test_progress_goes_on_inside_a_window_and_a_cancelled_task_leaves_the_model_warm(engine: LamaEngine) -> None:
    told: list[float] = []
    asked = work(photo(64, 64), hole(64, 64), progress=lambda fraction, stage: told.append(fraction))
    expected = done(engine, asked)
    assert len(told) == 1 + 2 * 2  # its beginning, and each of the two layers of two blocks
    assert told == sorted(told)
    assert told[0] == 0.0
    assert told[-1] <= 1.0

    def nobody_wants_it(fraction: float, stage: str) -> None:
        if fraction >= 0.5:
            raise Cancelled

    held = engine.held_mib()
    with pytest.raises(Cancelled):
        done(engine, work(photo(64, 64), hole(64, 64), progress=nobody_wants_it))
    assert engine.held_mib() == held
    assert np.array_equal(done(engine, work(photo(64, 64), hole(64, 64))), expected)


# ---------------------------------------------------------------- memory that runs out


FACES = [
    "CUDA out of memory. Tried to allocate 2.00 GiB.",  # as torch.OutOfMemoryError
    RuntimeError("cuFFT error: CUFFT_INTERNAL_ERROR"),
    RuntimeError("cuFFT error: CUFFT_ALLOC_FAILED"),
    RuntimeError("CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate(handle)`"),
    RuntimeError("CUDA error: CUBLAS_STATUS_NOT_INITIALIZED when calling `cublasCreate(handle)`"),
    RuntimeError("cuDNN error: CUDNN_STATUS_ALLOC_FAILED"),
    RuntimeError("CUDA error: out of memory"),
    RuntimeError("HIP out of memory. Tried to allocate 20.00 MiB"),
    RuntimeError("MPS backend out of memory (MPS allocated: 9.00 GB)"),
    RuntimeError("[enforce fail at alloc_cpu.cpp:124] err == 0. DefaultCPUAllocator: can't allocate memory"),
    MemoryError(),
]


def broken_by(engine: LamaEngine, break_it: Callable[[], None]) -> None:
    """Let the loaded network come as far as its second layer, and no further."""
    network = engine._loaded["lama", "fp32"].network
    part = [part for part in network.modules() if not any(part.children())][2]
    part.register_forward_hook(lambda *_: break_it())


@pytest.mark.parametrize("face", FACES, ids=lambda face: str(face)[:40])
def test_every_face_of_lacking_memory_is_the_class_resource_and_holds_no_tensor(
    engine: LamaEngine, face: Exception | str
) -> None:
    if isinstance(face, str):
        face = torch.OutOfMemoryError(face)
    tensors: list[weakref.ref[Any]] = []

    def run_out() -> None:
        large = torch.zeros(1000)
        tensors.append(weakref.ref(large))
        raise type(face)(*face.args)

    engine.load("lama", {})
    broken_by(engine, run_out)
    with pytest.raises(EngineError, match="lama in fp32 on 64 x 64 pixels: memory ran out") as trouble:
        engine.run(work(photo(64, 64), hole(64, 64)))
    assert (trouble.value.code, trouble.value.error_class) == ("out_of_memory", ErrorClass.RESOURCE)
    assert trouble.value.__context__ is None  # whose traceback would keep the frames, and they the tensors
    assert tensors[0]() is None
    engine.unload("lama")
    assert done(engine, work(photo(64, 64), hole(64, 64))).shape == (64, 64, 3)


def test_torch_itself_running_out_of_memory_is_known() -> None:
    with pytest.raises(RuntimeError) as error:
        torch.empty(2**55, dtype=torch.uint8)
    assert is_out_of_memory(error.value)


def test_other_troubles_of_torch_are_crashes(engine: LamaEngine) -> None:
    def fail() -> None:
        raise RuntimeError("CUDA error: an illegal memory access was encountered")

    engine.load("lama", {})
    broken_by(engine, fail)
    with pytest.raises(EngineError, match="torch failed: CUDA error: an illegal memory access") as trouble:
        engine.run(work(photo(64, 64), hole(64, 64)))
    assert (trouble.value.code, trouble.value.error_class) == ("engine_error", ErrorClass.CRASH)
    assert not is_out_of_memory(ValueError("out of memory"))


def like_a_gpu(free_mib: float) -> TorchDevice:
    """The CPU, treated as a GPU with so much free memory."""

    class LikeAGpu(TorchDevice):
        def free_mib(self) -> float:
            return free_mib

    device = LikeAGpu(Device(id="cpu", kind=DeviceKind.CPU), threads=1)
    device.is_gpu, device.label = True, "NVIDIA Thing (GPU-1)"
    return device


NINE_HOLES = [(top, top + 9, left, left + 9) for top in (50, 750, 1440) for left in (50, 750, 1440)]


@pytest.mark.parametrize(
    ("windows_that_fit", "batches"), [(100, [9]), (5, [4, 4, 1]), (2.6, [2, 2, 2, 2, 1]), (1, [1] * 9)]
)
def test_on_a_gpu_windows_of_one_size_run_together_as_far_as_memory_goes(
    engine: LamaEngine, windows_that_fit: float, batches: list[int]
) -> None:
    pixels, mask = photo(1500, 1500), hole(1500, 1500, *NINE_HOLES)
    expected = done(engine, work(pixels, mask))
    loaded = engine._loaded["lama", "fp32"]
    engine._opened = like_a_gpu(windows_that_fit * loaded.mib_a_megapixel * 256 * 256 / 1e6 + 1e-6)
    counts: list[int] = []
    loaded.network.register_forward_pre_hook(lambda network, inputs: counts.append(len(inputs[0])))
    result = engine.run(work(pixels, mask))
    assert counts == batches
    assert np.abs(result.astype(int) - expected).max() <= 1


def test_what_cannot_fit_is_said_before_it_is_tried(engine: LamaEngine) -> None:
    engine.load("lama", {})
    engine._opened = like_a_gpu(10.0)
    tried: list[bool] = []
    broken_by(engine, lambda: tried.append(True))
    mask = hole(900, 900, (100, 700, 100, 700))
    with pytest.raises(
        EngineError, match=r"takes about \d+ MiB for 904 x 904.*NVIDIA Thing \(GPU-1\) has 10 MiB free"
    ) as trouble:
        engine.run(work(photo(900, 900), mask))
    assert (trouble.value.code, trouble.value.error_class) == ("out_of_memory", ErrorClass.RESOURCE)
    assert tried == []
