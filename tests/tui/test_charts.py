"""Bars and plots: as high as their values, exactly as wide as asked for, and never a zero where nothing is known."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lcq.models import DeviceSample, MinuteTally
from tests.conftest import wait_until
from tests.tui.fakes import FakeCluster, a_node, a_task, now_ms
from tui.charts import (
    Graph,
    Series,
    bars,
    cluster_graphs,
    device_graphs,
    forecast,
    in_steps,
    percent,
    plot,
    queue_graphs,
    resample,
)
from tui.screens.charts import ChartsScreen
from tui.store import MINUTES_SHOWN, Store
from tui.text import cells
from tui.widgets.chart import Chart


def drawn(graph: Graph, width: int, height: int) -> list[str]:
    return ["".join(text for text, _ in line) for line in plot(graph, width, height)]


def test_a_gap_is_a_gap_and_no_zero():
    assert bars((0, None, 4), 5) == "▁ █"
    assert bars((None, None), 5) == "  "
    assert bars((0.5, 1), 2, top=1) == "▅█"
    lines = drawn(Graph("g", (Series("s", (4, 4, None, None, 4, 4)),), top=4), 20, 4)
    assert lines[1].rstrip().endswith("⠉⠉")
    assert "   " in lines[1].strip()


def test_a_plot_has_its_scale_its_newest_values_and_its_time():
    graph = Graph("Devices", (Series("busy", (0, 0.5, 1)), Series("memory", (1, 1, 0.25), dotted=True)), top=1,
                  write=percent)  # fmt: skip
    lines = drawn(graph, 40, 9)
    assert lines[0].startswith("Devices  ─ busy 100%  ┄ memory 25%")
    assert lines[1].startswith("100%│")
    assert lines[4].startswith(" 50%│")
    assert lines[7].startswith("  0%│")
    assert lines[8].strip().startswith("-3m")
    assert lines[8].endswith("now")


def test_the_highest_value_is_at_the_top_and_the_lowest_at_the_bottom():
    lines = drawn(Graph("g", (Series("s", (0, 0, 0, 10, 10, 10)),)), 20, 6)
    assert lines[1].rstrip().endswith("⠉")
    assert "⣀" in lines[4]
    assert lines[1][:10].strip(" 10│") == ""


def test_what_nothing_is_known_of_says_so():
    assert "nothing is known of that yet" in drawn(Graph("g", (Series("s", (None, None)),)), 40, 5)[1]
    assert "nothing is known of that yet" in drawn(Graph("g", ()), 40, 5)[1]


values = st.lists(st.one_of(st.none(), st.floats(0, 1e12, allow_nan=False)), max_size=200)


@settings(max_examples=60, deadline=None)
@given(values, values, st.integers(0, 150), st.integers(1, 20), st.text(max_size=30))
def test_every_line_of_every_plot_is_exactly_as_wide_as_asked_for(one, other, width, height, name):
    graph = Graph(name.replace("\n", " "), (Series("a", one), Series("界", other, "bad", dotted=True)), note="né")
    lines = plot(graph, width, height)
    assert len(lines) == height
    for line in lines[1:]:
        assert sum(cells(text) for text, _ in line) == width
    assert sum(cells(text) for text, _ in lines[0]) <= max(width, 0)


@given(values.filter(len), st.integers(1, 300))
def test_resampling_stays_between_the_lowest_and_the_highest(told, count):
    out = resample(told, count)
    known = [value for value in told if value is not None]
    assert len(out) == count
    assert all(value is None or min(known) * 0.999 - 1 <= value <= max(known) * 1.001 + 1 for value in out)
    if None not in told:
        assert None not in out


@pytest.mark.parametrize(
    ("completed", "submitted", "waiting", "said"),
    [
        (20, 0, 1200, "empty in 1h00m at this pace"),
        (20, 50, 1200, "grows by 30 a minute"),
        (0, 50, 1200, "nothing done in 10 minutes"),
        (0, 0, 0, "empty"),
    ],
)
def test_the_forecast_goes_by_what_was_done_and_what_came(completed, submitted, waiting, said):
    minutes = [MinuteTally(minute=n, completed=completed, submitted=submitted) for n in range(12)]
    assert forecast(minutes, waiting)[0] == said


def test_where_work_has_begun_again_after_a_rest_the_forecast_goes_by_the_minute_under_way():
    minutes = [MinuteTally(minute=n, completed=7 * (n == 10) + 240 * (n == 11), submitted=0) for n in range(12)]
    assert forecast(minutes, 480)[0] == "empty in 2m00s at this pace"


def test_of_work_that_began_a_moment_ago_no_pace_is_known_and_nobody_says_that_nothing_is_done():
    minutes = [MinuteTally(minute=n, completed=80 * (n == 11), submitted=0) for n in range(12)]
    assert forecast(minutes, 40)[0] == "just begun, no pace yet"


def test_the_clusters_plots_leave_out_the_minute_under_way_but_for_what_waits_now():
    minutes = [MinuteTally(minute=n, completed=n, failed=1, waiting=n * 10, busy=0.5) for n in range(5)]
    throughput, failed, waiting, devices = cluster_graphs(minutes, 77)
    assert throughput.series[0].values == [0, 1, 2, 3]
    assert failed.series[0].values[0] == 1.0
    assert waiting.series[0].values == [0, 10, 20, 30, 77]
    assert devices.series[0].values == [0.5] * 4
    assert throughput.note == "mean 1.5", throughput.note
    quiet = [MinuteTally(minute=n) for n in range(57)]
    assert cluster_graphs([*quiet, *minutes], 77)[0].note == "mean 1.5", (
        "not of the time before there was anything to do"
    )
    assert cluster_graphs(quiet, 0)[0].note == "mean --"
    of_queue = queue_graphs([MinuteTally(minute=1, waiting_in={"a": 3}), MinuteTally(minute=2)], "a", 9)
    assert of_queue[0].series[0].values == [3, 9]


def test_samples_stand_where_they_were_taken_and_silence_is_a_gap():
    now = 10_000_000
    samples = [DeviceSample(at_ms=now - age * 1000, busy=0.5, used_mib=1, total_mib=4) for age in (3595, 600, 65, 3)]
    steps = in_steps(samples, now)
    assert [place for place, one in enumerate(steps) if one is not None] == [0, 99, 117, 118, 119]
    assert in_steps([], now) == [None] * 120
    (use,) = device_graphs(samples, now)
    assert use.series[1].values[-1] == 0.25
    assert len(device_graphs([DeviceSample(at_ms=now, temperature_c=70)], now)) == 2


def test_minutes_are_read_whole_once_and_then_by_the_few_that_may_have_changed():
    store = Store()

    def told(first: int, last: int, done: int) -> tuple[MinuteTally, ...]:
        return tuple(MinuteTally(minute=n, completed=done) for n in range(first, last + 1))

    assert not store.put_minutes(told(98, 100, 1))
    assert store.put_minutes(told(101 - MINUTES_SHOWN, 100, 1))
    assert store.put_minutes(told(99, 101, 2))
    assert [one.minute for one in store.minutes] == list(range(102 - MINUTES_SHOWN, 102))
    assert [one.completed for one in store.minutes][-4:] == [1, 2, 2, 2]
    assert not store.put_minutes(told(110, 112, 3))  # a laptop that slept: the whole hour again
    assert store.minutes[-1].minute == 101


@pytest.mark.parametrize("size", [(120, 40), (80, 24)])
async def test_a_key_opens_the_plots_and_esc_goes_back(open_console, size):
    cluster = FakeCluster([a_task()], [a_node()])
    minute = now_ms() // 60_000
    cluster.tallies = [MinuteTally(minute=minute - n, completed=n % 7, busy=0.4, memory=0.9) for n in range(60, -1, -1)]
    async with open_console(cluster, size=size) as console:
        await wait_until(lambda: len(console.desk.store.minutes) == MINUTES_SHOWN)
        await console.settle()
        assert "/min " in console.text() or "Throughput" in console.text()
        await console.press("h")
        await console.opens(ChartsScreen)
        await wait_until(
            lambda: "Throughput, tasks a minute" in console.text() and any("⠀" < char <= "⣿" for char in console.text())
        )
        charts = list(console.app.screen.query(Chart))
        assert {len(line) for line in console.lines()} == {size[0]}
        assert all("".join(text for text, _ in chart.lines()[0]).strip() for chart in charts)
        await console.press("escape")
        await wait_until(lambda: not isinstance(console.app.screen, ChartsScreen))


def test_what_was_known_an_hour_ago_is_not_told_as_how_it_is_now():
    values = [1.0, *[None] * 58]
    lines = ["".join(text for text, _ in line) for line in plot(Graph("Failed", (Series("failed", values),)), 80, 8)]
    assert "failed --" in lines[0]
    assert lines[-1].split() == ["-59m", "-30m", "now"]
