"""The report: rows from counters, as a table for spreadsheets, and as a page that takes no name for markup."""

from __future__ import annotations

from datetime import date
from xml.etree import ElementTree

import pytest

from lcq.errors import InvalidInput
from lcq.models import UsageRow
from lcq.report_page import _steps, report_page
from lcq.usage import Days, as_csv, day_of, days_since, number_of, total_of
from lcq.wire import ReportAnswer

TODAY = date(2026, 11, 30)
MONDAY, TUESDAY = date(2026, 11, 23), date(2026, 11, 24)
USED = Days(
    {
        MONDAY: {
            "all/completed/": "3", "all/gpu_ms/": "90000", "all/pixels/": "2500000", "user/completed/ann": "3",
            "user/gpu_ms/ann": "90000", "user/pixels/ann": "2500000", "job/completed/a/b": "3", "all/cost/": "1500000",
        },
        TUESDAY: {
            "all/failed/": "1", "all/cpu_ms/": "500", "all/attempts/": "4", "all/retries/": "3", "user/failed/bob": "1",
            "user/cpu_ms/bob": "500", "user/completed/ann": "2", "all/completed/": "2", "all/gpu_ms/": "x",
        },
        date(2026, 11, 25): {},
    }
)  # fmt: skip


def test_a_time_to_report_since_is_a_span_or_a_day() -> None:
    assert days_since("2d", TODAY) == (date(2026, 11, 29), TODAY)
    assert days_since("2026-11-30", TODAY) == (TODAY,)
    assert len(days_since("4w", TODAY)) == 28
    assert day_of(number_of(TODAY)) == TODAY
    for typed in ("", "yesterday", "0d", "2027-01-01", "99999d"):
        with pytest.raises(InvalidInput):
            days_since(typed, TODAY)


def test_rows_are_sums_over_the_days_and_each_day_has_one_whatever_there_was() -> None:
    ann, bob = USED.rows("user")
    assert (ann.name, ann.completed, ann.gpu_s, ann.megapixels) == ("ann", 5, 90.0, 2.5)
    assert (bob.name, bob.tasks, bob.failed, bob.cpu_s) == ("bob", 1, 1, 0.5)
    assert [row.name for row in USED.rows("job")] == ["a/b"], "a name may have any character"
    days = USED.rows("day")
    assert [(row.name, row.tasks) for row in days] == [("2026-11-23", 3), ("2026-11-24", 3), ("2026-11-25", 0)]
    assert total_of(days).cost == 1.5
    assert (total_of(days).tasks, total_of(days).retries) == (6, 3)


def test_time_in_functions_is_told_by_itself_where_there_is_any() -> None:
    used = Days({MONDAY: {"all/function_ms/": "7200000", "user/function_ms/ann": "7200000", "user/gpu_ms/bob": "9000"}})
    ann, bob = used.rows("user")
    assert (ann.name, ann.function_s, ann.gpu_s) == ("ann", 7200.0, 0.0)
    assert as_csv("user", (ann, bob)).splitlines() == [
        "user,tasks,completed,failed,cancelled,attempts,retries,megapixels,gpu_s,cpu_s,cost,function_s",
        "ann,0,0,0,0,0,0,0.000,0.000,0.000,0.000000,7200.000",
        "bob,0,0,0,0,0,0,0.000,9.000,0.000,0.000000,0.000",
    ]
    answer = ReportAnswer(by="user", rows=(ann, bob), days=used.rows("day"), total=total_of((ann, bob)))
    page = report_page(answer, cluster="c", made="now", version="1")
    assert "<b>2.00</b><span>function hours</span>" in page
    assert "<th>function h</th>" in page
    assert "2026-11-23: functions 2<" in page
    without = answer.model_copy(update={"rows": (bob,), "days": (), "total": bob})
    assert "function h" not in report_page(without, cluster="c", made="now", version="1")


def test_what_a_spreadsheet_would_take_for_a_formula_is_text_in_it() -> None:
    lines = as_csv(
        "user", (UsageRow(name='=HYPERLINK("x")', completed=1, gpu_s=1.5), UsageRow(name="a,b"))
    ).splitlines()
    assert lines[0].startswith("user,tasks,completed")
    assert lines[1].startswith('"\'=HYPERLINK(""x"")",1,1,0')
    assert lines[2].startswith('"a,b",0')


@pytest.mark.parametrize(("most", "last"), [(0, 1.0), (1, 1.0), (7, 8.0), (10, 10.0), (0.03, 0.03), (1234, 1500.0)])
def test_an_axis_ends_at_a_round_number_above_everything(most: float, last: float) -> None:
    steps = _steps(most)
    assert steps[-1] == pytest.approx(last)
    assert steps[-1] >= most - 1e-9
    assert 2 <= len(steps) <= 7


def test_the_page_is_sound_needs_nothing_from_elsewhere_and_escapes_what_users_named() -> None:
    rows = (
        UsageRow(name="<script>alert(1)</script>", completed=2, gpu_s=5, cost=1),
        *(UsageRow(name=f"u{n}") for n in range(60)),
    )
    answer = ReportAnswer(
        by="user", currency="EUR", rows=rows, days=USED.rows("day"), total=total_of(USED.rows("day")),
        others={"node": (), "job": USED.rows("job")},
    )  # fmt: skip
    page = report_page(answer, cluster="studio & sons", made="now", version="1")
    assert "<script" not in page
    assert "&lt;script&gt;alert(1)" in page
    assert "http" not in page, "nothing is fetched"
    assert "studio &amp; sons" in page
    assert "and 11 more" in page
    for svg in page.split("<svg")[1:]:
        picture = ElementTree.fromstring("<svg" + svg.split("</svg>")[0] + "</svg>")
        for bar in picture.iter("rect"):
            assert float(bar.attrib["y"]) >= 0
            assert float(bar.attrib["x"]) + float(bar.attrib["width"]) <= 961
    assert page.count("<svg") == 3
    empty = report_page(ReportAnswer(by="user"), cluster="c", made="now", version="1")
    assert "none in this time" in empty
