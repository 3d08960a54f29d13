"""Thousands of scripts, one heap, one timer.

A script is a generator: it does something, then yields the time at which it wants to go on (ns, monotonic). Event loops
wait in whole milliseconds; on Linux a timerfd wakes us within tens of microseconds instead.
"""

from __future__ import annotations

import asyncio
import ctypes
import os
import sys
from collections.abc import Callable, Iterator
from heapq import heappop, heappush
from time import monotonic_ns
from typing import Protocol

NS = 1_000_000_000
Script = Iterator[int]
_SPACING_NS = 150_000
"""Wake-ups are at least this far apart: what falls due in between shares one."""
_TURN_NS = 2_000_000
"""After this long the loop gets a turn to read, however much is due."""


class Agenda:
    """Resumes each script when its time has come, never before."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._heap: list[tuple[int, int, Script]] = []
        self._count = 0
        self._wake_ns = 0
        self._alarm: Alarm = _TimerFd(loop, self._run) if sys.platform == "linux" else _LoopTimer(loop, self._run)

    def start(self, script: Script) -> None:
        """Runs a script up to its first wait."""
        due = next(script, None)
        if due is not None:
            self._count += 1
            heappush(self._heap, (due, self._count, script))
            if not self._wake_ns or due < self._wake_ns:
                self._set(due)

    def close(self) -> None:
        """Forgets all scripts."""
        self._heap.clear()
        self._alarm.close()

    def _set(self, due: int) -> None:
        self._wake_ns = due
        self._alarm.set(due)

    def _run(self) -> None:
        heap = self._heap
        now = monotonic_ns()
        turn_ends = now + _TURN_NS
        while heap and heap[0][0] <= now < turn_ends:
            _, number, script = heappop(heap)
            due = next(script, None)
            if due is not None:
                heappush(heap, (due, number, script))
            now = monotonic_ns()
        if not heap:
            self._set(0)
        elif heap[0][0] <= now:
            self._set(now)
        else:
            self._set(max(heap[0][0], now + _SPACING_NS))


class Alarm(Protocol):
    """Calls back once at a time."""

    def set(self, due: int) -> None:
        """Replaces any earlier setting; 0: no call."""

    def close(self) -> None:
        """No more calls."""


class _LoopTimer:
    """The loop's own timer."""

    def __init__(self, loop: asyncio.AbstractEventLoop, call: Callable[[], None]) -> None:
        self._loop, self._call = loop, call
        self._handle: asyncio.TimerHandle | None = None

    def set(self, due: int) -> None:
        self.close()
        if due:
            self._handle = self._loop.call_later(max(0, due - monotonic_ns()) / NS, self._call)

    def close(self) -> None:
        if self._handle is not None:
            self._handle.cancel()


class _TimerFd:
    """Linux's timerfd, absolute on the monotonic clock (in Python's own library from 3.13 on)."""

    def __init__(self, loop: asyncio.AbstractEventLoop, call: Callable[[], None]) -> None:
        self._libc = ctypes.CDLL(None, use_errno=True)
        self._fd: int = self._libc.timerfd_create(1, os.O_NONBLOCK | os.O_CLOEXEC)
        if self._fd < 0:
            raise OSError(ctypes.get_errno(), "timerfd_create")
        self._time = (ctypes.c_long * 4)()  # interval (s, ns), first (s, ns)
        self._settime, self._loop = self._libc.timerfd_settime, loop
        loop.add_reader(self._fd, call)  # which sets it again: that makes it unreadable, as a read would

    def set(self, due: int) -> None:
        self._time[2], self._time[3] = divmod(due, NS)
        self._settime(self._fd, 1, self._time, None)

    def close(self) -> None:
        self._loop.remove_reader(self._fd)
        os.close(self._fd)
