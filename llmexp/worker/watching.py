"""The worker watches itself during a phase: lag of its event loop, CPU, pauses of the garbage collector."""

from __future__ import annotations

import asyncio
import gc
import time
from collections.abc import Callable, Mapping
from time import monotonic_ns

from llmexp.worker.plan import Watch

PROBE_S = 0.025
"""Period of the event-loop probe."""
PROBES_PER_ROUND = 200
"""How many probes stand between two calls of `every_round`: five seconds."""


class SelfWatch:
    """Fills in a `Watch` from `start` to `stop`."""

    def __init__(self, watch: Watch, every_round: Callable[[], None]) -> None:
        self._watch = watch
        self._every_round = every_round
        self._cpu_s = 0.0
        self._collecting_since = 0.0
        self._probe: asyncio.Task[None] | None = None

    def start(self) -> None:
        """From now on."""
        gc.callbacks.append(self._collected)
        self._cpu_s = time.process_time()
        self._probe = asyncio.get_running_loop().create_task(self._probing())

    def stop(self) -> None:
        """Until now."""
        self._watch.cpu_s = time.process_time() - self._cpu_s
        self._watch.ended_ns = monotonic_ns()
        if self._probe is not None:
            self._probe.cancel()
        gc.callbacks.remove(self._collected)

    async def _probing(self) -> None:
        """How much later than asked for the loop comes back."""
        lags, probes = self._watch.loop_lag_s, 0
        expected = time.monotonic() + PROBE_S
        while True:
            await asyncio.sleep(PROBE_S)
            now = time.monotonic()
            lags.append(max(0.0, now - expected))
            expected = now + PROBE_S
            probes += 1
            if probes % PROBES_PER_ROUND == 0:
                self._every_round()

    def _collected(self, phase: str, _info: Mapping[str, int]) -> None:
        if phase == "start":
            self._collecting_since = time.perf_counter()
        else:
            self._watch.gc_pauses_s.append(time.perf_counter() - self._collecting_since)
