"""Every stream shape that servers send, on a real socket, through the real engine."""

import gzip
import json
import zlib

import pytest
from support.reader import played
from support.sse_server import LAST_CHUNK, End, Script, chunk, head, streamed, whole
from wire.test_explain import DONE, event, usage

from llmexp.records import Record

pytestmark = pytest.mark.service

PAUSE_S = 0.03
FINISH = event(None, "stop")
ROLE = b'data: {"choices":[{"index":0,"delta":{"role":"assistant","content":""},"finish_reason":null}]}\n\n'
TAIL = [FINISH, usage(9, 2), DONE]


def paced(parts: list[bytes]) -> Script:
    """Each part in a read of its own."""
    script: list[bytes | float | End] = []
    for part in parts:
        script += [part, PAUSE_S]
    return script


def good(row: Record, *, text: str = "a b", chunks: int = 2, tokens: int = 2) -> Record:
    """Holds for every shape that carries a whole answer."""
    assert (row.status, row.error_message) == ("completed", None)
    assert (row.text, len(row.chunk_ns), sum(row.chunk_tokens)) == (text, chunks, tokens)
    assert row.sent_ns is not None
    assert row.first_byte_ns is not None
    assert row.end_ns is not None
    assert row.sent_ns < row.first_byte_ns <= row.chunk_ns[0]
    assert row.chunk_ns == sorted(row.chunk_ns)
    assert row.chunk_ns[-1] <= row.end_ns
    return row


def test_role_only_first_chunk_is_no_token() -> None:
    row = good(played(paced(streamed(ROLE, event("a"), event(" b"), *TAIL))))
    assert row.first_token_ns is not None
    assert row.first_byte_ns is not None
    assert row.first_token_ns - row.first_byte_ns > PAUSE_S * 1e9


def test_several_tokens_in_one_chunk() -> None:
    row = good(
        played(paced(streamed(event("a"), event(" b c d"), FINISH, usage(9, 8), DONE))), text="a b c d", tokens=8
    )
    assert (row.chunk_tokens, row.chunk_tokens_source) == ([2, 6], "tokenizer")


def test_a_chunk_split_across_reads_counts_when_it_is_whole() -> None:
    first, a, b, *rest = streamed(event("a"), event(" b"), *TAIL)
    row = good(played(paced([first, a, b[:20], b[20:60], b[60:], *rest])))
    assert row.chunk_ns[1] - row.chunk_ns[0] > 2.5 * PAUSE_S * 1e9


def test_a_split_inside_http_framing() -> None:
    first, a, b, *rest = streamed(event("a"), event(" b"), *TAIL)
    good(played(paced([first[:25], first[25:] + a[:1], a[1:-1], a[-1:] + b[:3], b[3:], *rest])))


def test_several_events_in_one_read() -> None:
    row = good(played([b"".join(streamed(event("a"), event(" b"), *TAIL))]), chunks=1)
    assert row.chunk_tokens == [2]


def test_keep_alive_comments() -> None:
    beat = b": keep-alive\n\n"
    good(played(paced(streamed(beat, event("a"), beat, event(" b"), b":\n\n", *TAIL))))


def test_data_without_a_space() -> None:
    parts = [part.replace(b"data: ", b"data:") for part in (event("a"), event(" b"), *TAIL)]
    good(played(paced(streamed(*parts))))


@pytest.mark.parametrize("line_end", [b"\r\n", b"\r"])
def test_other_line_ends(line_end: bytes) -> None:
    parts = [part.replace(b"\n", line_end) for part in (event("a"), event(" b"), *TAIL)]
    good(played(paced(streamed(*parts))))


def test_crlf_split_between_its_bytes() -> None:
    parts = [part.replace(b"\n", b"\r\n") for part in (event("a"), event(" b"), *TAIL)]
    halves = [half for part in parts for half in (part[:-1], part[-1:])]
    good(played(paced(streamed(*halves))))


