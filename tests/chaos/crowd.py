"""The people of a storm: clients who submit real work and look at what comes of it, and an operator who meddles."""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import io
import itertools
import json
import random
import threading
import time
from collections import Counter
from collections.abc import Callable, Container, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import ClassVar, TypeVar

import numpy as np
from PIL import Image

from lcq.client import Client
from lcq.config import DistributedConfig
from lcq.errors import LcqError, SchedulerUnreachable, StateOverloaded, StateUnavailable
from lcq.ids import new_id
from lcq.models import Privacy, Task, TaskPriority, TaskRecord, TaskStatus, TaskType
from lcq.state.reader import StateReader
from lcq.wire import GetTasks
from tests.chaos.history import Artifact, Seen, Submission
from tests.cluster import drill

T = TypeVar("T")
PHOTOS = Path(__file__).parents[2] / "sample-config" / "photos"
WIDTH, HEIGHT = 120, 90
QUEUES = ("cpu-intensive", "cpu-light")
DEADLINES = (None, datetime(2026, 12, 24, tzinfo=UTC), datetime(2030, 1, 1, tzinfo=UTC))
_ANSWER_S = 3.0
_AWAY = (SchedulerUnreachable, StateUnavailable, StateOverloaded)

GOOD = frozenset({"completed", "cancelled", "poison"})
"""How a good task of a storm may end. Poison: two of its runners were killed while they had it."""

HOPELESS = frozenset(
    {"cancelled", "drill_transient", "poison", "lease_expired", "node_lost", "node_silent", "node_restarted"}
    | {"no_progress", "runner_died"}
)
"""How a task may end that fails whenever it runs, and has one retry: also by whatever happens to its node."""


@dataclass(frozen=True)
class Order:
    """One piece of work that a client wants: under whichever id, it is this task."""

    task: Task
    key: str
    input_sha256: str
    ends: frozenset[str]


