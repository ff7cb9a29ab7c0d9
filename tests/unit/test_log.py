"""What is written down, and that nobody can forge a line of it."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from pathlib import Path

import pytest

from lcq.log import setup_logging


@pytest.fixture(autouse=True)
def _put_back() -> Iterator[None]:
    root = logging.getLogger()
    handlers, level = list(root.handlers), root.level
    yield
    for handler in root.handlers:
        if handler not in handlers:
            handler.close()
    root.handlers[:] = handlers
    root.setLevel(level)
    logging.captureWarnings(False)
    for name in ("lcq", "worker", "tui"):
        logging.getLogger(name).setLevel(logging.NOTSET)


def test_a_file_name_with_line_breaks_and_escapes_stays_on_its_line(tmp_path: Path) -> None:
    setup_logging("info", file=tmp_path / "log" / "x.log")
    logging.getLogger("lcq.test").info("image %s", "evil\n2026 ERROR forged\x1b[2J")
    (line,) = (tmp_path / "log" / "x.log").read_text().splitlines()
    assert line.endswith(r"INFO    lcq.test: image evil\n2026 ERROR forged\x1b[2J")


def test_ours_is_logged_from_the_level_asked_for_and_others_from_warning(tmp_path: Path) -> None:
    setup_logging("debug", file=tmp_path / "x.log")
    for name in ("lcq.a", "worker.b", "somebody.else"):
        logging.getLogger(name).debug("a detail")
        logging.getLogger(name).warning("a warning")
    told = [line.split(" ", 1)[1] for line in (tmp_path / "x.log").read_text().splitlines()]
    assert told == [
        "DEBUG   lcq.a: a detail",
        "WARNING lcq.a: a warning",
        "DEBUG   worker.b: a detail",
        "WARNING worker.b: a warning",
        "WARNING somebody.else: a warning",
    ]


def test_setting_up_again_leaves_no_line_twice(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    setup_logging("info", file=tmp_path / "x.log")
    setup_logging("info")
    logging.getLogger("lcq.test").info("once")
    assert capsys.readouterr().err.count("once") == 1
    assert (tmp_path / "x.log").read_text() == ""
