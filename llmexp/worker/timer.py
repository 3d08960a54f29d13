"""Calls back at a monotonic time, to a tenth of a millisecond.

An event loop counts its timers in whole milliseconds, so a schedule that hangs on them is a millisecond or two late.
Linux has a timer that is a file: the loop wakes when it becomes readable. Elsewhere the loop's timers do.
"""

from __future__ import annotations

import asyncio
import contextlib
import ctypes
import os
from collections.abc import Callable
from time import CLOCK_MONOTONIC, monotonic_ns

_ABSOLUTE = 1
"""TFD_TIMER_ABSTIME"""
_NS = 1_000_000_000


class _Spec(ctypes.Structure):
    """struct itimerspec: interval, then value."""

    _fields_ = [(name, ctypes.c_long) for name in ("interval_s", "interval_ns", "value_s", "value_ns")]


class Alarm:
    """Calls `ring` once after each `set`, never before the time that was set."""

    def __init__(self, loop: asyncio.AbstractEventLoop, ring: Callable[[], None]) -> None:
        self._loop = loop
        self._ring = ring
        self._handle: asyncio.TimerHandle | None = None
        self._libc = ctypes.CDLL(None)
        self._file = _timer(self._libc)
        if self._file is not None:
            loop.add_reader(self._file, self._rung)

    def set(self, at_ns: int) -> None:
        """Ring at `at_ns` of the monotonic clock; a time that is past rings at once."""
        if self._file is not None:
            at = max(at_ns, 1)  # zero would disarm it
            spec = _Spec(0, 0, at // _NS, at % _NS)
            self._libc.timerfd_settime(self._file, _ABSOLUTE, ctypes.byref(spec), None)
        else:
            self._wait(at_ns)

    def _wait(self, at_ns: int) -> None:
        wait_ms = max(1, -(-(at_ns - monotonic_ns()) // 1_000_000))
        self._handle = self._loop.call_later(wait_ms / 1000, self._loop_rung, at_ns)

    def _loop_rung(self, at_ns: int) -> None:
        """A loop counts from the time at which its turn began, so its timers may be early."""
        if monotonic_ns() < at_ns:
            self._wait(at_ns)
        else:
            self._ring()

    def _rung(self) -> None:
        assert self._file is not None
        try:
            os.read(self._file, 8)
        except BlockingIOError:  # set anew since it ran out
            return
        self._ring()

    def close(self) -> None:
        """Ring no more."""
        if self._handle is not None:
            self._handle.cancel()
        if self._file is not None:
            self._loop.remove_reader(self._file)
            os.close(self._file)
            self._file = None


def _timer(libc: ctypes.CDLL) -> int | None:
    """A new timer file, where this system has them."""
    with contextlib.suppress(AttributeError):
        file: int = libc.timerfd_create(CLOCK_MONOTONIC, os.O_NONBLOCK | os.O_CLOEXEC)
        return file if file >= 0 else None
    return None
