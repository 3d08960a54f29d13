"""One experiment of one MLflow store: runs found by their tags and brought up to date from files."""

from __future__ import annotations

import getpass
import json
import re
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

from llmexp.config import flatten
from llmexp.errors import RecordingError
from llmexp.results.run import PROBES
from llmexp.results.run import Run as Job
from llmexp.secrets import redact
from llmexp.tracking import grades, pages
from llmexp.tracking.connection import recording, shown_uri, sqlite_path
from llmexp.tracking.job import Entry, Inputs, job_entry, probe_dirs
from llmexp.tracking.names import as_params, as_tags
from llmexp.tracking.sweep import curves_over_load, tally, told_by_comparison
from llmexp.tracking.view import saved_views

if TYPE_CHECKING:
    from mlflow.entities import Run
    from mlflow.tracking import MlflowClient

T = TypeVar("T")
STATUS = {"finished": "FINISHED", "failed": "FAILED", "interrupted": "KILLED"}
METRICS_PER_CALL, OTHERS_PER_CALL = 900, 100
EXPERIMENT_NOTE = """\
Load tests of language models: each run is **one job**, one model under one load, measured request by request. A run \
with children is a **sweep**, and its description and `comparison.html` say which model and stack won.

- `ttft_s/p50`: seconds from sending a request to its first token, median. `e2e_latency_s`: to its last. \
`time_per_output_token_s`: between, per token. Each has `mean`, `p50` … `p99`, `min`, `max`.
- `output_tokens_per_s`, `requests_per_s`: of all requests in flight together. `error_rate`, `cost_usd`: of the run.
- `client/…`: could the measuring machine keep up? The tag `llmexp.validity` is the verdict on that.
- `over_time/…`: in flight and tokens/s against seconds since the start.
- `capacity/…`: of a search for the highest load that keeps the service level; its probes are the runs below it.

To compare: pick children, **Compare**, then `params.concurrency` against `metrics.ttft_s/p95`, for example. \
Only jobs: `tags.llmexp.kind = 'job'`; without replaced ones: `tags.llmexp.superseded IS NULL`.
"""
TABLES_TAG = "mlflow.loggedArtifacts"
"""Where MLflow notes which artifacts are tables."""
_EXPERIMENT_TAGS = {
    "mlflow.experimentKind": "custom_model_development",
    "mlflow.note.content": EXPERIMENT_NOTE,
    **saved_views(),
}


def experiment(client: MlflowClient, name: str, uri: str) -> str:
    """The experiment's id; created where it is missing. One that somebody else created bare is furnished, once."""
    from mlflow.exceptions import MlflowException

    found = client.get_experiment_by_name(name)
    if found is None:
        try:
            return str(client.create_experiment(name, artifact_location=_artifacts(name, uri), tags=_EXPERIMENT_TAGS))
        except MlflowException:
            found = client.get_experiment_by_name(name)
            if found is None:
                raise
    if found.lifecycle_stage != "active":
        raise RecordingError(
            f"MLflow's experiment '{name}' in {shown_uri(uri)} is deleted; restore it there, or set tracking.experiment"
        )
    if found.artifact_location.startswith("mlflow-artifacts:") and not uri.startswith("http"):
        raise RecordingError(
            f"MLflow's experiment '{name}' in {shown_uri(uri)} was made by a server and keeps its files behind it; set "
            "MLFLOW_TRACKING_URI to the server's address, or tracking.experiment to another name"
        )
    if not found.tags.keys() & _EXPERIMENT_TAGS.keys():
        for key, value in _EXPERIMENT_TAGS.items():
            client.set_experiment_tag(found.experiment_id, key, value)
    return str(found.experiment_id)


def _artifacts(name: str, uri: str) -> str | None:
    """Where a local database's artifacts lie: beside it, wherever the command was started. Else the store decides."""
    path = sqlite_path(uri, Path.cwd())
    return None if path is None else (path.parent / "mlruns" / re.sub(r"[^\w.-]+", "-", name)).as_uri()


