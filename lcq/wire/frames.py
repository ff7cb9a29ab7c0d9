"""How words travel: requests, answers, orders and tickets as frames of msgpack."""

from __future__ import annotations

from typing import Any

import msgpack
from pydantic import ValidationError

from lcq.errors import InvalidInput, LcqError, ProtocolError, VersionMismatch, error_from_wire
from lcq.models import explain_invalid
from lcq.versions import in_words_of_1
from lcq.wire.message import PROTOCOL_VERSION, AnswerT, Message, Request
from lcq.wire.nodes import Order


class Ticket(Message):
    """What a PUSH socket carries: queue ``queue`` has a task. A bell, never a right."""

    queue: str
    task_id: str = ""


def _packed(values: dict[str, Any]) -> bytes:
    try:
        return bytes(msgpack.packb(values))
    except (UnicodeEncodeError, OverflowError) as error:
        raise InvalidInput(f"{values.get('cmd', 'a message')} cannot be sent: {error}") from error


def unpacked(frame: bytes) -> dict[str, Any]:
    """Raises:
    ProtocolError: it is no map of msgpack.
    """
    try:
        values = msgpack.unpackb(frame)
    except (ValueError, msgpack.UnpackException, UnicodeDecodeError) as error:
        raise ProtocolError(f"a frame of {len(frame)} bytes is not msgpack: {error}") from error
    if not isinstance(values, dict):
        raise ProtocolError(f"a message is a map, found {type(values).__name__}")
    return values


def pack_request(request: Request[Any]) -> bytes:
    return _packed(request.model_dump(mode="json") | {"v": PROTOCOL_VERSION, "cmd": request.CMD})


def pack_answer(
    request_id: str,
    answer: Message,
    schedulers: tuple[str, ...] = (),
    version: int = PROTOCOL_VERSION,
    server_keys: tuple[str, ...] = (),
) -> bytes:
    """The answer as a peer of that protocol version reads it.

    ``schedulers``: where else one may ask; told where there is an else. ``server_keys``: by which the schedulers are
    known and will be; told where the next one is made.
    """
    told = answer.model_dump(mode="json")
    more: dict[str, tuple[str, ...]] = {"schedulers": schedulers} if schedulers else {}
    if server_keys:
        more["server_keys"] = server_keys
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
    server_keys: tuple[str, ...] = ()  # by which the schedulers are known, and will be; told now and then

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
    values = unpacked(frame)
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
        return Ticket.model_validate(unpacked(frame))
    except ValidationError as error:
        raise ProtocolError(f"a ticket that is not one we know: {explain_invalid(error)}") from error
