"""Who may ask over HTTP, from where, how often and how much: over a real socket."""

from __future__ import annotations

import asyncio
import contextlib
import socket
from collections.abc import AsyncIterator

import httpx
import pytest

from lcq.errors import InvalidConfig
from lcq.http.access import Caller, Role, host_name, needed_role, new_token
from lcq.http.rates import Rates
from tests.http_api.conftest import Serve
from tests.http_api.test_v1 import PICTURE, problem
from tests.nodes import Node

TASKS = {"tasks": [{"image_path": PICTURE}]}


def bearing(token: str) -> dict[str, str]:
    return {"Authorization": f"Bearer {token}"}


# ---------------------------------------------------------------- tokens


async def test_each_role_may_what_it_says_and_no_more(serve: Serve) -> None:
    tokens, known = {}, {}
    for role in Role:
        token, sha256 = new_token()
        tokens[role], known[f"a-{role}"] = bearing(token), {"role": role, "sha256": sha256}
    viewer, submitter, operator = (tokens[role] for role in Role)
    async with serve(tokens=known) as (scheduler, http):
        await Node(scheduler.state).hello()
        refused = await http.get("/v1/tasks")
        problem(refused, 401, "unauthenticated")
        assert refused.headers["www-authenticate"] == "Bearer"
        problem(await http.get("/v1/tasks", headers=bearing("guessed")), 401, "unauthenticated")
        for free in ("/healthz", "/readyz"):
            assert (await http.get(free)).status_code == 200
        assert (await http.get("/v1/tasks", headers=viewer)).status_code == 200
        assert (await http.get("/v1/tasks", auth=("", operator["Authorization"].split()[1]))).status_code == 200
        problem(await http.post("/v1/tasks", json=TASKS, headers=viewer), 403, "access_denied")
        mine = (await http.post("/v1/tasks", json=TASKS, headers=submitter)).json()["accepted"][0]["id"]
        named = {"tasks": [{"image_path": PICTURE, "user_id": "ann"}]}
        theirs = (await http.post("/v1/tasks", json=named, headers=operator)).json()["accepted"][0]["id"]
        assert (await http.get(f"/v1/tasks/{theirs}", headers=viewer)).json()["task"]["user_id"] == "ann"
        assert (await http.post(f"/v1/tasks/{mine}/cancel", headers=submitter)).status_code == 200
        problem(await http.post(f"/v1/tasks/{theirs}/cancel", headers=submitter), 403, "access_denied")
        out = {"privacy": "exportable"}
        assert (await http.post(f"/v1/tasks/{theirs}/privacy", json=out, headers=operator)).status_code == 200
        problem(await http.post(f"/v1/tasks/{theirs}/privacy", json=out, headers=submitter), 403, "access_denied")
        problem(await http.post("/v1/queues/cpu-light/pause", headers=submitter), 403, "access_denied")
        assert (await http.post("/v1/queues/cpu-light/pause", headers=operator)).status_code == 200
        acts = (await http.get("/v1/acts", headers=viewer)).json()["acts"]
        assert {(act["act"], act["actor"]) for act in acts} >= {("pause", "a-operator"), ("cancel", "a-submitter")}


