"""Bytes in storage: what tasks may name, blobs in a folder, uploads that go on, what a scheduler keeps of them."""

from __future__ import annotations

import hashlib
import os
import time
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lcq.config import BlobsConfig, DistributedConfig, StorageConfig
from lcq.errors import (
    AddressRefused,
    BlobMismatch,
    BlobNotFound,
    BlobTooLarge,
    StorageFull,
    UploadConflict,
)
from lcq.storage import uploads
from lcq.storage.addresses import Address, Allowed, Kind, blob_address, read_address
from lcq.storage.depot import Depot
from lcq.storage.folder import FolderStore
from lcq.storage.opening import store_of

WORDS = b"a picture, or what stands for one here. " * 20_000  # several chunks
SUM = hashlib.sha256(WORDS).hexdigest()
OTHER = "0" * 64


def a_depot(tmp_path: Path, *, largest: int = 2**30, **terms: float) -> Depot:
    settings = BlobsConfig.model_validate({"floor_mib": 0} | terms)
    store = FolderStore(tmp_path / "blobs")
    return Depot(store, uploads=tmp_path / "uploads", terms=lambda: settings, largest=lambda: largest)


def a_file(tmp_path: Path, content: bytes = WORDS) -> Path:
    path = tmp_path / "source"
    path.write_bytes(content)
    return path


def grown_old(tmp_path: Path, sha256: str, hours: float = 100.0) -> None:
    at = time.time() - hours * 3600
    os.utime(tmp_path / "blobs" / sha256[:2] / sha256, (at, at))


# ---------------------------------------------------------------- addresses


@pytest.mark.parametrize(
    ("text", "kind", "place"),
    [
        ("/photos/a.jpg", Kind.PATH, "/photos/a.jpg"),
        ("photos/a.jpg", Kind.PATH, "photos/a.jpg"),
        ("C:\\photos\\a.jpg", Kind.PATH, "C:\\photos\\a.jpg"),
        ("/photos/what?is#this.jpg", Kind.PATH, "/photos/what?is#this.jpg"),
        ("file:///photos/a%20b.jpg", Kind.PATH, "/photos/a b.jpg"),
        ("file://localhost/photos/a.jpg", Kind.PATH, "/photos/a.jpg"),
        (f"blob:{SUM}", Kind.BLOB, SUM),
        ("https://example.org/a.jpg?x=1", Kind.WEB, "https://example.org/a.jpg?x=1"),
        ("S3://bucket/a.jpg", Kind.OBJECT, "S3://bucket/a.jpg"),
    ],
)
def test_an_address_says_how_it_is_reached(text: str, kind: Kind, place: str) -> None:
    assert read_address(text) == Address(kind, place)


@pytest.mark.parametrize(
    "text",
    [
        "blob:",
        f"blob:{SUM.upper()}",
        f"blob:{SUM}\n",
        f"blob:{SUM}/..",
        "file://elsewhere/a",
        "file://",
        "file:///a%00b",
    ],
)
def test_what_only_looks_like_an_address_is_refused(text: str) -> None:
    with pytest.raises(AddressRefused):
        read_address(text)


def test_a_blobs_address_is_read_as_it_was_written() -> None:
    assert str(read_address(blob_address(SUM))) == blob_address(SUM)


def test_by_default_tasks_name_paths_and_blobs_only() -> None:
    allowed = Allowed(StorageConfig().urls, StorageConfig().web)
    allowed.refuse(read_address("/photos/a.jpg"))
    allowed.refuse(read_address(blob_address(SUM)))
    for text in ("https://example.org/a.jpg", "s3://bucket/a.jpg"):
        with pytest.raises(AddressRefused):
            allowed.refuse(read_address(text))


@pytest.mark.parametrize(
    "text",
    [
        "s3://studio/in",
        "s3://studio/in/2024/a.jpg",
        "S3://studio/in/a.jpg",
    ],
)
def test_what_begins_as_allowed_may_be_named(text: str) -> None:
    Allowed(("s3://studio/in",)).refuse(read_address(text))


