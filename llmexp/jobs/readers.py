"""What is made of a job once its numbers are on disk: each reader in its turn, guarded.

`write_files` is what lies in the job's own folder; it is done again for what is missing by `python -m llmexp.relog`.
"""

from __future__ import annotations

import contextlib
import importlib

from llmexp.results import Run
from llmexp.results.guard import Guard, relog_command


def load() -> None:
    """Import what draws and writes: a second or two, better spent while Ray starts than between two jobs."""
    with contextlib.suppress(Exception):  # met again, and told, by the reader itself
        importlib.import_module("llmexp.report.job_page")
        importlib.import_module("llmexp.llmperf.files")


def write_missing(run: Run, guard: Guard) -> None:
    """What a finished job's folder lacks of `write_files`."""
    directory = run.directory
    if directory is None or (run.result.status == "interrupted" and not run.result.metrics):
        return
    if not ((directory / "report.html").exists() and any(directory.glob("*summary.json"))):
        write_files(run, guard)


def write_files(run: Run, guard: Guard) -> None:
    """LLMPerf's two files and the page with its plots, into the job's folder."""
    from llmexp.records import exists

    if run.directory is None or not exists(run.directory):
        return
    later = relog_command(run.directory)
    with guard("LLMPerf's files were not written", later):
        from llmexp.llmperf import files

        files.write_job(run)
    with guard("report.html was not drawn", later):
        from llmexp import report

        report.job(run, guard)