def test_usage_with_empty_choices_and_late() -> None:
    script = [*paced(streamed(event("a"), event(" b"), FINISH)[:-1]), 0.2, chunk(usage(9, 2)), chunk(DONE), LAST_CHUNK]
    row = good(played(script))
    assert (row.input_tokens, row.output_tokens, row.output_tokens_source) == (9, 2, "server")
    assert row.end_ns is not None
    assert row.last_token_ns is not None
    assert row.end_ns - row.last_token_ns > 0.15e9


def test_usage_absent() -> None:
    row = good(played(paced(streamed(event("a"), event(" b"), FINISH, DONE))))
    assert (row.output_tokens, row.output_tokens_source, row.input_tokens_source) == (2, "tokenizer", "tokenizer")


@pytest.mark.parametrize("field", ["reasoning_content", "reasoning"])
def test_reasoning_tokens(field: str) -> None:
    row = good(played(paced(streamed(event("hm", field=field), event("a"), FINISH, usage(9, 2, 1), DONE))), text="a")
    assert (row.reasoning_tokens, row.reasoning_streamed) == (1, True)
    assert row.first_answer_token_ns == row.chunk_ns[1]


def test_tool_call_deltas() -> None:
    def call(**function: str) -> bytes:
        delta = {"tool_calls": [{"index": 0, "function": function}]}
        return b"data: %b\n\n" % json.dumps({"choices": [{"delta": delta}]}).encode()

    parts = [call(name="f", arguments=""), call(arguments='{"a":'), call(arguments="1}")]
    row = good(
        played(paced(streamed(*parts, event(None, "tool_calls"), usage(9, 3), DONE))), text="", chunks=3, tokens=3
    )
    assert (row.finish_reason, row.first_answer_token_ns) == ("tool_calls", row.chunk_ns[0])


@pytest.mark.parametrize("error", [b'{"error":{"message":"boom","code":500}}', b'{"object":"error","message":"boom"}'])
def test_an_error_object_after_200(error: bytes) -> None:
    row = played(paced(streamed(event("a"), b"data: " + error + b"\n\n", DONE)))
    assert (row.status, row.error_class, row.error_message, row.http_status) == ("failed", "in_stream", "boom", 200)
    assert len(row.chunk_ns) == 1


def test_no_done() -> None:
    good(played(paced(streamed(event("a"), event(" b"), FINISH))))


def test_no_done_and_no_last_chunk() -> None:
    good(played([*paced(streamed(event("a"), event(" b"), FINISH)[:-1]), End.CLOSE]))


@pytest.mark.parametrize("end", [End.CLOSE, End.RESET])
def test_connection_cut(end: End) -> None:
    row = played([*paced(streamed(event("a"), event(" b"))[:-1]), end])
    assert (row.status, row.error_class, len(row.chunk_ns), row.text) == ("failed", "cut", 2, "a b")
    assert row.finish_reason is None


def test_connection_cut_inside_an_event() -> None:
    first, a, b, _ = streamed(event("a"), event(" b"))
    row = played([*paced([first, a, b[:-30]]), End.CLOSE])
    assert (row.error_class, row.text) == ("cut", "a")


def test_connection_cut_inside_the_head() -> None:
    assert played([b"HTTP/1.1 200 OK\r\nContent-Ty", PAUSE_S, End.CLOSE]).error_class == "cut"


def test_content_length_stream() -> None:
    parts = [event("a"), event(" b"), *TAIL]
    good(played(paced([head(length=len(b"".join(parts))), *parts])))


@pytest.mark.parametrize("version", [b"HTTP/1.1", b"HTTP/1.0"])
def test_close_delimited_stream(version: bytes) -> None:
    start = head(more="Connection: close\r\n").replace(b"HTTP/1.1", version)
    good(played([*paced([start, event("a"), event(" b"), *TAIL]), End.CLOSE]))


