"""Which of our decoders reads an answer to a request that LiteLLM prepared."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import islice
from typing import Any, Literal

from llmexp.clients import anthropic, bedrock, decoding, gemini, openai, sagemaker
from llmexp.clients.base import Answer, Response

Wire = Literal["openai", "anthropic", "gemini", "bedrock", "sagemaker"]
_FOLDS: dict[Wire, decoding.Fold] = {"openai": openai.fold, "anthropic": anthropic.fold, "gemini": gemini.fold}
_ANTHROPIC = frozenset({"message_start", "message", "ping", "content_block_start", "content_block_delta"})
_LOOKED_AT = 5
"""Payloads looked at before a wire counts as unknown."""


def recognise(path: str, response: Response) -> Wire | None:
    """The wire of a response, by its path (AWS) or by what it holds; None where no decoder of ours knows it."""
    if path.endswith("/converse-stream"):
        return "bedrock"
    if path.endswith("/invocations-response-stream"):
        return "sagemaker"
    if "eventstream" in response.headers.get("content-type", ""):
        return None
    return next((wire for tree in _trees(response) if (wire := _of(tree))), None)


def explain(wire: Wire, response: Response) -> Answer:
    """What the response means in that wire."""
    if wire == "bedrock":
        return bedrock.explain(response)
    if wire == "sagemaker":
        return sagemaker.explain(response)
    return decoding.decode(response, _FOLDS[wire])


def _trees(response: Response) -> Iterator[dict[str, Any]]:
    try:
        for payload in islice(decoding.payloads(response), _LOOKED_AT):
            if isinstance(payload.tree, dict):
                yield payload.tree
    except decoding.NotJson:
        return


def _of(tree: dict[str, Any]) -> Wire | None:
    choices = tree.get("choices")
    if isinstance(choices, list) and (not choices or choices[0].keys() & {"delta", "message", "text"}):
        return "openai"
    if tree.get("type") in _ANTHROPIC:
        return "anthropic"
    if "candidates" in tree or "usageMetadata" in tree:
        return "gemini"
    return None
