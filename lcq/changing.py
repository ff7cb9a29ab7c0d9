"""Tasks done again with something changed: what differs, and whether the same ones can go or new ones have to.

A task never changes once it is submitted. Where it waits and how urgent it is belong to its record: with only these
changed the same task goes again. Another model, other parameters or files make a new one, which says whose it is.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import yaml
from pydantic import ValidationError

from lcq.errors import InvalidInput
from lcq.ids import new_id
from lcq.lang import tr
from lcq.models import Task, TaskPriority, TaskRecord, TaskStatus, explain_invalid
from lcq.wire import BulkAnswer, Refusal, SubmitAnswer

AGAIN_OF = "again_of"
"""The key of a new task's metadata under which the id stands of the one that it does again."""


@dataclass(frozen=True)
class Changes:
    """What is to be otherwise. None: as each task has it."""

    model: str | None = None
    parameters: Mapping[str, Any] | None = None  # of the engine: all of them, but for the model
    over: Mapping[str, Any] | None = None  # of them just these, over those that each has; None takes one away
    timeout_s: float | None = None
    max_retries: int | None = None
    image: str | None = None
    mask: str | None = None  # "": none
    output: str | None = None
    queue: str = ""
    node: str = ""
    priority: TaskPriority | None = None
    anew: bool = False  # new tasks in any case

    @property
    def makes_new(self) -> bool:
        """Whether the same tasks cannot go: something of what they ask for is otherwise."""
        asked = (
            self.model, self.parameters, self.over, self.timeout_s, self.max_retries, self.image, self.mask,
            self.output,
        )  # fmt: skip
        return self.anew or any(one is not None for one in asked)


def parameters_of(task: Task) -> str:
    """The engine's parameters as they are typed: ``radius=5 format=png``."""
    plain = {name: value for name, value in task.model_dump(mode="json")["config"].items() if name != "model"}
    return " ".join(f"{name}={_shown(value)}" for name, value in plain.items())


def _shown(value: Any) -> str:
    text = yaml.safe_dump(value, default_flow_style=True, width=10_000).strip().removesuffix("...").strip()
    return text.replace(", ", ",").replace(": ", ":") if " " in text else text


def read_parameters(typed: str) -> dict[str, Any]:
    """``radius=5 format=png`` as a task's config has it: numbers, yes and no, and lists as YAML knows them.

    Raises:
        InvalidInput: a word of it is no KEY=VALUE.
    """
    found: dict[str, Any] = {}
    for word in typed.split():
        name, equals, value = word.partition("=")
        if not name or not equals:
            raise InvalidInput(f"parameters are KEY=VALUE with spaces between them, found {word!r}")
        try:
            found[name] = yaml.safe_load(value)
        except yaml.YAMLError as error:
            raise InvalidInput(f"{name}: {value!r} is no value: {' '.join(str(error).split())}") from error
    return found


def changed(task: Task, changes: Changes) -> Task:
    """A new task that does ``task`` again with the changes.

    Raises:
        InvalidInput: it cannot be one so.
    """
    values = task.model_dump(mode="json")
    config: dict[str, Any] = values["config"] if changes.parameters is None else dict(changes.parameters)
    config |= changes.over or {}
    config = {name: value for name, value in config.items() if value is not None or name not in (changes.over or {})}
    model = task.config.get("model") if changes.model is None else changes.model
    if model is not None:
        config["model"] = model
    values |= {"id": new_id(), "config": config, "metadata": {**values["metadata"], AGAIN_OF: task.id}}
    for name, value in (
        ("timeout_s", changes.timeout_s), ("max_retries", changes.max_retries), ("priority", changes.priority),
        ("image_path", changes.image), ("output_path", changes.output),
    ):  # fmt: skip
        if value is not None:
            values[name] = value
    if changes.mask is not None:
        values["mask_path"] = changes.mask or None
    try:
        return Task.model_validate(values)
    except ValidationError as error:
        raise InvalidInput(explain_invalid(error)) from error


