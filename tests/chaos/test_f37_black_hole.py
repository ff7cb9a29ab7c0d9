"""F-37: a node that fails each task in milliseconds, in a fleet of five, touches few of them and spoils none."""

from __future__ import annotations

from pathlib import Path

import pytest
import redis

from lcq.models import ErrorClass, NodeRecord, NodeStatus, TaskStatus
from tests.audit import audit
from tests.chaos.faulty import MoodyFleet
from tests.cluster import running_cluster
from tests.conftest import wait_until_sync

NAMES = ("node-1", "node-2", "node-3", "node-4", "node-5")
SLOTS = 1


@pytest.mark.parametrize(
    ("error_class", "code", "names", "most", "work"),
    [
        (ErrorClass.BAD_OUTPUT, "stripes", NAMES, 5, (100, 0.1)),
        # A runner that dies takes a while to be replaced: there must be work for as long as it takes to be noticed.
        pytest.param(ErrorClass.CRASH, "die", NAMES[:3], 3, (120, 0.4), marks=pytest.mark.chaos),
        pytest.param(ErrorClass.TRANSIENT, "disk_slow", NAMES[:3], 5, (100, 0.1), marks=pytest.mark.chaos),
    ],
    ids=["bad_output", "crash", "transient"],
)
def test_a_black_hole_is_quarantined_after_few_tasks_probed_and_forgiven(
    redis_url: str,
    tmp_path: Path,
    error_class: ErrorClass,
    code: str,
    names: tuple[str, ...],
    most: int,
    work: tuple[int, float],
) -> None:
    settings = {"LCQ_QUARANTINE__PAUSE_S": "1", "LCQ_QUARANTINE__PROBATION": "2", "LCQ_QUARANTINE__TASKS": str(most)}
    with running_cluster(redis_url, tmp_path / "c", **settings) as cluster:
        cluster.start_scheduler()
        fleet = MoodyFleet(cluster, tmp_path)
        fleet.start(*names, slots=SLOTS)
        fleet.break_("node-3", error_class, code)
        with cluster.client() as client, redis.Redis.from_url(redis_url, decode_responses=True) as eye:

            def hole() -> NodeRecord:
                return next(node for node in client.nodes() if node.id == "node-3")

            tasks = [fleet.task(max_retries=1, config={"seconds": work[1]}) for _ in range(work[0])]
            ids = [accepted.id for accepted in client.submit_many(tasks).accepted]
            wait_until_sync(lambda: hole().status is NodeStatus.QUARANTINED, timeout=60, what="the hole is quarantined")
            assert "where node-" in hole().why
            records = client.wait(ids, timeout_s=90)
            assert {record.status for record in records} == {TaskStatus.COMPLETED}, cluster.logs()
            histories = [client.history(task_id) for task_id in ids]
            touched = [one for one in histories if any(attempt.node == "node-3" for attempt in one.attempts)]
            print(f"\n{error_class}: the hole touched {len(touched)} of {len(ids)} tasks, none failed")
            assert 1 <= len(touched) <= most + SLOTS
            assert all(one.record.retries <= 1 for one in touched)
            acts = [fields for _, fields in eye.xrange("{lcq}:acts")]
            assert [(act["act"], act["actor"], act["on"]) for act in acts if act["act"] == "quarantine"] == [
                ("quarantine", "cluster", "node=node-3")
            ]

            wait_until_sync(lambda: "probe failed" in hole().why, timeout=60, what="a probe that failed")
            assert hole().status is NodeStatus.QUARANTINED
            fleet.mend("node-3")
            wait_until_sync(lambda: hole().status is NodeStatus.ONLINE, timeout=90, what="the node is forgiven")
            wait_until_sync(lambda: "moody" in hole().capability.models, timeout=60, what="its model is offered again")
            more = [accepted.id for accepted in client.submit_many([fleet.task() for _ in range(60)]).accepted]
            assert {one.status for one in client.wait(more, timeout_s=90)} == {TaskStatus.COMPLETED}

            def works_again() -> bool:
                if client.page(status=TaskStatus.QUEUED).total < len(names):  # there is always something to be had
                    client.submit_many([fleet.task(config={"seconds": 0.2}) for _ in range(5)])
                return hole().completed >= 2

            wait_until_sync(works_again, timeout=60, what="the forgiven node works again")
            wait_until_sync(
                lambda: not eye.hexists("{lcq}:node:node-3", "probation"), timeout=60, what="its probation is over"
            )
            moves = [fields["move"] for _, fields in eye.xrange("{lcq}:events") if fields.get("node") == "node-3"]
            assert {"quarantine_node", "probe_node", "settle_probe"} <= set(moves)
            cluster.stop()
            audit(eye)
