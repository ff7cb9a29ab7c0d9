"""The short way to a console: it understands what the long one does, or leaves it to that."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import typer
from typer.testing import CliRunner

from lcq.cli import commands, front
from lcq.cli.main import app
from lcq.errors import InvalidInput
from lcq.lang import speak

USUAL = [
    "console",
    "--config here.yaml --scheduler a:1,b:2 --context eu --lang zh --log-level debug console",
    "--lang=en console --theme=lcq-light --read-only",
    "console --replay a.lcqrec --at 11:45 --record b.lcqrec",
]
LEFT_ALONE = [
    "", "tasks", "console --help", "--help console", "console console", "console --once", "console --json",
    "--json console", "console state:failed", "console --web", "console --theme", "console --theme=",
    "console --theme --read-only", "console --at 11:45", "--lang xx console", "--log-level loud console",
    "--patience 3 console", "console --bogus", "console --read-only=yes", "submit console",
    "--lang en --lang zh console",
]  # fmt: skip


@pytest.mark.parametrize("line", LEFT_ALONE)
def test_what_is_not_understood_in_full_is_left_to_the_whole_program(line: str) -> None:
    assert front.console_asked_for(line.split()) is None


def test_its_options_are_those_that_the_program_has() -> None:
    program = typer.main.get_command(app)
    console = commands.Commands()["console"]
    for params, valued, flags in ((program.params, front.GLOBAL, {}), (console.params, front.CONSOLE, front.FLAGS)):
        there = {option: param for param in params for option in param.opts}
        assert set(valued) | set(flags) <= set(there)
        assert all(not there[option].is_flag for option in valued)
        assert all(there[option].is_flag for option in flags)


@pytest.fixture(autouse=True)
def _english_afterwards() -> Iterator[None]:
    yield
    speak("en")


class Called:
    """Stands where the console does, and notes how it was called. Settings are those of the named file."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
        monkeypatch.chdir(tmp_path)
        (tmp_path / "here.yaml").write_text("contexts: {eu: {scheduler_host: far}}\n")
        self.calls: list[dict[str, Any]] = []
        self.error: Exception | None = None
        for place in ("lcq.console.find_console", "lcq.cli.serve.find_console"):
            monkeypatch.setattr(place, lambda: self._console)

    def _console(self, config: Any, **given: Any) -> int:
        if self.error is not None:
            raise self.error
        self.calls.append({"config": config} | {name: value for name, value in given.items() if value})
        return 7


@pytest.mark.parametrize("line", USUAL)
def test_both_ways_lead_to_the_same_console(line: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    called = Called(monkeypatch, tmp_path)
    asked = front.console_asked_for(line.split())
    assert asked is not None
    assert front.open_console(asked, line.split()) == 7
    assert CliRunner().invoke(app, line.split()).exit_code == 7
    short, long = called.calls
    assert short == long


def test_an_error_is_told_as_everywhere(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    called = Called(monkeypatch, tmp_path)
    called.error = InvalidInput("there is no terminal", hint="run it in one")
    asked = front.console_asked_for(["console"])
    assert asked is not None
    assert front.open_console(asked, ["console"]) == 2
    assert capsys.readouterr().err.splitlines() == ["error: there is no terminal", "hint: run it in one"]
