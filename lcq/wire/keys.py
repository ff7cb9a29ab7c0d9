"""What may be asked about keys: who may connect to the cluster's sockets (docs/enrolment.md)."""

from __future__ import annotations

from pydantic import Field

from lcq.key_record import KEY_FORM, KEY_NAME, KeyRecord, KeyRole
from lcq.wire.acts import Act
from lcq.wire.message import Message, Request

LONGEST_INVITATION_S = 30 * 24 * 3600


class RefusedHandshakes(Message):
    """Connections that did not come about for one reason, in all, and who was the last."""

    reason: str
    count: int
    last_ms: int = 0
    last: str = ""


class KeysAnswer(Message):
    keys: tuple[KeyRecord, ...] = ()
    refused: tuple[RefusedHandshakes, ...] = ()
    server_keys: tuple[str, ...] = ()  # public halves, the one that holds now first; (): this scheduler asks for none
    now_ms: int = 0


class ListKeys(Request[KeysAnswer]):
    """Who may connect, who was invited, who may no more, and what was refused."""

    CMD = "keys"
    ANSWER = KeysAnswer
    IS_KEPT = False


class KeyAnswer(Message):
    record: KeyRecord
    server_keys: tuple[str, ...] = ()
    schedulers: tuple[str, ...] = ()  # HOST:PORT of all that live


class EnrolKey(Act[KeyAnswer]):
    """A key whose public half somebody has brought may connect from now on."""

    CMD = "enrol_key"
    ANSWER = KeyAnswer
    key: str = Field(pattern=KEY_FORM)
    name: str = Field(pattern=KEY_NAME)
    role: KeyRole
    node: str = Field(default="", max_length=64)  # of an agent: default: its name


class InviteKey(Act[KeyAnswer]):
    """Whoever shows this key may have another one enrolled, once, of the role ``becomes``."""

    CMD = "invite_key"
    ANSWER = KeyAnswer
    key: str = Field(pattern=KEY_FORM)
    becomes: KeyRole
    node: str = Field(default="", max_length=64)  # of an agent: the only node that it may be; "": as it says itself
    span_s: int = Field(default=3600, ge=1, le=LONGEST_INVITATION_S)


class RevokeKey(Act[KeyAnswer]):
    """A key may connect no more, and what is connected with it is cut."""

    CMD = "revoke_key"
    ANSWER = KeyAnswer
    key: str = Field(pattern=KEY_FORM)


class Join(Act[KeyAnswer]):
    """Said with the key of a token: have this key enrolled in its place."""

    CMD = "join"
    ANSWER = KeyAnswer
    key: str = Field(pattern=KEY_FORM)
    name: str = Field(pattern=KEY_NAME)


class ReplaceKey(Act[KeyAnswer]):
    """Said with the key that is to be replaced: from now on this one is the speaker's."""

    CMD = "replace_key"
    ANSWER = KeyAnswer
    key: str = Field(pattern=KEY_FORM)