async def test_who_guesses_tokens_is_told_to_wait(serve: Serve, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("lcq.http.guard._WRONG_TOKENS_A_MINUTE", 0.6)  # one at once, and the next after 100 s
    token, sha256 = new_token()
    async with serve(tokens={"ann": {"sha256": sha256}}) as (_, http):
        answers = [(await http.get("/v1/tasks", headers=bearing("x"))).status_code for _ in range(2)]
        assert answers == [401, 429]
        assert (await http.get("/v1/tasks", headers=bearing(token))).status_code == 200


async def test_no_other_address_than_loopback_is_bound_without_tokens(serve: Serve) -> None:
    with pytest.raises(InvalidConfig, match="there are no tokens"):
        async with serve(bind="0.0.0.0"):
            pass
    async with serve(bind="0.0.0.0", tokens={"ann": {"sha256": "0" * 64}}) as (_, http):
        assert (await http.get("/v1/tasks")).status_code == 401


def test_roles_cover_those_below_and_only_watching_needs_none() -> None:
    assert Role.OPERATOR.covers(Role.VIEWER)
    assert not Role.VIEWER.covers(Role.SUBMITTER)
    needed = {
        ("GET", "/healthz"): None, ("GET", "/metrics"): Role.VIEWER, ("GET", "/v1/acts"): Role.VIEWER,
        ("POST", "/v1/tasks"): Role.SUBMITTER, ("PUT", "/v1/blobs/ab"): Role.SUBMITTER,
        ("POST", "/api/v1/inpaint"): Role.SUBMITTER, ("POST", "/inpaint"): Role.SUBMITTER,
        ("POST", "/v1/tasks/1/reroute"): Role.OPERATOR, ("POST", "/v1/nodes/a/stop"): Role.OPERATOR,
        ("DELETE", "/v1/blobs/ab"): Role.OPERATOR, ("POST", "/v1/tasksx"): Role.OPERATOR,
    }  # fmt: skip
    assert {of: needed_role(*of) for of in needed} == needed
    assert not Caller("anonymous", Role.OPERATOR).is_named


# ---------------------------------------------------------------- web pages


PAGES: list[tuple[dict[str, str], int]] = [
    ({}, 200),
    ({"Host": "localhost:8081"}, 200),
    ({"Host": "[::1]:8081"}, 200),
    ({"Host": "evil.example"}, 403),
    ({"Host": "evil.example:8081"}, 403),
    ({"Host": "studio.example"}, 200),
    ({"Host": "127.0.0.1:1", "Origin": "http://127.0.0.1:1"}, 200),
    ({"Origin": "http://evil.example"}, 403),
    ({"Origin": "null"}, 403),
    ({"Origin": "https://tools.example"}, 200),
    ({"Sec-Fetch-Site": "cross-site"}, 403),
    ({"Sec-Fetch-Site": "cross-site", "Sec-Fetch-Mode": "navigate"}, 200),
    ({"Sec-Fetch-Site": "same-origin"}, 200),
]


async def test_a_web_page_of_others_can_neither_look_nor_submit(serve: Serve) -> None:
    async with serve(hosts=["studio.example"], origins=["https://tools.example"]) as (_, http):
        for headers, status in PAGES:
            answer = await http.get("/v1/queues", headers=headers)
            assert answer.status_code == status, (headers, answer.text)
            if status == 403:
                problem(answer, 403, "foreign_page")
                problem(await http.post("/v1/tasks", json=TASKS, headers=headers), 403, "foreign_page")


async def test_pages_that_may_are_told_so_and_nobody_else_is(serve: Serve) -> None:
    asks = {"Origin": "https://tools.example", "Access-Control-Request-Method": "POST"}
    async with serve(origins=["https://tools.example"]) as (_, http):
        told = await http.options("/v1/tasks", headers=asks)
        assert (told.status_code, told.headers["access-control-allow-origin"]) == (200, "https://tools.example")
    async with serve() as (_, http):
        told = await http.options("/v1/tasks", headers=asks)
        assert told.status_code == 403
        assert "access-control-allow-origin" not in told.headers


@pytest.mark.parametrize(
    ("host", "name"), [("a.b:80", "a.b"), ("[::1]:80", "::1"), ("[::1]", "::1"), ("LocalHost", "localhost"), ("", "")]
)
def test_the_name_in_a_host_header_is_found(host: str, name: str) -> None:
    assert host_name(host) == name


# ---------------------------------------------------------------- limits


async def test_what_is_too_large_is_refused_by_its_length_and_while_it_comes(serve: Serve) -> None:
    async with serve(body_mib=1) as (_, http):
        problem(await http.post("/v1/tasks", content=b" " * (2**20 + 1)), 413, "too_large")

        async def endless() -> AsyncIterator[bytes]:
            for _ in range(10_000):
                yield b" " * 65536
            pytest.fail("it went on listening")

        try:
            told = await http.post("/v1/tasks", content=endless(), headers={"content-type": "application/json"})
        except (httpx.NetworkError, httpx.RemoteProtocolError):
            return  # the connection was closed while it was still sending
        problem(told, 413, "too_large")


async def test_the_sender_of_a_body_that_is_too_large_is_told_so_at_its_end(serve: Serve) -> None:
    async with serve(body_mib=1) as (_, http):

        async def pieces() -> AsyncIterator[bytes]:
            for _ in range(80):  # 5 MiB, of unknown length
                yield b" " * 65536
                await asyncio.sleep(0)

        for path in ("/v1/tasks", "/api/v1/inpaint"):
            told = await http.post(path, content=pieces(), headers={"content-type": "application/json"})
            assert told.status_code == 413, path


async def test_too_many_headers_and_too_long_ones_are_refused(serve: Serve) -> None:
    async with serve() as (_, http):
        many = {f"x-{number}": "1" for number in range(120)}
        told = problem(await http.get("/v1/tasks", headers=many), 431, "headers_too_large")
        assert "may have 100 headers of 64 KiB in all" in told["detail"]
        problem(await http.get("/v1/tasks", headers={"cookie": "c" * 65536}), 431, "headers_too_large")


async def test_a_body_that_does_not_come_is_not_waited_for(serve: Serve) -> None:
    async with serve(body_s=0.2) as (scheduler, _):
        host, port = scheduler.http.address.removeprefix("http://").split(":")
        reader, writer = await asyncio.open_connection(host, int(port))
        writer.write(b"POST /v1/tasks HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Type: application/json\r\n"
                     b"Content-Length: 9\r\n\r\n{")  # fmt: skip
        assert b"429" in await reader.readline()
        writer.close()


@pytest.mark.parametrize("before", [b"", b"GET /healthz HTTP/1.1\r\nHost: localhost\r\n\r\n"])
async def test_headers_that_do_not_come_are_not_waited_for(
    serve: Serve, monkeypatch: pytest.MonkeyPatch, before: bytes
) -> None:
    async with serve() as (scheduler, http):
        assert (await http.get("/healthz")).status_code == 200
        if not before:  # else it is impatient only when the whole request has come
            monkeypatch.setattr("lcq.http.serving._HEADER_S", 0.2)
        host, port = scheduler.http.address.removeprefix("http://").split(":")
        reader, writer = await asyncio.open_connection(host, int(port))
        writer.write(before)
        if before:
            assert b'"ok"' in await reader.readuntil(b"}")
            monkeypatch.setattr("lcq.http.serving._HEADER_S", 0.2)
        writer.write(b"GET /v1/tasks HTTP/1.1\r\nX-Slow")
        with contextlib.suppress(ConnectionError):
            assert await reader.read() == b""
        writer.close()


async def test_a_client_that_asks_too_often_is_told_when_to_come_again(serve: Serve) -> None:
    async with serve(per_minute=0.6) as (_, http):
        assert (await http.get("/healthz")).status_code == 200
        again = await http.get("/healthz")
        problem(again, 429, "too_many_requests")
        assert int(again.headers["retry-after"]) >= 1


def test_a_bucket_fills_with_time_and_each_client_has_its_own() -> None:
    now = [0.0]
    rates = Rates(clock=lambda: now[0])
    assert [rates.take("ann", 12) for _ in range(2)] == [0.0, 0.0]
    assert rates.take("ann", 12) == pytest.approx(5.0)
    assert rates.take("bob", 12) == 0.0
    now[0] = 5.0
    assert rates.take("ann", 12) == 0.0
    assert rates.take("ann", None) == 0.0


async def test_a_port_that_somebody_chose_and_that_is_taken_is_an_error(serve: Serve) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        with pytest.raises(InvalidConfig, match="cannot bind HTTP"):
            async with serve(port=taken.getsockname()[1]):
                pass
