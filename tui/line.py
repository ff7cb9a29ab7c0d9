"""The command line in words: what a line means, what it would do, and how it can go on. No terminal here."""

from __future__ import annotations

import difflib
import shlex
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import TypeAlias

from lcq.errors import InvalidInput
from lcq.ids import is_id, normalise_prefix
from lcq.lang import tr
from lcq.models import NodeStatus, Privacy, TaskPriority
from lcq.moments import moment_or_none
from lcq.spans import read_span
from lcq.task_fields import parse_where
from tui import acts
from tui.acts import Act
from tui.commands import COMMANDS, Command, Scope
from tui.desk import Desk
from tui.store import WAITING, NodeRow, QueueRow, TaskRow
from tui.text import counted

SPOKEN = (
    Scope.EVERYWHERE, Scope.TABLE, Scope.TASKS, Scope.QUEUES, Scope.NODES, Scope.CAUSES, Scope.ACTIVITY,
    Scope.SCHEDULES, Scope.KEYS, Scope.LINE,
)  # fmt: skip
"""The commands of these scopes have a word on the line."""

_OPTIONS = ("to", "reason", "deadline")
_TARGETS = ("@marked", "@cursor", "@shown")
_KEPT = 100
_ID = frozenset("0123456789abcdefghjkmnpqrstvwxyz")


def line_commands() -> dict[str, Command]:
    """Every command of the line by its word."""
    return {command.called: command for command in COMMANDS if command.scope in SPOKEN}


@dataclass(frozen=True)
class Scene:
    """What a line is about: what is known, and what the operator looks at."""

    desk: Desk
    scopes: Sequence[Scope] = ()  # of the screen
    marked: Sequence[TaskRow] = ()
    cursor: TaskRow | None = None
    contexts: Sequence[str] = ()

    @property
    def queues(self) -> list[QueueRow]:
        return sorted(self.desk.store.queues.rows.values(), key=lambda row: row.place)

    @property
    def nodes(self) -> list[NodeRow]:
        return sorted(self.desk.store.nodes.rows.values(), key=lambda row: row.id)


Make: TypeAlias = Callable[[Sequence[TaskRow]], Act]


@dataclass(frozen=True)
class Meant:
    """What a line means. Just one of ``act``, ``make`` and ``command`` is there; ``forecast`` says it beforehand."""

    forecast: str
    act: Act | None = None
    make: Make | None = None  # on all that the filter ``where`` fits
    where: str = ""
    command: Command | None = None  # with ``words``, done by the console itself
    words: tuple[str, ...] = ()
    reason: str = ""


@dataclass
class LineHistory:
    """The lines that were typed, the newest last."""

    lines: list[str] = field(default_factory=list)

    def note(self, line: str) -> None:
        self.lines = [*(old for old in self.lines if old != line), line][-_KEPT:]

    def step(self, at: int, steps: int) -> tuple[int, str | None]:
        """From place ``at`` (0: the line that is being typed, 1: the newest of those before) ``steps`` further back."""
        there = min(max(0, at + steps), len(self.lines))
        return there, self.lines[-there] if there else None


# ---------------------------------------------------------------- reading


def understand(text: str, scene: Scene) -> Meant:
    """What a line means, by what is known now.

    Raises:
        InvalidInput: it means nothing; says which word is wrong, and what is the nearest.
    """
    words, options = _split(text)
    if not words:
        raise InvalidInput("a command", hint="such as 'move @marked --to gpu-low'; tab completes")
    known = line_commands()
    command = known.get(words[0])
    if command is None:
        raise InvalidInput(f"no command {words[0]!r}{_nearest(words[0], known)}", hint=":help lists them")
    reader = _READERS.get(command.id)
    rest = words[1:]
    if command.scope is Scope.TABLE and command.scope not in scene.scopes:
        raise InvalidInput(f":{command.called} is for a list: go to one first")
    if reader is not None and (rest or options or command.scope not in scene.scopes):
        unused = sorted(set(options) - {name for name in _OPTIONS if f"--{name}" in command.takes} - {"reason"})
        if unused:
            raise InvalidInput(f":{command.called} takes no --{unused[0]}: {command.takes}")
        return reader(command, rest, options, scene)
    if options or (rest and not command.takes):
        raise InvalidInput(f":{command.called} takes {command.takes or 'nothing more'}")
    if command.scope not in (Scope.EVERYWHERE, Scope.LINE, *scene.scopes):
        raise InvalidInput(f":{command.called} is for {command.scope.value.lower()}: go there first")
    return Meant(command.shown_title, command=command, words=tuple(rest))


