"""Distributions: what a sample says, and which percentiles it carries."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import numpy as np

from llmexp.records.observed import Floats, Ints

PERCENTILES = {"p25": 0.25, "p50": 0.50, "p75": 0.75, "p90": 0.90, "p95": 0.95, "p99": 0.99}
_NEEDED = {50: 5, 75: 11, 90: 29, 95: 59, 99: 299}
"""Percentile → how many values it needs: 0.95 or more that at least one lies beyond it."""


def distribution(sample: Floats | Sequence[float]) -> dict[str, float | None] | None:
    """Count, mean, stddev (n−1), min, max and percentiles by linear interpolation; None for no values.

    Sorts an array in place: a pool of millions of gaps is never copied.
    """
    values = np.asarray(sample, dtype=np.float64)
    count = len(values)
    if not count:
        return None
    values.sort()
    mean = min(max(float(values.mean()), float(values[0])), float(values[-1]))
    return {
        "count": count,
        "mean": mean,
        "stddev": float(values.std(ddof=1)) if count > 1 else None,
        "min": float(values[0]),
        **{name: _at(values, share) for name, share in PERCENTILES.items()},
        "max": float(values[-1]),
    }


def _at(ordered: Floats, share: float) -> float:
    place = share * (len(ordered) - 1)
    below, above = float(ordered[math.floor(place)]), float(ordered[math.ceil(place)])
    return below + (above - below) * (place - math.floor(place))


def carries(count: int, percentile: str) -> bool:
    """Whether a sample of this size carries the percentile; no verdict may rest on one that is not carried."""
    return count >= needed(int(percentile.removeprefix("p")))


def needed(percent: int) -> int:
    """How many values a percentile needs; one that is not in the table needs what the next more extreme one does."""
    extreme = max(percent, 100 - percent)
    return next((count for listed, count in _NEEDED.items() if extreme <= listed), 10 * _NEEDED[99])


def uncarried(count: int) -> list[str]:
    """The percentiles that a sample of this size does not carry."""
    return [percentile for percentile in PERCENTILES if not carries(count, percentile)]


def all_uncarried(metrics: Mapping[str, object], prefix: str = "") -> dict[str, list[str]]:
    """Distribution → percentiles that it does not carry, over a summary; nested ones as `steady/ttft_s`."""
    found: dict[str, list[str]] = {}
    for name, value in metrics.items():
        if not isinstance(value, Mapping):
            continue
        if "p50" in value:
            missing = uncarried(int(value.get("count") or 0))
            found |= {f"{prefix}{name}": missing} if missing else {}
        else:
            found |= all_uncarried(value, f"{prefix}{name}/")
    return found


def seconds(difference_ns: Ints) -> Floats:
    """Nanoseconds as seconds."""
    return difference_ns / 1e9
