"""LCQ beside the real IOPaint 1.6.0 in .venv-parity: its engine, its stand-in, its own crops."""

from __future__ import annotations

import base64
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import cv2
import httpx
import numpy as np
import pytest
from numpy.typing import NDArray

from lcq.models import ErrorClass
from tests.conftest import wait_until_sync
from tests.iopaint_neighbours import a_picture, an_engine, done, standin, told_nobody, work_on
from worker.engines.base import EngineError, Picture
from worker.engines.crop import Network, Tick, fill
from worker.engines.framing import Framing
from worker.engines.iopaint import IopaintEngine
from worker.engines.iopaint_request import FIELDS, fields_of, filled, request_body
from worker.engines.iopaint_server import IopaintServer

VENV = Path(__file__).parents[2] / ".venv-parity"
MODELS = {"cv2": "cv2", "nothing": "nobody/nothing"}

pytestmark = [
    pytest.mark.parity,
    pytest.mark.skipif(not (VENV / ".iopaint").exists(), reason="there is no IOPaint here: run make parity"),
]


@pytest.fixture(autouse=True, scope="module")
def _no_downloads() -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("HF_HUB_OFFLINE", "1")
        yield


def _started(command: tuple[str, ...], folder: Path) -> IopaintServer:
    server = IopaintServer(command, "cv2", device="cpu", more=["--model-dir", str(folder)])
    wait_until_sync(lambda: server.api.is_up() or not server.lives, timeout=300, what="IOPaint")
    assert server.lives, server.last_words()
    return server


@pytest.fixture(scope="module")
def real(tmp_path_factory: pytest.TempPathFactory) -> Iterator[IopaintServer]:
    server = _started((str(VENV / "bin" / "iopaint"),), tmp_path_factory.mktemp("models"))
    yield server
    server.end()


@pytest.fixture(scope="module")
def stood_in(tmp_path_factory: pytest.TempPathFactory) -> Iterator[IopaintServer]:
    server = _started(standin("--models", "cv2"), tmp_path_factory.mktemp("models"))
    yield server
    server.end()


# ---------------------------------------------------------------- the engine


def test_the_engine_starts_uses_switches_and_ends_the_real_one(tmp_path: Path) -> None:
    with an_engine(venv=VENV, models=MODELS, model_dir=tmp_path, start_s=300) as engine:
        picture = a_picture((90, 120, 3))
        result = done(engine, work_on(picture, "cv2", cv2_flag="INPAINT_TELEA", cv2_radius=6))
        np.testing.assert_array_equal(result, _by_opencv(picture, cv2.INPAINT_TELEA, 6))
        assert engine.held_mib() > 100  # torch alone takes more
        with pytest.raises(EngineError) as failure:
            done(engine, work_on(picture, "nothing"))
        assert (failure.value.code, failure.value.error_class) == ("iopaint_not_started", ErrorClass.TRANSIENT)
        assert "it ended with exit code 1; its last words:" in str(failure.value)
        done(engine, work_on(picture, "cv2"))
        engine.unload("cv2")
        assert engine.held_mib() == 0


@pytest.mark.parametrize("shape", [(50, 70, 3), (50, 70), (1, 1, 3), (1, 200, 3), (300, 7, 3), (900, 1000, 3)])
@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
def test_pictures_of_all_forms_come_back_from_the_real_one(
    elsewhere: IopaintEngine, shape: tuple[int, ...], dtype: Any
) -> None:
    picture = a_picture(shape, dtype=dtype)
    if picture.mask.all():
        picture.mask[:] = False
    result = done(elsewhere, work_on(picture, "cv2"))
    assert (result.shape, result.dtype) == (shape, dtype)
    np.testing.assert_array_equal(result[~picture.mask], picture.pixels[~picture.mask])


