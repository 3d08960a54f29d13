"""What a person sees on stderr while a job runs: a bar in a terminal, a line now and then elsewhere."""

from __future__ import annotations

import logging
import sys
import time
from collections import Counter
from types import TracebackType
from typing import TYPE_CHECKING

from llmexp.config import Config

if TYPE_CHECKING:
    from rich.progress import Progress as RichProgress
    from rich.progress import TaskID

log = logging.getLogger("llmexp")
LINE_EVERY_S = 15.0


class Progress:
    """A context for one job; `update` takes the counts so far."""

    def __init__(self, config: Config, name: str, *, quiet: bool = False) -> None:
        self._most = config.max_requests
        self._timeout_s = config.run.timeout_s
        self._name = name
        self._quiet = quiet
        self._bar: RichProgress | None = None
        self._task: TaskID | None = None
        self._said = time.monotonic()

    def __enter__(self) -> Progress:
        if not self._quiet and sys.stderr.isatty():
            self._bar = _bar()
            self._bar.start()
            self._task = self._bar.add_task(self._name, total=self._most or self._timeout_s, state="getting ready")
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._bar is not None:
            self._bar.stop()

    def begin(self, config: Config, name: str) -> None:
        """Start over for the next load of the same job."""
        self._most, self._timeout_s, self._name = config.max_requests, config.run.timeout_s, name
        if self._bar is not None and self._task is not None:
            total = self._most or self._timeout_s
            self._bar.reset(self._task, total=total, description=name, state="getting ready")

    def say(self, state: str) -> None:
        """What goes on before the clock."""
        if self._bar is not None and self._task is not None:
            self._bar.update(self._task, state=state)

    def update(self, counts: Counter[str], elapsed_s: float) -> None:
        """Counts of requests and tokens after `elapsed_s` of load."""
        ended = counts["completed"] + counts["failed"] + counts["unfinished"]
        state = _state(counts, elapsed_s)
        if self._bar is not None and self._task is not None:
            done = ended if self._most is not None else min(elapsed_s, self._timeout_s)
            self._bar.update(self._task, completed=done, state=state)
        elif not self._quiet and time.monotonic() - self._said > LINE_EVERY_S:
            self._said = time.monotonic()
            of = f" of {self._most}" if self._most else ""
            log.info("%s: %d%s requests after %.0f s, %s", self._name, ended, of, elapsed_s, state)


def _state(counts: Counter[str], elapsed_s: float) -> str:
    rate = counts["output_tokens"] / elapsed_s if elapsed_s > 0 else 0.0
    failed = f"  {counts['failed']} failed" if counts["failed"] else ""
    return f"{rate:,.0f} tok/s{failed}"


def _bar() -> RichProgress:
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

    return Progress(
        TextColumn("{task.description}", style="bold", markup=False),
        BarColumn(bar_width=28),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        TextColumn("{task.fields[state]}", style="cyan", markup=False),
        console=Console(stderr=True),
        transient=True,
        refresh_per_second=4,
    )
