"""Keys that were set and have no effect with what was chosen: each with the choice that makes it count.

A command that set such a key would run, and measure something else than was meant.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import NamedTuple

from pydantic import BaseModel

from llmexp.config.schema import Capacity, Config, Load, Model, Quality, Ray, Slo, Workload


class _Rule(NamedTuple):
    """Keys of one part of the configuration, and when they count."""

    part: str
    keys: tuple[str, ...]
    counts: Callable[[Config], bool]
    chosen: Callable[[Config], str]
    remedy: str


def _load(config: Config) -> str:
    return f"load={config.load.kind}"


def _workload(config: Config) -> str:
    return f"a workload of kind '{config.workload.kind}'"


def _quality(config: Config) -> str:
    return f"quality={config.quality.kind}"


def _api(config: Config) -> str:
    return f"api={config.model.api}"


def _on_aws(config: Config) -> bool:
    """Whether AWS serves it, by whatever path; LiteLLM's other providers have regions too."""
    model = config.model
    return model.api in ("bedrock", "sagemaker", "litellm") or model.deployment.kind in ("bedrock", "sagemaker")


def _loads(keys: str, kinds: str, remedy: str) -> _Rule:
    return _Rule("load", tuple(keys.split()), lambda config: config.load.kind in kinds.split(), _load, remedy)


def _workloads(keys: str, kinds: str, remedy: str) -> _Rule:
    return _Rule(
        "workload", tuple(keys.split()), lambda config: config.workload.kind in kinds.split(), _workload, remedy
    )


def _qualities(keys: str, kinds: str, remedy: str) -> _Rule:
    return _Rule("quality", tuple(keys.split()), lambda config: config.quality.kind in kinds.split(), _quality, remedy)


_RULES = (
    _Rule("model", ("route",), lambda config: config.model.api in ("openai", "litellm"), _api, "api=openai"),
    _Rule("model", ("region", "profile"), _on_aws, _api, "a model on AWS"),
    _loads("rate", "constant poisson burst closed", "load=constant or load=poisson"),  # closed: told on its own
    _loads("burstiness", "burst", "load=burst"),
    _loads("of from_ to steps duration_s", "ramp", "load=ramp"),
    _loads("file time_unit speed", "replay", "load=replay"),
    _workloads("file", "file sessions conversation", "workload=file or workload=sessions"),
    _workloads("turns think_time_s", "conversation", "workload=multi_turn"),
    _workloads("history", "sessions", "workload=sessions"),
    _workloads("images", "images", "workload=images"),
    _workloads("difficulty", "arithmetic lookup format", "workload=arithmetic, lookup or format"),
    _workloads("prefix_tokens prefix_share prefix_count", "synthetic images", "workload=shared_prefix"),
    _workloads("parts", "mix", "workload=mix"),
    _qualities("tolerance", "number", "quality=number"),
    _qualities("pattern", "regex", "quality=regex"),
    _qualities("schema_", "json", "quality=json"),
    _qualities("function", "function", "quality=function"),
    _qualities("judge", "judge", "quality=judge"),
    _Rule("quality", ("threshold", "margin"), lambda config: config.quality.graded, _quality, "quality=exact, …"),
    _Rule(
        "slo",
        ("attainment",),
        lambda config: config.slo.asked,
        lambda _: "no threshold",
        "slo=chat, or slo.ttft_s=0.5",
    ),
    _Rule(
        "ray", ("address", "nodes"), lambda config: config.ray.kind == "cluster", lambda _: "ray=local", "ray=cluster"
    ),
    _Rule(
        "capacity",
        ("of", "start", "probe_s", "max_probes", "precision"),
        lambda config: config.capacity.enabled,
        lambda _: "no capacity search",
        "experiment=capacity",
    ),
)
_PARTS: dict[str, type[BaseModel]] = {
    "model": Model,
    "load": Load,
    "workload": Workload,
    "quality": Quality,
    "slo": Slo,
    "ray": Ray,
    "capacity": Capacity,
}


def problems(configs: Sequence[Config]) -> list[str]:
    """A line for each key that counts in none of a command's jobs."""
    if not configs:
        return []
    first, *rest = [dict(_unused(config)) for config in configs]
    return [said for key, said in first.items() if all(key in other for other in rest)]


def _unused(config: Config) -> Iterator[tuple[str, str]]:
    for rule in _RULES:
        if rule.counts(config):
            continue
        part, fields = getattr(config, rule.part), _PARTS[rule.part].model_fields
        for name in rule.keys:
            if getattr(part, name) != fields[name].default:
                key = f"{rule.part}.{fields[name].alias or name}"
                yield key, f"{key}: has no effect with {rule.chosen(config)}; choose {rule.remedy}"
