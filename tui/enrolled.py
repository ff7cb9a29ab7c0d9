"""The keys that may connect to the cluster's sockets as rows, and how one is revoked. No terminal here."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

from lcq.key_record import LEFT, KeyRole, told_peer, told_reason
from lcq.lang import N, tr
from lcq.query import Kind, QueryField
from lcq.task_fields import NEEDS
from tui.acts import Act
from tui.columns import Cell, Column, Tone, named
from tui.commands import Tier
from tui.text import clean, long_span, span

if TYPE_CHECKING:
    from lcq.key_record import KeyRecord
    from lcq.wire import BulkAnswer
    from lcq.wire.keys import RefusedHandshakes
    from tui.source import Commander

LOOK: Mapping[str, tuple[str, str, Tone]] = {
    "enrolled": (">", N("ENROLLED"), "good"),
    "invited": ("+", N("INVITED"), "warn"),
    N("being replaced"): ("~", N("BEING REPLACED"), "warn"),
    "over": ("-", N("EXPIRED"), "dim"),
    "used": ("-", N("USED"), "dim"),
    "replaced": ("-", N("REPLACED"), "dim"),
    "revoked": ("x", N("REVOKED"), "bad"),
}
"""By the states of keys: a letter, a word, and how that is meant. Those that are let in come first."""
LIVE = ("enrolled", "invited", N("being replaced"))
STATES = tuple(LOOK)


def in_a_filter(state: str) -> str:
    """A state as a filter names it: in one word."""
    return state.replace(" ", "-")


@dataclass(slots=True, eq=False)
class KeyRow:
    """A key that may connect, could once, or will; its id is its public half. Times are ms since 1970."""

    id: str
    name: str
    role: str
    state: str  # one of STATES
    fingerprint: str
    node: str = ""
    since_ms: int = 0
    by: str = ""
    until_ms: int = 0  # 0: it does not end by itself
    seen_ms: int = 0  # 0: it has not connected yet
    address: str = ""
    reason: str = ""  # of its revocation
    is_invitation: bool = False
    is_own: bool = False  # by it this console asks
    version: int = 0

    @property
    def haystack(self) -> str:
        words = (self.name, self.role, self.state, self.id, self.node, self.by, self.address, self.reason)
        return "\n".join(words).casefold()

    @property
    def is_live(self) -> bool:
        """Whether who has it is let in."""
        return self.state in LIVE


def key_row(record: KeyRecord, now_ms: int, own: str = "") -> KeyRow:
    """A key's record as its row. ``own``: the public half of the key by which this console asks."""
    return KeyRow(
        id=clean(record.key), name=clean(record.name),
        role=clean(record.becomes) if record.is_invitation else record.role.value,
        state=record.state_at(now_ms), fingerprint=clean(record.fingerprint), node=clean(record.node),
        since_ms=record.revoked_ms or record.at_ms, by=clean(record.revoked_by or record.by), until_ms=record.until_ms,
        seen_ms=record.seen_ms, address=clean(record.address), reason=clean(record.reason),
        is_invitation=record.is_invitation, is_own=bool(own) and record.key == own,
    )  # fmt: skip


def state_cell(row: KeyRow, _now: int = 0) -> Cell:
    """How a key stands, as letter and word."""
    letter, word, tone = LOOK[row.state]
    return f"{letter} {tr(word)}", tone


def _ago(ms: int, now_ms: int) -> Cell:
    return (span(max(0, now_ms - ms)), "plain") if ms else ("--", "dim")


def note(row: KeyRow, now_ms: int) -> Cell:
    """What else there is to know of it."""
    words = [tr("this console's own")] if row.is_own else []
    if row.node and row.node != row.name:
        words.append(tr("only as node {node}", node=row.node))
    if row.state in ("invited", N("being replaced")):
        words.append(tr("{left} left", left=long_span(max(0, row.until_ms - now_ms))))
    if row.state == "revoked":
        words.append(row.reason or tr("no reason given"))
    return ", ".join(words), "plain"


