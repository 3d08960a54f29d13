"""Numbers for people: durations, counts, money, and what a capacity search found."""

from __future__ import annotations

from llmexp.json_types import Tree, text
from llmexp.json_types import number as number_at


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


def capacity_headline(capacity: Tree) -> str:
    """`2.71 requests/s (between 2.58 and 2.83)`, or what was found instead."""
    unit, of = text(capacity, "unit"), text(capacity, "of")
    low, high, estimate = (number_at(capacity, name) for name in ("low", "high", "estimate"))
    if low is not None and high is not None:
        if of == "concurrency" or estimate is None:
            said = f"{low:g} {unit}; {high:g} are too many"
        else:
            said = f"{estimate:.3g} {unit} (between {low:.3g} and {high:.3g})"
    elif low is not None:
        said = f"at least {number_at(capacity, 'passed_at') or low:.4g} {unit}"
    elif high is not None:
        said = f"less than {number_at(capacity, 'failed_at') or high:.4g} {unit}"
    else:
        said = "not found"
    return said
