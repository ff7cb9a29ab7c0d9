"""What the doctor makes of what it is told: pure, but for a socket and GPUs that are not there."""

from __future__ import annotations

import json
import os
import re
import socket
import subprocess
import sys
from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from lcq import __version__
from lcq.agreement import EVERYWHERE, fingerprints, read_fingerprints
from lcq.cli.doctor import show
from lcq.cli.output import Output
from lcq.config import DistributedConfig
from lcq.doctor import cluster, host, ports, redis
from lcq.doctor.findings import AREAS, CODES, Finding, Level, finding
from lcq.doctor.ports import Door, Reach, reach
from lcq.keyring import KeyPair, ServerKeys, write_server_keys
from lcq.models import NodeCapability, NodeRecord, NodeStatus
from lcq.sockets import new_key_pair
from lcq.state.checkup import RedisFacts
from lcq.wire import PROTOCOL_VERSION, InfoAnswer
from tests.cluster import free_port
from tests.fake_gpu import VERSION_MISMATCH, FakeGpu, FakeGpus
from tests.weight_files import checkpoint, generator_arrays
from worker.doctor import agents, weights
from worker.weights import WeightStore

ROOT = Path(__file__).parents[2]


def bad(findings: Iterable[Finding]) -> dict[str, Level]:
    """Of each code that is more than a note, its level."""
    return {one.code: one.level for one in findings if one.level > Level.NOTE}


def test_every_code_is_documented_and_every_documented_code_exists() -> None:
    page = (ROOT / "docs" / "doctor.md").read_text()
    documented = re.findall(r"^\| `([a-z_]+)` \|", page, re.MULTILINE)
    assert sorted(documented) == sorted(CODES)
    assert {code.partition("_")[0] for code in CODES} == set(AREAS)


def test_every_code_is_found_by_something() -> None:
    sources = [*(ROOT / "lcq" / "doctor").glob("*.py"), ROOT / "lcq/cli/doctor.py", ROOT / "worker/doctor.py"]
    text = "".join(path.read_text() for path in sources if path.name != "findings.py")
    assert [code for code in CODES if f'"{code}"' not in text] == []


# ---------------------------------------------------------------- Redis

GOOD = {
    "redis_version": "7.2.4", "role": "master", "aof_enabled": 1, "aof_last_write_status": "ok",
    "aof_last_bgrewrite_status": "ok", "maxmemory_policy": "noeviction", "maxmemory": 0, "used_memory": 10 << 20,
}  # fmt: skip
WELL = RedisFacts(GOOD, {"appendfsync": "everysec", "min-replicas-to-write": "0"}, (0.1, 0.2, 0.3))
HERE = "redis://127.0.0.1:6379/0"


@pytest.mark.parametrize(
    ("changed", "settings", "url", "expected"),
    [
        ({}, {}, HERE, {}),
        ({"aof_enabled": 0}, {}, HERE, {"redis_forgets": Level.PROBLEM}),
        ({"aof_enabled": 0, "loading": 1}, {}, HERE, {}),  # while it reads its log, that is closed
        ({"maxmemory_policy": "allkeys-lru"}, {}, HERE, {"redis_evicts": Level.PROBLEM}),
        ({"redis_version": "6.0.9"}, {}, HERE, {"redis_old": Level.PROBLEM}),
        ({"redis_version": "10.0.1"}, {}, HERE, {}),
        ({"role": "slave", "master_host": "a", "master_port": 1}, {}, HERE, {"redis_replica": Level.PROBLEM}),
        ({"aof_last_write_status": "err"}, {}, HERE, {"redis_log_failing": Level.PROBLEM}),
        ({"aof_last_bgrewrite_status": "err"}, {}, HERE, {"redis_log_failing": Level.WARNING}),
        ({"maxmemory": 12 << 20}, {}, HERE, {"redis_full": Level.WARNING}),
        ({"maxmemory": 10 << 20}, {}, HERE, {"redis_full": Level.PROBLEM}),
        ({"maxmemory": 20 << 20}, {}, HERE, {}),
        ({"connected_slaves": 1, "slave0": {"state": "wait_bgsave"}}, {}, HERE, {"redis_replica_lags": Level.WARNING}),
        ({"connected_slaves": 1, "slave0": {"state": "online"}}, {}, HERE, {}),
        ({}, {"appendfsync": "no"}, HERE, {"redis_fsync_off": Level.WARNING}),
        ({}, {}, "redis://head:6379/0", {"redis_open": Level.WARNING}),
        ({}, {}, "redis://lcq:secret@head:6379/0", {}),
        ({}, {}, "unix:///run/redis.sock?db=0", {}),
    ],
)  # fmt: skip
def test_what_a_redis_tells_of_itself_is_judged(
    changed: dict[str, Any], settings: dict[str, str], url: str, expected: dict[str, Level]
) -> None:
    facts = replace(WELL, info=GOOD | changed, settings={**WELL.settings, **settings})
    found = list(redis.judged(facts, url))
    assert bad(found) == expected
    assert ("redis_ok" in {one.code for one in found}) is (not expected)
    assert not any("secret" in one.where + one.found for one in found)
    assert all(one.fix for one in found if one.level > Level.OK)


