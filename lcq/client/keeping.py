"""What a client can ask of keys: who may connect to the cluster's sockets (docs/enrolment.md)."""

from __future__ import annotations

from lcq.client.connection import Connection
from lcq.key_record import KeyRole
from lcq.wire import EnrolKey, InviteKey, Join, KeyAnswer, KeysAnswer, ListKeys, ReplaceKey, RevokeKey


class Keeping(Connection):
    """The questions and acts of a client on keys. ``key`` is always a public half, 64 hexadecimal digits."""

    async def keys(self) -> KeysAnswer:
        """Who may connect, who is invited, who may no more; which handshakes failed; which keys schedulers have."""
        return await self.ask(ListKeys())

    async def enrol_key(self, key: str, *, name: str, role: KeyRole, node: str = "", reason: str = "") -> KeyAnswer:
        """Let ``key`` in from now on.

        Raises:
            InvalidInput: the name is another key's.
            TransitionRefused: it is enrolled already.
        """
        return await self.ask(EnrolKey(key=key, name=name, role=role, node=node, actor=self.actor, reason=reason))

    async def invite_key(
        self, key: str, *, becomes: KeyRole, node: str = "", span_s: int = 3600, reason: str = ""
    ) -> KeyAnswer:
        """Let whoever shows ``key`` within ``span_s`` have another one enrolled, once.

        Raises:
            TransitionRefused: the scheduler asks for no keys.
        """
        asked = InviteKey(key=key, becomes=becomes, node=node, span_s=span_s, actor=self.actor, reason=reason)
        return await self.ask(asked)

    async def revoke_key(self, key: str, *, reason: str = "") -> KeyAnswer:
        """Let ``key`` in no more, and cut what is connected with it.

        Raises:
            NotFound: there is none.
            TransitionRefused: it was revoked before, or is the last operator's.
        """
        return await self.ask(RevokeKey(key=key, actor=self.actor, reason=reason))

    async def join(self, key: str, *, name: str) -> KeyAnswer:
        """With the key of a token shown: have ``key`` enrolled in its place.

        Raises:
            InvalidToken: the token is used up, over, or taken back.
            InvalidInput: the name is another key's.
        """
        return await self.ask(Join(key=key, name=name, actor=self.actor))

    async def replace_key(self, key: str) -> KeyAnswer:
        """Have ``key`` from now on, instead of the one that is shown, which works for some minutes more."""
        return await self.ask(ReplaceKey(key=key, actor=self.actor))
