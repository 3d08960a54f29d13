"""Shows that verdicts on right answers keep their promises, on simulated grades.

    python benchmarks/quality_bars.py                 everything, a few minutes
    python benchmarks/quality_bars.py errors power    two of them

Two stacks, one load, 300 prompts × 3 repeats; every sweep is decided as a real one is, speed and right answers in one
family.

- `errors`: stacks that are alike, answers drawn anew in each repeat: at most 27 of 400 sweeps contain a false `lower`,
  `higher`, `better` or `worse`. A true loss equal to the margin: at most 27 of 400 say `not_worse`.
- `power`: equal stacks, 80 % right, answers that agree by prompt (correlation 0.45): `not_worse` at a margin of 5
  points in at least 80 %. 85 against 75 % right, drawn anew: called at a margin of 2 points in at least 90 %.
- `pairing`: on one data set with correlation 0.67 the paired interval is at most 0.6 times as wide as the unpaired one.
- `repeated`: the same figures where a stack gives the same answer in each repeat, so that three say one thing once.
- `speed`: grading 10,000 answers by rules takes less than 10 s.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "tests"))

from support.synthetic import Truth, config  # type: ignore[import-not-found]

from llmexp.compare import Options, Run, compare
from llmexp.compare.shares import Answers, difference
from llmexp.results import parse
from llmexp.results.requests import Requests

SWEEPS = 400
PROMPTS, REPEATS = 300, 3
CV, CV_BETWEEN = 0.3, 0.02
Bar = Iterator[tuple[str, str, bool]]
FALSE = {"lower", "higher", "better", "worse"}


@dataclass(frozen=True)
class Case:
    """Two stacks' answers."""

    one: float
    two: float
    correlation: float = 0.0
    """Of answers to the same prompt, whoever gives them."""
    repeated: bool = False
    """A stack gives the same answer in each repeat."""
    margin: float = 0.02


def sweep(case: Case, rng: np.random.Generator) -> list[Run]:
    """One sweep's runs."""
    chances = [_chances(share, case.correlation, rng) for share in _shares(case)]
    if case.correlation and case.one == case.two:
        chances[1] = chances[0]
    elif case.correlation:
        chances[1] = chances[0] * case.two / case.one
    settled = [rng.random(PROMPTS) < chance for chance in chances]
    runs = []
    for repeat in range(REPEATS):
        for at, name in enumerate(("one", "two")):
            right = settled[at] if case.repeated else rng.random(PROMPTS) < chances[at]
            truth = Truth(model=name, repeat=repeat, requests=PROMPTS, right=0.5, margin=case.margin)
            runs.append(_run(truth, right.astype(float), rng))
    return runs


def _shares(case: Case) -> tuple[float, float]:
    return case.one, case.two


def _chances(share: float, correlation: float, rng: np.random.Generator) -> np.ndarray:
    """How likely each prompt is answered rightly: a beta distribution whose variance is the correlation's."""
    if not correlation:
        return np.full(PROMPTS, share)
    weight = 1 / correlation - 1
    return np.asarray(rng.beta(share * weight, (1 - share) * weight, PROMPTS))


_CONFIGS: dict[tuple[str, float], dict[str, object]] = {}


def _run(truth: Truth, right: np.ndarray, rng: np.random.Generator) -> Run:
    tree = _CONFIGS.setdefault((truth.model, truth.margin), config(truth))
    mean = 0.2 * np.exp(rng.normal(0, CV_BETWEEN))
    sigma = np.sqrt(np.log1p(CV * CV))
    ttft = mean * np.exp(rng.normal(-sigma * sigma / 2, sigma, PROMPTS))
    index, flags, blank = np.arange(PROMPTS), np.ones(PROMPTS, dtype=bool), np.full(PROMPTS, np.nan)
    requests = Requests(
        index=index,
        completed=flags,
        failed=~flags,
        started_s=index.astype(float),
        ended_s=index + ttft,
        ttft_s=ttft,
        e2e_latency_s=ttft,
        time_per_output_token_s=blank,
        response_ttft_s=ttft,
        response_latency_s=ttft,
        input_tokens=np.full(PROMPTS, 128.0),
        output_tokens=np.full(PROMPTS, 64.0),
        max_tokens=np.full(PROMPTS, 64.0),
        turn=blank,
        digest=index.astype("S16"),
        right=right,
        answer=index.astype("S16"),
    )
    job = {"id": f"{truth.model}-{truth.repeat}", "model": truth.model, "repeat": truth.repeat, "sweep": "s"}
    spread = {"mean": float(ttft.mean()), "count": PROMPTS}
    metrics = {"ttft_s": spread, "right_share": float(right.mean())}
    return Run(parse({"job": job, "config": tree, "metrics": metrics}, "made up"), None, requests)


def calls(case: Case, seed: int) -> tuple[Counter[str], int]:
    """The verdict on right answers in so many sweeps; and in how many of them any verdict told a difference."""
    rng, found, told = np.random.default_rng(seed), Counter[str](), 0
    for _ in range(SWEEPS):
        comparison = compare(sweep(case, rng), Options())
        (right,) = comparison.rights
        found[right.call] += 1
        told += bool({right.call, *(verdict.call for verdict in comparison.verdicts)} & FALSE)
    return found, told


# --- the bars --------------------------------------------------------------------------------------------------------

ALIKE = Case(0.8, 0.8)
AGREEING = Case(0.8, 0.8, correlation=0.45, margin=0.05)
UNLIKE = Case(0.75, 0.85)


