"""F-26: clocks are set, forward and back, while work goes on: no lease ends early, none outlives its time."""

from __future__ import annotations

import ast
import asyncio
import contextlib
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
import redis

from lcq.client import Client
from lcq.clock import ClockWatch
from lcq.config import DistributedConfig
from lcq.embedded import find_server
from lcq.models import TaskStatus
from lcq.state.manager import StateManager
from tests.audit import audit
from tests.cluster import Cluster, drill, free_port, running_cluster
from tests.conftest import wait_until_sync
from tests.faketime import SetClock
from tests.nodes import LIGHT, Node, a_task
from tests.vram_ledger import VramLedger

ROOT = Path(__file__).parents[2]
HOUR_MS, DAY_MS = 3_600_000, 86_400_000
LEASE_S = 3.0
JUMPS = ("-1h", "+1d", "+0", "-1d", "+0", "+1h", "+0")  # an hour is also what a changed daylight saving time does

# ---------------------------------------------------------------- no deadline is kept by a wall clock

WALL_CLOCKS = {"time.time", "time.time_ns", "datetime.now", "datetime.utcnow", "datetime.today", "date.today"}
ALLOWED = {
    "lcq/ids.py": "an id begins with the time of its making, so that lists are in order; nothing expires by it",
    "lcq/cli/output.py": "how long ago something was, for people",
    "lcq/cli/acts.py": "how old the acts are that a filter wants, as people mean it",
    "lcq/cli/submit.py": "what moment of today is meant, and how long until then, as people say it",
    "lcq/cli/deadline.py": "the same",
    "tui/submitting.py": "the same, in the form",
    "tui/screens/forms.py": "the same",
    "tui/line.py": "the same",
    "lcq/moments.py": "how far off a moment is, for people",
    "lcq/foreseen.py": "by how much a deadline would be missed, for people",
    "tui/text.py": "whether a moment is of today, for people",
    "lcq/cli/schedules.py": "when a schedule is due next, for people",
    "lcq/cli/tasks.py": "how long a task still waits, for people",
    "lcq/cli/events.py": "where to begin in the stream of events, for people",
    "lcq/resumable.py": "when a manifest's entry was written, for people",
    "lcq/discovery.py": "how old a signed announcement is, which another host's clock has dated: minutes are allowed",
    "lcq/scheduler.py": "dates what it announces, for the same",
    "worker/health.py": "since when an agent claims or does not, for people",
    "worker/skew.py": "how far this clock is off from Redis's, for a warning; nothing else goes by it",
    "worker/leftovers.py": "the age of a file, which its time of change tells by this clock; a wrong one only delays",
    "worker/task_logs.py": "when a line was written, for people; the age of a file, which a wrong one only delays",
    "worker/function.py": "how long an instance took to start: its process was dated by this clock",
    "worker/engines/endpoints.py": "how far off the date of a Retry-After is: HTTP has no other clock",
    "lcq/alerts/keeper.py": "when a notice was written, for people",
    "lcq/alerts/telling.py": "dates what it signs, as receivers of such want it",
    "lcq/keyring.py": "whether a token is over, to say so before anybody is asked",
    **dict.fromkeys(
        (
            "lcq/client/submitting.py",
            "lcq/commit_trace.py",
            "lcq/nodes.py",
            "lcq/state/moves/attempts.py",
            "lcq/tracing.py",
            "worker/agent.py",
            "worker/attempt_trace.py",
            "worker/slot.py",
            "worker/runner.py",
        ),
        "when a span of a trace began or ended, as OpenTelemetry dates them; nothing else goes by it",
    ),
    "lcq/backup.py": "when a backup was taken, for people",
    "lcq/doctor/cluster.py": "how far the clocks are apart: it is what is measured",
    "lcq/state/checkup.py": "the same, of Redis's",
    "worker/weights.py": "when weights were added, for people",
    "lcq/http/serving.py": "the Date of an answer, as HTTP wants it",
    "lcq/storage/depot.py": "the age of a blob that no task names: a wrong one delays, or costs an upload",
    "lcq/storage/folder.py": "the same, and of what a broken write has left",
    "lcq/storage/http.py": "the same, of what was fetched or carried just now",
    "lcq/storage/objects.py": "the same, by the store's clock where it tells; and how old what is kept of a URL is",
    "lcq/storage/uploads.py": "the age of an upload that nobody goes on with",
    "tui/source.py": "the skew between this host and Redis, for the clock in the corner",
    "tui/record.py": "the name of a recording, for people",
}


def test_no_deadline_of_the_product_is_kept_by_a_wall_clock():
    found = {}
    last_words = {clock.rpartition(".")[2] for clock in WALL_CLOCKS}
    for path in [*ROOT.glob("lcq/**/*.py"), *ROOT.glob("worker/**/*.py"), *ROOT.glob("tui/**/*.py")]:
        tree = ast.parse(path.read_text(encoding="utf-8"))
        nodes = list(ast.walk(tree))
        could_be = [node for node in nodes if isinstance(node, ast.Attribute) and node.attr in last_words]
        asked = {ast.unparse(node) for node in could_be} & WALL_CLOCKS
        imported = [node for node in nodes if isinstance(node, ast.ImportFrom) and node.module == "time"]
        assert not imported, f"{path}: import time as a whole, so that this test can see which clock is asked"
        if asked:
            found[str(path.relative_to(ROOT))] = asked
    assert set(found) == set(ALLOWED), "a deadline is kept by Redis's TIME or lcq.clock.steady_now()"


