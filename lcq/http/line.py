"""What every route asks with: the desk of this scheduler, in the name of who asks over HTTP."""

from __future__ import annotations

import hashlib

from starlette.requests import Request as HttpRequest

from lcq.client import AsyncClient
from lcq.component import Ground
from lcq.errors import AccessDenied
from lcq.http.access import Caller, Role
from lcq.ids import is_id, new_id, normalise_prefix
from lcq.models import NodeRecord, TaskRecord
from lcq.storage.depot import Depot
from lcq.wire import AnswerT, Find, Request

_SENDER = b"http"
_RECENT_S = 0.5


class Line:
    """Asks what an agent's or client's frame would ask."""

    def __init__(self, ground: Ground, depot: Depot) -> None:
        self.ground = ground
        self.state = ground.state
        self.reader = ground.state.reader
        self.depot = depot

    async def ask(self, request: Request[AnswerT]) -> AnswerT:
        """The answer of the same desk that the control socket has.

        Raises:
            LcqError: its refusal.
        """
        return await self.ground.site.desk.ask(request, _SENDER)

    def everywhere(self) -> AsyncClient:
        """A client of all schedulers: for what only that one can tell to which a certain node speaks."""
        site = self.ground.site
        places = (one.removeprefix("tcp://") for one in (site.control_endpoint, *site.desk.schedulers))
        shown = site.allowed.credential if site.allowed is not None else None
        return AsyncClient(self.ground.config, scheduler=",".join(places), credential=shown)

    async def nodes(self) -> tuple[NodeRecord, ...]:
        """As they were a moment ago: asked for with every picture, they are not read anew each time."""
        return (await self.reader.recent_fleet(within_s=_RECENT_S)).nodes

    async def whole_id(self, typed: str) -> str:
        """The id of the task of which ``typed`` is a unique beginning.

        Raises:
            TaskNotFound, AmbiguousId.
        """
        plain = normalise_prefix(typed)
        return plain if is_id(plain) else (await self.ask(Find(prefix=typed))).id

    async def record(self, typed: str) -> TaskRecord:
        """Raises:
        TaskNotFound, AmbiguousId.
        """
        return await self.reader.task(await self.whole_id(typed))

    async def own_record(self, caller: Caller, typed: str) -> TaskRecord:
        """A task that ``caller`` may steer: an operator any, a submitter its own.

        Raises:
            TaskNotFound, AmbiguousId, AccessDenied.
        """
        record = await self.record(typed)
        if not caller.role.covers(Role.OPERATOR) and record.task.user_id != caller.name:
            raise AccessDenied(f"{caller.name}, a {caller.role},", f"steer task {record.id} of others", Role.OPERATOR)
        return record


def caller_in(request: HttpRequest) -> Caller:
    """Who asks, as the guard has found out."""
    found: Caller = request.state.caller
    return found


def act_id(request: HttpRequest, key: str | None, content: str) -> str:
    """The id of a command: a fresh one, or with an Idempotency-Key the same for the same request of the same caller.

    The desk does a command once under its id, whichever scheduler is asked.
    """
    if not key:
        return new_id()
    told = "\0".join((caller_in(request).name, request.method, request.url.path, key, content))
    return hashlib.sha256(told.encode("utf-8", "surrogateescape")).hexdigest()[:40]
