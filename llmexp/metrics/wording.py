"""Numbers for people: durations, counts, money, and what a capacity search found."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any


def duration(seconds: float) -> str:
    """Three significant digits in the unit that suits: µs, ms or s."""
    for limit, scale, unit in ((0.001, 1e6, "µs"), (1, 1e3, "ms")):
        if abs(seconds) < limit:
            return f"{number(seconds * scale)} {unit}"
    return f"{number(seconds)} s"


def number(value: float) -> str:
    """Three significant digits at least, thousands marked, whole numbers as they are."""
    if value == int(value) or abs(value) >= 100:
        return f"{value:,.0f}"
    return f"{value:.{2 if abs(value) < 10 else 1}f}" if abs(value) >= 0.1 else f"{value:.2g}"


def usd(value: float) -> str:
    """Cents where there are some, else what it takes to show three digits."""
    return f"{value:,.2f}" if value == 0 or value >= 1 else f"{value:.3g}"


def capacity_headline(capacity: Mapping[str, Any]) -> str:
    """`2.71 requests/s (between 2.58 and 2.83)`, or what was found instead."""
    unit, low, high = capacity["unit"], capacity["low"], capacity["high"]
    if low is not None and high is not None:
        if capacity["of"] == "concurrency":
            said = f"{low:g} {unit}; {high:g} are too many"
        else:
            said = f"{capacity['estimate']:.3g} {unit} (between {low:.3g} and {high:.3g})"
    elif low is not None:
        said = f"at least {capacity['passed_at']:.4g} {unit}"
    elif high is not None:
        said = f"less than {capacity['failed_at']:.4g} {unit}"
    else:
        said = "not found"
    return said
