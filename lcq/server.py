"""The long-lived commands: a scheduler, and a whole cluster on this machine. Signals are handled only here."""

from __future__ import annotations

import asyncio
import contextlib
import errno
import json
import logging
import os
import shutil
import signal
import sys
from collections.abc import AsyncIterator, Coroutine, Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import IO, Any
from urllib.parse import urlsplit

from lcq import __version__, failpoints
from lcq.component import run_beside
from lcq.config import ConfigManager, DistributedConfig
from lcq.embedded import PrivateServer, read_cluster_file, write_cluster_file
from lcq.embedded_watch import write_private
from lcq.errors import InvalidConfig, LcqError, TransitionRefused
from lcq.hardware import host_name
from lcq.key_record import KeyRecord, KeyRole
from lcq.keyring import Credential, KeyPair, agent_file, nodes_with_keys, read_credential, write_credential
from lcq.leash import leashed
from lcq.log import setup_logging
from lcq.private_folder import make_private
from lcq.scheduler import Scheduler
from lcq.settings.layers import ALONE, NAMED_BY
from lcq.sockets import new_key_pair
from lcq.systemd import ServiceManager

_log = logging.getLogger(__name__)

_AGENT = (sys.executable, "-m", "worker.cli")  # by name: lcq never imports the worker
_CONSOLE = (sys.executable, "-m", "lcq.console")
_OWN_CONSOLE = (*_CONSOLE, "This cluster stops with it; what is not done goes on when it is started again.")
_DRAIN_S = 5.0  # a terminal is left within seconds: what is not done by then is handed back, and costs no attempt
_STOP_S = 30.0  # what a scheduler may need to end: its last words, and a private Redis that syncs its log
_RESTART_S = (0.5, 30.0)  # first and longest pause before a dead agent is started again
_LOG_BYTES = 8 * 2**20
_LOOK_AT_LOG_S = 10.0


def run_scheduler(manager: ConfigManager) -> int:
    """``lcq scheduler``: serve until SIGTERM or SIGINT; SIGHUP reads the settings again. Returns the exit code.

    Raises:
        LcqError: it cannot start: Redis, the ports, the settings.
    """
    setup_logging(manager.config.log_level, form=manager.config.log_format)
    failpoints.arm_from_environment()
    make_data_folder(manager.config.data_path)
    return asyncio.run(_scheduler_alone(manager, ServiceManager.of_this_process()))


async def _scheduler_alone(manager: ConfigManager, systemd: ServiceManager) -> int:
    stop = stopped_by_signal()
    async with serving(manager.config) as scheduler:
        follower = scheduler.followed(manager)

        def read_settings() -> None:
            systemd.reloading()
            follower.read_now()

        follower.when_read = lambda: systemd.ready(scheduler.condition)
        if not sys.stdin.isatty():  # in a terminal, SIGHUP means that it was closed
            asyncio.get_running_loop().add_signal_handler(signal.SIGHUP, read_settings)
        systemd.ready(scheduler.condition)
        async with systemd.watched(lambda: scheduler.condition):
            await first_of(stop.wait(), scheduler.run(), follower.follow())
        _log.info("stopping")
        systemd.stopping(_STOP_S)
    return 0


def run_up(manager: ConfigManager, *, headless: bool = False) -> int:
    """``lcq up``: Redis, a scheduler, an agent and the console, until the console is left or a signal comes.

    Where a cluster already runs on the data folder, only the console is opened. Without a terminal, or
    ``headless``, there is no console. Returns the exit code.

    Raises:
        LcqError: it cannot start, or (without a console) a cluster already runs there.
    """
    config = manager.config
    with_console = not headless and sys.stdin.isatty() and sys.stdout.isatty()
    make_data_folder(config.data_path)
    log_folder = config.data_path / "log"
    setup_logging(config.log_level, file=log_folder / "up.log" if with_console else None, form=config.log_format)
    failpoints.arm_from_environment()
    return asyncio.run(_up(manager, log_folder, ServiceManager.of_this_process(), with_console=with_console))


async def _up(manager: ConfigManager, log_folder: Path, systemd: ServiceManager, *, with_console: bool) -> int:
    config = manager.config
    stop = stopped_by_signal()
    running = read_cluster_file(config.data_path)
    if running is not None:
        if not with_console:
            raise LcqError(
                f"a cluster already runs on {config.data_path}: process {running.pid}, "
                f"control socket {running.control_endpoint}",
                hint=f"'lcq console' shows it, 'kill {running.pid}' stops it; another one needs its own data_dir",
            )
        return await open_console(config, stop, own=False)
    async with one_machine(config, agent_log=log_folder / "agent.log" if with_console else None) as scheduler:
        _log.info("cluster is up, control socket %s", scheduler.control_endpoint)
        follower = scheduler.followed(manager, also=lambda changed: _tell_agent(changed, scheduler))
        async with contextlib.AsyncExitStack() as stack:
            await run_beside(stack, ("settings", follower.follow()))
            if with_console:
                return await open_console(config, stop)
            systemd.ready(scheduler.condition)
            async with systemd.watched(lambda: scheduler.condition):
                await first_of(stop.wait(), scheduler.run())
        _log.info("stopping")
        systemd.stopping(_DRAIN_S + _STOP_S)
    return 0


