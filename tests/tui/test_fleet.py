"""The fleet at a glance: what each panel says, and that it says so on the screen."""

from __future__ import annotations

import pytest

from lcq.models import DeviceReading, MinuteTally, NodeStatus, TaskStatus
from tests.conftest import wait_until
from tests.tui.fakes import FakeCluster, a_node, a_task
from tui.charts import bars
from tui.columns import NODE_COLUMNS, fleet_columns
from tui.fleet import needs, panels, panels_over, shares, summary
from tui.screens.nodes import NodesScreen
from tui.store import DeviceNow, NodeRow, QueueRow, Store, node_row
from tui.text import cells
from tui.widgets.heat import sign

NOW = 1_800_000_000_000


def a_store(*nodes: NodeRow, queues: tuple[QueueRow, ...] = (), minutes: tuple[MinuteTally, ...] = ()) -> Store:
    store = Store()
    store.nodes.replace(nodes)
    store.queues.replace(queues)
    store.minutes = minutes
    return store


def counted(status: TaskStatus, count: int) -> tuple[int, ...]:
    return tuple(count if one is status else 0 for one in TaskStatus)


def said(store: Store, title: str) -> list[str]:
    (panel,) = [panel for panel in panels(store, NOW, 40) if panel.title.startswith(title)]
    return [line.text for line in panel.lines]


@pytest.mark.parametrize(
    ("values", "width", "drawn"),
    [((), 5, ""), ((0, 0), 5, "▁▁"), ((0, 1, 2, 4), 4, "▁▃▅█"), ((9, 1, 2), 2, "▅█"), ((5,), 0, "")],
)
def test_bars_are_as_high_as_their_share_of_the_highest_that_is_shown(values, width, drawn):
    assert bars(values, width) == drawn


def test_the_fleet_panel_counts_nodes_slots_and_what_devices_tell():
    up = NodeRow("a", NodeStatus.ONLINE, slots=4, running=3, busy=0.9, used_mib=6000, total_mib=8000)
    idle = NodeRow("b", NodeStatus.DRAINING, slots=2, busy=0.5, used_mib=0, total_mib=8000)
    down = NodeRow("c", NodeStatus.OFFLINE, slots=9, busy=1.0, used_mib=8000, total_mib=8000)
    assert said(a_store(up, idle, down), "Fleet") == [
        "1 up  1 draining  1 offline",
        "devices 70% busy   memory 38%",
        "slots 3/6",
    ]
    assert said(a_store(), "Fleet") == ["0 up", "devices tell nothing", "slots 0/0"]


def test_no_panel_cuts_a_line_as_long_as_another_has_cells_to_spare():
    node = NodeRow("a", NodeStatus.ONLINE, slots=4, running=3, busy=0.9, used_mib=6000, total_mib=8000)
    minutes = tuple(MinuteTally(minute=n, completed=20, failed=9) for n in range(60))
    store = a_store(node, minutes=minutes)
    wide = {line.text for panel in panels(store, NOW, 0) for line in panel.lines}
    assert "90 tasks failed in 10 minutes" in wide
    assert max(map(len, wide)) > 111 // 4, "it would be cut in equal parts"
    panels_there = panels_over(store, NOW, 111)
    assert sum(width for _, width in panels_there) <= 111
    assert all(cells(line.text) <= width for panel, width in panels_there for line in panel.lines)


@pytest.mark.parametrize(
    ("needed", "width", "shared"),
    [
        ((9, 9, 9, 9), 100, [25] * 4),
        ((9, 9, 9, 9), 103, [25, 25, 25, 28]),
        ((29, 9, 9, 28), 100, [29, 21, 21, 29]),
        ((99, 9, 9, 99), 100, [25, 16, 16, 43]),
    ],
)
def test_what_a_panel_can_spare_is_another_panels_that_needs_it(needed, width, shared):
    assert shares(needed, width) == shared


def test_the_mean_of_the_throughput_leaves_out_the_minute_that_is_not_over():
    minutes = tuple(MinuteTally(minute=n, completed=count, failed=n % 2) for n, count in enumerate((10, 20, 30, 999)))
    assert said(a_store(minutes=minutes), "Throughput") == [
        "now 999  last 30",
        "▁▁▁█",
        "mean 20  failed 0.2%  ▁▁▁",
    ]
    assert said(a_store(), "Throughput") == ["now 0  last 0", "", "mean --  failed 0.0%"]


def test_the_mean_begins_where_the_work_did_and_a_small_one_has_its_tenths():
    minutes = tuple(MinuteTally(minute=n, completed=7 * (n > 50)) for n in range(58)) + (MinuteTally(minute=58),) * 2
    assert "mean 6.1" in said(a_store(minutes=minutes), "Throughput")[2]


