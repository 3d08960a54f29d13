"""A sweep as its directory tells it."""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

from llmexp.errors import ResultError
from llmexp.json_types import branch, text
from llmexp.results.files import RESULT
from llmexp.results.run import REPLACED, Run
from llmexp.tracking.job import epoch_ms, params_of
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
    """The directories of finished jobs in a sweep's, in the order of their numbers; replaced attempts too."""
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
    return f"A sweep of {len(statuses)} jobs: {said}. What can be compared is in the artifact `comparison.html`."
