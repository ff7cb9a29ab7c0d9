"""Secrets in every setting that has one, and a cluster's life: none of them is in anything that was written or told."""

from __future__ import annotations

import base64
import contextlib
import hashlib
import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import quote

import httpx
import numpy as np
import psutil
import pytest
import redis
from PIL import Image

from lcq.config import DistributedConfig
from lcq.settings.keys import keys_of
from tests.cluster import free_port, running_cluster
from tests.conftest import wait_until_sync
from tests.redis_rig import running_server

REDIS, TOKEN, SHOWN, DISCOVERY, S3, STUDIO, CLOUD, PROXY, HOOK, SIGN, BEARER = (
    f"S3CR3T-{what}-{number * 7919}"
    for number, what in enumerate(
        ["redis", "token", "shown", "mdns", "s3", "studio", "cloud", "proxy", "hook", "sign", "bearer"], 11
    )
)
EVERY = (REDIS, TOKEN, SHOWN, DISCOVERY, S3, STUDIO, CLOUD, PROXY, HOOK, SIGN, BEARER)
WRONG = "S3CR3T-wrong-4711"

ASKED = (
    "config show", "config show --origin", "config show redis", "config validate", "config diff", "config schema",
    "version", "nodes", "node {node}", "queues", "tasks", "task {task}", "why {task}", "log {task}",
    "log --node {node}", "events",
    "acts", "causes", "dead", "jobs", "doctor", "autoscale", "report", "spend", "alerts list", "alerts test ops",
    "models list", "console --once",
)  # fmt: skip


def test_every_setting_that_is_marked_as_a_secret_is_planted_below() -> None:
    secret = {key.name for key in keys_of(DistributedConfig) if key.is_secret}
    receivers = {f"alerting.receivers.*.{name}" for name in ("url", "secret", "bearer")}
    assert secret == {"discovery.key", "storage.options", "storage.token"} | receivers, (
        "a setting is a secret that test_secrets.py does not plant: add it to planted(), then here"
    )


def planted(http_port: int) -> dict[str, str]:
    digest = hashlib.sha256(SHOWN.encode()).hexdigest()
    return {
        "LCQ_STORAGE__TOKEN": TOKEN,
        "LCQ_DISCOVERY__KEY": DISCOVERY,
        "LCQ_STORAGE__OPTIONS": json.dumps({"s3": {"key": "AKIA", "secret": S3}}),
        "LCQ_CONTEXTS": json.dumps({"studio": {"redis": {"url": f"redis://lcq:{STUDIO}@127.0.0.1:1/0"}}}),
        "LCQ_ALERTING__RECEIVERS": json.dumps(
            {
                "ops": {"url": f"http://127.0.0.1:9/{HOOK}", "secret": SIGN},
                "pager": {"url": "http://127.0.0.1:9/", "bearer": BEARER},
            }
        ),
        "LCQ_HTTP__ENABLED": "1",
        "LCQ_HTTP__TOKENS": json.dumps({"ann": {"role": "operator", "sha256": digest}}),
        "LCQ_SCHEDULER_PORT": str(http_port),
        "AWS_SECRET_ACCESS_KEY": CLOUD,
        "HTTPS_PROXY": f"http://me:{PROXY}@127.0.0.1:1",
    }


def forms(secret: str) -> Iterator[bytes]:
    """As it is, and as it may be hidden in something else."""
    plain = secret.encode()
    yield plain
    yield quote(secret, safe="").encode()
    for shift in range(3):
        yield base64.b64encode(b"x" * shift + plain)[4 if shift else 0 : -4]


def found_in(what: bytes, *, also: tuple[str, ...] = ()) -> list[str]:
    return [secret for secret in (*EVERY, *also) if any(form in what for form in forms(secret))]


def cli(arguments: str, environment: dict[str, str], config: Path) -> bytes:
    command = [sys.executable, "-m", "lcq.cli.main", "--config", str(config), "--patience", "60", *arguments.split()]
    run = subprocess.run(
        command, capture_output=True, env=environment, check=False, timeout=280, stdin=subprocess.DEVNULL
    )
    return run.stdout + run.stderr


def picture(path: Path) -> Path:
    Image.fromarray(np.arange(64 * 64 * 3, dtype=np.uint8).reshape(64, 64, 3)).save(path)
    return path


def all_of(client: redis.Redis) -> Iterator[bytes]:
    """What Redis has, as it would be read by whoever may."""
    for key in client.scan_iter():
        yield key
        match client.type(key):
            case b"hash":
                yield repr(client.hgetall(key)).encode()
            case b"stream":
                yield repr(client.xrange(key)).encode()
            case b"zset":
                yield repr(client.zrange(key, 0, -1)).encode()
            case b"list":
                yield repr(client.lrange(key, 0, -1)).encode()
            case b"set":
                yield repr(client.smembers(key)).encode()
            case _:
                yield client.get(key) or b""


