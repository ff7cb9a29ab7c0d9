"""lcq console --once and --json over a real Redis: every view, the filter's words, where it was cut, who is away."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from typer.testing import CliRunner

from lcq.cli.main import app
from lcq.state.manager import StateManager
from tests.nodes import LIGHT, Node, a_failure, a_task


class Ran:
    """What ``lcq console`` printed."""

    def __init__(self, *arguments: str) -> None:
        result = CliRunner().invoke(app, ["console", *arguments], env={"COLUMNS": None, "NO_COLOR": "1"})
        self.code, self.out, self.talk = result.exit_code, result.stdout, result.stderr


@pytest.fixture
async def tasks(state: StateManager, node: Node, redis_url: str, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Two tasks that wait, and an older one that has failed; the settings lead to them."""
    monkeypatch.setenv("LCQ_REDIS__URL", redis_url)
    failed = await state.submit_task(a_task(image_path="/p/[red]bad\x1b[2J.png", max_retries=0), queue=LIGHT)
    await node.claim()
    await state.fail_task(failed.id, attempt=1, node=node.id, failure=a_failure())
    waiting = [await state.submit_task(a_task(image_path=f"/p/{n}.png"), queue=LIGHT) for n in range(2)]
    return [waiting[1].id, waiting[0].id, failed.id]


def test_tasks_are_printed_without_a_terminal_and_notes_go_beside(tasks: list[str]) -> None:
    ran = Ran("--once", "!failed", "--limit", "1")
    assert ran.code == 0
    head, *rows = ran.out.splitlines()
    assert head.split()[:2] == ["ID", "AGE"]
    assert [row.split()[0] for row in rows] == tasks[:1]
    assert "1 of 3 tasks; cut after the newest" in ran.talk


def test_the_same_words_as_a_document_for_programs(tasks: list[str]) -> None:
    ran = Ran("--json", "needs:attention")
    told = json.loads(ran.out)
    assert (told["view"], told["shown"], told["total"], told["cut"]) == ("tasks", 1, 3, False)
    assert [(row["id"], row["state"], row["image"]) for row in told["rows"]] == [
        (tasks[2], "failed", "/p/[red]bad␛[2J.png")
    ]


@pytest.mark.parametrize(
    ("view", "seen"),
    [("fleet", "Needs you"), ("queues", LIGHT), ("nodes", "node-1"), ("causes", "CAUSE"), ("activity", "WHO")],
)
def test_every_view_is_printed(tasks: list[str], view: str, seen: str) -> None:
    ran = Ran("--once", "--view", view)
    assert (ran.code, seen in ran.out) == (0, True), ran.out + ran.talk
    assert json.loads(Ran("--json", "--view", view).out)["view"] == view


def test_a_saved_view_is_printed_with_its_order_and_its_columns(tasks: list[str]) -> None:
    ran = Ran("--once", "--saved", "runs longest")
    assert ran.out.split()[:3] == ["ID", "TOOK", "PROG"]
    assert [row.split()[0] for row in Ran("--once", "--saved", "waits longest").out.splitlines()[1:]] == tasks[1::-1]


def test_what_cannot_be_meant_is_refused(tasks: list[str]) -> None:
    for arguments, told in (
        (("--once", "stat:failed"), "did you mean 'state'"), (("--once", "--view", "moons"), "no view 'moons'"),
        (("--once", "--saved", "none"), "no saved view"), (("state:failed",), "--once and --json"),
        (("--at", "11:45"), "--at is for --replay"),
    ):  # fmt: skip
        ran = Ran(*arguments)
        assert (ran.code, ran.out) == (2, "")
        assert told in ran.talk


def test_a_cluster_that_cannot_be_reached_is_code_3(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("LCQ_REDIS__URL", f"unix://{tmp_path}/nobody.sock")
    ran = Ran("--once")
    assert (ran.code, ran.out) == (3, "")
    assert "does not answer" in ran.talk
