"""Addresses that functions are lent: each good for one transfer, over a real socket, on a real Redis."""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import json
import logging
from typing import Any
from urllib.parse import urlsplit

import httpx
import pytest
import redis

from lcq.errors import AddressBusy, AddressUsed, TaskNotFound, TransitionRefused
from lcq.http.access import new_token as new_http_token
from lcq.http.access import shown_path
from lcq.lent import MOST_ADDRESSES, Taken, Terms, Way, seconds_of
from lcq.scheduler import Scheduler
from lcq.state.moves.calls import CallMoves
from lcq.wire import Grant, OpenCall
from tests.audit import read
from tests.conftest import wait_until
from tests.http_api.conftest import Serve
from tests.http_api.test_v1 import problem
from tests.nodes import a_failure
from tests.unit.test_spend import FunctionNode, submitted

PUBLIC = "https://lcq.studio.example/fleet"
ASKED = "0123456789abcdef"
TERMS = Terms(price_call=0.001, price_s=0.01, timeout_s=20)
IMAGE, MASK, RESULT = b"picture " * 4000, b"mask " * 10, b"result " * 5000


def picture(data: bytes) -> dict[str, Any]:
    return {"sha256": hashlib.sha256(data).hexdigest(), "size": len(data)}


async def granted(scheduler: Scheduler, *, task_count: int = 1) -> tuple[FunctionNode, tuple[Grant, ...]]:
    node = FunctionNode(scheduler.state)
    await node.hello()
    await submitted(scheduler.state, task_count)
    return node, await node.take(task_count)


async def opened(scheduler: Scheduler, node: FunctionNode, grant: Grant) -> str:
    """The path of a call, as its agent is told it."""
    ask = OpenCall(
        node_id=node.id, boot_id=node.boot, task_id=grant.task.id, attempt=grant.attempt, seconds=60,
        price_call=TERMS.price_call, price_s=TERMS.price_s, timeout_s=TERMS.timeout_s,
    )  # fmt: skip
    told = await scheduler.site.desk.ask(ask, b"agent")
    assert told.public == PUBLIC
    return told.path


async def lent(http: httpx.AsyncClient, call: str, **wanted: Any) -> dict[str, str]:
    answer = await http.post(f"{call}/addresses", json=wanted)
    assert answer.status_code == 200, answer.text
    told: dict[str, str] = answer.json()
    return told


async def left(http: httpx.AsyncClient, call: str, **asked: Any) -> dict[str, Any]:
    answer = await http.get(f"{call}/left", params=asked)
    assert answer.status_code == 200, answer.text
    told: dict[str, Any] = answer.json()
    return told


async def test_an_address_is_good_for_one_whole_transfer_of_just_what_it_was_lent_for(serve: Serve) -> None:
    async with serve(public_url=PUBLIC) as (scheduler, http):
        node, (grant,) = await granted(scheduler)
        call = await opened(scheduler, node, grant)
        told = await lent(http, call, image=picture(IMAGE), mask=picture(MASK), result=ASKED)
        problem(await http.get(told["get_image"]), 404, "address_unknown")  # nothing has come yet
        problem(await http.put(told["put_image"], content=IMAGE + b"x"), 413, "too_large")
        problem(await http.put(told["put_image"], content=IMAGE[:-1]), 400, "invalid_input")
        problem(await http.put(told["put_image"], content=b"?" + IMAGE[1:]), 422, "blob_mismatch")
        problem(await http.put(told["put_image"], content=b""), 400, "invalid_input")
        assert (await http.put(told["put_image"], content=IMAGE)).status_code == 201
        problem(await http.put(told["put_image"], content=IMAGE), 410, "address_used")
        assert (await http.put(told["put_mask"], content=MASK)).status_code == 201
        wrong = await http.put(told["get_image"], content=IMAGE)
        problem(wrong, 405, "method_not_allowed")
        assert wrong.headers["allow"] == "GET"
        for path, data in ((told["get_image"], IMAGE), (told["get_mask"], MASK)):
            assert (await http.get(path)).content == data
            problem(await http.get(path), 410, "address_used")
        problem(await http.get("/v1/once/guessed"), 404, "address_unknown")
        problem(await http.get("/v1/calls/guessed/left"), 404, "address_unknown")
        problem(await http.get(told["get_mask"].replace("once", "calls") + "/left"), 404, "address_unknown")
        assert not (await left(http, call, asked=ASKED))["results"]
        assert (await http.put(told["put_result"], content=RESULT)).status_code == 201
        problem(await http.put(told["put_result"], content=RESULT), 410, "address_used")
        (found,) = (await left(http, call, asked=ASKED))["results"]
        assert (found["attempt"], found["sha256"], found["size"]) == (1, *picture(RESULT).values())
        assert not (await left(http, call, asked="f" * 16))["results"]  # something else was asked
        assert (await http.get(found["path"])).content == RESULT
        spare = await lent(http, call, result=ASKED)
        for _ in range(MOST_ADDRESSES):
            refused = await http.post(f"{call}/addresses", json={"result": ASKED})
            if refused.status_code != 200:
                break
        problem(refused, 413, "too_large")
        assert (await http.delete(call)).status_code == 204
        problem(await http.put(spare["put_result"], content=RESULT), 404, "address_unknown")
        assert scheduler.keeper.depot.usage().count == 0
        problem(await http.get(f"{call}/left"), 404, "address_unknown")
        problem(await http.post(f"{call}/addresses", json={"result": ASKED}), 404, "address_unknown")


