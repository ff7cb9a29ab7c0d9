"""An operator's quarter of an hour, all by keys: the real console on a real terminal, over a real cluster at work."""

from __future__ import annotations

import contextlib
import re
import signal
import sys
from collections.abc import Iterable
from pathlib import Path

import psutil
import pytest
from PIL import Image, ImageDraw

from tests.cluster import Cluster, running_cluster
from tests.conftest import wait_until
from tests.tui.terminal import Terminal, on_a_terminal

GOOD = ("bridge", "castle", "harbour", "meadow")
BROKEN = "torn"
SIZE = (120, 40)
ESC = "\x1b"
REFUSED = "not done: |not submitted: "
UNFILTERED = r"^ / filter .*\b5 of 5\b"


def a_picture(path: Path) -> None:
    image = Image.linear_gradient("L").resize((64, 48)).convert("RGB")
    ImageDraw.Draw(image).rectangle((20, 10, 30, 30), fill=(200, 40, 40))
    image.save(path)


def a_folder(path: Path) -> None:
    """Pictures with their masks beside them, and one that has been cut off."""
    path.mkdir()
    for name in (*GOOD, BROKEN):
        a_picture(path / f"{name}.png")
        mask = Image.new("L", (64, 48))
        ImageDraw.Draw(mask).rectangle((18, 8, 32, 32), fill=255)
        mask.save(path / f"{name}_mask.png")
    whole = (path / f"{BROKEN}.png").read_bytes()
    (path / f"{BROKEN}.png").write_bytes(whole[: len(whole) // 2])


def tell(processes: Iterable[psutil.Process], number: signal.Signals) -> None:
    for process in processes:
        with contextlib.suppress(psutil.NoSuchProcess):
            process.send_signal(number)


async def done_by(terminal: Terminal, keys: str, *signs: str) -> str:
    """Type ``keys`` until one of ``signs`` stands there; gives it.

    Again where the console refuses in words, as it must while nobody answers for seconds: the machine may be that busy.
    """
    for _ in range(5):
        terminal.type(keys)
        found = (await terminal.stands("|".join((*signs, REFUSED))))[0]
        if not re.fullmatch(REFUSED, found):
            return found
        await terminal.stands("LIVE", gone=REFUSED)
    raise AssertionError(f"{keys!r} was refused again and again")


async def back(terminal: Terminal, *patterns: str) -> None:
    """Escape, and nothing behind it before it has worked: together they would be another key."""
    terminal.type(ESC)
    await terminal.stands(*patterns)


async def filtered(terminal: Terminal, words: str, count: int) -> None:
    """Filter by ``words``, which ``count`` of the five tasks fit, and go to the first of them."""
    await terminal.stands(UNFILTERED)
    terminal.type("/")
    await terminal.stands("words, -word, name:word")  # what the empty field says
    terminal.type(f"{words}\r")
    await terminal.stands(rf"^ / {re.escape(words)} .*\b{count} of 5\b")
    terminal.type("g")


async def submit_the_folder(terminal: Terminal, photos: Path) -> None:
    terminal.type("2")
    await terminal.stands("no tasks yet")
    for _ in range(5):
        await done_by(terminal, "s", "Submit a task")
        terminal.type(str(photos))
        await terminal.stands("5 tasks would go")
        terminal.type("\r")
        if "submitted" in (await terminal.stands(f"submitted 5 tasks of job|{REFUSED}"))[0]:
            break
        await terminal.stands("LIVE", gone=REFUSED)  # what may have arrived of it all the same is taken up
    await terminal.stands("processing 2", "queued 3")


async def raise_and_take_back(terminal: Terminal) -> None:
    """``+`` and ``u``; once more where this machine is so busy that it was too late to be taken back."""
    for _ in range(5):
        await done_by(terminal, "+", r"now high: 1\w{15}")
        await terminal.stands(r"^> 1\w{15} .* high ")
        if "taken back" in await done_by(terminal, "u", r"taken back: 1\w{15}", "none is that young", "refused"):
            await terminal.stands(r"^> 1\w{15} .* normal ")
            return
        await done_by(terminal, "-", r"now normal: 1\w{15}")
    raise AssertionError("it was never taken back in time")


async def act_on_what_waits(terminal: Terminal) -> None:
    await filtered(terminal, "state:queued", 3)
    await terminal.stands(r"^> 1\w{15} .*QUEUED")
    await raise_and_take_back(terminal)
    terminal.type("\r")
    await terminal.stands("Why it is here", "waits for its turn in cpu-light, behind 2 tasks")
    await back(terminal, r"^> 1\w{15} .*QUEUED")
    await done_by(terminal, "m", "Move 1 task where")
    await done_by(terminal, "\x1b[F\r", r"moved to node node-b: 1\w{15}")  # the last of the list
    await back(terminal, UNFILTERED)


async def see_it_die(terminal: Terminal, cluster: Cluster) -> str:
    """Kill node-a; the id of the task that it had."""
    await filtered(terminal, "node:node-a", 1)
    task = (await terminal.stands(r"^> (1\w{15}) .*PROCESSING"))[1]
    cluster.kill("node-a")
    await terminal.stands(r"node-a down \d")  # among what needs a person
    await back(terminal, UNFILTERED)
    return task


@pytest.mark.timeout(900)  # it takes as many seconds as the machine is busy
async def test_an_operator_sees_and_steers_a_real_cluster_by_keys_alone(redis_url: str, tmp_path: Path) -> None:
    a_folder(tmp_path / "photos")
    with running_cluster(redis_url, tmp_path / "data", LCQ_DRILLS="0") as cluster:
        cluster.start_scheduler()
        for name in ("node-a", "node-b"):
            cluster.start_agent(name, slots=1, wait=False)
        environment = {
            "LCQ_REDIS__URL": redis_url, "LCQ_DATA_DIR": str(cluster.folder), "COLORTERM": "truecolor",
            "LCQ_ZEROMQ__CONTROL_PORT": str(cluster.control_port),
        }  # fmt: skip
        command = (sys.executable, "-m", "lcq.cli.main", "console")
        async with on_a_terminal(*command, size=SIZE, environment=environment) as terminal:
            await work_the_cluster(terminal, cluster, tmp_path / "photos")
            assert await terminal.process.wait() == 0
            terminal.check_sane()


async def retry_what_failed(terminal: Terminal, photos: Path) -> None:
    await filtered(terminal, "state:failed", 1)
    await terminal.stands(rf"^> 1\w{{15}} .*FAILED.* {BROKEN}\.png .*image_truncated")
    a_picture(photos / f"{BROKEN}.png")  # somebody copies it again
    await done_by(terminal, "r", r"retried 1\w{15}")
    await terminal.stands("completed 5", "failed 0")
    await back(terminal, UNFILTERED)


async def look_at_its_picture(terminal: Terminal) -> None:
    await filtered(terminal, BROKEN, 1)
    terminal.type("i")
    await terminal.stands(r"before, mask red", r"after", r"▀▀▀", "outside the mask")
    await back(terminal, r"^> 1\w{15} .*COMPLETED")
    await back(terminal, UNFILTERED)


async def work_the_cluster(terminal: Terminal, cluster: Cluster, photos: Path) -> None:
    await terminal.stands("LIVE", "no tasks yet: s submits one")
    terminal.type("4")
    await terminal.stands(r"node-a .*ONLINE", r"node-b .*ONLINE")
    dies, lives = [await wait_until(lambda name=name: cluster.runners(name)) for name in ("node-a", "node-b")]
    try:
        tell([*dies, *lives], signal.SIGSTOP)  # so that what runs stays so until the node has died
        await submit_the_folder(terminal, photos)
        await act_on_what_waits(terminal)
        task = await see_it_die(terminal, cluster)
        tell(lives, signal.SIGCONT)
        await terminal.stands("completed 4", "failed 1")
    finally:
        tell([*dies, *lives], signal.SIGCONT)
    await filtered(terminal, task, 1)
    terminal.type("\r")
    await terminal.stands(r"Tasks +> 1\w{15}", "node_lost: the agent on node-a", r"completed +node-b")
    await back(terminal, rf"^> {task} .*node-b")
    await back(terminal, UNFILTERED)
    await retry_what_failed(terminal, photos)
    await look_at_its_picture(terminal)
    terminal.type("q")
    await terminal.stands("Leave the console")
    terminal.type("y")
