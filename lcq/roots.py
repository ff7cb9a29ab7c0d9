"""The folders that tasks may reach on this host: every path of theirs is opened from one of them, or not at all."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterable, Iterator
from pathlib import Path

from lcq.errors import OutsideRoots

_FOLDER = os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC | os.O_NOFOLLOW


class Roots:
    """What lies in one of ``folders``. With none, everything that this user may reach does.

    Links are resolved first, then the way is walked from the root without following any: what is put into its way in
    between is refused by the system. So links are fine where they lead to a place inside.
    """

    def __init__(self, folders: Iterable[Path] = ()) -> None:
        self._folders = tuple(Path(os.path.abspath(folder)) for folder in folders)  # noqa: PTH100 - links stay

    def __bool__(self) -> bool:
        return bool(self._folders)

    def refuse_by_name(self, path: str) -> None:
        """Refuse what cannot be inside, going by its name alone: these files need not be on this host.

        Raises:
            OutsideRoots: it is relative, or leads out of every root.
        """
        plain = os.path.normpath(path)
        if self and not (Path(path).is_absolute() and any(Path(plain).is_relative_to(root) for root in self._folders)):
            raise OutsideRoots(path, self._folders)

    def refuse(self, path: str) -> None:
        """Raises:
        OutsideRoots: ``path``, with all its links resolved, is outside.
        """
        if self:
            self._place_of(path)

    def open_to_read(self, path: str, flags: int) -> int:
        """A descriptor of the file at ``path``.

        Raises:
            OutsideRoots, OSError.
        """
        if not self:
            return os.open(path, flags)
        root, steps = self._place_of(path)
        if not steps:
            return os.open(root, flags | os.O_NOFOLLOW)
        with self._walked(root, steps[:-1], make=False) as folder:
            return os.open(steps[-1], flags | os.O_NOFOLLOW, dir_fd=folder)

    @contextlib.contextmanager
    def folder(self, path: str | Path, *, make: bool = False) -> Iterator[int]:
        """A descriptor of the folder at ``path``, for the length of the block. ``make``: it, and those above it,
        are made where missing.

        Raises:
            OutsideRoots, OSError.
        """
        if self:
            root, steps = self._place_of(str(path))
            with self._walked(root, steps, make=make) as folder:
                yield folder
            return
        if make:
            Path(path).mkdir(parents=True, exist_ok=True)
        descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            yield descriptor
        finally:
            os.close(descriptor)

    def _place_of(self, path: str) -> tuple[Path, tuple[str, ...]]:
        """The root that ``path`` is in, and the steps from there to it, without links."""
        try:
            found = Path(os.path.realpath(path))
        except ValueError as error:  # a NUL
            raise OutsideRoots(path, self._folders) from error
        for folder in self._folders:
            root = Path(os.path.realpath(folder))
            if found.is_relative_to(root):
                return root, found.relative_to(root).parts
        raise OutsideRoots(path, self._folders)

    @contextlib.contextmanager
    def _walked(self, root: Path, steps: tuple[str, ...], *, make: bool) -> Iterator[int]:
        descriptor = os.open(root, _FOLDER)
        try:
            for step in steps:
                if make:
                    with contextlib.suppress(FileExistsError):
                        os.mkdir(step, dir_fd=descriptor)
                further = os.open(step, _FOLDER, dir_fd=descriptor)
                os.close(descriptor)
                descriptor = further
            yield descriptor
        finally:
            os.close(descriptor)


ANYWHERE = Roots()
