"""Small pictures of a task by a real agent, through a real scheduler, for who cannot reach its files."""

from __future__ import annotations

import asyncio
import base64
import shutil
import zlib
from pathlib import Path
from typing import Any

import pytest

from lcq.client import Client
from lcq.errors import NodeElsewhere, NoThumbnail, TaskNotFound
from lcq.models import Task, TaskStatus, TaskType
from lcq.picture_parts import KNOWS_PICTURES
from lcq.previews import MOST_AT_A_TIME, Previews
from lcq.state.manager import StateManager
from lcq.thumbnails import thumbnail_of
from lcq.wire import AskThumbnail, Order, Pictured, ThumbnailAnswer, ThumbnailPart
from tests.cluster import free_port, running_cluster
from tests.conftest import wait_until, wait_until_sync
from tests.nodes import LIGHT, Node, a_task, the_cpu

PHOTOS = Path("sample-config")


def a_bomb() -> bytes:
    """A PNG whose header claims 3.6 thousand million pixels."""
    chunks = b""
    for body in (b"IHDR" + (60_000).to_bytes(4, "big") * 2 + bytes((8, 2, 0, 0, 0)), b"IDAT", b"IEND"):
        chunks += (len(body) - 4).to_bytes(4, "big") + body + zlib.crc32(body).to_bytes(4, "big")
    return b"\x89PNG\r\n\x1a\n" + chunks


def test_an_agent_shows_what_it_has_done_and_says_why_where_it_cannot(redis_url, tmp_path):
    image, mask = tmp_path / "rocket.jpg", tmp_path / "mask.png"
    shutil.copy(PHOTOS / "photos/rocket.jpg", image)
    shutil.copy(PHOTOS / "masks/rocket.png", mask)
    with running_cluster(redis_url, tmp_path / "data") as cluster:
        cluster.start_scheduler()
        agent = cluster.start_agent(slots=1)
        with cluster.client() as client:
            task = Task(
                task_type=TaskType.INPAINT, image_path=str(image), mask_path=str(mask), config={"model": "cv2-telea"}
            )
            client.submit(task)
            (done,) = client.wait([task.id])
            assert done.status is TaskStatus.COMPLETED
            assert done.result is not None

            def shown(**wish: Any) -> ThumbnailAnswer:
                """What the node shows when it has managed that in the time which it gives itself."""

                def in_time() -> ThumbnailAnswer | None:
                    told = client.thumbnail(task.id, **wish)
                    return None if any("has not managed it" in part.why for part in told.parts.values()) else told

                told = wait_until_sync(in_time, what="pictures in time")
                assert told is not None
                return told

            told = shown(longest=320)
            assert told.node == "node-1"
            assert set(told.parts) == {"before", "mask", "after"}
            for part in told.parts.values():
                assert (part.width, part.height, part.why) == (640, 427, "")
                small = thumbnail_of(base64.b64decode(part.data), "small", longest=1024)
                assert small.pixels.shape == (214, 320, 3)
                assert len(part.data) < 40_000

            part = shown(parts=("before",), longest=100, box=(0.5, 0.0, 1.0, 0.5)).parts["before"]
            assert thumbnail_of(base64.b64decode(part.data), "small", longest=999).size == (100, 67)

            with open(done.result.path, "ab") as file:  # somebody has put another file there
                file.write(b"more")
            image.write_bytes(a_bomb())
            mask.unlink()
            parts = shown().parts
            assert "on node-1 the file of that name has" in parts["after"].why
            assert "its header claims" in parts["before"].why
            assert "no such file on this node" in parts["mask"].why
            assert agent.poll() is None
            with pytest.raises(TaskNotFound):
                client.thumbnail("0" * 26)


@pytest.mark.chaos
def test_whoever_is_asked_the_scheduler_finds_that_the_node_speaks_to(redis_url, tmp_path):
    image = tmp_path / "rocket.jpg"
    shutil.copy(PHOTOS / "photos/rocket.jpg", image)
    other = free_port()
    with running_cluster(redis_url, tmp_path / "data") as cluster:
        cluster.start_scheduler()
        cluster.start_agent(slots=1)
        cluster.start_scheduler("second", port=other)
        with Client(cluster.config, scheduler=f"127.0.0.1:{other}", timeout_s=30) as client:
            task = Task(task_type=TaskType.INPAINT, image_path=str(image), config={"model": "drill-noop"})
            client.submit(task)
            client.wait([task.id])
            for _ in range(6):  # they go round the schedulers
                assert client.thumbnail(task.id, parts=("before",)).parts["before"].width == 640


