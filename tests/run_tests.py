"""The suite by kind: ``python tests/run_tests.py --type routing --verbose --coverage``. A thin face over pytest.

It runs pytest with the files and marks of a kind, by this checkout's ``.venv`` if ``make`` has made one, and ends with
pytest's exit code (0: all passed, 1: some failed, 5: nothing was there to run).
"""

from __future__ import annotations

import argparse
import os
import shlex
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parents[1]
QUICK = "not chaos and not soak and not parity and not e2e and not platforms"


@dataclass(frozen=True)
class Kind:
    """Some of the tests: ``places`` are below tests/, with shell patterns; none: all. ``marks`` are as pytest's -m."""

    about: str
    places: tuple[str, ...]
    marks: str = QUICK
    workers: int = 1
    timeout_s: int = 300

    def paths(self) -> list[str]:
        """What there is of its places, below the root of the checkout."""
        found = (path for place in self.places for path in sorted((ROOT / "tests").glob(place)))
        return [str(path.relative_to(ROOT)) for path in found] or ["tests"]


KINDS = {
    "all": Kind("every test but the long ones, as make test", (), workers=4),
    "unit": Kind("no process of LCQ's, no Redis", ("unit",), workers=2),
    "models": Kind(
        "tasks, nodes, queues as values; ids, labels, errors, the wire; weights and what a node offers of them",
        ("unit/test_models.py", "unit/test_ids.py", "unit/test_labels.py", "unit/test_errors.py", "unit/test_wire.py",
         "unit/test_weights.py", "unit/test_offer.py", "integration/test_models_cli.py"),
    ),
    "config": Kind(
        "settings: layers, errors, pages, reload while everything runs",
        ("unit/test_config*.py", "unit/test_settings.py", "integration/test_live_settings.py",
         "chaos/test_f40_reload.py"),
    ),
    "routing": Kind(
        "where a task goes, why it waits, when it is done",
        ("unit/test_routing.py", "unit/test_placement.py", "unit/test_why.py", "unit/test_eta.py", "unit/test_costs.py",
         "unit/test_autoscale.py", "integration/test_placement_live.py", "integration/test_moving.py",
         "integration/test_fit.py", "integration/test_order.py", "integration/test_ladder.py",
         "integration/test_labels.py", "integration/test_why.py"),
    ),
    "state": Kind(
        "the moves, their scripts, and the model that they are held against",
        ("integration/test_moves.py", "integration/test_state_machine.py", "integration/test_reader.py",
         "unit/test_lua_parts.py", "chaos/test_f23_baseline.py"),
    ),
    "integration": Kind("real Redis, sockets, files, processes", ("integration",), workers=4),
    "http": Kind("/v1, the parents' APIs, who may what", ("http_api", "integration/test_http_pictures.py"), workers=2),
    "tui": Kind("the console", ("tui",), workers=2),
    "docs": Kind(
        "the pages: their commands, their links, what is generated",
        ("unit/test_*_page.py", "unit/test_docs_*.py", "unit/test_readmes.py", "integration/test_docs_commands.py"),

    ),
    "chaos": Kind("faults injected for minutes, as make chaos", (), "chaos", workers=3, timeout_s=900),
    "soak": Kind("an hour of storms, as make soak", ("chaos",), "soak"),
    "parity": Kind("beside the real IOPaint and Lama Cleaner, as make parity", ("parity",), "parity", timeout_s=600),
    "e2e": Kind("the parents' web apps in a browser, as make e2e", ("e2e",), "e2e", timeout_s=900),
    "platforms": Kind(
        "functions on RunPod's and Knative's servers, as make platforms", ("platforms",), "platforms", timeout_s=600
    ),
}  # fmt: skip
PREPARED_BY_MAKE = ("parity", "e2e", "platforms")


def python() -> str:
    """The one of this checkout, with all that the tests need; without it the one that this was called with."""
    own = ROOT / ".venv" / "bin" / "python"
    return str(own) if own.exists() else sys.executable


def arguments() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python tests/run_tests.py",
        description="Run the tests of one kind or several. What is not known here goes on to pytest (-k, -x, FILES).",
        epilog="Types:\n" + "\n".join(f"  {name:12} {kind.about}" for name, kind in KINDS.items()),
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    parser.add_argument(
        "--type",
        action="append",
        choices=KINDS,
        metavar="TYPE",
        help="one of these; again for more; default: all",
    )
    parser.add_argument("--verbose", "-v", action="store_true", help="name each test, and tell why some were left out")
    parser.add_argument(
        "--coverage", action="store_true", help="tell which lines of lcq, worker and tui were run; pages in htmlcov/"
    )
    parser.add_argument("--workers", type=int, metavar="N", help="processes that run tests; default: by type")
    parser.add_argument("--dry-run", action="store_true", help="print the commands, and run nothing")
    return parser


def commands(given: argparse.Namespace, more: Sequence[str]) -> list[list[str]]:
    """What is to be run, one after the other; the first is pytest."""
    kinds = [KINDS[name] for name in given.type or ["all"]]
    paths = list(dict.fromkeys(path for kind in kinds for path in kind.paths()))
    marks = list(dict.fromkeys(kind.marks for kind in kinds))
    workers = max(kind.workers for kind in kinds) if given.workers is None else given.workers
    pytest = ["pytest", *paths, "-m", " or ".join(f"({one})" for one in marks) if len(marks) > 1 else marks[0]]
    pytest += ["--timeout", str(max(kind.timeout_s for kind in kinds))]
    if workers > 1:
        pytest += ["-n", str(workers), "--dist", "loadfile", "--no-loadscope-reorder"]
    pytest += ["-v", "-rs"] if given.verbose else []
    pytest += more
    if not given.coverage:
        return [[python(), "-m", *pytest]]
    coverage = [python(), "-m", "coverage"]
    return [
        [*coverage, "run", "-m", *pytest],
        [*coverage, "combine", "--quiet"],
        [*coverage, "report", "--skip-covered", "--skip-empty"],
        [*coverage, "html", "--quiet", "--skip-empty"],
    ]


def main(words: Sequence[str] | None = None) -> int:
    given, more = arguments().parse_known_args(words)
    more = [word for word in more if word != "--"]
    for name in set(given.type or ()) & set(PREPARED_BY_MAKE):
        print(f"{name}: 'make {name}' installs what these tests need; without it they are left out", file=sys.stderr)
    run = commands(given, more)
    if given.dry_run:
        print("\n".join(shlex.join(command) for command in run))
        return 0
    environment = {**os.environ, "PYTHONDONTWRITEBYTECODE": ""}  # hundreds of processes: each would compile all anew
    if given.coverage:
        environment["COVERAGE_RCFILE"] = str(ROOT / "pyproject.toml")
        subprocess.run([*run[1][:3], "erase"], cwd=ROOT, env=environment, check=False)
    code = subprocess.run(run[0], cwd=ROOT, env=environment, check=False).returncode
    for command in run[1:]:
        subprocess.run(command, cwd=ROOT, env=environment, check=False)
    return code


if __name__ == "__main__":
    sys.exit(main())
