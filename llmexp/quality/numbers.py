r"""Numbers in prose: `$1,234.50`, `1.234,50`, `−5`, `3/4`, `1½`, `45 %`, `6.02e23`, `2^10`, `2 million`, `\frac{1}{2}`.

A number's value is exact (a fraction), so that `0.1` is a tenth and 40 digits are 40 digits. What has more than
one sense has more than one reading: `45 %` is 45 and 0.45, `$12k` is 12 and 12,000, `0,5` is a half and, as the end of
a list, 5.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from fractions import Fraction
from unicodedata import normalize

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
_DIGITS = r"""
      \d{1,3}(?:\.\d{3})+,\d+(?![\d,]) | \d{1,3}(?:\.\d{3}){2,}(?![\d.])  # 1.234,5 and 1.234.567
    | \d{1,3}(?:['’_]\d{3})+(?!\d)(?:[.,]\d+)?                        # 1'234 and 1_234
    | (?<!\d,)\d{1,2}(?:,\d{2})+,\d{3}(?![\d,])                       # 12,34,567
    | \d{1,3}(?:[ ]\d{3})+(?![\d/])(?:[.,]\d+)?(?![\d/]|,\d)           # 1 234 and 1 234,5
    | \d{1,3}(?:,\d{3})+(?!\d)(?:\.\d+)?                              # 1,234.5
    | (?<!\d,)\d+,\d+(?![\d,])                                        # 0,5
    | \d+(?:\.\d+)? | \.\d+"""
_NUMBER = re.compile(
    rf"""
    (?<![\w.])                                     # not inside a word or another number
    (?P<sign> (?<![\w)\]}}])[-−–+](?=[$€£¥.\d]) )?  # a sign, not the minus of a difference or a bullet's dash
    [$€£¥]?\s?
    (?P<inner> [-−–] )?
    (?P<whole> {_DIGITS})
    (?: [eE](?P<exp>[-+−]?\d{{1,4}})(?!\w)
      | \s?[×x*·]\s?10\s?\^\s?\{{?(?P<power>[-+−]?\d{{1,4}})\}}?
      | \s?\^\s?\{{?(?P<raised>[-+−]?\d{{1,3}})\}}? )?
    (?: \s?/\s?(?P<under> \d+)(?![\d/]) | [ ](?P<top>\d+)/(?P<bottom>\d+)(?![\d/]) )?
    (?: \s?(?P<percent>%|percent\b|per\ cent\b) | \s?(?P<scale>thousand|million|billion|trillion)\b
      | \s?(?-i:(?P<short>[kKMB]|bn|mn?))\b )?
    """,
    re.VERBOSE | re.IGNORECASE,
)
_SCALES = {"thousand": 10**3, "million": 10**6, "billion": 10**9, "trillion": 10**12}
_GROUPED = r"(?!0,)(?:\d{1,3}(?:,\d{3})+|\d{1,2}(?:,\d{2})+,\d{3})(?:\.\d+)?"
_SHORT = {"k": 10**3, "K": 10**3, "M": 10**6, "B": 10**9, "bn": 10**9, "m": 10**6, "mn": 10**6}
_VULGAR = re.compile("[¼-¾⅐-⅞]")
_MIXED = re.compile(r"(?<=\d)(?=[¼-¾⅐-⅞]|\\[dt]?frac)")
"""Where a whole number meets the fraction that belongs to it, as in `2½`."""
_MINUS = re.compile(r"(\bnegative|(?:\A|\bis|\bbe|\bequals|[=:])\s*\bminus)\s+(?=\d)", re.IGNORECASE)
"""`minus` as a sign, not as what is done with two numbers."""
_TIMES = re.compile(r"\\times(?![a-zA-Z])|\\cdot(?![a-zA-Z])")
_POWER = re.compile(r"(?<=\d)\*\*(?=[-+]?\d)")
_UNITS_POWER = re.compile(r"(?<=[^\W\d_])\s?\^\s?(?:\{\s?[-+−]?\d\s?\}|[-+−]?\d(?!\d))")
"""The 2 of `cm^2`: no number of its own."""
_RAISED = re.compile(r"(?<=\d)[⁺⁻]?[⁰¹²³⁴-⁹]+")
_DATE = re.compile(
    r"(?<![\w/-])(?:\d{4}-\d{2}-\d{2}|\d{1,2}/\d{1,2}/\d{4}|\d{1,2}\.\d{1,2}\.\d{4})(?![\w/-])", re.ASCII
)
_LISTED = re.compile(r"^[ \t]*(\d{1,2})[.)][ \t]+(?=[^\W\d])", re.MULTILINE)


@dataclass(frozen=True, slots=True)
class Number:
    """A number that stands in a text, with every value that it may be read as."""

    text: str
    readings: tuple[Fraction, ...]
    alone: Fraction | None = None
    """What stands behind its last comma or space, where that may be a number of its own: the 5 of `0,5`."""

    def near(self, other: Number, tolerance: float) -> bool:
        """Whether any reading is within `tolerance` of one of the expected number's."""
        allowed = Fraction(repr(tolerance))  # as it was written: 0.3, not the float that is a little less
        mine = self.readings if self.alone is None else (*self.readings, self.alone)
        return any(abs(one - two) <= allowed for one in mine for two in other.readings)


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
    """The last number of a text; dates, and the numbering of a list, count only where nothing else is there."""
    bare = _DATE.sub(" ", _unlisted(text))
    return _last_of(_tail(bare)) or _last_of(bare) or _last_of(text)