@pytest.mark.parametrize(
    "text",
    [
        "s3://studio/inner/a.jpg",
        "s3://studio/in/../out/a.jpg",
        "s3://studio/in/%2e%2e/out/a.jpg",
        "s3://studio-two/in/a.jpg",
        "s3://me@studio/in/a.jpg",
        "s3://studio/in/a::file:///etc/passwd",
        "simplecache::s3://studio/in/a.jpg",
        "gs://studio/in/a.jpg",
        "s3://studio/in/\\..\\a",
        "s3://studio/in/a\nb",
    ],
)
def test_what_only_seems_to_begin_as_allowed_is_refused(text: str) -> None:
    address = read_address(text)
    if address.kind is Kind.PATH:  # a path of an odd name: no agent looks for it anywhere else
        assert address.place == text
        return
    with pytest.raises(AddressRefused):
        Allowed(("s3://studio/in",)).refuse(address)


@given(st.text(max_size=60))
def test_any_text_is_an_address_or_refused(text: str) -> None:
    for beginning in ("", "blob:", "file://", "http://", "s3://studio/in"):
        said = ""
        try:
            address = read_address(beginning + text)
            assert "/" not in address.name
            Allowed(("s3://studio/in",), web=True).refuse(address)
        except AddressRefused as refusal:
            said = str(refusal)
        assert said.isprintable()


# ---------------------------------------------------------------- a folder of blobs


def test_what_was_put_is_got_back_byte_by_byte(tmp_path: Path) -> None:
    store = FolderStore(tmp_path / "blobs")
    moved: list[int] = []
    store.put(a_file(tmp_path), SUM, moved=moved.append)
    assert sum(moved) == len(WORDS)
    store.get(SUM, tmp_path / "target", moved=moved.append)
    assert (tmp_path / "target").read_bytes() == WORDS
    assert sum(moved) == 2 * len(WORDS)
    assert b"".join(store.read(SUM, offset=7, length=11)) == WORDS[7:18]
    assert b"".join(store.read(SUM, offset=len(WORDS))) == b""
    assert [(blob.sha256, blob.size) for blob in store.blobs()] == [(SUM, len(WORDS))]
    assert store.delete(SUM)
    assert not store.delete(SUM)
    assert store.stat(SUM) is None


def test_bytes_that_are_others_than_they_should_be_are_not_kept(tmp_path: Path) -> None:
    store = FolderStore(tmp_path / "blobs")
    with pytest.raises(BlobMismatch):
        store.put(a_file(tmp_path), OTHER)
    assert [path for path in (tmp_path / "blobs").rglob("*") if path.is_file()] == []


def test_a_damaged_blob_is_not_handed_out_as_a_file(tmp_path: Path) -> None:
    store = FolderStore(tmp_path / "blobs")
    store.put(a_file(tmp_path), SUM)
    damaged = tmp_path / "blobs" / SUM[:2] / SUM
    damaged.chmod(0o600)
    damaged.write_bytes(WORDS[:-1] + b"!")
    with pytest.raises(BlobMismatch):
        store.get(SUM, tmp_path / "target")
    assert not (tmp_path / "target").exists()


def test_a_transfer_that_is_broken_off_leaves_nothing(tmp_path: Path) -> None:
    class Enough(Exception):
        pass

    def stop(count: int) -> None:
        raise Enough

    store = FolderStore(tmp_path / "blobs")
    with pytest.raises(Enough):
        store.put(a_file(tmp_path), SUM, moved=stop)
    assert store.stat(SUM) is None
    store.put(a_file(tmp_path), SUM)
    with pytest.raises(Enough):
        store.get(SUM, tmp_path / "target", moved=stop)
    assert not (tmp_path / "target").exists()


@pytest.mark.parametrize("name", ["", "..", "../../etc/passwd", SUM[:63], SUM + "0", f"{SUM}\n", "/etc/passwd"])
def test_what_is_no_sha256_is_never_looked_for(tmp_path: Path, name: str) -> None:
    depot = a_depot(tmp_path)
    assert depot.stat(name) is None
    assert depot.uploaded(name) == 0
    assert not depot.delete(name)
    with pytest.raises(BlobNotFound):
        next(depot.read(name))
    with pytest.raises(BlobNotFound):
        depot.upload(name, size=1)
    assert list(tmp_path.rglob("*")) == []


