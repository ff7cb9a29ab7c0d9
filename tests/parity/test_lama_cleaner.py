"""LCQ's HTTP beside the real Lama Cleaner 1.2.5: the same forms to both, the same answers and pixels."""

from __future__ import annotations

import io
import os
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest
from PIL import Image

from tests.cluster import free_port
from tests.conftest import wait_until_sync
from tests.integration.test_http_pictures import a_picture, address, encoded, pixels_of, strokes

__all__ = ["address"]

VENV = Path(__file__).parents[2] / ".venv-parity-lama"

pytestmark = [
    pytest.mark.parity,
    pytest.mark.skipif(not (VENV / ".lama-cleaner").exists(), reason="there is no Lama Cleaner here: run make parity"),
]

Both = tuple[httpx.Client, httpx.Client]

# What its app sends for cv2; it requires every one of them.
FORM = {
    "ldmSteps": "25", "ldmSampler": "plms", "zitsWireframe": "true", "hdStrategy": "Resize",
    "hdStrategyCropMargin": "128", "hdStrategyCropTrigerSize": "512", "hdStrategyResizeLimit": "1080",
    "prompt": "", "negativePrompt": "", "useCroper": "false", "croperX": "0", "croperY": "0", "croperHeight": "512",
    "croperWidth": "512", "sdScale": "1", "sdMaskBlur": "5", "sdStrength": "0.75", "sdSteps": "50",
    "sdGuidanceScale": "7.5", "sdSampler": "uni_pc", "sdSeed": "-1", "sdMatchHistograms": "false",
    "cv2Flag": "INPAINT_NS", "cv2Radius": "5", "paintByExampleSteps": "50", "paintByExampleGuidanceScale": "7.5",
    "paintByExampleMaskBlur": "5", "paintByExampleSeed": "-1", "paintByExampleMatchHistograms": "false",
    "p2pSteps": "50", "p2pImageGuidanceScale": "1.5", "p2pGuidanceScale": "7.5",
    "controlnet_conditioning_scale": "0.4", "controlnet_method": "control_v11p_sd15_canny",
}  # fmt: skip


@pytest.fixture(scope="module")
def both(address: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Both]:
    """Clients of the real one and of LCQ."""
    folder, port = tmp_path_factory.mktemp("lama-cleaner"), free_port()
    around = {name: value for name, value in os.environ.items() if name not in ("PYTHONPATH", "PYTHONHOME")}
    around |= {"HF_HUB_OFFLINE": "1", "XDG_CACHE_HOME": str(folder)}
    command = [str(VENV / "bin" / "lama-cleaner"), "--model", "cv2", "--device", "cpu", "--port", str(port),
               "--model-dir", str(folder)]  # fmt: skip
    with (folder / "log").open("wb") as log:
        process = subprocess.Popen(command, env=around, stdin=subprocess.DEVNULL, stdout=log, stderr=log)
    try:
        with (
            httpx.Client(base_url=f"http://127.0.0.1:{port}", timeout=120) as real,
            httpx.Client(base_url=address, timeout=120) as ours,
        ):
            wait_until_sync(lambda: _answers(real) or process.poll() is not None, timeout=300, what="Lama Cleaner")
            assert process.poll() is None, (folder / "log").read_text(errors="replace")[-2000:]
            yield real, ours
    finally:
        process.terminate()
        process.wait(30)


def _answers(client: httpx.Client) -> bool:
    try:
        return client.get("/model").status_code == 200
    except httpx.TransportError:
        return False


def asked(client: httpx.Client, image: bytes, mask: bytes, **fields: str) -> httpx.Response:
    return client.post("/inpaint", data=FORM | fields, files={"image": image, "mask": mask})


@pytest.mark.parametrize("name", ["PNG", "JPEG", "WEBP", "BMP", "TIFF"])
@pytest.mark.parametrize(
    "fields",
    [
        {},
        {"cv2Flag": "INPAINT_TELEA", "cv2Radius": "7", "hdStrategy": "Original", "sdSeed": "7"},
        {"hdStrategy": "Crop", "hdStrategyCropTrigerSize": "200", "hdStrategyCropMargin": "20"},
        {"hdStrategyResizeLimit": "300"},
    ],
    ids=["app", "telea", "crop", "resize"],
)
def test_an_answer_is_theirs_pixel_by_pixel(both: Both, name: str, fields: dict[str, str]) -> None:
    image, mask = encoded(a_picture(900, 600), name), encoded(strokes(900, 600), "PNG")
    theirs, mine = (asked(client, image, mask, **fields) for client in both)
    assert theirs.status_code == mine.status_code == 200, mine.text
    assert mine.headers["content-type"] == theirs.headers["content-type"]
    if "sdSeed" in fields:
        assert mine.headers["x-seed"] == theirs.headers["x-seed"] == "7"
    assert Image.open(io.BytesIO(mine.content)).format == Image.open(io.BytesIO(theirs.content)).format
    np.testing.assert_array_equal(pixels_of(mine.content), pixels_of(theirs.content))


def test_forms_of_pictures_are_read_as_theirs_are(both: Both) -> None:
    picture, mask = a_picture(120, 90), encoded(strokes(120, 90), "PNG")
    alpha = np.dstack((picture, np.arange(120 * 90, dtype=np.uint8).reshape(90, 120)))
    turned = Image.Exif()
    turned[274] = 3
    for image in (
        encoded(alpha, "PNG"),
        encoded(picture[..., 0], "PNG"),
        encoded(picture[..., 0], "JPEG"),
        encoded(picture, "JPEG", exif=turned.tobytes()),
    ):
        theirs, mine = (asked(client, image, mask) for client in both)
        np.testing.assert_array_equal(pixels_of(mine.content), pixels_of(theirs.content))


def test_what_is_left_out_is_what_its_app_sends(both: Both) -> None:
    real, ours = both
    image, mask = encoded(a_picture(1200, 700), "PNG"), encoded(strokes(1200, 700), "PNG")
    mine = ours.post("/inpaint", files={"image": image, "mask": mask})
    np.testing.assert_array_equal(pixels_of(mine.content), pixels_of(asked(real, image, mask).content))


def _said(answer: httpx.Response) -> tuple[int, str]:
    return answer.status_code, answer.text


def test_short_calls_are_answered_in_its_words(both: Both) -> None:
    image, mask = encoded(a_picture(30, 20), "PNG"), encoded(np.zeros((10, 15), np.uint8), "PNG")

    def same(method: str, path: str, **sent: Any) -> None:
        theirs, mine = (client.request(method, path, **sent) for client in both)
        assert _said(mine) == _said(theirs), path

    for path in ("/model", "/model_downloaded/cv2", "/is_desktop", "/inputimage"):
        same("GET", path)
    same("POST", "/model", data={"name": "cv2"})
    same("POST", "/inpaint", data=FORM, files={"image": image, "mask": mask})
    same("POST", "/run_plugin", data={"name": "nobody"}, files={"image": image})
    theirs, mine = (client.get("/server_config").json() for client in both)
    assert mine == theirs
    theirs, mine = (client.post("/model", data={"name": "nobody"}) for client in both)
    assert mine.status_code == theirs.status_code == 403
    assert mine.text.startswith(theirs.text)
    theirs, mine = (client.post("/save_image", data={"filename": "a.png"}, files={"image": image}) for client in both)
    assert mine.status_code == theirs.status_code == 500


def test_its_polling_is_answered(both: Both) -> None:
    for client in both:
        opened = client.get("/socket.io/", params={"EIO": "4", "transport": "polling"})
        assert (opened.status_code, opened.text[:7]) == (200, '0{"sid"')
