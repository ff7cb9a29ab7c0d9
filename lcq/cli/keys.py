"""lcq keys: who may connect to a cluster's sockets from other hosts (docs/enrolment.md)."""

from __future__ import annotations

import re
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from lcq.cli.examples import examples
from lcq.cli.output import Column, Output, age, clock, duration
from lcq.cli.session import OK, JsonFlag, Reason, Session, run, session_of
from lcq.errors import AmbiguousId, InvalidInput, NotFound
from lcq.key_record import KEY_FORM, KeyRecord, KeyRole, fingerprint_of, told_peer, told_reason
from lcq.lang import N, retold, tr

if TYPE_CHECKING:
    from lcq.keyring import Credential
    from lcq.wire import KeysAnswer

app = typer.Typer()

_STDIN = "-"
_S = {"s": 1.0, "m": 60.0, "h": 3600.0, "d": 24 * 3600.0}
_COLUMNS = (
    Column(N("NAME"), whole=True),
    Column(N("ROLE"), whole=True),
    Column(N("STATE"), whole=True),
    Column(N("SINCE"), whole=True),
    Column(N("LAST SEEN"), whole=True, spared=1),
    Column(N("FROM"), spared=2),
    Column(N("BY"), spared=3),
    Column(N("KEY"), whole=True),
)
Name = Annotated[str, typer.Option("--name", metavar="NAME", help="What acts and lists call its owner.")]


@app.command(epilog=examples("lcq keys init", "sudo -u lcq lcq --config /etc/lcq/config.yaml keys init"))
def init(context: typer.Context, name: Name = "", as_json: JsonFlag = False) -> int:
    """Make the schedulers' key and an operator's on this host, so that a scheduler may be reached from others."""
    from lcq.client.login import login_name
    from lcq.keyring import (
        Credential,
        KeyPair,
        ServerKeys,
        client_file,
        read_credential,
        read_server_keys,
        server_file,
        write_credential,
        write_server_keys,
    )
    from lcq.sockets import is_loopback, new_key_pair

    session = session_of(context, as_json)
    config, output = session.config, session.output
    there = read_server_keys(config)
    server = there or ServerKeys(KeyPair(*new_key_pair()), KeyPair(*new_key_pair()))
    own = read_credential(client_file(config))
    if own is not None and server.pair.public not in own.server_keys:
        raise InvalidInput(
            f"{client_file(config)} is the key of another cluster",
            hint="move it away first, or have this cluster's in another file: zeromq.key_file, or a context of its own",
        )
    made = own is None
    if own is None:
        owner = name or _as_name(login_name())
        own = Credential(KeyPair(*new_key_pair()), server.told, (), owner, KeyRole.OPERATOR)
        server = ServerKeys(server.pair, server.coming, {**server.owners, own.pair.public: owner})
    if made or there is None:
        write_server_keys(config, server)
        write_credential(client_file(config), own)
    if output.as_json:
        output.document(
            {
                "server_key": server.pair.public, "server_key_file": str(server_file(config)), "made": there is None,
                "key": own.pair.public, "key_file": str(client_file(config)), "name": own.name, "role": own.role,
            }
        )  # fmt: skip
        return OK
    output.facts(
        [
            (tr("schedulers' key"), f"{fingerprint_of(server.pair.public)}  {server_file(config)}"),
            (tr("your key"), f"{fingerprint_of(own.pair.public)}  {own.name}, {own.role}  {client_file(config)}"),
        ]
    )
    output.talk(tr("made") if there is None else tr("they were there already, and stay"))
    if is_loopback(config.zeromq.bind):
        output.talk(tr("now set zeromq.bind to an address of the network, such as 0.0.0.0, and start the scheduler"))
    output.talk(tr("other schedulers of this cluster need the same {file}, mode 600", file=server_file(config).name))
    output.talk(tr("then let others in: lcq keys invite --role agent"))
    return OK


