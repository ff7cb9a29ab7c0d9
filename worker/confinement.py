"""What a runner is kept from: the agent's environment, and by its warden a network, other rights, much of the host.

Strangers' pictures and models are read in runners alone. What a bug in a decoder gives to who sent the picture is what
a runner has; so it has little (docs/security.md).
"""

from __future__ import annotations

import fnmatch
import logging
import os
import shutil
import subprocess
from collections.abc import Iterable, Mapping
from pathlib import Path

from lcq.config import DistributedConfig, RunnerConfig
from lcq.errors import InvalidConfig
from lcq.failpoints import DRILLS_VARIABLE
from lcq.settings.secrets import SECRET_NAME

_log = logging.getLogger(__name__)
_PREPARE_S = 20.0

PASSED_ON = (
    "PATH", "HOME", "USER", "LOGNAME", "SHELL", "LANG", "LANGUAGE", "LC_*", "TZ", "TZDIR", "TMPDIR", "TEMP", "TMP",
    "VIRTUAL_ENV", "PYTHON*", "LD_*", "DYLD_*", "MALLOC_*", "GLIBC_*", "SYSTEMROOT",
    "XDG_CACHE_HOME", "XDG_CONFIG_HOME", "XDG_DATA_HOME", "XDG_RUNTIME_DIR",
    "CUDA_*", "NVIDIA_*", "NV_*", "CUBLAS_*", "CUDNN_*", "TF32_*", "ROCR_*", "HIP_*", "HSA_*", "ROCM_*", "AMD_*",
    "GPU_*", "MIOPEN_*", "ZE_*", "ONEAPI_*", "SYCL_*", "OMP_*", "GOMP_*", "KMP_*", "MKL_*", "OPENBLAS_*", "VECLIB_*",
    "BLIS_*", "NUMEXPR_*", "OPENCV_*", "TORCH*", "PYTORCH_*", "TRITON_*", "ATEN_*", "HF_HOME",
    "HF_HUB_OFFLINE", "HUGGINGFACE_HUB_CACHE", "TRANSFORMERS_OFFLINE", "COVERAGE_*", "FAKETIME*", "ASAN_*",
)  # fmt: skip
"""The variables that a runner is given of its agent's: what loaders, compute libraries and locales read. ``*`` stands
for any end. No name that sounds of a secret is among what it stands for."""


TO_CALL_FUNCTIONS = (
    "AWS_*", "GOOGLE_*", "GCE_METADATA_*", "CLOUDSDK_*", "HTTP_PROXY", "HTTPS_PROXY", "NO_PROXY", "http_proxy",
    "https_proxy", "no_proxy", "SSL_CERT_FILE", "SSL_CERT_DIR", "REQUESTS_CA_BUNDLE",
)  # fmt: skip
"""What a runner that calls a function is given beside that: it has to show who it is, and no engine computes in it."""


def environment_for(config: RunnerConfig, ours: Mapping[str, str], *, calls_functions: bool = False) -> dict[str, str]:
    """What of our environment a runner has, before it is bound to its device."""
    named = (*config.environment, *(TO_CALL_FUNCTIONS if calls_functions else ()))
    return {
        name: value
        for name, value in ours.items()
        if name == DRILLS_VARIABLE
        or (
            not name.startswith("LCQ_")
            and (_is_among(name, named) or (_is_among(name, PASSED_ON) and not SECRET_NAME.search(name)))
        )
    }


def _is_among(name: str, patterns: Iterable[str]) -> bool:
    return any(fnmatch.fnmatchcase(name, pattern) for pattern in patterns)


def needs_network(config: DistributedConfig) -> bool:
    """Whether what a runner of this host does may need a network: another server, or one that fetches weights."""
    return bool(config.iopaint.url or config.iopaint.command or config.iopaint.venv)


