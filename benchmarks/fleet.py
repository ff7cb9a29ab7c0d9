"""A fleet in simulated time: the real routing code and the real scripts, up to a thousand nodes and a million tasks.

    python -m benchmarks.fleet                 # the small form: seconds
    python -m benchmarks.fleet --full          # 1,000 nodes, and queues of up to a million tasks
    python -m benchmarks.fleet --nodes 200 --tasks 20000 --depths 1000 100000 --sizes 10 1000
    python -m benchmarks.fleet --only work --nodes 1000 --tasks 1000000 --waiting 200000 --small 500   # half an hour

What is simulated is the work: how long a picture takes on which device, and the clock. What decides is what decides in
a cluster: ``lcq.routing`` chooses the queue, the Lua scripts the order and who gets what, on a private server of their
own. There are no agents and no sockets, and no bell that comes late. The scripts get the simulated clock by one line of
their text, which is exchanged as they are loaded here; the product has no way to do that.

It tells

- **makespan**: all tasks are there at the beginning; how long until the last is done, against the same tasks dealt
  out beforehand: by turns (round robin), to who has the fewest for its slots (least loaded), to who has the fewest
  predicted seconds. Each deals only to devices that can run the task.
- **the small users**: while the flood of one user's job is worked off, others send one picture each now and then; how
  long the unluckiest waits for its start, against a queue that is first come, first served.
- **warm hits**: the share of starts that found their model loaded.
- **the cost of a decision**, in processor time (of the server for the scripts, of this process for routing), by the
  number of nodes and of waiting tasks. Decisions a second are those of a second of processor time, the server's and
  this process's together: what else the machine does spoils none of it.

How far it is stands on the standard error output, once in twenty thousand tasks.

Compare the figures of one run only. benchmarks/README.md has those that were seen.
"""

from __future__ import annotations

import argparse
import asyncio
import heapq
import json
import os
import random
import statistics
import sys
import tempfile
import time
from collections import OrderedDict, deque
from collections.abc import Awaitable, Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property, lru_cache, partial
from hashlib import sha1
from pathlib import Path
from typing import Any, cast

import redis

from lcq.config import DistributedConfig, RedisConfig, RetentionConfig
from lcq.embedded import PrivateServer
from lcq.ids import new_id
from lcq.models import (
    Device,
    DeviceKind,
    DeviceReading,
    ModelOffer,
    NodeCapability,
    NodeRecord,
    Task,
    TaskResult,
    TaskType,
)
from lcq.outlook import Outlook
from lcq.routing import Fleet, route
from lcq.state.connection import our_errors
from lcq.state.manager import StateManager
from lcq.state.reader import StateReader
from lcq.state.records import digest_of
from lcq.state.scripts import Scripts

GPU, CPU = DeviceKind.GPU, DeviceKind.CPU
STEP_S = 0.25  # devices that become free within so long of simulated time ask together
PICTURE_S = 1.0  # how old the picture may be by which tasks are routed, and left for faster devices
POLL_S = 3.0  # how often an idle device asks although nobody called it
LOADED = 2  # models that a device keeps loaded
BEGIN_MS = 1_800_000_000_000
AT_ONCE = 2000  # moves that are asked for together
ANEW = 5  # times as many are submitted by one picture, where there are more
NEWS = 20_000  # tasks after which is told how far it is
SILENCE_S = 3600.0  # how long the server may say nothing: who runs this behind all others waits long for a processor


# ---------------------------------------------------------------- the world


@dataclass(frozen=True)
class Model:
    """What a picture of one megapixel truly takes on an ordinary device, in seconds."""

    name: str
    share: float  # of all tasks
    seconds: dict[DeviceKind, float]
    load_s: float
    vram_mib: int = 0


MODELS = (
    Model("lama", 0.50, {GPU: 0.5, CPU: 5.0}, 3.0, 2000),
    Model("migan", 0.15, {GPU: 0.3, CPU: 2.0}, 2.0, 2000),
    Model("mat", 0.10, {GPU: 1.0, CPU: 20.0}, 6.0, 4000),
    Model("cv2-telea", 0.25, {CPU: 0.3}, 0.0),
)
BY_NAME = {model.name: model for model in MODELS}


@dataclass(frozen=True)
class Kind:
    """One of the five kinds of nodes; each has one device."""

    name: str
    share: float  # of all nodes
    device: Device
    speed: float  # against the ordinary device


KINDS = (
    Kind("large GPU", 0.1, Device(id="gpu", kind=GPU, name="large", vram_mib=24_000, slots=2), 3.0),
    Kind("middle GPU", 0.2, Device(id="gpu", kind=GPU, name="middle", vram_mib=8_000, slots=1), 1.5),
    Kind("small GPU", 0.2, Device(id="gpu", kind=GPU, name="small", vram_mib=4_000, slots=1), 0.6),
    Kind("large CPU", 0.2, Device(id="cpu", kind=CPU, cores=32, memory_mib=64_000, slots=8), 1.0),
    Kind("small CPU", 0.3, Device(id="cpu", kind=CPU, cores=2, memory_mib=4_000, slots=2), 0.5),
)


