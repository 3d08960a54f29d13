"""One request's record, its file and its columns."""

from llmexp.records.clock import moved, take_out_drift
from llmexp.records.file import (
    ARROWS,
    PARQUET,
    SCHEMA_VERSION,
    Writer,
    anchor,
    exists,
    from_batch,
    iterate,
    metadata,
    read,
    records,
    rewrite,
    schema,
    to_batch,
    to_parquet,
)
from llmexp.records.record import REFUSED, REMARKS, GradeStatus, Record, Source, Status

__all__ = [
    "ARROWS",
    "PARQUET",
    "REFUSED",
    "REMARKS",
    "SCHEMA_VERSION",
    "GradeStatus",
    "Record",
    "Source",
    "Status",
    "Writer",
    "anchor",
    "exists",
    "from_batch",
    "iterate",
    "metadata",
    "moved",
    "read",
    "records",
    "rewrite",
    "schema",
    "take_out_drift",
    "to_batch",
    "to_parquet",
]
