"""The Containerfile and the compose file: what they name is there, and their command lines are ones of our programs."""

from __future__ import annotations

import asyncio
import contextlib
import io
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from dockerfile_parse import DockerfileParser

from lcq import __version__
from lcq.config import DistributedConfig, load
from lcq.doctor.findings import Level
from lcq.doctor.redis import judged
from lcq.embedded import find_server
from lcq.errors import StateUnavailable
from lcq.leash import leashed
from lcq.scheduler import Scheduler
from lcq.state.checkup import look_at
from tests.cluster import free_port
from tests.command_lines import complaint, ours_in
from tests.conftest import wait_until
from worker.agent import _LEAVE_S

ROOT = Path(__file__).parents[2]
COMPOSE = ROOT / "sample-config" / "compose"
KNOWN_TO_COMPOSE = {
    "build", "image", "entrypoint", "command", "environment", "configs", "secrets", "volumes", "depends_on",
    "restart", "healthcheck", "stop_grace_period", "read_only", "tmpfs", "cap_drop", "security_opt", "sysctls",
    "profiles", "deploy",
}  # fmt: skip


FUNCTIONS = ROOT / "sample-config" / "functions"


def stages(file: Path = ROOT / "Containerfile") -> dict[str, list[tuple[str, str]]]:
    """The instructions of each stage, each as its name and its value."""
    found: dict[str, list[tuple[str, str]]] = {}
    for one in DockerfileParser(fileobj=io.BytesIO(file.read_bytes())).structure:
        if one["instruction"] == "FROM":
            found[one["value"].rpartition(" AS ")[2]] = []
        if one["instruction"] != "COMMENT":
            list(found.values())[-1].append((one["instruction"], one["value"]))
    return found


STAGES = stages()
IMAGES = ("scheduler", "agent")


def of_image(name: str) -> list[tuple[str, str]]:
    """All instructions that an image is made by, those of the stages that it stands on first."""
    own = STAGES[name]
    base = own[0][1].partition(" ")[0]
    return [*(of_image(base) if base in STAGES else []), *own]


def last(name: str, instruction: str) -> str:
    return next(value for key, value in reversed(of_image(name)) if key == instruction)


def copied_by(stages: dict[str, list[tuple[str, str]]]) -> list[str]:
    """What comes out of the sources."""
    words = [value.split()[:-1] for stage in stages.values() for key, value in stage if key == "COPY"]
    return [word.removeprefix("./") for one in words if not one[0].startswith("--from=") for word in one]


def test_what_is_copied_into_the_image_is_there_and_is_all_that_a_package_of_ours_needs() -> None:
    copied = copied_by(STAGES)
    assert [name for name in copied if not (ROOT / name).exists()] == []
    assert {"lcq", "worker", "tui", "pyproject.toml", "constraints.txt", "README.md", "LICENSE"} <= set(copied)
    ignore = (ROOT / ".containerignore").read_text()
    assert ignore == (ROOT / ".dockerignore").read_text()  # each engine reads its own
    let_in = {line[1:] for line in ignore.splitlines() if line.startswith("!")}
    assert let_in == {*copied, *copied_by(stages(FUNCTIONS / "Containerfile"))}


@pytest.mark.parametrize("name", IMAGES)
def test_an_image_runs_one_of_our_programs_under_an_init_that_hands_on_its_signal(name: str) -> None:
    entry = json.loads(last(name, "ENTRYPOINT"))  # a shell between would keep SIGTERM to itself
    command = json.loads(last(name, "CMD")) if name == "scheduler" else []
    assert entry[:2] == ["tini", "--"]
    assert complaint([*entry[2:], *command]) == ""
    assert last(name, "STOPSIGNAL") == "SIGTERM"


@pytest.mark.parametrize("name", IMAGES)
def test_an_image_does_not_run_as_root_tells_how_it_is_and_has_no_secret(name: str) -> None:
    user = last(name, "USER")
    assert user.split(":") == ["10001", "10001"]  # as in the manifests of sample-config/kubernetes
    test = json.loads(last(name, "HEALTHCHECK").partition("CMD")[2])
    assert test[0] in ("python", "lcq-agent")
    if test[0] == "lcq-agent":
        assert complaint(test) == ""
    else:
        compile(test[2], "HEALTHCHECK", "exec")
    instructions = of_image(name)
    assert "ADD" not in {key for key, _ in instructions}
    told = " ".join(value for key, value in instructions if key in ("ENV", "ARG", "LABEL")).upper()
    assert not any(word in told for word in ("PASSWORD", "TOKEN", "SECRET"))


