"""Decoders on bodies in memory: providers' shapes, and what no provider should send."""

import json
from itertools import accumulate

import pytest
from hypothesis import given
from hypothesis import strategies as st
from wire.test_http import cut, cuts

from llmexp.clients import anthropic, gemini, openai
from llmexp.clients.base import Answer, Failure, Response, TokenEvent, Usage
from llmexp.clients.decoding import BEYOND_BELIEF, Wire, decode, is_noise
from llmexp.companion.calls import calls_of
from llmexp.worker import own_stream

FOLDS = {"openai": openai.WIRE, "anthropic": anthropic.WIRE, "gemini": gemini.WIRE}


def sse(*values: object, done: bool = False) -> bytes:
    stream = b"".join(b"data: %b\n\n" % json.dumps(value).encode() for value in values)
    return stream + b"data: [DONE]\n\n" * done


def read(body: bytes, wire: Wire = openai.WIRE, status: int = 200, complete: bool = True, **headers: str) -> Answer:
    return decode(Response(status, headers, [(1, body)], complete), wire)


def texts(answer: Answer) -> list[tuple[str, str]]:
    return [(event.kind, event.text) for event in answer.events]


def delta(reason: str | None = None, **fields: object) -> dict[str, object]:
    return {"choices": [{"index": 0, "delta": fields, "finish_reason": reason}]}


# --- OpenAI ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("fields", "expected"),
    [
        ({"role": "assistant", "content": ""}, []),
        ({"role": "assistant", "content": None}, []),
        ({}, []),
        ({"content": "hi"}, [("answer", "hi")]),
        ({"reasoning_content": "hm", "content": None}, [("reasoning", "hm")]),
        ({"reasoning": "hm"}, [("reasoning", "hm")]),
        ({"reasoning": "hm", "reasoning_content": "hm"}, [("reasoning", "hm")]),
        ({"reasoning": "hm", "content": "hi"}, [("reasoning", "hm"), ("answer", "hi")]),
        ({"refusal": "no"}, [("answer", "no")]),
        ({"tool_calls": [{"index": 0, "id": "1", "function": {"name": "f", "arguments": ""}}]}, [("tool", "f")]),
        ({"tool_calls": [{"index": 0, "function": {"arguments": '{"a"'}}]}, [("tool", '{"a"')]),
        ({"tool_calls": [{"function": {"name": "f", "arguments": {"a": 1}}}]}, [("tool", 'f{"a":1}')]),
        ({"function_call": {"name": "f", "arguments": "{}"}}, [("tool", "f{}")]),
        ({"content": [{"type": "text", "text": "hi"}]}, [("answer", "hi")]),
        ({"content": [{"type": "thinking", "thinking": [{"type": "text", "text": "hm"}]}]}, [("reasoning", "hm")]),
        ({"content": [{"type": "reasoning", "summary": [{"text": "hm"}]}]}, [("reasoning", "hm")]),
    ],
)
def test_openai_deltas(fields: dict[str, object], expected: list[tuple[str, str]]) -> None:
    answer = read(sse(delta(**fields)))
    assert (texts(answer), answer.failure, answer.finished) == (expected, None, False)


def calls(*listed: dict[str, object]) -> dict[str, object]:
    return delta(tool_calls=list(listed))


def test_calls_side_by_side_are_told_apart_though_one_has_no_arguments() -> None:
    two = [
        calls({"index": 0, "id": "a", "function": {"name": "now", "arguments": ""}}),
        calls({"index": 1, "id": "b", "function": {"name": "look", "arguments": ""}}),
        calls({"index": 1, "function": {"arguments": '{"x": '}}),
        calls({"index": 1, "function": {"arguments": "1}"}}),
    ]
    expected = [{"name": "now", "arguments": ""}, {"name": "look", "arguments": '{"x": 1}'}]
    assert calls_of(read(sse(*two)).events) == expected
    blocks: list[dict[str, object]] = [
        {"type": "content_block_start", "index": 0, "content_block": {"type": "tool_use", "name": "now", "input": {}}},
        {"type": "content_block_delta", "index": 0, "delta": {"type": "input_json_delta", "partial_json": ""}},
        {"type": "content_block_start", "index": 1, "content_block": {"type": "tool_use", "name": "look", "input": {}}},
        {"type": "content_block_delta", "index": 1, "delta": {"type": "input_json_delta", "partial_json": '{"x": 1}'}},
    ]
    assert calls_of(read(sse(*blocks), anthropic.WIRE).events) == expected


