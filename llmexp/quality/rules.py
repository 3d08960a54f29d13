"""Graders of texts: exact, contains, choice, number, regex, overlap. Pure.

Where `expected` is a list, any of its entries will do, and the best score counts.
"""

from __future__ import annotations

import re
from collections.abc import Callable

from llmexp.quality.choices import choice_in, letter_of
from llmexp.quality.grade import Given, Grade, Grader, graded, ungraded, unparsed
from llmexp.quality.numbers import final_number
from llmexp.quality.overlap import rouge_l
from llmexp.quality.texts import UNSPACED, boxed, plain, wordless

NOTHING_EXPECTED = "nothing is expected of this answer"
EMPTY = "the answer is empty"


_SOLVED = re.compile(r"(?:\A|\n)[ \t]*####[ \t]*([^\n]+?)\s*\Z")


def accepted(expected: object) -> list[str]:
    """The texts that will do: of a text itself, of a list each of its entries.

    Numbers do as they are written and true as "yes"; of a solution, what it ends in.
    """
    entries = expected if isinstance(expected, list | tuple) else [expected]
    return [text for entry in entries for text in _texts(entry) if text.strip()]


def _texts(entry: object) -> list[str]:
    if isinstance(entry, bool):
        return ["true", "yes"] if entry else ["false", "no"]
    if isinstance(entry, float) and entry.is_integer():
        return [str(entry), str(int(entry))]  # tables with a gap write 3 as 3.0
    if isinstance(entry, str):
        return [_solved(entry)]
    return [str(entry)] if isinstance(entry, int | float) else []


def _solved(text: str) -> str:
    r"""What stands behind `####` in the last line (GSM8K) or in `\boxed{}` (MATH); else the text."""
    found = _SOLVED.search(text)
    return found.group(1) if found else boxed(text) or text


def against_texts(score: Callable[[str, str], tuple[float, str]], threshold: float) -> Grader:
    """A grader that scores the answer against each accepted text; `score` gives the score and a note."""

    def grade(given: Given) -> Grade:
        wanted = accepted(given.expected)
        if not wanted:
            return ungraded(NOTHING_EXPECTED)
        if given.blank or (wordless(given.text) and not any(map(wordless, wanted))):
            return unparsed(EMPTY)
        best, note = max((score(given.text, text) for text in wanted), key=lambda found: found[0])
        return graded(best, threshold, note, quotes=True)

    return grade


def exact(threshold: float) -> Grader:
    """The same text, formatting and letter case aside; of `#### 72` at the end, or of a box, what stands there."""
    return against_texts(_exact, threshold)


def _exact(answer: str, wanted: str) -> tuple[float, str]:
    read = _solved(answer)
    return float(plain(wanted) in (plain(read), plain(answer))), f"read: {read}"


def contains(threshold: float) -> Grader:
    """The expected words stand in the answer, as whole words."""
    return against_texts(_contains, threshold)


def _contains(answer: str, wanted: str) -> tuple[float, str]:
    found = re.search(_as_words(plain(wanted)), plain(answer)) is not None
    found = found or (wordless(wanted) and wanted.strip() in answer)  # signs that are formatting elsewhere
    return float(found), f"{'found' if found else 'not found'}: {wanted}"


def _as_words(needle: str) -> str:
    """A pattern of whole words. A number inside another one ("3" in "3.5", "1,300" or "-3") is none."""
    before = "" if UNSPACED.match(needle[0]) else r"(?<!\w)(?<!\d[.,])"
    after = "" if UNSPACED.match(needle[-1]) else r"(?!\w)(?![.,]\d)"
    if len(needle) == 1 and before:
        before += r"(?<!\w')"  # the d of "I'd"
    if needle[0].isdigit():
        before += r"(?<!\A-)(?<![^\w)\]]-)"
    return f"{before}{re.escape(needle)}{after}"


def overlap(threshold: float) -> Grader:
    """ROUGE-L's F1: the longest common subsequence of words."""
    return against_texts(lambda answer, wanted: (score := rouge_l(answer, wanted), f"ROUGE-L {score:.2f}"), threshold)


def number(threshold: float, tolerance: float) -> Grader:
    """The number that the answer ends on, against the one that the expected text ends on."""

    def grade(given: Given) -> Grade:
        wanted = [found for text in accepted(given.expected) if (found := final_number(text))]
        if not wanted:
            return ungraded(NOTHING_EXPECTED if given.expected is None else "the expected text holds no number")
        found = final_number(given.text)
        if found is None:
            return unparsed("no number in the answer")
        right = any(found.near(one, tolerance) for one in wanted)
        return graded(float(right), threshold, f"read: {found.text}", quotes=True)

    return grade


def choice(threshold: float) -> Grader:
    """The letter that was chosen, or the choice that was named in the question's own words."""

    def grade(given: Given) -> Grade:
        wanted = [found for text in accepted(given.expected) if (found := _chosen(given.question, text))]
        if not wanted:
            return ungraded(NOTHING_EXPECTED if given.expected is None else "the expected text holds no letter")
        found = _chosen(given.question, given.text)
        if found is None:
            return unparsed("no letter in the answer")
        return graded(float(found in wanted), threshold, f"read: {found}", quotes=True)

    return grade


def _chosen(question: str, text: str) -> str | None:
    return letter_of(text) or choice_in(question, text)


def regex(threshold: float, pattern: str) -> Grader:
    """With a group: what it holds at its last match is compared as by `exact`, or as a number. Without: it matches."""
    compiled = re.compile(pattern, re.MULTILINE)
    return _grouped(threshold, compiled) if compiled.groups else _matching(threshold, compiled)


def _matching(threshold: float, pattern: re.Pattern[str]) -> Grader:
    def grade(given: Given) -> Grade:
        if given.blank:
            return unparsed(EMPTY)
        found = pattern.search(given.text)
        note = f"matched: {found.group()}" if found else "no match"
        return graded(float(found is not None), threshold, note, quotes=True)

    return grade


def _grouped(threshold: float, pattern: re.Pattern[str]) -> Grader:
    def grade(given: Given) -> Grade:
        wanted = accepted(given.expected)
        if not wanted:
            return ungraded(NOTHING_EXPECTED)
        held = group_of(pattern, given.text)
        if not (held and held.strip()):
            return unparsed("the pattern does not match" if held is None else "the pattern's group is empty")
        right = any(_same(held, text) for text in wanted)
        return graded(float(right), threshold, f"read: {held}", quotes=True)

    return grade


def group_of(pattern: re.Pattern[str], text: str) -> str | None:
    """What the first group that took part holds at the pattern's last match."""
    matches = list(pattern.finditer(text))
    return next((held for held in matches[-1].groups() if held is not None), None) if matches else None


def _same(held: str, wanted: str) -> bool:
    if plain(held) == plain(wanted):
        return True
    one, two = final_number(held), final_number(wanted)
    alone = one is not None and two is not None and wanted.strip() == two.text
    return alone and one is not None and two is not None and one.near(two, 0.0)
