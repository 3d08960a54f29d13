"""The worker's end of the line to its companion: shots that are ready, tapes that go back."""

from __future__ import annotations

import asyncio
from collections import deque
from typing import Protocol

from llmexp.worker.line import Loaded, Need, Over, Ready, Resign, SessionsEnded, Shot, Stop, Unpacker, pack, unpack
from llmexp.worker.plan import NS

RESIGN_AHEAD_NS = 15 * NS
"""A signature that expires within this time is renewed."""


class Listener(Protocol):
    """Who must know what comes over the line: the phase under way."""

    def fed(self) -> None:
        """Shots came."""
        ...

    def sessions_ended(self, count: int) -> None:
        """Streams are free again."""
        ...

    def stop(self, *, cut: bool) -> None:
        """Start nothing new."""
        ...


class Feed(asyncio.Protocol):
    """Queues of shots that may open a stream and of later turns, which hold one already."""

    def __init__(self) -> None:
        self.ready: deque[Shot] = deque()
        self.turns: deque[Shot] = deque()
        self.last = False
        """No more shots will come."""
        self.listener: Listener | None = None
        self.lost = False
        """The companion is gone."""
        self.stopped: Stop | None = None
        """The driver wants no more of this job; it may say so between two phases."""
        self._loaded = asyncio.Event()
        self._over = asyncio.Event()
        self._asked = 0
        self._unpacker = Unpacker()
        self._transport: asyncio.Transport | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = transport  # type: ignore[assignment]

    def data_received(self, data: bytes) -> None:
        for _, body in self._unpacker.feed(data):
            self._take(unpack(body))

    def _take(self, message: object) -> None:
        if isinstance(message, Ready):
            self._queue(message)
        elif isinstance(message, Loaded):
            self._loaded.set()
        elif isinstance(message, Over):
            self._over.set()
        elif isinstance(message, Stop):
            self._stop(message)
        elif isinstance(message, SessionsEnded) and self.listener is not None:
            self.listener.sessions_ended(message.count)

    def _stop(self, message: Stop) -> None:
        self.stopped = message
        if self.listener is not None:
            self.listener.stop(cut=message.cut)

    def _queue(self, message: Ready) -> None:
        for shot in message.shots:
            if shot.opens:
                self._asked = max(0, self._asked - 1)
                self.ready.append(shot)
            else:
                self.turns.append(shot)
        self.last = message.last
        if self.listener is not None:
            self.listener.fed()

    def connection_lost(self, exc: Exception | None) -> None:
        self.lost = True
        self._loaded.set()
        self._over.set()
        if self.listener is not None:
            self.listener.stop(cut=True)

    def send(self, message: object) -> None:
        """Hand a message to the companion; nothing where it is gone."""
        if self._transport is not None and not self.lost:
            self._transport.write(pack(message))

    async def loaded(self) -> int:
        """Wait for all shots that the companion gives before a phase; how many are ready."""
        await self._loaded.wait()
        self._loaded.clear()
        return len(self.ready)

    async def end_phase(self) -> None:
        """Wait until the companion has all that was sent and sends nothing more: once the loop stops, nobody reads."""
        self._over.clear()
        if self.lost:
            return
        self.send(Over())
        await self._over.wait()

    def need(self, ahead: int) -> None:
        """Ask for shots when fewer than half of `ahead` are ready or on their way."""
        have = len(self.ready) + self._asked
        if not self.last and have * 2 < ahead:
            self._asked += ahead - have
            self.send(Need(ahead - have))

    def resign(self, now_ns: int) -> None:
        """Send back shots whose signature is about to expire."""
        stale = {shot.index for shot in self.ready if shot.expires_ns and shot.expires_ns < now_ns + RESIGN_AHEAD_NS}
        if stale:
            self.ready = deque(shot for shot in self.ready if shot.index not in stale)
            self._asked += len(stale)
            self.last = False  # they come again
            self.send(Resign(sorted(stale)))

    def close(self) -> None:
        """Hang up."""
        if self._transport is not None:
            self._transport.close()
