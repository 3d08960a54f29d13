"""What a store is told about a job, read from the job's directory and from nothing else.

Because a run is described by its files alone, logging right after a job and logging it a week later are the same act.
Nothing here knows MLflow; names and lengths are kept within what it takes. Seconds and USD, as in `result.json`;
`_ms` are milliseconds since the epoch.
"""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import TypeGuard

from llmexp.config import flatten
from llmexp.json_types import Tree, branch, items, text
from llmexp.results.files import RESULT
from llmexp.results.model import Curves, Result
from llmexp.results.run import PROBES, Run
from llmexp.secrets import redact
from llmexp.tracking.names import as_params, as_tags, as_text, clean_name
from llmexp.tracking.note import describe

OVER_LOAD = {"rate": ("over_requests_per_100_s", 100), "concurrency": ("over_concurrency", 1)}
"""What a search varied → name of its curves, and steps (whole numbers) for each unit of load."""
SHORT_FACT = 100
"""Deployment facts up to this length also become tags, so that runs can be filtered by them."""
GROUPS = ("model", "workload", "load", "slo", "quality", "ray")
"""Config groups whose chosen option is worth a column of its own."""
MAIN_LATENCIES = ("ttft_s", "e2e_latency_s", "time_per_output_token_s", "inter_token_latency_s")
CLIENT_LATENCIES = ("schedule_lag_s", "wait_s", "connect_s")
LOOKED_UP = (
    *("workers_lost", "requests_lost", "requests_not_sent", "worker_cpu_s", "client_cpu_s", "decode_s"),
    *("decode_us_per_chunk", "gc_pause_max_s", "own_stream"),
)
"""What the client saw of itself that nobody compares runs by: `result.json` has it, and validity speaks of it."""
SHOWN_FIRST = ("p50", "p95", "p99", "mean", "stddev", "min", "p25", "p75", "p90", "max", "count")


@dataclass(frozen=True)
class Inputs:
    """The workload as it was sent: the same digest means the same prompts and lengths, whatever the stack."""

    name: str
    digest: str
    source: str
    profile: str


@dataclass(frozen=True)
class Entry:
    """One run as a store takes it."""

    name: str
    status: str
    """`finished`, `failed` or `interrupted`."""
    tags: dict[str, str]
    params: dict[str, str]
    metrics: dict[str, float] = field(default_factory=dict)
    curves: dict[str, list[tuple[int, float]]] = field(default_factory=dict)
    """Name → (second, value)."""
    inputs: Inputs | None = None
    started_ms: int | None = None
    ended_ms: int | None = None


def job_entry(run: Run) -> Entry:
    """Everything about a job but its artifacts."""
    result = run.result
    return Entry(
        name=redact(run.name),
        status=result.status,
        tags=_tags(run),
        params=params_of(run),
        metrics=metrics_of(result),
        curves={
            **curves_of(run.curves),
            **curves_of(Curves.of(branch(result.server, "curves")), "server"),
            **capacity_curves(result.capacity_curve or {}),
        },
        inputs=_inputs(run),
        started_ms=epoch_ms(result.started_at),
        ended_ms=epoch_ms(result.ended_at),
    )


def metrics_of(result: Result) -> dict[str, float]:
    """What people compare, under names with slashes; what is absent or not finite has no metric.

    Of a distribution a few statistics; the rest of them, and all that a person looks up once, is in the files.
    """
    tree = {
        **result.metrics,
        "client": {name: value for name, value in result.client.items() if name not in LOOKED_UP},
        "server": {part: branch(result.server, part) for part in ("change", "gauges")},
        "errors": {name: found.count for name, found in result.errors.items()},
    }
    return {clean_name(name): value for name, value in _numbers(tree)}


def _statistics(name: str) -> tuple[str, ...]:
    if name in MAIN_LATENCIES:
        return "p50", "p90", "p95", "p99", "mean"
    if name in CLIENT_LATENCIES:
        return "p50", "p99"
    if "_tokens" in name:
        return ("mean",)
    return ("p99",) if name.startswith("client/") else ("p50", "p95", "p99", "mean")


def _worth(name: str, tree: Tree) -> Tree:
    """The part of a group of numbers that is worth a metric of its own."""
    head, _, rest = name.partition("/")
    if "count" in tree and "p50" in tree:
        return {statistic: tree[statistic] for statistic in _statistics(name) if statistic in tree}
    if head == "steady" and not rest:
        return {key: value for key, value in tree.items() if not isinstance(value, Mapping)}
    return tree


def curves_of(curves: Curves, prefix: str = "over_time") -> dict[str, list[tuple[int, float]]]:
    """Curves over time, as they are drawn: (seconds since the start, value)."""
    return {clean_name(f"{prefix}/{name}"): _points(curves.t_s, values) for name, values in curves.series.items()}


