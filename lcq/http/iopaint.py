"""IOPaint's HTTP API (/api/v1), served by the fleet: for its web app, and for every script that speaks it."""

from __future__ import annotations

import asyncio
import base64
import binascii
import contextlib
import errno
import io
import os
import random
import re
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any, Literal

from fastapi import APIRouter, Request, Response, UploadFile
from pydantic import BaseModel, Field, create_model
from starlette.exceptions import HTTPException

from lcq.config import DiskConfig
from lcq.errors import LcqError, StorageFull, StorageUnreachable
from lcq.http.line import Line
from lcq.http.masks import Operation, adjusted, overlay
from lcq.http.parents import config_for, format_of, model_info, models_of, plugins_of, written_as
from lcq.http.problems import as_json, status_of
from lcq.http.sessions import Sessions
from lcq.http.studio import NotDone, Studio, Wish
from lcq.http.texts import parameters_of
from lcq.models import TaskType
from lcq.storage.room import lack_of_room

_SAMPLERS = (
    "DPM++ 2M", "DPM++ 2M Karras", "DPM++ 2M SDE", "DPM++ 2M SDE Karras", "DPM++ SDE", "DPM++ SDE Karras",
    "DPM2", "DPM2 Karras", "DPM2 a", "DPM2 a Karras", "Euler", "Euler a", "Heun", "LMS", "LMS Karras", "DDIM", "PNDM",
    "UniPC", "LCM",
)  # fmt: skip
_QUALITY = 100
_MOST_SEED = 99_999_999


class Raised(BaseModel):
    """What IOPaint answers where something is raised; its app shows ``errors``."""

    error: str
    detail: str
    body: str
    errors: str


_RAISED: dict[int | str, dict[str, Any]] = {
    status: {"model": Raised, "description": what}
    for status, what in {
        400: "the sizes of picture and mask differ",
        413: "too large",
        429: "asked too often",
        500: "it could not be done",
        503: "Redis is away, or a queue is full",
        504: "it was not done in time",
    }.items()
}
_IMAGE: dict[int | str, dict[str, Any]] = {200: {"description": "the picture", "content": {"image/*": {}}}}
_BY_PLUGIN = {**_IMAGE, 422: {"description": "no such plugin", "content": {"application/json": {}}}}


class CV2Flag(StrEnum):
    INPAINT_NS = "INPAINT_NS"
    INPAINT_TELEA = "INPAINT_TELEA"


_PASSED: dict[str, Any] = {
    "ldm_steps": (int, 20),
    "ldm_sampler": (str, "plms"),
    "zits_wireframe": (bool, True),
    "hd_strategy": (str, "Crop"),
    "hd_strategy_crop_trigger_size": (int, 800),
    "hd_strategy_crop_margin": (int, 128),
    "hd_strategy_resize_limit": (int, 1280),
    "prompt": (str, ""),
    "negative_prompt": (str, ""),
    "use_croper": (bool, False),
    "croper_x": (int, 0),
    "croper_y": (int, 0),
    "croper_height": (int, 512),
    "croper_width": (int, 512),
    "use_extender": (bool, False),
    "extender_x": (int, 0),
    "extender_y": (int, 0),
    "extender_height": (int, 640),
    "extender_width": (int, 640),
    "sd_scale": (Annotated[float, Field(gt=0, le=1)], 1.0),
    "sd_mask_blur": (int, 11),
    "sd_strength": (Annotated[float, Field(le=1)], 1.0),
    "sd_steps": (int, 50),
    "sd_guidance_scale": (float, 7.5),
    "sd_sampler": (str, "UniPC"),
    "sd_match_histograms": (bool, False),
    "sd_outpainting_softness": (float, 20.0),
    "sd_outpainting_space": (float, 20.0),
    "sd_lcm_lora": (bool, False),
    "sd_keep_unmasked_area": (bool, True),
    "cv2_flag": (CV2Flag, CV2Flag.INPAINT_NS),
    "cv2_radius": (int, 4),
    "paint_by_example_example_image": (str | None, None),
    "p2p_image_guidance_scale": (float, 1.5),
    "enable_controlnet": (bool, False),
    "controlnet_conditioning_scale": (Annotated[float, Field(ge=0, le=1)], 0.4),
    "controlnet_method": (str | None, "lllyasviel/control_v11p_sd15_canny"),
    "enable_brushnet": (bool, False),
    "brushnet_method": (str, "Sanster/brushnet_random_mask"),
    "brushnet_conditioning_scale": (Annotated[float, Field(ge=0, le=1)], 1.0),
    "enable_powerpaint_v2": (bool, False),
    "powerpaint_task": (
        Literal["text-guided", "context-aware", "shape-guided", "object-remove", "outpainting"],
        "text-guided",
    ),
    "fitting_degree": (Annotated[float, Field(gt=0, le=1)], 1.0),
}
_Passed: Any = create_model("_Passed", **_PASSED)


