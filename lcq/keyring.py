"""The keys of a host: the files that they are kept in, which of them is shown where, and enrolment tokens."""

from __future__ import annotations

import base64
import binascii
import contextlib
import hashlib
import hmac
import json
import os
import re
import stat
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from lcq.config import DistributedConfig
from lcq.embedded import read_cluster_file
from lcq.embedded_watch import write_private
from lcq.errors import InvalidConfig, InvalidToken
from lcq.key_record import KEY_FORM, TOLD_LATE_S
from lcq.private_folder import make_private
from lcq.sockets import is_loopback, key_pair_of

_KEY = re.compile(KEY_FORM)
_NODE_FILE = re.compile(r"^node-(?P<name>[A-Za-z0-9][A-Za-z0-9._-]{0,63})\.json$")
_PREFIX = "lcq1."
_CHECK_BYTES = 4
_PLACE = re.compile(r"^(\[[0-9A-Fa-f:.%]{2,64}\]|[A-Za-z0-9._-]{1,253}):[0-9]{1,5}$")


@dataclass(frozen=True)
class KeyPair:
    """Both halves of a key, 64 hexadecimal digits each. The secret one is never shown."""

    public: str
    secret: str = field(repr=False)


@dataclass(frozen=True)
class ServerKeys:
    """What schedulers prove by who they are. All schedulers of a cluster have the same.

    ``coming``: the pair that takes its place when ``lcq keys rotate --server --finish`` is said. It is made long
    before, and told to all who connect: only who was away for two changes does not know the key that holds.
    ``owners``: keys that were made with the first one, by name: operators of the first hour.
    """

    pair: KeyPair
    coming: KeyPair | None = None
    owners: Mapping[str, str] = field(default_factory=dict)

    @property
    def told(self) -> tuple[str, ...]:
        """The public halves that clients are to know, the one that holds now first."""
        return (self.pair.public, *((self.coming.public,) if self.coming else ()))


def peer_pair(pair: KeyPair) -> KeyPair:
    """What a scheduler that has ``pair`` shows another one: made of its secret half, so nobody else has it."""
    return KeyPair(*key_pair_of(hmac.digest(bytes.fromhex(pair.secret), b"lcq: one scheduler asks another", "sha256")))


@dataclass(frozen=True)
class Credential:
    """What this host shows a scheduler, and by which key it knows the scheduler. ``file``: where it is kept."""

    pair: KeyPair
    server_keys: tuple[str, ...]  # public halves, the one that held last first
    schedulers: tuple[str, ...] = ()  # HOST:PORT
    name: str = ""
    role: str = ""
    node: str = ""
    file: Path | None = None


# ---------------------------------------------------------------- files


def keys_folder(config: DistributedConfig) -> Path:
    return config.data_path / "keys"


def server_file(config: DistributedConfig) -> Path:
    """Where the schedulers' key is, or would be."""
    return config.zeromq.server_key_file or keys_folder(config) / "server.json"


def client_file(config: DistributedConfig) -> Path:
    """Where the key of this user's commands and consoles is, or would be."""
    named = f"client-{config.context}.json" if config.context else "client.json"
    return config.zeromq.key_file or keys_folder(config) / named


def agent_file(config: DistributedConfig, node: str) -> Path:
    """Where the key of the agent that is ``node`` is, or would be."""
    return config.zeromq.key_file or keys_folder(config) / f"node-{node}.json"


def nodes_with_keys(config: DistributedConfig) -> tuple[str, ...]:
    """The nodes for which agents of this data folder have keys."""
    try:
        found = [_NODE_FILE.match(file.name) for file in keys_folder(config).iterdir()]
    except OSError:
        return ()
    return tuple(sorted(match["name"] for match in found if match))


def read_server_keys(config: DistributedConfig) -> ServerKeys | None:
    """The schedulers' key; None where there is none.

    Raises:
        InvalidConfig: its file cannot be read, is not what it should be, or others can read it.
    """
    path = server_file(config)
    told = _read(path)
    if told is None:
        return None
    try:
        coming = _pair(told["coming"]) if told.get("coming") else None
        owners = {_key(key): str(name) for key, name in dict(told.get("owners") or {}).items()}
        return ServerKeys(_pair(told), coming, owners)
    except (KeyError, TypeError, ValueError) as error:
        raise _unreadable(path, f"it is not a server's key ({error})") from error


def write_server_keys(config: DistributedConfig, keys: ServerKeys) -> Path:
    told: dict[str, Any] = {**_told(keys.pair), "owners": dict(keys.owners)}
    if keys.coming is not None:
        told["coming"] = _told(keys.coming)
    return _write(server_file(config), told)


