"""The parents' APIs on a scheduler with a node by hand: words, statuses, sessions, and who stops waiting."""

from __future__ import annotations

import asyncio
import base64
import io
import json
import struct
import zlib
from pathlib import Path
from typing import Any

import cv2
import httpx
import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from lcq.http.lama_cleaner import BadField, fields_of
from lcq.http.masks import grown
from lcq.http.parents import config_for, format_of
from lcq.http.sessions import COOKIE
from lcq.http.texts import parameters_of
from lcq.models import (
    Device,
    DeviceKind,
    ErrorClass,
    Failure,
    ModelOffer,
    NodeCapability,
    TaskRecord,
    TaskResult,
    TaskStatus,
    TaskType,
)
from lcq.scheduler import Scheduler
from lcq.storage.addresses import read_address
from lcq.wire import ListTasks
from tests.conftest import wait_until
from tests.http_api.conftest import Serve
from tests.nodes import HEAVY, LIGHT, NS, TELEA, Node


def b64(data: bytes, kind: str = "image/png") -> str:
    return f"data:{kind};base64,{base64.b64encode(data).decode()}"


def png(pixels: NDArray[Any]) -> bytes:
    out = io.BytesIO()
    Image.fromarray(pixels).save(out, format="PNG")
    return out.getvalue()


PICTURE, MASK = png(np.zeros((4, 6, 3), np.uint8)), png(np.zeros((4, 6), np.uint8))
ASK = {"image": b64(PICTURE), "mask": b64(MASK)}


async def waiting(scheduler: Scheduler) -> TaskRecord:
    """The one task that waits."""

    async def found() -> TaskRecord | None:
        page = await scheduler.state.reader.list_tasks(ListTasks(status=TaskStatus.QUEUED))
        return page.tasks[0] if page.tasks else None

    return await wait_until(found)


async def finish(scheduler: Scheduler, node: Node, data: bytes = b"done") -> TaskRecord:
    """Do the task that waits: its result is ``data``."""
    record = await waiting(scheduler)
    (grant,) = await node.claim()
    blob = scheduler.keeper.depot.keep(data)
    result = TaskResult(path=f"blob:{blob.sha256}", bytes=len(data), sha256=blob.sha256, width=1, height=1, seconds=0.1)
    await node.state.finish_task(grant.task.id, attempt=grant.attempt, node=node.id, result=result)
    return record


async def fail(scheduler: Scheduler, node: Node, code: str, message: str) -> None:
    await waiting(scheduler)
    (grant,) = await node.claim()
    failure = Failure(error_class=ErrorClass.BAD_INPUT, code=code, message=message)
    await node.state.fail_task(grant.task.id, attempt=grant.attempt, node=node.id, failure=failure)


async def test_a_request_becomes_a_task_of_priority_high_and_is_answered_with_its_result(
    http: httpx.AsyncClient, scheduler: Scheduler, node: Node
) -> None:
    async with asyncio.TaskGroup() as group:
        more = {"cv2_flag": "INPAINT_TELEA", "cv2_radius": "7", "sd_seed": 5, "hd_strategy": "Nonsense", "unknown": 1}
        asked = group.create_task(http.post("/api/v1/inpaint", json=ASK | more))
        record = await finish(scheduler, node, b"a new picture")
    answer = asked.result()
    assert (answer.status_code, answer.content) == (200, b"a new picture")
    assert (answer.headers["content-type"], answer.headers["x-seed"]) == ("image/png", "5")
    assert record.priority == "high"
    assert (await scheduler.state.reader.fleet()).interactive == {(record.queue, TELEA)}, "slots are kept for such"
    task = record.task
    assert scheduler.keeper.depot.store.stat(read_address(task.image_path).place) is not None
    assert dict(task.config) == {
        "model": "cv2-telea", "radius": 7, "hd_strategy": "original", "hd_strategy_crop_trigger_size": 800,
        "hd_strategy_crop_margin": 128, "hd_strategy_resize_limit": 1280, "as_rgb": True, "format": "png",
    }  # fmt: skip


