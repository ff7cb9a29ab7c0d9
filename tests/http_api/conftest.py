"""A scheduler that answers HTTP on a port of its own, a client of it, and a node by hand."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from pathlib import Path
from typing import Any, TypeAlias

import httpx
import pytest

from lcq.config import DistributedConfig
from lcq.scheduler import Scheduler
from tests.nodes import Node

Served: TypeAlias = tuple[Scheduler, httpx.AsyncClient]
Serve: TypeAlias = Callable[..., AbstractAsyncContextManager[Served]]


@pytest.fixture
def serve(redis_url: str, tmp_path: Path) -> Serve:
    """``async with serve(**http) as (scheduler, client)``: http are the settings of that section, port is its port."""

    @asynccontextmanager
    async def served(port: int = 0, **http: Any) -> AsyncIterator[Served]:
        config = DistributedConfig.model_validate(
            {
                "data_dir": tmp_path / "data",
                "scheduler_port": port,
                "zeromq": {"base_port": 0, "control_port": 0},
                "leases": {"beat_s": 60, "lease_s": 3600},  # a node by hand never beats, however long a test takes
                "http": {"enabled": True, **http},
            }
        )
        async with (
            Scheduler(config, redis_url=redis_url) as scheduler,
            httpx.AsyncClient(base_url=scheduler.http.address, timeout=60, verify=False) as client,
        ):
            yield scheduler, client

    return served


@pytest.fixture
async def served(serve: Serve) -> AsyncIterator[Served]:
    async with serve() as both:
        yield both


@pytest.fixture
def scheduler(served: Served) -> Scheduler:
    return served[0]


@pytest.fixture
def http(served: Served) -> httpx.AsyncClient:
    return served[1]


@pytest.fixture
async def node(scheduler: Scheduler) -> Node:
    """A node that has said hello."""
    node = Node(scheduler.state)
    await node.hello()
    return node
