"""F-43: small files that claim to be enormous are refused from their headers, and no process grows by them."""

from __future__ import annotations

import io
import shutil
import struct
import subprocess
import sys
import zlib
from collections.abc import Callable
from functools import cache
from pathlib import Path

import psutil
import pytest
from PIL import GifImagePlugin, Image

from lcq.config import LimitsConfig
from lcq.images import BadImage, load_image, load_mask
from lcq.models import Task, TaskStatus, TaskType
from tests.cluster import running_cluster

PHOTO = Path(__file__).parents[2] / "sample-config" / "photos" / "camera.png"
MASK = Path(__file__).parents[2] / "sample-config" / "masks" / "camera.png"
MOST_MIB = 100  # that any process may grow by; one decoded picture of 65535 x 65535 has 12,000


def _chunk(kind: bytes, body: bytes) -> bytes:
    return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))


def _png(width: int, height: int, *more: bytes, data: bytes = b"\0\0") -> bytes:
    head = _chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, 8, 0, 0, 0, 0))
    return b"\x89PNG\r\n\x1a\n" + head + b"".join(more) + _chunk(b"IDAT", zlib.compress(data)) + _chunk(b"IEND", b"")


def _apng(frames: int) -> bytes:
    parts = []
    for number in range(1, 2 * min(frames, 10_000), 2):
        control = struct.pack(">IIIIIHHBB", number, 1, 1, 0, 0, 1, 10, 0, 0)
        parts += [_chunk(b"fcTL", control), _chunk(b"fdAT", struct.pack(">I", number + 1) + zlib.compress(b"\0\0"))]
    return _png(1, 1, _chunk(b"acTL", struct.pack(">II", frames, 0)), *parts)


def _gif(frames: int, width: int, height: int) -> bytes:
    head = b"GIF89a" + struct.pack("<HHBBB", width, height, 0x80, 0, 0) + b"\0\0\0\xff\xff\xff"
    frame = b"!\xf9\x04\x04\x01\0\0\0," + struct.pack("<HHHHB", 0, 0, 1, 1, 0) + b"\x02\x02\x44\x01\0"
    return head + frame * frames + b";"


def _webp(frames: int, side: int) -> bytes:
    buffer = io.BytesIO()
    Image.new("RGB", (1, 1)).save(buffer, "WEBP", lossless=True)
    frame = b"\0" * 12 + b"\x0a\0\0\0" + buffer.getvalue()[12:]
    sized = (side - 1).to_bytes(3, "little")
    body = (
        b"WEBPVP8X" + struct.pack("<I", 10) + b"\x02\0\0\0" + sized + sized + b"ANIM" + struct.pack("<I", 6) + b"\0" * 6
    )
    body += (b"ANMF" + struct.pack("<I", len(frame)) + frame + b"\0" * (len(frame) % 2)) * frames
    return b"RIFF" + struct.pack("<I", len(body)) + body


def _tiff(pages: int, width: int, height: int, *, loop: bool = False, nested: bool = False) -> bytes:
    sizes = [(256, 4, width), (257, 4, height), (258, 3, 8), (259, 3, 1), (262, 3, 1), (273, 4, 8), (277, 3, 1)]
    sizes += [(278, 4, height), (279, 4, 1)]
    if nested:  # a directory that has itself as its sub-directory
        sizes += [(330, 4, 16), (34665, 4, 16), (34853, 4, 16)]
    entries = b"".join(
        struct.pack("<HHII", tag, kind, 1, value) if kind == 4 else struct.pack("<HHIHH", tag, kind, 1, value, 0)
        for tag, kind, value in sizes
    )
    length = 2 + len(entries) + 4
    out = b"II*\0" + struct.pack("<I", 16) + b"\0" * 8
    for page in range(pages):
        following = 16 + length * ((page + 1) % pages) if page < pages - 1 or loop else 0
        out += struct.pack("<H", len(sizes)) + entries + struct.pack("<I", following)
    return out


@cache
def _swollen() -> bytes:
    return b"a\0\0" + zlib.compress(b"\0" * 200_000_000, 9)


# Made where they are needed: each worker of a test run reads this file, and to make them all takes a second.
BOMBS: dict[str, Callable[[], bytes]] = {
    "claims-65535.png": lambda: _png(65535, 65535, data=b"\0" * 700),
    "claims-all.png": lambda: _png(2**31 - 1, 2**31 - 1),
    "frames-10000.png": lambda: _apng(10_000),
    "claims-frames.png": lambda: _apng(2**31 - 1),
    "swollen-text.png": lambda: _png(1, 1, _chunk(b"zTXt", _swollen())),
    "swollen-profile.png": lambda: _png(1, 1, _chunk(b"iCCP", _swollen())),
    "claims-65535.gif": lambda: _gif(1, 65535, 65535),
    "frames-10000.gif": lambda: _gif(10_000, 14_000, 14_000),
    "frames-10000.webp": lambda: _webp(10_000, 14_000),
    "claims-16777216.webp": lambda: _webp(2, 16_777_216),
    "claims-65535.tiff": lambda: _tiff(1, 65535, 65535),
    "pages-10000.tiff": lambda: _tiff(10_000, 10_000, 10_000),
    "pages-for-ever.tiff": lambda: _tiff(50, 10_000, 10_000, loop=True),
    "nested.tiff": lambda: _tiff(1, 65535, 65535, nested=True),
    "claims-65535.bmp": lambda: b"BM" + struct.pack("<IHHI", 1000, 0, 0, 54)
    + struct.pack("<IiiHHIIiiII", 40, 65535, 65535, 1, 24, 0, 0, 0, 0, 0, 0) + b"\0" * 900,
}  # fmt: skip
CODES = {"image_too_large", "image_unreadable", "mask_unreadable"}  # swollen text is no picture that Pillow would open


