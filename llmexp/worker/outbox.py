"""Tapes on their way to the companion: handed over a few at a time, after the sends that their ends make room for."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable

from llmexp.worker.pool import Tape

FEW_STREAMS = 32
TAPES_PER_TURN = 2
TAPES_SHARE = 256
"""One in so many of the waiting tapes goes in a turn of the loop, where that is more."""
WAIT_S = 0.03
"""Streams that start together end together. Where many are in flight their tapes wait so long, so that the new requests
go out first. Where few are, a tape goes at once: what a worker still holds when it dies is lost.
"""


class Outbox:
    """Hands tapes to `send`, without holding up the loop when many streams end together."""

    def __init__(self, send: Callable[[Tape], None]) -> None:
        self._send = send
        self._loop = asyncio.get_running_loop()
        self._tapes: deque[Tape] = deque()
        self._timer: asyncio.TimerHandle | None = None

    def put(self, tape: Tape, in_flight: int) -> None:
        """Take a tape while `in_flight` others are still on the wire."""
        self._tapes.append(tape)
        if self._timer is None:
            self._timer = self._loop.call_later(WAIT_S if in_flight > FEW_STREAMS else 0, self._some)

    def _some(self) -> None:
        for _ in range(min(max(TAPES_PER_TURN, len(self._tapes) // TAPES_SHARE), len(self._tapes))):
            self._send(self._tapes.popleft())
        self._timer = self._loop.call_later(0.001, self._some) if self._tapes else None

    def empty(self) -> None:
        """Hand over all of them now: somebody waits for an answer, or the phase is over."""
        while self._tapes:
            self._send(self._tapes.popleft())
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