# ---------------------------------------------------------------- uploads


def test_an_upload_goes_on_where_it_was_broken_off(tmp_path: Path) -> None:
    depot = a_depot(tmp_path)
    with depot.upload(SUM, size=len(WORDS)) as upload:
        upload.write(WORDS[:300_001])
    assert depot.stat(SUM) is None
    assert depot.uploaded(SUM) == 300_001
    with a_depot(tmp_path).upload(SUM, size=len(WORDS)) as upload:  # another scheduler, after the first has died
        assert upload.offset == 300_001
        upload.write(WORDS[300_001:])
        assert upload.finish().size == len(WORDS)
    assert depot.uploaded(SUM) == 0
    assert b"".join(depot.read(SUM)) == WORDS
    assert list((tmp_path / "uploads").iterdir()) == []


def test_an_upload_that_is_not_whole_says_how_far_it_is(tmp_path: Path) -> None:
    with a_depot(tmp_path).upload(SUM, size=len(WORDS)) as upload:
        upload.write(WORDS[:5])
        with pytest.raises(UploadConflict) as refusal:
            upload.finish()
    assert refusal.value.uploaded == 5


def test_an_upload_of_other_bytes_is_thrown_away_and_can_begin_again(tmp_path: Path) -> None:
    depot = a_depot(tmp_path)
    with depot.upload(SUM, size=len(WORDS)) as upload:
        upload.write(b"x" * len(WORDS))
        with pytest.raises(BlobMismatch):
            upload.finish()
    assert depot.uploaded(SUM) == 0
    assert depot.keep(WORDS).sha256 == SUM


def test_two_uploads_of_the_same_bytes_at_a_time_are_one_too_many(tmp_path: Path) -> None:
    depot = a_depot(tmp_path)
    with depot.upload(SUM, size=len(WORDS)) as upload:
        upload.write(WORDS[:10])
        with pytest.raises(UploadConflict):
            depot.upload(SUM, size=len(WORDS))
        upload.write(WORDS[10:])
        upload.finish()
    with depot.upload(SUM, size=len(WORDS)) as again:
        assert again.offset == 0


def test_more_than_was_announced_is_refused(tmp_path: Path) -> None:
    with a_depot(tmp_path).upload(SUM, size=4) as upload:
        upload.write(WORDS[:4])
        with pytest.raises(BlobTooLarge):
            upload.write(b"!")
    with pytest.raises(BlobTooLarge):
        a_depot(tmp_path, largest=3).upload(SUM, size=4)


def test_uploads_are_refused_beyond_the_limit_also_by_what_is_only_announced(tmp_path: Path) -> None:
    depot = a_depot(tmp_path, limit_mib=2)
    depot.keep(b"1" * 2**20)
    with depot.upload(SUM, size=2**19), pytest.raises(StorageFull):
        depot.upload(OTHER, size=2**19 + 1)
    with depot.upload(OTHER, size=2**19 + 1):  # what was announced, and did not come, takes nothing
        pass
    depot.delete(hashlib.sha256(b"1" * 2**20).hexdigest())
    assert depot.usage().size == 0
    depot.keep(b"2" * 2**20)
    assert (depot.usage().count, depot.usage().size) == (1, 2**20)


def broken_off(depot: Depot, sha256: str, content: bytes) -> None:
    with depot.upload(sha256, size=2**20) as upload:
        upload.write(content)


