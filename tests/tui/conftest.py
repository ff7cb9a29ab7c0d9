"""A console over a cluster in memory, headless."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from typing import Any

import pytest
from textual._compositor import Compositor
from textual.pilot import Pilot
from textual.screen import Screen

from tests.conftest import wait_until
from tests.tui.fakes import FakeCluster
from tui.app import ConsoleApp
from tui.desk import Desk
from tui.screens.listing import ListScreen
from tui.store import Row
from tui.widgets.table import LineTable


class Console:
    """An open console: its app, its pilot, and what a test asks of its screen."""

    def __init__(self, app: ConsoleApp, pilot: Pilot[int], cluster: FakeCluster) -> None:
        self.app, self.pilot, self.cluster = app, pilot, cluster
        self.desk = app.desk

    async def press(self, *keys: str) -> None:
        """Press them; each has been dealt with then: Textual takes a process that got no processor for an idle one."""
        await self.pilot.press(*keys)
        app = self.app
        await wait_until(lambda: app._has_ended or not (app._to_come or app._under_way), what="the keys to be heard")

    async def settle(self) -> None:
        """Let the store hear of everything the cluster has told, and the screen show it."""
        last = self.cluster.log[-1].id if self.cluster.log else "0-0"
        await wait_until(lambda: self.desk.feed.read_up_to == last, what=f"the feed to read up to {last}")
        self.desk.flush()
        self.app.show_news()
        await self.pilot.pause()

    async def opens(self, kind: type[Screen[Any]]) -> None:
        """Wait until such a screen is on top and laid out: it is on top before it has a single widget."""

        def is_there() -> bool:
            return isinstance(self.app.screen, kind) and self.app.screen.is_mounted and bool(self.lines())

        await wait_until(is_there, what=f"{kind.__name__} to open")

    @property
    def table(self) -> LineTable[Row]:
        screen = self.app.screen_stack[0]
        assert isinstance(screen, ListScreen)
        return screen.table

    def lines(self) -> list[str]:
        """The screen as text."""
        return ["".join(segment.text for segment in strip) for strip in self.app.screen._compositor.render_strips()]

    def text(self) -> str:
        return "\n".join(self.lines())


OpenConsole = Callable[..., AbstractAsyncContextManager[Console]]


@pytest.fixture(autouse=True)
def _patience(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """A machine that stands still for a second is no cluster that does: an act would be refused, rightly, and its test
    wait in vain. Who takes news or answers away asks for ``news_may_stop``."""
    if "news_may_stop" not in request.fixturenames:
        monkeypatch.setattr("tui.source.STALE_AFTER_S", 600.0)
        monkeypatch.setattr("tui.pulse.ANSWER_S", 600.0)


@pytest.fixture(autouse=True)
def _unseen(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """What a headless console paints at every change nobody sees, and is a quarter of what such a test costs: painted
    is what a test looks at, and what there is at its end. Who counts what is painted asks for ``as_painted``."""
    if "as_painted" not in request.fixturenames:
        monkeypatch.setattr(Compositor, "render_update", lambda self, **_: self._dirty_regions.clear())


@pytest.fixture
def as_painted() -> None:
    """The console paints whatever changes, when it changes."""


@pytest.fixture
def news_may_stop() -> None:
    """Silence is told of as soon as it is to an operator."""


@pytest.fixture
def open_console() -> OpenConsole:
    """Open a console over ``cluster``; it shows its first snapshot when the block begins."""

    @asynccontextmanager
    async def opened(
        cluster: FakeCluster, *, size: tuple[int, int] = (120, 40), **options: Any
    ) -> AsyncIterator[Console]:
        app = ConsoleApp(Desk(cluster, cluster, cluster="test"), user="maria", **options)
        async with app.run_test(size=size) as pilot:
            console = Console(app, pilot, cluster)
            if cluster.trouble is None and not cluster.silent:
                await wait_until(lambda: app.desk.link.loaded)
                await console.settle()
            yield console
            if app.is_running:
                console.lines()

    return opened
