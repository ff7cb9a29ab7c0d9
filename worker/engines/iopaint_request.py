"""What IOPaint is asked, and what is taken from its answer: a task's config as its fields, pictures as PNG.

The field names, types and limits are those of IOPaint 1.6.0 (POST /api/v1/inpaint).
"""

from __future__ import annotations

import base64
import difflib
import json
from collections.abc import Mapping
from typing import Annotated, Any, Literal

import cv2
import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, ValidationError, create_model

from lcq.images import encoded_size
from worker.engines.base import Ease, EngineError, ErrorClass, Picture

ERASERS = frozenset({"lama", "anime-lama", "ldm", "zits", "mat", "fcf", "manga", "migan", "cv2"})
"""IOPaint's models that only erase. All others are diffusion models, which can also paint from nothing."""

_CROPS_ITS_OWN_WAY = frozenset({"fcf", "migan"})  # whatever hd_strategy says
_NOT_FOR_IOPAINT = frozenset(  # LCQ's own keys
    {"model", "device", "format", "quality", "subsampling", "as_rgb", "precision", "radius"}
)
_LONGEST_FOUND = 80


def _capitalised(value: Any) -> Any:
    return value.capitalize() if isinstance(value, str) else value


_Pixels = Annotated[int, Field(ge=0, le=1 << 20)]
_Side = Annotated[int, Field(ge=1, le=1 << 20)]
_Share = Annotated[float, Field(ge=0, le=1)]
_PartOfOne = Annotated[float, Field(gt=0, le=1)]
_Sampler = Literal[
    "DPM++ 2M", "DPM++ 2M Karras", "DPM++ 2M SDE", "DPM++ 2M SDE Karras", "DPM++ SDE", "DPM++ SDE Karras",
    "DPM2", "DPM2 Karras", "DPM2 a", "DPM2 a Karras", "Euler", "Euler a", "Heun", "LMS", "LMS Karras", "DDIM", "PNDM",
    "UniPC", "LCM",
]  # fmt: skip


FIELDS: dict[str, Any] = {
    "hd_strategy": Annotated[Literal["Original", "Resize", "Crop"], BeforeValidator(_capitalised)],
    "hd_strategy_crop_trigger_size": _Pixels,
    "hd_strategy_crop_margin": _Pixels,
    "hd_strategy_resize_limit": _Side,
    "ldm_steps": Annotated[int, Field(ge=1, le=1000)],
    "ldm_sampler": Literal["plms", "ddim"],
    "zits_wireframe": bool,
    "cv2_flag": Literal["INPAINT_NS", "INPAINT_TELEA"],
    "cv2_radius": Annotated[int, Field(ge=1, le=100)],
    "prompt": str,
    "negative_prompt": str,
    "use_croper": bool,
    "croper_x": int,
    "croper_y": int,
    "croper_height": _Side,
    "croper_width": _Side,
    "use_extender": Literal[False],
    "extender_x": int,
    "extender_y": int,
    "extender_height": int,
    "extender_width": int,
    "sd_scale": _PartOfOne,
    "sd_mask_blur": Annotated[int, Field(ge=0, le=1000)],
    "sd_strength": _Share,
    "sd_steps": Annotated[int, Field(ge=1, le=1000)],
    "sd_guidance_scale": float,
    "sd_sampler": _Sampler,
    "sd_seed": Annotated[int, Field(ge=-1)],
    "sd_match_histograms": bool,
    "sd_outpainting_softness": float,
    "sd_outpainting_space": float,
    "sd_lcm_lora": bool,
    "sd_keep_unmasked_area": bool,
    "paint_by_example_example_image": str,
    "p2p_image_guidance_scale": float,
    "enable_controlnet": bool,
    "controlnet_conditioning_scale": _Share,
    "controlnet_method": str,
    "enable_brushnet": bool,
    "brushnet_method": str,
    "brushnet_conditioning_scale": _Share,
    "enable_powerpaint_v2": bool,
    "powerpaint_task": Literal["text-guided", "context-aware", "shape-guided", "object-remove", "outpainting"],
    "fitting_degree": _PartOfOne,
}
"""What a task may say to IOPaint, with types. The rest is left to the server, which has its own defaults."""

_definitions: dict[str, Any] = {name: (kind | None, None) for name, kind in FIELDS.items()}
_Fields: type[BaseModel] = create_model(
    "_Fields",
    __config__=ConfigDict(strict=True, frozen=True, extra="forbid", allow_inf_nan=False),
    **_definitions,
)


def fields_of(config: Mapping[str, Any]) -> dict[str, Any]:
    """The fields that ``config`` sets, checked. LCQ's own keys, such as ``format``, are no concern of IOPaint's.

    ``strategy`` is short for ``hd_strategy``; ``auto``, which IOPaint does not know, leaves it the choice.

    Raises:
        EngineError: config_invalid: names each key that is wrong, and the nearest where there is none of that name.
    """
    said = {key: value for key, value in config.items() if key not in _NOT_FOR_IOPAINT and value is not None}
    strategies = {str(said[key]).lower(): key for key in ("strategy", "hd_strategy") if key in said}
    if len(strategies) > 1:
        raise EngineError("config_invalid", "config.strategy and config.hd_strategy differ: say one")
    if "strategy" in said:
        said["hd_strategy"] = said.pop("strategy")
    if strategies.keys() == {"auto"}:
        del said["hd_strategy"]
    try:
        return _Fields.model_validate(said).model_dump(exclude_none=True)
    except ValidationError as error:
        problems = (_explained(problem) for problem in error.errors(include_url=False, include_context=False))
        raise EngineError("config_invalid", "; ".join(problems)) from None


