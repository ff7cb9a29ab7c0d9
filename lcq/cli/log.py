"""lcq logs: what was written during the attempts of a task, as its nodes keep it; or what a node's agent tells."""

from __future__ import annotations

import asyncio
import dataclasses
import functools
from collections.abc import AsyncIterator, Iterable, Iterator
from dataclasses import dataclass
from typing import Annotated

import typer

from lcq.cli.examples import examples
from lcq.cli.output import Output, clock
from lcq.cli.session import INTERRUPTED, OK, JsonFlag, Session, run, session_of
from lcq.client import AsyncClient
from lcq.errors import InvalidInput, LogNotKept, NodeNotFound, NoLog, UnknownCommand
from lcq.lang import ntr, tr
from lcq.log_stream import cut_of, followed, whole
from lcq.models import Attempt, TaskRecord
from lcq.wire import MOST_LOG_LINES, LogAnswer, TaskLogAnswer

app = typer.Typer()

_FOLLOW_S = 1.0  # how often an agent is asked for what is new
_SLACK_MS = 5_000  # clocks of hosts differ: so far from its attempt may an agent's line on it be


@app.command(
    epilog=examples(
        "lcq logs 06ft3k", "lcq logs 06ft3k --attempt 2 -n 0", "lcq logs 06ft3k -f", "lcq logs --node studio-2 -f"
    )
)
def logs(
    context: typer.Context,
    task: Annotated[str, typer.Argument(metavar="[TASK]", help="Its id, or the beginning: lcq tasks.")] = "",
    attempt: Annotated[int, typer.Option("--attempt", min=0, metavar="N", help="Only this one; 0: all.")] = 0,
    node: Annotated[str, typer.Option("--node", metavar="NAME", help="What the agent of this node tells.")] = "",
    lines: Annotated[
        int,
        typer.Option(
            "--lines", "-n", min=0, max=MOST_LOG_LINES, help="How many of each attempt or node, the newest; 0: all."
        ),
    ] = 200,
    follow: Annotated[
        bool, typer.Option("--follow", "-f", help="Go on as lines come: until the task ends, or ctrl-c.")
    ] = False,
    as_json: JsonFlag = False,
) -> int:
    """Show what was written during the attempts of a task, or with --node what the agent of a node tells.

    Nodes keep what their runners write (agent.task_logs). JSON is a document a line.
    """
    if not task and not node:
        raise InvalidInput("say of what: a task's id, or --node NAME", hint="lcq tasks and lcq nodes list them")
    if attempt and not task:
        raise InvalidInput("--attempt is of a task", hint="lcq logs TASK --attempt N")
    session = session_of(context, as_json)
    try:
        return run(_log(session, task, attempt, node, lines, follow))
    except KeyboardInterrupt:
        return INTERRUPTED


app.command("log", hidden=True, epilog=examples("lcq log 06ft3k"))(logs)  # as it was called before


@dataclass(frozen=True)
class Said:
    """One line, and who told it. ``source``: "agent", a slot whose runner wrote it, or "kept" with the attempt."""

    node: str
    at_ms: int
    source: str
    level: str
    task: str
    attempt: int
    text: str
    cut: int = 0  # so many bytes before it were written, and not kept