def test_what_is_half_uploaded_counts_and_makes_way_only_when_nobody_went_on_with_it(tmp_path: Path) -> None:
    depot = a_depot(tmp_path, limit_mib=2)
    broken_off(depot, SUM, b"1" * 2**20)
    broken_off(depot, OTHER, b"2" * 2**19)
    assert (depot.usage().size, depot.usage().parts) == (0, 2**20 + 2**19)
    with pytest.raises(StorageFull):
        depot.keep(b"3" * (2**19 + 1))
    depot.keep(b"3" * 2**19)
    broken_off(depot, SUM, b"")  # what goes on counts once
    at = time.time() - 3600
    for sha256 in (SUM, OTHER):
        os.utime(tmp_path / "uploads" / f"{sha256}.part", (at, at))
    again = a_depot(tmp_path, limit_mib=2)  # after a restart it is counted too
    assert (again.usage().size, again.usage().parts) == (2**19, 2**20 + 2**19)
    with pytest.raises(StorageFull):
        again.upload("1" * 64, size=2**21)  # for what fits in no way nothing is thrown away
    assert again.usage().parts == 2**20 + 2**19
    with again.upload(SUM, size=2**20) as upload:  # somebody came back for this
        assert upload.offset == 2**20
        again.keep(b"4" * 2**18)
        with pytest.raises(StorageFull):
            again.keep(b"5" * 2**19)
    assert again.uploaded(OTHER) == 0
    assert again.uploaded(SUM) == 2**20
    assert again.usage().parts == 2**20


def test_who_comes_just_as_another_has_finished_the_same_upload_harms_no_blob(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    depot, late = a_depot(tmp_path), a_depot(tmp_path)
    first = depot.upload(SUM, size=len(WORDS))
    first.write(WORDS)
    lock = uploads.fcntl.flock

    def locked(descriptor: int, how: int) -> None:
        monkeypatch.undo()
        first.finish()
        first.close()
        lock(descriptor, how)

    monkeypatch.setattr(uploads.fcntl, "flock", locked)
    with pytest.raises(UploadConflict):
        late.upload(SUM, size=len(WORDS)).restart()
    assert b"".join(depot.read(SUM)) == WORDS


def test_uploads_leave_the_disk_its_floor(tmp_path: Path) -> None:
    with pytest.raises(StorageFull, match="in reserve"):
        a_depot(tmp_path, floor_percent=99.9999).keep(WORDS)
    assert "in reserve" in a_depot(tmp_path, floor_percent=99.9999).lack()
    assert a_depot(tmp_path).lack() == ""


def test_who_reaches_the_folder_of_blobs_directly_leaves_its_disk_the_floor_too(tmp_path: Path) -> None:
    settings = {"storage": {"url": f"file://{tmp_path}/blobs", "blobs": {"floor_percent": 99.9999}}}
    store = store_of(DistributedConfig.model_validate(settings))
    with pytest.raises(StorageFull, match="in reserve"):
        store.put(a_file(tmp_path), SUM)
    assert not (tmp_path / "blobs").exists()


# ---------------------------------------------------------------- its keeping


def test_what_nobody_used_and_no_task_needs_goes_and_the_rest_stays(tmp_path: Path) -> None:
    depot = a_depot(tmp_path)
    young, needed, used, old = (depot.keep(word).sha256 for word in (b"young", b"needed", b"used", b"old"))
    for sha256 in (needed, used, old):
        grown_old(tmp_path, sha256)
    assert depot.stat(used) is not None  # which is to use it
    asked: list[set[str]] = []

    def is_needed(some: set[str]) -> set[str]:
        asked.append(some)
        return {needed}

    assert depot.sweep(unused_s=3600, is_needed=is_needed) == 1
    assert asked == [{needed, old}]
    assert {blob.sha256 for blob in depot.store.blobs()} == {young, needed, used}
    assert depot.usage().count == 3


def test_a_blob_that_is_asked_for_while_the_tasks_are_looked_at_stays(tmp_path: Path) -> None:
    depot = a_depot(tmp_path)
    old = depot.keep(b"old").sha256
    grown_old(tmp_path, old)

    def is_needed(some: set[str]) -> set[str]:
        depot.stat(old)
        return set()

    assert depot.sweep(unused_s=3600, is_needed=is_needed) == 0
    assert depot.stat(old) is not None


def test_uploads_that_nobody_went_on_with_go_too(tmp_path: Path) -> None:
    depot = a_depot(tmp_path)
    for sha256 in (SUM, OTHER):
        with depot.upload(sha256, size=100) as upload:
            upload.write(b"x")
    at = time.time() - 7200
    os.utime(tmp_path / "uploads" / f"{OTHER}.part", (at, at))
    depot.sweep(unused_s=3600, is_needed=lambda some: set())
    assert (depot.uploaded(SUM), depot.uploaded(OTHER)) == (1, 0)
