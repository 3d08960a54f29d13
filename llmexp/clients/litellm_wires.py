"""Which of our decoders reads an answer to a request that LiteLLM prepared."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator
from itertools import islice
from typing import Literal

from llmexp.clients import anthropic, bedrock, bedrock_invoke, cohere, decoding, gemini, ollama, openai, sagemaker
from llmexp.clients.base import Answer, Response
from llmexp.clients.decoding import as_text
from llmexp.clients.json_text import NotJson
from llmexp.clients.payloads import payloads

Wire = Literal["openai", "anthropic", "gemini", "cohere", "ollama", "bedrock", "bedrock_invoke", "sagemaker"]
_READ: dict[Wire, decoding.Wire] = {
    "openai": openai.WIRE,
    "anthropic": anthropic.WIRE,
    "gemini": gemini.WIRE,
    "cohere": cohere.WIRE,
    "ollama": ollama.WIRE,
}
_OF_AWS: dict[Wire, Callable[[Response], Answer]] = {
    "bedrock": bedrock.explain,
    "bedrock_invoke": bedrock_invoke.explain,
    "sagemaker": sagemaker.explain,
}
_PATHS: tuple[tuple[str, Wire], ...] = (
    ("/chat/completions", "openai"),
    ("/completions", "openai"),
    ("/messages", "anthropic"),
    ("/v2/chat", "cohere"),
    ("/v1/chat", "cohere"),
    ("/api/chat", "ollama"),
    ("/api/generate", "ollama"),
    (":streamGenerateContent", "gemini"),
    ("/converse-stream", "bedrock"),
    ("/invoke-with-response-stream", "bedrock_invoke"),
    ("/invocations-response-stream", "sagemaker"),
)
"""Ends of paths that stand for a wire, whatever an answer holds: heartbeats of one look like events of another."""
_LIKELY_PATHS: tuple[tuple[str, Wire], ...] = ((":streamRawPredict", "anthropic"),)
"""The same where an answer does not tell: it failed, or said nothing."""
_ANTHROPIC = frozenset({"message_start", "message", "content_block_start", "content_block_delta"})
_LOOKED_AT = 20
"""Payloads looked at before a wire counts as unknown."""


def recognise(path: str, response: Response) -> Wire | None:
    """The wire of a response, by its path or by what it holds; None where no decoder of ours knows it."""
    known = next((wire for end, wire in _PATHS if path.endswith(end)), None)
    if known is not None or "eventstream" in response.headers.get("content-type", ""):
        return known
    told = Counter(wire for tree in _trees(response) if (wire := _of(tree)))
    likely = next((wire for end, wire in _LIKELY_PATHS if path.endswith(end)), None)
    return told.most_common(1)[0][0] if told else likely


def explain(wire: Wire, response: Response) -> Answer:
    """What the response means in that wire."""
    of_aws = _OF_AWS.get(wire)
    return of_aws(response) if of_aws else decoding.decode(response, _READ[wire])


def _trees(response: Response) -> Iterator[dict[str, object]]:
    try:
        for payload in islice(payloads(response), _LOOKED_AT):
            if isinstance(payload.tree, dict):
                yield payload.tree
    except NotJson:
        return


def _of(tree: dict[str, object]) -> Wire | None:
    choices = tree.get("choices")
    first = choices[0] if isinstance(choices, list) and choices else None
    if choices == [] or (isinstance(first, dict) and first.keys() & {"delta", "message", "text"}):
        return "openai"
    if as_text(tree.get("type")) in _ANTHROPIC:
        return "anthropic"
    if cohere.speaks(tree):
        return "cohere"
    if "done" in tree and ("message" in tree or "response" in tree):
        return "ollama"
    if "candidates" in tree or "usageMetadata" in tree:
        return "gemini"
    return None
