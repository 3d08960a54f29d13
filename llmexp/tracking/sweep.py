"""A sweep as its directory tells it."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from llmexp.errors import ConfigError
from llmexp.tracking.job import ATTEMPT, RESULT, choices_of, epoch_ms, params_of, result_of
from llmexp.tracking.names import as_tags

SWEEP = "sweep.json"


@dataclass(frozen=True)
class Sweep:
    """A sweep's directory: what its parent run needs, and the jobs below it."""

    id: str
    name: str
    tags: dict[str, str]
    params: dict[str, str]
    status: str
    description: str
    jobs: list[Path]
    started_ms: int | None = None
    ended_ms: int | None = None


def sweep_of(directory: Path) -> Sweep:
    """A sweep from its directory: its `sweep.json` where there is one, the rest from its jobs."""
    jobs = job_dirs(directory)
    if not jobs:
        raise ConfigError(f"{directory}: holds neither {RESULT} nor directories with one; name a job or a sweep")
    results = [result_of(job) for job in jobs]
    current = [(job, result) for job, result in zip(jobs, results, strict=True) if not ATTEMPT.search(job.name)]
    told = _told(directory)
    statuses = [str(result.get("status")) for _, result in current]
    return Sweep(
        id=str(told.get("id") or results[0]["job"].get("sweep") or directory.name),
        name=str(told.get("name") or directory.name),
        tags=as_tags(told.get("tags") or {}),
        params=shared_params(current),
        status=worst_status(statuses),
        description=str(told.get("description") or _tally(statuses)),
        jobs=jobs,
        started_ms=min(_stamps(results, "started_at"), default=None),
        ended_ms=max(_stamps(results, "ended_at"), default=None),
    )


def job_dirs(directory: Path) -> list[Path]:
    """The directories of finished jobs in a sweep's, in the order of their numbers; replaced attempts too."""
    found = [path.parent for path in directory.glob(f"*/{RESULT}")]
    return sorted(found, key=lambda path: (not path.name.split(".")[0].isdigit(), _number(path.name), path.name))


def shared_params(jobs: Sequence[tuple[Path, Mapping[str, Any]]]) -> dict[str, str]:
    """The params that all jobs of a sweep have in common."""
    each = [params_of({**result, "deployment": {}}, choices_of(job)) for job, result in jobs]
    return {key: value for key, value in each[0].items() if all(one.get(key) == value for one in each)} if each else {}


def worst_status(statuses: Sequence[str]) -> str:
    """A sweep's status by its jobs': interrupted before failed before finished."""
    return next((status for status in ("interrupted", "failed") if status in statuses), "finished")


def _stamps(results: Sequence[Mapping[str, Any]], key: str) -> list[int]:
    return [stamp for result in results if (stamp := epoch_ms(result.get(key))) is not None]


def _number(name: str) -> int:
    digits = re.match(r"\d+", name)
    return int(digits.group()) if digits else 0


def _told(directory: Path) -> dict[str, Any]:
    path = directory / SWEEP
    if not path.is_file():
        return {}
    try:
        tree = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise ConfigError(f"{path}: cannot be read ({error})") from None
    return tree if isinstance(tree, dict) else {}


def tally(directory: Path) -> str:
    """What there is to say of a sweep without a verdict."""
    return _tally([str(result_of(job).get("status")) for job in job_dirs(directory) if not ATTEMPT.search(job.name)])


def _tally(statuses: Sequence[str]) -> str:
    counts = {status: statuses.count(status) for status in dict.fromkeys(statuses)}
    said = ", ".join(f"{count} {status}" for status, count in counts.items()) or "none recorded"
    return f"A sweep of {len(statuses)} jobs: {said}. What can be compared is in the artifact `comparison.html`."
