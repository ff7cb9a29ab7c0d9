"""How the manifest beside the results learns what has become of them, and what it must not take for its own."""

from __future__ import annotations

from pathlib import Path

from lcq.ids import new_id
from lcq.manifest import Entry, Manifest, locked
from lcq.models import ErrorClass, Failure, TaskRecord, TaskResult, TaskStatus
from lcq.settling import UNKNOWN, folders_of, settle
from lcq.wire import GetTasks, GetTasksAnswer
from tests.peer import Peer, a_record

IDS = [new_id() for _ in range(5)]
SUM = "a" * 64


def entry(output: str, task: str, **more: object) -> Entry:
    return Entry.model_validate({"output": output, "image": f"/in/{output}", "sha256": "b" * 64, "task": task} | more)


def a_folder(path: Path) -> None:
    path.mkdir()
    Manifest(path).note(entry(f"{number}.png", task, job="mine") for number, task in enumerate(IDS))


def records() -> list[TaskRecord]:
    """The first is done, the second has failed, the third waits, the others nobody knows."""
    result = TaskResult(path="/out/0.png", width=2000, height=1000, bytes=1, mask_fraction=0.1, seconds=2, sha256=SUM)
    failure = Failure(error_class=ErrorClass.BAD_INPUT, code="torn", message="it is torn")
    return [
        a_record(IDS[0], TaskStatus.COMPLETED).model_copy(update={"result": result}),
        a_record(IDS[1], TaskStatus.FAILED).model_copy(update={"failure": failure}),
        a_record(IDS[2]),
    ]


def told(folder: Path) -> list[tuple[str, str]]:
    return [(one.state, one.why) for one in Manifest(folder).entries]


async def test_each_open_result_gets_its_end_and_what_nobody_knows_says_so(tmp_path: Path) -> None:
    folder = tmp_path / "out"
    a_folder(folder)
    async with Peer(get_tasks=lambda ask: GetTasksAnswer(tasks=tuple(records()))).listening() as peer:
        async with peer.client() as client:
            assert await settle(client, [folder, folder, tmp_path / "none"], job="mine") == 4
            ended = [
                ("done", ""),
                ("failed", "torn: it is torn"),
                ("given", ""),
                ("given", UNKNOWN),
                ("given", UNKNOWN),
            ]
            assert told(folder) == ended
            done = Manifest(folder).entries[0]
            assert (done.result_sha256, done.seconds, done.megapixels, done.sha256) == (SUM, 2.0, 2.0, "b" * 64)
            assert await settle(client, [folder]) == 0
            assert await settle(client, [folder], job="another") == 0
        assert [len(ask.ids) for ask in peer.heard_of("get_tasks")] == [5, 4], "what is done is not asked about again"


async def test_a_folder_in_which_a_submit_is_at_work_is_left_to_that(tmp_path: Path) -> None:
    folder = tmp_path / "out"
    a_folder(folder)
    peer = Peer(get_tasks=lambda ask: GetTasksAnswer(tasks=tuple(records())))
    async with peer.listening(), peer.client() as client:
        with locked(folder, lambda: None):
            assert await settle(client, [folder]) == 0
        assert await settle(client, [folder]) == 4


async def test_what_another_submit_has_put_there_while_the_cluster_was_asked_stays(tmp_path: Path) -> None:
    folder = tmp_path / "out"
    a_folder(folder)
    newer = entry("0.png", new_id(), job="mine")

    def meanwhile(ask: GetTasks) -> GetTasksAnswer:
        Manifest(folder).note([newer])
        return GetTasksAnswer(tasks=tuple(records()))

    async with Peer(get_tasks=meanwhile).listening() as peer, peer.client() as client:
        assert await settle(client, [folder]) == 3
    assert newer in Manifest(folder).entries


def test_the_manifest_of_a_result_is_found_above_it(tmp_path: Path) -> None:
    a_folder(tmp_path / "out")
    (tmp_path / "out" / "deep" / "er").mkdir(parents=True)
    one = a_record(IDS[0])
    below = one.model_copy(
        update={"task": one.task.model_copy(update={"output_path": str(tmp_path / "out" / "deep" / "er" / "0.png")})}
    )
    assert folders_of([one, below, below]) == [tmp_path / "out"]
