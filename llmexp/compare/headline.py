"""The one sentence on top: who wins, where, by how much, and how sure that is."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from llmexp.compare import answers_in_words as answers
from llmexp.compare import change, other_side, stats, words
from llmexp.compare.stacks import Cell, Stack, pairs
from llmexp.metrics.distributions import needed
from llmexp.metrics.wording import percent_range

if TYPE_CHECKING:
    from llmexp.compare.model import Comparison, Contrast

PAIRS = 4
"""Pairs that a headline names one by one."""
LOSERS = 2
"""Stacks whose better sides a headline names."""
_CALLS = {
    "tie": "tie",
    "undecided": "undecided",
    "refused": "no verdict",
    "withheld": "no difference to be seen",
}
_UNTOLD = "no stack told apart from all others"
_OURS = ("tie", "undecided", "no ", "within ", "at ")
"""How a sentence begins with words of ours, not with a stack's name."""
_BEST = {"lower": "lowest", "higher": "highest", None: "best"}


def headline(comparison: Comparison) -> str:
    """The verdict in a sentence or two, for the top of a page and a run's description."""
    text = _headline(comparison)
    if not comparison.rehearsal:
        return text
    return f"Rehearsal, the simulator played the models: {_inside(text)}"


def _headline(comparison: Comparison) -> str:
    stacks, verdicts = comparison.grid.stacks, comparison.verdicts
    if not stacks:
        return "Nothing to compare: no run has completed requests."
    if len(stacks) == 1:
        effects = answers.of_loads(comparison.load_effects)
        return _sentence(effects) if effects else f"One stack, {stacks[0].label}: nothing to compare it with."
    if not verdicts:
        return _sentence(answers.alone(comparison)) if comparison.rights else _nothing(comparison)
    parts = [answers.joined(_times(comparison), comparison), *_other_side(comparison)]
    return _sentence("; ".join(part for part in parts if part))


def _other_side(comparison: Comparison) -> list[str]:
    """What speaks for the stacks that did not win, and the loads that keep the service level."""
    if change.spoken(comparison):
        return []
    winners = {winner for contrast in comparison.verdicts if (winner := contrast.ahead)}
    said = []
    if len(winners) == 1:
        (winner,) = winners
        beaten = dict.fromkeys(_other(each, winner) for each in comparison.verdicts if each.ahead == winner)
        said = [other_side.against(winner, loser, comparison) for loser in list(beaten)[:LOSERS]]
    return [*said, other_side.service(comparison.capacities)]


def _times(comparison: Comparison) -> str:
    """What the primary metric says."""
    verdicts = comparison.verdicts
    if len(verdicts) == 1 and (not change.spoken(comparison) or verdicts[0].call == "refused"):
        return verdicts[0].text
    within = all(contrast.call == "withheld" for contrast in verdicts)
    text = _several(comparison)
    return f"within these runs, {text}; {_MORE}" if within else text


_MORE = f"run.repeats={stats.MIN_BLOCKS} or more gives a verdict"


def _sentence(text: str) -> str:
    """A stack's name keeps its letters; our own words begin with a capital."""
    return f"{text[:1].upper() if text.startswith(_OURS) else text[:1]}{text[1:]}."


def _inside(sentence: str) -> str:
    """The sentence behind a colon: words of ours begin small there."""
    begun = f"{sentence[:1].lower()}{sentence[1:]}"
    return begun if begun.startswith(_OURS) else sentence


def _nothing(comparison: Comparison) -> str:
    """Why no pair could even be looked at."""
    grid, primary, baseline = comparison.grid, comparison.primary, comparison.options.baseline
    held = next((stack for stack in grid.stacks if baseline in (stack.label, stack.model)), None)
    looked_at = pairs(grid, held)
    if not any(grid.at(one, cell) and grid.at(two, cell) for one, two in looked_at for cell in grid.cells):
        sides = "occasions" if grid.several_sources else "stacks"
        return f"The {sides} share no workload and load, so they cannot be compared."
    if primary.percent is not None and any(not value.carried for value in comparison.values.values()):
        return f"No verdict: {primary.label} needs {needed(primary.percent)} completed requests in each run."
    return f"No verdict: {primary.label} is not known on both sides of any pair."


