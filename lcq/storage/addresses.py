"""What a task may name: a path, a blob by its SHA-256, or the address of something elsewhere. Pure."""

from __future__ import annotations

import posixpath
import re
from dataclasses import dataclass
from enum import StrEnum
from urllib.parse import unquote, urlsplit

from lcq.errors import AddressRefused

BLOB = "blob:"

KNOWS_ADDRESSES = "addresses"
"""In ``NodeCapability.knows`` of agents that bring what lies elsewhere. Older ones take every address for a path."""

_SCHEME = re.compile(r"^([A-Za-z][A-Za-z0-9+.-]*)://")
_SHA256 = re.compile(r"^[0-9a-f]{64}$")


class Kind(StrEnum):
    """How an address is reached."""

    PATH = "path"  # in the file system of whoever opens it
    BLOB = "blob"  # in the cluster's storage, by its content
    WEB = "web"  # http(s)://
    OBJECT = "object"  # anything else that fsspec knows: s3://, gs://, …


@dataclass(frozen=True)
class Address:
    """``place``: the path, the SHA-256, or the whole URL."""

    kind: Kind
    place: str

    @property
    def is_path(self) -> bool:
        return self.kind is Kind.PATH

    @property
    def name(self) -> str:
        """What the file is called there, as far as it has a name: its suffix may say which format is wanted."""
        if self.kind is Kind.BLOB:
            return ""
        try:
            path = self.place if self.is_path else urlsplit(self.place).path
        except ValueError:  # a host that cannot be one
            return ""
        return posixpath.basename(path)

    def __str__(self) -> str:
        return f"{BLOB}{self.place}" if self.kind is Kind.BLOB else self.place


def read_address(text: str) -> Address:
    """The address that ``text`` is. A Windows drive, and whatever else has no scheme, is a path.

    Raises:
        AddressRefused: it begins like a blob or a URL, and is none.
    """
    if text.startswith(BLOB):
        sha256 = text.removeprefix(BLOB)
        if not is_sha256(sha256):
            raise AddressRefused(text, "a blob is named by 64 hexadecimal digits", hint="such as blob:9f86d081…")
        return Address(Kind.BLOB, sha256)
    scheme = _SCHEME.match(text)
    if scheme is None:
        return Address(Kind.PATH, text)
    match scheme[1].lower():
        case "file":
            return Address(Kind.PATH, _path_of(text))
        case "http" | "https":
            return Address(Kind.WEB, text)
        case _:
            return Address(Kind.OBJECT, text)


def blob_address(sha256: str) -> str:
    """The address of a blob."""
    return f"{BLOB}{sha256}"


def blob_in(text: str) -> str:
    """The SHA-256 of the blob that ``text`` names; "" where it names none."""
    sha256 = text.removeprefix(BLOB)
    return sha256 if text.startswith(BLOB) and is_sha256(sha256) else ""


def is_sha256(text: str) -> bool:
    """Whether ``text`` is a SHA-256 as LCQ writes it: 64 digits, in small letters."""
    return _SHA256.match(text) is not None and not text.endswith("\n")


def is_elsewhere(text: str) -> bool:
    """Whether ``text`` names anything else than a path that a runner opens as it stands."""
    try:
        return not read_address(text).is_path or text.startswith("file:")
    except AddressRefused:  # which is for the porter to say
        return True


def _path_of(text: str) -> str:
    try:
        parts = urlsplit(text)
    except ValueError as error:
        raise AddressRefused(text, str(error), hint="write file:///folder/name") from error
    if parts.netloc not in ("", "localhost"):
        raise AddressRefused(text, f"it names the host {parts.netloc!r}", hint="write file:///folder/name")
    path = unquote(parts.path)
    if not path or "\x00" in path:
        raise AddressRefused(text, "it names no file", hint="write file:///folder/name")
    return path


@dataclass(frozen=True)
class Allowed:
    """Which addresses tasks may name, beside paths and blobs: those that begin with one of ``prefixes``, and public
    web pages where ``web``."""

    prefixes: tuple[str, ...] = ()
    web: bool = False

    def refuse(self, address: Address) -> None:
        """Raises:
        AddressRefused: tasks may not name ``address``.
        """
        if address.kind in (Kind.PATH, Kind.BLOB) or (address.kind is Kind.WEB and self.web):
            return
        plain = _plain(address.place)
        if plain is not None and any(_is_below(plain, prefix) for prefix in self.prefixes):
            return
        if address.kind is Kind.WEB:
            raise AddressRefused(
                address.place,
                "tasks may name no web addresses here",
                hint="see storage.web and storage.urls in lcq.yaml",
            )
        known = ", ".join(self.prefixes) or "none"
        raise AddressRefused(
            address.place, f"tasks may name only what begins with: {known}", hint="see storage.urls in lcq.yaml"
        )


def _is_below(plain: str, prefix: str) -> bool:
    return plain == prefix or plain.startswith(prefix if prefix.endswith("/") else f"{prefix}/")


def _plain(url: str) -> str | None:
    """``url`` where it has no steps by which it could be something else than it looks like; else None."""
    if "\\" in url or any(not char.isprintable() for char in url) or "::" in url:
        return None  # "::" chains file systems of fsspec
    scheme, _, rest = url.partition("://")
    rest = unquote(rest.partition("?")[0].partition("#")[0])
    if "@" in rest.partition("/")[0] or any(step in (".", "..") for step in rest.split("/")):
        return None
    return f"{scheme.lower()}://{rest}"
