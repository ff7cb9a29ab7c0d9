"""``lcq demo``: a real cluster on this machine, in a folder of its own, cleans the sample photos."""

from __future__ import annotations

import asyncio
import os
import shutil
import sys
from collections.abc import Sequence
from pathlib import Path
from urllib.parse import urlsplit

from rich import box
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, SpinnerColumn, TextColumn, TimeElapsedColumn
from rich.table import Column, Table
from rich.text import Text

from lcq.cli.picture import Picture
from lcq.client import AsyncClient
from lcq.config import DistributedConfig, RedisConfig, ZeroMqConfig
from lcq.embedded import read_cluster_file
from lcq.embedded_watch import log_tail
from lcq.errors import LcqError
from lcq.folder import Pair, pair_images, result_paths
from lcq.lang import retold, tr
from lcq.log import setup_logging
from lcq.models import DEFAULT_MODEL, Task, TaskRecord, TaskStatus, TaskType
from lcq.server import first_of, one_machine, open_console, stopped_by_signal

_AGENT_READY_S = 60.0
_INTERRUPTED = 130
_LOOK_S = 6.0
_LEAST_LINES, _MOST_LINES, _TABLE_LINES = 10, 22, 16  # of a picture, and what stands above and below it


def run_demo(folder: Path = Path("demo-out"), *, with_console: bool = True) -> int:
    """Clean the sample photos into ``folder``, tell how it went, and on a terminal open the console.

    Returns 0 when all results are written, 1 if any failed, 130 if it was interrupted. Nothing is left
    running, and of the cluster's own files nothing is left either, unless something failed.

    Raises:
        LcqError: the photos are not there, a demo is already running there, or the cluster does not start.
    """
    samples = Path(__file__).parents[1] / "sample-config"
    if not (samples / "photos").is_dir():
        raise LcqError(f"no sample photos in {samples}", hint="run the demo in a clone of LCQ's repository")
    data = folder.absolute() / ".cluster"
    running = read_cluster_file(data)
    if running is not None:
        raise LcqError(f"a demo already runs in {folder} (process {running.pid})", hint="leave that one first")
    try:
        if data.exists():
            shutil.rmtree(data)
        data.mkdir(mode=0o700, parents=True)
    except OSError as error:
        raise LcqError(f"cannot write {folder}: {error.strerror}", hint="name a folder that you may write") from error
    setup_logging("info", file=data / "log" / "demo.log")
    demo = _Demo(pair_images([samples / "photos"], samples / "masks").pairs, folder, data)
    code = asyncio.run(demo.run(with_console=with_console and sys.stdin.isatty() and sys.stdout.isatty()))
    setup_logging("warning")  # closes the file
    if code == 1:
        Console(stderr=True).print(Text(tr("the logs are in {folder}", folder=data / "log"), style="red"))
    else:
        shutil.rmtree(data)
    return code


