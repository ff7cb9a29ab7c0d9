"""F-25: Redis answers with an error for a while; no process ends, no task is lost, the log says it once."""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Callable
from pathlib import Path

import pytest
import redis

from lcq.client import Client
from lcq.errors import LcqError
from lcq.models import Task, TaskStatus
from tests.audit import audit
from tests.cluster import Cluster, drill, free_port, running_cluster
from tests.conftest import wait_until_sync
from tests.redis_rig import Server, is_rewritten, running_server
from tests.resp_proxy import RespProxy

REPLIES = (
    "LOADING Redis is loading the dataset in memory",
    "READONLY You can't write against a read only replica.",
    "BUSY Redis is busy running a script. You can only call SCRIPT KILL or SHUTDOWN NOSAVE.",
    "OOM command not allowed when used memory > 'maxmemory'.",
    "MASTERDOWN Link with MASTER is down and replica-serve-stale-data is set to 'no'.",
    "NOREPLICAS Not enough good replicas to write.",
    "CLUSTERDOWN The cluster is down",
    "MISCONF Errors writing to the AOF file: No space left on device",
    "TRYAGAIN Multiple keys request during rehashing of slot",
    "NOAUTH Authentication required.",
    "NOPERM User default has no permissions to run the 'evalsha' command",
    "UNBLOCKED force unblock from blocking operation, instance state changed (master -> replica?)",
    "ERR max number of clients reached",
    "SOMETHINGNEW that no version has said yet",
)


def submit_all_the_while(cluster: Cluster, ids: list[str], stop: threading.Event) -> None:
    with cluster.client() as client:
        while not stop.is_set():
            ids.append(submit_until_taken(client, drill("drill-sleep", seconds=0.05)))
            time.sleep(0.1)


def submit_until_taken(client: Client, task: Task) -> str:
    """What a program does that wants its task in: ask again, with the same key."""
    while True:
        try:
            return client.submit(task, key=task.id).id
        except LcqError:
            time.sleep(0.1)


def alarms(cluster: Cluster, name: str) -> list[str]:
    """What one process's log says of Redis; a busy machine makes it say other things too."""
    lines = cluster.log_path(name).read_text().splitlines()
    loud = [line for line in lines if " WARNING " in line or " ERROR " in line]
    return [line for line in loud if "Redis" in line or "events stopped" in line] + [
        line for line in lines if "Traceback" in line
    ]


def refuse_and_recover(server: Server, cluster: Cluster, proxy: RespProxy, replies: tuple[str, ...], seconds: float):
    ids: list[str] = []
    stop = threading.Event()
    submitter = threading.Thread(target=submit_all_the_while, args=(cluster, ids, stop))
    submitter.start()
    try:
        for reply in replies:
            before = {name: len(alarms(cluster, name)) for name in cluster.processes}
            accepted = len(ids)
            wait_until_sync(lambda: len(ids) > accepted + 2, timeout=60, what="tasks are accepted")  # noqa: B023
            proxy.refuse_with = reply
            time.sleep(seconds)
            wait_until_sync(
                lambda: len(alarms(cluster, "scheduler")) > before["scheduler"],  # noqa: B023
                what=f"the scheduler's log to say so: {reply}",
            )
            proxy.refuse_with = ""
            began = time.monotonic()
            accepted = len(ids)
            wait_until_sync(lambda: len(ids) > accepted, timeout=60, what=f"a task is accepted after {reply}")  # noqa: B023
            back_s = time.monotonic() - began
            for name, process in cluster.processes.items():
                assert process.poll() is None, f"{name} ended on {reply}:\n{cluster.logs()}"
            told = {name: alarms(cluster, name)[before[name] :] for name in cluster.processes}
            code = reply.partition(" ")[0]
            print(*told["scheduler"], sep="\n")
            counts = {name: len(lines) for name, lines in told.items()}
            print(f"\n{code} for {seconds:g} s: {proxy.refused[code]} refused, accepting again {back_s:.2f} s after; "
                  f"log lines {counts}")  # fmt: skip
            for name, lines in told.items():
                assert len(lines) <= 6, f"{name} is not silent about {reply}:\n" + "\n".join(lines)
                assert not any("Traceback" in line for line in lines), cluster.logs()
    finally:
        stop.set()
        submitter.join(60)
        proxy.refuse_with = ""
    with cluster.client() as client:
        records = client.wait(ids, timeout_s=60)
    assert {record.status for record in records} == {TaskStatus.COMPLETED}
    print(f"{len(ids)} tasks were accepted, all completed")
    with server.client() as eye:
        audit(eye)


