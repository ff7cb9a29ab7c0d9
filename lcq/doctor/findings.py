"""Findings: what there is to say of a host or a cluster, by a closed list of codes, in English and as it is said."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from enum import IntEnum
from types import MappingProxyType
from typing import Any

from lcq.lang import N, retold, tr


class Level(IntEnum):
    """How much a finding matters; the greatest of them is a report's."""

    OK = 0
    NOTE = 1
    WARNING = 2
    PROBLEM = 3

    @property
    def word(self) -> str:
        return self.name.lower()


AREAS: Mapping[str, str] = MappingProxyType(
    {
        "config": N("Settings"),
        "version": N("Versions"),
        "clock": N("Clocks"),
        "redis": N("Redis"),
        "port": N("Ports"),
        "key": N("Keys and secrets"),
        "disk": N("Disks"),
        "limit": N("Limits of this host"),
        "gpu": N("GPUs"),
        "model": N("Models"),
        "node": N("Nodes"),
    }
)
"""What there is to look at, by how codes begin, in the order in which it is told."""

CODES: Mapping[str, str] = MappingProxyType(
    {
        "config_ok": "the settings are right",
        "config_invalid": "a setting is wrong; LCQ does not start with it",
        "config_unknown_variable": "an LCQ_ variable is no setting",
        "config_refused": "a running scheduler or agent keeps its old settings, because the new ones are wrong",
        "config_needs_restart": "settings were changed that only a restart takes over",
        "config_drift": "settings that have to agree differ between schedulers or nodes",
        "version_ok": "LCQ, its protocol, Python and libraries",
        "version_library": "a library that LCQ needs is missing, or too old",
        "version_differs": "schedulers and nodes run different versions of LCQ",
        "version_protocol": "the scheduler does not speak our protocol",
        "clock_ok": "clocks agree with Redis's",
        "clock_off": "a clock is off from Redis's, by which all deadlines go",
        "redis_ok": "Redis answers, and keeps what it accepts",
        "redis_unreachable": "Redis does not answer, or refuses",
        "redis_unseen": "the account that is configured here may not look at the server",
        "redis_old": "Redis is older than LCQ needs",
        "redis_replica": "the server is a replica: it cannot be written",
        "redis_forgets": "AOF is off: accepted tasks are gone when the server stops",
        "redis_evicts": "maxmemory-policy may throw tasks away",
        "redis_fsync_off": "appendfsync is no: seconds of accepted tasks are gone with the power",
        "redis_log_failing": "the server cannot write its log",
        "redis_full": "the server's memory is full, or nearly",
        "redis_slow": "the server answers slowly",
        "redis_disk_slow": "its disk is late with what has to be synced",
        "redis_replica_lags": "a replica does not follow",
        "redis_split_brain": "with Sentinels, a primary that is cut off goes on taking writes that will be lost",
        "redis_open": "whoever reaches the server may change everything: it asks for no password",
        "port_ok": "everything that listens can be reached from here",
        "port_refused": "the host answers, and nothing listens at that port",
        "port_silent": "no answer at all: a firewall drops it, or the host is down",
        "port_no_route": "there is no way to that host from here",
        "port_unknown_host": "no such host",
        "port_loopback": "a scheduler listens on loopback alone: other hosts cannot reach it",
        "port_no_scheduler": "no scheduler answers, and none is configured",
        "key_ok": "files with secrets are for their owner alone",
        "key_file_open": "others can read a file with secrets",
        "key_unusable": "a key of LCQ's own cannot be used: others can read it, or it is damaged",
        "key_file_missing": "a file with a key is not there, or cannot be read",
        "key_no_next": "the schedulers' next key is not made: who is away when theirs is changed has to be told it",
        "disk_ok": "there is room, and it can be written",
        "disk_low": "less room than the floor, or nearly: nothing new is begun there",
        "disk_not_writable": "a folder cannot be written",
        "disk_in_memory": "a folder lies in memory: what is in it is gone with the power",
        "disk_on_network": "the state of a private Redis lies on a network disk",
        "limit_ok": "open files, memory",
        "limit_files": "a process may open too few files",
        "limit_overcommit": "the kernel may refuse Redis its snapshot for want of memory",
        "limit_huge_pages": "transparent huge pages make Redis slow when it writes its snapshot",
        "gpu_ok": "the driver and each GPU answer",
        "gpu_none": "this host has no GPU",
        "gpu_driver": "the driver does not start, or fits nothing",
        "gpu_fault": "a GPU does not work",
        "gpu_errors": "a GPU's memory had errors that could not be corrected",
        "gpu_taken": "other programs hold much of a GPU's memory",
        "gpu_not_persistent": "the driver forgets the GPU between programs: each start wakes it for seconds",
        "gpu_no_torch": "there is a GPU, and no torch that could use it",
        "gpu_torch_for_cpu": "the torch that is installed is one for CPUs alone",
        "gpu_torch_too_new": "torch is built for a newer CUDA than the driver knows",
        "gpu_no_unified_memory": "/dev/nvidia-uvm is not there: CUDA finds no device",
        "model_ok": "weights are whole",
        "model_damaged": "installed weights are not what was written",
        "model_unreadable": "weights cannot be read by this user",
        "model_wanted": "tasks wait for a model that no node has, or that some lack",
        "node_ok": "nodes are heard, and take work",
        "node_none": "no node is online: tasks wait",
        "node_silent": "a node is no longer heard",
        "node_quarantined": "a node, or one of its devices, is in quarantine",
        "node_takes_nothing": "a node is online and takes no task",
        "node_device_fault": "a device of a node takes no work",
        "node_no_agent": "no agent of this user runs on this host",
        "node_spool": "results of an agent wait to be reported",
    }
)
"""Every code there is, with what it means. Codes do not change; docs/doctor.md lists them."""