class _Demo:
    """One run: its cluster, its tasks, what it shows."""

    def __init__(self, pairs: Sequence[Pair], folder: Path, data: Path) -> None:
        self._pairs = pairs
        self._results = result_paths(pairs, folder)
        self._agent_log = data / "log" / "agent.log"
        self._config = DistributedConfig(
            data_dir=data,
            scheduler_host="127.0.0.1",
            zeromq=ZeroMqConfig(host="127.0.0.1", bind="127.0.0.1", base_port=0, control_port=0),
            redis=RedisConfig(enabled=False),
        )
        self._records: list[TaskRecord] = []
        self._talk = Console(stderr=True)

    async def run(self, *, with_console: bool) -> int:
        stop = stopped_by_signal()
        async with one_machine(self._config, agent_log=self._agent_log) as scheduler:
            address = urlsplit(scheduler.control_endpoint).netloc
            await first_of(self._clean(address), stop.wait())
            if stop.is_set():
                return _INTERRUPTED
            self._show()
            if with_console:
                await self._let_them_look(stop)
            if with_console and not stop.is_set():
                await open_console(self._config, stop)
        return 0 if all(record.status is TaskStatus.COMPLETED for record in self._records) else 1

    async def _clean(self, address: str) -> None:
        """Submit every photo, and follow them to their ends."""
        columns = (SpinnerColumn(), TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn())
        with Progress(*columns, TimeElapsedColumn(), console=self._talk) as progress:
            bar = progress.add_task(tr("waiting for the agent"), total=len(self._pairs))
            async with AsyncClient(self._config, scheduler=address) as client:
                node = await self._first_node(client)
                progress.update(bar, description=tr("{node} cleans", node=node))
                tasks = [
                    Task(
                        task_type=TaskType.INPAINT,
                        image_path=str(pair.image),
                        mask_path=str(pair.mask),
                        output_path=str(result),
                        config={"model": DEFAULT_MODEL},
                        user_id=client.actor,
                        job="demo",
                    )
                    for pair, result in zip(self._pairs, self._results, strict=True)
                ]
                for refusal in (await client.submit_many(tasks)).refused:
                    raise refusal.error()
                async for record in client.as_completed([task.id for task in tasks]):
                    self._records.append(record)
                    progress.advance(bar)
            progress.update(bar, description=tr("cleaned"))

    async def _first_node(self, client: AsyncClient) -> str:
        loop = asyncio.get_running_loop()
        deadline = loop.time() + _AGENT_READY_S
        while loop.time() < deadline:
            for node in await client.nodes():
                if DEFAULT_MODEL in node.capability.models:
                    return node.id
            await asyncio.sleep(0.05)
        raise LcqError(
            f"no agent was ready within {_AGENT_READY_S:g} s; its log ends: {log_tail(self._agent_log) or 'empty'}",
            hint=f"see {self._agent_log.parent}",
        )

    def _show(self) -> None:
        """The answer, on stdout: a table, and on a terminal what was done to one of the photos."""
        answer = Console(width=None if sys.stdout.isatty() else 200)
        seconds_column = Column(tr("seconds"), justify="right")
        table = Table(tr("image"), tr("model"), tr("node"), seconds_column, tr("result"), box=box.SIMPLE_HEAD)
        for record in sorted(self._records, key=lambda record: record.task.image_path):
            task, result, failure = record.task, record.result, record.failure
            table.add_row(
                Path(task.image_path).name,
                task.model,
                record.node,
                f"{result.seconds:.2f}" if result else "",
                Text(_shown(Path(result.path)))
                if result
                else Text(
                    f"{tr(record.status.value)}: {retold(failure.message if failure else record.why)}", style="red"
                ),
            )
        answer.print(table)
        done = [record.result for record in self._records if record.result is not None]
        if answer.is_terminal and done:
            most = max(done, key=lambda result: result.mask_fraction)
            before = next(pair.image for pair in self._pairs if pair.image.name == Path(most.path).name)
            answer.print(_before_after(before, Path(most.path), answer))

    async def _let_them_look(self, stop: asyncio.Event) -> None:
        """Keep the table and the pictures on the screen for a while: the console covers them."""
        pressed = asyncio.Event()
        loop = asyncio.get_running_loop()
        told = tr("the console opens in {span:g} s; Enter opens it now, ctrl-c ends the demo", span=_LOOK_S)
        self._talk.print(told, style="dim")
        loop.add_reader(sys.stdin.fileno(), pressed.set)
        try:
            await first_of(pressed.wait(), stop.wait(), asyncio.sleep(_LOOK_S))
        finally:
            loop.remove_reader(sys.stdin.fileno())
        if pressed.is_set():
            os.read(sys.stdin.fileno(), 1024)  # the console is not to see that key


def _shown(path: Path) -> str:
    """``path`` as a person in this folder would type it."""
    here = Path.cwd()
    return str(path.relative_to(here) if path.is_relative_to(here) else path)


def _before_after(image: Path, result: Path, console: Console) -> Table:
    width = (console.width - 4) // 2
    height = max(_LEAST_LINES, min(_MOST_LINES, console.height - _TABLE_LINES))
    grid = Table.grid(padding=(0, 2))
    grid.add_row(Picture(image, width=width, height=height), Picture(result, width=width, height=height))
    grid.add_row(Text(tr("before"), style="dim"), Text(tr("after"), style="dim"))
    return grid
