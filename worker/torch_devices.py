"""What torch can compute on here, as one line of JSON: run as a process of its own, which may crash or hang."""

from __future__ import annotations

import json
import sys
from typing import Any

_MIB = 2**20


def torch_devices() -> list[dict[str, Any]]:
    """``backend`` (cuda, hip, mps), ``index``, ``uuid`` (empty if there is none), ``name``, ``total_mib`` of each."""
    import torch

    found: list[dict[str, Any]] = []
    if torch.cuda.is_available():  # AMD's too: ROCm speaks by CUDA's names
        backend = "hip" if torch.version.hip else "cuda"
        for index in range(torch.cuda.device_count()):
            facts = torch.cuda.get_device_properties(index)
            uuid = f"GPU-{facts.uuid}" if hasattr(facts, "uuid") else ""
            total = facts.total_memory // _MIB
            found.append({"backend": backend, "index": index, "uuid": uuid, "name": facts.name, "total_mib": total})
    if torch.backends.mps.is_available():
        total = torch.mps.recommended_max_memory() // _MIB
        found.append({"backend": "mps", "index": 0, "uuid": "", "name": "Apple GPU", "total_mib": total})
    return found


if __name__ == "__main__":
    sys.stdout.write(json.dumps(torch_devices()) + "\n")
