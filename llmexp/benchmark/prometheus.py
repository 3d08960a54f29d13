"""Prometheus text as inference servers publish it, under names that all of them share.

| name | is |
| --- | --- |
| `running`, `waiting` | requests being served, requests in the queue |
| `kv_cache_usage` | share of the KV cache in use, 0 to 1 |
| `prefix_cache_hits`, `prefix_cache_queries` | tokens found in the prefix cache, of those looked up; counters |
| `prefix_cache_hit_rate` | the same as the server's own share, 0 to 1, where it has no counters |
| `input_tokens`, `output_tokens`, `requests` | counters since the server started |
| `preemptions` | requests put back because memory ran out; a counter |
| `ttft_sum_s`, `ttft_count` | time to first token, summed, and of how many requests |
| `queue_sum_s`, `queue_count` | waiting before the engine took a request, summed, and of how many requests |

A name that a server does not publish is absent.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import NamedTuple

_LINE = re.compile(
    r"""(?P<name>[A-Za-z_:][\w:]*)
        (?:\{(?P<labels>(?:[^"}]|"(?:[^"\\]|\\.)*")*)\})?
        \s+(?P<value>\S+)""",
    re.VERBOSE,
)
_LABEL = re.compile(r'(\w+)\s*=\s*"((?:[^"\\]|\\.)*)"')
_ESCAPE = re.compile(r"\\(.)")
_MODEL_LABELS = ("model_name", "model")
_SPECIFIC = re.compile(r"(?P<name>[^{]+)\{(?P<label>\w+)=(?P<value>[^}]+)\}")
"""A name that means one thing for one value of a label."""
_SHARES = frozenset({"kv_cache_usage", "prefix_cache_hit_rate"})
"""Not summed over a server's engines but averaged."""


class Sample(NamedTuple):
    """One line."""

    name: str
    labels: dict[str, str]
    value: float


@dataclass(frozen=True, slots=True)
class Engine:
    """How one server names what we read; of several names the first that is there counts."""

    name: str
    names: Mapping[str, tuple[str, ...]]
    input_without_cached: bool = False
    """Its `input_tokens` are those that were computed: what the prefix cache held is not among them."""
    inner: tuple[str, ...] = ()
    """How names begin that belong to a part of the model that is asked for, and carry that part's name."""

    @property
    def wanted(self) -> frozenset[str]:
        """Every name it may use."""
        return frozenset(name.partition("{")[0] for names in self.names.values() for name in names)


ENGINES = (
    Engine(
        "vllm",
        {
            "running": ("vllm:num_requests_running",),
            "waiting": ("vllm:num_requests_waiting",),
            "kv_cache_usage": ("vllm:kv_cache_usage_perc", "vllm:gpu_cache_usage_perc"),
            "prefix_cache_hits": (
                "vllm:prefix_cache_hits_total",
                "vllm:prefix_cache_hits",
                "vllm:gpu_prefix_cache_hits_total",
            ),
            "prefix_cache_queries": (
                "vllm:prefix_cache_queries_total",
                "vllm:prefix_cache_queries",
                "vllm:gpu_prefix_cache_queries_total",
            ),
            "prefix_cache_hit_rate": ("vllm:gpu_prefix_cache_hit_rate",),
            "input_tokens": ("vllm:prompt_tokens_total", "vllm:prompt_tokens"),
            "output_tokens": ("vllm:generation_tokens_total", "vllm:generation_tokens"),
            "requests": ("vllm:request_success_total", "vllm:request_success"),
            "preemptions": ("vllm:num_preemptions_total", "vllm:num_preemptions"),
            "queue_sum_s": ("vllm:request_queue_time_seconds_sum",),
            "queue_count": ("vllm:request_queue_time_seconds_count",),
            "ttft_sum_s": ("vllm:time_to_first_token_seconds_sum",),
            "ttft_count": ("vllm:time_to_first_token_seconds_count",),
        },
    ),
    Engine(
        "sglang",
        {
            "running": ("sglang:num_running_reqs",),
            "waiting": ("sglang:num_queue_reqs",),
            "kv_cache_usage": ("sglang:token_usage",),
            "prefix_cache_hits": ("sglang:cached_tokens_total",),
            "prefix_cache_queries": ("sglang:prompt_tokens_total",),
            "prefix_cache_hit_rate": ("sglang:cache_hit_rate",),
            "input_tokens": ("sglang:prompt_tokens_total",),
            "output_tokens": ("sglang:generation_tokens_total",),
            "requests": ("sglang:num_requests_total",),
            "preemptions": ("sglang:num_retracted_requests_total", "sglang:num_retracted_reqs_total"),
            "queue_sum_s": ("sglang:queue_time_seconds_sum",),
            "queue_count": ("sglang:queue_time_seconds_count",),
            "ttft_sum_s": ("sglang:time_to_first_token_seconds_sum",),
            "ttft_count": ("sglang:time_to_first_token_seconds_count",),
        },
    ),
    Engine(
        "tgi",
        {
            "running": ("tgi_batch_current_size",),
            "waiting": ("tgi_queue_size",),
            "input_tokens": ("tgi_request_input_length_sum",),
            "output_tokens": ("tgi_request_generated_tokens_sum",),
            "requests": ("tgi_request_success", "tgi_request_success_total"),
            "queue_sum_s": ("tgi_request_queue_duration_sum",),
            "queue_count": ("tgi_request_queue_duration_count",),
        },
    ),
    Engine(
        "llama.cpp",
        {
            "running": ("llamacpp:requests_processing",),
            "waiting": ("llamacpp:requests_deferred",),
            "kv_cache_usage": ("llamacpp:kv_cache_usage_ratio",),
            "input_tokens": ("llamacpp:prompt_tokens_total",),
            "output_tokens": ("llamacpp:tokens_predicted_total",),
        },
        input_without_cached=True,
    ),
    Engine(
        "tensorrt-llm",
        {
            "running": ("trtllm_num_requests_running", "trtllm:num_requests_running"),
            "waiting": ("trtllm_num_requests_waiting", "trtllm:num_requests_waiting"),
            "kv_cache_usage": ("trtllm_kv_cache_utilization", "trtllm:kv_cache_utilization"),
            "prefix_cache_hits": ("trtllm_prompt_cached_tokens_total",),
            "prefix_cache_queries": ("trtllm_prompt_tokens_total",),
            "prefix_cache_hit_rate": ("trtllm_kv_cache_hit_rate", "trtllm:kv_cache_hit_rate"),
            "input_tokens": ("trtllm_prompt_tokens_total",),
            "output_tokens": ("trtllm_generation_tokens_total",),
            "requests": (
                "trtllm_request_success_total",
                "trtllm:request_success_total",
                "trtllm_num_requests_completed_total",
            ),
            "ttft_sum_s": ("trtllm_time_to_first_token_seconds_sum", "trtllm:time_to_first_token_seconds_sum"),
            "ttft_count": ("trtllm_time_to_first_token_seconds_count", "trtllm:time_to_first_token_seconds_count"),
            "queue_sum_s": ("trtllm_request_queue_time_seconds_sum", "trtllm:request_queue_time_seconds_sum"),
            "queue_count": ("trtllm_request_queue_time_seconds_count", "trtllm:request_queue_time_seconds_count"),
        },
    ),
    Engine(
        "triton",
        {
            "running": ("nv_trt_llm_request_metrics{request_type=scheduled}",),
            "waiting": ("nv_trt_llm_request_metrics{request_type=waiting}", "nv_inference_pending_request_count"),
            "kv_cache_usage": ("nv_trt_llm_kv_cache_block_metrics{kv_cache_block_type=fraction}",),
            "input_tokens": ("nv_llm_input_token_len_sum",),
            "output_tokens": ("nv_llm_output_token_len_sum",),
            "requests": ("nv_inference_request_success",),
            "ttft_sum_s": ("nv_inference_first_response_histogram_ms_sum",),
            "ttft_count": ("nv_inference_first_response_histogram_ms_count",),
            "queue_sum_s": ("nv_inference_queue_duration_us",),
            "queue_count": ("nv_inference_request_success",),
        },
        inner=("nv_trt_llm_", "nv_llm_"),
    ),
    Engine(
        "dynamo",
        {
            "running": (
                "dynamo_frontend_inflight_requests",
                "dynamo_component_inflight_requests{dynamo_endpoint=generate}",
            ),
            "waiting": ("dynamo_frontend_queued_requests",),  # until the first token: prefill is inside
            "kv_cache_usage": (
                "dynamo_component_gpu_cache_usage_percent",
                "dynamo_component_kvstats_gpu_cache_usage_percent",
            ),
            "prefix_cache_hit_rate": (
                "dynamo_component_kv_cache_hit_rate",
                "dynamo_component_kvstats_gpu_prefix_cache_hit_rate",
            ),
            "prefix_cache_hits": ("dynamo_frontend_cached_tokens_sum",),
            "prefix_cache_queries": ("dynamo_frontend_input_sequence_tokens_sum",),
            "input_tokens": ("dynamo_frontend_input_sequence_tokens_sum",),
            "output_tokens": ("dynamo_frontend_output_tokens_total", "dynamo_frontend_output_sequence_tokens_sum"),
            "requests": (
                "dynamo_frontend_requests_total",
                "dynamo_component_requests_total{dynamo_endpoint=generate}",
            ),
            "ttft_sum_s": ("dynamo_frontend_time_to_first_token_seconds_sum",),
            "ttft_count": ("dynamo_frontend_time_to_first_token_seconds_count",),
        },
    ),
)
_WANTED = frozenset[str]().union(*(engine.wanted for engine in ENGINES))


def parse(text: str, wanted: frozenset[str] | None = None) -> Iterator[Sample]:
    """The samples of a text (of these names; None: all). Lines that are none, and values that are no number, are
    passed over: a foreign page yields nothing.
    """
    for line in text.splitlines():
        found = None if line.startswith("#") else _LINE.match(line.lstrip())
        if found is None or (wanted is not None and found["name"] not in wanted):
            continue
        try:
            value = float(found["value"])
        except ValueError:
            continue
        yield Sample(found["name"], _labels(found["labels"] or ""), value)


def _labels(text: str) -> dict[str, str]:
    return {name: _ESCAPE.sub(_unescape, value) for name, value in _LABEL.findall(text)}


def _unescape(found: re.Match[str]) -> str:
    return "\n" if found[1] == "n" else found[1]


def read(text: str, model: str) -> tuple[Engine, dict[str, float]] | None:
    """The engine that wrote this, and its values under the common names; None for a text of no server known here.

    Where the server tells its models apart and `model` is one of them, only that one counts. Of several engines (a
    worker of Dynamo shows its own figures beside those of the engine in it) the one that says most counts, of two that
    say as much the first.
    """
    samples = [sample for sample in parse(text, _WANTED) if math.isfinite(sample.value)]
    best: tuple[Engine, dict[str, float]] | None = None
    for engine in ENGINES:
        values = dict(_common(engine, _by_name(engine, samples, model.lower())))
        if values and (best is None or len(values) > len(best[1])):
            best = engine, values
    return best


def _by_name(engine: Engine, samples: list[Sample], model: str) -> dict[str, list[Sample]]:
    """The engine's samples of a model, those of a model's parts apart from those of models as they are asked for."""
    mine = [sample for sample in samples if sample.name in engine.wanted]
    inner = [sample for sample in mine if sample.name.startswith(engine.inner)]
    outer = [sample for sample in mine if not sample.name.startswith(engine.inner)]
    by_name: dict[str, list[Sample]] = {}
    for sample in (*_of(outer, model), *_of(inner, model)):
        by_name.setdefault(sample.name, []).append(sample)
    return by_name


def _of(samples: list[Sample], model: str) -> list[Sample]:
    """Without the samples of other models, where any is of `model`; Dynamo writes names in lower case."""
    for label in _MODEL_LABELS:
        if any(sample.labels.get(label, "").lower() == model for sample in samples):
            samples = [sample for sample in samples if sample.labels.get(label, model).lower() == model]
    return samples


def _common(engine: Engine, by_name: Mapping[str, list[Sample]]) -> Iterable[tuple[str, float]]:
    for common, names in engine.names.items():
        found = next(((name, values) for name in names if (values := _values(by_name, name))), None)
        if found is not None:
            name, values = found
            yield common, _unit(common, name) * sum(values) / (len(values) if common in _SHARES else 1)


def _unit(common: str, name: str) -> float:
    """What makes seconds of a name's own unit."""
    if not common.endswith("_s"):
        return 1.0
    return 1e-6 if name.endswith("_us") else 1e-3 if name.endswith("_ms_sum") else 1.0


def _values(by_name: Mapping[str, list[Sample]], name: str) -> list[float]:
    """The values of `name`, or of `name{label=value}`."""
    specific = _SPECIFIC.fullmatch(name)
    if specific is None:
        return [sample.value for sample in by_name.get(name, ())]
    samples = by_name.get(specific["name"], ())
    return [sample.value for sample in samples if sample.labels.get(specific["label"]) == specific["value"]]
