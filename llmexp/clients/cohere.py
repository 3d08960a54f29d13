"""Cohere's wire, of its own API (v2, and v1 as JSON lines) and of its models on Bedrock.

There is a decoder only; LiteLLM prepares these requests.
"""

from __future__ import annotations

from collections.abc import Mapping

from llmexp.clients import failures
from llmexp.clients.base import Usage
from llmexp.clients.decoding import Draft, Wire, as_text, count, text_inside, total
from llmexp.clients.json_text import listing, mapping
from llmexp.json_types import branch

_EVENTS = """
    message-start content-start content-delta content-end tool-plan-delta tool-call-start tool-call-delta tool-call-end
    citation-start citation-end debug message-end
"""
KINDS = frozenset(_EVENTS.split())
"""Types of the second version's events."""


def speaks(tree: Mapping[str, object]) -> bool:
    """Whether an object is of this wire, and of no other."""
    kind = tree.get("type")
    return (isinstance(kind, str) and kind in KINDS) or "event_type" in tree or tree.keys() >= {"is_finished", "text"}


def _is_chunk(tree: Mapping[str, object]) -> bool:
    return speaks(tree) and not failures.is_error(tree)


def _take(draft: Draft, at_ns: int, _event: str, tree: Mapping[str, object]) -> None:
    if "type" in tree:
        _event_of_v2(draft, at_ns, tree)
    else:
        _line_of_v1(draft, at_ns, tree)


WIRE = Wire(_is_chunk, _take)


def _event_of_v2(draft: Draft, at_ns: int, tree: Mapping[str, object]) -> None:
    delta = mapping(tree.get("delta"))
    message = mapping(delta.get("message")) if isinstance(delta.get("message"), dict) else {}
    index = tree.get("index")
    block = index if isinstance(index, int) else 0
    content = message.get("content")
    if isinstance(content, dict):
        draft.say(at_ns, "reasoning", as_text(content.get("thinking")), block)
        draft.say(at_ns, "answer", as_text(content.get("text")), block)
    else:
        draft.say(at_ns, "answer", text_inside(content), block)
    draft.say(at_ns, "reasoning", as_text(message.get("tool_plan")), block)
    calls = message.get("tool_calls")
    for call in calls if isinstance(calls, list) else [calls] if calls else []:
        _call(draft, at_ns, mapping(call), block)
    if tree["type"] == "message-end":
        draft.finished = True
        draft.end(delta.get("finish_reason"), delta.get("error"))
        if delta.get("usage"):
            draft.count(usage_of(mapping(delta["usage"])))


def _call(draft: Draft, at_ns: int, call: Mapping[str, object], block: int) -> None:
    function = mapping(call.get("function")) or call
    arguments = function.get("arguments") or function.get("parameters")
    draft.call(at_ns, as_text(function.get("name")), as_text(arguments), block)


def _line_of_v1(draft: Draft, at_ns: int, tree: Mapping[str, object]) -> None:
    kind = tree.get("event_type")
    if kind in (None, "text-generation"):
        draft.say(at_ns, "answer", as_text(tree.get("text")))
    elif kind == "tool-calls-chunk":
        piece = mapping(mapping(tree.get("tool_call_delta")) or None)
        draft.say(at_ns, "reasoning", as_text(tree.get("text")))
        _call(draft, at_ns, piece, 0)
    elif kind == "tool-calls-generation" and not any(event.kind == "tool" for event in draft.events):
        for call in listing(tree.get("tool_calls")):
            _call(draft, at_ns, mapping(call), 0)
    if kind == "stream-end" or tree.get("is_finished"):
        draft.finished = True
        response = branch(tree, "response")
        draft.end(tree.get("finish_reason") or response.get("finish_reason"))
        draft.count(usage_of(branch(response, "meta")))


def usage_of(raw: Mapping[str, object]) -> Usage:
    """Cohere's usage: what is billed, else what was read and written with the template's own tokens."""
    billed, all_tokens = branch(raw, "billed_units"), branch(raw, "tokens")
    read = billed.get("input_tokens") or all_tokens.get("input_tokens")
    written = billed.get("output_tokens") or all_tokens.get("output_tokens")
    return Usage(total(read), total(written), None, count(raw.get("cached_tokens")))
