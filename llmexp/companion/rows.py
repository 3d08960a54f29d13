"""Records on their way to the driver: gathered into Arrow batches, handed over by count or by time."""

from __future__ import annotations

import threading
import time
from collections import deque

from llmexp.records import Record
from llmexp.secrets import trimmed
from llmexp.worker.journal import Journal

BATCH_RECORDS = 256
BATCH_S = 0.25
"""A record waits so long for others at most: what is in a batch survives the companion."""


class Rows:
    """Filled by the working thread, taken by the driver's calls."""

    def __init__(self, journal: Journal) -> None:
        self._journal = journal
        self._records: list[Record] = []
        self._batches: deque[bytes] = deque()
        self._lock = threading.Lock()
        self._flushed = time.monotonic()

    def add(self, row: Record) -> None:
        """Take a record."""
        with self._lock:
            self._records.append(row)

    def flush(self, *, force: bool = False) -> None:
        """Make a batch of what there is, once it is enough or old enough."""
        with self._lock:
            if not self._records:
                return
            old = time.monotonic() - self._flushed > BATCH_S
            if force or old or len(self._records) >= BATCH_RECORDS:
                batch = batch_of(self._records)
                self._batches.append(batch)
                self._journal.add(batch)
                self._records = []
                self._flushed = time.monotonic()

    def take(self) -> list[bytes]:
        """The batches made since the last call."""
        with self._lock:
            batches = list(self._batches)
            self._batches.clear()
            self._journal.taken(batches)
        return batches


def batch_of(rows: list[Record]) -> bytes:
    """The records as an Arrow batch. One that a column cannot hold becomes a failed one; the others stay."""
    from llmexp.records import to_batch

    try:
        return to_batch(rows)
    except Exception:  # noqa: BLE001 -- Arrow raises errors of many kinds for a value that does not fit
        return to_batch([_storable(row) for row in rows])


def _storable(row: Record) -> Record:
    from llmexp.records import to_batch

    try:
        to_batch([row])
    except Exception as error:  # noqa: BLE001 -- see above
        return refused(row, str(error))
    return row


def refused(row: Record, why: str) -> Record:
    """What is sure of a record with a value that cannot be stored: which request it was, and its times."""
    text = f"the answer holds a value that cannot be recorded: {why}"
    return Record(
        index=row.index,
        worker=row.worker,
        status="failed",
        intended_ns=row.intended_ns,
        dispatched_ns=row.dispatched_ns,
        sent_ns=row.sent_ns,
        wait_s=row.wait_s,
        connect_s=row.connect_s,
        end_ns=row.end_ns,
        max_tokens=row.max_tokens,
        error_class="malformed",
        error_message=trimmed(text.encode("utf-8", "replace").decode(), 500),
        prompt_digest=row.prompt_digest,
        session=row.session,
        turn=row.turn,
    )
