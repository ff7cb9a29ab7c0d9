"""What a task costs where: seconds and memory by the size of its picture, shipped and learned. Pure: no I/O, no clock.

A cost is known by four things (``CostKey``): the model, its precision, the engine, the class of the device. For each
there is a line, ``fixed + slope * megapixels``, first the shipped one, then one fitted to the last attempts that were
completed there. The fit is robust, by repeated medians: a stalled disk or a cold start moves nothing much. How
memory is learned says lcq/memory_costs.py.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from itertools import groupby
from statistics import median
from typing import Any

from lcq.models import Device, DeviceKind, ModelOffer, NodeCapability, Task, model_of

ORDINARY_MEGAPIXELS = 1.0
"""What is taken to be worked on where the size of a picture is not known."""
KEPT = 96
"""Observations kept a key: of more the oldest go, so that costs follow what changes, and memory is bounded."""

MOST_KEYS = 256
"""Keys kept; of more, those that were learned from the longest ago go."""

PRECISIONS = ("", "fp32", "bf16", "fp16")
"""By which costs are told apart; "": the engine's own choice. Whatever else a task says counts as "other"."""

_SPREAD = 2.0  # P90 over P50 where nothing has been seen yet
_LEAST_SPREAD, _MOST_SPREAD = 1.05, 10.0
_TRUST = 4.0  # observations whose slope and spread weigh as much as what was known before
_ENOUGH_WARM = 3  # attempts with the model loaded: from then on those that had to load it count only for the load
_WIDE = 1.5  # the largest picture over the smallest from which on a slope can be told from a fixed part
_LEAST_S = 1e-4
_UNKNOWN_S = 1.0


# ---------------------------------------------------------------- what is shipped


@dataclass(frozen=True)
class ModelFacts:
    """What one ordinary picture needs of a model, before anything has been learned about it."""

    kinds: tuple[DeviceKind, ...]  # best first
    vram_mib: int = 0
    seconds: Mapping[DeviceKind, float] = field(default_factory=dict)  # of a CPU: of a slot with ORDINARY_CORES
    fixed_s: Mapping[DeviceKind, float] = field(default_factory=dict)  # of these seconds, what any picture takes
    vram_mib_per_megapixel: int = 0  # more, for a larger picture
    memory_mib: int = 0  # of the host's memory, where it runs on a CPU; 0: not known
    memory_mib_per_megapixel: int = 0
    load_s: float = 0.0
    uses_cores: bool = False  # the cores of a CPU's slot share its work; else one does it, or nobody knows
    measured: frozenset[DeviceKind] = frozenset()  # where these seconds were measured; elsewhere they are estimates


ORDINARY_CORES = 2
"""Cores of a CPU's slot where nothing else is set: an agent makes a slot of every two."""
_CORES_HELP = 0.8  # n cores do what one does n ** this times as fast: an estimate, nobody has measured it on many

_GPU_OR_CPU = (DeviceKind.GPU, DeviceKind.CPU)

# Memory of GPUs as the parent programs document it (docs/architecture.md, "Models"), and as worker/engines/lama.py
# computes it. cv2's seconds and memory, and LaMa's on a CPU, as benchmarks/costs.py measured them, on one thread of a
# 2-core cloud machine that others used too. All other seconds, those of every GPU among them, are estimates.
LAMA_CORE_S = 18.3
"""Seconds of one core that a megapixel takes in LaMa's network (4.6 for a quarter of one, so hardly any is fixed)."""


def shared_by(core_s: float, cores: int) -> float:
    """Seconds of what takes one core ``core_s``, where ``cores`` share it."""
    return core_s / float(max(1, cores) ** _CORES_HELP)


