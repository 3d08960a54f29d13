"""What a store is told about a job, read from the job's directory and from nothing else.

Because a run is described by its files alone, logging right after a job and logging it a week later are the same act.
Nothing here knows MLflow; names and lengths are kept within what it takes. Seconds and USD, as in `result.json`;
`_ms` are milliseconds since the epoch.
"""

from __future__ import annotations

import hashlib
import json
import math
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import Any

from llmexp.config import flatten, load
from llmexp.errors import ConfigError
from llmexp.tracking.names import as_params, as_tags, clean_name, text
from llmexp.tracking.note import describe

RESULT = "result.json"
PROBES = "probes"
"""Where a capacity search keeps the folders of its probes."""
OVER_LOAD = {"rate": ("over_requests_per_100_s", 100), "concurrency": ("over_concurrency", 1)}
"""What a search varied → name of its curves, and steps (whole numbers) for each unit of load."""
SHORT_FACT = 100
"""Deployment facts up to this length also become tags, so that runs can be filtered by them."""
GROUPS = ("model", "workload", "load", "slo", "ray")
"""Config groups whose chosen option is worth a column of its own."""
SHOWN_FIRST = ("p50", "p95", "p99", "mean", "stddev", "min", "p25", "p75", "p90", "max", "count")
ATTEMPT = re.compile(r"\.attempt\d+$")


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


def result_of(job_dir: Path) -> dict[str, Any]:
    """The job's `result.json`; `ConfigError` when the directory holds none that can be read."""
    try:
        tree = json.loads((job_dir / RESULT).read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise ConfigError(f"{job_dir}: holds no {RESULT}; name the directory of a finished job or sweep") from None
    except (OSError, ValueError) as error:
        raise ConfigError(f"{job_dir / RESULT}: cannot be read ({error})") from None
    if not isinstance(tree, dict) or not isinstance(tree.get("job"), dict) or "id" not in tree["job"]:
        raise ConfigError(f"{job_dir / RESULT}: is not the result of a job (it has no job.id)")
    return tree


def job_entry(job_dir: Path) -> Entry:
    """Everything about a job but its artifacts."""
    result = result_of(job_dir)
    choices = choices_of(job_dir)
    start, end = (epoch_ms(result.get(key)) for key in ("started_at", "ended_at"))
    return Entry(
        name=str(result["job"].get("name") or job_dir.name),
        status=str(result.get("status", "finished")),
        tags=_tags(result, superseded=bool(ATTEMPT.search(job_dir.name))),
        params=params_of(result, choices),
        metrics=metrics_of(result),
        curves={
            **curves_of(result.get("curves") or {}),
            **curves_of((result.get("server") or {}).get("curves") or {}, "server"),
            **capacity_curves(result.get("capacity_curve") or {}),
        },
        inputs=_inputs(job_dir, result, choices),
        started_ms=start,
        ended_ms=end,
    )


def metrics_of(result: Mapping[str, Any]) -> dict[str, float]:
    """The run's numbers under names with slashes; what is absent or not finite has no metric."""
    tree = {
        **(result.get("metrics") or {}),
        "client": result.get("client") or {},
        "server": {part: (result.get("server") or {}).get(part) or {} for part in ("change", "gauges")},
        "errors": {name: _count(value) for name, value in (result.get("errors") or {}).items()},
    }
    return {clean_name(name): value for name, value in _numbers(tree)}


def curves_of(curves: Mapping[str, Any], prefix: str = "over_time") -> dict[str, list[tuple[int, float]]]:
    """Curves over time, as they are drawn: (seconds since the start, value)."""
    seconds = curves.get("t_s") or []
    lists = {name: values for name, values in curves.items() if name != "t_s" and isinstance(values, list)}
    return {clean_name(f"{prefix}/{name}"): _points(seconds, values) for name, values in lists.items()}


def capacity_curves(curve: Mapping[str, Any]) -> dict[str, list[tuple[int, float]]]:
    """What a capacity search saw at each level: (level as a step, value)."""
    if not curve:
        return {}
    name, scale = OVER_LOAD[curve["of"]]
    steps = [round(level * scale) for level in curve["level"]]
    seen = {key: values for key, values in curve.items() if key not in ("level", "probe") and isinstance(values, list)}
    found = {clean_name(f"{name}/{key}"): _points(steps, values) for key, values in seen.items()}
    return {key: points for key, points in found.items() if points}


def probe_dirs(job_dir: Path) -> list[Path]:
    """The folders of a capacity search's probes, in the order they ran."""
    return sorted(path.parent for path in (job_dir / PROBES).glob(f"*/{RESULT}"))


def _points(seconds: Sequence[float], values: Sequence[Any]) -> list[tuple[int, float]]:
    return [(int(at_s), float(value)) for at_s, value in zip(seconds, values, strict=False) if _is_number(value)]


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and math.isfinite(value)


def _numbers(tree: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, float]]:
    for key, value in sorted(tree.items(), key=_rank):
        if isinstance(value, Mapping):
            yield from _numbers(value, f"{prefix}{key}/")
        elif _is_number(value):
            yield f"{prefix}{key}", float(value)


