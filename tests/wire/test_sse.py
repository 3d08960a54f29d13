from itertools import accumulate

import pytest
from hypothesis import given
from hypothesis import strategies as st
from wire.test_http import cut, cuts

from llmexp.clients.sse import SseEvent, events


def plain(stream: bytes) -> list[tuple[str, bytes, bool]]:
    return [(found.event, found.data, found.whole) for found in events([(1, stream)]) if found.framed]


@pytest.mark.parametrize(
    ("stream", "expected"),
    [
        (b"error: {}\n\ndata: a\n\n", [(b"error: {}", False), (b"a", True)]),
        (b'data: a\n\n{\n"error": 1\n}\n', [(b"a", True), (b'{\n"error": 1\n}', False)]),
        (b"DATA: a\n\n data: b\n\n", [(b"a", True), (b"b", True)]),
        (b"id: 4\nunknown: z\n: comment\nretry: 1\n\n", [(b"unknown: z", False)]),
    ],
)
def test_what_is_no_field_of_the_standard_s_is_kept_apart(stream: bytes, expected: list[tuple[bytes, bool]]) -> None:
    assert [(found.data, found.framed) for found in events([(1, stream)])] == expected


@pytest.mark.parametrize(
    ("stream", "expected"),
    [
        (b"data: a\n\n", [("", b"a", True)]),
        (b"data:a\n\n", [("", b"a", True)]),
        (b"data:  a \n\n", [("", b" a ", True)]),
        (b"data: a\r\n\r\n", [("", b"a", True)]),
        (b"data:a\r\rdata:b\r\r", [("", b"a", True), ("", b"b", True)]),
        (b"data: a\r\n\ndata: b\n\r\n", [("", b"a", True), ("", b"b", True)]),
        (b"data: a\ndata: b\ndata:\n\n", [("", b"a\nb\n", True)]),
        (b"data\n\n", [("", b"", True)]),
        (b"event: error\ndata: x\n\ndata: y\n\n", [("error", b"x", True), ("", b"y", True)]),
        (b"event: lost\n\ndata: y\n\n", [("", b"y", True)]),
        (b": ping\n\n: ping\n\ndata: a\n\n", [("", b"a", True)]),
        (b"id: 4\nretry: 10\nunknown: z\ndata: a:b: c\n\n", [("", b"a:b: c", True)]),
        (b"\xef\xbb\xbfdata: a\n\n", [("", b"a", True)]),
        (b"\n\n\ndata: a\n\n\n\n", [("", b"a", True)]),
        (b"data: a\n\ndata: b", [("", b"a", True), ("", b"b", False)]),
        (b"data: a\n\ndata: b\n", [("", b"a", True), ("", b"b", False)]),
        (b"data: a\n\nda", [("", b"a", True)]),
        ("data: é\u2028x\x0b\x85y\n\n".encode(), [("", "é\u2028x\x0b\x85y".encode(), True)]),
        (b"", []),
        (b": only comments\n\n", []),
    ],
)
def test_grammar(stream: bytes, expected: list[tuple[str, bytes, bool]]) -> None:
    assert plain(stream) == expected


@pytest.mark.parametrize(
    ("before", "expected"),
    [
        (b"event: error\n", ("error", b"b")),
        (b"data: a\n", ("", b"a\nb")),
        (b"data: a\r", ("", b"a\nb")),
        (b"data: ", ("", b"data: b")),
        (b": half a comment ", None),
    ],
)
def test_a_read_that_looks_like_an_event_may_end_one(before: bytes, expected: tuple[str, bytes] | None) -> None:
    found = [(event.at_ns, event.event, event.data) for event in events([(1, before), (2, b"data: b\n\n")])]
    assert found == ([(2, *expected)] if expected else [])


line_ends = st.sampled_from([b"\n", b"\r\n", b"\r"])


@st.composite
def streams(draw: st.DrawFn) -> tuple[bytes, list[tuple[str, bytes, int]]]:
    """A stream, and its events with the offset of the byte that completes each."""
    line_end = draw(line_ends)
    stream, expected = b"", []
    for at in range(draw(st.integers(0, 6))):
        lines = draw(st.lists(st.sampled_from([b": hi", b"id: 3", b"x"]), max_size=2))
        texts = draw(st.lists(st.binary(max_size=6).filter(lambda b: not set(b) & {10, 13}), min_size=1, max_size=2))
        colon = draw(st.sampled_from([b"data: ", b"data:"]))
        data = [text.removeprefix(b" ") if colon == b"data:" else text for text in texts]
        name = "error" if draw(st.booleans()) else ""
        lines += [b"event: error"] if name else []
        stream += b"".join(line + line_end for line in [*lines, *(colon + text for text in texts)])
        expected.append((name, b"\n".join(data), len(stream)))
        stream += line_end
        if draw(st.booleans()):
            stream += b": keep-alive %d" % at + line_end * 2
    return stream, expected


@given(material=streams(), points=cuts, bom=st.booleans(), at_line_ends=st.booleans())
def test_any_split_gives_the_same_events_at_the_read_that_completed_each(
    material: tuple[bytes, list[tuple[str, bytes, int]]], points: list[int], bom: bool, at_line_ends: bool
) -> None:
    stream, expected = material
    before = 3 if bom else 0
    if at_line_ends and stream:
        line_starts = [before + at + 1 for at, byte in enumerate(stream) if byte in b"\r\n"]
        points = [line_starts[point % len(line_starts)] for point in points]
    pieces = cut(b"\xef\xbb\xbf" * bom + stream, points)
    ends = list(accumulate(map(len, pieces)))
    body = [(100 + at, piece) for at, piece in enumerate(pieces)]

    def read_of(offset: int) -> int:
        return 100 + next(at for at, end in enumerate(ends) if end > offset + before)

    assert [event for event in events(body) if event.framed] == [
        SseEvent(read_of(offset), name, data) for name, data, offset in expected
    ]
