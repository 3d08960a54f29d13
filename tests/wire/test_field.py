"""What real servers send, by every wire that can carry it, on real sockets: the right times, counts and verdicts.

Each test plays all the answers of one kind at once, by one wire, and says which of them was read wrongly.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import pytest
from support.aws_server import clean_environment
from support.aws_server import event as frame
from support.marks import THROUGH_LITELLM
from support.reader import played_all
from support.streams import STREAMS, Anthropic, AnyStream, Bedrock, Gemini, OpenAI, Tgi, script, sse

from llmexp.clients.base import Answer, TokenEvent, Usage
from llmexp.companion.belief import believed
from llmexp.records import Record
from llmexp.workload.request import Message, Request
from llmexp.workload.tokens import estimate_tokenizer

pytestmark = THROUGH_LITELLM

Events = list[bytes | float]
Cases = dict[str, tuple[Events, dict[str, object]]]
"""Name → what the server sends, and what the record must say (`seen_of` has the names beyond its columns)."""

TEXTS = [f" w{letter}" for letter in "abcdefghij"]
WHOLE = "".join(TEXTS)
SSE_WIRES = [name for name in STREAMS if "bedrock" not in name]
CHAT = ["openai", "sagemaker", "litellm/hosted_vllm", "litellm/sagemaker_chat"]
"""Wires whose chunks are OpenAI's."""
PAUSE_S = 0.03
GOOD: dict[str, object] = {
    "status": "completed",
    "error_message": None,
    "text": WHOLE,
    "output_tokens": 10,
    "tokens": 10,
    "chunks": 10,
    "ends_with_last_token": True,
}
BY_SERVER: dict[str, object] = {
    "input_tokens": 12,
    "input_tokens_source": "server",
    "output_tokens_source": "server",
    "remarks": [],
    "noise_events": 0,
}


