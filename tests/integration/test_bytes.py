"""Tasks whose files are elsewhere, on a real cluster: their bytes come and go, and are those of a task with paths."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from lcq.client import Client
from lcq.errors import LcqError
from lcq.models import ErrorClass, Task, TaskRecord, TaskStatus, TaskType
from lcq.storage.opening import depot_of
from tests.cluster import Cluster, running_cluster

PATIENCE_S = 120.0


def pictures(folder: Path) -> tuple[Path, Path]:
    """A picture and its mask."""
    folder.mkdir(parents=True, exist_ok=True)
    noise = np.random.default_rng(7).integers(0, 256, (40, 60, 3), dtype=np.uint8)
    hole = np.zeros((40, 60), np.uint8)
    hole[10:20, 15:30] = 255
    image, mask = folder / "image.png", folder / "mask.png"
    Image.fromarray(noise).save(image)
    Image.fromarray(hole).save(mask)
    return image, mask


@pytest.fixture
def cluster(redis_url: str, tmp_path: Path) -> Iterator[Cluster]:
    around = {
        "LCQ_STORAGE__BLOBS__FLOOR_MIB": "0",
        "LCQ_AGENT__DISK__FLOOR_MIB": "0",
        "LCQ_AGENT__MODELS": '["cv2-telea"]',
    }
    with running_cluster(redis_url, tmp_path / "cluster", **around) as cluster:
        yield cluster


def done(client: Client, **what: object) -> TaskRecord:
    task = Task.model_validate({"task_type": TaskType.INPAINT} | what)
    client.submit(task)
    return client.wait([task.id], timeout_s=PATIENCE_S)[0]


def test_blobs_and_files_by_address_are_worked_on_as_paths_are(cluster: Cluster, tmp_path: Path) -> None:
    image, mask = pictures(tmp_path / "photos")
    cluster.start_scheduler()
    cluster.start_agent()
    depot = depot_of(cluster.config)
    image_blob, mask_blob = (f"blob:{depot.keep(path.read_bytes()).sha256}" for path in (image, mask))
    with cluster.client() as client:
        by_path = done(client, image_path=str(image), mask_path=str(mask))
        assert by_path.result is not None, by_path

        by_blob = done(client, image_path=image_blob, mask_path=mask_blob)
        assert by_blob.result is not None, by_blob
        assert by_blob.result.path == f"blob:{by_blob.result.sha256}"
        assert b"".join(depot.read(by_blob.result.sha256)) == Path(by_path.result.path).read_bytes()

        into_a_file = tmp_path / "results" / "mixed.png"
        mixed = done(client, image_path=image_blob, mask_path=mask.as_uri(), output_path=into_a_file.as_uri())
        assert mixed.status is TaskStatus.COMPLETED, mixed
        assert into_a_file.read_bytes() == Path(by_path.result.path).read_bytes()

        missing = done(client, image_path=f"blob:{'0' * 64}", mask_path=mask_blob)
        assert missing.failure is not None
        assert (missing.failure.error_class, missing.failure.code) == (ErrorClass.BAD_INPUT, "blob_not_found")
        no_picture = depot.keep(b"no picture at all").sha256
        broken = done(client, image_path=f"blob:{no_picture}", mask_path=mask_blob)
        assert broken.failure is not None
        assert broken.failure.error_class is ErrorClass.BAD_INPUT
        assert f"blob:{no_picture}" in broken.failure.message
        assert str(cluster.folder) not in broken.failure.message

        for refused in ("https://example.org/a.png", "s3://bucket/a.png", "blob:nonsense"):
            with pytest.raises(LcqError, match="cannot be used"):
                client.submit(Task(task_type=TaskType.INPAINT, image_path=refused, mask_path=str(mask)))
    home = cluster.folder / "agents" / "node-1" / "bytes"
    assert sorted(path.name for path in (home / "blobs").iterdir()) == sorted(
        hashlib.sha256(data).hexdigest() for data in (image.read_bytes(), mask.read_bytes(), b"no picture at all")
    )
    assert [path for path in (home / "attempts").iterdir() if any(path.rglob("*.*"))] == []
