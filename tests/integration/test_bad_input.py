"""Bad input through a real cluster: each bad task fails once, in one clear line; nobody is blamed; the rest is done."""

from __future__ import annotations

import struct
import zlib
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from lcq.client import Client
from lcq.config import ModelsConfig
from lcq.errors import UnknownModel, UnknownQueue
from lcq.models import ErrorClass, Task, TaskStatus, TaskType
from tests.cluster import Cluster, running_cluster
from tests.redis_rig import running_server
from tests.weight_files import safetensors
from worker.weights import WeightStore

SMALL_LAMA = Path(__file__).parents[1] / "data" / "lama" / "small_weights.npz"


def claims_to_be(path: Path, width: int, height: int) -> None:
    """A PNG of some hundred bytes whose header promises gigapixels."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    pixels = zlib.compress(b"\0" * 100)
    path.write_bytes(b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", pixels) + chunk(b"IEND", b""))


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    folder = tmp_path / "in"
    folder.mkdir()
    Image.new("RGB", (40, 30), "teal").save(folder / "good.png")
    Image.effect_noise((400, 300), 60).save(folder / "good.jpg", quality=95)
    Image.new("L", (40, 30), 0).save(folder / "mask.png")
    Image.new("L", (41, 30), 255).save(folder / "other-size.png")
    (folder / "empty.jpg").write_bytes(b"")
    (folder / "text.jpg").write_text("not a picture at all")
    (folder / "truncated.jpg").write_bytes((folder / "good.jpg").read_bytes()[:3000])
    (folder / "directory.jpg").mkdir()
    claims_to_be(folder / "bomb.png", 65535, 65535)
    (folder / "line\nbreak\x1b[31m.jpg").write_bytes(b"")
    return folder


BAD = {
    "empty.jpg": "image_empty",
    "text.jpg": "image_unreadable",
    "truncated.jpg": "image_truncated",
    "directory.jpg": "image_is_directory",
    "bomb.png": "image_too_large",
    "missing.jpg": "image_missing",
    "line\nbreak\x1b[31m.jpg": "image_empty",
}


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    """One for all tests, with LaMa's small weights and one runner."""
    folder = tmp_path_factory.mktemp("cluster")
    with np.load(SMALL_LAMA) as arrays:
        weights = safetensors(folder / "small.safetensors", dict(arrays))
    WeightStore(folder / "c" / "models", ModelsConfig(allow=("any",))).add(weights, "lama")
    with (
        running_server(folder / "redis") as server,
        running_cluster(server.url, folder / "c", LCQ_LIMITS__IMAGE_PIXELS="15000000") as cluster,
    ):
        cluster.start_scheduler()
        cluster.start_agent("node-1", slots=1)
        yield cluster


def done_on(client: Client) -> tuple[int, int]:
    """How many attempts the node has failed and completed."""
    (node,) = client.nodes()
    return node.failed, node.completed


def test_every_kind_of_bad_input_fails_once_in_one_line_without_blame_and_the_rest_is_done(
    cluster: Cluster, tmp_path: Path, folder: Path
):
    def task(name: str, mask: str = "mask.png") -> Task:
        return Task(
            task_type=TaskType.INPAINT,
            image_path=str(folder / name),
            mask_path=str(folder / mask),
            output_path=str(tmp_path / "out" / f"{len(name)}-{Path(name).suffix}{mask}.png"),
        )

    bad = {name: task(name) for name in BAD} | {"good.png with a wrong mask": task("good.png", "other-size.png")}
    codes = BAD | {"good.png with a wrong mask": "mask_size_mismatch"}
    good = [task("good.png") for _ in range(3)]
    with cluster.client() as client:
        failed, completed = done_on(client)
        answer = client.submit_many([*bad.values(), *good])
        assert not answer.refused
        records = {record.id: record for record in client.wait([one.id for one in answer.accepted], timeout_s=60)}
        attempts = {task.id: client.history(task.id).attempts for task in bad.values()}
        assert done_on(client) == (failed, completed + 3)

    for name, asked in bad.items():
        record = records[asked.id]
        assert record.status == TaskStatus.FAILED, name
        assert record.failure is not None
        assert (record.failure.error_class, record.failure.code) == (ErrorClass.BAD_INPUT, codes[name])
        assert (record.attempt, record.retries, len(attempts[asked.id])) == (1, 0, 1), name
        message = record.failure.message
        assert message.isprintable(), f"{name}: one line, no escape codes: {message!r}"
        assert Path(asked.image_path).name.split("\n")[0] in message
    assert {records[asked.id].status for asked in good} == {TaskStatus.COMPLETED}


