"""Wires that only LiteLLM's requests lead to: Bedrock's InvokeModel, Cohere, Ollama. Points as in `test_field`."""

from __future__ import annotations

import base64
import json
from collections.abc import Iterator
from pathlib import Path

import pytest
from support.aws_server import clean_environment, exception
from support.aws_server import event as frame
from support.marks import THROUGH_LITELLM
from support.reader import played_all
from support.streams import EVENT_STREAM, OpenAI, script, sse
from wire.test_field import BY_SERVER, GOOD, PAUSE_S, TEXTS, WHOLE, Cases, Events, seen_of, wrong_of

pytestmark = THROUGH_LITELLM

FAILED: dict[str, object] = {"status": "failed", "error_class": "in_stream", "chunks": 5}
CUT: dict[str, object] = {"status": "failed", "error_class": "cut", "chunks": 5}
THOUGHT: dict[str, object] = {"status": "completed", "reasoning_streamed": True, "text": WHOLE, "answer_at": 1}
THOUGHT |= {"first_gap_is_the_pause": True, "begins_with_first_chunk": True}
CALLED: dict[str, object] = {"status": "completed", "text": "", "answer_at": 0, "begins_with_first_chunk": True}
CALLED |= {"tool_calls": lambda calls: '"name": "f"' in str(calls)}
COUNTED: dict[str, object] = GOOD | {"output_tokens_source": "tokenizer"}


