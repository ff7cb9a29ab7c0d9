"""The LaMa engine: ``lama``, ``anime-lama`` and every added model of that network, on the CPU or a GPU.

torch is imported when the first model is loaded, not before: what an engine offers is known without it.
"""

from __future__ import annotations

import contextlib
import importlib.util
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeVar

import numpy as np
from numpy.typing import NDArray

from lcq.costs import LAMA_CORE_S, shared_by
from lcq.errors import WeightsNotInstalled
from worker.engines.base import (
    DeviceKind,
    Ease,
    Engine,
    EngineError,
    EngineSettings,
    ErrorClass,
    Estimate,
    ModelOffer,
    Work,
)
from worker.engines.crop import Network, Tick, fill, shown_sizes
from worker.engines.framing import Framing
from worker.engines.windows import Size
from worker.weights import Manifest, WeightStore

if TYPE_CHECKING:
    import torch

    from worker.engines.lama_net import Precision
    from worker.engines.torch_device import TorchDevice

T = TypeVar("T")

PRECISIONS: tuple[Precision, ...] = ("fp32", "bf16", "fp16")
"""What ``config.precision`` may be. Without one it is the first: the numbers of the published network."""

_MIB = 2**20
_BIG_LAMA_CHANNELS = 64
_MIB_A_MEGAPIXEL: Mapping[DeviceKind, Mapping[Precision, float]] = {  # of big-lama
    DeviceKind.CPU: {"fp32": 370.0, "bf16": 205.0, "fp16": 205.0},  # measured up to 1536 x 1536
    DeviceKind.GPU: {"fp32": 950.0, "bf16": 600.0, "fp16": 600.0},  # computed, until a warm-up has shown it
}
_FIXED_MIB: Mapping[DeviceKind, int] = {DeviceKind.CPU: 350, DeviceKind.GPU: 500}  # torch itself, the CUDA context
# A megapixel: of a CPU's core as lcq/costs.py has it, of a GPU an estimate.
_SECONDS: Mapping[DeviceKind, float] = {DeviceKind.CPU: LAMA_CORE_S, DeviceKind.GPU: 0.5}
_ORDINARY = (512, 512)  # the window of an ordinary picture's holes
_MOST_AT_ONCE = 16  # windows: more do not make a GPU busier
_SHARE = 0.8  # of the free memory that a batch may take


@dataclass
class _Loaded:
    """A network in the form in which it is run, the bytes it holds, and what a picture takes beside these."""

    network: torch.nn.Module
    bytes: int
    mib_a_megapixel: float


