"""A limit of time for what a user's pattern makes of an answer: some patterns need longer than anybody waits."""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

from llmexp.quality.grade import Given, Grade, Grader, ungraded

SECONDS = 1.0
MOST = 10
"""Answers that may take too long before the rest is not tried any more."""


class TooLong(BaseException):
    """Raised in the middle of a search; no handler of `Exception` on the way takes it for an answer's fault."""


@contextmanager
def within() -> Iterator[None]:
    """Raises `TooLong` in the main thread after `SECONDS`; another thread cannot be interrupted and goes on."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return

    def ring(_number: int, _frame: FrameType | None) -> None:
        raise TooLong

    before = signal.signal(signal.SIGALRM, ring)
    signal.setitimer(signal.ITIMER_REAL, SECONDS)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)


def patient(grade: Grader, what: str) -> Grader:
    """The grader, with a limit for each answer: an answer that takes longer is ungraded."""
    late = 0

    def limited(given: Given) -> Grade:
        nonlocal late
        if late >= MOST:
            return ungraded(f"{what} took longer than {SECONDS:g} s for {MOST} other answers")
        try:
            with within():
                return grade(given)
        except TooLong:
            late += 1
            return ungraded(f"{what} took longer than {SECONDS:g} s")

    return limited
