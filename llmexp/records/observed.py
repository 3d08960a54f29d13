"""What was observed, as numpy arrays: one entry a request, and the chunks of all requests in flat pieces.

The step between Arrow batches and numbers. It copies out of each batch what the numbers need, so a job of millions of
chunks costs 12 bytes a chunk and its texts are never held. Times are integers in ns of the workers' clock; a time that
does not exist is `MISSING`.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple, TypeAlias

import numpy as np
from numpy.typing import NDArray

from llmexp import records

if TYPE_CHECKING:
    import pyarrow as pa

Ints = NDArray[np.int64]
Floats = NDArray[np.float64]
Bools = NDArray[np.bool_]

Column: TypeAlias = NDArray[np.generic]

MISSING = np.iinfo(np.int64).min
"""Stands for a time or a count that does not exist."""
EXAMPLES = 3
PIECE_ROWS = 2048
"""Requests handled at once, so that a table of one huge batch costs no more memory than many small ones."""

_INTEGERS = (
    "index",
    "intended_ns",
    "dispatched_ns",
    "sent_ns",
    "first_byte_ns",
    "first_token_ns",
    "first_answer_token_ns",
    "last_token_ns",
    "end_ns",
    "input_tokens",
    "output_tokens",
    "reasoning_tokens",
    "cached_tokens",
    "input_tokens_counted",
    "output_tokens_counted",
    "max_tokens",
    "stale_connections",
    "turn",
    "session",
    "session_turns",
    "first_tool_call_ns",
    "cache_write_tokens",
)
_REALS = ("wait_s", "connect_s", "server_latency_s", "score")
_STATUSES = ("completed", "failed", "unfinished")
_GRADES = ("graded", "unparsed", "ungraded")
_PLAIN_FLAGS = ("reasoning_streamed", "right", "truncated", "off_script")
_FLAGS = (*_STATUSES, *_GRADES, *_PLAIN_FLAGS, "usage_from_server")
_TOTALS = ("streamed_tokens", "first_chunk_tokens")
_COUNTED = ("input_tokens", "output_tokens", "reasoning_tokens", "cached_tokens", "chunk_tokens")


class Chunks(NamedTuple):
    """Chunks of consecutive requests, flat."""

    lengths: Ints
    """Chunks of each request."""
    at_ns: Ints
    tokens: NDArray[np.int32]

    @property
    def owners(self) -> Ints:
        """Which of these requests each chunk belongs to."""
        return np.repeat(np.arange(len(self.lengths)), self.lengths)

    @property
    def is_first(self) -> Bools:
        """True at the first chunk of each request."""
        flags = np.zeros(len(self.at_ns), dtype=bool)
        filled = self.lengths > 0
        flags[(np.cumsum(self.lengths) - self.lengths)[filled]] = True
        return flags


@dataclass
class Failures:
    """Failed requests of one class."""

    count: int = 0
    codes: Counter[str] = field(default_factory=Counter)
    examples: list[dict[str, object]] = field(default_factory=list)
    """The first few that differ in code or message."""

    def add(self, index: int, code: str | None, message: str | None) -> None:
        """Count one more."""
        self.count += 1
        self.codes[code or "none"] += 1
        seen = {(one["code"], one["message"]) for one in self.examples}
        if len(self.examples) < EXAMPLES and (code, message) not in seen:
            self.examples.append({"index": index, "code": code, "message": message})


@dataclass(frozen=True, kw_only=True)
class Observed:
    """All requests of a job. Arrays have an entry for each request, in the order written."""

    index: Ints
    intended_ns: Ints
    dispatched_ns: Ints
    sent_ns: Ints
    first_byte_ns: Ints
    first_token_ns: Ints
    first_answer_token_ns: Ints
    last_token_ns: Ints
    end_ns: Ints
    input_tokens: Ints
    output_tokens: Ints
    reasoning_tokens: Ints
    cached_tokens: Ints
    input_tokens_counted: Ints
    output_tokens_counted: Ints
    max_tokens: Ints
    stale_connections: Ints
    turn: Ints
    session: Ints
    session_turns: Ints
    first_tool_call_ns: Ints
    cache_write_tokens: Ints
    wait_s: Floats
    connect_s: Floats
    server_latency_s: Floats
    """NaN where the server sent none."""
    completed: Bools
    failed: Bools
    unfinished: Bools
    reasoning_streamed: Bools
    usage_from_server: Bools
    """True where the server stated input or output tokens."""
    score: Floats
    """NaN where there is no grade."""
    right: Bools
    truncated: Bools
    off_script: Bools
    graded: Bools
    unparsed: Bools
    ungraded: Bools
    """At most one of these three is true; none where the request failed or nothing is graded."""
    streamed_tokens: Ints
    first_chunk_tokens: Ints
    pieces: list[Chunks]
    failures: dict[str, Failures]
    """By error class."""
    errors: dict[int, tuple[str, str]]
    """Position of each failed request → its code (the class where it has none) and message."""
    sources: dict[str, Counter[str]]
    """For each count: how many completed requests have it from which source."""
    finish_reasons: Counter[str]
    remarks: Counter[str]
    """Remark on a stream → how many requests have it."""
    contradicted: int
    """Completed requests with a count of the server's that their streams do not bear out."""

    def __len__(self) -> int:
        return len(self.completed)

    def chunks(self) -> Iterator[tuple[slice, Chunks]]:
        """The pieces, each with the requests it belongs to."""
        start = 0
        for piece in self.pieces:
            yield slice(start, start + len(piece.lengths)), piece
            start += len(piece.lengths)


