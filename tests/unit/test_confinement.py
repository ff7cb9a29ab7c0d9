"""What runners are kept from: by real wardens, of real processes that look at themselves."""

from __future__ import annotations

import asyncio
import os
import pwd
import socket
import stat
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from lcq.config import DistributedConfig, RunnerConfig
from lcq.errors import InvalidConfig
from worker.confinement import environment_for, make_device_files, open_way, runner_user, terms_of
from worker.processes import ProcessGroup
from worker.warden import CANNOT_START, NOT_CONFINED

SECRETS = (
    "AWS_SECRET_ACCESS_KEY", "AWS_ACCESS_KEY_ID", "AWS_SESSION_TOKEN", "GOOGLE_APPLICATION_CREDENTIALS", "HF_TOKEN",
    "REDIS_URL", "DATABASE_URL", "GITHUB_TOKEN", "SSH_AUTH_SOCK", "HTTPS_PROXY", "NVIDIA_API_KEY", "TORCH_TOKEN",
    "OPENCV_PASSWORD", "KUBECONFIG", "NOTIFY_SOCKET",
)  # fmt: skip
IS_ROOT = os.geteuid() == 0
LINUX = pytest.mark.skipif(sys.platform != "linux", reason="only Linux can")
ROOT = pytest.mark.skipif(not IS_ROOT, reason="only root becomes another user")
NOBODY = pwd.getpwnam("nobody")


def config(**runner: Any) -> DistributedConfig:
    return DistributedConfig.model_validate({"agent": {"runner": runner}})


async def seen(
    script: str, terms: str, output: Path, *, program: str | Path = "/bin/sh", **environment: str
) -> tuple[int, str]:
    """How a shell under a warden ends, and what it writes."""
    ours, its = socket.socketpair()
    with ours, its, output.open("wb") as file:
        process = ProcessGroup.start(
            (str(program), "-c", script),
            environment={"PATH": os.environ["PATH"], **environment},
            mark="a-test",
            line=its,
            output=file.fileno(),
            terms=terms,
        )
        code = await asyncio.wait_for(process.exited(), 90)
    return code, await asyncio.to_thread(output.read_text)


# ---------------------------------------------------------------- the environment


def test_a_runner_has_what_loaders_and_compute_libraries_read_and_no_secret_of_its_agents() -> None:
    useful = {
        "PATH": "/bin", "HOME": "/home/ann", "LC_ALL": "C.UTF-8", "LD_LIBRARY_PATH": "/opt/cuda", "TORCH_HOME": "/t",
        "CUDA_CACHE_PATH": "/c", "OMP_PROC_BIND": "true", "HF_HUB_OFFLINE": "1", "PYTORCH_HIP": "x", "TZ": "UTC",
    }  # fmt: skip
    secrets = dict.fromkeys(SECRETS, "hunter2")
    assert environment_for(RunnerConfig(), useful | secrets | {"LCQ_STORAGE__TOKEN": "hunter2"}) == useful


def test_further_variables_are_passed_on_by_name_and_our_own_settings_never() -> None:
    named = RunnerConfig(environment=("HTTPS_PROXY", "MY_ENGINE_*", "LCQ_*"))
    ours = {"HTTPS_PROXY": "http://proxy", "MY_ENGINE_MODE": "fast", "LCQ_REDIS__URL": "redis://", "OTHER": "1"}
    assert environment_for(named, ours).keys() == {"HTTPS_PROXY", "MY_ENGINE_MODE"}


# ---------------------------------------------------------------- rights and limits


@LINUX
async def test_a_runner_gets_no_new_rights_leaves_no_core_and_is_cut_off_from_the_network(tmp_path: Path) -> None:
    look = "grep NoNewPrivs /proc/self/status; ulimit -c; ulimit -n; cat /proc/net/dev | wc -l"
    terms = terms_of(config(limits={"files": 100, "memory_mib": 4096}))
    code, said = await seen(f"{look}; echo loose:$LCQ_RUNNER_LOOSE", terms, tmp_path / "said")
    privileges, core, files, interfaces, loose = said.splitlines()
    assert code == 0
    assert privileges.split() == ["NoNewPrivs:", "1"]
    assert (core, files) == ("0", "100")
    if loose == "loose:":
        assert int(interfaces) == 3  # two lines of heads, and the loopback
    else:
        assert "network: " in loose  # this kernel does not let us, and that is told


