"""What LaMa costs on this CPU, and what was gained: forms of the same network against its plain eager form, in one run.

    python -m benchmarks.lama [--size N] [--rounds N] [--threads N]

Random weights of big-lama's size, which take the same time as trained ones. The forms take turns on the same picture;
each one's CPU time is its best of all rounds, for other work on the machine only ever adds to it. Peak memory is that
of a fresh process which maps the weights' file, builds the form and runs it once. Targets on one thread at 512x512:
fp32 <= 0.90 of eager (aim 0.70), bf16 <= 0.50, peak <= 750 MB.
"""

from __future__ import annotations

import argparse
import json
import platform
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import torch
from safetensors import safe_open
from safetensors.torch import save_file

from worker.engines.lama_net import fast_form, generator_from, random_tensors

FORMS = ("eager", "folded fp32", "winograd fp32", "bf16")


def form(name: str, tensors: dict[str, torch.Tensor]) -> torch.nn.Module:
    generator = generator_from(tensors)
    if name == "eager":
        return generator
    if name == "bf16":
        return fast_form(generator, precision="bf16")
    return fast_form(generator, with_winograd=name.startswith("winograd"))


def picture(size: int) -> tuple[torch.Tensor, torch.Tensor]:
    """A smooth picture and a mask with a hole in the middle."""
    coarse = torch.rand((1, 3, 16, 16), generator=torch.Generator().manual_seed(1))
    image = torch.nn.functional.interpolate(coarse, (size, size), mode="bicubic").clamp(0, 1)
    mask = torch.zeros(1, 1, size, size)
    mask[..., size // 3 : size // 2, size // 4 : size // 2] = 1
    return image, mask


def times(names: list[str], size: int, rounds: int) -> dict[str, tuple[float, float]]:
    """For each form its best CPU seconds, and how far at most it is from what the eager form says."""
    tensors = random_tensors()
    forms = {name: form(name, tensors) for name in names}
    image, mask = picture(size)
    best, answers = dict.fromkeys(names, float("inf")), {}
    with torch.inference_mode():
        for _ in range(rounds):
            for name in names:
                begun = time.process_time()
                answers[name] = forms[name](image, mask)
                best[name] = min(best[name], time.process_time() - begun)
    return {name: (best[name], float((answers[name] - answers["eager"]).abs().max())) for name in names}


def peak_mb(name: str, weights: Path, size: int, threads: int) -> dict[str, float]:
    """Of a fresh process: peak of its resident memory before torch has anything to do, once loaded, and in the end."""
    command = [sys.executable, "-m", "benchmarks.lama", "--peak-of", name, "--weights", str(weights)]
    command += ["--size", str(size), "--threads", str(threads)]
    answer = subprocess.run(command, check=True, capture_output=True, text=True).stdout
    return {key: float(value) for key, value in json.loads(answer).items()}


def peak() -> float:
    """Of this process's resident memory, in MB; getrusage would count what its parent held when it was started."""
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith("VmHWM:"):
            return int(line.split()[1]) * 1024 / 1e6
    raise RuntimeError("/proc/self/status has no VmHWM: peak memory is measured on Linux only")


def tell_peak(name: str, weights: Path, size: int) -> None:
    bare = peak()
    with safe_open(weights, framework="pt") as file:
        network = form(name, {key: file.get_tensor(key) for key in file.keys()})  # noqa: SIM118 - it is no dict
    loaded = peak()
    with torch.inference_mode():
        network(*picture(size))
    print(json.dumps({"bare": bare, "loaded": loaded, "peak": peak()}))


def main() -> None:
    arguments = argparse.ArgumentParser(description=__doc__)
    arguments.add_argument("--size", type=int, default=512)
    arguments.add_argument("--rounds", type=int, default=5)
    arguments.add_argument("--threads", type=int, default=1)
    arguments.add_argument("--peak-of", choices=FORMS, help=argparse.SUPPRESS)
    arguments.add_argument("--weights", type=Path, help=argparse.SUPPRESS)
    chosen = arguments.parse_args()
    torch.set_num_threads(chosen.threads)
    if chosen.peak_of:
        tell_peak(chosen.peak_of, chosen.weights, chosen.size)
        return
    print(
        f"{chosen.size}x{chosen.size}, {chosen.threads} thread(s), best of {chosen.rounds}; torch {torch.__version__}, "
        f"{platform.machine()} {torch.backends.cpu.get_cpu_capability()}, "
        f"AMX {'yes' if torch.cpu._is_amx_tile_supported() else 'no'}"
    )
    measured = times(list(FORMS), chosen.size, chosen.rounds)
    print(f"{'form':15} {'CPU s':>7} {'of eager':>9} {'error':>9} {'peak MB':>8} {'loading':>8} {'torch':>6}")
    with tempfile.TemporaryDirectory() as folder:
        weights = Path(folder) / "random.safetensors"
        save_file(random_tensors(), weights)
        for name, (seconds, error) in measured.items():
            peak = peak_mb(name, weights, chosen.size, chosen.threads)
            print(
                f"{name:15} {seconds:7.2f} {seconds / measured['eager'][0]:9.2f} {error:9.1e} {peak['peak']:8.0f} "
                f"{peak['loaded']:8.0f} {peak['bare']:6.0f}"
            )


if __name__ == "__main__":
    main()
