"""The commands of our pages, run as they stand: one shell for each page and scene, block after block."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path, PurePosixPath

import pytest

from tests.cluster import QUICK, running_cluster
from tests.pages import Block, blocks_of
from tests.site import ROOT, pages

PATIENCE_S = 240


def blocks(scene: str) -> dict[PurePosixPath, list[Block]]:
    """Those that are run in ``scene``, by page."""
    found = {page: [block for block in blocks_of(page) if block.what == scene] for page in sorted(pages())}
    return {page: own for page, own in found.items() if own}


def run(own: list[Block], folder: Path, **environment: str) -> None:
    """Run blocks one after the other, as if typed into a terminal: the first command that fails ends it."""
    around = {name: value for name, value in os.environ.items() if not name.startswith("LCQ_CONFIG")}
    around |= {"PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}", **environment}
    for block in own:
        language = ["bash", "-euo", "pipefail", "-c"] if block.kind != "python" else [sys.executable, "-c"]
        done = subprocess.run(
            [*language, block.code], cwd=folder, env=around, capture_output=True, text=True, check=False,
            timeout=PATIENCE_S, stdin=subprocess.DEVNULL,
        )  # fmt: skip
        assert done.returncode == 0, f"{block}:\n{block.code}\n{done.stdout[-3000:]}\n{done.stderr[-3000:]}"
        assert "Traceback" not in done.stderr, f"{block}: {done.stderr[-3000:]}"


ANYWHERE, IN_A_CLUSTER = blocks("anywhere"), blocks("in a cluster")


def test_some_are_run_in_each_scene() -> None:
    assert PurePosixPath("docs/quickstart.md") in ANYWHERE
    assert {"docs/quickstart.md", "docs/python.md"} <= set(map(str, IN_A_CLUSTER))


QUICK_ONES = frozenset({"http.md", "discovery.md"})


@pytest.mark.parametrize(
    "page",
    [pytest.param(page, marks=() if page.name in QUICK_ONES else pytest.mark.chaos) for page in ANYWHERE],
    ids=str,
)
def test_what_needs_no_cluster_works_in_an_empty_folder(page: PurePosixPath, tmp_path: Path) -> None:
    run(ANYWHERE[page], tmp_path, LCQ_DATA_DIR=str(tmp_path / "data"))


@pytest.mark.chaos
@pytest.mark.parametrize("page", IN_A_CLUSTER, ids=str)
def test_what_needs_a_cluster_works_with_one(
    page: PurePosixPath, redis_url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)  # agents have another folder than who types
    folder = tmp_path / "folder"
    folder.mkdir()
    for name in ("photos", "masks"):
        shutil.copytree(ROOT / "sample-config" / name, folder / "sample-config" / name)
    with running_cluster(redis_url, tmp_path / "c") as cluster:
        cluster.start_scheduler()
        cluster.start_agent()
        own = {
            "LCQ_DATA_DIR": str(cluster.folder), "LCQ_SCHEDULER_HOST": "127.0.0.1", "LCQ_REDIS__URL": redis_url,
            "LCQ_ZEROMQ__CONTROL_PORT": str(cluster.control_port),
        }  # fmt: skip
        run(IN_A_CLUSTER[page], folder, **(QUICK | own))
