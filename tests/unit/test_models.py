"""The models: checked when built, frozen throughout, and the same again after JSON."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import BaseModel, ValidationError

from lcq import models
from lcq.errors import InvalidInput
from lcq.models import (
    DEFAULT_MODEL,
    DEFAULT_QUEUES,
    MAX_DEPTH,
    TERMINAL_STATES,
    Device,
    DeviceKind,
    DeviceReading,
    Event,
    JobSummary,
    ModelOffer,
    NodeCapability,
    QueueConfig,
    Task,
    TaskPriority,
    TaskResult,
    TaskStatus,
    TaskType,
    Value,
    build,
    model_of,
)
from tests.values import QUICK, THOROUGH, json_objects, tasks, values_of

VALUES = [
    kind for kind in vars(models).values() if isinstance(kind, type) and issubclass(kind, Value) and kind is not Value
]


def a_task(**fields: Any) -> Task:
    return Task.model_validate({"task_type": "inpaint", "image_path": "/photos/cat.png"} | fields)


# ---------------------------------------------------------------- the seed's words


def test_the_seeds_constructor_call_works_as_it_is_written() -> None:
    from lcq import Task, TaskType

    task = Task(task_type=TaskType.INPAINT, image_path="/path/to/image.jpg", config={"model": "lama", "device": "cuda"})

    assert (task.model, task.device) == ("lama", "cuda")
    assert (task.priority, task.max_retries, task.user_id, task.job) == (TaskPriority.NORMAL, 3, "anonymous", None)


def test_the_seeds_names_are_those_of_the_models() -> None:
    import lcq

    for name in ("Task", "TaskType", "TaskStatus", "TaskPriority", "NodeCapability", "NodeStatus", "QueueConfig"):
        assert getattr(lcq, name) is getattr(models, name)


def test_a_task_that_says_little_has_a_model_and_a_device_wish() -> None:
    assert (a_task().model, a_task().device) == (DEFAULT_MODEL, "auto")


def test_two_tasks_of_the_same_contents_are_two() -> None:
    assert a_task().id != a_task().id


def test_a_task_knows_when_it_was_made() -> None:
    one, two = a_task(), a_task()
    assert one.created_at <= two.created_at
    assert one.created_at.tzinfo is not None


# ---------------------------------------------------------------- JSON and back


@THOROUGH
@given(tasks())
def test_any_task_that_can_be_made_comes_back_from_json_as_it_was(task: Task) -> None:
    again = Task.from_json(task.to_json())
    assert again == task
    assert again.to_json() == task.to_json()
    assert json.loads(task.to_json())["image_path"] == task.image_path


@THOROUGH
@given(json_objects)
def test_numbers_and_truth_values_come_back_as_what_they_were(metadata: dict[str, Any]) -> None:
    """``==`` alone takes 1, 1.0 and True for the same."""

    def typed(value: Any) -> Any:
        if isinstance(value, Mapping):
            return {key: typed(inner) for key, inner in value.items()}
        if isinstance(value, list | tuple):
            return [typed(inner) for inner in value]
        return (type(value), repr(value))

    assert typed(Task.from_json(a_task(metadata=metadata).to_json()).metadata) == typed(metadata)


@pytest.mark.parametrize("kind", VALUES, ids=lambda kind: kind.__name__)
@QUICK
@given(data=st.data())
def test_any_value_of_any_model_comes_back_from_json_as_it_was(kind: type[BaseModel], data: st.DataObject) -> None:
    value = data.draw(values_of(kind))
    assert kind.model_validate_json(value.model_dump_json()) == value


@pytest.mark.parametrize(
    "number", [2**63, 2**64 - 1, -(2**63), 2**53 + 1, 0.1, 1e22, 5e-324, 1.7976931348623157e308, -0.0]
)
def test_wide_numbers_come_back_exactly(number: float) -> None:
    (again,) = Task.from_json(a_task(metadata={"n": number}).to_json()).metadata.values()
    assert (type(again), repr(again)) == (type(number), repr(number))


# ---------------------------------------------------------------- what is refused, and how it is said


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("task_type", "paint"),
        ("image_path", ""),
        ("image_path", "a\x00b"),
        ("image_path", "caf\udce9.png"),
        ("image_path", "x" * 4097),
        ("image_path", None),
        ("image_path", 7),
        ("mask_path", ""),
        ("priority", "now"),
        ("max_retries", -1),
        ("max_retries", 101),
        ("max_retries", "many"),
        ("timeout_s", 0),
        ("timeout_s", math.inf),
        ("timeout_s", math.nan),
        ("user_id", ""),
        ("job", "j" * 129),
        ("id", "short"),
        ("id", "1m84x2sshh0b4yjl"),
        ("config", {"model": ""}),
        ("config", {"model": "../etc/passwd"}),
        ("config", {"model": 3}),
        ("config", {"device": "tpu"}),
        ("config", {"device": "cuda:one"}),
        ("config", "lama"),
        ("metadata", {"when": math.nan}),
        ("metadata", {"big": 2**64}),
        ("metadata", {"small": -(2**63) - 1}),
        ("metadata", {"blob": b"bytes"}),
        ("metadata", {"set": {1}}),
        ("metadata", {1: "key"}),
        ("metadata", {"deep": {2: "key"}}),
        ("metadata", {"text": "\ud800"}),
        ("metadata", {"\udfff": "key"}),
        ("metadata", {"of a class": object()}),
        ("colour", "red"),
    ],
)
def test_what_cannot_be_a_task_is_refused_by_the_name_of_its_field(field: str, value: Any) -> None:
    with pytest.raises(ValidationError) as refusal:
        a_task(**{field: value})
    assert {problem["loc"][0] for problem in refusal.value.errors()} == {field}
    with pytest.raises(InvalidInput) as said:
        build(Task, {"task_type": "inpaint", "image_path": "x"} | {field: value})
    assert str(said.value).startswith(f"Task: {field}")
    assert "\n" not in str(said.value)


def test_a_missing_field_is_named_and_so_is_each_one_that_is_wrong() -> None:
    with pytest.raises(InvalidInput) as refusal:
        build(Task, {"task_type": "inpaint", "max_retries": -1})
    assert "image_path: Field required" in str(refusal.value)
    assert "max_retries" in str(refusal.value)
    assert "found -1" in str(refusal.value)


def nested(levels: int) -> dict[str, Any]:
    value: dict[str, Any] = {}
    for _ in range(levels):
        value = {"in": value}
    return value


def test_nesting_has_an_end_and_a_circle_is_no_value() -> None:
    task = a_task(metadata=nested(MAX_DEPTH))
    assert Task.from_json(task.to_json()) == task
    with pytest.raises(ValidationError, match="nested deeper"):
        a_task(metadata=nested(MAX_DEPTH + 1))
    circle: dict[str, Any] = {}
    circle["me"] = circle
    with pytest.raises(ValidationError, match="nested deeper"):
        a_task(metadata=circle)


@pytest.mark.parametrize("seconds", [math.inf, math.nan, -1.0])
def test_a_result_has_only_numbers_that_json_can_carry(seconds: float) -> None:
    with pytest.raises(ValidationError, match="seconds"):
        TaskResult(path="/out.png", bytes=1, sha256="0" * 64, width=1, height=1, seconds=seconds)


# ---------------------------------------------------------------- frozen


def test_a_task_cannot_be_changed_however_deep() -> None:
    inner = {"list": [1, {"x": 1}]}
    task = a_task(config={"model": "lama", "extra": inner}, metadata={"tags": ["a"]})
    with pytest.raises(ValidationError, match="frozen"):
        task.priority = TaskPriority.HIGH
    for change in (
        lambda: task.config.__setitem__("model", "mat"),
        lambda: task.config["extra"].__setitem__("list", ()),
        lambda: task.config["extra"]["list"][1].__setitem__("x", 2),
        lambda: task.metadata["tags"].append("b"),
    ):
        with pytest.raises((TypeError, AttributeError)):
            change()
    inner["list"].append(2)
    assert task.config["extra"]["list"] == (1, {"x": 1}), "what it was made from may change, it does not"


@pytest.mark.parametrize("kind", VALUES, ids=lambda kind: kind.__name__)
def test_every_value_is_frozen_and_knows_no_other_names(kind: type[BaseModel]) -> None:
    assert kind.model_config["frozen"]
    assert kind.model_config["extra"] == "forbid"


# ---------------------------------------------------------------- the other nouns


def test_the_terminal_states_are_those_that_say_so() -> None:
    assert {status for status in TaskStatus if status.is_terminal} == TERMINAL_STATES
    assert {status.name for status in TERMINAL_STATES} == {"COMPLETED", "FAILED", "CANCELLED"}


def test_priorities_are_raised_and_lowered_within_their_ends() -> None:
    assert [priority.band for priority in TaskPriority] == [0, 1, 2, 3]
    assert TaskPriority.NORMAL.raised(1) == TaskPriority.HIGH
    assert TaskPriority.NORMAL.raised(-1) == TaskPriority.LOW
    assert TaskPriority.URGENT.raised(1) == TaskPriority.URGENT
    assert TaskPriority.LOW.raised(-9) == TaskPriority.LOW


def test_the_queues_are_those_of_the_design_each_with_a_port_of_its_own() -> None:
    assert [queue.name for queue in DEFAULT_QUEUES] == [
        "gpu-high",
        "gpu-medium",
        "gpu-low",
        "cpu-intensive",
        "cpu-light",
        "serverless",
    ]
    assert [queue.port_offset for queue in DEFAULT_QUEUES] == list(range(6))


@pytest.mark.parametrize("name", ["", "-x", "a b", "a:b", "@node", "x" * 129, "a\n"])
def test_a_queue_has_a_plain_name(name: str) -> None:
    with pytest.raises(ValidationError, match="name"):
        QueueConfig(name=name, kind=DeviceKind.CPU)


def gpu(vram_mib: int) -> NodeCapability:
    return NodeCapability(devices=(Device(id="GPU-1", kind=DeviceKind.GPU, vram_mib=vram_mib),))


def test_a_bigger_gpu_serves_the_classes_below_its_own_own_class_first() -> None:
    assert gpu(24_000).serves(DEFAULT_QUEUES) == {"GPU-1": ("gpu-high", "gpu-medium", "gpu-low")}
    assert gpu(4_096).serves(DEFAULT_QUEUES) == {"GPU-1": ("gpu-medium", "gpu-low")}
    assert gpu(1_000).serves(DEFAULT_QUEUES) == {"GPU-1": ()}


def test_a_cpu_serves_cpu_queues_only() -> None:
    small = Device(id="cpu", kind=DeviceKind.CPU, cores=2, memory_mib=2000)
    big = Device(id="cpu", kind=DeviceKind.CPU, cores=8, memory_mib=16000)
    assert NodeCapability(devices=(small,)).serves(DEFAULT_QUEUES) == {"cpu": ("cpu-light",)}
    assert NodeCapability(devices=(big,)).serves(DEFAULT_QUEUES) == {"cpu": ("cpu-intensive", "cpu-light")}


def test_models_are_offered_on_the_kinds_of_device_that_run_them() -> None:
    capability = NodeCapability(
        devices=(Device(id="cpu", kind=DeviceKind.CPU),),
        models={
            "lama": ModelOffer(kinds=(DeviceKind.GPU, DeviceKind.CPU)),
            "mat": ModelOffer(kinds=(DeviceKind.GPU,)),
        },
    )
    cpu, gpu = Device(id="cpu", kind=DeviceKind.CPU), Device(id="GPU-1", kind=DeviceKind.GPU)
    assert capability.lanes_of(cpu) == {"lama"}
    assert capability.lanes_of(gpu) == {"lama", "mat"}


def test_each_type_of_task_but_inpaint_has_lanes_of_its_own() -> None:
    types = (TaskType.INPAINT, TaskType.UPSCALE)
    capability = NodeCapability(models={"one": ModelOffer(kinds=(DeviceKind.CPU,), task_types=types)})
    assert capability.lanes_of(Device(id="cpu", kind=DeviceKind.CPU)) == {"one", "one~upscale"}
    assert a_task(task_type="upscale", config={"model": "one"}).lane == "one~upscale"
    assert a_task(config={"model": "one"}).lane == "one"
    assert [model_of(lane) for lane in ("one", "one~upscale")] == ["one", "one"]


@pytest.mark.parametrize(("vram_mib", "runs"), [(3999, False), (4000, True), (0, True)])
def test_a_gpu_runs_no_model_that_needs_more_than_it_has(vram_mib: int, runs: bool) -> None:
    capability = NodeCapability(models={"mat": ModelOffer(kinds=(DeviceKind.GPU,), vram_mib=4000)})
    device = Device(id="GPU-1", kind=DeviceKind.GPU, vram_mib=vram_mib)
    assert capability.can_run(device, "mat", TaskType.INPAINT) is runs


def test_a_node_whose_every_device_failed_still_says_what_is_left_out() -> None:
    capability = NodeCapability(devices=(), left_out={"cpu": "its self-test failed"})
    assert capability.serves(DEFAULT_QUEUES) == {}
    assert NodeCapability.model_validate_json(capability.model_dump_json()) == capability


def test_a_device_with_an_owners_wish_serves_just_that() -> None:
    small = Device(id="GPU-1", kind=DeviceKind.GPU, vram_mib=2048, queues=("gpu-high", "cpu-light"))
    assert NodeCapability(devices=(small,)).serves(DEFAULT_QUEUES) == {"GPU-1": ("gpu-high",)}
    resting = Device(id="GPU-1", kind=DeviceKind.GPU, vram_mib=24_000, queues=())
    assert NodeCapability(devices=(resting,)).serves(DEFAULT_QUEUES) == {"GPU-1": ()}


@pytest.mark.parametrize("busy", [math.nan, math.inf, -0.1, 1.2])
def test_what_a_sensor_says_that_is_no_number_counts_as_not_known(busy: float) -> None:
    reading = DeviceReading(free_mib=10, busy=busy, temperature_c=math.nan, power_w=-math.inf, fault="")
    assert reading == DeviceReading(free_mib=10)


def test_a_job_counts_what_is_left() -> None:
    job = JobSummary(
        name="wedding",
        submitted_ms=1,
        counts={TaskStatus.QUEUED: 3, TaskStatus.PROCESSING: 1, TaskStatus.FAILED: 2, TaskStatus.COMPLETED: 4},
    )
    assert (job.total, job.unfinished) == (10, 4)


def test_an_event_knows_its_time() -> None:
    assert Event(id="1795461048114-3", move="claim_tasks", fields={}).at_ms == 1795461048114


def test_a_task_type_is_said_by_its_value() -> None:
    assert a_task(task_type="inpaint").task_type is TaskType.INPAINT


def test_what_a_node_of_the_first_form_offers_is_read_as_it_was_written() -> None:
    written = (
        '{"devices": [{"id": "cpu", "kind": "cpu"}], "models": {"cv2-ns": ["cpu"]}, "host": "h", "version": "0.1.0"}'
    )
    read = NodeCapability.model_validate_json(written)
    assert read.models == {"cv2-ns": ModelOffer(kinds=(DeviceKind.CPU,))}
