"""Which engines there are: found by entry point, made for one runner, in the order in which they are preferred."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from importlib import metadata
from typing import cast

from lcq.models import DeviceKind
from worker.engines.base import Engine, EngineSettings

GROUP = "lcq.engines"
"""The entry points that name engines, ours (pyproject.toml) and those of other packages (docs/engines.md)."""

_OURS = "lcq"
_PREFERRED = ("lama", "opencv")  # what runs in the runner itself comes before what a neighbour runs for it
_CALLS = "function"
_METHODS = ("capabilities", "left_out", "estimate", "load", "run", "unload", "held_mib")


def make_engines(settings: EngineSettings) -> tuple[tuple[Engine, ...], dict[str, str]]:
    """One of each engine that can be made here, and why the others, by name, cannot.

    The first that offers a model is the one that runs it: LCQ's own come first, and of those the ones that
    compute here; then those of other packages, by the package's name, then the engine's. Imports what the
    engines need; loads no model.
    """
    found = sorted(metadata.entry_points(group=GROUP), key=_preference)
    engines: list[Engine] = []
    left_out: dict[str, str] = {}
    if not any(_is_ours(entry) for entry in found):
        left_out[_OURS] = "LCQ's own engines are not registered with this Python; install LCQ again (pip install …)"
    taken: dict[str, str] = {}
    is_elsewhere = settings.device.kind is DeviceKind.SERVERLESS
    for entry in found:
        if is_elsewhere is not (_is_ours(entry) and entry.name == _CALLS):
            continue  # what computes here, and what only asks somebody else: a device has the one or the other
        source = f"{_package(entry)} ({entry.value})"
        if entry.name in taken:
            left_out[f"{entry.name} of {_package(entry)}"] = f"{taken[entry.name]} has an engine of this name already"
            continue
        taken[entry.name] = _package(entry)
        try:
            engines.append(_made(entry, settings))
        except (Exception, SystemExit) as error:  # noqa: BLE001 - foreign code: what is wrong with it is told, not passed on
            left_out[entry.name] = f"engine {entry.name} of {source} cannot be used: {explained(error)}"
    return tuple(engines), left_out


def explained(error: BaseException) -> str:
    """What foreign code raised, on one printable line."""
    line = " ".join(str(error).split())
    line = "".join(char for char in line if char.isprintable())[:500]
    return f"{type(error).__name__}: {line}" if line else type(error).__name__


def _made(entry: metadata.EntryPoint, settings: EngineSettings) -> Engine:
    make = cast("Callable[[EngineSettings], Engine]", entry.load())
    engine = make(settings)
    missing = [name for name in _METHODS if not callable(getattr(engine, name, None))]
    if missing:
        raise TypeError(
            f"it has no {', '.join(missing)}; write class {type(engine).__name__}(Engine), which inherits them"
        )
    name = getattr(engine, "name", None)
    if not isinstance(name, str) or not name:
        raise TypeError(f"its name must be a text, found {name!r:.80}")
    offers = engine.capabilities()
    if not isinstance(offers, Mapping):
        raise TypeError(f"capabilities() must give a mapping of model names to ModelOffer, found {offers!r:.80}")
    return engine


def _preference(entry: metadata.EntryPoint) -> tuple[bool, bool, str, str]:
    is_ours = _is_ours(entry)
    return not is_ours, is_ours and entry.name not in _PREFERRED, _package(entry), entry.name


def _is_ours(entry: metadata.EntryPoint) -> bool:
    return _package(entry) == _OURS


def _package(entry: metadata.EntryPoint) -> str:
    return entry.dist.name if entry.dist is not None else "?"
