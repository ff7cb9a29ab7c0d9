"""Functions whose pictures go by way of the scheduler, and those that call back: real HTTP all the way round."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import cv2
import numpy as np
import pytest

from lcq.http.access import new_token
from lcq.models import Device, DeviceKind, ErrorClass, Task, TaskStatus, TaskType
from lcq.runner_config import FunctionConfig
from lcq.scheduler import Scheduler
from lcq.wire import Grant
from tests.cluster import free_port
from tests.conftest import wait_until, wait_until_sync
from tests.functions import SAMPLES, far_cluster
from tests.hostile_gateway import Gateway, hostile_gateway
from tests.http_api.conftest import Serve
from tests.http_api.test_lent import PUBLIC, TERMS, granted, opened
from tests.openfaas import OpenFaas, openfaas
from tests.proxy import Proxy
from tests.unit.test_spend import FunctionNode
from worker.calls import CallAddress
from worker.engines.base import EngineError, EngineSettings, Picture, Work
from worker.engines.endpoints import Callback, Called, QueuedEndpoint
from worker.engines.function import FunctionEngine
from worker.engines.opencv import OpenCvEngine

MODEL = "cv2-telea"


@pytest.fixture
def faas() -> Iterator[OpenFaas]:
    with openfaas() as gateway:
        yield gateway


@pytest.fixture
def gateway(faas: OpenFaas) -> Iterator[Gateway]:
    """Before the same function, called and waited for."""
    with hostile_gateway(faas.url) as gateway:
        yield gateway


class House:
    """A scheduler, a node that holds an attempt, and the engine of its runner."""

    def __init__(self, scheduler: Scheduler, node: FunctionNode, grant: Grant) -> None:
        self.scheduler, self.node, self.grant = scheduler, node, grant

    async def run(self, url: str, *, at: str = "", whole: bool = False, progress: Any = None, **config: Any) -> Work:
        """One attempt; checks its pixels, and answers its work. ``at``: where the scheduler is reached."""
        given = {"url": url, "models": {MODEL: 0.2}, "payload_kib": 16, "timeout_s": 60} | config
        engine = FunctionEngine(
            EngineSettings(
                device=Device(id="burst", kind=DeviceKind.SERVERLESS),
                function=FunctionConfig.model_validate(
                    given | {"price_s": TERMS.price_s, "price_call": TERMS.price_call}
                ),
            )
        )
        path = await opened(self.scheduler, self.node, self.grant)
        work = Work(
            TaskType.INPAINT,
            MODEL,
            photo(whole=whole),
            {},
            progress or (lambda fraction, stage: None),
            key=f"{self.grant.task.id}/{self.grant.attempt}",
            call=CallAddress(path=path, public=at or self.scheduler.http.address),
        )
        pixels = await asyncio.to_thread(engine.run, work)
        assert np.array_equal(pixels, here(work))
        return work

    async def refused(self, url: str, **config: Any) -> EngineError:
        with pytest.raises(EngineError) as told:
            await self.run(url, **config)
        return told.value

    async def again(self) -> None:
        """The attempt has come to nothing; the next one begins."""
        await self.node.release(self.grant.task.id, self.grant.attempt)
        (self.grant,) = await self.node.take()

    @property
    def left(self) -> int:
        return self.scheduler.keeper.depot.usage().count


@pytest.fixture
async def house(serve: Serve) -> AsyncIterator[House]:
    async with serve(public_url=PUBLIC) as (scheduler, _):
        node, (grant,) = await granted(scheduler)
        yield House(scheduler, node, grant)


def photo(*, whole: bool = False) -> Picture:
    pixels = cv2.imread(str(SAMPLES.parent / "photos" / "coffee.jpg"), cv2.IMREAD_COLOR)[:120, :160]
    mask = np.zeros(pixels.shape[:2], np.bool_)
    mask[40:60, 50:80] = True
    mask |= whole
    return Picture(pixels, mask)


def here(work: Work) -> Any:
    """What a node of the house makes of it."""
    return OpenCvEngine(EngineSettings(device=Device(id="cpu", kind=DeviceKind.CPU))).run(work)


QUEUED = {"kind": "openfaas", "async": True}

# ---------------------------------------------------------------- pictures by way of the scheduler


async def test_pictures_go_by_way_of_the_scheduler_where_there_is_no_exchange_and_nothing_is_left(
    house: House, faas: OpenFaas
) -> None:
    work = await house.run(faas.url)
    assert 0.001 < work.cost < 0.601
    assert house.left == 0
    await house.again()
    assert (await house.refused(faas.url, whole=True)).code == "mask_full"
    assert house.left == 0


async def test_a_result_whose_answer_was_lost_is_looked_for_and_by_the_next_attempt_before_it_calls(
    house: House, gateway: Gateway, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("worker.engines.exchanges._AGAIN_S", 0.01)
    monkeypatch.setattr("worker.engines.function._AWAY_S", 0.1)
    gateway.faults.extend(["cut after", "late"])
    work = await house.run(gateway.url)
    assert work.notes == ["its answer was lost; the result was found where it had been left"]
    assert house.left == 0
    await house.again()
    with Proxy(urlsplit(house.scheduler.http.address).port or 0) as way:

        def cut(fraction: float, stage: str) -> None:
            if house.left > 2:  # both pictures, and the result beside them
                way.refuse()
                way.drop()
                gateway.ended.set()  # nor does its answer come any more

        told = await house.refused(gateway.url, at=f"http://127.0.0.1:{way.port}", progress=cut)
    assert (told.code, told.error_class) == ("function_unknown", ErrorClass.TRANSIENT)
    assert "cannot be looked for now" in str(told)
    await house.again()
    work = await house.run(gateway.url)
    assert work.notes == ["an earlier call, whose answer was lost, had left the result"]
    assert len(gateway.passed) == 2
    assert house.left == 0


async def test_a_call_that_was_delivered_twice_is_done_though_its_addresses_are_good_for_one(
    house: House, gateway: Gateway
) -> None:
    gateway.faults.append("twice")
    await house.run(gateway.url)
    assert len(gateway.passed) == 2
    assert house.left == 0


async def test_a_transfer_of_a_function_that_breaks_off_is_made_again(
    house: House, faas: OpenFaas, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("worker.function._AGAIN_S", (0.01, 0.01))
    with hostile_gateway(house.scheduler.http.address, is_hit=lambda method, path: "/once/" in path) as way:
        ours = ["", ""]  # its runner brings both pictures
        way.faults.extend([*ours, "cut before", "", "", "refuse:500", "cut after"])
        await house.run(faas.url, at=way.url)
        assert not way.faults
    assert len(faas.keys) == 1
    assert house.left == 0


# ---------------------------------------------------------------- those that call back


async def test_a_gateway_that_calls_back_is_waited_for_however_it_does_it(house: House, faas: OpenFaas) -> None:
    for calls, fault in enumerate(["", "early", "twice", "cut"], 1):
        faas.faults.append(fault)
        work = await house.run(faas.url, **QUEUED)
        assert work.notes == [note for note in work.notes if note.startswith("cold start")]  # its answer came
        assert len(faas.keys) == calls
        assert house.left == 0
        await house.again()
    await wait_until(lambda: len(faas.callbacks) == 5)
    assert sorted(faas.callbacks) == [204, 204, 204, 204, 410]


async def test_each_way_in_which_a_queued_call_ends_has_its_code_and_nothing_is_called_twice(
    house: House, faas: OpenFaas, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("worker.engines.function.GRACE_S", 0.1)
    monkeypatch.setattr("worker.engines.endpoints._USUAL_PAUSE_S", 0.1)
    for fault, code, runs, timeout_s in (
        ("broken", "function_failed", 1, 60),
        ("full", "call_too_large", 0, 60),
        ("closed", "endpoint_unreachable", 0, 60),
        ("lost", "function_unknown", 0, 0.5),
    ):
        faas.keys.clear()
        faas.faults.append(fault)
        told = await house.refused(faas.url, timeout_s=timeout_s, **QUEUED)
        assert (told.code, told.error_class) == (code, ErrorClass.TRANSIENT)
        assert len(faas.keys) == runs
        assert house.left == (2 if code == "function_unknown" else 0)  # it may still be about to fetch both pictures
        await house.again()
    faas.keys.clear()
    faas.told.clear()
    faas.faults.append("away")
    await house.run(faas.url, **QUEUED)  # it has surely not run: so it is asked again, by another address
    assert [one["X-Function-Status"] for one in faas.told] == ["503", "200"]
    assert len(set(faas.urls)) == len(faas.urls)


async def test_where_nobody_or_somebody_else_calls_back_the_result_is_looked_for(
    house: House, faas: OpenFaas, monkeypatch: pytest.MonkeyPatch
) -> None:
    heard = QueuedEndpoint._heard

    def heard_until_it_is_there(self: QueuedEndpoint, callback: Callback, left_s: float) -> Called | None:
        """Its patience ends when the result lies beside both pictures: no function is too slow for that."""
        if house.left > 2 and fault == "silent":
            self._stopped.set()
        return heard(self, callback, min(left_s, 0.05))

    monkeypatch.setattr(QueuedEndpoint, "_heard", heard_until_it_is_there)
    for calls, fault in enumerate(["silent", "other"], 1):
        faas.faults.append(fault)
        work = await house.run(faas.url, **QUEUED)
        assert work.notes == ["its answer was lost; the result was found where it had been left"]
        assert len(faas.keys) == calls
        await house.again()


async def test_what_is_called_back_when_nobody_waits_any_more_is_a_bill_and_no_more(
    house: House, faas: OpenFaas
) -> None:
    class Enough(Exception): ...

    def give_up(fraction: float, stage: str) -> None:
        if faas.keys and house.left > 2:
            raise Enough

    faas.faults.append("held")
    with pytest.raises(Enough):
        await house.run(faas.url, progress=give_up, **QUEUED)
    await house.node.release(house.grant.task.id, house.grant.attempt)
    assert (await house.scheduler.state.reader.spend()).day.spent == pytest.approx(0.3)  # the worst
    faas.release.set()
    await wait_until(lambda: faas.callbacks == [204])
    spent = (await house.scheduler.state.reader.spend()).day.spent
    assert 0.001 <= spent < 0.3
    assert (await house.scheduler.state.reader.task(house.grant.task.id)).status is TaskStatus.QUEUED


def test_where_no_scheduler_can_be_reached_from_there_large_pictures_stay_and_queued_calls_are_not_made(
    faas: OpenFaas,
) -> None:
    for more, code in (({}, "call_too_large"), ({"payload_kib": 4096, **QUEUED}, "endpoint_refused")):
        config = {"url": faas.url, "models": {MODEL: 1}, "payload_kib": 16} | more
        settings = EngineSettings(
            device=Device(id="burst", kind=DeviceKind.SERVERLESS), function=FunctionConfig.model_validate(config)
        )
        work = Work(TaskType.INPAINT, MODEL, photo(), {}, lambda fraction, stage: None, key="06ft3k/1")
        with pytest.raises(EngineError, match=r"http\.public_url") as told:
            FunctionEngine(settings).run(work)
        assert told.value.code == code
    assert not faas.keys


@pytest.mark.parametrize(
    ("config", "refusal"),
    [
        ({"url": "http://gateway:8080", "kind": "openfaas"}, "https://GATEWAY/function/NAME"),
        ({"url": "http://gateway/function/clean", "async": True}, "async is of kind openfaas"),
    ],
)
def test_a_gateway_is_named_as_openfaas_has_it(config: dict[str, Any], refusal: str) -> None:
    with pytest.raises(ValueError, match=refusal):
        FunctionConfig.model_validate({"models": {MODEL: 1}} | config)
    told = FunctionConfig.model_validate({"models": {MODEL: 1}, "url": "http://g/function/clean.team", **QUEUED})
    assert FunctionConfig.model_validate(told.model_dump(mode="json")) == told
    assert told.is_async
    assert told.inline_bytes == 256 << 10


# ---------------------------------------------------------------- a whole cluster


def test_a_cluster_hands_large_pictures_to_a_queued_function_and_keeps_nothing_of_them(
    redis_url: str, faas: OpenFaas, tmp_path: Path
) -> None:
    port = free_port()
    _, sha256 = new_token()
    with far_cluster(
        redis_url,
        tmp_path / "c",
        {"burst": {"url": faas.url, "concurrency": 1, **QUEUED}},
        LCQ_SCHEDULER_PORT=str(port),
        LCQ_HTTP__ENABLED="true",
        LCQ_HTTP__PUBLIC_URL=f"http://127.0.0.1:{port}",
        LCQ_HTTP__TOKENS=json.dumps({"ann": {"role": "operator", "sha256": sha256}}),
    ) as cluster:
        photos = SAMPLES.parent
        task = Task.model_validate(
            {
                "task_type": "inpaint",
                "image_path": str(photos / "photos" / "coffee.jpg"),
                "mask_path": str(photos / "masks" / "coffee.png"),
                "output_path": str(tmp_path / "clean.png"),
                "config": {"model": MODEL},
                "privacy": "exportable",
            }
        )
        with cluster.client() as client:
            (one,) = client.submit_many([task]).accepted
            (done,) = client.wait([one.id], timeout_s=120)
            assert (done.status, done.device) == (TaskStatus.COMPLETED, "burst"), cluster.logs()
            assert done.result is not None
            assert 0 < done.result.cost < 0.6
        wait_until_sync(lambda: faas.callbacks == [204], what="the callback's answer")
        logs = cluster.logs()
        assert all(url.rpartition("/")[2] not in logs for url in faas.urls)
        assert not [path for path in (tmp_path / "c").rglob("blobs/*/*") if path.is_file()]
