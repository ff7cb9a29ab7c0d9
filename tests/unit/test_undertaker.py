"""A pytest that is killed leaves nothing behind that its tests had started."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests import undertaker
from tests.conftest import wait_until_sync
from tests.processes import processes_about

ROOT = Path(__file__).parents[2]
_PATIENCE_S = 120.0
pytestmark = pytest.mark.skipif(not Path("/proc/self/environ").exists(), reason="it looks into /proc")


@contextmanager
def an_undertaker(folder: Path) -> Iterator[subprocess.Popen[bytes]]:
    command = [sys.executable, "-I", "-S", undertaker.__file__, str(folder)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, start_new_session=True) as process:
        yield process


@contextmanager
def sleeping(*command: str, **given: object) -> Iterator[subprocess.Popen[bytes]]:
    process = subprocess.Popen([*command], start_new_session=True, **given)  # type: ignore[call-overload]
    try:
        yield process
    finally:
        process.kill()
        process.wait()


def test_what_a_killed_run_had_started_ends_and_who_only_looks_into_its_folder_stays(tmp_path: Path) -> None:
    run, beside = tmp_path / "run", tmp_path / "run-2"
    run.mkdir()
    nap = [sys.executable, "-I", "-S", "-c", "import time; time.sleep(600)"]
    with (
        an_undertaker(run) as ends,
        sleeping("sleep", "600", env={undertaker.MARK: f"{run}/home"}) as marked,
        sleeping(*nap, f"{run}/data") as named,
        sleeping(*nap, cwd=run) as placed,
        sleeping("sleep", "600", cwd=run) as somebodys,
        sleeping(*nap, f"{beside}/data", env={undertaker.MARK: f"{beside}/home"}) as of_another_run,
    ):
        assert ends.stdin is not None
        ends.stdin.close()
        assert ends.wait(_PATIENCE_S) == 0
        assert [one.wait(_PATIENCE_S) for one in (marked, named, placed)] == [-signal.SIGKILL] * 3
        assert (somebodys.poll(), of_another_run.poll()) == (None, None)


def test_a_run_that_ends_in_order_has_nothing_killed(tmp_path: Path) -> None:
    with sleeping("sleep", "600", env={undertaker.MARK: f"{tmp_path}/home"}) as child:
        with an_undertaker(tmp_path) as ends:
            ends.communicate(undertaker.BYE, _PATIENCE_S)
        assert (ends.returncode, child.poll()) == (0, None)


_CLUSTER = """
import time
from tests.cluster import running_cluster
from tests.redis_rig import running_server
from tests.tcp_server import tcp_server

def test_a_cluster_stands(redis_url, tmp_path):
    with running_server(tmp_path / "rig"), tcp_server(tmp_path / "tcp"):
        with running_cluster(redis_url, tmp_path / "c") as forked:
            forked.start_scheduler()
            forked.start_agent(slots=1)
            with running_cluster(redis_url, tmp_path / "d", is_forked=False) as started:
                started.start_scheduler(wait=False)
                (tmp_path / "stands").touch()
                time.sleep(600)
"""


@pytest.mark.chaos
@pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGHUP])
def test_a_pytest_that_is_killed_with_a_cluster_in_it_leaves_nothing_behind(
    tmp_path: Path, how: signal.Signals
) -> None:
    file, run = tmp_path / "test_cluster.py", tmp_path / "run"
    file.write_text(_CLUSTER)
    options = ["-q", "-p", "tests.conftest", "-p", "no:cacheprovider", "--rootdir", str(ROOT), "--basetemp", str(run)]
    command = [sys.executable, "-m", "pytest", *options, str(file)]
    ours = signal.signal(signal.SIGHUP, signal.SIG_DFL)  # under nohup it is ignored, and so it is by whom we start
    with sleeping(*command, cwd=ROOT, env=os.environ | {"PYTHONPATH": str(ROOT)}) as process:
        signal.signal(signal.SIGHUP, ours)
        wait_until_sync(lambda: process.poll() is not None or [*run.glob("*/stands")], timeout=_PATIENCE_S)
        before = processes_about(run)
        assert process.poll() is None
        assert len(before) >= 8, before  # two Redis more than its own and that one's keeper, three of ours, runners
        process.send_signal(how)
        process.wait(_PATIENCE_S)
        wait_until_sync(lambda: not processes_about(run), timeout=_PATIENCE_S, what="an empty house")
