"""How late the console's event loop is: measured only where LCQ_CONSOLE_LATENESS names a file, for the benchmark.

Each line of that file says when a sleep was to end, how much later it did, and how much of that the kernel had given
the core to somebody else: seconds, the first by the steady clock.
"""

from __future__ import annotations

import asyncio
import os
import time
from array import array
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

VARIABLE = "LCQ_CONSOLE_LATENESS"
EVERY_S = 0.01


def _waited_s() -> float:
    """Seconds that the main thread has waited for a core so far; 0 where the system does not tell."""
    try:
        return int(Path("/proc/self/schedstat").read_text(encoding="ascii").split()[1]) / 1e9
    except (OSError, IndexError, ValueError):
        return 0.0


def _write(found: array[float], path: Path) -> None:
    lines = (f"{found[at]:.4f} {found[at + 1]:.6f} {found[at + 2]:.6f}\n" for at in range(0, len(found), 3))
    path.write_text("".join(lines), encoding="ascii")


async def _measure(path: Path) -> None:
    """Measure until cancelled; then write the file."""
    found = array("d")
    waited = _waited_s()
    try:
        while True:
            due = time.monotonic() + EVERY_S
            await asyncio.sleep(EVERY_S)
            before, waited = waited, _waited_s()
            found.extend((due, max(0.0, time.monotonic() - due), waited - before))
    finally:
        _write(found, path)


@asynccontextmanager
async def measured() -> AsyncIterator[None]:
    """Measure as long as the block lasts, if the environment asks for it."""
    name = os.environ.get(VARIABLE, "")
    if not name:
        yield
        return
    async with asyncio.TaskGroup() as tasks:
        measuring = tasks.create_task(_measure(Path(name)), name="lateness")
        yield
        measuring.cancel()
