"""The parent programs' words for models and strategies, and ours for the same. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from lcq.models import NodeRecord, NodeStatus, TaskType

_CV2 = "cv2"
_OURS_OF_CV2 = {"INPAINT_NS": "cv2-ns", "INPAINT_TELEA": "cv2-telea"}
_STRATEGIES = ("Original", "Resize", "Crop")
_OWN_FRAMES = frozenset({"lama", "anime-lama"})  # LaMa networks of ours; added ones too
ERASERS = frozenset({"lama", "anime-lama", "ldm", "zits", "mat", "fcf", "manga", "migan", _CV2})
_PLUGINS = ("InteractiveSeg", "RemoveBG", "AnimeSeg", "RealESRGAN", "GFPGAN", "RestoreFormer")

FORMATS: tuple[tuple[bytes, int, str], ...] = (
    (b"\xff\xd8\xff", 0, "jpeg"),
    (b"\x89PNG\r\n\x1a\n", 0, "png"),
    (b"WEBP", 8, "webp"),
    (b"BM", 0, "bmp"),
    (b"II*\x00", 0, "tiff"),
    (b"MM\x00*", 0, "tiff"),
    (b"GIF8", 0, "gif"),
)


def format_of(data: bytes) -> str:
    """What a picture is, by its first bytes; what nobody knows counts as JPEG, as it does there."""
    return next((name for magic, at, name in FORMATS if data[at : at + len(magic)] == magic), "jpeg")


def written_as(ext: str) -> str:
    """The format in which a node writes it: neither BMP nor GIF, of which a PNG loses nothing."""
    return "png" if ext in ("bmp", "gif") else ext


def models_of(nodes: Iterable[NodeRecord]) -> dict[str, str]:
    """What the fleet has that can erase: the parents' name, and the engine that does it here."""
    found: dict[str, str] = {}
    for node in nodes:
        if node.status not in (NodeStatus.ONLINE, NodeStatus.SUSPECT):
            continue
        for name, offer in {**node.capability.withheld, **node.capability.models}.items():
            if TaskType.INPAINT in offer.task_types and offer.engine != "drill" and not name.startswith("drill-"):
                found[_CV2 if name in _OURS_OF_CV2.values() else name] = offer.engine
    order = {name: place for place, name in enumerate(("lama", "anime-lama", _CV2))}
    return dict(sorted(found.items(), key=lambda one: (order.get(one[0], len(order)), one[0])))


def plugins_of(nodes: Iterable[NodeRecord]) -> dict[str, tuple[str, frozenset[TaskType]]]:
    """The parents' plugins that some node serves: its model, and what that can do."""
    found: dict[str, tuple[str, frozenset[TaskType]]] = {}
    for node in nodes:
        if node.status is not NodeStatus.ONLINE:
            continue
        for model, offer in node.capability.models.items():
            name = next((one for one in _PLUGINS if one.lower() == model.lower()), None)
            kinds = frozenset(offer.task_types) - {TaskType.INPAINT}
            if name is not None and kinds:
                found[name] = (model, kinds)
    return found


def model_info(name: str) -> dict[str, Any]:
    """IOPaint's ModelInfo."""
    is_diffusion = name not in ERASERS
    return {
        "name": name,
        "path": name,
        "model_type": "inpaint" if not is_diffusion else "diffusers_sd_inpaint",
        "is_single_file_diffusers": False,
        "need_prompt": is_diffusion,
        "controlnets": [],
        "brushnets": [],
        "support_strength": is_diffusion,
        "support_outpainting": is_diffusion,
        "support_lcm_lora": False,
        "support_controlnet": False,
        "support_brushnet": False,
        "support_powerpaint_v2": False,
    }


def config_for(model: str, engine: str, fields: Mapping[str, Any], given: Iterable[str]) -> dict[str, Any]:
    """The ``config`` of a task that does what the parent would. ``given``: the fields that the client named itself.

    ``engine``: what has the model here; "": not known, as no node does.
    """
    strategy = fields["hd_strategy"] if fields["hd_strategy"] in _STRATEGIES else "Original"
    frame = {
        "hd_strategy": strategy.lower(),
        "hd_strategy_crop_trigger_size": max(0, fields["hd_strategy_crop_trigger_size"]),
        "hd_strategy_crop_margin": max(0, fields["hd_strategy_crop_margin"]),
        "hd_strategy_resize_limit": max(16, fields["hd_strategy_resize_limit"]),
    }
    if model == _CV2:
        radius = min(100, max(1, fields["cv2_radius"]))
        return {"model": _OURS_OF_CV2[str(fields["cv2_flag"])], "radius": radius, **frame}
    if engine == "lama" or model in _OWN_FRAMES:
        return {"model": model, **frame}
    passed = {name: fields[name] for name in given if name in fields and fields[name] is not None}
    for name in ("image", "mask", *frame, "use_extender"):
        passed.pop(name, None)
    return {"model": model, **frame, "hd_strategy": strategy, **passed}