@app.command(epilog=examples("lcq keys show", "lcq keys show --json"))
def show(context: typer.Context, as_json: JsonFlag = False) -> int:
    """Show which keys this host has, without the secret halves."""
    from lcq.keyring import agent_file, client_file, nodes_with_keys, read_credential, read_server_keys, server_file

    session = session_of(context, as_json)
    config, output = session.config, session.output
    server = read_server_keys(config)
    files = [client_file(config), *(agent_file(config, node) for node in nodes_with_keys(config))]
    found = [one for one in map(read_credential, dict.fromkeys(files)) if one is not None]
    if output.as_json:
        output.document(
            {
                "server": None if server is None else {"keys": server.told, "file": str(server_file(config))},
                "keys": [_as_document(one) for one in found],
            }
        )
        return OK
    if server is None and not found:
        output.talk(
            tr("no key is here: 'lcq keys init' makes the first ones, 'lcq keys join TOKEN' has this host join")
        )
        return OK
    columns = (Column(N("KEY"), whole=True), Column(N("IS")), Column(N("SCHEDULERS")), Column(N("FILE")))
    rows = [(key, tr("the schedulers'"), "", str(server_file(config))) for key in (server.told if server else ())]
    rows += [
        (one.pair.public, f"{one.name}, {one.role}", ", ".join(one.schedulers), str(one.file or "")) for one in found
    ]
    output.table(columns, rows)
    return OK


@app.command(
    epilog=examples(
        "lcq keys invite --role agent", "lcq keys invite --role agent --node gpu-7 --expires 15m",
        "lcq keys invite --role viewer --json", "lcq keys invite --role agent | ssh gpu-7 lcq-agent join -",
    )
)  # fmt: skip
def invite(
    context: typer.Context,
    role: Annotated[KeyRole, typer.Option("--role", help="agent, viewer, submitter or operator.")],
    node: Annotated[str, typer.Option("--node", metavar="NAME", help="Of an agent: the only node it may be.")] = "",
    expires: Annotated[str, typer.Option("--expires", metavar="SPAN", help="How long it may be used: 15m, 2d.")] = "1h",
    address: Annotated[
        str,
        typer.Option("--address", metavar="HOST:PORT", help="Where it will reach the scheduler, if not where we do."),
    ] = "",
    reason: Reason = "",
    as_json: JsonFlag = False,
) -> int:
    """Make a token by which one host, or one person, gets a key: once, and soon."""
    return run(_invite(session_of(context, as_json), role, node, _seconds(expires), address, reason))


async def _invite(session: Session, role: KeyRole, node: str, span_s: int, address: str, reason: str) -> int:
    from lcq.client import find_schedulers
    from lcq.keyring import KeyPair, Token
    from lcq.sockets import new_key_pair

    pair = KeyPair(*new_key_pair())
    async with session.client() as client:
        answer = await client.invite_key(pair.public, becomes=role, node=node, span_s=span_s, reason=reason)
    places = answer.schedulers
    if address:
        places = tuple(one.removeprefix("tcp://") for one in find_schedulers(session.config, address))
    until_s = answer.record.until_ms // 1000
    token = Token(pair, answer.server_keys[0], places, role.value, node, until_s)
    output = session.output
    if output.as_json:
        output.document(
            {"token": str(token), "role": role.value, "node": node, "schedulers": places, "until_s": until_s}
        )
        return OK
    output.say(str(token))
    command = "lcq-agent join" if role is KeyRole.AGENT else "lcq keys join"
    output.talk(tr("there, say: {command} TOKEN (or '{command} -', and give it on stdin)", command=command))
    output.talk(tr("once, within {span}; it leads to {places}", span=duration(span_s), places=", ".join(places)))
    return OK


