"""Which GPUs this process's environment hides from it: CUDA_VISIBLE_DEVICES and NVIDIA_VISIBLE_DEVICES. Pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

_NOTHING_SAID = ("", "all", "void")  # "void": the container's GPUs were chosen by another way (CDI)


@dataclass(frozen=True)
class Seen:
    """A GPU, or a MIG instance of the GPU ``parent``, as NVML shows it."""

    uuid: str
    name: str
    number: int  # its GPU's in nvidia-smi
    pci: str  # of its GPU
    parent: str = ""

    @property
    def board(self) -> str:
        """The UUID of the GPU that it is, or is part of."""
        return self.parent or self.uuid


def hidden(gpus: Sequence[Seen], environment: Mapping[str, str], *, all_seen: bool = True) -> dict[str, str]:
    """UUID -> why it must not be used, for each of ``gpus`` that its owner has hidden from this process.

    What cannot be told with certainty counts as hidden, and its text says what to do. ``all_seen``: there is
    no GPU beside ``gpus``, one that does not answer, which CUDA may count and we cannot.
    """
    out: dict[str, str] = {}
    container = environment.get("NVIDIA_VISIBLE_DEVICES", "").strip()
    if container not in _NOTHING_SAID and not container.startswith("/"):
        left = _left_by_container(gpus, container)
        out |= {gpu.uuid: f"hidden by NVIDIA_VISIBLE_DEVICES={container}" for gpu in gpus if gpu.uuid not in left}
    cuda = environment.get("CUDA_VISIBLE_DEVICES")
    if cuda is not None:
        by_bus = environment.get("CUDA_DEVICE_ORDER", "").strip() == "PCI_BUS_ID"
        left, why = _left_by_cuda(gpus, cuda, in_bus_order=by_bus, all_seen=all_seen)
        out |= {gpu.uuid: why for gpu in gpus if gpu.uuid not in left}
    return out


def _left_by_container(gpus: Sequence[Seen], value: str) -> set[str]:
    """UUIDs that stay visible.

    The container's runtime has acted on this variable: as a rule it shows just the GPUs that are meant,
    counted anew from 0. Only a privileged container sees them all, and can be held to what was meant.
    """
    if value == "none":
        return set()
    everything = {gpu.uuid for gpu in gpus}
    entries = [entry.strip() for entry in value.split(",") if entry.strip()]
    if len(entries) >= len({gpu.board for gpu in gpus}):
        return everything
    left = set()
    for entry in entries:
        number = entry.partition(":")[0]  # "0:1" is a MIG instance of GPU 0
        if number.isdigit():
            left |= {gpu.uuid for gpu in gpus if gpu.number == int(number)}
        else:
            left |= _named(gpus, entry)
    return left or everything


def _left_by_cuda(gpus: Sequence[Seen], value: str, *, in_bus_order: bool, all_seen: bool) -> tuple[set[str], str]:
    """UUIDs that stay visible, and why the others do not."""
    setting = f"CUDA_VISIBLE_DEVICES={value}"
    entries = [entry.strip() for entry in value.split(",")]
    order = _cuda_order(gpus, in_bus_order=in_bus_order, all_seen=all_seen)
    boards = list(dict.fromkeys(gpu.board for gpu in gpus))
    numbers = {int(entry) for entry in entries if entry.isdigit()}
    has_mig = any(gpu.parent for gpu in gpus)
    if numbers and order is None and all_seen and not has_mig and numbers == set(range(len(boards))):
        order = boards  # all of them, in whatever order
    if numbers and order is None:
        remedy = "" if has_mig or not all_seen else "set CUDA_DEVICE_ORDER=PCI_BUS_ID, or "
        return set(), (
            f"{setting} counts GPUs in CUDA's own order, which cannot be told here: "
            f"{remedy}name {'the MIG instances' if has_mig else 'the GPUs'} by UUID (nvidia-smi -L)"
        )
    left: set[str] = set()
    for entry in entries:
        if entry.isdigit() and order is not None and int(entry) < len(order):
            chosen = {gpu.uuid for gpu in gpus if gpu.board == order[int(entry)]}
        else:
            chosen = _named(gpus, entry)
        if not chosen:  # CUDA reads no further than the first entry that it does not know
            stopped = f" (CUDA stops reading at {entry!r}, which is no GPU)" if entry not in ("", "-1") else ""
            return left, f"hidden by {setting}{stopped}"
        left |= chosen
    return left, f"hidden by {setting}"


def _cuda_order(gpus: Sequence[Seen], *, in_bus_order: bool, all_seen: bool) -> list[str] | None:
    """The GPUs as CUDA counts them; None if that cannot be known.

    By default CUDA counts the fastest first and promises nothing of the rest; equal ones come by their place
    on the bus. With MIG it counts instances, by rules that changed from driver to driver.
    """
    boards = {gpu.board: gpu for gpu in gpus}
    if any(gpu.parent for gpu in gpus) or not all_seen:
        return None
    if len(boards) > 1 and not (in_bus_order or len({gpu.name for gpu in gpus}) == 1):
        return None
    if len(boards) > 1 and not all(gpu.pci for gpu in gpus):
        return None
    return sorted(boards, key=lambda uuid: boards[uuid].pci)


def _named(gpus: Sequence[Seen], beginning: str) -> set[str]:
    """What a UUID, or the beginning of one, stands for; nothing if it could be several."""
    if not beginning.startswith(("GPU-", "MIG-")):
        return set()
    instance = [gpu.uuid for gpu in gpus if gpu.uuid.startswith(beginning)]
    if len(instance) == 1:
        return set(instance)
    boards = {gpu.parent for gpu in gpus if gpu.parent.startswith(beginning)} if not instance else set()
    return {gpu.uuid for gpu in gpus if gpu.parent in boards} if len(boards) == 1 else set()
