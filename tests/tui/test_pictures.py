"""Pixels become cells: pure, so that every cell of a known picture can be named."""

from __future__ import annotations

import math

import numpy as np
import pytest

from lcq.thumbnails import WHOLE, Thumbnail
from tui.pictures import (
    HOLE,
    UPPER_HALF,
    Depth,
    Look,
    Run,
    difference,
    drawn,
    holes_in,
    one_to_one,
    outside_mask,
    placed,
    sampled,
    wiped,
    with_mask,
)

RED, GREEN, BLUE, WHITE = (255, 0, 0), (0, 255, 0), (0, 0, 255), (255, 255, 255)
QUARTERS = np.array([[RED, GREEN], [BLUE, WHITE]], np.uint8)


def a_thumbnail(pixels: np.ndarray, box: tuple[float, float, float, float] = WHOLE) -> Thumbnail:
    size = round(pixels.shape[1] / (box[2] - box[0])), round(pixels.shape[0] / (box[3] - box[1]))
    return Thumbnail(pixels, size, box)


def flat(width: int, height: int, colour: tuple[int, int, int] = (80, 90, 100)) -> np.ndarray:
    return np.full((height, width, 3), colour, np.uint8)


def test_a_cell_shows_two_pixels_and_equal_neighbours_are_one_run():
    assert drawn(QUARTERS, depth=Depth.TRUE) == [[Run(UPPER_HALF, RED, BLUE), Run(UPPER_HALF, GREEN, WHITE)]]
    assert drawn(flat(5, 2), depth=Depth.TRUE) == [[Run(UPPER_HALF * 5, (80, 90, 100), (80, 90, 100))]]


def test_an_odd_last_line_leaves_the_lower_half_to_the_terminal():
    assert drawn(flat(2, 3), depth=Depth.TRUE)[-1] == [Run(UPPER_HALF * 2, (80, 90, 100), None)]
    assert drawn(flat(1, 1, RED), depth=Depth.TRUE) == [[Run(UPPER_HALF, RED, None)]]


@pytest.mark.parametrize("size", [(1, 1), (6000, 4000), (10, 6000), (6000, 10), (3, 7)])
@pytest.mark.parametrize("room", [(1, 1), (40, 17), (120, 36), (3, 30)])
@pytest.mark.parametrize("look", [Look(), Look(8, 0.1, 0.9), Look(64, 1, 1)])
def test_a_picture_stays_in_its_room_and_its_part_within_the_picture(size, room, look):
    place = placed(size, *room, look)
    assert 1 <= place.width <= room[0]
    assert 1 <= place.height <= 2 * room[1]
    assert all(0 <= edge <= 1 for edge in place.box)
    assert place.box[0] < place.box[2]
    assert place.box[1] < place.box[3]


def test_all_of_a_picture_is_shown_in_its_own_proportions():
    place = placed((6000, 4000), 60, 40, Look())
    assert (place.box, place.width, place.height) == (WHOLE, 60, 40)
    assert one_to_one((6000, 4000), 60, 40) == 64.0
    assert one_to_one((120, 80), 60, 40) == pytest.approx(2.0)
    assert one_to_one((6, 4), 60, 40) == 1.0


def test_zoom_ends_at_the_whole_and_a_look_never_leaves_the_picture():
    look = Look().zoomed(4).moved(-99, 99)
    assert placed((100, 100), 10, 5, look).box == (0.0, 0.75, 0.25, 1.0)
    assert look.zoomed(0.01).zoom == 1.0
    assert Look().zoomed(1e9).zoom == 64.0


def test_what_is_drawn_is_the_mean_of_what_is_there_and_from_near_each_pixel_is_itself():
    whole = a_thumbnail(np.concatenate((flat(2, 2, (0, 0, 0)), flat(2, 2, WHITE)), axis=1))
    assert sampled(whole, placed(whole.size, 1, 1, Look())).tolist() == [[[128, 128, 128]]]
    near = placed((2, 2), 4, 2, Look())
    assert sampled(a_thumbnail(QUARTERS), near)[0].tolist() == [list(RED)] * 2 + [list(GREEN)] * 2


