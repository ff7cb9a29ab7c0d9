"""The catalogues of other languages: what there is to translate, taken from the sources, and what is said for it.

python -m tests.catalogue     (make catalogue) brings the .po files up to the sources and writes their .mo files
python -m tests.catalogue -l  lists what has no translation yet
"""

from __future__ import annotations

import ast
import io
import itertools
import re
import string
import sys
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from babel.messages.catalog import Catalog, Message
from babel.messages.mofile import write_mo
from babel.messages.pofile import read_po, write_po

from lcq.lang import DOMAIN, FOLDER

ROOT = Path(__file__).parents[1]
TOLD = "told"
"""The context of what stays English where it is made: lcq.lang.retold finds it by its form."""

MARKED: dict[str, tuple[int | str, ...]] = {
    "tr": (0,),
    "N": (0,),
    "Command": (1, 5, "title", "label"),
    "Column": (1, "title"),
    "_count_column": (1,),
    "fact": (0,),
}
"""Which arguments of which calls are translated: at once, or by whoever shows what is made there."""
MARKED_IN = {"lcq/cli/": {"Column": (0,)}, "worker/": {"Column": (0,)}}
"""The same of calls that mean something else in the files of a folder."""
TOLD_BY = (
    "lcq/alerts/rules.py", "lcq/alerts/keeper.py", "lcq/alert_config.py", "lcq/runner_config.py", "lcq/timetable.py",
    "lcq/schedules.py", "lcq/previews.py", "lcq/logs.py", "lcq/backup.py",
    "lcq/why.py", "lcq/routing.py", "lcq/reasons.py", "lcq/eta.py", "lcq/explain.py", "lcq/models.py",
    "lcq/health.py", "lcq/gpus.py", "lcq/nvml.py", "lcq/visibility.py", "lcq/hardware.py", "lcq/folder.py",
    "lcq/images.py", "lcq/labels.py", "lcq/config.py", "lcq/settings/layers.py", "lcq/settings/problems.py",
    "lcq/query.py", "lcq/task_fields.py", "lcq/tasks.py",
    "lcq/desk.py", "lcq/moving.py", "lcq/nodes.py", "lcq/resumable.py", "lcq/settling.py", "lcq/slow.py",
    "lcq/discovery.py", "lcq/announcement.py", "lcq/embedded.py", "lcq/thumbnails.py", "lcq/torch_gpus.py",
    "lcq/manifest.py", "lcq/errors.py", "lcq/state/moves/*.py", "lcq/state/connection.py",
    "lcq/state/records.py", "lcq/state/sentinels.py", "lcq/picture_parts.py", "worker/rests.py",
    "worker/retest.py", "worker/readings.py", "worker/disks.py", "worker/offer.py", "worker/outcomes.py",
    "worker/slot.py", "worker/skew.py", "worker/service.py", "worker/wear.py", "worker/warden.py",
    "worker/thumbnails.py", "worker/engines/*.py", "worker/download.py", "worker/weights.py",
    "worker/archive.py", "worker/inert_pickle.py", "worker/lama_tensors.py", "worker/torch_devices.py",
    "worker/spool.py", "worker/agent.py", "worker/endpoint_keeper.py", "worker/membership.py",
)  # fmt: skip
"""Files whose plain texts reach people elsewhere: reasons, faults, what is left out. Of others only their errors do."""
NOT_TOLD = {
    "alert %s (%s): %s", "rule={a} subject={b}", "this scheduler's condition", "%Y-%m-%d %H:%M", "name={a} job={b}",
    "windows of nodes", "lcq restore", "failpoint {a}", "alerts: {a}", "{a} by {b}", "on {a} {b}",
    "event loop's lag", "{a} d {b} h", "{a} h {b} m",
    "why {a}",
    "{a} refused: {b}",
    "with {a}",
    "line {a}: {b}: {c}", "{a}, found {b}",
    "value: {a}", "inpaint with {a}", "ahead of",
    "(height, width), with 3 or 4 channels or none", "(no words)", "({a}% of it)", "Apple GPU",
    "Callable[[EngineSettings], Engine]", "JPEG 2000", "JPEG, PNG, WebP, TIFF, BMP and GIF", "Photoshop (PSD)",
    "PostScript (EPS)", "SHA-256 {a}, MD5 {b}, {c} bytes", "a single number", "behind {a}{b}{c}", "control line",
    "control socket", "fleet watch", "gpu{a} ({b})", "hand back", "icon (ICO)", "in {a} s",
    "inpaint {a}{b} of {c}", "it is {a}", "job  is paused {a}", "late answers",
    "lcq: what the results in this folder were made of; 'lcq submit' reads it to do only what is not yet done",
    "leaving out %s: %s", "line {a}: {b}", "load {a}", "loading {a}", "model name",
    "no queue with {a} slot(s) on {b}", "node duties", "node={a} device=", "node={a} device={b}",
    "prctl({a}) failed", "reading of the GPUs", "see {a}", "set CUDA_DEVICE_ORDER=PCI_BUS_ID, or",
    "start IOPaint with {a}", "task duties", "task logs", "drill: no line break", "the control socket",
    "the processors' use", "value: {a}, found {b}",
    "wait for {a}", "waits for", "{\"format\": {a}, \"about\": {b}, \"entries\": [\n{c}\n]}\n", "{a} ({b} slots)",
    "{a} ({b}, at {c})", "{a} MiB", "{a} has {b}", "{a} is {b}", "{a} min", "{a} of {b}",
    "{a} takes about {b} MiB for {c}; {d} has {e} MiB free", "{a} windows of {b} x {c} pixels",
    "{a} with {b} slot(s) on {c}", "{a} x {b} pixels", "{a},… {b} in all", "{a}: {b}, found {c}",
}  # fmt: skip
"""What looks like one and is not, or would be found in sentences of other programs as well."""
TOLD_SO = (
    "{a} done", "{a} done, {b} refused: {c}", "{a} done of {b} looked at",
    "{a} done of {b} looked at, {c} refused: {d}",
    "rule", "receiver", "hour", "day", "month",
    "offline", "online", "suspect", "draining", "quarantined", "pending", "queued", "processing", "completed",
    "failed", "cancelled", "cancel", "retry", "reroute", "prioritise", "pause", "resume", "task {a}", "queue {a}",
    "job {a}", "line {a}", "by {a}", "its record was damaged: {a}", "brought down {a} runners, last: {b}",
    "over the retry budget ({a}): waits {b} s, at no cost", "the grant never reached {a}",
    "late result of attempt {a}", "handed back by {a}",
    "{a} at a function: the house does it", "left in order", "paused by {a}: {b}", "paused by {a}",
    "resumed by {a}: {b}", "resumed by {a}", "on probation: it was in quarantine ({a}) and passed its probe",
    "displaced by the urgent task {a}: {b} is full (at most {c} may wait)", "is no hash", "has no {a}",
    "{a} is no number", "priority is none", "status is none", "{a} is not the one it is listed under",
    "attempt does not count its attempts", "waits in another lane", "node does not hold it", "it is a broken link",
    "it is not there", "it is not readable: {a}", "it is neither a file nor a folder",
    "{a} is a broken link", "{a} is not there", "{a} is not readable: {b}", "{a} is neither a file nor a folder",
)  # fmt: skip
"""What this cannot find by itself: what Lua tells, and what is put together of parts."""
SHOWN_BY_PEOPLE = ("lcq/**/*.py", "tui/**/*.py", "worker/**/*.py")
_MOST_FORMS, _MOST_MEANINGS = 24, 4


