"""LLMPerf's two files, name by name and in its order, from a job's requests.

Scripts and notebooks that read LLMPerf's files read these unchanged. Where LLMPerf's own number is wrong, the right one
stands under the same name:

- `inter_token_latency_s` is the time per output token, (last token − first token) / tokens after the first chunk.
  LLMPerf's included the time to the first token and divided by chunks.
- `results_inter_token_latency_s_*` are taken over requests, as ever; an answer of one chunk has none.
- `ttft_s` starts when the request's bytes go to an open connection; connecting is not in it.
- `number_input_tokens` and `number_output_tokens` are the server's usage where it sends one, else the model's own
  tokenizer's count. LLMPerf counted with one tokenizer for every model, one too many for each answer.
- `results_mean_output_throughput_token_per_s` is the tokens of completed requests over the window from the first `sent`
  to the last token; starting workers is not in it.
- `results_error_rate` counts the requests that failed. A failed request keeps its code and message, and has null where
  LLMPerf wrote zeros, which bent every mean.
- stddev of one value is null: NaN is not JSON.

The quirk that min and max of the two token counts are JSON strings stays.
"""

from __future__ import annotations

import hashlib
import re
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from llmexp import results
from llmexp.config import Config, Tokens, load
from llmexp.json_types import Tree
from llmexp.metrics.distributions import PERCENTILES, distribution
from llmexp.metrics.latencies import output_rate, time_per_output_token
from llmexp.metrics.timeline import ends_ns, window
from llmexp.records.observed import MISSING, Bools, Floats, Ints, Observed, known
from llmexp.results.run import Run

VERSION = "2023-08-31"
METRICS = (
    "inter_token_latency_s",
    "ttft_s",
    "end_to_end_latency_s",
    "request_output_throughput_token_per_s",
    "number_input_tokens",
    "number_output_tokens",
)
LONGEST_NAME = 200
"""Bytes; the rest of a file's name takes some thirty more, and file systems end at 255."""
COUNTS = ("number_input_tokens", "number_output_tokens")


@dataclass(frozen=True)
class Asked:
    """What LLMPerf's command line would have been."""

    model: str
    mean_input_tokens: int
    stddev_input_tokens: int
    mean_output_tokens: int
    stddev_output_tokens: int
    num_concurrent_requests: int | None
    additional_sampling_params: Tree = field(default_factory=dict)
    metadata: Tree = field(default_factory=dict)

    @property
    def base(self) -> str:
        """What both file names begin with."""
        return base_name(f"{self.model}_{self.mean_input_tokens}_{self.mean_output_tokens}")


def base_name(text: str) -> str:
    """Each run of other characters than word characters and `-` as one `-`, and runs of `-` as one.

    What no file system takes is cut, and a digest of the whole stands at its end.
    """
    name = re.sub(r"-{2,}", "-", re.sub(r"[^\w-]+", "-", text))
    encoded = name.encode()
    if len(encoded) <= LONGEST_NAME:
        return name
    digest = hashlib.sha256(encoded).hexdigest()[:8]
    return f"{encoded[: LONGEST_NAME - 9].decode(errors='ignore')}-{digest}"


# --- writing ---------------------------------------------------------------------------------------------------------


def write_job(run: Run) -> list[Path]:
    """Both files of a job into its directory."""
    assert run.directory is not None
    ended = run.result.ended_at
    asked = asked_of(load(run.config), run.observed)
    return write(run.directory, run.observed, asked, int(ended.timestamp()) if ended else 0)


def write(directory: Path, observed: Observed, asked: Asked, timestamp: int) -> list[Path]:
    """Both files; `timestamp` is in unix seconds."""
    summary = results.strict(summary_of(observed, asked, timestamp))
    responses = results.strict(responses_of(observed))
    return [
        results.write_json(directory / f"{asked.base}_summary.json", summary, indent=4),
        results.write_json(directory / f"{asked.base}_individual_responses.json", responses, indent=4),
    ]


def asked_of(config: Config, observed: Observed) -> Asked:
    """A job's config as LLMPerf would have been asked. A workload that states no mean is named by what it sent."""
    model, workload = config.model, config.workload
    through_litellm = model.api == "litellm" and model.provider
    return Asked(
        model=f"{model.provider}/{model.name}" if through_litellm else model.name,
        mean_input_tokens=_mean(workload.input_tokens, observed.input_tokens_counted),
        stddev_input_tokens=round(workload.input_tokens.stddev or 0),
        mean_output_tokens=_mean(workload.output_tokens, observed.max_tokens),
        stddev_output_tokens=round(workload.output_tokens.stddev or 0),
        num_concurrent_requests=config.streams,
        additional_sampling_params=model.params,
    )


def _mean(stated: Tokens, sent: Ints) -> int:
    if stated.mean is not None:
        return round(stated.mean)
    return round(float(sent[known(sent)].mean())) if known(sent).any() else 0


# --- the summary -----------------------------------------------------------------------------------------------------