@pytest.mark.parametrize(
    "script",
    [
        [head(length=0)],
        streamed(),
        streamed(ROLE, FINISH, usage(9, 0), DONE),
        whole(b'{"choices":[{"message":{"content":""},"finish_reason":"stop"}]}'),
        [head(more="Connection: close\r\n"), End.CLOSE],
    ],
)
def test_empty_answers(script: Script) -> None:
    row = played(script)
    assert (row.status, row.error_class, row.http_status) == ("failed", "empty", 200)


def test_an_answer_that_was_not_streamed() -> None:
    message = {"role": "assistant", "content": "a b"}
    body = {"choices": [{"message": message, "finish_reason": "stop"}], "usage": {"completion_tokens": 2}}
    raw = json.dumps(body).encode()
    row = good(played([head("200 OK", "application/json", length=len(raw)), raw[:40], PAUSE_S, raw[40:]]), chunks=1)
    assert row.first_token_ns == row.last_token_ns


def test_gzip_all_the_same() -> None:
    packer = zlib.compressobj(wbits=31)
    packed = [packer.compress(part) + packer.flush(zlib.Z_SYNC_FLUSH) for part in (event("a"), event(" b"), *TAIL)]
    packed.append(packer.flush())
    good(played(paced(streamed(*packed, more="Content-Encoding: gzip\r\n"))))
    body = gzip.compress(b"".join([event("a"), event(" b"), *TAIL]))
    good(played([head(length=len(body), more="Content-Encoding: gzip\r\n") + body]), chunks=1)


def test_chunk_extensions_and_trailers() -> None:
    first, *chunks, _ = streamed(event("a"), event(" b"), *TAIL)
    extended = [part.replace(b"\r\n", b";ext=1\r\n", 1) for part in chunks]
    good(played(paced([first, *extended, b"0\r\nX-Trailer: 1\r\n\r\n"])))


def test_both_length_headers() -> None:
    parts = streamed(event("a"), event(" b"), *TAIL, more="Content-Length: 5\r\n")
    good(played(paced(parts)))


def test_a_status_with_a_body_and_retry_after() -> None:
    body = b'{"error":{"message":"slow down","code":"rate_limit_exceeded"}}'
    row = played(whole(body, "429 Too Many Requests", more="Retry-After: 7\r\n"))
    assert (row.error_class, row.error_code, row.http_status) == ("throttled", "rate_limit_exceeded", 429)
    assert row.error_message == "slow down (Retry-After: 7)"


def test_garbage() -> None:
    row = played([b"220 smtp.example.org ESMTP\r\n", End.HANG])
    assert (row.status, row.error_class) == ("failed", "malformed")


def test_what_our_own_time_limit_cuts_is_unfinished() -> None:
    row = played([*streamed(event("a"), event(" b"))[:-1], End.HANG], cut_after_s=0.3)
    assert (row.status, row.error_class, row.text) == ("unfinished", None, "a b")


def test_anthropic_stream() -> None:
    parts = [
        {"type": "message_start", "message": {"usage": {"input_tokens": 4, "cache_read_input_tokens": 5}}},
        {"type": "content_block_start", "index": 0, "content_block": {"type": "text", "text": ""}},
        {"type": "ping"},
        {"type": "content_block_delta", "index": 0, "delta": {"type": "text_delta", "text": "a"}},
        {"type": "content_block_delta", "index": 0, "delta": {"type": "text_delta", "text": " b"}},
        {"type": "message_delta", "delta": {"stop_reason": "end_turn"}, "usage": {"output_tokens": 2}},
        {"type": "message_stop"},
    ]
    events = [b"event: %b\ndata: %b\n\n" % (str(p["type"]).encode(), json.dumps(p).encode()) for p in parts]
    row = good(played(paced(streamed(*events)), api="anthropic"))
    assert (row.input_tokens, row.cached_tokens, row.finish_reason) == (9, 5, "end_turn")