class InpaintRequest(_Passed):  # its other fields are in the table above
    """Every field of IOPaint 1.6.0's; unknown ones are ignored, as there."""

    image: str | None = None
    mask: str | None = None
    sd_seed: int = 42


class SwitchModel(BaseModel):
    name: str


class SwitchPluginModel(BaseModel):
    plugin_name: str
    model_name: str


class RunPlugin(BaseModel):
    name: str
    image: str
    clicks: list[list[int]] = Field(default_factory=list)
    scale: float = 2.0


class AdjustMask(BaseModel):
    mask: str
    operate: Operation
    kernel_size: int = Field(default=5, ge=0, le=500)


def failed(status: int, kind: str, words: str, *, detail: str = "") -> Response:
    """What IOPaint answers where something is raised: its app shows ``errors``."""
    document = {"error": kind, "detail": detail, "body": "", "errors": words}
    return Response(as_json(document), status, media_type="application/json")


def refused_as_there(refusal: HTTPException) -> Response:
    return failed(refusal.status_code, "HTTPException", str(refusal), detail=str(refusal.detail))


class BadBase64(Exception):
    """A picture that is missing or is no base64."""


def decoded(text: str | None, name: str) -> bytes:
    """The bytes of a picture, bare or as a data URL.

    Raises:
        BadBase64.
    """
    if text is None:
        raise BadBase64(f"{name} is missing")
    head, comma, rest = text.partition(",")
    try:
        return base64.b64decode(rest if comma and head.startswith("data:") else text)
    except (binascii.Error, ValueError) as error:
        raise BadBase64(f"{name}: {error}") from error