def test_a_slow_redis_is_told_by_the_median_of_its_answers_and_not_by_one_of_them() -> None:
    assert bad(redis.judged(replace(WELL, answers_ms=(0.1, 0.2, 900.0)), HERE)) == {}
    assert bad(redis.judged(replace(WELL, answers_ms=(0.1, 20.0, 30.0)), HERE)) == {"redis_slow": Level.WARNING}
    assert bad(redis.judged(replace(WELL, answers_ms=(0.1, 200.0, 300.0)), HERE)) == {"redis_slow": Level.PROBLEM}


def test_who_accepts_an_unsafe_redis_is_told_of_it_but_not_as_of_a_problem() -> None:
    found = list(redis.judged(replace(WELL, info=GOOD | {"aof_enabled": 0}), HERE, unsafe=True))
    assert [(one.code, one.level) for one in found if one.code == "redis_forgets"] == [("redis_forgets", Level.NOTE)]


def test_the_kernel_of_its_host_is_looked_at(tmp_path: Path) -> None:
    for name, text in (
        ("proc/sys/vm/overcommit_memory", "0"),
        ("sys/kernel/mm/transparent_hugepage/enabled", "[always] never"),
    ):
        (tmp_path / name).parent.mkdir(parents=True)
        (tmp_path / name).write_text(text)
    large = replace(WELL, info=GOOD | {"used_memory_rss": 900 << 20})
    found = list(redis.of_its_host(large, "here", available_mib=1000, root=tmp_path))
    assert {one.code: one.level for one in found} == {
        "limit_overcommit": Level.WARNING, "limit_huge_pages": Level.NOTE,
    }  # fmt: skip
    small = list(redis.of_its_host(WELL, "here", available_mib=1000, root=tmp_path))
    assert [one.code for one in small] == ["limit_huge_pages"]


# ---------------------------------------------------------------- ports


async def test_a_port_that_is_closed_and_one_that_is_silent_are_told_apart() -> None:
    with socket.socket() as open_one, socket.socket() as full:
        open_one.bind(("127.0.0.1", 0))
        open_one.listen()
        full.bind(("127.0.0.1", 0))
        full.listen(0)
        port = full.getsockname()[1]
        waiting = [socket.socket() for _ in range(4)]
        try:
            for one in waiting:  # its queue is full: what comes now is dropped, as by a firewall
                one.setblocking(False)
                one.connect_ex(("127.0.0.1", port))
            assert await reach("127.0.0.1", open_one.getsockname()[1], patience_s=60) is Reach.OPEN
            assert await reach("127.0.0.1", port, patience_s=0.2) is Reach.SILENT
            assert await reach("127.0.0.1", free_port(), patience_s=60) is Reach.REFUSED
            assert await reach("no-such-host.invalid", 1, patience_s=60) is Reach.UNKNOWN_HOST
        finally:
            for one in waiting:
                one.close()


@pytest.mark.parametrize(
    ("how", "code", "said"),
    [
        (Reach.REFUSED, "port_refused", "nothing listens there"),
        (Reach.SILENT, "port_silent", "a firewall drops"),
        (Reach.NO_ROUTE, "port_no_route", "no way"),
        (Reach.UNKNOWN_HOST, "port_unknown_host", "no host is called"),
    ],
)
def test_of_each_way_not_to_be_reached_it_is_said_which_side_it_is(how: Reach, code: str, said: str) -> None:
    (one,) = ports._told(Door("HTTP", "head", 8081, "http.bind", needed=False), how, "here")
    assert (one.code, one.level) == (code, Level.WARNING)
    assert said in one.found
    assert "head" in one.found + one.fix


# ---------------------------------------------------------------- the cluster


def an_info(name: str = "head-1", **told: Any) -> InfoAnswer:
    known = {"version": __version__, "protocol": PROTOCOL_VERSION, "redis": "8", "queues": (), "last_event_id": "0-0"}
    return InfoAnswer(scheduler_id=name, pid=1, **(known | told))


