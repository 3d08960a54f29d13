"""What real servers send, by every wire that can carry it, on a real socket: the right times, counts and verdicts."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

import pytest
from support.aws_server import clean_environment
from support.reader import played
from support.streams import STREAMS, AnyStream, Bedrock, Gemini, OpenAI, Tgi, script, sse

from llmexp.records import Record

pytestmark = [
    pytest.mark.service,
    pytest.mark.timeout(120),
    # LiteLLM's own, and those of what it imports.
    pytest.mark.filterwarnings("ignore::DeprecationWarning"),
    pytest.mark.filterwarnings("ignore::UserWarning"),
    pytest.mark.filterwarnings("ignore::ResourceWarning"),
    pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning"),
]

TEXTS = [f" w{letter}" for letter in "abcdefghij"]
SSE_WIRES = [name for name in STREAMS if "bedrock" not in name]
CHAT = ["openai", "sagemaker", "litellm/hosted_vllm", "litellm/sagemaker_chat"]
"""Wires whose chunks are OpenAI's."""
PAUSE_S = 0.03


def spread(wires: Sequence[str], kinds: Sequence[object], each: int = 2) -> list[tuple[str, object]]:
    """All kinds by the first wire, some by each of the others, so that every kind meets several."""
    pairs = [(wires[0], kind) for kind in kinds]
    for at, wire in enumerate(wires[1:]):
        pairs += [(wire, kinds[(at * each + step) % len(kinds)]) for step in range(min(each, len(kinds)))]
    return pairs


