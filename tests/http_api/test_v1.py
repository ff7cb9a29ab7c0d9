"""/v1 over a real socket: what a client of the control socket may, in the words of HTTP."""

from __future__ import annotations

import asyncio
import hashlib
import json
from collections.abc import AsyncIterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import httpx
import pytest

from lcq.http import events
from lcq.http.shapes import Wanted
from lcq.http.v1_tasks import type_of
from lcq.models import Task, TaskResult
from lcq.scheduler import Scheduler
from tests.conftest import wait_until
from tests.http_api.conftest import Serve
from tests.nodes import Node

PICTURE = "/photos/cat.png"


async def submitted(http: httpx.AsyncClient, count: int = 1, *, key: str | None = None, **fields: Any) -> list[str]:
    task = {"image_path": PICTURE, "config": {"model": "cv2-telea"}, **fields}
    headers = {"Idempotency-Key": key} if key else {}
    answer = await http.post("/v1/tasks", json={"tasks": [task] * count}, headers=headers)
    assert answer.status_code == 201, answer.text
    return [one["id"] for one in answer.json()["accepted"]]


def problem(answer: httpx.Response, status: int, code: str) -> dict[str, Any]:
    assert answer.headers["content-type"] == "application/problem+json"
    document: dict[str, Any] = answer.json()
    assert (answer.status_code, document["status"], document["code"]) == (status, status, code), document
    assert document["type"] == f"urn:lcq:problem:{code}"
    assert document["title"]
    assert document["detail"]
    return document


async def test_a_task_is_submitted_found_and_told_why_it_waits(http: httpx.AsyncClient, node: Node) -> None:
    (task_id,) = await submitted(http, job="holidays", user_id="ann")
    found = (await http.get(f"/v1/tasks/{task_id}")).json()
    assert (found["task"]["job"], found["task"]["user_id"], found["status"]) == ("holidays", "ann", "queued")
    assert (await http.get(f"/v1/tasks/{task_id[:-3]}")).json()["task"]["id"] == task_id
    assert (await http.get(f"/v1/tasks/{task_id}/why")).json()["why"]["code"]
    history = (await http.get(f"/v1/tasks/{task_id}/history")).json()
    assert [event["move"] for event in history["events"]] == ["submit_task"]


async def test_all_that_a_task_has_can_be_said_and_a_deadline_names_its_time_zone(
    http: httpx.AsyncClient, node: Node
) -> None:
    assert set(Wanted.model_fields) == set(Task.model_fields)
    (task_id,) = await submitted(http, privacy="exportable", deadline="2030-01-01T08:00:00+01:00")
    task = (await http.get(f"/v1/tasks/{task_id}")).json()["task"]
    assert task["privacy"] == "exportable"
    assert datetime.fromisoformat(task["deadline"]) == datetime(2030, 1, 1, 7, tzinfo=UTC)
    naive = {"tasks": [{"image_path": PICTURE, "deadline": "2030-01-01T08:00:00"}]}
    assert "deadline" in problem(await http.post("/v1/tasks", json=naive), 422, "invalid_input")["detail"]


async def test_pages_of_tasks_follow_each_other_by_cursor_and_by_link(http: httpx.AsyncClient, node: Node) -> None:
    ids = await submitted(http, 5)
    seen: list[str] = []
    where: str | None = "/v1/tasks?limit=2&where=state%3Aqueued"
    while where:
        answer = await http.get(where)
        seen += [one["task"]["id"] for one in answer.json()["tasks"]]
        where = answer.links["next"]["url"] if "next" in answer.links else None
        assert bool(where) == bool(answer.json()["next"])
    assert seen == sorted(ids, reverse=True)


async def test_the_same_key_is_the_same_task_and_another_task_under_it_is_refused(
    http: httpx.AsyncClient, node: Node
) -> None:
    first = await submitted(http, 2, key="k1")
    assert await submitted(http, 2, key="k1") == first
    other = {"tasks": [{"image_path": "/photos/dog.png"}]}
    problem(await http.post("/v1/tasks", json=other, headers={"Idempotency-Key": "k1"}), 422, "idempotency_conflict")