_ON_A_CPU = frozenset({DeviceKind.CPU})
_LAMA = ModelFacts(
    _GPU_OR_CPU,
    2000,
    {DeviceKind.GPU: 0.5, DeviceKind.CPU: shared_by(LAMA_CORE_S, ORDINARY_CORES)},
    fixed_s={DeviceKind.CPU: 0.05},
    vram_mib_per_megapixel=950,
    memory_mib=920,
    memory_mib_per_megapixel=370,
    load_s=2.0,
    uses_cores=True,
    measured=_ON_A_CPU,
)
KNOWN_MODELS: Mapping[str, ModelFacts] = {
    "cv2-telea": ModelFacts(
        (DeviceKind.CPU,),
        seconds={DeviceKind.CPU: 0.29},
        fixed_s={DeviceKind.CPU: 0.01},
        memory_mib=105,
        memory_mib_per_megapixel=14,
        measured=_ON_A_CPU,
    ),
    "cv2-ns": ModelFacts(
        (DeviceKind.CPU,),
        seconds={DeviceKind.CPU: 0.17},
        fixed_s={DeviceKind.CPU: 0.01},
        memory_mib=105,
        memory_mib_per_megapixel=14,
        measured=_ON_A_CPU,
    ),
    "lama": _LAMA,
    "anime-lama": _LAMA,
    "manga": ModelFacts(_GPU_OR_CPU, 2000, {DeviceKind.GPU: 0.5, DeviceKind.CPU: 5.0}, load_s=2.0),
    "migan": ModelFacts(_GPU_OR_CPU, 2000, {DeviceKind.GPU: 0.3, DeviceKind.CPU: 2.0}, load_s=2.0),
    "ldm": ModelFacts(_GPU_OR_CPU, 3000, {DeviceKind.GPU: 5.0, DeviceKind.CPU: 120.0}, load_s=5.0),
    "zits": ModelFacts(_GPU_OR_CPU, 4000, {DeviceKind.GPU: 2.0, DeviceKind.CPU: 40.0}, load_s=5.0),
    "mat": ModelFacts(_GPU_OR_CPU, 4000, {DeviceKind.GPU: 1.0, DeviceKind.CPU: 20.0}, load_s=3.0),
    "fcf": ModelFacts(_GPU_OR_CPU, 4000, {DeviceKind.GPU: 1.0, DeviceKind.CPU: 20.0}, load_s=3.0),
    "sd1.5": ModelFacts(_GPU_OR_CPU, 4000, {DeviceKind.GPU: 5.0, DeviceKind.CPU: 200.0}, load_s=10.0),
}
_FIXED_SHARE = 0.2  # of an ordinary picture's seconds, where nothing more exact is known


# ---------------------------------------------------------------- what is worked on


def processed_megapixels(task: Task, size: tuple[int, int] | None) -> float:
    """How much of a picture of ``size`` (width, height) the model is shown, in megapixels; an estimate.

    Beforehand nobody knows the mask. So of the strategies that look only where holes are, ``auto`` (and what asks for
    nothing) is taken to show a quarter of the picture, from 512 x 512 to 2048 x 2048 pixels; ``crop`` one box of a
    quarter of each side with its margin. ``original`` shows all, ``resize`` all at its limit, OpenCV's models read
    all. Costs are learned by the same estimate, so that it need only be steady. Of an unknown size it is
    ``ORDINARY_MEGAPIXELS``.
    """
    if size is None:
        return ORDINARY_MEGAPIXELS
    width, height = size
    whole = width * height
    if task.model.startswith("cv2-"):
        return whole / 1e6
    config = task.config
    strategy = str(config.get("hd_strategy") or config.get("strategy") or "auto").lower()
    longer = max(width, height, 1)
    if strategy == "original":
        shown = float(whole)
    elif strategy == "resize":
        limit = _pixels(config, "hd_strategy_resize_limit", 1280)
        shown = whole * min(1.0, limit / longer) ** 2
    elif strategy == "crop":
        margin = _pixels(config, "hd_strategy_crop_margin", 128)
        is_small = longer <= _pixels(config, "hd_strategy_crop_trigger_size", 800)
        shown = whole if is_small else (width / 4 + 2 * margin) * (height / 4 + 2 * margin)
    else:
        shown = min(max(whole / 4, 512.0**2), 2048.0**2)
    return min(shown, whole) / 1e6


def megapixels_at_once(task: Task, size: tuple[int, int] | None) -> float:
    """How much of them the model surely has in memory at a time: what is cut up can be cut smaller, and has an ordinary
    piece."""
    config = task.config
    strategy = str(config.get("hd_strategy") or config.get("strategy") or "auto").lower()
    if strategy in ("original", "resize"):
        return max(ORDINARY_MEGAPIXELS, processed_megapixels(task, size))
    return ORDINARY_MEGAPIXELS


