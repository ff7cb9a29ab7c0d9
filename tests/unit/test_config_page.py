"""docs/config.md, the commented file and the schema are the settings' fields. ``make settings`` writes the page."""

from __future__ import annotations

import os
import re
from pathlib import Path

import pytest
import yaml

from lcq.config import DistributedConfig, load
from lcq.reload import LIVE, READ_BY, Role, how_it_changes
from lcq.settings.keys import keys_of
from lcq.settings.pages import as_commented_file, as_page, as_schema

PAGE = Path(__file__).parents[2] / "docs" / "config.md"
RENEW = os.environ.get("LCQ_RENEW_SETTINGS") == "1"


@pytest.fixture(autouse=True)
def _in_an_empty_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def test_the_page_of_settings_is_their_fields() -> None:
    page = as_page(DistributedConfig, DistributedConfig(), how_it_changes)
    if RENEW:
        PAGE.write_text(page, encoding="utf-8")
    assert PAGE.read_text(encoding="utf-8") == page, "where this is meant: make settings"


def test_every_key_says_what_it_means() -> None:
    assert [key.name for key in keys_of(DistributedConfig) if not key.about] == []


def test_the_commented_file_says_nothing_and_each_of_its_lines_is_its_default() -> None:
    text = as_commented_file(DistributedConfig, DistributedConfig())
    file = Path("lcq.yaml")
    file.write_text(text)
    assert load(file) == DistributedConfig()
    set_all = re.sub(r"^( *)#(?=\S|  )", r"\1", text, flags=re.MULTILINE)
    values = yaml.safe_load(set_all)
    assert set(values) == set(DistributedConfig.model_fields)
    file.write_text(set_all)
    assert load(file) == DistributedConfig()


def test_the_schema_knows_every_section_and_says_what_each_key_means() -> None:
    schema = as_schema(DistributedConfig, how_it_changes)
    assert set(schema["properties"]) == set(DistributedConfig.model_fields)
    assert schema["additionalProperties"] is False
    redis = schema["$defs"]["RedisConfig"]
    assert redis["properties"]["port"]["maximum"] == 65535
    assert "durability" in redis["properties"]
    described = [one for part in schema["$defs"].values() for one in part.get("properties", {}).values()]
    assert len(described) > 50
    assert [one for one in described if not one.get("description")] == []


def test_what_is_taken_over_while_a_process_runs_is_something_that_it_reads() -> None:
    names = {key.name for key in keys_of(DistributedConfig)}
    for role in Role:
        for key in LIVE[role]:
            assert key in names
            assert key.partition(".")[0] in READ_BY[role]
    assert how_it_changes("retries.base_s") == "at once"
    assert how_it_changes("redis.url") == "needs restart"
    assert how_it_changes("agent") == "in part at once"
    assert how_it_changes("console.theme") == "at the next start of a command or console"