# ---------------------------------------------------------------- how a clock that was set is noticed


@pytest.mark.parametrize("jump_ms", [HOUR_MS, -HOUR_MS, DAY_MS, -DAY_MS, 1000, -1000])
def test_a_clock_that_was_set_is_noticed_once_and_by_how_much(jump_ms: int):
    watch = ClockWatch()
    assert watch.note(1_000_000, asked_at=10.0, told_at=10.01) == 0
    assert watch.note(1_000_250, asked_at=10.25, told_at=10.26) == 0
    assert abs(watch.note(1_000_500 + jump_ms, asked_at=10.5, told_at=10.51) - jump_ms) <= 20
    assert watch.note(1_000_750 + jump_ms, asked_at=10.75, told_at=10.76) == 0


@pytest.mark.parametrize("late_s", [0.0, 5.0, 600.0])
def test_an_answer_that_took_long_or_a_pause_of_ones_own_is_no_clock_that_was_set(late_s: float):
    watch = ClockWatch()
    watch.note(1_000_000, asked_at=10.0, told_at=10.01)
    assert watch.note(1_000_250, asked_at=10.25, told_at=10.25 + late_s) == 0  # answered at once, told late
    told_at = 10.25 + late_s
    assert watch.note(1_000_250 + round(late_s * 2000), asked_at=told_at, told_at=told_at + late_s) == 0  # or late


def written_before_the_clock_was_set(eye: redis.Redis, by_ms: int, task_id: str, node_id: str) -> None:
    """Make it so that what is known of a task and its node was written by the clock as it was before."""
    for name, member in (("leases", task_id), (f"held:{node_id}", task_id), ("nodes", node_id)):
        eye.zincrby(f"{{lcq}}:{name}", -by_ms, member)
    eye.hincrby(f"{{lcq}}:task:{task_id}", "deadline_ms", -by_ms)
    eye.hincrby(f"{{lcq}}:node:{node_id}", "seen_ms", -by_ms)


@pytest.mark.parametrize("by_ms", [HOUR_MS, -HOUR_MS, DAY_MS, -DAY_MS, 10_000, -10_000])
async def test_deadlines_move_along_with_the_clock_once_but_for_those_of_whoever_was_heard_since(
    redis_url: str, by_ms: int
):
    async with StateManager(DistributedConfig(), url=redis_url) as state:
        eye = redis.Redis.from_url(redis_url, decode_responses=True)
        silent, heard = Node(state), Node(state, "node-2")
        told = {}
        for node in (silent, heard):
            await node.hello()
            task = a_task(max_retries=3)
            await state.submit_task(task, queue=LIGHT)
            assert await node.claim_ids() == [task.id]
            told[node.id] = task.id
        leases, seen = (
            eye.zrange("{lcq}:leases", 0, -1, withscores=True),
            eye.zrange("{lcq}:nodes", 0, -1, withscores=True),
        )
        written_before_the_clock_was_set(eye, by_ms, told[silent.id], silent.id)
        is_small = abs(by_ms) < 60_000
        if is_small:  # then nobody can tell: both are taken for what was written before
            written_before_the_clock_was_set(eye, by_ms, told[heard.id], heard.id)
        _, shifts = await state.clock()
        assert await state.shift_deadlines(by_ms, shifts=shifts) == (2 if is_small else 1)
        assert await state.shift_deadlines(by_ms, shifts=shifts) is None, "two schedulers, one shift"
        assert eye.zrange("{lcq}:leases", 0, -1, withscores=True) == leases
        assert eye.zrange("{lcq}:nodes", 0, -1, withscores=True) == seen
        now_ms, _ = await state.clock()
        assert await state.expire_leases(judged_ms=now_ms) == ()
        audit(eye)
        eye.close()


async def test_no_lease_is_judged_by_a_later_time_than_its_judge_has_lived_through(redis_url: str):
    async with StateManager(DistributedConfig(), url=redis_url) as state:
        node = Node(state)
        await node.hello()
        await state.submit_task(a_task(max_retries=3), queue=LIGHT)
        await node.claim(lease_ms=1)
        await asyncio.sleep(0.01)
        now_ms, _ = await state.clock()
        assert await state.expire_leases(judged_ms=now_ms - HOUR_MS) == ()
        assert len(await state.expire_leases()) == 1


# ---------------------------------------------------------------- real clocks, set for real


@contextlib.contextmanager
def a_server(folder: Path, clock: SetClock | None) -> Iterator[str]:
    port = free_port()
    folder.mkdir()
    process = subprocess.Popen(
        [find_server(), "--port", str(port), "--dir", str(folder), "--appendonly", "yes", "--save", ""],
        env=os.environ | dict(clock.environment if clock else {}),
        stdout=subprocess.DEVNULL,
    )
    url = f"redis://127.0.0.1:{port}/0"
    try:
        with redis.Redis.from_url(url) as eye:
            wait_until_sync(lambda: _answers(eye), what="the server", timeout=60)
        yield url
    finally:
        process.kill()
        process.wait()


