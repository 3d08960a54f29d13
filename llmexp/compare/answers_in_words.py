"""The part of the headline that speaks of right answers."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from llmexp.compare import words
from llmexp.compare.quality import IDENTICAL, Right, span
from llmexp.compare.stacks import Stack
from llmexp.metrics.wording import digits

if TYPE_CHECKING:
    from llmexp.compare.model import Comparison, Contrast

PAIRS = 4
"""Pairs that a headline names one by one."""
COST = "usd_per_thousand_right"
_ALIKE = 0.02
"""Relative difference in cost that is not worth a clause."""
_PLACES = {
    "better": "are right more often than",
    "worse": "are worse than",
    "not_worse": "are not worse than",
    "undecided": "may be better or worse than",
    "withheld": "differ, within these runs, from",
    "refused": "cannot be compared with",
}
_BUT = ("worse", "undecided", "refused")


def joined(text: str, comparison: Comparison) -> str:
    """`…, and its answers are not worse (−1.6 to +2.4 points); a right answer costs 0.31 times as much`."""
    rights = comparison.rights
    if not rights:
        return text
    if len(rights) == 1 == len(comparison.verdicts):
        right, subject = rights[0], subject_of(comparison.verdicts[0])
        link = "but" if right.call in _BUT else "and"
        return f"{text}, {link} {_clause(right, subject)}{_cost([right], subject, comparison)}"
    return f"{text}; {alone(comparison)}"


def alone(comparison: Comparison) -> str:
    """`b's answers are not worse than a's at concurrency 1 and 16`, pair by pair."""
    rights = comparison.rights
    if len(rights) == 1:
        return rights[0].text + _cost(rights, rights[0].candidate, comparison)
    by_pair: dict[tuple[Stack, Stack], list[Right]] = {}
    for right in rights:
        by_pair.setdefault((right.reference, right.candidate), []).append(right)
    parts = [_pair(members, comparison) for members in by_pair.values()]
    if len(parts) == 1:
        parts[0] += _cost(rights, rights[0].candidate, comparison, named=True)
    more = len(parts) - PAIRS
    return "; ".join(parts[:PAIRS]) + (f"; and {more} more {'pair' if more == 1 else 'pairs'}" if more > 0 else "")


def of_loads(effects: Sequence[Right]) -> str:
    """What the highest load does to a lone stack's answers; empty where nothing is known."""
    graded = [right for right in effects if right.metric != IDENTICAL] or list(effects)
    return graded[-1].text if graded else ""


def subject_of(contrast: Contrast) -> Stack:
    """The stack that a verdict on times is about: the better one where there is one."""
    return contrast.better or contrast.candidate


def _clause(right: Right, subject: Stack) -> str:
    its = right.candidate == subject
    whose = "its answers" if its else f"{right.candidate.label}'s answers"
    than = "" if its else f" than {right.reference.label}'s"
    low, high = right.interval
    size = " to ".join(digits(100 * value, 2) for value in sorted((abs(low), abs(high))))
    if right.call == "better":
        return f"{whose} are right more often{than} (by {size} points)"
    if right.call == "worse":
        return f"{whose} are worse{than} (right {size} points less often)"
    if right.call == "not_worse":
        return f"{whose} are not worse{than} ({span(right)})"
    if right.call == "undecided":
        return f"whether {whose} are worse{than} is undecided ({span(right)})"
    if right.call == "withheld":
        return f"{whose} differ{than and f' from {right.reference.label}’s'} by {span(right)} within these runs"
    return f"{whose} cannot be compared{than and f' with {right.reference.label}’s'}"


def _cost(rights: Sequence[Right], subject: Stack, comparison: Comparison, *, named: bool = False) -> str:
    """`; a right answer costs 0.31 times as much`, of the subject against the other; over several loads a range."""
    ratios = []
    for right in rights:
        other = right.reference if subject == right.candidate else right.candidate
        found = [comparison.values.get((stack.key, right.cell.key, COST)) for stack in (subject, other)]
        if found[0] is None or found[1] is None or found[0].value <= 0 or found[1].value <= 0:
            return ""
        ratios.append(found[0].value / found[1].value)
    if max(abs(ratio - 1) for ratio in ratios) < _ALIKE:
        return ""
    sizes = list(dict.fromkeys(digits(ratio, 2) for ratio in (min(ratios), max(ratios))))
    whose = f" of {subject.label}" if named else ""
    return f"; a right answer{whose} costs {' to '.join(sizes)} times as much"


def _size(right: Right) -> str:
    """` (−1.6 to +2.4 points)`; nothing where the answers cannot be compared."""
    return "" if right.call == "refused" else f" ({span(right)})"


def _pair(rights: Sequence[Right], comparison: Comparison) -> str:
    """`b's answers are not worse than a's at concurrency 1 (−1.6 to +2.4 points), worse at concurrency 16 (…)`."""
    first = rights[0]
    parts = []
    for call, text in _PLACES.items():
        some = [right for right in rights if right.call == call]
        if some:
            sized = [f"{words.where(one.cell, comparison.grid.several_workloads)}{_size(one)}" for one in some]
            parts.append(f"{text} {first.reference.label}'s {words.join(sized)}")
    return f"{first.candidate.label}'s answers {', '.join(parts)}"
