"""When a phase wants to send: at the times of a schedule (open loop), or as soon as a stream is free (closed loop)."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator, Sequence
from time import monotonic_ns
from typing import Protocol

from llmexp.worker.plan import NS
from llmexp.worker.timer import Alarm

SLICE = 32
"""Streams started in one turn of the loop, so that a large start does not deafen it."""
STAGGER_NS = 100_000
"""Closed loops start their streams this far apart: starting a thousand at once would measure the client's own burst."""
HELD_UP_NS = 2_000_000
"""A start that is so late has been held up; the loop's timers alone are a millisecond late."""

Due = Callable[[int], None]
"""Told that a send is due, with the time (ns) at which it was wanted."""


class Arrivals(Protocol):
    """Says when something shall be sent."""

    @property
    def coming(self) -> bool:
        """Whether there are more to come by themselves."""
        ...

    def start(self, start_ns: int) -> None:
        """Begin at this monotonic time."""
        ...

    def stop(self) -> None:
        """Say nothing more."""
        ...


class Scheduled:
    """Open loop: each send at its time, whatever has become of those before. `over` is called after the last."""

    def __init__(self, offsets: Sequence[float], timeout_s: float, due: Due, over: Callable[[], None]) -> None:
        self._offsets: Iterator[float] = iter(offsets)
        self._timeout_s = timeout_s
        self._due = due
        self._over = over
        self._start_ns = 0
        self._next_ns: int | None = None
        self._alarm: Alarm | None = None

    @property
    def coming(self) -> bool:
        """Whether the schedule goes on."""
        return self._next_ns is not None

    def start(self, start_ns: int) -> None:
        """Set the alarm for the first."""
        self._start_ns = start_ns
        self._advance()
        self._alarm = Alarm(asyncio.get_running_loop(), self._ring)
        self._alarm.set(self._next_ns or start_ns)

    def _advance(self) -> None:
        offset = next(self._offsets, None)
        late = offset is None or offset >= self._timeout_s
        self._next_ns = None if late or offset is None else self._start_ns + int(offset * NS)

    def _ring(self) -> None:
        """Everything that is due now."""
        now = monotonic_ns()
        while self._next_ns is not None and self._next_ns <= now:
            wanted_ns = self._next_ns
            self._advance()
            self._due(wanted_ns)
        if self._next_ns is not None and self._alarm is not None:
            self._alarm.set(self._next_ns)
        else:
            self._over()

    def stop(self) -> None:
        """No further alarm."""
        self._next_ns = None
        if self._alarm is not None:
            self._alarm.close()
            self._alarm = None


class Slots:
    """Closed loop: `streams` sends a little apart, and as many more as each step of a ramp adds.

    What follows each of them is the phase's own doing, when a stream becomes free.
    """

    def __init__(
        self, streams: int, steps: Sequence[tuple[float, int]], due: Due, set_limit: Callable[[int], None]
    ) -> None:
        self._streams = streams
        self._steps = steps
        self._due = due
        self._set_limit = set_limit
        self._loop = asyncio.get_running_loop()
        self._timers: list[asyncio.TimerHandle] = []
        self._start_ns = 0

    @property
    def coming(self) -> bool:
        """A closed loop ends when there is nothing more to send, not when its last stream has started."""
        return False

    def start(self, start_ns: int) -> None:
        """Set the timers for the first streams and for the steps."""
        self._start_ns = start_ns
        delay_s = max(0.0, (start_ns - monotonic_ns()) / NS)
        self._timers.append(self._loop.call_later(delay_s, self._begin, 0))
        self._timers += [self._loop.call_later(delay_s + at_s, self._step, limit) for at_s, limit in self._steps]

    def _begin(self, begun: int) -> None:
        now = monotonic_ns()
        upto = begun
        while upto < self._streams and upto < begun + SLICE and (wanted_ns := self._wanted(upto)) <= now:
            self._due(wanted_ns)
            upto += 1
            if now - wanted_ns > HELD_UP_NS:
                # Those behind keep their distance: to catch up would be the burst that must not be measured.
                self._start_ns += now - wanted_ns
        if upto < self._streams:
            wait_s = max(0.0, (self._wanted(upto) - monotonic_ns()) / NS)
            self._timers[0] = self._loop.call_later(wait_s, self._begin, upto)

    def _wanted(self, stream: int) -> int:
        return self._start_ns + stream * STAGGER_NS

    def _step(self, limit: int) -> None:
        grown = limit - self._streams
        self._streams = limit
        self._set_limit(limit)
        now = monotonic_ns()
        for _ in range(grown):
            self._due(now)

    def stop(self) -> None:
        """No stream starts any more."""
        for timer in self._timers:
            timer.cancel()