def _explained(problem: Any) -> str:
    key = str(problem["loc"][0])
    if problem["type"] == "extra_forbidden":
        near = difflib.get_close_matches(key, FIELDS, n=1)
        hint = f", did you mean {near[0]!r}?" if near else ""
        return f"config.{key}: IOPaint has no such field{hint}"
    if key == "use_extender":
        return "config.use_extender: outpainting makes a picture of another size, which inpainting must not"
    return f"config.{key}: {problem['msg']}, found {problem['input']!r:.{_LONGEST_FOUND}}"


# ---------------------------------------------------------------- with less memory

_SMALL_SIDE, _SMALL_MARGIN, _SMALL_SCALE = 512, 64, 0.5


def eases_of(model: str) -> tuple[Ease, ...]:
    """What can be done so that ``model`` (IOPaint's name) takes less memory."""
    return () if model in _CROPS_ITS_OWN_WAY else (Ease.SMALLER_TILE,)


def eased_fields(model: str, fields: Mapping[str, Any]) -> tuple[dict[str, Any], str]:
    """``fields`` for smaller tiles, and a note that says what that is."""
    if model not in ERASERS:
        scale = min(fields.get("sd_scale", 1.0), _SMALL_SCALE)
        return {**fields, "sd_scale": scale}, f"made with sd_scale {scale:g}, to take less memory"
    trigger = min(fields.get("hd_strategy_crop_trigger_size", _SMALL_SIDE), _SMALL_SIDE)
    margin = min(fields.get("hd_strategy_crop_margin", _SMALL_MARGIN), _SMALL_MARGIN)
    smaller = {
        "hd_strategy": "Crop",
        "hd_strategy_crop_trigger_size": trigger,
        "hd_strategy_crop_margin": margin,
    }
    return {**fields, **smaller}, f"made in crops with a margin of {margin} pixels, to take less memory"


# ---------------------------------------------------------------- pictures there and back

_PNG_BEGIN, _PNG_END = b"\x89PNG\r\n\x1a\n", b"IEND\xaeB`\x82"
_FAST = (cv2.IMWRITE_PNG_COMPRESSION, 1)  # it goes through a socket of this host, or of the next


def request_body(picture: Picture, fields: Mapping[str, Any]) -> bytes:
    """The JSON that asks for the holes of ``picture`` to be filled. Lossless; 16 bits are sent as the upper 8."""
    pixels = picture.pixels
    if pixels.dtype == np.uint16:
        pixels = ((pixels.astype(np.uint32) + 128) // 257).astype(np.uint8)
    coded = {"image": _png(pixels), "mask": _png(picture.mask.astype(np.uint8) * 255)}
    return json.dumps({**fields, **coded}).encode("ascii")


def _png(pixels: NDArray[Any]) -> str:
    in_opencv_order = pixels if pixels.ndim == 2 else cv2.cvtColor(pixels, cv2.COLOR_RGB2BGR)
    is_coded, data = cv2.imencode(".png", in_opencv_order, _FAST)
    if not is_coded:
        raise MemoryError(f"OpenCV could not code a picture of {pixels.shape}")
    return base64.b64encode(data.tobytes()).decode("ascii")


def filled(picture: Picture, answer: bytes) -> NDArray[Any]:
    """``picture``'s pixels, with what the PNG ``answer`` has in the holes, and nothing else of it.

    Many models change the whole picture: outside the holes it stays as it was, to the bit. Grey pictures take
    the mean of the three channels.

    Raises:
        EngineError: bad_output: ``answer`` is no whole PNG, or has another size.
    """
    height, width = picture.mask.shape
    size = encoded_size(answer)
    if size is None or not (answer.startswith(_PNG_BEGIN) and answer.endswith(_PNG_END)):
        raise EngineError(
            "output_unreadable",
            f"IOPaint's answer ({len(answer):,} bytes, beginning {answer[:16]!r}) is no whole PNG",
            error_class=ErrorClass.BAD_OUTPUT,
        )
    if size != (width, height):
        raise EngineError(
            "output_shape",
            f"IOPaint gave a picture of {size[0]} x {size[1]} for one of {width} x {height}",
            error_class=ErrorClass.BAD_OUTPUT,
        )
    decoded = cv2.imdecode(np.frombuffer(answer, np.uint8), cv2.IMREAD_COLOR)
    if decoded is None or decoded.shape[:2] != (height, width):
        raise EngineError(
            "output_unreadable", "IOPaint's answer is a PNG that cannot be decoded", error_class=ErrorClass.BAD_OUTPUT
        )
    colours = cv2.cvtColor(decoded, cv2.COLOR_BGR2RGB)[picture.mask].astype(np.uint32)
    if picture.pixels.ndim == 2:
        colours = (colours.sum(axis=1) * 2 + 3) // 6  # the mean, rounded
    if picture.pixels.dtype == np.uint16:
        colours = colours * 257
    pixels = picture.pixels.copy()
    pixels[picture.mask] = colours
    return pixels
