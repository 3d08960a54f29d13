"""What a person sees on stderr while a job runs: a bar in a terminal, a line now and then elsewhere."""

from __future__ import annotations

import logging
import sys
import time
from types import TracebackType
from typing import TYPE_CHECKING

from llmexp.config import Config
from llmexp.metrics.distributions import carries
from llmexp.metrics.so_far import SoFar, percentile
from llmexp.metrics.wording import duration

if TYPE_CHECKING:
    from rich.progress import Progress as RichProgress
    from rich.progress import TaskID

log = logging.getLogger("llmexp")
LINE_EVERY_S = 15.0
READY = "getting ready"
LONGEST_NAME, SHORTEST_BAR, WITHOUT_BAR = 24, 8, 98
"""Columns of the terminal: for the job's name at most, for the bar at least, and what all but the bar take."""


class Progress:
    """A context for one job; `update` takes what is known so far."""

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
            self._task = self._bar.add_task(self._name, total=self._most or self._timeout_s, state=READY, done="")
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
            self._bar.reset(self._task, total=total, description=name, state=READY, done="")

    def say(self, state: str) -> None:
        """What goes on before the clock."""
        if self._bar is not None and self._task is not None:
            self._bar.update(self._task, state=state)

    def update(self, seen: SoFar) -> None:
        """Requests, tokens and times to first token of the load until now."""
        counts, elapsed_s = seen.counts, seen.elapsed_s
        ended = counts["completed"] + counts["failed"] + counts["unfinished"]
        state = so_far(seen)
        if self._bar is not None and self._task is not None:
            done = ended if self._most is not None else min(elapsed_s, self._timeout_s)
            counted = f"{ended:,}/{self._most:,}" if self._most else f"{ended:,} requests"
            self._bar.update(self._task, completed=done, done=counted, state=state)
        elif not self._quiet and time.monotonic() - self._said > LINE_EVERY_S:
            self._said = time.monotonic()
            of = f" of {self._most}" if self._most else ""
            log.info("%s: %d%s requests after %.0f s, %s", self._name, ended, of, elapsed_s, state)


def so_far(seen: SoFar) -> str:
    """`3 failed · TTFT p50 201 ms, p95 ~250 ms · 163 tokens/s`, of what there is."""
    parts = [f"{seen.counts['failed']:,} failed"] if seen.counts["failed"] else []
    count = seen.ttft.total()
    p50, p95 = percentile(seen.ttft, 0.5), percentile(seen.ttft, 0.95)
    if p50 is not None and p95 is not None:
        marks = ["" if carries(count, name) else "~" for name in ("p50", "p95")]
        parts.append(f"TTFT p50 {marks[0]}{duration(p50)}, p95 {marks[1]}{duration(p95)}")
    rate = seen.counts["output_tokens"] / seen.elapsed_s if seen.elapsed_s > 0 else 0.0
    return " · ".join([*parts, f"{rate:,.0f} tokens/s"])


def _bar() -> RichProgress:
    """Name, bar, counts, time and numbers; in a narrow terminal without the bar, and the numbers take a second line."""
    from rich.console import Console
    from rich.progress import BarColumn, Progress, ProgressColumn, TextColumn, TimeElapsedColumn
    from rich.table import Column

    console = Console(stderr=True)
    width = min(28, console.width - WITHOUT_BAR)
    bar: list[ProgressColumn] = [BarColumn(bar_width=width)] if width >= SHORTEST_BAR else []
    name = Column(no_wrap=True, overflow="ellipsis", max_width=LONGEST_NAME)
    return Progress(
        TextColumn("{task.description}", style="bold", markup=False, table_column=name),
        *bar,
        TextColumn("{task.fields[done]}", style="green", markup=False, table_column=Column(no_wrap=True)),
        TimeElapsedColumn(table_column=Column(no_wrap=True)),
        TextColumn("{task.fields[state]}", style="cyan", markup=False, table_column=Column(no_wrap=False)),
        console=console,
        transient=True,
        refresh_per_second=4,
    )
