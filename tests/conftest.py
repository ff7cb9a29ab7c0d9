"""What every test may use: a real server, a clean environment, a wait for a condition, a seed."""

from __future__ import annotations

import asyncio
import contextlib
import functools
import gc
import importlib
import inspect
import os
import random
import secrets
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Awaitable, Callable, Generator, Iterator
from pathlib import Path
from typing import TypeVar, cast

import pytest
import redis
import redis.utils
from hypothesis import HealthCheck, settings

from lcq.embedded import PrivateServer, find_server
from tests import undertaker

pytest.register_assert_rewrite("tests.audit")  # what the audit found is the evidence, not that it found something

# How long an example takes says how busy the machine is, and nothing else.
settings.register_profile("lcq", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("lcq")

# Every connection would read all that the package says of itself, to tell the server its version.
redis.utils.get_lib_version = functools.cache(redis.utils.get_lib_version)

T = TypeVar("T")
_SEED = "LCQ_TEST_SEED"
_POLL_S = (0.01, 0.1)  # shortest and longest pause between two askings
_MOST_SCRIPTS = 300


def _described(condition: Callable[[], object], what: str) -> str:
    if what:
        return what
    try:
        return inspect.getsource(condition).strip().splitlines()[0]
    except (OSError, TypeError):
        return repr(condition)


def _pause_s(took_s: float) -> float:
    """Asking that takes long takes the processor from whatever is waited for: it gets a fifth of the time at most."""
    shortest, longest = _POLL_S
    return min(longest, max(shortest, 4 * took_s))


async def wait_until(condition: Callable[[], T | Awaitable[T]], *, timeout: float = 120.0, what: str = "") -> T:
    """Ask ``condition`` (plain or async) until it is true, and give back what it said.

    Fails the test after ``timeout`` seconds, saying ``what`` was waited for and the last answer. That is how long a
    machine with far too much to do may take: what comes true costs only the time until it does.
    """
    deadline = time.monotonic() + timeout
    while True:
        asked = time.monotonic()
        said = condition()
        if inspect.isawaitable(said):
            said = await said
        if said:
            return cast(T, said)
        if time.monotonic() > deadline:
            pytest.fail(f"waited {timeout:g} s for: {_described(condition, what)} (last answer: {said!r})")
        await asyncio.sleep(_pause_s(time.monotonic() - asked))


def wait_until_sync(condition: Callable[[], T], *, timeout: float = 120.0, what: str = "") -> T:
    """``wait_until`` for tests that have no event loop."""
    deadline = time.monotonic() + timeout
    while True:
        asked = time.monotonic()
        if said := condition():
            return said
        if time.monotonic() > deadline:
            pytest.fail(f"waited {timeout:g} s for: {_described(condition, what)} (last answer: {said!r})")
        time.sleep(_pause_s(time.monotonic() - asked))


@pytest.hookimpl(wrapper=True)
def pytest_collection() -> Generator[None, object, object]:
    """Tests, and all that they import, stay to the end: garbage is looked for neither among them nor meanwhile."""
    gc.disable()
    try:
        return (yield)
    finally:
        gc.enable()
        gc.freeze()
        gc.set_threshold(10_000, 10, 10)  # as soon as by default, it takes a fifth of the time of the console's tests


@pytest.hookimpl(specname="pytest_collection")
def pytest_collection_of_a_share(session: pytest.Session) -> None:
    """In a fresh checkout all workers would compile every file at the same time, four times the work: each begins with
    a share of its own, and finds the others' compiled when it comes to them."""
    number = os.environ.get("PYTEST_XDIST_WORKER", "").removeprefix("gw")
    if not number:
        return
    root = session.config.rootpath
    places = [root / place.partition("::")[0] for place in session.config.args]
    files = sorted({file for place in places for file in ([place] if place.is_file() else place.rglob("test_*.py"))})
    first = len(files) * int(number) // int(os.environ["PYTEST_XDIST_WORKER_COUNT"])
    for file in (*files[first:], *files[:first]):
        if file.is_relative_to(root):
            # Whatever is wrong with it: pytest comes to it again, and tells.
            with contextlib.suppress(Exception, pytest.skip.Exception):
                importlib.import_module(".".join(file.relative_to(root).with_suffix("").parts))


def pytest_configure() -> None:
    os.environ.setdefault(_SEED, str(secrets.randbelow(2**32)))  # before xdist's workers inherit it
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:  # as a shell starts what is to run in the background
        signal.signal(signal.SIGINT, signal.default_int_handler)  # what is started here would inherit its deafness


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Files whose tests may take longest come first, and in each folder those that have most: at the end no worker is
    left alone with one of them. Folders keep their places: what waits goes before what computes, and before torch."""
    patience: dict[Path, float] = {}
    counts = Counter(item.path for item in items)
    places = {folder: place for place, folder in enumerate(dict.fromkeys(item.path.parent for item in items))}
    for item in items:
        marker = item.get_closest_marker("timeout")
        patience[item.path] = max(patience.get(item.path, 0.0), float(marker.args[0]) if marker else 0.0)
    items.sort(key=lambda item: (-patience[item.path], places[item.path.parent], -counts[item.path]))


@pytest.hookimpl(tryfirst=True)
def pytest_unconfigure() -> None:
    """What is garbage at the end is looked at once; pytest would go through all that there is ten times more."""
    gc.collect()
    gc.freeze()


def pytest_report_header() -> list[str]:
    seed = os.environ[_SEED]
    return [f"lcq: seed {seed} ({_SEED}={seed} repeats it), redis server {find_server()}"]


def _clean(monkeypatch: pytest.MonkeyPatch, home: Path) -> None:
    for name in tuple(os.environ):
        if name.startswith("LCQ_") and name != _SEED:
            monkeypatch.delenv(name)
    for variable in ("XDG_DATA_HOME", "XDG_CONFIG_HOME", "XDG_CACHE_HOME", "XDG_STATE_HOME"):
        monkeypatch.setenv(variable, str(home / variable))
    monkeypatch.setenv("LCQ_DISCOVERY__ENABLED", "0")  # nor speaks on the LAN
    monkeypatch.setenv("LCQ_HTTP__ENABLED", "0")  # nor takes the one port 8081 from others


@contextlib.contextmanager
def undertaken(folder: Path) -> Iterator[None]:
    """Should this process be killed within the block, all that it has started from ``folder`` ends soon after."""
    if not Path("/proc/self/environ").exists():
        yield
        return
    command = [sys.executable, "-I", "-S", undertaker.__file__, str(folder), str(find_server())]
    with subprocess.Popen(command, stdin=subprocess.PIPE, bufsize=0, start_new_session=True) as process:
        assert process.stdin is not None
        try:
            yield
        finally:
            with contextlib.suppress(BrokenPipeError):  # somebody has killed it
                process.stdin.write(undertaker.BYE)


@pytest.fixture(scope="session", autouse=True)
def _clean_session(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Nor does what tests share, which is made before any of them begins; and nothing of it outlives this process."""
    with pytest.MonkeyPatch.context() as monkeypatch:
        folder = tmp_path_factory.getbasetemp()
        _clean(monkeypatch, folder / "home")
        with undertaken(folder):
            yield


@pytest.fixture(autouse=True)
def _clean_environment(monkeypatch: pytest.MonkeyPatch, tmp_path_factory: pytest.TempPathFactory) -> None:
    """No test reads or writes what belongs to the person who runs it, and each starts from the same seed."""
    _clean(monkeypatch, tmp_path_factory.getbasetemp() / "home")
    random.seed(int(os.environ[_SEED]))


@pytest.fixture
def rng() -> random.Random:
    """A source of chance that ``LCQ_TEST_SEED`` repeats."""
    return random.Random(int(os.environ[_SEED]))


@pytest.fixture(scope="session")
def redis_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[PrivateServer]:
    """A real server of this session (of this worker, under xdist), started as LCQ starts its own."""
    with PrivateServer(tmp_path_factory.mktemp("private")) as server:
        yield server


@pytest.fixture
def redis_url(redis_server: PrivateServer) -> str:
    """The address of a running server with no key in it."""
    redis_server.ensure_running()
    with redis.Redis.from_url(redis_server.url) as client:
        _, memory = client.pipeline(transaction=False).flushall().info("memory").execute()
        # Scripts stay, as many as a few configurations have: their names are their digests, and to compile them all
        # anew would be what most tests of the state do longest.
        if memory["number_of_cached_scripts"] > _MOST_SCRIPTS:
            client.script_flush()
    return redis_server.url


@pytest.fixture
def data_path(tmp_path: Path) -> Path:
    """A fresh data folder, on a path short enough for its sockets or not: both must do."""
    return tmp_path / "data"
