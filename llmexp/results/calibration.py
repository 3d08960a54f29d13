"""What `python -m llmexp.calibrate` found this machine able to measure, as jobs ask for it."""

from __future__ import annotations

import json
from pathlib import Path

from llmexp.config import Config
from llmexp.config.places import cache_dir
from llmexp.json_types import at, number, text
from llmexp.results.environment import host

FILE = "calibration.json"
SCHEMA_VERSION = 1
SAME_MACHINE = ("cpu", "cores_usable")


def path() -> Path:
    """Where the latest calibration lies."""
    return cache_dir() / FILE


def latest() -> dict[str, object] | None:
    """The latest calibration of a machine like this one; None where there is none."""
    try:
        found = json.loads(path().read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    here = host()
    known = number(found, "schema_version") == SCHEMA_VERSION and isinstance(found, dict)
    return found if known and all(at(found, "machine", name) == here[name] for name in SAME_MACHINE) else None


def warning(config: Config) -> str | None:
    """Why this job asks more than this machine was found to measure honestly; None where not so or not known."""
    if config.rehearse or (found := latest()) is None:
        return None
    since = f"the calibration of {(text(found, 'date') or '')[:10]}"
    again = "lower it, use more or idler cores, or repeat python -m llmexp.calibrate"
    for key, unit, asked in _asked(config):
        largest, tried = number(found, "largest", unit), number(found, "tried", unit)
        if largest is None:
            return f"{since} found no load that this machine measures honestly; {again}"
        if asked <= largest:
            continue
        label, limit = unit.replace("_per_s", "/s"), f"{largest:,.0f}"
        if tried is None or largest >= tried:
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
