"""Blobs through a scheduler's HTTP, for who cannot reach the place where they are (docs/decisions/0019-bytes.md)."""

from __future__ import annotations

import contextlib
import hashlib
import random
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from types import TracebackType
from typing import IO, Any, Self, TypeVar

import httpx

from lcq.errors import (
    ERROR_BY_CODE,
    BlobMismatch,
    BlobNotFound,
    LcqError,
    StorageFull,
    StorageUnreachable,
    UploadConflict,
    error_from_wire,
)
from lcq.storage.addresses import is_sha256
from lcq.storage.blobs import CHUNK, Blob, Moved, nothing

_CONNECT_S = 10.0
_SILENCE_S = 60.0  # how long a transfer may stand still
TRIES = 6
"""In a row that move nothing; then it is given up, after some ten seconds."""
_PAUSE_S = (0.2, 5.0)
PATIENT_TRIES = 18
"""Of people's commands: a scheduler that is started again, for most of a minute, ends no upload."""
PART = 32 * 2**20
"""Bytes of one request at most: a scheduler takes no endless ones (``http.body_mib``, ``http.body_s``)."""

AnswerT = TypeVar("AnswerT")


class HttpStore:
    """The blobs that the scheduler at ``url`` (``http://host:port``) hands out. What breaks off goes on where it was.

    Use it as a ``with`` block, or ``close()`` it.
    """

    def __init__(self, url: str, *, token: str = "", tries: int = TRIES) -> None:
        self.url = url.rstrip("/")
        self._tries = tries
        # Not through the environment's proxy: what is meant is a scheduler of this cluster.
        self._client = httpx.Client(
            base_url=self.url,
            headers={"Authorization": f"Bearer {token}"} if token else {},
            timeout=httpx.Timeout(_SILENCE_S, connect=_CONNECT_S),
            trust_env=False,
            follow_redirects=False,
        )

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        self._client.close()

    # ------------------------------------------------------------ a store's ways

    def stat(self, sha256: str) -> Blob | None:
        return self._look(sha256)[0]

    def put(self, source: Path, sha256: str, *, moved: Moved = nothing) -> Blob:
        with source.open("rb") as file:
            size = file.seek(0, 2)
            told = 0  # how far ``moved`` has been told

            def tell(offset: int) -> None:
                nonlocal told
                if offset > told:
                    moved(offset - told)
                    told = offset

            def attempt() -> Blob:
                known, offset = self._look(sha256)
                if known is not None:
                    return known
                offset = min(offset, size)
                tell(offset)
                while size - offset > PART:
                    self._send(file, sha256, offset, offset + PART, size, tell)
                    offset += PART
                self._send(file, sha256, offset, size, size, tell)
                return Blob(sha256, size, time.time())

            blob = self._patiently(attempt, lambda: told)
            tell(size)
            return blob

    def get(self, sha256: str, target: Path, *, moved: Moved = nothing) -> Blob:
        self._check(sha256)
        found = hashlib.sha256()
        size = 0
        out = target.open("xb")
        try:
            with out:

                def attempt() -> None:
                    nonlocal size
                    for chunk in self._received(sha256, size, None):
                        found.update(chunk)
                        out.write(chunk)
                        size += len(chunk)
                        moved(len(chunk))

                self._patiently(attempt, lambda: size)
            if found.hexdigest() != sha256:
                raise BlobMismatch(sha256, found.hexdigest())
        except BaseException:
            target.unlink(missing_ok=True)
            raise
        return Blob(sha256, size, time.time())

    def read(self, sha256: str, *, offset: int = 0, length: int | None = None) -> Iterator[bytes]:
        self._check(sha256)
        with self._failures_named():
            yield from self._received(sha256, offset, length)

    def delete(self, sha256: str) -> bool:
        self._check(sha256)
        with self._failures_named():
            answer = self._client.delete(_place(sha256))
        if answer.status_code == httpx.codes.NOT_FOUND:
            return False
        self._refuse(answer, sha256)
        return True

    def blobs(self) -> Iterator[Blob]:
        raise StorageUnreachable(self.url, "what blobs there are only a scheduler sees", hint="ask it")

    # ------------------------------------------------------------ HTTP

    def _look(self, sha256: str) -> tuple[Blob | None, int]:
        """What is there; else how many bytes of it have come."""
        self._check(sha256)
        with self._failures_named():
            answer = self._client.head(_place(sha256))
        if answer.status_code == httpx.codes.NOT_FOUND:
            return None, _whole(answer.headers.get("upload-offset"))
        self._refuse(answer, sha256)
        return Blob(sha256, _whole(answer.headers.get("content-length")), time.time()), 0

    def _send(
        self, file: IO[bytes], sha256: str, offset: int, end: int, size: int, tell: Callable[[int], None]
    ) -> None:
        """Send what is from ``offset`` to ``end`` of a file of that ``size``."""
        file.seek(offset)

        def pieces() -> Iterator[bytes]:
            at = offset
            while chunk := file.read(min(CHUNK, end - at)):
                yield chunk
                at += len(chunk)
                tell(at)

        headers = {"Content-Length": str(end - offset), "Content-Type": "application/octet-stream"}
        if (offset, end) != (0, size):
            headers["Content-Range"] = f"bytes {offset}-{end - 1}/{size}"
        with self._failures_named():
            answer = self._client.put(_place(sha256), content=pieces(), headers=headers)
        is_part = end < size and answer.status_code == httpx.codes.CONFLICT
        if not (is_part and _whole(answer.headers.get("upload-offset")) == end):  # the rest has not come yet, of course
            self._refuse(answer, sha256)

    def _received(self, sha256: str, offset: int, length: int | None) -> Iterator[bytes]:
        if length is not None and length <= 0:
            return
        headers = {"Accept-Encoding": "identity"}
        if offset or length is not None:
            headers["Range"] = f"bytes={offset}-" + ("" if length is None else str(offset + length - 1))
        with self._client.stream("GET", _place(sha256), headers=headers) as answer:
            if answer.status_code == httpx.codes.REQUESTED_RANGE_NOT_SATISFIABLE:
                return  # all of it is here
            if answer.is_error or answer.is_redirect:
                answer.read()
                self._refuse(answer, sha256)
            if "Range" in headers and answer.status_code != httpx.codes.PARTIAL_CONTENT:
                raise StorageUnreachable(self.url, "it sends no ranges", hint="is that a scheduler of this version?")
            yield from answer.iter_bytes(CHUNK)

    def _patiently(self, attempt: Callable[[], AnswerT], moved: Callable[[], int]) -> AnswerT:
        """Try until it succeeds, or so many tries in a row have moved nothing.

        Raises:
            StorageUnreachable: then; what else it is refused for, at once.
        """
        failed = 0
        while True:
            before = moved()
            try:
                with self._failures_named():
                    return attempt()
            except (StorageUnreachable, UploadConflict) as trouble:
                failed = 1 if moved() > before else failed + 1
                if failed >= self._tries:
                    if isinstance(trouble, StorageUnreachable):
                        raise
                    raise StorageUnreachable(self.url, trouble.message) from trouble
            time.sleep(min(_PAUSE_S[1], _PAUSE_S[0] * 2**failed) * random.uniform(0.5, 1.0))

    def _refuse(self, answer: httpx.Response, sha256: str) -> None:
        """Raises:
        LcqError: whatever the answer complains of.
        """
        if answer.is_success:
            return
        told = _problem(answer)
        code, detail = str(told.get("code") or ""), str(told.get("detail") or told.get("title") or "")
        if answer.status_code == httpx.codes.NOT_FOUND:
            raise BlobNotFound(sha256)
        if answer.status_code == httpx.codes.CONFLICT:
            offset = _whole(answer.headers.get("upload-offset"))
            raise UploadConflict(sha256, detail or "it is refused", uploaded=offset)
        if answer.status_code == httpx.codes.INSUFFICIENT_STORAGE:
            raise StorageFull(self.url, detail or "it has no room")
        if code in ERROR_BY_CODE:
            raise error_from_wire(code, detail, str(told.get("hint") or ""))
        said = f"it answered {answer.status_code}" + (f": {detail}" if detail else "")
        if answer.status_code in (httpx.codes.UNAUTHORIZED, httpx.codes.FORBIDDEN):
            raise LcqError(f"{self.url}: {said}", hint="see storage.token in lcq.yaml")
        raise StorageUnreachable(self.url, said)

    @contextlib.contextmanager
    def _failures_named(self) -> Iterator[None]:
        try:
            yield
        except httpx.HTTPError as error:
            said = " ".join(str(error).split()) or type(error).__name__
            raise StorageUnreachable(self.url, said) from error

    @staticmethod
    def _check(sha256: str) -> None:
        if not is_sha256(sha256):
            raise BlobNotFound(sha256[:80])


def _place(sha256: str) -> str:
    return f"/v1/blobs/{sha256}"


def _whole(text: str | None) -> int:
    return int(text) if text is not None and text.isascii() and text.isdigit() else 0


def _problem(answer: httpx.Response) -> Mapping[str, Any]:
    with contextlib.suppress(ValueError, httpx.HTTPError):
        told = answer.json()
        if isinstance(told, dict):
            return told
    return {}
