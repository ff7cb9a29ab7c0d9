"""F-29: runners are programs of their own, never forks of a process that has loaded an engine."""

from __future__ import annotations

import ast
from pathlib import Path

import psutil

from lcq.models import TaskStatus
from tests.chaos.runners import warden_of
from tests.cluster import drill, running_cluster

ROOT = Path(__file__).parents[2]
FORKING = {"os.fork", "os.forkpty", "multiprocessing", "concurrent.futures.ProcessPoolExecutor", "pty.fork"}
ENGINES = ("libcuda", "libcudart", "libtorch", "cv2", "_imaging", "libonnxruntime")


def test_the_agents_process_maps_no_engine_and_no_runner_shares_its_memory(redis_url: str, tmp_path: Path):
    with running_cluster(redis_url, tmp_path / "c", is_forked=False) as cluster:
        cluster.start_scheduler()
        agent = cluster.start_agent("node-1", slots=1)
        with cluster.client() as client:
            (record,) = client.wait([client.submit_many([drill()]).accepted[0].id], timeout_s=60)
            assert record.status == TaskStatus.COMPLETED
        (runner,) = cluster.runners("node-1")
        warden = warden_of(runner)
        for pid in (agent.pid, warden.pid):
            mapped = Path(f"/proc/{pid}/maps").read_text()
            assert not [name for name in ENGINES if name in mapped]
        assert "cv2" in Path(f"/proc/{runner.pid}/maps").read_text()  # so this test can see it
        # A fork keeps its parent's command line; a program that was spawned has its own.
        lines = [tuple(psutil.Process(pid).cmdline()) for pid in (agent.pid, warden.pid, runner.pid)]
        assert len(set(lines)) == 3


def test_no_line_of_the_product_forks():
    found = []
    last_words = {name.rpartition(".")[2] for name in FORKING}
    for path in [*ROOT.glob("lcq/**/*.py"), *ROOT.glob("worker/**/*.py"), *ROOT.glob("tui/**/*.py")]:
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            names = []
            if isinstance(node, ast.Attribute) and node.attr in last_words:
                names = [ast.unparse(node)]
            elif isinstance(node, ast.Import):
                names = [alias.name for alias in node.names]
            elif isinstance(node, ast.ImportFrom):
                names = [node.module or "", *(f"{node.module}.{alias.name}" for alias in node.names)]
            found += [f"{path.relative_to(ROOT)}:{node.lineno} {name}" for name in names if name in FORKING]
    assert not found
