"""Tables of the command line in terminals of any width."""

from __future__ import annotations

import pytest

from lcq.cli.output import Column, Output
from lcq.cli.tasks import _coded
from lcq.reasons import WhyCode, because

COLUMNS = (
    Column("TASK", whole=True),
    Column("QUEUE", spared=1),
    Column("MODEL", spared=2),
    Column("NOTE"),
    Column("CAUSE", wrapped=True),
)
CAUSE = "the picture is damaged, or of a kind that nobody reads"


def shown(capsys: pytest.CaptureFixture[str], note: str = "") -> list[str]:
    Output().table(COLUMNS, [("06ft3k", "cpu-intensive", "cv2-telea", note, CAUSE)])
    return capsys.readouterr().out.splitlines()


@pytest.mark.parametrize(
    ("width", "note", "titles"),
    [
        (120, "", ["TASK", "QUEUE", "MODEL", "NOTE", "CAUSE"]),
        (62, "", ["TASK", "QUEUE", "MODEL", "CAUSE"]),  # the one with nothing in it goes first
        (62, "asked for", ["TASK", "QUEUE", "NOTE", "CAUSE"]),
        (50, "asked for", ["TASK", "NOTE", "CAUSE"]),
        (20, "asked for", ["TASK", "NOTE", "CAUSE"]),  # these are never left out
    ],
)
def test_columns_that_do_not_fit_are_left_out_in_their_order(
    width: int, note: str, titles: list[str], capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", str(width))
    lines = shown(capsys, note)
    assert max(map(len, lines)) <= width
    if width > 20:
        assert lines[0].split() == titles
        assert "06ft3k" in lines[2]
        last = lines[0].index("CAUSE")
        assert " ".join(line[last:].strip() for line in lines[2:]) == CAUSE  # wrapped, not cut


def test_into_a_pipe_everything_goes_whole(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("COLUMNS", raising=False)
    head, _, row = shown(capsys)
    assert head.split() == ["TASK", "QUEUE", "MODEL", "NOTE", "CAUSE"]
    assert row.split(maxsplit=3) == ["06ft3k", "cpu-intensive", "cv2-telea", CAUSE]


def test_a_reason_says_its_code_once() -> None:
    assert (
        _coded(because(WhyCode.FAILED, "failed: image_unreadable: it is torn"))
        == "failed: image_unreadable: it is torn"
    )
    assert _coded(because(WhyCode.RUNNING, "runs on a (cpu)")) == "running: runs on a (cpu)"
