"""OpenAI's wire, as OpenAI, Azure, vLLM, SGLang, TGI, llama.cpp and gateways speak it: chat and plain completions."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from functools import lru_cache, partial

from llmexp.clients import address, chat_openai, failures
from llmexp.clients.base import Usage
from llmexp.clients.decoding import Draft, Wire, as_text, count, number, text_inside, total
from llmexp.clients.json_text import listing, mapping
from llmexp.clients.unsigned import UnsignedClient
from llmexp.config import Model
from llmexp.json_types import branch
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
_PLAIN_KEYS = frozenset({"id", "object", "created", "model", "choices", "usage", "system_fingerprint", "service_tier"})
"""A chunk of these alone holds no object that a gateway put an error of its own into."""
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
_FIRST_NAMES = _REASONING[:2]
_USUAL = frozenset({"content", "tool_calls", "function_call", "refusal", "audio", "text", *_FIRST_NAMES})
"""Where a delta holds no other keys, nothing else needs to be looked at."""
_OTHER_REASONING = re.compile(r"reason|think|thought|^cot$|chain.?of.?thought|^analysis$", re.IGNORECASE)
_NO_REASONING = re.compile(
    r"finish|stop|signature|token|effort|time|duration|opaque|encrypt|redact|budget|^(?:is|has|use|enable)_|"
    r"(?:id|ids|format|status|state|mode|type|index|level|enabled|done|config|model|count|length|hash)$",
    re.IGNORECASE,
)
"""Names of what is told of reasoning, or of what nobody can read."""
_EXTRA = ("provider_specific_fields", "model_extra")
"""Where gateways put fields that they do not know."""
_REASONING_PARTS = ("thinking", "reasoning", "reasoning_content", "summary", "summary_text", "thought", "analysis")
_HIDDEN = ("encrypted", "redacted", "summary")
_MOST_CALLS = 1000
_BEGUN = 2
"""Letters with which an object of arguments has begun."""
_FOLLOWED = 32_768
"""Letters up to which arguments are put together to see whether they come again."""
_MOST_HIDDEN = 200_000
"""More reasoning than this beside a shorter answer is no count."""


def _is_chunk(tree: Mapping[str, object]) -> bool:
    if tree.get("choices"):
        return True
    return not _CHUNK_KEYS.isdisjoint(tree) and not failures.is_error(tree)


def _take(draft: Draft, at_ns: int, _event: str, tree: Mapping[str, object]) -> None:
    """A chunk of a stream, or one whole completion."""
    if failures.has_error(tree) or tree.get("object") == "error" or failures.is_bad_code(tree.get("code")):
        draft.failure = failures.of_event(tree)
        return
    if not tree.keys() <= _PLAIN_KEYS:
        inner = next((part for part in tree.values() if isinstance(part, dict) and failures.has_error(part)), None)
        draft.failure = None if inner is None else failures.of_event(inner)
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
        fields = mapping(delta)
        _say(draft, at_ns, fields, stream)
        if failures.has_error(fields):
            draft.failure = failures.of_event(fields)
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
    if failures.has_error(choice):
        draft.failure = failures.of_event(choice)
    usage = choice.get("usage")  # Moonshot's place for it
    if isinstance(usage, dict):
        draft.count(usage_of(usage))


def _say(draft: Draft, at_ns: int, delta: Mapping[str, object], stream: int) -> None:
    """The generated text of a delta (or of a whole message), in the order in which models write."""
    content = delta.get("content")
    thought = False
    if len(delta) > 1 or content is None:
        is_usual = delta.keys() <= _USUAL
        _say_reasoning(draft, at_ns, delta, stream, _FIRST_NAMES if is_usual else _REASONING)
        thought = not is_usual and _is_thought(delta)
    if isinstance(content, str):
        draft.say(at_ns, "reasoning" if thought else "answer", content, stream)
    elif content:
        _say_parts(draft, at_ns, content, stream)
    if len(delta) == 1 and content is not None:
        return
    text = delta.get("text") or delta.get("refusal") or mapping(delta.get("audio") or None).get("transcript")
    if text and text != content:  # some servers send it under both names
        draft.say(at_ns, "answer", as_text(text), stream)
    calls = delta.get("tool_calls") or delta.get("function_call")
    if calls:
        for call in calls if isinstance(calls, list) else [calls]:
            _say_call(draft, at_ns, mapping(call), stream)


def _say_reasoning(draft: Draft, at_ns: int, delta: Mapping[str, object], stream: int, listed: tuple[str, ...]) -> None:
    others = () if listed is _FIRST_NAMES else _other_names(frozenset(delta))
    for name in (*listed, *others):
        stated = delta.get(name)
        if not stated:
            continue
        if isinstance(stated, list) and any(_is_hidden(part) for part in stated):
            draft.reasoning_summarised = True
        text = text_inside(stated)
        if text:
            draft.say(at_ns, "reasoning", text, stream)
            return
    for name in () if listed is _FIRST_NAMES else _EXTRA:
        extra = delta.get(name)
        if isinstance(extra, dict):
            _say_reasoning(draft, at_ns, {key: extra[key] for key in extra if key not in _EXTRA}, stream, _REASONING)


@lru_cache(maxsize=256)
def _other_names(names: Iterable[str]) -> tuple[str, ...]:
    """Those that mean reasoning, of names that are not in the list."""
    unlisted = [name for name in sorted(names) if name not in _REASONING and len(name) < 40]
    return tuple(name for name in unlisted if _OTHER_REASONING.search(name) and not _NO_REASONING.search(name))


def _is_thought(delta: Mapping[str, object]) -> bool:
    """Whether a mark beside the content says that it is reasoning."""
    if delta.get("thought") is True or delta.get("is_thinking") is True or delta.get("reasoning") is True:
        return True
    if any(delta.get(key) in _REASONING_PARTS for key in ("type", "channel", "role")):
        return True
    return branch(delta, "extra_content", "google").get("thought") is True


def _is_hidden(part: object) -> bool:
    """A part of reasoning that is a summary of what is billed, or is not shown at all."""
    kind = part.get("type") if isinstance(part, dict) else None
    return isinstance(kind, str) and any(word in kind for word in _HIDDEN)


def _say_call(draft: Draft, at_ns: int, call: Mapping[str, object], stream: int) -> None:
    function = mapping(call.get("function") or call.get("custom") or call)
    index = call.get("index")
    place = (stream, index if isinstance(index, int) else -1)
    name, ident = as_text(function.get("name")), call.get("id") or None
    goes_on = _goes_on(draft, place, ident)
    if name and _is_named(draft, place, ident, name):
        name = ""
    arguments = as_text(function.get("arguments") or function.get("input"))
    fresh = _fresh(draft, place, arguments, is_new=bool(name))
    draft.call(at_ns, name, fresh, stream * _MOST_CALLS + place[1] + 1, goes_on=goes_on)


def _goes_on(draft: Draft, place: tuple[int, int], ident: object) -> bool:
    """Whether a further name at this place is the rest of the one before: no argument has come, and no other id."""
    known = draft.calls.get(place)
    is_same = known is not None and place[1] >= 0 and ident in (None, known[0])
    return is_same and not draft.arguments.get(place)


def _fresh(draft: Draft, place: tuple[int, int], arguments: str, *, is_new: bool) -> str:
    """What is new in arguments that hold all that came before: no JSON object goes on with its own beginning."""
    before = "" if is_new else draft.arguments.get(place, "")
    if len(before) >= _BEGUN and before[0] == "{" and arguments.startswith(before):
        draft.repeated = True
        draft.arguments[place] = arguments
        return arguments[len(before) :]
    if len(before) < _FOLLOWED:
        draft.arguments[place] = before + arguments
    return arguments


def _is_named(draft: Draft, place: tuple[int, int], ident: object, name: str) -> bool:
    """Whether this call has its name already: some servers name it in every event."""
    known_ident, known_name = draft.calls.get(place, (None, ""))
    draft.calls[place] = (ident or known_ident, name)
    is_told = ident is not None or place[1] >= 0  # else two calls of one tool look the same
    return is_told and name == known_name and (ident is None or ident == known_ident)


def _say_parts(draft: Draft, at_ns: int, parts: object, stream: int) -> None:
    """Content as a list of typed parts (Mistral's reasoning models, Databricks)."""
    for part in parts if isinstance(parts, list) else [parts]:
        if not isinstance(part, dict):  # a text, or a number that a gateway made of one
            draft.say(at_ns, "answer", as_text(part), stream)
            continue
        fields = mapping(part)
        kind = "reasoning" if fields.get("type") in _REASONING_PARTS else "answer"
        draft.say(at_ns, "reasoning" if kind == "reasoning" else "answer", text_inside(fields), stream)


def _closing(draft: Draft, tree: Mapping[str, object]) -> None:
    """Usage and the server's own clock: OpenAI's, llama.cpp's `timings`, Groq's."""
    usage = tree.get("usage") or branch(tree, "x_groq").get("usage")
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
    read = total(_first(raw.get("prompt_tokens"), raw.get("input_tokens")))
    written = total(_first(raw.get("completion_tokens"), raw.get("output_tokens")))
    details = branch(raw, "completion_tokens_details") or branch(raw, "output_tokens_details")
    reasoning = count(_first(details.get("reasoning_tokens"), raw.get("reasoning_tokens")))
    whole = count(raw.get("total_tokens"))
    if written is None and read is not None and whole is not None and whole > read:
        written = whole - read
    details = branch(raw, "prompt_tokens_details") or branch(raw, "input_tokens_details")
    cached = count(_first(details.get("cached_tokens"), raw.get("prompt_cache_hit_tokens")))
    if written is not None and reasoning:
        beside = whole == (read or 0) + written + reasoning
        if beside or written < reasoning <= _MOST_HIDDEN:
            written += reasoning
    return Usage(read, written, reasoning, cached)


def _first(*figures: object) -> object:
    """The first that is there."""
    return next((figure for figure in figures if figure is not None), None)


def _usage_of_timings(timings: Mapping[str, object]) -> Usage:
    cached = count(timings.get("cache_n"))
    fresh = count(timings.get("prompt_n"))
    read = None if fresh is None else fresh + (cached or 0)
    return Usage(read, total(timings.get("predicted_n")), None, cached)
