"""The instances of functions that this agent has heard of: how many are warm, and what their starts took."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

from lcq.clock import steady_now
from lcq.models import DeviceReading, Failure, FunctionReading
from lcq.runner_config import FunctionConfig
from worker.calls import Instance
from worker.endpoint_keeper import Standing

_MOST = 4096  # instances of a function that are remembered; one that counts each call as an instance is cut off there
_LONGEST = 300  # characters of what a warm-up failed of, which each beat tells


@dataclass
class _Heard:
    """What one function has answered."""

    last: dict[str, float] = field(default_factory=dict)  # instance -> when, by steady_now(); the latest at the end
    cold: int = 0
    start_s: float = 0.0
    load_s: float = 0.0
    not_woken: str = ""


class Instances:
    """Told of each answer of a function by ``note``. ``in_flight(device)``: calls that it is at now; ``standing``: how
    it stands otherwise; ``shown_ms``: what the cluster's clock shows at a moment of the steady one.
    """

    def __init__(
        self,
        functions: Mapping[str, FunctionConfig],
        *,
        in_flight: Callable[[str], int],
        standing: Callable[[str], Standing],
        shown_ms: Callable[[float], int],
    ) -> None:
        self._functions = functions
        self._in_flight = in_flight
        self._standing = standing
        self._shown_ms = shown_ms
        self._heard = {name: _Heard() for name in functions}

    def follow(self, functions: Mapping[str, FunctionConfig]) -> None:
        """These are the functions from now on; of one at another address than before nothing has been heard."""
        before, self._functions = self._functions, functions
        self._heard = {
            name: self._heard[name] if name in before and before[name].url == one.url else _Heard()
            for name, one in functions.items()
        }

    def note(self, device: str, instance: Instance) -> None:
        """An instance of that function has answered."""
        heard = self._heard.get(device)
        if heard is None or not instance.id:
            return
        heard.last.pop(instance.id, None)
        heard.last[instance.id] = steady_now()
        heard.not_woken = ""
        while len(heard.last) > _MOST:
            del heard.last[next(iter(heard.last))]
        if instance.is_cold:
            heard.cold += 1
            heard.start_s, heard.load_s = instance.start_s, instance.load_s

    def woken(self, device: str, failure: Failure | None) -> None:
        """A warm-up of that function is over; ``failure``: of what some of its calls failed."""
        heard = self._heard.get(device)
        if heard is not None:
            heard.not_woken = f"{failure.code}: {failure.message}"[:_LONGEST] if failure is not None else ""

    def of(self, device: str) -> FunctionReading | None:
        """How that function is; None: the device is none."""
        heard = self._heard.get(device)
        if heard is None:
            return None
        since = steady_now() - self._functions[device].keeps_warm_s
        while heard.last and next(iter(heard.last.values())) < since:
            del heard.last[next(iter(heard.last))]
        standing = self._standing(device)
        return FunctionReading(
            warm=len(heard.last),
            cold=heard.cold,
            in_flight=self._in_flight(device),
            start_s=heard.start_s,
            load_s=heard.load_s,
            in_vain=standing.in_vain,
            rests_until_ms=None if standing.until is None else self._shown_ms(standing.until),
            trials=standing.trials,
            not_woken=heard.not_woken,
        )

    def told_with(self, device: str, reading: DeviceReading) -> DeviceReading:
        """``reading`` with how the function is, where the device is one."""
        function = self.of(device)
        return reading if function is None else reading.model_copy(update={"function": function})
