"""What is made of a job's numbers while the next job of the sweep starts and warms up; never beside a load."""

from __future__ import annotations

import threading
from collections.abc import Callable

from llmexp.benchmark import leave_signals_to_main_thread


class Reading:
    """One piece of work at a time in a thread of its own, which a process that must end does not wait for."""

    def __init__(self) -> None:
        self._thread: threading.Thread | None = None

    def start(self, work: Callable[[], None]) -> None:
        """Begin, when what came before is done."""
        self.finish()

        def read() -> None:
            leave_signals_to_main_thread()
            work()

        self._thread = threading.Thread(target=read, name="readers", daemon=True)
        self._thread.start()

    def finish(self, limit_s: float | None = None) -> None:
        """Wait until it is done, or so long; no time passes where nothing is at work."""
        if self._thread is not None:
            self._thread.join(limit_s)
