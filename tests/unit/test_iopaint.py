"""The IOPaint engine beside a stand-in for IOPaint; tests/parity holds that against the real one."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import psutil
import pytest

from lcq.config import IopaintConfig, load
from lcq.errors import InvalidConfig
from lcq.models import DeviceKind, Ease, ErrorClass, Task, TaskType
from tests.conftest import wait_until_sync
from tests.iopaint_neighbours import STANDIN, a_picture, an_engine, done, heard, standin, work_on
from tests.processes import kill_and_wait, lives
from worker.engines.base import Cancelled, EngineError
from worker.engines.iopaint import IopaintEngine
from worker.engines.iopaint_request import fields_of, filled
from worker.protocol import Done, Progress, Ready, Run, Setup, Stop, pack_word, words_from
from worker.settings import EngineSettings

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def shared() -> Iterator[IopaintEngine]:
    """One server for the tests that leave it as it was, or broken: the engine puts that right by itself."""
    with an_engine(command=standin()) as engine:
        yield engine


def pids_of(file: Path) -> list[int]:
    return [line["pid"] for line in heard(file) if line.get("call") == "start"]


# ---------------------------------------------------------------- what is offered


def test_nothing_is_offered_where_nothing_is_configured() -> None:
    engine = IopaintEngine(EngineSettings())
    assert engine.capabilities() == {}
    assert engine.left_out() == {}


def test_the_configured_models_are_offered_with_what_is_known_of_them() -> None:
    with an_engine(command=standin(), models=["mat", "fcf", "runwayml/stable-diffusion-inpainting"]) as engine:
        offers = engine.capabilities()
        assert set(offers) == {"mat", "fcf", "stable-diffusion-inpainting"}
        assert offers["mat"].vram_mib == 4000
        assert offers["mat"].kinds == (DeviceKind.GPU, DeviceKind.CPU)
        assert offers["mat"].eases == (Ease.SMALLER_TILE,)
        assert offers["fcf"].eases == ()  # it always works on crops of 512 pixels
        assert engine.left_out() == {}
        assert engine.held_mib() == 0  # nothing was started for that


def test_models_of_a_server_elsewhere_take_nothing_of_this_device() -> None:
    with an_engine(url="http://192.0.2.1:8080", models=["mat"], kind=DeviceKind.GPU) as engine:
        assert engine.capabilities()["mat"].vram_mib == 0
        assert engine.estimate(work_on(a_picture(), "mat")).memory_mib == 0
    with an_engine(command=standin(), models=["mat"], kind=DeviceKind.GPU) as engine:
        assert engine.estimate(work_on(a_picture(), "mat")).memory_mib == 4000


@pytest.mark.parametrize(
    ("config", "why"),
    [
        ({}, "none of iopaint.command, iopaint.venv and iopaint.url says where IOPaint is"),
        ({"command": ["/nowhere/iopaint"]}, "there is no /nowhere/iopaint"),
        ({"command": ["no-such-program"]}, "there is no program no-such-program in PATH"),
        ({"command": [str(STANDIN)]}, "iopaint_standin.py may not be executed"),
        ({"command": [str(ROOT)]}, "is a folder, not a program"),
        ({"venv": Path("/nowhere")}, "there is no /nowhere/bin/iopaint"),
    ],
)
def test_a_model_is_left_out_with_the_reason_where_iopaint_cannot_be_started(config: Any, why: str) -> None:
    engine = IopaintEngine(EngineSettings(iopaint=IopaintConfig(models=["mat"], **config)))
    assert engine.capabilities() == {}
    assert why in engine.left_out()["mat"]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("iopaint: {url: 'gpu-7:8080'}", r"iopaint\.url: must begin with http:// or https://"),
        ("iopaint: {url: 'http://gpu-7', venv: /opt/x}", r"iopaint: venv and url are both set"),
        ("iopaint: {command: []}", r"iopaint\.command: must name a program"),
        ("iopaint: {models: mat}", r"iopaint\.models: must be a section of names, each with text, found 'mat'"),
    ],
)
def test_a_wrong_iopaint_section_is_refused_by_name(tmp_path: Path, text: str, message: str) -> None:
    file = tmp_path / "lcq.yaml"
    file.write_text(text)
    with pytest.raises(InvalidConfig, match=message):
        load(file)


def test_importing_the_engine_loads_no_torch() -> None:
    code = "import sys, worker.engines.iopaint; print('torch' in sys.modules)"
    assert subprocess.check_output([sys.executable, "-c", code], text=True).strip() == "False"


# ---------------------------------------------------------------- what it makes of a picture


@pytest.mark.parametrize(("shape", "dtype"), [((48, 64, 3), np.uint8), ((48, 64), np.uint8), ((1, 9, 3), np.uint8)])
def test_only_the_holes_are_taken_from_an_answer_that_changes_everything(
    shared: IopaintEngine, shape: tuple[int, ...], dtype: Any
) -> None:
    picture = a_picture(shape, dtype=dtype)
    result = done(shared, work_on(picture))
    expected = np.where(
        picture.mask if len(shape) == 2 else picture.mask[..., None], 255 - picture.pixels, picture.pixels
    )
    assert result.dtype == dtype
    np.testing.assert_array_equal(result, expected)


def test_sixteen_bits_stay_sixteen_outside_the_holes_and_the_loss_is_noted(shared: IopaintEngine) -> None:
    picture = a_picture(dtype=np.uint16)
    work = work_on(picture)
    result = done(shared, work)
    np.testing.assert_array_equal(result[~picture.mask], picture.pixels[~picture.mask])
    off = np.abs(result[picture.mask].astype(int) - (65535 - picture.pixels[picture.mask].astype(int)))
    assert off.max() <= 129  # half of what a step of 8 bits is in 16
    assert work.notes == ["IOPaint works with 8 bits: the filled pixels have no more"]


def test_the_server_is_sent_the_exact_picture_and_mask_and_the_task_s_fields(shared: IopaintEngine) -> None:
    picture = a_picture()
    result = done(shared, work_on(picture, "cv2", cv2_flag="INPAINT_TELEA", cv2_radius=7, format="png", quality=90))
    bgr = np.ascontiguousarray(picture.pixels[..., ::-1])
    expected = cv2.inpaint(bgr, picture.mask.astype(np.uint8), 7, cv2.INPAINT_TELEA)[..., ::-1]
    np.testing.assert_array_equal(result, expected)


def test_an_empty_mask_gives_the_picture_and_a_full_one_is_refused_to_models_that_only_erase(
    shared: IopaintEngine,
) -> None:
    picture = a_picture()
    picture.mask[:] = False
    np.testing.assert_array_equal(done(shared, work_on(picture)), picture.pixels)
    picture.mask[:] = True
    with pytest.raises(EngineError, match="paint less") as refusal:
        done(shared, work_on(picture, "cv2"))
    assert (refusal.value.code, refusal.value.error_class) == ("mask_full", ErrorClass.BAD_INPUT)
    assert (done(shared, work_on(picture, "sd1.5", prompt="a grey wall")) == 128).all()  # these can paint from nothing


def test_a_random_seed_is_told_so_that_the_result_can_be_made_again(shared: IopaintEngine) -> None:
    work = work_on(a_picture(), sd_seed=-1)
    done(shared, work)
    assert work.notes == ["made with the random sd_seed 12345"]


# ---------------------------------------------------------------- the configuration of a task


def test_config_goes_to_iopaint_by_its_names_and_lcq_s_own_keys_do_not() -> None:
    config = {
        "model": "mat",
        "device": "cpu",
        "format": "png",
        "quality": 9,
        "precision": "fp16",
        "radius": 5,
        "strategy": "resize",
        "hd_strategy_resize_limit": 600,
        "prompt": "sky",
        "sd_scale": 1,
        "sd_steps": None,
    }
    assert fields_of(config) == {
        "hd_strategy": "Resize",
        "hd_strategy_resize_limit": 600,
        "prompt": "sky",
        "sd_scale": 1.0,
    }
    assert fields_of({"hd_strategy": "auto"}) == {}


@pytest.mark.parametrize(
    ("config", "message"),
    [
        ({"hd_strategy_crop_triger_size": 640}, "did you mean 'hd_strategy_crop_trigger_size'?"),
        ({"sdSeed": 3}, "config.sdSeed: IOPaint has no such field, did you mean 'sd_seed'?"),
        ({"zzz": 3}, "config.zzz: IOPaint has no such field"),
        ({"hd_strategy": "Tile"}, "config.hd_strategy: Input should be 'Original', 'Resize' or 'Crop', found 'Tile'"),
        ({"hd_strategy": "crop", "strategy": "resize"}, "differ: say one"),
        ({"hd_strategy_crop_margin": -1}, "config.hd_strategy_crop_margin: Input should be greater than or equal to 0"),
        (
            {"hd_strategy_resize_limit": 0},
            "config.hd_strategy_resize_limit: Input should be greater than or equal to 1",
        ),
        ({"ldm_steps": "20"}, "config.ldm_steps: Input should be a valid integer, found '20'"),
        ({"ldm_steps": True}, "config.ldm_steps: Input should be a valid integer, found True"),
        ({"sd_scale": 0}, "config.sd_scale: Input should be greater than 0, found 0"),
        ({"sd_strength": 1.5}, "config.sd_strength: Input should be less than or equal to 1, found 1.5"),
        ({"sd_sampler": "euler"}, "config.sd_sampler: Input should be 'DPM++ 2M', "),
        ({"use_extender": True}, "config.use_extender: outpainting makes a picture of another size"),
        ({"prompt": "x" * 999, "sd_steps": []}, "config.sd_steps: Input should be a valid integer, found []"),
    ],
)
def test_a_wrong_configuration_is_the_task_s_fault_and_never_reaches_the_server(
    shared: IopaintEngine, config: dict[str, Any], message: str
) -> None:
    with pytest.raises(EngineError) as refusal:
        done(shared, work_on(a_picture(), **config))
    assert (refusal.value.code, refusal.value.error_class) == ("config_invalid", ErrorClass.BAD_INPUT)
    assert message in str(refusal.value)


def test_a_task_that_ran_out_of_memory_is_done_in_smaller_pieces_and_says_so(tmp_path: Path) -> None:
    notes = []
    with an_engine(command=standin("--heard", tmp_path / "heard")) as engine:
        for model, config in (("cv2", {"hd_strategy": "original"}), ("sd1.5", {"prompt": "a wall"})):
            work = work_on(a_picture(), model, **config)
            work.eased = (Ease.SMALLER_TILE,)
            done(engine, work)
            notes += work.notes
    assert [line["fields"] for line in heard(tmp_path / "heard") if line["call"] == "inpaint"] == [
        {"hd_strategy": "Crop", "hd_strategy_crop_trigger_size": 512, "hd_strategy_crop_margin": 64},
        {"prompt": "a wall", "sd_scale": 0.5},
    ]
    assert notes == [
        "made in crops with a margin of 64 pixels, to take less memory",
        "made with sd_scale 0.5, to take less memory",
    ]


# ---------------------------------------------------------------- the server's life


def test_one_server_is_started_switched_by_its_api_and_ended_with_its_model(tmp_path: Path) -> None:
    log = tmp_path / "heard"
    with an_engine(command=standin("--heard", log), model_dir=tmp_path, options=["--low-mem"]) as engine:
        assert engine.load("inverse", {}) == 0  # nothing yet: a start is waited for where it can be cancelled
        done(engine, work_on(a_picture()))
        done(engine, work_on(a_picture()))
        done(engine, work_on(a_picture(), "sd1.5"))
        (pid,) = pids_of(log)
        assert [line["model"] for line in heard(log) if line["call"] == "inpaint"] == ["inverse", "inverse", "grey"]
        arguments = heard(log)[0]["arguments"]
        assert arguments[arguments.index("--model") + 1] == "inverse"
        assert arguments[arguments.index("--device") + 1] == "cpu"
        assert arguments[arguments.index("--host") + 1] == "127.0.0.1"
        assert arguments[-3:] == ["--low-mem", "--model-dir", str(tmp_path)]
        assert engine.load("sd1.5", {}) == pytest.approx(psutil.Process(pid).memory_info().rss, rel=0.5)
        assert engine.held_mib() > 0
        assert os.getpgid(pid) == os.getpgid(0)  # what ends the runner's group ends the server
        engine.unload("inverse")  # it is not this one that is loaded
        assert lives(pid)
        engine.unload("sd1.5")
        assert not lives(pid)
        assert engine.held_mib() == 0


def test_a_model_that_is_not_on_its_disk_is_never_asked_of_a_running_server(tmp_path: Path) -> None:
    """That would break it. A new one can fetch the weights, or say why it cannot."""
    log = tmp_path / "heard"
    with an_engine(command=standin("--heard", log, "--downloads", "mat")) as engine:
        done(engine, work_on(a_picture(), "cv2"))
        done(engine, work_on(a_picture(), "mat"))
        first, second = pids_of(log)
        assert not lives(first)
        assert lives(second)


def test_a_model_that_cannot_be_had_is_told_in_the_server_s_last_words_and_the_next_task_is_done(
    shared: IopaintEngine,
) -> None:
    with pytest.raises(EngineError) as failure:
        done(shared, work_on(a_picture(), "mat"))
    assert (failure.value.code, failure.value.error_class) == ("iopaint_not_started", ErrorClass.TRANSIENT)
    assert "it ended with exit code 1; its last words: mat not found" in str(failure.value)
    assert "no route to host" in str(failure.value)
    done(shared, work_on(a_picture()))


def test_a_switch_that_fails_ends_in_a_fresh_server_with_that_model(tmp_path: Path) -> None:
    log = tmp_path / "heard"
    with an_engine(command=standin("--heard", log, "--fails-to-load", "inverse")) as engine:
        done(engine, work_on(a_picture(), "cv2"))
        done(engine, work_on(a_picture(), "inverse"))
        assert len(pids_of(log)) == 2


def test_a_server_that_was_killed_between_two_tasks_is_started_again(tmp_path: Path) -> None:
    log = tmp_path / "heard"
    with an_engine(command=standin("--heard", log)) as engine:
        done(engine, work_on(a_picture()))
        kill_and_wait(pids_of(log)[0])
        done(engine, work_on(a_picture()))
        assert len(pids_of(log)) == 2


def test_a_server_that_is_gone_while_its_process_still_seems_to_live_is_started_again(tmp_path: Path) -> None:
    """As in the moment after a kill, when the kernel has closed its sockets and not yet told its parent."""
    log, script = tmp_path / "heard", tmp_path / "iopaint"
    script.write_text(f'#!/bin/sh\n{" ".join(standin("--heard", log))} "$@"\nexec sleep 1000\n')
    script.chmod(0o755)
    with an_engine(command=[str(script)]) as engine:
        done(engine, work_on(a_picture()))
        kill_and_wait(pids_of(log)[0])
        done(engine, work_on(a_picture()))
        assert len(pids_of(log)) == 2


def test_a_script_that_starts_the_server_is_ended_with_the_server(tmp_path: Path) -> None:
    log, script = tmp_path / "heard", tmp_path / "iopaint"
    script.write_text(f'#!/bin/sh\n{" ".join(standin("--heard", log))} "$@"\nexit 0\n')
    script.chmod(0o755)
    with an_engine(command=[str(script)]) as engine:
        done(engine, work_on(a_picture()))
        (pid,) = pids_of(log)
        engine.unload("inverse")
        wait_until_sync(lambda: not lives(pid), what="the end of the server")


def test_a_virtual_environment_is_enough_to_find_the_program(tmp_path: Path) -> None:
    (tmp_path / "bin").mkdir()
    (tmp_path / "bin" / "iopaint").write_text(f'#!/bin/sh\nexec {" ".join(standin())} "$@"\n')
    (tmp_path / "bin" / "iopaint").chmod(0o755)
    with an_engine(venv=tmp_path) as engine:
        assert "inverse" in engine.capabilities()
        done(engine, work_on(a_picture()))


def test_a_server_that_is_slow_to_start_is_waited_for_with_progress_and_can_be_cancelled(tmp_path: Path) -> None:
    told: list[str] = []

    def progress(fraction: float, stage: str) -> None:
        told.append(stage)
        if len(told) == 3:
            raise Cancelled

    with an_engine(command=standin("--begin-when", tmp_path / "go")) as engine:
        with pytest.raises(Cancelled):
            done(engine, work_on(a_picture(), progress=progress))
        assert told == ["start IOPaint with inverse"] * 3
        assert _standins_with(tmp_path) == []


def test_a_server_that_never_comes_is_given_up_after_start_s_and_ended(tmp_path: Path) -> None:
    with an_engine(command=standin("--begin-when", tmp_path / "never"), start_s=0.3) as engine:
        with pytest.raises(EngineError, match=r"not loaded model inverse in 0\.3 s \(iopaint\.start_s\)") as failure:
            done(engine, work_on(a_picture()))
        assert (failure.value.code, failure.value.error_class) == ("iopaint_slow", ErrorClass.TRANSIENT)
        assert _standins_with(tmp_path) == []


def _standins_with(folder: Path) -> list[int]:
    found = []
    for process in psutil.process_iter():
        try:
            arguments = process.cmdline()
        except psutil.Error:
            continue
        if str(STANDIN) in arguments and any(str(folder) in argument for argument in arguments):
            found.append(process.pid)
    return found


_A_RUNNER = """
import signal, sys
from tests.iopaint_neighbours import *
for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
    signal.signal(number, signal.SIG_IGN)  # as worker.runner does
