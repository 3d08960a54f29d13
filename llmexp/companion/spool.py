"""A backlog of tapes: the first part in memory, the rest on disk, so that memory stays flat however long the run."""

from __future__ import annotations

import struct
import tempfile
import threading
from collections import deque
from typing import BinaryIO

MEMORY_BYTES = 64 * 2**20
DISK_BYTES = 8 * 2**30
_SIZE = struct.Struct("<Q")


class SpoolFullError(Exception):
    """The backlog has reached its bound, or the disk has."""


class Spool:
    """A queue of byte strings that keeps at most `memory` bytes in memory and at most `disk` in an unnamed file."""

    def __init__(self, memory: int = MEMORY_BYTES, disk: int = DISK_BYTES) -> None:
        self._limit = memory
        self._disk = disk
        self._memory: deque[bytes] = deque()
        self._bytes = 0
        self._file: BinaryIO | None = None
        self._read = self._written = 0
        self._lock = threading.Lock()

    def put(self, item: bytes, *, small: bool = False) -> None:
        """Append; order is kept: while the file holds anything, new items go behind it.

        Raises `SpoolFullError` where there is no room, unless the item is `small`.
        """
        with self._lock:
            if small or (self._written == self._read and self._bytes + len(item) <= self._limit):
                self._memory.append(item)
                self._bytes += len(item)
            else:
                self._put_on_disk(item)

    def _put_on_disk(self, item: bytes) -> None:
        if self._written + len(item) > self._disk:
            raise SpoolFullError(f"{self._written:,} bytes of answers wait to be explained")
        try:
            if self._file is None:
                self._file = tempfile.TemporaryFile()  # noqa: SIM115 -- lives as long as the spool
            self._file.seek(self._written)
            self._file.write(_SIZE.pack(len(item)) + item)
            self._file.flush()
        except OSError as error:
            raise SpoolFullError(str(error)) from error
        self._written += _SIZE.size + len(item)

    def get(self) -> bytes | None:
        """The oldest item, or None."""
        with self._lock:
            if self._memory:
                item = self._memory.popleft()
                self._bytes -= len(item)
                return item
            if self._file is None or self._read == self._written:
                return None
            self._file.seek(self._read)
            (size,) = _SIZE.unpack(self._file.read(_SIZE.size))
            item = self._file.read(size)
            self._read += _SIZE.size + size
            if self._read == self._written:
                self._read = self._written = 0
                self._file.truncate(0)
            return item

    def close(self) -> None:
        """Drop what is left."""
        with self._lock:
            self._memory.clear()
            self._bytes = self._read = self._written = 0
            if self._file is not None:
                self._file.close()
                self._file = None