@dataclass(eq=False)
class Station:
    """A node's only device, as the simulation knows it."""

    id: str
    kind: Kind
    loaded: OrderedDict[str, None] = field(default_factory=OrderedDict)  # models, the one used longest ago first
    running: int = 0

    @property
    def slots(self) -> int:
        return self.kind.device.slots

    @cached_property
    def capability(self) -> NodeCapability:
        kind = self.kind.device.kind
        offers = {
            model.name: ModelOffer(
                kinds=tuple(model.seconds), vram_mib=model.vram_mib, seconds={kind: model.seconds[kind]}
            )
            for model in MODELS
            if kind in model.seconds
        }
        return NodeCapability(devices=(self.kind.device,), models=offers)

    @cached_property
    def lanes(self) -> frozenset[str]:
        return self.capability.lanes_of(self.kind.device)

    def takes(self, model: str, megapixels: float) -> tuple[float, bool]:
        """Seconds that the picture truly takes here now, and whether the model was loaded. It is, from now on."""
        facts = BY_NAME[model]
        seconds = facts.seconds[self.kind.device.kind] * megapixels / self.kind.speed
        is_warm = model in self.loaded or facts.load_s == 0
        self.loaded[model] = None
        self.loaded.move_to_end(model)
        while len(self.loaded) > LOADED:
            self.loaded.popitem(last=False)
        return seconds + (0.0 if is_warm else facts.load_s), is_warm


def the_fleet(count: int) -> list[Station]:
    """``count`` nodes of all five kinds, in the order of their kinds."""
    stations: list[Station] = []
    for number, kind in enumerate(KINDS, start=1):
        until = round(count * sum(one.share for one in KINDS[:number]))
        stations += [Station(f"{kind.name.replace(' ', '-')}-{n}", kind) for n in range(until - len(stations))]
    return stations


@dataclass(frozen=True, slots=True)
class Work:
    """One task of the simulation: there may be a million, so it is made when it is submitted."""

    model: str
    megapixels: float
    user: str
    job: str
    after: int = 0  # starts of the flood's tasks before it comes; 0: it is of the flood

    @property
    def size(self) -> tuple[int, int]:
        side = max(1, round((self.megapixels * 1e6) ** 0.5))
        return side, side

    @property
    def task(self) -> Task:
        """A new one each time."""
        return _like(self.model, self.user, self.job).model_copy(update={"id": new_id()})


@lru_cache
def _like(model: str, user: str, job: str) -> Task:
    return Task.model_validate(
        {
            "task_type": TaskType.INPAINT, "image_path": "/photos/a.png", "config": {"model": model},
            "user_id": user, "job": job or None,
        }
    )  # fmt: skip


def a_work(rng: random.Random, user: str, job: str, after: int = 0) -> Work:
    (model,) = rng.choices(MODELS, [one.share for one in MODELS])
    return Work(model.name, min(max(rng.lognormvariate(0, 0.6), 0.1), 8.0), user, job, after)


# ---------------------------------------------------------------- the server, and its clock


class SimulatedScripts(Scripts):
    """The scripts, word for word, but for the line in which they look at the clock: they read a key instead."""

    @cached_property
    def texts(self) -> dict[str, str]:
        line = "local NOW = read_clock()"
        put = 'local NOW = tonumber(redis.call("GET", key("simulated_ms")))'
        texts = dict(super().texts)
        looks = sum(text.count('redis.call("TIME")') for text in texts.values())
        assert looks == sum(text.count(line) for text in texts.values()), "the scripts look at the clock elsewhere now"
        return {name: text.replace(line, put) for name, text in texts.items()}

    @cached_property
    def digests(self) -> dict[str, str]:
        return {name: sha1(text.encode(), usedforsecurity=False).hexdigest() for name, text in self.texts.items()}


class SimulatedState(StateManager):
    """The moves, word for word; sent and read by less Python than redis-py's, which is half of a move's cost here.

    It waits for the server as long as it takes, and nothing else of this process goes on meanwhile.
    """

    def __init__(self, config: DistributedConfig, *, url: str, eye: redis.Redis) -> None:
        super().__init__(config, url=url)
        self._scripts = SimulatedScripts(config)
        self._line: Any = eye.connection_pool.get_connection()
        # Nobody looks after the server, or listens to what happens.
        self.watch.run = self.feed._follow = asyncio.Event().wait  # type: ignore[assignment,method-assign]

    async def _pipeline(self, batch: Sequence[tuple[str, Sequence[Any], Any]]) -> list[Any]:
        digests = self._scripts.digests
        told = [packed(("EVALSHA", digests[name], *map(str, arguments))) for name, arguments, _ in batch]
        self._line.send_packed_command([b"".join(told)])
        return [self._answer() for _ in batch]

    def _answer(self) -> Any:
        try:
            return self._line.read_response()
        except redis.ResponseError as refusal:  # the other answers still have to be read
            return refusal


