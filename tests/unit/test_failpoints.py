"""Failpoints: what arms them, what they do, and that the list of them is the truth."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from lcq import failpoints
from lcq.errors import InvalidConfig, StateUnavailable
from lcq.failpoints import AGENT_POINTS, DRILLS_VARIABLE, POINTS, STATE_POINTS, VARIABLE

ROOT = Path(failpoints.__file__).parents[1]


async def visit(point: str = "agent.spool") -> None:
    await failpoints.reach(point)
    await failpoints.passed(point)


def test_without_drills_they_are_refused(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv(VARIABLE, "agent.lease=kill")
    with pytest.raises(InvalidConfig, match="no cluster for drills"):
        failpoints.arm_from_environment()
    monkeypatch.setenv(DRILLS_VARIABLE, "1")
    with failpoints.armed(""):  # puts back what was armed before
        failpoints.arm_from_environment()


@pytest.mark.parametrize("module", ["lcq.cli.main scheduler", "worker.cli"])
def test_a_process_that_is_told_of_failpoints_and_not_of_drills_does_not_start(module: str, tmp_path: Path):
    environment = {**os.environ, VARIABLE: "agent.lease=kill", "LCQ_DATA_DIR": str(tmp_path)}
    command = [sys.executable, "-m", *module.split()]
    ended = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=60)
    assert ended.returncode != 0
    assert "no cluster for drills" in ended.stderr


@pytest.mark.parametrize("text", ["agent.lunch=kill", "agent.lease=explode", "agent.lease", "agent.lease=kill@x"])
async def test_what_there_is_not_is_refused_by_name(text: str):
    with pytest.raises(InvalidConfig, match=re.escape(text)), failpoints.armed(text):
        pass


async def test_an_error_is_refused_where_nothing_can_fail():
    with pytest.raises(InvalidConfig, match="nothing can fail there"), failpoints.armed("agent.lease=error"):
        pass


async def test_the_nth_time_is_the_nth_time_only():
    with failpoints.armed("agent.spool=error@2"):
        await visit()
        with pytest.raises(OSError, match="failpoint"):
            await visit()
        await visit()
    await visit()


async def test_an_error_after_leaves_the_operation_done_and_comes_as_what_the_place_says():
    done = []
    with failpoints.armed("state.finish_task=error-after"):
        await failpoints.reach("state.finish_task")
        done.append(True)
        with pytest.raises(StateUnavailable):
            await failpoints.passed("state.finish_task", error=lambda point: StateUnavailable("redis://x", point))
    assert done


def test_a_kill_is_a_kill():
    told = {VARIABLE: "agent.lease=kill-after@2", DRILLS_VARIABLE: "1"}
    program = """
import asyncio
from lcq import failpoints

async def go():
    for n in range(3):
        print(n, flush=True)
        await failpoints.passed("agent.lease")

failpoints.arm_from_environment()
asyncio.run(go())
"""
    ended = subprocess.run([sys.executable, "-c", program], env=os.environ | told, capture_output=True, text=True)
    assert (ended.returncode, ended.stdout.split()) == (-9, ["0", "1"])


def test_every_point_of_the_list_stands_in_the_code_and_no_other():
    """Before and after: a point that could only be met on one side would make a drill that never comes."""
    said = "".join(path.read_text() for folder in ("lcq", "worker") for path in (ROOT / folder).rglob("*.py"))
    placed = {side: set(re.findall(rf'failpoints\.{side}\("([\w.]+)"', said)) for side in ("reach", "passed")}
    assert placed["reach"] == placed["passed"] == set(AGENT_POINTS)
    assert 'failpoints.reach(f"state.{name}"' in said
    assert set(POINTS) == set(AGENT_POINTS) | set(STATE_POINTS)
