"""lcq config: what the settings are and who said it, what is wrong with a file, one to begin with, what differs."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from lcq.cli.examples import examples
from lcq.cli.output import Column, Output, told_problem
from lcq.cli.session import OK, REFUSED, SOME_FAILED, JsonFlag, Session, run, session_of
from lcq.errors import InvalidConfig, InvalidInput
from lcq.lang import N, ntr, tr

if TYPE_CHECKING:
    from lcq.config import DistributedConfig
    from lcq.settings.layers import Layers
    from lcq.settings.problems import Problem

app = typer.Typer()

_STDOUT = Path("-")
SomeFile = Annotated[Path | None, typer.Argument(metavar="[FILE]", help="A file of settings.")]


@app.command(epilog=examples("lcq config show --origin", "lcq config show redis.host", "lcq config show --set"))
def show(
    context: typer.Context,
    key: Annotated[str, typer.Argument(metavar="[KEY]", help="Only this key, or this section.")] = "",
    origin: Annotated[bool, typer.Option("--origin", help="Tell of each who said it.")] = False,
    only_set: Annotated[bool, typer.Option("--set", help="Only what is not at its default.")] = False,
    as_json: JsonFlag = False,
) -> int:
    """Show the settings that hold here, of all files, variables and flags. Secrets are hidden."""
    from lcq.config import DistributedConfig
    from lcq.reload import leaves
    from lcq.settings.layers import DEFAULT
    from lcq.settings.pages import as_file, in_yaml
    from lcq.settings.secrets import hidden

    session = session_of(context, as_json)
    output, manager = session.output, session.settings
    values = hidden(manager.config.model_dump(mode="json"), DistributedConfig)
    found = dict(leaves(values))
    origins = {name: manager.layers.origin(tuple(name.split("."))) for name in found}
    if key:
        found = {name: value for name, value in found.items() if name == key or name.startswith(f"{key}.")}
        if not found:
            raise _unknown(key)
    if only_set:
        found = {name: value for name, value in found.items() if origins[name] != DEFAULT}
    if output.as_json:
        output.document({name: {"value": value, "origin": str(origins[name])} for name, value in found.items()})
    elif origin:
        columns = (Column(N("KEY"), whole=True), Column(N("VALUE")), Column(N("SAID BY"), whole=True))
        rows = [(name, in_yaml(value), str(origins[name])) for name, value in found.items()]
        output.table(columns, rows, empty=tr("everything is at its default"))
    elif list(found) == [key]:
        value = found[key]
        output.say(value if isinstance(value, str) else in_yaml(value))
    else:
        for line in as_file(_nested(found)).splitlines() if found else ():
            output.say(line)
    return OK


def _nested(found: Mapping[str, Any]) -> dict[str, Any]:
    out: dict[str, Any] = {}
    for name, value in found.items():
        *sections, last = name.split(".")
        inner = out
        for section in sections:
            inner = inner.setdefault(section, {})
        inner[last] = value
    return out


def _unknown(key: str) -> InvalidInput:
    import difflib

    from lcq.config import DistributedConfig
    from lcq.settings.keys import keys_of

    known = [one.name for one in keys_of(DistributedConfig) if "*" not in one.name]
    near = difflib.get_close_matches(key, known, n=1)
    return InvalidInput(
        f"there is no setting {key!r}",
        hint=f"did you mean {near[0]!r}?" if near else "'lcq config show' lists them",
    )


@app.command(epilog=examples("lcq config validate lcq.yaml", "lcq config validate"))
def validate(context: typer.Context, file: SomeFile = None, as_json: JsonFlag = False) -> int:
    """Tell all that is wrong with a file; without one, with all that holds here. Exit codes: 0 right, 2 wrong."""
    session = session_of(context, as_json)
    layers = _alone(file) if file is not None else _here(session)
    problems, warnings = _judged(layers), [] if file is not None else [_strange(*one) for one in strange_variables()]
    output = session.output
    if output.as_json:
        document = [one.as_dict() for one in problems]
        output.document({"valid": not problems, "problems": document, "warnings": warnings})
        return REFUSED if problems else OK
    for warning in warnings:
        output.talk(warning)
    for one in problems:
        output.say(told_problem(one))
    names = ", ".join(layer.name for layer in layers.layers) or tr("nothing is set, every default holds")
    if problems:
        output.complain(ntr("{n} problem in the settings", "{n} problems in the settings", len(problems)))
        return REFUSED
    output.say(tr("right: {names}", names=names))
    return OK


def _alone(file: Path) -> Layers:
    from lcq.config import DistributedConfig
    from lcq.settings.layers import read_layers

    return read_layers([(file, True)], DistributedConfig, environment={}, flags=None)


def _here(session: Session) -> Layers:
    import os

    from lcq.config import DistributedConfig
    from lcq.settings.layers import config_files, read_layers

    files = config_files(session.config_file)
    return read_layers(files, DistributedConfig, environment=os.environ, flags=session.flags)


def _judged(layers: Layers) -> tuple[Problem, ...]:
    from lcq.config import DistributedConfig, validated
    from lcq.settings.problems import doubles_in, problems_of

    try:
        validated(layers)
    except InvalidConfig as error:
        found = error.problems or problems_of(None, layers, DistributedConfig)
    else:
        found = ()
    return tuple(sorted((*found, *doubles_in(layers)), key=lambda one: (one.where, one.line)))


def strange_variables() -> list[tuple[str, str]]:
    """Variables that look like settings and are none, each with the one that may be meant; "" where none is near."""
    import difflib
    import os

    from lcq.config import DistributedConfig
    from lcq.environment import JOINT, PREFIX

    out = []
    for name in sorted(os.environ):
        section, joint, _ = name.lower().removeprefix(PREFIX).partition(JOINT)
        if name.lower().startswith(PREFIX) and joint and section not in DistributedConfig.model_fields:
            near = difflib.get_close_matches(section, DistributedConfig.model_fields, n=1)
            out.append(
                (name, name[: len(PREFIX)] + near[0].upper() + name[len(PREFIX) + len(section) :] if near else "")
            )
    return out


def _strange(name: str, near: str) -> str:
    hint = tr("; did you mean {name}?", name=near) if near else ""
    return tr("warning: {name} is no setting{hint}", name=name, hint=hint)


@app.command(epilog=examples("lcq config init", "lcq config init /etc/lcq/config.yaml", "lcq config init - | less"))
def init(
    context: typer.Context,
    file: Annotated[Path, typer.Argument(metavar="[FILE]", help="Where to write it; -: to stdout.")] = Path("lcq.yaml"),
    force: Annotated[bool, typer.Option("--force", help="Replace the file that is there.")] = False,
) -> int:
    """Write a file of settings to begin with: every key with its meaning and its default, as comments."""
    from lcq.config import DistributedConfig
    from lcq.environment import deaf
    from lcq.settings.pages import as_commented_file

    with deaf():
        text = as_commented_file(DistributedConfig, DistributedConfig())
    output = session_of(context).output
    if file == _STDOUT:
        for line in text.splitlines():
            output.say(line)
        return OK
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        with file.open("w" if force else "x", encoding="utf-8") as out:
            out.write(text)
    except FileExistsError:
        raise InvalidInput(f"{file} is there already", hint="--force replaces it, '-' writes to stdout") from None
    except OSError as error:
        raise InvalidInput(f"cannot write {file}: {error.strerror}", hint="name another file") from error
    output.talk(tr("{file} is written; every line of it is a comment yet", file=file))
    return OK


@app.command(epilog=examples("lcq config schema > lcq.schema.json"))
def schema(context: typer.Context) -> int:
    """Print the JSON Schema of a file of settings, by which editors complete and check it."""
    from lcq.config import DistributedConfig
    from lcq.reload import how_it_changes
    from lcq.settings.pages import as_schema

    for line in json.dumps(as_schema(DistributedConfig, how_it_changes), indent=2).splitlines():
        session_of(context).output.say(line)
    return OK


@app.command(epilog=examples("lcq config diff", "lcq config diff new.yaml", "lcq config diff old.yaml new.yaml"))
def diff(
    context: typer.Context,
    file: SomeFile = None,
    other: Annotated[Path | None, typer.Argument(metavar="[FILE]", help="With two: compare them.")] = None,
    everything: Annotated[bool, typer.Option("--all", help="Also what a scheduler does not read.")] = False,
    as_json: JsonFlag = False,
) -> int:
    """Compare what the scheduler goes by with what the files here say, or one file does; or two files.

    Exit codes: 0 the same, 1 something differs.
    """
    session = session_of(context, as_json)
    if file is not None and other is not None:
        before, after = _settings_of(file), _settings_of(other)
        return _tell_differences(session.output, before, after, (str(file), str(other)), everything=True)
    after = _settings_of(file) if file is not None else _without_secrets(session.config)
    before = run(_running(session))
    name = str(file) if file is not None else tr("here")
    return _tell_differences(session.output, before, after, (tr("scheduler"), name), everything=everything)


async def _running(session: Session) -> dict[str, Any]:
    async with session.client() as client:
        return (await client.settings()).values


def _settings_of(file: Path) -> dict[str, Any]:
    from lcq.config import validated

    return _without_secrets(validated(_alone(file)))


def _without_secrets(config: DistributedConfig) -> dict[str, Any]:
    from lcq.config import DistributedConfig
    from lcq.settings.secrets import hidden

    values: dict[str, Any] = hidden(config.model_dump(mode="json"), DistributedConfig)
    return values


def _tell_differences(
    output: Output, before: Mapping[str, Any], after: Mapping[str, Any], names: tuple[str, str], *, everything: bool
) -> int:
    from lcq.reload import READ_BY, Role, how_it_changes, leaves
    from lcq.settings.pages import in_yaml

    one, two = dict(leaves(before)), dict(leaves(after))
    differ = [key for key in (one | two) if one.get(key, ...) != two.get(key, ...)]
    if not everything:
        differ = [key for key in differ if key.partition(".")[0] in READ_BY[Role.SCHEDULER]]
    if output.as_json:
        output.document(
            {key: {names[0]: one.get(key), names[1]: two.get(key), "changes": how_it_changes(key)} for key in differ}
        )
    else:
        columns = (Column(N("KEY"), whole=True), Column(names[0], wrapped=True), Column(names[1], wrapped=True))
        rows = [
            (key, _in_yaml_or_none(one, key, in_yaml), _in_yaml_or_none(two, key, in_yaml), tr(how_it_changes(key)))
            for key in differ
        ]
        output.table((*columns, Column(N("CHANGES"))), rows, empty=tr("they are the same"))
    return SOME_FAILED if differ else OK


def _in_yaml_or_none(values: Mapping[str, Any], key: str, in_yaml: Any) -> str:
    return in_yaml(values[key]) if key in values else "-"