# ---------------------------------------------------------------- parts of a cluster, as blocks


def make_data_folder(data_path: Path) -> None:
    """Have a data folder that only this user can read, and that can be written.

    Raises:
        InvalidConfig: it cannot be made or written.
    """
    try:
        make_private(data_path)
        if not os.access(data_path, os.W_OK | os.X_OK):
            raise PermissionError(errno.EACCES, os.strerror(errno.EACCES))
    except OSError as error:
        raise InvalidConfig(
            f"the data folder {data_path} cannot be used: {error.strerror}",
            hint="set data_dir (LCQ_DATA_DIR) to a folder that you may write",
        ) from error


def stopped_by_signal() -> asyncio.Event:
    """An event that SIGTERM, SIGINT or SIGHUP sets from now on, in the running loop."""
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
        loop.add_signal_handler(number, stop.set)
    return stop


@contextlib.asynccontextmanager
async def serving(config: DistributedConfig) -> AsyncIterator[Scheduler]:
    """A scheduler with its Redis, the configured or the private one, told in the cluster's run file."""
    if not config.enabled:
        raise InvalidConfig(
            "enabled is false: this host takes no part in a cluster", hint="set enabled: true, or LCQ_ENABLED=1"
        )
    async with contextlib.AsyncExitStack() as stack:
        if config.redis.is_private:
            redis_url = (await stack.enter_async_context(PrivateServer(config.data_path))).url
        else:
            redis_url = config.redis.address
        scheduler = await stack.enter_async_context(Scheduler(config, redis_url=redis_url))
        stack.enter_context(
            write_cluster_file(
                config.data_path,
                control_endpoint=scheduler.control_endpoint,
                redis_url=redis_url,
                version=__version__,
                is_keyed=bool(scheduler.site.desk.server_keys),
            )
        )
        yield scheduler


@contextlib.asynccontextmanager
async def one_machine(config: DistributedConfig, *, agent_log: Path | None = None) -> AsyncIterator[Scheduler]:
    """A scheduler in this process and one agent as its child, whose words go to ``agent_log`` or our stderr."""
    with _alone_on(config.data_path):
        async with serving(config) as scheduler:
            await let_agent_in(config, scheduler)
            settings = _tell_agent(config, scheduler)
            patience_s = min(config.agent.drain_s, _DRAIN_S) + 5.0
            child = contextlib.AsyncExitStack()
            await run_beside(
                child,
                ("agent", _keep_agent(settings, agent_log, patience_s)),
                ("agent's log", keep_small(agent_log)),
            )
            try:
                yield scheduler
            finally:
                await child.aclose()  # before the scheduler: the agent hands back what it has not finished


