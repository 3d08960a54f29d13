"""Anthropic's Messages."""

from __future__ import annotations

import json
from collections.abc import Mapping

from llmexp.endpoints.simulator.options import Shape
from llmexp.endpoints.simulator.wires import BadRequest, Call, Counts, Kind, chat_tokens, limit_of, parsed
from llmexp.endpoints.simulator.wires.sse import Sse

Tree = dict[str, object]


def read(body: Mapping[str, object]) -> Call:
    """A request to `/v1/messages`."""
    if "max_tokens" not in body:
        raise BadRequest("max_tokens: Field required")
    tokens = chat_tokens(body.get("messages"), body.get("system"))
    stream = bool(body.get("stream"))
    return Call("anthropic", str(body.get("model", "")), tokens, limit_of(body, "max_tokens"), Messages, stream=stream)


class Messages:
    """`message_start`, content blocks, `message_delta`, `message_stop`."""

    content_type = "text/event-stream; charset=utf-8"

    def __init__(self, call: Call, shape: Shape, number: int) -> None:
        self._sse = Sse(shape)
        self._id = f"msg_{number:08x}"
        self._model = call.model
        self._input_tokens = call.input_tokens
        self._cached_tokens = call.cached_tokens
        self._block = -1
        self._tool, self._call_id = call.tool, f"toolu_{number:08x}"
        self._before = self._after = b""

    def _event(self, name: str, tree: Tree) -> bytes:
        return self._sse.event(json.dumps({"type": name, **tree}, separators=(",", ":")).encode(), name.encode())

    def opening(self) -> bytes:
        usage = {**self._usage(self._input_tokens, self._cached_tokens), "output_tokens": 1}
        message = {**self._message(), "content": [], "stop_reason": None, "usage": usage}
        return self._sse.comment() + self._event("message_start", {"message": message})

    def _message(self) -> Tree:
        return {"id": self._id, "type": "message", "role": "assistant", "model": self._model, "stop_sequence": None}

    @staticmethod
    def _usage(input_tokens: int, cached: int) -> Tree:
        """What a cache gave is not inside `input_tokens`."""
        return {
            "input_tokens": input_tokens - cached,
            "cache_creation_input_tokens": 0,
            "cache_read_input_tokens": cached,
        }

    def begin(self, kind: Kind) -> bytes:
        stop = self._stop_block()
        self._block += 1
        block, delta = self._kinds(kind)
        start = self._event("content_block_start", {"index": self._block, "content_block": block})
        cut = self._event("content_block_delta", {"index": self._block, "delta": delta}).split(b"@")
        self._before, self._after = cut
        return stop + start + (self._event("ping", {}) if self._block == 0 else b"")

    def _kinds(self, kind: Kind) -> tuple[Tree, Tree]:
        """How a block of a kind begins, and goes on."""
        if kind == "answer":
            return {"type": "text", "text": ""}, {"type": "text_delta", "text": "@"}
        if kind == "tool":
            return self._called({}), {"type": "input_json_delta", "partial_json": "@"}
        return {"type": "thinking", "thinking": ""}, {"type": "thinking_delta", "thinking": "@"}

    def _called(self, arguments: object) -> Tree:
        return {"type": "tool_use", "id": self._call_id, "name": self._tool, "input": arguments}

    def _stop_block(self) -> bytes:
        return self._event("content_block_stop", {"index": self._block}) if self._block >= 0 else b""

    def chunk(self, text: bytes) -> bytes:
        event = self._before + text + self._after
        return event if self._sse.plain else self._sse.between() + event

    def closing(self, counts: Counts) -> bytes:
        delta = {"stop_reason": self._reason(counts), "stop_sequence": None}
        usage = {"output_tokens": counts.output_tokens}
        end = self._event("message_delta", {"delta": delta, "usage": usage}) + self._event("message_stop", {})
        return self._stop_block() + end

    def late(self, counts: Counts) -> bytes:
        return b""

    def error(self) -> bytes:
        return self._event("error", {"error": {"type": "overloaded_error", "message": "simulated failure"}})

    def whole(self, text: str, reasoning: str, counts: Counts) -> bytes:
        content: list[Tree] = [{"type": "thinking", "thinking": reasoning, "signature": ""}] if reasoning else []
        content.append({"type": "text", "text": text} if self._tool is None else self._called(parsed(text)))
        usage = {**self._usage(counts.input_tokens, counts.cached_tokens), "output_tokens": counts.output_tokens}
        tree = {**self._message(), "content": content, "stop_reason": self._reason(counts), "usage": usage}
        return json.dumps(tree).encode()

    def _reason(self, counts: Counts) -> str:
        if counts.at_limit:
            return "max_tokens"
        return "end_turn" if self._tool is None else "tool_use"
