"""The GPUs that torch can use and NVML does not show: AMD's, Apple's. Nothing can be read of them later."""

from __future__ import annotations

import importlib.util
import json
import os
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from lcq.nvml import Gpu

_ROOT = Path("/")
TORCH_PROBE = (sys.executable, "-m", "worker.torch_devices")


def torch_gpus(
    *,
    root: Path = _ROOT,
    environment: Mapping[str, str] | None = None,
    platform: str = sys.platform,
    command: Sequence[str] = TORCH_PROBE,
    timeout_s: float = 90.0,
) -> tuple[tuple[Gpu, ...], str]:
    """The GPUs of AMD and Apple that torch can use, and what went wrong in asking (empty: nothing).

    torch is asked only where there may be one, and in a child process: it is large, and may crash.
    """
    if platform != "darwin" and not (root / "dev/kfd").exists():
        return (), ""
    if importlib.util.find_spec("torch") is None:
        return (), "" if platform == "darwin" else "an AMD GPU may be there, but torch is not installed (lcq[torch])"
    inherited = os.environ if environment is None else environment
    child = {**inherited, "PYTHONPATH": os.pathsep.join(path or os.getcwd() for path in sys.path)}  # noqa: PTH109
    try:
        run = subprocess.run(command, env=child, capture_output=True, text=True, timeout=timeout_s, check=True)
        answer = json.loads(run.stdout.splitlines()[-1])
        return tuple(gpu for one in answer for gpu in _torch_gpu(one, inherited)), ""
    except subprocess.TimeoutExpired:
        return (), f"torch did not say within {timeout_s:g} s which GPUs it can use"
    except subprocess.CalledProcessError as error:
        said = (error.stderr.strip().splitlines() or [""])[-1]
        return (), f"torch could not say which GPUs it can use: exit code {error.returncode} {said:.200}".rstrip()
    except (OSError, ValueError, IndexError, KeyError, TypeError) as error:
        return (), f"torch could not say which GPUs it can use: {error}"


def _torch_gpu(told: Mapping[str, Any], environment: Mapping[str, str]) -> list[Gpu]:
    """``told`` as a Gpu, if it is one that NVML does not show."""
    backend, index = told["backend"], int(told["index"])
    if backend == "mps":
        return [
            Gpu(
                uuid="mps",
                name=told["name"],
                vram_mib=told["total_mib"],
                exclusive=True,
                shared_memory=True,
                seen_by="torch",
            )
        ]
    if backend != "hip":
        return []
    # Its index counts what this process may see; a runner is told the place among all.
    visible = environment.get("HIP_VISIBLE_DEVICES", environment.get("CUDA_VISIBLE_DEVICES", ""))
    places = [place.strip() for place in visible.split(",") if place.strip()]
    pin = {"HIP_VISIBLE_DEVICES": places[index] if index < len(places) else str(index)}
    uuid = told.get("uuid") or f"hip-{index}"
    return [Gpu(uuid=uuid, name=told["name"], vram_mib=told["total_mib"], environment=pin, seen_by="torch")]
