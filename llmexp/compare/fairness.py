"""Is it fair to compare these two stacks in this cell? What makes a verdict worthless, and what a reader must know.

A *refusal* leaves the intervals standing and takes the verdict away; a *label* goes along with it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from llmexp.metrics.catalogue import AT_A_LOAD
from llmexp.metrics.validity import CHUNK_TOKENS, ROUGH_BY_CHUNK
from llmexp.metrics.wording import digits
from llmexp.records.observed import Floats
from llmexp.results.requests import Requests
from llmexp.results.run import Run

Level = Literal["refused", "label"]
OUTPUT_TOLERANCE = 0.05
"""Relative difference in mean output tokens that passes without a word."""
ERROR_RATE_GAP = 0.02
LIVE_DRIFT = 0.05
"""With live history: by so much the inputs of two sides may differ in tokens before a verdict means nothing."""
OFF_SCRIPT = 0.1
"""With live history: this share of a side's answers may leave out a recorded tool call."""
_LEVELS: tuple[tuple[str, Level], ...] = (("invalid", "refused"), ("degraded", "label"))
_LENGTH_MATTERS = (
    "e2e_latency_s",
    "response_latency_s",
    "requests_per_s",
    "goodput_per_s",
    "cost_usd",
    "usd_per_million",
)
"""Metrics that follow the length of the answers."""


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing that is unlike between two sides."""

    level: Level
    reason: str
    """A word for machines."""
    text: str
    metrics: tuple[str, ...] | None = None
    """Beginnings of the metrics it concerns; None: all."""
    about: str | None = None
    """The side that it is about; None: both."""

    def concerns(self, metric: str) -> bool:
        """Whether it bears on this metric."""
        return self.metrics is None or metric.startswith(self.metrics)


@dataclass(frozen=True, slots=True)
class Sent:
    """What one side sent, each index once, in rising order; a limit that is unknown counts as −1."""

    index: NDArray[np.int64]
    digest: NDArray[np.bytes_]
    max_tokens: NDArray[np.float64]

    @classmethod
    def by(cls, runs: Sequence[Run]) -> Sent:
        """Everything that the runs sent; repeats send the same prompts."""
        index, first = np.unique(np.concatenate([run.requests.index for run in runs]), return_index=True)
        limits = np.nan_to_num(np.concatenate([run.requests.max_tokens for run in runs])[first], nan=-1.0)
        return cls(index, np.concatenate([run.requests.digest for run in runs])[first], limits)


@dataclass(frozen=True, slots=True)
class Side:
    """One stack's runs in a cell, under its label."""

    label: str
    runs: Sequence[Run]
    sent: Sent

    @classmethod
    def of(cls, label: str, runs: Sequence[Run]) -> Side:
        """The side with its prompts gathered once, for all comparisons that it takes part in."""
        return cls(label, runs, Sent.by(runs))


def check(one: Side, two: Side) -> tuple[Finding, ...]:
    """Everything unlike between two sides of one cell, refusals first."""
    found = [finding for test in _TESTS for finding in test(one, two)]
    return tuple(sorted(found, key=lambda finding: finding.level != "refused"))


# --- what the runs are -----------------------------------------------------------------------------------------------


def _validity(one: Side, two: Side) -> Iterator[Finding]:
    for side in (one, two):
        for verdict, level in _LEVELS:
            count = sum(run.verdict == verdict for run in side.runs)
            if count:
                which = f"{count} of its {len(side.runs)} runs are"
                if count == len(side.runs):
                    which = "its run is" if count == 1 else "all of its runs are"
                text = f"{side.label}: {which} {verdict}: {_why(side.runs, verdict)}"
                yield Finding(level, verdict, text, about=side.label)


def _why(runs: Sequence[Run], verdict: str) -> str:
    reasons = (
        reason
        for run in runs
        if run.verdict == verdict
        for reason in run.result.validity.reasons
        if reason.level == verdict
    )
    words: dict[str, str] = {}
    for reason in reasons:
        name = reason.reason.replace("_", " ")
        words.setdefault(name, reason.seen or name)
    return ", ".join(words.values()) or "see its validity"


def _rough(one: Side, two: Side) -> Iterator[Finding]:
    """Numbers that rest on an estimate are shown, and decide nothing."""
    for side in (one, two):
        if any(run.result.rough(ROUGH_BY_CHUNK[0]) for run in side.runs):
            text = f"{side.label}: inter-token latency is rough, for how tokens fell on the chunks was estimated"
            for level in ("refused", "label"):
                yield Finding(level, CHUNK_TOKENS, text, ROUGH_BY_CHUNK, about=side.label)


def _rehearsal(one: Side, two: Side) -> Iterator[Finding]:
    played = [all(run.rehearsal for run in side.runs) for side in (one, two)]
    if all(played):
        yield Finding("label", "rehearsal", "both sides are rehearsals: the simulator played them, not the models")
    elif any(run.rehearsal for side in (one, two) for run in side.runs):
        side = one if played[0] else two
        yield Finding("refused", "rehearsal", f"{side.label} is a rehearsal, the other side was measured")