@dataclass(frozen=True)
class Finding:
    """One thing that was found. ``where``: the host, node or server that it is about."""

    code: str
    level: Level
    where: str
    form: str
    fix_form: str = ""
    facts: Mapping[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if self.code not in CODES:
            raise ValueError(f"no such code: {self.code}")

    @property
    def area(self) -> str:
        return self.code.partition("_")[0]

    @property
    def found(self) -> str:
        """In English, as programs get it."""
        return self.form.format_map(self.facts)

    @property
    def fix(self) -> str:
        """A command, or a line of settings, in English; "": there is nothing to do."""
        return self.fix_form.format_map(self.facts)

    def said(self) -> tuple[str, str]:
        """What was found and the remedy, in the language that is spoken."""
        facts = {name: _said(name, value) for name, value in self.facts.items()}
        return tr(self.form, **facts), tr(self.fix_form, **facts)

    def as_dict(self) -> dict[str, str]:
        said = {"code": self.code, "level": self.level.word, "where": self.where}
        return said | {"found": self.found, "fix": self.fix}


_NOUNS = frozenset({"what"})
_SENTENCES = frozenset({"why", "hint", "said", "problem"})  # of others, in English; all other facts are names


def _said(name: str, value: Any) -> Any:
    if name in _NOUNS:
        return tr(str(value))
    return retold(str(value)) if name in _SENTENCES else value


def finding(code: str, level: Level, where: str, form: str, *, fix: str = "", **facts: Any) -> Finding:
    """What was found, as a sentence with ``{facts}``, and the remedy, which has the same facts."""
    return Finding(code, level, where, form, fix, facts)


def worst(findings: Iterable[Finding]) -> Level:
    """The greatest level there is."""
    return max((one.level for one in findings), default=Level.OK)


def in_order(findings: Iterable[Finding]) -> list[Finding]:
    """By area; in each, what matters most first."""
    areas = list(AREAS)
    return sorted(findings, key=lambda one: (areas.index(one.area), -one.level, one.where, one.code))
