"""What a command tells the tracking store: its sweep, its jobs, its end.

What the store refuses is said and remembered as an exit status; the files are complete all the same.
"""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Iterator, Mapping
from concurrent.futures import Future
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from llmexp.errors import INTERRUPTED, MISSED, OK, UNRECORDED, RecordingError, worst

if TYPE_CHECKING:
    from llmexp.tracking import Store

log = logging.getLogger("llmexp")
STATES = {OK: "finished", MISSED: "finished", UNRECORDED: "finished", INTERRUPTED: "interrupted"}
"""Exit status → status of a sweep's run; any other is `failed`."""


@dataclass
class Recorder:
    """The store of one command; None until it is open, and where it cannot be reached."""

    store: Store | None = None
    parent: str | None = None
    statuses: list[int] = field(default_factory=list)

    @property
    def uri(self) -> str | None:
        """The store's address."""
        return None if self.store is None else self.store.uri

    def open(self, opening: Future[Store]) -> None:
        """Take the store that another thread opened."""
        with self._recording():
            self.store = opening.result()

    def begin_sweep(self, sweep_id: str, name: str, tags: Mapping[str, str], params: Mapping[str, object]) -> None:
        """The sweep's run, new or taken up again."""
        if self.store is not None:
            with self._recording():
                self.parent = self.store.start_sweep(sweep_id, name, tags, params)

    def job(self, directory: Path) -> int:
        """Record a job from its files; the status that follows."""
        if self.store is None:
            return UNRECORDED
        before = len(self.statuses)
        with self._recording():
            self.store.log_job(directory, self.parent)
        return UNRECORDED if len(self.statuses) > before else OK

    def catch_up(self, directory: Path, job_id: str) -> None:
        """Record a job that an earlier command measured and could not record."""
        if self.store is not None:
            with self._recording():
                if self.store.find_job(job_id) is None:
                    self.store.log_job(directory, self.parent)

    def supersede(self, directory: Path, job_id: str) -> None:
        """Mark a job, now set aside in `directory`, as replaced."""
        if self.store is not None:
            with self._recording():
                self.store.supersede(self.store.find_job(job_id) or self.store.log_job(directory, self.parent))

    def end_sweep(self, statuses: list[int], description: str, directory: Path) -> None:
        """Close the sweep's run with what came of its jobs."""
        if self.store is not None and self.parent is not None:
            with self._recording():
                status = STATES.get(worst(statuses), "failed")
                self.store.finish_sweep(self.parent, status, description, directory)

    @contextlib.contextmanager
    def _recording(self) -> Iterator[None]:
        try:
            yield
        except RecordingError as error:
            log.error("%s", error)  # noqa: TRY400 -- one clear message, no traceback
            self.statuses.append(UNRECORDED)
