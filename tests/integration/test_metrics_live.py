"""What a real cluster tells Prometheus, and that every rule and panel we ship asks for something it tells."""

from __future__ import annotations

import asyncio
import json
import re
import shutil
import subprocess
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import promql_parser
import pytest
import redis
import yaml
from prometheus_client.parser import text_string_to_metric_families

from lcq.config import AgentConfig, DistributedConfig
from lcq.metrics.cluster import put_cluster
from lcq.metrics.exposition import Sheet
from lcq.metrics.table import BY_NAME, METRICS, PROCESS_METRICS, Kind, Scope
from lcq.models import DeviceReading, ErrorClass, FunctionReading
from lcq.scheduler import Scheduler
from lcq.state.manager import StateManager
from lcq.state.reader import StateReader
from tests.chaos.rig import SCRIPTED
from tests.conftest import wait_until
from tests.nodes import Node, a_failure, a_task
from worker.agent import Agent

SHIPPED = Path(__file__).parents[2] / "sample-config"
RULES = SHIPPED / "prometheus" / "lcq-alerts.yml"
SCRAPES = SHIPPED / "prometheus" / "prometheus.yml"
DASHBOARD = SHIPPED / "grafana" / "lcq.json"
RUNBOOKS = Path(__file__).parents[2] / "docs" / "alerts.md"
_PROMETHEUS_OWN = {"up": {"job", "instance"}}
_OF_TARGETS = {"job", "instance", "le"}
_PARTS = ("_bucket", "_count", "_sum")


@dataclass(frozen=True)
class Expression:
    """One that is shipped, and where; ``legend``: the labels that are shown of what it answers."""

    where: str
    text: str
    legend: frozenset[str] = frozenset()

    def selectors(self) -> Iterator[Any]:
        """Raises:
        ValueError: it is no PromQL.
        """
        found: list[Any] = []
        without_variables = self.text.replace("$__rate_interval", "5m")
        promql_parser.walk(promql_parser.parse(without_variables), lambda one: found.append(one))
        yield from (one for one in found if isinstance(one, promql_parser.VectorSelector))


def _labels_in(text: str) -> frozenset[str]:
    """The labels that a legend ({{node}}) or an annotation ({{ $labels.node }}) shows."""
    return frozenset(re.findall(r"\{\{\s*(?:\$labels\.)?([a-z_]+)", text))


def expressions() -> list[Expression]:
    rules = [rule for group in yaml.safe_load(RULES.read_text())["groups"] for rule in group["rules"]]
    found = [
        Expression(rule["alert"], rule["expr"], _labels_in(" ".join(rule["annotations"].values()))) for rule in rules
    ]
    panels = json.loads(DASHBOARD.read_text())["panels"]
    found += [
        Expression(panel["title"], target["expr"], _labels_in(target["legendFormat"]))
        for panel in panels
        for target in panel.get("targets", ())
    ]
    return found


def family(name: str) -> str:
    """The family that a series belongs to: a histogram's have parts."""
    stem = next((name.removesuffix(part) for part in _PARTS if name.endswith(part)), name)
    return stem if stem in BY_NAME and BY_NAME[stem].kind is Kind.HISTOGRAM else name


@pytest.mark.parametrize("shipped", expressions(), ids=lambda one: one.where)
def test_every_expression_that_is_shipped_is_promql_over_metrics_and_labels_of_the_table(shipped: Expression) -> None:
    selectors = list(shipped.selectors())
    assert selectors
    shown: set[str] = set()
    for selector in selectors:
        name = family(selector.name)
        if name in PROCESS_METRICS:
            labels = set(_OF_TARGETS)
        else:
            labels = _PROMETHEUS_OWN.get(name) or {*BY_NAME[name].labels, *_OF_TARGETS}
        asked = {matcher.name for matcher in selector.matchers.matchers}
        assert asked <= labels, f"{name} has no label {asked - labels}"
        shown |= labels
    assert shipped.legend <= shown, f"nothing it asks for has the labels {shipped.legend - shown}"


