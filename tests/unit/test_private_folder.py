"""Folders and files for this user alone, where several make the same one at the same time."""

from __future__ import annotations

import stat
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from threading import Barrier

import pytest

from lcq.embedded_watch import write_private
from lcq.private_folder import make_private


def test_many_that_make_the_same_folder_at_once_all_have_it(tmp_path: Path) -> None:
    together = Barrier(8)

    def make(folder: Path) -> None:
        together.wait()
        make_private(folder)

    with ThreadPoolExecutor(8) as threads:
        for number in range(100):
            folder = tmp_path / f"lcq-{number}" / "redis"
            list(threads.map(make, [folder] * 8))  # raises what one of them raised
            assert stat.S_IMODE(folder.stat().st_mode) == 0o700


def test_many_that_write_the_same_file_at_once_all_do_and_one_of_them_is_there_whole(tmp_path: Path) -> None:
    together, contents = Barrier(8), [bytes([number]) * 10_000 for number in range(8)]

    def write(content: bytes) -> None:
        together.wait()
        write_private(tmp_path / "file", content)

    with ThreadPoolExecutor(8) as threads:
        for _ in range(20):
            list(threads.map(write, contents))
            assert (tmp_path / "file").read_bytes() in contents
    assert [path.name for path in tmp_path.iterdir()] == ["file"]
    assert stat.S_IMODE((tmp_path / "file").stat().st_mode) == 0o600


@pytest.mark.parametrize("below", ["", "redis"])
def test_what_is_a_file_is_never_taken_for_a_folder(tmp_path: Path, below: str) -> None:
    (tmp_path / "data").write_text("not a folder")
    with pytest.raises(NotADirectoryError) as failed:
        make_private(tmp_path / "data" / below)
    assert failed.value.filename == str(tmp_path / "data")