class LamaEngine(Engine):
    """Every LaMa network whose weights are installed.

    The configuration knows ``precision`` (``PRECISIONS``) and how the picture is cut up (``Framing``). Eased,
    it works in smaller windows, and in the 16 bits that its device is good at. A mask over the whole picture is
    refused: the parents' programs would invent a picture.
    """

    name = "lama"

    def __init__(self, settings: EngineSettings) -> None:
        super().__init__(settings)
        self._store = WeightStore(settings.models_path, settings.models)
        self._loaded: dict[tuple[str, Precision], _Loaded] = {}
        self._opened: TorchDevice | None = None

    # ------------------------------------------------------------ what it offers

    def capabilities(self) -> Mapping[str, ModelOffer]:
        if not _torch_is_there():
            return {}
        return {name: self._offer(manifest) for name, manifest in self._store.installed().items()}

    def _offer(self, manifest: Manifest) -> ModelOffer:
        kind = self.settings.device.kind
        weights = manifest.weights_bytes / _MIB
        needed = round(_FIXED_MIB[kind] + weights + self._working_mib("fp32", manifest.channels, _ORDINARY))
        return ModelOffer(
            kinds=(kind,),
            vram_mib=needed if kind is DeviceKind.GPU else 0,
            memory_mib=needed if kind is DeviceKind.CPU else round(_FIXED_MIB[kind] + weights),
            seconds={kind: self._seconds(_megapixels(_ORDINARY))},
            eases=(Ease.SMALLER_TILE, Ease.LOWER_PRECISION),
        )

    def left_out(self) -> Mapping[str, str]:
        without_torch = "" if _torch_is_there() else "torch is not installed: pip install 'lcq[torch]'"
        reasons = {}
        for model in self._store.states():
            missing = {
                "installed": "",
                "damaged": f"damaged weights ({model.found}): lcq models rm {model.name}, then pull or add them",
            }.get(model.state, f"no weights: lcq models pull {model.name}")
            if missing or without_torch:
                reasons[model.name] = "; ".join(reason for reason in (missing, without_torch) if reason)
        return reasons

    def estimate(self, work: Work) -> Estimate:
        """By the windows that will be shown.

        Raises:
            EngineError: the config says something that this engine does not know.
        """
        precision, framing, _ = self._wishes(work)
        manifest = self._store.installed().get(work.model)
        channels = manifest.channels if manifest else _BIG_LAMA_CHANNELS
        sizes = shown_sizes(work.picture.mask, framing, Network(_shows_nothing))
        loaded = self._loaded.get((work.model, precision))
        megapixels = sum(map(_megapixels, sizes)) * (channels / _BIG_LAMA_CHANNELS) ** 2
        return Estimate(
            memory_mib=max(
                (
                    loaded.mib_a_megapixel * _megapixels(size)
                    if loaded
                    else self._working_mib(precision, channels, size)
                    for size in sizes
                ),
                default=0.0,
            ),
            seconds=self._seconds(megapixels),
        )

    def _seconds(self, megapixels: float) -> float:
        kind = self.settings.device.kind
        seconds = _SECONDS[kind] * megapixels
        return shared_by(seconds, self.settings.threads) if kind is DeviceKind.CPU else seconds

    def _working_mib(self, precision: Precision, channels: int, size: Size) -> float:
        """What a window takes beside the network, in MiB, where it has not been measured."""
        of_big_lama = _MIB_A_MEGAPIXEL[self.settings.device.kind][precision] * _megapixels(size)
        return of_big_lama * channels / _BIG_LAMA_CHANNELS

    # ------------------------------------------------------------ loading

    def load(self, model: str, config: Mapping[str, Any]) -> int:
        """Make ``model`` ready in the precision that ``config`` names; other precisions of it stay loaded.

        Raises:
            EngineError: config_invalid; weights_missing or weights_damaged, which is this node's trouble;
                device_missing; out_of_memory.
        """
        Framing.from_config(config)  # what is wrong with a task is said before anything is loaded for it
        precision, _ = self._runnable(_precision(config))
        self._form(model, precision)
        return sum(loaded.bytes for (name, _), loaded in self._loaded.items() if name == model)

    def unload(self, model: str) -> None:
        self._drop(model, keep=None)

    def held_mib(self) -> int:
        if self._opened is None:
            return 0
        held = self._opened.held()
        return -(-(sum(loaded.bytes for loaded in self._loaded.values()) if held is None else held) // _MIB)

    def begin_peak(self) -> None:
        if self._opened is not None:
            self._opened.begin_peak()

    def peak_mib(self) -> int:
        """What torch had in tensors, and what the device's libraries take beside it."""
        peak = None if self._opened is None else self._opened.peak()
        return 0 if peak is None else -(-peak // _MIB) + _FIXED_MIB[DeviceKind.GPU]

    def _device(self) -> TorchDevice:
        from worker.engines.torch_device import TorchDevice  # here: it imports torch

        if self._opened is None:
            self._opened = TorchDevice(self.settings.device, threads=self.settings.threads)
        return self._opened

    def _form(self, model: str, precision: Precision) -> _Loaded:
        loaded = self._loaded.get((model, precision))
        if loaded is None:
            loaded = self._with_memory(f"loading {model}", lambda: self._read(model, precision))
            self._loaded[model, precision] = loaded
        return loaded

    def _drop(self, model: str, *, keep: Precision | None) -> None:
        for name, precision in tuple(self._loaded):
            if name == model and precision != keep:
                del self._loaded[name, precision]
        if self._opened is not None:
            self._opened.give_back()

    def _read(self, model: str, precision: Precision) -> _Loaded:
        from safetensors import SafetensorError, safe_open

        from worker.engines.lama_net import NotThisNetwork, fast_form, generator_from

        device = self._device()
        before = device.allocated()
        try:
            path = self._store.path(model)
            with safe_open(path, framework="pt") as file:  # mapped: read as it is used, shared between runners
                generator = generator_from({name: file.get_tensor(name) for name in file.keys()})  # noqa: SIM118
        except WeightsNotInstalled as error:
            raise EngineError("weights_missing", f"{error} ({error.hint})", error_class=ErrorClass.CRASH) from error
        except (SafetensorError, NotThisNetwork, OSError) as error:
            raise EngineError(
                "weights_damaged",
                f"the weights of {model} cannot be used: {' '.join(str(error).split())} (on this node: lcq models rm "
                f"{model}, then pull or add them)",
                error_class=ErrorClass.CRASH,  # this node's trouble: another one's copy may be whole
            ) from error
        network = fast_form(generator, precision=precision, device=device.place)
        after = device.allocated()
        held = _bytes_of(network) if before is None or after is None else after - before
        loaded = _Loaded(network, held, self._working_mib(precision, generator.ngf, (1000, 1000)))
        if device.is_gpu:
            self._warm_up(loaded, device)
        return loaded

    def _warm_up(self, loaded: _Loaded, device: TorchDevice) -> None:
        """Run once, so that the first picture does not wait for the device's libraries; and see what it takes."""
        pixels, mask = np.zeros((1, *_ORDINARY, 3), np.uint8), np.ones((1, *_ORDINARY), bool)
        self._predicted(loaded, pixels, mask)
        before = device.allocated()
        device.begin_peak()
        self._predicted(loaded, pixels, mask)
        device.finish()
        peak = device.peak()
        if peak is not None and before is not None and peak > before:
            loaded.mib_a_megapixel = (peak - before) / _MIB / _megapixels(_ORDINARY)

    # ------------------------------------------------------------ running

    def run(self, work: Work) -> NDArray[Any]:
        """The picture with its holes filled. Without a hole it is the input.

        Raises:
            EngineError: config_invalid; mask_full; output_not_a_number; out_of_memory, of class resource.
            Cancelled: by way of ``progress``.
        """
        precision, framing, notes = self._wishes(work)
        work.notes += notes
        if Ease.LOWER_PRECISION in work.eased:
            self._drop(work.model, keep=precision)  # what was loaded for the config takes memory, and is not used
        loaded = self._form(work.model, precision)

        def predict(pixels: NDArray[Any], mask: NDArray[np.bool_], tick: Tick) -> NDArray[np.float32]:
            self._must_fit(work.model, loaded, mask.shape)
            with _ticking(loaded.network, tick):
                return self._with_memory(
                    f"{work.model} in {precision} on {_shown(mask.shape)}",
                    lambda: self._predicted(loaded, pixels, mask),
                )

        return fill(
            work.picture.pixels,
            work.picture.mask,
            network=Network(predict, batch=lambda size: self._at_once(loaded, size)),
            framing=framing,
            progress=work.progress,
            notes=work.notes,
        )

    def _predicted(self, loaded: _Loaded, pixels: NDArray[Any], mask: NDArray[np.bool_]) -> NDArray[np.float32]:
        """What the network says of these windows: (batch, height, width, 3), 0..1."""
        import torch

        place, peak = self._device().place, np.iinfo(pixels.dtype).max
        narrow = pixels if pixels.dtype == np.uint8 else pixels.astype(np.int32)  # torch does little with uint16
        with torch.inference_mode():
            image = torch.from_numpy(np.ascontiguousarray(narrow)).to(place).to(torch.float32).div_(peak)
            holes = torch.from_numpy(np.ascontiguousarray(mask)).to(place).to(torch.float32)
            answer = loaded.network(image.permute(0, 3, 1, 2), holes[:, None])  # channels last as it is
            said: NDArray[np.float32] = answer.permute(0, 2, 3, 1).float().cpu().numpy()
        return said

    def _at_once(self, loaded: _Loaded, size: Size) -> int:
        """How many windows of that size to run together. On a CPU they gain nothing by it."""
        device = self._device()
        if not device.is_gpu:
            return 1
        one = loaded.mib_a_megapixel * _megapixels(size)
        return max(1, min(_MOST_AT_ONCE, int(_SHARE * device.free_mib() / one)))

    def _must_fit(self, model: str, loaded: _Loaded, shape: tuple[int, ...]) -> None:
        """
        Raises:
            EngineError: out_of_memory, before anything has to be ended for it.
        """
        device = self._device()
        needed = loaded.mib_a_megapixel * shape[0] * _megapixels(shape[1:])
        free = device.free_mib()
        if needed > free:
            raise EngineError(
                "out_of_memory",
                f"{model} takes about {needed:,.0f} MiB for {_shown(shape)}; {device.label} has {free:,.0f} MiB free",
                error_class=ErrorClass.RESOURCE,
            )

    def _with_memory(self, doing: str, do: Callable[[], T]) -> T:
        """What ``do`` gives.

        Raises:
            EngineError: out_of_memory, whatever face it had; engine_error for torch's other troubles.
        """
        from worker.engines.torch_device import is_out_of_memory

        try:
            return do()
        except (RuntimeError, MemoryError) as error:
            lacks, said = is_out_of_memory(error), " ".join(str(error).split())[:300] or type(error).__name__
        # Out of the except block the traceback is gone, and with it the tensors of the frames that failed.
        if not lacks:
            raise EngineError("engine_error", f"{doing}: torch failed: {said}", error_class=ErrorClass.CRASH)
        if self._opened is not None:
            self._opened.give_back()
        raise EngineError("out_of_memory", f"{doing}: memory ran out: {said}", error_class=ErrorClass.RESOURCE)

    # ------------------------------------------------------------ what is asked for

    def _wishes(self, work: Work) -> tuple[Precision, Framing, list[str]]:
        """Precision, framing, and what to say of them where they are not what the task asked for."""
        framing = Framing.from_config(work.config)
        asked = _precision(work.config)
        precision, note = self._runnable(asked)
        notes = [note] if note else []
        if Ease.LOWER_PRECISION in work.eased:
            if precision == "fp32":
                precision = self._half()
                notes.append(f"run in {precision} instead of {asked}, as memory had run out")
            else:
                notes.append(f"memory had run out, but there is no lower precision than {precision}")
        if Ease.SMALLER_TILE in work.eased:
            framing = framing.tightened()
            notes.append(
                f"run in windows of at most {framing.context.longest} pixels with half the usual context, as memory "
                "had run out"
            )
        return precision, framing, notes

    def _runnable(self, precision: Precision) -> tuple[Precision, str]:
        """``precision``, or what takes its place on this device, and a note that says so."""
        if precision == "fp16" and self.settings.device.kind is DeviceKind.CPU:
            return "bf16", "precision fp16 is for GPUs: run in bf16, which takes as little memory"
        return precision, ""

    def _half(self) -> Precision:
        return "bf16" if self._device().half() == "bf16" else "fp16"


@contextlib.contextmanager
def _ticking(network: torch.nn.Module, tick: Tick) -> Iterator[None]:
    """In the block ``tick`` is told of each part of the network that has run."""
    parts = [part for part in network.modules() if not any(part.children())]
    taken = 0

    def step(*_: object) -> None:
        nonlocal taken
        taken += 1
        tick(min(1.0, taken / len(parts)))

    hooks = [part.register_forward_hook(step) for part in parts]
    try:
        yield
    finally:
        for hook in hooks:
            hook.remove()


def _precision(config: Mapping[str, Any]) -> Precision:
    value = config.get("precision")
    if value is None:
        return PRECISIONS[0]
    for known in PRECISIONS:
        if isinstance(value, str) and value.lower() == known:
            return known
    raise EngineError("config_invalid", f"config.precision must be one of {', '.join(PRECISIONS)}; found {value!r:.80}")


def _torch_is_there() -> bool:
    return importlib.util.find_spec("torch") is not None


def _megapixels(size: tuple[int, ...]) -> float:
    return size[0] * size[1] / 1e6


def _shown(shape: tuple[int, ...]) -> str:
    count, height, width = shape
    return f"{width} x {height} pixels" if count == 1 else f"{count} windows of {width} x {height} pixels"


def _bytes_of(network: torch.nn.Module) -> int:
    """What the tensors of a network take; those that share their memory count once."""
    tensors = [*network.parameters(), *network.buffers()]
    storages = {tensor.untyped_storage().data_ptr(): tensor.untyped_storage().nbytes() for tensor in tensors}
    return sum(storages.values())


def _shows_nothing(pixels: NDArray[Any], mask: NDArray[np.bool_], tick: Tick) -> NDArray[np.float32]:
    raise AssertionError("an estimate runs no network")
