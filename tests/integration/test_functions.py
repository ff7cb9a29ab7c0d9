"""Functions: functions-framework as a live server with our handler, a gateway that misbehaves, an S3 for pictures."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

import cv2
import httpx
import numpy as np
import psutil
import pytest

from lcq.client import Client
from lcq.models import (
    DeviceReading,
    ErrorClass,
    FunctionReading,
    Privacy,
    Task,
    TaskStatus,
    TaskType,
)
from tests.conftest import wait_until_sync
from tests.functions import (
    MODEL,
    SAMPLES,
    azure_handler,
    engine,
    far_cluster,
    functions_framework,
    here,
    name_functions,
    photo,
    refused,
    work,
)
from tests.hostile_gateway import Gateway, hostile_gateway
from tests.lambda_runtime import Lambda, lambda_function
from tests.s3 import S3, s3_server, wait_for
from worker.calls import Call, CallRefused, parcel, read_reply, waking_call
from worker.engines.base import Picture, Work
from worker.engines.exchanges import NoExchange
from worker.engines.function import place_of
from worker.engines.picture_bytes import decode_picture, encode_picture
from worker.function import Function, KnativeFunction, on_runpod


@pytest.fixture(scope="module")
def function(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The address of a live function."""
    with functions_framework(tmp_path_factory.mktemp("function") / "function.log") as address:
        yield address


@pytest.fixture
def gateway(function: str) -> Iterator[Gateway]:
    with hostile_gateway(function) as gateway:
        yield gateway


@pytest.fixture(scope="module")
def s3(tmp_path_factory: pytest.TempPathFactory) -> Iterator[S3]:
    with s3_server(tmp_path_factory.mktemp("s3")) as server:
        wait_for(server)
        server.make_bucket("exchange")
        yield server


def until_told(client: Client, holds: Callable[[FunctionReading], bool]) -> FunctionReading:
    """How the function of node far is, as soon as that ``holds`` of it."""

    def reading() -> FunctionReading | None:
        told = next(one for one in client.nodes() if one.id == "far").readings.get("burst", DeviceReading()).function
        return told if told is not None and holds(told) else None

    return wait_until_sync(reading, what="what is told of the function")


def call_of(asked: Work) -> Call:
    one = engine("http://nowhere")._function
    assert one is not None
    image, mask = encode_picture(asked.picture.pixels), encode_picture(asked.picture.mask)
    return one.call_of(asked, image, mask, NoExchange(""))


@pytest.mark.parametrize("kind", ["colour", "grey", "16 bits"])
def test_a_function_gives_the_pixels_that_a_node_gives_and_says_what_it_cost(function: str, kind: str) -> None:
    asked = work(photo(kind))
    assert np.array_equal(engine(function).run(asked), here(asked.picture))
    assert 0.001 < asked.cost < 0.001 + 0.01 * 60


def test_what_the_function_says_of_its_trouble_is_the_tasks_trouble(function: str) -> None:
    asked = work(Picture(photo().pixels, np.ones((120, 160), np.bool_)))
    told = refused(engine(function), asked)
    assert (told.error_class, told.code) == (ErrorClass.BAD_INPUT, "mask_full")
    assert asked.cost is not None
    assert 0.001 <= asked.cost < 0.001 + 0.01 * 60, "it has said what it took"
    assert str(told).startswith("function burst: the mask covers the whole picture")
    strange = engine(function, models={"lama": 1.0})
    asked = Work(TaskType.INPAINT, "lama", photo(), {}, lambda fraction, stage: None, key="06ft3kzzzzzzzzzz/1")
    told = refused(strange, asked)
    assert (told.error_class, told.code) == (ErrorClass.TRANSIENT, "model_not_here")
    assert "lcq models pull lama" in str(told)


