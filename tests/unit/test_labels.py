"""Labels: their form, what they satisfy, the lanes they make."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lcq.config import DistributedConfig, load
from lcq.errors import InvalidConfig, InvalidInput
from lcq.labels import labelled_lane, parse_labels, satisfies, split_lane, told_labels, why_unlabelled
from lcq.models import Device, DeviceKind, ModelOffer, NodeCapability, NodeRecord, NodeStatus, Task, TaskType, build
from lcq.reload import changes, with_live_keys
from worker.offer import Offer

_KEYS = st.from_regex(r"[A-Za-z0-9][A-Za-z0-9._/-]{0,62}", fullmatch=True)
_VALUES = st.from_regex(r"[A-Za-z0-9][A-Za-z0-9._/+-]{0,62}", fullmatch=True)
_LABELS = st.dictionaries(_KEYS, _VALUES, max_size=8)


def a_task(**more: object) -> Task:
    return build(Task, {"task_type": TaskType.INPAINT, "image_path": "/a.png", **more})


def a_node(told: dict[str, str], over: dict[str, str | None]) -> NodeRecord:
    cpu = Device(id="cpu", kind=DeviceKind.CPU)
    offer = ModelOffer(kinds=(DeviceKind.CPU,))
    capability = NodeCapability(devices=(cpu,), models={"lama": offer}, labels=told)
    return NodeRecord(id="n", boot_id="b", status=NodeStatus.ONLINE, capability=capability, relabelled=over)


@given(_LABELS)
def test_a_lane_tells_what_its_tasks_require(requires: dict[str, str]) -> None:
    lane = labelled_lane("lama~upscale", requires)
    assert split_lane(lane) == ("lama~upscale", requires)
    task = a_task(config={"model": "lama"}, requires=requires)
    assert split_lane(task.lane) == ("lama", requires)
    assert Task.from_json(task.to_json()) == task


@given(_LABELS, _LABELS)
def test_a_node_reads_a_lane_exactly_if_it_has_all_that_the_lane_requires(
    has: dict[str, str], requires: dict[str, str]
) -> None:
    node = a_node(has, {})
    (cpu,) = node.capability.devices
    reads = node.reads(cpu, labelled_lane("lama", requires))
    assert reads == all((key, value) in has.items() for key, value in requires.items())
    assert reads == (why_unlabelled(requires, {"n": has}) == "")
    assert not node.reads(cpu, labelled_lane("mat", requires))


def test_labels_given_in_another_order_are_the_same_lane() -> None:
    first = a_task(requires={"rack": "3", "zone": "a"})
    again = a_task(requires={"zone": "a", "rack": "3"})
    assert first.lane == again.lane == "cv2-telea?rack=3&zone=a"


def test_a_task_without_requirements_has_the_json_that_it_always_had() -> None:
    assert "requires" not in a_task().to_json()
    assert "labels" not in NodeCapability().model_dump_json()


def test_an_operators_word_goes_over_what_the_agent_told() -> None:
    node = a_node({"rack": "3", "zone": "a"}, {"rack": "4", "zone": None, "paid": "yes"})
    assert node.labels == {"rack": "4", "paid": "yes"}
    assert node.capability.labels == {"rack": "3", "zone": "a"}


@pytest.mark.parametrize(
    ("words", "found"),
    [
        (["rack"], "'rack' is no label"),
        (["=3"], "a label's name is"),
        (["rack="], "the value of label rack"),
        (["rack=3 4"], "the value of label rack"),
        (["ra?k=3"], "a label's name is"),
        (["rack=3", "rack=4"], "label rack is given twice: 3 and 4"),
        ([f"k{n}=1" for n in range(17)], "at most 16 labels, found 17"),
        (["rack=\x1b[31m"], r"found '\\x1b\[31m'"),
    ],
)
def test_what_is_no_label_is_refused_with_what_was_found(words: list[str], found: str) -> None:
    with pytest.raises(InvalidInput, match=found):
        parse_labels(words)


def test_labels_may_stand_in_one_word_or_in_several() -> None:
    assert parse_labels(["rack=3,zone=a", "paid=yes", "rack=3"]) == {"rack": "3", "zone": "a", "paid": "yes"}
    assert parse_labels([]) == {}
    assert told_labels({"zone": "a", "rack": "3"}) == "rack=3, zone=a"


def test_a_task_that_requires_what_is_no_label_is_refused_by_name() -> None:
    with pytest.raises(InvalidInput, match=r"requires: .*the value of label rack"):
        a_task(requires={"rack": 3})
    with pytest.raises(InvalidInput, match="requires"):
        a_task(requires=["rack=3"])


def test_the_reason_names_the_label_that_nobody_has_or_the_node_that_comes_nearest() -> None:
    nodes = {"a": {"rack": "1"}, "b": {"rack": "2", "zone": "x"}, "c": {"rack": "3", "zone": "y"}}
    assert why_unlabelled({}, nodes) == ""
    assert why_unlabelled({"rack": "2"}, nodes) == ""
    assert why_unlabelled({"rack": "9"}, nodes) == "no node has label rack=9 (there is rack=1, 2, 3)"
    assert why_unlabelled({"paid": "yes"}, nodes) == "no node has label paid=yes"
    assert why_unlabelled({"rack": "3", "zone": "x"}, nodes) == "no node has all of rack=3, zone=x; b lacks rack=3"
    assert satisfies(nodes["b"], {"rack": "2", "zone": "x"})


def test_a_configuration_may_write_labels_as_people_do(tmp_path: Path) -> None:
    file = tmp_path / "lcq.yaml"
    for text in ("{rack: 3, zone: a}", '["rack=3", "zone=a"]', '{rack: "3", zone: "a"}'):
        file.write_text(f"agent: {{labels: {text}}}\n")
        assert load(file).agent.labels == {"rack": "3", "zone": "a"}
    file.write_text("agent:\n  labels: {rack: [3]}\n")
    with pytest.raises(InvalidConfig, match=r"line 2: agent.labels: the value of label rack is text"):
        load(file)


def test_a_running_agent_takes_over_labels_that_have_changed() -> None:
    before = DistributedConfig()
    after = DistributedConfig.model_validate({"agent": {"labels": {"rack": "3"}, "name": "other"}})
    live, waiting = changes(before, after)
    assert "agent.labels.rack" in live
    assert waiting == ("agent.name",)
    taken = with_live_keys(before, after).agent
    assert (taken.labels, taken.name) == ({"rack": "3"}, None)


def test_an_agent_offers_the_labels_that_it_was_given_last() -> None:
    offer = Offer([Device(id="cpu", kind=DeviceKind.CPU)], labels={"rack": "3"})
    assert offer.capability().labels == {"rack": "3"}
    before = offer.capability()
    offer.labels = {"rack": "4"}
    assert offer.capability() != before
    assert offer.capability().labels == {"rack": "4"}
