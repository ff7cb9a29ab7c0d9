"""The viewer, the strip under the list, the images of the details: what is fetched when, and what is on the screen."""

from __future__ import annotations

import asyncio
from dataclasses import replace

import pytest

from lcq.errors import NoThumbnail
from tests.conftest import wait_until
from tests.tui.fakes import REDIS_AWAY, FakeCluster, a_node, a_task
from tests.tui.test_gallery import a_finished_task, sent
from tui.pictures import UPPER_HALF, Compared, Mode
from tui.screens.detail import TaskScreen
from tui.screens.picture import PictureScreen
from tui.widgets.picture import PictureStrip


async def test_the_viewer_goes_through_its_modes_zooms_and_keeps_its_place_through_a_resize(open_console, tmp_path):
    record = a_finished_task(tmp_path)
    async with open_console(FakeCluster([record], [a_node()]), size=(80, 24)) as console:
        await console.press("i")
        screen = console.app.screen
        assert isinstance(screen, PictureScreen)
        await wait_until(lambda: screen.pictures is not None and screen.mode is Mode.BOTH)
        await console.pilot.pause()
        assert console.text().count(UPPER_HALF) > 500
        assert "before, mask red  640x427" in console.text()
        assert "mask 4.45% of the picture   outside the mask nothing differs" in console.text()

        await console.press("v", "left", "left", "b")
        assert (screen.mode, screen.wipe, screen.mask_shown) == (Mode.WIPE, 0.4, False)
        assert "the line at 40%" in console.text()
        await console.press("plus", "plus", "shift+left")
        assert screen.look.zoom > 2
        assert screen.look.x < 0.5
        await console.press("v")
        assert "where after differs" in console.text()

        look = screen.look
        await console.pilot.resize_terminal(40, 10)  # pitfall 9
        await console.pilot.resize_terminal(30, 8)
        await console.pilot.resize_terminal(120, 40)
        await console.pilot.pause()
        assert (screen.mode, screen.look) == (Mode.DIFFERENCE, look)
        await wait_until(
            lambda: any(line.count(UPPER_HALF) > 60 for line in console.lines()), what="the difference anew"
        )
        assert len(console.lines()) == 40
        await console.press("o")
        assert "1:1" in console.text()
        await console.press("equals_sign", "escape")
        assert not isinstance(console.app.screen, PictureScreen)


async def test_a_difference_outside_the_mask_is_told_of_the_files_own_pixels_not_of_small_pictures(
    open_console, tmp_path
):
    async with open_console(FakeCluster([a_finished_task(tmp_path)], [a_node()]), size=(80, 24)) as console:
        await console.press("i")
        screen = console.app.screen
        assert isinstance(screen, PictureScreen)
        pictures = await wait_until(lambda: screen.pictures)

        def told(scale: int) -> str:
            parts = dict(pictures.parts)
            for part in ("before", "after"):
                small = parts[part].thumbnail
                rows, columns = small.pixels.shape[:2]
                parts[part] = replace(parts[part], thumbnail=replace(small, size=(columns * scale, rows * scale)))
            screen.pictures = replace(pictures, parts=parts, compared=Compared(26, 44.0))
            return "".join(part.text for part in screen._told())

        assert "outside the mask PSNR 44 dB, at most 26 of 255" in told(1)
        assert "outside" not in told(2)


async def test_what_cannot_be_shown_is_said_and_the_next_task_is_shown_in_the_same_way(open_console, tmp_path):
    record, lost = a_finished_task(tmp_path), a_task("/nowhere/[bold]x.jpg")
    cluster = FakeCluster([record, lost])
    cluster.thumbnail_trouble = NoThumbnail(lost.id, "gpu-1 is gone")
    async with open_console(cluster, size=(120, 30)) as console:
        await console.press("g", "i")
        screen = console.app.screen
        assert isinstance(screen, PictureScreen)
        first = screen.task_id
        await wait_until(lambda: screen.pictures is not None)
        await console.press("right_curly_bracket")
        assert screen.task_id != first
        if screen.task_id != lost.id:
            await console.press("left_curly_bracket")
        await wait_until(lambda: screen.pictures is not None and screen.pictures.task_id == lost.id)
        await console.pilot.pause()
        text = " ".join(console.text().split())
        assert "/nowhere/[bold]x.jpg is not on this machine; no node can show the pictures of" in text
        assert "no result yet: the task is queued" in text
        assert "this task has no mask" in text
        await console.press("v")
        assert "no wipe: there are not two of one size" in console.text()
        await console.press("left_curly_bracket", "left_curly_bracket")
        assert screen.mode is Mode.WIPE


async def test_the_strip_fetches_where_the_cursor_rests_and_gives_up_when_it_moves_on(open_console):
    tasks = [a_task(f"/nowhere/{number}.jpg") for number in range(4)]
    cluster = FakeCluster(tasks)
    cluster.thumbnails = {(task.id, "before"): sent("before") for task in tasks}
    cluster.shutter.clear()
    async with open_console(cluster, size=(120, 40)) as console:
        strip = console.app.screen.query_one(PictureStrip)
        await wait_until(lambda: len(cluster.looks) == 1)  # of the task that the cursor is on from the start
        held = [worker for worker in console.app.workers if worker.group == "pictures"]
        await console.press("k", "j", "j")
        await wait_until(lambda: all(worker.is_cancelled for worker in held))
        await wait_until(lambda: cluster.looks[-1][0] == console.table.view.cursor_id and len(cluster.looks) > 1)
        assert strip.pictures is None
        cluster.shutter.set()
        await wait_until(lambda: strip.pictures is not None)
        assert strip.pictures.task_id == console.table.view.cursor_id
        await console.pilot.pause()
        assert "from gpu-1" in console.text()
        await console.pilot.resize_terminal(80, 24)
        await console.pilot.pause()
        assert not strip.display
        await console.press("k")
        await asyncio.sleep(0)
        assert strip.pictures is None


@pytest.mark.usefixtures("news_may_stop")
async def test_keys_that_come_before_the_pictures_and_a_cluster_that_comes_back_are_not_lost(open_console):
    task = a_task("/nowhere/x.jpg")
    cluster = FakeCluster([task])
    cluster.thumbnails = {(task.id, "before"): sent("before")}
    async with open_console(cluster, size=(80, 24)) as console:
        cluster.trouble = REDIS_AWAY
        await console.press("i", "v", "v", "v")
        screen = console.app.screen
        assert isinstance(screen, PictureScreen)
        await wait_until(lambda: "cannot be shown now" in console.text())
        cluster.trouble = None
        await wait_until(lambda: screen.pictures is not None)
        await wait_until(lambda: screen.mode is Mode.BEFORE)


async def test_the_details_have_the_images_between_the_other_sections(open_console, tmp_path):
    record = a_finished_task(tmp_path)
    async with open_console(FakeCluster([record]), size=(80, 24)) as console:
        await console.press("d")
        screen = console.app.screen
        assert isinstance(screen, TaskScreen)
        images = screen.query_one(PictureStrip)
        await wait_until(lambda: images.pictures is not None)
        await console.pilot.pause()
        assert console.text().count(UPPER_HALF) > 200
        await console.press("i")
        assert isinstance(console.app.screen, PictureScreen)
