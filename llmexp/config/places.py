"""Where this user's files lie."""

from __future__ import annotations

import os
import tempfile
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


LONGEST_BASE = 25
"""Ray's sockets lie 82 characters below: in our folder (16), in Ray's (2), in its session's, which is named by the time
and a process of seven digits (43), as `/sockets/plasma_store` (21). The address of a socket has 107 at most.
"""


def socket_folder() -> Path:
    """A new folder with room for sockets below it: mode 0700, a name that nobody can guess.

    It lies where temporary files do, or below /tmp where that path is too long.
    """
    base = tempfile.gettempdir()
    if len(os.fsencode(base)) > LONGEST_BASE and Path("/tmp").is_dir():  # noqa: S108 -- only a private folder is made in it
        base = "/tmp"  # noqa: S108
    return Path(tempfile.mkdtemp(prefix="llmexp-", dir=base))
