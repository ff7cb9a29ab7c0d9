"""F-15: what used up its attempts by crashes is in the dead view, with reason, log and payload, and can be replayed."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from lcq.models import ErrorClass, Task, TaskStatus
from tests.chaos.faulty import MoodyFleet
from tests.cluster import Cluster, running_cluster


def lcq(cluster: Cluster, *arguments: str) -> str:
    """What the command line answers on stdout."""
    command = [sys.executable, "-m", "lcq.cli.main", "--scheduler", f"127.0.0.1:{cluster.control_port}", *arguments]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.mark.chaos
def test_a_task_that_crashed_to_its_end_is_dead_with_all_that_is_known_and_comes_back_to_life(
    redis_url: str, tmp_path: Path
) -> None:
    with running_cluster(redis_url, tmp_path / "c") as cluster:
        cluster.start_scheduler()
        fleet = MoodyFleet(cluster, tmp_path)
        fleet.start("node-1", slots=1)
        fleet.break_("node-1", ErrorClass.CRASH, "die")
        poisonous = fleet.task(job="holiday", metadata={"from": "ann"}, max_retries=9)
        tried_once = [fleet.task(job=job, max_retries=0) for job in ("holiday", "other")]
        with cluster.client() as client:
            ids = [accepted.id for accepted in client.submit_many([poisonous, *tried_once]).accepted]
            records = client.wait(ids, timeout_s=90)
            assert {one.status for one in records} == {TaskStatus.FAILED}

            assert "poison" in lcq(cluster, "dead")
            dead = client.dead()
            assert (dead.total, dead.looked_at) == (3, 3)
            told = {(one.code, one.text, one.count, one.nodes) for one in dead.causes}
            exited = "its runner exited with code <n>"
            assert told == {
                ("runner_died", exited, 2, ("node-1",)),
                ("poison", f"brought down <n> runners, last: {exited}", 1, ("node-1",)),
            }
            assert client.dead(job="other").total == 1
            assert [one.count for one in client.dead(cause="runner_died").causes] == [2]

            (shown,) = json.loads(lcq(cluster, "dead", "show", ids[0], "--json"))
            assert Task.model_validate(shown["payload"]) == poisonous
            assert shown["failure"]["code"] == "poison"
            read = lcq(cluster, "dead", "show", ids[0]).splitlines()
            assert f'  "image_path": "{poisonous.image_path}",' in read
            assert [one["log"] for one in shown["attempts"]] == ["moody: die at (48, 64, 3) [31mred[0m"] * 2

            fleet.mend("node-1")
            assert json.loads(lcq(cluster, "retry", "--failed", "--cause", "poison", "--json"))["done"] == [ids[0]]
            assert client.wait([ids[0]], timeout_s=90)[0].status == TaskStatus.COMPLETED
            assert sorted(json.loads(lcq(cluster, "retry", "--failed", "--json"))["done"]) == sorted(ids[1:])
            assert {one.status for one in client.wait(ids, timeout_s=90)} == {TaskStatus.COMPLETED}
            assert client.dead().causes == ()