def packed(command: Sequence[str]) -> bytes:
    """A command as Redis reads it."""
    parts = [f"*{len(command)}\r\n".encode()]
    for one in command:
        said = one.encode()
        parts.append(b"$%d\r\n%s\r\n" % (len(said), said))
    return b"".join(parts)


@dataclass
class Spent:
    """Seconds of processor time."""

    server_s: float = 0.0
    here_s: float = 0.0  # of this process

    def add(self, began: Spent, ended: Spent) -> None:
        self.server_s += ended.server_s - began.server_s
        self.here_s += ended.here_s - began.here_s

    def us_each(self, count: int) -> dict[str, float]:
        """Microseconds, for each of so many."""
        each = 1e6 / max(1, count)
        return {"server_us": round(self.server_s * each, 1), "here_us": round(self.here_s * each, 1)}


class World:
    """A private server with the scripts on it, a simulated clock, and what it all costs the server's processor."""

    def __init__(self, url: str) -> None:
        # Nothing here has to outlive the benchmark: no log, and what is done is forgotten at once.
        self.config = DistributedConfig(
            redis=RedisConfig(unsafe=True), retention=RetentionConfig(completed_s=0.001, events=1000)
        )
        cast("Any", our_errors).__wrapped__.__kwdefaults__["within_s"] = SILENCE_S
        self.eye = redis.Redis.from_url(url, decode_responses=True, socket_timeout=SILENCE_S)
        self.state = SimulatedState(self.config, url=url, eye=self.eye)
        self.eye.config_set("appendonly", "no")
        self.eye.config_set("save", "")
        self.eye.flushall()
        self.clock_key = f"{self.config.redis.namespace}:simulated_ms"
        self.set_clock(0.0)
        self._clock_file = Path(f"/proc/{self.eye.info('server')['process_id']}/schedstat")

    def set_clock(self, now_s: float) -> None:
        self.eye.set(self.clock_key, BEGIN_MS + int(now_s * 1000))

    def server_us(self) -> float:
        """Processor time that the server has had, in microseconds."""
        return int(self._clock_file.read_text().split()[0]) / 1e3

    def clock(self) -> Spent:
        """Processor time that was had until now."""
        return Spent(self.server_us() / 1e6, time.process_time())

    async def register(self, stations: Iterable[Station]) -> None:
        for some in _pieces(stations):
            await asyncio.gather(
                *(
                    self.state.register_node(
                        one.id, boot="b", capability=one.capability, serves=one.capability.serves(self.config.queues)
                    )
                    for one in some
                )
            )

    async def claim(self, one: Station, slots: int, picture: Picture | None = None) -> list[str]:
        """The ids of what is granted. With ``picture``, by the costs and the patience that a scheduler tells."""
        device = one.kind.device
        costs, patience, node, held = "", None, None, asyncio.Event()
        if picture is not None:
            node = picture.nodes[one.id]
            costs, patience = await picture.outlook.of(node, device, tuple(one.loaded))
        grants = await self.state.claim_tasks(
            node=one.id, boot="b", device=device.id, kind=device.kind, slots=slots, lanes=one.lanes,
            queues=one.capability.serves(self.config.queues)[device.id], warm=tuple(one.loaded), lease_ms=10**9,
            costs=costs, patience=patience, on_held=held.set,
        )  # fmt: skip
        if picture is not None and node is not None:
            picture.outlook.note(node, device, patience or {}, held=held.is_set())
        return [grant.task.id for grant in grants]

    async def ends_ms(self) -> list[tuple[str, float]]:
        """What runs, as node|device|task, and when it is predicted to end, by the simulated clock."""
        return list(self.eye.zrange(self.state.keys.ends, 0, -1, withscores=True))