def test_what_is_installed_is_pinned_and_leaves_nothing_behind() -> None:
    for stage in STAGES.values():
        for key, value in stage:
            if key == "FROM":
                image = value.partition(" ")[0]
                assert image in STAGES or ("." in image.rpartition(":")[2] and "latest" not in image), value
            if "pip install" in value:
                assert "--constraint constraints.txt" in value
            if "apt-get install" in value:
                assert "--no-install-recommends" in value
                assert "rm -rf /var/lib/apt/lists/*" in value


def test_the_ports_that_are_told_are_those_of_the_settings() -> None:
    config = DistributedConfig()
    ports = {config.zeromq.control_port, config.scheduler_port}
    ports |= {config.zeromq.base_port + queue.port_offset for queue in config.queues}
    assert {int(port) for port in last("scheduler", "EXPOSE").split()} == ports


@pytest.mark.parametrize("name", ["http", "lambda", "runpod"])
def test_a_functions_image_starts_what_its_platform_starts_with_a_handler_that_is_there(name: str) -> None:
    built = stages(FUNCTIONS / "Containerfile")
    assert [one for one in copied_by(built) if not (ROOT / one).exists()] == []
    image = dict((*built["base"], *built[name]))
    assert image["USER"] == "10001:10001"
    command = [word for key in ("ENTRYPOINT", "CMD") for word in json.loads(image.get(key, "[]"))]
    started = {  # as the tests' own servers do
        "http": ["functions-framework", "--target", "clean", "--source", "/functions/http/main.py"],
        "lambda": ["python", "-m", "awslambdaric", "app.handler"],
        "runpod": ["python", "-u", "/functions/runpod/handler.py"],
    }
    assert command == started[name]
    for one in (word for word in command if word.startswith("/functions/")):
        assert (FUNCTIONS / one.removeprefix("/functions/")).is_file()
    ours = (value for key, value in built[f"built-{name}"] if key == "RUN")
    pins = {"runpod": "constraints-runpod.txt"}.get(name, "constraints.txt")
    assert all(f"--constraint {pins} " in value for value in ours)
    froms = [value for stage in built.values() for key, value in stage if key == "COPY" and value.startswith("--from=")]
    assert all(value.split()[0].removeprefix("--from=") in built for value in froms)


def test_azures_image_has_the_handler_where_its_host_looks_for_it() -> None:
    image = stages(FUNCTIONS / "Containerfile")["azure"]
    told = " ".join(value for key, value in image if key == "ENV")
    assert "AzureWebJobsScriptRoot=/home/site/wwwroot" in told
    assert "FUNCTIONS_WORKER_RUNTIME=custom" in told
    assert ("COPY", "--from=built /functions/azure /home/site/wwwroot") in image


@pytest.mark.skipif(shutil.which("hadolint") is None, reason="there is no hadolint here")
def test_hadolint_finds_nothing() -> None:
    ignored = [word for rule in ("DL3008", "DL3013") for word in ("--ignore", rule)]  # versions: constraints.txt
    ran = subprocess.run(
        ["hadolint", *ignored, str(ROOT / "Containerfile")], capture_output=True, text=True, check=False
    )
    assert ran.stdout == ""


@pytest.mark.skipif(shutil.which("shellcheck") is None, reason="there is no shellcheck here")
@pytest.mark.parametrize("script", sorted(COMPOSE.glob("*.sh")), ids=lambda script: script.name)
def test_shellcheck_finds_nothing(script: Path) -> None:
    ran = subprocess.run(["shellcheck", str(script)], capture_output=True, text=True, check=False)
    assert ran.stdout == ""


def engine() -> str:
    """An engine that works here; "" if there is none."""
    for name in ("podman", "docker"):
        if shutil.which(name) and subprocess.run([name, "info"], capture_output=True, check=False).returncode == 0:
            return name
    return ""


@pytest.mark.chaos
@pytest.mark.timeout(1800)
@pytest.mark.parametrize("name", IMAGES)
def test_an_image_is_built_and_tells_its_version_where_there_is_an_engine(name: str) -> None:
    program = engine()
    if not program:
        pytest.skip("there is no container engine here")
    built = [program, "build", "-f", "Containerfile", "--target", name, "-t", f"lcq-test-{name}", "."]
    subprocess.run(built, cwd=ROOT, check=True)
    ran = subprocess.run(
        [program, "run", "--rm", f"lcq-test-{name}", "--help"], capture_output=True, text=True, check=False
    )
    assert ran.returncode == 0, ran.stderr


# ---------------------------------------------------------------- compose


