"""A server that means ill: `hostile_server.py PORT`. Each request gets one of `CRUELTIES`, in turn.

It answers `GET /v1/models` well, so that a job that starts it takes it for ready.
"""

from __future__ import annotations

import asyncio
import base64
import gzip
import itertools
import json
import sys
from collections.abc import AsyncIterator
from urllib.parse import quote

HEAD = b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\n"
CHUNKED = HEAD + b"transfer-encoding: chunked\r\n\r\n"
CLOSED = HEAD + b"connection: close\r\n\r\n"


def event(tree: object) -> bytes:
    return b"data: " + json.dumps(tree).encode() + b"\n\n"


def token(text: str) -> bytes:
    return event({"choices": [{"index": 0, "delta": {"content": text}, "finish_reason": None}]})


def answer(usage: object) -> bytes:
    end = {"choices": [{"index": 0, "delta": {}, "finish_reason": "stop"}], "usage": usage}
    return b"".join(token(f" word{at}") for at in range(5)) + event(end) + b"data: [DONE]\n\n"


def chunk(data: bytes) -> bytes:
    return b"%x\r\n%s\r\n" % (len(data), data)


async def well(_request: bytes) -> AsyncIterator[bytes]:
    yield CHUNKED + chunk(answer({"prompt_tokens": 9, "completion_tokens": 5})) + b"0\r\n\r\n"


async def flood(_request: bytes) -> AsyncIterator[bytes]:
    """Tokens without an end, as fast as they are taken."""
    yield CHUNKED
    piece = chunk(token(" flood" * 2000))
    while True:
        yield piece


async def bomb(_request: bytes) -> AsyncIterator[bytes]:
    """Half a megabyte that inflates to half a gigabyte."""
    packed = gzip.compress(bytes(512 * 2**20), 1)
    yield HEAD + b"content-encoding: gzip\r\ncontent-length: %d\r\n\r\n" % len(packed) + packed


async def drip(_request: bytes) -> AsyncIterator[bytes]:
    """A byte a second."""
    for at in range(3600):
        yield CHUNKED[at : at + 1] or b"x"
        await asyncio.sleep(1.0)


async def silence(_request: bytes) -> AsyncIterator[bytes]:
    await asyncio.sleep(3600)
    yield b""


async def echo(request: bytes) -> AsyncIterator[bytes]:
    """All that was sent, as it is and in other writing, with escapes for a terminal."""
    head = request.partition(b"\r\n\r\n")[0].decode("latin-1")
    values = [line.partition(": ")[2] for line in head.split("\r\n")[1:]]
    coded = [base64.b64encode(value.encode()).decode() for value in values] + [quote(value) for value in values]
    said = "\x1b]0;owned\x07\x1b[31m[/x] " + " ".join([*values, *coded]) + "x" * 400 + " ".join(values)
    body = json.dumps({"error": {"message": said, "type": said}}).encode()
    yield b"HTTP/1.1 400 Bad\x1b[31m\r\ncontent-length: %d\r\n\r\n" % len(body) + body


async def liar(_request: bytes) -> AsyncIterator[bytes]:
    """Counts and times that no column holds, and a date of another century."""
    usage = {"prompt_tokens": -5, "completion_tokens": 2**63, "total_tokens": "many"}
    other = event({"id": "x", "created": 10**15, "choices": [], "timings": {"predicted_ms": 1e308}})
    head = CLOSED.replace(b"\r\n\r\n", b"\r\ndate: Tue, 01 Jan 1901 00:00:00 GMT\r\nx-latency-s: 1e400\r\n\r\n")
    yield head + other + answer(usage)


async def nonsense(_request: bytes) -> AsyncIterator[bytes]:
    yield b"\x16\x03\x01\x02" * 50


async def half(_request: bytes) -> AsyncIterator[bytes]:
    """A stream that breaks off in the middle of a character."""
    yield CHUNKED + chunk(token(" one") + token(" two")[:-4] + b"\xf0\x9f")


async def long_line(_request: bytes) -> AsyncIterator[bytes]:
    """One event without an end."""
    yield CLOSED + b"data: "
    while True:
        yield b"a" * 65536


async def redirect(_request: bytes) -> AsyncIterator[bytes]:
    yield b"HTTP/1.1 307 Away\r\nlocation: http://169.254.169.254/latest/\r\ncontent-length: 0\r\n\r\n"


CRUELTIES = (well, echo, flood, liar, well, bomb, drip, nonsense, well, silence, half, long_line, redirect)
_turns = itertools.cycle(CRUELTIES)


async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """One connection, one request."""
    try:
        request = await reader.readuntil(b"\r\n\r\n")
        if request.startswith(b"GET"):
            writer.write(b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\nconnection: close\r\n\r\n{}")
        else:
            async for piece in next(_turns)(request):
                writer.write(piece)
                await writer.drain()
    except (OSError, asyncio.IncompleteReadError, asyncio.LimitOverrunError):
        pass
    finally:
        writer.close()


async def main() -> None:
    """Until it is ended."""
    server = await asyncio.start_server(serve, "127.0.0.1", int(sys.argv[1]))
    await server.serve_forever()


if __name__ == "__main__":
    asyncio.run(main())
