"""A node without runners: the agent's real sockets, membership and lifeline, and work that takes a wish and no time.

Hundreds of them fit into one process; what they do to a scheduler is what as many agents do.
"""

from __future__ import annotations

import asyncio
import contextlib
import math
import time
from collections.abc import AsyncIterator, Callable, Iterator, Sequence

import zmq

from lcq.errors import LcqError
from lcq.ids import new_id
from lcq.keyring import Credential
from lcq.models import DeviceReading, NodeCapability
from lcq.wire import Beat, BeatAnswer, Grant, Hello, HelloAnswer, Order, Outcome, Running, Step, StepAnswer, Want
from tests.nodes import LIGHT, TELEA, a_result, the_cpu
from worker.bells import Bells
from worker.lifeline import Lifeline
from worker.line import ControlLine
from worker.membership import Membership


class LightNode:
    """A node that says hello, beats, and answers bells. ``async with a_light_node(…) as node``.

    ``grants`` are the attempts it holds; ``takes`` says whether it asks for work when a bell rings; ``readings`` is
    what each beat tells. ``schedulers`` are "tcp://host:port", and ``only_there`` keeps it from going to others that it
    is told of.
    """

    def __init__(
        self,
        context: zmq.Context[zmq.Socket[bytes]],
        name: str,
        schedulers: Sequence[str],
        *,
        models: Sequence[str] = (TELEA,),
        slots: int = 4,
        takes: bool = False,
        only_there: bool = False,
        lifeline_by: Callable[[str], str] = str,
        credential: Credential | None = None,
        late: Callable[[], Credential | None] = lambda: None,
        knows: Sequence[str] = (),
    ) -> None:
        self.name = name
        self.boot_id = new_id()
        self.takes = takes
        self.capability: NodeCapability = the_cpu(models, slots=slots).model_copy(update={"knows": tuple(knows)})
        self.slots = slots
        self.grants: dict[tuple[str, int], Grant] = {}
        self.readings: dict[str, DeviceReading] = {}
        self.lost: list[tuple[str, int]] = []
        self.orders: list[Order] = []
        self.welcomes: list[tuple[float, HelloAnswer]] = []
        self.beats: list[float] = []
        self.troubles: list[str] = []
        self._lifeline_by = lifeline_by
        self._rung = asyncio.Event()
        identity = f"{name}/{self.boot_id}".encode()
        self.line = ControlLine(
            context, identity, on_order=self.orders.append, on_late=lambda reply: None, credential=credential,
            on_admitted=lambda: self.bells.admitted(), late=late,
        )  # fmt: skip
        self.bells = Bells(context, on_ring=self._rung.set, admission=lambda: self.line.admission)
        self.membership = (_Bound if only_there else Membership)(
            name,
            self.line,
            configured=lambda: schedulers,
            before_hello=_at_once,
            ready=_at_once,
            hello=lambda: Hello(node_id=name, boot_id=self.boot_id, capability=self.capability),
            beat=self._beat,
            on_welcome=self._welcome,
            on_beat=self._hear_beat,
            shortest_lease_s=lambda: math.inf,
            on_parted=lambda: None,
            on_trouble=self.troubles.append,
        )
        self.lifeline = Lifeline(name, self.boot_id, on_lost=self.membership.scheduler_died)

    def _beat(self) -> Beat:
        running = tuple(Running(task_id=task, attempt=number) for task, number in self.grants)
        return Beat(node_id=self.name, boot_id=self.boot_id, running=running, devices=self.readings)

    def _welcome(self, greeting: HelloAnswer) -> None:
        self.welcomes.append((time.monotonic(), greeting))
        self.lifeline.attach(self._lifeline_by(greeting.lifeline), greeting.lifeline_key)
        self.bells.found_at(greeting.rings)
        self.bells.attend({LIGHT})
        self._rung.set()

    def _hear_beat(self, beat: Beat, answer: BeatAnswer, asked_at: float) -> None:
        self.beats.append(time.monotonic())
        for one in answer.lost:
            self.grants.pop((one.task_id, one.attempt), None)
            self.lost.append((one.task_id, one.attempt))

    @property
    def at(self) -> str:
        """The id of the scheduler that welcomed it last."""
        return self.welcomes[-1][1].scheduler_id if self.welcomes else ""

    @property
    def server_keys(self) -> tuple[str, ...]:
        """By which it knows the schedulers."""
        credential = self.line.admission.credential
        return credential.server_keys if credential is not None else ()

    async def ask_for_work(self) -> StepAnswer:
        """One step for all free slots; what is granted is in ``grants``."""
        want = self.slots - len(self.grants)
        wants = (Want(device="cpu", slots=want),) if want > 0 else ()
        answer = await self.line.ask(Step(node_id=self.name, boot_id=self.boot_id, want=wants))
        for grant in answer.grants:
            self.grants[grant.task.id, grant.attempt] = grant
        return answer

    async def report(self, *outcomes: Outcome) -> StepAnswer:
        """Tell how attempts ended; they are held no longer."""
        answer = await self.line.ask(Step(node_id=self.name, boot_id=self.boot_id, outcomes=outcomes))
        for outcome in outcomes:
            self.grants.pop((outcome.task_id, outcome.attempt), None)
        return answer

    async def finish(self, grant: Grant) -> StepAnswer:
        return await self.report(Outcome(task_id=grant.task.id, attempt=grant.attempt, result=a_result()))

    async def finish_all(self) -> None:
        for grant in tuple(self.grants.values()):
            await self.finish(grant)

    async def _work(self) -> None:
        while True:
            await self._rung.wait()
            await self.membership.joined.wait()
            self._rung.clear()
            if not self.takes:
                continue
            try:
                while (await self.ask_for_work()).grants:
                    await self.finish_all()
            except LcqError:  # such as having just gone to another scheduler: its welcome rings again
                continue

    @contextlib.contextmanager
    def alive(self, group: asyncio.TaskGroup) -> Iterator[LightNode]:
        lives = [
            group.create_task(life, name=f"{self.name}")
            for life in (
                self.line.listen(),
                self.bells.listen(),
                self.membership.keep(),
                self.lifeline.hold(),
                self._work(),
            )
        ]
        try:
            yield self
        finally:
            for life in lives:
                life.cancel()


