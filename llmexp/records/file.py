"""The file of a job's records: `requests.arrows` while it runs, `requests.parquet` after it.

Arrow is imported when it is first needed: composing a config and planning do without it.
"""

from __future__ import annotations

import contextlib
import json
import logging
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO

from llmexp import secrets
from llmexp.records.record import Record

if TYPE_CHECKING:
    import pyarrow as pa

log = logging.getLogger("llmexp")
ARROWS, PARQUET = "requests.arrows", "requests.parquet"
SCHEMA_VERSION = 1
ROW_GROUP_BYTES = 16 << 20

_COLUMNS = {
    "index": "int64",
    "worker": "int32",
    "intended_ns": "int64",
    "dispatched_ns": "int64",
    "sent_ns": "int64",
    "wait_s": "float64",
    "connect_s": "float64",
    "first_byte_ns": "int64",
    "first_token_ns": "int64",
    "first_answer_token_ns": "int64",
    "last_token_ns": "int64",
    "end_ns": "int64",
    "chunk_ns": "list<int64>",
    "chunk_tokens": "list<int32>",
    "input_tokens": "int64",
    "output_tokens": "int64",
    "reasoning_tokens": "int64",
    "cached_tokens": "int64",
    "input_tokens_source": "string",
    "output_tokens_source": "string",
    "reasoning_tokens_source": "string",
    "cached_tokens_source": "string",
    "finish_reason": "string",
    "error_class": "string",
    "error_code": "string",
    "error_message": "string",
    "prompt_digest": "string",
    "status": "string",
    "reasoning_streamed": "bool",
    "input_tokens_counted": "int64",
    "output_tokens_counted": "int64",
    "chunk_tokens_source": "string",
    "cache_write_tokens": "int64",
    "max_tokens": "int64",
    "stale_connections": "int32",
    "server_latency_s": "float64",
    "http_status": "int32",
    "session": "int64",
    "turn": "int32",
    "remarks": "list<string>",
    "noise_events": "int32",
    "session_turns": "int32",
    "first_tool_call_ns": "int64",
    "off_script": "bool",
    "text": "string",
    "tool_calls": "string",
    "question": "string",
    "expected": "string",
    "answer_digest": "string",
    "truncated": "bool",
    "score": "float64",
    "right": "bool",
    "grade_status": "string",
    "grade_note": "string",
}
"""Column → Arrow type: the contract's columns in its order, then our further ones."""
_RENAMED = {"conversation": "session"}
"""A column's name in files of earlier versions → its name of today."""


_OWN_WORDS = {"status", "error_class", "prompt_digest"}
"""Columns of text that only we fill."""


@cache
def schema() -> pa.Schema:
    """The columns as Arrow types them."""
    import pyarrow as pa

    lists = {f"list<{kind}>": pa.list_(pa.type_for_alias(kind)) for kind in ("int64", "int32", "string")}
    return pa.schema([(name, lists.get(kind) or pa.type_for_alias(kind)) for name, kind in _COLUMNS.items()])


def to_batch(records: Sequence[Record]) -> bytes:
    """The records as one Arrow record batch in IPC form: what travels between processes and into the file."""
    import pyarrow as pa

    columns = [pa.array(_values(records, field.name), field.type) for field in schema()]
    return bytes(pa.record_batch(columns, schema=schema()).serialize())


def _values(records: Sequence[Record], name: str) -> list[object]:
    """A column's values; no text that came from outside carries a secret into the file."""
    values = [getattr(record, name) for record in records]
    if _COLUMNS[name] != "string" or name in _OWN_WORDS or name.endswith("_source"):
        return values
    clean = secrets.redact if name == "text" else secrets.foreign
    return [None if value is None else clean(value) for value in values]


def from_batch(data: bytes) -> pa.RecordBatch:
    """The batch that `to_batch` made."""
    import pyarrow as pa

    return pa.ipc.read_record_batch(pa.py_buffer(data), schema())


class Writer:
    """Appends batches to `requests.arrows`, an Arrow stream that stays readable to its last whole batch.

    Each batch goes to the operating system in one write before `append` returns, so that a killed process loses none.
    What a full disk does not take is held in memory (`held`), and tried once more at the end.
    """

    def __init__(self, directory: Path, anchor: Mapping[str, int]) -> None:
        """`anchor` holds `wall_ns` and `monotonic_ns`, read at the same moment."""
        metadata = {"schema_version": str(SCHEMA_VERSION), "anchor": json.dumps(dict(anchor))}
        directory.mkdir(parents=True, exist_ok=True)
        self.rows = 0
        self.held: list[bytes] = []
        """Batches that are not in the file, in their order."""
        self._file: BinaryIO = (directory / ARROWS).open("wb", buffering=0)
        self._whole = 0
        self._write(schema().with_metadata(metadata).serialize())

    def append(self, batch: bytes) -> None:
        """Write one batch, as `to_batch` made it."""
        self.rows += from_batch(batch).num_rows
        self.held.append(batch)
        if len(self.held) == 1:
            self._write_held()

    def append_batch(self, batch: pa.RecordBatch) -> None:
        """Write one batch of these columns."""
        self.append(bytes(batch.serialize()))

    def close(self) -> None:
        """Mark the end of the stream and close the file; a second call does nothing."""
        if self._file.closed:
            return
        self._write_held()
        if not self.held:
            with contextlib.suppress(OSError):  # an end that is missing costs nothing
                self._write(b"\xff\xff\xff\xff\x00\x00\x00\x00")
        self._file.close()

    def _write_held(self) -> None:
        """Write what is held, batch by batch; the first that the disk does not take stays held with those after it."""
        try:
            while self.held:
                self._write(self.held[0])
                del self.held[0]
        except OSError as error:
            log.error("%s: %s; what follows is kept in memory", self._file.name, error.strerror)  # noqa: TRY400

    def _write(self, data: bytes) -> None:
        """All of it or, where the disk is full, nothing."""
        view = memoryview(data)
        try:
            while view:
                view = view[self._file.write(view) :]
        except OSError:
            with contextlib.suppress(OSError):
                self._file.truncate(self._whole)
                self._file.seek(self._whole)
            raise
        self._whole += len(data)

    def __enter__(self) -> Writer:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def exists(directory: Path) -> bool:
    """Whether a job has left requests here, in either form."""
    return (directory / ARROWS).exists() or (directory / PARQUET).exists()