with an_engine(command=standin(*sys.argv[1:])) as engine:
    done(engine, work_on(a_picture(), prompt="wait for /nowhere"))
"""


@pytest.mark.skipif(sys.platform != "linux", reason="the kernel ends it on Linux only")
@pytest.mark.parametrize("is_loading", [True, False])
def test_the_server_dies_with_a_runner_that_is_killed(tmp_path: Path, is_loading: bool) -> None:
    """Also while it loads: there it has no handler yet, and must not have inherited the runner's deafness."""
    switches = ("--begin-when", tmp_path / "never") if is_loading else ("--heard", tmp_path / "heard")
    runner = subprocess.Popen([sys.executable, "-c", _A_RUNNER, *map(str, switches)], cwd=ROOT)
    try:
        if is_loading:
            (server,) = wait_until_sync(lambda: _deaf_to_nothing(_standins_with(tmp_path)))
        else:
            wait_until_sync(lambda: any(line["call"] == "inpaint" for line in heard(tmp_path / "heard")))
            (server,) = pids_of(tmp_path / "heard")
    finally:
        runner.kill()
        runner.wait()
    wait_until_sync(lambda: not lives(server), what="the end of the server")


def _deaf_to_nothing(pids: list[int]) -> list[int]:
    """Those that have become the server: the leash before it still has the runner's ignored signals."""
    return [pid for pid in pids if psutil.Process(pid).cmdline()[1:2] == [str(STANDIN)]]