def test_calls_that_litellm_streams_itself_are_told_apart() -> None:
    heard = [TokenEvent(1, "tool", "now", "now"), TokenEvent(2, "tool", "look", "look"), TokenEvent(3, "tool", "{}")]
    body = b"".join(own_stream.framed({"delta": own_stream.delta(each)}) for each in heard)
    assert calls_of(read(body).events) == [{"name": "now", "arguments": ""}, {"name": "look", "arguments": "{}"}]


def test_a_name_in_pieces_is_one_name() -> None:
    pieces = [
        calls({"index": 0, "id": "a", "function": {"name": "get_", "arguments": ""}}),
        calls({"index": 0, "function": {"name": "weather", "arguments": ""}}),
        calls({"index": 0, "function": {"arguments": "{}"}}),
    ]
    assert calls_of(read(sse(*pieces)).events) == [{"name": "get_weather", "arguments": "{}"}]


def test_openai_text_completions() -> None:
    answer = read(sse({"choices": [{"text": "a"}]}, {"choices": [{"text": "b", "finish_reason": "stop"}]}))
    assert (texts(answer), answer.finish_reason) == ([("answer", "a"), ("answer", "b")], "stop")


@pytest.mark.parametrize(
    ("raw", "expected"),
    [
        ({"prompt_tokens": 5, "completion_tokens": 7, "total_tokens": 12}, Usage(5, 7)),
        (
            {"prompt_tokens": 5, "completion_tokens": 7, "prompt_tokens_details": {"cached_tokens": 4}},
            Usage(5, 7, None, 4),
        ),
        (
            {"prompt_tokens": 5, "completion_tokens": 7, "completion_tokens_details": {"reasoning_tokens": 6}},
            Usage(5, 7, 6),
        ),
        ({"prompt_tokens": 5, "completion_tokens": 7, "prompt_cache_hit_tokens": 2}, Usage(5, 7, None, 2)),
        (
            {
                "prompt_tokens": 5,
                "completion_tokens": 1,
                "total_tokens": 12,
                "completion_tokens_details": {"reasoning_tokens": 6},
            },
            Usage(5, 7, 6),
        ),
        ({"prompt_tokens": None, "completion_tokens": "7", "prompt_tokens_details": None}, Usage(None, 7)),
        ({"prompt_tokens": True, "completion_tokens": -1}, Usage(BEYOND_BELIEF, BEYOND_BELIEF)),
        ({"input_tokens": " 5 ", "output_tokens": 7.0, "input_tokens_details": []}, Usage(5, 7)),
    ],
)
def test_openai_usage(raw: dict[str, object], expected: Usage) -> None:
    assert read(sse(delta(content="a"), {"choices": [], "usage": raw})).usage == expected


def test_openai_usage_may_ride_on_the_last_chunk_or_on_each() -> None:
    each = [delta(content="a") | {"usage": {"completion_tokens": n}} for n in (1, 2, 3)]
    assert read(sse(*each)).usage.output_tokens == 3
    groq = delta("stop") | {"x_groq": {"usage": {"completion_tokens": 4, "total_time": 0.5}}}
    assert read(sse(groq)).server_latency_s == 0.5


def test_llama_cpp_timings_stand_in_for_usage() -> None:
    timings = {"cache_n": 2, "prompt_n": 3, "prompt_ms": 100.0, "predicted_n": 7, "predicted_ms": 400.0}
    answer = read(sse(delta("stop") | {"timings": timings}))
    assert (answer.usage, answer.server_latency_s) == (Usage(5, 7, None, 2), 0.5)