def a_node(name: str, status: NodeStatus = NodeStatus.ONLINE, *, version: str = __version__, **told: Any) -> NodeRecord:
    return NodeRecord(id=name, boot_id="b", status=status, capability=NodeCapability(version=version), **told)


CONFIG = DistributedConfig()


@pytest.mark.parametrize(
    ("seen", "expected"),
    [
        (cluster.Seen((an_info(),), (a_node("gpu-1"),)), {}),
        (cluster.Seen((an_info(),), ()), {"node_none": "cluster"}),
        (cluster.Seen((an_info(protocol=PROTOCOL_VERSION + 1),), (a_node("gpu-1"),)), {"version_protocol": "head-1"}),
        (cluster.Seen((an_info(),), (a_node("gpu-1", version="0.0.9"),)), {"version_differs": "gpu-1"}),
        (
            cluster.Seen((an_info(), an_info("head-2", version="0.0.9")), (a_node("gpu-1"),)),
            {"version_differs": "head-2"},
        ),
        (cluster.Seen((an_info(config_error="line 3: …"),), (a_node("gpu-1"),)), {"config_refused": "head-1"}),
        (
            cluster.Seen((an_info(),), (a_node("gpu-1", telemetry={"config_error": "line 3: …"}),)),
            {"config_refused": "gpu-1"},
        ),
        (
            cluster.Seen((an_info(),), (a_node("gpu-1", telemetry={"clock_offset_s": -31.0, "clock_error_s": 0.1}),)),
            {"clock_off": "gpu-1"},
        ),
        (cluster.Seen((an_info(),), (a_node("gpu-1"),), ahead_s=3600.0, error_s=0.1), {"clock_off": "here"}),
        (cluster.Seen((an_info(),), (a_node("gpu-1"),), ahead_s=8.0, error_s=4.0), {}),  # it may be less than the bound
        (cluster.Seen((an_info(),), (a_node("gpu-1"),), wanted={"mat": 3}), {"model_wanted": "gpu-1"}),
        (
            cluster.Seen((an_info(),), (a_node("gpu-1"), a_node("gpu-2", NodeStatus.QUARANTINED, why="it failed"))),
            {"node_quarantined": "gpu-2"},
        ),
        (cluster.Seen((an_info(),), (a_node("gpu-1"), a_node("gpu-2", NodeStatus.SUSPECT))), {"node_silent": "gpu-2"}),
        (cluster.Seen((an_info(),), (a_node("gpu-1"), a_node("gpu-2", NodeStatus.OFFLINE))), {}),
        (
            cluster.Seen((an_info(),), (a_node("gpu-1", telemetry={"not_claiming": "the disk is full"}),)),
            {"node_takes_nothing": "gpu-1"},
        ),
    ],
)  # fmt: skip
def test_what_a_cluster_tells_is_judged(seen: cluster.Seen, expected: dict[str, str]) -> None:
    found = list(cluster.judged(seen, CONFIG, "here"))
    assert {one.code: one.where for one in found if one.level > Level.NOTE} == expected


def test_a_node_whose_settings_differ_is_named_with_the_sections_and_an_older_one_is_not() -> None:
    agreed = fingerprints(CONFIG, EVERYWHERE)
    other = fingerprints(DistributedConfig(limits={"frames": 3}, storage={"web": True}), EVERYWHERE)  # type: ignore[arg-type]
    nodes = (
        a_node("gpu-1", telemetry={"agreed": agreed}), a_node("gpu-2", telemetry={"agreed": other}), a_node("old-1"),
    )  # fmt: skip
    found = [one for one in cluster.of_settings(cluster.Seen((an_info(agreed=agreed),), nodes)) if one.level > Level.OK]
    assert [(one.code, one.where, one.facts["keys"]) for one in found] == [
        ("config_drift", "gpu-2", "limits, storage.web")
    ]
    both = cluster.Seen(
        (an_info(),), nodes[:2]
    )  # the scheduler is older, and there is no majority: one of them is told
    assert [one.code for one in cluster.of_settings(both) if one.level > Level.OK] == ["config_drift"]


def test_a_fingerprint_tells_nothing_of_what_it_is_of_and_changes_with_it() -> None:
    configs = [DistributedConfig(storage={"roots": [root]}) for root in ("/a", "/b")]  # type: ignore[arg-type]
    one, other = (fingerprints(config, EVERYWHERE) for config in configs)
    assert "/a" not in one
    marks = read_fingerprints(other)
    differ = {key for key, mark in read_fingerprints(one).items() if marks[key] != mark}
    assert differ == {"storage.roots"}
    assert read_fingerprints("") == {}


# ---------------------------------------------------------------- this host


