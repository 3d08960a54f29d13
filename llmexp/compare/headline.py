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
    return f"{text[:1].upper() if _plain(text) else text[:1]}{text[1:]}."


def _plain(text: str) -> bool:
    """Whether the text begins with one of our own words, which may take a capital; a stack's name may not."""
    return text.startswith(("tie", "undecided", "no ", "within", "at "))


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
    """For each load the stack that beats all others, or the ones that none beats."""
    standings: dict[str, list[str]] = {}
    for cell in comparison.grid.cells:
        here = [contrast for contrast in verdicts if contrast.cell == cell]
        if here:
            standings.setdefault(_standing(here), []).append(_at(cell, comparison))
    return "; ".join(
        f"{who} {_join(places)}" for who, places in sorted(standings.items(), key=lambda item: item[0] in _ALONE)
    )


def _standing(verdicts: Sequence[Contrast]) -> str:
    """`sonnet has the lowest mean TTFT`, `sonnet or haiku has the lowest mean TTFT (undecided which)`, `tie`."""
    metric = verdicts[0].metric
    stacks = list(dict.fromkeys(side for each in verdicts for side in (each.reference, each.candidate)))
    beaten = {_loser(contrast) for contrast in verdicts if contrast.better}
    ahead = [stack for stack in stacks if stack not in beaten]
    calls = {each.call for each in verdicts if {each.reference, each.candidate} <= set(ahead)}
    if len(ahead) == len(stacks) or not ahead:
        return (
            _REST.get(next(iter(calls)), "no stack ahead") if len(calls) == 1 else "no stack told apart from all others"
        )
    best = f"has the {_BEST[metric.better]} {metric.label}"
    if len(ahead) == 1:
        return f"{ahead[0].label} {best}"
    which = "tie" if calls == {"tie"} else "undecided which"
    return f"{' or '.join(stack.label for stack in ahead)} {best} ({which})"


_BEST = {"lower": "lowest", "higher": "highest", None: "best"}
_ALONE = {*_REST.values(), "no stack ahead", "no stack told apart from all others"}


def _loser(contrast: Contrast) -> Stack:
    return contrast.reference if contrast.better == contrast.candidate else contrast.candidate
