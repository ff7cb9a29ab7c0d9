"""When a job is likely to be done: what the rule says of jobs whose answer can be told by hand."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from benchmarks.eta import simulated
from lcq.eta import BETWEEN, Crew, Rivals, crew_of, job_eta
from lcq.models import (
    DEFAULT_QUEUES,
    Device,
    DeviceKind,
    Eta,
    JobSummary,
    ModelOffer,
    NodeCapability,
    NodeRecord,
    NodeStatus,
    TaskRecord,
    TaskStatus,
)
from lcq.routing import Fleet
from tests.nodes import a_task

NOBODY = Rivals()


def a_job(*, queued: int = 0, processing: int = 0, done: int = 0, **more: object) -> JobSummary:
    counts = {TaskStatus.QUEUED: queued, TaskStatus.PROCESSING: processing, TaskStatus.COMPLETED: done}
    return JobSummary(name="j", submitted_ms=0, counts=counts).model_copy(update=more)


def eta(job: JobSummary, crew: Crew, rivals: Rivals = NOBODY) -> Eta:
    told = job_eta(job, crew, rivals)
    assert told is not None
    return told


def p50(job: JobSummary, crew: Crew, rivals: Rivals = NOBODY) -> float:
    told = eta(job, crew, rivals)
    assert told.p50_s is not None
    assert told.p90_s is not None
    assert told.p90_s > told.p50_s
    return told.p50_s / BETWEEN


def test_what_is_left_is_shared_by_the_slots_and_the_last_ones_end_one_after_another():
    assert p50(a_job(queued=100, left_s=200.0), Crew(1)) == pytest.approx(200)
    assert p50(a_job(queued=100, left_s=200.0), Crew(4, spread=1.0)) == pytest.approx(50 + 0.75)
    assert p50(a_job(queued=100, left_s=200.0), Crew(4, spread=2.0)) > 51, "the more, the more its tasks vary"
    assert p50(a_job(queued=1, left_s=2.0), Crew(8)) == pytest.approx(2), "one task is not done sooner by many slots"
    assert p50(a_job(processing=1, left_s=2.0), Crew(8)) == pytest.approx(1), "half of what runs is done"


def test_predictions_are_corrected_by_what_is_done_and_grow_surer_with_it():
    slow = {"left_s": 100.0, "done_predicted_s": 100.0, "done_spent_s": 300.0}
    early = a_job(queued=100, left_s=100.0)
    late = a_job(queued=100, done=100, **slow)
    assert p50(late, Crew(1)) == pytest.approx(100 * 302 / 102)
    spread = {}
    for name, job in (("early", early), ("late", late)):
        told = eta(job, Crew(1, spread=3.0))
        assert told.p50_s is not None
        assert told.p90_s is not None
        spread[name] = (told.p90_s - 0.5) / told.p50_s
    assert 2.0 < spread["late"] * 1.5 < spread["early"]
    assert spread["late"] >= 1.25, "never surer than that"


def test_what_is_known_by_now_counts_before_anything_is_done():
    assert p50(a_job(queued=100, left_s=100.0), Crew(1, pace=3.0)) == pytest.approx(300)


def test_those_that_run_count_with_what_they_have_had():
    """Two took a second, as was predicted, and eight have run for five already: not all are that quick."""
    job = a_job(queued=90, processing=8, done=2, left_s=98.0, done_predicted_s=2.0, done_spent_s=2.0)
    quick, slow = Crew(8), Crew(8, running_s=1.0, elapsed_s=5.0)
    assert p50(job, slow) > 4 * p50(job, quick)


@pytest.mark.parametrize("times", [0.8, 1.0, 1.5, 2.0])
def test_of_simulated_jobs_about_half_end_by_their_p50_and_nine_in_ten_by_their_p90(times: float):
    """``times``: how much longer all takes than was predicted."""
    told = simulated(jobs=25, times=times, noise=0.3, seed=3)
    assert 0.25 <= told.under_p50 <= 0.75, told
    assert told.under_p90 >= 0.8, told
    assert 0.8 <= told.median_times_p50 <= 1.25, told


def test_other_users_share_the_slots_until_they_have_no_more_and_higher_bands_go_first():
    job = a_job(queued=100, left_s=100.0)
    assert p50(job, Crew(1), Rivals(others={"ben": 10.0})) == pytest.approx(110)
    assert p50(job, Crew(1), Rivals(others={"ben": 1e6})) == pytest.approx(200), "a fair half each"
    assert p50(job, Crew(1), Rivals(before=500.0)) == pytest.approx(600)
    told = eta(job, Crew(1), Rivals(own=50.0))
    assert told.p50_s == pytest.approx(125 * BETWEEN), "which of their own jobs is first nobody knows"


def test_where_nobody_can_say_the_reason_is_told():
    assert job_eta(a_job(done=3), Crew(2), NOBODY) is None
    assert eta(a_job(queued=1, left_s=1.0, paused="by ann: lunch"), Crew(2)) == Eta(why="paused by ann: lunch")
    assert eta(a_job(queued=1, left_s=1.0), Crew(0, why="queue q is paused")).why == "queue q is paused"


def test_a_job_of_which_nothing_was_ever_measured_is_guessed_until_some_of_it_is_done():
    crew = Crew(2, guessed=True)
    assert eta(a_job(queued=4, left_s=4.0), crew).guessed
    assert not eta(a_job(queued=4, done=1, left_s=4.0), crew).guessed
    assert not eta(a_job(queued=4, left_s=4.0), Crew(2)).guessed


def test_a_job_of_an_older_version_goes_by_what_its_done_tasks_took():
    assert p50(a_job(queued=10, done=10, left_s=0.0, done_spent_s=20.0, done_predicted_s=20.0), Crew(1)) == (
        pytest.approx(20)
    )


@given(
    left=st.floats(0, 1e6),
    queued=st.integers(1, 10_000),
    slots=st.integers(1, 1000),
    others=st.floats(0, 1e6),
    done=st.integers(0, 1000),
)
def test_more_slots_never_make_it_later_nor_others_work_sooner(
    left: float, queued: int, slots: int, others: float, done: int
):
    job = a_job(queued=queued, done=done, left_s=left, done_predicted_s=float(done), done_spent_s=2.0 * done)
    alone = p50(job, Crew(slots))
    assert p50(job, Crew(2 * slots)) <= alone * 1.5 + 1e-6, "but for the last ones"
    assert p50(job, Crew(slots), Rivals(others={"ben": others})) >= alone - 1e-6


def test_the_crew_is_each_device_that_takes_its_tasks_once():
    def node(name: str, slots: int, **more: object) -> NodeRecord:
        capability = NodeCapability(
            devices=(Device(id="cpu", kind=DeviceKind.CPU, slots=slots),),
            models={"cv2-telea": ModelOffer(kinds=(DeviceKind.CPU,))},
        )
        record = NodeRecord(
            id=name, boot_id="b", status=NodeStatus.ONLINE, capability=capability, serves={"cpu": ("cpu-light",)}
        )
        return record.model_copy(update=more)

    def record(**more: object) -> TaskRecord:
        task = a_task()
        values = {"task": task, "status": TaskStatus.QUEUED, "revision": 1, "queue": "cpu-light"}
        return TaskRecord.model_validate(values | {"priority": task.priority} | more)

    fleet = Fleet(DEFAULT_QUEUES, (node("a", 2), node("b", 3), node("c", 9, status=NodeStatus.OFFLINE)))
    assert crew_of([record(), record()], fleet).slots == 5
    assert crew_of([record(pinned_node="a")], fleet).slots == 2
    assert crew_of([record(queue="gpu-high")], fleet) == Crew(0, why="nothing that is online takes its tasks")
    paused = Fleet(DEFAULT_QUEUES, fleet.nodes, paused={"cpu-light": "by ann"})
    assert crew_of([record()], paused).why == "queue cpu-light is paused by ann"
