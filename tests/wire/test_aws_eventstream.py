"""Event-stream frames: cut anywhere, damaged anywhere, and read as botocore reads them."""

from __future__ import annotations

import struct
import time
import uuid
from zlib import crc32

import pytest
from botocore.eventstream import EventStreamBuffer
from hypothesis import given, settings
from hypothesis import strategies as st
from support.aws_server import converse, event, exception, frame

from llmexp.clients.eventstream import encode, messages
from llmexp.clients.http import Malformed

STREAM = [*converse(["Hel", "lo", " wörld"]), exception("throttlingException", {"message": "slow down"})]


def _botocore(data: bytes) -> list[tuple[dict[str, object], bytes]]:
    buffer = EventStreamBuffer()
    buffer.add_data(data)
    return [(message.headers, message.payload) for message in buffer]


def test_reads_what_botocore_reads() -> None:
    data = b"".join(STREAM)
    ours = [(message.headers, message.payload) for message in messages([(1, data)])]
    assert ours == _botocore(data)
    assert len(ours) == len(STREAM)


def test_every_cut_gives_the_same_messages_with_the_stamp_of_the_completing_read() -> None:
    data = b"".join(STREAM)
    ends = [sum(map(len, STREAM[: count + 1])) for count in range(len(STREAM))]
    whole = [(message.headers, message.payload) for message in messages([(0, data)])]
    for cut in range(len(data) + 1):
        cut_up = list(messages([(1, data[:cut]), (2, data[cut:])]))
        assert [(message.headers, message.payload) for message in cut_up] == whole
        assert [message.at_ns for message in cut_up] == [1 if end <= cut else 2 for end in ends]


def test_byte_by_byte() -> None:
    data = b"".join(STREAM)
    found = list(messages([(at, data[at : at + 1]) for at in range(len(data))]))
    ends = [sum(map(len, STREAM[: count + 1])) for count in range(len(STREAM))]
    assert [message.at_ns for message in found] == [end - 1 for end in ends]


@pytest.mark.parametrize("last", range(len(STREAM[0]) - 1))
def test_half_a_frame_at_the_end_is_no_message(last: int) -> None:
    assert [m.headers for m in messages([(1, STREAM[1]), (2, STREAM[0][:last])])] == [_botocore(STREAM[1])[0][0]]


def test_every_flipped_byte_is_noticed_and_what_came_before_is_kept() -> None:
    good, victim = STREAM[0], STREAM[1]
    for at in range(len(victim)):
        damaged = bytearray(victim)
        damaged[at] ^= 0x40
        found = messages([(1, good + bytes(damaged))])
        assert next(found).headers[":event-type"] == "messageStart"
        with pytest.raises(Malformed, match="event stream"):
            next(found)


def _raw(block: bytes) -> bytes:
    """A frame around a raw header block, checksums right."""
    lengths = struct.pack(">II", 16 + len(block), len(block))
    head = lengths + struct.pack(">I", crc32(lengths)) + block
    return head + struct.pack(">I", crc32(head))


@pytest.mark.parametrize(
    ("kind", "value", "shown"),
    [
        (0, b"", "true"),
        (1, b"", "false"),
        (2, b"\xff", "-1"),
        (3, struct.pack(">h", -300), "-300"),
        (4, struct.pack(">i", 70000), "70000"),
        (5, struct.pack(">q", 2**40), str(2**40)),
        (6, struct.pack(">H", 2) + b"\x00\xff", "00ff"),
        (7, struct.pack(">H", 2) + "é".encode(), "é"),
        (8, struct.pack(">q", 1_700_000_000_000), "1700000000000"),
        (9, bytes(range(16)), str(uuid.UUID(bytes=bytes(range(16))))),
    ],
)
def test_every_header_type_as_text(kind: int, value: bytes, shown: str) -> None:
    block = b"\x01x" + bytes((kind,)) + value + b"\x01y\x07\x00\x01z"
    [message] = messages([(1, _raw(block))])
    assert message.headers == {"x": shown, "y": "z"}
    assert list(_botocore(_raw(block))[0][0]) == ["x", "y"]


@pytest.mark.parametrize(
    "block",
    [
        b"\x05x",
        b"\x01x\x0a",
        b"\x01x\x07\x00\x09short",
        b"\x01x",
        b"\x01x\x07\x00",
        b"\x01\xff\x00",
        b"\x01x\x00\x01x\x01",
    ],
)
def test_broken_header_blocks_are_malformed(block: bytes) -> None:
    with pytest.raises(Malformed):
        list(messages([(1, _raw(block))]))


def test_a_frame_too_short_for_its_headers_is_malformed() -> None:
    lengths = struct.pack(">II", 20, 100)
    with pytest.raises(Malformed, match="cannot hold"):
        list(messages([(1, lengths + struct.pack(">I", crc32(lengths)) + b"\0" * 8)]))


HEADERS = st.dictionaries(st.text("abc:-", min_size=1, max_size=9), st.text(max_size=20))


@settings(max_examples=60, deadline=None)
@given(st.lists(st.tuples(HEADERS, st.binary(max_size=99)), max_size=6), st.integers(1, 40))
def test_what_encode_writes_comes_back(content: list[tuple[dict[str, str], bytes]], size: int) -> None:
    data = b"".join(encode(headers, payload) for headers, payload in content)
    body = [(at, data[at : at + size]) for at in range(0, len(data), size)]
    assert [(message.headers, message.payload) for message in messages(body)] == content
    assert data == b"".join(frame(headers, payload) for headers, payload in content)
    assert _botocore(data) == content


def test_empty_reads_do_no_harm() -> None:
    assert [m.at_ns for m in messages([(1, b""), (2, STREAM[0]), (3, b""), (4, STREAM[1])])] == [2, 4]
    assert list(messages([])) == []


def test_decoding_is_cheap() -> None:
    body = [(at, event("contentBlockDelta", {"delta": {"text": " token"}, "p": "abcdef"})) for at in range(4000)]
    started = time.process_time()
    assert sum(1 for _ in messages(body)) == 4000
    assert (time.process_time() - started) / 4000 < 60e-6
