"""The names of Redis keys that Python reads. The scripts build the same names with ``key()`` in their prelude."""

from __future__ import annotations

from dataclasses import dataclass

from lcq.models import TaskPriority, TaskStatus


@dataclass(frozen=True)
class Keys:
    """Key names under one namespace, a hash tag such as ``{lcq}``."""

    root: str

    def _key(self, *parts: str) -> str:
        return ":".join((self.root, *parts))

    def task(self, task_id: str) -> str:
        return self._key("task", task_id)

    def attempts(self, task_id: str) -> str:
        return self._key("attempts", task_id)

    def by_status(self, status: TaskStatus) -> str:
        return self._key("ix", "status", status)

    def by_queue(self, queue: str) -> str:
        return self._key("ix", "queue", queue)

    def by_node(self, node: str) -> str:
        return self._key("ix", "node", node)

    def by_job(self, job: str) -> str:
        return self._key("ix", "job", job)

    def by_cause(self, code: str) -> str:
        return self._key("ix", "cause", code)

    def lane(self, owner: str, lane: str) -> str:
        return self._key("lane", owner, lane)

    def rank(self, owner: str, lane: str, band: TaskPriority) -> str:
        return self._key("rank", owner, lane, band)

    def mine(self, owner: str, lane: str, band: TaskPriority, user: str) -> str:
        return self._key("mine", owner, lane, band, user)

    def waiting(self, queue: str) -> str:
        return self._key("waiting", queue)

    def held(self, node: str) -> str:
        return self._key("held", node)

    def node(self, node: str) -> str:
        return self._key("node", node)

    def queue(self, queue: str) -> str:
        return self._key("queue", queue)

    def job(self, job: str) -> str:
        return self._key("job", job)

    def fair(self, queue: str) -> str:
        return self._key("fair", queue)

    @property
    def paused(self) -> str:
        return self._key("paused")

    @property
    def walks(self) -> str:
        return self._key("walks")

    def answer(self, command_id: str) -> str:
        return self._key("answer", command_id)

    def done(self, command_id: str) -> str:
        return self._key("done", command_id)

    def cost(self, cost: str) -> str:
        return self._key("cost", cost)

    def memory(self, cost: str) -> str:
        return self._key("memory", cost)

    @property
    def costs(self) -> str:
        return self._key("costs")

    def backlog(self, queue: str) -> str:
        return self._key("backlog", queue)

    def users(self, queue: str) -> str:
        return self._key("users", queue)

    @property
    def interactive(self) -> str:
        return self._key("interactive")

    @property
    def ends(self) -> str:
        return self._key("ends")

    @property
    def ids(self) -> str:
        return self._key("ids")

    @property
    def causes(self) -> str:
        return self._key("causes")

    @property
    def lanes(self) -> str:
        return self._key("lanes")

    @property
    def running(self) -> str:
        return self._key("running")

    @property
    def labelled(self) -> str:
        return self._key("labelled")

    @property
    def counts(self) -> str:
        return self._key("counts")

    @property
    def totals(self) -> str:
        return self._key("totals")

    @property
    def nodes(self) -> str:
        return self._key("nodes")

    @property
    def jobs(self) -> str:
        return self._key("jobs")

    @property
    def events(self) -> str:
        return self._key("events")

    def minute(self, minute: int) -> str:
        return self._key("minute", str(minute))

    def schedule(self, name: str) -> str:
        return self._key("schedule", name)

    @property
    def upkeep(self) -> str:
        return self._key("upkeep")

    def usage(self, day: int) -> str:
        return self._key("usage", str(day))

    def use(self, node: str) -> str:
        return self._key("use", node)

    def undo(self, command_id: str) -> str:
        return self._key("undo", command_id)

    @property
    def acts(self) -> str:
        return self._key("acts")

    @property
    def acks(self) -> str:
        return self._key("acks")

    def spend(self, span: str, which: str) -> str:
        return self._key("spend", span, which)

    def call(self, task_id: str, attempt: int) -> str:
        return self._key("call", task_id, str(attempt))

    def address(self, digest: str) -> str:
        return self._key("address", digest)

    @property
    def spent_out(self) -> str:
        return self._key("spent_out")

    @property
    def access(self) -> str:
        return self._key("access")

    @property
    def handshakes(self) -> str:
        return self._key("handshakes")

    @property
    def alerts(self) -> str:
        return self._key("alerts")

    @property
    def silences(self) -> str:
        return self._key("silences")

    @property
    def notices(self) -> str:
        return self._key("notices")

    def condition(self, scheduler: str) -> str:
        return self._key("condition", scheduler)

    @property
    def schedulers(self) -> str:
        return self._key("schedulers")

    @property
    def listening(self) -> str:
        return self._key("listening")

    @property
    def synced(self) -> str:
        return self._key("synced")
