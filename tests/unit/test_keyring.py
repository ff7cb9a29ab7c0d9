"""The files of keys, and enrolment tokens."""

from __future__ import annotations

import secrets
from pathlib import Path

import pytest

from lcq.client.addresses import unbelieved
from lcq.config import DistributedConfig
from lcq.errors import InvalidConfig, InvalidToken
from lcq.keyring import (
    Credential,
    KeyPair,
    ServerKeys,
    Token,
    client_file,
    credential_for,
    learn_server_keys,
    peer_pair,
    read_credential,
    read_server_keys,
    read_token,
    server_file,
    write_credential,
    write_server_keys,
)
from lcq.private_folder import make_private
from lcq.sockets import new_key_pair
from worker.home import agent_home

LAN, HERE = "tcp://192.0.2.7:5571", "tcp://127.0.0.1:5571"


def a_pair() -> KeyPair:
    return KeyPair(secrets.token_hex(32), secrets.token_hex(32))


@pytest.fixture
def config(tmp_path: Path) -> DistributedConfig:
    return DistributedConfig(data_dir=tmp_path)


def a_token(**more: object) -> Token:
    told = {"pair": a_pair(), "server_key": "cd" * 32, "schedulers": ("gpu-1:5571",), "role": "agent", "until_s": 1000}
    return Token(**(told | more))  # type: ignore[arg-type]


def test_a_token_comes_out_as_it_went_in_also_with_a_mails_line_breaks() -> None:
    token = a_token(schedulers=("gpu-1:5571", "[fd00::1]:5571"), node="gpu-7")
    text = str(token)
    assert read_token(f" {text[:40]}\n  {text[40:]}\n", now_s=999) == token
    assert token.pair.secret not in repr(token)


@pytest.mark.parametrize("cut", [1, 5, 60, 120])
def test_a_token_that_was_not_copied_whole_is_told_from_a_wrong_one(cut: int) -> None:
    with pytest.raises(InvalidToken, match="not copied whole"):
        read_token(str(a_token())[:-cut], now_s=0)


def test_a_token_that_is_over_or_none_says_so() -> None:
    with pytest.raises(InvalidToken, match="ended 25 hours ago"):
        read_token(str(a_token()), now_s=1000 + 25 * 3600)
    assert read_token(str(a_token()), now_s=1000 + 23 * 3600)  # by a clock that may be wrong: the scheduler knows
    with pytest.raises(InvalidToken, match="does not begin with"):
        read_token("hunter2")


def test_keys_are_kept_so_that_nobody_else_can_read_them(config: DistributedConfig) -> None:
    keys = ServerKeys(a_pair(), a_pair(), {a_pair().public: "ann"})
    written = write_server_keys(config, keys)
    assert read_server_keys(config) == keys
    assert (written.stat().st_mode & 0o777, written.parent.stat().st_mode & 0o777) == (0o600, 0o700)
    assert all(pair.secret not in repr(keys) for pair in (keys.pair, keys.coming) if pair)


def test_whoever_makes_the_data_folder_first_makes_it_for_its_user_alone(tmp_path: Path) -> None:
    data = tmp_path / "share" / "lcq"
    write_server_keys(DistributedConfig(data_dir=data), ServerKeys(a_pair()))
    other = tmp_path / "other" / "lcq"
    with agent_home(other, "gpu-7"):
        pass
    for folder in (data.parent, data, other.parent, other, other / "agents"):
        assert folder.stat().st_mode & 0o777 == 0o700, folder
    tmp_path.chmod(0o755)
    make_private(tmp_path)
    assert tmp_path.stat().st_mode & 0o777 == 0o755  # what was there stays as somebody wanted it


@pytest.mark.parametrize("mode", [0o604, 0o660, 0o666])
def test_a_key_that_others_can_read_or_write_is_not_used(config: DistributedConfig, mode: int) -> None:
    path = write_credential(client_file(config), Credential(a_pair(), ("cd" * 32,)))
    path.chmod(mode)
    with pytest.raises(InvalidConfig, match=f"its mode is {mode:04o}") as refused:
        read_credential(path)
    assert f"chmod 600 {path}" in refused.value.hint