async def test_what_breaks_off_uses_no_address_up_and_meanwhile_nobody_else_may(serve: Serve) -> None:
    async with serve(public_url=PUBLIC) as (scheduler, http):
        node, (grant,) = await granted(scheduler)
        call = await opened(scheduler, node, grant)
        big = bytes(range(256)) * 2**15
        told = await lent(http, call, image=picture(big))
        place = urlsplit(scheduler.http.address)
        _, writer = await asyncio.open_connection(place.hostname, place.port)
        head = f"PUT {told['put_image']} HTTP/1.1\r\nHost: localhost\r\nContent-Length: {len(big)}\r\n\r\n"
        writer.write(head.encode() + big[:1000])
        await writer.drain()

        async def answer() -> int:
            return (await http.put(told["put_image"], content=big[:-1])).status_code  # never a whole one

        async def told_so(status: int) -> bool:
            return await answer() == status

        await wait_until(lambda: told_so(409))
        writer.close()
        await wait_until(lambda: told_so(400))
        assert (await http.put(told["put_image"], content=big)).status_code == 201
        async with http.stream("GET", told["get_image"]) as half:
            async for _ in half.aiter_raw(1000):
                break

        async def fetched() -> bool:
            whole = await http.get(told["get_image"])
            return whole.status_code == 200 and whole.content == big

        await wait_until(fetched)
        problem(await http.get(told["get_image"]), 410, "address_used")
        assert not list((scheduler.config.storage_path / "uploads").iterdir())


async def test_of_many_who_put_at_several_schedulers_one_is_taken_and_all_of_them_hear_a_callback(serve: Serve) -> None:
    async with serve(public_url=PUBLIC) as (scheduler, one), serve(public_url=PUBLIC) as (_, other):
        node, (grant,) = await granted(scheduler)
        call = await opened(scheduler, node, grant)
        told = await lent(one, call, result=ASKED, reply=True)
        results = [bytes([number]) * 50_000 for number in range(8)]
        puts = (
            http.put(told["put_result"], content=data) for http, data in zip([one, other] * 4, results, strict=True)
        )
        statuses = [answer.status_code for answer in await asyncio.gather(*puts)]
        assert statuses.count(201) == 1
        assert set(statuses) <= {201, 409, 410}
        (found,) = (await left(other, call, asked=ASKED))["results"]
        assert (await other.get(found["path"])).content == results[statuses.index(201)]
        waiting = asyncio.create_task(left(one, call, reply=told["name"], wait_s=30))
        posts = [await http.post(told["post_reply"], content=REPLY, headers=HEADS) for http in (other, one)]
        assert [answer.status_code for answer in posts] == [204, 410]
        reply = (await waiting)["reply"]
        assert (await one.get(reply["path"])).content == REPLY


