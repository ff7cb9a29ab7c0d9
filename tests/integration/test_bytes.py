"""Tasks whose files are elsewhere, on a real cluster: their bytes come and go, and are those of a task with paths."""

from __future__ import annotations

import base64
import hashlib
import io
import json
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from lcq.client import Client
from lcq.errors import LcqError
from lcq.models import ErrorClass, Task, TaskRecord, TaskStatus, TaskType
from lcq.storage.objects import Objects
from lcq.storage.opening import depot_of
from tests.cluster import Cluster, running_cluster
from tests.s3 import s3_server, wait_for

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
    cluster.start_agent(slots=1)
    depot = depot_of(cluster.config)
    image_blob, mask_blob = (f"blob:{depot.keep(path.read_bytes()).sha256}" for path in (image, mask))
    with cluster.client() as client:
        by_path = done(client, image_path=str(image), mask_path=str(mask))
        assert by_path.result is not None, by_path

        by_blob = done(client, image_path=image_blob, mask_path=mask_blob)
        assert by_blob.result is not None, by_blob
        assert by_blob.result.path == f"blob:{by_blob.result.sha256}"
        assert b"".join(depot.read(by_blob.result.sha256)) == Path(by_path.result.path).read_bytes()

        looked_at = client.thumbnail(by_blob.id, parts=("before", "mask", "overlay", "after"), longest=480, webp=True)
        small = {part: Image.open(io.BytesIO(base64.b64decode(one.data))) for part, one in looked_at.parts.items()}
        assert {part: (one.format, one.size) for part, one in small.items()} == dict.fromkeys(
            ("before", "mask", "overlay", "after"), ("WEBP", (60, 40))
        )
        over, before = (np.asarray(small[part].convert("RGB")).astype(int) for part in ("overlay", "before"))
        assert over[12:18, 17:28, 0].mean() > 180 > before[12:18, 17:28, 0].mean()  # red where the mask is
        assert abs(over[25:, 35:] - before[25:, 35:]).mean() < 8  # and nowhere else, but for what WebP loses

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
    brought = {
        hashlib.sha256(data).hexdigest() for data in (image.read_bytes(), mask.read_bytes(), b"no picture at all")
    }
    looked_at_too = {by_blob.result.sha256}
    assert {path.name for path in (home / "blobs").iterdir()} == brought | looked_at_too
    assert [path for path in (home / "attempts").iterdir() if any(path.rglob("*.*"))] == []


@pytest.mark.chaos
def test_objects_are_worked_on_where_they_are_and_blobs_in_an_object_store_by_who_reaches_it(
    redis_url: str, tmp_path: Path
) -> None:
    image, mask = pictures(tmp_path / "photos")
    with s3_server(tmp_path) as s3:
        wait_for(s3)
        s3.make_bucket("studio")
        s3.make_bucket("fleet")
        around = {
            "LCQ_STORAGE__URL": "s3://fleet/lcq",
            "LCQ_STORAGE__OPTIONS": json.dumps({"s3": s3.options}),
            "LCQ_STORAGE__URLS": '["s3://studio/in", "s3://studio/out"]',
            "LCQ_AGENT__MODELS": '["cv2-telea"]',
        }
        studio = Objects("s3", s3.options)
        studio.put(image, "s3://studio/in/a.png")
        studio.put(image, "s3://studio/secret/a.png")
        with running_cluster(redis_url, tmp_path / "cluster", **around) as cluster:
            cluster.start_scheduler()
            cluster.start_agent()
            with cluster.client() as client:
                by_path = done(client, image_path=str(image), mask_path=str(mask))
                assert by_path.result is not None, by_path
                expected = Path(by_path.result.path).read_bytes()

                there = done(
                    client, image_path="s3://studio/in/a.png", mask_path=str(mask), output_path="s3://studio/out/b.png"
                )
                assert there.result is not None, there
                assert there.result.path == "s3://studio/out/b.png"
                assert b"".join(studio.read("s3://studio/out/b.png")) == expected

                as_blob = done(client, image_path="s3://studio/in/a.png", mask_path=str(mask))
                assert as_blob.result is not None, as_blob
                sha256 = as_blob.result.sha256
                assert as_blob.result.path == f"blob:{sha256}"
                assert b"".join(studio.read(f"s3://fleet/lcq/{sha256[:2]}/{sha256}")) == expected  # no HTTP is served

                gone = done(client, image_path="s3://studio/in/none.png", mask_path=str(mask))
                assert gone.failure is not None
                assert gone.failure.error_class is ErrorClass.BAD_INPUT
                with pytest.raises(LcqError, match="cannot be used"):
                    client.submit(
                        Task(task_type=TaskType.INPAINT, image_path="s3://studio/secret/a.png", mask_path=str(mask))
                    )
