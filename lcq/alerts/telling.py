"""How receivers are told of an alert: a POST that is signed, or a program with the alert on its standard input."""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import hmac
import json
import os
import signal
import time
from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path
from urllib.parse import urlsplit

from lcq import __version__
from lcq.alert_config import AlertReceiver
from lcq.alerts.records import Happening, Notice

_LONGEST = 300
_PAUSE_S = (2.0, 300.0)  # before the second try, and at most
_LAST_WORDS = 4096  # bytes of what a program wrote to stderr that are looked at
_KILL_S = 5.0


class NotTold(Exception):
    """A receiver has not taken a notice; why, in words."""


def pause_after(tried: int) -> float:
    """Seconds until the next try, after so many."""
    return min(_PAUSE_S[1], _PAUSE_S[0] * float(2 ** min(20, max(0, tried - 1))))


def told_of(receiver: AlertReceiver) -> tuple[str, str]:
    """Which kind of receiver it is, and where it is, without secrets: an address often has one in its path."""
    if receiver.url is not None:
        parts = urlsplit(receiver.url)
        return "webhook", f"{parts.scheme}://{parts.hostname or ''}" + (f":{parts.port}" if parts.port else "")
    return "command", receiver.command[0]


def as_document(notice: Notice, cluster: str) -> dict[str, object]:
    """What a receiver is told, as JSON. ``text`` alone says all, for chats that show just that."""
    alert = notice.alert
    return {
        "id": notice.id,
        "happening": notice.happening,
        "text": _headline(notice, cluster),
        "cluster": cluster,
        "rule": alert.rule,
        "when": alert.when,
        "subject": alert.subject,
        "severity": alert.severity,
        "value": alert.value,
        "about": alert.text,
        "since": _time(alert.since_ms),
        "fired": _time(alert.fired_ms),
        "at": _time(notice.at_ms),
        "runbook": notice.runbook,
    }


def _headline(notice: Notice, cluster: str) -> str:
    word = {
        Happening.FIRING: notice.alert.severity,
        Happening.REPEATED: f"still {notice.alert.severity}",
        Happening.CLEARED: "over",
        Happening.TEST: "test",
    }[notice.happening]
    return f"[{word}] {cluster}: {notice.alert.text}"


def _time(at_ms: int | None) -> str | None:
    return None if not at_ms else datetime.fromtimestamp(at_ms / 1000, UTC).isoformat(timespec="milliseconds")


async def tell(receiver: AlertReceiver, notice: Notice, cluster: str) -> None:
    """Tell it once.

    Raises:
        NotTold: it could not be reached, did not want it, or took too long.
    """
    body = json.dumps(as_document(notice, cluster), ensure_ascii=False).encode()
    try:
        async with asyncio.timeout(receiver.timeout_s):
            if receiver.url is not None:
                await _post(receiver, receiver.url, notice.id, body)
            else:
                await _run(receiver.command, body)
    except TimeoutError:
        raise NotTold(f"it has not answered within {receiver.timeout_s:g} s") from None


# ---------------------------------------------------------------- a web address


def signature(secret: str, at_s: int, body: bytes) -> str:
    """What X-LCQ-Signature has: who knows the secret can tell that ``body`` was sent at ``at_s`` (X-LCQ-Timestamp)."""
    return "sha256=" + hmac.new(secret.encode(), f"{at_s}.".encode() + body, hashlib.sha256).hexdigest()


async def _post(receiver: AlertReceiver, url: str, notice_id: str, body: bytes) -> None:
    import httpx  # here: most clusters tell nobody

    headers = {
        "content-type": "application/json",
        "user-agent": f"lcq/{__version__}",
        "x-lcq-delivery": notice_id,  # the same at each try: who has taken it already can pass over the others
    }
    secret, bearer = await asyncio.to_thread(
        lambda: (
            _secret(receiver.secret, receiver.secret_file, "secret_file"),
            _secret(receiver.bearer, receiver.bearer_file, "bearer_file"),
        )
    )
    if secret:
        at_s = int(time.time())
        headers |= {"x-lcq-timestamp": str(at_s), "x-lcq-signature": signature(secret, at_s, body)}
    if bearer:
        headers["authorization"] = f"Bearer {bearer}"
    try:
        async with httpx.AsyncClient(timeout=receiver.timeout_s, follow_redirects=False) as client:
            answer = await client.post(url, content=body, headers=headers)
    except (httpx.HTTPError, httpx.InvalidURL, OSError, ValueError) as error:
        raise NotTold(_short(f"{type(error).__name__}: {error}".removesuffix(": "), receiver)) from error
    if not answer.is_success:
        said = " ".join(answer.text[:_LONGEST].split())
        raise NotTold(_short(f"it answers {answer.status_code} {answer.reason_phrase}: {said}", receiver))


def _secret(given: str | None, file: Path | None, name: str) -> str:
    if file is None:
        return given or ""
    try:
        return file.read_text(encoding="utf-8").strip()
    except (OSError, UnicodeDecodeError) as error:
        why = error.strerror if isinstance(error, OSError) else "it is no text"
        raise NotTold(f"{name} {file} cannot be read: {why}") from error


def _short(text: str, receiver: AlertReceiver) -> str:
    """For a log: one line, and not the address, which may be a secret."""
    if receiver.url:
        text = text.replace(receiver.url, told_of(receiver)[1])
    return "".join(char for char in " ".join(text.split()) if char.isprintable())[:_LONGEST]


# ---------------------------------------------------------------- a program


def _environment(environ: Mapping[str, str]) -> dict[str, str]:
    """Ours, without our own settings: among them are secrets."""
    return {name: value for name, value in environ.items() if not name.startswith("LCQ_")}


async def _run(command: tuple[str, ...], body: bytes) -> None:
    try:
        process = await _started(command)
    except (OSError, ValueError) as error:
        why = error.strerror if isinstance(error, OSError) else str(error)
        raise NotTold(f"{command[0]} cannot be started: {why}") from error
    try:
        _, said = await process.communicate(body)
    finally:
        await _end(process)
    if process.returncode:
        last = said[-_LAST_WORDS:].decode("utf-8", "replace").strip().splitlines()
        words = "".join(char for char in (last[-1] if last else "") if char.isprintable())
        raise NotTold(f"{command[0]} ended with {process.returncode}" + (f": {words}" if words else "")[:_LONGEST])


async def _started(command: tuple[str, ...]) -> asyncio.subprocess.Process:
    """The program, in a session of its own. Who is not wanted any more while it starts ends all of it, too: asyncio
    would end the first process alone, and that may have begun others before we hear that it runs.

    Raises:
        OSError, ValueError: it cannot be started.
    """
    starting = asyncio.create_task(
        asyncio.create_subprocess_exec(
            *command,
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.DEVNULL,
            stderr=asyncio.subprocess.PIPE,
            env=_environment(os.environ),
            start_new_session=True,
        ),
        name=f"start of {command[0]}",
    )
    try:
        return await asyncio.shield(starting)
    except asyncio.CancelledError:
        with contextlib.suppress(OSError, ValueError):
            await _end(await starting)
        raise


async def _end(process: asyncio.subprocess.Process) -> None:
    """End it, with all that it has started in its session."""
    if process.returncode is None:
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(process.pid, signal.SIGKILL)
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(_KILL_S):
                await process.wait()
