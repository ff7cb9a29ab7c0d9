"""Lama Cleaner 1.2.5's HTTP API, with no prefix and answers in plain words, served by the fleet.

Its own app sends all fields; a script may leave out any here: then its app's defaults for the model hold.
"""

from __future__ import annotations

import asyncio
import json
import random
from collections.abc import Mapping
from functools import partial
from typing import Any

from fastapi import APIRouter, Request, Response
from starlette.datastructures import FormData, UploadFile
from starlette.responses import JSONResponse, PlainTextResponse

from lcq.errors import LcqError
from lcq.http.iopaint import as_written, encoding, mismatched, save
from lcq.http.line import Line
from lcq.http.masks import overlay
from lcq.http.parents import config_for, format_of, models_of, plugins_of
from lcq.http.problems import as_json, status_of
from lcq.http.sessions import Sessions
from lcq.http.studio import NotDone, Studio, Wish
from lcq.models import TaskType

_QUALITY = 95
_MOST_SEED = 999_999_999
_MOST_FIELD = 2**20
_MOST_FIELDS = 100
# strategy, resize limit, crop trigger, crop margin: what its app sends for each model
_FRAMES = {
    "lama": ("Crop", 2048, 800, 196),
    "ldm": ("Crop", 1080, 1080, 128),
    "zits": ("Crop", 1024, 1024, 128),
    "mat": ("Crop", 1024, 512, 128),
    "fcf": ("Crop", 512, 512, 128),
    "manga": ("Crop", 1280, 1024, 196),
    "cv2": ("Resize", 1080, 512, 128),
}
_WITH_ALPHA = ("RemoveBG", "AnimeSeg")  # plugins whose results are PNGs, whatever came in
_OTHER_FRAME = ("Original", 768, 512, 128)
# its field, IOPaint's name for the same, and how it is read
_FIELDS: tuple[tuple[str, str, type], ...] = (
    ("ldmSteps", "ldm_steps", int),
    ("ldmSampler", "ldm_sampler", str),
    ("zitsWireframe", "zits_wireframe", bool),
    ("hdStrategy", "hd_strategy", str),
    ("hdStrategyCropMargin", "hd_strategy_crop_margin", int),
    ("hdStrategyCropTrigerSize", "hd_strategy_crop_trigger_size", int),
    ("hdStrategyResizeLimit", "hd_strategy_resize_limit", int),
    ("prompt", "prompt", str),
    ("negativePrompt", "negative_prompt", str),
    ("useCroper", "use_croper", bool),
    ("croperX", "croper_x", int),
    ("croperY", "croper_y", int),
    ("croperHeight", "croper_height", int),
    ("croperWidth", "croper_width", int),
    ("sdScale", "sd_scale", float),
    ("sdMaskBlur", "sd_mask_blur", int),
    ("sdStrength", "sd_strength", float),
    ("sdSteps", "sd_steps", int),
    ("sdGuidanceScale", "sd_guidance_scale", float),
    ("sdSeed", "sd_seed", int),
    ("sdMatchHistograms", "sd_match_histograms", bool),
    ("cv2Flag", "cv2_flag", str),
    ("cv2Radius", "cv2_radius", int),
)


_WORDS: dict[int | str, dict[str, Any]] = {
    status: {"description": what, "content": {"text/plain": {"schema": {"type": "string"}}}}
    for status, what in {
        400: "a field is wrong, or the sizes of picture and mask differ",
        403: "no such model",
        413: "too large",
        500: "it could not be done",
        503: "Redis is away, or a queue is full",
        504: "it was not done in time",
    }.items()
}
_IMAGE: dict[int | str, dict[str, Any]] = {200: {"description": "the picture", "content": {"image/*": {}}}}