@app.command(epilog=examples("lcq keys join lcq1.Zm9v…", "lcq keys join - < token", "lcq --context studio keys join -"))
def join(
    context: typer.Context,
    token: Annotated[str, typer.Argument(metavar="TOKEN", help="Of 'lcq keys invite'; '-': it is on stdin.")],
    name: Name = "",
    replace: Annotated[bool, typer.Option("--replace", help="Also where there is a key already.")] = False,
    as_json: JsonFlag = False,
) -> int:
    """Take a token up: this user's commands and consoles, or an agent of this host, get a key of their own."""
    return run(_join(session_of(context, as_json), read_argument(token), name, replace))


def read_argument(token: str) -> str:
    """The token that was typed, or that comes on stdin: what is typed may be seen by other users of the host."""
    return sys.stdin.read() if token == _STDIN else token


async def _join(session: Session, text: str, name: str, replace: bool) -> int:
    from lcq.client.login import login_name
    from lcq.hardware import host_name
    from lcq.joining import join as join_by
    from lcq.keyring import agent_file, client_file, read_token

    config, token = session.config, read_token(text)
    is_agent = token.role == KeyRole.AGENT
    if not name:
        name = (config.agent.name or host_name()) if is_agent else _as_name(login_name())

    def file_of(named: str) -> Path:
        return agent_file(config, named) if is_agent else client_file(config)

    joined = await join_by(config, token, name=name, file_of=file_of, timeout_s=session.patience_s, replaces=replace)
    tell_joined(session.output, joined)
    return OK


def tell_joined(output: Output, joined: Credential) -> None:
    """What has come of a token."""
    if output.as_json:
        output.document(_as_document(joined))
        return
    output.facts(
        [
            (tr("joined as"), f"{joined.name}, {joined.role}"),
            (tr("at"), ", ".join(joined.schedulers)),
            (tr("key"), f"{fingerprint_of(joined.pair.public)}  {joined.file}"),
        ]
    )


@app.command(epilog=examples("lcq keys enrol KEY --name ann --role operator"))
def enrol(
    context: typer.Context,
    key: Annotated[str, typer.Argument(metavar="KEY", help="The public half, 64 hexadecimal digits.")],
    name: Annotated[str, typer.Option("--name", metavar="NAME", help="Whose it is; of an agent, its node.")],
    role: Annotated[KeyRole, typer.Option("--role", help="agent, viewer, submitter or operator.")] = KeyRole.VIEWER,
    reason: Reason = "",
    as_json: JsonFlag = False,
) -> int:
    """Let a key in whose public half somebody has brought ('lcq keys show' there)."""
    return run(_enrol(session_of(context, as_json), key.strip().lower(), name, role, reason))


async def _enrol(session: Session, key: str, name: str, role: KeyRole, reason: str) -> int:
    if not re.match(KEY_FORM, key):
        raise InvalidInput(f"{key[:80]!r} is no key", hint="the public half has 64 hexadecimal digits: lcq keys show")
    async with session.client() as client:
        record = (await client.enrol_key(key, name=name, role=role, reason=reason)).record
    _tell(session.output, record, tr("enrolled"))
    return OK


@app.command(name="list", epilog=examples("lcq keys list", "lcq keys list --all", "lcq keys list --json"))
def list_keys(
    context: typer.Context,
    every: Annotated[bool, typer.Option("--all", help="Also those that were revoked, replaced or used up.")] = False,
    as_json: JsonFlag = False,
) -> int:
    """List who may connect and who is invited, when each was seen, and which handshakes failed, and why."""
    return run(_list(session_of(context, as_json), every))


async def _list(session: Session, every: bool) -> int:
    async with session.client() as client:
        answer = await client.keys()
    output = session.output
    if output.as_json:
        output.document(answer)
        return OK
    shown = [one for one in answer.keys if every or _is_of_now(one, answer.now_ms)]
    output.table(
        _COLUMNS,
        (
            (
                one.name,
                one.becomes if one.is_invitation else one.role.value,
                tr(one.state_at(answer.now_ms)),
                clock(one.revoked_ms or one.at_ms)[:16],
                tr("{age} ago", age=age(one.seen_ms)) if one.seen_ms else "",
                one.address,
                one.revoked_by or one.by,
                one.fingerprint,
            )
            for one in shown
        ),
        empty=tr("no key is enrolled"),
    )
    if not answer.server_keys:
        output.talk(tr("this scheduler asks for no keys: it is on loopback, or its network counts as trusted"))
    for one in answer.refused:
        output.talk(
            tr(
                "not let in {count} times: {why}; last {who}, {age} ago",
                count=one.count,
                why=told_reason(one.reason),
                who=told_peer(one.last),
                age=age(one.last_ms),
            )
        )
    return OK


