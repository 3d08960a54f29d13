"""The one sentence on top: who wins, where, by how much, and how sure that is."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

from llmexp.compare import words
from llmexp.compare.catalogue import percent_range
from llmexp.compare.stacks import Cell, Stack

if TYPE_CHECKING:
    from llmexp.compare.comparison import Comparison, Contrast


def headline(comparison: Comparison) -> str:
    """The verdict in a sentence or two, for the top of a page and a run's description."""
    verdicts = comparison.verdicts
    if not comparison.grid.stacks:
        return "Nothing to compare: no run has completed requests."
    if len(comparison.grid.stacks) == 1:
        return f"One stack, {comparison.grid.stacks[0].label}: nothing to compare it with."
    if not verdicts:
        return "The stacks share no workload and load, so they cannot be compared."
    if len(verdicts) == 1:
        return _sentence(verdicts[0].text if verdicts[0].call != "withheld" else _single(verdicts[0]))
    stacks = {stack.key for contrast in verdicts for stack in (contrast.reference, contrast.candidate)}
    text = _two(verdicts, comparison) if len(stacks) == 2 else _many(verdicts, comparison)
    return _sentence(text)


def _sentence(text: str) -> str:
    return (
        f"{text[:1].upper() if not text.startswith(('http',)) else text[:1]}{text[1:].rstrip('.')}."
        if _plain(text)
        else f"{text}."
    )


def _plain(text: str) -> bool:
    """Whether the text begins with one of our own words, which may take a capital; a stack's name may not."""
    return text.startswith(("tie", "undecided", "no ", "within"))


def _single(contrast: Contrast) -> str:
    label = contrast.metric.label
    span = words.span(contrast.gap, contrast.metric, contrast.alpha)
    return f"{contrast.candidate.label}'s {label} is {span} than {contrast.reference.label}'s {contrast.text}"


# --- two stacks, several cells ---------------------------------------------------------------------------------------


def _two(verdicts: Sequence[Contrast], comparison: Comparison) -> str:
    """`sonnet's mean TTFT is lower than llama's at concurrency 1 (10–14 %) and 4 (8–12 %); tie at concurrency 16`."""
    first = verdicts[0]
    parts = []
    for winner in (first.candidate, first.reference):
        loser = first.reference if winner is first.candidate else first.candidate
        won = [contrast for contrast in verdicts if contrast.better == winner]
        if won:
            direction = first.metric.better
            places = _join(_place(contrast, comparison, _size(contrast)) for contrast in won)
            parts.append(f"{winner.label}'s {first.metric.label} is {direction} than {loser.label}'s {places}")
    for call, text in _REST.items():
        left = [_place(contrast, comparison, "") for contrast in verdicts if contrast.call == call]
        if left:
            parts.append(f"{text} {_join(left)}")
    return "; ".join(parts)


_REST = {
    "tie": "tie",
    "undecided": "undecided",
    "refused": "no verdict",
    "withheld": "no verdict from so few repeats",
}


def _size(contrast: Contrast) -> str:
    """`12–16 %`, of the loser's value."""
    _, relative, _ = words.spans(contrast.gap, contrast.alpha, contrast.better == contrast.candidate)
    return percent_range(*relative) if relative else ""


def _place(contrast: Contrast, comparison: Comparison, extra: str) -> str:
    return _at(contrast.cell, comparison) + (f" ({extra})" if extra else "")


def _at(cell: Cell, comparison: Comparison) -> str:
    return words.where(cell, len({each.workload for each in comparison.grid.cells}) > 1)


def _join(parts: Iterator[str] | Sequence[str]) -> str:
    """`at concurrency 1 and 4`: what the parts begin with alike is said once."""
    listed = list(parts)
    lead = "at concurrency "
    if all(part.startswith(lead) for part in listed):
        listed = [listed[0], *(part.removeprefix(lead) for part in listed[1:])]
    return listed[0] if len(listed) == 1 else f"{', '.join(listed[:-1])} and {listed[-1]}"


# --- many stacks -----------------------------------------------------------------------------------------------------


def _many(verdicts: Sequence[Contrast], comparison: Comparison) -> str:
    """For each cell the stack that beats all others, else how many pairs are told apart."""
    winners: dict[str, list[str]] = {}
    for cell in comparison.grid.cells:
        here = [contrast for contrast in verdicts if contrast.cell == cell]
        if here:
            winners.setdefault(_standing(here), []).append(_at(cell, comparison))
    metric = verdicts[0].metric
    best = {"lower": "lowest", "higher": "highest", None: "clearly different"}[metric.better]
    return "; ".join(
        f"{who} the {best} {metric.label} {_join(places)}" if who.endswith("has") else f"{who} {_join(places)}"
        for who, places in winners.items()
    )


def _standing(verdicts: Sequence[Contrast]) -> str:
    stacks: list[Stack] = list(dict.fromkeys(side for each in verdicts for side in (each.reference, each.candidate)))
    for stack in stacks:
        own = [contrast for contrast in verdicts if stack in (contrast.reference, contrast.candidate)]
        if len(own) == len(stacks) - 1 and all(contrast.better == stack for contrast in own):
            return f"{stack.label} has"
    told = sum(contrast.call in ("lower", "higher") for contrast in verdicts)
    if told:
        return f"{told} of {len(verdicts)} pairs told apart, no stack ahead of all,"
    calls = {contrast.call for contrast in verdicts}
    return _REST[calls.pop()] if len(calls) == 1 else "no pair told apart"