def summary_of(observed: Observed, asked: Asked, timestamp: int) -> dict[str, object]:
    """The flat object of `<base>_summary.json`."""
    summary: dict[str, object] = {
        "version": VERSION,
        "name": f"{asked.base}_summary",
        "model": asked.model,
        "mean_input_tokens": asked.mean_input_tokens,
        "stddev_input_tokens": asked.stddev_input_tokens,
        "mean_output_tokens": asked.mean_output_tokens,
        "stddev_output_tokens": asked.stddev_output_tokens,
        "num_concurrent_requests": asked.num_concurrent_requests,
        **flat(asked.additional_sampling_params, "additional_sampling_params"),
    }
    for name, values in columns_of(observed).items():
        summary |= _distribution(name, values[observed.completed & ~np.isnan(values)])
    summary |= _totals(observed)
    return with_metadata(summary, asked.metadata, timestamp)


def with_metadata(summary: dict[str, object], metadata: Mapping[str, object], timestamp: int) -> dict[str, object]:
    """The summary with the user's metadata and the time of day; a key that is taken becomes `metadata_<key>`."""
    taken = {*summary, "timestamp"}
    own = {f"metadata_{key}" if key in taken else key: value for key, value in metadata.items()}
    return {**summary, **own, "timestamp": timestamp}


def flat(tree: Mapping[str, object], prefix: str) -> dict[str, object]:
    """Nested keys joined with `_`."""
    found: dict[str, object] = {}
    for key, value in tree.items():
        found |= flat(value, f"{prefix}_{key}") if isinstance(value, Mapping) else {f"{prefix}_{key}": value}
    return found


def _distribution(name: str, values: Floats) -> dict[str, object]:
    found = distribution(values) or {}
    entry: dict[str, object] = {f"results_{name}_quantiles_{one}": found.get(one) for one in PERCENTILES}
    for one in ("mean", "min", "max", "stddev"):
        value = found.get(one)
        quirk = name in COUNTS and one in ("min", "max") and value is not None
        entry[f"results_{name}_{one}"] = f"{value:.0f}" if quirk else value
    return entry


def _totals(observed: Observed) -> dict[str, object]:
    completed, failed = int(observed.completed.sum()), int(observed.failed.sum())
    span = window(observed)
    tokens = int(_existing(observed.output_tokens, observed.streamed_tokens)[observed.completed].sum())
    codes = Counter(_code(code) for code, _ in observed.errors.values())
    return {
        "results_num_requests_started": completed + failed,
        "results_error_rate": failed / (completed + failed) if completed + failed else None,
        "results_number_errors": failed,
        "results_error_code_frequency": str(dict(codes.most_common())),
        "results_mean_output_throughput_token_per_s": span and tokens / span.duration_s,
        "results_num_completed_requests": completed,
        "results_num_completed_requests_per_min": span and completed / span.duration_s * 60,
    }


def _code(code: str) -> int | str:
    """HTTP statuses as numbers, names as they are."""
    return int(code) if code.isdigit() else code


# --- the responses ---------------------------------------------------------------------------------------------------


def columns_of(observed: Observed) -> dict[str, Floats]:
    """LLMPerf's name → a value for each request, NaN where there is none."""
    latencies = {
        "inter_token_latency_s": time_per_output_token(observed),
        "ttft_s": _from_sent(observed, observed.first_token_ns),
        "end_to_end_latency_s": _from_sent(observed, observed.last_token_ns),
        "request_output_throughput_token_per_s": output_rate(observed),
    }
    counts = {
        "number_input_tokens": observed.input_tokens,
        "number_output_tokens": _existing(observed.output_tokens, observed.streamed_tokens),
    }
    return latencies | {name: np.where(known(values), values, np.nan) for name, values in counts.items()}


def _from_sent(observed: Observed, at_ns: Ints) -> Floats:
    exists = known(at_ns, observed.sent_ns)
    return np.where(exists, np.where(exists, at_ns - observed.sent_ns, 0) / 1e9, np.nan)


def _existing(values: Ints, otherwise: Ints) -> Ints:
    return np.where(known(values), values, otherwise)


def responses_of(observed: Observed) -> list[dict[str, object]]:
    """The array of `<base>_individual_responses.json`: completed and failed requests in the order of their ends."""
    answered: Bools = observed.completed | observed.failed
    order = [int(at) for at in np.argsort(ends_ns(observed), kind="stable") if answered[at]]
    columns = {name: values.tolist() for name, values in columns_of(observed).items()}
    return [_response(observed, columns, at) for at in order]


def _response(observed: Observed, columns: Mapping[str, list[float]], at: int) -> dict[str, object]:
    completed = bool(observed.completed[at])
    code, message = observed.errors.get(at, (None, ""))
    value = {name: values[at] if completed else None for name, values in columns.items()}
    asked, made = (int(one[at]) for one in (observed.input_tokens, observed.output_tokens))
    made = int(observed.streamed_tokens[at]) if made == MISSING else made
    return {
        "error_code": None if code is None else _code(code),
        "error_msg": message,
        "inter_token_latency_s": value["inter_token_latency_s"],
        "ttft_s": value["ttft_s"],
        "end_to_end_latency_s": value["end_to_end_latency_s"],
        "request_output_throughput_token_per_s": value["request_output_throughput_token_per_s"],
        "number_total_tokens": made + (0 if asked == MISSING else asked),
        "number_output_tokens": made,
        "number_input_tokens": None if asked == MISSING else asked,
    }
