"""Where this user's files lie."""

from __future__ import annotations

import os
from pathlib import Path

CACHE_VARIABLE = "LLMEXP_CACHE"


def cache_dir() -> Path:
    """What is kept between commands: weights, and what calibrating found."""
    if own := os.environ.get(CACHE_VARIABLE):
        return Path(own).expanduser()
    base = os.environ.get("XDG_CACHE_HOME") or "~/.cache"
    return Path(base).expanduser() / "llmexp"
