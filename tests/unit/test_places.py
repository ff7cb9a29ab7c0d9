"""Where the results of jobs lie, remembered by several commands at once."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from lcq.places import note_places, places_of


def test_what_several_remember_at_once_is_all_remembered_whatever_its_folder_is_called(tmp_path: Path) -> None:
    folders = [tmp_path / f"out-\udcff{number}" for number in range(40)]
    with ThreadPoolExecutor(8) as threads:
        list(threads.map(lambda folder: note_places(tmp_path / "data", "scans", [folder]), folders))
    assert sorted(places_of(tmp_path / "data", "scans")) == sorted(folders)


def test_a_data_folder_that_cannot_be_written_keeps_nobody_from_anything(tmp_path: Path) -> None:
    (tmp_path / "data").touch()
    note_places(tmp_path / "data", "scans", [tmp_path])
    assert places_of(tmp_path / "data", "scans") == []
