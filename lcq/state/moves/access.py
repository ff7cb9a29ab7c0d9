"""The moves that change who may connect to the cluster's sockets."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import timedelta

from lcq.errors import InvalidInput, InvalidToken, NotFound, TransitionRefused
from lcq.key_record import KeyRecord, KeyRole
from lcq.state.access import key_record
from lcq.state.moves.mover import Mover

MOST_KEYS = 4096
REPLACED_KEPT = timedelta(minutes=10)
"""For so long a key still works that another one has taken the place of."""


class AccessMoves(Mover):
    """Keys: enrolled, invited, revoked, replaced."""

    async def enrol_key(self, record: KeyRecord, *, command: str = "") -> KeyRecord:
        """Let a key in from now on. An invitation's ``until_ms`` is told as a span from now.

        Raises:
            InvalidInput: another key has its name, or speaks for its node; or there are too many.
            TransitionRefused: it is enrolled already.
        """
        answer = await self._move("enrol_key", record.key, _told(record), "new", MOST_KEYS, command=command)
        if answer[0] == "known":
            known = key_record(answer[1])
            raise TransitionRefused("enrol_key", f"key {known.fingerprint}", f"enrolled as {known.name}, {known.role}")
        return self._made(answer)

    async def enrol_owners(self, owners: Mapping[str, str]) -> None:
        """See that the operators' keys that were made with the schedulers' are there; not those that were revoked."""
        for key, name in owners.items():
            record = KeyRecord(key=key, name=name, role=KeyRole.OPERATOR, by="lcq keys init")
            await self._move("enrol_key", key, _told(record), "owner", MOST_KEYS)

    async def accept_invitation(self, token: str, key: str, *, name: str, node: str, command: str = "") -> KeyRecord:
        """Enrol ``key`` in the name of an invitation, which is used up by that.

        Raises:
            InvalidToken: it is used up, over, or was taken back.
            InvalidInput: another key has its name, or speaks for its node.
        """
        answer = await self._move("accept_invitation", token, key, name, node, command=command)
        if answer[0] == "unknown":
            raise InvalidToken("it was taken back")
        if answer[0] == "used":
            raise InvalidToken(f"it was used already, by {key_record(answer[1]).name}" if answer[1] else "it was used")
        if answer[0] == "expired":
            raise InvalidToken("it is over")
        return self._made(answer)

    async def revoke_key(self, key: str, *, by: str, reason: str = "", command: str = "") -> KeyRecord:
        """Let a key in no more, and cut what is connected with it.

        Raises:
            NotFound: there is none.
            TransitionRefused: it was revoked before, or no operator would be left.
        """
        answer = await self._move("revoke_key", key, by, reason, command=command)
        if answer[0] == "missing":
            raise NotFound(f"no key {key[:16]!r}", hint="lcq keys list shows them")
        if answer[0] == "last":
            raise TransitionRefused(
                "revoke_key", f"key {key[:16]}", "the last one of an operator", hint="enrol another operator first"
            )
        if answer[0] == "again":
            raise TransitionRefused("revoke_key", f"key {key[:16]}", "revoked already")
        return key_record(answer[1])

    async def replace_key(self, old: str, new: str, *, command: str = "") -> KeyRecord:
        """Give who has a key another one. The old one works for another ``REPLACED_KEPT``.

        Raises:
            NotFound: the old one is not let in any more.
        """
        answer = await self._move("replace_key", old, new, REPLACED_KEPT // timedelta(milliseconds=1), command=command)
        if answer[0] == "missing":
            raise NotFound(f"no key {old[:16]!r} that may connect", hint="lcq keys list shows them")
        return key_record(answer[1])

    async def note_handshakes(
        self, refused: Mapping[str, int], last: Mapping[str, str], seen: Mapping[str, str]
    ) -> None:
        """Count handshakes that failed, by reason, with who was the last; and keep which keys came, and from where."""
        reasons = [word for name, count in refused.items() for word in (name, count, last.get(name, ""))]
        await self._move("note_handshakes", len(refused), *reasons, *(word for pair in seen.items() for word in pair))

    def _made(self, answer: list[str]) -> KeyRecord:
        if answer[0] == "taken":
            holder = key_record(answer[2])
            raise InvalidInput(
                f"{answer[1]} has a key already: {holder.fingerprint}",
                hint=f"take another --name, or revoke that one first: lcq keys revoke {holder.fingerprint}",
            )
        if answer[0] == "full":
            raise InvalidInput(f"there are {MOST_KEYS} keys already", hint="revoke some: lcq keys list")
        return key_record(answer[1])


def _told(record: KeyRecord) -> str:
    return record.model_dump_json()
