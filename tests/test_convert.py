"""Logs and traces in their real formats, small and made up, into workload files that the workloads read."""

import base64
import bz2
import gzip
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from llmexp.config import Model, Workload
from llmexp.convert.__main__ import convert, main
from llmexp.workload.scripts import script_of
from llmexp.workload.source import Source
from llmexp.workload.text import nonce_text
from llmexp.workload.tokens import Estimate, Tokenizer, tokenizer_for

SCHEMA = {"type": "object", "properties": {"city": {"type": "string", "description": "A zyzzyv place."}}}
FUNCTION = {"name": "weather", "description": "The zyzzyv weather.", "parameters": SCHEMA}
TOOL = {"type": "function", "function": FUNCTION}
CALL = {"id": "call_x7", "type": "function", "function": {"name": "weather", "arguments": '{"city": "Zyzzyvville"}'}}
ASKED = [{"role": "system", "content": "You are a zyzzyv helper."}, {"role": "user", "content": "Zyzzyv weather?"}]
RESULT = {"role": "tool", "tool_call_id": "call_x7", "content": '{"sky": "zyzzyvly clear", "degrees": 31}'}
CALLED = {"role": "assistant", "content": None, "tool_calls": [CALL]}
SAID = {"role": "assistant", "content": "It is zyzzyvly clear."}


def o200k() -> Tokenizer:
    return tokenizer_for(Model(name="m", tokenizer="o200k_base"), None)


def lines(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text().splitlines()]


def converted(
    tmp_path: Path, kind: str, records: Any, *, suffix: str = "jsonl", **options: Any
) -> list[dict[str, Any]]:
    source, target = tmp_path / f"log.{suffix}", tmp_path / f"{kind}.jsonl"
    source.write_text(records if isinstance(records, str) else "".join(json.dumps(one) + "\n" for one in records))
    convert(str(source), kind, str(target), **options)
    return lines(target)


def roles(session: dict[str, Any]) -> list[list[str]]:
    return [[message["role"] for message in turn["messages"]] for turn in session["turns"]]


def replayed(path: Path) -> Source:
    return Source(Workload(kind="sessions", file=str(path)), Estimate(), seed=1, nonce="job")


# --- traces ----------------------------------------------------------------------------------------------------------

MOONCAKE = [
    {"timestamp": 1000, "input_length": 1300, "output_length": 20, "hash_ids": [7, 8, 9]},
    {"timestamp": 1500, "input_length": 1100, "output_length": 30, "hash_ids": [7, 8, 10]},
    {"timestamp": 4000, "input_length": 600, "output_length": 10, "hash_ids": [11, 8]},
    {"timestamp": 4500, "input_length": 1600, "output_length": 10, "hash_ids": [7, 8]},
    {"timestamp": 5000, "input_length": 100, "output_length": 0, "hash_ids": [7]},
]


def test_mooncake_s_blocks_become_text_that_shares_exactly_them(tmp_path: Path) -> None:
    rows = converted(tmp_path, "mooncake", MOONCAKE)
    assert [row["timestamp"] for row in rows] == [0, 0.5, 3, 3.5]
    assert [row["output_tokens"] for row in rows] == [20, 30, 10, 10]
    words = [row["prompt"].split(" ") for row in rows]
    assert [o200k().count(row["prompt"]) for row in rows] == [1300, 1100, 600, 1600]
    assert [len(each) for each in words] == [1300, 1100, 600, 1600]
    assert words[0][:1024] == words[1][:1024] == words[3][:1024]
    assert words[0][1024] != words[1][1024] != words[3][1024]
    assert words[2][0] != words[0][0]
    assert words[2][512:] == words[0][512:600]
    assert converted(tmp_path, "mooncake", MOONCAKE) == rows


def test_mooncake_s_rows_get_one_nonce_a_job_before_all_texts(tmp_path: Path) -> None:
    converted(tmp_path, "mooncake", MOONCAKE)
    made = Source(Workload(kind="file", file=str(tmp_path / "mooncake.jsonl")), Estimate(), seed=1, nonce="job")
    first, second = made.request(0).messages[0].text, made.request(1).messages[0].text
    shared = next(at for at, (one, other) in enumerate(zip(first, second, strict=False)) if one != other)
    assert first.startswith(nonce_text("job", "job/", 0))
    assert o200k().count(first[:shared]) >= 1024
    assert made.request(0, warmup=True).messages[0].text[:12] != first[:12]
    assert made.request(4).messages[0].text[:12] != first[:12]  # the trace again: nothing of it is known
    assert made.declared_cache_share() > 0.3


