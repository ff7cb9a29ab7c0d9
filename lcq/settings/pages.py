"""The settings for people and editors, made from the fields: a page, a commented file to begin with, a JSON Schema."""

from __future__ import annotations

import json
import textwrap
from collections.abc import Callable, Iterator
from typing import Any

import yaml
from pydantic import BaseModel

from lcq.settings.keys import Key, about_of, keys_of, section_of
from lcq.settings.layers import PROJECT_FILE, SYSTEM_FILE

_WIDE = 110
_LONGEST = 60  # of a default on the page; what is longer is in the commented file


def plain(value: Any) -> Any:
    """A value as a file would say it."""
    return value.model_dump(mode="json") if isinstance(value, BaseModel) else _plain(value)


def _plain(value: Any) -> Any:
    if isinstance(value, dict):
        return {str(name): plain(one) for name, one in value.items()}
    if isinstance(value, list | tuple):
        return [plain(one) for one in value]
    return value if isinstance(value, bool | int | float | str) or value is None else str(value)


def in_yaml(value: Any) -> str:
    """A value in one line of YAML (which JSON is), as it may stand behind its key."""
    return json.dumps(plain(value), ensure_ascii=False)


# ---------------------------------------------------------------- the page


def as_page(model: type[BaseModel], defaults: BaseModel, how_it_changes: Callable[[str], str]) -> str:
    """docs/config.md."""
    keys = list(keys_of(model, default=defaults))
    out = [_HEAD.format(system=SYSTEM_FILE, project=PROJECT_FILE)]
    alone = [key for key in keys if not key.depth and not key.is_section and not _has_more(key, keys)]
    out.append(_table(alone, how_it_changes))
    for top in (key for key in keys if not key.depth and key not in alone):
        inside = [key for key in keys if key.name.startswith(f"{top.name}.")]
        out.append(f"## {top.name}\n\n{_escaped(top.about)}\n")
        if not top.is_section:
            out.append(_table([top], how_it_changes))
        out.append(_table(inside, how_it_changes))
    return "\n".join(out)


_HEAD = """# Settings

Every key, from its field in lcq/config.py. This page is written by `make settings`; a test checks that it is current.

A setting is what the last of these says, key by key: sections are laid over each other, a list replaces the other one.

1. the default
2. `{system}`, of this host
3. `~/.config/lcq/config.yaml`, of this user (`$XDG_CONFIG_HOME`)
4. `{project}`, of the folder in which a command is run
5. the file that `--config FILE` names, or `LCQ_CONFIG`
6. variables: `LCQ_REDIS__HOST` is `redis.host`; lists and sections are JSON
7. flags, such as `--log-level`

Of every text, `KEY_file` names a file that has it instead: `storage: {{token_file: /run/secrets/lcq}}`, or
`LCQ_REDIS__URL_FILE=/run/secrets/redis-url` as Docker, Kubernetes and systemd (`LoadCredential`) hand secrets out.

`LCQ_CONFIG_ALONE=1` lets no other file count beside the one that is named.

    lcq config show --origin            what holds here, and who said it: file and line, variable, flag, default
    lcq config show redis.host          one key, or a section
    lcq config validate FILE            all that is wrong with a file; without FILE, with all layers
    lcq config init                     begin ./lcq.yaml: every key, its meaning and its default, as comments
    lcq config schema > schema.json     for editors (JSON Schema): completion and checks while you type
    lcq config diff                     what the scheduler goes by, against what the files here say
    lcq config diff OLD NEW             two files

Secrets are never shown. An unknown key is an error that names the nearest one.

## While processes run

Schedulers and agents follow their files (and look at once at a SIGHUP). What "changes" says below of a key:

- *at once*: it is taken over within a second of the file standing still, by everything that reads it.
- *needs restart*: it is named in the log, `lcq config diff` lists it, and it holds from the next start on.
- *in part at once*: see the keys below it.

A file that is half-written, wrong in any key, unreadable or gone changes nothing: what held goes on holding. The log
says why, and so do `lcq version`, `lcq nodes`, the console's banner and the field `config_error` of a node's telemetry,
until the file is right again. Files on network folders, where nothing tells of changes, are looked at every five
seconds.

A queue that is taken out of the settings takes no more tasks. Those that wait in it, also where somebody had chosen it,
go to where they can run, and what runs goes on. Nodes are told of new queues and thresholds at their next beat. A slot
that is taken away ends after what it does now. Where several schedulers run, change the files of all.
"""


