"""Right answers in numbers. Pure."""

from __future__ import annotations

import math
from statistics import NormalDist

from llmexp.metrics.distributions import distribution
from llmexp.metrics.timeline import Span
from llmexp.records.observed import Bools, Observed

_Z = NormalDist().inv_cdf(0.975)
Numbers = dict[str, "float | int | dict[str, float | None] | None"]
NOTHING: Numbers = dict.fromkeys(
    (
        "score",
        "right_share",
        "right_share_low",
        "right_share_high",
        "right_per_s",
        "usd_per_thousand_right",
        "requests_graded",
        "requests_unparsed",
        "requests_ungraded",
        "requests_truncated",
        "right_goodput_per_s",
    )
)
"""A run whose answers were not graded."""


def right_answers(observed: Observed, span: Span | None, cost_usd: float | None, in_time: Bools | None) -> Numbers:
    """The numbers of a run's grades; `in_time`: which requests keep the service level, None where none is asked."""
    graded = observed.graded | observed.unparsed
    if not (graded | observed.ungraded).any():
        return dict(NOTHING)
    count, right = int(graded.sum()), int((observed.right & graded).sum())
    low, high = wilson(right, count) if count else (None, None)
    good = None if in_time is None or not count else int((observed.right & graded & in_time).sum())
    return {
        "score": distribution(observed.score[graded]),
        "right_share": right / count if count else None,
        "right_share_low": low,
        "right_share_high": high,
        "right_per_s": right / span.duration_s if span is not None and count else None,
        "usd_per_thousand_right": cost_usd / right * 1000 if cost_usd is not None and right else None,
        "requests_graded": count,
        "requests_unparsed": int(observed.unparsed.sum()),
        "requests_ungraded": int(observed.ungraded.sum()),
        "requests_truncated": int((observed.truncated & observed.completed).sum()),
        "right_goodput_per_s": good / span.duration_s if span is not None and good is not None else None,
    }


def right_share(observed: Observed) -> float | None:
    """Right / graded; None where nothing is graded."""
    graded = observed.graded | observed.unparsed
    return float((observed.right & graded).sum() / graded.sum()) if graded.any() else None


def wilson(hits: float, total: float, z: float = _Z) -> tuple[float, float]:
    """Wilson's score interval of a proportion; never of zero width."""
    share, weight = hits / total, z * z / total
    centre = (share + weight / 2) / (1 + weight)
    half = z * math.sqrt(share * (1 - share) / total + weight / (4 * total)) / (1 + weight)
    return max(0.0, centre - half), min(1.0, centre + half)
