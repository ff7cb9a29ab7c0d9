"""Text from elsewhere is safe to paint and as wide as it says."""

from __future__ import annotations

import unicodedata

import pytest
from hypothesis import given
from hypothesis import strategies as st
from rich.cells import cell_len

from tui.columns import without_folder
from tui.text import basename, clean, clean_block, compact, cut, cut_left, fit, hanging, long_span, packed, span

any_text = st.text(st.characters(codec=None), max_size=60) | st.text(st.characters(), max_size=60)


@given(any_text)
def test_cleaned_text_has_no_control_bidi_or_invisible_character(text):
    cleaned = clean(text)
    assert not [char for char in cleaned if unicodedata.category(char) in ("Cc", "Cs", "Zl", "Zp")]
    forbidden = "\u200b\u200c\u200d\u200e\u200f\u202a\u202b\u202c\u202d\u202e\u2066\u2067\u2068\u2069\ufeff\u00ad"
    assert not set(cleaned) & set(forbidden)


@given(any_text)
def test_cleaning_what_is_clean_changes_nothing(text):
    assert clean(clean(text)) == clean(text)


@given(any_text, st.integers(0, 40), st.booleans())
def test_a_fitted_text_takes_exactly_its_cells(text, width, right):
    assert cell_len(fit(clean(text), width, right=right)) == width


@given(any_text, st.integers(0, 40))
def test_a_cut_text_never_takes_more_than_its_cells(text, width):
    assert cell_len(cut(clean(text), width)) <= width
    assert cell_len(cut_left(clean(text), width)) <= width


def test_a_title_sequence_is_shown_instead_of_obeyed():
    assert clean("a\x1b]0;owned\x07b") == "a␛]0;owned␇b"


def test_a_flag_becomes_its_letters_and_a_joined_family_falls_apart():
    assert clean("🇩🇪") == "DE"
    assert clean("👨\u200d👩\u200d👧") == "👨👩👧"


def test_more_combining_marks_than_a_letter_can_bear_are_dropped():
    assert clean("e" + "\u0301" * 50) == "e\u0301\u0301"
    assert clean("\u0301e") == "e"


def test_a_block_keeps_its_lines():
    assert clean_block("one\ntwo\x1b[2J\n\tthree") == "one\ntwo␛[2J\n    three"


@pytest.mark.parametrize(
    ("milliseconds", "short", "long"),
    [(-5, "0s", "0.0s"), (2500, "2s", "2.5s"), (242_000, "4m", "4m02s"), (4_020_000, "67m", "1h07m"),
     (200_000_000, "55h", "2d07h"), (10**9, "11d", "11d13h")],
)  # fmt: skip
def test_spans_of_time_are_short(milliseconds, short, long):
    assert (span(milliseconds), long_span(milliseconds)) == (short, long)


@pytest.mark.parametrize(
    ("number", "text"), [(0, "0"), (999, "999"), (1204, "1.2k"), (96_120, "96k"), (1_250_000, "1.2M")]
)
def test_counts_fit_four_cells(number, text):
    assert compact(number) == text


@pytest.mark.parametrize(
    ("path", "name"),
    [("/a/b.png", "b.png"), ("b.png", "b.png"), ("s3://x/y/", "y"), ("C:\\a\\b.png", "b.png"), ("/", "/")],
)
def test_the_last_part_of_a_path_is_its_name(path, name):
    assert basename(path) == name


def test_a_line_of_a_list_does_not_tell_the_path_again_that_its_row_has():
    image = "/srv/photos/a/one.jpg"
    assert without_folder(f"image_truncated: {image}: ends too early", image) == "image_truncated: ends too early"
    told = f"mask_size_mismatch: mask /srv/photos/a/masks/one.png is 64 x 48, but {image} is 700 x 466"
    assert without_folder(told, image) == "mask_size_mismatch: mask masks/one.png is 64 x 48, but one.jpg is 700 x 466"
    assert (
        without_folder("oom: 9 / 8 GiB", "one.jpg") == without_folder("oom: 9 / 8 GiB", "/one.jpg") == "oom: 9 / 8 GiB"
    )
    assert without_folder(f"{image}: ends too early", image) == "ends too early"


def test_a_line_that_is_too_long_goes_on_below_what_it_tells_and_never_at_the_margin():
    pieces = [
        (" Attempts (2)\n", "bold"),
        ("  state             ", "dim"), ("it rests until it is tried again by the next call\n", ""),
        ("     endpoint_busy: it takes no more calls now, and says so with 503\n", ""),
        ("  17:41:27Z  fail_task        ", "bold"), ("pending  serverless", ""), ("  it takes no more calls now", ""),
    ]  # fmt: skip
    assert hanging(pieces, 60).plain.splitlines() == [
        " Attempts (2)",
        "  state             it rests until it is tried again by the",
        "                    next call",
        "     endpoint_busy: it takes no more calls now, and says so",
        "       with 503",
        "  17:41:27Z  fail_task        pending  serverless  it takes",
        "    no more calls now",
    ]
    assert hanging(pieces, 0).plain == "".join(text for text, _ in pieces)


@given(st.lists(st.tuples(any_text.map(clean_block), st.sampled_from(("", "bold"))), max_size=5), st.integers(8, 40))
def test_what_hangs_is_as_narrow_as_wished_and_loses_nothing_but_blanks(pieces, width):
    hung = hanging(pieces, width).plain
    assert max(map(cell_len, hung.split("\n"))) <= width
    assert "".join(hung.split()) == "".join("".join(text for text, _ in pieces).split())


def test_parts_are_put_into_lines_and_none_is_broken():
    assert packed(["cpu, 1 slot", "busy 100%", "loaded: cv2-ns, cv2-telea"], 30) == [
        "cpu, 1 slot   busy 100%", "loaded: cv2-ns, cv2-telea"
    ]  # fmt: skip
    assert packed([], 30) == []
    assert packed(["longer than the line"], 4) == ["longer than the line"]