def test_a_real_runner_does_a_task_with_it_and_takes_it_along_when_it_stops(tmp_path: Path) -> None:
    log, picture = tmp_path / "heard", a_picture()
    cv2.imwrite(str(tmp_path / "in.png"), picture.pixels[..., ::-1])
    cv2.imwrite(str(tmp_path / "mask.png"), picture.mask.astype(np.uint8) * 255)
    task = Task(
        task_type=TaskType.INPAINT,
        image_path=str(tmp_path / "in.png"),
        mask_path=str(tmp_path / "mask.png"),
        output_path=str(tmp_path / "out.png"),
        config={"model": "inverse"},
    )
    settings = EngineSettings(iopaint=IopaintConfig(command=standin("--heard", log), models=["inverse"]))
    ours, its = socket.socketpair()
    with ours, its:
        command = [sys.executable, "-m", "worker.runner", "--fd", str(its.fileno()), "--parent", str(os.getpid())]
        runner = subprocess.Popen(command, pass_fds=[its.fileno()], start_new_session=True, cwd=ROOT)
        its.close()
        try:
            words = words_from(ours)
            ours.sendall(pack_word(Setup(settings=settings, self_test=True)))
            ready = next(words)
            assert isinstance(ready, Ready)
            assert ready.offers["inverse"].engine == "iopaint"
            assert heard(log) == []  # the self-test of a node must not start servers
            ours.sendall(pack_word(Run(task=task, attempt=1)))
            result = next(word for word in words if not isinstance(word, Progress))
            assert isinstance(result, Done), result
            (server,) = pids_of(log)
            assert os.getpgid(server) == runner.pid
            made = cv2.imread(result.staged)[..., ::-1]
            np.testing.assert_array_equal(made[picture.mask], 255 - picture.pixels[picture.mask])
            ours.sendall(pack_word(Stop()))
            runner.wait()
            wait_until_sync(lambda: not lives(server), what="the end of the server")
        finally:
            with suppress(ProcessLookupError):
                os.killpg(runner.pid, signal.SIGKILL)
            runner.wait()