class Workshop:
    """Makes the work: crops of real photos with holes to fill, drills of several lengths, bad input, bad manners."""

    def __init__(self, folder: Path, rng: random.Random) -> None:
        self._folder = folder
        self._rng = rng
        self._numbers = itertools.count(1)
        self.is_at_peace = False  # then it makes nothing that fails as on a node that has something wrong with it
        (folder / "out").mkdir(parents=True)
        self._photos = [np.asarray(Image.open(path).convert("RGB")) for path in sorted(PHOTOS.iterdir())]
        self._turn = threading.Lock()
        (folder / "text.png").write_text("not a picture at all")
        Image.new("L", (WIDTH + 1, HEIGHT), 255).save(folder / "other-size.png")

    def order(self) -> Order:
        with self._turn:
            kinds = [kind for kind in self._kinds if not (self.is_at_peace and kind in self._troublesome)]
            kind = self._rng.choices(kinds, weights=[self._kinds[kind][0] for kind in kinds])[0]
            return self._kinds[kind][1](self, f"{next(self._numbers)}")

    def _drill(
        self, mark: str, what: str, ends: frozenset[str] = GOOD, *, retries: int = 100, **config: object
    ) -> Order:
        task = drill(f"drill-{what}", mark=mark, **config).model_copy(update={"max_retries": retries})
        told = task.model_dump(mode="json", include={"image_path", "config"})
        return Order(task, f"order-{mark}", hashlib.sha256(json.dumps(told, sort_keys=True).encode()).hexdigest(), ends)

    def _sleep(self, mark: str) -> Order:
        return self._drill(mark, "sleep", seconds=self._rng.choice([0.01, 0.05, 0.2, 0.6]))

    def _noop(self, mark: str) -> Order:
        return self._drill(mark, "noop")

    def _once(self, mark: str) -> Order:
        """Fails at first, in one of all the ways there are."""
        what = self._rng.choice(["transient", "transient", "wrong", "wrong", "oom", "oom", "crash", "hang"])
        return self._drill(mark, what, failures=1)

    def _hopeless(self, mark: str) -> Order:
        return self._drill(mark, "transient", HOPELESS, retries=1)

    def _picture(self, mark: str) -> Order:
        photo = self._rng.choice(self._photos)
        top, left = (self._rng.randrange(photo.shape[side] - size) for side, size in ((0, HEIGHT), (1, WIDTH)))
        pixels = photo[top : top + HEIGHT, left : left + WIDTH]
        mask = np.zeros((HEIGHT, WIDTH), np.uint8)
        y, x = self._rng.randrange(HEIGHT - 25), self._rng.randrange(WIDTH - 25)
        mask[y : y + 20, x : x + 20] = 255
        written = io.BytesIO()
        Image.fromarray(pixels).save(written, "png")
        return self._photo_task(mark, written.getvalue(), mask, GOOD)

    def _photo_task(self, mark: str, data: bytes, mask: np.ndarray, ends: frozenset[str]) -> Order:
        image, hole = self._folder / f"{mark}.png", self._folder / f"{mark}.mask.png"
        image.write_bytes(data)
        Image.fromarray(mask).save(hole)
        return Order(self._task(mark, image, hole), f"order-{mark}", hashlib.sha256(data).hexdigest(), ends)

    def _task(self, mark: str, image: Path, mask: Path) -> Task:
        return Task(
            task_type=TaskType.INPAINT,
            image_path=str(image),
            mask_path=str(mask),
            output_path=str(self._folder / "out" / f"{mark}.png"),
            config={"model": self._rng.choice(["cv2-telea", "cv2-ns"])},
            max_retries=100,
            priority=self._rng.choice(list(TaskPriority)),
            user_id=self._rng.choice(["ann", "bob"]),
        )

    def _bad_picture(self, mark: str) -> Order:
        found = self._rng.choice(["text.png", "missing.png", "other-size.png"])
        code = {"text.png": "image_unreadable", "missing.png": "image_missing"}.get(found, "mask_size_mismatch")
        order = self._picture(mark)
        paths = {"mask_path" if found == "other-size.png" else "image_path": str(self._folder / found)}
        ends = frozenset({code, "cancelled", "poison"})
        return replace(order, task=order.task.model_copy(update=paths), ends=ends)

    _kinds: ClassVar = {
        "sleep": (34, _sleep),
        "noop": (18, _noop),
        "picture": (26, _picture),
        "bad picture": (7, _bad_picture),
        "fails once": (12, _once),
        "hopeless": (3, _hopeless),
    }
    _troublesome: ClassVar = frozenset({"fails once", "hopeless"})

    def look_at(self, record: TaskRecord) -> Artifact | None:
        """The file of a completed picture task, judged by its pixels; None where a task leaves no file."""
        task = record.task
        if task.output_path is None:
            return None
        try:
            data = Path(task.output_path).read_bytes()
            result = np.asarray(Image.open(io.BytesIO(data)).convert("RGB"))
        except OSError:
            return Artifact(record.id, "", is_of_own_input=True)
        before = np.asarray(Image.open(task.image_path).convert("RGB"))
        hole = np.asarray(Image.open(str(task.mask_path)).convert("L")) > 127
        is_own = result.shape == before.shape and bool((result[~hole] == before[~hole]).all())
        return Artifact(record.id, hashlib.sha256(data).hexdigest(), is_of_own_input=is_own)


@dataclass
class Notes:
    """What all clients together sent and saw."""

    submissions: dict[str, Submission] = field(default_factory=dict)
    orders: dict[str, Order] = field(default_factory=dict)
    artifacts: list[Artifact] = field(default_factory=list)
    seen: dict[tuple[str, int], list[Seen]] = field(default_factory=dict)
    unsure: int = 0  # requests that nobody answered in time
    repeated: int = 0  # submits of a key that had been submitted before
    refused: Counter[str] = field(default_factory=Counter)
    acts: Counter[str] = field(default_factory=Counter)
    troubles: list[BaseException] = field(default_factory=list)
    times: list[tuple[float, str]] = field(default_factory=list)  # when a task was shown or accepted
    turn: threading.Lock = field(default_factory=threading.Lock)

    def all_seen(self) -> tuple[Seen, ...]:
        return tuple(one for ones in self.seen.values() for one in ones)

    def seen_within(self, windows: Sequence[tuple[float, float]]) -> frozenset[str]:
        """The tasks of which a client was told something in one of these times."""
        return frozenset(task for at, task in self.times if any(begin <= at <= end for begin, end in windows))

    def see(self, record: TaskRecord) -> None:
        self.times.append((time.monotonic(), record.id))
        digests = (record.result.sha256, record.result.input_sha256) if record.result else ("", "")
        one = Seen(record.id, record.revision, record.status, *digests)
        with self.turn:
            ones = self.seen.setdefault((record.id, record.revision), [])
            if one not in ones:
                ones.append(one)