@dataclass(frozen=True)
class Found:
    """One thing to translate: its English, in the plural too where it is counted, and where it stands."""

    text: str
    plural: str = ""
    context: str = ""
    where: str = ""

    @property
    def key(self) -> tuple[str, str]:
        return self.context, self.text


def po_path(folder: str) -> Path:
    return FOLDER / folder / "LC_MESSAGES" / f"{DOMAIN}.po"


def sources(*patterns: str) -> list[Path]:
    return sorted({path for pattern in patterns for path in ROOT.glob(pattern)})


def places_of(text: str) -> set[str]:
    """The names of the ``{places}`` in a text."""
    return {name for _, name, _, _ in string.Formatter().parse(text) if name}


# ---------------------------------------------------------------- what is marked


def found_in(path: Path) -> Iterator[Found]:
    """What is marked for the catalogue in a file."""
    where = path.relative_to(ROOT).as_posix()
    for node in read_source(path).nodes:
        if not isinstance(node, ast.Call):
            continue
        name = called(node)
        if name == "ntr":
            one, many = map(literal, node.args[:2])
            yield Found(one or "", many or "", where=where)
        elif name == "counted" and len(node.args) == 2:
            noun = literal(node.args[1])
            if noun:
                yield Found(f"{{n:,}} {noun}", f"{{n:,}} {noun}s", where=where)
        for key in marked_of(where).get(name, ()):
            marked = argument(node, key)
            for text in texts_of(marked) if marked is not None else ():
                if any(char.isalpha() for char in text):
                    yield Found(text, where=where)