def _status(one: Side, two: Side) -> Iterator[Finding]:
    for side in (one, two):
        cut = sum(run.result.status == "interrupted" for run in side.runs)
        if cut:
            yield Finding(
                "label",
                "interrupted",
                f"{side.label}: {cut} of {len(side.runs)} runs were interrupted",
                about=side.label,
            )


def _versions(one: Side, two: Side) -> Iterator[Finding]:
    seen = [sorted({_version(run) for run in side.runs}) for side in (one, two)]
    if seen[0] != seen[1]:
        text = f"measured by different versions of llmexp: {', '.join(seen[0])} and {', '.join(seen[1])}"
        yield Finding("label", "versions", text)


def _version(run: Run) -> str:
    return run.result.environment.versions.get("llmexp", "unknown")


def _settings(one: Side, two: Side) -> Iterator[Finding]:
    searched = any(run.searched for run in (*one.runs, *two.runs))
    for key in ("run.seed",) if searched else ("run.seed", "run.max_requests", "run.warmup_requests"):
        seen = [sorted({str(run.settings.get(key)) for run in side.runs}) for side in (one, two)]
        if seen[0] != seen[1]:
            text = f"{key} differs: {', '.join(seen[0])} and {', '.join(seen[1])}"
            yield Finding("refused" if key == "run.seed" else "label", key, text)


def _searches(one: Side, two: Side) -> Iterator[Finding]:
    """A search ends at a load of its own, so nothing but the load it found can be compared."""
    ends = [
        sorted({run.values["capacity/passed_at"] for run in side.runs if "capacity/passed_at" in run.values})
        for side in (one, two)
    ]
    if ends[0] != ends[1]:
        shown = [", ".join(digits(level) for level in levels) or "none" for levels in ends]
        text = f"measured where each search ended: at a load of {shown[0]} and of {shown[1]}"
        yield Finding("refused", "load", text, AT_A_LOAD)


# --- what was sent ---------------------------------------------------------------------------------------------------


def _prompts(one: Side, two: Side) -> Iterator[Finding]:
    left, right = one.sent, two.sent
    shared, at_left, at_right = np.intersect1d(left.index, right.index, assume_unique=True, return_indices=True)
    if not len(shared):
        yield Finding("refused", "prompts", "no prompt was sent to both sides")
        return
    limits = int((left.max_tokens[at_left] != right.max_tokens[at_right]).sum())
    prompts = int((left.digest[at_left] != right.digest[at_right]).sum())
    if limits:
        yield Finding("refused", "max_tokens", f"different max_tokens in {limits} of {len(shared)} requests")
    elif prompts:
        yield Finding("refused", "prompts", f"different prompts in {prompts} of {len(shared)} requests")
    if any(run.searched for run in (*one.runs, *two.runs)):
        return
    alone = len(left.index) + len(right.index) - 2 * len(shared)
    if alone > 0.05 * len(shared):
        yield Finding("label", "requests", f"{alone} requests were sent to one side only; {len(shared)} to both")


def _live(one: Side, two: Side) -> Iterator[Finding]:
    """With live history each stack's own answers become its input: how far have the inputs drifted apart?"""
    runs = (*one.runs, *two.runs)
    if not any(run.settings.get("workload.history") == "live" and _has_sessions(run) for run in runs):
        return
    if len({str(run.settings.get("workload.history")) for run in runs}) > 1:
        yield Finding("refused", "history", "workload.history differs: one side was sent recorded answers, one its own")
        return
    drift = _drift(one, two)
    shares = [_off_script(side.runs) for side in (one, two)]
    off = ", ".join(f"{side.label} {100 * share:.1f} %" for side, share in zip((one, two), shares, strict=True))
    text = f"live history: answers off the script (a recorded tool not called): {off}"
    if drift is not None:
        text += f"; the inputs differ by {100 * drift:.1f} % in tokens"
    too_far = (drift or 0.0) > LIVE_DRIFT or max(shares) > OFF_SCRIPT
    limits = f"at most {100 * LIVE_DRIFT:g} % of tokens and {100 * OFF_SCRIPT:g} % off the script carry a verdict"
    remedy = "; workload.history=recorded sends every stack the same" if too_far else ""
    yield Finding("refused" if too_far else "label", "live_history", f"{text} ({limits}{remedy})")


def _has_sessions(run: Run) -> bool:
    return run.settings.get("workload.kind") == "sessions"


def _off_script(runs: Sequence[Run]) -> float:
    """Share of the completed answers that left a recorded tool call out."""
    off = sum(run.metrics.number("requests_off_script") or 0 for run in runs)
    return off / max(1, sum(run.metrics.number("requests_completed") or 0 for run in runs))