def _pixels(config: Mapping[str, Any], name: str, default: int) -> float:
    """What a task says; what an engine would refuse anyway is the default here."""
    value = config.get(name)
    return float(value) if isinstance(value, int) and not isinstance(value, bool) and value >= 0 else float(default)


def precision_of(task: Task) -> str:
    """One of ``PRECISIONS``, or "other": what a task asks for."""
    asked = task.config.get("precision")
    if asked is None:
        return ""
    return asked if asked in PRECISIONS else "other"


def device_class(device: Device) -> str:
    """What devices that take equally long have in common: a GPU's name; a processor's, and its cores a slot."""
    name = re.sub(r"[^A-Za-z0-9._+()-]+", " ", device.name).strip()[:48].strip()
    if device.kind is DeviceKind.CPU:
        return f"cpu {name or 'unnamed'} x{cores_of(device)}"
    return f"{device.kind} {name or f'{device.vram_mib} MiB'}"


@dataclass(frozen=True, order=True)
class CostKey:
    """By what a cost is known."""

    model: str
    precision: str  # one of PRECISIONS, or "other"
    engine: str
    device_class: str

    def __str__(self) -> str:
        """As Redis has it; ``CostKey.parse`` reads it."""
        return "|".join((self.model, self.precision, self.engine, self.device_class))

    @classmethod
    def parse(cls, text: str) -> CostKey:
        """Raises:
        ValueError: it is not what ``str`` writes.
        """
        model, precision, engine, of_class = text.split("|")
        return cls(model, precision, engine, of_class)

    @property
    def kind(self) -> str:
        """The kind of device, as ``DeviceKind`` has it."""
        return self.device_class.partition(" ")[0]

    @property
    def cores(self) -> int:
        """Those of a CPU's slot, as the class tells them."""
        told = re.search(r" x(\d{1,4})$", self.device_class)
        return int(told[1]) if told and self.kind == DeviceKind.CPU else ORDINARY_CORES


def cost_key(model: str, device: Device, offer: ModelOffer | None) -> CostKey:
    """By what costs of ``model`` on ``device`` are known, with the engine of ``offer`` and the precision it chooses."""
    return CostKey(model, "", _engine_of(offer), device_class(device))


# ---------------------------------------------------------------- predictions


@dataclass(frozen=True)
class Prediction:
    """What one attempt is expected to take. ``samples``: attempts it was learned from, 0 for what was shipped."""

    seconds_p50: float
    seconds_p90: float
    peak_mib: int  # of the device's memory (of a CPU: the host's); 0: not known
    samples: int = 0
    guessed: bool = False  # the seconds are an estimate that nobody has measured


@dataclass(frozen=True)
class Curve:
    """Seconds and memory by megapixels. No line ever falls: more of a picture is never cheaper."""

    fixed_s: float
    s_per_megapixel: float
    spread: float = _SPREAD  # P90 over P50
    load_s: float = 0.0  # more, where the model is not loaded yet
    fixed_mib: float = 0.0
    mib_per_megapixel: float = 0.0
    mib_from: float = 0.0  # megapixels, up to which memory does not grow
    samples: int = 0
    mib_samples: int = 0  # attempts that memory was learned from; 0: it is what was shipped
    guessed: bool = False  # its seconds are an estimate: measured by nobody on such a device, and not learned

    def seconds(self, megapixels: float) -> float:
        """P50, with the model loaded."""
        return self.fixed_s + self.s_per_megapixel * megapixels

    def predict(self, megapixels: float = ORDINARY_MEGAPIXELS, *, warm: bool = True) -> Prediction:
        """What an attempt takes on a picture of which so much is worked on."""
        p50 = self.seconds(megapixels) + (0.0 if warm else self.load_s)
        return Prediction(p50, p50 * self.spread, math.ceil(self.memory(megapixels)), self.samples, self.guessed)

    def memory(self, megapixels: float) -> float:
        """MiB of the device that an attempt holds at its peak; 0: not known."""
        return self.fixed_mib + self.mib_per_megapixel * max(0.0, megapixels - self.mib_from)

    @property
    def remembers(self) -> bool:
        """Whether anything is known of memory."""
        return self.fixed_mib > 0 or self.mib_per_megapixel > 0

    def scaled(self, by: float) -> Curve:
        """As long, times ``by``."""
        return replace(self, fixed_s=self.fixed_s * by, s_per_megapixel=self.s_per_megapixel * by)


