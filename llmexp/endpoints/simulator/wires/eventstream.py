"""AWS event-stream frames as bytes: two lengths, their CRC, headers, payload, the CRC of all."""

from __future__ import annotations

import struct
from collections.abc import Mapping
from functools import lru_cache
from zlib import crc32

CONTENT_TYPE = "application/vnd.amazon.eventstream"
_STRING = 7


@lru_cache(maxsize=64)
def _headers(pairs: tuple[tuple[str, str], ...]) -> bytes:
    return b"".join(
        struct.pack(">B", len(name)) + name.encode() + struct.pack(">BH", _STRING, len(value)) + value.encode()
        for name, value in pairs
    )


def frame(headers: Mapping[str, str], payload: bytes) -> bytes:
    """One frame."""
    return framed(_headers(tuple(headers.items())), payload)


def framed(headers: bytes, payload: bytes) -> bytes:
    """One frame whose headers are encoded already."""
    prelude = struct.pack(">II", 16 + len(headers) + len(payload), len(headers))
    start = prelude + struct.pack(">I", crc32(prelude)) + headers + payload
    return start + struct.pack(">I", crc32(start))


def event_headers(event: str, content_type: str) -> bytes:
    """The encoded headers of an event."""
    return _headers(((":event-type", event), (":content-type", content_type), (":message-type", "event")))


def exception(kind: str, payload: bytes) -> bytes:
    """An exception in the stream, after 200."""
    return frame({":exception-type": kind, ":content-type": "application/json", ":message-type": "exception"}, payload)
