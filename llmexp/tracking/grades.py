"""A job's grades as MLflow takes a table: at most 1,000, wrong ones first; texts where they were kept."""

from __future__ import annotations

from pathlib import Path

from llmexp import records

FILE = "grades.json"
MOST = 1000
COLUMNS = ("index", "grade_status", "score", "right", "truncated", "grade_note", "prompt_digest", "answer_digest")
TEXTS = ("question", "text", "tool_calls", "expected")


def table(job_dir: Path) -> dict[str, list[object]] | None:
    """Columns and rows, as pandas' `split` orientation has them; None for a job that was not graded."""
    if not records.exists(job_dir):
        return None
    wrong: list[dict[str, object]] = []
    others: list[dict[str, object]] = []
    for batch in records.iterate(job_dir):
        for row in batch.select([*COLUMNS, *TEXTS]).to_pylist():
            if row["grade_status"] is None:
                continue
            some = wrong if row["right"] is False else others
            if len(some) < MOST:
                some.append(row)
    chosen = [*wrong, *sorted(others, key=lambda row: row["right"] is not None)][:MOST]
    if not chosen:
        return None
    names = [*COLUMNS, *(name for name in TEXTS if any(row[name] is not None for row in chosen))]
    return {"columns": list(names), "data": [[row[name] for name in names] for row in chosen]}
