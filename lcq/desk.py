"""Where messages are answered: who serves which command, and that a command sent twice is done once."""

from __future__ import annotations

import asyncio
import logging
import os
import socket
from collections import OrderedDict
from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, Any, TypeVar, cast

from lcq.clock import steady_now
from lcq.errors import InternalError, LcqError, ProtocolError, StateUnavailable, UnknownCommand
from lcq.ids import new_id
from lcq.key_record import KeyRecord, KeyRole
from lcq.log import about
from lcq.reload import ConfigFollower
from lcq.roles import refuse_for
from lcq.state.manager import StateManager
from lcq.wire import (
    PROTOCOL_VERSION,
    Act,
    AnswerT,
    BulkAnswer,
    Cancel,
    Comment,
    JobActAnswer,
    Message,
    Request,
    Retry,
    Submit,
    pack_answer,
    pack_error,
    pack_request,
    unpack_reply,
    unpack_request,
)

if TYPE_CHECKING:
    from lcq.gate import AllowList

_log = logging.getLogger(__name__)
_REMEMBERED = 8192  # answers kept for copies of a message that come late
_TELL_KEYS_S = 60.0  # how often who is connected is told by which keys schedulers are known: an answer may be lost
_SHOWN_OF_A_LIST = 6  # ids in the words of an act; all of them are in what is kept for taking it back

RequestT = TypeVar("RequestT", bound=Request[Any])
Handler = Callable[[Any, bytes], Awaitable[Message]]