@pytest.mark.chaos
@pytest.mark.timeout(900)
def test_no_secret_is_in_logs_answers_events_acts_files_redis_command_lines_or_a_runners_environment(
    tmp_path: Path,
) -> None:
    http_port = free_port()
    config = tmp_path / "lcq.yaml"
    (tmp_path / "redis-url").write_text("")
    with running_server(tmp_path / "redis", password=REDIS) as server:
        (tmp_path / "redis-url").write_text(server.url)
        config.write_text(f"redis: {{url_file: {tmp_path}/redis-url}}\n")
        secrets = planted(http_port)
        with running_cluster(server.url, tmp_path / "cluster", is_forked=False, **secrets) as cluster:
            cluster.start_scheduler()
            cluster.start_agent()
            asking = {name: value for name, value in os.environ.items() if name != "LCQ_DISCOVERY__ENABLED"} | secrets
            asking |= {"LCQ_ZEROMQ__CONTROL_PORT": str(cluster.control_port), "LCQ_DATA_DIR": str(tmp_path / "cluster")}
            said: dict[str, bytes] = {}

            pictures = tmp_path / "pictures"
            pictures.mkdir()
            picture(pictures / "good.png")
            picture(pictures / "good_mask.png")
            (pictures / "torn.png").write_bytes(b"\x89PNG\r\n\x1a\nno picture")
            picture(pictures / "torn_mask.png")
            for name in ("good", "torn"):
                what = f"{pictures}/{name}.png --mask {pictures}/{name}_mask.png"
                said[f"submit {name}"] = cli(f"submit {what} --model cv2-telea --out {tmp_path}/out", asking, config)

            with cluster.client() as client:
                wait_until_sync(
                    lambda: {str(task.status) for task in client.tasks()} == {"completed", "failed"},
                    what="one is done, and one has failed",
                )
                failed = next(task.id for task in client.tasks() if str(task.status) == "failed")

            web = f"http://127.0.0.1:{http_port}"
            with httpx.Client(base_url=web, timeout=60, trust_env=False) as asked:
                for path in (
                    "/v1/tasks",
                    "/metrics",
                    "/v1/nodes",
                    "/openapi.json",
                    "/readyz",
                    f"/v1/tasks/{failed}",
                    "/v1/acts",
                ):
                    for token in (SHOWN, WRONG):
                        answer = asked.get(path, headers={"Authorization": f"Bearer {token}"})
                        said[f"GET {path} {answer.status_code}"] = answer.content + repr(answer.headers).encode()

            lines: list[bytes] = []
            for started in cluster.processes.values():
                whole = psutil.Process(started.pid)
                for process in (whole, *whole.children(recursive=True)):
                    with contextlib.suppress(psutil.Error):
                        lines.append("\0".join(process.cmdline()).encode())
            runners = cluster.runners("node-1")
            assert runners
            for runner in runners:
                said[f"environment of runner {runner.pid}"] = repr(runner.environ()).encode()
            said["command lines"] = b"\n".join(lines)

            for command in ASKED:
                said[command] = cli(command.format(task=failed, node="node-1"), asking, config)
            for url in (f"redis://:{WRONG}@127.0.0.1:{server.port}/0", f"redis://lcq:{WRONG}@127.0.0.1:1/0"):
                said[f"scheduler with {url}"] = cli(
                    "scheduler", asking | {"LCQ_REDIS__URL": url}, tmp_path / "none.yaml"
                )
            (tmp_path / "bad.yaml").write_text(f"storage: {{token: [{WRONG}]}}\ndiscovery: {{key: {{a: {WRONG}}}}}\n")
            said["a bad file"] = cli("config validate", asking, tmp_path / "bad.yaml")

            with server.client() as raw, redis.Redis.from_url(server.url) as client_of_all:
                assert raw.ping()
                said["Redis"] = b"\n".join(all_of(client_of_all))
        for path in (tmp_path / "cluster").rglob("*"):
            if path.is_file():
                said[str(path)] = path.read_bytes()

    assert b"hidden" in said["config show"]
    assert b"redis://" in said["config show"]
    assert len(said["Redis"]) > 1000
    leaks = {what: leaked for what, content in said.items() if (leaked := found_in(content, also=(WRONG,)))}
    assert leaks == {}


def test_a_secret_is_found_as_it_is_quoted_and_inside_of_base64() -> None:
    inside = base64.b64encode(f'{{"a": "{TOKEN}"}}'.encode())
    for what in (f"?token={TOKEN}&x".encode(), f"p={quote('S3CR3T/' + TOKEN)}".encode(), inside):
        assert found_in(what) == [TOKEN]
    assert found_in(b"nothing of the kind") == []
