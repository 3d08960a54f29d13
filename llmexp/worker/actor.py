"""One worker: an event loop that sends prepared bytes at the right time and stamps what comes back.

Nothing else happens here while a load runs. Requests come ready from the companion, tapes go back to it. The worker
watches itself too: event-loop lag, CPU, garbage collection.
"""

from __future__ import annotations

import asyncio
import gc
import pickle
import time
from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from time import monotonic_ns
from typing import Any, Protocol

from llmexp.clients.base import Target
from llmexp.worker.line import Loaded, Need, Odometer, Over, Ready, Resign, Shot, Stop, Unpacker, pack
from llmexp.worker.pool import NS, Exchange, Tape
from llmexp.worker.timer import Alarm

PROBE_S = 0.025
"""Period of the event-loop probe."""
FEW_STREAMS = 32
SLICE = 32
"""Requests started in one turn of the loop, so that a large start does not deafen it."""
STAGGER_NS = 100_000
"""Closed loops start their streams this far apart: starting a thousand at once would measure the client's own burst."""
TAPES_PER_FLUSH = 2
TAPES_SHARE = 256
"""One in so many of the waiting tapes goes in a turn, where that is more."""
FLUSH_AFTER_S = 0.03
"""A tape waits so long where many streams may end together, since they start together too: their next sends come first.
Where few do, it goes at once: what a worker still holds when it dies is lost.
"""
RESIGN_AHEAD_NS = 15 * NS


@dataclass(frozen=True)
class Plan:
    """One worker's part of a job."""

    worker: int
    workers: int
    target: Target
    streams: int | None
    """In flight at most; None: no ceiling."""
    offsets: Iterator[float] | None
    """Intended send times in s from the start (open loop); None: closed loop."""
    limits: tuple[tuple[float, int], ...] = ()
    """(s from the start, in flight allowed), for ramps of concurrency."""
    max_requests: int | None = None
    timeout_s: float = 300.0
    grace_s: float = 30.0
    spare: int = 0
    """Connections opened before the clock."""
    ahead: int = 64
    """Shots to keep ready."""
    own_stream: Any = None
    """Set where LiteLLM must time its own stream: the pickled config it needs."""


@dataclass
class Watch:
    """What the worker saw of itself during a phase."""

    started_ns: int = 0
    ended_ns: int = 0
    launched: int = 0
    not_sent: int = 0
    """Arrivals of an open loop that the ceiling or the end kept from being sent."""
    loop_lag_s: list[float] = field(default_factory=list)
    cpu_s: float = 0.0
    gc_pauses_s: list[float] = field(default_factory=list)
    anchor_wall_ns: int = 0
    anchor_monotonic_ns: int = 0
    stopped: bool = False


class Streams(Protocol):
    """What a phase needs of the thing that carries exchanges (`wire.Pool`, or LiteLLM's own streams)."""

    @property
    def in_flight(self) -> int: ...
    async def open(self, count: int) -> None: ...
    def submit(self, exchange: Exchange) -> None: ...
    def cut_all(self) -> None: ...
    async def close(self) -> None: ...


class Line(asyncio.Protocol):
    """The worker's end of the feed."""

    def __init__(self) -> None:
        self.ready: deque[Shot] = deque()
        self.last = False
        self.loaded = False
        self.over = False
        self.lost = False
        self.phase: Phase | None = None
        self._asked = 0
        self._unpacker = Unpacker()
        self._transport: asyncio.Transport | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = transport  # type: ignore[assignment]

    def data_received(self, data: bytes) -> None:
        for _, body in self._unpacker.feed(data):
            self._take(pickle.loads(body))  # noqa: S301 -- our own companion, over a private socket

    def _take(self, message: object) -> None:
        if isinstance(message, Ready):
            self._asked = max(0, self._asked - len(message.shots))
            self.ready.extend(message.shots)
            self.last = message.last
            if self.phase is not None:
                self.phase.fed()
        elif isinstance(message, Loaded):
            self.loaded = True
        elif isinstance(message, Over):
            self.over = True
        elif isinstance(message, Stop) and self.phase is not None:
            self.phase.stop(cut=message.cut)

    def connection_lost(self, exc: Exception | None) -> None:
        self.lost = True
        if self.phase is not None:
            self.phase.stop(cut=True)

    def send(self, message: object) -> None:
        if self._transport is not None and not self.lost:
            self._transport.write(pack(message))

    async def end_phase(self) -> None:
        """Wait until the companion has all that was sent and sends nothing more: once the loop stops, nobody reads."""
        self.over = False
        self.send(Over())
        while not self.over and not self.lost:
            await asyncio.sleep(0.001)

    def need(self, ahead: int) -> None:
        """Ask for shots when fewer than half of `ahead` are ready or on their way."""
        have = len(self.ready) + self._asked
        if not self.last and have * 2 < ahead:
            self._asked += ahead - have
            self.send(Need(ahead - have))

    def resign(self, now_ns: int) -> None:
        """Send back shots whose signature is about to expire."""
        stale = [shot.index for shot in self.ready if shot.expires_ns and shot.expires_ns < now_ns + RESIGN_AHEAD_NS]
        if stale:
            old = set(stale)
            self.ready = deque(shot for shot in self.ready if shot.index not in old)
            self._asked += len(stale)
            self.send(Resign(stale))