class Person(threading.Thread):
    """Somebody with a line to every scheduler, who asks the next one where one does not answer."""

    def __init__(self, name: str, ports: Sequence[int], notes: Notes, rng: random.Random) -> None:
        super().__init__(name=name, daemon=True)
        self._ports = ports
        self._notes = notes
        self._rng = rng
        self._gone = threading.Event()

    def leave(self) -> None:
        """Ask nothing more."""
        self._gone.set()

    def run(self) -> None:
        config = DistributedConfig()
        self._clients = [
            Client(config, scheduler=f"127.0.0.1:{port}", actor=self.name, timeout_s=_ANSWER_S) for port in self._ports
        ]
        for client in self._clients:
            client.__enter__()
        try:
            while not self._gone.is_set():
                self.act()
        except BaseException as trouble:  # noqa: BLE001 - told by the storm, in its own thread
            self._notes.troubles.append(trouble)
        finally:
            for client in self._clients:
                client.__exit__(None, None, None)

    def act(self) -> None:
        raise NotImplementedError

    def ask(self, what: Callable[[Client], T]) -> T | None:
        """The answer of the first scheduler that gives one; None where none does before we leave."""
        first = self._rng.randrange(len(self._clients))
        for turn in itertools.count(first):
            try:
                return what(self._clients[turn % len(self._clients)])
            except _AWAY:
                self._notes.unsure += 1
                if self._gone.wait(0.1):
                    return None
        raise AssertionError("itertools.count ends")


class Customer(Person):
    """Submits all the while, again where it is unsure, and looks at what has become of its orders."""

    def __init__(
        self, name: str, ports: Sequence[int], notes: Notes, rng: random.Random, workshop: Workshop, *, crowd: int
    ) -> None:
        super().__init__(name, ports, notes, rng)
        self._workshop = workshop
        self._crowd = crowd
        self._open: dict[str, Order] = {}  # by the id it was told
        self._unseen: set[str] | None = None

    def look_at_all(self, *, but: Container[str] = ()) -> None:
        """From now on only look, at whatever anybody was ever told to be accepted."""
        accepted = {one.answers[-1]: key for key, one in self._notes.submissions.items() if one.answers}
        self._open = {task: self._notes.orders[key] for task, key in accepted.items() if task not in but}
        self._unseen = set(self._open)

    @property
    def has_seen_all(self) -> bool:
        return self._unseen is not None and not self._unseen

    def act(self) -> None:
        if self._unseen is not None:
            self._look(tuple(self._unseen)[:200])
            self._gone.wait(0.02)
            return
        if len(self._open) < self._crowd:
            orders = [self._workshop.order() for _ in range(self._rng.randint(1, 8))]
            for order in orders:
                self._notes.submissions[order.key] = Submission(order.key, order.input_sha256, ends=order.ends)
                self._notes.orders[order.key] = order
            self._submit(orders)
        if self._open and self._rng.random() < 0.3:  # as one who has lost the answer, or the id
            again = self._rng.sample(list(self._open.values()), min(3, len(self._open)))
            self._notes.repeated += len(again)
            self._submit([replace(one, task=one.task.model_copy(update={"id": new_id()})) for one in again])
        self._look()
        self._gone.wait(self._rng.uniform(0.05, 0.4))

    def _submit(self, orders: Sequence[Order]) -> None:
        tasks, keys = [order.task for order in orders], [order.key for order in orders]
        answer = self.ask(lambda client: client.submit_many(tasks, keys=keys))
        if answer is None:
            return  # left unsure: the cluster may have it or not, but only once
        refused = {refusal.id for refusal in answer.refused}
        self._notes.refused.update(refusal.code for refusal in answer.refused)
        accepted = iter(answer.accepted)
        for order in orders:
            if order.task.id not in refused:
                told = next(accepted).id
                before = self._notes.submissions[order.key]
                self._notes.submissions[order.key] = replace(before, answers=(*before.answers, told))
                self._open[told] = order

    def _look(self, wanted: tuple[str, ...] = ()) -> None:
        """See how some of the orders are; what a cluster no longer knows is submitted again, under its old key."""
        wanted = wanted or tuple(self._rng.sample(list(self._open), min(40, len(self._open))))
        answer = self.ask(lambda client: client.ask(GetTasks(ids=wanted))) if wanted else None
        if answer is None:
            return
        if self._unseen is not None:
            self._unseen.difference_update(wanted)
        for record in answer.tasks:
            self._notes.see(record)
            if record.status.is_terminal and self._rng.random() < 0.8:  # else it looks again, later
                self._open.pop(record.id, None)
                self._keep_file(record)
        # What is unknown was lost by a failover; or it had ended, and was forgotten before it was looked at again.
        missing = [self._open.pop(task_id) for task_id in answer.missing if task_id in self._open]
        if missing:
            self._notes.repeated += len(missing)
            self._submit(missing)

    def _keep_file(self, record: TaskRecord) -> None:
        """Look at a result while it is there: also tasks that are forgotten by the end were to be done well."""
        artifact = self._workshop.look_at(record) if record.status == TaskStatus.COMPLETED else None
        if artifact is not None:
            self._notes.artifacts.append(artifact)