async def test_a_client_that_goes_away_has_its_task_cancelled(
    http: httpx.AsyncClient, scheduler: Scheduler, node: Node
) -> None:
    asked = asyncio.create_task(http.post("/api/v1/inpaint", json=ASK))
    record = await waiting(scheduler)
    asked.cancel()
    with pytest.raises(asyncio.CancelledError):
        await asked

    async def is_cancelled() -> bool:
        return (await scheduler.state.reader.task(record.id)).status is TaskStatus.CANCELLED

    await wait_until(is_cancelled)
    assert "has gone" in (await scheduler.state.reader.task(record.id)).why


async def test_who_waits_too_long_is_told_why_and_its_task_is_cancelled(serve: Serve) -> None:
    async with serve(answer_s=0.2) as (scheduler, http):
        await Node(scheduler.state).hello()
        answer = await http.post("/api/v1/inpaint", json=ASK)
        assert (answer.status_code, answer.json()["error"]) == (504, "AnswerLate")
        (task,) = (await http.get("/v1/tasks")).json()["tasks"]
        assert task["status"] == "cancelled"


async def test_errors_have_iopaints_statuses_and_shape(
    http: httpx.AsyncClient, scheduler: Scheduler, node: Node
) -> None:
    async with asyncio.TaskGroup() as group:
        asked = group.create_task(http.post("/api/v1/inpaint", json=ASK))
        await fail(scheduler, node, "mask_size_mismatch", "mask a.png is 6 x 4, but b.png is 9 x 8")
    words = "Image size((8, 9)) and mask size((4, 6)) not match."
    told = {"error": "HTTPException", "detail": words, "body": "", "errors": f"400: {words}"}
    assert (asked.result().status_code, asked.result().json()) == (400, told)
    async with asyncio.TaskGroup() as group:
        asked = group.create_task(http.post("/api/v1/inpaint", json=ASK))
        await fail(scheduler, node, "image_undecodable", "it is no picture")
    assert (asked.result().status_code, asked.result().json()["errors"]) == (500, "it is no picture")
    for missing in ({"mask": ASK["mask"]}, {**ASK, "image": "data:image/png;base64,A"}):
        answer = await http.post("/api/v1/inpaint", json=missing)
        assert (answer.status_code, set(answer.json())) == (500, {"error", "detail", "body", "errors"})
    for wrong in ({"cv2_flag": "INPAINT_MAGIC"}, {"cv2_radius": "many"}, {"sd_scale": 0}, {"image": 3}):
        answer = await http.post("/api/v1/inpaint", json=ASK | wrong)
        assert answer.status_code == 422
        assert answer.json()["detail"][0]["loc"] == ["body", next(iter(wrong))]
    assert (await http.post("/api/v1/inpaint", content=b"{")).status_code == 422


async def test_a_model_is_a_sessions_own_and_an_unknown_one_breaks_nothing(
    http: httpx.AsyncClient, scheduler: Scheduler
) -> None:
    node = Node(scheduler.state, models=(TELEA, NS, "lama", "mat"))
    await node.hello()
    config = (await http.get("/api/v1/server-config")).json()
    assert [info["name"] for info in config["modelInfos"]] == ["lama", "cv2", "mat"]
    assert len(config) == 15
    assert http.cookies.get(COOKIE)
    assert (await http.get("/api/v1/model")).json()["name"] == "lama"
    assert (await http.post("/api/v1/model", json={"name": "mat"})).json()["name"] == "mat"
    unknown = await http.post("/api/v1/model", json={"name": "sd9"})
    assert (unknown.status_code, unknown.json()["error"], unknown.json()["errors"]) == (500, "KeyError", "'sd9'")
    assert (await http.get("/api/v1/model")).json()["name"] == "mat"
    async with httpx.AsyncClient(base_url=http.base_url) as another:
        assert (await another.get("/api/v1/model")).json()["name"] == "lama"
        assert (await another.post("/model", data={"name": "cv2"})).text == "ok, switch to cv2"
        assert (await another.post("/model", data={"name": "cv2"})).text == "Same model"
        assert (await another.post("/model", data={"name": "sd9"})).status_code == 403
        assert (await another.get("/model")).text == "cv2"
    assert (await http.get("/model")).text == "mat"