@pytest.mark.parametrize(
    ("fault", "code", "error_class"),
    [
        ("cut before", "function_unknown", ErrorClass.TRANSIENT),
        ("cut after", "function_unknown", ErrorClass.TRANSIENT),
        ("slow", "function_unknown", ErrorClass.TRANSIENT),
        ("refuse:400", "call_refused", ErrorClass.BAD_INPUT),
        ("refuse:413", "call_refused", ErrorClass.BAD_INPUT),
        ("refuse:403", "endpoint_refused", ErrorClass.TRANSIENT),
        ("refuse:404", "endpoint_refused", ErrorClass.TRANSIENT),
        ("refuse:500", "function_failed", ErrorClass.TRANSIENT),
        ("refuse:504", "function_unknown", ErrorClass.TRANSIENT),
        ("garbage", "reply_unreadable", ErrorClass.TRANSIENT),
    ],
)
def test_each_way_in_which_a_call_ends_has_its_code(
    gateway: Gateway, fault: str, code: str, error_class: ErrorClass
) -> None:
    gateway.faults.append(fault)
    told = refused(engine(gateway.url, timeout_s=2 if fault == "slow" else 60), work(photo()))
    assert (told.code, told.error_class) == (code, error_class)
    assert len(gateway.keys) == 1  # whatever it was: nothing is called twice on its own


def test_an_endpoint_that_is_not_there_has_not_run_anything() -> None:
    told = refused(engine("http://127.0.0.1:9"), work(photo()))
    assert (told.code, told.error_class) == ("endpoint_unreachable", ErrorClass.TRANSIENT)


def test_a_busy_endpoint_is_left_alone_for_as_long_as_it_says_and_then_asked_again(gateway: Gateway) -> None:
    stages: list[str] = []
    gateway.faults.extend(["busy:1", "unavailable"])
    asked = work(photo(), progress=lambda fraction, stage: stages.append(stage))
    assert np.array_equal(engine(gateway.url).run(asked), here(asked.picture))
    assert gateway.keys == ["06ft3kzzzzzzzzzz/1"] * 3
    assert len(gateway.passed) == 1
    assert "function: waiting to be taken" in stages
    gateway.faults.extend(["busy:0"] * 9)
    told = refused(engine(gateway.url), work(photo()))
    assert told.code == "endpoint_busy"
    assert len(gateway.keys) == 6
    gateway.faults.clear()
    gateway.faults.append("busy:60")  # no attempt holds its slot, and its money, for so long
    told = refused(engine(gateway.url), work(photo()))
    assert (told.code, told.again_s, len(gateway.keys)) == ("endpoint_busy", 60, 7)


def test_an_answer_that_was_delivered_twice_is_taken_once(gateway: Gateway) -> None:
    gateway.faults.append("twice")
    asked = work(photo())
    assert np.array_equal(engine(gateway.url).run(asked), here(asked.picture))
    assert len(gateway.passed) == 2


def test_whoever_is_no_longer_wanted_stops_waiting(gateway: Gateway) -> None:
    class Enough(Exception): ...

    def progress(fraction: float, stage: str) -> None:
        if gateway.passed:
            raise Enough

    gateway.faults.append("late")
    with pytest.raises(Enough):
        engine(gateway.url).run(work(photo(), progress=progress))


# ---------------------------------------------------------------- other platforms


@pytest.fixture(scope="module")
def on_lambda(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Lambda]:
    log = tmp_path_factory.mktemp("lambda") / "lambda.log"
    with lambda_function("app.handler", SAMPLES / "lambda", log) as function:
        yield function


@pytest.fixture
def cloud(on_lambda: Lambda, monkeypatch: pytest.MonkeyPatch) -> Lambda:
    for name, value in (
        ("AWS_ENDPOINT_URL_LAMBDA", on_lambda.url),
        ("AWS_ACCESS_KEY_ID", "lcq"),
        ("AWS_SECRET_ACCESS_KEY", "lcq"),
        ("AWS_DEFAULT_REGION", "us-east-1"),
    ):
        monkeypatch.setenv(name, value)
    return on_lambda


def test_lambda_gives_the_same_pixels_and_the_sdk_never_asks_twice(cloud: Lambda) -> None:
    asked = work(photo())
    one = engine("clean", kind="lambda")
    assert np.array_equal(one.run(asked), here(asked.picture))
    assert cloud.invoked == 1
    cloud.refusals.append((429, "TooManyRequestsException"))
    again = work(photo())
    assert np.array_equal(one.run(again), here(again.picture))
    for status, refusal, code in (
        (413, "RequestTooLargeException", "call_refused"),
        (404, "ResourceNotFoundException", "endpoint_refused"),
        (403, "AccessDeniedException", "endpoint_refused"),
    ):
        cloud.refusals.append((status, refusal))
        invoked = cloud.invoked
        assert refused(one, work(photo())).code == code
        assert cloud.invoked == invoked + 1
    whole = Picture(photo().pixels, np.ones((120, 160), np.bool_))
    assert refused(one, work(whole)).code == "mask_full"