class MlflowStore:
    """One experiment of one MLflow store."""

    def __init__(self, uri: str, client: MlflowClient, experiment_id: str) -> None:
        self.uri: str | None = uri
        self.experiment_id = experiment_id
        self._client = client
        self._uri = uri

    def start_sweep(
        self,
        sweep_id: str,
        name: str,
        tags: Mapping[str, object],
        params: Mapping[str, object],
        started_ms: int | None = None,
    ) -> str:
        """The sweep's run, new or taken up again, now running."""
        own = {"llmexp.kind": "sweep", "llmexp.sweep": sweep_id}
        entry = Entry(
            name=redact(name),
            status="running",
            tags=as_tags({**tags, **own}),
            params=as_params(flatten(params)),
            started_ms=started_ms,
        )
        with recording(self._uri):
            run = self._run_for(entry, self._first(_is("llmexp.sweep", sweep_id), _is("llmexp.kind", "sweep")), None)
            self._client.update_run(run.info.run_id, status="RUNNING")
            self._log_params(run, entry.params)
            return str(run.info.run_id)

    def log_job(self, job: Job, parent: str | None) -> str:
        """The job's run, complete, with its files; the probes of a capacity search are runs below it."""
        with recording(self._uri):
            entry = job_entry(job)
            run = self._run_for(entry, self._first(_is("llmexp.job", entry.tags["llmexp.job"])), parent)
            run_id = str(run.info.run_id)
            self._log_params(run, entry.params)
            self._log_metrics(run, entry)
            self._log_inputs(run_id, entry.inputs)
            if job.directory is not None:
                self._log_files(run_id, job.directory)
                self._log_grades(run_id, job.directory)
            self._client.set_terminated(run_id, STATUS.get(entry.status, "FAILED"), entry.ended_ms)
        for probe in probe_dirs(job.directory):
            self.log_job(Job.at(probe), run_id)
        return run_id

    def _log_files(self, run_id: str, job_dir: Path) -> None:
        """Every file of the job; those of its probes belong to their own runs, and a hidden one is of the moment."""
        for path in sorted(job_dir.iterdir()):
            if path.is_file():
                if not path.name.startswith("."):
                    self._client.log_artifact(run_id, str(path))
            elif path.name != PROBES or not probe_dirs(job_dir):
                self._client.log_artifacts(run_id, str(path), path.name)

    def _log_grades(self, run_id: str, job_dir: Path) -> None:
        """The grades as a table of MLflow's own kind, which its evaluation view shows."""
        table = grades.table(job_dir)
        if table is None:
            return
        with tempfile.TemporaryDirectory(prefix="llmexp-") as folder:
            path = Path(folder) / grades.FILE
            path.write_text(redact(json.dumps(table, ensure_ascii=False)), encoding="utf-8")
            self._client.log_artifact(run_id, str(path))
        self._client.set_tag(run_id, TABLES_TAG, json.dumps([{"path": grades.FILE, "type": "table"}]))

    def finish_sweep(
        self, run_id: str, status: str, description: str, sweep_dir: Path, ended_ms: int | None = None
    ) -> None:
        """Closes the sweep's run with its verdict and the files that lie beside the jobs."""
        with recording(self._uri):
            for path in sorted(path for path in sweep_dir.iterdir() if path.is_file() and path.name[0] != "."):
                with pages.for_the_store(path) as file:
                    self._client.log_artifact(run_id, str(file))
            said = told_by_comparison(sweep_dir) or description or tally(sweep_dir)
            said = pages.with_links(said, self.experiment_id, self._jobs_of(run_id))
            self._client.set_tag(run_id, "mlflow.note.content", said)
            for key, points in curves_over_load(sweep_dir).items():
                self._log_curve(run_id, key, points)
            self._client.set_terminated(run_id, STATUS[status], ended_ms)

    def _jobs_of(self, parent: str) -> list[tuple[str, str]]:
        """Name and run of each of a sweep's jobs, in the order they began; replaced attempts left out."""
        condition = f"{_is('mlflow.parentRunId', parent)} and {_is('llmexp.kind', 'job')}"
        found = self._client.search_runs([self.experiment_id], condition, order_by=["attributes.start_time"])
        jobs = [run for run in found if "llmexp.superseded" not in run.data.tags]
        return [(str(run.info.run_name), str(run.info.run_id)) for run in jobs]

    def _log_curve(self, run_id: str, key: str, points: Sequence[tuple[int, float]]) -> None:
        """The points that the run does not have yet: a resumed sweep has more loads than before."""
        from mlflow.entities import Metric

        known = {(point.step, point.value) for point in self._client.get_metric_history(run_id, key)}
        now_ms = time.time_ns() // 1_000_000
        new = [Metric(key, value, now_ms, step) for step, value in points if (step, value) not in known]
        if new:
            self._client.log_batch(run_id, metrics=new)

    def supersede(self, run_id: str) -> None:
        """Marks a job's run as replaced by a later attempt."""
        with recording(self._uri):
            self._client.set_tag(run_id, "llmexp.superseded", "true")

    def resume_sweep(self, sweep_id: str) -> str | None:
        """The run of a sweep that was begun before."""
        with recording(self._uri):
            run = self._first(_is("llmexp.sweep", sweep_id), _is("llmexp.kind", "sweep"))
        return None if run is None else str(run.info.run_id)

    def find_job(self, job_id: str) -> str | None:
        """The run of a job that was logged before."""
        with recording(self._uri):
            run = self._first(_is("llmexp.job", job_id))
        return None if run is None else str(run.info.run_id)

    def _first(self, *conditions: str) -> Run | None:
        found = self._client.search_runs([self.experiment_id], " and ".join(conditions), max_results=1)
        return found[0] if found else None

    def _run_for(self, entry: Entry, found: Run | None, parent: str | None) -> Run:
        """The run that was there with its name and tags brought up to date, or a new one."""
        tags = {**entry.tags, **({"mlflow.parentRunId": parent} if parent else {})}
        if found is None:
            tags |= {"mlflow.user": _user(), "mlflow.source.name": "llmexp", "mlflow.source.type": "LOCAL"}
            return self._client.create_run(self.experiment_id, entry.started_ms, tags, entry.name)
        from mlflow.entities import RunTag

        if found.info.run_name != entry.name:
            self._client.update_run(found.info.run_id, name=entry.name)
        for some in _chunks(list(tags.items()), OTHERS_PER_CALL):
            self._client.log_batch(found.info.run_id, tags=[RunTag(key, value) for key, value in some])
        return found

    def _log_params(self, run: Run, params: Mapping[str, str]) -> None:
        """Params cannot be changed once they are there, so only new ones are sent."""
        from mlflow.entities import Param

        new = [Param(key, value) for key, value in params.items() if key not in run.data.params]
        for some in _chunks(new, OTHERS_PER_CALL):
            self._client.log_batch(run.info.run_id, params=some)

    def _log_metrics(self, run: Run, entry: Entry) -> None:
        """New numbers and curves. A number that changed is stamped now, which makes it the latest of its name."""
        from mlflow.entities import Metric

        now_ms = time.time_ns() // 1_000_000
        start_ms, known = entry.started_ms or now_ms, run.data.metrics
        changed = {key: value for key, value in entry.metrics.items() if known.get(key) != value}
        stamp_ms = {key: now_ms if key in known else entry.ended_ms or now_ms for key in changed}
        points = [Metric(key, value, stamp_ms[key], 0) for key, value in changed.items()]
        for key, curve in entry.curves.items():
            if key not in known:
                points += [Metric(key, value, start_ms + 1000 * second, second) for second, value in curve]
        for some in _chunks(points, METRICS_PER_CALL):
            self._client.log_batch(run.info.run_id, metrics=some)

    def _log_inputs(self, run_id: str, inputs: Inputs | None) -> None:
        from mlflow.entities import Dataset, DatasetInput, InputTag

        if inputs is not None:
            dataset = Dataset(inputs.name, inputs.digest, "code", inputs.source, profile=inputs.profile)
            self._client.log_inputs(run_id, [DatasetInput(dataset, [InputTag("mlflow.data.context", "benchmark")])])


def _is(tag: str, value: str) -> str:
    quote = '"' if "'" in value else "'"
    return f"tags.`{tag}` = {quote}{value}{quote}"


def _chunks(items: Sequence[T], size: int) -> Iterator[Sequence[T]]:
    return (items[at : at + size] for at in range(0, len(items), size))


def _user() -> str:
    try:
        return getpass.getuser()
    except (KeyError, OSError):
        return "unknown"
