"""What tests of the state share: a writer on an empty server, an eye on every key, the first node."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator

import pytest
import redis

from lcq.config import DistributedConfig, RetryConfig
from lcq.state.manager import StateManager
from tests.nodes import Node


@pytest.fixture
async def state(redis_url: str) -> AsyncIterator[StateManager]:
    """The one writer of an empty server; its retries wait for a minute and more, so that none is due by itself."""
    config = DistributedConfig(retries=RetryConfig(base_s=3600, max_s=3600))
    async with StateManager(config, url=redis_url) as state:
        yield state


@pytest.fixture
def eye(redis_url: str) -> Iterator[redis.Redis]:
    """A plain client of the same server, for what only a test may see and do."""
    with redis.Redis.from_url(redis_url, decode_responses=True) as client:
        yield client


@pytest.fixture
async def node(state: StateManager) -> Node:
    """A node that has said hello."""
    node = Node(state)
    await node.hello()
    return node