def test_an_answer_that_trickles_for_ever_is_given_up(cloud: Lambda, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("worker.engines.function._LATE_S", 0.2)
    with hostile_gateway(cloud.url) as gateway:
        monkeypatch.setenv("AWS_ENDPOINT_URL_LAMBDA", gateway.url)
        gateway.faults.append("slow")
        told = refused(engine("clean", kind="lambda", timeout_s=2), work(photo()))
    assert told.code == "function_unknown"
    assert "was not whole" in str(told)


async def test_knative_answers_over_asgi() -> None:
    function = KnativeFunction()
    function.start({})
    assert function.ready()[0]
    sent: list[dict[str, Any]] = []
    asked = work(photo())
    call = call_of(asked)
    parts = [{"type": "http.request", "body": call.model_dump_json().encode(), "more_body": False}]

    async def receive() -> dict[str, Any]:
        return parts.pop(0)

    async def send(message: Any) -> None:
        sent.append(message)

    await function.handle({"type": "http"}, receive, send)
    reply = read_reply(sent[1]["body"], call.key)
    assert sent[0]["status"] == 200
    assert reply.result is not None
    assert np.array_equal(decode_picture(reply.result.opened()), here(asked.picture))
    assert on_runpod({"input": {"key": "1/1"}})["trouble"]["code"] == "call_refused"


def test_what_azures_host_forwards_to_its_custom_handler_is_done_as_it_comes(tmp_path: Path) -> None:
    """As the host's source has it: same path, headers and body, with two headers more; status and body come back."""
    settings = json.loads((SAMPLES / "azure" / "host.json").read_text())
    assert settings["customHandler"]["enableForwardingHttpRequest"] is True
    assert settings["extensions"]["http"]["maxConcurrentRequests"] == 1
    trigger, answer = json.loads((SAMPLES / "azure" / "clean" / "function.json").read_text())["bindings"]
    assert (trigger["type"], trigger["methods"], answer["type"]) == ("httpTrigger", ["post"], "http")
    (tmp_path / "key").write_text("secret\n")
    with azure_handler(tmp_path / "azure.log") as address, hostile_gateway(address) as host:
        url = f"{host.url}/api/clean"
        asked = work(photo())
        one = engine(url, auth={"token_file": str(tmp_path / "key"), "header": "X-Functions-Key"})
        assert np.array_equal(one.run(asked), here(asked.picture))
        assert host.keys == ["06ft3kzzzzzzzzzz/1"]
        assert refused(one, work(Picture(photo().pixels, np.ones((120, 160), np.bool_)))).code == "mask_full"
        call = waking_call("wake/1", MODEL, hold_s=0.0, seconds_left=60)
        headers = {"X-Azure-Functions-HostVersion": "4.0", "X-Azure-Functions-InvocationId": "1"}
        woken = httpx.post(f"{address}/api/clean", json=call.model_dump(mode="json"), headers=headers, timeout=60)
        assert not read_reply(woken.content, call.key).instance.is_cold, "one process does all calls of an instance"
        assert httpx.post(url, content=b"no call", headers=headers, timeout=60).status_code == 400


# ---------------------------------------------------------------- by way of an exchange


def test_large_pictures_go_by_addresses_that_are_good_for_one_call_and_nothing_is_left(function: str, s3: S3) -> None:
    asked = work(photo())
    one = engine(function, s3)
    assert np.array_equal(one.run(asked), here(asked.picture))
    assert one._function is not None
    assert not list(one._function.exchange.objects.below("s3://exchange/calls"))
    refused(one, work(Picture(photo().pixels, np.ones((120, 160), np.bool_))))  # nor where it cannot be done
    assert not list(one._function.exchange.objects.below("s3://exchange/calls"))
    told = refused(engine(function, payload_kib=16), work(photo()))
    assert (told.code, told.error_class) == ("call_too_large", ErrorClass.TRANSIENT)  # another device can do it
    assert "set exchange" in str(told)


def test_an_address_is_good_for_as_long_as_its_call_may_take_and_any_picture_may_be_put_there(s3: S3) -> None:
    one = engine("http://nowhere", s3, timeout_s=60)._function
    assert one is not None
    exchange, asked = one.exchange, work(photo(), "06ft3kzzzzzzzzzx/2")
    assert exchange is not None
    image, mask = encode_picture(asked.picture.pixels), encode_picture(asked.picture.mask)
    call = one.call_of(asked, image, mask, exchange)
    assert not call.image.inline
    for url in (call.image.url, call.mask.url, call.put_url):  # moto looks at none of this
        told = parse_qs(urlsplit(url).query)
        assert told["X-Amz-SignedHeaders"] == ["host"], "another signature would forbid the function's Content-Type"
        assert int(told["X-Amz-Expires"][0]) == 60 + 2 * 10 + 5, "it may be taken at the third try only"
    place = place_of(asked, image, mask)
    assert urlsplit(call.put_url).path == f"/exchange/calls/06ft3kzzzzzzzzzx/2-{place.asked}.png"
    assert exchange.earlier(place) is None
    exchange.objects.write(f"s3://exchange/calls/{place.earlier[0].name}", image[:99])
    assert exchange.earlier(place) is None, "half a picture is no result"
    exchange.objects.write(f"s3://exchange/calls/{place.earlier[0].name}", image)
    assert exchange.earlier(place) == image
    exchange.objects.write(f"s3://exchange/calls/{place.name}", image)
    assert exchange.fetched(place, parcel(image, url="there")) == image
    with pytest.raises(CallRefused, match="are not the"):  # of the same size, and yet another picture
        exchange.fetched(place, parcel(image[:-1] + bytes([image[-1] ^ 1]), url="there"))
    exchange.forget(place)
    assert not list(exchange.objects.below("s3://exchange/calls/06ft3kzzzzzzzzzx"))


def test_an_exchange_that_cannot_be_used_is_a_wrong_configuration_and_nothing_is_called_or_paid() -> None:
    for attempt in (1, 2):
        asked = work(photo(), f"06ft3kzzzzzzzzzz/{attempt}")
        told = refused(engine("http://127.0.0.1:9", exchange="nothing-known://bucket", payload_kib=16), asked)
        assert (told.code, asked.cost) == ("endpoint_refused", None), "no try is lost, and nothing is paid"
        assert "the exchange: nothing-known:// cannot be used" in str(told)


def test_a_lost_answer_is_no_lost_result(gateway: Gateway, s3: S3) -> None:
    faults = ["cut after", "refuse after:500", "garbage after"]
    for number, fault in enumerate(faults, 1):
        gateway.faults.append(fault)
        asked = work(photo(), f"06ft3kzzzzzzzzz{number}/1")
        assert np.array_equal(engine(gateway.url, s3).run(asked), here(asked.picture))
        assert asked.notes == ["its answer was lost; the result was found where it had been left"]
        assert asked.cost is not None
        assert asked.cost > 0.001, "what nobody told is paid by the time it took"
        assert len(gateway.passed) == number


def test_the_next_attempt_looks_for_what_the_one_before_it_has_left_before_it_calls(gateway: Gateway, s3: S3) -> None:
    class Killed(Exception): ...

    first = engine(gateway.url, s3)

    def die(fraction: float, stage: str) -> None:
        assert first._function is not None
        left = [name for name, _, _ in first._function.exchange.objects.below("s3://exchange/calls/06ft3kzzzzzzzzzy")]
        if any(name not in ("1-image.png", "1-mask.png") for name in left):
            raise Killed

    gateway.faults.append("late")
    with pytest.raises(Killed):  # its runner died when the result was there, and the answer was not
        first.run(work(photo(), "06ft3kzzzzzzzzzy/1", die))
    other = Work(TaskType.INPAINT, MODEL, photo(), {"radius": 9}, lambda *_: None, key="06ft3kzzzzzzzzzy/2")
    engine(gateway.url, s3).run(other)
    assert gateway.keys == ["06ft3kzzzzzzzzzy/1", "06ft3kzzzzzzzzzy/2"]  # something else was asked
    again = work(photo(), "06ft3kzzzzzzzzzy/3")
    assert np.array_equal(engine(gateway.url, s3).run(again), here(again.picture))
    assert again.notes == ["an earlier call, whose answer was lost, had left the result"]
    assert again.cost == 0, "that call has its own bill"
    assert len(gateway.keys) == 2
    assert not list(first._function.exchange.objects.below("s3://exchange/calls/06ft3kzzzzzzzzzy"))


# ---------------------------------------------------------------- a whole cluster


def prices(client: Client) -> dict[str, float]:
    """What a call costs at most, by function, as the cluster knows it."""
    (node,) = client.nodes()
    return {device.id: device.worst_price for device in node.capability.devices}


TRIES_OF = {"cut before": 1, "cut after": 1, "refuse:500": 1, "refuse:504": 1, "garbage": 1, "twice": 0}
"""What each fault of a call costs a task."""


def test_a_cluster_sends_what_may_leave_the_house_and_accounts_for_it_whatever_becomes_of_calls(
    redis_url: str, function: str, gateway: Gateway, tmp_path: Path
) -> None:
    functions = {"burst": {"url": gateway.url}}
    with far_cluster(redis_url, tmp_path / "c", functions, LCQ_SERVERLESS__BUDGET__MONTH="100") as cluster:
        picture = photo()
        (tmp_path / "image.png").write_bytes(encode_picture(picture.pixels))
        (tmp_path / "mask.png").write_bytes(encode_picture(picture.mask))

        def a_task(name: str, privacy: str = "exportable", model: str = MODEL) -> Task:
            return Task.model_validate(
                {
                    "task_type": "inpaint",
                    "image_path": str(tmp_path / "image.png"),
                    "mask_path": str(tmp_path / "mask.png"),
                    "output_path": str(tmp_path / f"{name}.png"),
                    "config": {"model": model},
                    "privacy": privacy,
                    "job": "bills",
                }
            )

        with cluster.client() as client:
            tasks = [a_task(privacy, privacy) for privacy in ("exportable", "private")]
            may, may_not = (one.id for one in client.submit_many(tasks).accepted)
            (done,) = client.wait([may], timeout_s=120)
            assert (done.status, done.queue, done.device) == (TaskStatus.COMPLETED, "serverless", "burst"), (
                cluster.logs()
            )
            assert done.result is not None
            assert 0 < done.result.cost < 0.6
            reading = until_told(client, lambda one: one.warm == 1 and not one.in_flight)
            assert reading.cold in (0, 1)  # the function of other tests was warm
            waits = client.get(may_not)
            assert waits.status is TaskStatus.QUEUED
            assert waits.queue != "serverless"
            cv2.imwrite(str(tmp_path / "all.png"), np.full(picture.mask.shape, 255, np.uint8))
            whole = a_task("refused").model_copy(update={"mask_path": str(tmp_path / "all.png")})
            (bad,) = client.wait([client.submit(whole).id], timeout_s=120)
            assert (bad.status, bad.attempt) == (TaskStatus.FAILED, 1)
            book = client.spend(job="bills").job
            assert book is not None
            refusal = book.spent - done.result.cost
            assert 0 < refusal < 0.6, "not its worst: the function has said what it took"
            ended = [done, bad]
            for fault, tries in TRIES_OF.items():
                gateway.faults.append(fault)
                (one,) = client.wait([client.submit(a_task(fault)).id], timeout_s=120)
                assert (one.status, one.retries, one.attempt) == (TaskStatus.COMPLETED, tries, tries + 1), fault
                assert (tmp_path / f"{fault}.png").read_bytes() == (tmp_path / "exportable.png").read_bytes()
                ended.append(one)
            assert len(gateway.passed) == len(gateway.keys) - 4 + 1  # four never came there, one came twice
            ours = [key for key in gateway.keys if key.partition("/")[0] in {one.id for one in ended}]
            assert len(set(ours)) == len(ours) == sum(one.attempt for one in ended)
            assert len(gateway.keys) - len(ours) == 3, "where a call was cut, it was asked whether it is there"
            bills = sum(one.result.cost for one in ended if one.result is not None)
            book = client.spend(job="bills").job
            assert book is not None
            lost = sum(TRIES_OF.values())
            worst = 0.01 * 60 * lost  # these may have run
            assert book.spent == pytest.approx(bills + refusal + worst, abs=1e-5)
            assert (book.reserved, book.calls) == (0, len(ours))
            assert client.get(may_not).queue != "serverless"
            assert not client.set_privacy(may_not, Privacy.EXPORTABLE).refused
            (out,) = client.wait([may_not], timeout_s=120)
            assert (out.status, out.queue, out.task.privacy) == (TaskStatus.COMPLETED, "serverless", "exportable")
            month = client.spend().now[-1]
            assert month.calls == len(gateway.keys)
            assert book.spent < month.spent < book.spent + 3 * 0.6, "these are paid for as those that wake"

            calls = len(gateway.keys)
            gateway.faults.append("held")
            held = client.submit(a_task("held")).id
            wait_until_sync(lambda: len(gateway.keys) > calls, what="a call that is under way")
            dearer = {"url": function, "price_call": 5}
            name_functions(cluster, {"burst": dearer, "other": {"url": function, "models": {"cv2-ns": 0.2}}})
            wait_until_sync(lambda: prices(client) == {"burst": 5.6, "other": 0.6}, what="the settings of now")
            asked = [a_task("dearer"), a_task("other", model="cv2-ns")]
            dear, new = client.wait([one.id for one in client.submit_many(asked).accepted], timeout_s=120)
            assert {one.status for one in (dear, new)} == {TaskStatus.COMPLETED}, cluster.logs()
            assert dear.result is not None
            assert 5 < dear.result.cost < 5.6
            assert new.device == "other"
            assert len(gateway.keys) == calls + 1, "nothing is called there any more"
            assert client.get(held).status is TaskStatus.PROCESSING
            name_functions(cluster, {"other": {"url": function, "models": {"cv2-ns": 0.2}}})
            wait_until_sync(lambda: prices(client) == {"other": 0.6}, what="one function less")
            gateway.let.set()
            (done,) = client.wait([held], timeout_s=120)
            assert (done.status, done.attempt) == (TaskStatus.COMPLETED, 1), cluster.logs()
            assert done.result is not None
            assert 0 < done.result.cost < 0.6, "it goes by the price that was reserved for it"
            wait_until_sync(lambda: len(cluster.runners("far")) == 2, what="the end of the runners of burst")


def test_a_cold_start_is_what_an_instance_took_to_be_ready_and_not_how_long_nobody_called() -> None:
    told = Function({})
    call = call_of(work(photo()))
    replies = [read_reply(told(call.model_dump(mode="json"))[1], call.key) for _ in range(2)]
    first, second = (one.instance for one in replies)
    assert first.is_cold
    assert not second.is_cold
    assert first.id == second.id == told.id
    own_s = time.time() - psutil.Process().create_time()
    assert 0 < first.start_s < own_s
    assert 0 < first.load_s < first.start_s  # a model is loaded once an instance, and that is of its start
    assert second.start_s == second.load_s == 0
    ready = Function({"LCQ_FUNCTION_WARM": MODEL})
    ready.warm_up()
    loaded = read_reply(ready(call.model_dump(mode="json"))[1], call.key).instance
    assert loaded.is_cold
    assert 0 < loaded.load_s < loaded.start_s


def test_a_call_that_only_wakes_loads_the_model_and_an_older_function_does_a_tiny_picture() -> None:
    told = Function({})
    call = waking_call("wake/1", MODEL, hold_s=0.0, seconds_left=60)
    woken = read_reply(told(call.model_dump(mode="json"))[1], call.key)
    assert woken.instance.is_cold
    assert woken.instance.load_s > 0
    work_of = call_of(work(photo()))
    assert read_reply(told(work_of.model_dump(mode="json"))[1], work_of.key).instance.load_s == 0
    older = read_reply(Function({})(call.model_dump(mode="json", exclude={"warm", "hold_s"}))[1], call.key)
    assert older.result is not None
    assert older.instance.load_s > 0


def test_an_engine_tells_which_instances_have_answered_also_with_a_refusal(function: str) -> None:
    one = engine(function)
    one.run(work(photo()))
    refused(one, work(Picture(photo().pixels, np.ones((120, 160), np.bool_))))
    first, second = one.answered()
    assert first.id == second.id
    assert not one.answered()