class Picture:
    """The picture of the fleet that a scheduler would have, by the simulated clock."""

    def __init__(self, world: World, stations: Sequence[Station]) -> None:
        self.nodes: dict[str, NodeRecord] = {}
        self.now_s = 0.0
        self.fleet: Fleet
        self.placed_s: dict[str, float] = {}
        self.outlook = Outlook(cast("StateReader", self), clock=lambda: self.now_s)
        self._world = world
        self._stations = {one.id: one for one in stations}
        self._taken_s = -1.0
        self._known: tuple[NodeRecord, ...] = ()
        self.taken = 0

    async def recent_fleet(self, *, within_s: float) -> Fleet:
        """As the outlook asks for it."""
        return self.fleet

    async def take(self, now_s: float, *, anew: bool = False) -> Fleet:
        """The picture, at most ``PICTURE_S`` old; a new one with ``anew``."""
        self.now_s = now_s
        if anew or self._taken_s < 0 or now_s - self._taken_s >= PICTURE_S:
            self._taken_s = now_s
            self.taken += 1
            told = await self._read()
            busy: dict[tuple[str, str], tuple[float, ...]] = {}
            for member, ends_ms in await self._world.ends_ms():
                node, device, _ = member.split("|")
                busy[node, device] = (*busy.get((node, device), ()), abs(ends_ms - BEGIN_MS - now_s * 1000) / 1000)
            self.nodes = {node.id: self._as_it_is(node) for node in told.nodes}
            self.placed_s = {}
            nodes = tuple(self.nodes.values())
            self.fleet = replace(told, nodes=nodes, busy_s=busy, placed_s=self.placed_s)
        return self.fleet

    async def _read(self) -> Fleet:
        """As a scheduler does; but the nodes, of which nothing in Redis changes here, once."""
        reader = self._world.state.reader
        if not self._known:
            self._known = await reader.nodes()

            async def known() -> tuple[NodeRecord, ...]:
                return self._known

            reader.nodes = known  # type: ignore[method-assign]
        return await reader.fleet()

    def _as_it_is(self, node: NodeRecord) -> NodeRecord:
        """With what its beat would tell: the loaded models."""
        one = self._stations[node.id]
        warm, before = tuple(one.loaded), self.nodes.get(node.id)
        if before is not None and before.readings[one.kind.device.id].warm == warm:
            return before
        return node.model_copy(update={"readings": {one.kind.device.id: DeviceReading(warm=warm)}})


def _pieces(things: Iterable[Any], size: int = AT_ONCE) -> Iterator[list[Any]]:
    piece: list[Any] = []
    for thing in things:
        piece.append(thing)
        if len(piece) == size:
            yield piece
            piece = []
    if piece:
        yield piece


# ---------------------------------------------------------------- the fleet at work


@dataclass
class Outcome:
    """What came of the same tasks under one way to place them."""

    makespan_s: float = 0.0  # of the flood
    warm: int = 0
    starts: int = 0
    flood_starts: int = 0
    waits_s: list[float] = field(default_factory=list)  # of the small users' tasks
    done: int = 0

    def note(self, work: Work, came_s: float, start_s: float, end_s: float, *, is_warm: bool) -> None:
        self.starts += 1
        self.warm += is_warm
        if work.after:
            self.waits_s.append(start_s - came_s)
        else:
            self.flood_starts += 1
            self.makespan_s = max(self.makespan_s, end_s)

    def told(self) -> dict[str, float]:
        return {"makespan_s": round(self.makespan_s, 1), "warm_share": round(self.warm / max(1, self.starts), 3)}


