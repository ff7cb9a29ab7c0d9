"""Our function files on servers of the platforms that are no part of the suite: RunPod's, and Knative's func-python."""

from __future__ import annotations

import concurrent.futures
import contextlib
import socket
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest

from lcq.models import ErrorClass, Task, TaskStatus, TaskType
from tests.cluster import free_port
from tests.functions import MODEL, SAMPLES, engine, far_cluster, here, photo, refused, serving, work
from tests.runpod import runpod
from tests.s3 import S3, s3_server, wait_for
from worker.calls import read_reply, waking_call
from worker.engines.base import Picture, Work

VENV = Path(__file__).parents[2] / ".venv-platforms"

pytestmark = [
    pytest.mark.platforms,
    pytest.mark.skipif(not (VENV / ".ready").exists(), reason="there are no such servers here: run make platforms"),
]

PYTHON = str(VENV / "bin" / "python")


@dataclass(frozen=True)
class Platform:
    """A live function: its ``kind`` in our settings, where it is, and where what it says is written."""

    kind: str
    url: str
    log: Path


def _is_open(port: int) -> bool:
    with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), timeout=1):
        return True
    return False


@contextlib.contextmanager
def knative(log: Path) -> Iterator[Platform]:
    """What `func deploy` builds around func.py: func-python's HTTP server with ``new``."""
    port = free_port()
    start = "import func; from func_python.http import serve; serve(func.new)"
    environment = {"PYTHONPATH": str(SAMPLES / "knative"), "LISTEN_ADDRESS": f"127.0.0.1:{port}"}
    address = f"http://127.0.0.1:{port}"

    def is_ready() -> bool:
        with contextlib.suppress(httpx.TransportError):
            return httpx.get(f"{address}/health/readiness", timeout=10).status_code == httpx.codes.OK
        return False

    with serving([PYTHON, "-c", start], log, is_ready, **environment):
        yield Platform("http", address, log)


@contextlib.contextmanager
def runpod_for_trials(log: Path) -> Iterator[Platform]:
    """RunPod's own local server: it runs a job while its state is asked for."""
    port = free_port()
    command = [PYTHON, "-u", str(SAMPLES / "runpod" / "handler.py"), "--rp_serve_api", "--rp_api_port", str(port)]
    with serving([*command, "--rp_api_host", "127.0.0.1"], log, lambda: _is_open(port)):
        yield Platform("runpod", f"http://127.0.0.1:{port}", log)


@contextlib.contextmanager
def runpod_worker(log: Path) -> Iterator[Platform]:
    """RunPod's worker as it runs in the cloud: it takes its jobs from a queue, here one of the tests."""
    with runpod(log.parent, workers=0) as jobs:
        command = [PYTHON, "-u", str(SAMPLES / "runpod" / "handler.py")]
        with serving(command, log, lambda: True, **jobs.environment("worker-1")):
            yield Platform("runpod", jobs.url, log)


@pytest.fixture(scope="module", params=[knative, runpod_for_trials, runpod_worker], ids=lambda made: made.__name__)
def platform(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Platform]:
    made: Callable[[Path], contextlib.AbstractContextManager[Platform]] = request.param
    with made(tmp_path_factory.mktemp("function") / "function.log") as platform:
        yield platform


@pytest.fixture(scope="module")
def s3(tmp_path_factory: pytest.TempPathFactory) -> Iterator[S3]:
    with s3_server(tmp_path_factory.mktemp("s3")) as server:
        wait_for(server)
        server.make_bucket("exchange")
        yield server


@pytest.mark.parametrize("kind", ["colour", "grey", "16 bits"])
def test_a_function_gives_the_pixels_that_a_node_gives_and_says_what_it_cost(platform: Platform, kind: str) -> None:
    asked = work(photo(kind))
    assert np.array_equal(engine(platform.url, kind=platform.kind).run(asked), here(asked.picture))
    assert 0.001 < asked.cost < 0.001 + 0.01 * 60


def test_what_the_function_says_of_its_trouble_is_the_tasks_trouble(platform: Platform) -> None:
    whole = Picture(photo().pixels, np.ones((120, 160), np.bool_))
    told = refused(engine(platform.url, kind=platform.kind), work(whole))
    assert (told.error_class, told.code) == (ErrorClass.BAD_INPUT, "mask_full")
    strange = engine(platform.url, kind=platform.kind, models={"lama": 1.0})
    asked = Work(TaskType.INPAINT, "lama", photo(), {}, lambda fraction, stage: None, key="06ft3kzzzzzzzzzz/1")
    told = refused(strange, asked)
    assert (told.error_class, told.code) == (ErrorClass.TRANSIENT, "model_not_here")