def _split(text: str) -> tuple[list[str], dict[str, str]]:
    """The words of a line, and its options."""
    lexer = shlex.shlex(text, posix=True, punctuation_chars=False)
    lexer.whitespace_split, lexer.commenters, lexer.escape = True, "", ""
    try:
        typed = list(lexer)
    except ValueError as error:
        raise InvalidInput("a quote is not closed") from error
    words: list[str] = []
    options: dict[str, str] = {}
    left = iter(typed)
    for word in left:
        if not (word.startswith("--") and len(word) > 2):
            words.append(word)
            continue
        name, given, value = word[2:].partition("=")
        if name not in _OPTIONS:
            raise InvalidInput(f"no option --{name}{_nearest(name, _OPTIONS)}")
        options[name] = value if given else next(left, "")
        if not options[name]:
            raise InvalidInput(f"--{name} needs a value")
    return words, options


def _nearest(word: str, known: Iterable[str]) -> str:
    near = difflib.get_close_matches(word, list(known), n=1, cutoff=0.5)
    return f" (did you mean {near[0]!r}?)" if near else ""


# ---------------------------------------------------------------- acts on tasks


def _on_tasks(make: Make, words: Sequence[str], options: Mapping[str, str], scene: Scene) -> Meant:
    """An act on what the words name: marked tasks, those of some ids, or all that a filter fits."""
    reason = options.get("reason", "")
    what = list(words) or (["@marked"] if scene.marked else ["@cursor"])
    match what:
        case ["@marked"]:
            rows = list(scene.marked)
        case ["@cursor"]:
            rows = [scene.cursor] if scene.cursor is not None else []
        case ["@shown"]:
            return _on_filter(make, scene.desk.tasks.filter.text, reason, scene)
        case _ if all(len(word) >= 4 and set(word.casefold()) <= _ID for word in what) and _rows_of(what, scene):
            rows = _rows_of(what, scene)
        case _ if all(is_id(word.casefold()) for word in what):  # perhaps beyond the window
            return _on_filter(make, f"id={'|'.join(what).casefold()}", reason, scene)
        case _:
            return _on_filter(make, what[0] if len(what) == 1 else " ".join(map(_requoted, what)), reason, scene)
    act = make(rows)
    return Meant(act.forecast, act=act, reason=reason)


def _rows_of(prefixes: Sequence[str], scene: Scene) -> list[TaskRow]:
    """The tasks of these ids or beginnings of ids; none where one of them begins none, or several."""
    rows = scene.desk.store.tasks.rows
    found = []
    for prefix in prefixes:
        typed = prefix.casefold()
        begun = [rows[typed]] if typed in rows else [row for task_id, row in rows.items() if task_id.startswith(typed)]
        if len(begun) != 1:
            return []
        found += begun
    return found


def _requoted(word: str) -> str:
    """One of several words of a filter, with the quotes that it needs."""
    name, colon, value = word.partition(":")
    return f'{name}{colon}"{value}"' if " " in value and colon else word


def _on_filter(make: Make, where: str, reason: str, scene: Scene) -> Meant:
    parse_where(where)  # strictly: an act on what nobody meant is worse than none
    fits, now = scene.desk.tasks.parsed(where).matches, scene.desk.link.now_ms
    act = make([row for row in scene.desk.store.tasks.rows.values() if fits(row, now)])
    beyond = scene.desk.store.beyond
    more = tr("; {beyond:,} tasks beyond the window are looked through too", beyond=beyond) if beyond else ""
    return Meant(act.forecast + more, make=make, where=where, reason=reason)


def _retry(command: Command, words: Sequence[str], options: Mapping[str, str], scene: Scene) -> Meant:
    return _on_tasks(acts.retry, words, options, scene)


