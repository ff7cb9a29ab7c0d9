"""The errors: one tree, one code each, one line each, the same again after the wire."""

from __future__ import annotations

import re

import pytest

from lcq import errors
from lcq.errors import (
    ERROR_BY_CODE,
    AddressBusy,
    AddressUnknown,
    AddressUsed,
    AlertNotFound,
    AmbiguousId,
    CauseNotFound,
    DiskFull,
    DownloadFailed,
    IdempotencyConflict,
    InvalidToken,
    JobNotFound,
    KeyForbids,
    LcqError,
    NodeNotFound,
    NotAdmitted,
    NotSilenced,
    SchedulerUnreachable,
    StaleBoot,
    StateOverloaded,
    StateUnavailable,
    TaskNotFound,
    TransitionRefused,
    UnknownModel,
    UnknownQueue,
    WeightsNotInstalled,
    WeightsRefused,
    error_from_wire,
)

KINDS = [kind for kind in vars(errors).values() if isinstance(kind, type) and issubclass(kind, LcqError)]
SECRET = "redis://user:hunter2@host:6379/0"
MADE = [
    UnknownModel("lamma", ["lama", "mat"], image="cat.png"),
    UnknownQueue("gpu", []),
    AmbiguousId("1m", ["1m1", "1m2", "1m3", "1m4"]),
    TaskNotFound("1m84"),
    NodeNotFound("node-9"),
    JobNotFound("wedding"),
    CauseNotFound("out_of_memory", "tried <n> GiB"),
    AlertNotFound("rule", "disc", ["disk", "node-down"]),
    NotSilenced("disk"),
    TransitionRefused("cancel_task", "task 1m84", "completed", hint="look again"),
    IdempotencyConflict("key", "1m84"),
    StaleBoot("node-1"),
    SchedulerUnreachable("tcp://localhost:5571", 5.0),
    StateUnavailable(SECRET, "Connection refused"),
    StateOverloaded(SECRET),
    WeightsRefused("best.ckpt", "it is empty", hint="get the file anew"),
    WeightsNotInstalled("lama", "its weights have 3 bytes"),
    DownloadFailed("lama", ["http://a answered 404", "/b is no file"], hint="lcq models add FILE"),
    DiskFull("/models", "195.1 MiB needed"),
    InvalidToken("it was used already, by gpu-1"),
    KeyForbids("ann, whose key is a viewer's, may not cancel", ["operator"]),
    AddressUnknown(),
    AddressUsed(),
    AddressBusy(3.0),
    NotAdmitted("tcp://gpu-1:5571", "asks for no key", hint="is it the right scheduler?"),
]


def test_the_tree_at_the_top_of_the_file_is_the_tree_of_the_classes() -> None:
    drawn: list[tuple[int, str]] = []
    for line in (errors.__doc__ or "").splitlines():
        found = re.match(r"^([│├└─ ]*)(\w+)(\s{2,}.*)?$", line)
        if found and found[2] in vars(errors):
            drawn.append((len(found[1]) // 4, found[2]))

    def below(kind: type[LcqError], depth: int) -> list[tuple[int, str]]:
        mine = [child for child in kind.__subclasses__() if child.__module__ == "lcq.errors"]
        return [(depth, kind.__name__)] + [line for child in mine for line in below(child, depth + 1)]

    assert sorted(drawn) == sorted(below(LcqError, 0))
    parents: list[str] = []
    for depth, name in drawn:
        parents[depth:] = [name]
        if depth:
            assert getattr(errors, name).__bases__ == (getattr(errors, parents[depth - 1]),)


def test_every_error_has_a_code_of_its_own_by_which_it_is_found() -> None:
    assert {kind.code: kind for kind in KINDS} == ERROR_BY_CODE
    assert len(ERROR_BY_CODE) == len(KINDS)


@pytest.mark.parametrize("error", MADE, ids=lambda error: error.code)
def test_an_error_is_one_line_that_says_what_to_do(error: LcqError) -> None:
    assert str(error) == f"{error.message} ({error.hint})"
    assert "\n" not in str(error)
    assert error.hint


@pytest.mark.parametrize("error", MADE, ids=lambda error: error.code)
def test_an_error_comes_over_the_wire_as_the_class_it_was(error: LcqError) -> None:
    again = error_from_wire(error.code, error.message, error.hint)
    assert type(again) is type(error)
    assert (str(again), again.message, again.hint) == (str(error), error.message, error.hint)


def test_a_code_that_a_newer_peer_made_up_is_still_an_error() -> None:
    error = error_from_wire("out_of_cheese", "no cheese", "buy some")
    assert type(error) is LcqError
    assert str(error) == "no cheese (buy some)"


def test_names_that_are_nearly_right_are_suggested() -> None:
    assert str(UnknownModel("lamma", ["lama", "mat"])) == "no such model: 'lamma' (did you mean 'lama'?)"
    assert UnknownModel("x", ["mat", "lama"]).hint == "known: lama, mat"
    assert UnknownQueue("x", []).hint == "none is known yet"


def test_an_error_carries_its_facts() -> None:
    refused = TransitionRefused("cancel_task", "task 1m84", "completed")
    assert (refused.move, refused.subject, refused.state) == ("cancel_task", "task 1m84", "completed")
    assert str(refused) == "cannot cancel task 1m84: it is completed"
    assert AmbiguousId("1m", ["1m1", "1m2", "1m3", "1m4"]).matches == ("1m1", "1m2", "1m3", "1m4")
    assert UnknownModel("x", [], image="cat.png").message == "cat.png: no such model: 'x'"


@pytest.mark.parametrize("error", [StateUnavailable(SECRET, "refused"), StateOverloaded(SECRET)])
def test_no_error_shows_a_password(error: LcqError) -> None:
    assert "hunter2" not in str(error)
    assert "host:6379" in str(error)
