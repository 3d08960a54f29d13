"""Ctrl-C and SIGTERM while something must come to an end: a job being recorded, a run in MLflow being closed."""

from __future__ import annotations

import contextlib
import logging
import signal
import threading
from collections.abc import Iterator
from dataclasses import dataclass
from types import FrameType

SIGNALS = (signal.SIGINT, signal.SIGTERM)
log = logging.getLogger("llmexp")


@dataclass
class Shield:
    """Whether a signal came."""

    rung: bool = False

    def ring(self, _signal: int, _frame: FrameType | None) -> None:
        """The first signal is noted; whoever sends another one means it."""
        if self.rung:
            raise KeyboardInterrupt
        self.rung = True
        log.warning("interrupted: what is under way is brought to an end; once more ends it at once")


@contextlib.contextmanager
def shielded() -> Iterator[Shield]:
    """Inside, one signal waits for the end of what is done. The caller looks whether it came."""
    shield = Shield()
    if threading.current_thread() is not threading.main_thread():
        yield shield
        return
    before = {number: signal.signal(number, shield.ring) for number in SIGNALS}
    try:
        yield shield
    finally:
        for number, handler in before.items():
            signal.signal(number, signal.SIG_DFL if handler is None else handler)
