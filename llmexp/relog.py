"""Logs finished jobs and sweeps from their directories to MLflow: `python -m llmexp.relog DIR...`.

Before that it writes what a job's directory lacks of its page and of LLMPerf's files.

For results that were measured while the store was away, or without one. Logging again what is there already updates it.
Exit status: 0 everything is logged, 2 a directory is not one of a job or sweep, 4 the store refused something.
"""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path

from llmexp import secrets
from llmexp.config import Tracking
from llmexp.errors import OK, ConfigError, LlmexpError, worst
from llmexp.jobs import lock, readers
from llmexp.json_types import branch, text
from llmexp.metrics.wording import counted
from llmexp.plain_flags import Parser
from llmexp.results import RESULT, Run
from llmexp.results.guard import Guard
from llmexp.terminal.out import show
from llmexp.tracking import MlflowStore, open_store
from llmexp.tracking.sweep import Sweep, sweep_of


def main(argv: Sequence[str] | None = None) -> int:
    """Logs each directory that the command line names."""
    secrets.guard_streams()
    asked = _parser().parse_args(argv)
    return worst([_guarded(Path(name), asked) for name in asked.directories])


def _parser() -> argparse.ArgumentParser:
    parser = Parser(
        prog="python -m llmexp.relog",
        description="Logs finished jobs from their files to MLflow, and first writes what their directories lack of "
        "report.html and LLMPerf's files. Doing it twice changes nothing.",
    )
    parser.add_argument(
        "directories", nargs="+", metavar="DIR", help="a job's directory, or a sweep's with all its jobs"
    )
    parser.add_argument("--uri", help="the store; default: the one in the job's configuration, as when it ran")
    parser.add_argument("--experiment", help="MLflow's experiment; default: the one in the job's configuration")
    return parser


def _guarded(directory: Path, asked: argparse.Namespace) -> int:
    try:
        relog(directory, asked.uri, asked.experiment)
    except LlmexpError as error:
        print(error, file=sys.stderr)
        return error.exit_status
    return OK


def relog(directory: Path, uri: str | None = None, experiment: str | None = None) -> None:
    """One directory, of a job or of a sweep."""
    if not directory.is_dir():
        raise ConfigError(f"{directory}: is not a directory")
    with _alone(directory):
        _relog(directory, uri, experiment)


def _alone(directory: Path) -> AbstractContextManager[None]:
    """A folder that somebody is at work in says half of what it will; one that nobody can write to has no owner."""
    return lock.all_held(directory) if os.access(directory, os.W_OK) else nullcontext()


def _relog(directory: Path, uri: str | None, experiment: str | None) -> None:
    if (directory / RESULT).is_file():
        run = Run.at(directory)
        store = _store(run, uri, experiment)
        sweep_id = run.result.job.sweep
        _log(store, run, store.resume_sweep(sweep_id) if sweep_id else None)
    else:
        sweep = sweep_of(directory)
        _log_sweep(_store(sweep.runs[0], uri, experiment), directory, sweep)


def _log_sweep(store: MlflowStore, directory: Path, sweep: Sweep) -> None:
    parent = store.start_sweep(sweep.id, sweep.name, sweep.tags, sweep.params, sweep.started_ms)
    for run in sweep.runs:
        _log(store, run, parent)
    store.finish_sweep(parent, sweep.status, sweep.description, directory, sweep.ended_ms)
    show(f"{directory}: sweep of {counted(len(sweep.runs), 'job')} is run {parent}")


def _log(store: MlflowStore, run: Run, parent: str | None) -> None:
    readers.write_missing(run, Guard())
    run_id = store.log_job(run, parent)
    show(f"{run.directory}: run {run_id}")


def _store(run: Run, uri: str | None, experiment: str | None) -> MlflowStore:
    """The store of the job's own configuration, unless the command line says otherwise."""
    told = branch(run.config, "tracking")
    tracking = Tracking(
        kind="mlflow",
        uri=uri or text(told, "uri"),
        experiment=experiment or text(told, "experiment") or "llmexp",
    )
    store = open_store(tracking, Path.cwd())
    assert isinstance(store, MlflowStore)
    return store


if __name__ == "__main__":
    sys.exit(main())
