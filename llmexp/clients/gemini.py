"""Gemini's wire, of AI Studio and Vertex AI: `streamGenerateContent` as an event stream (`alt=sse`) or a JSON array.

There is a decoder only; LiteLLM prepares these requests.
"""

from __future__ import annotations

from collections.abc import Mapping

from llmexp.clients import failures
from llmexp.clients.base import Answer, Response, Usage
from llmexp.clients.decoding import Draft, Wire, as_text, count, decode, text_inside, total
from llmexp.clients.json_text import listing, mapping
from llmexp.json_types import branch

_CHUNK_KEYS = frozenset({"candidates", "usageMetadata", "promptFeedback", "modelVersion", "responseId", "createTime"})


def explain(response: Response) -> Answer:
    """What the response means."""
    return decode(response, WIRE)


def _is_chunk(tree: Mapping[str, object]) -> bool:
    return not _CHUNK_KEYS.isdisjoint(tree) and not failures.is_error(tree)


def _take(draft: Draft, at_ns: int, _event: str, tree: Mapping[str, object]) -> None:
    """One partial response of a stream, or a whole response."""
    for candidate in listing(tree.get("candidates")):
        _candidate(draft, at_ns, mapping(candidate))
    usage = branch(tree, "usageMetadata")
    if usage:
        draft.count(usage_of(usage))
    blocked = mapping(tree.get("promptFeedback")).get("blockReason")
    if blocked:
        draft.end(f"blocked: {as_text(blocked)}", mapping(tree["promptFeedback"]).get("blockReasonMessage"))


WIRE = Wire(_is_chunk, _take)


def _candidate(draft: Draft, at_ns: int, candidate: Mapping[str, object]) -> None:
    index = candidate.get("index")
    for part in listing(mapping(candidate.get("content")).get("parts")):
        _part(draft, at_ns, mapping(part), index if isinstance(index, int) else 0)
    draft.end(candidate.get("finishReason"), candidate.get("finishMessage"))


def _part(draft: Draft, at_ns: int, part: Mapping[str, object], stream: int) -> None:
    call = mapping(part.get("functionCall"))
    if call:
        pieces = call.get("args") or call.get("partialArgs")
        arguments = "".join(map(as_text, pieces)) if isinstance(pieces, list) else as_text(pieces)
        draft.call(at_ns, as_text(call.get("name")), arguments, stream)
    text = text_inside(part.get("text")) or as_text(mapping(part.get("executableCode")).get("code"))
    if text and part.get("thought"):
        draft.reasoning_summarised = True
        draft.say(at_ns, "reasoning", text, stream)
    else:
        draft.say(at_ns, "answer", text, stream)


def usage_of(raw: Mapping[str, object]) -> Usage:
    """Gemini's usage: thoughts are billed as output and counted beside the candidates."""
    read, tools = total(raw.get("promptTokenCount")), count(raw.get("toolUsePromptTokenCount"))
    written, thoughts = total(raw.get("candidatesTokenCount")), count(raw.get("thoughtsTokenCount"))
    given = None if read is None else read + (tools or 0)
    whole = count(raw.get("totalTokenCount"))
    if written is None and given is not None and whole is not None and whole > given + (thoughts or 0):
        written = whole - given - (thoughts or 0)
    output = None if written is None and thoughts is None else (written or 0) + (thoughts or 0)
    return Usage(given, output, thoughts, count(raw.get("cachedContentTokenCount")))
