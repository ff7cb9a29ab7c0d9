"""The audit: every key of a namespace read and accounted for, each index compared with the tasks it indexes."""

from __future__ import annotations

import json
import math
from collections import Counter, defaultdict
from dataclasses import dataclass, field
from typing import Any

import msgpack
import redis

from lcq.costs import KEPT, MOST_KEYS
from lcq.models import TaskStatus
from lcq.moves import LEGAL_MOVES, NO_TASK

Hash = dict[str, str]
_WAITS_OR_RUNS = (TaskStatus.PENDING, TaskStatus.QUEUED, TaskStatus.PROCESSING)

# Every class of key there is, with the type it has. A key that fits none is nobody's, and so a leak.
CLASSES = {
    "task:*": "hash", "attempts:*": "list", "idem:*": "string", "ids": "zset", "ix:*": "zset", "lane:*": "zset",
    "aside:*": "zset", "paused": "hash", "walks": "hash",
    "lanes": "set", "waiting:*": "zset", "fair:*": "hash", "leases": "zset", "held:*": "zset", "delayed": "zset",
    "expiry": "zset", "counts": "hash", "job:*": "hash", "jobs": "zset", "causes": "set", "node:*": "hash",
    "nodes": "zset", "subs:*": "set", "queue:*": "hash", "totals": "hash", "minute:*": "hash", "events": "stream",
    "acts": "stream", "answer:*": "string", "undo:*": "hash", "undone:*": "string", "done:*": "hash",
    "duty:*": "string", "schedulers": "hash", "listening": "hash", "format": "string",
    "failover": "hash", "acks": "hash", "synced": "string", "labelled": "set",
    "blame:*": "zset", "budget": "hash", "cluster": "string", "rank:*": "zset", "mine:*": "zset", "users:*": "hash",
    "turn:*": "zset", "line:*": "zset", "band:*": "zset", "back:*": "zset", "over:*": "set", "overs": "set",
    "runs": "hash", "running": "hash", "rate:*": "string",
    "backlog:*": "hash", "ends": "zset", "costs": "zset", "cost:*": "list", "memory:*": "list", "shared:*": "hash",
    "use:*": "list", "interactive": "hash", "unbilled": "list", "upkeep": "hash", "schedule:*": "hash",
    "usage:*": "hash", "spend:*": "hash",
    "spent_out": "set", "warm_ups": "hash", "warmed:*": "string",
    "access": "hash", "handshakes": "hash", "call:*": "hash", "address:*": "hash", "lent:*": "set",
    "alerts": "hash", "silences": "hash", "notices": "hash", "condition:*": "string",
}  # fmt: skip
NO_TTL = -1  # what TTL answers
EXPIRING = (
    "minute:", "answer:", "undo:", "undone:", "done:", "duty:", "synced", "blame:", "budget", "rate:", "shared:",
    "use:", "interactive", "usage:", "schedule:", "spend:", "spent_out", "condition:", "call:", "address:", "lent:",
    "warm_ups", "warmed:",
)  # fmt: skip


@dataclass
class Ledger:
    """What one namespace held at one moment."""

    tasks: dict[str, Hash] = field(default_factory=dict)
    attempts: dict[str, list[dict[str, Any]]] = field(default_factory=dict)
    nodes: dict[str, Hash] = field(default_factory=dict)
    events: list[tuple[str, Hash]] = field(default_factory=list)
    values: dict[str, Any] = field(default_factory=dict)  # key without its namespace -> value

    def sets(self, prefix: str) -> dict[str, set[str]]:
        """The members of all sets and sorted sets whose names begin with ``prefix``."""
        return {name: set(value) for name, value in self.values.items() if name.startswith(prefix)}


def class_of(name: str) -> str | None:
    """The class that a key belongs to, None if to none."""
    head, colon, _ = name.partition(":")
    found = f"{head}:*" if colon else head
    return found if found in CLASSES else None


# Asked for key by key, a hundred keys would take a client four times as long as the moves that made them.
_READ_ALL = """
local asked = {
  hash = {"HGETALL"}, list = {"LRANGE", 0, -1}, string = {"GET"}, set = {"SMEMBERS"},
  zset = {"ZRANGE", 0, -1, "WITHSCORES"}, stream = {"XRANGE", "-", "+"},
}
local told = {}
for _, name in ipairs(#KEYS > 0 and KEYS or redis.call("KEYS", "*")) do
  local kind = redis.call("TYPE", name).ok
  local command = asked[kind] or {"TTL"}
  if kind ~= "none" then
    table.insert(told, {name, kind, redis.call("TTL", name), redis.call(command[1], name, unpack(command, 2))})
  end
end
return cmsgpack.pack(told)
"""
_AT_A_TIME = 20_000  # keys: more of them would hold all others up for too long


