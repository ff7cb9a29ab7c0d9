"""What this node offers: the devices and models that its runners have shown to work, and why others are left out."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field

from lcq import __version__
from lcq.errors import UnknownModel
from lcq.hardware import host_name
from lcq.health import KNOWS_LOG, KNOWS_ORDERS, KNOWS_TASK_LOGS, KNOWS_WARM_UPS
from lcq.lifelines import KNOWS_LIFELINE_KEY
from lcq.models import Device, DeviceKind, Ease, ModelOffer, NodeCapability
from lcq.picture_parts import KNOWS_PICTURES
from lcq.storage.addresses import KNOWS_ADDRESSES
from worker.protocol import Ready


@dataclass
class _Part:
    """What is known of one device."""

    device: Device
    shown: dict[str, Ready] = field(default_factory=dict)  # slot -> what its last runner said
    failed: Mapping[str, str] | None = None  # in the last self-test there; None: nobody has shown enough yet
    trouble: str = ""  # why no runner there shows anything
    fault: str = ""  # of the device itself
    most: int | None = None  # slots that are told of at most

    @property
    def told(self) -> Device:
        """The device, as the cluster is to see it now."""
        if self.most is None or self.most >= self.device.slots:
            return self.device
        return self.device.model_copy(update={"slots": self.most})

    @property
    def offers(self) -> dict[str, ModelOffer]:
        """The models that every working slot of this device can run: a grant may go to any of them."""
        working = [ready for ready in self.shown.values() if ready.offers]
        if self.failed is None or self.fault or not working:
            return {}
        first, *others = working
        return {
            model: offer
            for model, offer in first.offers.items()
            if all(model in other.offers for other in others)
            and model not in self.failed
            and offer.engine not in self.failed
        }

    @property
    def left_out(self) -> dict[str, str]:
        """Engines and models that its runners have not, and why."""
        return {name: why for ready in self.shown.values() for name, why in ready.left_out.items()}

    @property
    def why_nothing(self) -> str:
        """Why it takes no work; "" where it does."""
        if self.fault:
            return self.fault
        if self.offers:
            return ""
        if self.failed:
            return _all_of(self.failed)
        if self.shown:
            return "no engine here has a model for it" + (f" ({_all_of(self.left_out)})" if self.left_out else "")
        return self.trouble or "its runner is not ready yet"


class Offer:
    """Told what runners show, knows what to say in the hello.

    ``models``: the only ones to be offered; None: all. ``left_out``: what the search for devices had to leave out.
    ``labels``: what tasks may require of this node. ``is_tested``: runners test their device at the start, and nothing
    is believed before one has.
    """

    def __init__(
        self,
        devices: Sequence[Device],
        *,
        models: Sequence[str] | None = None,
        left_out: Mapping[str, str] | None = None,
        is_tested: bool = True,
        labels: Mapping[str, str] | None = None,
    ) -> None:
        self.labels = dict(labels or {})
        self._parts = {device.id: _Part(device) for device in devices}
        self.models = models
        self._left_out = dict(left_out or {})
        self._is_tested = is_tested
        self._suspended: dict[str, str] = {}  # engine -> why

    # ------------------------------------------------------------ what is told

    def show(self, device: str, slot: str, ready: Ready, *, tested: bool) -> None:
        """The runner of ``slot`` is ready; ``tested``: after its self-test."""
        part = self._parts[device]
        part.shown[slot] = ready
        part.trouble = ""
        if tested or (part.failed is None and not self._is_tested):
            part.failed = ready.failed

    def withdraw(self, device: str, slot: str, why: str) -> None:
        """``slot`` has no runner, and is not about to have one."""
        part = self._parts[device]
        part.shown.pop(slot, None)
        part.trouble = why

    def fault(self, device: str, why: str) -> None:
        """The device itself is out of order; "" where it is in order again, which its next runners have to show."""
        part = self._parts[device]
        part.fault = why
        part.shown.clear()
        part.failed, part.trouble = None, ""

    def resize(self, device: str, slots: int) -> None:
        """``device`` has so many slots from now on."""
        part = self._parts[device]
        part.device = part.device.model_copy(update={"slots": slots})

    def limit(self, device: str, most: int | None) -> None:
        """Tell of no more than ``most`` slots on ``device``; None: of as many as it has."""
        self._parts[device].most = most

    def have(self, devices: Sequence[Device]) -> None:
        """These are the devices from now on; known ones keep what they have shown, and their slots (``resize``)."""
        parts, self._parts = self._parts, {}
        for device in devices:
            part = parts.get(device.id) or _Part(device)
            part.device = device.model_copy(update={"slots": part.device.slots})
            self._parts[device.id] = part

    def retire(self, device: str, slot: str) -> None:
        """``slot`` is no more."""
        self._parts[device].shown.pop(slot, None)

    def suspend(self, engine: str, why: str) -> None:
        """What ``engine`` needs elsewhere is away: offer none of its models; "" where it is back."""
        if why:
            self._suspended[engine] = why
        else:
            self._suspended.pop(engine, None)

    # ------------------------------------------------------------ what is known

    @property
    def undecided(self) -> tuple[str, ...]:
        """Devices of which nobody can tell yet whether they work."""
        return tuple(
            name for name, part in self._parts.items() if part.failed is None and not part.trouble and not part.fault
        )

    def why_nothing(self, device: str) -> str:
        """Why ``device`` takes no work; "" where it does."""
        part = self._parts.get(device)
        if part is None:
            return "there is no such device here"
        return part.why_nothing or self._worse_than_its_like().get(device, "")

    @property
    def devices(self) -> tuple[str, ...]:
        """The devices that take work."""
        return tuple(name for name in self._parts if not self.why_nothing(name))

    def engine_of(self, model: str) -> str:
        """The engine that runs ``model``, also while it is suspended; "" where none does."""
        for part in self._parts.values():
            for ready in part.shown.values():
                if model in ready.offers:
                    return ready.offers[model].engine
        return ""

    def capability(self) -> NodeCapability:
        """What to say in the hello."""
        devices = self.devices
        models = self._common_models(devices)
        wanted = {model: offer for model, offer in models.items() if self.models is None or model in self.models}
        withheld = {model: offer for model, offer in wanted.items() if offer.engine in self._suspended}
        return NodeCapability(
            devices=tuple(self._told(name, devices) for name in devices),
            models={model: offer for model, offer in wanted.items() if model not in withheld},
            left_out=self._reasons(devices, models) | {m: self._suspended[o.engine] for m, o in withheld.items()},
            withheld=withheld,
            host=host_name(),
            version=__version__,
            labels=self.labels,
            knows=(
                KNOWS_ORDERS,
                KNOWS_PICTURES,
                KNOWS_LOG,
                KNOWS_ADDRESSES,
                KNOWS_TASK_LOGS,
                KNOWS_WARM_UPS,
                KNOWS_LIFELINE_KEY,
            ),
        )

    def _told(self, name: str, devices: Iterable[str]) -> Device:
        """A device as the cluster is to see it: a function that has not all models of the others says which it has."""
        part = self._parts[name]
        if part.device.kind is not DeviceKind.SERVERLESS:
            return part.told
        others = (self._parts[other] for other in devices if self._parts[other].device.kind is DeviceKind.SERVERLESS)
        has_all = all(model in part.offers for other in others for model in other.offers)
        return part.told if has_all else part.told.model_copy(update={"only": tuple(sorted(part.offers))})

    def check_models(self, models: Sequence[str] | None = None) -> None:
        """See that every model that was asked for, or is about to be, is known here, offered or not.

        Raises:
            UnknownModel: it is known to no engine, and every device has shown what it has.
        """
        if all(part.shown for part in self._parts.values()):
            known = self._known_models()
            for model in models or self.models or ():
                if model not in known:
                    raise UnknownModel(model, known)

    def _known_models(self) -> set[str]:
        known: set[str] = set()
        for part in self._parts.values():
            known.update(part.left_out, part.failed or ())
            for ready in part.shown.values():
                known.update(ready.offers)
        return known

    def _worse_than_its_like(self) -> dict[str, str]:
        """Devices that failed a test that another of their kind has passed: it is they who are broken."""
        passed = {
            (part.device.kind, what)
            for part in self._parts.values()
            for model, offer in part.offers.items()
            for what in (model, offer.engine)
        }
        return {
            name: why
            for name, part in self._parts.items()
            for what, why in (part.failed or {}).items()
            if (part.device.kind, what) in passed
        }

    def _common_models(self, devices: Iterable[str]) -> dict[str, ModelOffer]:
        """The models of ``devices``, each on the kinds of device all of which have it; of functions, one of which."""
        by_kind: dict[DeviceKind, list[dict[str, ModelOffer]]] = {}
        for name in devices:
            part = self._parts[name]
            by_kind.setdefault(part.device.kind, []).append(part.offers)
        found: dict[str, list[tuple[DeviceKind, ModelOffer]]] = {}
        for kind, offers in by_kind.items():
            for model, offer in (_any_of(offers) if kind is DeviceKind.SERVERLESS else offers[0]).items():
                if kind in offer.kinds and (kind is DeviceKind.SERVERLESS or all(model in other for other in offers)):
                    found.setdefault(model, []).append((kind, offer))
        return {model: _merged(kinds) for model, kinds in sorted(found.items())}

    def _reasons(self, devices: Sequence[str], models: Mapping[str, ModelOffer]) -> dict[str, str]:
        reasons = dict(self._left_out)
        for name, part in self._parts.items():
            if name not in devices:
                reasons[name] = self.why_nothing(name)
                continue
            for what, why in {**part.left_out, **(part.failed or {})}.items():
                reasons[f"{what} on {name}" if what in models else what] = why
            for model in part.offers:
                if model not in models:
                    reasons.setdefault(model, f"not every {part.device.kind.value} of this host has it")
        for model in self.models or ():
            if model not in models:
                reasons.setdefault(model, "no device here has it")
        return reasons


def _any_of(offers: Iterable[Mapping[str, ModelOffer]]) -> dict[str, ModelOffer]:
    """All that functions offer; what several have, as the slowest of them tells it."""
    found: dict[str, ModelOffer] = {}
    for offered in offers:
        for model, offer in offered.items():
            known = found.get(model)
            if known is None or sum(known.seconds.values()) < sum(offer.seconds.values()):
                found[model] = offer
    return found


def _merged(offers: Sequence[tuple[DeviceKind, ModelOffer]]) -> ModelOffer:
    """One offer out of those of several kinds of device."""
    kinds = [kind for kind, _ in offers]
    best_first = [kind for _, offer in offers for kind in offer.kinds]
    every = [offer for _, offer in offers]
    return every[0].model_copy(
        update={
            "kinds": tuple(sorted(kinds, key=best_first.index)),
            "vram_mib": max(offer.vram_mib for offer in every),
            "memory_mib": max(offer.memory_mib for offer in every),
            "seconds": {kind: s for _, offer in offers for kind, s in offer.seconds.items()},
            "eases": tuple(ease for ease in Ease if any(ease in offer.eases for offer in every)),
        }
    )


def _all_of(reasons: Mapping[str, str]) -> str:
    return "; ".join(dict.fromkeys(reasons.values()))