# ---------------------------------------------------------------- what goes wrong


@pytest.mark.parametrize(
    ("prompt", "code", "error_class", "message"),
    [
        ("die", "iopaint_died", ErrorClass.CRASH, "it ended with exit code 3; its last words: "),
        ("die of memory", "iopaint_died", ErrorClass.CRASH, "ended by SIGKILL (by hand, or because memory ran out)"),
        ("hang up", "iopaint_died", ErrorClass.CRASH, "broke off while it worked"),
        ("out of memory", "out_of_memory", ErrorClass.RESOURCE, "OutOfMemoryError: CUDA out of memory. Tried to"),
        ("break", "engine_error", ErrorClass.CRASH, "TypeError: 'NoneType' object is not subscriptable"),
        ("wrong size", "output_shape", ErrorClass.BAD_OUTPUT, "a picture of 64 x 49 for one of 64 x 48"),
        ("garbage", "output_unreadable", ErrorClass.BAD_OUTPUT, "beginning b'<html>it works!<') is no whole PNG"),
        ("cut", "output_unreadable", ErrorClass.BAD_OUTPUT, "is no whole PNG"),
        ("jpeg", "output_unreadable", ErrorClass.BAD_OUTPUT, "is no whole PNG"),
    ],
)
def test_what_goes_wrong_has_its_class_and_the_server_s_words_and_the_next_task_is_done(
    shared: IopaintEngine, prompt: str, code: str, error_class: ErrorClass, message: str
) -> None:
    with pytest.raises(EngineError) as failure:
        done(shared, work_on(a_picture(), prompt=prompt))
    assert (failure.value.code, failure.value.error_class) == (code, error_class)
    assert message in str(failure.value)
    done(shared, work_on(a_picture()))


