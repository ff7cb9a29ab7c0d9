"""LCQ, Lama Cleaner Queue: image clean-up as a fleet's work, with nothing lost.

The names below are found when they are first used, so that an agent that imports ``lcq.models`` never loads
Redis, and a script that needs only ``Task`` loads nothing else.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from lcq.client import AsyncClient as AsyncClient
    from lcq.client import Client as Client
    from lcq.config import ConfigManager as ConfigManager
    from lcq.config import DistributedConfig as DistributedConfig
    from lcq.models import NodeCapability as NodeCapability
    from lcq.models import NodeStatus as NodeStatus
    from lcq.models import QueueConfig as QueueConfig
    from lcq.models import Task as Task
    from lcq.models import TaskPriority as TaskPriority
    from lcq.models import TaskStatus as TaskStatus
    from lcq.models import TaskType as TaskType
    from lcq.nodes import NodeManager as NodeManager
    from lcq.queues import QueueManager as QueueManager
    from lcq.state.manager import StateManager as StateManager
    from lcq.tasks import TaskManager as TaskManager

_HOMES = {
    "AsyncClient": "lcq.client",
    "Client": "lcq.client",
    "ConfigManager": "lcq.config",
    "DistributedConfig": "lcq.config",
    "NodeCapability": "lcq.models",
    "NodeManager": "lcq.nodes",
    "NodeStatus": "lcq.models",
    "QueueConfig": "lcq.models",
    "QueueManager": "lcq.queues",
    "StateManager": "lcq.state.manager",
    "Task": "lcq.models",
    "TaskManager": "lcq.tasks",
    "TaskPriority": "lcq.models",
    "TaskStatus": "lcq.models",
    "TaskType": "lcq.models",
}
__all__ = sorted(_HOMES)
__version__ = "0.1.0"


def __getattr__(name: str) -> Any:
    home = _HOMES.get(name)
    if home is None:
        raise AttributeError(f"module 'lcq' has no attribute {name!r}")
    return getattr(import_module(home), name)


def __dir__() -> list[str]:
    return sorted([*globals(), *_HOMES])
