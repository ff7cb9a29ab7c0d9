"""The words of the control socket and the tickets: every message as a typed model.

A request is a msgpack map ``{v, id, cmd, …}``; its answer ``{v, id, ok: {…}}`` or
``{v, id, error: {code, message, hint}}``. Unknown fields are ignored; an unknown command or version is
refused by name. A command's id makes it safe to send twice: the second time gets the first one's answer.
Where several schedulers live, an answer also has their addresses: ``schedulers: […]``.
No image ever travels here, only small ones to look at, made when somebody does (decision 14); and no pickle.

The names are found when they are first used: an agent has no use for what operators ask, and is started often.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from lcq.wire.acts import Accepted as Accepted
    from lcq.wire.acts import Acknowledge as Acknowledge
    from lcq.wire.acts import Act as Act
    from lcq.wire.acts import Activate as Activate
    from lcq.wire.acts import AsideAnswer as AsideAnswer
    from lcq.wire.acts import BulkAnswer as BulkAnswer
    from lcq.wire.acts import Cancel as Cancel
    from lcq.wire.acts import CancelJob as CancelJob
    from lcq.wire.acts import Comment as Comment
    from lcq.wire.acts import Drain as Drain
    from lcq.wire.acts import DrainIdle as DrainIdle
    from lcq.wire.acts import DrainIdleAnswer as DrainIdleAnswer
    from lcq.wire.acts import JobActAnswer as JobActAnswer
    from lcq.wire.acts import LabelNode as LabelNode
    from lcq.wire.acts import NoteJob as NoteJob
    from lcq.wire.acts import Pause as Pause
    from lcq.wire.acts import PauseJob as PauseJob
    from lcq.wire.acts import Prioritise as Prioritise
    from lcq.wire.acts import PrioritiseJob as PrioritiseJob
    from lcq.wire.acts import Quarantine as Quarantine
    from lcq.wire.acts import Refusals as Refusals
    from lcq.wire.acts import Release as Release
    from lcq.wire.acts import Reroute as Reroute
    from lcq.wire.acts import RerouteJob as RerouteJob
    from lcq.wire.acts import Resume as Resume
    from lcq.wire.acts import ResumeJob as ResumeJob
    from lcq.wire.acts import Retry as Retry
    from lcq.wire.acts import RetryJob as RetryJob
    from lcq.wire.acts import SetDeadline as SetDeadline
    from lcq.wire.acts import SetDevice as SetDevice
    from lcq.wire.acts import SetPrivacy as SetPrivacy
    from lcq.wire.acts import StopNode as StopNode
    from lcq.wire.acts import Submit as Submit
    from lcq.wire.acts import SubmitAnswer as SubmitAnswer
    from lcq.wire.acts import Undo as Undo
    from lcq.wire.acts import WarmFunction as WarmFunction
    from lcq.wire.acts import WarmFunctionAnswer as WarmFunctionAnswer
    from lcq.wire.alerts import AlertsAnswer as AlertsAnswer
    from lcq.wire.alerts import AskAlerts as AskAlerts
    from lcq.wire.alerts import ReceiverTold as ReceiverTold
    from lcq.wire.alerts import RuleTold as RuleTold
    from lcq.wire.alerts import SilenceAlert as SilenceAlert
    from lcq.wire.alerts import TestAlerts as TestAlerts
    from lcq.wire.alerts import TestAlertsAnswer as TestAlertsAnswer
    from lcq.wire.alerts import UnsilenceAlert as UnsilenceAlert
    from lcq.wire.frames import Reply as Reply
    from lcq.wire.frames import Ticket as Ticket
    from lcq.wire.frames import pack_answer as pack_answer
    from lcq.wire.frames import pack_error as pack_error
    from lcq.wire.frames import pack_order as pack_order
    from lcq.wire.frames import pack_request as pack_request
    from lcq.wire.frames import pack_ticket as pack_ticket
    from lcq.wire.frames import unpack_reply as unpack_reply
    from lcq.wire.frames import unpack_ticket as unpack_ticket
    from lcq.wire.keys import EnrolKey as EnrolKey
    from lcq.wire.keys import InviteKey as InviteKey
    from lcq.wire.keys import Join as Join
    from lcq.wire.keys import KeyAnswer as KeyAnswer
    from lcq.wire.keys import KeysAnswer as KeysAnswer
    from lcq.wire.keys import ListKeys as ListKeys
    from lcq.wire.keys import RefusedHandshakes as RefusedHandshakes
    from lcq.wire.keys import ReplaceKey as ReplaceKey
    from lcq.wire.keys import RevokeKey as RevokeKey
    from lcq.wire.message import MAX_BATCH as MAX_BATCH
    from lcq.wire.message import MAX_LOG as MAX_LOG
    from lcq.wire.message import MAX_MESSAGE_BYTES as MAX_MESSAGE_BYTES
    from lcq.wire.message import MOST_IN_HAND as MOST_IN_HAND
    from lcq.wire.message import OLDEST_PROTOCOL as OLDEST_PROTOCOL
    from lcq.wire.message import PROTOCOL_VERSION as PROTOCOL_VERSION
    from lcq.wire.message import AnswerT as AnswerT
    from lcq.wire.message import Done as Done
    from lcq.wire.message import Message as Message
    from lcq.wire.message import Refusal as Refusal
    from lcq.wire.message import Request as Request
    from lcq.wire.nodes import MOST_LOG_CHARS as MOST_LOG_CHARS
    from lcq.wire.nodes import MOST_LOG_LINES as MOST_LOG_LINES
    from lcq.wire.nodes import Beat as Beat
    from lcq.wire.nodes import BeatAnswer as BeatAnswer
    from lcq.wire.nodes import Bye as Bye
    from lcq.wire.nodes import CallAnswer as CallAnswer
    from lcq.wire.nodes import Grant as Grant
    from lcq.wire.nodes import Hello as Hello
    from lcq.wire.nodes import HelloAnswer as HelloAnswer
    from lcq.wire.nodes import Logged as Logged
    from lcq.wire.nodes import LogLine as LogLine
    from lcq.wire.nodes import LogWish as LogWish
    from lcq.wire.nodes import OpenCall as OpenCall
    from lcq.wire.nodes import Order as Order
    from lcq.wire.nodes import Orders as Orders
    from lcq.wire.nodes import Outcome as Outcome
    from lcq.wire.nodes import Pictured as Pictured
    from lcq.wire.nodes import Probed as Probed
    from lcq.wire.nodes import Retake as Retake
    from lcq.wire.nodes import RetakeAnswer as RetakeAnswer
    from lcq.wire.nodes import Running as Running
    from lcq.wire.nodes import Saw as Saw
    from lcq.wire.nodes import SeenFile as SeenFile
    from lcq.wire.nodes import SeeWish as SeeWish
    from lcq.wire.nodes import Step as Step
    from lcq.wire.nodes import StepAnswer as StepAnswer
    from lcq.wire.nodes import TaskLogged as TaskLogged
    from lcq.wire.nodes import TaskLogWish as TaskLogWish
    from lcq.wire.nodes import ThumbnailPart as ThumbnailPart
    from lcq.wire.nodes import ThumbnailWish as ThumbnailWish
    from lcq.wire.nodes import Verdict as Verdict
    from lcq.wire.nodes import Want as Want
    from lcq.wire.nodes import Warm as Warm
    from lcq.wire.nodes import WarmAnswer as WarmAnswer
    from lcq.wire.nodes import Warmed as Warmed
    from lcq.wire.nodes import WarmWish as WarmWish
    from lcq.wire.questions import MOST_WHYS as MOST_WHYS
    from lcq.wire.questions import Acts as Acts
    from lcq.wire.questions import ActsAnswer as ActsAnswer
    from lcq.wire.questions import AskFunctions as AskFunctions
    from lcq.wire.questions import AskSees as AskSees
    from lcq.wire.questions import AskSettings as AskSettings
    from lcq.wire.questions import AskSpend as AskSpend
    from lcq.wire.questions import AskStore as AskStore
    from lcq.wire.questions import AskThumbnail as AskThumbnail
    from lcq.wire.questions import AskWhy as AskWhy
    from lcq.wire.questions import AskWhys as AskWhys
    from lcq.wire.questions import Autoscale as Autoscale
    from lcq.wire.questions import AutoscaleAnswer as AutoscaleAnswer
    from lcq.wire.questions import Costs as Costs
    from lcq.wire.questions import CostsAnswer as CostsAnswer
    from lcq.wire.questions import CostStats as CostStats
    from lcq.wire.questions import Dead as Dead
    from lcq.wire.questions import DeadAnswer as DeadAnswer
    from lcq.wire.questions import Events as Events
    from lcq.wire.questions import EventsAnswer as EventsAnswer
    from lcq.wire.questions import Find as Find
    from lcq.wire.questions import FindAnswer as FindAnswer
    from lcq.wire.questions import Foresee as Foresee
    from lcq.wire.questions import ForeseeAnswer as ForeseeAnswer
    from lcq.wire.questions import Foreseen as Foreseen
    from lcq.wire.questions import FunctionsAnswer as FunctionsAnswer
    from lcq.wire.questions import GetTasks as GetTasks
    from lcq.wire.questions import GetTasksAnswer as GetTasksAnswer
    from lcq.wire.questions import History as History
    from lcq.wire.questions import HistoryAnswer as HistoryAnswer
    from lcq.wire.questions import Info as Info
    from lcq.wire.questions import InfoAnswer as InfoAnswer
    from lcq.wire.questions import Jobs as Jobs
    from lcq.wire.questions import JobsAnswer as JobsAnswer
    from lcq.wire.questions import ListTasks as ListTasks
    from lcq.wire.questions import ListTasksAnswer as ListTasksAnswer
    from lcq.wire.questions import LogAnswer as LogAnswer
    from lcq.wire.questions import Nodes as Nodes
    from lcq.wire.questions import NodesAnswer as NodesAnswer
    from lcq.wire.questions import Queues as Queues
    from lcq.wire.questions import QueuesAnswer as QueuesAnswer
    from lcq.wire.questions import ReadLog as ReadLog
    from lcq.wire.questions import ReadTaskLog as ReadTaskLog
    from lcq.wire.questions import Report as Report
    from lcq.wire.questions import ReportAnswer as ReportAnswer
    from lcq.wire.questions import ReportJob as ReportJob
    from lcq.wire.questions import ReportJobAnswer as ReportJobAnswer
    from lcq.wire.questions import SeesAnswer as SeesAnswer
    from lcq.wire.questions import SettingsAnswer as SettingsAnswer
    from lcq.wire.questions import SpendAnswer as SpendAnswer
    from lcq.wire.questions import SpendBook as SpendBook
    from lcq.wire.questions import StoreAnswer as StoreAnswer
    from lcq.wire.questions import TaskLogAnswer as TaskLogAnswer
    from lcq.wire.questions import ThumbnailAnswer as ThumbnailAnswer
    from lcq.wire.questions import WhyAnswer as WhyAnswer
    from lcq.wire.questions import WhysAnswer as WhysAnswer
    from lcq.wire.requests import REQUESTS as REQUESTS
    from lcq.wire.requests import unpack_request as unpack_request
    from lcq.wire.schedules import PauseSchedule as PauseSchedule
    from lcq.wire.schedules import RanSchedule as RanSchedule
    from lcq.wire.schedules import ResumeSchedule as ResumeSchedule
    from lcq.wire.schedules import RunSchedule as RunSchedule
    from lcq.wire.schedules import ScheduleRecord as ScheduleRecord
    from lcq.wire.schedules import Schedules as Schedules
    from lcq.wire.schedules import SchedulesAnswer as SchedulesAnswer
    from lcq.wire.schedules import WindowRecord as WindowRecord

_HOMES = ("message", "nodes", "frames", "acts", "questions", "alerts", "schedules", "keys", "requests")
"""In this order they are looked through."""


def __getattr__(name: str) -> Any:
    if not name.startswith("_"):
        for home in _HOMES:
            module = import_module(f"lcq.wire.{home}")
            if name in vars(module):
                return getattr(module, name)
    raise AttributeError(f"module 'lcq.wire' has no attribute {name!r}")
