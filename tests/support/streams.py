"""One answer in the words of every wire: what a server sends for a text, a thought, a tool call, an end, a count."""

from __future__ import annotations

import json
from collections.abc import Sequence

from support.aws_server import event as frame
from support.aws_server import exception
from support.sse_server import Script, streamed

EVENT_STREAM = "application/vnd.amazon.eventstream"


def sse(value: object, name: str = "") -> bytes:
    """An event; a `str` stands as it is."""
    data = value if isinstance(value, str) else json.dumps(value)
    return (f"event: {name}\n" if name else "").encode() + f"data: {data}\n\n".encode()


class OpenAI:
    """Chat completions."""

    content_type = "text/event-stream"
    good, limit = "stop", "length"
    thinks = calls = True

    def begin(self) -> list[bytes]:
        return [self.chunk({"role": "assistant", "content": ""})]

    def chunk(self, delta: dict[str, object], reason: str | None = None, **more: object) -> bytes:
        return self.wrapped(sse({"choices": [{"index": 0, "delta": delta, "finish_reason": reason}], **more}))

    def wrapped(self, data: bytes) -> bytes:
        return data

    def text(self, text: str) -> bytes:
        return self.chunk({"content": text})

    def thought(self, text: str) -> bytes:
        return self.chunk({"reasoning_content": text})

    def call(self, name: str, *arguments: str) -> list[bytes]:
        def part(function: dict[str, str], **more: object) -> bytes:
            return self.chunk({"tool_calls": [{"index": 0, "function": function, **more}]})

        first = part({"name": name, "arguments": ""}, id="call_1", type="function")
        return [first, *[part({"arguments": argument}) for argument in arguments]]

    def end(self, reason: str | None) -> list[bytes]:
        return [] if reason is None else [self.chunk({}, reason)]

    def usage(self, read: object, written: object) -> list[bytes]:
        counts = {"prompt_tokens": read, "completion_tokens": written}
        return [self.wrapped(sse({"choices": [], "usage": counts}))]

    def done(self) -> list[bytes]:
        return [self.wrapped(b"data: [DONE]\n\n")]

    def other(self, value: object, name: str = "") -> bytes:
        """An event that is no chunk."""
        return self.wrapped(sse(value, name))

    def raw(self, data: bytes) -> bytes:
        """Bytes outside of any event."""
        return self.wrapped(data)


class Anthropic:
    """Messages."""

    content_type = "text/event-stream"
    good, limit = "end_turn", "max_tokens"
    thinks = calls = True

    def __init__(self) -> None:
        self._read = 12

    def begin(self) -> list[bytes]:
        usage = {"input_tokens": self._read, "output_tokens": 1}
        message = {"id": "m", "type": "message", "role": "assistant", "content": [], "model": "m", "usage": usage}
        return [self._event({"type": "message_start", "message": message | {"stop_reason": None}})]

    def _event(self, value: dict[str, object]) -> bytes:
        return sse(value, str(value["type"]))

    def _delta(self, **delta: str) -> bytes:
        return self._event({"type": "content_block_delta", "index": 0, "delta": delta})

    def text(self, text: str) -> bytes:
        return self._delta(type="text_delta", text=text)

    def thought(self, text: str) -> bytes:
        return self._delta(type="thinking_delta", thinking=text)

    def call(self, name: str, *arguments: str) -> list[bytes]:
        block = {"type": "tool_use", "id": "t", "name": name, "input": {}}
        first = self._event({"type": "content_block_start", "index": 0, "content_block": block})
        return [first, *[self._delta(type="input_json_delta", partial_json=argument) for argument in arguments]]

    def end(self, reason: str | None) -> list[bytes]:
        return [] if reason is None else [self._event({"type": "message_delta", "delta": {"stop_reason": reason}})]

    def usage(self, read: object, written: object) -> list[bytes]:
        usage = {"input_tokens": read, "output_tokens": written}
        return [self._event({"type": "message_delta", "delta": {}, "usage": usage})]

    def done(self) -> list[bytes]:
        return [self._event({"type": "message_stop"})]

    def other(self, value: object, name: str = "") -> bytes:
        return sse(value, name)

    def raw(self, data: bytes) -> bytes:
        return data


