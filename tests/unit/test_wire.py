"""The wire: every message comes back as it was sent, and what cannot be understood is said to whom it concerns."""

from __future__ import annotations

import math
from typing import Any

import msgpack
import pytest
from hypothesis import given
from hypothesis import strategies as st

from lcq import wire
from lcq.errors import (
    InvalidInput,
    LcqError,
    ProtocolError,
    TaskNotFound,
    TransitionRefused,
    UnknownCommand,
    VersionMismatch,
)
from lcq.models import DeviceReading, Task, TaskType
from lcq.wire import (
    PROTOCOL_VERSION,
    REQUESTS,
    Act,
    Beat,
    Cancel,
    Done,
    Events,
    Find,
    FindAnswer,
    Info,
    Order,
    Refusal,
    Reply,
    Request,
    Submit,
    Ticket,
    acts,
    alerts,
    keys,
    nodes,
    pack_answer,
    pack_error,
    pack_order,
    pack_request,
    pack_ticket,
    questions,
    schedules,
    unpack_reply,
    unpack_request,
    unpack_ticket,
)
from tests.values import INTEGERS, QUICK, THOROUGH, values_of

KINDS = sorted(REQUESTS.values(), key=lambda kind: kind.CMD)
ANSWERS = sorted({kind.ANSWER for kind in KINDS}, key=lambda kind: kind.__name__)


def request_map(**fields: Any) -> bytes:
    return bytes(msgpack.packb({"v": PROTOCOL_VERSION, "id": "r1"} | fields))


# ---------------------------------------------------------------- there and back


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.CMD)
@QUICK
@given(data=st.data())
def test_every_request_comes_back_as_it_was_sent(kind: type[Request[Any]], data: st.DataObject) -> None:
    request = data.draw(values_of(kind))
    again = unpack_request(pack_request(request))
    assert type(again) is kind
    assert again == request


@pytest.mark.parametrize("kind", ANSWERS, ids=lambda kind: kind.__name__)
@QUICK
@given(data=st.data())
def test_every_answer_comes_back_as_it_was_sent(kind: type[wire.Message], data: st.DataObject) -> None:
    answer = data.draw(values_of(kind))
    reply = unpack_reply(pack_answer("r1", answer))
    assert reply.id == "r1"
    assert reply.answer(kind) == answer


@QUICK
@given(values_of(Order))
def test_every_order_comes_back_as_it_was_sent(order: Order) -> None:
    reply = unpack_reply(pack_order(order))
    assert (reply.order, reply.id) == (order, "")


@QUICK
@given(values_of(Ticket))
def test_every_ticket_comes_back_as_it_was_sent(ticket: Ticket) -> None:
    assert unpack_ticket(pack_ticket(ticket)) == ticket


def test_an_error_comes_back_as_the_class_that_its_code_names() -> None:
    error = TransitionRefused("cancel_task", "task 1m84", "completed", hint="look again")
    reply = unpack_reply(pack_error("r1", error))
    assert reply.id == "r1"
    with pytest.raises(TransitionRefused) as raised:
        reply.answer(Done)
    assert str(raised.value) == str(error)


def test_a_refusal_within_an_answer_is_the_error_it_was() -> None:
    error = Refusal.of("cat.png", TaskNotFound("1m84")).error()
    assert type(error) is TaskNotFound
    assert str(error) == str(TaskNotFound("1m84"))


def test_every_command_is_listed_once_and_only_acts_change_what_operators_see() -> None:
    defined = {
        kind for module in (acts, alerts, keys, nodes, questions, schedules) for kind in vars(module).values()
        if isinstance(kind, type) and issubclass(kind, Request) and "CMD" in vars(kind)
    }  # fmt: skip
    assert set(REQUESTS.values()) == defined
    assert {kind.CMD for kind in KINDS} == set(REQUESTS)
    assert {kind.CMD for kind in KINDS if issubclass(kind, Act)} == {
        "submit", "cancel", "retry", "reroute", "prioritise", "pause", "resume", "drain", "activate", "quarantine",
        "release", "pause_job", "resume_job", "cancel_job", "retry_job", "reroute_job", "prioritise_job", "note_job",
        "drain_idle", "undo", "comment", "acknowledge", "warm_function",
        "stop_node", "set_device", "label_node", "run_schedule", "pause_schedule", "resume_schedule",
        "silence", "unsilence", "test_alerts", "set_deadline", "set_privacy",
        "enrol_key", "invite_key", "revoke_key", "join", "replace_key",
    }  # fmt: skip


