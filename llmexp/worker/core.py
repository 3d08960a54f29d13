"""What runs on a worker's event loop. Apart from the actor, because Ray makes any class with coroutines an asyncio
actor and runs it on a loop of its own; and so that a test can run it in its own process.
"""

from __future__ import annotations

import asyncio
import gc
import shutil
import time
from pathlib import Path
from time import monotonic_ns

from llmexp.worker import journal
from llmexp.worker.dial import Dialer
from llmexp.worker.feed import Feed
from llmexp.worker.line import ODOMETER, SOCKET, Odometer
from llmexp.worker.phase import Phase, Streams
from llmexp.worker.plan import Left, Plan, Watch
from llmexp.worker.pool import Exchange, Pool, Tape


class Core:
    """A worker's part of one job: its feed, its connections, its phases."""

    def __init__(self, plan: Plan, directory: Path) -> None:
        """`directory` is where the companion listens."""
        self._plan = plan
        self._directory = directory
        self._feed = Feed()
        self._odometer = Odometer(directory / ODOMETER)
        self._streams: Streams | None = None
        self._phase: Phase | None = None
        self._measured: Phase | None = None

    async def connect(self, before: Core | None = None) -> None:
        """Join the companion's feed and open the connections, those of the job `before` among them where they fit."""
        loop = asyncio.get_running_loop()
        await loop.create_unix_connection(lambda: self._feed, str(self._directory / SOCKET))
        kept = before.hand_on(self) if before is not None else None
        if kept is not None:
            await kept.renew()
        self._streams = kept or self._build_streams()
        await self._streams.open(self._plan.spare)

    def _build_streams(self) -> Streams:
        if self._plan.own_stream is not None:
            from llmexp.worker.own_stream import OwnStreams

            return OwnStreams(self._plan.own_stream, self.ended)
        return Pool(Dialer(self._plan.target), self.ended)

    def hand_on(self, to: Core) -> Pool | None:
        """Give the open connections to the job that follows, if it calls the same target through our own sockets."""
        pool = self._streams
        same = self._plan.target == to._plan.target and to._plan.own_stream is None
        if not same or not isinstance(pool, Pool) or pool.closed:
            return None
        self._streams = None
        pool.on_end = to.ended
        return pool

    def ended(self, _exchange: Exchange, tape: Tape) -> None:
        """An exchange is over."""
        if self._phase is not None:
            self._phase.ended(tape)

    async def run(self, *, warmup: bool, start_ns: int | None = None) -> Watch:
        """One phase, from `start_ns` of the monotonic clock on; None: now."""
        assert self._streams is not None
        await asyncio.sleep(0.001)
        if not warmup:
            # Connections that the server closed meanwhile are noticed by now: replace them before the clock.
            await self._streams.open(self._plan.spare)
        odometer = None if warmup else self._odometer
        self._phase = Phase(self._plan, self._feed, odometer, self._streams, warmup=warmup)
        self._measured = None if warmup else self._phase
        watch = await self._phase.run(monotonic_ns() if start_ns is None else start_ns)
        await self._feed.end_phase()
        watch.anchor_wall_ns, watch.anchor_monotonic_ns = time.time_ns(), monotonic_ns()
        self._phase = None
        return watch

    async def load_shots(self) -> int:
        """Take the shots that the companion gives before a phase; how many are ready.

        The collector then looks at them for the last time: it takes longest here, where no clock runs yet.
        """
        ready = await self._feed.loaded()
        gc.collect()
        gc.freeze()
        return ready

    def left(self, received: int) -> Left:
        """What can be had when the companion has died; the driver has `received` of its batches. Its folder goes."""
        batches = journal.left(self._directory / journal.NAME, received)
        shutil.rmtree(self._directory, ignore_errors=True)
        return Left(batches, self._measured.launched() if self._measured is not None else [])

    async def close(self) -> None:
        """Hang up everything that was not handed on."""
        self._feed.close()
        if self._streams is not None:
            await self._streams.close()
