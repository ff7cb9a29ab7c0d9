"""Who may say what on the control socket: the roles of keys, and the commands of each. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import Any

from lcq.errors import KeyForbids
from lcq.key_record import OF_PEOPLE, KeyRecord, KeyRole
from lcq.wire.acts import Act
from lcq.wire.message import Request

_ASKED_BY_AGENTS = frozenset({"get_tasks", "history", "store"})  # what has become of their tasks; where bytes go
_OF_SUBMITTERS = frozenset({"submit", "note_job"})
OWN_TASKS_ONLY = frozenset({"cancel", "retry", "comment", "set_privacy"})
"""What a submitter may have done to tasks that it has submitted itself."""
_OF_ANYBODY = frozenset({"replace_key"})  # its own
_JOIN = "join"


def roles_for(kind: type[Request[Any]]) -> frozenset[KeyRole]:
    """The roles whose keys may say this."""
    command = kind.CMD
    if command == _JOIN:
        return frozenset({KeyRole.INVITED})
    if command in _OF_ANYBODY:
        return frozenset({KeyRole.AGENT, *OF_PEOPLE})
    if "boot_id" in kind.model_fields:  # only agents have one
        return frozenset({KeyRole.AGENT})
    if command in _OF_SUBMITTERS or command in OWN_TASKS_ONLY:
        return frozenset({KeyRole.SUBMITTER, KeyRole.OPERATOR})
    if issubclass(kind, Act):
        return frozenset({KeyRole.OPERATOR})
    more = (KeyRole.AGENT,) if command in _ASKED_BY_AGENTS else ()
    return frozenset({*OF_PEOPLE, *more})


def refuse_for(holder: KeyRecord, request: Request[Any], owners: Mapping[str, str] = MappingProxyType({})) -> None:
    """``owners``: by whom the tasks that it is about were submitted, by id.

    Raises:
        KeyForbids: this holder's key is not for that.
    """
    allowed = roles_for(type(request))
    who = f"{holder.name}, whose key is {_an(holder.role)}'s,"
    if holder.role not in allowed:
        needed = [role.value for role in KeyRole if role in allowed]
        raise KeyForbids(f"{who} may not {request.CMD.replace('_', ' ')}", needed)
    if holder.role is KeyRole.AGENT:
        node = getattr(request, "node_id", None)
        if node is not None and node != holder.node:
            raise KeyForbids(
                f"{who} speaks for node {holder.node}, not for {node}",
                (),
                hint=f"start it with --name {holder.node}, or have it join again as {node}: "
                "'lcq keys invite --role agent'",
            )
    if holder.role is KeyRole.SUBMITTER and request.CMD in OWN_TASKS_ONLY:
        foreign = next((task for task, owner in owners.items() if owner != holder.name), None)
        if foreign is not None:
            verb = request.CMD.replace("_", " ")
            raise KeyForbids(f"{who} may not {verb} task {foreign} of others", [KeyRole.OPERATOR.value])


def _an(role: KeyRole) -> str:
    return f"{'an' if role.value[0] in 'aeio' else 'a'} {role.value}"