@pytest.mark.parametrize("content", ["", "[]", "{}", '{"public": "x", "secret": "y"}'])
def test_a_file_that_is_no_key_is_named(config: DistributedConfig, content: str) -> None:
    for path in (client_file(config), server_file(config)):
        path.parent.mkdir(exist_ok=True)
        path.write_text(content)
        path.chmod(0o600)
    with pytest.raises(InvalidConfig, match="cannot be used"):
        read_credential(client_file(config))
    with pytest.raises(InvalidConfig, match="cannot be used"):
        read_server_keys(config)


def test_a_key_is_shown_to_other_hosts_and_on_loopback_only_where_it_was_made_for_that(
    config: DistributedConfig,
) -> None:
    path = client_file(config)
    assert credential_for(config, (LAN,), path) is None
    write_credential(path, Credential(a_pair(), ("cd" * 32,), ("192.0.2.7:5571",)))
    assert credential_for(config, (HERE,), path) is None
    assert credential_for(config, (LAN,), path) == read_credential(path)
    write_credential(path, Credential(a_pair(), ("cd" * 32,), ("127.0.0.1:5571",)))  # a tunnel leads there
    assert credential_for(config, (HERE,), path) == read_credential(path)
    assert credential_for(config, ("tcp://127.0.0.1:5572",), path) is None


def test_where_keys_are_always_to_be_shown_none_is_an_error(tmp_path: Path) -> None:
    config = DistributedConfig(data_dir=tmp_path, zeromq={"curve": "always"})  # type: ignore[arg-type]
    with pytest.raises(InvalidConfig, match="there is no key in"):
        credential_for(config, (HERE,), client_file(config))
    write_credential(client_file(config), Credential(a_pair(), ("cd" * 32,)))
    assert credential_for(config, (HERE,), client_file(config)) is not None


def test_what_schedulers_say_of_their_next_key_is_kept_and_nonsense_is_not(config: DistributedConfig) -> None:
    path = write_credential(client_file(config), Credential(a_pair(), ("cd" * 32,)))
    credential = read_credential(path)
    assert credential is not None
    assert learn_server_keys(credential, ("x", "")) == credential
    learned = learn_server_keys(credential, ("cd" * 32, "ef" * 32))
    assert learned == read_credential(path)
    assert learned.server_keys == ("cd" * 32, "ef" * 32)


def test_who_learns_of_the_schedulers_next_key_leaves_its_own_next_key_in_the_file(config: DistributedConfig) -> None:
    path = write_credential(client_file(config), Credential(a_pair(), ("cd" * 32,)))
    running = read_credential(path)
    assert running is not None
    changed = Credential(a_pair(), ("cd" * 32,))
    write_credential(path, changed)  # 'lcq keys rotate', while it runs
    learned = learn_server_keys(running, ("cd" * 32, "ef" * 32))
    assert learned.pair == running.pair
    there = read_credential(path)
    assert there is not None
    assert (there.pair, there.server_keys) == (changed.pair, ("cd" * 32, "ef" * 32))


def test_what_a_scheduler_shows_another_follows_from_the_schedulers_key_and_is_none_of_its_halves() -> None:
    one, other = KeyPair(*new_key_pair()), KeyPair(*new_key_pair())
    assert peer_pair(one) == peer_pair(KeyPair(one.public, one.secret))
    assert len({one.secret, peer_pair(one).secret, peer_pair(other).secret}) == 3
    assert peer_pair(one).public not in (one.public, peer_pair(other).public)


def test_what_the_lan_tells_is_believed_only_where_somebody_has_said_why(config: DistributedConfig) -> None:
    assert "on its word alone" in unbelieved(config, (LAN,))
    assert unbelieved(config, (HERE,)) == ""
    for said in ({"zeromq": {"trusted_network": True}}, {"discovery": {"key": "k" * 32}}):
        assert unbelieved(DistributedConfig.model_validate(said), (LAN,)) == ""
