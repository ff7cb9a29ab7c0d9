"""A real lcq-agent with three GPUs that are not there: each trouble a GPU can have, one after the other, as it works.

The GPUs are tests/fake_gpu.py's; scheduler, agent, runners, engine and pictures are real. What is wrong with one GPU
stops that GPU alone, says why wherever one may ask, and is over by itself.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pytest
import redis
from PIL import Image

from lcq.client import Client
from lcq.models import DeviceReading, NodeRecord, NodeStatus, Task, TaskStatus, TaskType
from lcq.reasons import WhyCode
from tests.audit import audit
from tests.cluster import Cluster, running_cluster
from tests.conftest import wait_until_sync
from tests.engines import install_engines
from tests.fake_gpu import FakeGpu, FakeGpus

_ENGINE = """
import os
import time
from pathlib import Path
from worker.engines.base import EngineError, ErrorClass

class Careful(Engine):
    name = "careful"
    def capabilities(self):
        return {"careful": ModelOffer(kinds=(DeviceKind.GPU,), vram_mib=500)}
    def run(self, work):
        if (Path(os.environ["BROKEN"]) / os.environ["CUDA_VISIBLE_DEVICES"]).exists():
            raise EngineError("stripes", "the picture has stripes", error_class=ErrorClass.BAD_OUTPUT)
        time.sleep(float(work.config.get("seconds", 0.02)))
        pixels = work.picture.pixels.copy()
        pixels[work.picture.mask] ^= 1
        return pixels
