"""Bedrock's ConverseStream."""

from __future__ import annotations

import json
from collections.abc import Mapping
from time import monotonic_ns

from llmexp.endpoints.simulator.options import Shape
from llmexp.endpoints.simulator.wires import Call, Counts, Kind, chat_tokens, limit_of, parsed
from llmexp.endpoints.simulator.wires.eventstream import CONTENT_TYPE, event_headers, exception, framed
from llmexp.json_types import branch

Tree = dict[str, object]
_PADDING = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789"


def read(body: Mapping[str, object], model: str, *, stream: bool) -> Call:
    """A request to `/model/MODEL/converse-stream` or `/converse`."""
    config = branch(body, "inferenceConfig")
    tokens = chat_tokens(body.get("messages"), body.get("system"))
    return Call("bedrock", model, tokens, limit_of(config, "maxTokens"), ConverseStream, stream=stream)


class ConverseStream:
    """`messageStart`, `contentBlockDelta`, `contentBlockStop`, `messageStop`, `metadata`."""

    content_type = CONTENT_TYPE

    def __init__(self, call: Call, shape: Shape, number: int) -> None:
        self._role = shape.role
        self._began_ns = monotonic_ns()
        self._block = -1
        self._tool, self._call_id = call.tool, f"tooluse_{number:08x}"
        self._delta = event_headers("contentBlockDelta", "application/json")
        self._cut: tuple[bytes, bytes] = (b"", b"")
        self._chunks = number

    @staticmethod
    def _event(name: str, tree: Tree) -> bytes:
        return framed(event_headers(name, "application/json"), _json({**tree, "p": _PADDING[:8]}))

    def opening(self) -> bytes:
        return b"" if self._role == "none" else self._event("messageStart", {"role": "assistant"})

    def begin(self, kind: Kind) -> bytes:
        stop = self._stop_block()
        self._block += 1
        deltas: dict[str, Tree] = {
            "answer": {"text": "@"},
            "reasoning": {"reasoningContent": {"text": "@"}},
            "tool": {"toolUse": {"input": "@"}},
        }
        delta = deltas[kind]
        before, after = _json({"contentBlockIndex": self._block, "delta": delta}).split(b"@")
        self._cut = before, after[:-1] + b',"p":"'
        if kind != "tool":
            return stop
        start = {"toolUse": {"toolUseId": self._call_id, "name": self._tool}}
        return stop + self._event("contentBlockStart", {"contentBlockIndex": self._block, "start": start})

    def _stop_block(self) -> bytes:
        return self._event("contentBlockStop", {"contentBlockIndex": self._block}) if self._block >= 0 else b""

    def chunk(self, text: bytes) -> bytes:
        """Bedrock pads every event to another length, so that sizes tell nothing about the text."""
        self._chunks += 1
        padding = _PADDING[: 1 + self._chunks * 7 % 60].encode()
        return framed(self._delta, b'%b%b%b%b"}' % (self._cut[0], text, self._cut[1], padding))

    def closing(self, counts: Counts) -> bytes:
        stop = self._event("messageStop", {"stopReason": self._reason(counts)})
        metadata = {"usage": _usage(counts), "metrics": {"latencyMs": self._latency_ms()}}
        return self._stop_block() + stop + self._event("metadata", metadata)

    def _latency_ms(self) -> int:
        return (monotonic_ns() - self._began_ns) // 1_000_000

    def late(self, counts: Counts) -> bytes:
        return b""

    def error(self) -> bytes:
        return exception("modelStreamErrorException", _json({"message": "simulated failure"}))

    def whole(self, text: str, reasoning: str, counts: Counts) -> bytes:
        content: list[Tree] = [{"reasoningContent": {"reasoningText": {"text": reasoning}}}] if reasoning else []
        part: Tree = {"text": text}
        if self._tool is not None:
            part = {"toolUse": {"toolUseId": self._call_id, "name": self._tool, "input": parsed(text)}}
        message = {"role": "assistant", "content": [*content, part]}
        tree: Tree = {
            "output": {"message": message},
            "stopReason": self._reason(counts),
            "usage": _usage(counts),
            "metrics": {"latencyMs": self._latency_ms()},
        }
        return _json(tree)

    def _reason(self, counts: Counts) -> str:
        if counts.at_limit:
            return "max_tokens"
        return "end_turn" if self._tool is None else "tool_use"


def _usage(counts: Counts) -> Tree:
    return {
        "inputTokens": counts.input_tokens - counts.cached_tokens,
        "outputTokens": counts.output_tokens,
        "totalTokens": counts.input_tokens + counts.output_tokens,
        "cacheReadInputTokens": counts.cached_tokens,
        "cacheWriteInputTokens": 0,
    }


def _json(tree: Tree) -> bytes:
    return json.dumps(tree, separators=(",", ":")).encode()
