"""One file from one address, into a partial file that a later try goes on with."""

from __future__ import annotations

import contextlib
import re
import time
from collections.abc import Callable
from pathlib import Path
from urllib.parse import urlsplit

import httpx
from pydantic import BaseModel, ValidationError

from lcq import __version__
from lcq.errors import without_password

Progress = Callable[[int, int | None], None]
"""Told the bytes that are there, and of how many where that is known."""

_TRIES_WITHOUT_A_BYTE = 3
_PAUSE_S = 0.5


class NoDownload(Exception):
    """This address did not give its file; the text says why, in words that follow the address."""


class _Origin(BaseModel):
    """What a partial file is a part of: kept beside it, so that parts of two files never meet."""

    url: str
    validator: str | None = None  # an ETag or a date, for If-Range


def download(
    url: str,
    partial: Path,
    *,
    timeout_s: float,
    most_bytes: int,
    progress: Progress,
    make_room: Callable[[int, int], None],
) -> bool:
    """Bring the file at ``url`` into ``partial``, going on where an earlier try left off.

    ``timeout_s``: how long it may stand still. ``make_room`` is told how many bytes are still to come, and of
    how many, before they do; it raises where there is no place for them. True: what came was put behind what an
    earlier run had left.

    Raises:
        NoDownload: what the address answered, or that nothing did. What has come stays for the next try.
        OSError: the partial file cannot be written.
    """
    timeout = httpx.Timeout(timeout_s)
    headers = {"User-Agent": f"lcq/{__version__}", "Accept-Encoding": "identity"}
    fruitless, there_before = 0, _size(partial) > 0
    with httpx.Client(timeout=timeout, headers=headers, follow_redirects=True) as client:
        while True:
            had = _size(partial)
            try:
                return _bring(client, url, partial, most_bytes, progress, make_room) and there_before
            except httpx.TimeoutException as error:
                raise NoDownload(f"stood still for {timeout_s:g} s{_left(partial)}") from error
            except httpx.ConnectError as error:
                raise NoDownload(f"cannot be reached: {_words(error)}{_left(partial)}") from error
            except (httpx.NetworkError, httpx.RemoteProtocolError) as error:  # cut off: go on where it broke
                fruitless = 0 if _size(partial) > had else fruitless + 1
                if fruitless >= _TRIES_WITHOUT_A_BYTE:
                    raise NoDownload(f"broke off: {_words(error)}{_left(partial)}") from error
                time.sleep(_PAUSE_S * fruitless)
            except (httpx.HTTPError, httpx.InvalidURL) as error:
                raise NoDownload(f"failed: {_words(error)}") from error


def discard(partial: Path) -> None:
    """Forget what has come of a file."""
    partial.unlink(missing_ok=True)
    _origin_file(partial).unlink(missing_ok=True)


def _bring(
    client: httpx.Client,
    url: str,
    partial: Path,
    most_bytes: int,
    progress: Progress,
    make_room: Callable[[int, int], None],
) -> bool:
    """One request for what is missing. True: it went on where the partial file ended."""
    have, origin = _size(partial), _origin(partial)
    if have and (origin is None or origin.url != url):
        discard(partial)
        have = 0
    wanted = {}
    if have:
        wanted["Range"] = f"bytes={have}-"
        if origin is not None and origin.validator:
            wanted["If-Range"] = origin.validator
    with client.stream("GET", url, headers=wanted) as answer:
        begins, total = _extent(answer)
        if answer.status_code == httpx.codes.REQUESTED_RANGE_NOT_SATISFIABLE and have and total == have:
            return True  # all of it was there: only what comes after a download was missing
        if answer.status_code == httpx.codes.REQUESTED_RANGE_NOT_SATISFIABLE and have:
            discard(partial)
            raise httpx.RemoteProtocolError("the file there has changed")  # so it is asked for anew
        if not answer.is_success:
            raise NoDownload(f"answered {answer.status_code} {answer.reason_phrase}".rstrip())
        goes_on = answer.status_code == httpx.codes.PARTIAL_CONTENT and begins == have and have > 0
        if not goes_on:
            if answer.status_code == httpx.codes.PARTIAL_CONTENT:
                discard(partial)
                raise httpx.RemoteProtocolError("another part came than was asked for")
            have = 0
        if total is not None and total > most_bytes:
            raise NoDownload(f"has {total} bytes, more than the {most_bytes} that weights may have")
        make_room((total or have) - have, total or 0)
        _note_origin(partial, _Origin(url=url, validator=_validator(answer)))
        with partial.open("ab" if goes_on else "wb") as out:
            progress(have, total)
            for chunk in answer.iter_raw():  # as it comes: in chunks of a size the last, short one would be lost
                have += len(chunk)
                if have > most_bytes:
                    raise NoDownload(f"gives more than the {most_bytes} bytes that weights may have")
                out.write(chunk)
                progress(have, total)
    if total is not None and have != total:
        raise httpx.RemoteProtocolError(f"{have} bytes came, {total} were promised")
    return goes_on


def _extent(answer: httpx.Response) -> tuple[int | None, int | None]:
    """Where the answer's bytes begin in the file, and how long the file is."""
    if answer.status_code in (httpx.codes.PARTIAL_CONTENT, httpx.codes.REQUESTED_RANGE_NOT_SATISFIABLE):
        said = re.fullmatch(r"bytes (?:(\d+)-\d+|\*)/(\d+|\*)", answer.headers.get("Content-Range", "").strip())
        if not said:
            return None, None
        return (int(said[1]) if said[1] else None), (int(said[2]) if said[2] != "*" else None)
    length = answer.headers.get("Content-Length", "")
    return 0, int(length) if length.isdigit() else None


def _validator(answer: httpx.Response) -> str | None:
    etag: str = answer.headers.get("ETag", "")
    modified: str | None = answer.headers.get("Last-Modified")
    return etag if etag.startswith('"') else modified  # a weak ETag may not be used so


def _size(partial: Path) -> int:
    try:
        return partial.stat().st_size
    except FileNotFoundError:
        return 0


def _origin_file(partial: Path) -> Path:
    return partial.with_name(f"{partial.name}.json")


def _origin(partial: Path) -> _Origin | None:
    with contextlib.suppress(FileNotFoundError, ValidationError):
        return _Origin.model_validate_json(_origin_file(partial).read_bytes())
    return None


def _note_origin(partial: Path, origin: _Origin) -> None:
    _origin_file(partial).write_text(origin.model_dump_json(), encoding="utf-8")


def _left(partial: Path) -> str:
    have = _size(partial)
    return f", {have} bytes are kept" if have else ""


def _words(error: Exception) -> str:
    return " ".join(str(error).split()) or type(error).__name__


def shown(url: str) -> str:
    """``url`` as it may be shown: without a password, and without a query, which may hold a key."""
    parts = urlsplit(without_password(url))
    return parts._replace(query="", fragment="").geturl()
