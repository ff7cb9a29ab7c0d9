"""Units put into systemd's folders, enabled and started, and taken out again: in steps that can be shown first."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import psutil

from lcq.config import DistributedConfig
from lcq.errors import InvalidInput, LcqError
from lcq.units import STATE_FOLDER, Part, Unit

SYSTEM_FOLDER = Path("/etc/systemd/system")
_RUNS = Path("/run/systemd/system")  # there where systemd runs
_DEVICE_GROUPS = ("video", "render")
_COMMAND_S = 600.0  # a start waits until the service is ready
_MODULES = {Part.SCHEDULER: "lcq.cli.main", Part.AGENT: "worker.cli"}
_PROGRAMS = {Part.SCHEDULER: "lcq", Part.AGENT: "lcq-agent"}


class ServiceNotInstalled(LcqError):
    """A step of an installation was refused; the steps before it are done."""

    code = "service_not_installed"


@dataclass(frozen=True)
class Step:
    """One thing to do: write ``text`` to ``file``, delete ``file``, or run ``command``."""

    command: tuple[str, ...] = ()
    file: Path | None = None
    text: str | None = None
    may_fail: bool = False

    def __str__(self) -> str:
        if self.file is None:
            return " ".join(self.command)
        return f"rm {self.file}" if self.text is None else f"write {self.file}"

    def carry_out(self) -> None:
        """Raises:
        ServiceNotInstalled: it was refused; says why.
        """
        if self.file is not None:
            self._write(self.file)
            return
        try:
            ran = subprocess.run(self.command, capture_output=True, text=True, timeout=_COMMAND_S, check=False)
        except (OSError, subprocess.TimeoutExpired) as error:
            raise ServiceNotInstalled(f"{self}: {error}", hint="see journalctl -xe") from error
        if ran.returncode and not self.may_fail:
            said = (ran.stderr or ran.stdout).strip() or f"exit code {ran.returncode}"
            raise ServiceNotInstalled(f"{self}: {said}", hint="see journalctl -xe")

    def _write(self, file: Path) -> None:
        try:
            if self.text is None:
                file.unlink()
                return
            file.parent.mkdir(parents=True, exist_ok=True)
            staged = file.with_suffix(".new")
            staged.write_text(self.text, encoding="utf-8")
            staged.chmod(0o644)
            staged.replace(file)
        except OSError as error:
            raise ServiceNotInstalled(
                f"{self}: {error.strerror}", hint="sudo, or --user for a service of your own"
            ) from error


def a_unit(part: Part, config: DistributedConfig, options: Sequence[str], *, user: str) -> Unit:
    """The unit for this installation of LCQ. ``options``: what its command line has. ``user``: "" for one of a user.

    Raises:
        InvalidInput: as that user it could not start, by these settings.
    """
    runners = config.agent.runner.user
    if part is Part.AGENT and runners is not None and config.agent.runner.strict and user not in ("root", runners):
        raise InvalidInput(
            f"agent.runner.user is {runners}: only an agent that is root can start runners as another user",
            hint=f"--as root, which keeps no more of root's rights than that takes; or --as {runners}",
        )
    command = (*_program(part), *options, *(("scheduler",) if part is Part.SCHEDULER else ()))
    memory_mib = psutil.virtual_memory().total >> 20
    groups = _groups() if part is Part.AGENT and user else ()
    return Unit(part, command, config, user=user, groups=groups, memory_mib=memory_mib)


def _program(part: Part) -> tuple[str, ...]:
    beside = Path(sys.executable).with_name(_PROGRAMS[part])
    return (str(beside),) if beside.is_file() else (sys.executable, "-m", _MODULES[part])


def _groups() -> tuple[str, ...]:
    import grp

    there = {one.gr_name for one in grp.getgrall()}
    return tuple(name for name in _DEVICE_GROUPS if name in there)


def unit_folder(*, of_user: bool) -> Path:
    """Where units are kept that somebody wrote."""
    if not of_user:
        return SYSTEM_FOLDER
    return Path(os.environ.get("XDG_CONFIG_HOME") or Path.home() / ".config") / "systemd" / "user"


def steps_to_install(unit: Unit, *, start: bool) -> list[Step]:
    """What has to be done, in order. ``start``: also enable it and start it, or start it anew."""
    file = unit_folder(of_user=not unit.user) / unit.name
    steps = [Step(file=file, text=unit.text())]
    if unit.user and not _exists(unit.user):
        made = ("useradd", "--system", "--home-dir", str(STATE_FOLDER), "--shell", "/usr/sbin/nologin", unit.user)
        steps.insert(0, Step(made))
    if start:
        systemctl = _systemctl(of_user=not unit.user)
        steps += [Step((*systemctl, "daemon-reload")), Step((*systemctl, "enable", unit.name))]
        steps += [Step((*systemctl, "restart", unit.name))]
        if not unit.user:  # else it ends when this user logs out
            steps.append(Step(("loginctl", "enable-linger"), may_fail=True))
    return steps


def steps_to_uninstall(part: Part, *, of_user: bool, stop: bool) -> list[Step]:
    """What has to be done, in order. Data, settings and the user stay.

    Raises:
        InvalidInput: there is no such unit.
    """
    file = unit_folder(of_user=of_user) / part.unit
    if not file.exists():
        raise InvalidInput(f"{part.unit} is not installed: there is no {file}", hint="is it a user's? then --user")
    systemctl = _systemctl(of_user=of_user)
    ended = [Step((*systemctl, "disable", "--now", part.unit), may_fail=True)] if stop else []
    return [*ended, Step(file=file), *([Step((*systemctl, "daemon-reload"))] if stop else [])]


def check_systemd() -> None:
    """Raises:
    ServiceNotInstalled: this host is not run by systemd.
    """
    if not _RUNS.is_dir() or shutil.which("systemctl") is None:
        raise ServiceNotInstalled(
            "this host is not run by systemd", hint="--no-start only writes the unit; --dry-run shows it"
        )


def _systemctl(*, of_user: bool) -> tuple[str, ...]:
    return ("systemctl", "--user") if of_user else ("systemctl",)


def _exists(user: str) -> bool:
    import pwd

    try:
        pwd.getpwnam(user)
    except KeyError:
        return False
    return True
