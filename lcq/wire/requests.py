"""Which requests there are, by command, and how a scheduler reads one."""

from __future__ import annotations

from typing import Any

from pydantic import ValidationError

from lcq.errors import ProtocolError, UnknownCommand, VersionMismatch
from lcq.models import explain_invalid
from lcq.wire.acts import (
    Acknowledge,
    Activate,
    Cancel,
    CancelJob,
    Comment,
    Drain,
    DrainIdle,
    LabelNode,
    NoteJob,
    Pause,
    PauseJob,
    Prioritise,
    PrioritiseJob,
    Quarantine,
    Release,
    Reroute,
    RerouteJob,
    Resume,
    ResumeJob,
    Retry,
    RetryJob,
    SetDeadline,
    SetDevice,
    SetPrivacy,
    StopNode,
    Submit,
    Undo,
    WarmFunction,
)
from lcq.wire.alerts import AskAlerts, SilenceAlert, TestAlerts, UnsilenceAlert
from lcq.wire.frames import unpacked
from lcq.wire.keys import EnrolKey, InviteKey, Join, ListKeys, ReplaceKey, RevokeKey
from lcq.wire.message import OLDEST_PROTOCOL, PROTOCOL_VERSION, Request
from lcq.wire.nodes import (
    Beat,
    Bye,
    Hello,
    Logged,
    OpenCall,
    Pictured,
    Probed,
    Retake,
    Saw,
    Step,
    TaskLogged,
    Warm,
    Warmed,
)
from lcq.wire.questions import (
    Acts,
    AskFunctions,
    AskSees,
    AskSettings,
    AskSpend,
    AskStore,
    AskThumbnail,
    AskWhy,
    AskWhys,
    Autoscale,
    Costs,
    Dead,
    Events,
    Find,
    Foresee,
    GetTasks,
    History,
    Info,
    Jobs,
    ListTasks,
    Nodes,
    Queues,
    ReadLog,
    ReadTaskLog,
    Report,
    ReportJob,
)
from lcq.wire.schedules import PauseSchedule, ResumeSchedule, RunSchedule, Schedules

REQUESTS: dict[str, type[Request[Any]]] = {
    kind.CMD: kind
    for kind in (
        Hello, Step, Beat, Retake, OpenCall, Probed, Bye, Submit, Cancel, Retry, Reroute, Prioritise, Pause, Resume,
        Drain, Activate, Quarantine, Release, StopNode, SetDevice, LabelNode, PauseJob, ResumeJob, CancelJob, RetryJob,
        RerouteJob, PrioritiseJob, NoteJob, Info, AskSettings, AskWhys,
        Undo, Comment, Acknowledge, Foresee, SetDeadline, SetPrivacy,
        Acts, Find, GetTasks, ListTasks, Dead, History, AskWhy, Costs, Nodes, Queues, Jobs, ReportJob, Report, Events,
        Autoscale, AskSpend, DrainIdle, AskStore, AskSees, Saw, AskThumbnail, Pictured, ReadLog, Logged,
        ReadTaskLog, TaskLogged, Report, Schedules, RunSchedule, PauseSchedule, ResumeSchedule,
        ListKeys, EnrolKey, InviteKey, RevokeKey, Join, ReplaceKey,
        AskAlerts, SilenceAlert, UnsilenceAlert, TestAlerts,
        AskFunctions, WarmFunction, Warm, Warmed,
    )
}  # fmt: skip


def unpack_request(frame: bytes) -> Request[Any]:
    """Raises:
    ProtocolError: the frame, its version, its command or one of its fields cannot be understood.
        ``request_id`` of the error holds the id to answer to, where there was one.
    """
    values = unpacked(frame)
    request_id = str(values.get("id", ""))
    version = values.get("v")
    try:
        command = values.get("cmd")
        if not (type(version) is int and OLDEST_PROTOCOL <= version <= PROTOCOL_VERSION):
            raise VersionMismatch(
                f"this scheduler speaks protocol {PROTOCOL_VERSION}, and older ones from {OLDEST_PROTOCOL} on; "
                f"the message has {version!r}",
                hint="bring schedulers to the newest LCQ version first, then agents and clients",
            )
        kind = REQUESTS.get(command) if isinstance(command, str) else None
        if kind is None:
            raise UnknownCommand(
                f"protocol {PROTOCOL_VERSION} has no command {command!r}",
                hint="is the peer newer than this scheduler? 'lcq version' tells both",
            )
        try:
            request = kind.model_validate(values, extra="ignore")
        except ValidationError as error:
            raise ProtocolError(f"{command}: {explain_invalid(error)}") from error
    except ProtocolError as error:
        error.request_id = request_id
        if not isinstance(error, VersionMismatch):
            error.peer_version = version
        raise
    request._version = version
    return request