class Simulation:
    """The tasks, through routing and the scripts, to the devices."""

    def __init__(self, world: World, stations: Sequence[Station], work: Sequence[Work], most: int) -> None:
        """``most``: tasks that wait at a time; the flood goes on coming as there is room."""
        self._world, self._stations, self._most = world, stations, most
        self._flood = deque(one for one in work if not one.after)
        self._singles = deque(sorted((one for one in work if one.after), key=lambda one: one.after))
        self._came_s: dict[str, tuple[Work, float]] = {}  # what waits, and since when
        self._left = len(work)
        self._news_at = 0
        self._seconds: dict[str, float] = {}  # that each running task truly takes
        self._ends: list[tuple[float, int, str]] = []  # when, which station, which task
        self._idle: set[int] = set()
        self._picture = Picture(world, stations)
        self.outcome = Outcome()
        self.submits, self.finishes, self.claims, self.pictures, self.all = Spent(), Spent(), Spent(), Spent(), Spent()
        self.routing_s = 0.0
        self.claims_asked = self.submitted = 0

    async def run(self) -> None:
        self._idle = set(range(len(self._stations)))
        now, next_poll = 0.0, 0.0
        self.began = self._world.clock()
        while self.outcome.done < self._left:
            self._world.set_clock(now)
            await self._take(now)
            self._tell(now)
            news = await self._submit(now)
            free = await self._finish(now)
            is_waiting = len(self._came_s) > 0
            if is_waiting and (news or now >= next_poll):
                free |= self._idle
                next_poll = now + POLL_S
            await self._claim(now, free)
            soon = now if self._is_due else now + POLL_S
            now = max(now + STEP_S, min(soon, self._ends[0][0]) if self._ends else soon)
            if self.outcome.done % NEWS < AT_ONCE:
                await self._world.state.forget_tasks()
        self.all.add(self.began, self._world.clock())

    @property
    def pictures_taken(self) -> int:
        return self._picture.taken

    async def _take(self, now: float, *, anew: bool = False) -> Fleet:
        began = self._world.clock()
        fleet = await self._picture.take(now, anew=anew)
        self.pictures.add(began, self._world.clock())
        return fleet

    def _tell(self, now: float) -> None:
        """How far it is."""
        if self.outcome.done + self.submitted < self._news_at:
            return
        self._news_at += NEWS
        spent = Spent()
        spent.add(self.began, self._world.clock())
        waits = self.outcome.waits_s
        print(
            f"{time.strftime('%H:%M:%S')} simulated {now:.0f} s: {self.submitted} submitted, {self.outcome.done} of "
            f"{self._left} done; processor {spent.server_s:.0f} s of the server, {spent.here_s:.0f} s here; "
            f"{self.outcome.warm} of {self.outcome.starts} starts were warm; "
            f"small users: {len(waits)} started, the longest wait {max(waits, default=0.0):.2f} s",
            file=sys.stderr, flush=True,
        )  # fmt: skip

    @property
    def _is_due(self) -> bool:
        """Whether a small user comes now."""
        return bool(self._singles) and self._singles[0].after <= self.outcome.flood_starts

    async def _submit(self, now: float) -> bool:
        due = []
        while self._is_due:
            due.append(self._singles.popleft())
        room = self._most - len(self._came_s)
        if room >= AT_ONCE or not self._came_s:
            due += [self._flood.popleft() for _ in range(min(room, len(self._flood)))]
        for number, some in enumerate(_pieces(due)):
            # So many take a scheduler longer than its picture is good for.
            fleet = await self._take(now, anew=len(due) > AT_ONCE and number % ANEW == 0)
            began = self._world.clock()
            routes = []
            for work in some:
                task = work.task
                routed = route(task, fleet, size=work.size)
                fleet.note_placed(routed)
                routes.append((work, task, routed))
                self._came_s[task.id] = work, now
            self.routing_s += time.process_time() - began.here_s
            await asyncio.gather(
                *(
                    self._world.state.submit_task(
                        task,
                        queue=routed.queue,
                        cost_s=routed.seconds,
                        vram_mib=routed.vram_mib,
                        why=routed.why,
                        size=work.size,
                    )
                    for work, task, routed in routes
                )
            )
            self.submits.add(began, self._world.clock())
            self.submitted += len(some)
            self._tell(now)
        return bool(due)

    async def _finish(self, now: float) -> set[int]:
        ended = []
        while self._ends and self._ends[0][0] <= now:
            ended.append(heapq.heappop(self._ends))
        began = self._world.clock()
        for some in _pieces(ended):
            await asyncio.gather(
                *(
                    self._world.state.finish_task(
                        task_id, attempt=1, node=self._stations[place].id, result=_result(self._seconds.pop(task_id))
                    )
                    for _, place, task_id in some
                )
            )
        self.finishes.add(began, self._world.clock())
        for _, place, _ in ended:
            self._stations[place].running -= 1
        self.outcome.done += len(ended)
        return {place for _, place, _ in ended}

    async def _claim(self, now: float, places: set[int]) -> None:
        began = self._world.clock()
        self.claims_asked += len(places)
        for some in _pieces(sorted(places)):
            stations = [self._stations[place] for place in some]
            told = await asyncio.gather(
                *(self._world.claim(one, one.slots - one.running, self._picture) for one in stations)
            )
            for place, one, ids in zip(some, stations, told, strict=True):
                for task_id in ids:
                    work, came_s = self._came_s.pop(task_id)
                    seconds, is_warm = one.takes(work.model, work.megapixels)
                    self.outcome.note(work, came_s, now, now + seconds, is_warm=is_warm)
                    self._seconds[task_id] = seconds
                    heapq.heappush(self._ends, (now + seconds, place, task_id))
                one.running += len(ids)
                (self._idle.add if one.running < one.slots else self._idle.discard)(place)
        self.claims.add(began, self._world.clock())


def _result(seconds: float) -> TaskResult:
    return TaskResult(path="/photos/a.out.png", bytes=1, sha256="ab" * 32, width=4, height=3, seconds=seconds)


# ---------------------------------------------------------------- other ways to place the same tasks


def able(stations: Sequence[Station]) -> dict[str, list[int]]:
    """By model, which devices can run it."""
    return {model.name: [n for n, one in enumerate(stations) if model.name in one.lanes] for model in MODELS}