@dataclass(frozen=True)
class Key:
    """What one key is, and holds."""

    name: str
    kind: str  # as TYPE calls it
    ttl_s: int  # NO_TTL: it stays
    value: Any


def keys_of(client: redis.Redis) -> list[Key]:
    """All that a server holds, by name: at one moment, unless it is very much."""
    portions: list[list[str]] = [[]]
    if client.dbsize() > _AT_A_TIME:
        names = sorted(set(client.scan_iter(count=1000)))
        portions = [names[first : first + _AT_A_TIME] for first in range(0, len(names), _AT_A_TIME)]
    told: list[Any] = []
    for some in portions:
        told += msgpack.unpackb(client.execute_command("EVAL", _READ_ALL, len(some), *some, NEVER_DECODE=True))
    return sorted((Key(*one) for one in told), key=lambda key: key.name)


def ledger_of(keys: list[Key], root: str = "{lcq}") -> Ledger:
    """What these keys, all of known classes, hold. Fails where one is of another type than its class."""
    ledger = Ledger()
    for key in keys:
        short = key.name.removeprefix(f"{root}:")
        wanted = CLASSES[class_of(short) or ""]
        assert key.kind == wanted, f"{key.name} is a {key.kind}, and its class has {wanted}s"
        ledger.values[short] = _value(key.kind, key.value)
        _file(ledger, short, ledger.values[short])
    return ledger


def read(client: redis.Redis, root: str = "{lcq}") -> Ledger:
    """Every key of the namespace, at one moment. Fails on keys outside of it, of no known class, or of another type."""
    keys = keys_of(client)
    outside = [key.name for key in keys if not key.name.startswith(f"{root}:")]
    assert not outside, f"keys outside of {root}: {outside}"
    for key in keys:
        short = key.name.removeprefix(f"{root}:")
        assert class_of(short), f"{key.name} belongs to no known class of keys"
        is_mortal = short.startswith(EXPIRING)
        assert is_mortal == (key.ttl_s != NO_TTL), f"{key.name} has {'no' if is_mortal else 'a'} time to live"
    return ledger_of(keys, root)


def _value(kind: str, told: Any) -> Any:
    """What Redis tells a script, as a client gives it."""
    match kind:
        case "hash":
            return dict(zip(told[::2], told[1::2], strict=True))
        case "zset":
            return {member: float(score) for member, score in zip(told[::2], told[1::2], strict=True)}
        case "set":
            return set(told)
        case "stream":
            return [(number, _value("hash", fields)) for number, fields in told]
        case _:
            return told


def _file(ledger: Ledger, short: str, value: Any) -> None:
    head, _, rest = short.partition(":")
    match head:
        case "task":
            ledger.tasks[rest] = value
        case "attempts":
            ledger.attempts[rest] = [json.loads(text) for text in value]
        case "node":
            ledger.nodes[rest] = value
        case "events":
            ledger.events = value


def audit(client: redis.Redis, root: str = "{lcq}", *, events: bool = True) -> Ledger:
    """Read everything and compare every index, counter and lane with the tasks and nodes themselves.

    ``events``: and with the story that the events tell, where nobody but the moves has written.
    """
    ledger = read(client, root)
    compare(ledger)
    if events:
        _audit_events(ledger)
    return ledger


def compare(ledger: Ledger) -> None:
    """Compare every index, counter and lane with the tasks and nodes themselves; the events are left out."""
    _audit_indexes(ledger)
    _audit_lanes(ledger)
    _audit_counters(ledger)
    _audit_costs(ledger)
    _audit_attempts(ledger)
    _audit_nodes(ledger)


def _grouped(pairs: list[tuple[str, str]]) -> dict[str, set[str]]:
    groups: dict[str, set[str]] = defaultdict(set)
    for name, member in pairs:
        groups[name].add(member)
    return dict(groups)


