"""Anthropic's wire: the Messages API, streamed."""

from __future__ import annotations

from collections.abc import Iterable
from functools import partial
from typing import Any

from llmexp.clients import address
from llmexp.clients.base import TokenEvent, TokenKind, Usage
from llmexp.clients.decoding import Draft, Payload, as_text, count
from llmexp.clients.failures import of_event
from llmexp.clients.openai import merged
from llmexp.clients.unsigned import UnsignedClient
from llmexp.config import Model
from llmexp.workload.request import Request

DEFAULT_BASE_URL = "https://api.anthropic.com/v1"
VERSION = "2023-06-01"
_DELTAS: dict[str, tuple[TokenKind, str]] = {
    "text_delta": ("answer", "text"),
    "thinking_delta": ("reasoning", "thinking"),
    "input_json_delta": ("tool", "partial_json"),
}
_BLOCKS: dict[str, tuple[TokenKind, tuple[str, ...]]] = {
    "text": ("answer", ("text",)),
    "thinking": ("reasoning", ("thinking",)),
    "tool_use": ("tool", ("name", "input")),
    "server_tool_use": ("tool", ("name", "input")),
}


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
        super().__init__(address.target(url), path, headers, partial(body, model), fold)


def body(model: Model, request: Request) -> dict[str, Any]:
    """The JSON body of `request`; system messages go where this wire wants them."""
    system = [message.text for message in request.messages if message.role == "system"]
    sent: dict[str, Any] = {
        "model": model.name,
        "max_tokens": request.max_tokens,
        "messages": [
            {"role": message.role, "content": message.text} for message in request.messages if message.role != "system"
        ],
        "stream": True,
    }
    if system:
        sent["system"] = "\n\n".join(system)
    return merged(sent, model.params)


def fold(draft: Draft, payloads: Iterable[Payload]) -> None:
    """Events of a stream, or one whole message, into `draft`."""
    usage: dict[str, Any] = {}
    for at_ns, event, tree in payloads:
        kind = tree.get("type") if isinstance(tree, dict) else None
        if event == "error" or kind == "error":
            draft.failure = of_event(tree)
            return
        if kind == "content_block_delta":
            _delta(draft, at_ns, tree["delta"])
        elif kind == "content_block_start":
            _block(draft, at_ns, tree["content_block"])
        elif kind in ("message_start", "message_delta", "message", "message_stop"):
            _envelope(draft, at_ns, tree, usage)


def _delta(draft: Draft, at_ns: int, delta: dict[str, Any]) -> None:
    known = _DELTAS.get(delta["type"])
    if known is not None and delta.get(known[1]):
        draft.events.append(TokenEvent(at_ns, known[0], as_text(delta[known[1]])))


def _block(draft: Draft, at_ns: int, block: dict[str, Any]) -> None:
    """A block's start (its text is mostly empty there), or a whole block."""
    name = block["type"]
    if "thinking" in name:
        # Thinking is billed in full and shown as a summary, or not at all.
        draft.reasoning_summarised = True
    kind, keys = _BLOCKS.get(name, ("answer", ()))
    text = "".join(as_text(block[key]) for key in keys if block.get(key))
    if text:
        draft.events.append(TokenEvent(at_ns, kind, text))


def _envelope(draft: Draft, at_ns: int, tree: dict[str, Any], usage: dict[str, Any]) -> None:
    """What stands around the content: usage grows over the stream, the later figure counts."""
    message = tree.get("message") or tree
    for block in message.get("content") or ():
        _block(draft, at_ns, block)
    usage.update({key: value for key, value in (message.get("usage") or {}).items() if value is not None})
    if tree["type"] == "message_start":
        usage.pop("output_tokens", None)  # only a beginning; a stream that is cut later has no count
    if usage:
        draft.usage = usage_of(usage)
    reason = (tree.get("delta") or message).get("stop_reason")
    if reason is not None:
        draft.finish_reason = str(reason)
    draft.finished = draft.finished or reason is not None or tree["type"] == "message_stop"


def usage_of(raw: dict[str, Any]) -> Usage:
    """Anthropic's usage object; its `input_tokens` leaves out what a prompt cache gave or took."""
    fresh, cached = count(raw.get("input_tokens")), count(raw.get("cache_read_input_tokens"))
    created = count(raw.get("cache_creation_input_tokens"))
    read = None if fresh is None else fresh + (cached or 0) + (created or 0)
    thinking = count((raw.get("output_tokens_details") or {}).get("thinking_tokens"))
    return Usage(read, count(raw.get("output_tokens")), thinking, cached)
