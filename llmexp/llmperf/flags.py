"""LLMPerf's flags → the configuration of one job. Light: `--help` must answer at once.

`config_from_flags` and `correctness_config` are pure: flags and environment variables in, a mapping for `config.load`
out. The environment gives addresses, regions and the *names* of key variables; no key is ever copied.
"""

from __future__ import annotations

import argparse
import json
import os
from collections.abc import Mapping

from llmexp.errors import ConfigError
from llmexp.json_types import branch, number
from llmexp.plain_flags import Parser

APIS = ("openai", "anthropic", "litellm", "sagemaker", "vertexai")
OPENAI_BASE_URL = "https://api.openai.com/v1"
GRACE_S = 300.0
UNBOUNDED_USD = 1e9
CORRECTNESS_MAX_TOKENS = 256
REFUSED = {
    "vertexai": "--llm-api vertexai: not served by a wire of its own; use --llm-api litellm --model vertex_ai/MODEL"
}
FLAG_OF_KEY = {
    "model.name": "--model",
    "model.provider": "--model",
    "model.params": "--additional-sampling-params",
    "workload.input_tokens.mean": "--mean-input-tokens",
    "workload.input_tokens.stddev": "--stddev-input-tokens",
    "workload.output_tokens.mean": "--mean-output-tokens",
    "workload.output_tokens.stddev": "--stddev-output-tokens",
    "concurrency": "--num-concurrent-requests",
    "run.timeout_s": "--timeout",
    "run.max_requests": "--max-num-completed-requests",
}
"""What a message about a config key is called on this command line."""
PROVIDERS_OF_BARE_NAMES = {
    "gpt-": "openai",
    "chatgpt-": "openai",
    "o1": "openai",
    "o3": "openai",
    "o4": "openai",
    "claude-": "anthropic",
    "gemini-": "gemini",
    "mistral-": "mistral",
    "command": "cohere",
    "deepseek-": "deepseek",
    "grok-": "xai",
}
KEY_VARIABLES = {
    "together_ai": ("TOGETHERAI_API_KEY", "TOGETHER_AI_API_KEY", "TOGETHER_API_KEY"),
    "gemini": ("GEMINI_API_KEY", "GOOGLE_API_KEY"),
    "huggingface": ("HUGGINGFACE_API_KEY", "HF_TOKEN"),
    "cohere_chat": ("COHERE_API_KEY",),
    "text-completion-openai": ("OPENAI_API_KEY",),
}
BASE_VARIABLES = {
    "openai": ("OPENAI_API_BASE", "OPENAI_BASE_URL"),
    "text-completion-openai": ("OPENAI_API_BASE", "OPENAI_BASE_URL"),
    "bedrock": ("AWS_BEDROCK_RUNTIME_ENDPOINT",),
    "sagemaker": (),
}
AWS = ("bedrock", "sagemaker", "sagemaker_chat")


# --- the flags -------------------------------------------------------------------------------------------------------


def benchmark_parser() -> argparse.ArgumentParser:
    """The flags of token_benchmark_ray.py."""
    parser = Parser(description="Measure a model's token throughput and latency, with LLMPerf's flags.")
    parser.add_argument("--model", required=True, help="the model, as the API takes it")
    parser.add_argument("--mean-input-tokens", type=int, default=550, help="mean prompt length (default: %(default)s)")
    parser.add_argument("--stddev-input-tokens", type=int, default=150, help="its spread (default: %(default)s)")
    parser.add_argument(
        "--mean-output-tokens",
        type=int,
        default=150,
        help="mean of max_tokens, which is also the length that the prompt asks for (default: %(default)s)",
    )
    parser.add_argument("--stddev-output-tokens", type=int, default=80, help="its spread (default: %(default)s)")
    _shared(parser, max_requests=10)
    return parser


def correctness_parser() -> argparse.ArgumentParser:
    """The flags of llm_correctness.py."""
    parser = Parser(description="Ask a model for numbers in digits and check them, with LLMPerf's flags.")
    parser.add_argument("--model", required=True, help="the model, as the API takes it")
    _shared(parser, max_requests=50)
    return parser


def _shared(parser: argparse.ArgumentParser, max_requests: int) -> None:
    add = parser.add_argument
    add("--num-concurrent-requests", type=int, default=10, help="requests in flight (default: %(default)s)")
    add("--timeout", type=float, default=90, help="seconds after which nothing new is sent (default: %(default)s)")
    add(
        "--max-num-completed-requests",
        type=int,
        default=max_requests,
        help="requests sent, exactly (default: %(default)s)",
    )
    add("--additional-sampling-params", default="{}", help="JSON object that is added to each request")
    add("--results-dir", default="", help="where LLMPerf's two files go; empty: nothing is written")
    add("--llm-api", default="openai", choices=APIS, help="how the model is reached (default: %(default)s)")
    add("--metadata", default="", help="k=v,k=v: added to the summary")


def metadata_of(text: str) -> dict[str, str]:
    """`a=1,b=2` as a mapping; LLMPerf's files carry it."""
    from llmexp.config import credentials

    pairs = [pair.partition("=") for pair in text.split(",") if pair.strip()]
    for key, sign, _ in pairs:
        if not sign or not key.strip():
            raise ConfigError(f"--metadata: must be k=v,k=v, got '{text}'")
    if problems := credentials.problems({"--metadata": {key.strip(): value for key, _, value in pairs}}, os.environ):
        raise ConfigError("\n".join(problems))
    return {key.strip(): value for key, _, value in pairs}


def sampling_params_of(text: str) -> dict[str, object]:
    """The JSON object of --additional-sampling-params."""
    try:
        params = json.loads(text or "{}")
    except ValueError as error:
        raise ConfigError(f"--additional-sampling-params: must be JSON ({error}), got '{text}'") from None
    if not isinstance(params, dict):
        raise ConfigError(f"--additional-sampling-params: must be a JSON object, got '{text}'")
    return params


