"""What the pictures of docs/console are painted from is read as it was written, and nothing can be done to it."""

from __future__ import annotations

import pytest

from benchmarks.drawing import with_palette
from benchmarks.scene import NotInScene, Scene, StillLink
from lcq.models import NodeStatus


async def test_a_scene_has_all_that_its_pictures_show_and_takes_no_commands():
    scene = Scene.read()
    snapshot = await scene.snapshot()
    nodes = {node.id: node for node in await scene.nodes()}
    assert {NodeStatus.OFFLINE, NodeStatus.DRAINING} < {node.status for node in nodes.values()}
    assert any(queue.paused for queue in await scene.queues())
    assert any(queue.name == "serverless" for queue in await scene.queues())
    assert len(await scene.minutes(5)) == 5
    assert len(await scene.acts(7)) == 7
    first, second = await scene.acts(2)
    assert (await scene.acts(1, first.id))[0] == second
    assert (await scene.dead()).causes
    assert (await scene.budget()).currency == "EUR"
    ended = next(record for record in snapshot.tasks if record.attempt)
    assert len(await scene.attempts(ended.id)) == ended.attempt
    assert all(event.at_ms <= scene.at_ms for event in await scene.task_events(ended))
    with pytest.raises(NotInScene, match="cancel"):
        await scene.cancel([ended.id], revisions=[1])


def test_how_fresh_a_scene_is_never_depends_on_the_machine():
    link = StillLink()
    link.redis_ms = 512.0
    link.feel_control(512.0)
    link.answer()
    link.loaded = True
    assert (link.redis_ms, link.control_ms, link.silence_s) == (1.2, 2.6, 0.3)


def test_a_picture_keeps_its_most_frequent_colours_as_they_are():
    from PIL import Image

    image = Image.new("RGB", (300, 4), (7, 8, 9))
    for x in range(300):
        image.putpixel((x, 0), (x % 256, 255 - x % 256, x // 2))
    small = with_palette(image).convert("RGB")
    assert small.getpixel((5, 3)) == (7, 8, 9)
    assert len(small.getcolors(300)) == 256
