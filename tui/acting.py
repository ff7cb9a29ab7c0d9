"""How the console acts: it asks as the risk demands, sends what was meant, and says what became of each id.

Every act goes through ``_do``, the one door that looks whether this console may act and whether what it shows is fresh.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from datetime import timedelta
from types import MappingProxyType
from typing import TYPE_CHECKING, ClassVar

from textual import on, work
from textual.binding import BindingType

from lcq.errors import LcqError
from lcq.lang import N, retold, retold_error, tr
from lcq.models import NodeStatus, Privacy, TaskPriority, TaskStatus
from lcq.task_fields import parse_where
from tui import acts
from tui.acts import Act, told
from tui.commands import Command, Scope
from tui.line import LineHistory, Meant, Scene
from tui.orderly import OrderlyApp
from tui.screens.base import ActWished, ConsoleScreen, ReasonWished
from tui.screens.causes import CausesScreen, died_of
from tui.screens.dialogs import Choice, Chooser, Question
from tui.screens.listing import ListScreen
from tui.screens.nodes import NodesScreen
from tui.screens.queues import QueuesScreen
from tui.screens.task_acts import TaskActs
from tui.source import trouble_of
from tui.store import TaskRow, task_row
from tui.text import counted, long_span
from tui.widgets.table import LineTable

if TYPE_CHECKING:
    from lcq.alerts.records import AlertRecord, Silence
    from lcq.wire import BulkAnswer
    from tui.desk import Desk
    from tui.keymap import UserKeys
    from tui.submitting import Sent

WHY = N("why (others will read it)")
_TOLD_EVERY = 5_000  # tasks that were looked for, between two words about it


class ActingApp(OrderlyApp):
    """The part of the console's application that changes the cluster."""

    BINDINGS: ClassVar[list[BindingType]] = []

    def __init__(
        self, desk: Desk, *, user: str, user_keys: UserKeys = MappingProxyType({}), ansi_color: bool | None = None
    ) -> None:
        super().__init__(ansi_color=ansi_color)
        self.user_keys = user_keys
        self.set_keymap({command_id: ",".join(keys) for command_id, keys in user_keys.items()})
        self.desk = desk
        self._user = user
        self._last: Act | None = None  # that was done to tasks, to be repeated on others
        self._lines = LineHistory()

    def say(self, text: str, *, good: bool = True) -> None:
        """Show one line about what became of an act."""
        self.desk.say(text, good=good)

    # ------------------------------------------------------------ the one door

    def _may(self, title: str) -> bool:
        """Whether acts may be sent now; where not, it is said why."""
        refused = self.desk.refusal
        if refused:
            self.say(tr("{title}: not done: {refused}", title=title, refused=refused), good=False)
        return not refused

    @on(ActWished)
    def _act_wished(self, wish: ActWished) -> None:
        self.perform(wish.act)

    @work(group="acts")
    async def perform(self, act: Act, reason: str = "") -> None:
        """Ask if the act must be asked about, then do it. It goes to the ids it was made for, whatever moves."""
        await self._ask_and_do(act, reason)

    async def _ask_and_do(self, act: Act, reason: str = "") -> None:
        if not self._may(act.title):
            return
        if not act.ids and act.skipped:
            self.say(tr("nothing to do: {skipped}", skipped=act.skipped), good=False)
            return
        if act.asks:
            asked = "" if reason else tr(WHY)
            question = Question(
                f"{act.title}?", act.lines, act.go, reason=asked, word=act.word, starts_at_no=not act.word
            )
            answer = await self.push_screen_wait(question)
            if answer is None:
                self.say(tr("{title}: left as it is", title=act.title))
                return
            reason = reason or answer
        await self._do(act, reason)

    async def _do(self, act: Act, reason: str) -> None:
        if not self._may(act.title):  # it may have changed while the question was open
            return
        async with self.desk.made.turn(act.ids):
            await self._do_now(self._as_made(act), reason)

    def _as_made(self, act: Act) -> Act:
        """The act on what the operator's own acts have made of its tasks since the key was pressed."""
        renewed = self.desk.made.renewed(act.rows) if act.again is not None else None
        return act if renewed is None or act.again is None else act.again(renewed)

    def _note_made(self, act: Act, answer: BulkAnswer) -> None:
        """Take in at once what an act has made: the next one may come before the news."""
        made, rows = self.desk.made, {row.id: row for row in act.rows}
        for task_id, revision in zip(answer.done, answer.revisions, strict=False):  # an older scheduler tells none
            row = rows.get(task_id)
            if row is not None:
                made.note(task_id, row.acts_on, revision, act.bands.get(task_id))
                self.desk.store.put_acted(made.of(row))

    async def _do_now(self, act: Act, reason: str) -> None:
        if not act.ids and act.skipped:
            self.say(tr("nothing to do: {skipped}", skipped=act.skipped), good=False)
            return
        self.say(f"{act.title} …")
        try:
            answer = await act.run(self.desk.commander, reason)
        except (LcqError, OSError, TimeoutError) as error:
            self.say(tr("{title}: not done: {error}", title=act.title, error=trouble_of(error)), good=False)
            return
        self._note_made(act, answer)
        self.desk.feed.recount()
        self.desk.tasks.marks -= set(answer.done)  # what was refused stays marked
        if answer.done:  # what was refused leaves what can be taken back as it is
            self.desk.note_done(act.title, answer.acts)
        if act.again is not None:
            self._last = act
        text, good = told(act, answer)
        self.say(text, good=good)

    # ------------------------------------------------------------ back, and again

    @on(ConsoleScreen.UndoWished)
    def _undo_wished(self) -> None:
        done = self.desk.undoable
        if done is None:
            self.say(tr("nothing of yours can be taken back: an act can for 15 s, and none is that young"), good=False)
            return
        if not self._may(tr("Take back: {title}", title=done.title)):
            return
        self.desk.note_done("", ())  # once
        self.perform(acts.undo(done.title, done.commands))

    @on(ConsoleScreen.RepeatWished)
    def _repeat_wished(self) -> None:
        screen, last = self.screen, self._last
        if last is None or last.again is None:
            self.say(tr("nothing to repeat: no act on tasks has been done here yet"), good=False)
        elif not isinstance(screen, TaskActs):
            self.say(tr("{title!r} is repeated on tasks: go to them first (2)", title=last.title), good=False)
        else:
            screen.wish(last.again)

    # ------------------------------------------------------------ the command line

    @property
    def context_names(self) -> Sequence[str]:
        """The clusters that ``:ctx`` can go to."""
        return ()

    @on(ConsoleScreen.LineWished)
    def _line_wished(self, wish: ConsoleScreen.LineWished) -> None:
        self._ask_for_line(wish.text)

    @work(group="line", exclusive=True)
    async def _ask_for_line(self, text: str) -> None:
        from tui.screens.command_line import CommandLine  # here, as all that no first frame needs

        screen = self.screen
        if not isinstance(screen, ConsoleScreen):
            return
        marked: Sequence[TaskRow] = ()
        cursor = None
        if isinstance(screen, TaskActs):
            cursor = screen.row_here
            marked = screen.act_rows() if self.desk.tasks.marks else ()
        scene = Scene(self.desk, screen.SCOPES, marked, cursor, self.context_names)
        meant = await self.push_screen_wait(CommandLine(scene, self._lines, text))
        if meant is not None:
            await self._do_what_is_meant(meant, screen)

    async def _do_what_is_meant(self, meant: Meant, screen: ConsoleScreen) -> None:
        if meant.act is not None:
            unsure = isinstance(screen, TaskActs) and screen.unsure and meant.act.again is not None
            await self._ask_and_do(meant.act.made_to_ask() if unsure else meant.act, meant.reason)
        elif meant.make is not None:
            self.perform_on_all(meant.make, meant.where, meant.reason)
        elif meant.command is not None:
            await self._run_line(meant.command, meant.words, meant.reason, screen)

    async def _run_line(self, command: Command, words: Sequence[str], reason: str, screen: ConsoleScreen) -> None:
        match command.id, *words:
            case "move_backlog", queue, target:
                if self._may(tr("Move the backlog of {queue}", queue=queue)):
                    await self._move_backlog(queue, target, reason)
            case "empty_queue", queue:
                self._ask_empty(queue, reason)
            case "lend_rights", seconds:
                try:
                    self.say(self.desk.rights.lend(timedelta(seconds=float(seconds))))
                except LcqError as refusal:
                    self.say(retold_error(refusal), good=False)
            case "read_only", *_:
                self.say(self.desk.rights.give_back())
            case "quit_console", *_:
                self.quit_console()
            case "switch_context", name:
                self.switch_context(name)
            case "filter", text:
                if isinstance(screen, ListScreen):
                    screen.set_filter_text(text)
            case _, text if command.id.startswith("show_"):
                screen.post_message(ConsoleScreen.ModeWished(command.id.removeprefix("show_"), text))
            case _:
                where = screen.query_one(LineTable) if command.scope is Scope.TABLE else screen
                await where.run_action(command.id)

    def quit_console(self) -> None:
        """Ask whether to leave."""

    def switch_context(self, name: str) -> None:
        """Go to another cluster; with "", let the operator choose one."""

    # ------------------------------------------------------------ tasks, wherever they are

    async def matching(self, where: str, *, title: str) -> list[TaskRow] | None:
        """All tasks that the filter fits, as they are now: also those beyond the window, which the scheduler is asked
        for. None where that failed, which is then said."""
        store, now = self.desk.store, self.desk.link.now_ms
        try:
            parse_where(where)
            if not store.beyond:
                fits = self.desk.tasks.parsed(where).matches
                return [row for row in store.tasks.rows.values() if fits(row, now)]
            found = []
            async for record in self.desk.commander.matching(where):
                found.append(task_row(record))
                if len(found) % _TOLD_EVERY == 0:
                    self.say(tr("{title}: {count:,} tasks found so far …", title=title, count=len(found)))
        except (LcqError, OSError, TimeoutError) as error:
            self.say(tr("{title}: not done: {error}", title=title, error=trouble_of(error)), good=False)
            return None
        return found

    @on(TaskActs.WideActWished)
    def _wide_act_wished(self, wish: TaskActs.WideActWished) -> None:
        self.perform_on_all(wish.make, wish.where)

    @work(group="acts")
    async def perform_on_all(self, make: Callable[[Sequence[TaskRow]], Act], where: str, reason: str = "") -> None:
        """Do an act on all that a filter fits, after it has been asked about."""
        title = make(()).title.replace(
            counted(0, "task"), tr("all that fit {where!r}", where=where) if where else tr("all tasks")
        )
        if not self._may(title):
            return
        rows = await self.matching(where, title=title)
        if rows is not None:
            await self._ask_and_do(make(rows).made_to_ask(), reason)

    @on(TaskActs.MoveWished)
    def _move_wished(self, wish: TaskActs.MoveWished) -> None:
        self._ask_where(wish.rows, asks=wish.asks, where=wish.where)

    @on(CausesScreen.GroupMoveWished)
    def _group_move_wished(self, wish: CausesScreen.GroupMoveWished) -> None:
        self._ask_where(wish.rows, asks=True, where=None)

    @on(CausesScreen.WideGroupWished)
    @work(group="acts")
    async def _wide_group_wished(self, wish: CausesScreen.WideGroupWished) -> None:
        """The tasks of causes, looked for by the scheduler: the window has not all of them."""
        title = tr("Move all that failed so") if wish.moves else tr("Retry all that failed so")
        if not self._may(title):
            return
        found: dict[str, TaskRow] = {}
        for code in dict.fromkeys(cause.code for cause in wish.causes):
            rows = await self.matching(f"state:failed cause={code}", title=title)
            if rows is None:
                return
            found |= {row.id: row for row in rows if any(died_of(row, cause) for cause in wish.causes)}
        if not found:
            self.say(tr("none of these failures is here any more"), good=False)
        elif wish.moves:
            self._ask_where(list(found.values()), asks=True, where=None)
        else:
            await self._ask_and_do(acts.retry(list(found.values())).made_to_ask())

    @work(group="acts")
    async def _ask_where(self, rows: Sequence[TaskRow], *, asks: bool, where: str | None) -> None:
        what = counted(len(rows), "task") if where is None else tr("all that fit")
        if not self._may(tr("Move {what}", what=what)):
            return
        title = f"{tr('Move {what} where?', what=what)} ({rows[0].id}{' …' if rows[1:] else ''})"
        place = await self.push_screen_wait(Chooser(title, self.places()))
        if place is not None:
            kind, name = place
            await self._on_rows(lambda meant: acts.move(meant, **{kind: name}), rows, asks=asks, where=where)

    @on(TaskActs.PriorityWished)
    def _priority_wished(self, wish: TaskActs.PriorityWished) -> None:
        self._ask_priority(wish)

    @work(group="acts")
    async def _ask_priority(self, wish: TaskActs.PriorityWished) -> None:
        what = counted(len(wish.rows), "task") if wish.where is None else tr("all that fit")
        if not self._may(tr("Set the priority of {what}", what=what)):
            return
        choices = [Choice(("priority", str(priority)), tr(priority)) for priority in TaskPriority]
        chosen = await self.push_screen_wait(Chooser(tr("Which priority for {what}?", what=what), choices))
        if chosen is not None:
            priority = TaskPriority(chosen[1])
            await self._on_rows(
                lambda meant: acts.set_priority(meant, priority), wish.rows, asks=wish.asks, where=wish.where
            )

    @on(TaskActs.DeadlineWished)
    def _deadline_wished(self, wish: TaskActs.DeadlineWished) -> None:
        self._ask_deadline(wish)

    @work(group="acts")
    async def _ask_deadline(self, wish: TaskActs.DeadlineWished) -> None:
        from tui.screens.forms import DeadlineQuestion

        what = counted(len(wish.rows), "task") if wish.where is None else tr("all that fit")
        if not self._may(tr("Set the deadline of {what}", what=what)):
            return
        lines = acts.set_deadline(wish.rows, None).lines if wish.where is None else ()
        title = tr("By when is it to be done: {what}?", what=what)
        question = DeadlineQuestion(title, lines, tr("Yes, set"), light=True)
        if await self.push_screen_wait(question) is not None:
            deadline = question.deadline
            await self._on_rows(
                lambda meant: acts.set_deadline(meant, deadline), wish.rows, asks=wish.asks, where=wish.where
            )

    @on(TaskActs.PrivacyWished)
    def _privacy_wished(self, wish: TaskActs.PrivacyWished) -> None:
        self._ask_privacy(wish)

    @work(group="acts")
    async def _ask_privacy(self, wish: TaskActs.PrivacyWished) -> None:
        what = counted(len(wish.rows), "task") if wish.where is None else tr("all that fit")
        if not self._may(tr("Say whether {what} may leave the house", what=what)):
            return
        choices = [Choice(("privacy", str(privacy)), tr(told)) for privacy, told in acts.PRIVACIES.items()]
        chosen = await self.push_screen_wait(Chooser(tr("May {what} leave the house?", what=what), choices))
        if chosen is not None:
            make = acts.privacy_of(Privacy(chosen[1]), self.desk.store.queues.rows.values())
            await self._on_rows(make, wish.rows, asks=wish.asks, where=wish.where)

    async def _on_rows(
        self, make: Callable[[Sequence[TaskRow]], Act], rows: Sequence[TaskRow], *, asks: bool, where: str | None
    ) -> None:
        if where is not None:
            self.perform_on_all(make, where)
            return
        act = make(rows)
        if not act.ids:
            self.say(tr("nothing to do: {skipped}", skipped=act.skipped), good=False)
        else:
            await self._ask_and_do(act.made_to_ask() if asks else act)

    @on(TaskActs.ChangeWished)
    def _change_wished(self, wish: TaskActs.ChangeWished) -> None:
        self._ask_changes(wish)

    @work(group="acts")
    async def _ask_changes(self, wish: TaskActs.ChangeWished) -> None:
        from tui.screens.forms import ChangeForm

        title = (
            tr("Submit anew with changes")
            if wish.anew
            else tr("Retry {count} with changes", count=counted(len(wish.rows), "task"))
        )
        if not self._may(title):
            return
        rows = wish.rows
        if wish.where is not None:
            all_of_them = await self.matching(wish.where, title=title)
            if all_of_them is None:
                return
            rows = all_of_them
            title = tr("Retry {count} with changes", count=counted(len(rows), "task"))
        try:
            found = await self.desk.reader.tasks([row.id for row in rows])
        except (LcqError, OSError, TimeoutError) as error:
            self.say(tr("{title}: not done: {error}", title=title, error=trouble_of(error)), good=False)
            return
        records = [found[row.id] for row in rows if row.id in found]
        if not records:
            self.say(tr("{title}: not done: the cluster has forgotten what was chosen", title=title), good=False)
            return
        act = await self.push_screen_wait(ChangeForm(title, records, self.places(), self._models, anew=wish.anew))
        if act is None:
            self.say(tr("{title}: left as it is", title=title))
        else:
            await self._do(act, "")

    @property
    def _models(self) -> list[str]:
        return sorted({model for row in self.desk.store.nodes.rows.values() for model in row.models})

    @on(TaskActs.CommentWished)
    def _comment_wished(self, wish: TaskActs.CommentWished) -> None:
        self._ask_comment(wish.rows, wish.where)

    @work(group="acts")
    async def _ask_comment(self, rows: Sequence[TaskRow], where: str | None) -> None:
        first = acts.comment(rows, "")
        if not self._may(first.title):
            return
        if where is not None:
            found = await self.matching(where, title=first.title)
            if found is None:
                return
            rows, first = found, acts.comment(found, "")
        text = await self.push_screen_wait(
            Question(
                f"{first.title}",
                first.lines,
                tr("Yes, note it"),
                reason=tr("the note (others will read it)"),
                light=True,
            )
        )
        if text:
            act = acts.comment(rows, text)
            await self._ask_and_do(act)
        elif text is not None:
            self.say(tr("no note was typed: nothing is kept"), good=False)

    @on(CausesScreen.AcknowledgementWished)
    def _acknowledgement_wished(self, wish: CausesScreen.AcknowledgementWished) -> None:
        self._ask_why(acts.acknowledge(wish.row))

    def places(self, *, nodes: bool = True, without: str = "") -> list[Choice]:
        """Where tasks can go: every queue, and every node that is there."""
        choices = []
        for queue in sorted(self.desk.store.queues.rows.values(), key=lambda row: row.place):
            note = tr(
                "{queued:,} queued, {count}",
                queued=queue.count(TaskStatus.QUEUED),
                count=counted(len(queue.nodes), "node"),
            )
            if queue.id != without:
                choices.append(
                    Choice(
                        ("queue", queue.id),
                        tr("queue {id}", id=queue.id),
                        note + (tr(", PAUSED") if queue.paused else ""),
                    )
                )
        for node in sorted(self.desk.store.nodes.rows.values(), key=lambda row: row.id) if nodes else ():
            if node.status is not NodeStatus.OFFLINE:
                note = tr(
                    "{status}, {running} of {slots} slots busy",
                    status=tr(node.status),
                    running=node.running,
                    slots=node.slots,
                )
                choices.append(Choice(("node", node.id), tr("node {id}", id=node.id), note))
        return choices

    # ------------------------------------------------------------ queues and nodes

    @on(QueuesScreen.PauseWished)
    def _pause_wished(self, wish: QueuesScreen.PauseWished) -> None:
        self._ask_why(acts.pause(wish.row.id))

    @on(NodesScreen.BlockWished)
    def _block_wished(self, wish: NodesScreen.BlockWished) -> None:
        self._ask_why(acts.block(wish.row.id))

    @on(ReasonWished)
    def _reason_wished(self, wish: ReasonWished) -> None:
        self._ask_why(wish.act)

    @work(group="acts")
    async def _ask_why(self, act: Act) -> None:
        """Ask for the reason of an act that can be taken back: enter in it goes on."""
        if not self._may(act.title):
            return
        reason = await self.push_screen_wait(Question(f"{act.title}?", act.lines, act.go, reason=tr(WHY), light=True))
        if reason is not None:
            await self._do(act, reason)

    @on(QueuesScreen.BacklogMoveWished)
    def _backlog_move_wished(self, wish: QueuesScreen.BacklogMoveWished) -> None:
        self._ask_backlog_move(wish.row.id)

    @work(group="acts")
    async def _ask_backlog_move(self, queue: str) -> None:
        title = tr("Move the backlog of {queue}", queue=queue)
        if not self._may(title):
            return
        place = await self.push_screen_wait(
            Chooser(tr("{title} where?", title=title), self.places(nodes=False, without=queue))
        )
        if place is not None:
            await self._move_backlog(queue, place[1], "")

    async def _move_backlog(self, queue: str, target: str, reason: str) -> None:
        rows = await self.matching(backlog_of(queue), title=tr("Move the backlog of {queue}", queue=queue))
        if rows is not None:
            await self._ask_and_do(acts.move_backlog(queue, rows, target).made_to_ask(), reason)

    @on(QueuesScreen.EmptyWished)
    def _empty_wished(self, wish: QueuesScreen.EmptyWished) -> None:
        self._ask_empty(wish.row.id)

    @work(group="acts")
    async def _ask_empty(self, queue: str, reason: str = "") -> None:
        if not self._may(tr("Empty {queue}", queue=queue)):
            return
        rows = await self.matching(backlog_of(queue), title=tr("Empty {queue}", queue=queue))
        if rows is not None and not rows:
            self.say(tr("nothing to do: nothing waits in {queue}", queue=queue), good=False)
        elif rows is not None:
            await self._ask_and_do(acts.empty(queue, rows), reason)

    @on(NodesScreen.DrainWished)
    def _drain_wished(self, wish: NodesScreen.DrainWished) -> None:
        self._ask_drain(wish)

    @work(group="acts")
    async def _ask_drain(self, wish: NodesScreen.DrainWished) -> None:
        from tui.screens.forms import DrainQuestion

        act = acts.drain(wish.row)
        if not self._may(act.title):
            return
        question = DrainQuestion(f"{act.title}?", act.lines, act.go, reason=tr(WHY))
        reason = await self.push_screen_wait(question)
        if reason is None:
            self.say(tr("{title}: left as it is", title=act.title))
        else:
            await self._do(acts.drain(wish.row, deadline_s=question.deadline_s), reason)

    # ------------------------------------------------------------ alerts

    @on(ConsoleScreen.AlertsWished)
    def _alerts_wished(self) -> None:
        self._show_alerts()

    @work(group="panel", exclusive=True)
    async def _show_alerts(self) -> None:
        """The alerts to choose from: one that is heard is silenced then, one that is silenced is heard again."""
        known = self.desk.store.alerts
        firing = [one for one in known.alerts if one.is_firing] if known is not None else []
        if known is None or not firing:
            self.say(tr("nothing needs you: no alert of the rules is firing"))
            return
        loud = known.firing
        hushed = [one for one in firing if one not in loud]
        choices = [
            Choice((one.rule, one.subject), f"{tr(one.severity)}  {one.name.rstrip('/')}", retold(one.text))
            for one in loud
        ]
        for one in hushed:
            silence = known.silence_of(one)
            assert silence is not None  # noqa: S101 - else it would be among the others
            left = long_span(max(0, silence.until_ms - self.desk.link.now_ms))
            told = tr("silenced by {actor}, {left} left: {text}", actor=silence.actor, left=left, text=retold(one.text))
            choices.append(Choice((one.rule, one.subject), f"{tr('silenced')}  {one.name.rstrip('/')}", told))
        chosen = await self.push_screen_wait(
            Chooser(tr("Alerts: enter silences one, or lets it be heard again"), choices)
        )
        if chosen is not None:
            alert = next(one for one in firing if (one.rule, one.subject) == chosen)
            await self._ask_about(alert, known.silence_of(alert))

    async def _ask_about(self, alert: AlertRecord, silence: Silence | None) -> None:
        from tui.screens.forms import SilenceQuestion

        if silence is not None:
            await self._ask_and_do(acts.unsilence(silence.rule, silence.subject).made_to_ask())
            return
        act = acts.silence(alert.rule, alert.subject, SilenceQuestion.seconds)
        if not self._may(act.title):
            return
        lines = (retold(alert.text), *act.lines)
        title = tr("Silence {name}?", name=alert.name.rstrip("/"))
        question = SilenceQuestion(title, lines, act.go, reason=tr(WHY))
        reason = await self.push_screen_wait(question)
        if reason is not None:
            await self._do(acts.silence(alert.rule, alert.subject, question.seconds), reason)

    # ------------------------------------------------------------ submitting

    @on(TaskActs.SubmitWished)
    def _submit_wished(self) -> None:
        self._ask_for_task()

    @work(group="acts", exclusive=False)
    async def _ask_for_task(self) -> None:
        from tui.screens.submit import SubmitForm
        from tui.submitting import prepare

        if not self._may(tr("Submit")):
            return
        queues = sorted(self.desk.store.queues.rows.values(), key=lambda row: row.place)
        wish = await self.push_screen_wait(
            SubmitForm(
                user=self._user, queues=[row.id for row in queues], models=self._models, commander=self.desk.commander
            )
        )
        if wish is None or not self._may(tr("Submit {inputs}", inputs=wish.inputs[0])):
            return
        self.say(tr("submitting {inputs} …", inputs=wish.inputs[0]))
        try:
            if wish.is_folder:
                sent = await self.desk.commander.submit_folder(wish)
                self.say(_told_of_folder(sent), good=not sent.refused)
                return
            prepared = await asyncio.to_thread(prepare, wish)
            accepted = await self.desk.commander.submit(prepared.tasks[0], queue=wish.queue)
        except (LcqError, OSError, TimeoutError) as error:
            self.say(tr("{inputs}: not submitted: {error}", inputs=wish.inputs[0], error=trouble_of(error)), good=False)
            return
        waits = f": {retold(accepted.why)}" if accepted.why else ""
        self.say(
            tr(
                "submitted {id} to {queue}, {status}{waits}",
                id=accepted.id,
                queue=accepted.queue,
                status=tr(accepted.status),
                waits=waits,
            )
        )


def _told_of_folder(sent: Sent) -> str:
    """What has become of a folder, in one line."""
    known = tr(", {known:,} were done already", known=sent.known) if sent.known else ""
    refused = (
        tr("; refused {count:,}: {message}", count=len(sent.refused), message=retold(sent.refused[0].message))
        if sent.refused
        else ""
    )
    return tr(
        "submitted {count} of job {job}{known}{refused}",
        count=counted(len(sent.accepted), "task"),
        job=sent.job,
        known=known,
        refused=refused,
    )


def backlog_of(queue: str) -> str:
    """The filter of all that waits in a queue."""
    return f"queue={queue} state:waiting"
