"""OpenAI's wire, as OpenAI, Azure, vLLM, SGLang, TGI, llama.cpp and gateways speak it: chat and plain completions."""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial

from llmexp.clients import address, chat_openai, failures
from llmexp.clients.base import Usage
from llmexp.clients.decoding import Draft, Wire, as_text, count, number, text_inside
from llmexp.clients.json_text import listing, mapping
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
        super().__init__(address.target(url), path, headers, partial(body, model), WIRE)


def body(model: Model, request: Request) -> dict[str, object]:
    """The JSON body of `request`."""
    sent: dict[str, object] = {"model": model.name}
    if model.route == "chat":
        sent["messages"] = chat_openai.messages(request)
        if request.tools:
            sent["tools"] = chat_openai.tools(request.tools)
    else:
        sent["prompt"] = chat_openai.text_alone(request)
    sent[_limit_name(model.params)] = request.max_tokens
    sent["stream"] = True
    sent["stream_options"] = {"include_usage": True}
    if request.force_output:
        sent |= {"ignore_eos": True, "min_tokens": request.max_tokens}
    if model.params.get("stream") is False:
        del sent["stream_options"]  # refused without stream
    return merged(sent, model.params)


def merged(sent: dict[str, object], params: dict[str, object]) -> dict[str, object]:
    """`params` over `sent`; null takes a key away."""
    return {key: value for key, value in (sent | params).items() if not (key in params and value is None)}


def _limit_name(params: dict[str, object]) -> str:
    newer = "max_completion_tokens" in params or params.get("max_tokens", 0) is None
    return "max_completion_tokens" if newer else "max_tokens"


# --- the answer ------------------------------------------------------------------------------------------------------

_CHUNK_KEYS = frozenset({"choices", "usage", "timings", "x_groq", "prompt_progress"})
_REASONING = (
    "reasoning_content",
    "reasoning",
    "reasoning_text",
    "reasoning_details",
    "thinking",
    "thinking_content",
    "thinking_blocks",
    "thought",
    "thoughts",
)
"""Names of reasoning in a delta. Some servers send the same text under two of them: the first with text counts."""
_REASONING_PARTS = ("thinking", "reasoning", "reasoning_content", "summary", "summary_text", "thought")
_HIDDEN = ("encrypted", "redacted", "summary")


def _is_chunk(tree: Mapping[str, object]) -> bool:
    if tree.get("choices"):
        return True
    return not _CHUNK_KEYS.isdisjoint(tree) and not failures.is_error(tree)


def _take(draft: Draft, at_ns: int, _event: str, tree: Mapping[str, object]) -> None:
    """A chunk of a stream, or one whole completion."""
    if tree.get("error") or tree.get("object") == "error":
        draft.failure = failures.of_event(tree)
        return
    for choice in listing(tree.get("choices")):
        _choice(draft, at_ns, mapping(choice))
    if tree.get("usage") or tree.get("timings") or tree.get("x_groq"):
        _closing(draft, tree)


WIRE = Wire(_is_chunk, _take)


def _choice(draft: Draft, at_ns: int, choice: Mapping[str, object]) -> None:
    index = choice.get("index")
    stream = index if isinstance(index, int) else 0
    delta = choice.get("delta")
    if delta is not None:
        _say(draft, at_ns, mapping(delta), stream)
        draft.in_pieces = draft.in_pieces or bool(draft.events)
    elif "message" in choice:
        draft.finished = True
        if draft.in_pieces:
            draft.repeated = True  # the whole answer once more, behind its pieces
        else:
            _say(draft, at_ns, mapping(choice["message"]), stream)
    else:
        _say(draft, at_ns, choice, stream)
    reason = choice.get("finish_reason")
    if reason:
        draft.end(reason, choice.get("finish_message") or choice.get("stop_reason"))
    if choice.get("error"):
        draft.failure = failures.of_event(choice)