class Desk:
    """Answers request frames. Managers say which commands they serve; the ROUTER's owner brings the frames."""

    def __init__(self, state: StateManager) -> None:
        self._state = state
        self._handlers: dict[str, Handler] = {}
        self._answers: OrderedDict[str, bytes] = OrderedDict()
        self._older: OrderedDict[bytes, int] = OrderedDict()  # who speaks an earlier protocol
        self._under_way: dict[str, asyncio.Future[bytes]] = {}
        self._told_keys: OrderedDict[bytes, tuple[tuple[str, ...], float]] = OrderedDict()  # who, which keys, and when
        self.schedulers: tuple[str, ...] = ()  # control endpoints of all that live; told with each answer
        self.server_keys: tuple[str, ...] = ()  # by which schedulers are known here, the one that holds now first

    def serve(self, kind: type[RequestT], handler: Callable[[RequestT, bytes], Awaitable[Message]]) -> None:
        """From now on ``handler(request, sender)`` answers ``kind``; what it raises of ours is the answer too."""
        self._handlers[kind.CMD] = handler

    async def ask(self, request: Request[AnswerT], sender: bytes) -> AnswerT:
        """The answer to a request that is made in this process: as over the control socket, without the socket.

        An act is done once under its id and goes into the audit; an answer to a question is kept for nobody.

        Raises:
            LcqError: the refusal.
        """
        if isinstance(request, Act):
            told = unpack_reply(await self.answer(pack_request(request), sender))
            return told.answer(cast("type[AnswerT]", request.ANSWER))
        handler = self._handlers.get(request.CMD)
        if handler is None:
            raise UnknownCommand(f"nobody here serves the command {request.CMD!r}")
        return cast("AnswerT", await handler(request, sender))

    async def answer(self, frame: bytes, sender: bytes, holder: KeyRecord | None = None) -> bytes:
        """The answer to one request, the same one if the request has been here before. Never raises ours.

        That Redis is away is no answer to keep: the copy that comes later is done, or told what has been done.
        ``holder``: whose key who asks has shown; it says what it may ask, and in whose name. None: no key was asked
        for, and who asks may ask anything.
        """
        try:
            request = unpack_request(frame)
        except ProtocolError as error:
            return pack_error(error.request_id, error, error.peer_version)
        if holder is not None:
            try:
                request = await self._in_the_name_of(holder, request)
            except LcqError as refusal:
                return pack_error(request.id, refusal, request.version)
        self._note_version(sender, request.version)
        known = self._answers.get(request.id)
        if known is not None:
            return known
        earlier = self._under_way.get(request.id)
        if earlier is not None:
            return await asyncio.shield(earlier)
        promise = self._under_way[request.id] = asyncio.get_running_loop().create_future()
        try:
            answer, is_final = await self._answer(request, sender)
            promise.set_result(answer)
            if is_final:
                self._answers[request.id] = answer
            if len(self._answers) > _REMEMBERED:
                self._answers.popitem(last=False)
            return answer
        finally:
            promise.cancel()  # only if something of ours broke: then a copy tries anew
            del self._under_way[request.id]

    async def _in_the_name_of(self, holder: KeyRecord, request: Request[Any]) -> Request[Any]:
        """The request as it is to be done: what it says of who asks is what the key says.

        Raises:
            KeyForbids: the key is not for that.
            StateUnavailable: whose the tasks are cannot be told now.
        """
        owners: dict[str, str] = {}
        if holder.role is KeyRole.SUBMITTER and isinstance(request, Cancel | Retry | Comment):
            owners = {name: one.task.user_id for name, one in (await self._state.reader.tasks(request.ids)).items()}
        refuse_for(holder, request, owners)
        changed: dict[str, Any] = {}
        if isinstance(request, Act):
            changed["actor"] = holder.name
        if isinstance(request, Submit) and holder.role is KeyRole.SUBMITTER:
            changed["tasks"] = tuple(task.model_copy(update={"user_id": holder.name}) for task in request.tasks)
        if changed:
            request = request.model_copy(update=changed)  # private attributes and all
        request._holder = holder
        return request

    async def _answer(self, request: Request[Any], sender: bytes) -> tuple[bytes, bool]:
        """The answer, and whether it is the one to every copy of the request."""
        node = getattr(request, "node_id", "")
        with about(node=node if isinstance(node, str) else ""):
            return await self._answered(request, sender)

    async def _answered(self, request: Request[Any], sender: bytes) -> tuple[bytes, bool]:
        handler = self._handlers.get(request.CMD)
        try:
            if handler is None:
                raise UnknownCommand(
                    f"nobody here serves the command {request.CMD!r}",
                    hint="this process runs only a part of a scheduler; ask 'lcq scheduler'",
                )
            if not isinstance(request, Act):
                told = await handler(request, sender)
                return self._packed(request, told, sender), request.IS_KEPT
            remembered = await self._state.recall_answer(request.id)
            if remembered is not None:  # another scheduler, or this one before a restart, has done it
                return remembered, True
            return await self._act(request, handler, sender), True
        except LcqError as error:
            return pack_error(request.id, error, request.version), not isinstance(error, StateUnavailable)
        except Exception as error:  # noqa: BLE001 - a bug in one command must not end the scheduler of all
            _log.exception("command %s failed", request.CMD)
            broken = InternalError(
                f"{request.CMD} failed inside the scheduler: {error!r}", hint="its log has the whole story"
            )
            return pack_error(request.id, broken, request.version), True

    def _keys_for(self, sender: bytes, holder: KeyRecord | None) -> tuple[str, ...]:
        """By which keys schedulers are known and will be, where ``sender`` is to be told now."""
        if holder is None or len(self.server_keys) < 2:
            return ()
        now = steady_now()
        known, at = self._told_keys.get(sender, ((), 0.0))
        if known == self.server_keys and now - at < _TELL_KEYS_S:
            return ()
        self._told_keys[sender] = (self.server_keys, now)
        self._told_keys.move_to_end(sender)
        if len(self._told_keys) > _REMEMBERED:
            self._told_keys.popitem(last=False)
        return self.server_keys

    async def _act(self, act: Act[Any], handler: Handler, sender: bytes) -> bytes:
        """Do an act. Its answer, also a refusal, is kept where every scheduler finds it: a copy gets the same."""
        if act.begins_long:  # if nobody lives to tell its end, people know at least that it was begun
            await self._state.note_act(f"{act.id}:begun", b"", _audit(act) | {"outcome": "begun"})
        try:
            told = await handler(act, sender)
            answer = self._packed(act, told, sender)
        except StateUnavailable:
            raise  # nothing is known of it: a copy tries anew
        except LcqError as refusal:
            answer = pack_error(act.id, refusal, act.version)
            told_refusal = _audit(act) | {"outcome": f"refused: {refusal}"[:300]} if act.begins_long else {}
            await self._state.note_act(act.id, answer, told_refusal)
            return answer
        await self._state.note_act(act.id, answer, _audit(act) | _outcome(told) if act.IS_AUDITED else {})
        return answer

    def _packed(self, request: Request[Any], told: Message, sender: bytes) -> bytes:
        keys = self._keys_for(sender, request.holder)
        return pack_answer(request.id, told, self._others, request.version, keys)

    @property
    def _others(self) -> tuple[str, ...]:
        return self.schedulers if len(self.schedulers) > 1 else ()

    def _note_version(self, sender: bytes, version: int) -> None:
        if version == PROTOCOL_VERSION:
            self._older.pop(sender, None)
            return
        if sender not in self._older and b"/" in sender:  # an agent's identity is its name and its boot
            _log.info("agent %s speaks protocol %d: it is answered in that", sender.decode("ascii", "replace"), version)
        self._older[sender] = version
        if len(self._older) > _REMEMBERED:
            self._older.popitem(last=False)

    def version_of(self, peer: bytes) -> int:
        """The protocol that ``peer`` spoke when it was last heard."""
        return self._older.get(peer, PROTOCOL_VERSION)


