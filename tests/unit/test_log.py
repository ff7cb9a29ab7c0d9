"""What is written down, and that nobody can forge a line of it."""

from __future__ import annotations

import json
import logging
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from lcq.log import about, setup_logging


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


def test_for_machines_a_line_is_one_json_document_with_its_facts_and_its_traceback(tmp_path: Path) -> None:
    setup_logging("info", file=tmp_path / "x.log", form="auto")  # a file is no terminal
    logger = logging.getLogger("lcq.test")
    with about(node="n1", job=""), about(task="06ft", attempt=2):
        try:
            raise OSError("disk\n\x1b[2J")
        except OSError:
            logger.exception("it broke: %s", "redis://me:secret@host/0")
    logger.warning("of one", extra={"task": "06fu", "cause": "oom"})
    first, second = map(json.loads, (tmp_path / "x.log").read_text().splitlines())
    assert list(first) == ["timestamp", "level", "logger", "event", "node", "task", "attempt", "exception"]
    assert first["event"] == "it broke: redis://host/0"
    assert (first["level"], first["node"], first["task"], first["attempt"]) == ("error", "n1", "06ft", 2)
    assert first["exception"].endswith("OSError: disk\n\x1b[2J")
    del second["timestamp"]
    assert second == {"level": "warning", "logger": "lcq.test", "event": "of one", "task": "06fu", "cause": "oom"}


def test_for_people_facts_stand_behind_the_words_and_a_traceback_below_set_in(tmp_path: Path) -> None:
    setup_logging("info", file=tmp_path / "x.log")
    with about(task="06ft", attempt=2):
        try:
            raise OSError("disk\x1b[2J")
        except OSError:
            logging.getLogger("lcq.test").exception("it broke")
    first, *others = (tmp_path / "x.log").read_text().splitlines()
    assert first.endswith("Z ERROR   lcq.test: it broke task=06ft attempt=2")
    assert all(line.startswith("    ") for line in others)
    assert others[-1] == r"    OSError: disk\x1b[2J"


def test_who_says_nothing_has_not_loaded_what_would_write_it_and_who_does_not_rich_either() -> None:
    script = (
        "import logging, sys, lcq.log; lcq.log.setup_logging('warning'); logging.getLogger('lcq').info('no')\n"
        "assert 'structlog' not in sys.modules; logging.getLogger('lcq').warning('yes')\n"
        "assert 'structlog' in sys.modules and 'rich' not in sys.modules; import rich.console"
    )
    said = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert said.stderr.endswith("WARNING lcq: yes\n")
