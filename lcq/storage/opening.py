"""The places that the settings name, opened."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from lcq.config import DistributedConfig
from lcq.storage.addresses import Kind, read_address
from lcq.storage.blobs import BlobStore
from lcq.storage.depot import Depot
from lcq.storage.folder import FolderStore


def store_of(config: DistributedConfig, url: str = "") -> BlobStore:
    """The blobs at ``url``, else where the settings have them.

    Raises:
        AddressRefused: what is needed to reach that place is not installed, or the place is none.
    """
    url = url or config.storage.url
    if not url:
        return FolderStore(config.storage_path / "blobs")
    address = read_address(url)
    if address.kind is Kind.PATH:
        return FolderStore(Path(address.place))
    from lcq.storage.objects import ObjectStore

    options = config.storage.options.get(url.partition("://")[0].lower())
    return ObjectStore(url, options, keep_s=config.storage.blobs.keep_hours * 3600)


def depot_of(config: DistributedConfig, current: Callable[[], DistributedConfig] | None = None) -> Depot:
    """The depot of a scheduler with these settings; ``current`` answers what they are now.

    Raises:
        AddressRefused: as ``store_of`` says.
    """
    now = current or (lambda: config)
    return Depot(
        store_of(config),
        uploads=config.storage_path / "uploads",
        terms=lambda: now().storage.blobs,
        largest=lambda: now().limits.image_bytes,
    )