def iterate(directory: Path) -> Iterator[pa.RecordBatch]:
    """The batches of a job's requests in the order written, one in memory at a time.

    `requests.arrows` is preferred where both forms exist: it is removed only once its Parquet form is complete, so it
    is the same or newer. A truncated one ends at its last whole batch.
    """
    found = _stream(directory / ARROWS) if (directory / ARROWS).exists() else _row_groups(directory / PARQUET)
    yield from map(_of_today, found)


def _of_today(batch: pa.RecordBatch) -> pa.RecordBatch:
    """A batch with the columns of today: older files have others, and one of them by another name."""
    import pyarrow as pa

    if batch.schema.equals(schema()):
        return batch
    names = [_RENAMED.get(name, name) for name in batch.schema.names]
    held = dict(zip(names, batch.columns, strict=True))
    columns = [
        held[field.name].cast(field.type) if field.name in held else pa.nulls(batch.num_rows, field.type)
        for field in schema()
    ]
    return pa.record_batch(columns, schema=schema())


def read(directory: Path) -> pa.Table:
    """All requests of a job as one table, from either form; metadata included."""
    import pyarrow as pa

    return pa.Table.from_batches(iterate(directory), schema=schema().with_metadata(metadata(directory)))


def metadata(directory: Path) -> dict[bytes, bytes]:
    """The metadata of a job's requests: `schema_version` and `anchor`; empty if the file was cut inside its head."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    if not (directory / ARROWS).exists():
        return dict(pq.read_schema(directory / PARQUET).metadata or {})
    try:
        with pa.ipc.open_stream(pa.OSFile(str(directory / ARROWS))) as stream:
            return dict(stream.schema.metadata or {})
    except (pa.ArrowInvalid, OSError):
        return {}


def anchor(directory: Path) -> dict[str, int] | None:
    """`wall_ns` and `monotonic_ns` of the same moment: what turns a stamp into a time of day."""
    found = metadata(directory).get(b"anchor")
    return None if found is None else {key: int(value) for key, value in json.loads(found).items()}


def records(directory: Path) -> Iterator[Record]:
    """A job's requests as `Record`s, in the order written."""
    for batch in iterate(directory):
        for row in batch.to_pylist():
            yield Record(**row)


def to_parquet(directory: Path) -> Path:
    """Turn `requests.arrows` into `requests.parquet`, flat in memory, and remove the former once that is complete.

    Where that was done before, nothing is left to do.
    """
    target = directory / PARQUET
    if not (directory / ARROWS).exists() and target.exists():
        return target
    _write(directory, map(_of_today, _stream(directory / ARROWS)))
    (directory / ARROWS).unlink()
    return target


def rewrite(directory: Path, change: Callable[[pa.RecordBatch], pa.RecordBatch]) -> None:
    """Replace `requests.parquet` by what `change` makes of its batches, one after the other."""
    _write(directory, map(change, iterate(directory)))


def _write(directory: Path, batches: Iterator[pa.RecordBatch]) -> None:
    """Write `requests.parquet` beside its place, then move it there."""
    import pyarrow.parquet as pq

    partial = directory / f".{PARQUET}.partial"
    described = schema().with_metadata(metadata(directory))
    with pq.ParquetWriter(partial, described, compression="zstd") as writer:
        for table in _grouped(batches):
            writer.write_table(table)
    with partial.open("rb") as written:
        os.fsync(written.fileno())
    partial.replace(directory / PARQUET)


def _grouped(batches: Iterator[pa.RecordBatch]) -> Iterator[pa.Table]:
    """Batches gathered into tables of a row group's size."""
    import pyarrow as pa

    held: list[pa.RecordBatch] = []
    size = 0
    for batch in batches:
        held.append(batch)
        size += batch.nbytes
        if size >= ROW_GROUP_BYTES:
            yield pa.Table.from_batches(held).combine_chunks()
            held, size = [], 0
    if held:
        yield pa.Table.from_batches(held).combine_chunks()


def _stream(path: Path) -> Iterator[pa.RecordBatch]:
    import pyarrow as pa

    with pa.OSFile(str(path)) as file:
        try:
            with pa.ipc.open_stream(file) as stream:
                yield from stream
        except (pa.ArrowInvalid, OSError):
            return


def _row_groups(path: Path) -> Iterator[pa.RecordBatch]:
    import pyarrow.parquet as pq

    with pq.ParquetFile(path) as file:
        for group in range(file.num_row_groups):
            yield from file.read_row_group(group).to_batches()
