"""The commands in our pages: each block of them, and how it is known that it works.

A comment before each block says it::

    <!-- run: in a cluster -->                     tests/integration/test_docs_commands.py runs it, in that scene
    <!-- run by: tests/integration/test_x.py -->   that test does
    <!-- not run here: it needs a GPU -->          nobody does, and why; its options are checked all the same
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import PurePosixPath

from tests.site import ROOT

SCENES = ("anywhere", "in a cluster")
"""Where blocks are run: in an empty folder; in one with pictures, from which a cluster is found."""
SHELL = frozenset({"sh", "bash", "console", "shell"})
PROGRAMS = frozenset(
    ["lcq", "lcq-agent", "pip", "make", "python", "python3", "curl", "export", "openssl", "docker", "podman",
     "systemctl", "sudo", "ssh", "kubectl", "apt", "apt-get"]
)  # fmt: skip
_BLOCK = re.compile(
    r"(?:^ *<!-- (?P<how>run by|run|not run here): (?P<what>.+?) -->\n\s*?)?"
    r"^(?P<indent> *)```(?P<kind>[\w-]*)[^\n]*\n(?P<code>.*?)^(?P=indent)```$",
    re.MULTILINE | re.DOTALL,
)
_SPAN = re.compile(r"(?<!`)`((?:lcq|lcq-agent) [^`\n]+)`(?!`)")


@dataclass(frozen=True)
class Block:
    """A fenced block of commands, or of Python that is run. ``how`` is "" where no comment says whether it is."""

    page: PurePosixPath
    line: int
    kind: str
    code: str
    how: str
    what: str

    def __str__(self) -> str:
        return f"{self.page}:{self.line}"


def blocks_of(page: PurePosixPath) -> list[Block]:
    """Each block of commands in ``page``: those of a shell, and those without a kind that begin with a program."""
    text = (ROOT / page).read_text(encoding="utf-8")
    found = []
    for one in _BLOCK.finditer(text):
        indent = len(one["indent"])
        code = "".join(line[indent:] if line.strip() else line for line in one["code"].splitlines(keepends=True))
        first = {line.split()[0] for line in code.splitlines() if line.strip() and not line.startswith(" ")}
        if one["kind"] in SHELL or (not one["kind"] and first & PROGRAMS) or (one["kind"] == "python" and one["how"]):
            line = text.count("\n", 0, one.start("code"))
            found.append(Block(page, line, one["kind"], code, one["how"] or "", one["what"] or ""))
    return found


def spans_of(page: PurePosixPath) -> list[str]:
    """The commands of ours that ``page`` names in its text."""
    text = (ROOT / page).read_text(encoding="utf-8")
    return [span for span in _SPAN.findall(_BLOCK.sub("", text)) if not re.search(r" …|^\S+ \S*/", span)]
