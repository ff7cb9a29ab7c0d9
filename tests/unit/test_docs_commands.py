"""The commands in our pages: each block says how it is known to work, and each word of a command of ours is one."""

from __future__ import annotations

from pathlib import PurePosixPath

import pytest

from tests.command_lines import complaint, ours_in
from tests.pages import SCENES, blocks_of, spans_of
from tests.site import ROOT, pages

PAGES = sorted(pages())


@pytest.mark.parametrize("page", PAGES, ids=str)
def test_each_block_of_commands_says_whether_it_is_run(page: PurePosixPath) -> None:
    for block in blocks_of(page):
        assert block.how, f"{block}: a comment before it must say how it is run (tests/pages.py):\n{block.code}"
        if block.how == "run":
            assert block.what in SCENES, f"{block}: there is no scene {block.what!r}"
        elif block.how == "run by":
            test = ROOT / block.what
            assert test.is_file(), f"{block}: {block.what} is not there"
            name = "the README" if page.name.startswith("README") else page.name
            assert name in test.read_text(), f"{block}: {block.what} does not name {name}"


@pytest.mark.parametrize("page", PAGES, ids=str)
def test_each_command_of_ours_is_understood_by_its_program(page: PurePosixPath) -> None:
    told = [
        f"{block}: {said}" for block in blocks_of(page) for words in ours_in(block.code) if (said := complaint(words))
    ]
    for span in spans_of(page) if page.name != "cli.md" else ():  # in the text they are often shortened
        told += [f"{page}: `{span}`: {said}" for words in ours_in(span) if "o such" in (said := complaint(words))]
    assert told == []