class Visitor(threading.Thread):
    """Opens what the console reads by, looks, and closes it again; sometimes by dropping everything."""

    def __init__(self, url: str, visits: int, seconds: float) -> None:
        super().__init__(name="visitor", daemon=True)
        self._url = url
        self._planned = visits
        self._pause_s = seconds / visits
        self._gone = threading.Event()
        self.visits = 0
        self.in_vain = 0

    def leave(self) -> None:
        self._gone.set()
        self.join(60)

    def run(self) -> None:
        began = time.monotonic()
        while self.visits + self.in_vain < self._planned and not self._gone.is_set():
            try:
                asyncio.run(self._visit())
                self.visits += 1
            except (LcqError, TimeoutError):
                self.in_vain += 1
            due = began + (self.visits + self.in_vain) * self._pause_s
            self._gone.wait(max(0.0, due - time.monotonic()))

    async def _visit(self) -> None:
        async with StateReader(self._url) as reader:
            picture = await reader.snapshot(500)
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(0.1):  # as one who leaves while an answer is still to come
                    await reader.events(picture.last_event_id, 2000)


class Operator(Person):
    """Cancels, retries, moves and hurries tasks, pauses queues and drains nodes, all at the wrong moment."""

    def __init__(
        self, name: str, ports: Sequence[int], notes: Notes, rng: random.Random, nodes: Sequence[str], *, pause_s: float
    ) -> None:
        super().__init__(name, ports, notes, rng)
        self._nodes = nodes
        self._pause_s = pause_s

    def act(self) -> None:
        if self._gone.wait(self._rng.uniform(0.3, 1.7) * self._pause_s):
            return
        known = [one.answers[-1] for one in tuple(self._notes.submissions.values())[-300:] if one.answers]
        if not known:
            return
        some = self._rng.sample(known, min(self._rng.randint(1, 3), len(known)))
        queue, node = self._rng.choice(QUEUES), self._rng.choice(self._nodes)
        name, act = self._rng.choice(
            [
                ("cancel", lambda client: client.cancel(some)),
                ("retry", lambda client: client.retry(some)),
                ("reroute", lambda client: client.reroute(some, queue=queue)),
                ("reroute to node", lambda client: client.reroute(some[:1], node=node)),
                ("prioritise", lambda client: client.prioritise(some, self._rng.choice(list(TaskPriority)))),
                ("set_deadline", lambda client: client.set_deadline(some, self._rng.choice(DEADLINES))),
                ("set_privacy", lambda client: client.set_privacy(some, self._rng.choice(list(Privacy)))),
                ("pause", lambda client: self._for_a_while(client, "pause", queue)),
                ("drain", lambda client: self._for_a_while(client, "drain", node)),
            ]
        )
        self._try(name, act)

    def _try(self, name: str, act: Callable[[Client], object]) -> None:
        try:
            self.ask(act)
            self._notes.acts[name] += 1
        except LcqError:
            self._notes.acts["refused"] += 1

    def _for_a_while(self, client: Client, what: str, whom: str) -> None:
        end = {"pause": "resume", "drain": "activate"}[what]
        getattr(client, what)(whom, reason="a storm")
        self._gone.wait(self._rng.uniform(0.1, 1.0))
        self._try(end, lambda other: getattr(other, end)(whom))