def _cancel(command: Command, words: Sequence[str], options: Mapping[str, str], scene: Scene) -> Meant:
    slots = sum(row.slots for row in scene.nodes)
    return _on_tasks(lambda rows: acts.cancel(rows, slots=slots), words, options, scene)


def _comment(command: Command, words: Sequence[str], options: Mapping[str, str], scene: Scene) -> Meant:
    what = [words[0]] if words and words[0] in ("@marked", "@cursor") else []
    text = " ".join(words[len(what) :])
    if not text:
        raise InvalidInput("which note?", hint=":comment what others shall read")
    return _on_tasks(lambda rows: acts.comment(rows, text), what, options, scene)


def _move(command: Command, words: Sequence[str], options: Mapping[str, str], scene: Scene) -> Meant:
    place = options.get("to", "")
    if not place:
        raise InvalidInput("move where?", hint="--to QUEUE or --to NODE")
    kind = _kind_of_place(place, scene)
    return _on_tasks(lambda rows: acts.move(rows, **{kind: place}), words, options, scene)


def _kind_of_place(place: str, scene: Scene) -> str:
    queues, nodes = [row.id for row in scene.queues], [row.id for row in scene.nodes]
    if place in queues:
        return "queue"
    if place in nodes:
        return "node"
    raise InvalidInput(f"no queue or node {place!r}{_nearest(place, [*queues, *nodes])}")


def _prio(command: Command, words: Sequence[str], options: Mapping[str, str], scene: Scene) -> Meant:
    *what, wish = words or ("",)
    if wish in list(TaskPriority):
        priority = TaskPriority(wish)
        return _on_tasks(lambda rows: acts.set_priority(rows, priority), what, options, scene)
    if wish[:1] in ("+", "-") and wish[1:] in ("1", "2", "3"):
        steps = int(wish)
        return _on_tasks(lambda rows: acts.change_priority(rows, steps), what, options, scene)
    near = _nearest(wish, map(str, TaskPriority))
    raise InvalidInput(f"no priority {wish!r}{near}", hint=f"{', '.join(TaskPriority)}, +1, -1")


def _done_by(command: Command, words: Sequence[str], options: Mapping[str, str], scene: Scene) -> Meant:
    if not words:
        raise InvalidInput("by when?", hint=":deadline 17:30, '2026-12-24 09:00', 90m, 2h, or none")
    *what, when = words
    deadline = moment_or_none(when, datetime.now().astimezone())
    return _on_tasks(lambda rows: acts.set_deadline(rows, deadline), what, options, scene)


def _privacy(command: Command, words: Sequence[str], options: Mapping[str, str], scene: Scene) -> Meant:
    *what, wish = words or ("",)
    if wish not in tuple(Privacy):
        raise InvalidInput(f"no privacy {wish!r}{_nearest(wish, map(str, Privacy))}", hint=", ".join(Privacy))
    return _on_tasks(acts.privacy_of(Privacy(wish), scene.queues), what, options, scene)


# ---------------------------------------------------------------- queues and nodes


def _queue(words: Sequence[str], scene: Scene) -> QueueRow:
    names = {row.id: row for row in scene.queues}
    name = words[0] if words else ""
    if name not in names:
        raise InvalidInput(
            f"no queue {name!r}{_nearest(name, names)}" if name else "which queue?", hint=", ".join(names)
        )
    return names[name]


def _node(words: Sequence[str], scene: Scene) -> NodeRow:
    names = {row.id: row for row in scene.nodes}
    name = words[0] if words else ""
    if name not in names:
        raise InvalidInput(f"no node {name!r}{_nearest(name, names)}" if name else "which node?")
    return names[name]


def _reason(words: Sequence[str], options: Mapping[str, str]) -> str:
    return options.get("reason") or " ".join(words[1:])


def _pause(command: Command, words: Sequence[str], options: Mapping[str, str], scene: Scene) -> Meant:
    row = _queue(words, scene)
    if row.paused:
        raise InvalidInput(f"{row.id} is paused by {row.paused_by}: {row.reason or 'no reason given'}")
    return Meant(
        tr("pauses {id}: {row}", id=row.id, row=_waits(row)), act=acts.pause(row.id), reason=_reason(words, options)
    )


