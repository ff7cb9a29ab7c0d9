"""The view of keys: who may connect, as letter and word; how one is revoked, and that this is asked twice."""

from __future__ import annotations

from lcq.key_record import KeyRecord, KeyRole
from lcq.wire.keys import RefusedHandshakes
from tests.conftest import wait_until
from tests.tui.fakes import FakeCluster, now_ms
from tui.commands import Tier
from tui.enrolled import KEY_FIELDS, handshakes_told, key_row, note, revoke, state_cell

NOW = 1_800_000_000_000
AGENT, ANN, TOKEN = "a" * 64, "b" * 64, "c" * 64


def a_key(key: str = AGENT, name: str = "gpu-7", role: KeyRole = KeyRole.AGENT, **more: object) -> KeyRecord:
    node = name if role is KeyRole.AGENT else ""
    return KeyRecord.model_validate({"key": key, "name": name, "role": role, "node": node, "at_ms": NOW} | more)


def test_every_state_of_a_key_has_a_letter_and_a_word():
    states = {
        "> ENROLLED": a_key(),
        "+ INVITED": a_key(role=KeyRole.INVITED, becomes="viewer", until_ms=NOW + 1),
        "- EXPIRED": a_key(role=KeyRole.INVITED, becomes="viewer", until_ms=NOW),
        "- USED": a_key(role=KeyRole.INVITED, becomes="viewer", until_ms=NOW + 1, used_by=ANN),
        "~ BEING REPLACED": a_key(until_ms=NOW + 1),
        "- REPLACED": a_key(until_ms=NOW),
        "x REVOKED": a_key(revoked_ms=NOW),
    }
    assert {state_cell(key_row(record, NOW))[0]: record for record in states.values()} == states
    names = {key_row(record, NOW).state for record in states.values()}
    assert {KEY_FIELDS["state"].get(key_row(one, NOW), NOW) for one in states.values()} == set(
        KEY_FIELDS["state"].choices
    )
    assert len(names) == 7
    assert key_row(states["+ INVITED"], NOW).role == "viewer"


def test_to_revoke_a_key_its_name_is_typed_and_ones_own_is_told_of():
    act = revoke(key_row(a_key(), NOW, own=AGENT))
    assert (act.tier, act.word) == (Tier.FINAL, "gpu-7")
    assert any("own key" in line for line in act.lines)
    assert any("again elsewhere" in line for line in act.lines)
    assert "this console's own" in note(key_row(a_key(), NOW, own=AGENT), NOW)[0]
    token = revoke(key_row(a_key(TOKEN, "a new viewer", KeyRole.INVITED, becomes="viewer", until_ms=NOW + 1), NOW))
    assert (token.tier, token.word) == (Tier.COSTLY, ""), "nobody has it yet: to ask is enough"


def test_handshakes_that_failed_are_counted_with_who_was_the_last():
    failed = (
        RefusedHandshakes(reason="unknown_key", count=3, last_ms=NOW - 60_000, last="10.0.0.9"),
        RefusedHandshakes(reason="no_key", count=1, last_ms=NOW - 5_000, last="10.0.0.8"),
    )
    assert handshakes_told(failed, NOW) == "4 not let in, the last 5s ago: 10.0.0.8, no key was shown"
    left = RefusedHandshakes(reason="broken_off", count=7, last_ms=NOW, last="at 10.0.0.1:5571")  # 'lcq doctor' looked
    assert handshakes_told((*failed, left), NOW) == handshakes_told(failed, NOW)
    assert handshakes_told((), NOW) == ""


async def test_a_key_is_revoked_once_its_name_was_typed(open_console):
    cluster = FakeCluster()
    cluster.key_records = {AGENT: a_key(at_ms=now_ms()), ANN: a_key(ANN, "ann", KeyRole.OPERATOR, at_ms=now_ms())}
    async with open_console(cluster, size=(80, 24)) as console:
        await console.press("9")
        await wait_until(lambda: "gpu-7" in console.text(), what="the keys to be listed")
        assert "2 keys   2 enrolled" in console.text()
        console.app.screen_stack[0].view.move_to(1)
        await console.press("X")
        await wait_until(lambda: "Revoke the key of gpu-7?" in console.text())
        await console.press("y", "enter")
        await wait_until(lambda: "type gpu-7 here first" in console.text())
        assert not cluster.calls
        await console.press(*(["backspace"] * 3), *"gpu-7", "enter")
        await wait_until(lambda: "x REVOKED" in console.text(), what="the revocation to be seen")
        assert [what for name, what in cluster.calls if name == "revoke_key"] == [(AGENT, "")]
