"""What is to be said of this host: versions, files with secrets, disks, limits. Reads, and changes nothing."""

from __future__ import annotations

import importlib.metadata
import os
import platform
import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from urllib.parse import unquote, urlsplit

import psutil

from lcq import __version__
from lcq.config import DiskConfig, DistributedConfig
from lcq.doctor.findings import Finding, Level, finding
from lcq.errors import InvalidConfig
from lcq.lang import N
from lcq.settings.layers import config_files, is_there
from lcq.wire import PROTOCOL_VERSION

_MIB = 2**20
_FEW_FILES, _FEWEST_FILES = 4096, 1024
_IN_MEMORY = frozenset({"tmpfs", "ramfs"})
_ON_NETWORK = frozenset({"nfs", "nfs4", "cifs", "smb3", "smbfs", "fuse.sshfs", "glusterfs", "ceph", "lustre", "9p"})
_NEEDED = re.compile(r"^(?P<name>[A-Za-z0-9._-]+)\s*(?:>=\s*(?P<least>[0-9.]+))?")


# ---------------------------------------------------------------- versions


def versions(where: str) -> Iterator[Finding]:
    """LCQ, its protocol, Python, and the libraries that LCQ was installed with."""
    found = list(_libraries(where))
    yield from found
    if not found:
        yield finding(
            "version_ok",
            Level.OK,
            where,
            N("LCQ {lcq}, protocol {protocol}, Python {python}, pyzmq {pyzmq}, redis-py {redis}"),
            lcq=__version__,
            protocol=PROTOCOL_VERSION,
            python=platform.python_version(),
            pyzmq=_version_of("pyzmq"),
            redis=_version_of("redis"),
        )


def _libraries(where: str) -> Iterator[Finding]:
    try:
        needed = importlib.metadata.requires("lcq") or ()
    except importlib.metadata.PackageNotFoundError:
        return  # run from a folder, not installed: nobody has said what it needs
    for text in needed:
        wanted = _NEEDED.match(text)
        if wanted is None or "extra ==" in text or ("sys_platform" in text and platform.system() == "Windows"):
            continue
        name, least = wanted["name"], wanted["least"] or "0"
        there = _version_of(name)
        if not there:
            yield finding(
                "version_library",
                Level.PROBLEM,
                where,
                N("{name} is not installed"),
                fix="pip install '{name}>={least}'",
                name=name,
                least=least,
            )
        elif _numbers(there) < _numbers(least):
            yield finding(
                "version_library",
                Level.PROBLEM,
                where,
                N("{name} is {there}; LCQ needs {least} or newer"),
                fix="pip install --upgrade '{name}>={least}'",
                name=name,
                there=there,
                least=least,
            )


def _version_of(name: str) -> str:
    try:
        return importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        return ""


def _numbers(version: str) -> tuple[int, ...]:
    return tuple(int(part) for part in re.findall(r"\d+", version.partition("+")[0])[:4])


# ---------------------------------------------------------------- files with secrets


def secrets(config: DistributedConfig, where: str, *, config_file: Path | None) -> Iterator[Finding]:
    """Files with keys and passwords, and the data folder: whether others can read them."""
    found = [
        *_keys(config, where),
        *_own_keys(config, where),
        *_settings_with_secrets(where, config_file),
        *_data_folder(config, where),
    ]
    yield from found
    if not any(one.level >= Level.WARNING for one in found):
        yield finding("key_ok", Level.OK, where, N("files with secrets are for their owner alone"))


def _keys(config: DistributedConfig, where: str) -> Iterator[Finding]:
    for setting, file in (
        ("discovery.key_file", config.discovery.key_file),
        ("redis.key_file", config.redis.key_file),
        ("redis.cert_file", config.redis.cert_file),
        ("redis.ca_file", config.redis.ca_file),
        ("zeromq.server_key_file", config.zeromq.server_key_file),
        ("zeromq.key_file", config.zeromq.key_file),
    ):
        if file is None:
            continue
        if not os.access(file, os.R_OK):
            yield finding(
                "key_file_missing",
                Level.PROBLEM,
                where,
                N("{setting} names {file}, which is not there, or not readable"),
                fix=N("put it there, for the user that runs LCQ: chmod 600 {file}"),
                setting=setting,
                file=str(file),
            )
        elif setting in ("discovery.key_file", "redis.key_file") and _is_open(file):
            yield _open_file(file, where)


