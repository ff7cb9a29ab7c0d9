"""LCQ's HTTP beside the real IOPaint 1.6.0: the same requests to both, the same statuses, headers and pixels."""

from __future__ import annotations

import base64
import io
from collections.abc import Iterator
from typing import Any

import httpx
import numpy as np
import pytest
from PIL import Image, PngImagePlugin

from tests.conftest import wait_until_sync
from tests.integration.test_http_pictures import a_picture, address, encoded, pixels_of, strokes
from tests.parity.test_iopaint import VENV
from worker.engines.iopaint_server import IopaintServer

__all__ = ["address"]

pytestmark = [
    pytest.mark.parity,
    pytest.mark.skipif(not (VENV / ".iopaint").exists(), reason="there is no IOPaint here: run make parity"),
]


def _bounds_of(schema: dict[str, Any]) -> dict[str, Any]:
    return {name: schema[name] for name in ("minimum", "maximum", "exclusiveMinimum", "exclusiveMaximum")
            if name in schema}  # fmt: skip


@pytest.fixture(scope="module")
def both(address: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[httpx.Client, httpx.Client]]:
    """Clients of the real one and of LCQ."""
    folder = tmp_path_factory.mktemp("models")
    server = IopaintServer((str(VENV / "bin" / "iopaint"),), "cv2", device="cpu", more=["--model-dir", str(folder)])
    try:
        wait_until_sync(lambda: server.api.is_up() or not server.lives, timeout=300, what="IOPaint")
        assert server.lives, server.last_words()
        with (
            httpx.Client(base_url=server.api.url, timeout=120) as real,
            httpx.Client(base_url=address, timeout=120) as ours,
        ):
            yield real, ours
    finally:
        server.end()


def asked(client: httpx.Client, image: bytes, mask: bytes, **fields: Any) -> httpx.Response:
    body = {"image": base64.b64encode(image).decode(), "mask": base64.b64encode(mask).decode(), **fields}
    return client.post("/api/v1/inpaint", json=body)


@pytest.mark.parametrize("name", ["PNG", "JPEG", "WEBP", "BMP", "TIFF"])
@pytest.mark.parametrize(
    "fields",
    [
        {},
        {"cv2_flag": "INPAINT_TELEA", "cv2_radius": 7, "hd_strategy": "Original"},
        {"hd_strategy": "Crop", "hd_strategy_crop_trigger_size": 200, "hd_strategy_crop_margin": 20},
        {"hd_strategy": "Resize", "hd_strategy_resize_limit": 300},
        {"hd_strategy": "Nobody's"},
    ],
    ids=["defaults", "telea", "crop", "resize", "unknown"],
)
def test_an_answer_is_theirs_pixel_by_pixel(
    both: tuple[httpx.Client, httpx.Client], name: str, fields: dict[str, Any]
) -> None:
    image, mask = encoded(a_picture(900, 600), name), encoded(strokes(900, 600), "PNG")
    theirs, mine = (asked(client, image, mask, **fields) for client in both)
    assert theirs.status_code == mine.status_code == 200, mine.text
    for header in ("content-type", "x-seed"):
        assert mine.headers[header] == theirs.headers[header]
    assert Image.open(io.BytesIO(mine.content)).format == Image.open(io.BytesIO(theirs.content)).format
    np.testing.assert_array_equal(pixels_of(mine.content), pixels_of(theirs.content))


def test_forms_of_pictures_are_read_as_theirs_are(both: tuple[httpx.Client, httpx.Client]) -> None:
    picture, mask = a_picture(120, 90), encoded(strokes(120, 90), "PNG")
    alpha = np.dstack((picture, np.arange(120 * 90, dtype=np.uint8).reshape(90, 120)))
    turned = Image.Exif()
    turned[274] = 3
    deep = io.BytesIO()
    Image.fromarray(np.arange(120 * 90, dtype=np.uint16).reshape(90, 120)).save(deep, format="PNG")
    for image in (
        encoded(alpha, "PNG"),
        encoded(picture[..., 0], "PNG"),
        encoded(picture[..., 0], "JPEG"),
        encoded(picture, "JPEG", exif=turned.tobytes()),
        deep.getvalue(),
    ):
        theirs, mine = (asked(client, image, mask) for client in both)
        np.testing.assert_array_equal(pixels_of(mine.content), pixels_of(theirs.content))


def test_refusals_have_their_statuses_and_their_shape(both: tuple[httpx.Client, httpx.Client]) -> None:
    image, mask = encoded(a_picture(30, 20), "PNG"), encoded(np.zeros((10, 15), np.uint8), "PNG")
    theirs, mine = (asked(client, image, mask) for client in both)
    assert (mine.status_code, mine.json()) == (theirs.status_code, theirs.json())
    for fields in ({"cv2_flag": "x"}, {"cv2_radius": "wide"}, {"sd_scale": 0}, {"fitting_degree": 2}):
        theirs, mine = (asked(client, image, image, **fields) for client in both)
        assert mine.status_code == theirs.status_code == 422
        assert [one["loc"] for one in mine.json()["detail"]] == [one["loc"] for one in theirs.json()["detail"]]
    theirs, mine = (asked(client, b"no picture", mask) for client in both)
    assert mine.status_code == theirs.status_code == 500
    assert set(mine.json()) == set(theirs.json())


