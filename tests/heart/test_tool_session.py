"""A tool-using session of twenty turns over three wires: servers of their own, which read what came, saw the same."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest
from support.aws_server import ACCESS_KEY, SECRET_KEY, AwsServer, Reply, converse, event
from support.in_process import Outcome, config, pair, run
from support.sse_server import Script, serve, streamed

pytestmark = pytest.mark.service

TURNS = 20
PICTURE = "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mNk+M9QDwADhgGAWjR9awAAAABJRU5ErkJggg=="
SCHEMA = {"type": "object", "properties": {"order": {"type": "integer"}}, "required": ["order"]}
TOOL = {"type": "function", "function": {"name": "find", "description": "Finds an order.", "parameters": SCHEMA}}
Line = tuple[str, ...]


def session() -> dict[str, Any]:
    """Turns that call a tool and turns that answer, in alternation; the first user message holds a picture."""
    turns: list[dict[str, Any]] = []
    for turn in range(TURNS):
        asked: list[dict[str, Any]] = []
        if turn == 0:
            picture = {"type": "image_url", "image_url": {"url": f"data:image/png;base64,{PICTURE}"}}
            asked = [
                {"role": "system", "content": "You help with orders."},
                {"role": "user", "content": [{"type": "text", "text": "Where is the first one?"}, picture]},
            ]
        elif turn % 2:
            called = {"name": "find", "arguments": json.dumps({"order": turn})}
            call = {"id": f"call_{turn}", "type": "function", "function": called}
            result = {"role": "tool", "tool_call_id": f"call_{turn}", "content": f"Order {turn} has left."}
            asked = [{"role": "assistant", "content": f"I look for {turn}.", "tool_calls": [call]}, result]
        else:
            asked = [
                {"role": "assistant", "content": f"Number {turn - 1} has left."},
                {"role": "user", "content": f"And the one after {turn}?"},
            ]
        turns.append({"messages": asked, "tools": [TOOL], "output_tokens": 8})
    return {"session": "orders", "turns": turns}


def expected(turn: int) -> list[Line]:
    """What a server shall see in a turn, but for the nonce."""
    lines: list[Line] = [("system", "You help with orders."), ("user", "Where is the first one?"), ("user", PICTURE)]
    for at in range(1, turn + 1):
        if at % 2:
            call = ("call", f"call_{at}", "find", json.dumps({"order": at}))
            lines += [("assistant", f"I look for {at}."), call, ("result", f"call_{at}", f"Order {at} has left.")]
        else:
            lines += [("assistant", f"Number {at - 1} has left."), ("user", f"And the one after {at}?")]
    return lines


def live(text: str) -> str:
    """What the servers of this test answer where this was recorded."""
    return text.replace("Number", "Live").replace(" has left", "")


# --- how each server reads its own wire ------------------------------------------------------------------------------


def from_openai(body: Mapping[str, Any]) -> Iterator[Line]:
    for message in body["messages"]:
        if message["role"] == "tool":
            yield "result", message["tool_call_id"], message["content"]
            continue
        content = message["content"]
        for part in content if isinstance(content, list) else [{"type": "text", "text": content}]:
            if part["type"] == "image_url":
                yield message["role"], part["image_url"]["url"].removeprefix("data:image/png;base64,")
            elif part["text"]:
                yield message["role"], part["text"]
        for call in message.get("tool_calls", ()):
            yield "call", call["id"], call["function"]["name"], call["function"]["arguments"]


def from_anthropic(body: Mapping[str, Any]) -> Iterator[Line]:
    yield "system", body["system"]
    roles = [message["role"] for message in body["messages"]]
    assert roles == ["user", "assistant"] * (len(roles) // 2) + ["user"]
    for message in body["messages"]:
        for block in message["content"]:
            if block["type"] == "image":
                assert block["source"]["media_type"] == "image/png"
                yield message["role"], block["source"]["data"]
            elif block["type"] == "tool_use":
                yield "call", block["id"], block["name"], json.dumps(block["input"])
            elif block["type"] == "tool_result":
                assert message["role"] == "user"
                yield "result", block["tool_use_id"], block["content"]
            else:
                yield message["role"], block["text"]


def from_bedrock(body: Mapping[str, Any]) -> Iterator[Line]:
    yield "system", "".join(block["text"] for block in body["system"])
    for message in body["messages"]:
        for block in message["content"]:
            if "image" in block:
                assert block["image"]["format"] == "png"
                yield message["role"], block["image"]["source"]["bytes"]
            elif "toolUse" in block:
                yield (
                    "call",
                    block["toolUse"]["toolUseId"],
                    block["toolUse"]["name"],
                    json.dumps(block["toolUse"]["input"]),
                )
            elif "toolResult" in block:
                result = block["toolResult"]
                yield "result", result["toolUseId"], "".join(part["text"] for part in result["content"])
            else:
                yield message["role"], block["text"]


def without_nonce(lines: list[Line]) -> list[Line]:
    (role, first), *rest = lines
    return [(role, first.split("\n\n", 1)[1]), *rest]


# --- what each server answers: a call of the tool at even turns, text at odd ones ------------------------------------


def sse(*events: Any) -> bytes:
    return b"".join(f"event: {tree.get('type', 'message')}\ndata: {json.dumps(tree)}\n\n".encode() for tree in events)


def openai_answer(turn: int) -> Script:
    function = {"name": "find", "arguments": json.dumps({"order": turn + 1})}
    calls = {"tool_calls": [{"index": 0, "id": "c", "type": "function", "function": function}]}
    delta = calls if turn % 2 == 0 else {"content": f"Live {turn}."}
    chunks = [
        {"choices": [{"index": 0, "delta": delta}]},
        {"choices": [{"index": 0, "delta": {}, "finish_reason": "stop"}]},
    ]
    usage = {"choices": [], "usage": {"prompt_tokens": 100 + turn, "completion_tokens": 5}}
    return streamed(*[f"data: {json.dumps(tree)}\n\n".encode() for tree in [*chunks, usage]], b"data: [DONE]\n\n")


def anthropic_answer(turn: int) -> Script:
    usage = {"input_tokens": 4, "cache_read_input_tokens": 90, "cache_creation_input_tokens": 6, "output_tokens": 1}
    block: dict[str, Any] = {"type": "text", "text": ""}
    delta: dict[str, Any] = {"type": "text_delta", "text": f"Live {turn}."}
    if turn % 2 == 0:
        block = {"type": "tool_use", "id": "t", "name": "find", "input": {}}
        delta = {"type": "input_json_delta", "partial_json": json.dumps({"order": turn + 1})}
    stop = {"type": "message_delta", "delta": {"stop_reason": "end_turn"}, "usage": {"output_tokens": 5}}
    return streamed(
        sse({"type": "message_start", "message": {"role": "assistant", "usage": usage}}),
        sse({"type": "content_block_start", "index": 0, "content_block": block}),
        sse({"type": "content_block_delta", "index": 0, "delta": delta}),
        sse({"type": "content_block_stop", "index": 0}, stop, {"type": "message_stop"}),
    )


def bedrock_answer(turn: int) -> Reply:
    if turn % 2:
        return Reply(converse([f"Live {turn}."]))
    start = {"contentBlockIndex": 0, "start": {"toolUse": {"toolUseId": "t", "name": "find"}}}
    delta = {"contentBlockIndex": 0, "delta": {"toolUse": {"input": json.dumps({"order": turn + 1})}}}
    frames = converse([], stop="tool_use", usage={"inputTokens": 9, "outputTokens": 5, "totalTokens": 14})
    return Reply([frames[0], event("contentBlockStart", start), event("contentBlockDelta", delta), *frames[1:]])


async def replayed(file: Path, history: str, **model: Any) -> Outcome:
    told = config(
        workload__kind="sessions",
        workload__file=str(file),
        workload__history=history,
        run__max_requests=None,
        run__save_text=True,
        concurrency=1,
    )
    told = told.model_copy(update={"model": told.model.model_copy(update=model)})
    async with pair(told) as both:
        await both.measure()
        return await both.finish()


@pytest.mark.parametrize("history", ["recorded", "live"])
def test_servers_of_three_wires_see_the_same_twenty_turns(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, history: str
) -> None:
    file = tmp_path / "orders.jsonl"
    file.write_text(json.dumps(session()))
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", ACCESS_KEY)
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", SECRET_KEY)
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    monkeypatch.delenv("AWS_SESSION_TOKEN", raising=False)
    bodies: dict[str, list[Any]] = {}
    outcomes: list[Outcome] = []

    async def body() -> None:
        for api, answer in (("openai", openai_answer), ("anthropic", anthropic_answer)):
            async with serve(*map(answer, range(TURNS))) as server:
                url = f"http://127.0.0.1:{server.port}/v1"
                outcomes.append(await replayed(file, history, api=api, base_url=url))
                bodies[api] = [json.loads(received.body) for received in server.received]
        with AwsServer("bedrock", *map(bedrock_answer, range(TURNS))) as aws:
            outcomes.append(await replayed(file, history, api="bedrock", base_url=aws.url, region="us-east-1"))
            bodies["bedrock"] = [seen.json for seen in aws.requests]

    run(body())
    readers = {"openai": from_openai, "anthropic": from_anthropic, "bedrock": from_bedrock}
    for turn in range(TURNS):
        seen = [without_nonce(list(read(bodies[api][turn]))) for api, read in readers.items()]
        assert seen[0] == seen[1] == seen[2]
        wanted = expected(turn)
        if history == "live":  # the model's own text, where no tool was called when it was recorded
            wanted = [(line[0], live(line[1]), *line[2:]) if line[0] == "assistant" else line for line in wanted]
        assert seen[0] == wanted
    assert bodies["openai"][0]["tools"][0]["function"]["parameters"] == SCHEMA
    assert bodies["anthropic"][0]["tools"][0]["input_schema"] == SCHEMA
    assert bodies["bedrock"][0]["toolConfig"]["tools"][0]["toolSpec"]["inputSchema"]["json"] == SCHEMA
    for outcome in outcomes:
        rows = sorted(outcome.records, key=lambda row: row.index)
        assert [row.status for row in rows] == ["completed"] * TURNS
        assert [row.turn for row in rows] == list(range(TURNS))
        assert [row.off_script for row in rows] == [False] * TURNS
        assert [bool(row.first_tool_call_ns) for row in rows] == [turn % 2 == 0 for turn in range(TURNS)]
        assert json.loads(rows[0].tool_calls or "") == [{"name": "find", "arguments": '{"order": 1}'}]
