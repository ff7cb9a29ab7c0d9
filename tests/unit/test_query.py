"""The filter language: what each word means, what is told of words that mean nothing, and that all fields agree."""

from __future__ import annotations

from dataclasses import dataclass

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lcq import query, wire
from lcq.errors import InvalidInput
from lcq.models import TaskStatus
from lcq.query import Kind, Query, QueryField, parse, parse_strictly


@dataclass(frozen=True)
class Photo:
    name: str = "scan-007.png"
    state: str = "queued"
    node: str = "gpu-01"
    size: float | None = 12.0
    age_ms: float = 60_000.0
    done: float = 0.5
    rank: str = "normal"


FIELDS: dict[str, QueryField[Photo]] = {
    "name": QueryField("name", Kind.TEXT, lambda p, _: p.name, "its name"),
    "state": QueryField(
        "state", Kind.CHOICE, lambda p, _: p.state, "", ("queued", "completed", "cancelled", "failed"),
        {"ended": ("completed", "cancelled", "failed")},
    ),
    "node": QueryField("node", Kind.TEXT, lambda p, _: p.node, ""),
    "size": QueryField("size", Kind.NUMBER, lambda p, _: p.size, ""),
    "age": QueryField("age", Kind.SPAN, lambda p, now: now + p.age_ms, "", timed=True),
    "done": QueryField("done", Kind.SHARE, lambda p, _: p.done, ""),
    "rank": QueryField("rank", Kind.ORDER, lambda p, _: p.rank, "", ("low", "normal", "high", "urgent")),
}  # fmt: skip


def haystack(photo: Photo) -> str:
    return f"{photo.name}\n{photo.state}\n{photo.node}".casefold()


def read(text: str) -> Query[Photo]:
    return parse(text, FIELDS, haystack)


def fits(text: str, photo: Photo | None = None) -> bool:
    found = read(text)
    assert not found.problem
    return found.matches(photo or Photo(), 0)


FITS = (
    "", "  ", "scan", "SCAN", "gpu-01 queued", "-failed", "!failed", '"scan-007.png"', "'gpu-01'", "-don't",
    "name:scan", "name:007|008", "name=scan-007.png", "name=a|scan-007.png", "name!=other",
    "name:*.png", "name:scan*png",
    "name~'scan-0+7'", "name~^SCAN", "name!~jpg", "node~gpu-0[123]", "~gpu-0[12]$", "?s07", "name?s7p", "-name?zz",
    "state:queued", "state:q", "state:failed|queued", "-state:ended", "state!=failed", "STATE:Queued",
    "size>2", "size<=12", "size=12", "size:12", "size!=3", "age<2m", "age>59s", "age>=1m", "age<1h30m", "age<1d",
    "age<90",
    "done>49%", "done<=50", "rank>=normal", "rank<high", "rank:normal|high", "rank!=low", "node:", "size>", "-",
    "-s3://bucket", "-c:/scans", '-"state:failed"',
)  # fmt: skip
FITS_NOT = (
    "other", "gpu-01 failed", "-queued", "name:jpg", "name=scan", "name=SCAN-007.PNG", "name!=scan-007.png",
    "name:*.jpg",
    "node~gpu-0[23]", "?70z", "state:ended", "-state:q", "size>12", "size!=12", "age<1m", "age>1h", "done>50%",
    "rank>normal", "rank<normal", "node=", "s3://bucket", '"scan 007"', "'state:queued'",
)  # fmt: skip


@pytest.mark.parametrize("text", FITS)
def test_what_fits_is_found(text: str) -> None:
    assert fits(text)


@pytest.mark.parametrize("text", FITS_NOT)
def test_what_does_not_fit_is_not(text: str) -> None:
    assert not fits(text)


def test_what_is_not_known_is_neither_more_nor_less_than_any_number() -> None:
    unknown = Photo(size=None)
    assert not fits("size>0", unknown)
    assert not fits("size<1000000", unknown)
    assert fits("-size>0", unknown)


