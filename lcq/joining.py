"""How a host gets its key: it makes one, shows the token's once, and keeps its own where it belongs."""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

from lcq.client.keeping import Keeping
from lcq.client.login import login_name
from lcq.config import DistributedConfig
from lcq.errors import InvalidConfig, InvalidInput, KeyForbids
from lcq.keyring import Credential, KeyPair, Token, read_credential, write_credential
from lcq.sockets import new_key_pair
from lcq.wire import KeyAnswer


async def join(
    config: DistributedConfig,
    token: Token,
    *,
    name: str,
    file_of: Callable[[str], Path],
    timeout_s: float = 15.0,
    replaces: bool = False,
) -> Credential:
    """Take a token up: afterwards this host has a key of its own, in ``file_of(name)``.

    ``name``: what it is to be called, for an agent its node; the token may say otherwise. ``replaces``: also where
    there is a key already.

    Raises:
        InvalidToken: it is used up, over, or was taken back.
        InvalidInput: the name is another key's; or there is a key here already.
        NotAdmitted, SchedulerUnreachable: the scheduler does not know the token, or does not answer.
        InvalidConfig: the key cannot be kept here; then the token is still good.
    """
    name = token.node or name
    path = file_of(name)
    _refuse_other(path, replaces=replaces)
    made = Credential(
        KeyPair(*new_key_pair()), (token.server_key,), token.schedulers, name, token.role, token.node, path
    )
    draft = path.with_name(f"{path.name}.joining")
    write_credential(draft, made)  # before the token is used up: a disk may be full
    try:
        async with _Joiner(
            config, ",".join(token.schedulers), login_name(), timeout_s, credential=token.credential
        ) as client:
            answer = await client.join(made.pair.public, name=name)
        joined = _as_told(made, answer)
        joined = replace(joined, file=write_credential(file_of(joined.node or name), joined))
    finally:
        draft.unlink(missing_ok=True)
    return joined


class _Joiner(Keeping):
    """A client that shows a token's key."""


def _as_told(made: Credential, answer: KeyAnswer) -> Credential:
    record = answer.record
    known = tuple(dict.fromkeys((*made.schedulers, *answer.schedulers)))
    return replace(
        made,
        name=record.name,
        role=record.role.value,
        node=record.node,
        server_keys=answer.server_keys or made.server_keys,
        schedulers=known,
    )


def _refuse_other(path: Path, *, replaces: bool) -> None:
    try:
        there = read_credential(path)
    except InvalidConfig:
        if replaces:
            return
        raise
    if there is not None and not replaces:
        raise InvalidInput(
            f"there is a key already, of {there.name or 'nobody'} ({there.role}): {path}",
            hint="it goes on working as it is; --replace takes another one in its place",
        )


async def change_key(client: Keeping, credential: Credential) -> Credential:
    """Have another key in the place of this one, in the same file.

    The new one is on the disk before the scheduler is asked, and the old one works for some minutes more.

    Raises:
        NotFound: the old one is let in no more.
        InvalidConfig: it cannot be kept here.
    """
    if credential.file is None:
        raise InvalidInput("that key is in no file", hint="only one that is kept can be changed")
    made = replace(credential, pair=KeyPair(*new_key_pair()))
    draft = credential.file.with_name(f"{credential.file.name}.changing")
    write_credential(draft, made)
    answer = await client.replace_key(made.pair.public)
    made = replace(made, server_keys=answer.server_keys or made.server_keys)  # they may be about to change theirs
    write_credential(credential.file, made)
    draft.unlink(missing_ok=True)
    return made


async def trust_server(
    config: DistributedConfig,
    credential: Credential,
    server_key: str,
    *,
    scheduler: str | None,
    timeout_s: float = 15.0,
) -> Credential:
    """Know the schedulers by ``server_key`` from now on, and by no other; its file is written once one has proved it.

    For who was away while they changed theirs: somebody has to bring it here from where it can be believed.

    Raises:
        NotAdmitted, SchedulerUnreachable: no scheduler at ``scheduler`` has that key, or none answers.
        InvalidConfig: it cannot be kept here.
    """
    trusted = replace(credential, server_keys=(server_key,))
    async with Keeping(config, scheduler, login_name(), timeout_s, credential=replace(trusted, file=None)) as client:
        with contextlib.suppress(KeyForbids):  # which only one whom we know has said
            await client.keys()
    if trusted.file is not None:
        write_credential(trusted.file, trusted)
    return trusted
