"""The weights of this host: which are there, which may be, and how a file that may becomes one that is.

FOLDER/NAME/weights.safetensors    float32 tensors of a LaMa generator by their bare names; loaded by mmap alone
FOLDER/NAME/manifest.json          what they are and where they came from; without it they are not installed
FOLDER/.downloads/NAME/            what has come of files that are not whole yet
FOLDER/.staging/                   what is being made; whoever holds the lock of that name may clear it
FOLDER/.locks/                     who may write: one process a download, and one at a time what is installed
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import hashlib
import json
import os
import re
import shutil
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO, Literal
from urllib.parse import unquote, urlsplit

import numpy as np
from pydantic import AwareDatetime, BaseModel, ConfigDict, ValidationError

from lcq.errors import (
    DiskFull,
    DownloadFailed,
    InvalidConfig,
    InvalidInput,
    LcqError,
    UnknownModel,
    WeightsNotInstalled,
    WeightsRefused,
)
from lcq.private_folder import make_private
from lcq.runner_config import Md5, ModelsConfig, ModelSource, Sha256

if TYPE_CHECKING:
    from worker.lama_tensors import Generator

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")
_WEIGHTS, _MANIFEST = "weights.safetensors", "manifest.json"
_CHUNK = 2**20
_ANYTHING = "any"

Progress = Callable[[str, int, int | None], None]
"""Told the stage (downloading, checking, unpacking, converting), the bytes done, and of how many, if known."""


class Manifest(BaseModel):
    """What is known of installed weights. ``sha256``, ``md5`` and ``bytes`` are those of the file they came in."""

    model_config = ConfigDict(frozen=True, defer_build=True)

    name: str
    network: Literal["lama"] = "lama"
    channels: int
    blocks: int
    parameters: int
    origin: str  # the address or path it came from
    layout: str  # checkpoint, torchscript or safetensors
    sha256: Sha256
    md5: Md5
    bytes: int
    weights_sha256: Sha256  # of weights.safetensors
    weights_bytes: int
    added_at: AwareDatetime


State = Literal["installed", "damaged", "partial", "absent"]


@dataclass(frozen=True)
class ModelState:
    """A model that is installed, or could be. ``found`` says what is wrong, or how much has come."""

    name: str
    state: State
    manifest: Manifest | None = None
    source: ModelSource | None = None
    found: str = ""


@dataclass(frozen=True)
class Sums:
    """The checksums of a file, and its length in bytes."""

    sha256: str
    md5: str
    bytes: int

    def __str__(self) -> str:
        return f"SHA-256 {self.sha256}, MD5 {self.md5}, {self.bytes} bytes"

    def are_those_of(self, source: ModelSource) -> bool:
        """Whether ``source`` names a checksum, and all that it names are these."""
        named = [(source.sha256, self.sha256), (source.md5, self.md5)]
        return any(wanted for wanted, _ in named) and all(wanted in (None, found) for wanted, found in named)


def _silent(stage: str, done: int, total: int | None) -> None:
    pass


class WeightStore:
    """The weights in one folder, and the rules by which more come in. Several processes may use it at once."""

    def __init__(self, folder: Path, config: ModelsConfig, *, floor_mib: int = 0) -> None:
        """``floor_mib``: so much of the disk is left to others."""
        self.folder = folder
        self.config = config
        self._floor = floor_mib << 20

    # ------------------------------------------------------------ what is there

    def installed(self) -> dict[str, Manifest]:
        """The models whose weights are there, by name. Cheap: reads manifests, and no weights."""
        states = ((name, self._state(name)) for name in self._folders())
        return {name: state.manifest for name, state in states if state.state == "installed" and state.manifest}

    def path(self, name: str) -> Path:
        """The safetensors file of an installed model: float32, bare names (``model.<index>…``).

        Raises:
            WeightsNotInstalled: they are not here, or not whole.
        """
        state = self._state(name) if _NAME.fullmatch(name) else ModelState(name, "absent")
        if state.state != "installed":
            raise WeightsNotInstalled(name, state.found)
        return self.folder / name / _WEIGHTS

    def states(self) -> list[ModelState]:
        """Every model that is installed or has a known source, by name."""
        return [self._state(name) for name in sorted({*self._folders(), *self.config.sources})]

    def verify(self, name: str | None = None) -> list[ModelState]:
        """Read the weights of one model, or of all, and hold them against what was written.

        Raises:
            WeightsNotInstalled: there are none of that name.
        """
        if name is not None and (not _NAME.fullmatch(name) or self._state(name).state in ("absent", "partial")):
            raise WeightsNotInstalled(name)
        return [self._verified(each) for each in ([name] if name is not None else sorted(self._folders()))]

    def _folders(self) -> list[str]:
        try:
            return [entry.name for entry in os.scandir(self.folder) if entry.is_dir() and _NAME.fullmatch(entry.name)]
        except (FileNotFoundError, NotADirectoryError):
            return []
        except OSError as error:
            raise _unusable(self.folder, error) from error

    def _state(self, name: str) -> ModelState:
        source, folder = self.config.sources.get(name), self.folder / name
        was_there = folder.is_dir()  # before and after: it may come or go just as we look
        try:
            manifest = Manifest.model_validate_json((folder / _MANIFEST).read_bytes())
            there = (folder / _WEIGHTS).stat().st_size
        except ValidationError:
            return ModelState(name, "damaged", None, source, f"{folder / _MANIFEST} cannot be read")
        except OSError as error:
            if was_there and folder.is_dir():
                return ModelState(name, "damaged", None, source, f"{folder}: {error.strerror}")
            have = self._downloaded(name)
            found = f"{have} bytes have come" if have else ""
            return ModelState(name, "partial" if have else "absent", None, source, found)
        if there != manifest.weights_bytes:
            found = f"its weights have {there} bytes, not {manifest.weights_bytes}"
            return ModelState(name, "damaged", manifest, source, found)
        return ModelState(name, "installed", manifest, source)

    def _verified(self, name: str) -> ModelState:
        state = self._state(name)
        if state.state != "installed" or state.manifest is None:
            return state
        manifest, path = state.manifest, self.folder / name / _WEIGHTS
        found = ""
        try:
            with path.open("rb") as file:
                if _sums(file, _silent).sha256 != manifest.weights_sha256:
                    found = "its weights are not those that were written"
            if not found:
                _opens(path, manifest.channels, manifest.blocks)
        except WeightsRefused as error:
            found = error.found
        except OSError as error:
            found = error.strerror or str(error)
        return ModelState(name, "damaged" if found else "installed", manifest, state.source, found)

    # ------------------------------------------------------------ what comes in

    def add(
        self, file: Path, name: str | None = None, *, progress: Progress = _silent, origin: str | None = None
    ) -> Manifest:
        """Check a weight file, convert it, and install it as ``name``; what was there under that name is replaced.

        None: the model whose checksum the file has. ``origin`` is noted as where it came from.

        Raises:
            WeightsRefused: it is not on the list, not whole, not a LaMa generator, or asks for more than tensors.
            InvalidInput: there is no such file, or the name cannot be one.
            DiskFull: there is no room. Nothing half-made stays.
        """
        from worker.archive import LARGEST_FILE

        label = str(file)
        with _opened(file) as opened:
            size = os.fstat(opened.fileno()).st_size
            if size > LARGEST_FILE:
                raise WeightsRefused(
                    label, f"it has {_mib(size)}, more than weights have", hint="is it the right file?"
                )
            sums = _sums(opened, progress)
            name = self._allowed(name, sums, label)
            return self._install(opened, label, name, sums, origin or str(file.absolute()), progress)

    def pull(self, name: str, *, progress: Progress = _silent) -> Manifest:
        """Bring the weights of a known model from its addresses, in turn, and install them; if they are there, do
        nothing. What an interrupted download has brought is gone on with.

        Raises:
            UnknownModel: no source is known for it.
            DownloadFailed: none of its addresses gave the file.
            WeightsRefused: the file is not the one that it should be, or no LaMa generator.
            DiskFull: there is no room. Nothing half-made stays.
        """
        source = self.config.sources.get(name)
        if source is None or not _NAME.fullmatch(name):
            raise UnknownModel(name, self.config.sources)
        if not source.urls:
            raise DownloadFailed(name, ["no address is known"], hint=f"set models.sources.{name}.urls")
        tried: list[str] = []
        refused: WeightsRefused | None = None
        with self._disk(), self._locked(name, progress):
            state = self._state(name)
            if state.state == "installed" and state.manifest is not None:
                return state.manifest
            for url in source.urls:
                try:
                    manifest = self._pulled(name, url, progress)
                except _NothingThere as error:
                    tried.append(str(error))
                except WeightsRefused as error:
                    refused = error
                else:
                    shutil.rmtree(self._downloads(name), ignore_errors=True)
                    return manifest
        if refused is not None:
            raise refused
        raise DownloadFailed(
            name,
            tried,
            hint=f"'lcq models pull {name}' goes on where it was; without a network, download the file on another "
            f"machine, then 'lcq models add FILE --name {name}'",
        )

    def remove(self, name: str, *, progress: Progress = _silent) -> None:
        """Delete the weights of a model, and what has come of a download. Runners that have them keep them.

        Raises:
            WeightsNotInstalled: there are none.
        """
        if not _NAME.fullmatch(name) or self._state(name).state == "absent":
            raise WeightsNotInstalled(name)
        with self._disk(), self._locked(name, progress), self._staging(progress) as staging:
            if (self.folder / name).exists():
                (self.folder / name).rename(staging / "removed")
            shutil.rmtree(self._downloads(name), ignore_errors=True)

    def _pulled(self, name: str, url: str, progress: Progress) -> Manifest:
        """The weights from one address, installed.

        Raises:
            _NothingThere: it did not give them.
            WeightsRefused: what it gave is not what it should be.
        """
        from worker.archive import LARGEST_FILE
        from worker.download import NoDownload, discard, download, shown  # here: runners never download

        local = _local(url)
        if local is not None:
            if not local.is_file():
                raise _NothingThere(f"{local} is no file")
            return self.add(local, name, progress=progress)
        partial = self._downloads(name) / f"{hashlib.sha256(url.encode()).hexdigest()[:16]}.part"
        make_private(self.folder.parent)
        partial.parent.mkdir(parents=True, exist_ok=True)
        try:
            went_on = download(
                url,
                partial,
                timeout_s=self.config.timeout_s,
                most_bytes=LARGEST_FILE,
                progress=lambda done, total: progress("downloading", done, total),
                make_room=lambda coming, total: self._make_room(coming + total),  # as it comes, and converted
            )
        except NoDownload as error:
            raise _NothingThere(f"{shown(url)} {error}") from error
        except OSError as error:
            if error.errno in _NO_ROOM:
                discard(partial)
            raise
        try:
            return self.add(partial, name, progress=progress, origin=shown(url))
        except WeightsRefused as error:
            source = self.config.sources[name]
            if went_on or source.sha256 or source.md5:  # a file that no sum is known of may yet be allowed
                discard(partial)
            if went_on:  # its two parts may be of two files: once more, from the beginning
                return self._pulled(name, url, progress)
            raise WeightsRefused(shown(url), error.found, hint=error.hint) from error

    def _allowed(self, name: str | None, sums: Sums, label: str) -> str:
        """The name under which a file with these sums may be installed."""
        if name is not None and not _NAME.fullmatch(name):
            raise InvalidInput(
                f"{name!r} cannot be the name of a model",
                hint="letters, digits, '.', '_' and '-', at most 64, beginning with a letter or digit",
            )
        own = [known for known, source in self.config.sources.items() if sums.are_those_of(source)]
        listed = any(entry in (sums.sha256, sums.md5, _ANYTHING) for entry in self.config.allow)
        source = self.config.sources.get(name) if name is not None else None
        if not (listed or (name in own) or (own and source is None)):
            raise WeightsRefused(
                label,
                f"its checksums are those of {own[0] if own else 'no known model'}: {sums}" + _wanted(name, source),
                hint="if you trust it, add its SHA-256 to models.allow; else get the file anew",
            )
        if name is not None:
            return name
        if not own:
            raise InvalidInput(
                f"{label} is allowed, but is the file of no known model", hint="say what it is: --name NAME"
            )
        return own[0]

    def _install(self, file: BinaryIO, label: str, name: str, sums: Sums, origin: str, progress: Progress) -> Manifest:
        from worker.archive import packed_weights, read_tensors  # here: a runner only looks what is installed
        from worker.lama_tensors import find_generator

        with self._disk(), self._staging(progress) as staging, contextlib.ExitStack() as stack:
            source = self.config.sources.get(name)
            member = packed_weights(file, label, source.file if source else None)
            if member is not None:
                self._make_room(2 * member.size)
                unpacked = stack.enter_context((staging / "unpacked").open("xb+"))
                member.unpack(unpacked, lambda done: progress("unpacking", done, member.size))
                unpacked.flush()
                file, label = unpacked, f"{label}: {member.name}"
            contents = read_tensors(file, label)
            generator = find_generator(contents.tensors, label)
            if sum(tensor.nbytes for tensor in generator.tensors.values()) > os.fstat(file.fileno()).st_size:
                raise WeightsRefused(label, "its tensors claim more bytes than it has", hint="get the file anew")
            made = staging / "made"
            made.mkdir()
            length, weights_sha256 = self._convert(generator, made / _WEIGHTS, label, progress)
            _opens(made / _WEIGHTS, generator.channels, generator.blocks)
            manifest = Manifest(
                name=name,
                channels=generator.channels,
                blocks=generator.blocks,
                parameters=generator.parameters,
                origin=origin,
                layout=contents.layout,
                sha256=sums.sha256,
                md5=sums.md5,
                bytes=sums.bytes,
                weights_sha256=weights_sha256,
                weights_bytes=length,
                added_at=datetime.now(UTC),
            )
            with (made / _MANIFEST).open("x", encoding="utf-8") as out:
                out.write(manifest.model_dump_json(indent=2) + "\n")
                _to_disk(out.fileno())
            _folder_to_disk(made)
            self._put(made, self.folder / name)
            return manifest

    def _put(self, made: Path, target: Path) -> None:
        """Put a finished model where it belongs. Who looks meanwhile finds the old one, the new one, or both mixed:
        weights of the one and manifest of the other, which a kill in between leaves for ``verify`` to find."""
        if not (target / _MANIFEST).exists():
            if target.exists():  # damaged beyond being one
                target.rename(made.parent / "replaced")
            made.rename(target)
        else:
            for part in (_WEIGHTS, _MANIFEST):
                (made / part).replace(target / part)
            _folder_to_disk(target)
        _folder_to_disk(self.folder)

    def _convert(self, generator: Generator, target: Path, label: str, progress: Progress) -> tuple[int, str]:
        """Write the generator as float32 safetensors; its length and SHA-256."""
        header: dict[str, Any] = {"__metadata__": {"format": "pt", "network": "lama"}}
        end = 0
        for name, tensor in generator.tensors.items():
            begin, end = end, end + 4 * tensor.size
            header[name] = {"dtype": "F32", "shape": tensor.shape, "data_offsets": (begin, end)}
        self._make_room(end)
        for region in {tensor.region for tensor in generator.tensors.values()}:
            region.check()
        words = json.dumps(header, separators=(",", ":")).encode()
        words += b" " * (-(8 + len(words)) % 64)  # so that every mapped tensor lies well in memory
        digest, done = hashlib.sha256(), 0
        with target.open("xb") as out:

            def write(content: bytes) -> None:
                out.write(content)
                digest.update(content)

            write(len(words).to_bytes(8, "little") + words)
            for name, tensor in generator.tensors.items():
                with np.errstate(over="ignore"):  # a float64 that does not fit becomes infinite, and is refused
                    values = tensor.read().astype("<f4")
                _sound(values, name, label)
                write(values.tobytes())
                done += values.nbytes
                progress("converting", done, end)
            _to_disk(out.fileno())
            return out.tell(), digest.hexdigest()

    # ------------------------------------------------------------ the folder

    def _downloads(self, name: str) -> Path:
        return self.folder / ".downloads" / name

    def _downloaded(self, name: str) -> int:
        """The bytes that have come of a download that is not whole."""
        with contextlib.suppress(FileNotFoundError):  # it has just become whole, or was removed
            return sum(part.stat().st_size for part in self._downloads(name).glob("*.part"))
        return 0

    def _make_room(self, size: int) -> None:
        """Raises:
        DiskFull: so many bytes do not fit.
        """
        free = shutil.disk_usage(self.folder).free
        if size > free - self._floor:
            kept = f", of which {_mib(self._floor)} are kept in reserve" if self._floor else ""
            raise DiskFull(str(self.folder), f"{_mib(size)} needed, {_mib(free)} free{kept}")

    @contextlib.contextmanager
    def _disk(self) -> Iterator[None]:
        """Turns what the file system says into our words."""
        try:
            yield
        except OSError as error:
            if error.errno in _NO_ROOM:
                raise DiskFull(str(self.folder), error.strerror or "") from error
            raise _unusable(self.folder, error) from error

    @contextlib.contextmanager
    def _locked(self, what: str, progress: Progress) -> Iterator[None]:
        """Be the only process with this lock in the block; wait while another one has it."""
        locks = self.folder / ".locks"
        make_private(self.folder.parent)
        locks.mkdir(parents=True, exist_ok=True)
        with (locks / what).open("ab") as lock:  # never deleted: who waits for it must wait for the same file
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                progress("waiting for another lcq models", 0, None)
                fcntl.flock(lock, fcntl.LOCK_EX)
            yield

    @contextlib.contextmanager
    def _staging(self, progress: Progress) -> Iterator[Path]:
        """A fresh folder beside the models, gone with all that is in it when the block ends. One at a time."""
        staging = self.folder / ".staging"
        with self._locked(".staging", progress):
            shutil.rmtree(staging, ignore_errors=True)  # of one that was killed
            staging.mkdir()
            try:
                yield staging
            finally:
                shutil.rmtree(staging, ignore_errors=True)


class _NothingThere(Exception):
    """An address did not give a file; the text names it and says why."""


_NO_ROOM = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)


def _unusable(folder: Path, error: OSError) -> LcqError:
    where = error.filename or folder
    return InvalidConfig(
        f"cannot use the models folder {folder}: {where}: {error.strerror}", hint="set models.folder, or data_dir"
    )


def _opened(file: Path) -> BinaryIO:
    """Raises:
    InvalidInput: it is no file, or cannot be read.
    """
    hint = "give a weight file: .ckpt, .pt, .pth, .safetensors, or a .zip with one in it"
    try:
        if file.exists() and not file.is_file():  # a pipe would keep us waiting
            raise InvalidInput(f"{file} is no file", hint=hint)
        return file.open("rb")
    except OSError as error:
        raise InvalidInput(f"cannot read {file}: {error.strerror}", hint=hint) from error


def _wanted(name: str | None, source: ModelSource | None) -> str:
    """What the sums should have been, as the end of a sentence."""
    sums = (("SHA-256", source.sha256), ("MD5", source.md5)) if source is not None else ()
    named = " and ".join(f"{kind} {value}" for kind, value in sums if value)
    return f"; {name} has {named}" if named else ""


def _sums(file: BinaryIO, progress: Progress) -> Sums:
    sha256, md5 = hashlib.sha256(), hashlib.md5(usedforsecurity=False)
    total, done = os.fstat(file.fileno()).st_size, 0
    file.seek(0)
    while chunk := file.read(_CHUNK):
        sha256.update(chunk)
        md5.update(chunk)
        done += len(chunk)
        progress("checking", done, total)
    return Sums(sha256.hexdigest(), md5.hexdigest(), done)


def _sound(values: np.ndarray[Any, Any], name: str, label: str) -> None:
    """Raises:
    WeightsRefused: a network with these values would paint nothing.
    """
    if not np.isfinite(values).all():
        raise WeightsRefused(label, f"{name} has values that are no numbers, or infinite", hint="get the file anew")
    if name.endswith(".running_var") and (values < 0).any():
        raise WeightsRefused(label, f"{name} is a variance, and has negative values", hint="get the file anew")


def _opens(path: Path, channels: int, blocks: int) -> None:
    """Open converted weights as an engine does, and look at their names and shapes.

    Raises:
        WeightsRefused: they are not what was to be written.
    """
    from safetensors import SafetensorError, safe_open

    from worker.lama_tensors import generator_shapes

    try:
        with safe_open(path, framework="numpy") as weights:
            found = {name: tuple(weights.get_slice(name).get_shape()) for name in weights.keys()}  # noqa: SIM118
    except SafetensorError as error:
        raise WeightsRefused(str(path), f"it cannot be opened: {error}", hint="add the weights anew") from error
    if found != generator_shapes(channels, blocks):
        raise WeightsRefused(str(path), "its tensors are not those of its manifest", hint="add the weights anew")


def _local(url: str) -> Path | None:
    """The path that an address means, if it means one."""
    if url.startswith("file://"):
        return Path(unquote(urlsplit(url).path))
    return None if "://" in url else Path(url).expanduser()


def _mib(size: int) -> str:
    return f"{size / 2**20:.1f} MiB"


def _to_disk(descriptor: int) -> None:
    os.fsync(descriptor)


def _folder_to_disk(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
