"""Scripts are loaded with those parts of the shared Lua that their moves need, and with no other."""

from __future__ import annotations

import re

import pytest

from lcq.config import DistributedConfig, RetentionConfig
from lcq.state.lua_parts import needed, parts_of
from lcq.state.scripts import Scripts, move_names

GROUND = """
local ROOT = KEYS[1]  -- a comment: unused
-- another: far
local MANY = {
  a = 1,
}
local near, far
local function key(a)
  return ROOT .. a
end

do
  if MANY.a then key("x") end
end
near = function()
  return far()
end
far = function()
  return 2
end
local function unused()
  return near()
end
"""


def kept(body: str) -> str:
    return needed(parts_of(GROUND), body)


def test_what_a_move_uses_is_kept_with_all_that_this_uses_in_its_order() -> None:
    text = kept("return near()")
    assert [text.index(word) for word in ("local near, far", "near = function", "far = function")] == sorted(
        text.index(word) for word in ("local near, far", "near = function", "far = function")
    )
    assert "unused" not in text


def test_what_is_done_at_once_is_kept_always_and_so_is_what_it_uses() -> None:
    text = kept("return 1")
    assert "do\n" in text
    assert "local MANY = {\n  a = 1,\n}" in text
    assert "local function key" in text
    assert "near" not in text


def test_a_name_in_a_comment_is_no_use_of_it() -> None:
    assert "unused" not in kept("return 1  -- not unused()")


def test_a_line_that_begins_nothing_known_is_refused() -> None:
    with pytest.raises(ValueError, match="begins no part: surprise"):
        parts_of("local a = 1\nsurprise()")


def test_every_move_has_what_it_names_and_small_moves_are_small() -> None:
    """What is left out would be read as a global, which Redis refuses when it is met: so it must be found here."""
    scripts = Scripts(DistributedConfig())
    shared = {name for part in parts_of(scripts.header + scripts.ground()) for name in part.names}
    for move in move_names():
        text = scripts.texts[move]
        body = re.sub(r"--.*", "", scripts.body(move))
        own = set(re.findall(r"(?:local function |local )(\w+(?:, \w+)*)", body))
        names = {name for told in own for name in told.split(", ")}
        defined = {name for part in parts_of(text[: text.index("local function move()")]) for name in part.names}
        missing = (set(re.findall(r"\b\w+\b", body)) & shared) - defined - names
        assert not missing, f"{move} misses {missing}"
    assert len(scripts.texts["note_job"]) < len(scripts.texts["claim_tasks"]) / 10


def test_each_configuration_has_scripts_of_its_own() -> None:
    usual, short = Scripts(DistributedConfig()), Scripts(DistributedConfig(retention=RetentionConfig(events=4321)))
    assert "local EVENTS_KEPT = 4321\n" in short.texts["submit_task"]
    assert "4321" not in usual.texts["submit_task"]
    assert usual.digests["submit_task"] != short.digests["submit_task"]