def _form(**parts: bool) -> dict[str, Any]:
    """A form of these parts, in OpenAPI's words: True for a file."""
    kinds = {name: {"type": "string", **({"format": "binary"} if is_file else {})} for name, is_file in parts.items()}
    required = [name for name, is_file in parts.items() if is_file]
    schema = {"type": "object", "properties": kinds, "required": required}
    return {"requestBody": {"content": {"multipart/form-data": {"schema": schema}}}}


class BadField(Exception):
    """A field that is not what it should be."""


def words(text: str, status: int = 200) -> Response:
    return Response(text.encode("utf-8", "replace"), status, media_type="text/plain; charset=utf-8")


def fields_of(form: Mapping[str, object], model: str) -> dict[str, Any]:
    """The fields of a form, by IOPaint's names; missing ones as its app sends them for ``model``.

    Raises:
        BadField.
    """
    strategy, limit, trigger, margin = _FRAMES.get(model, _OTHER_FRAME)
    found: dict[str, Any] = {
        "hd_strategy": strategy,
        "hd_strategy_resize_limit": limit,
        "hd_strategy_crop_trigger_size": trigger,
        "hd_strategy_crop_margin": margin,
        "cv2_flag": "INPAINT_NS",
        "cv2_radius": 5,
        "sd_seed": -1,
    }
    for theirs, ours, kind in _FIELDS:
        said = form.get(theirs)
        if not isinstance(said, str):
            continue
        try:
            found[ours] = said.lower() in ("true", "1", "on", "yes") if kind is bool else kind(said)
        except ValueError as error:
            raise BadField(f"{theirs}: {error}") from error
    if found["cv2_flag"] not in ("INPAINT_NS", "INPAINT_TELEA"):
        raise BadField(f"cv2Flag: {found['cv2_flag']!r:.80} is neither INPAINT_NS nor INPAINT_TELEA")
    return found