def test_the_backlog_says_when_it_will_be_empty_at_this_pace():
    queue = QueueRow("gpu-high", counts=counted(TaskStatus.QUEUED, 1200), oldest_ms=NOW - 2_460_000)
    minutes = tuple(MinuteTally(minute=n, completed=20) for n in range(11))
    store = a_store(queues=(queue,), minutes=minutes)
    store.counts[TaskStatus.QUEUED] = 1200
    assert said(store, "Backlog") == ["waiting 1,200   oldest 41m", "gpu-high 1.2k", "empty in 1h00m at this pace"]
    store.minutes = ()
    assert said(store, "Backlog")[2] == "nothing done in 10 minutes"
    store.counts[TaskStatus.QUEUED] = 0
    assert said(store, "Backlog")[2] == "empty"


def test_a_backlog_that_grows_says_so_and_shows_its_hour():
    queue = QueueRow("gpu-high", counts=counted(TaskStatus.QUEUED, 300))
    minutes = tuple(MinuteTally(minute=n, completed=10, submitted=40, waiting=n * 30 or None) for n in range(11))
    store = a_store(queues=(queue,), minutes=minutes)
    store.counts[TaskStatus.QUEUED] = 300
    assert said(store, "Backlog") == ["waiting 300", "gpu-high 300   ▂▂▃▄▅▅▆▇▇█", "grows by 30 a minute"]


def test_the_fleet_in_one_line_says_what_needs_a_person_first_and_is_never_cut():
    store = a_store(
        NodeRow("gpu-1", NodeStatus.OFFLINE, seen_ms=NOW - 180_000),
        NodeRow("gpu-2", NodeStatus.ONLINE, slots=4, running=3, busy=0.9),
        minutes=tuple(MinuteTally(minute=n, completed=n, failed=1) for n in range(12)),
    )
    whole = [line.text for line in summary(store, NOW, 200)]
    assert whole == [
        "! gpu-1 down 3m +1", "10/min ▂▂▃▄▅▅▆▇▇█", "1 up  1 offline", "slots 3/4", "empty", "devices 90% busy",
    ]  # fmt: skip
    for width in range(90):
        shown = [line.text for line in summary(store, NOW, width)]
        assert sum(len(text) + 2 for text in shown) <= width
        assert width < 20 or shown[0] == "! gpu-1 down 3m +1"


def test_what_needs_a_person_is_told_the_worst_first():
    store = a_store(
        NodeRow("gpu-2", NodeStatus.SUSPECT, seen_ms=NOW - 9_000),
        NodeRow("gpu-1", NodeStatus.OFFLINE, seen_ms=NOW - 180_000),
        NodeRow("gpu-3", NodeStatus.QUARANTINED),
        NodeRow("gpu-4", NodeStatus.ONLINE),
        queues=(
            QueueRow("a", paused=True, paused_by="ivo"),
            QueueRow("b", counts=counted(TaskStatus.QUEUED, 2)),
            QueueRow("c", nodes=("gpu-4",), counts=counted(TaskStatus.QUEUED, 5)),
        ),
        minutes=tuple(MinuteTally(minute=n, failed=3) for n in range(12)),
    )
    assert [line.text for line in needs(store, NOW)] == [
        "gpu-1 down 3m",
        "gpu-3 in quarantine",
        "gpu-2 silent 9s",
        "a paused by ivo",
        "b: 2 tasks wait, no node serves it",
        "30 tasks failed in 10 minutes",
    ]
    assert said(a_store(NodeRow("gpu-4", NodeStatus.ONLINE)), "Needs you") == ["nothing"]


@pytest.mark.parametrize("size", [(120, 40), (80, 24), (60, 15)])
async def test_the_view_shows_panels_nodes_and_what_each_works_on(open_console, size):
    reading = DeviceReading(total_mib=8192, free_mib=2048, busy=0.87, temperature_c=83)
    cluster = FakeCluster(
        [a_task("/p/cover.tif", status=TaskStatus.PROCESSING, node="gpu-1")],
        [a_node("gpu-1", running=1, readings={"cpu": reading}), a_node("gpu-2", status=NodeStatus.OFFLINE)],
    )
    cluster.tallies = [MinuteTally(minute=n, completed=n) for n in range(60)]
    async with open_console(cluster, size=size) as console:
        await console.press("1")
        await wait_until(lambda: "Needs you" in console.text() and "87%" in console.text())
        assert "gpu-2 down" in console.text()
        await wait_until(lambda: size[0] < 120 or ("cover.tif" in console.text() and "6.0/8.0G" in console.text()))
        assert ("Throughput" in console.text()) == (size[0] > 72)
        assert all(len(line) == size[0] for line in console.lines())


