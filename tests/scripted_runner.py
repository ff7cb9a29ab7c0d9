"""A runner for tests that does what each task's ``config.do`` says; started as lcq-agent starts its own.

What it offers, and how it comes up, is in a JSON file that ``--script FILE`` names: by device, else by "*". Read at
each start, so that a test can change it between two runners.
"""

# ruff: noqa: E402

from __future__ import annotations

import gc

gc.disable()  # as the real one does

import contextlib
import hashlib
import json
import os
import queue
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from lcq.file_mark import file_mark
from lcq.models import DeviceKind, ErrorClass, Failure, ModelOffer, Task, TaskResult
from worker.protocol import (
    Cancel,
    Cancelled,
    Done,
    Failed,
    Progress,
    Ready,
    Release,
    Run,
    Setup,
    Stop,
    Word,
    pack_word,
    words_from,
)

gc.freeze()
gc.enable()

MODELS = ("cv2-ns", "cv2-telea")


def result_of(task: Task, content: bytes) -> TaskResult:
    return TaskResult(
        path=str(task.config.get("final", "")),
        bytes=len(content),
        sha256=hashlib.sha256(content).hexdigest(),
        width=1,
        height=1,
        seconds=0.0,
        notes=(f"CUDA_VISIBLE_DEVICES={os.environ.get('CUDA_VISIBLE_DEVICES')}",),
    )


class Scripted:
    """One runner, and the words it has heard."""

    def __init__(self, line: socket.socket) -> None:
        self.line = line
        self.words: queue.SimpleQueue[Word] = queue.SimpleQueue()
        self.cancelled = threading.Event()
        self.warm: tuple[str, ...] = ()
        threading.Thread(target=self.listen, daemon=True).start()

    def listen(self) -> None:
        with contextlib.suppress(OSError):
            for word in words_from(self.line):
                if isinstance(word, Cancel):
                    self.cancelled.set()
                else:
                    self.words.put(word)
        os._exit(1)

    def say(self, word: Word) -> None:
        self.line.sendall(pack_word(word))

    def serve(self, script: dict[str, Any]) -> None:
        setup = self.words.get()
        assert isinstance(setup, Setup)
        ready = self.ready(script, setup)
        self.say(ready)
        if "--die-idle" in sys.argv:
            os._exit(4)
        for word in self.heard():
            match word:
                case Run():
                    self.cancelled.clear()
                    self.do(word)
                case Release():
                    self.warm = ()
                    self.say(ready)
                case Stop():
                    return

    def heard(self) -> Iterator[Word]:
        while True:
            yield self.words.get()

    def ready(self, script: dict[str, Any], setup: Setup) -> Ready:
        """As the script for this device has it: it may hang, die, offer other models, or fail its test."""
        device = setup.settings.device
        mine = script.get(device.id, script.get("*", {}))
        with open(mine.get("log", os.devnull), "a", encoding="utf-8") as log:
            log.write(f"{device.id} {'tested' if setup.self_test else 'untested'}\n")
        while "gate" in mine and not Path(mine["gate"]).exists():
            time.sleep(0.01)
        if mine.get("dies"):
            os._exit(5)
        failed = mine.get("fails", {}) if setup.self_test else {}
        offer = ModelOffer(kinds=(DeviceKind.GPU, DeviceKind.CPU), engine="scripted", vram_mib=mine.get("vram_mib", 0))
        return Ready(
            offers={model: offer for model in mine.get("models", MODELS) if model not in failed},
            left_out=mine.get("left_out", {}),
            failed=failed,
        )

    def do(self, run: Run) -> None:
        task = run.task
        self.warm = (task.model,)
        done = Done(result=result_of(task, b""), warm=self.warm, held_mib=int(str(task.config.get("held_mib", 0))))
        match task.config.get("do", "done"):
            case "done":
                pass
            case "talk":  # writes to its output, as libraries do
                os.write(2, b"loading\n\x1b[31m 50%\r100%\x1b[0m\n")
            case "write":  # leaves a file to be published, once the test lets it
                final = Path(str(task.config["final"]))
                staged = final.with_name(f".{final.name}.{task.id}-{run.attempt}.lcq-tmp")
                staged.parent.mkdir(parents=True, exist_ok=True)
                content = f"attempt {run.attempt}".encode()
                found = file_mark(final)
                staged.write_bytes(content)
                gate = str(task.config.get("gate", "/")).replace("{attempt}", str(run.attempt))
                while not Path(gate).exists():
                    time.sleep(0.01)
                done = Done(result=result_of(task, content), staged=str(staged), found=found)
            case "fail":
                error_class = ErrorClass(str(task.config["class"]))
                failure = Failure(
                    error_class=error_class, code=str(task.config.get("code", "told_to")), message="told to"
                )
                self.say(Failed(failure=failure))
                return
            case "progress":
                while True:
                    self.say(Progress(fraction=0.5, stage="going on"))
                    time.sleep(0.02)
            case "until cancelled":  # and then: what ``then`` says
                while not self.cancelled.wait(0.02):
                    self.say(Progress(fraction=0.5, stage="going on"))
                match task.config.get("then"):
                    case "exit":
                        os._exit(7)
                    case "done":
                        pass
                    case _:
                        self.say(Cancelled(warm=self.warm))
                        return
            case "hang":
                threading.Event().wait()
            case "exit":
                os._exit(7)
            case "kill":
                os.kill(os.getpid(), signal.SIGKILL)
            case "done and die":
                self.say(done)
                os._exit(0)
            case "give up":
                self.say(Cancelled())
                return
            case "eased":  # tells what it was told
                result = result_of(task, b"").model_copy(update={"notes": tuple(ease.value for ease in run.eased)})
                done = Done(result=result)
            case "nonsense":
                self.line.sendall(b"\x00\x00\x00\x03abc")
                threading.Event().wait()
            case "close":
                self.line.shutdown(socket.SHUT_RDWR)
                threading.Event().wait()
            case "child":  # leaves a process behind in its group
                command = [sys.executable, "-c", "import time; time.sleep(1000)"]
                child = subprocess.Popen(command)
                Path(str(task.config["pid_file"])).write_text(str(child.pid))
                os._exit(7)
        self.say(done)


def main() -> None:
    line = socket.socket(fileno=int(sys.argv[sys.argv.index("--fd") + 1]))
    if "--never-ready" in sys.argv:
        os._exit(3)
    script = {}
    if "--script" in sys.argv:
        script = json.loads(Path(sys.argv[sys.argv.index("--script") + 1]).read_text(encoding="utf-8"))
    Scripted(line).serve(script)
    gc.freeze()  # as worker.runner ends


if __name__ == "__main__":
    main()