def test_a_sensor_that_says_no_number_does_not_cost_a_node_its_beat() -> None:
    frame = msgpack.packb(
        {
            "v": PROTOCOL_VERSION, "id": "1", "cmd": "beat", "node_id": "a", "boot_id": "b",
            "telemetry": {"load": math.nan, "heat": math.inf, "memory": 5.0, "gpu": "idle"},
            "devices": {"GPU-1": {"temperature_c": math.nan, "power_w": -math.inf, "busy": 1.5, "free_mib": 7}},
        }
    )  # fmt: skip
    beat = unpack_request(frame)
    assert isinstance(beat, Beat)
    assert beat.telemetry == {"memory": 5.0, "gpu": "idle"}
    assert beat.devices == {"GPU-1": DeviceReading(free_mib=7)}
    said = Beat(node_id="a", boot_id="b", telemetry={"load": math.nan}, devices={"cpu": {"power_w": math.nan}})
    assert unpack_request(pack_request(said)) == said


# ---------------------------------------------------------------- newer and older peers


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.CMD)
@QUICK
@given(data=st.data())
def test_fields_that_a_newer_peer_added_are_ignored(kind: type[Request[Any]], data: st.DataObject) -> None:
    request = data.draw(values_of(kind))
    newer = msgpack.unpackb(pack_request(request)) | {"colour": "red", "deep": {"er": [1, None]}}
    assert unpack_request(msgpack.packb(newer)) == request


def test_fields_that_a_newer_scheduler_added_to_its_answer_are_ignored() -> None:
    frame = msgpack.packb({"v": PROTOCOL_VERSION, "id": "r1", "ok": {"id": "1m84", "colour": "red"}, "took_ms": 3})
    assert unpack_reply(frame).answer(FindAnswer) == FindAnswer(id="1m84")


@pytest.mark.parametrize("version", [0, PROTOCOL_VERSION + 1, None, "1", [1]])
def test_another_version_is_refused_naming_both(version: object) -> None:
    with pytest.raises(VersionMismatch) as refusal:
        unpack_request(request_map(v=version, cmd="info"))
    assert refusal.value.request_id == "r1"
    assert f"protocol {PROTOCOL_VERSION}" in str(refusal.value)
    assert repr(version) in str(refusal.value)
    with pytest.raises(VersionMismatch, match="LCQ version"):
        unpack_reply(msgpack.packb({"v": version, "id": "r1", "ok": {}}))


@pytest.mark.parametrize("command", ["dance", "", None, 3, ["info"], {"a": 1}, "Info"])
def test_an_unknown_command_is_refused_by_name(command: object) -> None:
    with pytest.raises(UnknownCommand) as refusal:
        unpack_request(request_map(cmd=command))
    assert refusal.value.request_id == "r1"
    assert repr(command) in str(refusal.value)


# ---------------------------------------------------------------- nonsense


@pytest.mark.parametrize(
    "frame",
    [b"", b"\xc1", b"GET / HTTP/1.1\r\n\r\n", b"\x80\x80", b"\x81", b"\xd9\xff", b"\xa2\xff\xff", b"\x91" * 5000],
)
def test_what_is_not_msgpack_is_refused_and_answered_to_nobody(frame: bytes) -> None:
    for unpack in (unpack_request, unpack_reply, unpack_ticket):
        with pytest.raises(ProtocolError) as refusal:
            unpack(frame)
        assert refusal.value.request_id == ""
        assert "\n" not in str(refusal.value)


@THOROUGH
@given(st.binary(max_size=200))
def test_no_frame_of_noise_raises_anything_else(frame: bytes) -> None:
    for unpack in (unpack_request, unpack_reply, unpack_ticket):
        try:
            unpack(frame)
        except ProtocolError:
            continue


NOISE = st.one_of(
    st.integers(0, 2),
    st.sampled_from(["info", "cancel", "events"]),
    st.lists(st.text(max_size=3), max_size=3),
    st.none(),
    st.binary(max_size=3),
    st.dictionaries(st.text(max_size=3), INTEGERS, max_size=3),
)