@pytest.mark.parametrize("name", BOMBS)
def test_a_bomb_is_refused_as_a_picture_and_as_a_mask(tmp_path: Path, name: str) -> None:
    bomb = tmp_path / name
    bomb.write_bytes(BOMBS[name]())
    assert bomb.stat().st_size < 2_000_000
    me = psutil.Process()
    before = me.memory_info().rss
    with pytest.raises(BadImage) as refusal:
        load_image(str(bomb), LimitsConfig())
    assert refusal.value.problem in CODES
    with pytest.raises(BadImage, match="mask"):
        load_mask(str(bomb), load_image(str(PHOTO), LimitsConfig()), LimitsConfig())
    assert (me.memory_info().rss - before) >> 20 < MOST_MIB


def test_the_frames_of_a_gif_are_not_counted_beyond_the_limit(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Pillow's count reads them all: measured 13 s for a million, in a file of 23 MB."""
    monkeypatch.setattr(GifImagePlugin.GifImageFile, "n_frames", property(lambda image: pytest.fail("counted")))
    bomb = tmp_path / "bomb.gif"
    bomb.write_bytes(_gif(1_000_000, 100, 100))
    for limit in (1, 2, 999):
        with pytest.raises(BadImage, match="frames or pages"):
            load_image(str(bomb), LimitsConfig(frames=limit))


def test_a_gif_of_as_many_frames_as_allowed_is_read(tmp_path: Path) -> None:
    picture = tmp_path / "two.gif"
    frames = [Image.new("P", (8, 8), shade) for shade in (1, 2)]
    frames[0].save(picture, save_all=True, append_images=frames[1:], palette=bytes(range(256)) * 3)
    assert load_image(str(picture), LimitsConfig(frames=2)).size == (8, 8)
    with pytest.raises(BadImage, match="several frames"):
        load_image(str(picture), LimitsConfig())


def test_no_process_of_a_real_cluster_grows_by_bombs(redis_url: str, tmp_path: Path) -> None:
    folder, masks = tmp_path / "in", tmp_path / "masks"
    folder.mkdir()
    masks.mkdir()
    for name, bomb in BOMBS.items():
        (folder / name).write_bytes(bomb())
        shutil.copy(MASK, masks / Path(name).with_suffix(".png").name)
    with running_cluster(redis_url, tmp_path / "c") as cluster:
        cluster.start_scheduler()
        cluster.start_agent("node-1", slots=1)
        with cluster.client() as client:
            client.wait([client.submit(_photo(PHOTO, MASK, tmp_path / "warm.png")).id], timeout_s=60)
            watched = {name: psutil.Process(process.pid) for name, process in cluster.processes.items()}
            watched["runner"] = cluster.runners("node-1")[0]
            before = {name: process.memory_info().rss for name, process in watched.items()}
            tasks = [_photo(folder / name, MASK, tmp_path / f"{name}.out.png") for name in BOMBS]
            tasks += [_photo(PHOTO, folder / name, tmp_path / f"{name}.masked.png") for name in BOMBS]
            client.submit_many(tasks)
            records = client.wait([task.id for task in tasks], timeout_s=90)
            for record in records:
                assert record.status == TaskStatus.FAILED, record
                assert record.failure is not None
                assert (record.failure.error_class, record.failure.code in CODES) == ("bad_input", True), record.failure
                assert (record.attempt, record.retries) == (1, 0)
            grown = {name: (process.memory_info().rss - before[name]) >> 20 for name, process in watched.items()}
            submit = "from lcq.cli.main import app\ntry: app()\nfinally: print(open('/proc/self/status').read())"
            address = f"127.0.0.1:{cluster.control_port}"
            command = [
                sys.executable,
                "-c",
                submit,
                "--scheduler",
                address,
                "submit",
                str(folder),
                "--mask",
                str(masks),
            ]
            ran = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
            client_mib = int(ran.stdout.partition("VmHWM:")[2].split()[0]) >> 10
            print(f"\nMiB grown by {len(tasks)} bombs: {grown}; 'lcq submit' of their folder took {client_mib} in all")
            assert all(mib < MOST_MIB for mib in grown.values()), grown
            assert client_mib < 2 * MOST_MIB
            assert cluster.runners("node-1")[0].pid == watched["runner"].pid


def _photo(image: Path, mask: Path, out: Path) -> Task:
    return Task(task_type=TaskType.INPAINT, image_path=str(image), mask_path=str(mask), output_path=str(out))
