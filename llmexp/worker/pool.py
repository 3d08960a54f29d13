"""Sockets and stamps: bytes go out, arriving bytes are stamped and kept. Nothing is understood here.

An `Exchange` is one request on its way; when its response has ended on the wire (or cannot), it becomes a `Tape`. The
only parsing is httptools' search for the end of the response, 0.2 µs a read. One event loop runs one `Pool`; all calls
come from that loop.
"""

from __future__ import annotations

import asyncio
from array import array
from collections.abc import Callable
from dataclasses import dataclass
from time import monotonic_ns

import httptools

from llmexp.clients.base import Failure
from llmexp.clients.http import response_parser
from llmexp.worker.dial import Dialer, Dialled
from llmexp.worker.plan import NS
from llmexp.workload.request import Request


@dataclass(slots=True)
class Tape:
    """What one exchange left on the wire; times in ns of the worker's monotonic clock."""

    index: int
    warmup: bool
    intended_ns: int
    dispatched_ns: int
    sent_ns: int | None
    wait_s: float
    connect_s: float
    stamps: array[int]
    """Arrival of each read."""
    pieces: list[bytes]
    """The bytes of each read, HTTP framing included."""
    end_ns: int | None
    eof: bool
    """The peer closed the connection."""
    failure: Failure | None
    """What the transport met: connect, tls, timeout, cut or client."""
    unfinished: bool
    """Our own time limit cut it."""
    stale_connections: int


class Exchange:
    """One request between its intended time and the end of its response."""

    __slots__ = (
        "connect_ns",
        "data",
        "dispatched_ns",
        "index",
        "intended_ns",
        "pieces",
        "sent_ns",
        "stale",
        "stamps",
        "wait_ns",
        "warmup",
    )

    def __init__(
        self, index: int, data: bytes | Request, intended_ns: int, dispatched_ns: int, *, warmup: bool = False
    ) -> None:
        self.index = index
        self.data = data
        self.intended_ns = intended_ns
        self.dispatched_ns = dispatched_ns
        self.warmup = warmup
        self.sent_ns: int | None = None
        self.wait_ns = 0
        self.connect_ns = 0
        self.stamps: array[int] = array("q")
        self.pieces: list[bytes] = []
        self.stale = 0

    def tape(
        self, end_ns: int | None, *, eof: bool = False, failure: Failure | None = None, unfinished: bool = False
    ) -> Tape:
        """The tape of this exchange as it stands."""
        return Tape(
            self.index,
            self.warmup,
            self.intended_ns,
            self.dispatched_ns,
            self.sent_ns,
            self.wait_ns / NS,
            self.connect_ns / NS,
            self.stamps,
            self.pieces,
            end_ns,
            eof,
            failure,
            unfinished,
            self.stale,
        )


class Connection(Dialled):
    """One HTTP/1.1 connection: at most one exchange at a time."""

    __slots__ = ("_ended", "_keep", "alive", "exchange", "parser", "pool", "transport")

    def __init__(self, pool: Pool) -> None:
        self.pool = pool
        self.transport: asyncio.Transport | None = None
        self.exchange: Exchange | None = None
        self.alive = False
        self.parser: httptools.HttpResponseParser | None = None
        self._ended = False
        self._keep = False

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = transport  # type: ignore[assignment]
        self.alive = True

    def send(self, exchange: Exchange) -> None:
        """Put the request on this open connection and stamp it just before."""
        self.exchange = exchange
        self.parser = response_parser(self)
        self._ended = False
        data = exchange.data
        assert isinstance(data, bytes)
        exchange.sent_ns = monotonic_ns()
        self.transport.write(data)  # type: ignore[union-attr]

    def data_received(self, data: bytes) -> None:
        now = monotonic_ns()
        exchange = self.exchange
        if exchange is None:
            # Bytes that nobody asked for (a 408 on an idle connection, say): never use it again.
            self.abort()
            return
        exchange.stamps.append(now)
        exchange.pieces.append(data)
        try:
            self.parser.feed_data(data)  # type: ignore[union-attr]
        except (httptools.HttpParserError, httptools.HttpParserUpgrade):
            self.exchange = None
            self.abort()
            self.pool.ended(exchange, exchange.tape(now))
            return
        if self._ended:
            self.exchange = None
            if self._keep:
                self.pool.release(self)
            else:
                self.close()
            self.pool.ended(exchange, exchange.tape(now))

    def on_message_complete(self) -> None:
        """httptools: the response has ended; interim 1xx responses do not count."""
        parser = self.parser
        if parser is not None and parser.get_status_code() >= 200:
            self._ended = True
            self._keep = parser.should_keep_alive()

    def eof_received(self) -> bool:
        return False

    def connection_lost(self, exc: Exception | None) -> None:
        now = monotonic_ns()
        self.alive = False
        self.pool.forget(self)
        exchange, self.exchange = self.exchange, None
        if exchange is not None:
            self.pool.lost(exchange, now, exc)

    def close(self) -> None:
        """Close in order; the exchange, if any, has been taken off."""
        self.alive = False
        self.pool.forget(self)
        if self.transport is not None:
            self.transport.close()

    def abort(self) -> None:
        """Drop the connection at once."""
        self.alive = False
        self.pool.forget(self)
        if self.transport is not None:
            self.transport.abort()