def test_a_disk_under_its_floor_is_told_and_one_that_cannot_be_written(tmp_path: Path) -> None:
    low = DistributedConfig(
        data_dir=tmp_path,
        redis={"host": "head"},
        agent={"disk": {"floor_mib": 10**9}},
        storage={"url": "s3://b/f"},  # type: ignore[arg-type]
    )
    assert bad(host.disks(host.places(low), "here")) == {"disk_low": Level.PROBLEM}
    fine = DistributedConfig(data_dir=tmp_path, redis={"host": "head"}, storage={"roots": ["/proc"]})  # type: ignore[arg-type]
    expected = {} if os.access("/proc", os.W_OK) else {"disk_not_writable": Level.PROBLEM}  # root may, so to say
    assert set(bad(host.disks(host.places(fine), "here"))) <= {*expected, "disk_low"}


def test_files_with_secrets_that_others_can_read_are_told(tmp_path: Path) -> None:
    key, settings = tmp_path / "discovery.key", tmp_path / "lcq.yaml"
    key.write_text("0123456789abcdef")
    settings.write_text("redis: {url: 'redis://lcq:secret@head:6379/0'}\n")
    config = DistributedConfig(data_dir=tmp_path / "data", discovery={"key_file": key})  # type: ignore[arg-type]
    for file in (key, settings):
        file.chmod(0o644)
    found = list(host.secrets(config, "here", config_file=settings))
    assert [(one.code, one.facts["file"]) for one in found] == [
        ("key_file_open", str(key)), ("key_file_open", str(settings)),
    ]  # fmt: skip
    assert not any("secret@" in one.found for one in found)
    for file in (key, settings):
        file.chmod(0o600)
    assert [one.code for one in host.secrets(config, "here", config_file=settings)] == ["key_ok"]
    key.unlink()
    assert bad(host.secrets(config, "here", config_file=settings)) == {"key_file_missing": Level.PROBLEM}


def test_a_key_of_our_own_that_cannot_be_used_is_told(tmp_path: Path) -> None:
    config = DistributedConfig(data_dir=tmp_path)
    tmp_path.chmod(0o700)
    keys = tmp_path / "keys"
    keys.mkdir(mode=0o700)
    assert [one.code for one in host.secrets(config, "here", config_file=None)] == ["key_ok"]
    tmp_path.chmod(0o711)  # as an agent has it whose runners are another user's: others pass through, and see nothing
    assert [one.code for one in host.secrets(config, "here", config_file=None)] == ["key_ok"]
    tmp_path.chmod(0o750)
    assert [one.code for one in host.secrets(config, "here", config_file=None)] == ["key_file_open"]
    tmp_path.chmod(0o700)
    for name in ("server.json", "client.json", "node-gpu-1.json"):
        (keys / name).write_text("{")
        (keys / name).chmod(0o600)
    found = list(host.secrets(config, "here", config_file=None))
    assert [(one.code, one.level) for one in found] == [("key_unusable", Level.PROBLEM)] * 3
    assert all(one.fix for one in found)


def test_a_next_key_of_the_schedulers_that_an_older_lcq_has_not_made_is_told_of(tmp_path: Path) -> None:
    config = DistributedConfig(data_dir=tmp_path)
    tmp_path.chmod(0o700)
    pair, coming = (KeyPair(*new_key_pair()) for _ in range(2))
    write_server_keys(config, ServerKeys(pair))
    found = list(host.secrets(config, "here", config_file=None))
    assert [(one.code, one.level) for one in found] == [("key_no_next", Level.NOTE), ("key_ok", Level.OK)]
    assert "lcq keys rotate --server" in found[0].fix
    write_server_keys(config, ServerKeys(pair, coming))
    assert [one.code for one in host.secrets(config, "here", config_file=None)] == ["key_ok"]


def test_weights_that_are_not_what_was_written_are_told(tmp_path: Path) -> None:
    config = DistributedConfig(data_dir=tmp_path, models={"allow": ["any"]})  # type: ignore[arg-type]
    store = WeightStore(config.models_path, config.models)
    store.add(checkpoint(tmp_path / "best.ckpt", generator_arrays("generator.")), "lama")
    assert [one.code for one in weights(config, "here")] == ["model_ok"]
    path = store.path("lama")
    path.chmod(0o644)
    whole = bytearray(path.read_bytes())
    whole[-1] ^= 1
    path.write_bytes(whole)
    (found,) = weights(config, "here")
    assert (found.code, found.level) == ("model_damaged", Level.PROBLEM)
    assert found.fix == "lcq models rm lama && lcq models pull lama"


