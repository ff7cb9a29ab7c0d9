"""Settings that stand in files of their own: KEY_file names the file that has the text of KEY.

So a secret is in no file of settings, no variable and no command line, but where Docker, Kubernetes, systemd and
vaults put secrets. It goes for every text; a key that ends so and is a setting itself means what it says.
"""

from __future__ import annotations

import typing
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from pydantic import BaseModel

from lcq.environment import parts_of
from lcq.errors import InvalidConfig

ENDING = "_file"
_LARGEST = 64 * 1024


def resolved(values: Mapping[str, Any], kind: Any, prefix: str = "") -> dict[str, Any]:
    """``values`` of a section, or of whatever the type ``kind`` has, with the text of the files that they name.

    Raises:
        InvalidConfig: a file cannot be read, or a key and its file are both there.
    """
    model = _model_of(kind)
    fields = model.model_fields if model is not None else {}
    found: dict[str, Any] = {}
    for name, value in values.items():
        key = name.removesuffix(ENDING) if isinstance(name, str) else name
        if key != name and name not in fields and key in fields and _is_text(fields[key].annotation):
            if values.get(key) not in (None, ""):
                raise InvalidConfig(f"both {prefix}{key} and {prefix}{name} are set", hint="keep one of them")
            found[key] = _text_of(value, f"{prefix}{name}") if isinstance(value, str | Path) else value
        else:
            inner = fields[name].annotation if name in fields else _inner_of(kind)
            found[name] = _below(value, inner, f"{prefix}{name}.")
    return found


def _below(value: Any, kind: Any, prefix: str) -> Any:
    if kind is None:  # nothing is known of it, and an alias of YAML may lead it back into itself
        return value
    if isinstance(value, Mapping):
        return resolved(value, kind, prefix)
    if isinstance(value, list):
        return [_below(one, _inner_of(kind), prefix) for one in value]
    return value


def _text_of(named: str | Path, key: str) -> str:
    path = Path(named).expanduser()
    try:
        with path.open("rb") as file:
            text = file.read(_LARGEST + 1)
        if len(text) > _LARGEST:
            raise InvalidConfig(f"{key}: {path} has more than {_LARGEST} bytes", hint="name the file of one secret")
        return text.decode().rstrip("\r\n")
    except OSError as error:
        raise InvalidConfig(
            f"{key}: cannot read {path}: {error.strerror}", hint="name a file that this user may read"
        ) from error
    except UnicodeDecodeError as error:
        raise InvalidConfig(f"{key}: {path} is no text in UTF-8", hint="name the file of one secret") from error


def _model_of(kind: Any) -> type[BaseModel] | None:
    return next((one for one in parts_of(kind) if isinstance(one, type) and issubclass(one, BaseModel)), None)


def _inner_of(kind: Any) -> Any:
    """The type of what is in a list, or under a name of a mapping."""
    for one in parts_of(kind):
        inner = _arguments(one)
        if inner:
            return inner[-1] if inner[-1] is not Ellipsis else inner[0]
    return None


def _arguments(kind: Any) -> tuple[Any, ...]:
    return typing.get_args(kind) if typing.get_origin(kind) in (tuple, list, dict, Mapping) else ()


def _is_text(kind: Any) -> bool:
    return str in parts_of(kind)
