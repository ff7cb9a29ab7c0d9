"""lcq-agent for tests, as a process of its own: it soon has enough of what is broken, and its runners may be scripted.

    python -m tests.impatient_agent HOST:PORT DATA_FOLDER [--script FILE]

Settings come by LCQ_* variables.
"""

# ruff: noqa: E402

from __future__ import annotations

import gc

gc.disable()  # as the real one does

import asyncio
import functools
import signal
import sys
from pathlib import Path

import worker.agent as agent_module
import worker.readings as readings_module
import worker.slot as slot_module
from lcq.config import DistributedConfig
from lcq.gpus import Gpus
from lcq.log import setup_logging
from tests import scripted_runner
from worker.agent import Agent
from worker.slot import RUNNER

gc.freeze()
gc.enable()


async def main(scheduler: str, data_dir: str, *options: str) -> None:
    slot_module._FAULT_S = 0.2
    slot_module._AGAIN_S = (0.05, 0.2)
    slot_module._USELESS_S = (0.1, 0.2)
    readings_module.PERIOD_S = 0.1
    agent_module.Gpus = functools.partial(Gpus, timeout_s=0.2, silence_s=0.5, retry_s=0.5)  # type: ignore[misc]
    config = DistributedConfig(data_dir=Path(data_dir), agent={"name": "node-1", "poll_s": 0.1, "slots": 1})  # type: ignore[arg-type]
    setup_logging(config.log_level)
    runner = (*scripted_runner.COMMAND, *options) if options else RUNNER
    async with Agent(config, scheduler=scheduler, runner=runner) as agent:
        asyncio.get_running_loop().add_signal_handler(
            signal.SIGTERM, functools.partial(agent.request_stop, at_once=True)
        )
        await agent.run()


if __name__ == "__main__":
    asyncio.run(main(*sys.argv[1:]))