def _audit_indexes(ledger: Ledger) -> None:
    pairs = [("ids", i) for i in ledger.tasks]
    for i, t in ledger.tasks.items():
        pairs += [(f"ix:status:{t['status']}", i), (f"ix:queue:{t['queue']}", i)]
        pairs += [(f"ix:node:{record['node']}", i) for record in ledger.attempts.get(i, ()) if record["node"]]
        if t["job"]:
            pairs.append((f"ix:job:{t['job']}", i))
        if t["status"] == TaskStatus.FAILED:
            pairs.append((f"ix:cause:{t['code']}", i))
    assert ledger.sets("ix:") | ledger.sets("ids") == _grouped(pairs)
    for name in (*ledger.sets("ix:"), *ledger.sets("ids")):
        assert set(ledger.values[name].values()) == {0}, f"{name} is ordered by id alone"
    failed = {t["code"] for t in ledger.tasks.values() if t["status"] == TaskStatus.FAILED}
    assert ledger.values.get("causes", set()) == failed
    assert set(ledger.values.get("jobs", {})) == {t["job"] for t in ledger.tasks.values() if t["job"]}
    keys = {name.removeprefix("idem:"): i for name, i in ledger.values.items() if name.startswith("idem:")}
    assert keys == {t["idem"]: i for i, t in ledger.tasks.items()}


def lane_of(t: Hash) -> str:
    """The lane in which this task waits, without the namespace."""
    asked = json.loads(t["json"])
    model, task_type = asked["config"].get("model", "cv2-telea"), asked["task_type"]
    assert t["model"] == model
    lane = model if task_type == "inpaint" else f"{model}~{task_type}"
    requires = json.loads(t["requires"]) if "requires" in t else asked.get("requires", {})
    lane += "?" * bool(requires) + "&".join(f"{name}={value}" for name, value in sorted(requires.items()))
    assert t.get("lane", model) == lane
    if t.get("back"):
        return f"back:{owner_of(t)}:{lane}:{t['user']}"
    return f"lane:{owner_of(t)}:{lane}"


def owner_of(t: Hash) -> str:
    """Whose lane it is: its node's if it is kept for one, else its queue's."""
    return f"@{t['pinned']}" if t.get("pinned") else t["queue"]


def _audit_lanes(ledger: Ledger) -> None:
    wanted: dict[str, dict[str, float]] = defaultdict(dict)
    users: dict[str, Counter[str]] = defaultdict(Counter)
    for i, t in ledger.tasks.items():
        match t["status"]:
            case TaskStatus.QUEUED if "aside" in t:
                wanted[f"aside:{t['queue']}"][i] = float(t["queued_ms"])
            case TaskStatus.QUEUED:
                lane = lane_of(t)
                wanted[lane][i] = float(t["score"])
                if lane.startswith("lane:"):
                    place = f"{lane.removeprefix('lane:')}:{t['priority']}"
                    wanted[f"rank:{place}"][i] = wanted[f"mine:{place}:{t['user']}"][i] = float(t["score"])
                    users[f"users:{owner_of(t)}"][t["user"]] += 1
                wanted[f"waiting:{t['queue']}"][i] = float(t["queued_ms"])
                wanted[f"band:{t['queue']}:{t['priority']}"][i] = float(t["queued_ms"])
                wanted[f"line:{owner_of(t)}:{t['priority']}:{t['user']}:{t['job']}"][i] = float(t.get("place", 0))
            case TaskStatus.PENDING:
                wanted["delayed"][i] = float(t["due_ms"])
            case TaskStatus.PROCESSING:
                wanted["leases"][i] = float(t["deadline_ms"])
    kept = ("lane:", "rank:", "mine:", "back:", "line:", "band:", "waiting:", "aside:", "delayed", "leases")
    assert {name: value for name, value in ledger.values.items() if name.startswith(kept)} == wanted
    told = {name: _numbers(value) for name, value in ledger.values.items() if name.startswith("users:")}
    assert told == {name: dict(count) for name, count in users.items()}
    lanes = {name.removeprefix("lane:") for name in wanted if name.startswith("lane:") and "@" not in name}
    assert ledger.values.get("lanes", set()) == lanes
    labelled = {name.removeprefix("lane:") for name in wanted if name.startswith("lane:") and "?" in name}
    assert ledger.values.get("labelled", set()) == labelled
    pairs = [(f"held:{t['node']}", i) for i, t in ledger.tasks.items() if t["status"] == TaskStatus.PROCESSING]
    assert ledger.sets("held:") == _grouped(pairs)
    _audit_users(ledger)
    over = {i for i, t in ledger.tasks.items() if t["status"] not in _WAITS_OR_RUNS}
    assert set(ledger.values.get("expiry", {})) == over
    books = {name.removeprefix("fair:") for name in ledger.values if name.startswith("fair:")}
    waiting = {name.partition(":")[2] for name in ledger.values if name.startswith(("waiting:", "aside:"))}
    assert books <= waiting, "an empty queue keeps no book"
    paused, walks = ledger.values.get("paused", {}), ledger.values.get("walks", {})
    assert {*paused, *walks} <= set(ledger.values.get("jobs", {}))
    for i, t in ledger.tasks.items():
        assert t["status"] == TaskStatus.QUEUED or "aside" not in t, f"{i} is {t['status']} and aside"
        if t["status"] == TaskStatus.QUEUED and t["job"] not in walks:
            assert ("aside" in t) == (t["job"] in paused), f"{i} of job {t['job']}: {t}"
        runs, waits = t["status"] == TaskStatus.PROCESSING, t["status"] == TaskStatus.PENDING
        assert ("deadline_ms" in t) == runs, f"{i} is {t['status']} and has a deadline: {t.get('deadline_ms')}"
        assert ("due_ms" in t) == waits, f"{i} is {t['status']} and is due at {t.get('due_ms')}"


