"""Where a task's pictures come from: by their path, where that is the file that is meant; else from the task's node."""

from __future__ import annotations

import asyncio
import base64
import binascii
from collections import OrderedDict
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Protocol, TypeVar

from pydantic import ValidationError

from lcq.errors import LcqError, OutsideRoots, UnknownCommand
from lcq.lang import retold, retold_error, tr
from lcq.picture_parts import Part, files_of, why_another, why_none
from lcq.roots import ANYWHERE, Roots
from lcq.runner_config import LimitsConfig
from tui.text import clean

if TYPE_CHECKING:  # they bring numpy and Pillow, which a console that shows no picture never needs
    from lcq.models import TaskRecord
    from lcq.thumbnails import Box, Thumbnail
    from lcq.wire import ThumbnailAnswer, ThumbnailPart
    from tui.pictures import Compared, Scene

MOST_BYTES = 48 * 2**20
"""How much of pictures is kept; those that were looked at longest ago go first."""
MOST_PX = 2048  # of the longer side, by path
_MOST_FROM_NODE = 1024
_PARTS: tuple[Part, ...] = ("before", "mask", "after")


_T = TypeVar("_T")


class Asked(Protocol):
    """Who has small pictures made by the task's node."""

    async def thumbnail(
        self, task_id: str, *, parts: Sequence[Part], longest: int, box: tuple[float, float, float, float]
    ) -> ThumbnailAnswer: ...


@dataclass(frozen=True)
class Picture:
    """One of a task's pictures, or why there is none. ``source``: the node that has made it; "" for this machine."""

    thumbnail: Thumbnail | None = None
    why: str = ""
    source: str = ""


@dataclass(frozen=True)
class Pictures:
    """What there is to see of a task."""

    task_id: str
    revision: int
    parts: dict[Part, Picture] = field(default_factory=dict)
    compared: Compared | None = None  # outside the mask
    hole: float | None = None  # share of the picture

    @property
    def scene(self) -> Scene:
        from tui.pictures import Scene

        kept = {part: (one.thumbnail,) for part, one in self.parts.items() if one.thumbnail is not None}
        return Scene(**{str(part): thumbnails for part, thumbnails in kept.items()})

    @property
    def sources(self) -> tuple[str, ...]:
        """The nodes that have made some of them."""
        return tuple(dict.fromkeys(one.source for one in self.parts.values() if one.source))

    @property
    def bytes(self) -> int:
        return sum(one.thumbnail.pixels.nbytes for one in self.parts.values() if one.thumbnail is not None)


