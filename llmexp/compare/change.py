"""Before and after: what became of each model between two occasions, in words and as rows of a table."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from llmexp.compare import words
from llmexp.compare.stacks import Cell, Stack
from llmexp.metrics.catalogue import Metric
from llmexp.metrics.wording import digits

if TYPE_CHECKING:
    from llmexp.compare.model import Comparison, Contrast

_VERBS = {"s": ("faster", "slower"), "USD": ("cheaper", "dearer")}
"""Unit → what a model got, when the metric fell and when it rose."""


def spoken(comparison: Comparison) -> bool:
    """Whether every pair is one model on two occasions."""
    verdicts = comparison.verdicts
    same = all(contrast.reference.model == contrast.candidate.model for contrast in verdicts)
    return comparison.grid.several_sources and bool(verdicts) and same


def of_pair(verdicts: Sequence[Contrast], comparison: Comparison) -> str:
    """`vllm_b got slower: mean TTFT +6–15 % at concurrency 8: a regression`."""
    first = verdicts[0]
    parts = []
    for worse in (True, False):
        moved = [each for each in verdicts if _moved(each) is not None and (_worse(each) is worse)]
        if moved:
            several = len(moved) > 1
            where = words.join([f"{_at(each.cell, comparison)}{_sized(each, several=several)}" for each in moved])
            size = "" if several else f" {signed(moved[0])}"
            sure = all(each.call != "withheld" for each in moved)
            end = ": a regression" if worse and sure else ""
            parts.append(f"{first.candidate.model} {_verb(moved[0])}: {first.metric.label}{size} {where}{end}")
    still = {"tie": "unchanged", "undecided": "undecided", "refused": "no verdict", "withheld": "no change to be seen"}
    for call, said in still.items():
        places = [_at(each.cell, comparison) for each in verdicts if each.call == call and _moved(each) is None]
        if places:
            parts.append(f"{'' if parts else f'{first.candidate.model}: '}{said} {words.join(places)}")
    return "; ".join(parts)


def told(comparison: Comparison) -> tuple[Contrast, ...]:
    """All contrasts, the verdicts among them in words of change: each is held against the earlier occasion."""
    return tuple(
        replace(each, text=_alone(each, comparison)) if each.text and _moved(each) is not None else each
        for each in comparison.contrasts
    )


def _alone(contrast: Contrast, comparison: Comparison) -> str:
    """`vllm_b got slower: mean TTFT +6–15 % at concurrency 8: a regression`, of one load."""
    text = of_pair([contrast], comparison)
    return f"{text} {words.no_verdict(contrast.gap)}" if contrast.call == "withheld" else text


def _moved(contrast: Contrast) -> bool | None:
    """Whether the metric rose; None where that cannot be told."""
    low, high = contrast.gap.estimate.interval(contrast.alpha)
    told = contrast.call in ("lower", "higher") or (contrast.call == "withheld" and not low <= 0 <= high)
    return contrast.gap.estimate.mean > 0 if told else None


def _worse(contrast: Contrast) -> bool:
    return contrast.metric.better is not None and _moved(contrast) is (contrast.metric.better == "lower")


def _verb(contrast: Contrast) -> str:
    rose = bool(_moved(contrast))
    verbs = _VERBS.get(contrast.metric.unit)
    if verbs is not None:
        return f"got {verbs[rose]}"
    return "went up" if rose else "went down"


def _sized(contrast: Contrast, *, several: bool) -> str:
    return f" ({signed(contrast)})" if several else ""


def _at(cell: Cell, comparison: Comparison) -> str:
    return words.where(cell, comparison.grid.several_workloads)


def signed(contrast: Contrast) -> str:
    """The change as an interval with signs: `+6–15 %`, `−2 to +5 %`."""
    ratios = contrast.gap.ratios(contrast.alpha)
    if ratios is None:
        return contrast.metric.show_gap(*contrast.gap.differences(contrast.alpha))
    low, high = (100 * (ratio - 1) for ratio in ratios)
    if low < 0 < high:
        return f"−{digits(-low, 2)} to +{digits(high, 2)} %"
    near, far = sorted((abs(low), abs(high)))
    sign = "+" if low >= 0 else "−"
    one, two = digits(near, 2), digits(far, 2)
    return f"{sign}{one} %" if one == two else f"{sign}{one}–{two} %"


# --- as a table ------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Change:
    """One metric of one model at one load."""

    cell: Cell
    model: str
    metric: Metric
    stacks: tuple[Stack, ...]
    """The model on each occasion."""
    change: str
    call: str


def occasions(comparison: Comparison) -> list[str]:
    """The weeks, in the order given."""
    return list(dict.fromkeys(_occasion(stack) for stack in comparison.grid.stacks))


def _occasion(stack: Stack) -> str:
    return stack.label.removeprefix(stack.model).strip(" ()") or stack.source


def changes(comparison: Comparison, metrics: Sequence[Metric]) -> Iterator[Change]:
    """A row for each metric of each model at each load."""
    for cell in comparison.grid.cells:
        for model in dict.fromkeys(stack.model for stack in comparison.grid.stacks):
            stacks = tuple(stack for stack in comparison.grid.stacks if stack.model == model)
            if len(stacks) == 1:
                continue  # there is no before, or no after
            for metric in metrics:
                found = [
                    contrast
                    for contrast in comparison.contrasts
                    if contrast.cell == cell and contrast.metric == metric and contrast.candidate == stacks[-1]
                ]
                if any((stack.key, cell.key, metric.name) in comparison.values for stack in stacks):
                    shown = signed(found[0]) if found else "–"
                    yield Change(cell, model, metric, stacks, shown, found[0].call if found else "shown")