def _resume(command: Command, words: Sequence[str], options: Mapping[str, str], scene: Scene) -> Meant:
    row = _queue(words, scene)
    if not row.paused:
        raise InvalidInput(f"{row.id} is not paused")
    return Meant(
        tr("resumes {id}: {row}", id=row.id, row=_waits(row)), act=acts.resume(row.id), reason=_reason(words, options)
    )


def _waits(row: QueueRow) -> str:
    waiting = sum(row.count(status) for status in WAITING)
    return tr("{waiting} wait in it", waiting=counted(waiting, "task"))


def _backlog(command: Command, words: Sequence[str], options: Mapping[str, str], scene: Scene) -> Meant:
    row = _queue(words, scene)
    target = _queue([options["to"]], scene) if "to" in options else None
    if target is None or target is row:
        raise InvalidInput("move its backlog where?", hint="--to another QUEUE")
    forecast = tr("moves all that waits in {id} to {id2}: {row}", id=row.id, id2=target.id, row=_waits(row))
    return Meant(forecast, command=command, words=(row.id, target.id), reason=_reason(words, options))


def _empty(command: Command, words: Sequence[str], options: Mapping[str, str], scene: Scene) -> Meant:
    row = _queue(words, scene)
    forecast = tr("cancels all that waits in {id}: {row}; its name will be asked", id=row.id, row=_waits(row))
    return Meant(forecast, command=command, words=(row.id,), reason=_reason(words, options))


def _deadline(options: Mapping[str, str]) -> float | None:
    return read_span(options["deadline"], named="--deadline").total_seconds() if "deadline" in options else None


def _drain(command: Command, words: Sequence[str], options: Mapping[str, str], scene: Scene) -> Meant:
    act = acts.drain(_node(words, scene), deadline_s=_deadline(options))
    return Meant(act.lines[0], act=act, reason=_reason(words, options))


def _stop(command: Command, words: Sequence[str], options: Mapping[str, str], scene: Scene) -> Meant:
    act = acts.stop_node(_node(words, scene), deadline_s=_deadline(options))
    return Meant(tr("{lines} Its name will be asked.", lines=act.lines[0]), act=act, reason=_reason(words, options))


def _block(command: Command, words: Sequence[str], options: Mapping[str, str], scene: Scene) -> Meant:
    act = acts.block(_node(words, scene).id)
    return Meant(act.lines[0], act=act, reason=_reason(words, options))


def _activate(command: Command, words: Sequence[str], options: Mapping[str, str], scene: Scene) -> Meant:
    row = _node(words, scene)
    if row.status is NodeStatus.ONLINE:
        raise InvalidInput(f"{row.id} is online: it takes work already")
    act = acts.activate(row.id, unblocks=command.id == "unblock_node")
    return Meant(
        tr("{id} takes work again: it is {status}", id=row.id, status=tr(row.status)),
        act=act,
        reason=_reason(words, options),
    )


# ---------------------------------------------------------------- the console itself


def _go(command: Command, words: Sequence[str], options: Mapping[str, str], scene: Scene) -> Meant:
    text = " ".join(words)
    return Meant(
        command.shown_title + (tr(", of {text}", text=text) if text else ""),
        command=command,
        words=(text,) if text else (),
    )


def _task(command: Command, words: Sequence[str], options: Mapping[str, str], scene: Scene) -> Meant:
    if len(words) != 1:
        raise InvalidInput("which task?", hint="its id, or how that begins")
    typed = normalise_prefix(words[0])
    if not typed or not set(typed) <= _ID:
        raise InvalidInput(f"{words[0]!r} is no id", hint="digits and letters, such as 06ft3k")
    return Meant(command.shown_title, command=command, words=(typed,))


def _lend(command: Command, words: Sequence[str], options: Mapping[str, str], scene: Scene) -> Meant:
    span: timedelta = read_span(" ".join(words) or "15m", named=tr("the time to write"))
    return Meant(tr("lends the right to act here"), command=command, words=(str(span.total_seconds()),))


_SILENCED_FOR = "2h"