@pytest.fixture
def server(tmp_path: Path):
    with running_server(tmp_path / "redis") as server:
        yield server


def busy(server: Server) -> None:
    """A script that runs too long: everybody else is answered BUSY."""
    server.ask("CONFIG", "SET", "busy-reply-threshold", 100)
    with server.client(patience_s=30) as client:
        ended = threading.Thread(target=lambda: _ignoring(lambda: client.eval("while true do end", 0)))
        ended.start()
        time.sleep(2)
        server.ask("SCRIPT", "KILL")
        ended.join(20)


def read_only(server: Server) -> None:
    """Made a replica of nobody who answers: it keeps its data and takes no write."""
    server.ask("REPLICAOF", "127.0.0.1", free_port())
    time.sleep(2)
    server.ask("REPLICAOF", "NO", "ONE")


def loading(server: Server) -> None:
    """Killed, and slow to read its file."""
    server.kill()
    server.start(wait=False)
    wait_until_sync(lambda: "loading" in said_by(server), what="it is loading")
    wait_until_sync(lambda: said_by(server) == "True", timeout=60, what="it has loaded")


def said_by(server: Server) -> str:
    try:
        return str(server.ask("PING"))
    except (redis.RedisError, OSError) as error:
        return str(error)


def _ignoring(call: Callable[[], object]) -> None:
    with contextlib.suppress(redis.RedisError):
        call()


@pytest.mark.parametrize("trouble", [busy, read_only, loading])
@pytest.mark.chaos
def test_a_server_that_is_really_unwell_ends_no_process_and_loses_no_task(tmp_path: Path, trouble):
    slow = {"key_load_delay": "4000", "loading_process_events_interval_bytes": "1024"}
    with (
        running_server(tmp_path / "redis", **slow) as server,
        running_cluster(server.url, tmp_path / "c") as cluster,
    ):
        with server.client() as eye:
            eye.mset({f"others:{n}": "x" * 200 for n in range(1000)})
            eye.bgrewriteaof()  # a snapshot is read key by key
            wait_until_sync(lambda: is_rewritten(eye), what="the log is rewritten")
        cluster.start_scheduler()
        cluster.start_agent(slots=2)
        with cluster.client() as client:
            ids = [accepted.id for accepted in client.submit_many([drill("drill-sleep", seconds=0.2)]).accepted]
            ids += [accepted.id for accepted in client.submit_many([drill() for _ in range(30)]).accepted]
            trouble(server)
            ids.append(submit_until_taken(client, drill()))
            assert {record.status for record in client.wait(ids, timeout_s=60)} == {TaskStatus.COMPLETED}
        for name, process in cluster.processes.items():
            assert process.poll() is None, f"{name} ended:\n{cluster.logs()}"
            lines = alarms(cluster, name)
            print(*lines, sep="\n")
            assert len(lines) <= 6, lines
        with server.client() as eye:
            eye.delete(*eye.keys("others:*"))
            audit(eye)


def run(server: Server, folder: Path, replies: tuple[str, ...], seconds: float) -> None:
    with RespProxy(server.port) as proxy, running_cluster(f"redis://127.0.0.1:{proxy.port}/0", folder) as cluster:
        cluster.start_scheduler()
        cluster.start_agent(slots=2)
        refuse_and_recover(server, cluster, proxy, replies, seconds)


def test_an_error_reply_for_a_moment_ends_no_process_and_loses_no_task(server: Server, tmp_path: Path):
    run(server, tmp_path / "c", (REPLIES[0], REPLIES[2]), 0.7)


@pytest.mark.chaos
def test_the_usual_error_replies_for_ten_seconds_each_end_no_process_and_lose_no_task(server: Server, tmp_path: Path):
    run(server, tmp_path / "c", REPLIES[:7], 10.0)


@pytest.mark.chaos
def test_rarer_error_replies_end_no_process_and_lose_no_task_either(server: Server, tmp_path: Path):
    run(server, tmp_path / "c", REPLIES[7:], 1.5)
