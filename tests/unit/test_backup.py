"""What becomes of each class of keys in a backup is said for every one there is, and once."""

from __future__ import annotations

import pytest

from lcq import backup
from lcq.state.moves.copies import CopiedTask
from tests.audit import CLASSES

FATES = {
    "of tasks": backup.OF_TASKS,
    "made anew": backup.MADE_ANEW,
    "of the moment": backup.OF_THE_MOMENT,
    "streams": backup.STREAMS,
    "at leisure": backup.AT_LEISURE,
    "at once": backup.AT_ONCE,
}


def test_every_class_of_keys_has_one_fate_in_a_backup():
    for name in CLASSES:
        key = name.replace("*", "x")
        assert [fate for fate, classes in FATES.items() if backup.is_of(key, classes)], f"{name} is left out by mistake"
    named = sorted(name for classes in FATES.values() for name in classes)
    assert named == sorted(name.replace("*", "") for name in CLASSES)


@pytest.mark.parametrize(
    ("changes", "found"),
    [
        ({}, ""),
        ({"status": "gone"}, "status is none"),
        ({"priority": ""}, "priority is none"),
        ({"json": ""}, "has no json"),
        ({"rev": "x"}, "rev is no number"),
        ({"attempt": "1"}, "attempt does not count its attempts"),
        ({"score": ""}, "has no score"),
    ],
)
def test_a_record_that_cannot_be_put_back_is_told_from_one_that_can(changes: dict[str, str], found: str):
    fields = dict.fromkeys(("json", "digest", "idem", "model", "user", "queue"), "x")
    fields |= dict.fromkeys(("rev", "attempt", "retries", "deaths", "max_retries"), "0")
    fields |= dict.fromkeys(("submitted_ms", "updated_ms", "queued_ms", "score"), "5")
    fields |= {"status": "queued", "priority": "normal"} | changes
    task = CopiedTask("1", tuple(text for pair in fields.items() for text in pair), ())
    assert backup.damage_of(task) == found