@pytest.fixture(autouse=True)
def _environment(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    clean_environment(monkeypatch, tmp_path)
    monkeypatch.setenv("TEST_KEY", "k")


def speaker(wire: str) -> AnyStream:
    return STREAMS[wire][0]()


def seen(wire: str, *events: bytes | float | Sequence[bytes]) -> Record:
    """The record of one answer."""
    speaks, fields = speaker(wire), STREAMS[wire][1]
    flat = [part for given in events for part in ([given] if isinstance(given, bytes | float) else given)]
    if wire.startswith("litellm/") and not isinstance(speaks, Bedrock) and "sagemaker" not in wire:
        fields = fields | {"api_key_env": "TEST_KEY"}
    return played(script(speaks, flat), **fields)


def texts(speaks: AnyStream, count: int = 10) -> list[bytes]:
    return [*speaks.begin(), *[speaks.text(text) for text in TEXTS[:count]]]


def whole(wire: str, *between: bytes) -> Record:
    """A good answer of ten tokens with something between its third and fourth."""
    speaks = speaker(wire)
    start = texts(speaks)
    at = len(start) - 7
    tail = [*speaks.end(speaks.good), *speaks.usage(12, 10), *speaks.done()]
    return seen(wire, start[:at], between, start[at:], tail)


def good(row: Record, tokens: int = 10) -> None:
    assert (row.status, row.error_message) == ("completed", None)
    assert (row.text, sum(row.chunk_tokens)) == ("".join(TEXTS[:tokens]), tokens)
    assert (row.output_tokens, row.chunk_ns[-1]) == (tokens, row.last_token_ns)


# --- ends ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("wire", STREAMS)
def test_good_ends(wire: str) -> None:
    row = whole(wire)
    good(row)
    assert (row.input_tokens, row.input_tokens_source, row.output_tokens_source) == (12, "server", "server")
    assert (row.remarks, row.noise_events) == ([], 0)


@pytest.mark.parametrize(("wire", "reason"), spread(list(STREAMS), ["abort", "error", "network_error", "a_new_one"]))
def test_ends_that_are_no_good_end_are_failures_with_the_server_s_word(wire: str, reason: str) -> None:
    speaks = speaker(wire)
    row = seen(
        wire, texts(speaks), speaks.end(reason), [] if isinstance(speaks, Tgi) else speaks.usage(12, 10), speaks.done()
    )
    assert (row.status, row.error_class, row.error_code, len(row.chunk_ns)) == ("failed", "in_stream", reason, 10)
    assert reason in (row.error_message or "")


@pytest.mark.parametrize("reason", [None, "content_filter"])
@pytest.mark.parametrize("wire", CHAT)
def test_a_filter_and_a_mark_without_a_reason_need_text(wire: str, reason: str | None) -> None:
    speaks = speaker(wire)
    row = seen(wire, texts(speaks), speaks.end(reason), speaks.usage(12, 10), speaks.done())
    good(row)
    assert row.remarks == ([] if reason else ["no_finish_reason"])
    empty = seen(wire, speaks.begin(), speaks.end(reason), speaks.done())
    assert (empty.status, empty.error_class) == ("failed", "in_stream" if reason else "empty")


# --- errors ----------------------------------------------------------------------------------------------------------

LLAMA_CPP = {"code": 500, "message": "context size has been exceeded", "type": "server_error"}
ERRORS: dict[str, tuple[bytes, str, str, str | None]] = {
    "field": (b"error: %b\n\n" % json.dumps(LLAMA_CPP).encode(), "context size has", "in_stream", "server_error"),
    "field_text": (b"error: the worker died\n\n", "the worker died", "in_stream", None),
    "named": (b"event: error\ndata: the worker died\n\n", "the worker died", "in_stream", None),
    "code": (
        sse({"code": 50501, "message": "Model is busy, please retry later", "data": ""}),
        "Model is busy, please retry later",
        "in_stream",
        "50501",
    ),
    "detail": (sse({"detail": "Internal"}), "Internal", "in_stream", None),
    "throttled": (sse({"error": {"code": 429, "message": "slow down"}}), "slow down", "throttled", "429"),
    "named 429": (
        sse([{"error": {"code": 429, "message": "no quota", "status": "RESOURCE_EXHAUSTED"}}]),
        "no quota",
        "throttled",
        "RESOURCE_EXHAUSTED",
    ),
    "typed 429": (
        sse({"error": {"code": 429, "type": "server_busy", "message": "wait"}}),
        "wait",
        "throttled",
        "server_busy",
    ),
    "list": (sse([{"error": {"message": "no luck"}}]), "no luck", "in_stream", None),
    "unframed": (b'{\n "error": {"message": "half way"}\n}\n\n', "half way", "in_stream", None),
    "text": (b"upstream connect error or disconnect\n\n", "upstream connect error", "in_stream", None),
    "string": (sse('"worker gone away"'), "worker gone away", "in_stream", None),
    "unknown": (sse({"surprise": [1, 2]}), '{"surprise":[1,2]}', "in_stream", None),
    "number": (sse({"code": 500}), '{"code":500}', "in_stream", "500"),
    "problem": (sse({"status": 503, "title": "Gone", "type": "about:blank"}), "Gone", "in_stream", "about:blank"),
    "words": (sse("worker gone away"), "worker gone away", "malformed", None),
}


@pytest.mark.parametrize(("wire", "kind"), spread(SSE_WIRES, list(ERRORS), each=4))
def test_errors_wherever_they_stand_win_over_the_end_mark(wire: str, kind: str) -> None:
    data, message, error_class, code = ERRORS[kind]
    speaks = speaker(wire)
    assert not isinstance(speaks, Bedrock)
    row = seen(wire, texts(speaks, 5), speaks.raw(data), speaks.done())
    assert (row.status, row.error_class, row.error_code) == ("failed", error_class, code)
    assert message in (row.error_message or "")
    assert len(row.chunk_ns) == 5


@pytest.mark.parametrize("wire", ["bedrock", "litellm/bedrock"])
def test_an_exception_in_an_event_stream_wins_too(wire: str) -> None:
    speaks = Bedrock()
    row = seen(wire, texts(speaks, 5), speaks.failing("half way"))
    assert (row.error_class, row.error_message, len(row.chunk_ns)) == ("in_stream", "half way", 5)


@pytest.mark.parametrize("wire", ["bedrock", "sagemaker", "litellm/bedrock", "litellm/sagemaker_chat"])
def test_what_a_gateway_writes_between_the_frames_is_told(wire: str) -> None:
    speaks = speaker(wire)
    row = seen(wire, texts(speaks, 5), b'{"message": "upstream gone", "code": 502}')
    assert (row.error_class, row.error_code, row.error_message) == ("in_stream", "502", "upstream gone")
    assert len(row.chunk_ns) == 5
    page = seen(wire, texts(speaks, 5), b"<html>bad gateway</html>")
    assert (page.error_class, len(page.chunk_ns)) == ("malformed", 5)
    assert "<html>bad gateway" in (page.error_message or "")


def test_an_error_event_without_data_is_one() -> None:
    row = seen("openai", texts(speaker("openai"), 5), b"event: error\n\n", speaker("openai").done())
    assert (row.error_class, row.error_message) == ("in_stream", "an error event without a message")


def test_terminal_codes_and_halves_of_characters_in_an_error_are_shown_as_text() -> None:
    row = seen("openai", OpenAI().raw(b'error: {"message": "\\u001b[2Jgone \\ud83d"}\n\n'))
    assert row.error_message == "\\x1b[2Jgone \ufffd"


# --- noise -----------------------------------------------------------------------------------------------------------

NOISE = [
    "2024-04-07 20:20:50.55",
    "ping",
    "null",
    '""',
    "[]",
    "{}",
    "1712521250",
    '{"type": "ping"}',
    '{"code": 0, "message": "success"}',
    "Sun, 07 Apr 2024 20:20:50 GMT",
]


@pytest.mark.parametrize("wire", SSE_WIRES)
def test_noise_between_tokens_is_passed_over_and_counted(wire: str) -> None:
    speaks = speaker(wire)
    assert not isinstance(speaks, Bedrock)
    row = whole(wire, *[speaks.other(noise) for noise in NOISE])
    good(row)
    assert (row.remarks, row.noise_events) == (["noise"], len(NOISE))


# --- moments ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("wire", [name for name in STREAMS if STREAMS[name][0].thinks])
def test_reasoning_is_the_first_token_on_every_wire(wire: str) -> None:
    speaks = speaker(wire)
    tail = [*speaks.end(speaks.good), *speaks.done()]
    row = seen(wire, speaks.begin(), speaks.thought(" hm"), PAUSE_S, speaks.thought(" so"), speaks.text(" wa"), tail)
    assert (row.status, row.reasoning_streamed, row.text, len(row.chunk_ns)) == ("completed", True, " wa", 3)
    assert (row.first_token_ns, row.first_answer_token_ns) == (row.chunk_ns[0], row.chunk_ns[2])
    assert row.chunk_ns[1] - row.chunk_ns[0] > PAUSE_S * 1e9


REASONING: dict[str, object] = {
    "reasoning_details": [{"type": "reasoning.text", "text": " hm"}],
    "reasoning": {"content": " hm"},
    "reasoning_text": " hm",
    "thinking": " hm",
    "thought": " hm",
    "thinking_blocks": [{"type": "thinking", "thinking": " hm"}],
    "content": [{"type": "thinking", "thinking": [{"type": "text", "text": " hm"}]}],
}


@pytest.mark.parametrize(("wire", "name"), spread(CHAT, list(REASONING)))
def test_other_names_of_reasoning(wire: str, name: str) -> None:
    speaks = speaker(wire)
    assert isinstance(speaks, OpenAI)
    thought = speaks.chunk({name: REASONING[name]})
    row = seen(
        wire,
        speaks.begin(),
        thought,
        PAUSE_S,
        speaks.text(" wa"),
        speaks.end("stop"),
        speaks.usage(12, 2),
        speaks.done(),
    )
    assert (row.status, row.reasoning_streamed, row.text, row.chunk_tokens) == ("completed", True, " wa", [1, 1])
    assert row.first_answer_token_ns == row.chunk_ns[1]


@pytest.mark.parametrize("wire", [name for name in STREAMS if STREAMS[name][0].calls])
def test_a_tool_call_begins_with_its_name(wire: str) -> None:
    speaks = speaker(wire)
    first, *arguments = speaks.call("look_up", '{"a": ', "1}")
    row = seen(wire, speaks.begin(), first, PAUSE_S, arguments, speaks.end(speaks.good), speaks.done())
    assert (row.status, row.text) == ("completed", "")
    assert row.first_token_ns == row.chunk_ns[0]
    assert isinstance(speaks, Gemini) or row.chunk_ns[1] - row.chunk_ns[0] > PAUSE_S * 1e9


# --- repetitions -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("wire", CHAT)
def test_a_closing_message_that_repeats_the_answer_is_no_token(wire: str) -> None:
    speaks = speaker(wire)
    assert isinstance(speaks, OpenAI)
    message = {"role": "assistant", "content": "".join(TEXTS)}
    usage = {"prompt_tokens": 12, "completion_tokens": 10}
    closing = {"object": "chat.completion", "choices": [{"message": message, "finish_reason": "stop"}], "usage": usage}
    row = seen(wire, texts(speaks), PAUSE_S, speaks.other(closing), speaks.done())
    good(row)
    assert row.remarks == ["repeated_text"]
    assert row.end_ns is not None
    assert row.last_token_ns is not None
    assert row.end_ns - row.last_token_ns > PAUSE_S * 1e9


@pytest.mark.parametrize("wire", STREAMS)
def test_a_closing_event_that_repeats_the_text_is_no_token(wire: str) -> None:
    speaks = speaker(wire)
    closing = speaks.text("".join(TEXTS))
    row = seen(wire, texts(speaks), PAUSE_S, closing, speaks.end(speaks.good), speaks.usage(12, 10), speaks.done())
    good(row)
    assert row.remarks == ["repeated_text"]


@pytest.mark.parametrize("wire", STREAMS)
def test_events_that_hold_the_text_so_far(wire: str) -> None:
    speaks = speaker(wire)
    growing = [speaks.text("".join(TEXTS[: at + 1])) for at in range(10)]
    row = seen(wire, speaks.begin(), growing, speaks.end(speaks.good), speaks.usage(12, 10), speaks.done())
    good(row)
    assert (row.remarks, row.chunk_tokens) == (["cumulative_text"], [1] * 10)


@pytest.mark.parametrize("wire", STREAMS)
def test_a_model_that_repeats_itself_is_no_server_that_does(wire: str) -> None:
    speaks = speaker(wire)
    same = [speaks.text(" no")] * 9
    row = seen(wire, speaks.begin(), same, speaks.end(speaks.good), speaks.usage(12, 9), speaks.done())
    assert (row.status, row.text, row.chunk_tokens, row.remarks) == ("completed", " no" * 9, [1] * 9, [])


# --- counts ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("wire", "stated"), spread(list(STREAMS), [0, 4_294_967_261, 2, 2**53 - 1, 9, 41, 100_000, 2**63, 2**80])
)
def test_a_count_that_the_stream_contradicts_is_refused(wire: str, stated: int) -> None:
    speaks = speaker(wire)
    row = seen(wire, texts(speaks), speaks.end(speaks.good), speaks.usage(12, stated), speaks.done())
    assert (row.status, row.output_tokens, row.output_tokens_source) == ("completed", 10, "tokenizer")
    assert (row.chunk_tokens, row.input_tokens) == ([1] * 10, 12)
    assert row.remarks == ["output_tokens_refused"]


