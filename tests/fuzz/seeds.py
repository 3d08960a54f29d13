"""Writes the seeds of the corpus: one good answer and one bad one in each wire, rows of each layout.

python tests/fuzz/seeds.py
"""

from __future__ import annotations

import io
import json
import sys
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

HERE = Path(__file__).resolve().parent
sys.path[:0] = [str(HERE.parent), str(HERE.parent.parent)]

ROWS = [
    {"prompt": "Why?", "max_tokens": 5},
    {"messages": [{"role": "system", "content": "Be brief."}, {"role": "user", "content": "Why?"}], "tools": []},
    {"conversations": [{"from": "human", "value": "Why?"}, {"from": "gpt", "value": "So."}]},
    {"instruction": "Translate.", "input": "Warum?", "output": "Why?"},
    {"turns": ["One.", "Two."], "output_tokens": "7"},
    {"timestamp": 200, "input_length": 10, "output_length": 5, "hash_ids": [1]},
    {"TIMESTAMP": "2023-11-16 18:15:46.5", "ContextTokens": 374, "GeneratedTokens": 44},
    {"prompt": [5, 6, 7], "max_tokens": 0},
    {"contents": [{"parts": [{"text": "Why?"}]}], "systemInstruction": {"parts": [{"text": "Be brief."}]}},
    {"custom_id": "1", "params": {"messages": [{"role": "user", "content": "Why?"}], "max_tokens": 5}},
    {"prompt": "[{'role': 'user', 'content': 'Why?'}\n {'role': 'assistant', 'content': 'So.'}]"},
    {"inputs": "Why?", "parameters": {"max_new_tokens": 5}},
    {"data": ["Why?", "So."], "arrived_at": 0.5, "isl": 10, "osl": 5},
]
COHERE = [
    {"type": "content-start", "index": 0, "delta": {"message": {"content": {"type": "text", "text": ""}}}},
    {"type": "content-delta", "index": 0, "delta": {"message": {"content": {"text": " a"}}}},
    {"type": "tool-plan-delta", "delta": {"message": {"tool_plan": "hm"}}},
    {"type": "tool-call-start", "delta": {"message": {"tool_calls": {"function": {"name": "f", "arguments": ""}}}}},
    {"type": "message-end", "delta": {"finish_reason": "COMPLETE", "usage": {"tokens": {"output_tokens": 3}}}},
]
COHERE_V1 = [
    {"event_type": "text-generation", "text": " a", "is_finished": False},
    {"event_type": "tool-calls-chunk", "tool_call_delta": {"name": "f", "parameters": "{}"}},
    {"event_type": "stream-end", "is_finished": True, "finish_reason": "COMPLETE", "response": {"text": " a"}},
]
OLLAMA = [
    {
        "message": {"content": " a", "thinking": "hm", "tool_calls": [{"function": {"name": "f", "arguments": {}}}]},
        "done": False,
    },
    {"response": "", "done": True, "done_reason": "stop", "prompt_eval_count": 9, "eval_count": 2, "total_duration": 5},
]
CHUNKS = [
    {"generation": " a", "prompt_token_count": 9, "generation_token_count": 1, "stop_reason": None},
    {"outputs": [{"text": " b", "stop_reason": "stop"}]},
    {"outputText": " c", "completionReason": "FINISH", "totalOutputTextTokenCount": 4},
    {"choices": [{"index": 0, "message": {"content": " d"}, "stop_reason": "stop"}]},
    {"contentBlockDelta": {"delta": {"text": " e"}}, "messageStop": {"stopReason": "end_turn"}},
    {"type": "content_block_delta", "index": 0, "delta": {"type": "text_delta", "text": " f"}},
    {"amazon-bedrock-invocationMetrics": {"inputTokenCount": 9, "outputTokenCount": 6, "invocationLatency": 5}},
]