@LINUX
async def test_in_a_network_of_its_own_loopback_works_and_what_listens_outside_is_not_there(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as outside:
        port = outside.getsockname()[1]
        (tmp_path / "look.py").write_text(
            "import socket, sys\n"
            "with socket.create_server(('127.0.0.1', 0)) as here:\n"
            "    socket.create_connection(here.getsockname()).close()\n"
            "try:\n"
            f"    socket.create_connection(('127.0.0.1', {port}), 5)\n"
            "except ConnectionRefusedError:\n"
            "    print('cut off')\n"
        )
        script = f"'{sys.executable}' -I -S '{tmp_path}/look.py'; echo $LCQ_RUNNER_LOOSE"
        _, said = await seen(script, terms_of(config()), tmp_path / "said")
        assert "cut off" in said or "network: " in said
        _, said = await seen(script, terms_of(config(network="on")), tmp_path / "said")
        assert "cut off" not in said


@LINUX
def test_who_is_not_root_leaves_the_network_by_a_user_namespace_and_stays_who_it_is() -> None:
    look = "import os; from worker import warden; warden._leave_network_as_user(); print(os.getuid(), os.getgid())"
    run = subprocess.run([sys.executable, "-c", look], capture_output=True, text=True, check=False)
    if "PermissionError" in run.stderr:
        pytest.skip("this kernel lets nobody make user namespaces")
    assert run.stdout.split() == [str(os.getuid()), str(os.getgid())], run.stderr


@LINUX
@pytest.mark.skipif(IS_ROOT, reason="root may read everything")
async def test_one_that_is_cut_off_cannot_read_its_agents_environment(tmp_path: Path) -> None:
    _, said = await seen(
        f"cat /proc/{os.getpid()}/environ; echo; echo $LCQ_RUNNER_LOOSE", terms_of(config()), tmp_path / "said"
    )
    assert "Permission denied" in said or "network: " in said


async def test_what_it_cannot_be_kept_from_ends_it_and_says_so_or_is_told_where_nothing_is_strict(
    tmp_path: Path,
) -> None:
    code, said = await seen("echo ran", "NOSUCH=5", tmp_path / "said")
    assert code == NOT_CONFINED
    assert "cannot be kept from what it should be: limit NOSUCH" in said
    code, said = await seen("echo ran $LCQ_RUNNER_LOOSE", "lenient NOSUCH=5 CORE=0", tmp_path / "said")
    assert code == 0
    assert said.startswith("ran limit NOSUCH: ")


@ROOT
async def test_the_agent_of_root_has_runners_of_another_user_without_its_groups(tmp_path: Path) -> None:
    terms = terms_of(config(user="nobody"))
    _, said = await seen("id -u; id -G; kill -0 $AGENT", terms, tmp_path / "said", AGENT=str(os.getpid()))
    uid, groups, trouble, *_ = said.splitlines()
    assert uid == str(NOBODY.pw_uid)
    assert "0" not in groups.split()
    assert "not permitted" in trouble  # nor can it touch its agent


@ROOT
async def test_a_program_that_the_runners_user_may_not_run_is_told_with_that_user(tmp_path: Path) -> None:
    hidden = tmp_path / "hidden"
    hidden.mkdir(mode=0o700)
    (hidden / "program").write_text("#!/bin/sh\n")
    (hidden / "program").chmod(0o755)
    code, said = await seen("", terms_of(config(user="nobody")), tmp_path / "said", program=hidden / "program")
    assert code == CANNOT_START
    assert f"Permission denied to user {NOBODY.pw_uid}: what leads to it has to be open" in said


@ROOT
def test_only_what_is_a_runners_own_is_opened_to_its_user(tmp_path: Path) -> None:
    home = tmp_path / "agents" / "node-1"
    home.mkdir(parents=True, mode=0o700)
    open_way(None, home)
    assert stat.S_IMODE(home.stat().st_mode) == 0o700
    open_way(runner_user(RunnerConfig(user="nobody")), home)
    assert stat.S_IMODE(home.stat().st_mode) == 0o711


def test_a_user_that_is_not_there_is_refused_before_anything_starts() -> None:
    with pytest.raises(InvalidConfig, match=r"agent\.runner\.user: this host has no user 'lama-nobody'.*useradd"):
        terms_of(config(user="lama-nobody"))
    with pytest.raises(InvalidConfig, match="no group 'lama-nogroup'"):
        terms_of(config(user="nobody:lama-nogroup"))


@pytest.mark.skipif(IS_ROOT, reason="root may")
def test_who_is_not_root_becomes_no_other_user(caplog: pytest.LogCaptureFixture) -> None:
    with pytest.raises(InvalidConfig, match=r"only root becomes another.*strict: false"):
        terms_of(config(user="nobody"))
    assert "user=" not in terms_of(config(user="nobody", strict=False))
    assert "its runners are what it is" in caplog.text


def test_the_agents_own_user_is_nothing_to_become() -> None:
    assert "user=" not in terms_of(config(user=str(os.geteuid()) + f":{os.getegid()}"))


# ---------------------------------------------------------------- who needs a network


def test_beside_an_iopaint_the_network_stays_unless_that_is_forbidden_and_what_excludes_each_other_is_refused() -> None:
    assert "network=try" in terms_of(config()).split()
    beside = {"iopaint": {"command": ["iopaint"], "models": ["mat"]}}
    assert "network" not in terms_of(DistributedConfig.model_validate(beside))
    off = {"agent": {"runner": {"network": "off"}}}
    assert "network=off" in terms_of(DistributedConfig.model_validate(beside | off)).split()
    with pytest.raises(InvalidConfig, match=r"network is off, and iopaint\.url"):
        terms_of(DistributedConfig.model_validate(off | {"iopaint": {"url": "http://gpu-7:8080", "models": ["mat"]}}))


def test_the_drivers_files_are_made_before_runners_that_could_not_have_them_made(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    program = tmp_path / "nvidia-modprobe"
    program.write_text(f"#!/bin/sh\necho \"$@\" > '{tmp_path}/asked'\n")
    program.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path))
    make_device_files()
    asked = tmp_path / "asked"
    assert Path("/dev/nvidia-uvm").exists() or asked.read_text() == "-c 0 -u\n"
