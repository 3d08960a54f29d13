"""A sweep as its directory tells it."""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

from llmexp.errors import ResultError
from llmexp.json_types import branch, items, number, text
from llmexp.metrics.wording import counted
from llmexp.results.files import RESULT
from llmexp.results.run import REPLACED, TRIALS, Run
from llmexp.tracking.job import OVER_LOAD, epoch_ms, params_of
from llmexp.tracking.names import as_tags, clean_name

SWEEP = "sweep.json"
_AXES = {"concurrency": OVER_LOAD["concurrency"], "requests/s": OVER_LOAD["rate"]}
OVER_LOADS = (
    "ttft_s/p95",
    "time_per_output_token_s/mean",
    "e2e_latency_s/p95",
    "output_tokens_per_s",
    "goodput_per_s",
    "error_rate",
    "usd_per_million_output_tokens",
    "right_share",
)
"""Metrics whose curve over the load a sweep's run shows for each stack."""


@dataclass(frozen=True)
class Sweep:
    """A sweep's directory: what its parent run needs, and the jobs below it."""

    id: str
    name: str
    tags: dict[str, str]
    params: dict[str, str]
    status: str
    description: str
    runs: list[Run]
    started_ms: int | None = None
    ended_ms: int | None = None


def sweep_of(directory: Path) -> Sweep:
    """A sweep from its directory: its `sweep.json` where there is one, the rest from its jobs."""
    runs = [Run.at(job) for job in job_dirs(directory)]
    if not runs:
        raise ResultError(f"{directory}: holds neither {RESULT} nor directories with one; name a job or a sweep")
    current = [run for run in runs if not run.replaced]
    told = _told(directory)
    statuses = [run.result.status for run in current]
    return Sweep(
        id=text(told, "id") or runs[0].result.job.sweep or directory.name,
        name=text(told, "name") or directory.name,
        tags=as_tags(branch(told, "tags")),
        params=shared_params(current),
        status=worst_status(statuses),
        description=text(told, "description") or _tally(statuses),
        runs=runs,
        started_ms=min(_stamps([run.result.started_at for run in runs]), default=None),
        ended_ms=max(_stamps([run.result.ended_at for run in runs]), default=None),
    )


def job_dirs(directory: Path) -> list[Path]:
    """The directories of finished jobs in a sweep's, in the order of their numbers; replaced attempts too. Those of a
    search are its trials, and then the jobs that confirm.
    """
    if (directory / TRIALS).is_dir():
        return [*job_dirs(directory / TRIALS), *_numbered(directory)]
    return _numbered(directory)


def _numbered(directory: Path) -> list[Path]:
    found = [path.parent for path in directory.glob(f"*/{RESULT}")]
    return sorted(found, key=lambda path: (not path.name.split(".")[0].isdigit(), _number(path.name), path.name))


def shared_params(runs: Sequence[Run]) -> dict[str, str]:
    """The params that all jobs of a sweep have in common."""
    each = [params_of(run, facts={}) for run in runs]
    return {key: value for key, value in each[0].items() if all(one.get(key) == value for one in each)} if each else {}


def worst_status(statuses: Sequence[str]) -> str:
    """A sweep's status by its jobs': interrupted before failed before finished."""
    return next((status for status in ("interrupted", "failed") if status in statuses), "finished")


def _stamps(moments: Sequence[datetime | None]) -> list[int]:
    return [stamp for moment in moments if (stamp := epoch_ms(moment)) is not None]


def _number(name: str) -> int:
    digits = re.match(r"\d+", name)
    return int(digits.group()) if digits else 0


def _told(directory: Path) -> dict[str, object]:
    path = directory / SWEEP
    if not path.is_file():
        return {}
    try:
        tree = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise ResultError(f"{path}: cannot be read ({error})") from None
    return tree if isinstance(tree, dict) else {}


def tally(directory: Path) -> str:
    """What there is to say of a sweep without a verdict."""
    runs = [Run.at(job) for job in job_dirs(directory) if not REPLACED.search(job.name)]
    return _tally([run.result.status for run in runs])


def _tally(statuses: Sequence[str]) -> str:
    counts = {status: statuses.count(status) for status in dict.fromkeys(statuses)}
    said = ", ".join(f"{count} {status}" for status, count in counts.items()) or "none recorded"
    jobs = counted(len(statuses), "job")
    return f"A sweep of {jobs}: {said}. What can be compared is in the artifact `comparison.html`."


# --- what a comparison left beside the jobs --------------------------------------------------------------------------


def told_by_comparison(directory: Path) -> str:
    """The comparison in Markdown: verdict, table, warnings; empty where there is none."""
    try:
        return (directory / "comparison.md").read_text(encoding="utf-8")
    except (OSError, ValueError):
        return ""


def curves_over_load(directory: Path) -> dict[str, list[tuple[int, float]]]:
    """`over_concurrency/ttft_s_p95/sonnet` → (load as a step, value), for each stack and main metric."""
    try:
        tree = json.loads((directory / "comparison.json").read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    axes = {(text(cell, "workload"), text(cell, "load")): text(cell, "axis") for cell in items(tree, "cells")}
    found: dict[str, dict[int, float]] = {}
    for row in items(tree, "rows"):
        axis = _AXES.get(axes.get((text(row, "workload"), text(row, "load"))) or "")
        level, value, metric = number(row, "level"), number(row, "value"), text(row, "metric")
        if axis is None or level is None or value is None or text(row, "kind") != "value" or metric not in OVER_LOADS:
            continue
        key = clean_name(f"{axis[0]}/{metric.replace('/', '_')}/{text(row, 'stack')}")
        found.setdefault(key, {})[round(level * axis[1])] = value
    return {key: sorted(points.items()) for key, points in found.items()}
