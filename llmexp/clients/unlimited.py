"""Whether `model.params` take the token limit away: then nobody knows beforehand what a request can cost.

Looked for in a body as it will be sent, because null takes a key away on most wires, and in what stands for "no limit"
there: -1 in llama.cpp and Ollama.
"""

from __future__ import annotations

from collections.abc import Mapping

from llmexp.clients import token_limits
from llmexp.config import Model
from llmexp.workload.request import Message, Request

_SAMPLE = Request(0, (Message("user", "x"),), 16, 1, "")


def reason(model: Model) -> str | None:
    """What lifts the limit, in words; None where each request has one."""
    found = list(token_limits.settings(_body(model)))
    for name, value in found:
        if token_limits.count(value) is None and value is not None:
            return f"{name}={value} is no limit"
    if not any(token_limits.count(value) for _, value in found):
        return "null leaves no limit of tokens"
    return None


def _body(model: Model) -> Mapping[str, object]:
    """What will be sent, as far as our own wires make it; LiteLLM leaves nulls out, and the limit is always named."""
    if model.api == "litellm":
        return {"max_tokens": _SAMPLE.max_tokens} | {key: one for key, one in model.params.items() if one is not None}
    if model.api == "bedrock":
        from llmexp.clients import bedrock

        return bedrock.converse_body(_SAMPLE, model.params)
    if model.api == "sagemaker":
        from llmexp.clients import sagemaker

        shape = sagemaker.deployment_of(model).payload
        return sagemaker.chat_body(model, _SAMPLE) if shape == "messages" else sagemaker.text_body(model, _SAMPLE)
    if model.api == "anthropic":
        from llmexp.clients import anthropic

        return anthropic.body(model, _SAMPLE)
    from llmexp.clients import openai

    return openai.body(model, _SAMPLE)