def test_what_died_says_what_it_printed_last(shared: IopaintEngine) -> None:
    with pytest.raises(EngineError, match="RuntimeError: the neighbour is not well"):
        done(shared, work_on(a_picture(), prompt="die"))


def test_a_cancel_is_heard_while_it_works_and_the_busy_server_gets_no_other_picture(tmp_path: Path) -> None:
    log = tmp_path / "heard"

    def progress(fraction: float, stage: str) -> None:
        if any(line["call"] == "inpaint" for line in heard(log)):
            assert stage == "inpaint with inverse"
            raise Cancelled

    with an_engine(command=standin("--heard", log)) as engine:
        with pytest.raises(Cancelled):
            done(engine, work_on(a_picture(), progress=progress, prompt="wait for /nowhere"))
        assert not lives(pids_of(log)[0])
        done(engine, work_on(a_picture()))
        assert len(pids_of(log)) == 2


def test_a_png_whose_inside_is_damaged_is_no_answer() -> None:
    picture = a_picture((8, 8, 3))
    is_coded, data = cv2.imencode(".png", picture.pixels)
    assert is_coded
    damaged = bytearray(data.tobytes())
    damaged[45:60] = bytes(15)
    with pytest.raises(EngineError) as failure:
        filled(picture, bytes(damaged))
    assert failure.value.error_class is ErrorClass.BAD_OUTPUT


