"""The command line against a real cluster: a scheduler and an agent as processes, a real server, real photos."""

from __future__ import annotations

import contextlib
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
from lcq.models import TaskStatus
from tests.cluster import QUICK, Cluster, running_cluster
from tests.conftest import wait_until_sync
from tests.forked import Program
from tests.logs import logging_kept

LONG_S = 90.0


class Shell:
    """A terminal in a folder, from which ``lcq`` finds the cluster."""

    def __init__(self, cluster: Cluster, folder: Path) -> None:
        self.cluster, self.folder = cluster, folder

    @contextlib.contextmanager
    def start(self, *arguments: str) -> Iterator[subprocess.Popen[str]]:
        process = Program(
            [sys.executable, "-m", "lcq.cli.main", "--scheduler", f"127.0.0.1:{self.cluster.control_port}", *arguments],
            cwd=self.folder,
            env=os.environ | QUICK | {"LCQ_DATA_DIR": str(self.cluster.folder)},
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        try:
            yield process
        finally:
            process.kill()
            process.communicate()

    def run(self, *arguments: str, code: int = 0) -> tuple[str, str]:
        """What it wrote to stdout and stderr, run in this process; its exit code must be ``code``."""
        address = f"127.0.0.1:{self.cluster.control_port}"
        done = CliRunner().invoke(
            app, ["--scheduler", address, *arguments], env={"COLUMNS": None}, catch_exceptions=False
        )
        assert done.exit_code == code, (arguments, done.output, self.cluster.logs())
        assert "Traceback" not in done.stderr
        return done.stdout, done.stderr

    def json(self, *arguments: str, code: int = 0) -> Any:
        return json.loads(self.run("--json", *arguments, code=code)[0])


@pytest.fixture
def shell(redis_url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Shell]:
    monkeypatch.chdir(tmp_path)
    with logging_kept(), running_cluster(redis_url, tmp_path / "c") as cluster:
        cluster.start_scheduler()
        yield Shell(cluster, tmp_path)


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    """Three photos with masks of a square in the middle, one of them in a subfolder; and a broken one."""
    folder = tmp_path / "photos"
    (folder / "sub").mkdir(parents=True)
    pixels = np.linspace(0, 255, 48 * 64 * 3).reshape(48, 64, 3).astype(np.uint8)
    hole = np.zeros((48, 64), np.uint8)
    hole[20:28, 28:36] = 255
    for name in ("a.png", "b.jpg", "sub/a.png"):
        Image.fromarray(pixels).save(folder / name)
        Image.fromarray(hole).save((folder / name).with_name(f"{Path(name).stem}_mask.png"))
    (folder / "torn.png").write_bytes((folder / "a.png").read_bytes()[:100])
    Image.fromarray(hole).save(folder / "torn_mask.png")
    return folder


def statuses(shell: Shell, *filters: str) -> list[str]:
    return [task["status"] for task in shell.json("tasks", *filters)["tasks"]]


def test_a_folder_is_cleaned_and_a_torn_image_is_the_only_failure(shell: Shell, photos: Path) -> None:
    shell.cluster.start_agent(slots=1)
    (photos / "readme.txt").write_text("not a photo")
    out, talk = shell.run("submit", "photos", "--job", "holiday", "--out", "clean", "--wait", code=1)
    assert re.search(r"^3 completed, 1 failed in ", out, re.MULTILINE)
    assert "skipped " in talk
    assert "readme.txt: not an image suffix (.txt)" in talk
    failures = [line for line in talk.splitlines() if line.startswith("failed ")]
    assert len(failures) == 1
    assert "torn.png" in failures[0]
    clean = shell.folder / "clean"
    results = sorted(str(path.relative_to(clean)) for path in clean.rglob("[!.]*.*"))
    assert results == ["a.png", "b.jpg", "sub/a.png"]
    before, after = (np.asarray(Image.open(folder / "a.png")) for folder in (photos, shell.folder / "clean"))
    hole = np.asarray(Image.open(photos / "a_mask.png")) > 127
    assert (before[~hole] == after[~hole]).all()
    assert (before[hole] != after[hole]).any()

    (torn,) = shell.json("tasks", "--status", "failed", "--job", "holiday")["tasks"]
    history = shell.json("task", torn["task"]["id"][:14])
    assert [attempt["outcome"] for attempt in history["attempts"]] == ["failed"]
    assert history["record"]["failure"]["error_class"] == "bad_input"
    assert shell.json("tasks", "--cause", torn["failure"]["code"])["total"] == 1
    told, _ = shell.run("task", torn["task"]["id"])
    assert "Attempts" in told
    assert "fail_task" in told
    assert re.search(r"holiday .* 4 +3 +1 +0 +0 +100", shell.run("jobs")[0])
    assert re.search(r"node-1 +online", shell.run("nodes")[0])


def test_an_interrupted_wait_says_that_the_tasks_go_on_and_how_to_wait_again(shell: Shell, photos: Path) -> None:
    (photos / "torn.png").unlink()
    (photos / "torn_mask.png").unlink()
    with shell.start("submit", "photos", "--wait") as process:
        assert process.stderr is not None
        assert process.stderr.readline() == "waiting: no node is online; start one with lcq-agent\n"
        assert statuses(shell) == ["queued"] * 3
        process.send_signal(signal.SIGINT)
        out, talk = process.communicate(timeout=LONG_S)
    assert (process.returncode, out) == (130, "")
    assert "3 tasks go on without you" in talk
    again = re.search(r"wait again: lcq (wait --job \S+)", talk)
    assert again is not None
    shell.cluster.start_agent(slots=1)
    out, _ = shell.run(*again[1].split())
    assert out.startswith("3 completed in ")


def test_waiting_outlives_a_scheduler_that_is_killed_and_started_again(shell: Shell, photos: Path) -> None:
    with shell.start("submit", "photos/a.png", "--wait", "--json") as process:
        wait_until_sync(lambda: statuses(shell) == ["queued"], timeout=LONG_S, what="one task submitted")
        shell.cluster.kill("scheduler")
        shell.cluster.start_scheduler()
        shell.cluster.start_agent(slots=1)
        out, _ = process.communicate(timeout=LONG_S)
    assert process.returncode == 0
    assert [task["status"] for task in json.loads(out)["tasks"]] == ["completed"]


def test_tasks_are_steered_by_what_a_person_types(shell: Shell, photos: Path) -> None:
    accepted = shell.json("submit", "photos", "--job", "j")["accepted"]
    ids = [task["id"] for task in accepted]
    assert shell.json("cancel", ids[0], "--reason", "mistake")["done"] == [ids[0]]
    out, talk = shell.run("cancel", ids[0], code=2)
    assert (out, talk.count("error:")) == ("", 1)
    assert "it is cancelled" in talk
    assert shell.json("retry", ids[0])["done"] == [ids[0]]
    assert shell.json("reroute", ids[1], "--queue", "gpu-high")["done"] == [ids[1]]
    assert shell.json("tasks", "--queue", "gpu-high")["total"] == 1
    assert shell.json("prioritise", "--job", "j", "--priority", "urgent")["done"] == len(ids)
    assert {task["priority"] for task in shell.json("tasks")["tasks"]} == {"urgent"}
    assert shell.json("cancel", "--job", "j")["done"] == len(ids)
    assert statuses(shell) == [TaskStatus.CANCELLED] * len(ids)
    shell.run("wait", "--job", "j", code=1)
    _, talk = shell.run("task", ids[0][:1], code=2)
    assert "type more of the id" in talk
    for wrong in (["task", "0000000"], ["wait", "--job", "nope"], ["submit", "photos", "--queue", "gpu-hgih"]):
        out, talk = shell.run(*wrong, code=2)
        assert out == ""
        assert talk.count("error: ") >= 1
    assert "did you mean 'gpu-high'?" in talk


def test_queues_and_nodes_are_steered_by_their_names(shell: Shell) -> None:
    shell.cluster.start_agent("studio", slots=1)
    shell.run("pause", "cpu-light", "--reason", "lunch")
    assert "lunch" in shell.run("queues")[0]
    shell.run("resume", "cpu-light")
    assert "lunch" not in shell.run("queues")[0]
    shell.run("drain", "studio", "--reason", "new disk")
    assert re.search(r"studio +draining .*new disk", shell.run("nodes")[0])
    shell.run("activate", "studio")
    wait_until_sync(lambda: re.search(r"studio +online", shell.run("nodes")[0]), what="the node online again")
    _, talk = shell.run("pause", "gpu-hgih", code=2)
    assert "did you mean 'gpu-high'?" in talk
    shell.run("drain", "nobody", code=2)


def test_events_are_followed_as_they_happen_until_ctrl_c(shell: Shell, photos: Path) -> None:
    task_id = shell.json("submit", "photos/a.png")["accepted"][0]["id"]
    with shell.start("events", "--since", "1h", "-f", "--json", "--task", task_id) as process:
        assert process.stdout is not None
        first = json.loads(process.stdout.readline())
        assert (first["move"], first["fields"]["id"]) == ("submit_task", task_id)
        shell.run("cancel", task_id)
        assert json.loads(process.stdout.readline())["move"] == "cancel_task"
        process.send_signal(signal.SIGINT)
        out, talk = process.communicate(timeout=LONG_S)
    assert (process.returncode, out, talk) == (130, "", "")


def test_a_reader_that_goes_away_is_no_crash(shell: Shell, photos: Path) -> None:
    shell.run("submit", "photos")
    with shell.start("--json", "events", "-f", "--since", "1h") as process:
        assert process.stdout is not None
        process.stdout.readline()
        process.stdout.close()
        process.stdout = None
        shell.run("pause", "gpu-low")
        shell.run("resume", "gpu-low")
        _, talk = process.communicate(timeout=LONG_S)
    assert "Traceback" not in talk
    assert "Exception" not in talk
