"""Clients: what turns requests into bytes and tapes into answers, one module an API."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, cast

if TYPE_CHECKING:
    from llmexp.clients.base import Client
    from llmexp.config import Model

_CLASSES = {
    "openai": ("llmexp.clients.openai", "OpenAIClient"),
    "anthropic": ("llmexp.clients.anthropic", "AnthropicClient"),
    "bedrock": ("llmexp.clients.bedrock", "BedrockClient"),
    "sagemaker": ("llmexp.clients.sagemaker", "SageMakerClient"),
    "litellm": ("llmexp.clients.litellm", "LiteLLMClient"),
}


def build(model: Model, base_url: str | None = None) -> Client:
    """The client of `model.api`; imports only what that API needs.

    `base_url` redirects it (an endpoint that the job started); None leaves the model's own. Raises `ConfigError` where
    a credential is missing.
    """
    module, name = _CLASSES[model.api]
    return cast("Client", getattr(import_module(module), name)(model, base_url))
