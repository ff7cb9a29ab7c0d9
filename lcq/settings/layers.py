"""The layers that settings are read from, and which of them said what. Later wins, key by key."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any, TypeAlias

import platformdirs
from pydantic import BaseModel

from lcq.environment import NotJson, read_environment, with_files
from lcq.errors import InvalidConfig

Loc: TypeAlias = tuple[str | int, ...]
"""Where a setting is: ("queues", 0, "kind")."""

SYSTEM_FILE = Path("/etc/lcq/config.yaml")
PROJECT_FILE = Path("lcq.yaml")
NAMED_BY, ALONE = "LCQ_CONFIG", "LCQ_CONFIG_ALONE"
"""The variables that name a file as --config does, and that let no other file count beside it."""

_FLAGS: Mapping[Loc, str] = {("agent", "labels"): "--label"}


def user_file() -> Path:
    """The settings of this user."""
    return Path(platformdirs.user_config_dir("lcq")) / "config.yaml"


def config_files(named: Path | None) -> tuple[tuple[Path, bool], ...]:
    """The files that may be read, the strongest last, and of each whether it has to be there: somebody named it."""
    if named is None and os.environ.get(NAMED_BY):
        named = Path(os.environ[NAMED_BY])
    asked = () if named is None else ((named, True),)
    if asked and os.environ.get(ALONE):
        return asked
    found = tuple((path, False) for path in (SYSTEM_FILE, user_file(), PROJECT_FILE) if not _is_same(path, named))
    return found + asked


def _is_same(path: Path, named: Path | None) -> bool:
    try:
        return named is not None and path.samefile(named)
    except OSError:
        return False


def is_there(path: Path) -> bool:
    """Whether there is something to read; not so where this user may not even look."""
    try:
        path.stat()
    except (FileNotFoundError, NotADirectoryError, PermissionError):
        return False
    except OSError:
        return True  # reading it will say what is wrong
    return True


@dataclass(frozen=True)
class Origin:
    """Who said a setting: a file and its line, a variable, a flag, or nobody: then it is the default."""

    kind: str  # "file", "environment", "flag" or "default"
    name: str = ""
    line: int = 0

    def __str__(self) -> str:
        return (f"{self.name}:{self.line}" if self.line else self.name) or "default"


DEFAULT = Origin("default")


@dataclass(frozen=True)
class Layer:
    """One of the places that settings come from."""

    kind: str
    name: str
    values: Mapping[str, Any]
    content: str = ""
    variables: Mapping[Loc, str] = field(default_factory=dict)

    def says(self, loc: Loc) -> bool:
        """Whether it says something of the setting at ``loc``, or of all that it is a part of."""
        here: Any = self.values
        for step in loc:
            if isinstance(here, Mapping):
                name = next((name for name in here if str(name) == str(step)), None)
                if name is None:
                    return False
                here = here[name]
            elif isinstance(here, list | tuple) and isinstance(step, int) and step < len(here):
                here = here[step]
            else:
                return True  # a whole that is no mapping: it stands over the parts that others told
        return True

    def origin(self, loc: Loc) -> Origin:
        if self.kind == "environment":
            known = [path for path in self.variables if path == loc[: len(path)]]
            return Origin(self.kind, self.variables[max(known, key=len)] if known else self.name)
        if self.kind == "flag":
            last = next((step for step in reversed(loc) if isinstance(step, str)), "")
            return Origin(self.kind, _FLAGS.get(loc, f"--{last.replace('_', '-')}"))
        return Origin(self.kind, self.name, self.line(loc))

    def line(self, loc: Loc) -> int:
        """The line in which the key at ``loc`` stands, or the nearest one above it; 0 if it is not in the file."""
        import yaml

        node, line = self._tree, 0
        for step in loc:
            if isinstance(node, yaml.MappingNode):
                pairs = [pair for pair in node.value if pair[0].value == str(step)]
                if not pairs:
                    break
                line, node = pairs[-1][0].start_mark.line + 1, pairs[-1][1]
            elif isinstance(node, yaml.SequenceNode) and isinstance(step, int) and step < len(node.value):
                node = node.value[step]
                line = node.start_mark.line + 1
        return line

    @cached_property
    def _tree(self) -> Any:
        import yaml

        return yaml.compose(self.content, Loader=_loader()) if self.content else None

    def doubles(self) -> Iterator[tuple[Loc, int, int]]:
        """Keys that stand there twice: where, the line of the second, the line of the first."""
        import yaml

        seen: set[int] = set()
        waiting: list[tuple[Loc, Any]] = [((), self._tree)]
        while waiting:
            loc, node = waiting.pop()
            if id(node) in seen:
                continue
            seen.add(id(node))
            if isinstance(node, yaml.SequenceNode):
                waiting += [((*loc, place), one) for place, one in enumerate(node.value)]
            if not isinstance(node, yaml.MappingNode):
                continue
            lines: dict[str, int] = {}
            for key, value in node.value:
                name, line = str(key.value), key.start_mark.line + 1
                if name in lines and name != "<<":
                    yield (*loc, name), line, lines[name]
                lines[name] = line
                waiting.append(((*loc, name), value))


@dataclass(frozen=True)
class Layers:
    """All that was read, the weakest first."""

    layers: tuple[Layer, ...] = ()
    failed: tuple[tuple[Path, InvalidConfig], ...] = ()
    """The files that could not be read, and why."""
    not_json: tuple[NotJson, ...] = ()

    @cached_property
    def values(self) -> dict[str, Any]:
        found: dict[str, Any] = {}
        for layer in self.layers:
            found = merged(found, layer.values)
        return found

    def origin(self, loc: Loc) -> Origin:
        """Who said what holds at ``loc``."""
        layer = next((layer for layer in reversed(self.layers) if layer.says(loc)), None)
        return layer.origin(loc) if layer is not None else DEFAULT


def read_layers(
    files: Sequence[tuple[Path, bool]],
    model: type[BaseModel],
    *,
    environment: Mapping[str, str],
    flags: Mapping[str, Any] | None,
) -> Layers:
    """Read every layer. Files that nobody named need not be there."""
    layers, failed = [], []
    for path, is_named in files:
        if not is_named and not is_there(path):
            continue
        try:
            layers.append(_read_file(path, model))
        except InvalidConfig as error:
            failed.append((path, error))
    told = read_environment(environment, model)
    if told.values:
        try:
            values = with_files(told.values, model)
            layers.append(Layer("environment", "environment", values, variables=_of_keys(told.variables, values)))
        except InvalidConfig as error:
            failed.append((Path("environment"), error))
    if flags:
        layers.append(Layer("flag", "flags", flags))
    return Layers(tuple(layers), tuple(failed), told.not_json)


def read_text(path: Path) -> str:
    """Raises:
    InvalidConfig: it cannot be read, or is no text.
    """
    try:
        return path.read_bytes().decode()
    except OSError as error:
        raise InvalidConfig(
            f"cannot read the configuration {path}: {error.strerror}", hint="check --config and LCQ_CONFIG"
        ) from error
    except UnicodeDecodeError as error:
        raise InvalidConfig(f"{path} is not valid YAML: {error}") from error


def _read_file(path: Path, model: type[BaseModel]) -> Layer:
    content = read_text(path)
    values = with_files(_with_empty_sections(_parsed(content, path), model), model)
    return Layer("file", str(path), values, content)


def _of_keys(variables: Mapping[Loc, str], values: Mapping[str, Any]) -> dict[Loc, str]:
    """By the key whose text it names a file of, where a variable does."""
    told = Layer("environment", "", values)
    return {
        loc if told.says(loc) else (*loc[:-1], str(loc[-1]).removesuffix("_file")): name
        for loc, name in variables.items()
    }


def _loader() -> Any:
    import yaml

    return getattr(yaml, "CSafeLoader", yaml.SafeLoader)  # the same in C, where PyYAML was built with it


def _parsed(content: str, path: Path) -> Mapping[str, Any]:
    import yaml  # here: where there is no file it is not needed

    try:
        values = yaml.load(content, Loader=_loader())  # noqa: S506 - a safe one
    except yaml.YAMLError as error:
        raise InvalidConfig(f"{path} is not valid YAML: {' '.join(str(error).split())}") from error
    except (ValueError, RecursionError) as error:  # such as a date that is none
        raise InvalidConfig(f"{path} is not valid YAML: {error}") from error
    if values is None:
        return {}
    if not isinstance(values, dict):
        raise InvalidConfig(f"{path}: expected keys with values, found {type(values).__name__}")
    return values


def _with_empty_sections(values: Mapping[str, Any], model: type[BaseModel]) -> Mapping[str, Any]:
    """A section under which every line is a comment says nothing: it is no null."""
    found = {str(name): value for name, value in values.items()}
    for name, value in tuple(found.items()):
        known = model.model_fields.get(name)
        kind = known.annotation if known is not None else None
        if isinstance(kind, type) and issubclass(kind, BaseModel) and (value is None or isinstance(value, dict)):
            found[name] = {} if value is None else _with_empty_sections(value, kind)
    return found


def merged(low: Mapping[str, Any], high: Mapping[str, Any]) -> dict[str, Any]:
    """``high`` over ``low``: sections key by key, all else as a whole."""
    out = dict(low)
    for key, value in high.items():
        below = out.get(key)
        out[key] = merged(below, value) if isinstance(below, Mapping) and isinstance(value, Mapping) else value
    return out