def router(line: Line, studio: Studio, sessions: Sessions) -> APIRouter:
    """The routes."""
    routes = APIRouter(prefix="/api/v1", tags=["IOPaint"], responses=_RAISED)

    @routes.get("/server-config")
    async def server_config(request: Request) -> Response:
        """What the web app reads first."""
        nodes = await line.reader.nodes()
        plugins = plugins_of(nodes)
        told = {
            "plugins": [
                {
                    "name": name,
                    "support_gen_image": bool(kinds - {TaskType.SEGMENT}),
                    "support_gen_mask": TaskType.SEGMENT in kinds,
                }
                for name, (_, kinds) in plugins.items()
            ],
            "modelInfos": [model_info(name) for name in models_of(nodes)],
            "removeBGModel": "briaai/RMBG-1.4",
            "removeBGModels": [model for name, (model, _) in plugins.items() if name == "RemoveBG"],
            "realesrganModel": "realesr-general-x4v3",
            "realesrganModels": [model for name, (model, _) in plugins.items() if name == "RealESRGAN"],
            "interactiveSegModel": "sam2_1_tiny",
            "interactiveSegModels": [model for name, (model, _) in plugins.items() if name == "InteractiveSeg"],
            "enableFileManager": False,
            "enableAutoSaving": line.state.config.http.save_folder is not None,
            "enableControlnet": False,
            "controlnetMethod": None,
            "disableModelSwitch": False,
            "isDesktop": False,
            "samplers": list(_SAMPLERS),
        }
        response = Response(as_json(told), media_type="application/json")
        sessions.welcome(request, response)
        return response

    @routes.get("/model")
    async def get_model(request: Request) -> Response:
        """The model that this session has."""
        return Response(as_json(model_info((await sessions.model_of(request, line))[0])), media_type="application/json")

    @routes.post("/model")
    async def switch_model(request: Request, wish: SwitchModel) -> Response:
        """Have another one from now on: this session alone."""
        if wish.name not in models_of(await line.reader.nodes()):
            return failed(500, "KeyError", repr(wish.name))
        sessions.of(request).model = wish.name
        return Response(as_json(model_info(wish.name)), media_type="application/json")

    @routes.get("/inputimage")
    async def input_image() -> Response:
        """There is none: LCQ is started with no picture."""
        return refused_as_there(HTTPException(200, "No input image configured"))

    @routes.post("/inpaint", response_class=Response, responses=_IMAGE)
    async def inpaint(request: Request, wish: InpaintRequest) -> Response:
        """The picture without what the mask covers, in the format that it came in."""
        try:
            image, mask = await asyncio.to_thread(lambda: (decoded(wish.image, "image"), decoded(wish.mask, "mask")))
        except BadBase64 as error:
            return failed(500, "Error", str(error))
        model, engine = await sessions.model_of(request, line)
        config = config_for(model, engine, wish.model_dump(), wish.model_fields_set)
        seed = wish.sd_seed if wish.sd_seed != -1 else random.randint(1, _MOST_SEED)
        if "sd_seed" in config:
            config["sd_seed"] = seed
        return await worked(request, image, mask, config, headers={"X-Seed": str(seed)})

    async def worked(
        request: Request, image: bytes, mask: bytes, config: dict[str, Any], headers: dict[str, str]
    ) -> Response:
        ext = format_of(image)
        try:
            data = await studio.done(request, sessions.of(request), Wish(image, mask, config | encoding(ext, _QUALITY)))
        except NotDone as end:
            return not_done(end)
        except LcqError as refusal:
            return failed(int(status_of(refusal)), type(refusal).__name__, str(refusal))
        data = await asyncio.to_thread(as_written, data, ext)
        return Response(data, headers=headers, media_type=f"image/{ext}")

    @routes.post("/run_plugin_gen_image", response_class=Response, responses=_BY_PLUGIN)
    async def gen_image(request: Request, wish: RunPlugin) -> Response:
        """A picture by a plugin that some node serves."""
        return await by_plugin(request, wish, is_mask=False)

    @routes.post("/run_plugin_gen_mask", response_class=Response, responses=_BY_PLUGIN)
    async def gen_mask(request: Request, wish: RunPlugin) -> Response:
        """A mask by a plugin that some node serves, in the colour of strokes."""
        return await by_plugin(request, wish, is_mask=True)

    async def by_plugin(request: Request, wish: RunPlugin, *, is_mask: bool) -> Response:
        known = plugins_of(await line.reader.nodes())
        if wish.name not in known:
            return refused_as_there(HTTPException(422, "Plugin not found"))
        model, kinds = known[wish.name]
        wanted = (TaskType.SEGMENT,) if is_mask else (TaskType.UPSCALE, TaskType.PLUGIN)
        kind = next((one for one in wanted if one in kinds), None)
        if kind is None:
            return refused_as_there(HTTPException(422, "Plugin does not support output image"))
        config: dict[str, Any] = {"model": model, "format": "png"}
        config |= {"clicks": wish.clicks} if is_mask else {"scale": wish.scale}
        try:
            image = decoded(wish.image, "image")
            data = await studio.done(request, sessions.of(request), Wish(image, None, config, kind))
            if is_mask:
                data = await asyncio.to_thread(overlay, data)
        except BadBase64 as error:
            return failed(500, "Error", str(error))
        except NotDone as end:
            return not_done(end)
        except LcqError as refusal:
            return failed(int(status_of(refusal)), type(refusal).__name__, str(refusal))
        return Response(data, media_type="image/png")

    @routes.post("/switch_plugin_model")
    async def switch_plugin_model(wish: SwitchPluginModel) -> Response:
        """Nothing: which weights a plugin has is its node's affair. Answers as there, also for an unknown one."""
        return Response(b"null", media_type="application/json")

    @routes.get("/samplers")
    async def samplers() -> Response:
        """Names for diffusion models."""
        return Response(as_json(list(_SAMPLERS)), media_type="application/json")

    @routes.post("/adjust_mask", response_class=Response, responses=_IMAGE)
    async def adjust_mask(wish: AdjustMask) -> Response:
        """A mask grown, shrunk or turned round, in the colour of strokes."""
        limits = line.state.config.limits
        try:
            data = decoded(wish.mask, "mask")
            changed = await asyncio.to_thread(adjusted, data, wish.operate, wish.kernel_size, limits)
        except (BadBase64, LcqError) as error:
            return failed(500, type(error).__name__, str(error))
        return Response(changed, media_type="image/png")

    @routes.post("/gen-info")
    async def gen_info(file: UploadFile) -> Response:
        """The prompts that a PNG was made with."""
        found = (await asyncio.to_thread(parameters_of, await file.read())).split("Negative prompt: ")
        negative = found[1].split("\n")[0].strip() if len(found) > 1 else ""
        told = {"prompt": found[0].strip(), "negative_prompt": negative}
        return Response(as_json(told), media_type="application/json")

    @routes.post("/save_image")
    async def save_image(file: UploadFile) -> Response:
        """Keep a result in http.save_folder, beside what is there under that name."""
        folder = line.state.config.http.save_folder
        if folder is None:
            return refused_as_there(HTTPException(400, "No folder to save to: see http.save_folder"))
        floor = line.state.config.storage.blobs
        await asyncio.to_thread(save, folder, file.filename or "", await file.read(), floor)
        return Response(b"null", media_type="application/json")

    return routes