async def test_what_the_web_app_asks_at_its_start_is_answered(http: httpx.AsyncClient, node: Node) -> None:
    opened = await http.get("/socket.io/", params={"EIO": "4", "transport": "polling"})
    assert opened.text.startswith('0{"sid":')
    line = {"EIO": "4", "transport": "polling", "sid": json.loads(opened.text[1:])["sid"]}
    assert (await http.post("/socket.io/", params=line, content="40")).text == "ok"
    assert (await http.get("/socket.io/", params=line)).text.startswith('40{"sid":')
    assert (await http.get("/socket.io/", params=line | {"sid": "x"})).json()["code"] == 1
    no_input = await http.get("/api/v1/inputimage")
    assert (no_input.status_code, no_input.json()["detail"]) == (200, "No input image configured")
    assert len((await http.get("/api/v1/samplers")).json()) == 19
    assert (await http.post("/api/v1/samplers")).status_code == 405
    plugin = {"name": "RemoveBG", "image": ASK["image"]}
    for path in ("run_plugin_gen_image", "run_plugin_gen_mask"):
        answer = await http.post(f"/api/v1/{path}", json=plugin)
        assert (answer.status_code, answer.json()["detail"]) == (422, "Plugin not found")
    switched = await http.post("/api/v1/switch_plugin_model", json={"plugin_name": "x", "model_name": "y"})
    assert (switched.status_code, switched.json()) == (200, None)
    assert (await http.get("/server_config")).json()["plugins"] == []
    assert (await http.get("/is_desktop")).text == "False"
    assert (await http.get("/inputimage")).text == "No Input Image"
    assert (await http.get("/model_downloaded/cv2")).text == "True"
    assert (await http.post("/run_plugin", data={"name": "x"}, files={"image": PICTURE})).text == "Plugin not found"


async def test_plugins_that_a_node_serves_answer_as_the_parents_do(
    http: httpx.AsyncClient, scheduler: Scheduler
) -> None:
    lanes = ("InteractiveSeg~segment", "RealESRGAN~upscale")
    node = Node(scheduler.state, models=lanes, queues=(LIGHT, HEAVY))
    kinds = {"InteractiveSeg": TaskType.SEGMENT, "RealESRGAN": TaskType.UPSCALE}
    models = {name: ModelOffer(kinds=(DeviceKind.CPU,), task_types=(kind,)) for name, kind in kinds.items()}
    capability = NodeCapability(devices=(Device(id="cpu", kind=DeviceKind.CPU, slots=4),), models=models)
    await scheduler.state.register_node(node.id, boot=node.boot, capability=capability, serves={"cpu": node.queues})
    config = (await http.get("/api/v1/server-config")).json()
    assert config["plugins"] == [
        {"name": "InteractiveSeg", "support_gen_image": False, "support_gen_mask": True},
        {"name": "RealESRGAN", "support_gen_image": True, "support_gen_mask": False},
    ]
    grey = np.zeros((20, 30), np.uint8)
    grey[9, 9] = 255
    grown_by_4 = np.zeros((20, 30), bool)
    grown_by_4[5:14, 5:14] = True

    async def asked(done: bytes, path: str, **sent: Any) -> tuple[httpx.Response, dict[str, Any]]:
        async with asyncio.TaskGroup() as group:
            answer = group.create_task(http.post(path, **sent))
            record = await finish(scheduler, node, done)
        return answer.result(), dict(record.task.config)

    clicks = [[9, 9, 1]]
    seg = {"name": "InteractiveSeg", "image": ASK["image"], "clicks": clicks}
    form = {"name": "InteractiveSeg", "clicks": json.dumps(clicks)}
    for path, sent in (
        ("/api/v1/run_plugin_gen_mask", {"json": seg}),
        ("/run_plugin", {"data": form, "files": {"image": PICTURE}}),
    ):
        answer, told = await asked(png(grey), path, **sent)
        assert (answer.headers["content-type"], json.dumps(told["clicks"])) == ("image/png", json.dumps(clicks))
        found = np.asarray(Image.open(io.BytesIO(answer.content)))
        np.testing.assert_array_equal(found, np.where(grown_by_4[..., None], (255, 203, 0, 186), 0))
    up = {"name": "RealESRGAN", "image": ASK["image"], "scale": 4}
    answer, told = await asked(b"larger", "/api/v1/run_plugin_gen_image", json=up)
    assert (answer.content, told["scale"], told["format"]) == (b"larger", 4.0, "png")
    refused = await http.post("/api/v1/run_plugin_gen_mask", json=up)
    assert (refused.status_code, refused.json()["detail"]) == (422, "Plugin does not support output image")
    jpeg = b"\xff\xd8\xff and the rest"
    answer, told = await asked(b"larger", "/run_plugin", data={"name": "RealESRGAN"}, files={"image": jpeg})
    assert (answer.headers["content-type"], told["format"], told["quality"]) == ("image/jpeg", "jpeg", 95)