class Gallery:
    """Gets pictures, decoding in threads of its own, and keeps some."""

    def __init__(
        self,
        asked: Asked,
        *,
        limits: LimitsConfig | None = None,
        roots: Roots = ANYWHERE,
        most_bytes: int = MOST_BYTES,
        seen: Callable[[TaskRecord, Pictures], None] | None = None,
        recorded: Callable[[TaskRecord, Part], bool] | None = None,
    ) -> None:
        """``seen`` is told of all pictures that somebody looks at. ``recorded``: where who is asked is to be preferred
        to the file that is here now, as in a replay."""
        self._seen, self._recorded = seen, recorded
        self._asked, self._limits, self._roots, self._most_bytes = asked, limits, roots, most_bytes
        self._kept: OrderedDict[tuple[str, int, int, Box], Pictures] = OrderedDict()
        self._threads: ThreadPoolExecutor | None = None

    @property
    def kept_bytes(self) -> int:
        return sum(one.bytes for one in self._kept.values())

    def known(self, task_id: str, revision: int) -> Pictures | None:
        """What was got of all of a task's pictures, in this revision of it."""
        whole = (0.0, 0.0, 1.0, 1.0)
        found = [key for key in self._kept if key[:2] == (task_id, revision) and key[3] == whole]
        return self._kept[max(found, key=lambda key: key[2])] if found else None

    async def look(self, record: TaskRecord, *, longest: int, box: Box = (0.0, 0.0, 1.0, 1.0)) -> Pictures:
        """A task's pictures, or the part ``box`` of them, no longer than ``longest`` pixels. May be cancelled."""
        key = record.id, record.revision, longest, box
        kept = self._kept.get(key)
        if kept is not None:
            self._kept.move_to_end(key)
            self._tell(record, kept)
            return kept
        found = await self._in_thread(partial(self._read_here, record, longest, box))
        away = [part for part in files_of(record) if found[part].thumbnail is None and found[part].source == _AWAY]
        if away:
            found |= await self._from_node(record, {part: found[part].why for part in away}, longest, box)
        pictures = await self._in_thread(partial(_together, record, found))
        if all(pictures.parts[part].thumbnail is not None for part in files_of(record)):
            self._kept[key] = pictures
            while self.kept_bytes > self._most_bytes and len(self._kept) > 1:
                self._kept.popitem(last=False)
        self._tell(record, pictures)
        return pictures

    def _tell(self, record: TaskRecord, pictures: Pictures) -> None:
        if self._seen is not None:
            self._seen(record, pictures)

    async def _in_thread(self, call: Callable[[], _T]) -> _T:
        if self._threads is None:
            self._threads = ThreadPoolExecutor(2, thread_name_prefix="pictures")
        return await asyncio.get_running_loop().run_in_executor(self._threads, call)

    def _read_here(self, record: TaskRecord, longest: int, box: Box) -> dict[Part, Picture]:
        """What this machine has itself. ``source`` is ``_AWAY`` where it has not the file that is meant."""
        files = files_of(record)
        found: dict[Part, Picture] = {
            part: Picture(why=retold(why_none(part, record))) for part in _PARTS if part not in files
        }
        for part, path in files.items():
            found[part] = self._read_one(part, path, record, longest, box)
        return found

    def _read_one(self, part: Part, path: str, record: TaskRecord, longest: int, box: Box) -> Picture:
        if self._recorded is not None and self._recorded(record, part):
            return Picture(source=_AWAY)
        if "://" in path:
            return Picture(why=tr("not a path of this machine"), source=_AWAY)
        missing = Picture(why=tr("{path} is not on this machine", path=clean(path)), source=_AWAY)
        if self._is_missing(path):
            return missing
        from lcq.images import BadImage, ImageProblem  # only now: they bring 25 MB with them
        from lcq.thumbnails import read_thumbnail

        elsewhere = ImageProblem.IMAGE_MISSING, ImageProblem.IMAGE_IS_DIRECTORY, ImageProblem.IMAGE_UNREADABLE
        try:
            small = read_thumbnail(
                path, longest=longest, box=box, limits=self._limits, roots=self._roots, as_mask=part == "mask"
            )
        except BadImage as problem:
            if problem.problem is ImageProblem.IMAGE_MISSING:
                return missing
            return Picture(why=clean(retold_error(problem)), source=_AWAY if problem.problem in elsewhere else "")
        except (OutsideRoots, OSError) as problem:
            return Picture(why=clean(retold_error(problem)), source=_AWAY)
        why = why_another(part, record, size=small.size, file_bytes=small.file_bytes)
        return Picture(why=tr("on this machine {why}", why=retold(why)), source=_AWAY) if why else Picture(small)

    def _is_missing(self, path: str) -> bool:
        try:
            self._roots.refuse(path)
            Path(path).stat()
        except FileNotFoundError:
            return True
        except (OutsideRoots, OSError, ValueError):
            return False  # what is wrong with it, who opens it will tell
        return False

    async def _from_node(
        self, record: TaskRecord, here: dict[Part, str], longest: int, box: Box
    ) -> dict[Part, Picture]:
        """What the task's node has; ``here``: why this machine has not."""
        try:
            told = await self._asked.thumbnail(
                record.id, parts=tuple(here), longest=min(longest, _MOST_FROM_NODE), box=box
            )
        except UnknownCommand:
            no = tr("the scheduler is older and has no pictures made")
            return {part: Picture(why=_both(why, no)) for part, why in here.items()}
        except (LcqError, OSError, TimeoutError, ValidationError) as error:
            no = clean(retold(error.message) if isinstance(error, LcqError) else str(error)) or tr(
                "the cluster does not answer"
            )
            return {part: Picture(why=_both(why, no)) for part, why in here.items()}
        return await self._in_thread(partial(_unpacked, told, here, box))


_AWAY = "away"


def _both(here: str, there: str) -> str:
    """Why there is none here, and none there."""
    return "; ".join(filter(None, (here, there)))


def _unpacked(told: ThumbnailAnswer, here: dict[Part, str], box: Box) -> dict[Part, Picture]:
    return {part: _picture(part, told.parts.get(part), told.node, why, box) for part, why in here.items()}


def _picture(part: Part, told: ThumbnailPart | None, node: str, here: str, box: Box) -> Picture:
    """A picture as a node has sent it: a stranger's bytes, decoded with limits like any other."""
    if told is None or not told.data:
        said = clean(retold(told.why)) if told is not None and told.why else tr("no node has it either")
        return Picture(why=_both(here, said))
    from lcq.images import BadImage
    from lcq.thumbnails import thumbnail_of

    kind = "PNG" if part == "mask" else "JPEG"
    try:
        data = base64.b64decode(told.data, validate=True)
        small = thumbnail_of(
            data,
            tr("what {node} sent", node=node),
            longest=MOST_PX,
            limits=LimitsConfig(image_pixels=MOST_PX**2),
            formats=(kind,),
        )
    except (BadImage, binascii.Error) as problem:
        return Picture(
            why=tr("what {node} sent is no picture: {problem}", node=clean(node), problem=clean(retold_error(problem)))
        )
    pixels = small.pixels[..., 0] if part == "mask" else small.pixels
    size = told.width or small.size[0], told.height or small.size[1]
    small = replace(small, pixels=pixels, size=size, box=box, file_bytes=told.bytes)
    return Picture(small, source=clean(node))


def _together(record: TaskRecord, found: dict[Part, Picture]) -> Pictures:
    """What the pictures say of each other."""
    before, mask, after = (found[part].thumbnail for part in _PARTS)
    if before is not None and mask is not None and before.size != mask.size:
        sizes = tr(
            "{size} x {size2}, the picture {size3} x {size4}",
            size=mask.size[0],
            size2=mask.size[1],
            size3=before.size[0],
            size4=before.size[1],
        )
        found["mask"], mask = Picture(why=tr("the mask is {sizes}", sizes=sizes)), None
    compared = None
    if before and mask and after:
        from tui.pictures import outside_mask

        compared = outside_mask(before, after, mask)
    hole = float(mask.pixels.mean()) / 255 if mask is not None else None
    if record.result is not None and hole is not None:
        hole = record.result.mask_fraction or hole
    return Pictures(record.id, record.revision, found, compared, hole)