def _answers(eye: redis.Redis) -> bool:
    with contextlib.suppress(redis.RedisError):
        return bool(eye.ping())
    return False


def work_through(client: Client, clock: SetClock, who: str) -> None:
    """A task that is longer than its lease, all the while the clock is set to and fro."""
    for jump, offset_s in (("-1d", -86_400), ("+0", 0)):  # does it obey at all?
        clock.set(jump)
        ask = [sys.executable, "-c", "import time; print(time.time())"]
        told = subprocess.run(ask, env=os.environ | dict(clock.environment), capture_output=True, check=True)
        assert abs(float(told.stdout) - time.time() - offset_s) < 60
    task = drill("ledger", ending="work", seconds=len(JUMPS) * 1.2)
    client.submit_many([task])
    wait_until_sync(lambda: client.get(task.id).status == TaskStatus.PROCESSING, timeout=60)
    for jump in JUMPS:
        clock.set(jump)
        until = time.monotonic() + 1.2
        while time.monotonic() < until:  # it must stay so: there is no condition to wait for
            record = client.get(task.id)
            assert (record.attempt, record.node) == (1, "node-1"), (jump, record)
            time.sleep(0.05)
    (record,) = client.wait([task.id], timeout_s=60)
    assert (record.status, record.attempt) == (TaskStatus.COMPLETED, 1)
    print(f"\nF-26: {who}'s clock set by {', '.join(JUMPS)} during one attempt of {len(JUMPS) * 1.2:.1f} s: kept")


def lease_after(cluster: Cluster, client: Client, clock: SetClock, jump: str) -> float:
    """How long the lease of a node outlives its silence, where the clock is set right after that began."""
    task = drill("ledger", ending="work", seconds=1.0, failures=9)
    client.submit_many([task])
    wait_until_sync(lambda: client.get(task.id).node == "node-1", timeout=60)
    cluster.kill("node-1", signal.SIGSTOP)
    began = time.monotonic()
    clock.set(jump)
    wait_until_sync(lambda: client.get(task.id).node != "node-1", timeout=60, what="the end of the lease")
    took = time.monotonic() - began
    cluster.kill("node-1", signal.SIGCONT)
    return took


@pytest.mark.chaos
def test_the_clock_of_redis_is_set_and_no_lease_ends_early_or_late(tmp_path: Path):
    clock = SetClock(tmp_path)
    settings = {"LCQ_LEASES__LEASE_S": str(LEASE_S), **VramLedger(tmp_path).environment}
    with (
        a_server(tmp_path / "redis", clock) as url,
        running_cluster(url, tmp_path / "c", **settings) as cluster,
    ):
        cluster.start_scheduler()
        cluster.start_agent("node-1", slots=1)
        with cluster.client() as client:
            work_through(client, clock, "Redis")
            for jump in ("-1h", "+0", "-1d"):
                took = lease_after(cluster, client, clock, jump)
                print(
                    f"\nF-26: Redis's clock set to {jump} as a host fell silent: lease of {LEASE_S} s took {took:.2f} s"
                )
                assert LEASE_S / 2 < took < 3 * LEASE_S
                wait_until_sync(lambda: client.nodes()[0].status == "online", what="the node back", timeout=60)
        assert "clock was set by" in cluster.log_path("scheduler").read_text()


@pytest.mark.chaos
@pytest.mark.parametrize("who", ["scheduler", "agent"])
def test_the_clock_of_a_scheduler_or_an_agent_is_set_and_nothing_comes_of_it(redis_url: str, tmp_path: Path, who: str):
    clock = SetClock(tmp_path)
    settings = {"LCQ_LEASES__LEASE_S": str(LEASE_S), **VramLedger(tmp_path).environment}
    with running_cluster(redis_url, tmp_path / "c", **settings) as cluster:
        plain, set_to = dict(cluster.environment), {**cluster.environment, **clock.environment}
        cluster.environment = set_to if who == "scheduler" else plain
        cluster.start_scheduler()
        cluster.environment = set_to if who == "agent" else plain
        cluster.start_agent("node-1", slots=1)
        with cluster.client() as client:
            work_through(client, clock, f"the {who}")
            if who == "agent":
                for jump, told in (("-1h", "s behind the cluster's"), ("+0", "")):
                    clock.set(jump)
                    wait_until_sync(
                        lambda told=told: (
                            told in str(client.nodes()[0].telemetry.get("clock_warning", ""))
                            and bool(told) == ("clock_warning" in client.nodes()[0].telemetry)
                        ),
                        what=f"a warning that has {told!r}",
                    )
                    assert client.nodes()[0].status == "online"
            took = lease_after(cluster, client, clock, "-1h")
            print(f"\nF-26: the {who}'s clock set by -1h as a host fell silent: lease of {LEASE_S} s took {took:.2f} s")
            assert LEASE_S / 2 < took < 3 * LEASE_S