def test_what_the_app_reads_has_their_keys(both: tuple[httpx.Client, httpx.Client]) -> None:
    real, ours = both
    theirs, mine = (client.get("/api/v1/server-config").json() for client in both)
    assert set(mine) == set(theirs)
    assert mine["samplers"] == theirs["samplers"]
    assert set(ours.get("/api/v1/model").json()) == set(real.get("/api/v1/model").json())
    for path in ("/api/v1/inputimage", "/api/v1/samplers"):
        assert (ours.get(path).status_code, ours.get(path).json()) == (
            real.get(path).status_code,
            real.get(path).json(),
        )
    schemas = [client.get("/openapi.json").json()["components"]["schemas"] for client in both]
    assert set(schemas[0]["InpaintRequest"]["properties"]) == set(schemas[1]["InpaintRequest"]["properties"])


def test_every_path_and_every_field_of_theirs_is_there_with_its_default(
    both: tuple[httpx.Client, httpx.Client],
) -> None:
    theirs, mine = (client.get("/openapi.json").json() for client in both)
    for path, operations in theirs["paths"].items():
        assert set(operations) <= set(mine["paths"].get(path, ())), path
    wanted, found = (one["components"]["schemas"]["InpaintRequest"]["properties"] for one in (theirs, mine))
    assert {name: of.get("default") for name, of in found.items()} == {
        name: of.get("default") for name, of in wanted.items()
    }
    assert {name: _bounds_of(of) for name, of in found.items()} == {name: _bounds_of(of) for name, of in wanted.items()}


@pytest.mark.parametrize("operation", ["expand", "shrink", "reverse"])
def test_masks_are_adjusted_as_theirs_are(both: tuple[httpx.Client, httpx.Client], operation: str) -> None:
    mask = base64.b64encode(encoded(strokes(90, 70), "PNG")).decode()
    body = {"mask": mask, "operate": operation, "kernel_size": 4}
    theirs, mine = (client.post("/api/v1/adjust_mask", json=body) for client in both)
    np.testing.assert_array_equal(pixels_of(mine.content), pixels_of(theirs.content))


def test_short_calls_are_answered_as_there(both: tuple[httpx.Client, httpx.Client]) -> None:
    image = encoded(a_picture(30, 20), "PNG")
    prompts = PngImagePlugin.PngInfo()
    prompts.add_text("parameters", "a cat\nNegative prompt: dogs\nSteps: 20")
    prompted = encoded(a_picture(30, 20), "PNG", pnginfo=prompts)
    plugin = {"name": "nobody", "image": base64.b64encode(image).decode()}

    def same(method: str, path: str, **sent: Any) -> None:
        theirs, mine = (client.request(method, f"/api/v1/{path}", **sent) for client in both)
        assert (mine.status_code, mine.json()) == (theirs.status_code, theirs.json()), path

    for file in (prompted, image, encoded(a_picture(30, 20), "JPEG")):
        same("POST", "gen-info", files={"file": ("a.png", file)})
    same("POST", "run_plugin_gen_image", json=plugin)
    same("POST", "run_plugin_gen_mask", json=plugin)
    same("POST", "switch_plugin_model", json={"plugin_name": "nobody", "model_name": "x"})
    theirs, mine = (client.post("/api/v1/model", json={"name": "cv2"}).json() for client in both)
    assert {**mine, "path": ""} == {**theirs, "path": ""}
    for client in both:
        opened = client.get("/socket.io/", params={"EIO": "4", "transport": "polling"})
        assert (opened.status_code, opened.text[:7]) == (200, '0{"sid"')
    theirs, mine = (client.post("/api/v1/save_image", files={"file": ("a.png", image)}) for client in both)
    assert (theirs.status_code, mine.status_code) == (500, 400), "there it is meant to be 400, and is not"


def test_an_unknown_model_is_refused_as_there_and_nothing_is_broken_by_it(
    both: tuple[httpx.Client, httpx.Client],
) -> None:
    real, ours = both
    theirs, mine = (client.post("/api/v1/model", json={"name": "nobody"}) for client in both)
    assert mine.status_code == theirs.status_code == 500
    assert (mine.json()["error"], mine.json()["errors"]) == (theirs.json()["error"], theirs.json()["errors"])
    assert (real.get("/api/v1/model").status_code, ours.get("/api/v1/model").status_code) == (500, 200)
    assert real.post("/api/v1/model", json={"name": "cv2"}).status_code == 200  # and theirs is well again
