"""A stand-in for IOPaint 1.6.0: a program that speaks the part of its HTTP API that LCQ uses, and can misbehave.

    python iopaint_standin.py [SWITCH …] start --model M --device cpu --host 127.0.0.1 --port P

``make parity`` holds it against the real one. Its model cv2 inpaints with OpenCV as IOPaint does by hd_strategy
Original; ``inverse`` and ``grey`` change the whole picture, as diffusion models do. What goes wrong is asked for
by a task's prompt, so that one server shows it all:

    wait for FILE      answers once the file is there
    die                is gone before it answers
    die of memory      the same, by SIGKILL
    hang up            closes the connection, and lives on
    out of memory      fails as torch does on a full GPU
    break              fails as any bug does
    wrong size         gives a picture with one row too many
    garbage, cut, jpeg gives what is no PNG, half of one, and a JPEG
"""

# ruff: noqa: E402

from __future__ import annotations

import gc

gc.disable()  # it is started often, and never lives long

import argparse
import base64
import binascii
import io
import json
import os
import signal
import sys
import time
from collections.abc import Sequence
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from types import SimpleNamespace
from typing import Any

from PIL import Image

OUT_OF_MEMORY = "CUDA out of memory. Tried to allocate 2.00 GiB. GPU 0 has a total capacity of 7.79 GiB"
SAMPLERS = [
    "DPM++ 2M", "DPM++ 2M Karras", "DPM++ 2M SDE", "DPM++ 2M SDE Karras", "DPM++ SDE", "DPM++ SDE Karras",
    "DPM2", "DPM2 Karras", "DPM2 a", "DPM2 a Karras", "Euler", "Euler a", "Heun", "LMS", "LMS Karras", "DDIM", "PNDM",
    "UniPC", "LCM",
]  # fmt: skip


# The fields that matter here, with what they are by default (...: there is none) and the types that they may have as
# they come. As there, others are ignored.
INPAINT = {
    "image": (None, (str, type(None))),
    "mask": (None, (str, type(None))),
    "prompt": ("", (str,)),
    "sd_seed": (42, (int,)),
    "cv2_flag": ("INPAINT_NS", (str,)),
    "cv2_radius": (4, (int,)),
}
SWITCH = {"name": (..., (str,))}
CV2_FLAGS = ("INPAINT_NS", "INPAINT_TELEA")
Shape = dict[str, tuple[Any, tuple[type, ...]]]


class Refused(Exception):
    """An error that is answered: the class it has there, and its words."""

    def __init__(self, status: int, kind: str, words: str, *, detail: str = "") -> None:
        self.status = status
        self.document = {"error": kind, "detail": detail, "body": "", "errors": words}


def model_info(name: str) -> dict[str, Any]:
    no = dict.fromkeys(
        ("strength", "outpainting", "lcm_lora", "controlnet", "brushnet", "powerpaint_v2"),
        False,
    )
    return {
        "name": name,
        "path": name,
        "model_type": "inpaint",
        "is_single_file_diffusers": False,
        "need_prompt": False,
        "controlnets": [],
        "brushnets": [],
        **{f"support_{what}": value for what, value in no.items()},
    }


def server_config(models: Sequence[str]) -> dict[str, Any]:
    return {
        "plugins": [],
        "modelInfos": [model_info(name) for name in models],
        "removeBGModel": "briaai/RMBG-1.4",
        "removeBGModels": ["briaai/RMBG-1.4"],
        "realesrganModel": "realesr-general-x4v3",
        "realesrganModels": ["realesr-general-x4v3"],
        "interactiveSegModel": "sam2_1_tiny",
        "interactiveSegModels": ["sam2_1_tiny"],
        "enableFileManager": False,
        "enableAutoSaving": False,
        "enableControlnet": False,
        "controlnetMethod": None,
        "disableModelSwitch": False,
        "isDesktop": False,
        "samplers": SAMPLERS,
    }


class Invalid(Exception):
    """A body that is none of what was asked for; ``problems`` are what pydantic says of it, as there."""

    def __init__(self, problems: list[Any]) -> None:
        self.problems = problems


