"""The fifteen pitfalls of a console on a terminal, by number, and the tests that none of them is fallen into."""

from __future__ import annotations

import re
from pathlib import Path

FOLDER = Path(__file__).parent

PITFALLS: dict[tuple[int, str], dict[str, tuple[str, ...]]] = {
    (1, "the cursor moves to another task"): {
        "view": (
            "test_the_cursor_keeps_its_row_and_screen_line_through_500_sorts_inserts_and_removals",
            "test_new_rows_above_do_not_move_what_the_operator_reads",
            "test_when_its_row_is_gone_the_cursor_goes_to_the_next_on_the_same_line",
        ),
        "table": ("test_sorting_by_keys_and_by_a_click_on_the_header_keeps_the_cursors_task",),
    },
    (2, "an act lands on the wrong task"): {
        "screens": (
            "test_an_act_goes_to_the_ids_shown_even_after_the_list_has_shifted",
            "test_while_following_every_act_asks_because_the_cursor_moves_by_itself",
        ),
        "made": ("test_two_quick_presses_both_count_and_anothers_change_in_between_refuses",),
    },
    (3, "markup in data"): {
        "screens": ("test_markup_and_escape_codes_in_every_field_are_shown_and_never_obeyed",),
        "widths": ("test_every_line_of_every_screen_is_exactly_as_wide_as_the_terminal",),
    },
    (4, "escape sequences in data reach the terminal"): {
        "text": (
            "test_cleaned_text_has_no_control_bidi_or_invisible_character",
            "test_a_title_sequence_is_shown_instead_of_obeyed",
        ),
        "store": ("test_every_text_is_cleaned_at_the_door",),
        "screens": ("test_pasted_lines_confirm_nothing_and_bring_no_escape_codes",),
    },
    (5, "wide and odd text"): {
        "text": ("test_a_fitted_text_takes_exactly_its_cells", "test_a_cut_text_never_takes_more_than_its_cells"),
        "widths": ("test_every_cell_of_every_column_is_exactly_as_wide_as_its_column",),
    },
    (6, "back-pressure"): {
        "stopped_terminal": (
            "test_a_terminal_that_stops_holds_nothing_up_and_gets_the_newest_frame_when_it_goes_on",
            "test_a_terminal_that_is_gone_ends_the_console_whatever_it_still_had_to_send",
            "test_no_more_is_kept_for_a_terminal_than_a_bound_and_its_last_words_come_in_place_of_it",
        ),
        "pace": (
            "test_frames_that_are_too_large_come_less_often_and_a_long_silence_saves_up_one_moment_only",
            "test_what_the_console_sends_is_counted",
        ),
        "table": (
            "test_a_line_has_no_two_neighbouring_segments_of_one_style",
            "test_with_100k_tasks_only_lines_on_the_screen_that_differ_are_rendered",
        ),
    },
    (7, "the footer overflows"): {
        "commands": ("test_a_footer_has_at_most_eight_keys_and_the_way_to_all_of_them",),
        "look": ("test_the_frame_fits_the_terminal",),
        "snapshots": ("test_the_main_screens_look_as_they_did",),
    },
    (8, "typing a filter triggers acts"): {
        "screens": (
            "test_typing_a_filter_triggers_no_act",
            "test_pasted_lines_confirm_nothing_and_bring_no_escape_codes",
        ),
        "line": ("test_pasted_line_breaks_start_nothing_and_tab_completes",),
        "orderly": (
            "test_a_filter_that_is_typed_quickly_triggers_no_act",
            "test_keys_pressed_before_a_question_was_seen_do_not_answer_it",
        ),
    },
    (9, "resizing, and tiny terminals"): {
        "screens": ("test_every_screen_lives_through_small_and_large_terminals",),
        "widths": ("test_a_terminal_too_small_for_any_layout_says_so_also_over_a_question",),
        "picture_screen": ("test_the_viewer_goes_through_its_modes_zooms_and_keeps_its_place_through_a_resize",),
    },
    (10, "bursts and storms"): {
        "store": ("test_a_burst_of_changes_and_new_tasks_is_taken_in_once_a_task_however_many_there_are",),
        "table": ("test_a_change_is_one_flush_however_many_there_are",),
    },
    (11, "pauses of the garbage collector"): {
        "table": ("test_with_100k_tasks_only_lines_on_the_screen_that_differ_are_rendered",),
    },
    (12, "stale data that looks live"): {
        "screens": (
            "test_when_redis_goes_away_a_banner_says_since_when_and_it_comes_back_by_itself",
            "test_when_answers_stop_without_a_word_the_screen_says_so_too",
            "test_a_gap_in_the_events_is_healed_by_a_new_snapshot",
        ),
        "pulse": (
            "test_the_loss_of_either_is_known_within_two_seconds",
            "test_a_link_that_reads_old_news_is_not_taken_for_one_that_is_live",
            "test_a_clock_that_is_off_is_noticed_without_any_event",
            "test_while_redis_is_away_acts_are_refused_in_words_and_ages_go_on",
        ),
        "store": ("test_news_told_twice_or_late_changes_nothing",),
    },
    (13, "colour and contrast"): {
        "look": (
            "test_every_text_of_every_theme_reads_at_4_5_to_1_on_every_ground",
            "test_what_is_really_painted_reads_at_4_5_to_1_in_every_theme",
            "test_well_and_wrong_look_different_to_eyes_that_see_red_and_green_alike",
            "test_each_state_has_a_letter_of_its_own",
            "test_without_colour_none_is_sent_and_state_cursor_and_marks_are_still_told",
        ),
    },
    (14, "an exit or a crash leaves the terminal insane"): {
        "terminal": (
            "test_a_signal_ends_it_in_order",
            "test_a_fault_of_its_own_ends_it_in_order_and_says_where_the_details_are",
            "test_ctrl_z_gives_the_shell_back_and_fg_the_console",
        ),
        "end_to_end": ("test_an_operator_sees_and_steers_a_real_cluster_by_keys_alone",),
        "choosing": ("test_rows_are_copied_and_saved_and_no_file_is_overwritten_unasked",),
    },
    (15, "two operators"): {
        "pulse": (
            "test_who_is_second_gets_a_plain_reason_and_sees_who_was_first",
            "test_rights_that_are_lost_while_one_looks_are_told_and_nothing_is_sent",
        ),
        "asking_first": ("test_a_right_that_ends_while_the_question_is_open_sends_nothing",),
    },
}  # fmt: skip


def test_each_of_the_fifteen_pitfalls_has_tests_that_are_there() -> None:
    assert [number for number, _ in PITFALLS] == list(range(1, 16))
    for (number, what), files in PITFALLS.items():
        for name, tests in files.items():
            text = (FOLDER / f"test_{name}.py").read_text(encoding="utf-8")
            there = set(re.findall(r"^(?:async )?def (test_\w+)", text, re.MULTILINE))
            assert set(tests) <= there, f"pitfall {number}, {what}: not in test_{name}.py: {set(tests) - there}"
