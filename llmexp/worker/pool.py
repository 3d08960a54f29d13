"""Sockets and stamps: bytes go out, arriving bytes are stamped and kept. Nothing is understood here.

An `Exchange` is one request on its way; when its response has ended on the wire (or cannot), it becomes a `Tape`. The
only parsing is httptools' search for the end of the response, 0.2 µs a read. One event loop runs one `Pool`; all calls
come from that loop.
"""

from __future__ import annotations

import asyncio
import select
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

RESPONSE_BYTES = 128 * 2**20
"""One response may have so many bytes; a stream of 100,000 tokens has a quarter of it."""
HELD_BYTES = 2**30
"""All responses on the wire together may."""
KEPT_BYTES = 2**20
"""What is kept of a response that is too large."""
PIECE_BYTES = 64
"""What a read costs beside its bytes."""
DROPPED_WITHIN_NS = NS // 4
"""A server that closes a connection so soon after its response, unannounced, does so after every one."""
LEAST_ROUND_TRIP_NS = 1_000_000
_HUNG_UP = getattr(select, "POLLRDHUP", 0) | getattr(select, "POLLHUP", 0) | getattr(select, "POLLERR", 0)


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
        "size",
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
        self.size = 0
        """Bytes that its response takes here."""
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

    __slots__ = ("_answered_ns", "_ended", "_keep", "alive", "exchange", "parser", "pool", "transport")

    def __init__(self, pool: Pool) -> None:
        self.pool = pool
        self.transport: asyncio.Transport | None = None
        self.exchange: Exchange | None = None
        self.alive = False
        self.parser: httptools.HttpResponseParser | None = None
        self._ended = False
        self._keep = False
        self._answered_ns: int | None = None
        """When its last response ended."""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = transport  # type: ignore[assignment]
        self.alive = True

    @property
    def usable(self) -> bool:
        """Whether a request may be put on it: nothing says that the server has closed it, in the kernel neither."""
        transport = self.transport
        return self.alive and transport is not None and not transport.is_closing() and not _hung_up(transport)

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
        if not self.pool.has_room(exchange, len(data) + PIECE_BYTES):
            self.exchange = None
            self.abort()
            self.pool.flooded(exchange, now)
            return
        try:
            self.parser.feed_data(data)  # type: ignore[union-attr]
        except (httptools.HttpParserError, httptools.HttpParserUpgrade):
            self.exchange = None
            self.abort()
            self.pool.ended(exchange, exchange.tape(now))
            return
        if self._ended:
            self.exchange = None
            self._answered_ns = now
            if self._keep and not self.pool.single_use:
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
        if self._was_dropped(now):
            self.pool.single_use = True
        self.alive = False
        self.pool.forget(self)
        exchange, self.exchange = self.exchange, None
        if exchange is not None:
            self.pool.lost(exchange, now, exc)

    def _was_dropped(self, now: int) -> bool:
        """Whether the server closed it right after a response, though it had not said that it would."""
        if self._answered_ns is None or not self.alive or now - self._answered_ns > DROPPED_WITHIN_NS:
            return False
        return self.exchange is None or not self.exchange.pieces

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
        self._held_bytes = 0
        self.spare = spare
        """Idle connections to keep open ahead of need."""
        self.closed = False
        self.single_use = False
        """The server closes connections after a response without saying so: none is used twice from then on."""

    @property
    def in_flight(self) -> int:
        """Exchanges submitted and not ended."""
        return len(self._busy)

    async def open(self, count: int) -> None:
        """Open connections until `count` are idle; failures are left for the requests to meet."""
        for connection in [connection for connection in self._idle if not connection.usable]:
            connection.abort()
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
            if connection.usable:
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
        self._held_bytes -= exchange.size
        self.on_end(exchange, tape)

    def has_room(self, exchange: Exchange, size: int) -> bool:
        """Count bytes that came for an exchange; False where they are more than may be kept."""
        exchange.size += size
        self._held_bytes += size
        return exchange.size <= RESPONSE_BYTES and self._held_bytes <= HELD_BYTES

    def flooded(self, exchange: Exchange, now: int) -> None:
        """The response is too large: keep its beginning, as the failure of this one request."""
        if exchange.size > RESPONSE_BYTES:
            words = f"the response is larger than {RESPONSE_BYTES >> 20} MiB; the rest was not read"
        else:
            words = f"the responses under way are larger than {HELD_BYTES >> 20} MiB together; the rest was not read"
        kept = size = 0
        while kept < len(exchange.pieces) and size < KEPT_BYTES:
            size += len(exchange.pieces[kept]) + PIECE_BYTES
            kept += 1
        del exchange.pieces[kept:], exchange.stamps[kept:]
        self.ended(exchange, exchange.tape(now, failure=Failure.of("malformed", None, words)))

    def lost(self, exchange: Exchange, now: int, exc: Exception | None) -> None:
        """The connection died under the exchange: sent once more where that is sure to be the first that is read."""
        if self._was_stale(exchange, now, exc):
            exchange.stale = 1
            exchange.sent_ns = None
            self._busy[exchange] = None
            self._dial(exchange)
            return
        failure = None
        if exc is not None or not exchange.pieces:
            failure = Failure.of("cut", getattr(exc, "errno", None), str(exc or "closed before a response"))
        self.ended(exchange, exchange.tape(now, eof=True, failure=failure))

    def _was_stale(self, exchange: Exchange, now: int, exc: Exception | None) -> bool:
        """Whether a reused connection had been closed by the server when the request was written.

        A reset within a round trip says so, and so does an orderly close that comes sooner than the request could have
        arrived and been answered. On one host that is too short a time to tell: there, such a close has been noticed
        before the write, so what comes after it is the server's answer to the request.
        """
        if exchange.pieces or exchange.connect_ns or exchange.stale or exchange.sent_ns is None:
            return False
        passed_ns, round_trip_ns = now - exchange.sent_ns, self._dialer.round_trip_ns
        if isinstance(exc, ConnectionError):
            return passed_ns <= max(round_trip_ns, LEAST_ROUND_TRIP_NS)
        return exc is None and round_trip_ns >= LEAST_ROUND_TRIP_NS and passed_ns <= round_trip_ns

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

    async def renew(self) -> None:
        """Another job begins: forget the server's manners, and connections to an address that its name has left."""
        self.single_use = False
        if not await self._dialer.renew():
            for connection in list(self._idle):
                connection.close()

    async def close(self) -> None:
        """Close every connection."""
        self.closed = True
        for connection in list(self._idle):
            connection.close()
        for task in [*self._opening, *self._dials.values()]:
            task.cancel()
        await asyncio.sleep(0)


def _hung_up(transport: asyncio.Transport) -> bool:
    """Whether the peer's end of the connection is closed, although the loop has not come to see it."""
    if not _HUNG_UP:
        return False
    sock = transport.get_extra_info("socket")
    if sock is None or sock.fileno() < 0:
        return False
    poll = select.poll()
    poll.register(sock.fileno(), _HUNG_UP)
    return bool(poll.poll(0))
