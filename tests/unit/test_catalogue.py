"""Nothing that people read is left in English by mistake, and the catalogue is what the sources and programs have."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest
from babel.messages.catalog import Message
from babel.messages.mofile import read_mo

from lcq.errors import (
    AddressRefused,
    BackupUnusable,
    NoLog,
    NotAdmitted,
    WeightsRefused,
)
from lcq.lang import retold, speak, tr
from lcq.models import NodeStatus, TaskStatus
from lcq.reasons import MEANINGS
from tests import catalogue
from tests.catalogue import (
    MARKED,
    ROOT,
    TOLD,
    brought_up,
    called,
    compiled,
    error_names,
    places_of,
    po_path,
    read_catalogue,
    untranslated,
)

FOLDERS = [path.parent.name for path in catalogue.FOLDER.glob("*/LC_MESSAGES")]

# What has letters and a space, or stands where people read, and is none the less not for a translator.
NAMES = {
    "LCQ", " LCQ ", "zmq", "redis", "now, ",
    "queue={} state:waiting", "state:failed cause={}", "state:failed age<1d", "try>1 -state:done",
    "radius=5 format=png …", "{} MiB{}", "{} GiB", "all that was told ", " (did you mean {}?)", "Pixels | None",
    "module {} has no attribute {}", " --job {}", "Task ids, or any unique beginnings of them.",
    "none: see contexts in sample-config/lcq.yaml",  # a hint of a refusal
    "Authorization: Bearer {}", 'http: {tokens: {"{}": {role: "{}", sha256: "{}"}}}',  # what is written so
}  # fmt: skip
NOT_SHOWN = {  # files that say nothing to people, or whose words are names
    "tui/themes.py", "tui/graphics.py", "tui/keymap.py", "lcq/spans.py", "tui/pictures.py",
}  # fmt: skip
SPEAKING = ("tui/**/*.py", "lcq/cli/*.py", "lcq/demo.py", "worker/models_cli.py")
DONE = {path.relative_to(ROOT).as_posix() for path in catalogue.sources(*SPEAKING)} - NOT_SHOWN
"""Files in which every text is marked. It may only grow."""

_TAKES = {  # which arguments of what people read from; the others of these calls are styles, actions and ids
    "Part": (0,), "LinePart": (0,), "say": (0,), "Said": (0,), "Content": (0,), "notify": (0,), "Choice": (1, 2),
    "Chooser": (0,), "Question": (0, 2), "Graph": (0,), "Line": (0,), "Panel": (0,), "_hint": (0,), "_tell": (0,),
    "listed": (0,), "_row": (0,), "_may": (0,), "Meant": (0,), "AskLine": (0,), "write": (0,), "_complain": (0,),
    "Text": (0,),
}  # fmt: skip
_READ_KEYWORDS = {
    "placeholder",
    "hint",
    "title",
    "caption",
    "words",
    "note",
    "reason",
    "go",
    "warning",
    "message",
    "why",
}
_NOT_READ = {
    *MARKED, "ntr", "counted", "Literal", "getLogger", "compile", "QueryField", "query_one", "ModeWished", "warning",
    "RuntimeError", "run_action", "execute", "SavedView", "Binding", "setup_logging", "strptime", "strftime", "get",
    "_no_column", "examples", "Option", "Argument", "Typer", "T",
}  # fmt: skip


@pytest.mark.parametrize("folder", FOLDERS)
def test_the_catalogue_has_what_the_sources_have_and_is_compiled(folder):
    kept = read_catalogue(folder)
    fresh = brought_up(folder, kept)
    ids = {_key(one) for one in kept if one.id}
    assert ids == {_key(one) for one in fresh if one.id}, "run: make catalogue"
    with po_path(folder).with_suffix(".mo").open("rb") as file:
        programs = {_key(one): one.string for one in read_mo(file) if one.id}
    for one in kept:
        if one.id and one not in untranslated([one]):
            said = programs[_key(one)]
            assert (said if isinstance(said, str) else tuple(said)) == one.string, "run: make catalogue"
    assert compiled(kept)


def _key(message: Message) -> tuple[str, str]:
    return message.context or "", message.id if isinstance(message.id, str) else message.id[0]


@pytest.mark.parametrize("folder", FOLDERS)
def test_everything_has_a_translation(folder):
    assert [one.id for one in untranslated(read_catalogue(folder))] == [], "python -m tests.catalogue -l lists them"


def test_every_sentence_that_is_told_in_english_is_known_by_its_form():
    speak("zh")
    try:
        for one in read_catalogue("zh_CN"):
            if one.id and one.context == TOLD:
                english, said = (re.sub(r"\{(\w+)\}", r"x\1", text) for text in (one.id, one.string))
                assert retold(english) == said
    finally:
        speak("en")


@pytest.mark.parametrize(
    "error",
    [
        NotAdmitted("gpu", "lets in only who has a key, and this host shows none", hint=""),
        NoLog("gpu", "it has left the cluster, and has been forgotten"),
        AddressRefused("x", "only http and https are asked", hint=""),
        BackupUnusable(Path("x"), "it breaks off before its end"),
        WeightsRefused("lama", "its tensors claim more bytes than it has", hint=""),
    ],
    ids=lambda error: type(error).__name__,
)
def test_also_what_errors_are_told_beside_their_message_is_said_in_chinese(error):
    speak("zh")
    try:
        left = re.sub(r"[`'\w./-]*(gpu|ann|https?|lcq|LCQ|TOKEN|CURVE)[\w./-]*", "", retold(error.message))
        assert not re.search(r"[a-z]{3,} [a-z]{2,}", left), left
    finally:
        speak("en")


def test_all_codes_of_the_closed_lists_are_explained_in_chinese():
    speak("zh")
    try:
        for meaning in MEANINGS.values():
            for english in filter(None, (meaning.says, meaning.do)):
                assert re.search("[\u4e00-\u9fff]", retold(english)) or english.startswith("lcq "), english
        for status in (*TaskStatus, *NodeStatus):
            assert tr(status.value) != status.value
    finally:
        speak("en")


@pytest.mark.parametrize("folder", FOLDERS)
def test_a_translation_has_the_places_of_the_english(folder):
    for one in read_catalogue(folder):
        if not one.id or one in untranslated([one]):
            continue
        english = one.id if isinstance(one.id, str) else one.id[0]
        said = one.string if isinstance(one.string, str) else one.string[0]
        assert places_of(said) == places_of(english), english
        assert said.endswith("\n") == english.endswith("\n"), english


@pytest.mark.parametrize("path", sorted(DONE))
def test_no_text_that_people_read_is_left_unmarked(path):
    assert list(unmarked(ROOT / path)) == []


def unmarked(path: Path) -> Iterator[str]:
    """The literals of a file that people will read and that nobody has marked, with their lines."""
    tree = ast.parse(path.read_text(encoding="utf-8"))
    parent: dict[ast.AST, ast.AST] = {child: node for node in ast.walk(tree) for child in ast.iter_child_nodes(node)}
    for node in ast.walk(tree):
        text = _text_of(node)
        if text is None or isinstance(parent[node], ast.JoinedStr | ast.FormattedValue | ast.Expr):
            continue
        if not re.search("[A-Za-z]{2}", text) or text in NAMES:
            continue
        if _is_read(node, text, parent):
            yield f"{node.lineno}: {text!r}"  # type: ignore[attr-defined]


def _text_of(node: ast.AST) -> str | None:
    """What a literal says, with {} for what is put in."""
    if isinstance(node, ast.Constant) and isinstance(node.value, str):
        return node.value
    if isinstance(node, ast.JoinedStr):
        return "".join(part.value if isinstance(part, ast.Constant) else "{}" for part in node.values)
    return None


def _is_read(node: ast.AST, text: str, parent: dict[ast.AST, ast.AST]) -> bool:
    inner, outer = node, parent[node]
    while isinstance(outer, ast.IfExp | ast.BoolOp | ast.BinOp | ast.Starred):
        inner, outer = outer, parent[outer]
    if text.startswith(("lcq ", "lcq-agent", "Begin with [bold]lcq")) or re.fullmatch(
        r"[{}/%., +:()\[\];]*( ?(MiB|MP|s/MP|s|lcq task|P90)\b[{}/%., +:()\[\];]*)*", text
    ):
        return False  # a command to type, numbers with their units
    if isinstance(outer, ast.Compare | ast.Subscript | ast.MatchValue) or _is_annotation(node, parent):
        return False
    above: ast.AST | None = outer
    while above is not None and not isinstance(above, ast.stmt):
        if isinstance(above, ast.Call) and (called(above) in error_names() | _NOT_READ or called(above) == "__init__"):
            return False
        above = parent.get(above)
    if isinstance(outer, ast.keyword):
        return outer.arg in _READ_KEYWORDS
    if isinstance(outer, ast.Call) and called(outer) in _TAKES:
        return inner in [outer.args[at] for at in _TAKES[called(outer)] if at < len(outer.args)]
    # Elsewhere what has words with spaces between them is read, unless it is a style of Textual's or one of its rules.
    return " " in text.strip() and not re.search(r"\$[a-z]|^bold|[{;]\n|; }|%s|-src |^Callable\[", text)


def _is_annotation(node: ast.AST, parent: dict[ast.AST, ast.AST]) -> bool:
    at: ast.AST | None = node
    while at is not None and not isinstance(at, ast.stmt):
        above = parent.get(at)
        if isinstance(above, ast.AnnAssign | ast.arg) and above.annotation is at:
            return True
        at = above
    return False


def test_an_unmarked_text_is_found(tmp_path):
    source = tmp_path / "some.py"
    source.write_text(
        'def f(self, n):\n    """Not this."""\n    self.say(f"{n} were left")\n    self.say(tr("marked"))\n'
        '    x = "these are words"\n    Part("Shown", "bold reverse")\n    raise InvalidInput("told where shown")\n',
        encoding="utf-8",
    )
    assert sorted(unmarked(source)) == ["3: '{} were left'", "5: 'these are words'", "6: 'Shown'"]