def router(line: Line, studio: Studio, sessions: Sessions) -> APIRouter:
    """The routes."""
    routes = APIRouter(tags=["Lama Cleaner"], responses=_WORDS, default_response_class=PlainTextResponse)

    @routes.get("/server_config", response_class=JSONResponse)
    async def server_config(request: Request) -> Response:
        """What its app reads first."""
        told = {
            "isControlNet": False,
            "controlNetMethod": "control_v11p_sd15_canny",
            "isDisableModelSwitchState": False,
            "isEnableAutoSaving": line.state.config.http.save_folder is not None,
            "enableFileManager": False,
            "plugins": list(plugins_of(await line.reader.nodes())),
        }
        response = Response(as_json(told), media_type="application/json")
        sessions.welcome(request, response)
        return response

    @routes.get("/model")
    async def get_model(request: Request) -> Response:
        """The name of the model that this session has."""
        return words((await sessions.model_of(request, line))[0])

    @routes.post("/model", openapi_extra=_form(name=False))
    async def switch_model(request: Request) -> Response:
        """Have another one from now on: this session alone."""
        async with request.form(max_files=0, max_fields=_MOST_FIELDS) as form:
            name = form.get("name")
        if not isinstance(name, str) or name not in models_of(await line.reader.nodes()):
            return words(f"{name} not implemented: no node of this cluster has it", 403)
        if name == (await sessions.model_of(request, line))[0]:
            return words("Same model")
        sessions.of(request).model = name
        return words(f"ok, switch to {name}")

    @routes.get("/model_downloaded/{name}")
    async def model_downloaded(name: str) -> Response:
        """Whether some node has it."""
        return words(str(name in models_of(await line.reader.nodes())))

    @routes.get("/is_desktop")
    async def is_desktop() -> Response:
        return words("False")

    @routes.get("/inputimage")
    async def input_image() -> Response:
        return words("No Input Image")

    @routes.post(
        "/inpaint",
        response_class=Response,
        responses=_IMAGE,
        openapi_extra=_form(image=True, mask=True, **{theirs: False for theirs, _, _ in _FIELDS}),
    )
    async def inpaint(request: Request) -> Response:
        """The picture without what the mask covers, in the format that it came in."""
        async with request.form(max_files=3, max_fields=_MOST_FIELDS, max_part_size=_MOST_FIELD) as form:
            image, mask = await _file(form, "image"), await _file(form, "mask")
            model, engine = await sessions.model_of(request, line)
            try:
                fields = fields_of(form, model)
            except BadField as error:
                return words(str(error), 400)
        if image is None or mask is None:
            return words("the files image and mask are both needed", 400)
        seed = fields["sd_seed"] if fields["sd_seed"] != -1 else random.randint(1, _MOST_SEED)
        fields["sd_seed"] = seed
        ext = format_of(image)
        config = config_for(model, engine, fields, fields) | encoding(ext, _QUALITY)
        try:
            data = await studio.done(request, sessions.of(request), Wish(image, mask, config))
        except NotDone as end:
            return not_done(end)
        except LcqError as refusal:
            return words(str(refusal), int(status_of(refusal)))
        data = await asyncio.to_thread(as_written, data, ext)
        return Response(data, headers={"X-Seed": str(seed)}, media_type=f"image/{ext}")

    @routes.post(
        "/run_plugin",
        response_class=Response,
        responses=_IMAGE,
        openapi_extra=_form(image=True, name=False, clicks=False, upscale=False),
    )
    async def run_plugin(request: Request) -> Response:
        """A picture, or a mask, by a plugin that some node serves."""
        async with request.form(max_files=2, max_fields=_MOST_FIELDS, max_part_size=_MOST_FIELD) as form:
            name, image = form.get("name"), await _file(form, "image")
            clicks, upscale = form.get("clicks", "[]"), form.get("upscale", "2")
        known = plugins_of(await line.reader.nodes())
        if not isinstance(name, str) or name not in known:
            return words("Plugin not found", 500)
        if image is None:
            return words("the file image is needed", 400)
        model, kinds = known[name]
        kind = min(kinds)
        ext = format_of(image) if kind is not TaskType.SEGMENT and name not in _WITH_ALPHA else "png"
        config: dict[str, Any] = {"model": model, "format": "png"}
        try:
            if kind is TaskType.SEGMENT:
                config["clicks"] = json.loads(str(clicks))
            else:
                config |= {"scale": float(str(upscale)), **(encoding(ext, _QUALITY) if ext != "png" else {})}
            data = await studio.done(request, sessions.of(request), Wish(image, None, config, kind))
            data = await asyncio.to_thread(overlay if kind is TaskType.SEGMENT else partial(as_written, ext=ext), data)
        except ValueError as error:
            return words(str(error), 400)
        except NotDone as end:
            return not_done(end)
        except LcqError as refusal:
            return words(str(refusal), int(status_of(refusal)))
        return Response(data, media_type=f"image/{ext}")

    @routes.post("/save_image", openapi_extra=_form(image=True, filename=False))
    async def save_image(request: Request) -> Response:
        """Keep a result in http.save_folder, beside what is there under that name."""
        folder = line.state.config.http.save_folder
        async with request.form(max_files=1, max_fields=_MOST_FIELDS) as form:
            image, name = await _file(form, "image"), form.get("filename")
        if folder is None:
            return words("No folder to save to: see http.save_folder", 500)
        if image is None:
            return words("the file image is needed", 400)
        try:
            named = name if isinstance(name, str) else ""
            await asyncio.to_thread(save, folder, named, image, line.state.config.storage.blobs)
        except LcqError as refusal:
            return words(str(refusal), int(status_of(refusal)))
        return words("ok")

    return routes


def not_done(end: NotDone) -> Response:
    """What its client is told of a task that failed."""
    sizes = mismatched(end)
    if sizes is not None:
        return words(f"Mask shape{sizes[1]} not queal to Image shape{sizes[0]}", 400)
    return words("CUDA out of memory" if end.code == "out_of_memory" else end.words, 500)


async def _file(form: FormData, name: str) -> bytes | None:
    part = form.get(name)
    return await part.read() if isinstance(part, UploadFile) else None
