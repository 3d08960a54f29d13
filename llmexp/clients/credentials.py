"""What a model lacks before anything may be sent: variables that are not set, AWS credentials, what LiteLLM wants."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping

from llmexp import secrets
from llmexp.config import Model
from llmexp.errors import ConfigError
from llmexp.json_types import branch


def problems(model: Model, environ: Mapping[str, str] | None = None) -> list[str]:
    """A line for each thing that is missing; empty when the model can be called as far as one can tell from here."""
    found = list(_variables(model, os.environ if environ is None else environ))
    if found:
        return found
    if _on_aws(model):
        return _aws(model)
    return _litellm(model) if model.api == "litellm" else []


def region_problems(model: Model) -> list[str]:
    """What does not fit about the model's AWS region; empty where it is not on AWS, or cannot be told."""
    if not _on_aws(model) or model.base_url is not None:
        return []
    from llmexp.clients import aws_credentials

    return aws_credentials.region_problems(model)


def _variables(model: Model, environ: Mapping[str, str]) -> Iterator[str]:
    named = {f"model.headers_env.{header}": name for header, name in model.headers_env.items()}
    if model.api_key_env is not None:
        named["model.api_key_env"] = model.api_key_env
    for key, name in named.items():
        secrets.register(environ.get(name, "").strip())
        if not environ.get(name, "").strip():
            state = "empty" if name in environ else "not set"
            yield f"{key}: environment variable {name} is {state}; export it, or set {key} to the one that holds it"


def _on_aws(model: Model) -> bool:
    if model.api == "litellm":
        from llmexp.clients.litellm_call import AWS

        return (model.provider or "").split("/")[0] in AWS
    return model.api in ("bedrock", "sagemaker")


def _aws(model: Model) -> list[str]:
    from llmexp.clients import litellm_call
    from llmexp.clients.aws_credentials import credential_problems

    found = litellm_call.problems(model) if model.api == "litellm" else []
    return [*found, *([] if model.api_key_env else credential_problems(model))]


def _litellm(model: Model) -> list[str]:
    """LiteLLM is asked itself (seconds, the first time) only where the configuration does not tell."""
    from llmexp.clients import litellm_call

    found = litellm_call.problems(model)
    left_to_litellm = model.api_key_env is None and model.base_url is None
    if found or not (left_to_litellm or _is_unheard_of(model)):
        return found
    from llmexp.clients.litellm import LiteLLMClient

    try:
        LiteLLMClient(model, None)
    except ConfigError as error:
        return str(error).splitlines()
    return []


def _is_unheard_of(model: Model) -> bool:
    """Whether LiteLLM's packaged lists do not name the provider; they lack some that it does know."""
    from llmexp import litellm_package

    listed = litellm_package.content("provider_endpoints_support_backup.json")
    return (model.provider or "").split("/")[0] not in branch(listed, "providers")