"""

A, B, C = (
    FakeGpu(f"GPU-{letter * 8}-0000", bus=f"0000:{number:02}:00", uses={}, slowdown_c=93, ecc=(0, 0, 0, 0))
    for number, letter in enumerate("abc", start=1)
)
SETTINGS = {
    "LCQ_QUARANTINE__TASKS": "3",
    "LCQ_QUARANTINE__PAUSE_S": "1",
    "LCQ_QUARANTINE__LONGEST_PAUSE_S": "5",
    "LCQ_QUARANTINE__PROBATION": "2",
    "LCQ_AGENT__BUSY_ELSEWHERE": json.dumps({"gpu_percent": 40, "after_s": 1, "quiet_s": 1}),
    "LCQ_AGENT__HEAT": json.dumps({"readings": 2}),
    "LCQ_AGENT__DEVICES": json.dumps({"cpu": {"enabled": False}}),
}


@dataclass
class Host:
    """The cluster, its one node, and what is wrong with it."""

    cluster: Cluster
    client: Client
    gpus: FakeGpus
    folder: Path
    pictures: int = 0

    def has(self, a: FakeGpu = A, b: FakeGpu = B, c: FakeGpu = C) -> None:
        self.gpus.set([a, b, c])

    def task(self, **fields: object) -> Task:
        self.pictures += 1
        return Task.model_validate(
            {
                "task_type": TaskType.INPAINT,
                "image_path": str(self.folder / "photo.png"),
                "mask_path": str(self.folder / "mask.png"),
                "output_path": str(self.folder / "out" / f"{self.pictures}.png"),
                "config": {"model": "careful", **fields},
            }
        )

    @property
    def node(self) -> NodeRecord:
        return self.client.nodes()[0]

    def reading(self, gpu: FakeGpu) -> DeviceReading:
        return self.node.readings.get(gpu.uuid, DeviceReading())

    def until(self, condition: Callable[[], object], what: str) -> None:
        try:
            wait_until_sync(condition, timeout=120, what=what)
        except BaseException:
            print(self.cluster.logs()[-6000:])
            raise

    def work(self, count: int, **fields: object) -> set[str]:
        """So many tasks, all completed; on which GPUs."""
        ids = [one.id for one in self.client.submit_many([self.task(**fields) for _ in range(count)]).accepted]
        records = self.client.wait(ids, timeout_s=120)
        assert {record.status for record in records} == {TaskStatus.COMPLETED}, self.cluster.logs()[-6000:]
        return {record.device for record in records}

    def said(self, *command: str) -> tuple[int, str]:
        """What a program of ours says; its exit code."""
        address = f"127.0.0.1:{self.cluster.control_port}"
        options = ["--scheduler", address] if command[0] == "lcq.cli.main" else []
        ran = subprocess.run(
            [sys.executable, "-m", command[0], *options, *command[1:]],
            env=os.environ | {"LCQ_DATA_DIR": str(self.cluster.folder), "COLUMNS": "500"},
            capture_output=True,
            text=True,
            check=False,
        )
        return ran.returncode, " ".join((ran.stdout + ran.stderr).split())


@pytest.fixture
def host(redis_url: str, tmp_path: Path) -> Iterator[Host]:
    install_engines(tmp_path / "packages", "careful", "careful = careful:Careful", code=_ENGINE)
    (tmp_path / "broken").mkdir()
    pixels = np.random.default_rng(7).integers(0, 256, (48, 64, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(tmp_path / "photo.png")
    mask = np.zeros((48, 64), np.uint8)
    mask[10:20, 10:30] = 255
    Image.fromarray(mask).save(tmp_path / "mask.png")
    gpus = FakeGpus(tmp_path)
    gpus.set([A, B, C])
    more = {"PYTHONPATH": str(tmp_path / "packages"), "BROKEN": str(tmp_path / "broken")}
    more["LCQ_AGENT__RUNNER__ENVIRONMENT"] = '["BROKEN"]'
    with running_cluster(redis_url, tmp_path / "c", **SETTINGS, **more, **gpus.environment) as cluster:
        cluster.start_scheduler()
        cluster.start_agent("node-1")
        with cluster.client() as client:
            host = Host(cluster, client, gpus, tmp_path)
            host.until(lambda: len(host.node.capability.devices) == 3, "three GPUs with the model")
            yield host


@pytest.mark.chaos
@pytest.mark.timeout(900)
def test_each_trouble_of_a_gpu_stops_that_gpu_alone_says_why_and_is_over_by_itself(host: Host, redis_url: str) -> None:
    host.until(lambda: host.work(9, seconds=0.2) == {A.uuid, B.uuid, C.uuid}, "all three work")
    _others_use_them(host)
    _one_is_too_hot(host)
    _one_fails_where_the_others_succeed(host)
    _one_has_memory_errors_and_one_an_xid(host)
    host.until(lambda: host.work(9, seconds=0.2) == {A.uuid, B.uuid, C.uuid}, "all three work again")
    host.cluster.stop()
    with redis.Redis.from_url(redis_url, decode_responses=True) as eye:
        audit(eye)
        held = [fields["on"] for _, fields in eye.xrange("{lcq}:acts") if fields["act"] == "quarantine"]
        assert set(held) == {f"node=node-1 device={gpu.uuid}" for gpu in (A, B)}
    print(f"\n{host.pictures} pictures, none failed")


def _others_use_them(host: Host) -> None:
    """Programs that are not ours come: on one GPU, then on all; what runs goes on."""
    busy = {"uses": {os.getpid(): 80}, "busy": 80}
    host.has(a=replace(A, **busy))
    host.until(lambda: host.reading(A).rest == "busy_elsewhere", "the first GPU rests")
    assert host.work(6) <= {B.uuid, C.uuid}
    code, said = host.said("worker.cli", "--name", "node-1", "health")
    assert (code, "but none on " + A.uuid in said) == (0, True), said

    running = host.client.submit(host.task(seconds=8)).id
    host.until(lambda: host.client.get(running).status is TaskStatus.PROCESSING, "something runs")
    host.has(*(replace(gpu, **busy) for gpu in (A, B, C)))
    host.until(lambda: {host.reading(gpu).rest for gpu in (A, B, C)} == {"busy_elsewhere"}, "all rest")
    waiting = host.client.submit(host.task()).id
    host.until(lambda: host.client.why(waiting).code is WhyCode.BUSY_ELSEWHERE, "lcq why says so")
    for command, told in (("nodes", "rests: busy elsewhere"), ("why", "busy_elsewhere: ")):
        code, said = host.said("lcq.cli.main", command, *([waiting] if command == "why" else []))
        assert (code, told in said) == (0, True), said
    code, said = host.said("worker.cli", "--name", "node-1", "health")
    assert (code, "other programs use 80% of it" in said) == (1, True), said
    (record,) = host.client.wait([running], timeout_s=60)
    assert (record.status, record.attempt) == (TaskStatus.COMPLETED, 1), "what ran went on"
    assert host.client.get(waiting).status is TaskStatus.QUEUED
    host.has()
    (record,) = host.client.wait([waiting], timeout_s=60)
    assert record.status is TaskStatus.COMPLETED


def _one_is_too_hot(host: Host) -> None:
    host.until(lambda: not any(host.reading(gpu).rest for gpu in (A, B, C)), "all work again")
    host.has(b=replace(B, temperature=80, reasons=0x40))
    host.until(lambda: host.reading(B).rest == "too_hot", "the second GPU rests")
    assert host.work(6) <= {A.uuid, C.uuid}
    host.has(b=replace(B, temperature=75))
    host.until(lambda: host.reading(B).temperature_c == 75, "it is a little cooler")
    assert host.reading(B).rest == "too_hot"
    host.has(b=replace(B, temperature=70))
    host.until(lambda: host.reading(B).rest == "", "it works again")


def _one_fails_where_the_others_succeed(host: Host) -> None:
    broken = host.folder / "broken" / B.uuid
    broken.touch()
    ids = [one.id for one in host.client.submit_many([host.task(seconds=0.1) for _ in range(40)]).accepted]
    host.until(lambda: B.uuid in host.node.quarantined, "the second GPU is held")
    assert host.node.status is NodeStatus.ONLINE
    assert set(host.node.quarantined) == {B.uuid}
    assert "failed" in host.node.quarantined[B.uuid]
    records = host.client.wait(ids, timeout_s=120)
    assert {record.status for record in records} == {TaskStatus.COMPLETED}
    assert {record.device for record in records} <= {A.uuid, B.uuid, C.uuid}
    touched = [one for one in map(host.client.history, ids) if any(a.device == B.uuid for a in one.attempts[:1])]
    print(f"\nthe GPU that failed touched {len(touched)} of {len(ids)} tasks, none failed")
    host.until(lambda: "probe failed" in host.node.quarantined.get(B.uuid, ""), "a probe that failed")
    assert host.work(6, seconds=0.1) <= {A.uuid, C.uuid}
    broken.unlink()
    host.until(lambda: B.uuid not in host.node.quarantined, "it is forgiven")
    host.until(
        lambda: B.uuid in host.work(6, seconds=0.2) and not host.node.on_probation,
        "it works, and its probation is over",
    )


def _one_has_memory_errors_and_one_an_xid(host: Host) -> None:
    host.has(a=replace(A, ecc=(0, 1, 0, 1)), c=replace(C, xids=(79,)))
    host.until(lambda: "ECC could not correct" in host.node.quarantined.get(A.uuid, ""), "the first GPU is held")
    host.until(lambda: "Xid 79" in host.reading(C).fault, "the third GPU is out of order")
    host.until(lambda: C.uuid not in {one.id for one in host.node.capability.devices}, "and not offered")
    assert "Xid 79" in host.node.capability.left_out[C.uuid]
    assert host.node.status is NodeStatus.ONLINE
    assert host.work(4) <= {A.uuid, B.uuid}  # the first may be on probation already
    old = replace(A, ecc=(0, 1, 0, 1))
    host.gpus.set([old, B, C], generation=1)  # somebody has reset them
    host.until(lambda: "fallen off the bus" in host.reading(B).fault, "the old handles are good for nothing")
    host.until(lambda: C.uuid in {one.id for one in host.node.capability.devices}, "it is back, tested anew")
    host.until(
        lambda: not host.node.quarantined and A.uuid in host.work(6, seconds=0.2) and not host.node.on_probation,
        "the first GPU is forgiven, once its errors are old",
    )
