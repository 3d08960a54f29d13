"""uvloop where there is one, asyncio's own loop elsewhere."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine

try:
    from uvloop import new_event_loop
except ImportError:
    from asyncio import new_event_loop


def run(main: Coroutine[object, object, None]) -> None:
    """Runs `main` to its end."""
    with asyncio.Runner(loop_factory=new_event_loop) as runner:
        runner.run(main)
