"""Blobs and single objects in an S3 store: moto's server, in a process of its own."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from pathlib import Path

import pytest

from lcq.config import DistributedConfig
from lcq.errors import AddressRefused, BlobMismatch, BlobNotFound, BlobTooLarge, StorageUnreachable
from lcq.storage.blobs import BlobStore
from lcq.storage.objects import Objects, ObjectStore
from lcq.storage.opening import depot_of, store_of
from tests.cluster import free_port
from tests.s3 import S3, s3_server, wait_for

WORDS = b"a picture, or what stands for one here. " * 20_000
SUM = hashlib.sha256(WORDS).hexdigest()


@pytest.fixture(scope="module")
def s3(tmp_path_factory: pytest.TempPathFactory) -> Iterator[S3]:
    with s3_server(tmp_path_factory.mktemp("s3")) as server:
        wait_for(server)
        server.make_bucket("lcq")
        server.make_bucket("studio")
        yield server


@pytest.fixture
def source(tmp_path: Path) -> Path:
    path = tmp_path / "source"
    path.write_bytes(WORDS)
    return path


def config_at(s3: S3, tmp_path: Path, url: str) -> DistributedConfig:
    return DistributedConfig.model_validate(
        {
            "data_dir": tmp_path / "data",
            "storage": {"url": url, "options": {"s3": s3.options}, "blobs": {"floor_mib": 0}},
        }
    )


def test_blobs_in_s3_are_put_read_got_found_and_deleted(s3: S3, tmp_path: Path, source: Path) -> None:
    store: BlobStore = store_of(config_at(s3, tmp_path, "s3://lcq/blobs"))
    assert store.stat(SUM) is None
    moved: list[int] = []
    assert store.put(source, SUM, moved=moved.append).size == len(WORDS)
    assert sum(moved) == len(WORDS)
    assert store.put(source, SUM, moved=moved.append).size == len(WORDS)  # there already: nothing is moved
    assert sum(moved) == len(WORDS)
    assert b"".join(store.read(SUM, offset=5, length=300_000)) == WORDS[5:300_005]
    store.get(SUM, tmp_path / "target")
    assert (tmp_path / "target").read_bytes() == WORDS
    assert [(blob.sha256, blob.size) for blob in store.blobs()] == [(SUM, len(WORDS))]
    assert store.delete(SUM)
    assert store.stat(SUM) is None
    assert list(store.blobs()) == []
    with pytest.raises(BlobNotFound):
        store.get(SUM, tmp_path / "another")
    with pytest.raises(BlobNotFound):
        next(store.read(SUM))
    assert not (tmp_path / "another").exists()


def test_other_bytes_than_their_name_says_are_neither_kept_nor_handed_out(s3: S3, tmp_path: Path, source: Path) -> None:
    store = store_of(config_at(s3, tmp_path, "s3://lcq/false"))
    with pytest.raises(BlobMismatch):
        store.put(source, "0" * 64)
    Objects("s3", s3.options).put(source, f"s3://lcq/false/00/{'0' * 64}")
    with pytest.raises(BlobMismatch):
        store.get("0" * 64, tmp_path / "target")
    assert not (tmp_path / "target").exists()


def test_an_object_of_half_the_age_is_put_anew_so_that_it_is_young_again(s3: S3, source: Path) -> None:
    ObjectStore("s3://lcq/old", s3.options, keep_s=3600).put(source, SUM)
    soon_gone = ObjectStore("s3://lcq/old", s3.options, keep_s=0.0001)
    assert soon_gone.stat(SUM) is None
    moved: list[int] = []
    soon_gone.put(source, SUM, moved=moved.append)
    assert sum(moved) == len(WORDS)


def test_a_depot_on_s3_takes_uploads_that_were_broken_off(s3: S3, tmp_path: Path) -> None:
    depot = depot_of(config_at(s3, tmp_path, "s3://lcq/depot"))
    with depot.upload(SUM, size=len(WORDS)) as upload:
        upload.write(WORDS[:1000])
    with depot.upload(SUM, size=len(WORDS)) as upload:
        upload.write(WORDS[upload.offset :])
        upload.finish()
    assert depot.uploaded(SUM) == 0
    assert b"".join(depot.read(SUM)) == WORDS
    assert depot.usage().size == len(WORDS)


def test_single_objects_come_and_go_within_their_limit(s3: S3, tmp_path: Path, source: Path) -> None:
    objects = Objects("s3", s3.options)
    assert objects.size("s3://studio/in/a.jpg") is None
    objects.put(source, "s3://studio/in/a.jpg")
    assert objects.size("s3://studio/in/a.jpg") == len(WORDS)
    assert objects.get("s3://studio/in/a.jpg", tmp_path / "a", most=len(WORDS)) == (len(WORDS), SUM)
    with pytest.raises(BlobTooLarge):
        objects.get("s3://studio/in/a.jpg", tmp_path / "b", most=len(WORDS) - 1)
    with pytest.raises(FileNotFoundError):
        objects.get("s3://studio/in/none.jpg", tmp_path / "b", most=10)
    assert not (tmp_path / "b").exists()


def test_an_upload_that_is_broken_off_leaves_no_object(s3: S3, source: Path) -> None:
    class Enough(Exception):
        pass

    def stop(count: int) -> None:
        raise Enough

    objects = Objects("s3", s3.options)
    with pytest.raises(Enough):
        objects.put(source, "s3://studio/out/half.jpg", moved=stop)
    assert objects.size("s3://studio/out/half.jpg") is None


def test_a_store_that_does_not_answer_and_a_bucket_that_is_not_there_are_said_to_be_so(
    s3: S3, tmp_path: Path, source: Path
) -> None:
    away = S3(f"http://127.0.0.1:{free_port()}")
    quick = away.options | {"config_kwargs": {"retries": {"max_attempts": 0}, "connect_timeout": 5}}
    with pytest.raises(StorageUnreachable):
        Objects("s3", quick).size("s3://lcq/a")
    with pytest.raises((StorageUnreachable, FileNotFoundError)):
        Objects("s3", s3.options).put(source, "s3://no-such-bucket/a")


@pytest.mark.parametrize("scheme", ["nonsense", "sftp"])
def test_what_is_not_known_or_not_installed_is_said_to_be_so(scheme: str) -> None:
    with pytest.raises(AddressRefused):
        Objects(scheme)