class Phase:
    """Warm-up or measurement: from the first intended time until nothing is in flight any more."""

    def __init__(self, plan: Plan, line: Line, odometer: Odometer | None, *, warmup: bool) -> None:
        self._plan = plan
        self._line = line
        self._odometer = odometer
        self._warmup = warmup
        self._loop = asyncio.get_running_loop()
        self._streams: Streams | None = None
        self._watch = Watch()
        self._limit = plan.streams
        self._offsets: Iterator[float] | None = None
        self._next_ns: int | None = None
        self._alarm: Alarm | None = None
        self._waiting: deque[tuple[int, int]] = deque()
        """(intended, dispatched) of sends that wait for a shot or for the ceiling."""
        self._held: dict[int, asyncio.TimerHandle] = {}
        """Shots that wait for their `not_before`, by index."""
        self._done = self._loop.create_future()
        self._tapes: deque[Tape] = deque()
        self._flushing = False
        self._stopped = False
        self._over = False

    async def run(self, streams: Streams, start_ns: int) -> Watch:
        """The whole phase; returns when the last exchange has ended or been cut."""
        self._streams = streams
        self._watch.started_ns = start_ns
        self._line.phase = self
        timers = self._arm(start_ns)
        collect = self._watch_gc()
        cpu = time.process_time()
        probe = self._loop.create_task(self._probe())
        try:
            await self._done
        finally:
            self._over = True
            self._watch.cpu_s = time.process_time() - cpu
            self._watch.ended_ns = monotonic_ns()
            probe.cancel()
            if self._alarm is not None:
                self._alarm.close()
            gc.callbacks.remove(collect)
            for timer in timers:
                timer.cancel()
            self._line.phase = None
        self._flush_all()
        self._watch.stopped = self._stopped
        self._watch.not_sent = len(self._waiting) if self._offsets is not None else 0
        return self._watch

    # -- when ---------------------------------------------------------------------------------------------------------

    def _arm(self, start_ns: int) -> list[asyncio.TimerHandle]:
        now = monotonic_ns()
        delay = max(0.0, (start_ns - now) / NS)
        plan = self._plan
        end = delay + plan.timeout_s
        timers = [
            self._loop.call_later(end, self._time_up),
            self._loop.call_later(end + plan.grace_s, self._grace_up),
        ]
        if plan.offsets is not None and not self._warmup:
            self._offsets = plan.offsets
            self._advance()
            self._alarm = Alarm(self._loop, self._tick)
            self._alarm.set(self._next_ns or start_ns)
        else:
            timers.append(self._loop.call_later(delay, self._start_slots, start_ns, 0))
            timers += [self._loop.call_later(delay + at, self._set_limit, limit) for at, limit in plan.limits[1:]]
        return timers

    def _start_slots(self, start_ns: int, done: int) -> None:
        """Closed loop: start the streams, a slice a turn, `STAGGER_NS` apart."""
        limit = self._limit or 4
        now = monotonic_ns()
        upto = done
        while upto < limit and upto < done + SLICE and start_ns + upto * STAGGER_NS <= now:
            self._slot(start_ns + upto * STAGGER_NS)
            upto += 1
        if upto < limit:
            wait_ns = start_ns + upto * STAGGER_NS - monotonic_ns()
            self._loop.call_later(max(0.0, wait_ns / NS), self._start_slots, start_ns, upto)

    def _set_limit(self, limit: int) -> None:
        """A step of a concurrency ramp."""
        grown = limit - (self._limit or 0)
        self._limit = limit
        now = monotonic_ns()
        for _ in range(grown):
            self._slot(now)

    def _advance(self) -> None:
        assert self._offsets is not None
        offset = next(self._offsets, None)
        limit = self._plan.timeout_s
        self._next_ns = None if offset is None or offset >= limit else self._watch.started_ns + int(offset * NS)

    def _tick(self) -> None:
        """Open loop: everything that is due now."""
        assert self._alarm is not None
        now = monotonic_ns()
        while self._next_ns is not None and self._next_ns <= now and not self._stopped:
            self._slot(self._next_ns)
            self._advance()
        if self._next_ns is not None and not self._stopped:
            self._alarm.set(self._next_ns)
        else:
            self._check_done()

    # -- what ---------------------------------------------------------------------------------------------------------

    def _slot(self, intended_ns: int) -> None:
        """A send is due: launch it, or let it wait for the ceiling or for a shot."""
        if self._over or self._stopped or self._exhausted():
            self._check_done()
            return
        self._waiting.append((intended_ns, monotonic_ns()))
        self._drain(starved=False)

    def _drain(self, *, starved: bool) -> None:
        """Launch what waits, as far as shots and the ceiling allow.

        Waiting for the ceiling is `wait_s`; waiting for a shot is the client's own lateness, so it delays `dispatched`.
        """
        while self._waiting and not self._stopped and not self._full():
            if self._exhausted():
                self._waiting.clear()
                break
            intended_ns, dispatched_ns = self._waiting[0]
            if not self._launch(intended_ns, monotonic_ns() if starved else dispatched_ns):
                break
            self._waiting.popleft()

    def _full(self) -> bool:
        return self._limit is not None and self._in_flight() >= self._limit

    def _in_flight(self) -> int:
        assert self._streams is not None
        return self._streams.in_flight + len(self._held)

    def _exhausted(self) -> bool:
        most = self._plan.max_requests
        if not self._warmup and most is not None and self._watch.launched >= most:
            return True
        return self._line.last and not self._line.ready

    def _launch(self, intended_ns: int, dispatched_ns: int) -> bool:
        line = self._line
        if not line.ready:
            self._flush_all()  # the next turn of a conversation may wait for one of these answers
            line.need(self._plan.ahead)
            return False
        shot = line.ready.popleft()
        if not line.last:
            line.need(self._plan.ahead)
        self._watch.launched += 1
        if self._odometer is not None and not self._warmup:
            self._odometer.step()
        wait_ns = shot.not_before_ns - monotonic_ns() if shot.not_before_ns else 0
        if wait_ns > 0:
            self._held[shot.index] = self._loop.call_later(wait_ns / NS, self._release, shot)
        else:
            self._submit(shot, max(intended_ns, shot.not_before_ns), dispatched_ns)
        return True

    def _release(self, shot: Shot) -> None:
        del self._held[shot.index]
        self._submit(shot, shot.not_before_ns, monotonic_ns())

    def _submit(self, shot: Shot, intended_ns: int, dispatched_ns: int) -> None:
        exchange = Exchange(shot.index, shot.data, intended_ns, dispatched_ns, warmup=self._warmup)
        exchange.wait_ns = max(0, monotonic_ns() - dispatched_ns)
        self._streams.submit(exchange)  # type: ignore[union-attr]

    def ended(self, tape: Tape) -> None:
        """An exchange is over: its slot is free now, its tape can wait a moment."""
        self._tapes.append(tape)
        if self._offsets is not None:
            self._drain(starved=False)
        elif not self._full():
            self._slot(tape.end_ns or monotonic_ns())
        if self._tapes and not self._flushing:
            self._flushing = True
            self._loop.call_later(FLUSH_AFTER_S if self._in_flight() > FEW_STREAMS else 0, self._flush)
        if not self._in_flight():
            self._check_done()

    def fed(self) -> None:
        """Shots arrived: launch what waits for them."""
        self._drain(starved=True)
        self._check_done()

    def _flush(self) -> None:
        """Hand a few tapes to the companion; more at the next turn, so that a burst of endings costs no stall."""
        few = max(TAPES_PER_FLUSH, len(self._tapes) // TAPES_SHARE)
        for _ in range(min(few, len(self._tapes))):
            self._line.send(self._tapes.popleft())
        if self._tapes:
            self._loop.call_later(0.001, self._flush)
        else:
            self._flushing = False

    def _flush_all(self) -> None:
        while self._tapes:
            self._line.send(self._tapes.popleft())

    # -- the end ------------------------------------------------------------------------------------------------------

    def stop(self, *, cut: bool) -> None:
        """Start nothing new; with `cut`, end what is in flight."""
        self._stopped = True
        for timer in self._held.values():
            timer.cancel()
        self._watch.launched -= len(self._held)
        self._held.clear()
        if cut and self._streams is not None:
            self._streams.cut_all()
        self._check_done()

    def _time_up(self) -> None:
        self.stop(cut=False)

    def _grace_up(self) -> None:
        self.stop(cut=True)

    def _check_done(self) -> None:
        if self._done.done() or self._streams is None or self._in_flight():
            return
        coming = self._next_ns is not None if self._offsets is not None else False
        if self._stopped or self._exhausted() or (self._offsets is not None and not coming and not self._waiting):
            self._done.set_result(None)

    # -- watching oneself ---------------------------------------------------------------------------------------------

    async def _probe(self) -> None:
        lags, turn = self._watch.loop_lag_s, 0
        expected = time.monotonic() + PROBE_S
        while True:
            await asyncio.sleep(PROBE_S)
            now = time.monotonic()
            lags.append(max(0.0, now - expected))
            expected = now + PROBE_S
            turn += 1
            if turn % 200 == 0:
                self._line.resign(monotonic_ns())

    def _watch_gc(self) -> Any:
        began = 0.0
        pauses = self._watch.gc_pauses_s

        def collect(phase: str, _info: dict[str, int]) -> None:
            nonlocal began
            if phase == "start":
                began = time.perf_counter()
            else:
                pauses.append(time.perf_counter() - began)

        gc.callbacks.append(collect)
        return collect


class _Core:
    """What runs on the worker's event loop. Apart from `Worker`, because Ray makes any class with coroutines an
    asyncio actor and runs it on a loop of its own.
    """

    def __init__(self) -> None:
        self._line = Line()
        self._odometer: Odometer | None = None
        self._streams: Streams | None = None
        self._plan: Plan | None = None
        self._phase: Phase | None = None

    async def connect(self, plan: Plan, directory: Path) -> None:
        self._plan = plan
        loop = asyncio.get_running_loop()
        await loop.create_unix_connection(lambda: self._line, str(directory / "feed.sock"))
        self._odometer = Odometer(directory / "launched")
        self._streams = self._build_streams(plan)
        await self._streams.open(plan.spare)

    def _build_streams(self, plan: Plan) -> Streams:
        if plan.own_stream is not None:
            from llmexp.worker.own_stream import OwnStreams

            return OwnStreams(plan.own_stream, self._ended)
        from llmexp.worker.dial import Dialer
        from llmexp.worker.pool import Pool

        return Pool(Dialer(plan.target), self._ended)

    def _ended(self, exchange: Exchange, tape: Tape) -> None:
        if self._phase is not None:
            self._phase.ended(tape)

    async def run(self, *, warmup: bool, start_ns: int) -> Watch:
        assert self._plan is not None
        assert self._streams is not None
        await asyncio.sleep(0.001)
        if not warmup:
            # Connections that the server closed meanwhile are noticed by now: replace them before the clock.
            await self._streams.open(self._plan.spare)
            gc.collect()
            gc.freeze()
        self._phase = phase = Phase(self._plan, self._line, self._odometer, warmup=warmup)
        watch = await phase.run(self._streams, max(start_ns, monotonic_ns()) if warmup else start_ns)
        await self._line.end_phase()
        watch.anchor_wall_ns, watch.anchor_monotonic_ns = time.time_ns(), monotonic_ns()
        self._phase = None
        return watch

    async def load_shots(self) -> int:
        line = self._line
        while not line.loaded and not line.lost:
            await asyncio.sleep(0.005)
        line.loaded = False
        return len(line.ready)

    async def close(self) -> None:
        if self._streams is not None:
            await self._streams.close()


class Worker:
    """The body of a worker actor. Methods are called one after the other: `connect`, `warm`, `measure`, `close`."""

    def __init__(self) -> None:
        import uvloop

        self._loop: asyncio.AbstractEventLoop = uvloop.new_event_loop()
        self._core = _Core()

    def connect(self, plan: Plan, directory: str) -> None:
        """Join the companion's feed and open the connections."""
        self._loop.run_until_complete(self._core.connect(plan, Path(directory)))

    def warm(self) -> Watch:
        """Send the warm-up requests that are ready, at most `streams` at a time."""
        return self._loop.run_until_complete(self._core.run(warmup=True, start_ns=monotonic_ns()))

    def load_shots(self) -> int:
        """Take the shots that the companion gives before a phase; how many are ready. Runs while it gives them."""
        return self._loop.run_until_complete(self._core.load_shots())

    def measure(self, start_wall_ns: int) -> Watch:
        """Run the load from the given wall-clock time on."""
        start_ns = monotonic_ns() + start_wall_ns - time.time_ns()
        return self._loop.run_until_complete(self._core.run(warmup=False, start_ns=start_ns))

    def close(self) -> None:
        """Close connections and the feed."""
        self._loop.run_until_complete(self._core.close())