def test_a_part_that_was_read_is_drawn_where_it_belongs():
    part = a_thumbnail(QUARTERS, (0.5, 0.5, 1.0, 1.0))  # the lower right of a picture of 4 x 4
    place = placed((4, 4), 1, 1, Look(4, 0.99, 0.99))
    assert sampled(part, place)[-1, -1].tolist() == list(WHITE)


@pytest.mark.parametrize("cover", [1, 5, 255])
def test_the_smallest_hole_is_seen(cover):
    pixels = np.zeros((4, 4), np.uint8)
    pixels[2, 3] = cover
    assert np.argwhere(holes_in(pixels)).tolist() == [[2, 3]]
    assert not holes_in(np.zeros((4, 4), np.uint8)).any()


def test_the_mask_is_told_from_the_picture_by_colour_and_by_stripes_of_light_and_dark():
    holes = np.zeros((8, 8), bool)
    holes[:, 4:] = True
    out = with_mask(flat(8, 8), holes)
    assert (out[:, :4] == flat(4, 8)).all()
    light = out[:, 4:].astype(float) @ (0.299, 0.587, 0.114)
    assert light.max() > 1.8 * light.min()  # who sees no red sees this
    assert (out[:, 4:, 0] >= out[:, 4:, 2]).all()


def test_a_hole_smaller_than_a_stripe_is_red_wherever_it_is():
    for place in range(4):
        holes = np.zeros((1, 4), bool)
        holes[0, place] = True
        assert with_mask(flat(4, 1), holes)[0, place, 0] > 200


def test_the_wipe_shows_one_picture_on_each_side_of_its_line():
    out = wiped(flat(10, 2, RED), flat(10, 2, BLUE), 0.4)
    assert [tuple(pixel) for pixel in out[0].tolist()] == [RED] * 4 + [(255, 230, 120)] + [BLUE] * 5
    assert tuple(wiped(flat(10, 2, RED), flat(10, 2, BLUE), 1.0)[0, 8].tolist()) == RED


def test_a_difference_is_bright_where_there_is_one_and_faint_where_there_is_none():
    changed = flat(4, 2)
    changed[0, 1] = (255, 255, 255)
    out = difference(flat(4, 2), changed)
    assert out[0, 1].tolist() == [255, 214, 90]
    assert out[0, 0].max() < 40


def test_what_changed_outside_the_mask_is_told_and_what_changed_inside_is_not():
    before, after, mask = flat(4, 4), flat(4, 4), np.zeros((4, 4), np.uint8)
    mask[0, 0], after[0, 0] = 255, 0
    same = outside_mask(*map(a_thumbnail, (before, after, mask)))
    assert same is not None
    assert (same.most, same.psnr) == (0, math.inf)
    after[3, 3] = (83, 90, 100)
    told = outside_mask(*map(a_thumbnail, (before, after, mask)))
    assert told is not None
    assert told.most == 3
    assert 50 < told.psnr < 60
    assert outside_mask(a_thumbnail(before), a_thumbnail(flat(9, 9)), a_thumbnail(mask)) is None


def test_without_colours_a_character_tells_how_light_it_is_and_a_stroke_where_the_hole_is():
    pixels = np.concatenate((flat(2, 2, (0, 0, 0)), flat(2, 2, WHITE)), axis=1)
    holes = np.zeros((2, 4), bool)
    holes[1, 1] = True
    assert drawn(pixels, holes, depth=Depth.PLAIN) == [[Run(f" {HOLE}@@")]]
    assert drawn(pixels, None, depth=Depth.PLAIN, dark=False) == [[Run("@@  ")]]
    assert drawn(flat(1, 3, WHITE), depth=Depth.PLAIN) == [[Run("@")], [Run("@")]]


@pytest.mark.parametrize(("depth", "most"), [(Depth.XTERM, 6**3 + 24), (Depth.ANSI, 16)])
def test_fewer_colours_are_dithered_so_that_the_mean_stays(depth, most):
    ramp = np.repeat(np.linspace(0, 255, 64).astype(np.uint8)[None, :, None], 3, axis=2).repeat(16, axis=0)
    colours = set()
    total = np.zeros(3)
    for line in drawn(ramp, depth=depth):
        for run in line:
            for colour in (run.ink, run.ground):
                assert colour is not None
                colours.add(colour)
                total += np.array(colour) * len(run.text)
    assert len(colours) <= most
    assert np.abs(total / ramp[..., 0].size - ramp.mean()).max() < 12
