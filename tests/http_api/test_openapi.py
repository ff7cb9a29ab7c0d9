"""The OpenAPI document against the scheduler itself: schemathesis makes the requests, bounded."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Iterator

import httpx
import pytest
from hypothesis import HealthCheck, Phase, given, settings

from lcq.config import DistributedConfig
from lcq.embedded import PrivateServer
from lcq.scheduler import Scheduler
from tests.nodes import Node

_EXAMPLES = 3
_OURS = ("/v1/", "/healthz", "/readyz", "/metrics")
_LEFT_OUT = ("/v1/events", "/socket.io/")  # never ends; speaks another protocol


@pytest.fixture(scope="module")
def address(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """A scheduler in an event loop of its own, with a node that takes nothing."""
    config = DistributedConfig.model_validate(
        {
            "data_dir": tmp_path_factory.mktemp("data"),
            "scheduler_port": 0,
            "zeromq": {"base_port": 0, "control_port": 0},
            "http": {"enabled": True, "per_minute": None, "answer_s": 0.05},
            "storage": {"blobs": {"floor_mib": 0}},
        }
    )
    found: list[str] = []
    ready, over = threading.Event(), threading.Event()

    async def live(redis_url: str) -> None:
        async with Scheduler(config, redis_url=redis_url) as scheduler:
            await Node(scheduler.state).hello()
            found.append(scheduler.http.address)
            ready.set()
            await asyncio.to_thread(over.wait)

    with PrivateServer(tmp_path_factory.mktemp("redis")) as server:
        thread = threading.Thread(target=lambda: asyncio.run(live(server.url)))
        thread.start()
        try:
            assert ready.wait(240), "the scheduler did not start"
            yield found[0]
        finally:
            over.set()
            thread.join()


@pytest.mark.filterwarnings("ignore::hypothesis.errors.HypothesisWarning")  # of what schemathesis does with it
def test_every_operation_answers_as_the_document_says(address: str) -> None:
    import schemathesis  # here: not by every worker that collects
    from schemathesis.checks import not_a_server_error
    from schemathesis.generation.case import Case

    schema = schemathesis.openapi.from_dict(httpx.get(f"{address}/openapi.json", timeout=60).json())
    schema.config.update(base_url=address, request_timeout=120)
    # A filter or a model's name may be wrong in ways that no schema tells; and the parents answer 500 to what is wrong.
    schema.config.checks.update(excluded_check_names=["positive_data_acceptance"])
    tried: set[str] = set()
    found: list[str] = []
    for result in schema.get_all_operations():
        operation = result.ok()
        if operation.path.startswith(_LEFT_OUT):
            continue
        tried.add(f"{operation.method.upper()} {operation.path}")

        @settings(
            max_examples=_EXAMPLES,
            deadline=None,
            database=None,
            derandomize=True,
            phases=[Phase.generate],
            suppress_health_check=list(HealthCheck),
        )
        @given(case=operation.as_strategy())
        def answers(case: Case) -> None:
            is_ours = operation.path.startswith(_OURS)  # noqa: B023 - it is called at once
            case.call_and_validate(excluded_checks=[] if is_ours else [not_a_server_error])

        try:
            answers()
        except (Exception, BaseExceptionGroup) as wrong:  # noqa: BLE001 - all of them are told at once
            found.append(f"{operation.method.upper()} {operation.path}: {_told(wrong)}")
    assert not found, "\n\n".join(found)
    assert {"POST /v1/tasks", "GET /v1/tasks/{task_id}", "PUT /v1/blobs/{sha256}", "POST /api/v1/inpaint"} <= tried
    assert len(tried) > 50


def _told(wrong: BaseException) -> str:
    inner = getattr(wrong, "exceptions", ())
    return "; ".join(map(_told, inner)) if inner else f"{type(wrong).__name__}: {wrong}"[:600]