def marked_of(where: str) -> dict[str, tuple[int | str, ...]]:
    """Which arguments of which calls in a file are translated."""
    own = (marks for folder, marks in MARKED_IN.items() if where.startswith(folder))
    return MARKED | next(own, {})


def called(call: ast.Call) -> str:
    """The last name of what is called."""
    return call.func.attr if isinstance(call.func, ast.Attribute) else getattr(call.func, "id", "")


def argument(call: ast.Call, key: int | str) -> ast.expr | None:
    if isinstance(key, int):
        return call.args[key] if key < len(call.args) else None
    return next((keyword.value for keyword in call.keywords if keyword.arg == key), None)


def literal(node: ast.expr) -> str | None:
    return node.value if isinstance(node, ast.Constant) and isinstance(node.value, str) else None


def texts_of(node: ast.expr) -> Iterator[str]:
    """The literals that an argument may be: itself, or either branch of a choice."""
    if isinstance(node, ast.IfExp):
        yield from texts_of(node.body)
        yield from texts_of(node.orelse)
    elif (text := literal(node)) is not None:
        yield text


# ---------------------------------------------------------------- what is made in English


class Source:
    """A file's tree, with what is above each of its nodes."""

    def __init__(self, path: Path) -> None:
        self.tree = ast.parse(path.read_text(encoding="utf-8"))
        self.nodes: list[ast.AST] = [self.tree]
        self._above: dict[ast.AST, ast.AST] = {}
        for node in self.nodes:  # which grows meanwhile, in the order of ast.walk
            for inner in ast.iter_child_nodes(node):
                self.nodes.append(inner)
                self._above[inner] = node
        self._forms: dict[ast.AST, Forms] = {}

    def above(self, node: ast.AST) -> Iterator[ast.AST]:
        """What the node stands in, from the inside to the outside."""
        while (above := self._above.get(node)) is not None:
            yield above
            node = above

    def outermost(self, node: ast.AST) -> ast.expr:
        """The whole expression of text that the node is a part of."""
        for above in self.above(node):
            if not isinstance(above, ast.BinOp | ast.IfExp | ast.BoolOp) or node is getattr(above, "test", None):
                break
            node = above
        return node  # type: ignore[return-value]

    def is_in_error(self, node: ast.AST) -> bool:
        """Whether it stands in the class of an error."""
        return any(isinstance(at, ast.ClassDef) and at.name in error_names() for at in self.above(node))

    def forms_at(self, node: ast.AST) -> Forms:
        """What names mean in the function around the node."""
        functions = (at for at in self.above(node) if isinstance(at, ast.FunctionDef | ast.AsyncFunctionDef))
        scope = next(functions, self.tree)
        if scope not in self._forms:
            self._forms[scope] = Forms(scope, self.tree)
        return self._forms[scope]


@cache
def read_source(path: Path) -> Source:
    return Source(path)


class Forms:
    """The forms that an expression of text can take, with ``{a}``, ``{b}`` … for what is known only when it is run."""

    def __init__(self, function: ast.AST, module: ast.Module) -> None:
        self._local: dict[str, list[ast.expr]] = {}
        self._grown: set[str] = set()  # to these something is added later on
        for node in module.body:  # its constants
            if isinstance(node, ast.Assign) and isinstance(node.targets[0], ast.Name) and function is not module:
                self._local[node.targets[0].id] = [node.value]
        for node in ast.walk(function):
            if isinstance(node, ast.Assign) and isinstance(node.targets[0], ast.Name):
                self._local.setdefault(node.targets[0].id, []).append(node.value)
            elif isinstance(node, ast.Assign) and isinstance(node.targets[0], ast.Tuple):
                inner = node.value.elts if isinstance(node.value, ast.Tuple) else ()
                for target, value in zip(node.targets[0].elts, inner, strict=False):
                    if isinstance(target, ast.Name):
                        self._local.setdefault(target.id, []).append(value)
            elif isinstance(node, ast.AugAssign) and isinstance(node.target, ast.Name):
                self._grown.add(node.target.id)

    def of(self, node: ast.expr, depth: int = 0) -> list[str]:
        """Each with "\0" where a place is."""
        place = ["\0"]
        if depth > 6:
            return place
        if (text := literal(node)) is not None:
            return [text]
        if isinstance(node, ast.IfExp):
            return [*self.of(node.body, depth + 1), *self.of(node.orelse, depth + 1)]
        if isinstance(node, ast.JoinedStr):
            return self._joined([self._part(part, depth) for part in node.values])
        if isinstance(node, ast.BinOp) and isinstance(node.op, ast.Add):
            return self._joined([self.of(node.left, depth + 1), self.of(node.right, depth + 1)])
        if isinstance(node, ast.BoolOp) and isinstance(node.op, ast.Or):
            return [form for value in node.values for form in self.of(value, depth + 1)]
        if isinstance(node, ast.Name) and 0 < len(self._local.get(node.id, ())) <= _MOST_MEANINGS:
            forms = [form for value in self._local[node.id] for form in self.of(value, depth + 1)]
            if node.id in self._grown:
                forms = [*forms, *(form + "\0" for form in forms if not form.endswith("\0"))]
            return forms if any(char.isalpha() for form in forms for char in form) or "" in forms else place
        return place

    def _part(self, part: ast.expr, depth: int) -> list[str]:
        if isinstance(part, ast.FormattedValue):
            return ["\0"] if part.conversion != -1 or part.format_spec else self.of(part.value, depth + 1)
        return self.of(part, depth)

    @staticmethod
    def _joined(parts: list[list[str]]) -> list[str]:
        return ["".join(one) for one in itertools.islice(itertools.product(*parts), _MOST_FORMS)]


