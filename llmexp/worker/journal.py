"""Rows that a companion has made and that the driver may not have yet, in a file that outlives the companion.

The driver takes batches of rows about once a second. Were they in the companion's memory alone, its end would cost all
since the last time. The worker beside it can read the file, whatever the batches hold.
"""

from __future__ import annotations

import contextlib
import struct
from collections.abc import Sequence
from pathlib import Path
from typing import BinaryIO

NAME = "rows"
_HEAD = struct.Struct("<QQ")
"""Number of the batch, and its bytes."""


class Journal:
    """The batches since the last but one time that the driver took some. A full disk costs the journal alone."""

    def __init__(self, path: Path) -> None:
        self._file: BinaryIO | None = None
        self._number = 0
        """Of the next batch."""
        with contextlib.suppress(OSError):
            self._file = path.open("wb", buffering=0)

    def add(self, batch: bytes) -> None:
        """A batch was made."""
        self._write(self._number, batch)
        self._number += 1

    def taken(self, batches: Sequence[bytes]) -> None:
        """The driver takes the newest batches, so it has those before them; that these reach it is not sure yet."""
        if self._file is None or not batches:
            return
        with contextlib.suppress(OSError):
            self._file.seek(0)
            self._file.truncate()
        first = self._number - len(batches)
        for at, batch in enumerate(batches):
            self._write(first + at, batch)

    def _write(self, number: int, batch: bytes) -> None:
        if self._file is None:
            return
        with contextlib.suppress(OSError):
            self._file.write(_HEAD.pack(number, len(batch)) + batch)

    def close(self) -> None:
        """Write no more."""
        if self._file is not None:
            self._file.close()


def left(path: Path, received: int) -> list[bytes]:
    """The whole batches in a journal behind the first `received` of the job."""
    try:
        data = path.read_bytes()
    except OSError:
        return []
    batches: list[bytes] = []
    at = 0
    while at + _HEAD.size <= len(data):
        number, size = _HEAD.unpack_from(data, at)
        at += _HEAD.size
        if at + size > len(data):
            break
        if number >= received:
            batches.append(data[at : at + size])
        at += size
    return batches
