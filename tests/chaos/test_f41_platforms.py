"""F-41 for RunPod, AWS Lambda and OpenFaaS: storms of all that can become of their calls, and an outage of each kind.

In a storm requests are delayed, cut, doubled, refused and answered with something else; platforms lie about jobs,
forget them, call back twice, late or never; and the instances, the agent and the scheduler are killed.
"""

from __future__ import annotations

import contextlib
import json
import os
import random
import threading
import time
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
import redis

from lcq.client import Client
from lcq.health import NO_RETRY_LOST
from lcq.models import Device, DeviceKind, Task, TaskStatus, TaskType
from lcq.reasons import WhyCode
from tests.audit import audit
from tests.chaos.test_f41_functions import BOTH, ONLY_FUNCTIONS, a_task, start_function
from tests.cluster import Cluster, free_port, running_cluster
from tests.conftest import wait_until_sync
from tests.functions import SAMPLES
from tests.hostile_gateway import Gateway, hostile_gateway
from tests.lambda_runtime import lambda_function
from tests.openfaas import openfaas
from tests.runpod import ENDPOINT, runpod
from tests.s3 import s3_server, wait_for
from worker.endpoint_keeper import IN_A_ROW
from worker.engines.base import EngineSettings, Picture, Work
from worker.engines.opencv import OpenCvEngine

pytestmark = pytest.mark.chaos

CALLS = 3  # at a time
TIMEOUT_S = 12
QUICK_S = 6  # where nobody answers
PRICE_CALL, PRICE_S = 0.01, 0.001
WORST = PRICE_CALL + PRICE_S * TIMEOUT_S
JOB_LIMIT = 0.2  # of which nine calls that were lost take all
OUTAGE_S = float(os.environ.get("LCQ_TEST_OUTAGE_S", "100"))

WEB_FAULTS = (
    "cut before", "cut after", "twice", "busy:1", "unavailable", "refuse:500", "refuse:502", "refuse after:504",
    "garbage", "garbage after", "delay:2", "slow", *[""] * 12,
)  # fmt: skip
LIES = ("forgotten", "denied", "failed", "empty", "other", "queued", "told once", *[""] * 9)
QUEUE_FAULTS = ("silent", "lost", "twice", "early", "cut", "other", "broken", "away", "closed", "late", *[""] * 12)
RETURN_FAULTS = ("cut before", "cut after", "twice", "refuse:500", "delay:1", *[""] * 15)


@dataclass
class Kind:
    """One kind of function, with what stands before it. ``kill``: its instances are killed, and others started."""

    terms: dict[str, Any]
    gateway: Gateway
    environment: dict[str, str] = field(default_factory=dict)
    planned: dict[str, list[str]] = field(default_factory=dict)
    kill: Callable[[], None] | None = None
    ran: Callable[[], Counter[str]] = Counter
    told: Callable[[], str] = str
    s3: Mapping[str, Any] | None = None


def _key_in(body: bytes) -> str:
    with contextlib.suppress(ValueError):
        told = json.loads(body)
        return str((told.get("input") or told).get("key", ""))
    return ""


@contextlib.contextmanager
def on_runpod(folder: Path, rng: random.Random) -> Iterator[Kind]:
    with runpod(folder) as platform, hostile_gateway(platform.url, key_of=_key_in) as gateway:
        lies = rng.choices(LIES, k=120)
        platform.lies.extend(lies)
        yield Kind(
            {"kind": "runpod", "url": gateway.url + ENDPOINT, "payload_kib": 16},
            gateway,
            planned={"lies": lies},
            kill=platform.kill_workers,
            ran=lambda: platform.ran,
            told=lambda: (
                f"{len(platform.jobs)} jobs, {platform.cancelled} of them cancelled: "
                f"{dict(Counter(job.state for job in platform.jobs.values()))}"
            ),
        )


@contextlib.contextmanager
def on_runpod_with_a_bucket(folder: Path, rng: random.Random) -> Iterator[Kind]:
    with on_runpod(folder, rng) as kind, s3_server(folder) as s3:
        wait_for(s3)
        s3.make_bucket("exchange")
        kind.terms |= {"exchange": "s3://exchange/calls", "payload_kib": 16}
        kind.environment["LCQ_STORAGE__OPTIONS"] = json.dumps({"s3": s3.options})
        kind.s3 = s3.options
        yield kind