@pytest.mark.parametrize(("wire", "stated"), spread(list(STREAMS), [0, 4_294_967_261, 5_000_000], each=1))
def test_a_count_that_cannot_be_the_prompt_s_is_refused(wire: str, stated: int) -> None:
    speaks = speaker(wire)
    begin = [] if "anthropic" in wire else speaks.begin()
    tail = [*speaks.end(speaks.good), *speaks.usage(stated, 10), *speaks.done()]
    row = seen(wire, begin, [speaks.text(text) for text in TEXTS], tail)
    good(row)
    assert (row.input_tokens, row.input_tokens_source) == (3, "tokenizer")


@pytest.mark.parametrize("wire", STREAMS)
def test_a_later_zero_overwrites_nothing(wire: str) -> None:
    speaks = speaker(wire)
    row = seen(wire, texts(speaks), speaks.usage(25, 10), speaks.end(speaks.good), speaks.usage(0, 0), speaks.done())
    good(row)
    assert (row.input_tokens, row.input_tokens_source, row.remarks) == (25, "server", [])


@pytest.mark.parametrize("wire", CHAT)
@pytest.mark.parametrize("kind", ["so far", "each", "zeros"])
def test_usage_on_every_chunk(wire: str, kind: str) -> None:
    speaks = speaker(wire)
    assert isinstance(speaks, OpenAI)
    counts = {"so far": list(range(1, 11)), "each": [1] * 10, "zeros": [0] * 10}[kind]
    chunks = [
        speaks.chunk(
            {"content": text}, usage={"prompt_tokens": 0 if kind == "zeros" else 12, "completion_tokens": count}
        )
        for text, count in zip(TEXTS, counts, strict=True)
    ]
    row = seen(wire, speaks.begin(), chunks, speaks.end("stop"), speaks.done())
    good(row)
    assert row.output_tokens_source == ("server" if kind == "so far" else "tokenizer")
    assert (row.input_tokens, row.input_tokens_source) == ((3, "tokenizer") if kind == "zeros" else (12, "server"))


