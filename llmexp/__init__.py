"""llmexp: which language model, on which deployment stack, should carry your traffic.

From Python: `run`, `sweep` and `load` (see `llmexp.api`), imported when they are first used.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from llmexp.api import load, run, sweep

__version__ = "0.1.0"
__all__ = ["__version__", "load", "run", "sweep"]


def __dir__() -> list[str]:
    """What a notebook completes `llmexp.` to, before any of it is imported."""
    return sorted({*globals(), *__all__})


def __getattr__(name: str) -> object:
    if name in ("load", "run", "sweep"):
        from llmexp import api

        return getattr(api, name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