def known(*columns: Ints) -> Bools:
    """Where all of these exist."""
    flags: Bools = columns[0] != MISSING
    for column in columns[1:]:
        flags &= column != MISSING
    return flags


def observe(source: Path | pa.Table | Iterable[pa.RecordBatch]) -> Observed:
    """Read a job's requests: a job's directory, a table, or batches (each is let go once it is read)."""
    batches = records.iterate(source) if isinstance(source, Path) else source
    if hasattr(batches, "to_batches"):
        batches = batches.to_batches()
    reader = _Reader()
    for batch in batches:
        for start in range(0, batch.num_rows, PIECE_ROWS):
            reader.add(batch.slice(start, PIECE_ROWS))
    return reader.done()


class _Reader:
    """Gathers batches."""

    def __init__(self) -> None:
        self._parts: dict[str, list[Column]] = {}
        self._pieces: list[Chunks] = []
        self._failures: dict[str, Failures] = {}
        self._errors: dict[int, tuple[str, str]] = {}
        self._rows = 0
        self._sources: dict[str, Counter[str]] = {name: Counter() for name in _COUNTED}
        self._reasons: Counter[str] = Counter()
        self._remarks: Counter[str] = Counter()
        self._contradicted = 0

    def add(self, batch: pa.RecordBatch) -> None:
        for name in _INTEGERS:
            self._keep(name, _integers(batch.column(name)))
        for name in _REALS:
            self._keep(name, batch.column(name).cast("float64").to_numpy(zero_copy_only=False).copy())
        for name in _PLAIN_FLAGS:
            self._keep(name, batch.column(name).fill_null(fill_value=False).to_numpy(zero_copy_only=False).astype(bool))
        stated = [
            np.asarray(batch.column(f"{name}_tokens_source").to_pylist()) == "server" for name in ("input", "output")
        ]
        self._keep("usage_from_server", stated[0] | stated[1])
        status = np.asarray(batch.column("status").to_pylist())
        for name in _STATUSES:
            self._keep(name, status == name)
        grade = np.asarray(batch.column("grade_status").to_pylist())
        for name in _GRADES:
            self._keep(name, grade == name)
        self._add_chunks(batch)
        self._add_words(batch, status)

    def _keep(self, name: str, values: Column) -> None:
        self._parts.setdefault(name, []).append(values)

    def _add_chunks(self, batch: pa.RecordBatch) -> None:
        at, tokens = batch.column("chunk_ns"), batch.column("chunk_tokens")
        lengths = at.value_lengths().fill_null(0).to_numpy(zero_copy_only=False).astype(np.int64)
        at_ns, counts = at.flatten().to_numpy().copy(), tokens.flatten().to_numpy().copy()
        piece = Chunks(lengths, at_ns, counts)
        sums = np.bincount(piece.owners, weights=counts, minlength=len(lengths)).astype(np.int64)
        firsts = np.zeros(len(lengths), dtype=np.int64)
        firsts[lengths > 0] = counts[piece.is_first]
        self._pieces.append(piece)
        self._keep("streamed_tokens", sums)
        self._keep("first_chunk_tokens", firsts)

    def _add_words(self, batch: pa.RecordBatch, status: Column) -> None:
        for at in np.flatnonzero(status == "failed"):
            index, kind, code, message = (
                batch.column(name)[int(at)].as_py() for name in ("index", "error_class", "error_code", "error_message")
            )
            self._failures.setdefault(kind or "client", Failures()).add(index, code, message)
            self._errors[self._rows + int(at)] = (code or kind or "client", message or "")
        self._rows += batch.num_rows
        names = [f"{name}_source" for name in _COUNTED]
        done = batch.select([*names, "finish_reason"]).filter(_mask(status == "completed"))
        for name, counter in self._sources.items():
            counter.update(value for value in done.column(f"{name}_source").to_pylist() if value is not None)
        if "remarks" in batch.schema.names:
            remarks = batch.column("remarks")
            self._remarks.update(remarks.flatten().to_pylist())
            of_completed = remarks.filter(_mask(status == "completed")).to_pylist()
            self._contradicted += sum(not records.REFUSED.isdisjoint(row or ()) for row in of_completed)
        self._reasons.update(value or "none" for value in done.column("finish_reason").to_pylist())

    def done(self) -> Observed:
        whole: dict[str, Any] = {name: self._whole(name) for name in (*_INTEGERS, *_REALS, *_FLAGS, *_TOTALS)}
        return Observed(
            **whole,
            pieces=self._pieces,
            failures=self._failures,
            errors=self._errors,
            sources=self._sources,
            finish_reasons=self._reasons,
            remarks=self._remarks,
            contradicted=self._contradicted,
        )

    def _whole(self, name: str) -> Column:
        if name in self._parts:
            return np.concatenate(self._parts.pop(name))
        return np.empty(0, dtype=float if name in _REALS else bool if name in _FLAGS else np.int64)


def _integers(column: pa.Array) -> Ints:
    return np.array(column.cast("int64").fill_null(MISSING).to_numpy(zero_copy_only=False), dtype=np.int64)


def _mask(flags: Bools) -> pa.Array:
    import pyarrow as pa

    return pa.array(flags)
