"""The pages as a site: every link leads to something, each page is in its navigation once."""

from __future__ import annotations

import tomllib
from pathlib import Path, PurePosixPath
from typing import Any

import pytest

from tests import site


@pytest.mark.parametrize("page", sorted(site.pages()), ids=str)
def test_each_link_leads_to_something_in_the_repository(page: PurePosixPath) -> None:
    assert site.lost_links(page) == []


def leaves(nav: list[dict[str, Any]]) -> list[str]:
    return [
        path
        for entry in nav
        for inner in entry.values()
        for path in (leaves(inner) if isinstance(inner, list) else [inner])
    ]


def test_the_navigation_has_each_page_once() -> None:
    own = site.pages()
    told = tomllib.loads(site.settings(own))["project"]["nav"]
    assert sorted(leaves(told)) == sorted(map(str, own))
    assert told[0] == {"LCQ": "README.md"}


def test_links_in_code_are_none_and_others_are_found_whatever_their_text() -> None:
    page = "[a](x.md) `[b](y.md)` ![c [d]](z.png) [e](https://example.org) [f](#g)\n```\n[h](i.md)\n```\n"
    assert site.links_of(page) == ["x.md", "z.png", "#g"]


def test_what_would_be_fetched_from_another_host_is_found(tmp_path: Path) -> None:
    (tmp_path / "a.html").write_text('<a href="https://example.org">link</a><img src="own.png">')
    (tmp_path / "b.html").write_text('<link rel="stylesheet" href="https://fonts.example.org/x.css">')
    (tmp_path / "c.css").write_text("@font-face {src: url(https://fonts.example.org/x)}")
    assert site.elsewhere(tmp_path) == ["b.html", "c.css"]
