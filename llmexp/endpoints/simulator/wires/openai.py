"""OpenAI's chat and completions, as vLLM, SGLang, llama.cpp and OpenAI itself stream them."""

from __future__ import annotations

import json
import time
from collections.abc import Mapping

from llmexp.endpoints.simulator.options import Shape
from llmexp.endpoints.simulator.wires import BadRequest, Call, Counts, Kind, chat_tokens, limit_of
from llmexp.endpoints.simulator.wires.sse import Sse
from llmexp.workload import words

Tree = dict[str, object]


def read_chat(body: Mapping[str, object]) -> Call:
    """A request to `/chat/completions`."""
    tokens = chat_tokens(body.get("messages"))
    return _read(body, "openai", tokens, limit_of(body, "max_completion_tokens", "max_tokens"), Chat)


def read_completions(body: Mapping[str, object]) -> Call:
    """A request to `/completions`."""
    prompt = body.get("prompt")
    if not isinstance(prompt, str | list):
        raise BadRequest("prompt: must be text")
    tokens = words.count(prompt) if isinstance(prompt, str) else sum(words.count(str(part)) for part in prompt)
    return _read(body, "openai-completions", tokens, limit_of(body, "max_tokens"), Completions)


def _read(body: Mapping[str, object], wire: str, tokens: int, limit: int, build: type[Chat]) -> Call:
    options = body.get("stream_options")
    asked = isinstance(options, Mapping) and bool(options.get("include_usage"))
    model = str(body.get("model", ""))
    return Call(wire, model, tokens, limit, build, stream=bool(body.get("stream")), usage_asked=asked)


class Chat:
    """`chat.completion.chunk` events."""

    content_type = "text/event-stream; charset=utf-8"
    _object = "chat.completion"
    _id = "chatcmpl"

    def __init__(self, call: Call, shape: Shape, number: int) -> None:
        self._sse = Sse(shape)
        self._shape = shape
        self._usage = "never" if shape.usage == "end" and not call.usage_asked else shape.usage
        self._head: Tree = {
            "id": f"{self._id}-{number:08x}",
            "object": f"{self._object}.chunk",
            "created": int(time.time()),
            "model": call.model,
        }
        self._tool, self._call_id = call.tool, f"call_{number:08x}"
        self._before = self._after = b""

    def _cut(self, kind: str) -> tuple[bytes, bytes]:
        """The bytes of a chunk before and after its text."""
        before, after = self._event({**self._head, "choices": [self._choice(kind, "@")]}).split(b"@")
        return before, after

    def _choice(self, kind: str, text: str) -> Tree:
        names = {"answer": "content", "reasoning": "reasoning_content"}
        delta: Tree = {names[kind]: text} if kind in names else {"tool_calls": [{"index": 0, **_arguments(text)}]}
        return {"index": 0, "delta": delta, "logprobs": None, "finish_reason": None}

    def _last_choice(self, reason: str) -> Tree:
        return {"index": 0, "delta": {}, "logprobs": None, "finish_reason": reason}

    def _event(self, tree: Tree) -> bytes:
        return self._sse.event(json.dumps(tree, separators=(",", ":")).encode())

    def opening(self) -> bytes:
        if self._shape.role == "none":
            return self._sse.comment()
        delta = {"role": "assistant", "content": ""}
        choice = {"index": 0, "delta": delta, "logprobs": None, "finish_reason": None}
        return self._sse.comment() + self._event({**self._head, "choices": [choice]})

    def begin(self, kind: Kind) -> bytes:
        self._before, self._after = self._cut(kind)
        if kind != "tool":
            return b""
        choice = {"index": 0, "delta": {"tool_calls": [{"index": 0, **self._called("")}]}, "finish_reason": None}
        return self._event({**self._head, "choices": [choice]})

    def _called(self, arguments: str) -> Tree:
        return {"id": self._call_id, "type": "function", "function": {"name": self._tool, "arguments": arguments}}

    def chunk(self, text: bytes) -> bytes:
        event = self._before + text + self._after
        return event if self._sse.plain else self._sse.between() + event

    def closing(self, counts: Counts) -> bytes:
        last: Tree = {**self._head, "choices": [self._last_choice(self._reason(counts))]}
        if self._usage == "inline":
            last["usage"] = usage(counts)
        events = self._event(last)
        if self._usage in ("end", "always"):
            events += self._event({**self._head, "choices": [], "usage": usage(counts)})
        return events if self._usage == "late" else events + self._done()

    def _reason(self, counts: Counts) -> str:
        if counts.at_limit:
            return "length"
        return "stop" if self._tool is None else "tool_calls"

    def late(self, counts: Counts) -> bytes:
        if self._usage != "late":
            return b""
        return self._event({**self._head, "choices": [], "usage": usage(counts)}) + self._done()

    def _done(self) -> bytes:
        return self._sse.event(b"[DONE]") if self._shape.done else b""

    def error(self) -> bytes:
        error = {"message": "simulated failure", "type": "InternalServerError", "param": None, "code": 500}
        return self._event({"error": error})

    def whole(self, text: str, reasoning: str, counts: Counts) -> bytes:
        message: Tree = {"role": "assistant", "content": text}
        if self._tool is not None:
            message |= {"content": None, "tool_calls": [self._called(text)]}
        message |= {"reasoning_content": reasoning} if reasoning else {}
        return self._body({"index": 0, "message": message}, counts)

    def _body(self, choice: Tree, counts: Counts) -> bytes:
        ended = choice | {"logprobs": None, "finish_reason": self._reason(counts)}
        tree = {**self._head, "object": self._object, "choices": [ended], "usage": usage(counts)}
        return json.dumps(tree).encode()


class Completions(Chat):
    """`text_completion` events: the same, but the text stands in the choice itself."""

    _object = "text_completion"
    _id = "cmpl"

    def __init__(self, call: Call, shape: Shape, number: int) -> None:
        super().__init__(call, shape, number)
        self._head["object"] = self._object

    def _choice(self, kind: str, text: str) -> Tree:
        return {"index": 0, "text": text, "logprobs": None, "finish_reason": None}

    def _last_choice(self, reason: str) -> Tree:
        return {"index": 0, "text": "", "logprobs": None, "finish_reason": reason}

    def opening(self) -> bytes:
        return self._sse.comment()

    def whole(self, text: str, reasoning: str, counts: Counts) -> bytes:
        return self._body({"index": 0, "text": reasoning + text}, counts)


def _arguments(text: str) -> Tree:
    return {"function": {"arguments": text}}


def usage(counts: Counts) -> Tree:
    """OpenAI's usage object."""
    return {
        "prompt_tokens": counts.input_tokens,
        "completion_tokens": counts.output_tokens,
        "total_tokens": counts.input_tokens + counts.output_tokens,
        "prompt_tokens_details": {"cached_tokens": counts.cached_tokens},
        "completion_tokens_details": {"reasoning_tokens": counts.reasoning_tokens},
    }