@pytest.fixture(scope="module")
def compose() -> dict[str, Any]:
    with (COMPOSE / "compose.yaml").open() as file:
        found: dict[str, Any] = yaml.safe_load(file)
    return found


def test_every_part_that_a_service_names_is_there(compose: dict[str, Any]) -> None:
    for name, service in compose["services"].items():
        assert set(service) <= KNOWN_TO_COMPOSE, name
        for volume in service.get("volumes", ()):
            assert volume.partition(":")[0] in compose["volumes"], volume
        for kind in ("configs", "secrets"):
            for one in service.get(kind, ()):
                assert (one if isinstance(one, str) else one["source"]) in compose[kind], one
        assert set(service.get("depends_on", {})) <= set(compose["services"])
        if "build" in service:
            build = service["build"]
            assert build["target"] in STAGES
            assert (COMPOSE / build["context"] / build["dockerfile"]).resolve() == ROOT / "Containerfile"
            declared = {value.partition("=")[0] for stage in STAGES.values() for key, value in stage if key == "ARG"}
            assert set(build.get("args", {})) <= declared
        else:
            assert ":" in service["image"].rpartition("/")[2], "an image of others is pinned"
    for one in compose["configs"].values():
        assert (COMPOSE / one["file"]).is_file()


def test_its_commands_and_settings_are_ours(compose: dict[str, Any], monkeypatch: pytest.MonkeyPatch) -> None:
    for name, service in compose["services"].items():
        if name != "valkey":
            target = service["build"]["target"]
            entry = json.loads(last(target, "ENTRYPOINT"))[2:]
            command = service["command"] if "command" in service else json.loads(last(target, "CMD"))
            lines = [[*entry, *command]]
            if "entrypoint" in service:
                assert service["entrypoint"][:3] == ["tini", "--", "sh"]
                (script,) = [one for one in service["configs"] if one["target"] == service["entrypoint"][3]]
                text = (COMPOSE / compose["configs"][script["source"]]["file"]).read_text()
                assert '"$@"' in text
                lines = ours_in(text.replace('"$@"', " ".join(command)))
            assert lines
            assert [complaint(words) for words in lines if complaint(words)] == [], name
    for name in [name for name in os.environ if name.startswith("LCQ_")]:
        monkeypatch.delenv(name)
    config = load(COMPOSE / "settings.yaml")
    mounted = {volume.split(":")[1] for volume in compose["services"]["agent"]["volumes"]}
    assert {str(root) for root in config.storage.roots} | {config.storage.url.removeprefix("file://")} <= mounted
    (address,) = [word for word in compose["services"]["agent"]["command"] if ":" in word]
    assert address == f"{config.scheduler_host}:{config.zeromq.control_port}"
    assert config.scheduler_host in compose["services"]
    grace_s = int(compose["services"]["agent"]["stop_grace_period"].removesuffix("s"))
    assert grace_s > config.agent.drain_s + _LEAVE_S


def test_who_is_not_known_by_a_key_gets_in_nowhere_and_no_agent_sees_the_operators(compose: dict[str, Any]) -> None:
    assert not load(COMPOSE / "settings.yaml").zeromq.trusted_network
    services = compose["services"]
    with_keys = {name for name, one in services.items() if any(v.startswith("keys:") for v in one.get("volumes", ()))}
    assert with_keys == {"keys", "scheduler", "door"}
    for name in with_keys:
        told = services[name]["environment"]
        assert {told["LCQ_ZEROMQ__SERVER_KEY_FILE"], told["LCQ_ZEROMQ__KEY_FILE"]} == {
            "/keys/server.json",
            "/keys/client.json",
        }
        assert "keys:/keys" + ("" if name == "keys" else ":ro") in services[name]["volumes"]
    assert services["scheduler"]["depends_on"]["keys"] == {"condition": "service_completed_successfully"}
    made = " ".join(value for key, value in of_image("agent") if key == "RUN")
    assert "-m 0700 /var/lib/lcq /keys /tokens" in made  # else a fresh volume is root's
    assert "/var/lib/lcq" in last("agent", "VOLUME")
    assert not any("/var/lib/lcq" in one for one in services["agent"]["tmpfs"])  # its key would go with it


