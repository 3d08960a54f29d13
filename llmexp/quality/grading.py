"""A job's answers on disk → grades → the columns of `requests.parquet`."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from llmexp import records
from llmexp.quality.grade import Given, Grade, Grader
from llmexp.quality.texts import without_thoughts
from llmexp.workload.request import Request, ToolCall

if TYPE_CHECKING:
    import pyarrow as pa

TEXTS = ("text", "tool_calls", "question", "expected")
"""Columns that are kept until graded, then under `run.save_text`."""
_READ = ("index", "status", *TEXTS)
RequestOf = Callable[[int], Request | None]


def answers(directory: Path, request_of: RequestOf | None = None) -> Iterator[tuple[int, Given]]:
    """(row, answer) of each completed request, in the file's order; `request_of` gives an index's request again."""
    row = 0
    for batch in records.iterate(directory):
        for each in batch.select(list(_READ)).to_pylist():
            if each["status"] == "completed":
                yield row, _given(each, request_of)
            row += 1


def _given(each: Mapping[str, object], request_of: RequestOf | None) -> Given:
    index, expected = each["index"], each["expected"]
    return Given(
        text=without_thoughts(str(each["text"] or "")),
        expected=json.loads(expected) if isinstance(expected, str) else None,
        tool_calls=tuple(_calls(each["tool_calls"])),
        question=str(each["question"] or ""),
        request=request_of(index) if request_of is not None and isinstance(index, int) else None,
    )


def _calls(column: object) -> Iterator[ToolCall]:
    for call in json.loads(column) if isinstance(column, str) else ():
        yield ToolCall(str(call.get("id") or ""), str(call.get("name") or ""), str(call.get("arguments") or ""))


def grade_all(directory: Path, grader: Grader, request_of: RequestOf | None = None) -> dict[int, Grade]:
    """Row → grade, of every completed request."""
    return {row: grader(given) for row, given in answers(directory, request_of)}


def has_texts(directory: Path) -> bool:
    """Whether the job kept what a grader needs."""
    return any(given.text or given.tool_calls for _, given in answers(directory))


def attach(directory: Path, grades: Mapping[int, Grade], *, keep_texts: bool) -> None:
    """Write the grades into `requests.parquet`, and drop the texts unless they are to be kept."""
    start = 0

    def change(batch: pa.RecordBatch) -> pa.RecordBatch:
        nonlocal start
        here = [grades.get(row) for row in range(start, start + batch.num_rows)]
        start += batch.num_rows
        values: dict[str, list[object]] = {
            "score": [grade and grade.score for grade in here],
            "right": [grade and grade.right for grade in here],
            "grade_status": [grade and grade.status for grade in here],
            "grade_note": [grade and (grade.note if keep_texts or not grade.quotes else None) for grade in here],
        }
        if not keep_texts:
            values |= {name: [None] * batch.num_rows for name in TEXTS}
        return _with(batch, values)

    records.rewrite(directory, change)


def _with(batch: pa.RecordBatch, values: Mapping[str, list[object]]) -> pa.RecordBatch:
    import pyarrow as pa

    columns = [
        pa.array(values[field.name], field.type) if field.name in values else batch.column(field.name)
        for field in batch.schema
    ]
    return pa.record_batch(columns, schema=batch.schema)