KEY_COLUMNS: tuple[Column[KeyRow], ...] = (
    Column("name", "NAME", 12, lambda row, _: (row.name, "strong" if row.is_live else "dim"), lambda row: row.name,
           most=24, snug=True),
    Column("seen", "CONNECTED", 9, lambda row, now: _ago(row.seen_ms, now), lambda row: -row.seen_ms, live=True,
           right=True),
    Column("since", "SINCE", 5, lambda row, now: _ago(row.since_ms, now), lambda row: -row.since_ms, live=True,
           right=True),
    Column("state", "STATE", 16, state_cell, lambda row: (STATES.index(row.state), row.name), snug=True),
    Column("role", "ROLE", 9, lambda row, _: (tr(row.role), "plain"), lambda row: row.role),
    Column("from", "FROM", 10, lambda row, _: (row.address or "-", "plain" if row.address else "dim"),
           lambda row: row.address, rank=2, most=24, snug=True),
    Column("by", "BY", 8, lambda row, _: (row.by or "-", "plain" if row.by else "dim"), lambda row: row.by, rank=3,
           most=20, snug=True),
    Column("key", "KEY", 16, lambda row, _: (row.fingerprint, "dim"), lambda row: row.id, rank=1),
    Column("note", "NOTE", 10, note, lambda row: note(row, 0)[0], most=400),
)  # fmt: skip

ROLES = (*(role.value for role in KeyRole if role is not KeyRole.INVITED),)

KEY_FIELDS: dict[str, QueryField[KeyRow]] = named(
    QueryField("name", Kind.TEXT, lambda row, _: row.name, "its owner's"),
    QueryField("role", Kind.CHOICE, lambda row, _: row.role, "what it is for", ROLES),
    QueryField("state", Kind.CHOICE, lambda row, _: in_a_filter(row.state), "whether it is let in",
                       tuple(map(in_a_filter, STATES))),
    QueryField("key", Kind.TEXT, lambda row, _: row.id, "its public half"),
    QueryField("from", Kind.TEXT, lambda row, _: row.address, "where it connected from last"),
    QueryField("by", Kind.TEXT, lambda row, _: row.by, "who let it in, or revoked it"),
    QueryField(
        "seen", Kind.SPAN, lambda row, now: max(0, now - row.seen_ms) if row.seen_ms else None,
        "how long ago it connected", timed=True,
    ),
    QueryField(
        "needs", Kind.CHOICE, lambda row, _: NEEDS[row.state != "invited"], "whether somebody should look", NEEDS
    ),
)  # fmt: skip


def handshakes_told(refused: tuple[RefusedHandshakes, ...], now_ms: int) -> str:
    """How many were not let in, and who was the last; "": none. Who left by itself is not counted."""
    refused = tuple(one for one in refused if one.reason != LEFT)
    if not refused:
        return ""
    last = max(refused, key=lambda one: one.last_ms)
    count = sum(one.count for one in refused)
    return tr(
        "{count:,} not let in, the last {age} ago: {who}, {why}",
        count=count, age=span(max(0, now_ms - last.last_ms)), who=clean(told_peer(last.last)),
        why=told_reason(last.reason),
    )  # fmt: skip


def revoke(row: KeyRow) -> Act:
    """It is let in no more; what is connected with it is cut. That cannot be taken back: the name of a key has to be
    typed, of an invitation that nobody has taken up it is only asked."""
    key = row.id

    async def run(commander: Commander, reason: str) -> BulkAnswer:
        from lcq.wire import BulkAnswer

        record = (await commander.revoke_key(key, reason=reason)).record
        return BulkAnswer(done=(clean(record.name),))

    title, done, go = tr("Revoke the key of {name}", name=row.name), tr("revoked the key of"), tr("Yes, revoke")
    lines = [f"{row.name}  {tr(row.role)}  {row.fingerprint}"]
    if row.is_invitation:
        lines.append(tr("Nobody can join with it any more."))
        return Act(title, done, (row.name,), Tier.COSTLY, run, tuple(lines), go)
    lines.append(tr("What is connected with it is cut at once, and it is never let in again."))
    if row.role == KeyRole.AGENT.value:
        lines.append(tr("What its node works on runs again elsewhere; to come back it has to be invited anew."))
    if row.is_own:
        lines.append(tr("It is this console's own key: after that it cannot ask or do anything here."))
    return Act(title, done, (row.name,), Tier.FINAL, run, tuple(lines), go, word=row.name)