@contextlib.contextmanager
def on_lambda(folder: Path, rng: random.Random) -> Iterator[Kind]:
    with (
        lambda_function("app.handler", SAMPLES / "lambda", folder / "lambda.log") as function,
        hostile_gateway(function.url, key_of=_key_in) as gateway,
    ):
        terms = {"kind": "lambda", "url": "clean"}
        yield Kind(terms, gateway, cloud_of(gateway), kill=function.kill_runtime, ran=lambda: function.ran)


def cloud_of(gateway: Gateway) -> dict[str, str]:
    """Has boto3 call Lambda there."""
    return {
        "AWS_ENDPOINT_URL_LAMBDA": gateway.url,
        "AWS_ACCESS_KEY_ID": "lcq",
        "AWS_SECRET_ACCESS_KEY": "lcq",
        "AWS_DEFAULT_REGION": "us-east-1",
    }


@contextlib.contextmanager
def on_openfaas(folder: Path, rng: random.Random) -> Iterator[Kind]:
    with openfaas() as platform, hostile_gateway(platform.url) as gateway:
        faults = rng.choices(QUEUE_FAULTS, k=120)
        platform.faults.extend(faults)
        yield Kind(
            {"kind": "openfaas", "async": True, "url": f"{gateway.url}/function/clean", "payload_kib": 16},
            gateway,
            planned={"of the queue": faults},
            ran=lambda: Counter(platform.keys),
            told=lambda: f"callbacks were answered {dict(Counter(platform.callbacks))}",
        )


KINDS = {one.__name__.removeprefix("on_"): one for one in (on_runpod, on_runpod_with_a_bucket, on_lambda, on_openfaas)}


def function_of(kind: Kind, **more: Any) -> dict[str, Any]:
    return {
        "models": {BOTH: 0.2, ONLY_FUNCTIONS: 0.2}, "concurrency": CALLS, "timeout_s": TIMEOUT_S,
        "price_call": PRICE_CALL, "price_s": PRICE_S, **kind.terms, **more,
    }  # fmt: skip


# ---------------------------------------------------------------- what is looked at