async def test_acts_are_done_once_under_a_key_are_in_the_audit_and_can_be_undone(
    http: httpx.AsyncClient, node: Node
) -> None:
    (task_id,) = await submitted(http)
    where, key = f"/v1/tasks/{task_id}/prioritise", {"Idempotency-Key": "once"}
    first = (await http.post(where, json={"priority": "urgent", "reason": "now"}, headers=key)).json()
    again = (await http.post(where, json={"priority": "urgent", "reason": "now"}, headers=key)).json()
    assert (first["act"], first["task"]["revision"]) == (again["act"], again["task"]["revision"])
    assert first["task"]["priority"] == "urgent"
    acts = (await http.get("/v1/acts", params={"limit": 1})).json()
    assert [(act["act"], act["reason"], act["command"]) for act in acts["acts"]] == [
        ("prioritise", "now", first["act"])
    ]
    undone = (await http.post(f"/v1/acts/{first['act']}/undo")).json()
    assert undone["done"] == [task_id]
    assert (await http.get(f"/v1/tasks/{task_id}")).json()["priority"] == "normal"


async def test_a_deadline_is_changed_and_taken_away(http: httpx.AsyncClient, node: Node) -> None:
    (task_id,) = await submitted(http)
    where = f"/v1/tasks/{task_id}/deadline"
    set_ = (await http.post(where, json={"deadline": "2026-12-24T09:00:00+01:00", "reason": "they called"})).json()
    assert set_["task"]["task"]["deadline"] == "2026-12-24T08:00:00Z"
    acts = (await http.get("/v1/acts", params={"limit": 1})).json()["acts"]
    assert [(act["act"], act["reason"]) for act in acts] == [("set_deadline", "they called")]
    gone = (await http.post(where, json={"deadline": None, "revision": set_["task"]["revision"]})).json()
    assert "deadline" not in gone["task"]["task"]
    problem(await http.post(where, json={}), 422, "invalid_input")
    problem(await http.post(where, json={"deadline": "2026-12-24T09:00:00"}), 422, "invalid_input")
    assert (await http.post(f"/v1/acts/{gone['act']}/undo")).json()["done"] == [task_id]
    assert (await http.get(f"/v1/tasks/{task_id}")).json()["task"]["deadline"] == "2026-12-24T08:00:00Z"


async def test_whether_it_may_leave_the_house_is_said_anew(http: httpx.AsyncClient, node: Node) -> None:
    (task_id,) = await submitted(http)
    where = f"/v1/tasks/{task_id}/privacy"
    out = (await http.post(where, json={"privacy": "exportable", "reason": "they may"})).json()
    assert out["task"]["task"]["privacy"] == "exportable"
    acts = (await http.get("/v1/acts", params={"limit": 1})).json()["acts"]
    assert [(act["act"], act["reason"]) for act in acts] == [("set_privacy", "they may")]
    problem(await http.post(where, json={"privacy": "private", "revision": 1}), 409, "transition_refused")
    problem(await http.post(where, json={"privacy": "public"}), 422, "invalid_input")
    problem(await http.post(where, json={}), 422, "invalid_input")
    back = (await http.post(where, json={"privacy": "private", "revision": out["task"]["revision"]})).json()
    assert "privacy" not in back["task"]["task"]
    assert (await http.post(f"/v1/acts/{back['act']}/undo")).json()["done"] == [task_id]
    assert (await http.get(f"/v1/tasks/{task_id}")).json()["task"]["privacy"] == "exportable"


async def test_what_has_moved_on_is_refused_with_its_code(http: httpx.AsyncClient, node: Node) -> None:
    (task_id,) = await submitted(http)
    problem(await http.post(f"/v1/tasks/{task_id}/cancel", json={"revision": 99}), 409, "transition_refused")
    assert (await http.post(f"/v1/tasks/{task_id}/cancel")).json()["task"]["status"] == "cancelled"
    problem(await http.post(f"/v1/tasks/{task_id}/cancel"), 409, "transition_refused")
    assert (await http.post(f"/v1/tasks/{task_id}/retry", json={})).json()["task"]["status"] == "queued"


async def test_every_refusal_is_a_problem_document(http: httpx.AsyncClient, node: Node) -> None:
    problem(await http.get("/v1/tasks/0000000000000000"), 404, "task_not_found")
    problem(await http.get("/v1/nothing"), 404, "not_found")
    problem(await http.delete("/v1/tasks"), 405, "method_not_allowed")
    problem(await http.get("/v1/tasks", params={"where": "colour:red"}), 400, "invalid_input")
    problem(await http.get("/v1/queues/gpu-hihg"), 400, "unknown_queue")
    assert (
        "image_pth"
        in problem(await http.post("/v1/tasks", json={"tasks": [{"image_pth": "/a.png"}]}), 422, "invalid_input")[
            "detail"
        ]
    )
    no_model = {"tasks": [{"image_path": "/a.png", "config": {"model": "lamma"}}]}
    assert "did you mean 'lama'" in problem(await http.post("/v1/tasks", json=no_model), 400, "unknown_model")["hint"]
    problem(
        await http.post("/v1/tasks", content=b"{", headers={"content-type": "application/json"}), 422, "invalid_input"
    )