@pytest.mark.parametrize(
    ("body", "code", "message"),
    [
        (sse({"error": {"message": "boom", "type": "server_error", "code": None}}), "server_error", "boom"),
        (sse({"error": {"message": "boom", "code": 502}}), "502", "boom"),
        (sse({"error": "boom", "error_type": "overloaded"}), "overloaded", "boom"),
        (
            sse({"object": "error", "message": "boom", "code": 400, "type": "BadRequestError"}),
            "BadRequestError",
            "boom",
        ),
        (b'event: error\ndata: {"message": "boom"}\n\n', None, "boom"),
        (b"event: error\ndata: boom\n\n", None, "boom"),
        (sse(delta("error", content="") | {"error": {"code": 1, "message": "boom"}}), "1", "boom"),
        (b'{"error": {"message": "boom"}}', None, "boom"),
        (b'event: error\ndata: "boom"\n\n', None, "boom"),
    ],
)
def test_openai_errors_after_200(body: bytes, code: str | None, message: str) -> None:
    before = sse(delta(content="a")) if body[:1] != b"{" else b""
    answer = read(before + body + (sse(delta(content="never")) if before else b""))
    assert answer.failure is not None
    assert (answer.failure.error_class, answer.failure.code, answer.failure.message) == ("in_stream", code, message)
    assert texts(answer) == ([("answer", "a")] if before else [])


def test_openai_finish_reasons_that_are_none() -> None:
    assert not read(sse(delta("", content="a"), delta("null", content="b"))).finished


def test_openai_chunks_that_repeat_the_whole_message_count_once() -> None:
    def chunk(text: str, so_far: str, reason: str | None = None) -> dict[str, object]:
        fields = {"content": text} if text else {}
        return {"choices": [{"delta": fields, "message": {"content": so_far}, "finish_reason": reason}]}

    assert not read(sse(chunk("a", "a"))).finished
    answer = read(sse(chunk("a", "a"), chunk(" b", "a b"), chunk("", "a b", "stop")))
    assert (texts(answer), answer.finished) == ([("answer", "a"), ("answer", " b")], True)


def test_openai_null_error_is_no_error() -> None:
    assert read(sse(delta("stop", content="a") | {"error": None})).failure is None


def test_openai_whole_answer() -> None:
    message = {"role": "assistant", "content": "hi there", "reasoning_content": "hm", "tool_calls": None}
    body = json.dumps({"choices": [{"message": message, "finish_reason": None}], "usage": {"completion_tokens": 3}})
    answer = read(body.encode())
    assert texts(answer) == [("reasoning", "hm"), ("answer", "hi there")]
    assert (answer.finished, answer.usage.output_tokens) == (True, 3)


# --- Anthropic -------------------------------------------------------------------------------------------------------

START = {
    "type": "message_start",
    "message": {
        "content": [],
        "stop_reason": None,
        "usage": {
            "input_tokens": 10,
            "cache_creation_input_tokens": 3,
            "cache_read_input_tokens": 20,
            "output_tokens": 1,
        },
    },
}
STOP = {"type": "message_delta", "delta": {"stop_reason": "end_turn"}, "usage": {"output_tokens": 9}}


def block(kind: str, **fields: object) -> dict[str, object]:
    return {"type": "content_block_start", "index": 0, "content_block": {"type": kind, **fields}}


def block_delta(kind: str, **fields: object) -> dict[str, object]:
    return {"type": "content_block_delta", "index": 0, "delta": {"type": kind, **fields}}


def test_anthropic_stream() -> None:
    answer = read(
        sse(
            START,
            {"type": "ping"},
            block("thinking", thinking=""),
            block_delta("thinking_delta", thinking="hm"),
            block_delta("signature_delta", signature="xyz"),
            block("text", text=""),
            block_delta("text_delta", text="hi"),
            block("tool_use", id="1", name="f", input={}),
            block_delta("input_json_delta", partial_json=""),
            block_delta("input_json_delta", partial_json='{"a"'),
            {"type": "content_block_stop", "index": 0},
            {"type": "a_type_of_next_year", "anything": 1},
            STOP,
            {"type": "message_stop"},
        ),
        anthropic.WIRE,
    )
    assert texts(answer) == [("reasoning", "hm"), ("answer", "hi"), ("tool", "f"), ("tool", '{"a"')]
    assert answer.usage == Usage(33, 9, None, 20, cache_write_tokens=3)
    assert (answer.finish_reason, answer.finished, answer.reasoning_summarised) == ("end_turn", True, True)


