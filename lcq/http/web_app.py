"""A parent's web app at ``/``, unmodified: from a folder, or out of an installed wheel of iopaint or lama_cleaner."""

from __future__ import annotations

import logging
from importlib.util import find_spec
from pathlib import Path

from fastapi import FastAPI
from starlette.staticfiles import StaticFiles

_log = logging.getLogger(__name__)
_WHEELS = {"iopaint": "web_app", "lama_cleaner": "app/build"}  # and where they have it


def folder_of(setting: str) -> Path | None:
    """Where the web app of ``http.web_app`` lies: a folder, or with a package's name in that; None: nowhere."""
    if setting not in _WHEELS:
        folder = Path(setting).expanduser()
        return folder if (folder / "index.html").is_file() else None
    found = find_spec(setting)  # imports nothing of it
    if found is None or not found.submodule_search_locations:
        return None
    folder = Path(next(iter(found.submodule_search_locations))) / _WHEELS[setting]
    return folder if (folder / "index.html").is_file() else None


def serve(app: FastAPI, setting: str) -> None:
    """Have ``app`` serve it beside all its routes, if it is anywhere."""
    if not setting:
        return
    folder = folder_of(setting)
    if folder is None:
        _log.warning("http.web_app is %r, and there is no index.html: no web app is served", setting)
        return
    app.mount("/", StaticFiles(directory=folder, html=True), name="web app")