async def _log(session: Session, typed: str, attempt: int, node: str, limit: int, follow: bool) -> int:
    output = session.output
    async with session.client() as client:
        if not typed:
            await _read_node(client, output, node, limit or MOST_LOG_LINES, follow)
            return OK
        history = await client.history(typed)
        record, attempts = history.record, list(history.attempts)
        if attempt:
            attempts = [one for one in attempts if one.number == attempt]
            if not attempts:
                known = ", ".join(str(one.number) for one in history.attempts)
                raise InvalidInput(
                    f"task {record.id} has no attempt {attempt}",
                    hint=f"it has {known}" if known else "no node has taken it yet",
                )
        kept = _KeptLogs(client, output, record.id, limit)
        said = await kept.all_of([one for one in attempts if node in ("", one.node)])
        reader = _Follower(client, output, record.id, limit or MOST_LOG_LINES)
        untold = [one for one in attempts if one.number not in kept.told]
        said += _kept(record.id, untold)
        nodes = list(dict.fromkeys(one.node for one in attempts if one.number in kept.of_older))
        for place in [node] if node and nodes else nodes:
            of_node = await reader.news(place, is_first=True)
            said += [one for one in of_node if not attempt or _is_of(one, attempts[0])]
        for one in sorted(said, key=lambda one: one.at_ms):
            _show(one, output)
        if not attempts:
            output.talk(tr("no node has taken it yet: there is no log"))
        elif not said and not follow:
            output.talk(tr("nothing was written during its attempts, or it is not kept any more (agent.task_logs)"))
        if follow and kept.of_older:
            await _follow_task(client, output, record, reader, node)
        elif follow:
            await kept.follow(attempt)
    return OK


class _KeptLogs:
    """What nodes have kept of the attempts of a task."""

    def __init__(self, client: AsyncClient, output: Output, task: str, limit: int) -> None:
        self._client, self._output, self._task, self._limit = client, output, task, limit
        self.told: set[int] = set()  # attempts whose logs were read
        self.of_older: set[int] = set()  # those of agents, or of a scheduler, that know nothing of such logs
        self._last = (0, 0)  # of which attempt was read last, and up to where
        self._trouble: set[str] = set()

    async def all_of(self, attempts: Iterable[Attempt]) -> list[Said]:
        said: list[Said] = []
        for attempt in attempts:
            try:
                told = [_said_of(one) async for one in self._pieces(attempt.number)]
            except (UnknownCommand, LogNotKept):
                self.of_older.add(attempt.number)
            except NoLog as error:
                self._complain(error)
            else:
                said += [line for lines in told for line in lines]
        return said

    async def _pieces(self, number: int) -> AsyncIterator[TaskLogAnswer]:
        is_first = True
        begin = 0 if self._limit == 0 else -1
        async for answer in whole(self._read, number, begin):
            if is_first and answer.is_there:
                self.told.add(number)
                self._tell_of(answer, begin)
            is_first = False
            self._last = (number, answer.next)
            yield answer
            if begin < 0:
                return

    def _tell_of(self, answer: TaskLogAnswer, begin: int) -> None:
        """What of it is not shown."""
        place = {"number": answer.attempt, "node": answer.node}
        cut = cut_of(answer)
        if cut:
            told = {"cut": cut, "size": answer.size}
            self._output.talk(
                tr("-- attempt {number} on {node}: of {size:,} bytes {cut:,} were not kept --", **place, **told)
            )
        if begin < 0 and answer.lines and answer.lines[0].number > 0:
            self._output.talk(tr("-- attempt {number} on {node}: the newest lines; -n 0 shows all --", **place))

    async def follow(self, only: int) -> None:
        """What comes, until the task has ended; ``only``: until that attempt has."""
        number, begin = self._last
        look = functools.partial(self._client.get, self._task)
        async for answer in followed(
            self._read, look, attempt=number or only, begin=begin, only=bool(only), pause_s=_FOLLOW_S
        ):
            if isinstance(answer, NoLog):
                self._complain(answer)
                continue
            for one in _said_of(answer):
                _show(one, self._output)

    async def _read(self, attempt: int, begin: int) -> TaskLogAnswer:
        limit = self._limit if begin < 0 else MOST_LOG_LINES
        return await self._client.task_log(self._task, attempt=attempt, begin=begin, limit=limit)

    def _complain(self, error: NoLog) -> None:
        if error.message not in self._trouble:
            self._trouble.add(error.message)
            self._output.error(error)


def _said_of(answer: TaskLogAnswer) -> list[Said]:
    return [
        Said(answer.node, one.at_ms, one.source, one.level, answer.task, answer.attempt, one.text, one.cut)
        for one in answer.lines
    ]


