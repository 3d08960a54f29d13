"""A finished job as the comparison sees it: its `result.json` and the numbers of its requests.

Only columns that a comparison needs are kept (some 100 bytes a request), so that a hundred runs fit in memory.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from numpy.typing import NDArray

from llmexp import records
from llmexp.config import flatten
from llmexp.errors import ConfigError

Floats = NDArray[np.float64]
Bools = NDArray[np.bool_]
RESULT = "result.json"
PROBES = "probes"
"""Where a capacity search keeps its probes; the job's own files speak for them."""
READERS = 4
"""Files decoded side by side; decoding Parquet leaves the interpreter free."""
REPLACED = re.compile(r"\.attempt\d+$")
"""Folders that a resumed sweep set aside."""
COLUMNS = (
    "index",
    "status",
    "intended_ns",
    "sent_ns",
    "first_token_ns",
    "last_token_ns",
    "end_ns",
    "chunk_tokens",
    "input_tokens",
    "output_tokens",
    "max_tokens",
    "prompt_digest",
)


@dataclass(frozen=True, slots=True)
class Requests:
    """A run's requests in the order they were sent, one array a column; what does not exist is NaN."""

    index: NDArray[np.int64]
    completed: Bools
    failed: Bools
    started_s: Floats
    """Sent, in seconds since the first send of the run."""
    ended_s: Floats
    ttft_s: Floats
    e2e_latency_s: Floats
    time_per_output_token_s: Floats
    response_ttft_s: Floats
    response_latency_s: Floats
    input_tokens: Floats
    output_tokens: Floats
    max_tokens: Floats
    digest: NDArray[np.bytes_]
    """The first 16 characters of the prompt's digest."""

    def __len__(self) -> int:
        return len(self.index)

    def of(self, metric: str) -> Floats | None:
        """A metric's values of the completed requests in the order sent; None for metrics that are not per request."""
        if metric not in PER_REQUEST:
            return None
        values: Floats = getattr(self, metric)[self.completed]
        return values[np.isfinite(values)]


PER_REQUEST = frozenset(
    {
        "ttft_s",
        "e2e_latency_s",
        "time_per_output_token_s",
        "response_ttft_s",
        "response_latency_s",
        "input_tokens",
        "output_tokens",
    }
)


@dataclass(frozen=True)
class Run:
    """One job, finished or not."""

    result: Mapping[str, Any]
    requests: Requests
    directory: Path | None = None
    values: Mapping[str, float] = field(default_factory=dict)
    """Summary name (`ttft_s/p95`, `cost_usd`) → value; what does not exist is missing."""

    @property
    def job(self) -> Mapping[str, Any]:
        """Who this run is: id, model, repeat, sweep, …"""
        return self.result.get("job") or {}

    @property
    def config(self) -> Mapping[str, Any]:
        """The composed configuration."""
        return self.result.get("config") or {}

    @cached_property
    def settings(self) -> dict[str, Any]:
        """The configuration, flattened with dots."""
        return flatten(self.config)

    @property
    def name(self) -> str:
        """What a person calls this job."""
        return str(self.job.get("name") or self.job.get("id") or (self.directory.name if self.directory else "run"))

    @property
    def block(self) -> int:
        """The repeat that this run belongs to."""
        return int(self.job.get("repeat") or 0)

    @property
    def verdict(self) -> str:
        """`valid`, `degraded` or `invalid`: could the client measure that?"""
        return str((self.result.get("validity") or {}).get("verdict") or "valid")

    @property
    def rehearsal(self) -> bool:
        """Whether the simulator played the model."""
        return bool(self.job.get("rehearsal") or self.config.get("rehearse"))

    @property
    def searched(self) -> bool:
        """Whether this is a capacity search, whose numbers are those of the load where it ended."""
        return "capacity/estimate" in self.values

    @property
    def usable(self) -> bool:
        """Whether there is anything to compare."""
        return bool(self.values) and bool(self.requests.completed.any())

    @property
    def open_loop(self) -> bool:
        """Whether requests were sent by a schedule, whatever the answers did."""
        load = self.config.get("load") or {}
        return load.get("kind", "closed") != "closed" and not (
            load.get("kind") == "ramp" and load.get("of") == "concurrency"
        )


def find(directories: Iterable[Path]) -> list[Path]:
    """Job directories at or right below each directory, without the ones that a resumed sweep replaced."""
    found: dict[Path, None] = {}
    for directory in directories:
        if (directory / RESULT).is_file():
            found[directory] = None
            continue
        if not directory.is_dir():
            raise ConfigError(f"{directory}: no such directory; give a sweep's or a job's output directory")
        jobs = [path.parent for path in directory.glob(f"*/{RESULT}")] or [
            path.parent for path in directory.rglob(RESULT) if path.parent.parent.name != PROBES
        ]
        found |= dict.fromkeys(sorted(jobs, key=_natural))
    return [path for path in found if not REPLACED.search(path.name)]


