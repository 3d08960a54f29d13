"""Numbers in words: digits are split by each tokenizer in its own way, these words are one token to all of them."""

from __future__ import annotations

_NAMES = """
zero one two three four five six seven eight nine
ten eleven twelve thirteen fourteen fifteen sixteen seventeen eighteen nineteen
twenty thirty forty fifty sixty seventy eighty ninety
"""
_SMALL, _TENS = _NAMES.split()[:20], _NAMES.split()[20:]
_LARGEST = 999_999
SPREAD_WORDS = 10
"""The longest number has so many words more than the shortest."""


def in_words(number: int) -> str:
    """Such as `one hundred and twenty five`, without hyphens, which tokenizers split differently too.

    Digits for what is negative or has more than six of them.
    """
    return _spoken(number) if 0 <= number <= _LARGEST else str(number)


def _spoken(number: int) -> str:
    if number < len(_SMALL):
        return _SMALL[number]
    if number < 100:
        return _joined(_TENS[number // 10 - 2], " ", number % 10)
    if number < 1000:
        return _joined(f"{_SMALL[number // 100]} hundred", " and ", number % 100)
    rest = number % 1000
    return _joined(f"{_spoken(number // 1000)} thousand", " and " if rest < 100 else " ", rest)


def _joined(head: str, link: str, rest: int) -> str:
    return f"{head}{link}{_spoken(rest)}" if rest else head