def encoding(ext: str, quality: int) -> dict[str, Any]:
    """How a node is to read and write a picture so that it comes out as the parents' do."""
    told: dict[str, Any] = {"as_rgb": True, "format": written_as(ext)}
    if ext in ("jpeg", "webp"):
        told["quality"] = quality
    if ext == "jpeg":
        told["subsampling"] = "4:2:0"
    return told


def not_done(end: NotDone) -> Response:
    """What its client is told of a task that failed."""
    sizes = mismatched(end)
    if sizes is not None:
        return refused_as_there(HTTPException(400, f"Image size({sizes[0]}) and mask size({sizes[1]}) not match."))
    return failed(500, end.code, end.words)


def mismatched(end: NotDone) -> tuple[tuple[int, int], tuple[int, int]] | None:
    """(height, width) of picture and mask, where it was these that did not fit."""
    if end.code != "mask_size_mismatch":
        return None
    found = [(int(high), int(wide)) for wide, high in re.findall(r" is (\d+) x (\d+)", end.words)]
    return (found[-1], found[-2]) if len(found) >= 2 else None


def as_written(data: bytes, ext: str) -> bytes:
    """A result in the format that was asked for, where the node has written it as PNG instead."""
    if written_as(ext) == ext:
        return data
    from PIL import Image

    out = io.BytesIO()
    with Image.open(io.BytesIO(data), formats=["PNG"]) as picture:
        picture.save(out, format=ext.upper())
    return out.getvalue()


def save(folder: Path, name: str, data: bytes, floor: DiskConfig) -> Path:
    """Write a new file into ``folder``, named after the last part of ``name``; never over another, and whole or not.

    Raises:
        StorageFull: its disk would have less room than ``floor``. StorageUnreachable: it cannot be written.
    """
    lack = lack_of_room(folder, floor_mib=floor.floor_mib, floor_percent=floor.floor_percent, needed=len(data))
    if lack:
        raise StorageFull(str(folder), lack)
    plain = os.path.basename(name.replace("\\", "/")).replace("\0", "").strip(". ") or "picture.png"  # noqa: PTH119
    stem, suffix = os.path.splitext(plain[-200:])  # noqa: PTH122
    try:
        folder.mkdir(parents=True, exist_ok=True)
        for number in range(10_000):
            path = folder / (f"{stem}-{number}{suffix}" if number else f"{stem}{suffix}")
            with contextlib.suppress(FileExistsError), path.open("xb") as file:
                try:
                    file.write(data)
                    file.flush()
                except OSError:
                    path.unlink(missing_ok=True)
                    raise
                return path
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            raise StorageFull(str(folder), error.strerror or "") from error
        raise StorageUnreachable(str(folder), error.strerror or str(error), hint="see http.save_folder") from error
    raise StorageUnreachable(str(folder), f"{plain} is there 10,000 times", hint="tidy up http.save_folder")