def _own_keys(config: DistributedConfig, where: str) -> Iterator[Finding]:
    """The keys by which schedulers, agents and clients know each other: whether those that are here can be used."""
    from lcq import keyring  # here: most hosts that are looked at have none

    files = [keyring.client_file(config)]
    files += [keyring.agent_file(config, node) for node in keyring.nodes_with_keys(config)]
    looks: list[Callable[[], object]] = [partial(keyring.read_server_keys, config)]
    looks += [partial(keyring.read_credential, file) for file in dict.fromkeys(files)]
    for look in looks:
        try:
            found = look()
        except InvalidConfig as error:
            yield finding(
                "key_unusable", Level.PROBLEM, where, "{why}", fix="{hint}", why=error.message, hint=error.hint
            )
        else:
            if isinstance(found, keyring.ServerKeys) and found.coming is None:  # an older LCQ wrote the file
                yield _no_next(keyring.server_file(config), where)


def _no_next(file: Path, where: str) -> Finding:
    return finding(
        "key_no_next",
        Level.NOTE,
        where,
        N("{file} has no next key of the schedulers: a host that is away when theirs is changed has to be told it"),
        fix=N("lcq keys rotate --server makes it, and changes nothing else; copy the file to the other schedulers"),
        file=str(file),
    )


def _settings_with_secrets(where: str, config_file: Path | None) -> Iterator[Finding]:
    for file, _ in config_files(config_file):
        if is_there(file) and _is_open(file) and _has_secret(file):
            yield _open_file(file, where)


_SECRET = re.compile(r"^\s*(?:key|token|password)\s*:\s*\S|://[^/\s:]*:[^@\s]+@", re.MULTILINE)


def _has_secret(file: Path) -> bool:
    try:
        return bool(_SECRET.search(file.read_text(encoding="utf-8", errors="replace")))
    except OSError:
        return False


def _data_folder(config: DistributedConfig, where: str) -> Iterator[Finding]:
    """It has the password of a private Redis, and pictures that clients have uploaded."""
    # To pass through is no harm: an agent lets runners of another user do that (agent.runner.user).
    if config.data_path.is_dir() and _is_open(config.data_path, 0o066):
        yield finding(
            "key_file_open",
            Level.WARNING,
            where,
            N("others can look into the data folder {folder} ({mode})"),
            fix="chmod 700 {folder}",
            folder=str(config.data_path),
            mode=_mode(config.data_path),
        )


def _open_file(file: Path, where: str) -> Finding:
    return finding(
        "key_file_open",
        Level.WARNING,
        where,
        N("{file} has a secret, and others can read it ({mode})"),
        fix="chmod 600 {file}",
        file=str(file),
        mode=_mode(file),
    )


def _is_open(path: Path, to_others: int = 0o077) -> bool:
    try:
        return os.name == "posix" and bool(path.stat().st_mode & to_others)
    except OSError:
        return False


def _mode(path: Path) -> str:
    return f"{path.stat().st_mode & 0o777:04o}"


# ---------------------------------------------------------------- disks


@dataclass(frozen=True)
class Place:
    """A folder that something of LCQ is kept in. ``keeps_state``: a private Redis has its log there."""

    what: str
    folder: Path
    terms: DiskConfig
    keeps_state: bool = False


def places(config: DistributedConfig) -> list[Place]:
    """The folders that a scheduler or an agent with these settings writes to."""
    disk, blobs = config.agent.disk, config.storage.blobs
    found = [Place(N("data"), config.data_path, disk, keeps_state=config.redis.is_private)]
    found.append(Place(N("models"), config.models_path, disk))
    store = urlsplit(config.storage.url)
    if store.scheme == "file":
        found.append(Place(N("blobs"), Path(unquote(store.path)), blobs))
    elif not store.scheme:
        found.append(Place(N("blobs"), config.storage_path, blobs))
    found += [Place(N("pictures"), root, disk) for root in config.storage.roots]
    if config.http.save_folder is not None:
        found.append(Place(N("results of web apps"), config.http.save_folder, disk))
    return found