@contextlib.contextmanager
def _alone_on(data_path: Path) -> Iterator[None]:
    """Keep others from running a cluster of their own on this folder: two agents of one name, one spool."""
    import fcntl

    lock = os.open(data_path / "up.lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        yield
    except BlockingIOError as error:
        raise LcqError(
            f"another 'lcq up' is just starting or stopping on {data_path}",
            hint="try again in a moment; or give this one its own data_dir (LCQ_DATA_DIR)",
        ) from error
    finally:
        os.close(lock)


async def let_agent_in(config: DistributedConfig, scheduler: Scheduler) -> None:
    """Where keys are asked for, see that the agent on this data folder has one: it needs no token of anybody."""
    told = scheduler.site.desk.server_keys
    name = config.agent.name or next(iter(nodes_with_keys(config)), host_name())
    if not told:
        return
    path = agent_file(config, name)
    credential = read_credential(path)
    if credential is None or told[0] not in credential.server_keys:
        pair = KeyPair(*new_key_pair())
        credential = Credential(pair, told, (), name, KeyRole.AGENT, name, path)
        write_credential(path, credential)
    place = scheduler.control_endpoint.removeprefix("tcp://")
    if place not in credential.schedulers:
        write_credential(path, replace(credential, schedulers=(place,), server_keys=told))
    record = KeyRecord(key=credential.pair.public, name=name, role=KeyRole.AGENT, node=name, by="lcq up")
    with contextlib.suppress(TransitionRefused):  # it is enrolled already
        await scheduler.state.enrol_key(record)


# ---------------------------------------------------------------- children


def _tell_agent(config: DistributedConfig, scheduler: Scheduler) -> Path:
    """Write the settings of our agent, which follows that file."""
    settings = config.data_path / "agent.json"
    write_private(settings, json.dumps(_agent_settings(config, scheduler)).encode())
    return settings


def _agent_settings(config: DistributedConfig, scheduler: Scheduler) -> dict[str, Any]:
    """What the agent is to know: this scheduler, as it was really bound, and nothing of Redis."""
    settings: dict[str, Any] = config.model_dump(mode="json", exclude={"redis", "contexts", "context"})
    address = urlsplit(scheduler.control_endpoint)
    settings["scheduler_host"] = address.hostname
    settings["zeromq"]["control_port"] = address.port
    wishes = config.agent.devices.items()  # what is not said of one is as another name that fits it says
    settings["agent"]["devices"] = {name: wish.model_dump(mode="json", exclude_unset=True) for name, wish in wishes}
    settings["agent"]["drain_s"] = min(config.agent.drain_s, _DRAIN_S)
    return settings


def _environment(settings: Path) -> Mapping[str, str]:
    """Our environment, but with all settings from that file: ours have gone into it already."""
    rest = dict(os.environ)
    for name in os.environ:
        if name.startswith("LCQ_") and name[4:].lower().partition("__")[0] in DistributedConfig.model_fields:
            del rest[name]
    return {**rest, NAMED_BY: str(settings), ALONE: "1"}


async def _keep_agent(settings: Path, log_file: Path | None, patience_s: float) -> None:
    """Run an agent, again whenever it dies, until cancelled; then it drains, at most ``patience_s``."""
    loop = asyncio.get_running_loop()
    pause_s = _RESTART_S[0]
    while True:
        began = loop.time()
        with _appended(log_file) as out:
            agent = await asyncio.create_subprocess_exec(
                *leashed(_AGENT),
                stdin=asyncio.subprocess.DEVNULL,
                stdout=out,
                stderr=out,
                env=_environment(settings),
                start_new_session=True,  # ctrl-c is for us: we tell the agent in our own order
            )
        try:
            code = await agent.wait()
        finally:
            await _end(agent, patience_s)
        if loop.time() - began > _RESTART_S[1]:
            pause_s = _RESTART_S[0]
        _log.warning("the agent ended with code %d; starting it again in %g s", code, pause_s)
        await asyncio.sleep(pause_s)
        pause_s = min(2 * pause_s, _RESTART_S[1])


@contextlib.contextmanager
def _appended(log_file: Path | None) -> Iterator[IO[bytes] | int]:
    """Where a child's words go: the end of ``log_file``, with the file before it kept once, or our stderr."""
    if log_file is None:
        yield sys.stderr.fileno()
        return
    make_private(log_file.parent)
    if log_file.exists() and log_file.stat().st_size > _LOG_BYTES:
        log_file.replace(log_file.with_suffix(".log.1"))
    with log_file.open("ab") as out:
        yield out


def _cut_long(log_file: Path) -> None:
    if log_file.stat().st_size > _LOG_BYTES:
        shutil.copyfile(log_file, log_file.with_suffix(".log.1"))
        os.truncate(log_file, 0)


async def keep_small(log_file: Path | None) -> None:
    """For ever: keep the end of a log that another process appends to, and one file before it."""
    while log_file is not None:
        await asyncio.sleep(_LOOK_AT_LOG_S)
        try:
            await asyncio.to_thread(_cut_long, log_file)
        except OSError as error:
            _log.warning("%s cannot be kept small: %s", log_file, error.strerror)


async def _end(process: asyncio.subprocess.Process, patience_s: float) -> None:
    if process.returncode is not None:
        return
    process.terminate()
    try:
        async with asyncio.timeout(patience_s):
            await process.wait()
    except TimeoutError:
        _log.warning("process %d did not end within %g s; killing it", process.pid, patience_s)
        process.kill()
        await process.wait()


async def open_console(config: DistributedConfig, stop: asyncio.Event, *, own: bool = True) -> int:
    """Give our terminal to a console until it is left, or ``stop`` is set. Returns its exit code.

    ``own``: leaving it ends the cluster too, and it says so.
    """
    settings = config.data_path / "console.json"
    write_private(settings, json.dumps(config.model_dump(mode="json")).encode())
    with _terminal_kept():
        console = await asyncio.create_subprocess_exec(
            *leashed(_OWN_CONSOLE if own else _CONSOLE), env=_environment(settings)
        )
        try:
            await first_of(console.wait(), stop.wait())
        finally:
            await _end(console, 5.0)
    return 0 if stop.is_set() else console.returncode or 0


@contextlib.contextmanager
def _terminal_kept() -> Iterator[None]:
    """Give the terminal back as it was, also when the one who had it was killed."""
    import termios

    before = termios.tcgetattr(sys.stdin.fileno())
    try:
        yield
    finally:
        termios.tcsetattr(sys.stdin.fileno(), termios.TCSADRAIN, before)


async def first_of(*lives: Coroutine[Any, Any, Any]) -> None:
    """Return when the first of ``lives`` ends; the others are cancelled. What it raised is raised."""
    running = [asyncio.create_task(life, name=getattr(life, "__qualname__", "life")) for life in lives]
    try:
        done, _ = await asyncio.wait(running, return_when=asyncio.FIRST_COMPLETED)
        for life in done:
            life.result()
    finally:
        for life in running:
            life.cancel()
        await asyncio.wait(running)