def test_what_is_of_the_whole_cluster_is_taken_of_one_scheduler_and_never_added_up() -> None:
    for shipped in expressions():
        for name in {family(one.name) for one in shipped.selectors()}:
            if name in BY_NAME and BY_NAME[name].scope is Scope.CLUSTER:
                taken = rf"(max|min)( (without|by) \([^)]*\))?\s*\(((rate|increase)\()?{name}\b"
                asked = len(re.findall(rf"\b{name}\b", shipped.text))
                assert len(re.findall(taken, shipped.text)) == asked, (shipped, name)


def test_every_rule_says_what_to_do_and_its_runbook_is_there() -> None:
    headings = {
        re.sub(r"[^a-z0-9 -]", "", line.lstrip("# ").lower()).strip().replace(" ", "-")
        for line in RUNBOOKS.read_text(encoding="utf-8").splitlines()
        if line.startswith("#")
    }
    groups = yaml.safe_load(RULES.read_text())["groups"]
    rules = [rule for group in groups for rule in group["rules"]]
    assert len({rule["alert"] for rule in rules}) == len(rules) > 15
    for rule in rules:
        assert set(rule) <= {"alert", "expr", "for", "labels", "annotations"}, rule
        assert rule["labels"]["severity"] in ("warning", "critical")
        assert {"summary", "description", "runbook"} == set(rule["annotations"])
        page, _, anchor = rule["annotations"]["runbook"].partition("#")
        assert (page, anchor in headings) == ("docs/alerts.md", True), rule["annotations"]["runbook"]
        if "for" in rule:
            promql_parser.parse_duration(rule["for"])


def test_the_scrape_configuration_reads_rules_and_ports_that_are_ours() -> None:
    config = yaml.safe_load(SCRAPES.read_text())
    assert [SCRAPES.parent / name for name in config["rule_files"]] == [RULES]
    targets = {one["job_name"]: one["static_configs"][0]["targets"] for one in config["scrape_configs"]}
    assert targets["lcq-scheduler"] == [f"localhost:{DistributedConfig().scheduler_port}"]
    assert {one["metrics_path"] for one in config["scrape_configs"]} == {"/metrics"}


@pytest.mark.skipif(shutil.which("promtool") is None, reason="there is no promtool on PATH")
def test_promtool_finds_nothing_wrong_with_what_is_shipped() -> None:
    for command in (["check", "rules", str(RULES)], ["check", "config", str(SCRAPES)]):
        done = subprocess.run(["promtool", *command], capture_output=True, text=True, timeout=60, check=False)
        assert done.returncode == 0, done.stdout + done.stderr


# ---------------------------------------------------------------- a real cluster


@pytest.fixture
async def cluster(redis_url: str, tmp_path: Path) -> AsyncIterator[tuple[Scheduler, Agent]]:
    """A scheduler with HTTP and an agent with a port for its metrics, in this loop; scripted runners."""
    config = DistributedConfig.model_validate(
        {
            "data_dir": tmp_path / "data",
            "scheduler_port": 0,
            "zeromq": {"base_port": 0, "control_port": 0},
            "leases": {"lease_s": 3600},  # the node beside the agent is there by hand, and beats once
            "http": {"enabled": True},
        }
    )
    async with Scheduler(config, redis_url=redis_url) as scheduler:
        own = AgentConfig(name="node-1", slots=2, poll_s=0.2, drain_s=5, metrics_port=0)
        of_agent = config.model_copy(update={"agent": own, "data_dir": tmp_path / "node-1"})
        address = scheduler.control_endpoint.removeprefix("tcp://")
        async with Agent(of_agent, scheduler=address, runner=SCRIPTED) as agent, asyncio.TaskGroup() as group:
            group.create_task(agent.run())
            try:
                await wait_until(lambda: agent._membership.joined.is_set(), what="the agent to join")
                yield scheduler, agent
            finally:
                agent.request_stop(at_once=True)


def names_in(text: str) -> set[str]:
    return {family(sample.name) for one in text_string_to_metric_families(text) for sample in one.samples}


