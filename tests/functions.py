"""Functions as they really run: a platform's server in a process of its own, with LCQ's handler in it."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from numpy.typing import NDArray

from lcq.models import Device, DeviceKind, TaskType
from lcq.runner_config import FunctionConfig
from tests.cluster import Cluster, free_port, running_cluster
from tests.s3 import S3
from worker.engines.base import EngineError, EngineSettings, Picture, Work
from worker.engines.function import FunctionEngine
from worker.engines.opencv import OpenCvEngine

SAMPLES = Path(__file__).parent.parent / "sample-config" / "functions"

MODEL = "cv2-telea"


@contextlib.contextmanager
def functions_framework(log: Path, *, workers: int = 1, **environment: str) -> Iterator[str]:
    """The address of a function that cleans pictures. ``environment``: what Function reads."""
    port = free_port()
    command = [
        sys.executable, "-m", "functions_framework", "--target", "clean", "--source", str(SAMPLES / "http" / "main.py"),
        "--host", "127.0.0.1", "--port", str(port),
    ]  # fmt: skip
    address = f"http://127.0.0.1:{port}"
    with serving(command, log, lambda: _answers(address), **environment, THREADS="1", WORKERS=str(workers)):
        yield address


@contextlib.contextmanager
def azure_handler(log: Path) -> Iterator[str]:
    """The address of the custom handler, started as Azure's Functions host does it: by host.json, at a port that it
    names, and there as soon as anything is answered at "/"."""
    folder = SAMPLES / "azure"
    told = json.loads((folder / "host.json").read_text())["customHandler"]["description"]
    assert told["defaultExecutablePath"] == "python"
    port = free_port()
    address = f"http://127.0.0.1:{port}"
    command = [sys.executable, *(str(folder / argument) for argument in told["arguments"])]
    with serving(command, log, lambda: _answers(address, data=None), FUNCTIONS_CUSTOMHANDLER_PORT=str(port)):
        yield address


@contextlib.contextmanager
def serving(command: Sequence[str], log: Path, answers: Callable[[], bool], **environment: str) -> Iterator[None]:
    """A platform's server, there for as long as this is; what it says is in ``log``."""
    with log.open("wb") as out:
        process = subprocess.Popen(
            command, env={**os.environ, **environment}, stdout=out, stderr=out, start_new_session=True
        )
        try:
            deadline = time.monotonic() + 120
            while not answers():
                if process.poll() is not None or time.monotonic() > deadline:
                    raise RuntimeError(f"the function did not start: {log.read_text(errors='replace')[-2000:]}")
                time.sleep(0.1)
            yield
        finally:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()


def _answers(address: str, data: bytes | None = b"{}") -> bool:
    try:
        urllib.request.urlopen(address, data=data, timeout=5)
    except urllib.error.HTTPError:
        return True  # it refuses what is no call
    except OSError:
        return False
    return True


# ---------------------------------------------------------------- who calls them


@contextlib.contextmanager
def far_cluster(
    redis_url: str, folder: Path, functions: Mapping[str, Mapping[str, Any]], **environment: str
) -> Iterator[Cluster]:
    """A cluster whose only node, far, has nothing but these functions; what may leave the house does so at once. They
    take 2 calls at a time, of up to 60 s, at 0.01 a second, unless they say otherwise; there is no budget."""
    settings = folder / "far.yaml"
    overflow = {"LCQ_SERVERLESS__OVERFLOW_AFTER_S": "0"}
    with running_cluster(redis_url, folder, **overflow, LCQ_CONFIG=str(settings), **environment) as cluster:
        folder.mkdir(parents=True, exist_ok=True)
        name_functions(cluster, functions)
        cluster.start_scheduler()
        cluster.start_agent("far")
        yield cluster


def name_functions(cluster: Cluster, functions: Mapping[str, Mapping[str, Any]]) -> None:
    """Have these functions from now on; an agent that runs is told to look."""
    usual = {"models": {MODEL: 0.2}, "concurrency": 2, "price_s": 0.01, "timeout_s": 60}
    named = {name: usual | dict(said) for name, said in functions.items()}
    settings = {"agent": {"functions": named, "devices": {"cpu": {"enabled": False}}}}
    (cluster.folder / "far.yaml").write_text(json.dumps(settings) + "\n")
    if "far" in cluster.processes:
        cluster.processes["far"].send_signal(signal.SIGHUP)


# ---------------------------------------------------------------- what they are asked


def engine(url: str, s3: S3 | None = None, **config: Any) -> FunctionEngine:
    settings = {"url": url, "models": {MODEL: 0.2}, "price_s": 0.01, "price_call": 0.001, "timeout_s": 60} | config
    if s3 is not None:
        settings |= {"exchange": "s3://exchange/calls", "payload_kib": 16}
    return FunctionEngine(
        EngineSettings(
            device=Device(id="burst", kind=DeviceKind.SERVERLESS),
            function=FunctionConfig.model_validate(settings),
            storage_options={"s3": s3.options} if s3 is not None else {},
        )
    )


def photo(kind: str = "colour") -> Picture:
    pixels: NDArray[Any] = cv2.imread(str(SAMPLES.parent / "photos" / "coffee.jpg"), cv2.IMREAD_COLOR)[:120, :160]
    if kind == "grey":
        pixels = pixels[:, :, 0]
    if kind == "16 bits":
        pixels = pixels.astype(np.uint16) * 257 + 3
    mask = np.zeros(pixels.shape[:2], np.bool_)
    mask[40:60, 50:80] = True
    return Picture(pixels, mask)


def work(picture: Picture, key: str = "06ft3kzzzzzzzzzz/1", progress: Callable[..., None] | None = None) -> Work:
    return Work(TaskType.INPAINT, MODEL, picture, {"radius": 4}, progress or (lambda fraction, stage: None), key=key)


def here(picture: Picture) -> NDArray[Any]:
    """What a node of the house makes of it."""
    return OpenCvEngine(EngineSettings(device=Device(id="cpu", kind=DeviceKind.CPU))).run(work(picture))


def refused(engine: FunctionEngine, one: Work) -> EngineError:
    with pytest.raises(EngineError) as told:
        engine.run(one)
    return told.value