def dealt(stations: Sequence[Station], flood: Iterable[Work], load: Callable[[Station, Work], float]) -> Outcome:
    """Every task goes at once to the device that can run it and has the least load, and waits there for its turn."""
    loads = [0.0] * len(stations)
    heaps = {model: [(0.0, place) for place in places] for model, places in able(stations).items()}
    free = [[0.0] * one.slots for one in stations]
    outcome = Outcome()
    for work in flood:
        heap = heaps[work.model]
        while heap[0][0] != loads[heap[0][1]]:  # another model's task has gone there since
            heapq.heapreplace(heap, (loads[heap[0][1]], heap[0][1]))
        place = heap[0][1]
        loads[place] += load(stations[place], work)
        heapq.heapreplace(heap, (loads[place], place))
        start = heapq.heappop(free[place])
        seconds, is_warm = stations[place].takes(work.model, work.megapixels)
        heapq.heappush(free[place], start + seconds)
        outcome.note(work, 0.0, start, start + seconds, is_warm=is_warm)
    return outcome


def by_turns(station: Station, work: Work) -> float:
    return 1.0


def by_count(station: Station, work: Work) -> float:
    return 1.0 / station.slots


def by_predicted_seconds(station: Station, work: Work) -> float:
    """What routing's shipped facts know too: seconds by model and kind of device, not how fast this one is."""
    return BY_NAME[work.model].seconds[station.kind.device.kind] / station.slots


def first_come(stations: Sequence[Station], work: Iterable[Work]) -> Outcome:
    """First come, first served: who is free takes the oldest that it can run."""
    outcome = Outcome()
    free = [(0.0, place, slot) for place, one in enumerate(stations) for slot in range(one.slots)]
    heapq.heapify(free)
    queues: dict[str, deque[tuple[float, int, Work]]] = {model.name: deque() for model in MODELS}
    coming = deque(enumerate(sorted(work, key=lambda one: one.after)))
    now = 0.0
    while coming or any(queues.values()):
        while coming and coming[0][1].after <= outcome.flood_starts:
            number, one = coming.popleft()
            queues[one.model].append((now, number, one))
        now, place, slot = heapq.heappop(free)
        heads = [queues[lane][0] for lane in stations[place].lanes if queues[lane]]
        if not heads:
            if not free:
                break
            heapq.heappush(free, (free[0][0] + STEP_S, place, slot))
            continue
        came, _, oldest = min(heads, key=lambda head: head[:2])
        queues[oldest.model].popleft()
        seconds, is_warm = stations[place].takes(oldest.model, oldest.megapixels)
        outcome.note(oldest, came, now, now + seconds, is_warm=is_warm)
        heapq.heappush(free, (now + seconds, place, slot))
    return outcome


# ---------------------------------------------------------------- what is measured


async def at_work(
    url: str, nodes: int, tasks: int, small: int, *, waiting: int = 10**9, seed: int = 1
) -> dict[str, Any]:
    """A flood of ``tasks`` of one user, and ``small`` tasks of as many others while it is worked off.

    ``waiting``: how many of the flood wait in Redis at a time."""
    rng = random.Random(seed)
    flood = [a_work(rng, "flood", f"folder {n % 3}") for n in range(tasks)]
    others = {
        "round_robin": dealt(the_fleet(nodes), flood, by_turns),
        "least_loaded": dealt(the_fleet(nodes), flood, by_count),
        "least_predicted_seconds": dealt(the_fleet(nodes), flood, by_predicted_seconds),
    }
    # The small users come while the first nine tenths of the flood are started.
    singles = [a_work(rng, f"user {n}", "", max(1, round(0.9 * tasks * rng.random()))) for n in range(small)]
    work = [*flood, *singles]
    others["first_come_first_served"] = fifo = first_come(the_fleet(nodes), work)
    print(json.dumps({name: outcome.told() for name, outcome in others.items()}), file=sys.stderr, flush=True)
    world = World(url)
    stations = the_fleet(nodes)
    try:
        async with world.state:
            await world.register(stations)
            simulation = Simulation(world, stations, work, waiting)
            began = time.perf_counter()
            await simulation.run()
            took_s = time.perf_counter() - began
            used = world.eye.info("memory")["used_memory_peak"]
    finally:
        world.eye.close()
    ours = simulation.outcome
    moves = 2 * len(work) + ours.starts  # each task is routed, submitted, and granted
    figures: dict[str, Any] = {"nodes": nodes, "tasks": len(work), "waiting_at_most": min(waiting, len(work))}
    figures["lcq"] = ours.told()
    figures |= {name: outcome.told() for name, outcome in others.items()}
    figures["times_longer_than_lcq"] = {
        name: round(outcome.makespan_s / ours.makespan_s, 2) for name, outcome in others.items()
    }
    waits = ours.waits_s or [0.0]
    figures["small_users"] = {
        "worst_wait_s": round(max(waits), 2),
        "p99_wait_s": round(sorted(waits)[int(0.99 * (len(waits) - 1))], 2),
        "median_wait_s": round(statistics.median(waits), 2),
        "worst_wait_first_come_s": round(max(fifo.waits_s, default=0.0), 1),
    }
    spent = simulation.all
    figures["decisions_per_processor_s"] = round(moves / (spent.server_s + spent.here_s))
    figures["routings_per_processor_s"] = round(len(work) / max(simulation.routing_s, 1e-9))
    figures["processor_s"] = {"server": round(spent.server_s, 1), "here": round(spent.here_s, 1)}
    figures["each"] = {
        "submit_and_route": simulation.submits.us_each(len(work)),
        "finish": simulation.finishes.us_each(ours.done),
        "claim": simulation.claims.us_each(simulation.claims_asked) | {"asked": simulation.claims_asked},
        "picture": simulation.pictures.us_each(simulation.pictures_taken) | {"taken": simulation.pictures_taken},
    }
    figures["server_peak_mib"] = round(used / 2**20)
    figures["took_s"] = round(took_s, 1)
    return figures


