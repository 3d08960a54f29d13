r"""Numbers in prose: `$1,234.50`, `−5`, `3/4`, `1 1/2`, `45 %`, `6.02e23`, `2 million`, `\frac{1}{2}`, `42.`.

A number's value is exact (a fraction), so that `0.1` is a tenth and 40 digits are 40 digits. A percentage and a number
of millions have two readings: `45 %` is 45 and 0.45.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from fractions import Fraction

from llmexp.quality.texts import boxed, unmarked

_MOST_DIGITS = 400
_DIGIT = re.compile(r"\d")
_TAIL = 200
"""Characters in which the last digit is looked for, and which are read before it."""
_SPACES = "\u00a0\u2009\u202f"
_FRAC = re.compile(r"\\[dt]?frac\s*\{\s*([^{}]+?)\s*\}\s*\{\s*([^{}]+?)\s*\}")
_FRAC_SHORT = re.compile(r"\\[dt]?frac\s*(\d)\s*(\d)(?!\d)")
_MARKED = re.compile(r"####[ \t]*([^\n]+)")
_UNIT = re.compile(r"[\s.*]*|\s*[^\W\d]+[\s.*]*")
_DIGITS = r"(?:\d{1,3}(?:,\d{3})+(?!\d)|\d+)(?:\.\d+)?|\.\d+"
_NUMBER = re.compile(
    rf"""
    (?<![\w.])                                     # not inside a word or another number
    (?P<sign> (?<![\w)\]}}])[-−–+](?=[$€£¥.\d]) )?  # a sign, not the minus of a difference or a bullet's dash
    [$€£¥]?\s?
    (?P<inner> [-−–] )?
    (?P<whole> {_DIGITS})
    (?: [eE](?P<exp>[-+−]?\d{{1,4}})(?!\w)
      | \s?(?:×|x|\*|\\times|\\cdot)\s?10\s?\^\s?\{{?(?P<power>[-+−]?\d{{1,4}})\}}? )?
    (?: \s?/\s?(?P<under> \d+)(?![\d/]) | [ ](?P<top>\d+)/(?P<bottom>\d+)(?![\d/]) )?
    (?: \s?(?P<percent>%|percent\b|per\ cent\b) | \s?(?P<scale>thousand|million|billion|trillion)\b )?
    """,
    re.VERBOSE | re.IGNORECASE,
)
_SCALES = {"thousand": 10**3, "million": 10**6, "billion": 10**9, "trillion": 10**12}


@dataclass(frozen=True, slots=True)
class Number:
    """A number that stands in a text, with every value that it may be read as."""

    text: str
    readings: tuple[Fraction, ...]

    def near(self, other: Number, tolerance: float) -> bool:
        """Whether any two readings differ by no more than `tolerance`."""
        allowed = Fraction(repr(tolerance))  # as it was written: 0.3, not the float that is a little less
        return any(abs(one - two) <= allowed for one in self.readings for two in other.readings)


def final_number(text: str) -> Number | None:
    r"""The number that an answer ends on: after the last `####`, in the last `\boxed{}`, else the last one of all."""
    marked = [found for line in _MARKED.findall(text) if (found := _alone(line))]
    if marked:
        return marked[-1]
    inside = boxed(text)
    return (last_number(inside) if inside is not None else None) or last_number(text)


def _alone(line: str) -> Number | None:
    """The number that a `####` line consists of, a unit behind it allowed; a heading such as `1. First` is none."""
    line = _tidy(line).strip(" *$")
    found = _NUMBER.match(line)
    return _number(found) if found and _UNIT.fullmatch(line[found.end() :]) else None


def last_number(text: str) -> Number | None:
    """The last number of a text."""
    return _last_of(_tail(text)) or _last_of(text)


def _tail(text: str) -> str:
    """The end of a long text, from some way before its last digit on: its last number most likely stands there."""
    digits = list(_DIGIT.finditer(text, max(0, len(text) - _TAIL)))
    if not digits:
        return ""
    start = text.rfind(" ", 0, max(0, digits[-1].start() - _TAIL)) + 1
    return text[start:]


def _last_of(text: str) -> Number | None:
    last = None
    for found in _NUMBER.finditer(_tidy(text)):
        last = _number(found) or last
    return last


def _tidy(text: str) -> str:
    text = _FRAC_SHORT.sub(r"\1/\2", _FRAC.sub(r"\1/\2", text))
    text = re.sub(rf"(?<=\d)[{_SPACES}](?=\d{{3}}(?!\d))", ",", text)
    text = re.sub(r"(?<=\d)\\[,!](?=\d{3}(?!\d))", ",", text)
    return unmarked(text).replace("\\", " ")


def _number(found: re.Match[str]) -> Number | None:
    part = found.groupdict()
    exponent = int((part["exp"] or part["power"] or "0").replace("−", "-"))
    if len(part["whole"]) > _MOST_DIGITS or abs(exponent) > _MOST_DIGITS:
        return None
    value = Fraction(part["whole"].replace(",", "")) * Fraction(10) ** exponent
    try:
        if part["under"]:
            value /= int(part["under"])
        if part["top"]:
            value += Fraction(int(part["top"]), int(part["bottom"]))
    except (ZeroDivisionError, ValueError):
        return None
    if (part["sign"] or "").strip() in ("-", "−", "–") or part["inner"]:
        value = -value
    readings = [value]
    if part["percent"]:
        readings.append(value / 100)
    if part["scale"]:
        readings.append(value * _SCALES[part["scale"].lower()])
    return Number(found.group().strip(), tuple(readings))