def test_azure_s_and_burstgpt_s_lengths_become_rows(tmp_path: Path) -> None:
    head = "TIMESTAMP,ContextTokens,GeneratedTokens\n"
    azure = f"{head}2023-11-16 18:17:03.9799600,374,44\n2023-11-16 18:17:04.0319600,396,109\n"
    assert converted(tmp_path, "azure", azure, suffix="csv") == [
        {"timestamp": 0.0, "input_tokens": 374, "output_tokens": 44, "nonce": "job"},
        {"timestamp": 0.052, "input_tokens": 396, "output_tokens": 109, "nonce": "job"},
    ]
    zoned = f"{head}2024-05-10 00:00:00.009930+00:00,2162,5\n"
    assert converted(tmp_path, "azure", zoned, suffix="csv")[0]["input_tokens"] == 2162
    burst = (
        "Timestamp,Model,Request tokens,Response tokens,Total tokens,Log Type\n"
        "5,ChatGPT,472,18,490,Conversation log\n"
        "45,ChatGPT,1087,0,1087,Conversation log\n"
        "118,GPT-4,417,276,693,API log\n"
    )
    assert [row["timestamp"] for row in converted(tmp_path, "burstgpt", burst, suffix="csv")] == [0, 113]


def test_rows_that_cannot_be_used_are_counted_and_named(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    source = tmp_path / "trace.jsonl"
    source.write_text(
        "\n".join(
            [
                *map(json.dumps, MOONCAKE),
                '{"timestamp": 6000}',
                "{",
                '{"timestamp": 1, "input_length": 5, "output_length": 5, "hash_ids": [1]}',
                '{"timestamp": 7000, "input_length": 1e30, "output_length": 5, "hash_ids": [1]}',
                '{"timestamp": 1e300, "input_length": 5, "output_length": 5, "hash_ids": [1]}',
            ]
        )
    )
    assert main([str(source), "--from", "mooncake", "--to", str(tmp_path / "out.jsonl")]) == 0
    said = capsys.readouterr().out
    assert "wrote 4 rows" in said
    assert "6 rows could not be used" in said
    assert "1 × more input tokens than any model knows (trace.jsonl, line 9)" in said
    assert "1 × '1e+300' is no time (trace.jsonl, line 10)" in said
    assert "1 × no output tokens: the request failed (trace.jsonl, line 5)" in said
    assert "its time goes back" in said
    assert "it is no JSON" in said
    source.write_text("{\n")
    assert main([str(source), "--from", "azure", "--to", str(tmp_path / "none.jsonl")]) == 2
    assert not (tmp_path / "none.jsonl").exists()
    assert "no row" in capsys.readouterr().err


def test_tables_with_other_marks_between_cells(tmp_path: Path) -> None:
    trace = "TIMESTAMP,ContextTokens,GeneratedTokens\n2023-11-16 18:15:46.6,374,44\n2023-11-16 18:15:51,100,7\n"
    for mark, suffix in ((",", "csv"), (";", "csv"), ("\t", "csv"), ("\t", "tsv"), ("|", "csv")):
        rows = converted(tmp_path, "azure", trace.replace(",", mark), suffix=suffix)
        assert [row["input_tokens"] for row in rows] == [374, 100]


def test_the_log_itself_is_never_written_over(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    source = tmp_path / "trace.jsonl"
    log = "\n".join(map(json.dumps, MOONCAKE))
    source.write_text(log)
    link = tmp_path / "link.jsonl"
    link.symlink_to(source)
    for given, to in ((source, source), (source, link), (tmp_path, source)):
        assert main([str(given), "--from", "mooncake", "--to", str(to)]) == 2
        assert f"--to: '{to}' belongs to the log itself; name another file" in capsys.readouterr().err
    assert main([str(source), "--from", "mooncake", "--to", str(tmp_path / "out.json")]) == 2
    assert "--to: must end in .jsonl" in capsys.readouterr().err
    assert source.read_text() == log


# --- chats -----------------------------------------------------------------------------------------------------------

OPENAI = [
    {
        "timestamp": "2026-01-05T10:00:00Z",
        "latency_ms": 1500,
        "request": {"model": "m", "messages": ASKED, "tools": [TOOL]},
        "response": {"choices": [{"message": CALLED}], "usage": {"completion_tokens": 17}},
    },
    {
        "timestamp": "2026-01-05T10:00:01Z",
        "latency_ms": 500,
        "request": {"model": "m", "messages": [{"role": "user", "content": "Another zyzzyv."}]},
        "response": {
            "choices": [{"message": {"role": "assistant", "content": "Yes."}}],
            "usage": {"completion_tokens": 3},
        },
    },
    {
        "timestamp": "2026-01-05T10:00:04Z",
        "latency_ms": 700,
        "request": {"model": "m", "messages": [*ASKED, CALLED, RESULT], "tools": [TOOL]},
        "response": {"choices": [{"message": SAID}], "usage": {"completion_tokens": 6}},
    },
]


def check_tool_session(session: dict[str, Any], path: Path) -> None:
    """The session that every format's log of this file's chat becomes."""
    assert roles(session) == [["system", "user"], ["assistant", "tool", "assistant"]]
    call = session["turns"][1]["messages"][0]["tool_calls"][0]
    assert call["function"]["name"] == "weather"
    assert list(json.loads(call["function"]["arguments"])) == ["city"]
    assert session["turns"][1]["messages"][1]["tool_call_id"] == call["id"]
    assert "Zyzzyv" not in path.read_text()
    assert "zyzzyv" not in path.read_text()
    made = replayed(path)
    first, second = made.request(0), made.request(1)
    assert [message.role for message in second.messages] == ["system", "user", "assistant", "tool"]
    assert second.messages[:2] == first.messages
    assert first.tools[0].name == "weather"
    assert not made.off_script(first, frozenset({"weather"}))
    assert made.off_script(first, frozenset())


def test_openai_s_chat_logs_become_sessions_by_their_histories(tmp_path: Path) -> None:
    tooled, other = converted(tmp_path, "openai", OPENAI)
    check_tool_session(tooled, tmp_path / "openai.jsonl")
    assert (tooled["timestamp"], other["timestamp"]) == (0, 1)
    assert [turn["output_tokens"] for turn in tooled["turns"]] == [17, 6]
    assert tooled["turns"][1]["delay_s"] == 2.5
    assert roles(other) == [["user", "assistant"]]


def test_whole_chats_are_cut_at_their_answers_and_texts_kept_where_asked(tmp_path: Path) -> None:
    chat = {"messages": [*ASKED, CALLED, RESULT, SAID, {"role": "user", "content": "Thanks."}], "tools": [TOOL]}
    (session,) = converted(
        tmp_path, "openai", [{"messages": [*chat["messages"], SAID], "tools": [TOOL]}], keep_text=True
    )
    assert roles(session) == [["system", "user"], ["assistant", "tool"], ["assistant", "user", "assistant"]]
    assert session["turns"][0]["messages"] == ASKED
    assert session["turns"][0]["tools"] == [TOOL]
    assert "tools" not in session["turns"][1]
    assert session["turns"][1]["messages"][1]["content"] == RESULT["content"]


def test_what_no_workload_could_read_is_counted_and_not_written(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    chats = [
        [{"role": "assistant", "content": "only an answer"}],
        [{"role": "user", "content": None}],
        [{"role": "user", "content": ""}, {"role": "assistant", "content": "yes"}],
        [{"role": "user", "content": "a question"}],
    ]
    source = tmp_path / "log.jsonl"
    source.write_text("".join(json.dumps({"messages": chat}) + "\n" for chat in chats))
    assert main([str(source), "--from", "openai", "--to", str(tmp_path / "out.jsonl")]) == 0
    said = capsys.readouterr().out
    assert "wrote 1 session of 1 recorded turn: " in said
    assert "3 rows could not be used" in said
    assert "1 × it asks nothing: its messages are the assistant's alone (log.jsonl, line 1)" in said
    assert "2 × a user message has no content (log.jsonl, line 2; log.jsonl, line 3)" in said
    (session,) = lines(tmp_path / "out.jsonl")
    script_of(session, tmp_path)


def test_streams_of_chunks_are_put_together(tmp_path: Path) -> None:
    pieces: list[dict[str, Any]] = [
        {"tool_calls": [{"index": 0, "id": "c", "function": {"name": "weather", "arguments": '{"ci'}}]},
        {"tool_calls": [{"index": 0, "function": {"arguments": 'ty": "Rome"}'}}]},
    ]
    stream = "".join(f"data: {json.dumps({'choices': [{'delta': piece}]})}\n\n" for piece in pieces) + "data: [DONE]\n"
    record = {"request": {"messages": ASKED}, "response": stream}
    (session,) = converted(tmp_path, "openai", [record], keep_text=True)
    assert session["turns"][0]["messages"][-1]["tool_calls"][0]["function"]["arguments"] == '{"city": "Rome"}'


def test_items_of_the_responses_api_and_roles_that_nobody_knows(tmp_path: Path) -> None:
    asked = [
        {"role": "user", "content": [{"type": "input_text", "text": "Weather?"}]},
        {"type": "function_call", "call_id": "c", "name": "weather", "arguments": "{}"},
        {"type": "function_call_output", "call_id": "c", "output": "clear"},
    ]
    said = {"type": "message", "role": "assistant", "content": [{"type": "output_text", "text": "It is clear."}]}
    tools = [{"type": "function", "name": "weather", "parameters": SCHEMA}]
    record = {
        "request": {"instructions": "Be brief.", "input": asked, "tools": tools},
        "response": {"output": [said], "usage": {"output_tokens": 5}},
    }
    odd = {"request": {"messages": [{"role": "robot", "content": "x"}]}}
    source, target = tmp_path / "log.jsonl", tmp_path / "out.jsonl"
    source.write_text(f"{json.dumps(record)}\n{json.dumps(odd)}\n")
    assert "1 × a message of the role 'robot' (log.jsonl, line 2)" in convert(
        str(source), "openai", str(target), keep_text=True
    )
    (session,) = lines(target)
    assert roles(session) == [["system", "user", "assistant", "tool", "assistant"]]
    assert session["turns"][0]["output_tokens"] == 5
    assert replayed(target).request(0).messages[-1].text == "clear"


def test_bedrock_s_invocation_logs(tmp_path: Path) -> None:
    use = {"toolUse": {"toolUseId": "call_x7", "name": "weather", "input": {"city": "Zyzzyvville"}}}
    result = {"toolResult": {"toolUseId": "call_x7", "content": [{"json": {"sky": "zyzzyvly clear"}}]}}
    user = {"role": "user", "content": [{"text": "Zyzzyv weather?"}]}
    config = {"tools": [{"toolSpec": {"name": "weather", "description": "Zyzzyv.", "inputSchema": {"json": SCHEMA}}}]}
    system = [{"text": "You are a zyzzyv helper."}]

    def record(at: str, messages: list[Any], answer: list[Any], tokens: int, latency_ms: int) -> dict[str, Any]:
        body = {"messages": messages, "system": system, "toolConfig": config}
        message = {"message": {"role": "assistant", "content": answer}}
        return {
            "schemaType": "ModelInvocationLog",
            "schemaVersion": "1.0",
            "timestamp": at,
            "operation": "ConverseStream",
            "modelId": "us.anthropic.claude-sonnet-4-6",
            "input": {"inputContentType": "application/json", "inputBodyJson": body, "inputTokenCount": 35},
            "output": {
                "outputContentType": "application/json",
                "outputBodyJson": {"output": message, "stopReason": "end_turn", "metrics": {"latencyMs": latency_ms}},
                "outputTokenCount": tokens,
            },
        }

    messages = [user, {"role": "assistant", "content": [use]}, {"role": "user", "content": [result]}]
    records = [
        record("2026-02-01T08:00:00Z", [user], [use], 21, 2000),
        record("2026-02-01T08:00:05Z", messages, [{"text": "Zyzzyvly clear."}], 7, 900),
        {
            "schemaType": "ModelInvocationLog",
            "input": {"inputBodyS3Path": "s3://b/k"},
            "timestamp": "2026-02-01T08:00:06Z",
        },
    ]
    folder = tmp_path / "logs" / "2026"
    folder.mkdir(parents=True)
    with gzip.open(folder / "08.json.gz", "wt") as file:
        file.write("\n".join(map(json.dumps, records)))
    target = tmp_path / "bedrock.jsonl"
    said = convert(str(tmp_path / "logs"), "bedrock", str(target))
    assert "1 × its body lies in another object (inputBodyS3Path) (08.json.gz, line 3)" in said
    (session,) = lines(target)
    check_tool_session(session, target)
    assert [turn["output_tokens"] for turn in session["turns"]] == [21, 7]
    assert session["turns"][1]["delay_s"] == 3.0


def test_bedrock_s_invoke_model_logs_with_anthropic_s_bodies(tmp_path: Path) -> None:
    body = {"anthropic_version": "bedrock-2023-05-31", "messages": [{"role": "user", "content": "Hi"}], "max_tokens": 9}
    events = [
        {"type": "content_block_start", "index": 0, "content_block": {"type": "text", "text": ""}},
        {"type": "content_block_delta", "index": 0, "delta": {"type": "text_delta", "text": "Hello"}},
        {
            "type": "content_block_start",
            "index": 1,
            "content_block": {"type": "tool_use", "id": "t", "name": "weather", "input": {}},
        },
        {"type": "content_block_delta", "index": 1, "delta": {"type": "input_json_delta", "partial_json": "{}"}},
    ]
    record = {
        "timestamp": "2026-02-01T08:00:00Z",
        "input": {"inputBodyJson": body},
        "output": {"outputBodyJson": events},
    }
    (session,) = converted(tmp_path, "bedrock", [record], keep_text=True)
    answer = session["turns"][0]["messages"][-1]
    assert (answer["content"], answer["tool_calls"][0]["function"]["name"]) == ("Hello", "weather")


def attribute(name: str, value: object) -> dict[str, Any]:
    return {"key": name, "value": {"stringValue": value if isinstance(value, str) else json.dumps(value)}}


def span(start_s: float, end_s: float, *attributes: dict[str, Any]) -> dict[str, Any]:
    times = {"startTimeUnixNano": str(int(start_s * 1e9)), "endTimeUnixNano": str(int(end_s * 1e9))}
    return {"traceId": "ab", "spanId": "cd", "name": "chat m", **times, "attributes": list(attributes)}


def test_otel_s_spans_of_the_genai_conventions(tmp_path: Path) -> None:
    user = {"role": "user", "parts": [{"type": "text", "content": "Zyzzyv weather?"}]}
    called = {"type": "tool_call", "id": "call_x7", "name": "weather", "arguments": {"city": "Zyzzyvville"}}
    response = {"type": "tool_call_response", "id": "call_x7", "response": "zyzzyvly clear"}
    history = [user, {"role": "assistant", "parts": [called]}, {"role": "tool", "parts": [response]}]
    common = [
        attribute("gen_ai.operation.name", "chat"),
        attribute("gen_ai.conversation.id", "conv_1"),
        attribute("gen_ai.system_instructions", [{"type": "text", "content": "You are a zyzzyv helper."}]),
        attribute("gen_ai.tool.definitions", [{"type": "function", **FUNCTION}]),
    ]
    said = {"role": "assistant", "parts": [{"type": "text", "content": "Zyzzyvly clear."}], "finish_reason": "stop"}
    tokens = {"key": "gen_ai.usage.output_tokens", "value": {"intValue": "12"}}
    first = span(
        100,
        101.5,
        *common,
        attribute("gen_ai.input.messages", [user]),
        tokens,
        attribute("gen_ai.output.messages", [{"role": "assistant", "parts": [called], "finish_reason": "tool_call"}]),
    )
    second = span(
        104,
        105,
        *common,
        attribute("gen_ai.input.messages", history),
        tokens,
        attribute("gen_ai.output.messages", [said]),
    )
    tool = span(101.5, 104, attribute("gen_ai.operation.name", "execute_tool"))
    silent = span(106, 107, attribute("gen_ai.operation.name", "chat"))
    batch = {"resourceSpans": [{"scopeSpans": [{"spans": [second, first, tool, silent]}]}]}
    source, target = tmp_path / "spans.jsonl", tmp_path / "otel.jsonl"
    source.write_text(json.dumps(batch) + "\n")
    told = convert(str(source), "otel", str(target))
    assert "1 × no messages on the span" in told
    (session,) = lines(target)
    check_tool_session(session, target)
    assert [turn["output_tokens"] for turn in session["turns"]] == [12, 12]
    assert session["turns"][1]["delay_s"] == 2.5


def test_otel_s_indexed_attributes(tmp_path: Path) -> None:
    attributes = {
        "gen_ai.prompt.0.role": "system",
        "gen_ai.prompt.0.content": "Be brief.",
        "gen_ai.prompt.1.role": "user",
        "gen_ai.prompt.1.content": "Hi",
        "gen_ai.completion.0.content": "Hello",
        "gen_ai.completion.0.tool_calls.0.name": "weather",
        "gen_ai.completion.0.tool_calls.0.arguments": "{}",
        "llm.request.functions.0.name": "weather",
        "gen_ai.usage.completion_tokens": 4,
    }
    record = {
        "name": "chat",
        "start_time": "2026-01-01T00:00:00Z",
        "end_time": "2026-01-01T00:00:01Z",
        "attributes": attributes,
    }
    (session,) = converted(tmp_path, "otel", [record], keep_text=True)
    assert roles(session) == [["system", "user", "assistant"]]
    assert session["turns"][0]["tools"][0]["function"]["name"] == "weather"
    assert session["turns"][0]["output_tokens"] == 4


def test_sagemaker_s_data_capture(tmp_path: Path) -> None:
    def record(body: object, answer: object, at: str, encoding: str = "JSON") -> dict[str, Any]:
        def side(value: object) -> dict[str, str]:
            text = value if isinstance(value, str) else json.dumps(value)
            data = base64.b64encode(text.encode()).decode() if encoding == "BASE64" else text
            return {"observedContentType": "application/json", "mode": "INPUT", "data": data, "encoding": encoding}

        return {
            "captureData": {"endpointInput": side(body), "endpointOutput": side(answer)},
            "eventMetadata": {"eventId": "e", "inferenceTime": at},
            "eventVersion": "0",
        }

    def whole(message: object) -> dict[str, Any]:
        return {"choices": [{"message": message}], "usage": {"completion_tokens": 5}}

    chat = {"messages": ASKED, "tools": [TOOL], "max_tokens": 50}
    later = {"messages": [*ASKED, CALLED, RESULT], "tools": [TOOL], "max_tokens": 50}
    plain = {"inputs": "A zyzzyv question", "parameters": {"max_new_tokens": 40}}
    records = [
        record(chat, whole(CALLED), "2026-03-01T00:00:00Z", "BASE64"),
        record(later, whole(SAID), "2026-03-01T00:00:03Z"),
        record(plain, [{"generated_text": "Zyzzyvly so."}], "2026-03-01T00:00:04Z"),
    ]
    tooled, other = converted(tmp_path, "sagemaker", records)
    check_tool_session(tooled, tmp_path / "sagemaker.jsonl")
    assert (other["timestamp"], other["turns"][0]["output_tokens"]) == (4, 40)
    assert roles(other) == [["user", "assistant"]]


def test_sharegpt_s_chats_and_what_is_left_out_of_them(tmp_path: Path) -> None:
    chats = [
        {
            "id": "a",
            "conversations": [
                {"from": "human", "value": "One?"},
                {"from": "gpt", "value": "Two."},
                {"from": "human", "value": "Three?"},
            ],
        },
        {"id": "b", "conversations": [{"from": "gpt", "value": "An answer."}, {"from": "human", "value": "Why?"}]},
        {"id": "c", "conversations": [{"from": "robot", "value": "x"}]},
    ]
    source, target = tmp_path / "chats.json", tmp_path / "sharegpt.jsonl"
    source.write_text(json.dumps(chats, indent=1))
    said = convert(str(source), "sharegpt", str(target))
    assert "1 × begins with an answer" in said
    assert "1 × a turn of 'robot'" in said
    first, second = lines(target)
    assert roles(first) == [["user"], ["assistant", "user"]]
    assert roles(second) == [["user"]]


# --- texts -----------------------------------------------------------------------------------------------------------


def test_made_up_texts_are_as_long_laid_out_alike_and_share_what_the_real_ones_shared(tmp_path: Path) -> None:
    shared = "The same long beginning of the instructions, word for word, for every user of this assistant. " * 4
    texts = [f"{shared}\n\n- one: {name} asks\n- two: nothing else" for name in ("Ada", "Grace")]
    records = [
        {"timestamp": at, "request": {"messages": [{"role": "user", "content": text}]}, "response": {}}
        for at, text in enumerate(texts)
    ]
    made = [session["turns"][0]["messages"][0]["content"] for session in converted(tmp_path, "openai", records)]
    count = o200k().count
    assert [text.count("\n") for text in made] == [text.count("\n") for text in texts]
    assert [count(text) for text in made] == pytest.approx([count(text) for text in texts], rel=0.06)
    begins = next(at for at, (one, other) in enumerate(zip(*made, strict=False)) if one != other)
    assert count(made[0][:begins]) == pytest.approx(count(shared), abs=12)
    assert not {"Ada", "Grace", "instructions"} & set(" ".join(made).split())
    again = converted(tmp_path, "openai", records)
    assert again[0]["turns"][0]["messages"][0]["content"] != made[0]
    seeded = [converted(tmp_path, "openai", records, seed=3) for _ in range(2)]
    assert seeded[0] == seeded[1]


def test_pictures_are_replaced_by_others_of_their_size(tmp_path: Path) -> None:
    from random import Random

    from llmexp.workload.pictures import picture

    for kind, media in (("png", "image/png"), ("jpeg", "image/jpeg")):
        real = base64.b64encode(picture(Random(1), 40, 24, kind)).decode()
        content = [
            {"type": "text", "text": "What is it?"},
            {"type": "image_url", "image_url": {"url": f"data:{media};base64,{real}"}},
        ]
        records = [{"request": {"messages": [{"role": "user", "content": content}]}, "response": {}}]
        (session,) = converted(tmp_path, "openai", records)
        url = session["turns"][0]["messages"][0]["content"][1]["image_url"]["url"]
        from llmexp.convert.made_up import size_of

        assert real not in url
        assert url.startswith(f"data:{media};base64,")
        assert size_of(url.partition(",")[2]) == (40, 24)
        assert replayed(tmp_path / "openai.jsonl").request(0).is_plain is False


@pytest.mark.e2e
def test_memory_stays_bounded_however_long_the_log(tmp_path: Path) -> None:
    source = tmp_path / "long.jsonl"
    with source.open("w") as file:
        for at in range(30_000):
            row = {
                "timestamp": at,
                "request": {"messages": [{"role": "user", "content": f"word {at} " * 60}]},
                "response": {},
            }
            file.write(json.dumps(row) + "\n")
    program = (
        "from pathlib import Path; from llmexp.convert.__main__ import convert; "
        f"convert({str(source)!r}, 'openai', {str(tmp_path / 'out.jsonl')!r}, keep_text=True); "
        "print(next(line for line in Path('/proc/self/status').read_text().splitlines() if 'VmHWM' in line))"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert int(done.stdout.split()[1]) < 100_000  # kB
    assert (tmp_path / "out.jsonl").read_bytes().count(b"\n") == 30_000


USER = {"role": "user", "content": "Hi"}
SPAN = {"name": "chat", "attributes": [{"key": "gen_ai.operation.name", "value": {"stringValue": "chat"}}]}


@pytest.mark.parametrize(
    ("kind", "odd"),
    [
        ("openai", {"messages": [{"role": [], "content": "x"}]}),
        ("openai", {"messages": [USER | {"content": "half \ud83d"}]}),
        ("openai", {"messages": [USER], "tools": [{"function": {"name": "f", "parameters": {"a": "\ud83d"}}}]}),
        ("otel", {**SPAN, "attributes": [{"key": "gen_ai.operation.name", "value": {"stringValue": []}}]}),
        ("otel", {**SPAN, "attributes": [{"key": "gen_ai.usage.output_tokens", "value": {"intValue": None}}]}),
    ],
)
def test_one_odd_row_costs_no_other(tmp_path: Path, kind: str, odd: dict[str, object]) -> None:
    said = {"key": "gen_ai.input.messages", "value": {"stringValue": json.dumps([USER])}}
    good = {"messages": [USER]} if kind == "openai" else {**SPAN, "attributes": [*SPAN["attributes"], said]}
    (tmp_path / "log.jsonl").write_text(f"{json.dumps(good)}\n{json.dumps(odd)}\n{json.dumps(good)}\n")
    told = convert(str(tmp_path / "log.jsonl"), kind, str(tmp_path / "out.jsonl"))
    assert "1 row could not be used" in told
    assert "(log.jsonl, line 2)" in told


@pytest.mark.parametrize("name", ["log.jsonl.bz2", "log.jsonl"])
def test_logs_that_are_packed_or_written_as_utf_16(tmp_path: Path, name: str) -> None:
    log = f"{json.dumps({'messages': [USER]})}\n"
    (tmp_path / name).write_bytes(bz2.compress(log.encode()) if name.endswith("bz2") else log.encode("utf-16"))
    assert "wrote 1 session" in convert(str(tmp_path / name), "openai", str(tmp_path / "out.jsonl"))
