"""The moves of nodes."""

from __future__ import annotations

import json
import logging
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from lcq.errors import DeviceNotFound, NodeNameTaken, NodeNotFound, StaleBoot, TransitionRefused
from lcq.models import DeviceReading, Lowered, NodeCapability, NodeStatus
from lcq.state import records
from lcq.state.moves.mover import Mover
from lcq.wire import Orders, Running

_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Welcome:
    """What a node is told at its hello: ``serves`` is what its devices serve, by device."""

    status: NodeStatus
    serves: Mapping[str, tuple[str, ...]]
    orders: Orders


@dataclass(frozen=True)
class Heard:
    """What a beat is answered. ``probed``: devices in quarantine that are to be probed when their time has come."""

    status: NodeStatus
    lost: tuple[Running, ...]
    orders: Orders
    probed: tuple[str, ...]
    now_ms: int


class NodeMoves(Mover):
    """What nodes say of themselves, and what operators and the cluster want of them."""

    async def register_node(
        self,
        node: str,
        *,
        boot: str,
        capability: NodeCapability,
        serves: Mapping[str, Sequence[str]],
        via: str = "",
        home: str = "",
    ) -> Welcome:
        """A node says hello; attempts of its earlier boot run elsewhere. Answers what the cluster wants of it.

        ``via``: the scheduler it says it to. From now on only that one speaks for it. ``home``: by which a restart of
        the same agent is told from another one.

        Raises:
            StaleBoot: a newer boot has replaced this one.
            NodeNameTaken: an agent with another home lives under this name.
        """
        by_device = {
            device.id: {"queues": list(serves.get(device.id, ())), "lanes": sorted(capability.lanes_of(device))}
            for device in capability.devices
        }
        lanes = sorted(
            {f"{queue}:{lane}" for can in by_device.values() for queue in can["queues"] for lane in can["lanes"]}
        )
        answer = await self._move(
            "register_node", node, boot, capability.model_dump_json(),
            json.dumps({device: list(queues) for device, queues in serves.items()}), json.dumps(lanes),
            int(self.config.leases.beat_s * 1000), int(self.config.leases.lease_s * 1000), via,
            json.dumps(dict(capability.labels)), home, json.dumps(by_device),
        )  # fmt: skip
        if answer[0] == "stale":
            raise StaleBoot(node)
        if answer[0] == "taken":
            raise NodeNameTaken(node, answer[1])
        return Welcome(NodeStatus(answer[1]), records.serves(answer[3]), records.orders(answer[4], int(answer[5])))

    async def beat_node(
        self,
        node: str,
        *,
        boot: str,
        running: Iterable[Running] = (),
        telemetry: Mapping[str, float | str] | None = None,
        readings: Mapping[str, DeviceReading] | None = None,
        via: str = "",
    ) -> Heard:
        """Renew a node's leases. Answers what the cluster wants of it, and the attempts that it has lost.

        A device's fault that appears or goes is an event; other readings only stand in the node's record.
        A lease that the node does not list never reached it, and is released: if it is older than two beats, or
        than the node's hello to ``via``, the scheduler that it beats to.

        Raises:
            StaleBoot: the node is not registered with this boot id, or has gone to another scheduler since.
        """
        flat: list[str | int | float] = []
        for one in running:
            flat += [one.task_id, one.attempt, one.progress, one.stage]
        grace_ms = int(2 * self.config.leases.beat_s * 1000)  # a beat may be told again for as long as one takes
        told = {device: reading.model_dump(exclude_defaults=True) for device, reading in (readings or {}).items()}
        answer = await self._move(
            "beat_node", node, boot, json.dumps(dict(telemetry or {})), json.dumps(told), grace_ms, via, *flat
        )
        if answer[0] == "stale":
            raise StaleBoot(node)
        lost = zip(answer[4::2], answer[5::2], strict=True)
        return Heard(
            NodeStatus(answer[1]),
            tuple(Running(task_id=task, attempt=int(number)) for task, number in lost),
            records.orders(answer[2], int(answer[3])),
            records.probed_devices(answer[2]),
            int(answer[3]),
        )

    async def leave_node(self, node: str, *, boot: str) -> None:
        """A drained node goes in order.

        Raises:
            StaleBoot: the node is not registered with this boot id.
        """
        if (await self._move("leave_node", node, boot))[0] == "stale":
            raise StaleBoot(node)

    async def lose_node(self, node: str, *, boot: str, seen_before_ms: int, code: str, message: str) -> int | None:
        """Give up a node that died or fell silent, unless it was seen after ``seen_before_ms``.

        Answers how many attempts run elsewhere now; None if the node lives, is gone already, or was restarted.
        """
        answer = await self._move("lose_node", node, boot, seen_before_ms, code, message)
        return int(answer[1]) if answer[0] == "ok" else None

    async def suspect_node(self, node: str, *, boot: str, seen_before_ms: int, why: str) -> bool:
        """Show that an online node's beat is overdue, unless it was seen after ``seen_before_ms``; answers whether."""
        return bool((await self._move("suspect_node", node, boot, seen_before_ms, why))[0] == "ok")

    async def drain_node(self, node: str, *, why: str = "", deadline_s: float | None = None, command: str = "") -> None:
        """Let a node finish what it has; ``deadline_s`` later it hands back what still runs.

        Raises:
            NodeNotFound, TransitionRefused: it is offline, or draining already and no new deadline is given.
        """
        answer = await self._move("drain_node", node, why, _span_ms(deadline_s), command=command)
        self._refuse_node("drain_node", node, answer)

    async def stop_node(self, node: str, *, why: str = "", deadline_s: float | None = None, command: str = "") -> None:
        """Have a node's agent drain and end.

        Raises:
            NodeNotFound, TransitionRefused: it is offline, or stopping already.
        """
        answer = await self._move("stop_node", node, why, _span_ms(deadline_s), command=command)
        self._refuse_node("stop_node", node, answer)

    async def activate_node(self, node: str, *, why: str = "", device: str = "", command: str = "") -> None:
        """``device``: only this one of its devices.

        Raises:
            NodeNotFound, DeviceNotFound, TransitionRefused: it is neither draining nor quarantined.
        """
        answer = await self._move("activate_node", node, why, device, command=command)
        self._refuse_node("activate_node", node, answer, device)

    async def quarantine_node(
        self, node: str, *, why: str = "", probed: bool = True, device: str = "", command: str = ""
    ) -> int:
        """Let a node take nothing new; what it runs it may finish. What it has cost tasks that go on is given back.

        ``probed``: until it has passed a probe; else until ``activate_node``. ``device``: only this one of its devices.
        Answers how many tasks got a retry back.

        Raises:
            NodeNotFound, DeviceNotFound, TransitionRefused: it takes no work already.
        """
        first = int(self.config.quarantine.pause_s * 1000) if probed else ""
        longest = int(self.config.quarantine.longest_pause_s * 1000)
        answer = await self._move("quarantine_node", node, why, first, longest, device, command=command)
        self._refuse_node("quarantine_node", node, answer, device)
        return int(answer[1])

    async def lower_device(self, node: str, device: str, lowered: Lowered | None) -> bool:
        """Give a device less than it could do; None: as much as before.

        Answers whether that holds now; not where the node or the device is unknown, or in quarantine.
        """
        told, why = ("", "is as fast as before") if lowered is None else (lowered.model_dump_json(), lowered.why)
        return bool((await self._move("caution_device", node, device, "slow", told, why))[0] == "ok")

    async def doubt_device(self, node: str, device: str, why: str) -> bool:
        """Tell people that a device works on although its results are in doubt; answers as ``lower_device`` does."""
        return bool((await self._move("caution_device", node, device, "doubt", why, why))[0] == "ok")

    async def probe_node(self, node: str, *, boot: str, device: str = "") -> bool:
        """Whether a quarantined node, or ``device`` of it, is to show now that it works again."""
        return bool((await self._move("probe_node", node, boot, device))[0] == "ok")

    async def settle_probe(
        self, node: str, *, boot: str, passed: bool, detail: str = "", device: str = ""
    ) -> NodeStatus | None:
        """A probed node, or ``device`` of it, is forgiven, or stays in quarantine.

        Answers what it is now, online or quarantined; None if it was not being probed.

        Raises:
            StaleBoot: the node is not registered with this boot id.
        """
        terms = self.config.quarantine
        first, longest = int(terms.pause_s * 1000), int(terms.longest_pause_s * 1000)
        answer = await self._move(
            "settle_probe", node, boot, int(passed), detail, first, longest, terms.probation, device
        )
        if answer[0] == "stale":
            raise StaleBoot(node)
        return NodeStatus(answer[1]) if answer[0] == "ok" else None

    async def set_device(
        self,
        node: str,
        device: str,
        *,
        slots: int | None = None,
        queues: Sequence[str] | None = None,
        why: str = "",
        command: str = "",
    ) -> None:
        """Set the slots and the queues of a device, until that is taken back. None: as before; 0, (): its own again.

        Raises:
            NodeNotFound, DeviceNotFound
        """
        told = "" if queues is None else json.dumps(list(queues))
        answer = await self._move(
            "set_device", node, device, "" if slots is None else slots, told, why, command=command
        )
        self._refuse_node("set_device", node, answer, device)

    async def label_node(
        self,
        node: str,
        labels: Mapping[str, str | None],
        *,
        forget: Sequence[str] = (),
        why: str = "",
        command: str = "",
    ) -> None:
        """Set labels of a node over those that its agent tells; None takes one away, ``forget`` undoes either.

        Raises:
            NodeNotFound
        """
        answer = await self._move(
            "label_node", node, json.dumps(dict(labels)), json.dumps(list(forget)), why, command=command
        )
        self._refuse_node("label_node", node, answer)

    async def release_models(self, node: str, *, why: str = "", command: str = "") -> None:
        """Have a node told to free what its loaded models hold.

        Raises:
            NodeNotFound, TransitionRefused: it is offline.
        """
        self._refuse_node("release_models", node, await self._move("release_models", node, why, command=command))

    def _refuse_node(self, move: str, node: str, answer: list[Any], device: str = "") -> None:
        if answer[0] == "missing":
            raise NodeNotFound(node)
        if answer[0] == "no_device":
            raise DeviceNotFound(node, device)
        if answer[0] == "refused":
            subject = f"device {device} of node {node}" if device else f"node {node}"
            raise TransitionRefused(move, subject, answer[1])

    async def isolate_node(self, node: str, *, found: str) -> None:
        """Have a node whose record is not what was written say hello again; what it holds it keeps."""
        _log.error("the record of node %s is damaged, it has to say hello again: %s", node, found)
        await self._move("isolate_node", node, found)


def _span_ms(seconds: float | None) -> str | int:
    return "" if seconds is None else int(seconds * 1000)
