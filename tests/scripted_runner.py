"""A runner for tests that does what each task's ``config.do`` says; started as lcq-agent starts its own.

What it offers, and how it comes up, is in a JSON file that ``--script FILE`` names: by device, else by "*". Read at
each start, so that a test can change it between two runners.

Hundreds of them are started: it speaks what worker.protocol writes without loading that, which is most of a start, and
Python looks for no packages (-I -S): it is told where they are. The agent at the other end reads it as its own.
"""

# ruff: noqa: PTH110, PTH120 - without pathlib

from __future__ import annotations

import contextlib
import os
import queue
import signal
import socket
import struct
import sys
import threading
import time

import msgpack

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator
    from typing import Any

    Word = dict[str, Any]

_BEGIN = "import sys; sys.path += sys.argv[1:3]; from tests.scripted_runner import main; main()"
_PLACES = (os.path.dirname(os.path.dirname(msgpack.__file__)), os.path.dirname(os.path.dirname(__file__)))
COMMAND = (sys.executable, "-I", "-S", "-c", _BEGIN, *_PLACES)
"""What starts one; options may follow."""

_HEAD = struct.Struct(">I")
MODELS = ("cv2-ns", "cv2-telea")


def word(name: str, **fields: object) -> Word:
    return {"word": name, **fields}


def words_from(line: socket.socket) -> Iterator[Word]:
    with line.makefile("rb") as read:
        while head := read.read(_HEAD.size):
            yield msgpack.unpackb(read.read(*_HEAD.unpack(head)))


_SHA256_OF_NOTHING = "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"


def sha256(content: bytes) -> str:
    if not content:
        return _SHA256_OF_NOTHING
    import hashlib

    return hashlib.sha256(content).hexdigest()


def result_of(task: dict[str, Any], content: bytes) -> dict[str, Any]:
    return {
        "path": str(task["config"].get("final", "")),
        "bytes": len(content),
        "sha256": sha256(content),
        "width": 1,
        "height": 1,
        "seconds": 0.0,
        "notes": [f"CUDA_VISIBLE_DEVICES={os.environ.get('CUDA_VISIBLE_DEVICES')}"],
    }


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
            for told in words_from(self.line):
                if told["word"] == "cancel":
                    self.cancelled.set()
                else:
                    self.words.put(told)
        os._exit(1)

    def say(self, told: Word) -> None:
        body = msgpack.packb(told)
        self.line.sendall(_HEAD.pack(len(body)) + body)

    def serve(self, script: dict[str, Any]) -> None:
        setup = self.words.get()
        assert setup["word"] == "setup"
        ready = self.ready(script, setup)
        self.say(ready)
        if "--die-idle" in sys.argv:
            os._exit(4)
        for told in self.heard():
            match told["word"]:
                case "run":
                    self.cancelled.clear()
                    self.do(told)
                case "release":
                    self.warm = ()
                    self.say(ready)
                case "stop":
                    return

    def heard(self) -> Iterator[Word]:
        while True:
            yield self.words.get()

    def ready(self, script: dict[str, Any], setup: Word) -> Word:
        """As the script for this device has it: it may hang, die, offer other models, or fail its test."""
        device = setup["settings"]["device"]["id"]
        mine = script.get(device, script.get("*", {}))
        with open(mine.get("log", os.devnull), "a", encoding="utf-8") as log:
            log.write(f"{device} {'tested' if setup['self_test'] else 'untested'}\n")
        while "gate" in mine and not os.path.exists(mine["gate"]):
            time.sleep(0.01)
        if mine.get("dies"):
            os._exit(5)
        failed = mine.get("fails", {}) if setup["self_test"] else {}
        offer = {"kinds": ["gpu", "cpu"], "engine": "scripted", "vram_mib": mine.get("vram_mib", 0)}
        return word(
            "ready",
            offers={model: offer for model in mine.get("models", MODELS) if model not in failed},
            left_out=mine.get("left_out", {}),
            failed=failed,
        )

    def do(self, run: Word) -> None:
        task, config, attempt = run["task"], run["task"]["config"], run["attempt"]
        self.warm = (config.get("model", "cv2-telea"),)
        done = word("done", result=result_of(task, b""), warm=self.warm, held_mib=int(config.get("held_mib", 0)))
        match config.get("do", "done"):
            case "done":
                pass
            case "talk":  # writes to its output, as libraries do
                os.write(2, b"loading\n\x1b[31m 50%\r100%\x1b[0m\n")
            case "write":  # leaves a file to be published, once the test lets it
                from pathlib import Path

                from lcq.file_mark import file_mark

                final = Path(str(config["final"]))
                staged = final.with_name(f".{final.name}.{task['id']}-{attempt}.lcq-tmp")
                staged.parent.mkdir(parents=True, exist_ok=True)
                content = f"attempt {attempt}".encode()
                found = file_mark(final)
                staged.write_bytes(content)
                gate = str(config.get("gate", "/")).replace("{attempt}", str(attempt))
                while not os.path.exists(gate):
                    time.sleep(0.01)
                done = word("done", result=result_of(task, content), staged=str(staged), found=found)
            case "fail":
                code = str(config.get("code", "told_to"))
                self.say(word("failed", failure={"error_class": config["class"], "code": code, "message": "told to"}))
                return
            case "progress":
                while True:
                    self.say(word("progress", fraction=0.5, stage="going on"))
                    time.sleep(0.02)
            case "until cancelled":  # and then: what ``then`` says
                while not self.cancelled.wait(0.02):
                    self.say(word("progress", fraction=0.5, stage="going on"))
                match config.get("then"):
                    case "exit":
                        os._exit(7)
                    case "done":
                        pass
                    case _:
                        self.say(word("cancelled", warm=self.warm))
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
                self.say(word("cancelled"))
                return
            case "eased":  # tells what it was told
                done = word("done", result=result_of(task, b"") | {"notes": run["eased"]})
            case "nonsense":
                self.line.sendall(b"\x00\x00\x00\x03abc")
                threading.Event().wait()
            case "close":
                self.line.shutdown(socket.SHUT_RDWR)
                threading.Event().wait()
            case "child":  # leaves a process behind in its group
                command = [sys.executable, "-I", "-S", "-c", "import time; time.sleep(1000)"]
                child = os.spawnv(os.P_NOWAIT, sys.executable, command)
                with open(str(config["pid_file"]), "w", encoding="ascii") as file:
                    file.write(str(child))
                os._exit(7)
        self.say(done)


def main() -> None:
    line = socket.socket(fileno=int(sys.argv[sys.argv.index("--fd") + 1]))
    if "--never-ready" in sys.argv:
        os._exit(3)
    script = {}
    if "--script" in sys.argv:
        import json

        with open(sys.argv[sys.argv.index("--script") + 1], encoding="utf-8") as file:
            script = json.load(file)
    Scripted(line).serve(script)
