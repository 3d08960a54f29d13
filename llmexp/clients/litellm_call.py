"""The arguments of a call to LiteLLM, and what it says when it cannot make one."""

from __future__ import annotations

import os
import re
from dataclasses import replace
from urllib.parse import urlsplit

from llmexp.clients import address, chat_openai, litellm_private, litellm_sdk
from llmexp.clients.base import HttpRequest, Target
from llmexp.clients.litellm_private import Sent
from llmexp.config import Model
from llmexp.json_types import branch
from llmexp.workload.request import Request

AWS = frozenset({"bedrock", "sagemaker", "sagemaker_chat", "sagemaker_nova"})
"""Families whose requests we sign and direct ourselves."""
FORCES_OUTPUT = frozenset(
    {"hosted_vllm", "vllm", "openai", "custom_openai", "litellm_proxy", "lm_studio", "llamafile", "sagemaker_chat"}
)
"""Providers behind which a server may know ignore_eos and min_tokens."""
OWN_PATHS = frozenset({"gemini", "vertex_ai", "vertex_ai_beta", "anthropic"})
"""Providers that keep the path of their public API when a base URL redirects them."""
NEEDS_BASE_URL: dict[str, tuple[str, ...]] = {
    "hosted_vllm": ("HOSTED_VLLM_API_BASE",),
    "litellm_proxy": ("LITELLM_PROXY_API_BASE",),
    "lm_studio": ("LM_STUDIO_API_BASE",),
    "custom_openai": (),
    "aiohttp_openai": (),
    "azure": ("AZURE_API_BASE", "AZURE_OPENAI_ENDPOINT"),
    "databricks": ("DATABRICKS_API_BASE",),
}
"""Providers without a public address (LiteLLM would turn to api.openai.com for some), and the variables for it."""
CLOUD_TOKENS = frozenset({"vertex_ai", "vertex_ai_beta", "databricks", "azure"})
"""Providers for which LiteLLM may fetch a token by itself."""
MORE_ATTEMPTS = frozenset(
    (
        *("num_retries", "max_retries", "retry_policy", "retry_strategy", "fallbacks", "context_window_fallback_dict"),
        *("context_window_fallbacks", "content_policy_fallbacks", "model_list"),
    )
)
"""Parameters by which LiteLLM would send a request again, or to another model."""
_KEY_HEADERS = ("authorization", "x-api-key", "api-key", "x-goog-api-key")
_VERSION_AT_START, _VERSION_AT_END = re.compile(r"^/v\d\w*(?=/)"), re.compile(r"/v\d\w*$")
_PLACEHOLDER = "none"


