"""Which mask belongs to which image, and what each result is called: the rules of ``lcq submit``."""

from __future__ import annotations

import os
import stat
import unicodedata
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path, PurePath
from types import MappingProxyType

from lcq.errors import InvalidInput

IMAGE_SUFFIXES = frozenset((
    ".jpg", ".jpeg", ".jpe", ".jfif", ".png", ".webp", ".tif", ".tiff", ".bmp", ".gif",
))  # fmt: skip
"""What LCQ can read (lcq.images, which is not imported here: most commands need no image library)."""

DEFAULT_OUT = "cleaned"
"""The folder beside an image in which its result lies when nothing else was said."""

_MASK_MARK = "_mask"


@dataclass(frozen=True)
class Pair:
    """An image with its mask, both absolute; ``relative`` is its name below the folder of results."""

    image: Path
    mask: Path | None
    relative: PurePath


@dataclass(frozen=True)
class Skipped:
    """Something found in a folder that does not become a task, and why."""

    path: Path
    why: str


@dataclass(frozen=True)
class Pairing:
    pairs: tuple[Pair, ...]
    skipped: tuple[Skipped, ...]


def pair_images(
    inputs: Sequence[Path], mask: Path | None = None, *, out: Path | None = None, mask_needed: bool = True
) -> Pairing:
    """Find the mask of every image named in ``inputs`` or found in its folders, in the order of their names.

    ``mask`` is one file for all, or a folder in which masks have the names of their images (in the same
    subfolders, or flat). Without it an image's mask lies beside it as ``NAME_mask.EXT``. What is in a folder
    but cannot be paired is skipped, with the reason; what is named by itself must be right. Folders of masks
    and of results (``out``, and any called ``cleaned``) are left out where they lie in a folder of images.
    Where no ``mask_needed``, an image without one is a pair all the same.

    Raises:
        InvalidInput: a path that was named is not there, cannot be an image, or has no mask; or ``out`` is no folder.
    """
    if out is not None:
        _refuse_file(out)
    masks = _Masks(_absolute(mask) if mask is not None else None, mask_needed)
    left_out = {_real(path) for path in (mask, out) if path is not None}
    pairs: dict[Path, Pair] = {}
    skipped: list[Skipped] = []
    for given in inputs:
        path = _absolute(given)
        kind = _kind(path)
        if kind == "folder":
            prefix = PurePath(path.name) if len(inputs) > 1 else PurePath()
            for found in _found_in(path, masks, left_out, prefix):
                if isinstance(found, Skipped):
                    skipped.append(found)
                else:
                    pairs.setdefault(found.image, found)
        elif kind != "file":
            raise InvalidInput(f"{given} is {kind}", hint="name images or folders; nothing was submitted")
        elif _real(path) not in left_out and not masks.has_image_of(path):  # a wildcard names masks too
            match = masks.of(path, PurePath(path.name))
            if isinstance(match, str):
                raise InvalidInput(f"{given}: {match}", hint="name a mask with --mask; nothing was submitted")
            pairs.setdefault(path, Pair(path, match, PurePath(path.name)))
    return Pairing(tuple(pairs.values()), tuple(skipped))


def _refuse_file(out: Path) -> None:
    """Refuse a folder for results that is a file, or is called as an image is and would be made so."""
    if out.is_dir():
        return
    is_image = out.suffix.lower() in IMAGE_SUFFIXES
    if is_image or out.exists():
        found = "is named like an image" if is_image else "is a file"
        raise InvalidInput(
            f"{out} {found}, and results go into a folder",
            hint=f"such as {out.with_suffix('') if is_image else DEFAULT_OUT}; there each is called as its image is",
        )


def format_named(typed: str) -> str:
    """The name of the format that ``typed`` means: a name or a suffix, in any case.

    Raises:
        InvalidInput: no such format can be written.
    """
    from lcq.images import FORMATS

    wanted = typed.lower().removeprefix(".")
    for name, suffixes in FORMATS.items():
        if wanted == name or f".{wanted}" in suffixes:
            return name
    raise InvalidInput(f"no format {typed!r} can be written", hint=f"use one of {', '.join(FORMATS)}")


@dataclass(frozen=True)
class Named:
    """Where the result of a pair goes; ``why`` says why it is not called what one would expect."""

    path: Path
    why: str = ""


def result_paths(pairs: Iterable[Pair], out: Path | None = None, image_format: str | None = None) -> list[Path]:
    """Where each pair's result goes, as ``name_results`` says, in a folder of which nothing is known."""
    return [named.path for named in name_results(pairs, out, image_format)]


