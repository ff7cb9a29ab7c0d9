"""The shelf of a runner: which engine has which model, and which models stay loaded within a budget of memory."""

from __future__ import annotations

import logging
import re
from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import Any

from lcq.models import DeviceKind, ModelOffer
from worker.calls import Instance
from worker.engines.base import Engine, EngineSettings
from worker.engines.registry import explained

_log = logging.getLogger(__name__)
_MODEL_NAME = re.compile(r"^[A-Za-z0-9][A-Za-z0-9._+-]{0,63}$")  # what a task's config.model may be
_MIB = 2**20


class Shelf:
    """The models of some engines, of which those used last stay loaded.

    ``offers``: what can be asked for on this device, each with its engine's name. ``left_out``: models that
    an engine has but does not offer here, or that another engine was first to offer; each with the reason.
    """

    def __init__(self, engines: Sequence[Engine], settings: EngineSettings) -> None:
        """Of two engines with the same model the first in ``engines`` has it."""
        self.settings = settings
        self._engines = tuple(engines)
        self._by_model: dict[str, Engine] = {}
        self._held: dict[str, int] = {}  # bytes of each loaded model, in the order of their last use
        self._measured: dict[str, int] = {}  # also of those that were unloaded since
        offers: dict[str, ModelOffer] = {}
        self.left_out: dict[str, str] = {}
        for engine in self._engines:
            for model, offer in _offers_of(engine, self.left_out).items():
                if settings.device.kind not in offer.kinds:
                    continue
                if model in offers:
                    self.left_out[f"{model} of {engine.name}"] = (
                        f"engine {self._by_model[model].name} offers {model} already and comes first"
                    )
                    continue
                offers[model] = offer.model_copy(update={"engine": engine.name})
                self._by_model[model] = engine
        for engine in self._engines:
            for model, reason in _left_out_of(engine).items():
                if model not in offers:
                    self.left_out[model] = reason
        self.offers: Mapping[str, ModelOffer] = MappingProxyType(offers)

    def engine_of(self, model: str) -> Engine | None:
        """The engine that runs ``model``, None where no engine offers it here."""
        return self._by_model.get(model)

    def load(self, model: str, config: Mapping[str, Any]) -> Engine:
        """The engine of ``model``, with that model loaded as ``config`` wants it, now the last one used.

        Models used longest ago are unloaded first, where this one would not fit beside them into the budget
        (``settings.memory_mib``) by what it took the last time, and after that by what it takes now. A model
        that is by itself greater than the budget is loaded alone.

        Raises:
            KeyError: no engine offers it.
            EngineError: there are no weights, or they are not what they should be.
        """
        engine = self._by_model[model]
        self._make_room(self._measured.get(model, 0) - self._held.get(model, 0), keep=model)
        size = max(0, int(engine.load(model, config)))
        self._held.pop(model, None)
        self._held[model] = self._measured[model] = size
        self._make_room(0, keep=model)
        return engine

    def _make_room(self, size: int, *, keep: str) -> None:
        budget = self.settings.memory_mib * _MIB
        for oldest in tuple(self._held):
            if not budget or sum(self._held.values()) + size <= budget:
                return
            if oldest != keep and self._held[oldest]:  # what holds nothing makes no room
                self._unload(oldest)

    def _unload(self, model: str) -> None:
        del self._held[model]
        self._by_model[model].unload(model)

    @property
    def warm(self) -> tuple[str, ...]:
        """The loaded models, the one used last at the end."""
        return tuple(self._held)

    def held_mib(self) -> int:
        """Memory of the device that models and their engines' caches hold now, as far as engines tell."""
        told: dict[int, int] = {}
        for model, size in self._held.items():
            engine = id(self._by_model[model])
            told[engine] = told.get(engine, 0) + size
        return sum(max(engine.held_mib(), -(-told.get(id(engine), 0) // _MIB)) for engine in self._engines)

    def begin_peak(self) -> None:
        """What ``peak_mib`` says is from now on."""
        for engine in self._engines:
            if callable(begin := getattr(engine, "begin_peak", None)):  # an engine that inherits nothing has none
                begin()

    def peak_mib(self) -> int:
        """The most of a GPU's memory that was held at a time, as far as engines tell; 0: none does."""
        if self.settings.device.kind is not DeviceKind.GPU:
            return 0
        told = (getattr(engine, "peak_mib", None) for engine in self._engines)
        return sum(max(0, int(peak())) for peak in told if callable(peak))

    def answered(self) -> tuple[Instance, ...]:
        """The instances of functions that have answered since this was asked last."""
        told = (getattr(engine, "answered", None) for engine in self._engines)
        return tuple(instance for answered in told if callable(answered) for instance in answered())

    def release(self) -> None:
        """Unload everything."""
        for model in tuple(self._held):
            self._unload(model)


def _offers_of(engine: Engine, left_out: dict[str, str]) -> dict[str, ModelOffer]:
    """What ``engine`` offers, without what no task could ask for; that goes to ``left_out``."""
    offers = {}
    try:
        for model, offer in engine.capabilities().items():
            if not isinstance(model, str) or not _MODEL_NAME.match(model):
                left_out[f"{model!r:.80} of {engine.name}"] = "is no name that a task could ask for"
            elif not isinstance(offer, ModelOffer):
                left_out[f"{model} of {engine.name}"] = f"is offered as {offer!r:.80}, which is no ModelOffer"
            else:
                offers[model] = offer
    except Exception as error:  # noqa: BLE001 - foreign code: what is wrong with it is told, not passed on
        left_out[engine.name] = f"engine {engine.name} cannot say what it offers: {explained(error)}"
        return {}
    return offers


def _left_out_of(engine: Engine) -> dict[str, str]:
    try:
        return {str(model): " ".join(str(reason).split()) for model, reason in engine.left_out().items()}
    except Exception:  # noqa: BLE001 - foreign code; it takes no model with it
        _log.exception("engine %s cannot say what it leaves out", engine.name)
        return {}