class Eye:
    """Looks into Redis, all the while: at what was done, and at the books."""

    def __init__(self, url: str, ids: list[str], limits: Mapping[str, float]) -> None:
        self._redis = redis.Redis.from_url(url, decode_responses=True)
        self.ids, self._limits = ids, limits
        self.most: dict[str, int] = defaultdict(int)  # spent and reserved together, by book
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._watch, daemon=True)

    def __enter__(self) -> Eye:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._ended.set()
        self._thread.join(60)
        self._redis.close()

    def _watch(self) -> None:
        while not self._ended.wait(0.1):
            for name in self._limits:
                told = self._redis.hmget(f"{{lcq}}:spend:{name}", "reserved", "spent")
                self.most[name] = max(self.most[name], sum(int(one or 0) for one in told))

    def states(self, ids: list[str] | None = None) -> Counter[str]:
        pipe = self._redis.pipeline(transaction=False)
        for one in ids or self.ids:
            pipe.hget(f"{{lcq}}:task:{one}", "status")
        return Counter(pipe.execute())

    def ended(self, ids: list[str] | None = None) -> int:
        states = self.states(ids)
        return sum(states[one] for one in (TaskStatus.COMPLETED, TaskStatus.FAILED, TaskStatus.CANCELLED))

    def at_one_moment(self) -> tuple[dict[str, list[dict[str, Any]]], dict[str, dict[str, str]]]:
        """The attempts of each task, and all books."""
        names = list(self._redis.scan_iter("{lcq}:spend:*"))
        pipe = self._redis.pipeline(transaction=True)
        for one in self.ids:
            pipe.lrange(f"{{lcq}}:attempts:{one}", 0, -1)
        for name in names:
            pipe.hgetall(name)
        told = pipe.execute()
        attempts = {one: [json.loads(text) for text in texts] for one, texts in zip(self.ids, told, strict=False)}
        books = zip(names, told[len(self.ids) :], strict=True)
        return attempts, {name.removeprefix("{lcq}:spend:"): book for name, book in books}

    def books_are_the_sum_of_the_bills(self, of_the_job: list[str]) -> dict[str, list[dict[str, Any]]]:
        """Answers the attempts of each task."""
        attempts, books = self.at_one_moment()
        bills = {one: [each["spend"] for each in some if "spend" in each] for one, some in attempts.items()}
        for span, ids in (("month", self.ids), ("job", of_the_job)):
            found = [book for name, book in books.items() if name.startswith(f"{span}:")]
            wanted = [bill for one in ids for bill in bills[one]]
            reserved, spent, calls = (sum(int(book.get(field, 0)) for book in found) for field in _FIELDS)
            # Tiny calls, by which an agent finds out whether a function is there, are of no job and no task.
            tiny = calls - len(wanted) if span == "month" else 0
            assert calls == len(wanted) + tiny
            beside = spent - sum(bill["settled"] for bill in wanted)
            # One that was surely not run (refused, or not let in) is a call that cost nothing.
            assert 0 <= beside <= tiny * WORST * 1e6, f"{span}: {beside} for {tiny} tiny calls"
            still_out = self._redis.hlen("{lcq}:warm_ups") if span == "month" else 0
            assert 0 <= reserved <= still_out * WORST * 1e6, f"{span}: {reserved} for {still_out} calls"
        for name, limit in self._limits.items():
            assert self.most[name] <= limit * 1e6, f"{name}: {self.most[name]} of {limit}"
        return attempts

    def nothing_is_left(self, attempts: Mapping[str, list[dict[str, Any]]], depot: Path) -> tuple[int, int]:
        """But what belongs to calls of which nobody knows whether they still run. Answers how many of these there are,
        and how many pictures of theirs."""
        still_open = set()
        for name in self._redis.scan_iter("{lcq}:call:*"):
            if not self._redis.hexists(name, "over"):
                _, _, task, number = name.split(":")
                still_open.add(f"{task}/{number}")
                attempt = attempts[task][int(number) - 1]
                assert _may_still_run(attempt), (attempt["outcome"], attempt.get("failure"))
        pictures = [path for path in depot.rglob("blobs/*/*") if path.is_file() and len(path.name) == 64]
        for path in pictures:
            whose = self._redis.smembers(f"{{lcq}}:lent:{path.name}")
            assert whose, f"nobody has {path}"
            assert all(one.rpartition("/")[0] in still_open for one in whose), whose
        return len(still_open), len(pictures)


_NOBODY_KNOWS = ("function_unknown", "endpoint_silent", "node_lost", "node_restarted", "lease_expired")


def _may_still_run(attempt: Mapping[str, Any]) -> bool:
    code = (attempt.get("failure") or {}).get("code", "")
    return attempt["outcome"] in ("lost", "cancelled", "released") or code in _NOBODY_KNOWS


_FIELDS = ("reserved", "spent", "calls")


def left_in(options: Mapping[str, Any]) -> list[str]:
    from lcq.storage.objects import Objects

    return [name for name, _, _ in Objects("s3", options).below("s3://exchange/calls")]


# ---------------------------------------------------------------- storms


