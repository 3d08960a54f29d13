"""OpenAI's wire, as OpenAI, Azure, vLLM, SGLang, TGI, llama.cpp and gateways speak it: chat and plain completions."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from functools import partial
from typing import Any

from llmexp.clients import address
from llmexp.clients.base import TokenEvent, Usage
from llmexp.clients.decoding import DONE, Draft, Payload, as_text, count, number
from llmexp.clients.failures import of_event
from llmexp.clients.unsigned import UnsignedClient
from llmexp.config import Model
from llmexp.workload.request import Request

DEFAULT_BASE_URL = "https://api.openai.com/v1"
_ROUTES = {"chat": "chat/completions", "completions": "completions"}


class OpenAIClient(UnsignedClient):
    """`POST <base_url>/chat/completions` or `/completions`, streamed, with usage.

    `model.params` is laid over the body: any key may be replaced, and null takes a key away. Two keys work together:
    models that refuse `max_tokens` want the limit as `max_completion_tokens`, so `params: {max_tokens: null}` sends
    each request's own limit under that name, `params: {max_completion_tokens: 500}` sends 500 instead of it, and both
    null send no limit at all.
    """

    def __init__(self, model: Model, base_url: str | None = None) -> None:
        url = base_url or model.base_url or DEFAULT_BASE_URL
        path = address.path(url, _ROUTES[model.route])
        key = address.api_key(model)
        defaults = {"Content-Type": "application/json", "Accept": "text/event-stream, application/json"}
        headers = address.headers(model, defaults | ({"Authorization": f"Bearer {key}"} if key else {}))
        super().__init__(address.target(url), path, headers, partial(body, model), fold)


def body(model: Model, request: Request) -> dict[str, Any]:
    """The JSON body of `request`."""
    sent: dict[str, Any] = {"model": model.name}
    if model.route == "chat":
        sent["messages"] = [{"role": message.role, "content": message.text} for message in request.messages]
    else:
        sent["prompt"] = "\n\n".join(message.text for message in request.messages)
    sent[_limit_name(model.params)] = request.max_tokens
    sent["stream"] = True
    sent["stream_options"] = {"include_usage": True}
    if request.force_output:
        sent |= {"ignore_eos": True, "min_tokens": request.max_tokens}
    if model.params.get("stream") is False:
        del sent["stream_options"]  # refused without stream
    return merged(sent, model.params)


def merged(sent: dict[str, Any], params: dict[str, Any]) -> dict[str, Any]:
    """`params` over `sent`; null takes a key away."""
    return {key: value for key, value in (sent | params).items() if not (key in params and value is None)}


def _limit_name(params: dict[str, Any]) -> str:
    newer = "max_completion_tokens" in params or params.get("max_tokens", 0) is None
    return "max_completion_tokens" if newer else "max_tokens"


def fold(draft: Draft, payloads: Iterable[Payload]) -> None:
    """Chunks of a stream, or one whole completion, into `draft`."""
    append = draft.events.append
    for at_ns, event, tree in payloads:
        if tree == DONE:
            draft.finished = True
            continue
        if event == "error" or tree.get("error") or tree.get("object") == "error":
            draft.failure = of_event(tree)
            return
        for choice in tree.get("choices") or ():
            delta = choice.get("delta")
            if delta is None:
                delta = choice.get("message") or choice
                draft.finished = draft.finished or "message" in choice  # a whole answer
            _texts(at_ns, delta, append)
            reason = choice.get("finish_reason")
            if reason and reason != "null":
                draft.finish_reason, draft.finished = str(reason), True
        if tree.get("usage") or tree.get("timings") or tree.get("x_groq"):
            _closing(draft, tree)


def _texts(at_ns: int, delta: dict[str, Any], append: Callable[[TokenEvent], None]) -> None:
    """The generated text of a delta (or of a whole message), in the order in which models write."""
    reasoning = delta.get("reasoning_content") or delta.get("reasoning")
    if reasoning:
        append(TokenEvent(at_ns, "reasoning", as_text(reasoning)))
    content = delta.get("content")
    if content:
        if isinstance(content, str):
            append(TokenEvent(at_ns, "answer", content))
        else:
            _parts(at_ns, content, append)
    text = delta.get("text") or delta.get("refusal")
    if text:
        append(TokenEvent(at_ns, "answer", as_text(text)))
    calls = delta.get("tool_calls") or delta.get("function_call")
    if calls:
        _calls(at_ns, calls, append)


def _calls(at_ns: int, calls: Any, append: Callable[[TokenEvent], None]) -> None:
    for call in calls if isinstance(calls, list) else [calls]:
        function = call.get("function") or call
        text = as_text(function.get("name")) + as_text(function.get("arguments"))
        if text:
            append(TokenEvent(at_ns, "tool", text))


def _parts(at_ns: int, parts: Any, append: Callable[[TokenEvent], None]) -> None:
    """Content as a list of typed parts (Mistral's reasoning models, Databricks)."""
    for part in parts if isinstance(parts, list) else [parts]:
        kind = part.get("type")
        inner = part.get("thinking") or part.get("summary") or part.get("reasoning")
        if kind in ("thinking", "reasoning") and inner:
            text = inner if isinstance(inner, str) else "".join(as_text(piece.get("text")) for piece in inner)
            append(TokenEvent(at_ns, "reasoning", text))
        elif part.get("text"):
            append(TokenEvent(at_ns, "answer", as_text(part["text"])))


def _closing(draft: Draft, tree: dict[str, Any]) -> None:
    """Usage and the server's own clock: OpenAI's, llama.cpp's `timings`, Groq's."""
    usage = tree.get("usage") or (tree.get("x_groq") or {}).get("usage")
    timings = tree.get("timings")
    if usage:
        draft.usage = usage_of(usage)
        draft.server_latency_s = number(usage.get("total_time"))
    if timings:
        read_ms, written_ms = number(timings.get("prompt_ms")), number(timings.get("predicted_ms"))
        draft.server_latency_s = None if written_ms is None else ((read_ms or 0) + written_ms) / 1000
        if draft.usage.output_tokens is None:
            draft.usage = _usage_of_timings(timings)


def usage_of(raw: dict[str, Any]) -> Usage:
    """OpenAI's usage object; some providers count reasoning beside `completion_tokens`, which only the total tells."""
    read, written = count(raw.get("prompt_tokens")), count(raw.get("completion_tokens"))
    reasoning = count((raw.get("completion_tokens_details") or {}).get("reasoning_tokens"))
    cached = count((raw.get("prompt_tokens_details") or {}).get("cached_tokens"))
    if cached is None:
        cached = count(raw.get("prompt_cache_hit_tokens"))
    if written is not None and reasoning and count(raw.get("total_tokens")) == (read or 0) + written + reasoning:
        written += reasoning
    return Usage(read, written, reasoning, cached)


def _usage_of_timings(timings: dict[str, Any]) -> Usage:
    cached = count(timings.get("cache_n"))
    fresh = count(timings.get("prompt_n"))
    read = None if fresh is None else fresh + (cached or 0)
    return Usage(read, count(timings.get("predicted_n")), None, cached)
