"""Devices in service: whose runners have shown that they work, and against which nothing speaks at the moment."""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Callable, Mapping, Sequence

from lcq.clock import steady_now
from lcq.config import AgentConfig
from lcq.hardware import Detected
from lcq.models import DeviceKind, DeviceReading, NodeCapability, RestCode
from worker.aside import Aside
from worker.foreign_cpu import ForeignCpu
from worker.offer import Offer
from worker.pool import RunnerPool
from worker.readings import ReadGpus, Readings, room_mib
from worker.rests import Rest, Rests
from worker.slot import Shown

_log = logging.getLogger(__name__)
_CPU_PERIOD_S = 3.0
_BAD_LOOKS = 2  # readings in a row that must find a device out of order: one may have been a hiccup of its driver


class Service:
    """Takes devices into service and out of it. Run ``watch()``.

    ``capability`` is what we offer, None before ``take_up()``. ``is_tested`` is as in ``Offer``, ``read_gpus`` as in
    ``Readings``.
    """

    def __init__(
        self,
        found: Detected,
        pool: RunnerPool,
        *,
        config: AgentConfig,
        is_tested: bool,
        read_gpus: ReadGpus,
        on_shown: Callable[[], None],
        on_offer: Callable[[], None],
        on_taking: Callable[[], None],
    ) -> None:
        """``on_shown`` is called whenever more is known of a device, ``on_offer`` when the capability has changed
        since ``take_up()``, ``on_taking`` when other devices than before may be given work.
        """
        self.capability: NodeCapability | None = None
        self._found = found
        self._pool = pool
        self._config = config
        self._offer = Offer(
            found.devices,
            models=config.models,
            left_out=found.left_out,
            is_tested=is_tested,
            labels=config.labels,
        )
        self._readings = Readings(found.devices, read_gpus=read_gpus, own_groups=pool.groups, on_read=self._look)
        self._rests = Rests(config)
        self._foreign_cpu = ForeignCpu()
        self._on_shown = on_shown
        self._on_offer = on_offer
        self._on_taking = on_taking
        self._devices: frozenset[str] = frozenset()  # of the capability
        self._taking: frozenset[str] = frozenset()  # those of them that are given work
        self._aside: dict[str, str] = {}  # device -> why the cluster gives it nothing
        self._bad_looks: dict[str, int] = {}  # device -> readings in a row that found it out of order

    async def watch(self) -> None:
        """Look after the devices, until cancelled."""
        async with asyncio.TaskGroup() as group:
            group.create_task(self._readings.watch(), name="readings")
            if any(device.kind is DeviceKind.CPU for device in self._found.devices):
                group.create_task(self._watch_cpu(), name="foreign CPU")

    async def _watch_cpu(self) -> None:
        """Where it is of account, see how much of the CPU others use."""
        share = Aside("the processors' use", lambda: self._foreign_cpu.share(steady_now()))
        while True:
            if self._config.busy_elsewhere.cpu_percent is not None:
                with contextlib.suppress(TimeoutError):
                    self._readings.foreign_cpu = await share.ask(patience_s=_CPU_PERIOD_S)
                self._look_at_rests(DeviceKind.CPU)
            elif self._readings.foreign_cpu is not None:
                self._readings.foreign_cpu = None
                self._look_at_rests(DeviceKind.CPU)
            await asyncio.sleep(_CPU_PERIOD_S)

    # ------------------------------------------------------------ what is offered

    @property
    def is_undecided(self) -> bool:
        """Whether there is a device of which nobody can tell yet if it works."""
        return bool(self._offer.undecided)

    def check_models(self, models: Sequence[str] | None = None) -> None:
        """Raises:
        UnknownModel: one that is wanted, or is about to be (``models``), is known to no engine here.
        """
        self._offer.check_models(models)

    def take_up(self) -> None:
        """Offer what has been shown to work from now on, and log what has newly been left out."""
        before = self.capability.left_out if self.capability is not None else {}
        devices = {device.id for device in self._found.devices} | set(self._found.left_out)
        self.capability = self._offer.capability()
        self._devices = frozenset(device.id for device in self.capability.devices)
        for what, why in self.capability.left_out.items():
            if before.get(what) != why:  # a model that was never installed is no trouble
                _log.log(logging.WARNING if what in devices else logging.INFO, "leaving out %s: %s", what, why)

    def hear(self, shown: Shown) -> None:
        """Take in what a runner has shown; nothing, where its device is no more."""
        if all(shown.device != device.id for device in self._found.devices):
            return
        if shown.ready is None:
            self._offer.withdraw(shown.device, shown.slot, shown.why)
        else:
            self._offer.show(shown.device, shown.slot, shown.ready, tested=shown.tested)
        self._compare()

    def suspend(self, engine: str, why: str) -> None:
        """Offer no model of ``engine``, because of ``why``; "": offer them again."""
        self._offer.suspend(engine, why)
        self._compare()

    def follow(self, config: AgentConfig) -> None:
        """Go by these settings from now on: the labels and models that are offered, and when devices rest."""
        self._config = config
        self._offer.models = config.models
        self._offer.labels = dict(config.labels)
        self._rests.follow(config)
        self._compare()

    def rest_all(self, rest: Rest | None) -> None:
        """Every device rests; None: not for that any more."""
        self._rests.rest_all(rest)
        self._compare()

    def keep(self, device: str, rest: Rest | None, most: int | None) -> None:
        """``device`` rests for ``rest``; and it is offered with ``most`` slots, however many it has. None: not so."""
        self._rests.rest(device, rest)
        self._offer.limit(device, most)
        self._compare()

    def resize(self, device: str, slots: int, ended: Sequence[str] = ()) -> None:
        """Offer so many slots on ``device`` from now on; ``ended``: those of before that are about to go."""
        self._offer.resize(device, slots)
        for slot in ended:
            self._offer.retire(device, slot)
        self._compare()

    def have(self, found: Detected) -> None:
        """Offer just these devices from now on, for their queues and at their prices, as soon as their runners have
        shown what they can; with as many slots as before (``resize``)."""
        self._found = found
        self._offer.have(found.devices)
        self._readings.have(found.devices)
        self._compare()

    def set_aside(self, reasons: Mapping[str, str]) -> None:
        """Give no work to these devices, because of what the cluster has said; to all others it may be given."""
        if reasons != self._aside:
            self._aside = dict(reasons)
            self._compare()

    def engine_of(self, model: str) -> str:
        """The engine that runs ``model`` here; "" where none does."""
        return self._offer.engine_of(model)

    def _compare(self) -> None:
        self._on_shown()
        if self.capability is not None and self._offer.capability() != self.capability:
            self.take_up()
            self._on_offer()
        taking = frozenset(device for device in self._devices if self.takes(device))
        if taking != self._taking:
            self._taking = taking
            self._on_taking()

    def _look(self) -> None:
        """Take a GPU that is out of order out of service, and one that is good again back into it."""
        faults = self._readings.faults
        for device in (device.id for device in self._found.devices):
            before = self._bad_looks.get(device, 0)
            self._bad_looks[device] = before + 1 if device in faults else 0
            if self._bad_looks[device] == _BAD_LOOKS:
                _log.error("%s is out of order, its attempts are ended: %s", device, faults[device])
                self._pool.hold(device, faults[device])
                self._offer.fault(device, faults[device])
            elif before >= _BAD_LOOKS and device not in faults:
                _log.warning("%s answers again, and has to show what it can do", device)
                self._offer.fault(device, "")
                self._pool.resume(device)
        self._look_at_rests(DeviceKind.GPU)

    def _look_at_rests(self, kind: DeviceKind) -> None:
        for device in self._found.devices:
            if device.kind is not kind:
                continue
            is_at_work = any(slot.grant is not None for slot in self._pool.on(device.id))
            begun = self._rests.look(device, self._readings.of(device.id), is_at_work=is_at_work)
            if RestCode.BUSY_ELSEWHERE in begun and self._config.busy_elsewhere.release:
                self._pool.release(device.id)
        self._compare()

    # ------------------------------------------------------------ how devices are now

    def offers(self, device: str) -> bool:
        """Whether ``device`` is one that we offer."""
        return device in self._devices

    def takes(self, device: str) -> bool:
        """Whether it is, and nothing speaks against giving it work now."""
        return (
            device in self._devices
            and device not in self._aside
            and not self._readings.fault(device)
            and self._rests.of(device) is None
        )

    @property
    def resting(self) -> dict[str, str]:
        """Devices of our offer that take nothing new for a while, and why."""
        rests = {device: self._rests.of(device) for device in sorted(self._devices)}
        return {device: rest.why for device, rest in rests.items() if rest is not None}

    @property
    def why_all_rest(self) -> str:
        """Why every device of our offer rests; "" where one does not."""
        resting = self.resting
        if not self._devices or len(resting) < len(self._devices):
            return ""
        if len(set(resting.values())) == 1:
            return next(iter(resting.values()))
        return "; ".join(f"{device}: {why}" for device, why in resting.items())

    def readings(self) -> dict[str, DeviceReading]:
        """How each device is, also one that is left out: its fault says why it is."""
        return {device.id: self._reading(device.id) for device in self._found.devices}

    def _reading(self, device: str) -> DeviceReading:
        reading = self._readings.of(device)
        fault, rest = reading.fault or self._offer.why_nothing(device), self._rests.of(device)
        said = {"warm": self._pool.warm(device), "fault": fault}
        if not fault and rest is not None:
            said |= {"fault": rest.why, "rest": rest.code.value}
        return reading.model_copy(update=said)

    def room_mib(self, device: str) -> int | None:
        """Memory that the free slots of a GPU may use together; None where that is not known, or of no account."""
        slots = self._pool.on(device)
        if self.capability is None or not slots or slots[0].plan.settings.device.kind is not DeviceKind.GPU:
            return None
        needs = {model: offer.vram_mib for model, offer in self.capability.models.items()}
        busy = [max(slot.held_mib, needs.get(slot.grant.task.model, 0)) for slot in slots if slot.grant is not None]
        idle = sum(slot.held_mib for slot in slots if slot.grant is None)
        return room_mib(self._readings.of(device), busy_mib=busy, idle_mib=idle)
