"""The two READMEs say the same: the same headings, the same commands, the same links, and one leads to the other."""

from __future__ import annotations

import re
from pathlib import Path

ROOT = Path(__file__).parents[2]
ENGLISH, CHINESE = ((ROOT / name).read_text(encoding="utf-8") for name in ("README.md", "README.zh-CN.md"))
_COMMENT = re.compile(r"^ *<!--.*?-->$", re.MULTILINE)  # how its block is run: tests/pages.py
_BLOCK = re.compile(r"^ *```(\w*)\n(.*?)^ *```$", re.MULTILINE | re.DOTALL)


def commands_of(page: str) -> list[tuple[str, list[str]]]:
    """Each block of code without its comments."""
    return [
        (kind, [re.sub(r"\s+#.*", "", line).strip() for line in code.splitlines()])
        for kind, code in _BLOCK.findall(page)
    ]


def levels_of(page: str) -> list[int]:
    return [len(marks) for marks in re.findall(r"^(#+) ", _BLOCK.sub("", page), re.MULTILINE)]


def links_of(page: str) -> set[str]:
    own = {"README.md", "README.zh-CN.md", "docs/languages.md"}
    return set(re.findall(r"\]\(([^)]+)\)", page)) - own


def test_both_have_the_same_headings_and_commands():
    assert levels_of(CHINESE) == levels_of(ENGLISH)
    assert commands_of(CHINESE) == commands_of(ENGLISH)


def test_both_lead_to_the_same_pages_and_to_each_other():
    assert links_of(CHINESE) == links_of(ENGLISH)
    assert "(README.zh-CN.md)" in ENGLISH
    assert "(README.md)" in CHINESE
    assert all((ROOT / link).exists() for link in links_of(CHINESE) if "://" not in link)


def test_the_chinese_one_leaves_no_paragraph_in_english():
    for paragraph in re.split(r"\n\s*\n", _COMMENT.sub("", _BLOCK.sub("", CHINESE))):
        assert re.search("[\u4e00-\u9fff]", paragraph) or not paragraph.strip(), paragraph
