"""The units of systemd: they follow the settings, systemd understands every line, and steps are shown first."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from lcq.cli.program import app
from lcq.config import DistributedConfig
from lcq.errors import InvalidInput
from lcq.installing import a_unit
from lcq.units import Part, Unit
from worker.agent import _LEAVE_S
from worker.cli import app as agent_app

PROGRAM = ("/opt/lcq/bin/lcq",)
# What may stand in a unit of ours, by section: systemd.unit(5), .service(5), .exec(5), .kill(5), .resource-control(5).
KNOWN = {
    "Unit": {"Description", "Wants", "After", "StartLimitIntervalSec"},
    "Service": {
        "Type", "NotifyAccess", "ExecStart", "ExecStartPre", "ExecReload", "Environment", "EnvironmentFile", "Restart",
        "RestartSec", "RestartPreventExitStatus", "TimeoutStartSec", "TimeoutStopSec", "WatchdogSec", "KillMode",
        "User",
        "SupplementaryGroups", "StateDirectory", "StateDirectoryMode", "WorkingDirectory", "UMask", "LimitNOFILE",
        "OOMPolicy", "NoNewPrivileges", "RestrictAddressFamilies", "RestrictRealtime", "RestrictSUIDSGID",
        "LockPersonality", "SystemCallArchitectures", "PrivateTmp", "PrivateDevices", "ProtectControlGroups",
        "ProtectKernelLogs", "ProtectKernelModules", "ProtectKernelTunables", "ProtectHostname", "ProtectClock",
        "ProtectSystem", "ProtectHome", "ReadWritePaths", "RemoveIPC", "CapabilityBoundingSet", "RestrictNamespaces",
        "DevicePolicy", "DeviceAllow",
    },
    "Install": {"WantedBy"},
}  # fmt: skip


def a_config(**settings: Any) -> DistributedConfig:
    return DistributedConfig(**settings)


def values(text: str, key: str) -> list[str]:
    return [line.partition("=")[2] for line in text.splitlines() if line.startswith(f"{key}=")]


UNITS = {
    "scheduler": Unit(Part.SCHEDULER, (*PROGRAM, "scheduler"), a_config(), user="lcq", memory_mib=16000),
    "agent": Unit(Part.AGENT, ("/opt/lcq/bin/lcq-agent",), a_config(), user="lcq", groups=("video",), memory_mib=16000),
    "agent with roots": Unit(
        Part.AGENT,
        ("/opt/lcq/bin/lcq-agent", "--name", 'a "b" $c 100%'),
        a_config(
            storage={"roots": ["/srv/our pictures", "/srv/100%"], "url": "file:///mnt/blobs"}, data_dir="/data/lcq"
        ),
        user="lcq",
    ),
    "agent that is root": Unit(Part.AGENT, ("/opt/lcq/bin/lcq-agent",), a_config(), user="root"),
    "scheduler of a user": Unit(Part.SCHEDULER, (*PROGRAM, "scheduler"), a_config()),
    "agent of a user": Unit(Part.AGENT, ("/opt/lcq/bin/lcq-agent",), a_config()),
}


@pytest.mark.parametrize("unit", UNITS.values(), ids=UNITS)
def test_every_line_of_a_unit_is_one_that_systemd_has(unit: Unit) -> None:
    section = ""
    for line in filter(None, unit.text().splitlines()):
        if line.startswith("["):
            section = line.strip("[]")
        elif not line.startswith("#"):
            assert line.partition("=")[0] in KNOWN[section], line


@pytest.mark.skipif(shutil.which("systemd-analyze") is None, reason="there is no systemd-analyze here")
def test_systemd_itself_finds_nothing_wrong_with_them(tmp_path: Path) -> None:
    program = tmp_path / "lcq"
    program.write_text("#!/bin/sh\n")
    program.chmod(0o755)
    for number, unit in enumerate(UNITS.values()):
        text = unit.text().replace("/opt/lcq/bin/lcq-agent", str(program)).replace("/opt/lcq/bin/lcq", str(program))
        file = tmp_path / str(number) / unit.name
        file.parent.mkdir()
        file.write_text(text)
        assert said_by_systemd(file) == (0, ""), text
    file.write_text(text.replace("KillMode", "KilMode"))
    assert "KilMode" in said_by_systemd(file)[1]


def said_by_systemd(file: Path) -> tuple[int, str]:
    command = ["systemd-analyze", "verify", "--man=no", "--recursive-errors=no", str(file)]
    ran = subprocess.run(command, capture_output=True, text=True, check=False)
    return ran.returncode, ran.stdout + ran.stderr


def test_an_agent_is_given_longer_to_stop_than_its_drain_and_all_that_comes_after_it_take() -> None:
    unit = Unit(Part.AGENT, PROGRAM, a_config(agent={"drain_s": 300}), user="lcq")
    assert int(values(unit.text(), "TimeoutStopSec")[0]) > 300 + _LEAVE_S
    assert values(unit.text(), "KillMode") == ["mixed"]  # the runners are ended by the agent, not under it


def test_an_agent_may_write_where_tasks_may_name_files_and_nowhere_else() -> None:
    text = UNITS["agent with roots"].text()
    assert values(text, "ProtectSystem") == ["strict"]
    assert values(text, "ReadWritePaths") == ['-/data/lcq -/mnt/blobs "-/srv/our pictures" "-/srv/100%%"']
    anywhere = UNITS["agent"].text()
    assert values(anywhere, "ProtectSystem") == ["full"]
    assert "storage.roots" in anywhere


def test_a_command_line_reaches_the_program_as_it_was_given() -> None:
    (line,) = values(UNITS["agent with roots"].text(), "ExecStart")
    assert line == r'/opt/lcq/bin/lcq-agent --name "a \"b\" $$c 100%%"'


def test_gpus_are_open_to_an_agent_and_nothing_that_would_close_them_is_asked_for() -> None:
    text = UNITS["agent"].text()
    assert "char-nvidia* rw" in values(text, "DeviceAllow")
    assert not values(text, "PrivateDevices")
    assert not values(text, "ProtectClock")  # it brings a DeviceAllow= of its own


def test_a_unit_of_a_user_asks_for_nothing_that_only_root_may_give() -> None:
    for name in ("scheduler of a user", "agent of a user"):
        text = UNITS[name].text()
        assert not any(values(text, key) for key in ("User", "ProtectSystem", "DevicePolicy", "StateDirectory"))
        assert values(text, "WantedBy") == ["default.target"]
        assert values(text, "NoNewPrivileges") == ["yes"]


def test_a_scheduler_needs_no_device_no_home_and_no_right_of_root() -> None:
    text = UNITS["scheduler"].text()
    assert values(text, "CapabilityBoundingSet") == [""]
    assert values(text, "PrivateDevices") == ["yes"]
    assert values(text, "ProtectHome") == ["yes"]
    at_home = Unit(Part.SCHEDULER, ("/home/ann/venv/bin/lcq", "scheduler"), a_config(), user="lcq").text()
    assert values(at_home, "ProtectHome") == ["read-only"]  # else its program could not be read


def test_an_agent_that_starts_runners_as_another_user_has_to_be_root_and_keeps_just_those_rights() -> None:
    config = a_config(agent={"runner": {"user": "nobody"}})
    with pytest.raises(InvalidInput, match="only an agent that is root"):
        a_unit(Part.AGENT, config, [], user="lcq")
    assert a_unit(Part.AGENT, config, [], user="nobody").user == "nobody"
    (kept,) = values(a_unit(Part.AGENT, config, [], user="root").text(), "CapabilityBoundingSet")
    assert "CAP_SETUID" in kept
    assert "CAP_SYS_ADMIN" not in kept
    assert values(UNITS["agent"].text(), "CapabilityBoundingSet") == [""]


def test_the_unit_runs_the_program_of_this_installation() -> None:
    unit = a_unit(Part.AGENT, a_config(), ["--name", "gpu-1"], user="")
    assert Path(unit.program[0]).is_file()
    assert list(unit.program[-2:]) == ["--name", "gpu-1"]


def test_a_dry_run_shows_the_unit_and_every_step_and_changes_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path))
    shown = CliRunner().invoke(app, ["--log-level", "debug", "install-service", "--user", "--dry-run"])
    assert shown.exit_code == 0
    (line,) = values(shown.stdout, "ExecStart")
    assert line.endswith("lcq --log-level debug scheduler")
    assert "systemctl --user enable lcq-scheduler.service" in shown.stderr
    assert list(tmp_path.iterdir()) == []


def test_a_unit_is_written_and_deleted_again_without_a_word_to_systemd(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path))
    file = tmp_path / "systemd" / "user" / "lcq-agent.service"
    options = ["--scheduler", "head:5571", "--label", "rack=3", "--models", "lama"]
    made = CliRunner().invoke(agent_app, [*options, "install-service", "--user", "--no-start"])
    assert made.exit_code == 0, made.output
    (line,) = values(file.read_text(), "ExecStart")
    assert "lcq-agent --scheduler head:5571 " in line
    assert "--label rack=3" in line
    assert "--models lama" in line
    gone = CliRunner().invoke(agent_app, ["uninstall-service", "--user", "--no-start"])
    assert gone.exit_code == 0, gone.output
    assert not file.exists()
    again = CliRunner().invoke(agent_app, ["uninstall-service", "--user", "--no-start"])
    assert again.exit_code == 2
    assert "is not installed" in again.stderr


def test_where_systemd_does_not_run_it_is_said_before_anything_is_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path))
    monkeypatch.setattr("lcq.installing._RUNS", tmp_path / "no such folder")
    refused = CliRunner().invoke(app, ["install-service", "--user"])
    assert refused.exit_code == 2
    assert "not run by systemd" in refused.stderr
    assert list(tmp_path.iterdir()) == []
