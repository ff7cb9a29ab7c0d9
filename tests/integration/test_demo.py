"""``lcq demo``: what a new user sees first, with and without a terminal."""

from __future__ import annotations

import os
import pty
import select
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from PIL import Image

from tests.conftest import wait_until_sync
from tests.processes import lcq, processes_about

PHOTOS = Path(__file__).parents[2] / "sample-config" / "photos"
MASKS = PHOTOS.with_name("masks")


def photos() -> list[Path]:
    return sorted(path for path in PHOTOS.iterdir() if path.suffix.lower() in {".jpg", ".jpeg", ".png", ".webp"})


def size_and_pixels(path: Path) -> tuple[tuple[int, int], bytes]:
    with Image.open(path) as image:
        return image.size, image.tobytes()


def assert_nothing_is_left_of(folder: Path) -> None:
    wait_until_sync(lambda: not processes_about(folder), what=f"no process left: {processes_about(folder)}")
    assert not (folder / "demo-out" / ".cluster").exists()


def test_every_photo_has_a_mask_of_its_size_and_name() -> None:
    assert len(photos()) >= 4
    for photo in photos():
        (mask,) = MASKS.glob(f"{photo.stem}.*")
        assert size_and_pixels(mask)[0] == size_and_pixels(photo)[0]


def test_without_a_terminal_it_cleans_every_photo_also_over_its_own_results_and_leaves_nothing_running(
    tmp_path: Path,
) -> None:
    """The second time with settings of a cluster elsewhere, which do not lead it astray."""
    elsewhere = {"LCQ_REDIS__HOST": "nowhere.invalid", "LCQ_SCHEDULER_HOST": "nowhere.invalid"}
    for settings in ({}, elsewhere):
        with lcq("demo", cwd=tmp_path, **settings) as demo:
            answer, talk = demo.communicate(timeout=240)
            assert demo.returncode == 0, talk
        rows = [line.split() for line in answer.splitlines()]
        for photo in photos():
            (row,) = (row for row in rows if row and row[0] == photo.name)
            assert row[1] == "cv2-telea"
            assert float(row[3]) >= 0
            result = tmp_path / row[4]
            assert result.parent == tmp_path / "demo-out"
            (size, pixels), (size_before, pixels_before) = size_and_pixels(result), size_and_pixels(photo)
            assert size == size_before
            assert pixels != pixels_before
        assert "\x1b" not in answer
        assert "Traceback" not in talk
        assert_nothing_is_left_of(tmp_path)


def test_a_folder_that_cannot_be_written_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with lcq("demo", "file/results", cwd=tmp_path) as demo:
        _, talk = demo.communicate(timeout=120)
    assert demo.returncode == 2
    assert "cannot write file/results" in talk
    assert "Traceback" not in talk


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_in_its_middle_ends_it_and_all_its_processes(tmp_path: Path, number: signal.Signals) -> None:
    with lcq("demo", cwd=tmp_path) as demo:
        wait_until_sync(lambda: (tmp_path / "demo-out" / ".cluster" / "cluster.json").exists())
        demo.send_signal(number)
        _, talk = demo.communicate(timeout=120)
        assert demo.returncode == 130, talk
        assert_nothing_is_left_of(tmp_path)


class Terminal:
    """A program on a terminal of its own, and all that it has written there."""

    def __init__(self, *arguments: str, cwd: Path) -> None:
        self._ours, its = pty.openpty()
        self.process = subprocess.Popen(
            [sys.executable, "-m", "lcq.cli.main", *arguments],
            cwd=cwd,
            env={**os.environ, "TERM": "xterm-256color", "COLORTERM": "truecolor", "COLUMNS": "120", "LINES": "40"},
            stdin=its,
            stdout=its,
            stderr=its,
            start_new_session=True,
        )
        os.close(its)
        self.written = ""

    def read_until(self, text: str, timeout: float = 200.0) -> None:
        deadline = time.monotonic() + timeout
        while text not in self.written:
            assert time.monotonic() < deadline, f"waited for {text!r}, read: {self.written[-2000:]}"
            if select.select([self._ours], [], [], 0.1)[0]:
                self._read()

    def _read(self) -> bool:
        try:
            piece = os.read(self._ours, 65536)
        except OSError:  # the other end is closed
            return False
        self.written += piece.decode(errors="replace")
        return bool(piece)

    def press(self, keys: str) -> None:
        os.write(self._ours, keys.encode())

    def wait(self) -> int:
        while self._read():
            pass
        os.close(self._ours)
        return self.process.wait(timeout=120)


def test_on_a_terminal_it_shows_before_and_after_and_opens_the_console(tmp_path: Path) -> None:
    demo = Terminal("demo", cwd=tmp_path)
    demo.read_until("Enter opens it now")
    demo.press("\n")
    demo.read_until("\x1b[?1049h")  # the console takes the screen
    assert "▀" in demo.written
    assert "after" in demo.written
    assert all(photo.name in demo.written for photo in photos())
    demo.read_until("completed")
    demo.press("q")
    demo.read_until("This cluster stops with it")
    demo.press("y")
    assert demo.wait() == 0
    assert_nothing_is_left_of(tmp_path)


def test_on_a_terminal_without_console_it_ends_by_itself(tmp_path: Path) -> None:
    demo = Terminal("demo", "--no-console", cwd=tmp_path)
    assert demo.wait() == 0
    assert "▀" in demo.written
    assert "\x1b[?1049h" not in demo.written
    assert_nothing_is_left_of(tmp_path)
