"""The two commands of the README: what they need, what they say where it is missing, what they install."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import tomllib
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]

pytestmark = pytest.mark.skipif(shutil.which("make") is None, reason="make is not installed")


@pytest.fixture
def clone(tmp_path: Path) -> Path:
    """What the set-up of a fresh clone reads."""
    for name in ("Makefile", "pyproject.toml", "constraints.txt"):
        shutil.copy(ROOT / name, tmp_path)
    return tmp_path


def make(clone: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    ours = {name: value for name, value in os.environ.items() if not name.startswith("MAKE") and name != "PYTHON"}
    return subprocess.run(["make", "-C", str(clone), *arguments], capture_output=True, text=True, check=False, env=ours)


def a_python(folder: Path, *, version: str, has_venv: bool) -> Path:
    """A stand-in that answers the Makefile's questions as such a Python would."""
    program = folder / "python-stand-in"
    new_enough = tuple(map(int, version.split("."))) >= (3, 11)
    program.write_text(f"""#!/bin/sh
case "$*" in
  --version) echo "Python {version}" ;;
  *sys.exit*) exit {0 if new_enough else 1} ;;
  *ensurepip*) exit {0 if has_venv else 1} ;;
  *print*) echo "{version.rpartition(".")[0]}" ;;
  *) echo "not expected: $*" >&2; exit 9 ;;
esac
""")
    program.chmod(0o755)
    return program


def said_by_us(run: subprocess.CompletedProcess[str]) -> list[str]:
    return [line for line in run.stderr.splitlines() if not line.startswith("make")]


@pytest.mark.parametrize("goal", ["demo", "test", "check"])
def test_an_old_python_is_named_in_one_line_with_the_remedy(clone: Path, goal: str) -> None:
    python = a_python(clone, version="3.9.2", has_venv=True)
    run = make(clone, goal, f"PYTHON={python}")
    assert run.returncode != 0
    (line,) = said_by_us(run)
    assert "needs Python 3.11 or newer, found Python 3.9.2" in line
    assert "apt install python3.11 python3.11-venv" in line


def test_no_python_at_all_is_said_in_one_line_with_the_remedy(clone: Path) -> None:
    (line,) = said_by_us(make(clone, "demo", "PYTHON=/nowhere/python3"))
    assert "found none that runs as /nowhere/python3" in line
    assert "apt install" in line


def test_a_python_without_venv_is_told_with_the_package_of_its_own_version(clone: Path) -> None:
    python = a_python(clone, version="3.12.3", has_venv=False)
    run = make(clone, "demo", f"PYTHON={python}")
    assert run.returncode != 0
    (line,) = said_by_us(run)
    assert "apt install python3.12-venv" in line


def set_up(clone: Path) -> None:
    (clone / ".venv" / "bin").mkdir(parents=True)
    for name in ("bin/python", ".runtime", ".dev"):
        (clone / ".venv" / name).touch()
        now_ns = (clone / ".venv" / name).stat().st_mtime_ns
        for source in ("pyproject.toml", "constraints.txt"):
            os.utime(clone / source, ns=(now_ns - 1_000_000_000, now_ns - 1_000_000_000))


@pytest.mark.parametrize("stamp", [".venv/.runtime", ".venv/.dev"])
def test_setting_up_a_second_time_does_nothing_and_a_new_constraint_does_it_again(clone: Path, stamp: str) -> None:
    set_up(clone)
    assert make(clone, "--question", stamp).returncode == 0
    later_ns = (clone / stamp).stat().st_mtime_ns + 1_000_000_000  # a file system's clock may stand still for a while
    os.utime(clone / "constraints.txt", ns=(later_ns, later_ns))
    assert make(clone, "--question", stamp).returncode == 1


def test_make_help_lists_every_goal(clone: Path) -> None:
    listed = re.findall(r"^make (\w+)", make(clone).stdout, re.MULTILINE)
    assert listed == re.findall(r"^(\w+):.*  ## ", (clone / "Makefile").read_text(), re.MULTILINE)
    assert {"help", "demo", "test", "check", "chaos", "soak", "parity", "clean"} <= set(listed)


def test_continuous_integration_runs_make_test_and_nothing_else() -> None:
    commands = [
        line
        for line in (ROOT / ".ci" / "run").read_text(encoding="utf-8").splitlines()
        if line and not line.startswith(("#", "set ", "cd "))
    ]
    assert commands == ["make test"]


def test_constraints_are_exact_versions_and_hold_every_direct_requirement() -> None:
    lines = (ROOT / "constraints.txt").read_text(encoding="utf-8").splitlines()
    pins = [line for line in lines if not line.startswith("#")]
    assert all(re.fullmatch(r"[A-Za-z0-9._-]+==[0-9][A-Za-z0-9.]*", pin) for pin in pins)
    held = {_normal(pin.partition("==")[0]) for pin in pins}
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    wanted = [
        *project["dependencies"],
        *(one for extra in project["optional-dependencies"].values() for one in extra),
    ]
    names = {_normal(re.split(r"[^A-Za-z0-9._-]", requirement)[0]) for requirement in wanted}
    assert names - {"lcq"} <= held  # the extra dev brings the extra torch: of ourselves
    assert "torch==2.13.0" in pins
    assert "lcq" not in held


def _normal(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower()