def _audit_users(ledger: Ledger) -> None:
    """Each user's jobs that wait, what it has running, and what was laid aside, are what the tasks say."""
    waiting = [t for t in ledger.tasks.values() if t["status"] == TaskStatus.QUEUED and "aside" not in t]
    turns = [(f"turn:{owner_of(t)}:{t['priority']}:{t['user']}", t["job"]) for t in waiting]
    assert ledger.sets("turn:") == _grouped(turns)
    running = {i: t["user"] for i, t in ledger.tasks.items() if t["status"] == TaskStatus.PROCESSING}
    assert ledger.values.get("runs", {}) == running
    assert _numbers(ledger.values.get("running", {})) == _tally(Counter(running.values()))
    back = [t for t in ledger.tasks.values() if t.get("back")]
    assert all(t["status"] == TaskStatus.QUEUED and "aside" not in t for t in back)
    beside = [(f"over:{t['user']}", lane_of(t).removeprefix("back:").removesuffix(f":{t['user']}")) for t in back]
    assert ledger.sets("over:") == _grouped(beside)
    assert ledger.values.get("overs", set()) == {t["user"] for t in back}


def _audit_costs(ledger: Ledger) -> None:
    """What is told of work that waits and runs, and what was learned; both empty where an older LCQ wrote the tasks."""
    waiting: dict[str, Counter[str]] = defaultdict(Counter)
    running = {}
    for i, t in ledger.tasks.items():
        if t["status"] == TaskStatus.QUEUED and "aside" not in t:
            field = f"{t['priority']}/{t.get('lane', t['model']).partition('?')[0]}"
            waiting[t["queue"]][field] += int(t.get("waits_ms", 0))
        if t["status"] == TaskStatus.PROCESSING and "ends_ms" in t:
            running[f"{t['node']}|{t['device']}|{i}"] = float(t["ends_ms"])
        assert "ends_ms" not in t or t["status"] == TaskStatus.PROCESSING
    if not int(ledger.values.get("totals", {}).get("isolated", 0)):  # then nobody can tell what was counted
        told = {name.removeprefix("backlog:"): v for name, v in ledger.values.items() if name.startswith("backlog:")}
        numbers = {queue: told_s for queue, fields in told.items() if (told_s := _numbers(fields))}
        assert numbers == {queue: tally for queue, seconds in waiting.items() if (tally := _tally(seconds))}
        assert set(ledger.values.get("ends", {})) == set(running)
    learned = {name.removeprefix("cost:"): value for name, value in ledger.values.items() if name.startswith("cost:")}
    held = {name.removeprefix("memory:"): value for name, value in ledger.values.items() if name.startswith("memory:")}
    assert set(ledger.values.get("costs", {})) == set(learned) | set(held)
    assert len(learned) <= MOST_KEYS
    assert all(1 <= len(seen) <= KEPT for seen in (*learned.values(), *held.values()))


def _tally(counts: Counter[str]) -> dict[str, int]:
    return {name: number for name, number in counts.items() if number}


