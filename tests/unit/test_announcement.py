"""What is said on the LAN: its form, its signature, what of it is believed, which cluster is chosen."""

from __future__ import annotations

import ipaddress
from dataclasses import fields, replace
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lcq.announcement import (
    SPAN_S,
    Announcement,
    Ignored,
    Sighting,
    Signed,
    Terms,
    choose,
    judge,
    read_txt,
)
from lcq.errors import InvalidInput

KEY, OTHER_KEY = b"0123456789abcdef", b"fedcba9876543210"
NOW = 1_700_000_000
SAID = Announcement(
    scheduler="gpu-1-77-abc", cluster="studio", cluster_id="1m8ktrg04r8wd66p", addresses=("10.0.0.5", "10.1.0.5"),
    port=5571, protocol=2, oldest=1, version="0.1.0", at_s=NOW,
)  # fmt: skip
LAN = ipaddress.ip_network("10.0.0.0/24")
TERMS = Terms(key=None, cluster="", networks=(LAN,), protocol=2)
KEYED = replace(TERMS, key=KEY)


def judged(said: Announcement = SAID, terms: Terms = TERMS, *, key: bytes | None = None, now: float = NOW) -> Sighting:
    return judge("s1", said.to_txt(key), terms, now)


def test_what_was_said_is_read_as_it_was_said() -> None:
    assert read_txt(SAID.to_txt(None)) == (SAID, "")
    said, signature = read_txt(SAID.to_txt(KEY))
    assert said == SAID
    assert signature == SAID.signature(KEY)


def test_an_unsigned_word_is_taken_where_there_is_no_key_and_only_within_the_lan() -> None:
    seen = judged()
    assert (seen.endpoints, seen.signed, seen.ignored) == (("tcp://10.0.0.5:5571",), Signed.NO, None)


def test_a_signed_word_is_taken_with_all_its_addresses_the_near_ones_first() -> None:
    said = replace(SAID, addresses=("10.1.0.5", "10.0.0.5"))
    seen = judged(said, KEYED, key=KEY)
    assert (seen.endpoints, seen.signed) == (("tcp://10.0.0.5:5571", "tcp://10.1.0.5:5571"), Signed.YES)


def test_a_signature_that_cannot_be_checked_is_said_to_be_so() -> None:
    assert judged(key=KEY).signed is Signed.UNCHECKED


@pytest.mark.parametrize(
    ("key", "code"),
    [(None, Ignored.UNSIGNED), (OTHER_KEY, Ignored.WRONG_SIGNATURE), (KEY + b"x", Ignored.WRONG_SIGNATURE)],
)
def test_with_a_key_nothing_is_believed_that_is_not_signed_by_it(key: bytes | None, code: Ignored) -> None:
    seen = judged(SAID, KEYED, key=key)
    assert (seen.endpoints, seen.ignored) == ((), code)


CHANGED: dict[str, Any] = {
    "scheduler": "gpu-2", "cluster": "other", "cluster_id": "1m8ktrg04r8wd66q", "addresses": ("10.0.0.6",),
    "port": 5572, "protocol": 3, "oldest": 2, "version": "0.1.1", "at_s": NOW + 1,
}  # fmt: skip


def test_each_field_has_a_change_below() -> None:
    assert set(CHANGED) == {field.name for field in fields(Announcement)}


@pytest.mark.parametrize("name", CHANGED)
def test_a_signed_word_of_which_one_field_was_changed_is_not_believed(name: str) -> None:
    forged = replace(SAID, **{name: CHANGED[name]}).to_txt(None) | {"sig": SAID.signature(KEY)}
    assert judge("s1", forged, KEYED, NOW).ignored is Ignored.WRONG_SIGNATURE


@pytest.mark.parametrize(
    ("late_s", "code"), [(SPAN_S, None), (-SPAN_S, None), (SPAN_S + 1, Ignored.STALE), (-SPAN_S - 1, Ignored.STALE)]
)
def test_a_signed_word_holds_for_its_span(late_s: int, code: Ignored | None) -> None:
    assert judged(SAID, KEYED, key=KEY, now=NOW + late_s).ignored is code


def test_how_far_off_a_stale_word_is_stands_in_the_reason() -> None:
    assert "3600 s before our time" in judged(SAID, KEYED, key=KEY, now=NOW + 3600).why
    assert "3600 s after our time" in judged(SAID, KEYED, key=KEY, now=NOW - 3600).why


@pytest.mark.parametrize("wanted", ["studio", SAID.cluster_id])
def test_a_cluster_is_wanted_by_its_name_or_its_id(wanted: str) -> None:
    assert judged(terms=replace(TERMS, cluster=wanted)).endpoints
    seen = judged(replace(SAID, cluster="x", cluster_id="y"), replace(TERMS, cluster=wanted))
    assert (seen.ignored, seen.why) == (Ignored.OTHER_CLUSTER, f"it is of cluster x, wanted is {wanted}")


@pytest.mark.parametrize(("protocol", "code"), [(1, None), (2, None), (3, Ignored.OTHER_PROTOCOL)])
def test_a_scheduler_that_does_not_speak_our_protocol_is_told_apart(protocol: int, code: Ignored | None) -> None:
    assert judged(terms=replace(TERMS, protocol=protocol)).ignored is code