def test_what_waits_in_the_spool_of_an_agent_that_does_not_run_is_told(tmp_path: Path) -> None:
    spool = tmp_path / "gpu-1" / "spool"
    spool.mkdir(parents=True)
    assert list(agents(tmp_path, "here")) == []
    (spool / "1.json").write_text("{}")
    (found,) = agents(tmp_path, "here")
    assert (found.code, found.where, found.facts["count"]) == ("node_spool", "gpu-1", 1)


# ---------------------------------------------------------------- GPUs

ASK = """
import json, sys
from pathlib import Path
from lcq.doctor import gpus
for line in sys.stdin:
    gpus.torch_build = lambda: ("2.8.0", line.strip())
    found = gpus.gpus("here", root=Path(sys.argv[1]))
    print(json.dumps([[one.code, one.level, one.found] for one in found]), flush=True)
"""


def test_what_the_driver_tells_of_gpus_is_judged(tmp_path: Path) -> None:
    gpus = FakeGpus(tmp_path)
    well = FakeGpu("GPU-aaaa", persistent=1)
    gpus.set([well])
    command = [sys.executable, "-c", ASK, str(tmp_path)]
    environment = os.environ | gpus.environment
    with subprocess.Popen(
        command, env=environment, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, cwd=ROOT
    ) as child:
        asked, answers = child.stdin, child.stdout
        assert asked is not None
        assert answers is not None

        def found(torch_for: str = "12.6") -> dict[str, tuple[int, str]]:
            asked.write(f"{torch_for}\n")
            asked.flush()
            answer = json.loads(answers.readline())
            return {code: (level, said) for code, level, said in answer}

        assert {code: level for code, (level, _) in found().items()} == {"gpu_ok": Level.OK}
        assert set(found("13.0")) == {"gpu_torch_too_new"}
        assert set(found("")) == {"gpu_torch_for_cpu"}
        gpus.set([replace(well, persistent=0)])
        assert found()["gpu_not_persistent"][0] == Level.NOTE
        gpus.set(
            [
                replace(well, ecc=(0, 3, 0, 3)),
                replace(well, uuid="GPU-cccc", free_mib=2000, processes={1: 7900}, bus="0000:03:00"),
            ]
        )
        told = found()
        assert set(told) == {"gpu_errors", "gpu_taken"}
        assert "3 memory errors" in told["gpu_errors"][1]
        (tmp_path / "dev").mkdir()
        (tmp_path / "dev" / "nvidiactl").touch()
        gpus.set([well])
        assert set(found()) == {"gpu_no_unified_memory"}
        gpus.set([], init=VERSION_MISMATCH)
        assert found()["gpu_driver"][0] == Level.PROBLEM


# ---------------------------------------------------------------- how it is told


def told(*findings: Finding, as_json: bool = False, quiet: bool = False) -> int:
    return show(findings, Output(as_json=as_json), quiet=quiet)


FINE = finding("limit_ok", Level.OK, "here", "20000 open files")
WARNED = finding(
    "redis_slow", Level.WARNING, "there", "it takes {ms} ms", fix="look at {what}", ms=12, what="it\x1b[31m"
)
WRONG = finding("disk_low", Level.PROBLEM, "here", "no room", fix="du")


def test_the_exit_code_is_that_of_the_worst(capsys: pytest.CaptureFixture[str]) -> None:
    assert [told(FINE), told(FINE, WARNED), told(WARNED, WRONG)] == [0, 1, 2]
    capsys.readouterr()


def test_a_person_reads_level_place_finding_and_remedy_by_area(capsys: pytest.CaptureFixture[str]) -> None:
    told(WRONG, FINE, WARNED)
    shown = capsys.readouterr().out
    assert shown.index("Redis") < shown.index("Disks") < shown.index("Limits of this host")
    assert re.search(r"! warning\s+there\s+it takes 12 ms", shown)
    assert "redis_slow" in shown
    assert "\x1b[31m" not in shown  # nothing that was found reaches the terminal as a command
    assert "1 problem, 1 warning" in shown
    told(WRONG, FINE, quiet=True)
    assert "20000 open files" not in capsys.readouterr().out


def test_a_program_reads_all_of_it(capsys: pytest.CaptureFixture[str]) -> None:
    assert told(FINE, WARNED, as_json=True) == 1
    document = json.loads(capsys.readouterr().out)
    assert (document["level"], document["exit_code"]) == ("warning", 1)
    first = document["findings"][0]
    assert (first["code"], first["level"], first["where"]) == ("redis_slow", "warning", "there")
    assert (first["found"], first["fix"]) == ("it takes 12 ms", "look at it\x1b[31m")
