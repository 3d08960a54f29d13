"""Amazon Bedrock's InvokeModelWithResponseStream: each model's own objects, in `chunk` frames.

Anthropic's and OpenAI's wires are read as they are anywhere, Cohere's and Nova's too; the objects of Llama, Mistral,
Titan and Claude 2 here. There is a decoder only; LiteLLM prepares these requests.
"""

from __future__ import annotations

import base64
import binascii
from collections.abc import Mapping

from llmexp.clients import anthropic, aws_failures, aws_stream, bedrock, cohere, failures, openai
from llmexp.clients.base import Answer, Failure, Response, Usage
from llmexp.clients.decoding import Draft, Wire, as_text, count, text_inside, total
from llmexp.clients.eventstream import EventMessage
from llmexp.clients.json_text import listing, loads, mapping
from llmexp.clients.payloads import Payload

_NOVA = frozenset({"messageStart", *bedrock.EVENTS, "contentBlockStop"})
_TEXTS = ("generation", "outputText", "completion", "outputs")
_REASONS = ("stop_reason", "completionReason", "finish_reason")
_METRICS = "amazon-bedrock-invocationMetrics"
_ALL = frozenset({*_NOVA, *_TEXTS, "choices", _METRICS})


def explain(response: Response) -> Answer:
    """What the response means; never raises for anything a server can send."""
    return aws_stream.explain(response, WIRE, _read)


def _read(message: EventMessage) -> Payload | Failure | None:
    """What a frame carries as `bytes`."""
    if failure := aws_failures.stream_failure(message):
        return failure
    if message.headers.get(":event-type") == "chunk":
        return Payload(message.at_ns, "", _unpacked(message.payload))
    return None


def _unpacked(payload: bytes) -> object:
    """The object inside of a frame."""
    inner = mapping(loads(payload)).get("bytes")
    try:
        return loads(base64.b64decode(as_text(inner)))
    except binascii.Error as error:
        raise ValueError(f"a chunk that is not base64: {error}") from None


def _is_chunk(tree: Mapping[str, object]) -> bool:
    if anthropic.WIRE.is_chunk(tree):  # whose `message` is no error's
        return True
    return not failures.is_error(tree) and (cohere.speaks(tree) or not _ALL.isdisjoint(tree))


def _take(draft: Draft, at_ns: int, event: str, tree: Mapping[str, object]) -> None:
    if cohere.speaks(tree):
        cohere.WIRE.take(draft, at_ns, event, tree)
    elif isinstance(tree.get("type"), str):
        anthropic.WIRE.take(draft, at_ns, event, tree)
    elif "choices" in tree:
        pieces = [_piece(mapping(choice)) for choice in listing(tree.get("choices"))]
        openai.WIRE.take(draft, at_ns, event, {**tree, "choices": pieces})
    elif not _NOVA.isdisjoint(tree):
        for name in bedrock.EVENTS & tree.keys():
            bedrock.WIRE.take(draft, at_ns, name, mapping(tree[name]))
    else:
        _text(draft, at_ns, tree)
    if _METRICS in tree:
        _billed(draft, mapping(tree[_METRICS]))


WIRE = Wire(_is_chunk, _take)


def _piece(choice: Mapping[str, object]) -> dict[str, object]:
    """A choice whose text is in pieces under the name of a whole message, and its end under Anthropic's name."""
    said = dict(choice)
    if "message" in said and "delta" not in said:
        said["delta"] = said.pop("message")
    said["finish_reason"] = said.get("finish_reason") or said.pop("stop_reason", None)
    return said


def _text(draft: Draft, at_ns: int, tree: Mapping[str, object]) -> None:
    """A piece of Llama's, Titan's, Claude 2's or Mistral's text."""
    outputs = [mapping(output) for output in listing(tree.get("outputs"))]
    whole = [tree, *outputs]
    draft.say(at_ns, "answer", "".join([text_inside(part.get(key)) for part in whole for key in (*_TEXTS[:3], "text")]))
    for part in whole:
        draft.end(next((part[key] for key in _REASONS if part.get(key)), None))
    read = _first(tree, "prompt_token_count", "inputTextTokenCount")
    draft.count(Usage(total(read), total(_first(tree, "generation_token_count", "totalOutputTextTokenCount"))))


def _first(tree: Mapping[str, object], *names: str) -> object:
    return next((tree[name] for name in names if tree.get(name) is not None), None)


def _billed(draft: Draft, metrics: Mapping[str, object]) -> None:
    """Bedrock's own figures, in the last chunk of any model."""
    plain = total(metrics.get("inputTokenCount"))
    read, written = count(metrics.get("cacheReadInputTokenCount")), count(metrics.get("cacheWriteInputTokenCount"))
    whole = None if plain is None else plain + (read or 0) + (written or 0)
    if read is None and written is None and draft.usage.cached_tokens:
        whole = None  # the model's own count has the cache inside
    draft.count(Usage(whole, total(metrics.get("outputTokenCount")), None, read, written))
    draft.took(metrics.get("invocationLatency"), per_second=1000)
