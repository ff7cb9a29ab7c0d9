"""One attempt's whole work: what it leaves, what it reports, how each failure is classed, the drills."""

from __future__ import annotations

import errno
import hashlib
import json
import os
import shutil
import signal
import stat
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from PIL import ExifTags, Image

from lcq.config import LimitsConfig
from lcq.file_mark import file_mark
from lcq.images import load_image
from lcq.models import Device, DeviceKind, Ease, ErrorClass, Failure, ModelOffer, Task, TaskType
from worker.engines.base import Cancelled, Engine, EngineError, Estimate, Progress, Work
from worker.engines.opencv import OpenCvEngine
from worker.engines.shelf import Shelf
from worker.engines.testing import DrillEngine
from worker.engines.work import AttemptFailed, Finished, run_task
from worker.settings import EngineSettings

LIMITS = LimitsConfig()
SETTINGS = EngineSettings()


@pytest.fixture(autouse=True)
def _drills(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LCQ_DRILLS", "1")


def a_shelf(*engines: Engine, settings: EngineSettings = SETTINGS) -> Shelf:
    return Shelf(engines or (OpenCvEngine(settings), DrillEngine(settings)), settings)


def silent(fraction: float, stage: str) -> None:
    """Nobody listens."""


def a_task(image: str | Path, mask: str | Path | None = None, **rest: Any) -> Task:
    return Task(
        task_type=TaskType.INPAINT, image_path=str(image), mask_path=None if mask is None else str(mask), **rest
    )


def run(
    task: Task,
    *,
    attempt: int = 1,
    engines: Sequence[Engine] = (),
    limits: LimitsConfig = LIMITS,
    progress: Progress = silent,
    eased: tuple[Ease, ...] = (),
) -> Finished:
    return run_task(task, attempt=attempt, shelf=a_shelf(*engines), limits=limits, progress=progress, eased=eased)


def failure_of(task: Task, **rest: Any) -> Failure:
    with pytest.raises(AttemptFailed) as caught:
        run(task, **rest)
    failure = caught.value.failure
    assert failure.message.isprintable()
    return failure


@pytest.fixture
def photo(tmp_path: Path) -> Path:
    pixels = np.random.default_rng(1).integers(0, 256, (40, 60, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(tmp_path / "photo.png")
    return tmp_path / "photo.png"


@pytest.fixture
def mask(tmp_path: Path) -> Path:
    holes = np.zeros((40, 60), np.uint8)
    holes[10:16, 20:32] = 255
    Image.fromarray(holes).save(tmp_path / "mask.png")
    return tmp_path / "mask.png"


def everything_in(folder: Path) -> set[str]:
    return {str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file()}


# ---------------------------------------------------------------- success


def test_a_finished_attempt_leaves_one_staged_file_beside_the_final_name(photo: Path, mask: Path) -> None:
    task = a_task(photo, mask)
    finished = run(task, attempt=3)
    staged = photo.parent / "cleaned" / f".photo.png.{task.id}-3.lcq-tmp"
    assert finished.staged == str(staged)
    assert finished.result.path == str(photo.parent / "cleaned" / "photo.png")
    assert everything_in(photo.parent) == {"photo.png", "mask.png", f"cleaned/{staged.name}"}
    result = finished.result
    assert result.sha256 == hashlib.sha256(staged.read_bytes()).hexdigest()
    assert result.bytes == staged.stat().st_size
    assert result.input_sha256 == hashlib.sha256(photo.read_bytes()).hexdigest()
    assert (result.width, result.height) == (60, 40)
    assert result.mask_fraction == pytest.approx(72 / 2400)
    assert set(finished.timings) == {"decode", "inpaint", "encode"}
    assert result.seconds >= sum(finished.timings.values()) > 0
    before, after = load_image(str(photo), LIMITS).pixels, load_image(str(staged), LIMITS).pixels
    outside = np.asarray(Image.open(mask)) == 0
    assert (before[outside] == after[outside]).all()
    assert not (before[~outside] == after[~outside]).all()


def test_an_attempt_tells_what_had_its_final_name_when_it_began(photo: Path, mask: Path) -> None:
    task = a_task(photo, mask)
    assert run(task, attempt=1).found == ""
    final = photo.parent / "cleaned" / "photo.png"
    final.write_bytes(b"an earlier run's")
    before = file_mark(final)

    def somebody_elses(fraction: float, stage: str) -> None:
        if stage == "encode":
            final.write_bytes(b"another attempt's, of meanwhile")

    assert run(task, attempt=2, progress=somebody_elses).found == before != file_mark(final)


def test_progress_goes_forward_through_the_stages(photo: Path, mask: Path) -> None:
    heard: list[tuple[float, str]] = []
    run(a_task(photo, mask), progress=lambda fraction, stage: heard.append((fraction, stage)))
    fractions = [fraction for fraction, _ in heard]
    assert fractions == sorted(fractions)
    assert fractions[-1] == 1.0
    assert list(dict.fromkeys(stage for _, stage in heard)) == [
        "decode",
        "load",
        "inpaint",
        "check",
        "encode",
        "written",
    ]


def test_an_empty_mask_gives_the_input_and_a_note(photo: Path, mask: Path) -> None:
    Image.new("1", (60, 40)).save(mask)
    finished = run(a_task(photo, mask))
    assert finished.result.mask_fraction == 0
    assert any("mask is empty" in note for note in finished.result.notes)
    staged = load_image(finished.staged, LIMITS).pixels
    assert (staged == load_image(str(photo), LIMITS).pixels).all()


def test_an_empty_mask_loads_no_model_and_loses_nothing_to_a_second_encoding(tmp_path: Path) -> None:
    pixels = np.random.default_rng(1).integers(0, 256, (40, 60, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(tmp_path / "a.jpg", quality=50)
    Image.new("L", (60, 40), 127).save(tmp_path / "m.png")
    shelf = a_shelf()

    def bytes_of(**config: Any) -> bytes:
        task = a_task(tmp_path / "a.jpg", tmp_path / "m.png", config=config)
        finished = run_task(task, attempt=1, shelf=shelf, limits=LIMITS, progress=silent)
        assert finished.result.notes == ("the mask is empty: the result is the input",)
        assert finished.result.sha256 == hashlib.sha256(Path(finished.staged).read_bytes()).hexdigest()
        return Path(finished.staged).read_bytes()

    assert bytes_of() == (tmp_path / "a.jpg").read_bytes()
    assert bytes_of(quality=20) != (tmp_path / "a.jpg").read_bytes()
    assert bytes_of(format="png").startswith(b"\x89PNG")
    assert shelf.warm == ()


def test_names_with_newlines_and_escape_codes_work(photo: Path, mask: Path) -> None:
    odd = photo.with_name("a\n\x1b[31mb.png")
    photo.rename(odd)
    finished = run(a_task(odd, mask))
    assert Path(finished.result.path).name == odd.name
    assert Path(finished.staged).is_file()


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    seed=st.integers(0, 2**32 - 1),
    height=st.integers(1, 50),
    width=st.integers(1, 50),
    mode=st.sampled_from(["L", "I;16", "RGB", "LA", "RGBA", "1", "P"]),
    out=st.sampled_from(["png", "tiff"]),
    model=st.sampled_from(["cv2-telea", "cv2-ns"]),
)
def test_in_lossless_formats_every_pixel_outside_the_mask_comes_back(
    tmp_path: Path, seed: int, height: int, width: int, mode: str, out: str, model: str
) -> None:
    rng = np.random.default_rng(seed)
    if mode == "I;16":
        picture = Image.fromarray(rng.integers(0, 65536, (height, width), dtype=np.uint16))
    elif mode == "P":
        picture = Image.fromarray(rng.integers(0, 256, (height, width, 3), dtype=np.uint8)).quantize(7)
    else:
        picture = Image.fromarray(rng.integers(0, 256, (height, width, 4), dtype=np.uint8)).convert(mode)
    picture.save(tmp_path / "a.png")
    holes = rng.random((height, width)) < rng.choice([0.0, 0.05, 0.5])
    holes[0, 0] = False
    Image.fromarray(holes).save(tmp_path / "m.png")
    task = a_task(tmp_path / "a.png", tmp_path / "m.png", config={"format": out, "model": model})
    finished = run(task)
    before, after = load_image(str(tmp_path / "a.png"), LIMITS), load_image(finished.staged, LIMITS)
    assert after.pixels.dtype == before.pixels.dtype
    assert (after.pixels[~holes] == before.pixels[~holes]).all()
    assert (after.alpha is None) == (before.alpha is None)
    assert before.alpha is None or (after.alpha == before.alpha).all()


# ---------------------------------------------------------------- bad input


def test_a_model_that_no_engine_here_has_may_run_elsewhere(photo: Path, mask: Path) -> None:
    failure = failure_of(a_task(photo, mask, config={"model": "mat"}))
    assert (failure.error_class, failure.code) == (ErrorClass.TRANSIENT, "model_not_here")
    assert "'mat'" in failure.message
    assert "cv2-telea" in failure.message


def test_other_task_types_and_a_missing_mask_path_say_what_to_do(photo: Path) -> None:
    failure = failure_of(Task(task_type=TaskType.UPSCALE, image_path=str(photo)))
    assert (failure.error_class, failure.code) == (ErrorClass.BAD_INPUT, "task_type_unsupported")
    assert failure.message == f"{photo}: cv2-telea cannot do upscale, only inpaint (use a model that can)"
    failure = failure_of(a_task(photo))
    assert (failure.error_class, failure.code) == (ErrorClass.BAD_INPUT, "mask_missing")
    assert "mask_path" in failure.message


def test_every_bad_input_is_named_once_and_leaves_nothing(photo: Path, mask: Path) -> None:
    folder = photo.parent
    (folder / "empty.jpg").touch()
    (folder / "cut.png").write_bytes(photo.read_bytes()[:2000])
    (folder / "text.png").write_text("hello")
    Image.new("L", (10, 10)).save(folder / "small.png")
    Image.new("L", (60, 40), 255).save(folder / "full.png")
    Image.new("CMYK", (60, 40)).save(folder / "cmyk.jpg")
    before = everything_in(folder)
    good = {"image_path": photo, "mask_path": mask}
    for change, code in (
        ({"image_path": folder / "none.png"}, "image_missing"),
        ({"image_path": folder}, "image_is_directory"),
        ({"image_path": folder / "empty.jpg"}, "image_empty"),
        ({"image_path": folder / "cut.png"}, "image_truncated"),
        ({"image_path": folder / "text.png"}, "image_unreadable"),
        ({"image_path": folder / "cmyk.jpg"}, "image_unsupported"),
        ({"mask_path": folder / "none.png"}, "mask_missing"),
        ({"mask_path": folder / "text.png"}, "mask_unreadable"),
        ({"mask_path": folder / "small.png"}, "mask_size_mismatch"),
        ({"mask_path": folder / "full.png"}, "mask_full"),
        ({"config": {"radius": -1}}, "config_invalid"),
        ({"config": {"quality": 0}}, "config_invalid"),
        ({"config": {"format": "bmp"}}, "format_unsupported"),
        ({"output_path": photo}, "output_unwritable"),
        ({"output_path": folder / "text.png" / "x.png"}, "output_unwritable"),
        ({"output_path": folder / ("x" * 300 + ".png")}, "output_unwritable"),
    ):
        fields = {key: value if key == "config" else str(value) for key, value in {**good, **change}.items()}
        failure = failure_of(Task(task_type=TaskType.INPAINT, **fields))
        assert (failure.error_class, failure.code) == (ErrorClass.BAD_INPUT, code)
        named = next(iter(change.values()))
        assert photo.name in failure.message or named.name[:40] in failure.message
    assert everything_in(folder) == before


def test_limits_are_those_of_the_configuration(photo: Path, mask: Path) -> None:
    failure = failure_of(a_task(photo, mask), limits=LimitsConfig(image_pixels=2399))
    assert (failure.error_class, failure.code) == (ErrorClass.BAD_INPUT, "image_too_large")


# ---------------------------------------------------------------- other task types


class ManyEngine(Engine):
    """Upscales by repeating pixels, finds what is bright, and does what its config says."""

    name = "many"

    def capabilities(self) -> Mapping[str, ModelOffer]:
        return {
            "many": ModelOffer(
                kinds=(DeviceKind.CPU,), task_types=(TaskType.UPSCALE, TaskType.SEGMENT, TaskType.PLUGIN)
            )
        }

    def run(self, work: Work) -> NDArray[Any]:
        pixels = work.picture.pixels
        match work.task_type:
            case TaskType.UPSCALE:
                times = int(work.config.get("scale", 2))
                return pixels.repeat(times, 0).repeat(times, 1)
            case TaskType.SEGMENT:
                return pixels.max(axis=2) > 127 if pixels.ndim == 3 else pixels > 127
            case _:
                assert not work.picture.mask.any()
                alpha = np.full(pixels.shape[:2], 9, np.uint8)
                return {
                    "crop": pixels[5:20, 5:25],
                    "cut out": np.dstack((pixels, alpha)),
                    "grey": pixels[..., 0],
                    "empty": pixels[:0],
                    "float": pixels.astype(float),
                    "same": pixels,
                }[str(work.config["do"])]


def do(kind: TaskType, picture: Path, **rest: Any) -> Task:
    config = {"model": "many", **rest.pop("config", {})}
    return Task(task_type=kind, image_path=str(picture), config=config, **rest)


def many(task: Task) -> Finished:
    return run(task, engines=(ManyEngine(SETTINGS),))


def test_an_upscaled_picture_has_more_pixels_and_its_alpha_grows_along(tmp_path: Path) -> None:
    pixels = np.random.default_rng(1).integers(0, 256, (10, 20, 4), dtype=np.uint8)
    exif = Image.Exif()
    exif[ExifTags.IFD.Exif] = {ExifTags.Base.ExifImageWidth: 20, ExifTags.Base.ExifImageHeight: 10}
    Image.fromarray(pixels).save(tmp_path / "a.png", exif=exif, dpi=(300, 300))
    finished = many(do(TaskType.UPSCALE, tmp_path / "a.png", config={"scale": 3}))
    assert (finished.result.width, finished.result.height) == (60, 30)
    assert finished.result.path == str(tmp_path / "cleaned" / "a.png")
    with Image.open(finished.staged) as after:
        assert (after.size, after.mode) == ((60, 30), "RGBA")
        assert after.getexif().get_ifd(ExifTags.IFD.Exif)[ExifTags.Base.ExifImageWidth] == 60
        assert (np.asarray(after)[1::3, 1::3, :3] == pixels[..., :3]).all()
        assert np.abs(np.asarray(after)[1::3, 1::3, 3].astype(int) - pixels[..., 3]).max() < 90  # it was smoothed


def test_a_segmented_picture_gives_a_mask_that_pairs_with_it(tmp_path: Path) -> None:
    pixels = np.zeros((10, 20, 3), np.uint8)
    pixels[2:5, 3:9] = 200
    Image.fromarray(pixels).save(tmp_path / "a.jpg", quality=100, subsampling=0)
    finished = many(do(TaskType.SEGMENT, tmp_path / "a.jpg"))
    assert finished.result.path == str(tmp_path / "cleaned" / "a_mask.png")
    with Image.open(finished.staged) as mask:
        assert (mask.mode, mask.format) == ("L", "PNG")
        assert (np.asarray(mask) == np.where(pixels[..., 0], 255, 0)).all()
    failure = failure_of(
        do(TaskType.SEGMENT, tmp_path / "a.jpg", config={"format": "jpeg"}), engines=(ManyEngine(SETTINGS),)
    )
    assert (failure.error_class, failure.code) == (ErrorClass.BAD_INPUT, "format_unsupported")
    assert "would blur the edges of a mask (use png or tiff)" in failure.message


def test_a_plug_ins_picture_may_have_any_size_and_an_alpha_of_its_own(tmp_path: Path) -> None:
    Image.new("RGB", (40, 30), "teal").save(tmp_path / "a.jpg")
    Image.new("RGBA", (40, 30), "teal").save(tmp_path / "b.png")
    cropped = many(do(TaskType.PLUGIN, tmp_path / "b.png", config={"do": "crop"}))
    assert (cropped.result.width, cropped.result.height) == (20, 15)
    assert "transparency was left out" in cropped.result.notes[0]
    cut = many(do(TaskType.PLUGIN, tmp_path / "a.jpg", config={"do": "cut out"}))
    assert cut.result.path == str(tmp_path / "cleaned" / "a.png")
    with Image.open(cut.staged) as after:
        assert after.getpixel((3, 3))[3] == 9
    failure = failure_of(
        do(TaskType.PLUGIN, tmp_path / "a.jpg", config={"do": "cut out", "format": "jpeg"}),
        engines=(ManyEngine(SETTINGS),),
    )
    assert failure.code == "format_unsupported"
    assert many(do(TaskType.PLUGIN, tmp_path / "b.png", config={"do": "same"})).result.notes == ()
    grey = many(do(TaskType.PLUGIN, tmp_path / "a.jpg", config={"do": "grey"}))
    with Image.open(grey.staged) as after:
        assert after.mode == "L"
    for wrong in ("empty", "float"):
        failure = failure_of(
            do(TaskType.PLUGIN, tmp_path / "a.jpg", config={"do": wrong}), engines=(ManyEngine(SETTINGS),)
        )
        assert (failure.error_class, failure.code) == (ErrorClass.BAD_OUTPUT, "output_shape")


# ---------------------------------------------------------------- engines that fail


class OddEngine(Engine):
    """An engine of somebody else's, with one fault."""

    name = "odd"

    def __init__(self, fault: str, settings: EngineSettings = SETTINGS) -> None:
        super().__init__(settings)
        self.fault = fault

    def capabilities(self) -> Mapping[str, ModelOffer]:
        return {"odd": ModelOffer(kinds=(DeviceKind.CPU,))}

    def load(self, model: str, config: Mapping[str, Any]) -> int:
        if self.fault == "weights":
            raise EngineError("weights_missing", "there are none", error_class=ErrorClass.TRANSIENT)
        return 0

    def run(self, work: Work) -> NDArray[Any]:
        pixels: NDArray[Any] = work.picture.pixels.copy()
        match self.fault:
            case "outside":
                pixels[0, 0] ^= 1
            case "shape":
                return pixels[:-1]
            case "type":
                return pixels.astype(np.float32)
            case "nan":
                return np.where(work.picture.mask[..., None], np.nan, pixels)
            case "list":
                return pixels.tolist()
            case "black":
                pixels[work.picture.mask] = 0
            case "memory":
                np.empty(2**62, np.uint8)
            case "device memory":
                raise EngineError("out_of_memory", "the GPU is full", error_class=ErrorClass.RESOURCE)
            case "broken":
                raise EngineError("engine_error", "it broke\nbadly", error_class=ErrorClass.CRASH)
            case "odd code":
                raise EngineError("It Broke!", "\n", error_class=ErrorClass.CRASH)
            case "writes":
                work.picture.pixels[0, 0] = 0
            case "notes":
                work.notes += [f"eased by {', '.join(work.eased)}", "two\nlines\x1b", 3]
        return pixels


@pytest.mark.parametrize(
    ("fault", "error_class", "code"),
    [
        ("outside", ErrorClass.BAD_OUTPUT, "output_outside_mask"),
        ("shape", ErrorClass.BAD_OUTPUT, "output_shape"),
        ("type", ErrorClass.BAD_OUTPUT, "output_shape"),
        ("list", ErrorClass.BAD_OUTPUT, "output_shape"),
        ("nan", ErrorClass.BAD_OUTPUT, "output_not_a_number"),
        ("black", ErrorClass.BAD_OUTPUT, "output_constant"),
        ("memory", ErrorClass.RESOURCE, "out_of_memory"),
        ("device memory", ErrorClass.RESOURCE, "out_of_memory"),
        ("weights", ErrorClass.TRANSIENT, "weights_missing"),
        ("broken", ErrorClass.CRASH, "engine_error"),
        ("odd code", ErrorClass.CRASH, "engine_error"),
    ],
)
def test_an_engines_fault_has_its_class(
    photo: Path, mask: Path, fault: str, error_class: ErrorClass, code: str
) -> None:
    before = everything_in(photo.parent)
    failure = failure_of(a_task(photo, mask, config={"model": "odd"}), engines=(OddEngine(fault),))
    assert (failure.error_class, failure.code) == (error_class, code)
    assert "photo.png" in failure.message
    assert everything_in(photo.parent) == before


def test_an_engine_cannot_scribble_on_its_input(photo: Path, mask: Path) -> None:
    with pytest.raises(ValueError, match="read-only"):
        run(a_task(photo, mask, config={"model": "odd"}), engines=(OddEngine("writes"),))


def test_what_an_engine_notes_and_how_it_was_eased_is_in_the_result(photo: Path, mask: Path) -> None:
    task = a_task(photo, mask, config={"model": "odd"})
    finished = run(task, engines=(OddEngine("notes"),), eased=(Ease.SMALLER_TILE, Ease.LOWER_PRECISION))
    assert finished.result.notes == ("eased by smaller_tile, lower_precision", "two lines", "3")


def test_a_file_that_does_not_read_back_as_the_result_is_bad_output(
    photo: Path, mask: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = everything_in(photo.parent)
    for encoded in (photo.read_bytes(), b"", b"\x89PNG\r\n"):
        monkeypatch.setattr("worker.engines.work.encode", lambda *_, encoded=encoded: (encoded, ()))
        task = do(TaskType.UPSCALE, photo)
        failure = failure_of(task, engines=(ManyEngine(SETTINGS),))
        assert (failure.error_class, failure.code) == (ErrorClass.BAD_OUTPUT, "output_shape")
        assert "does not read back as 120 x 80" in failure.message
    assert everything_in(photo.parent) == before


def test_a_cancelled_attempt_ends_as_such_and_leaves_nothing(photo: Path, mask: Path) -> None:
    before = everything_in(photo.parent)
    for last in ("decode", "load", "inpaint", "check", "encode", "written"):

        def gone(fraction: float, stage: str, last: str = last) -> None:
            if stage == last:
                raise Cancelled

        with pytest.raises(Cancelled):
            run(a_task(photo, mask), progress=gone)
        assert everything_in(photo.parent) == before


class HungryEngine(OddEngine):
    def estimate(self, work: Work) -> Estimate:
        return Estimate(memory_mib=1500 if Ease.SMALLER_TILE not in work.eased else 500)

    def held_mib(self) -> int:
        return 600


@pytest.mark.parametrize(
    "device",
    [
        Device(id="cpu", kind=DeviceKind.CPU, memory_mib=2000, vram_mib=9),
        Device(id="GPU-1", kind=DeviceKind.GPU, memory_mib=9, vram_mib=2000),
    ],
)
def test_what_a_device_could_never_hold_is_not_begun(photo: Path, mask: Path, device: Device) -> None:
    class Hungry(HungryEngine):
        def capabilities(self) -> Mapping[str, ModelOffer]:
            return {"odd": ModelOffer(kinds=(DeviceKind.GPU, DeviceKind.CPU))}

    settings = EngineSettings(device=device)
    shelf = Shelf((Hungry("crash if run", settings),), settings)
    task = a_task(photo, mask, config={"model": "odd"})
    with pytest.raises(AttemptFailed) as caught:
        run_task(task, attempt=1, shelf=shelf, limits=LIMITS, progress=silent)
    assert caught.value.failure.error_class == ErrorClass.RESOURCE
    assert caught.value.failure.message == (
        f"{photo}: odd would need about 1,500 MiB for it, and {device.id} has 2,000 MiB, "
        "of which loaded models hold 600"
    )
    run_task(task, attempt=1, shelf=shelf, limits=LIMITS, progress=silent, eased=(Ease.SMALLER_TILE,))


# ---------------------------------------------------------------- storage that fails

ATTEMPT = """
import json, resource, sys
from lcq.config import LimitsConfig
from lcq.models import Task
from worker.engines.opencv import OpenCvEngine
from worker.engines.shelf import Shelf
from worker.engines.work import AttemptFailed, run_task
from worker.settings import EngineSettings
task, limit = Task.from_json(sys.argv[1]), int(sys.argv[2])
if limit:
    resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit))
shelf = Shelf((OpenCvEngine(EngineSettings()),), EngineSettings())
if len(sys.argv) > 3:
    import os
    os.setgid(65534)
    os.setuid(65534)
try:
    run_task(task, attempt=1, shelf=shelf, limits=LimitsConfig(), progress=lambda fraction, stage: None)
except AttemptFailed as failed:
    print(failed.failure.model_dump_json())
"""


def failure_in_a_process(task: Task, *more: str, limit: int = 0, prefix: tuple[str, ...] = ()) -> Failure:
    done = subprocess.run(
        [*prefix, sys.executable, "-c", ATTEMPT, task.to_json(), str(limit), *more],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return Failure.model_validate_json(done.stdout)


def test_a_file_that_outgrows_what_the_system_allows_is_a_full_disk(photo: Path, mask: Path) -> None:
    before = everything_in(photo.parent)
    failure = failure_in_a_process(a_task(photo, mask), limit=4096)
    assert (failure.error_class, failure.code) == (ErrorClass.RESOURCE, "disk_full")
    assert "cleaned" in failure.message
    assert everything_in(photo.parent) == before


SMALL_DISK = """mount -t tmpfs -o size=16k none "$1" || exit 77; shift; "$@"; code=$?
[ -z "$(ls -A "$DISK")" ] || exit 78; exit $code"""


def test_a_disk_that_is_really_full_is_a_full_disk_and_keeps_nothing(tmp_path: Path) -> None:
    unshare = shutil.which("unshare")
    if unshare is None or subprocess.run([unshare, "-rm", "true"], capture_output=True, check=False).returncode:
        pytest.skip("this system lets nobody make a small disk of his own")
    pixels = np.random.default_rng(1).integers(0, 256, (200, 200, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(tmp_path / "photo.png")
    Image.fromarray(np.eye(200, dtype=bool)).save(tmp_path / "mask.png")
    disk = tmp_path / "disk"
    disk.mkdir()
    task = a_task(tmp_path / "photo.png", tmp_path / "mask.png", output_path=str(disk / "out.png"))
    prefix = (unshare, "-rm", "env", f"DISK={disk}", "sh", "-c", SMALL_DISK, "sh", str(disk))
    failure = failure_in_a_process(task, prefix=prefix)
    assert (failure.error_class, failure.code) == (ErrorClass.RESOURCE, "disk_full")
    assert os.strerror(errno.ENOSPC) in failure.message


def test_a_folder_the_agent_may_not_write_to_is_named_with_the_fix(photo: Path, mask: Path) -> None:
    closed = photo.parent / "closed"
    closed.mkdir(mode=0o555)
    as_nobody = ("nobody",) if os.geteuid() == 0 else ()
    for folder in (photo.parent, *photo.parent.parents) if as_nobody else ():
        if not folder.stat().st_mode & stat.S_IXOTH:
            folder.chmod(0o755)
    failure = failure_in_a_process(a_task(photo, mask, output_path=str(closed / "a.png")), *as_nobody)
    assert (failure.error_class, failure.code) == (ErrorClass.BAD_INPUT, "output_unwritable")
    assert "write permission" in failure.message
    assert everything_in(closed) == set()


def test_storage_that_fails_while_reading_may_work_elsewhere(mask: Path) -> None:
    if not Path("/proc/self/mem").exists():
        pytest.skip("needs a file whose reading fails; /proc has one")
    # a regular file that answers EIO: nothing is mapped at address 0 of this process
    failure = failure_of(a_task("/proc/self/mem", mask))
    assert (failure.error_class, failure.code) == (ErrorClass.TRANSIENT, "io_error")
    assert os.strerror(errno.EIO) in failure.message


def test_if_nobody_can_be_told_of_the_result_its_file_goes(photo: Path, mask: Path) -> None:
    def broken_pipe(fraction: float, stage: str) -> None:
        if stage == "written":
            raise BrokenPipeError

    before = everything_in(photo.parent)
    with pytest.raises(BrokenPipeError):
        run(a_task(photo, mask), progress=broken_pipe)
    assert everything_in(photo.parent) == before


# ---------------------------------------------------------------- drills and the registry


def a_drill(what: str, **config: Any) -> Task:
    return Task(task_type=TaskType.INPAINT, image_path="none", config={"model": f"drill-{what}", **config})


def test_a_drill_needs_no_picture_and_leaves_no_file() -> None:
    finished = run(a_drill("noop"))
    assert finished.staged == finished.result.path == ""
    assert finished.result.bytes == 0


def test_the_result_of_a_drill_carries_the_digest_of_what_it_was_told() -> None:
    task = a_drill("noop", mark=7)
    told = json.dumps({"config": {"mark": 7, "model": "drill-noop"}, "image_path": "none"}, sort_keys=True)
    assert run(task).result.input_sha256 == hashlib.sha256(told.encode()).hexdigest()
    assert run(a_drill("noop", mark=8)).result.input_sha256 != run(task).result.input_sha256


def test_a_wrong_drill_is_bad_output_until_it_is_told_otherwise() -> None:
    failure = failure_of(a_drill("wrong", failures=1), attempt=1)
    assert (failure.error_class, failure.code) == (ErrorClass.BAD_OUTPUT, "output_outside_mask")
    assert run(a_drill("wrong", failures=1), attempt=2).result.path == ""


def test_a_sleeping_drill_reports_progress_all_along() -> None:
    heard: list[float] = []
    run(a_drill("sleep", seconds=0.25), progress=lambda fraction, stage: heard.append(fraction))
    assert len(heard) >= 3
    assert heard == sorted(heard)
    assert heard[-1] == 1.0


def test_a_transient_drill_fails_as_often_as_it_is_told() -> None:
    for attempt in (1, 2):
        failure = failure_of(a_drill("transient", failures=2), attempt=attempt)
        assert (failure.error_class, failure.code) == (ErrorClass.TRANSIENT, "drill_transient")
    assert run(a_drill("transient", failures=2), attempt=3).result.path == ""
    failure_of(a_drill("transient"), attempt=1000)


def test_a_memory_drill_takes_its_memory_and_gives_it_back() -> None:
    heard: list[float] = []
    engine = DrillEngine(SETTINGS)
    engine.drill("drill-memory", {"mib": 40}, attempt=1, progress=lambda fraction, stage: heard.append(fraction))
    assert heard == [0.0, 0.4, 0.8]


@pytest.mark.parametrize(
    ("what", "config"), [("sleep", {"seconds": "1"}), ("memory", {"mib": -1}), ("noop", {"failures": True})]
)
def test_a_drill_with_a_wrong_key_is_bad_input_naming_it(what: str, config: dict[str, Any]) -> None:
    failure = failure_of(a_drill(what, **config))
    assert (failure.error_class, failure.code) == (ErrorClass.BAD_INPUT, "config_invalid")
    assert f"config.{next(iter(config))}" in failure.message


DRILL = """
import sys
from worker.engines.testing import DrillEngine
from worker.settings import EngineSettings
print("ready", flush=True)
engine = DrillEngine(EngineSettings())
engine.drill(sys.argv[1], {}, attempt=1, progress=lambda fraction, stage: print("progress", flush=True))
"""


def test_a_crash_drill_kills_its_process() -> None:
    done = subprocess.run([sys.executable, "-c", DRILL, "drill-crash"], capture_output=True, check=False, timeout=60)
    assert done.returncode == -signal.SIGKILL


def test_a_hanging_drill_stays_and_says_nothing() -> None:
    with subprocess.Popen([sys.executable, "-c", DRILL, "drill-hang"], stdout=subprocess.PIPE, text=True) as hanging:
        assert hanging.stdout is not None
        assert hanging.stdout.readline() == "ready\n"
        with pytest.raises(subprocess.TimeoutExpired):
            hanging.wait(timeout=0.5)
        hanging.kill()
        assert hanging.stdout.read() == ""


def test_an_oom_drill_is_a_resource_failure_until_it_is_told_otherwise() -> None:
    failure = failure_of(a_drill("oom", failures=1), attempt=1)
    assert (failure.error_class, failure.code) == (ErrorClass.RESOURCE, "out_of_memory")
    assert run(a_drill("oom", failures=1), attempt=2).result.path == ""


def test_drills_are_offered_only_where_they_are_asked_for(monkeypatch: pytest.MonkeyPatch) -> None:
    assert {"cv2-telea", "drill-noop", "drill-memory"} < set(a_shelf().offers)
    monkeypatch.setenv("LCQ_DRILLS", "0")
    assert set(a_shelf().offers) == {"cv2-telea", "cv2-ns"}


# ---------------------------------------------------------------- the sample photos

SAMPLES = Path(__file__).parents[2] / "sample-config"


@pytest.mark.parametrize("sample", sorted((SAMPLES / "photos").iterdir()), ids=lambda path: path.name)
def test_each_sample_photo_is_cleaned_by_its_mask_and_described(tmp_path: Path, sample: Path) -> None:
    task = a_task(sample, SAMPLES / "masks" / f"{sample.stem}.png", output_path=str(tmp_path / sample.name))
    finished = run(task)
    assert 0.001 < finished.result.mask_fraction < 0.2
    assert finished.result.notes == ()
    before = load_image(str(sample), LIMITS)
    after = load_image(finished.staged, LIMITS)
    assert after.size == before.size
    assert after.format == before.format
    assert after.icc == before.icc
    assert f"`{sample.name}`" in (SAMPLES / "PHOTOS.md").read_text(encoding="utf-8")


def test_the_samples_stay_small() -> None:
    assert sum(path.stat().st_size for path in SAMPLES.rglob("*") if path.is_file()) < 1_500_000