def result_folder(pair: Pair, out: Path | None = None) -> Path:
    """The folder whose manifest tells of the result of ``pair``: ``out``, else ``cleaned`` beside the image."""
    return _absolute(out) if out is not None else pair.image.parent / DEFAULT_OUT


def name_results(
    pairs: Iterable[Pair],
    out: Path | None = None,
    image_format: str | None = None,
    *,
    owners: Mapping[Path, Path] = MappingProxyType({}),
) -> list[Named]:
    """Where each pair's result goes: below ``out`` by its relative name, else in ``cleaned`` beside the image.

    The suffix stays if it means ``image_format`` (or, without one, if it can be written at all); else it
    becomes that format's, or PNG's. No two are the same, also not where case does not count: of ``a.jpg`` and
    ``a.png`` that both become PNG, the first is called ``a.jpg.png``. ``owners``: results of earlier submits, each
    with the image it is of: an image keeps the name it had, and gets none that is another's.

    Raises:
        InvalidInput: a result would overwrite an image or a mask that was submitted.
    """
    from lcq.images import FORMATS

    formats = FORMATS.values() if image_format is None else [FORMATS[image_format]]
    fitting = {suffix for suffixes in formats for suffix in suffixes}
    other = ".png" if image_format is None else FORMATS[image_format][0]
    wanted = tuple(pairs)
    names = [result_folder(pair, out) / (pair.relative if out is not None else pair.image.name) for pair in wanted]
    suffixes = [name.suffix if name.suffix.lower() in fitting else other for name in names]
    plain = [name.with_suffix(suffix) for name, suffix in zip(names, suffixes, strict=True)]
    uses = Counter(_folded(name) for name in plain)
    sources = {_real(path) for pair in wanted for path in (pair.image, pair.mask) if path is not None}
    owner_of = {_folded(path): image for path, image in owners.items()}
    had: dict[Path, list[Path]] = {}
    for path, image in owners.items():
        had.setdefault(image, []).append(path)
    taken: set[str] = set()

    def is_free(path: Path, image: Path) -> bool:
        return _folded(path) not in taken and owner_of.get(_folded(path), image) == image

    results = []
    for pair, name, short, suffix in zip(wanted, names, plain, suffixes, strict=True):
        usual = short if short == name or uses[_folded(short)] == 1 else name.with_name(name.name + suffix)
        before = [path for path in had.get(pair.image, ()) if _is_name_for(path, short) and is_free(path, pair.image)]
        free = usual if not before or usual in before else before[0]
        why, number = "", 2
        while not is_free(free, pair.image):
            if _folded(free) not in taken:
                why = why or f"{free.name} is the result of {owner_of[_folded(free)]}"
            free, number = short.with_name(f"{short.stem}-{number}{suffix}"), number + 1
        taken.add(_folded(free))
        if _real(free) in sources:
            raise InvalidInput(f"the result would overwrite {free}", hint="name another folder with --out")
        if not why and free.name != short.name:
            why = f"several results would be called {short.name}"
        results.append(Named(free, why))
    return results


def _is_name_for(path: Path, short: Path) -> bool:
    """Whether ``path`` is what a result may be called that by rights is ``short``."""
    return path.parent == short.parent and path.suffix == short.suffix and path.stem.startswith(short.stem)


def _found_in(folder: Path, masks: _Masks, left_out: set[Path], prefix: PurePath) -> Iterator[Pair | Skipped]:
    unreadable: list[OSError] = []
    for place, subfolders, files in os.walk(folder, onerror=unreadable.append):
        here = Path(place)
        subfolders[:] = sorted(
            name
            for name in subfolders
            if not name.startswith(".") and name != DEFAULT_OUT and _real(here / name) not in left_out
        )
        for name in subfolders:
            if (here / name).is_symlink():
                yield Skipped(here / name, "a link to a folder is not followed")
        for name in sorted(files):
            path = here / name
            if not name.startswith(".") and _real(path) not in left_out:
                found = _look_at(path, path.relative_to(folder), masks, prefix)
                if found is not None:
                    yield found
    for error in unreadable:
        yield Skipped(Path(error.filename), f"the folder cannot be read: {error.strerror}")