def _natural(path: Path) -> list[Any]:
    """Sort key that puts job 10 after job 9."""
    return [(int(part), "") if part.isdigit() else (-1, part) for part in re.split(r"(\d+)", str(path))]


def load_run(directory: Path) -> Run:
    """Read one job directory; a job without requests (failed before its load) gives an empty run."""
    try:
        result = json.loads((directory / RESULT).read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise ConfigError(f"{directory / RESULT}: cannot be read ({error}); is this a job's directory?") from None
    return Run(result, load_requests(directory), directory, summary(result.get("metrics") or {}))


def summary(metrics: Mapping[str, Any]) -> dict[str, float]:
    """The nested summary as `{"ttft_s/p95": 0.2}`, numbers only."""
    flat = {name.replace(".", "/"): value for name, value in flatten(metrics).items()}
    return {
        name: float(value)
        for name, value in flat.items()
        if isinstance(value, int | float) and not isinstance(value, bool)
    }


def load_requests(directory: Path) -> Requests:
    """The requests of a job from either form of the file; none where there is no file."""
    if (directory / records.ARROWS).exists():
        table = records.read(directory).select(list(COLUMNS))
    elif (directory / records.PARQUET).exists():
        table = pq.read_table(directory / records.PARQUET, columns=list(COLUMNS), use_threads=False)
    else:
        table = records.schema().empty_table()
    return from_table(table)


def from_table(table: pa.Table) -> Requests:
    """Arrays from the columns of `requests.parquet`."""
    floats = {
        name: _floats(table, name)
        for name in COLUMNS
        if name not in ("index", "status", "chunk_tokens", "prompt_digest")
    }
    order = np.argsort(np.where(np.isnan(floats["sent_ns"]), floats["intended_ns"], floats["sent_ns"]), kind="stable")
    floats = {name: values[order] for name, values in floats.items()}
    sent, first, last = floats["sent_ns"], floats["first_token_ns"], floats["last_token_ns"]
    start = np.nanmin(sent) if np.isfinite(sent).any() else 0.0
    completed, failed = (pc.equal(table["status"], status).to_numpy()[order] for status in ("completed", "failed"))
    later = _tokens_after_first_chunk(table["chunk_tokens"])[order]
    return Requests(
        index=table["index"].to_numpy()[order],
        completed=completed,
        failed=failed,
        started_s=(sent - start) / 1e9,
        ended_s=(np.where(np.isnan(floats["end_ns"]), last, floats["end_ns"]) - start) / 1e9,
        ttft_s=(first - sent) / 1e9,
        e2e_latency_s=(last - sent) / 1e9,
        time_per_output_token_s=(last - first) / 1e9 / later,
        response_ttft_s=(first - floats["intended_ns"]) / 1e9,
        response_latency_s=(last - floats["intended_ns"]) / 1e9,
        input_tokens=floats["input_tokens"],
        output_tokens=floats["output_tokens"],
        max_tokens=floats["max_tokens"],
        digest=table["prompt_digest"].to_numpy(zero_copy_only=False)[order].astype("S16"),
    )


def _floats(table: pa.Table, name: str) -> Floats:
    """An integer column as floats. Stamps are ns since boot: exact for a hundred days, then to within 2 ns."""
    values: Floats = table[name].cast(pa.float64(), safe=False).to_numpy(zero_copy_only=False)
    return values


def _tokens_after_first_chunk(column: pa.ChunkedArray) -> Floats:
    """Tokens of each request's later chunks; NaN where it had one chunk or none."""
    tokens = np.zeros(len(column))
    at = 0
    for part in column.chunks:
        flat, offsets = part.flatten().to_numpy(zero_copy_only=False), part.offsets.to_numpy() - part.offsets[0].as_py()
        starts, filled = offsets[:-1], np.diff(offsets) > 0
        if filled.any():
            tokens[at : at + len(part)][filled] = np.add.reduceat(flat, starts[filled]) - flat[starts[filled]]
        at += len(part)
    return np.where(tokens > 0, tokens, np.nan)


def load_runs(directories: Sequence[Path]) -> list[Run]:
    """All runs at or below the directories; at least one must be there."""
    with ThreadPoolExecutor(READERS) as pool:
        runs = list(pool.map(load_run, find(directories)))
    if not runs:
        raise ConfigError(f"{', '.join(map(str, directories))}: no job has finished here yet ({RESULT} not found)")
    return runs
