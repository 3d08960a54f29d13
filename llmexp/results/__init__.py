"""One job's `Result`, its directory, and the `Run` that readers take."""

from llmexp.results.build import build, remarks
from llmexp.results.files import RESULT, parse, put, read, replacing, strict, tree_of, write, write_json
from llmexp.results.model import SCHEMA_VERSION, JobInfo, Metrics, Result, Spread, timestamp
from llmexp.results.run import Run, load_runs

__all__ = [
    "RESULT",
    "SCHEMA_VERSION",
    "JobInfo",
    "Metrics",
    "Result",
    "Run",
    "Spread",
    "build",
    "load_runs",
    "parse",
    "put",
    "read",
    "remarks",
    "replacing",
    "strict",
    "timestamp",
    "tree_of",
    "write",
    "write_json",
]
