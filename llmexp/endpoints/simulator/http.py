"""HTTP/1.1 as the simulator needs it: requests in, bytes out as soon as they are given."""

from __future__ import annotations

import asyncio
import os
import socket
import struct
import zlib
from collections import deque
from collections.abc import Mapping
from dataclasses import dataclass
from http import HTTPStatus
from time import monotonic_ns
from typing import Literal, Protocol, cast

import httptools

_CONTINUE = b"HTTP/1.1 100 Continue\r\n\r\n"


@dataclass(frozen=True, slots=True)
class Received:
    """One request; header names in lower case."""

    method: str
    path: str
    query: str
    headers: dict[str, str]
    body: bytes
    at_ns: int
    """When its last byte was read."""


class Work(Protocol):
    """What answers a request and may be told that nobody listens any more."""

    def lost(self) -> None:
        """The connection is gone."""


class Handler(Protocol):
    """What connections hand requests to."""

    idle_close_s: float | None

    def handle(self, connection: Connection, received: Received) -> None:
        """Starts the answer; `connection.finish` ends it."""


class Connection(asyncio.Protocol):
    """One client. Requests that come early wait for the one before them."""

    def __init__(self, handler: Handler, connections: set[Connection]) -> None:
        self._handler = handler
        self._connections = connections
        self._parser = httptools.HttpRequestParser(self)
        self._waiting: deque[Received] = deque()
        self._idle: asyncio.TimerHandle | None = None
        self._fd = -1
        self._keep = True
        self._busy = False
        self.work: Work | None = None
        self._reset()

    def _reset(self) -> None:
        self._url = b""
        self._headers: dict[str, str] = {}
        self._body: list[bytes] = []

    # --- asyncio's side --------------------------------------------------------------------------------------------

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.Transport", transport)  # uvloop's own inherits from nothing
        self._connections.add(self)
        self.peer_port: int = (transport.get_extra_info("peername") or ("", 0))[1]
        if transport.get_extra_info("sslcontext") is None:
            self._fd = transport.get_extra_info("socket").fileno()
        self._wait_idle()

    def data_received(self, data: bytes) -> None:
        self._stop_idle()
        try:
            self._parser.feed_data(data)
        except httptools.HttpParserError:
            self.reply(HTTPStatus.BAD_REQUEST, {}, b"", close=True)

    def connection_lost(self, exc: Exception | None) -> None:
        self._stop_idle()
        self._fd = -1
        self._connections.discard(self)
        self._waiting.clear()
        del self._parser  # it refers to us
        if self.work is not None:
            self.work.lost()
            self.work = None

    # --- httptools' side -------------------------------------------------------------------------------------------

    def on_url(self, url: bytes) -> None:
        self._url += url

    def on_header(self, name: bytes, value: bytes) -> None:
        self._headers[name.decode("latin-1").lower()] = value.decode("latin-1")

    def on_headers_complete(self) -> None:
        if self._headers.get("expect", "").lower() == "100-continue":
            self.send(_CONTINUE)

    def on_body(self, body: bytes) -> None:
        self._body.append(body)

    def on_message_complete(self) -> None:
        path, _, query = self._url.decode("latin-1").partition("?")
        method = self._parser.get_method().decode()
        received = Received(method, path, query, self._headers, b"".join(self._body), monotonic_ns())
        self._keep = self._keep and self._parser.should_keep_alive()
        self._reset()
        self._waiting.append(received)
        self._next()

    def _next(self) -> None:
        if self._waiting and not self._busy:
            self._busy = True
            self._handler.handle(self, self._waiting.popleft())

    # --- the answer's side -----------------------------------------------------------------------------------------

    def send(self, data: bytes) -> None:
        """Writes at once, past the loop's own queue, so that a stamp taken before is the truth."""
        transport = self._transport
        if transport.is_closing():
            return
        if self._fd >= 0 and not transport.get_write_buffer_size():
            try:
                sent = os.write(self._fd, data)
            except BlockingIOError:
                sent = 0
            except OSError:
                transport.abort()
                return
            if sent == len(data):
                return
            data = data[sent:]
        transport.write(data)

    def reply(self, status: int, headers: Mapping[str, str], body: bytes, *, close: bool = False) -> None:
        """A whole response."""
        lines = [f"HTTP/1.1 {int(status)} {HTTPStatus(status).phrase}", *(f"{k}: {v}" for k, v in headers.items())]
        lines += [f"content-length: {len(body)}", *(["connection: close"] if close else []), "\r\n"]
        self.send("\r\n".join(lines).encode("latin-1") + body)
        self.finish(close=close)

    def finish(self, *, close: bool = False) -> None:
        """The answer is complete; the next request may come."""
        self._busy = False
        self.work = None
        if close or not self._keep:
            self._transport.close()
            return
        self._next()
        if not self._busy:
            self._wait_idle()

    def break_off(self, *, reset: bool = False) -> None:
        """Closes in the middle, by FIN or by RST."""
        self.work = None
        found = self._transport.get_extra_info("socket")
        if reset and found is not None:
            found.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            self._transport.abort()
        else:
            self._transport.close()

    def shut(self) -> None:
        """Closes for good, whatever is on the way."""
        self._transport.abort()

    def _wait_idle(self) -> None:
        seconds = self._handler.idle_close_s
        if seconds is not None:
            self._idle = asyncio.get_running_loop().call_later(seconds, self._transport.close)

    def _stop_idle(self) -> None:
        if self._idle is not None:
            self._idle.cancel()
            self._idle = None


class Framing:
    """HTTP's frame around a streamed body."""

    def __init__(self, kind: Literal["chunked", "length", "close"], *, gzip: bool) -> None:
        self._chunked = kind == "chunked"
        self._packer = zlib.compressobj(wbits=31) if gzip else None
        self.closes = kind == "close"

    def head(self, content_type: str, headers: Mapping[str, str], length: int | None) -> bytes:
        """Status line and headers."""
        lines = ["HTTP/1.1 200 OK", f"content-type: {content_type}", *(f"{k}: {v}" for k, v in headers.items())]
        if self._packer is not None:
            lines.append("content-encoding: gzip")
        if self._chunked:
            lines.append("transfer-encoding: chunked")
        elif length is not None:
            lines.append(f"content-length: {length}")
        if self.closes:
            lines.append("connection: close")
        return "\r\n".join([*lines, "\r\n"]).encode("latin-1")

    def body(self, data: bytes) -> bytes:
        """A part of the body, ready to be written."""
        if self._packer is not None and data:
            data = self._packer.compress(data) + self._packer.flush(zlib.Z_SYNC_FLUSH)
        if self._chunked and data:
            return b"%x\r\n%b\r\n" % (len(data), data)
        return data

    def end(self) -> bytes:
        """What ends the body."""
        last = self._packer.flush() if self._packer is not None else b""
        if not self._chunked:
            return last
        return (b"%x\r\n%b\r\n" % (len(last), last) if last else b"") + b"0\r\n\r\n"