async def test_a_token_is_in_no_log_no_metrics_and_not_in_redis_and_needs_no_other(
    serve: Serve, redis_url: str, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    token, sha256 = new_http_token()
    bearer = {"Authorization": f"Bearer {token}"}
    caplog.set_level(logging.DEBUG, "lcq")
    async with serve(public_url=PUBLIC, tokens={"ann": {"sha256": sha256, "role": "operator"}}) as (scheduler, http):
        node, (grant,) = await granted(scheduler)
        call = await opened(scheduler, node, grant)
        http.headers["Host"] = "lcq.studio.example"  # as a proxy hands it on
        told = await lent(http, call, image=picture(IMAGE), result=ASKED, reply=True)
        assert (await http.get("/v1/tasks")).status_code == 401
        assert (await http.put(told["put_image"], content=IMAGE)).status_code == 201
        assert (await http.get(told["get_image"])).content == IMAGE

        async def broken(*_: object, **__: object) -> None:
            raise ZeroDivisionError

        with monkeypatch.context() as patch:
            patch.setattr(CallMoves, "take_address", broken)
            failed = await http.put(told["put_result"], content=RESULT)
        assert failed.status_code == 500
        metrics = (await http.get("/metrics", headers=bearer)).text
        assert "/v1/once/{token}" in metrics
        with contextlib.closing(redis.Redis.from_url(redis_url, decode_responses=True)) as client:
            ledger = read(client)  # and every key has its time to live
            assert {"call", "address", "lent"} <= {name.partition(":")[0] for name in ledger.values}
            known = json.dumps(ledger.values, default=str) + " ".join(ledger.values)
        spoken = [call, *(one for one in told.values() if one.startswith("/"))]
        assert any("PUT /v1/once/… failed" in record.getMessage() for record in caplog.records)
        for secret in (path.rpartition("/")[2] for path in spoken):
            assert len(secret) >= 43
            assert secret not in metrics
            assert secret not in known
            assert secret not in failed.text
            assert secret not in caplog.text
    assert shown_path("/v1/tasks/1") == "/v1/tasks/1"


async def test_pictures_that_another_call_needs_too_stay_and_so_does_what_was_there_before(serve: Serve) -> None:
    async with serve(public_url=PUBLIC) as (scheduler, http):
        node, grants = await granted(scheduler, task_count=2)
        calls = [await opened(scheduler, node, grant) for grant in grants]
        known = hashlib.sha256(MASK).hexdigest()
        await http.put(f"/v1/blobs/{known}", content=MASK)
        addresses = []
        for call in calls:
            told = await lent(http, call, image=picture(IMAGE), mask=picture(MASK))
            addresses.append(told)
            problem(await http.get(told["get_mask"]), 404, "address_unknown")  # of others' bytes none are lent
            for name, data in (("put_image", IMAGE), ("put_mask", MASK)):
                assert (await http.put(told[name], content=data)).status_code == 201
        await http.delete(calls[0])
        problem(await http.get(addresses[0]["get_image"]), 404, "address_unknown")
        assert (await http.get(addresses[1]["get_image"])).content == IMAGE
        await http.delete(calls[1])
        assert (await http.get(f"/v1/blobs/{known}")).content == MASK
        assert scheduler.keeper.depot.usage().count == 1


async def test_a_mask_of_many_calls_at_a_time_is_no_clients_and_is_not_removed_under_who_brings_it_again(
    serve: Serve,
) -> None:
    async with serve(public_url=PUBLIC) as (scheduler, http):
        node, grants = await granted(scheduler, task_count=3)
        first, second, third = [await opened(scheduler, node, grant) for grant in grants]
        state, sha256 = scheduler.state, picture(MASK)["sha256"]
        tokens = [(await lent(http, call, mask=picture(MASK)))["put_mask"] for call in (first, second, third)]
        assert (await http.put(tokens[0], content=MASK)).status_code == 201
        taken = await state.take_address(tokens[1].rpartition("/")[2], Way.PUT, size=len(MASK), seconds=60)
        await http.delete(first)  # while the second brings the same
        await state.settle_address(taken, is_whole=True, sha256=sha256, size=len(MASK), was_there=True)
        unneeded = await state.close_call(second.rpartition("/")[2])
        assert unneeded == (sha256,)
        problem(await http.put(tokens[2], content=MASK), 409, "address_busy")  # it is just being removed
        scheduler.keeper.depot.delete(sha256)
        await state.close_call(second.rpartition("/")[2], removed=unneeded)
        assert (await http.put(tokens[2], content=MASK)).status_code == 201
        await http.delete(third)
        assert scheduler.keeper.depot.usage().count == 0


async def test_a_result_that_two_attempts_leave_at_the_same_time_is_no_clients(serve: Serve) -> None:
    async with serve(public_url=PUBLIC) as (scheduler, http):
        node, grants = await granted(scheduler, task_count=2)
        first, second = [await opened(scheduler, node, grant) for grant in grants]
        state, sha256 = scheduler.state, picture(RESULT)["sha256"]
        told = [(await lent(http, call, result=ASKED))["put_result"].rpartition("/")[2] for call in (first, second)]
        transfers = [await state.take_address(token, Way.PUT, size=len(RESULT), seconds=60) for token in told]
        for taken in transfers:
            await state.name_bytes(taken, sha256)
        await asyncio.to_thread(scheduler.keeper.depot.keep, RESULT)
        for taken, was_there in zip(reversed(transfers), (True, False), strict=True):  # the second saw the first's
            await state.settle_address(taken, is_whole=True, sha256=sha256, size=len(RESULT), was_there=was_there)
        await http.delete(first)
        assert scheduler.keeper.depot.usage().count == 1
        await http.delete(second)
        assert scheduler.keeper.depot.usage().count == 0


async def test_who_has_no_such_attempt_opens_no_call_and_whose_time_is_over_settles_nothing(serve: Serve) -> None:
    async with serve(public_url=PUBLIC) as (scheduler, http):
        node, (grant,) = await granted(scheduler)
        for who, attempt in ((node, 2), (FunctionNode(scheduler.state, id="somebody-else"), 1)):
            with pytest.raises(TransitionRefused):
                await opened(scheduler, who, grant.model_copy(update={"attempt": attempt}))
        call = await opened(scheduler, node, grant)
        state, sha256 = scheduler.state, picture(RESULT)["sha256"]
        one = (await lent(http, call, result=ASKED))["put_result"].rpartition("/")[2]
        slow = await state.take_address(one, Way.PUT, size=len(RESULT), seconds=0.001)

        async def again() -> Taken | None:
            with contextlib.suppress(AddressBusy):
                return await state.take_address(one, Way.PUT, size=len(RESULT), seconds=60)
            return None

        quick = await wait_until(again)
        with pytest.raises(AddressUsed):
            await state.settle_address(slow, is_whole=True, sha256="0" * 64, size=9, was_there=False)
        await state.settle_address(quick, is_whole=True, sha256=sha256, size=len(RESULT), was_there=False)
        (left,) = await state.reader.calls.left(grant.task.id, grant.attempt)
        assert left.sha256 == sha256


async def test_a_transfer_that_broke_off_holds_nothing_back(serve: Serve) -> None:
    async with serve(public_url=PUBLIC) as (scheduler, http):
        node, grants = await granted(scheduler, task_count=2)
        first, second = [await opened(scheduler, node, grant) for grant in grants]
        state, sha256 = scheduler.state, picture(MASK)["sha256"]
        tokens = [(await lent(http, call, mask=picture(MASK)))["put_mask"] for call in (first, second)]
        broken = await state.take_address(tokens[0].rpartition("/")[2], Way.PUT, size=len(MASK), seconds=60)
        assert (await http.put(tokens[1], content=MASK)).status_code == 201
        await state.settle_address(broken, is_whole=False, was_there=False)
        await http.delete(second)
        assert scheduler.keeper.depot.usage().count == 0
        await http.put(f"/v1/blobs/{sha256}", content=MASK)
        again = await state.take_address(tokens[0].rpartition("/")[2], Way.PUT, size=len(MASK), seconds=60)
        await state.settle_address(again, is_whole=False)
        await http.delete(first)
        assert scheduler.keeper.depot.usage().count == 1, "what a client brought stays"


async def test_the_next_attempt_finds_what_the_one_before_it_was_late_to_leave(serve: Serve) -> None:
    async with serve(public_url=PUBLIC) as (scheduler, http):
        node, (grant,) = await granted(scheduler)
        call = await opened(scheduler, node, grant)
        told = await lent(http, call, result=ASKED)
        await node.release(grant.task.id)
        assert (await http.put(told["put_result"], content=RESULT)).status_code == 201  # nobody had waited so long
        with pytest.raises(TransitionRefused):
            await opened(scheduler, node, grant)
        with pytest.raises(TaskNotFound):
            await scheduler.state.open_call("06ft3k", attempt=1, node=node.id, seconds=1, terms=TERMS)
        (again,) = await node.take()
        second = await opened(scheduler, node, again)
        (found,) = (await left(http, second, asked=ASKED))["results"]
        assert found["attempt"] == 1
        assert (await http.get(found["path"])).content == RESULT
        await http.delete(second)
        assert scheduler.keeper.depot.usage().count == 0


REPLY = json.dumps({"key": "x", "seconds": 2.0, "instance": {"is_cold": True, "start_s": 1.0}}).encode()
HEADS = {"X-Function-Status": "500", "X-Duration-Seconds": "7.5", "X-Call-Id": "call-1"}


async def test_a_callback_is_taken_once_and_handed_to_who_waits_for_it(serve: Serve) -> None:
    async with serve(public_url=PUBLIC) as (scheduler, http):
        node, (grant,) = await granted(scheduler)
        call = await opened(scheduler, node, grant)
        told = await lent(http, call, reply=True)
        assert (await left(http, call, reply=told["name"]))["reply"] is None
        waiting = asyncio.create_task(left(http, call, reply=told["name"], wait_s=30))
        problem(await http.post("/v1/once/forged", content=REPLY), 404, "address_unknown")
        problem(await http.post(told["post_reply"], content=b"x" * (2**20 + 1)), 413, "too_large")
        assert (await http.post(told["post_reply"], content=REPLY, headers=HEADS)).status_code == 204
        reply = (await waiting)["reply"]
        assert (reply["status"], reply["seconds"], reply["call_id"]) == (500, "7.5", "call-1")
        problem(await http.post(told["post_reply"], content=REPLY), 410, "address_used")
        assert (await http.get(reply["path"])).content == REPLY
        assert (await scheduler.state.reader.spend()).day.reserved == 0.3  # it runs, and tells its bill itself
        empty = await lent(http, call, reply=True)
        assert (await http.post(empty["post_reply"], headers=HEADS | {"X-Function-Status": "503"})).status_code == 204
        assert (await left(http, call, reply=empty["name"]))["reply"]["status"] == 503


async def test_a_callback_that_comes_too_late_settles_the_bill_and_nothing_else(serve: Serve) -> None:
    async with serve(public_url=PUBLIC) as (scheduler, http):
        node, (grant, other) = await granted(scheduler, task_count=2)
        call = await opened(scheduler, node, grant)
        told = await lent(http, call, reply=True)
        more = await lent(http, await opened(scheduler, node, other), reply=True)
        await scheduler.state.release_task(grant.task.id, attempt=1, node=node.id)
        await node.end(other, 0.05)
        await http.delete(call)
        assert (await scheduler.state.reader.spend()).day.spent == pytest.approx(0.35)  # the worst of the one
        assert (await http.post(told["post_reply"], content=REPLY)).status_code == 204
        assert (await scheduler.state.reader.spend()).day.spent == pytest.approx(0.05 + 0.001 + 0.01 * 3.0)
        late = a_failure(code="function_unknown")  # of a node that had waited for it in vain
        with contextlib.suppress(TransitionRefused):
            await scheduler.state.fail_task(grant.task.id, attempt=1, node=node.id, failure=late)
        assert (await http.post(more["post_reply"], content=REPLY)).status_code == 204  # its agent has told its bill
        assert (await scheduler.state.reader.spend()).day.spent == pytest.approx(0.05 + 0.001 + 0.01 * 3.0)
        assert (await scheduler.state.reader.task(grant.task.id)).status == "queued"
        assert scheduler.keeper.depot.usage().count == 1  # of the call that nobody has closed


async def test_where_functions_reach_nobody_no_address_is_lent(serve: Serve) -> None:
    async with serve() as (scheduler, _):
        node, (grant,) = await granted(scheduler)
        ask = OpenCall(node_id=node.id, boot_id=node.boot, task_id=grant.task.id, attempt=1, seconds=60)
        assert (await scheduler.site.desk.ask(ask, b"agent")).path == ""


@pytest.mark.parametrize(
    ("document", "header", "seconds"),
    [
        (REPLY, "7.5", 3.0), (b'{"seconds": 2}', "7.5", 2.0), (b"garbage", "7.5", 7.5), (b"garbage", "", None),
        (b'{"seconds": -1}', "7.5", None), (b'{"seconds": 1e999}', "", None), (b"[" * 100_000, "1", 1.0),
        (b"[]", "nan", None),
    ],
)  # fmt: skip
def test_how_long_a_function_worked_is_read_from_its_reply_or_else_from_the_gateway(
    document: bytes, header: str, seconds: float | None
) -> None:
    assert seconds_of(document, header) == seconds


def test_terms_that_cannot_be_read_are_none() -> None:
    assert Terms.read("") is None
    assert Terms.read('{"price_call": -1, "price_s": 0, "timeout_s": 0}') is None
    assert Terms.read(json.dumps(vars(TERMS))) == TERMS
    assert TERMS.price(1000) == pytest.approx(0.201)