def _look_at(path: Path, relative: PurePath, masks: _Masks, prefix: PurePath) -> Pair | Skipped | None:
    if path.suffix.lower() not in IMAGE_SUFFIXES:
        return Skipped(path, f"not an image suffix ({path.suffix or 'none'})")
    kind = _kind(path)
    if kind != "file":
        return Skipped(path, f"it is {kind}")
    if masks.has_image_of(path):
        return None
    if _marked(path) is not None:
        return Skipped(path, "named as a mask, but there is no image of that name beside it")
    match = masks.of(path, relative)
    if isinstance(match, str):
        return Skipped(path, match)
    if not _is_text(path) or (match is not None and not _is_text(match)):
        return Skipped(path, "its name or its mask's is not valid UTF-8; rename it")
    return Pair(path, match, prefix / relative)


@dataclass
class _Masks:
    """Where masks are looked for: in ``source``, or beside the images. Each folder is read once."""

    source: Path | None
    needed: bool = True
    _shelves: dict[Path, dict[str, list[Path]]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if self.source is not None and (kind := _kind(self.source)) not in ("file", "folder"):
            raise InvalidInput(f"--mask {self.source} is {kind}", hint="name an image or a folder of masks")

    def of(self, image: Path, relative: PurePath) -> Path | str | None:
        """The mask of ``image``, or why there is none; None where there need not be one."""
        found = self._found(image, relative)
        return None if isinstance(found, str) and not self.needed else found

    def _found(self, image: Path, relative: PurePath) -> Path | str:
        marked = f"{image.stem}{_MASK_MARK}"
        if self.source is None:
            return self._one_of(image, image.parent, [marked]) or f"no mask: there is no {marked}.* beside it"
        if _kind(self.source) == "file":
            return self.source
        for folder in dict.fromkeys((self.source / relative.parent, self.source)):
            stems = [marked] if folder == image.parent else [image.stem, marked]
            match = self._one_of(image, folder, stems)
            if match is not None:
                return match
        return f"no mask: there is no {image.stem}.* in {self.source}"

    def has_image_of(self, path: Path) -> bool:
        """Whether ``path`` is named as the mask of an image that lies beside it."""
        stem = _marked(path)
        return stem is not None and _normal(stem) in self._shelf(path.parent)

    def _one_of(self, image: Path, folder: Path, stems: Sequence[str]) -> Path | str | None:
        for stem in stems:
            fitting = self._shelf(folder).get(_normal(stem), [])
            for suffix in (image.suffix.lower(), ".png"):
                same = [path for path in fitting if path.suffix.lower() == suffix]
                if len(same) == 1:
                    return same[0]
            if len(fitting) == 1:
                return fitting[0]
            if fitting:
                return f"several masks fit: {', '.join(path.name for path in fitting)}"
        return None

    def _shelf(self, folder: Path) -> dict[str, list[Path]]:
        if folder not in self._shelves:
            shelf: dict[str, list[Path]] = {}
            for path in _listing(folder):
                if path.suffix.lower() in IMAGE_SUFFIXES and not path.name.startswith("."):
                    shelf.setdefault(_normal(path.stem), []).append(path)
            self._shelves[folder] = shelf
        return self._shelves[folder]


def _listing(folder: Path) -> list[Path]:
    try:
        return sorted(folder.iterdir())
    except (FileNotFoundError, NotADirectoryError):
        return []  # a folder of masks need not have every subfolder
    except OSError as error:
        raise InvalidInput(
            f"cannot look for masks in {folder}: {error.strerror}", hint="check its permissions"
        ) from error


def _kind(path: Path) -> str:
    """``file``, ``folder``, or what is wrong with ``path`` in words that follow "it is"."""
    try:
        mode = path.stat().st_mode
    except FileNotFoundError:
        return "a broken link" if path.is_symlink() else "not there"
    except OSError as error:
        return f"not readable: {error.strerror}"
    if stat.S_ISDIR(mode):
        return "folder"
    return "file" if stat.S_ISREG(mode) else "neither a file nor a folder"


def _marked(path: Path) -> str | None:
    """The stem of the image that ``path`` is a mask of, if its name says that it is one."""
    stem = path.stem
    return stem.removesuffix(_MASK_MARK) if stem.endswith(_MASK_MARK) and stem != _MASK_MARK else None


def _absolute(path: Path) -> Path:
    return Path(os.path.abspath(path))  # noqa: PTH100  # takes ".." out and, unlike resolve(), leaves links


def _real(path: Path) -> Path:
    return Path(os.path.realpath(path))  # unlike resolve() it stands a link that points to itself


def _normal(stem: str) -> str:
    return unicodedata.normalize("NFC", stem)  # some systems write é as two characters, others as one


def _folded(path: PurePath) -> str:
    return _normal(str(path)).casefold()


def _is_text(path: Path) -> bool:
    try:
        str(path).encode()
    except UnicodeEncodeError:
        return False
    return True