@pytest.fixture(autouse=True)
def _environment(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    clean_environment(monkeypatch, tmp_path)
    monkeypatch.setenv("TEST_KEY", "k")


def holds(provider: str, cases: Cases, content_type: str = "text/event-stream", **fields: object) -> None:
    speaks = OpenAI()
    speaks.content_type = content_type
    scripts = [script(speaks, events) for events, _ in cases.values()]
    rows = played_all(scripts, api="litellm", provider=provider, **fields)
    wrong = wrong_of(cases, [seen_of(row) for row in rows])
    assert not wrong, "\n".join(f"{name}: (seen, expected) {each}" for name, each in wrong.items())


# --- Bedrock's InvokeModel -------------------------------------------------------------------------------------------

METRICS = {"amazon-bedrock-invocationMetrics": {"inputTokenCount": 12, "outputTokenCount": 10}}


def chunk(tree: object) -> bytes:
    return frame("chunk", {"bytes": base64.b64encode(json.dumps(tree).encode()).decode()})


def claude() -> Iterator[tuple[str, tuple[Events, dict[str, object]]]]:
    def start(**usage: int) -> bytes:
        message = {"type": "message", "role": "assistant", "content": [], "usage": {"input_tokens": 12, **usage}}
        return chunk({"type": "message_start", "message": message})

    def delta(**said: str) -> bytes:
        return chunk({"type": "content_block_delta", "index": 0, "delta": said})

    def end(reason: str, written: int = 10) -> list[bytes]:
        usage = {"output_tokens": written}
        stop = {"type": "message_delta", "delta": {"stop_reason": reason}, "usage": usage}
        return [chunk(stop), chunk({"type": "message_stop"})]

    said = [delta(type="text_delta", text=text) for text in TEXTS]
    yield "good", ([start(), *said, *end("end_turn")], GOOD | BY_SERVER)
    yield "Bedrock's own figures", ([start(), *said, *end("end_turn", 0)[:1], chunk(METRICS)], GOOD | BY_SERVER)
    cached = GOOD | {"input_tokens": 132, "cached_tokens": 100, "cache_write_tokens": 20}
    cache = start(cache_read_input_tokens=100, cache_creation_input_tokens=20)
    yield "a cache", ([cache, *said, *end("end_turn"), chunk(METRICS)], cached)
    yield "refused counts", ([start(), *said, *end("end_turn", 2)], COUNTED)
    yield "a bad end", ([start(), *said[:5], *end("error")], FAILED)
    overloaded = chunk({"type": "error", "error": {"type": "overloaded_error", "message": "Overloaded"}})
    yield "an error inside", ([start(), *said[:5], overloaded], FAILED | {"error_message": "Overloaded"})
    throttled = exception("throttlingException", {"message": "slow down"})
    yield "throttled", ([start(), *said[:5], throttled], FAILED | {"error_class": "throttled"})
    yield "an exception", ([start(), *said[:5], exception("modelStreamErrorException", {"message": "x"})], FAILED)
    yield "no end", ([start(), *said[:5]], CUT)
    broken: dict[str, object] = {"error_class": "malformed", "chunks": 5}
    yield "damage", ([start(), *said[:5], said[5][:-1] + b"\x00", *end("end_turn")], broken)
    yield "no base64", ([start(), *said[:5], frame("chunk", {"bytes": "\u00e9"})], broken)
    thought = delta(type="thinking_delta", thinking=" hm")
    yield "a thought", ([start(), thought, PAUSE_S, *said, *end("end_turn", 11)], THOUGHT)
    block = {"type": "tool_use", "name": "f", "input": {}}
    call = chunk({"type": "content_block_start", "index": 0, "content_block": block})
    arguments = delta(type="input_json_delta", partial_json='{"a": 1}')
    yield (
        "a call",
        ([start(), call, PAUSE_S, arguments, *end("tool_use", 9)], CALLED | {"first_gap_is_the_pause": True}),
    )


OTHERS: dict[str, list[dict[str, object]]] = {
    "llama": [{"generation": text, "stop_reason": None} for text in TEXTS]
    + [{"generation": "", "stop_reason": "stop"}],
    "mistral": [{"outputs": [{"text": text, "stop_reason": None}]} for text in TEXTS]
    + [{"outputs": [{"text": "", "stop_reason": "length"}]}],
    "titan": [{"outputText": text, "completionReason": None, "index": 0} for text in TEXTS]
    + [{"outputText": "", "completionReason": "FINISH", "totalOutputTextTokenCount": 10}],
    "claude 2": [{"completion": text, "stop_reason": None} for text in TEXTS]
    + [{"completion": "", "stop_reason": "stop_sequence"}],
    "command": [{"text": text, "is_finished": False} for text in TEXTS]
    + [{"text": "", "is_finished": True, "finish_reason": "COMPLETE"}],
    "large mistral": [{"choices": [{"index": 0, "message": {"content": text}, "stop_reason": None}]} for text in TEXTS]
    + [{"choices": [{"index": 0, "message": {"content": ""}, "stop_reason": "stop"}]}],
    "gpt-oss": [{"choices": [{"index": 0, "delta": {"content": text}}]} for text in TEXTS]
    + [{"choices": [{"index": 0, "delta": {}, "finish_reason": "stop"}]}],
    "nova": [{"contentBlockDelta": {"contentBlockIndex": 0, "delta": {"text": text}}} for text in TEXTS]
    + [{"messageStop": {"stopReason": "end_turn"}}],
}


def test_bedrock_invoke_of_claude() -> None:
    holds("bedrock/invoke", dict(claude()), EVENT_STREAM, name="anthropic.claude-3-5-sonnet-20240620-v1:0")


def test_bedrock_invoke_of_other_models() -> None:
    cases: Cases = {}
    for name, (*said, end) in OTHERS.items():
        last = end | METRICS
        cases[name] = ([*map(chunk, said), chunk(last)], GOOD | BY_SERVER)
        cases[f"{name}, cut"] = ([*map(chunk, said[:5])], CUT)
        bad = json.loads(json.dumps(end).replace('"stop"', '"abort"').replace("FINISH", "ERROR"))
        if bad != end:
            cases[f"{name}, a bad end"] = ([*map(chunk, said[:5]), chunk(bad)], FAILED)
    holds("bedrock/invoke", cases, EVENT_STREAM, name="meta.llama3-8b-instruct-v1:0")


# --- Cohere ----------------------------------------------------------------------------------------------------------


def test_cohere() -> None:
    def event(kind: str, **more: object) -> bytes:
        return sse({"type": kind, "index": 0, **more}, kind)

    def said(kind: str, **message: object) -> bytes:
        return event(kind, delta={"message": message})

    def end(reason: str, written: int = 10) -> list[bytes]:
        usage = {"billed_units": {"input_tokens": 12, "output_tokens": written}, "tokens": {"input_tokens": 70}}
        return [event("message-end", delta={"finish_reason": reason, "usage": usage}), b"data: [DONE]\n\n"]

    begin = [event("message-start", delta={"message": {"role": "assistant", "content": []}})]
    begin.append(said("content-start", content={"type": "text", "text": ""}))
    texts = [said("content-delta", content={"text": text}) for text in TEXTS]
    call = {"function": {"name": "f", "arguments": ""}}
    calling = [said("tool-call-start", tool_calls=call), PAUSE_S]
    calling.append(said("tool-call-delta", tool_calls={"function": {"arguments": '{"a": 1}'}}))
    first_version = [{"event_type": "text-generation", "text": text, "is_finished": False} for text in TEXTS]
    response = {"text": WHOLE, "meta": {"billed_units": {"input_tokens": 12, "output_tokens": 10}}}
    last = {"event_type": "stream-end", "is_finished": True, "finish_reason": "COMPLETE", "response": response}
    lines = [json.dumps(line).encode() + b"\n" for line in (*first_version, last)]
    cases: Cases = {
        "good": ([*begin, *texts, *end("COMPLETE")], GOOD | BY_SERVER),
        "the limit": ([*begin, *texts, *end("MAX_TOKENS")], GOOD | BY_SERVER),
        "a bad end": ([*begin, *texts[:5], *end("ERROR")], FAILED),
        "a time limit": ([*begin, *texts[:5], *end("TIMEOUT")], FAILED),
        "an error": ([*begin, *texts[:5], sse({"message": "boom"})], FAILED | {"error_message": "boom"}),
        "no end": ([*begin, *texts[:5]], CUT),
        "refused counts": ([*begin, *texts, *end("COMPLETE", 2)], COUNTED),
        "a thought": ([said("content-delta", content={"thinking": " hm"}), PAUSE_S, *texts, *end("COMPLETE")], THOUGHT),
        "a plan": ([said("tool-plan-delta", tool_plan=" hm"), PAUSE_S, *texts, *end("COMPLETE")], THOUGHT),
        "a call": ([*calling, *end("TOOL_CALL", 9)], CALLED | {"first_gap_is_the_pause": True}),
        "the first version": ([*lines], GOOD | BY_SERVER),
    }
    holds("cohere_chat", cases, name="command-r", api_key_env="TEST_KEY")


# --- Ollama ----------------------------------------------------------------------------------------------------------


def test_ollama() -> None:
    def line(**message: object) -> bytes:
        tree = {"model": "m", "message": {"role": "assistant", "content": "", **message}, "done": False}
        return json.dumps(tree).encode() + b"\n"

    def end(reason: str | None, written: int = 10) -> bytes:
        counts = {"prompt_eval_count": 12, "eval_count": written, "total_duration": 5_000_000}
        tree = {"model": "m", "message": {"role": "assistant", "content": ""}, "done": True, **counts}
        return json.dumps(tree | ({"done_reason": reason} if reason else {})).encode() + b"\n"

    texts = [line(content=text) for text in TEXTS]
    call = {"function": {"name": "f", "arguments": {"a": 1}}}
    dead = b'{"error": "llama runner process has terminated"}\n'
    cases: Cases = {
        "good": ([*texts, end("stop")], GOOD | BY_SERVER | {"server_latency_s": 0.005}),
        "no reason": ([*texts, end(None)], GOOD | {"remarks": ["no_finish_reason"]}),
        "a bad end": ([*texts[:5], end("load")], FAILED),
        "an error": ([*texts[:5], dead], FAILED | {"error_message": "llama runner process has terminated"}),
        "no end": ([*texts[:5]], CUT),
        "refused counts": ([*texts, end("stop", 0)], COUNTED),
        "a thought": ([line(thinking=" hm"), PAUSE_S, *texts, end("stop")], THOUGHT),
        "a call": ([line(tool_calls=[call]), PAUSE_S, end("stop", 9)], CALLED),
    }
    holds("ollama_chat", cases, "application/x-ndjson")
    short: Cases = {
        "good": (
            [
                *[json.dumps({"response": text, "done": False}).encode() + b"\n" for text in TEXTS],
                json.dumps({"response": "", "done": True, "done_reason": "length", "eval_count": 10}).encode(),
            ],
            GOOD | {"output_tokens_source": "server"},
        )
    }
    holds("ollama", short, "application/x-ndjson")
