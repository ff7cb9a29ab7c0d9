"""The command line does tasks again with something changed; the other side is a socket."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from lcq.background import BackgroundLoop
from lcq.ids import new_id
from lcq.models import TaskPriority, TaskRecord, TaskStatus
from lcq.wire import Accepted, BulkAnswer, FindAnswer, GetTasksAnswer, ListTasksAnswer, SubmitAnswer
from tests.logs import logging_kept
from tests.peer import Peer, a_record, info
from tests.unit.test_cli import Answer

FAILED, DONE = TaskStatus.FAILED, TaskStatus.COMPLETED


@pytest.fixture
def peer() -> Iterator[Peer]:
    with logging_kept():
        held = BackgroundLoop.shared().hold(Peer(info=lambda ask: info("1-0")).listening())
        yield held.value
        held.release()


def lcq(peer: Peer, *arguments: str) -> Answer:
    return Answer("--scheduler", peer.endpoint, *arguments, columns=200)


def hold(peer: Peer, *records: TaskRecord) -> None:
    """A scheduler that has these tasks, and does what it is told."""
    known = {one.id: one for one in records}
    peer.handlers |= {
        "find": lambda ask: FindAnswer(id=next(one for one in known if one.startswith(ask.prefix))),
        "get_tasks": lambda ask: GetTasksAnswer(tasks=tuple(known[one] for one in ask.ids)),
        "list_tasks": lambda ask: ListTasksAnswer(tasks=records, total=len(records), looked_at=9),
        "submit": lambda ask: SubmitAnswer(
            accepted=tuple(Accepted(id=one.id, queue="gpu-low", status=TaskStatus.QUEUED) for one in ask.tasks)
        ),
        **dict.fromkeys(
            ("retry", "reroute", "prioritise"),
            lambda ask: BulkAnswer(done=ask.ids, revisions=tuple(9 for _ in ask.ids)),
        ),
    }


def test_with_another_place_and_priority_the_same_tasks_go_and_it_is_said_how_that_is_taken_back(peer: Peer) -> None:
    one = a_record(new_id(), FAILED)
    hold(peer, one)
    told = lcq(peer, "retry", one.id, "--queue", "gpu-low", "--priority", "high", "--reason", "why")
    assert (told.code, told.out.strip()) == (0, f"put back: {one.id}")
    (moved,), (raised,) = peer.heard_of("reroute"), peer.heard_of("prioritise")
    assert (moved.ids, moved.queue, moved.revisions, moved.reason) == ((one.id,), "gpu-low", (one.revision,), "why")
    assert (raised.priority, raised.revisions) == (TaskPriority.HIGH, (9,))
    assert told.talk.index(f"lcq undo {raised.id}") < told.talk.index(f"lcq undo {moved.id}"), "the last one first"
    assert "priority normal -> high" in told.talk
    assert peer.heard_of("retry") == peer.heard_of("submit") == []


def test_with_another_model_or_setting_new_ones_are_submitted_and_each_keeps_what_is_its_own(peer: Peer) -> None:
    config = {"model": "cv2-ns", "radius": 3, "soft": True}
    one, other = a_record(new_id(), FAILED), a_record(new_id(), FAILED)
    one = one.model_copy(update={"task": one.task.model_copy(update={"config": config})})
    hold(peer, one, other)
    told = lcq(peer, "retry", "--where", "state:failed", "--model", "lama", "--set", "radius=8", "--set", "soft=")
    assert told.code == 0
    (sent,) = peer.heard_of("submit")
    assert [task.metadata["again_of"] for task in sent.tasks] == [one.id, other.id]
    assert [task.model for task in sent.tasks] == ["lama", "lama"]
    assert [(task.config["radius"], "soft" in task.config) for task in sent.tasks] == [(8, False), (8, False)]
    assert told.out.startswith("submitted: ")
    assert "radius as each has it -> 8" in told.talk
    assert peer.heard_of("retry") == []


def test_an_edited_copy_may_have_other_files_and_the_old_one_may_still_run(peer: Peer) -> None:
    one = a_record(new_id(), TaskStatus.PROCESSING)
    hold(peer, one, a_record(new_id(), DONE))
    assert lcq(peer, "edit", one.id, "--mask", "/m/new.png", "--output", "/o/again.png", "--node", "n1").code == 0
    (sent,) = peer.heard_of("submit")
    (task,) = sent.tasks
    assert (task.mask_path, task.output_path, task.image_path) == ("/m/new.png", "/o/again.png", one.task.image_path)
    assert sent.node == "n1"
    lcq(peer, "edit", "--where", "x", "--image", "/a.png").refuses(2, "2 tasks cannot have one --image", "at a time")


def test_a_dry_run_tells_what_would_differ_and_does_nothing(peer: Peer) -> None:
    many = [a_record(new_id(), FAILED) for _ in range(11)]
    hold(peer, *many)
    told = lcq(peer, "retry", "--where", "x", "--model", "lama", "--dry-run")
    assert told.out.strip() == "11 new tasks would be submitted"
    assert "-> lama" in told.talk
    assert (
        lcq(peer, "retry", "--where", "x", "--queue", "gpu-low", "--dry-run").out.strip() == "11 tasks would go again"
    )
    document = lcq(peer, "retry", "--where", "x", "--timeout", "5", "--dry-run", "--json").document
    assert (len(document["would"]), document["new"]) == (11, True)
    lcq(peer, "retry", "--where", "x", "--model", "lama").refuses(2, "11 tasks fit", "--yes")
    assert not any(peer.heard_of(act) for act in ("submit", "retry", "reroute", "prioritise"))


def test_what_cannot_be_meant_is_refused(peer: Peer) -> None:
    one = a_record(new_id(), TaskStatus.QUEUED)
    hold(peer, one)
    lcq(peer, "retry", "--failed", "--model", "lama").refuses(2, "ids or --where", "state:failed job=NAME")
    lcq(peer, "retry", one.id, "--queue", "a", "--node", "b").refuses(2, "either --queue or --node", "--node NAME")
    lcq(peer, "retry", one.id, "--set", "radius").refuses(2, "--set takes KEY=VALUE", "radius=8")
    lcq(peer, "retry", one.id, "--model", "lama").refuses(2, "it has not ended", "lcq edit")
    lcq(peer, "edit", one.id, "--set", "x=[1").refuses(2, "is no value", "radius=8")