@pytest.mark.timeout(1800)
@pytest.mark.parametrize("kind", KINDS)
def test_whatever_becomes_of_calls_and_of_who_makes_them_each_task_is_done_once_and_paid_as_the_bills_say(
    redis_url: str, tmp_path: Path, rng: random.Random, kind: str
) -> None:
    port = free_port()
    with (
        KINDS[kind](tmp_path, rng) as function,
        hostile_gateway(f"http://127.0.0.1:{port}", is_hit=lambda method, path: path.startswith("/v1/once/")) as back,
        running_cluster(
            redis_url,
            tmp_path / "c",
            LCQ_SCHEDULER_PORT=str(port),
            LCQ_HTTP__ENABLED="true",
            LCQ_HTTP__PUBLIC_URL=back.url,
            LCQ_SERVERLESS__OVERFLOW_AFTER_S="0",
            LCQ_SERVERLESS__BUDGET__MONTH="100",
            LCQ_SERVERLESS__BUDGET__JOB=str(JOB_LIMIT),
        ) as cluster,
    ):
        cluster.environment = {**cluster.environment, **function.environment}
        cluster.start_scheduler()
        functions = json.dumps({"burst": function_of(function)})
        start_function(cluster, "far", functions)
        for what, plan, faults, count in (
            ("of requests", function.gateway, WEB_FAULTS, 400), ("of the way back", back, RETURN_FAULTS, 400)
        ):  # fmt: skip
            function.planned[what] = rng.choices(faults, k=count)
            plan.faults.extend(function.planned[what])
        pictures = [a_picture(tmp_path, number) | {"max_retries": 20} for number in range(40)]
        of_the_job = [a_task(tmp_path, BOTH, number, **pictures[number]) for number in range(24)]
        only = [a_task(tmp_path, ONLY_FUNCTIONS, number, **pictures[number], job=None) for number in range(24, 40)]
        tasks: list[Task] = rng.sample([*of_the_job, *only], 40)
        month = f"month:{time.strftime('%Y-%m', time.gmtime())}"
        acts = {name: killing(cluster, functions, name) for name in ("scheduler", "far")}
        if function.kill is not None:
            acts["instances"] = function.kill
        began = time.monotonic()
        with cluster.client() as client:
            ids = [one.id for one in client.submit_many(tasks).accepted]
        by_task = dict(zip((id(one) for one in tasks), ids, strict=True))
        job_ids = [by_task[id(one)] for one in of_the_job]
        with Eye(redis_url, ids, {"job:outage": JOB_LIMIT, month: 100.0}) as eye:
            for done, act in zip((4, 8, 12), rng.sample(list(acts), len(acts)), strict=False):
                wait_until_sync(lambda done=done: eye.ended() >= done, timeout=1200, what=f"{done} are done")
                print(f"\n{time.monotonic() - began:4.0f} s: kill -9 of the {act}, started again", end="")
                acts[act]()
            only_ids = [one for one in ids if one not in job_ids]
            wait_until_sync(lambda: eye.ended(only_ids) == 16, timeout=1200, what="what only functions do is done")
            start_house(cluster)
            wait_until_sync(lambda: eye.ended() == len(ids), timeout=1200, what="all are done")
            took_s = time.monotonic() - began
            function.gateway.faults.clear()
            back.faults.clear()
            assert eye.states() == {TaskStatus.COMPLETED: 40}, cluster.logs()[-5000:]
            attempts = eye.books_are_the_sum_of_the_bills(job_ids)
            still_open, left = eye.nothing_is_left(attempts, tmp_path / "c")
            most = dict(eye.most)
            records = {one.id: one for one in _client_of(cluster, ids)}
            with redis.Redis.from_url(redis_url, decode_responses=True) as reader:
                audit(reader)
        for one in tasks:
            assert_is_done(one)
        _told(function, attempts, took_s, most, still_open, left)
        for one, record in records.items():
            counted = [each for each in attempts[one] if each.get("counted")]
            assert record.retries == len(counted) < 20
            assert not any((each.get("failure") or {}).get("code") in NO_RETRY_LOST for each in counted)
            assert Counter(each["outcome"] for each in attempts[one])["completed"] == 1, attempts[one]
        assert {records[one].node for one in ids if one not in job_ids} == {"far"}
        assert max(function.ran().values()) <= 2, "no call runs twice but where its request was doubled"


def a_picture(folder: Path, number: int) -> dict[str, object]:
    """A small one that no other task has, and the mask that all have."""
    photo = cv2.imread(str(SAMPLES.parent / "photos" / "coffee.jpg"), cv2.IMREAD_COLOR)
    image, mask = folder / f"{number}.png", folder / "mask.png"
    cv2.imwrite(str(image), photo[number : number + 120, number : number + 160])
    holes = np.zeros((120, 160), np.uint8)
    holes[40:60, 50:80] = 255
    cv2.imwrite(str(mask), holes)
    return {"image_path": str(image), "mask_path": str(mask)}