async def _follow_task(client: AsyncClient, output: Output, record: TaskRecord, reader: _Follower, only: str) -> None:
    """What comes, on whatever node the task is, until it has ended."""
    while True:
        ended = record.status.is_terminal  # what was said before that is still read
        place = only or record.node
        if place:
            for one in await reader.news(place):
                _show(one, output)
        if ended:
            return
        await asyncio.sleep(_FOLLOW_S)
        record = await client.get(record.id)


async def _read_node(client: AsyncClient, output: Output, node: str, limit: int, follow: bool) -> None:
    reader = _Follower(client, output, "", limit, must_answer=True)
    for one in await reader.news(node, is_first=True):
        _show(one, output)
    while follow:
        await asyncio.sleep(_FOLLOW_S)
        for one in await reader.news(node):
            _show(one, output)


class _Follower:
    """Reads what agents tell, each from where it was read last."""

    def __init__(
        self, client: AsyncClient, output: Output, task: str, limit: int, *, must_answer: bool = False
    ) -> None:
        """``must_answer``: a node that cannot be asked at the first time is an error, and not only said."""
        self._client, self._output, self._task, self._limit = client, output, task, limit
        self._must_answer = must_answer
        self._read: dict[str, tuple[str, int]] = {}  # of each node the boot of its agent, and up to which line
        self._trouble: dict[str, str] = {}

    async def news(self, node: str, *, is_first: bool = False) -> list[Said]:
        """The lines that are new. What keeps a node from telling any is said once."""
        found: list[Said] = []
        while True:
            boot, after = self._read.get(node, ("", -1))
            try:
                told = await self._client.log(
                    node, after=after, limit=self._limit if after < 0 else MOST_LOG_LINES, task=self._task
                )
            except (NoLog, NodeNotFound) as error:
                if is_first and self._must_answer:
                    raise
                if self._trouble.get(node) != error.message:
                    self._trouble[node] = error.message
                    self._output.error(error)
                return found
            self._trouble.pop(node, None)
            if boot and told.boot != boot:
                self._output.talk(tr("-- the agent of {node} was started anew --", node=node))
                self._read[node] = (told.boot, -1)  # its numbers begin anew
                continue
            gone = told.first - after - 1
            if after >= 0 and gone > 0:
                self._output.talk(
                    ntr(
                        "-- {n} line came and went before it was read --",
                        "-- {n:,} lines came and went before they were read --",
                        gone,
                    )
                )
            found += _told(told)
            self._read[node] = (told.boot, max(told.last, after))
            if after < 0 or len(told.lines) < MOST_LOG_LINES:
                return found


def _told(answer: LogAnswer) -> Iterator[Said]:
    for one in answer.lines:
        yield Said(answer.node, one.at_ms, one.source, one.level, one.task, one.attempt, one.text)


def _kept(task_id: str, attempts: Iterable[Attempt]) -> Iterator[Said]:
    """The last words of attempts that failed, which outlive the agent's own lines."""
    for attempt in attempts:
        for text in attempt.log.splitlines():
            at_ms = attempt.ended_ms or attempt.started_ms
            yield Said(attempt.node, at_ms, "kept", "", task_id, attempt.number, text)


def _is_of(said: Said, attempt: Attempt) -> bool:
    """Whether a line is of this attempt: it says so, or it is an agent's of that time."""
    if said.attempt:
        return said.attempt == attempt.number
    until = attempt.ended_ms + _SLACK_MS if attempt.ended_ms else said.at_ms
    return said.node == attempt.node and attempt.started_ms - _SLACK_MS <= said.at_ms <= until


def _show(one: Said, output: Output) -> None:
    if output.as_json:
        output.line(dataclasses.asdict(one))
        return
    if one.cut:
        output.say(tr("-- {cut:,} bytes were written here and not kept (agent.task_logs.attempt_kib) --", cut=one.cut))
    level = f"{one.level} " if one.level else ""
    output.say(f"{clock(one.at_ms)}  {one.node}  {one.source:<6}  {level}{one.text}")