async def test_a_cluster_tells_every_metric_of_the_table_and_so_all_that_rules_and_panels_ask_for(
    cluster: tuple[Scheduler, Agent], redis_url: str
) -> None:
    scheduler, agent = cluster
    state = scheduler.state
    hot = Node(state, id="gpu-1")
    await hot.hello()
    reading = DeviceReading(busy=0.9, total_mib=24_000, free_mib=1000, temperature_c=71.0, power_w=300.0)
    reading = reading.model_copy(update={"function": FunctionReading(warm=2, cold=1, in_flight=1, start_s=3.0)})
    await hot.beat(readings={"cpu": reading})
    await state.submit_task(a_task(), queue="cpu-light", key="one", cost_s=1.0, node=hot.id)  # not the agent's
    (grant,) = await hot.claim()
    await hot.fail(grant.task.id, failure=a_failure(ErrorClass.BAD_INPUT, "no_such_file"))
    await scheduler.tasks.submit_task(a_task(max_retries=0))
    async with httpx.AsyncClient(timeout=60) as client:
        agents = f"http://{agent.metrics_at}/metrics"

        async def has_done() -> bool:
            text = (await client.get(agents)).text
            return 'lcq_agent_run_seconds_count{device="cpu"}' in text and "lcq_agent_device_use_ratio" in text

        await wait_until(has_done, what="the agent to tell of a completed attempt")
        schedulers = f"{scheduler.http.address}/metrics"
        await client.get(schedulers)
        await wait_until(lambda: list(state.measures.task_done.spreads()), what="its commit")
        of_scheduler, of_agent = await client.get(schedulers), await client.get(agents)
        nothing = await client.get(agents.replace("/metrics", "/"))
        posted = await client.post(agents)
    assert (nothing.status_code, posted.status_code) == (404, 405)
    assert of_agent.headers["content-type"].startswith("text/plain; version=0.0.4")
    rare = {"lcq_agent_fetch_seconds": 0, "lcq_agent_device_temperature_celsius": 1, "lcq_agent_device_power_watts": 1}
    rare |= {
        f"lcq_agent_device_{of}": 1
        for of in (
            "warm_instances",
            "calls_in_flight",
            "cold_starts_total",
            "cold_start_seconds",
            "calls_in_vain",
            "function_state",
        )
    }
    seen = {"lcq_alerts", "lcq_notices_total", "lcq_functions_budget"}  # where there are any
    told = names_in(of_scheduler.text)
    assert {one.name for one in METRICS if one.scope is not Scope.AGENT} - seen == told - {*PROCESS_METRICS} - seen
    of_ours = names_in(of_agent.text)
    wanted = {one.name for one in METRICS if one.scope is Scope.AGENT} - {name for name, gpu in rare.items() if gpu}
    assert wanted == of_ours - {*PROCESS_METRICS}
    for shipped in expressions():
        for selector in shipped.selectors():
            name = family(selector.name)
            assert name in told | of_ours | seen | rare.keys() | _PROMETHEUS_OWN.keys(), (shipped, name)
    lines = of_scheduler.text.splitlines()
    assert 'lcq_device_temperature_celsius{device="cpu",node="gpu-1"} 71.0' in lines
    assert 'lcq_attempts_failed_total{class="bad_input",outcome="failed"} 1.0' in lines
    assert "lcq_tasks_failed_total 1.0" in lines
    assert "lcq_redis_up 1.0" in lines


async def test_a_scrape_asks_redis_the_same_of_three_tasks_and_of_three_hundred(redis_url: str) -> None:
    async def calls_of_a_scrape() -> dict[str, int]:
        with redis.Redis.from_url(redis_url) as eye:
            async with StateReader(redis_url) as reader:
                eye.config_resetstat()
                await put_cluster(Sheet(), reader)
                stats: dict[str, dict[str, int]] = eye.info("commandstats")
        ours = {name: stat["calls"] for name, stat in stats.items()}
        return {name: calls for name, calls in ours.items() if not name.startswith(("cmdstat_config", "cmdstat_info"))}

    async def submitted(*numbers: int) -> None:
        async with StateManager(DistributedConfig(), url=redis_url) as state:
            await Node(state).hello()
            await asyncio.gather(
                *(state.submit_task(a_task(), queue="cpu-light", key=f"{n}", cost_s=1.0) for n in numbers)
            )

    await submitted(*range(3))
    few = await calls_of_a_scrape()
    await submitted(*range(3, 300))
    assert await calls_of_a_scrape() == few
    assert 0 < sum(few.values()) < 150
