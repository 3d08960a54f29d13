"""ROUGE-L on words, as the `rouge_score` package counts it without stemming.

Where a script has no spaces between words, a character is a word.
"""

from __future__ import annotations

from llmexp.quality.texts import WORD


def rouge_l(answer: str, wanted: str) -> float:
    """F1 of the longest common subsequence of words; 0 where either has none."""
    one, two = WORD.findall(answer.casefold()), WORD.findall(wanted.casefold())
    if not one or not two:
        return 0.0
    common = longest_common(one, two)
    return 2 * common / (len(one) + len(two))


def longest_common(one: list[str], two: list[str]) -> int:
    """Length of the longest common subsequence.

    Bit-parallel (Hyyrö 2004): a whole row of the usual table is one integer, so that 10,000 long answers take seconds.
    """
    places: dict[str, int] = {}
    for at, word in enumerate(one):
        places[word] = places.get(word, 0) | 1 << at
    full = (1 << len(one)) - 1
    row = full
    for word in two:
        met = row & places.get(word, 0)
        row = ((row + met) | (row - met)) & full
    return len(one) - row.bit_count()
