"""Warm-up or measurement: from the first intended time until nothing is in flight any more."""

from __future__ import annotations

import asyncio
from array import array
from collections import deque
from time import monotonic_ns
from typing import Protocol

from llmexp.worker.arrivals import Arrivals, Scheduled, Slots
from llmexp.worker.feed import Feed
from llmexp.worker.line import Odometer, Shot
from llmexp.worker.outbox import Outbox
from llmexp.worker.plan import NS, Plan, Watch
from llmexp.worker.pool import Exchange, Tape
from llmexp.worker.watching import SelfWatch

WARM_STREAMS = 4
"""At most so many warm-up requests at a time, where the load has no ceiling."""


class Streams(Protocol):
    """What a phase needs of the thing that carries exchanges (`pool.Pool`, or LiteLLM's own streams)."""

    @property
    def in_flight(self) -> int:
        """Exchanges submitted and not ended."""
        ...

    async def open(self, count: int) -> None:
        """Have so many connections open."""
        ...

    def submit(self, exchange: Exchange) -> None:
        """Send it now."""
        ...

    def cut_all(self) -> None:
        """End all of them."""
        ...

    async def close(self) -> None:
        """Close every connection."""
        ...


class Phase:
    """Sends what is due as far as shots and the ceiling allow, and hands the tapes back."""

    def __init__(self, plan: Plan, feed: Feed, odometer: Odometer | None, streams: Streams, *, warmup: bool) -> None:
        """`odometer` counts what is launched; None: nobody counts (the warm-up)."""
        self._plan = plan
        self._feed = feed
        self._odometer = odometer
        self._streams = streams
        self._warmup = warmup
        self._loop = asyncio.get_running_loop()
        self._watch = Watch()
        self._most = None if warmup else plan.max_requests
        self._limit = max(1, plan.streams or WARM_STREAMS) if warmup else plan.streams
        self._scheduled = plan.offsets is not None and not warmup
        self._arrivals = self._arrive()
        self._taken = 0
        """Streams taken: by a request, or by a session from its first turn to the end of its last."""
        self._staying: set[int] = set()
        """Indexes on the wire or held whose end does not free their stream."""
        self._waiting: deque[tuple[int, int]] = deque()
        """(intended, dispatched) of sends that wait for a shot or for the ceiling."""
        self._held: dict[int, asyncio.TimerHandle] = {}
        """Shots that wait for their `not_before`, by index."""
        self._launched = array("q")
        self._taken_back: set[int] = set()
        self._done = self._loop.create_future()
        self._outbox = Outbox(feed.send)
        self._stopped = False

    def _arrive(self) -> Arrivals:
        plan = self._plan
        if self._scheduled and plan.offsets is not None:
            return Scheduled(plan.offsets, plan.timeout_s, self._slot, self._check_done)
        return Slots(self._limit or 0, () if self._warmup else plan.limits[1:], self._slot, self._set_limit)

    async def run(self, start_ns: int) -> Watch:
        """The whole phase; returns when the last exchange has ended or been cut."""
        self._watch.started_ns = start_ns
        self._feed.listener = self
        delay_s = max(0.0, (start_ns - monotonic_ns()) / NS)
        end_s = delay_s + self._plan.timeout_s
        timers = [
            self._loop.call_later(end_s, lambda: self.stop(cut=False)),
            self._loop.call_later(end_s + self._plan.grace_s, lambda: self.stop(cut=True)),
        ]
        watching = SelfWatch(self._watch, lambda: self._feed.resign(monotonic_ns()))
        watching.start()
        try:
            if self._feed.lost or self._feed.stopped is not None:
                self.stop(cut=True)
            self._arrivals.start(start_ns)
            await self._done
        finally:
            watching.stop()
            self._arrivals.stop()
            for timer in timers:
                timer.cancel()
            self._feed.listener = None
        self._outbox.empty()
        self._watch.stopped = self._stopped
        self._watch.not_sent = len(self._waiting) if self._scheduled else 0
        return self._watch

    # -- what is due --------------------------------------------------------------------------------------------------

    def _slot(self, intended_ns: int) -> None:
        """A send is due: launch it, or let it wait for the ceiling or for a shot."""
        if self._stopped or self._exhausted():
            self._check_done()
            return
        self._waiting.append((intended_ns, monotonic_ns()))
        self._drain(starved=False)

    def _set_limit(self, limit: int) -> None:
        self._limit = limit

    def _drain(self, *, starved: bool) -> None:
        """Launch what waits, as far as shots and the ceiling allow.

        Waiting for the ceiling is `wait_s`; waiting for a shot is the client's own lateness, so it delays `dispatched`.
        """
        while self._waiting and not self._stopped and not self._full():
            if self._exhausted():
                self._waiting.clear()
                break
            shot = self._next_shot()
            if shot is None:
                break
            intended_ns, dispatched_ns = self._waiting.popleft()
            self._taken += 1
            self._launch(shot, intended_ns, monotonic_ns() if starved else dispatched_ns)

    def _full(self) -> bool:
        return self._limit is not None and self._taken >= self._limit

    def _exhausted(self) -> bool:
        if self._most is not None and self._watch.launched >= self._most:
            return True
        return self._feed.last and not self._feed.ready and not self._feed.turns

    def _next_shot(self) -> Shot | None:
        feed = self._feed
        if not feed.ready:
            self._outbox.empty()  # what is to be sent may wait for one of these answers
            feed.need(self._plan.ahead)
            return None
        shot = feed.ready.popleft()
        feed.need(self._plan.ahead)
        return shot

    def _launch(self, shot: Shot, intended_ns: int, dispatched_ns: int) -> None:
        """Send a shot, or hold it until it may be sent."""
        self._watch.launched += 1
        self._launched.append(shot.index)
        if self._odometer is not None:
            self._odometer.step()
        if not shot.closes:
            self._staying.add(shot.index)
        if shot.not_before_ns > monotonic_ns():
            self._hold(shot)
        else:
            self._submit(shot, max(intended_ns, shot.not_before_ns), dispatched_ns)

    def _hold(self, shot: Shot) -> None:
        """Wait until it may be sent; the loop counts in whole milliseconds and may come back one too early."""
        wait_s = max(0.001, (shot.not_before_ns - monotonic_ns()) / NS)
        self._held[shot.index] = self._loop.call_later(wait_s, self._release, shot)

    def _release(self, shot: Shot) -> None:
        if shot.not_before_ns > monotonic_ns():
            self._hold(shot)
            return
        del self._held[shot.index]
        self._submit(shot, shot.not_before_ns, monotonic_ns())

    def _submit(self, shot: Shot, intended_ns: int, dispatched_ns: int) -> None:
        exchange = Exchange(shot.index, shot.data, intended_ns, dispatched_ns, warmup=self._warmup)
        exchange.wait_ns = max(0, monotonic_ns() - dispatched_ns)
        self._streams.submit(exchange)

    # -- what has happened --------------------------------------------------------------------------------------------

    def ended(self, tape: Tape) -> None:
        """An exchange is over. Its stream is used again before its tape is handed over."""
        self._outbox.put(tape, self._streams.in_flight)
        if tape.index in self._staying:
            self._staying.discard(tape.index)
            self._outbox.empty()  # the turn that follows waits for this answer
        else:
            self._freed(tape.end_ns or monotonic_ns())
        if not self._streams.in_flight:
            self._check_done()

    def _freed(self, at_ns: int) -> None:
        """A stream is free: what waits for the ceiling takes it, or in a closed loop the next request does."""
        self._taken -= 1
        if self._scheduled:
            self._drain(starved=False)
        elif not self._full():
            self._slot(at_ns)

    def fed(self) -> None:
        """Shots came: later turns go out at once, others as far as something waits for them."""
        turns = self._feed.turns
        while turns and not self._stopped:
            shot = turns.popleft()
            self._launch(shot, shot.not_before_ns, monotonic_ns())
        self._drain(starved=True)
        self._check_done()

    def sessions_ended(self, count: int) -> None:
        """Sessions ended before their last turn."""
        for _ in range(count):
            self._freed(monotonic_ns())
        self._check_done()

    def launched(self) -> list[int]:
        """Indexes of what was sent."""
        return [index for index in self._launched if index not in self._taken_back]

    # -- the end ------------------------------------------------------------------------------------------------------

    def stop(self, *, cut: bool) -> None:
        """Start nothing new; with `cut`, end what is in flight."""
        self._stopped = True
        for timer in self._held.values():
            timer.cancel()
        self._watch.launched -= len(self._held)
        self._taken_back.update(self._held)
        if self._odometer is not None:
            self._odometer.step(-len(self._held))
        self._held.clear()
        if cut:
            self._streams.cut_all()
        self._check_done()

    def _check_done(self) -> None:
        if self._done.done() or self._streams.in_flight or self._held:
            return
        finished = self._stopped or self._exhausted()
        if self._scheduled and not self._arrivals.coming and not self._waiting and not self._taken:
            finished = True
        if finished:
            self._done.set_result(None)
