"""An engine whose memory is a folder: what a process takes is held for as long as it lives, as on a GPU.

Installed by ``tests.vram_ledger.installed`` into the runners of a test; it knows nothing else of the tests.
``config``: ``children`` (which processes it starts, each of which takes something), ``ending`` (how the attempt goes
on), ``begun`` (a file for who holds something as it begins), ``mib`` (of real memory, held until the end), ``leak_mib``
(that stays for good).
"""

from __future__ import annotations

import os
import select
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from worker.engines.base import DeviceKind, Engine, ModelOffer, Progress

CHILD = """
import os, sys, time
if sys.argv[1] in ("session", "daemon"):
    os.setsid()
if sys.argv[1] == "daemon" and os.fork():
    os._exit(0)
stat = open("/proc/self/stat").read().rpartition(")")[2].split()
name = os.path.join(sys.argv[2], f"{os.getpid()}-{stat[19]}")
open(name + ".new", "w").write("100")
os.rename(name + ".new", name)
time.sleep(1000)
"""
_leaked: list[bytearray] = []


def _names(folder: Path) -> set[str]:
    return {path.name for path in folder.iterdir() if path.suffix != ".new"}


def _lives(name: str) -> bool:
    pid, _, started = name.partition("-")
    try:
        return Path(f"/proc/{pid}/stat").read_text(encoding="utf-8").rpartition(")")[2].split()[19] == started
    except OSError:
        return False


class LedgerEngine(Engine):
    name = "ledger"
    self_test = False

    def capabilities(self) -> Mapping[str, ModelOffer]:
        anywhere = ModelOffer(kinds=(DeviceKind.CPU, DeviceKind.GPU))
        big = ModelOffer(kinds=(DeviceKind.GPU,), vram_mib=6000)
        return {**dict.fromkeys(("ledger", "ledger-a", "ledger-b", "ledger-c"), anywhere), "ledger-gpu": big}

    def drill(self, model: str, config: Mapping[str, Any], *, attempt: int, progress: Progress) -> None:
        folder = Path(os.environ["LEDGER"])
        before = _names(folder)
        progress(0.1, "begun")
        if "begun" in config:
            Path(config["begun"]).write_text(" ".join(filter(_lives, before)), encoding="ascii")
        for kind in config.get("children", ()):
            environment = {"PATH": os.environ["PATH"]} if config.get("bare") else None
            subprocess.Popen([sys.executable, "-c", CHILD, kind, str(folder)], env=environment)
        held = bytearray(int(config.get("mib", 0)) << 20)
        held[::4096] = b"x" * len(held[::4096])
        leak = bytearray(int(config.get("leak_mib", 0)) << 20)
        leak[::4096] = b"x" * len(leak[::4096])
        _leaked.append(leak)
        while len(_names(folder) - before) < len(config.get("children", ())):
            time.sleep(0.01)
        match config.get("ending") if attempt <= int(config.get("failures", 1)) else "done":
            case "kill":
                os.kill(os.getpid(), signal.SIGKILL)
            case "hang":
                threading.Event().wait()
            case "work":
                until = time.monotonic() + float(config.get("seconds", 3600))
                while time.monotonic() < until:
                    progress(0.5, "working")
                    select.select([], [], [], 0.02)  # not time.sleep: with a clock that is set, libfaketime breaks it
            case _:
                del held
