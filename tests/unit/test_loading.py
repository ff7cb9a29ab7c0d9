"""What is loaded for good is looked through by no collection."""

from __future__ import annotations

import gc

import pytest

from lcq.loading import for_good


def test_what_is_built_for_good_stays_out_of_every_collection_and_the_collector_is_as_it_was():
    before = gc.get_freeze_count()
    try:
        with for_good():
            assert not gc.isenabled()
            kept = [[] for _ in range(100)]
        assert gc.isenabled()
        assert gc.get_freeze_count() >= before + len(kept)
    finally:
        gc.unfreeze()
        gc.freeze()  # as tests/conftest.py had it: what the tests are made of


def test_where_nothing_is_collected_nothing_is_from_then_on_and_a_failure_is_told():
    gc.disable()
    try:
        with pytest.raises(LookupError), for_good():
            raise LookupError
        assert not gc.isenabled()
    finally:
        gc.enable()