@THOROUGH
@given(st.dictionaries(st.sampled_from(["id", "cmd", "ids", "ok", "error", "order", "tasks", "after"]), NOISE))
def test_no_map_of_noise_raises_anything_else(values: dict[str, Any]) -> None:
    frame = msgpack.packb({"v": PROTOCOL_VERSION} | values)
    try:
        unpack_request(frame)
    except ProtocolError:
        pass
    try:
        unpack_reply(frame).answer(FindAnswer)
    except LcqError:
        pass


@pytest.mark.parametrize("frame", [msgpack.packb(value) for value in (1, "text", [1, 2], None, b"bytes")])
def test_a_message_that_is_not_a_map_is_refused(frame: bytes) -> None:
    with pytest.raises(ProtocolError, match="a message is a map"):
        unpack_request(frame)


@pytest.mark.parametrize(
    ("fields", "named"),
    [
        ({"cmd": "cancel"}, "ids"),
        ({"cmd": "cancel", "ids": []}, "ids"),
        ({"cmd": "cancel", "ids": ["x"] * 501}, "ids"),
        ({"cmd": "cancel", "ids": ["x"], "reason": "x" * 501}, "reason"),
        ({"cmd": "cancel", "ids": ["x"], "id": 7}, "id"),
        ({"cmd": "hello", "node_id": "a b", "boot_id": "1", "capability": {}}, "node_id"),
        ({"cmd": "prioritise", "ids": ["x"], "priority": "now"}, "priority"),
        ({"cmd": "submit", "tasks": [{"task_type": "inpaint"}]}, "tasks.0.image_path"),
        ({"cmd": "events", "after": "yesterday"}, "after"),
        ({"cmd": "events", "after": "1-99999999999999999999"}, "after"),
        ({"cmd": "beat", "node_id": "a", "boot_id": "b", "telemetry": {"load": []}}, "telemetry.load"),
        ({"cmd": "beat", "node_id": "a", "boot_id": "b", "running": [{"task_id": "x", "attempt": 1, "progress": 2}]},
         "running.0.progress"),
    ],
)  # fmt: skip
def test_a_field_that_is_wrong_is_named_and_answered_to_its_sender(fields: dict[str, Any], named: str) -> None:
    with pytest.raises(ProtocolError) as refusal:
        unpack_request(request_map(**fields))
    assert refusal.value.request_id == str(fields.get("id", "r1"))
    assert f"{fields['cmd']}: {named}" in str(refusal.value)
    assert "\n" not in str(refusal.value)


def test_an_answer_of_another_kind_is_said_not_to_be_understood() -> None:
    with pytest.raises(ProtocolError, match="not one we know: id"):
        Reply(id="r1", ok={"tasks": []}).answer(FindAnswer)


def test_what_cannot_be_packed_is_the_senders_fault() -> None:
    with pytest.raises(InvalidInput, match="pause cannot be sent"):
        pack_request(wire.Pause(queue="\udcff"))


# ---------------------------------------------------------------- what holds for all


def test_each_request_has_an_id_of_its_own_unless_it_is_sent_again() -> None:
    one, two = Info(), Info()
    assert one.id != two.id
    assert unpack_request(pack_request(one)).id == one.id


def test_messages_are_frozen() -> None:
    with pytest.raises(ValueError, match="frozen"):
        Cancel(ids=("x",)).reason = "because"


def test_a_batch_has_a_limit() -> None:
    task = Task(task_type=TaskType.INPAINT, image_path="x")
    assert len(Submit(tasks=(task,) * wire.MAX_BATCH).tasks) == wire.MAX_BATCH
    with pytest.raises(ValueError, match="tasks"):
        Submit(tasks=(task,) * (wire.MAX_BATCH + 1))


@pytest.mark.parametrize("after", ["$", "0-0", "1795461048114-12"])
def test_events_are_asked_for_after_an_event_or_from_now_on(after: str) -> None:
    assert Events(after=after).after == after


def test_a_search_needs_something_to_search_for() -> None:
    with pytest.raises(ValueError, match="prefix"):
        Find(prefix="")
