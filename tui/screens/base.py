"""What every screen of the console has: its frame of lines, and the commands that work everywhere."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from typing import TYPE_CHECKING, ClassVar

from textual.app import ComposeResult
from textual.binding import BindingType
from textual.containers import Vertical
from textual.message import Message
from textual.screen import Screen
from textual.widget import Widget

from lcq.lang import N, tr
from tui.acts import Act
from tui.commands import Command, Scope, bindings_of, commands_of, footer_of
from tui.desk import Desk
from tui.text import cut, long_span
from tui.widgets.frame import Banner, KeyLine, OneLine, Part, width_of

if TYPE_CHECKING:
    from tui.replay import Playback

MODES = (
    ("fleet", "1", N("Fleet")),
    ("tasks", "2", N("Tasks")),
    ("queues", "3", N("Queues")),
    ("nodes", "4", N("Nodes")),
    ("causes", "5", N("Causes")),
    ("activity", "6", N("Activity")),
)
FURTHER_MODES = (
    ("spend", "7", N("Spend")),
    ("schedules", "8", N("Schedules")),
    ("keys", "9", N("Keys")),
)
"""Views that are named in the title only where one is in them."""
SMALLEST = (60, 15)  # below that a terminal keeps the table and leaves out the rest
_BEHIND_MS = 3_000
_NAMED, _LEAST_NAME = 6, 6  # cells around the name of the cluster, and those of it that are always there


def _trip(took_ms: float | None) -> str:
    """How long a question took, in four cells whatever it is: what stands beside it does not move with it."""
    if took_ms is None:
        return "  --"
    return f"{took_ms:2.0f}ms" if took_ms < 99.5 else f"{took_ms / 1000:.1f}s" if took_ms < 9_950 else ">10s"


class ActWished(Message):
    """The operator wants this done; it asks first if it must."""

    def __init__(self, act: Act) -> None:
        super().__init__()
        self.act = act


class ReasonWished(Message):
    """The operator wants this done, and will be asked why."""

    def __init__(self, act: Act) -> None:
        super().__init__()
        self.act = act


class RowWished(Message):
    """The operator wants to this row of another view."""

    def __init__(self, mode: str, row_id: str) -> None:
        super().__init__()
        self.mode, self.row_id = mode, row_id


class LogWished(Message):
    """The operator wants to read the log of a node, or of a task."""

    def __init__(self, *, node: str = "", task_id: str = "") -> None:
        super().__init__()
        self.node, self.task_id = node, task_id


class Said(Message):
    """Something to tell in the line above the keys."""

    def __init__(self, text: str, *, good: bool = True) -> None:
        super().__init__()
        self.text, self.good = text, good


@dataclass
class PicturesWished(Message):
    """The operator wants to see the pictures of this task."""

    task_id: str


@dataclass
class CompareWished(Message):
    """The operator wants two attempts beside each other: of this task, or of this one and another."""

    task_id: str
    other_id: str = ""


class ConsoleScreen(Screen[None]):
    """A screen with title, banner, body, the last act and the keys.

    The app calls ``show_news`` some times a second, after the views have taken in what is new.
    """

    SCOPES: ClassVar[tuple[Scope, ...]] = (Scope.EVERYWHERE,)
    BINDINGS: ClassVar[list[BindingType]] = [*bindings_of(Scope.EVERYWHERE)]
    MODE = ""

    @dataclass
    class ModeWished(Message):
        """The operator wants another of the views, perhaps with a filter set."""

        mode: str
        filter_text: str | None = None

    class LeaveWished(Message):
        """The operator wants back from ``screen``; at the root that is out."""

        def __init__(self, screen: ConsoleScreen) -> None:
            super().__init__()
            self.screen = screen

    class HelpWished(Message):
        """The operator wants to see all keys."""

    class FreezeWished(Message):
        """The operator wants the picture to hold still, or to move again."""

    @dataclass
    class HistoryWished(Message):
        """The operator wants an earlier view (-1), a later one (1), or the one before this and back (0)."""

        steps: int

    class UndoWished(Message):
        """The operator wants the last act taken back."""

    class SavedViewsWished(Message):
        """The operator wants to look as before, or to keep how it looks now."""

    class ChartsWished(Message):
        """The operator wants the last hour as plots."""

    class AlertsWished(Message):
        """The operator wants to see what needs them, and perhaps hear no more of it."""

    class OtherColoursWished(Message):
        """The operator wants the next of the console's own themes."""

    @dataclass
    class LineWished(Message):
        """The operator wants to type a command, which may have begun already."""

        text: str = ""

    class RepeatWished(Message):
        """The operator wants the last act done again, on what is meant now."""

    @dataclass
    class ReplayWished(Message):
        """The operator wants the replay's time to go otherwise: pause, step, faster, slower or at."""

        what: str

    class SuspendWished(Message):
        """The operator wants their shell back for a while."""

    class RecordWished(Message):
        """The operator wants what is seen recorded, or no longer."""

    class RefetchWished(Message):
        """The operator wants everything read again."""

    def __init__(self, desk: Desk) -> None:
        super().__init__()
        self.desk = desk
        # Held here and not looked up: news may come before all of them are mounted, and while they are closed.
        self._title_line, self._banner = OneLine(id="title"), Banner(id="banner")
        self._act_line, self._key_line = (
            OneLine(id="act"),
            KeyLine(footer_of(self.SCOPES), self._further_views(), id="keys"),
        )

    def _further_views(self) -> list[Command]:
        """The keys of the views that the title names only where one is in them; a screen on top of a view has none."""
        if Scope.TABLE not in self.SCOPES:
            return []
        titles = {f"show_{mode}": title for mode, _, title in FURTHER_MODES if mode != self.MODE}
        return [
            replace(command, label=titles[command.id])
            for command in commands_of(Scope.EVERYWHERE)
            if command.id in titles
        ]

    def compose(self) -> ComposeResult:
        yield self._title_line
        yield self._banner
        with Vertical(id="body"):
            yield from self.compose_body()
        yield self._act_line
        yield self._key_line

    def compose_body(self) -> Iterable[Widget]:
        """The widgets between the banner and the last act."""
        return ()

    def say_nothing_here(self, what: str) -> None:
        """A key was pressed that needs a row, and there is none."""
        self.post_message(Said(tr("nothing to do: {skipped}", skipped=what), good=False))

    @property
    def crumb(self) -> str:
        """What this screen adds to the way here, in the title."""
        return ""

    def on_mount(self) -> None:
        self.show_news()

    def on_screen_resume(self) -> None:
        self.show_news()

    def on_resize(self) -> None:
        self.set_class(self.size.width < SMALLEST[0] or self.size.height < SMALLEST[1], "-tiny")
        self.call_after_refresh(self.show_news)

    # ------------------------------------------------------------ what is shown

    @property
    def is_still(self) -> bool:
        """Whether nothing below the title goes on by the second: then it need not be shown each second anew."""
        return False

    def show_pulse(self) -> None:
        """Show how fresh all of it is."""
        self._show_title()
        self._banner.show(self._trouble())

    def show_news(self) -> None:
        """Show how things are now."""
        self.show_pulse()
        said = self.desk.said
        self._act_line.display = said is not None
        if said is not None:
            undoable = self.desk.undoable
            left = (
                [Part(tr("  UNDO {left:.0f}s  u takes it back ", left=undoable.left_s), "bold", "undo")]
                if undoable
                else []
            )
            self._act_line.show([Part(f" {said.text}", "$foreground" if said.good else "bold $text-error")], left)

    def _show_title(self) -> None:
        rights = self.desk.rights.title
        rights_part = [Part(f" {rights} ", "bold reverse $text-warning"), Part(" ")] if rights else []
        recorder = self.desk.tape.recorder
        if recorder is not None:
            rights_part += [
                Part(tr(" REC {written:.1f}M ", written=recorder.written / 2**20), "reverse $text-warning"),
                Part(" "),
            ]
        freshness = [*self._alerts_part(), *rights_part, *self._freshness(self.desk.link.silence_s)]
        trips = self._round_trips()
        whole, brief = [*trips, *freshness], [*freshness[:-1], Part(" ")]  # without the clock
        if self.crumb:  # how one came here matters more than the ways elsewhere
            ways = [("wide", whole), ("snug", whole), ("alone", whole), ("alone", freshness), ("alone", brief)]
        else:
            ways = [("wide", whole), ("snug", whole), ("wide", freshness), ("snug", freshness), ("tight", brief),
                    ("digits", brief)]  # fmt: skip
        for how, right in ways:
            parts = self._way_here(how, self.size.width - width_of(right))
            if width_of(parts) + width_of(right) <= self.size.width:
                break  # the round trips give way before the names of the views do
        self._title_line.show(parts, right)

    def _alerts_part(self) -> list[Part]:
        """How many alerts there are that nobody has silenced."""
        firing = self.desk.store.firing
        if not firing:
            return []
        worst = "$text-error" if firing[0].severity == "critical" else "$text-warning"
        return [Part(f" !{len(firing)} ", f"bold reverse {worst}", "alerts"), Part(" ")]

    def _way_here(self, how: str, room: int) -> list[Part]:
        """The cluster, the views, and where one is, in so many cells if that can be. ``how``: the views with gaps
        between them ("wide") or without ("snug", "tight"); of the others the numbers ("digits"), or nothing ("alone").
        """
        views: list[Part] = []
        here_too = [one for one in FURTHER_MODES if one[0] == self.MODE]
        for mode, key, title in (*MODES, *here_too):
            here = mode == self.MODE
            if here or how != "alone":
                bare = key if how == "digits" else f"{key} {tr(title)}"
                told = (
                    f" {key} {tr(title)} " if how in ("wide", "snug", "alone") or (here and how == "digits") else bare
                )
                views.append(Part(told, "bold reverse" if here else "$foreground", f"show_{mode}"))
                views.append(Part("" if how == "snug" else " "))
        if self.crumb:
            views.append(Part(f"> {self.crumb} ", "bold"))
        cluster = self.desk.cluster
        if how in ("tight", "digits"):  # which cluster it is matters more than where else one could go
            cluster = cut(cluster, max(_LEAST_NAME, room - _NAMED - width_of(views)))
        return [Part(" LCQ ", "bold $text-primary"), Part(f"{cluster} "), *views]

    def _freshness(self, silence_s: float) -> list[Part]:
        link = self.desk.link
        clock = Part(f"  {datetime.fromtimestamp(link.now_ms / 1000, UTC):%H:%M:%S}Z ", "$foreground")
        if self.desk.tasks.frozen:
            held = self.desk.tasks.held
            return [Part(tr(" FROZEN {held:,} held ", held=held), "bold reverse $text-warning"), clock]
        if self.desk.playback is not None:
            return [Part(tr(" REPLAY {told} ", told=self.desk.playback.told), "bold reverse $text-warning"), clock]
        if link.is_stale and link.since is None:
            return [Part(tr(" NO CLUSTER "), "bold reverse $text-error"), clock]
        if link.is_stale:
            return [
                Part(tr(" STALE {silence} ", silence=long_span(silence_s * 1000)), "bold reverse $text-error"),
                clock,
            ]
        if not link.loaded:
            return [Part(tr(" LOADING "), "bold $text-warning"), clock]
        if link.control_trouble:
            return [Part(tr(" NO SCHEDULER "), "bold reverse $text-error"), clock]
        if link.behind_ms > _BEHIND_MS:
            return [
                Part(tr(" BEHIND {behind} ", behind=long_span(link.behind_ms)), "bold reverse $text-warning"),
                clock,
            ]
        return [Part(tr("LIVE {silence:.1f}s", silence=max(silence_s, link.behind_ms / 1000)), "$text-success"), clock]

    def _round_trips(self) -> list[Part]:
        """How long a question to Redis and one to a scheduler take, there and back."""
        link = self.desk.link
        if self.desk.playback is not None or not link.loaded:
            return []
        pairs = (("redis", link.redis_ms), ("zmq", link.control_ms))
        told = (f"{name} {_trip(took)}" for name, took in pairs)
        return [Part(f" {' '.join(told)} ", "$text-muted")]

    def _trouble(self) -> str:
        link, playback = self.desk.link, self.desk.playback
        if playback is not None:
            return self._about_replay(playback)
        if not link.is_stale:
            return self._no_control()
        reason = link.trouble or tr("the cluster does not answer")
        if link.since is None:
            return tr(" Waiting for the cluster: {reason}", reason=reason)
        silence = long_span(link.silence_s * 1000)
        return tr(
            " No news since {since:%H:%M:%S}Z ({silence}); below is how it was then. {reason}",
            since=link.since,
            silence=silence,
            reason=reason,
        )

    def _about_replay(self, playback: Playback) -> str:
        day = f"{datetime.fromtimestamp(self.desk.link.now_ms / 1000, UTC):%Y-%m-%d}"
        keys = tr("\\ stands still or goes on, ; next event, ( ) speed, @ time, q leaves")
        problem = f" {playback.problem}." if playback.problem else ""
        silent_ms = playback.silent_since_ms
        if silent_ms is not None:
            since = datetime.fromtimestamp(silent_ms / 1000, UTC)
            problem += tr(" The console saw nothing from {since:%H:%M:%S}Z on: below is how it was then.", since=since)
        return tr(
            " REPLAY of {cluster}, {day}: nothing here is live, acts are refused.{problem} {keys}",
            cluster=self.desk.cluster,
            day=day,
            problem=problem,
            keys=keys,
        )

    def _no_control(self) -> str:
        link = self.desk.link
        if not link.control_trouble and link.loaded and link.settings_trouble:
            return tr(" The scheduler's settings stay as they were: {error}", error=link.settings_trouble)
        if not link.control_trouble or not link.loaded:
            return ""
        since = (
            tr(" since {control_lost_at:%H:%M:%S}Z", control_lost_at=link.control_lost_at)
            if link.control_lost_at is not None
            else ""
        )
        what = tr("acts are refused until one does; what is shown is live.")
        said = link.control_trouble != tr("no scheduler answers")  # the banner's own first words
        return tr(
            " No scheduler answers{since}: {what} {control_trouble}",
            since=since,
            what=what,
            control_trouble=link.control_trouble if said else "",
        ).rstrip()

    # ------------------------------------------------------------ commands that work everywhere

    def action_help(self) -> None:
        self.post_message(self.HelpWished())

    def action_back(self) -> None:
        self.action_leave()

    def action_leave(self) -> None:
        self.post_message(self.LeaveWished(self))

    def action_show_fleet(self) -> None:
        self.post_message(self.ModeWished("fleet"))

    def action_show_tasks(self) -> None:
        self.post_message(self.ModeWished("tasks"))

    def action_show_queues(self) -> None:
        self.post_message(self.ModeWished("queues"))

    def action_show_nodes(self) -> None:
        self.post_message(self.ModeWished("nodes"))

    def action_show_causes(self) -> None:
        self.post_message(self.ModeWished("causes"))

    def action_show_activity(self) -> None:
        self.post_message(self.ModeWished("activity"))

    def action_show_spend(self) -> None:
        self.post_message(self.ModeWished("spend"))

    def action_show_schedules(self) -> None:
        self.post_message(self.ModeWished("schedules"))

    def action_show_keys(self) -> None:
        self.post_message(self.ModeWished("keys"))

    def action_freeze(self) -> None:
        self.post_message(self.FreezeWished())

    def action_earlier_view(self) -> None:
        self.post_message(self.HistoryWished(-1))

    def action_later_view(self) -> None:
        self.post_message(self.HistoryWished(1))

    def action_last_view(self) -> None:
        self.post_message(self.HistoryWished(0))

    def action_show_history(self) -> None:
        self.post_message(self.ModeWished("activity"))

    def action_command_line(self) -> None:
        self.post_message(self.LineWished())

    def action_repeat(self) -> None:
        self.post_message(self.RepeatWished())

    def action_undo(self) -> None:
        self.post_message(self.UndoWished())

    def action_refetch(self) -> None:
        self.post_message(self.RefetchWished())

    def action_saved_views(self) -> None:
        self.post_message(self.SavedViewsWished())

    def action_next_theme(self) -> None:
        self.post_message(self.OtherColoursWished())

    def action_alerts(self) -> None:
        self.post_message(self.AlertsWished())

    def action_charts(self) -> None:
        self.post_message(self.ChartsWished())

    def action_record(self) -> None:
        self.post_message(self.RecordWished())

    def action_replay_pause(self) -> None:
        self.post_message(self.ReplayWished("pause"))

    def action_replay_step(self) -> None:
        self.post_message(self.ReplayWished("step"))

    def action_replay_faster(self) -> None:
        self.post_message(self.ReplayWished("faster"))

    def action_replay_slower(self) -> None:
        self.post_message(self.ReplayWished("slower"))

    def action_replay_at(self) -> None:
        self.post_message(self.ReplayWished("at"))

    def action_suspend(self) -> None:
        self.post_message(self.SuspendWished())
