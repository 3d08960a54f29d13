"""Records for tests of the numbers: built from seconds, so that a case reads like a timeline."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pyarrow as pa

from llmexp.records import Record, from_batch, schema, to_batch

BASE_NS = 5_000_000_000


def ns(seconds: float | None) -> int | None:
    """A moment of the timeline as a clock reading."""
    return None if seconds is None else BASE_NS + round(seconds * 1e9)


def record(
    index: int = 0,
    *,
    sent: float | None = 0.0,
    chunks: Sequence[float] = (),
    tokens: Sequence[int] | None = None,
    end: float | None = None,
    intended: float | None = None,
    dispatched: float | None = None,
    status: str = "completed",
    **rest: Any,
) -> Record:
    """A request whose chunks arrive at these seconds."""
    begin = intended if intended is not None else (sent or 0.0)
    counts = list(tokens) if tokens is not None else [1] * len(chunks)
    stamps = [ns(at) for at in chunks]
    defaults = {
        "first_token_ns": stamps[0] if stamps else None,
        "first_answer_token_ns": stamps[0] if stamps else None,
        "last_token_ns": stamps[-1] if stamps else None,
        "first_byte_ns": stamps[0] if stamps else None,
        "end_ns": ns(end) if end is not None else (stamps[-1] if stamps else None),
        "input_tokens": 10,
        "input_tokens_source": "server",
        "input_tokens_counted": 10,
        "output_tokens": sum(counts),
        "output_tokens_source": "server",
        "chunk_tokens_source": "server",
        "max_tokens": sum(counts) or 1,
        "finish_reason": "stop" if status == "completed" else None,
        "prompt_digest": f"{index:04x}",
    }
    return Record(
        index=index,
        worker=0,
        status=status,
        intended_ns=ns(begin),
        dispatched_ns=ns(begin if dispatched is None else dispatched),
        sent_ns=ns(sent),
        chunk_ns=stamps,
        chunk_tokens=counts,
        **{**defaults, **rest},
    )


def failure(index: int = 0, kind: str = "server", code: str = "500", **rest: Any) -> Record:
    """A request that failed without a token."""
    plain = {"output_tokens": None, "output_tokens_source": None, "input_tokens": None, "input_tokens_source": None}
    words = {"error_class": kind, "error_code": code, "error_message": f"{kind} {code}"}
    return record(index, status="failed", **{**plain, **words, **rest})


def table(records: Sequence[Record]) -> pa.Table:
    """The records as a reader gets them."""
    return pa.Table.from_batches([from_batch(to_batch(records))], schema=schema())