# --- JSON ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("wire", STREAMS)
def test_a_character_split_over_two_events(wire: str) -> None:
    speaks = speaker(wire)
    row = seen(
        wire,
        speaks.begin(),
        speaks.text(" so \ud83d"),
        PAUSE_S,
        speaks.text("\ude00 good"),
        speaks.end(speaks.good),
        speaks.usage(12, 4),
        speaks.done(),
    )
    assert (row.status, row.text, len(row.chunk_ns)) == ("completed", " so 😀 good", 2)


ODD = {
    "infinite": '"logprob": -Infinity, "log_prob": NaN',
    "large": '"seed": 123456789012345678901234567890, "score": 1e999',
    "twice": '"created": 1, "created": 2',
    "deep": f'"trace": {"[" * 3000}1{"]" * 3000}',
    "half": '"note": "\\ud83d"',
}


@pytest.mark.parametrize(
    ("wire", "odd"), spread(["openai", "anthropic", "sagemaker", "tgi", "litellm/gemini"], list(ODD))
)
def test_json_that_is_read_kindly(wire: str, odd: str) -> None:
    speaks = speaker(wire)
    assert not isinstance(speaks, Bedrock)
    strange = speaks.text(TEXTS[0])
    if not isinstance(speaks, OpenAI):
        strange = strange.replace(b"data: {", b"data: {" + ODD[odd].encode() + b", ", 1)
    elif isinstance(speaks, Tgi):
        token = f'{{{ODD[odd]}, "token": {{"text": "{TEXTS[0]}", {ODD[odd]}}}}}'
        strange = speaks.other(token)
    else:
        strange = speaks.other(f'{{{ODD[odd]}, "choices": [{{"delta": {{"content": "{TEXTS[0]}"}}, {ODD[odd]}}}]}}')
    rest = [speaks.text(text) for text in TEXTS[1:]]
    good(seen(wire, speaks.begin(), strange, rest, speaks.end(speaks.good), speaks.usage(12, 10), speaks.done()))
