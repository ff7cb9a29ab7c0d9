"""Who may ask what over HTTP: tokens and their roles, names of hosts, origins of web pages. Pure."""

from __future__ import annotations

import base64
import binascii
import hashlib
import hmac
import ipaddress
import re
import secrets
from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from urllib.parse import urlsplit

from lcq.config import HttpConfig
from lcq.errors import AccessDenied, ForeignPage, Unauthenticated

_TOKEN_BYTES = 32
ANYBODY = "anonymous"


class Role(StrEnum):
    """What a token allows, each also what those before it allow."""

    VIEWER = "viewer"
    SUBMITTER = "submitter"
    OPERATOR = "operator"

    def covers(self, needed: Role) -> bool:
        order = list(Role)
        return order.index(self) >= order.index(needed)


@dataclass(frozen=True)
class Caller:
    """Who asks. ``name``: of its token; of who needs none it is ``ANYBODY``."""

    name: str
    role: Role

    @property
    def is_named(self) -> bool:
        return self.name != ANYBODY


def new_token() -> tuple[str, str]:
    """A token that nobody can guess, and its SHA-256, which is what the settings keep."""
    token = secrets.token_urlsafe(_TOKEN_BYTES)
    return token, digest_of(token)


def digest_of(token: str) -> str:
    return hashlib.sha256(token.encode("utf-8", "surrogateescape")).hexdigest()


# ---------------------------------------------------------------- who asks


def caller_of(authorization: str | None, settings: HttpConfig) -> Caller:
    """Who bears this ``Authorization``: a bearer token, or one as the password of Basic, for browsers.

    Raises:
        Unauthenticated: there are tokens, and this is none of them.
    """
    if not settings.tokens:
        return Caller(ANYBODY, Role.OPERATOR)
    if not authorization:
        raise Unauthenticated("this scheduler answers only who shows a token")
    scheme, _, given = authorization.partition(" ")
    token = given.strip()
    if scheme.lower() == "basic":
        token = _password(token)
    elif scheme.lower() != "bearer":
        raise Unauthenticated(f"the authorization is of the kind {scheme[:20]!r}, not Bearer")
    digest = digest_of(token)
    found: Caller | None = None
    for name, known in settings.tokens.items():  # all of them, so that time tells nothing
        if hmac.compare_digest(digest, known.sha256):
            found = Caller(name, Role(known.role))
    if found is None:
        raise Unauthenticated("the token is none of this scheduler's")
    return found


def _password(encoded: str) -> str:
    try:
        return base64.b64decode(encoded, validate=True).decode().partition(":")[2]
    except (binascii.Error, UnicodeDecodeError):
        return ""


# ---------------------------------------------------------------- what it may

_READS = frozenset({"GET", "HEAD", "OPTIONS"})
_OF_SUBMITTERS = re.compile(
    r"^(/v1/(tasks(/[^/]+/(cancel|retry|comment|privacy))?|tasks:foresee|blobs(/.*)?)"
    r"|/api/v1/(inpaint|model|adjust_mask|gen-info|save_image|run_plugin_gen_image|run_plugin_gen_mask"
    r"|switch_plugin_model)|/inpaint|/model|/run_plugin|/save_image)/?$"
)
_OF_ANYBODY = frozenset({"/healthz", "/readyz"})
_OF_WHO_HAS_IT = re.compile(r"^(/v1/once/|/v1/calls/)[^/]")  # what is lent to functions: the address is the authority
_HARMLESS = re.compile(r"^/socket\.io/?$")  # a web app that polls: its posts do nothing


def needed_role(method: str, path: str) -> Role | None:
    """The least role that this takes; None: none, so that watchers need no token."""
    if path in _OF_ANYBODY or _OF_WHO_HAS_IT.match(path):
        return None
    if method in _READS or _HARMLESS.match(path):
        return Role.VIEWER
    return Role.SUBMITTER if method != "DELETE" and _OF_SUBMITTERS.match(path) else Role.OPERATOR


def refuse_more(caller: Caller, method: str, path: str) -> None:
    """Raises:
    AccessDenied: its role is too small for this.
    """
    needed = needed_role(method, path)
    if needed is not None and not caller.role.covers(needed):
        raise AccessDenied(f"{caller.name}, a {caller.role},", f"{method} {path[:100]}", needed)


# ---------------------------------------------------------------- from where


def shown_path(path: str) -> str:
    """``path`` as it may be logged: what is the authority of whoever has it is in no log."""
    lent = _OF_WHO_HAS_IT.match(path)
    return f"{lent[1]}…" if lent else path


def refuse_foreign(headers: Mapping[str, str], settings: HttpConfig, *, own_names: frozenset[str], method: str) -> None:
    """Refuse what a web page has made a browser send here.

    A page can send to any address, also to this host's loopback; and by DNS it can have its own name lead here. So
    the name that is asked for must be this host's or an address, and a page of another origin must be named.

    Raises:
        ForeignPage.
    """
    host = headers.get("host", "")
    name = host_name(host)
    if not (
        _is_address(name)
        or name == "localhost"
        or name in own_names
        or name in settings.hosts
        or _is_public(name, settings)
    ):
        raise ForeignPage(
            f"it is asked for as {host[:100]!r}, which is not this scheduler's name",
            hint="ask by its address, or add the name to http.hosts",
        )
    origin = headers.get("origin")
    if origin is not None:
        if origin in settings.origins or _is_own(origin, host):
            return
        raise ForeignPage(
            f"a web page of {origin[:100]!r} may not use this scheduler", hint="add it to http.origins if it may"
        )
    site = headers.get("sec-fetch-site", "none")
    is_visit = method == "GET" and headers.get("sec-fetch-mode") == "navigate"
    if site in ("cross-site", "same-site") and not is_visit:
        raise ForeignPage(
            "a web page of another origin may not use this scheduler", hint="add it to http.origins if it may"
        )


def host_name(host: str) -> str:
    """``host``, as a Host header has it, without its port: ``[::1]:8081`` is ``::1``."""
    if host.startswith("["):
        return host[1:].partition("]")[0].lower()
    return host.rpartition(":")[0].lower() if ":" in host else host.lower()


def _is_address(name: str) -> bool:
    try:
        ipaddress.ip_address(name)
    except ValueError:
        return False
    return True


def _is_public(name: str, settings: HttpConfig) -> bool:
    return bool(settings.public_url) and name == (urlsplit(settings.public_url).hostname or "")


def _is_own(origin: str, host: str) -> bool:
    try:
        parts = urlsplit(origin)
    except ValueError:
        return False
    return parts.scheme in ("http", "https") and parts.netloc.lower() == host.lower()