async def test_in_a_narrow_window_the_panels_stand_in_pairs_and_say_all_of_what_needs_a_person(open_console):
    cluster = FakeCluster([a_task(queue="cpu-intensive")], [a_node("gpu-1", serves={"cpu": ("cpu-light",)})])
    async with open_console(cluster, size=(80, 24)) as console:
        await console.press("1")
        await wait_until(lambda: "cpu-intensive: 1 task wait, no node serves it" in console.text())
        heads = [line for line in console.lines() if "──" in line]
        assert ["Needs you" in line for line in heads[:2]] == [True, False]
        assert "Throughput" in heads[1]
        assert "gpu-1" in console.text()


async def test_from_the_fleet_a_node_is_drained_and_its_tasks_are_shown(open_console):
    cluster = FakeCluster([a_task("/p/1.jpg", node="gpu-1")], [a_node("gpu-1")])
    async with open_console(cluster) as console:
        await console.press("1")
        await console.opens(NodesScreen)
        await console.press("g", "enter")
        await wait_until(lambda: console.desk.tasks.filter.text == "node:gpu-1")


async def test_a_node_that_somebody_has_let_work_again_needs_nobody_and_shows_what_it_works_on(open_console):
    tasks = [a_task("/p/cover.jpg", status=TaskStatus.PROCESSING, node="gpu-1")]
    cluster = FakeCluster(
        tasks, [a_node("gpu-1", why="activated by maria: fan is new"), a_node("gpu-2", why="disk full")]
    )
    async with open_console(cluster) as console:
        await console.press("1", "exclamation_mark")
        await wait_until(lambda: "disk full" in console.text())
        assert console.desk.nodes.filter.text == "needs:attention"
        assert [row.id for row in console.desk.nodes.rows()] == ["gpu-2"]
        await console.press("exclamation_mark")
        await wait_until(lambda: "cover.jpg" in console.text())
        assert "activated by maria" not in "".join(line for line in console.lines() if "cover.jpg" in line)


def test_a_sign_tells_the_worst_state_of_its_nodes_else_how_busy_they_are():
    def signs(*nodes: tuple[int, NodeStatus]) -> str:
        return sign([node_row(a_node(status=status, running=running)) for running, status in nodes])[0]

    online = NodeStatus.ONLINE
    assert [signs((running, online)) for running in (0, 1, 2, 4)] == ["·", "▂", "▄", "█"]
    assert signs((4, online), (0, online)) == "▄"
    assert signs((4, online), (0, NodeStatus.SUSPECT), (1, NodeStatus.OFFLINE)) == "x"


async def test_a_large_fleet_has_a_map_in_which_a_click_goes_to_a_node(open_console):
    nodes = [a_node(f"gpu-{n:03}", running=4 * (n % 2)) for n in range(200)]
    nodes[150] = a_node("gpu-150", status=NodeStatus.OFFLINE)
    cluster = FakeCluster([], nodes)
    async with open_console(cluster, size=(120, 40)) as console:
        await console.press("1")
        await wait_until(lambda: "200 nodes" in console.text())
        screen = console.app.screen
        top = next(y for y, line in enumerate(console.lines()) if "200 nodes" in line)
        first, second = console.lines()[top + 1 : top + 3]
        assert first[1:9] == "·█·█·█·█"
        assert second[1 + 150 - 118] == "x"
        assert {cells(line) for line in console.lines()} == {120}

        async def went_there() -> bool:
            await console.pilot.click("#map", offset=(1 + 150 - 118, 2))
            return console.desk.nodes.cursor_id == "gpu-150"

        await wait_until(went_there)
        await console.press("slash", *"state", "colon", *"offline", "enter")
        await wait_until(lambda: not screen.query_one("#map").display)


def test_how_a_node_was_before_it_went_is_not_shown_as_if_it_were_so_now():
    shown = {column.id: column for column in (*NODE_COLUMNS, *fleet_columns(str))}
    node = NodeRow("gpu-4", NodeStatus.ONLINE, busy=0.86, used_mib=5120, total_mib=10240, hottest_c=70.0,
                   now=(DeviceNow("a", "L40S", "gpu", 1, 0.86, called="gpu0"),))  # fmt: skip
    there = [shown[name].cell(node, NOW)[0] for name in ("use", "memory", "heat", "load")]
    assert there == ["86%", "5.0/10.0G", "70C", "gpu0 86%"]
    node.status = NodeStatus.OFFLINE
    assert {shown[name].cell(node, NOW) for name in ("use", "memory", "heat", "load")} == {("--", "dim")}


def test_a_console_that_has_read_nothing_yet_does_not_say_that_nothing_needs_somebody():
    assert said(a_store(), "Needs you") == ["--"]