def assert_is_done(task: Task) -> None:
    """As the house does it."""
    mask = cv2.imread(task.mask_path or "", cv2.IMREAD_GRAYSCALE) > 0
    picture = Picture(cv2.imread(task.image_path, cv2.IMREAD_COLOR), mask)
    engine = OpenCvEngine(EngineSettings(device=Device(id="cpu", kind=DeviceKind.CPU)))
    wanted = engine.run(Work(TaskType.INPAINT, task.model, picture, {}, lambda fraction, stage: None))
    assert np.array_equal(cv2.imread(task.output_path or "", cv2.IMREAD_COLOR), wanted), task.output_path


def start_house(cluster: Cluster) -> None:
    """An agent that does itself what is not only for functions."""
    others = cluster.environment
    cluster.environment = {**others, "LCQ_AGENT__MODELS": json.dumps([BOTH])}
    cluster.start_agent("house", slots=1)
    cluster.environment = others


def killing(cluster: Cluster, functions: str, name: str) -> Callable[[], None]:
    def act() -> None:
        cluster.kill(name)
        if name == "scheduler":
            cluster.start_scheduler()
        else:
            start_function(cluster, name, functions)

    return act


def _client_of(cluster: Cluster, ids: list[str]) -> list[Any]:
    with cluster.client() as client:
        return list(client.get_many(ids))


def _told(
    kind: Kind, attempts: Mapping[str, list[dict[str, Any]]], took_s: float, most: Mapping[str, int], still_open: int,
    pictures: int,
) -> None:  # fmt: skip
    every = [one for some in attempts.values() for one in some]
    codes = Counter(one["failure"]["code"] for one in every if one.get("failure"))
    print(f"\n{took_s:.0f} s; {len(every)} attempts: {dict(Counter(one['outcome'] for one in every))}, {dict(codes)}")
    counted = [sum(bool(one.get("counted")) for one in some) for some in attempts.values()]
    nodes = Counter(one["node"] for one in every if one["outcome"] == "completed")
    print(f"by node: {dict(nodes)}; retries that counted: {sum(counted)}, the most of one task {max(counted)} of 20")
    came = len(kind.gateway.keys)
    print(f"{came} requests came, with {dict(Counter(kind.planned['of requests'][:came]))}; {kind.told()}")
    print(f"spent and reserved at most, in millionths: {dict(most)}; calls that may still run: {still_open}, with "
          f"{pictures} pictures; left in the bucket: {len(left_in(kind.s3)) if kind.s3 else 'none there'}")  # fmt: skip


# ---------------------------------------------------------------- an outage of each kind


def most_trials(seconds: float) -> int:
    """How often a function may be tried in so long: after pauses of 5, 10 … 120 s, each a quarter shorter."""
    trials, at_s, pause_s = 0, 0.0, 5.0
    while (at_s := at_s + 0.75 * pause_s) <= seconds:
        trials, pause_s = trials + 1, min(120.0, 2 * pause_s)
    return trials