# ---------------------------------------------------------------- a server of somebody else's


class Elsewhere:
    """A stand-in that somebody else has started."""

    def __init__(self, log: Path) -> None:
        self.log = log
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            port = probe.getsockname()[1]
        self.url = f"http://127.0.0.1:{port}"
        command = [*standin("--heard", log), "start", "--model", "cv2", "--device", "cpu", "--port", str(port)]
        self.process = subprocess.Popen(command, stdout=subprocess.DEVNULL)
        wait_until_sync(lambda: pids_of(log), what="the server")

    def calls(self, call: str) -> int:
        return sum(line["call"] == call for line in heard(self.log))


@pytest.fixture
def elsewhere(tmp_path: Path) -> Iterator[Elsewhere]:
    server = Elsewhere(tmp_path / "heard")
    yield server
    server.process.kill()
    server.process.wait()


def test_a_server_at_a_url_is_switched_and_used_and_never_ended(elsewhere: Elsewhere) -> None:
    with an_engine(url=elsewhere.url) as engine:
        picture = a_picture()
        result = done(engine, work_on(picture))
        np.testing.assert_array_equal(result[picture.mask], 255 - picture.pixels[picture.mask])
        with pytest.raises(EngineError, match=r"has no model 'mat', only cv2, grey, inverse") as failure:
            done(engine, work_on(picture, "mat"))
        assert (failure.value.code, failure.value.error_class) == ("model_not_here", ErrorClass.TRANSIENT)
        done(engine, work_on(picture))
        assert engine.held_mib() == 0
    assert elsewhere.process.poll() is None