@pytest.fixture(autouse=True)
def _environment(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    clean_environment(monkeypatch, tmp_path)
    monkeypatch.setenv("TEST_KEY", "k")


def speaker(wire: str) -> AnyStream:
    return STREAMS[wire][0]()


def texts(speaks: AnyStream, count: int = 10) -> Events:
    return [*speaks.begin(), *[speaks.text(text) for text in TEXTS[:count]]]


def tail(speaks: AnyStream, written: object = 10, read: object = 12) -> Events:
    return [*speaks.end(speaks.good), *speaks.usage(read, written), *speaks.done()]


def holds(wire: str, cases: Cases) -> None:
    """Plays all of them and compares."""
    speaks, fields = speaker(wire), STREAMS[wire][1]
    if wire.startswith("litellm/") and not isinstance(speaks, Bedrock) and "sagemaker" not in wire:
        fields = fields | {"api_key_env": "TEST_KEY"}
    rows = played_all([script(speaks, events) for events, _ in cases.values()], **fields)
    wrong = wrong_of(cases, [seen_of(row) for row in rows])
    assert not wrong, "\n".join(f"{name}: (seen, expected) {each}" for name, each in wrong.items())


def wrong_of(cases: Cases, rows: Sequence[dict[str, object]]) -> dict[str, dict[str, object]]:
    """Name of a case → what of its record is not as expected."""
    wrong: dict[str, dict[str, object]] = {}
    for (name, (_, expected)), seen in zip(cases.items(), rows, strict=True):
        differs = {key: (seen[key], value) for key, value in expected.items() if not _agrees(seen[key], value)}
        if differs:
            wrong[name] = {**differs, "message": seen["error_message"]}
    return wrong


def _agrees(seen: object, expected: object) -> bool:
    return expected(seen) is True if callable(expected) else bool(seen == expected)


def within(words: str) -> Callable[[object], bool]:
    return lambda said: isinstance(said, str) and words in said


def seen_of(row: Record) -> dict[str, object]:
    """The columns of a record, and what follows from them."""
    columns = {name: getattr(row, name) for name in Record.__slots__}
    gaps = [after - before for before, after in zip(row.chunk_ns, row.chunk_ns[1:], strict=False)]
    return columns | {
        "chunks": len(row.chunk_ns),
        "tokens": sum(row.chunk_tokens),
        "ends_with_last_token": bool(row.chunk_ns) and row.chunk_ns[-1] == row.last_token_ns,
        "begins_with_first_chunk": bool(row.chunk_ns) and row.chunk_ns[0] == row.first_token_ns,
        "answer_at": row.chunk_ns.index(row.first_answer_token_ns or 0)
        if row.first_answer_token_ns in row.chunk_ns
        else None,
        "first_gap_is_the_pause": bool(gaps) and gaps[0] > PAUSE_S * 1e9,
        "ends_later": (row.end_ns or 0) - (row.last_token_ns or 0) > PAUSE_S * 1e9,
    }


# --- ends ------------------------------------------------------------------------------------------------------------

BAD_ENDS = [
    "abort",
    "error",
    "cancelled",
    "timeout",
    "network_error",
    "insufficient_system_resource",
    "OTHER",
    "MALFORMED_FUNCTION_CALL",
    "load",
    "malformed_model_output",
    "ERROR_LIMIT",
    "a_new_one",
    "max_tokens_exceeded",
    "FinishReason.ERROR",
]
GOOD_ENDS = [
    "stop",
    "length",
    "tool_calls",
    "function_call",
    "end_turn",
    "max_tokens",
    "stop_sequence",
    "tool_use",
    "eos_token",
    "pause_turn",
    "STOP",
    "MAX_TOKENS",
    "model_context_window_exceeded",
    "COMPLETE",
    "FinishReason.STOP",
    "FINISH_REASON_STOP",
]
FILTERS = [
    "content_filter",
    "SAFETY",
    "RECITATION",
    "guardrail_intervened",
    "refusal",
    "content_filtered",
    "MODEL_ARMOR",
    "content_filter: RECITATION",
]
NOT_YET = ["null", "not_finished", "FINISH_REASON_UNSPECIFIED", "None"]


@pytest.mark.parametrize("wire", STREAMS)
def test_ends(wire: str) -> None:
    speaks = speaker(wire)
    count = [] if isinstance(speaks, Tgi) else speaks.usage(12, 10)  # TGI states both at once
    cases: Cases = {"good": ([*texts(speaks), *tail(speaks)], GOOD | BY_SERVER)}
    for reason in (*GOOD_ENDS, *FILTERS):
        cases[reason] = ([*texts(speaks), *speaks.end(reason), *count, *speaks.done()], GOOD | {"remarks": []})
    for reason in BAD_ENDS:
        said = {"status": "failed", "error_class": "in_stream", "error_code": reason, "chunks": 10}
        failing: dict[str, object] = {**said, "error_message": within(reason)}
        cases[reason] = ([*texts(speaks), *speaks.end(reason), *count, *speaks.done()], failing)
        cases[f"{reason}, then a good one"] = ([*texts(speaks), *speaks.end(reason), *tail(speaks)], failing)
    for reason in NOT_YET:
        cases[reason] = ([*texts(speaks, 1), *speaks.end(reason), *texts(speaks)[-9:], *tail(speaks)], GOOD)
    for reason in FILTERS:
        empty = {"status": "failed", "error_class": "in_stream", "error_code": reason}
        cases[f"{reason} without text"] = ([*speaks.begin(), *speaks.end(reason), *speaks.done()], empty)
        if speaks.thinks:
            thought: Events = [*speaks.begin(), speaks.thought("hm"), *speaks.end(reason), *speaks.done()]
            cases[f"{reason} after a thought"] = (thought, empty)
    stopped = {"status": "failed", "error_class": "empty"}
    cases["a good end without text"] = ([*speaks.begin(), *speaks.end(speaks.good), *speaks.done()], stopped)
    cases["no end"] = (texts(speaks), {"status": "failed", "error_class": "cut", "chunks": 10})
    if not isinstance(speaks, Tgi | Gemini):  # the other wires have an end mark of their own
        mark = [frame("messageStop", {})] if isinstance(speaks, Bedrock) else speaks.done()
        cases["a mark alone"] = ([*texts(speaks), *mark], GOOD | {"remarks": ["no_finish_reason"]})
        for other in [b"event: done\ndata: {}\n\n", b"data: [END]\n\n", b"event: end\n\n"]:
            if isinstance(speaks, OpenAI):
                cases[str(other)] = ([*texts(speaks), speaks.raw(other)], GOOD | {"remarks": ["no_finish_reason"]})
        cases["a mark alone without text"] = ([*speaks.begin(), *mark], stopped)
    holds(wire, cases)


# --- errors ----------------------------------------------------------------------------------------------------------

LLAMA_CPP = {"code": 500, "message": "context size has been exceeded", "type": "server_error"}
BUSY = {"code": 50501, "message": "Model is busy, please retry later", "data": ""}
HTML = "<html>\n<head><title>502 Bad Gateway</title></head>\n</html>\n\n"
ERRORS: dict[str, tuple[bytes, str, str, str | None]] = {
    "field": (b"error: %b\n\n" % json.dumps(LLAMA_CPP).encode(), "context size has", "in_stream", "server_error"),
    "field of text": (b"error: the worker died\n\n", "the worker died", "in_stream", None),
    "field in capitals": (b"ERROR: the worker died\n\n", "the worker died", "in_stream", None),
    "named": (b"event: error\ndata: the worker died\n\n", "the worker died", "in_stream", None),
    "named, of another shape": (b'event: error\ndata: {"x": 1}\n\n', '{"x":1}', "in_stream", None),
    "named otherwise": (b"event: exception\ndata: the worker died\n\n", "the worker died", "in_stream", None),
    "a name alone": (b"event: timeout\n\n", "an event named 'timeout'", "in_stream", None),
    "aborted": (sse({"status": "aborted"}), '{"status":"aborted"}', "in_stream", "aborted"),
    "named, without data": (b"event: error\n\n", "an error event without a message", "in_stream", None),
    "code": (sse(BUSY), "Model is busy, please retry later", "in_stream", "50501"),
    "code as text": (sse({"code": "50501", "message": "Model is busy", "data": None}), "busy", "in_stream", "50501"),
    "bad code alone": (sse({"code": 500}), '{"code":500}', "in_stream", "500"),
    "negative code": (sse({"code": -1, "msg": "no luck"}), "no luck", "in_stream", "-1"),
    "errno": (sse({"error_code": 18, "error_msg": "Open api qps limit"}), "Open api qps", "in_stream", "18"),
    "detail": (sse({"detail": "Internal"}), "Internal", "in_stream", None),
    "details": (sse({"detail": [{"loc": ["body"], "msg": "field required"}]}), "field required", "in_stream", None),
    "message and type": (sse({"message": "boom", "type": "invalid_request"}), "boom", "in_stream", "invalid_request"),
    "errors": (sse({"errors": [{"code": "X1", "message": "boom"}]}), "boom", "in_stream", "X1"),
    "errors by field": (sse({"errors": {"prompt": ["too long"]}}), "too long", "in_stream", None),
    "fault": (sse({"fault": {"faultstring": "quota violated"}}), "quota violated", "in_stream", None),
    "status": (sse({"status": "error", "message": "boom"}), "boom", "in_stream", None),
    "failed": (sse({"status": "failed", "reason": "out of memory"}), "out of memory", "in_stream", "failed"),
    "no success": (sse({"success": False}), '{"success":false}', "in_stream", None),
    "inside a status": (sse({"base_resp": {"status_code": 1004, "status_msg": "login"}}), "login", "in_stream", "1004"),
    "string": (sse({"error": "CUDA out of memory"}), "CUDA out of memory", "in_stream", None),
    "throttled": (sse({"error": {"code": 429, "message": "slow down"}}), "slow down", "throttled", "429"),
    "429 under a name": (
        sse([{"error": {"code": 429, "message": "no quota", "status": "RESOURCE_EXHAUSTED"}}]),
        "no quota",
        "throttled",
        "RESOURCE_EXHAUSTED",
    ),
    "429 under a type": (
        sse({"error": {"code": 429, "type": "server_busy", "message": "wait"}}),
        "wait",
        "throttled",
        "server_busy",
    ),
    "throttled in words": (sse({"error": {"message": "Rate limit reached"}}), "Rate limit", "throttled", None),
    "list": (sse([{"error": {"message": "no luck"}}]), "no luck", "in_stream", None),
    "unframed": (b'{\n "error": {"message": "half way"}\n}\n\n', "half way", "in_stream", None),
    "unframed detail": (b'{"detail": "half way"}\n\n', "half way", "in_stream", None),
    "unframed text": (b"upstream connect error or disconnect\n\n", "upstream connect error", "in_stream", None),
    "text as data": (b"data: Internal Server Error\n\n", "Internal Server Error", "in_stream", None),
    "text in brackets": (b"data: [ERROR] the worker died\n\n", "the worker died", "in_stream", None),
    "a JSON text": (sse('"worker gone away"'), "worker gone away", "in_stream", None),
    "unknown": (sse({"surprise": [1, 2]}), '{"surprise":[1,2]}', "in_stream", None),
    "problem": (sse({"status": 503, "title": "Gone", "type": "about:blank"}), "Gone", "in_stream", "about:blank"),
    "words": (sse("worker gone away"), "worker gone away", "malformed", None),
    "half an event": (b'data: {"choices": [{"delta\n\n', "not JSON", "malformed", None),
    "a page": (HTML.encode(), "502 Bad Gateway", "malformed", None),
}
OF_CHUNKS: dict[str, tuple[dict[str, object], str]] = {
    "beside choices": ({"choices": [{"delta": {"content": "x"}}], "error": {"message": "boom"}}, "boom"),
    "beside no choices": ({"choices": [], "error": {"message": "boom"}}, "boom"),
    "in a part of its own": ({"choices": [], "x_groq": {"id": "r", "error": "boom"}}, "boom"),
    "in a choice": ({"choices": [{"delta": {}, "error": {"message": "boom"}}]}, "boom"),
    "in a delta": ({"choices": [{"delta": {"error": "boom"}}]}, "boom"),
    "a code beside choices": ({"choices": [{"delta": {}}], "code": 500, "message": "boom"}, "boom"),
    "an object": ({"object": "error", "message": "boom"}, "boom"),
    "a status beside choices": ({"choices": None, "base_resp": {"status_code": 1, "status_msg": "boom"}}, "boom"),
}


@pytest.mark.parametrize("wire", SSE_WIRES)
def test_errors_wherever_they_stand_win_over_the_end_mark(wire: str) -> None:
    speaks = speaker(wire)
    assert not isinstance(speaks, Bedrock)
    cases: Cases = {}
    for name, (data, message, error_class, code) in ERRORS.items():
        said: dict[str, object] = {"status": "failed", "error_class": error_class, "error_code": code, "chunks": 5}
        said["error_message"] = within(message)
        cases[name] = ([*texts(speaks, 5), speaks.raw(data), *speaks.done()], said)
        cases[f"{name}, and a good end"] = ([*texts(speaks, 5), speaks.raw(data), *tail(speaks, 5)], said)
        if name != "a page":  # nothing tells what the whole body is
            cases[f"{name}, first"] = ([*speaks.begin(), speaks.raw(data), *tail(speaks, 5)], said | {"chunks": 0})
    if isinstance(speaks, OpenAI):
        for name, (value, message) in OF_CHUNKS.items():
            failed: dict[str, object] = {"error_class": "in_stream", "error_message": message}
            cases[name] = ([*texts(speaks, 5), speaks.other(value), *tail(speaks, 5)], failed)
    escapes = speaks.raw(b'error: {"message": "\\u001b[2Jgone \\ud83d"}\n\n')
    cases["terminal codes and half a character"] = ([escapes], {"error_message": "\\x1b[2Jgone \ufffd"})
    holds(wire, cases)


@pytest.mark.parametrize("wire", ["bedrock", "sagemaker", "litellm/bedrock", "litellm/sagemaker_chat"])
def test_errors_between_the_frames_of_an_event_stream(wire: str) -> None:
    speaks = speaker(wire)
    gone: dict[str, object] = {"error_class": "in_stream", "error_code": "502", "error_message": "upstream gone"}
    page: dict[str, object] = {"error_class": "malformed", "error_message": within("<html>bad gateway"), "chunks": 5}
    cases: Cases = {
        "an object": ([*texts(speaks, 5), b'{"message": "upstream gone", "code": 502}'], gone | {"chunks": 5}),
        "a page": ([*texts(speaks, 5), b"<html>bad gateway</html>"], page),
    }
    broken: dict[str, object] = {"error_class": "in_stream", "error_message": "half way", "chunks": 5}
    if isinstance(speaks, Bedrock):
        cases["an exception"] = ([*texts(speaks, 5), speaks.failing("half way"), *tail(speaks, 5)], broken)
        for kind in ("internalServerException", "somethingNew"):
            cases[kind] = ([*texts(speaks, 5), frame(kind, {"message": "half way"}), *tail(speaks, 5)], broken)
        slow = frame("throttlingException", {"message": "slow down"})
        cases["throttled"] = ([*texts(speaks, 5), slow, *tail(speaks, 5)], {"error_class": "throttled"})
        new = [*texts(speaks), frame("somethingNew", {"x": 1}), *tail(speaks)]
        cases["an event of a new kind"] = (new, GOOD | {"noise_events": 1})
    holds(wire, cases)


# --- noise -----------------------------------------------------------------------------------------------------------

NOISE = """
    2024-04-07 20:20:50.55 | ping | null | "" | [] | {} | 1712521250 | true | "ping" | [PING] | keep-alive | no-op
    {"type": "ping"} | {"code": 0, "message": "success", "data": null} | Sun, 07 Apr 2024 20:20:50 GMT | heartbeat 12
    ping - 2024-04-07 20:20:50.551012 | {"status": "processing"} | {"queue_position": 3} | {"error": null} | [null]
    {"keepAlive": true} | {"id": "x"} | OPENROUTER PROCESSING | {"timestamp": 1712521250} | 2024-04-07T20:20:50Z
""".replace("\n", "|")
FRAMES = [
    b"event: ping\ndata: {}\n\n",
    b"event: heartbeat\ndata: anything at all\n\n",
    b'event: metadata\ndata: {"n": 1}\n\n',
    b'data: {"prompt_filter_results": [{"prompt_index": 0}]}\n\n',
    b'event: keep-alive\ndata: {"n": 1}\n\n',
    b"data:\n\n",
    b"ping\n\n",
    b"ping: 2024-04-07\n\n",
    b"2024-04-07 20:20:50.55\n\n",
]
SILENT = [b":\n\n", b": ping\n\n", b"\n\n\n", b"id: 5\n\n", b"retry: 10\n\n", b"event: message\n\n", b"event: ping\n\n"]


@pytest.mark.parametrize("wire", SSE_WIRES)
def test_noise_between_tokens_is_passed_over_and_counted(wire: str) -> None:
    speaks = speaker(wire)
    assert not isinstance(speaks, Bedrock)
    noises = [speaks.other(noise.strip()) for noise in NOISE.split("|") if noise.strip()]
    noises += [speaks.raw(data) for data in FRAMES]
    start, rest = texts(speaks)[:-7], [*texts(speaks)[-7:], *tail(speaks)]
    cases: Cases = {str(data): ([*start, data, *rest], GOOD | {"noise_events": 1}) for data in noises}
    many = GOOD | {"noise_events": len(noises), "remarks": ["noise"]}
    cases["all of them"] = ([*start, *noises, *rest], many)
    cases["all of them first"] = ([*noises, *start, *rest], many)
    cases["all of them last"] = ([*start, *rest, *noises], many)
    cases["comments and fields"] = ([*start, *[speaks.raw(data) for data in SILENT], *rest], GOOD | BY_SERVER)
    holds(wire, cases)


# --- moments ---------------------------------------------------------------------------------------------------------

REASONING: dict[str, dict[str, object]] = {
    "reasoning_details": {"reasoning_details": [{"type": "reasoning.text", "text": " hm"}]},
    "summary": {"reasoning_details": [{"type": "reasoning.summary", "summary": " hm"}]},
    "reasoning": {"reasoning": " hm", "content": None},
    "reasoning object": {"reasoning": {"content": " hm"}},
    "reasoning list": {"reasoning": [" hm"]},
    "both names": {"reasoning": " hm", "reasoning_content": " hm", "content": ""},
    "reasoning_text": {"reasoning_text": " hm"},
    "reasoningContent": {"reasoningContent": " hm"},
    "thinking": {"thinking": " hm"},
    "thinking_text": {"thinking_text": " hm"},
    "thought": {"thought": " hm"},
    "chain_of_thought": {"chain_of_thought": " hm"},
    "cot": {"cot": " hm"},
    "steps": {"reasoning_steps": [{"thought": " hm", "type": "web_search"}]},
    "thinking_blocks": {"thinking_blocks": [{"type": "thinking", "thinking": " hm"}]},
    "part": {"content": [{"type": "thinking", "thinking": [{"type": "text", "text": " hm"}]}]},
    "reasoning part": {"content": [{"type": "reasoning", "text": " hm"}]},
    "gateway's field": {"provider_specific_fields": {"reasoning_content": " hm"}},
    "mark": {"content": " hm", "thought": True},
    "google's mark": {"content": " hm", "extra_content": {"google": {"thought": True}}},
    "channel": {"content": " hm", "channel": "analysis"},
}


def is_one_call(calls: object) -> bool:
    """Whether they are one, of f with a = 1."""
    made = json.loads(str(calls))
    return len(made) == 1 and made[0]["name"] == "f" and json.loads(made[0]["arguments"]) == {"a": 1}


NO_REASONING = ["reasoning_opaque", "encrypted_reasoning", "reasoning_id", "reasoning_format", "thinking_status"]
CALLS: dict[str, list[dict[str, object]]] = {
    "legacy": [{"function_call": {"name": "f", "arguments": ""}}, {"function_call": {"arguments": '{"a": 1}'}}],
    "name in every event": [
        {"tool_calls": [{"index": 0, "id": "c", "function": {"name": "f", "arguments": piece}}]}
        for piece in ("", '{"a":', " 1}")
    ],
    "null for nothing": [
        {"tool_calls": [{"index": 0, "id": "c", "function": {"name": "f", "arguments": None}}]},
        {"tool_calls": [{"index": 0, "function": {"name": None, "arguments": '{"a": 1}'}}]},
    ],
    "an object as arguments": [
        {"tool_calls": [{"index": 0, "id": "c", "function": {"name": "f"}}]},
        {"tool_calls": [{"index": 0, "function": {"arguments": {"a": 1}}}]},
    ],
    "arguments so far": [
        {"tool_calls": [{"index": 0, "id": "c", "function": {"name": "f", "arguments": '{"a":'}}]},
        {"tool_calls": [{"index": 0, "function": {"arguments": '{"a": 1}'}}]},
    ],
    "all arguments again": [
        {"tool_calls": [{"index": 0, "id": "c", "function": {"name": "f", "arguments": '{"a":'}}]},
        {"tool_calls": [{"index": 0, "function": {"arguments": " 1}"}}]},
        {"tool_calls": [{"index": 0, "id": "c", "function": {"name": "f", "arguments": '{"a": 1}'}}]},
    ],
    "without function": [
        {"tool_calls": {"index": 0, "name": "f"}},
        {"tool_calls": {"index": 0, "arguments": '{"a": 1}'}},
    ],
}


@pytest.mark.parametrize("wire", STREAMS)
def test_reasoning_and_calls_begin_at_the_same_moment_on_every_wire(wire: str) -> None:
    speaks = speaker(wire)
    end = [*speaks.end(speaks.good), *speaks.done()]
    cases: Cases = {}
    thought: dict[str, object] = {"status": "completed", "reasoning_streamed": True, "text": " wa", "answer_at": 1}
    thought |= {"first_gap_is_the_pause": True, "begins_with_first_chunk": True, "chunk_tokens": [1, 1]}
    called: dict[str, object] = {"status": "completed", "text": "", "answer_at": 0, "begins_with_first_chunk": True}
    if speaks.thinks:
        cases["a thought"] = ([*speaks.begin(), speaks.thought(" hm"), PAUSE_S, speaks.text(" wa"), *end], thought)
    if speaks.calls:
        first, *arguments = speaks.call("f", '{"a": ', "1}")
        paused: dict[str, object] = {} if isinstance(speaks, Gemini) else {"first_gap_is_the_pause": True}
        cases["a call"] = ([*speaks.begin(), first, PAUSE_S, *arguments, *end], called | paused)
    if isinstance(speaks, OpenAI) and not isinstance(speaks, Tgi):
        for name, delta in REASONING.items():
            cases[name] = (
                [*speaks.begin(), speaks.chunk(delta), PAUSE_S, speaks.text(" wa"), *tail(speaks, 2)],
                thought,
            )
        for name in NO_REASONING:
            first = speaks.chunk({"content": "", name: "gAAAAAB"})
            cases[name] = ([first, *texts(speaks), *tail(speaks)], GOOD | BY_SERVER | {"reasoning_streamed": False})
        for name, (start, *rest) in CALLS.items():
            events: Events = [*speaks.begin(), speaks.chunk(start), PAUSE_S, *map(speaks.chunk, rest), *end]
            named: dict[str, object] = {"first_gap_is_the_pause": True, "tool_calls": is_one_call}
            cases[name] = (events, called | named)
    if isinstance(speaks, Bedrock):
        held = {"contentBlockIndex": 0, "delta": {"reasoningContent": {"reasoningText": {"text": " hm"}}}}
        event = frame("contentBlockDelta", held)
        redacted = frame(
            "contentBlockDelta", {"delta": {"reasoningContent": {"reasoningText": {"text": "[REDACTED]"}}}}
        )
        hidden = GOOD | {"reasoning_streamed": False, "output_tokens": 60, "output_tokens_source": "server"}
        cases["redacted"] = ([*speaks.begin(), redacted, *texts(speaks)[1:], *tail(speaks, 60)], hidden)
        cases["inside a text"] = ([*speaks.begin(), event, PAUSE_S, speaks.text(" wa"), *end], thought)
    cases["think tags"] = (
        [*speaks.begin(), speaks.text("<think>"), speaks.text(" hm"), speaks.text("</think>"), *end],
        {"status": "completed", "reasoning_streamed": False, "text": "<think> hm</think>", "chunks": 3},
    )
    holds(wire, cases)


# --- repetitions -----------------------------------------------------------------------------------------------------


def closings(speaks: AnyStream) -> Iterator[tuple[str, bytes]]:
    """Frames that hold the whole answer again, in the shapes of a wire."""
    yield "the same event", speaks.text(WHOLE)
    yield "without white space around it", speaks.text(WHOLE.strip())
    yield "behind the prompt", speaks.text(f"Say something.{WHOLE}")
    if isinstance(speaks, Bedrock):
        yield "another block", frame("contentBlockDelta", {"contentBlockIndex": 1, "delta": {"text": WHOLE}})
        return
    yield "an unknown event", speaks.other({"type": "response.output_text.done", "text": WHOLE})
    if isinstance(speaks, Anthropic):
        message = {"type": "message", "content": [{"type": "text", "text": WHOLE}], "stop_reason": "end_turn"}
        yield "the message", speaks.other(message)
        yield "another block", speaks.other({**BLOCK, "index": 1, "content_block": {"type": "text", "text": WHOLE}})
    elif isinstance(speaks, Tgi):
        yield "generated_text", speaks.other({"generated_text": WHOLE, "details": {"finish_reason": "eos_token"}})
    elif isinstance(speaks, OpenAI):
        message = {"role": "assistant", "content": WHOLE}
        yield "a completion", speaks.other({"object": "chat.completion", "choices": [{"message": message}]})
        yield "a text", speaks.other({"object": "text_completion", "choices": [{"index": 0, "text": WHOLE}]})


BLOCK: dict[str, object] = {"type": "content_block_start"}


@pytest.mark.parametrize("wire", STREAMS)
def test_texts_that_come_twice_count_once(wire: str) -> None:
    speaks = speaker(wire)
    cases: Cases = {}
    for name, closing in closings(speaks):
        again = GOOD | {"ends_later": True}
        cases[name] = ([*texts(speaks), PAUSE_S, closing, *tail(speaks)], again)
        is_noise = isinstance(speaks, Anthropic) and name == "an unknown event"  # the API announces that some will come
        if name not in ("generated_text", "the message") and not is_noise:
            cases[name] = (cases[name][0], again | {"remarks": ["repeated_text"]})
    for count in (1, 2, 3):
        short = ["Yes", ".", " ok"][:count]
        said: dict[str, object] = {"text": "".join(short), "chunks": count, "output_tokens": count}
        events: Events = [*map(speaks.text, short), speaks.text("".join(short)), *tail(speaks, count)]
        cases[f"{count} short texts"] = ([*speaks.begin(), *events], said | {"remarks": ["repeated_text"]})
    growing = [speaks.text("".join(TEXTS[: at + 1])) for at in range(10)]
    so_far = GOOD | {"chunk_tokens": [1] * 10, "remarks": ["cumulative_text"]}
    cases["texts so far"] = ([*speaks.begin(), *growing, *tail(speaks)], so_far)
    whole_again = [*growing, growing[-1], growing[-1], *growing[-1:] * 9]
    cases["texts so far, and the whole many times"] = ([*speaks.begin(), *whole_again, *tail(speaks)], so_far)
    cases["texts so far, and the last again"] = ([*speaks.begin(), *growing, growing[-1], *tail(speaks)], so_far)
    stutter: dict[str, object] = {"text": " no" * 9, "chunk_tokens": [1] * 9, "remarks": []}
    cases["a model that stutters"] = ([*speaks.begin(), *[speaks.text(" no")] * 9, *tail(speaks, 9)], stutter)
    if isinstance(speaks, OpenAI) and not isinstance(speaks, Tgi):
        both = [speaks.chunk({"content": text, "text": text}) for text in TEXTS]
        cases["two names in one delta"] = ([*both, *tail(speaks)], GOOD)
        beside = [
            {"delta": {"content": text}, "message": {"content": WHOLE[: 3 * at]}} for at, text in enumerate(TEXTS)
        ]
        cases["the message so far"] = ([*[speaks.other({"choices": [one]}) for one in beside], *tail(speaks)], GOOD)
    holds(wire, cases)


# --- counts ----------------------------------------------------------------------------------------------------------

REFUSED = [0, 2, 9, 41, 100_000, 2**31, 4_294_967_261, 2**53 - 1, 2**63, 2**80, -1, 10.5, "many", True, [10], 1e300]
TAKEN = [10, 10.0, "10", " 10 ", 1e1]


@pytest.mark.parametrize("wire", STREAMS)
def test_counts_are_believed_where_the_stream_bears_them_out(wire: str) -> None:
    speaks = speaker(wire)
    start = texts(speaks)
    counted = GOOD | {"output_tokens_source": "tokenizer", "input_tokens": 12, "chunk_tokens": [1] * 10}
    cases: Cases = {}
    for stated in REFUSED:
        cases[f"wrote {stated}"] = ([*start, *tail(speaks, stated)], counted | {"remarks": ["output_tokens_refused"]})
    for stated in TAKEN:
        cases[f"wrote {stated!r}"] = ([*start, *tail(speaks, stated)], GOOD | BY_SERVER)
    # What stood in Anthropic's first event would stay.
    bare = [speaks.text(text) for text in TEXTS] if isinstance(speaks, Anthropic) else start
    ours: dict[str, object] = {
        "input_tokens": 3,
        "input_tokens_source": "tokenizer",
        "remarks": ["input_tokens_refused"],
    }
    for stated in (0, 4_294_967_261, 5_000_000, -1, "many"):
        cases[f"read {stated}"] = ([*bare, *tail(speaks, 10, stated)], GOOD | ours)
    for later in (0, -1, 2**40, None):
        events: Events = [*start, *speaks.usage(25, 10), *speaks.end(speaks.good), *speaks.usage(later, later)]
        cases[f"later {later}"] = ([*events, *speaks.done()], GOOD | BY_SERVER | {"input_tokens": 25})
    one = [*speaks.begin(), speaks.text(WHOLE), *tail(speaks, 1)]
    cases["few for a long text"] = (one, {"output_tokens": 10, "remarks": ["output_tokens_refused"]})
    if isinstance(speaks, OpenAI) and not isinstance(speaks, Tgi):
        cases |= dict(of_usage(speaks))
    holds(wire, cases)


def of_usage(speaks: OpenAI) -> Iterator[tuple[str, tuple[Events, dict[str, object]]]]:
    """Usage on every chunk, and usage of odd shapes."""
    end: Events = [*speaks.end("stop"), *speaks.done()]
    per_chunk = {"so far": list(range(1, 11)), "each": [1] * 10, "zeros": [0] * 10}
    for name, counts in per_chunk.items():
        read = 0 if name == "zeros" else 12
        usages = [{"prompt_tokens": read, "completion_tokens": count} for count in counts]
        chunks = [speaks.chunk({"content": text}, usage=usage) for text, usage in zip(TEXTS, usages, strict=True)]
        expected: dict[str, object] = {"output_tokens_source": "server" if name == "so far" else "tokenizer"}
        expected["input_tokens"] = read or 3
        yield f"usage of every chunk, {name}", ([*chunks, *end], GOOD | expected)
    usual = {"prompt_tokens": 12, "completion_tokens": 10}
    in_choice = speaks.other({"choices": [{"index": 0, "delta": {}, "finish_reason": "stop", "usage": usual}]})
    yield "usage of a choice", ([*texts(speaks), in_choice, *speaks.done()], GOOD | BY_SERVER)
    total = speaks.other({"choices": [], "usage": {"prompt_tokens": 12, "total_tokens": 22}})
    yield "a total", ([*texts(speaks), *speaks.end("stop"), total, *speaks.done()], GOOD | BY_SERVER)
    for details in ([], "none", None, {}):
        odd = usual | {"prompt_tokens_details": details, "completion_tokens_details": details}
        yield (
            f"details {details!r}",
            ([*texts(speaks), speaks.other({"choices": [], "usage": odd}), *end], GOOD | BY_SERVER),
        )
    for odd in (
        {"input_tokens": 12, "output_tokens": 10},
        usual | {"completion_tokens_details": {"reasoning_tokens": -5}},
    ):
        yield f"{odd}", ([*texts(speaks), speaks.other({"choices": [], "usage": odd}), *end], GOOD | BY_SERVER)
    for reasoning in (6, 10, 4_294_967_261):
        thoughts = usual | {"completion_tokens_details": {"reasoning_tokens": reasoning}}
        expected = GOOD | {"output_tokens": lambda count: count in (10, 20), "tokens": 10, "chunk_tokens": [1] * 10}
        yield (
            f"{reasoning} of reasoning",
            ([*texts(speaks), speaks.other({"choices": [], "usage": thoughts}), *end], expected),
        )


# --- JSON ------------------------------------------------------------------------------------------------------------

ODD = {
    "infinite": '"logprob": -Infinity, "log_prob": NaN',
    "large": f'"seed": {"9" * 400}, "score": 1e999',
    "twice": '"created": 1, "created": 2',
    "deep": f'"trace": {"[" * 100_000}1{"]" * 100_000}',
    "half": '"note": "\\ud83d"',
    "an empty error": '"error": {"message": "", "type": "", "param": null, "code": 0}',
    "control codes": '"note": "a\x01b\tc"',
}


def _in_a_text(found: re.Match[bytes]) -> bytes:
    return b"data: " + json.dumps(found[1].decode()).encode()


def other_forms(events: Sequence[bytes]) -> Iterator[tuple[str, list[bytes]]]:
    """The same answer as other servers frame it."""
    yield "CR", [event.replace(b"\n", b"\r") for event in events]
    yield "CRLF", [event.replace(b"\n", b"\r\n") for event in events]
    yield "no space", [event.replace(b"data: ", b"data:") for event in events]
    yield "a mark first", [b"\xef\xbb\xbf", *events]
    yield "zeros between", [event + b"\x00" for event in events]
    yield "other fields", [b"id: 1\nretry: 3000\n" + event + b": beat\n\n" for event in events]
    yield "data twice", [event.replace(b"data: ", b"data: data: ") for event in events]
    yield "a mark on each", [b"\xef\xbb\xbf" + event for event in events]
    yield "JSON in a text", [re.sub(rb"data: (\{.*)", _in_a_text, event) for event in events]
    yield "no empty line", [event[:-1] for event in events]
    stream = b"".join(events)
    yield "in other pieces", [stream[at : at + 23] for at in range(0, len(stream), 23)]
    halves = [half for event in events for half in (event[: len(event) // 2], event[len(event) // 2 :])]
    yield "halves", halves


@pytest.mark.parametrize("wire", STREAMS)
def test_json_and_frames_as_servers_write_them(wire: str) -> None:
    speaks = speaker(wire)
    end = [*speaks.end(speaks.good), *speaks.done()]
    smile: dict[str, object] = {"status": "completed", "text": " so 😀 good", "chunks": 2}
    halves: Events = [*speaks.begin(), speaks.text(" so \ud83d"), PAUSE_S, speaks.text("\ude00 good"), *end]
    lost: dict[str, object] = {"status": "completed", "text": " so \ufffd good"}
    cases: Cases = {
        "half a character in each of two events": (halves, smile),
        "half a character alone": ([*speaks.begin(), speaks.text(" so \ud83d"), speaks.text(" good"), *end], lost),
    }
    if not isinstance(speaks, Bedrock):
        for name, odd in ODD.items():
            events: Events = [*speaks.begin(), strange(speaks, odd), *texts(speaks)[-9:], *tail(speaks)]
            cases[name] = (events, GOOD)
    if isinstance(speaks, OpenAI) and not isinstance(speaks, Tgi):
        empty = speaks.other({"choices": [{"delta": [], "finish_reason": "stop", "logprobs": ""}], "usage": []})
        cases["arrays for empty objects"] = ([*texts(speaks), empty, *tail(speaks)], GOOD | BY_SERVER)
    if not isinstance(speaks, Bedrock | OpenAI) or type(speaks) is OpenAI:  # SageMaker's frames are of bytes
        whole = [event for event in [*texts(speaks), *tail(speaks)] if isinstance(event, bytes)]
        if isinstance(speaks, OpenAI):
            cases["one line"] = ([b"".join([event.strip() for event in whole]) + b"\n\n"], GOOD | {"chunks": 1})
        for name, parts in other_forms(whole):
            cases[name] = ([*parts], GOOD | BY_SERVER)
    holds(wire, cases)


def strange(speaks: AnyStream, odd: str) -> bytes:
    """The first text, with odd fields around it."""
    assert not isinstance(speaks, Bedrock)
    if isinstance(speaks, Tgi):
        return speaks.other(f'{{{odd}, "token": {{"text": "{TEXTS[0]}", {odd}}}}}')
    if isinstance(speaks, OpenAI):
        return speaks.other(f'{{{odd}, "choices": [{{"delta": {{"content": "{TEXTS[0]}"}}, {odd}}}]}}')
    return speaks.text(TEXTS[0]).replace(b"data: {", b"data: {" + odd.encode() + b", ", 1)


@pytest.mark.parametrize(("stated", "refused"), [(1, True), (2, False), (3, False)])
def test_the_name_of_a_called_tool_may_be_free(stated: int, refused: bool) -> None:
    events = [TokenEvent(at, "tool", text) for at, text in enumerate(("get_weather", '{"city":', '"Rome"}'))]
    request = Request(0, (Message("user", "Weather?"),), 20, 2, "")
    found = believed(Answer(events, Usage(output_tokens=stated)), request, estimate_tokenizer())
    assert (found.usage.output_tokens is None) == refused