@pytest.mark.parametrize(
    "config",
    [
        {"hd_strategy": "resize", "hd_strategy_resize_limit": 1},
        {"hd_strategy": "crop", "hd_strategy_crop_trigger_size": 0, "hd_strategy_crop_margin": 0},
        {"ldm_steps": 1, "ldm_sampler": "ddim", "zits_wireframe": False, "sd_scale": 0.5, "sd_mask_blur": 0},
        {"prompt": "sky", "negative_prompt": "", "use_croper": False, "croper_x": -5, "croper_height": 9},
        {"use_extender": False, "extender_x": 1, "extender_width": 3, "sd_outpainting_softness": 1},
        {"sd_strength": 0, "sd_steps": 1, "sd_guidance_scale": 1, "sd_sampler": "LCM", "sd_match_histograms": True},
        {"sd_lcm_lora": True, "sd_keep_unmasked_area": False, "p2p_image_guidance_scale": 2, "fitting_degree": 0.1},
        {"enable_controlnet": True, "controlnet_conditioning_scale": 1, "controlnet_method": "x"},
        {"enable_brushnet": True, "brushnet_method": "x", "brushnet_conditioning_scale": 0},
        {"enable_powerpaint_v2": True, "powerpaint_task": "object-remove"},
    ],
)
def test_what_the_engine_lets_through_the_real_one_takes(elsewhere: IopaintEngine, config: dict[str, Any]) -> None:
    done(elsewhere, work_on(a_picture(), "cv2", **config))


def test_the_engine_knows_every_field_and_sampler_of_the_real_one(real: IopaintServer) -> None:
    with httpx.Client(base_url=real.api.url) as client:
        schema = client.get("/openapi.json").json()["components"]["schemas"]["InpaintRequest"]
        samplers = client.get("/api/v1/samplers").json()
    assert set(FIELDS) == set(schema["properties"]) - {"image", "mask"}
    assert all(fields_of({"sd_sampler": sampler}) for sampler in samplers)


@pytest.fixture
def elsewhere(real: IopaintServer) -> Iterator[IopaintEngine]:
    with an_engine(url=real.api.url, models=MODELS) as engine:
        yield engine


def _by_opencv(picture: Picture, flag: int, radius: int) -> NDArray[Any]:
    bgr = np.ascontiguousarray(picture.pixels[..., ::-1])
    return cv2.inpaint(bgr, picture.mask.astype(np.uint8), radius, flag)[..., ::-1]


# ---------------------------------------------------------------- the stand-in


def _calls() -> list[tuple[str, str, Any]]:
    picture = a_picture((40, 60, 3))
    grey = a_picture((40, 60))
    smaller = json.loads(request_body(a_picture((30, 60, 3)), {}))
    good = json.loads(request_body(picture, {}))
    text = base64.b64encode(b"hello there").decode()

    def inpaint(**changes: Any) -> tuple[str, str, Any]:
        return "POST", "/api/v1/inpaint", {**good, **changes}

    return [
        ("GET", "/api/v1/model", None),
        ("GET", "/api/v1/server-config", None),
        ("GET", "/api/v1/nowhere", None),
        ("POST", "/api/v1/nowhere", {}),
        inpaint(),
        inpaint(cv2_flag="INPAINT_TELEA", cv2_radius=9),
        inpaint(cv2_radius="5"),
        inpaint(nonsense=3),
        inpaint(sd_seed=7),
        inpaint(image=json.loads(request_body(grey, {}))["image"]),
        inpaint(mask=smaller["mask"]),
        inpaint(image=None),
        inpaint(image=text),
        inpaint(image="%%%"),
        inpaint(mask=text),
        inpaint(cv2_flag="NO"),
        inpaint(cv2_radius="four", sd_seed="x"),
        inpaint(cv2_radius=5.5),
        inpaint(cv2_radius=None),
        ("POST", "/api/v1/model", {"name": "cv2"}),
        ("POST", "/api/v1/model", {}),
        ("POST", "/api/v1/model", {"name": "no-such"}),  # from here on it is broken
        ("GET", "/api/v1/model", None),
        ("POST", "/api/v1/model", {"name": "no-such"}),
        ("GET", "/api/v1/server-config", None),
        inpaint(),
        inpaint(mask=smaller["mask"]),
        ("POST", "/api/v1/model", {"name": "cv2"}),  # and well again
        ("GET", "/api/v1/model", None),
        inpaint(),
    ]