async def test_its_keys_and_invitations_let_an_agent_in_once(
    compose: dict[str, Any], redis_url: str, tmp_path: Path
) -> None:
    """The scripts as they are, but for their folders, against a scheduler that asks for keys."""
    for name in ("keys", "tokens"):
        (tmp_path / name).mkdir(mode=0o700)
    settings = {
        "data_dir": str(tmp_path / "head"), "discovery": {"enabled": False}, "http": {"enabled": False},
        "zeromq": {
            "bind": "0.0.0.0", "base_port": 0, "control_port": 0, "curve": "always",
            "server_key_file": str(tmp_path / "keys" / "server.json"), "key_file": str(tmp_path / "keys/client.json"),
        },
    }  # fmt: skip
    (tmp_path / "lcq.yaml").write_text(json.dumps(settings))
    programs = str(Path(sys.executable).parent)
    shell = {"PATH": f"{programs}:{os.environ['PATH']}", "HOME": str(tmp_path), "SPARE": "1"}
    head = shell | {"LCQ_CONFIG": str(tmp_path / "lcq.yaml")}
    made = await asyncio.create_subprocess_exec(f"{programs}/lcq", *compose["services"]["keys"]["command"], env=head)
    assert await asyncio.wait_for(made.wait(), 120) == 0
    scripts = {}
    for name in ("door.sh", "agent.sh"):
        text = (COMPOSE / name).read_text()
        scripts[name] = text.replace("/tokens", str(tmp_path / "tokens")).replace("sleep 1\n", "sleep 0.1\n")
    async with Scheduler(DistributedConfig.model_validate(settings), redis_url=redis_url) as scheduler:
        place = f"127.0.0.1:{scheduler.control_endpoint.rpartition(':')[2]}"
        invites = ["-c", scripts["door.sh"], "door", "--address", place]
        door = await asyncio.create_subprocess_exec(
            "sh", *invites, env=head | {"LCQ_SCHEDULERS": place, "LCQ_ZEROMQ__CONTROL_PORT": place.partition(":")[2]}
        )
        begins = ["-c", scripts["agent.sh"], "agent", "--version"]  # instead of its work
        data = tmp_path / "node"
        agent = await asyncio.create_subprocess_exec(
            "sh", *begins, env=shell | {"LCQ_DATA_DIR": str(data)}, stdout=asyncio.subprocess.PIPE
        )
        try:
            told, _ = await asyncio.wait_for(agent.communicate(), 120)
        finally:
            door.terminate()
            await door.wait()
        assert agent.returncode == 0
        assert __version__ in told.decode()
        keys = await scheduler.state.reader.access.records()
    assert sorted(one.role for one in keys if not one.is_invitation) == ["agent", "operator"]
    (taken,) = [one for one in keys if one.used_by]
    (own,) = data.glob("keys/node-*.json")
    assert taken.used_by == json.loads(own.read_text())["public"]
    assert not list((tmp_path / "tokens").glob("*.token.*"))


async def test_its_secrets_are_files_and_its_valkey_keeps_what_it_accepts_and_lets_in_who_has_them(
    compose: dict[str, Any], tmp_path: Path
) -> None:
    make_secrets(tmp_path)
    made = {f"secrets/{file.name}" for file in (tmp_path / "secrets").iterdir()}
    assert made == {one["file"] for one in compose["secrets"].values()}
    assert (tmp_path / "secrets").stat().st_mode & 0o077 == 0
    with running(compose["services"]["valkey"]["command"], tmp_path) as port:
        config = load(tmp_path / "secrets" / "scheduler.yaml")
        assert config.redis.url is not None
        url = config.redis.url.replace("valkey:6379", f"127.0.0.1:{port}")
        facts = await wait_until(lambda: answered(url), what="Valkey to answer")
        assert [one.as_dict() for one in judged(facts, url) if one.level > Level.OK] == []
        with pytest.raises(StateUnavailable):
            await look_at(f"redis://127.0.0.1:{port}/0")  # without the password


def make_secrets(folder: Path) -> None:
    shutil.copy(COMPOSE / "secrets.sh", folder)
    subprocess.run([str(folder / "secrets.sh")], check=True, capture_output=True)


async def answered(url: str) -> Any:
    with contextlib.suppress(StateUnavailable):
        return await asyncio.wait_for(look_at(url), 60)


@contextlib.contextmanager
def running(command: list[str], folder: Path) -> Iterator[int]:
    """The server of the compose file, on another port and folder; the port."""
    port = free_port()
    own = [word.replace("/run/secrets", str(folder / "secrets")) for word in command[1:]]
    own += ["--port", str(port), "--bind", "127.0.0.1", "--dir", str(folder), "--logfile", str(folder / "server.log")]
    process = subprocess.Popen(leashed([str(find_server()), *own]), stdin=subprocess.DEVNULL)
    try:
        yield port
    finally:
        process.terminate()
        process.wait(60)
