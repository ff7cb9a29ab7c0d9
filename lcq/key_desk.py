"""What people may ask of keys: who may connect, who is invited, who may no more (docs/enrolment.md)."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

from lcq.errors import InvalidInput, KeyForbids, TransitionRefused
from lcq.key_record import OF_PEOPLE, KeyRecord, KeyRole
from lcq.state.manager import StateManager
from lcq.wire import (
    EnrolKey,
    InviteKey,
    Join,
    KeyAnswer,
    KeysAnswer,
    ListKeys,
    RefusedHandshakes,
    ReplaceKey,
    RevokeKey,
)

_NODE = re.compile(r"^[A-Za-z0-9][A-Za-z0-9._-]{0,63}$")
_MAY_JOIN = (KeyRole.AGENT, *OF_PEOPLE)


class KeyDesk:
    """Answers for one scheduler. ``told``: by which keys it is known now, (): it asks for none; ``places``: where all
    schedulers are, as endpoints."""

    def __init__(
        self, state: StateManager, *, told: Callable[[], tuple[str, ...]], places: Callable[[], tuple[str, ...]]
    ) -> None:
        self._state = state
        self._told = told
        self._places = places

    @property
    def handlers(self) -> tuple[tuple[Any, Any], ...]:
        return (
            (ListKeys, self.list_keys), (EnrolKey, self.enrol), (InviteKey, self.invite), (RevokeKey, self.revoke),
            (Join, self.join), (ReplaceKey, self.replace),
        )  # fmt: skip

    async def list_keys(self, asked: ListKeys, sender: bytes) -> KeysAnswer:
        book = self._state.reader.access
        failed = [
            RefusedHandshakes(reason=one.reason, count=one.count, last_ms=one.last_ms, last=one.last)
            for one in await book.failed_handshakes()
        ]
        return KeysAnswer(
            keys=await book.records(),
            refused=tuple(failed),
            server_keys=self._told(),
            now_ms=await self._state.now_ms(),
        )

    async def enrol(self, asked: EnrolKey, sender: bytes) -> KeyAnswer:
        """Raises:
        InvalidInput: the name is another key's, or no node's.
        TransitionRefused: the key is enrolled already.
        """
        _refuse_role(asked.role)
        node = _node_of(asked.node or asked.name) if asked.role is KeyRole.AGENT else ""
        record = KeyRecord(key=asked.key, name=node or asked.name, role=asked.role, node=node, by=asked.actor)
        return self._answer(await self._state.enrol_key(record, command=asked.id))

    async def invite(self, asked: InviteKey, sender: bytes) -> KeyAnswer:
        """Raises:
        InvalidInput: there is no such role to join with, or that is no node's name.
        TransitionRefused: this scheduler asks for no keys.
        """
        _refuse_role(asked.becomes)
        if not self._told():
            raise TransitionRefused(
                "invite_key",
                "anybody to a scheduler that asks for no keys",
                "open to whoever reaches it",
                hint="make keys with 'lcq keys init', set zeromq.bind to an address of the network, and restart it",
            )
        if asked.node:
            _node_of(asked.node)
        record = KeyRecord(
            key=asked.key,
            name=asked.node or f"a new {asked.becomes}",
            role=KeyRole.INVITED,
            becomes=asked.becomes,
            node=asked.node,
            by=asked.actor,
            until_ms=asked.span_s * 1000,
        )
        return self._answer(await self._state.enrol_key(record, command=asked.id))

    async def revoke(self, asked: RevokeKey, sender: bytes) -> KeyAnswer:
        """Raises:
        NotFound: there is no such key.
        TransitionRefused: it was revoked before, or it is the last operator's.
        """
        revoked = await self._state.revoke_key(asked.key, by=asked.actor, reason=asked.reason, command=asked.id)
        return self._answer(revoked)

    async def join(self, asked: Join, sender: bytes) -> KeyAnswer:
        """Raises:
        KeyForbids: no token's key was shown.
        InvalidToken: the token is used up, over, or taken back.
        InvalidInput: the name is another key's.
        """
        token = asked.holder
        if token is None:
            raise KeyForbids("this scheduler asks for no keys: there is nothing to join", [KeyRole.INVITED.value])
        node = _node_of(asked.name) if token.becomes == KeyRole.AGENT else ""
        made = await self._state.accept_invitation(token.key, asked.key, name=asked.name, node=node, command=asked.id)
        return self._answer(made)

    async def replace(self, asked: ReplaceKey, sender: bytes) -> KeyAnswer:
        """Raises:
        KeyForbids: no key was asked for.
        NotFound: the old one is let in no more.
        """
        if asked.holder is None:
            raise KeyForbids("this scheduler asks for no keys: there is none to replace", [KeyRole.AGENT.value])
        return self._answer(await self._state.replace_key(asked.holder.key, asked.key, command=asked.id))

    def _answer(self, record: KeyRecord) -> KeyAnswer:
        places = tuple(place.removeprefix("tcp://") for place in self._places())
        return KeyAnswer(record=record, server_keys=self._told(), schedulers=places)


def _refuse_role(role: KeyRole) -> None:
    if role not in _MAY_JOIN:
        raise InvalidInput(f"nobody joins as {role}", hint="roles: " + ", ".join(_MAY_JOIN))


def _node_of(name: str) -> str:
    if not _NODE.match(name):
        raise InvalidInput(
            f"{name!r} cannot be the name of a node",
            hint="letters, digits, '.', '_' and '-', at most 64, beginning with a letter or digit",
        )
    return name