_ID, _USER, _JOB = "0123456789abcdef", "user-number", "job-number"


class _Kept(Exception):
    """What a move would have sent."""


def _alike(first: tuple[str, ...], number: int) -> bytes:
    """The same submit for another task, of one of many users and jobs, as Redis reads it."""
    new = {_ID: new_id(), _USER: f"user {number % 997}", _JOB: f"job {number % 4003}"}
    text = first[5]
    for old, name in new.items():
        text = text.replace(old, name)
    said = [new.get(one, one) for one in first]
    said[5], said[6] = text, digest_of(text)
    return packed(said)


def _write(connection: Any, commands: list[bytes]) -> None:
    connection.send_packed_command([b"".join(commands)])
    for _ in commands:
        answer = connection.read_response()
        assert answer[0] == "ok", answer


class Costs:
    """Processor time of one move or one routing, at growing sizes."""

    def __init__(self, world: World, rng: random.Random) -> None:
        self._world, self._rng = world, rng

    async def of_moves(self, moves: Sequence[Callable[[], Awaitable[Any]]]) -> float:
        """Microseconds of the server's processor a move, without the first few: those may have to settle."""
        for move in moves[:10]:
            await move()
        began = self._world.server_us()
        await asyncio.gather(*(move() for move in moves[10:]))
        return (self._world.server_us() - began) / max(1, len(moves) - 10)

    async def routing(self, times: int) -> dict[str, float]:
        """A decision with the picture of the fleet at hand (microseconds), and what a new picture takes (milliseconds).

        Of this process; a scheduler makes a new picture at most twice a second."""
        tasks = [a_work(self._rng, "ann", "").task for _ in range(times)]
        began = time.process_time()
        fleet = await self._world.state.reader.fleet()
        for task in {task.model: task for task in tasks}.values():
            route(task, fleet)
        picture_ms = (time.process_time() - began) * 1e3
        began = time.process_time()
        for task in tasks:
            route(task, fleet)
        route_us = (time.process_time() - began) * 1e6 / times
        return {"route_us": round(route_us, 1), "picture_ms": round(picture_ms, 1)}

    async def fill(self, depth: int, have: int) -> None:
        """Lets so many tasks wait, of many users and jobs.

        They are written as one of each model is, by the same script, without a scheduler's work for each of a million.
        """
        queues = {name: ("gpu-low" if GPU in model.seconds else "cpu-light") for name, model in BY_NAME.items()}
        firsts = {}
        for model, queue in queues.items():
            task = a_work(self._rng, _USER, _JOB).task.model_copy(update={"id": _ID, "config": {"model": model}})
            move = partial(self._world.state.submit_task, task, queue=queue, cost_s=0.5)
            firsts[model] = await self._asked(move)
        names, shares = list(queues), [model.share for model in MODELS]
        connection = self._world.eye.connection_pool.get_connection()
        try:
            for some in _pieces(range(have, depth)):
                models = self._rng.choices(names, shares, k=len(some))
                await asyncio.to_thread(
                    _write, connection, [_alike(firsts[m], n) for m, n in zip(models, some, strict=True)]
                )
        finally:
            self._world.eye.connection_pool.release(connection)

    async def _asked(self, move: Callable[[], Awaitable[Any]]) -> tuple[str, ...]:
        """The EVALSHA that a move would send, which is not sent."""
        state: Any = self._world.state

        async def keep(name: str, *arguments: object) -> None:
            script = state._scripts.digests[name]
            raise _Kept("EVALSHA", script, "1", state.keys.root, *map(str, arguments))

        state._move = keep
        try:
            await move()
        except _Kept as kept:
            return tuple(kept.args)
        finally:
            del state._move
        raise AssertionError("it asked for nothing")

    async def figures(self, stations: Sequence[Station], times: int) -> dict[str, float]:
        state = self._world.state
        asked = [self._rng.choice(stations) for _ in range(times)]
        claims: list[tuple[Station, list[str]]] = []

        async def claim(one: Station) -> None:
            claims.append((one, await self._world.claim(one, 1)))

        claim_us = await self.of_moves([lambda one=one: claim(one) for one in asked])  # type: ignore[misc]
        held = [(one, task_id) for one, ids in claims for task_id in ids]
        finish_us = await self.of_moves(
            [
                lambda one=one, task_id=task_id: state.finish_task(  # type: ignore[misc]
                    task_id, attempt=1, node=one.id, result=_result(0.5)
                )
                for one, task_id in held
            ]
        )
        new = [a_work(self._rng, f"user {n}", "").task for n in range(len(held))]
        submit_us = await self.of_moves(
            [lambda task=task: state.submit_task(task, queue="cpu-light", cost_s=0.5) for task in new]  # type: ignore[misc]
        )
        await state.forget_tasks()
        return {"claim_us": round(claim_us, 1), "finish_us": round(finish_us, 1), "submit_us": round(submit_us, 1)}