def test_anthropic_cut_stream_has_no_output_count() -> None:
    answer = read(sse(START, block_delta("text_delta", text="hi")), anthropic.WIRE)
    assert (answer.usage.input_tokens, answer.usage.output_tokens, answer.finished) == (33, None, False)


def test_anthropic_error_event() -> None:
    failed = {"type": "error", "error": {"type": "overloaded_error", "message": "Overloaded"}}
    answer = read(sse(START, block_delta("text_delta", text="hi"), failed), anthropic.WIRE)
    assert answer.failure is not None
    assert (answer.failure.error_class, answer.failure.code) == ("in_stream", "overloaded_error")
    assert texts(answer) == [("answer", "hi")]


def test_anthropic_whole_message() -> None:
    content = [{"type": "text", "text": "hi"}, {"type": "tool_use", "name": "f", "input": {"a": 1}}]
    message = {"type": "message", "content": content, "stop_reason": "end_turn", "usage": {"output_tokens": 9}}
    answer = read(json.dumps(message).encode(), anthropic.WIRE)
    assert texts(answer) == [("answer", "hi"), ("tool", 'f{"a":1}')]
    assert (answer.usage.output_tokens, answer.finished) == (9, True)


# --- Gemini ----------------------------------------------------------------------------------------------------------


def candidate(*parts: dict[str, object], reason: str | None = None) -> dict[str, object]:
    found: dict[str, object] = {"content": {"role": "model", "parts": list(parts)}, "index": 0}
    return {"candidates": [found | ({"finishReason": reason} if reason else {})]}


GEMINI = [
    candidate({"text": "hm", "thought": True}),
    candidate({"text": "hi"}, {"functionCall": {"name": "f", "args": {"a": 1}}}),
    candidate({"text": ""}, reason="STOP")
    | {
        "usageMetadata": {
            "promptTokenCount": 8,
            "candidatesTokenCount": 4,
            "thoughtsTokenCount": 6,
            "cachedContentTokenCount": 2,
            "totalTokenCount": 18,
        }
    },
]


@pytest.mark.parametrize("body", [sse(*GEMINI), json.dumps(GEMINI, indent=1).encode(), json.dumps(GEMINI).encode()])
@given(points=cuts)
def test_gemini_stream_in_both_forms(body: bytes, points: list[int]) -> None:
    pieces = cut(body, points)
    answer = gemini.explain(Response(200, {}, list(enumerate(pieces)), complete=True))
    assert texts(answer) == [("reasoning", "hm"), ("answer", "hi"), ("tool", 'f{"a":1}')]
    assert answer.usage == Usage(8, 10, 6, 2)
    assert (answer.finish_reason, answer.finished, answer.reasoning_summarised) == ("STOP", True, True)
    assert [event.at_ns for event in answer.events] == sorted(event.at_ns for event in answer.events)


def test_gemini_array_elements_arrive_when_their_brace_closes() -> None:
    body = json.dumps(GEMINI).encode()
    second = body.index(b"}, {", body.index(b'"hi"') + 40) + 1
    answer = gemini.explain(Response(200, {}, [(1, body[: second - 1]), (2, body[second - 1 :])], complete=True))
    assert [event.at_ns for event in answer.events] == [1, 2, 2]


def test_gemini_errors_and_blocks() -> None:
    failed = [{"error": {"code": 503, "message": "busy", "status": "UNAVAILABLE"}}]
    answer = read(json.dumps(failed).encode(), gemini.WIRE)
    assert answer.failure is not None
    assert (answer.failure.error_class, answer.failure.code) == ("in_stream", "UNAVAILABLE")
    blocked = read(sse({"promptFeedback": {"blockReason": "SAFETY"}}), gemini.WIRE)
    assert (blocked.finish_reason, blocked.finished) == ("blocked: SAFETY", True)


