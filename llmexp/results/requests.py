"""The requests of a run as arrays, a value for each request.

Only columns that a comparison needs are kept (some 100 bytes a request), so that a hundred runs fit in memory.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from numpy.typing import NDArray

from llmexp import records
from llmexp.errors import ResultError
from llmexp.secrets import trimmed

Floats = NDArray[np.float64]
Bools = NDArray[np.bool_]
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
    "turn",
    "prompt_digest",
    "right",
    "answer_digest",
)
_WORDS = ("index", "status", "chunk_tokens", "prompt_digest", "answer_digest", "right")
"""Columns that are no numbers."""


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
    turn: Floats
    """Of its session, from 0; NaN where the file is too old to say."""
    digest: NDArray[np.bytes_]
    """The first 16 characters of the prompt's digest."""
    right: Floats
    """1 or 0; NaN: no grade."""
    answer: NDArray[np.bytes_]
    """The answer's digest; empty where there is no whole answer, or the file is too old to say."""

    @property
    def graded(self) -> bool:
        """Whether any answer has a grade."""
        return bool(np.isfinite(self.right).any())

    def __len__(self) -> int:
        return len(self.index)

    def of(self, metric: str) -> Floats | None:
        """A metric's values of the completed requests in the order sent; None for metrics that are not per request."""
        if metric not in PER_REQUEST:
            return None
        values = self.column(metric)[self.completed]
        return values[np.isfinite(values)]

    def column(self, metric: str) -> Floats:
        """A metric's value for every request, NaN where there is none."""
        values: Floats = getattr(self, metric)
        return values


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


def load_requests(directory: Path) -> Requests:
    """The requests of a job from either form of the file; none where there is no file.

    `ResultError` where the file is broken or is none of ours.
    """
    try:
        if (directory / records.ARROWS).exists():
            table = records.read(directory).select(list(COLUMNS))
        elif (directory / records.PARQUET).exists():
            table = _read_parquet(directory / records.PARQUET)
        else:
            table = records.schema().empty_table()
        return from_table(table)
    except (OSError, ValueError, KeyError, TypeError) as error:
        why = trimmed(" ".join(str(error).split()), 200)
        raise ResultError(f"{directory}: its requests cannot be read ({why})") from None


def _read_parquet(path: Path) -> pa.Table:
    """The columns of interest; what a file of an earlier version lacks is null."""
    held = set(pq.read_schema(path).names)
    table = pq.read_table(path, columns=[name for name in COLUMNS if name in held], use_threads=False)
    for name in COLUMNS:
        if name in ("right", "answer_digest", "turn") and name not in held:
            table = table.append_column(name, pa.nulls(table.num_rows, records.schema().field(name).type))
    return table


def from_table(table: pa.Table) -> Requests:
    """Arrays from the columns of `requests.parquet`."""
    floats = {name: _floats(table, name) for name in COLUMNS if name not in _WORDS}
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
        turn=floats["turn"],
        digest=table["prompt_digest"].to_numpy(zero_copy_only=False)[order].astype("S16"),
        right=table["right"].cast(pa.float64()).to_numpy(zero_copy_only=False)[order],
        answer=table["answer_digest"].fill_null("").to_numpy(zero_copy_only=False)[order].astype("S16"),
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
