"""Hosts that share nothing but a network: a laptop's folder is cleaned by nodes that see none of its files."""

from __future__ import annotations

import hashlib
import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import redis
from PIL import Image

from tests.audit import audit
from tests.chaos.test_lan import PATIENCE_S, Lan, eye, lan, wait_online
from tests.cluster import Cluster, free_port, running_cluster

__all__ = ["eye", "lan"]  # fixtures

TOKEN = "for-tests-only"
HEAD = "10.74.1.1"
PICTURES = 4
HIDING = 'while [ "$1" != -- ]; do mkdir -p "$1"; mount -t tmpfs none "$1"; shift; done; shift; exec "$@"'


def apart(lan: Lan, host: str, hidden: list[Path], *command: str) -> list[str]:
    """``command`` in a host of its own: with its own network, and without the folders of the others."""
    return lan.exec(host, "unshare", "--mount", "sh", "-c", HIDING, "sh", *map(str, hidden), "--", *command)


def a_folder(folder: Path) -> None:
    """Pictures that differ, and one mask for all."""
    folder.mkdir(parents=True)
    for number in range(PICTURES):
        noise = np.random.default_rng(number).integers(0, 256, (300, 400, 3), dtype=np.uint8)
        Image.fromarray(noise).save(folder / f"{number}.png")


def submit(lan: Lan, laptop: Path, others: list[Path], control: int, *more: str) -> subprocess.CompletedProcess[str]:
    lcq = [sys.executable, "-m", "lcq.cli.main", "--scheduler", f"{HEAD}:{control}", "--json", "submit", "photos"]
    return subprocess.run(
        apart(lan, "laptop", others, *lcq, "--mask", "mask.png", "--out", "cleaned", "--model", "cv2-telea", *more),
        env=os.environ | {"LCQ_DATA_DIR": str(laptop / "data"), "LCQ_STORAGE__TOKEN": TOKEN},
        capture_output=True, text=True, timeout=PATIENCE_S * 2, check=False, cwd=laptop,
    )  # fmt: skip


@pytest.mark.chaos
def test_a_laptops_folder_is_uploaded_once_cleaned_elsewhere_and_fetched(
    lan: Lan, redis_url: str, tmp_path: Path, eye: redis.Redis
) -> None:
    lan.network("lan")
    for number, host in enumerate(("head", "node", "laptop"), 1):
        lan.host(host)
        lan.plug(host, "lan", f"10.74.1.{number}/24")
    head, node, laptop = (tmp_path / host for host in ("head", "node", "laptop"))
    for folder in (head, node, laptop):
        folder.mkdir()
    a_folder(laptop / "photos")
    hole = np.zeros((300, 400), np.uint8)
    hole[100:150, 100:180] = 255
    Image.fromarray(hole).save(laptop / "mask.png")
    http = free_port()
    tokens = {"fleet": {"role": "submitter", "sha256": hashlib.sha256(TOKEN.encode()).hexdigest()}}
    around = {
        "LCQ_ZEROMQ__BIND": "0.0.0.0",
        "LCQ_ZEROMQ__TRUSTED_NETWORK": "1",
        "LCQ_SCHEDULER_PORT": str(http),
        "LCQ_HTTP__ENABLED": "1",
        "LCQ_HTTP__BIND": "0.0.0.0",
        "LCQ_HTTP__TOKENS": json.dumps(tokens),
        "LCQ_STORAGE__TOKEN": TOKEN,
    }
    with running_cluster(redis_url, head, **around) as cluster:
        start_apart(cluster, lan, "head", [node, laptop], "lcq.cli.main", "scheduler")
        address = f"{HEAD}:{cluster.control_port}"
        agent = ["worker.cli", "--slots", "1", "--name", "node", "--scheduler", address, "--data-dir", str(node)]
        start_apart(cluster, lan, "node", [head / "storage", laptop], *agent)
        wait_online(cluster, eye, "node")

        first = submit(lan, laptop, [head, node], cluster.control_port, "--wait")
        assert first.returncode == 0, (first.stdout, first.stderr, cluster.logs())
        assert "does not see" in first.stderr
        told = json.loads(first.stdout)
        assert len(told["accepted"]) == PICTURES
        for number in range(PICTURES):
            before = np.asarray(Image.open(laptop / "photos" / f"{number}.png"))
            after = np.asarray(Image.open(laptop / "cleaned" / f"{number}.png"))
            assert (after[hole == 0] == before[hole == 0]).all()
            assert (after[hole > 0] != before[hole > 0]).any()
        kept = [path for path in (head / "storage" / "blobs").rglob("*") if len(path.name) == 64]
        assert len(kept) == 2 * PICTURES + 1  # the mask of all of them once
        assert not any(path.suffix == ".png" for path in node.rglob("*"))

        again = submit(lan, laptop, [head, node], cluster.control_port, "--wait")
        assert again.returncode == 0, again.stderr
        assert json.loads(again.stdout)["accepted"] == []

        # A result that was deleted is done anew; without --wait it is fetched by lcq wait.
        (laptop / "cleaned" / "1.png").unlink()
        (laptop / "photos" / "2.png").write_bytes((laptop / "photos" / "3.png").read_bytes())
        third = submit(lan, laptop, [head, node], cluster.control_port)
        assert third.returncode == 0, third.stderr
        waited = subprocess.run(
            apart(
                lan, "laptop", [head, node], sys.executable, "-m", "lcq.cli.main", "--scheduler", address, "wait",
                "--job", json.loads(third.stdout)["job"],
            ),
            env=os.environ | {"LCQ_DATA_DIR": str(laptop / "data"), "LCQ_STORAGE__TOKEN": TOKEN},
            capture_output=True, text=True, timeout=PATIENCE_S, check=False, cwd=laptop,
        )  # fmt: skip
        assert waited.returncode == 0, (waited.stderr, waited.stdout)
        assert (laptop / "cleaned" / "1.png").exists()
        assert (laptop / "cleaned" / "2.png").read_bytes() == (laptop / "cleaned" / "3.png").read_bytes()
    audit(eye)


def start_apart(cluster: Cluster, lan: Lan, host: str, hidden: list[Path], *module: str) -> None:
    ports = {"LCQ_ZEROMQ__BASE_PORT": "0", "LCQ_ZEROMQ__CONTROL_PORT": str(cluster.control_port)}
    cluster._start(host, apart(lan, host, hidden, sys.executable, "-m", *module), ports)