# --- statuses --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("status", "body", "headers", "error_class", "code", "message"),
    [
        (401, {"error": {"message": "bad key", "code": "invalid_api_key"}}, {}, "auth", "invalid_api_key", "bad key"),
        (403, {"message": "no access"}, {}, "auth", "403", "no access"),
        (404, {"detail": "Not Found"}, {}, "not_found", "404", "Not Found"),
        (429, {"error": {"message": "slow"}}, {"retry-after": "7"}, "throttled", "429", "slow (Retry-After: 7)"),
        (400, {"__type": "a.b#ThrottlingException", "message": "x"}, {}, "throttled", "ThrottlingException", "x"),
        (
            400,
            {"message": "x"},
            {"x-amzn-errortype": "ValidationException:http://y"},
            "bad_request",
            "ValidationException",
            "x",
        ),
        (422, {"detail": [{"msg": "field required"}]}, {}, "bad_request", "422", '[{"msg":"field required"}]'),
        (500, "<html>oops</html>", {}, "server", "500", "<html>oops</html>"),
        (503, "", {}, "server", "503", "HTTP 503 without a body"),
        (
            529,
            {"type": "error", "error": {"type": "overloaded_error", "message": "x"}},
            {},
            "server",
            "overloaded_error",
            "x",
        ),
        (
            400,
            [{"error": {"code": 400, "message": "x", "status": "INVALID_ARGUMENT"}}],
            {},
            "bad_request",
            "INVALID_ARGUMENT",
            "x",
        ),
        (302, "", {"location": "/login"}, "bad_request", "302", None),
    ],
)
def test_statuses(
    status: int, body: object, headers: dict[str, str], error_class: str, code: str, message: str | None
) -> None:
    raw = body.encode() if isinstance(body, str) else json.dumps(body).encode()
    failure = decode(Response(status, headers, [(1, raw)], complete=True), openai.WIRE).failure
    assert failure is not None
    assert (failure.error_class, failure.code) == (error_class, code)
    assert failure.message == message if message else "/login" in failure.message


# --- whatever else ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("body", [b"<html>hello</html>", b"data: {nonsense}\n\n", b"[] trailing"])
@pytest.mark.parametrize("api", FOLDS)
def test_other_bodies_are_malformed(body: bytes, api: str) -> None:
    answer = read(body, FOLDS[api])
    assert answer.failure is not None
    assert answer.failure.error_class == "malformed"


@pytest.mark.parametrize("api", FOLDS)
def test_an_object_that_is_no_chunk_is_an_error(api: str) -> None:
    answer = read(b'{"a": 1}', FOLDS[api])
    assert answer.failure == Failure("in_stream", None, '{"a":1}')


@pytest.mark.parametrize(
    "body", [b'data: {"choices": [{"del', b'{"choices": [{"mess', b'{"a": "br}', b"dat", b"\xef\xbb"]
)
def test_half_a_payload_is_left_to_the_framing(body: bytes) -> None:
    assert read(body, complete=False) == Answer()


def test_a_last_event_without_its_blank_line_counts() -> None:
    answer = read(sse(delta(content="a")) + sse(delta("stop"))[:-2] + b"\n")
    assert answer.finish_reason == "stop"
    assert read(sse(delta(content="a")) + b"data: [DONE]").finished


KNOWN = (
    "choices delta message content text usage error object type finish_reason tool_calls function arguments reasoning "
    "timings candidates parts usageMetadata content_block promptFeedback completion_tokens prompt_tokens"
)
leaves = (
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(max_size=5)
)
names = st.sampled_from(KNOWN.split()) | st.text(max_size=3)
json_values = st.recursive(
    leaves, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(names, inner, max_size=4), max_leaves=12
)