def _rank(item: tuple[str, Any]) -> int:
    """MLflow offers the metric that came first: let that be a median, not a count."""
    return SHOWN_FIRST.index(item[0]) if item[0] in SHOWN_FIRST else len(SHOWN_FIRST)


def _count(value: Any) -> Any:
    return value.get("count") if isinstance(value, Mapping) else value


def params_of(result: Mapping[str, Any], choices: Mapping[str, str]) -> dict[str, str]:
    """The composed config as it was in effect, the chosen options by name, and the facts of the deployment."""
    config = dict(result.get("config") or {})
    if not config.get("rehearse") and isinstance(config.get("model"), Mapping):
        config["model"] = {key: value for key, value in config["model"].items() if key != "rehearsal"}
    config["concurrency"] = config.get("concurrency") or _streams(config)
    facts = {"deployment": result.get("deployment") or {}}
    return as_params({**choices, **flatten(config), **flatten(facts)})


def _streams(config: Mapping[str, Any]) -> int | None:
    """The concurrency that a null stands for, so that runs can be plotted over it."""
    try:
        return load(config).streams
    except ConfigError:
        return None


def _tags(result: Mapping[str, Any], *, superseded: bool) -> dict[str, str]:
    job, environment = result["job"], result.get("environment") or {}
    commit = environment.get("git_commit")
    tags = {
        "llmexp.kind": "job" if job.get("probe") is None else "probe",
        "llmexp.probe": job.get("probe"),
        "llmexp.job": job["id"],
        "llmexp.sweep": job.get("sweep"),
        "llmexp.model": job.get("model"),
        "llmexp.repeat": job.get("repeat"),
        "llmexp.rehearsal": job.get("rehearsal") or False,
        "llmexp.validity": (result.get("validity") or {}).get("verdict"),
        "llmexp.version": (environment.get("versions") or {}).get("llmexp"),
        "llmexp.superseded": True if superseded else None,
        "llmexp.git_commit": commit,
        "mlflow.source.git.commit": commit,
        "mlflow.note.content": describe(result),
        **_fact_tags(result.get("deployment") or {}),
        **(((result.get("config") or {}).get("tracking") or {}).get("tags") or {}),
    }
    return as_tags(tags)


def _fact_tags(facts: Mapping[str, Any]) -> dict[str, str]:
    scalars = {key: value for key, value in facts.items() if isinstance(value, str | int | float)}
    short = {key: text(value) for key, value in scalars.items() if len(text(value)) <= SHORT_FACT}
    return {f"llmexp.deployment.{key}": value for key, value in short.items()}


def _inputs(job_dir: Path, result: Mapping[str, Any], choices: Mapping[str, str]) -> Inputs | None:
    digests = _prompt_digests(job_dir)
    if not digests:
        return None
    config = result.get("config") or {}
    workload = choices.get("workload", "workload")
    source = {"workload": config.get("workload"), "seed": (config.get("run") or {}).get("seed")}
    return Inputs(
        name=workload,
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


def choices_of(job_dir: Path) -> dict[str, str]:
    """Which option of each config group was chosen, as Hydra noted it."""
    from omegaconf import OmegaConf

    path = job_dir / ".hydra" / "hydra.yaml"
    if not path.is_file():
        return {}
    chosen = OmegaConf.select(OmegaConf.load(path), "hydra.runtime.choices") or {}
    return {group: str(chosen[group]) for group in GROUPS if chosen.get(group)}


def epoch_ms(stamp: Any) -> int | None:
    """An ISO 8601 time in milliseconds since the epoch."""
    return int(datetime.fromisoformat(stamp).timestamp() * 1000) if isinstance(stamp, str) else None
