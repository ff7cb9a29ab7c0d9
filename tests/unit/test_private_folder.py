"""Folders for this user alone, where several make the same one at the same time."""

from __future__ import annotations

import stat
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from threading import Barrier

import pytest

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


@pytest.mark.parametrize("below", ["", "redis"])
def test_what_is_a_file_is_never_taken_for_a_folder(tmp_path: Path, below: str) -> None:
    (tmp_path / "data").write_text("not a folder")
    with pytest.raises(NotADirectoryError) as failed:
        make_private(tmp_path / "data" / below)
    assert failed.value.filename == str(tmp_path / "data")
