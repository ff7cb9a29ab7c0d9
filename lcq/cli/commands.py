"""Which commands there are, in the order of the help, and where each is: one is loaded when it is asked for."""

from __future__ import annotations

from collections.abc import Callable, Iterator, MutableMapping
from importlib import import_module
from typing import Any

import typer
from typer.main import get_command_from_info, get_group_from_info
from typer.models import TyperInfo

from lcq.cli.examples import examples

_MODULES = {
    "serve": ("up", "scheduler", "console", "demo", "version"),
    "submit": ("submit",),
    "wait": ("wait",),
    "tasks": ("tasks", "task", "why", "cancel", "retry", "reroute", "prioritise", "comment"),
    "change": ("edit",),
    "deadline": ("deadline",),
    "privacy": ("privacy",),
    "log": ("logs", "log"),
    "causes": ("causes", "ack"),
    "acts": ("acts", "undo"),
    "jobs": ("jobs", "job"),
    "fleet": (
        "nodes", "queues", "drain", "autoscale", "stop", "activate", "quarantine", "set", "label", "release", "pause",
        "resume",
    ),
    "node": ("node",),
    "spend": ("spend",),
    "discover": ("discover",),
    "events": ("events",),
    "token": ("token",),
    "backup": ("backup", "restore"),
    "install": ("install-service", "uninstall-service"),
    "usage": ("report",),
    "doctor": ("doctor",),
    "completion": ("completion",),
}  # fmt: skip
"""The modules of lcq.cli, and of each what its ``app`` has: a test compares the two."""


class Commands(MutableMapping[str, Any]):
    """The commands by name. Their names cost nothing; to look one up loads it, and what it alone needs."""

    def __init__(self) -> None:
        self.loaded: dict[str, Any] = {}
        self._loaders: dict[str, Callable[[], Any]] = {
            name: lambda module=module, name=name: _command(module, name)
            for module, names in _MODULES.items()
            for name in names
        } | {
            "dead": _dead, "models": _models, "config": _config, "archive": _archive, "schedules": _schedules,
            "alerts": _alerts, "keys": _keys, "functions": _functions,
        }  # fmt: skip

    def __getitem__(self, name: str) -> Any:
        if name not in self.loaded:
            self.loaded[name] = self._loaders[name]()
        return self.loaded[name]

    def __setitem__(self, name: str, command: Any) -> None:
        self.loaded[name] = command
        self._loaders[name] = lambda: command

    def __delitem__(self, name: str) -> None:
        del self._loaders[name]
        self.loaded.pop(name, None)

    def __iter__(self) -> Iterator[str]:
        return iter(self._loaders)

    def __len__(self) -> int:
        return len(self._loaders)


def _command(module: str, name: str) -> Any:
    """The command ``name`` of a module of lcq.cli, and none of its others."""
    found = import_module(f"lcq.cli.{module}").app.registered_commands
    return next(
        get_command_from_info(one, pretty_exceptions_short=True, rich_markup_mode="rich")
        for one in found
        if name == (one.name or one.callback.__name__)
    )


def _group(app: typer.Typer, name: str, **told: str) -> Any:
    info = TyperInfo(app, name=name, **told)  # type: ignore[arg-type]
    return get_group_from_info(
        info, pretty_exceptions_short=True, suggest_commands=True, rich_markup_mode="rich"
    )  # fmt: skip


def _dead() -> Any:
    from lcq.cli.dead import app

    return _group(app, "dead")


def _config() -> Any:
    from lcq.cli.config import app

    return _group(
        app,
        "config",
        help="The settings: show, validate, init, schema, diff.",
        epilog=examples("lcq config show --origin", "lcq config validate lcq.yaml"),
    )


def _schedules() -> Any:
    from lcq.cli.schedules import app

    return _group(app, "schedules")


def _archive() -> Any:
    from lcq.cli.archive import app

    return _group(
        app,
        "archive",
        help="What was kept of tasks that the cluster has forgotten: list, show, export.",
        epilog=examples("lcq archive list", "lcq archive show 06ft3k", "lcq archive export --format csv --out all.csv"),
    )


def _keys() -> Any:
    from lcq.cli.keys import app

    return _group(
        app,
        "keys",
        help="Who may connect from other hosts: init, invite, join, list, revoke, rotate.",
        epilog=examples("lcq keys init", "lcq keys invite --role agent", "lcq keys list"),
    )


def _alerts() -> Any:
    from lcq.cli.alerts import app

    return _group(
        app,
        "alerts",
        help="What needs you: list, silence, unsilence, test.",
        epilog=examples("lcq alerts list", "lcq alerts silence node-down 2h --on gpu-3 --reason 'new GPU'"),
    )


def _functions() -> Any:
    from lcq.cli.functions import app

    return _group(app, "functions")


def _models() -> Any:
    from lcq.cli.found import found_commands

    return _group(
        found_commands("models"),
        "models",
        help="The weights of this host: list, pull, add, verify, rm.",
        epilog=examples("lcq models list", "lcq models pull lama"),
    )
