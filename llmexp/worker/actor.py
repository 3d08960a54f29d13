"""The Ray actor of a worker: an event loop that sends prepared bytes at the right time and stamps what comes back.

Nothing else happens here while a load runs. Requests come ready from the companion, tapes go back to it.
"""

from __future__ import annotations

import asyncio
import gc
from pathlib import Path

from llmexp.secrets import guard_streams
from llmexp.worker.core import Core
from llmexp.worker.plan import Left, Plan, Watch
from llmexp.worker.scheduling import wake_soon


class Worker:
    """The body of a worker actor. Methods are called one after the other: `begin`, `warm`, `measure`, then `begin` with
    the plan of the next job, or `close`.
    """

    def __init__(self) -> None:
        import uvloop

        guard_streams()  # Ray keeps what its processes print in files
        self._loop: asyncio.AbstractEventLoop = uvloop.new_event_loop()
        self._core: Core | None = None

    def begin(self, plan: Plan, directory: str) -> None:
        """Join the feed of the companion in `directory` and open the connections.

        A worker that had a job before drops everything of it (feed, counters, queues; its frozen memory is collected).
        Idle connections alone are kept, where the target is the same.
        """
        before, self._core = self._core, None
        gc.unfreeze()
        core = Core(plan, Path(directory))
        self._loop.run_until_complete(core.connect(before))
        if before is not None:
            self._loop.run_until_complete(before.close())
        self._core = core
        del before
        gc.collect()

    def warm(self) -> Watch:
        """Send the warm-up requests that are ready, at most `streams` at a time."""
        return self._loop.run_until_complete(self._now.run(warmup=True))

    def load_shots(self) -> int:
        """Take the shots that the companion gives before a phase; how many are ready. Runs while it gives them."""
        return self._loop.run_until_complete(self._now.load_shots())

    def measure(self, start_ns: int) -> Watch:
        """Run the load from this time of this host's monotonic clock on."""
        wake_soon()  # this thread, which runs the load
        return self._loop.run_until_complete(self._now.run(warmup=False, start_ns=start_ns))

    def left(self, received: int) -> Left:
        """What is left of the job when the companion has died, which ends the load here: its rows beyond the
        `received` batches that the driver has, and what was sent.
        """
        return self._now.left(received)

    def close(self) -> None:
        """Close connections and the feed."""
        if self._core is not None:
            self._loop.run_until_complete(self._core.close())

    @property
    def _now(self) -> Core:
        if self._core is None:
            raise RuntimeError("no job has begun")
        return self._core
