"""The simulator as a child of a job: settings from its lifeline, address back, gone when the job is."""

from __future__ import annotations

import asyncio
import os

from llmexp.endpoints.process import Lifeline
from llmexp.endpoints.simulator.loop import run
from llmexp.endpoints.simulator.options import Options
from llmexp.endpoints.simulator.server import listening


async def _serve(lifeline: Lifeline) -> None:
    loop = asyncio.get_running_loop()
    ended = asyncio.Event()
    async with listening(Options.of(lifeline.settings)) as (_, address):
        lifeline.watch(lambda: loop.call_soon_threadsafe(ended.set))
        lifeline.ready({"address": address, "pid": os.getpid()})
        await ended.wait()


def main() -> None:
    """Entry of `python -m llmexp.endpoints.simulator`."""
    run(_serve(Lifeline()))


if __name__ == "__main__":
    main()