def with_places(form: str) -> str:
    pieces = form.split("\0")
    named = (f"{{{string.ascii_lowercase[at]}}}" for at in range(len(pieces) - 1))
    return "".join(itertools.chain(*itertools.zip_longest(pieces, named, fillvalue="")))


@cache
def error_names() -> frozenset[str]:
    """The classes of errors, by the names that the sources give them and their bases."""
    bases: dict[str, set[str]] = {}
    for path in sources("lcq/**/*.py", "tui/**/*.py", "worker/**/*.py"):
        for node in read_source(path).nodes:
            if isinstance(node, ast.ClassDef):
                bases.setdefault(node.name, set()).update(getattr(base, "id", "") for base in node.bases)
    known = {"LcqError"}
    while more := {name for name, of in bases.items() if of & known} - known:
        known |= more
    return frozenset(known)


def told_in(path: Path) -> Iterator[Found]:
    """The forms of what a file says in English to whoever will show it: errors with their hints, reasons to wait."""
    where = path.relative_to(ROOT).as_posix()
    source = read_source(path)
    is_told = any(path.match(pattern) for pattern in TOLD_BY)
    for node in source.nodes:
        found: Iterable[ast.expr] = ()
        if isinstance(node, ast.Call):
            found = _said(node, source.is_in_error(node))
        elif is_told and _text(node) is not None and _is_told(node, source):
            found = [source.outermost(node)]
        for said in found:
            for form in source.forms_at(node).of(said):
                text = with_places(form)
                if not isinstance(node, ast.Call):
                    text = re.sub(
                        r"\A[,;:]? +| +\Z", "", text
                    )  # how a part is joined to others: retold takes them apart
                if _is_sentence(text) and text not in NOT_TOLD:
                    yield Found(text, context=TOLD, where=where)


_UNTOLD = {
    "debug", "info", "warning", "error", "exception", "critical", "RuntimeError", "AssertionError", "compile",
    "tr", "ntr", "N", "T", "because", "Meaning", "execute", "getLogger", "Option", "Argument", "examples",
    "Literal", "TypeVar", "create_task", "sub", "match", "search", "split", "fullmatch", "Field", "startswith",
    "Thread", "print", "NodeTrouble",
}  # fmt: skip


def _text(node: ast.AST) -> str | None:
    if isinstance(node, ast.JoinedStr):
        return "".join(str(part.value) for part in node.values if isinstance(part, ast.Constant))
    return node.value if isinstance(node, ast.Constant) and isinstance(node.value, str) else None


def _is_told(node: ast.AST, source: Source) -> bool:
    """Whether a text of a file in ``TOLD_BY`` is one for people, and not a docstring, a log line or a key."""
    inner = node
    for above in source.above(node):
        if isinstance(above, ast.JoinedStr | ast.FormattedValue):
            return False  # a part of another one
        if isinstance(above, ast.Expr) and inner is above.value and inner is node:
            return False  # a docstring
        if isinstance(above, ast.Subscript | ast.Compare | ast.arguments | ast.AnnAssign | ast.MatchValue) and not (
            isinstance(above, ast.AnnAssign) and inner is above.value
        ):
            return False
        if isinstance(above, ast.Call) and called(above) in _UNTOLD | error_names():
            return False
        if isinstance(above, ast.Call) and called(above) == "__init__":
            return False
        if isinstance(above, ast.Raise) and isinstance(above.exc, ast.Call):
            return called(above.exc) in ("ValueError", "OSError") or called(above.exc)[:1].isupper()
        if isinstance(above, ast.Dict) and inner in above.keys:
            return False
        inner = above
        if isinstance(above, ast.stmt):
            break
    return True


