"""One job's `Result`, its directory, and the `Run` that readers take."""

from llmexp.results.result import (
    RESULT,
    SCHEMA_VERSION,
    JsonObject,
    build,
    read,
    remarks,
    strict,
    timestamp,
    write,
    write_json,
)

__all__ = [
    "RESULT",
    "SCHEMA_VERSION",
    "JsonObject",
    "build",
    "read",
    "remarks",
    "strict",
    "timestamp",
    "write",
    "write_json",
]