def is_estimate(model: str, kind: DeviceKind) -> bool:
    """Whether nobody has measured the seconds that LCQ came with for a model on that kind of device."""
    facts = KNOWN_MODELS.get(model)  # a lane of other work with it was measured nowhere
    return facts is None or kind not in facts.measured


def cores_of(device: Device) -> int:
    """Cores of one slot of a CPU."""
    return max(1, device.cores // device.slots) if device.kind is DeviceKind.CPU else ORDINARY_CORES


def shipped_curve(
    model: str, kind: DeviceKind, offer: ModelOffer | None = None, *, cores: int = ORDINARY_CORES
) -> Curve:
    """What is known before anything was learned: by the model's name, else by what an engine offers.

    ``model``, here and below: or the lane of another type of work with it, such as ``lama~upscale``. ``cores``: of a
    slot, where it is a CPU.
    """
    facts = KNOWN_MODELS.get(model_of(model))
    seconds = facts.seconds.get(kind) if facts else None
    if seconds is None:
        seconds = (offer.seconds.get(kind) if offer else None) or _UNKNOWN_S
    fixed_s = facts.fixed_s.get(kind) if facts else None
    if fixed_s is None:
        fixed_s = seconds * _FIXED_SHARE
    if facts and facts.uses_cores and kind is DeviceKind.CPU:
        seconds, fixed_s = (shared_by(one, cores) / shared_by(1.0, ORDINARY_CORES) for one in (seconds, fixed_s))
    if kind is DeviceKind.GPU:
        mib = (facts.vram_mib if facts else 0) or (offer.vram_mib if offer else 0)
        mib_per_megapixel = facts.vram_mib_per_megapixel if facts else 0
    else:
        mib = (facts.memory_mib if facts else 0) or (offer.memory_mib if offer else 0)
        mib_per_megapixel = facts.memory_mib_per_megapixel if facts else 0
    return Curve(
        fixed_s=fixed_s,
        s_per_megapixel=(seconds - fixed_s) / ORDINARY_MEGAPIXELS,
        load_s=facts.load_s if facts else 0.0,
        fixed_mib=mib,
        mib_per_megapixel=mib_per_megapixel,
        mib_from=ORDINARY_MEGAPIXELS,
        guessed=is_estimate(model, kind),
    )


@dataclass(frozen=True)
class CostBook:
    """All that is known of costs at one moment; empty: what is shipped."""

    curves: Mapping[CostKey, Curve] = field(default_factory=dict)
    _told: dict[tuple[int, str, float], tuple[NodeCapability, str]] = field(
        default_factory=dict, compare=False, repr=False
    )
    """What ``curves_as_json`` has answered: nodes that say the same of themselves share what was read of them."""

    @cached_property
    def _typical(self) -> Mapping[tuple[str, str, str], Curve]:
        """By model, precision and kind of device: the curve in the middle, classes weighing as much as was seen."""

        def group(one: tuple[CostKey, Curve]) -> tuple[str, str, str]:
            return one[0].model, one[0].precision, one[0].kind

        learned = [(key, curve) for key, curve in self.curves.items() if curve.samples or curve.mib_samples]
        learned.sort(key=lambda one: (group(one), one[1].seconds(ORDINARY_MEGAPIXELS), one[0]))
        found = {}
        for name, members in groupby(learned, key=group):
            curves = [curve for _, curve in members]
            half, seen = sum(max(1, curve.samples) for curve in curves) / 2, 0
            for curve in curves:
                seen += max(1, curve.samples)
                if seen >= half:
                    found[name] = curve
                    break
        return found

    def typical(
        self,
        model: str,
        kind: DeviceKind,
        *,
        precision: str = "",
        offer: ModelOffer | None = None,
        cores: int = ORDINARY_CORES,
    ) -> Curve:
        """What it costs on a device of that kind of which nothing more is known: by what was seen on any of them.

        ``cores``: of a CPU's slot, where nothing was seen on any.
        """
        known = self._typical.get((model, precision, kind)) or self._typical.get((model, "", kind))
        return known or shipped_curve(model, kind, offer, cores=cores)

    def curve(self, model: str, device: Device, *, precision: str = "", offer: ModelOffer | None = None) -> Curve:
        """What it costs on that device. ``offer``: what the engine there says, which also tells its name."""
        key = CostKey(model, precision, _engine_of(offer), device_class(device))
        known = self.curves.get(key)
        if known is None and (model, precision, device.kind) not in self._typical:
            known = self.curves.get(replace(key, precision=""))
        return known or self.typical(model, device.kind, precision=precision, offer=offer, cores=cores_of(device))

    def curves_as_json(self, capability: NodeCapability, device: Device, *, behind: float = 1.0) -> str:
        """All that is known of what ``device`` can do, as ``claim_tasks`` wants it.

        ``behind``: how many times as long as on others of its class it takes there now.
        """
        known = self._told.get((id(capability), device.id, behind))
        if known is not None:
            return known[1]
        told = {}
        for lane in capability.lanes_of(device):
            offer = capability.models[model_of(lane)]
            seen = {key.precision for key in self.curves if key.model == lane and key.kind == device.kind}
            curves = {one: self.curve(lane, device, precision=one, offer=offer) for one in ("", *sorted(seen))}
            told[lane] = {
                "engine": _engine_of(offer),
                "curves": {name: _told(one.scaled(behind)) for name, one in curves.items()},
            }
        text = json.dumps({"class": device_class(device), "lanes": told})
        self._told[id(capability), device.id, behind] = capability, text  # kept, so that its id stays its own
        return text

    def learned_memory(
        self, model: str, device: Device, *, precision: str = "", offer: ModelOffer | None = None
    ) -> Curve | None:
        """The curve of what it holds on that device; None where nothing was learned of that, there or on its like."""
        curve = self.curve(model, device, precision=precision, offer=offer)
        return curve if curve.mib_samples else None

    def predict(
        self,
        model: str,
        device: Device,
        megapixels: float = ORDINARY_MEGAPIXELS,
        *,
        precision: str = "",
        offer: ModelOffer | None = None,
        warm: bool = True,
    ) -> Prediction:
        """What one attempt takes there. ``megapixels`` as ``processed_megapixels`` has them; ``warm``: it is loaded."""
        return self.curve(model, device, precision=precision, offer=offer).predict(megapixels, warm=warm)


def _engine_of(offer: ModelOffer | None) -> str:
    return re.sub(r"[^A-Za-z0-9._-]+", "_", offer.engine)[:32] if offer else ""


def _told(curve: Curve) -> tuple[float | bool, ...]:
    return (
        curve.fixed_s,
        curve.s_per_megapixel,
        curve.spread,
        curve.load_s,
        curve.fixed_mib,
        curve.mib_per_megapixel,
        curve.mib_from,
        curve.guessed,
    )


SHIPPED = CostBook()


def predict(
    model: str,
    device: Device,
    megapixels: float = ORDINARY_MEGAPIXELS,
    *,
    book: CostBook = SHIPPED,
    precision: str = "",
    offer: ModelOffer | None = None,
    warm: bool = True,
) -> Prediction:
    """What one attempt takes on ``device``, by ``book`` (``Fleet.costs`` has the learned one)."""
    return book.predict(model, device, megapixels, precision=precision, offer=offer, warm=warm)


# ---------------------------------------------------------------- learning


@dataclass(frozen=True)
class Observation:
    """One completed attempt, and what had been predicted for it (0: nothing)."""

    megapixels: float
    seconds: float
    peak_mib: int = 0
    warm: bool = True
    predicted_s: float = 0.0
    predicted_p90_s: float = 0.0


def fitted(seen: Sequence[Observation], prior: Curve) -> Curve:
    """``prior`` after what was seen; with nothing seen, itself.

    A line by repeated medians (half of all that was seen may be nonsense) where pictures differ enough in size, else
    ``prior`` scaled; drawn towards that while little has been seen.
    """
    sound = [one for one in seen[-KEPT:] if one.seconds > 0 and one.megapixels > 0]
    if not sound:
        return prior
    warm = [one for one in sound if one.warm]
    used = warm if len(warm) >= _ENOUGH_WARM else sound
    trust = len(used) / (len(used) + _TRUST)
    ratio = median(one.seconds / max(_LEAST_S, prior.seconds(one.megapixels)) for one in used)
    line = prior.scaled(ratio ** (1 - 0.5 ** len(used)))  # the first one alone is believed by half
    sizes = [one.megapixels for one in used]
    if max(sizes) >= _WIDE * min(sizes):
        fixed_s, slope = repeated_medians([(one.megapixels, one.seconds) for one in used])
        line = replace(
            line,
            fixed_s=trust * fixed_s + (1 - trust) * line.fixed_s,
            s_per_megapixel=trust * slope + (1 - trust) * line.s_per_megapixel,
        )
    ratios = [one.seconds / max(_LEAST_S, line.seconds(one.megapixels)) for one in used]
    spread = min(_MOST_SPREAD, max(_LEAST_SPREAD, quantile(ratios, 0.9)))
    cold = [one.seconds - line.seconds(one.megapixels) for one in sound if not one.warm]
    return replace(
        line,
        spread=trust * spread + (1 - trust) * prior.spread,
        load_s=max(0.0, median(cold)) if cold and used is warm else prior.load_s,
        samples=len(sound),
        guessed=False,
    )


def repeated_medians(points: Sequence[tuple[float, float]]) -> tuple[float, float]:
    """Fixed part and slope, neither below 0, by Siegel's repeated medians."""
    slopes = []
    for x, y in points:
        others = [(other_y - y) / (other_x - x) for other_x, other_y in points if other_x != x]
        if others:
            slopes.append(median(others))
    slope = max(0.0, median(slopes))
    fixed = median(y - slope * x for x, y in points)
    if fixed < 0:
        return 0.0, max(0.0, median(y / x for x, y in points))
    return fixed, slope


def quantile(values: Iterable[float], share: float) -> float:
    """The value below which ``share`` of ``values`` are, between two where it falls so. 0 where there are none."""
    ordered = sorted(values)
    if not ordered:
        return 0.0
    place = share * (len(ordered) - 1)
    below = math.floor(place)
    above = min(below + 1, len(ordered) - 1)
    return ordered[below] + (ordered[above] - ordered[below]) * (place - below)


@dataclass(frozen=True)
class Calibration:
    """How good predictions for one key were, over the attempts that are kept. Errors are shares of the prediction."""

    key: CostKey
    attempts: int  # that had been predicted
    predicted_p50_s: float  # the median of what was predicted, and of what it took
    actual_p50_s: float
    predicted_p90_s: float  # the median of the predicted P90s; and the P90 of what it took
    actual_p90_s: float
    error_p50: float  # half of them were off by no more than this
    error_p90: float
    under_p90: float  # share of attempts that took no longer than their predicted P90: 0.9 is right


def calibration(key: CostKey, seen: Iterable[Observation]) -> Calibration:
    """What was predicted against what came."""
    told = [one for one in seen if one.predicted_s > 0]
    errors = [abs(one.seconds - one.predicted_s) / one.predicted_s for one in told]
    under = sum(one.seconds <= one.predicted_p90_s for one in told)
    return Calibration(
        key=key,
        attempts=len(told),
        predicted_p50_s=quantile((one.predicted_s for one in told), 0.5),
        actual_p50_s=quantile((one.seconds for one in told), 0.5),
        predicted_p90_s=quantile((one.predicted_p90_s for one in told), 0.5),
        actual_p90_s=quantile((one.seconds for one in told), 0.9),
        error_p50=quantile(errors, 0.5),
        error_p90=quantile(errors, 0.9),
        under_p90=under / len(told) if told else 0.0,
    )