class Pool:
    """The connections of one worker and the exchanges on them.

    `on_end(exchange, tape)` is called once for every exchange that `submit` took, whatever happens to it.
    """

    def __init__(self, dialer: Dialer, on_end: Callable[[Exchange, Tape], None], *, spare: int = 0) -> None:
        self._dialer = dialer
        self.on_end = on_end
        self._loop = asyncio.get_running_loop()
        self._idle: list[Connection] = []
        self._busy: dict[Exchange, Connection | None] = {}
        self._dials: dict[Exchange, asyncio.Task[None]] = {}
        self._opening: set[asyncio.Task[None]] = set()
        self.spare = spare
        """Idle connections to keep open ahead of need."""
        self.closed = False

    @property
    def in_flight(self) -> int:
        """Exchanges submitted and not ended."""
        return len(self._busy)

    async def open(self, count: int) -> None:
        """Open connections until `count` are idle; failures are left for the requests to meet."""
        missing = count - len(self._idle)
        for start in range(0, missing, 64):
            batch = [self._open_one() for _ in range(min(64, missing - start))]
            results = await asyncio.gather(*batch)
            if not any(results):
                return

    async def _open_one(self) -> bool:
        connection = Connection(self)
        failure = await self._dialer.connect(connection)
        if failure is None and connection.alive:
            self._idle.append(connection)
        return failure is None

    def submit(self, exchange: Exchange) -> None:
        """Send now on an open connection, or connect first."""
        self._busy[exchange] = None
        idle = self._idle
        while idle:
            connection = idle.pop()
            if connection.alive and not connection.transport.is_closing():  # type: ignore[union-attr]
                self._busy[exchange] = connection
                connection.send(exchange)
                if self.spare and len(idle) < self.spare:
                    self._top_up()
                return
        self._dial(exchange)

    def _top_up(self) -> None:
        if len(self._opening) + len(self._idle) < self.spare and not self.closed:
            task = self._loop.create_task(self._open_spare())
            self._opening.add(task)
            task.add_done_callback(self._opening.discard)

    async def _open_spare(self) -> None:
        await self._open_one()

    def _dial(self, exchange: Exchange) -> None:
        task = self._loop.create_task(self._dial_and_send(exchange))
        self._dials[exchange] = task

    async def _dial_and_send(self, exchange: Exchange) -> None:
        began = monotonic_ns()
        connection = Connection(self)
        failure = await self._dialer.connect(connection)
        now = monotonic_ns()
        exchange.connect_ns += now - began
        self._dials.pop(exchange, None)
        if exchange not in self._busy:
            connection.abort()
        elif failure is not None:
            self.ended(exchange, exchange.tape(now, failure=failure))
        elif not connection.alive:
            self.ended(exchange, exchange.tape(now, failure=Failure.of("cut", None, "closed right after connecting")))
        else:
            self._busy[exchange] = connection
            connection.send(exchange)

    def release(self, connection: Connection) -> None:
        """The connection is free for the next exchange."""
        self._idle.append(connection)

    def forget(self, connection: Connection) -> None:
        """The connection is of no further use."""
        if connection in self._idle:
            self._idle.remove(connection)

    def ended(self, exchange: Exchange, tape: Tape) -> None:
        """The exchange is over."""
        del self._busy[exchange]
        self.on_end(exchange, tape)

    def lost(self, exchange: Exchange, now: int, exc: Exception | None) -> None:
        """The connection died under the exchange.

        The one second write there is: a connection opened before this request that dies before a single response byte
        was closed while idle; the request goes once to a fresh one, stamped anew.
        """
        if not exchange.pieces and exchange.connect_ns == 0 and exchange.stale == 0:
            exchange.stale = 1
            exchange.sent_ns = None
            self._busy[exchange] = None
            self._dial(exchange)
            return
        failure = None
        if exc is not None or not exchange.pieces:
            failure = Failure.of("cut", getattr(exc, "errno", None), str(exc or "closed before a response"))
        self.ended(exchange, exchange.tape(now, eof=True, failure=failure))

    def cut_all(self) -> None:
        """Our time is up: end every exchange as unfinished."""
        now = monotonic_ns()
        for exchange, connection in list(self._busy.items()):
            task = self._dials.pop(exchange, None)
            if task is not None:
                task.cancel()
            if connection is not None:
                connection.exchange = None
                connection.abort()
            self.ended(exchange, exchange.tape(now, unfinished=True))

    async def close(self) -> None:
        """Close every connection."""
        self.closed = True
        for connection in list(self._idle):
            connection.close()
        for task in [*self._opening, *self._dials.values()]:
            task.cancel()
        await asyncio.sleep(0)
