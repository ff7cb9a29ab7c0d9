"""Pairing images with masks, and naming results: only names count, no image is opened."""

from __future__ import annotations

import contextlib
import os
import tempfile
import unicodedata
from collections.abc import Iterator
from pathlib import Path

import pytest

from lcq.errors import InvalidInput
from lcq.folder import IMAGE_SUFFIXES, Pairing, format_named, pair_images, result_paths
from lcq.images import FORMATS


def touch(root: Path, *names: str) -> Path:
    for name in names:
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()
    return root


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    return tmp_path / "photos"


def named(pairing: Pairing) -> dict[str, str]:
    return {str(pair.relative): pair.mask.name for pair in pairing.pairs}


def reasons(pairing: Pairing) -> dict[str, str]:
    return {skipped.path.name: skipped.why for skipped in pairing.skipped}


def test_masks_beside_their_images_are_found_and_are_no_images_themselves(photos: Path) -> None:
    touch(photos, "a.jpg", "a_mask.png", "b.webp", "b_mask.webp")
    pairing = pair_images([photos])
    assert named(pairing) == {"a.jpg": "a_mask.png", "b.webp": "b_mask.webp"}
    assert pairing.skipped == ()


def test_a_folder_of_masks_is_matched_by_stem_in_subfolders_or_flat(photos: Path, tmp_path: Path) -> None:
    touch(photos, "a.jpg", "sub/b.jpg", "sub/c.jpg")
    touch(tmp_path / "masks", "a.png", "sub/b.png", "c_mask.png")
    pairing = pair_images([photos], tmp_path / "masks")
    assert named(pairing) == {"a.jpg": "a.png", "sub/b.jpg": "b.png", "sub/c.jpg": "c_mask.png"}


def test_one_mask_file_serves_all_images_and_is_not_one_of_them(photos: Path) -> None:
    touch(photos, "a.jpg", "b.jpg", "logo.png")
    assert named(pair_images([photos], photos / "logo.png")) == {"a.jpg": "logo.png", "b.jpg": "logo.png"}


def test_everything_skipped_says_why(photos: Path, tmp_path: Path) -> None:
    touch(photos, "good.jpg", "good_mask.png", "lonely.jpg", "notes.txt", "README", "gone_mask.png", ".hidden.jpg")
    (photos / "broken.jpg").symlink_to(photos / "nowhere.jpg")
    (photos / "linked").symlink_to(tmp_path)
    os.mkfifo(photos / "pipe.png")
    pairing = pair_images([photos])
    assert named(pairing) == {"good.jpg": "good_mask.png"}
    assert reasons(pairing) == {
        "lonely.jpg": "no mask: there is no lonely_mask.* beside it",
        "notes.txt": "not an image suffix (.txt)",
        "README": "not an image suffix (none)",
        "gone_mask.png": "named as a mask, but there is no image of that name beside it",
        "broken.jpg": "it is a broken link",
        "linked": "a link to a folder is not followed",
        "pipe.png": "it is neither a file nor a folder",
    }


@contextlib.contextmanager
def without_privileges() -> Iterator[None]:
    """Root reads everything: be nobody for a moment."""
    user = os.geteuid()
    if user == 0:
        os.seteuid(65534)
    try:
        yield
    finally:
        os.seteuid(user)


def test_an_unreadable_folder_is_skipped_and_the_rest_is_done() -> None:
    with tempfile.TemporaryDirectory() as folder:  # pytest's own are closed to others than their owner
        photos = touch(Path(folder), "a.jpg", "a_mask.png", "locked/b.jpg", "locked/b_mask.png")
        photos.chmod(0o755)
        (photos / "locked").chmod(0)
        with without_privileges():
            pairing = pair_images([photos])
            with pytest.raises(InvalidInput, match=r"locked/b\.jpg is not readable: Permission denied"):
                pair_images([photos / "locked" / "b.jpg"])
            with pytest.raises(InvalidInput, match=r"cannot look for masks in .*locked: Permission denied"):
                pair_images([photos], photos / "locked")
        (photos / "locked").chmod(0o700)
    assert named(pairing) == {"a.jpg": "a_mask.png"}
    assert reasons(pairing) == {"locked": "the folder cannot be read: Permission denied"}


