"""Engines of other packages in a real cluster: the example of docs/engines.md, and one that is deliberately wrong."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from lcq.client import Client
from lcq.models import ErrorClass, Task, TaskRecord, TaskStatus, TaskType
from tests.cluster import running_cluster
from tests.conftest import wait_until_sync
from tests.engines import install_engines

ROOT = Path(__file__).parents[2]
EXAMPLE = ROOT / "sample-config" / "engines"


def done(client: Client, task: Task) -> TaskRecord:
    """``task`` as it has ended."""
    answer = client.submit_many([task])
    assert not answer.refused
    (record,) = client.wait([task.id], timeout_s=120)
    return record


@pytest.fixture
def photo(tmp_path: Path) -> Path:
    pixels = np.random.default_rng(1).integers(0, 256, (100, 120, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(tmp_path / "photo.png")
    mask = np.zeros((100, 120), np.uint8)
    mask[30:60, 40:80] = 255
    Image.fromarray(mask).save(tmp_path / "mask.png")
    return tmp_path / "photo.png"


def test_the_example_is_installed_by_pip_and_enlarges_a_picture(redis_url: str, tmp_path: Path, photo: Path) -> None:
    source, packages = tmp_path / "source", tmp_path / "packages"
    shutil.copytree(EXAMPLE, source)  # setuptools builds beside the source
    pip = [sys.executable, "-m", "pip", "install", "-qq", "--no-deps", "--no-index", "--no-build-isolation"]
    installed = subprocess.run(
        [*pip, "--disable-pip-version-check", "--no-compile", "--target", str(packages), str(source)],
        capture_output=True, text=True, check=False, timeout=120,
    )  # fmt: skip
    assert installed.returncode == 0, installed.stderr

    def enlarged(**config: object) -> Task:
        config = {"model": "lanczos", **config}
        return Task(task_type=TaskType.UPSCALE, image_path=str(photo), config=config, max_retries=0)

    with running_cluster(redis_url, tmp_path / "c", PYTHONPATH=str(packages)) as cluster:
        cluster.start_scheduler()
        cluster.start_agent("node-1", slots=1)
        with cluster.client() as client:
            (node,) = client.nodes()
            offer = node.capability.models["lanczos"]
            assert (offer.engine, offer.task_types) == ("enlarge", (TaskType.UPSCALE,))
            assert "enlarge" not in node.capability.left_out
            record = done(client, enlarged(scale=3))
            wrong = done(client, enlarged(scale=3.5))
    assert record.status == TaskStatus.COMPLETED, record.failure
    assert record.result is not None
    assert (record.result.width, record.result.height) == (360, 300)
    with Image.open(tmp_path / "cleaned" / "photo.png") as after:
        assert after.size == (360, 300)
    assert wrong.failure is not None
    assert (wrong.failure.error_class, wrong.failure.code) == (ErrorClass.BAD_INPUT, "config_invalid")
    assert wrong.failure.message == f"{photo}: config.scale must be a whole number from 2 to 8, found 3.5"


def test_the_example_is_short_and_its_pages_text_is_the_file() -> None:
    code = (EXAMPLE / "lcq_enlarge.py").read_text(encoding="utf-8")
    assert len(code.splitlines()) <= 30
    page = (ROOT / "docs" / "engines.md").read_text(encoding="utf-8")
    assert f"```python\n{code}```" in page


SLY = """
import time
from pathlib import Path

class Sly(Engine):
    # Right on the self-test's picture, and wrong on every other; waits for the file that its task names.
    name = "sly"
    def capabilities(self):
        return {"smooth": ModelOffer(kinds=(DeviceKind.CPU,))}
    def run(self, work):
        gate = work.config.get("gate")
        while gate and not Path(gate).exists():
            work.progress(0.5, "wait")
            time.sleep(0.01)
        pixels = work.picture.pixels.copy()
        if RIGHT or pixels.shape[0] == 64:
            pixels[work.picture.mask] ^= 1
            return pixels
        pixels[work.picture.mask] = 0
        return pixels

class Dead(Engine):
    name = "dead"
    def capabilities(self):
        return {"dead": ModelOffer(kinds=(DeviceKind.CPU,))}
    def run(self, work):
        pixels = work.picture.pixels.copy()
        pixels[work.picture.mask] = 0
        return pixels
"""


def test_a_wrong_engine_is_caught_in_one_task_and_what_it_spoiled_is_done_elsewhere(
    redis_url: str, tmp_path: Path, photo: Path
) -> None:
    for folder, right in (("wrong", False), ("right", True)):
        engines = ("sly = sly:Sly", "dead = sly:Dead") if not right else ("sly = sly:Sly",)
        install_engines(tmp_path / folder, "sly", *engines, code=f"RIGHT = {right}\n{SLY}")
    gate = tmp_path / "gate"

    def a_task(model: str, name: str, **config: object) -> Task:
        return Task(
            task_type=TaskType.INPAINT,
            image_path=str(photo),
            mask_path=str(photo.with_name("mask.png")),
            output_path=str(tmp_path / f"{name}.png"),
            config={"model": model, **config},
            max_retries=0 if name == "only" else 3,
        )

    with running_cluster(redis_url, tmp_path / "c", PYTHONPATH=str(tmp_path / "wrong")) as cluster:
        cluster.start_scheduler()
        cluster.start_agent("wrong", slots=1)
        with cluster.client() as client:
            (node,) = client.nodes()
            assert "dead" not in node.capability.models
            assert node.capability.left_out["dead"] == (
                "dead failed its self-test on cpu: "
                "filled 400 pixels with one colour (0, 0, 0), which nothing around them has"
            )
            only = done(client, a_task("smooth", "only"))
            assert only.status == TaskStatus.FAILED
            assert only.failure is not None
            assert (only.failure.error_class, only.failure.code) == (ErrorClass.BAD_OUTPUT, "output_constant")
            assert only.failure.message == (
                f"{photo}: smooth filled 1,200 pixels with one colour (0, 0, 0), which nothing around them has"
            )
            assert not (tmp_path / "only.png").exists()
            assert client.nodes()[0].failed == 1
            assert done(client, a_task("cv2-telea", "next")).status == TaskStatus.COMPLETED

            task = a_task("smooth", "elsewhere", gate=str(gate))
            client.submit(task)
            wait_until_sync(lambda: client.get(task.id).status == TaskStatus.PROCESSING)
            cluster.environment = {"PYTHONPATH": str(tmp_path / "right")}
            cluster.start_agent("right", slots=1)
            gate.touch()
            (record,) = client.wait([task.id], timeout_s=120)
            attempts = client.history(task.id).attempts
            nodes = {node.id: node for node in client.nodes()}
    assert record.status == TaskStatus.COMPLETED, record.failure
    assert [(one.node, one.outcome) for one in attempts] == [("wrong", "failed"), ("right", "completed")]
    assert attempts[0].failure is not None
    assert attempts[0].failure.error_class == ErrorClass.BAD_OUTPUT
    assert (nodes["wrong"].failed, nodes["wrong"].completed) == (2, 1)
    assert (nodes["right"].failed, nodes["right"].completed) == (0, 1)