def test_large_pictures_go_by_addresses_and_nothing_is_left(platform: Platform, s3: S3) -> None:
    asked = work(photo())
    one = engine(platform.url, s3, kind=platform.kind)
    assert np.array_equal(one.run(asked), here(asked.picture))
    assert one._function is not None
    assert not list(one._function.exchange.objects.below("s3://exchange/calls"))


def test_calls_at_the_same_time_get_each_its_own_result(platform: Platform) -> None:
    def one(n: int) -> bool:
        picture = photo()
        picture.pixels[n * 10 : n * 10 + 10] = n  # a picture of its own
        asked = work(picture, f"06ft3kzzzzzzzzz{n}/1")
        return np.array_equal(engine(platform.url, kind=platform.kind).run(asked), here(picture))

    with concurrent.futures.ThreadPoolExecutor(4) as callers:
        assert list(callers.map(one, range(4))) == [True] * 4


def test_an_instance_tells_its_cold_start_once_and_keeps_its_model(platform: Platform) -> None:
    """Whichever test ran first: of two calls one after the other, the second finds it warm."""
    first, second = (engine(platform.url, kind=platform.kind) for _ in range(2))
    first.run(work(photo()))
    second.run(work(photo()))
    (before,), (after,) = first.answered(), second.answered()
    assert before.id == after.id
    assert not after.is_cold
    assert after.load_s == 0


def test_a_handler_that_is_asked_for_something_else_answers_in_its_own_words(platform: Platform) -> None:
    call = waking_call("wake/1", MODEL, hold_s=0.0, seconds_left=60)
    document = call.model_dump(mode="json")
    if platform.kind == "http":
        answer = httpx.post(platform.url, json=document, timeout=60)
        assert read_reply(answer.content, call.key).instance.id
        assert httpx.post(platform.url, content=b"no call", timeout=60).status_code == httpx.codes.BAD_REQUEST
        return
    job = httpx.post(f"{platform.url}/run", json={"input": {"key": "1/1"}}, timeout=60).json()["id"]
    state: dict[str, Any] = {}
    while state.get("status") not in ("COMPLETED", "FAILED"):
        answer = httpx.get(f"{platform.url}/status/{job}", timeout=60)
        if answer.status_code == httpx.codes.METHOD_NOT_ALLOWED:
            answer = httpx.post(f"{platform.url}/status/{job}", timeout=60)
        state = answer.json()
    assert state["output"]["trouble"]["code"] == "call_refused"


def test_a_cluster_sends_its_overflow_there_and_pays_for_it(platform: Platform, redis_url: str, tmp_path: Path) -> None:
    functions = {"burst": {"kind": platform.kind, "url": platform.url}}
    with far_cluster(redis_url, tmp_path / "c", functions, LCQ_SERVERLESS__BUDGET__MONTH="100") as cluster:
        samples = SAMPLES.parent
        names = sorted(path.stem for path in (samples / "photos").iterdir())
        photos = {path.stem: path for path in (samples / "photos").iterdir()}
        masks = {path.stem: path for path in (samples / "masks").iterdir()}
        tasks = [
            Task.model_validate(
                {
                    "task_type": "inpaint",
                    "image_path": str(photos[name]),
                    "mask_path": str(masks[name]),
                    "output_path": str(tmp_path / f"{name}.png"),
                    "config": {"model": MODEL},
                    "privacy": "exportable",
                }
            )
            for name in names
        ]
        with cluster.client() as client:
            ended = client.wait([one.id for one in client.submit_many(tasks).accepted], timeout_s=240)
            assert len(ended) == len(names) > 2
            for one in ended:
                assert (one.status, one.device, one.attempt) == (TaskStatus.COMPLETED, "burst", 1), cluster.logs()
            book = client.spend().now[-1]
            assert book.spent == pytest.approx(sum(one.result.cost for one in ended if one.result), abs=1e-5)
            assert (book.reserved, book.calls) == (0, len(names))
        assert all((tmp_path / f"{name}.png").stat().st_size for name in names)
