"""What an operator can have a client do to queues and nodes."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

from lcq.autoscale import DEFAULT_TARGET_S, Scale
from lcq.client.connection import Connection
from lcq.wire import (
    Activate,
    AskFunctions,
    AskSpend,
    Autoscale,
    Drain,
    DrainIdle,
    FunctionsAnswer,
    LabelNode,
    Pause,
    PauseSchedule,
    Quarantine,
    RanSchedule,
    Release,
    Resume,
    ResumeSchedule,
    RunSchedule,
    Schedules,
    SchedulesAnswer,
    SetDevice,
    SpendAnswer,
    StopNode,
    WarmFunction,
    WarmFunctionAnswer,
)


class Operating(Connection):
    """The acts of a client on queues and nodes."""

    async def pause(self, queue: str, *, reason: str = "") -> str:
        """Let ``queue`` give out no more tasks; running ones finish. Answers the command's id, for ``undo``."""
        command = Pause(queue=queue, actor=self.actor, reason=reason)
        await self.ask(command)
        return command.id

    async def resume(self, queue: str, *, reason: str = "") -> str:
        """Let ``queue`` give out tasks again. Answers the command's id, for ``undo``."""
        command = Resume(queue=queue, actor=self.actor, reason=reason)
        await self.ask(command)
        return command.id

    async def schedules(self) -> SchedulesAnswer:
        """The schedules and the windows of the scheduler's settings, as they stand."""
        return await self.ask(Schedules())

    async def run_schedule(self, name: str, *, reason: str = "") -> RanSchedule:
        """Run a schedule now; answers what was submitted.

        Raises:
            ScheduleNotFound
            InvalidInput: what it names is not there.
        """
        return await self.ask(RunSchedule(name=name, actor=self.actor, reason=reason))

    async def pause_schedule(self, name: str, *, reason: str = "") -> None:
        """Let a schedule not be run until it is resumed.

        Raises:
            ScheduleNotFound, TransitionRefused
        """
        await self.ask(PauseSchedule(name=name, actor=self.actor, reason=reason))

    async def resume_schedule(self, name: str, *, reason: str = "") -> None:
        """Have it run again when it is due next.

        Raises:
            ScheduleNotFound, TransitionRefused
        """
        await self.ask(ResumeSchedule(name=name, actor=self.actor, reason=reason))

    async def drain(self, node: str, *, deadline_s: float | None = None, reason: str = "") -> None:
        """Let ``node`` finish what it has and take nothing new.

        ``deadline_s``: after so long it hands back what still runs, at no cost for the tasks.

        Raises:
            AgentTooOld: its agent knows no deadline.
        """
        await self.ask(Drain(node=node, deadline_s=deadline_s, actor=self.actor, reason=reason))

    async def autoscale(self, *, target_wait_s: float = DEFAULT_TARGET_S) -> Scale:
        """How many slots each queue wants so that what waits begins in time, and which nodes are idle."""
        return (await self.ask(Autoscale(target_wait_s=target_wait_s))).scale

    async def spend(self, *, days: int = 0, job: str = "") -> SpendAnswer:
        """What serverless functions have cost this hour, today and this month (UTC), on each of the last ``days``, and
        for the tasks of ``job``."""
        return await self.ask(AskSpend(days=days, job=job))

    async def functions(self) -> FunctionsAnswer:
        """The functions that nodes call: how each is, how many instances are warm, what it cost this hour."""
        return await self.ask(AskFunctions())

    async def warm_function(
        self, function: str, count: int = 0, *, node: str = "", model: str = "", reason: str = ""
    ) -> WarmFunctionAnswer:
        """Have ``count`` instances of a function woken (0: as many as its settings want warm, at least one), with
        ``model`` loaded ("": the one that takes longest there). Answers which node does it; it goes on without us.

        Raises:
            FunctionNotFound, NodeNotFound, AgentTooOld
            InvalidInput: it has not that model, or takes fewer calls at a time.
            BudgetSpent: there is no money for a call now.
        """
        return await self.ask(
            WarmFunction(function=function, count=count, node=node, model=model, actor=self.actor, reason=reason)
        )

    async def drain_idle(self, count: int, *, queue: str = "", reason: str = "") -> tuple[str, ...]:
        """Drain at most so many of the idle nodes, the longest idle first. Answers which.

        ``queue``: only of those that serve it.
        """
        return (await self.ask(DrainIdle(count=count, queue=queue, actor=self.actor, reason=reason))).drained

    async def stop_node(self, node: str, *, deadline_s: float | None = None, reason: str = "") -> None:
        """Have the agent of ``node`` drain and end; ``deadline_s`` as for ``drain``, by default its own agent.drain_s.

        Raises:
            AgentTooOld: its agent cannot be stopped from afar.
        """
        await self.ask(StopNode(node=node, deadline_s=deadline_s, actor=self.actor, reason=reason))

    async def activate(self, node: str, *, device: str = "", reason: str = "") -> None:
        """Let ``node``, or only ``device`` of it, take work again."""
        await self.ask(Activate(node=node, device=device, actor=self.actor, reason=reason))

    async def quarantine(self, node: str, *, device: str = "", reason: str = "") -> None:
        """Let ``node``, or only ``device`` of it, take nothing new until activated; it may finish what it runs."""
        await self.ask(Quarantine(node=node, device=device, actor=self.actor, reason=reason))

    async def set_device(
        self,
        node: str,
        device: str = "",
        *,
        slots: int | None = None,
        queues: Sequence[str] | None = None,
        reason: str = "",
    ) -> None:
        """Set how many slots a device of ``node`` has, and which queues it serves; that outlives restarts.

        ``device`` may be left out where there is one. None leaves a setting as it is; 0 slots and no queues (``()``)
        undo it: what the agent itself says counts again.

        Raises:
            DeviceNotFound, UnknownQueue
            AgentTooOld: its agent cannot change its slots while it runs.
        """
        told = None if queues is None else tuple(queues)
        await self.ask(SetDevice(node=node, device=device, slots=slots, queues=told, actor=self.actor, reason=reason))

    async def label_node(
        self,
        node: str,
        labels: Mapping[str, str] | None = None,
        *,
        without: Iterable[str] = (),
        forget: Iterable[str] = (),
        reason: str = "",
    ) -> None:
        """Set labels of ``node`` over those that its agent tells; that outlives restarts.

        ``without``: labels that it is not to have. ``forget``: undo either, so that what its agent tells counts again.
        """
        await self.ask(
            LabelNode(
                node=node,
                labels=labels or {},
                without=tuple(without),
                forget=tuple(forget),
                actor=self.actor,
                reason=reason,
            )
        )

    async def release(self, node: str, *, reason: str = "") -> None:
        """Let ``node`` free what its loaded models hold; the next task loads its model anew."""
        await self.ask(Release(node=node, actor=self.actor, reason=reason))