def differences(records: Sequence[TaskRecord], changes: Changes) -> list[str]:
    """What would be otherwise, a line each: ``model cv2-telea -> lama``."""
    lines = []

    def told(name: str, before: set[str], after: object) -> None:
        was = next(iter(before)) if len(before) == 1 else tr("as each has it")
        if before != {str(after)}:
            lines.append(f"{name} {was or tr('none')} -> {after if str(after) else tr('none')}")

    tasks = [record.task for record in records]
    for name, before, after in (
        (tr("model"), {task.model for task in tasks}, changes.model),
        (
            tr("time-out"),
            {f"{task.timeout_s:g}" for task in tasks},
            None if changes.timeout_s is None else f"{changes.timeout_s:g}",
        ),
        (tr("retries"), {str(task.max_retries) for task in tasks}, changes.max_retries),
        (tr("priority"), {str(record.priority) for record in records}, changes.priority),
        (tr("image"), {task.image_path for task in tasks}, changes.image),
        (tr("mask"), {task.mask_path or "" for task in tasks}, changes.mask),
        (tr("output"), {task.output_path or "" for task in tasks}, changes.output),
    ):
        if after is not None:
            told(name, before, after)
    if changes.parameters is not None:
        after_text = " ".join(f"{name}={_shown(value)}" for name, value in changes.parameters.items())
        told(tr("parameters"), {parameters_of(task) for task in tasks}, after_text)
    for name, value in (changes.over or {}).items():
        had = [task.model_dump(mode="json")["config"] for task in tasks]
        told(name, {_shown(one[name]) if name in one else "" for one in had}, "" if value is None else _shown(value))
    if changes.queue or changes.node:
        told(tr("place"), {record.pinned_node or record.queue for record in records}, changes.node or changes.queue)
    return lines


class Client(Protocol):
    """Who asks a scheduler for it."""

    async def retry(self, ids: Sequence[str], *, revisions: Sequence[int], reason: str = "") -> BulkAnswer: ...
    async def reroute(
        self, ids: Sequence[str], *, revisions: Sequence[int], queue: str = "", node: str = "", reason: str = ""
    ) -> BulkAnswer: ...
    async def prioritise(
        self, ids: Sequence[str], priority: TaskPriority, *, revisions: Sequence[int], reason: str = ""
    ) -> BulkAnswer: ...
    async def submit_many(
        self, tasks: Sequence[Task], *, queue: str = "", node: str = "", reason: str = ""
    ) -> SubmitAnswer: ...


async def submit_changed(client: Client, tasks: Sequence[Task], changes: Changes, *, reason: str = "") -> BulkAnswer:
    """Submit tasks that ``changed`` has made, to the place that the changes name; their ids are told as done."""
    answer = await client.submit_many(tasks, queue=changes.queue, node=changes.node, reason=reason)
    return BulkAnswer(done=tuple(one.id for one in answer.accepted), refused=answer.refused)


async def retry_elsewhere(
    client: Client, records: Sequence[TaskRecord], changes: Changes, *, reason: str = ""
) -> BulkAnswer:
    """Let the same tasks go again, all of which have ended: in another place, with another priority, or as they were.

    Its acts stand in the order in which they are to be taken back, the last first.
    """
    place = changes.node or changes.queue
    done: list[str] = []
    refused: list[Refusal] = []
    commands: list[str] = []
    revisions: dict[str, int] = {}
    moved = [one for one in records if place and one.status is not TaskStatus.COMPLETED]
    retried = [one for one in records if one not in moved]
    for group, is_move in ((moved, True), (retried, False)):
        if not group:
            continue
        ids, seen = [one.id for one in group], [one.revision for one in group]
        if is_move:
            answer = await client.reroute(ids, revisions=seen, queue=changes.queue, node=changes.node, reason=reason)
        else:
            answer = await client.retry(ids, revisions=seen, reason=reason)
        done += answer.done
        refused += answer.refused
        commands += answer.acts
        revisions |= dict(zip(answer.done, answer.revisions, strict=False))
    second = []
    back = [one.id for one in retried if one.id in done]
    if place and back:  # what was completed can only be moved once it is open again
        second.append(
            await client.reroute(
                back, revisions=_seen(back, revisions), queue=changes.queue, node=changes.node, reason=reason
            )
        )
        revisions |= dict(zip(second[-1].done, second[-1].revisions, strict=False))
    otherwise = [one.id for one in records if one.id in done and changes.priority not in (None, one.priority)]
    if changes.priority is not None and otherwise:
        second.append(
            await client.prioritise(otherwise, changes.priority, revisions=_seen(otherwise, revisions), reason=reason)
        )
    for answer in second:
        refused += answer.refused
        commands += answer.acts  # taken back before what came first
    return BulkAnswer(done=tuple(done), refused=tuple(refused), acts=tuple(commands))


def _seen(ids: Sequence[str], revisions: Mapping[str, int]) -> Sequence[int]:
    """The revisions to be sent along: none where an older scheduler has not told all of them."""
    return [revisions[one] for one in ids] if all(revisions.get(one) for one in ids) else []
