"""lcq models: its words, its bars and its exit codes, with real files, servers and processes."""

from __future__ import annotations

import hashlib
import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from lcq.cli import found
from lcq.cli.main import app
from lcq.config import DEFAULT_SOURCES
from tests.conftest import wait_until_sync
from tests.file_server import FileServer, file_server
from tests.logs import logging_kept
from tests.weight_files import checkpoint, generator_arrays

ROOT = Path(__file__).parents[2]


@pytest.fixture(autouse=True)
def _alone(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[None]:
    monkeypatch.setenv("NO_PROXY", "*")
    monkeypatch.setenv("LCQ_MODELS__FOLDER", str(tmp_path / "models"))
    monkeypatch.chdir(tmp_path)
    with logging_kept():
        yield


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return checkpoint(tmp_path / "best.ckpt", generator_arrays("generator."))


@pytest.fixture
def server(file: Path) -> Iterator[FileServer]:
    with file_server(file.read_bytes()) as serving:
        yield serving


class Answer:
    """What ``lcq models`` said and did."""

    def __init__(self, *arguments: str | Path, **environment: str) -> None:
        words = ["models", *(str(argument) for argument in arguments)]
        result = CliRunner().invoke(app, words, env={"NO_COLOR": "1", "COLUMNS": "300"} | environment)
        if result.exception is not None and not isinstance(result.exception, SystemExit):
            raise result.exception
        self.code, self.out, self.talk = result.exit_code, result.stdout, result.stderr

    @property
    def models(self) -> dict[str, dict[str, Any]]:
        return {model["name"]: model for model in json.loads(self.out)["models"]}


def settings(file: Path, *urls: str) -> None:
    """Write a settings file here that knows the model "small", which is ``file``."""
    digest = hashlib.sha256(file.read_bytes()).hexdigest()
    source = {"urls": urls, "sha256": digest}
    Path("lcq.yaml").write_text(json.dumps({"models": {"sources": {"small": source}}}), encoding="utf-8")


def test_the_help_lists_the_commands_and_each_has_an_example() -> None:
    shown = Answer("--help")
    assert shown.code == 0
    for command in ("list", "pull", "add", "verify", "rm"):
        assert f" {command} " in shown.out
        own = Answer(command, "--help")
        assert (own.code, f"lcq models {command}" in own.out) == (0, True)


def test_no_arguments_show_the_help_and_a_wrong_one_is_told() -> None:
    nothing = Answer()
    assert "Usage: lcq models" in nothing.out + nothing.talk
    wrong = Answer("pul")
    assert wrong.code == 2
    assert "no such command 'pul'" in wrong.talk.lower()


def test_the_list_shows_known_models_that_are_not_here_with_their_address_and_sum() -> None:
    shown = Answer("list")
    assert shown.code == 0
    (line,) = (line for line in shown.out.splitlines() if line.startswith("lama"))
    assert "not installed" in line
    assert DEFAULT_SOURCES["lama"].urls[0] in line
    assert f"sha256:{DEFAULT_SOURCES['lama'].sha256}" in line
    models = Answer("list", "--json").models
    assert {name: model["state"] for name, model in models.items()} == {"lama": "absent", "anime-lama": "absent"}
    assert models["anime-lama"]["source"]["md5"] == DEFAULT_SOURCES["anime-lama"].md5
    assert models["lama"]["installed"] is None


def test_a_file_is_added_listed_verified_and_removed(file: Path) -> None:
    settings(file)
    added = Answer("add", file)
    assert (added.code, added.talk) == (0, "")
    assert added.out == f"installed: small (LaMa, 2 channels, 1 blocks, 0.0 MiB), from {file}\n"
    model = Answer("list", "--json").models["small"]
    assert (model["state"], model["installed"]["bytes"]) == ("installed", file.stat().st_size)
    verified = Answer("verify")
    assert (verified.code, verified.talk) == (0, "")
    assert "installed" in verified.out
    assert set(Answer("verify", "small", "--json").models) == {"small"}
    removed = Answer("rm", "small")
    assert (removed.code, removed.out) == (0, "removed: small\n")
    again = Answer("rm", "small")
    assert (again.code, again.out) == (2, "")
    assert "error: no weights for 'small' here" in again.talk
    assert "hint: lcq models pull small, or lcq models add FILE --name small" in again.talk


def test_damage_is_told_with_what_to_do_and_exit_code_1(file: Path, tmp_path: Path) -> None:
    settings(file)
    Answer("add", file)
    weights = tmp_path / "models" / "small" / "weights.safetensors"
    weights.write_bytes(bytes(weights.stat().st_size))
    found = Answer("verify")
    assert found.code == 1
    assert "damaged" in found.out
    assert "not those that were written" in found.out
    assert "to replace small: lcq models rm small, then lcq models pull small" in found.talk
    answered = Answer("verify", "--json")
    assert (answered.code, answered.models["small"]["state"]) == (1, "damaged")


def test_a_file_that_is_not_allowed_is_refused_with_exit_code_2_and_may_then_be_allowed(file: Path) -> None:
    digest = hashlib.sha256(file.read_bytes()).hexdigest()
    refused = Answer("add", file, "--name", "lama")
    assert (refused.code, refused.out) == (2, "")
    assert digest in refused.talk
    assert "hint: if you trust it, add its SHA-256 to models.allow" in refused.talk
    assert Answer("add", file, "--name", "lama", LCQ_MODELS__ALLOW=json.dumps([digest])).code == 0


def test_a_hostile_file_is_refused_by_the_name_of_what_it_asks_for(tmp_path: Path) -> None:
    steps = b"X\x05\x00\x00\x00epochcposix\nsystem\n(X\x08\x00\x00\x00touch ittR"
    evil = checkpoint(tmp_path / "evil.ckpt", generator_arrays(), extra=steps)
    refused = Answer("add", evil, "--name", "lama", LCQ_MODELS__ALLOW='["any"]')
    assert refused.code == 2
    assert "it asks for 'posix.system', which weights do not need; nothing of it was run" in refused.talk
    assert not Path("it").exists()


def test_a_model_is_pulled_with_a_bar_on_a_terminal_and_in_silence_elsewhere(file: Path, server: FileServer) -> None:
    settings(file, server.url)
    pulled = Answer("pull", "small", FORCE_COLOR="1", TERM="xterm", NO_COLOR="")
    assert pulled.code == 0
    for stage in ("downloading", "checking", "converting"):
        assert stage in pulled.talk
    assert "KiB" in pulled.talk
    assert pulled.out.startswith("installed: small")
    Answer("rm", "small")
    quiet = Answer("pull", "small", "--json")
    assert (quiet.code, quiet.talk) == (0, "")
    assert json.loads(quiet.out)["origin"] == server.url


def test_without_a_network_pull_says_what_was_tried_and_what_to_do(file: Path) -> None:
    settings(file, "http://127.0.0.1:1/big-lama.pt")
    failed = Answer("pull", "small")
    assert (failed.code, failed.out) == (2, "")
    assert "error: cannot download small: http://127.0.0.1:1/big-lama.pt cannot be reached" in failed.talk
    assert "download the file on another machine, then 'lcq models add FILE --name small'" in failed.talk


def test_a_program_installed_without_its_other_half_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("lcq.cli.found.entry_points", lambda **_: ())
    found._group.cache_clear()  # of a test before
    told = Answer("list")
    assert (told.code, told.out) == (2, "")
    assert "error: the commands of 'lcq models' are not installed" in told.talk
    assert "hint: install LCQ anew" in told.talk


def test_the_commands_are_loaded_only_when_they_are_asked_for() -> None:
    script = "import sys; from lcq.cli.main import app; assert 'worker.weights' not in sys.modules"
    subprocess.run([sys.executable, "-c", script], check=True, cwd=ROOT)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGKILL])
def test_a_download_that_is_interrupted_goes_on_the_next_time(
    file: Path, server: FileServer, tmp_path: Path, number: signal.Signals
) -> None:
    settings(file, server.url)
    server.stalls_after = 5000
    words = [sys.executable, "-m", "lcq.cli.main", "models", "pull", "small"]
    pulling = subprocess.Popen(words, stderr=subprocess.PIPE, text=True, env=os.environ | {"PYTHONPATH": str(ROOT)})
    folder = tmp_path / "models" / ".downloads" / "small"

    def has_come() -> bool:
        assert pulling.poll() is None
        return sum(part.stat().st_size for part in folder.glob("*.part")) == 5000

    wait_until_sync(has_come)
    pulling.send_signal(number)
    _, talk = pulling.communicate(timeout=120)
    if number == signal.SIGINT:
        assert pulling.returncode == 130
        assert "what has come is kept: 'lcq models pull small' goes on from there" in talk
        assert "Traceback" not in talk
    assert Answer("list", "--json").models["small"]["state"] == "partial"
    server.stalls_after = None
    assert Answer("pull", "small").code == 0
    assert server.asked == ["all", "bytes=5000-"]
