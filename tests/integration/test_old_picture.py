"""A scheduler routes by a picture of the fleet that it keeps for a moment: nothing is refused because that is old."""

from __future__ import annotations

from pathlib import Path

import pytest

import lcq.tasks as tasks_module
from lcq.errors import NodeNotFound, UnknownModel
from tests.chaos.rig import a_rig
from tests.light_node import a_light_node
from tests.nodes import a_task


@pytest.fixture
def no_news(monkeypatch: pytest.MonkeyPatch) -> None:
    """As where the events are late: nothing but what is asked for makes the scheduler look again."""
    monkeypatch.setattr(tasks_module, "_FLEET_AGE_S", 3600.0)
    monkeypatch.setattr(tasks_module, "_FLEET_MOVES", frozenset())


@pytest.mark.usefixtures("no_news")
async def test_a_model_and_a_node_that_have_just_come_are_known_to_the_next_submit(redis_url: str, tmp_path: Path):
    async with a_rig(redis_url, tmp_path) as rig:
        with pytest.raises(UnknownModel):
            await rig.client.submit(a_task("sketch"))
        async with a_light_node([rig.scheduler.control_endpoint], name="new", models=("sketch",)):
            assert (await rig.client.submit(a_task("sketch"))).why == ""
            async with a_light_node([rig.scheduler.control_endpoint], name="newer", models=("sketch",)):
                first = await rig.client.submit(a_task("sketch"), node="newer-0")
        async with a_light_node([rig.scheduler.control_endpoint], name="newest", models=("sketch",)):
            await rig.client.reroute([first.id], node="newest-0")
            assert (await rig.client.get(first.id)).pinned_node == "newest-0"
        with pytest.raises(NodeNotFound):
            await rig.client.submit(a_task("sketch"), node="nobody")