@app.command(epilog=examples("lcq keys revoke gpu-7 --reason 'sold'", "lcq keys revoke 4f0c9a"))
def revoke(
    context: typer.Context,
    who: Annotated[str, typer.Argument(metavar="NAME|KEY", help="A name, or the beginning of a key.")],
    reason: Reason = "",
    as_json: JsonFlag = False,
) -> int:
    """Let a key or a token in no more: what it has connected is cut at once, its node's work runs elsewhere."""
    return run(_revoke(session_of(context, as_json), who, reason))


async def _revoke(session: Session, who: str, reason: str) -> int:
    async with session.client() as client:
        found = _one_of(await client.keys(), who)
        record = (await client.revoke_key(found.key, reason=reason)).record
    _tell(session.output, record, tr("revoked"))
    return OK


@app.command(epilog=examples("lcq keys rotate", "lcq keys rotate --node gpu-7", "lcq keys rotate --server"))
def rotate(
    context: typer.Context,
    node: Annotated[
        str, typer.Option("--node", metavar="NAME", help="The key of this host's agent of that name.")
    ] = "",
    server: Annotated[bool, typer.Option("--server", help="The schedulers' key: make the next one known.")] = False,
    finish: Annotated[bool, typer.Option("--finish", help="With --server: the next one holds from now on.")] = False,
    as_json: JsonFlag = False,
) -> int:
    """Take another key in the place of this host's, or of the schedulers', while everything runs."""
    session = session_of(context, as_json)
    if server or finish:
        return _rotate_server(session, finish)
    return run(_rotate_own(session, node))


async def _rotate_own(session: Session, node: str) -> int:
    from lcq.client import AsyncClient
    from lcq.joining import change_key

    credential, where = _kept(session, node)
    async with AsyncClient(
        session.config, scheduler=where or None, timeout_s=session.patience_s, credential=credential
    ) as client:
        changed = await change_key(client, credential)
    tell_joined(session.output, changed)
    session.output.talk(
        tr("the one before works for ten minutes more; what runs here takes the new one within seconds")
    )
    return OK


def _rotate_server(session: Session, finish: bool) -> int:
    from lcq.keyring import KeyPair, ServerKeys, read_server_keys, server_file, tell_own_keys, write_server_keys
    from lcq.sockets import new_key_pair

    config, output = session.config, session.output
    keys = read_server_keys(config)
    if keys is None:
        raise InvalidInput(
            f"there is no schedulers' key in {server_file(config)}", hint="say this on a scheduler's host"
        )
    if finish:
        if keys.coming is None:
            raise InvalidInput("no next key was made", hint="first: lcq keys rotate --server")
        changed = ServerKeys(keys.coming, KeyPair(*new_key_pair()), keys.owners)
    elif keys.coming is not None:
        raise InvalidInput(
            f"the next key is known already: {fingerprint_of(keys.coming.public)}",
            hint="once all have connected since: lcq keys rotate --server --finish",
        )
    else:
        changed = ServerKeys(keys.pair, KeyPair(*new_key_pair()), keys.owners)
    write_server_keys(config, changed)
    tell_own_keys(config, keys, changed)
    if output.as_json:
        output.document({"keys": changed.told})
        return OK
    facts = [(tr("schedulers' key"), fingerprint_of(changed.pair.public))]
    output.facts([*facts, (tr("next"), fingerprint_of(changed.told[-1]))])
    if finish:
        output.talk(tr("schedulers take it within seconds; copy the file to the hosts of the others at once"))
        output.talk(
            tr(
                "who has not connected since that key was made does not know it; there: lcq keys trust {key}",
                key=changed.pair.public,
            )
        )
    else:
        output.talk(tr("schedulers tell it to all who connect; copy the file to the hosts of the others"))
        output.talk(tr("when all have been there ('lcq keys list' says when): lcq keys rotate --server --finish"))
    return OK