def _unlisted(text: str) -> str:
    """The text without `1.`, `2.`, … at the head of its lines."""
    at = [int(number) for number in _LISTED.findall(text)]
    return _LISTED.sub("", text) if len(at) > 1 and at == list(range(at[0], at[0] + len(at))) else text


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
    text = _MIXED.sub(" ", text)
    text = _FRAC_SHORT.sub(r"\1/\2", _FRAC.sub(r"\1/\2", text))
    text = _VULGAR.sub(lambda found: normalize("NFKC", found.group()).replace("⁄", "/"), text)
    text = text.replace("⁄", "/")
    text = _RAISED.sub(lambda found: "^" + normalize("NFKC", found.group()), text)
    text = re.sub(rf"(?<=\d)[{_SPACES}](?=\d{{3}}(?!\d))", "'", text)
    text = re.sub(r"(?<=\d)\\[,!](?=\d{3}(?!\d))", "'", text)
    text = _TIMES.sub("×", _POWER.sub("^", _MINUS.sub(r"\1 -", text)))
    return _UNITS_POWER.sub("", unmarked(text)).replace("\\", " ")


def _number(found: re.Match[str]) -> Number | None:
    part = found.groupdict()
    digits, exponent, raised = part["whole"], _power(part["exp"] or part["power"]), _power(part["raised"] or "1")
    if len(digits) * max(1, abs(raised)) > _MOST_DIGITS or abs(exponent) > _MOST_DIGITS:
        return None
    value, alone = _whole(digits)
    try:
        value = (value * Fraction(10) ** exponent) ** raised / int(part["under"] or 1)
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
    if part["short"]:
        readings.append(value * _SHORT[part["short"]])
    return Number(found.group().strip(), tuple(readings), alone)


def _power(text: str | None) -> int:
    return int((text or "0").replace("−", "-"))


def _whole(digits: str) -> tuple[Fraction, Fraction | None]:
    """What digits with their marks most likely mean, and what may stand alone behind the last mark."""
    bare = re.sub("['’_]", "", digits)
    if " " in bare:
        bare = bare.replace(",", ".")
        return Fraction(bare.replace(" ", "")), Fraction(bare.rpartition(" ")[2])
    if bare.count(".") > 1 or 0 <= bare.find(".") < bare.find(","):
        return Fraction(bare.replace(".", "").replace(",", ".")), None
    if re.fullmatch(_GROUPED, bare):
        return Fraction(bare.replace(",", "")), None
    head, comma, tail = bare.partition(",")
    return (Fraction(f"{head}.{tail}"), Fraction(tail)) if comma else (Fraction(head), None)