class Bedrock:
    """ConverseStream."""

    content_type = EVENT_STREAM
    good, limit = "end_turn", "max_tokens"
    thinks = calls = True

    def begin(self) -> list[bytes]:
        return [frame("messageStart", {"role": "assistant"})]

    def _delta(self, delta: dict[str, object]) -> bytes:
        return frame("contentBlockDelta", {"contentBlockIndex": 0, "delta": delta})

    def text(self, text: str) -> bytes:
        return self._delta({"text": text})

    def thought(self, text: str) -> bytes:
        return self._delta({"reasoningContent": {"text": text}})

    def call(self, name: str, *arguments: str) -> list[bytes]:
        start = {"toolUse": {"toolUseId": "t", "name": name}}
        first = frame("contentBlockStart", {"contentBlockIndex": 0, "start": start})
        return [first, *[self._delta({"toolUse": {"input": argument}}) for argument in arguments]]

    def end(self, reason: str | None) -> list[bytes]:
        return [] if reason is None else [frame("messageStop", {"stopReason": reason})]

    def usage(self, read: object, written: object) -> list[bytes]:
        usage = {"inputTokens": read, "outputTokens": written}
        return [frame("metadata", {"usage": usage, "metrics": {"latencyMs": 5}})]

    def done(self) -> list[bytes]:
        return []

    def failing(self, message: str) -> bytes:
        return exception("modelStreamErrorException", {"message": message})


class SageMaker(OpenAI):
    """The same in PayloadPart frames."""

    content_type = EVENT_STREAM

    def wrapped(self, data: bytes) -> bytes:
        return frame("PayloadPart", data, "application/octet-stream")


class Tgi(SageMaker):
    """TGI's token objects in PayloadPart frames."""

    good, limit = "eos_token", "length"
    thinks = calls = False

    def begin(self) -> list[bytes]:
        return []

    def text(self, text: str) -> bytes:
        return self.wrapped(sse({"index": 1, "token": {"id": 1, "text": text, "logprob": -0.1, "special": False}}))

    def end(self, reason: str | None) -> list[bytes]:
        if reason is None:
            return []
        details = {"finish_reason": reason}
        return [self.wrapped(sse({"token": {"special": True, "text": "</s>"}, "details": details}))]

    def usage(self, read: object, written: object) -> list[bytes]:
        details = {"finish_reason": "eos_token", "input_length": read, "generated_tokens": written}
        return [self.wrapped(sse({"token": {"special": True, "text": "</s>"}, "details": details}))]

    def done(self) -> list[bytes]:
        return []


class Gemini:
    """streamGenerateContent."""

    content_type = "text/event-stream"
    good, limit = "STOP", "MAX_TOKENS"
    thinks = calls = True

    def begin(self) -> list[bytes]:
        return [sse({"responseId": "r", "modelVersion": "m"})]

    def _part(self, part: dict[str, object]) -> bytes:
        return sse({"candidates": [{"index": 0, "content": {"role": "model", "parts": [part]}}]})

    def text(self, text: str) -> bytes:
        return self._part({"text": text})

    def thought(self, text: str) -> bytes:
        return self._part({"text": text, "thought": True})

    def call(self, name: str, *arguments: str) -> list[bytes]:
        return [self._part({"functionCall": {"name": name, "args": {"a": "".join(arguments)}}})]

    def end(self, reason: str | None) -> list[bytes]:
        return [] if reason is None else [sse({"candidates": [{"index": 0, "finishReason": reason}]})]

    def usage(self, read: object, written: object) -> list[bytes]:
        return [sse({"usageMetadata": {"promptTokenCount": read, "candidatesTokenCount": written}})]

    def done(self) -> list[bytes]:
        return []

    def other(self, value: object, name: str = "") -> bytes:
        return sse(value, name)

    def raw(self, data: bytes) -> bytes:
        return data


AnyStream = OpenAI | Anthropic | Bedrock | Gemini

STREAMS: dict[str, tuple[type[AnyStream], dict[str, object]]] = {
    "openai": (OpenAI, {}),
    "anthropic": (Anthropic, {"api": "anthropic"}),
    "bedrock": (Bedrock, {"api": "bedrock"}),
    "sagemaker": (SageMaker, {"api": "sagemaker", "deployment": {"kind": "sagemaker"}}),
    "tgi": (Tgi, {"api": "sagemaker", "deployment": {"kind": "sagemaker", "payload": "tgi"}}),
    "litellm/hosted_vllm": (OpenAI, {"api": "litellm", "provider": "hosted_vllm"}),
    "litellm/anthropic": (Anthropic, {"api": "litellm", "provider": "anthropic"}),
    "litellm/bedrock": (Bedrock, {"api": "litellm", "provider": "bedrock/converse"}),
    "litellm/sagemaker_chat": (SageMaker, {"api": "litellm", "provider": "sagemaker_chat"}),
    "litellm/gemini": (Gemini, {"api": "litellm", "provider": "gemini"}),
}
"""Wire, directly and through LiteLLM → how it speaks, and the model's fields that reach it."""


def script(speaks: AnyStream, events: Sequence[bytes | float]) -> Script:
    """The events as an answer, each in a read of its own."""
    start, *_, last = streamed(content_type=speaks.content_type)
    parts: list[bytes | float] = [start]
    for part in events:
        if isinstance(part, bytes):
            parts += (b"%x\r\n%b\r\n" % (len(part), part), 0.002)
        else:
            parts.append(part)
    return [*parts, last]
