"""What is known of a load while it runs: counts, and durations counted in steps of a quarter of a per cent.

Companions fill these counts beside the rows that they make, and the driver adds them up. A step is as wide as nobody
sees on a terminal; the numbers of a result come from the rows alone.
"""

from __future__ import annotations

import math
from collections import Counter
from dataclasses import dataclass

_STEP = math.log(1.0025)
_SHORTEST_S = 1e-6

Steps = Counter[int]
"""Step → how many durations fell into it. Two of them add up to the steps of both."""


@dataclass(frozen=True, slots=True)
class SoFar:
    """A load so far, over all its workers."""

    counts: Counter[str]
    """Requests by status, tokens, missed service levels."""
    elapsed_s: float
    ttft: Steps


def step(duration_s: float) -> int:
    """The step that a duration falls into."""
    return round(math.log(max(duration_s, _SHORTEST_S)) / _STEP)


def percentile(steps: Steps, share: float) -> float | None:
    """The duration in seconds that this share of them does not pass, to half a step; None where there are none."""
    ahead = share * (steps.total() - 1)
    for place in sorted(steps):
        ahead -= steps[place]
        if ahead < 0:
            return math.exp(place * _STEP)
    return None
