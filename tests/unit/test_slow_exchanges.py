"""An exchange that keeps silent holds no result back, and no attempt for ever."""

from __future__ import annotations

import socket
from collections.abc import Iterator
from dataclasses import replace

import numpy as np
import pytest

from tests.unit.test_lying_functions import engine, liar, picture, replies, work
from worker.calls import CallAddress
from worker.engines import exchanges
from worker.engines.base import EngineError, Picture, Work


@pytest.fixture(autouse=True)
def _impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("PATIENCE_S", "_TIDY_S"):
        monkeypatch.setattr(exchanges, name, 0.2)
    monkeypatch.setattr(exchanges, "_LEAST_SPEED", 10**12)


@pytest.fixture
def silent() -> Iterator[CallAddress]:
    """A scheduler that takes connections, and says nothing."""
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        one.listen(64)
        address = f"http://127.0.0.1:{one.getsockname()[1]}"
        yield CallAddress(path="/v1/calls/secret", public=address, base=address)


def asked(at: CallAddress, stages: list[str] | None = None) -> Work:
    told = stages if stages is not None else []
    return replace(work(lambda fraction, stage: told.append(stage)), call=at)


def test_a_result_that_is_there_waits_for_nothing_and_what_is_small_goes_without(silent: CallAddress) -> None:
    stages: list[str] = []
    with liar(replies()) as url:
        given = engine(url).run(asked(silent, stages))
    assert np.array_equal(given, picture().pixels)
    assert {"function: exchange", "function: tidying up"} <= set(stages)  # whoever watches sees that it lives


def test_what_is_large_is_not_called_without_its_exchange_and_loses_no_try(silent: CallAddress) -> None:
    pixels = np.random.default_rng(1).integers(0, 255, (90, 90, 3), np.uint8)
    large = replace(asked(silent), picture=Picture(pixels, np.ones((90, 90), np.bool_)))
    with pytest.raises(EngineError) as end:
        engine("http://127.0.0.1:9", payload_kib=16).run(large)
    assert end.value.code == "storage_unreachable"
    assert "has not answered within" in str(end.value)


def test_a_result_that_cannot_be_looked_for_is_not_known_to_be_missing(silent: CallAddress) -> None:
    left = {"sha256": "0" * 64, "size": 9, "url": "there"}
    with liar(replies(result=left)) as url, pytest.raises(EngineError) as end:
        engine(url).run(asked(silent))
    assert end.value.code == "function_unknown"
    assert "cannot be looked for now" in str(end.value)
    with pytest.raises(EngineError) as end:  # nor is it called anew before it was looked for what is there
        engine("http://127.0.0.1:9").run(replace(asked(silent), key="06ft3kzzzzzzzzzz/2"))
    assert end.value.code == "storage_unreachable"