def _silence(command: Command, words: Sequence[str], options: Mapping[str, str], scene: Scene) -> Meant:
    if not words:
        raise InvalidInput("which alert?", hint="its rule, such as node-down or node-down/gpu-3")
    rule, _, subject = words[0].partition("/")
    rest = list(words[1:])
    typed = rest.pop(0) if rest and rest[0][:1].isdigit() else _SILENCED_FOR
    act = acts.silence(rule, subject, read_span(typed, named=tr("the time")).total_seconds())
    return Meant(act.forecast, act=act, reason=" ".join(rest) or options.get("reason", ""))


def _unsilence(command: Command, words: Sequence[str], options: Mapping[str, str], scene: Scene) -> Meant:
    if not words:
        raise InvalidInput("which alert?", hint="its rule, such as node-down or node-down/gpu-3")
    rule, _, subject = words[0].partition("/")
    act = acts.unsilence(rule, subject)
    return Meant(act.forecast, act=act, reason=_reason(words, options))


def _context(command: Command, words: Sequence[str], options: Mapping[str, str], scene: Scene) -> Meant:
    name = " ".join(words)
    if name and name not in scene.contexts:
        known = ", ".join(scene.contexts) or "none: see contexts in sample-config/lcq.yaml"
        raise InvalidInput(f"no context {name!r}{_nearest(name, scene.contexts)}", hint=known)
    return Meant(tr("to {name}", name=name) if name else tr("asks which"), command=command, words=(name,))


Reader: TypeAlias = Callable[[Command, Sequence[str], Mapping[str, str], Scene], Meant]

_READERS: dict[str, Reader] = {
    "retry": _retry, "cancel": _cancel, "comment": _comment, "move": _move, "set_priority": _prio,
    "set_deadline": _done_by, "set_privacy": _privacy,
    "pause_queue": _pause, "resume_queue": _resume, "move_backlog": _backlog, "empty_queue": _empty,
    "drain": _drain, "stop_node": _stop, "block_node": _block, "unblock_node": _activate, "activate": _activate,
    "silence_alert": _silence, "unsilence_alert": _unsilence,
    "open_task": _task, "lend_rights": _lend, "switch_context": _context, "filter": _go,
    **{
        f"show_{view}": _go
        for view in ("fleet", "tasks", "queues", "nodes", "causes", "activity", "schedules", "keys")
    },
}  # fmt: skip


# ---------------------------------------------------------------- completing


def complete(text: str, scene: Scene) -> list[str]:
    """The lines that ``text`` may become by its last word, the likeliest first."""
    head, _, last = text.rpartition(" ")
    known = line_commands()
    first = head.split()[:1]
    if not first:
        return [name for name in known if name.startswith(last) and name != last]
    command = known.get(first[0])
    if command is None:
        return []
    wanted = _wanted(command, head.split()[1:], last, scene)
    return [f"{head} {one}" for one in wanted if one.startswith(last) and one != last]


def _wanted(command: Command, before: Sequence[str], last: str, scene: Scene) -> list[str]:
    """What may stand where ``last`` does."""
    queues, nodes = [row.id for row in scene.queues], [row.id for row in scene.nodes]
    options = [f"--{name}" for name in _OPTIONS if f"--{name}" in command.takes and f"--{name}" not in before]
    if before and before[-1] == "--to":
        return queues if command.takes.startswith("QUEUE") else [*queues, *nodes]
    if before and before[-1] in ("--reason", "--deadline"):
        return []
    takes = command.takes.split()
    kind = takes[0].strip("[]") if takes else ""
    if kind in ("QUEUE", "NODE", "CONTEXT") and not before:
        return {"QUEUE": queues, "NODE": nodes, "CONTEXT": list(scene.contexts)}[kind]
    if kind == "WHAT":
        fields = [f"{name}:" for name in scene.desk.tasks.fields]
        values: list[str] = [*TaskPriority, "+1", "-1"] if "PRIORITY" in command.takes else []
        values += [*Privacy] if "PRIVACY" in command.takes else []
        targets = [] if before else [*_TARGETS, *values, *fields]
        return [*targets, *(values if before else []), *options]
    if kind == "FILTER":
        return [f"{name}:" for name in scene.desk.tasks.fields] if command.called in ("tasks", "filter") else []
    return options