async def test_results_are_saved_beside_each_other_and_never_outside(serve: Serve, tmp_path: Path) -> None:
    folder = tmp_path / "saved"
    async with serve() as (_, http):
        told = await http.post("/api/v1/save_image", files={"file": ("a.png", b"1")})
        assert told.status_code == 400
        assert (await http.post("/save_image", data={"filename": "a"}, files={"image": b"1"})).status_code == 500
    async with serve(save_folder=folder) as (_, http):
        for name, data in (("a.png", b"1"), ("../a.png", b"2"), ("..\\..\\b.png", b"3")):
            told = await http.post("/api/v1/save_image", files={"file": (name, data)})
            assert (told.status_code, told.json()) == (200, None)
        assert (
            await http.post("/save_image", data={"filename": "/etc/c.png"}, files={"image": b"4"})
        ).status_code == 200
    kept = {path.name: path.read_bytes() for path in folder.iterdir()}
    assert kept == {"a.png": b"1", "a-1.png": b"2", "b.png": b"3", "c.png": b"4"}
    assert not (tmp_path / "a.png").exists()


async def test_what_cannot_be_saved_is_refused_with_its_reason_and_leaves_nothing(serve: Serve, tmp_path: Path) -> None:
    folder = tmp_path / "saved"
    async with serve(save_folder=folder) as (scheduler, http):

        async def refusals() -> list[int]:
            there = await http.post("/api/v1/save_image", files={"file": ("a.png", b"1")})
            ours = await http.post("/save_image", data={"filename": "a.png"}, files={"image": b"1"})
            assert (str(folder) in there.text, str(folder) in ours.text) == (True, True)
            return [there.status_code, ours.status_code]

        config = scheduler.config
        full = config.storage.blobs.model_copy(update={"floor_percent": 99.9999})
        storage = config.storage.model_copy(update={"blobs": full})
        scheduler.state.config = config.model_copy(update={"storage": storage})
        assert await refusals() == [507, 507]
        assert not folder.exists()
        scheduler.state.config = config
        folder.write_bytes(b"no folder")
        assert await refusals() == [503, 503]


async def test_the_web_app_is_served_as_it_is_beside_the_apis(serve: Serve, tmp_path: Path) -> None:
    app = tmp_path / "app"
    (app / "assets").mkdir(parents=True)
    (app / "index.html").write_text("<html>hello</html>")
    (app / "assets" / "a.js").write_text("1")
    async with serve(web_app=str(app)) as (_, http):
        assert (await http.get("/")).text == "<html>hello</html>"
        assert "javascript" in (await http.get("/assets/a.js")).headers["content-type"]
        assert (await http.get("/healthz")).status_code == 200
        assert (await http.get("/api/v1/samplers")).status_code == 200
        assert (await http.get("/../data")).status_code == 404


