"""Gemini's streamGenerateContent with `alt=sse`."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import replace

from llmexp.endpoints.simulator.options import Shape
from llmexp.endpoints.simulator.wires import Call, Counts, Kind, limit_of, parsed, text_of, texts_of
from llmexp.endpoints.simulator.wires.sse import Sse
from llmexp.json_types import branch
from llmexp.workload import words

Tree = dict[str, object]


def read(body: Mapping[str, object], model: str, *, stream: bool) -> Call:
    """A request to `models/MODEL:streamGenerateContent` or `:generateContent`."""
    texts = texts_of(body.get("contents"), "parts")
    system = body.get("systemInstruction") or body.get("system_instruction") or {}
    texts += [text_of(system.get("parts"))] if isinstance(system, Mapping) and system else []
    config = branch(body, "generationConfig") or branch(body, "generation_config")
    limit = limit_of(config, "maxOutputTokens", "max_output_tokens")
    return Call("gemini", model, words.templated(texts), limit, Generate, stream=stream)


class Generate:
    """Each event is a whole response; Google ends its lines with CRLF."""

    content_type = "text/event-stream"

    def __init__(self, call: Call, shape: Shape, number: int) -> None:
        self._sse = Sse(replace(shape, crlf=True))
        self._tail: Tree = {"modelVersion": call.model, "responseId": f"{number:016x}"}
        self._tool, self._calling = call.tool, False
        self._before = self._after = b""

    def _cut(self, kind: str) -> tuple[bytes, bytes]:
        part: Tree = {"text": "@"} if kind == "answer" else {"text": "@", "thought": True}
        before, after = self._event({"candidates": [self._candidate([part])], **self._tail}).split(b"@")
        return before, after

    @staticmethod
    def _candidate(parts: list[Tree], reason: str | None = None) -> Tree:
        candidate: Tree = {"content": {"parts": parts, "role": "model"}, "index": 0}
        return candidate | ({"finishReason": reason} if reason else {})

    def _event(self, tree: Tree) -> bytes:
        return self._sse.event(json.dumps(tree, separators=(",", ":")).encode())

    def opening(self) -> bytes:
        return self._sse.comment()

    def begin(self, kind: Kind) -> bytes:
        self._calling = kind == "tool"
        self._before, self._after = self._cut(kind)
        return b""

    def _called(self, arguments: str) -> Tree:
        """A call comes whole, as Google sends it."""
        return {"functionCall": {"name": self._tool, "args": parsed(arguments)}}

    def chunk(self, text: bytes) -> bytes:
        event = self._before + text + self._after
        if self._calling:
            part = self._called(json.loads(b'"' + text + b'"'))
            event = self._event({"candidates": [self._candidate([part])], **self._tail})
        return event if self._sse.plain else self._sse.between() + event

    def closing(self, counts: Counts) -> bytes:
        return self._event(self._last([{"text": ""}], counts))

    def _last(self, parts: list[Tree], counts: Counts) -> Tree:
        candidate = self._candidate(parts, "MAX_TOKENS" if counts.at_limit else "STOP")
        return {"candidates": [candidate], "usageMetadata": _usage(counts), **self._tail}

    def late(self, counts: Counts) -> bytes:
        return b""

    def error(self) -> bytes:
        return self._event({"error": {"code": 503, "message": "simulated failure", "status": "UNAVAILABLE"}})

    def whole(self, text: str, reasoning: str, counts: Counts) -> bytes:
        thoughts: list[Tree] = [{"text": reasoning, "thought": True}] if reasoning else []
        part: Tree = {"text": text} if self._tool is None else self._called(text)
        return json.dumps(self._last([*thoughts, part], counts)).encode()


def _usage(counts: Counts) -> Tree:
    tree: Tree = {
        "promptTokenCount": counts.input_tokens,
        "candidatesTokenCount": counts.answer_tokens,
        "totalTokenCount": counts.input_tokens + counts.output_tokens,
    }
    tree |= {"cachedContentTokenCount": counts.cached_tokens} if counts.cached_tokens else {}
    return tree | ({"thoughtsTokenCount": counts.reasoning_tokens} if counts.reasoning_tokens else {})
