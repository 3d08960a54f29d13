"""Pages that a person reads: one job at a glance, several stacks side by side.

Each page is one HTML file: styles and plots are inside it, nothing is fetched, it reads in light, in dark and on paper.
Every plot is also left beside the page as PNG.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from llmexp.compare.model import Comparison
    from llmexp.results.run import Run


def job(run: Run) -> list[Path]:
    """Write `report.html`, `timeline.png` and `latency.png` of a job into its directory; the files written."""
    from llmexp.report.job_page import write

    return write(run)


def comparison(compared: Comparison, directory: Path) -> list[Path]:
    """Write `comparison.html` and its plots into a directory; the files written."""
    from llmexp.report.comparison_page import write

    return write(compared, directory)