@pytest.mark.parametrize(
    "address", ["127.0.0.1", "0.0.0.0", "224.0.0.251", "255.255.255.255", "8.8.8.8", "::", "::1", "ff02::fb", "fe80::1",
                "::ffff:10.0.0.5"],
)  # fmt: skip
def test_an_unsigned_word_leads_nowhere_but_into_the_lan(address: str) -> None:
    seen = judged(replace(SAID, addresses=(address,)))
    assert (seen.endpoints, seen.ignored) == ((), Ignored.NO_ADDRESS)


def test_loopback_is_taken_only_by_who_listens_there() -> None:
    said = replace(SAID, addresses=("127.0.0.1",))
    assert judged(said, replace(TERMS, may_be_loopback=True)).endpoints == ("tcp://127.0.0.1:5571",)
    assert judged(said, KEYED, key=KEY).ignored is Ignored.NO_ADDRESS


def test_an_address_that_this_host_has_too_leads_there_only_where_no_other_is_near() -> None:
    docker = ipaddress.ip_network("172.17.0.0/16")
    terms = replace(TERMS, networks=(LAN, docker), own=frozenset({"172.17.0.1", "10.0.0.9"}))
    said = replace(SAID, addresses=("172.17.0.1", "10.0.0.5"))
    assert judged(said, terms).endpoints == ("tcp://10.0.0.5:5571",)
    here = replace(SAID, addresses=("172.17.0.1", "10.0.0.9"))
    assert judged(here, terms).endpoints == ("tcp://172.17.0.1:5571", "tcp://10.0.0.9:5571")


def test_an_ipv6_address_is_an_endpoint_too() -> None:
    terms = replace(TERMS, networks=(LAN, ipaddress.ip_network("fd00::/64")))
    assert judged(replace(SAID, addresses=("fd00::5",)), terms).endpoints == ("tcp://[fd00::5]:5571",)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("form", "2"), ("form", ""), ("scheduler", ""), ("scheduler", "a b"), ("scheduler", "x" * 65),
        ("cluster", "\x1b[31mred"), ("cluster", "a\nb"), ("id", "é"), ("addresses", ""), ("addresses", "gpu-1"),
        ("addresses", "10.0.0.5," * 17), ("addresses", "10.0.0.5;rm"), ("port", "0"), ("port", "65536"), ("port", "-1"),
        ("port", "5571 "), ("port", "٣"), ("protocol", "two"), ("oldest", ""), ("version", "<b>"), ("at", "1e9"),
        ("at", "9" * 5000), ("sig", "no"), ("sig", "A" * 64),
    ],
)  # fmt: skip
def test_what_is_not_in_our_form_is_refused_and_printed_safely(name: str, value: str) -> None:
    txt = SAID.to_txt(KEY) | {name: value}
    with pytest.raises(InvalidInput) as refused:
        read_txt(txt)
    assert refused.value.message.isprintable()
    assert len(refused.value.message) < 200
    seen = judge("evil\x1b]0;title\x07", txt, KEYED, NOW)
    assert (seen.ignored, seen.announcement) == (Ignored.MALFORMED, None)
    assert seen.name.isprintable()


@given(st.dictionaries(st.sampled_from(sorted(SAID.to_txt(KEY))) | st.text(), st.text(), max_size=12))
@settings(max_examples=200, deadline=None)
def test_no_record_whatever_breaks_the_reader(txt: dict[str, str]) -> None:
    for said in (txt, SAID.to_txt(KEY) | txt):
        seen = judge("x", said, KEYED, NOW)
        assert seen.why.isprintable()
        assert seen.ignored or seen.announcement == SAID


def test_addresses_that_do_not_fit_into_a_record_are_left_out_and_the_signature_holds() -> None:
    many = tuple(f"fd00:1234:5678:9abc:def0:1234:5678:{number:04x}" for number in range(40))
    txt = replace(SAID, addresses=many).to_txt(KEY)
    assert all(len(f"{name}={value}".encode()) <= 255 for name, value in txt.items())
    said, signature = read_txt(txt)
    assert said.addresses == many[: len(said.addresses)]
    assert signature == said.signature(KEY)


def seen_as(name: str, cluster_id: str, address: str, cluster: str = "lcq") -> Sighting:
    said = replace(SAID, scheduler=name, cluster=cluster, cluster_id=cluster_id, addresses=(address,))
    return judge(name, said.to_txt(None), TERMS, NOW)


def test_all_schedulers_of_one_cluster_are_used() -> None:
    choice = choose([seen_as("b", "one", "10.0.0.6"), seen_as("a", "one", "10.0.0.5")])
    assert choice.endpoints == ("tcp://10.0.0.5:5571", "tcp://10.0.0.6:5571")


def test_of_two_clusters_none_is_taken_and_both_are_named() -> None:
    choice = choose([seen_as("a", "one", "10.0.0.5"), seen_as("b", "two", "10.0.0.6")])
    assert choice.endpoints == ()
    assert choice.why == "2 clusters are announced here: lcq (one, at 10.0.0.5:5571), lcq (two, at 10.0.0.6:5571)"


def test_who_ignored_everything_says_why_and_who_saw_nothing_says_nothing() -> None:
    assert choose([]).why == ""
    ignored = judged(SAID, KEYED)
    assert choose([ignored]).why == f"1 announcements are ignored: {ignored.why}"
    assert choose([ignored, seen_as("a", "one", "10.0.0.5")]).endpoints == ("tcp://10.0.0.5:5571",)
