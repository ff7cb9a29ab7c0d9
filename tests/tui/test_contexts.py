"""Going to another cluster: chosen by name, refused where there is none, told where it leads."""

from __future__ import annotations

from lcq.config import DistributedConfig
from tests.conftest import wait_until
from tests.tui.fakes import FakeCluster
from tui.app import ConsoleApp
from tui.cluster import cluster_name
from tui.contexts import OUTSIDE, choices
from tui.desk import Desk
from tui.screens.dialogs import Chooser

CONFIG = DistributedConfig(
    contexts={  # type: ignore[arg-type]
        "studio": {
            "scheduler_host": "studio-1",
            "redis": {"url": "rediss://user:secret@studio-1:6379/0"},
            "production": True,
        },
    }
)


def test_the_clusters_are_told_with_where_they_are_and_no_password() -> None:
    outside, studio = choices(CONFIG.in_context("studio"))
    assert (outside.title, outside.here, studio.here) == (OUTSIDE, False, True)
    assert studio.where.startswith("studio-1:5571, rediss://")
    assert studio.where.endswith("PRODUCTION")
    assert "secret" not in studio.where
    assert cluster_name(CONFIG.in_context("studio")) == "studio"


async def test_a_cluster_is_chosen_and_the_console_ends_to_go_there() -> None:
    cluster = FakeCluster()
    app = ConsoleApp(Desk(cluster, cluster), contexts=choices(CONFIG))
    async with app.run_test() as pilot:
        app.switch_context("moon")
        await wait_until(lambda: app.desk.said is not None and "no context 'moon'" in app.desk.said.text)
        app.switch_context(OUTSIDE)
        await wait_until(lambda: app.desk.said is not None and app.desk.said.text == f"this is {OUTSIDE}")
        app.switch_context("")
        await wait_until(lambda: isinstance(app.screen, Chooser))
        await pilot.press("down", "enter")
        await wait_until(lambda: app.next_context == "studio")
        await wait_until(lambda: app.return_value == 0)
