"""What a number was measured with: versions, host, source. Imports none of the packages whose versions it tells."""

from __future__ import annotations

import os
import platform
import re
import subprocess
import sys
from pathlib import Path

from llmexp.installed import versions

PACKAGES = (
    "llmexp",
    "ray",
    "litellm",
    "mlflow",
    "boto3",
    "botocore",
    "xllamacpp",
    "hydra-core",
    "uvloop",
    "pyarrow",
    "numpy",
)


def environment(directory: Path | None = None) -> dict[str, object]:
    """Versions, host and git state of `directory` (default: the working directory)."""
    return {"versions": versions(PACKAGES), "host": host(), **git_state(directory or Path.cwd())}


def host() -> dict[str, object]:
    """The machine that measured."""
    import psutil

    return {
        "name": platform.node(),
        "os": platform.platform(),
        "cpu": _cpu_model(),
        "cores": os.cpu_count(),
        "cores_usable": len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count(),
        "memory_bytes": psutil.virtual_memory().total,
    }


def _cpu_model() -> str | None:
    if sys.platform == "darwin":
        return _output("sysctl", "-n", "machdep.cpu.brand_string")
    try:
        found = re.search(r"^model name\s*:\s*(.+)$", Path("/proc/cpuinfo").read_text(encoding="utf-8"), re.MULTILINE)
    except OSError:
        found = None
    return found[1] if found else (platform.processor() or platform.machine() or None)


def git_state(directory: Path) -> dict[str, object]:
    """`git_commit` and `git_dirty` of a checkout; both None elsewhere. Untracked files do not make it dirty."""
    commit = _output("git", "-C", str(directory), "rev-parse", "HEAD")
    changes = _output("git", "-C", str(directory), "status", "--porcelain", "--untracked-files=no") if commit else None
    return {"git_commit": commit or None, "git_dirty": None if changes is None else bool(changes)}


def _output(*command: str) -> str | None:
    """What a command printed; None if it is missing, fails or hangs."""
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=5, check=False, stdin=subprocess.DEVNULL)
    except (OSError, subprocess.TimeoutExpired):
        return None
    return done.stdout.strip() if done.returncode == 0 else None