def main() -> None:
    """Write them."""
    from support.streams import Anthropic, Bedrock, Gemini, OpenAI, sse

    def put(target: str, name: str, data: bytes) -> None:
        folder = HERE / "corpus" / target
        folder.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(data)

    for target, speaks in (("openai", OpenAI()), ("anthropic", Anthropic()), ("gemini", Gemini())):
        said = [*speaks.begin(), speaks.thought("hm"), speaks.text(" a"), *speaks.call("f", "{}"), speaks.text(" b")]
        tail = [*speaks.end(speaks.good), *speaks.usage(9, 5), *speaks.done()]
        put(target, "good", b"".join([*said, *tail]))
        put(target, "error", b"".join([*said, b'error: {"code": 500, "message": "no"}\n\n', b": ping\n\n", *tail]))
        put(target, "whole", json.dumps([{"error": {"message": "no"}}, {"candidates": []}]).encode())
        if target == "openai":
            put("replay", "good", b"".join([*said, *tail]))
            put("replay", "error", b"".join([*said, b'data: {"error": {"code": 500, "message": "no"}}\n\n', *tail]))
        put("http", target, b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n" + _chunked([*said, *tail]))
    put("http", "gzip", b"HTTP/1.1 200 OK\r\nContent-Encoding: gzip\r\nContent-Length: 5\r\n\r\n\x1f\x8b\x08\x00\x00")
    speaks = Bedrock()
    stream = b"".join([*speaks.begin(), speaks.text(" a"), *speaks.end("end_turn"), *speaks.usage(9, 1)])
    put("event_stream", "good", stream)
    put("event_stream", "error", stream[:200] + speaks.failing("half way"))
    lines = [
        b'\x00{"contentBlockIndex":0,"delta":{"text":" a"}}',
        b'\x01{"start":{"toolUse":{"name":"f"}}}',
        b'\x00{"delta":{"reasoningContent":{"text":"hm","signature":"x"}}}',
        b'\x02{"stopReason":"end_turn"}',
        b'\x03{"usage":{"inputTokens":1,"outputTokens":2},"metrics":{"latencyMs":5}}',
    ]
    put("frames", "good", b"\n".join(lines))
    put("cohere", "good", b"".join(sse(one, str(one["type"])) for one in COHERE))
    put("cohere", "lines", b"".join(json.dumps(one).encode() + b"\n" for one in COHERE_V1))
    put("ollama", "good", b"".join(json.dumps(one).encode() + b"\n" for one in OLLAMA))
    put("chunks", "good", b"\n".join(json.dumps(one).encode() for one in (*CHUNKS, *COHERE_V1, *COHERE)))
    token = {"token": {"text": " a", "special": False}, "generated_text": None, "details": None}
    last = {"token": {"text": "", "special": True}, "generated_text": " a", "details": {"finish_reason": "eos_token"}}
    put("parts", "tgi", b"".join(b"data:" + json.dumps(one).encode() + b"\n\n" for one in (token, last)) + b"\x05")
    put("parts", "djl", json.dumps({"outputs": [" a"]}).encode() + b"\n" + json.dumps(last).encode() + b"\x07")
    put("json_text", "odd", b'{"a":[NaN,-Infinity,1e999,"\\ud83d",123456789012345678901234567890],"a":{"b":null}}')
    for at, row in enumerate(ROWS):
        for target in ("jsonl", "trace"):
            put(target, f"row{at}", json.dumps(row).encode() + b"\n")
    put("json", "rows", json.dumps(ROWS).encode())
    put("json", "columns", b'{"prompt": ["Why?", "So?"], "max_tokens": {"0": 5, "1": 6}}')
    put("jsonl", "spread", b'# made by hand\n{\n "prompt": "Why?"\n}\n{\n "prompt": "So?"\n},\n')
    put("parquet", "rows", b"\n".join(json.dumps(row).encode() for row in ROWS[1:4]))
    sink = io.BytesIO()
    pq.write_table(pa.table({"prompt": ["Why?", None], "max_tokens": [5.0, 7.0]}), sink)
    put("parquet", "file", sink.getvalue())
    put("csv", "rows", b'prompt,max_tokens\n"a\nb",5\nWhy?,7\n')
    put("csv", "burst", b"Timestamp,Model,Request tokens,Response tokens\n5,ChatGPT,472,0\n5.5,GPT-4,10,8\n")
    put("plain_trace", "lines", b"# seconds\n1.5\n2\n2026-01-31 12:00:00.5\n")


def _chunked(parts: list[bytes]) -> bytes:
    return b"".join(b"%x\r\n%b\r\n" % (len(part), part) for part in parts) + b"0\r\n\r\n"


if __name__ == "__main__":
    main()
