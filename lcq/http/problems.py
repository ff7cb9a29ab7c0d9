"""What a refusal looks like over HTTP: a problem document (RFC 9457) with the code of the error. Pure."""

from __future__ import annotations

import json
from http import HTTPStatus
from typing import Any

from pydantic import BaseModel, Field

from lcq.errors import (
    AccessDenied,
    AddressBusy,
    AddressUsed,
    AgentTooOld,
    AnswerLate,
    BlobMismatch,
    BlobTooLarge,
    BudgetSpent,
    DiskFull,
    ForeignPage,
    HeadersTooLarge,
    IdempotencyConflict,
    InternalError,
    InvalidInput,
    LcqError,
    NoLog,
    NotFound,
    NothingToUndo,
    NoThumbnail,
    QueueFull,
    StateDamaged,
    StateFormatMismatch,
    StateUnavailable,
    StorageFull,
    StorageUnreachable,
    TooLarge,
    TooManyRequests,
    TooManyRequirements,
    TooSoon,
    TransitionRefused,
    Unauthenticated,
    UnknownCommand,
    UploadConflict,
)

PROBLEM_TYPE = "application/problem+json"


class Problem(BaseModel):
    """A problem document: RFC 9457's members, and LCQ's code and hint."""

    type: str = Field(description="urn:lcq:problem: and the code")
    title: str
    status: int
    detail: str = Field(description="what was tried and found, for people")
    code: str = Field(description="from the closed list of lcq.errors, for programs")
    hint: str = Field(default="", description="what to do")
    errors: str = Field(default="", description="only where IOPaint's web app reads it: the same as detail")


PROBLEMS: dict[str, dict[str, Any]] = {PROBLEM_TYPE: {"schema": {"$ref": "#/components/schemas/Problem"}}}
"""What the OpenAPI document says of a refusal: by reference, because FastAPI would build a model for each of 600."""

_STATUS: tuple[tuple[type[LcqError], HTTPStatus], ...] = (
    (Unauthenticated, HTTPStatus.UNAUTHORIZED),
    (ForeignPage, HTTPStatus.FORBIDDEN),
    (AccessDenied, HTTPStatus.FORBIDDEN),
    (HeadersTooLarge, HTTPStatus.REQUEST_HEADER_FIELDS_TOO_LARGE),
    (TooLarge, HTTPStatus.REQUEST_ENTITY_TOO_LARGE),
    (TooManyRequests, HTTPStatus.TOO_MANY_REQUESTS),
    (TooSoon, HTTPStatus.TOO_MANY_REQUESTS),
    (NotFound, HTTPStatus.NOT_FOUND),
    (AddressUsed, HTTPStatus.GONE),
    (AddressBusy, HTTPStatus.CONFLICT),
    (BlobMismatch, HTTPStatus.UNPROCESSABLE_ENTITY),
    (BlobTooLarge, HTTPStatus.REQUEST_ENTITY_TOO_LARGE),
    (UploadConflict, HTTPStatus.CONFLICT),
    (StorageFull, HTTPStatus.INSUFFICIENT_STORAGE),
    (StorageUnreachable, HTTPStatus.SERVICE_UNAVAILABLE),
    (IdempotencyConflict, HTTPStatus.UNPROCESSABLE_ENTITY),
    (TransitionRefused, HTTPStatus.CONFLICT),
    (NothingToUndo, HTTPStatus.CONFLICT),
    (TooManyRequirements, HTTPStatus.CONFLICT),
    (AgentTooOld, HTTPStatus.CONFLICT),
    (BudgetSpent, HTTPStatus.CONFLICT),
    (QueueFull, HTTPStatus.SERVICE_UNAVAILABLE),
    (StateUnavailable, HTTPStatus.SERVICE_UNAVAILABLE),
    (StateFormatMismatch, HTTPStatus.SERVICE_UNAVAILABLE),
    (NoThumbnail, HTTPStatus.SERVICE_UNAVAILABLE),
    (NoLog, HTTPStatus.SERVICE_UNAVAILABLE),
    (AnswerLate, HTTPStatus.GATEWAY_TIMEOUT),
    (DiskFull, HTTPStatus.INSUFFICIENT_STORAGE),
    (UnknownCommand, HTTPStatus.NOT_IMPLEMENTED),
    (StateDamaged, HTTPStatus.INTERNAL_SERVER_ERROR),
    (InternalError, HTTPStatus.INTERNAL_SERVER_ERROR),
    (InvalidInput, HTTPStatus.BAD_REQUEST),
)
_AGAIN_S = 5  # when to try again where nobody can say


def status_of(error: LcqError) -> HTTPStatus:
    """The status of the most exact class that has one; what else is refused was asked wrongly."""
    return next((status for kind, status in _STATUS if isinstance(error, kind)), HTTPStatus.BAD_REQUEST)


def problem_of(error: LcqError) -> dict[str, Any]:
    """The members of the document."""
    return problem(status_of(error), error.code, error.message, error.hint)


def problem(status: int, code: str, detail: str, hint: str = "") -> dict[str, Any]:
    told = {
        "type": f"urn:lcq:problem:{code}",
        "title": HTTPStatus(status).phrase,
        "status": int(status),
        "detail": detail,
        "code": code,
    }
    return told | ({"hint": hint} if hint else {})


def headers_of(error: LcqError, *, is_for_browsers: bool = False) -> dict[str, str]:
    """What goes with the document: when to come again, or how to say who one is."""
    if isinstance(error, Unauthenticated):
        scheme = 'Basic realm="lcq", charset="UTF-8"' if is_for_browsers else "Bearer"
        return {"www-authenticate": scheme}
    if isinstance(error, UploadConflict):
        return {"upload-offset": str(error.uploaded)}
    again_s = getattr(error, "again_s", None)
    if again_s is not None:
        return {"retry-after": str(max(1, round(again_s + 0.5)))}
    return {"retry-after": str(_AGAIN_S)} if status_of(error) == HTTPStatus.SERVICE_UNAVAILABLE else {}


def as_json(value: object) -> bytes:
    return json.dumps(value, ensure_ascii=False, allow_nan=False, separators=(",", ":")).encode("utf-8", "replace")
