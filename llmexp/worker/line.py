"""The line between a worker and its companion: framed pickles over a private Unix socket.

companion → worker: `Ready` (requests as bytes), `Loaded`, `SessionsEnded`, `Stop`. worker → companion: `Tape`, `Need`,
`Resign`. Either way: `Over`.
The socket lies in a directory of mode 0700 that the companion makes; only these two processes speak on it.
"""

from __future__ import annotations

import mmap
import pickle
import struct
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from llmexp.worker.pool import Tape
from llmexp.workload.request import Request

SOCKET, ODOMETER = "feed.sock", "launched"
"""Names in the directory that a companion makes."""
HEAD = struct.Struct("<I?")
"""Bytes in the body, and whether it is a tape, which can wait: known without unpickling it."""


@dataclass(slots=True)
class Shot:
    """A request ready to be sent.

    A shot that `opens` takes one of the streams that the load allows, and the stream is free again when a shot that
    `closes` has ended. A lone request does both. A session of several turns holds one stream from its first turn to
    the end of its last: its later turns go out as soon as they may.
    """

    index: int
    data: bytes | Request
    """The bytes of the wire; a `Request` where LiteLLM times its own stream."""
    expires_ns: int = 0
    """Monotonic ns after which the signature is stale; 0: never."""
    not_before_ns: int = 0
    """Monotonic ns before which it must not be sent: the end of the answer before, and the think time."""
    opens: bool = True
    closes: bool = True


@dataclass(slots=True)
class Ready:
    """Shots to queue behind those already there; `last` says that no more will come."""

    shots: list[Shot]
    last: bool


@dataclass(slots=True)
class Loaded:
    """All shots of a phase that can be given before it have been given."""


@dataclass(slots=True)
class SessionsEnded:
    """So many sessions ended before their last turn: their streams are free."""

    count: int


@dataclass(slots=True)
class Stop:
    """Start nothing new; `cut` ends what is in flight too."""

    cut: bool


@dataclass(slots=True)
class Need:
    """The worker has room for so many more shots."""

    count: int


@dataclass(slots=True)
class Resign:
    """Shots whose signatures grew old; they have left the worker's queue."""

    indexes: list[int]


@dataclass(slots=True)
class Over:
    """A phase has ended. The worker reads until the companion says it too, and nothing to be sent comes after that."""


def pack(message: object) -> bytes:
    """One framed message."""
    body = pickle.dumps(message, protocol=5)
    return HEAD.pack(len(body), isinstance(message, Tape)) + body


def unpack(body: bytes) -> object:
    """The message of a frame's body."""
    return pickle.loads(body)  # noqa: S301 -- written by the other half of this pair, over a private socket


class Unpacker:
    """Cuts a byte stream into its frames."""

    def __init__(self) -> None:
        self._buffer = bytearray()

    def feed(self, data: bytes | memoryview) -> Iterator[tuple[bool, bytes]]:
        """The frames that `data` completed: whether each is a tape, and its body, still pickled."""
        buffer = self._buffer
        buffer += data
        while len(buffer) >= HEAD.size:
            size, is_tape = HEAD.unpack_from(buffer)
            end = HEAD.size + size
            if len(buffer) < end:
                return
            body = bytes(buffer[HEAD.size : end])
            del buffer[:end]
            yield is_tape, body


class Odometer:
    """How many shots the worker has launched, in memory that survives it."""

    def __init__(self, path: Path, *, create: bool = False) -> None:
        if create:
            path.write_bytes(bytes(8))
        with path.open("r+b") as file:
            self._memory = mmap.mmap(file.fileno(), 8)
        self._count = self.read()

    def step(self, count: int = 1) -> None:
        """So many more; fewer, where some were taken back."""
        self._count += count
        struct.pack_into("<q", self._memory, 0, self._count)

    def read(self) -> int:
        """The count as it stands."""
        count: int = struct.unpack_from("<q", self._memory, 0)[0]
        return count
