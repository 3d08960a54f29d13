"""Processes below this one, however they detached themselves; and the kernel's word when the one above dies.

Linux alone has both: orphans come to their nearest living ancestor that asked for them, and a process may ask for a
signal when its parent ends. Elsewhere these are no more than the processes that can be found.
"""

from __future__ import annotations

import ctypes
import os
import signal
import sys
from contextlib import suppress

_PR_SET_PDEATHSIG = 1
_PR_SET_CHILD_SUBREAPER = 36


def adopt() -> None:
    """From here on, orphans below this process become its children."""
    _prctl(_PR_SET_CHILD_SUBREAPER, 1)


def on_end_of_parent(number: signal.Signals) -> None:
    """Ask the kernel for this signal to this process when its parent dies (the thread that started it, to be exact)."""
    _prctl(_PR_SET_PDEATHSIG, number)


def send(number: signal.Signals) -> None:
    """A signal to every descendant."""
    import psutil

    with suppress(psutil.Error):
        for child in psutil.Process().children(recursive=True):
            with suppress(ProcessLookupError, PermissionError):
                os.kill(child.pid, number)


def _prctl(option: int, value: int) -> None:
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(option, value, 0, 0, 0)