def _has_more(key: Key, keys: list[Key]) -> bool:
    return any(one.name.startswith(f"{key.name}.") for one in keys)


def _table(keys: list[Key], how_it_changes: Callable[[str], str]) -> str:
    cells = (
        (
            f"`{key.name}`",
            _escaped(key.about) + " Never shown." * key.is_secret,
            _escaped(key.allowed),
            _default(key),
            how_it_changes(key.name),
        )
        for key in keys
    )
    rows = [f"| {' | '.join(row)} |" for row in cells]
    return "\n".join(["| key | meaning | may be | default | changes |", "|---|---|---|---|---|", *rows, ""])


def _default(key: Key) -> str:
    if key.is_section:
        return ""
    said = in_yaml(key.default)
    return f"`` {_escaped(said)} ``" if len(said) <= _LONGEST else "see `lcq config init`"


def _escaped(text: str) -> str:
    return text.replace("|", "\\|").replace("<", "&lt;")


# ---------------------------------------------------------------- a file to begin with


def as_commented_file(model: type[BaseModel], defaults: BaseModel) -> str:
    """A file that says nothing: each section, and in comments each key with its meaning and its default."""
    lines = [
        "# Settings of LCQ. Take the '#' from a line to set it. A running scheduler or agent follows its files.",
        "# 'lcq config validate' checks them, 'lcq config show --origin' tells what holds and who said it. More is in",
        "# docs/config.md.",
    ]
    for key in keys_of(model, default=defaults):
        if "*" in key.name:
            continue
        indent = "  " * key.depth
        if not key.depth:
            lines.append("")
        lines += [f"{indent}# {line}" for line in textwrap.wrap(key.about, _WIDE - len(indent))]
        name = key.name.rpartition(".")[2]
        if key.is_section:
            lines.append(f"{indent}{name}:")
            continue
        if key.allowed not in ("text", "true or false"):
            lines.append(f"{indent}# May be: {key.allowed}.")
        lines += list(_commented(name, key, indent))
    return "\n".join(lines) + "\n"


def _commented(name: str, key: Key, indent: str) -> Iterator[str]:
    value = plain(key.default)
    said = in_yaml(value)
    if not value or len(said) <= _WIDE - len(indent) - len(name) or not isinstance(value, list | dict):
        yield f"{indent}#{name}: {said}"
        return
    yield f"{indent}#{name}:"
    if isinstance(value, list):
        yield from (f"{indent}#  - {in_yaml(one)}" for one in value)
    else:
        yield from (f"{indent}#  {inner}: {in_yaml(one)}" for inner, one in value.items())


# ---------------------------------------------------------------- for editors


def as_schema(model: type[BaseModel], how_it_changes: Callable[[str], str]) -> dict[str, Any]:
    """A JSON Schema of a file of settings, with what each key means."""
    schema = model.model_json_schema(mode="validation")
    known = {model.__name__: model} | {kind.__name__: kind for kind in _models_in(model)}
    _describe(schema, model)
    for name, part in schema.get("$defs", {}).items():
        if name in known:
            _describe(part, known[name])
    for name, part in schema["properties"].items():
        part.setdefault("$comment", f"a change comes {how_it_changes(name)}")
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        **schema,
        "title": "Settings of LCQ",
    }


def _models_in(model: type[BaseModel]) -> Iterator[type[BaseModel]]:
    for field in model.model_fields.values():
        section = section_of(field.annotation)
        if section is not None:
            yield section[0]
            yield from _models_in(section[0])


def _describe(part: dict[str, Any], model: type[BaseModel]) -> None:
    part["description"] = about_of(model)
    part["patternProperties"] = {"_file$": {"type": "string"}}  # the file that has a key's text (lcq.settings.by_file)
    told = {key.name: key.about for key in keys_of(model) if not key.depth}
    for name, one in part.get("properties", {}).items():
        one.pop("title", None)
        one["description"] = told[name]
    for name in _sections_of(model):  # a section under which all is a comment is none
        whole = part["properties"][name]
        part["properties"][name] = {"anyOf": [whole, {"type": "null"}], "description": whole.pop("description")}


def _sections_of(model: type[BaseModel]) -> list[str]:
    return [
        name
        for name, field in model.model_fields.items()
        if isinstance(field.annotation, type) and issubclass(field.annotation, BaseModel)
    ]


def as_file(values: Any) -> str:
    """Settings as a file would say them."""
    return yaml.safe_dump(values, sort_keys=False, allow_unicode=True, default_flow_style=None, width=_WIDE)