def test_of_several_masks_the_one_with_the_images_suffix_wins_then_png(photos: Path, tmp_path: Path) -> None:
    touch(photos, "a.jpg", "b.jpg", "c.jpg")
    touch(tmp_path / "masks", "a.jpg", "a.png", "b.png", "b.webp", "c.webp", "c.bmp")
    pairing = pair_images([photos], tmp_path / "masks")
    assert named(pairing) == {"a.jpg": "a.jpg", "b.jpg": "b.png"}
    assert reasons(pairing) == {"c.jpg": "several masks fit: c.bmp, c.webp"}


def test_masks_and_results_inside_the_folder_of_images_are_left_out(photos: Path) -> None:
    touch(photos, "a.jpg", "masks/a.png", "out/a.jpg")
    pairing = pair_images([photos], photos / "masks", out=photos / "out")
    assert named(pairing) == {"a.jpg": "a.png"}
    assert pairing.skipped == ()


def test_a_folder_that_is_its_own_folder_of_masks_never_pairs_an_image_with_itself(photos: Path) -> None:
    touch(photos, "a.jpg", "a.png", "sub/b.jpg", "sub/b_mask.png")
    pairing = pair_images([photos], photos)
    assert named(pairing) == {"sub/b.jpg": "b_mask.png"}
    assert set(reasons(pairing)) == {"a.jpg", "a.png"}


def test_two_ways_to_write_an_accent_are_one_name(photos: Path, tmp_path: Path) -> None:
    touch(photos, unicodedata.normalize("NFC", "café.jpg"))
    touch(tmp_path / "masks", unicodedata.normalize("NFD", "café.png"))
    assert len(pair_images([photos], tmp_path / "masks").pairs) == 1


def test_a_name_that_is_not_utf8_is_skipped(photos: Path) -> None:
    touch(photos, "a.jpg", "a_mask.png")
    (photos / os.fsdecode(b"bad\xff.jpg")).touch()
    (photos / os.fsdecode(b"bad\xff_mask.png")).touch()
    pairing = pair_images([photos])
    assert named(pairing) == {"a.jpg": "a_mask.png"}
    assert list(reasons(pairing).values()) == ["its name or its mask's is not valid UTF-8; rename it"]


def test_what_is_named_must_be_there_and_have_a_mask(photos: Path) -> None:
    touch(photos, "a.jpg")
    for inputs, mask, complaint in (
        ([photos / "b.jpg"], None, "b.jpg is not there"),
        ([photos / "a.jpg"], None, r"a\.jpg: no mask"),
        ([photos / "a.jpg"], photos / "m.png", r"--mask .*m\.png is not there"),
        ([photos / "a.jpg" / "deeper.jpg"], None, "not readable"),
    ):
        with pytest.raises(InvalidInput, match=complaint):
            pair_images(inputs, mask)


def test_a_wildcard_that_also_names_the_masks_submits_only_the_images(photos: Path) -> None:
    touch(photos, "a.jpg", "a_mask.png")
    assert named(pair_images([photos / "a.jpg", photos / "a_mask.png"])) == {"a.jpg": "a_mask.png"}


def test_an_image_named_twice_is_submitted_once(photos: Path) -> None:
    touch(photos, "a.jpg", "a_mask.png")
    assert len(pair_images([photos, photos / "a.jpg", photos / ".." / "photos"]).pairs) == 1


def test_results_keep_relative_names_and_several_folders_keep_their_own(tmp_path: Path) -> None:
    touch(tmp_path / "one", "a.jpg", "sub/b.jpg")
    touch(tmp_path / "two", "a.jpg")
    mask = touch(tmp_path, "mask.png") / "mask.png"
    out = tmp_path / "out"
    alone = pair_images([tmp_path / "one"], mask).pairs
    assert result_paths(alone, out) == [out / "a.jpg", out / "sub/b.jpg"]
    both = pair_images([tmp_path / "one", tmp_path / "two"], mask).pairs
    assert result_paths(both, out) == [out / "one/a.jpg", out / "one/sub/b.jpg", out / "two/a.jpg"]