class RunnerUser:
    """The user that ``agent.runner.user`` names: a name, or numbers (1000, 1000:1000).

    Raises:
        InvalidConfig: there is none of that name.
    """

    def __init__(self, named: str) -> None:
        import grp
        import pwd

        who, _, group = named.partition(":")
        try:
            known = pwd.getpwuid(int(who)) if who.isdigit() else pwd.getpwnam(who)
        except KeyError as error:
            if not (who.isdigit() and group.isdigit()):
                raise InvalidConfig(
                    f"agent.runner.user: this host has no user {who!r}",
                    hint="useradd --system it, or name another; a number that is no user's needs a group: 1000:1000",
                ) from error
            self.uid, self.gid, self.home = int(who), int(group), "/"
            self.groups: tuple[int, ...] = ()
            return
        try:
            self.gid = int(group) if group.isdigit() else grp.getgrnam(group).gr_gid if group else known.pw_gid
        except KeyError as error:
            raise InvalidConfig(f"agent.runner.user: this host has no group {group!r}", hint="name another") from error
        self.uid, self.home = known.pw_uid, known.pw_dir
        self.groups = tuple(os.getgrouplist(known.pw_name, self.gid))

    @property
    def is_us(self) -> bool:
        return self.uid == os.geteuid()

    def __str__(self) -> str:
        return f"{self.uid}:{self.gid}:{','.join(map(str, self.groups))}"


def runner_user(config: RunnerConfig) -> RunnerUser | None:
    """Who runners are; None: who the agent is.

    Raises:
        InvalidConfig: there is no such user, or only root could become it, and ``strict`` is on.
    """
    if config.user is None:
        return None
    user = RunnerUser(config.user)
    if user.is_us:
        return None
    if os.geteuid() != 0:
        trouble = (
            f"agent.runner.user is {config.user}, and this agent runs as user {os.geteuid()}: only root becomes another"
        )
        if config.strict:
            raise InvalidConfig(
                trouble, hint="start the agent as that user, or as root; or set agent.runner.strict: false"
            )
        _log.warning("%s; its runners are what it is", trouble)
        return None
    return user


def terms_of(config: DistributedConfig, *, calls_functions: bool = False) -> str:
    """What the wardens of this host keep their runners from, as ``worker.warden.confine`` reads it.

    ``calls_functions``: of those of a device that is a function, which need the network.

    Raises:
        InvalidConfig: it cannot be, or its parts exclude each other.
    """
    runner = config.agent.runner
    words = [] if runner.strict else ["lenient"]
    user = runner_user(runner)
    if user is not None:
        words.append(f"user={user}")
    if runner.network == "off" and config.iopaint.url:
        raise InvalidConfig(
            f"agent.runner.network is off, and iopaint.url is {config.iopaint.url}: no runner could reach it",
            hint="leave one of the two out",
        )
    if runner.network == "off" and config.agent.functions:
        raise InvalidConfig(
            f"agent.runner.network is off, and agent.functions names {', '.join(config.agent.functions)}: no runner "
            "could call it",
            hint="leave one of the two out: auto cuts off all runners but those that call functions",
        )
    if not calls_functions:
        if runner.network == "off":
            words.append("network=off")
        elif runner.network == "auto" and not needs_network(config):
            words.append("network=try")
    limits = runner.limits
    in_mib = {"AS": limits.memory_mib, "FSIZE": limits.file_mib, "CORE": limits.core_mib}
    counts = {"NOFILE": limits.files, "NPROC": limits.processes}
    words += [f"{name}={most << 20}" for name, most in in_mib.items() if most is not None]
    words += [f"{name}={most}" for name, most in counts.items() if most is not None]
    return " ".join(words)


def open_way(user: RunnerUser | None, *folders: Path) -> None:
    """Let runners of another user pass through ``folders`` to what is theirs below. They cannot list them."""
    for folder in folders if user is not None else ():
        folder.chmod(folder.stat().st_mode & 0o7777 | 0o011)


def make_device_files() -> None:
    """Have the files of NVIDIA's driver made, where something here would have to: a runner, which gets no new rights,
    cannot have them made any more."""
    program = shutil.which("nvidia-modprobe")
    if program is None or Path("/dev/nvidia-uvm").exists():
        return
    try:
        subprocess.run([program, "-c", "0", "-u"], timeout=_PREPARE_S, check=False, stdin=subprocess.DEVNULL)
    except (OSError, subprocess.TimeoutExpired) as error:
        _log.warning("%s -c 0 -u: %s; if CUDA finds no GPU, run it by hand", program, error)
