"""One clock for all hosts: what another host's monotonic clock shows beyond the driver's, and how sure that is.

A monotonic clock counts from its host's start, so two hosts' stamps differ by days and drift apart by some microseconds
a second. A host's offset is measured by many short exchanges before the load and after it. In each, the driver reads
its clock, asks, and reads it again: the answer was made somewhere in between, so the middle is wrong by half of the
round trip at most. The fastest exchange counts. Between the two measurements the clocks are taken to drift evenly.
"""

from __future__ import annotations

import contextlib
import hmac
import socket
import struct
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass

NS = 1_000_000_000
EXCHANGES = 100
AT_MOST_S = 0.5
"""An exchange over a slow network takes long: fewer have to do."""
FEWEST = 8
CONNECT_S = 2.0
UNMEASURED_DRIFT = 2e-5
"""What two quartz clocks drift apart, where a host is gone before its drift could be measured."""
_STAMP = struct.Struct("<q")
TOKEN_BYTES = 16


@dataclass(frozen=True, slots=True)
class Reading:
    """A host's clock, read once from the driver."""

    driver_ns: int
    """When, by the driver's clock."""
    offset_ns: int
    """The host's clock less the driver's."""
    uncertainty_ns: int


@dataclass(frozen=True, slots=True)
class Clock:
    """A host's clock over a load. The driver's own host has the default: no offset, known exactly."""

    before: Reading = Reading(0, 0, 0)
    after: Reading | None = None

    @property
    def offset_ns(self) -> int:
        """The host's clock less the driver's, before the load."""
        return self.before.offset_ns

    def there(self, driver_ns: int) -> int:
        """A time of the driver's clock as the host's clock shows it."""
        return driver_ns + self.before.offset_ns

    @property
    def drift(self) -> float:
        """Seconds that the host's clock gains on the driver's each second."""
        if self.after is None or self.after.driver_ns <= self.before.driver_ns:
            return 0.0
        return (self.after.offset_ns - self.before.offset_ns) / (self.after.driver_ns - self.before.driver_ns)

    def uncertainty_s(self, end_driver_ns: int) -> float:
        """How far off a stamp may be, at most; `end_driver_ns` is when the load ended."""
        if self.after is not None:
            return max(self.before.uncertainty_ns, self.after.uncertainty_ns) / NS
        if self.before.uncertainty_ns == 0:
            return 0.0
        unmeasured_ns = UNMEASURED_DRIFT * max(0, end_driver_ns - self.before.driver_ns)
        return (self.before.uncertainty_ns + unmeasured_ns) / NS


def read(ask: Callable[[], int]) -> Reading:
    """Read a host's clock; `ask` fetches one stamp of it."""
    best: Reading | None = None
    begun = time.monotonic()
    for done in range(EXCHANGES):
        if done >= FEWEST and time.monotonic() - begun > AT_MOST_S:
            break
        asked_ns = time.monotonic_ns()
        theirs_ns = ask()
        told_ns = time.monotonic_ns()
        half_ns = (told_ns - asked_ns + 1) // 2
        if best is None or half_ns < best.uncertainty_ns:
            best = Reading(asked_ns + half_ns, theirs_ns - asked_ns - half_ns, half_ns)
    assert best is not None
    return best


class Server:
    """Tells this host's monotonic clock to whoever connects with the token: a stamp for each byte."""

    def __init__(self, address: str, token: bytes) -> None:
        """Listens on this address alone."""
        self._token = token
        family = socket.AF_INET6 if ":" in address else socket.AF_INET
        self._listener = socket.create_server((address, 0), family=family)
        self.port: int = self._listener.getsockname()[1]
        threading.Thread(target=self._serve, name="clock", daemon=True).start()

    def _serve(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                peer, _ = self._listener.accept()
                with peer, contextlib.suppress(OSError):
                    self._answer(peer)

    def _answer(self, peer: socket.socket) -> None:
        peer.settimeout(CONNECT_S)
        if not hmac.compare_digest(_exactly(peer, TOKEN_BYTES), self._token):
            return
        peer.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        while peer.recv(1):
            peer.sendall(_STAMP.pack(time.monotonic_ns()))

    def close(self) -> None:
        """Listen no more."""
        self._listener.close()


@contextlib.contextmanager
def _connected(address: str, port: int, token: bytes) -> Iterator[Callable[[], int]]:
    with socket.create_connection((address, port), timeout=CONNECT_S) as line:
        line.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        line.sendall(token)

        def ask() -> int:
            line.sendall(b"?")
            stamp: int = _STAMP.unpack(_exactly(line, _STAMP.size))[0]
            return stamp

        yield ask


def read_over_socket(address: str, port: int, token: bytes) -> Reading:
    """Read the clock that a `Server` tells; raises `OSError` where it cannot be reached from here."""
    with _connected(address, port, token) as ask:
        return read(ask)


def _exactly(line: socket.socket, count: int) -> bytes:
    data = b""
    while len(data) < count:
        piece = line.recv(count - len(data))
        if not piece:
            raise ConnectionError("the other side hung up")
        data += piece
    return data
