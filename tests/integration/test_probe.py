"""lcq-agent probe: what it tells of a host, as a program of its own, with and without GPUs."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from tests.fake_gpu import VERSION_MISMATCH, FakeGpu, FakeGpus, FakeMig
from tests.forked import run

BIG = FakeGpu("GPU-b1g00000-1", name="NVIDIA RTX 4090", total_mib=24564, free_mib=20001, processes={1: 4300})
SMALL = FakeGpu(
    "GPU-5ma11000-2", name="NVIDIA T400", total_mib=2048, free_mib=2000, bus="0000:02:00", ecc=(3, 1, 40, 2)
)
MIG = FakeMig("MIG-0ne00000-3")

Probe = Callable[..., "subprocess.CompletedProcess[str]"]


@pytest.fixture
def gpus(tmp_path: Path) -> FakeGpus:
    return FakeGpus(tmp_path)


@pytest.fixture
def probe(gpus: FakeGpus, tmp_path: Path) -> Probe:
    def probe(*options: str, settings: str = "", **environment: str) -> subprocess.CompletedProcess[str]:
        (tmp_path / "lcq.yaml").write_text(settings)
        command = [sys.executable, "-m", "worker.cli", "--data-dir", str(tmp_path / "data"), *options]
        return run(
            command,
            cwd=tmp_path,
            env=os.environ
            | gpus.environment
            | {"LCQ_CONFIG": str(tmp_path / "lcq.yaml"), "COLUMNS": "300"}
            | environment,
            capture_output=True,
            text=True,
            timeout=120,
            check=False,
        )

    return probe


def told(run: subprocess.CompletedProcess[str]) -> Any:
    assert (run.returncode, run.stderr) == (0, "")
    return json.loads(run.stdout)


def test_probe_tells_a_program_all_that_is_known(gpus: FakeGpus, probe: Probe, tmp_path: Path):
    gpus.set([BIG, SMALL, replace(SMALL, uuid="GPU-5p1it000-3", mig=(MIG,))])
    report = told(probe("probe", "--json", settings="agent: {slots: 1}"))
    assert (report["gpu_driver"], report["cuda"], report["gpu_problem"]) == ("550.54.14", "12.4", "")
    assert [(one["gpu"]["uuid"], one["vitals"]["reading"]["free_mib"]) for one in report["gpus"]] == [
        (BIG.uuid, 20001),
        (SMALL.uuid, 2000),
        (MIG.uuid, 4800),
    ]
    assert {one["device"]["id"]: one["queues"] for one in report["devices"]} == {
        "cpu": [queue for queue in ("cpu-intensive", "cpu-light") if queue in report["devices"][0]["queues"]],
        BIG.uuid: ["gpu-high", "gpu-medium", "gpu-low"],
        SMALL.uuid: ["gpu-low"],
        MIG.uuid: ["gpu-medium", "gpu-low"],
    }
    assert report["left_out"] == {}
    assert report["disk"]["folder"] == str(tmp_path / "data")
    assert report["cpu"]["usable_cores"] >= 1
    assert report["memory"]["available_mib"] > 0


def test_probe_tells_a_person_what_serves_what_and_what_not_and_why(gpus: FakeGpus, probe: Probe):
    gpus.set([BIG, SMALL])
    run = probe("probe", settings="agent: {devices: {gpu1: {enabled: false}, gpu0: {slots: 3, queues: [gpu-high, x]}}}")
    assert (run.returncode, run.stderr) == (0, "")
    said = re.sub(r" +", " ", run.stdout)
    assert "gpu driver NVIDIA 550.54.14, CUDA 12.4" in said
    assert f"gpu0 NVIDIA RTX 4090 {BIG.uuid} 20,001 24,564 4,300 0% 40 60/320 1" in said
    assert f"gpu1 NVIDIA T400 {SMALL.uuid} 2,000 2,048 0 0% 40 60/320 3+1 40+2 0" in said
    assert f"{BIG.uuid} NVIDIA RTX 4090 3 gpu-high" in said
    assert f"{SMALL.uuid} switched off by agent.devices (enabled: false)" in said
    assert "queue x agent.devices.gpu0.queues names it" in said


def test_probe_on_a_host_without_gpus_is_no_failure(probe: Probe):
    run = probe("--slots", "2", "probe", LD_LIBRARY_PATH="")
    assert (run.returncode, run.stderr) == (0, "")
    assert re.search(r"^cpu +.* 2 +.*cpu-light", run.stdout, re.MULTILINE)
    assert "Left out" not in run.stdout


def test_probe_says_what_is_wrong_with_a_driver_and_with_a_gpu(gpus: FakeGpus, probe: Probe):
    gpus.set([BIG], init=VERSION_MISMATCH)
    run = probe("probe")
    assert run.returncode == 0
    assert re.search(r"^gpu driver +driver/library version mismatch", run.stdout, re.MULTILINE)
    assert re.search(r"^gpu +driver/library version mismatch", run.stdout, re.MULTILINE)
    gpus.set([replace(BIG, fails={"nvmlDeviceGetUtilizationRates": 15}), SMALL])
    report = told(probe("probe", "--json"))
    assert "fallen off the bus" in report["left_out"][BIG.uuid]
    assert [one["device"]["id"] for one in report["devices"]] == ["cpu", SMALL.uuid]


def test_settings_that_name_a_device_which_is_not_here_are_refused_by_probe_and_agent(gpus: FakeGpus, probe: Probe):
    gpus.set([BIG])
    for command in (["probe"], []):
        run = probe(*command, settings="agent: {devices: {gpu4: {slots: 2}}}")
        assert (run.returncode, run.stdout) == (2, "")
        assert "there is no device 'gpu4' here; there is cpu, gpu0 (GPU-b1g00000-1)" in run.stderr.splitlines()[-1]
