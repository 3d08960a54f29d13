"""From tapes to records: the verdict and the numbers, without a socket."""

import json
from array import array
from itertools import accumulate

import pytest
from hypothesis import given
from hypothesis import strategies as st
from support.reader import REQUEST, Words
from support.sse_server import LAST_CHUNK, chunk, head, streamed, whole
from wire.test_http import cut, cuts

from llmexp.clients import anthropic, openai
from llmexp.clients.base import Answer, Failure, Response, TokenEvent, Usage
from llmexp.clients.decoding import Wire, decode
from llmexp.companion.explain import record
from llmexp.companion.token_shares import allot, largest_remainder
from llmexp.records import Record
from llmexp.worker.pool import Tape

pytestmark = pytest.mark.service

MS = 1_000_000


class Explains:
    """A client that only explains."""

    def __init__(self, wire: Wire = openai.WIRE) -> None:
        self.wire = wire

    def explain(self, response: Response) -> Answer:
        return decode(response, self.wire)


def tape(*pieces: bytes, eof: bool = False, failure: Failure | None = None, unfinished: bool = False) -> Tape:
    """Reads at 1, 2, 3, … ms; sent at 0.5 ms."""
    stamps = array("q", [MS * (at + 1) for at in range(len(pieces))])
    return Tape(7, False, 0, 100, MS // 2, 0.25, 0.0, stamps, list(pieces), MS * 99, eof, failure, unfinished, 0)


def explained(taken: Tape, tokenizer: Words | None = None, wire: Wire = openai.WIRE) -> Record:
    return record(taken, REQUEST, Explains(wire), tokenizer or Words(), 3)


def event(text: str | None = None, reason: str | None = None, field: str = "content", **more: object) -> bytes:
    delta = {} if text is None else {field: text}
    choices = [{"index": 0, "delta": delta, "finish_reason": reason}]
    return b"data: %b\n\n" % json.dumps({"choices": choices} | more).encode()


def usage(prompt: int, completion: int, reasoning: int | None = None) -> bytes:
    found: dict[str, object] = {"prompt_tokens": prompt, "completion_tokens": completion}
    if reasoning is not None:
        found["completion_tokens_details"] = {"reasoning_tokens": reasoning}
    return b"data: %b\n\n" % json.dumps({"choices": [], "usage": found}).encode()


DONE = b"data: [DONE]\n\n"


# --- verdicts --------------------------------------------------------------------------------------------------------


def test_a_good_stream() -> None:
    row = explained(tape(*streamed(event(""), event("a"), event(" b"), event(None, "stop"), usage(9, 3), DONE)))
    assert (row.status, row.error_class, row.http_status, row.finish_reason) == ("completed", None, 200, "stop")
    assert (row.index, row.worker, row.wait_s, row.max_tokens, row.prompt_digest) == (7, 3, 0.25, 16, "digest")
    assert (row.sent_ns, row.first_byte_ns, row.end_ns) == (MS // 2, MS, 99 * MS)
    assert (row.first_token_ns, row.first_answer_token_ns, row.last_token_ns) == (3 * MS, 3 * MS, 4 * MS)
    assert (row.chunk_ns, row.chunk_tokens, row.chunk_tokens_source) == ([3 * MS, 4 * MS], [1, 2], "server")
    assert (row.input_tokens, row.input_tokens_source, row.input_tokens_counted) == (9, "server", 3)
    assert (row.output_tokens, row.output_tokens_source) == (3, "server")
    assert row.text == "a b"


def test_a_clean_close_after_the_finish_mark_completes() -> None:
    parts = streamed(event("a"), event(None, "stop"))[:-1]
    assert explained(tape(*parts, eof=True)).status == "completed"


@pytest.mark.parametrize("eof", [True, False])
def test_without_a_finish_mark_it_is_cut(eof: bool) -> None:
    row = explained(tape(*streamed(event("a"), event(" b")), eof=eof))
    assert (row.status, row.error_class, row.chunk_ns) == ("failed", "cut", [2 * MS, 3 * MS])
    assert (row.output_tokens, row.output_tokens_source) == (2, "tokenizer")


def test_half_an_event_is_cut_and_keeps_what_came_before() -> None:
    head_part, first, second, *_ = streamed(event("a"), event(" b"))
    row = explained(tape(head_part, first, second[:30], eof=True))
    assert (row.error_class, row.chunk_ns) == ("cut", [2 * MS])


@pytest.mark.parametrize(
    ("pieces", "expected"),
    [
        ([], "cut"),
        ([b"HTTP/1.1 200 OK\r\nCont"], "cut"),
        ([head(chunked=True)], "cut"),
        ([head(length=0)], "empty"),
        (streamed(event(""), event(None, "stop"), usage(9, 0), DONE), "empty"),
        (streamed(b": ping\n\n"), "empty"),
        ([b"SSH-2.0-OpenSSH\r\n"], "malformed"),
        (whole(b"<html>", content_type="text/html"), "malformed"),
        (whole(b'{"error": {"message": "x"}}', "404 Not Found"), "not_found"),
        (whole(b"slow down", "429 Too Many Requests"), "throttled"),
        ([*streamed(event("a"))[:2], b"zz\r\nnonsense"], "malformed"),
        ([head("500 Oops", chunked=True) + b"zz\r\nnonsense"], "server"),
        (streamed(event("a"), b'data: {"error": {"message": "x"}}\n\n', DONE), "in_stream"),
        ([head(chunked=True, more="Content-Encoding: gzip\r\n"), chunk(b"not gzip"), LAST_CHUNK], "malformed"),
    ],
)
def test_error_classes(pieces: list[bytes], expected: str) -> None:
    row = explained(tape(*pieces, eof=True))
    assert (row.status, row.error_class) == ("failed", expected)
    assert row.error_message


def test_what_was_timed_before_broken_framing_is_kept() -> None:
    row = explained(tape(*streamed(event("a"))[:2], b"zz\r\nnonsense"))
    assert (row.error_class, row.first_token_ns, row.chunk_ns, row.text) == ("malformed", 2 * MS, [2 * MS], "a")


def test_hidden_reasoning_alone_is_empty_and_says_so() -> None:
    row = explained(tape(*streamed(event(None, "length"), usage(9, 16, 16), DONE)))
    assert (row.error_class, row.output_tokens, row.chunk_ns) == ("empty", 16, [])
    assert "16" in (row.error_message or "")


def test_transport_failures_stand_unless_the_server_said_more() -> None:
    timeout = Failure.of("timeout", None, "no byte for 30 s")
    row = explained(tape(*streamed(event("a"))[:2], failure=timeout))
    assert (row.error_class, row.error_message, row.chunk_ns) == ("timeout", "no byte for 30 s", [2 * MS])
    refused = [head("500 Oops", "text/plain", length=99) + b"half a body"]
    assert explained(tape(*refused, eof=True, failure=Failure.of("cut", 104, "reset"))).error_class == "server"
    lost = Tape(7, False, 0, 100, None, 0, 0, array("q"), [], 5, False, Failure.of("connect", 111, "no"), False, 0)
    row = explained(lost)
    assert (row.error_class, row.error_code, row.sent_ns, row.first_byte_ns) == ("connect", "111", None, None)


@pytest.mark.parametrize("pieces", [[], [head(chunked=True)], streamed(event("a"), event(" b"))[:3]])
def test_what_grace_cuts_is_unfinished(pieces: list[bytes]) -> None:
    row = explained(tape(*pieces, unfinished=True))
    assert (row.status, row.error_class) == ("unfinished", None)
    assert sum(row.chunk_tokens) == max(0, len(pieces) - 1)


def test_a_fault_of_the_client_costs_one_request() -> None:
    class Broken:
        def explain(self, response: Response) -> Answer:
            raise RuntimeError("oops")

    row = record(tape(*streamed(event("a"))), REQUEST, Broken(), Words(), 0)
    assert (row.status, row.error_class, row.error_code) == ("failed", "client", "RuntimeError")


@given(points=cuts, words=st.lists(st.text(min_size=1, max_size=4), min_size=1, max_size=6), closes=st.booleans())
def test_any_split_of_the_raw_bytes_gives_the_same_record(points: list[int], words: list[str], closes: bool) -> None:
    events = [event(word) for word in words]
    tail = [event(None, "stop"), usage(9, len(words)), DONE]
    parts = [head(), *events, *tail] if closes else streamed(*events, *tail)
    pieces = cut(b"".join(parts), points)
    read_ends, part_ends = list(accumulate(map(len, pieces))), list(accumulate(map(len, parts)))
    framing = 0 if closes else len(b"\r\n")
    whole_at = [part_ends[1 + at] - framing for at in range(len(words))]
    reads = [next(at for at, end in enumerate(read_ends) if end >= offset) for offset in whole_at]
    row = explained(tape(*pieces, eof=closes))
    assert (row.status, row.text, row.output_tokens) == ("completed", "".join(words), len(words))
    assert row.chunk_ns == [MS * (at + 1) for at in dict.fromkeys(reads)]
    assert row.chunk_tokens == [reads.count(at) for at in dict.fromkeys(reads)]


# --- tokens ----------------------------------------------------------------------------------------------------------


def test_events_of_one_read_are_one_chunk() -> None:
    first, *middle, last = streamed(event("a"), event(" b"), event(" c"), event(None, "stop"), usage(9, 3), DONE)
    row = explained(tape(first, middle[0] + middle[1], middle[2], b"".join(middle[3:]) + last))
    assert (row.chunk_ns, row.chunk_tokens) == ([2 * MS, 3 * MS], [2, 1])


def test_hidden_reasoning_is_billed_but_not_streamed() -> None:
    row = explained(tape(*streamed(event("a"), event(" b", "stop"), usage(9, 12, 10), DONE)))
    assert (row.output_tokens, row.reasoning_tokens, sum(row.chunk_tokens)) == (12, 10, 2)
    assert not row.reasoning_streamed


def test_streamed_reasoning_counts_and_is_told_apart() -> None:
    parts = [event("hm", field="reasoning_content"), event(" so", field="reasoning"), event("a", "stop")]
    row = explained(tape(*streamed(*parts, usage(9, 3), DONE)))
    assert (row.first_token_ns, row.first_answer_token_ns, row.reasoning_streamed) == (2 * MS, 4 * MS, True)
    assert (row.reasoning_tokens, row.reasoning_tokens_source, row.text) == (2, "server", "a")


def test_only_reasoning_has_no_answer_token() -> None:
    row = explained(tape(*streamed(event("hm", "length", field="reasoning"), usage(9, 1), DONE)))
    assert (row.status, row.first_token_ns, row.first_answer_token_ns) == ("completed", 2 * MS, None)


def answer(*texts: str, billed: int | None = None, same_read: bool = False, **fields: object) -> Answer:
    events = [TokenEvent(1 if same_read else at, "answer", text) for at, text in enumerate(texts)]
    return Answer(events, Usage(output_tokens=billed), **fields)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("given_answer", "tokenizer", "tokens", "source", "total_source"),
    [
        (answer("a", "b", billed=2), Words(), [1, 1], "server", "server"),
        (answer("a", "b", billed=3), Words(), [1, 2], "server", "server"),
        (answer("a b c", billed=9), Words(), [9], "server", "server"),
        (answer("a", "b c d", billed=9, same_read=True), Words(), [5, 4], "server", "server"),
        (answer("a", "b c d", billed=8), Words(), [2, 6], "tokenizer", "server"),
        (answer("a", "bcdef", billed=12), Words(in_process=False), [2, 10], "estimate", "server"),
        (answer("a", " b c d"), Words(), [1, 3], "tokenizer", "tokenizer"),
        (answer("a", " b c d"), Words(source="estimate"), [1, 3], "estimate", "estimate"),
        (answer("a", "b"), Words(in_process=False), [1, 1], "estimate", "estimate"),
        (answer("a" * 40, "b" * 40), Words(in_process=False), [10, 10], "estimate", "estimate"),
        (answer(" ", " "), Words(), [1, 0], "tokenizer", "tokenizer"),
        (answer("a", "b", billed=0), Words(in_process=False), [1, 1], "estimate", "estimate"),
    ],
)
def test_shares(given_answer: Answer, tokenizer: Words, tokens: list[int], source: str, total_source: str) -> None:
    found = allot(given_answer, tokenizer)
    assert (found.tokens, found.source, found.total_source) == (tokens, source, total_source)
    assert found.total == sum(tokens)


class Pairs(Words):
    """A tokenizer that is not the model's: a token for each three letters."""

    def count(self, text: str) -> int:
        return -(-len(text) // 3)


@pytest.mark.parametrize("in_process", [True, False])
@pytest.mark.parametrize(
    ("texts", "total"),
    [
        ([f" token-{at}" for at in range(9)], 9),  # a word each: a token each, whatever another model would make of it
        (["x"] * 9, 9),
        (list("Räder"), 2),  # letters of a word
        ([" two words"] * 9, 30),
        ([" " + "x" * 40] * 3, 41),
    ],
)
def test_an_estimate_gives_way_to_the_number_of_events_that_hold_a_word_each(
    texts: list[str], total: int, in_process: bool
) -> None:
    found = allot(answer(*texts), Pairs(source="estimate", in_process=in_process))
    expected = total if in_process or total == len(texts) else max(len(texts), round(len("".join(texts)) / 4))
    assert (found.total, found.total_source) == (expected, "estimate")


def test_a_summary_of_reasoning_is_counted_as_shown() -> None:
    shown = [TokenEvent(1, "reasoning", "well then"), TokenEvent(2, "answer", " a b")]
    split = allot(Answer(shown, Usage(None, 50, 47), reasoning_summarised=True), Words())
    assert (split.total, split.total_source) == (5, "tokenizer")
    unsplit = allot(Answer(shown, Usage(None, 50), reasoning_summarised=True), Words())
    assert (unsplit.total, unsplit.counted) == (4, 4)
    hidden = allot(Answer(shown[1:], Usage(None, 50, 47), reasoning_summarised=True), Words())
    assert (hidden.total, hidden.total_source) == (3, "server")


def test_anthropic_thinking_does_not_inflate_the_streamed_tokens() -> None:
    parts = [
        {"type": "message_start", "message": {"usage": {"input_tokens": 9, "output_tokens": 1}}},
        {"type": "content_block_start", "content_block": {"type": "redacted_thinking", "data": "x"}},
        {"type": "content_block_delta", "delta": {"type": "text_delta", "text": "a b"}},
        {"type": "message_delta", "delta": {"stop_reason": "end_turn"}, "usage": {"output_tokens": 300}},
    ]
    stream = [b"event: %b\ndata: %b\n\n" % (str(p["type"]).encode(), json.dumps(p).encode()) for p in parts]
    row = explained(tape(*streamed(*stream)), wire=anthropic.WIRE)
    assert (row.status, row.output_tokens, row.chunk_tokens, row.output_tokens_counted) == ("completed", 300, [2], 2)


def test_a_summary_of_reasoning_does_not_excuse_a_count_below_the_answer_s_pieces() -> None:
    parts = [
        {"type": "content_block_start", "content_block": {"type": "thinking", "thinking": ""}},
        *[{"type": "content_block_delta", "delta": {"type": "text_delta", "text": f" w{at}"}} for at in range(9)],
        {"type": "message_delta", "delta": {"stop_reason": "end_turn"}, "usage": {"output_tokens": 2}},
    ]
    row = explained(
        tape(*streamed(*[b"data: %b\n\n" % json.dumps(part).encode() for part in parts])), wire=anthropic.WIRE
    )
    assert (row.output_tokens, row.output_tokens_source, row.remarks) == (9, "tokenizer", ["output_tokens_refused"])


@given(weights=st.lists(st.integers(0, 50), min_size=1, max_size=20), total=st.integers(0, 500))
def test_largest_remainder_sums_and_stays_within_one(weights: list[int], total: int) -> None:
    shares = largest_remainder(weights, total)
    assert sum(shares) == total
    if sum(weights):
        exact = [weight * total / sum(weights) for weight in weights]
        assert all(abs(share - ideal) < 1 for share, ideal in zip(shares, exact, strict=True))