# --- the config ------------------------------------------------------------------------------------------------------


def config_from_flags(args: argparse.Namespace, environ: Mapping[str, str]) -> dict[str, object]:
    """The job that token_benchmark_ray.py's flags ask for, as a mapping for `config.load`."""
    return {
        **_job(args, environ, sampling_params_of(args.additional_sampling_params)),
        "workload": {
            "input_tokens": _tokens(args.mean_input_tokens, args.stddev_input_tokens),
            "output_tokens": _tokens(args.mean_output_tokens, args.stddev_output_tokens),
        },
    }


def correctness_config(args: argparse.Namespace, environ: Mapping[str, str]) -> dict[str, object]:
    """The job that llm_correctness.py's flags ask for; its requests are its own, so the workload only states sizes."""
    params = {"temperature": 0.0, **sampling_params_of(args.additional_sampling_params)}
    tree = _job(args, environ, params)
    tree["workload"] = {"input_tokens": _tokens(40, 0), "output_tokens": _tokens(correctness_max_tokens(params), 0)}
    return {**tree, "run": {**branch(tree, "run"), "save_text": True}}


def correctness_max_tokens(params: Mapping[str, object]) -> int:
    """The limit of an answer: the user's own, else enough for a number and some words around it."""
    return int(number(params, "max_tokens") or CORRECTNESS_MAX_TOKENS)


def _job(args: argparse.Namespace, environ: Mapping[str, str], params: dict[str, object]) -> dict[str, object]:
    """What both command lines share. Nothing is sent beyond what the flags ask for: there is no warm-up."""
    return {
        "model": {**_model(args.llm_api, args.model, environ), "params": params},
        "concurrency": args.num_concurrent_requests,
        "load": {"kind": "closed"},
        "run": {
            "max_requests": args.max_num_completed_requests,
            "timeout_s": float(args.timeout),
            "grace_s": GRACE_S,
            "warmup_requests": 0,
            "max_error_rate": 1.0,
            "max_usd": UNBOUNDED_USD,
        },
        "tracking": {"kind": "mlflow" if environ.get("MLFLOW_TRACKING_URI") else "none"},
    }


def _tokens(mean: int, stddev: int) -> dict[str, object]:
    return {"dist": "normal", "mean": float(mean), "stddev": float(stddev)}


def _model(api: str, name: str, environ: Mapping[str, str]) -> dict[str, object]:
    if api in REFUSED:
        raise ConfigError(REFUSED[api])
    if api == "litellm":
        return _through_litellm(name, environ)
    if api == "sagemaker":
        deployment = {"kind": "sagemaker", "describe": False, "cloudwatch": False}
        return _without_nulls({"name": name, "api": api, "region": _region(environ), "deployment": deployment})
    if api == "anthropic":
        base_url = _first(environ, ("ANTHROPIC_API_BASE", "ANTHROPIC_BASE_URL"))
        return _without_nulls({"name": name, "api": api, "base_url": base_url, "api_key_env": "ANTHROPIC_API_KEY"})
    return _openai(name, environ)


def _openai(name: str, environ: Mapping[str, str]) -> dict[str, object]:
    """A server of one's own may need no key; OpenAI does."""
    base_url = _first(environ, ("OPENAI_API_BASE", "OPENAI_BASE_URL"))
    key = "OPENAI_API_KEY" if base_url is None or environ.get("OPENAI_API_KEY") else None
    return _without_nulls({"name": name, "api": "openai", "base_url": base_url or OPENAI_BASE_URL, "api_key_env": key})


def _through_litellm(name: str, environ: Mapping[str, str]) -> dict[str, object]:
    provider, rest = _split(name)
    family = provider.partition("/")[0]
    return _without_nulls(
        {
            "name": rest,
            "api": "litellm",
            "provider": provider,
            "base_url": _first(environ, BASE_VARIABLES.get(family, (f"{_upper(family)}_API_BASE",))),
            "api_key_env": None if family in AWS else _named(environ, _key_variables(family)),
            "region": _region(environ) if family in AWS else None,
        }
    )


def _split(name: str) -> tuple[str, str]:
    """LiteLLM's model string as provider and name; some names are known without a provider."""
    if "/" in name:
        provider, _, rest = name.partition("/")
        for route in ("converse", "invoke", "converse_like"):
            if provider == "bedrock" and rest.startswith(f"{route}/"):
                return f"bedrock/{route}", rest.removeprefix(f"{route}/")
        return provider, rest
    for start, provider in PROVIDERS_OF_BARE_NAMES.items():
        if name.startswith(start):
            return provider, name
    raise ConfigError(f"--model: LiteLLM needs the provider before the name, as in openai/{name}; got '{name}'")


def _key_variables(family: str) -> tuple[str, ...]:
    return KEY_VARIABLES.get(family, (f"{_upper(family)}_API_KEY",))


def _upper(family: str) -> str:
    return family.upper().replace("-", "_")


def _region(environ: Mapping[str, str]) -> str | None:
    return _first(environ, ("AWS_REGION_NAME", "AWS_REGION", "AWS_DEFAULT_REGION"))


def _named(environ: Mapping[str, str], names: tuple[str, ...]) -> str | None:
    """The first of these variables that is set."""
    return next((name for name in names if environ.get(name)), None)


def _first(environ: Mapping[str, str], names: tuple[str, ...]) -> str | None:
    """The value of the first of these variables that is set."""
    name = _named(environ, names)
    return None if name is None else environ[name]


def _without_nulls(tree: dict[str, object]) -> dict[str, object]:
    return {key: value for key, value in tree.items() if value is not None}
