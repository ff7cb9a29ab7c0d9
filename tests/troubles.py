"""Every code by which LCQ names a trouble, from the sources: of refusals, and of attempts that failed."""

from __future__ import annotations

import ast
import re
from functools import cache

from tests.site import ROOT

_NAMING = {
    "EngineError", "BadOutput", "failed", "_failed", "_crashed", "_not_brought", "_to_retry", "_error", "Failure",
    "_NotMoved",
}  # fmt: skip
_CODE = re.compile(r"^[a-z][a-z0-9]*(_[a-z0-9]+)*$")
_CONSTANT = re.compile(r'^([A-Z][A-Z_]+) = "([a-z][a-z0-9_]*)"', re.MULTILINE)
_FOR_TESTS = "drill_"
_MAY = re.compile(r"\bcode ?= ?[\"']|\b(?:" + "|".join(sorted(_NAMING - {"failed"})) + r")\(|\bfailed\(\s*ErrorClass")


@cache
def _texts() -> tuple[str, ...]:
    files = (file for package in ("lcq", "worker") for file in (ROOT / package).rglob("*.py"))
    return tuple(file.read_text(encoding="utf-8") for file in files)


@cache
def _trees() -> tuple[ast.Module, ...]:
    """The sources that may name a code: to parse all of them takes seconds."""
    return tuple(ast.parse(text) for text in _texts() if _MAY.search(text))


@cache
def _named() -> dict[str, str]:
    """The codes that have a name of their own (CALL_TOO_LARGE), by that."""
    return {name: code for text in _texts() for name, code in _CONSTANT.findall(text)}


@cache
def refusals() -> frozenset[str]:
    """The ``code`` of each error class, wherever it is."""
    return frozenset(
        part.value.value
        for tree in _trees()
        for one in ast.walk(tree)
        if isinstance(one, ast.ClassDef)
        for part in one.body
        if isinstance(part, ast.Assign)
        and isinstance(part.targets[0], ast.Name)
        and part.targets[0].id == "code"
        and isinstance(part.value, ast.Constant)
    )


@cache
def failures() -> frozenset[str]:
    """The codes with which attempts are said to have failed, by agents, engines, schedulers and scripts."""
    found = set()
    for tree in _trees():
        for one in ast.walk(tree):
            if not isinstance(one, ast.Call):
                continue
            name = one.func.attr if isinstance(one.func, ast.Attribute) else getattr(one.func, "id", "")
            told = [keyword.value for keyword in one.keywords if keyword.arg == "code"]
            if name in _NAMING:
                told += one.args[:2]
            found |= {
                value.value
                for value in told
                if isinstance(value, ast.Constant) and isinstance(value.value, str) and _CODE.match(value.value)
            }
            found |= {_named()[value.id] for value in told if isinstance(value, ast.Name) and value.id in _named()}
    for script in (ROOT / "lcq" / "state" / "lua").glob("*.lua"):
        found |= set(re.findall(r'\bcode = "([a-z_]+)"', script.read_text(encoding="utf-8")))
    return frozenset(code for code in found if not code.startswith(_FOR_TESTS))