async def test_a_wait_ends_with_the_task_and_its_result_can_be_fetched(
    http: httpx.AsyncClient, node: Node, tmp_path: Path
) -> None:
    (task_id,) = await submitted(http)
    problem(await http.get(f"/v1/tasks/{task_id}/result"), 409, "transition_refused")
    async with asyncio.TaskGroup() as group:
        waits = group.create_task(http.get(f"/v1/tasks/{task_id}", params={"wait_s": 60}))
        await asyncio.sleep(0.05)
        await node.claim()
        picture = tmp_path / "cat.png"
        picture.write_bytes(b"5 by!")
        result = TaskResult(path=str(picture), bytes=5, sha256="ab" * 32, width=1, height=1, seconds=0.1)
        await node.state.finish_task(task_id, attempt=1, node=node.id, result=result)
    assert waits.result().json()["status"] == "completed"
    fetched = await http.get(f"/v1/tasks/{task_id}/result")
    assert (fetched.content, fetched.headers["content-type"]) == (b"5 by!", "image/png")
    picture.write_bytes(b"other")
    picture.write_bytes(b"another")
    problem(await http.get(f"/v1/tasks/{task_id}/result"), 404, "result_gone")


async def test_jobs_nodes_queues_causes_and_the_rest_are_told_and_steered(http: httpx.AsyncClient, node: Node) -> None:
    for job in ("a", "b", "c"):
        await submitted(http, 2, job=job)
        await asyncio.sleep(0.002)
    first = (await http.get("/v1/jobs", params={"limit": 2})).json()
    assert [job["name"] for job in first["jobs"]] == ["c", "b"]
    rest = (await http.get("/v1/jobs", params={"limit": 2, "cursor": first["next"]})).json()
    assert ([job["name"] for job in rest["jobs"]], rest["next"]) == (["a"], "")
    assert (await http.post("/v1/jobs/a/cancel", json={"reason": "no"})).json()["done"] == 2
    assert (await http.get("/v1/jobs/a")).json()["counts"]["cancelled"] == 2
    assert (await http.get("/v1/jobs/a/report")).json()["cancelled"] == 2
    assert (await http.post("/v1/nodes/node-1/drain", json={"reason": "dust"})).status_code == 200
    assert (await http.get("/v1/nodes/node-1")).json()["status"] == "draining"
    assert (await http.post("/v1/queues/cpu-light/pause")).status_code == 200
    assert (await http.get("/v1/queues/cpu-light")).json()["paused"] is True
    problem(await http.get("/v1/nodes/node-9"), 404, "node_not_found")
    problem(await http.post("/v1/queues/nobody/pause"), 400, "unknown_queue")
    for path in ("causes", "autoscale", "costs", "info", "nodes", "queues"):
        assert (await http.get(f"/v1/{path}")).status_code == 200


# ---------------------------------------------------------------- events


async def told_events(lines: AsyncIterator[str]) -> AsyncIterator[tuple[str, str, dict[str, Any]]]:
    """(id, name, data) of each event of a stream, as a browser would read it."""
    found: dict[str, str] = {}
    async for line in lines:
        name, _, value = line.partition(": ")
        if line == "" and "event" in found:
            yield found["id"], found["event"], json.loads(found["data"])
            found = {}
        elif name in ("id", "event", "data"):
            found[name] = value


async def _until(lines: AsyncIterator[str], wanted: str) -> AsyncIterator[str]:
    async for line in lines:
        yield line
        if line == wanted:
            return


async def _some_id(lines: AsyncIterator[str], *, but: str) -> str:
    """The next id that a stream tells which is another one than that of this line."""
    async for line in lines:
        if line.startswith("id: ") and line != but:
            return line.removeprefix("id: ")
    raise AssertionError("the stream has ended")


