"""Gemini's wire, of AI Studio and Vertex AI: `streamGenerateContent` as an event stream (`alt=sse`) or a JSON array.

There is a decoder only; LiteLLM prepares these requests.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from llmexp.clients.base import Answer, Response, TokenEvent, Usage
from llmexp.clients.decoding import DONE, Draft, Payload, as_text, count, decode
from llmexp.clients.failures import of_event


def explain(response: Response) -> Answer:
    """What the response means."""
    return decode(response, fold)


def fold(draft: Draft, payloads: Iterable[Payload]) -> None:
    """Partial responses of a stream, or one whole response, into `draft`."""
    for at_ns, event, tree in payloads:
        if tree == DONE:
            draft.finished = True
            continue
        if event == "error" or tree.get("error"):
            draft.failure = of_event(tree)
            return
        for candidate in tree.get("candidates") or ():
            _candidate(draft, at_ns, candidate)
        if tree.get("usageMetadata"):
            draft.usage = usage_of(tree["usageMetadata"])
        blocked = (tree.get("promptFeedback") or {}).get("blockReason")
        if blocked:
            draft.finish_reason, draft.finished = f"blocked: {blocked}", True


def _candidate(draft: Draft, at_ns: int, candidate: dict[str, Any]) -> None:
    for part in (candidate.get("content") or {}).get("parts") or ():
        _part(draft, at_ns, part)
    if candidate.get("finishReason"):
        draft.finish_reason, draft.finished = str(candidate["finishReason"]), True


def _part(draft: Draft, at_ns: int, part: dict[str, Any]) -> None:
    call = part.get("functionCall")
    if call:
        draft.events.append(TokenEvent(at_ns, "tool", as_text(call.get("name")) + as_text(call.get("args"))))
    text = part.get("text") or (part.get("executableCode") or {}).get("code")
    if text and part.get("thought"):
        draft.reasoning_summarised = True
        draft.events.append(TokenEvent(at_ns, "reasoning", as_text(text)))
    elif text:
        draft.events.append(TokenEvent(at_ns, "answer", as_text(text)))


def usage_of(raw: dict[str, Any]) -> Usage:
    """Gemini's usage: thoughts are billed as output and counted beside the candidates."""
    read, tools = count(raw.get("promptTokenCount")), count(raw.get("toolUsePromptTokenCount"))
    written, thoughts = count(raw.get("candidatesTokenCount")), count(raw.get("thoughtsTokenCount"))
    output = None if written is None and thoughts is None else (written or 0) + (thoughts or 0)
    given = None if read is None else read + (tools or 0)
    return Usage(given, output, thoughts, count(raw.get("cachedContentTokenCount")))
