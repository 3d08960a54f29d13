"""What `python -m llmexp.calibrate` found this machine able to measure, as jobs ask for it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from llmexp.config import Config
from llmexp.config.places import cache_dir
from llmexp.results.environment import host

FILE = "calibration.json"
SCHEMA_VERSION = 1
SAME_MACHINE = ("cpu", "cores_usable")


def path() -> Path:
    """Where the latest calibration lies."""
    return cache_dir() / FILE


def latest() -> dict[str, Any] | None:
    """The latest calibration of a machine like this one; None where there is none."""
    try:
        found: dict[str, Any] = json.loads(path().read_text(encoding="utf-8"))
        machine = found["machine"]
        known = found["schema_version"] == SCHEMA_VERSION
    except (OSError, ValueError, KeyError, TypeError):
        return None
    here = host()
    return found if known and all(machine.get(name) == here[name] for name in SAME_MACHINE) else None


def warning(config: Config) -> str | None:
    """Why this job asks more than this machine was found to measure honestly; None where not so or not known."""
    if config.rehearse or (found := latest()) is None:
        return None
    largest, tried = found["largest"], found["tried"]
    since = f"the calibration of {found['date'][:10]}"
    again = "lower it, use more or idler cores, or repeat python -m llmexp.calibrate"
    for key, unit, asked in _asked(config):
        if largest is None:
            return f"{since} found no load that this machine measures honestly; {again}"
        if asked <= largest[unit]:
            continue
        label, limit = unit.replace("_per_s", "/s"), f"{largest[unit]:,.0f}"
        if largest[unit] >= tried[unit]:
            return f"{key}: {since} tried no more than {limit} {label}; what lies beyond is unknown on this machine"
        return f"{key}: {since} found this machine honest up to {limit} {label}; {again}"
    return None


def _asked(config: Config) -> list[tuple[str, str, float]]:
    """What a job asks, in the units of a calibration: (the key with its value, unit, value)."""
    if config.closed:
        streams = config.streams or 1
        return [(f"concurrency={streams}", "streams", streams)]
    rate, length = config.peak_rate, config.workload.output_tokens.mean
    if rate is None or length is None:
        return []
    tokens = rate * length
    return [(f"load.rate={rate:g} × {length:g} output tokens", "tokens_per_s", tokens)]
