"""AWS event streams: binary frames with typed headers and two CRCs.

A frame is: total length, length of the headers (big-endian uint32 both), CRC of those eight bytes, headers, payload,
CRC of everything before. `messages` takes frames off a body whose reads may cut them anywhere; `encode` writes one, for
endpoints that play AWS.

A frame that never became whole is no message and no error: whoever reads the stream sees that its end mark is missing.
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Iterator, Mapping
from typing import NamedTuple
from uuid import UUID
from zlib import crc32

from llmexp.clients.http import Malformed

PRELUDE, TRAILER = 12, 4
_PRELUDE = struct.Struct(">III")
_UINT32 = struct.Struct(">I")
_UINT16 = struct.Struct(">H")
_STRING = 7
_BYTES = 6


class Unframed(Malformed):
    """Bytes where a frame should begin; a gateway may have written its own error there."""

    def __init__(self, message: str, rest: bytes) -> None:
        super().__init__(message)
        self.rest = rest


class EventMessage(NamedTuple):
    """One frame."""

    at_ns: int
    """Arrival of the read that completed it."""
    headers: dict[str, str]
    """Values as text, whatever their type on the wire. Messages may share one mapping: do not change it."""
    payload: bytes


def messages(body: list[tuple[int, bytes]]) -> Iterator[EventMessage]:
    """The frames of a body, in order; raises `Malformed` where its bytes are not one.

    Frames before the damage are yielded first.
    """
    data = b"".join(piece for _, piece in body)
    seen: dict[bytes, dict[str, str]] = {}
    start, read, read_end = 0, -1, 0
    while (end := _frame_end(data, start)) is not None:
        while read_end < end:
            read += 1
            read_end += len(body[read][1])
        payload_at = start + PRELUDE + int.from_bytes(data[start + 4 : start + 8], "big")
        block = data[start + PRELUDE : payload_at]
        headers = seen.get(block)
        if headers is None:
            headers = seen[block] = _headers(block)
        yield EventMessage(body[read][0], headers, data[payload_at : end - TRAILER])
        start = end


def encode(headers: Mapping[str, str], payload: bytes) -> bytes:
    """One frame; all header values as strings."""
    block = b"".join(_encode_header(name, value) for name, value in headers.items())
    lengths = struct.pack(">II", PRELUDE + len(block) + len(payload) + TRAILER, len(block))
    frame = lengths + _UINT32.pack(crc32(lengths)) + block + payload
    return frame + _UINT32.pack(crc32(frame))


def _encode_header(name: str, value: str) -> bytes:
    key, text = name.encode(), value.encode()
    return bytes((len(key),)) + key + bytes((_STRING,)) + _UINT16.pack(len(text)) + text


def _frame_end(data: bytes, start: int) -> int | None:
    """Where the frame at `start` ends, its checksums verified; None while it is not whole."""
    if len(data) - start < PRELUDE:
        return None
    total, header_length, prelude_crc = _PRELUDE.unpack_from(data, start)
    if crc32(data[start : start + 8]) != prelude_crc:
        raise Unframed(f"event stream: wrong checksum of the frame's prelude at byte {start}", data[start:])
    end: int = start + total
    if total < PRELUDE + header_length + TRAILER:
        raise Malformed(f"event stream: {total} bytes cannot hold {header_length} bytes of headers, at byte {start}")
    if len(data) < end:
        return None
    if crc32(data[start : end - TRAILER]) != _UINT32.unpack_from(data, end - TRAILER)[0]:
        raise Malformed(f"event stream: wrong checksum of the frame at byte {start}")
    return end


_FIXED: dict[int, tuple[int, Callable[[bytes], str]]] = {
    0: (0, lambda _: "true"),
    1: (0, lambda _: "false"),
    2: (1, lambda raw: str(int.from_bytes(raw, "big", signed=True))),
    3: (2, lambda raw: str(int.from_bytes(raw, "big", signed=True))),
    4: (4, lambda raw: str(int.from_bytes(raw, "big", signed=True))),
    5: (8, lambda raw: str(int.from_bytes(raw, "big", signed=True))),
    8: (8, lambda raw: str(int.from_bytes(raw, "big", signed=True))),
    9: (16, lambda raw: str(UUID(bytes=raw))),
}


def _headers(block: bytes) -> dict[str, str]:
    """The header block as text values: bytes as hexadecimal, timestamps as milliseconds."""
    found: dict[str, str] = {}
    at = 0
    try:
        while at < len(block):
            name_end = at + 1 + block[at]
            name = block[at + 1 : name_end].decode()
            if name in found:
                raise Malformed(f"event stream: header {name} occurs twice")
            found[name], at = _value(block, block[name_end], name_end + 1)
    except (IndexError, struct.error, UnicodeDecodeError) as error:
        raise Malformed(f"event stream: headers do not parse: {error}") from None
    return found


def _value(block: bytes, kind: int, at: int) -> tuple[str, int]:
    """The value of a header of this type at `at`, and where it ends."""
    if kind in (_BYTES, _STRING):
        length, at = _UINT16.unpack_from(block, at)[0], at + 2
    elif kind in _FIXED:
        length = _FIXED[kind][0]
    else:
        raise Malformed(f"event stream: unknown type {kind} of a header value")
    raw = block[at : at + length]
    if len(raw) < length:
        raise Malformed("event stream: a header value reaches past its block")
    if kind == _STRING:
        return raw.decode(), at + length
    return (raw.hex() if kind == _BYTES else _FIXED[kind][1](raw)), at + length
