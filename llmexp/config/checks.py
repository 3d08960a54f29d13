"""Checks across keys, each a line with the key, the value and what to do."""

from __future__ import annotations

import re
from collections.abc import Iterator

from llmexp.config.addresses import base_url_problems, url_problems
from llmexp.config.schema import Config, Judge, Model, Tokens, Workload


def problems(config: Config) -> Iterator[str]:
    """What does not fit together."""
    yield from _check_model(config.model)
    yield from _check_gpus(config.model)
    yield from _check_workload(config.workload)
    yield from _check_load(config)
    yield from _check_run(config)
    yield from _check_quality(config)


def _check_model(model: Model) -> Iterator[str]:
    if model.base_url is not None:
        yield from base_url_problems("model.base_url", model.base_url)
    if model.base_url is not None and model.deployment.kind == "served":
        yield (
            f"model.base_url: follows from the port of the server that the job starts, got '{model.base_url}'; set "
            "null, or model=openai_compatible to call a server that runs by itself"
        )
    if model.metrics_url not in (None, "none"):
        yield from url_problems("model.metrics_url", model.metrics_url, "http://127.0.0.1:8000/metrics, or none")
    takes_marks = model.api in ("anthropic", "bedrock") or (model.provider or "").startswith(("anthropic", "bedrock"))
    if model.cache_points and not takes_marks:
        yield (
            f"model.cache_points: only Anthropic and Bedrock are told what to cache, got {list(model.cache_points)} "
            f"with api={model.api}; other servers cache by themselves: leave it empty"
        )
    if model.api == "litellm" and not model.provider:
        yield "model.provider: api=litellm needs LiteLLM's prefix, such as openai or bedrock/converse"


def _check_gpus(model: Model) -> Iterator[str]:
    if model.gpu_metrics not in (None, "none", "nvml"):
        yield from url_problems(
            "model.gpu_metrics", model.gpu_metrics, "http://127.0.0.1:9400/metrics, or nvml, or none"
        )
    if model.gpus == []:
        yield "model.gpus: must name a GPU; null means all"


def _check_workload(workload: Workload) -> Iterator[str]:
    if workload.kind == "mix" and not workload.parts:
        yield "workload.parts: a mix needs at least one part"
    if workload.kind in ("file", "sessions") and not workload.file:
        yield f"workload.file: kind '{workload.kind}' needs a path"
    made_up = ("synthetic", "images", "arithmetic", "lookup", "format")
    if workload.kind in made_up or (workload.kind == "conversation" and not workload.file):
        yield from _check_tokens("workload.input_tokens", workload.input_tokens)
        yield from _check_tokens("workload.output_tokens", workload.output_tokens)
    mean = workload.input_tokens.mean
    if workload.kind == "synthetic" and workload.prefix_tokens and mean is not None and workload.prefix_tokens >= mean:
        yield (
            f"workload.prefix_tokens: is part of the input, so it must be less than workload.input_tokens.mean "
            f"({mean:g}), got {workload.prefix_tokens}"
        )


def _check_tokens(key: str, tokens: Tokens) -> Iterator[str]:
    if tokens.dist == "uniform":
        if tokens.min is None or tokens.max is None:
            yield f"{key}: a uniform distribution needs min and max"
    elif tokens.dist == "empirical":
        if not tokens.file:
            yield f"{key}.file: an empirical distribution needs a file of counts"
    elif tokens.mean is None:
        given = f" (stddev is {tokens.stddev:g})" if tokens.stddev is not None else ""
        yield f"{key}.mean: must be given{given}"
    if tokens.min is not None and tokens.max is not None and tokens.min > tokens.max:
        yield f"{key}.min: must be at most max, got {tokens.min} > {tokens.max}"
    elif tokens.mean is not None and not (tokens.min or 1) <= tokens.mean <= (tokens.max or tokens.mean):
        above = "" if tokens.max is None else f" and at most max ({tokens.max})"
        yield f"{key}.mean: must be at least {tokens.min or 1}{above}, got {tokens.mean:g}"


