"""Job directories back out of a store, for comparing runs whose files are not here."""

from __future__ import annotations

import hashlib
import os
import shutil
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import unquote, urlsplit

from llmexp.errors import ConfigError
from llmexp.results.files import RESULT
from llmexp.tracking.connection import connect, recording, shown_uri, sqlite_path, store_uri

if TYPE_CHECKING:
    from mlflow.entities import Run
    from mlflow.tracking import MlflowClient

JOBS_PER_SWEEP = 5000


def download(id: str, uri: str | None = None) -> list[Path]:  # noqa: A002
    """The job directories of a run or a sweep, in the order they ran, without superseded attempts.

    `id` is a run's id, a sweep's (`llmexp.sweep`) or a job's (`llmexp.job`). Artifacts on this machine's disk are
    used where they lie; others are fetched once into the cache. `ConfigError` when nothing has this id.
    """
    address = store_uri(uri, Path.cwd())
    file = sqlite_path(address, Path.cwd())
    if file is not None and not file.exists():
        raise ConfigError(
            f"{id}: no directory here, and no MLflow store at {shown_uri(address)} that could hold a run of this id"
        )
    with recording(address):
        client = connect(address)
        found = _find(client, id)
        if found is None:
            raise ConfigError(
                f"{id}: no run, sweep or job with this id in {shown_uri(address)}, and no directory here; "
                "python -m llmexp.ui lists the runs"
            )
        jobs = _children(client, found) if found.data.tags.get("llmexp.kind") == "sweep" else [found]
        return [_directory(client, run, address) for run in jobs]


def _find(client: MlflowClient, wanted: str) -> Run | None:
    from mlflow.exceptions import MlflowException

    try:
        return client.get_run(wanted)
    except MlflowException as error:
        if error.error_code not in ("RESOURCE_DOES_NOT_EXIST", "INVALID_PARAMETER_VALUE"):
            raise
    if "'" in wanted:
        return None
    experiments = [one.experiment_id for one in client.search_experiments()]
    for condition in (
        f"tags.`llmexp.sweep` = '{wanted}' and tags.`llmexp.kind` = 'sweep'",
        f"tags.`llmexp.job` = '{wanted}'",
    ):
        if runs := client.search_runs(experiments, condition, max_results=1):
            return runs[0]
    return None


def _children(client: MlflowClient, parent: Run) -> list[Run]:
    of_parent = f"tags.`mlflow.parentRunId` = '{parent.info.run_id}'"
    runs = client.search_runs([parent.info.experiment_id], of_parent, max_results=JOBS_PER_SWEEP)
    current = [run for run in runs if run.data.tags.get("llmexp.superseded") != "true"]
    if not current:
        raise ConfigError(f"{parent.info.run_id}: this sweep has no recorded job")
    return sorted(current, key=lambda run: (run.info.start_time, run.info.run_name))


def _directory(client: MlflowClient, run: Run, address: str) -> Path:
    """Where the run's artifacts can be read as files."""
    url = urlsplit(run.info.artifact_uri)
    local: Path = Path(unquote(url.path))
    if url.scheme in ("", "file") and (local / RESULT).is_file():
        return local
    place = _cache() / hashlib.sha256(address.encode()).hexdigest()[:12] / run.info.run_id
    edition: Path = place / str(run.info.end_time)
    if not (edition / RESULT).is_file():
        _fetch(client, run.info.run_id, edition)
    return edition


def _fetch(client: MlflowClient, run_id: str, target: Path) -> None:
    """All or nothing: a download that is cut leaves nothing behind that looks complete."""
    target.parent.mkdir(parents=True, exist_ok=True)
    part = Path(tempfile.mkdtemp(dir=target.parent, prefix=".part-"))
    try:
        client.download_artifacts(run_id, "", str(part))
        if not (part / RESULT).is_file():
            raise ConfigError(f"{run_id}: holds no {RESULT}; it is not a job of this tool")
        shutil.rmtree(target, ignore_errors=True)
        part.rename(target)
    finally:
        shutil.rmtree(part, ignore_errors=True)


def _cache() -> Path:
    root = os.environ.get("XDG_CACHE_HOME")
    return (Path(root) if root else Path.home() / ".cache") / "llmexp" / "runs"
