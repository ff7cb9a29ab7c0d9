"""A short run of ``make fuzz``'s targets, the same each time; and each input that once brought something to light."""

from __future__ import annotations

import contextlib
import io
import json
import random
import resource
import zipfile
from datetime import UTC, datetime, timedelta, timezone
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from lcq.errors import LcqError, ProtocolError, WeightsRefused
from lcq.images import BadImage, load_image
from lcq.models import Task
from lcq.runner_config import LimitsConfig
from lcq.wire import REQUESTS, unpack_request
from tests.fuzz import served
from tests.fuzz.targets import TARGETS, Target, frames, json_bodies, mutated, target_of
from worker.archive import packed_weights
from worker.engines.base import EngineError
from worker.engines.picture_bytes import decode_picture, encode_picture
from worker.protocol import Words

ALONE = [target for target in TARGETS if target.name not in ("desk", "http", "once", "replies")]


@pytest.mark.parametrize("target", ALONE, ids=[target.name for target in ALONE])
def test_a_reader_of_what_strangers_send_takes_its_seeds_and_a_few_hundred_changes_of_them(target: Target) -> None:
    seeds = target.seeds()
    with target.open() as read:

        @settings(max_examples=40, derandomize=True, database=None)
        @given(st.integers(0, 2**32))
        def changes_are_read(number: int) -> None:
            read(mutated(target, seeds, random.Random(number)))

        for seed in seeds:
            read(seed)
        changes_are_read()


def test_every_command_is_among_the_seeds_in_words_that_are_understood() -> None:
    understood = set()
    for frame in frames():
        try:
            understood.add(unpack_request(frame).CMD)
        except LcqError:
            continue
    assert understood == set(REQUESTS)


@pytest.mark.filterwarnings("ignore::ResourceWarning")  # Starlette leaves the parts of a broken form to the collector
def test_a_scheduler_answers_whatever_comes_and_breaks_at_nothing() -> None:
    chance = random.Random(20261130)
    nan_for_a_picture = bytes((1, 0, 1)) + json_bodies()[3].replace(b"[[1, 2, 1]]", b"[NaN]")  # to adjust_mask
    with served.running_cluster() as (cluster, scheduler), served.http_of(cluster, scheduler) as ask_http:
        for once_answered_with_500 in (nan_for_a_picture, b"\1\0\1" + b'{"tasks": ' + b"[" * 400 + b"]" * 400 + b"}"):
            ask_http(once_answered_with_500)  # the refusal quotes it, in JSON
        with served.once_of(cluster, scheduler) as transfer:
            for name, read in (
                ("desk", served.desk_of(cluster, scheduler)),
                ("http", ask_http),
                ("once", transfer),
            ):
                target = target_of(name)
                seeds = target.seeds()
                for _ in range(25):
                    read(mutated(target, seeds, chance))


def test_an_agent_reads_whatever_a_function_or_what_stands_before_it_answers() -> None:
    target, chance = target_of("replies"), random.Random(20261130)
    seeds = target.seeds()
    with target.open() as read:
        for seed in seeds:
            read(seed)
        for _ in range(15):
            read(mutated(target, seeds, chance))


# ---------------------------------------------------------------- what was found


def test_a_small_png_that_says_it_has_a_chunk_of_gigabytes_is_not_given_them() -> None:
    whole = encode_picture(np.zeros((16, 24, 3), np.uint8))
    at = whole.index(b"IDAT") - 4
    liar = whole[:at] + (0x7F00_0000).to_bytes(4, "big") + whole[at + 4 :]
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    with pytest.raises(EngineError, match="no whole PNG"):
        decode_picture(liar)
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 2**20, "KiB: it was read as a gigabyte"
    assert decode_picture(whole).shape == (16, 24, 3)


@pytest.mark.parametrize("strange", ["9999-12-31T23:59:59-14:00", "0001-01-01T00:00:00+14:00"])
def test_a_deadline_that_other_time_zones_have_no_date_for_is_told_all_the_same(strange: str) -> None:
    task = Task.model_validate_json(json.dumps({"task_type": "inpaint", "image_path": "a.png", "deadline": strange}))
    assert task.deadline is not None and task.deadline_ms is not None  # noqa: PT018
    for hours in (-14, 14):
        assert f"{task.deadline.astimezone(timezone(timedelta(hours=hours))):%Y-%m-%d}"
    assert datetime.fromtimestamp(task.deadline_ms / 1000, UTC).year in (1970, 9999)
    assert Task.model_validate_json(task.to_json()) == task


def test_a_member_that_the_zips_index_puts_before_the_file_is_a_damaged_zip_not_a_failed_disk(tmp_path: Path) -> None:
    whole = io.BytesIO()
    with zipfile.ZipFile(whole, "w", zipfile.ZIP_DEFLATED) as packed:
        packed.writestr("best.pt", bytes(range(256)) * 8)
    data = bytearray(whole.getvalue())
    end = data.rindex(b"PK\5\6")
    data[end + 16 : end + 20] = (int.from_bytes(data[end + 16 : end + 20], "little") + 9000).to_bytes(4, "little")
    file = tmp_path / "best.zip"
    file.write_bytes(data)
    with file.open("rb") as opened:
        member = packed_weights(opened, "best.zip")
        assert member is not None
        with pytest.raises(WeightsRefused, match="not where the zip's index says"):
            member.unpack(io.BytesIO(), lambda _: None)


def test_a_runners_frame_of_deep_lists_with_more_behind_it_is_nonsense_like_any_other() -> None:
    body = b"\x91" * 1000 + b"\xc0\xc0"
    with pytest.raises(ProtocolError, match="holds no word: ExtraData"):
        Words().feed(len(body).to_bytes(4, "big") + body)


def test_a_member_without_a_name_is_no_weight_file(tmp_path: Path) -> None:
    file = tmp_path / "nameless.zip"
    member = zipfile.ZipInfo("x")
    member.filename = ""
    with zipfile.ZipFile(file, "w") as packed:
        packed.writestr(member, b"y")
    with file.open("rb") as opened, pytest.raises(WeightsRefused):
        packed_weights(opened, "nameless.zip")


def _gif(behind_the_first_frame: bytes) -> bytes:
    out = io.BytesIO()
    Image.new("P", (4, 4)).save(out, format="GIF")
    return out.getvalue().removesuffix(b";") + behind_the_first_frame


@pytest.mark.parametrize("torn", [b"!\xf9\1", b"!\xf9\1\0\0,"])
def test_what_is_torn_behind_the_first_frame_of_a_gif_breaks_no_runner(tmp_path: Path, torn: bytes) -> None:
    path = tmp_path / "torn.gif"
    path.write_bytes(_gif(torn))
    with contextlib.suppress(BadImage):
        load_image(str(path), LimitsConfig())


def test_a_png_of_a_palette_without_one_is_a_bad_picture_and_no_broken_engine(tmp_path: Path) -> None:
    out = io.BytesIO()
    Image.new("P", (4, 4)).save(out, format="PNG")
    whole = out.getvalue()
    at = whole.index(b"PLTE") - 4
    size = int.from_bytes(whole[at : at + 4], "big")
    path = tmp_path / "bare.png"
    path.write_bytes(whole[:at] + whole[at + 12 + size :])
    with pytest.raises(BadImage):
        load_image(str(path), LimitsConfig())
