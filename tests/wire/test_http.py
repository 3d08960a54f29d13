import gzip
import zlib
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from llmexp.clients.http import Headless, Malformed, unframe

BODY = b"data: one\n\ndata: two and three\n\n"
HEAD = b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\n"
CHUNKS = b"b;note=1\r\ndata: one\n\n\r\n15\r\ndata: two and three\n\n\r\n0\r\nX-Trailer: late\r\n\r\n"
CHUNKED = HEAD + b"Transfer-Encoding: chunked\r\n\r\n" + CHUNKS
SIZED = HEAD + b"Content-Length: %d\r\n\r\n" % len(BODY) + BODY
CLOSED = HEAD + b"Connection: close\r\n\r\n" + BODY


def cut(data: bytes, points: list[int]) -> list[bytes]:
    """`data` in pieces, cut at `points` (anything in range, any order)."""
    edges = sorted({0, len(data), *(point % (len(data) + 1) for point in points)})
    return [data[a:b] for a, b in pairwise(edges)]


cuts = st.lists(st.integers(0, 10_000), max_size=40)


def read(data: bytes, points: list[int] = (), *, eof: bool = False, method: str = "POST"):
    pieces = cut(data, list(points))
    return unframe(range(100, 100 + len(pieces)), pieces, method, eof=eof)


@pytest.mark.parametrize(("wire", "eof"), [(CHUNKED, False), (SIZED, False), (CLOSED, True)])
@given(points=cuts)
def test_any_split_gives_the_same_body_with_the_stamp_of_each_read(wire: bytes, eof: bool, points: list[int]) -> None:
    response = read(wire, points, eof=eof)
    assert (response.status, response.content, response.complete) == (200, BODY, True)
    assert response.headers["content-type"] == "text/event-stream"
    assert "x-trailer" not in response.headers
    stamps = [at for at, _ in response.body]
    assert stamps == sorted(stamps)
    pieces = cut(wire, points)
    assert all(data in pieces[at - 100] for at, data in response.body)


@pytest.mark.parametrize(
    "wire",
    [
        SIZED.replace(HEAD, HEAD.replace(b"\r\n", b"\n")).replace(b"\r\n\r\n", b"\n\n"),
        SIZED.replace(HEAD, HEAD + b"Content-Encoding: UTF-8\r\n"),
        b"HTTP/1.1 103 Early Hints\r\nLink: </a>\r\n\r\n" + SIZED,
    ],
)
def test_heads_as_some_servers_write_them(wire: bytes) -> None:
    assert read(wire).content == BODY


