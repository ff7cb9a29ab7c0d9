"""Pictures through HTTP on a real cluster: the pixels are those that the parent program makes of them."""

from __future__ import annotations

import base64
import io
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import cv2
import httpx
import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image, JpegImagePlugin

from lcq.embedded import PrivateServer
from lcq.outlook import _FLEET_AGE_S
from tests.cluster import free_port, running_cluster
from tests.conftest import wait_until_sync
from worker.engines.crop import Network, fill
from worker.engines.framing import Framing


@pytest.fixture(scope="module")
def address(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """A scheduler with one agent, for all tests here."""
    port = free_port()
    around = {
        "LCQ_HTTP__ENABLED": "1", "LCQ_SCHEDULER_PORT": str(port), "LCQ_DISCOVERY__ENABLED": "0",
        "LCQ_STORAGE__BLOBS__FLOOR_MIB": "0", "LCQ_AGENT__DISK__FLOOR_MIB": "0",
        "LCQ_AGENT__MODELS": '["cv2-telea", "cv2-ns", "drill-sleep"]',
        "LCQ_HTTP__INTERACTIVE_S": "3600",
    }  # fmt: skip
    with (
        PrivateServer(tmp_path_factory.mktemp("redis")) as server,
        running_cluster(server.url, tmp_path_factory.mktemp("cluster"), **around) as cluster,
    ):
        cluster.start_scheduler()
        cluster.start_agent(slots=2)
        yield f"http://127.0.0.1:{port}"


@pytest.fixture
def http(address: str) -> Iterator[httpx.Client]:
    with httpx.Client(base_url=address, timeout=120) as client:
        yield client


def a_picture(width: int, height: int, seed: int = 1) -> NDArray[np.uint8]:
    rng = np.random.default_rng(seed)
    small = rng.integers(0, 256, (height // 8 + 1, width // 8 + 1, 3), dtype=np.uint8)
    return cv2.resize(small, (width, height), interpolation=cv2.INTER_CUBIC)


def strokes(width: int, height: int) -> NDArray[np.uint8]:
    """As the web app sends them: of one colour on nothing, with soft edges."""
    mask = np.zeros((height, width, 4), np.uint8)
    for box in ((slice(10, 30), slice(20, 60)), (slice(height - 40, height - 20), slice(width - 90, width - 30))):
        mask[box] = (255, 204, 0, 187)
        mask[box[0], box[1].start] = (255, 204, 0, 20)
    return mask


def encoded(pixels: NDArray[Any], name: str, **options: Any) -> bytes:
    out = io.BytesIO()
    Image.fromarray(pixels).save(out, format=name, **options)
    return out.getvalue()


def pixels_of(data: bytes) -> NDArray[Any]:
    return np.asarray(Image.open(io.BytesIO(data)))


def inpainted(http: httpx.Client, image: bytes, mask: bytes, **fields: Any) -> httpx.Response:
    body = {"image": base64.b64encode(image).decode(), "mask": base64.b64encode(mask).decode(), **fields}
    answer = http.post("/api/v1/inpaint", json=body)
    assert answer.status_code == 200, answer.text
    return answer


def by_opencv(pixels: NDArray[Any], holes: NDArray[np.bool_], flag: int, radius: int) -> NDArray[Any]:
    filled = cv2.inpaint(np.ascontiguousarray(pixels[..., ::-1]), holes.astype(np.uint8) * 255, radius, flag)[..., ::-1]
    return np.where(holes[..., None], filled, pixels)


def test_small_pictures_come_back_as_opencv_fills_them_whole(http: httpx.Client) -> None:
    picture, mask = a_picture(300, 200), strokes(300, 200)
    holes = mask[..., 3] > 0
    expected = by_opencv(picture, holes, cv2.INPAINT_NS, 4)
    answer = inpainted(http, encoded(picture, "PNG"), encoded(mask, "PNG"))
    assert (answer.headers["content-type"], answer.headers["x-seed"]) == ("image/png", "42")
    np.testing.assert_array_equal(pixels_of(answer.content), expected)
    jpeg = encoded(picture, "JPEG", quality=90, subsampling=0)
    answer = inpainted(http, jpeg, encoded(mask, "PNG"), cv2_flag="INPAINT_TELEA", cv2_radius=5)
    expected = by_opencv(pixels_of(jpeg), holes, cv2.INPAINT_TELEA, 5)
    assert answer.headers["content-type"] == "image/jpeg"
    file = Image.open(io.BytesIO(answer.content))
    assert JpegImagePlugin.get_sampling(file) == 2  # 4:2:0, whatever came in
    again = encoded(expected, "JPEG", quality=100)
    np.testing.assert_array_equal(np.asarray(file), pixels_of(again))


@pytest.mark.parametrize("strategy", ["Crop", "Resize"])
def test_large_ones_are_cut_up_as_the_parent_does(http: httpx.Client, strategy: str) -> None:
    picture, mask = a_picture(1000, 700), strokes(1000, 700)
    holes = mask[..., 3] > 0
    fields = {"hd_strategy": strategy, "hd_strategy_resize_limit": 500}
    answer = inpainted(http, encoded(picture, "PNG"), encoded(mask, "PNG"), **fields)

    def predict(pixels: NDArray[Any], hole: NDArray[np.bool_], tick: Any) -> NDArray[np.float32]:
        whole = cv2.inpaint(pixels[0], hole[0].astype(np.uint8) * 255, 4, cv2.INPAINT_NS)
        return (whole.astype(np.float32) / 255)[None]

    framing = Framing.from_config({"hd_strategy": strategy.lower(), "hd_strategy_resize_limit": 500})
    network = Network(predict, modulus=1, least_side=1)
    expected = fill(picture, holes, network=network, framing=framing, progress=lambda share, stage: None, notes=[])
    np.testing.assert_array_equal(pixels_of(answer.content), expected)


def test_forms_of_pictures_come_back_as_they_do_there(http: httpx.Client) -> None:
    picture, mask = a_picture(120, 90), encoded(strokes(120, 90), "PNG")
    alpha = np.dstack((picture, np.arange(120 * 90, dtype=np.uint8).reshape(90, 120)))
    found = pixels_of(inpainted(http, encoded(alpha, "PNG"), mask).content)
    np.testing.assert_array_equal(found[..., 3], alpha[..., 3])
    grey = inpainted(http, encoded(picture[..., 0], "PNG"), mask)
    assert pixels_of(grey.content).shape == (90, 120, 3)
    cmyk = io.BytesIO()
    Image.fromarray(picture).convert("CMYK").save(cmyk, format="JPEG")
    assert Image.open(io.BytesIO(inpainted(http, cmyk.getvalue(), mask).content)).mode == "RGB"
    for name in ("BMP", "GIF", "WEBP", "TIFF"):
        answer = inpainted(http, encoded(picture, name), mask)
        assert answer.headers["content-type"] == f"image/{name.lower()}"
        assert Image.open(io.BytesIO(answer.content)).format == name
    turned = Image.Exif()
    turned[274] = 6
    upright = inpainted(http, encoded(picture, "JPEG", exif=turned.tobytes()), encoded(strokes(90, 120), "PNG"))
    file = Image.open(io.BytesIO(upright.content))
    assert (file.size, file.getexif().get(274)) == ((90, 120), None)


def test_a_mask_of_another_size_is_refused_with_the_parents_words(http: httpx.Client) -> None:
    image, mask = encoded(a_picture(30, 20), "PNG"), encoded(np.zeros((10, 15), np.uint8), "PNG")
    body = {"image": base64.b64encode(image).decode(), "mask": base64.b64encode(mask).decode()}
    answer = http.post("/api/v1/inpaint", json=body)
    assert answer.status_code == 400
    assert answer.json()["detail"] == "Image size((20, 30)) and mask size((10, 15)) not match."
    answer = http.post("/inpaint", files={"image": image, "mask": mask})
    assert (answer.status_code, answer.text) == (400, "Mask shape(10, 15) not queal to Image shape(20, 30)")
    body["image"] = base64.b64encode(b"no picture").decode()
    answer = http.post("/api/v1/inpaint", json=body)
    assert (answer.status_code, set(answer.json())) == (500, {"error", "detail", "body", "errors"})


def test_lama_cleaners_form_needs_no_more_than_two_files(http: httpx.Client) -> None:
    picture, mask = a_picture(200, 150), strokes(200, 150)
    answer = http.post("/inpaint", files={"image": encoded(picture, "PNG"), "mask": encoded(mask, "PNG")})
    assert answer.status_code == 200, answer.text
    expected = by_opencv(picture, mask[..., 3] > 0, cv2.INPAINT_NS, 5)
    np.testing.assert_array_equal(pixels_of(answer.content), expected)
    assert int(answer.headers["x-seed"]) > 0


def test_several_at_a_time_each_get_their_own_picture_back(http: httpx.Client) -> None:
    mask = strokes(100, 80)
    pictures = [a_picture(100, 80, seed=seed) for seed in range(8)]
    with ThreadPoolExecutor(4) as pool:
        answers = pool.map(lambda one: inpainted(http, encoded(one, "PNG"), encoded(mask, "PNG")), pictures)
        for picture, answer in zip(pictures, answers, strict=True):
            expected = by_opencv(picture, mask[..., 3] > 0, cv2.INPAINT_NS, 4)
            np.testing.assert_array_equal(pixels_of(answer.content), expected)


def test_a_person_does_not_wait_behind_long_tasks(http: httpx.Client) -> None:
    image, mask = encoded(a_picture(100, 80), "PNG"), encoded(strokes(100, 80), "PNG")
    inpainted(http, image, mask)
    time.sleep(2 * _FLEET_AGE_S)  # from now on every claim knows that somebody is there
    task = {"image_path": "/drill.png", "config": {"model": "drill-sleep", "seconds": 600}}
    long = [one["id"] for one in http.post("/v1/tasks", json={"tasks": [task] * 3}).json()["accepted"]]

    def states() -> list[str]:
        return sorted(http.get(f"/v1/tasks/{one}").json()["status"] for one in long)

    try:
        wait_until_sync(lambda: "processing" in states(), what="a long task to run")
        inpainted(http, image, mask)
        assert states() == ["processing", "queued", "queued"]
        codes = {http.get(f"/v1/tasks/{one}/why").json()["why"]["code"] for one in long}
        assert {"running", "kept_slots"} <= codes
    finally:
        for one in long:
            http.post(f"/v1/tasks/{one}/cancel")
