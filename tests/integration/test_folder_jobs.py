"""A folder as one job that can be taken up again: real processes, killed in the middle, and the same command again."""

from __future__ import annotations

import hashlib
import json
import os
import re
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from typer.testing import CliRunner

from lcq.cli.main import app
from lcq.config import DistributedConfig, load
from lcq.manifest import MANIFEST_NAME, Manifest
from lcq.places import note_places, places_of
from tests.cluster import QUICK, Cluster, running_cluster
from tests.conftest import wait_until_sync
from tests.forked import Program
from tests.logs import logging_kept
from tests.redis_rig import running_server

LONG_S = 120.0
IN_THE_MIDDLE = "agent.begin=stop@6"
"""A failpoint (lcq.failpoints): however late somebody comes to kill the agent, it has not done all by then."""


class Shell:
    """A terminal in a folder, from which ``lcq`` finds the cluster."""

    def __init__(self, cluster: Cluster, folder: Path) -> None:
        self.cluster, self.folder = cluster, folder

    def run(self, *arguments: str, code: int | None = 0) -> tuple[str, str]:
        """What it wrote to stdout and stderr, run in this process; its exit code must be ``code``."""
        address = f"127.0.0.1:{self.cluster.control_port}"
        done = CliRunner().invoke(
            app, ["--scheduler", address, "--patience", "60", *arguments], env={"COLUMNS": None}, catch_exceptions=False
        )
        assert code is None or done.exit_code == code, (arguments, done.output, self.cluster.logs())
        assert "Traceback" not in done.stderr
        return done.stdout, done.stderr

    def json(self, *arguments: str, code: int = 0) -> Any:
        return json.loads(self.run("--json", *arguments, code=code)[0])

    def start(self, *arguments: str) -> subprocess.Popen[str]:
        """The same as a process of its own."""
        address = f"127.0.0.1:{self.cluster.control_port}"
        return Program(
            [sys.executable, "-m", "lcq.cli.main", "--scheduler", address, "--patience", "60", *arguments],
            cwd=self.folder,
            env=os.environ | QUICK | {"LCQ_DATA_DIR": str(self.cluster.folder)},
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            text=True,
        )

    @property
    def config(self) -> DistributedConfig:
        """That of this terminal."""
        return load()

    def records(self) -> list[dict[str, Any]]:
        """The tasks of this test: those of images below its folder."""
        found = self.json("tasks", "--limit", "1000")["tasks"]
        return [record for record in found if record["task"]["image_path"].startswith(f"{self.folder}/")]

    def attempts(self) -> int:
        return sum(record["attempt"] for record in self.records())


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    """One for all tests that leave it as it was."""
    folder = tmp_path_factory.mktemp("cluster")
    with running_server(folder / "redis") as server, running_cluster(server.url, folder / "c") as cluster:
        cluster.start_scheduler()
        cluster.start_agent(slots=1)
        yield cluster


@pytest.fixture
def shell(cluster: Cluster, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Shell]:
    monkeypatch.chdir(tmp_path)
    with logging_kept():
        yield Shell(cluster, tmp_path)


@pytest.fixture
def paused(shell: Shell) -> Iterator[None]:
    """Nothing starts until the test resumes the queue."""
    shell.run("pause", "cpu-light")
    yield
    shell.run("resume", "cpu-light", code=None)


