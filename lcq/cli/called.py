"""How ``lcq`` was called: the global options, and the configuration and the client they lead to. Loads no typer."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

from lcq.lang import Language, speak
from lcq.log import LogLevel, setup_logging

if TYPE_CHECKING:  # loaded where they are used: not every command needs all of them
    from lcq.cli.output import Output
    from lcq.client import AsyncClient
    from lcq.config import ConfigManager, DistributedConfig

SHELL_ASKS = "_LCQ_COMPLETE"
"""By this variable a shell asks what would complete a line, as Typer makes it of our name."""
OK, SOME_FAILED, REFUSED, UNREACHABLE, NOT_IN_TIME, INTERRUPTED = 0, 1, 2, 3, 4, 130


@dataclass(frozen=True)
class Session:
    """One run of ``lcq``: how it was called, and what it talks with."""

    config_file: Path | None = None
    scheduler: str | None = None
    as_json: bool = False
    log_level: LogLevel | None = None
    patience_s: float = 10.0
    context: str | None = None
    lang: Language | None = None

    @cached_property
    def settings(self) -> ConfigManager:
        """Raises:
        InvalidConfig: naming file and key.
        """
        from lcq.config import ConfigManager

        manager = ConfigManager(self.config_file, overrides=self.flags, context=self.context)
        if manager.config.lang:
            speak(manager.config.lang)
        return manager

    @property
    def flags(self) -> dict[str, object]:
        """The settings among the global options."""
        given: dict[str, object] = {"log_level": self.log_level, "lang": self.lang}
        return {name: value for name, value in given.items() if value}

    @property
    def config(self) -> DistributedConfig:
        """Raises:
        InvalidConfig: naming file and key.
        """
        return self.settings.config

    def as_arguments(self) -> list[str]:
        """The global options that lead another ``lcq`` to the same cluster."""
        given = {
            "--config": None if self.config_file is None else str(self.config_file.absolute()),
            "--scheduler": self.scheduler,
            "--context": self.context,
            "--log-level": self.log_level,
            "--lang": self.lang,
        }
        return [word for option, value in given.items() if value is not None for word in (option, value)]

    @cached_property
    def output(self) -> Output:
        from lcq.cli.output import Output

        return Output(as_json=self.as_json)

    def client(self, patience_s: float | None = None) -> AsyncClient:
        """A client that the command opens. What it logs goes to stderr: warnings, unless asked for more."""
        from lcq.client import AsyncClient

        setup_logging(self.log_level or "warning")
        return AsyncClient(self.config, scheduler=self.scheduler, timeout_s=patience_s or self.patience_s)