# name -> size of the picture, holes (left, top, right, bottom; None: all), config, code of the failure ("": none)
ODD: dict[str, tuple[tuple[int, int], tuple[int, int, int, int] | None, dict[str, object], str]] = {
    "a pixel without a hole": ((1, 1), (0, 0, 0, 0), {}, ""),
    "a pixel that is a hole": ((1, 1), None, {}, "mask_full"),
    "a row": ((10_000, 1), (500, 0, 700, 1), {}, ""),
    "a column": ((1, 10_000), (0, 500, 1, 700), {"model": "lama"}, ""),
    "as many pixels as are allowed": ((30_000, 500), (100, 100, 140, 140), {}, ""),
    "a row too many": ((30_000, 501), (100, 100, 140, 140), {}, "image_too_large"),
    "all of it a hole": ((90, 70), None, {}, "mask_full"),
    "all of it a hole for lama": ((90, 70), None, {"model": "lama"}, "mask_full"),
    "a hole for lama": ((90, 70), (20, 20, 50, 40), {"model": "lama", "precision": "bf16"}, ""),
    "an unknown precision": ((90, 70), (20, 20, 50, 40), {"model": "lama", "precision": "fp12"}, "config_invalid"),
    "an unknown strategy": ((90, 70), (20, 20, 50, 40), {"model": "lama", "hd_strategy": "tiles"}, "config_invalid"),
    "a radius in words": ((90, 70), (20, 20, 50, 40), {"radius": "wide"}, "config_invalid"),
    "the last one": ((90, 70), (20, 20, 50, 40), {}, ""),
}


def test_odd_sizes_masks_and_wishes_end_in_a_result_or_one_clear_line_and_the_runner_lives(
    cluster: Cluster, tmp_path: Path
):
    pytest.importorskip("torch")
    noise = np.random.default_rng(1)
    tasks: dict[str, Task] = {}
    for name, (size, hole, config, _) in ODD.items():
        image, mask = tmp_path / f"{name}.png", tmp_path / f"{name}_mask.png"
        if size[0] * size[1] < 1_000_000:
            Image.fromarray(noise.integers(0, 256, (size[1], size[0], 3), dtype=np.uint8)).save(image)
        else:
            Image.new("1", size, 1).save(image)
        holes = Image.new("1", size, hole is None)
        if hole is not None:
            holes.paste(1, hole)
        holes.save(mask)
        tasks[name] = Task(
            task_type=TaskType.INPAINT, image_path=str(image), mask_path=str(mask), config=config, max_retries=0
        )
    (runner,) = cluster.runners("node-1")
    with cluster.client() as client:
        failed, completed = done_on(client)
        answer = client.submit_many(list(tasks.values()))
        assert not answer.refused
        records = {record.id: record for record in client.wait([one.id for one in answer.accepted], timeout_s=60)}
        assert done_on(client) == (failed, completed + sum(not code for *_, code in ODD.values()))
    assert cluster.runners("node-1") == [runner], cluster.logs()

    for name, (size, _, config, code) in ODD.items():
        record = records[tasks[name].id]
        if not code:
            assert record.status == TaskStatus.COMPLETED, f"{name}: {record.failure}"
            assert record.result is not None
            assert (record.result.width, record.result.height) == size
            continue
        assert record.failure is not None, name
        assert (record.failure.error_class, record.failure.code) == (ErrorClass.BAD_INPUT, code), name
        assert f"{name}.png" in record.failure.message
        if code == "config_invalid":
            wrong = next(key for key in config if key != "model")
            assert f"config.{wrong} must be" in record.failure.message
            assert repr(config[wrong]) in record.failure.message
    unchanged = records[tasks["a pixel without a hole"].id].result
    assert unchanged is not None
    assert unchanged.notes == ("the mask is empty: the result is the input",)
    assert Path(unchanged.path).read_bytes() == Path(tasks["a pixel without a hole"].image_path).read_bytes()


def test_an_unknown_model_or_queue_is_refused_at_once_naming_the_file_and_the_fix(cluster: Cluster):
    with cluster.client() as client:
        before = list(client.tasks())
        wrong = Task(task_type=TaskType.INPAINT, image_path="/p/a.jpg", config={"model": "cv2-tela"})
        with pytest.raises(UnknownModel) as model:
            client.submit(wrong)
        assert str(model.value) == "/p/a.jpg: no such model: 'cv2-tela' (did you mean 'cv2-telea'?)"
        right = Task(task_type=TaskType.INPAINT, image_path="/p/a.jpg")
        with pytest.raises(UnknownQueue) as queue:
            client.submit(right, queue="cpu-lihgt")
        assert str(queue.value) == "/p/a.jpg: no such queue: 'cpu-lihgt' (did you mean 'cpu-light'?)"
        assert [one.id for one in client.tasks()] == [one.id for one in before]