class Server(ThreadingHTTPServer):
    """``models``: what it can switch to. ``heard``: a file that gets a line a call of what was asked."""

    def __init__(self, options: argparse.Namespace) -> None:
        super().__init__((options.host, options.port), Calls)
        self.models = [name for name in options.models.split(",") if name]
        self.model = options.model
        self.heard: Path | None = options.heard
        self.fails_to_load: str = options.fails_to_load

    def note(self, **what: Any) -> None:
        if self.heard is not None:
            with self.heard.open("a", encoding="utf-8") as file:
                file.write(json.dumps({"pid": os.getpid(), **what}) + "\n")

    def current(self) -> dict[str, Any]:
        if self.model not in self.models:
            raise Refused(500, "KeyError", repr(self.model))
        return model_info(self.model)

    def switch(self, name: str) -> dict[str, Any]:
        if name != self.model:
            before, self.model = self.model, name
            self.current()  # fails for an unknown name, and leaves it set: that is how it is there
            if name == self.fails_to_load:
                self.model = before
                raise Refused(500, "RuntimeError", f"cannot load {name}")
        return self.current()


class Calls(BaseHTTPRequestHandler):
    server: Server

    def do_GET(self) -> None:
        match self.path:
            case "/api/v1/model":
                self._answer(self.server.current)
            case "/api/v1/server-config":
                self._answer(lambda: server_config(self.server.models))
            case _:
                self._send(404, {"detail": "Not Found"})

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["content-length"]))
        match self.path:
            case "/api/v1/model":
                self._answer(lambda: self.server.switch(_read(SWITCH, body).name))
            case "/api/v1/inpaint":
                self._answer(lambda: self._inpaint(_read(INPAINT, body), body))
            case _:
                self._send(405, {"detail": "Method Not Allowed"})

    def _answer(self, make: Any) -> None:
        try:
            made = make()
        except Refused as error:
            return self._send(error.status, error.document)
        except Invalid as error:
            problems = [{**problem, "loc": ("body", *problem["loc"])} for problem in error.problems]
            return self._send(422, {"detail": problems})
        if made is not None:
            self._send(200, made)
        return None

    def _send(self, status: int, made: Any) -> None:
        kind, data = "application/json", made
        seed = ""
        if isinstance(made, tuple):
            kind, data, seed = made
        else:
            data = json.dumps(made, separators=(",", ":")).encode()
        self.send_response(status)
        self.send_header("content-type", kind)
        self.send_header("content-length", str(len(data)))
        if seed:
            self.send_header("x-seed", seed)
        self.end_headers()
        self.wfile.write(data)

    def _inpaint(self, request: Any, body: bytes) -> tuple[str, bytes, str] | None:
        fields = {key: value for key, value in json.loads(body).items() if key not in ("image", "mask")}
        self.server.note(call="inpaint", model=self.server.model, fields=fields)
        try:
            return self._result(request)
        finally:
            self.server.note(call="done")

    def _result(self, request: Any) -> tuple[str, bytes, str] | None:
        image, mask = _decoded(request.image, "RGB"), _decoded(request.mask, "L")
        mask = mask.point([0] * 128 + [255] * 128)
        if image.size != mask.size:
            words = f"Image size({image.size[::-1]}) and mask size({mask.size[::-1]}) not match."
            raise Refused(400, "HTTPException", f"400: {words}", detail=words)
        self.server.current()
        trouble, _, file = request.prompt.partition(" for ")
        while trouble == "wait" and not Path(file).exists():
            time.sleep(0.01)
        _misbehave(trouble)
        result = _filled(self.server.model, image, mask, request)
        if trouble == "hang up":
            return None
        if trouble == "wrong size":
            result = result.crop((0, 0, result.width, result.height + 1))
        data = _coded(result, "JPEG" if trouble == "jpeg" else "PNG")
        data = {"garbage": b"<html>it works!</html>", "cut": data[: len(data) // 2]}.get(trouble, data)
        return "image/png", data, str(12345 if request.sd_seed == -1 else request.sd_seed)

    def log_message(self, format: str, *args: Any) -> None:  # noqa: A002 - its name there
        print(f'INFO: "{format % args}"', flush=True)


def _read(shape: Shape, body: bytes) -> Any:
    """What ``body`` says, by the names of ``shape``."""
    told = json.loads(body)
    if isinstance(told, dict):
        read = {name: told.get(name, default) for name, (default, _) in shape.items()}
        are_plain = all(type(read[name]) in types for name, (_, types) in shape.items())
        if are_plain and read.get("cv2_flag", CV2_FLAGS[0]) in CV2_FLAGS:
            return SimpleNamespace(**read)
    return _read_closely(shape, told)


def _read_closely(shape: Shape, told: Any) -> Any:
    """The same as there, with all that it makes of what is not quite so; loaded only where that comes."""
    from enum import StrEnum
    from functools import reduce
    from operator import or_

    from pydantic import ValidationError, create_model

    kinds: dict[str, Any] = {name: reduce(or_, types) for name, (_, types) in shape.items()}
    if "cv2_flag" in kinds:
        kinds["cv2_flag"] = StrEnum("Cv2Flag", {name: name for name in CV2_FLAGS})
    fields: dict[str, Any] = {name: (kinds[name], default) for name, (default, _) in shape.items()}
    try:
        return create_model("InpaintRequest" if "image" in shape else "SwitchRequest", **fields).model_validate(told)
    except ValidationError as error:
        raise Invalid(list(error.errors())) from None


def _decoded(text: str | None, mode: str) -> Image.Image:
    if text is None:
        raise Refused(500, "AttributeError", "'NoneType' object has no attribute 'startswith'")
    try:
        return Image.open(io.BytesIO(base64.b64decode(text))).convert(mode)
    except (OSError, binascii.Error) as error:
        raise Refused(500, "UnidentifiedImageError", str(error)) from error


def _coded(image: Image.Image, kind: str) -> bytes:
    coded = io.BytesIO()
    image.save(coded, kind)
    return coded.getvalue()


def _misbehave(trouble: str) -> None:
    match trouble:
        case "die":
            print("Traceback (most recent call last):\nRuntimeError: the neighbour is not well", flush=True)
            os._exit(3)
        case "die of memory":
            os.kill(os.getpid(), signal.SIGKILL)
        case "out of memory":
            raise Refused(500, "OutOfMemoryError", OUT_OF_MEMORY)
        case "break":
            raise Refused(500, "TypeError", "'NoneType' object is not subscriptable")


def _filled(model: str, image: Image.Image, mask: Image.Image, request: Any) -> Image.Image:
    match model:
        case "inverse":
            return image.point([255 - value for value in range(256)] * 3)
        case "grey":
            return Image.new("RGB", image.size, (128, 128, 128))
    import cv2  # only here: a start must be quick
    import numpy as np

    flag = getattr(cv2, request.cv2_flag)
    filled = cv2.inpaint(np.ascontiguousarray(np.asarray(image)[..., ::-1]), np.asarray(mask), request.cv2_radius, flag)
    return Image.fromarray(np.ascontiguousarray(filled[..., ::-1]))


def main(arguments: Sequence[str]) -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--models", default="cv2,inverse,grey", help="what is on its disk")
    parser.add_argument("--downloads", default="", help="what it can fetch at its start")
    parser.add_argument("--fails-to-load", default="")
    parser.add_argument("--heard", type=Path)
    parser.add_argument("--begin-when", type=Path, help="wait for this file before listening")
    commands = parser.add_subparsers(required=True)
    start = commands.add_parser("start")
    start.add_argument("--model", required=True)
    start.add_argument("--device", required=True, choices=("cpu", "cuda", "mps"))
    start.add_argument("--host", default="127.0.0.1")
    start.add_argument("--port", type=int, default=8080)
    start.add_argument("--model-dir", type=Path)
    start.add_argument("--low-mem", action="store_true")
    options = parser.parse_args(arguments)
    if options.model in options.downloads.split(","):
        options.models += f",{options.model}"
    if options.model not in options.models.split(","):
        print(f"{options.model} not found, try to downloading\nConnectionError: no route to host", flush=True)
        sys.exit(1)
    while options.begin_when is not None and not options.begin_when.exists():
        time.sleep(0.01)
    with Server(options) as server:
        server.note(call="start", arguments=arguments, threads=os.environ.get("OMP_NUM_THREADS"))
        print(f"Running on http://{options.host}:{options.port}", flush=True)
        server.serve_forever()


if __name__ == "__main__":
    main(sys.argv[1:])
