"""The companion's end of the line to its worker."""

from __future__ import annotations

import contextlib
import socket
import threading
from collections.abc import Callable
from pathlib import Path

from llmexp.worker.line import SOCKET, Unpacker, pack, unpack

CONNECT_S = 60.0


class Feed:
    """Listens for the worker, reads what it sends in a thread, and writes to it from any."""

    def __init__(self, directory: Path) -> None:
        self._listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self._listener.bind(str(directory / SOCKET))
        self._listener.listen(1)
        self._peer: socket.socket | None = None
        self._sending = threading.Lock()

    def accept(self) -> None:
        """Take the worker's connection."""
        self._listener.settimeout(CONNECT_S)
        self._peer, _ = self._listener.accept()
        self._peer.setblocking(True)

    def send(self, message: object) -> None:
        """Hand a message to the worker; nothing where it is gone."""
        with self._sending, contextlib.suppress(OSError):
            if self._peer is not None:
                self._peer.sendall(pack(message))

    def read(self, tape: Callable[[bytes], None], message: Callable[[object], None]) -> None:
        """Give each tape, still pickled, and each message to its taker, until the worker hangs up."""
        assert self._peer is not None
        unpacker = Unpacker()
        buffer = memoryview(bytearray(1 << 18))
        while True:
            try:
                count = self._peer.recv_into(buffer)
            except OSError:
                return
            if not count:
                return
            for is_tape, body in unpacker.feed(buffer[:count]):
                if is_tape:
                    tape(body)
                else:
                    message(unpack(body))

    def close(self) -> None:
        """Hang up."""
        for sock in (self._peer, self._listener):
            if sock is not None:
                with contextlib.suppress(OSError):
                    sock.shutdown(socket.SHUT_RDWR)
                sock.close()
