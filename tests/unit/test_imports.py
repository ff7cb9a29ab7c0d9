"""The layers, proved by what a fresh interpreter has loaded; and what an install brings."""

from __future__ import annotations

import functools
import json
import pkgutil
import re
import subprocess
import sys
from importlib import metadata
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ROOT = Path(__file__).parents[2]
ENGINES_OWN = {"cv2", "torch"}


def modules_of(package: str, *, without: tuple[str, ...] = ()) -> list[str]:
    """The names of all modules of ``package``, found on the disk, importing none."""
    names = [package]
    names += [info.name for info in pkgutil.walk_packages([str(ROOT / package)], f"{package}.")]
    return [name for name in names if not name.endswith("__main__") and not name.startswith(without)]


@functools.cache
def loaded_after(*modules: str) -> set[str]:
    """What a fresh interpreter has in ``sys.modules`` after it imported ``modules``."""
    script = f"import sys, json\nfor name in {modules!r}: __import__(name)\nprint(json.dumps(sorted(sys.modules)))"
    run = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True, cwd=ROOT)
    return set(json.loads(run.stdout.splitlines()[-1]))


def packages(modules: set[str]) -> set[str]:
    return {name.partition(".")[0] for name in modules}


def test_lcq_loads_neither_worker_nor_console_nor_any_engines_library() -> None:
    loaded = packages(loaded_after(*modules_of("lcq")))
    assert not loaded & ({"worker", "tui", "textual"} | ENGINES_OWN)


def test_lcq_by_itself_loads_nothing_but_the_standard_library() -> None:
    assert packages(loaded_after("lcq")) <= {"lcq"} | set(sys.stdlib_module_names) | packages(loaded_after())


def test_the_pure_modules_load_neither_redis_nor_zmq() -> None:
    loaded = packages(loaded_after("lcq.models", "lcq.errors", "lcq.ids", "lcq.config", "lcq.wire", "lcq.routing"))
    assert not loaded & {"redis", "zmq"}


def test_the_models_load_nothing_else_of_lcq_but_errors_ids_and_labels() -> None:
    ours = {name for name in loaded_after("lcq.models") if name.startswith("lcq")}
    assert ours == {"lcq", "lcq.models", "lcq.errors", "lcq.ids", "lcq.labels"}


def test_a_scheduler_that_nobody_asks_over_http_has_loaded_nothing_that_would_answer() -> None:
    assert not packages(loaded_after("lcq.server")) & {"fastapi", "starlette", "uvicorn", "fsspec"}


def test_an_agent_loads_neither_redis_nor_state_nor_console_nor_any_engines_library() -> None:
    loaded = loaded_after("worker.cli", "worker.agent", "worker.pool")
    assert not packages(loaded) & ({"redis", "tui", "textual"} | ENGINES_OWN)
    assert not any(name.startswith("lcq.state") for name in loaded)


def test_a_runner_starts_without_what_reads_settings_and_without_an_event_loop() -> None:
    loaded = loaded_after("worker.runner")
    assert not packages(loaded) & ({"yaml", "pydantic_settings", "asyncio", "zmq", "typer"} | ENGINES_OWN)
    assert "lcq.config" not in loaded


def test_a_runner_with_all_our_engines_has_loaded_neither_torch_nor_an_event_loop_nor_what_calls_a_server() -> None:
    engines = [entry.value.partition(":")[0] for entry in metadata.entry_points(group="lcq.engines")]
    engines.remove("worker.engines.function")  # made on devices that call functions, and alone there
    assert "worker.engines.iopaint" in engines
    loaded = loaded_after("worker.runner", "worker.engines.registry", *engines)
    assert not packages(loaded) & {"torch", "asyncio", "httpx", "psutil", "safetensors"}
    assert not loaded & {"worker.engines.iopaint_neighbours", "worker.engines.iopaint_request", "worker.archive"}


def test_an_agent_loads_no_words_of_operators_and_no_client() -> None:
    loaded = loaded_after("worker.agent")
    assert "lcq.wire.nodes" in loaded
    assert not loaded & {"lcq.wire.acts", "lcq.wire.questions", "lcq.client.asynchronous"}


def test_the_console_loads_neither_the_worker_nor_what_writes_the_state() -> None:
    loaded = loaded_after(*modules_of("tui"))
    assert not packages(loaded) & ({"worker"} | ENGINES_OWN)
    assert not loaded & {
        "lcq.state.manager",
        "lcq.state.moves",
        "lcq.tasks",
        "lcq.queues",
        "lcq.nodes",
        "lcq.scheduler",
    }


def test_the_command_line_answers_without_loading_a_server() -> None:
    loaded = packages(loaded_after("lcq.cli.program"))
    assert not loaded & ({"redis", "textual", "worker", "tui", "zmq", "pydantic"} | ENGINES_OWN)


def test_what_opens_a_console_loads_no_library_for_command_lines_and_none_for_models() -> None:
    assert not packages(loaded_after("lcq.cli.main")) & {
        "typer",
        "click",
        "rich",
        "pydantic",
        "asyncio",
        "redis",
        "zmq",
    }


@pytest.mark.parametrize("package", ["lcq", "worker", "tui"])
def test_every_package_says_that_it_is_typed(package: str) -> None:
    assert (ROOT / package / "py.typed").exists()


def brought_by(distribution: str) -> set[str]:
    """The names of all that an install of ``distribution`` without extras brings here."""
    found: set[str] = set()
    waiting = [(canonicalize_name(distribution), frozenset[str]())]
    seen = set(waiting)
    while waiting:
        name, extras = waiting.pop()
        found.add(name)
        for line in metadata.requires(name) or []:
            requirement = Requirement(line)
            if requirement.marker and not any(
                requirement.marker.evaluate({"extra": extra}) for extra in extras or {""}
            ):
                continue
            one = (canonicalize_name(requirement.name), frozenset(requirement.extras))
            if one not in seen:
                seen.add(one)
                waiting.append(one)
    return found


def test_an_install_brings_no_torch() -> None:
    brought = brought_by("lcq")
    assert {"pyzmq", "redis", "textual", "opencv-python-headless"} <= brought  # the walk does walk
    assert not {name for name in brought if name.startswith(("torch", "nvidia-cu", "triton"))}


@pytest.mark.parametrize("package", ["lcq", "lcq/state", "worker", "tui"])
def test_the_architecture_page_says_where_every_module_lives(package: str) -> None:
    root = Path(__file__).parents[2]
    page = (root / "docs" / "architecture.md").read_text(encoding="utf-8")
    tree = page[page.index("## Where things live") : page.index("## Redis keys")]
    modules = {path.stem for path in (root / package).glob("*.py")} - {"__init__"}
    assert sorted(module for module in modules if not re.search(rf"\b{module}\b", tree)) == []