def test_a_switch_to_another_protocol_is_told() -> None:
    with pytest.raises(Malformed, match="it switches to another protocol"):
        read(b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\r\n")


EVENT_LINE = b'data: {"choices":[{"delta":{"content":"a"}}]}\n\n'


@given(points=cuts, coding=st.sampled_from(["gzip", "deflate", "raw deflate", "gzip, gzip", "gzip of two members"]))
def test_compressed_bodies_are_undone_as_they_arrive(points: list[int], coding: str) -> None:
    raw = zlib.compressobj(wbits=-15)
    packed = {
        "gzip": gzip.compress(BODY),
        "deflate": zlib.compress(BODY),
        "raw deflate": raw.compress(BODY) + raw.flush(),
        "gzip, gzip": gzip.compress(gzip.compress(BODY)),
        "gzip of two members": gzip.compress(BODY[:9]) + gzip.compress(BODY[9:]),
    }[coding]
    name = {"raw deflate": "deflate", "gzip of two members": "gzip"}.get(coding, coding)
    head = HEAD + b"Content-Encoding: %b\r\nContent-Length: %d\r\n\r\n" % (name.encode(), len(packed))
    response = read(head + packed, points)
    assert (response.content, response.complete) == (BODY, True)
    assert [at for at, _ in response.body] == sorted(at for at, _ in response.body)


def test_a_flushed_gzip_stream_gives_each_event_at_its_own_read() -> None:
    packer = zlib.compressobj(wbits=31)
    parts = [packer.compress(b"data: %d\n\n" % n) + packer.flush(zlib.Z_SYNC_FLUSH) for n in range(3)]
    head = HEAD + b"Content-Encoding: gzip\r\n\r\n"
    response = unframe([1, 2, 3, 4], [head, *parts], eof=True)
    assert response.body == [(2, b"data: 0\n\n"), (3, b"data: 1\n\n"), (4, b"data: 2\n\n")]
    assert not response.complete


@pytest.mark.parametrize(
    ("wire", "eof"), [(CHUNKED[:-6], True), (SIZED[:-4], True), (CLOSED, False), (CHUNKED[:-20], False)]
)
def test_a_body_that_was_not_ended_is_not_complete(wire: bytes, eof: bool) -> None:
    response = read(wire, eof=eof)
    assert not response.complete
    assert BODY.startswith(response.content)


def test_interim_responses_are_skipped() -> None:
    early = b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 103 Early Hints\r\nLink: </x>\r\n\r\n"
    response = read(early + SIZED, [30])
    assert (response.status, response.content) == (200, BODY)
    assert "link" not in response.headers


@pytest.mark.parametrize("status", [b"204 No Content", b"304 Not Modified"])
def test_statuses_without_a_body(status: bytes) -> None:
    response = read(b"HTTP/1.1 %b\r\nX-A: 1\r\nX-a: 2\r\n\r\n" % status)
    assert (response.content, response.complete, response.headers["x-a"]) == (b"", True, "1, 2")


def test_an_answer_to_head_has_no_body() -> None:
    assert read(HEAD + b"Content-Length: 99\r\n\r\n", method="HEAD").complete


@pytest.mark.parametrize(
    "wire",
    [
        HEAD + b"Transfer-Encoding: chunked\r\nContent-Length: 3\r\n\r\n" + CHUNKS,
        HEAD + b"Transfer-Encoding: Chunked\r\n\r\n" + CHUNKS.replace(b"15\r", b"0015  \r"),
        SIZED + b"HTTP/1.1 400 Bad Request\r\n\r\n",
        SIZED + b"garbage after the end",
        HEAD + b"Connection: close\r\nContent-Length: %d\r\n\r\n" % len(BODY) + BODY + b"more",
    ],
)
def test_small_sins_are_forgiven(wire: bytes) -> None:
    response = read(wire, [50, 90])
    assert (response.content, response.complete) == (BODY, True)


@pytest.mark.parametrize("wire", [b"\x16\x03\x01\x02hello", b"SSH-2.0-x\r\n", b"HTTP/1.1 abc\r\n\r\n", b"{}"])
def test_bytes_that_are_not_http_are_malformed(wire: bytes) -> None:
    with pytest.raises(Malformed, match=r"not HTTP/1\.1") as caught:
        read(wire)
    assert caught.value.partial is None


def test_a_broken_chunk_keeps_what_was_read_before_it() -> None:
    with pytest.raises(Malformed) as caught:
        read(CHUNKED.replace(b"15\r", b"zz\r"), [100, 120])
    assert caught.value.partial is not None
    assert caught.value.partial.content == b"data: one\n\n"


@pytest.mark.parametrize("wire", [b"", b"HTTP/1.1 200 OK\r\nConte", b"HTTP/1.1 100 Continue\r\n\r\n"])
def test_a_head_that_never_ended(wire: bytes) -> None:
    with pytest.raises(Headless):
        read(wire, eof=True)


@pytest.mark.parametrize(
    ("coding", "says"), [("gzip", "not gzip"), ("compress", "not understood"), ("zstd", "zstd"), ("br", "br")]
)
def test_compression_that_cannot_be_undone_is_malformed(coding: str, says: str) -> None:
    wire = HEAD + b"Content-Encoding: %b\r\nContent-Length: 5\r\n\r\nhello" % coding.encode()
    with pytest.raises(Malformed, match=says) as caught:
        read(wire)
    assert caught.value.partial is not None
    assert caught.value.partial.status == 200


@pytest.mark.parametrize("times", [1, 2], ids=["gzip", "gzip in gzip"])
def test_a_body_that_inflates_without_bound_is_read_no_further(times: int) -> None:
    whole = EVENT_LINE + bytes(80 * 2**20)
    packed = gzip.compress(whole, compresslevel=1)
    if times == 2:
        packed = gzip.compress(packed)
    head = HEAD + f"Content-Encoding: {', '.join(['gzip'] * times)}\r\nContent-Length: {len(packed)}\r\n\r\n".encode()
    with pytest.raises(Malformed, match="inflates to more than 64 MiB") as caught:
        unframe([1, 2], [head, packed], eof=False)
    partial = caught.value.partial
    assert partial is not None
    assert len(partial.content) < 4 * 2**20
    assert partial.content.startswith(EVENT_LINE)


def test_output_that_waits_inside_the_decompressor_is_not_lost() -> None:
    whole = bytes(range(256)) * 16384 + b"end"
    packed = gzip.compress(whole)
    head = HEAD + f"Content-Encoding: gzip\r\nContent-Length: {len(packed)}\r\n\r\n".encode()
    for at in (len(packed) - 20, len(packed) - 9, len(packed) // 2):
        response = unframe([1, 2, 3], [head, packed[:at], packed[at:]], eof=False)
        assert response.complete
        assert response.content == whole
