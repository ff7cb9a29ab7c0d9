"""What a task's config says of how its picture is cut up for a network: strategy, margins, limits."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from enum import StrEnum
from typing import Any

from worker.engines.base import EngineError
from worker.engines.windows import Context

LONGEST = 2048
"""Pixels: ``auto`` shows longer windows to the network scaled down to this, unless the task says another limit."""
LONGEST_TIGHT = 768
"""The same where the cluster asks for smaller tiles."""

_TRIGGER_SIZE, _MARGIN, _RESIZE_LIMIT = 800, 128, 1280
_MOST = 1 << 20  # pixels; over any side that a picture can have


class Strategy(StrEnum):
    """How a picture is cut up for the network."""

    AUTO = "auto"  # few windows around the holes, at full size
    ORIGINAL = "original"  # the whole picture at once
    RESIZE = "resize"  # the whole picture, scaled down to a limit
    CROP = "crop"  # one window a contour


@dataclass(frozen=True)
class Framing:
    """How one picture is to be cut up. None: by the strategy's default.

    The parents' strategies have IOPaint's defaults: trigger size 800, margin 128, resize limit 1280. (Lama
    Cleaner's own app sends 800, 196 and 2048 for LaMa.) For ``auto`` the margin is the context around a hole, by
    default as the hole needs (``Context``); the limit is the longest window, by default ``LONGEST``.
    """

    strategy: Strategy = Strategy.AUTO
    trigger_size: int = _TRIGGER_SIZE
    asked_margin: int | None = None
    asked_limit: int | None = None
    tight: bool = False

    @classmethod
    def from_config(cls, config: Mapping[str, Any]) -> Framing:
        """What ``config`` asks for, by the parents' names; ``strategy`` is short for ``hd_strategy``.

        Raises:
            EngineError: config_invalid, naming the key, what was found, and what it may be.
        """
        named = {key: config[key] for key in ("hd_strategy", "strategy") if config.get(key) is not None}
        strategies = {_strategy(key, value) for key, value in named.items()}
        if len(strategies) > 1:
            raise EngineError(
                "config_invalid",
                f"config.hd_strategy is {named['hd_strategy']!r} and config.strategy is {named['strategy']!r}: say one",
            )
        trigger = _pixels(config, "hd_strategy_crop_trigger_size", 0, _TRIGGER_SIZE)
        return cls(
            strategy=strategies.pop() if strategies else Strategy.AUTO,
            trigger_size=_TRIGGER_SIZE if trigger is None else trigger,
            asked_margin=_pixels(config, "hd_strategy_crop_margin", 0, _MARGIN),
            asked_limit=_pixels(config, "hd_strategy_resize_limit", 16, _RESIZE_LIMIT),
        )

    @property
    def margin(self) -> int:
        """Of ``crop``: pixels around a contour's box."""
        return _MARGIN if self.asked_margin is None else self.asked_margin

    @property
    def resize_limit(self) -> int:
        """Of ``resize``: the longer side of what the network is shown."""
        return _RESIZE_LIMIT if self.asked_limit is None else self.asked_limit

    @property
    def context(self) -> Context:
        """Of ``auto``: what is shown around a hole."""
        longest = LONGEST_TIGHT if self.tight else LONGEST
        if self.asked_limit is not None:
            longest = min(self.asked_limit, LONGEST_TIGHT) if self.tight else self.asked_limit
        return Context(longest=longest, margin=self.asked_margin, tight=self.tight)

    def tightened(self) -> Framing:
        """The same with less memory: ``auto``, whatever was asked for, with half the context and shorter windows."""
        return replace(self, strategy=Strategy.AUTO, tight=True)

    def strategy_for(self, shape: tuple[int, ...]) -> Strategy:
        """What is done with a picture of that shape: the parents leave small ones whole."""
        small = {Strategy.CROP: self.trigger_size, Strategy.RESIZE: self.resize_limit}
        if max(shape[:2]) <= small.get(self.strategy, 0):
            return Strategy.ORIGINAL
        return self.strategy


def _strategy(key: str, value: Any) -> Strategy:
    try:
        return Strategy(value.lower())
    except (AttributeError, ValueError):
        known = ", ".join(strategy.value for strategy in Strategy)
        raise EngineError("config_invalid", f"config.{key} must be one of {known}; found {value!r:.80}") from None


def _pixels(config: Mapping[str, Any], key: str, least: int, default: int) -> int | None:
    value = config.get(key)
    if value is None:
        return None
    if not isinstance(value, int) or isinstance(value, bool) or not least <= value <= _MOST:
        raise EngineError(
            "config_invalid",
            f"config.{key} must be a whole number of pixels from {least:,} to {_MOST:,} (IOPaint's default is "
            f"{default:,}); found {value!r:.80}",
        )
    return value
