"""Stamps moved from one clock to another: every column of times of a batch, lists of chunks included."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from llmexp.records.file import ARROWS, Writer, anchor, iterate

if TYPE_CHECKING:
    import numpy as np
    import pyarrow as pa
    from numpy.typing import NDArray

    Stamps = NDArray[np.int64]


def moved(batch: pa.RecordBatch, by_ns: int) -> pa.RecordBatch:
    """The batch with every stamp later by so much."""
    return _changed(batch, lambda stamps: stamps + by_ns) if by_ns else batch


def take_out_drift(directory: Path, drifts: Mapping[int, tuple[int, float]]) -> None:
    """Correct `requests.arrows` for clocks that ran faster or slower than the driver's.

    `drifts`: worker → (time of the driver's clock at which its stamps are right, seconds gained each second since).
    """
    partial = directory / f".{ARROWS}.partial"
    partial.mkdir(exist_ok=True)
    with Writer(partial, anchor(directory) or {}) as writer:
        for batch in iterate(directory):
            if not batch.num_rows:
                continue
            since, gained = drifts.get(batch.column("worker")[0].as_py(), (0, 0.0))
            writer.append_batch(_slowed(batch, since, gained) if gained else batch)
    (partial / ARROWS).replace(directory / ARROWS)
    partial.rmdir()


def _slowed(batch: pa.RecordBatch, since_ns: int, gained: float) -> pa.RecordBatch:
    share = gained / (1 + gained)
    return _changed(batch, lambda stamps: stamps - ((stamps - since_ns) * share).round().astype("int64"))


def _changed(batch: pa.RecordBatch, change: Callable[[Stamps], Stamps]) -> pa.RecordBatch:
    import pyarrow as pa

    columns = []
    for field, column in zip(batch.schema, batch.columns, strict=True):
        if not field.name.endswith("_ns"):
            columns.append(column)
        elif pa.types.is_list(field.type):
            flat = _stamps(column.flatten(), change)
            columns.append(pa.ListArray.from_arrays(_offsets(column), flat, type=field.type))
        else:
            columns.append(_stamps(column, change))
    return pa.record_batch(columns, schema=batch.schema)


def _stamps(column: pa.Array, change: Callable[[Stamps], Stamps]) -> pa.Array:
    """Nulls stay."""
    import pyarrow as pa

    filled = column.fill_null(0).to_numpy(zero_copy_only=False)
    return pa.array(change(filled), pa.int64(), mask=column.is_null().to_numpy(zero_copy_only=False))


def _offsets(column: pa.Array) -> pa.Array:
    """Where each list begins among the values of all: from 0, whatever slice of a larger array this is."""
    import pyarrow.compute as pc

    return pc.subtract(column.offsets, column.offsets[0])