def test_the_stand_in_answers_as_the_real_one_does(real: IopaintServer, stood_in: IopaintServer) -> None:
    with httpx.Client(base_url=real.api.url) as one, httpx.Client(base_url=stood_in.api.url) as other:
        for number, (method, path, document) in enumerate(_calls()):
            answers = [client.request(method, path, json=document, timeout=60) for client in (one, other)]
            assert _comparable(answers[1]) == _comparable(answers[0]), f"call {number}: {method} {path}"


def _comparable(answer: httpx.Response) -> Any:
    kind = answer.headers["content-type"]
    if kind == "image/png":
        pixels = cv2.imdecode(np.frombuffer(answer.content, np.uint8), cv2.IMREAD_UNCHANGED)
        return answer.status_code, kind, answer.headers["x-seed"], pixels.shape, pixels.tobytes()
    found = answer.json()
    for problem in found["detail"] if isinstance(found.get("detail"), list) else ():
        problem.pop("url", None)  # names the version of pydantic
    if "modelInfos" in found:  # the rest is of plug-ins, which LCQ does not use
        for key in (
            "removeBGModels",
            "realesrganModels",
            "interactiveSegModels",
        ):
            assert found[key]
            found[key] = "…"
    if str(found.get("errors", "")).startswith("cannot identify image file"):
        found["errors"] = "cannot identify image file"  # names an address
    return answer.status_code, kind, found


# ---------------------------------------------------------------- our crops


def _opencv_as_a_network(pixels: NDArray[Any], holes: NDArray[np.bool_], tick: Tick) -> NDArray[np.float32]:
    filled_by_it = [_by_opencv(Picture(one, mask), cv2.INPAINT_NS, 4) for one, mask in zip(pixels, holes, strict=True)]
    tick(1.0)
    return ((np.stack(filled_by_it) + 0.25) / 255).astype(np.float32)  # so that rounding down gives it back


def _masks(height: int, width: int) -> dict[str, NDArray[np.bool_]]:
    rng = np.random.default_rng(7)
    down, across = np.mgrid[:height, :width]
    masks = {
        "one": (abs(down - height // 2) < 9) & (abs(across - width // 3) < 14),
        "corners": (down < 6) & (across < 9) | (down > height - 8) & (across > width - 5),
        "letters": (abs(down - height // 2) < 5) & (across % 17 < 6),
        "ring": (lambda r: (r > 15) & (r < 20))(np.hypot(down - height / 2, across - width / 2)),
        "specks": np.zeros((height, width), bool),
    }
    masks["specks"][rng.integers(0, height, 12), rng.integers(0, width, 12)] = True
    return masks


@pytest.mark.parametrize("size", [(120, 160), (97, 203), (300, 211)])
@pytest.mark.parametrize("mask", ["one", "corners", "letters", "ring", "specks"])
@pytest.mark.parametrize(
    "config",
    [
        {"hd_strategy": "original"},
        {"hd_strategy": "crop", "hd_strategy_crop_trigger_size": 100, "hd_strategy_crop_margin": 16},
        {"hd_strategy": "crop", "hd_strategy_crop_trigger_size": 100, "hd_strategy_crop_margin": 77},
        {"hd_strategy": "crop", "hd_strategy_crop_trigger_size": 999},
        {"hd_strategy": "resize", "hd_strategy_resize_limit": 90},
        {"hd_strategy": "resize", "hd_strategy_resize_limit": 999},
    ],
    ids=lambda config: "-".join(str(value) for value in config.values()),
)
def test_the_parents_strategies_give_what_the_real_one_gives(
    real: IopaintServer, size: tuple[int, int], mask: str, config: dict[str, Any]
) -> None:
    noise = a_picture((*size, 3)).pixels
    picture = Picture(cv2.GaussianBlur(noise, (0, 0), 2), _masks(*size)[mask])
    ours = fill(
        picture.pixels,
        picture.mask,
        network=Network(_opencv_as_a_network, modulus=1, least_side=1),
        framing=Framing.from_config(config),
        progress=told_nobody,
        notes=[],
    )
    theirs = filled(picture, real.api.inpaint(request_body(picture, fields_of(config))).image)
    np.testing.assert_array_equal(ours, theirs)
