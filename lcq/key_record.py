"""What is known of a key that may connect to the cluster's sockets, and the closed list of what keys are for."""

from __future__ import annotations

from enum import StrEnum

from lcq.lang import N, tr
from lcq.models import Value

KEY_FORM = r"^[0-9a-f]{64}$"
"""The public half of a key, as settings, files and people have it."""
KEY_NAME = r"^[A-Za-z0-9][A-Za-z0-9._@+-]{0,63}$"
TOLD_LATE_S = 24 * 3600
"""For so long after its end an invitation is known: who comes late is told so."""


class KeyRole(StrEnum):
    """What a key is for. Of those of people each may also do what those before it may."""

    AGENT = "agent"  # speaks for one node, and does nothing else
    VIEWER = "viewer"
    SUBMITTER = "submitter"
    OPERATOR = "operator"
    INVITED = "invited"  # the key in an enrolment token: it may join, and nothing else


OF_PEOPLE = (KeyRole.VIEWER, KeyRole.SUBMITTER, KeyRole.OPERATOR)


class KeyRecord(Value):
    """A key that may connect, could once, or will. ``key``: its public half."""

    key: str
    name: str
    role: KeyRole
    node: str = ""  # the one node that an agent's key speaks for
    at_ms: int = 0  # when it was enrolled or invited, by Redis's clock
    by: str = ""
    becomes: str = ""  # of an invitation: the role of the key that takes it up
    until_ms: int = 0  # of an invitation, and of a key that another one has replaced: when it ends; 0: never
    used_by: str = ""  # of an invitation: the key that has taken it up
    revoked_ms: int = 0
    revoked_by: str = ""
    reason: str = ""  # of the revocation
    seen_ms: int = 0  # when it last connected
    address: str = ""  # from where

    @property
    def fingerprint(self) -> str:
        return fingerprint_of(self.key)

    @property
    def is_invitation(self) -> bool:
        return self.role is KeyRole.INVITED

    def is_live(self, now_ms: int) -> bool:
        """Whether whoever has it is let in. An invitation is for a day longer: who comes late is told so."""
        late_ms = TOLD_LATE_S * 1000 if self.is_invitation else 0
        return not self.revoked_ms and (not self.until_ms or now_ms < self.until_ms + late_ms)

    def state_at(self, now_ms: int) -> str:
        """How it stands then, in a word that can be translated."""
        if self.revoked_ms:
            return N("revoked")
        if self.is_invitation:
            return N("used") if self.used_by else N("invited") if now_ms < self.until_ms else N("over")
        if self.until_ms:
            return N("being replaced") if now_ms < self.until_ms else N("replaced")
        return N("enrolled")


def fingerprint_of(key: str) -> str:
    """What people tell keys by: the first 16 digits."""
    return key[:16]


LEFT = "broken_off"
"""The reason of who connected and left, as what looks whether a port is open does: nobody was refused."""
_REASONS = {
    "unknown_key": N("a key that nobody has enrolled"),
    "revoked_key": N("a key that was revoked"),
    "expired_key": N("a token or a key that is over"),
    "no_key": N("no key was shown"),
    "too_many": N("too many came at once"),
    "redis_away": N("a key that could not be looked up, for Redis was away"),
    "other_mechanism": N("somebody without a key, where one is asked for"),
    "unproven": N("somebody who knows another server's key"),
    "malformed": N("no ZeroMQ was spoken"),
    LEFT: N("the other side left during the handshake"),
}


def told_peer(last: str) -> str:
    """Who was not let in, as the gate has noted it: a key and from where; or only at which of our own addresses."""
    key, comes, place = last.partition(" from ")
    if comes:
        return tr("{key} from {place}", key=key, place=place)
    return tr("somebody at {place}", place=last.removeprefix("at ")) if last.startswith("at ") else last


def told_reason(reason: str) -> str:
    """Why handshakes failed, in words."""
    return tr(_REASONS[reason]) if reason in _REASONS else reason
