"""An option on the wrong side of its command: where it belongs, and the line as it should be typed."""

from __future__ import annotations

import shlex
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import typer

from lcq.lang import tr


def where_it_belongs(error: typer.TyperException, args: Sequence[str]) -> tuple[str, str] | None:
    """Of an option that another part of the line ``args`` would know: what is wrong with it, and the line to type.

    None where ``error`` is about anything else.
    """
    context, option = getattr(error, "ctx", None), getattr(error, "option_name", "")
    if context is None or not option or option in _options(context.command):
        return None
    root = context.find_root()
    if context is root:
        return _behind(context, [], args, option)
    rest = root.command.make_parser(root).parse_args(list(args))[1]
    ours, place = _options(root.command), len(args) - len(rest)
    if option not in ours:
        return _behind(context, args[: place + 1], args[place + 1 :], option)
    moved, others = _taken_out(rest, _but_for(ours, context.command))
    said = tr("{option} belongs before '{command}', not behind it", option=option, command=rest[0])
    return said, shlex.join([root.info_name, *args[:place], *moved, *others])


def _behind(context: Any, above: Sequence[str], words: Sequence[str], option: str) -> tuple[str, str] | None:
    """The same of an option that a command among ``words`` has, which stand behind ``above``."""
    for first, last, command in _commands_with(option, context, words):
        options = _but_for(_options(command), context.command)
        if first and _takes_next(options, words[first - 1]):
            continue  # no command: the option's value, which is called as one
        moved, others = _taken_out(words[:first], options)
        path = words[first:last]
        said = tr("{option} belongs behind '{command}', not before it", option=option, command=" ".join(path))
        line = [context.find_root().info_name, *above, *others, *path, *moved, *words[last:]]
        return said, shlex.join(line)
    return None


def _commands_with(option: str, context: Any, words: Sequence[str]) -> Iterator[tuple[int, int, Any]]:
    """What may be the names of a command that has this option: from where to where they stand, and the command."""
    for first, word in enumerate(words):
        command, last = _named(context.command, context, word), first + 1
        while command is not None and option not in _options(command):
            command, last = _named(command, context, words[last]) if last < len(words) else None, last + 1
        if command is not None:
            yield first, last, command


def _named(group: Any, context: Any, name: str) -> Any:
    return group.get_command(context, name) if hasattr(group, "get_command") else None


def _options(command: Any) -> dict[str, Any]:
    return {name: one for one in command.params for name in one.opts if name.startswith("-")}


def _but_for(options: Mapping[str, Any], command: Any) -> dict[str, Any]:
    """Those of ``options`` that ``command`` does not have as well."""
    return {name: one for name, one in options.items() if name not in _options(command)}


def _takes_next(options: Mapping[str, Any], word: str) -> bool:
    """Whether this word is one of these options, and its value the word behind it."""
    return word in options and not options[word].is_flag


def _taken_out(words: Sequence[str], options: Mapping[str, Any]) -> tuple[list[str], list[str]]:
    """Of ``words`` those that are these options, with their values; and all others."""
    taken: list[str] = []
    others: list[str] = []
    left = iter(words)
    for word in left:
        if word == "--":
            others += [word, *left]
        elif _takes_next(options, word):
            taken += [word, next(left, options[word].metavar or "…")]
        else:
            (taken if word.partition("=")[0] in options else others).append(word)
    return taken, others
