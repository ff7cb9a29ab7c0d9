"""The device that torch computes on in this runner: found by what the agent said, its memory, how its lack looks."""

from __future__ import annotations

import contextlib
import os

import psutil
import torch

from lcq.hardware import usable_memory_mib
from lcq.models import Device, DeviceKind
from worker.engines.base import EngineError, ErrorClass

_MIB = 2**20

_NO_MEMORY = (
    "out of memory",  # CUDA, HIP and MPS, also where it comes as another class than torch.OutOfMemoryError
    "CUFFT_INTERNAL_ERROR",  # what a Fourier transform says that found no memory for its plan
    "CUFFT_ALLOC_FAILED",
    "HIPFFT_INTERNAL_ERROR",
    "HIPFFT_ALLOC_FAILED",
    "CUBLAS_STATUS_ALLOC_FAILED",
    "CUBLAS_STATUS_NOT_INITIALIZED",  # the handle's workspace did not fit
    "HIPBLAS_STATUS_ALLOC_FAILED",
    "CUDNN_STATUS_ALLOC_FAILED",
    "CUDNN_STATUS_NOT_INITIALIZED",
    "CUDNN_STATUS_INTERNAL_ERROR_DEVICE_ALLOCATION_FAILED",
    "CUDNN_STATUS_INTERNAL_ERROR_HOST_ALLOCATION_FAILED",
    "MIOPENSTATUSALLOCFAILED",
    "DefaultCPUAllocator",
    "hipErrorOutOfMemory",
    "cudaErrorMemoryAllocation",
)


def is_out_of_memory(error: BaseException) -> bool:
    """Whether ``error`` is one of the faces that lack of memory has in torch and the libraries below it."""
    if isinstance(error, MemoryError | torch.OutOfMemoryError):
        return True
    said = str(error).lower()
    return isinstance(error, RuntimeError) and any(words.lower() in said for words in _NO_MEMORY)


class TorchDevice:
    """Where this process's tensors go. Making it also gives torch its threads."""

    def __init__(self, device: Device, *, threads: int) -> None:
        """
        Raises:
            EngineError: device_missing: torch does not see the device that this runner is for.
        """
        self.is_gpu = device.kind is DeviceKind.GPU
        self.place = gpu_place(device) if self.is_gpu else torch.device("cpu")
        self.label = f"{device.name or 'the GPU'} ({device.id})" if self.is_gpu else "the CPU"
        torch.set_num_threads(max(1, threads))
        if torch.get_num_interop_threads() != 1:  # one picture at a time: there is nothing to run beside it
            with contextlib.suppress(RuntimeError):  # another engine of this runner has used them already
                torch.set_num_interop_threads(1)
        if self.place.type == "cuda":
            # Windows come in dozens of sizes, most of them rarely: measuring the fastest algorithm for each would
            # cost more than it saves, and its trials take memory that the estimate knows nothing of.
            torch.backends.cudnn.benchmark = False
            # fp32 is asked for by those who want the reference's numbers: no 10-bit mantissas behind their backs.
            torch.backends.cudnn.conv.fp32_precision = "ieee"  # type: ignore[attr-defined]
            torch.backends.cuda.matmul.fp32_precision = "ieee"

    def free_mib(self) -> float:
        """Memory that the next picture can have, in MiB: what nobody has, and what torch keeps for reuse."""
        if self.place.type == "cuda":
            free, _ = torch.cuda.mem_get_info(self.place)
            kept = torch.cuda.memory_reserved(self.place) - torch.cuda.memory_allocated(self.place)
            return (free + kept) / _MIB
        if self.place.type == "mps":
            return (torch.mps.recommended_max_memory() - torch.mps.current_allocated_memory()) / _MIB
        mine = psutil.Process(os.getpid()).memory_info().rss
        return min(psutil.virtual_memory().available / _MIB, usable_memory_mib() - mine / _MIB)

    def allocated(self) -> int | None:
        """Bytes of the device's memory in tensors now; None for the CPU, which does not count them."""
        if self.place.type == "cuda":
            return torch.cuda.memory_allocated(self.place)
        return torch.mps.current_allocated_memory() if self.place.type == "mps" else None

    def held(self) -> int | None:
        """Bytes that torch has taken from the device, its own caches included; None for the CPU."""
        if self.place.type == "cuda":
            return torch.cuda.memory_reserved(self.place)
        return torch.mps.driver_allocated_memory() if self.place.type == "mps" else None

    def begin_peak(self) -> None:
        """What ``peak`` says is from now on."""
        if self.place.type == "cuda":
            torch.cuda.reset_peak_memory_stats(self.place)

    def peak(self) -> int | None:
        """The most bytes that tensors had at a time; None where the device does not count that."""
        return torch.cuda.max_memory_allocated(self.place) if self.place.type == "cuda" else None

    def finish(self) -> None:
        """Wait for all that was asked of the device."""
        if self.place.type == "cuda":
            torch.cuda.synchronize(self.place)
        elif self.place.type == "mps":
            torch.mps.synchronize()

    def give_back(self) -> None:
        """Give memory that nothing uses back to the device's other programs."""
        if self.place.type == "cuda":
            torch.cuda.empty_cache()
        elif self.place.type == "mps":
            torch.mps.empty_cache()

    def half(self) -> str:
        """The 16-bit precision that this device is good at."""
        if self.place.type != "cuda" or torch.cuda.is_bf16_supported(including_emulation=False):
            return "bf16"
        return "fp16"


def gpu_place(device: Device) -> torch.device:
    """The GPU that ``device`` names. A runner is shown one GPU only; its UUID is held against what torch sees."""
    if device.id == "mps":
        if torch.backends.mps.is_available():
            return torch.device("mps")
        raise _missing(device, "this torch has no Metal (MPS)")
    if not torch.cuda.is_available():
        raise _missing(device, f"torch {torch.__version__} sees no GPU")
    seen = [_uuid(index) for index in range(torch.cuda.device_count())]
    if device.id in seen:
        return torch.device("cuda", seen.index(device.id))
    if len(seen) == 1 and (not seen[0] or not device.id.startswith("GPU-")):
        return torch.device("cuda", 0)  # a MIG instance, or an AMD GPU: told apart by what the runner is shown alone
    raise _missing(device, f"torch sees {', '.join(uuid or 'a GPU without a UUID' for uuid in seen) or 'none'}")


def _uuid(index: int) -> str:
    uuid = getattr(torch.cuda.get_device_properties(index), "uuid", "")
    return f"GPU-{uuid}" if uuid else ""


def _missing(device: Device, found: str) -> EngineError:
    return EngineError(
        "device_missing",
        f"this runner is for {device.name or 'the GPU'} ({device.id}), but {found} (is a torch for this GPU "
        "installed, and is the driver well?)",
        error_class=ErrorClass.CRASH,
    )
