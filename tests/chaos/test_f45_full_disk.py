"""F-45: a disk that is full, in the middle of any write, leaves nothing half-done, and nobody loses a task by it."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import textwrap
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from lcq.models import NodeStatus, Task, TaskStatus, TaskType
from lcq.reasons import WhyCode
from tests.cluster import drill, running_cluster
from tests.conftest import wait_until_sync

PHOTO = Path(__file__).parents[2] / "sample-config" / "photos" / "camera.png"
MASK = Path(__file__).parents[2] / "sample-config" / "masks" / "camera.png"

# Runs where no file may grow beyond so many bytes, which ends a write at any byte like a full disk does.
EACH_BYTE = """
    import resource, signal, sys
    from pathlib import Path
    from lcq.images import write_staged
    from lcq.wire import Outcome
    from worker.spool import Spool, Unsettled
    from worker.processes import RunnerRecord, RunnerRecords

    signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    here = Path(sys.argv[1])
    entry = Unsettled(boot_id="b", outcome=Outcome(task_id="0" * 16, attempt=1, handed_back=True))
    spool, records = Spool(here / "spool"), RunnerRecords(here / "runners.json")
    size = len(entry.model_dump_json())
    (here / "spool").mkdir()
    refused = {"result": 0, "spool": 0}
    for room in range(size + 1):
        resource.setrlimit(resource.RLIMIT_FSIZE, (room, resource.RLIM_INFINITY))
        for name, write in (
            ("result", lambda: write_staged(here / "out" / ".r.png.lcq-tmp", b"x" * size)),
            ("spool", lambda: spool.keep(entry)),
        ):
            try:
                write()
            except OSError:
                refused[name] += 1
                assert room < size
                left = [path for path in here.rglob("*") if path.is_file()]
                assert not left, (name, room, left)
        if room < size:
            assert not spool.load()
    assert spool.load() == (entry,)
    print(size, refused)
"""


def test_a_write_that_ends_at_any_byte_leaves_no_file_behind(tmp_path: Path) -> None:
    program = textwrap.dedent(EACH_BYTE)
    ran = subprocess.run([sys.executable, "-c", program, str(tmp_path)], capture_output=True, text=True, check=False)
    assert ran.returncode == 0, ran.stderr
    size, refused = ran.stdout.split(maxsplit=1)
    assert eval(refused) == {"result": int(size), "spool": int(size)}
    print(ran.stdout)


# ---------------------------------------------------------------- real disks that are really full


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Path]:
    """A small disk of its own, 72 MiB."""
    folder = tmp_path / "disk"
    folder.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=72m", "lcq-test", str(folder)]
    if shutil.which("mount") is None or subprocess.run(mount, capture_output=True, check=False).returncode:
        pytest.skip("needs the right to mount a tmpfs (root)")
    yield folder
    subprocess.run(["umount", "-l", str(folder)], check=True)


def fill(disk: Path) -> Path:
    """Take every byte there is left."""
    filler = disk / "filler"
    with filler.open("wb", buffering=0) as file:
        for size in (2**20, 4096, 1):
            try:
                while file.write(b"\0" * size):
                    continue
            except OSError:
                continue
    assert os.statvfs(disk).f_bavail == 0
    return filler


def a_photo(out: Path) -> Task:
    return Task(
        task_type=TaskType.INPAINT, image_path=str(PHOTO), mask_path=str(MASK), output_path=str(out), max_retries=5
    )


@pytest.mark.chaos
def test_a_full_disk_of_results_stops_the_node_not_the_tasks(redis_url: str, tmp_path: Path, disk: Path) -> None:
    with running_cluster(redis_url, tmp_path / "c") as cluster:
        cluster.start_scheduler()
        cluster.start_agent("node-1", slots=2)
        with cluster.client() as client:
            (first,) = client.wait([client.submit(a_photo(disk / "out" / "first.png")).id], timeout_s=60)
            assert first.status == TaskStatus.COMPLETED
            filler = fill(disk)
            began = time.monotonic()
            tasks = [a_photo(disk / "out" / f"{number}.png") for number in range(8)]
            client.submit_many(tasks)
            wait_until_sync(lambda: "full" in str(client.nodes()[0].telemetry.get("not_claiming", "")), timeout=60)
            print(f"\nnode stopped claiming {time.monotonic() - began:.1f} s after the disk was full")
            time.sleep(3)  # for as long as it is full, nothing changes
            names = {path.name for path in (disk / "out").iterdir()}
            assert names == {"first.png"}, names
            records = client.get_many([task.id for task in tasks])
            assert not any(record.status.is_terminal for record in records)
            failures = [record.failure for record in records if record.failure is not None]
            assert {(failure.error_class, failure.code) for failure in failures} <= {("resource", "disk_full")}
            spent = sum(record.retries for record in records)
            filler.unlink()
            began = time.monotonic()
            done = client.wait([task.id for task in tasks], timeout_s=90)
            print(f"{spent} retries spent; all done {time.monotonic() - began:.1f} s after there was room")
            assert {record.status for record in done} == {TaskStatus.COMPLETED}
            assert all(sum(one.outcome == "completed" for one in client.history(r.id).attempts) == 1 for r in done)
            assert len(list((disk / "out").iterdir())) == 9
            wait_until_sync(lambda: "not_claiming" not in client.nodes()[0].telemetry)


@pytest.mark.chaos
def test_an_outcome_that_the_spool_cannot_take_is_delivered_from_memory(
    redis_url: str, tmp_path: Path, disk: Path
) -> None:
    folder = tmp_path / "c"
    folder.mkdir()
    (folder / "agents").symlink_to(disk)  # the agent's home, with its spool and its list of runners
    with running_cluster(redis_url, folder, LCQ_LEASES__LEASE_S="30") as cluster:
        cluster.start_scheduler()
        cluster.start_agent("node-1", slots=2)
        with cluster.client() as client:
            work = [drill("drill-sleep", seconds=3) for _ in range(2)]
            client.submit_many(work)
            wait_until_sync(lambda: client.queues() and sum(n.running for n in client.nodes()) == 2)
            filler = fill(disk)
            cluster.kill("scheduler")
            log = cluster.log_path("node-1")
            wait_until_sync(lambda: "kept in memory only" in log.read_text(), timeout=60)
            assert not list((disk / "node-1" / "spool").glob("*"))
            cluster.start_scheduler()
            done = client.wait([task.id for task in work], timeout_s=60)
            assert {(record.status, record.attempt) for record in done} == {(TaskStatus.COMPLETED, 1)}
            wait_until_sync(lambda: "full" in str(client.nodes()[0].telemetry.get("not_claiming", "")), timeout=60)
            waits = client.submit(drill()).id
            for runner in cluster.runners("node-1"):  # new ones cannot be noted down: they have to work all the same
                runner.kill()
            wait_until_sync(lambda: client.why(waits).code is WhyCode.DISK_FULL, timeout=60)
            time.sleep(3)
            assert client.get(waits).status == TaskStatus.QUEUED
            assert client.nodes()[0].status == NodeStatus.ONLINE
            filler.unlink()
            (record,) = client.wait([waits], timeout_s=60)
            assert record.status == TaskStatus.COMPLETED
        assert cluster.processes["node-1"].poll() is None
