"""SageMaker's InvokeEndpointWithResponseStream: the container's own stream inside PayloadPart events.

A body with `messages` is answered as vLLM and LMI do (OpenAI's chunks), one with `inputs` as TGI (SSE with a token
each) or as DJL (JSON lines).
"""

from __future__ import annotations

import json
from collections.abc import Mapping

from llmexp.endpoints.simulator.options import Shape
from llmexp.endpoints.simulator.wires import BadRequest, Call, Counts, Kind, Wire, limit_of
from llmexp.endpoints.simulator.wires.eventstream import CONTENT_TYPE, event_headers, exception, framed
from llmexp.endpoints.simulator.wires.openai import Chat, read_chat
from llmexp.json_types import branch
from llmexp.workload import words

_PART = event_headers("PayloadPart", "application/octet-stream")


def read(body: Mapping[str, object], endpoint: str, *, stream: bool) -> Call:
    """A request to `/endpoints/ENDPOINT/invocations-response-stream` or `/invocations`."""
    if "messages" in body:
        chat = read_chat(body)
        return Call("sagemaker", chat.model or endpoint, chat.input_tokens, chat.limit, _chat, stream, chat.usage_asked)
    prompt = body.get("inputs")
    if not isinstance(prompt, str):
        raise BadRequest("the body needs messages or inputs")
    limit = limit_of(branch(body, "parameters"), "max_new_tokens", "max_tokens")
    return Call("sagemaker", endpoint, words.count(prompt), limit, _inputs, stream=stream)


def _chat(call: Call, shape: Shape, number: int) -> Wire:
    return Parts(Chat(call, shape, number), shape)


def _inputs(_call: Call, shape: Shape, _number: int) -> Wire:
    return Parts(Lines(shape), shape)


class Parts:
    """Another wire's stream inside event-stream frames."""

    content_type = CONTENT_TYPE

    def __init__(self, inner: Wire, shape: Shape) -> None:
        self._inner = inner
        self._cut = shape.payload_parts == "cut"
        self._place = 0

    def _wrap(self, data: bytes) -> bytes:
        """`data` in one part, or in two that meet at a place that moves from call to call."""
        if not data:
            return b""
        if not self._cut or len(data) < 2:
            return framed(_PART, data)
        self._place = (self._place + 37) % (len(data) - 1)
        at = self._place + 1
        return framed(_PART, data[:at]) + framed(_PART, data[at:])

    def opening(self) -> bytes:
        return self._wrap(self._inner.opening())

    def begin(self, kind: Kind) -> bytes:
        return self._wrap(self._inner.begin(kind))

    def chunk(self, text: bytes) -> bytes:
        return self._wrap(self._inner.chunk(text))

    def closing(self, counts: Counts) -> bytes:
        return self._wrap(self._inner.closing(counts))

    def late(self, counts: Counts) -> bytes:
        return self._wrap(self._inner.late(counts))

    def error(self) -> bytes:
        message = {"Message": "simulated failure", "ErrorCode": "ModelStreamError"}
        return exception("ModelStreamError", json.dumps(message).encode())

    def whole(self, text: str, reasoning: str, counts: Counts) -> bytes:
        return self._inner.whole(text, reasoning, counts)


class Lines:
    """What TGI and DJL stream: an object a token, the last one with the whole text."""

    content_type = "text/event-stream"

    def __init__(self, shape: Shape) -> None:
        self._tgi = shape.sagemaker == "tgi"
        self._text = ""
        self._count = 0

    def opening(self) -> bytes:
        return b""

    def begin(self, kind: Kind) -> bytes:
        return b""

    def chunk(self, text: bytes) -> bytes:
        piece = json.loads(b'"' + text + b'"')
        self._text += piece
        self._count += 1
        return self._line({"token": self._token(piece)})

    def _token(self, text: str) -> dict[str, object]:
        token = {"id": self._count, "text": text}
        return token | ({"logprob": -0.5, "special": False} if self._tgi else {"log_prob": -0.5})

    def _line(self, tree: dict[str, object]) -> bytes:
        if self._tgi:
            tree = {"index": self._count, **tree} | {k: tree.get(k) for k in ("generated_text", "details")}
            return b"data:" + json.dumps(tree, separators=(",", ":")).encode() + b"\n\n"
        return json.dumps(tree).encode() + b"\n"

    def closing(self, counts: Counts) -> bytes:
        reason = "length" if counts.at_limit else "eos_token"
        details = {"finish_reason": reason, "generated_tokens": counts.output_tokens, "inputs": None}
        end = {"token": {**self._token(""), "special": True} if self._tgi else self._token("")}
        return self._line({**end, "generated_text": self._text, "details": details})

    def late(self, counts: Counts) -> bytes:
        return b""

    def error(self) -> bytes:
        return self._line({"error": "simulated failure", "error_type": "generation"})

    def whole(self, text: str, reasoning: str, counts: Counts) -> bytes:
        return json.dumps([{"generated_text": text}]).encode()