async def growth(url: str, sizes: Sequence[int], depths: Sequence[int], times: int) -> dict[str, Any]:
    """The cost of one decision by the number of nodes, and by the number of waiting tasks."""
    by_nodes: dict[str, Any] = {}
    by_depth: dict[str, Any] = {}
    for nodes in sizes:
        world = World(url)
        costs = Costs(world, random.Random(2))
        try:
            async with world.state:
                stations = the_fleet(nodes)
                await world.register(stations)
                await costs.fill(max(depths[0], 2 * times), 0)
                by_nodes[str(nodes)] = await costs.routing(times) | await costs.figures(stations, times)
                have = max(depths[0], 2 * times)
                for depth in depths if nodes == sizes[-1] else ():
                    await costs.fill(depth, have)
                    have = max(have, depth)
                    by_depth[str(depth)] = await costs.figures(stations, times)
        finally:
            world.eye.close()

    def grows(table: dict[str, Any]) -> dict[str, float]:
        rows = list(table.values())
        return {name: round(rows[-1][name] / max(rows[0][name], 1e-9), 2) for name in rows[0]}

    return {
        "by_nodes": by_nodes,
        "times_dearer_with_most_nodes": grows(by_nodes),
        "by_waiting_tasks": by_depth,
        "times_dearer_with_most_tasks": grows(by_depth),
    }


# ---------------------------------------------------------------- the program


def parser() -> argparse.ArgumentParser:
    arguments = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter, prog="python -m benchmarks.fleet"
    )
    arguments.add_argument("--full", action="store_true", help="1,000 nodes and queues of a million; some ten minutes")
    arguments.add_argument("--nodes", type=int, help="nodes that work off the flood (50; full: 1,000)")
    arguments.add_argument("--tasks", type=int, help="tasks of the flood (2,000; full: 100,000)")
    arguments.add_argument(
        "--waiting", type=int, help="of these in Redis at a time (all; 3.7 GB of memory for a million)"
    )
    arguments.add_argument("--small", type=int, help="users with one picture each (50; full: 500)")
    arguments.add_argument(
        "--sizes", type=int, nargs="+", help="nodes at which decisions are priced (10 100; 10 100 1000)"
    )
    arguments.add_argument(
        "--depths", type=int, nargs="+", help="waiting tasks at which they are (1000 5000; … 1000000)"
    )
    arguments.add_argument("--times", type=int, help="decisions that are priced at each size (300; full: 2,000)")
    arguments.add_argument("--only", choices=("work", "growth"), help="one of the two parts")
    return arguments


def run(told: Sequence[str] | None = None) -> dict[str, Any]:
    """The figures, by the options of the command line."""
    chosen = parser().parse_args(told)
    full = chosen.full
    figures: dict[str, Any] = {"cores": os.cpu_count(), "load": [round(one, 1) for one in os.getloadavg()]}
    with tempfile.TemporaryDirectory() as folder, PrivateServer(Path(folder)) as server:
        if chosen.only != "growth":
            figures["at_work"] = asyncio.run(
                at_work(
                    server.url,
                    chosen.nodes or (1000 if full else 50),
                    chosen.tasks or (100_000 if full else 2000),
                    chosen.small or (500 if full else 50),
                    waiting=chosen.waiting or 10**9,
                )
            )
        if chosen.only != "work":
            sizes = chosen.sizes or ([10, 100, 1000] if full else [10, 100])
            depths = chosen.depths or ([1000, 10_000, 100_000, 1_000_000] if full else [1000, 5000])
            figures["growth"] = asyncio.run(growth(server.url, sizes, depths, chosen.times or (2000 if full else 300)))
    return figures


def main() -> None:
    print(json.dumps(run(), indent=2))


if __name__ == "__main__":
    main()