NO_NUMBER = "size is compared with a number, found 'b' (such as size>2)"


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("nod:gpu", "no field 'nod' (did you mean 'node'?)"),
        ("colour=red", "no field 'colour' (known: name, state, node, size, age, done, rank)"),
        ("state:fialed", "state is never 'fialed' (did you mean 'failed'?)"),
        ("state:x", "state is never 'x' (known: queued, completed, cancelled, failed, ended)"),
        ("age:15m", "age is a length of time (it is asked for by < <= > >=)"),
        ("age<soon", "age is compared with a length of time, found 'soon' (such as age<15m, age>1h30m)"),
        ("size>b", NO_NUMBER),
        ("done>half", "done is compared with a percentage, found 'half' (done>50%)"),
        ("state<failed", "state is one of a list (it is asked for by : = !=)"),
        ("name~(a", "'(a' is no regular expression: missing ): (a"),
        ('name:"two words', 'the quote " is not closed'),
        ("nod:a size>b", f"no field 'nod' (did you mean 'node'?); {NO_NUMBER}"),
    ],
)  # fmt: skip
def test_what_means_nothing_is_told_and_left_out(text: str, told: str) -> None:
    assert read(text).problem == told
    assert not read(f"failed {text}").matches(Photo(), 0)  # what could be meant counts
    with pytest.raises(InvalidInput, match="cannot be read"):
        parse_strictly(text, FIELDS, haystack)


def test_a_query_too_long_to_be_a_persons_is_refused() -> None:
    assert "at most 2000 characters" in read("a" * 2001).problem
    assert wire.ListTasks.model_fields["where"].metadata[0].max_length == query.MOST_LENGTH


def test_it_tells_what_an_index_can_use() -> None:
    found = read("state:ended -state:failed node=gpu-01 age<15m age<=1h")
    assert found.only("state") == {"completed", "cancelled", "failed"}
    assert found.only("node") == {"gpu-01"}
    assert found.only("name") is None
    assert read("node:gpu").only("node") is None  # a part of a name is no name
    assert read("state:ended state=failed").only("state") == {"failed"}
    assert read("node:GPU|b").holding("node") == {"gpu", "b"}
    assert read("node=GPU").holding("node") == {"gpu"}
    assert read("-node:gpu node~gpu node:g*").holding("node") is None
    assert found.at_most("age") == 900_000
    assert read("-age<15m age>1h").at_most("age") is None


def test_it_tells_whether_the_clock_alone_changes_what_fits() -> None:
    assert read("age<15m").timed
    assert not read("state:queued scan").timed


def test_no_expression_takes_longer_than_its_text_is_long() -> None:
    """With a backtracking matcher this one would not end before the test's time is out."""
    assert not fits("name~(a+)+(a+)+$", Photo(name="a" * 60_000 + "!"))


words = st.lists(
    st.sampled_from(
        [
            "scan", "-queued", "name:0", "state:q", "-state:ended", "size>3", "age<2m", "node~0[12]", "?sp",
            "done>=50%", "rank>low",
        ]
    ),
    max_size=4,
)  # fmt: skip
photos = st.builds(
    Photo,
    st.sampled_from(["scan-007.png", "a.jpg"]),
    st.sampled_from(["queued", "failed"]),
    st.sampled_from(["gpu-01", "b"]),
    st.sampled_from([None, 1.0, 12.0]),
    st.sampled_from([1000.0, 600_000.0]),
    st.sampled_from([0.0, 1.0]),
    st.sampled_from(["low", "high"]),
)


@given(words, words, photos)
@settings(max_examples=100)
def test_all_clauses_hold_in_any_order(one: list[str], other: list[str], photo: Photo) -> None:
    both = fits(" ".join(one), photo) and fits(" ".join(other), photo)
    assert fits(" ".join([*one, *other]), photo) is both
    assert fits("   ".join(reversed([*one, *other])), photo) is both


@given(st.text(max_size=60))
@settings(max_examples=200)
def test_any_text_at_all_is_read_without_a_failure(text: str) -> None:
    read(text).matches(Photo(), 0)


def test_a_state_that_is_meant_is_told_by_its_word() -> None:
    field = QueryField("state", Kind.CHOICE, lambda task, _: task, "where it is", tuple(TaskStatus))
    query = parse("state:faild", {"state": field}, str)
    assert "(did you mean 'failed'?)" in query.problem
