"""What a companion loads before the clock, and how it gives way to whoever needs the core."""

from __future__ import annotations

import contextlib
import os
import sys


def give_way() -> None:
    """Run only where nobody else wants the core, and be put aside at once when the worker wakes up."""
    with contextlib.suppress(OSError):
        os.nice(19)
    with contextlib.suppress(OSError, AttributeError):
        os.sched_setscheduler(0, os.SCHED_IDLE, os.sched_param(0))


def load() -> None:
    """Import what explaining and handing over need: a second or two."""
    import llmexp.companion.explain  # noqa: F401
    from llmexp.records import to_batch

    _spare_pandas()
    to_batch([])


def _spare_pandas() -> None:
    """Have Arrow find no pandas: it looks once, for its kinds of lists, and importing it is 50 MB and most of a second.

    Where Arrow looks in another way, pandas is imported and nothing else changes.
    """
    import pyarrow as pa

    if "pandas" in sys.modules:
        return
    sys.modules["pandas"] = None  # type: ignore[assignment]
    try:
        with contextlib.suppress(ImportError, AttributeError):
            pa.array([0])
    finally:
        del sys.modules["pandas"]
