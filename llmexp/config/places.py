"""Where this user's files lie."""

from __future__ import annotations

import os
from pathlib import Path

CACHE_VARIABLE = "LLMEXP_CACHE"


SHIPPED = "shipped:"
"""Begins the name of a workload's file that is part of the package."""


def shipped(name: str | None) -> str | None:
    """`shipped:agents.jsonl` as a path into the package; any other path as it is."""
    if name is None or not name.startswith(SHIPPED):
        return name
    return str(Path(__file__).parents[1] / "workload" / name.removeprefix(SHIPPED))


def cache_dir() -> Path:
    """What is kept between commands: weights, and what calibrating found."""
    if own := os.environ.get(CACHE_VARIABLE):
        return Path(own).expanduser()
    base = os.environ.get("XDG_CACHE_HOME") or "~/.cache"
    return Path(base).expanduser() / "llmexp"
