"""tests/run_tests.py: every type leads to tests that there are, and its exit code is pytest's."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from tests.run_tests import KINDS, ROOT, arguments, commands, python


def commands_of(*words: str) -> list[list[str]]:
    return commands(*arguments().parse_known_args(words))


@pytest.mark.parametrize("name", sorted(KINDS))
def test_each_place_of_each_type_is_there(name: str) -> None:
    for place in KINDS[name].places:
        assert any((ROOT / "tests").glob(place)), f"{name}: nothing is at tests/{place}"
    assert all((ROOT / path).exists() for path in KINDS[name].paths())


def test_all_is_what_make_test_runs() -> None:
    (run,) = commands_of("--type", "all")
    (line,) = [line for line in (ROOT / "Makefile").read_text().splitlines() if "-m pytest -n 5" in line]
    assert f'-m "{run[run.index("-m", 3) + 1]}"' in line
    assert "tests" in run


def test_several_types_are_one_run_of_all_their_tests_each_once() -> None:
    (run,) = commands_of("--type", "routing", "--type", "unit", "--type", "chaos", "-k", "eta")
    assert run.count("tests/unit") == 1
    assert "(chaos)" in run[run.index("-m", 3) + 1]
    assert run[-2:] == ["-k", "eta"]


def test_coverage_is_told_after_the_tests_have_run() -> None:
    run = commands_of("--type", "models", "--coverage", "--verbose")
    assert [one[3] for one in run] == ["run", "combine", "report", "html"]
    assert "-v" in run[0]
    assert all(one[:3] == [python(), "-m", "coverage"] for one in run)


def a_run(*words: str) -> subprocess.CompletedProcess[str]:
    program = [sys.executable, str(ROOT / "tests" / "run_tests.py"), *words]
    return subprocess.run(program, capture_output=True, text=True, check=False, timeout=240)


def test_it_runs_them_from_anywhere_and_ends_as_pytest_does(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    done = a_run("--type", "e2e", "--verbose", "-k", "nothing_is_called_so", "--collect-only")
    assert "deselected" in done.stdout, done.stderr
    assert done.returncode == 5
    assert "'make e2e' installs" in done.stderr
    unknown = a_run("--type", "everything")
    assert unknown.returncode == 2
    assert "invalid choice: 'everything'" in unknown.stderr