@app.command(epilog=examples("lcq keys trust KEY", "lcq keys trust KEY --node gpu-7"))
def trust(
    context: typer.Context,
    key: Annotated[
        str, typer.Argument(metavar="KEY", help="The schedulers', as 'lcq keys show' tells it on a host of theirs.")
    ],
    node: Annotated[str, typer.Option("--node", metavar="NAME", help="For this host's agent of that name.")] = "",
    as_json: JsonFlag = False,
) -> int:
    """Know the schedulers by another key: where they have changed theirs while this host was away."""
    return run(_trust(session_of(context, as_json), key.strip().lower(), node))


async def _trust(session: Session, key: str, node: str) -> int:
    from lcq.joining import trust_server

    if not re.match(KEY_FORM, key):
        raise InvalidInput(f"{key[:80]!r} is no key", hint="the public half has 64 hexadecimal digits: lcq keys show")
    credential, where = _kept(session, node)
    trusted = await trust_server(session.config, credential, key, scheduler=where or None, timeout_s=session.patience_s)
    tell_joined(session.output, trusted)
    session.output.talk(tr("a scheduler there has that key; what runs here goes on by it within seconds"))
    return OK


def _kept(session: Session, node: str) -> tuple[Credential, str]:
    """The key of this user, or of the agent that is ``node``, and where schedulers are by it; "": it does not say.

    Raises:
        InvalidInput: there is none.
    """
    from lcq.keyring import agent_file, client_file, read_credential

    path = agent_file(session.config, node) if node else client_file(session.config)
    credential = read_credential(path)
    if credential is None:
        raise InvalidInput(f"there is no key in {path}", hint="'lcq keys show' tells which are here")
    return credential, session.scheduler or ",".join(credential.schedulers)


# ---------------------------------------------------------------- words


def _seconds(span: str) -> int:
    found = re.fullmatch(r"(\d+(?:\.\d+)?)([smhd])", span.strip())
    if not found:
        raise InvalidInput(f"{span!r} is no length of time", hint="such as 15m, 2h or 3d")
    return max(1, round(float(found[1]) * _S[found[2]]))


def _as_name(login: str) -> str:
    return re.sub(r"[^A-Za-z0-9._@+-]", "-", login).lstrip("._@+-")[:64] or "operator"


def _one_of(answer: KeysAnswer, who: str) -> KeyRecord:
    """Raises:
    NotFound, AmbiguousId.
    """
    live = [one for one in answer.keys if not one.revoked_ms and not one.used_by]
    named = [one for one in live if one.name == who and not one.is_invitation]
    found = named or [one for one in live if len(who) >= 4 and one.key.startswith(who.lower())]
    if not found:
        raise NotFound(f"no key of {who!r}", hint="'lcq keys list' shows names and keys")
    if len(found) > 1:
        raise AmbiguousId(who, [one.fingerprint for one in found])
    return found[0]


def _is_of_now(one: KeyRecord, now_ms: int) -> bool:
    return not one.revoked_ms and not one.used_by and (not one.until_ms or now_ms < one.until_ms)


def _tell(output: Output, record: KeyRecord, what: str) -> None:
    if output.as_json:
        output.document(record)
        return
    output.facts([(what, f"{retold(record.name)}, {record.becomes or record.role}  {record.fingerprint}")])


def _as_document(one: Credential) -> dict[str, Any]:
    return {
        "key": one.pair.public, "name": one.name, "role": one.role, "node": one.node, "schedulers": one.schedulers,
        "server_keys": one.server_keys, "file": str(one.file or ""),
    }  # fmt: skip
