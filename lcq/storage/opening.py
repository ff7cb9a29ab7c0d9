"""The places that the settings name, opened."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from lcq.config import DistributedConfig
from lcq.errors import StorageUnreachable
from lcq.storage.addresses import Kind, read_address
from lcq.storage.blobs import BlobStore
from lcq.storage.depot import Depot
from lcq.storage.folder import FolderStore
from lcq.storage.marks import is_reached
from lcq.storage.room import lack_of_room


def store_of(config: DistributedConfig, url: str = "") -> BlobStore:
    """The blobs at ``url``, else where the settings have them.

    Raises:
        AddressRefused: what is needed to reach that place is not installed, or the place is none.
    """
    url = url or config.storage.url
    if not url:
        return _folder_store(config, config.storage_path / "blobs")
    address = read_address(url)
    if address.kind is Kind.PATH:
        return _folder_store(config, Path(address.place))
    from lcq.storage.objects import ObjectStore

    options = config.storage.options.get(url.partition("://")[0].lower())
    return ObjectStore(url, options, keep_s=config.storage.blobs.keep_hours * 3600)


def _folder_store(config: DistributedConfig, folder: Path) -> FolderStore:
    terms = config.storage.blobs

    def lack(size: int) -> str:
        return lack_of_room(folder, floor_mib=terms.floor_mib, floor_percent=terms.floor_percent, needed=size)

    return FolderStore(folder, lack=lack)


def store_reached(config: DistributedConfig, *, url: str, mark: str, http: str, is_patient: bool = False) -> BlobStore:
    """The blobs of a cluster as they are reached from here: at ``url``, where the ``mark`` shows that it is that place;
    else through the scheduler's HTTP, at ``storage.http`` or as the scheduler says ("host:port"). ``is_patient``: it
    may be started again meanwhile.

    Raises:
        StorageUnreachable: neither can be.
    """
    if is_reached(config, url, mark):
        return store_of(config, url)
    if not (config.storage.http or http):
        raise StorageUnreachable(
            url,
            "it cannot be reached from here, nor does the scheduler's HTTP answer to others",
            hint="set http.bind where the scheduler runs, or a storage.url that is reached from here",
        )
    from lcq.storage.http import PATIENT_TRIES, TRIES, HttpStore

    tries = PATIENT_TRIES if is_patient else TRIES
    return HttpStore(config.storage.http or f"http://{http}", token=config.storage.token, tries=tries)


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
