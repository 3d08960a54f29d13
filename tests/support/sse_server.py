"""A real server on loopback that plays scripted bytes, cut and paced as told.

    async with serve([*head_and_body, End.CLOSE]) as server:
        …connect to 127.0.0.1:server.port…

A script is a list of bytes (one write each), pauses in seconds (floats) and one `End`. Without an `End` the connection
is kept for the next request. Each request plays the next script, and the last one repeats; a request with the header
`X-Script` plays the one of that number.
"""

from __future__ import annotations

import asyncio
import contextlib
import socket
import struct
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass, field
from enum import Enum

WANTED = "x-script"


class End(Enum):
    """How a script ends its connection."""

    CLOSE = "an orderly FIN"
    RESET = "an RST"
    HANG = "silence until the client goes away"


Script = Sequence[bytes | float | End]


@dataclass
class Received:
    """A request as it came in."""

    method: str
    path: str
    headers: dict[str, str]
    body: bytes


@dataclass
class Server:
    """A server that plays scripts."""

    scripts: list[Script]
    port: int = 0
    received: list[Received] = field(default_factory=list)
    connections: int = 0

    async def connected(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections += 1
        writer.get_extra_info("socket").setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        with contextlib.suppress(ConnectionError, asyncio.IncompleteReadError, asyncio.CancelledError):
            while await self._one(reader, writer):
                pass
        writer.close()

    async def _one(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> bool:
        """Serve one request; whether the connection stays."""
        self.received.append(await _request(reader))
        wanted = self.received[-1].headers.get(WANTED)
        if wanted is not None:
            script = self.scripts[int(wanted)]
        else:
            script = self.scripts.pop(0) if len(self.scripts) > 1 else self.scripts[0]
        for step in script:
            if isinstance(step, bytes):
                writer.write(step)
                await writer.drain()
            elif isinstance(step, End):
                return await _end(step, reader, writer)
            else:
                await asyncio.sleep(step)
        return True


async def _request(reader: asyncio.StreamReader) -> Received:
    head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1")
    first, *lines = head.strip().split("\r\n")
    method, path, _ = first.split(" ")
    headers = {name.lower(): value.strip() for name, _, value in (line.partition(":") for line in lines)}
    body = await reader.readexactly(int(headers.get("content-length", 0)))
    return Received(method, path, headers, body)


async def _end(how: End, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> bool:
    if how is End.HANG:
        await reader.read()
    if how is End.RESET:
        linger = struct.pack("ii", 1, 0)
        writer.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger)
        writer.transport.abort()
    return False


@contextlib.asynccontextmanager
async def serve(*scripts: Script) -> AsyncIterator[Server]:
    """A server for the time of the block."""
    playing = Server(list(scripts))
    server = await asyncio.start_server(playing.connected, "127.0.0.1", 0)
    playing.port = server.sockets[0].getsockname()[1]
    try:
        yield playing
    finally:
        server.close()


# --- material --------------------------------------------------------------------------------------------------------

SSE = "text/event-stream"


def head(
    status: str = "200 OK", content_type: str = SSE, *, length: int | None = None, chunked: bool = False, more: str = ""
) -> bytes:
    """A response head; `more` is further header lines, each ended by CRLF."""
    lines = f"HTTP/1.1 {status}\r\nContent-Type: {content_type}\r\n{more}"
    if chunked:
        lines += "Transfer-Encoding: chunked\r\n"
    if length is not None:
        lines += f"Content-Length: {length}\r\n"
    return f"{lines}\r\n".encode()


def chunk(data: bytes) -> bytes:
    """One chunk of the chunked coding."""
    return b"%x\r\n%b\r\n" % (len(data), data)


LAST_CHUNK = b"0\r\n\r\n"


def streamed(*events: bytes, status: str = "200 OK", content_type: str = SSE, more: str = "") -> list[bytes]:
    """A chunked response, each event a chunk and a write of its own."""
    start = head(status, content_type, chunked=True, more=more)
    return [start, *[chunk(event) for event in events], LAST_CHUNK]


def whole(body: bytes, status: str = "200 OK", content_type: str = "application/json", more: str = "") -> list[bytes]:
    """A response with a length, in one write."""
    return [head(status, content_type, length=len(body), more=more) + body]
