"""The mark of a place for blobs: whoever finds it there has the place that is meant, not another of the same name."""

from __future__ import annotations

import contextlib
import os
from pathlib import Path

from lcq.config import DistributedConfig
from lcq.errors import LcqError, StorageUnreachable
from lcq.private_folder import make_private
from lcq.storage.addresses import Kind, read_address

NAME = "lcq-store"
_LONGEST = 64


def read_mark(config: DistributedConfig, url: str = "") -> str:
    """The mark at ``url``, else where the settings have blobs; "": none.

    Raises:
        AddressRefused: what is needed to go there is not installed. StorageUnreachable.
    """
    place = _place(config, url)
    if isinstance(place, Path):
        try:
            with place.open("rb") as file:
                return _plain(file.read(_LONGEST))
        except FileNotFoundError:
            return ""
        except OSError as error:
            raise StorageUnreachable(str(place), error.strerror or str(error)) from error
    from lcq.storage.objects import Objects

    objects = Objects(_scheme(place), config.storage.options.get(_scheme(place)))
    with contextlib.suppress(FileNotFoundError):
        return _plain(b"".join(objects.read(place, length=_LONGEST)))
    return ""


def write_mark(config: DistributedConfig, mark: str) -> str:
    """Put ``mark`` where the settings have blobs; answers the one that is there then: somebody may have been first.

    Raises:
        AddressRefused, StorageUnreachable, StorageFull.
    """
    place = _place(config, "")
    if isinstance(place, Path):
        try:
            make_private(place.parent)
            with contextlib.suppress(FileExistsError):
                descriptor = os.open(place, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o644)
                with os.fdopen(descriptor, "wb") as file:
                    file.write(mark.encode())
        except OSError as error:
            raise StorageUnreachable(str(place), error.strerror or str(error)) from error
    else:
        from lcq.storage.objects import Objects

        Objects(_scheme(place), config.storage.options.get(_scheme(place))).write(place, mark.encode())
    return read_mark(config)


def is_reached(config: DistributedConfig, url: str, mark: str) -> bool:
    """Whether the place at ``url`` can be reached from here, and is the one with this ``mark``."""
    if not mark:
        return False
    try:
        return read_mark(config, url) == mark
    except LcqError:
        return False


def _place(config: DistributedConfig, url: str) -> Path | str:
    url = url or config.storage.url
    if not url:
        return config.storage_path / "blobs" / NAME
    address = read_address(url)
    return Path(address.place) / NAME if address.kind is Kind.PATH else f"{url.rstrip('/')}/{NAME}"


def _scheme(url: str) -> str:
    return url.partition("://")[0].lower()


def _plain(data: bytes) -> str:
    text = data.decode("ascii", "replace").strip()
    return text if text.isalnum() else ""