def _said(call: ast.Call, in_error: bool) -> Iterator[ast.expr]:
    name = called(call)
    hint = [keyword.value for keyword in call.keywords if keyword.arg == "hint"]
    is_super = name == "__init__" and in_error
    if name in error_names() or is_super:
        begins_with_self = is_super and call.args and getattr(call.args[0], "id", "") == "self"
        # Not the message alone: others have their own made around what they are told, such as why.
        yield from call.args[1 if begins_with_self else 0 :]
        yield from hint
    elif name in ("because", "_refuse"):
        yield from call.args[1:2]
    elif name in ("T", "complain", "_complain"):
        yield from call.args[:1]
    elif name == "Meaning":
        yield from call.args[:2]


def _is_sentence(form: str) -> bool:
    return sum(char.isalpha() for char in form) > 3 and " " in form.strip() and not form.isupper()


# ---------------------------------------------------------------- all of it


def helps() -> Iterator[Found]:
    """What the commands say of themselves."""
    import typer.main

    from lcq.cli import translated
    from lcq.cli.found import _group
    from lcq.cli.main import app
    from worker.cli import app as agent

    for command in (typer.main.get_command(app), _group("models"), typer.main.get_command(agent)):
        for part in translated.parts_of(command):
            for name in translated._HELPS:
                text = translated.english_help(part, name)
                text = text.partition("\n\n")[0] if name == "epilog" else text
                if text:
                    yield Found(text, where="lcq --help")


def everything() -> dict[tuple[str, str], Found]:
    """All that is to be translated, each once, in a steady order."""
    found: dict[tuple[str, str], Found] = {}
    marked = itertools.chain(
        helps(),
        *(found_in(path) for path in sources("lcq/**/*.py", "tui/**/*.py", "worker/**/*.py")),
        *(told_in(path) for path in sources(*SHOWN_BY_PEOPLE)),
        (Found(text, context=TOLD, where="tests/catalogue.py") for text in TOLD_SO),
    )
    for one in marked:
        known = found.get(one.key)
        if known is None or (one.plural and not known.plural):
            found[one.key] = one
    return found


def read_catalogue(folder: str) -> Catalog:
    path = po_path(folder)
    if not path.exists():
        return Catalog(locale=folder, domain=DOMAIN, charset="utf-8", fuzzy=False)
    with path.open("rb") as file:
        return read_po(file, locale=folder, domain=DOMAIN)


def brought_up(folder: str, said: Catalog | None = None) -> Catalog:
    """The catalogue with all that the sources have now and nothing else; translations are kept."""
    said = said or read_catalogue(folder)
    fresh = Catalog(
        locale=folder, domain=DOMAIN, charset="utf-8", fuzzy=False, project="LCQ", version="0.1",
        header_comment="# What LCQ says, in another language. Brought up to the sources by: make catalogue",
        creation_date=said.creation_date, revision_date=said.creation_date,
    )  # fmt: skip
    for one in sorted(everything().values(), key=lambda one: (one.where, one.context, one.text)):
        known = said.get((one.text, one.plural) if one.plural else one.text, one.context or None)
        old = known.string if known is not None else ""
        old = old if isinstance(old, str) or one.plural else old[0]
        fresh.add(
            (one.text, one.plural) if one.plural else one.text,
            (old,) if one.plural and isinstance(old, str) else old,
            locations=[(one.where, None)],
            context=one.context or None,
        )
    return fresh


def untranslated(catalogue: Iterable[Message]) -> list[Message]:
    return [one for one in catalogue if one.id and not (one.string if isinstance(one.string, str) else one.string[0])]


def written(catalogue: Catalog) -> bytes:
    out = io.BytesIO()
    write_po(out, catalogue, width=110, omit_header=False, include_lineno=False)
    return out.getvalue()


def compiled(catalogue: Catalog) -> bytes:
    out = io.BytesIO()
    write_mo(out, catalogue)
    return out.getvalue()


def main() -> None:
    for path in FOLDER.glob("*/LC_MESSAGES"):
        catalogue = brought_up(path.parent.name)
        if "-l" in sys.argv:
            for one in untranslated(catalogue):
                print(one.context or "-", repr(one.id))
            continue
        po_path(path.parent.name).write_bytes(written(catalogue))
        po_path(path.parent.name).with_suffix(".mo").write_bytes(compiled(catalogue))
        print(f"{path.parent.name}: {len(catalogue)} messages, {len(untranslated(catalogue))} without a translation")


if __name__ == "__main__":
    main()
