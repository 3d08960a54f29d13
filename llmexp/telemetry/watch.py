"""Reads a source over and over while a load runs."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Mapping
from types import TracebackType

from llmexp.telemetry.reading import Reading, Source, SourceError

SETTLE_S = 2.5
"""How long to wait before the load, and after it, for counters to move once: the window lies between two steps then."""
SETTLE_READINGS = 3
log = logging.getLogger("llmexp")


class PowerWatch:
    """A context: readings of one source on this process's monotonic clock. It never raises for what a source does."""

    def __init__(self, source: Source | None, problem: str | None = None) -> None:
        self.source = source
        self.samples: list[tuple[int, Mapping[str, Reading]]] = []
        """(monotonic ns, device → reading)"""
        self.problem = problem
        """Why there is nothing, where something was asked for."""
        self.missed = 0
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._follow, name="power", daemon=True)

    def __enter__(self) -> PowerWatch:
        if self.source is not None:
            readable = self._read()
            self._thread.start()
            if readable:
                self._settle(1)
        if self.problem is not None:
            log.warning("no energy: %s", self.problem)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self.source is None:
            return
        if kind is None and self.samples:
            self._settle(SETTLE_READINGS)
        self._stop.set()
        self._thread.join(5.0)
        if not self._thread.is_alive():
            self.source.close()

    def _follow(self) -> None:
        assert self.source is not None
        due = time.monotonic()
        while True:
            due = max(due + self.source.interval_s, time.monotonic())
            if self._stop.wait(due - time.monotonic()):
                return
            self.missed += not self._read()

    def _read(self) -> bool:
        assert self.source is not None
        before = time.monotonic_ns()
        try:
            found = self.source.read()
        except SourceError as error:
            self.problem = str(error)
            return False
        self.samples.append(((before + time.monotonic_ns()) // 2, found))
        return True

    def _settle(self, readings: int) -> None:
        """Until every energy counter has moved after now, and so many readings have come."""
        begun, had = time.monotonic(), len(self.samples)
        first = {name: one.energy_j for name, one in self.samples[-1][1].items()}
        while time.monotonic() - begun < SETTLE_S:
            time.sleep(0.02)
            now = self.samples[-1][1]
            moved = all(now[name].energy_j != energy for name, energy in first.items() if name in now and energy)
            if moved and len(self.samples) >= had + readings:
                return
