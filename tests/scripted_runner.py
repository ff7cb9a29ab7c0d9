"""A runner for tests that does what each task's ``config.do`` says; started as lcq-agent starts its own."""

from __future__ import annotations

import hashlib
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from pathlib import Path

from lcq.models import ErrorClass, Failure, Task, TaskResult
from worker.protocol import Done, Failed, Progress, Ready, Run, Stop, pack_word, words_from


def result_of(task: Task, content: bytes) -> TaskResult:
    return TaskResult(
        path=str(task.config.get("final", "")),
        bytes=len(content),
        sha256=hashlib.sha256(content).hexdigest(),
        width=1,
        height=1,
        seconds=0.0,
    )


def do(line: socket.socket, run: Run) -> None:
    task = run.task
    done = Done(result=result_of(task, b""), warm=(task.model,))
    match task.config.get("do", "done"):
        case "done":
            pass
        case "write":  # leaves a file to be published, once the test lets it
            final = Path(str(task.config["final"]))
            staged = final.with_name(f".{final.name}.{task.id}-{run.attempt}.lcq-tmp")
            staged.parent.mkdir(parents=True, exist_ok=True)
            content = f"attempt {run.attempt}".encode()
            staged.write_bytes(content)
            while not Path(str(task.config.get("gate", "/"))).exists():
                time.sleep(0.01)
            done = Done(result=result_of(task, content), staged=str(staged))
        case "fail":
            failure = Failure(error_class=ErrorClass(str(task.config["class"])), code="told_to", message="told to")
            line.sendall(pack_word(Failed(failure=failure)))
            return
        case "progress":
            while True:
                line.sendall(pack_word(Progress(fraction=0.5, stage="going on")))
                time.sleep(0.02)
        case "hang":
            threading.Event().wait()
        case "exit":
            os._exit(7)
        case "kill":
            os.kill(os.getpid(), signal.SIGKILL)
        case "done and die":
            line.sendall(pack_word(done))
            os._exit(0)
        case "nonsense":
            line.sendall(b"\x00\x00\x00\x03abc")
            threading.Event().wait()
        case "close":
            line.shutdown(socket.SHUT_RDWR)
            threading.Event().wait()
        case "child":  # leaves a process behind in its group
            command = [sys.executable, "-c", "import time; time.sleep(1000)"]
            child = subprocess.Popen(command)
            Path(str(task.config["pid_file"])).write_text(str(child.pid))
            os._exit(7)
    line.sendall(pack_word(done))


def main() -> None:
    line = socket.socket(fileno=int(sys.argv[sys.argv.index("--fd") + 1]))
    if "--never-ready" in sys.argv:
        os._exit(3)
    line.sendall(pack_word(Ready()))
    if "--die-idle" in sys.argv:
        os._exit(4)
    for word in words_from(line):
        match word:
            case Run():
                do(line, word)
            case Stop():
                return


if __name__ == "__main__":
    main()
