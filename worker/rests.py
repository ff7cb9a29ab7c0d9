"""Devices that rest: given nothing new for a while, because others use them, or they are too hot. Pure: no I/O.

What runs on a device goes on. A rest ends by itself, once what it is for has been over for long enough.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import dataclass

from lcq.clock import steady_now
from lcq.config import AgentConfig, BusyElsewhereConfig, HeatConfig
from lcq.models import Device, DeviceKind, DeviceReading, RestCode

_log = logging.getLogger(__name__)
_GAP_S = 5.0  # readings that do not tell by program, between others that do, change nothing for so long
_OURS_S = 2.0  # how long what we ran may still be in a reading of all that uses a device
_QUIET_PART = 0.5  # of the threshold: what others may still use where it counts as quiet


@dataclass(frozen=True)
class Rest:
    """Why a device takes nothing new. ``why`` stays the same for as long as it rests."""

    code: RestCode
    why: str


@dataclass
class _Elsewhere:
    """How much others use one device."""

    rest: Rest | None = None
    busy_since: float | None = None
    quiet_since: float | None = None
    told_at: float | None = None  # when it was last told by program
    ours_at: float | None = None  # when something of ours last ran there


@dataclass
class _Heat:
    """How hot one device is."""

    rest: Rest | None = None
    looks: int = 0  # readings in a row: hot ones, or while it rests cool ones
    below_c: float | None = None  # where it is cool again


class Rests:
    """Told of each reading of each device, and of what a whole node rests for; knows which devices rest, and why."""

    def __init__(self, config: AgentConfig, *, clock: Callable[[], float] = steady_now) -> None:
        self._config = config
        self._clock = clock
        self._elsewhere: dict[str, _Elsewhere] = {}
        self._heat: dict[str, _Heat] = {}
        self._all: Rest | None = None
        self._told: dict[str, Rest] = {}

    def follow(self, config: AgentConfig) -> None:
        """Go by these settings from the next reading on."""
        self._config = config

    def rest_all(self, rest: Rest | None) -> None:
        """Every device rests for ``rest``; None: not any more."""
        self._all = rest

    def rest(self, device: str, rest: Rest | None) -> None:
        """``device`` rests for ``rest``; None: not any more."""
        if rest is None:
            self._told.pop(device, None)
        else:
            self._told[device] = rest

    def of(self, device: str) -> Rest | None:
        """Why ``device`` is to be given nothing new; None where it may."""
        heat, elsewhere = self._heat.get(device), self._elsewhere.get(device)
        told = self._told.get(device)
        return self._all or told or (heat.rest if heat else None) or (elsewhere.rest if elsewhere else None)

    def look(self, device: Device, reading: DeviceReading, *, is_at_work: bool) -> tuple[RestCode, ...]:
        """``device`` is so now. ``is_at_work``: an attempt of ours runs there. Answers for what it begins to rest."""
        begun = []
        for of_it, rest in (
            (self._elsewhere.setdefault(device.id, _Elsewhere()), self._busy_elsewhere(device, reading, is_at_work)),
            (self._heat.setdefault(device.id, _Heat()), self._too_hot(device, reading)),
        ):
            if rest is not None and of_it.rest is None:
                _log.warning("%s rests: %s", device.id, rest.why)
                begun.append(rest.code)
            elif rest is None and of_it.rest is not None:
                _log.warning("%s works again: it is no longer %s", device.id, of_it.rest.code.replace("_", " "))
            of_it.rest = rest
        return tuple(begun)

    # ------------------------------------------------------------ others use it

    def _busy_elsewhere(self, device: Device, reading: DeviceReading, is_at_work: bool) -> Rest | None:
        terms, known = self._config.busy_elsewhere, self._elsewhere[device.id]
        percent = terms.cpu_percent if device.kind is DeviceKind.CPU else terms.gpu_percent
        if percent is None:
            known.busy_since = known.quiet_since = None
            return None
        now = self._clock()
        if is_at_work:
            known.ours_at = now
        if reading.foreign_busy is not None:
            known.told_at = now
        elif known.told_at is not None and now - known.told_at < _GAP_S:
            return known.rest
        share = _used_by_others(reading, idle_s=None if known.ours_at is None else now - known.ours_at)
        if share is None:
            known.busy_since = known.quiet_since = None
            return known.rest
        return self._judged(known, share, percent / 100, now, terms)

    @staticmethod
    def _judged(known: _Elsewhere, share: float, most: float, now: float, terms: BusyElsewhereConfig) -> Rest | None:
        if known.rest is not None:
            if share > most * _QUIET_PART:
                known.quiet_since = None
            elif known.quiet_since is None:
                known.quiet_since = now
            is_over = known.quiet_since is not None and now - known.quiet_since >= terms.quiet_s
            if is_over:
                known.busy_since = known.quiet_since = None
            return None if is_over else known.rest
        if share < most:
            known.busy_since = None
        elif known.busy_since is None:
            known.busy_since = now
        if known.busy_since is None or now - known.busy_since < terms.after_s:
            return None
        return Rest(
            RestCode.BUSY_ELSEWHERE,
            f"busy elsewhere: other programs use {share:.0%} of it, {most:.0%} or more for {terms.after_s:g} s; "
            f"it works again when they have used {most * _QUIET_PART:.0%} or less for {terms.quiet_s:g} s",
        )

    # ------------------------------------------------------------ it is too hot

    def _too_hot(self, device: Device, reading: DeviceReading) -> Rest | None:
        terms, known = self._config.heat, self._heat[device.id]
        if not terms.enabled:
            known.looks = 0
            return None
        limit = reading.slows_down_c if terms.limit_c is None else terms.limit_c
        now_c = reading.temperature_c
        is_over_limit = limit is not None and now_c is not None and now_c >= limit
        if known.rest is not None:
            is_cool = not reading.too_hot and (
                now_c is None or known.below_c is None or now_c <= known.below_c
            ) and not is_over_limit  # fmt: skip
            known.looks = known.looks + 1 if is_cool else 0
            if known.looks < terms.readings:
                return known.rest
            known.looks = 0
            return None
        known.looks = known.looks + 1 if reading.too_hot or is_over_limit else 0
        if known.looks < terms.readings:
            return None
        known.looks = 0
        known.below_c = min((c for c in (limit, now_c) if c is not None), default=None)
        if known.below_c is not None:
            known.below_c -= terms.cooler_c
        return _hot(now_c, limit, known.below_c, terms)


def _hot(now_c: float | None, limit_c: float | None, below_c: float | None, terms: HeatConfig) -> Rest:
    told = "too hot"
    if now_c is not None:
        told += f": {now_c:.0f} °C"
    if limit_c is not None and now_c is not None and now_c >= limit_c:
        told += f", {limit_c:.0f} °C {'are the limit set for it' if terms.limit_c is not None else 'slow it down'}"
    else:
        told += ", and it slows itself down for that"
    return Rest(RestCode.TOO_HOT, told + (f"; it works again at {below_c:.0f} °C" if below_c is not None else ""))


def _used_by_others(reading: DeviceReading, *, idle_s: float | None) -> float | None:
    """The share of a device that others use; None where that cannot be told.

    Where it is not told by program: all that is used, once nothing of ours has run there for a moment (``idle_s``;
    None: ever). Where not even that is told (MIG), the share of its memory that others hold stands for it.
    """
    if reading.foreign_busy is not None:
        return reading.foreign_busy
    if reading.busy is not None:
        return reading.busy if idle_s is None or idle_s >= _OURS_S else None
    if reading.foreign_mib is not None and reading.total_mib:
        return min(1.0, reading.foreign_mib / reading.total_mib)
    return None
