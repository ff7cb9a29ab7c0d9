"""The background loop: how plain code runs async components."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import subprocess
import sys
import threading
from collections.abc import AsyncIterator, Iterator

import pytest

from lcq.background import BackgroundLoop


@pytest.fixture
def loop() -> Iterator[BackgroundLoop]:
    loop = BackgroundLoop()
    yield loop
    loop.close()
    assert not loop.is_alive


async def _thread_name() -> str:
    return threading.current_thread().name


def test_there_is_one_shared_loop_until_it_is_closed() -> None:
    first = BackgroundLoop.shared()
    assert BackgroundLoop.shared() is first
    assert first.run(_thread_name()) == "lcq background loop"
    first.close()
    first.close()
    second = BackgroundLoop.shared()
    assert second is not first
    assert second.run(_thread_name()) == "lcq background loop"
    second.close()


def test_what_the_work_raises_is_raised_to_the_caller(loop: BackgroundLoop) -> None:
    async def fail() -> None:
        raise KeyError("x")

    with pytest.raises(KeyError, match="x"):
        loop.run(fail())


def test_waiting_for_the_loop_from_inside_it_is_refused_instead_of_standing_still(loop: BackgroundLoop) -> None:
    async def ask_again() -> None:
        loop.run(_thread_name())

    with pytest.raises(RuntimeError, match="await it"):
        loop.run(ask_again())


def test_iterating_gives_each_value_and_closes_the_source_when_the_caller_stops(loop: BackgroundLoop) -> None:
    closed = []

    async def count() -> AsyncIterator[int]:
        try:
            for number in range(5):
                yield number
        finally:
            closed.append(True)

    assert list(loop.iterate(count())) == [0, 1, 2, 3, 4]
    some = loop.iterate(count())
    assert next(some) == 0
    some.close()  # type: ignore[attr-defined]  # it is a generator
    assert closed == [True, True]


class Component:
    """Uses a TaskGroup, which only the task that entered it may leave."""

    def __init__(self, *, refuse: bool = False) -> None:
        self.refuse = refuse
        self.said: list[str] = []

    async def __aenter__(self) -> str:
        if self.refuse:
            raise LookupError("no way in")
        self._group = asyncio.TaskGroup()
        await self._group.__aenter__()
        self._life = self._group.create_task(asyncio.Event().wait())
        self._entered_by = asyncio.current_task()
        return "inside"

    async def __aexit__(self, *_: object) -> None:
        assert asyncio.current_task() is self._entered_by
        self._life.cancel()
        await self._group.__aexit__(None, None, None)
        self.said.append("left")


def test_a_component_is_held_open_and_left_by_the_task_that_entered_it(loop: BackgroundLoop) -> None:
    component = Component()
    held = loop.hold(component)
    assert held.value == "inside"
    assert component.said == []
    held.release()
    held.release()
    assert component.said == ["left"]


def test_a_component_that_cannot_be_entered_says_why(loop: BackgroundLoop) -> None:
    with pytest.raises(LookupError, match="no way in"):
        loop.hold(Component(refuse=True))


def test_closing_the_loop_leaves_what_is_still_held() -> None:
    loop = BackgroundLoop()
    component = Component()
    loop.hold(component)
    loop.close()
    assert component.said == ["left"]


def test_a_forked_child_gets_a_loop_of_its_own() -> None:
    script = (
        "import os, asyncio\n"
        "from lcq.background import BackgroundLoop\n"
        "first = BackgroundLoop.shared()\n"
        "pid = os.fork()\n"
        "if pid == 0:\n"
        "    second = BackgroundLoop.shared()\n"
        "    print(second is not first, second.run(asyncio.sleep(0, 'child')), flush=True)\n"
        "else:\n"
        "    os.waitpid(pid, 0)\n"
        "    print(first.run(asyncio.sleep(0, 'parent')), flush=True)\n"
    )
    run = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=60, check=True)
    assert run.stdout.splitlines() == ["True child", "parent"]


def test_an_interrupt_of_the_caller_cancels_the_work_and_the_end_of_the_process_cleans_up() -> None:
    script = (
        "import asyncio, contextlib, os\n"
        "from lcq.background import BackgroundLoop\n"
        "def say(word):  # whole, though two threads speak\n"
        "    os.write(1, (word + '\\n').encode())\n"
        "@contextlib.asynccontextmanager\n"
        "async def component():\n"
        "    try:\n"
        "        yield\n"
        "    finally:\n"
        "        say('left')\n"
        "async def work():\n"
        "    try:\n"
        "        say('working')\n"
        "        await asyncio.Event().wait()\n"
        "    finally:\n"
        "        say('cancelled')\n"
        "BackgroundLoop.shared().hold(component())\n"
        "try:\n"
        "    BackgroundLoop.shared().run(work())\n"
        "except KeyboardInterrupt:\n"
        "    say('interrupted')\n"
    )
    with subprocess.Popen([sys.executable, "-c", script], stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "working\n"
        os.kill(process.pid, signal.SIGINT)
        rest = process.stdout.read().split()
    assert sorted(rest) == ["cancelled", "interrupted", "left"]
    assert process.returncode == 0


def test_a_plain_iterator_without_aclose_is_fine_too(loop: BackgroundLoop) -> None:
    class Twice:
        left = 2

        def __aiter__(self) -> Twice:
            return self

        async def __anext__(self) -> int:
            with contextlib.suppress(TimeoutError):
                await asyncio.sleep(0)
            if not self.left:
                raise StopAsyncIteration
            self.left -= 1
            return self.left

    assert list(loop.iterate(Twice())) == [1, 0]