# ---------------------------------------------------------------- masks and texts


async def test_masks_are_adjusted_as_opencv_does_it(http: httpx.AsyncClient) -> None:
    rng = np.random.default_rng(3)
    grey = np.where(rng.random((40, 60)) > 0.9, 200, 30).astype(np.uint8)
    holes = (grey >= 127).astype(np.uint8)
    kernel = cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (7, 7))
    by_opencv = {"expand": cv2.dilate(holes, kernel), "shrink": cv2.erode(holes, kernel), "reverse": 1 - holes}
    for operation, expected in by_opencv.items():
        asked = {"mask": b64(png(grey)), "operate": operation, "kernel_size": 3}
        answer = await http.post("/api/v1/adjust_mask", json=asked)
        found = np.asarray(Image.open(io.BytesIO(answer.content)))
        np.testing.assert_array_equal(found, np.where(expected[..., None] > 0, (255, 203, 0, 186), 0), operation)


@pytest.mark.parametrize("radius", [0, 1, 2, 5, 12, 50])
def test_an_ellipse_is_opencvs_for_every_radius(radius: int) -> None:
    holes = np.zeros((61, 83), bool)
    holes[[3, 30, 58], [80, 41, 2]] = True
    kernel = cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (2 * radius + 1, 2 * radius + 1))
    np.testing.assert_array_equal(grown(holes, radius), cv2.dilate(holes.astype(np.uint8), kernel) > 0)


def chunk(kind: bytes, body: bytes) -> bytes:
    return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))


TEXT = "a cat\nNegative prompt: dogs\nSteps: 20"


TEXTS = (
    chunk(b"tEXt", b"parameters\0" + TEXT.encode()),
    chunk(b"zTXt", b"parameters\0\0" + zlib.compress(TEXT.encode())),
    chunk(b"iTXt", b"parameters\0\0\0\0\0" + TEXT.encode()),
    chunk(b"iTXt", b"parameters\0\1\0\0\0" + zlib.compress(TEXT.encode())),
)


async def test_prompts_are_read_out_of_a_png(http: httpx.AsyncClient) -> None:
    head = PICTURE.index(b"IDAT") - 4
    for text in TEXTS:
        file = PICTURE[:head] + text + PICTURE[head:]
        assert Image.open(io.BytesIO(file)).text["parameters"] == TEXT  # type: ignore[attr-defined]
        answer = await http.post("/api/v1/gen-info", files={"file": ("a.png", file)})
        assert answer.json() == {"prompt": "a cat", "negative_prompt": "dogs"}, text


@pytest.mark.parametrize("data", [b"", b"\xff\xd8\xff", PICTURE, PICTURE[:30], chunk(b"tEXt", b"parameters")])
def test_what_has_no_prompt_has_none(data: bytes) -> None:
    assert parameters_of(data) == ""


# ---------------------------------------------------------------- words


def test_fields_that_are_missing_take_the_apps_defaults_for_the_model() -> None:
    lama = config_for("lama", "lama", fields_of({}, "lama"), ())
    assert lama["hd_strategy_crop_margin"] == 196
    given = fields_of({"cv2Flag": "INPAINT_TELEA", "cv2Radius": "3", "zitsWireframe": "false"}, "cv2")
    assert given["zits_wireframe"] is False
    config = config_for("cv2", "opencv", given, ())
    assert (config["model"], config["radius"], config["hd_strategy"]) == ("cv2-telea", 3, "resize")
    for wrong in ({"cv2Radius": "wide"}, {"cv2Flag": "x"}):
        with pytest.raises(BadField):
            fields_of(wrong, "cv2")


def test_a_picture_is_known_by_its_first_bytes() -> None:
    for name in ("jpeg", "png", "webp", "bmp", "tiff", "gif"):
        out = io.BytesIO()
        Image.new("RGB", (3, 3)).save(out, format=name.upper())
        assert format_of(out.getvalue()) == name
    assert format_of(b"?") == "jpeg"