class _Bound(Membership):
    """Knows no scheduler but those it was given."""

    def _endpoints(self, silent: str) -> Iterator[str]:
        yield from self._configured()


async def _at_once() -> None:
    return None


@contextlib.asynccontextmanager
async def light_nodes(
    count: int, schedulers: Sequence[str], *, name: str = "light", **more: object
) -> AsyncIterator[list[LightNode]]:
    """So many nodes, named light-0 and so on, until the block is left; then all are gone without a word."""
    context: zmq.Context[zmq.Socket[bytes]] = zmq.Context()
    context.set(zmq.MAX_SOCKETS, 8 * count + 64)  # a monitor of each takes two more
    try:
        async with contextlib.AsyncExitStack() as stack:
            nodes = [LightNode(context, f"{name}-{number}", schedulers, **more) for number in range(count)]  # type: ignore[arg-type]
            for node in nodes:
                await stack.enter_async_context(node.line)
                await stack.enter_async_context(node.bells)
            group = await stack.enter_async_context(asyncio.TaskGroup())
            for node in nodes:
                stack.enter_context(node.alive(group))
            yield nodes
    finally:
        context.term()


@contextlib.asynccontextmanager
async def a_light_node(schedulers: Sequence[str], *, name: str = "light", **more: object) -> AsyncIterator[LightNode]:
    """One that has been welcomed."""
    async with light_nodes(1, schedulers, name=name, **more) as (node,):
        await asyncio.wait_for(node.membership.joined.wait(), 120)
        yield node