def _audit_counters(ledger: Ledger) -> None:
    counts: Counter[str] = Counter()
    jobs: dict[str, Counter[str]] = defaultdict(Counter)
    for t in ledger.tasks.values():
        counts[t["status"]] += 1
        counts[f"{t['queue']}/{t['status']}"] += 1
        if t["job"]:
            jobs[t["job"]][t["status"]] += 1
    assert _numbers(ledger.values.get("counts", {})) == _tally(counts)
    hashes = {name.removeprefix("job:"): value for name, value in ledger.values.items() if name.startswith("job:")}
    of_status = {job: {name: value[name] for name in TaskStatus if name in value} for job, value in hashes.items()}
    assert {job: _numbers(value) for job, value in of_status.items()} == {job: _tally(n) for job, n in jobs.items()}
    if int(ledger.values.get("totals", {}).get("isolated", 0)) == 0:
        told = {
            job: {name: int(value.get(name, 0)) for name in SUMS} for job, value in hashes.items() if "summed" in value
        }
        assert told == {job: _sums([t for t in ledger.tasks.values() if t["job"] == job]) for job in told}


SUMS = ("left_ms", "done_cost_ms", "spent_ms", "work_ms", "pixels")


def _sums(tasks: list[Hash]) -> dict[str, int]:
    """What a job's hash has to say of the work that is left and done."""

    def ms(seconds: float) -> int:
        return math.floor(seconds * 1000 + 0.5)

    left = [t for t in tasks if t["status"] in _WAITS_OR_RUNS]
    done = [(t, json.loads(t["result"])) for t in tasks if t["status"] == TaskStatus.COMPLETED]
    return {
        "left_ms": sum(ms(float(t["cost"])) for t in left),
        "done_cost_ms": sum(ms(float(t["cost"])) for t, _ in done),
        "spent_ms": sum(max(0, int(t["finished_ms"]) - int(t["started_ms"])) for t, _ in done),
        "work_ms": sum(ms(result["seconds"]) for _, result in done),
        "pixels": sum(result["width"] * result["height"] for _, result in done),
    }


def _numbers(fields: Hash) -> dict[str, int]:
    numbers = {name: int(text) for name, text in fields.items()}
    assert all(number >= 0 for number in numbers.values()), f"a count below zero: {numbers}"
    return {name: number for name, number in numbers.items() if number}


def _audit_attempts(ledger: Ledger) -> None:
    assert set(ledger.attempts) == {i for i, t in ledger.tasks.items() if t["attempt"] != "0"}
    for i, records in ledger.attempts.items():
        t = ledger.tasks[i]
        assert [record["number"] for record in records] == list(range(1, int(t["attempt"]) + 1))
        running = [record["number"] for record in records if record["outcome"] == "running"]
        runs = t["status"] == TaskStatus.PROCESSING
        assert running == ([int(t["attempt"])] if runs else []), f"{i} is {t['status']}: {records}"
        assert all(("ended_ms" in record) == (record["outcome"] != "running") for record in records)
        if runs:
            assert (records[-1]["node"], records[-1]["device"]) == (t["node"], t["device"])


def _audit_nodes(ledger: Ledger) -> None:
    assert set(ledger.values.get("nodes", {})) == set(ledger.nodes)
    pairs = [
        (f"subs:{lane}", node)
        for node, fields in ledger.nodes.items()
        if fields["status"] in ("online", "suspect")
        for lane in json.loads(fields["lanes"])
    ]
    assert ledger.sets("subs:") == _grouped(pairs)
    for name, fields in ledger.values.items():
        if name.startswith("queue:"):
            assert set(fields) == {"paused", "paused_by", "paused_reason", "paused_ms"}


def _audit_events(ledger: Ledger) -> None:
    """Each change of a task is legal and has one event, numbered by its revision; the newest tells the truth."""
    newest: dict[str, Hash] = {}
    for _, fields in ledger.events:
        if "id" not in fields:
            continue
        before = newest.pop(fields["id"], None)
        start = TaskStatus(before["status"]) if before else NO_TASK
        end = TaskStatus(fields["status"]) if "status" in fields else NO_TASK
        assert end in LEGAL_MOVES[fields["move"]].get(start, ()), f"{start} -> {fields}"
        if end is not NO_TASK:
            assert int(fields["rev"]) == (int(before["rev"]) + 1 if before else 1), fields
            newest[fields["id"]] = fields
    assert set(newest) == set(ledger.tasks)
    for i, fields in newest.items():
        for name in ("status", "rev", "queue", "attempt", "priority"):
            assert fields[name] == ledger.tasks[i][name], f"{i}: the event says {fields}, the task {ledger.tasks[i]}"
        for name in ("node", "why"):
            assert fields[name] == ledger.tasks[i].get(name, ""), f"{i}: {fields} against {ledger.tasks[i]}"
