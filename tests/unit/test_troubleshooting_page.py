"""docs/troubleshooting.md has each code by which LCQ names a trouble, once in its section, and no other."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from lcq.errors import ERROR_BY_CODE
from lcq.images import ImageProblem
from tests.troubles import failures, refusals

PAGE = (Path(__file__).parents[2] / "docs" / "troubleshooting.md").read_text(encoding="utf-8")
FAILED, REFUSED = PAGE[PAGE.index("## A task failed") :].split("## A command was refused")


def codes(section: str) -> list[str]:
    return re.findall(r"^\| `([a-z_]+)` \|", section, re.MULTILINE)


def test_each_failure_of_an_attempt_is_told() -> None:
    found = failures() | set(map(str, ImageProblem))
    told = codes(FAILED)
    assert found - set(told) == set()
    assert set(told) - found - refusals() == set(), "these are codes of nothing"


def test_each_refusal_is_told() -> None:
    everywhere = set(codes(FAILED)) | set(codes(REFUSED))
    assert (refusals() | set(ERROR_BY_CODE)) - everywhere == set()
    assert set(codes(REFUSED)) - refusals() == set(), "these are codes of nothing"


@pytest.mark.parametrize("section", [FAILED, REFUSED])
def test_each_line_says_what_it_means_and_what_to_do(section: str) -> None:
    told = codes(section)
    assert len(told) == len(set(told))
    for line in section.splitlines():
        if line.startswith("| `"):
            assert len([cell for cell in re.split(r"(?<!\\)\|", line) if cell.strip()]) == 3, line