def read_credential(path: Path) -> Credential | None:
    """The key that is kept in ``path``; None where there is no such file.

    Raises:
        InvalidConfig: it cannot be read, is not what it should be, or others can read it.
    """
    told = _read(path)
    if told is None:
        return None
    try:
        server_keys = tuple(_key(one) for one in told["server_keys"])
        if not server_keys:
            raise ValueError("it names no key of a server")
        return Credential(
            pair=_pair(told),
            server_keys=server_keys,
            schedulers=tuple(str(one) for one in told.get("schedulers", ()) if _PLACE.match(str(one))),
            name=str(told.get("name", "")),
            role=str(told.get("role", "")),
            node=str(told.get("node", "")),
            file=path,
        )
    except (KeyError, TypeError, ValueError) as error:
        raise _unreadable(path, f"it is not a key ({error})") from error


def write_credential(path: Path, credential: Credential) -> Path:
    return _write(
        path,
        {
            **_told(credential.pair), "server_keys": list(credential.server_keys), "name": credential.name,
            "role": credential.role, "node": credential.node, "schedulers": list(credential.schedulers),
        },
    )  # fmt: skip


def learn_server_keys(credential: Credential, told: Sequence[str]) -> Credential:
    """Keep which keys the schedulers say that they have and will have; answers the credential with them.

    Only to be told by a scheduler that has proved that it has one of those that are known. A key that was put into the
    file meanwhile stays there.
    """
    known = tuple(dict.fromkeys(key for key in told if _KEY.match(key)))
    if not known or known == credential.server_keys:
        return credential
    if credential.file is not None:
        there = read_credential(credential.file) or credential
        write_credential(credential.file, replace(there, server_keys=known))
    return replace(credential, server_keys=known)


def tell_own_keys(config: DistributedConfig, before: ServerKeys, now: ServerKeys) -> None:
    """Let the keys of this host that know the schedulers by one of ``before`` know them by those that they have now.

    One that cannot be used stays as it is.
    """
    for path in (client_file(config), *(agent_file(config, node) for node in nodes_with_keys(config))):
        with contextlib.suppress(InvalidConfig):
            credential = read_credential(path)
            if credential is not None and set(credential.server_keys) & set(before.told):
                write_credential(path, replace(credential, server_keys=now.told))


def _told(pair: KeyPair) -> dict[str, Any]:
    return {"public": pair.public, "secret": pair.secret}


def _pair(told: Mapping[str, Any]) -> KeyPair:
    return KeyPair(_key(told["public"]), _key(told["secret"]))


def _key(text: Any) -> str:
    if not isinstance(text, str) or not _KEY.match(text):
        raise ValueError("a key is 64 hexadecimal digits")
    return text


def _unreadable(path: Path, why: str) -> InvalidConfig:
    return InvalidConfig(
        f"the key in {path} cannot be used: {why}", hint="have the host join again: 'lcq keys invite' makes a token"
    )


def _read(path: Path) -> dict[str, Any] | None:
    """Raises:
    InvalidConfig: others than its owner can read it, or nobody can.
    """
    try:
        with path.open("rb") as file:
            refuse_open_file(path, os.fstat(file.fileno()))
            told = json.loads(file.read())
    except FileNotFoundError:
        return None
    except (OSError, ValueError) as error:
        why = error.strerror if isinstance(error, OSError) and error.strerror else "it is no JSON"
        raise _unreadable(path, why) from error
    if not isinstance(told, dict):
        raise _unreadable(path, "it is no JSON object")
    return told


def refuse_open_file(path: Path, found: os.stat_result) -> None:
    """Raises:
    InvalidConfig: somebody else can read it. A file of root's may be readable by a group, as secrets are mounted.
    """
    allowed = 0o740 if found.st_uid == 0 else 0o700
    others = stat.S_IMODE(found.st_mode) & 0o777 & ~allowed
    if others:
        raise InvalidConfig(
            f"{path} holds a secret key, and its mode is {stat.S_IMODE(found.st_mode):04o}: others can read it",
            hint=f"chmod 600 {path}; and if others have been on this host, have it join again with a new key",
        )
    if found.st_uid not in (0, os.geteuid()):
        raise InvalidConfig(
            f"{path} holds a secret key, and belongs to user {found.st_uid}", hint=f"chown it to user {os.geteuid()}"
        )


def _write(path: Path, told: Mapping[str, Any]) -> Path:
    """Raises:
    InvalidConfig: the disk does not take it.
    """
    try:
        make_private(path.parent)
        write_private(path, json.dumps(told, indent=1).encode() + b"\n")
    except OSError as error:
        raise InvalidConfig(
            f"the key cannot be kept in {path}: {error.strerror}", hint="see data_dir, or zeromq.key_file"
        ) from error
    return path


