"""The pictures of a task: which file each is, why there is none, and whether a file is the one that is meant. Pure."""

from __future__ import annotations

from typing import Literal

from lcq.models import TaskRecord

Part = Literal["before", "mask", "after", "overlay"]
KNOWS_PICTURES = "pictures"
"""What an agent says it knows (``NodeCapability.knows``) that makes small pictures when it is told to."""


def files_of(record: TaskRecord) -> dict[Part, str]:
    """The path of each picture that there is."""
    files: dict[Part, str] = {"before": record.task.image_path}
    if record.task.mask_path is not None:
        files["mask"] = record.task.mask_path
    if record.result is not None and record.result.path:  # a drill leaves none
        files["after"] = record.result.path
    return files


def why_none(part: Part, record: TaskRecord) -> str:
    """Why a task has no such picture."""
    if part in ("mask", "overlay"):
        return "this task has no mask"
    if part == "after" and record.result is not None:
        return f"its result is no file: the task is {record.status}"
    if part == "after":
        yet = "" if record.status.is_terminal else " yet"
        return f"no result{yet}: the task is {record.status}"
    return "this task has no picture"


def why_another(part: Part, record: TaskRecord, *, size: tuple[int, int], file_bytes: int) -> str:
    """Why a file of that size, found under its name, is not the one that the cluster means; "" if it may well be.

    Folders of one name on two hosts may hold different files.
    """
    result = record.result
    if part == "after" and result is not None and result.bytes and file_bytes != result.bytes:
        return f"the file of that name has {file_bytes:,} bytes, the result had {result.bytes:,}"
    if part in ("before", "overlay") and record.size is not None and sorted(size) != sorted(record.size):
        known = f"{record.size[0]} x {record.size[1]}"
        return f"the file of that name is {size[0]} x {size[1]}, the task's picture was {known}"
    return ""
