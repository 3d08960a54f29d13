"""What a command tells the tracking store: its sweep, its jobs, its end.

What the store refuses is said and remembered as an exit status; the files are complete all the same.
"""

from __future__ import annotations

from collections.abc import Mapping
from concurrent.futures import Future
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from llmexp.errors import INTERRUPTED, MISSED, OK, UNRECORDED, worst
from llmexp.results.guard import Guard, relog_command

if TYPE_CHECKING:
    from llmexp.results import Run
    from llmexp.tracking import Store

STATES = {OK: "finished", MISSED: "finished", UNRECORDED: "finished", INTERRUPTED: "interrupted"}
"""Exit status → status of a sweep's run; any other is `failed`."""


@dataclass
class Recorder:
    """The store of one command; None until it is open, and where it cannot be reached."""

    guard: Guard
    store: Store | None = None
    parent: str | None = None

    @property
    def uri(self) -> str | None:
        """The store's address."""
        return None if self.store is None else self.store.uri

    def open(self, opening: Future[Store], directory: Path) -> None:
        """Take the store that another thread opened."""
        with self._recording("MLflow gets none of this", directory):
            self.store = opening.result()

    def begin_sweep(
        self, directory: Path, sweep_id: str, name: str, tags: Mapping[str, str], params: Mapping[str, object]
    ) -> None:
        """The sweep's run, new or taken up again."""
        if self.store is not None:
            with self._recording("the sweep has no run in MLflow", directory):
                self.parent = self.store.start_sweep(sweep_id, name, tags, params)

    def job(self, run: Run) -> None:
        """Record a job."""
        if self.store is None:  # said when it could not be opened
            self.guard.statuses.append(UNRECORDED)
            return
        with self._recording("the job was not recorded in MLflow", run.directory):
            self.store.log_job(run, self.parent)

    def catch_up(self, run: Run) -> None:
        """Record a job that an earlier command measured and could not record."""
        if self.store is not None:
            with self._recording("a job of an earlier command was not recorded in MLflow", run.directory):
                if self.store.find_job(run.result.job.id) is None:
                    self.store.log_job(run, self.parent)

    def supersede(self, run: Run) -> None:
        """Mark a job, now set aside, as replaced."""
        if self.store is not None:
            with self._recording("a job that is replaced was not marked in MLflow", run.directory):
                job_id = run.result.job.id
                self.store.supersede(self.store.find_job(job_id) or self.store.log_job(run, self.parent))

    def end_sweep(self, statuses: list[int], description: str, directory: Path) -> None:
        """Close the sweep's run with what came of its jobs."""
        if self.store is not None and self.parent is not None:
            with self._recording("the sweep's run in MLflow was not ended", directory):
                status = STATES.get(worst(statuses), "failed")
                self.store.finish_sweep(self.parent, status, description, directory)

    def _recording(self, what: str, directory: Path | None) -> AbstractContextManager[None]:
        return self.guard(what, relog_command(directory or Path()), UNRECORDED)