def errors(*, repeated: bool = False) -> Bar:
    """False verdicts, of either kind."""
    how = "the same in each repeat" if repeated else "drawn anew"
    for at, case in enumerate((ALIKE, replace(ALIKE, correlation=0.45), Case(0.95, 0.95), Case(0.5, 0.5))):
        _, told = calls(replace(case, repeated=repeated), 100 + at)
        agreeing = f", correlation {case.correlation:g}" if case.correlation else ""
        yield f"A/A, {100 * case.one:g} % right{agreeing}, {how}", f"{told} of {SWEEPS} false (bar: 27)", told <= 27
    for at, (start, margin, correlation) in enumerate(
        ((0.8, 0.02, 0.0), (0.8, 0.05, 0.0), (0.8, 0.05, 0.45), (0.97, 0.02, 0.0), (0.97, 0.02, 0.45))
    ):
        case = Case(start, start - margin, correlation, repeated, margin)
        found, _ = calls(case, 200 + at)
        wrong = found["not_worse"]
        agreeing = f", correlation {correlation:g}" if correlation else ""
        text = f"a loss of {100 * margin:g} points, the margin, from {100 * start:g} %{agreeing}, {how}"
        yield text, f"{wrong} of {SWEEPS} say not_worse (bar: 27)", wrong <= 27


def power() -> Bar:
    """How often the truth is told."""
    found, _ = calls(AGREEING, 300)
    share = found["not_worse"] / SWEEPS
    yield "equal, 80 %, correlation 0.45, margin 5 points", f"not_worse in {share:.1%} (bar: 80 %)", share >= 0.8
    found, _ = calls(UNLIKE, 301)
    share = found["better"] / SWEEPS
    yield "85 against 75 %, drawn anew, margin 2 points", f"called in {share:.1%} (bar: 90 %)", share >= 0.9


def repeated() -> Bar:
    """The same figures where repeats repeat their answers: no bar but the false verdicts, for they know less."""
    yield from errors(repeated=True)
    for case, verdict, words in (
        (AGREEING, "not_worse", "equal, 80 %, correlation 0.45, margin 5 points"),
        (UNLIKE, "better", "85 against 75 %, margin 2 points"),
    ):
        found, _ = calls(replace(case, repeated=True), 400)
        yield f"{words}, the same in each repeat", f"{verdict} in {found[verdict] / SWEEPS:.1%}", True


def pairing() -> Bar:
    """One data set with correlation 0.67, with its pairs and without."""
    one = np.repeat([1.0, 1.0, 0.0, 0.0], [224, 16, 16, 44])
    two = np.repeat([1.0, 0.0, 1.0, 0.0], [224, 16, 16, 44])
    prompts = np.arange(PROMPTS).astype("S16")
    block = np.zeros(PROMPTS, dtype=np.int64)
    widths = []
    for theirs in (prompts, np.char.add(prompts, b"x")):
        found = difference(Answers(prompts, block, one), Answers(theirs, block, two))
        assert found is not None
        low, high = found.interval(0.05)
        widths.append(high - low)
    ratio, correlation = widths[0] / widths[1], float(np.corrcoef(one, two)[0, 1])
    text = f"paired against unpaired width, correlation {correlation:.2f}"
    yield text, f"{ratio:.3f} (bar: 0.6)", ratio <= 0.6


def speed() -> Bar:
    """Grading, from the file to the file."""
    from llmexp import records
    from llmexp.config import Quality
    from llmexp.quality.build import build
    from llmexp.quality.grading import attach, grade_all

    text = "First there were 12 apples, then 30 more came, at $1.50 each. " * 12 + "The answer is 42."
    for kind in ("exact", "contains", "choice", "number", "json", "overlap"):
        with tempfile.TemporaryDirectory() as folder:
            directory = Path(folder)
            with records.Writer(directory, {"wall_ns": 0, "monotonic_ns": 0}) as writer:
                for start in range(0, 10_000, 500):
                    writer.append(records.to_batch([_record(index, text) for index in range(start, start + 500)]))
            records.to_parquet(directory)
            began = time.process_time()
            grader = build(Quality.model_validate({"kind": kind}))
            attach(directory, grade_all(directory, grader), keep_texts=False)
            seconds = time.process_time() - began
        yield f"grading 10,000 answers of 750 characters, {kind}", f"{seconds:.1f} s of CPU (bar: 10 s)", seconds < 10


def _record(index: int, text: str):  # type: ignore[no-untyped-def]
    from support.samples import record  # type: ignore[import-not-found]

    return record(index, sent=0.0, chunks=[0.5], tokens=[4], text=text, expected='"42 B"', question="How many?")


BARS: dict[str, Callable[[], Bar]] = {
    "errors": errors,
    "power": power,
    "pairing": pairing,
    "repeated": repeated,
    "speed": speed,
}


def main(arguments: Sequence[str] | None = None) -> int:
    """Show the bars; 1 when one is missed."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("bars", nargs="*", choices=[*BARS, []], default=[], help="which ones (all)")
    asked = parser.parse_args(arguments)
    missed = 0
    for name in asked.bars or BARS:
        for text, found, kept in BARS[name]():
            print(f"{'ok    ' if kept else 'MISSED'}  {text}: {found}", flush=True)
            missed += not kept
    return int(missed > 0)


if __name__ == "__main__":
    sys.exit(main())