def _say(draft: Draft, at_ns: int, delta: Mapping[str, object], stream: int) -> None:
    """The generated text of a delta (or of a whole message), in the order in which models write."""
    content = delta.get("content")
    if len(delta) > 1 or content is None:
        _say_reasoning(draft, at_ns, delta, stream)
    if isinstance(content, str):
        draft.say(at_ns, "answer", content, stream)
    elif content:
        _say_parts(draft, at_ns, content, stream)
    if len(delta) == 1 and content is not None:
        return
    text = delta.get("text") or delta.get("refusal") or mapping(delta.get("audio") or None).get("transcript")
    if text:
        draft.say(at_ns, "answer", as_text(text), stream)
    calls = delta.get("tool_calls") or delta.get("function_call")
    if calls:
        for call in calls if isinstance(calls, list) else [calls]:
            _say_call(draft, at_ns, mapping(call), stream)


def _say_reasoning(draft: Draft, at_ns: int, delta: Mapping[str, object], stream: int) -> None:
    for name in _REASONING:
        stated = delta.get(name)
        if not stated:
            continue
        if isinstance(stated, list) and any(_is_hidden(part) for part in stated):
            draft.reasoning_summarised = True
        text = text_inside(stated)
        if text:
            draft.say(at_ns, "reasoning", text, stream)
            return


def _is_hidden(part: object) -> bool:
    """A part of reasoning that is a summary of what is billed, or is not shown at all."""
    kind = part.get("type") if isinstance(part, dict) else None
    return isinstance(kind, str) and any(word in kind for word in _HIDDEN)


def _say_call(draft: Draft, at_ns: int, call: Mapping[str, object], stream: int) -> None:
    function = mapping(call.get("function") or call.get("custom") or call)
    draft.say(
        at_ns,
        "tool",
        as_text(function.get("name")) + as_text(function.get("arguments") or function.get("input")),
        stream,
    )


def _say_parts(draft: Draft, at_ns: int, parts: object, stream: int) -> None:
    """Content as a list of typed parts (Mistral's reasoning models, Databricks)."""
    for part in parts if isinstance(parts, list) else [parts]:
        if isinstance(part, str):
            draft.say(at_ns, "answer", part, stream)
            continue
        fields = mapping(part)
        kind = "reasoning" if fields.get("type") in _REASONING_PARTS else "answer"
        draft.say(at_ns, "reasoning" if kind == "reasoning" else "answer", text_inside(fields), stream)


def _closing(draft: Draft, tree: Mapping[str, object]) -> None:
    """Usage and the server's own clock: OpenAI's, llama.cpp's `timings`, Groq's."""
    usage = tree.get("usage") or mapping(tree.get("x_groq")).get("usage")
    if isinstance(usage, dict):
        draft.count(usage_of(usage))
        draft.took(usage.get("total_time"))
    timings = tree.get("timings")
    if isinstance(timings, dict):
        read_ms, written_ms = number(timings.get("prompt_ms")), number(timings.get("predicted_ms"))
        if written_ms is not None:
            draft.took((read_ms or 0) + written_ms, per_second=1000)
        if draft.usage.output_tokens is None:
            draft.count(_usage_of_timings(timings))


def usage_of(raw: Mapping[str, object]) -> Usage:
    """OpenAI's usage object; some providers count reasoning beside `completion_tokens`, which only the total tells."""
    read, written = count(raw.get("prompt_tokens")), count(raw.get("completion_tokens"))
    reasoning = count(mapping(raw.get("completion_tokens_details")).get("reasoning_tokens"))
    if reasoning is None:
        reasoning = count(raw.get("reasoning_tokens"))
    cached = count(mapping(raw.get("prompt_tokens_details")).get("cached_tokens"))
    if cached is None:
        cached = count(raw.get("prompt_cache_hit_tokens"))
    if written is not None and reasoning:
        beside = count(raw.get("total_tokens")) == (read or 0) + written + reasoning
        if beside or reasoning > written:
            written += reasoning
    return Usage(read, written, reasoning, cached)


def _usage_of_timings(timings: Mapping[str, object]) -> Usage:
    cached = count(timings.get("cache_n"))
    fresh = count(timings.get("prompt_n"))
    read = None if fresh is None else fresh + (cached or 0)
    return Usage(read, count(timings.get("predicted_n")), None, cached)