def test_a_server_at_a_url_that_another_user_broke_is_put_right_by_the_next_task(elsewhere: Elsewhere) -> None:
    import httpx

    with httpx.Client(base_url=elsewhere.url) as somebody:
        assert somebody.post("/api/v1/model", json={"name": "no-such"}).status_code == 500
        assert somebody.get("/api/v1/model").status_code == 500
        with an_engine(url=elsewhere.url) as engine:
            done(engine, work_on(a_picture(), "inverse"))
        assert somebody.get("/api/v1/model").json()["name"] == "inverse"


def test_runners_of_one_host_use_a_server_at_a_url_one_at_a_time(elsewhere: Elsewhere, tmp_path: Path) -> None:
    stages: list[str] = []
    with an_engine(url=elsewhere.url) as first, an_engine(url=f"{elsewhere.url}/") as second:
        wait = f"wait for {tmp_path / 'go'}"
        one = threading.Thread(target=done, args=(first, work_on(a_picture(), prompt=wait)))
        one.start()
        wait_until_sync(lambda: elsewhere.calls("inpaint") == 1)
        other_work = work_on(a_picture(), progress=lambda fraction, stage: stages.append(stage))
        other = threading.Thread(target=done, args=(second, other_work))
        other.start()
        wait_until_sync(lambda: stages.count(f"wait for {elsewhere.url}") >= 3)
        assert elsewhere.calls("inpaint") == 1
        (tmp_path / "go").touch()
        one.join()
        other.join()
    order = [line["call"] for line in heard(elsewhere.log)]
    assert order == ["start", "inpaint", "done", "inpaint", "done"]


def test_a_busy_server_at_a_url_is_waited_for_after_a_cancel_and_given_up_after_start_s(
    elsewhere: Elsewhere, tmp_path: Path
) -> None:
    def progress(fraction: float, stage: str) -> None:
        if elsewhere.calls("inpaint"):
            raise Cancelled

    with an_engine(url=elsewhere.url, start_s=0.3) as engine:
        with pytest.raises(Cancelled):
            done(engine, work_on(a_picture(), progress=progress, prompt=f"wait for {tmp_path / 'go'}"))
        with pytest.raises(EngineError, match=r"was busy with other tasks of this host for 0\.3 s") as failure:
            done(engine, work_on(a_picture()))
        assert (failure.value.code, failure.value.error_class) == ("iopaint_busy", ErrorClass.TRANSIENT)
        assert elsewhere.calls("inpaint") == 1
        (tmp_path / "go").touch()
        wait_until_sync(lambda: elsewhere.calls("done") == 1)
        wait_until_sync(lambda: _is_done(engine), what="a task after that")


def _is_done(engine: IopaintEngine) -> bool:
    try:
        done(engine, work_on(a_picture()))
    except EngineError as error:
        if error.code != "iopaint_busy":
            raise
        return False
    return True


def test_a_url_where_nothing_answers_is_tried_again_later() -> None:
    with socket.socket() as taken:  # bound, but nobody listens
        taken.bind(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{taken.getsockname()[1]}"
        with an_engine(url=url) as engine, pytest.raises(EngineError, match=f"no IOPaint answers at {url}") as failure:
            done(engine, work_on(a_picture()))
    assert (failure.value.code, failure.value.error_class) == ("iopaint_unreachable", ErrorClass.TRANSIENT)


def test_a_server_at_a_url_that_dies_while_it_works_is_a_crash(elsewhere: Elsewhere) -> None:
    with an_engine(url=elsewhere.url) as engine, pytest.raises(EngineError, match="broke off while") as failure:
        done(engine, work_on(a_picture(), prompt="die"))
    assert (failure.value.code, failure.value.error_class) == ("iopaint_died", ErrorClass.CRASH)


def test_a_url_of_another_kind_of_server_is_named_as_such(elsewhere: Elsewhere) -> None:
    with an_engine(url=f"{elsewhere.url}/nowhere") as engine:
        with pytest.raises(EngineError, match=r"no IOPaint 1\.x server: it answered 404") as failure:
            done(engine, work_on(a_picture()))
        assert (failure.value.code, failure.value.error_class) == ("iopaint_unreachable", ErrorClass.TRANSIENT)
