"""The systemd units of a scheduler and of an agent: what is in them, and why. Pure text."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from pathlib import Path
from urllib.parse import unquote, urlsplit

from lcq.config import DistributedConfig

STATE_FOLDER = Path("/var/lib/lcq")
"""Where a service of the system keeps its data, unless the settings name another folder."""
WATCHDOG_S = 60
_AFTER_DRAIN_S = 60  # last words, the end of runners, and a Redis of our own that syncs its log
_OF_ROOT = ("CAP_SETUID", "CAP_SETGID", "CAP_KILL", "CAP_CHOWN", "CAP_FOWNER", "CAP_DAC_OVERRIDE")
_LOAD_S = 400  # a private Redis that reads a long log again


class Part(StrEnum):
    """What a unit runs."""

    SCHEDULER = "scheduler"
    AGENT = "agent"

    @property
    def unit(self) -> str:
        return f"lcq-{self.value}.service"


@dataclass(frozen=True)
class Unit:
    """What a unit's text depends on.

    ``program`` is its command line. ``user``: as whom it runs; "": it is one of a user's own service manager.
    ``groups``: further ones, by which devices may be used. ``memory_mib``: of the host.
    """

    part: Part
    program: Sequence[str]
    config: DistributedConfig = field(repr=False)
    user: str = ""
    groups: tuple[str, ...] = ()
    memory_mib: int = 0

    @property
    def name(self) -> str:
        return self.part.unit

    def text(self) -> str:
        """The file, as ``systemd.service(5)`` wants it."""
        sections = {"Unit": self._unit(), "Service": self._service(), "Install": self._install()}
        parts = [f"# Made by {self._maker}; 'systemctl edit {self.name}' adds to it without being overwritten."]
        parts += ["\n".join((f"[{name}]", *lines)) for name, lines in sections.items()]
        return "\n\n".join(parts) + "\n"

    @property
    def log_command(self) -> str:
        """What shows what it logs."""
        return f"journalctl {'' if self.user else '--user '}-u {self.name} -f"

    @property
    def _maker(self) -> str:
        return "'lcq install-service'" if self.part is Part.SCHEDULER else "'lcq-agent install-service'"

    @property
    def data_folder(self) -> Path:
        """Where it keeps its files."""
        return self.config.data_dir or (STATE_FOLDER if self.user else self.config.data_path)

    # ------------------------------------------------------------ the three sections

    def _unit(self) -> Iterable[str]:
        yield f"Description=LCQ {self.part.value}: image clean-up as a fleet's work"
        if self.user:
            yield "Wants=network-online.target"
            yield "After=network-online.target"
        if self.user and self.part is Part.SCHEDULER:
            yield "After=redis.service redis-server.service valkey.service valkey-server.service"
        if self.user and self.part is Part.AGENT:
            yield "# The driver's modules have to be there before DeviceAllow= is read."
            yield "Wants=modprobe@nvidia_uvm.service"
            yield "After=modprobe@nvidia_uvm.service nvidia-persistenced.service remote-fs.target"
        yield "StartLimitIntervalSec=0"

    def _service(self) -> Iterable[str]:
        yield "Type=notify"
        yield "NotifyAccess=main"
        if self.user and self.part is Part.AGENT:
            yield "# NVIDIA's device nodes: as root, because NoNewPrivileges= keeps the driver from making them itself."
            yield "ExecStartPre=-+/usr/bin/nvidia-modprobe -c=0 -u"
        yield f"ExecStart={' '.join(map(_quoted_argument, self.program))}"
        yield "ExecReload=/bin/kill -HUP $MAINPID"
        yield "Environment=PYTHONUNBUFFERED=1"
        if self.user:
            yield f"Environment={_quoted(f'LCQ_DATA_DIR={self.data_folder}')}"
            yield "# Secrets as LCQ_REDIS__URL=…, a line each; readable by root alone."
            yield f"EnvironmentFile=-/etc/lcq/{self.part.value}.env"
        yield ""
        yield "# 2 is a refusal that a person has to see to (settings, a name that is taken); all else is tried again."
        yield "Restart=on-failure"
        yield "RestartSec=5"
        yield "RestartPreventExitStatus=2"
        yield f"TimeoutStartSec={_LOAD_S if self.part is Part.SCHEDULER else 120}"
        yield from self._stop()
        yield "# Fed by the event loop: one that hangs is ended with SIGABRT (then the journal has its stacks), and"
        yield "# started anew."
        yield f"WatchdogSec={WATCHDOG_S}"
        yield ""
        if self.user:
            yield f"User={self.user}"
            if self.groups:
                yield f"SupplementaryGroups={' '.join(self.groups)}"
            yield from self._folders()
            yield ""
        yield from self._limits()
        yield ""
        yield from self._sandbox()

    def _stop(self) -> Iterable[str]:
        """SIGTERM goes to the main process alone: it drains, and ends its runners itself."""
        yield "KillMode=mixed"
        if self.part is Part.SCHEDULER:
            yield f"TimeoutStopSec={_AFTER_DRAIN_S}"
            return
        drain_s = self.config.agent.drain_s
        yield f"# agent.drain_s ({drain_s:g}), and what comes after it. Where that grows, the agent asks for more."
        yield f"TimeoutStopSec={math.ceil(drain_s) + _AFTER_DRAIN_S}"

    def _folders(self) -> Iterable[str]:
        if self.data_folder == STATE_FOLDER:
            yield "StateDirectory=lcq"
            yield "StateDirectoryMode=0700"
        yield f"WorkingDirectory=-{_escaped(str(self.data_folder))}"
        yield "UMask=0077" if self.part is Part.SCHEDULER else "UMask=0022"

    def _limits(self) -> Iterable[str]:
        yield "LimitNOFILE=65536"
        if self.part is Part.AGENT:
            yield "# A runner that is killed for its memory costs its attempt; the agent goes on and says so."
            yield "OOMPolicy=continue"
            if self.memory_mib:
                most = self.memory_mib * 9 // 10
                yield "# So that the host stays usable when tasks take too much; the agent counts with it."
                yield f"#MemoryMax={most}M"
        elif self.memory_mib:
            yield "# Without a Redis of its own a scheduler keeps some 100 MB; a private Redis is within this unit too."
            yield f"#MemoryMax={max(1024, self.memory_mib // 4)}M"

    def _sandbox(self) -> Iterable[str]:
        yield "NoNewPrivileges=yes"
        yield "RestrictAddressFamilies=AF_UNIX AF_INET AF_INET6 AF_NETLINK"
        yield "RestrictRealtime=yes"
        yield "RestrictSUIDSGID=yes"
        yield "LockPersonality=yes"
        yield "SystemCallArchitectures=native"
        if not self.user:
            return  # a user's service manager has no right to the rest, or needs namespaces that many hosts forbid
        if self.part is Part.AGENT:
            yield "# Its /tmp is its own: pictures that lie in the host's are not seen."
        yield f"PrivateTmp={'no' if self._uses_tmp else 'yes'}"
        yield "ProtectControlGroups=yes"
        yield "ProtectKernelLogs=yes"
        yield "ProtectKernelModules=yes"
        yield "ProtectKernelTunables=yes"
        yield "ProtectHostname=yes"
        yield "RemoveIPC=yes"
        if self.part is Part.SCHEDULER:
            yield "CapabilityBoundingSet="
            yield "PrivateDevices=yes"
            yield "ProtectClock=yes"
            yield "RestrictNamespaces=yes"
        else:
            yield from self._capabilities()
            yield "# GPUs and nothing else of /dev. Not ProtectClock=: it brings a DeviceAllow= of its own."
            yield "DevicePolicy=closed"
            yield "DeviceAllow=char-nvidia* rw"
            yield "DeviceAllow=char-drm rw"
            yield "DeviceAllow=char-kfd rw"
        yield from self._writable()

    def _capabilities(self) -> Iterable[str]:
        """Of an agent. Its runners are kept from the network by a namespace of their own, which takes none of these."""
        if self.user != "root":
            yield "CapabilityBoundingSet="
            return
        yield "# To start runners as agent.runner.user, to end them, and to read and hand over their files."
        yield f"CapabilityBoundingSet={' '.join(_OF_ROOT)}"

    def _writable(self) -> Iterable[str]:
        """Where it may write: results lie beside their pictures, so of an agent that depends on ``storage.roots``."""
        folders = [] if self.data_folder == STATE_FOLDER else [self.data_folder]
        storage = self.config.storage
        if (parts := urlsplit(storage.url)).scheme == "file":
            folders.append(Path(unquote(parts.path)))
        if self.part is Part.SCHEDULER and self.config.http.save_folder is not None:
            folders.append(self.config.http.save_folder)
        if self.part is Part.AGENT:
            folders += storage.roots
            if self.config.models.folder is not None:
                folders.append(self.config.models.folder)
        if self.part is Part.AGENT and not storage.roots:
            yield "# Tasks may name any folder (storage.roots is empty), so only the system's own are closed to it."
            yield "# With storage.roots set, 'lcq-agent install-service' makes this ProtectSystem=strict."
            yield "ProtectSystem=full"
            return
        yield "ProtectSystem=strict"
        yield f"ProtectHome={self._home(folders)}"
        if folders:
            yield f"ReadWritePaths={' '.join(_path('-', one) for one in dict.fromkeys(folders))}"

    @property
    def _uses_tmp(self) -> bool:
        """Whether somebody has said that pictures, or data, lie there."""
        return any(one.is_relative_to("/tmp") for one in (self.data_folder, *self.config.storage.roots))  # noqa: S108

    def _home(self, folders: Sequence[Path]) -> str:
        """Whether homes are closed: not where something that is needed lies in one."""
        needed = (Path(self.program[0]), *folders)
        inside = any(one.is_relative_to(home) for one in needed for home in ("/home", "/root"))
        return "read-only" if inside or self.part is Part.AGENT else "yes"

    def _install(self) -> Iterable[str]:
        yield f"WantedBy={'multi-user.target' if self.user else 'default.target'}"


def _escaped(text: str) -> str:
    return text.replace("\\", "\\\\").replace('"', '\\"').replace("%", "%%").replace("\n", "\\n")


def _quoted(text: str) -> str:
    """``text`` as one word of a setting."""
    plain = all(char.isalnum() or char in "-_./:=@,+" for char in text)
    return text if text and plain else f'"{_escaped(text)}"'


def _quoted_argument(text: str) -> str:
    """``text`` as one word of a command line, in which $ begins a variable."""
    return _quoted(text).replace("$", "$$")


def _path(prefix: str, path: Path) -> str:
    return _quoted(f"{prefix}{path}")