class Caller:
    """Builds LiteLLM's arguments for one model."""

    def __init__(self, model: Model, base_url: str | None, region: str | None) -> None:
        self._model = model
        self._base_url = base_url or model.base_url
        self._family = (model.provider or "").split("/")[0]
        self._local = self._base_url is not None and _is_loopback(self._base_url)
        self._forgone: set[str] = set()
        if self._local and self._family.startswith("vertex_ai"):
            litellm_sdk.load()
            litellm_private.stand_in_for_google()
        self._fixed = self._address() | self._headers() | self._region(region)
        self._params = {key: value for key, value in model.params.items() if value is not None}

    @property
    def fetches_token(self) -> bool:
        """Whether LiteLLM finds its credentials by itself (a cloud's token), which then expire."""
        return self._family in CLOUD_TOKENS and self._model.api_key_env is None and not self._local

    @property
    def redirect(self) -> Target | None:
        """Where to instead of the public API, for providers that keep its path."""
        moved = self._base_url is not None and self._family in OWN_PATHS
        return address.target(self._base_url) if moved and self._base_url else None

    def call(self, request: Request) -> dict[str, object]:
        """One attempt, streamed, with usage."""
        arguments: dict[str, object] = {
            "model": f"{self._model.provider}/{self._model.name}",
            "max_tokens": request.max_tokens,
            "stream": True,
            "num_retries": 0,
            "max_retries": 0,
            "stream_options": {"include_usage": True},
        }
        for name in self._forgone:
            del arguments[name]
        if self._model.route == "completions":
            arguments["prompt"] = chat_openai.text_alone(request)
        else:
            arguments["messages"] = chat_openai.marked(request, self._model.cache_points)
            if request.tools:
                arguments["tools"] = chat_openai.marked_tools(request.tools, self._model.cache_points)
        return arguments | self._fixed | self._params | self._forced(request)

    def forgo(self, error: Exception) -> bool:
        """Whether to ask again without an argument of ours that this provider refuses (a retry count, usage)."""
        refused = litellm_private.refused_arguments(error) - self._forgone
        self._forgone |= refused
        return bool(refused)

    def redirected(self, http: HttpRequest) -> HttpRequest:
        """Under the base URL's path, for providers that keep the path of their public API."""
        if self._family not in OWN_PATHS or self._base_url is None:
            return http
        prefix, path = urlsplit(self._base_url).path.rstrip("/"), http.path
        if _VERSION_AT_END.search(prefix):
            path = _VERSION_AT_START.sub("", path)
        return replace(http, path=prefix + path)

    def explain(self, error: Exception) -> str:
        """LiteLLM's refusal to make a request, as a line about the configuration."""
        model, said = self._model, litellm_private.first_line(error)
        if litellm_private.is_unknown_provider(error):
            return (
                f"model.provider: LiteLLM {litellm_sdk.version()} has no chat models of a provider '{model.provider}'; "
                "see https://docs.litellm.ai/docs/providers"
            )
        if litellm_private.is_unsupported_params(error):
            return f"model.params: LiteLLM refuses them for {model.provider}/{model.name}: {said}"
        variable = litellm_private.key_variable(error)
        if variable is not None:
            return _needs_key(model, variable)
        if litellm_private.is_without_google(error):
            return (
                "model: no Google Cloud credentials; run `gcloud auth application-default login`, or export "
                "GOOGLE_APPLICATION_CREDENTIALS with the path of a key file"
            )
        return f"model: LiteLLM cannot make a request for {model.provider}/{model.name}: {said}"

    def missing_key(self, request: Sent) -> str | None:
        """What is wrong with a request that LiteLLM made without the key its provider wants."""
        model = self._model
        if model.api_key_env or self._base_url or self._family in AWS | CLOUD_TOKENS:
            return None
        if any(name in request.headers for name in _KEY_HEADERS):
            return None
        keys = litellm_private.missing_keys(litellm_sdk.load(), f"{model.provider}/{model.name}")
        return _needs_key(model, keys[0]) if keys else None

    # --- parts -----------------------------------------------------------------------------------------------------

    def _address(self) -> dict[str, object]:
        """Where to, and with which key; servers of one's own need none, LiteLLM does."""
        key = address.api_key(self._model)
        if self._family in AWS:
            return {"api_key": key} if key else {}
        if key is None and self._base_url is not None and not self.fetches_token:
            key = _PLACEHOLDER
        parts: dict[str, object] = {"api_key": key} if key else {}
        if self._base_url is not None and self._family not in OWN_PATHS:
            parts["api_base"] = self._base_url
        return parts

    def _headers(self) -> dict[str, object]:
        headers = address.headers(self._model, {})
        return {"extra_headers": dict(headers)} if headers else {}

    def _region(self, region: str | None) -> dict[str, object]:
        """Placeholder keys keep LiteLLM from walking AWS's credential chain; its signature is dropped anyway."""
        if region is None:
            return {}
        return {
            "aws_region_name": region,
            "aws_access_key_id": _PLACEHOLDER,
            "aws_secret_access_key": _PLACEHOLDER,
        }

    def _forced(self, request: Request) -> dict[str, object]:
        known = self._family in FORCES_OUTPUT and (self._family != "openai" or self._base_url is not None)
        if not request.force_output or not known:
            return {}
        own = branch(self._params, "extra_body")
        return {"extra_body": {**own, "ignore_eos": True, "min_tokens": request.max_tokens}}


def problems(model: Model, base_url: str | None = None) -> list[str]:
    """What the configuration alone shows to be wrong; LiteLLM is not asked."""
    family = (model.provider or "").split("/")[0]
    found = []
    variables = NEEDS_BASE_URL.get(family)
    if variables is not None and not (base_url or model.base_url or any(map(os.environ.get, variables))):
        remedy = "".join(f", or export {name}" for name in variables[:1])
        found.append(f"model.base_url: provider '{family}' has no public address; set it to the server's URL{remedy}")
    found += [
        f"model.params.{key}: each request is one attempt, so that what it took and cost is known; leave it out"
        for key, value in model.params.items()
        if key in MORE_ATTEMPTS and value
    ]
    if family in AWS:
        found += [
            f"model.params.{key}: AWS settings go into model.region, model.profile or the AWS configuration"
            for key in model.params
            if key.startswith("aws_") or key == "sagemaker_base_url"
        ]
    return found


def _needs_key(model: Model, variable: str) -> str:
    return (
        f"model.api_key_env: LiteLLM needs a key for {model.provider}; "
        f"export {variable} and set model.api_key_env={variable}"
    )


def _is_loopback(url: str) -> bool:
    return urlsplit(url).hostname in ("127.0.0.1", "localhost", "::1")
