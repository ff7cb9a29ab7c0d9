"""How settings are shown: no secret ever is, wherever one may stand."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from pydantic import BaseModel

from lcq.errors import without_password
from lcq.settings.keys import field_at
from lcq.settings.layers import Loc

HIDDEN = "(hidden)"
SECRET_NAME = re.compile(r"passw|secret|token|credential|(^|_)key$|private", re.IGNORECASE)
_LONGEST = 80


def hidden(values: Any, model: type[BaseModel], loc: Loc = ()) -> Any:
    """``values`` without secrets: keys that are marked as such (``repr=False``), and passwords in addresses."""
    if values is not None and values not in ("", {}, []) and field_at(model, loc)[2]:
        return HIDDEN
    if isinstance(values, Mapping):
        return {name: hidden(value, model, (*loc, str(name))) for name, value in values.items()}
    if isinstance(values, list | tuple):
        return [hidden(value, model, (*loc, place)) for place, value in enumerate(values)]
    return without_password(values) if isinstance(values, str) and "://" in values else values


def shown(value: Any, loc: Loc, model: type[BaseModel]) -> str:
    """A value that was found, for a message: short, and no section, which may hold anything."""
    if isinstance(value, Mapping | list | tuple):
        return f"a {'section' if isinstance(value, Mapping) else 'list'}"
    return f"{hidden(value, model, loc)!r:.{_LONGEST}}"
