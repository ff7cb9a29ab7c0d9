"""What the application does about recordings: makes them, goes to them, and lets their time stand or run."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from textual import on, work

from lcq.errors import LcqError
from lcq.lang import retold_error, tr
from tui.acting import ActingApp
from tui.commands import Command
from tui.record import Recorder, RecordingRules, latest_recording, new_recording
from tui.screens.base import ConsoleScreen

if TYPE_CHECKING:  # loaded where somebody replays
    from tui.replay import Playback, Recording

ACTS_RECORDED = 500
"""So many of the newest are in a recording."""


class PlayingApp(ActingApp):
    """The part of the console's application that records and replays."""

    recording_rules: RecordingRules | None = None
    """Where recordings go, and how large they may be; None: none is made."""
    next_replay: tuple[Recording, int | None] | None = None
    """What the operator wants to see again when this application has ended, from which moment on."""

    async def _run_line(self, command: Command, words: Sequence[str], reason: str, screen: ConsoleScreen) -> None:
        match command.id, *words:
            case "record", *rest:
                self.record(" ".join(rest))
            case "replay", *rest:
                from tui.replay import is_time

                at = rest.pop(0) if rest and is_time(rest[0]) else ""
                self.replay(" ".join(rest), at)
            case _:
                await super()._run_line(command, words, reason, screen)

    @on(ConsoleScreen.RecordWished)
    def _record_wished(self) -> None:
        self.record()

    def record(self, name: str = "") -> None:
        """Record what is seen into the file ``name`` ("": one in the data folder), or end the recording under way."""
        tape, rules = self.desk.tape, self.recording_rules
        if tape.recorder is not None:
            tape.recorder.stop(tr("it was ended"))
        elif self.desk.playback is not None or rules is None:
            self.say(tr("a replay is not recorded") if self.desk.playback else tr("nowhere to record to"), good=False)
        else:
            path = Path(name).expanduser() if name else new_recording(rules.data_path, self.desk.cluster)
            try:
                tape.recorder = Recorder(
                    path, cluster=self.desk.cluster, now_ms=lambda: self.desk.link.now_ms, rules=rules
                )
            except LcqError as error:
                self.say(retold_error(error), good=False)
                return
            self.desk.feed.refetch()  # it begins with a snapshot
            self._keep_recording(tape.recorder)
            self.say(tr("recording into {path}", path=path))

    @work(group="recorder")
    async def _keep_recording(self, recorder: Recorder) -> None:
        reader = self.desk.reader
        overview: dict[str, Callable[[], Awaitable[Any]]] = {
            "minutes": reader.minutes,
            "dead": reader.dead,
            "acts": lambda: reader.acts(ACTS_RECORDED),
        }
        await recorder.run(overview, reader.attempts)
        self.desk.tape.recorder = None
        self.say(
            tr(
                "{path}: {written:.1f} MiB recorded; {stopped}",
                path=recorder.path,
                written=recorder.written / 2**20,
                stopped=recorder.stopped,
            )
        )

    @work(group="replay", exclusive=True)
    async def replay(self, name: str = "", at: str = "") -> None:
        """See again what the file ``name`` has ("": the newest recording), from the time ``at`` on, such as 11:45."""
        from tui.replay import Recording

        playback = self.desk.playback
        try:
            if playback is not None and not name:
                await self._go_to(playback, at)
            else:
                recording = await asyncio.to_thread(Recording.open, self._file_of(name))
                self.next_replay = (recording, recording.moment(at) if at else None)
                self.exit(0)
        except LcqError as error:
            self.say(retold_error(error), good=False)

    def _file_of(self, name: str) -> Path:
        recorder, rules = self.desk.tape.recorder, self.recording_rules
        if name:
            return Path(name).expanduser()
        newest = latest_recording(rules.data_path) if rules is not None else None
        path = recorder.path if recorder is not None else newest
        if path is None:
            raise LcqError("there is no recording yet", hint="& begins one")
        return path

    @on(ConsoleScreen.ReplayWished)
    @work(group="replay", exclusive=True)
    async def _replay_wished(self, wish: ConsoleScreen.ReplayWished) -> None:
        playback = self.desk.playback
        if playback is None:
            self.say(tr("this is live: 'lcq console --replay FILE' plays a recording, & makes one"), good=False)
            return
        match wish.what:
            case "pause":
                playback.toggle()
            case "step":
                await playback.step()
            case "faster":
                playback.change_speed(1)
            case "slower":
                playback.change_speed(-1)
            case "at":
                await self._ask_for_time(playback)

    async def _ask_for_time(self, playback: Playback) -> None:
        from tui.screens.choose import AskLine

        title = tr("To which time? It goes {told_span}", told_span=playback.recording.told_span)
        at = await self.push_screen_wait(AskLine(title, hint=tr("such as 11:45 or 11:45:30, in UTC")))
        try:
            await self._go_to(playback, at or "")
        except LcqError as error:
            self.say(retold_error(error), good=False)

    @staticmethod
    async def _go_to(playback: Playback, at: str) -> None:
        if at:
            await playback.seek(playback.recording.moment(at))
