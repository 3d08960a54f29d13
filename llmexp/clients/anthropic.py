"""Anthropic's wire: the Messages API, streamed."""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial

from llmexp.clients import address, chat_anthropic, failures
from llmexp.clients.base import TokenKind, Usage
from llmexp.clients.decoding import Draft, Wire, as_text, count, text_inside, total
from llmexp.clients.json_text import listing, mapping
from llmexp.clients.openai import merged
from llmexp.clients.unsigned import UnsignedClient
from llmexp.config import Model
from llmexp.json_types import branch
from llmexp.workload.request import Request

DEFAULT_BASE_URL = "https://api.anthropic.com/v1"
VERSION = "2023-06-01"


class AnthropicClient(UnsignedClient):
    """`POST <base_url>/v1/messages` (`/v1` of the base URL is not doubled).

    `model.params` is laid over the body; null takes a key away. The wire has no way to force a length, so
    `force_output` sends nothing.
    """

    def __init__(self, model: Model, base_url: str | None = None) -> None:
        url = base_url or model.base_url or DEFAULT_BASE_URL
        versioned = address.path(url, "").split("?")[0].rstrip("/").endswith("/v1")
        path = address.path(url, "messages" if versioned else "v1/messages")
        key = address.api_key(model)
        defaults = {"Content-Type": "application/json", "Accept": "text/event-stream", "anthropic-version": VERSION}
        headers = address.headers(model, defaults | ({"x-api-key": key} if key else {}))
        super().__init__(address.target(url), path, headers, partial(body, model), WIRE)


def body(model: Model, request: Request) -> dict[str, object]:
    """The JSON body of `request`; system messages go where this wire wants them."""
    sent: dict[str, object] = {"model": model.name, "max_tokens": request.max_tokens, "messages": [], "stream": True}
    sent |= chat_anthropic.parts(request, model.cache_points)
    return merged(sent, model.params)


# --- the answer ------------------------------------------------------------------------------------------------------

_DELTAS: dict[str, tuple[TokenKind, str]] = {
    "text_delta": ("answer", "text"),
    "thinking_delta": ("reasoning", "thinking"),
    "input_json_delta": ("tool", "partial_json"),
}
_BLOCKS: dict[str, tuple[TokenKind, str]] = {"text": ("answer", "text"), "thinking": ("reasoning", "thinking")}
_ENVELOPES = ("message_start", "message_delta", "message", "message_stop")
_KNOWN = (*_ENVELOPES, "content_block_start", "content_block_delta", "content_block_stop")


def _is_chunk(tree: Mapping[str, object]) -> bool:
    """An object with a type: the API announces that further types will come, and that clients pass them over."""
    kind = tree.get("type")
    if kind in _KNOWN:
        return not failures.has_error(tree)
    return isinstance(kind, str) and kind != "ping" and not failures.is_error(tree)


def _take(draft: Draft, at_ns: int, _event: str, tree: Mapping[str, object]) -> None:
    kind = tree["type"]
    index = tree.get("index")
    block = index if isinstance(index, int) else 0
    if kind == "content_block_delta":
        _delta(draft, at_ns, mapping(tree["delta"]), block)
    elif kind == "content_block_start":
        _block(draft, at_ns, mapping(tree["content_block"]), block)
    elif kind in _ENVELOPES:
        _envelope(draft, at_ns, tree)
    elif kind != "content_block_stop":
        draft.noise += 1


WIRE = Wire(_is_chunk, _take)


def _delta(draft: Draft, at_ns: int, delta: Mapping[str, object], block: int) -> None:
    name = delta.get("type")
    known = _DELTAS.get(name) if isinstance(name, str) else None
    if known is None and not name:
        known = next((kind for kind in _DELTAS.values() if kind[1] in delta), None)
    if known is not None:
        draft.say(at_ns, known[0], as_text(delta.get(known[1])), block)
    elif isinstance(name, str) and ("thinking" in name or "reasoning" in name):
        draft.say(at_ns, "reasoning", text_inside(delta), block)


def _block(draft: Draft, at_ns: int, block: Mapping[str, object], index: int) -> None:
    """A block's start (its text is mostly empty there), or a whole block."""
    name = as_text(block.get("type"))
    if "thinking" in name:
        # Thinking is billed in full and shown as a summary, or not at all.
        draft.reasoning_summarised = True
    if name.endswith("tool_use"):
        draft.call(at_ns, as_text(block.get("name")), as_text(block.get("input") or None), index)
        return
    kind, key = _BLOCKS.get(name, ("answer", "text"))
    draft.say(at_ns, kind, as_text(block.get(key)), index)


def _envelope(draft: Draft, at_ns: int, tree: Mapping[str, object]) -> None:
    """What stands around the content: usage grows over the stream."""
    message = mapping(tree.get("message")) or tree
    content = listing(message.get("content"))
    if content and draft.events:
        draft.repeated = True  # the whole answer once more, behind its pieces
    else:
        for at, block in enumerate(content):
            _block(draft, at_ns, mapping(block), at)
    usage = message.get("usage") or tree.get("usage")
    if isinstance(usage, dict):
        # A later event may state a part alone, with zeros for the rest.
        draft.stated |= {key: value for key, value in usage.items() if value or key not in draft.stated}
        if tree["type"] == "message_start":
            draft.stated.pop("output_tokens", None)  # only a beginning; a stream that is cut later has no count
        draft.count(usage_of(draft.stated))
    delta = mapping(tree.get("delta")) or message
    draft.end(delta.get("stop_reason"), delta.get("stop_details"))
    draft.finished = draft.finished or tree["type"] == "message_stop"


def usage_of(raw: Mapping[str, object]) -> Usage:
    """Anthropic's usage object; its `input_tokens` leaves out what a prompt cache gave or took."""
    fresh, cached = total(raw.get("input_tokens")), count(raw.get("cache_read_input_tokens"))
    created = count(raw.get("cache_creation_input_tokens"))
    read = None if fresh is None else fresh + (cached or 0) + (created or 0)
    thinking = count(branch(raw, "output_tokens_details").get("thinking_tokens"))
    return Usage(read, total(raw.get("output_tokens")), thinking, cached, created)