def _audit(request: Act[Any]) -> dict[str, str]:
    """What the audit keeps of an act: who, what, why, to which."""
    told = request.model_dump(mode="json", exclude={"tasks", "keys", "sizes", "actor", "reason", "id", "revisions"})
    tasks = getattr(request, "tasks", ())
    if tasks:
        told["tasks"] = f"{tasks[0].id} … {tasks[-1].id}" if len(tasks) > 1 else tasks[0].id
        told["count"] = len(tasks)
    return {
        "act": request.CMD,
        "actor": request.actor,
        "reason": request.reason,
        "command": request.id,
        "on": " ".join(f"{name}={_short(value)}" for name, value in told.items() if _is_said(value)),
    }


def _is_said(value: Any) -> bool:
    return value is not None and value is not False and value != "" and value != []


def _outcome(answer: Message) -> dict[str, str]:
    """What became of an act on several, as the audit keeps it."""
    if isinstance(answer, JobActAnswer):
        of = f" of {answer.seen} looked at"
        refused = "".join(f", {one.count} refused: {one.example.message}" for one in answer.refused[:1])
        return {"outcome": f"{answer.done} done{of}{refused}"[:300]}
    if not isinstance(answer, BulkAnswer):
        return {}
    refused = f", {len(answer.refused)} refused: {answer.refused[0].message}" if answer.refused else ""
    return {"outcome": f"{len(answer.done)} done{refused}"[:300]}


def _short(value: Any) -> str:
    if isinstance(value, list):
        shown = ",".join(map(str, value[:_SHOWN_OF_A_LIST]))
        return shown + (f",… {len(value)} in all" if len(value) > _SHOWN_OF_A_LIST else "")
    return str(value)


class Site:
    """Where one scheduler process is reached; each part is filled in by the manager that owns the socket."""

    def __init__(self, state: StateManager) -> None:
        self.scheduler_id = f"{socket.gethostname()}-{os.getpid()}-{new_id()[-6:]}"
        self.desk = Desk(state)
        self.rings: dict[str, str] = {}  # queue -> endpoint of its PUSH socket
        self.control_endpoint = ""
        self.lifeline = ""  # "host:port"
        self.http = ""  # "host:port" at which others reach this scheduler's HTTP, once it listens
        self.settings: ConfigFollower | None = None  # where a file is followed
        self.handshakes_failed: Callable[[], int] = int  # how many since the start; told by who owns the sockets
        self.allowed: AllowList | None = None  # whose keys are let in; None: anybody is
