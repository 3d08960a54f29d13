"""Does grading bend the times? The same load with and without a quality, in pairs; and how fast rules grade.

    python benchmarks/quality_timing.py [--streams 64] [--requests 512] [--rounds 1]

An endpoint without slots whose times are known (TTFT 200 ms, 20 ms a token, 128 tokens) is asked sums, with
`quality=none` (A) and with `quality=number` (B), in the order A B B A: a machine that slowly changes spoils neither
side. Then once more with a function as the grader, which notes when it is first called: after the wire was silent.
Last, 10,000 answers of 600 characters through every rule.
Exit status 1 when a bar is missed.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from statistics import mean

import llmexp
from llmexp.api import Job

TTFT_MS, GAP_MS, TOKENS = 200.0, 20.0, 128
BARS = {64: (0.5, 3.0, 0.005), 256: (1.0, 8.0, 0.005), 1024: (2.0, 20.0, 0.01)}
"""By streams: ms that TTFT p50 and p99 may differ by, and the share that tokens/s may."""
ANSWERS, SECONDS = 10_000, 10.0
RULES = ("exact", "contains", "choice", "number", "regex", "json", "overlap")
FIRST_CALL: list[int] = []


def noted(answer: str, expected: object, request: object) -> float:  # noqa: ARG001 -- the form of a grader
    """A grader that notes when it is called, on the clock of the records."""
    FIRST_CALL.append(time.monotonic_ns())
    return 1.0


def main() -> int:
    """Measure and judge; 1 where a bar is missed."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--streams", type=int, default=64, help="requests in flight (64)")
    parser.add_argument("--requests", type=int, default=512, help="requests of each load (512)")
    parser.add_argument("--rounds", type=int, default=1, help="times A B B A (1)")
    asked = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        loads = list(_loads(asked.streams, asked.requests, asked.rounds, Path(folder)))
        held = [_compared(loads, asked.streams), _after_the_wire(asked.streams, asked.requests, Path(folder))]
    held.append(_rules())
    print("bars: " + ("held" if all(held) else "missed"))
    return 0 if all(held) else 1


def _loads(streams: int, count: int, rounds: int, folder: Path) -> Iterator[tuple[str, Job]]:
    for number in range(rounds):
        for place, kind in enumerate(("none", "number", "number", "none")):
            yield kind, _job(streams, count, f"quality={kind}", folder / f"{number}-{place}")


def _job(streams: int, count: int, quality: str, directory: Path) -> Job:
    return llmexp.run(
        [
            *("model=simulated", "workload=arithmetic", *quality.split(), "tracking=none", f"concurrency={streams}"),
            f"model.deployment.profile.ttft.mean_s={TTFT_MS / 1000}",
            *("model.deployment.profile.ttft.cv=0", "model.deployment.profile.inter_token.cv=0"),
            f"model.deployment.profile.inter_token.mean_s={GAP_MS / 1000}",
            *("model.deployment.profile.slots=null", "model.deployment.profile.accuracy=null"),
            f"workload.output_tokens={{dist: fixed, mean: {TOKENS}}}",
            *(f"run.max_requests={count}", f"hydra.run.dir={directory}"),
        ]
    )


def _compared(loads: list[tuple[str, Job]], streams: int) -> bool:
    print("quality   TTFT p50, ms  p99, ms   tokens/s  loop lag p99, ms  validity")
    for kind, job in loads:
        p50, p99, rate = _figures(job)
        lag = (job.metrics.number("client/loop_lag_s/p99") or 0) * 1000
        print(f"{kind:<8}  {p50:>12.2f}  {p99:>7.2f}  {rate:>9.1f}  {lag:>16.2f}  {job.validity}")
    sides = [[_figures(job) for kind, job in loads if kind == side] for side in ("none", "number")]
    (p50, p99, rate), (p50_graded, p99_graded, rate_graded) = (
        [mean(each) for each in zip(*one, strict=True)] for one in sides
    )
    print(f"ratio     {p50_graded / p50:>12.4f}  {p99_graded / p99:>7.4f}  {rate_graded / rate:>9.4f}")
    most_p50, most_p99, most_rate = BARS.get(streams, BARS[1024])
    return (
        abs(p50_graded - p50) <= most_p50
        and p99_graded - p99 <= most_p99
        and abs(rate_graded / rate - 1) <= most_rate
        and all(job.status == "finished" for _, job in loads)
    )


def _figures(job: Job) -> tuple[float, float, float]:
    numbers = [job.metrics.number(name) or 0.0 for name in ("ttft_s/p50", "ttft_s/p99", "output_tokens_per_s")]
    return numbers[0] * 1000, numbers[1] * 1000, numbers[2]


def _after_the_wire(streams: int, count: int, folder: Path) -> bool:
    import quality_timing  # type: ignore[import-not-found] # this file, as the job imports it

    job = _job(streams, min(count, 2 * streams), "quality=function quality.function=quality_timing:noted", folder / "f")
    last, first = int(job.requests()["end_ns"].max()), min(quality_timing.FIRST_CALL)
    print(f"the first grade came {(first - last) / 1e6:.1f} ms after the last byte of the load")
    return bool(first > last)


def _rules() -> bool:
    from llmexp.config import Quality
    from llmexp.quality.build import build
    from llmexp.quality.grade import Given

    text = "First there were 12 apples, then 30 more came, at $1.50 each. " * 9 + "\nThe answer is (B), **42**."
    held = True
    for kind in RULES:
        pattern = {"pattern": r"answer is \((\w)\)"} if kind == "regex" else {}
        grade, began = build(Quality.model_validate({"kind": kind, **pattern})), time.perf_counter()
        for at in range(ANSWERS):
            grade(Given(f"{at} {text}", "B 42", question="Which?\nA. 41\nB. 42"))
        took = time.perf_counter() - began
        print(f"{ANSWERS:,} answers by {kind:<8}: {took:.2f} s")
        held = held and took < SECONDS
    return held


if __name__ == "__main__":
    sys.exit(main())
