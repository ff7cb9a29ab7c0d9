"""docs/cli.md is what the programs say of themselves. ``make pages`` writes it."""

from __future__ import annotations

import os
from pathlib import Path

from tests.cli_page import as_page

PAGE = Path(__file__).parents[2] / "docs" / "cli.md"
RENEW = os.environ.get("LCQ_RENEW_PAGES") == "1"


def test_the_page_of_commands_is_what_the_programs_tell() -> None:
    page = as_page()
    if RENEW:
        PAGE.write_text(page, encoding="utf-8")
    assert PAGE.read_text(encoding="utf-8") == page, "where this is meant: make pages"
