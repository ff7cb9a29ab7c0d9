"""Tasks that nothing serves: looked at a little at a time, each once a look, and moved at once when something does."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable

import pytest

from lcq.models import TaskRecord
from lcq.moving import Mover
from lcq.state.manager import StateManager
from tests.nodes import HEAVY, LIGHT, TELEA, Node, a_task

COUNT = 90


@pytest.fixture
async def mover(state: StateManager, monkeypatch: pytest.MonkeyPatch) -> Mover:
    """A mover that looks at ten tasks of each lane, and stops then; ninety tasks that nothing serves."""
    monkeypatch.setattr("lcq.moving._AT_ONCE", 10)
    monkeypatch.setattr("lcq.moving._LONGEST_S", 1e-9)
    for _ in range(COUNT):
        await state.submit_task(a_task(TELEA), queue=HEAVY)
    return Mover(state)


@pytest.fixture
def read(state: StateManager, monkeypatch: pytest.MonkeyPatch) -> Counter[str]:
    """How often the record of each task was read."""
    counted: Counter[str] = Counter()
    real = state.reader.tasks

    async def tasks(ids: Iterable[str]) -> dict[str, TaskRecord]:
        wanted = list(ids)
        counted.update(wanted)
        return await real(wanted)

    monkeypatch.setattr(state.reader, "tasks", tasks)
    return counted


async def look(mover: Mover, state: StateManager) -> None:
    await mover.move_stranded(await state.reader.fleet())


async def test_a_look_goes_on_where_it_stopped_and_reads_each_task_once(
    state: StateManager, mover: Mover, read: Counter[str]
) -> None:
    assert mover.is_due(changed=True)
    for _ in range(COUNT // 10):
        await look(mover, state)
    assert set(read.values()) == {1}
    assert len(read) == COUNT
    await look(mover, state)  # finds that it is through
    await look(mover, state)
    assert read.total() == COUNT, "nothing has changed: nothing is read again at once"


async def test_what_has_changed_meanwhile_is_looked_at_at_once_and_all_of_it_moves(
    state: StateManager, mover: Mover, read: Counter[str]
) -> None:
    assert mover.is_due(changed=True)
    for _ in range(3):
        await look(mover, state)
    assert not mover.is_due(changed=False), "looking takes a small share of the time"
    await Node(state, queues=(LIGHT,)).hello()
    assert mover.is_due(changed=True)
    for _ in range(3 * COUNT // 10):
        await look(mover, state)
    waiting = await state.reader.waiting()
    assert (waiting[HEAVY], waiting[LIGHT]) == (0, COUNT)
    assert max(read.values()) == 2
