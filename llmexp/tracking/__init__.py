"""MLflow: a sweep is a parent run, each job a child run, and everything in them is read from the job's directory.

    store = open_store(config.tracking, Path.cwd())
    parent = store.start_sweep(sweep_id, name, tags, params)
    store.log_job(Run.at(job_dir), parent)     # after each job; never while a load runs
    store.finish_sweep(parent, "finished", verdict, sweep_dir)

A job is known by its id (tag `llmexp.job`), a sweep by its own (tag `llmexp.sweep` with `llmexp.kind=sweep`): logging
one again updates its run. Runs are addressed by id alone, so MLflow's global state (active run, MLFLOW_RUN_ID) plays no
part. Whatever goes wrong becomes one `RecordingError` that names the store and the cause.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

from llmexp.tracking.connection import connect, recording, store_uri
from llmexp.tracking.fetch import download
from llmexp.tracking.store import MlflowStore, experiment

if TYPE_CHECKING:
    from llmexp.config import Tracking
    from llmexp.results.run import Run

__all__ = ["MlflowStore", "NoStore", "Store", "download", "open_store", "store_uri"]


class Store(Protocol):
    """Where jobs and sweeps are recorded. Every call may raise `RecordingError`."""

    @property
    def uri(self) -> str | None:
        """The store's address; None: nothing is recorded."""
        ...

    def start_sweep(self, sweep_id: str, name: str, tags: Mapping[str, object], params: Mapping[str, object]) -> str:
        """The sweep's run, new or taken up again, now running. `params` may be nested, as a composed config is."""
        ...

    def log_job(self, job: Run, parent: str | None) -> str:
        """The job's run, complete, with its files."""
        ...

    def finish_sweep(self, run_id: str, status: str, description: str, sweep_dir: Path) -> None:
        """Closes the sweep's run: `finished`, `failed` or `interrupted`, the verdict in words, its files."""
        ...

    def supersede(self, run_id: str) -> None:
        """Marks a job's run as replaced by a later attempt."""
        ...

    def resume_sweep(self, sweep_id: str) -> str | None:
        """The run of a sweep that was begun before."""
        ...

    def find_job(self, job_id: str) -> str | None:
        """The run of a job that was logged before."""
        ...


class NoStore:
    """tracking=none: every call does nothing, and there is no run to name."""

    uri = None

    def start_sweep(self, *_: object) -> str:
        """An empty id."""
        return ""

    def log_job(self, *_: object) -> str:
        """An empty id."""
        return ""

    def finish_sweep(self, *_: object) -> None:
        """Nothing to close."""

    def supersede(self, *_: object) -> None:
        """Nothing to mark."""

    def resume_sweep(self, *_: object) -> None:
        """Nothing was begun."""

    def find_job(self, *_: object) -> None:
        """Nothing was logged."""


def open_store(tracking: Tracking, cwd: Path) -> Store:
    """The store that the configuration names, reachable and with its experiment ready.

    Creating a database takes seconds and an absent server a few more, so call it before a load, not after.
    """
    if tracking.kind == "none":
        return NoStore()
    uri = store_uri(tracking.uri, cwd)
    with recording(uri):
        client = connect(uri)
        return MlflowStore(uri, client, experiment(client, tracking.experiment, uri))