def _drift(one: Side, two: Side) -> float | None:
    """By how much the inputs of later turns differ, beside what the two tokenizers make of the same first turns.

    Over turns that both sides sent, so that sessions which ended early weigh on neither.
    """
    left, right = _inputs(one.runs), _inputs(two.runs)
    shared = left.keys() & right.keys()
    first = [at for at in shared if left[at][0] == 0]
    later = [at for at in shared if left[at][0] > 0]
    if not first or not later:
        return None
    scale = sum(right[at][1] for at in first) / sum(left[at][1] for at in first)
    ratio = sum(right[at][1] for at in later) / sum(left[at][1] for at in later)
    return abs(ratio / scale - 1)


def _inputs(runs: Sequence[Run]) -> dict[int, tuple[int, float]]:
    """Index → (turn, mean input tokens) of completed requests."""
    found: dict[int, list[float]] = {}
    turns: dict[int, int] = {}
    for run in runs:
        sent = run.requests
        good = sent.completed & np.isfinite(sent.input_tokens) & np.isfinite(sent.turn)
        for index, turn, tokens in zip(sent.index[good], sent.turn[good], sent.input_tokens[good], strict=True):
            found.setdefault(int(index), []).append(float(tokens))
            turns[int(index)] = int(turn)
    return {index: (turns[index], sum(values) / len(values)) for index, values in found.items() if sum(values)}


def aligned(one: Requests, two: Requests, metric: str) -> tuple[Floats, Floats] | None:
    """A metric's values of two runs, prompt by prompt, in the order that the first side sent them.

    None unless most requests have a partner with the same prompt: pairing must not throw evidence away.
    """
    left, right = getattr(one, metric), getattr(two, metric)
    _, at_one, at_two = np.intersect1d(one.index, two.index, assume_unique=False, return_indices=True)
    order = np.argsort(at_one)
    at_one, at_two = at_one[order], at_two[order]
    fit = (
        one.completed[at_one]
        & two.completed[at_two]
        & (one.digest[at_one] == two.digest[at_two])
        & np.isfinite(left[at_one])
        & np.isfinite(right[at_two])
    )
    if fit.sum() < 0.9 * max(one.completed.sum(), two.completed.sum()):
        return None
    return left[at_one][fit], right[at_two][fit]


# --- what came back --------------------------------------------------------------------------------------------------


def _outputs(one: Side, two: Side) -> Iterator[Finding]:
    means = [_mean([run.values.get("output_tokens/mean") for run in side.runs]) for side in (one, two)]
    if means[0] is None or means[1] is None or min(means[0], means[1]) <= 0:
        return
    longer, shorter = (one, two) if means[0] >= means[1] else (two, one)
    high, low = max(means[0], means[1]), min(means[0], means[1])
    if high / low - 1 > OUTPUT_TOLERANCE:
        forced = all(bool(run.settings.get("workload.force_output")) for run in (*one.runs, *two.runs))
        graded = any(run.requests.graded for run in (*one.runs, *two.runs))
        remedy = "workload.force_output=true evens them out"
        if forced:
            remedy = "the server did not hold the length asked for"
        elif graded:
            remedy = "what is graded may be as long as it likes"
        text = (
            f"{longer.label}'s answers are {100 * (high / low - 1):.0f} % longer than {shorter.label}'s "
            f"({digits(high)} against {digits(low)} tokens), which latency, requests/s and cost follow; {remedy}"
        )
        yield Finding("label", "output_tokens", text, _LENGTH_MATTERS)


def _errors(one: Side, two: Side) -> Iterator[Finding]:
    rates = [_mean([run.values.get("error_rate") for run in side.runs]) or 0.0 for side in (one, two)]
    if abs(rates[0] - rates[1]) > ERROR_RATE_GAP:
        side = one if rates[0] > rates[1] else two
        text = (
            f"{side.label} failed {100 * max(rates):.1f} % of its requests ({100 * min(rates):.1f} % on the other side)"
        )
        text += "; failed requests have no latency, so the slow ones may be missing"
        yield Finding("label", "errors", text, about=side.label)


def _censored(one: Side, two: Side) -> Iterator[Finding]:
    for side in (one, two):
        cut = sum(int((~run.requests.completed & ~run.requests.failed).sum()) for run in side.runs)
        if cut:
            yield Finding(
                "label",
                "unfinished",
                f"{side.label}: {cut} requests were cut by run.grace_s; its tail is censored",
                about=side.label,
            )


def _mean(values: Sequence[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    return sum(known) / len(known) if known else None


_TESTS: tuple[Callable[[Side, Side], Iterator[Finding]], ...] = (
    _validity,
    _rough,
    _rehearsal,
    _status,
    _versions,
    _settings,
    _searches,
    _prompts,
    _live,
    _outputs,
    _errors,
    _censored,
)