@given(
    values=st.lists(json_values, max_size=4), api=st.sampled_from(sorted(FOLDS)), form=st.sampled_from(["sse", "array"])
)
def test_no_json_makes_a_decoder_raise(values: list[object], api: str, form: str) -> None:
    body = sse(*values) if form == "sse" else json.dumps(values).encode()
    answer = read(body, FOLDS[api])
    assert all(isinstance(event.text, str) for event in answer.events)
    assert answer.finish_reason is None or isinstance(answer.finish_reason, str)
    assert answer.usage.output_tokens is None or isinstance(answer.usage.output_tokens, int)


@given(body=st.binary(max_size=80), api=st.sampled_from(sorted(FOLDS)), status=st.sampled_from([200, 500]))
def test_no_bytes_make_a_decoder_raise(body: bytes, api: str, status: int) -> None:
    answer = read(body, FOLDS[api], status)
    assert (answer.failure is not None) or status == 200


@given(points=cuts, words=st.lists(st.text(min_size=1, max_size=4), min_size=1, max_size=6))
def test_openai_stamps_are_those_of_the_completing_reads(points: list[int], words: list[str]) -> None:
    parts = [sse(delta(content=word)) for word in words]
    body = b"".join(parts) + sse(delta("stop"), done=True)
    pieces = cut(body, points)
    ends = list(accumulate(map(len, pieces)))
    answer = decode(Response(200, {}, list(enumerate(pieces)), complete=True), openai.WIRE)
    completed = list(accumulate(map(len, parts)))
    expected = [next(at for at, end in enumerate(ends) if end >= offset) for offset in completed]
    assert [(event.at_ns, event.text) for event in answer.events] == list(zip(expected, words, strict=True))


@pytest.mark.parametrize("text", ["mon, " * 39 + "!x", "mon" * 66 + "x", " " * 199 + "x", "ping " * 39 + "x"])
def test_what_looks_like_a_time_for_long_takes_no_time(text: str) -> None:
    assert not is_noise(text)


@pytest.mark.parametrize("text", ["ping - 2024-04-07 20:20:50.551012", "heartbeat 12", "no-op", "2024年4月7日", ""])
def test_heartbeats_and_times(text: str) -> None:
    assert is_noise(text)


@pytest.mark.parametrize("text", ["no", "error while processing", "not ok", "5 tokens", "connection closed"])
def test_other_words_are_no_heartbeat(text: str) -> None:
    assert not is_noise(text)


def test_a_long_message_is_cut_before_it_is_searched_for_secrets() -> None:
    failure = Failure.of("in_stream", None, "http://u:" + "a" * 1_000_000)
    assert len(failure.message) <= 500


def test_zeros_beside_other_parts_of_a_later_usage_replace_nothing() -> None:
    start = {"input_tokens": 20, "cache_read_input_tokens": 5, "output_tokens": 1}
    later = {"input_tokens": 0, "cache_read_input_tokens": 5, "output_tokens": 7}
    body = sse(
        {"type": "message_start", "message": {"usage": start}},
        {"type": "content_block_delta", "index": 0, "delta": {"type": "text_delta", "text": "a"}},
        {"type": "message_delta", "delta": {"stop_reason": "end_turn"}, "usage": later},
    )
    assert read(body, anthropic.WIRE).usage == Usage(25, 7, None, 5)
    assert read(body[: body.index(b'{"type": "message_delta"')], anthropic.WIRE).usage == Usage(25, None, None, 5)


@pytest.mark.parametrize("between", [b"", b"\n", b"\ndata: ", b"\n\ndata: "])
def test_several_objects_of_one_event_are_read_one_by_one(between: bytes) -> None:
    first, second = (json.dumps(delta(content=text)).encode() for text in ("a", " b"))
    answer = read(b"data: " + first + between + second + b"\n\ndata: [DONE]\n\n")
    assert [text for _, text in texts(answer)] == ["a", " b"]
    assert (answer.failure, answer.finished) == (None, True)


def test_an_object_over_several_lines_may_be_marked_at_the_first_alone() -> None:
    answer = read(b"data: " + json.dumps(delta(content="a"), indent=2).encode() + b"\n\ndata: [DONE]\n\n")
    assert (texts(answer), answer.failure) == ([("answer", "a")], None)
