"""The moves of alerts: what has become of them, what is silenced, what is told to receivers, how schedulers are."""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from lcq.alerts.records import Condition, Notice, Silence
from lcq.errors import LcqError, NothingToUndo, NotSilenced, TransitionRefused
from lcq.state.moves.mover import Mover

ALERTS_KEPT = 1000
SILENCES_KEPT = 256
_ACTS_KEPT = 100_000
_AT_ONCE = 100  # changes in one script


@dataclass(frozen=True)
class AlertChange:
    """One alert as it was read and as it is now ("": there is none), and what is to be told of it."""

    name: str
    before: str
    after: str
    event: tuple[str, ...] = ()  # fields and values in turn
    act: tuple[str, ...] = ()
    notices: tuple[Notice, ...] = ()

    def as_json(self) -> dict[str, object]:
        told = [text for notice in self.notices for text in (notice.id, notice.model_dump_json())]
        return {
            "name": self.name, "before": self.before, "after": self.after, "event": self.event, "act": self.act,
            "notices": told,
        }  # fmt: skip


class AlertMoves(Mover):
    """What becomes of alerts. No task changes its state by them."""

    async def note_alerts(self, changes: Sequence[AlertChange], *, over: Iterable[tuple[str, str]] = ()) -> set[str]:
        """Write what has changed. Answers the names of those that were as they had been read.

        ``over``: names of silences that have run out, and their records as they were read.
        """
        applied: set[str] = set()
        gone = json.dumps([{"name": name, "before": text} for name, text in over])
        for start in range(0, max(1, len(changes)), _AT_ONCE):
            told = json.dumps([one.as_json() for one in changes[start : start + _AT_ONCE]])
            answer = await self._move("note_alerts", told, ALERTS_KEPT, _ACTS_KEPT, gone if not start else "[]")
            applied.update(answer[1:])
        return applied

    async def settle_notice(self, notice_id: str, *, before: str, after: Notice | None) -> bool:
        """A notice is about to be tried (``after``: as it is then), or is done with. False: another does it."""
        told = "" if after is None else after.model_dump_json()
        answer = await self._move("settle_notice", notice_id, before, told)
        return bool(answer[0] == "ok")

    async def silence_alert(
        self, rule: str, *, subject: str = "", seconds: float, actor: str, reason: str = "", command: str = ""
    ) -> int:
        """Let nobody be told of ``rule``, or of what it says of ``subject``. Answers until when (ms by Redis's clock).

        Raises:
            LcqError: more is silenced already than is kept.
        """
        silence = Silence(rule=rule, subject=subject, until_ms=0, actor=actor, reason=reason)
        answer = await self._move(
            "silence_alert", silence.name, silence.model_dump_json(), int(seconds * 1000), SILENCES_KEPT,
            command=command,
        )  # fmt: skip
        if answer[0] == "full":
            raise LcqError(f"{SILENCES_KEPT} silences hold already", hint="'lcq alerts unsilence' ends one")
        return int(answer[1])

    async def unsilence_alert(self, name: str, *, command: str = "") -> None:
        """Let what was silenced under ``name`` be heard again.

        Raises:
            NotSilenced: nothing is.
        """
        answer = await self._move("silence_alert", name, "", 0, SILENCES_KEPT, command=command)
        if answer[0] == "missing":
            raise NotSilenced(name)

    async def undo_silence(self, name: str, *, of: str, command: str = "") -> None:
        """Take back that the command ``of`` has silenced ``name``, or has let it be heard again.

        Raises:
            NothingToUndo: it has done neither, or too long ago.
            TransitionRefused: somebody has said something else of it since.
        """
        answer = await self._move("undo_silence", name, of, command=command)
        if answer[0] == "nothing":
            raise NothingToUndo(of, f"silence {name}")
        if answer[0] == "moved_on":
            now = f"silenced by {answer[1]}" if answer[1] else "not silenced any more"
            raise TransitionRefused("undo_silence", f"silence {name}", now, hint="look again")

    async def tell_condition(self, scheduler_id: str, condition: Condition, *, hold_ms: int) -> None:
        """Let the others know how this scheduler is; it counts for ``hold_ms``."""
        await self._move("tell_condition", scheduler_id, condition.model_dump_json(), hold_ms)