async def test_events_come_as_they_happen_and_who_comes_back_misses_none(http: httpx.AsyncClient, node: Node) -> None:
    async with http.stream("GET", "/v1/events", params={"job": "mine"}) as stream:
        events = told_events(stream.aiter_lines())
        assert (await anext(events))[1] == "ready"
        await submitted(http, job="others")
        (first,) = await submitted(http, job="mine")
        last, move, fields = await anext(events)
        assert (move, fields["id"]) == ("submit_task", first)
    (second,) = await submitted(http, job="mine")
    async with http.stream("GET", "/v1/events", headers={"Last-Event-ID": last}) as stream:
        events = told_events(stream.aiter_lines())
        assert (await anext(events))[:2] == (last, "ready")
        assert (await anext(events))[2]["id"] == second
    async with http.stream("GET", "/v1/events", params={"after": "1-1"}) as stream:
        events = told_events(stream.aiter_lines())
        assert [(await anext(events))[1] for _ in range(2)] == ["ready", "gap"]
    assert (await http.get("/v1/events", params={"after": "yesterday"})).status_code == 422


async def test_a_stream_of_what_is_rare_goes_on_from_now_and_says_that_it_lives(
    http: httpx.AsyncClient, node: Node, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(events, "_QUIET_MS", 20)
    async with http.stream("GET", "/v1/events", params={"job": "never"}) as stream:
        lines = stream.aiter_lines()
        before = [line async for line in _until(lines, "data: {}")]
        await submitted(http, job="others")
        async with asyncio.timeout(120):
            last = await _some_id(lines, but=before[1])
    async with http.stream("GET", "/v1/events", headers={"Last-Event-ID": last}) as stream:
        told = told_events(stream.aiter_lines())
        assert (await anext(told))[:2] == (last, "ready")


async def test_who_is_told_of_a_gap_and_breaks_off_there_misses_nothing_that_is_left(
    http: httpx.AsyncClient, node: Node
) -> None:
    (task,) = await submitted(http)
    async with http.stream("GET", "/v1/events", params={"after": "1-1"}) as stream:
        told = told_events(stream.aiter_lines())
        assert (await anext(told))[1] == "ready"
        known, name, _ = await anext(told)
        assert name == "gap"
    async with http.stream("GET", "/v1/events", headers={"Last-Event-ID": known}) as stream:
        async with asyncio.timeout(120):
            async for _, name, fields in told_events(stream.aiter_lines()):
                if (name, fields.get("id")) == ("submit_task", task):
                    break


def test_a_result_without_a_name_is_of_the_type_that_its_beginning_tells() -> None:
    heads = (b"\x89PNG\r\n\x1a\n...", b"\xff\xd8\xff\xe0", b"RIFF....WEBPVP8 ", b"<html>", b"")
    unknown = "application/octet-stream"
    assert [type_of(head) for head in heads] == ["image/png", "image/jpeg", "image/webp", unknown, unknown]


# ---------------------------------------------------------------- who watches


async def test_a_store_without_room_is_told_by_readyz_and_tasks_by_path_are_taken_all_the_same(
    http: httpx.AsyncClient, scheduler: Scheduler
) -> None:
    storage = scheduler.state.config.storage
    full = storage.model_copy(update={"blobs": storage.blobs.model_copy(update={"floor_percent": 99.9999})})
    scheduler.state.config = scheduler.state.config.model_copy(update={"storage": full})
    told = await http.get("/readyz")
    assert told.status_code == 200
    assert "in reserve" in told.json()["checks"]["storage"]
    await submitted(http, 1)


async def test_health_and_metrics_say_what_is_and_what_is_missing(
    http: httpx.AsyncClient, scheduler: Scheduler
) -> None:
    assert (await http.get("/healthz")).json()["status"] == "ok"
    ready = await http.get("/readyz")
    assert (ready.status_code, ready.json()["ready"]) == (200, True)
    assert "none is online" in ready.json()["checks"]["nodes"]
    await Node(scheduler.state).hello()
    await submitted(http, 3)
    assert (await http.get("/readyz")).json()["checks"] == {"redis": "ok", "nodes": "ok", "storage": "ok"}
    lines = (await http.get("/metrics")).text.splitlines()
    assert 'lcq_queue_tasks{queue="cpu-light",status="queued"} 3.0' in lines
    assert 'lcq_nodes{status="online"} 1.0' in lines
    assert 'lcq_http_requests_total{method="GET",route="/readyz",status="200"} 2.0' in lines


async def test_a_scheduler_without_http_has_no_port(serve: Serve) -> None:
    async with serve(enabled=False) as (scheduler, _):
        assert scheduler.http.address == ""


async def test_a_scheduler_that_ends_ends_its_streams(serve: Serve) -> None:
    async with httpx.AsyncClient(timeout=60) as client:
        async with serve() as (scheduler, _):
            request = client.build_request("GET", f"{scheduler.http.address}/v1/events")
            stream = await client.send(request, stream=True)
        assert b"event: ready" in await stream.aread()


# ---------------------------------------------------------------- bytes


async def test_a_form_brings_its_pictures_along_and_they_are_blobs(http: httpx.AsyncClient, node: Node) -> None:
    files = {"image": ("cat.png", b"a picture"), "mask": ("m.png", b"a mask")}
    answer = await http.post("/v1/tasks", data={"task": json.dumps({"job": "one"})}, files=files)
    assert answer.status_code == 201, answer.text
    task = (await http.get(answer.headers["location"])).json()["task"]
    sums = [f"blob:{hashlib.sha256(data).hexdigest()}" for data in (b"a picture", b"a mask")]
    assert [task["image_path"], task["mask_path"], task["job"]] == [*sums, "one"]
    for bad in ({"task": "[]"}, {"task": "{"}):
        problem(await http.post("/v1/tasks", data=bad, files=files), 422, "invalid_input")
    problem(await http.post("/v1/tasks", files={"mask": files["mask"]}), 400, "invalid_input")
    problem(await http.post("/v1/tasks", content=b"a=1", headers={"content-type": "text/plain"}), 415,
            "unsupported_media_type")  # fmt: skip


async def test_blobs_go_up_in_pieces_and_down_by_ranges(http: httpx.AsyncClient) -> None:
    data = bytes(range(256)) * 1000
    where = f"/v1/blobs/{hashlib.sha256(data).hexdigest()}"
    assert (await http.head(where)).headers["upload-offset"] == "0"
    first = {"content-range": f"bytes 0-99999/{len(data)}"}
    problem(await http.put(where, content=data[:100_000], headers=first), 409, "upload_conflict")
    told = await http.head(where)
    assert (told.status_code, told.headers["upload-offset"]) == (404, "100000")
    rest = {"content-range": f"bytes 100000-{len(data) - 1}/{len(data)}"}
    assert (await http.put(where, content=data[100_000:], headers=rest)).status_code == 201
    assert (await http.put(where, content=data)).status_code == 200
    assert (await http.head(where)).headers["content-length"] == str(len(data))
    assert (await http.get(where)).content == data
    part = await http.get(where, headers={"range": "bytes=10-19"})
    assert (part.status_code, part.content) == (206, data[10:20])
    assert part.headers["content-range"] == f"bytes 10-19/{len(data)}"
    assert (await http.get(where, headers={"range": "bytes=-3"})).content == data[-3:]
    assert (await http.get(where, headers={"range": f"bytes={len(data)}-"})).status_code == 416
    assert (await http.get("/v1/blobs")).json()["count"] == 1
    problem(await http.put(f"/v1/blobs/{'0' * 64}", content=b"x"), 422, "blob_mismatch")
    assert (await http.delete(where)).status_code == 204
    problem(await http.get(where), 404, "blob_not_found")


async def test_a_report_of_what_was_used_comes_as_json_as_csv_and_as_a_page(
    http: httpx.AsyncClient, scheduler: Scheduler, node: Node
) -> None:
    (task_id,) = await submitted(http, user_id="ann")
    await http.post(f"/v1/tasks/{task_id}/cancel")

    async def rows() -> list[dict[str, Any]]:
        found: list[dict[str, Any]] = (await http.get("/v1/report?since=2d")).json()["rows"]
        return found

    async def is_counted() -> bool:
        return bool(await rows())

    await wait_until(is_counted, what="the duty has counted it")
    (row,) = await rows()
    assert (row["name"], row["cancelled"]) == ("ann", 1)
    table = await http.get("/v1/report?since=2d&by=day&format=csv")
    assert table.headers["content-type"].startswith("text/csv")
    assert len(table.text.splitlines()) == 3
    page = await http.get("/v1/report?format=html")
    assert page.text.startswith("<!doctype html>")
    assert "default-src 'none'" in page.headers["content-security-policy"]
    problem(await http.get("/v1/report?since=soon"), 400, "invalid_input")