# ---------------------------------------------------------------- which key is shown where


def is_keyed(config: DistributedConfig) -> bool:
    """Whether a scheduler with these settings lets in only who has a key: off loopback, where there is one."""
    off_loopback = not is_loopback(config.zeromq.bind) or config.zeromq.curve == "always"
    return off_loopback and (config.zeromq.server_key_file is not None or server_file(config).exists())


def credential_for(config: DistributedConfig, endpoints: Sequence[str], path: Path) -> Credential | None:
    """The key in ``path`` where it is to be shown to the schedulers at ``endpoints``; None: none is needed there.

    On loopback none is, unless the key was made for just that address, or ``zeromq.curve`` is "always", or the
    cluster that runs on this data folder asks for keys.

    Raises:
        InvalidConfig: the file cannot be used, or is missing although keys are always to be shown.
    """
    credential = read_credential(path)
    if credential is None:
        if config.zeromq.curve == "always":
            raise InvalidConfig(
                f'zeromq.curve is "always", and there is no key in {path}',
                hint="'lcq keys init' makes the first ones, a token of 'lcq keys invite' the others: 'lcq keys join'",
            )
        return None
    if config.zeromq.curve == "always":
        return credential
    if any(not is_loopback(host_of(endpoint)) for endpoint in endpoints):
        return credential
    if any(endpoint.removeprefix("tcp://") in credential.schedulers for endpoint in endpoints):
        return credential
    cluster = read_cluster_file(config.data_path)
    if cluster is not None and cluster.is_keyed and cluster.port in {one.rpartition(":")[2] for one in endpoints}:
        return credential
    return None


def host_of(endpoint: str) -> str:
    """The host in "tcp://HOST:PORT"."""
    return endpoint.removeprefix("tcp://").rpartition(":")[0].strip("[]")


# ---------------------------------------------------------------- enrolment tokens


@dataclass(frozen=True)
class Token:
    """What ``lcq keys invite`` prints: a key that may join once, the schedulers' key, and where they are.

    ``until_s``: seconds since 1970.
    """

    pair: KeyPair
    server_key: str
    schedulers: tuple[str, ...]
    role: str
    node: str = ""
    until_s: int = 0

    def __str__(self) -> str:
        words = [
            self.pair.public, self.pair.secret, self.server_key, ",".join(self.schedulers), self.role, self.node,
            str(self.until_s),
        ]  # fmt: skip
        raw = b"".join(bytes.fromhex(word) for word in words[:3]) + "\n".join(words[3:]).encode()
        return _PREFIX + base64.urlsafe_b64encode(raw + _check(raw)).decode().rstrip("=")

    @property
    def credential(self) -> Credential:
        return Credential(self.pair, (self.server_key,), self.schedulers, role="invited")


def read_token(text: str, *, now_s: float | None = None) -> Token:
    """Raises:
    InvalidToken: it is none, was not copied whole, or is over.
    """
    text = "".join(text.split())  # a mail may have broken the line
    if not text.startswith(_PREFIX):
        raise InvalidToken(f"it does not begin with {_PREFIX}")
    try:
        body = text.removeprefix(_PREFIX)
        raw = base64.b64decode(body + "=" * (-len(body) % 4), altchars=b"-_", validate=True)
        raw, check = raw[:-_CHECK_BYTES], raw[-_CHECK_BYTES:]
        if len(raw) < 96 or check != _check(raw):
            raise InvalidToken("it was not copied whole, or has changed on the way", hint="copy it once more, whole")
        schedulers, role, node, until_s = raw[96:].decode().split("\n")
        keys = [raw[start : start + 32].hex() for start in (0, 32, 64)]
        token = Token(KeyPair(keys[0], keys[1]), keys[2], tuple(schedulers.split(",")), role, node, int(until_s))
    except (binascii.Error, ValueError, UnicodeDecodeError) as error:
        raise InvalidToken("it was not copied whole, or has changed on the way") from error
    if not all(_PLACE.match(place) for place in token.schedulers):
        raise InvalidToken("it names no address of a scheduler")
    late_s = (time.time() if now_s is None else now_s) - token.until_s
    if late_s > TOLD_LATE_S:  # before that the scheduler tells: this host's clock may be wrong
        raise InvalidToken(f"it ended {late_s / 3600:.0f} hours ago, by this host's clock")
    return token


def _check(raw: bytes) -> bytes:
    return hashlib.sha256(raw).digest()[:_CHECK_BYTES]
