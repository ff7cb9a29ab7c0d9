"""Two attempts beside each other: what differs and matters is marked, whatever is in it."""

from __future__ import annotations

from lcq.models import Attempt, Ease, TaskStatus
from tests.conftest import wait_until
from tests.tui.fakes import FakeCluster, a_failure, a_task
from tests.tui.test_gallery import a_finished_task
from tui.pictures import UPPER_HALF
from tui.screens.compare import CompareScreen, Side, facts_of, logs_of, sides_of, table_of
from tui.text import cells

BEGIN = 1_000_000


def an_attempt(number: int = 1, **more: object) -> Attempt:
    values = {
        "number": number, "node": f"gpu-{number}", "device": "cpu", "started_ms": BEGIN + number * 10_000,
        "ended_ms": BEGIN + number * 10_000 + 4_000, "outcome": "failed", "cost": "x",
    }  # fmt: skip
    return Attempt.model_validate(values | more)


def two_attempts() -> tuple[Attempt, Attempt]:
    failure = a_failure("tried to allocate 9.21 GiB")
    return (
        an_attempt(1, failure=failure, log="loading\nout of memory", seconds=0.0, megapixels=2.0),
        an_attempt(
            2, outcome="completed", seconds=3.0, predicted_s=2.5, guessed=True, eased=(Ease.SMALLER_TILE,), warm=True,
            megapixels=2.0,
        ),
    )  # fmt: skip


def test_what_differs_between_two_attempts_is_told_with_the_times_of_each_step():
    record = a_task(submitted_ms=BEGIN)
    left, right = sides_of(record, two_attempts())
    facts = {fact.label: (fact.left, fact.right) for fact in facts_of(left, right)}
    assert facts["node"] == ("gpu-1", "gpu-2")
    assert facts["waited"] == ("10.0s", "6.0s")
    assert {fact.left for fact in facts_of(left, right, lambda node, device: f"{device} of {node}")} >= {"cpu of gpu-1"}
    assert "waited" not in {fact.label for fact in facts_of(Side(record, None), Side(record, None))}
    assert facts["held its slot"] == ("4.0s", "4.0s")
    assert facts["worked"] == ("--", "3.0s")
    assert facts["around it"] == ("--", "1.0s")
    assert facts["predicted"] == ("--", "2.5s, a guess")
    assert facts["model loaded"] == ("had to be loaded", "was there")
    assert facts["made easier"] == ("--", Ease.SMALLER_TILE.value)
    assert facts["error"] == ("out_of_memory: tried to allocate 9.21 GiB", "--")
    assert facts["megapixels"] == ("2.00", "2.00")
    assert "parameters" not in facts  # of one task they are the same
    assert "memory" not in facts  # nobody knows it


def test_of_two_tasks_the_parameters_that_differ_are_told_and_no_others():
    one = a_task(task_config={"model": "lama", "tile": 512, "seed": 7})
    two = a_task(task_config={"model": "lama", "tile": 1024, "seed": 7}, task_timeout_s=60)
    (left,), (right,) = (sides_of(record, [an_attempt()]) for record in (one, two))
    told = {fact.label: (fact.left, fact.right) for fact in facts_of(left, right)}
    assert (told["config.tile"], told["time-out"]) == (("512", "1024"), ("600 s", "60 s"))
    assert not {"config.seed", "image", "model"} & told.keys()
    same = {fact.label: fact.left for fact in facts_of(left, sides_of(one, [an_attempt()])[0])}
    assert "parameters" not in same
    twin = one.model_copy(update={"task": one.task.model_copy(update={"id": two.id})})
    assert {fact.label: fact.left for fact in facts_of(left, sides_of(twin, [an_attempt()])[0])}["parameters"] == (
        "the same"
    )


def test_every_line_fits_its_room_and_a_difference_is_marked_by_a_sign():
    record = a_task(submitted_ms=BEGIN)
    first, second = two_attempts()
    wide = first.model_copy(update={"failure": a_failure("顔の修復に失敗 " * 40), "log": "ログ\x1b]0;x\x07 " * 90})
    for width in (40, 60, 80, 120):
        left, right = sides_of(record, [wide, second])
        for pieces in (table_of(facts_of(left, right), width), logs_of(left, right, width)):
            text = "".join(text for text, _ in pieces)
            assert "\x1b" not in text
            assert max(cells(line) for line in text.splitlines()) <= width
    text = "".join(text for text, _ in table_of(facts_of(left, right), 120))
    node = next(line for line in text.splitlines() if "node " in line)
    began = next(line for line in text.splitlines() if "began " in line)
    assert "≠" in node
    assert "≠" not in began


async def test_an_attempt_is_compared_with_the_one_before_and_its_result_is_shown(open_console, tmp_path):
    record = a_finished_task(tmp_path)
    alone = a_task("/photos/alone.jpg", status=TaskStatus.FAILED)
    cluster = FakeCluster([record, alone])
    first, second = two_attempts()
    third = an_attempt(3, outcome="completed", seconds=3.5)
    cluster.history = {record.id: [first, second.model_copy(update={"outcome": "failed"}), third]}
    cluster.history[alone.id] = [first]
    async with open_console(cluster) as console:
        console.desk.tasks.move_to(console.desk.tasks.index_of(record.id))
        await console.press("equals_sign")
        screen = console.app.screen
        assert isinstance(screen, CompareScreen)
        await wait_until(lambda: UPPER_HALF in console.text())
        assert "attempts 2 and 3 of 3" in console.text()
        assert "this attempt has left no result" in console.text()
        await console.press("left_curly_bracket")
        await console.pilot.pause()
        assert "attempts 1 and 2 of 3" in console.text()
        assert "out of memory" in console.text()  # its log
        assert UPPER_HALF not in console.text()
        await console.press("escape")
        console.desk.tasks.move_to(console.desk.tasks.index_of(alone.id))
        await console.press("equals_sign")
        await wait_until(lambda: "no other task of its image is known here" in console.text())
        await console.press("escape", "asterisk", "equals_sign")
        await wait_until(lambda: "their last attempts" in console.text())
        assert record.id in console.text()
        assert alone.id in console.text()
