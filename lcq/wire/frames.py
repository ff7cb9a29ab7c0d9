"""How words travel: requests, answers, orders and tickets as frames of msgpack."""

from __future__ import annotations

from typing import Any

import msgpack
from pydantic import ValidationError

from lcq.errors import InvalidInput, LcqError, ProtocolError, UnknownCommand, VersionMismatch, error_from_wire
from lcq.models import explain_invalid
from lcq.versions import in_words_of_1
from lcq.wire.acts import (
    Activate,
    Cancel,
    CancelJob,
    Drain,
    DrainIdle,
    LabelNode,
    NoteJob,
    Pause,
    PauseJob,
    Prioritise,
    PrioritiseJob,
    Quarantine,
    Release,
    Reroute,
    RerouteJob,
    Resume,
    ResumeJob,
    Retry,
    RetryJob,
    SetDevice,
    StopNode,
    Submit,
    Undo,
)
from lcq.wire.message import OLDEST_PROTOCOL, PROTOCOL_VERSION, AnswerT, Message, Request
from lcq.wire.nodes import Beat, Bye, Hello, Order, Probed, Step
from lcq.wire.questions import (
    Acts,
    AskWhy,
    Autoscale,
    Costs,
    Dead,
    Events,
    Find,
    GetTasks,
    History,
    Info,
    Jobs,
    ListTasks,
    Nodes,
    Queues,
    ReportJob,
)

REQUESTS: dict[str, type[Request[Any]]] = {
    kind.CMD: kind
    for kind in (
        Hello, Step, Beat, Probed, Bye, Submit, Cancel, Retry, Reroute, Prioritise, Pause, Resume, Drain, Activate,
        Quarantine, Release, StopNode, SetDevice, LabelNode, PauseJob, ResumeJob, CancelJob, RetryJob, RerouteJob,
        PrioritiseJob, NoteJob, Info,
        Undo, Acts, Find, GetTasks, ListTasks, Dead, History, AskWhy, Costs, Nodes, Queues, Jobs, ReportJob, Events,
        Autoscale, DrainIdle,
    )
}  # fmt: skip


class Ticket(Message):
    """What a PUSH socket carries: queue ``queue`` has a task. A bell, never a right."""

    queue: str
    task_id: str = ""


def _packed(values: dict[str, Any]) -> bytes:
    try:
        return bytes(msgpack.packb(values))
    except (UnicodeEncodeError, OverflowError) as error:
        raise InvalidInput(f"{values.get('cmd', 'a message')} cannot be sent: {error}") from error


def _unpacked(frame: bytes) -> dict[str, Any]:
    try:
        values = msgpack.unpackb(frame)
    except (ValueError, msgpack.UnpackException, UnicodeDecodeError) as error:
        raise ProtocolError(f"a frame of {len(frame)} bytes is not msgpack: {error}") from error
    if not isinstance(values, dict):
        raise ProtocolError(f"a message is a map, found {type(values).__name__}")
    return values


def pack_request(request: Request[Any]) -> bytes:
    return _packed(request.model_dump(mode="json") | {"v": PROTOCOL_VERSION, "cmd": request.CMD})


def unpack_request(frame: bytes) -> Request[Any]:
    """Raises:
    ProtocolError: the frame, its version, its command or one of its fields cannot be understood.
        ``request_id`` of the error holds the id to answer to, where there was one.
    """
    values = _unpacked(frame)
    request_id = str(values.get("id", ""))
    version = values.get("v")
    try:
        command = values.get("cmd")
        if not (type(version) is int and OLDEST_PROTOCOL <= version <= PROTOCOL_VERSION):
            raise VersionMismatch(
                f"this scheduler speaks protocol {PROTOCOL_VERSION}, and older ones from {OLDEST_PROTOCOL} on; "
                f"the message has {version!r}",
                hint="bring schedulers to the newest LCQ version first, then agents and clients",
            )
        kind = REQUESTS.get(command) if isinstance(command, str) else None
        if kind is None:
            raise UnknownCommand(
                f"protocol {PROTOCOL_VERSION} has no command {command!r}",
                hint="is the peer newer than this scheduler? 'lcq version' tells both",
            )
        try:
            request = kind.model_validate(values, extra="ignore")
        except ValidationError as error:
            raise ProtocolError(f"{command}: {explain_invalid(error)}") from error
    except ProtocolError as error:
        error.request_id = request_id
        if not isinstance(error, VersionMismatch):
            error.peer_version = version
        raise
    request._version = version
    return request


def pack_answer(
    request_id: str, answer: Message, schedulers: tuple[str, ...] = (), version: int = PROTOCOL_VERSION
) -> bytes:
    """The answer as a peer of that protocol version reads it.

    ``schedulers``: where else one may ask; told where there is an else.
    """
    told = answer.model_dump(mode="json")
    more = {"schedulers": schedulers} if schedulers else {}
    said = told if version == PROTOCOL_VERSION else in_words_of_1(told)
    return _packed({"v": version, "id": request_id, "ok": said, **more})


def pack_error(request_id: str, error: LcqError, version: int | None = None) -> bytes:
    body = {"code": error.code, "message": error.message, "hint": error.hint}
    return _packed({"v": version or PROTOCOL_VERSION, "id": request_id, "error": body})


def pack_order(order: Order, version: int = PROTOCOL_VERSION) -> bytes:
    return _packed(order.model_dump(mode="json") | {"v": version, "order": True})


class Reply(Message):
    """What comes out of a scheduler's socket: the answer or error to request ``id``, or an order."""

    id: str = ""
    ok: dict[str, Any] | None = None
    error: dict[str, Any] | None = None
    order: Order | None = None
    schedulers: tuple[str, ...] = ()  # control endpoints of all live schedulers, where there are several

    def answer(self, kind: type[AnswerT]) -> AnswerT:
        """Raises:
        LcqError: the peer's refusal, as the class its code names.
        """
        if self.error is not None:
            raise error_from_wire(
                str(self.error.get("code", "error")),
                str(self.error.get("message", "")),
                str(self.error.get("hint", "")),
            )
        try:
            return kind.model_validate(self.ok or {}, extra="ignore")
        except ValidationError as error:
            raise ProtocolError(f"the answer is not one we know: {explain_invalid(error)}") from error


def unpack_reply(frame: bytes) -> Reply:
    values = _unpacked(frame)
    if values.get("v") != PROTOCOL_VERSION:
        mismatch = VersionMismatch(
            f"we speak protocol {PROTOCOL_VERSION}, the scheduler {values.get('v')!r}",
            hint="bring the scheduler to this LCQ version, or newer: schedulers come first, then agents and clients",
        )
        mismatch.request_id = str(values.get("id", ""))
        raise mismatch
    try:
        if values.get("order"):
            return Reply(order=Order.model_validate(values))
        return Reply.model_validate(values)
    except ValidationError as error:
        raise ProtocolError(f"a scheduler's message that is not one we know: {explain_invalid(error)}") from error


def pack_ticket(ticket: Ticket) -> bytes:
    return _packed(ticket.model_dump(mode="json"))


def unpack_ticket(frame: bytes) -> Ticket:
    try:
        return Ticket.model_validate(_unpacked(frame))
    except ValidationError as error:
        raise ProtocolError(f"a ticket that is not one we know: {explain_invalid(error)}") from error