def test_no_two_results_share_a_name_whatever_the_format_and_the_case(tmp_path: Path) -> None:
    touch(tmp_path / "in", "a.jpg", "a.png", "b.jpg", "B.JPG")
    mask = touch(tmp_path, "mask.png") / "mask.png"
    out = tmp_path / "out"
    pairs = pair_images([tmp_path / "in"], mask).pairs
    assert [path.name for path in result_paths(pairs, out)] == ["B.JPG", "a.jpg", "a.png", "b-2.jpg"]
    as_png = [path.name for path in result_paths(pairs, out, "png")]
    assert as_png == ["B.JPG.png", "a.jpg.png", "a.png", "b-2.png"]
    other = touch(tmp_path / "other", "a.jpg") / "a.jpg"
    same_name = pair_images([tmp_path / "in" / "a.jpg", other], mask).pairs
    assert [path.name for path in result_paths(same_name, out)] == ["a.jpg", "a-2.jpg"]


def test_a_format_decides_the_suffix(tmp_path: Path) -> None:
    touch(tmp_path / "in", "a.png")
    pairs = pair_images([tmp_path / "in"], touch(tmp_path, "mask.png") / "mask.png").pairs
    for image_format, suffix in (("jpeg", ".jpg"), ("tiff", ".tif"), ("webp", ".webp")):
        assert result_paths(pairs, tmp_path, image_format) == [tmp_path / f"a{suffix}"]
    with pytest.raises(InvalidInput, match="use one of jpeg"):
        format_named("bmp")
    assert [format_named(typed) for typed in ("JPG", ".tif", "webp")] == ["jpeg", "tiff", "webp"]


def test_what_cannot_be_written_becomes_png_and_what_fits_keeps_its_suffix(tmp_path: Path) -> None:
    mask = touch(tmp_path, "mask.png") / "mask.png"
    pairs = pair_images([touch(tmp_path / "in", "a.bmp", "a.png", "b.gif", "c.jpeg", "d")], mask).pairs
    assert [path.name for path in result_paths(pairs, tmp_path)] == ["a.bmp.png", "a.png", "b.png", "c.jpeg"]
    bare = pair_images([tmp_path / "in" / "d"], mask).pairs  # named, so it is an image, whatever its name
    assert [path.name for path in result_paths(bare, tmp_path)] == ["d.png"]
    assert result_paths(pairs[-1:], tmp_path, "jpeg") == [tmp_path / "c.jpeg"]


def test_without_a_folder_for_results_they_lie_beside_the_images_and_are_left_out_next_time(tmp_path: Path) -> None:
    mask = touch(tmp_path, "mask.png") / "mask.png"
    photos = touch(tmp_path / "in", "a.jpg", "sub/a.jpg", "cleaned/a.jpg", "sub/cleaned/a.jpg")
    pairing = pair_images([photos], mask)
    assert result_paths(pairing.pairs) == [photos / "cleaned/a.jpg", photos / "sub/cleaned/a.jpg"]
    assert pairing.skipped == ()


def test_a_folder_for_results_that_is_named_like_an_image_must_be_there_already(tmp_path: Path) -> None:
    touch(tmp_path / "in", "a.png", "a_mask.png")
    out = tmp_path / "out.png"
    with pytest.raises(InvalidInput, match="named like an image"):
        pair_images([tmp_path / "in"], out=out)
    out.mkdir()
    assert result_paths(pair_images([tmp_path / "in"], out=out).pairs, out) == [out / "a.png"]


def test_the_suffixes_looked_for_are_those_that_can_be_read() -> None:
    written = {suffix for suffixes in FORMATS.values() for suffix in suffixes}
    assert written | {".bmp", ".gif"} == IMAGE_SUFFIXES


def test_a_result_never_overwrites_what_was_submitted(tmp_path: Path) -> None:
    touch(tmp_path / "in", "a.png", "a_mask.png")
    (tmp_path / "same").symlink_to(tmp_path / "in")
    pairs = pair_images([tmp_path / "in"]).pairs
    for out in (tmp_path / "in", tmp_path / "same"):
        with pytest.raises(InvalidInput, match="would overwrite"):
            result_paths(pairs, out)