def _several(comparison: Comparison) -> str:
    """Pair by pair where each pair is a question of its own, else who leads at each load."""
    by_pair: dict[tuple[Stack, Stack], list[Contrast]] = {}
    for contrast in comparison.verdicts:
        by_pair.setdefault((contrast.reference, contrast.candidate), []).append(contrast)
    alone = comparison.options.baseline is not None or comparison.grid.several_sources
    if len(by_pair) > 1 and not alone:
        return _leaders(comparison)
    if change.spoken(comparison):
        parts = [change.of_pair(contrasts, comparison) for contrasts in by_pair.values()]
    else:
        parts = [_pair(contrasts, comparison, named=len(by_pair) > 1) for contrasts in by_pair.values()]
    more = len(parts) - PAIRS
    return "; ".join(parts[:PAIRS]) + (f"; and {more} more {'pair' if more == 1 else 'pairs'}" if more > 0 else "")


# --- one pair --------------------------------------------------------------------------------------------------------


def _pair(verdicts: Sequence[Contrast], comparison: Comparison, named: bool) -> str:
    """`sonnet's mean TTFT is lower than llama's at concurrency 1 (10–14 %) and 4 (8–12 %); tie at concurrency 16`."""
    first = verdicts[0]
    parts = []
    for ahead, behind in ((first.candidate, first.reference), (first.reference, first.candidate)):
        won = [contrast for contrast in verdicts if contrast.ahead == ahead]
        if won:
            places = words.join([f"{_at(each.cell, comparison)}{_size(each)}" for each in won])
            parts.append(
                f"{ahead.label}'s {first.metric.label} is {first.metric.better} than {behind.label}'s {places}"
            )
    pair = f"{first.candidate.label} against {first.reference.label}: " if named and not parts else ""
    for call, text in _CALLS.items():
        rest = [_at(each.cell, comparison) for each in verdicts if each.call == call and not each.ahead]
        if rest:
            parts.append(f"{text} {words.join(rest)}")
    return pair + "; ".join(parts)


def _size(contrast: Contrast) -> str:
    """` (12–16 %)`, of the loser's value."""
    _, relative, _ = words.spans(contrast.gap, contrast.alpha, contrast.ahead == contrast.candidate)
    return f" ({percent_range(*relative)})" if relative else ""


def _at(cell: Cell, comparison: Comparison) -> str:
    return words.where(cell, comparison.grid.several_workloads)


# --- many stacks -----------------------------------------------------------------------------------------------------


def _leaders(comparison: Comparison) -> str:
    """For each load the stack that beats all others, or the ones that none beats."""
    standings: dict[str, list[str]] = {}
    for cell in comparison.grid.cells:
        here = [contrast for contrast in comparison.verdicts if contrast.cell == cell]
        if here:
            standings.setdefault(_standing(here), []).append(_at(cell, comparison))
    plain = {*_CALLS.values(), _UNTOLD}
    ordered = sorted(standings.items(), key=lambda item: item[0] in plain)
    return "; ".join(f"{who} {words.join(places)}" for who, places in ordered)


def _standing(verdicts: Sequence[Contrast]) -> str:
    """`sonnet has the lowest mean TTFT`, `sonnet or haiku has the lowest mean TTFT (undecided which)`, `tie`."""
    metric = verdicts[0].metric
    stacks = list(dict.fromkeys(side for each in verdicts for side in (each.reference, each.candidate)))
    beaten = {_other(each, winner) for each in verdicts if (winner := each.ahead)}
    ahead = [stack for stack in stacks if stack not in beaten]
    calls = {each.call for each in verdicts if {each.reference, each.candidate} <= set(ahead)}
    if len(ahead) == len(stacks) or not ahead:
        return _CALLS.get(next(iter(calls)), _UNTOLD) if len(calls) == 1 else _UNTOLD
    best = f"has the {_BEST[metric.better]} {metric.label}"
    if len(ahead) == 1:
        return f"{ahead[0].label} {best}"
    which = "tie" if calls == {"tie"} else "undecided which"
    return f"{' or '.join(stack.label for stack in ahead)} {best} ({which})"


def _other(contrast: Contrast, one: Stack) -> Stack:
    return contrast.reference if one == contrast.candidate else contrast.candidate
