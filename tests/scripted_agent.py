"""lcq-agent for tests, as a process of its own, with scripted runners; it obeys failpoints as lcq-agent does.

    python -m tests.scripted_agent HOST:PORT DATA_FOLDER NAME [--unkillable FILE] [options of the runner]

While ``FILE`` exists, no runner of it can be killed, as where the kernel holds a process for a device that is stuck.
Settings come by LCQ_* variables.
"""

# ruff: noqa: E402

from __future__ import annotations

import gc

gc.disable()  # as the real one does

import asyncio
import functools
import os
import signal
import sys
from pathlib import Path

import worker.slot as slot_module
from lcq import failpoints
from lcq.config import DistributedConfig
from lcq.log import setup_logging
from tests import scripted_runner
from worker.agent import Agent

gc.freeze()
gc.enable()


def kill_unless(file: Path, group: int, number: int) -> None:
    if not file.exists():
        os.killpg(group, number)


async def main(scheduler: str, data_dir: str, name: str, *options: str) -> None:
    left = list(options)
    kill = os.killpg
    if "--unkillable" in left:
        at = left.index("--unkillable")
        kill = functools.partial(kill_unless, Path(left[at + 1]))
        del left[at : at + 2]
        slot_module._KILL_S = 0.5
    agent_settings = {"name": name, "poll_s": 0.1, "slots": 1, "drain_s": 5.0}
    config = DistributedConfig(data_dir=Path(data_dir), agent=agent_settings)  # type: ignore[arg-type]
    setup_logging(config.log_level, form=config.log_format)
    failpoints.arm_from_environment()
    runner = (*scripted_runner.COMMAND, *left)
    async with Agent(config, scheduler=scheduler, runner=runner, kill=kill) as agent:
        stop = functools.partial(agent.request_stop, at_once=True)
        asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, stop)
        await agent.run()


if __name__ == "__main__":
    asyncio.run(main(*sys.argv[1:]))