class Agents:
    """Agents that answer at once what a test has them find."""

    def __init__(self, state: StateManager, found: dict[str, dict[str, ThumbnailPart]], *, here: set[str]) -> None:
        self.previews = Previews(state.reader, order=self._order, is_here=here.__contains__)
        self.asked: list[tuple[str, tuple[str, ...]]] = []
        self._found = found
        self._told: list[asyncio.Task[object]] = []

    def _order(self, node: str, order: Order) -> None:
        assert order.wish is not None
        self.asked.append((node, tuple(order.wish.files)))
        parts = {part: self._found[node].get(part, ThumbnailPart(why="gone")) for part in order.wish.files}
        told = Pictured(node_id=node, boot_id="b", wish=order.wish.id, parts=parts)
        self._told.append(asyncio.get_running_loop().create_task(self.previews.pictured(told, b"")))

    async def thumbnail(self, task_id: str) -> ThumbnailAnswer:
        return await self.previews.thumbnail(AskThumbnail(task_id=task_id), b"")


async def register(state: StateManager, name: str, *knows: str) -> None:
    capability = the_cpu().model_copy(update={"knows": knows})
    await state.register_node(name, boot="b", capability=capability, serves={"cpu": (LIGHT,)})


SEEN = ThumbnailPart(data="AAAA", width=4, height=3, bytes=5)


@pytest.fixture
async def task_id(state: StateManager) -> str:
    """Of a task that node-1, an agent of earlier days, has done."""
    node, task = Node(state), a_task(mask_path="/photos/mask.png")
    await node.hello()
    await state.submit_task(task, queue=LIGHT)
    await node.claim()
    await node.finish(task.id)
    return task.id


async def test_where_no_agent_shows_pictures_that_is_said(state: StateManager, task_id: str):
    with pytest.raises(NoThumbnail, match="no live agent shows pictures"):
        await Agents(state, {}, here={"node-1"}).thumbnail(task_id)


async def test_what_one_node_does_not_reach_the_next_is_asked_for_and_no_more_than_that(state: StateManager, task_id):
    for name in ("node-1", "node-2", "node-3"):
        await register(state, name, KNOWS_PICTURES)
    found = {"node-1": {"after": SEEN}, "node-2": {"before": SEEN}, "node-3": {"mask": SEEN}}
    agents = Agents(state, found, here=set(found))
    parts = (await agents.thumbnail(task_id)).parts
    assert agents.asked == [("node-1", ("before", "mask", "after")), ("node-2", ("before", "mask"))]
    assert (parts["after"], parts["before"], parts["mask"].why) == (SEEN, SEEN, "gone")


async def test_a_file_of_the_same_name_that_is_another_is_not_shown(state: StateManager, task_id: str):
    await register(state, "node-2", KNOWS_PICTURES)
    other = SEEN.model_copy(update={"bytes": 77})
    part = (await Agents(state, {"node-2": {"after": other}}, here={"node-2"}).thumbnail(task_id)).parts["after"]
    assert (part.data, part.why) == ("", "on node-2 the file of that name has 77 bytes, the result had 5")


async def test_where_the_node_speaks_to_another_scheduler_that_one_is_to_be_asked(state: StateManager, task_id: str):
    await register(state, "node-2", KNOWS_PICTURES)
    with pytest.raises(NodeElsewhere, match="node-2 speaks to another scheduler"):
        await Agents(state, {}, here=set()).thumbnail(task_id)


async def test_an_agent_that_does_not_answer_is_not_waited_for_for_ever(state: StateManager, task_id, monkeypatch):
    monkeypatch.setattr("lcq.previews._ANSWER_S", 0.01)
    await register(state, "node-2", KNOWS_PICTURES)
    previews = Previews(state.reader, order=lambda node, order: None, is_here=lambda node: True)
    with pytest.raises(NoThumbnail, match="none of those that could has answered"):
        await previews.thumbnail(AskThumbnail(task_id=task_id), b"")
    assert previews.waiting == 0


async def test_more_looks_than_a_scheduler_may_have_open_are_refused(state: StateManager, task_id: str):
    await register(state, "node-2", KNOWS_PICTURES)
    previews = Previews(state.reader, order=lambda node, order: None, is_here=lambda node: True)
    looks = [asyncio.create_task(previews.thumbnail(AskThumbnail(task_id=task_id), b"")) for _ in range(MOST_AT_A_TIME)]
    await wait_until(lambda: previews.waiting == MOST_AT_A_TIME)
    with pytest.raises(NoThumbnail, match="others are looked at just now"):
        await previews.thumbnail(AskThumbnail(task_id=task_id), b"")
    for look in looks:
        look.cancel()
    await asyncio.wait(looks)
    assert previews.waiting == 0
