"""Numbers for people, formatted in one place: digits, durations, money, shares, and what a capacity search found."""

from __future__ import annotations

import math

from llmexp.json_types import Tree, text
from llmexp.json_types import number as number_at


def duration(seconds: float) -> str:
    """Three significant digits in the unit that suits: µs, ms or s."""
    for limit, scale, unit in ((0.001, 1e6, "µs"), (1, 1e3, "ms")):
        if _rounded(seconds) < limit:
            return f"{digits(seconds * scale)} {unit}"
    return f"{digits(seconds)} s"


def usd(value: float) -> str:
    """`$15.00`, `$0.0123`: three significant digits, cents always."""
    shown = format_step(abs(value), max(decimals_for(abs(value)), 2)) if value else "0"
    return f"−${shown}" if value < 0 else f"${shown}"


def digits(value: float, significant: int = 3) -> str:
    """A number with so many significant digits, without an exponent, thousands grouped, a true minus."""
    if value == 0:
        return "0"
    return format_step(value, decimals_for(_rounded(value, significant), significant))


def _rounded(value: float, significant: int = 3) -> float:
    """Its size as it will be shown: 9.999 is as large as 10.0."""
    return float(f"{abs(value):.{significant}g}")


def decimals_for(size: float, significant: int = 3) -> int:
    """Decimals that show a number of this size with so many significant digits."""
    return min(9, max(0, significant - 1 - math.floor(math.log10(size)))) if size else 0


def format_step(value: float, decimals: int) -> str:
    """Fixed decimals, thousands grouped, a true minus sign, no negative zero."""
    text = f"{abs(value):,.{decimals}f}"
    return f"−{text}" if value < 0 and text.strip("0.,") else text


def signed_points(low: float, high: float) -> str:
    """A difference of two shares as percentage points: `−1.6 to +2.4 points`."""
    first, second = (_signed(100 * value) for value in (low, high))
    return f"{first} to {second} points"


def _signed(points: float) -> str:
    text = format_step(points, 1)
    return f"+{text}" if points > 0 and text.strip("0.") else text


def percent_range(low: float, high: float) -> str:
    """Two relative differences as percent: `12–16 %`."""
    first, second = (digits(value * 100, 2) for value in (low, high))
    return f"{first}{'–' if low >= 0 else ' to '}{second} %" if first != second else f"{first} %"


def confidence(alpha: float) -> str:
    """`95`, `98.3`, `99.96`: the confidence of an interval in percent, which no rounding makes 100."""
    significant = 3
    while float(f"{100 * (1 - alpha):.{significant}g}") >= 100 and significant < 9:
        significant += 1
    return f"{100 * (1 - alpha):.{significant}g}"


def counted(number: int, word: str) -> str:
    """`1 job`, `2 jobs`."""
    return f"{number:,} {word}{'' if number == 1 else 's'}"


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


def escaped(text: str) -> str:
    """Text that Markdown and HTML show as it is, names like `a_b*c` and `<x>` included, in tables too."""
    for mark in ("\\", "`", "*", "_", "[", "]", "<", "|"):
        text = text.replace(mark, f"\\{mark}")
    return " ".join(text.split())
