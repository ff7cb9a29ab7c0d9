"""What is born by fork is what ``python -m`` would have started: arguments, environment, folder, answers, end."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from tests.conftest import wait_until_sync
from tests.forked import Program, run

AGENT = [sys.executable, "-m", "worker.cli"]


def test_it_answers_complains_and_ends_as_one_that_is_started(tmp_path: Path) -> None:
    (tmp_path / "lcq.yaml").write_text("agent: {slots: many}\n")
    environment = os.environ | {"LCQ_AGENT__DRAIN_S": "soon"}
    both = [
        ask([*AGENT, "health"], cwd=tmp_path, env=environment, capture_output=True, text=True, check=False)
        for ask in (run, subprocess.run)
    ]
    assert both[0].returncode == both[1].returncode == 2
    assert both[0].stderr == both[1].stderr
    assert "slots" in both[0].stderr
    assert "DRAIN_S" in both[0].stderr.upper()


def test_it_is_killed_and_waited_for_as_any_process(tmp_path: Path) -> None:
    log = tmp_path / "log"
    options = ["--scheduler", "127.0.0.1:9", "--slots", "1", "--data-dir", str(tmp_path / "data")]
    with log.open("wb") as written, Program([*AGENT, *options], stdout=written, stderr=written) as agent:
        wait_until_sync(lambda: log.read_bytes(), what="its first word")
        assert agent.poll() is None
        with pytest.raises(subprocess.TimeoutExpired):
            agent.wait(0.01)
        assert os.getpgid(agent.pid) == os.getpgid(0)
        agent.kill()
        assert agent.wait(60) == agent.poll() == -signal.SIGKILL


def test_an_environment_that_python_reads_as_it_starts_gets_a_start_of_its_own() -> None:
    environment = os.environ | {"PYTHONVERBOSE": "1"}
    assert "import 'lcq'" in run([*AGENT, "--version"], env=environment, capture_output=True, text=True).stderr