def photo(path: Path, seed: int, *, size: tuple[int, int] = (48, 64)) -> None:
    """A picture of its own, and its mask beside it."""
    path.parent.mkdir(parents=True, exist_ok=True)
    height, width = size
    pixels = np.random.default_rng(seed).integers(0, 255, (height // 8, width // 8, 3), dtype=np.uint8)
    Image.fromarray(pixels.repeat(8, axis=0).repeat(8, axis=1)).save(path)
    hole = np.zeros((height, width), np.uint8)
    hole[height // 4 : height * 3 // 4, width // 4 : width * 3 // 4] = 255
    Image.fromarray(hole).save(path.with_name(f"{path.stem}_mask.png"))


def scans(folder: Path, count: int, **more: Any) -> Path:
    for number in range(count):
        photo(folder / f"{number:02}.png", number, **more)
    return folder


def results(folder: Path) -> dict[str, str]:
    """What lies in a folder of results, by SHA-256; hidden files are not results."""
    return {
        str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in folder.rglob("*")
        if path.is_file() and not path.name.startswith(".")
    }


def test_the_same_folder_twice_is_no_work_and_one_changed_input_is_one(shell: Shell) -> None:
    scans(shell.folder / "scans", 4)
    first, _ = shell.run("submit", "scans", "--out", "cleaned", "--wait")
    assert "4 done" in first
    made = results(shell.folder / "cleaned")
    assert len(made) == 4

    again = shell.json("submit", "scans", "--out", "cleaned", "--wait")
    assert (again["accepted"], again["report"]["done"]) == ([], 0)
    assert [(skip["why"], skip["count"]) for skip in again["report"]["skipped"]] == [("done already, unchanged", 4)]
    assert shell.attempts() == 4

    photo(shell.folder / "scans" / "02.png", 77)
    changed, talk = shell.run("submit", "scans", "--out", "cleaned", "--wait")
    assert "1 done, 3 skipped" in changed
    assert "1 done anew: image changed" in talk
    assert shell.attempts() == 5
    now = results(shell.folder / "cleaned")
    assert {name for name in now if now[name] != made[name]} == {"02.png"}

    mask = shell.folder / "scans" / "01_mask.png"
    Image.open(mask).rotate(180).crop((0, 8, 64, 56)).save(mask)
    assert "1 done anew: mask changed" in shell.run("submit", "scans", "--out", "cleaned", "--wait")[1]
    assert shell.attempts() == 6
    parameters = ("submit", "scans", "--out", "cleaned", "--radius", "7", "--wait")
    assert "4 done anew: parameters changed" in shell.run(*parameters)[1]
    assert "4 skipped" in shell.run(*parameters)[0]
    assert shell.attempts() == 10


def test_a_result_that_is_gone_or_was_changed_is_made_again_and_no_other(shell: Shell) -> None:
    scans(shell.folder / "scans", 3)
    shell.run("submit", "scans", "--out", "cleaned", "--wait")
    made = results(shell.folder / "cleaned")
    (shell.folder / "cleaned" / "00.png").unlink()
    (shell.folder / "cleaned" / "01.png").write_bytes(b"something else")
    out, talk = shell.run("submit", "scans", "--out", "cleaned", "--wait")
    assert "2 done, 1 skipped" in out
    assert "1 done anew: result is gone" in talk
    assert "1 done anew: result changed since" in talk
    assert results(shell.folder / "cleaned") == made
    assert shell.attempts() == 5
    assert len(shell.records()) == 3, "the same tasks, put back"


def test_without_its_manifest_a_folder_is_known_by_the_tasks_that_made_it(shell: Shell) -> None:
    scans(shell.folder / "scans", 3)
    shell.run("submit", "scans", "--out", "cleaned", "--wait")
    (shell.folder / "cleaned" / MANIFEST_NAME).unlink()
    out, _ = shell.run("submit", "scans", "--out", "cleaned", "--wait")
    assert "0 done, 3 skipped" in out
    assert shell.attempts() == 3
    (shell.folder / "cleaned" / MANIFEST_NAME).write_text('{"format": 1, "entries": [')
    _, talk = shell.run("submit", "scans", "--out", "cleaned", "--wait")
    assert "is damaged" in talk
    assert (shell.folder / "cleaned" / f"{MANIFEST_NAME}.damaged").is_file()
    assert shell.attempts() == 3


@pytest.mark.usefixtures("paused")
def test_what_an_earlier_submit_has_waiting_is_taken_up_and_not_submitted_twice(shell: Shell) -> None:
    scans(shell.folder / "scans", 3)
    first = shell.json("submit", "scans", "--out", "cleaned")
    again = shell.json("submit", "scans", "--out", "cleaned", "--priority", "high")
    ids = sorted(accepted["id"] for accepted in first["accepted"])
    assert sorted(accepted["id"] for accepted in again["accepted"]) == ids
    assert again["job"] == first["job"]
    photo(shell.folder / "scans" / "01.png", 99)
    third = shell.json("submit", "scans", "--out", "cleaned")
    by_status: dict[str, list[str]] = {}
    for record in shell.records():
        by_status.setdefault(record["status"], []).append(Path(record["task"]["image_path"]).name)
    assert sorted(by_status["queued"]) == ["00.png", "01.png", "02.png"]
    assert by_status["cancelled"] == ["01.png"], "what would have put the old picture's result there"
    assert len({accepted["id"] for accepted in third["accepted"]} & set(ids)) == 2
    shell.run("resume", "cpu-light")
    shell.run("submit", "scans", "--out", "cleaned", "--wait")
    assert sorted(results(shell.folder / "cleaned")) == ["00.png", "01.png", "02.png"]
    assert shell.attempts() == 3


def test_a_failed_input_is_tried_again_and_the_others_are_not(shell: Shell) -> None:
    scans(shell.folder / "scans", 2)
    (shell.folder / "scans" / "torn.png").write_bytes((shell.folder / "scans" / "00.png").read_bytes()[:80])
    Image.new("L", (64, 48), 255).save(shell.folder / "scans" / "torn_mask.png")
    (shell.folder / "scans" / "notes.txt").touch()
    out, _ = shell.run("submit", "scans", "--out", "cleaned", "--job", "holiday", "--wait", code=1)
    assert "job holiday: 2 done, 1 skipped, 1 failed" in out
    assert "skipped 1: not an image suffix (.txt)" in out
    again = shell.json("submit", "scans", "--out", "cleaned", "--wait", code=1)
    assert again["job"] == "holiday", "the name that it had before"
    assert again["report"]["failed"][0]["count"] == 1
    assert shell.attempts() == 4
    assert len(shell.records()) == 3


def test_two_inputs_never_share_a_result_also_not_by_two_submits(shell: Shell) -> None:
    photo(shell.folder / "one" / "a.png", 1)
    photo(shell.folder / "two" / "a.png", 2)
    shell.run("submit", "one", "--out", "cleaned", "--wait")
    made = results(shell.folder / "cleaned")
    _, talk = shell.run("submit", "two", "--out", "cleaned", "--wait")
    assert f"two/a.png: its result is called a-2.png, for a.png is the result of {shell.folder}/one/a.png" in talk
    now = results(shell.folder / "cleaned")
    assert sorted(now) == ["a-2.png", "a.png"]
    assert now["a.png"] == made["a.png"]
    for folder in ("one", "two"):
        assert "0 done, 1 skipped" in shell.run("submit", folder, "--out", "cleaned", "--wait")[0]
    assert shell.attempts() == 2
    (shell.folder / "one").rename(shell.folder / "moved")
    assert "0 done, 1 skipped" in shell.run("submit", "moved", "--out", "cleaned", "--wait")[0]
    assert results(shell.folder / "cleaned") == now


def test_two_at_a_time_submit_a_folder_once(shell: Shell) -> None:
    scans(shell.folder / "scans", 8)
    both = [shell.start("submit", "scans", "--out", "cleaned", "--wait") for _ in range(2)]
    assert [process.wait(LONG_S) for process in both] == [0, 0]
    assert shell.attempts() == 8
    assert len(shell.records()) == 8
    assert "8 skipped" in shell.run("submit", "scans", "--out", "cleaned", "--wait")[0]


def test_the_report_of_a_job_is_there_at_any_later_time(shell: Shell) -> None:
    scans(shell.folder / "scans", 3)
    (shell.folder / "scans" / "torn.png").write_bytes((shell.folder / "scans" / "00.png").read_bytes()[:80])
    Image.new("L", (64, 48), 255).save(shell.folder / "scans" / "torn_mask.png")
    (shell.folder / "scans" / "notes.txt").touch()
    submit = ("submit", "scans", "--out", "cleaned", "--job", "report me", "--wait")
    now = shell.json(*submit, code=1)["report"]
    later = shell.json("job", "report me")
    for name in ("done", "cancelled", "unfinished"):
        assert later[name] == now[name], name
    assert later["seconds"] == pytest.approx(now["seconds"], abs=0.01)
    assert later["megapixels"] == pytest.approx(3 * 48 * 64 / 1e6)
    assert [(skip["why"], skip["count"]) for skip in later["skipped"]] == [("not an image suffix (.txt)", 1)]
    assert [(cause["code"], cause["count"]) for cause in later["failed"]] == [
        (cause["code"], cause["count"]) for cause in now["failed"]
    ]
    told, _ = shell.run("jobs", "report", "report me")
    assert "job report me: 3 done, 1 skipped, 1 failed; " in told
    assert told == shell.run("job", "report me")[0]
    assert "3 done, 1 failed; " in shell.run("job", "cleaned")[0]
    (place,) = places_of(shell.config.data_path, "report me")
    assert place == shell.folder / "cleaned"


def states(folder: Path) -> dict[str, str]:
    """How it stands with each result, as the manifest of its folder has it."""
    return {entry.output: entry.state for entry in Manifest(folder).entries}


@pytest.mark.usefixtures("paused")
def test_what_nobody_waited_for_is_in_the_manifest_as_soon_as_anybody_asks(shell: Shell) -> None:
    cleaned = shell.folder / "cleaned"
    scans(shell.folder / "scans", 3)
    (shell.folder / "scans" / "torn.png").write_bytes((shell.folder / "scans" / "00.png").read_bytes()[:80])
    Image.new("L", (64, 48), 255).save(shell.folder / "scans" / "torn_mask.png")
    (shell.folder / "scans" / "notes.txt").touch()
    name = shell.json("submit", "scans", "--out", "cleaned")["job"]
    assert set(states(cleaned).values()) == {"given"}
    early = shell.json("job", "cleaned")
    assert (early["unfinished"], early["unknown"]) == (4, 0)
    assert "queue cpu-light is paused by" in early["eta"]["why"], "what the manifest cannot know the cluster tells"
    shell.run("resume", "cpu-light")
    wait_until_sync(lambda: not shell.json("jobs", name)["jobs"][0]["left_s"], timeout=LONG_S, what="all have ended")
    assert set(states(cleaned).values()) == {"given"}, "nobody was there to note it"
    report = shell.json("job", name)
    assert (report["done"], report["failed"][0]["count"], report["skipped"][0]["count"]) == (3, 1, 1)
    ends = {"00.png": "done", "01.png": "done", "02.png": "done", "torn.png": "failed"}
    assert states(cleaned) == ends
    of_folder, _ = shell.run("job", "cleaned")
    assert "3 done, 1 failed; " in of_folder
    shell.run("pause", "cpu-light")
    shell.run("retry", "--failed", "--job", name)
    shell.run("job", name)
    assert states(cleaned) == ends | {"torn.png": "given"}, "it was put back"
    shell.run("resume", "cpu-light")
    shell.run("wait", "--job", name, code=1)
    assert states(cleaned) == ends
    again = shell.json("submit", "scans", "--out", "cleaned", "--wait", code=1)
    assert [skip["why"] for skip in again["report"]["skipped"]] == [
        "done already, unchanged",
        "not an image suffix (.txt)",
    ]
    assert sum(record["attempt"] for record in shell.records() if record["status"] == "completed") == 3


def test_a_job_that_the_cluster_has_forgotten_is_told_of_by_the_manifest(shell: Shell) -> None:
    scans(shell.folder / "scans", 2)
    shell.run("submit", "scans", "--out", "cleaned", "--job", "old", "--wait")
    manifest = shell.folder / "cleaned" / MANIFEST_NAME
    manifest.write_text(manifest.read_text().replace('"job":"old"', '"job":"older"'))
    note_places(shell.config.data_path, "older", [shell.folder / "cleaned"])
    out, talk = shell.run("job", "older")
    assert "job older: 2 done; " in out
    assert "the cluster has forgotten this job" in talk
    assert "no job 'oldest'" in shell.run("job", "oldest", code=2)[1]


@pytest.mark.usefixtures("paused")
def test_jobs_tell_when_they_are_likely_to_be_done_or_why_nobody_can_say(shell: Shell) -> None:
    scans(shell.folder / "scans", 3)
    shell.run("submit", "scans", "--out", "cleaned", "--job", "some day")
    assert "waits: queue cpu-light is paused by" in shell.run("job", "some day")[0]
    shell.run("pause", "--job", "some day", "--reason", "lunch")
    assert re.search(r"some day .* 0 +paused by \S+: lunch", shell.run("jobs")[0])
    shell.run("resume", "cpu-light")
    assert "paused by" in shell.run("job", "some day")[0]
    assert shell.attempts() == 0
    shell.run("resume", "--job", "some day")
    shell.run("wait", "--job", "some day")
    (job,) = shell.json("jobs", "some day")["jobs"]
    assert (job["eta"], job["left_s"], job["counts"]) == (None, 0, {"completed": 3})


@pytest.mark.timeout(300)
def test_everything_killed_in_the_middle_and_run_again_is_the_same_set_and_nothing_is_done_twice(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    count = 14
    folder = scans(tmp_path / "scans", count, size=(192, 256))
    submit = ("submit", str(folder), "--out", "cleaned", "--radius", "6", "--wait")
    with (
        logging_kept(),
        running_server(tmp_path / "redis") as server,
        running_cluster(server.url, tmp_path / "c", LCQ_FAILPOINTS=IN_THE_MIDDLE) as cluster,
    ):
        shell = Shell(cluster, tmp_path)
        cluster.start_scheduler()
        cluster.start_agent(slots=1)
        cluster.environment = {}
        client = shell.start(*submit)
        with server.client() as eye:
            wait_until_sync(
                lambda: int(eye.hget("{lcq}:counts", "completed") or 0) >= 3, timeout=LONG_S, what="some are done"
            )
        for process in (client, *cluster.processes.values(), server.process):
            assert process is not None
            process.send_signal(signal.SIGKILL)
            process.wait(LONG_S)
        server.start()
        with server.client() as eye:
            finished = eye.zrange("{lcq}:ix:status:completed", 0, -1)
            before = {task_id: eye.hget(f"{{lcq}}:task:{task_id}", "attempt") for task_id in finished}
        assert 3 <= len(finished) < count
        cluster.start_scheduler()
        cluster.start_agent(slots=1)
        out, _ = shell.run(*submit)
        assert f"{count - len(finished)} done, {len(finished)} skipped" in out
        made = results(tmp_path / "cleaned")
        records = shell.records()
        assert len(records) == count, "no input was submitted twice"
        assert {record["task"]["id"]: str(record["attempt"]) for record in records}.items() >= before.items()
        outcomes = [attempt["outcome"] for record in records for attempt in _history(shell, record)]
        assert outcomes.count("completed") == count
        assert "0 done" in shell.run(*submit)[0]
        shell.run("submit", str(folder), "--out", "undisturbed", "--radius", "6", "--wait")
        assert made == results(tmp_path / "undisturbed"), "byte for byte what an undisturbed run makes"


@pytest.mark.chaos
@pytest.mark.timeout(400)
def test_without_waiting_too_everything_may_be_killed_in_the_middle_and_nothing_is_done_twice(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    count = 14
    folder = scans(tmp_path / "scans", count, size=(192, 256))
    submit = ("submit", str(folder), "--out", "cleaned", "--radius", "6")
    with (
        logging_kept(),
        running_server(tmp_path / "redis") as server,
        running_cluster(server.url, tmp_path / "c", LCQ_FAILPOINTS=IN_THE_MIDDLE) as cluster,
    ):
        shell = Shell(cluster, tmp_path)
        cluster.start_scheduler()
        cluster.start_agent(slots=1)
        cluster.environment = {}
        name = shell.json(*submit)["job"]
        with server.client() as eye:
            wait_until_sync(
                lambda: int(eye.hget("{lcq}:counts", "completed") or 0) >= 3, timeout=LONG_S, what="some are done"
            )
        for process in (*cluster.processes.values(), server.process):
            assert process is not None
            process.send_signal(signal.SIGKILL)
            process.wait(LONG_S)
        server.start()
        cluster.start_scheduler()
        (before,) = shell.json("jobs", name)["jobs"]
        assert 3 <= before["counts"]["completed"] < count
        again = shell.json(*submit)  # with no agent there: what is done is skipped, the rest is taken up
        assert again["job"] == name
        assert len(again["accepted"]) == count - before["counts"]["completed"]
        assert list(states(tmp_path / "cleaned").values()).count("done") == before["counts"]["completed"]
        cluster.start_agent(slots=1)
        shell.run("wait", "--job", name)
        assert set(states(tmp_path / "cleaned").values()) == {"done"}
        assert shell.json(*submit)["accepted"] == []
        records = shell.records()
        assert len(records) == count, "no input was submitted twice"
        outcomes = [attempt["outcome"] for record in records for attempt in _history(shell, record)]
        assert outcomes.count("completed") == count
        made = results(tmp_path / "cleaned")
        shell.run("submit", str(folder), "--out", "undisturbed", "--radius", "6", "--wait")
        assert made == results(tmp_path / "undisturbed"), "byte for byte what an undisturbed run makes"


def _history(shell: Shell, record: dict[str, Any]) -> list[dict[str, Any]]:
    return list(shell.json("task", record["task"]["id"])["attempts"])
