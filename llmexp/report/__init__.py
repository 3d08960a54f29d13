"""Pages that a person reads: one job at a glance, several stacks side by side.

Each page is one HTML file: styles and plots are inside it, nothing is fetched, it reads in light, in dark and on paper.
Every plot is also left beside the page as PNG. A plot that cannot be drawn is told to the guard, and costs only itself.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from llmexp.results.guard import Guard

if TYPE_CHECKING:
    from llmexp.compare.model import Comparison
    from llmexp.results.run import Run


def job(run: Run, guard: Guard | None = None) -> list[Path]:
    """Write `report.html`, `.md`, `.csv` and plots of a job into its directory; the files written."""
    from llmexp.report.job_page import write

    return write(run, guard or Guard())


def comparison(compared: Comparison, directory: Path, guard: Guard | None = None) -> list[Path]:
    """Write `comparison.html` and its plots into a directory; the files written."""
    from llmexp.report.comparison_page import write

    return write(compared, directory, guard or Guard())