def capacity_curves(curve: Tree) -> dict[str, list[tuple[int, float]]]:
    """What a capacity search saw at each level: (level as a step, value)."""
    if not curve:
        return {}
    name, scale = OVER_LOAD[text(curve, "of") or "rate"]
    steps = [round(level * scale) for level in items(curve, "level") if isinstance(level, int | float)]
    seen = {key: items(curve, key) for key in curve if key not in ("level", "probe")}
    found = {clean_name(f"{name}/{key}"): _points(steps, values) for key, values in seen.items()}
    return {key: points for key, points in found.items() if points}


def probe_dirs(job_dir: Path | None) -> list[Path]:
    """The folders of a capacity search's probes, in the order they ran."""
    return [] if job_dir is None else sorted(path.parent for path in (job_dir / PROBES).glob(f"*/{RESULT}"))


def _points(seconds: Sequence[float], values: Sequence[object]) -> list[tuple[int, float]]:
    return [(int(at_s), float(value)) for at_s, value in zip(seconds, values, strict=False) if _is_number(value)]


def _is_number(value: object) -> TypeGuard[float]:
    return isinstance(value, int | float) and math.isfinite(value)


def _numbers(tree: Tree, prefix: str = "") -> Iterator[tuple[str, float]]:
    for key, value in sorted(tree.items(), key=_rank):
        if isinstance(value, Mapping):
            yield from _numbers(_worth(f"{prefix}{key}", value), f"{prefix}{key}/")
        elif _is_number(value):
            yield f"{prefix}{key}", float(value)


def _rank(item: tuple[str, object]) -> int:
    """MLflow offers the metric that came first: let that be a median, not a count."""
    return SHOWN_FIRST.index(item[0]) if item[0] in SHOWN_FIRST else len(SHOWN_FIRST)


def params_of(run: Run, facts: Tree | None = None) -> dict[str, str]:
    """The composed config as it was in effect, the chosen options by name, and the facts of the deployment."""
    config = dict(run.config)
    if not config.get("rehearse") and isinstance(config.get("model"), Mapping):
        config["model"] = {key: value for key, value in branch(config, "model").items() if key != "rehearsal"}
    config["concurrency"] = run.concurrency
    facts = {"deployment": run.result.deployment if facts is None else facts}
    chosen = {group: option for group, option in run.choices.items() if group in GROUPS}
    return as_params({**chosen, **flatten(config), **flatten(facts)})


def _tags(run: Run) -> dict[str, str]:
    result = run.result
    job, commit = result.job, result.environment.git_commit
    tags = {
        "llmexp.kind": "job" if job.probe is None else "probe",
        "llmexp.probe": job.probe,
        "llmexp.job": job.id,
        "llmexp.sweep": job.sweep,
        "llmexp.model": job.model or None,
        "llmexp.repeat": job.repeat + 1,
        "llmexp.rehearsal": job.rehearsal,
        "llmexp.validity": result.validity.verdict,
        "llmexp.version": result.environment.versions.get("llmexp"),
        "llmexp.superseded": True if run.replaced else None,
        "llmexp.git_commit": commit,
        "mlflow.source.git.commit": commit,
        "mlflow.note.content": describe(run),
        **_fact_tags(result.deployment),
        **branch(run.config, "tracking", "tags"),
    }
    return as_tags(tags)


def _fact_tags(facts: Tree) -> dict[str, str]:
    scalars = {key: as_text(value) for key, value in facts.items() if isinstance(value, str | int | float)}
    return {f"llmexp.deployment.{key}": value for key, value in scalars.items() if len(value) <= SHORT_FACT}


def _inputs(run: Run) -> Inputs | None:
    digests = [] if run.directory is None else _prompt_digests(run.directory)
    if not digests:
        return None
    source = {"workload": run.config.get("workload"), "seed": run.settings.get("run.seed")}
    return Inputs(
        name=run.choices.get("workload", "workload"),
        digest=hashlib.sha256("\n".join(digests).encode()).hexdigest()[:16],
        source=json.dumps(source),
        profile=json.dumps({"num_rows": len(digests)}),
    )


def _prompt_digests(job_dir: Path) -> list[str]:
    """Digests of the prompts that were sent, in the order of the schedule."""
    from llmexp import records

    sent: list[tuple[int, str]] = []
    try:
        for batch in records.iterate(job_dir):
            sent += zip(batch.column("index").to_pylist(), batch.column("prompt_digest").to_pylist(), strict=True)
    except FileNotFoundError:
        return []
    return [digest for _, digest in sorted(sent)]


def epoch_ms(moment: datetime | None) -> int | None:
    """In milliseconds since the epoch."""
    return None if moment is None else int(moment.timestamp() * 1000)