def _check_load(config: Config) -> Iterator[str]:
    load = config.load
    if load.kind in ("constant", "poisson", "burst") and load.rate is None and not config.capacity.enabled:
        yield f"load.rate: load={load.kind} needs requests per second, such as load.rate=5"
    if load.kind == "closed" and load.rate is not None:
        yield f"load.rate: load=closed has no rate, got {load.rate:g}; use load=constant or load=poisson"
    if load.kind == "burst" and load.burstiness is None:
        yield "load.burstiness: load=burst needs a gamma shape, such as load.burstiness=0.25"
    if load.kind == "ramp" and (load.from_ is None or load.to is None):
        yield "load.from: load=ramp needs load.from and load.to"
    if load.kind == "replay" and not load.file:
        yield "load.file: load=replay needs a trace file"


def _check_run(config: Config) -> Iterator[str]:
    if config.tracking.uri is not None and config.tracking.uri.startswith(("http:", "https:")):
        yield from url_problems("tracking.uri", config.tracking.uri, "http://127.0.0.1:5000")
    if config.capacity.enabled and not config.slo.asked:
        yield "slo: the capacity search needs a threshold, such as slo.ttft_s=0.5"
    if config.slo.enforce and not config.slo.asked:
        yield "slo.enforce: there is no threshold to enforce; set slo.ttft_s, for example"
    if config.ray.kind == "cluster" and not config.ray.address:
        yield "ray.address: ray=cluster needs the cluster's address, such as auto"
    elif config.ray.kind == "cluster" and config.ray.address != "auto" and not _has_port(config.ray.address or ""):
        yield f"ray.address: must be HOST:PORT of the cluster's head, or auto, got '{config.ray.address}'"
    if config.run.rerun_invalid and not config.run.resume:
        yield "run.rerun_invalid: goes with run.resume"


def _has_port(address: str) -> bool:
    host, _, port = address.rpartition(":")
    return bool(host) and port.isdecimal() and 1 <= int(port) <= 65535


_NEEDS = {
    "regex": ("pattern", "a regular expression, such as quality.pattern='answer: (.+)'"),
    "function": ("function", "a function of yours, such as quality.function=package.module:name"),
}


def _check_quality(config: Config) -> Iterator[str]:
    quality = config.quality
    if not quality.graded:
        if config.slo.right_share is not None:
            yield "slo.right_share: no answer is graded; choose how, such as quality=number"
        return
    if config.workload.force_output:
        yield (
            "workload.force_output: true makes the model write on past its answer's end, which spoils what is graded; "
            "set workload.force_output=false, or quality=none"
        )
    if quality.kind in _NEEDS:
        key, remedy = _NEEDS[quality.kind]
        if not getattr(quality, key):
            yield f"quality.{key}: quality={quality.kind} needs {remedy}"
    yield from _check_pattern("quality.pattern", quality.pattern, groups=False)
    if quality.kind == "judge":
        yield from _check_judge(quality.judge)


def _check_judge(judge: Judge) -> Iterator[str]:
    count = len(judge.models)
    if not count:
        yield "quality.judge.model: quality=judge needs an option of conf/model, such as quality.judge.model=sonnet"
    elif count % 2 == 0:
        yield f"quality.judge.model: judges vote, so their number must be odd, got {count}"
    if "{answer}" not in judge.rubric:
        yield "quality.judge.rubric: must hold {answer}, else the judge does not see what it grades"
    yield from _check_pattern("quality.judge.answer", judge.answer, groups=True)


def _check_pattern(key: str, pattern: str | None, *, groups: bool) -> Iterator[str]:
    if pattern is None:
        return
    try:
        compiled = re.compile(pattern)
    except (re.error, OverflowError, RecursionError) as error:
        yield f"{key}: must be a regular expression ({error}), got '{pattern}'"
        return
    if groups and not compiled.groups:
        yield f"{key}: must have a group, which is the grade, got '{pattern}'"