@pytest.mark.timeout(3000)
def test_an_outage_of_each_kind_costs_few_calls_and_no_task_its_tries(redis_url: str, tmp_path: Path) -> None:
    port = free_port()
    with (
        runpod(tmp_path) as pods,
        lambda_function("app.handler", SAMPLES / "lambda", tmp_path / "lambda.log") as cloud,
        openfaas() as faas,
        hostile_gateway(pods.url, is_hit=lambda method, path: path.endswith("/run"), key_of=_key_in) as pods_gate,
        hostile_gateway(cloud.url, key_of=_key_in) as cloud_gate,
        hostile_gateway(faas.url) as faas_gate,
        running_cluster(
            redis_url,
            tmp_path / "c",
            LCQ_SCHEDULER_PORT=str(port),
            LCQ_HTTP__ENABLED="true",
            LCQ_HTTP__PUBLIC_URL=f"http://127.0.0.1:{port}",
            LCQ_SERVERLESS__OVERFLOW_AFTER_S="0",
            LCQ_SERVERLESS__BUDGET__MONTH="1000",
            **cloud_of(cloud_gate),
        ) as cluster,
    ):
        gates = {"pods": pods_gate, "cloud": cloud_gate, "faas": faas_gate}
        kinds = {
            "pods": Kind({"kind": "runpod", "url": pods_gate.url + ENDPOINT}, pods_gate),
            "cloud": Kind({"kind": "lambda", "url": "clean"}, cloud_gate),
            "faas": Kind({"kind": "openfaas", "async": True, "url": f"{faas_gate.url}/function/clean"}, faas_gate),
        }
        cluster.start_scheduler()
        functions = {name: function_of(kind, timeout_s=QUICK_S) for name, kind in kinds.items()}
        start_function(cluster, "far", json.dumps(functions))
        start_house(cluster)
        count = 0

        def a_few(model: str, many: int) -> list[str]:
            nonlocal count
            count += many
            tasks = [a_task(tmp_path, model, number) for number in range(count - many, count)]
            return [one.id for one in client.submit_many(tasks).accepted]

        with cluster.client() as client:
            known = a_few(ONLY_FUNCTIONS, 9)
            wait_until_sync(lambda: _all_done(client, known), timeout=600, what="all is well")
            # It takes jobs, and no worker is there; what stands before it gives up; its queue takes all, and runs none.
            pods.is_throttled, cloud_gate.always = True, "refuse:504"
            faas.faults.extend(["lost"] * 10_000)
            began, before = time.monotonic(), {name: len(gate.came) for name, gate in gates.items()}
            both, waiting = a_few(BOTH, 12), a_few(ONLY_FUNCTIONS, 12)
            wait_until_sync(lambda: _all_done(client, both), timeout=600, what="the house does what it can")
            print(f"\nall {len(both)} that the house can do were done after {time.monotonic() - began:.0f} s")
            is_away = WhyCode.ENDPOINT_AWAY
            wait_until_sync(lambda: client.why(waiting[-1]).code is is_away, timeout=300, what="lcq why says so")
            time.sleep(max(0.0, began + OUTAGE_S - time.monotonic()))  # it has a length, and nothing to be waited for
            lasted_s = time.monotonic() - began
            calls = {name: [at for at in gate.came[before[name] :] if at > began] for name, gate in gates.items()}
            pods.is_throttled, cloud_gate.always = False, ""
            faas.faults.clear()
            ended = time.monotonic()
            for name, times in calls.items():
                by_minute = Counter(int((at - began) // 60) for at in times)
                minutes = range(int(lasted_s // 60) + 1)
                print(f"{name}: calls a minute {' '.join(str(by_minute[minute]) for minute in minutes)}")
                assert len(times) <= IN_A_ROW - 1 + CALLS + most_trials(lasted_s), name
                assert max((by_minute[minute] for minute in minutes[1:]), default=0) <= 2, name
            wait_until_sync(lambda: _all_done(client, waiting), timeout=900, what="what waited is done")
            more: list[str] = []

            def all_are_used() -> bool:
                more.extend(a_few(ONLY_FUNCTIONS, 6))
                wait_until_sync(lambda: _all_done(client, more), timeout=600, what="these too")
                return all(gate.came[-1] > ended for gate in gates.values())

            wait_until_sync(all_are_used, timeout=600, what="each function is used again")
            ids = known + both + waiting + more
            records = client.get_many(ids)
        with Eye(redis_url, ids, {}) as eye:
            attempts = eye.books_are_the_sum_of_the_bills(ids)
        lost = Counter(one.retries for one in records)
        codes = Counter(one["failure"]["code"] for some in attempts.values() for one in some if one.get("failure"))
        print(f"outage of {lasted_s:.0f} s: {dict(codes)}; tries lost, of 3 each: {dict(lost)}; "
              f"{sum(one.attempt for one in records)} attempts of {len(ids)} tasks")  # fmt: skip
        assert sum(one.retries for one in records) <= len(gates) * (IN_A_ROW - 1)  # before it was known
        assert not pods.health["jobs"]["inQueue"], "no job is left that nobody waits for"


def _all_done(client: Client, ids: list[str]) -> bool:
    return all(one.status is TaskStatus.COMPLETED for one in client.get_many(ids))