def disks(wanted: Iterable[Place], where: str) -> Iterator[Finding]:
    """Whether there is room in each place, whether it can be written, and on what kind of disk it lies."""
    kinds = _mounts()
    found: list[Finding] = []
    rooms: dict[str, str] = {}
    told: dict[str, int] = {}  # of each disk that has too little room: the floor under which that was said
    for place in wanted:
        folder = _nearest(place.folder)
        facts = {"what": place.what, "folder": str(place.folder)}
        if not os.access(folder, os.W_OK | os.X_OK):
            found.append(
                finding(
                    "disk_not_writable",
                    Level.PROBLEM,
                    where,
                    N("{folder} ({what}) cannot be written by this user"),
                    fix="sudo chown -R $USER {folder}",
                    **facts,
                )
            )
            continue
        try:
            use = psutil.disk_usage(str(folder))
        except OSError:
            continue
        floor_mib = max(place.terms.floor_mib, int(use.total / _MIB * place.terms.floor_percent / 100))
        free_mib = use.free // _MIB
        disk = str(kinds.mount_of(folder))
        is_told = told.get(disk, -1) >= floor_mib
        rooms.setdefault(disk, f"{folder} {free_mib // 1024:,} GiB")
        if free_mib < 2 * floor_mib and not is_told:
            told[disk] = floor_mib
            found.append(
                finding(
                    "disk_low",
                    Level.PROBLEM if free_mib < floor_mib else Level.WARNING,
                    where,
                    N("{folder} ({what}) has {free:,} MiB free; under {floor:,} MiB nothing new is begun"),
                    fix="du -xh --max-depth=2 {folder} | sort -h | tail",
                    free=free_mib,
                    floor=floor_mib,
                    **facts,
                )
            )
        found += _of_kind(place, kinds.kind_of(folder), where, facts)
    yield from found
    if not any(one.level >= Level.WARNING for one in found):
        yield finding("disk_ok", Level.OK, where, N("free: {rooms}"), rooms=", ".join(rooms.values()))


def _of_kind(place: Place, kind: str, where: str, facts: Mapping[str, str]) -> Iterator[Finding]:
    if not place.keeps_state:
        return
    if kind in _IN_MEMORY:
        yield finding(
            "disk_in_memory",
            Level.WARNING,
            where,
            N(
                "{folder}, with the log of the private Redis, lies in memory ({kind}): all tasks are gone with "
                "the power"
            ),
            fix="data_dir: /var/lib/lcq",
            kind=kind,
            **facts,
        )
    elif kind in _ON_NETWORK:
        yield finding(
            "disk_on_network",
            Level.WARNING,
            where,
            N("{folder}, with the log of the private Redis, lies on a network disk ({kind}): each sync waits for it"),
            fix="data_dir: /var/lib/lcq",
            kind=kind,
            **facts,
        )


@dataclass(frozen=True)
class _Mounts:
    kinds: Mapping[Path, str]

    def mount_of(self, folder: Path) -> Path:
        real = folder.resolve()
        return max(
            (one for one in self.kinds if real.is_relative_to(one)), key=lambda one: len(one.parts), default=real
        )

    def kind_of(self, folder: Path) -> str:
        return self.kinds.get(self.mount_of(folder), "")


def _mounts() -> _Mounts:
    try:
        return _Mounts({Path(one.mountpoint): one.fstype for one in psutil.disk_partitions(all=True)})
    except (OSError, psutil.Error):
        return _Mounts({})


def _nearest(folder: Path) -> Path:
    while not folder.exists() and folder != folder.parent:
        folder = folder.parent
    return folder


# ---------------------------------------------------------------- limits


def limits(where: str) -> Iterator[Finding]:
    """How many files a process may open: each agent, client and console is one to a scheduler."""
    try:
        import resource
    except ImportError:  # not on this system
        return
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft == resource.RLIM_INFINITY or soft >= _FEW_FILES:
        yield finding("limit_ok", Level.OK, where, N("{soft:,} open files"), soft=soft)
        return
    yield finding(
        "limit_files",
        Level.WARNING if soft < _FEWEST_FILES else Level.NOTE,
        where,
        N("a process started here may open {soft:,} files: a scheduler needs one for each agent, client and console"),
        fix=N("ulimit -n {more}; services made by install-service have 65536"),
        soft=soft,
        more=65536 if hard == resource.RLIM_INFINITY else min(65536, hard),
    )
